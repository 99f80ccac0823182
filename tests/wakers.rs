//! Code of others: wakers, which may come back to whatever wakes or drops them, take locks of their own, and panic; and what users
//! implement, which may do so, too.

mod common;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use common::{
    PATIENCE, Place, assert_empty, eventually, held, in_process, ready, role, two, wait_to_be_killed, wait_until_ready,
    within,
};
use waterway::{
    Delivery, Segment,
    blocks::{Block, Handle},
    broadcast::Behind,
    service::{CallError, Client, Server},
};
use zerocopy::FromBytes;

/// Does something that may hang, but not for ever: the thread that hangs is left to itself then.
fn in_time<R: Send + 'static>(what: &str, work: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, wait) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    match wait.recv_timeout(PATIENCE) {
        Ok(result) => result,
        Err(error) => panic!("{what}: {error}"),
    }
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A task that is polled on the spot by whoever wakes it, and dropped by whoever drops its last waker.
struct OnTheSpot {
    work: Mutex<Option<Work>>,
    /// Woken while it was being polled.
    again: AtomicBool,
}

impl OnTheSpot {
    fn new(work: impl Future<Output = ()> + Send + 'static) -> Arc<Self> {
        let work: Work = Box::pin(work);
        Arc::new(Self { work: Mutex::new(Some(work)), again: AtomicBool::new(false) })
    }

    fn poll(self: &Arc<Self>) {
        self.again.store(true, Ordering::SeqCst);
        while self.again.load(Ordering::SeqCst) {
            let Ok(mut work) = self.work.try_lock() else { return };
            self.again.store(false, Ordering::SeqCst);
            let waker = Waker::from(Arc::clone(self));
            if work.as_mut().is_some_and(|work| work.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()) {
                *work = None;
            }
        }
    }

    fn is_done(&self) -> bool {
        self.work.try_lock().is_ok_and(|work| work.is_none())
    }
}

impl Wake for OnTheSpot {
    fn wake(self: Arc<Self>) {
        self.poll();
    }
}

/// Polls it until it sleeps, whatever it does before that.
fn put_to_sleep(task: &Arc<OnTheSpot>) {
    task.poll();
    assert!(!task.is_done());
}

/// One way to wait in a segment, and what ends that.
struct Pattern {
    name: &'static str,
    /// Waits once. Called several times, each is a task of its own.
    wait: Box<dyn Fn() -> Work + Send>,
    /// Ends one wait, or all of them.
    end: Box<dyn Fn() + Send>,
}

fn pattern(name: &'static str, wait: impl Fn() -> Work + Send + 'static, end: impl Fn() + Send + 'static) -> Pattern {
    Pattern { name, wait: Box::new(wait), end: Box::new(end) }
}

/// Sends and receives, opens and closes, allocates and frees: all that a task may do.
fn use_segment(segment: &Segment) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("used-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let (sender, receiver) = segment.channel::<u64>(&name).capacity(2).open().unwrap();
    sender.try_send(1).unwrap();
    assert_eq!(*receiver.try_recv().unwrap(), 1);
    drop(segment.allocator().allocate_bytes(3000).unwrap());
}

