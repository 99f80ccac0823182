//! Models of how a channel ends: {set a flag, seal, look what waits} against {look at the cell, look at the flag, fill the cell};
//! and a drain against a receiver that comes, and is sent to. See `attachment::ends`. Each with what goes wrong if a rule is
//! left out.

use loom::thread;

use super::*;

fn ring() -> Ring {
    let cells = SharedSlice::leak((0..2).map(|_| AtomicU64::new(0)).collect());
    let hint = || SharedRef::leak(AtomicU64::new(0));
    let ring = Ring::new(cells, 2, hint(), hint(), Permits::leak(1));
    ring.format(0);
    ring
}

fn model(test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(test);
}

fn take_before(ring: &Ring, until: u64) -> Vec<u32> {
    let position = Position::new(ring.head_hint());
    let mut taken = Vec::new();
    while let Some(front) = ring.front_before(&position, until) {
        if ring.take(&position, front) {
            taken.push(front.block().0);
        }
    }
    taken
}

/// Loom takes SeqCst accesses for acquire and release only.
fn full_fence() {
    crate::sys::sync::fence(Ordering::SeqCst);
}

#[derive(Clone, Copy, PartialEq)]
enum Closing {
    AsItIs,
    Unsealed,
    FlagBeforeCell,
}

/// A send beside who closes, and hears that nothing will come.
fn close_beside_a_send(closing: Closing) {
    model(move || {
        let (ring, closed) = (ring(), SharedRef::leak(AtomicU64::new(0)));
        let is_open = move || closed.load(Ordering::SeqCst) == 0;
        let sender = thread::spawn(move || {
            let position = Position::new(ring.tail_hint());
            if closing == Closing::FlagBeforeCell {
                return is_open() && ring.push(&position, BlockId(7), || true).is_some();
            }
            ring.push(&position, BlockId(7), is_open).is_some()
        });
        closed.store(1, Ordering::SeqCst);
        full_fence();
        if closing != Closing::Unsealed {
            ring.seal();
        }
        // The end is said when this is empty.
        let received = take_before(&ring, u64::MAX);
        assert_eq!(!received.is_empty(), sender.join().unwrap(), "sent, and not received before the end");
    });
}

#[test]
fn what_is_sent_beside_a_close_is_received_before_the_end_or_refused() {
    close_beside_a_send(Closing::AsItIs);
}

#[test]
#[should_panic(expected = "not received before the end")]
fn without_a_seal_a_send_succeeds_after_the_end() {
    close_beside_a_send(Closing::Unsealed);
}

#[test]
#[should_panic(expected = "not received before the end")]
fn a_sender_that_looks_at_the_flag_first_sends_after_the_end() {
    close_beside_a_send(Closing::FlagBeforeCell);
}

/// The state of an entry, as far as this goes: `version | UNDRAINED | GONE`.
const GONE: u64 = 1;
const UNDRAINED: u64 = 2;
const VERSION: u64 = 4;

#[derive(Clone, Copy, PartialEq)]
enum Draining {
    AsItIs,
    Unbounded,
    Unchecked,
    Unawaited,
}

/// E6, with a lane that gets by as few looks as possible: what it frees.
fn drain(ring: &Ring, state: &AtomicU64, draining: Draining) -> Vec<u32> {
    let seen = state.load(Ordering::SeqCst);
    if seen & UNDRAINED == 0 {
        return Vec::new();
    }
    let until = ring.seal();
    full_fence();
    if draining != Draining::Unchecked && state.load(Ordering::SeqCst) != seen {
        return Vec::new();
    }
    let freed = take_before(ring, if draining == Draining::Unbounded { u64::MAX } else { until });
    let drained = (seen & !UNDRAINED) + VERSION;
    // A failure means that somebody else has done it.
    let _ = state.compare_exchange(seen, drained, Ordering::SeqCst, Ordering::SeqCst);
    freed
}

/// The last receiver has gone, and two drain: one of them is about to receive, and is sent to at once.
fn drain_beside_who_comes(draining: Draining) {
    model(move || {
        let (ring, state) = (ring(), SharedRef::leak(AtomicU64::new(GONE | UNDRAINED)));
        ring.push(&Position::new(0), BlockId(1), || true).unwrap();
        let other = thread::spawn(move || drain(&ring, &state, draining));
        let mut freed = Vec::new();
        loop {
            let seen = state.load(Ordering::SeqCst);
            if seen & UNDRAINED != 0 && draining != Draining::Unawaited {
                freed.extend(drain(&ring, &state, draining));
                continue;
            }
            let joined = (seen & !GONE) + VERSION;
            if state.compare_exchange(seen, joined, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                break;
            }
        }
        let is_open = || state.load(Ordering::SeqCst) & GONE == 0;
        let sent = ring.push(&Position::new(ring.tail_hint()), BlockId(2), is_open).is_some();
        freed.extend(other.join().unwrap());
        let received = take_before(&ring, u64::MAX);
        assert!(sent && !freed.contains(&2) && received.contains(&2), "drained, and sent to somebody who is there");
        assert!(freed.contains(&1) != received.contains(&1), "freed twice, or lost");
    });
}

#[test]
fn what_is_sent_to_who_comes_is_not_drained_by_who_went() {
    drain_beside_who_comes(Draining::AsItIs);
}

#[test]
#[should_panic(expected = "sent to somebody who is there")]
fn a_drain_without_a_bound_takes_what_was_sent_to_who_came() {
    drain_beside_who_comes(Draining::Unbounded);
}

#[test]
#[should_panic(expected = "sent to somebody who is there")]
fn a_bound_that_is_not_checked_may_be_behind_what_was_sent_to_who_came() {
    drain_beside_who_comes(Draining::Unchecked);
}

#[test]
#[should_panic(expected = "sent to somebody who is there")]
fn who_comes_before_all_is_drained_is_sent_what_is_drained() {
    drain_beside_who_comes(Draining::Unawaited);
}
