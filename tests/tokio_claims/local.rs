//! Claims about types, texts, panics and wakers: things of one process, or of two participants in it. And those that are
//! not as in tokio.

use std::{
    any::Any,
    fmt::Debug,
    panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use waterway::{
    OwnedPermit, Receiver, Segment, SendError, Sender, TryRecvError, TrySendError, WaitStrategy,
    blocks::{Content, Handle},
    channel::{Payload, Plain, RecvTimeoutError, SendErrorKind, SendTimeoutError},
};

use crate::{
    Claim,
    common::{assert_empty, eventually, two, within},
    scene,
};

macro_rules! local {
    ($($(#[$meta:meta])* fn $name:ident() $words:literal, $theirs:literal $body:block)*) => {
        $(
            $(#[$meta])*
            #[test]
            fn $name() $body
        )*

        pub(crate) const LOCAL: &[Claim] = &[
            $(Claim { words: $words, theirs: $theirs, test: stringify!($name), script: None },)*
        ];
    };
}

/// A channel in one process, whose ends park at once.
fn channel<T: Payload>(capacity: usize) -> (Segment, Sender<T>, Receiver<T>) {
    let segment = Segment::options().size(4 << 20).in_process().unwrap();
    let (sender, receiver) = segment.channel("channel").capacity(capacity).wait(WaitStrategy::Park).open().unwrap();
    (segment, sender, receiver)
}

/// Panics when it is used.
struct Bomb(AtomicUsize);

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("a waker that panics, as it should in this test");
    }
}

/// Remembers that it was used.
#[derive(Default)]
struct Alarm(AtomicUsize);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(feature = "tokio")]
fn text(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied()).unwrap()
}

