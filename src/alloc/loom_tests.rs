//! Models of the allocator's races: every interleaving of two lanes over a handful of granules.
//!
//! What a model asserts, it asserts twice: while the lanes work, that nothing is given out twice, and afterwards, that
//! heads tile the sector, that the free ones have come together, and that hints lead to them. The last few models leave
//! a step out on purpose, and must fail: they show that the others can see.

use std::{ptr::NonNull, sync::Arc};

use loom::{cell::UnsafeCell, thread};

use super::{
    Allocator, Worker,
    hints::{Hints, Visit},
    magazine::{Cache, Depot, SizeClass},
    sector::{Run, Sector},
    word::{State, Word, class_of},
};
use crate::{
    segment::{
        lanes::{BlockId, Lane, LaneId},
        layout::{CACHED_SIZES, CLASS_WORDS, DEPOT_WORDS, LaneLine, MAGAZINE_ITEMS, MagazineLine, SectorLayout},
    },
    sys::{
        shared::{SharedRef, SharedSlice},
        sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering, SeldomWrittenU64, fence},
    },
};

const LANES: usize = 4;

/// The memory of one run of a model. Views of it are used until the threads are joined, and no longer.
struct Ground {
    words: Vec<AtomicU64>,
    maps: Vec<AtomicU64>,
    extents: [SeldomWrittenU64; 2],
    owners: Vec<AtomicUsize>,
    lanes: Vec<LaneLine>,
    magazines: Vec<MagazineLine>,
    depot: Vec<AtomicU64>,
}

fn zeroed(len: u64) -> Vec<AtomicU64> {
    (0..len).map(|_| AtomicU64::new(0)).collect()
}

fn view<T>(values: &[T]) -> SharedSlice<T> {
    // SAFETY: atomics on the heap, which the ground keeps until all threads of the model are joined.
    unsafe { SharedSlice::new(NonNull::from(values).cast(), values.len()) }
}

impl Ground {
    fn new(granules: u64) -> Self {
        Self::with_magazines(granules, 0)
    }

    fn with_magazines(granules: u64, magazines: usize) -> Self {
        let magazine = || MagazineLine {
            word: AtomicU64::new(0),
            count: AtomicU64::new(0),
            items: std::array::from_fn::<_, MAGAZINE_ITEMS, _>(|_| AtomicU32::new(0)),
        };
        let ground = Self {
            words: zeroed(granules + 1),
            maps: zeroed(SectorLayout::map_words(granules)),
            extents: [SeldomWrittenU64::new(0), SeldomWrittenU64::new(0)],
            owners: (0..granules).map(|_| AtomicUsize::new(0)).collect(),
            lanes: (0..LANES).map(|_| LaneLine::default()).collect(),
            magazines: (0..magazines).map(|_| magazine()).collect(),
            depot: zeroed(if magazines > 0 { ((CACHED_SIZES + 1) * DEPOT_WORDS) as u64 } else { 0 }),
        };
        ground.sector().format(granules);
        if magazines > 0 {
            ground.depot().format();
        }
        ground
    }

    fn sector(&self) -> Sector {
        Sector::new(0, 6, view(&self.words), view(&self.maps), self.extent(0))
    }

    fn extent(&self, sector: usize) -> SharedRef<SeldomWrittenU64> {
        // SAFETY: as for `view`.
        unsafe { SharedRef::new(NonNull::from(&self.extents[sector])) }
    }

    fn depot(&self) -> Depot {
        Depot::new(view(&self.magazines), view(&self.depot), view(&self.lanes))
    }

    fn owners(&self) -> SharedSlice<AtomicUsize> {
        view(&self.owners)
    }

    fn lane(&self, id: u16) -> Lane {
        // SAFETY: as for `view`.
        Lane::new(LaneId(id), unsafe { SharedRef::new(NonNull::from(&self.lanes[usize::from(id)])) })
    }

    /// Takes the whole sector and cuts it into blocks of these lengths, which the lane owns.
    fn cut(&self, id: u16, lens: &[u64]) {
        let (sector, lane) = (self.sector(), self.lane(id));
        assert_eq!(lens.iter().sum::<u64>(), sector.granules());
        let whole = sector.take(&lane, sector.granules()).unwrap();
        let mut at = whole.granule;
        for len in lens {
            if *len > 1 {
                sector.store(at + len - 1, sector.word(at + len - 1).into_end(*len));
            }
            sector.store(at, Word::allocated(lane.id(), *len, sector.word(at).next_generation()));
            at += len;
        }
    }

