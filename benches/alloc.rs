//! Allocating and freeing, side by side: Waterway's memory, other allocators, and another one for shared memory.
//!
//! `cargo bench --bench alloc [-- part of a workload's or an allocator's name …]`
//!
//! Prints a table of medians of five rounds, in which all allocators take turns. Only what succeeds is counted. The first
//! byte of every block is written, and read again before the block is freed.
//!
//! | workload | |
//! |---|---|
//! | endurance | 0 to 511 bytes, at most 200 per thread; dice allocate with 70 %, or else free one, whichever |
//! | 64 B | the oldest of 100 is freed, and another one is allocated |
//! | 4–256 KiB | as endurance, with at most 50 |
//! | nearly full | 16 MiB of blocks as in endurance, of which 5 % are free |
//! | threads | allocated by one thread on one core, freed by another on another core |
//! | processes | the same, between processes; the other process is this program again. Freeing what others have guards of looks at a word of every lane, hence also with a segment for 4 processes, which has few. Raw blocks are taken, read and freed, or freed by their handles, with a look at every 64th |
//!
//! *Core* is Waterway without magazines; *rlsf* is for one thread, and so measured with one only. Allocators without a pool get no segment of 16 MiB, but have 14 MiB in blocks when
//! they are nearly full. The `atomic-matrix` crate works in a child, where it may crash; for it, *processes* are not measured.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::UnsafeCell,
    collections::VecDeque,
    io::Read,
    marker::PhantomData,
    mem::{ManuallyDrop, MaybeUninit},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    ptr::NonNull,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use atomic_matrix::prelude::{AtomicMatrix, BlockHeader, HEADER_SPACE, HandlerFunctions, MatrixHandler, RelativePtr};
use mimalloc::MiMalloc;
use rlsf::Tlsf;
use waterway::{
    Segment,
    blocks::{Allocator, Handle, RawBlock},
};

const ROLE: &str = "WATERWAY_BENCH_ALLOC";
const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_millis(220);
/// As many as may be in a segment unless told otherwise.
const PARTICIPANTS: u32 = 256;
const POOL: usize = 16 << 20;
const LARGE_POOL: usize = 64 << 20;
/// What the largest number of bytes in blocks is, whatever the pool.
const MOST: usize = 14 << 20;
/// Operations between two looks at the clock.
const BURST: usize = 64;

// ---- The allocators ----

trait Memory: Sync {
    type Block: Send;

    fn allocate(&self, len: usize) -> Option<Self::Block>;
    fn write(&self, block: &mut Self::Block, byte: u8);
    fn read(&self, block: &Self::Block) -> u8;
    fn free(&self, block: Self::Block);
}

/// For as long as the process lives, so that its blocks are bound to nothing.
type Ours = &'static Allocator;

fn ours(segment: Segment) -> Ours {
    Box::leak(Box::new(segment.allocator()))
}

impl Memory for Ours {
    /// Freed by hand, as the others' blocks are.
    type Block = ManuallyDrop<RawBlock<'static>>;

    #[inline(always)]
    fn allocate(&self, len: usize) -> Option<Self::Block> {
        self.allocate_raw(len).ok().map(ManuallyDrop::new)
    }

    fn write(&self, block: &mut Self::Block, byte: u8) {
        block[0] = byte;
    }

    fn read(&self, block: &Self::Block) -> u8 {
        block[0]
    }

    #[inline(always)]
    fn free(&self, block: Self::Block) {
        drop(ManuallyDrop::into_inner(block));
    }
}

/// A block of one that wants to know its layout.
struct Plain(NonNull<u8>, Layout);

// SAFETY: a block is used by one thread at a time, and these allocators let any thread free it.
unsafe impl Send for Plain {}

impl Plain {
    fn write(&mut self, byte: u8) {
        // SAFETY: at least one byte, and ours.
        unsafe { self.0.write_volatile(byte) };
    }

    fn read(&self) -> u8 {
        // SAFETY: as above, and it was written.
        unsafe { self.0.read_volatile() }
    }
}

fn layout(len: usize) -> Layout {
    Layout::from_size_align(len, 8).unwrap()
}

struct Global<A>(A);

impl<A: GlobalAlloc + Sync> Memory for Global<A> {
    type Block = Plain;

