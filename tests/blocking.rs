//! What blocks a thread: it waits wherever tokio lets one wait, refuses where tokio does, and needs no executor, also for time
//! limits, and in a forked child.

mod common;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{Place, eventually, in_process, role, two, within};
use futures::FutureExt;
use waterway::{
    Receiver, Segment,
    broadcast::{self, Behind},
    channel::{RecvTimeoutError, SendTimeoutError},
    routing::Route,
    semaphore::AcquireTimeoutError,
    service::Request,
};

const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(100);

fn single() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn many() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Everything that blocks, once with something to wait for.
fn block(segment: &Segment) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("numbers-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let (sender, receiver) = segment.channel::<u64>(&name).capacity(1).open().unwrap();
    let sending = thread::spawn(move || {
        thread::sleep(SHORT);
        (0..3).for_each(|number| sender.blocking_send(number).unwrap());
    });
    assert_eq!(receiver.blocking_recv().map(|message| *message), Some(0));
    assert_eq!(*receiver.blocking_recv_timeout(LONG).unwrap(), 1);
    assert_eq!(receiver.blocking_recv_many(&mut Vec::new(), 5), 1);
    assert!(receiver.blocking_recv().is_none());
    sending.join().unwrap();
    let semaphore = segment.semaphore(&format!("{name}-permits")).open().unwrap();
    let held = semaphore.clone().blocking_acquire_owned().unwrap();
    let releasing = thread::spawn(move || {
        thread::sleep(SHORT);
        drop(held);
    });
    drop(semaphore.blocking_acquire().unwrap());
    releasing.join().unwrap();
}

#[test]
fn blocking_waits_where_tokio_lets_it() {
    for runtime in [single(), many()] {
        let segment = in_process();
        runtime.block_on(async {
            let inside = segment.clone();
            tokio::task::spawn_blocking(move || block(&inside)).await.unwrap();
        });
        // In the context of a runtime, but not driving it.
        let _entered = runtime.enter();
        block(&segment);
    }
    let segment = in_process();
    many().block_on(async {
        tokio::task::block_in_place(|| block(&segment));
        let segment = segment.clone();
        tokio::spawn(async move { tokio::task::block_in_place(|| block(&segment)) }).await.unwrap();
    });
    block(&segment);
    smol::block_on(async { block(&segment) });
}

/// What a panic says.
fn said(panic: Box<dyn std::any::Any + Send>) -> String {
    panic.downcast::<String>().map(|said| *said).unwrap_or_else(|said| (*said.downcast::<&str>().unwrap()).to_owned())
}

