//! [`Allocator`]: makes blocks, and finds them.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    alloc::{
        AllocError, Block as BlockPlace,
        word::{State, Word},
    },
    attachment::{Anchor, Attachment},
    blocks::{
        block::{Block, BlockRef, Content},
        error::HandleError,
        guard::Header,
        raw::RawBlock,
    },
    channel::{Plain, wait::block_on},
    region::lanes::{BlockId, LaneId},
    schema::hash_of,
};

/// The first state of a block that means what the user wants it to mean. Those below are reserved; a new block is in
/// state 0.
pub const FIRST_USER_STATE: u32 = 49;

/// Where a block is, and which of the blocks that were ever there: valid in every process of the segment, until the
/// block is freed, or, if it is a [raw one](RawBlock::into_handle), until somebody takes it. Plain data of 8 bytes, so it can travel as a message or stand in another block.
///
/// A block's place is used again, with another generation. There are 2²⁴ of them, so a handle that was kept while its
/// place was used 16,777,216 times may be taken for a fresh one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Handle {
    pub(super) block: u32,
    pub(super) generation: u32,
}

impl Handle {
    pub(super) fn of(block: BlockPlace) -> Self {
        Self { block: block.id.0, generation: block.generation }
    }
}

/// A block as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockInfo {
    /// Its handle.
    pub handle: Handle,
    /// Bytes of its payload.
    pub len: usize,
    /// Its user's state; 0 in a new block.
    pub state: u32,
    /// The participant that owns it, by its [slot](crate::segment::ParticipantInfo::slot). `None`: that one has just died.
    pub owner: Option<u16>,
    /// Participants with read guards, by their slots.
    pub readers: Vec<u16>,
    /// The participant that has a write guard, or waits for one.
    pub writer: Option<u16>,
    /// Whether a writer died or panicked in the middle.
    pub poisoned: bool,
}

/// A segment's memory, block by block: for those who build something of their own.
///
/// A block belongs to the process that allocated it, and is freed when its [`Block`] is dropped, or when the process ends,
/// however it does. Any process of the segment reads and writes it through its [`Handle`]: many at once may read, or one
/// may write. What somebody has a guard of is never used for anything else: a block that is freed meanwhile goes
/// when the last guard does.
///
/// Cheap to clone. Allocating and freeing are lock-free. Freeing looks once or twice at a word of every
/// lane of the segment, to make sure that nobody is on the way in.
///
/// ```
/// use waterway::{blocks::HandleError, Segment};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let segment = Segment::options().in_process()?;
/// let allocator = segment.allocator();
///
/// let block = allocator.allocate([1.5_f64, 2.5])?;
/// let handle = block.handle();
/// // In this or any other process of the segment:
/// let same = allocator.resolve::<[f64; 2]>(handle)?;
/// same.write()?[0] = 7.0;
/// assert_eq!(*same.read()?, [7.0, 2.5]);
///
/// block.free();
/// assert_eq!(allocator.resolve::<[f64; 2]>(handle).unwrap_err(), HandleError::Stale);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Allocator {
    attachment: Anchor,
}

impl Allocator {
    pub(crate) fn new(attachment: Anchor) -> Self {
        Self { attachment }
    }

    pub(super) fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// A block that holds `value`. Alignments of up to 64 bytes cost nothing, larger ones (up to a page of 4096 bytes)
    /// as many bytes as they are large.
    ///
    /// # Errors
    ///
    /// Any [`AllocError`]: [`OutOfMemory`](AllocError::OutOfMemory) only if no free run of memory is long enough.
    pub fn allocate<T: Plain>(&self, value: T) -> Result<Block<T>, AllocError> {
        let fill = |bytes: &mut [u8]| bytes.copy_from_slice(value.as_bytes());
        self.make(size_of::<T>(), align_of::<T>(), fill)
    }

    /// A block of `len` zeroed bytes, from none to all of a sector but 64, aligned to 64.
    ///
    /// # Errors
    ///
    /// As for [`allocate`](Self::allocate).
    pub fn allocate_bytes(&self, len: usize) -> Result<Block<[u8]>, AllocError> {
        self.make(len, 1, |bytes| bytes.fill(0))
    }

    /// A block of zeroed bytes of this size and alignment, for what cannot be said as a type. Resolved as bytes.
    ///
    /// # Errors
    ///
    /// As for [`allocate`](Self::allocate).
    pub fn allocate_layout(&self, layout: core::alloc::Layout) -> Result<Block<[u8]>, AllocError> {
        self.make(layout.size(), layout.align(), |bytes| bytes.fill(0))
    }

