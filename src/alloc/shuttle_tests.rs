//! Histories: three and four threads at once, with more steps than a model could have, in schedules drawn at random.
//!
//! Shuttle explores sequentially consistent interleavings only, and by chance: weak memory, and every order of a few
//! steps, are what the models of `loom_tests` are for. Half of the schedules are drawn step by step; the other half change
//! priorities at a few points (PCT), so that a thread stands still in the middle of something while others do very much.
//!
//! ```sh
//! RUSTFLAGS="--cfg shuttle" CARGO_TARGET_DIR=target/shuttle cargo test --release --lib shuttle
//! ```
//!
//! What a thread does in a history depends on the schedule alone, so a failing one can be played again: put what was
//! printed between the quotes behind `failing schedule:` into a file, and run the test that failed with
//! `WATERWAY_SCHEDULE` set to its path ([`explore`] hands it to shuttle's `ReplayScheduler`, as `shuttle::replay` would).
//!
//! A lane dies by never being scheduled again ([`die_within`]): between any two steps of the very code that ships.
//!
//! At the end of every history heads must tile, hints must lead to every free block, and all free memory must come
//! together. The last few histories are played twice, once with a step left out, and must fail then: they show that the
//! others can see.

use std::{
    cell::Cell,
    ptr::NonNull,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU16, AtomicUsize},
    },
};

use shuttle::{
    Config, Runner,
    rand::{Rng, thread_rng},
    scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Schedule, Scheduler, Task, TaskId},
    thread,
};

use super::{
    AllocError, Allocator, Block, Worker, block_of, check,
    magazine::{Depot, LONGEST},
    sector::{Run, Sector},
    word::{State, Word, class_of},
};
use crate::{
    region::{
        lanes::{BlockId, Intent, Lane, LaneId},
        layout::{
            CACHED_SIZES, DEFAULT_GRANULES, DEPOT_WORDS, LaneLine, MAGAZINE_ITEMS, MagazineLine, SECTORS, SectorLayout,
        },
    },
    sys::{
        shared::{SharedRef, SharedSlice},
        sync::{AtomicU32, AtomicU64, Ordering, SeldomWrittenU64},
    },
};

/// Steps between which a thread changes its priority, and one more.
const DEPTH: usize = 4;
/// A stack with room for a message of failure.
const STACK: usize = 1 << 17;

const LANES: usize = 6;
/// The lane of whoever looks after everything when the others have ended.
const LAST: u16 = 0;
/// The lane of whoever buries.
const REAPER: u16 = 5;
/// Owner of what was passed and not yet received.
const ON_ITS_WAY: u16 = 100;

/// What is to become of a thread that may die.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Alive,
    /// It has so many steps left.
    Doomed(TaskId, usize),
    Over,
}

std::thread_local! {
    // All threads of a history are played by one real thread.
    static FATE: Cell<Fate> = const { Cell::new(Fate::Alive) };
}

/// Lets the calling thread die at one of its next `steps` steps, if it does not end before.
fn die_within(steps: usize) {
    FATE.set(Fate::Doomed(shuttle::current::me(), thread_rng().gen_range(0..steps)));
}

/// The thread that could have died has come to its end.
fn survive() {
    FATE.set(Fate::Over);
}

/// Whether the thread that may die is dead, or at its end.
fn is_over() -> bool {
    matches!(FATE.get(), Fate::Doomed(_, 0) | Fate::Over)
}

/// A scheduler that schedules no dead.
#[derive(Debug)]
struct Mortal<S>(S);

