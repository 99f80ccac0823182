//! Every example that ends by itself, run as its users run it: as processes, each of which has to end well, and in time.

mod common;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use common::Place;

/// How long an example may take, on a machine that has other things to do.
const BOUND: Duration = Duration::from_secs(90);

/// What is run here, and by which test.
const RUN: [&str; 12] = [
    "broadcast",
    "cancellation",
    "http_axum",
    "http_workers",
    "patterns",
    "pipeline",
    "replace_tokio_mpsc",
    "routing",
    "select",
    "service",
    "ticks_recv",
    "ticks_send",
];
/// What is not, and why.
const NOT_RUN: [(&str, &str); 4] = [
    ("chaos", "runs for a minute, and has a step of its own in .ci/run"),
    ("compare", "builds the peers, which takes minutes; .ci/run tests its harness"),
    ("endurance", "runs for as long as it is told to, and has a step of its own in .ci/run"),
    ("histories", "runs for as long as it is told to, and has a step of its own in .ci/run"),
];

/// The binary of an example, which cargo builds along with the tests.
fn binary(example: &str) -> PathBuf {
    // …/target/PROFILE/deps/examples-HASH
    let this = std::env::current_exe().unwrap();
    let profile = this.parent().and_then(Path::parent).expect("a test binary stands in target/PROFILE/deps");
    let binary = profile.join("examples").join(example);
    assert!(
        binary.is_file(),
        "{} is not there: `cargo test` builds the examples; with `--test examples`, run `cargo build --examples` first, \
         in the same profile",
        binary.display()
    );
    binary
}

/// An example at work: killed and reaped with the test.
struct Running {
    example: String,
    child: Option<Child>,
    written: PathBuf,
}

impl Running {
    /// Starts an example, with segments in a directory of the test's own.
    fn start(place: &Place, example: &str, arguments: &[&Path]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Into a file, so that nobody waits for a reader of a full pipe.
        let written = place.path().join(format!("written-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let child = Command::new(binary(example))
            .args(arguments)
            .env("WATERWAY_DIR", place.path().join("segments"))
            .stdin(Stdio::null())
            .stdout(fs::File::create(&written).unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { example: example.to_owned(), child: Some(child), written }
    }

    /// Waits until it ends by itself, and well, and gives what it wrote.
    fn succeed(mut self) -> String {
        let started = Instant::now();
        let child = self.child.as_mut().unwrap();
        while child.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < BOUND, "{} does not end", self.example);
            std::thread::sleep(Duration::from_millis(5));
        }
        let Output { status, stderr, .. } = self.child.take().unwrap().wait_with_output().unwrap();
        let written = fs::read_to_string(&self.written).unwrap();
        let complaints = String::from_utf8_lossy(&stderr);
        assert!(status.success(), "{} ended with {status}:\n{written}\n{complaints}", self.example);
        written
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs an example that needs nothing, and gives what it wrote.
fn run(example: &str) -> String {
    let place = Place::new();
    let written = Running::start(&place, example, &[]).succeed();
    assert_eq!(left_in(&place), [""; 0], "{example} has left segments behind");
    written
}

/// The segments that are still there.
fn left_in(place: &Place) -> Vec<String> {
    let Ok(entries) = fs::read_dir(place.path().join("segments")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_example_is_run_or_has_a_reason() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let there: BTreeSet<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs") || path.is_dir())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let known: BTreeSet<String> =
        RUN.iter().copied().chain(NOT_RUN.iter().map(|(example, _)| *example)).map(str::to_owned).collect();
    let unknown: Vec<_> = there.difference(&known).collect();
    assert!(unknown.is_empty(), "add to RUN, with a test, or to NOT_RUN, with a reason: {unknown:?}");
    for example in RUN {
        assert!(there.contains(example), "{example} is gone");
    }
}

#[test]
fn the_pipeline_counts_a_file() {
    let place = Place::new();
    let file = place.path().join("words.txt");
    fs::write(&file, "to be or not to be\nthat is the question\n".repeat(500)).unwrap();
    let written = Running::start(&place, "pipeline", &[&file]).succeed();
    assert!(written.lines().any(|line| line.split_whitespace().eq(["words", "5000"])), "{written}");
}

#[test]
fn ticks_are_sent_and_received() {
    let place = Place::new();
    let receiver = Running::start(&place, "ticks_recv", &[]);
    let sender = Running::start(&place, "ticks_send", &[Path::new("25")]);
    sender.succeed();
    let ticks = receiver.succeed();
    let numbers: Vec<u64> = ticks.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (1..=25).collect::<Vec<_>>(), "{ticks}");
}

#[test]
fn tokio_mpsc_is_replaced() {
    let written = run("replace_tokio_mpsc");
    assert!(written.contains("+    use waterway::"), "{written}");
}

#[test]
fn patterns_work_between_processes() {
    let written = run("patterns");
    assert!(written.contains("its permit came back: 2 are free"), "{written}");
    assert_eq!(written.matches("a worker has seen the end: exit status: 0").count(), 4, "{written}");
}

#[test]
fn a_broadcast_reaches_all_groups() {
    let written = run("broadcast");
    assert!(
        written.contains("the screen has seen 1000 prices, 0 of them after somebody else, and missed 0"),
        "{written}"
    );
    // All, and the one that the victim had, or had not taken yet.
    assert!(written.contains("the trader has seen 1001 prices"), "{written}");
    assert!(written.contains("1000 prices were published"), "{written}");
}

#[test]
fn http_serves_messages() {
    assert!(run("http_axum").contains("all as they were sent"));
}

#[test]
#[cfg(feature = "tower")]
fn http_asks_workers_and_all_is_answered_though_one_is_killed() {
    let written = run("http_workers");
    assert!(written.contains("was killed") && written.contains("all 120 requests are answered"), "{written}");
}

#[test]
fn select_loses_nothing() {
    let written = run("select");
    assert!(written.contains("tokio::select!") && written.contains("futures::select!"), "{written}");
}

#[test]
fn cancellation_loses_nothing() {
    assert!(run("cancellation").contains("before the stop"));
}

#[test]
fn a_service_answers_and_its_death_is_told() {
    let written = run("service");
    assert!(written.contains("12 squared is 144"), "{written}");
    assert!(written.contains("[0, 1, 4, 9, 16, 25, 36, 49, 64, 81]"), "{written}");
    assert!(written.contains("no answer in time") && written.contains("the server died"), "{written}");
}

#[test]
fn orders_are_routed_by_customer_also_when_a_worker_is_killed() {
    let written = run("routing");
    assert!(written.contains("2000 orders of 50 customers, each customer's in order"), "{written}");
    assert_eq!(written.matches("a worker has seen the end: exit status: 0").count(), 2, "{written}");
}
