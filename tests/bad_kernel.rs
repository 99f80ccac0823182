//! A kernel that shows less than it could: other process numbers, processes that are dead and still in its table, others
//! that have become another program, and profiles that refuse system calls.

mod common;

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{Place, Stamp, eventually, role, within};
use waterway::{Segment, TrySendError};

fn open(place: &Place) -> Segment {
    place.options().size(4 << 20).participants(8).channels(16).open_or_create("kernel").unwrap()
}

/// Has ends of channels, messages that it has received, and blocks, and says so.
fn hold(segment: &Segment) -> impl Sized + use<> {
    let (data, own) = (segment.bytes("data").sender().unwrap(), segment.bytes("own").open().unwrap());
    own.0.try_send([1; 500]).unwrap();
    let message = own.1.try_recv().unwrap();
    let block = segment.allocator().allocate_copy(&[2; 3000]).unwrap();
    segment.bytes("hello").sender().unwrap().blocking_send([1]).unwrap();
    (data, own, message, block)
}

#[test]
fn a_process_that_becomes_another_program_has_left() {
    const TEST: &str = "a_process_that_becomes_another_program_has_left";
    let place = Place::new();
    let segment = open(&place);
    if role().is_some() {
        let _held = hold(&segment);
        let (program, time) = (c"/bin/sleep", c"600");
        // SAFETY: texts that end with zeros, and a list of them that ends with a null pointer.
        unsafe { libc::execv(program.as_ptr(), [program.as_ptr(), time.as_ptr(), std::ptr::null()].as_ptr()) };
        panic!("{}", std::io::Error::last_os_error());
    }
    let (data, hello) = (segment.bytes("data").receiver().unwrap(), segment.bytes("hello").receiver().unwrap());
    let mut child = place.spawn(TEST, "exec");
    within(hello.recv()).unwrap();
    assert!(within(data.recv()).is_none());
    eventually("it is buried", || segment.participants().len() == 1);
    assert!(child.ended().is_none(), "the program runs");
    assert_eq!(fs::read_to_string(format!("/proc/{}/comm", child.pid())).unwrap().trim(), "sleep");
    drop((data, hello));
    all_comes_back(&segment);
}

#[test]
fn a_dead_process_is_buried_before_its_parent_asks_for_it() {
    const TEST: &str = "a_dead_process_is_buried_before_its_parent_asks_for_it";
    let place = Place::new();
    let segment = open(&place);
    if role().is_some() {
        let _held = hold(&segment);
        thread::sleep(common::PATIENCE);
        return;
    }
    let (data, hello) = (segment.bytes("data").receiver().unwrap(), segment.bytes("hello").receiver().unwrap());
    let child = place.spawn(TEST, "hold");
    within(hello.recv()).unwrap();
    // SAFETY: a plain system call on a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(child.pid() as libc::pid_t, libc::SIGKILL) }, 0);
    assert!(within(data.recv()).is_none());
    eventually("it is buried", || segment.participants().len() == 1);
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.pid())).unwrap();
    assert!(stat.rsplit_once(')').unwrap().1.starts_with(" Z"), "{stat}");
    drop((data, hello));
    all_comes_back(&segment);
}

/// The dead one is buried, and nobody has anything any more.
fn all_comes_back(segment: &Segment) {
    eventually("all memory is free", || {
        let report = segment.check();
        let held: usize = report.sectors.iter().map(|sector| sector.allocated_bytes + sector.in_flight_bytes).sum();
        report.is_clean() && held == 0 && segment.channels().is_empty()
    });
}

/// What `unshare` must be told here for process numbers of one's own; `None`, with a word about it, if that is not allowed.
fn namespaces() -> Option<&'static [&'static str]> {
    let ways: [&[&str]; 2] =
        [&["--pid", "--fork", "--mount-proc", "--kill-child"], &["-Urpf", "--mount-proc", "--kill-child"]];
    let way = ways.into_iter().find(|way| {
        Command::new("unshare").args(*way).arg("true").stderr(Stdio::null()).status().is_ok_and(|tried| tried.success())
    });
    if way.is_none() {
        eprintln!("skipped: no namespace of process numbers can be made here");
    }
    way
}

/// A process that is number 1 in a namespace of its own.
struct Inner(Child);

