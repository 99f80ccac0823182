//! The allocator is stopped, or dies, at *every* store and read-modify-write of shared memory that each of its operations
//! makes, and so is whoever buries the dead; within one process, so that nothing is left to chance or to a sample.
//!
//! Only with `--cfg crash_points` (see `src/sys/crashing.rs`):
//!
//! ```sh
//! RUSTFLAGS="--cfg crash_points" CARGO_TARGET_DIR=target/crash cargo test --release --test crash_points_in_process -- --nocapture
//! ```
//!
//! Every participant has opened the segment for itself: its own mapping, lanes and locks. A scenario is played by the
//! *victim* in a thread of its own, which stands still just before the k-th point of what matters in it. To die there is to
//! stand still and lose the locks: nothing of the victim runs any more before all is judged. Then it unwinds, in a segment
//! that nobody looks at any more.
//!
//! Rounds with the same k differ in what a living *peer* does meanwhile: nothing (so that the scenario takes the same course
//! whenever it is played, and every point is met), or allocating, stamping, verifying and freeing all the time.

#![cfg(crash_points)]

mod common;

use std::{
    cell::RefCell,
    collections::BTreeSet,
    mem,
    os::fd::{AsRawFd, OwnedFd},
    panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind},
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use common::{PATIENCE, Stamp};
use waterway::{
    Segment, SegmentOptions,
    blocks::{Allocator, Handle, RawBlock},
    segment::CheckReport,
};

/// Scenarios with at most so many points are played with everything that can happen at each two of them.
const FEW: usize = 24;
/// At how many points of the others something happens before somebody dies.
const SOME: usize = 8;
/// Of the points at which victims of reapers that are disturbed die, one of so many.
const STRIDE: usize = 5;

/// A point: a line of the source.
type Place = &'static Location<'static>;

// ---- Participants that die ----

/// What a thread that is watched says.
enum Event {
    /// It stands still before the point that it was told.
    Stands(Place),
    /// It has done what matters, and has passed these points.
    Done(Vec<Place>),
}

/// Ends a thread that is dead, and buried, and judged.
struct Dead;

/// How a thread is told where to stand still, and what it says.
struct Deed {
    stops: Vec<usize>,
    says: Sender<Event>,
    /// Nobody says anything any more: unwind.
    orders: Mutex<Option<Receiver<()>>>,
}

/// What main has of a thread that is watched.
struct Line {
    hears: Receiver<Event>,
    orders: Sender<()>,
}

impl Line {
    fn next(&self) -> Event {
        self.hears.recv_timeout(PATIENCE).expect("it neither stands still nor ends")
    }
}

fn deed(stops: &[usize]) -> (Deed, Line) {
    let ((says, hears), (orders, takes)) = (channel(), channel());
    (Deed { stops: stops.to_vec(), says, orders: Mutex::new(Some(takes)) }, Line { hears, orders })
}

impl Deed {
    /// Does what matters: the points in it count.
    fn act<R>(&self, work: impl FnOnce() -> R) -> R {
        let orders = self.orders.lock().unwrap().take().expect("one thing in a scenario matters");
        let (stops, says) = (self.stops.clone(), self.says.clone());
        let passed = Rc::new(RefCell::new(Vec::new()));
        let passing = Rc::clone(&passed);
        let each = move |place| {
            passing.borrow_mut().push(place);
            if stops.contains(&passing.borrow().len()) {
                says.send(Event::Stands(place)).unwrap();
                if orders.recv().is_err() {
                    resume_unwind(Box::new(Dead));
                }
            }
        };
        let result = waterway::watch_crash_points(each, work);
        self.says.send(Event::Done(passed.take())).unwrap();
        result
    }
}

/// What a thread does that may die of it.
fn mortal(work: impl FnOnce()) {
    if let Err(end) = catch_unwind(AssertUnwindSafe(work))
        && !end.is::<Dead>()
    {
        resume_unwind(end);
    }
}

/// A participant's locks: another descriptor of its own file description.
struct Locks(OwnedFd);

impl Locks {
    fn of(segment: &Segment) -> Self {
        Self(segment.as_fd().unwrap().try_clone_to_owned().unwrap())
    }

    /// What the kernel does when a process ends.
    fn lose(&self) {
        // SAFETY: `flock` is plain data, for which zeros are a value.
        let mut all: libc::flock = unsafe { mem::zeroed() };
        all.l_type = libc::F_UNLCK as libc::c_short;
        all.l_whence = libc::SEEK_SET as libc::c_short;
        // From there on: see `src/sys/lock.rs`.
        all.l_start = 1 << 62;
        // SAFETY: the descriptor is open, and the lock outlives the call.
        assert_eq!(unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_OFD_SETLK, &raw const all) }, 0);
    }
}

