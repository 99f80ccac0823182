//! Models of the current block: whoever replaces it, whoever reads it, and a reaper that judges what it finds.
//!
//! The last models leave a step out on purpose, and must fail.

use std::{ops::Deref, sync::Arc};

use loom::thread;

use super::{
    current::{self, Judged, Name, judge},
    loom_ground::{self, block, model},
};
use crate::{
    alloc::word::{State, Word},
    region::lanes::LaneId,
    sys::sync::{AtomicU64, Ordering, fence},
};

const BLOCKS: usize = 3;

/// Three blocks. The first is current and the segment's; the others are written, and not named yet.
struct Ground {
    ground: loom_ground::Ground<BLOCKS>,
    name: AtomicU64,
}

impl Deref for Ground {
    type Target = loom_ground::Ground<BLOCKS>;

    fn deref(&self) -> &Self::Target {
        &self.ground
    }
}

impl Ground {
    fn new() -> Arc<Self> {
        // Participant `n` has made block `n`.
        let owners = [LaneId::SEGMENT, LaneId(1), LaneId(2)];
        let ground = loom_ground::Ground::new(owners.map(|owner| Word::shared(owner, 1, 1)));
        let ground = Self { ground, name: AtomicU64::new(0) };
        current::replace(&ground.name, Name::NONE, Name::NONE.next(block(0).id, 1)).unwrap();
        Arc::new(ground)
    }

    fn doom(&self, me: u16, at: usize) {
        // As the attachment does: until it is not there any more.
        while self.sector.word(at as u64).state() == State::Shared {
            if self.settle(at, self.place(at).doom(&self.lane(me), |_| true)) == Some(true) {
                return;
            }
        }
    }

    fn named(&self) -> usize {
        current::load(&self.name).id().granule() as usize
    }

    /// Names a block; the one that was named before.
    fn replace(&self, at: usize) -> usize {
        let mut from = current::load(&self.name);
        while let Err(now) = current::replace(&self.name, from, from.next(block(at).id, 1)) {
            from = now;
        }
        from.id().granule() as usize
    }

    /// All that a writer does.
    fn publish(&self, me: u16) {
        let at = usize::from(me);
        let before = self.replace(at);
        if self.place(at).hand_over(&self.name) {
            self.doom(me, at);
        }
        self.doom(me, before);
    }

    /// Reads what is current, unless it is replaced meanwhile.
    fn read(&self, me: u16) {
        let at = self.named();
        let entered = self.settle(at, self.place(at).enter(&self.lane(me), |header, _| header.begin_read(me)));
        if entered == Some(true) {
            // SAFETY: this is what the models are to show.
            self.payloads[at].with(|payload| assert_eq!(unsafe { *payload }, at as u64));
            self.settle(at, self.place(at).leave(&self.lane(me), |header| header.end_read(me)));
        } else {
            assert_ne!(self.named(), at, "what is current cannot be read");
        }
    }

    /// A reaper comes to a block.
    fn judge(&self, me: u16, at: usize, dead: Option<u16>) {
        self.judge_with(me, at, |word, is_named| {
            judge(word, dead.is_some_and(|dead| word.lane() == LaneId(dead)), is_named)
        });
    }

    fn judge_with(&self, me: u16, at: usize, judge: impl Fn(Word, &dyn Fn() -> bool) -> Judged) {
        if self.sector.word(at as u64).state() != State::Shared {
            return;
        }
        let is_named = || current::load(&self.name).is_of(block(at).id, 1);
        let visited = self.place(at).enter(&self.lane(me), |_, word| {
            let to = match judge(word, &is_named) {
                Judged::Kept => return,
                Judged::HandedOver => Word::shared(LaneId::SEGMENT, 1, 1),
                Judged::Left => Word::doomed(1, 1),
            };
            self.sector.replace(at as u64, word, to);
        });
        self.settle(at, visited);
    }

    /// What is current is there, and whatever was, and is not any more, was freed once.
    fn finish(&self, replaced: &[usize]) {
        assert_eq!(self.sector.word(self.named() as u64).state(), State::Shared);
        assert_eq!(self.freed[self.named()].load(Ordering::Relaxed), 0);
        for at in replaced {
            assert_eq!(self.freed[*at].load(Ordering::Relaxed), 1, "block {at}");
        }
    }
}

