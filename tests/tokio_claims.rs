//! What tokio's documentation of `tokio::sync::mpsc` promises, and its own tests look after, row by row.
//!
//! Each row marked *same* is a test below, by the name in the last column, that is run twice: within one process, on a
//! segment on the heap; and between two participants of one named segment, who share no state but the memory, as two
//! processes do.
//!
//! | tokio's claim | here | test |
//! |---|---|---|
//! | what is sent arrives, in order | same | `what_is_sent_arrives_in_order` |
//! | a bounded channel takes `capacity` messages, then `try_send` says `Full` and hands the value back | same | `a_full_channel_hands_the_value_back` |
//! | `send` waits when full, and goes on when a message is received | same | `send_waits_for_room` |
//! | a capacity of 0 panics | differs: an error of opening, for what another process says must not panic | `tests/channels.rs` |
//! | `unbounded_channel` | none: shared memory is bounded | |
//! | `capacity` falls with each message and rises with each receive; `max_capacity` stays | same | `capacity_is_what_is_free` |
//! | `len` and `is_empty` of both ends | same | `length_is_what_waits` |
//! | `try_recv` says `Empty`, then `Disconnected` when all senders are dropped and nothing waits | same | `try_recv_tells_empty_from_disconnected` |
//! | `recv` gives what is left, then `None`, after the last sender is dropped | same | `dropping_all_senders_drains_and_ends` |
//! | clones of the sender keep the channel open | same | `a_clone_keeps_the_channel_open` |
//! | a receiver without a sender is closed at once | differs: it waits for the first sender, which may be in another process | `tests/channels.rs` |
//! | `close` lets no more be sent, and what was sent be received | same | `close_refuses_and_drains` |
//! | `close` and `is_closed` of the receiver, with and without senders | same | `is_closed_tells_who_has_gone` |
//! | `close` waits for outstanding permits | see the tests of permits | |
//! | a waiting `recv` gets `None` when the last sender goes | same | `a_waiting_recv_hears_the_end` |
//! | a waiting `send` fails with its value when the receiver goes | same | `a_waiting_send_hears_the_end` |
//! | dropping the receiver closes, for `send` and `try_send` | same | `dropping_the_receiver_closes` |
//! | dropping the receiver drops what waits | same: its memory is free again | `what_waits_is_dropped_with_the_receiver` |
//! | one receiver | differs: as many as you like, each message to one | `each_message_goes_to_one_of_many_receivers` |
//! | `closed` is done when the receiver goes, and at once after that | same | `closed_waits_for_the_receiver_to_go` |
//! | `same_channel` | same, within a process | `same_channel_compares_channels` |
//! | `recv_many` takes what waits up to the limit, and appends | same | `recv_many_takes_up_to_the_limit` |
//! | `recv_many` with limit 0 is 0 at once, even if nothing waits | same | `recv_many_with_limit_0_returns_at_once` |
//! | `recv_many` waits for the first message | same | `recv_many_waits_for_one` |
//! | `recv_many` is 0 when closed and empty, and gives what is left before | same | `recv_many_is_0_after_the_end` |
//! | `recv` and `recv_many` in a `select!` lose nothing | same | `cancelled_receives_lose_nothing` |
//! | `send` in a `select!` that is not taken has not sent | same | `a_cancelled_send_has_not_sent` |
//! | a dropped waiter passes its wake-up on | same | `a_dropped_waiter_passes_the_wake_on` |
//! | `poll_recv` wakes only the task that polled last | same | `only_the_last_poller_is_woken` |
//! | `poll_recv`, `poll_recv_many` | same | `polling_receives` |
//! | `blocking_send`, `blocking_recv`, `blocking_recv_many` on plain threads | same | `blocking_ends_meet` |
//! | … which panic in a runtime | same: in its tasks. tokio panics in its `block_on`, too | `blocking_in_a_task_panics` |
//! | `send_timeout` gives the value back; needs tokio's timer | same, on any executor | `send_timeout_gives_the_value_back` |
//! | operations charge the cooperative budget, `recv_many` once | same, with the feature `tokio` | `a_busy_channel_lets_others_run` |
//! | `downgrade`, `upgrade` while a sender is left | same | `weak_senders_upgrade_while_there_is_a_sender` |
//! | a weak sender does not keep the channel open | same | `weak_senders_keep_nothing_open` |
//! | `upgrade` is `None` when no sender is left | same, of this process: what others have does not count | `weak_senders_are_of_their_process` |
//! | `strong_count`, `weak_count` | same, of this process | `senders_are_counted` |
//! | `Receiver::sender_strong_count` | differs: `sender_count` counts participants | `participants_are_counted` |
//! | ends are `Send`, `Sync`, `Unpin`, unwind-safe; futures are `Send` | same | `auto_traits_are_as_in_tokio` |
//! | `Debug` without bounds on the type | same | `everything_is_debug` |
//! | errors are `Error`, `Clone`, `PartialEq` | same | `errors_say_what_tokio_says` |