impl Inner {
    fn start(way: &[&str], place: &Place, test: &str, role: &str) -> Self {
        let child = Command::new("unshare")
            .args(way)
            .arg(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env("WATERWAY_TEST_ROLE", role)
            .env("WATERWAY_TEST_PLACE", place.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    /// SIGKILL, from outside, for the process that is number 1 inside.
    fn kill_inside(&self) {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.0.id())).unwrap();
        let inside: libc::pid_t = children.trim().parse().unwrap();
        // SAFETY: a plain system call on a process that our child has not waited for, as it sleeps until then.
        assert_eq!(unsafe { libc::kill(inside, libc::SIGKILL) }, 0);
    }

    fn succeed(&mut self) {
        let started = Instant::now();
        while self.0.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < common::PATIENCE);
            thread::sleep(Duration::from_millis(5));
        }
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn processes_in_namespaces_of_their_own_talk_and_are_told_apart() {
    const TEST: &str = "processes_in_namespaces_of_their_own_talk_and_are_told_apart";
    let place = Place::new();
    let segment = open(&place);
    if let Some(name) = role() {
        assert_eq!(std::process::id(), 1);
        let (to, from) =
            (segment.bytes(&format!("{name}-back")).sender().unwrap(), segment.bytes(&name).receiver().unwrap());
        to.blocking_send(Stamp { sender: 0, number: 0 }.message(1)).unwrap();
        while let Some(message) = from.blocking_recv() {
            to.blocking_send(&message[..]).unwrap();
        }
        return;
    }
    let Some(way) = namespaces() else { return };
    let ends = ["a", "b"].map(|name| {
        let back = segment.bytes(&format!("{name}-back")).receiver().unwrap();
        (segment.bytes(name).capacity(8).sender().unwrap(), back)
    });
    let [a, mut b] = ["a", "b"].map(|name| Inner::start(way, &place, TEST, name));
    let [(to_a, from_a), (to_b, from_b)] = ends;
    let echo = |to: &waterway::Sender<[u8]>, from: &waterway::Receiver<[u8]>| {
        for number in 0..500 {
            let stamp = Stamp { sender: 9, number };
            within(to.send(stamp.message(1 + number as usize * 13 % 4000))).unwrap();
            assert_eq!(Stamp::verify(&within(from.recv()).unwrap()), Some(stamp));
        }
    };
    for (to, from) in [(&to_a, &from_a), (&to_b, &from_b)] {
        within(from.recv()).unwrap();
        echo(to, from);
    }
    // Both are number 1, as they see it.
    let numbers: Vec<u32> = segment.participants().iter().map(|participant| participant.pid).collect();
    assert_eq!(numbers.iter().filter(|number| **number == 1).count(), 2, "{numbers:?}");
    a.kill_inside();
    assert!(within(from_a.recv()).is_none());
    eventually("the dead one is buried", || segment.participants().len() == 2);
    echo(&to_b, &from_b);
    assert!(matches!(to_a.try_send([1]), Err(TrySendError::Closed(_))));
    drop((to_b, from_b));
    b.succeed();
    drop((to_a, from_a));
    all_comes_back(&segment);
}

#[test]
fn a_process_with_the_number_of_a_dead_one_is_not_taken_for_it() {
    const TEST: &str = "a_process_with_the_number_of_a_dead_one_is_not_taken_for_it";
    let place = Place::new();
    match role().as_deref() {
        Some("hold") => {
            let _held = hold(&open(&place));
            thread::sleep(common::PATIENCE);
        }
        // In a namespace of its own, where it may say which number comes next.
        Some(_) => {
            let segment = open(&place);
            let (data, hello) = (segment.bytes("data").receiver().unwrap(), segment.bytes("hello").receiver().unwrap());
            let child = place.spawn(TEST, "hold");
            let number = child.pid();
            within(hello.recv()).unwrap();
            assert!(segment.participants().iter().any(|participant| participant.pid == number));
            child.kill();
            let mut others: Vec<Child> = Vec::new();
            for _ in 0..100 {
                let _ = fs::write("/proc/sys/kernel/ns_last_pid", (number - 1).to_string());
                others.push(Command::new("sleep").arg("600").spawn().unwrap());
                if others.last().unwrap().id() == number {
                    break;
                }
            }
            let reused = others.last().unwrap().id() == number;
            assert!(within(data.recv()).is_none());
            eventually("the dead one is buried", || segment.participants().len() == 1);
            for mut other in others {
                other.kill().unwrap();
                other.wait().unwrap();
            }
            drop((data, hello));
            all_comes_back(&segment);
            fs::write(place.path().join("reused"), reused.to_string()).unwrap();
        }
        None => {
            let Some(way) = namespaces() else { return };
            Inner::start(way, &place, TEST, "inside").succeed();
            if fs::read_to_string(place.path().join("reused")).unwrap() != "true" {
                eprintln!("skipped in part: no process got the number of the dead one");
            }
        }
    }
}

/// From here on the kernel refuses these calls to this thread, to those that it starts, and to their programs.
fn refuse(calls: [libc::c_long; 2], error: i32) {
    let step = |code: u32, to: u8, value: u32| libc::sock_filter { code: code as u16, jt: to, jf: 0, k: value };
    let filter = [
        // The number of the call stands first in what is looked at.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 2, calls[0] as u32),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, calls[1] as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | error as u32),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: no more privileges, and a program that outlives the call.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
        for call in calls {
            assert_eq!(libc::syscall(call, 0, 0, 0, 0, 0), -1);
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(error));
        }
    }
}

