//! Blocks that belong to this process: their bytes, and what becomes of them.

use std::{marker::PhantomData, mem::ManuallyDrop, ops::Deref, ptr::NonNull};

use zerocopy::{Immutable, TryFromBytes};

use crate::{alloc::Block, attachment::Attachment, region::lanes::BlockId, ring::transfer::TRAILER};

/// A block that this process owns. Dropping it frees it.
///
/// It keeps the process attached without an atomic: see [`tally`](crate::sys::tally). What is done with it in the common case is
/// inlined into whoever does it, and hands on its fields one by one: a structure that is written word by word and then moved
/// in larger pieces makes the processor wait for the writes.
#[derive(Debug)]
pub struct Lease {
    /// Lives as long as its guests do, of which this is one.
    attachment: NonNull<Attachment>,
    /// The first byte of the payload.
    data: NonNull<u8>,
    /// Bytes of the payload, all of which are in the block.
    len: usize,
    id: BlockId,
    generation: u32,
    /// Of the whole block.
    granules: u64,
    /// If it is a message that comes back unless it is acknowledged: the number of its channel + 1; [`PINNED`]; else 0.
    comes_back: u32,
}

/// The block is not this process's own, and stays for as long as a mark of its holder says so: nothing is freed.
const PINNED: u32 = u32::MAX;

// SAFETY: a reference to an attachment, which threads may share, and a block of the process, which any thread may free.
unsafe impl Send for Lease {}
// SAFETY: as above; a shared reference only reads.
unsafe impl Sync for Lease {}

impl Lease {
    /// All bytes of a block that the caller has made this process's own.
    #[inline(always)]
    pub(crate) fn new(attachment: &Attachment, block: Block) -> Self {
        attachment.admit();
        let len = attachment.allocator().bytes_of(block);
        let Block { id, len: granules, generation } = block;
        Self {
            attachment: NonNull::from(attachment),
            data: attachment.data(block),
            len,
            id,
            generation,
            granules,
            comes_back: 0,
        }
    }

    /// The bytes of a message that was received; `comes_back` is the number of its channel, if it does so.
    #[inline(always)]
    pub(crate) fn received(attachment: &Attachment, block: Block, comes_back: Option<usize>) -> Self {
        let mut lease = Self::new(attachment, block);
        if let Some(index) = comes_back {
            lease.comes_back = index as u32 + 1;
            lease.len -= TRAILER;
        }
        lease
    }

    /// The bytes of a message that others read, too. It stays for as long as the caller pins it, who drops this before.
    #[inline(always)]
    pub(crate) fn pinned(attachment: &Attachment, block: Block) -> Self {
        let mut lease = Self::new(attachment, block);
        lease.comes_back = PINNED;
        lease
    }

    /// Whether the message comes back unless it is acknowledged.
    pub(crate) fn is_recallable(&self) -> bool {
        self.comes_back != 0
    }

    /// How often the message was delivered, this time included.
    pub(crate) fn deliveries(&self) -> u32 {
        if self.comes_back == 0 || !self.attachment().is_usable() {
            return 1;
        }
        self.attachment().trailer(self.block()).tries().saturating_add(1)
    }

    /// The bytes from the start of the block to the end of the payload.
    pub(crate) fn used(&self) -> &[u8] {
        let first = self.attachment().data(self.block());
        let before = self.data.as_ptr() as usize - first.as_ptr() as usize;
        // SAFETY: as in `bytes`; what stands before the payload does not change either.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), before + self.len) }
    }

    /// The message goes back into its channel.
    pub(crate) fn give_back(&self) {
        self.attachment().give_back(self.block());
    }

    /// The block is no longer needed. To be called where nothing is dropped afterwards.
    pub(crate) fn let_go(&self) {
        match self.comes_back.checked_sub(1) {
            None => self.attachment().free(self.block()),
            Some(index) => self.attachment().acknowledge(self.block(), Some(index as usize)),
        }
    }

