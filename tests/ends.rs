//! How channels end: what was sent is received, or nobody was there to receive it; and who leaves touches nothing that is not, or
//! not any more, what it has left.
//!
//! `WATERWAY_TEST_ROUNDS` says how many short-lived channels there are in all (of the threads, and of the processes), and how
//! often the only consumer is started again: `WATERWAY_TEST_ROUNDS=10000000 cargo test --release --test ends short_lived`.

mod common;

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    pin::Pin,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use common::{PATIENCE, Place, in_process_of, role, rounds};
use waterway::{
    ChannelOptions, Delivery, OpenError, Receiver, Segment, Sender, TryRecvError, TrySendError,
    policy::{Priority, PriorityBy},
};

fn plain(segment: &Segment) -> ChannelOptions<u64> {
    segment.channel("c").capacity(4096)
}

fn at_least_once(segment: &Segment) -> ChannelOptions<u64> {
    plain(segment).delivery(Delivery::AtLeastOnce { max_deliveries: 5 })
}

fn levelled(segment: &Segment) -> ChannelOptions<u64> {
    plain(segment).policy(PriorityBy(|number: &u64| match number % 3 {
        0 => Priority::Low,
        1 => Priority::Normal,
        _ => Priority::High,
    }))
}

/// The last receiver goes, a new one comes, and something is sent to it; while the old one may still be at it.
fn is_left_alone(options: fn(&Segment) -> ChannelOptions<u64>, rounds: u64) {
    let segment = in_process_of(16);
    let sender = options(&segment).sender().unwrap();
    let mut sent_to_the_new = 0;
    for round in 1..=rounds {
        let old = options(&segment).receiver().unwrap();
        while sender.try_send(0).is_ok() {}
        let going = thread::spawn(move || drop(old));
        while !sender.is_closed() {
            std::hint::spin_loop();
        }
        let new = options(&segment).receiver().unwrap();
        let started = Instant::now();
        let sent = loop {
            match sender.try_send(round) {
                Ok(()) => break true,
                Err(TrySendError::Full(_)) if started.elapsed() < Duration::from_millis(200) => thread::yield_now(),
                Err(_) => break false,
            }
        };
        going.join().unwrap();
        if sent {
            sent_to_the_new += 1;
            let mut found = false;
            while let Ok(message) = new.try_recv() {
                found |= *message == round;
            }
            assert!(found, "round {round}: sent to a receiver that was there, and lost");
        }
    }
    assert!(sent_to_the_new > rounds / 2, "{sent_to_the_new} of {rounds}");
}

#[test]
fn what_is_sent_to_a_receiver_that_has_come_is_not_drained_by_the_one_that_went() {
    is_left_alone(plain, 300);
}

#[test]
fn what_is_sent_at_least_once_to_a_receiver_that_has_come_is_not_drained_by_the_one_that_went() {
    is_left_alone(at_least_once, 100);
}

#[test]
fn what_is_sent_by_level_to_a_receiver_that_has_come_is_not_drained_by_the_one_that_went() {
    is_left_alone(levelled, 100);
}

/// Sends as much as it can until the channel is closed, while a receiver closes it. What was sent is received before the end.
fn all_comes_before_the_end(options: fn(&Segment) -> ChannelOptions<u64>, rounds: u64, closes_late: bool) {
    let segment = in_process_of(16);
    for round in 0..rounds {
        let (sender, receiver) = options(&segment).open().unwrap();
        let start = Arc::new(Barrier::new(2));
        let sending = {
            let start = Arc::clone(&start);
            thread::spawn(move || {
                start.wait();
                let mut sent = 0;
                loop {
                    match sender.try_send(sent) {
                        Ok(()) => sent += 1,
                        Err(TrySendError::Full(_)) => thread::yield_now(),
                        Err(_) => return (sent, sender),
                    }
                }
            })
        };
        start.wait();
        let mut received = 0;
        while received < 20 {
            received += u64::from(receiver.try_recv().is_ok());
        }
        while closes_late && receiver.try_recv().is_ok() {
            received += 1;
        }
        // Somebody else hears of it as soon as it is said.
        let other = receiver.clone();
        let taking = thread::spawn(move || {
            let mut received = 0;
            loop {
                match other.try_recv() {
                    Ok(_) => received += 1,
                    Err(TryRecvError::Disconnected) => return received,
                    Err(_) => {}
                }
            }
        });
        receiver.close();
        loop {
            match receiver.try_recv() {
                Ok(_) => received += 1,
                Err(TryRecvError::Disconnected) => break,
                Err(_) => {}
            }
        }
        received += taking.join().unwrap();
        let (sent, _sender) = sending.join().unwrap();
        assert_eq!(sent, received, "round {round}: sent, and not received before the end");
    }
}

