//! A full fence on all threads of all processes that have asked for it: the dear half of a pair whose other half is free.
//!
//! Reference: `membarrier(2)`, `MEMBARRIER_CMD_GLOBAL_EXPEDITED` (Linux 4.16). Some container profiles refuse it. In
//! models both halves are fences.

/// Lets others make this process's threads pass a fence. `false` if the kernel refuses.
pub(crate) fn register() -> bool {
    #[cfg(loom)]
    return true;
    #[cfg(not(loom))]
    command(libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED)
}

/// Makes the threads of all registered processes that are running pass a full fence. `false` if the kernel refuses, and
/// nothing was done.
pub(crate) fn everywhere() -> bool {
    #[cfg(loom)]
    {
        super::sync::fence(super::sync::Ordering::SeqCst);
        true
    }
    #[cfg(not(loom))]
    command(libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED)
}

/// The half that is free: what the compiler has before it stays before it, and so [`everywhere`] finds it before or after.
#[inline(always)]
pub(crate) fn light() {
    #[cfg(loom)]
    super::sync::fence(super::sync::Ordering::SeqCst);
    #[cfg(not(loom))]
    std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
}

#[cfg(not(loom))]
fn command(command: libc::c_int) -> bool {
    // SAFETY: membarrier touches no memory of ours; it takes a command, flags and a processor number.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}