fn under_a_profile(test: &str, error: i32) {
    let place = Place::new();
    match role().as_deref() {
        None => place.spawn(test, "survive").succeed(),
        Some("hold") => {
            let _held = hold(&open(&place));
            thread::sleep(common::PATIENCE);
        }
        Some(_) => {
            refuse([libc::SYS_futex_waitv, libc::SYS_membarrier], error);
            survive(&place, test);
        }
    }
}

/// All of what is done elsewhere with those calls.
fn survive(place: &Place, test: &str) {
    let (segment, other) = (open(place), open(place));
    let (data, (keep, hello)) = (segment.bytes("data").receiver().unwrap(), segment.bytes("hello").open().unwrap());
    for _ in 0..3 {
        let child = place.spawn(test, "hold");
        within(hello.recv()).unwrap();
        child.kill();
        assert!(within(data.recv()).is_none());
        eventually("it is buried", || segment.participants().len() == 2);
    }
    let (to, from) = (other.bytes("talk").capacity(4).sender().unwrap(), segment.bytes("talk").receiver().unwrap());
    let sender = thread::spawn(move || {
        for number in 0..2000 {
            to.blocking_send(Stamp { sender: 1, number }.message(1 + number as usize % 3000)).unwrap();
        }
    });
    let mut expected = 0;
    while let Some(message) = from.blocking_recv() {
        assert_eq!(Stamp::verify(&message), Some(Stamp { sender: 1, number: expected }));
        expected += 1;
    }
    sender.join().unwrap();
    assert_eq!(expected, 2000);
    // Memory is waited for, and had again; small blocks go through the caches, which cannot be fenced here.
    for len in [60, 3000, 100_000] {
        let (full, drain) =
            (other.bytes("full").capacity(1 << 16).sender().unwrap(), segment.bytes("full").receiver().unwrap());
        while full.try_send(vec![5; len]).is_ok() {}
        assert!(matches!(full.try_send(vec![5; len]), Err(TrySendError::OutOfMemory(_))), "{len}");
        let waiter = thread::spawn(move || within(full.send(vec![6; len])).unwrap());
        thread::sleep(Duration::from_millis(5));
        let mut got = 0;
        while let Some(message) = within(drain.recv()) {
            assert!(message.len() == len);
            got += 1;
        }
        waiter.join().unwrap();
        assert!(got > 10);
    }
    drop((data, keep, hello, from, other));
    all_comes_back(&segment);
}

#[test]
fn a_kernel_without_the_newer_calls_is_good_enough() {
    under_a_profile("a_kernel_without_the_newer_calls_is_good_enough", libc::ENOSYS);
}

#[test]
fn a_profile_that_forbids_the_newer_calls_is_good_enough() {
    under_a_profile("a_profile_that_forbids_the_newer_calls_is_good_enough", libc::EPERM);
}