#[test]
fn blocking_panics_where_tokio_does() {
    let refuses = |what: &str, panicked: Result<(), Box<dyn std::any::Any + Send>>| {
        let said = said(panicked.expect_err(what));
        assert!(said.starts_with("Cannot block the current thread from within a runtime."), "{what}: {said}");
    };
    let segment = in_process();
    type Case = (&'static str, Box<dyn Fn(&Segment) + Send + Sync>);
    let all: Vec<Case> = vec![
        (
            "blocking_send",
            Box::new(|segment| {
                let (sender, _receiver) = segment.channel::<u64>("a").open().unwrap();
                // Also if there is nothing to wait for, as in tokio.
                sender.blocking_send(1).unwrap();
            }),
        ),
        (
            "blocking_recv",
            Box::new(|segment| {
                let (_sender, receiver) = segment.channel::<u64>("b").open().unwrap();
                drop(receiver.blocking_recv());
            }),
        ),
        (
            "blocking_recv_timeout",
            Box::new(|segment| {
                let (_sender, receiver) = segment.channel::<u64>("c").open().unwrap();
                drop(receiver.blocking_recv_timeout(SHORT));
            }),
        ),
        ("blocking_acquire", Box::new(|segment| drop(segment.semaphore("d").open().unwrap().blocking_acquire()))),
    ];
    for runtime in [single(), many()] {
        for (what, block) in &all {
            // The main future, and a task.
            runtime.block_on(async {
                refuses(what, catch_unwind(AssertUnwindSafe(|| block(&segment))));
                let (inside, outcome) = (segment.clone(), tokio::sync::oneshot::channel());
                let what = what.to_string();
                let (told, outcome) = outcome;
                let local = async move {
                    let (_, receiver) = inside.channel::<u64>("e").open().unwrap();
                    let _ = told.send(catch_unwind(AssertUnwindSafe(|| drop(receiver.blocking_recv()))));
                };
                tokio::spawn(local);
                refuses(&what, outcome.await.unwrap());
            });
        }
    }
    // Nothing is broken by that.
    block(&segment);
}

#[test]
fn blocking_ends_with_its_time() {
    let (_place, one, other) = two();
    let (sender, receiver) = (
        one.channel::<u64>("numbers").capacity(1).sender().unwrap(),
        other.channel::<u64>("numbers").receiver().unwrap(),
    );
    let started = Instant::now();
    assert_eq!(receiver.blocking_recv_timeout(SHORT).unwrap_err(), RecvTimeoutError::Timeout);
    sender.blocking_send_timeout(1, SHORT).unwrap();
    assert!(matches!(sender.blocking_send_timeout(2, SHORT), Err(SendTimeoutError::Timeout(2))));
    assert!(started.elapsed() >= 2 * SHORT);
    // What comes within the time is had.
    thread::scope(|scope| {
        scope.spawn(|| sender.blocking_send_timeout(2, LONG).unwrap());
        assert_eq!(*receiver.blocking_recv_timeout(LONG).unwrap(), 1);
        assert_eq!(*receiver.blocking_recv_timeout(Duration::MAX).unwrap(), 2);
    });
    let slices = one.bytes("bytes").capacity(1).sender().unwrap();
    let bytes = other.bytes("bytes").receiver().unwrap();
    slices.blocking_send_timeout("one", SHORT).unwrap();
    assert!(slices.blocking_send_timeout("two", SHORT).unwrap_err().is_timeout());
    assert_eq!(bytes.blocking_recv_timeout(SHORT).unwrap()[..], *b"one");
    let routed = one.bytes("routed").routed().capacity(1).sender().unwrap();
    let mine = other.bytes("routed").routed().receiver().unwrap();
    assert_eq!(mine.blocking_recv_timeout(SHORT).unwrap_err(), RecvTimeoutError::Timeout);
    routed.blocking_send_timeout("key", "one", SHORT).unwrap();
    assert!(routed.blocking_send_timeout("key", "two", SHORT).unwrap_err().is_timeout());
    assert_eq!(mine.blocking_recv_timeout(LONG).unwrap()[..], *b"one");
    let publisher = one.broadcast::<u64>("news").open().unwrap().0;
    let subscriber = other.broadcast::<u64>("news").subscriber().unwrap();
    assert_eq!(subscriber.blocking_recv_timeout(SHORT).unwrap_err(), broadcast::RecvTimeoutError::Timeout);
    publisher.blocking_send_timeout(7, SHORT).unwrap();
    assert_eq!(*subscriber.blocking_recv_timeout(LONG).unwrap(), 7);
    // What ends meanwhile says so.
    drop(sender);
    assert_eq!(receiver.blocking_recv_timeout(LONG).unwrap_err(), RecvTimeoutError::Disconnected);
}

#[test]
fn a_thread_reserves_without_an_executor() {
    let (_place, one, other) = two();
    let sender = one.channel::<u64>("numbers").capacity(2).sender().unwrap();
    let receiver = other.channel::<u64>("numbers").receiver().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            sender.blocking_reserve().unwrap().send(0);
            sender.blocking_reserve_many(2).unwrap().zip(1..).for_each(|(permit, number)| permit.send(number));
            drop(sender.clone().blocking_reserve_owned().unwrap().send(3));
            sender.blocking_send_many(&[4, 5]).unwrap();
        });
        let received: Vec<u64> = (0..6).map(|_| *receiver.blocking_recv_timeout(LONG).unwrap()).collect();
        assert_eq!(received, [0, 1, 2, 3, 4, 5]);
    });
    let sender = one.channel::<[u16]>("slices").capacity(2).sender().unwrap();
    let receiver = other.channel::<[u16]>("slices").receiver().unwrap();
    let mut permit = sender.blocking_reserve(2).unwrap();
    permit.extend_from_slice(&[1, 2]);
    permit.send();
    drop(sender.blocking_reserve_many(1, 5).unwrap());
    let sender = sender.blocking_reserve_owned(5).unwrap().release();
    assert_eq!(receiver.blocking_recv_timeout(LONG).unwrap()[..], [1, 2]);
    sender.blocking_send_many(&[[3, 4], [5, 6]]).unwrap();
    assert_eq!(receiver.len(), 2);
}