fn small(segment: &Segment) -> ChannelOptions<u64> {
    segment.channel("c").capacity(64)
}

fn small_levels(segment: &Segment) -> ChannelOptions<u64> {
    levelled(segment).capacity(64)
}

#[test]
fn what_was_sent_is_received_before_the_end_though_the_channel_was_closed_meanwhile() {
    all_comes_before_the_end(small, 600, true);
    all_comes_before_the_end(small, 200, false);
}

#[test]
fn what_was_sent_by_level_is_received_before_the_end_though_the_channel_was_closed_meanwhile() {
    all_comes_before_the_end(small_levels, 300, true);
}

#[test]
fn what_was_sent_with_a_permit_after_the_last_receiver_went_is_for_nobody_and_leaves_nothing() {
    let segment = in_process_of(4);
    for options in [plain, at_least_once, levelled] {
        let (sender, receiver) = options(&segment).open().unwrap();
        let (before, after) = (sender.try_reserve().unwrap(), sender.try_reserve().unwrap());
        drop(receiver);
        before.send(1);
        let receiver = options(&segment).receiver().unwrap();
        after.send(2);
        assert_eq!(*receiver.try_recv().unwrap(), 2);
        assert_eq!(receiver.try_recv().map(|message| *message), Err(TryRecvError::Empty));
        drop((sender, receiver));
        assert!(segment.channels().is_empty());
    }
    common::assert_empty(&segment);
}

#[test]
fn what_is_given_back_after_the_last_receiver_went_is_freed_and_the_channel_goes() {
    let segment = in_process_of(4);
    let (sender, receiver) = at_least_once(&segment).open().unwrap();
    sender.try_send(7).unwrap();
    let message = receiver.try_recv().unwrap();
    drop(receiver);
    message.nack();
    assert!(sender.is_closed());
    drop(sender);
    assert!(segment.channels().is_empty());
    common::assert_empty(&segment);
}

#[test]
fn what_is_given_back_to_a_receiver_that_has_come_since_is_received() {
    let segment = in_process_of(4);
    let (sender, receiver) = at_least_once(&segment).open().unwrap();
    sender.try_send(7).unwrap();
    let message = receiver.try_recv().unwrap();
    drop(receiver);
    let receiver = at_least_once(&segment).receiver().unwrap();
    message.nack();
    assert_eq!(*receiver.try_recv().unwrap(), 7);
}

// ---- Channels of one message ----

fn brief(segment: &Segment, name: &str) -> ChannelOptions<u64> {
    segment.channel(name)
}