/// One more participant.
fn another(segment: &Segment) -> Segment {
    Segment::from_fd(segment.as_fd().unwrap().try_clone_to_owned().unwrap()).unwrap()
}

// ---- The scenarios ----

/// What a scenario has besides the victim's hold on the segment.
struct Stage {
    deed: Deed,
    /// For what belongs to the peer.
    peer: Segment,
    /// Blocks of the peer's that the victim has the handles of: to be freed before all is judged.
    lent: Lent,
    /// Granules that are not free when it comes to what matters.
    had: Arc<AtomicUsize>,
}

type Lent = Arc<Mutex<Vec<Handle>>>;

impl Stage {
    fn act<R>(&self, work: impl FnOnce() -> R) -> R {
        let had = self
            .peer
            .stats()
            .sectors
            .iter()
            .filter(|sector| sector.bytes > 0)
            .map(|sector| sector.allocated_bytes / sector.granule)
            .sum();
        self.had.store(had, Ordering::SeqCst);
        self.deed.act(work)
    }

    /// A block of the peer's.
    fn borrow(&self) -> Handle {
        let handle = self.peer.allocator().allocate_copy(&[7; 100]).unwrap().into_handle();
        self.lent.lock().unwrap().push(handle);
        handle
    }

    /// A block that the peer gives away.
    fn borrow_raw(&self, len: usize) -> Handle {
        let handle = self.peer.allocator().allocate_raw(len).unwrap().into_handle();
        self.lent.lock().unwrap().push(handle);
        handle
    }
}

struct Scenario {
    name: &'static str,
    options: fn() -> SegmentOptions,
    /// Granules that nobody else can have while the victim stands still, at most, besides those that were not free before.
    pins: usize,
    /// What comes before it has to go as it goes when nobody else is at work.
    alone: bool,
    play: Play,
}

type Play = Box<dyn Fn(Segment, &Stage) + Send + Sync>;

fn tiny(size: usize) -> SegmentOptions {
    Segment::options().size(size).participants(4).channels(1)
}

/// Granules of 64 bytes only, and no magazines.
fn bare() -> SegmentOptions {
    tiny(160 << 10).sectors(1, 0, 0).magazines(0)
}

/// The same with magazines.
fn cached() -> SegmentOptions {
    tiny(160 << 10).sectors(1, 0, 0).magazines(6)
}

fn medium() -> SegmentOptions {
    tiny(320 << 10).sectors(0, 1, 0).magazines(0)
}

fn large() -> SegmentOptions {
    tiny(1 << 20).sectors(0, 0, 1).magazines(0)
}

/// Bytes of a granule in a segment with one sector.
fn granule(segment: &Segment) -> usize {
    sector(&segment.check()).granule
}

fn sector(report: &CheckReport) -> waterway::segment::SectorReport {
    *report.sectors.iter().find(|sector| sector.bytes > 0).unwrap()
}

/// Blocks of so many granules each. The first has the highest address.
fn row(allocator: &Allocator, granules: usize, blocks: usize) -> Vec<Option<RawBlock<'_>>> {
    (0..blocks).map(|_| allocator.allocate_raw(granules).ok()).collect()
}

/// Takes all but so many bytes, as far as that can be had in one piece.
fn take_all_but(allocator: &Allocator, bytes: usize) -> Option<RawBlock<'_>> {
    allocator.allocate_raw(allocator.available().saturating_sub(bytes)).ok()
}

/// A thread of the same participant comes, does something, and goes.
fn elsewhere(segment: &Segment, work: impl FnOnce(&Segment) + Send + 'static) {
    let segment = segment.clone();
    // Joined, and not scoped: what a thread leaves behind when it ends is there then.
    thread::spawn(move || work(&segment)).join().unwrap();
}

/// Does something up to the first of its points of which `enough` says so, and no further. Nobody dies of it, so there must
/// be no intent then.
fn break_off(mut enough: impl FnMut(usize) -> bool + 'static, work: impl FnOnce()) {
    let mut passed = 0;
    let each = move |_: Place| {
        passed += 1;
        if enough(passed) {
            resume_unwind(Box::new(Dead));
        }
    };
    mortal(|| waterway::watch_crash_points(each, work));
}