    fn allocate(&self, len: usize) -> Option<Plain> {
        // SAFETY: the length is not 0.
        NonNull::new(unsafe { self.0.alloc(layout(len)) }).map(|start| Plain(start, layout(len)))
    }

    fn write(&self, block: &mut Plain, byte: u8) {
        block.write(byte);
    }

    fn read(&self, block: &Plain) -> u8 {
        block.read()
    }

    fn free(&self, block: Plain) {
        // SAFETY: it was allocated here, with this layout.
        unsafe { self.0.dealloc(block.0.as_ptr(), block.1) };
    }
}

type Pool = Tlsf<'static, u32, u32, 28, 32>;

/// A pool for as long as the program runs; there are two of each kind.
fn pool(bytes: usize) -> Pool {
    let mut tlsf = Tlsf::new();
    tlsf.insert_free_block(Box::leak(vec![MaybeUninit::new(0); bytes].into_boxed_slice()));
    tlsf
}

/// As it is: for one thread.
struct Alone(UnsafeCell<Pool>);

// SAFETY: only measured where one thread works; see `suits`.
unsafe impl Sync for Alone {}

impl Memory for Alone {
    type Block = Plain;

    fn allocate(&self, len: usize) -> Option<Plain> {
        // SAFETY: nobody else has a reference: one thread, and one operation at a time.
        unsafe { &mut *self.0.get() }.allocate(layout(len)).map(|start| Plain(start, layout(len)))
    }

    fn write(&self, block: &mut Plain, byte: u8) {
        block.write(byte);
    }

    fn read(&self, block: &Plain) -> u8 {
        block.read()
    }

    fn free(&self, block: Plain) {
        // SAFETY: as above; it was allocated here, with this alignment.
        unsafe { (*self.0.get()).deallocate(block.0, block.1.align()) };
    }
}

/// Whether an allocator may be used so.
fn suits(column: &str, workload: Workload) -> bool {
    column != "rlsf" || !matches!(workload, Workload::Endurance(2..) | Workload::Threads)
}

struct Rlsf(Mutex<Pool>);

impl Memory for Rlsf {
    type Block = Plain;

    fn allocate(&self, len: usize) -> Option<Plain> {
        self.0.lock().unwrap().allocate(layout(len)).map(|start| Plain(start, layout(len)))
    }

    fn write(&self, block: &mut Plain, byte: u8) {
        block.write(byte);
    }

    fn read(&self, block: &Plain) -> u8 {
        block.read()
    }

    fn free(&self, block: Plain) {
        // SAFETY: it was allocated here, with this alignment.
        unsafe { self.0.lock().unwrap().deallocate(block.0, block.1.align()) };
    }
}

struct Matrix(MatrixHandler);

impl Memory for Matrix {
    type Block = u32;

    fn allocate(&self, len: usize) -> Option<u32> {
        self.0.matrix().allocate(self.0.base_ptr(), len as u32).ok().map(|start| start.offset())
    }

    fn write(&self, block: &mut u32, byte: u8) {
        // SAFETY: as the crate has it, the block is ours.
        unsafe { self.0.base_ptr().add(*block as usize).cast_mut().write_volatile(byte) };
    }

    fn read(&self, block: &u32) -> u8 {
        // SAFETY: as above.
        unsafe { self.0.base_ptr().add(*block as usize).read_volatile() }
    }

    fn free(&self, block: u32) {
        self.0.matrix().ack(&RelativePtr::<BlockHeader>::new(block - HEADER_SPACE), self.0.base_ptr());
    }
}

// ---- The workloads ----

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Workload {
    Endurance(usize),
    Fixed,
    Large,
    NearlyFull,
    Threads,
    Processes,
}

const WORKLOADS: [(&str, Workload); 8] = [
    ("endurance, 1 thread", Workload::Endurance(1)),
    ("endurance, 2 threads", Workload::Endurance(2)),
    ("endurance, 8 threads", Workload::Endurance(8)),
    ("64 B", Workload::Fixed),
    ("4–256 KiB", Workload::Large),
    ("nearly full", Workload::NearlyFull),
    ("threads, 64 B, blocks", Workload::Threads),
    ("processes, 64 B, blocks", Workload::Processes),
];

/// What was done in a round.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    done: u64,
    seconds: f64,
    /// Allocations that failed.
    failed: u64,
    /// Blocks whose first byte was changed by somebody else.
    damaged: u64,
}

