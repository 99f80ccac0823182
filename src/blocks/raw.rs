//! Memory without a header, for one process.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use crate::{
    AllocError,
    attachment::{Attachment, lease::Lease},
};

/// Memory of a segment that belongs to this process alone: made by
/// [`Allocator::allocate_raw`](crate::Allocator::allocate_raw), freed when it is dropped, or when the process dies.
pub struct RawBlock(Lease);

impl RawBlock {
    pub(super) fn new(attachment: &Arc<Attachment>, len: usize) -> Result<Self, AllocError> {
        if !attachment.is_usable() {
            return Err(AllocError::Forked);
        }
        let block = attachment.with_worker(|worker| attachment.allocate(worker, len, 1))?;
        let whole = Lease::new(Arc::clone(attachment), block);
        Ok(Self(whole.narrow(0, len).expect("a block is as long as was asked for")))
    }
}

impl Deref for RawBlock {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl DerefMut for RawBlock {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut()
    }
}

impl fmt::Debug for RawBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawBlock").field("len", &self.len()).finish_non_exhaustive()
    }
}