/// Frees a block of so many granules, with free neighbours or not.
fn free_beside(options: fn() -> SegmentOptions, granules: usize, left: bool, right: bool) -> Scenario {
    let name = match (left, right) {
        (false, false) => "free, alone",
        (true, false) => "free, merged with the left",
        (false, true) => "free, merged with the right",
        (true, true) => "free, merged with both",
    };
    let play = move |segment: Segment, stage: &Stage| {
        let allocator = segment.allocator();
        let bytes = granules * granule(&segment);
        let mut row = row(&allocator, bytes, 5);
        if right {
            row[1] = None;
        }
        if left {
            row[3] = None;
        }
        let block = row[2].take();
        stage.act(|| drop(block));
    };
    // While the right one is absorbed it is nobody else's.
    scenario(name, options, if right { granules } else { 0 }, play)
}

fn scenario(
    name: &'static str,
    options: fn() -> SegmentOptions,
    pins: usize,
    play: impl Fn(Segment, &Stage) + Send + Sync + 'static,
) -> Scenario {
    Scenario { name, options, pins, alone: false, play: Box::new(play) }
}

/// The same, with nobody else at work.
fn alone(scenario: Scenario) -> Scenario {
    Scenario { alone: true, ..scenario }
}

fn allocations() -> Vec<Scenario> {
    vec![
        scenario("allocate out of a magazine", cached, 1, |segment, stage| {
            let allocator = segment.allocator();
            drop(allocator.allocate_raw(60));
            stage.act(|| allocator.allocate_raw(60).ok());
        }),
        scenario("carve", bare, 47, |segment, stage| {
            let allocator = segment.allocator();
            stage.act(|| allocator.allocate_raw(3_000).ok());
        }),
        scenario("carve all but one granule", bare, 2_000, |segment, stage| {
            let allocator = segment.allocator();
            stage.act(|| take_all_but(&allocator, 64));
        }),
        scenario("allocate a free run of exactly that length", bare, 5, |segment, stage| {
            let allocator = segment.allocator();
            let mut row = row(&allocator, 5 * 64, 3);
            row[0] = None;
            stage.act(|| allocator.allocate_raw(5 * 64).ok());
        }),
        scenario("fill a magazine from a run, of short blocks", cached, 16, |segment, stage| {
            let allocator = segment.allocator();
            stage.act(|| allocator.allocate_raw(1).ok());
        }),
        scenario("fill a magazine from a run, of long blocks", cached, 2 * 64, |segment, stage| {
            let allocator = segment.allocator();
            stage.act(|| row(&allocator, 32 * 64, 3));
        }),
        scenario("allocate out of another's full magazine", cached, 6 * 32, |segment, stage| {
            let allocator = segment.allocator();
            elsewhere(&segment, |segment| drop(row(&segment.allocator(), 32 * 64, 8)));
            stage.act(|| row(&allocator, 32 * 64, 6));
        }),
        scenario("drain the caches", cached, 63, |segment, stage| {
            let allocator = segment.allocator();
            let _rest = take_all_but(&allocator, 5_000);
            drop(row(&allocator, 3 * 64, 6));
            elsewhere(&segment, |segment| drop(row(&segment.allocator(), 2 * 64, 6)));
            stage.act(|| allocator.allocate_raw(4_000).ok());
        }),
        alone(scenario("join free runs that nobody has joined", bare, 6, |segment, stage| {
            let allocator = segment.allocator();
            let mut row = row(&allocator, 3 * 64, 4);
            let (left, right) = (row[2].take(), row[1].take());
            let ((go, goes), (freed, is_freed)) = (channel(), channel());
            thread::scope(|scope| {
                scope.spawn(move || {
                    let left = goes.recv().map(|()| left);
                    drop(left);
                    let _ = freed.send(());
                });
                // The right one is about to be FREE when the left one looks at it, and does not get to look again.
                let enough = move |passed| {
                    if passed == 2 {
                        go.send(()).unwrap();
                        is_freed.recv().unwrap();
                    }
                    passed == 3
                };
                break_off(enough, || drop(right));
            });
            let _rest = take_all_but(&allocator, 6 * 64);
            stage.act(|| allocator.allocate_raw(6 * 64).ok());
        })),
    ]
}

fn frees() -> Vec<Scenario> {
    let mut frees = Vec::new();
    for (options, granules) in [(bare as fn() -> _, 1), (bare, 3), (medium, 2), (large, 1)] {
        for (left, right) in [(false, false), (true, false), (false, true), (true, true)] {
            frees.push(free_beside(options, granules, left, right));
        }
    }
    frees.push(scenario("free beside all that is free, on the right", bare, 2_000, |segment, stage| {
        let allocator = segment.allocator();
        let rest = take_all_but(&allocator, 64);
        let mut row = row(&allocator, 64, 1);
        drop(rest);
        stage.act(|| row.clear());
    }));
    frees.push(scenario("free into a magazine", cached, 0, |segment, stage| {
        let allocator = segment.allocator();
        let block = allocator.allocate_raw(7 * 64);
        stage.act(|| drop(block));
    }));
    frees.push(scenario("hand over full magazines, until there is none", cached, 0, |segment, stage| {
        let allocator = segment.allocator();
        let row = row(&allocator, 32 * 64, 26);
        stage.act(|| drop(row));
    }));
    frees
}

