//! Processes that are killed, stopped and started again at random, and one that survives and verifies.
//!
//! ```text
//! cargo run --release --example chaos -- --kills 1000 [--seconds 600] [--seed 7]
//! ```
//!
//! ```text
//! producers ──work, of three sizes──► consumers ──receipts──► survivor
//! producers ──task, of three sizes, at least once──► consumers ──receipts──► survivor ◄──dead letters
//! producers ──direct, capacity 8 and 1──────────────────────► survivor
//! each of them ──life, one channel per process──────────────► survivor
//! producers that end ──how many they have sent──────────────► survivor
//! ```
//!
//! Messages are stamped with their sender, their channel and their number, and filled with what follows from these. A
//! consumer verifies a message, holds it for a while together with a few others, and sends a receipt before it lets go. The
//! survivor demands:
//!
//! * *direct*: every message whole, and from every sender 0, 1, 2, … without a gap, whatever became of the sender;
//! * *work*: no message twice; in the order of their numbers, as far as one consumer got them from one sender; and missing
//!   in between only as many as consumers were killed that could hold so many;
//! * *task*, at least once: no message missing in between, with a receipt or as a dead letter; a receipt for what had one before
//!   only if its delivery count is higher than that one's; one in 50 is given back by every consumer and must end as a dead
//!   letter, once;
//! * of a producer that was asked to end, and did: all that it says it has sent, up to the last one, in the same way;
//! * *life*: its `recv` ends with `None` soon after the process was killed;
//! * every channel moves on within a bound, whoever is killed or stopped;
//! * at the end: nobody is left, no channel, no block; `check()` is clean, and all memory is free.
//!
//! The exit status is 1 if anything is not so, and the seed is printed. A seed repeats what is done to whom, not the
//! moments at which it hits.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, VecDeque},
    error::Error,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, task::LocalSet};
use waterway::{ChannelOptions, DeadLetter, Delivery, Receiver, Segment, Sender};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A channel of stamped messages.
struct Lane {
    name: &'static str,
    capacity: usize,
    largest: usize,
    /// How many a consumer may hold before it sends receipts. What is taken by the survivor needs none.
    hold: usize,
    /// How often a message is delivered at most; 0: at most once.
    deliveries: u32,
}

impl Lane {
    fn options(&self, segment: &Segment) -> ChannelOptions<[u8]> {
        let options = segment.bytes(self.name).capacity(self.capacity);
        match self.deliveries {
            0 => options,
            most => options.delivery(Delivery::AtLeastOnce { max_deliveries: most }).policy(DeadLetter::to(DEAD)),
        }
    }
}

/// Where tasks go that nobody can do.
const DEAD: &str = "task-dead";

/// Larger messages go into other sectors of the segment; all that may wait or be held at a time does not quite fit into it.
const LANES: [Lane; 8] = [
    Lane { name: "work-small", capacity: 64, largest: 2_000, hold: 4, deliveries: 0 },
    Lane { name: "work-medium", capacity: 16, largest: 30_000, hold: 2, deliveries: 0 },
    Lane { name: "work-large", capacity: 4, largest: 250_000, hold: 1, deliveries: 0 },
    Lane { name: "task-small", capacity: 64, largest: 2_000, hold: 4, deliveries: 5 },
    Lane { name: "task-medium", capacity: 16, largest: 30_000, hold: 2, deliveries: 3 },
    Lane { name: "task-large", capacity: 4, largest: 250_000, hold: 1, deliveries: 4 },
    Lane { name: "direct", capacity: 8, largest: 60_000, hold: 0, deliveries: 0 },
    Lane { name: "direct-narrow", capacity: 1, largest: 500, hold: 0, deliveries: 0 },
];
/// The first of these go to consumers.
const WORK: usize = 6;
/// What a consumer may have taken and not acknowledged when it is killed, of what does not come back.
const HELD: u64 = (LANES[0].hold + LANES[1].hold + LANES[2].hold) as u64;
const SIZE: usize = 8 << 20;
const PRODUCERS: usize = 3;
const CONSUMERS: usize = 3;
/// How long a channel may stand still, or a death go unnoticed, on a machine that has other things to do.
const BOUND: Duration = Duration::from_secs(20);

