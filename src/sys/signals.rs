//! Signals in threads of our own.

/// Blocks all signals in this thread, so that the application's handlers never run in it.
pub(crate) fn block_all() {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigfillset` initialises the set, and `pthread_sigmask` reads it; a null old set is allowed.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut());
    }
}