/// Granules of the largest step in which that one grows.
const GROWTH: usize = 4_096;

fn growing() -> SegmentOptions {
    bare().max_size(420 << 10)
}

fn growing_large() -> SegmentOptions {
    large().max_size(3 << 20)
}

fn mixed() -> SegmentOptions {
    tiny(1 << 20)
}

fn more() -> Vec<Scenario> {
    vec![
        scenario("grow", growing, GROWTH, |segment, stage| {
            let allocator = segment.allocator();
            let _rest = take_all_but(&allocator, 1_000);
            stage.act(|| allocator.allocate_raw(20_000).ok());
        }),
        scenario("grow by several steps, of long blocks", growing_large, 20, |segment, stage| {
            let allocator = segment.allocator();
            stage.act(|| allocator.allocate_raw(20 << 16).ok());
        }),
        alone(scenario("open up what somebody has grown", growing, GROWTH, |segment, stage| {
            let allocator = segment.allocator();
            let _rest = take_all_but(&allocator, 1_000);
            let before = sector(&segment.check()).bytes;
            let peer = stage.peer.clone();
            break_off(move |_| sector(&peer.check()).bytes > before, || drop(allocator.allocate_raw(20_000)));
            assert!(sector(&segment.check()).bytes > before);
            stage.act(|| allocator.allocate_raw(20_000).ok());
        })),
        scenario("carve in the medium sector", medium, 7, |segment, stage| {
            let allocator = segment.allocator();
            stage.act(|| allocator.allocate_raw(7_000).ok());
        }),
        scenario("carve in the large sector", large, 4, |segment, stage| {
            let allocator = segment.allocator();
            stage.act(|| allocator.allocate_raw(200_000).ok());
        }),
        scenario("take from a larger sector", mixed, usize::MAX, |segment, stage| {
            let allocator = segment.allocator();
            let mut small = Vec::new();
            while segment.check().sectors[0].largest_free > 2_048
                && let Ok(block) = allocator.allocate_raw(2_048)
            {
                small.push(block);
            }
            stage.act(|| row(&allocator, 2_048, 3));
        }),
        scenario("make a user's block and free it", cached, 72, |segment, stage| {
            let allocator = segment.allocator();
            stage.act(|| drop(allocator.allocate_copy(&[5; 300])));
        }),
        scenario("make a user's block and free it, without magazines", bare, 6, |segment, stage| {
            let allocator = segment.allocator();
            stage.act(|| drop(allocator.allocate_copy(&[5; 300])));
        }),
        scenario("write and read a user's block", bare, 0, |segment, stage| {
            let block = segment.allocator().resolve_bytes(stage.borrow()).unwrap();
            stage.act(|| {
                block.write().unwrap().fill(8);
                assert!(block.read().unwrap().iter().all(|byte| *byte == 8));
                block.set_state(50).unwrap();
                block.transition(50, 51).unwrap();
            });
        }),
        scenario("read a user's block for which a writer waits", bare, 0, |segment, stage| {
            let handle = stage.borrow();
            let (block, theirs) =
                (segment.allocator().resolve_bytes(handle), stage.peer.allocator().resolve_bytes(handle));
            let (block, theirs) = (block.unwrap(), theirs.unwrap());
            let guard = block.read().unwrap();
            // It has said that it waits, and has given up.
            theirs.write_timeout(Duration::from_nanos(1)).unwrap_err();
            stage.act(|| drop(guard));
        }),
        scenario("free another's block while it is read", bare, 0, |segment, stage| {
            let allocator = segment.allocator();
            let handle = stage.borrow();
            let block = allocator.resolve_bytes(handle).unwrap();
            stage.act(|| {
                let guard = block.read().unwrap();
                allocator.free(handle).unwrap();
                drop(guard);
            });
        }),
        scenario("adopt another's block and free it", bare, 0, |segment, stage| {
            let allocator = segment.allocator();
            let handle = stage.borrow();
            stage.act(|| drop(allocator.adopt::<[u8]>(handle).unwrap()));
        }),
        scenario("give a raw block away, and free it", cached, 1, |segment, stage| {
            let allocator = segment.allocator();
            let block = allocator.allocate_raw(60).unwrap();
            stage.act(|| allocator.free(block.into_handle()).unwrap());
        }),
        scenario("take another's loose block, and free it", cached, 0, |segment, stage| {
            let allocator = segment.allocator();
            drop(allocator.allocate_raw(300));
            let handle = stage.borrow_raw(300);
            stage.act(|| drop(allocator.take_raw(handle).unwrap()));
        }),
        scenario("free another's loose block", cached, 0, |segment, stage| {
            let allocator = segment.allocator();
            drop(allocator.allocate_raw(300));
            let handle = stage.borrow_raw(300);
            stage.act(|| allocator.free(handle).unwrap());
        }),
        scenario("take loose blocks, and give them away again, without magazines", bare, 0, |segment, stage| {
            let allocator = segment.allocator();
            let handles = [stage.borrow_raw(300), stage.borrow_raw(5_000)];
            stage.act(|| {
                let again = handles.map(|handle| allocator.take_raw(handle).unwrap().into_handle());
                again.map(|handle| allocator.free(handle).unwrap())
            });
        }),
        scenario("send and receive a message", cached, 80, |segment, stage| {
            let (sender, receiver) = segment.bytes("own").capacity(2).open().unwrap();
            stage.act(|| {
                sender.try_send(&[3; 500][..]).ok();
                receiver.try_recv().ok()
            });
        }),
        scenario("leave", cached, 2 * 32, |segment, stage| {
            {
                let allocator = segment.allocator();
                row(&allocator, 40 * 64, 2).into_iter().for_each(mem::forget);
                row(&allocator, 2 * 64, 3).into_iter().for_each(mem::forget);
                drop(row(&allocator, 32 * 64, 5));
                allocator.allocate_copy(&[1; 100]).unwrap().into_handle();
                allocator.allocate_raw(100).unwrap().into_handle();
                let block = allocator.resolve_bytes(stage.borrow()).unwrap();
                mem::forget(block.read().unwrap());
            }
            stage.act(|| drop(segment));
        }),
    ]
}

