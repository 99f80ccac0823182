//! Mapped memory, and typed views of it.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    io,
    os::fd::AsFd,
    ptr::NonNull,
};

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::sys::shared::{SharedRef, SharedSlice};

/// Alignment of heap memory that stands in for a mapping.
const PAGE: usize = 4096;

/// Memory that a segment stands in.
#[derive(Debug)]
pub(crate) struct Mapping {
    memory: Memory,
    len: usize,
}

#[derive(Debug)]
enum Memory {
    Mapped(MmapRaw),
    Heap(NonNull<u8>),
}

// SAFETY: the memory is only accessed through views of atomics and through blocks that have an owner.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of a file, shared. A forked child does not inherit the mapping.
    pub(crate) fn of_file(file: impl AsFd, len: usize) -> io::Result<Self> {
        let mapped = MmapOptions::new().len(len).map_raw(&file.as_fd())?;
        mapped.advise(Advice::DontFork)?;
        Ok(Self { memory: Memory::Mapped(mapped), len })
    }

    /// Zeroed memory of this process.
    pub(crate) fn on_heap(len: usize) -> io::Result<Self> {
        let layout = Self::heap_layout(len);
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { memory: Memory::Heap(start), len })
    }

    fn heap_layout(len: usize) -> Layout {
        Layout::from_size_align(len.max(PAGE), PAGE).expect("a segment's size is far below the limit")
    }

    /// The first byte.
    #[inline(always)]
    pub(crate) fn base(&self) -> NonNull<u8> {
        match &self.memory {
            // SAFETY: a mapping does not begin at address zero.
            Memory::Mapped(mapped) => unsafe { NonNull::new_unchecked(mapped.as_mut_ptr()) },
            Memory::Heap(start) => *start,
        }
    }

    /// Bytes of it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// A view of `len` values of `T`.
    ///
    /// # Panics
    ///
    /// If they are not within the mapping, or not aligned. Offsets come from a layout that was computed here.
    ///
    /// # Safety
    ///
    /// `T` must be an atomic or a struct of atomics, and the view must not outlive the mapping.
    pub(crate) unsafe fn slice<T>(&self, at: u64, len: usize) -> SharedSlice<T> {
        let end = len.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(at as usize));
        assert!(end.is_some_and(|end| end <= self.len), "a view of {len} values at {at} is outside of the mapping");
        assert!((at as usize).is_multiple_of(align_of::<T>()), "a view at {at} is not aligned");
        // SAFETY: within the mapping and aligned (checked; the base is aligned to pages); the rest is the caller's.
        unsafe { SharedSlice::new(self.base().add(at as usize).cast(), len) }
    }

    /// A view of one `T`.
    ///
    /// # Panics
    ///
    /// As [`slice`](Self::slice).
    ///
    /// # Safety
    ///
    /// As [`slice`](Self::slice).
    pub(crate) unsafe fn reference<T>(&self, at: u64) -> SharedRef<T> {
        // SAFETY: the caller's.
        let one = unsafe { self.slice::<T>(at, 1) };
        // SAFETY: the caller's; a slice of one is a reference.
        unsafe { SharedRef::new(NonNull::from(&one[0])) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Memory::Heap(start) = self.memory {
            // SAFETY: allocated in `on_heap` with the same layout.
            unsafe { dealloc(start.as_ptr(), Self::heap_layout(self.len)) }
        }
    }
}
