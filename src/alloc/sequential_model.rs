//! The allocator against a model that knows which bytes are live, and nothing else.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
};

use proptest::{collection::vec, prelude::*};

use super::{
    tests::{allocator, allocator_of, worker_of},
    *,
};
use crate::region::layout::DEFAULT_GRANULES;

const WORKERS: usize = 3;

/// How much to ask for.
#[derive(Clone, Copy, Debug)]
enum Size {
    /// So many granules of a sector, and so many bytes more or less.
    Around(usize, usize, isize),
    Bytes(usize),
}

#[derive(Clone, Debug)]
enum Step {
    Allocate {
        worker: usize,
        size: Size,
        align: usize,
    },
    /// Asks for exactly the largest gap of a sector, or so many bytes more or less.
    Fit {
        worker: usize,
        sector: usize,
        more: i64,
    },
    /// Frees one of the live blocks, by whichever worker.
    Free {
        worker: usize,
        which: usize,
    },
    /// Frees live blocks in the order of their addresses or the reverse, until a quarter is left.
    FreeMany {
        worker: usize,
        reverse: bool,
    },
    Flush {
        worker: usize,
    },
    Drain {
        worker: usize,
        sector: usize,
    },
    /// Looks at a block that was freed, by its old handle.
    Stale {
        which: usize,
    },
}

