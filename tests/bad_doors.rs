//! Coming in and going out where the kernel, other processes or what was left behind are in the way: who does not come in has
//! changed nothing, who may come in does, and what nobody lives in is in nobody's way.

mod common;
mod ground;

use std::{
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileExt, MetadataExt, chown, chroot},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Barrier, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use common::{
    Place, Process, eventually, files, held, in_a_file_system_of, ready, role, rounds, wait_until_ready, within,
};
use ground::Ground;
use waterway::{OpenError, Segment, SegmentOptions};

const SIZE: usize = 1 << 20;
/// Somebody who is not root.
const OTHER: u32 = 65533;
/// Where the version stands in the header.
const VERSION: u64 = 8;

fn is_root() -> bool {
    // SAFETY: it has no preconditions.
    unsafe { libc::geteuid() == 0 }
}

/// From here on the kernel refuses a call with that argument to this thread.
fn refuse(call: libc::c_long, argument: u32, value: u32, error: i32) {
    let step =
        |code: u32, to: u8, or: u8, value: u32| libc::sock_filter { code: code as u16, jt: to, jf: or, k: value };
    let filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 3, call as u32),
        // The low half of the argument.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 16 + 8 * argument),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, value),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | error as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: no more privileges, and a program that outlives the call.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

/// From here on this process is somebody else's.
fn become_other(place: &Place) {
    chown(place.path(), Some(OTHER), Some(OTHER)).unwrap();
    // SAFETY: plain system calls.
    unsafe {
        assert_eq!(libc::setgid(OTHER), 0);
        assert_eq!(libc::setuid(OTHER), 0);
    }
}

/// The rest of the test, in a process of its own.
fn alone(test: &str, rest: impl FnOnce(&Place)) {
    let place = Place::new();
    match role() {
        Some(_) => rest(&place),
        None => place.spawn(test, "alone").succeed(),
    }
}

/// The rest of the test, in a process and a mount namespace of its own. Says that it is skipped where there is none.
fn alone_in_a_namespace(test: &str, rest: impl FnOnce(&Place)) {
    let place = Place::new();
    if role().is_some() {
        return rest(&place);
    }
    let probe = Command::new("unshare").args(["-m", "true"]).status();
    if !is_root() || !probe.is_ok_and(|status| status.success()) {
        return eprintln!("skipped: no namespace is to be had here");
    }
    place.spawn(test, "alone").succeed();
}

fn own_mounts() {
    // SAFETY: plain system calls, in a process of this test's own.
    unsafe {
        assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0);
        let private = libc::MS_REC | libc::MS_PRIVATE;
        assert_eq!(libc::mount(c"none".as_ptr(), c"/".as_ptr(), std::ptr::null(), private, std::ptr::null()), 0);
    }
}

/// A process that has come in, and stays until it is killed.
fn resident(place: &Place, test: &str, role: &str) -> Process {
    let process = place.spawn(test, role);
    wait_until_ready(place, &process);
    process
}

fn stay(place: &Place, segment: Segment) -> ! {
    let _ends = segment.bytes("c").open().unwrap();
    ready(place);
    common::wait_to_be_killed()
}

#[test]
fn who_cannot_lock_a_place_does_no_harm_to_who_has_the_first() {
    const TEST: &str = "who_cannot_lock_a_place_does_no_harm_to_who_has_the_first";
    let place = Place::new();
    let options = place.options().size(SIZE).participants(4).persistent(true);
    if role().is_some() {
        refuse(libc::SYS_fcntl, 1, libc::F_OFD_SETLK as u32, libc::ENOLCK);
        for error in [options.clone().open("kept"), options.open_or_create("kept")] {
            assert!(matches!(error, Err(OpenError::Io { .. })), "{error:?}");
        }
        return;
    }
    let segment = options.create("kept").unwrap();
    let before = Ground::of(&place.path().join("kept")).participants();
    place.spawn(TEST, "come").succeed();
    assert_eq!(segment.participants().len(), 1);
    assert_eq!(Ground::of(&place.path().join("kept")).participants(), before);
}