impl Outcome {
    fn rate(self) -> f64 {
        self.done as f64 / self.seconds / 1e6
    }

    fn and(self, other: Self) -> Self {
        Self {
            done: self.done + other.done,
            seconds: self.seconds.max(other.seconds),
            failed: self.failed + other.failed,
            damaged: self.damaged + other.damaged,
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) * bound as u64) >> 32) as usize
    }
}

/// A thread at work: what it has, and what it has done.
struct Hands<'a, M: Memory> {
    memory: &'a M,
    live: VecDeque<(M::Block, u8)>,
    outcome: Outcome,
}

impl<'a, M: Memory> Hands<'a, M> {
    fn new(memory: &'a M) -> Self {
        Self { memory, live: VecDeque::with_capacity(1024), outcome: Outcome::default() }
    }

    fn allocate(&mut self, len: usize) -> bool {
        let Some(mut block) = self.memory.allocate(len) else {
            self.outcome.failed += 1;
            return false;
        };
        let byte = self.outcome.done as u8;
        self.memory.write(&mut block, byte);
        self.live.push_back((block, byte));
        self.outcome.done += 1;
        true
    }

    fn free(&mut self, taken: Option<(M::Block, u8)>) {
        if let Some((block, byte)) = taken {
            self.outcome.damaged += u64::from(self.memory.read(&block) != byte);
            self.memory.free(block);
            self.outcome.done += 1;
        }
    }

    fn free_any(&mut self, random: &mut Random) {
        if !self.live.is_empty() {
            let taken = self.live.swap_remove_back(random.below(self.live.len()));
            self.free(taken);
        }
    }

    /// Does something again and again for that time, and frees what is left.
    fn repeat(mut self, time: Duration, mut step: impl FnMut(&mut Self)) -> Outcome {
        let (started, before) = (Instant::now(), self.outcome.done);
        while started.elapsed() < time {
            for _ in 0..BURST {
                step(&mut self);
            }
        }
        let (done, seconds) = (self.outcome.done - before, started.elapsed().as_secs_f64());
        while let Some(taken) = self.live.pop_front() {
            self.free(Some(taken));
        }
        Outcome { done, seconds, ..self.outcome }
    }
}

fn run<M: Memory>(memory: &M, workload: Workload, time: Duration) -> Outcome {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    match workload {
        Workload::Endurance(threads) => std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads as u64)
                .map(|thread| {
                    scope.spawn(move || {
                        if threads > 1 {
                            pin(thread as usize % 2);
                        }
                        dice(memory, time, Random((thread + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)), 200, 0..512)
                    })
                })
                .collect();
            threads.into_iter().fold(Outcome::default(), |all, thread| all.and(thread.join().unwrap()))
        }),
        Workload::Large => dice(memory, time, random, 50, 4096..(256 << 10) + 1),
        Workload::Fixed => {
            let mut hands = Hands::new(memory);
            (0..100).for_each(|_| {
                hands.allocate(64);
            });
            hands.repeat(time, |hands| {
                let oldest = hands.live.pop_front();
                hands.free(oldest);
                hands.allocate(64);
            })
        }
        Workload::NearlyFull => {
            let mut hands = Hands::new(memory);
            let mut bytes = 0;
            while bytes < MOST {
                let len = random.below(512).max(1);
                bytes += len;
                if !hands.allocate(len) {
                    break;
                }
            }
            let full = hands.live.len() * 95 / 100;
            while hands.live.len() > full {
                hands.free_any(&mut random);
            }
            hands.outcome.failed = 0;
            hands.repeat(time, |hands| {
                if hands.live.len() >= full || !hands.allocate(random.below(512).max(1)) {
                    hands.free_any(&mut random);
                }
            })
        }
        Workload::Threads | Workload::Processes => hand_over(memory, time),
    }
}

fn dice<M: Memory>(
    memory: &M,
    time: Duration,
    mut random: Random,
    most: usize,
    lengths: std::ops::Range<usize>,
) -> Outcome {
    Hands::new(memory).repeat(time, |hands| {
        if random.below(10) < 7 && hands.live.len() < most {
            hands.allocate((lengths.start + random.below(lengths.len())).max(1));
        } else {
            hands.free_any(&mut random);
        }
    })
}

