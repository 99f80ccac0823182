//! Tests of the allocator on heap memory.

use std::collections::VecDeque;

use super::*;
use crate::{
    region::layout::{CACHED_SIZES, DEFAULT_GRANULES, DEPOT_WORDS, LaneLine, MagazineLine, SectorLayout},
    sys::{
        shared::{SharedRef, SharedSlice},
        sync::{AtomicU64, Ordering, SeldomWrittenU64},
    },
};

fn zeroed(len: u64) -> SharedSlice<AtomicU64> {
    SharedSlice::leak((0..len).map(|_| AtomicU64::new(0)).collect())
}

fn zeroed_line<T>() -> T {
    // SAFETY: only called for structs of atomics, for which zeros are a value.
    unsafe { std::mem::zeroed() }
}

pub(super) fn sector(index: usize, granules: u64) -> Sector {
    sector_of(DEFAULT_GRANULES[index], index, granules)
}

fn sector_of(bytes: u64, index: usize, granules: u64) -> Sector {
    let extent = SharedRef::leak(SeldomWrittenU64::new(granules));
    Sector::new(index, bytes.ilog2(), zeroed(granules + 1), zeroed(SectorLayout::map_words(granules)), extent)
}

const LANES: usize = 16;

pub(super) fn allocator(granules: [u64; SECTORS], magazines: usize) -> Allocator {
    allocator_of(DEFAULT_GRANULES, granules, magazines)
}

/// An allocator whose granules have so many `bytes`.
pub(super) fn allocator_of(bytes: [u64; SECTORS], granules: [u64; SECTORS], magazines: usize) -> Allocator {
    let lines = (0..magazines).map(|_| zeroed_line::<MagazineLine>()).collect();
    let lanes = SharedSlice::leak((0..LANES).map(|_| zeroed_line::<LaneLine>()).collect());
    let depot = Depot::new(SharedSlice::leak(lines), zeroed(((CACHED_SIZES + 1) * DEPOT_WORDS) as u64), lanes);
    let allocator = Allocator::new([0, 1, 2].map(|index| sector_of(bytes[index], index, granules[index])), depot);
    allocator.format(granules);
    allocator
}

/// Of somebody who works without magazines.
pub(super) fn worker(lane: u16) -> Worker {
    Worker::new(Lane::new(LaneId(lane), SharedRef::leak(zeroed_line::<LaneLine>())))
}

pub(super) fn worker_of(allocator: &Allocator, lane: u16) -> Worker {
    Worker::new(allocator.depot.lane(LaneId(lane)))
}

#[test]
fn everything_that_is_freed_comes_together_again() {
    let allocator = allocator([4096, 0, 0], 64);
    let mut worker = worker_of(&allocator, 1);
    for round in 0..50 {
        let mut blocks = Vec::new();
        for size in 0..600_usize {
            blocks.push(allocator.allocate(&mut worker, (size * 37 + round) % 512, 1).unwrap());
            if size % 3 == 0 {
                let block = blocks.swap_remove(size * 7919 % blocks.len());
                allocator.free(&mut worker, block);
            }
        }
        blocks.drain(..).for_each(|block| allocator.free(&mut worker, block));
    }
    assert_eq!(check::check(&allocator, None).problems, Vec::<String>::new());
    allocator.drain_caches(&mut worker);
    let report = check::check(&allocator, None);
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.sectors[0].free_runs, report.sectors[0].free_bytes), (1, 4096 * 64), "{report:?}");
}

#[test]
fn threads_never_get_the_same_granule() {
    let allocator = allocator([8192, 256, 0], 64);
    let owners: Vec<AtomicU64> = (0..8192).map(|_| AtomicU64::new(0)).collect();
    // Marks the granules of a block of the small sector as `thread`'s, or as nobody's.
    let mark = |block: Block, thread: u16| {
        if block.id.sector() == 0 {
            for granule in block.id.granule()..block.id.granule() + block.len {
                let was = owners[granule as usize].swap(u64::from(thread), Ordering::Relaxed);
                assert!(was == 0 || thread == 0, "{block:?} was given to {thread}, but {granule} belongs to {was}");
            }
        }
    };
    std::thread::scope(|scope| {
        for thread in 1..=4_u16 {
            let mark = &mark;
            scope.spawn(move || {
                let mut worker = worker_of(&allocator, thread);
                let mut held = VecDeque::new();
                let mut random = u64::from(thread).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                for _ in 0..200_000 {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    if held.len() < 100 && random % 10 < 6 {
                        let Ok(block) = allocator.allocate(&mut worker, (random >> 8) as usize % 3000, 1) else {
                            continue;
                        };
                        mark(block, thread);
                        held.push_back(block);
                    } else if let Some(block) = held.pop_front() {
                        mark(block, 0);
                        allocator.free(&mut worker, block);
                    }
                }
                for block in held {
                    mark(block, 0);
                    allocator.free(&mut worker, block);
                }
                allocator.flush(&mut worker);
            });
        }
    });
    let mut worker = worker_of(&allocator, 9);
    allocator.drain_caches(&mut worker);
    let report = check::check(&allocator, None);
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.sectors[0].free_bytes, report.sectors[0].free_runs), (8192 * 64, 1), "{report:?}");
}

#[test]
fn a_process_without_fences_pops_by_cas_and_drains_what_is_full() {
    let fenced = allocator([1024, 0, 0], 8);
    let plain = Allocator { depot: fenced.depot.without_fences(), ..fenced };
    let (mut one, mut other) = (worker_of(&fenced, 1), worker_of(&fenced, 2));
    // Both kinds of pop, in turn, out of the same magazine.
    for round in 0..100 {
        let allocator = if round % 2 == 0 { &fenced } else { &plain };
        let block = allocator.allocate(&mut one, 64, 1).unwrap();
        assert_eq!(fenced.owned_by(block.id, block.generation, LaneId(1)), Some(block));
        allocator.free(&mut one, block);
    }
    let cached = |allocator: &Allocator| check::check(allocator, None).sectors[0].cached_bytes;
    assert!(cached(&fenced) > 0);
    // What is at hand of another cannot be had, but it hears of it.
    assert_eq!(plain.allocate(&mut other, 1024 * 64, 1), Err(AllocError::OutOfMemory { requested: 1024 * 64 }));
    assert!(cached(&fenced) > 0);
    let block = fenced.allocate(&mut one, 64, 1).unwrap();
    fenced.free(&mut one, block);
    // What is full can.
    plain.flush(&mut one);
    let whole = plain.allocate(&mut other, 1024 * 64, 1).unwrap();
    assert_eq!(cached(&fenced), 0);
    plain.free(&mut other, whole);
    assert_eq!(check::check(&fenced, None).problems, Vec::<String>::new());
}
