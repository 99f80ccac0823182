//! A wake reaches somebody who can use it: whoever was told of it may be stopped or go, and so may
//! whoever has told it. Whatever is waited for, and however long.
//!
//! The tests assert what is promised under any load, and print what they see. On a machine that has
//! processors to spare, `cargo test --release --test wakes -- --ignored --nocapture` measures it:
//! see `docs/guarantees.md`.

mod common;

use std::{
    pin::Pin,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use common::{PATIENCE, Place, Process, eventually, ready, role, wait_to_be_killed, wait_until_ready, within};
use waterway::{
    Delivery, Receiver, Segment,
    policy::{Policy, Priority, PriorityBy, RouteKey},
    semaphore,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Who has waited for nothing for so long looks for lost wakes ever more seldom.
const LONG: Duration = Duration::from_secs(9);
/// The test as which a child is started.
const TEST: &str = "who_is_stopped_and_was_told_first_delays_nobody_who_has_waited_long";
/// What is promised under any load, and less than the seconds that it would take without the second
/// look.
const SOON: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Job(u64);

impl Policy for Job {
    fn route(&self) -> RouteKey {
        0u64.into()
    }
}

/// What processes wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pattern {
    Message,
    MessageThatComesBack,
    MessageOfALevel,
    Room,
    RoomOfAPartition,
    Reservation,
    Permit,
    Notification,
    Group,
    Request,
}

const ALL: [Pattern; 10] = [
    Pattern::Message,
    Pattern::MessageThatComesBack,
    Pattern::MessageOfALevel,
    Pattern::Room,
    Pattern::RoomOfAPartition,
    Pattern::Reservation,
    Pattern::Permit,
    Pattern::Notification,
    Pattern::Group,
    Pattern::Request,
];

fn open(place: &Place) -> Segment {
    place.options().size(8 << 20).participants(16).open_or_create("wakes").unwrap()
}

/// The end of the channel in which children say that they have got something.
fn reports(segment: &Segment) -> Receiver<u32> {
    segment.channel::<u32>("reports").capacity(64).receiver().unwrap()
}

/// A child: waits for the same thing again and again, and reports each time that it gets it.
fn wait_for(segment: &Segment, pattern: Pattern, place: &Place) {
    let reports = segment.channel::<u32>("reports").capacity(64).sender().unwrap();
    let me = std::process::id();
    let report = || reports.try_send(me).unwrap();
    macro_rules! jobs {
        ($options:expr) => {{
            let jobs = $options.receiver().unwrap();
            ready(place);
            while let Some(_) = jobs.recv().await {
                report();
            }
        }};
    }
    within_long(async {
        match pattern {
            Pattern::Message => jobs!(segment.channel::<Job>("jobs")),
            Pattern::MessageThatComesBack => {
                let jobs = segment.channel::<Job>("jobs").delivery(Delivery::AtLeastOnce { max_deliveries: 3 });
                let jobs = jobs.receiver().unwrap();
                ready(place);
                while let Some(job) = jobs.recv().await {
                    job.ack();
                    report();
                }
            }
            Pattern::MessageOfALevel => jobs!(segment.channel::<Job>("jobs").policy(by_level())),
            Pattern::Room => {
                let jobs = segment.channel::<Job>("jobs").capacity(1).sender().unwrap();
                ready(place);
                while jobs.send(Job(1)).await.is_ok() {
                    report();
                }
            }
            Pattern::RoomOfAPartition => {
                let jobs = segment.channel::<Job>("jobs").capacity(1).routed().sender().unwrap();
                ready(place);
                while jobs.send(Job(1)).await.is_ok() {
                    report();
                }
            }
            Pattern::Reservation => {
                let jobs = segment.channel::<Job>("jobs").capacity(1).sender().unwrap();
                ready(place);
                while let Ok(permit) = jobs.reserve().await {
                    permit.send(Job(1));
                    report();
                }
            }
            Pattern::Permit => {
                let semaphore = segment.semaphore("permits").permits(1).open().unwrap();
                ready(place);
                while let Ok(permit) = semaphore.acquire().await {
                    // What it has got it keeps: the parent makes another one.
                    permit.forget();
                    report();
                }
            }
            Pattern::Notification => {
                let notify = segment.notify("tick").unwrap();
                ready(place);
                loop {
                    notify.notified().await;
                    report();
                }
            }
            Pattern::Group => {
                let jobs = segment.broadcast::<Job>("jobs").group("workers").subscriber().unwrap();
                ready(place);
                while jobs.recv().await.is_ok() {
                    report();
                }
            }
            Pattern::Request => {
                let server = segment.service::<u64, u64>("double").server().unwrap();
                ready(place);
                while let Some(request) = server.next().await {
                    let number = *request;
                    request.respond(2 * number).await.unwrap();
                    report();
                }
            }
        }
    });
}

fn by_level() -> PriorityBy<fn(&Job) -> Priority> {
    PriorityBy(|_| Priority::High)
}

/// Runs a child's future until the child is killed.
fn within_long<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime
        .block_on(async { tokio::time::timeout(2 * PATIENCE, future).await.expect("nobody has killed this process") })
}

