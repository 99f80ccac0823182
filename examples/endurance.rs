//! Threads of several processes that allocate and free all the time, and verify every byte.
//!
//! ```text
//! cargo run --release --example endurance -- --seconds 600 --threads 8 [--processes 2] [--megabytes 20] [--seed 7] \
//!     [--magazines 0]
//! ```
//!
//! The threads are shared out among the processes, at least one each. A thread has at most 200 blocks of 0 to 511 bytes. It
//! throws dice: with 70 % it allocates one if it may have more, otherwise it frees one, whichever. Every block is filled
//! with what follows from its process, thread, number and length, and verified before it is freed, and now and then in
//! between.
//!
//! Magazines serve nearly all of this. Without them (`--magazines 0`) every block is carved out of a free one, and merged with
//! its neighbours when it is freed.
//!
//! The segment has a small sector only: there one can ask for all of it in one block. At the end everybody frees what they
//! have, and this is demanded:
//!
//! * *overlaps*: no byte of any block was changed by anybody else;
//! * *leaks*: nobody holds a byte;
//! * `check()` is clean;
//! * *healed*: the whole sector can be had as one block, and is one free run afterwards.
//!
//! Only what succeeds is counted. The exit status is 1 if anything is not as demanded.

use std::{
    error::Error,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitCode, Stdio},
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use waterway::{
    Segment,
    blocks::{Allocator, RawBlock},
    error::AllocError,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Blocks are shorter than this.
const LONGEST: usize = 512;
/// The most blocks that a thread has.
const LIVE: usize = 200;
/// Out of ten.
const ALLOCATE: usize = 7;
/// Operations between two looks at the clock; then a block is verified that stays.
const ROUND: usize = 256;
/// How much longer than asked for a process may take, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);

const PLACE: &str = "WATERWAY_ENDURANCE_PLACE";

fn main() -> ExitCode {
    let done = Arguments::read().and_then(|arguments| match std::env::var_os(PLACE) {
        Some(place) => follow(&arguments, Path::new(&place)),
        None => lead(&arguments),
    });
    done.unwrap_or_else(|error| {
        eprintln!("endurance: {error}");
        ExitCode::FAILURE
    })
}

#[derive(Clone)]
struct Arguments {
    seconds: u64,
    threads: usize,
    processes: usize,
    megabytes: usize,
    magazines: Option<u32>,
    seed: u64,
    /// Of this process; 0 is the first.
    process: usize,
}

impl Arguments {
    fn read() -> Result<Self> {
        let mut arguments = Self {
            seconds: 60,
            threads: 8,
            processes: 2,
            megabytes: 20,
            magazines: None,
            seed: std::process::id().into(),
            process: 0,
        };
        let mut rest = std::env::args().skip(1);
        while let Some(name) = rest.next() {
            let value: u64 = rest.next().ok_or_else(|| format!("{name} needs a number"))?.parse()?;
            match name.as_str() {
                "--seconds" => arguments.seconds = value,
                "--threads" => arguments.threads = value as usize,
                "--processes" => arguments.processes = value as usize,
                "--megabytes" => arguments.megabytes = value as usize,
                "--magazines" => arguments.magazines = Some(value as u32),
                "--seed" => arguments.seed = value,
                "--process" => arguments.process = value as usize,
                _ => {
                    let all = "--seconds S, --threads T, --processes P, --megabytes M, --magazines N and --seed X";
                    return Err(format!("{name}? There are {all}").into());
                }
            }
        }
        arguments.processes = arguments.processes.max(1);
        arguments.threads = arguments.threads.max(arguments.processes);
        Ok(arguments)
    }

    /// How many threads this process has.
    fn own_threads(&self) -> usize {
        self.threads / self.processes + usize::from(self.process < self.threads % self.processes)
    }

    fn segment(&self, place: &Path) -> Result<Segment> {
        let options = Segment::options().dir(place).size(self.megabytes << 20).sectors(1, 0, 0);
        let options = match self.magazines {
            Some(magazines) => options.magazines(magazines),
            None => options,
        };
        Ok(options.participants(self.processes as u32 + 1).channels(1).open_or_create("endurance")?)
    }
}

// ---- The work ----

/// Good enough, and repeatable.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) * bound as u64) >> 32) as usize
    }
}

/// Whose block it is, and which.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    process: usize,
    thread: usize,
    number: u64,
    len: usize,
}

impl Stamp {
    /// What stands in the block, word by word; the last one may be cut short.
    fn words(self) -> impl Iterator<Item = [u8; 8]> {
        let who = (self.process as u64) << 56 ^ (self.thread as u64) << 48 ^ (self.len as u64) << 39 ^ self.number;
        let mut word = who.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word ^= word >> 29;
        std::iter::repeat_with(move || {
            word = word.wrapping_add(0xd1b5_4a32_d192_ed03);
            word.to_le_bytes()
        })
    }