#[test]
fn permits_are_waited_for_within_a_time() {
    let (_place, one, other) = two();
    let ours = one.semaphore("jobs").permits(3).open().unwrap();
    let theirs = other.semaphore("jobs").open().unwrap();
    let held = ours.blocking_acquire_many(2).unwrap();
    let one_more = theirs.blocking_acquire_timeout(SHORT).unwrap();
    assert_eq!(theirs.blocking_acquire_timeout(SHORT).unwrap_err(), AcquireTimeoutError::Timeout);
    assert_eq!(within(theirs.acquire_timeout(SHORT)).unwrap_err(), AcquireTimeoutError::Timeout);
    assert!(theirs.blocking_acquire_many_timeout(3, SHORT).unwrap_err().is_timeout());
    let refused = theirs.blocking_acquire_many_timeout(4, LONG).unwrap_err();
    assert_eq!(refused, AcquireTimeoutError::TooMany { asked: 4, permits: 3 });
    assert!(refused.to_string().contains("has 3"), "{refused}");
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(SHORT);
            drop((held, one_more));
        });
        assert_eq!(theirs.clone().blocking_acquire_many_owned(3).unwrap().num_permits(), 3);
    });
    // What was not had in time is in nobody's way.
    let all = within(ours.acquire_many_timeout(3, LONG)).unwrap();
    ours.close();
    assert_eq!(theirs.blocking_acquire_timeout(LONG).unwrap_err(), AcquireTimeoutError::Closed);
    assert_eq!(all.num_permits(), 3);
}

#[test]
fn time_limits_work_on_any_executor() {
    let segment = in_process();
    let (sender, receiver) = segment.channel::<u64>("numbers").open().unwrap();
    let wait = || async {
        assert_eq!(receiver.recv_timeout(SHORT).await.unwrap_err(), RecvTimeoutError::Timeout);
        // The earliest of many comes first, and the others in their turn.
        let times = futures::future::join_all([5_u32, 1, 3, 2, 4].map(|number| {
            let receiver = receiver.clone();
            async move {
                assert!(receiver.recv_timeout(number * SHORT).await.is_err());
                (Instant::now(), number)
            }
        }));
        let mut times = times.await;
        times.sort_unstable();
        assert_eq!(times.map_numbers(), [1, 2, 3, 4, 5]);
        // What is over before leaves nothing behind.
        sender.try_send(1).unwrap();
        assert_eq!(*receiver.recv_timeout(LONG).await.unwrap(), 1);
        assert!(receiver.recv_timeout(LONG).now_or_never().is_none());
        assert!(receiver.recv_timeout(Duration::ZERO).await.is_err());
    };
    smol::block_on(wait());
    futures::executor::block_on(wait());
    // A runtime without timers.
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(wait());
    many().block_on(wait());
}

trait MapNumbers {
    fn map_numbers(&self) -> Vec<u32>;
}

impl MapNumbers for Vec<(Instant, u32)> {
    fn map_numbers(&self) -> Vec<u32> {
        self.iter().map(|(_, number)| *number).collect()
    }
}

/// Runs a child of this process, which says by its exit code whether all was well.
fn in_forked_child(work: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child does not return from here.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or(false);
        // SAFETY: ends the process.
        unsafe { libc::_exit(i32::from(!done)) };
    }
    let mut status = 0;
    let mut has_ended = false;
    let started = Instant::now();
    while !has_ended && started.elapsed() < Duration::from_secs(60) {
        // SAFETY: plain system calls on our child.
        has_ended = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } == pid;
        thread::sleep(Duration::from_millis(5));
    }
    if !has_ended {
        // SAFETY: as above.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, &raw mut status, 0);
        }
    }
    has_ended && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