#[test]
fn who_fails_after_it_got_a_place_leaves_it_as_it_was() {
    const TEST: &str = "who_fails_after_it_got_a_place_leaves_it_as_it_was";
    let place = Place::new();
    let options = place.options().size(SIZE).participants(2).persistent(true);
    match role().as_deref() {
        Some("hold") => {
            let segment = options.open("kept").unwrap();
            let _block = segment.allocator().allocate_copy(&[1; 10_000]).unwrap();
            stay(&place, segment);
        }
        Some(_) => {
            refuse(libc::SYS_madvise, 2, libc::MADV_POPULATE_WRITE as u32, libc::EINVAL);
            let error = options.populate(true).open("kept").unwrap_err();
            assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
            return;
        }
        None => {}
    }
    drop(options.clone().create("kept").unwrap());
    let ground = Ground::of(&place.path().join("kept"));
    // A free place.
    let before = ground.participants();
    place.spawn(TEST, "fail").succeed();
    assert_eq!(ground.participants(), before);
    // Two dead ones: the place that it gets is one of theirs.
    let dead = [resident(&place, TEST, "hold"), resident(&place, TEST, "hold")];
    dead.into_iter().for_each(Process::kill);
    let before = ground.participants();
    place.spawn(TEST, "fail").succeed();
    let lives = |words: Vec<u64>| words.into_iter().map(|word| word & 1).collect::<Vec<_>>();
    // The second may have buried the first before it died.
    assert_eq!(lives(ground.participants()), lives(before));
    let segment = options.open("kept").unwrap();
    segment.bury_the_dead();
    assert_eq!((held(&segment), segment.participants().len()), (0, 1));
}

#[test]
fn an_attempt_to_make_what_is_there_is_seen_by_nobody() {
    let place = Place::new();
    let options = place.options().size(SIZE).participants(3);
    let segment = options.clone().create("there").unwrap();
    let ground = Ground::of(&place.path().join("there"));
    let before = ground.participants();
    assert!(matches!(options.create("there"), Err(OpenError::AlreadyExists { .. })));
    assert_eq!(ground.participants(), before);
    drop(segment);
    assert!(files(place.path()).is_empty());
}

#[test]
fn the_place_of_the_dead_is_to_be_had_at_once() {
    const TEST: &str = "the_place_of_the_dead_is_to_be_had_at_once";
    let place = Place::new();
    let options = place.options().size(16 << 20).participants(2);
    if role().is_some() {
        stay(&place, options.open("two").unwrap());
    }
    // Its bridge buries whoever dies.
    let _segment = options.clone().create("two").unwrap();
    for _ in 0..30 {
        resident(&place, TEST, "hold").kill();
        drop(options.clone().open("two").unwrap());
    }
}

#[test]
fn whoever_was_seen_is_buried_though_nobody_waits_and_looks() {
    const TEST: &str = "whoever_was_seen_is_buried_though_nobody_waits_and_looks";
    let place = Place::new();
    let options = place.options().size(SIZE).participants(8);
    if role().is_some() {
        let segment = options.open("young").unwrap();
        stay(&place, segment);
    }
    let segment = options.create("young").unwrap();
    let ground = Ground::of(&place.path().join("young"));
    // Until its bridge sleeps for as long as nobody rings.
    thread::sleep(Duration::from_millis(800));
    let living = || ground.participants().into_iter().filter(|word| word & 1 == 1).count();
    let mut times = Vec::new();
    for number in 0..rounds(60) {
        let process = place.spawn(TEST, "live");
        let appeared = Instant::now();
        while segment.participants().len() < 2 {
            assert!(appeared.elapsed() < common::PATIENCE);
            thread::yield_now();
        }
        let appeared = Instant::now();
        while appeared.elapsed() < Duration::from_micros(number % 10 * 500) {
            thread::yield_now();
        }
        let killed = Instant::now();
        process.kill();
        eventually("it is buried", || living() == 1);
        times.push(killed.elapsed());
    }
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    println!(
        "buried {:?} after they were killed, of a hundred 99 within {:?}, all within {:?}",
        at(50),
        at(99),
        at(100)
    );
}

/// Overwrites the version of a segment's file.
fn age(path: &Path, by: i64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut version = [0; 4];
    file.read_exact_at(&mut version, VERSION).unwrap();
    let version = (i64::from(u32::from_ne_bytes(version)) + by) as u32;
    file.write_all_at(&version.to_ne_bytes(), VERSION).unwrap();
}