fn scenarios() -> Vec<Scenario> {
    [allocations(), frees(), more()].into_iter().flatten().collect()
}

// ---- Rounds ----

/// What a peer does while the victim plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// It holds blocks.
    Quiet,
    /// It works.
    Busy,
    /// It holds blocks. Before this point of the victim's it does something, and the victim goes on from there.
    Between(usize, Meanwhile),
}

/// What a peer does between two steps of the victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    /// It takes a granule.
    TakesOne,
    /// It takes all that is free.
    TakesAll,
    /// It takes all that is free, and frees it.
    MovesAll,
}

/// What becomes of a victim that stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It dies, and is buried by somebody who is there.
    Buried,
    /// It dies, and somebody comes who gets its place.
    Inherited,
    /// It dies, and who buries it dies at that point of its own.
    BuriedBy(usize),
    /// It dies, and who buries it stands still at that point of its own, while the peer moves all that is free; then it goes
    /// on.
    BuriedAround(usize),
}

/// What came of a round. The points that a thread has passed, if it came to its end; or else the last one.
struct Outcome {
    victim: Result<Vec<Place>, Place>,
    reaper: Option<Result<Vec<Place>, Place>>,
}

/// The peer's work: allocates, stamps, verifies, frees.
fn toil(peer: &Segment, pace: Pace, ready: &Sender<()>, over: &AtomicBool) {
    let allocator = peer.allocator();
    let unit = granule(peer);
    let make = |number: u64, len: usize| {
        let stamp = Stamp { sender: 5, number };
        allocator.allocate_raw(len.max(24)).ok().map(|mut block| {
            block.copy_from_slice(&stamp.message(len));
            (stamp, block)
        })
    };
    let verify = |made: Option<(Stamp, RawBlock<'_>)>| {
        if let Some((stamp, block)) = made {
            assert_eq!(Stamp::verify(&block), Some(stamp));
        }
    };
    let held = [make(0, unit), make(1, 3 * unit / 2)];
    ready.send(()).unwrap();
    let mut last = None;
    for number in 2.. {
        if over.load(Ordering::SeqCst) {
            break;
        }
        if pace == Pace::Busy {
            let next = make(number, [1, 5, 2, 40][number as usize % 4] * unit.min(1 << 10) * 3 / 4);
            thread::yield_now();
            verify(mem::replace(&mut last, next));
        } else {
            thread::park_timeout(PATIENCE);
        }
    }
    verify(last);
    held.into_iter().for_each(verify);
}

/// Ends the peer's work, however the round ends.
struct Over<'a>(&'a AtomicBool, thread::Thread);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
        self.1.unpark();
    }
}