    /// A block of zeroed bytes of this size and alignment, as soon as there is memory for it. Waits without polling, in
    /// line with all who wait so, in any process: who came first is served first, and a large request is not overtaken by
    /// small ones behind it. (Senders, and the methods that do not wait, stand in no line. A process that is stopped, or
    /// wakes its task and does not run it, loses its place after about a second.)
    ///
    /// # Errors
    ///
    /// At once, what waiting would not mend: [`AllocError::TooLarge`], [`AllocError::Alignment`], [`AllocError::Forked`].
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is done, it has allocated nothing, and has lost its place.
    pub async fn allocate_when_free(&self, layout: core::alloc::Layout) -> Result<Block<[u8]>, AllocError> {
        self.attachment.when_free(|| self.allocate_layout(layout)).await
    }

    /// Allocates as [`allocate_when_free`](Self::allocate_when_free), blocking the thread until there is enough.
    ///
    /// # Errors
    ///
    /// As for [`allocate_when_free`](Self::allocate_when_free).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let block = segment.allocator().blocking_allocate(std::alloc::Layout::new::<[u8; 100]>())?;
    /// # drop(block);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_allocate(&self, layout: core::alloc::Layout) -> Result<Block<[u8]>, AllocError> {
        block_on(self.allocate_when_free(layout))
    }

    /// Memory for this process alone, without a header: nobody else can have a handle of it before it is
    /// [given away](RawBlock::into_handle), and it costs the least. Its bytes are what was there before, aligned to 64.
    ///
    /// # Errors
    ///
    /// As for [`allocate`](Self::allocate).
    #[inline(always)]
    pub fn allocate_raw(&self, len: usize) -> Result<RawBlock<'_>, AllocError> {
        RawBlock::new(&self.attachment, len)
    }

    /// Takes a raw block over that somebody has [given away](RawBlock::into_handle), in this or any other process. Of
    /// several who try, one succeeds. It is as long as the memory that it has: what was asked for, rounded up to whole
    /// granules, and sometimes a few more.
    ///
    /// Who builds a queue of their own allocates here and frees there, and sends eight bytes per block:
    ///
    /// ```
    /// use waterway::{blocks::HandleError, Segment};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let segment = Segment::options().in_process()?;
    /// let allocator = segment.allocator();
    ///
    /// let mut block = allocator.allocate_raw(64)?;
    /// block[0] = 7;
    /// let handle = block.into_handle();
    /// // In this or any other process of the segment:
    /// let block = allocator.take_raw(handle)?;
    /// assert_eq!((block[0], block.len()), (7, 64));
    /// assert_eq!(allocator.take_raw(handle).unwrap_err(), HandleError::Stale);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`HandleError::Stale`] if somebody has taken or freed it, or who gave it away has left or died before that;
    /// [`HandleError::WrongType`] if it is not a raw block; [`HandleError::Nonsense`] if it is no handle of this segment.
    #[inline(always)]
    pub fn take_raw(&self, handle: Handle) -> Result<RawBlock<'_>, HandleError> {
        RawBlock::take(&self.attachment, handle)
    }

    /// A block that holds a copy of these bytes.
    ///
    /// # Errors
    ///
    /// As for [`allocate`](Self::allocate).
    pub fn allocate_copy(&self, bytes: &[u8]) -> Result<Block<[u8]>, AllocError> {
        self.make(bytes.len(), 1, |room| room.copy_from_slice(bytes))
    }

    fn make<T: Content + ?Sized>(
        &self,
        len: usize,
        align: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Block<T>, AllocError> {
        let (block, start) = self.attachment.allocate_shared(len, align, hash_of::<T>(), fill)?;
        Ok(Block::new(BlockRef::new(self.attachment.clone(), block, start, len)))
    }

    /// The block of a handle, whoever owns it. The reference does not keep it from being freed; a guard does.
    ///
    /// # Errors
    ///
    /// [`HandleError::Stale`] if the block was freed, [`HandleError::WrongType`] if it was not allocated as a `T`,
    /// [`HandleError::Nonsense`] if it is no handle of this segment.
    pub fn resolve<T: Plain>(&self, handle: Handle) -> Result<BlockRef<T>, HandleError> {
        self.find(handle)
    }

    /// The block of bytes of a handle, whoever owns it. The reference does not keep it from being freed; a guard does.
    ///
    /// # Errors
    ///
    /// As for [`resolve`](Self::resolve).
    pub fn resolve_bytes(&self, handle: Handle) -> Result<BlockRef<[u8]>, HandleError> {
        self.find(handle)
    }

    /// Makes a block this process's own, whoever owned it: it is freed with the `Block` that is returned, and with this
    /// process. The former owner can do with it what everybody can.
    ///
    /// # Errors
    ///
    /// As for [`resolve`](Self::resolve).
    pub fn adopt<T: Content + ?Sized>(&self, handle: Handle) -> Result<Block<T>, HandleError> {
        let found = self.find(handle)?;
        found.adopt()
    }

    /// Frees a block, whoever owns it: at once, or when the last guard goes. A [raw block](RawBlock::into_handle) that was
    /// given away, too, as if it was taken and dropped, but faster.
    ///
    /// # Errors
    ///
    /// [`HandleError::Stale`] if that was done before, or the raw block was taken; [`HandleError::Nonsense`] if it is no
    /// handle of this segment.
    #[inline]
    pub fn free(&self, handle: Handle) -> Result<(), HandleError> {
        if self.attachment.free_loose_at_hand(BlockId(handle.block), handle.generation) {
            return Ok(());
        }
        self.free_slowly(handle)
    }

    #[inline(never)]
    fn free_slowly(&self, handle: Handle) -> Result<(), HandleError> {
        match self.users_block(handle, "a block with a header") {
            // The value of a watch is nobody's to free but the watch's.
            Ok(block) if self.attachment.is_value(block)? => {
                Err(HandleError::WrongType { expected: "a block with a header" })
            }
            Ok(block) => self.attachment.doom(block, false),
            Err(HandleError::WrongType { .. }) => self.take_raw(handle).map(drop),
            Err(error) => Err(error),
        }
    }

    fn users_block(&self, handle: Handle, expected: &'static str) -> Result<BlockPlace, HandleError> {
        if handle.generation >> 24 != 0 {
            return Err(HandleError::Nonsense);
        }
        self.attachment.find_shared(BlockId(handle.block), handle.generation, expected)
    }

    fn find<T: Content + ?Sized>(&self, handle: Handle) -> Result<BlockRef<T>, HandleError> {
        let block = self.users_block(handle, std::any::type_name::<T>())?;
        let bytes = self.attachment.allocator().bytes_of(block);
        let (kind, shape) = self.attachment.with_header(block, |header, _| (header.kind(), header.shape(bytes)))?;
        if kind != hash_of::<T>() {
            return Err(HandleError::WrongType { expected: std::any::type_name::<T>() });
        }
        let (start, len) = shape.ok_or(HandleError::Nonsense)?;
        Ok(BlockRef::new(self.attachment.clone(), block, start, len))
    }

    /// All blocks of all processes that are not freed, but for raw ones. Takes time in proportion to the size of the segment; blocks that
    /// come or go meanwhile may be among them or not.
    pub fn blocks(&self) -> impl Iterator<Item = BlockInfo> + '_ {
        self.heads().filter_map(|(id, word)| {
            let block = BlockPlace { id, len: word.len(), generation: word.generation() };
            // What the segment owns is the value of a watch.
            let is_users = word.state() == State::Shared && word.lane() != LaneId::SEGMENT;
            is_users.then(|| info(&self.attachment, block).ok()).flatten()
        })
    }

    /// Where blocks begin; nowhere in a forked child.
    fn heads(&self) -> impl Iterator<Item = (BlockId, Word)> + '_ {
        self.attachment.is_usable().then(|| self.attachment.allocator().heads()).into_iter().flatten()
    }

    fn bytes_of(&self, (id, word): (BlockId, Word)) -> usize {
        self.attachment.allocator().sectors()[id.sector()].bytes(word.len()) as usize
    }

    /// Bytes of the longest payload that one block could hold now, as far as free memory is in one piece at the moment.
    /// Takes time in proportion to the size of the segment.
    pub fn largest(&self) -> usize {
        let free = self.heads().filter(|(_, word)| matches!(word.state(), State::Free | State::Cached));
        free.map(|head| self.bytes_of(head)).max().unwrap_or(0).saturating_sub(self.attachment.header_bytes())
    }

    /// Bytes that are free now, in however many pieces. A block takes 64 bytes more than its payload, rounded up to whole
    /// granules. Takes time in proportion to the size of the segment.
    pub fn available(&self) -> usize {
        let free = self.heads().filter(|(_, word)| matches!(word.state(), State::Free | State::Cached));
        free.map(|head| self.bytes_of(head)).sum()
    }

    /// Bytes that blocks and messages of the segment have all together.
    pub fn capacity(&self) -> usize {
        let sectors = &self.attachment.region().header().layout.sectors;
        sectors.iter().map(|sector| sector.bytes(sector.granules) as usize).sum()
    }
}

impl fmt::Debug for Allocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allocator").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

/// What a block is like now.
pub(super) fn info(attachment: &Attachment, block: BlockPlace) -> Result<BlockInfo, HandleError> {
    let bytes = attachment.allocator().bytes_of(block);
    let look = |header: &Header, word: Word| BlockInfo {
        handle: Handle::of(block),
        len: header.shape(bytes).map_or(0, |(_, len)| len),
        // Ordering: Acquire, pairs with whoever set it.
        state: header.state().load(std::sync::atomic::Ordering::Acquire),
        owner: attachment.owner_of(word),
        readers: header.readers().collect(),
        writer: header.writer(),
        poisoned: header.is_poisoned(),
    };
    attachment.with_header(block, look)
}
