//! In which process a handle was made: a forked child inherits handles, and no segment.

use std::sync::{
    Once,
    atomic::{AtomicU32, Ordering},
};

use crate::status::{Failure, ww_status};

/// How often this process is a forked child of the one that made its first handle.
static GENERATION: AtomicU32 = AtomicU32::new(0);

extern "C" fn in_child() {
    // Ordering: Relaxed: the child has one thread.
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// The process in which something was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Born(u32);

impl Born {
    /// This process, of which forks are counted from now on.
    pub(crate) fn here() -> Self {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            // SAFETY: the handler does what is allowed in a forked child, and the library is never unloaded: it is linked so
            // (`build.rs`).
            unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        });
        Self::now()
    }

    fn now() -> Self {
        // Ordering: Relaxed: it changes in `fork` only, before anything runs in the child.
        Self(GENERATION.load(Ordering::Relaxed))
    }

    /// An error if it is another process than this.
    pub(crate) fn check(self) -> Result<(), Failure> {
        if self == Self::now() {
            return Ok(());
        }
        Err(Failure::fixed(
            ww_status::WW_FORKED,
            c"the handle was made before this process was forked: open the segment again here",
        ))
    }
}