#[test]
fn a_reader_finds_the_old_value_or_the_new_one_whole() {
    model(3, || {
        let ground = Ground::new();
        let other = Arc::clone(&ground);
        let reader = thread::spawn(move || other.read(0));
        ground.publish(1);
        reader.join().unwrap();
        ground.finish(&[0]);
    });
}

#[test]
fn of_two_writers_one_is_last_and_the_other_values_go() {
    model(3, || {
        let ground = Ground::new();
        let other = Arc::clone(&ground);
        let writer = thread::spawn(move || other.publish(1));
        ground.publish(2);
        writer.join().unwrap();
        ground.finish(&[0, 3 - ground.named()]);
        assert_eq!(ground.sector.word(ground.named() as u64), Word::shared(LaneId::SEGMENT, 1, 1));
    });
}

#[test]
fn a_reaper_that_judges_beside_a_writer_and_a_reader_frees_what_is_not_current() {
    model(2, || {
        let ground = Ground::new();
        let (writing, reading) = (Arc::clone(&ground), Arc::clone(&ground));
        let writer = thread::spawn(move || writing.publish(1));
        let reader = thread::spawn(move || reading.read(0));
        ground.judge(2, 1, None);
        ground.judge(2, 0, None);
        writer.join().unwrap();
        reader.join().unwrap();
        ground.finish(&[0]);
    });
}

#[test]
fn a_writer_that_died_after_it_was_named_is_made_good_for() {
    model(3, || {
        let ground = Ground::new();
        // Participant 1 dies, its value named and the old one not freed; participant 2 sends another, or sees to it.
        ground.replace(1);
        let other = Arc::clone(&ground);
        let writer = thread::spawn(move || other.publish(2));
        ground.judge(0, 0, Some(1));
        ground.judge(0, 1, Some(1));
        // As a reaper does where a word has changed.
        ground.judge(0, 1, Some(1));
        writer.join().unwrap();
        ground.finish(&[0, 1]);
    });
}

/// Participant 2 has replaced the name of participant 1's block, and died at once; participant 1 is about to hand it over.
fn one_that_died_after_another(hand_over: fn(&Ground) -> bool) {
    model(3, move || {
        let ground = Ground::new();
        ground.replace(1);
        let other = Arc::clone(&ground);
        let writer = thread::spawn(move || {
            if hand_over(&other) {
                other.doom(1, 1);
            }
        });
        ground.replace(2);
        ground.judge(0, 0, Some(2));
        ground.judge(0, 1, Some(2));
        ground.judge(0, 2, Some(2));
        writer.join().unwrap();
        ground.finish(&[0, 1]);
    });
}

#[test]
fn a_value_that_is_replaced_before_it_is_handed_over_goes_also_if_the_other_writer_dies() {
    one_that_died_after_another(|ground| ground.place(1).hand_over(&ground.name));
}

#[test]
#[should_panic]
fn without_a_second_look_at_the_name_a_value_is_left_behind() {
    one_that_died_after_another(|ground| {
        ground.place(1).hand_over(&ground.name);
        false
    });
}

#[test]
#[should_panic]
fn a_reaper_that_looks_at_the_name_first_frees_what_is_current() {
    model(3, || {
        let ground = Ground::new();
        let other = Arc::clone(&ground);
        let writer = thread::spawn(move || other.publish(1));
        let named = current::load(&ground.name);
        fence(Ordering::SeqCst);
        ground.judge_with(2, 1, |word, _| judge(word, false, || named.is_of(block(1).id, 1)));
        writer.join().unwrap();
        ground.finish(&[0]);
    });
}

#[test]
#[should_panic]
fn a_writer_that_does_not_free_what_it_replaced_leaves_it_behind() {
    model(3, || {
        let ground = Ground::new();
        let other = Arc::clone(&ground);
        let reader = thread::spawn(move || other.read(0));
        ground.replace(1);
        ground.place(1).hand_over(&ground.name);
        reader.join().unwrap();
        ground.finish(&[0]);
    });
}

#[test]
#[should_panic]
fn a_reader_without_a_mark_reads_what_is_somebody_elses() {
    model(3, || {
        let ground = Ground::new();
        let other = Arc::clone(&ground);
        let reader = thread::spawn(move || {
            let at = other.named();
            // SAFETY: it is not, which loom is to find.
            other.payloads[at].with(|payload| assert_eq!(unsafe { *payload }, at as u64));
        });
        ground.publish(1);
        reader.join().unwrap();
    });
}
