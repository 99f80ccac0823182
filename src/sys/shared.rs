//! Views of shared memory.
//!
//! Everything that stands in a segment and changes is an atomic, so a shared reference to it is all that anybody ever
//! needs. [`SharedSlice`] is such a reference without a lifetime: who makes one promises that the mapping outlives it.

use core::{fmt, ops::Deref, ptr::NonNull};

/// A run of `T` (atomics, or structs of atomics) in memory that outlives the view.
pub(crate) struct SharedSlice<T> {
    start: NonNull<T>,
    len: usize,
}

impl<T> SharedSlice<T> {
    /// # Safety
    ///
    /// `start` must be aligned and point at `len` values of `T` that stay mapped for as long as any copy of the view
    /// is used, and that are only ever accessed atomically. Any bit pattern must be a valid `T`.
    pub(crate) unsafe fn new(start: NonNull<T>, len: usize) -> Self {
        Self { start, len }
    }

    /// A view of heap memory that is never given back: for models and tests.
    #[cfg(any(test, loom))]
    pub(crate) fn leak(values: Vec<T>) -> Self {
        let values = Box::leak(values.into_boxed_slice());
        Self { len: values.len(), start: NonNull::from(values).cast() }
    }
}

impl<T> Deref for SharedSlice<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `new` was promised `len` aligned, valid values that outlive the view and change only atomically.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> Clone for SharedSlice<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SharedSlice<T> {}

// SAFETY: a view is a shared reference, and `T: Sync` makes those sendable.
unsafe impl<T: Sync> Send for SharedSlice<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for SharedSlice<T> {}

impl<T> fmt::Debug for SharedSlice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSlice").field("start", &self.start).field("len", &self.len).finish()
    }
}

/// One `T` in memory that outlives the view.
pub(crate) struct SharedRef<T>(NonNull<T>);

impl<T> SharedRef<T> {
    /// # Safety
    ///
    /// As for [`SharedSlice::new`], with a length of one.
    pub(crate) unsafe fn new(at: NonNull<T>) -> Self {
        Self(at)
    }

    /// A view of heap memory that is never given back: for models and tests.
    #[cfg(any(test, loom))]
    pub(crate) fn leak(value: T) -> Self {
        Self(NonNull::from(Box::leak(Box::new(value))))
    }
}

impl<T> Deref for SharedRef<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: `new` was promised an aligned, valid value that outlives the view and changes only atomically.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Clone for SharedRef<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SharedRef<T> {}

// SAFETY: a view is a shared reference, and `T: Sync` makes those sendable.
unsafe impl<T: Sync> Send for SharedRef<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for SharedRef<T> {}

impl<T> fmt::Debug for SharedRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedRef").field(&self.0).finish()
    }
}
