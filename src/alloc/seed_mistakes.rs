//! One test for each mistake of the allocator that this one replaces.

use std::{collections::HashSet, sync::Barrier};

use super::{
    hints::{Hints, Visit},
    tests::{allocator, sector, worker, worker_of},
    *,
};
use crate::{
    region::layout::{CLASSES, SectorLayout},
    sys::{shared::SharedSlice, sync::AtomicU64},
};

/// A sector that is one free block.
fn fresh(granules: u64) -> Sector {
    let sector = sector(0, granules);
    sector.format(granules);
    sector
}

/// Where blocks begin, how long they are, and in which state.
fn blocks(sector: &Sector) -> Vec<(u64, u64, State)> {
    let mut blocks = Vec::new();
    let mut at = 0;
    while at < sector.granules() {
        let word = sector.word(at);
        assert!(word.is_head() && word.len() > 0, "no block at {at}: {word:?}");
        blocks.push((at, word.len(), word.state()));
        at += word.len();
    }
    assert_eq!(at, sector.granules());
    blocks
}

/// Takes the whole of a sector and cuts it into blocks of `piece` granules, which the worker owns.
fn cut(sector: &Sector, worker: &Worker, piece: u64) -> Vec<u64> {
    let lane = worker.lane.id();
    let whole = sector.take(&worker.lane, sector.granules()).unwrap();
    sector.split(&worker.lane, whole, piece, |_, generation| Word::allocated(lane, piece, generation));
    (0..sector.granules()).step_by(piece as usize).collect()
}

#[test]
fn an_exact_fit_leaves_the_next_block_alone() {
    let worker = worker(1);
    for piece in 1..=5 {
        let sector = fresh(3 * piece);
        cut(&sector, &worker, piece);
        let next = sector.word(2 * piece);
        sector.release(&worker.lane, piece);
        let run = sector.take(&worker.lane, piece).unwrap();
        assert_eq!((run.granule, run.len), (piece, piece));
        assert_eq!(sector.word(2 * piece), next);
        assert_eq!(blocks(&sector), [0, 1, 2].map(|block| (block * piece, piece, State::Allocated)));
        assert_eq!(sector.word(3 * piece).state(), State::Sentinel);
    }
}

#[test]
fn a_remainder_of_one_granule_leaves_the_next_block_alone() {
    let worker = worker(1);
    let sector = fresh(9);
    cut(&sector, &worker, 3);
    let next = sector.word(6);
    sector.release(&worker.lane, 3);
    let run = sector.take(&worker.lane, 2).unwrap();
    assert_eq!(sector.word(6), next);
    assert_eq!((run.granule, run.len), (4, 2));
    assert_eq!(blocks(&sector)[1..3], [(3, 1, State::Free), (4, 2, State::Allocated)]);
}

#[test]
fn every_block_is_as_large_as_was_asked_for() {
    let allocator = allocator([4096, 64, 4], 16);
    let mut worker = worker_of(&allocator, 1);
    for bytes in (0..=2200).chain([4096, 65_535, 65_536, 65_537, 100_000]).chain([112; 40]) {
        let block = allocator.allocate(&mut worker, bytes, 1).unwrap();
        assert!(allocator.bytes_of(block) >= bytes.max(1), "{bytes} bytes asked for, {block:?} given");
        // What is cached and free by now is of many lengths, most of them too short for what comes next.
        allocator.free(&mut worker, block);
    }
}

#[test]
fn a_request_of_112_bytes_does_not_get_a_free_block_of_64() {
    let worker = worker(1);
    let sector = fresh(16);
    for granule in cut(&sector, &worker, 1).into_iter().step_by(2) {
        sector.release(&worker.lane, granule);
    }
    // Eight free blocks of 64 bytes, and the hint of the longer class leads to one of them.
    sector.hints().set(word::class_of(2), 0);
    assert_eq!(sector.take(&worker.lane, 2), None);
    assert_eq!(sector.sweep(&worker.lane, 2), None);
    assert!(sector.take(&worker.lane, 1).is_some());
}

#[test]
fn a_split_leaves_the_right_neighbour_a_true_back_link() {
    let worker = worker(1);
    // A free block of 12 between two that are owned; a piece of it is taken; then the block on its right is freed.
    for taken in 1..12 {
        let sector = fresh(36);
        cut(&sector, &worker, 12);
        sector.release(&worker.lane, 12);
        let run = sector.take(&worker.lane, taken).unwrap();
        let rest = 12 - taken;
        // Every block's last granule leads back to its first.
        for (at, len, _) in blocks(&sector).into_iter().filter(|block| block.1 > 1) {
            assert_eq!(sector.word(at + len - 1).state(), State::End, "{taken} taken, block at {at}");
            assert_eq!(sector.word(at + len - 1).len(), len, "{taken} taken, block at {at}");
        }
        sector.release(&worker.lane, 24);
        assert_eq!(
            blocks(&sector),
            [
                (0, 12, State::Allocated),
                (12, rest, State::Free),
                (run.granule, taken, State::Allocated),
                (24, 12, State::Free)
            ],
            "the block freed on the right reached over the one that is owned"
        );
        sector.release(&worker.lane, run.granule);
        assert_eq!(blocks(&sector), [(0, 12, State::Allocated), (12, 24, State::Free)]);
    }
}