/// Counts while the survivor gets on.
static BEATS: AtomicU64 = AtomicU64::new(0);

fn main() -> ExitCode {
    let role = std::env::var("WATERWAY_CHAOS_ROLE").unwrap_or_default();
    let done = match role.split_once(' ') {
        Some((role, id)) => play(role, id.parse().expect("a number")),
        None => survive(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("chaos {role}: {error}");
        ExitCode::FAILURE
    })
}

fn segment(place: &Path) -> Result<Segment> {
    Ok(Segment::options().dir(place).size(SIZE).participants(24).channels(64).open_or_create("chaos")?)
}

// ---- Messages ----

/// Good enough, and repeatable.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Stamp {
    sender: u32,
    lane: u32,
    number: u64,
    len: u64,
}

const STAMP: usize = size_of::<Stamp>();

impl Stamp {
    fn message(mut self, len: usize) -> Vec<u8> {
        let len = len.max(STAMP);
        self.len = len as u64;
        let mut bytes = self.as_bytes().to_vec();
        let mut random = Random::new(self.number << 24 ^ u64::from(self.sender) << 3 ^ u64::from(self.lane));
        while bytes.len() < len {
            let word = random.next().to_le_bytes();
            bytes.extend(&word[..(len - bytes.len()).min(8)]);
        }
        bytes
    }

    /// Reads a message of a lane, and looks at every byte of it.
    fn verify(message: &[u8], lane: usize) -> Result<Self> {
        let (stamp, _) = Self::read_from_prefix(message).map_err(|_| format!("{} bytes only", message.len()))?;
        if stamp.lane as usize != lane || stamp.len != message.len() as u64 || stamp.message(message.len()) != message {
            return Err(format!("damaged in {}: {stamp:?}, {} bytes", LANES[lane].name, message.len()).into());
        }
        Ok(stamp)
    }
}

/// A consumer has taken a message and found it whole.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Receipt {
    consumer: u32,
    lane: u16,
    /// How often it was delivered.
    count: u16,
    /// Of the receipts of this consumer for this lane.
    number: u64,
    /// What was received.
    sender: u64,
    of: u64,
}

/// A producer has ended in good order.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Farewell {
    sender: u32,
    lane: u32,
    /// How many messages it has sent.
    count: u64,
}

// ---- Producers and consumers ----

