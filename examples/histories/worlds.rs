//! Where programs are played: by threads, in one segment for all histories, or by processes, in a new one for each.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use waterway::{Segment, SegmentOptions};

use crate::{
    KINDS, Result,
    actor::{PLAY, play as play_actor, wait_until},
    channel,
    judge::{History, judge},
    log::{Event, GONE, Log, PARENT},
    named,
    program::{Harm, Kind, MOST_ACTORS, Program, World},
    routed, service,
};

/// How long a history may take, on a machine that has other things to do.
const BOUND: Duration = Duration::from_secs(60);
/// How long the dead may take to be buried.
const BURIAL: Duration = Duration::from_secs(20);

/// How long something must stay to be left.
const STAYS: Duration = Duration::from_secs(3);

const ROLE: &str = "WATERWAY_HISTORIES_ROLE";
const PLACE: &str = "WATERWAY_HISTORIES_PLACE";

/// A directory that is gone when all is over.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What is there for all histories of a world.
pub(crate) struct Ground {
    pub(crate) world: World,
    pub(crate) histories: u64,
    pub(crate) acts: u64,
    segments: Vec<Segment>,
    log: Arc<Log>,
    place: Place,
    /// Of the history that is being played, and of how many there were.
    seed: Arc<AtomicU64>,
    count: Arc<AtomicU64>,
}

fn options(place: &Path) -> SegmentOptions {
    Segment::options().dir(place).size(4 << 20).max_size(4 << 20).participants(24).channels(64)
}

/// For the histories of threads.
fn segments(world: World, place: &Path) -> Result<Vec<Segment>> {
    Ok(match world {
        World::Threads => vec![Segment::options().size(4 << 20).max_size(4 << 20).channels(64).in_process()?],
        World::Participants => {
            let opened = (0..3).map(|_| options(place).open_or_create("threads"));
            opened.collect::<std::result::Result<_, _>>()?
        }
        World::Processes => Vec::new(),
    })
}

impl Ground {
    pub(crate) fn new(world: World, player: usize) -> Result<Self> {
        let base = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
        let place = Place(base.join(format!("waterway-histories-{world:?}-{player}-{}", std::process::id())));
        std::fs::create_dir(&place.0)?;
        std::fs::set_permissions(&place.0, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        let segments = segments(world, &place.0)?;
        let log = match world {
            World::Processes => Log::shared(&place.0.join("log"))?,
            _ => Log::anonymous()?,
        };
        let log = Arc::new(log);
        let (seed, count) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        if world != World::Processes {
            watch_over(world, Arc::clone(&seed), Arc::clone(&count), Arc::clone(&log));
        }
        Ok(Self { world, histories: 0, acts: 0, segments, log, place, seed, count })
    }

    /// Plays a program, and says what was wrong.
    pub(crate) fn history(&mut self, program: &Program, only: Option<Kind>) -> Result<Vec<String>> {
        self.seed.store(program.seed, SeqCst);
        self.count.fetch_add(1, SeqCst);
        self.log.reset(program.actors.len());
        let mut killed = vec![None; MOST_ACTORS + 1];
        let mut wrong = match program.world {
            World::Processes => self.processes(program, only, &mut killed)?,
            _ => self.threads(program),
        };
        self.count.fetch_add(1, SeqCst);
        let events = self.log.events(program.actors.len());
        self.histories += 1;
        self.acts += events.len() as u64;
        wrong.extend(judge(&History { program, events, killed, settled: self.log.settled() }));
        if !wrong.is_empty() {
            // What is left would be in the way of the next one.
            self.segments.clear();
            self.segments = segments(self.world, &self.place.0)?;
        }
        Ok(wrong)
    }

    /// What was done in the last history.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.log.events(MOST_ACTORS)
    }