#[test]
fn what_another_version_has_left_behind_is_listed_and_made_afresh() {
    const TEST: &str = "what_another_version_has_left_behind_is_listed_and_made_afresh";
    let place = Place::new();
    let options = || place.options().size(SIZE).participants(4);
    if let Some(name) = role() {
        stay(&place, options().persistent(name == "kept").open_or_create(&name).unwrap());
    }
    for by in [-1, 1, -5] {
        let living = resident(&place, TEST, "svc");
        let path = place.path().join("svc");
        age(&path, by);
        // Somebody of that version lives there.
        for error in [options().open("svc"), options().create("svc"), options().open_or_create("svc")] {
            assert!(matches!(error, Err(OpenError::WrongVersion { .. })), "{error:?}");
        }
        assert!(options().sweep().unwrap().is_empty());
        let [found] = &options().list().unwrap()[..] else { panic!("one is listed") };
        assert_eq!((found.name.as_str(), found.participants, found.persistent), ("svc", 1, false));
        assert_eq!(found.path, path);
        assert!(found.problem.as_ref().is_some_and(|problem| problem.contains("version")), "{found:?}");
        living.kill();
        let [found] = &options().list().unwrap()[..] else { panic!("one is listed") };
        assert_eq!(found.participants, 0);
        // Nobody lives there.
        let segment = options().open_or_create("svc").unwrap();
        let [found] = &options().list().unwrap()[..] else { panic!("one is listed") };
        assert_eq!((found.id, found.participants, &found.problem), (segment.id(), 1, &None));
        drop(segment);
        assert!(files(place.path()).iter().all(|file| file.starts_with("ready")));
    }
    // One that is to stay is somebody's, whoever lives there.
    resident(&place, TEST, "kept").kill();
    age(&place.path().join("kept"), -1);
    assert!(options().sweep().unwrap().is_empty());
    assert!(matches!(options().open_or_create("kept"), Err(OpenError::WrongVersion { .. })));
    let [found] = &options().list().unwrap()[..] else { panic!("one is listed") };
    assert!(found.persistent && found.problem.is_some(), "{found:?}");
}

#[test]
fn a_sweep_takes_what_nobody_lives_in_and_says_what() {
    const TEST: &str = "a_sweep_takes_what_nobody_lives_in_and_says_what";
    let place = Place::new();
    let options = || place.options().size(SIZE).participants(4);
    if let Some(name) = role() {
        stay(&place, options().persistent(name == "kept").open_or_create(&name).unwrap());
    }
    assert!(options().sweep().unwrap().is_empty());
    let living = resident(&place, TEST, "living");
    for name in ["b", "a", "kept", "old"] {
        resident(&place, TEST, name).kill();
    }
    age(&place.path().join("old"), -1);
    fs::write(place.path().join("text"), "not a segment".repeat(100)).unwrap();
    fs::write(place.path().join("empty"), "").unwrap();
    let before = options().list().unwrap();
    let swept = options().sweep().unwrap();
    assert_eq!(swept.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(), ["a", "b", "old"]);
    assert!(swept.iter().all(|found| !found.persistent && found.participants == 0 && !found.path.exists()));
    assert_eq!(swept[0], *before.iter().find(|found| found.name == "a").unwrap());
    let left: Vec<_> = options().list().unwrap().into_iter().map(|found| found.name).collect();
    assert_eq!(left, ["kept", "living"]);
    assert!(place.path().join("text").exists() && place.path().join("empty").exists());
    assert!(options().sweep().unwrap().is_empty());
    living.kill();
    assert_eq!(options().sweep().unwrap().len(), 1);
    assert!(place.options().dir(place.path().join("missing")).sweep().unwrap().is_empty());
}

#[test]
fn what_was_left_behind_makes_room_before_there_is_said_to_be_none() {
    const TEST: &str = "what_was_left_behind_makes_room_before_there_is_said_to_be_none";
    const DIRECTORY: &str = "WATERWAY_DIR";
    let options = || Segment::options().size(12 << 20).participants(4);
    if let Some(name) = role() {
        stay(&Place::new(), options().persistent(name == "kept").open_or_create(&name).unwrap());
    }
    in_a_file_system_of(32, TEST, |tiny| {
        let place = Place::new();
        let start = |name: &str| {
            let process = place.spawn_with(TEST, name, &[(DIRECTORY, tiny.to_str().unwrap())]);
            wait_until_ready(&place, &process);
            process
        };
        for job in 0..6 {
            start(&format!("job-{job}")).kill();
        }
        // What is to stay, or lived in, is in the way.
        start("kept").kill();
        let living = start("living");
        let refused = options().dir(tiny).create("more").unwrap_err();
        assert!(matches!(refused, OpenError::NoRoom { .. }), "{refused:?}");
        living.kill();
        drop(options().dir(tiny).create("more").unwrap());
    });
}

