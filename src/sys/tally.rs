//! A reference count whose hot half is plain: who comes and goes often is counted by threads, each for itself.
//!
//! What is counted has two kinds of holders. Few **anchors**, which an atomic counts; and many **guests**, who can come only
//! while there is an anchor: each thread has a [`Count`] of those that came minus those that went by its hand, which may be
//! negative. The sum of all counts of a thing is how many guests it has.
//!
//! When the last anchor goes, no guest can come any more, so counts only go down from then on: if their sum reads 0, it is
//! 0, in whatever order they were read. If it is not, the thing is [put aside](Parting::part), and the guest who goes last
//! finds it there:
//!
//! ```text
//! the last anchor                         a guest
//! something is put aside                  my count goes down
//! full fence (membarrier, all threads)    (nothing: the other side's fence is ours)
//! sum of all counts is 0?                 is something put aside? then: sum of all counts is 0?
//! ```
//!
//! One of the two sees the other. Both look under the lock of what is put aside, so only one takes it away.

use std::sync::Arc;

#[cfg(loom)]
use crate::sys::sync::{AtomicU64, AtomicUsize, Ordering, fence};
use crate::sys::{held::Mutex, membarrier};
// No crash points: other processes do not see any of this.
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

/// Guests that came minus guests that went by the hand of one thread, modulo 2⁶⁴.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// A guest comes. Only its own thread may call this; and there is an anchor.
    #[inline(always)]
    pub(crate) fn come(&self) {
        // Ordering: Relaxed: the count of anchors orders it before the look of the last one.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// A guest goes, and must not look at the thing again. Only the count's own thread may call this.
    #[inline(always)]
    fn go(&self) {
        // Ordering: Release: all that the guest did comes before the end of the thing.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Release);
    }
}

/// How many guests a thing has.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: Mutex<Vec<Arc<Count>>>,
    /// For who has no count of its own. Changed by read-modify-writes.
    rest: Arc<Count>,
}

impl Tally {
    /// A count for one more thread.
    pub(crate) fn enlist(&self) -> Arc<Count> {
        let count = Arc::default();
        self.counts.lock().push(Arc::clone(&count));
        count
    }

    /// A thread needs its count no more.
    pub(crate) fn retire(&self, count: &Arc<Count>) {
        let mut counts = self.counts.lock();
        self.rest.0.fetch_add(count.0.load(Ordering::Relaxed), Ordering::Relaxed);
        counts.retain(|other| !Arc::ptr_eq(other, count));
    }

    /// A guest comes by the hand of who has no count.
    pub(crate) fn come(&self) {
        self.rest.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The count of those who have none, by which a guest can go who must not look at the thing again.
    pub(crate) fn rest(&self) -> Arc<Count> {
        Arc::clone(&self.rest)
    }

    fn is_zero(&self) -> bool {
        let counts = self.counts.lock();
        // Ordering: Acquire, pairs with who went.
        let sum = |sum: u64, count: &Arc<Count>| sum.wrapping_add(count.0.load(Ordering::Acquire));
        counts.iter().chain([&self.rest]).fold(0, sum) == 0
    }
}

/// Things that have guests and no anchor any more.
#[derive(Debug)]
pub(crate) struct Parting<T> {
    things: Mutex<Vec<T>>,
    /// How many: for a look without the lock.
    some: AtomicUsize,
}

impl<T: AsRef<Tally>> Parting<T> {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self { things: Mutex::new(Vec::new()), some: AtomicUsize::new(0) }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self { things: Mutex::new(Vec::new()), some: AtomicUsize::new(0) }
    }

    /// The last anchor of a thing goes: it is dropped when its last guest has gone, by whoever sees that.
    pub(crate) fn part(&self, thing: T) {
        if thing.as_ref().is_zero() {
            return;
        }
        {
            let mut things = self.things.lock();
            things.push(thing);
            self.some.store(things.len(), Ordering::SeqCst);
        }
        if !membarrier::everywhere() {
            fence(Ordering::SeqCst);
        }
        self.settle();
    }

    /// A guest goes, by the count of its thread. `fenced`: whether this process can be made to pass a fence.
    #[inline(always)]
    pub(crate) fn go(&self, count: &Count, fenced: bool) {
        count.go();
        membarrier::light();
        if !fenced {
            fence(Ordering::SeqCst);
        }
        self.look();
    }

    /// A guest goes, by the count of those who have none.
    pub(crate) fn go_by_rest(&self, rest: &Count) {
        rest.0.fetch_sub(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.look();
    }

    #[inline(always)]
    fn look(&self) {
        // Ordering: Relaxed: the fences order it.
        if self.some.load(Ordering::Relaxed) != 0 {
            self.settle();
        }
    }

    /// Drops what has no guests any more.
    #[cold]
    #[inline(never)]
    fn settle(&self) {
        let done: Vec<T> = {
            let mut things = self.things.lock();
            let done = things.extract_if(.., |thing| thing.as_ref().is_zero()).collect();
            self.some.store(things.len(), Ordering::SeqCst);
            done
        };
        // Outside of the lock: to end a thing may take a while, and end guests of another.
        drop(done);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc;

    use loom::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    use super::{Count, Parting, Tally};

    struct Thing {
        tally: Tally,
        ended: Arc<AtomicUsize>,
    }

    impl AsRef<Tally> for Thing {
        fn as_ref(&self) -> &Tally {
            &self.tally
        }
    }

    impl Drop for Thing {
        fn drop(&mut self) {
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Two guests came by the hand of one thread, and go by those of two, `by` their counts, while the last anchor goes.
    fn two_guests_and_an_anchor(go: fn(&Parting<Thing>, &Count)) {
        loom::model(move || {
            let ended = Arc::new(AtomicUsize::new(0));
            let parting = Arc::new(Parting::new());
            let thing = Thing { tally: Tally::default(), ended: Arc::clone(&ended) };
            let counts = [thing.tally.enlist(), thing.tally.enlist()];
            counts[0].come();
            counts[0].come();
            let guests = counts.map(|count| {
                let (parting, ended) = (Arc::clone(&parting), Arc::clone(&ended));
                thread::spawn(move || {
                    assert_eq!(ended.load(Ordering::Relaxed), 0);
                    go(&parting, &count);
                })
            });
            parting.part(thing);
            for guest in guests {
                guest.join().unwrap();
            }
            assert_eq!(ended.load(Ordering::Relaxed), 1);
        });
    }

    #[test]
    fn what_has_no_anchor_ends_with_its_last_guest() {
        two_guests_and_an_anchor(|parting, count| parting.go(count, true));
    }

    #[test]
    #[should_panic]
    fn must_fail_without_a_fence_of_the_guest() {
        two_guests_and_an_anchor(|parting, count| {
            count.go();
            parting.look();
        });
    }

    #[test]
    fn the_thread_of_a_guest_may_end_before() {
        loom::model(|| {
            let ended = Arc::new(AtomicUsize::new(0));
            let parting = Arc::new(Parting::new());
            let thing = Thing { tally: Tally::default(), ended: Arc::clone(&ended) };
            let count = thing.tally.enlist();
            count.come();
            thing.tally.retire(&count);
            let guest = {
                let (parting, rest) = (Arc::clone(&parting), thing.tally.rest());
                thread::spawn(move || parting.go_by_rest(&rest))
            };
            parting.part(thing);
            guest.join().unwrap();
            assert_eq!(ended.load(Ordering::Relaxed), 1);
        });
    }
}