    fn threads(&self, program: &Program) -> Vec<String> {
        let mut wrong = Vec::new();
        thread::scope(|scope| {
            let threads: Vec<_> = (0..program.actors.len())
                .map(|actor| {
                    let (segment, log) = (&self.segments[actor % self.segments.len()], &*self.log);
                    scope.spawn(move || play_caught(program, actor, segment, log))
                })
                .collect();
            wrong.extend(threads.into_iter().filter_map(|thread| thread.join().unwrap_or_default()));
        });
        wrong.extend(left(&self.segments[0], program));
        wrong
    }

    fn processes(&self, program: &Program, only: Option<Kind>, killed: &mut [Option<u64>]) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        let segment = options(&self.place.0).create("history")?;
        self.log.enter(PARENT, 0);
        let kind = KINDS.iter().find(|(_, kind)| Some(*kind) == only).map_or("all", |(name, _)| name);
        let count = program.actors.len() / program.threads_per_process;
        let mut processes = Vec::new();
        for process in 0..count {
            let child = Command::new(std::env::current_exe()?)
                .env(ROLE, format!("{} {kind} {process}", program.seed))
                .env(PLACE, &self.place.0)
                .stdin(Stdio::null())
                .spawn()?;
            processes.push(Process { child, is_killed: false });
        }
        let started = Instant::now();
        let is_late = || started.elapsed() > BOUND;
        // All but the parent have come.
        self.log.enter(PARENT, PLAY);
        wait_until(|| self.log.have_all_entered(PLAY) || is_late());
        for harm in &program.harm {
            match *harm {
                Harm::Kill { process, after_micros } => {
                    thread::sleep(Duration::from_micros(after_micros));
                    let now = self.log.tick();
                    if processes[process].kill() {
                        for actor in 0..program.threads_per_process {
                            let actor = process * program.threads_per_process + actor;
                            killed[actor] = Some(now);
                            self.log.enter(actor, GONE);
                        }
                    }
                }
                Harm::Stop { process, after_micros, for_micros } => {
                    thread::sleep(Duration::from_micros(after_micros));
                    processes[process].signal(libc::SIGSTOP);
                    thread::sleep(Duration::from_micros(for_micros));
                    processes[process].signal(libc::SIGCONT);
                }
            }
        }
        // What the dead had is where it belongs before all is received.
        let dead: Vec<u32> =
            processes.iter().filter(|process| process.is_killed).map(|process| process.child.id()).collect();
        let died = Instant::now();
        let is_buried = || {
            segment.bury_the_dead();
            !segment.participants().iter().any(|participant| dead.contains(&participant.pid))
        };
        wait_until(|| is_buried() || died.elapsed() > BURIAL);
        if !is_buried() {
            wrong.push("the dead were not buried".into());
        }
        self.log.enter(PARENT, GONE);
        let mut has_hung = false;
        for (number, process) in processes.iter_mut().enumerate() {
            if process.is_killed {
                continue;
            }
            let mut ended = None;
            wait_until(|| {
                ended = process.child.try_wait().ok().flatten();
                ended.is_some() || is_late()
            });
            match ended {
                Some(status) if status.success() => {}
                Some(status) => wrong.push(format!("process {number} ended with {status}")),
                None => {
                    has_hung = true;
                    wrong.push(format!("process {number} hangs: {}", self.log.state()));
                }
            }
        }
        drop(processes);
        if has_hung {
            return Ok(wrong);
        }
        let ended = Instant::now();
        wait_until(|| segment.participants().len() == 1 || ended.elapsed() > BURIAL);
        wrong.extend(left(&segment, program));
        Ok(wrong)
    }
}

/// A process of a history: killed and reaped with it.
struct Process {
    child: Child,
    is_killed: bool,
}

impl Process {
    fn signal(&self, signal: i32) {
        if !self.is_killed {
            // SAFETY: a plain system call on a child that has not been waited for.
            unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
        }
    }

