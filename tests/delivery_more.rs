//! Messages that come back, by every way to receive them, with every kind of payload, and through panics.

mod common;

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake},
    thread,
    time::Duration,
};

use common::{Place, Stamp, assert_empty, eventually, in_process, ready, role, wait_until_ready, within};
use futures::StreamExt;
use waterway::{ChannelOptions, Delivery, Message, Receiver, Segment, TryRecvError};

const AT_LEAST_ONCE: Delivery = Delivery::AtLeastOnce { max_deliveries: 100 };

fn jobs(segment: &Segment) -> ChannelOptions<u64> {
    segment.channel::<u64>("jobs").delivery(AT_LEAST_ONCE)
}

/// What was received, and as which delivery.
fn seen(message: Message<u64>) -> (u64, u32) {
    (*message, message.delivery_count())
}

/// A way to receive four messages that wait.
type Way = fn(&Receiver<u64>) -> Vec<Message<u64>>;

/// All ways to receive.
const WAYS: [(&str, Way); 11] = [
    ("recv", |receiver| (0..4).map(|_| within(receiver.recv()).unwrap()).collect()),
    ("try_recv", |receiver| (0..4).map(|_| receiver.try_recv().unwrap()).collect()),
    ("blocking_recv", |receiver| (0..4).map(|_| receiver.blocking_recv().unwrap()).collect()),
    ("recv_timeout", |receiver| {
        (0..4).map(|_| within(receiver.recv_timeout(Duration::from_secs(60))).unwrap()).collect()
    }),
    ("recv_many", |receiver| {
        let mut buffer = Vec::new();
        while buffer.len() < 4 {
            assert!(within(receiver.recv_many(&mut buffer, 3)) > 0);
        }
        buffer
    }),
    ("poll_recv", |receiver| (0..4).map(|_| within(poll_fn(|context| receiver.poll_recv(context))).unwrap()).collect()),
    ("poll_recv_many", |receiver| {
        let mut buffer = Vec::new();
        assert_eq!(within(poll_fn(|context| receiver.poll_recv_many(context, &mut buffer, 9))), 4);
        buffer
    }),
    ("stream", |receiver| within(receiver.stream().take(4).collect())),
    ("into_stream", |receiver| within(receiver.clone().into_stream().take(4).collect())),
    ("drain", |receiver| receiver.drain().collect()),
    ("blocking_iter", |receiver| receiver.blocking_iter().take(4).collect()),
];

#[test]
fn every_way_to_receive_gets_what_came_back_first_and_says_how_often_it_was_delivered() {
    for (name, way) in WAYS {
        let segment = in_process();
        let (sender, receiver) = jobs(&segment).capacity(8).open().unwrap();
        (0..3).for_each(|number| sender.try_send(number).unwrap());
        let held: Vec<_> = (0..3).map(|_| receiver.try_recv().unwrap()).collect();
        held.into_iter().for_each(Message::nack);
        assert_eq!(within(receiver.recv()).map(seen), Some((0, 2)));
        sender.try_send(3).unwrap();
        sender.try_send(4).unwrap();
        let first = way(&receiver);
        let sequences: Vec<u64> = first.iter().map(Message::sequence).collect();
        assert_eq!(sequences, [1, 2, 3, 4], "{name}");
        assert!(first.iter().all(|message| message.sender().is_some() == (message.delivery_count() == 1)), "{name}");
        // Half of them come back once more, ahead of what is new.
        let mut seen_first = Vec::new();
        for message in first {
            seen_first.push((*message, message.delivery_count()));
            if *message % 2 == 0 { message.nack() } else { message.ack() }
        }
        assert_eq!(seen_first, [(1, 2), (2, 2), (3, 1), (4, 1)], "{name}");
        sender.try_send(5).unwrap();
        sender.try_send(6).unwrap();
        let second: Vec<_> = way(&receiver).into_iter().map(seen).collect();
        assert_eq!(second, [(2, 3), (4, 2), (5, 1), (6, 1)], "{name}");
        assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty, "{name}");
        drop((sender, receiver));
        assert_empty(&segment);
    }
}

#[test]
fn whoever_is_killed_gives_back_what_it_had_by_every_way_to_receive() {
    const TEST: &str = "whoever_is_killed_gives_back_what_it_had_by_every_way_to_receive";
    let place = Place::new();
    let segment = place.options().size(4 << 20).participants(4).open_or_create("ways").unwrap();
    let way = |number: usize| segment.channel::<u64>(&format!("way-{number}")).capacity(8).delivery(AT_LEAST_ONCE);
    if role().is_some() {
        let mut kept = Vec::new();
        for (number, (_, receive)) in WAYS.iter().enumerate() {
            let receiver = way(number).receiver().unwrap();
            let mut messages = receive(&receiver);
            // One is done with.
            messages.swap_remove(1).ack();
            kept.push((receiver, messages));
        }
        ready(&place);
        common::wait_to_be_killed();
    }
    let ends: Vec<_> = (0..WAYS.len()).map(|number| way(number).open().unwrap()).collect();
    for (sender, _) in &ends {
        (0..4).for_each(|number| sender.try_send(number).unwrap());
    }
    let child = place.spawn(TEST, "receive");
    wait_until_ready(&place, &child);
    assert!(ends.iter().all(|(_, receiver)| receiver.is_empty()));
    child.kill();
    eventually("the dead is buried", || {
        segment.bury_the_dead();
        // Their ends go after what they held has come back.
        ends.iter().all(|(_, receiver)| receiver.receiver_count() == 1)
    });
    for ((sender, receiver), (name, _)) in ends.iter().zip(WAYS) {
        sender.try_send(4).unwrap();
        let found: Vec<_> = receiver.drain().map(seen).collect();
        assert_eq!(found, [(0, 2), (2, 2), (3, 2), (4, 1)], "{name}");
    }
    drop(ends);
    assert_empty(&segment);
}