fn size() -> impl Strategy<Value = Size> {
    // Around every cached size and every granule, one byte less and more; then what is large.
    let around = |sector: usize, granules: Range<usize>| {
        (granules, -1_isize..=1).prop_map(move |(granules, more)| Size::Around(sector, granules, more))
    };
    prop_oneof![
        1 => Just(Size::Bytes(0)),
        1 => Just(Size::Bytes(1)),
        8 => around(0, 0..40),
        3 => around(1, 1..24),
        1 => around(2, 1..6),
        1 => around(1, 509..514),
        1 => (0..400_000_usize).prop_map(Size::Bytes),
        1 => prop_oneof![Just(usize::MAX), Just(u32::MAX as usize - 3), Just(1 << 30)].prop_map(Size::Bytes),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let worker = 0..WORKERS;
    prop_oneof![
        24 => (worker.clone(), size(), 0..15_u32).prop_map(|(worker, size, align)| {
            // Mostly none.
            Step::Allocate { worker, size, align: if align < 14 && align % 2 == 0 { 1 << align } else { 1 } }
        }),
        4 => (worker.clone(), 0..SECTORS, -65..66_i64)
            .prop_map(|(worker, sector, more)| Step::Fit { worker, sector, more: if more % 2 == 0 { more.signum() } else { 0 } }),
        14 => (worker.clone(), any::<usize>()).prop_map(|(worker, which)| Step::Free { worker, which }),
        1 => (worker.clone(), any::<bool>()).prop_map(|(worker, reverse)| Step::FreeMany { worker, reverse }),
        1 => worker.clone().prop_map(|worker| Step::Flush { worker }),
        1 => (worker, 0..SECTORS).prop_map(|(worker, sector)| Step::Drain { worker, sector }),
        3 => any::<usize>().prop_map(|which| Step::Stale { which }),
    ]
}

/// Bytes of a granule of each sector, as they are unless told otherwise or not.
fn unit() -> impl Strategy<Value = [u64; SECTORS]> {
    prop_oneof![
        4 => Just(DEFAULT_GRANULES),
        1 => Just([128, 2048, 65536]),
        1 => Just([64, 256, 4096]),
        1 => Just([4096, 65536, 1 << 20]),
        1 => Just([64, 128, 1 << 18]),
    ]
}

/// A segment of few granules, so that it is full often.
fn shape() -> impl Strategy<Value = ([u64; SECTORS], [u64; SECTORS], usize)> {
    let granules = prop_oneof![
        6 => (1..300_u64, 1..24_u64, 1..5_u64).prop_map(|(small, medium, large)| [small, medium, large]),
        1 => (1..300_u64).prop_map(|small| [small, 0, 0]),
        1 => (1..24_u64).prop_map(|medium| [0, medium, 0]),
        1 => (1..5_u64).prop_map(|large| [0, 0, large]),
        1 => (1..300_u64, 1..5_u64).prop_map(|(small, large)| [small, 0, large]),
        1 => (1..300_u64, 500..1200_u64, 1..12_u64).prop_map(|(small, medium, large)| [small, medium, large]),
        1 => (4000..9000_u64, 1..24_u64).prop_map(|(small, medium)| [small, medium, 0]),
    ];
    (unit(), granules, prop_oneof![1 => Just(0_usize), 4 => 1..24_usize])
}

#[derive(Clone, Copy, Debug)]
struct Live {
    end: u64,
    block: Block,
    lane: LaneId,
}

/// What must be true, computed without a look at words or hints.
struct Model {
    /// Bytes of a granule of each sector.
    unit: [u64; SECTORS],
    granules: [u64; SECTORS],
    /// By first byte, in the sector's own bytes.
    live: [BTreeMap<u64, Live>; SECTORS],
    /// All generations that were ever handed out at a place.
    generations: HashMap<BlockId, HashSet<u32>>,
    dead: Vec<(Block, LaneId)>,
}

impl Model {
    /// The sector in which a request belongs, and those that may serve it: at most 32 granules go to the small sector, fewer
    /// than 512 to the medium one, the rest to the large one; but what would not fill half a granule stays where granules
    /// are smaller. A smaller one stands in only if none of the larger can ever hold the request.
    fn eligible(&self, bytes: usize, align: usize) -> Vec<usize> {
        let can = |sector: &usize| {
            bytes.max(1) as u128 <= u128::from(self.granules[*sector] * self.unit[*sector])
                && align as u64 <= self.unit[*sector].min(4096)
        };
        let belongs = (0..SECTORS - 1)
            .find(|sector| {
                let (unit, next) = (u128::from(self.unit[*sector]), u128::from(self.unit[sector + 1]));
                let whole = (bytes as u128).next_multiple_of(unit);
                whole < [33, 512][*sector] * unit || whole < next / 2
            })
            .unwrap_or(2);
        let larger: Vec<_> = (belongs..SECTORS).filter(can).collect();
        match larger.is_empty() {
            false => larger,
            true => (0..belongs).rev().find(can).into_iter().collect(),
        }
    }

    /// The ranges of a sector in which nothing is live.
    fn gaps(&self, sector: usize) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = 0;
        for (start, live) in &self.live[sector] {
            gaps.push(at..*start);
            at = live.end;
        }
        gaps.push(at..self.granules[sector] * self.unit[sector]);
        gaps.retain(|gap| !gap.is_empty());
        gaps
    }

    fn largest_gap(&self, sector: usize) -> u64 {
        self.gaps(sector).into_iter().map(|gap| gap.end - gap.start).max().unwrap_or(0)
    }

    fn allocated(&mut self, block: Block, lane: LaneId, bytes: usize, align: usize) -> Result<(), TestCaseError> {
        let sector = block.id.sector();
        let unit = self.unit[sector];
        let start = block.id.granule() * unit;
        let end = start + block.len * unit;
        prop_assert!(end - start >= bytes.max(1) as u64, "too small for {}: {:?}", bytes, block);
        prop_assert!(start.is_multiple_of(align as u64), "not aligned to {}: {:?}", align, block);
        prop_assert!(end <= self.granules[sector] * unit, "reaches out of the sector: {:?}", block);
        let eligible = self.eligible(bytes, align);
        prop_assert!(eligible.contains(&sector), "{} bytes belong in {:?}: {:?}", bytes, eligible, block);
        // No more than one step of the cached sizes is wasted.
        let least = (bytes as u64).div_ceil(unit).max(1);
        prop_assert!(block.len <= least + least / 4 + 1, "wasteful for {}: {:?}", bytes, block);
        let before = self.live[sector].range(..end).next_back();
        prop_assert!(before.is_none_or(|(_, live)| live.end <= start), "{:?} overlaps {:?}", block, before);
        let fresh = self.generations.entry(block.id).or_default().insert(block.generation);
        prop_assert!(fresh, "this generation was there before: {:?}", block);
        self.live[sector].insert(start, Live { end, block, lane });
        Ok(())
    }

    fn all(&self) -> Vec<Live> {
        self.live.iter().flat_map(BTreeMap::values).copied().collect()
    }

    fn freed(&mut self, live: Live) {
        let sector = live.block.id.sector();
        self.live[sector].remove(&(live.block.id.granule() * self.unit[sector]));
        self.dead.push((live.block, live.lane));
    }
}

struct Run {
    allocator: Allocator,
    workers: Vec<Worker>,
    model: Model,
}

impl Run {
    fn new(unit: [u64; SECTORS], granules: [u64; SECTORS], magazines: usize) -> Self {
        let allocator = allocator_of(unit, granules, magazines);
        Self {
            workers: (0..WORKERS).map(|lane| worker_of(&allocator, lane as u16 + 1)).collect(),
            allocator,
            model: Model { unit, granules, live: Default::default(), generations: HashMap::new(), dead: Vec::new() },
        }
    }