/// How many processes and threads the user of this process may have from now on.
fn allow_threads(number: u64) {
    let limit = libc::rlimit { rlim_cur: number, rlim_max: 100 };
    // SAFETY: a limit that outlives the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit) }, 0);
}

/// The names of this process's threads.
fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("comm")).ok()).collect()
}

/// For a process that may have no more threads than it has from now on.
fn without_more_threads(place: &Place) {
    become_other(place);
    allow_threads(0);
}

fn assert_no_bridge() {
    assert!(!threads().iter().any(|name| name.starts_with("waterway")), "{:?}", threads());
}

/// A segment in which somebody else may be.
fn for_others(options: SegmentOptions) -> Segment {
    let segment = options.create("svc").unwrap();
    chown(segment.path().unwrap(), Some(OTHER), Some(OTHER)).unwrap();
    segment
}

#[test]
fn where_no_thread_is_to_be_had_who_waits_is_woken_all_the_same() {
    const TEST: &str = "where_no_thread_is_to_be_had_who_waits_is_woken_all_the_same";
    if !is_root() {
        return eprintln!("skipped: only root can become somebody who has no threads");
    }
    let place = Place::new();
    let options = || place.options().size(SIZE).participants(4);
    match role().as_deref() {
        None => {
            let segment = for_others(options());
            let asked = segment.channel::<u64>("asked").receiver().unwrap();
            let answers = segment.channel::<u64>("answers").sender().unwrap();
            let process = place.spawn(TEST, "waits");
            // Each is sent only when the other side says that it is about to wait.
            while let Some(number) = within(asked.recv()) {
                within(answers.send(*number)).unwrap();
            }
            process.succeed();
        }
        Some(_) => {
            without_more_threads(&place);
            let segment = options().open("svc").unwrap();
            let ask = segment.channel::<u64>("asked").sender().unwrap();
            let answers = segment.channel::<u64>("answers").receiver().unwrap();
            ask.blocking_send(1).unwrap();
            assert_eq!(*answers.blocking_recv().unwrap(), 1);
            ask.blocking_send(2).unwrap();
            assert_eq!(*answers.blocking_recv_timeout(common::PATIENCE).unwrap(), 2);
            ask.blocking_send(3).unwrap();
            assert_eq!(*futures::executor::block_on(answers.recv()).unwrap(), 3);
            ask.blocking_send(4).unwrap();
            assert_eq!(*futures::executor::block_on(answers.recv_timeout(common::PATIENCE)).unwrap(), 4);
            let short = Duration::from_millis(20);
            assert!(futures::executor::block_on(answers.recv_timeout(short)).is_err());
            assert!(answers.blocking_recv_timeout(short).is_err());
            assert_no_bridge();
            // Later there are some, and the next wait gets one.
            allow_threads(100);
            ask.blocking_send(5).unwrap();
            assert_eq!(*answers.blocking_recv().unwrap(), 5);
            assert!(answers.blocking_recv_timeout(short).is_err());
            assert!(threads().iter().any(|name| name.starts_with("waterway")), "{:?}", threads());
        }
    }
}

