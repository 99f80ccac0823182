//! What the tests share: a place of their own, other processes, and messages that show whether they are whole.

#![allow(dead_code)] // Each test file uses its own part.

use std::{
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use waterway::{Segment, SegmentOptions, blocks::Handle};
use zerocopy::{FromBytes, IntoBytes};

/// Tells a re-executed test binary what to do.
const ROLE: &str = "WATERWAY_TEST_ROLE";
/// Tells it where.
const PLACE: &str = "WATERWAY_TEST_PLACE";
/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// As many rounds as `WATERWAY_TEST_ROUNDS` asks for, or as many as a test that runs every day can have.
pub(crate) fn rounds(usual: u64) -> u64 {
    std::env::var("WATERWAY_TEST_ROUNDS")
        .map_or(usual, |rounds| rounds.parse().expect("WATERWAY_TEST_ROUNDS is a number"))
}

/// A directory of this test's own, gone when it ends.
pub(crate) struct Place(PathBuf, bool);

impl Place {
    /// A new one; in a child, the one of its parent.
    pub(crate) fn new() -> Self {
        if let Some(place) = std::env::var_os(PLACE) {
            return Self(place.into(), false);
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let base = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
        let path = base.join(format!("waterway-test-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        Self(path, true)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn options(&self) -> SegmentOptions {
        Segment::options().dir(&self.0)
    }

    /// Starts this very test again in another process, with a role to play.
    pub(crate) fn spawn(&self, test: &str, role: &str) -> Process {
        self.spawn_with(test, role, &[])
    }

    /// The same, with more in its environment.
    pub(crate) fn spawn_with(&self, test: &str, role: &str, environment: &[(&str, &str)]) -> Process {
        let mut command = self.command(test, role);
        Process(command.envs(environment.iter().copied()).spawn().unwrap())
    }

    /// The same, with pipes to its standard input and from its standard output, in which the harness writes, too.
    pub(crate) fn spawn_to_talk(&self, test: &str, role: &str) -> (Process, ChildStdin, ChildStdout) {
        let mut command = self.command(test, role);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        (Process(child), input, output)
    }

    fn command(&self, test: &str, role: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(PLACE, &self.0)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.1 {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// The role of this process, if it is a child of a test.
pub(crate) fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// A process of a test: killed and reaped with it.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }

    /// Waits until it ends by itself.
    pub(crate) fn finish(mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "process {} does not end", self.pid());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until it ends by itself, and well.
    pub(crate) fn succeed(self) {
        let pid = self.pid();
        let status = self.finish();
        assert!(status.success(), "process {pid} ended with {status}");
    }

    /// Another signal, such as SIGSTOP.
    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: a plain system call on a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(self.pid() as libc::pid_t, signal) }, 0);
    }

    /// SIGSTOP, and waits until it stands still.
    pub(crate) fn stop(&self) {
        self.signal(libc::SIGSTOP);
        let stat = format!("/proc/{}/stat", self.pid());
        // The state stands behind the name, which is in brackets.
        let state = || std::fs::read_to_string(&stat).unwrap().rsplit(") ").next().unwrap().starts_with('T');
        eventually("the process is stopped", state);
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A segment for this process alone.
pub(crate) fn in_process() -> Segment {
    in_process_of(4)
}

/// The same, of so many mebibytes.
pub(crate) fn in_process_of(mebibytes: usize) -> Segment {
    Segment::options().size(mebibytes << 20).in_process().unwrap()
}

/// Two participants of one segment, as two processes would be.
pub(crate) fn two() -> (Place, Segment, Segment) {
    let place = Place::new();
    let one = place.options().size(4 << 20).create("two").unwrap();
    let other = place.options().open("two").unwrap();
    (place, one, other)
}

/// Bytes that anybody has. Nothing may be broken.
pub(crate) fn held(segment: &Segment) -> usize {
    let report = segment.check();
    assert!(report.is_clean(), "{report:?}");
    report.sectors.iter().map(|sector| sector.allocated_bytes + sector.in_flight_bytes).sum()
}

/// Nothing is broken, and nobody holds anything.
pub(crate) fn assert_empty(segment: &Segment) {
    assert_eq!(held(segment), 0, "{:?}", segment.check());
    assert_eq!(segment.allocator().blocks().count(), 0);
}

/// Blocks that somebody has allocated.
pub(crate) fn allocated(segment: &Segment) -> usize {
    segment.check().sectors.iter().map(|sector| sector.allocated_blocks).sum()
}

/// Hands a handle to the children of a test, through a file.
pub(crate) fn tell(place: &Place, handle: Handle) {
    let path = place.path().join("handle");
    std::fs::write(path.with_extension("new"), handle.as_bytes()).unwrap();
    std::fs::rename(path.with_extension("new"), path).unwrap();
}

/// The handle that the parent tells.
pub(crate) fn told(place: &Place) -> Handle {
    let path = place.path().join("handle");
    eventually("a handle is there", || path.exists());
    Handle::read_from_bytes(&std::fs::read(path).unwrap()).unwrap()
}

/// Says that a child is where it should be.
pub(crate) fn ready(place: &Place) {
    std::fs::write(place.path().join(format!("ready-{}", std::process::id())), []).unwrap();
}

pub(crate) fn wait_until_ready(place: &Place, process: &Process) {
    let path = place.path().join(format!("ready-{}", process.pid()));
    eventually("the child is ready", || path.exists());
}

/// Waits for the SIGKILL that is to come; not for ever, should the parent have gone.
pub(crate) fn wait_to_be_killed() -> ! {
    std::thread::sleep(PATIENCE);
    panic!("nobody has killed this process");
}

/// Names of the files of a directory.
pub(crate) fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut files: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    files
}

/// Works with whatever has opened, as far as it lets us.
pub(crate) fn exercise(segment: &Segment) {
    segment.check();
    segment.participants();
    segment.channels();
    let Ok((sender, receiver)) = segment.bytes("exercise").capacity(8).open() else { return };
    for len in [0, 1, 100, 5000] {
        let _ = sender.try_send(vec![7; len]);
    }
    while let Ok(message) = receiver.try_recv() {
        assert!(message.iter().all(|byte| *byte == 7) || !segment.check().is_clean());
    }
    drop((sender, receiver));
    if let Ok((publisher, subscriber)) = segment.broadcast::<[u8]>("exercise-all").capacity(4).max_groups(2).open() {
        for len in [0, 1, 100, 5000, 10, 20] {
            let _ = publisher.try_send(vec![7; len]);
        }
        for _ in 0..8 {
            if let Ok(message) = subscriber.try_recv() {
                assert!(message.iter().all(|byte| *byte == 7) || !segment.check().is_clean());
            }
        }
    }
    segment.check();
}

/// Set in the process that sees the small file system.
const TINY: &str = "WATERWAY_TEST_TINY";

/// Runs the rest of a test in a process of its own, where the place is a file system of so many mebibytes. Says that it
/// is skipped where none can be mounted.
pub(crate) fn in_a_file_system_of(mebibytes: u32, test: &str, rest: impl FnOnce(&Path)) {
    if let Some(tiny) = std::env::var_os(TINY) {
        return rest(Path::new(&tiny));
    }
    let place = Place::new();
    let script = format!(r#"mount -t tmpfs -o size={mebibytes}m,mode=0700 tmpfs "$1" || exit 77; shift; exec "$@""#);
    for namespaces in ["-m", "-Urm"] {
        let run = Command::new("unshare")
            .args([namespaces, "sh", "-c", &script, "sh"])
            .arg(place.path())
            .arg(std::env::current_exe().unwrap())
            .args([test, "--exact", "--test-threads=1"])
            .env(TINY, place.path())
            .stdin(Stdio::null())
            .output();
        let Ok(run) = run else { continue };
        let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        if said.contains("1 passed") && run.status.success() {
            return;
        }
        assert!(!said.contains("running 1 test"), "{said}");
    }
    eprintln!("skipped: no file system can be mounted here");
}

/// Waits for something that must come true.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs a future, but not for ever.
pub(crate) fn within<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("this takes too long") })
}

/// A random number generator that is good enough for tests, and repeatable.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// A message that shows who sent it, which one it is, and whether all of it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub sender: u32,
    pub number: u64,
}

const STAMP_BYTES: usize = 24;

impl Stamp {
    /// A message of `len` bytes, or as many as the stamp needs; of 0 bytes if `len` is 0.
    pub(crate) fn message(self, len: usize) -> Vec<u8> {
        if len == 0 {
            return Vec::new();
        }
        let len = len.max(STAMP_BYTES);
        let mut bytes = Vec::with_capacity(len);
        bytes.extend(self.sender.to_le_bytes());
        bytes.extend((len as u32).to_le_bytes());
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.seed().to_le_bytes());
        let mut random = Random::new(self.seed());
        while bytes.len() < len {
            let word = random.next().to_le_bytes();
            let room = (len - bytes.len()).min(8);
            bytes.extend(&word[..room]);
        }
        bytes
    }

    fn seed(self) -> u64 {
        u64::from(self.sender) << 40 ^ self.number
    }

    /// Reads a message, and checks every byte of it. `None` for an empty one.
    pub(crate) fn verify(message: &[u8]) -> Option<Self> {
        if message.is_empty() {
            return None;
        }
        assert!(message.len() >= STAMP_BYTES, "a message of {} bytes", message.len());
        let word = |at: usize| u64::from_le_bytes(message[at..at + 8].try_into().unwrap());
        let stamp = Self { sender: word(0) as u32, number: word(8) };
        assert_eq!((word(0) >> 32) as usize, message.len(), "the length of {stamp:?}");
        assert!(message == stamp.message(message.len()), "{stamp:?} is damaged");
        Some(stamp)
    }
}

