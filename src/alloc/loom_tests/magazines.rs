//! Models of magazines, and of loose blocks, which go from hand to hand without one.

use super::*;

/// A lane with two full magazines and one block more.
fn full_hands(ground: &Ground, blocks: u64) -> (Lane, Cache) {
    let (sector, depot, lane) = (ground.sector(), ground.depot(), ground.lane(1));
    ground.cut(1, &vec![LONG; blocks as usize]);
    let mut cache = Cache::default();
    for block in 0..blocks - 1 {
        assert!(depot.push(&sector, &lane, &mut cache, block * LONG, sector.word(block * LONG)));
    }
    (lane, cache)
}

#[test]
fn a_magazine_handed_over_gives_every_block_once() {
    model(2, || {
        let ground = Ground::with_magazines(9 * LONG, 4);
        let (sector, depot, owners) = (ground.sector(), ground.depot(), ground.owners());
        let class = SizeClass::covering(LONG).unwrap();
        let (lane, mut cache) = full_hands(&ground, 9);
        let last = 8 * LONG;
        mark(&owners, Run { granule: last, len: 1, generation: 0 }, 1);
        let first = move |run: Run| Run { len: 1, ..run };
        let other = thread::spawn(move || {
            unmark(&owners, Run { granule: last, len: 1, generation: 0 });
            // The ninth: a full magazine goes to the depot, an empty one comes.
            assert!(depot.push(&sector, &lane, &mut cache, last, sector.word(last)));
            if let Some(run) = depot.pop(&sector, &lane, &mut cache, class) {
                mark(&owners, first(run), 1);
            }
        });
        let (lane, mut cache) = (ground.lane(2), Cache::default());
        let mut got = 0;
        for _ in 0..2 {
            if let Some(run) = depot.pop(&sector, &lane, &mut cache, class) {
                assert_eq!(sector.word(run.granule), Word::allocated(LaneId(2), LONG, run.generation));
                mark(&owners, first(run), 2);
                got += 1;
            }
        }
        other.join().unwrap();
        let blocks = ground.blocks();
        assert_eq!(blocks.iter().filter(|block| block.2 == State::Allocated).count(), got + 1);
        assert_eq!(blocks.iter().filter(|block| block.2 == State::Cached).count(), 9 - got - 1);
    });
}

#[test]
fn two_lanes_never_get_the_same_magazine() {
    model(3, || {
        let ground = Ground::with_magazines(4 * LONG, 2);
        let (sector, depot, owners) = (ground.sector(), ground.depot(), ground.owners());
        let class = SizeClass::covering(LONG).unwrap();
        let (_, mut cache) = full_hands(&ground, 4);
        depot.flush(&ground.sector(), &ground.lane(1), &mut cache);
        let work = move |lane: Lane| {
            let mut cache = Cache::default();
            let run = depot.pop(&sector, &lane, &mut cache, class);
            if let Some(run) = run {
                mark(&owners, Run { len: 1, ..run }, lane.id().0);
            }
            usize::from(run.is_some())
        };
        let lane = ground.lane(1);
        let other = thread::spawn(move || work(lane));
        let got = work(ground.lane(2)) + other.join().unwrap();
        assert_eq!(got, 1, "one magazine serves one lane");
        ground.blocks();
    });
}

/// A lane with two blocks of one granule in its magazine, beside two blocks that it still owns.
pub(super) fn cached_pair(ground: &Ground) -> (Lane, Cache) {
    let (sector, depot, lane) = (ground.sector(), ground.depot(), ground.lane(1));
    ground.cut(1, &[1, 1, 1, 1]);
    let mut cache = Cache::default();
    for granule in [0, 1] {
        assert!(depot.push(&sector, &lane, &mut cache, granule, sector.word(granule)));
    }
    (lane, cache)
}

#[test]
fn what_is_stolen_from_a_magazine_is_not_popped() {
    model(3, || {
        let ground = Ground::with_magazines(4, 1);
        let (sector, depot) = (ground.sector(), ground.depot());
        let class = SizeClass::covering(1).unwrap();
        let (lane, mut cache) = cached_pair(&ground);
        let other = thread::spawn(move || {
            let run = depot.pop(&sector, &lane, &mut cache, class)?;
            assert_eq!(sector.word(run.granule), Word::allocated(LaneId(1), 1, run.generation));
            Some(run)
        });
        ground.depot().drain(&sector, &ground.lane(2));
        let popped = other.join().unwrap();
        let blocks = ground.blocks();
        if let Some(run) = popped {
            assert!(blocks.contains(&(run.granule, 1, State::Allocated)), "popped, and given to somebody else");
        }
        // The one that was just being taken is left to its owner, which gives up the others that it finds.
        assert!(popped.is_none() || !blocks.iter().any(|block| block.2 == State::Cached));
        ground.ends_in_one_piece();
    });
}

#[test]
fn what_is_pushed_while_another_drains_is_cached_or_free() {
    model(3, || {
        let ground = Ground::with_magazines(4, 1);
        let (sector, depot) = (ground.sector(), ground.depot());
        let (lane, mut cache) = cached_pair(&ground);
        let other = thread::spawn(move || {
            assert!(depot.push(&sector, &lane, &mut cache, 2, sector.word(2)));
        });
        ground.depot().drain(&sector, &ground.lane(2));
        other.join().unwrap();
        let at_2 = ground.blocks().into_iter().find(|block| (block.0..block.0 + block.1).contains(&2)).unwrap();
        assert!(matches!(at_2.2, State::Cached | State::Free));
        ground.ends_in_one_piece();
    });
}