    /// The `len` bytes from `start` on; `None` if there are not so many, and then the block is freed.
    #[inline(always)]
    pub(crate) fn narrow(self, start: usize, len: usize) -> Option<Self> {
        if start > self.len || len > self.len - start {
            return None;
        }
        let mut narrow = self.apart();
        // SAFETY: `start` is within the payload.
        narrow.data = unsafe { narrow.data.add(start) };
        narrow.len = len;
        Some(narrow)
    }

    /// The block.
    #[inline(always)]
    pub(crate) fn block(&self) -> Block {
        Block { id: self.id, len: self.granules, generation: self.generation }
    }

    /// The block has its next generation, as whoever moves it says in its word right after this.
    pub(crate) fn renew(&mut self) {
        self.generation = self.block().renewed().generation;
    }

    /// The process's hold on the segment that the block is in.
    #[inline(always)]
    pub(crate) fn attachment(&self) -> &Attachment {
        // SAFETY: it lives as long as this.
        unsafe { self.attachment.as_ref() }
    }

    /// The payload, to be written by who has allocated the block.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and this borrow of the lease is the only one.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }

    /// The payload.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes from `data` on are in a block (kept by `new` and `narrow`), which is mapped as long as the
        // attachment lives, and is this process's own: its bytes do not change until the lease is dropped. (A process of the
        // same user that writes where it must not is outside of what Rust can promise; the segment is private to that user.)
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

/// How a received payload is held: in place, and checked.
pub trait Held: Sized {
    /// The block.
    fn lease(&self) -> &Lease;

    /// The same, moved field by field.
    fn apart(self) -> Self;

    /// Lets `taker` have the block of the lease. If it takes it (`Ok`), the block is no longer the holder's to free; if
    /// not, the holder comes back, with the generation that the block has by then.
    fn give<E>(self, taker: impl FnOnce(&mut Lease) -> Result<(), E>) -> Result<(), (E, Self)>;
}

impl Held for Lease {
    #[inline(always)]
    fn lease(&self) -> &Lease {
        self
    }

    #[inline(always)]
    fn apart(self) -> Self {
        let Self { attachment, data, len, id, generation, granules, comes_back } = *ManuallyDrop::new(self);
        Self { attachment, data, len, id, generation, granules, comes_back }
    }

    fn give<E>(self, taker: impl FnOnce(&mut Lease) -> Result<(), E>) -> Result<(), (E, Self)> {
        // Before it is given: whatever happens in between, nobody frees a block that is somebody else's.
        let mut this = Given(ManuallyDrop::new(self));
        match taker(&mut this.0) {
            Ok(()) => Ok(()),
            Err(error) => Err((error, this.back())),
        }
    }
}

/// A lease whose block is somebody else's, as far as anybody knows: also if whoever takes it panics, as it does when the block is on
/// its way, and somebody's waker panics.
struct Given(ManuallyDrop<Lease>);

impl Given {
    /// The block was not taken.
    fn back(self) -> Lease {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not used again, and not dropped.
        unsafe { ManuallyDrop::take(&mut this.0) }
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        // SAFETY: the lease is not used again.
        unsafe { Attachment::dismiss(self.0.attachment) };
    }
}

impl<T: ?Sized> Held for Typed<T> {
    #[inline(always)]
    fn lease(&self) -> &Lease {
        &self.lease
    }

    #[inline(always)]
    fn apart(self) -> Self {
        Self { lease: self.lease.apart(), payload: PhantomData }
    }

    fn give<E>(self, taker: impl FnOnce(&mut Lease) -> Result<(), E>) -> Result<(), (E, Self)> {
        self.lease.give(taker).map_err(|(error, lease)| (error, Self { lease, payload: PhantomData }))
    }
}

impl Drop for Lease {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the block is this process's, and nobody uses this any more.
        unsafe { end(self.attachment, self.id, self.generation, self.granules, self.comes_back) };
    }
}