/// All patterns. Those who wait use `waiting`, those who end it `ending`; both may be the same.
fn patterns(waiting: &Segment, ending: &Segment) -> Vec<Pattern> {
    let mut all = Vec::new();
    let with = |work: Work, segment: &Segment| -> Work {
        let segment = segment.clone();
        Box::pin(async move {
            work.await;
            use_segment(&segment);
        })
    };
    {
        let receiver = waiting.channel::<u64>("messages").receiver().unwrap();
        let sender = ending.channel::<u64>("messages").sender().unwrap();
        let segment = waiting.clone();
        all.push(pattern(
            "a message",
            move || {
                let receiver = receiver.clone();
                with(Box::pin(async move { assert!(receiver.recv().await.is_some()) }), &segment)
            },
            move || sender.try_send(7).unwrap(),
        ));
    }
    {
        let receiver = waiting.channel::<u64>("polled").receiver().unwrap();
        let sender = ending.channel::<u64>("polled").sender().unwrap();
        let segment = waiting.clone();
        all.push(pattern(
            "a message, by polling",
            move || {
                let receiver = receiver.clone();
                let received = async move {
                    assert!(std::future::poll_fn(|context| receiver.poll_recv(context)).await.is_some());
                };
                with(Box::pin(received), &segment)
            },
            move || sender.try_send(7).unwrap(),
        ));
    }
    {
        let sender = waiting.channel::<u64>("room").capacity(4).sender().unwrap();
        let receiver = ending.channel::<u64>("room").receiver().unwrap();
        while sender.try_send(0).is_ok() {}
        let segment = waiting.clone();
        all.push(pattern(
            "room",
            move || {
                let sender = sender.clone();
                with(Box::pin(async move { sender.send(1).await.unwrap() }), &segment)
            },
            move || drop(receiver.try_recv().unwrap()),
        ));
    }
    {
        let sender = waiting.channel::<u64>("permits").capacity(4).sender().unwrap();
        let receiver = ending.channel::<u64>("permits").receiver().unwrap();
        while sender.try_send(0).is_ok() {}
        let segment = waiting.clone();
        all.push(pattern(
            "a permit",
            move || {
                let sender = sender.clone();
                with(Box::pin(async move { sender.reserve().await.unwrap().send(2) }), &segment)
            },
            move || drop(receiver.try_recv().unwrap()),
        ));
    }
    {
        let sender = waiting.channel::<u64>("closing").sender().unwrap();
        let receiver = ending.channel::<u64>("closing").receiver().unwrap();
        let segment = waiting.clone();
        all.push(pattern(
            "the end of a channel",
            move || {
                let sender = sender.clone();
                with(Box::pin(async move { sender.closed().await }), &segment)
            },
            move || receiver.close(),
        ));
    }
    {
        let semaphore = waiting.semaphore("semaphore").permits(4).open().unwrap();
        let other = ending.semaphore("semaphore").open().unwrap();
        other.try_acquire_many(4).unwrap().forget();
        let segment = waiting.clone();
        all.push(pattern(
            "a semaphore's permit",
            move || {
                let semaphore = semaphore.clone();
                with(Box::pin(async move { semaphore.acquire().await.unwrap().forget() }), &segment)
            },
            move || assert_eq!(other.add_permits(1), 1),
        ));
    }
    {
        let notify = waiting.notify("notify").unwrap();
        let other = ending.notify("notify").unwrap();
        let segment = waiting.clone();
        all.push(pattern(
            "a notification",
            move || {
                let notify = notify.clone();
                with(Box::pin(async move { notify.notified().await }), &segment)
            },
            move || other.notify_one(),
        ));
    }
    {
        let notify = waiting.notify("notify-all").unwrap();
        let other = ending.notify("notify-all").unwrap();
        let segment = waiting.clone();
        all.push(pattern(
            "a notification of all",
            move || {
                let notify = notify.clone();
                with(Box::pin(async move { notify.notified().await }), &segment)
            },
            move || other.notify_waiters(),
        ));
    }
    {
        let receiver = waiting.watch::<u64>("watch").initial(0).receiver().unwrap();
        let sender = ending.watch::<u64>("watch").initial(0).sender().unwrap();
        let segment = waiting.clone();
        all.push(pattern(
            "a value",
            move || {
                let mut receiver = receiver.clone();
                let changed = async move {
                    receiver.changed().await.unwrap();
                    assert_eq!(*receiver.borrow_and_update(), 1);
                };
                with(Box::pin(changed), &segment)
            },
            move || sender.send(1).unwrap(),
        ));
    }
    {
        let subscriber = waiting.broadcast::<u64>("broadcast").group("one").behind(Behind::Block).subscriber().unwrap();
        let publisher = ending.broadcast::<u64>("broadcast").publisher().unwrap();
        let segment = waiting.clone();
        all.push(pattern(
            "what is published",
            move || {
                let subscriber = subscriber.clone();
                with(Box::pin(async move { drop(subscriber.recv().await.unwrap()) }), &segment)
            },
            move || assert_eq!(publisher.try_send(7).unwrap(), 1),
        ));
    }
    {
        let receiver = Arc::new(waiting.channel::<[u8]>("routed").routed().partitions(2).receiver().unwrap());
        let sender = ending.channel::<[u8]>("routed").routed().sender().unwrap();
        let key = AtomicUsize::new(0);
        let segment = waiting.clone();
        all.push(pattern(
            "a routed message",
            move || {
                let receiver = Arc::clone(&receiver);
                with(Box::pin(async move { assert!(receiver.recv().await.is_some()) }), &segment)
            },
            move || {
                let key = key.fetch_add(1, Ordering::Relaxed) as u64;
                sender.try_send(key, b"routed").unwrap();
            },
        ));
    }
    {
        let client = waiting.service::<u64, u64>("service").client().unwrap();
        let server = ending.service::<u64, u64>("service").server().unwrap();
        let segment = waiting.clone();
        all.push(pattern(
            "a response",
            move || {
                let client = client.clone();
                with(Box::pin(async move { assert_eq!(*client.call(3).await.unwrap(), 6) }), &segment)
            },
            move || {
                let request = server.try_next().unwrap();
                let doubled = *request * 2;
                request.try_respond(doubled).unwrap();
            },
        ));
    }
    {
        let client = waiting.service::<u64, u64>("dropping").client().unwrap();
        let server = ending.service::<u64, u64>("dropping").server().unwrap();
        let segment = waiting.clone();
        all.push(pattern(
            "the end of a request",
            move || {
                let client = client.clone();
                let call = async move { assert_eq!(client.call(3).await.unwrap_err(), CallError::Unanswered(3)) };
                with(Box::pin(call), &segment)
            },
            move || drop(server.try_next().unwrap()),
        ));
    }
    all
}

