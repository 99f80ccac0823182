//! Deadlines of this process, which its bridge keeps: so a wait with a time limit needs neither a runtime nor a thread of its own,
//! and works in a forked child that opens the segment anew, which has a bridge of its own.
//!
//! ```text
//! who waits                                 bridge
//! list |= (time, waker); earliest ↓         until = next tick, or earliest if that is sooner
//! time < until? ──► ring                    asleep; earliest < until? ──► look again; else sleep until then
//! ```
//!
//! Whoever comes with an earlier deadline is seen by the bridge before it sleeps, or sees for how long it sleeps: all of it is SeqCst.
//! A deadline that is given up leaves the bridge to wake in vain, once: that costs less than to tell it.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use crate::{
    sys::{
        fork,
        held::{Mutex, MutexGuard},
    },
    wake::{Hub, Topic, wakers},
};

/// Moments of this process are told in nanoseconds since this one was made.
pub(super) struct Deadlines {
    began: Instant,
    /// The process that it was made in, see [`fork::generation`].
    generation: u32,
    /// No deadline is earlier.
    earliest: AtomicU64,
    /// The bridge sleeps until then at most, or is about to; 0 while it is awake.
    until: AtomicU64,
    list: Mutex<List>,
}

/// Deadlines that are not over yet, the earliest first. The number tells those of one moment from each other.
#[derive(Default)]
struct List {
    next: u64,
    wakers: BTreeMap<(u64, u64), Waker>,
}

impl Deadlines {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            generation: fork::generation(),
            earliest: AtomicU64::new(u64::MAX),
            until: AtomicU64::new(0),
            list: Mutex::default(),
        }
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock()
    }

    fn now(&self) -> u64 {
        self.nanos(Instant::now())
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX)
    }

    /// The bridge is about to sleep, for at most `time`: for how long it may.
    pub(super) fn fall_asleep(&self, time: Option<Duration>) -> Option<Duration> {
        let now = self.now();
        let latest =
            time.map_or(u64::MAX, |time| now.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)));
        // Ordering: SeqCst here and in `has_earlier`: {set until, load earliest} against {set earliest, load until}.
        let until = latest.min(self.earliest.load(Ordering::SeqCst));
        self.until.store(until, Ordering::SeqCst);
        (until < u64::MAX).then(|| Duration::from_nanos(until.saturating_sub(now)))
    }

    /// Whether somebody has come since whom the bridge would keep waiting.
    pub(super) fn has_earlier(&self) -> bool {
        self.earliest.load(Ordering::SeqCst) < self.until.load(Ordering::SeqCst)
    }

    pub(super) fn awake(&self) {
        self.until.store(0, Ordering::SeqCst);
    }

    /// Takes a place in the list, or another waker for one; `true` if the bridge must hear of it.
    fn enlist(&self, at: u64, number: &mut Option<u64>, waker: &Waker) -> bool {
        // Outside of the lock, here and below: it may do anything.
        let copy = wakers::copy(waker);
        let (old, is_known) = {
            let mut list = self.list();
            let number = *number.get_or_insert_with(|| {
                list.next += 1;
                list.next
            });
            match list.wakers.get_mut(&(at, number)) {
                Some(known) if known.will_wake(&copy) => (Some(copy), true),
                Some(known) => (Some(std::mem::replace(known, copy)), false),
                None => (list.wakers.insert((at, number), copy), false),
            }
        };
        wakers::discard(old);
        if is_known {
            return false;
        }
        self.earliest.fetch_min(at, Ordering::SeqCst);
        at < self.until.load(Ordering::SeqCst)
    }

    fn remove(&self, at: u64, number: u64) {
        let removed = self.list().wakers.remove(&(at, number));
        wakers::discard(removed);
    }

    /// The waker of a deadline that is over, if there is one.
    fn over(&self) -> Option<Waker> {
        let mut list = self.list();
        let first = list.wakers.first_entry();
        let waker = first.filter(|first| first.key().0 <= self.now()).map(|first| first.remove());
        // Under the lock: whoever comes with an earlier one says so afterwards.
        let earliest = list.wakers.first_key_value().map_or(u64::MAX, |((at, _), _)| *at);
        self.earliest.store(earliest, Ordering::SeqCst);
        waker
    }
}

