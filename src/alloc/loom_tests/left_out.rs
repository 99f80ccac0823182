//! Models that leave a step out on purpose, and must fail: they show that the others can see. One beside them leaves nothing out, and must
//! hold.

use super::{magazines::cached_pair, *};

/// Where the leaf of a class stands in the maps of a sector of one chunk.
fn leaf(class: usize) -> usize {
    CLASS_WORDS + class * 2 + 1
}

/// A hint that is cleared by `clear`, beside the publication of a block. Must panic if `clear` is wrong.
fn hint_cleared_by(clear: impl Fn(Sector, &AtomicU64) + Clone + Send + Sync + 'static) {
    model(3, move || {
        let ground = Ground::new(4);
        let (sector, maps) = (ground.sector(), view(&ground.maps));
        ground.cut(3, &[2, 2]);
        sector.hints().set(class_of(2), 0);
        let lane = ground.lane(1);
        let other = thread::spawn(move || sector.release(&lane, 0));
        if !sector.word(0).is_free() {
            clear(sector, &maps[leaf(class_of(2))]);
        }
        other.join().unwrap();
        ground.blocks();
    });
}

#[test]
fn must_hold_a_hint_cleared_with_a_fence_and_a_second_look_is_not_lost() {
    hint_cleared_by(|sector, leaf| {
        leaf.fetch_and(!1, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        if sector.word(0).is_free() {
            leaf.fetch_or(1, Ordering::AcqRel);
        }
    });
}

#[test]
#[should_panic(expected = "no hint leads to")]
fn must_fail_a_hint_cleared_without_a_second_look() {
    hint_cleared_by(|_, leaf| {
        leaf.fetch_and(!1, Ordering::AcqRel);
    });
}

#[test]
#[should_panic(expected = "no hint leads to")]
fn must_fail_a_hint_cleared_without_a_fence() {
    hint_cleared_by(|sector, leaf| {
        leaf.fetch_and(!1, Ordering::AcqRel);
        if sector.word(0).is_free() {
            leaf.fetch_or(1, Ordering::AcqRel);
        }
    });
}

#[test]
#[should_panic(expected = "not merged")]
fn must_fail_a_block_published_without_a_second_look_at_its_neighbours() {
    model(3, || {
        let ground = Ground::new(4);
        let sector = ground.sector();
        ground.cut(3, &[2, 2]);
        let lane = ground.lane(1);
        let other = thread::spawn(move || sector.release(&lane, 2));
        // A release that looks at its neighbours only before it publishes.
        assert!(!sector.word(2).is_free() || sector.word(2).len() == 2);
        if !sector.word(2).is_free() {
            sector.store(0, Word::free(2, sector.word(0).next_generation()));
            fence(Ordering::SeqCst);
            sector.hints().set(class_of(2), 0);
        } else {
            sector.release(&ground.lane(2), 0);
        }
        other.join().unwrap();
        assert_eq!(ground.free(), [(0, 4)], "not merged");
    });
}

/// A pop without a locked instruction beside a drain, both of them without their fences.
#[test]
#[should_panic(expected = "given to somebody else")]
fn must_fail_a_pop_beside_a_drain_without_a_fence() {
    model(3, || {
        let ground = Ground::with_magazines(4, 1);
        let sector = ground.sector();
        let (lane, _) = cached_pair(&ground);
        let magazine = view(&ground.magazines);
        let own = magazine[0].word.load(Ordering::Relaxed);
        let other = thread::spawn(move || {
            let word = sector.word(1);
            lane.taking(1);
            let popped = word.state() == State::Cached && magazine[0].word.load(Ordering::Relaxed) == own;
            if popped {
                sector.store(1, Word::allocated(LaneId(1), 1, word.generation()));
            }
            lane.taken();
            popped
        });
        let word = sector.word(1);
        magazine[0].word.store(own + 1, Ordering::Release);
        let stolen = word.state() == State::Cached
            && ground.lanes[1].taking() != Some(1)
            && sector.replace(1, word, Word::allocated(LaneId(2), 1, word.generation()));
        assert!(!(other.join().unwrap() && stolen), "popped, and given to somebody else");
    });
}

#[test]
#[should_panic(expected = "not tiled")]
fn must_fail_a_block_on_the_left_that_grows_by_plain_store() {
    model(3, || {
        let ground = Ground::new(4);
        let sector = ground.sector();
        ground.cut(3, &[2, 2]);
        sector.release(&ground.lane(3), 0);
        let lane = ground.lane(1);
        let other = thread::spawn(move || sector.take(&lane, 1).is_some());
        // Extend left, by load and store instead of a CAS.
        let left = sector.word(0);
        if left == Word::free(2, left.generation()) {
            sector.store(3, sector.word(3).into_end(4));
            sector.store(2, sector.word(2).into_interior());
            sector.store(0, Word::free(4, left.next_generation()));
        }
        fence(Ordering::SeqCst);
        sector.hints().set(class_of(4), 0);
        other.join().unwrap();
        let covered: u64 = ground.blocks().iter().map(|block| block.1).sum();
        assert_eq!(covered, 4);
    });
}