    fn write(self, bytes: &mut [u8]) {
        for (to, word) in bytes.chunks_mut(8).zip(self.words()) {
            to.copy_from_slice(&word[..to.len()]);
        }
    }

    fn is_whole(self, bytes: &[u8]) -> bool {
        bytes.len() == self.len && bytes.chunks(8).zip(self.words()).all(|(found, word)| *found == word[..found.len()])
    }
}

/// What a thread, or a process, has done so far.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    allocations: u64,
    frees: u64,
    out_of_memory: u64,
    verified: u64,
    overlaps: u64,
}

impl Counts {
    fn of(values: [u64; 5]) -> Self {
        let [allocations, frees, out_of_memory, verified, overlaps] = values;
        Self { allocations, frees, out_of_memory, verified, overlaps }
    }

    fn values(self) -> [u64; 5] {
        [self.allocations, self.frees, self.out_of_memory, self.verified, self.overlaps]
    }

    fn sum(all: impl Iterator<Item = Self>) -> Self {
        all.fold(Self::default(), |sum, one| {
            let (some, more) = (sum.values(), one.values());
            Self::of(std::array::from_fn(|index| some[index] + more[index]))
        })
    }

    fn done(self) -> u64 {
        self.allocations + self.frees
    }
}

/// The same, for others to see, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Board([AtomicU64; 5]);

impl Board {
    fn write(&self, counts: Counts) {
        for (to, value) in self.0.iter().zip(counts.values()) {
            to.store(value, Ordering::Relaxed);
        }
    }

    fn read(&self) -> Counts {
        Counts::of(std::array::from_fn(|index| self.0[index].load(Ordering::Relaxed)))
    }
}

/// A thread at work.
struct Worker<'a> {
    allocator: &'a Allocator,
    live: Vec<(Stamp, RawBlock<'a>)>,
    counts: Counts,
}

impl Worker<'_> {
    fn verify(&mut self, stamp: Stamp, block: &RawBlock<'_>) {
        self.counts.verified += 1;
        if !stamp.is_whole(block) {
            self.counts.overlaps += 1;
            if self.counts.overlaps <= 5 {
                let (expected, found) = (stamp.words().flatten().zip(block.iter()), block.len());
                let at = expected.enumerate().find(|(_, (should, is))| should != *is);
                eprintln!("OVERLAP: {stamp:?}, {found} bytes, is changed at {:?}", at.map(|(at, _)| at));
            }
        }
    }

    fn free(&mut self, index: usize) {
        let (stamp, block) = self.live.swap_remove(index);
        self.verify(stamp, &block);
        drop(block);
        self.counts.frees += 1;
    }

    fn work(&mut self, process: usize, thread: usize, arguments: &Arguments, board: &Board) -> Result<()> {
        let allocator = self.allocator;
        let mut random = Random::new(arguments.seed ^ (process as u64) << 32 ^ (thread as u64) << 16);
        let (started, enough) = (Instant::now(), Duration::from_secs(arguments.seconds));
        while started.elapsed() < enough {
            for _ in 0..ROUND {
                if random.below(10) < ALLOCATE && self.live.len() < LIVE {
                    let stamp = Stamp { process, thread, number: self.counts.allocations, len: random.below(LONGEST) };
                    match allocator.allocate_raw(stamp.len) {
                        Ok(mut block) => {
                            stamp.write(&mut block);
                            self.live.push((stamp, block));
                            self.counts.allocations += 1;
                        }
                        Err(AllocError::OutOfMemory { .. }) => self.counts.out_of_memory += 1,
                        Err(error) => return Err(error.into()),
                    }
                } else if !self.live.is_empty() {
                    self.free(random.below(self.live.len()));
                }
            }
            if !self.live.is_empty() {
                let (stamp, block) = self.live.swap_remove(random.below(self.live.len()));
                self.verify(stamp, &block);
                self.live.push((stamp, block));
            }
            board.write(self.counts);
        }
        while !self.live.is_empty() {
            self.free(self.live.len() - 1);
        }
        board.write(self.counts);
        Ok(())
    }
}

/// The threads of this process.
struct Crew {
    boards: Arc<[Board]>,
    threads: Vec<JoinHandle<std::result::Result<(), String>>>,
}