/// The end of a lease. A function that is called, and gets what it needs in registers: so the lease itself never has to be in
/// memory.
///
/// # Safety
///
/// The lease is not used again.
#[inline(never)]
unsafe fn end(this: NonNull<Attachment>, id: BlockId, generation: u32, len: u64, comes_back: u32) {
    // SAFETY: as in `Lease::attachment`.
    let attachment = unsafe { this.as_ref() };
    let block = Block { id, len, generation };
    match comes_back.checked_sub(1) {
        None => attachment.free(block),
        Some(_) if comes_back == PINNED => {}
        // Whoever panics has not done its work.
        Some(_) if std::thread::panicking() => attachment.give_back(block),
        Some(index) => attachment.acknowledge(block, Some(index as usize)),
    }
    // SAFETY: it was admitted when the lease was made, and that is all.
    unsafe { Attachment::dismiss(this) };
}

/// A block that holds a `T`, or as many as there is room for.
#[derive(Debug)]
pub struct Typed<T: ?Sized> {
    lease: Lease,
    payload: PhantomData<T>,
}

impl<T: TryFromBytes + Immutable> Typed<T> {
    /// Checks that the payload is a `T`; if not, the block is freed.
    #[inline(always)]
    pub(crate) fn new(lease: Lease) -> Option<Self> {
        // An array of one has the layout of its element, and is what zerocopy knows the layout of.
        <[T; 1]>::try_ref_from_bytes(lease.bytes()).is_ok().then_some(())?;
        Some(Self { lease, payload: PhantomData })
    }

    /// Copies the value out.
    #[inline(always)]
    pub(crate) fn read(&self) -> T {
        // SAFETY: `new` has found a `T` there: length, alignment and bits; see `Lease::bytes` for why it still is.
        unsafe { self.lease.bytes().as_ptr().cast::<T>().read() }
    }
}

impl<T: TryFromBytes + Immutable> Deref for Typed<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: `new` has found a `T` there: length, alignment and bits; see `Lease::bytes` for why it still is.
        unsafe { &*self.lease.bytes().as_ptr().cast::<T>() }
    }
}

impl<T: TryFromBytes + Immutable> Typed<[T]> {
    /// Checks that the payload is elements; if not, the block is freed.
    #[inline(always)]
    pub(crate) fn new_slice(lease: Lease) -> Option<Self> {
        <[T]>::try_ref_from_bytes(lease.bytes()).is_ok().then_some(())?;
        Some(Self { lease, payload: PhantomData })
    }

    /// Copies one of the elements out.
    ///
    /// # Panics
    ///
    /// If there is none of that number.
    #[inline]
    pub(crate) fn read_at(&self, index: usize) -> T {
        // SAFETY: a reference to a `T`, whose bits are copied, as in `read`.
        unsafe { std::ptr::from_ref(&self[index]).read() }
    }

    /// Copies all of them out.
    pub(crate) fn to_vec(&self) -> Vec<T> {
        let mut values = Vec::with_capacity(self.len());
        // SAFETY: there is room for so many, and their bits are copied, as in `read`.
        unsafe {
            std::ptr::copy_nonoverlapping(self.as_ptr(), values.as_mut_ptr(), self.len());
            values.set_len(self.len());
        }
        values
    }
}

impl<T: TryFromBytes + Immutable> Deref for Typed<[T]> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        let bytes = self.lease.bytes();
        // SAFETY: `new` has found so many `T` there, as above.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast::<T>(), bytes.len() / size_of::<T>()) }
    }
}

/// The value stands in the segment, whoever holds it.
impl<T: ?Sized> Unpin for Typed<T> {}

// SAFETY: a lease gives shared access to bytes, and frees the block from whatever thread drops it; a `T` is only ever
// handed out by reference or by copy.
unsafe impl<T: Sync + ?Sized> Sync for Typed<T> {}
// SAFETY: as above.
unsafe impl<T: Send + ?Sized> Send for Typed<T> {}