#[test]
fn merging_takes_the_neighbour_and_not_another_free_block_of_its_length() {
    let worker = worker(1);
    let sector = fresh(24);
    cut(&sector, &worker, 4);
    // Two free blocks of one length; the one freed last would be the first of its list.
    for [first, second] in [[4, 16], [16, 4]] {
        sector.release(&worker.lane, first);
        sector.release(&worker.lane, second);
        let other = sector.word(16);
        sector.release(&worker.lane, 8);
        assert_eq!(sector.word(16), other, "freeing 8 touched a block that is not beside it");
        assert_eq!(blocks(&sector)[1..4], [(4, 8, State::Free), (12, 4, State::Allocated), (16, 4, State::Free)]);
        // All of it can be had, and once.
        let got: HashSet<u64> = (0..3).map(|_| sector.take(&worker.lane, 4).unwrap().granule).collect();
        assert_eq!(got, HashSet::from([4, 8, 16]));
        assert_eq!(sector.take(&worker.lane, 1), None);
    }
}

#[test]
fn a_mebibyte_freed_in_reverse_order_is_one_block_again() {
    let orders: [fn(&mut Vec<Block>); 4] = [
        |blocks| blocks.reverse(),
        |_| {},
        |blocks| blocks.sort_by_key(|block| block.id.granule() % 7),
        |blocks| blocks.sort_by_key(|block| std::cmp::Reverse(block.id.granule())),
    ];
    for order in orders {
        for bytes in [64, 112, 1000, 5000] {
            let allocator = allocator([(1 << 20) / 64, 0, 0], 64);
            let mut worker = worker_of(&allocator, 1);
            let mut blocks: Vec<_> = std::iter::from_fn(|| allocator.allocate(&mut worker, bytes, 1).ok()).collect();
            order(&mut blocks);
            blocks.into_iter().for_each(|block| allocator.free(&mut worker, block));
            // The caches still hold a part of it.
            let large = allocator.allocate(&mut worker, 64 << 10, 1).expect("64 KiB in an empty mebibyte");
            allocator.free(&mut worker, large);
            let all = allocator.allocate(&mut worker, 1 << 20, 1).expect("a mebibyte in an empty mebibyte");
            allocator.free(&mut worker, all);
            let report = check::check(&allocator, None);
            assert!(report.is_clean() && report.sectors[0].free_runs == 1, "{report:?}");
        }
    }
}

#[test]
fn requests_near_the_largest_number_are_refused() {
    for granules in [[4096, 0, 0], [0, 64, 0], [0, 0, 16], [4096, 64, 16]] {
        let allocator = allocator(granules, 4);
        let mut worker = worker_of(&allocator, 1);
        let error = allocator.allocate(&mut worker, usize::MAX, 1).unwrap_err();
        let AllocError::TooLarge { requested: usize::MAX, largest } = error else { panic!("{error}") };
        for bytes in [
            largest + 1,
            u32::MAX as usize - 3,
            u32::MAX as usize,
            u32::MAX as usize + 1,
            1 << 38,
            isize::MAX as usize,
            usize::MAX - 63,
            usize::MAX - 3,
        ] {
            let error = allocator.allocate(&mut worker, bytes, 1).unwrap_err();
            assert_eq!(error, AllocError::TooLarge { requested: bytes, largest });
        }
        assert_eq!(allocator.bytes_of(allocator.allocate(&mut worker, largest, 1).unwrap()), largest);
        let aligned = allocator.allocate(&mut worker, 1, usize::MAX / 2 + 1);
        assert!(matches!(aligned, Err(AllocError::Alignment { .. })), "{aligned:?}");
    }
}

#[test]
fn a_claim_with_a_word_from_before_fails() {
    let worker = worker(1);
    let sector = fresh(8);
    cut(&sector, &worker, 4);
    sector.release(&worker.lane, 0);
    let before = sector.word(0);
    // Another takes the block and gives it back: same place, same length, but the word is not the one from before.
    let run = sector.take(&worker.lane, 4).unwrap();
    assert_eq!(run.granule, 0);
    sector.release(&worker.lane, 0);
    assert_eq!((sector.word(0).state(), sector.word(0).len()), (before.state(), before.len()));
    assert!(!sector.replace(0, before, Word::allocated(LaneId(2), 4, before.generation())));

    // The same by way of a tail: taken from the block, and merged with it again.
    let before = sector.word(0);
    let tail = sector.take(&worker.lane, 1).unwrap();
    sector.release(&worker.lane, tail.granule);
    assert_eq!((sector.word(0).state(), sector.word(0).len()), (before.state(), before.len()));
    assert!(!sector.replace(0, before, Word::allocated(LaneId(2), 4, before.generation())));
}

