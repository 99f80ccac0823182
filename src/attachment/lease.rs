//! Blocks that belong to this process: their bytes, and what becomes of them.

use std::{marker::PhantomData, mem::ManuallyDrop, ops::Deref, ptr, sync::Arc};

use zerocopy::{Immutable, KnownLayout, TryFromBytes};

use crate::{alloc::Block, attachment::Attachment, ring::transfer::TRAILER};

/// A block that this process owns. Dropping it frees it.
#[derive(Debug)]
pub struct Lease {
    attachment: Arc<Attachment>,
    block: Block,
    /// Where the payload begins, in bytes from the start of the block.
    start: u32,
    /// If it is a message that comes back unless it is acknowledged: the number of its channel + 1; else 0.
    comes_back: u32,
    /// Bytes of the payload. `start + len` is at most the length of the block.
    len: usize,
}

impl Lease {
    /// All bytes of a block that the caller has made this process's own.
    #[inline]
    pub(crate) fn new(attachment: Arc<Attachment>, block: Block) -> Self {
        let len = attachment.allocator().bytes_of(block);
        Self { attachment, block, start: 0, comes_back: 0, len }
    }

    /// The bytes of a message that was received; `comes_back` is the number of its channel, if it does so.
    #[inline(always)]
    pub(crate) fn received(attachment: Arc<Attachment>, block: Block, comes_back: Option<usize>) -> Self {
        let mut lease = Self::new(attachment, block);
        if let Some(index) = comes_back {
            lease.comes_back = index as u32 + 1;
            lease.len -= TRAILER;
        }
        lease
    }

    /// Whether the message comes back unless it is acknowledged.
    pub(crate) fn is_recallable(&self) -> bool {
        self.comes_back != 0
    }

    /// How often the message was delivered, this time included.
    pub(crate) fn deliveries(&self) -> u32 {
        if self.comes_back == 0 || !self.attachment.is_usable() {
            return 1;
        }
        self.attachment.trailer(self.block).tries().saturating_add(1)
    }

    /// The bytes from the start of the block to the end of the payload.
    pub(crate) fn used(&self) -> &[u8] {
        let data = self.attachment.data(self.block);
        // SAFETY: as in `bytes`; what stands before the payload does not change either.
        unsafe { std::slice::from_raw_parts(data.as_ptr(), self.start as usize + self.len) }
    }

    /// The message goes back into its channel.
    pub(crate) fn give_back(&self) {
        self.attachment.give_back(self.block);
    }

    /// The block is no longer needed. To be called where nothing is dropped afterwards.
    pub(crate) fn let_go(&self) {
        match self.comes_back.checked_sub(1) {
            None => self.attachment.free(self.block),
            Some(index) => self.attachment.acknowledge(self.block, Some(index as usize)),
        }
    }

    /// The `len` bytes from `start` on; `None` if there are not so many, and then the block is freed.
    #[inline]
    pub(crate) fn narrow(self, start: usize, len: usize) -> Option<Self> {
        if start > self.len || len > self.len - start {
            return None;
        }
        let mut narrow = self;
        narrow.start += start as u32;
        narrow.len = len;
        Some(narrow)
    }

    /// The block.
    pub(crate) fn block(&self) -> Block {
        self.block
    }

    /// The process's hold on the segment that the block is in.
    pub(crate) fn attachment(&self) -> &Arc<Attachment> {
        &self.attachment
    }

    /// The payload, to be written by who has allocated the block.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let data = self.attachment.data(self.block);
        // SAFETY: as in `bytes`, and this borrow of the lease is the only one.
        unsafe { std::slice::from_raw_parts_mut(data.as_ptr().add(self.start as usize), self.len) }
    }

    /// The payload.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> &[u8] {
        let data = self.attachment.data(self.block);
        // SAFETY: `data` is the start of a block that is mapped as long as the attachment lives, `start + len` is within
        // it (kept by `new` and `narrow`), and the block is this process's own: its bytes do not change until the lease is
        // dropped. (A process of the same user that writes where it must not is outside of what Rust can promise; the
        // segment is private to that user.)
        unsafe { std::slice::from_raw_parts(data.as_ptr().add(self.start as usize), self.len) }
    }
}

/// How a received payload is held: in place, and checked.
pub trait Held: Sized {
    /// The block.
    fn lease(&self) -> &Lease;

    /// Lets `taker` have the block of the lease. If it takes it (`Ok`), the block is no longer the holder's to free; if
    /// not, the holder comes back.
    fn give<E>(self, taker: impl FnOnce(&Lease) -> Result<(), E>) -> Result<(), (E, Self)>;
}

impl Held for Lease {
    fn lease(&self) -> &Lease {
        self
    }

    fn give<E>(self, taker: impl FnOnce(&Lease) -> Result<(), E>) -> Result<(), (E, Self)> {
        // Before it is given: whatever happens in between, nobody frees a block that is somebody else's.
        let this = ManuallyDrop::new(self);
        match taker(&this) {
            Ok(()) => {
                // SAFETY: `this` is not used again, and is not dropped: the hold is moved out of it.
                drop(unsafe { ptr::read(&raw const this.attachment) });
                Ok(())
            }
            Err(error) => Err((error, ManuallyDrop::into_inner(this))),
        }
    }
}

impl<T> Held for Typed<T> {
    fn lease(&self) -> &Lease {
        &self.lease
    }

    fn give<E>(self, taker: impl FnOnce(&Lease) -> Result<(), E>) -> Result<(), (E, Self)> {
        self.lease.give(taker).map_err(|(error, lease)| (error, Self { lease, payload: PhantomData }))
    }
}

impl Drop for Lease {
    #[inline]
    fn drop(&mut self) {
        if self.comes_back != 0 && std::thread::panicking() {
            // Whoever panics has not done its work.
            self.give_back();
        } else {
            self.let_go();
        }
    }
}

/// A block that holds a `T`.
#[derive(Debug)]
pub struct Typed<T> {
    lease: Lease,
    payload: PhantomData<T>,
}

impl<T: TryFromBytes + KnownLayout + Immutable> Typed<T> {
    /// Checks that the payload is a `T`; if not, the block is freed.
    #[inline]
    pub(crate) fn new(lease: Lease) -> Option<Self> {
        T::try_ref_from_bytes(lease.bytes()).is_ok().then_some(())?;
        Some(Self { lease, payload: PhantomData })
    }

    /// Copies the value out.
    #[inline]
    pub(crate) fn read(&self) -> T {
        // SAFETY: `new` has found a `T` there: length, alignment and bits; see `Lease::bytes` for why it still is.
        unsafe { self.lease.bytes().as_ptr().cast::<T>().read() }
    }
}

impl<T: TryFromBytes + KnownLayout + Immutable> Deref for Typed<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: `new` has found a `T` there: length, alignment and bits; see `Lease::bytes` for why it still is.
        unsafe { &*self.lease.bytes().as_ptr().cast::<T>() }
    }
}

/// The value stands in the segment, whoever holds it.
impl<T> Unpin for Typed<T> {}

// SAFETY: a lease gives shared access to bytes, and frees the block from whatever thread drops it; a `T` is only ever
// handed out by reference or by copy.
unsafe impl<T: Sync> Sync for Typed<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Typed<T> {}
