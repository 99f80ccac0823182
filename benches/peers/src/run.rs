//! One measurement: its processes are started, watched, and reaped; what they have seen is read and checked.

use std::{
    fs, io,
    os::{fd::RawFd, unix::fs::PermissionsExt, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{
        AtomicBool, AtomicU32,
        Ordering::{Relaxed, SeqCst},
    },
    time::{Duration, Instant},
};

use crate::{
    page::{File, Page, Slot},
    peers,
    spec::{Kind, Role, Spec},
    syscalls,
};

/// The first word of the command line of a process that takes part.
pub const WORKER: &str = "--worker";

/// What was seen in one measurement.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub messages: u64,
    pub seconds: f64,
    /// Round trips in nanoseconds, sorted.
    pub samples: Vec<u32>,
    /// How often processes (threads, if there is one process) went to sleep, per message or round trip.
    pub sleeps: f64,
    /// Sleeps and processor time in all.
    pub all_sleeps: u64,
    pub cpu_seconds: f64,
    /// Of a value that is read and written at once: nanoseconds per write.
    pub write_nanos: Option<f64>,
    /// System calls in all, if they were counted.
    pub calls: u64,
}

impl Seen {
    /// Nanoseconds within which that part of all round trips were back.
    pub fn percentile(&self, part: f64) -> f64 {
        let last = self.samples.len() - 1;
        f64::from(self.samples[(last as f64 * part).round() as usize])
    }
}

/// A directory for all measurements, gone at the end.
pub struct Place(PathBuf);

impl Place {
    pub fn new() -> io::Result<Self> {
        let base = Path::new("/dev/shm");
        let base = if base.is_dir() { base.to_owned() } else { std::env::temp_dir() };
        let path = base.join(format!("waterway-compare-{}", std::process::id()));
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        Ok(Self(path))
    }