mod common;

use std::{
    future::poll_fn,
    panic::{RefUnwindSafe, UnwindSafe},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use common::{Place, eventually, within};
use futures::poll;
use waterway::{Plain, Receiver, Segment, Sender, TryRecvError, TrySendError, WaitStrategy};

/// A segment from both sides.
struct Pair {
    one: Segment,
    other: Segment,
    _place: Option<Place>,
}

impl Pair {
    fn in_process() -> Self {
        let one = Segment::options().size(4 << 20).in_process().unwrap();
        Self { other: one.clone(), one, _place: None }
    }

    fn between_participants() -> Self {
        let place = Place::new();
        let one = place.options().size(4 << 20).create("pair").unwrap();
        Self { one, other: place.options().open("pair").unwrap(), _place: Some(place) }
    }

    /// A sender on one side, a receiver on the other, which parks at once.
    fn channel<T: Plain>(&self, capacity: usize) -> (Sender<T>, Receiver<T>) {
        let sender = self.one.channel("channel").capacity(capacity).sender().unwrap();
        (sender, self.other.channel("channel").wait(WaitStrategy::Park).receiver().unwrap())
    }

    /// Bytes that anybody has.
    fn held(&self) -> usize {
        self.one.check().sectors.iter().map(|sector| sector.allocated_bytes + sector.in_flight_bytes).sum()
    }
}

/// Each claim is a test in process, and one between participants.
macro_rules! claims {
    ($($(#[$meta:meta])* fn $name:ident($pair:ident: &Pair) $body:block)*) => {$(
        $(#[$meta])*
        mod $name {
            use super::*;

            fn claim($pair: &Pair) $body

            #[test]
            fn in_process() {
                claim(&Pair::in_process());
            }

            #[test]
            fn between_participants() {
                claim(&Pair::between_participants());
            }
        }
    )*};
}

/// Counts how often it is woken.
#[derive(Default)]
struct Alarm(AtomicUsize);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Alarm {
    fn new() -> (Arc<Self>, Waker) {
        let alarm = Arc::<Self>::default();
        (Arc::clone(&alarm), alarm.into())
    }

    fn rang(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }
}

/// Time for something to happen that must not.
fn a_while() {
    thread::sleep(Duration::from_millis(30));
}

fn numbers(receiver: &Receiver<u64>) -> Vec<u64> {
    receiver.drain().map(|message| *message).collect()
}

claims! {
    fn what_is_sent_arrives_in_order(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(16);
        let sending = thread::spawn(move || (0..1000).for_each(|number| sender.blocking_send(number).unwrap()));
        within(async {
            for number in 0..1000 {
                assert_eq!(*receiver.recv().await.unwrap(), number);
            }
            assert!(receiver.recv().await.is_none());
        });
        sending.join().unwrap();
    }

    fn a_full_channel_hands_the_value_back(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(2);
        sender.try_send(1).unwrap();
        sender.try_send(2).unwrap();
        assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
        assert_eq!(*receiver.try_recv().unwrap(), 1);
        sender.try_send(3).unwrap();
        assert_eq!(numbers(&receiver), [2, 3]);
    }

    fn send_waits_for_room(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(1);
        within(async {
            sender.send(1).await.unwrap();
            let mut second = pin!(sender.send(2));
            assert!(poll!(&mut second).is_pending());
            assert_eq!(*receiver.recv().await.unwrap(), 1);
            second.await.unwrap();
            assert_eq!(*receiver.recv().await.unwrap(), 2);
        });
    }

    fn capacity_is_what_is_free(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(5);
        for number in 0..5 {
            assert_eq!((sender.capacity(), receiver.capacity()), (5 - number, 5 - number));
            sender.try_send(0).unwrap();
        }
        assert_eq!((sender.capacity(), sender.max_capacity(), receiver.max_capacity()), (0, 5, 5));
        let _message = receiver.try_recv().unwrap();
        assert_eq!(sender.capacity(), 1);
    }

    fn length_is_what_waits(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(300);
        for number in 0..300 {
            assert_eq!((sender.len(), receiver.len(), receiver.is_empty()), (number, number, number == 0));
            sender.try_send(0).unwrap();
        }
        for number in (0..300).rev() {
            receiver.try_recv().unwrap();
            assert_eq!((sender.len(), receiver.len(), sender.is_empty()), (number, number, number == 0));
        }
    }

    fn try_recv_tells_empty_from_disconnected(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(4);
        assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
        sender.try_send(1).unwrap();
        drop(sender);
        assert_eq!(*receiver.try_recv().unwrap(), 1);
        assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Disconnected);
    }

    fn dropping_all_senders_drains_and_ends(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(4);
        sender.try_send(1).unwrap();
        sender.try_send(2).unwrap();
        drop(sender);
        within(async {
            assert_eq!(*receiver.recv().await.unwrap(), 1);
            assert_eq!(*receiver.recv().await.unwrap(), 2);
            assert!(receiver.recv().await.is_none());
            assert!(receiver.recv().await.is_none());
        });
    }

    fn a_clone_keeps_the_channel_open(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(4);
        let clone = sender.clone();
        drop(sender);
        assert!(!receiver.is_closed());
        clone.try_send(1).unwrap();
        drop(clone);
        assert!(receiver.is_closed());
        assert_eq!(numbers(&receiver), [1]);
    }

    fn close_refuses_and_drains(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(4);
        sender.try_send(1).unwrap();
        receiver.close();
        assert_eq!(sender.try_send(2), Err(TrySendError::Closed(2)));
        within(async {
            assert_eq!(sender.send(3).await.unwrap_err().into_inner(), 3);
            assert_eq!(*receiver.recv().await.unwrap(), 1);
            assert!(receiver.recv().await.is_none());
        });
    }

    fn is_closed_tells_who_has_gone(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(4);
        assert!(!sender.is_closed() && !receiver.is_closed());
        receiver.close();
        assert!(sender.is_closed() && receiver.is_closed());
        drop((sender, receiver));
        let (sender, receiver) = pair.channel::<u64>(4);
        sender.try_send(1).unwrap();
        drop(sender);
        assert!(receiver.is_closed() && !receiver.is_empty());
    }

    fn a_waiting_recv_hears_the_end(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(4);
        within(async {
            let mut waiting = pin!(receiver.recv());
            assert!(poll!(&mut waiting).is_pending());
            drop(sender);
            assert!(waiting.await.is_none());
        });
    }

    fn a_waiting_send_hears_the_end(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(1);
        within(async {
            sender.send(1).await.unwrap();
            let mut waiting = pin!(sender.send(2));
            assert!(poll!(&mut waiting).is_pending());
            drop(receiver);
            assert_eq!(waiting.await.unwrap_err().into_inner(), 2);
        });
    }

    fn dropping_the_receiver_closes(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(4);
        drop(receiver);
        assert_eq!(sender.try_send(1), Err(TrySendError::Closed(1)));
        assert!(within(sender.send(2)).unwrap_err().is_closed());
        assert!(sender.is_closed());
    }

    fn what_waits_is_dropped_with_the_receiver(pair: &Pair) {
        let (sender, receiver) = pair.channel::<[u64; 100]>(50);
        let before = pair.held();
        (0..50).for_each(|_| sender.try_send([1; 100]).unwrap());
        assert!(pair.held() >= before + 50 * 800);
        drop(receiver);
        assert_eq!(pair.held(), before);
    }

    fn each_message_goes_to_one_of_many_receivers(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(8);
        let receiving: Vec<_> = (0..3)
            .map(|_| {
                let receiver = receiver.clone();
                thread::spawn(move || receiver.blocking_iter().map(|message| *message).collect::<Vec<u64>>())
            })
            .collect();
        within(async {
            for number in 0..3000 {
                sender.send(number).await.unwrap();
            }
        });
        drop(sender);
        let mut all: Vec<u64> = Vec::new();
        for thread in receiving {
            let part = thread.join().unwrap();
            assert!(part.is_sorted());
            all.extend(part);
        }
        all.sort_unstable();
        assert!(all.into_iter().eq(0..3000));
    }

    fn closed_waits_for_the_receiver_to_go(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(4);
        within(async {
            let mut closed = pin!(sender.closed());
            assert!(poll!(&mut closed).is_pending());
            drop(receiver);
            closed.await;
            sender.closed().await;
        });
    }

    fn same_channel_compares_channels(pair: &Pair) {
        let (sender, _receiver) = pair.channel::<u64>(4);
        let another = pair.one.channel::<u64>("another").sender().unwrap();
        assert!(sender.same_channel(&sender.clone()) && !sender.same_channel(&another));
    }

    fn recv_many_takes_up_to_the_limit(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(100);
        (0..10).for_each(|number| sender.try_send(number).unwrap());
        within(async {
            let mut buffer = Vec::new();
            assert_eq!(receiver.recv_many(&mut buffer, 4).await, 4);
            assert_eq!(receiver.recv_many(&mut buffer, 100).await, 6);
            assert!(buffer.iter().map(|message| **message).eq(0..10), "appended, in order");
        });
    }

    fn recv_many_with_limit_0_returns_at_once(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(4);
        let mut buffer = Vec::new();
        assert_eq!(within(receiver.recv_many(&mut buffer, 0)), 0);
        sender.try_send(1).unwrap();
        assert_eq!(within(receiver.recv_many(&mut buffer, 0)), 0);
        assert_eq!((buffer.len(), receiver.len()), (0, 1));
    }

    fn recv_many_waits_for_one(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(4);
        within(async {
            let mut buffer = Vec::new();
            let mut waiting = Box::pin(receiver.recv_many(&mut buffer, 10));
            assert!(poll!(&mut waiting).is_pending());
            sender.send(7).await.unwrap();
            assert_eq!(waiting.await, 1);
            assert_eq!(*buffer[0], 7);
        });
    }

    fn recv_many_is_0_after_the_end(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(4);
        sender.try_send(1).unwrap();
        drop(sender);
        within(async {
            let mut buffer = Vec::new();
            assert_eq!(receiver.recv_many(&mut buffer, 10).await, 1);
            assert_eq!(receiver.recv_many(&mut buffer, 10).await, 0);
            assert_eq!(poll_fn(|context| receiver.poll_recv_many(context, &mut buffer, 10)).await, 0);
        });
    }

    fn cancelled_receives_lose_nothing(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(4);
        let sending = thread::spawn(move || {
            for number in 0..2000 {
                sender.blocking_send(number).unwrap();
                if number % 7 == 0 {
                    thread::yield_now();
                }
            }
        });
        within(async {
            let mut buffer = Vec::new();
            for round in 0.. {
                // Dropped after one poll, or two.
                tokio::select! {
                    biased;
                    count = receiver.recv_many(&mut buffer, 3) => if count == 0 { break },
                    () = tokio::task::yield_now() => {}
                }
                tokio::select! {
                    biased;
                    message = receiver.recv() => buffer.extend(message),
                    () = tokio::time::sleep(Duration::from_micros(round % 50)) => {}
                }
                if let Poll::Ready(message) = poll!(pin!(poll_fn(|context| receiver.poll_recv(context)))) {
                    buffer.extend(message);
                }
            }
            assert!(buffer.iter().map(|message| **message).eq(0..2000));
        });
        sending.join().unwrap();
    }

    fn a_cancelled_send_has_not_sent(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(1);
        sender.try_send(1).unwrap();
        within(async {
            tokio::select! {
                biased;
                sent = sender.send(2) => panic!("{sent:?}"),
                () = tokio::task::yield_now() => {}
            }
        });
        assert_eq!(numbers(&receiver), [1]);
        sender.try_send(3).unwrap();
        assert_eq!(numbers(&receiver), [3]);
    }

    fn a_dropped_waiter_passes_the_wake_on(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(4);
        let polled = receiver.clone();
        let (first, waker) = Alarm::new();
        // The first in the queue is a receiver that is polled, and then dropped when it has been woken.
        assert!(polled.poll_recv(&mut Context::from_waker(&waker)).is_pending());
        let (second, waker) = Alarm::new();
        let mut waiting = Box::pin(receiver.recv());
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        sender.try_send(1).unwrap();
        eventually("the first is woken", || first.rang());
        drop(polled);
        assert!(second.rang(), "at once, and by nobody else");
        assert!(matches!(waiting.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(Some(_))));
    }

    fn only_the_last_poller_is_woken(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(4);
        let ((first, one), (last, another)) = (Alarm::new(), Alarm::new());
        assert!(receiver.poll_recv(&mut Context::from_waker(&one)).is_pending());
        assert!(receiver.poll_recv(&mut Context::from_waker(&another)).is_pending());
        sender.try_send(1).unwrap();
        eventually("the last is woken", || last.rang());
        a_while();
        assert!(!first.rang());
        assert!(receiver.poll_recv(&mut Context::from_waker(&one)).is_ready());
    }

    fn polling_receives(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(4);
        let sending = thread::spawn(move || (0..3000).for_each(|number| sender.blocking_send(number).unwrap()));
        within(async {
            let mut buffer = Vec::new();
            let mut next = 0;
            while let Some(message) = poll_fn(|context| receiver.poll_recv(context)).await {
                assert_eq!(*message, next);
                buffer.clear();
                assert_eq!(poll_fn(|context| receiver.poll_recv_many(context, &mut buffer, 0)).await, 0);
                let count = poll_fn(|context| receiver.poll_recv_many(context, &mut buffer, 2)).await;
                assert!(buffer.iter().map(|message| **message).eq(next + 1..=next + count as u64));
                next += 1 + count as u64;
            }
            assert_eq!(next, 3000);
        });
        sending.join().unwrap();
    }

    fn blocking_ends_meet(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(2);
        let sending = thread::spawn(move || (0..500).for_each(|number| sender.blocking_send(number).unwrap()));
        let mut buffer = vec![receiver.blocking_recv().unwrap()];
        while receiver.blocking_recv_many(&mut buffer, 7) > 0 {}
        assert!(buffer.iter().map(|message| **message).eq(0..500));
        assert!(receiver.blocking_recv().is_none());
        sending.join().unwrap();
    }

    fn send_timeout_gives_the_value_back(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(1);
        let time = Duration::from_millis(10);
        futures::executor::block_on(async {
            sender.send_timeout(1, time).await.unwrap();
            let error = sender.send_timeout(2, time).await.unwrap_err();
            assert!(error.is_timeout());
            assert_eq!(error.into_inner(), 2);
            receiver.close();
            assert!(sender.send_timeout(3, time).await.unwrap_err().is_closed());
        });
    }

    fn weak_senders_upgrade_while_there_is_a_sender(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(4);
        let weak = sender.downgrade();
        let upgraded = weak.upgrade().unwrap();
        assert!(upgraded.same_channel(&sender));
        drop(sender);
        assert!(!receiver.is_closed());
        weak.clone().upgrade().unwrap().try_send(1).unwrap();
        upgraded.try_send(2).unwrap();
        drop(upgraded);
        assert!(weak.upgrade().is_none());
        assert_eq!(numbers(&receiver), [1, 2]);
    }

    fn weak_senders_keep_nothing_open(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(4);
        let weak = sender.downgrade();
        within(async {
            let mut waiting = pin!(receiver.recv());
            assert!(poll!(&mut waiting).is_pending());
            drop(sender);
            assert!(waiting.await.is_none());
        });
        drop(receiver);
        assert!(weak.upgrade().is_none() && pair.one.channels().is_empty());
        assert_eq!((weak.strong_count(), weak.weak_count()), (0, 1));
    }

    fn senders_are_counted(pair: &Pair) {
        let (sender, _receiver) = pair.channel::<u64>(4);
        let (clone, weak) = (sender.clone(), sender.downgrade());
        let another = weak.clone();
        assert_eq!((sender.strong_count(), sender.weak_count()), (2, 2));
        drop((clone, weak));
        assert_eq!((another.strong_count(), another.weak_count()), (1, 1));
        drop(another);
        assert_eq!((sender.strong_count(), sender.weak_count()), (1, 0));
    }

    #[cfg(feature = "tokio")]
    fn a_busy_channel_lets_others_run(pair: &Pair) {
        let (sender, receiver) = pair.channel::<u64>(1024);
        (0..1024).for_each(|number| sender.try_send(number).unwrap());
        within(async {
            let turns = Arc::new(AtomicUsize::new(0));
            let other = tokio::spawn({
                let turns = Arc::clone(&turns);
                async move {
                    loop {
                        turns.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                    }
                }
            });
            // One operation each: 128 of them are the budget of a task.
            let busy = tokio::spawn(async move {
                let mut buffer = Vec::new();
                for _ in 0..100 {
                    receiver.recv_many(&mut buffer, 5).await;
                }
                let undisturbed = turns.load(Ordering::Relaxed);
                for _ in 0..500 {
                    receiver.recv().await;
                }
                (undisturbed, turns.load(Ordering::Relaxed))
            });
            let (undisturbed, disturbed) = busy.await.unwrap();
            assert!(undisturbed <= 1 && disturbed >= 3, "{undisturbed} {disturbed}");
            other.abort();
        });
    }

    fn everything_is_debug(pair: &Pair) {
        // No `Debug` here.
        #[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
        #[repr(C)]
        struct Mute(u64);

        let (sender, receiver) = pair.channel::<Mute>(4);
        sender.try_send(Mute(1)).map_err(drop).unwrap();
        let message = receiver.try_recv().unwrap();
        let options = pair.one.channel::<Mute>("x");
        let error = TrySendError::Full(Mute(message.0));
        let text = format!("{sender:?} {:?} {receiver:?} {message:?} {options:?} {error:?}", sender.downgrade());
        assert!(["Sender", "WeakSender", "Receiver", "Message", "x", "Full"].iter().all(|name| text.contains(name)));
        let text = format!("{:?} {:?} {:?}", receiver.stream(), receiver.drain(), receiver.blocking_iter());
        assert!(text.contains("RecvStream"));
        let text = format!("{:?} {:?}", receiver.into_stream(), sender.into_sink::<Mute>());
        assert!(text.contains("ReceiverStream") && text.contains("SenderSink"));
    }
}

#[test]
fn weak_senders_are_of_their_process() {
    let pair = Pair::between_participants();
    let (sender, receiver) = pair.channel::<u64>(4);
    let elsewhere = pair.other.channel::<u64>("channel").sender().unwrap();
    let weak = sender.downgrade();
    drop(sender);
    assert!(weak.upgrade().is_none(), "what others have does not count");
    assert!(!receiver.is_closed());
    elsewhere.try_send(1).unwrap();
    assert_eq!(numbers(&receiver), [1]);
}

#[test]
fn participants_are_counted() {
    let pair = Pair::between_participants();
    let (sender, receiver) = pair.channel::<u64>(4);
    let _clone = sender.clone();
    assert_eq!((sender.sender_count(), sender.receiver_count()), (1, 1));
    assert_eq!((receiver.sender_count(), receiver.receiver_count()), (1, 1));
    let elsewhere = pair.other.channel::<u64>("channel").sender().unwrap();
    assert_eq!((sender.sender_count(), receiver.sender_count(), elsewhere.strong_count()), (2, 2, 1));
    drop(elsewhere);
    assert_eq!(receiver.sender_count(), 1);
    drop(receiver);
    assert_eq!(sender.receiver_count(), 0);
}

#[cfg(feature = "tokio")]
#[test]
fn blocking_in_a_task_panics() {
    let pair = Pair::in_process();
    let (sender, receiver) = pair.channel::<u64>(4);
    within(async {
        assert!(tokio::spawn(async move { sender.blocking_send(1) }).await.unwrap_err().is_panic());
        assert!(tokio::spawn(async move { receiver.blocking_recv_many(&mut vec![], 1) }).await.unwrap_err().is_panic());
    });
}

#[test]
fn auto_traits_are_as_in_tokio() {
    fn sound<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>() {}
    fn is_send<T: Send>(_: T) {}
    fn all<T: waterway::Payload + ?Sized + 'static>() {
        sound::<Sender<T>>();
        sound::<Receiver<T>>();
        sound::<waterway::Message<T>>();
        sound::<waterway::WeakSender<T>>();
        sound::<waterway::ReceiverStream<T>>();
        sound::<waterway::RecvStream<'static, T>>();
    }
    all::<u64>();
    all::<[u8]>();
    sound::<waterway::SenderSink<u64, u64>>();
    sound::<waterway::SenderSink<[u8], Vec<u8>>>();
    let (sender, receiver) = Pair::in_process().channel::<u64>(1);
    is_send(sender.send(1));
    is_send(sender.send_timeout(1, Duration::ZERO));
    is_send(sender.closed());
    is_send(receiver.recv());
    is_send(receiver.recv_timeout(Duration::ZERO));
    let mut buffer = Vec::new();
    is_send(receiver.recv_many(&mut buffer, 1));
}

#[test]
fn errors_say_what_tokio_says() {
    use tokio::sync::mpsc::error as tokio;
    assert_eq!(TrySendError::Full(1).to_string(), tokio::TrySendError::Full(1).to_string());
    assert_eq!(TrySendError::Closed(1).to_string(), tokio::TrySendError::Closed(1).to_string());
    assert_eq!(TryRecvError::Empty.to_string(), tokio::TryRecvError::Empty.to_string());
    assert_eq!(TryRecvError::Disconnected.to_string(), tokio::TryRecvError::Disconnected.to_string());
    let (sender, receiver) = Pair::in_process().channel::<u64>(1);
    drop(receiver);
    let error = within(sender.send(5)).unwrap_err();
    assert_eq!((error.to_string(), error), (tokio::SendError(5).to_string(), error));
}