/// Plays a scenario, with the victim standing still before its `at`-th point.
fn round(scenario: &Scenario, at: usize, pace: Pace, fate: Fate) -> Outcome {
    let participants = if fate == Fate::Inherited { 3 } else { 4 };
    let peer = (scenario.options)().participants(participants).anonymous().unwrap();
    let (victim, reaper) = (another(&peer), another(&peer));
    let (victims, reapers) = (Locks::of(&victim), Locks::of(&reaper));
    let what = || format!("{}, at {at}, {pace:?}, {fate:?}", scenario.name);
    let (over, (ready, is_ready)) = (AtomicBool::new(false), channel());
    let lent = Lent::default();
    thread::scope(|scope| {
        let toiling = scope.spawn({
            let (peer, over) = (&peer, &over);
            move || toil(peer, pace, &ready, over)
        });
        let over = Over(&over, toiling.thread().clone());
        is_ready.recv().unwrap();
        let first = if let Pace::Between(point, _) = pace { point } else { at };
        let (deed, line) = deed(&[first, at]);
        let stage = Stage { deed, peer: peer.clone(), lent: Lent::clone(&lent), had: Arc::default() };
        let playing = scope.spawn(move || mortal(|| (scenario.play)(victim, &stage)));
        let allocator = peer.allocator();
        let mut taken = Vec::new();
        let mut victim = line.next();
        if let (Pace::Between(_, meanwhile), Event::Stands(_)) = (pace, &victim) {
            let granule = granule(&peer);
            match meanwhile {
                Meanwhile::TakesOne => taken.extend(allocator.allocate_raw(granule).ok()),
                Meanwhile::TakesAll => taken = grab(&allocator, granule),
                Meanwhile::MovesAll => drop(grab(&allocator, granule)),
            }
            line.orders.send(()).unwrap();
            victim = line.next();
        }
        let victim = match victim {
            Event::Stands(place) => Err(place),
            Event::Done(passed) => Ok(passed),
        };
        let mut outcome = Outcome { victim, reaper: None };
        if outcome.victim.is_ok() {
            playing.join().unwrap();
            drop((over, taken));
            toiling.join().unwrap();
            judge(&peer, &lent, &what());
            return outcome;
        }
        victims.lose();
        let mut burying = None;
        let mut heir = None;
        match fate {
            Fate::Buried => reaper.bury_the_dead(),
            Fate::Inherited => heir = Some(another(&peer)),
            Fate::BuriedBy(at) | Fate::BuriedAround(at) => {
                let (deed, line) = self::deed(&[at]);
                let reaper = &reaper;
                let thread = scope.spawn(move || mortal(|| deed.act(|| reaper.bury_the_dead())));
                outcome.reaper = Some(match line.next() {
                    Event::Stands(place) if matches!(fate, Fate::BuriedAround(_)) => {
                        drop(grab(&allocator, granule(&peer)));
                        // Somebody is at it.
                        peer.bury_the_dead();
                        line.orders.send(()).unwrap();
                        line.next();
                        Err(place)
                    }
                    Event::Stands(place) => {
                        reapers.lose();
                        // The peer's own thread goes on with its work meanwhile.
                        peer.bury_the_dead();
                        Err(place)
                    }
                    Event::Done(passed) => Ok(passed),
                });
                burying = Some((thread, line));
            }
        }
        drop((over, taken));
        toiling.join().unwrap();
        // What somebody who was at work was in the way of.
        peer.bury_the_dead();
        judge(&peer, &lent, &what());
        drop(heir);
        // The dead may go.
        drop(line);
        playing.join().unwrap();
        if let Some((thread, line)) = burying {
            drop(line);
            thread.join().unwrap();
        }
        outcome
    })
}

fn held(report: &CheckReport) -> usize {
    report.sectors.iter().map(|sector| sector.allocated_blocks + sector.in_flight_blocks).sum()
}