    /// One for a measurement.
    fn sub(&self) -> io::Result<Sub> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // The name is also a prefix of files of iceoryx2, so it must be nobody else's.
        let name = format!("wwc{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = self.0.join(name);
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        Ok(Sub(path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Sub(PathBuf);

impl Drop for Sub {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        // What iceoryx2 leaves behind when it is killed.
        let prefix = peers::prefix(&self.0);
        for file in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            if file.file_name().to_string_lossy().starts_with(&prefix) {
                let _ = fs::remove_file(file.path());
            }
        }
    }
}

/// Processes of a measurement: killed and reaped with it.
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Has what was started ended in good order when somebody interrupts it.
pub fn heed_interrupts() {
    extern "C" fn note(_: i32) {
        INTERRUPTED.store(true, Relaxed);
    }
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only stores into an atomic.
        unsafe { libc::signal(signal, note as *const () as libc::sighandler_t) };
    }
}

pub fn interrupted() -> bool {
    INTERRUPTED.load(Relaxed)
}

/// Measures once.
pub fn measure(place: &Place, spec: &Spec) -> Result<Seen, String> {
    let error = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let sub = place.sub().map_err(error("no directory for segments"))?;
    let mut spec = Spec { place: sub.0.clone(), ..spec.clone() };
    if spec.peer == peers::ONE_TO_ONE {
        (spec.senders, spec.receivers) = (1, 1);
    }
    let file = File::new().map_err(error("no shared page"))?;
    let page = file.map().map_err(error("no shared page"))?;
    let in_process = peers::peer(&spec.peer).is_some_and(|peer| peer.in_process);
    let roles = if in_process { vec![Role::Ping] } else { spec.roles() };
    let mut children = Children(Vec::new());
    for role in roles {
        children.0.push(start(&spec, role, file.fd()).map_err(error("no process"))?);
    }
    let patience = Duration::from_millis(30_000 + 10 * spec.millis);
    let started = Instant::now();
    loop {
        let mut running = 0;
        for child in &mut children.0 {
            match child.try_wait().map_err(error("no status"))? {
                Some(status) if !status.success() => {
                    page.fail();
                    return Err(format!("a process ended with {status}"));
                }
                Some(_) => {}
                None => running += 1,
            }
        }
        if running == 0 {
            return read(&spec, &page);
        }
        if interrupted() {
            return Err("interrupted".to_owned());
        }
        if started.elapsed() > patience {
            return Err(format!("not done after {patience:?}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn start(spec: &Spec, role: Role, page: RawFd) -> io::Result<Child> {
    let role = match role {
        Role::Sender(index) => format!("sender:{index}"),
        Role::Receiver(index) => format!("receiver:{index}"),
        Role::Ping => "ping:0".to_owned(),
        Role::Echo => "echo:0".to_owned(),
    };
    let mut command = Command::new(std::env::current_exe()?);
    command.args([WORKER, &page.to_string(), &role]).args(spec.to_args());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let parent = std::process::id();
    // SAFETY: plain system calls.
    unsafe {
        command.pre_exec(move || {
            // Nobody outlives the parent.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() as u32 == parent { Ok(()) } else { Err(io::Error::other("the parent is gone")) }
        });
    }
    command.spawn()
}

/// What a process of a measurement does: `args` are those behind `WORKER`.
pub fn work(mut args: impl Iterator<Item = String>) -> Option<()> {
    let page: RawFd = args.next()?.parse().ok()?;
    let page = Page::inherited(page).ok()?;
    let role = args.next()?;
    let (kind, index) = role.split_once(':')?;
    let index = index.parse().ok()?;
    let role = match kind {
        "sender" => Role::Sender(index),
        "receiver" => Role::Receiver(index),
        "ping" => Role::Ping,
        _ => Role::Echo,
    };
    // Used until the process ends.
    let spec: &'static Spec = Box::leak(Box::new(Spec::from_args(args)?));
    if spec.counted {
        syscalls::count();
    }
    peers::work(spec, page, role);
    Some(())
}

/// Reads the page, and checks that every message came once to whom it had to come.
fn read(spec: &Spec, page: &Page) -> Result<Seen, String> {
    let slots = &page.slots[..spec.roles().len()];
    let all = |of: fn(&Slot) -> u64| slots.iter().map(of).fold(0, u64::wrapping_add);
    let each = page.messages.load(SeqCst);
    let (senders, receivers) = (spec.senders as u64, spec.receivers as u64);
    // Messages or the like that were measured, and how many series of numbers were received.
    let (messages, series) = match spec.kind {
        Kind::Throughput => (each * senders, senders),
        Kind::Broadcast | Kind::Publish => (each * senders, senders * receivers),
        Kind::RoundTrip { .. } | Kind::Call => (each, 2),
        Kind::Read { .. } | Kind::Write => (each, 0),
        Kind::Idle { .. } => (0, 0),
    };
    if series > 0 && spec.peer != "memory" {
        let sum = each.wrapping_mul(each.wrapping_sub(1)) / 2;
        if all(|slot| slot.count.load(SeqCst)) != each * series || all(|slot| slot.sum.load(SeqCst)) != sum * series {
            return Err(format!("{each} messages were sent, but others received"));
        }
    }
    if let Kind::Read { written: true } = spec.kind
        && slots[1].sum.load(SeqCst) == 0
    {
        return Err("no new value was read".to_owned());
    }
    let started = slots.iter().map(|slot| slot.started.load(SeqCst)).min().unwrap_or(0);
    let ended = slots.iter().map(|slot| slot.ended.load(SeqCst)).max().unwrap_or(0);
    let time_of = |slot: &Slot| slot.ended.load(SeqCst) - slot.started.load(SeqCst);
    let nanos = match spec.kind {
        Kind::Write => time_of(&slots[0]),
        Kind::Read { .. } => time_of(&slots[1]),
        Kind::Publish => slots[0].busy.load(SeqCst),
        _ => ended - started,
    };
    let writes = slots[0].count.load(SeqCst);
    let written = matches!(spec.kind, Kind::Read { written: true });
    let mut samples = Vec::new();
    if spec.kind.idle_us().is_some() {
        samples.extend(page.samples[..each as usize].iter().map(|sample| sample.load(SeqCst)));
        samples.sort_unstable();
    }
    let all_sleeps = all(|slot| slot.sleeps.load(SeqCst));
    Ok(Seen {
        messages,
        seconds: nanos as f64 / 1e9,
        samples,
        sleeps: all_sleeps as f64 / messages.max(1) as f64,
        all_sleeps,
        cpu_seconds: all(|slot| slot.cpu.load(SeqCst)) as f64 / 1e9,
        write_nanos: written.then(|| time_of(&slots[0]) as f64 / writes as f64),
        calls: all(|slot| slot.calls.load(SeqCst)),
    })
}
