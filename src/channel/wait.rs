//! How a task waits: yields on a hot channel, for some microseconds at most, then a place in the queue.

use std::{
    cell::Cell,
    future::Future,
    hint,
    ops::RangeInclusive,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use crate::{
    attachment::Attachment,
    sys::{held, processors},
    wake::{self, Deadline, budget},
};

/// What a receiver does when the channel is empty, and a sender when it is full, before it parks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitStrategy {
    /// Tries for as long as that has paid lately, at most 80 microseconds (150 for who has just woken another process, which cannot
    /// answer before it is awake), then parks: for 2 microseconds in place, then it lets the
    /// runtime go on in between. On a channel on which messages come seldom a task parks nearly at once.
    #[default]
    Adaptive,
    /// Parks at once: the least work for the processor, a wake-up for every message that comes late.
    Park,
}

/// The longest that a task tries before it parks, nanoseconds; the same for who has just woken another process, without which what it
/// waits for will hardly come; where a new handle begins; and the shortest: one yield or two.
const MOST: u32 = 80_000;
const MOST_AFTER_RING: u32 = 150_000;
const FIRST: u32 = 5_000;
const LEAST: u32 = 300;
/// A wait that took no longer than so many halves of the longest spell might have been over sooner without parking.
const HOT: u128 = 5;
/// How many waits are not used for learning after the longest spell was in vain, at first and at most: probably the other side has
/// no processor to run on while we try. It grows to four times with each in vain, and goes down to half with each that was not.
const HOLD_OFF: RangeInclusive<u8> = 4..=64;
/// So many messages without a wait are a stream.
const STREAM: u64 = 4;
/// How many messages a handle in a stream lets the other side get ahead, and for so many of them how long it waits at most. Measured,
/// messages of 64 bytes between two processors: 59 ns per message without, 49 with 16, 43 with 64; and 39 with 64, 37.5 with 128, 36
/// with 256 in another hour.
const AHEAD: u64 = 256;
const STEP: u64 = 32;
const GATHER: Duration = Duration::from_micros(4);
/// For so long a wait that may be short goes on in place, before it lets the runtime go on: it takes less time than to yield once
/// or twice.
const IN_PLACE: Duration = Duration::from_micros(2);
/// How often it looks at nothing between two looks at the clock.
const SPINS: u32 = 8;

/// Remembers for how long it has paid lately to yield before parking. Shared by the threads that share a handle; any
/// value is fine.
#[derive(Debug)]
pub(crate) struct Patience {
    nanos: AtomicU32,
    /// Waits that are not used for learning, still.
    hold_off: AtomicU8,
    /// How many there will be the next time.
    next_hold_off: AtomicU8,
    /// Where the handle was when it had to wait last.
    waited_at: AtomicU64,
}

impl Patience {
    pub(crate) fn new(strategy: WaitStrategy) -> Self {
        let nanos = match strategy {
            WaitStrategy::Adaptive => FIRST,
            WaitStrategy::Park => 0,
        };
        Self {
            nanos: AtomicU32::new(nanos),
            hold_off: AtomicU8::new(0),
            next_hold_off: AtomicU8::new(*HOLD_OFF.start()),
            waited_at: AtomicU64::new(0),
        }
    }

    /// Lets the other side get ahead, if messages have come (gone) in a stream until now: where both are close together, each takes
    /// the same few cache lines away from the other for every message, and otherwise for many. Goes on when `is_ahead` says of the number of
    /// messages that it is given that there are as many, or room for them, or when too few have come for some microseconds.
    pub(crate) fn gather(&self, position: u64, is_ahead: impl Fn(u64) -> bool) {
        // Ordering: Relaxed: a heuristic.
        let before = self.waited_at.swap(position, Ordering::Relaxed);
        if position.wrapping_sub(before) < STREAM || self.nanos.load(Ordering::Relaxed) == 0 || !processors::are_many()
        {
            return;
        }
        let started = Instant::now();
        let mut looks = 0;
        // To look at a cell that the other side is about to change would be in its way.
        while !is_ahead(AHEAD) {
            if started.elapsed() >= (looks + 1) * GATHER {
                looks += 1;
                if !is_ahead(u64::from(looks) * STEP) {
                    return;
                }
            }
            spin();
        }
    }

