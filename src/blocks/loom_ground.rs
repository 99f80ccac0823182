//! What the models of blocks stand on: some blocks of a granule each, and up to three participants with a lane each.
//!
//! The payload and the header of each block are watched by cells of loom's: an access that nothing orders before or after the next
//! owner's is a race, which loom reports.

use loom::cell::UnsafeCell;

use super::guard::{Header, Place, Visited};
use crate::{
    alloc::{Block, sector::Sector, word::Word},
    region::{
        lanes::{BlockId, Lane, LaneId, LanePool},
        layout::{LaneLine, SectorLayout},
    },
    sys::{
        shared::{SharedRef, SharedSlice},
        sync::{AtomicU64, AtomicUsize, Ordering, SeldomWrittenU64},
    },
};

pub(super) fn model(preemptions: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(test);
}

pub(super) struct Ground<const BLOCKS: usize> {
    pub(super) sector: Sector,
    lanes: LanePool,
    lines: SharedSlice<LaneLine>,
    pub(super) headers: [Header; BLOCKS],
    /// Read by whoever is at a header, written by the block's next owner.
    header_is_there: [UnsafeCell<()>; BLOCKS],
    pub(super) payloads: [UnsafeCell<u64>; BLOCKS],
    pub(super) freed: [AtomicUsize; BLOCKS],
}

pub(super) fn block(at: usize) -> Block {
    Block { id: BlockId::new(0, at as u64), len: 1, generation: 1 }
}

impl<const BLOCKS: usize> Ground<BLOCKS> {
    /// The payload of each block is its number.
    pub(super) fn new(words: [Word; BLOCKS]) -> Self {
        let granules = BLOCKS as u64;
        let zeroed = |len: u64| SharedSlice::leak((0..len).map(|_| AtomicU64::new(0)).collect());
        let extent = SharedRef::leak(SeldomWrittenU64::new(0));
        let sector = Sector::new(0, 6, zeroed(granules + 1), zeroed(SectorLayout::map_words(granules)), extent);
        sector.format(granules);
        words.into_iter().enumerate().for_each(|(at, word)| sector.store(at as u64, word));
        let lines = SharedSlice::leak((0..3).map(|_| LaneLine::default()).collect());
        Self {
            sector,
            lanes: LanePool::new(lines, 3, 0),
            lines,
            headers: std::array::from_fn(|_| Header::leak()),
            header_is_there: std::array::from_fn(|_| UnsafeCell::new(())),
            payloads: std::array::from_fn(|at| UnsafeCell::new(at as u64)),
            freed: std::array::from_fn(|_| AtomicUsize::new(0)),
        }
    }

    pub(super) fn place(&self, at: usize) -> Place<'_> {
        Place { sector: &self.sector, lanes: &self.lanes, header: self.headers[at], block: block(at) }
    }

    /// As a participant's thread gets it.
    pub(super) fn lane(&self, me: u16) -> Lane {
        self.lanes.lane(LaneId(me))
    }

    /// As nobody must use it.
    pub(super) fn lane_not_in_use(&self, me: u16) -> Lane {
        // SAFETY: leaked, see `new`.
        Lane::new(LaneId(me), unsafe { SharedRef::new((&self.lines[usize::from(me)]).into()) })
    }

    pub(super) fn at_header(&self, at: usize) {
        self.header_is_there[at].with(|_| ());
    }

    /// What comes of a visit; an abandoned block goes to its next owner, who does with it what they like.
    pub(super) fn settle<R>(&self, at: usize, visited: Visited<R>) -> Option<R> {
        if visited.abandoned {
            self.reuse(at);
        }
        visited.found
    }

    pub(super) fn reuse(&self, at: usize) {
        self.freed[at].fetch_add(1, Ordering::Relaxed);
        self.header_is_there[at].with_mut(|_| ());
        // SAFETY: this is what the models are to show.
        self.payloads[at].with_mut(|payload| unsafe { *payload = 0xdead });
    }
}
