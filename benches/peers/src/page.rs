//! A page that all processes of one measurement share: barriers, and what each has seen.

use std::{
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
};

/// Threads that take part.
pub const MOST: usize = 64;
/// Round trips that are kept.
pub const SAMPLES: usize = 200_000;
const RAW_BYTES: usize = 8 << 20;

/// What one thread has done in the measured part.
#[repr(C, align(128))]
pub struct Slot {
    pub started: AtomicU64,
    pub ended: AtomicU64,
    pub count: AtomicU64,
    pub sum: AtomicU64,
    /// Times that it slept, of its process if that is its own.
    pub sleeps: AtomicU64,
    pub cpu: AtomicU64,
    /// Time in which it did what is measured, if that is not all of it.
    pub busy: AtomicU64,
    /// System calls, if they are counted.
    pub calls: AtomicU64,
}

/// All zeros is the state before anything.
#[repr(C)]
pub struct Page {
    arrived: [AtomicU32; 8],
    failed: AtomicU32,
    /// Senders that are done with each part.
    pub done: [AtomicU32; 8],
    /// How many messages each sender sends in the measured part.
    pub messages: AtomicU64,
    pub slots: [Slot; MOST],
    pub samples: [AtomicU32; SAMPLES],
    /// For the peers that are nothing but memory.
    pub raw: [Line; RAW_BYTES / 128],
}

/// As much as processors fetch at once.
#[repr(C, align(128))]
pub struct Line(pub [AtomicU64; 16]);

/// The page's file, without a name, for children to inherit.
pub struct File(OwnedFd);

impl File {
    pub fn new() -> std::io::Result<Self> {
        // SAFETY: the name is a C string; without flags the descriptor is inherited.
        let fd = unsafe { libc::memfd_create(c"waterway-compare".as_ptr(), 0) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: it is new and ours.
        let file = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        // SAFETY: a plain call.
        if unsafe { libc::ftruncate(fd, size_of::<Page>() as i64) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(file)
    }

    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub fn map(&self) -> std::io::Result<Mapped> {
        map(self.fd()).map(Mapped)
    }
}

/// A mapping that ends.
pub struct Mapped(*mut Page);

impl std::ops::Deref for Mapped {
    type Target = Page;

    fn deref(&self) -> &Page {
        // SAFETY: mapped until dropped, and atomics throughout.
        unsafe { &*self.0 }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped with this length, and no reference outlives `self`.
        unsafe { libc::munmap(self.0.cast(), size_of::<Page>()) };
    }
}

fn map(fd: RawFd) -> std::io::Result<*mut Page> {
    // SAFETY: a new mapping at an address that the kernel chooses.
    let address = unsafe {
        libc::mmap(std::ptr::null_mut(), size_of::<Page>(), libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd, 0)
    };
    if address == libc::MAP_FAILED { Err(std::io::Error::last_os_error()) } else { Ok(address.cast()) }
}

impl Page {
    /// The page that was inherited; for as long as the process lives.
    pub fn inherited(fd: RawFd) -> std::io::Result<&'static Self> {
        // SAFETY: never unmapped; the file was given this length; atomics throughout.
        map(fd).map(|page| unsafe { &*page })
    }

    pub fn fail(&self) {
        self.failed.store(1, SeqCst);
    }

    /// Panics if another has failed.
    pub fn check(&self) {
        assert!(self.failed.load(SeqCst) == 0, "another has failed");
    }

    /// Says that one more is here.
    pub fn arrive(&self, which: usize) {
        self.arrived[which].fetch_add(1, SeqCst);
    }

    /// Whether all are here.
    pub fn complete(&self, which: usize, all: usize) -> bool {
        self.check();
        self.arrived[which].load(SeqCst) as usize >= all
    }
}

/// Nanoseconds of a clock that all processes share.
pub fn now() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds of processor time that this process, or only this thread, has used.
pub fn cpu(thread: bool) -> u64 {
    clock(if thread { libc::CLOCK_THREAD_CPUTIME_ID } else { libc::CLOCK_PROCESS_CPUTIME_ID })
}

fn clock(which: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is ours to write.
    unsafe { libc::clock_gettime(which, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// How often this process, or only this thread, has gone to sleep.
pub fn sleeps(thread: bool) -> u64 {
    // SAFETY: a plain structure of numbers, which the kernel fills.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is ours to write.
    unsafe { libc::getrusage(if thread { libc::RUSAGE_THREAD } else { libc::RUSAGE_SELF }, &mut usage) };
    usage.ru_nvcsw as u64
}