/// Waits until a task that was woken in another participant is done.
fn is_done_soon(name: &str, task: &Arc<OnTheSpot>) {
    eventually(name, || task.is_done());
}

#[test]
fn a_task_may_run_where_it_is_woken() {
    in_time("it is woken under a lock", || {
        let segment = in_process();
        for Pattern { name, wait, end } in patterns(&segment, &segment) {
            let tasks = [OnTheSpot::new(wait()), OnTheSpot::new(wait())];
            tasks.iter().for_each(put_to_sleep);
            end();
            end();
            tasks.iter().for_each(|task| is_done_soon(name, task));
        }
    });
}

#[test]
fn a_task_may_run_where_another_participant_wakes_it() {
    in_time("it is woken under a lock", || {
        let (_place, one, other) = two();
        for Pattern { name, wait, end } in patterns(&one, &other) {
            let tasks = [OnTheSpot::new(wait()), OnTheSpot::new(wait())];
            tasks.iter().for_each(put_to_sleep);
            end();
            end();
            tasks.iter().for_each(|task| is_done_soon(name, task));
        }
    });
}

/// A waker that panics when it is called, or dropped.
struct Panics {
    when_dropped: bool,
}

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        if !self.when_dropped {
            std::panic::resume_unwind(Box::new("a waker panics"));
        }
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        if self.when_dropped {
            std::panic::resume_unwind(Box::new("a waker panics when it is dropped"));
        }
    }
}

fn poll_with(work: &mut Work, waker: &Waker) -> Poll<()> {
    work.as_mut().poll(&mut Context::from_waker(waker))
}

/// Polls until it has parked, however it waits before that.
fn park(work: &mut Work) {
    for _ in 0..10_000 {
        assert!(poll_with(work, Waker::noop()).is_pending());
    }
}