impl Crew {
    fn start(segment: &Segment, arguments: &Arguments) -> Self {
        let count = arguments.own_threads();
        let boards: Arc<[Board]> = (0..count).map(|_| Board::default()).collect();
        let barrier = Arc::new(Barrier::new(count));
        let threads = (0..count).map(|thread| {
            let (segment, arguments) = (segment.clone(), arguments.clone());
            let (boards, barrier) = (Arc::clone(&boards), Arc::clone(&barrier));
            std::thread::spawn(move || {
                barrier.wait();
                let allocator = segment.allocator();
                let mut worker = Worker { allocator: &allocator, live: Vec::new(), counts: Counts::default() };
                let done = worker.work(arguments.process, thread, &arguments, &boards[thread]);
                done.map_err(|error| error.to_string())
            })
        });
        let threads = threads.collect();
        Self { boards, threads }
    }

    fn counts(&self) -> Counts {
        Counts::sum(self.boards.iter().map(Board::read))
    }

    fn is_done(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    fn join(self) -> Result<()> {
        for thread in self.threads {
            thread.join().map_err(|_| "a thread has panicked")??;
        }
        Ok(())
    }
}

// ---- The other processes ----

/// Waits for a line, works, and writes down now and then how far it is.
fn follow(arguments: &Arguments, place: &Path) -> Result<ExitCode> {
    // SAFETY: a plain system call: we do not outlive the first process.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let segment = arguments.segment(place)?;
    println!("here");
    std::io::stdin().read_line(&mut String::new())?;
    let crew = Crew::start(&segment, arguments);
    let mut over = false;
    while !over {
        over = crew.is_done();
        let values = crew.counts().values();
        println!("{}", values.map(|value| value.to_string()).join(" "));
        std::thread::sleep(Duration::from_millis(if over { 0 } else { 100 }));
    }
    crew.join()?;
    Ok(ExitCode::SUCCESS)
}

/// Another process: killed and reaped with the first.
struct Follower {
    child: Child,
    stdin: Option<ChildStdin>,
    board: Arc<Board>,
    reader: Option<JoinHandle<()>>,
}

impl Follower {
    fn start(arguments: &Arguments, process: usize, place: &Path) -> Result<Self> {
        let Arguments { seconds, threads, processes, megabytes, seed, .. } = arguments;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--seconds".into(), seconds.to_string(), "--threads".into(), threads.to_string()])
            .args(["--processes".into(), processes.to_string(), "--megabytes".into(), megabytes.to_string()])
            .args(["--seed".into(), seed.to_string(), "--process".into(), process.to_string()])
            .env(PLACE, place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let board = Arc::new(Board::default());
        let mut this = Self { child, stdin, board: Arc::clone(&board), reader: None };
        let mut lines = BufReader::new(stdout.ok_or("no pipe")?).lines();
        if lines.next().transpose()?.as_deref() != Some("here") {
            return Err(format!("process {process} does not start").into());
        }
        this.reader = Some(std::thread::spawn(move || {
            for line in lines.map_while(std::result::Result::ok) {
                let values: Vec<u64> = line.split(' ').filter_map(|value| value.parse().ok()).collect();
                if let Ok(values) = values.try_into() {
                    board.write(Counts::of(values));
                }
            }
        }));
        Ok(this)
    }

    fn go(&mut self) -> Result<()> {
        self.stdin.take().ok_or("it has begun")?.write_all(b"go\n")?;
        Ok(())
    }

    /// Waits until it ends by itself, up to a moment; otherwise says what went wrong.
    fn finish(mut self, until: Instant) -> Result<()> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.reader.take().map(JoinHandle::join);
                return if status.success() { Ok(()) } else { Err(format!("it ended with {status}").into()) };
            }
            if Instant::now() > until {
                return Err("it does not end".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// ---- The first process ----

/// Where the segment is; gone when the run ends.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn lead(arguments: &Arguments) -> Result<ExitCode> {
    let base = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
    let place = Place(base.join(format!("waterway-endurance-{}", std::process::id())));
    let segment = arguments.segment(&place.0)?;
    let mut failures = Vec::new();
    let mut followers = Vec::new();
    for process in 1..arguments.processes {
        followers.push(Follower::start(arguments, process, &place.0)?);
    }
    println!("seed {}, {} threads in {} processes", arguments.seed, arguments.threads, arguments.processes);

    let started = Instant::now();
    let until = started + Duration::from_secs(arguments.seconds) + PATIENCE;
    for follower in &mut followers {
        follower.go()?;
    }
    let crew = Crew::start(&segment, arguments);
    let boards: Vec<_> = followers.iter().map(|follower| Arc::clone(&follower.board)).collect();
    let all = || Counts::sum(boards.iter().map(|board| board.read()).chain([crew.counts()]));
    let (mut last, mut since, mut worst) = (Counts::default(), started, 0.0_f64);
    while !crew.is_done() {
        if Instant::now() > until {
            // Threads cannot be killed: this process ends, and takes the others with it.
            drop(followers);
            drop(place);
            eprintln!("endurance: FAILED: the threads of the first process do not end");
            std::process::exit(1);
        }
        std::thread::sleep(Duration::from_millis(10));
        if since.elapsed() >= Duration::from_secs(1) {
            let (counts, stats) = (all(), segment.stats());
            let rate = (counts.done() - last.done()) as f64 / since.elapsed().as_secs_f64();
            (last, since) = (counts, Instant::now());
            worst = worst.max(stats.sectors[0].fragmentation());
            eprintln!(
                "{:>4.0} s: {:>6.2} million/s, {} KiB held, {} free runs, {} out of memory, {} overlaps",
                started.elapsed().as_secs_f64(),
                rate / 1e6,
                stats.held_bytes() >> 10,
                stats.sectors[0].free_runs,
                counts.out_of_memory,
                counts.overlaps
            );
        }
    }
    let own = crew.counts();
    let seconds = started.elapsed().as_secs_f64();
    if let Err(error) = crew.join() {
        failures.push(format!("process 0: {error}"));
    }
    for (index, follower) in followers.into_iter().enumerate() {
        if let Err(error) = follower.finish(until) {
            failures.push(format!("process {}: {error}", index + 1));
        }
    }
    segment.bury_the_dead();
    let counts = Counts::sum(boards.iter().map(|board| board.read()).chain([own]));
    finish(&segment, counts, seconds, worst, failures)
}

/// Looks at what is left, and says how it was.
fn finish(segment: &Segment, counts: Counts, seconds: f64, worst: f64, mut failures: Vec<String>) -> Result<ExitCode> {
    let (stats, check) = (segment.stats(), segment.check());
    if counts.overlaps > 0 {
        failures.push(format!("{} blocks were changed by somebody else", counts.overlaps));
    }
    if counts.allocations != counts.frees {
        failures.push(format!("{} allocations, and {} frees", counts.allocations, counts.frees));
    }
    if stats.held_bytes() > 0 {
        failures.push(format!("{} bytes are held by nobody who lives", stats.held_bytes()));
    }
    if !check.is_clean() {
        failures.push(format!("the check finds: {:?}", check.problems));
    }
    // All of a sector in one block: the magazines must give up what they have, and everything must come together.
    let mut healed = 0;
    let there = || segment.check().sectors.into_iter().enumerate().filter(|(_, sector)| sector.bytes > 0);
    for (index, sector) in there() {
        match segment.allocator().allocate_raw(sector.bytes) {
            Ok(whole) => drop(whole),
            Err(error) => failures.push(format!("sector {index} has not healed: {error}")),
        }
    }
    for (index, sector) in there() {
        if sector.free_runs == 1 && sector.free_bytes == sector.bytes && sector.largest_free == sector.bytes {
            healed += 1;
        } else {
            failures.push(format!("sector {index} is not one free run: {sector:?}"));
        }
    }
    let again = segment.check();
    if !again.is_clean() {
        failures.push(format!("after that the check finds: {:?}", again.problems));
    }

    let line = |name: &str, value: String| println!("{name:<44}{value:>16}");
    let rate = |count: u64| format!("{:.0}", count as f64 / seconds);
    let end = stats.sectors[0];
    line("seconds", format!("{seconds:.1}"));
    line("allocations", counts.allocations.to_string());
    line("frees", counts.frees.to_string());
    line("allocations per second", rate(counts.allocations));
    line("frees per second", rate(counts.frees));
    line("both per second", rate(counts.done()));
    line("out of memory", counts.out_of_memory.to_string());
    line("blocks verified", counts.verified.to_string());
    line("overlaps", counts.overlaps.to_string());
    line("bytes leaked", stats.held_bytes().to_string());
    line("problems that the check found", (check.problems.len() + again.problems.len()).to_string());
    line("cache hit rate", format!("{:.4} %", stats.cache_hit_rate() * 100.0));
    line("splits", stats.splits.to_string());
    line("merges", stats.merges.to_string());
    line("fragmentation, at worst", format!("{:.2} %", worst * 100.0));
    line("fragmentation at the end", format!("{:.2} %", end.fragmentation() * 100.0));
    line("  free runs", end.free_runs.to_string());
    line("  bytes in magazines", end.cached_bytes.to_string());
    line("sectors", there().count().to_string());
    line("  healed to one free run", healed.to_string());
    if failures.is_empty() {
        println!("\nAll is well.");
        return Ok(ExitCode::SUCCESS);
    }
    println!("\nFAILED:");
    failures.iter().for_each(|failure| println!("  {failure}"));
    Ok(ExitCode::FAILURE)
}
