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

    /// Asks for huge pages, and for what is there already to be put into some. The kernel may not have any, or not want
    /// to: [`huge_bytes`](Self::huge_bytes) tells.
    pub(crate) fn ask_for_huge_pages(&self) {
        for advice in [libc::MADV_HUGEPAGE, libc::MADV_COLLAPSE] {
            // SAFETY: the whole mapping; both are hints that change no contents.
            unsafe { libc::madvise(self.base().as_ptr().cast(), self.len, advice) };
        }
    }

    /// Makes `len` bytes present from a page's first on, so that touching them costs no fault. There must be no hole.
    pub(crate) fn populate(&self, from: usize, len: usize) -> io::Result<()> {
        assert!(from <= self.len && len <= self.len - from, "{len} bytes at {from} are outside of the mapping");
        // SAFETY: within the mapping (checked); it changes no contents.
        let result = unsafe { libc::madvise(self.base().as_ptr().add(from).cast(), len, libc::MADV_POPULATE_WRITE) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Bytes that are in huge pages now, as `/proc/self/smaps` has it; `None` if it does not say.
    pub(crate) fn huge_bytes(&self) -> Option<u64> {
        let start = format!("{:x}-", self.base().as_ptr() as usize);
        let maps = std::fs::read_to_string("/proc/self/smaps").ok()?;
        let mut lines = maps.lines().skip_while(|line| !line.starts_with(&start)).skip(1);
        let kinds = ["AnonHugePages:", "ShmemPmdMapped:", "FilePmdMapped:"];
        let mut huge = None;
        // The entry ends with its flags.
        for line in lines.by_ref().take_while(|line| !line.starts_with("VmFlags:")) {
            if let Some((kind, rest)) = line.split_once(' ')
                && kinds.contains(&kind)
            {
                let kilobytes: u64 = rest.trim().trim_end_matches(" kB").parse().ok()?;
                huge = Some(huge.unwrap_or(0) + kilobytes * 1024);
            }
        }
        huge
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
