//! In which process a handle was made: a forked child inherits handles, and no segment.

use std::sync::{
    Once,
    atomic::{AtomicU32, Ordering},
};

use pyo3::prelude::*;

use crate::errors::Forked;

/// How often this process is a forked child of the one that loaded the module.
static GENERATION: AtomicU32 = AtomicU32::new(0);

extern "C" fn in_child() {
    // Ordering: Relaxed: the child has one thread.
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// Sees to it that forks are counted.
pub(crate) fn watch_forks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler does what is allowed in a forked child, and modules of this kind are
        // never unloaded.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

/// The process in which something was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Born(u32);

impl Born {
    /// This process.
    pub(crate) fn here() -> Self {
        // Ordering: Relaxed: it changes in `fork` only, before anything runs in the child.
        Self(GENERATION.load(Ordering::Relaxed))
    }

    /// Whether it is another process than this.
    pub(crate) fn is_elsewhere(self) -> bool {
        self != Self::here()
    }

    /// Raises `Forked` if it is another process than this.
    pub(crate) fn check(self) -> PyResult<()> {
        if self.is_elsewhere() {
            return Err(Forked::new_err(
                "this was made before the process forked: open the segment again in the child",
            ));
        }
        Ok(())
    }
}
