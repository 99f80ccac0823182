//! Models of the allocator's races: every interleaving of two lanes over a handful of granules.
//!
//! What a model asserts, it asserts twice: while the lanes work, that nothing is given out twice, and afterwards, that
//! heads tile the sector, that the free ones have come together, and that hints lead to them.

mod left_out;
mod magazines;

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
    region::{
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