/// Lets threads try for something at the same moment, again and again; what they got, round by round.
pub(crate) fn at_once<T>(rounds: usize, threads: usize, attempt: impl Fn(usize) -> Option<T> + Sync) -> Vec<usize> {
    let (gate, end) = (std::sync::atomic::AtomicUsize::new(0), std::sync::Barrier::new(threads));
    let got: Vec<std::sync::atomic::AtomicUsize> =
        (0..rounds).map(|_| std::sync::atomic::AtomicUsize::new(0)).collect();
    std::thread::scope(|scope| {
        for number in 0..threads {
            let (gate, end, got, attempt) = (&gate, &end, &got, &attempt);
            scope.spawn(move || {
                for (round, got) in got.iter().enumerate() {
                    gate.fetch_add(1, Ordering::SeqCst);
                    let mut looks = 0;
                    while gate.load(Ordering::SeqCst) < threads * (round + 1) {
                        looks += 1;
                        if looks % 1000 == 0 {
                            std::thread::yield_now();
                        }
                        std::hint::spin_loop();
                    }
                    let had = attempt(number);
                    got.fetch_add(usize::from(had.is_some()), Ordering::SeqCst);
                    end.wait();
                    drop(had);
                    end.wait();
                }
            });
        }
    });
    got.into_iter().map(std::sync::atomic::AtomicUsize::into_inner).collect()
}