    /// What the heads say: where each begins, its length and its state. Everything must tile, and every free block must
    /// be found by its hint.
    fn blocks(&self) -> Vec<(u64, u64, State)> {
        let sector = self.sector();
        let mut blocks = Vec::new();
        let mut at = 0;
        while at < sector.granules() {
            let word = sector.word(at);
            assert!(
                word.is_head() && word.len() > 0 && at + word.len() <= sector.granules(),
                "not tiled, no block at {at}: {word:?}"
            );
            for inside in at + 1..at + word.len() {
                assert!(
                    matches!(sector.word(inside).state(), State::Interior | State::End),
                    "not tiled, a head inside at {inside}"
                );
            }
            if word.is_free() {
                assert!(sector.hints().is_set(class_of(word.len()), at), "no hint leads to {at}: {word:?}");
            }
            blocks.push((at, word.len(), word.state()));
            at += word.len();
        }
        assert_eq!(sector.word(at).state(), State::Sentinel);
        for (id, line) in self.lanes.iter().enumerate() {
            assert_eq!(line.intent.load(Ordering::Relaxed), 0, "lane {id} still means to do something");
        }
        blocks
    }

    fn free(&self) -> Vec<(u64, u64)> {
        self.blocks().into_iter().filter(|block| block.2 == State::Free).map(|block| (block.0, block.1)).collect()
    }

    /// Frees what the lanes still own, one after the other: nothing may stay behind, nothing may stay apart.
    fn ends_in_one_piece(&self) {
        let (sector, lane) = (self.sector(), self.lane(3));
        for (at, _, state) in self.blocks() {
            assert_ne!(state, State::Claimed, "claimed by nobody who is at work");
            if sector.word(at).state() == State::Allocated {
                sector.release(&lane, at);
            }
        }
        self.depot().drain(&sector, &lane);
        self.blocks();
        // Two that were freed at once may lie side by side; whoever needs them in one piece merges them.
        let whole = sector.sweep(&lane, sector.granules()).expect("all is free, and not in one piece");
        sector.release(&lane, whole.granule);
        assert_eq!(self.free(), [(0, sector.granules())]);
    }
}

/// Marks granules as a lane's, from which nobody else may get them.
fn mark(owners: &[AtomicUsize], run: Run, id: u16) {
    for granule in run.granule..run.granule + run.len {
        assert_eq!(owners[granule as usize].swap(usize::from(id), Ordering::Relaxed), 0, "{granule} given out twice");
    }
}

fn unmark(owners: &[AtomicUsize], run: Run) {
    for granule in run.granule..run.granule + run.len {
        owners[granule as usize].store(0, Ordering::Relaxed);
    }
}

fn model(preemptions: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(test);
}

/// A sector of `granules` that may become twice as many.
fn small(granules: u64) -> Ground {
    let ground = Ground::new(2 * granules);
    ground.words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    ground.maps.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    ground.sector().format(granules);
    ground
}

#[test]
fn two_lanes_that_grow_a_sector_at_once_grow_it_once_and_merge_what_comes() {
    model(2, || {
        let ground = small(2);
        let (sector, owners) = (ground.sector(), ground.owners());
        let grow = move |lane: &Lane| {
            let from = sector.granules();
            if let Some(to) = sector.next_extent(from) {
                sector.grow(lane, from, to);
            }
        };
        let lane = ground.lane(1);
        let other = thread::spawn(move || {
            grow(&lane);
            if let Some(run) = sector.take(&lane, 2) {
                mark(&owners, run, 1);
                unmark(&owners, run);
                sector.release(&lane, run.granule);
            }
        });
        grow(&ground.lane(2));
        other.join().unwrap();
        assert_eq!(sector.granules(), 4);
        ground.ends_in_one_piece();
    });
}

#[test]
fn what_is_freed_beside_the_old_end_comes_together_with_what_grows_there() {
    model(2, || {
        let ground = small(2);
        ground.cut(1, &[1, 1]);
        let sector = ground.sector();
        let lane = ground.lane(1);
        let other = thread::spawn(move || {
            sector.release(&lane, 1);
            sector.release(&lane, 0);
        });
        sector.grow(&ground.lane(2), 2, 4);
        other.join().unwrap();
        ground.ends_in_one_piece();
    });
}

#[test]
fn allocate_and_free_beside_allocate_and_free() {
    model(2, || {
        let ground = Ground::new(6);
        let (sector, owners) = (ground.sector(), ground.owners());
        let work = move |lane: Lane, len: u64| {
            if let Some(run) = sector.take(&lane, len) {
                mark(&owners, run, lane.id().0);
                unmark(&owners, run);
                assert_eq!(sector.word(run.granule).state(), State::Allocated);
                sector.release(&lane, run.granule);
            }
        };
        let lane = ground.lane(1);
        let other = thread::spawn(move || work(lane, 2));
        work(ground.lane(2), 1);
        other.join().unwrap();
        ground.ends_in_one_piece();
    });
}

