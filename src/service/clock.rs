//! Deadlines, as all processes of a machine see them: nanoseconds of the monotonic clock, 0 for none.

use std::time::{Duration, Instant};

use crate::sys::clock::monotonic as now;

/// After so much time.
pub(super) fn after(time: Duration) -> u64 {
    now().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)).max(1)
}

/// Whether a deadline has passed.
pub(super) fn is_past(deadline: u64) -> bool {
    deadline != 0 && now() >= deadline
}

/// A deadline as this process tells time. `None` also for one that is further away than it can tell.
pub(super) fn instant(deadline: u64) -> Option<Instant> {
    if deadline == 0 {
        return None;
    }
    Instant::now().checked_add(Duration::from_nanos(deadline.saturating_sub(now())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_the_same_moment_on_the_way_back() {
        let deadline = after(Duration::from_secs(1000));
        let left = instant(deadline).unwrap() - Instant::now();
        assert!(left <= Duration::from_secs(1000) && left > Duration::from_secs(500));
        assert!(!is_past(deadline) && !is_past(0) && is_past(1));
        assert_eq!(instant(0), None);
        assert!(!is_past(after(Duration::MAX)));
    }
}