fn play(role: &str, id: u32) -> Result<ExitCode> {
    // SAFETY: a plain system call: we do not outlive the survivor.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let place = PathBuf::from(std::env::var_os("WATERWAY_CHAOS_PLACE").ok_or("no place")?);
    let seed = std::env::var("WATERWAY_CHAOS_SEED")?.parse()?;
    runtime()?.block_on(async {
        let segment = segment(&place)?;
        let life = segment.bytes(&format!("life-{id}")).sender()?;
        life.send(b"here").await.map_err(|error| error.to_string())?;
        match role {
            "producer" => {
                let lanes = (0..LANES.len()).map(|lane| produce(&segment, id, lane, seed, &life));
                futures::future::try_join_all(lanes).await?;
            }
            _ => {
                let lanes = (0..WORK).map(|lane| consume(&segment, id, lane, seed));
                futures::future::try_join_all(lanes).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Sends until the channel is closed, or until it is asked to end: by the end of its life's receiver.
async fn produce(segment: &Segment, id: u32, lane: usize, seed: u64, life: &Sender<[u8]>) -> Result<()> {
    let sender = LANES[lane].options(segment).sender()?;
    let farewells = segment.channel::<Farewell>("farewells").sender()?;
    let mut random = Random::new(seed ^ u64::from(id) << 8 ^ lane as u64);
    for number in 0.. {
        if life.is_closed() {
            let farewell = Farewell { sender: id, lane: lane as u32, count: number };
            farewells.send(farewell).await.map_err(|error| error.to_string())?;
            break;
        }
        // Mostly short, sometimes as long as they come.
        let most = LANES[lane].largest >> (random.below(4) * 2);
        let message = Stamp { sender: id, lane: lane as u32, number, len: 0 }.message(random.below(most) + 1);
        if sender.send(message).await.is_err() {
            break;
        }
        if random.below(16) == 0 {
            tokio::time::sleep(Duration::from_micros(random.below(3000) as u64)).await;
        }
    }
    Ok(())
}

/// Whether nobody can do it.
fn is_poison(number: u64) -> bool {
    number % 50 == 49
}

/// Takes until no sender is left, holds a few, and sends a receipt for each before it lets go.
async fn consume(segment: &Segment, id: u32, lane: usize, seed: u64) -> Result<()> {
    let receiver = LANES[lane].options(segment).receiver()?;
    let receipts = segment.channel::<Receipt>("receipts").sender()?;
    let mut random = Random::new(seed ^ u64::from(id) << 8 ^ lane as u64);
    let mut held = VecDeque::new();
    let (mut number, mut over) = (0, false);
    loop {
        let comes_back = LANES[lane].deliveries > 0;
        let message = match receiver.try_recv() {
            Ok(message) => Some(message),
            // No consumer waits for another's: at the end all would.
            Err(_) if comes_back && !held.is_empty() => None,
            Err(_) => match receiver.recv().await {
                Some(message) => Some(message),
                None => {
                    over = true;
                    None
                }
            },
        };
        let idle = message.is_none();
        if let Some(message) = message {
            let stamp = Stamp::verify(&message, lane)?;
            if comes_back && is_poison(stamp.number) {
                message.nack();
                continue;
            }
            held.push_back((stamp, message));
            // So that tasks are not done by whoever looks all the time.
            tokio::task::yield_now().await;
        }
        while held.len() >= LANES[lane].hold || (idle || random.below(3) == 0) && !held.is_empty() {
            let Some((stamp, message)) = held.pop_front() else { break };
            let count = message.delivery_count() as u16;
            let sender = stamp.sender.into();
            let receipt = Receipt { consumer: id, lane: lane as u16, count, number, sender, of: stamp.number };
            receipts.send(receipt).await.map_err(|error| error.to_string())?;
            number += 1;
            drop(message);
        }
        if over {
            return Ok(());
        }
    }
}

// ---- The survivor ----

/// What was received of one sender in one lane.
#[derive(Debug, Default)]
struct Seen {
    bits: Vec<u64>,
    count: u64,
    end: u64,
}

impl Seen {
    /// `false` if it was there already.
    fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        let new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        self.count += u64::from(new);
        self.end = self.end.max(number + 1);
        new
    }
}

/// What the survivor knows.
#[derive(Debug)]
struct State {
    failures: Vec<String>,
    received: [u64; LANES.len()],
    moved: [Instant; LANES.len()],
    /// The next number of each sender in each direct lane.
    direct: HashMap<(usize, u32), u64>,
    /// How many each sender that has ended in good order has sent in each direct lane.
    last: HashMap<(usize, u32), u64>,
    work: HashMap<(usize, u32), Seen>,
    /// The last count of each message that was delivered again.
    again: HashMap<(usize, u32, u64), u16>,
    dead: HashMap<(usize, u32), Seen>,
    dead_letters: u64,
    redelivered: u64,
    /// The next receipt of each consumer, by lane.
    receipts: HashMap<(usize, u32), u64>,
    /// The last number that a consumer got of a sender, by lane.
    order: HashMap<(usize, u32, u32), u64>,
    /// When a process was killed.
    killed: HashMap<u32, Instant>,
    farewells: u64,
    /// Processes that have said that they are there.
    here: HashMap<u32, bool>,
    notices: Vec<Duration>,
}

impl State {
    fn fail(&mut self, what: impl Into<String>) {
        let what = what.into();
        eprintln!("FAILED: {what}");
        self.failures.push(what);
    }

    fn moved(&mut self, lane: usize) {
        self.received[lane] += 1;
        self.moved[lane] = Instant::now();
    }

    fn direct(&mut self, lane: usize, message: &[u8]) {
        match Stamp::verify(message, lane) {
            Ok(stamp) => {
                let expected = self.direct.entry((lane, stamp.sender)).or_default();
                let was = std::mem::replace(expected, stamp.number + 1);
                if was != stamp.number {
                    self.fail(format!("{}: {stamp:?} came, {was} was expected", LANES[lane].name));
                }
            }
            Err(error) => self.fail(error.to_string()),
        }
        self.moved(lane);
    }

    fn receipt(&mut self, receipt: Receipt) {
        let (lane, consumer, sender) = (receipt.lane as usize, receipt.consumer, receipt.sender as u32);
        if lane >= WORK {
            return self.fail(format!("{receipt:?}"));
        }
        let expected = self.receipts.entry((lane, consumer)).or_default();
        let was = std::mem::replace(expected, receipt.number + 1);
        if was != receipt.number {
            self.fail(format!("{receipt:?}, and {was} was expected"));
        }
        let new = self.work.entry((lane, sender)).or_default().insert(receipt.of);
        if LANES[lane].deliveries > 0 {
            self.redelivered += u64::from(receipt.count > 1);
            let last = match receipt.count {
                // What had a receipt before was delivered before.
                1 => {
                    if new {
                        None
                    } else {
                        Some(1)
                    }
                }
                count => self.again.insert((lane, sender, receipt.of), count),
            };
            if last.is_some_and(|last| last >= receipt.count) || u32::from(receipt.count) > LANES[lane].deliveries {
                self.fail(format!("again, after {last:?}: {receipt:?}"));
            }
            return self.moved(lane);
        }
        if !new {
            self.fail(format!("twice: {receipt:?}"));
        }
        if let Some(last) = self.order.insert((lane, consumer, sender), receipt.of)
            && last >= receipt.of
        {
            self.fail(format!("out of order, after {last}: {receipt:?}"));
        }
        self.moved(lane);
    }

    /// What a producer says that it has sent. Its last messages may still be on their way: they are judged at the end.
    fn farewell(&mut self, farewell: Farewell) {
        let at = (farewell.lane as usize, farewell.sender);
        self.farewells += 1;
        if at.0 < WORK {
            let seen = self.work.entry(at).or_default();
            if seen.end > farewell.count {
                let end = seen.end;
                self.fail(format!("{farewell:?}, and {end} were received"));
                return;
            }
            seen.end = farewell.count;
        } else {
            self.last.insert(at, farewell.count);
        }
    }

    fn dead_letter(&mut self, message: &[u8]) {
        let lane = Stamp::read_from_prefix(message).map_or(0, |(stamp, _)| stamp.lane as usize);
        match Stamp::verify(message, lane.min(LANES.len() - 1)) {
            Ok(stamp) => {
                self.dead_letters += 1;
                if !self.dead.entry((lane, stamp.sender)).or_default().insert(stamp.number) {
                    self.fail(format!("twice among the dead letters: {stamp:?}"));
                }
                self.work.entry((lane, stamp.sender)).or_default().insert(stamp.number);
            }
            Err(error) => self.fail(format!("dead letter: {error}")),
        }
    }

    /// What was taken and never acknowledged, as far as something later of the same sender was, or the sender has said that
    /// it has sent it; in lanes at least once, or not.
    fn lost(&self, comes_back: bool) -> u64 {
        let lanes = self.work.iter().filter(|((lane, _), _)| (LANES[*lane].deliveries > 0) == comes_back);
        lanes.map(|(_, seen)| seen.end - seen.count).sum()
    }
}

type Shared = Rc<RefCell<State>>;

/// Where the segment is; gone when the run ends.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A producer or a consumer: killed and reaped with the survivor.
struct Actor {
    id: u32,
    role: &'static str,
    child: Child,
    /// As long as the survivor has it, a process that has not come yet is waited for.
    _life: Option<Sender<[u8]>>,
    /// Makes the survivor close the channel of its life.
    end: Option<oneshot::Sender<()>>,
}

impl Actor {
    fn start(role: &'static str, id: u32, seed: u64, place: &Place, segment: &Segment, state: &Shared) -> Result<Self> {
        let (life, watched) = segment.bytes(&format!("life-{id}")).open()?;
        let child = Command::new(std::env::current_exe()?)
            .env("WATERWAY_CHAOS_ROLE", format!("{role} {id}"))
            .env("WATERWAY_CHAOS_PLACE", &place.0)
            .env("WATERWAY_CHAOS_SEED", seed.to_string())
            .stdin(Stdio::null())
            .spawn()?;
        let (end, ends) = oneshot::channel();
        tokio::task::spawn_local(watch(watched, id, ends, Rc::clone(state)));
        Ok(Self { id, role, child, _life: Some(life), end: Some(end) })
    }

    fn signal(&self, signal: i32) {
        // SAFETY: a plain system call on a child that has not been waited for.
        unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
    }

    fn is_here(&self, state: &Shared) -> bool {
        state.borrow().here.get(&self.id).copied().unwrap_or(false)
    }

    /// Asks it to end, and waits until it has.
    async fn end(&mut self, state: &Shared) {
        let _ = self.end.take().map(|end| end.send(()));
        let mut ended = None;
        wait_until(|| {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some()
        })
        .await;
        self._life = None;
        if !ended.is_some_and(|status| status.success()) {
            state.borrow_mut().fail(format!("{} {} did not end well: {ended:?}", self.role, self.id));
        }
    }

    /// SIGKILL, and what follows. The channel of its life is its own from here on.
    fn kill(&mut self, state: &Shared) -> Result<ExitStatus> {
        let before = Instant::now();
        self.signal(libc::SIGKILL);
        state.borrow_mut().killed.insert(self.id, before);
        self._life = None;
        Ok(self.child.wait()?)
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits on a process's channel until it ends, and says how long that took after the kill; or closes it.
async fn watch(life: Receiver<[u8]>, id: u32, ends: oneshot::Receiver<()>, state: Shared) {
    let is_over = async {
        while life.recv().await.is_some() {
            state.borrow_mut().here.insert(id, true);
        }
    };
    tokio::select! {
        () = is_over => {}
        // If the actor goes without a word, the process is killed.
        Ok(()) = ends => return life.close(),
    }
    let mut state = state.borrow_mut();
    let here = state.here.insert(id, false).is_some();
    if let Some(killed) = state.killed.get(&id).map(Instant::elapsed)
        && here
    {
        state.notices.push(killed);
    }
}

async fn receive_direct(receiver: Receiver<[u8]>, lane: usize, state: Shared) {
    while let Some(message) = receiver.recv().await {
        state.borrow_mut().direct(lane, &message);
    }
}

async fn receive_dead_letters(receiver: Receiver<[u8]>, state: Shared) {
    while let Some(message) = receiver.recv().await {
        state.borrow_mut().dead_letter(&message);
    }
}

async fn receive_farewells(receiver: Receiver<Farewell>, state: Shared) {
    while let Some(farewell) = receiver.recv().await {
        state.borrow_mut().farewell(*farewell);
    }
}

async fn receive_receipts(receiver: Receiver<Receipt>, state: Shared) {
    while let Some(receipt) = receiver.recv().await {
        state.borrow_mut().receipt(*receipt);
    }
}

struct Arguments {
    kills: u64,
    seconds: Option<u64>,
    seed: u64,
}

impl Arguments {
    fn read() -> Result<Self> {
        let mut arguments = Self { kills: 200, seconds: None, seed: u64::from(std::process::id()) };
        let mut rest = std::env::args().skip(1);
        while let Some(name) = rest.next() {
            let value = rest.next().ok_or_else(|| format!("{name} needs a number"))?.parse()?;
            match name.as_str() {
                "--kills" => arguments.kills = value,
                "--seconds" => arguments.seconds = Some(value),
                "--seed" => arguments.seed = value,
                _ => return Err(format!("{name}? There are --kills N, --seconds S and --seed X").into()),
            }
        }
        Ok(arguments)
    }
}

/// What was done to the others.
#[derive(Debug, Default)]
struct Deeds {
    kills: BTreeMap<&'static str, u64>,
    consumers_killed: u64,
    stops: u64,
    /// Producers that were asked to end.
    ends: u64,
    restarts: u64,
}

fn survive() -> Result<ExitCode> {
    let arguments = Arguments::read()?;
    println!("seed {}", arguments.seed);
    let base = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
    let place = Place(base.join(format!("waterway-chaos-{}", std::process::id())));
    // If the survivor itself is stuck in a call, nobody else can say so. The others do not outlive it.
    let seed = arguments.seed;
    std::thread::spawn(move || {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            std::thread::sleep(Duration::from_millis(500));
            let now = BEATS.load(Ordering::Relaxed);
            if now != last {
                (last, since) = (now, Instant::now());
            } else if since.elapsed() > 3 * BOUND {
                println!("\nFAILED, with --seed {seed}:\n  the survivor stands still");
                std::process::exit(1);
            }
        }
    });
    let runtime = runtime()?;
    LocalSet::new().block_on(&runtime, run(&arguments, &place))
}

async fn run(arguments: &Arguments, place: &Place) -> Result<ExitCode> {
    let started = Instant::now();
    let segment = segment(&place.0)?;
    let free = |segment: &Segment| -> Vec<usize> {
        segment.check().sectors.iter().map(|sector| sector.free_bytes + sector.cached_bytes).collect()
    };
    let letters = segment.bytes(DEAD).persistent(true).receiver()?;
    let began = free(&segment);
    let state = Rc::new(RefCell::new(State {
        failures: Vec::new(),
        received: [0; LANES.len()],
        moved: [started; LANES.len()],
        direct: HashMap::new(),
        last: HashMap::new(),
        work: HashMap::new(),
        again: HashMap::new(),
        dead: HashMap::new(),
        dead_letters: 0,
        redelivered: 0,
        receipts: HashMap::new(),
        order: HashMap::new(),
        killed: HashMap::new(),
        farewells: 0,
        here: HashMap::new(),
        notices: Vec::new(),
    }));

    // The survivor's own ends keep the channels open, whoever is dead for a moment.
    let mut open = Vec::new();
    let mut loops = Vec::new();
    for (lane, shape) in LANES.iter().enumerate() {
        let (sender, receiver) = shape.options(&segment).open()?;
        if lane < WORK {
            open.push((sender, Some(receiver)));
        } else {
            loops.push(tokio::task::spawn_local(receive_direct(receiver, lane, Rc::clone(&state))));
            open.push((sender, None));
        }
    }
    let (receipts_open, receipts) = segment.channel::<Receipt>("receipts").open()?;
    loops.push(tokio::task::spawn_local(receive_receipts(receipts, Rc::clone(&state))));

    let (farewells_open, farewells) = segment.channel::<Farewell>("farewells").open()?;
    loops.push(tokio::task::spawn_local(receive_farewells(farewells, Rc::clone(&state))));

    let dead_letters = tokio::task::spawn_local(receive_dead_letters(letters, Rc::clone(&state)));

    let mut ids = 0..;
    let mut start = |role: &'static str| {
        Actor::start(role, ids.next().unwrap_or_default(), arguments.seed, place, &segment, &state)
    };
    let mut actors = Vec::new();
    for role in std::iter::repeat_n("producer", PRODUCERS).chain(std::iter::repeat_n("consumer", CONSUMERS)) {
        actors.push(start(role)?);
    }

    let mut deeds = Deeds::default();
    let mut random = Random::new(arguments.seed);
    let (mut kills, mut latest) = (0, 0);
    while kills < arguments.kills && arguments.seconds.is_none_or(|seconds| started.elapsed().as_secs() < seconds) {
        BEATS.fetch_add(1, Ordering::Relaxed);
        let deed = random.below(9);
        let pause = if deed == 3 { 6_000 } else { 120_000 };
        tokio::time::sleep(Duration::from_micros(random.below(pause) as u64)).await;
        if !state.borrow().failures.is_empty() {
            break;
        }
        let victims = match deed {
            // Stopped, with whatever it holds; then it goes on, or not.
            0 | 1 => {
                let victim = random.below(actors.len());
                actors[victim].signal(libc::SIGSTOP);
                deeds.stops += 1;
                tokio::time::sleep(Duration::from_micros(random.below(150_000) as u64)).await;
                if random.below(2) == 0 {
                    actors[victim].signal(libc::SIGCONT);
                    continue;
                }
                vec![(victim, "while stopped")]
            }
            // Several at once: the reaper of the one may be the next.
            2 => {
                let first = random.below(actors.len());
                (0..2 + random.below(2)).map(|step| ((first + step) % actors.len(), "several at once")).collect()
            }
            // A producer that is here ends in good order.
            8 => {
                let victim = random.below(actors.len());
                if actors[victim].role == "producer" && actors[victim].is_here(&state) {
                    actors[victim].end(&state).await;
                    deeds.ends += 1;
                    actors[victim] = start("producer")?;
                    latest = victim;
                }
                continue;
            }
            // One that has only just been started.
            3 => vec![(latest, "one")],
            _ => vec![(random.below(actors.len()), "one")],
        };
        for (victim, kind) in victims {
            let actor = &mut actors[victim];
            let kind = if actor.is_here(&state) { kind } else { "while starting" };
            let status = actor.kill(&state)?;
            if std::os::unix::process::ExitStatusExt::signal(&status) != Some(libc::SIGKILL) {
                state.borrow_mut().fail(format!("{} {} had ended by itself: {status}", actor.role, actor.id));
            }
            kills += 1;
            *deeds.kills.entry(kind).or_default() += 1;
            deeds.consumers_killed += u64::from(actor.role == "consumer");
            deeds.restarts += 1;
            let role = actor.role;
            actors[victim] = start(role)?;
            latest = victim;
        }
        let mut state = state.borrow_mut();
        for (lane, shape) in LANES.iter().enumerate() {
            if state.moved[lane].elapsed() > BOUND {
                state.fail(format!("{} stands still", shape.name));
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();

    // The end: one producer is killed, the others are asked to end, consumers get what was sent, and then `None`.
    let (producers, consumers): (Vec<_>, Vec<_>) = actors.into_iter().partition(|actor| actor.role == "producer");
    for (number, mut producer) in producers.into_iter().enumerate() {
        if number == 0 || !wait_for(&producer, &state).await {
            producer.kill(&state)?;
            *deeds.kills.entry("at the end").or_default() += 1;
        } else {
            producer.end(&state).await;
            deeds.ends += 1;
        }
    }
    // One that has not come yet must find the channels as they are.
    wait_until(|| consumers.iter().all(|consumer| consumer.is_here(&state))).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(open);
    for mut consumer in consumers {
        let mut ended = None;
        wait_until(|| {
            ended = consumer.child.try_wait().ok().flatten();
            ended.is_some()
        })
        .await;
        if !ended.is_some_and(|status| status.success()) {
            state.borrow_mut().fail(format!("consumer {} did not end well: {ended:?}", consumer.id));
        }
    }
    drop((receipts_open, farewells_open));
    wait_until(|| loops.iter().all(tokio::task::JoinHandle::is_finished)).await;
    if !loops.iter().all(tokio::task::JoinHandle::is_finished) {
        state.borrow_mut().fail("a channel without senders does not end");
    }
    let is_empty = |segment: &Segment| {
        segment.bury_the_dead();
        segment.participants().len() == 1 && segment.channels().len() == 1 && free(segment) == began
    };
    wait_until(|| is_empty(&segment)).await;
    dead_letters.abort();
    let check = segment.check();
    let mut state = state.borrow_mut();
    if !is_empty(&segment) || !check.is_clean() {
        let (who, what) = (segment.participants(), segment.channels());
        state.fail(format!("left behind: {who:?}, {what:?}, free {:?} of {began:?}, {check:?}", free(&segment)));
    }
    if state.farewells != deeds.ends * LANES.len() as u64 {
        let farewells = state.farewells;
        state.fail(format!("{} producers ended, with {farewells} farewells", deeds.ends));
    }
    let tails: Vec<String> = state
        .last
        .iter()
        .map(|(at, last)| (at, *last, state.direct.get(at).copied().unwrap_or_default()))
        .filter(|(_, last, received)| last != received)
        .map(|((lane, sender), last, received)| format!("{}: {sender} sent {last}, {received} came", LANES[*lane].name))
        .collect();
    tails.into_iter().for_each(|tail| state.fail(tail));
    let lost = state.lost(true);
    if lost > 0 {
        state.fail(format!("{lost} tasks are lost"));
    }
    let (lost, bound) = (state.lost(false), deeds.consumers_killed * HELD);
    if lost > bound {
        state.fail(format!("{lost} messages are lost, and the dead can have held {bound}"));
    }
    state.notices.sort();
    if state.notices.last().is_some_and(|longest| *longest > BOUND) {
        state.fail("a death was noticed too late");
    }
    print_report(&state, &deeds, seconds);
    if state.failures.is_empty() {
        println!("\nAll is well.");
        return Ok(ExitCode::SUCCESS);
    }
    println!("\nFAILED, with --seed {}:", arguments.seed);
    state.failures.iter().take(20).for_each(|failure| println!("  {failure}"));
    Ok(ExitCode::FAILURE)
}

/// Waits until a process has come.
async fn wait_for(actor: &Actor, state: &Shared) -> bool {
    wait_until(|| actor.is_here(state)).await;
    actor.is_here(state)
}

/// Waits for something, but not for ever.
async fn wait_until(mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() && started.elapsed() < BOUND {
        BEATS.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn print_report(state: &State, deeds: &Deeds, seconds: f64) {
    let line = |name: &str, value: String| println!("{name:<34}{value:>14}");
    line("kills", deeds.kills.values().sum::<u64>().to_string());
    for (kind, count) in &deeds.kills {
        line(&format!("  {kind}"), count.to_string());
    }
    line("stops", deeds.stops.to_string());
    line("ended in good order", deeds.ends.to_string());
    line("restarts", deeds.restarts.to_string());
    line("seconds", format!("{seconds:.1}"));
    line("messages", state.received.iter().sum::<u64>().to_string());
    for (lane, shape) in LANES.iter().enumerate() {
        line(&format!("  {}", shape.name), state.received[lane].to_string());
    }
    line("tasks delivered again", state.redelivered.to_string());
    line("dead letters", state.dead_letters.to_string());
    line("tasks lost", state.lost(true).to_string());
    line("work lost with a killed consumer", state.lost(false).to_string());
    line("  can have been, at most", (deeds.consumers_killed * HELD).to_string());
    let notices = &state.notices;
    line("deaths noticed", notices.len().to_string());
    let at = |share: f64| notices.get(((notices.len() as f64 * share) as usize).min(notices.len().saturating_sub(1)));
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
        let value = at(share).map_or_else(|| "-".into(), |time| format!("{:.1} ms", time.as_secs_f64() * 1e3));
        line(&format!("  {name}"), value);
    }
}
