//! What must hold when nobody works in a segment, and how much of everything there is.

use std::collections::HashMap;

use crate::{
    alloc::{
        Allocator,
        magazine::Depot,
        sector::Sector,
        word::{State, Word, class_of},
    },
    region::{
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
    /// Blocks in magazines.
    pub cached_blocks: usize,
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

    /// Counts a block of so many bytes, by the word of its head.
    pub(crate) fn count(&mut self, word: Word, bytes: usize, after_free: bool) {
        match word.state() {
            State::Free => {
                self.free_bytes += bytes;
                self.free_runs += 1;
                self.largest_free = self.largest_free.max(bytes);
                self.unmerged += usize::from(after_free);
            }
            State::Cached => {
                self.cached_bytes += bytes;
                self.cached_blocks += 1;
            }
            State::InFlight | State::Promised | State::Returned => {
                self.in_flight_bytes += bytes;
                self.in_flight_blocks += 1;
            }
            State::Claimed => {}
            _ => {
                self.allocated_bytes += bytes;
                self.allocated_blocks += 1;
            }
        }
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

    /// Blocks that belong to somebody, messages on their way included.
    pub fn held_blocks(&self) -> usize {
        self.sectors.iter().map(|sector| sector.allocated_blocks + sector.in_flight_blocks).sum()
    }

    /// Bytes of all sectors, as large as they are now.
    pub fn bytes(&self) -> usize {
        self.sectors.iter().map(|sector| sector.bytes).sum()
    }

    /// Bytes of the largest free block: what could be had in one piece now, but for what the magazines hold.
    pub fn largest_free(&self) -> usize {
        self.sectors.iter().map(|sector| sector.largest_free).max().unwrap_or(0)
    }

    /// How much of the free memory is not in the largest free block of its sector: from 0 to nearly 1.
    pub fn fragmentation(&self) -> f64 {
        let (free, largest) = self
            .sectors
            .iter()
            .fold((0, 0), |(free, largest), sector| (free + sector.free_bytes, largest + sector.largest_free));
        if free == 0 { 0.0 } else { 1.0 - largest as f64 / free as f64 }
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
    /// How many watches name a block as their value.
    pub(crate) current: HashMap<BlockId, usize>,
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
        report.count(word, bytes, after_free);
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
        State::Shared if lane == LaneId::SEGMENT => {
            let watches = surroundings?.current.get(&BlockId::new(sector.index(), at)).copied().unwrap_or(0);
            (watches != 1).then(|| format!("a value, and named by {watches} watches: {word:?}"))
        }
        State::Shared | State::Received if !has_lane(lane) => Some(unowned(word)),
        State::InFlight | State::Promised if lane != LaneId::NOBODY && !has_lane(lane) => Some(unowned(word)),
        State::InFlight | State::Promised => {
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
        if !is_lost && word.is_none_or(|word| !matches!(word.state(), State::InFlight | State::Promised)) {
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
            Intent::Send { block, .. }
            | Intent::Receive { block, .. }
            | Intent::Retry { block, .. }
            | Intent::Guard { block, .. } => Some((block.sector(), block.granule())),
        };
        if let Some((sector, granule)) = place {
            found.add(sector, granule, format!("lane {lane} has not done what it was about to do here: {intent:?}"));
        }
        if let Some(granule) = line.taking() {
            found.add(0, granule, format!("lane {lane} is taking this block out of a magazine"));
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::alloc::{
        Block,
        sector::Run,
        tests::{allocator, sector, worker_of},
    };

    const NOBODYS: LaneId = LaneId(77);

    fn has_lane(lane: LaneId) -> bool {
        lane != NOBODYS && lane < LaneId::NOBODY
    }

    /// What a check says, with these blocks named by cells of rings.
    fn said(allocator: &Allocator, in_rings: &[BlockId]) -> Vec<String> {
        let mut counts = HashMap::new();
        in_rings.iter().for_each(|block| *counts.entry(*block).or_default() += 1);
        let current = HashMap::new();
        check(allocator, Some(&Surroundings { has_lane: &has_lane, in_rings: counts, current })).problems
    }

    fn said_live(allocator: &Allocator) -> Vec<String> {
        check_live(allocator, has_lane, || {}).report().problems
    }

    /// Overwrites the head of a block, and says what stands there then.
    fn damage(allocator: &Allocator, block: Block, word: Word) -> String {
        allocator.sectors()[block.id.sector()].store(block.id.granule(), word);
        format!("{word:?}")
    }

    fn at(block: Block) -> String {
        format!("sector {}, granule {}:", block.id.sector(), block.id.granule())
    }

    #[test]
    fn blocks_belong_to_lanes_that_somebody_has() {
        let allocator = allocator([4096, 64, 0], 0);
        let block = allocator.allocate(&mut worker_of(&allocator, 1), 3000, 1).unwrap();
        let Block { len, generation, .. } = block;
        let one = LaneId(1);
        for fine in [Word::allocated(LaneId::SEGMENT, len, generation), Word::shared(one, len, generation)] {
            damage(&allocator, block, fine);
            assert!(said(&allocator, &[]).is_empty(), "{fine:?}");
        }
        for (wrong, in_rings) in [
            (Word::allocated(NOBODYS, len, generation), 0),
            (Word::allocated(LaneId::NOBODY, len, generation), 0),
            (Word::shared(NOBODYS, len, generation), 0),
            (Word::new(State::InFlight, NOBODYS.0, len, generation), 1),
        ] {
            let word = damage(&allocator, block, wrong);
            let expected = format!("{} its owner is a lane that no participant has: {word}", at(block));
            assert_eq!(said(&allocator, &vec![block.id; in_rings]), [expected]);
        }
        let word = damage(&allocator, block, Word::shared(LaneId::SEGMENT, len, generation));
        assert_eq!(said(&allocator, &[]), [format!("{} a value, and named by 0 watches: {word}", at(block))]);
        let word = damage(&allocator, block, Word::claimed(one, len, generation));
        let said = said(&allocator, &[]);
        assert_eq!(said[0], format!("{} claimed by nobody who is at work: {word}", at(block)));
        // It is in none of the sums.
        assert!(said.len() == 2 && said[1].contains("bytes are accounted for"), "{said:?}");
    }

    #[test]
    fn what_is_on_its_way_is_named_by_one_cell() {
        let allocator = allocator([4096, 0, 0], 0);
        let mut worker = worker_of(&allocator, 1);
        let block = allocator.allocate(&mut worker, 300, 1).unwrap();
        for lane in [worker.lane.id(), LaneId::NOBODY] {
            let word = damage(&allocator, block, Word::new(State::InFlight, lane.0, block.len, block.generation));
            assert!(said(&allocator, &[block.id]).is_empty());
            for cells in [0, 2] {
                let expected = format!("{} on its way, and named by {cells} cells of rings: {word}", at(block));
                assert_eq!(said(&allocator, &vec![block.id; cells]), [expected]);
            }
        }
        let word = damage(&allocator, block, Word::allocated(worker.lane.id(), block.len, block.generation));
        let expected = format!("{} named by a cell of a ring, but what stands here is {word}", at(block));
        assert_eq!(said(&allocator, &[block.id]), [expected]);
        for (sector, granule) in [(0, 4096), (1, 0), (3, 7)] {
            let expected = format!("sector {sector}, granule {granule}: named by a cell of a ring, but not there");
            assert_eq!(said(&allocator, &[BlockId::new(sector, granule)]), [expected]);
        }
    }

    #[test]
    fn what_is_cached_is_in_that_magazine() {
        let allocator = allocator([4096, 0, 0], 64);
        let mut worker = worker_of(&allocator, 1);
        let cached = allocator.allocate(&mut worker, 60, 1).unwrap();
        allocator.free(&mut worker, cached);
        // Never in a magazine: what was may still be named behind the items that count.
        let [short, long] = [1, 2].map(|len| {
            let Run { granule, len, generation } = allocator.sectors()[0].take(&worker.lane, len).unwrap();
            Block { id: BlockId::new(0, granule), len, generation }
        });
        assert!(said(&allocator, &[]).is_empty());
        let magazine = allocator.sectors()[0].word(cached.id.granule()).owner();
        for (block, magazine, expected) in [
            (short, magazine, "which names it 0 times".to_owned()),
            (short, 63, "which is empty".into()),
            (short, 64, "of which there are 64".into()),
            (long, magazine, format!("which has blocks of another length: {:?}", Word::cached(magazine, 2, 9))),
        ] {
            damage(&allocator, block, Word::cached(magazine, block.len, 9));
            let expected = format!("{} cached in magazine {magazine}, {expected}", at(block));
            assert_eq!(said(&allocator, &[]), [expected]);
            damage(&allocator, block, Word::allocated(worker.lane.id(), block.len, block.generation));
        }
        let surroundings =
            Surroundings { has_lane: &|lane| lane == LaneId(2), in_rings: HashMap::new(), current: HashMap::new() };
        for block in [short, long] {
            damage(&allocator, block, Word::allocated(LaneId(2), block.len, block.generation));
        }
        let problems = check(&allocator, Some(&surroundings)).problems;
        assert!(
            !problems.is_empty() && problems.iter().all(|what| what.contains("of lane 1, which no participant has"))
        );
    }

    #[test]
    fn the_lengths_of_blocks_are_the_length_of_the_sector() {
        let allocator = allocator([64, 0, 0], 0);
        let block = allocator.allocate(&mut worker_of(&allocator, 1), 8 * 64, 1).unwrap();
        damage(&allocator, block, Word::allocated(LaneId(1), block.len - 1, block.generation));
        let said = said(&allocator, &[]);
        assert!(said[0].starts_with("sector 0, granule 63: no block begins where one must"), "{said:?}");
        let expected =
            format!("sector 0, granule 63: up to here {} bytes are accounted for, of the sector's 4096", 63 * 64);
        assert_eq!(said[1..], [expected]);
    }

    #[test]
    fn nobody_means_to_do_anything() {
        let allocator = allocator([4096, 0, 0], 64);
        let lane = worker_of(&allocator, 5).lane;
        let block = BlockId::new(0, 700);
        for intent in [
            Intent::Range { sector: 0, granule: 700, len: 3 },
            Intent::Send { block, generation: 1 },
            Intent::Receive { block, generation: 1 },
            Intent::Guard { block, generation: 1 },
        ] {
            lane.intend(intent);
            let expected =
                format!("sector 0, granule 700: lane 5 has not done what it was about to do here: {intent:?}");
            assert_eq!(said(&allocator, &[]), [expected]);
            assert!(said_live(&allocator).is_empty());
        }
        lane.done();
        lane.taking(700);
        assert_eq!(said(&allocator, &[]), ["sector 0, granule 700: lane 5 is taking this block out of a magazine"]);
        lane.taken();
        assert!(said(&allocator, &[]).is_empty());
    }

    #[test]
    fn hints_are_missed_only_while_nobody_works() {
        let allocator = allocator([4096, 0, 0], 0);
        let block = allocator.allocate(&mut worker_of(&allocator, 1), 300, 1).unwrap();
        damage(&allocator, block, Word::free(block.len, block.generation + 1));
        assert_eq!(said(&allocator, &[]), [format!("{} no hint leads to the free block of 5 granules", at(block))]);
        assert!(said_live(&allocator).is_empty());
    }

    #[test]
    fn what_lanes_say_that_they_work_on_is_no_damage() {
        let allocator = allocator([4096, 64, 0], 0);
        let mut worker = worker_of(&allocator, 1);
        let block = allocator.allocate(&mut worker, 3000, 1).unwrap();
        let (sector, granule) = (block.id.sector(), block.id.granule());
        let claimed = |lane| Word::claimed(lane, block.len, block.generation);
        damage(&allocator, block, claimed(LaneId(1)));
        assert!(said_live(&allocator).is_empty());
        damage(&allocator, block, claimed(NOBODYS));
        assert!(said_live(&allocator)[0].contains("its owner is a lane that no participant has"));

        damage(&allocator, block, claimed(NOBODYS).into_interior());
        let uncovered = |from: u64| {
            format!("sector {sector}, granule {from}: no block covers what is here, up to granule {}:", granule + 3)
        };
        let found = said_live(&allocator);
        assert!(found.len() == 1 && found[0].starts_with(&uncovered(granule)), "{found:?}");
        for (elsewhere, named, len, damaged) in [
            (false, granule, 3, None),
            (false, 0, 1 << 20, None),
            (false, granule, 2, Some(granule + 2)),
            (true, granule, 3, Some(granule)),
        ] {
            worker.lane.intend(Intent::Range { sector: if elsewhere { 0 } else { sector }, granule: named, len });
            let found = said_live(&allocator);
            assert_eq!(found.len(), usize::from(damaged.is_some()), "{found:?}");
            assert!(damaged.is_none_or(|from| found[0].starts_with(&uncovered(from))), "{found:?}");
        }
    }

    #[test]
    fn a_sector_that_is_about_to_grow_is_not_damaged() {
        let others = allocator([0, 64, 0], 0);
        let growing = sector(0, 1 << 15);
        let old = 1 << 13;
        let end = growing.next_extent(old).unwrap();
        growing.format(end);
        growing.store(old - 1, Word(0).into_end(old));
        growing.store(old, Word::sentinel());
        growing.store(0, Word::free(old, 1));
        let allocator = Allocator::new([growing, others.sectors()[1], others.sectors()[2]], *others.depot());
        assert!(said_live(&allocator).is_empty());
        growing.store(old, Word(0));
        let found = said_live(&allocator);
        assert!(
            found.len() == 1 && found[0].contains(&format!("granule {old}: no block covers what is here")),
            "{found:?}"
        );
    }
}