fn signal(process: &Process, signal: i32) {
    // SAFETY: a plain system call on a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(process.pid() as libc::pid_t, signal) }, 0);
}

/// Stops a child, and waits until all its threads are.
fn stop(process: &Process) {
    signal(process, libc::SIGSTOP);
    let is_stopped = |task: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        stat[stat.rfind(')').unwrap()..].starts_with(") T")
    };
    eventually("the child is stopped", || {
        std::fs::read_dir(format!("/proc/{}/task", process.pid())).unwrap().all(is_stopped)
    });
}

/// Lets one more of those who wait have what they wait for, each time that it is called.
type Give<'a> = Box<dyn FnMut() + 'a>;

/// Calls `work` with what gives.
fn with_giver<R>(segment: &Segment, pattern: Pattern, work: impl FnOnce(Give<'_>) -> R) -> R {
    match pattern {
        Pattern::Message => {
            let jobs = segment.channel::<Job>("jobs").sender().unwrap();
            work(Box::new(|| jobs.try_send(Job(7)).unwrap()))
        }
        Pattern::MessageThatComesBack => {
            let jobs = segment.channel::<Job>("jobs").delivery(Delivery::AtLeastOnce { max_deliveries: 3 });
            let jobs = jobs.sender().unwrap();
            work(Box::new(|| jobs.try_send(Job(7)).unwrap()))
        }
        Pattern::MessageOfALevel => {
            let jobs = segment.channel::<Job>("jobs").policy(by_level()).sender().unwrap();
            work(Box::new(|| jobs.try_send(Job(7)).unwrap()))
        }
        Pattern::Room | Pattern::Reservation => {
            let (sender, receiver) = segment.channel::<Job>("jobs").capacity(1).open().unwrap();
            sender.try_send(Job(7)).unwrap();
            work(Box::new(move || drop(receiver.try_recv().unwrap())))
        }
        Pattern::RoomOfAPartition => {
            let (sender, receiver) = segment.channel::<Job>("jobs").capacity(1).routed().open().unwrap();
            sender.try_send(Job(7)).unwrap();
            work(Box::new(move || drop(receiver.try_recv().unwrap())))
        }
        Pattern::Permit => {
            let semaphore = segment.semaphore("permits").permits(1).open().unwrap();
            let permit: semaphore::Permit<'_> = semaphore.try_acquire().unwrap();
            permit.forget();
            work(Box::new(|| assert_eq!(semaphore.add_permits(1), 1)))
        }
        Pattern::Notification => {
            let notify = segment.notify("tick").unwrap();
            work(Box::new(|| notify.notify_one()))
        }
        Pattern::Group => {
            let jobs = segment.broadcast::<Job>("jobs").publisher().unwrap();
            work(Box::new(|| {
                jobs.try_send(Job(7)).unwrap();
            }))
        }
        Pattern::Request => {
            let client = segment.service::<u64, u64>("double").client().unwrap();
            let mut calls = Vec::new();
            work(Box::new(move || {
                let client = client.clone();
                let mut call = Box::pin(async move { client.call(21).await.map(|response| *response) });
                // The request is on its way with the first poll; who answers at once is seen by it.
                match futures::FutureExt::now_or_never(&mut call) {
                    Some(response) => assert_eq!(response.unwrap(), 42),
                    None => calls.push(call),
                }
            }))
        }
    }
}

/// So many processes wait, in the order in which they are told.
fn spawn_waiting(place: &Place, pattern: Pattern, processes: usize) -> Vec<Process> {
    let spawn = |_| {
        let child = place.spawn(TEST, &format!("{pattern:?}"));
        wait_until_ready(place, &child);
        child
    };
    (0..processes).map(spawn).collect()
}

/// What the longest of some gifts took to reach somebody who runs, where all but one of those who
/// wait are stopped: as many gifts as there are processes, so that each of them is told of one
/// first.
fn longest_delay(reports: &Receiver<u32>, give: &mut Give<'_>, children: &[Process], runs: usize) -> Duration {
    let stopped = || children.iter().enumerate().filter(|(index, _)| *index != runs).map(|(_, child)| child);
    stopped().for_each(stop);
    let mut longest = Duration::ZERO;
    for _ in children {
        let started = Instant::now();
        give();
        let report = within(reports.recv_timeout(PATIENCE)).expect("somebody gets it");
        longest = longest.max(started.elapsed());
        assert_eq!(*report, children[runs].pid(), "the others are stopped");
        // It waits again.
        thread::sleep(Duration::from_millis(20));
    }
    stopped().for_each(|child| signal(child, libc::SIGCONT));
    longest
}

/// How a process ends that has told another one of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Leaves,
    IsKilled,
    IsStopped,
}