/// Counts how often it was woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn what_comes_back_wakes_who_polls_and_who_waits_for_a_stream() {
    let segment = in_process();
    let park = || jobs(&segment).wait(waterway::WaitStrategy::Park);
    let (sender, receiver) = park().open().unwrap();
    sender.try_send(1).unwrap();
    let message = receiver.try_recv().unwrap();
    let wakes = Arc::new(Wakes::default());
    let waker = Arc::clone(&wakes).into();
    let mut context = Context::from_waker(&waker);
    let polling = receiver.clone();
    assert!(polling.poll_recv(&mut context).is_pending());
    message.nack();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    let Poll::Ready(Some(message)) = polling.poll_recv(&mut context) else { panic!("it is there again") };
    // A stream, likewise.
    let mut stream = receiver.clone().into_stream();
    assert!(stream.poll_next_unpin(&mut context).is_pending());
    message.nack();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 2);
    let Poll::Ready(Some(message)) = stream.poll_next_unpin(&mut context) else { panic!("it is there again") };
    assert_eq!(seen(message), (1, 3));
    drop((stream, polling, sender, receiver));
    assert_empty(&segment);
}

#[test]
fn a_receive_that_is_cancelled_takes_nothing() {
    let segment = in_process();
    let (sender, receiver) = jobs(&segment).wait(waterway::WaitStrategy::Park).open().unwrap();
    sender.try_send(1).unwrap();
    let held = receiver.try_recv().unwrap();
    let wakes = Arc::new(Wakes::default());
    let waker = Arc::clone(&wakes).into();
    let mut context = Context::from_waker(&waker);
    let (mut one, mut other) = (Box::pin(receiver.recv()), Box::pin(receiver.recv()));
    assert!(one.as_mut().poll(&mut context).is_pending() && other.as_mut().poll(&mut context).is_pending());
    held.nack();
    assert!(wakes.0.load(Ordering::SeqCst) > 0);
    drop(one);
    let Poll::Ready(Some(message)) = other.as_mut().poll(&mut context) else { panic!("it was not taken") };
    assert_eq!(seen(message), (1, 2));
    drop(other);
    drop((sender, receiver));
    assert_empty(&segment);
}

/// Runs something that panics, without a word about it.
fn panics(work: impl FnOnce()) {
    assert!(catch_unwind(AssertUnwindSafe(work)).is_err());
}

#[test]
fn all_that_is_held_in_a_panic_comes_back_in_its_order() {
    let segment = in_process();
    let (sender, receiver) = jobs(&segment).capacity(32).open().unwrap();
    (0..20).for_each(|number| sender.try_send(number).unwrap());
    panics(|| {
        let mut buffer = Vec::new();
        assert_eq!(within(receiver.recv_many(&mut buffer, 8)), 8);
        buffer.remove(2).ack();
        resume_unwind(Box::new("the work fails"));
    });
    let again: Vec<_> = receiver.drain().map(seen).collect();
    let expected = [0, 1, 3, 4, 5, 6, 7].map(|number| (number, 2));
    assert_eq!(again[..7], expected);
    assert!(again[7..].iter().copied().eq((8..20).map(|number| (number, 1))));
    drop((sender, receiver));
    assert_empty(&segment);
}

#[test]
fn what_a_task_or_a_thread_holds_that_panics_comes_back() {
    let segment = in_process();
    let (sender, receiver) = jobs(&segment).open().unwrap();
    (0..2).for_each(|number| sender.try_send(number).unwrap());
    within(async {
        let taking = receiver.clone();
        let task = tokio::spawn(async move {
            let message = taking.recv().await.unwrap();
            tokio::task::yield_now().await;
            assert_eq!(*message, 0);
            resume_unwind(Box::new("the work fails"));
        });
        assert!(task.await.unwrap_err().is_panic());
    });
    let taking = receiver.clone();
    let thread = thread::spawn(move || {
        let _message = taking.blocking_recv().unwrap();
        resume_unwind(Box::new("the work fails"));
    });
    assert!(thread.join().is_err());
    // A task that is ended and does not panic has dropped what it had, which says that it is done.
    within(async {
        let taking = receiver.clone();
        let task = tokio::spawn(async move {
            let _message = taking.recv().await;
            std::future::pending::<()>().await;
        });
        tokio::task::yield_now().await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    });
    assert_eq!(receiver.drain().map(seen).collect::<Vec<_>>(), [(1, 1)]);
    drop((sender, receiver));
    assert_empty(&segment);
}