#[test]
fn memory_in_the_caches_of_another_is_found_before_there_is_no_memory() {
    model(2, || {
        let ground = Ground::with_magazines(4, 1);
        let allocator = allocator_over(&ground, 4);
        let (lane, cache) = cached_pair(&ground);
        let mut worker = Worker { lane, cache };
        let other = thread::spawn(move || allocator.allocate(&mut worker, 64, 1).is_ok());
        // Two of four granules are cached; whoever comes first or second, both get one.
        let mut worker = Worker { lane: ground.lane(2), cache: Cache::default() };
        let mine = allocator.allocate(&mut worker, 64, 1);
        let theirs = other.join().unwrap();
        assert!(theirs && mine.is_ok(), "{mine:?} {theirs}");
        let block = mine.unwrap();
        assert_eq!(allocator.owned_by(block.id, block.generation, LaneId(2)), Some(block));
        assert_eq!(allocator.owned_by(BlockId::new(0, 3), block.generation + 1, LaneId(2)), None);
        ground.blocks();
    });
}

/// A ground, and its only sector beside two that are empty, as an allocator.
fn allocator_over(ground: &Ground, granules: usize) -> Allocator {
    let none = || Sector::new(1, 10, view(&ground.words[granules..]), view(&ground.maps), ground.extent(1));
    Allocator::new([ground.sector(), none(), none()], ground.depot())
}

/// A block of lane 3's that it gives away: its number and generation, and its payload, watched by loom.
struct Gift {
    id: BlockId,
    generation: u32,
    payload: UnsafeCell<u64>,
}

impl Gift {
    fn cut(ground: &Ground) -> Self {
        ground.cut(3, &[1, 1]);
        Self { id: BlockId::new(0, 0), generation: ground.sector().word(0).generation(), payload: UnsafeCell::new(0) }
    }

    fn write(&self, value: u64) {
        // SAFETY: this is what the model is to show.
        self.payload.with_mut(|payload| unsafe { *payload = value });
    }
}

#[test]
fn who_takes_a_loose_block_sees_what_was_written_to_it() {
    model(3, || {
        let ground = Ground::with_magazines(2, 1);
        let allocator = allocator_over(&ground, 2);
        let gift = Arc::new(Gift::cut(&ground));
        let giving = Arc::clone(&gift);
        let other = thread::spawn(move || {
            giving.write(7);
            allocator.set_loose(giving.id, giving.generation);
        });
        let taken = allocator.take_loose(LaneId(1), gift.id, gift.generation);
        if let Some(block) = taken {
            // SAFETY: this is what the model is to show.
            assert_eq!(gift.payload.with(|payload| unsafe { *payload }), 7);
            gift.write(8);
            assert_eq!(allocator.owned_by(gift.id, block.generation, LaneId(1)), Some(block));
        }
        other.join().unwrap();
        assert_eq!(ground.sector().word(0).state(), if taken.is_some() { State::Allocated } else { State::Loose });
    });
}

/// The giver is dead. One wants the block, another one frees it into a magazine or takes it, and a reaper frees what it
/// finds. `take` is how the first one does it. Must panic if that is wrong.
fn loose_block_taken_by(
    preemptions: usize,
    other_frees: bool,
    take: impl Fn(&Allocator, BlockId, u32) -> bool + Copy + Send + Sync + 'static,
) {
    model(preemptions, move || {
        let ground = Ground::with_magazines(2, 1);
        let allocator = allocator_over(&ground, 2);
        let gift = Arc::new(Gift::cut(&ground));
        let (id, generation) = (gift.id, gift.generation);
        // A magazine with a block in it, and room for another.
        let (sector, depot, lane) = (ground.sector(), ground.depot(), ground.lane(2));
        let mut cache = Cache::default();
        assert!(depot.push(&sector, &lane, &mut cache, 1, sector.word(1)));
        allocator.set_loose(id, generation);
        let (mut worker, freed) = (Worker { lane, cache }, Arc::clone(&gift));
        let other = thread::spawn(move || {
            let got = if other_frees {
                allocator.free_loose_at_hand(&mut worker, id, generation)
            } else {
                allocator.take_loose(LaneId(2), id, generation).is_some()
            };
            if got && !other_frees {
                freed.write(2);
            }
            got
        });
        let taken = Arc::clone(&gift);
        let first = thread::spawn(move || {
            let got = take(&allocator, id, generation);
            if got {
                taken.write(1);
            }
            got
        });
        // The reaper.
        let word = sector.word(0);
        let buried = word.state() == State::Loose && sector.seize(&ground.lane(0), 0, word, || gift.write(3));
        let got = [buried, first.join().unwrap(), other.join().unwrap()];
        assert_eq!(got.iter().filter(|got| **got).count(), 1, "whose is it? {got:?}");
        let state = ground.blocks()[0].2;
        let states = [State::Free, State::Allocated, if other_frees { State::Cached } else { State::Allocated }];
        assert_eq!(state, states[got.iter().position(|got| *got).unwrap()]);
    });
}

#[test]
fn of_two_who_take_a_loose_block_and_its_reaper_one_gets_it() {
    loose_block_taken_by(3, false, |allocator, id, generation| {
        allocator.take_loose(LaneId(1), id, generation).is_some()
    });
}

#[test]
fn of_one_who_takes_a_loose_block_one_who_frees_it_and_its_reaper_one_gets_it() {
    loose_block_taken_by(3, true, |allocator, id, generation| {
        allocator.take_loose(LaneId(1), id, generation).is_some()
    });
}

#[test]
#[should_panic]
fn must_fail_a_loose_block_that_is_taken_by_a_plain_store() {
    loose_block_taken_by(3, false, |allocator, id, generation| {
        let found = allocator.find(id, generation).filter(|_| allocator.word_of(id).unwrap().1.state() == State::Loose);
        found.inspect(|block| allocator.set_allocated(LaneId(1), *block)).is_some()
    });
}
