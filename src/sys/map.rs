//! Mapped memory, and typed views of it.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    ptr::{NonNull, null_mut},
};

use crate::sys::{
    file::page_size,
    fork,
    shared::{SharedRef, SharedSlice},
};

/// `mlock2(2)`: what is touched is locked, and nothing is touched for that.
const MLOCK_ONFAULT: libc::c_ulong = 1;

/// Memory that a segment stands in.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is only accessed through views of atomics and through blocks that have an owner.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of a file, shared. A forked child does not inherit the mapping.
    ///
    /// # Errors
    ///
    /// What the kernel says: above all that there is no address space, or that the process locks its memory and may not lock so much.
    pub(crate) fn of_file(file: impl AsFd, len: usize) -> io::Result<Self> {
        fork::undisturbed(|| {
            let mapping = Self::map(libc::MAP_SHARED, Some(file.as_fd()), len)?;
            mapping.advise(libc::MADV_DONTFORK)?;
            Ok(mapping)
        })
    }

    /// Zeroed memory of this process, which has only what is touched of it.
    ///
    /// # Errors
    ///
    /// As for [`of_file`](Self::of_file), and that it is more than the machine has.
    pub(crate) fn of_this_process(len: usize) -> io::Result<Self> {
        Self::map(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None, len)
    }

    /// Maps `len` bytes. Nothing is touched, whatever the process has told the kernel to do with its memory (`mlockall`): what is
    /// a hole stays one.
    fn map(flags: libc::c_int, file: Option<BorrowedFd<'_>>, len: usize) -> io::Result<Self> {
        let descriptor = file.map_or(-1, |file| file.as_raw_fd());
        let is_locking = locks_what_is_mapped();
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // What nobody may touch is not filled.
        let first = if is_locking { libc::PROT_NONE } else { access };
        // SAFETY: a new mapping, which touches no other memory.
        let start = unsafe { libc::mmap(null_mut(), len, first, flags, descriptor, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // A mapping does not begin at address zero.
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mapping = Self { start, len };
        if is_locking {
            // SAFETY: the mapping that was just made. What is not locked is not filled when it may be touched; locked again is
            // what is touched from then on, as far as the process may.
            let allowed = unsafe {
                libc::munlock(start.as_ptr().cast(), len);
                let allowed = libc::mprotect(start.as_ptr().cast(), len, access);
                libc::syscall(libc::SYS_mlock2, start.as_ptr(), len, MLOCK_ONFAULT);
                allowed
            };
            if allowed != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(mapping)
    }

    fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: the whole mapping; whoever asks knows that the advice changes no contents.
        let result = unsafe { libc::madvise(self.start.as_ptr().cast(), self.len, advice) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The first byte.
    #[inline(always)]
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.start
    }

    /// Bytes of it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Asks for huge pages, and for what is there already to be put into some. The kernel may not have any, or not want
    /// to: [`huge_bytes`](Self::huge_bytes) tells.
    pub(crate) fn ask_for_huge_pages(&self) {
        for advice in [libc::MADV_HUGEPAGE, libc::MADV_COLLAPSE] {
            let _ = self.advise(advice);
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
        // SAFETY: the whole mapping, of which nobody has a view any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Whether the kernel fills and locks whatever this process maps (`mlockall(MCL_FUTURE)`): it is tried with a page.
fn locks_what_is_mapped() -> bool {
    let (len, flags) = (page_size() as usize, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a page of its own, which nobody touches, and a place for the answer.
    unsafe {
        let page = libc::mmap(null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        if page == libc::MAP_FAILED {
            return false;
        }
        let mut is_present = 0;
        let asked = libc::mincore(page, len, &raw mut is_present);
        libc::munmap(page, len);
        asked == 0 && is_present & 1 != 0
    }
}
