//! Models of the guards: every interleaving of those who come to a block, those who go, and whoever frees it.
//!
//! Payload and header are each watched by a cell of loom's: an access that nothing orders before or after the next owner's
//! is a race, which loom reports. The last models leave a step out on purpose, and must fail.

use std::sync::Arc;

use loom::{cell::UnsafeCell, thread};

use super::guard::{Header, Place};
use crate::{
    alloc::{Block, sector::Sector, word::Word},
    segment::{
        lanes::{BlockId, Intent, Lane, LaneId, LanePool},
        layout::{LaneLine, SectorLayout},
    },
    sys::{
        shared::{SharedRef, SharedSlice},
        sync::{AtomicU64, AtomicUsize, Ordering, fence},
    },
};

fn model(preemptions: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(test);
}

/// A user's block of participant 0, and up to three participants with a lane each.
struct Ground {
    sector: Sector,
    lanes: LanePool,
    lines: SharedSlice<LaneLine>,
    header: SharedRef<Header>,
    block: Block,
    payload: UnsafeCell<u64>,
    /// Read by whoever is at the header, written by the block's next owner.
    header_is_there: UnsafeCell<()>,
    freed: AtomicUsize,
}

impl Ground {
    fn new() -> Arc<Self> {
        let zeroed = |len| SharedSlice::leak((0..len).map(|_| AtomicU64::new(0)).collect());
        let extent = crate::sys::shared::SharedRef::leak(crate::sys::sync::SeldomWrittenU64::new(1));
        let sector = Sector::new(0, zeroed(2), zeroed(SectorLayout::map_words(1)), extent);
        sector.format(1);
        let lines = SharedSlice::leak((0..3).map(|_| LaneLine::default()).collect());
        let block = Block { id: BlockId::new(0, 0), len: 1, generation: 1 };
        sector.store(0, Word::shared(LaneId(0), 1, 1));
        Arc::new(Self {
            sector,
            lanes: LanePool::new(lines, 3, 0),
            lines,
            header: SharedRef::leak(Header::default()),
            block,
            payload: UnsafeCell::new(0),
            header_is_there: UnsafeCell::new(()),
            freed: AtomicUsize::new(0),
        })
    }

    fn place(&self) -> Place<'_> {
        Place { sector: &self.sector, lanes: &self.lanes, header: self.header, block: self.block }
    }

    fn lane(&self, me: u16) -> Lane {
        // SAFETY: leaked, see `new`.
        Lane::new(LaneId(me), unsafe { SharedRef::new((&self.lines[usize::from(me)]).into()) })
    }

    fn at_header(&self) {
        self.header_is_there.with(|_| ());
    }

    fn read_payload(&self) -> u64 {
        // SAFETY: this is what the model is to show.
        self.payload.with(|payload| unsafe { *payload })
    }

    fn write_payload(&self, value: u64) {
        // SAFETY: this is what the model is to show.
        self.payload.with_mut(|payload| unsafe { *payload = value });
    }

    /// What comes of a visit; an abandoned block goes to its next owner, who does with it what they like.
    fn settle<R>(&self, visited: super::guard::Visited<R>) -> Option<R> {
        if visited.abandoned {
            self.reuse();
        }
        visited.found
    }

    fn reuse(&self) {
        self.freed.fetch_add(1, Ordering::Relaxed);
        self.header_is_there.with_mut(|_| ());
        self.write_payload(0xdead);
    }

    /// `None`: the block is gone; `Some(false)`: a writer is in the way.
    fn try_read(&self, me: u16) -> Option<bool> {
        self.settle(self.place().enter(&self.lane(me), |header, _| {
            self.at_header();
            let entered = header.begin_read(me);
            self.at_header();
            entered
        }))
    }

    fn end_read(&self, me: u16) {
        self.settle(self.place().leave(&self.lane(me), |header| {
            self.at_header();
            header.end_read(me);
            self.at_header();
        }));
    }

    fn try_write(&self, me: u16) -> Option<bool> {
        self.settle(self.place().enter(&self.lane(me), |header, _| {
            self.at_header();
            let claimed = header.claim_write(me);
            let entered = claimed && header.start_write(me);
            if claimed && !entered {
                header.end_write();
            }
            self.at_header();
            entered
        }))
    }

    fn end_write(&self, me: u16) {
        self.settle(self.place().leave(&self.lane(me), |header| {
            self.at_header();
            header.end_write();
            self.at_header();
        }));
    }

    fn doom(&self, me: u16) -> bool {
        self.settle(self.place().doom(&self.lane(me), |_| true)) == Some(true)
    }
}

