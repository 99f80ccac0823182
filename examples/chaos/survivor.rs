//! The one that starts, kills and restarts the others, survives, and verifies.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, task::LocalSet};
use waterway::{Receiver, Segment, Sender};

use crate::{
    Arguments, BOUND, CONSUMERS, PRODUCERS, Result,
    lanes::{
        DEAD, Farewell, HELD, LANES, Lanes, Receipt, WORK, receive_dead_letters, receive_direct, receive_farewells,
        receive_receipts,
    },
    observers::Observers,
    patterns::{Court, PATTERNS},
    runtime, segment,
    stamp::Random,
};

/// Counts while the survivor gets on.
static BEATS: AtomicU64 = AtomicU64::new(0);

/// What the survivor knows.
#[derive(Debug)]
pub(crate) struct State {
    failures: Vec<String>,
    pub(crate) lanes: Lanes,
    /// How much of each pattern was seen to go well, and when last.
    patterns: [(u64, Instant); PATTERNS.len()],
    /// Processes that are not dead yet.
    pub(crate) living: BTreeSet<u32>,
    /// When a process was killed.
    pub(crate) killed: HashMap<u32, Instant>,
    /// Processes that have said that they are there.
    pub(crate) here: HashMap<u32, bool>,
    notices: Vec<Duration>,
}

impl State {
    pub(crate) fn fail(&mut self, what: impl Into<String>) {
        let what = what.into();
        eprintln!("FAILED: {what}");
        self.failures.push(what);
    }

    /// Something of a pattern went well.
    pub(crate) fn went_well(&mut self, pattern: usize) {
        self.patterns[pattern].0 += 1;
        self.patterns[pattern].1 = Instant::now();
    }
}

pub(crate) type Shared = Rc<RefCell<State>>;

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
        state.borrow_mut().living.insert(id);
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

    /// Asks it to end.
    fn ask(&mut self) {
        let _ = self.end.take().map(|end| end.send(()));
    }

    /// Asks it to end, and waits until it has.
    async fn end(&mut self, state: &Shared) {
        self.ask();
        let mut ended = None;
        wait_until(|| {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some()
        })
        .await;
        self._life = None;
        state.borrow_mut().living.remove(&self.id);
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
        let status = self.child.wait()?;
        state.borrow_mut().living.remove(&self.id);
        Ok(status)
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

pub(crate) fn survive() -> Result<ExitCode> {
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
        lanes: Lanes::new(started),
        patterns: [(0, started); PATTERNS.len()],
        living: BTreeSet::new(),
        killed: HashMap::new(),
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

    let (over, is_over) = tokio::sync::watch::channel(false);
    let judges: Vec<_> = (0..PATTERNS.len())
        .map(|pattern| {
            let court = Court::new(&segment, &place.0, &state, pattern, &is_over);
            tokio::task::spawn_local(async move {
                let done = (PATTERNS[pattern].judge)(court.clone()).await;
                done.map_err(|error| court.fail(error)).ok()
            })
        })
        .collect();
    // All is open before others come.
    tokio::task::yield_now().await;

    let mut ids = 0..;
    let mut start = |role: &'static str| {
        Actor::start(role, ids.next().unwrap_or_default(), arguments.seed, place, &segment, &state)
    };
    let mut actors = Vec::new();
    for role in std::iter::repeat_n("producer", PRODUCERS).chain(std::iter::repeat_n("consumer", CONSUMERS)) {
        actors.push(start(role)?);
    }

    let observers = Observers::start(arguments.observers, &place.0)?;
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
            if state.lanes.moved[lane].elapsed() > BOUND {
                state.fail(format!("{} stands still", shape.name));
            }
        }
        for (number, pattern) in PATTERNS.iter().enumerate() {
            if state.patterns[number].1.elapsed() > BOUND {
                state.fail(format!("{} stands still", pattern.name));
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();

    // The judges finish what they are at while everybody is there.
    over.send_replace(true);
    wait_until(|| judges.iter().all(tokio::task::JoinHandle::is_finished)).await;
    let mut last_words = Vec::new();
    for (judge, pattern) in judges.into_iter().zip(&PATTERNS) {
        match tokio::time::timeout(Duration::ZERO, judge).await {
            Ok(word) => last_words.extend(word?.map(|word| (pattern.name, word))),
            Err(_) => state.borrow_mut().fail(format!("{} does not end", pattern.name)),
        }
    }

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
        consumer.ask();
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
    for (pattern, word) in last_words {
        wait_until(|| (word.holds)()).await;
        if !(word.holds)() {
            state.borrow_mut().fail(format!("{pattern}: something is left of those that have gone"));
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
    // To the end they were there.
    match observers.end() {
        Ok((looks, failed)) if looks > 0 => {
            println!("{looks} looks of {} observers, {failed} failed", arguments.observers)
        }
        Ok(_) => {}
        Err(error) => state.fail(error.to_string()),
    }
    if state.lanes.farewells != deeds.ends * LANES.len() as u64 {
        let farewells = state.lanes.farewells;
        state.fail(format!("{} producers ended, with {farewells} farewells", deeds.ends));
    }
    let tails: Vec<String> = state
        .lanes
        .last
        .iter()
        .map(|(at, last)| (at, *last, state.lanes.direct.get(at).copied().unwrap_or_default()))
        .filter(|(_, last, received)| last != received)
        .map(|((lane, sender), last, received)| format!("{}: {sender} sent {last}, {received} came", LANES[*lane].name))
        .collect();
    tails.into_iter().for_each(|tail| state.fail(tail));
    let lost = state.lanes.lost(true);
    if lost > 0 {
        state.fail(format!("{lost} tasks are lost"));
    }
    let (lost, bound) = (state.lanes.lost(false), deeds.consumers_killed * HELD);
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
pub(crate) async fn wait_until(mut holds: impl FnMut() -> bool) {
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
    line("messages", state.lanes.received.iter().sum::<u64>().to_string());
    for (lane, shape) in LANES.iter().enumerate() {
        line(&format!("  {}", shape.name), state.lanes.received[lane].to_string());
    }
    for (pattern, (count, _)) in PATTERNS.iter().zip(&state.patterns) {
        line(pattern.name, count.to_string());
    }
    line("tasks delivered again", state.lanes.redelivered.to_string());
    line("dead letters", state.lanes.dead_letters.to_string());
    line("tasks lost", state.lanes.lost(true).to_string());
    line("work lost with a killed consumer", state.lanes.lost(false).to_string());
    line("  can have been, at most", (deeds.consumers_killed * HELD).to_string());
    let notices = &state.notices;
    line("deaths noticed", notices.len().to_string());
    let at = |share: f64| notices.get(((notices.len() as f64 * share) as usize).min(notices.len().saturating_sub(1)));
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
        let value = at(share).map_or_else(|| "-".into(), |time| format!("{:.1} ms", time.as_secs_f64() * 1e3));
        line(&format!("  {name}"), value);
    }
}
