//! Rights that one participant has at a time: to take from a partition of a routed channel, and to have a share of them.
//!
//! A word is 0, or 1 + the participant that has the right. It is taken by a CAS from 0, and given back by one to 0: by who has it, once
//! all that it did with it is done, or by its reaper, once all that the dead had is back. So whoever has it next sees all of that.

use crate::{
    region::slot::Slot,
    sys::{
        shared::SharedSlice,
        sync::{AtomicU64, Ordering},
    },
};

/// A view of a head's slate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Routes(SharedSlice<Slot>);

/// What there is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// To take messages from a partition.
    Partition,
    /// To have a share of the partitions.
    Seat,
}

fn change(word: &AtomicU64, from: u64, to: u64) -> bool {
    // Ordering: SeqCst: who takes a partition sees all that was done by who had it before, and the epoch changes after it.
    word.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
}

impl Routes {
    pub(crate) fn new(slate: SharedSlice<Slot>) -> Self {
        Self(slate)
    }

    /// How many partitions there are, and seats.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn word(&self, right: Right, number: usize) -> Option<&AtomicU64> {
        self.0.get(number).map(|slot| match right {
            Right::Partition => &slot.word,
            Right::Seat => &slot.count,
        })
    }

    /// Takes it, if nobody has it.
    pub(crate) fn take(&self, right: Right, number: usize, participant: u16) -> bool {
        self.word(right, number).is_some_and(|word| change(word, 0, u64::from(participant) + 1))
    }

    /// The participant has it no more.
    pub(crate) fn give(&self, right: Right, number: usize, participant: u16) -> bool {
        self.word(right, number).is_some_and(|word| change(word, u64::from(participant) + 1, 0))
    }

    /// How many partitions are for the receiver in a seat. The shares of all who sit make up all partitions, and none is
    /// empty.
    pub(crate) fn share(&self, seat: usize) -> usize {
        let taken = |number: &usize| {
            *number == seat || self.word(Right::Seat, *number).is_some_and(|word| word.load(Ordering::SeqCst) != 0)
        };
        let (before, all) = ((0..seat).filter(taken).count(), (0..self.len()).filter(taken).count());
        self.len() / all.max(1) + usize::from(before < self.len() % all.max(1))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn routes(partitions: usize) -> Routes {
        let slots = (0..partitions).map(|_| Slot { word: AtomicU64::new(0), count: AtomicU64::new(0) });
        Routes(SharedSlice::leak(slots.collect()))
    }

    #[test]
    fn shares_make_up_all_partitions_and_differ_by_one_at_most() {
        for partitions in [1, 2, 7, 16, 256] {
            let routes = routes(partitions);
            let mut seats = Vec::new();
            // Every third seat first, as if others had gone.
            for seat in (0..partitions).step_by(3).chain(0..partitions) {
                if routes.take(Right::Seat, seat, 5) {
                    seats.push(seat);
                    let shares: Vec<usize> = seats.iter().map(|seat| routes.share(*seat)).collect();
                    assert_eq!(shares.iter().sum::<usize>(), partitions, "{seats:?}");
                    let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
                    assert!(*least > 0 && most - least <= 1, "{seats:?}: {shares:?}");
                }
            }
            assert_eq!(seats.len(), partitions);
        }
    }

    #[test]
    fn what_somebody_has_nobody_else_gets_or_gives_back() {
        let routes = routes(2);
        assert!(routes.take(Right::Partition, 1, 3));
        assert!(!routes.take(Right::Partition, 1, 3) && !routes.take(Right::Partition, 1, 4));
        assert!(!routes.give(Right::Partition, 1, 4) && !routes.give(Right::Seat, 1, 3));
        assert!(routes.give(Right::Partition, 1, 3) && routes.take(Right::Partition, 1, 4));
        assert!(!routes.take(Right::Partition, 2, 3));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{cell::UnsafeCell, sync::Arc, thread};

    use super::*;

    fn routes() -> Routes {
        Routes::new(SharedSlice::leak(vec![Slot::default()]))
    }

    /// Participant 1 is done with what it was given of a partition, and 2 wants it; `leave` is what 1 does.
    fn two_receivers(leave: fn(&Routes, &UnsafeCell<u64>)) {
        loom::model(move || {
            let (routes, last) = (routes(), Arc::new(UnsafeCell::new(0)));
            assert!(routes.take(Right::Partition, 0, 1));
            let one = {
                let last = Arc::clone(&last);
                thread::spawn(move || leave(&routes, &last))
            };
            let mut had = 0;
            for _ in 0..2 {
                if routes.take(Right::Partition, 0, 2) {
                    had += last.with_mut(|last| {
                        // SAFETY: nobody else has the right: loom sees it if somebody has.
                        unsafe { *last += 1 };
                        1
                    });
                    assert!(routes.give(Right::Partition, 0, 2));
                }
            }
            one.join().unwrap();
            // SAFETY: the other thread has ended.
            assert_eq!(last.with(|last| unsafe { *last }), had + 1);
        });
    }

    fn finish(last: &UnsafeCell<u64>) {
        // SAFETY: as above.
        last.with_mut(|last| unsafe { *last += 1 });
    }

    #[test]
    fn a_partition_is_with_one_receiver_at_a_time() {
        two_receivers(|routes, last| {
            finish(last);
            assert!(routes.give(Right::Partition, 0, 1));
        });
    }

    #[test]
    #[should_panic]
    fn must_fail_when_it_is_given_back_before_the_last_message_is_done_with() {
        two_receivers(|routes, last| {
            assert!(routes.give(Right::Partition, 0, 1));
            finish(last);
        });
    }

    /// The reapers of participant 1 put back what it had, and then give up its right, while 2 wants it and says what it finds.
    fn a_reaper(bury: fn(&Routes, &AtomicU64)) {
        loom::model(move || {
            let (routes, back) = (routes(), Arc::new(AtomicU64::new(0)));
            assert!(routes.take(Right::Partition, 0, 1));
            let reaper = {
                let back = Arc::clone(&back);
                thread::spawn(move || {
                    bury(&routes, &back);
                    // Killed before it had said so: another does it all over.
                    bury(&routes, &back);
                })
            };
            if routes.take(Right::Partition, 0, 2) {
                // Ordering: Relaxed: the right orders it.
                assert_eq!(back.load(Ordering::Relaxed), 1, "what is new came before what came back");
                // Whatever is left of the burial takes nothing from the living.
                thread::yield_now();
                assert!(!routes.take(Right::Partition, 0, 3));
            }
            reaper.join().unwrap();
        });
    }

    #[test]
    fn who_gets_the_partition_of_the_dead_finds_what_came_back() {
        a_reaper(|routes, back| {
            back.store(1, Ordering::Relaxed);
            routes.give(Right::Partition, 0, 1);
        });
    }

    #[test]
    #[should_panic]
    fn must_fail_when_the_reaper_gives_it_back_first() {
        a_reaper(|routes, back| {
            routes.give(Right::Partition, 0, 1);
            back.store(1, Ordering::Relaxed);
        });
    }
}