/// Cuts a sector, frees some blocks, then frees two at once; they must end in one free run with what is free beside them.
fn freed_at_once(
    preemptions: usize,
    lens: &'static [u64],
    before: &'static [u64],
    first: u64,
    second: u64,
    end: (u64, u64),
) {
    model(preemptions, move || {
        let ground = Ground::new(lens.iter().sum());
        let sector = ground.sector();
        ground.cut(3, lens);
        for at in before {
            sector.release(&ground.lane(3), *at);
        }
        let lane = ground.lane(1);
        let other = thread::spawn(move || sector.release(&lane, first));
        sector.release(&ground.lane(2), second);
        other.join().unwrap();
        assert_eq!(ground.free(), [end], "not merged");
        ground.ends_in_one_piece();
    });
}

#[test]
fn neighbours_freed_at_once_come_together() {
    freed_at_once(2, &[2, 2], &[], 0, 2, (0, 4));
    freed_at_once(2, &[2, 2], &[], 2, 0, (0, 4));
    freed_at_once(3, &[1, 1, 2], &[], 0, 1, (0, 2));
    freed_at_once(2, &[1, 1, 2], &[], 1, 0, (0, 2));
}

#[test]
fn neighbours_freed_at_once_come_together_with_what_is_free_on_the_left() {
    freed_at_once(2, &[1, 2, 1, 1], &[0], 1, 3, (0, 4));
    freed_at_once(2, &[1, 2, 1, 1], &[0], 3, 1, (0, 4));
}

#[test]
fn neighbours_freed_at_once_come_together_with_what_is_free_on_the_right() {
    freed_at_once(2, &[1, 1, 2, 1], &[2], 0, 1, (0, 4));
    freed_at_once(2, &[1, 1, 2, 1], &[2], 1, 0, (0, 4));
}

#[test]
fn both_neighbours_of_a_free_block_freed_at_once_come_together_with_it() {
    freed_at_once(2, &[1, 2, 1, 1], &[1], 0, 3, (0, 4));
    freed_at_once(2, &[1, 2, 1, 1], &[1], 3, 0, (0, 4));
}

/// Frees the block at `freed`, while another lane takes `len` granules out of the free block beside it.
fn freed_beside_taken(preemptions: usize, lens: &'static [u64], free: u64, freed: u64, len: u64) {
    model(preemptions, move || {
        let ground = Ground::new(lens.iter().sum());
        let (sector, owners) = (ground.sector(), ground.owners());
        ground.cut(3, lens);
        sector.release(&ground.lane(3), free);
        let block = Run { granule: freed, len: sector.word(freed).len(), generation: 0 };
        mark(&owners, block, 1);
        let lane = ground.lane(1);
        let other = thread::spawn(move || {
            unmark(&owners, block);
            sector.release(&lane, freed);
        });
        let lane = ground.lane(2);
        let run = sector.take(&lane, len).or_else(|| sector.sweep(&lane, len));
        if let Some(run) = run {
            assert_eq!(run.len, len);
            mark(&owners, run, 2);
        }
        other.join().unwrap();
        ground.blocks();
        if let Some(run) = run {
            let word = sector.word(run.granule);
            assert_eq!(word, Word::allocated(LaneId(2), len, run.generation), "the block changed under its owner");
        }
        ground.ends_in_one_piece();
    });
}

#[test]
fn a_block_is_freed_while_its_left_neighbour_is_taken() {
    freed_beside_taken(2, &[2, 1, 1], 0, 2, 2);
    freed_beside_taken(2, &[2, 2, 1], 0, 2, 1);
}

#[test]
fn a_block_is_freed_while_its_right_neighbour_is_taken() {
    freed_beside_taken(2, &[1, 2, 1], 1, 0, 2);
    freed_beside_taken(2, &[2, 2, 1], 2, 0, 1);
}

#[test]
fn a_block_is_freed_while_the_two_are_taken_as_one() {
    freed_beside_taken(2, &[1, 2, 1], 1, 0, 3);
    freed_beside_taken(2, &[2, 1, 1], 0, 2, 3);
}