/// In a process of its own, with one thread: a child that is forked beside other threads may find locks taken for ever.
#[test]
fn time_limits_work_in_a_forked_child_that_opens_the_segment_anew() {
    const TEST: &str = "time_limits_work_in_a_forked_child_that_opens_the_segment_anew";
    let place = Place::new();
    if role().is_none() {
        return place.spawn(TEST, "fork").succeed();
    }
    let segment = place.options().size(4 << 20).create("forks").unwrap();
    let receiver = segment.channel::<u64>("numbers").receiver().unwrap();
    for uses in [false, true] {
        if uses {
            assert!(futures::executor::block_on(receiver.recv_timeout(SHORT)).is_err());
            assert!(receiver.blocking_recv_timeout(SHORT).is_err());
        }
        for blocking in [false, true] {
            let name = format!("own-{uses}-{blocking}");
            assert!(in_forked_child(|| {
                let segment = place.options().open("forks").unwrap();
                let (sender, receiver) = segment.channel::<u64>(&name).capacity(1).open().unwrap();
                if blocking {
                    receiver.blocking_recv_timeout(SHORT).is_err()
                        && sender.try_send(1).is_ok()
                        && sender.blocking_send_timeout(2, SHORT).is_err()
                } else {
                    futures::executor::block_on(async {
                        receiver.recv_timeout(SHORT).await.is_err()
                            && sender.try_send(1).is_ok()
                            && sender.send_timeout(2, SHORT).await.is_err()
                    })
                }
            }));
        }
    }
    eventually("the children are gone", || segment.participants().len() == 1);
}

#[test]
fn a_call_is_made_without_an_executor() {
    let (_place, one, other) = two();
    let client = one.service::<u64, u64>("double").client().unwrap();
    let server = other.service::<u64, u64>("double").server().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            while let Some(request) = server.blocking_next() {
                let number = **request.message();
                match number {
                    // Many responses.
                    100 => {
                        let mut responses = request.stream();
                        (0..3).for_each(|number| responses.blocking_send(number).unwrap());
                    }
                    // None in time.
                    0 => {
                        thread::sleep(3 * SHORT);
                        let _ = request.blocking_respond(0);
                    }
                    number => request.blocking_respond(2 * number).unwrap(),
                }
            }
        });
        assert_eq!(*client.blocking_call(21).unwrap(), 42);
        assert_eq!(*client.blocking_call_timeout(4, LONG).unwrap(), 8);
        assert!(client.blocking_call_timeout(0, SHORT).unwrap_err().is_timeout());
        let mut stream = client.blocking_call_stream(100).unwrap();
        let responses: Vec<u64> = std::iter::from_fn(|| stream.blocking_next()).map(|next| *next.unwrap()).collect();
        assert_eq!(responses, [0, 1, 2]);
        drop((stream, client));
    });
}

#[test]
fn values_and_notifications_are_waited_for_without_an_executor() {
    let (_place, one, other) = two();
    let (sender, _first) = one.watch::<u64>("level").initial(1).open().unwrap();
    let mut receiver = other.watch::<u64>("level").receiver().unwrap();
    receiver.mark_unchanged();
    assert_eq!(receiver.blocking_changed_timeout(SHORT).unwrap_err(), RecvTimeoutError::Timeout);
    let notify = one.notify("ready").unwrap();
    let told = other.notify("ready").unwrap();
    assert!(!told.blocking_notified_timeout(SHORT));
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(SHORT);
            notify.notify_one();
            (2..=5).for_each(|value| {
                thread::sleep(SHORT / 4);
                sender.send(value).unwrap();
            });
        });
        told.blocking_notified();
        receiver.blocking_changed().unwrap();
        assert_eq!(*receiver.blocking_wait_for(|value| *value == 5).unwrap(), 5);
    });
    notify.notify_one();
    assert!(told.blocking_notified_timeout(LONG));
    drop(sender);
    assert!(receiver.blocking_changed().is_err());
    assert_eq!(receiver.blocking_changed_timeout(LONG).unwrap_err(), RecvTimeoutError::Disconnected);
}

#[test]
fn an_owned_wait_for_a_notification_goes_anywhere() {
    let (_place, one, other) = two();
    let notify = one.notify("ready").unwrap();
    let waiting = other.notify("ready").unwrap().notified_owned();
    let waiting = thread::spawn(move || within(waiting));
    eventually("it waits", || {
        notify.notify_waiters();
        waiting.is_finished()
    });
    waiting.join().unwrap();
    let mut waiting = Box::pin(notify.clone().notified_owned());
    assert!(!waiting.as_mut().enable());
    drop(notify);
    other.notify("ready").unwrap().notify_one();
    within(waiting);
}