local! {
    #[cfg(feature = "tokio")]
    fn blocking_in_a_task_panics()
    "the blocking methods panic in a task of a runtime and in its `block_on`, in tokio's words",
    "blocking_recv_async blocking_send_async" {
        let (_segment, sender, receiver) = channel::<u64>(4);
        let receivers = (receiver.clone(), receiver);
        within(async {
            let panics = [
                tokio::spawn(async move { sender.blocking_send(1).unwrap() }).await.unwrap_err(),
                tokio::spawn(async move { drop(receivers.0.blocking_recv()) }).await.unwrap_err(),
                tokio::spawn(async move { _ = receivers.1.blocking_recv_many(&mut vec![], 1) }).await.unwrap_err(),
            ];
            let (_tokio, mut tokio) = tokio::sync::mpsc::channel::<u64>(4);
            let theirs = tokio::spawn(async move { _ = tokio.blocking_recv() }).await.unwrap_err().into_panic();
            let (_segment, sender, _receiver) = channel::<u64>(4);
            let here = catch_unwind(AssertUnwindSafe(|| sender.blocking_send(1))).unwrap_err();
            for panic in panics.map(tokio::task::JoinError::into_panic).into_iter().chain([here]) {
                assert_eq!(text(&*panic), text(&*theirs));
            }
        });
    }

    fn auto_traits_are_as_in_tokio()
    "handles are `Send`, `Sync`, `Unpin`, `UnwindSafe` and `RefUnwindSafe`; futures `Send` and `Sync`",
    "" {
        fn sound<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>() {}
        fn sound_future<T: Send + Sync>(_: T) {}
        fn sound_value<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>(_: &T) {}
        fn all<T: Payload + ?Sized + 'static>() {
            sound::<Sender<T>>();
            sound::<Receiver<T>>();
            sound::<waterway::Message<T>>();
            sound::<waterway::WeakSender<T>>();
            sound::<waterway::Permit<'static, T>>();
            sound::<OwnedPermit<T>>();
            sound::<waterway::channel::PermitIterator<'static, T>>();
            sound::<waterway::channel::ReceiverStream<T>>();
            sound::<waterway::channel::RecvStream<'static, T>>();
            sound::<waterway::channel::Drain<'static, T>>();
            sound::<waterway::channel::BlockingIter<'static, T>>();
            sound::<waterway::ChannelOptions<T>>();
            sound::<waterway::channel::ForwardError<T>>();
        }
        fn all_blocks<T: Content + UnwindSafe + RefUnwindSafe + ?Sized>() {
            sound::<waterway::blocks::Block<T>>();
            sound::<waterway::blocks::BlockRef<T>>();
            sound::<waterway::blocks::ReadGuard<'static, T>>();
            sound::<waterway::blocks::WriteGuard<'static, T>>();
        }
        all::<u64>();
        all::<[u8]>();
        all_blocks::<u64>();
        all_blocks::<[u8]>();
        sound::<waterway::channel::SenderSink<u64, u64>>();
        sound::<waterway::channel::SenderSink<[u8], Vec<u8>>>();
        sound::<Segment>();
        sound::<waterway::SegmentOptions>();
        sound::<waterway::blocks::Allocator>();
        sound::<waterway::blocks::RawBlock<'static>>();
        sound::<waterway::blocks::HeapMemory>();
        sound::<Handle>();
        sound::<(SendError<u64>, TrySendError<u64>, SendTimeoutError<u64>, TryRecvError, RecvTimeoutError)>();
        fn sent<T: Send + Sync + Unpin>() {}
        sent::<waterway::OpenError>();
        sent::<waterway::codec::DecodeError>();
        let (segment, sender, receiver) = channel::<u64>(1);
        sound_future(sender.send(1));
        sound_future(sender.send_timeout(1, Duration::ZERO));
        sound_future(sender.send_many(&[1]));
        sound_future(sender.reserve());
        sound_future(sender.reserve_many(1));
        sound_future(sender.clone().reserve_owned());
        sound_future(sender.closed());
        sound_future(receiver.recv());
        sound_future(receiver.recv_timeout(Duration::ZERO));
        let mut buffer = Vec::new();
        sound_future(receiver.recv_many(&mut buffer, 1));
        let (bytes, _receiver) = segment.bytes("bytes").open().unwrap();
        sound_future(bytes.send("x"));
        sound_future(bytes.reserve(1));
        sound_future(bytes.reserve_many(1, 1));
        sound_future(bytes.send_many(&["x"]));
        let allocator = segment.allocator();
        sound_value(&allocator);
        sound_future(allocator.allocate_when_free(std::alloc::Layout::new::<u64>()));
    }

    fn everything_is_debug()
    "`Debug` without a bound on the type; no bounds on it for what does not send",
    "no_t_bounds_buffer" {
        // No `Debug`, no `Clone`, no `PartialEq`.
        #[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
        #[repr(C)]
        struct Mute(u64);

        fn shows(what: &impl Debug, name: &str) {
            let text = format!("{what:?}");
            assert!(text.contains(name), "{text}");
        }
        let (segment, sender, receiver) = channel::<Mute>(8);
        sender.try_send(Mute(1)).map_err(drop).unwrap();
        shows(&sender, "Sender");
        shows(&sender.clone().downgrade(), "WeakSender");
        shows(&receiver, "Receiver");
        shows(&receiver.stream(), "RecvStream");
        shows(&receiver.drain(), "Drain");
        shows(&receiver.blocking_iter(), "BlockingIter");
        shows(&segment.channel::<Mute>("x"), "x");
        shows(&sender.try_reserve().unwrap(), "Permit");
        shows(&sender.try_reserve_many(2).unwrap(), "PermitIterator");
        shows(&sender.clone().try_reserve_owned().unwrap(), "OwnedPermit");
        let message = receiver.try_recv().unwrap();
        shows(&message, "Message");
        shows(&TrySendError::Full(Mute(message.0)), "Full");
        shows(&SendTimeoutError::Timeout(Mute(1)), "Timeout");
        shows(&waterway::channel::ForwardError::Full(message), "Full");
        shows(&segment, "Segment");
        shows(&segment.allocator(), "Allocator");
        let block = segment.allocator().allocate(Mute(1)).unwrap();
        shows(&block, "Block");
        shows(&block.reference(), "BlockRef");
        shows(&segment.allocator().allocate_raw(1).unwrap(), "RawBlock");
        shows(&receiver.into_stream(), "ReceiverStream");
        receiver_is_gone(&sender);
        let error = within(sender.send(Mute(1))).unwrap_err();
        shows(&error, "SendError");
        shows(&sender.into_sink::<Mute>(), "SenderSink");

        fn receiver_is_gone<T: Plain>(sender: &Sender<T>) {
            assert!(sender.is_closed());
        }
    }

    fn errors_say_what_tokio_says()
    "the texts of errors; they are `Error`, `Clone`, `Copy`, `PartialEq` if the value is",
    "" {
        use tokio::sync::mpsc::error as tokio;
        fn is_error<E: std::error::Error + Copy + Eq>(_: E) {}
        assert_eq!(TrySendError::Full(1).to_string(), tokio::TrySendError::Full(1).to_string());
        assert_eq!(TrySendError::Closed(1).to_string(), tokio::TrySendError::Closed(1).to_string());
        assert_eq!(TryRecvError::Empty.to_string(), tokio::TryRecvError::Empty.to_string());
        assert_eq!(TryRecvError::Disconnected.to_string(), tokio::TryRecvError::Disconnected.to_string());
        assert_eq!(SendTimeoutError::Timeout(1).to_string(), tokio::SendTimeoutError::Timeout(1).to_string());
        assert_eq!(SendTimeoutError::Closed(1).to_string(), tokio::SendTimeoutError::Closed(1).to_string());
        let (_segment, sender, receiver) = channel::<u64>(1);
        drop(receiver);
        let error = within(sender.send(5)).unwrap_err();
        assert_eq!((error.to_string(), error.kind()), (tokio::SendError(5).to_string(), SendErrorKind::Closed));
        is_error(error);
        is_error(TrySendError::Full(1));
        is_error(SendTimeoutError::Closed(1));
        is_error(TryRecvError::Empty);
        is_error(RecvTimeoutError::Timeout);
    }

    fn a_waker_that_panics_harms_no_channel()
    "a receiver's waker that panics: `Permit::send` panics, and has sent",
    "permit_send_panicking_rx_waker" {
        let (segment, sender, receiver) = channel::<u64>(1);
        let waker = Waker::from(Arc::new(Bomb(AtomicUsize::new(0))));
        assert!(receiver.poll_recv(&mut Context::from_waker(&waker)).is_pending());
        let permit = sender.try_reserve().unwrap();
        assert!(catch_unwind(|| permit.send(7)).is_err());
        assert_eq!((sender.capacity(), receiver.len()), (0, 1));
        assert_eq!(*receiver.try_recv().unwrap(), 7);
        assert_eq!((sender.capacity(), sender.max_capacity()), (1, 1));
        receiver.close();
        assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Disconnected);
        drop((sender, receiver));
        assert_empty(&segment);
    }

    fn a_waker_that_panics_does_not_keep_wakes_of_other_processes_away()
    "(not in tokio) … and when another process sends, wakers of others are still called",
    "" {
        let (_place, one, other) = two();
        let sender = one.channel::<u64>("channel").capacity(8).sender().unwrap();
        let receiver = other.channel::<u64>("channel").wait(WaitStrategy::Park).receiver().unwrap();
        for round in 1..=3 {
            let bomb = Arc::new(Bomb(AtomicUsize::new(0)));
            let (doomed, alarm) = (receiver.clone(), Arc::new(Alarm::default()));
            let bombed = Waker::from(Arc::clone(&bomb));
            assert!(doomed.poll_recv(&mut Context::from_waker(&bombed)).is_pending());
            sender.try_send(round).unwrap();
            eventually("the waker has panicked", || bomb.0.load(Ordering::SeqCst) > 0);
            assert_eq!(*doomed.try_recv().unwrap(), round);
            drop(doomed);
            let waker = Waker::from(Arc::clone(&alarm));
            assert!(receiver.poll_recv(&mut Context::from_waker(&waker)).is_pending());
            sender.try_send(10 * round).unwrap();
            eventually("the other is woken", || alarm.0.load(Ordering::SeqCst) > 0);
            assert!(matches!(receiver.poll_recv(&mut Context::from_waker(&waker)), Poll::Ready(Some(_))));
        }
        // The same for those who are all told at once.
        let bomb = Arc::new(Bomb(AtomicUsize::new(0)));
        let elsewhere = other.channel::<u64>("channel").sender().unwrap();
        let (mut first, mut second) = (Box::pin(elsewhere.closed()), Box::pin(elsewhere.closed()));
        let (bombed, alarm) = (Waker::from(Arc::clone(&bomb)), Arc::new(Alarm::default()));
        assert!(first.as_mut().poll(&mut Context::from_waker(&bombed)).is_pending());
        assert!(second.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(&alarm)))).is_pending());
        let closer = one.channel::<u64>("channel").receiver().unwrap();
        closer.close();
        eventually("the other is woken", || alarm.0.load(Ordering::SeqCst) > 0);
        assert_eq!(bomb.0.load(Ordering::SeqCst), 1);
    }

    fn wakers_are_dropped_with_the_receiver()
    "dropping a receiver drops the waker that it was polled with",
    "release_waker_on_rx_drop" {
        let (_segment, _sender, receiver) = channel::<u64>(1);
        let alarm = Arc::new(Alarm::default());
        let waker = Waker::from(Arc::clone(&alarm));
        assert!(receiver.poll_recv(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(Arc::strong_count(&alarm), 3);
        drop(receiver);
        assert_eq!(Arc::strong_count(&alarm), 2);
    }

    fn a_waker_may_hold_what_it_wakes_for()
    "wakers are called and dropped outside of locks: one that holds a permit, or the last sender, or the receiver",
    "dropping_rx_drops_sender_wakers_outside_lock" {
        /// Drops what it has when it is woken, or goes.
        struct Holder(Mutex<Option<Box<dyn Any + Send>>>);

        impl Wake for Holder {
            fn wake(self: Arc<Self>) {
                let held = self.0.lock().unwrap().take();
                drop(held);
            }
        }
        let holder = |held: Box<dyn Any + Send>| Waker::from(Arc::new(Holder(Mutex::new(Some(held)))));

        let (segment, sender, receiver) = channel::<u64>(2);
        let permit = sender.clone().try_reserve_owned().unwrap();
        sender.try_send(1).unwrap();
        let mut reserve = Box::pin(sender.reserve());
        let waker = holder(Box::new(permit));
        assert!(reserve.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        drop(receiver);
        assert!(matches!(reserve.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_))));
        drop(reserve);
        drop(sender);
        assert_empty(&segment);

        // A receiver that waits, whose waker has the last other receiver and the last sender.
        let (segment, sender, receiver) = channel::<u64>(2);
        let waker = holder(Box::new((sender.clone(), receiver.clone())));
        assert!(receiver.poll_recv(&mut Context::from_waker(&waker)).is_pending());
        sender.try_send(1).unwrap();
        drop((waker, sender));
        assert_eq!(*receiver.try_recv().unwrap(), 1);
        assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Disconnected);
        drop(receiver);
        assert_empty(&segment);
    }

    fn unwinding_gives_back_what_was_held()
    "ends, permits and messages that are dropped while a thread unwinds come back, and ends that were lent stay good",
    "" {
        let (segment, sender, receiver) = channel::<u64>(4);
        sender.try_send(1).unwrap();
        let panicked = catch_unwind(|| {
            let (_permit, _permits) = (sender.try_reserve().unwrap(), sender.try_reserve_many(2).unwrap());
            let _message = receiver.try_recv().unwrap();
            assert_eq!(sender.capacity(), 1);
            panic!("a panic that should be in this test");
        });
        assert!(panicked.is_err());
        assert_eq!((sender.capacity(), sender.len()), (4, 0));
        let owned = sender.clone().try_reserve_owned().unwrap();
        let (clone, weak) = (sender.clone(), sender.downgrade());
        let panicked = catch_unwind(AssertUnwindSafe(move || {
            let _dropped = (owned, clone);
            panic!("another one");
        }));
        assert!(panicked.is_err());
        assert_eq!((sender.capacity(), weak.strong_count()), (4, 1));
        // What makes a message panics: nothing is sent, and the room comes back.
        let panicked = catch_unwind(|| sender.try_reserve().unwrap().send_in_place(|_| panic!("a third one")));
        assert!(panicked.is_err());
        sender.try_send(2).unwrap();
        assert_eq!(*receiver.try_recv().unwrap(), 2);
        drop((sender, receiver));
        assert_empty(&segment);
    }

    fn an_unwinding_thread_closes_its_ends()
    "a thread that panics with the last sender, or the last receiver, closes the channel",
    "" {
        let (_segment, sender, receiver) = channel::<u64>(4);
        let thread = std::thread::spawn(move || {
            sender.try_send(1).unwrap();
            panic!("a panic that should be in this test");
        });
        assert!(thread.join().is_err());
        assert_eq!(*receiver.try_recv().unwrap(), 1);
        assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Disconnected);
        let (_segment, sender, receiver) = channel::<u64>(4);
        let thread = std::thread::spawn(move || {
            let _receiver = receiver;
            panic!("another one");
        });
        assert!(thread.join().is_err());
        assert_eq!(sender.try_send(1), Err(TrySendError::Closed(1)));
    }
}

