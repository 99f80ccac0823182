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
    /// Whether the sector was found damaged and is out of use; then nothing in it is counted.
    pub quarantined: bool,
}

impl SectorReport {
    /// How much of the free memory is not in the largest free block: from 0, all in one piece, to nearly 1.
    pub fn fragmentation(&self) -> f64 {
        if self.free_bytes == 0 { 0.0 } else { 1.0 - self.largest_free as f64 / self.free_bytes as f64 }
    }
}

/// What a segment's memory holds now, and how often what was done since the segment was made, by all processes.
///
/// Counting costs a store to a cache line of the thread's own. The bytes are counted when they are asked for, in time
/// that is proportional to the number of granules, and while others work: they are a survey, not a balance.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// The small, the medium and the large sector.
    pub sectors: [SectorReport; SECTORS],
    /// Blocks that came out of a magazine.
    pub cache_hits: u64,
    /// Times that a thread found its magazines of a size empty, and fetched a full one or filled one.
    pub cache_misses: u64,
    /// Free blocks that were divided.
    pub splits: u64,
    /// Freed blocks that were joined with a free neighbour.
    pub merges: u64,
    /// Steps in which the segment has grown.
    pub growths: u64,
    /// Times that somebody has waited for memory.
    pub memory_waits: u64,
}

impl Stats {
    /// Bytes in free blocks, and in magazines.
    pub fn free_bytes(&self) -> usize {
        self.sectors.iter().map(|sector| sector.free_bytes + sector.cached_bytes).sum()
    }

    /// Bytes that belong to somebody, messages on their way included.
    pub fn held_bytes(&self) -> usize {
        self.sectors.iter().map(|sector| sector.allocated_bytes + sector.in_flight_bytes).sum()
    }

    /// The share of requests for short blocks that a magazine served: from 0 to 1.
    pub fn cache_hit_rate(&self) -> f64 {
        let all = self.cache_hits + self.cache_misses;
        if all == 0 { 0.0 } else { self.cache_hits as f64 / all as f64 }
    }
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

/// How a check takes what it does not understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Nobody works in the segment: where no block begins, nothing more can be said.
    Exact,
    /// Somebody may be at work there: goes on behind it.
    Lenient,
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Problem {
    sector: usize,
    granule: u64,
    what: String,
}

/// What a look at all sectors has found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    problems: Vec<Problem>,
    sectors: [SectorReport; SECTORS],
}

impl Findings {
    pub(crate) fn report(&self) -> CheckReport {
        let describe =
            |Problem { sector, granule, what }: &Problem| format!("sector {sector}, granule {granule}: {what}");
        CheckReport { problems: self.problems.iter().map(describe).collect(), sectors: self.sectors }
    }

    /// The sectors with problems.
    pub(crate) fn damaged(&self) -> impl Iterator<Item = usize> + '_ {
        (0..SECTORS).filter(|index| self.problems.iter().any(|problem| problem.sector == *index))
    }
}

/// Checks every invariant of the allocator. Exact only while nobody works in the segment; otherwise what it reports may
/// be work in progress.
pub(crate) fn check(allocator: &Allocator) -> CheckReport {
    look(allocator, Look::Exact).report()
}

/// Checks what can be checked while others work: finds only what has not changed from one look to the next.
pub(crate) fn check_live(allocator: &Allocator, pause: impl Fn()) -> Findings {
    let mut found = look(allocator, Look::Lenient);
    for _ in 0..LIVE_LOOKS {
        if found.problems.is_empty() {
            break;
        }
        pause();
        let again = look(allocator, Look::Lenient);
        found.problems.retain(|problem| again.problems.contains(problem));
        found.sectors = again.sectors;
    }
    found
}

/// What is in the sectors, at a glance.
pub(crate) fn survey(allocator: &Allocator) -> [SectorReport; SECTORS] {
    look(allocator, Look::Lenient).sectors
}

/// How often to look again at what seems to be broken: work in progress has changed by then.
const LIVE_LOOKS: usize = 3;
/// The most problems of a sector that are reported.
const MOST_PROBLEMS: usize = 64;

fn look(allocator: &Allocator, how: Look) -> Findings {
    let mut found = Findings::default();
    for (index, sector) in allocator.sectors().iter().enumerate() {
        found.sectors[index] = check_sector(index, sector, allocator.depot().len(), how, &mut found.problems);
    }
    found
}

fn check_sector(
    index: usize,
    sector: &Sector,
    magazines: usize,
    how: Look,
    problems: &mut Vec<Problem>,
) -> SectorReport {
    let granule = GRANULES[index] as usize;
    let mut report = SectorReport {
        granule,
        bytes: sector.granules() as usize * granule,
        quarantined: sector.is_quarantined(),
        ..SectorReport::default()
    };
    let most = problems.len() + MOST_PROBLEMS;
    let mut problem = |at: u64, what: String| {
        if problems.len() < most {
            problems.push(Problem { sector: index, granule: at, what });
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
            if how == Look::Exact {
                // From here on nothing can be said about where blocks begin.
                break;
            }
            at += 1;
            continue;
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
            State::InFlight | State::Promised | State::Returned => {
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
