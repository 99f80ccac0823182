//! Asks the processor for a cache line ahead of time. Never faults, whatever the address, and may do nothing.
//!
//! In assembly, because the intrinsic for x86-64 becomes a prefetch for reading unless the target is known to have
//! `prefetchw`; processors that do not have it take it for a `nop`.

/// Asks for the line at `at` in a state fit for writing.
#[inline(always)]
pub(crate) fn for_write<T>(at: *const T) {
    // SAFETY: a prefetch has no effect that a program can see, at any address.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        core::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        core::arch::asm!("prfm pstl1keep, [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
}

/// Asks for the line at `at`, to be read.
#[inline(always)]
pub(crate) fn for_read<T>(at: *const T) {
    // SAFETY: as above.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        core::arch::asm!("prefetcht0 [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
}