/// Two lanes take from one free block; how many of them must get something is for the caller to say.
fn carved_at_once(granules: u64, lens: (u64, u64), at_least: usize) {
    model(2, move || {
        let ground = Ground::new(granules);
        let (sector, owners) = (ground.sector(), ground.owners());
        let work = move |lane: Lane, len: u64| {
            let run = sector.take(&lane, len).or_else(|| sector.sweep(&lane, len));
            if let Some(run) = run {
                assert_eq!(run.len, len);
                mark(&owners, run, lane.id().0);
            }
            usize::from(run.is_some())
        };
        let lane = ground.lane(1);
        let other = thread::spawn(move || work(lane, lens.0));
        let got = work(ground.lane(2), lens.1) + other.join().unwrap();
        assert!(got >= at_least, "{got} of two takers got something");
        let owned: u64 = ground.blocks().iter().filter(|block| block.2 == State::Allocated).map(|block| block.1).sum();
        assert!(got < 2 || owned == lens.0 + lens.1);
        ground.ends_in_one_piece();
    });
}

#[test]
fn two_lanes_carve_the_same_block_and_neither_finds_it_missing() {
    // Not two of one granule: the head of one is where the other sets a tag by CAS, and loom lets a CAS succeed on top
    // of a plain store that it has not read, which no machine does.
    carved_at_once(6, (2, 3), 2);
    carved_at_once(6, (2, 2), 2);
    carved_at_once(4, (2, 2), 2);
    carved_at_once(4, (3, 2), 1);
}

#[test]
fn a_block_published_while_its_hint_is_cleared_is_found_afterwards() {
    model(3, || {
        let ground = Ground::new(4);
        let sector = ground.sector();
        ground.cut(3, &[2, 2]);
        // The hint of a free block of 2 is set, and wrong.
        sector.hints().set(class_of(2), 0);
        let lane = ground.lane(1);
        let other = thread::spawn(move || sector.release(&lane, 0));
        let lane = ground.lane(2);
        let run = sector.take(&lane, 2);
        other.join().unwrap();
        ground.blocks();
        if run.is_none() {
            assert!(sector.take(&lane, 2).is_some());
        }
    });
}

#[test]
fn hints_survive_two_searches_beside_a_publication() {
    // The searchers go all three levels up.
    model(3, || {
        let ground = Ground::new(4);
        let sector = ground.sector();
        ground.cut(3, &[2, 2]);
        sector.hints().set(class_of(2), 0);
        let lane = ground.lane(1);
        let other = thread::spawn(move || sector.release(&lane, 0));
        let lane = ground.lane(2);
        let run = (0..3).find_map(|_| sector.take(&lane, 2));
        other.join().unwrap();
        ground.blocks();
        if run.is_none() {
            assert!(sector.take(&lane, 2).is_some());
        }
    });
}

/// One searcher beside somebody who publishes and then searches, too. Nobody takes what he finds.
#[test]
fn hints_survive_a_search_beside_a_publication_and_a_search() {
    model(3, || {
        let words = zeroed(1);
        let maps = zeroed(SectorLayout::map_words(64));
        let (word, hints) = (view(&words), Hints::new(view(&maps), 64));
        hints.set(5, 0);
        let search =
            move || hints.search(5, |_| if word[0].load(Ordering::Acquire) == 1 { Visit::Found } else { Visit::Empty });
        let other = thread::spawn(search);
        word[0].store(1, Ordering::Release);
        fence(Ordering::SeqCst);
        hints.set(5, 0);
        search();
        other.join().unwrap();
        assert!(hints.is_set(5, 0), "no hint leads to a free block");
    });
}

#[test]
fn hints_survive_searches_at_all_levels_beside_a_publication() {
    model(3, || {
        let words = zeroed(1);
        let maps = zeroed(SectorLayout::map_words(64));
        let (word, hints) = (view(&words), Hints::new(view(&maps), 64));
        hints.set(5, 0);
        let search =
            move || hints.search(5, |_| if word[0].load(Ordering::Acquire) == 1 { Visit::Found } else { Visit::Empty });
        let other = thread::spawn(move || (0..3).for_each(|_| search()));
        word[0].store(1, Ordering::Release);
        fence(Ordering::SeqCst);
        hints.set(5, 0);
        other.join().unwrap();
        assert!(hints.is_set(5, 0), "no hint leads to a free block");
    });
}

#[test]
fn bits_of_one_word_set_and_cleared_at_once_are_not_lost() {
    model(3, || {
        // Three chunks, and thus three bits of one leaf word. The last one is stale.
        let maps = zeroed(SectorLayout::map_words(192));
        let hints = Hints::new(view(&maps), 192);
        hints.set(5, 128);
        let other = thread::spawn(move || hints.set(5, 64));
        hints.search(5, |chunk| if chunk == 2 { Visit::Empty } else { Visit::Found });
        hints.set(5, 0);
        other.join().unwrap();
        assert!(hints.is_set(5, 0) && hints.is_set(5, 64) && !hints.is_set(5, 128));
    });
}

/// The longest cached length: a magazine of it holds four blocks.
const LONG: u64 = 32;

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
fn cached_pair(ground: &Ground) -> (Lane, Cache) {
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