/// Leaves another waker with one that has parked.
fn leave(work: &mut Work, waker: Waker) {
    assert!(poll_with(work, &waker).is_pending());
}

#[test]
fn a_waker_that_panics_keeps_nobody_else_asleep_and_nothing_from_being_done() {
    for (when_dropped, between_two) in [(false, false), (false, true), (true, false), (true, true)] {
        in_time("somebody sleeps", move || {
            let segments = between_two.then(two);
            let single = in_process();
            let (one, other) = segments.as_ref().map_or((&single, &single), |(_, one, other)| (one, other));
            for Pattern { name, wait, end } in patterns(one, other) {
                // The one that has waited longest has the waker that panics.
                let mut first = wait();
                park(&mut first);
                leave(&mut first, Waker::from(Arc::new(Panics { when_dropped })));
                let second = OnTheSpot::new(wait());
                put_to_sleep(&second);
                for _ in 0..2 {
                    // Whoever sends may hear of it, when all is done.
                    let _ = catch_unwind(AssertUnwindSafe(&end));
                }
                is_done_soon(name, &second);
                // What was for the first one is there still.
                eventually(name, || poll_with(&mut first, Waker::noop()).is_ready());
            }
        });
    }
}

/// Owns something that is dropped with its last waker.
struct Owns<T>(#[allow(dead_code)] Mutex<T>);

impl<T: Send> Wake for Owns<T> {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_waker_may_be_the_last_owner_of_another_wait_for_the_same() {
    in_time("it is dropped under a lock", || {
        let segment = in_process();
        for Pattern { name, wait, end } in patterns(&segment, &segment) {
            // It is replaced by another waker, goes with its own wait, or is called.
            for how in 0..3 {
                let (mut work, mut other) = (wait(), wait());
                park(&mut work);
                park(&mut other);
                leave(&mut work, Waker::from(Arc::new(Owns(Mutex::new(other)))));
                match how {
                    0 => assert!(poll_with(&mut work, Waker::noop()).is_pending(), "{name}"),
                    1 => drop(work),
                    _ => {
                        end();
                        eventually(name, || poll_with(&mut work, Waker::noop()).is_ready());
                    }
                }
            }
        }
    });
}

/// Takes a lock of its user's when it is called.
struct Locks {
    lock: Arc<Mutex<()>>,
    has_begun: AtomicBool,
    is_done: AtomicBool,
}

impl Wake for Locks {
    fn wake(self: Arc<Self>) {
        self.has_begun.store(true, Ordering::SeqCst);
        drop(self.lock.lock().unwrap());
        self.is_done.store(true, Ordering::SeqCst);
    }
}

#[test]
fn the_last_handle_may_be_dropped_under_a_lock_that_a_waker_waits_for() {
    let place = Place::new();
    let one = place.options().size(4 << 20).create("two").unwrap();
    let left = place.path().to_owned();
    in_time("nobody waits for a waker", move || {
        let other = Segment::options().dir(&left).open("two").unwrap();
        let receiver = other.channel::<u64>("numbers").receiver().unwrap();
        let sender = one.channel::<u64>("numbers").sender().unwrap();
        let lock = Arc::new(Mutex::new(()));
        let locks = Arc::new(Locks {
            lock: Arc::clone(&lock),
            has_begun: AtomicBool::new(false),
            is_done: AtomicBool::new(false),
        });
        let mut waiting: Work = Box::pin(async move { drop(receiver.recv().await) });
        park(&mut waiting);
        leave(&mut waiting, Waker::from(Arc::clone(&locks)));
        let locked = lock.lock().unwrap();
        sender.try_send(7).unwrap();
        eventually("the waker is called", || locks.has_begun.load(Ordering::SeqCst));
        drop((waiting, other));
        assert!(!locks.is_done.load(Ordering::SeqCst));
        drop(locked);
        eventually("the waker comes back", || locks.is_done.load(Ordering::SeqCst));
        // Whoever came back has left the segment.
        eventually("it has left", || one.participants().len() == 1);
        eventually("it has left its channel", || sender.is_closed());
        drop(sender);
        eventually("nothing is left", || one.channels().is_empty());
        assert_empty(&one);
    });
}

#[test]
fn a_segment_that_nobody_holds_up_is_left_at_once() {
    for _ in 0..50 {
        let (_place, one, other) = two();
        let receiver = other.channel::<u64>("numbers").receiver().unwrap();
        let sender = one.channel::<u64>("numbers").sender().unwrap();
        let mut waiting: Work = Box::pin(async move { drop(receiver.recv().await) });
        park(&mut waiting);
        sender.try_send(7).unwrap();
        drop((waiting, other));
        assert_eq!(one.participants().len(), 1);
    }
}

/// Threads that have a lane each of a segment, until this is dropped.
struct Lanes(Arc<AtomicBool>, Vec<thread::JoinHandle<()>>);

impl Lanes {
    fn take(segment: &Segment, count: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (told, taken) = mpsc::channel();
        let threads = (0..count).map(|_| {
            let (segment, over, told) = (segment.clone(), Arc::clone(&over), told.clone());
            thread::spawn(move || {
                drop(segment.allocator().allocate_bytes(100).unwrap());
                told.send(()).unwrap();
                while !over.load(Ordering::Relaxed) {
                    thread::park_timeout(Duration::from_millis(100));
                }
            })
        });
        let threads: Vec<_> = threads.collect();
        (0..count).for_each(|_| taken.recv().unwrap());
        Self(over, threads)
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        for thread in self.1.drain(..) {
            thread.thread().unpark();
            thread.join().unwrap();
        }
    }
}

#[test]
fn a_process_without_a_lane_buries_the_dead_and_wakes_who_waits_for_a_response() {
    const TEST: &str = "a_process_without_a_lane_buries_the_dead_and_wakes_who_waits_for_a_response";
    let place = Place::new();
    let open = |place: &Place| place.options().size(4 << 20).participants(3).open_or_create("lanes").unwrap();
    let jobs = |segment: &Segment| {
        segment.channel::<u64>("jobs").delivery(Delivery::AtLeastOnce { max_deliveries: 9 }).open().unwrap()
    };
    if role().is_some() {
        let segment = open(&place);
        let (_sender, receiver) = jobs(&segment);
        let _held = receiver.try_recv().unwrap();
        ready(&place);
        wait_to_be_killed();
    }
    let segment = open(&place);
    let (sender, receiver) = jobs(&segment);
    sender.try_send(7).unwrap();
    let child = place.spawn(TEST, "receive");
    wait_until_ready(&place, &child);
    let client: Client<u64, u64> = segment.service("double").client().unwrap();
    let server: Server<u64, u64> = segment.service("double").server().unwrap();
    let call = OnTheSpot::new(async move { assert_eq!(*client.call(4).await.unwrap(), 8) });
    let lanes = Lanes::take(&segment, 30);
    put_to_sleep(&call);
    child.kill();
    in_time("the dead is buried, and its message comes back", move || {
        within(async { assert_eq!(receiver.recv().await.unwrap().delivery_count(), 2) });
        let request = server.try_next().unwrap();
        request.try_respond(8).unwrap();
        eventually("the call is answered", || call.is_done());
        drop((receiver, server, call));
    });
    drop((lanes, sender));
    eventually("no channel is left", || segment.channels().is_empty());
    assert_eq!(held(&segment), 0);
}

/// Bytes that do something else whenever somebody asks for them.
struct Meddles<'a>(&'a dyn Fn());

impl AsRef<[u8]> for Meddles<'_> {
    fn as_ref(&self) -> &[u8] {
        (self.0)();
        b"some bytes"
    }
}