impl<S: Scheduler> Scheduler for Mortal<S> {
    fn new_execution(&mut self) -> Option<Schedule> {
        FATE.set(Fate::Alive);
        self.0.new_execution()
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, is_yielding: bool) -> Option<TaskId> {
        match FATE.get() {
            Fate::Doomed(dead, 0) => {
                let living: Vec<&Task> = runnable.iter().copied().filter(|task| task.id() != dead).collect();
                if living.is_empty() { None } else { self.0.next_task(&living, current, is_yielding) }
            }
            Fate::Doomed(doomed, steps) => {
                let next = self.0.next_task(runnable, current, is_yielding);
                if next == Some(doomed) {
                    FATE.set(Fate::Doomed(doomed, steps - 1));
                }
                next
            }
            Fate::Alive | Fate::Over => self.0.next_task(runnable, current, is_yielding),
        }
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
}

/// Plays a history so many times in schedules of each kind, or once in the one that is to be played again.
fn explore(times: usize, history: impl Fn() + Clone + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = STACK;
    config.silence_warnings = true;
    if let Some(schedule) = std::env::var_os("WATERWAY_SCHEDULE") {
        let again = ReplayScheduler::new_from_file(schedule).expect("a file with a schedule");
        Runner::new(Mortal(again), config).run(history);
        return;
    }
    Runner::new(Mortal(PctScheduler::new(DEPTH, times)), config.clone()).run(history.clone());
    Runner::new(Mortal(RandomScheduler::new(times)), config).run(history);
}

/// The memory of one run of a history, and who should have what. Every thread holds it for as long as it has views of it.
struct Ground {
    words: [Vec<AtomicU64>; SECTORS],
    maps: [Vec<AtomicU64>; SECTORS],
    extents: [SeldomWrittenU64; SECTORS],
    lanes: Vec<LaneLine>,
    magazines: Vec<MagazineLine>,
    depot: Vec<AtomicU64>,
    /// Per granule who has it, or 0. No steps: whoever looks after something is no part of the history.
    owners: [Vec<AtomicU16>; SECTORS],
    /// Blocks on their way from one thread to another.
    passed: Mutex<Vec<Block>>,
    /// How many operations were begun, and how many of them are not at their end.
    begun: AtomicUsize,
    busy: AtomicUsize,
}

fn zeroed(len: u64) -> Vec<AtomicU64> {
    (0..len).map(|_| AtomicU64::new(0)).collect()
}

fn view<T>(values: &[T]) -> SharedSlice<T> {
    // SAFETY: atomics on the heap, which the ground keeps for as long as any thread has views of them.
    unsafe { SharedSlice::new(NonNull::from(values).cast(), values.len()) }
}

impl Ground {
    /// Sectors of so many granules at first, and so many at most.
    fn growing(first: [u64; SECTORS], most: [u64; SECTORS], magazines: usize) -> Arc<Self> {
        let magazine = || MagazineLine {
            word: AtomicU64::new(0),
            count: AtomicU64::new(0),
            items: std::array::from_fn::<_, MAGAZINE_ITEMS, _>(|_| AtomicU32::new(0)),
        };
        let ground = Self {
            words: most.map(|granules| zeroed(granules + 1)),
            maps: most.map(|granules| zeroed(SectorLayout::map_words(granules))),
            extents: first.map(SeldomWrittenU64::new),
            lanes: (0..LANES).map(|_| LaneLine::default()).collect(),
            magazines: (0..magazines).map(|_| magazine()).collect(),
            depot: zeroed(((CACHED_SIZES + 1) * DEPOT_WORDS) as u64),
            owners: most.map(|granules| (0..granules).map(|_| AtomicU16::new(0)).collect()),
            passed: Mutex::default(),
            begun: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
        };
        ground.allocator().format(first);
        Arc::new(ground)
    }

    fn new(granules: [u64; SECTORS], magazines: usize) -> Arc<Self> {
        Self::growing(granules, granules, magazines)
    }

    fn allocator(&self) -> Allocator {
        let sector = |index: usize| {
            // SAFETY: as for `view`.
            let extent = unsafe { SharedRef::new(NonNull::from(&self.extents[index])) };
            Sector::new(
                index,
                DEFAULT_GRANULES[index].ilog2(),
                view(&self.words[index]),
                view(&self.maps[index]),
                extent,
            )
        };
        Allocator::new([0, 1, 2].map(sector), Depot::new(view(&self.magazines), view(&self.depot), view(&self.lanes)))
    }

    fn sector(&self) -> Sector {
        self.allocator().sectors()[0]
    }

    fn lane(&self, id: u16) -> Lane {
        // SAFETY: as for `view`.
        Lane::new(LaneId(id), unsafe { SharedRef::new(NonNull::from(&self.lanes[usize::from(id)])) })
    }

    fn intent(&self, lane: usize) -> Intent {
        Intent::unpack(self.lanes[lane].intent.load(Ordering::SeqCst))
    }

    fn owners(&self, sector: usize, granule: u64, len: u64) -> &[AtomicU16] {
        &self.owners[sector][granule as usize..(granule + len) as usize]
    }