/// Asks for a core; if there is only one, so be it.
fn pin(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

/// Waits a little. Who sleeps is not made to wait for long on a busy machine, other than who yields.
fn pause(turn: &mut u32) {
    *turn += 1;
    if turn.is_multiple_of(256) {
        std::thread::sleep(Duration::from_micros(20));
    } else {
        std::hint::spin_loop();
    }
}

fn hand_over<M: Memory>(memory: &M, time: Duration) -> Outcome {
    let ring = Ring::new(Backing::Here(vec![0; Ring::<M::Block>::BYTES / 8]));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            pin(0);
            let (mut pusher, mut failed, mut turn) = (ring.pusher(), 0, 0);
            for number in 0_u64.. {
                let mut block = loop {
                    match memory.allocate(64) {
                        Some(block) => break block,
                        None if stop.load(Ordering::Relaxed) => return failed,
                        None => failed += 1,
                    }
                    pause(&mut turn);
                };
                memory.write(&mut block, number as u8);
                while let Err(back) = pusher.push(block) {
                    if stop.load(Ordering::Relaxed) {
                        memory.free(back);
                        return failed;
                    }
                    block = back;
                    pause(&mut turn);
                }
            }
            failed
        });
        let consumer = scope.spawn(|| {
            pin(1);
            let (mut popper, mut outcome, mut turn) = (ring.popper(), Outcome::default(), 0);
            let started = Instant::now();
            while started.elapsed() < time {
                for _ in 0..BURST {
                    if let Some(block) = popper.pop() {
                        outcome.damaged += u64::from(memory.read(&block) != outcome.done as u8);
                        memory.free(block);
                        outcome.done += 1;
                    } else {
                        pause(&mut turn);
                    }
                }
            }
            outcome.seconds = started.elapsed().as_secs_f64();
            stop.store(true, Ordering::Relaxed);
            outcome
        });
        let outcome = consumer.join().unwrap();
        let failed = producer.join().unwrap();
        let mut left = ring.popper();
        while let Some(block) = left.pop() {
            memory.free(block);
        }
        Outcome { failed, ..outcome }
    })
}

/// Where a ring stands.
enum Backing {
    Here(Vec<u64>),
    Shared(memmap2::MmapRaw),
}

/// A ring from one thread to one other: two counts, and the items.
struct Ring<T> {
    base: *mut u8,
    _backing: Backing,
    items: PhantomData<T>,
}

// SAFETY: one thread pushes and one pops; what is between the counts belongs to the one who pops, the rest to the other.
unsafe impl<T: Send> Sync for Ring<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T> Ring<T> {
    const ITEMS: u64 = 4096;
    const BYTES: usize = 256 + Self::ITEMS as usize * size_of::<T>();

    fn new(mut backing: Backing) -> Self {
        assert!(align_of::<T>() <= 8);
        let (base, bytes) = match &mut backing {
            Backing::Here(words) => (words.as_mut_ptr().cast(), words.len() * 8),
            Backing::Shared(map) => (map.as_mut_ptr(), map.len()),
        };
        assert!(bytes + 8 > Self::BYTES);
        Self { base, _backing: backing, items: PhantomData }
    }

    /// The count of what was pushed, or of what was popped.
    fn count(&self, at: usize) -> &AtomicU64 {
        // SAFETY: within the memory, aligned, and only ever used so.
        unsafe { &*self.base.add(at).cast() }
    }

    fn slot(&self, number: u64) -> *mut T {
        // SAFETY: within the memory.
        unsafe { self.base.add(256).cast::<T>().add((number % Self::ITEMS) as usize) }
    }

    /// For one thread at a time.
    fn pusher(&self) -> Pusher<'_, T> {
        Pusher(self.end(0, 128))
    }

    /// For one thread at a time.
    fn popper(&self) -> Popper<'_, T> {
        Popper(self.end(128, 0))
    }

    fn end(&self, own: usize, other: usize) -> End<'_, T> {
        let (own, other) = (self.count(own), self.count(other));
        End { ring: self, own, other, count: own.load(Ordering::Acquire), seen: other.load(Ordering::Acquire) }
    }
}

/// What a thread needs that pushes, or pops.
struct End<'a, T> {
    ring: &'a Ring<T>,
    own: &'a AtomicU64,
    other: &'a AtomicU64,
    count: u64,
    /// What the other's count was when it mattered last: it only rises.
    seen: u64,
}

