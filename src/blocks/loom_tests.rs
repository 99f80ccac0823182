//! Models of the guards: every interleaving of those who come to a block, those who go, and whoever frees it.
//!
//! The last models leave a step out on purpose, and must fail.

use std::sync::Arc;

use loom::thread;

use super::{
    guard::Place,
    loom_ground::{self, block, model},
};
use crate::{
    alloc::word::Word,
    region::lanes::{Intent, Lane, LaneId},
    sys::sync::{Ordering, fence},
};

/// A user's block of participant 0.
type Ground = loom_ground::Ground<1>;

fn ground() -> Arc<Ground> {
    Arc::new(Ground::new([Word::shared(LaneId(0), 1, 1)]))
}

impl Ground {
    fn read_payload(&self) -> u64 {
        // SAFETY: this is what the model is to show.
        self.payloads[0].with(|payload| unsafe { *payload })
    }

    fn write_payload(&self, value: u64) {
        // SAFETY: this is what the model is to show.
        self.payloads[0].with_mut(|payload| unsafe { *payload = value });
    }

    /// `None`: the block is gone; `Some(false)`: a writer is in the way.
    fn try_read(&self, me: u16) -> Option<bool> {
        self.settle(
            0,
            self.place(0).enter(&self.lane(me), |header, _| {
                self.at_header(0);
                let entered = header.begin_read(me);
                self.at_header(0);
                entered
            }),
        )
    }

    fn end_read(&self, me: u16) {
        self.settle(
            0,
            self.place(0).leave(&self.lane(me), |header| {
                self.at_header(0);
                header.end_read(me);
                self.at_header(0);
            }),
        );
    }

    fn try_write(&self, me: u16) -> Option<bool> {
        self.settle(
            0,
            self.place(0).enter(&self.lane(me), |header, _| {
                self.at_header(0);
                let claimed = header.claim_write(me);
                let entered = claimed && header.start_write(me);
                if claimed && !entered {
                    header.end_write();
                }
                self.at_header(0);
                entered
            }),
        )
    }

    fn end_write(&self, me: u16) {
        self.settle(
            0,
            self.place(0).leave(&self.lane(me), |header| {
                self.at_header(0);
                header.end_write();
                self.at_header(0);
            }),
        );
    }

    fn doom(&self, me: u16) -> bool {
        self.settle(0, self.place(0).doom(&self.lane(me), |_| true)) == Some(true)
    }
}

#[test]
fn readers_and_writers_keep_out_of_each_others_way() {
    model(3, || {
        let ground = ground();
        let other = Arc::clone(&ground);
        let writer = thread::spawn(move || {
            if other.try_write(1) == Some(true) {
                other.write_payload(1);
                other.end_write(1);
            }
        });
        if ground.try_read(2) == Some(true) {
            ground.read_payload();
            ground.end_read(2);
        }
        writer.join().unwrap();
        assert!(!ground.headers[0].is_held());
    });
}

#[test]
fn two_writers_keep_out_of_each_others_way() {
    model(3, || {
        let ground = ground();
        let other = Arc::clone(&ground);
        let write = |ground: &Ground, me: u16| {
            if ground.try_write(me) == Some(true) {
                ground.write_payload(ground.read_payload() + 1);
                ground.end_write(me);
            }
        };
        let writer = thread::spawn(move || write(&other, 1));
        write(&ground, 2);
        writer.join().unwrap();
        assert!((1..=2).contains(&ground.read_payload()) && !ground.headers[0].is_held());
    });
}

