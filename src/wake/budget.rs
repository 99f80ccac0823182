//! How much a task does before it lets others run.
//!
//! tokio gives a task a budget of 128 operations, each time it polls it, and a task that has used it
//! up yields. That keeps a task whose channel is never empty from starving others. An operation of
//! this crate takes some 40 ns, so 128 of them are 5 µs: far less than a yield is worth. On a
//! multi-thread runtime a yield even wakes another worker, which then steals the task.
//!
//! So this module charges for time, not for operations. A thread counts the operations that it begins.
//! After some of them it looks at the clock, and charges the budget for the time since its last look:
//! all of the budget for [`SLICE`], and no more than a quarter at once. It looks again after as many operations as took [`LOOK`] lately, so
//! that short operations seldom pay for a look, and each long one is charged.
//!
//! The count is the thread's, not the task's: that costs nothing to find. What follows from it:
//!
//! * What took long is charged to the operations that follow, a quarter of the budget at once: an
//!   operation yields only if the budget was used up before it began.
//! * A task that waits pays for nothing that happens meanwhile: whoever begins to wait calls [`rest`].
//! * A task that waits for something of another crate pays for that wait. It yields once too often, at
//!   most once in [`SLICE`].
//! * Tasks that take turns on a thread pay for each other's time. They take turns anyway.

use std::task::{Context, Poll};

#[cfg(all(feature = "tokio", not(loom)))]
use std::{
    cell::Cell,
    task::ready,
    time::{Duration, Instant},
};

/// For so long a task runs before it yields, if its operations never wait.
#[cfg(all(feature = "tokio", not(loom)))]
const SLICE: Duration = Duration::from_micros(75);
/// What tokio gives a task, each time it polls it: `tokio::task::coop`, since 1.0.
#[cfg(all(feature = "tokio", not(loom)))]
const UNITS: u32 = 128;
/// The time of the operations between two looks at the clock; a look takes some 25 ns.
#[cfg(all(feature = "tokio", not(loom)))]
const LOOK: Duration = Duration::from_micros(8);
/// The most operations between two looks: they may take longer all at once.
#[cfg(all(feature = "tokio", not(loom)))]
const MOST: u32 = 64;
/// The most that one look charges. Whoever polls a future once, by hand, after something that took
/// long, relies on it that an operation that can be done is done; and so it is for several more.
#[cfg(all(feature = "tokio", not(loom)))]
const MOST_AT_ONCE: u32 = 32;

/// What a thread knows of the operations that it has begun.
#[cfg(all(feature = "tokio", not(loom)))]
struct Meter {
    /// Operations before the next look.
    left: Cell<u32>,
    /// Operations between the last look and the next one.
    run: Cell<u32>,
    /// When the run began. `None`: the thread has rested since, and the time says nothing.
    since: Cell<Option<Instant>>,
}

#[cfg(all(feature = "tokio", not(loom)))]
thread_local! {
    static METER: Meter = const { Meter { left: Cell::new(0), run: Cell::new(1), since: Cell::new(None) } };
}

/// Charges tokio's cooperative budget for what was done since the last time. `Pending` if it is used
/// up: the task has been woken to come back.
#[inline(always)]
pub(crate) fn poll_budget(context: &mut Context<'_>) -> Poll<()> {
    #[cfg(all(feature = "tokio", not(loom)))]
    {
        let is_due = METER.with(|meter| {
            let left = meter.left.get();
            meter.left.set(left.wrapping_sub(1));
            left == 0
        });
        if is_due {
            return look(context);
        }
    }
    let _ = context;
    Poll::Ready(())
}

/// The same for one operation of an `async fn`.
pub(crate) async fn charge_budget() {
    std::future::poll_fn(poll_budget).await;
}

/// A task of this thread begins to wait: time passes, and its next poll has a whole budget.
#[inline]
pub(crate) fn rest() {
    #[cfg(all(feature = "tokio", not(loom)))]
    METER.with(|meter| meter.since.set(None));
}

/// Looks at the clock, and charges for the time since the last look.
#[cfg(all(feature = "tokio", not(loom)))]
#[cold]
#[inline(never)]
fn look(context: &mut Context<'_>) -> Poll<()> {
    let now = Instant::now();
    let units = METER.with(|meter| {
        let (run, since) = (meter.run.get(), meter.since.replace(Some(now)));
        let (next, units) = match since {
            Some(since) => settle(run, now.saturating_duration_since(since)),
            None => (run, 1),
        };
        meter.run.set(next);
        // This operation is the first of the next run.
        meter.left.set(next - 1);
        units
    });
    let charged = tokio::task::coop::poll_proceed(context);
    if charged.is_pending() {
        rest();
    }
    ready!(charged).made_progress();
    for _ in 1..units {
        if !tokio::task::coop::has_budget_remaining() {
            break;
        }
        if let Poll::Ready(charged) = tokio::task::coop::poll_proceed(context) {
            charged.made_progress();
        }
    }
    Poll::Ready(())
}

/// After a run of so many operations that took so long: how many the next run has, and what to charge.
#[cfg(all(feature = "tokio", not(loom)))]
fn settle(run: u32, took: Duration) -> (u32, u32) {
    let took = took.as_nanos().max(1);
    let fit = LOOK.as_nanos() * u128::from(run) / took;
    let next = fit.clamp(1, u128::from(MOST.min(run.saturating_mul(2)))) as u32;
    let units = (took * u128::from(UNITS) / SLICE.as_nanos()).clamp(1, u128::from(MOST_AT_ONCE)) as u32;
    (next, units)
}

#[cfg(all(test, feature = "tokio", not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn short_operations_are_looked_at_seldom_and_long_ones_each() {
        let mut run = 1;
        for _ in 0..10 {
            run = settle(run, Duration::from_nanos(40) * run).0;
        }
        assert_eq!(run, MOST);
        assert_eq!(settle(run, Duration::from_millis(1) * run).0, 1);
        assert_eq!(settle(1, Duration::from_micros(3)).0, 2);
        assert_eq!(settle(4, Duration::from_micros(12)).0, 2);
    }

    #[test]
    fn a_slice_costs_the_whole_budget_whatever_it_was_spent_on() {
        for nanos in [40, 500, 3_000, 18_000] {
            let (mut run, mut charged, mut time) = (1, 0, Duration::ZERO);
            while charged < UNITS {
                let took = Duration::from_nanos(nanos) * run;
                let (next, units) = settle(run, took);
                (run, charged, time) = (next, charged + units, time + took);
            }
            let least = SLICE / 3;
            // The last run may be one long operation; units are whole.
            let most = 2 * SLICE + Duration::from_nanos(nanos);
            assert!((least..=most).contains(&time), "{nanos} ns: {time:?}");
        }
    }

    #[test]
    fn an_operation_that_took_no_time_is_charged_one_unit() {
        assert_eq!(settle(1, Duration::ZERO), (2, 1));
        assert_eq!(settle(MOST, Duration::ZERO), (MOST, 1));
        assert_eq!(settle(u32::MAX, Duration::MAX), (1, MOST_AT_ONCE));
    }
}
