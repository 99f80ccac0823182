//! Memory without a header, for one process.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    slice,
};

use crate::{AllocError, attachment::Attachment};

/// Memory of a segment that belongs to this process alone: made by
/// [`Allocator::allocate_raw`](crate::Allocator::allocate_raw), freed when it is dropped, or when the process dies.
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
        Ok(Self { attachment, data, tag: (len as u64) << GENERATION | u64::from(generation) })
    }

    #[inline(always)]
    fn len(&self) -> usize {
        (self.tag >> GENERATION) as usize
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
        self.attachment.free_bytes(self.data, self.tag as u32 & ((1 << GENERATION) - 1), self.len());
    }
}

impl fmt::Debug for RawBlock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawBlock").field("len", &self.len()).finish_non_exhaustive()
    }
}
