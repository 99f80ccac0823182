//! What must hold when nobody works in a segment, and how much of everything there is.

use std::collections::HashMap;

use crate::{
    alloc::{
        Allocator,
        magazine::Depot,
        sector::Sector,
        word::{State, Word, class_of},
    },
    segment::{
        lanes::{BlockId, Intent, LaneId},
        layout::SECTORS,
    },
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

/// What a check must know that the allocator does not.
pub(crate) struct Surroundings<'a> {
    /// Whether a participant has the lane: one that lives, or is not buried yet.
    pub(crate) has_lane: &'a dyn Fn(LaneId) -> bool,
    /// How many full cells of rings name a block.
    pub(crate) in_rings: HashMap<BlockId, usize>,
}

/// What to make of what is seen.
enum Look<'a> {
    /// Nobody works in the segment. Where no block begins, nothing more can be said. Without surroundings, nothing is said
    /// of owners, nor of rings.
    Exact(Option<&'a Surroundings<'a>>),
    /// Somebody may be at work, in a lane for which this holds. Goes on behind what it does not understand.
    Live(&'a dyn Fn(LaneId) -> bool),
    /// The same, and only counts.
    Survey,
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
    fn add(&mut self, sector: usize, granule: u64, what: String) {
        if self.problems.iter().filter(|problem| problem.sector == sector).count() < MOST_PROBLEMS {
            self.problems.push(Problem { sector, granule, what });
        }
    }

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

/// Checks every invariant of the allocator, and of what the surroundings tell. Exact only while nobody works in the
/// segment; otherwise what it reports may be work in progress.
pub(crate) fn check(allocator: &Allocator, surroundings: Option<&Surroundings<'_>>) -> CheckReport {
    let mut found = look(allocator, &Look::Exact(surroundings));
    check_full_magazines(allocator, &mut found);
    if let Some(surroundings) = surroundings {
        check_rings(allocator, surroundings, &mut found);
    }
    check_lanes(allocator.depot(), &mut found);
    found.report()
}

/// Checks what can be checked while others work, in lanes for which `has_lane` holds: finds only what no lane says that it
/// is working on, and what has not changed from one look to the next. Missing hints are none of it: whoever publishes
/// a block sets its hint a moment later.
pub(crate) fn check_live(allocator: &Allocator, has_lane: impl Fn(LaneId) -> bool, pause: impl Fn()) -> Findings {
    let how = Look::Live(&has_lane);
    let mut found = look(allocator, &how);
    for _ in 0..LIVE_LOOKS {
        if found.problems.is_empty() {
            break;
        }
        pause();
        let again = look(allocator, &how);
        found.problems.retain(|problem| again.problems.contains(problem));
        found.sectors = again.sectors;
    }
    found
}

/// What is in the sectors, at a glance.
pub(crate) fn survey(allocator: &Allocator) -> [SectorReport; SECTORS] {
    look(allocator, &Look::Survey).sectors
}

/// How often to look again at what seems to be broken: work in progress has changed by then.
const LIVE_LOOKS: usize = 3;
/// The most problems of a sector that are reported.
const MOST_PROBLEMS: usize = 64;

fn look(allocator: &Allocator, how: &Look<'_>) -> Findings {
    let mut found = Findings::default();
    for sector in allocator.sectors() {
        found.sectors[sector.index()] = check_sector(allocator, sector, how, &mut found);
    }
    found
}

fn check_sector(allocator: &Allocator, sector: &Sector, how: &Look<'_>, found: &mut Findings) -> SectorReport {
    let mut report = SectorReport {
        granule: sector.bytes(1) as usize,
        bytes: sector.bytes(sector.granules()) as usize,
        quarantined: sector.is_quarantined(),
        ..SectorReport::default()
    };
    let mut problem = |at: u64, what: String| {
        if !matches!(how, Look::Survey) {
            found.add(sector.index(), at, what);
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
            match how {
                Look::Exact(_) => {
                    problem(at, format!("no block begins where one must: {word:?}"));
                    // From here on nothing can be said about where blocks begin.
                    break;
                }
                Look::Survey => at += 1,
                Look::Live(_) if word.is_head() => {
                    problem(at, format!("no block can be as long as this one: {word:?}"));
                    at += 1;
                }
                Look::Live(_) => {
                    if let Some(end) = sector.unopened(at) {
                        // Whoever grew the sector has not got further yet.
                        at = end;
                        continue;
                    }
                    let until = (at + 1..sector.granules()).find(|next| is_boundary(sector.word(*next)));
                    let until = until.unwrap_or_else(|| sector.granules()).max(at + 1);
                    for (from, to) in sector.uncovered(at, until, || named_ranges(allocator.depot(), sector.index())) {
                        let what = format!("no block covers what is here, up to granule {to}: {:?}", sector.word(from));
                        problem(from, what);
                    }
                    at = until;
                }
            }
            continue;
        }
        for inside in at + 1..at + len {
            let word = sector.word(inside);
            if !matches!(word.state(), State::Interior | State::End) {
                problem(inside, format!("inside of the block at {at} stands {word:?}"));
            }
        }
        let bytes = sector.bytes(len) as usize;
        match word.state() {
            State::Free => {
                report.free_bytes += bytes;
                report.free_runs += 1;
                report.largest_free = report.largest_free.max(bytes);
                report.unmerged += usize::from(after_free);
            }
            State::Cached => report.cached_bytes += bytes,
            State::InFlight => {
                report.in_flight_bytes += bytes;
                report.in_flight_blocks += 1;
            }
            State::Claimed => {}
            _ => {
                report.allocated_bytes += bytes;
                report.allocated_blocks += 1;
            }
        }
        if let Some(what) = doubt(allocator, sector, at, word, how) {
            problem(at, what);
        }
        after_free = word.is_free();
        at += len;
    }
    let counted = report.free_bytes + report.cached_bytes + report.allocated_bytes + report.in_flight_bytes;
    if matches!(how, Look::Exact(_)) && counted != report.bytes {
        problem(at, format!("up to here {counted} bytes are accounted for, of the sector's {}", report.bytes));
    }
    report
}

/// What is wrong with the block whose head stands at `at`, in words, if anything is.
fn doubt(allocator: &Allocator, sector: &Sector, at: u64, word: Word, how: &Look<'_>) -> Option<String> {
    let (has_lane, surroundings): (&dyn Fn(LaneId) -> bool, _) = match how {
        Look::Survey => return None,
        Look::Live(has_lane) => {
            let magazines = allocator.depot().len();
            return match word.state() {
                State::Claimed if !has_lane(word.lane()) => Some(unowned(word)),
                State::Cached if usize::from(word.owner()) >= magazines => {
                    Some(format!("cached in magazine {}, of which there are {magazines}", word.owner()))
                }
                _ => None,
            };
        }
        Look::Exact(None) => (&|_| true, None),
        Look::Exact(Some(surroundings)) => (surroundings.has_lane, Some(surroundings)),
    };
    let lane = word.lane();
    match word.state() {
        State::Free if !sector.hints().is_set(class_of(word.len()), at) => {
            Some(format!("no hint leads to the free block of {} granules", word.len()))
        }
        State::Claimed => Some(format!("claimed by nobody who is at work: {word:?}")),
        State::Cached => allocator.depot().doubt(at, word, has_lane),
        State::Allocated if lane != LaneId::SEGMENT && !has_lane(lane) => Some(unowned(word)),
        State::Shared if !has_lane(lane) => Some(unowned(word)),
        State::InFlight if lane != LaneId::NOBODY && !has_lane(lane) => Some(unowned(word)),
        State::InFlight => {
            let cells = surroundings?.in_rings.get(&BlockId::new(sector.index(), at)).copied().unwrap_or(0);
            // In a sector that is in quarantine may lie a ring, which nobody can look at any more.
            let is_lost = cells == 0 && allocator.sectors().iter().any(Sector::is_quarantined);
            (cells != 1 && !is_lost).then(|| format!("on its way, and named by {cells} cells of rings: {word:?}"))
        }
        _ => None,
    }
}

/// Whether a block begins there, or the sector once ended.
fn is_boundary(word: Word) -> bool {
    word.is_head() || word.state() == State::Sentinel
}

fn unowned(word: Word) -> String {
    format!("its owner is a lane that no participant has: {word:?}")
}

/// The ranges of a sector that lanes say they are working on: of the living, and of the dead, for their reapers.
fn named_ranges(depot: &Depot, sector: usize) -> Vec<(u64, u64)> {
    let ranges = depot.lanes().iter().filter_map(|line| match line.intent() {
        Intent::Range { sector: named, granule, len } if named == sector => Some((granule, len)),
        _ => None,
    });
    ranges.collect()
}

/// What full magazines hold must say so. (The converse is looked at block by block.)
fn check_full_magazines(allocator: &Allocator, found: &mut Findings) {
    let sector = &allocator.sectors()[0];
    for (magazine, len, granule) in allocator.depot().full_items().filter(|_| !sector.is_quarantined()) {
        let word = (granule < sector.granules()).then(|| sector.word(granule));
        if !word.is_some_and(|word| word == Word::cached(magazine, len, word.generation())) {
            found.add(0, granule, format!("named by magazine {magazine}, which is full, {}", but(word)));
        }
    }
}

/// What rings name must be on its way. (The converse is looked at block by block.)
fn check_rings(allocator: &Allocator, surroundings: &Surroundings<'_>, found: &mut Findings) {
    for id in surroundings.in_rings.keys() {
        let is_lost = allocator.sectors().get(id.sector()).is_some_and(Sector::is_quarantined);
        let word = allocator.word_of(*id).map(|(_, word)| word);
        if !is_lost && word.is_none_or(|word| word.state() != State::InFlight) {
            found.add(id.sector(), id.granule(), format!("named by a cell of a ring, {}", but(word)));
        }
    }
}

fn but(word: Option<Word>) -> String {
    word.map_or_else(|| "but not there".into(), |word| format!("but what stands here is {word:?}"))
}

/// Nobody means to do anything.
fn check_lanes(depot: &Depot, found: &mut Findings) {
    for (lane, line) in depot.lanes().iter().enumerate() {
        let intent = line.intent();
        let place = match intent {
            Intent::None => None,
            Intent::Range { sector, granule, .. } => Some((sector, granule)),
            Intent::Send { block, .. } | Intent::Receive { block, .. } | Intent::Guard { block, .. } => {
                Some((block.sector(), block.granule()))
            }
        };
        if let Some((sector, granule)) = place {
            found.add(sector, granule, format!("lane {lane} has not done what it was about to do here: {intent:?}"));
        }
        if let Some(granule) = line.taking() {
            found.add(0, granule, format!("lane {lane} is taking this block out of a magazine"));
        }
    }
}