    /// Marks the granules of a block as a lane's, from which nobody else may get them.
    fn mark(&self, block: Block, lane: u16) {
        for owner in self.owners(block.id.sector(), block.id.granule(), block.len) {
            let was = owner.swap(lane, Ordering::Relaxed);
            assert_eq!(was, 0, "given out twice: {block:?} to {lane}");
        }
    }

    fn unmark(&self, block: Block, lane: u16) {
        for owner in self.owners(block.id.sector(), block.id.granule(), block.len) {
            let was = owner.swap(0, Ordering::Relaxed);
            assert_eq!(was, lane, "taken away from {lane}: {block:?}");
        }
    }

    /// The longest run of granules of a sector that nobody has.
    fn longest_gap(&self, sector: usize) -> u64 {
        // SAFETY: one real thread plays all of them. Not a step: nothing may happen between a failure and this look.
        let extent = unsafe { self.extents[sector].raw_load() };
        let owners = self.owners(sector, 0, extent);
        let runs = owners.split(|owner| owner.load(Ordering::Relaxed) != 0);
        runs.map(|run| run.len() as u64).max().unwrap_or(0)
    }

    /// Takes the whole small sector and cuts it into blocks of these lengths, which the lane owns.
    fn cut(&self, id: u16, lens: &[u64]) -> Vec<Block> {
        let (sector, lane) = (self.sector(), self.lane(id));
        assert_eq!(lens.iter().sum::<u64>(), sector.granules());
        let mut at = sector.take(&lane, sector.granules()).unwrap().granule;
        let mut blocks = Vec::new();
        for len in lens {
            if *len > 1 {
                sector.store(at + len - 1, sector.word(at + len - 1).into_end(*len));
            }
            let generation = sector.word(at).next_generation();
            sector.store(at, Word::allocated(lane.id(), *len, generation));
            blocks.push(Block { id: BlockId::new(0, at), len: *len, generation });
            at += len;
        }
        blocks
    }

    /// What holds whenever nobody is at work: heads tile, hints lead to every free block, nobody means to do anything.
    fn is_sound(&self) {
        let report = check::check(&self.allocator(), None);
        assert!(report.is_clean(), "{:?}", report.problems);
        for lane in 0..LANES {
            assert_eq!(self.intent(lane), Intent::None, "lane {lane} still means to do something");
        }
    }

    /// All is freed: nothing may stay behind, nothing may stay apart.
    fn ends_in_one_piece(&self) {
        self.is_sound();
        let (allocator, lane) = (self.allocator(), self.lane(LAST));
        for (index, sector) in allocator.sectors().iter().enumerate().filter(|(_, sector)| sector.granules() > 0) {
            assert!(self.owners[index].iter().all(|owner| owner.load(Ordering::Relaxed) == 0));
            if index == 0 {
                allocator.depot().drain(sector, &lane);
            }
            // Two that were freed at once may lie side by side; whoever needs them in one piece merges them.
            let whole = sector.sweep(&lane, sector.granules()).expect("all is free, and not in one piece");
            sector.release(&lane, whole.granule);
        }
        let report = check::check(&allocator, None);
        assert!(report.is_clean() && report.sectors.iter().all(|sector| sector.free_bytes == sector.bytes));
        assert!(report.sectors.iter().all(|sector| sector.free_runs <= 1), "{report:?}");
    }
}

/// A thread of a history: its lane, its magazines, and what it has.
struct Actor {
    ground: Arc<Ground>,
    allocator: Allocator,
    worker: Worker,
    held: Vec<Block>,
}

impl Actor {
    fn new(ground: &Arc<Ground>, lane: u16) -> Self {
        let worker = Worker::new(ground.lane(lane));
        Self { ground: ground.clone(), allocator: ground.allocator(), worker, held: Vec::new() }
    }

    fn id(&self) -> u16 {
        self.worker.lane.id().0
    }

    /// Does something, and says whether nobody else was at work all the time.
    fn alone<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> (T, bool) {
        let ground = self.ground.clone();
        let others = ground.busy.fetch_add(1, Ordering::Relaxed);
        let before = ground.begun.fetch_add(1, Ordering::Relaxed);
        let done = work(self);
        ground.busy.fetch_sub(1, Ordering::Relaxed);
        (done, others == 0 && ground.begun.load(Ordering::Relaxed) == before + 1)
    }