/// All that blocks a thread, in the one process until the other one has done something, and the other way round; within a time that is
/// too short where the other one does nothing.
#[test]
fn what_blocks_goes_on_when_another_process_does_something() {
    const TEST: &str = "what_blocks_goes_on_when_another_process_does_something";
    let place = Place::new();
    let segment = place.options().size(4 << 20).open_or_create("blocking").unwrap();
    if role().is_some() {
        return do_something_elsewhere(&segment);
    }
    let numbers = segment.channel::<u64>("numbers").capacity(2).sender().unwrap();
    let said = segment.bytes("said").capacity(1).receiver().unwrap();
    let semaphore = segment.semaphore("permits").permits(2).open().unwrap();
    let held = semaphore.blocking_acquire_many(2).unwrap();
    let client = segment.service::<u64, u64>("double").client().unwrap();
    let (levels, _first) = segment.watch::<u64>("level").initial(1).open().unwrap();
    let notify = segment.notify("told").unwrap();
    let subscriber =
        segment.broadcast::<u64>("news").capacity(1).group("g").behind(Behind::Block).subscriber().unwrap();
    let keyed = segment.bytes("keyed").routed().capacity(1).partitions(1).sender().unwrap();
    let even = segment.channel::<u64>("even").capacity(1).sender().unwrap();
    let ruled = segment
        .channel::<u64>("odd")
        .capacity(1)
        .sender()
        .unwrap()
        .route(|number: &u64| number.is_multiple_of(2), even);

    // Nobody is there yet.
    assert_eq!(said.blocking_recv_timeout(SHORT).unwrap_err(), RecvTimeoutError::Timeout);
    assert!(!notify.blocking_notified_timeout(SHORT));
    assert_eq!(subscriber.blocking_recv_timeout(SHORT).unwrap_err(), broadcast::RecvTimeoutError::Timeout);
    assert!(client.blocking_call_timeout(1, SHORT).unwrap_err().is_timeout());
    assert!(!numbers.blocking_closed_timeout(SHORT));
    let other = place.spawn(TEST, "other");
    let hear = |what: &str| assert_eq!(said.blocking_recv_timeout(LONG).unwrap()[..], *what.as_bytes());

    // There is less room than messages.
    numbers.blocking_send(0).unwrap();
    numbers.blocking_send_timeout(1, LONG).unwrap();
    numbers.blocking_send_many(&[2, 3]).unwrap();
    numbers.blocking_reserve().unwrap().send(4);
    hear("numbers");
    keyed.blocking_send("k", "one").unwrap();
    keyed.blocking_send_timeout("k", "two", LONG).unwrap();
    for number in 0..4 {
        assert_eq!(ruled.blocking_send(number).unwrap() == Route::Default, number % 2 == 1);
        assert_eq!(ruled.blocking_send_timeout(number, LONG).unwrap() == Route::Default, number % 2 == 1);
    }
    hear("routed");

    hear("no permit");
    drop(held);
    hear("permits");
    drop(semaphore.blocking_acquire_many_timeout(2, LONG).unwrap());

    assert_eq!(*client.blocking_call(21).unwrap(), 42);
    assert_eq!(*client.blocking_call_timeout(4, LONG).unwrap(), 8);
    let mut stream = client.blocking_call_stream(3).unwrap();
    assert_eq!(*stream.blocking_next().unwrap().unwrap(), 0);
    assert_eq!(*stream.blocking_next_timeout(LONG).unwrap().unwrap(), 1);
    assert!(stream.blocking_next_timeout(SHORT).unwrap().unwrap_err().is_timeout());
    // Whoever is called waits for room, and for that.
    numbers.blocking_send(5).unwrap();
    drop(stream);
    let given_up = client.blocking_call_stream(7).unwrap();
    hear("taken");
    drop(given_up);
    hear("cancelled");

    for level in [2, 3, 4] {
        hear("level?");
        levels.send(level).unwrap();
    }
    notify.blocking_notified();
    hear("notified");
    assert!(notify.blocking_notified_timeout(LONG));
    assert_eq!(*subscriber.blocking_recv().unwrap(), 1);
    assert_eq!(*subscriber.blocking_recv_timeout(LONG).unwrap(), 2);
    assert_eq!(*subscriber.blocking_recv_timeout(LONG).unwrap(), 3);

    // It goes, and with it whatever it had.
    numbers.blocking_closed();
    client.blocking_closed();
    assert!(numbers.blocking_closed_timeout(LONG) && client.blocking_closed_timeout(LONG));
    assert!(matches!(numbers.blocking_send_timeout(5, LONG), Err(SendTimeoutError::Closed(5))));
    assert!(client.blocking_call_timeout(5, LONG).unwrap_err().is_closed());
    hear("the end");
    assert_eq!(said.blocking_recv_timeout(LONG).unwrap_err(), RecvTimeoutError::Disconnected);
    assert!(said.blocking_recv().is_none());
    other.succeed();
}