#[test]
fn where_no_thread_is_to_be_had_services_call_and_are_called() {
    const TEST: &str = "where_no_thread_is_to_be_had_services_call_and_are_called";
    const CALLS: u64 = 20;
    const GIVEN_UP: u64 = u64::MAX;
    const NEVER: u64 = u64::MAX - 1;
    if !is_root() {
        return eprintln!("skipped: only root can become somebody who has no threads");
    }
    let place = Place::new();
    let options = || place.options().size(SIZE).participants(4);
    let call = |segment: &Segment, name: &str| {
        let client = segment.service::<u64, u64>(name).client().unwrap();
        let taken = segment.channel::<u64>(&format!("taken-{name}")).receiver().unwrap();
        let calls = (0..CALLS).map(|number| client.call(number));
        for (number, answer) in (0..).zip(within(futures::future::join_all(calls))) {
            assert_eq!(*answer.unwrap(), 3 * number);
        }
        assert_eq!(*client.blocking_call(CALLS).unwrap(), 3 * CALLS);
        // Is dropped as soon as somebody is at it.
        within(async {
            let (given_up, taken) = (std::pin::pin!(client.call(GIVEN_UP)), std::pin::pin!(taken.recv()));
            let first = futures::future::select(given_up, taken).await;
            assert!(matches!(first, futures::future::Either::Right(_)));
        });
        let error = client.blocking_call_timeout(NEVER, Duration::from_millis(20)).unwrap_err();
        assert!(error.is_timeout(), "{error:?}");
    };
    let serve = |segment: &Segment, name: &str| {
        let server = segment.service::<u64, u64>(name).server().unwrap();
        let taken = segment.channel::<u64>(&format!("taken-{name}")).sender().unwrap();
        let mut given_up = 0;
        while let Some(request) = within(server.next()) {
            match *request {
                GIVEN_UP => {
                    taken.blocking_send(0).unwrap();
                    within(request.cancelled());
                    given_up += 1;
                }
                NEVER => within(request.cancelled()),
                number => request.blocking_respond(3 * number).unwrap(),
            }
        }
        assert_eq!(given_up, 1);
    };
    if role().is_some() {
        without_more_threads(&place);
        let segment = options().open("svc").unwrap();
        serve(&segment, "called");
        call(&segment, "calls");
        return assert_no_bridge();
    }
    let segment = for_others(options());
    let process = place.spawn(TEST, "alone");
    call(&segment, "called");
    serve(&segment, "calls");
    process.succeed();
}

#[test]
fn who_stands_in_for_the_bridge_may_give_up_at_any_time_and_hears_of_the_dead() {
    const TEST: &str = "who_stands_in_for_the_bridge_may_give_up_at_any_time_and_hears_of_the_dead";
    const ROUNDS: u64 = 50;
    const PAIRS: usize = 2;
    if !is_root() {
        return eprintln!("skipped: only root can become somebody who has no threads");
    }
    let place = Place::new();
    let options = || place.options().size(SIZE).participants(4);
    match role().as_deref() {
        Some("doomed") => {
            become_other(&place);
            let segment = options().open("svc").unwrap();
            let _sender = segment.channel::<u64>("doomed").sender().unwrap();
            ready(&place);
            common::wait_to_be_killed()
        }
        Some(_) => {
            // They are there before there may be no more.
            let (opened, start, is_over) = (OnceLock::new(), Barrier::new(PAIRS + 2), AtomicBool::new(false));
            let segment = || -> &Segment {
                start.wait();
                opened.get().unwrap()
            };
            thread::scope(|scope| {
                let asking = [0, 1].map(|pair: usize| {
                    scope.spawn(move || {
                        let segment = segment();
                        let ask = segment.channel::<u64>(&format!("asked-{pair}")).sender().unwrap();
                        let answers = segment.channel::<u64>(&format!("answers-{pair}")).receiver().unwrap();
                        for round in 0..ROUNDS {
                            within(ask.send(round)).unwrap();
                            assert_eq!(*within(answers.recv()).unwrap(), round);
                        }
                    })
                });
                scope.spawn(|| {
                    let silent = segment().channel::<u64>("silent").receiver().unwrap();
                    while !is_over.load(Ordering::Relaxed) {
                        let mut given_up = std::pin::pin!(silent.recv());
                        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                        for _ in 0..3 {
                            assert!(given_up.as_mut().poll(&mut context).is_pending());
                        }
                    }
                });
                without_more_threads(&place);
                let segment = opened.get_or_init(|| options().open("svc").unwrap());
                start.wait();
                let doomed = segment.channel::<u64>("doomed").receiver().unwrap();
                let say = segment.channel::<u64>("waits").sender().unwrap();
                say.blocking_send(0).unwrap();
                assert!(within(doomed.recv()).is_none());
                asking.into_iter().for_each(|thread| thread.join().unwrap());
                is_over.store(true, Ordering::Relaxed);
            });
            assert_no_bridge();
        }
        None => {
            let segment = for_others(options());
            let _silent = segment.channel::<u64>("silent").sender().unwrap();
            let doomed = resident(&place, TEST, "doomed");
            let waits = segment.channel::<u64>("waits").receiver().unwrap();
            let process = place.spawn(TEST, "alone");
            thread::scope(|scope| {
                for pair in 0..PAIRS {
                    let asked = segment.channel::<u64>(&format!("asked-{pair}")).receiver().unwrap();
                    let answers = segment.channel::<u64>(&format!("answers-{pair}")).sender().unwrap();
                    scope.spawn(move || {
                        while let Some(round) = within(asked.recv()) {
                            within(answers.send(*round)).unwrap();
                        }
                    });
                }
                within(waits.recv()).unwrap();
                doomed.kill();
            });
            process.succeed();
        }
    }
}

