//! What must hold when nobody works in a segment, and how much of everything there is.

use crate::{
    alloc::{
        Allocator,
        sector::Sector,
        word::{State, class_of},
    },
    segment::layout::{GRANULES, SECTORS},
};

/// What is in a sector, by the state of its blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SectorReport {
    /// Bytes of a granule, the unit of allocation.
    pub granule: usize,
    /// Bytes of the sector.
    pub bytes: usize,
    /// Bytes in free blocks.
    pub free_bytes: usize,
    /// Free blocks: one, if all is free and merged.
    pub free_runs: usize,
    /// Bytes of the largest free block.
    pub largest_free: usize,
    /// Bytes in magazines: free, and at hand for whoever freed them.
    pub cached_bytes: usize,
    /// Bytes that belong to somebody.
    pub allocated_bytes: usize,
    /// Blocks that belong to somebody.
    pub allocated_blocks: usize,
    /// Bytes in messages that were sent and not yet received.
    pub in_flight_bytes: usize,
    /// Messages that were sent and not yet received.
    pub in_flight_blocks: usize,
    /// Pairs of free blocks side by side that were not merged; healed by later work.
    pub unmerged: usize,
}

/// What [`check`](crate::Segment::check) found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// What is broken, in words. Empty, if all is well.
    pub problems: Vec<String>,
    /// The small, the medium and the large sector.
    pub sectors: [SectorReport; SECTORS],
}

impl CheckReport {
    /// Whether nothing is broken.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Checks every invariant of the allocator. Exact only while nobody works in the segment; otherwise what it reports may
/// be work in progress.
pub(crate) fn check(allocator: &Allocator) -> CheckReport {
    let mut report = CheckReport::default();
    for (index, sector) in allocator.sectors().iter().enumerate() {
        report.sectors[index] = check_sector(index, sector, allocator.depot().len(), &mut report.problems);
    }
    report
}

fn check_sector(index: usize, sector: &Sector, magazines: usize, problems: &mut Vec<String>) -> SectorReport {
    let granule = GRANULES[index] as usize;
    let mut report = SectorReport { granule, bytes: sector.granules() as usize * granule, ..SectorReport::default() };
    let mut problem = |at: u64, what: String| {
        if problems.len() < 64 {
            problems.push(format!("sector {index}, granule {at}: {what}"));
        }
    };
    if sector.granules() > 0 && sector.word(sector.granules()).state() != State::Sentinel {
        problem(sector.granules(), "the sentinel is gone".into());
    }
    let mut at = 0;
    let mut after_free = false;
    while at < sector.granules() {
        let word = sector.word(at);
        let len = word.len();
        if !word.is_head() || len == 0 || at + len > sector.granules() {
            problem(at, format!("no block begins where one must: {word:?}"));
            // From here on nothing can be said about where blocks begin.
            break;
        }
        for inside in at + 1..at + len {
            let word = sector.word(inside);
            if !matches!(word.state(), State::Interior | State::End) {
                problem(inside, format!("inside of the block at {at} stands {word:?}"));
            }
        }
        let bytes = len as usize * granule;
        match word.state() {
            State::Free => {
                report.free_bytes += bytes;
                report.free_runs += 1;
                report.largest_free = report.largest_free.max(bytes);
                report.unmerged += usize::from(after_free);
                if !sector.hints().is_set(class_of(len), at) {
                    problem(at, format!("no hint leads to the free block of {len} granules"));
                }
            }
            State::Cached => {
                report.cached_bytes += bytes;
                if usize::from(word.owner()) >= magazines {
                    problem(at, format!("cached in magazine {}, of which there are {magazines}", word.owner()));
                }
            }
            State::InFlight => {
                report.in_flight_bytes += bytes;
                report.in_flight_blocks += 1;
            }
            State::Claimed => problem(at, format!("claimed by nobody who is at work: {word:?}")),
            _ => {
                report.allocated_bytes += bytes;
                report.allocated_blocks += 1;
            }
        }
        after_free = word.is_free();
        at += len;
    }
    report
}
