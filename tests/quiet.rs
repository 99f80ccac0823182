//! Nobody polls: no system calls while both ends are busy, and no processor time while nothing happens.

mod common;

use std::{thread, time::Duration};

use common::{Place, eventually, role, within};
use waterway::Segment;

/// From here on the kernel kills the thread for any system call but `read`, `write` and `exit`.
fn forbid_system_calls() {
    // SAFETY: only this thread is concerned, which does nothing but compute from here on.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) }, 0);
}

const MESSAGES: u64 = 200_000;

/// The kernel itself watches: a child that makes a system call between its first message and its last is killed, and
/// the last message never comes.
#[test]
fn neither_end_makes_a_system_call_while_nobody_sleeps() {
    const TEST: &str = "neither_end_makes_a_system_call_while_nobody_sleeps";
    let place = Place::new();
    let segment = place.options().size(4 << 20).open_or_create("busy").unwrap();
    let there = || segment.bytes("there").capacity(64);
    let back = || segment.channel::<u64>("back").capacity(64);
    if role().is_some() {
        let (receiver, sender) = (there().receiver().unwrap(), back().sender().unwrap());
        // The thread's lane, and its first magazines.
        sender.try_send(u64::MAX).unwrap();
        forbid_system_calls();
        let mut number = 0;
        while number < MESSAGES {
            let Ok(message) = receiver.try_recv() else { continue };
            number += message.len() as u64;
            while sender.try_send(number).is_err() {}
        }
        // The end of a process needs system calls, so there is none: the parent kills it.
        loop {
            std::hint::spin_loop();
        }
    }
    let (sender, receiver) = (there().sender().unwrap(), back().receiver().unwrap());
    let child = place.spawn(TEST, "echo");
    eventually("the child is there", || receiver.try_recv().is_ok_and(|message| *message == u64::MAX));
    let (mut sent, mut received) = (0, 0);
    let started = std::time::Instant::now();
    while received < MESSAGES {
        if sent < MESSAGES && sender.try_send([1]).is_ok() {
            sent += 1;
        }
        if let Ok(message) = receiver.try_recv() {
            received += 1;
            assert_eq!(*message, received);
        } else {
            // On a single processor the other one must run.
            thread::yield_now();
        }
        assert!(started.elapsed() < common::PATIENCE, "the child was killed after {received} messages");
    }
    child.kill();
}

/// Clock ticks of processor time, and voluntary switches to another task, of all threads of a process.
fn work_of(pid: u32) -> (u64, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    let ticks = [11, 12].map(|field| fields[field].parse::<u64>().unwrap()).iter().sum();
    let switches = std::fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok())
        .filter_map(|status| {
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .sum();
    (ticks, switches)
}

/// Watches a process for some seconds; what it may do is counted per quarter of a second, however long that took.
fn watch(pid: u32) -> (u64, u64, u64) {
    let (before, started) = (work_of(pid), std::time::Instant::now());
    thread::sleep(Duration::from_secs(3));
    let after = work_of(pid);
    (after.0 - before.0, after.1 - before.1, started.elapsed().as_millis() as u64 / 250)
}

fn wait_in_child(segment: &Segment, tasks: usize) {
    let receivers: Vec<_> = (0..tasks)
        .map(|number| segment.channel::<u64>(&format!("channel-{number}")).persistent(true).receiver().unwrap())
        .collect();
    let ready = segment.bytes("ready").sender().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let waiting = receivers.into_iter().map(|receiver| async move { receiver.recv().await });
        let mut waiting = Box::pin(futures::future::select_all(waiting.map(Box::pin)));
        // Nothing is there, so this poll makes all of them park.
        futures::future::poll_immediate(&mut waiting).await;
        tokio::task::yield_now().await;
        ready.send([1]).await.unwrap();
        waiting.await;
    });
}

#[test]
fn waiting_tasks_cost_four_looks_a_second_and_no_processor_time() {
    const TEST: &str = "waiting_tasks_cost_four_looks_a_second_and_no_processor_time";
    let place = Place::new();
    let segment = place.options().size(16 << 20).open_or_create("idle").unwrap();
    if role().is_some() {
        return wait_in_child(&segment, 100);
    }
    let ready = segment.bytes("ready").receiver().unwrap();
    let child = place.spawn(TEST, "wait");
    within(ready.recv()).unwrap();
    thread::sleep(Duration::from_millis(500));
    let (ticks, switches, quarters) = watch(child.pid());
    // Every look may take a few system calls, but does not sleep more than once.
    assert!(switches <= 2 * quarters + 4, "{switches} switches in {quarters} quarters of a second");
    assert!(ticks <= 5, "{ticks} ticks in {quarters} quarters of a second");
    child.kill();
}