    /// A wait begins.
    pub(crate) fn begin(&self) -> Spell {
        budget::rest();
        let most = if wake::has_rung() { MOST_AFTER_RING } else { MOST };
        // Ordering: Relaxed here and below: a heuristic.
        let budget = self.nanos.load(Ordering::Relaxed).min(most);
        Spell { started: Instant::now(), budget: Duration::from_nanos(budget.into()), most }
    }

    /// Attempts for as long as has paid lately. `Err` if it is time to park: the wait goes on.
    pub(crate) async fn attempt<R>(&self, mut attempt: impl FnMut() -> Option<R>) -> Result<R, Spell> {
        let spell = self.begin();
        while spell.goes_on().await {
            if let Some(outcome) = attempt() {
                spell.end(self, false);
                return Ok(outcome);
            }
        }
        Err(spell)
    }
}

/// What a task does between two attempts.
enum Pause {
    /// Some nanoseconds of nothing.
    InPlace,
    /// The runtime's other tasks; and its own system calls, of which tokio makes one for each.
    Yield,
}

/// Does nothing for a moment.
fn spin() {
    (0..SPINS).for_each(|_| hint::spin_loop());
}

/// One wait: a task yields for as long as that has paid lately.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spell {
    started: Instant,
    budget: Duration,
    /// The longest that it may become, nanoseconds.
    most: u32,
}

impl Spell {
    /// How to let the other side go on before the next attempt; `None` if it is time to park.
    fn pause(&self) -> Option<Pause> {
        if self.budget.is_zero() {
            return None;
        }
        let elapsed = self.started.elapsed();
        (elapsed < self.budget)
            .then(|| if elapsed < IN_PLACE && processors::are_many() { Pause::InPlace } else { Pause::Yield })
    }

    /// Lets the other side go on before the next attempt; `false` if it is time to park.
    pub(crate) async fn goes_on(&self) -> bool {
        match self.pause() {
            Some(Pause::InPlace) => spin(),
            Some(Pause::Yield) => YieldNow::default().await,
            None => return false,
        }
        true
    }

    /// The same from one poll to the next: `Pending` if the task has been woken to come back.
    pub(crate) fn poll_goes_on(&self, context: &mut Context<'_>) -> Poll<bool> {
        match self.pause() {
            Some(Pause::InPlace) => spin(),
            Some(Pause::Yield) => {
                held::assert_none();
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => return Poll::Ready(false),
        }
        Poll::Ready(true)
    }

    /// The wait is over, and the task had to park for it, or had not.
    pub(crate) fn end(self, patience: &Patience, parked: bool) {
        let nanos = patience.nanos.load(Ordering::Relaxed);
        if nanos == 0 {
            return;
        }
        let left = patience.hold_off.load(Ordering::Relaxed);
        let hold_off = patience.next_hold_off.load(Ordering::Relaxed);
        let set_hold_off =
            |next: u8| patience.next_hold_off.store(next.clamp(*HOLD_OFF.start(), *HOLD_OFF.end()), Ordering::Relaxed);
        let next = if !parked {
            set_hold_off(hold_off / 2);
            nanos * 2
        } else if left > 0 {
            patience.hold_off.store(left - 1, Ordering::Relaxed);
            LEAST
        } else if 2 * self.started.elapsed().as_nanos() > HOT * u128::from(self.most) {
            nanos / 4
        } else if nanos < self.most {
            nanos * 2
        } else {
            patience.hold_off.store(hold_off, Ordering::Relaxed);
            set_hold_off(hold_off.saturating_mul(4));
            LEAST
        };
        patience.nanos.store(next.clamp(LEAST, self.most), Ordering::Relaxed);
    }
}

/// Lets the runtime poll other tasks, and comes back.
#[derive(Debug, Default)]
struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.yielded, true) {
            return Poll::Ready(());
        }
        held::assert_none();
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

thread_local! {
    /// While this thread polls a future of [`block_on`].
    static SLEEPER: Cell<Option<Sleeper>> = const { Cell::new(None) };
}

/// A thread that will sleep when it has polled a future.
#[derive(Clone, Copy)]
struct Sleeper {
    /// Tells its waker from others with which something in that future may be polled.
    waker: *const (),
    /// When it must look again at the latest, if it must.
    look_again: Option<Instant>,
}

