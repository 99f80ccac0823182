//! What becomes of us in a forked child: it inherits neither the mapping (`MADV_DONTFORK`) nor, a moment later, the
//! descriptors whose locks say that we live.
//!
//! Descriptors are kept in a table without locks, because the handler runs in the child of a process with threads, where
//! only async-signal-safe calls are allowed: it closes them and raises a counter, and that is all.

use std::{
    os::fd::{AsRawFd, BorrowedFd},
    sync::{
        Once,
        atomic::{AtomicI32, AtomicU32, Ordering},
    },
};

/// The most descriptors that are watched; more than a process can be attached to segments with sense.
const MOST: usize = 1024;

static DESCRIPTORS: [AtomicI32; MOST] = [const { AtomicI32::new(-1) }; MOST];
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// How often this process is a forked child of the one that it was.
#[inline(always)]
pub(crate) fn generation() -> u32 {
    // Ordering: Relaxed: it only changes in `fork`, before anything runs in the child.
    GENERATION.load(Ordering::Relaxed)
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    for descriptor in &DESCRIPTORS {
        let descriptor = descriptor.swap(-1, Ordering::Relaxed);
        if descriptor >= 0 {
            // SAFETY: close is async-signal-safe. The owner in this process sees the raised generation and leaks its
            // number, so it is closed once.
            unsafe { libc::close(descriptor) };
        }
    }
}

/// A descriptor that is closed in forked children.
#[derive(Debug)]
pub(crate) struct Watched(Option<usize>);

impl Watched {
    /// Watches a descriptor until it is dropped.
    pub(crate) fn new(descriptor: BorrowedFd<'_>) -> Self {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(|| {
            // SAFETY: the handler does only what is allowed in a forked child, and lives as long as the program.
            unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        });
        let free = |place: &AtomicI32| {
            place.compare_exchange(-1, descriptor.as_raw_fd(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        Self(DESCRIPTORS.iter().position(free))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(place) = self.0 {
            DESCRIPTORS[place].store(-1, Ordering::Release);
        }
    }
}