#[test]
fn whoever_is_asked_for_its_bytes_may_panic_or_use_the_segment() {
    in_time("it uses the segment", || {
        let segment = Segment::options().size(4 << 20).participants(1).in_process().unwrap();
        let (sender, receiver) = segment.bytes("bytes").capacity(8).open().unwrap();
        let (publisher, subscriber) = segment.broadcast::<[u8]>("broadcast").capacity(8).open().unwrap();
        let (routed, from_routed) = segment.channel::<[u8]>("routed").routed().partitions(1).open().unwrap();
        let (watch, _looks) = segment.watch::<[u8]>("watch").open().unwrap();
        type Way<'a> = &'a dyn Fn(&dyn Fn());
        let ways: [Way<'_>; 5] = [
            &|meddle| sender.try_send(Meddles(meddle)).unwrap(),
            &|meddle| within(sender.send_many(&[Meddles(meddle), Meddles(meddle), Meddles(meddle)])).unwrap(),
            &|meddle| assert_eq!(publisher.try_send(Meddles(meddle)).unwrap(), 1),
            &|meddle| routed.try_send(1_u64, Meddles(meddle)).unwrap(),
            &|meddle| watch.send(Meddles(meddle)).unwrap(),
        ];
        for way in ways {
            let before = held(&segment);
            // It panics when it is asked for the first time, the second time, and so on.
            for time in 0.. {
                let asked = AtomicUsize::new(0);
                let sent = catch_unwind(AssertUnwindSafe(|| {
                    way(&|| {
                        use_segment(&segment);
                        if asked.fetch_add(1, Ordering::Relaxed) == time {
                            std::panic::resume_unwind(Box::new("it panics"));
                        }
                    });
                }));
                if sent.is_ok() {
                    assert!(time > 0);
                    break;
                }
                assert_eq!((receiver.len(), sender.capacity(), subscriber.len(), routed.len()), (0, 8, 0, 0));
                assert_eq!(held(&segment), before);
            }
            while let Ok(message) = receiver.try_recv() {
                assert_eq!(&message[..], b"some bytes");
            }
            while subscriber.try_recv().is_ok() || from_routed.try_recv().is_ok() {}
            watch.send(b"").unwrap();
        }
    });
}

