//! Copies of what stands in a segment: memory of this process alone, that is looked at through the same views.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    ptr::NonNull,
    slice,
};

use crate::sys::shared::SharedSlice;

/// Alignment of a copy: that of whatever stands in a segment, pages apart.
const ALIGN: usize = 128;

/// Bytes that begin as zeros.
#[derive(Debug)]
pub(crate) struct Copied {
    start: NonNull<u8>,
    layout: Layout,
}

impl Copied {
    /// So many bytes; `None` if there is no memory for them.
    pub(crate) fn new(bytes: usize) -> Option<Self> {
        let layout = Layout::from_size_align(bytes.max(1), ALIGN).ok()?;
        // SAFETY: the layout is not empty.
        Some(Self { start: NonNull::new(unsafe { alloc_zeroed(layout) })?, layout })
    }

    /// The bytes. There must be no views yet.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: allocated with that length, and initialized; nobody else has them, as the reference is exclusive.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.layout.size()) }
    }

    /// Where they begin, and how many there are.
    pub(crate) fn place(&self) -> (NonNull<u8>, usize) {
        (self.start, self.layout.size())
    }

    /// A view of `len` values, so many bytes after the first one.
    ///
    /// # Panics
    ///
    /// If they are not within the copy, or not aligned: it was made for them.
    ///
    /// # Safety
    ///
    /// `T` must be an atomic or a struct of atomics, and the view must not outlive the copy.
    pub(crate) unsafe fn slice<T>(&self, at: usize, len: usize) -> SharedSlice<T> {
        let end = len.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(at));
        assert!(
            end.is_some_and(|end| end <= self.layout.size()),
            "a view of {len} values at {at} is outside of the copy"
        );
        assert!(at.is_multiple_of(align_of::<T>()) && align_of::<T>() <= ALIGN, "a view at {at} is not aligned");
        // SAFETY: within the copy and aligned (checked); the rest is the caller's.
        unsafe { SharedSlice::new(self.start.add(at).cast(), len) }
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        // SAFETY: allocated with that layout, and not used after this.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}
