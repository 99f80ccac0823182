//! A full fence on all threads of all processes that have asked for it: the dear half of a pair whose other half is free.
//!
//! Reference: `membarrier(2)`, `MEMBARRIER_CMD_GLOBAL_EXPEDITED` (Linux 4.16). Some container profiles refuse it.

/// Lets others make this process's threads pass a fence.
pub(crate) fn register() {
    command(libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED);
}

/// Makes the threads of all registered processes that are running pass a full fence. May do nothing where the kernel
/// refuses.
pub(crate) fn everywhere() {
    command(libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED);
}

fn command(command: libc::c_int) {
    // SAFETY: membarrier touches no memory of ours; it takes a command, flags and a processor number.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
}