    /// Unless it has ended.
    fn kill(&mut self) -> bool {
        if self.is_killed || !matches!(self.child.try_wait(), Ok(None)) {
            return false;
        }
        self.is_killed = self.child.kill().is_ok();
        let _ = self.child.wait();
        self.is_killed
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is there that should not be, when nobody has anything any more, and does not go: the parent's own bridge may be at work
/// for a moment, about those that have gone.
fn left(segment: &Segment, program: &Program) -> Vec<String> {
    let ended = Instant::now();
    let mut wrong = Vec::new();
    wait_until(|| {
        wrong = left_now(segment, program);
        wrong.is_empty() || ended.elapsed() > STAYS
    });
    wrong
}

/// What is there that should not be, at the moment.
fn left_now(segment: &Segment, program: &Program) -> Vec<String> {
    let mut wrong = Vec::new();
    let names: Vec<String> = segment.channels().into_iter().map(|channel| channel.name).collect();
    for object in &program.objects {
        let is_there = names.iter().any(|name| name.starts_with(&object.name()));
        match object.kind {
            Kind::Channel if is_there => drop(channel::empty(segment, object)),
            Kind::Routed if is_there => drop(routed::empty(segment, object)),
            Kind::Service if is_there => drop(service::empty(segment, object)),
            _ => {}
        }
    }
    let report = segment.check();
    if !report.is_clean() {
        wrong.push(format!("broken: {:?}", report.problems));
    }
    if program.objects.iter().any(|object| object.persistent) {
        return wrong;
    }
    let channels: Vec<String> = segment.channels().into_iter().map(|channel| channel.name).collect();
    if !channels.is_empty() {
        wrong.push(format!("channels are left: {channels:?}"));
    }
    let held: usize = report.sectors.iter().map(|sector| sector.allocated_blocks + sector.in_flight_blocks).sum();
    if held > 0 {
        wrong.push(format!("{held} blocks are left: {:?}", segment.allocator().blocks().collect::<Vec<_>>()));
    }
    wrong
}

fn play_caught(program: &Program, actor: usize, segment: &Segment, log: &Log) -> Option<String> {
    let played = catch_unwind(AssertUnwindSafe(|| play_actor(program, actor, segment, log)));
    log.enter(actor, GONE);
    played.is_err().then(|| format!("actor {actor} panicked"))
}

/// Threads that hang cannot be ended, but all of this can.
fn watch_over(world: World, seed: Arc<AtomicU64>, count: Arc<AtomicU64>, log: Arc<Log>) {
    thread::spawn(move || {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            thread::sleep(Duration::from_millis(500));
            let now = count.load(SeqCst);
            if now != last || now.is_multiple_of(2) {
                (last, since) = (now, Instant::now());
            } else if since.elapsed() > BOUND {
                println!("\nFAILED: --seed {} --same, {world:?}: it hangs", seed.load(SeqCst));
                println!("{}", log.state());
                std::process::exit(1);
            }
        }
    });
}

/// What this process is to play, if it is a child.
pub(crate) fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

pub(crate) fn play(role: &str) -> Result<ExitCode> {
    // SAFETY: a plain system call: we do not outlive the parent.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let place = PathBuf::from(std::env::var_os(PLACE).ok_or("no place")?);
    let words: Vec<&str> = role.split(' ').collect();
    let [seed, kind, process] = words[..] else { return Err("no role".into()) };
    let only = if kind == "all" { None } else { Some(named(&KINDS, kind)?) };
    let program = Program::new(seed.parse()?, World::Processes, only);
    let process: usize = process.parse()?;
    let log = Log::shared(&place.join("log"))?;
    let segment = options(&place).open("history")?;
    let actors = process * program.threads_per_process..(process + 1) * program.threads_per_process;
    let panicked = thread::scope(|scope| {
        let threads: Vec<_> = actors
            .map(|actor| {
                let (program, segment, log) = (&program, &segment, &log);
                scope.spawn(move || play_caught(program, actor, segment, log))
            })
            .collect();
        threads.into_iter().any(|thread| thread.join().map_or(true, |wrong| wrong.is_some()))
    });
    Ok(if panicked { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