    fn allocate(&mut self, bytes: usize) -> bool {
        let (block, alone) = self.alone(|actor| actor.allocator.allocate(&mut actor.worker, bytes, 1));
        match block {
            Ok(block) => {
                assert!(self.allocator.bytes_of(block) >= bytes.max(1));
                self.take(block);
                true
            }
            Err(error) => {
                assert_eq!(error, AllocError::OutOfMemory { requested: bytes });
                // Short blocks may come out of any sector.
                let first = if (bytes as u64) <= LONGEST * DEFAULT_GRANULES[0] { 0 } else { 1 };
                for (sector, granule) in DEFAULT_GRANULES.iter().enumerate().skip(first) {
                    let fits = self.ground.longest_gap(sector) >= (bytes as u64).div_ceil(*granule).max(1);
                    assert!(!(alone && fits), "out of memory, with room for {bytes} bytes in sector {sector}");
                }
                false
            }
        }
    }

    /// Allocates after that has failed, and lets a sector grow by the steps that `provide` allows.
    fn grow(&mut self, bytes: usize, provide: impl Fn(usize, u64, u64) -> bool) {
        let provide = |sector, from, to, _| {
            assert!(provide(sector, from, to), "a step of its own: from {from} to {to}");
            true
        };
        let (block, alone) =
            self.alone(|actor| actor.allocator.allocate_growing(&actor.worker.lane, bytes, 1, provide));
        match block {
            Ok(block) => self.take(block),
            // Who frees at the end at the same time makes it possible only afterwards, and wakes who waits.
            Err(_) if !alone => {}
            Err(_) => {
                let fits = |(sector, granule): (&Sector, &u64)| {
                    sector.extent_for(sector.granules(), (bytes as u64).div_ceil(*granule)).is_some()
                };
                let could_grow = self.allocator.sectors().iter().zip(&DEFAULT_GRANULES).any(fits);
                assert!(!could_grow, "there was room to grow");
            }
        }
    }

    fn take(&mut self, block: Block) {
        self.ground.mark(block, self.id());
        self.held.push(block);
    }

    fn free(&mut self, block: Block) {
        self.ground.unmark(block, self.id());
        self.alone(|actor| actor.allocator.free(&mut actor.worker, block));
    }

    /// One of those that the thread has.
    fn any(&mut self) -> Option<Block> {
        let len = self.held.len();
        (len > 0).then(|| self.held.swap_remove(thread_rng().gen_range(0..len)))
    }

    fn free_any(&mut self) {
        if let Some(block) = self.any() {
            self.free(block);
        }
    }

    /// Puts a block where others find it.
    fn pass(&mut self) {
        if let Some(block) = self.any() {
            self.ground.unmark(block, self.id());
            self.ground.mark(block, ON_ITS_WAY);
            self.allocator.set_state(State::InFlight, self.worker.lane.id(), block);
            self.ground.passed.lock().unwrap().push(block);
        }
    }

    /// Takes a block that was passed, if there is one.
    fn receive(&mut self) -> bool {
        let passed = self.ground.passed.lock().unwrap().pop();
        if let Some(block) = passed {
            self.allocator.set_allocated(self.worker.lane.id(), block);
            self.ground.unmark(block, ON_ITS_WAY);
            self.take(block);
        }
        passed.is_some()
    }

    fn drain(&mut self) {
        self.alone(|actor| {
            actor.allocator.depot().drain(&actor.allocator.sectors()[0], &actor.worker.lane);
        });
    }

    fn sweep(&mut self) {
        let sector = thread_rng().gen_range(0..2);
        let (run, _) = self.alone(|actor| actor.allocator.sectors()[sector].sweep(&actor.worker.lane, 1));
        if let Some(run) = run {
            self.take(block_of(sector, run));
        }
    }

    /// Gives back everything.
    fn leave(mut self) {
        while self.receive() {}
        while !self.held.is_empty() {
            self.free_any();
        }
        self.allocator.flush(&mut self.worker);
    }

