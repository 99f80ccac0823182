//! What becomes of us in a forked child: it inherits neither the mapping (`MADV_DONTFORK`) nor, a moment later, the
//! descriptors whose locks say that we live. Where the mapping was there are zeros of the child's own: what it inherited and still
//! looks at, or drops, meets no hole, and nothing of its parent's.
//!
//! What is watched is kept in a list without locks, because the handler runs in the child of a process with threads, where
//! only async-signal-safe calls are allowed: it closes, maps and raises a counter, and that is all. Entries of the list are used
//! again and never freed.
//!
//! A fork that comes between the opening of a file and the moment at which it is watched would give the child a share of the
//! description, and its locks would say for as long as the child lives that its parent does. The same goes for a mapping, which
//! keeps the description. So whoever does either does it [undisturbed]: `fork` waits for that.

use std::{
    os::fd::{AsRawFd, BorrowedFd},
    ptr::{NonNull, null_mut},
    sync::{
        Once,
        atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicUsize, Ordering},
    },
};

/// One thing that is watched.
#[derive(Debug)]
struct Entry {
    /// -1: none.
    descriptor: AtomicI32,
    /// The first byte of a mapping; 0: none.
    start: AtomicUsize,
    len: AtomicUsize,
    is_taken: AtomicBool,
    /// Never changes once the entry is in the list.
    next: AtomicPtr<Self>,
}

static ENTRIES: AtomicPtr<Entry> = AtomicPtr::new(null_mut());
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// Nobody, or who keeps others from forking.
static GATE: AtomicU32 = AtomicU32::new(OPEN);
const OPEN: u32 = 0;
/// A thread does something during which nobody may fork.
const UNDISTURBED: u32 = 1;
/// A thread forks.
const FORKING: u32 = 2;

/// How often `fork` looks whether the gate is open. Should the thread that keeps it closed be the one that forks, out of a
/// signal handler, it would wait for ever.
const LOOKS: u32 = 10_000;

/// How often this process is a forked child of the one that it was.
#[inline(always)]
pub(crate) fn generation() -> u32 {
    // Ordering: Relaxed: it only changes in `fork`, before anything runs in the child.
    GENERATION.load(Ordering::Relaxed)
}

fn take_gate(by: u32) -> bool {
    // Ordering: Acquire and Release (below): what one does at the gate comes before what the next does.
    GATE.compare_exchange(OPEN, by, Ordering::Acquire, Ordering::Relaxed).is_ok()
}

extern "C" fn before_fork() {
    for _ in 0..LOOKS {
        if take_gate(FORKING) {
            return;
        }
        // SAFETY: it has no preconditions, and is async-signal-safe.
        unsafe { libc::sched_yield() };
    }
}

extern "C" fn in_parent() {
    // A failure means that we have not got it.
    let _ = GATE.compare_exchange(FORKING, OPEN, Ordering::Release, Ordering::Relaxed);
}

extern "C" fn in_child() {
    // Ordering: Relaxed throughout: there is one thread here, and what others did stands in its copy of the memory.
    GENERATION.fetch_add(1, Ordering::Relaxed);
    GATE.store(OPEN, Ordering::Relaxed);
    for entry in entries() {
        let descriptor = entry.descriptor.swap(-1, Ordering::Relaxed);
        if descriptor >= 0 {
            // SAFETY: close is async-signal-safe. The owner in this process sees the raised generation and leaks its
            // number, so it is closed once.
            unsafe { libc::close(descriptor) };
        }
        let (start, len) = (entry.start.swap(0, Ordering::Relaxed), entry.len.load(Ordering::Relaxed));
        if start != 0 {
            // SAFETY: a plain system call. Nothing else has been mapped there in this process: the parent's mapping was there
            // when it forked, and this is the first that the child does.
            unsafe { put_zeros(start, len) };
        }
        // The owner leaks this, too.
        entry.is_taken.store(false, Ordering::Relaxed);
    }
}