/// Nobody is at work, and nobody has anything: all is well, nothing is lost, and it comes together to one piece.
fn judge(peer: &Segment, lent: &Lent, what: &str) {
    let allocator = peer.allocator();
    for handle in lent.lock().unwrap().drain(..) {
        // Somebody else may have done so.
        let _ = allocator.free(handle);
    }
    let report = peer.check();
    assert!(report.is_clean(), "{what}: {report:?}");
    assert_eq!(held(&report), 0, "{what}: {report:?}");
    assert!(peer.channels().is_empty(), "{what}");
    for sector in &report.sectors {
        assert_eq!(sector.free_bytes + sector.cached_bytes, sector.bytes, "{what}: {report:?}");
    }
    // A request that the small sector could serve goes to a larger one if there is one.
    let sectors = report.sectors.iter().filter(|sector| sector.bytes > 0);
    let whole = sectors.clone().filter(|sector| sector.granule > 64 || sectors.clone().count() == 1);
    let all: Vec<RawBlock<'_>> = whole
        .clone()
        .rev()
        .map(|sector| allocator.allocate_raw(sector.bytes))
        .collect::<Result<_, _>>()
        .unwrap_or_else(|error| panic!("{what}: not in one piece: {error}: {:?}", peer.check()));
    drop(all);
    let healed = peer.check();
    assert!(healed.is_clean(), "{what}: {healed:?}");
    for sector in whole {
        let now = healed.sectors.iter().find(|now| now.granule == sector.granule).unwrap();
        assert_eq!((now.free_runs, now.largest_free), (1, sector.bytes), "{what}: {healed:?}");
    }
}

/// Places of the allocator among those that were passed.
fn of_the_allocator(places: &BTreeSet<Place>) -> BTreeSet<String> {
    places.iter().filter(|place| place.file().starts_with("src/alloc/")).map(|place| name_of(place)).collect()
}

fn name_of(place: Place) -> String {
    format!("{}:{}:{}", place.file(), place.line(), place.column())
}

/// How many points a scenario has if nobody is in the way.
fn points(scenario: &Scenario) -> Vec<Place> {
    let passed = round(scenario, usize::MAX, Pace::Quiet, Fate::Buried).victim.unwrap_or_else(|_| unreachable!());
    assert!(!passed.is_empty(), "{}: nothing happens", scenario.name);
    passed
}

#[test]
fn who_works_may_die_at_every_access() {
    waterway::without_bridges();
    let started = Instant::now();
    let (mut passed, mut died, mut deaths) = (BTreeSet::new(), BTreeSet::new(), 0);
    for scenario in scenarios() {
        let points = points(&scenario);
        passed.extend(points.iter().copied());
        let mut met = [0; 3];
        let ways = [(Pace::Quiet, Fate::Buried), (Pace::Busy, Fate::Buried), (Pace::Quiet, Fate::Inherited)];
        for ((pace, fate), met) in ways.into_iter().zip(&mut met) {
            if scenario.alone && pace == Pace::Busy {
                continue;
            }
            for at in 1.. {
                match round(&scenario, at, pace, fate).victim {
                    Err(place) => {
                        died.insert(place);
                        *met += 1;
                    }
                    Ok(places) => {
                        // Beside a peer that works it may take a shorter way this time.
                        if pace == Pace::Quiet || at > points.len() {
                            assert!(pace == Pace::Busy || places.len() + 1 == at, "{}: never the same", scenario.name);
                            break;
                        }
                    }
                }
            }
            assert!(*met > 0, "{}", scenario.name);
        }
        deaths += met.iter().sum::<usize>();
        println!("{}: {} points; died {met:?} times", scenario.name, points.len());
    }
    let (passed, died) = (of_the_allocator(&passed), of_the_allocator(&died));
    println!("{deaths} deaths, in {} places of the allocator, in {:?}", died.len(), started.elapsed());
    let missed: Vec<_> = passed.difference(&died).collect();
    assert!(missed.is_empty(), "never died at {missed:?}");
}

/// All of a few points, or else some that are spread evenly over them.
fn spread(points: usize) -> impl Iterator<Item = usize> {
    let steps = if points <= FEW { points } else { SOME };
    (0..steps).map(move |step| 1 + step * points / steps)
}

#[test]
fn who_buries_may_die_at_every_access() {
    waterway::without_bridges();
    let started = Instant::now();
    let (mut passed, mut died, mut deaths) = (BTreeSet::new(), BTreeSet::new(), 0);
    for scenario in scenarios() {
        let points = points(&scenario).len();
        let graves: Vec<usize> = spread(points).collect();
        let (mut met, mut most) = (0, 0);
        for (number, at) in graves.iter().enumerate() {
            let pace = if number % 2 == 0 || scenario.alone { Pace::Quiet } else { Pace::Busy };
            for own in 1.. {
                match round(&scenario, *at, pace, Fate::BuriedBy(own)).reaper {
                    Some(Err(place)) => {
                        died.insert(place);
                        met += 1;
                        most = most.max(own);
                    }
                    Some(Ok(places)) => {
                        // What it passes when somebody else is at work, it need not pass again.
                        if pace == Pace::Quiet {
                            passed.extend(places);
                        }
                        break;
                    }
                    // The victim took a shorter way.
                    None => {}
                }
            }
        }
        assert!(met > 0, "{}", scenario.name);
        deaths += met;
        println!("{}: {} graves of {points}; reapers died {met} times, at {most} points", scenario.name, graves.len());
    }
    let (passed, died) = (of_the_allocator(&passed), of_the_allocator(&died));
    println!("{deaths} deaths of reapers, in {} places of the allocator, in {:?}", died.len(), started.elapsed());
    let missed: Vec<_> = passed.difference(&died).collect();
    assert!(missed.is_empty(), "never died at {missed:?}");
}