fn mebibytes(path: &Path) -> u64 {
    (fs::metadata(path).unwrap().blocks() * 512) >> 20
}

/// Memory of this process, and what is locked of it.
fn resident_kib(what: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn who_locks_its_memory_does_not_fill_what_a_segment_may_grow_to() {
    const TEST: &str = "who_locks_its_memory_does_not_fill_what_a_segment_may_grow_to";
    if !is_root() {
        return eprintln!("skipped: only root may lock that much");
    }
    alone(TEST, |place| {
        let options = || place.options().participants(4);
        let segment = options().create("svc").unwrap();
        let path = segment.path().unwrap().to_owned();
        let before = mebibytes(&path);
        // SAFETY: flags only.
        assert_eq!(unsafe { libc::mlockall(libc::MCL_FUTURE) }, 0);
        let second = options().open("svc").unwrap();
        assert!(mebibytes(&path) <= before + 4, "{before} MiB, then {}", mebibytes(&path));
        common::exercise(&second);
        let third = options().create("other").unwrap();
        assert!(mebibytes(third.path().unwrap()) <= before + 4);
        let alone = Segment::options().in_process().unwrap();
        common::exercise(&alone);
        assert!(resident_kib("VmRSS") < 200 << 10, "{} KiB", resident_kib("VmRSS"));
        // It grows as ever.
        let blocks: Vec<_> = (0..8).map(|_| second.allocator().allocate_bytes(4 << 20).unwrap()).collect();
        assert_eq!(blocks.len(), 8);
    });
}

#[test]
fn who_may_lock_only_little_memory_is_told_so() {
    const TEST: &str = "who_may_lock_only_little_memory_is_told_so";
    if !is_root() {
        return eprintln!("skipped: only root may lock memory and then become somebody else");
    }
    alone(TEST, |place| {
        let mut some = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: a place for the limit, and a limit that outlives the call; flags only.
        unsafe {
            assert_eq!(libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut some), 0);
            some.rlim_max = some.rlim_max.min(64 << 20);
            some.rlim_cur = some.rlim_max;
            assert_eq!(libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const some), 0);
            become_other(place);
            assert_eq!(libc::mlockall(libc::MCL_FUTURE), 0);
        }
        let error = place.options().create("svc").unwrap_err();
        assert!(matches!(error, OpenError::Limited { .. }) && error.to_string().contains("ulimit -l"), "{error:?}");
        if some.rlim_cur >= 4 << 20 {
            common::exercise(&place.options().size(SIZE).participants(1).create("svc").unwrap());
        }
    });
}

#[test]
fn a_segment_of_the_process_takes_what_is_used_of_it() {
    const TEST: &str = "a_segment_of_the_process_takes_what_is_used_of_it";
    // The program's own pages come in as it uses them.
    let taken = || resident_kib("RssAnon") + resident_kib("RssShmem");
    alone(TEST, |_| {
        let before = taken();
        let segment = Segment::options().in_process().unwrap();
        let made = taken();
        assert!(made < before + (2 << 10), "{before} KiB, then {made}");
        common::exercise(&segment);
        let used = taken();
        assert!(used < before + (16 << 10), "{before} KiB, then {used}");
    });
}

#[test]
fn a_relative_directory_is_where_it_was_when_it_was_first_given() {
    const TEST: &str = "a_relative_directory_is_where_it_was_when_it_was_first_given";
    alone(TEST, |place| {
        std::env::set_current_dir(place.path()).unwrap();
        // SAFETY: one thread that looks at the environment.
        unsafe { std::env::set_var("WATERWAY_DIR", "segments") };
        let options = || Segment::options().size(SIZE).participants(4);
        let there = options().dir("other");
        let segment = options().create("svc").unwrap();
        assert_eq!(segment.path(), Some(&*place.path().join("segments/svc")));
        std::env::set_current_dir("/").unwrap();
        let (again, other) = (options().open("svc").unwrap(), there.create("svc").unwrap());
        assert_eq!((again.id(), Segment::list().unwrap().len()), (segment.id(), 1));
        assert_eq!(other.path(), Some(&*place.path().join("other/svc")));
        drop((segment, again, other));
        assert!(files(&place.path().join("segments")).is_empty() && files(&place.path().join("other")).is_empty());
    });
}

