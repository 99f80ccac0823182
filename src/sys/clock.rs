//! The clocks by which all processes of a machine tell how old a message is.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds since the machine was started, the time for which it was asleep included: so a time to live ends also for a
/// machine that sleeps, and nobody who sets the time of day changes it. Processes in different time namespaces see different
/// ones.
pub(crate) fn now() -> u64 {
    nanoseconds(clock_gettime(ClockId::Boottime))
}

/// The same without the time for which it was asleep.
pub(crate) fn monotonic() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// Nanoseconds since the machine was started, as of its last tick, some milliseconds ago, and without the time for which it was
/// asleep: for much less than the other takes.
pub(crate) fn ticks() -> u64 {
    nanoseconds(clock_gettime(ClockId::MonotonicCoarse))
}

fn nanoseconds(time: Timespec) -> u64 {
    // Neither is negative.
    (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64)
}
