//! Asks the processor for a cache line ahead of time. Never faults, and may do nothing.

/// Asks for the line of `value` in a state fit for writing.
#[inline(always)]
pub(crate) fn for_write<T>(value: Option<&T>) {
    #[cfg(target_arch = "x86_64")]
    if let Some(value) = value {
        // SAFETY: a prefetch has no effect that a program can see, at any address.
        unsafe {
            core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_ET0 }>(core::ptr::from_ref(value).cast())
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
