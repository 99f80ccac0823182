//! Memory without a header, for one process.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    slice,
};

use crate::{AllocError, attachment::Attachment, segment::lanes::BlockId};

/// Memory of a segment that belongs to this process alone: made by
/// [`Allocator::allocate_raw`](crate::Allocator::allocate_raw), freed when it is dropped, or when the process dies.
pub struct RawBlock<'a> {
    attachment: &'a Attachment,
    data: NonNull<u8>,
    len: usize,
    id: BlockId,
    generation: u32,
}

// SAFETY: bytes that belong to this process alone, and may be freed by any of its threads.
unsafe impl Send for RawBlock<'_> {}
// SAFETY: as above; a shared reference only reads.
unsafe impl Sync for RawBlock<'_> {}

impl<'a> RawBlock<'a> {
    #[inline(always)]
    pub(super) fn new(attachment: &'a Attachment, len: usize) -> Result<Self, AllocError> {
        let block = match attachment.allocate_at_hand(len) {
            Some(block) => block,
            None => attachment.allocate_block(len)?,
        };
        Ok(Self { attachment, data: attachment.data(block), len, id: block.id, generation: block.generation })
    }
}

impl Deref for RawBlock<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: at least `len` bytes from the start of a block that is this process's own, mapped for as long as the
        // attachment lives; shared memory is always initialised.
        unsafe { slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl DerefMut for RawBlock<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and this borrow is the only one.
        unsafe { slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}

impl Drop for RawBlock<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.attachment.free_by(self.id, self.generation, self.len);
    }
}

impl fmt::Debug for RawBlock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawBlock").field("len", &self.len).finish_non_exhaustive()
    }
}