    /// Does something or other.
    fn act(&mut self) {
        let bytes = match thread_rng().gen_range(0..20) {
            // Around what fits into the granules of the small sector.
            0..=13 => thread_rng().gen_range(0..=4 * DEFAULT_GRANULES[0]),
            14..=17 => thread_rng().gen_range(0..=12 * DEFAULT_GRANULES[0]),
            _ => thread_rng().gen_range(1..=3 * DEFAULT_GRANULES[1]),
        };
        match thread_rng().gen_range(0..20) {
            0..=8 => {
                self.allocate(bytes as usize);
            }
            9..=13 => self.free_any(),
            14..=15 => self.pass(),
            16..=17 => {
                self.receive();
            }
            18 => self.drain(),
            _ => self.sweep(),
        }
    }
}

/// Plays `parts` at once, and waits for all of them.
fn at_once(parts: impl IntoIterator<Item = Box<dyn FnOnce() + Send>>) {
    let threads: Vec<_> = parts.into_iter().map(|part| thread::spawn(part)).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn part(work: impl FnOnce() + Send + 'static) -> Box<dyn FnOnce() + Send> {
    Box::new(work)
}

/// Threads that do whatever they like.
fn anything(threads: u16, steps: usize, granules: [u64; SECTORS], magazines: usize) {
    let ground = Ground::new(granules, magazines);
    at_once((1..=threads).map(|lane| {
        let mut actor = Actor::new(&ground, lane);
        part(move || {
            (0..steps).for_each(|_| actor.act());
            actor.leave();
        })
    }));
    Actor::new(&ground, LAST).leave();
    ground.ends_in_one_piece();
}

#[test]
fn three_threads_that_do_anything_never_share_a_granule_and_leave_one_piece() {
    explore(12_000, || anything(3, 18, [33, 4, 0], 4));
}

#[test]
fn four_threads_that_do_anything_never_share_a_granule_and_leave_one_piece() {
    explore(5000, || anything(4, 18, [80, 4, 0], 6));
}

#[test]
fn three_threads_without_magazines_never_share_a_granule_and_leave_one_piece() {
    explore(12_000, || anything(3, 20, [48, 0, 0], 0));
}

#[test]
fn three_threads_that_grow_a_sector_at_once_grow_it_step_by_step_and_leave_one_piece() {
    const STEPS: [(u64, u64); 3] = [(4, 8), (8, 12), (12, 14)];
    explore(15_000, || {
        let ground = Ground::growing([0, 0, 4], [0, 0, 14], 0);
        at_once((1..=3).map(|lane| {
            let mut actor = Actor::new(&ground, lane);
            part(move || {
                for _ in 0..8 {
                    let bytes = (thread_rng().gen_range(1..=4) * DEFAULT_GRANULES[2]) as usize;
                    if thread_rng().gen_range(0..3) == 0 {
                        actor.free_any();
                    } else if !actor.allocate(bytes) {
                        actor.grow(bytes, |sector, from, to| sector == 2 && STEPS.contains(&(from, to)));
                    }
                }
                actor.leave();
            })
        }));
        ground.ends_in_one_piece();
    });
}

#[test]
fn magazines_go_from_who_only_frees_to_who_only_allocates() {
    // The longest cached length, of which a magazine holds four: the ninth block that is freed hands one over.
    const BYTES: usize = (LONGEST * DEFAULT_GRANULES[0]) as usize;
    explore(5000, || {
        let ground = Ground::new([14 * LONGEST, 0, 0], 6);
        let done = Arc::new(AtomicBool::new(false));
        let [mut giver, mut freer, mut other] = [1, 2, 3].map(|lane| Actor::new(&ground, lane));
        let all_given = done.clone();
        let give = move || {
            for _ in 0..24 {
                if giver.allocate(BYTES) {
                    giver.pass();
                } else {
                    thread::yield_now();
                }
            }
            giver.leave();
            all_given.store(true, Ordering::Relaxed);
        };
        let free = move || {
            // The flag first: what was passed before is there.
            while !done.load(Ordering::Relaxed) {
                if freer.receive() {
                    freer.free_any();
                } else {
                    thread::yield_now();
                }
            }
            freer.leave();
        };
        let both = move || {
            for _ in 0..6 {
                other.allocate(BYTES);
                other.free_any();
            }
            other.leave();
        };
        at_once([part(give), part(free), part(both)]);
        ground.ends_in_one_piece();
    });
}

#[test]
fn neighbours_freed_by_three_threads_at_once_come_together() {
    explore(20_000, || {
        let lens: Vec<u64> = (0..12).map(|_| thread_rng().gen_range(1..=4)).collect();
        let ground = Ground::new([lens.iter().sum(), 0, 0], 0);
        let mut actors = [1, 2, 3].map(|lane| Actor::new(&ground, lane));
        for block in ground.cut(LAST, &lens) {
            actors[thread_rng().gen_range(0..3)].take(block);
        }
        at_once(actors.map(|actor| part(move || actor.leave())));
        ground.ends_in_one_piece();
    });
}

/// What a reaper does for a dead lane, as `attachment::recovery` does it for all of a participant's. `repair` is what it
/// does about a free block. `false` if something is left for later.
fn bury(ground: &Ground, me: &Lane, dead: LaneId, repair: impl Fn(&Sector, u64, Word)) -> bool {
    let (allocator, dead_line) = (ground.allocator(), &ground.lanes[usize::from(dead.0)]);
    let settled = match ground.intent(dead.0.into()) {
        Intent::Range { sector: index, granule, len } => {
            let others = || {
                let living = (0..LANES).filter(|lane| *lane != usize::from(dead.0));
                let ranges = living.filter_map(|lane| match ground.intent(lane) {
                    Intent::Range { sector, granule, len } if sector == index => Some((granule, len)),
                    _ => None,
                });
                ranges.collect()
            };
            let settled = || dead_line.intent.store(0, Ordering::Release);
            allocator.sectors()[index].adopt(me, granule, len, others, settled)
        }
        _ => true,
    };
    for (index, sector) in allocator.sectors().iter().enumerate() {
        let seize = |granule, word: Word| {
            sector.seize(me, granule, word, || {
                for owner in ground.owners(index, granule, word.len()) {
                    let was = owner.swap(0, Ordering::Relaxed);
                    assert!(was == 0 || was == dead.0, "{granule} was taken away from {was}");
                }
            })
        };
        for granule in 0..sector.granules() {
            loop {
                let word = sector.word(granule);
                let done = match word.state() {
                    State::Claimed | State::Allocated if word.lane() == dead => seize(granule, word),
                    State::Cached if allocator.depot().is_owned_by(word.owner(), |lane| lane == dead) => {
                        seize(granule, word)
                    }
                    State::Free => {
                        repair(sector, granule, word);
                        true
                    }
                    State::Sentinel => {
                        sector.open_up(me, granule);
                        true
                    }
                    _ => true,
                };
                if done || sector.word(granule) == word {
                    break;
                }
            }
        }
    }
    allocator.depot().bury(|lane| lane == dead);
    dead_line.taking.store(0, Ordering::Release);
    settled
}

/// A thread dies at one of its steps while it does `work` over and over, others go on, and a reaper buries it.
fn one_dies(work: impl Fn(&mut Actor) + Send + 'static, repair: impl Fn(&Sector, u64, Word) + Send + 'static) {
    let ground = Ground::new([40, 3, 0], 3);
    let [mut mortal, mut other] = [1, 2].map(|lane| Actor::new(&ground, lane));
    let mut reaper = Actor::new(&ground, REAPER);
    let dead = mortal.worker.lane.id();
    let live = move || {
        die_within(300);
        (0..10).for_each(|_| work(&mut mortal));
        survive();
    };
    // Nobody waits for it.
    thread::spawn(live);
    let go_on = move || {
        (0..6).for_each(|_| other.act());
        other.leave();
    };
    let look_after = move || {
        while !is_over() {
            thread::yield_now();
        }
        let mut settled = false;
        while !settled {
            (settled, _) = reaper.alone(|reaper| bury(&reaper.ground, &reaper.worker.lane, dead, &repair));
            thread::yield_now();
        }
    };
    at_once([part(go_on), part(look_after)]);
    Actor::new(&ground, LAST).leave();
    ground.ends_in_one_piece();
}

/// What somebody does who may die of it.
fn anything_mortal(actor: &mut Actor) {
    match thread_rng().gen_range(0..12) {
        0..=6 => {
            let bytes = thread_rng().gen_range(0..=6 * DEFAULT_GRANULES[0]);
            actor.allocate(bytes as usize);
        }
        7..=9 => actor.free_any(),
        10 => actor.drain(),
        _ => actor.sweep(),
    }
}

#[test]
fn must_hold_what_a_dead_lane_had_comes_back_and_is_led_to_by_hints() {
    explore(15_000, || one_dies(anything_mortal, Sector::repair_hint));
}

#[test]
#[should_panic(expected = "no hint leads to")]
fn must_fail_a_reaper_that_does_not_set_hints_again() {
    explore(5000, || one_dies(anything_mortal, |_, _, _| {}));
}

/// Takes so many granules, or frees a block.
fn take_or_free(actor: &mut Actor, take: impl Fn(&Sector, &Lane, u64) -> Option<Run>) {
    if thread_rng().gen_range(0..3) == 0 {
        return actor.free_any();
    }
    let len = thread_rng().gen_range(1..=5);
    let (run, _) = actor.alone(|actor| take(&actor.allocator.sectors()[0], &actor.worker.lane, len));
    if let Some(run) = run {
        actor.take(block_of(0, run));
    }
}

#[test]
fn must_hold_a_carve_that_dies_leaves_an_intent() {
    explore(10_000, || one_dies(|actor| take_or_free(actor, Sector::take), Sector::repair_hint));
}

#[test]
#[should_panic(expected = "no block begins where one must")]
fn must_fail_a_carve_without_an_intent() {
    fn carve(sector: &Sector, lane: &Lane, len: u64) -> Option<Run> {
        let words = (0..sector.granules()).map(|granule| (granule, sector.word(granule)));
        let (granule, word) = words.into_iter().find(|(_, word)| word.is_free() && word.len() > len)?;
        let rest = word.len() - len;
        if !sector.replace(granule, word, Word::free(rest, word.next_generation())) {
            return None;
        }
        let tail = granule + rest;
        let generation = sector.word(tail).next_generation();
        if len > 1 {
            sector.store(tail + len - 1, sector.word(tail + len - 1).into_end(len));
        }
        sector.store(tail, Word::allocated(lane.id(), len, generation));
        sector.hints().set(class_of(rest), granule);
        Some(Run { granule: tail, len, generation })
    }
    explore(5000, || one_dies(|actor| take_or_free(actor, carve), Sector::repair_hint));
}

/// Frees a block by `release`, while the free block on its left is carved and others free what is on its right.
fn freed_beside_carved(release: impl Fn(&Sector, &Lane, u64) + Send + 'static) {
    let ground = Ground::new([9, 0, 0], 0);
    let [mut taker, mut freer, mut other] = [1, 2, 3].map(|lane| Actor::new(&ground, lane));
    let blocks = ground.cut(LAST, &[4, 2, 3]);
    ground.sector().release(&taker.worker.lane, 0);
    freer.take(blocks[1]);
    other.take(blocks[2]);
    let free = move || {
        let block = freer.any().unwrap();
        freer.ground.unmark(block, freer.id());
        release(&freer.ground.sector(), &freer.worker.lane, block.id.granule());
    };
    let carve = move || {
        taker.allocate((2 * DEFAULT_GRANULES[0]) as usize);
        taker
    };
    let taker = thread::spawn(carve);
    at_once([part(free), part(move || other.leave())]);
    let taker = taker.join().unwrap();
    ground.is_sound();
    taker.leave();
    ground.ends_in_one_piece();
}

#[test]
fn must_hold_a_block_on_the_left_grows_only_if_it_ends_where_the_freed_one_begins() {
    explore(5000, || freed_beside_carved(Sector::release));
}

#[test]
#[should_panic(expected = "inside of the block")]
fn must_fail_a_tag_that_is_believed() {
    fn release(sector: &Sector, lane: &Lane, at: u64) {
        let (word, tag) = (sector.word(at), sector.word(at - 1));
        let left = at - tag.len();
        let left_word = sector.word(left);
        if tag.state() != State::End || !left_word.is_free() {
            return sector.release(lane, at);
        }
        // Extend left, without a look at where that block ends.
        let total = left_word.len() + word.len();
        lane.intend(Intent::Range { sector: 0, granule: at, len: word.len() });
        sector.store(at + word.len() - 1, sector.word(at + word.len() - 1).into_end(total));
        sector.store(at, word.into_interior());
        if sector.replace(left, left_word, Word::free(total, left_word.next_generation())) {
            sector.hints().set(class_of(total), left);
            return lane.done();
        }
        sector.store(at + word.len() - 1, sector.word(at + word.len() - 1).into_end(word.len()));
        sector.store(at, Word::claimed(lane.id(), word.len(), word.next_generation()));
        lane.done();
        sector.release(lane, at);
    }
    explore(5000, || freed_beside_carved(release));
}