#[test]
fn a_path_is_where_the_file_is() {
    let place = Place::new();
    let segment = place.options().size(SIZE).create("here").unwrap();
    assert_eq!(segment.path().map(PathBuf::from), Some(place.path().join("here")));
    assert_eq!(Segment::options().size(SIZE).anonymous().unwrap().path(), None);
    assert_eq!(Segment::options().size(SIZE).in_process().unwrap().path(), None);
}

#[test]
fn an_anonymous_segment_needs_proc_or_root_and_says_so() {
    const TEST: &str = "an_anonymous_segment_needs_proc_or_root_and_says_so";
    alone_in_a_namespace(TEST, |place| {
        let segment = Segment::options().size(SIZE).participants(4).anonymous().unwrap();
        let descriptor = || -> OwnedFd { segment.as_fd().unwrap().as_fd().try_clone_to_owned().unwrap() };
        own_mounts();
        // SAFETY: as in `own_mounts`.
        assert_eq!(unsafe { libc::umount2(c"/proc".as_ptr(), libc::MNT_DETACH) }, 0);
        let other = Segment::from_fd(descriptor()).unwrap();
        assert_eq!((other.participants().len(), other.id()), (2, segment.id()));
        become_other(place);
        let error = Segment::from_fd(descriptor()).unwrap_err();
        assert!(matches!(error, OpenError::NoProc { .. }) && error.to_string().contains("/proc"), "{error:?}");
    });
}

#[test]
fn who_has_another_root_by_now_takes_its_file_with_it() {
    const TEST: &str = "who_has_another_root_by_now_takes_its_file_with_it";
    alone_in_a_namespace(TEST, |place| {
        let segment = place.options().size(SIZE).create("svc").unwrap();
        let jail = place.path().join("jail");
        fs::create_dir(&jail).unwrap();
        let directory = fs::File::open(place.path()).unwrap();
        chroot(&jail).unwrap();
        std::env::set_current_dir("/").unwrap();
        drop(segment);
        // SAFETY: an open directory, and a name that outlives the call.
        let found =
            unsafe { libc::faccessat(std::os::fd::AsRawFd::as_raw_fd(&directory), c"svc".as_ptr(), libc::F_OK, 0) };
        assert_eq!(found, -1);
    });
}

#[test]
fn what_somebody_may_not_take_with_it_any_more_is_swept_by_who_may() {
    const TEST: &str = "what_somebody_may_not_take_with_it_any_more_is_swept_by_who_may";
    if !is_root() {
        return eprintln!("skipped: only root can become somebody else");
    }
    let place = Place::new();
    let options = || place.options().size(SIZE).participants(4);
    if role().is_some() {
        let segment = options().create("svc").unwrap();
        // SAFETY: a plain system call.
        assert_eq!(unsafe { libc::setuid(OTHER) }, 0);
        return drop(segment);
    }
    place.spawn(TEST, "drop").succeed();
    assert_eq!(files(place.path()), ["svc"]);
    let [found] = &options().list().unwrap()[..] else { panic!("one is listed") };
    assert_eq!((found.participants, &found.problem), (0, &None));
    assert_eq!(options().sweep().unwrap().len(), 1);
    assert!(files(place.path()).is_empty());
}

/// Nobody is in anybody's way who comes and goes at once with others.
#[test]
fn options_and_names_are_as_good_as_ever_after_all_that() {
    let place = Place::new();
    let options: SegmentOptions = place.options().size(SIZE).participants(3);
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let options = options.clone();
            thread::spawn(move || {
                for _ in 0..200 {
                    let segment = options.clone().open_or_create("busy").unwrap();
                    let (sender, receiver) = segment
                        .bytes(&format!("c{:?}", thread::current().id()).replace(['(', ')'], ""))
                        .open()
                        .unwrap();
                    within(sender.send("x")).unwrap();
                    assert_eq!(&*within(receiver.recv()).unwrap(), b"x");
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert!(files(place.path()).is_empty());
}