impl<T> End<'_, T> {
    /// Whether the other's count is this one.
    #[inline(always)]
    fn is_at(&mut self, count: u64) -> bool {
        if self.seen == count {
            self.seen = self.other.load(Ordering::Acquire);
        }
        self.seen == count
    }

    #[inline(always)]
    fn publish(&mut self) {
        self.count += 1;
        self.own.store(self.count, Ordering::Release);
    }
}

struct Pusher<'a, T>(End<'a, T>);

impl<T> Pusher<'_, T> {
    #[inline(always)]
    fn push(&mut self, item: T) -> Result<(), T> {
        let end = &mut self.0;
        if end.is_at(end.count.wrapping_sub(Ring::<T>::ITEMS)) {
            return Err(item);
        }
        // SAFETY: the slot is ours until the count says otherwise.
        unsafe { end.ring.slot(end.count).write_unaligned(item) };
        end.publish();
        Ok(())
    }
}

struct Popper<'a, T>(End<'a, T>);

impl<T> Popper<'_, T> {
    #[inline(always)]
    fn pop(&mut self) -> Option<T> {
        let end = &mut self.0;
        if end.is_at(end.count) {
            return None;
        }
        // SAFETY: it was pushed, and is ours until the count says otherwise.
        let item = unsafe { end.ring.slot(end.count).read_unaligned() };
        end.publish();
        Some(item)
    }
}

// ---- Other processes ----