#[test]
fn bytes_come_back_if_the_last_clone_goes_in_a_panic() {
    let segment = in_process();
    let (sender, receiver) = segment.bytes("data").delivery(AT_LEAST_ONCE).open().unwrap();
    let payload = Stamp { sender: 1, number: 5 }.message(100_000);
    sender.try_send(&payload).unwrap();
    panics(|| {
        let bytes = receiver.try_recv().unwrap().into_bytes();
        let part = bytes.slice(10..20);
        drop(bytes);
        assert_eq!(part, payload[10..20]);
        assert!(receiver.is_empty());
        resume_unwind(Box::new("the work fails"));
    });
    let message = receiver.try_recv().unwrap();
    assert_eq!((&*message, message.delivery_count()), (&payload[..], 2));
    // What has gone before the panic is done with.
    panics(|| {
        let bytes = message.into_bytes();
        let clone = bytes.clone();
        thread::spawn(move || drop(clone)).join().unwrap();
        drop(bytes);
        resume_unwind(Box::new("the work fails"));
    });
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
    // They outlive the channel, and the process's hold on it.
    sender.try_send(&payload).unwrap();
    let bytes = receiver.try_recv().unwrap().into_bytes();
    drop((sender, receiver));
    assert_eq!(bytes, payload);
    drop(bytes);
    assert_empty(&segment);
}

#[test]
fn payloads_of_every_size_come_back_whole() {
    let place = Place::new();
    let (one, two) = (place.options().size(8 << 20).create("sizes").unwrap(), place.options().open("sizes").unwrap());
    let sender = one.bytes("data").delivery(AT_LEAST_ONCE).sender().unwrap();
    let receiver = two.bytes("data").receiver().unwrap();
    // Around the ends of granules, where what a message needs to come back stands.
    let near = [64, 128, 1_024, 2_048, 65_536].into_iter().flat_map(|end| (end - 64)..=end + 1);
    for (number, len) in near.chain([0, 1, 500_000]).enumerate() {
        let stamp = Stamp { sender: 2, number: number as u64 };
        let payload = if len < 24 { vec![7; len] } else { stamp.message(len) };
        sender.try_send(&payload).unwrap();
        for count in 1..=3 {
            let message = receiver.try_recv().unwrap();
            assert_eq!((message.delivery_count(), message.len()), (count, len));
            assert!(*message == payload[..], "of {len} bytes, as delivered {count} times");
            if count < 3 { message.nack() } else { assert_eq!(message.into_inner(), payload) }
        }
        assert!(receiver.is_empty());
    }
    drop((sender, receiver));
    assert_empty(&one);
}

#[cfg(feature = "postcard")]
mod coded {
    use serde::{Deserialize, Serialize};
    use waterway::codec::{Coded, Postcard};

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Order {
        id: u64,
        customer: String,
        items: Vec<(String, u32)>,
    }

    fn order(id: u64) -> Order {
        Order { id, customer: format!("customer {id}"), items: vec![("item".repeat(id as usize * 7), id as u32); 5] }
    }

    fn orders(segment: &Segment) -> ChannelOptions<Coded<Order, Postcard>> {
        segment.channel::<Order>("orders").codec::<Postcard>().delivery(AT_LEAST_ONCE)
    }

    #[test]
    fn coded_messages_come_back_and_decode_again() {
        const TEST: &str = "coded::coded_messages_come_back_and_decode_again";
        let place = Place::new();
        let segment = place.options().size(4 << 20).participants(4).open_or_create("coded").unwrap();
        if role().is_some() {
            let receiver = orders(&segment).receiver().unwrap();
            let mut buffer = Vec::new();
            while buffer.len() < 6 {
                within(receiver.recv_many(&mut buffer, 6));
            }
            buffer.remove(3).ack();
            assert!(buffer.iter().all(|message| message.decode().is_ok()));
            ready(&place);
            common::wait_to_be_killed();
        }
        let (sender, receiver) = orders(&segment).open().unwrap();
        (0..6).for_each(|id| sender.try_send(order(id)).unwrap());
        let message = receiver.try_recv().unwrap();
        assert_eq!(message.decode().unwrap(), order(0));
        message.nack();
        panics(|| {
            let message = receiver.try_recv().unwrap();
            assert_eq!((message.decode().unwrap(), message.delivery_count()), (order(0), 2));
            resume_unwind(Box::new("the work fails"));
        });
        let child = place.spawn(TEST, "receive");
        wait_until_ready(&place, &child);
        child.kill();
        eventually("the dead is buried", || {
            segment.bury_the_dead();
            receiver.receiver_count() == 1
        });
        let again: Vec<_> =
            receiver.drain().map(|message| (message.decode().unwrap(), message.delivery_count())).collect();
        let expected = [(0, 4), (1, 2), (2, 2), (4, 2), (5, 2)].map(|(id, count)| (order(id), count));
        assert_eq!(again, expected);
        drop((sender, receiver));
        assert_empty(&segment);
    }
}