/// The other side of it.
fn do_something_elsewhere(segment: &Segment) {
    let said = segment.bytes("said").sender().unwrap();
    let say = |what: &str| said.blocking_send_timeout(what, LONG).unwrap();
    let numbers = segment.channel::<u64>("numbers").receiver().unwrap();
    let keyed = segment.bytes("keyed").routed().receiver().unwrap();
    let (odd, even) = (segment.channel::<u64>("odd").receiver().unwrap(), segment.channel("even").receiver().unwrap());
    let semaphore = segment.semaphore("permits").open().unwrap();
    let server = segment.service::<u64, u64>("double").server().unwrap();
    let mut levels = segment.watch::<u64>("level").receiver().unwrap();
    let notify = segment.notify("told").unwrap();
    let publisher = segment.broadcast::<u64>("news").publisher().unwrap();

    assert_eq!(*numbers.blocking_recv().unwrap(), 0);
    let mut received = Vec::new();
    while received.len() < 3 {
        let left = 3 - received.len();
        numbers.blocking_recv_many(&mut received, left);
    }
    assert_eq!(received.drain(..).map(|number| *number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(*numbers.blocking_recv_timeout(LONG).unwrap(), 4);
    assert_eq!(numbers.blocking_recv_timeout(SHORT).unwrap_err(), RecvTimeoutError::Timeout);
    say("numbers");
    assert_eq!(keyed.blocking_recv().unwrap()[..], *b"one");
    assert_eq!(keyed.blocking_recv_timeout(LONG).unwrap()[..], *b"two");
    for number in 0..4_u64 {
        let from: &Receiver<u64> = if number % 2 == 0 { &even } else { &odd };
        (0..2).for_each(|_| assert_eq!(*from.blocking_recv_timeout(LONG).unwrap(), number));
    }
    say("routed");

    assert!(semaphore.blocking_acquire_timeout(SHORT).unwrap_err().is_timeout());
    say("no permit");
    drop(semaphore.blocking_acquire().unwrap());
    drop(semaphore.blocking_acquire_many(2).unwrap());
    say("permits");

    // One that was given up before anybody came is nobody's.
    let doubled = |request: Request<u64, u64>| {
        let number = *request;
        request.blocking_respond(2 * number).unwrap();
    };
    doubled(server.blocking_next().unwrap());
    doubled(server.blocking_next_timeout(LONG).unwrap());
    let mut stream = server.blocking_next_timeout(LONG).unwrap().stream();
    stream.blocking_send(0).unwrap();
    stream.blocking_send(1).unwrap();
    assert_eq!(*numbers.blocking_recv().unwrap(), 5);
    while stream.blocking_send(2).is_ok() {
        // The caller takes none of them, and goes.
    }
    drop(stream);
    let given_up = server.blocking_next().unwrap();
    assert!(!given_up.blocking_cancelled_timeout(SHORT));
    say("taken");
    given_up.blocking_cancelled();
    assert!(given_up.blocking_cancelled_timeout(LONG));
    drop(given_up);
    assert_eq!(server.blocking_next_timeout(SHORT).unwrap_err(), RecvTimeoutError::Timeout);
    say("cancelled");

    levels.mark_unchanged();
    assert_eq!(levels.blocking_changed_timeout(SHORT).unwrap_err(), RecvTimeoutError::Timeout);
    say("level?");
    levels.blocking_changed().unwrap();
    say("level?");
    assert_eq!(*levels.blocking_wait_for(|level| *level > 2).unwrap(), 3);
    assert_eq!(levels.blocking_wait_for_timeout(|level| *level > 3, SHORT).unwrap_err(), RecvTimeoutError::Timeout);
    say("level?");
    assert_eq!(*levels.blocking_wait_for_timeout(|level| *level > 3, LONG).unwrap(), 4);
    notify.notify_one();
    say("notified");
    notify.notify_one();
    // The group is behind from the first on.
    publisher.blocking_send(1).unwrap();
    publisher.blocking_send_timeout(2, LONG).unwrap();
    publisher.blocking_send(3).unwrap();
    drop((numbers, server));
    say("the end");
}