/// Something that is otherwise here, or not there: tokio's words, its tests, why, and where that is tested.
pub(crate) struct Difference {
    pub(crate) words: &'static str,
    pub(crate) theirs: &'static str,
    pub(crate) here: &'static str,
    /// `file: function`, or the name of a test of this file, or nothing.
    pub(crate) test: &'static str,
}

pub(crate) const DIFFERENCES: &[Difference] = &[
    Difference {
        words: "a capacity of 0 panics",
        theirs: "buffer_gteq_one",
        here: "an error of opening: what another process says must not panic",
        test: "a_capacity_of_0_is_an_error",
    },
    Difference {
        words: "`unbounded_channel`",
        theirs: "*unbounded*",
        here: "none: shared memory is bounded",
        test: "",
    },
    Difference {
        words: "a receiver without a sender is closed at once",
        theirs: "",
        here: "it waits for the first sender, which may be in a process that has not started yet",
        test: "a_receiver_waits_for_the_first_sender",
    },
    Difference {
        words: "who waits for room is given its place in the queue: `try_send`, or who waits since later, finds it taken; a place \
                that it was given and did not use wakes a receiver of a closed channel",
        theirs: "reserve_disarm send_recv_buffer_limited failed_reserve_wakes_closed_receiver cancelled_reserve_wakes_closed_receiver",
        here: "it is woken, and tries: nothing is handed to who may be killed before it takes it. Who comes just then may be quicker. \
               Who waits for many is not overtaken",
        test: "who_is_woken_for_room_may_be_overtaken",
    },
    Difference {
        words: "one receiver, with `&mut self`",
        theirs: "",
        here: "as many as you like, in any processes, with `&self`, each message to one of them",
        test: "each_message_goes_to_one_of_many_receivers",
    },
    Difference {
        words: "`recv` gives a `T`",
        theirs: "",
        here: "a `Message<T>`, read where it stands; `into_inner` copies it out",
        test: "tests/channels.rs: acknowledging_frees_and_copies_stay",
    },
    Difference {
        words: "messages have destructors, which may panic",
        theirs: "drop_all_elements_during_panic",
        here: "payloads are plain data: none has",
        test: "",
    },
    Difference {
        words: "`send_timeout` panics without tokio's timer",
        theirs: "recv_timeout_panic",
        here: "any executor",
        test: "send_timeout_gives_the_value_back",
    },
    Difference {
        words: "`upgrade` while any sender is left",
        theirs: "",
        here: "while one of this process is left: what others have does not count",
        test: "weak_senders_are_of_their_process",
    },
    Difference {
        words: "`Receiver::sender_strong_count`, `sender_weak_count`",
        theirs: "",
        here: "`sender_count` and `receiver_count` of both ends count participants",
        test: "participants_are_counted",
    },
    Difference {
        words: "streams are another crate's",
        theirs: "send_recv_stream_with_buffer",
        here: "`stream`, `into_stream`, and `into_sink`",
        test: "tests/streams.rs: a_sink_feeds_a_stream_in_another_participant",
    },
];

