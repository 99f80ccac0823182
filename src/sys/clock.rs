//! The clock by which all processes of a machine tell how old a message is.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since the machine was started, the time for which it was asleep included: so a time to live ends also for a
/// machine that sleeps, and nobody who sets the time of day changes it. Processes in different time namespaces see different
/// ones.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    // Neither is negative.
    (now.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec as u64)
}