/// The table may be full for a while: of channels that others are about to leave.
fn patiently<R>(open: impl Fn() -> Result<R, OpenError>) -> R {
    let started = Instant::now();
    loop {
        match open() {
            Ok(ends) => return ends,
            Err(OpenError::TooManyChannels { .. } | OpenError::OutOfMemory { .. }) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
        assert!(started.elapsed() < PATIENCE, "no place among the channels");
    }
}

/// Makes channels, sends a message to each, and leaves it.
fn send_one_each(segment: &Segment, pair: u64, rounds: u64) {
    for round in 0..rounds {
        let sender = patiently(|| brief(segment, &format!("{pair}.{round}")).sender());
        sender.try_send(round).unwrap();
    }
}

/// Takes the one message of each, and leaves it.
fn take_one_each(segment: &Segment, pair: u64, rounds: u64) {
    for round in 0..rounds {
        let receiver = patiently(|| brief(segment, &format!("{pair}.{round}")).receiver());
        let started = Instant::now();
        for attempt in 1_u64.. {
            match receiver.try_recv() {
                Ok(message) => {
                    assert_eq!(*message, round);
                    break;
                }
                Err(TryRecvError::Disconnected) => panic!("pair {pair}: the message of channel {round} is lost"),
                Err(_) => {}
            }
            if attempt.is_multiple_of(128) {
                thread::yield_now();
                assert!(started.elapsed() < PATIENCE, "pair {pair}: the message of channel {round} does not come");
            }
        }
    }
}

/// Sides of pairs that share a table of few channels, so that entries are used again all the time.
const PAIRS: u64 = 3;

fn short_lived(options: waterway::SegmentOptions) -> waterway::SegmentOptions {
    options.size(4 << 20).channels(64).participants(16)
}

#[test]
fn the_message_of_a_short_lived_channel_is_received_by_another_thread() {
    let segment = short_lived(Segment::options()).in_process().unwrap();
    let each = rounds(60_000) / PAIRS;
    let started = Instant::now();
    thread::scope(|scope| {
        for pair in 0..PAIRS {
            let (one, other) = (segment.clone(), segment.clone());
            scope.spawn(move || send_one_each(&one, pair, each));
            scope.spawn(move || take_one_each(&other, pair, each));
        }
    });
    println!("{} channels of one message, {:?} each", PAIRS * each, started.elapsed() / (PAIRS * each) as u32);
    assert!(segment.channels().is_empty(), "{:?}", segment.channels());
    common::assert_empty(&segment);
}

#[test]
fn the_message_of_a_short_lived_channel_is_received_by_another_process() {
    const TEST: &str = "the_message_of_a_short_lived_channel_is_received_by_another_process";
    let place = Place::new();
    let each = rounds(12_000) / PAIRS;
    if let Some(role) = role() {
        let segment = place.options().open("short").unwrap();
        let (side, pair) = role.split_once(' ').unwrap();
        let pair = pair.parse().unwrap();
        return if side == "send" { send_one_each(&segment, pair, each) } else { take_one_each(&segment, pair, each) };
    }
    let segment = short_lived(place.options()).create("short").unwrap();
    let started = Instant::now();
    let children: Vec<_> =
        (0..PAIRS).flat_map(|pair| ["send", "take"].map(|side| place.spawn(TEST, &format!("{side} {pair}")))).collect();
    for mut child in children {
        // As long as it takes: each of them gives up if nothing moves.
        let status = loop {
            match child.ended() {
                Some(status) => break status,
                None => thread::sleep(Duration::from_millis(5)),
            }
        };
        assert!(status.success(), "{status}");
    }
    println!("{} channels of one message, {:?} each", PAIRS * each, started.elapsed() / (PAIRS * each) as u32);
    segment.bury_the_dead();
    assert!(segment.channels().is_empty(), "{:?}", segment.channels());
    common::assert_empty(&segment);
}

// ---- The only consumer is started again and again ----

fn tasks(segment: &Segment, persistent: bool) -> ChannelOptions<u64> {
    let delivery = Delivery::AtLeastOnce { max_deliveries: u32::MAX };
    segment.channel("tasks").capacity(64).persistent(persistent).delivery(delivery)
}

fn told(segment: &Segment) -> ChannelOptions<u64> {
    segment.channel("told").capacity(1024)
}

/// Takes tasks, says so, and acknowledges them; until it is killed, or, every other one, for a while.
fn consume(place: &Place, role: &str) {
    let segment = place.options().open("tasks").unwrap();
    let receiver = tasks(&segment, !role.contains("brief")).receiver().unwrap();
    let told = told(&segment).sender().unwrap();
    common::ready(place);
    let mut left = if role.contains("leaves") { 30 } else { u64::MAX };
    while left > 0 {
        let Some(task) = receiver.blocking_recv() else { return };
        told.blocking_send(*task).unwrap();
        task.ack();
        left -= 1;
    }
}

/// Restarts the only consumer, or relieves it by the next one, while two senders send. All that was sent is consumed.
fn restart_the_consumer(test: &str, overlap: bool) {
    let place = Place::new();
    if let Some(role) = role() {
        return consume(&place, &role);
    }
    let segment = place.options().size(4 << 20).participants(8).channels(8).create("tasks").unwrap();
    let persistent = !overlap;
    let done = told(&segment).receiver().unwrap();
    let consumed = Arc::new(Mutex::new(HashMap::<u64, u64>::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let listening = {
        let consumed = Arc::clone(&consumed);
        let waiting = segment.clone();
        thread::spawn(move || {
            let _segment = waiting;
            while let Some(task) = done.blocking_recv() {
                *consumed.lock().unwrap().entry(*task).or_default() += 1;
            }
        })
    };
    let told_open = told(&segment).sender().unwrap();
    let start = |round: u64| {
        let how = if round.is_multiple_of(3) { "leaves" } else { "stays" };
        let role = format!("{how} {}", if persistent { "" } else { "brief" });
        let process = place.spawn(test, &role);
        common::wait_until_ready(&place, &process);
        process
    };
    let guard = tasks(&segment, persistent).sender().unwrap();
    let mut consumer = start(1);
    let sent = Arc::new(AtomicU64::new(0));
    let senders: Vec<_> = (0..2)
        .map(|_| {
            let (sender, sent, stop): (Sender<u64>, _, _) = (guard.clone(), Arc::clone(&sent), Arc::clone(&stop));
            thread::spawn(move || {
                let mut mine = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let task = sent.fetch_add(1, Ordering::Relaxed);
                    loop {
                        match sender.try_send(task) {
                            Ok(()) => break mine.push(task),
                            Err(TrySendError::Full(_)) if !stop.load(Ordering::Relaxed) => {
                                thread::sleep(Duration::from_micros(50));
                            }
                            Err(TrySendError::Full(_)) => break,
                            Err(error) => panic!("a consumer is there, or to come: {error}"),
                        }
                    }
                }
                mine
            })
        })
        .collect();
    let restarts = rounds(40);
    for round in 0..restarts {
        thread::sleep(Duration::from_micros(500 * (round % 7)));
        if overlap {
            // Only one that stays is sure to be there until it is relieved.
            let next = start(1);
            consumer.kill();
            consumer = next;
        } else {
            consumer.kill();
            consumer = start(round);
        }
    }
    stop.store(true, Ordering::Relaxed);
    let sent: HashSet<u64> = senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect();
    // The last one takes the rest.
    let last = if overlap {
        let last = start(1);
        consumer.kill();
        last
    } else {
        consumer.kill();
        start(1)
    };
    common::eventually("all that was sent is consumed", || {
        let consumed = consumed.lock().unwrap();
        sent.iter().all(|task| consumed.contains_key(task))
    });
    last.kill();
    drop((guard, told_open));
    segment.bury_the_dead();
    listening.join().unwrap();
    let consumed = consumed.lock().unwrap();
    let again: u64 = consumed.values().map(|times| times - 1).sum();
    println!("{restarts} restarts, {} tasks, {again} came again", sent.len());
    assert!(consumed.keys().all(|task| sent.contains(task)), "consumed, and never sent");
}

#[test]
fn every_task_of_a_persistent_channel_is_consumed_though_the_only_consumer_is_restarted_again_and_again() {
    restart_the_consumer(
        "every_task_of_a_persistent_channel_is_consumed_though_the_only_consumer_is_restarted_again_and_again",
        false,
    );
}

#[test]
fn every_task_is_consumed_though_consumers_relieve_each_other_again_and_again() {
    restart_the_consumer("every_task_is_consumed_though_consumers_relieve_each_other_again_and_again", true);
}

// ---- Who waits, and leaves ----

struct Flag(AtomicBool);

impl Flag {
    fn new() -> (Arc<Self>, Waker) {
        let flag = Arc::new(Self(AtomicBool::new(false)));
        (Arc::clone(&flag), Waker::from(flag))
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Does something once, when it is woken.
struct Call(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        let call = self.0.lock().unwrap().take();
        if let Some(call) = call {
            call();
        }
    }
}

/// Polls until it has a place in the queue.
fn park<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Waker) {
    let mut future = future;
    for _ in 0..1000 {
        assert!(future.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
    }
}

/// Waits in a channel of that name, and says whether it is woken by what is sent there.
fn hears_of_a_message(segment: &Segment, name: &str, meanwhile: impl FnOnce()) {
    let (sender, receiver) = segment.channel::<u64>(name).open().unwrap();
    let (woken, waker) = Flag::new();
    let mut waiting = Box::pin(receiver.recv());
    park(waiting.as_mut(), &waker);
    meanwhile();
    woken.0.store(false, Ordering::SeqCst);
    sender.try_send(7).unwrap();
    assert!(woken.0.load(Ordering::SeqCst), "{name}: not woken");
}

#[test]
fn a_polled_receiver_that_goes_takes_nobody_elses_bit_with_it() {
    let segment = in_process_of(4);
    let (sender, receiver) = segment.channel::<u64>("first").open().unwrap();
    let (_, nothing) = Flag::new();
    for _ in 0..1000 {
        assert!(receiver.poll_recv(&mut Context::from_waker(&nothing)).is_pending());
    }
    // Who waits for the end drops the last sender, and opens another channel: in the waker, or, as likely as a switch of threads just
    // then, on another thread.
    type Ends = (Sender<u64>, Receiver<u64>);
    let next: Arc<Mutex<Option<Ends>>> = Arc::default();
    let sender: &'static Sender<u64> = Box::leak(Box::new(sender));
    let mut closed = Box::pin(sender.closed());
    let address = std::ptr::from_ref(sender) as usize;
    let call = {
        let (segment, next) = (segment.clone(), Arc::clone(&next));
        move || {
            // SAFETY: the leaked box; the future that borrows it is never looked at again.
            drop(unsafe { Box::from_raw(address as *mut Sender<u64>) });
            let (sender, receiver) = segment.channel::<u64>("second").open().unwrap();
            // One clone of it waits, for as long as the test lasts.
            let waits: &'static Receiver<u64> = Box::leak(Box::new(receiver.clone()));
            let waiting: Waiting = Box::pin(async { waits.recv().await.map_or(0, |message| *message) });
            PARKED.with_borrow_mut(|parked| {
                let (woken, waker) = Flag::new();
                let waiting = parked.insert((waiting, woken));
                park(waiting.0.as_mut(), &waker);
            });
            *next.lock().unwrap() = Some((sender, receiver));
        }
    };
    let waker = Waker::from(Arc::new(Call(Mutex::new(Some(Box::new(call))))));
    park(closed.as_mut(), &waker);
    std::mem::forget(closed);
    drop(receiver);
    let ends = next.lock().unwrap().take().expect("the waker was called");
    let (waiting, woken) = PARKED.take().unwrap();
    woken.0.store(false, Ordering::SeqCst);
    ends.0.try_send(7).unwrap();
    let is_woken = woken.0.load(Ordering::SeqCst);
    drop(waiting);
    assert!(is_woken);
}

type Waiting = Pin<Box<dyn Future<Output = u64>>>;

thread_local! {
    static PARKED: std::cell::RefCell<Option<(Waiting, Arc<Flag>)>> = const { std::cell::RefCell::new(None) };
}

/// Places that are leaked go with the end: else the bit stays in an entry that is another channel's by then, and clearing it
/// later makes that one deaf.
#[test]
fn a_place_that_was_leaked_goes_with_its_end_and_leaves_the_next_channel_alone() {
    let segment = Segment::options().size(4 << 20).channels(4).in_process().unwrap();
    let (_, nothing) = Flag::new();
    // Of a receiver.
    let (sender, receiver) = segment.channel::<u64>("first").open().unwrap();
    let leaked: &'static Receiver<u64> = Box::leak(Box::new(receiver.clone()));
    let mut waiting = Box::pin(leaked.recv());
    park(waiting.as_mut(), &nothing);
    drop(receiver);
    // SAFETY: leaked above; the future that borrows it is only dropped, which looks at its own place.
    drop(unsafe { Box::from_raw(std::ptr::from_ref(leaked).cast_mut()) });
    drop(sender);
    hears_of_a_message(&segment, "second", || drop(waiting));
    // Of who waits for room, and for the end.
    let (sender, receiver) = segment.channel::<u64>("first").capacity(1).open().unwrap();
    sender.try_send(1).unwrap();
    let mut room = Box::pin(sender.send(2));
    park(room.as_mut(), &nothing);
    std::mem::forget(room);
    let mut end = Box::pin(sender.closed());
    park(end.as_mut(), &nothing);
    std::mem::forget(end);
    drop((receiver, sender));
    hears_of_a_message(&segment, "second", || {});
    // Of a semaphore and a notification.
    let semaphore = segment.semaphore("first").permits(1).open().unwrap();
    let permit = semaphore.try_acquire().unwrap();
    let mut acquiring = Box::pin(semaphore.acquire());
    park(acquiring.as_mut(), &nothing);
    std::mem::forget(acquiring);
    drop(permit);
    drop(semaphore);
    hears_of_a_message(&segment, "second", || {});
    let notify = segment.notify("first").unwrap();
    let mut notified = Box::pin(notify.notified());
    park(notified.as_mut(), &nothing);
    std::mem::forget(notified);
    drop(notify);
    hears_of_a_message(&segment, "second", || {});
}

/// A task that is woken because the channel ends may panic, and the channel goes all the same.
#[test]
fn a_waker_that_panics_keeps_no_channel_from_going() {
    let segment = in_process_of(4);
    let (sender, receiver) = segment.channel::<u64>("c").capacity(8).open().unwrap();
    (0..8).for_each(|number| sender.try_send(number).unwrap());
    let watching = sender.clone();
    let mut closed = Box::pin(async move { watching.closed().await });
    let called = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let calls = Arc::clone(&called);
    let panics = Waker::from(Arc::new(Call(Mutex::new(Some(Box::new(move || {
        calls.store(true, std::sync::atomic::Ordering::SeqCst);
        std::panic::resume_unwind(Box::new("woken"))
    }))))));
    park(closed.as_mut(), &panics);
    // The panic ends at the waker: it is no business of who drops.
    drop(receiver);
    assert!(called.load(std::sync::atomic::Ordering::SeqCst));
    assert_eq!(sender.len(), 0);
    drop((closed, sender));
    assert!(segment.channels().is_empty());
    common::assert_empty(&segment);
}
