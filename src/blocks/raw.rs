//! Memory without a header, for one process at a time.

use std::{
    fmt,
    mem::ManuallyDrop,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    slice,
};

use crate::{
    alloc::AllocError,
    attachment::Attachment,
    blocks::{allocator::Handle, error::HandleError},
    region::lanes::BlockId,
};

/// Memory of a segment that belongs to this process alone: made by
/// [`Allocator::allocate_raw`](crate::blocks::Allocator::allocate_raw), or taken over by
/// [`Allocator::take_raw`](crate::blocks::Allocator::take_raw). Freed when it is dropped, or when the process dies.
pub struct RawBlock<'a> {
    attachment: &'a Attachment,
    data: NonNull<u8>,
    /// `len:40 | generation:24`, so that a block is three words: what is moved about most is small.
    tag: u64,
}

/// Bits of a generation.
const GENERATION: u32 = 24;
/// The longest that a tag can say, in bytes: a tebibyte.
const MOST: usize = (1 << (u64::BITS - GENERATION)) - 1;

#[inline(always)]
fn tag(len: usize, generation: u32) -> u64 {
    (len as u64) << GENERATION | u64::from(generation)
}

// SAFETY: bytes that belong to this process alone, and may be freed by any of its threads.
unsafe impl Send for RawBlock<'_> {}
// SAFETY: as above; a shared reference only reads.
unsafe impl Sync for RawBlock<'_> {}

impl<'a> RawBlock<'a> {
    #[inline(always)]
    pub(super) fn new(attachment: &'a Attachment, len: usize) -> Result<Self, AllocError> {
        let (data, generation) = match attachment.allocate_at_hand(len) {
            Some(found) => found,
            None => attachment.allocate_bytes(len, MOST)?,
        };
        Ok(Self { attachment, data, tag: tag(len, generation) })
    }

    #[inline(always)]
    pub(super) fn take(attachment: &'a Attachment, handle: Handle) -> Result<Self, HandleError> {
        let Handle { block, generation } = handle;
        let (data, generation, len) = match attachment.take_loose_at_hand(BlockId(block), generation) {
            Some(taken) => taken,
            None => attachment.take_loose(BlockId(block), generation)?,
        };
        Ok(Self { attachment, data, tag: tag(len.min(MOST), generation) })
    }

    /// Gives the block away: whoever gets the handle, in any process of the segment, can make it their own by
    /// [`Allocator::take_raw`](crate::blocks::Allocator::take_raw), once, or free it by
    /// [`Allocator::free`](crate::blocks::Allocator::free), unread. What was written to it until now is there then.
    ///
    /// Until somebody does so it is freed when this process leaves or dies. The handle leads to no [`Block`](crate::blocks::Block):
    /// nobody can look into memory that they have not taken.
    #[inline(always)]
    pub fn into_handle(self) -> Handle {
        let given = ManuallyDrop::new(self);
        let generation = given.generation();
        Handle { block: given.attachment.give_away(given.data, generation).0, generation }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        (self.tag >> GENERATION) as usize
    }

    #[inline(always)]
    fn generation(&self) -> u32 {
        self.tag as u32 & ((1 << GENERATION) - 1)
    }
}

impl Deref for RawBlock<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: at least `len` bytes from the start of a block that is this process's own, mapped for as long as the
        // attachment lives; shared memory is always initialised.
        unsafe { slice::from_raw_parts(self.data.as_ptr(), self.len()) }
    }
}

impl DerefMut for RawBlock<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and this borrow is the only one.
        unsafe { slice::from_raw_parts_mut(self.data.as_ptr(), self.len()) }
    }
}

impl Drop for RawBlock<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.attachment.free_bytes(self.data, self.generation(), self.len());
    }
}

impl fmt::Debug for RawBlock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawBlock").field("len", &self.len()).finish_non_exhaustive()
    }
}