#[test]
fn readers_and_writers_keep_out_of_each_others_way() {
    model(3, || {
        let ground = Ground::new();
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
        assert!(!ground.header.is_held());
    });
}

#[test]
fn two_writers_keep_out_of_each_others_way() {
    model(3, || {
        let ground = Ground::new();
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
        assert!((1..=2).contains(&ground.read_payload()) && !ground.header.is_held());
    });
}

#[test]
fn a_block_that_is_freed_goes_once_and_after_its_reader() {
    model(3, || {
        let ground = Ground::new();
        let other = Arc::clone(&ground);
        let reader = thread::spawn(move || {
            if other.try_read(1) == Some(true) {
                assert_eq!(other.read_payload(), 0);
                other.end_read(1);
            }
        });
        assert!(ground.doom(0));
        reader.join().unwrap();
        assert_eq!(ground.freed.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_block_that_is_freed_goes_once_and_after_its_writer() {
    model(3, || {
        let ground = Ground::new();
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
        assert_eq!(ground.freed.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn of_two_who_free_one_does() {
    model(3, || {
        let ground = Ground::new();
        let other = Arc::clone(&ground);
        let freeing = thread::spawn(move || other.doom(1));
        let mine = ground.doom(0);
        assert!(mine != freeing.join().unwrap());
        assert_eq!(ground.freed.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn two_readers_who_leave_a_doomed_block_free_it_once() {
    model(2, || {
        let ground = Ground::new();
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
        assert_eq!(ground.freed.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_reaper_takes_the_mark_of_the_dead_and_frees_once() {
    model(3, || {
        let ground = Ground::new();
        // Participant 1 reads, and dies; participant 2 buries it, while the owner frees.
        assert_eq!(ground.try_read(1), Some(true));
        let other = Arc::clone(&ground);
        let reaper = thread::spawn(move || {
            let lane = other.lane(2);
            let cleared = other.settle(other.place().enter(&lane, |header, _| header.forget(1)));
            if cleared.is_none() {
                other.settle(other.place().forget_doomed(&lane, &[1]));
            }
        });
        assert!(ground.doom(0));
        reaper.join().unwrap();
        assert_eq!(ground.freed.load(Ordering::Relaxed), 1);
    });
}

/// A lost wake-up is a deadlock, which loom reports.
#[test]
fn a_reader_that_waits_for_a_writer_is_woken() {
    model(3, || {
        let ground = Ground::new();
        assert_eq!(ground.try_write(1), Some(true));
        let other = Arc::clone(&ground);
        let writer = thread::spawn(move || {
            other.write_payload(1);
            other.end_write(1);
        });
        while !ground.header.begin_read(0) {
            let turn = ground.header.enrol();
            if ground.header.begin_read(0) {
                break;
            }
            ground.header.sleep(turn);
        }
        assert_eq!(ground.read_payload(), 1);
        writer.join().unwrap();
    });
}

#[test]
fn a_writer_that_waits_for_a_reader_is_woken() {
    model(3, || {
        let ground = Ground::new();
        assert_eq!(ground.try_read(1), Some(true));
        let other = Arc::clone(&ground);
        let reader = thread::spawn(move || {
            assert_eq!(other.read_payload(), 0);
            other.end_read(1);
        });
        assert!(ground.header.claim_write(0));
        while !ground.header.start_write(0) {
            let turn = ground.header.enrol();
            if ground.header.start_write(0) {
                break;
            }
            ground.header.sleep(turn);
        }
        ground.write_payload(2);
        reader.join().unwrap();
    });
}

/// A collector that looks at the marks and at the intents in the order and number that is said.
fn doom_and_collect(ground: &Ground, looks: &[fn(&Place<'_>) -> bool]) {
    let (place, lane) = (ground.place(), ground.lane(0));
    assert!(ground.sector.replace(0, Word::shared(LaneId(0), 1, 1), Word::doomed(1, 1)));
    fence(Ordering::SeqCst);
    let busy = looks.iter().any(|look| look(&place));
    if !busy && place.is_doomed() && ground.sector.replace(0, Word::doomed(1, 1), Word::claimed(lane.id(), 1, 1)) {
        ground.reuse();
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
        let ground = Ground::new();
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
        let ground = Ground::new();
        let other = Arc::clone(&ground);
        let reader = thread::spawn(move || {
            let lane = other.lane(1);
            lane.intend(Intent::Guard { block: other.block.id, generation: 1 });
            if other.sector.word(0) == Word::shared(LaneId(0), 1, 1) {
                other.at_header();
            }
            lane.done();
        });
        assert!(ground.doom(0));
        reader.join().unwrap();
    });
}