#[test]
fn a_cached_block_taken_and_cached_again_is_not_the_one_from_before() {
    let allocator = allocator([64, 0, 0], 4);
    let mut worker = worker_of(&allocator, 1);
    let sector = &allocator.sectors()[0];
    let block = allocator.allocate(&mut worker, 64, 1).unwrap();
    let at = block.id.granule();
    allocator.free(&mut worker, block);
    let before = sector.word(at);
    let again = allocator.allocate(&mut worker, 64, 1).unwrap();
    assert_eq!(again.id, block.id);
    allocator.free(&mut worker, again);
    assert_eq!((sector.word(at).state(), sector.word(at).owner()), (State::Cached, before.owner()));
    assert!(!sector.replace(at, before, Word::allocated(LaneId(2), 1, before.generation())));
}

#[test]
fn a_back_link_that_lies_leads_to_nothing() {
    let worker = worker(1);
    for lie in 1..=8 {
        let sector = fresh(12);
        cut(&sector, &worker, 4);
        sector.release(&worker.lane, 0);
        // The block at 4 is owned; its last granule claims that a block of another length ends there.
        sector.store(7, sector.word(7).into_end(lie));
        sector.release(&worker.lane, 8);
        assert_eq!(blocks(&sector), [(0, 4, State::Free), (4, 4, State::Allocated), (8, 4, State::Free)]);
        sector.release(&worker.lane, 4);
        assert_eq!(blocks(&sector), [(0, 12, State::Free)]);
    }
}

#[test]
fn bits_of_one_word_set_and_cleared_side_by_side_are_not_lost() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 50_000;
    let maps = (0..SectorLayout::map_words(64)).map(|_| AtomicU64::new(0)).collect();
    let hints = Hints::new(SharedSlice::leak(maps), 64);
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for class in 20..20 + THREADS {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                // The bits of all classes are in one word; nobody else sets or clears this class's.
                for round in 0..ROUNDS {
                    hints.set(class, 0);
                    assert!(hints.is_set(class, 0), "round {round}: a set bit was lost");
                    // One level after the other is found empty and cleared.
                    (0..3).for_each(|_| hints.search(class, |_| Visit::Empty));
                    hints.search(class, |_| panic!("round {round}: a cleared bit came back"));
                }
            });
        }
    });
    assert_eq!(hints.classes(0, CLASSES).next(), None, "a class was cleared whose bit is set");
}

#[test]
fn every_word_that_is_not_free_names_its_owner() {
    let allocator = allocator([2048, 64, 4], 32);
    let mut workers = [1, 2, 3].map(worker);
    let mut held = Vec::new();
    for step in 0..600_usize {
        let by = step * 7 % 3;
        let bytes = [1, 64, 65, 300, 2048, 2049, 5000, 70_000][step * 5 % 8];
        if let Ok(block) = allocator.allocate(&mut workers[by], bytes, 1) {
            held.push((by, block));
        }
        if step % 3 > 0 && !held.is_empty() {
            let (_, block) = held.swap_remove(step * 31 % held.len());
            allocator.free(&mut workers[step % 3], block);
        }
    }
    let owned: Vec<_> = held.iter().map(|(by, block)| (block.id, LaneId(*by as u16 + 1))).collect();
    let mut cached = 0;
    for (index, sector) in allocator.sectors().iter().enumerate() {
        for (at, _, state) in blocks(sector) {
            let (id, word) = (BlockId::new(index, at), sector.word(at));
            match state {
                State::Free => assert_eq!(word.owner(), 0),
                State::Allocated => assert!(owned.contains(&(id, word.lane())), "{id:?} {word:?}"),
                State::Cached => {
                    // By way of its magazine.
                    let by_a_worker = allocator.depot().is_owned_by(word.owner(), |lane| (1..=3).contains(&lane.0));
                    let handed_over = !allocator.depot().is_owned_by(word.owner(), |_| true);
                    assert!(usize::from(word.owner()) < allocator.depot().len() && (by_a_worker || handed_over));
                    cached += 1;
                }
                _ => panic!("{id:?} {word:?}"),
            }
        }
    }
    assert!(cached > 0 && !owned.is_empty());
    for (by, block) in held {
        assert_eq!(allocator.owned_by(block.id, block.generation, LaneId(by as u16 + 1)), Some(block));
        assert_eq!(allocator.owned_by(block.id, block.generation, LaneId(9)), None);
        assert_eq!(allocator.owned_by(block.id, block.generation.wrapping_sub(1), LaneId(by as u16 + 1)), None);
    }
}
