//! Memory without a header, for one process.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    slice,
};

use crate::{AllocError, alloc::Block as BlockPlace, attachment::Attachment};

/// Memory of a segment that belongs to this process alone: made by
/// [`Allocator::allocate_raw`](crate::Allocator::allocate_raw), freed when it is dropped, or when the process dies.
pub struct RawBlock<'a> {
    attachment: &'a Attachment,
    block: BlockPlace,
    len: usize,
}

impl<'a> RawBlock<'a> {
    #[inline]
    pub(super) fn new(attachment: &'a Attachment, len: usize) -> Result<Self, AllocError> {
        if !attachment.is_usable() {
            return Err(AllocError::Forked);
        }
        let block = attachment.with_worker(|worker| attachment.allocate(worker, len, 1))?;
        Ok(Self { attachment, block, len })
    }
}

impl Deref for RawBlock<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: at least `len` bytes from the start of a block that is this process's own, mapped for as long as the
        // attachment lives; shared memory is always initialised.
        unsafe { slice::from_raw_parts(self.attachment.data(self.block).as_ptr(), self.len) }
    }
}

impl DerefMut for RawBlock<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and this borrow is the only one.
        unsafe { slice::from_raw_parts_mut(self.attachment.data(self.block).as_ptr(), self.len) }
    }
}

impl Drop for RawBlock<'_> {
    #[inline]
    fn drop(&mut self) {
        self.attachment.free(self.block);
    }
}

impl fmt::Debug for RawBlock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawBlock").field("len", &self.len).finish_non_exhaustive()
    }
}