    fn allocate(&mut self, worker: usize, bytes: usize, align: usize) -> Result<(), TestCaseError> {
        let lane = self.workers[worker].lane.id();
        let eligible = self.model.eligible(bytes, align);
        match self.allocator.allocate(&mut self.workers[worker], bytes, align) {
            Ok(block) => {
                prop_assert_eq!(self.allocator.owned_by(block.id, block.generation, lane), Some(block));
                self.model.allocated(block, lane, bytes, align)?;
            }
            Err(AllocError::OutOfMemory { requested }) => {
                prop_assert_eq!(requested, bytes);
                prop_assert!(!eligible.is_empty(), "never to be had, but only out of memory");
                for sector in eligible {
                    let need = (bytes.max(1) as u64).next_multiple_of(self.model.unit[sector]);
                    let gap = self.model.largest_gap(sector);
                    prop_assert!(gap < need, "out of memory for {} bytes, {} are free in sector {}", need, gap, sector);
                }
            }
            Err(error) => {
                prop_assert!(eligible.is_empty(), "{} could be had in {:?}: {}", bytes, eligible, error);
                if let AllocError::Alignment { requested, largest } = error {
                    prop_assert!(requested == align && align > largest);
                }
            }
        }
        Ok(())
    }

    fn free(&mut self, worker: usize, live: Live) -> Result<(), TestCaseError> {
        let Live { block, lane, .. } = live;
        prop_assert_eq!(self.allocator.owned_by(block.id, block.generation, lane), Some(block));
        self.allocator.free(&mut self.workers[worker], block);
        prop_assert_eq!(self.allocator.owned_by(block.id, block.generation, lane), None);
        self.model.freed(live);
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Allocate { worker, size, align } => {
                let bytes = match size {
                    Size::Around(sector, granules, more) => {
                        (granules * self.model.unit[sector] as usize).saturating_add_signed(more)
                    }
                    Size::Bytes(bytes) => bytes,
                };
                self.allocate(worker, bytes, align)?;
            }
            Step::Fit { worker, sector, more } => {
                let gap = self.model.largest_gap(sector);
                self.allocate(worker, gap.saturating_add_signed(more) as usize, 1)?;
            }
            Step::Free { worker, which } => {
                let all = self.model.all();
                if !all.is_empty() {
                    self.free(worker, all[which % all.len()])?;
                }
            }
            Step::FreeMany { worker, reverse } => {
                let mut all = self.model.all();
                if reverse {
                    all.reverse();
                }
                all.truncate(all.len() - all.len() / 4);
                for live in all {
                    self.free(worker, live)?;
                }
            }
            Step::Flush { worker } => self.allocator.flush(&mut self.workers[worker]),
            Step::Drain { worker, sector } => self.drain(worker, sector)?,
            Step::Stale { which } => {
                if !self.model.dead.is_empty() {
                    let (block, _) = self.model.dead[which % self.model.dead.len()];
                    for lane in 1..=WORKERS as u16 {
                        prop_assert_eq!(self.allocator.owned_by(block.id, block.generation, LaneId(lane)), None);
                    }
                }
            }
        }
        Ok(())
    }

    /// With the caches drained, what is free is exactly the gaps, each in one piece.
    fn drain(&mut self, worker: usize, sector: usize) -> Result<(), TestCaseError> {
        self.allocator.drain_caches(&mut self.workers[worker]);
        let (view, unit) = (&self.allocator.sectors()[sector], self.model.unit[sector]);
        let free: Vec<_> = (0..view.granules())
            .map(|at| (at, view.word(at)))
            .filter(|(_, word)| word.is_free())
            .map(|(at, word)| at * unit..(at + word.len()) * unit)
            .collect();
        prop_assert_eq!(free, self.model.gaps(sector));
        Ok(())
    }

    fn end(mut self) -> Result<(), TestCaseError> {
        self.is_clean()?;
        for (at, live) in self.model.all().into_iter().enumerate() {
            self.free(at % WORKERS, live)?;
        }
        self.is_clean()?;
        for sector in 0..SECTORS {
            self.drain(0, sector)?;
        }
        let report = self.is_clean()?;
        for (sector, granules) in self.model.granules.into_iter().enumerate() {
            prop_assert_eq!(report.sectors[sector].free_runs, usize::from(granules > 0));
            prop_assert_eq!(report.sectors[sector].free_bytes as u64, granules * self.model.unit[sector]);
        }
        for (block, lane) in &self.model.dead {
            prop_assert_eq!(self.allocator.owned_by(block.id, block.generation, *lane), None);
        }
        Ok(())
    }

    fn is_clean(&self) -> Result<check::CheckReport, TestCaseError> {
        let report = check::check(&self.allocator, None);
        prop_assert_eq!(&report.problems, &Vec::<String>::new());
        for (sector, live) in self.model.live.iter().enumerate() {
            let bytes: u64 = live.iter().map(|(start, live)| live.end - start).sum();
            let found = &report.sectors[sector];
            prop_assert_eq!(found.allocated_bytes as u64, bytes);
            prop_assert_eq!(found.allocated_blocks, live.len());
            prop_assert_eq!(found.free_bytes + found.cached_bytes + found.allocated_bytes, found.bytes);
            prop_assert_eq!(found.unmerged, 0);
        }
        Ok(report)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_allocator_does_what_the_model_of_live_ranges_allows(
        (unit, granules, magazines) in shape(),
        steps in vec(step(), 1..400),
    ) {
        let mut run = Run::new(unit, granules, magazines);
        for step in steps {
            run.step(step)?;
        }
        run.end()?;
    }
}

