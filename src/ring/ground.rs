//! What tests and models of the ring stand on: memory on the heap, an allocator in it, and lanes.

use crate::{
    alloc::{Allocator, Block, magazine::Depot, sector::Sector},
    region::{
        lanes::{BlockId, Lane, LaneId},
        layout::{CACHED_SIZES, DEFAULT_GRANULES, DEPOT_WORDS, LaneLine, SectorLayout},
    },
    sys::{
        shared::{SharedRef, SharedSlice},
        sync::{AtomicU64, SeldomWrittenU64},
    },
};

pub(super) fn zeroed(len: u64) -> SharedSlice<AtomicU64> {
    SharedSlice::leak((0..len).map(|_| AtomicU64::new(0)).collect())
}

/// An allocator of four granules and a block in it that belongs to `lane`.
pub(super) fn block_of(lane: &Lane) -> (Allocator, Block) {
    let sector = |index, granules| {
        let extent = SharedRef::leak(SeldomWrittenU64::new(granules));
        Sector::new(
            index,
            DEFAULT_GRANULES[index].ilog2(),
            zeroed(granules + 1),
            zeroed(SectorLayout::map_words(granules)),
            extent,
        )
    };
    let depot = Depot::new(
        SharedSlice::leak(Vec::new()),
        zeroed(((CACHED_SIZES + 1) * DEPOT_WORDS) as u64),
        SharedSlice::leak(Vec::new()),
    );
    let allocator = Allocator::new([sector(0, 4), sector(1, 0), sector(2, 0)], depot);
    allocator.format([4, 0, 0]);
    let run = allocator.sectors()[0].take(lane, 1).unwrap();
    (allocator, Block { id: BlockId::new(0, run.granule), len: 1, generation: run.generation })
}

/// A lane, and the word that shows others what it is about to do.
pub(super) fn lane(id: u16) -> (Lane, SharedRef<LaneLine>) {
    let line = SharedRef::leak(LaneLine::default());
    (Lane::new(LaneId(id), line), line)
}