const ENDINGS: [Ending; 3] = [Ending::Leaves, Ending::IsKilled, Ending::IsStopped];

/// What goes on in a child of one of the tests below: it waits, or it gives once and ends.
fn is_child() -> bool {
    let Some(role) = role() else { return false };
    let place = Place::new();
    let segment = open(&place);
    let (pattern, ending) = role.split_once(' ').unwrap_or((&role, ""));
    let pattern = ALL.into_iter().find(|known| format!("{known:?}") == pattern).unwrap();
    match ENDINGS.into_iter().find(|known| format!("{known:?}") == ending) {
        None => wait_for(&segment, pattern, &place),
        Some(ending) => with_giver(&segment, pattern, |mut give| {
            give();
            match ending {
                Ending::Leaves => return,
                // SAFETY: plain system calls on this process.
                Ending::IsKilled => unsafe { libc::kill(libc::getpid(), libc::SIGKILL) },
                // SAFETY: as above.
                Ending::IsStopped => unsafe { libc::kill(libc::getpid(), libc::SIGSTOP) },
            };
            wait_to_be_killed();
        }),
    }
    true
}

/// All patterns side by side, with so many processes that wait for each; what they take in so many
/// rounds.
fn delays(processes: usize, rounds: usize, rest: Duration) -> Vec<(Pattern, Vec<Duration>)> {
    let found = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for pattern in ALL {
            let found = &found;
            scope.spawn(move || {
                let place = Place::new();
                let segment = open(&place);
                let reports = reports(&segment);
                let delays = with_giver(&segment, pattern, |mut give| {
                    let children = spawn_waiting(&place, pattern, processes);
                    // The first to be told is stopped in the first round.
                    let round = |round| {
                        thread::sleep(rest);
                        longest_delay(&reports, &mut give, &children, processes - 1 - round % processes)
                    };
                    (0..rounds).map(round).collect::<Vec<_>>()
                });
                found.lock().unwrap().push((pattern, delays));
            });
        }
    });
    found.into_inner().unwrap()
}

#[test]
fn who_is_stopped_and_was_told_first_delays_nobody_who_has_waited_long() {
    if is_child() {
        return;
    }
    for (pattern, delays) in delays(2, 1, LONG) {
        println!("{pattern:?}: {delays:?}");
        assert!(delays.iter().all(|delay| *delay < SOON), "{pattern:?}: {delays:?}");
    }
}

#[test]
fn several_who_are_stopped_delay_nobody() {
    for (pattern, delays) in delays(4, 1, LONG) {
        println!("{pattern:?}: {delays:?}");
        assert!(delays.iter().all(|delay| *delay < SOON), "{pattern:?}: {delays:?}");
    }
}

/// Whoever has told a process that is stopped leaves, is killed or is stopped itself, at once.
#[test]
fn what_becomes_of_who_tells_one_that_is_stopped_delays_nobody() {
    // Those in which one who comes, gives and goes leaves everything else as it was.
    let patterns = [Pattern::Message, Pattern::MessageThatComesBack, Pattern::Notification, Pattern::Group];
    thread::scope(|scope| {
        for (pattern, ending) in patterns.into_iter().flat_map(|pattern| ENDINGS.map(|ending| (pattern, ending))) {
            scope.spawn(move || {
                let place = Place::new();
                let segment = open(&place);
                let reports = reports(&segment);
                with_giver(&segment, pattern, |_| {
                    let children = spawn_waiting(&place, pattern, 2);
                    thread::sleep(LONG);
                    // Whoever comes looks from the first on.
                    stop(&children[0]);
                    let giver = place.spawn(TEST, &format!("{pattern:?} {ending:?}"));
                    let started = Instant::now();
                    let report = within(reports.recv_timeout(PATIENCE)).expect("somebody gets it");
                    let took = started.elapsed();
                    assert_eq!(*report, children[1].pid());
                    println!("{pattern:?}, and who has told {ending:?}: {took:?}, with the start of a process");
                    assert!(took < 2 * SOON, "{pattern:?}, {ending:?}: {took:?}");
                    giver.kill();
                });
            });
        }
    });
}