#[test]
fn a_capacity_of_0_is_an_error() {
    for play in [scene::in_process, scene::between_processes] {
        play(
            "
            s: tx = sender(0) => error
            r: rx = receiver(0) => error
        ",
        );
    }
}

#[test]
fn who_is_woken_for_room_may_be_overtaken() {
    let (_segment, sender, receiver) = channel::<u64>(1);
    let others = sender.clone();
    sender.try_send(1).unwrap();
    let alarm = Arc::new(Alarm::default());
    let waker = Waker::from(Arc::clone(&alarm));
    let mut waiting = Box::pin(sender.reserve());
    assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(*receiver.try_recv().unwrap(), 1);
    assert_eq!(alarm.0.load(Ordering::SeqCst), 1);
    others.try_send(2).unwrap();
    assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(*receiver.try_recv().unwrap(), 2);
    within(waiting).unwrap().send(3);
    assert_eq!(*receiver.try_recv().unwrap(), 3);
}

#[test]
fn a_receiver_waits_for_the_first_sender() {
    for play in [scene::in_process, scene::between_processes] {
        play(
            "
            r: rx = receiver(4)
            r: rx.is_closed() => no
            r: rx.try_recv() => empty
            r: next = rx.recv() => pending
            s: tx = sender(4)
            s: tx.try_send(1)
            r: next.await() => 1
            s: tx.drop()
            r: rx.recv() => none
        ",
        );
    }
}

#[test]
fn weak_senders_are_of_their_process() {
    scene::between_processes(
        "
        s: tx = sender(4)
        r: rx = receiver(4)
        r: elsewhere = sender(4)
        s: weak = tx.downgrade()
        s: tx.drop()
        s: weak.upgrade() => none
        s: weak.strong_count() => 0
        r: rx.is_closed() => no
        r: elsewhere.strong_count() => 1
        r: elsewhere.weak_count() => 0
        r: elsewhere.try_send(1)
        r: rx.drain() => [1]
    ",
    );
}

#[test]
fn participants_are_counted() {
    scene::between_processes(
        "
        s: tx = sender(4)
        r: rx = receiver(4)
        s: clone = tx.clone()
        s: tx.sender_count() => 1
        s: tx.receiver_count() => 1
        r: rx.sender_count() => 1
        r: elsewhere = sender(4)
        s: tx.sender_count() => 2
        r: rx.sender_count() => 2
        r: elsewhere.strong_count() => 1
        r: elsewhere.drop()
        r: rx.sender_count() => 1
        r: rx.drop()
        s: tx.receiver_count() => 0
    ",
    );
}