impl Hub {
    /// A future that is done at some time, and needs no runtime.
    pub(crate) fn deadline(self: &Arc<Self>, at: Instant) -> Deadline {
        Deadline { hub: Arc::clone(self), at: self.deadlines.nanos(at), number: None }
    }

    /// Looks after some time whether who stands in line for a topic has done what it was woken for.
    pub(super) fn look_at_line_after(self: &Arc<Self>, time: Duration, topic: Topic) {
        struct Look(Weak<Hub>, Topic);
        impl Wake for Look {
            fn wake(self: Arc<Self>) {
                if let Some(queue) = self.0.upgrade().and_then(|hub| hub.find(self.1)) {
                    queue.look_at_line();
                }
            }
        }
        let at = self.deadlines.nanos(Instant::now() + time);
        self.keep(at, &mut None, &Arc::new(Look(Arc::downgrade(self), topic)).into());
    }

    /// The bridge, or who stands in for it, wakes the waker then.
    fn keep(self: &Arc<Self>, at: u64, number: &mut Option<u64>, waker: &Waker) {
        let is_early = self.deadlines.enlist(at, number, waker);
        self.start_for_deadlines();
        if is_early {
            self.insist();
        }
    }

    /// Wakes those whose deadlines are over.
    pub(super) fn end_deadlines(&self) {
        self.deadlines.awake();
        while !self.is_stopped()
            && let Some(waker) = self.deadlines.over()
        {
            self.outside(|| super::wakers::wake(waker));
        }
    }
}

/// Some time, see [`Hub::deadline`].
#[must_use = "a deadline passes only for who polls it"]
pub(crate) struct Deadline {
    hub: Arc<Hub>,
    at: u64,
    /// Its number in the list, if it has a place there.
    number: Option<u64>,
}

impl Deadline {
    fn is_inherited(&self) -> bool {
        self.hub.deadlines.generation != fork::generation()
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        // In a forked child nobody keeps it; nor does what it limits ever happen there.
        if this.is_inherited() || this.hub.deadlines.now() >= this.at {
            return Poll::Ready(());
        }
        let is_first = this.number.is_none();
        this.hub.keep(this.at, &mut this.number, context.waker());
        this.hub.drive(is_first, 1, context);
        Poll::Pending
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        if let Some(number) = self.number
            && !self.is_inherited()
        {
            self.hub.deadlines.remove(self.at, number);
        }
    }
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadline").field("at", &self.at).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn the_bridge_hears_of_those_deadlines_that_it_would_sleep_beyond() {
        let deadlines = Deadlines::new();
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let hour = 3_600_000_000_000;
        // Awake, it looks before it sleeps.
        assert!(!deadlines.enlist(2 * hour, &mut None, &waker));
        let slept = deadlines.fall_asleep(None).unwrap();
        assert!(slept <= Duration::from_secs(7200) && slept > Duration::from_secs(7000));
        assert!(!deadlines.has_earlier());
        assert!(!deadlines.enlist(3 * hour, &mut None, &waker));
        let mut number = None;
        assert!(deadlines.enlist(hour, &mut number, &waker) && deadlines.has_earlier());
        assert!(!deadlines.enlist(hour, &mut number, &waker));
        deadlines.awake();
        assert!(deadlines.over().is_none());
        // The tick of the watchdog comes first.
        assert!(deadlines.fall_asleep(Some(Duration::from_secs(1))).unwrap() <= Duration::from_secs(1));
        deadlines.remove(hour, number.unwrap());
        assert!(deadlines.enlist(0, &mut None, &waker));
        deadlines.over().unwrap().wake();
        assert!(deadlines.over().is_none());
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }
}