/// Runs a future on this thread, which sleeps in between. It needs no executor, and no other thread for the [`Timer`]s in it.
///
/// # Panics
///
/// Where tokio lets nobody block: it would stop a runtime, and perhaps for good. It lets one block in `spawn_blocking` and in
/// `block_in_place`, and in threads that are not its own.
#[track_caller]
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    // Tokio has no method that asks that question and nothing else. This one asks it first, and has nothing to wait for.
    #[cfg(feature = "tokio")]
    drop(tokio::sync::Mutex::const_new(()).blocking_lock());
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    /// What stood there before: what is polled may block in its turn.
    struct Restore(Option<Sleeper>);
    impl Drop for Restore {
        fn drop(&mut self) {
            SLEEPER.set(self.0);
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        let restore = Restore(SLEEPER.replace(Some(Sleeper { waker: waker.data(), look_again: None })));
        let polled = future.as_mut().poll(&mut context);
        let look_again = SLEEPER.get().and_then(|sleeper| sleeper.look_again);
        drop(restore);
        if let Poll::Ready(output) = polled {
            return output;
        }
        // A token that somebody else left costs one look too many.
        match look_again {
            Some(at) => thread::park_timeout(at.saturating_duration_since(Instant::now())),
            None => thread::park(),
        }
    }
}

/// A future that is done after some time. Needs no runtime: a thread that [blocks](block_on) looks at the clock itself, and for others
/// the bridge of the attachment does.
#[must_use = "a timer passes only for who polls it"]
pub(crate) struct Timer<'a> {
    attachment: &'a Attachment,
    /// `None`: further away than the clock can tell.
    at: Option<Instant>,
    deadline: Option<Deadline>,
}

impl<'a> Timer<'a> {
    pub(crate) fn new(attachment: &'a Attachment, time: Duration) -> Self {
        Self { attachment, at: Instant::now().checked_add(time), deadline: None }
    }
}

impl Future for Timer<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(at) = this.at else { return Poll::Pending };
        if at <= Instant::now() {
            return Poll::Ready(());
        }
        if let Some(sleeper) = SLEEPER.get().filter(|sleeper| sleeper.waker == context.waker().data()) {
            let look_again = sleeper.look_again.map_or(at, |earlier| earlier.min(at));
            SLEEPER.set(Some(Sleeper { look_again: Some(look_again), ..sleeper }));
            return Poll::Pending;
        }
        Pin::new(this.deadline.get_or_insert_with(|| this.attachment.deadline(at))).poll(context)
    }
}

/// Drives a future for at most `time`: `None` if it was not done by then.
pub(crate) async fn timeout<F: Future>(attachment: &Attachment, time: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut timer = None;
    std::future::poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        // Most calls never come here.
        Pin::new(timer.get_or_insert_with(|| Timer::new(attachment, time))).poll(context).map(|()| None)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The end of a wait that took no time.
    fn end(patience: &Patience, most: u32, parked: bool) -> u32 {
        let started = Instant::now() + Duration::from_secs(3600);
        Spell { started, budget: Duration::ZERO, most }.end(patience, parked);
        patience.nanos.load(Ordering::Relaxed)
    }

    /// How many waits there are from one of the longest spells, which was in vain, to the next one.
    fn waits_until_the_next(patience: &Patience) -> usize {
        (1..1000).find(|_| end(patience, MOST, true) == MOST).unwrap()
    }

    #[test]
    fn the_longest_spell_is_tried_ever_more_seldom_while_it_is_in_vain() {
        let patience = Patience::new(WaitStrategy::Adaptive);
        // As many as are held off, and those in which it grows again.
        let growth = (1..).find(|doublings| LEAST << doublings >= MOST).unwrap() as usize;
        let held_off = || waits_until_the_next(&patience) - growth - 1;
        while end(&patience, MOST, true) < MOST {}
        assert_eq!([held_off(), held_off(), held_off(), held_off()], [4, 16, 64, 64]);
        assert_eq!(end(&patience, MOST, false), MOST);
        assert_eq!(held_off(), 32);
    }

    #[test]
    fn who_has_woken_nobody_tries_no_longer_than_others() {
        let patience = Patience::new(WaitStrategy::Adaptive);
        while end(&patience, MOST_AFTER_RING, false) < MOST_AFTER_RING {}
        assert_eq!(patience.begin().budget, Duration::from_nanos(MOST.into()));
        assert_eq!(Patience::new(WaitStrategy::Park).begin().budget, Duration::ZERO);
    }
}