/// A directory of this run's own, gone when it ends.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let base = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
        let path = base.join(format!("waterway-bench-alloc-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// This program again, to play another role; killed with its handle.
struct Peer(Child);

impl Peer {
    fn start(role: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(ROLE, role).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A segment for two processes; the one who makes it says how many there may be.
fn shared_segment(place: &Path, participants: u32) -> Segment {
    let options = Segment::options().dir(place).size(POOL).sectors(1, 0, 0);
    options.participants(participants).open_or_create("hand-over").unwrap()
}

fn shared_ring(place: &Path) -> Ring<Handle> {
    let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(place.join("ring"));
    let file = file.unwrap();
    file.set_len(Ring::<Handle>::BYTES.next_multiple_of(4096) as u64).unwrap();
    Ring::new(Backing::Shared(memmap2::MmapRaw::map_raw(&file).unwrap()))
}

fn play(role: &str) {
    // SAFETY: plain system calls: we do not outlive the first process, and leave nothing behind when we crash.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 });
    }
    let words: Vec<_> = role.split('\n').collect();
    match words[..] {
        ["matrix", name, time, id] => {
            let workload = WORKLOADS.iter().find(|(known, _)| *known == name).unwrap().1;
            let bytes = if workload == Workload::Large { LARGE_POOL } else { POOL };
            let memory = Matrix(AtomicMatrix::bootstrap(Some(id.into()), bytes).unwrap());
            let Outcome { done, seconds, failed, damaged } =
                run(&memory, workload, Duration::from_micros(time.parse().unwrap()));
            println!("{done} {seconds} {failed} {damaged}");
        }
        ["bytes", place] => {
            pin(0);
            let sender = shared_segment(place.as_ref(), PARTICIPANTS).bytes("bytes").capacity(1024).sender().unwrap();
            (0_u64..).map(|number| [number as u8; 64]).take_while(|bytes| sender.blocking_send(bytes).is_ok()).count();
        }
        ["handles", place] => {
            give_over(place.as_ref(), |allocator, byte| allocator.allocate_copy(&[byte; 64]).unwrap().into_handle());
        }
        ["raw" | "raw unread", place] => give_over(place.as_ref(), |allocator, byte| {
            let mut block = allocator.allocate_raw(64).unwrap();
            block.fill(byte);
            block.into_handle()
        }),
        _ => panic!("{role}?"),
    }
}

/// Hands over the handles of blocks that are filled with their numbers, until it is killed.
fn give_over(place: &Path, make: impl Fn(&Allocator, u8) -> Handle) {
    pin(0);
    let (allocator, ring) = (shared_segment(place, PARTICIPANTS).allocator(), shared_ring(place));
    let (mut pusher, mut turn) = (ring.pusher(), 0);
    for number in 0_u64.. {
        let mut handle = make(&allocator, number as u8);
        while let Err(back) = pusher.push(handle) {
            handle = back;
            pause(&mut turn);
        }
    }
}

/// Takes for that time what a peer allocates: as messages, or by their handles.
fn take_over(kind: &str, participants: u32, time: Duration) -> Outcome {
    let place = Place::new();
    let segment = shared_segment(&place.0, participants);
    let receiver = segment.bytes("bytes").capacity(1024).receiver().unwrap();
    let (ring, allocator) = (shared_ring(&place.0), segment.allocator());
    let _peer = Peer::start(&format!("{kind}\n{}", place.0.display()));
    std::thread::scope(|scope| {
        let taker = scope.spawn(|| {
            pin(1);
            let (mut popper, mut turn) = (ring.popper(), 0);
            let mut next = || loop {
                match popper.pop() {
                    Some(handle) => break handle,
                    None => pause(&mut turn),
                }
            };
            match kind {
                "bytes" => repeat(time, |byte| receiver.blocking_recv().unwrap()[0] == byte),
                "raw" => repeat(time, |byte| allocator.take_raw(next()).unwrap()[0] == byte),
                "raw unread" => repeat(time, |byte| match next() {
                    handle if byte % 64 == 0 => allocator.take_raw(handle).unwrap()[0] == byte,
                    handle => allocator.free(handle).is_ok(),
                }),
                _ => repeat(time, |byte| {
                    let handle = next();
                    // A look through the handle takes longer than freeing does: now and then.
                    let is_whole = byte % 64 > 0 || allocator.resolve_bytes(handle).unwrap().read().unwrap()[0] == byte;
                    allocator.free(handle).unwrap();
                    is_whole
                }),
            }
        });
        taker.join().unwrap()
    })
}

/// Takes blocks for that time, each with the byte that should be in it; `take` says whether it is.
fn repeat(time: Duration, mut take: impl FnMut(u8) -> bool) -> Outcome {
    let (mut number, mut damaged) = (0_u64, 0);
    let mut burst = |count: u64| {
        for _ in 0..count {
            damaged += u64::from(!take(number as u8));
            number += 1;
        }
    };
    // The first ones: until the peer is there.
    burst(8192);
    let (started, mut done) = (Instant::now(), 0);
    while started.elapsed() < time {
        burst(BURST as u64);
        done += BURST as u64;
    }
    Outcome { done, seconds: started.elapsed().as_secs_f64(), failed: 0, damaged }
}

/// A round of the other crate, in a child that may crash or hang.
fn matrix(name: &str, time: Duration) -> Result<Outcome, String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let id = format!("waterway-bench-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut peer = Peer::start(&format!("matrix\n{name}\n{}\n{id}", time.as_micros()));
    let until = Instant::now() + time + Duration::from_secs(2);
    let status = loop {
        match peer.0.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if Instant::now() > until => break None,
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let _ = std::fs::remove_file(format!("/dev/shm/matrix-{id}"));
    let status = status.ok_or("hangs")?;
    if let Some(signal) = status.signal() {
        return Err(match signal {
            libc::SIGSEGV => "SIGSEGV".into(),
            libc::SIGBUS => "SIGBUS".into(),
            libc::SIGABRT => "SIGABRT".into(),
            signal => format!("signal {signal}"),
        });
    }
    let mut said = String::new();
    peer.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    let values: Vec<_> = said.split_whitespace().collect();
    let [done, seconds, failed, damaged] = values[..] else { return Err("panics".into()) };
    Ok(Outcome {
        done: done.parse().unwrap(),
        seconds: seconds.parse().unwrap(),
        failed: failed.parse().unwrap(),
        damaged: damaged.parse().unwrap(),
    })
}

// ---- The table ----

type Round = Box<dyn Fn(&str, Workload, Duration) -> Result<Outcome, String>>;

/// An allocator with its pools.
fn rounds<M: Memory + 'static>(make: impl Fn(usize) -> M + 'static) -> Round {
    let pools = [make(POOL), make(LARGE_POOL)];
    Box::new(move |_, workload, time| Ok(run(&pools[usize::from(workload == Workload::Large)], workload, time)))
}

fn contenders(place: PathBuf) -> Vec<(&'static str, Round)> {
    let options = |bytes| {
        let options = Segment::options().size(bytes);
        if bytes == POOL { options.sectors(1, 0, 0) } else { options }
    };
    vec![
        ("in process", rounds(move |bytes| ours(options(bytes).in_process().unwrap()))),
        ("named", rounds(move |bytes| ours(options(bytes).dir(&place).create(&format!("pool-{bytes}")).unwrap()))),
        ("core", rounds(move |bytes| ours(options(bytes).magazines(0).in_process().unwrap()))),
        ("glibc", rounds(|_| Global(System))),
        ("mimalloc", rounds(|_| Global(MiMalloc))),
        ("rlsf", rounds(|bytes| Alone(UnsafeCell::new(pool(bytes))))),
        ("rlsf+Mutex", rounds(|bytes| Rlsf(Mutex::new(pool(bytes))))),
        ("atomic-matrix", Box::new(|name, _, time| matrix(name, time))),
    ]
}

/// What came of all rounds of a cell: in a word, and what there is to say about it.
fn summary(outcomes: &[Result<Outcome, String>]) -> (String, Option<String>) {
    let mut rates: Vec<_> = outcomes.iter().flatten().map(|outcome| outcome.rate()).collect();
    rates.sort_by(f64::total_cmp);
    let errors: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    let all = outcomes.iter().flatten().fold(Outcome::default(), |all, outcome| all.and(*outcome));
    let mut notes = Vec::new();
    if !errors.is_empty() {
        notes.push(format!("{} of {} rounds: {}", errors.len(), outcomes.len(), errors[0]));
    }
    if all.failed > 0 {
        notes.push(format!("{} allocations failed, {} operations succeeded", all.failed, all.done));
    }
    if all.damaged > 0 {
        notes.push(format!("{} blocks were overwritten by somebody else", all.damaged));
    }
    let cell = match rates.get(rates.len() / 2) {
        Some(median) => format!("{median:.2}{}", if errors.is_empty() && all.damaged == 0 { "" } else { " !" }),
        None => errors.first().map_or_else(|| "-".into(), |error| error.to_string()),
    };
    (cell, (!notes.is_empty()).then(|| notes.join("; ")))
}

fn main() {
    if let Ok(role) = std::env::var(ROLE) {
        return play(&role);
    }
    let (options, filters): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|word| word.starts_with("--"));
    // As a test, it only has to work.
    let measures = options.iter().any(|option| option == "--bench");
    let (count, time) = if measures { (ROUNDS, TIME) } else { (1, Duration::from_millis(5)) };

    let started = Instant::now();
    let place = Place::new();
    let contenders = contenders(place.0.clone());
    let mut notes = Vec::new();
    println!("Million allocations and frees per second that succeeded, or blocks handed over; {count} rounds\n");
    print!("{:<24}", "");
    contenders.iter().for_each(|(name, _)| print!("{name:>14}"));
    println!();
    for (name, workload) in WORKLOADS {
        let wanted = |column: &str| {
            suits(column, workload) && filters.iter().all(|filter| format!("{name} {column}").contains(filter.as_str()))
        };
        if workload == Workload::Processes {
            println!("{name}");
            let ways = [
                ("bytes", PARTICIPANTS, "  as messages"),
                ("handles", PARTICIPANTS, "  by handles"),
                ("handles", 4, "  by handles, only 4"),
                ("raw", PARTICIPANTS, "  as raw blocks"),
                ("raw unread", PARTICIPANTS, "  as raw blocks, unread"),
            ];
            for (kind, participants, title) in ways {
                if wanted(kind) {
                    let outcomes: Vec<_> = (0..count).map(|_| Ok(take_over(kind, participants, time))).collect();
                    let (cell, note) = summary(&outcomes);
                    println!("{title:<24}{:>14}{cell:>14}", "");
                    notes.extend(note.map(|note| format!("{name},{title}: {note}")));
                }
            }
            continue;
        }
        if !contenders.iter().any(|(column, _)| wanted(column)) {
            continue;
        }
        let mut outcomes: Vec<Vec<_>> = contenders.iter().map(|_| Vec::new()).collect();
        for _ in 0..count {
            for ((column, round), outcomes) in contenders.iter().zip(&mut outcomes) {
                if wanted(column) {
                    outcomes.push(round(name, workload, time));
                }
            }
        }
        print!("{name:<24}");
        for ((column, _), outcomes) in contenders.iter().zip(&outcomes) {
            let (cell, note) = summary(outcomes);
            print!("{cell:>14}");
            notes.extend(note.map(|note| format!("{name}, {column}: {note}")));
        }
        println!();
    }
    println!();
    notes.iter().for_each(|note| println!("! {note}"));
    println!("{:.0} s in all", started.elapsed().as_secs_f64());
}