#[test]
fn a_block_that_is_freed_goes_once_and_after_its_reader() {
    model(3, || {
        let ground = ground();
        let other = Arc::clone(&ground);
        let reader = thread::spawn(move || {
            if other.try_read(1) == Some(true) {
                assert_eq!(other.read_payload(), 0);
                other.end_read(1);
            }
        });
        assert!(ground.doom(0));
        reader.join().unwrap();
        assert_eq!(ground.freed[0].load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_block_that_is_freed_goes_once_and_after_its_writer() {
    model(3, || {
        let ground = ground();
        let other = Arc::clone(&ground);
        let writer = thread::spawn(move || {
            if other.try_write(1) == Some(true) {
                assert_eq!(other.read_payload(), 0);
                other.write_payload(1);
                other.end_write(1);
            }
        });
        assert!(ground.doom(0));
        writer.join().unwrap();
        assert_eq!(ground.freed[0].load(Ordering::Relaxed), 1);
    });
}

#[test]
fn of_two_who_free_one_does() {
    model(3, || {
        let ground = ground();
        let other = Arc::clone(&ground);
        let freeing = thread::spawn(move || other.doom(1));
        let mine = ground.doom(0);
        assert!(mine != freeing.join().unwrap());
        assert_eq!(ground.freed[0].load(Ordering::Relaxed), 1);
    });
}

#[test]
fn two_readers_who_leave_a_doomed_block_free_it_once() {
    model(2, || {
        let ground = ground();
        assert_eq!((ground.try_read(1), ground.try_read(2)), (Some(true), Some(true)));
        assert!(ground.doom(0));
        let other = Arc::clone(&ground);
        let reader = thread::spawn(move || {
            assert_eq!(other.read_payload(), 0);
            other.end_read(1);
        });
        assert_eq!(ground.read_payload(), 0);
        ground.end_read(2);
        reader.join().unwrap();
        assert_eq!(ground.freed[0].load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_reaper_takes_the_mark_of_the_dead_and_frees_once() {
    model(3, || {
        let ground = ground();
        // Participant 1 reads, and dies; participant 2 buries it, while the owner frees.
        assert_eq!(ground.try_read(1), Some(true));
        let other = Arc::clone(&ground);
        let reaper = thread::spawn(move || {
            let lane = other.lane(2);
            let cleared = other.settle(0, other.place(0).enter(&lane, |header, _| header.forget(1)));
            if cleared.is_none() {
                other.settle(0, other.place(0).forget_doomed(&lane, &[1]));
            }
        });
        assert!(ground.doom(0));
        reaper.join().unwrap();
        assert_eq!(ground.freed[0].load(Ordering::Relaxed), 1);
    });
}

/// A lost wake-up is a deadlock, which loom reports.
#[test]
fn a_reader_that_waits_for_a_writer_is_woken() {
    model(3, || {
        let ground = ground();
        assert_eq!(ground.try_write(1), Some(true));
        let other = Arc::clone(&ground);
        let writer = thread::spawn(move || {
            other.write_payload(1);
            other.end_write(1);
        });
        while !ground.headers[0].begin_read(0) {
            let turn = ground.headers[0].enrol();
            if ground.headers[0].begin_read(0) {
                break;
            }
            ground.headers[0].sleep(turn);
        }
        assert_eq!(ground.read_payload(), 1);
        writer.join().unwrap();
    });
}

#[test]
fn a_writer_that_waits_for_a_reader_is_woken() {
    model(3, || {
        let ground = ground();
        assert_eq!(ground.try_read(1), Some(true));
        let other = Arc::clone(&ground);
        let reader = thread::spawn(move || {
            assert_eq!(other.read_payload(), 0);
            other.end_read(1);
        });
        assert!(ground.headers[0].claim_write(0));
        while !ground.headers[0].start_write(0) {
            let turn = ground.headers[0].enrol();
            if ground.headers[0].start_write(0) {
                break;
            }
            ground.headers[0].sleep(turn);
        }
        ground.write_payload(2);
        reader.join().unwrap();
    });
}

/// A collector that looks at the marks and at the intents in the order and number that is said.
fn doom_and_collect(ground: &Ground, looks: &[fn(&Place<'_>) -> bool]) {
    let (place, lane) = (ground.place(0), ground.lane(0));
    assert!(ground.sector.replace(0, Word::shared(LaneId(0), 1, 1), Word::doomed(1, 1)));
    fence(Ordering::SeqCst);
    let busy = looks.iter().any(|look| look(&place));
    if !busy && place.is_doomed() && ground.sector.replace(0, Word::doomed(1, 1), Word::claimed(lane.id(), 1, 1)) {
        ground.reuse(0);
    }
}

fn named(place: &Place<'_>) -> bool {
    place.is_named()
}

fn held(place: &Place<'_>) -> bool {
    place.header.is_held()
}

fn reader_against(looks: &'static [fn(&Place<'_>) -> bool]) {
    model(3, move || {
        let ground = ground();
        let other = Arc::clone(&ground);
        let freeing = thread::spawn(move || doom_and_collect(&other, looks));
        if ground.try_read(1) == Some(true) {
            ground.read_payload();
            ground.end_read(1);
        }
        freeing.join().unwrap();
    });
}

#[test]
fn the_looks_of_a_collector_are_enough() {
    reader_against(&[named, held, named]);
}

#[test]
#[should_panic]
fn without_the_first_look_at_the_intents_a_reader_that_comes_is_missed() {
    reader_against(&[held, named]);
}

#[test]
#[should_panic]
fn without_the_second_look_at_the_intents_a_reader_that_goes_is_missed() {
    reader_against(&[named, held]);
}

#[test]
#[should_panic]
fn without_a_look_at_the_marks_a_reader_is_missed() {
    reader_against(&[named, named]);
}

#[test]
#[should_panic]
fn without_the_fence_between_intent_and_word_a_reader_is_missed() {
    model(3, || {
        let ground = ground();
        let other = Arc::clone(&ground);
        let reader = thread::spawn(move || {
            let lane = other.lane(1);
            lane.intend(Intent::Guard { block: block(0).id, generation: 1 });
            if other.sector.word(0) == Word::shared(LaneId(0), 1, 1) {
                other.at_header(0);
            }
            lane.done();
        });
        assert!(ground.doom(0));
        reader.join().unwrap();
    });
}

#[test]
#[should_panic]
fn a_reader_whose_line_is_put_in_use_too_late_is_missed() {
    model(3, || {
        let ground = ground();
        let other = Arc::clone(&ground);
        let reader = thread::spawn(move || {
            let entered = other.place(0).enter(&other.lane_not_in_use(1), |header, _| {
                other.at_header(0);
                header.begin_read(1)
            });
            other.lane(1);
            if other.settle(0, entered) == Some(true) {
                other.read_payload();
                other.end_read(1);
            }
        });
        ground.doom(0);
        reader.join().unwrap();
    });
}

/// Two collectors of a doomed block with nobody in it. When the first has it, the block comes again, with the generation that it had:
/// somebody reads it, and it is doomed.
fn two_collectors(collect: fn(&Place<'_>, &Lane) -> bool) {
    model(3, move || {
        let ground = Arc::new(Ground::new([Word::doomed(1, 1)]));
        let other = Arc::clone(&ground);
        let collector = thread::spawn(move || {
            if collect(&other.place(0), &other.lane(1)) {
                assert!(!other.headers[0].is_held(), "a block was freed under its reader");
            }
        });
        if collect(&ground.place(0), &ground.lane(0)) {
            ground.sector.store(0, Word::shared(LaneId(0), 1, 1));
            assert!(ground.headers[0].begin_read(2));
            assert!(ground.sector.replace(0, Word::shared(LaneId(0), 1, 1), Word::doomed(1, 1)));
        }
        collector.join().unwrap();
    });
}

#[test]
fn a_collector_that_stood_still_for_all_lives_of_a_block_takes_it_from_no_reader() {
    two_collectors(|place, lane| place.collect(lane));
}

#[test]
#[should_panic(expected = "under its reader")]
fn without_a_second_look_a_collector_takes_another_life_for_the_one_that_it_has_seen() {
    two_collectors(|place, lane| {
        let is_free = place.is_doomed() && !named(place) && !held(place) && !named(place);
        is_free && place.sector.replace(0, Word::doomed(1, 1), Word::claimed(lane.id(), 1, 1))
    });
}