/// Waits once for something, with an end of its own, which goes with the future.
fn waiting(segment: &Segment, pattern: Pattern) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    match pattern {
        Pattern::Message => {
            let jobs = segment.channel::<Job>("jobs").receiver().unwrap();
            Box::pin(async move { drop(jobs.recv().await.unwrap()) })
        }
        Pattern::MessageThatComesBack => {
            let jobs = segment.channel::<Job>("jobs").delivery(Delivery::AtLeastOnce { max_deliveries: 3 });
            let jobs = jobs.receiver().unwrap();
            Box::pin(async move { jobs.recv().await.unwrap().ack() })
        }
        Pattern::MessageOfALevel => {
            let jobs = segment.channel::<Job>("jobs").policy(by_level()).receiver().unwrap();
            Box::pin(async move { drop(jobs.recv().await.unwrap()) })
        }
        Pattern::Room => {
            let jobs = segment.channel::<Job>("jobs").capacity(1).sender().unwrap();
            Box::pin(async move { jobs.send(Job(1)).await.unwrap() })
        }
        Pattern::RoomOfAPartition => {
            let jobs = segment.channel::<Job>("jobs").capacity(1).routed().sender().unwrap();
            Box::pin(async move { jobs.send(Job(1)).await.unwrap() })
        }
        Pattern::Reservation => {
            let jobs = segment.channel::<Job>("jobs").capacity(1).sender().unwrap();
            Box::pin(async move { jobs.reserve().await.unwrap().send(Job(1)) })
        }
        Pattern::Permit => {
            let semaphore = segment.semaphore("permits").permits(1).open().unwrap();
            Box::pin(async move { semaphore.acquire().await.unwrap().forget() })
        }
        Pattern::Notification => {
            let notify = segment.notify("tick").unwrap();
            Box::pin(async move { notify.notified().await })
        }
        Pattern::Group => {
            let jobs = segment.broadcast::<Job>("jobs").group("workers").subscriber().unwrap();
            Box::pin(async move { drop(jobs.recv().await.unwrap()) })
        }
        Pattern::Request => {
            let server = segment.service::<u64, u64>("double").server().unwrap();
            Box::pin(async move { server.next().await.unwrap().respond(42).await.unwrap() })
        }
    }
}

/// Two wait, one of them for long. The other one is told, and goes before it has taken notice: its
/// end of the channel, and, if it `leaves`, its hold on the segment as well.
fn who_was_told_goes(leaves: bool) {
    thread::scope(|scope| {
        for pattern in ALL {
            scope.spawn(move || {
                let place = Place::new();
                let segment = open(&place);
                // In the order in which they are told.
                let (told, other) = (open(&place), open(&place));
                with_giver(&segment, pattern, |mut give| {
                    let late = thread::spawn({
                        let waiting = waiting(&other, pattern);
                        move || {
                            within(waiting);
                            Instant::now()
                        }
                    });
                    thread::sleep(LONG);
                    let mut going = waiting(&told, pattern);
                    assert!(futures::FutureExt::now_or_never(&mut going).is_none());
                    let started = Instant::now();
                    give();
                    drop(going);
                    let told = if leaves { None } else { Some(told) };
                    let took = late.join().unwrap() - started;
                    println!("{pattern:?}, and who was told goes (leaves: {leaves}): {took:?}");
                    assert!(took < SOON, "{pattern:?}, leaves: {leaves}: {took:?}");
                    drop(told);
                });
            });
        }
    });
}

#[test]
fn what_was_told_to_one_whose_end_goes_is_told_to_somebody_else() {
    who_was_told_goes(false);
}

#[test]
fn what_was_told_to_one_that_leaves_is_told_to_somebody_else() {
    who_was_told_goes(true);
}

/// Says how long it takes, for the documentation.
#[test]
#[ignore = "measures"]
fn how_long_a_stopped_process_delays_others() {
    for (processes, rounds, rest) in [(2, 16, LONG), (2, 100, LONG / 20), (8, 30, LONG / 20)] {
        println!("{} of {processes} stopped, {rounds} rounds, {rest:?} after anybody has come or gone", processes - 1);
        for (pattern, mut delays) in delays(processes, rounds, rest) {
            delays.sort();
            let at = |percent: usize| delays[(delays.len() * percent / 100).min(delays.len() - 1)];
            println!(
                "    {:24} p50 {:9.3?}, p99 {:9.3?}, most {:9.3?}",
                format!("{pattern:?}"),
                at(50),
                at(99),
                at(100)
            );
        }
    }
}
