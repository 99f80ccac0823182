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

#[cfg(not(loom))]
const LINE: usize = 64;
/// Bytes that are asked for at once.
#[cfg(not(loom))]
const AT_ONCE: usize = 4096;

/// Where the lines of a block after the first begin, if it is short. Of a longer one the processor asks for what comes next by
/// itself, as soon as it has seen where this goes.
#[cfg(not(loom))]
#[inline(always)]
fn lines(first: *const u8, len: usize) -> impl Iterator<Item = *const u8> {
    let len = if len <= 2 * AT_ONCE { len.min(AT_ONCE) } else { 0 };
    (LINE..len).step_by(LINE).map(move |at| first.wrapping_add(at))
}

/// Asks for the lines of a short block, to be written: all at once, as writes that have to wait for their lines wait one after the
/// other.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) fn block_for_write(first: *const u8, len: usize) {
    lines(first, len).for_each(for_write);
}

/// The same, to be read.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) fn block_for_read(first: *const u8, len: usize) {
    lines(first, len).for_each(for_read);
}