/// Writes to a block when it is dropped.
struct Writes<'a>(&'a Block<u64>);

impl Drop for Writes<'_> {
    fn drop(&mut self) {
        *self.0.write().unwrap() = 5;
    }
}

#[test]
fn a_guard_that_a_destructor_takes_and_gives_up_in_a_panic_poisons_nothing() {
    let segment = in_process();
    let block = segment.allocator().allocate(4_u64).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _writes = Writes(&block);
        std::panic::resume_unwind(Box::new("something else fails"));
    }));
    assert!(panicked.is_err());
    assert!(!block.poisoned().unwrap());
    assert_eq!(*block.read().unwrap(), 5);
    // One that was taken before is given up half-way.
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _writing = block.write().unwrap();
        std::panic::resume_unwind(Box::new("the work fails"));
    }));
    assert!(panicked.is_err() && block.poisoned().unwrap());
}

#[test]
fn a_handle_that_is_made_up_frees_no_value_of_a_watch() {
    let segment = in_process();
    let (sender, receiver) = segment.watch::<u64>("value").initial(7).open().unwrap();
    let allocator = segment.allocator();
    for number in 0_u32..1 << 17 {
        for generation in 0_u32..4 {
            let bytes = [number.to_ne_bytes(), generation.to_ne_bytes()].concat();
            let handle = Handle::read_from_bytes(&bytes).unwrap();
            assert!(allocator.free(handle).is_err(), "{handle:?}");
            assert!(allocator.adopt::<u64>(handle).is_err(), "{handle:?}");
        }
    }
    assert_eq!(*receiver.borrow(), 7);
    sender.send(8).unwrap();
    assert_eq!(*receiver.borrow(), 8);
    assert!(segment.check().is_clean());
}