#[test]
fn a_request_goes_to_its_own_sector_and_to_a_smaller_one_only_if_there_is_no_other() {
    let sector_of = |granules: [u64; SECTORS], bytes: usize, align: usize| {
        let allocator = allocator(granules, 4);
        allocator.allocate(&mut worker_of(&allocator, 1), bytes, align).ok().map(|block| block.id.sector())
    };
    let all = [16_384, 1024, 64];
    for (bytes, align, sector) in [
        (0, 1, 0),
        (1, 64, 0),
        (2048, 64, 0),
        (2049, 1, 1),
        (1, 128, 1),
        (64, 1024, 1),
        (511 * 1024, 1, 1),
        (511 * 1024 + 1, 1, 2),
        (1, 2048, 2),
        (1, 4096, 2),
    ] {
        assert_eq!(sector_of(all, bytes, align), Some(sector), "{bytes} bytes, aligned to {align}");
    }
    assert_eq!(sector_of([16_384, 1024, 0], 600 << 10, 1), Some(1));
    assert_eq!(sector_of([16_384, 0, 0], 600 << 10, 1), Some(0));
    assert_eq!(sector_of([16_384, 16, 0], 600 << 10, 1), Some(0));
    assert_eq!(sector_of([16_384, 0, 64], 2049, 1), Some(2));
    assert_eq!(sector_of([0, 0, 64], 0, 1), Some(2));
    assert_eq!(sector_of(all, 1, 8192), None);
}

#[test]
fn a_request_goes_to_no_sector_of_which_it_would_waste_most_of_a_granule() {
    let sector_of = |unit: [u64; SECTORS], bytes: usize| {
        let allocator = allocator_of(unit, [16_384, 1024, 64], 4);
        let block = allocator.allocate(&mut worker_of(&allocator, 1), bytes, 1).unwrap();
        block.id.sector()
    };
    for (unit, bytes, sector) in [
        ([128, 2048, 65536], 32 * 128, 0),
        ([128, 2048, 65536], 32 * 128 + 1, 1),
        ([128, 2048, 65536], 511 * 2048 + 1, 2),
        ([64, 256, 4096], 2049, 1),
        ([64, 256, 4096], 511 * 256, 1),
        ([64, 256, 4096], 511 * 256 + 1, 2),
        ([4096, 65536, 1 << 20], 4096, 0),
        ([4096, 65536, 1 << 20], 32 * 4096 + 1, 1),
        // Granules far apart: half a granule of the next sector is more than 32 of the small one.
        ([64, 65536, 1 << 20], 32_768 - 64, 0),
        ([64, 65536, 1 << 20], 32_768 - 63, 1),
        ([64, 128, 1 << 18], 511 * 128, 1),
        ([64, 128, 1 << 18], 131_072 - 128, 1),
        ([64, 128, 1 << 18], 131_072 - 127, 2),
    ] {
        assert_eq!(sector_of(unit, bytes), sector, "{bytes} bytes where granules have {unit:?}");
    }
}

#[test]
fn a_sector_grows_by_a_granule_at_least() {
    for unit in [DEFAULT_GRANULES, [4096, 65536, 1 << 20]] {
        let allocator = allocator_of(unit, [16_384, 1024, 64], 0);
        for (sector, bytes) in allocator.sectors().iter().zip(unit) {
            assert_eq!(sector.next_extent(0), Some((256_u64 << 10).max(bytes) / bytes));
            assert_eq!(sector.next_extent(10_000.min(sector.most() - 1)), Some(sector.most().min(15_000)));
        }
    }
}