/// Puts zeros where a mapping was. If the kernel has no memory to promise, they can only be read; if it has no address space, there is
/// a hole.
///
/// # Safety
///
/// Nothing that is in use is mapped there.
unsafe fn put_zeros(start: usize, len: usize) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    for access in [libc::PROT_READ | libc::PROT_WRITE, libc::PROT_READ] {
        // SAFETY: the caller's.
        let mapped = unsafe { libc::mmap(std::ptr::without_provenance_mut(start), len, access, flags, -1, 0) };
        if mapped != libc::MAP_FAILED {
            return;
        }
    }
}

fn entries() -> impl Iterator<Item = &'static Entry> {
    // Ordering: Acquire, pairs with the CAS that puts an entry into the list.
    let mut at = ENTRIES.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        // SAFETY: entries of the list are never freed.
        let entry = unsafe { at.as_ref() }?;
        at = entry.next.load(Ordering::Relaxed);
        Some(entry)
    })
}

/// An entry that nobody else has.
fn take_entry() -> &'static Entry {
    // Ordering: Acquire: whoever had it before is done with it.
    let free =
        |entry: &&Entry| entry.is_taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
    if let Some(entry) = entries().find(free) {
        return entry;
    }
    let entry: &'static Entry = Box::leak(Box::new(Entry {
        descriptor: AtomicI32::new(-1),
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        is_taken: AtomicBool::new(true),
        next: AtomicPtr::new(null_mut()),
    }));
    let mut first = ENTRIES.load(Ordering::Relaxed);
    loop {
        entry.next.store(first, Ordering::Relaxed);
        let new = std::ptr::from_ref(entry).cast_mut();
        // Ordering: Release, pairs with `entries`.
        match ENTRIES.compare_exchange_weak(first, new, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return entry,
            Err(now) => first = now,
        }
    }
}

/// Does something during which no thread of this process forks. It must be short, and not do so itself.
pub(crate) fn undisturbed<R>(work: impl FnOnce() -> R) -> R {
    /// Opens the gate, also if the work unwinds.
    struct Closed;

    impl Drop for Closed {
        fn drop(&mut self) {
            GATE.store(OPEN, Ordering::Release);
        }
    }

    static HANDLERS: Once = Once::new();
    HANDLERS.call_once(|| {
        // SAFETY: the handlers do only what is allowed in a forked child, and live as long as the program.
        unsafe { libc::pthread_atfork(Some(before_fork), Some(in_parent), Some(in_child)) };
    });
    while !take_gate(UNDISTURBED) {
        std::thread::yield_now();
    }
    let _closed = Closed;
    work()
}

/// A descriptor, and a mapping, that forked children do not have.
#[derive(Debug)]
pub(crate) struct Watched(&'static Entry);

impl Watched {
    /// Watches a descriptor until this is dropped. To be called [undisturbed], together with what opens it.
    pub(crate) fn new(descriptor: BorrowedFd<'_>) -> Self {
        let entry = take_entry();
        entry.descriptor.store(descriptor.as_raw_fd(), Ordering::Release);
        Self(entry)
    }

    /// Watches a mapping as well, which children do not inherit.
    pub(crate) fn watch_mapping(&self, start: NonNull<u8>, len: usize) {
        // Ordering: Release: the child of any thread sees the length if it sees the start.
        self.0.len.store(len, Ordering::Release);
        self.0.start.store(start.addr().get(), Ordering::Release);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Ordering: Release: before the mapping goes and its place is used for something else.
        self.0.start.store(0, Ordering::Release);
        self.0.descriptor.store(-1, Ordering::Release);
        self.0.is_taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd};

    use super::*;

    #[test]
    fn entries_are_used_again_and_there_are_always_enough() {
        let file = File::open("/dev/null").unwrap();
        let watch = || undisturbed(|| Watched::new(file.as_fd()));
        let many: Vec<_> = (0..3000).map(|_| watch()).collect();
        let before = entries().count();
        assert!(before >= many.len());
        drop(many);
        let again: Vec<_> = (0..3000).map(|_| watch()).collect();
        // Other tests of this process may have taken some.
        assert!(entries().count() < before + 1000, "{before} entries, then {}", entries().count());
        drop(again);
    }
}