#[test]
fn who_buries_may_stand_still_at_every_access() {
    waterway::without_bridges();
    let (started, mut stops) = (Instant::now(), 0);
    for scenario in scenarios() {
        let points = points(&scenario).len();
        for at in spread(points).step_by(STRIDE) {
            let stands = |own: &usize| {
                round(&scenario, at, Pace::Quiet, Fate::BuriedAround(*own)).reaper.is_some_and(|end| end.is_err())
            };
            stops += (1..).take_while(stands).count();
        }
    }
    println!("{stops} stops of reapers, in {:?}", started.elapsed());
    assert!(stops > 0);
}

/// All that can be had, in single granules, each with its number.
fn grab(allocator: &Allocator, granule: usize) -> Vec<RawBlock<'_>> {
    let take = |number: u64| {
        let mut block = allocator.allocate_raw(granule).ok()?;
        block[..8].copy_from_slice(&number.to_le_bytes());
        Some(block)
    };
    (0..).map_while(take).collect()
}

#[test]
fn who_stands_still_at_any_access_keeps_no_more_than_what_it_works_on() {
    waterway::without_bridges();
    let started = Instant::now();
    let (mut stops, mut stopped) = (0, BTreeSet::new());
    // Granules of one length can be counted.
    for scenario in scenarios().into_iter().filter(|scenario| scenario.pins < usize::MAX) {
        let mut pinned = Vec::new();
        for at in 1.. {
            let peer = (scenario.options)().anonymous().unwrap();
            let victim = another(&peer);
            let lent = Lent::default();
            let (deed, line) = deed(&[at]);
            let had = Arc::default();
            let stage = Stage { deed, peer: peer.clone(), lent: Lent::clone(&lent), had: Arc::clone(&had) };
            let what = format!("{}, standing still at {at}", scenario.name);
            let over = thread::scope(|scope| {
                let playing = scope.spawn(|| mortal(|| (scenario.play)(victim, &stage)));
                let Event::Stands(place) = line.next() else { return true };
                stopped.insert(place);
                let allocator = peer.allocator();
                let granule = granule(&peer);
                let grabbed = grab(&allocator, granule);
                let all = peer.stats().sectors.iter().map(|sector| sector.bytes / granule).sum::<usize>();
                pinned.push((all - grabbed.len()).saturating_sub(had.load(Ordering::SeqCst)));
                line.orders.send(()).unwrap();
                assert!(matches!(line.next(), Event::Done(_)), "{what}");
                playing.join().unwrap();
                for (number, block) in grabbed.iter().enumerate() {
                    assert_eq!(block[..8], (number as u64).to_le_bytes(), "{what}");
                }
                false
            });
            judge(&peer, &lent, &what);
            if over {
                break;
            }
        }
        stops += pinned.len();
        let most = pinned.iter().copied().max().expect("nothing happens");
        println!("{}: stood still at {} points, with {most} granules at most", scenario.name, pinned.len());
        assert!(most <= scenario.pins, "{}: {most} granules were not to be had", scenario.name);
    }
    println!("{stops} stops, in {} places, in {:?}", stopped.len(), started.elapsed());
}

#[test]
fn who_was_disturbed_may_die_at_every_access_that_follows() {
    waterway::without_bridges();
    let started = Instant::now();
    let (mut died, mut deaths) = (BTreeSet::new(), 0);
    for scenario in scenarios() {
        let points = points(&scenario).len();
        let mut met = 0;
        for meanwhile in [Meanwhile::TakesOne, Meanwhile::TakesAll, Meanwhile::MovesAll] {
            for between in spread(points) {
                for at in between + 1.. {
                    match round(&scenario, at, Pace::Between(between, meanwhile), Fate::Buried).victim {
                        Err(place) => {
                            died.insert(place);
                            met += 1;
                        }
                        Ok(_) => break,
                    }
                }
            }
        }
        assert!(met > 0, "{}", scenario.name);
        deaths += met;
        println!("{}: {points} points; disturbed, and died {met} times", scenario.name);
    }
    let died = of_the_allocator(&died);
    println!(
        "{deaths} deaths after something else, in {} places of the allocator, in {:?}",
        died.len(),
        started.elapsed()
    );
}