#[test]
fn a_process_without_waiting_tasks_does_nothing_at_all() {
    const TEST: &str = "a_process_without_waiting_tasks_does_nothing_at_all";
    let place = Place::new();
    let segment = place.options().size(4 << 20).open_or_create("asleep").unwrap();
    if role().is_some() {
        let (_sender, receiver) = segment.channel::<u64>("numbers").open().unwrap();
        // It has waited before, so that its bridge runs.
        within(async { receiver.recv_timeout(Duration::from_millis(20)).await.unwrap_err() });
        segment.bytes("ready").sender().unwrap().try_send([1]).unwrap();
        thread::sleep(common::PATIENCE);
        return;
    }
    let ready = segment.bytes("ready").receiver().unwrap();
    let child = place.spawn(TEST, "idle");
    within(ready.recv()).unwrap();
    thread::sleep(Duration::from_millis(1000));
    let (ticks, switches, _) = watch(child.pid());
    assert_eq!((ticks, switches), (0, 0));
    child.kill();
}

/// Voluntary switches to another task of the thread that wakes, and is woken.
fn switches_of_the_bridge() -> u64 {
    let mut switches = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        let Ok(name) = std::fs::read_to_string(task.join("comm")) else { continue };
        if name.trim() == "waterway-bridge" {
            let status = std::fs::read_to_string(task.join("status")).unwrap();
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
            switches += line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
        }
    }
    switches
}

/// A child that sends messages, one by one, to so many processes that wait; says how often its
/// bridge ran meanwhile.
fn send_to_waiting(segment: &Segment) {
    let numbers = segment.channel::<u64>("numbers").sender().unwrap();
    // Until its bridge sleeps without a time.
    thread::sleep(Duration::from_millis(1000));
    let (before, started) = (switches_of_the_bridge(), std::time::Instant::now());
    for number in 0..500 {
        numbers.try_send(number).unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    // The last look.
    thread::sleep(Duration::from_millis(100));
    let switches = switches_of_the_bridge() - before;
    let tens = started.elapsed().as_millis() as u64 / 10;
    segment.channel::<[u64; 2]>("counted").sender().unwrap().try_send([switches, tens]).unwrap();
}

fn who_sends_to(waiting: usize, test: &str) -> [u64; 2] {
    let place = Place::new();
    let segment = place.options().size(4 << 20).open_or_create("looks").unwrap();
    match role().as_deref() {
        Some("send") => {
            send_to_waiting(&segment);
            std::process::exit(0);
        }
        Some(_) => {
            let numbers = segment.channel::<u64>("numbers").receiver().unwrap();
            common::ready(&place);
            within(async { while numbers.recv().await.is_some() {} });
            common::wait_to_be_killed();
        }
        None => {}
    }
    // The channel stays when its sender goes.
    let _sender = segment.channel::<u64>("numbers").sender().unwrap();
    let counted = segment.channel::<[u64; 2]>("counted").receiver().unwrap();
    let children: Vec<_> = (0..waiting).map(|_| place.spawn(test, "wait")).collect();
    children.iter().for_each(|child| common::wait_until_ready(&place, child));
    let sender = place.spawn(test, "send");
    let found = *within(counted.recv()).unwrap();
    sender.succeed();
    children.into_iter().for_each(common::Process::kill);
    found
}

#[test]
fn who_sends_to_several_that_wait_looks_again_a_hundred_times_a_second_at_most() {
    let test = "who_sends_to_several_that_wait_looks_again_a_hundred_times_a_second_at_most";
    let [switches, tens] = who_sends_to(3, test);
    // Woken for the first duty, and then when it is time to look.
    assert!(switches <= 2 * tens + 4, "{switches} switches in {tens} hundredths of a second");
}

#[test]
fn who_sends_to_one_that_waits_does_not_look_again() {
    let [switches, _] = who_sends_to(1, "who_sends_to_one_that_waits_does_not_look_again");
    assert_eq!(switches, 0);
}
