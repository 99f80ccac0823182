//! Receivers as streams, senders as sinks: with `futures`, with `tokio-stream`, and by hand.

mod common;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake},
    thread,
    time::Duration,
};

use common::{Place, eventually, in_process, within};
use futures::{FutureExt, Sink, SinkExt, StreamExt, future, poll, stream};
use waterway::{Message, Receiver, Segment, Sender, WaitStrategy, channel::SendErrorKind};

/// A channel between two participants, whose receiver parks at once.
fn between(capacity: usize) -> (Place, Sender<u64>, Receiver<u64>) {
    let place = Place::new();
    let one = place.options().size(4 << 20).create("two").unwrap();
    let other = place.options().open("two").unwrap();
    let sender = one.channel("numbers").capacity(capacity).sender().unwrap();
    let receiver = other.channel("numbers").wait(WaitStrategy::Park).receiver().unwrap();
    (place, sender, receiver)
}

fn numbers(numbers: impl IntoIterator<Item = u64>) -> impl stream::Stream<Item = u64> + Unpin {
    stream::iter(numbers.into_iter().collect::<Vec<_>>())
}

#[test]
fn a_sink_feeds_a_stream_in_another_participant() {
    let (_place, sender, receiver) = between(3);
    let sending = thread::spawn(move || {
        let mut sink = sender.into_sink();
        futures::executor::block_on(async {
            sink.send_all(&mut numbers(0..2000).map(Ok)).await.unwrap();
            sink.close().await.unwrap();
        });
    });
    let received: Vec<u64> = within(receiver.into_stream().map(|message| *message).collect());
    assert!(received.into_iter().eq(0..2000));
    sending.join().unwrap();
}

#[test]
fn streams_forward_into_sinks() {
    let (_place, sender, receiver) = between(3);
    let (onward, end) = in_process().channel::<u64>("onward").capacity(2).open().unwrap();
    within(async {
        let feeding = numbers(0..500).map(Ok).forward(sender.into_sink());
        let relaying = receiver.into_stream().map(|message| Ok(*message)).forward(onward.into_sink());
        let draining = end.stream().map(|message| *message).collect::<Vec<u64>>();
        let (fed, relayed, drained) = future::join3(feeding, relaying, draining).await;
        fed.and(relayed).unwrap();
        assert!(drained.into_iter().eq(0..500));
    });
}

#[test]
fn tokio_stream_works_as_well() {
    use tokio_stream::StreamExt;
    let (_place, sender, receiver) = between(3);
    let sending = thread::spawn(move || (0..100).for_each(|number| sender.blocking_send(number).unwrap()));
    within(async {
        let mut stream = receiver.into_stream();
        assert_eq!(*StreamExt::next(&mut stream).await.unwrap(), 0);
        let rest: Vec<u64> = StreamExt::collect(StreamExt::map(stream, |message| *message)).await;
        assert!(rest.into_iter().eq(1..100));
    });
    sending.join().unwrap();
}

#[test]
fn bytes_of_any_kind_go_into_one_sink() {
    let segment = in_process();
    let (sender, receiver) = segment.bytes("lines").open().unwrap();
    within(async {
        let mut sink = sender.clone().into_sink::<&str>();
        sink.feed("one").await.unwrap();
        sink.feed("two").await.unwrap();
        sink.flush().await.unwrap();
        sender.into_sink().send(vec![3; 3]).await.unwrap();
        drop(sink);
        let lines: Vec<_> = receiver.into_stream().map(Message::into_bytes).collect().await;
        assert_eq!(lines, [&b"one"[..], b"two", &[3; 3]]);
    });
}

#[test]
fn a_sink_holds_one_value_and_takes_no_more_until_there_is_room() {
    let (_place, sender, receiver) = between(1);
    within(async {
        let mut sink = sender.into_sink();
        sink.feed(1).await.unwrap();
        // There is no room for this one: the sink holds it.
        sink.feed(2).await.unwrap();
        assert_eq!(receiver.len(), 1);
        let mut ready = future::poll_fn(|context| Pin::new(&mut sink).poll_ready(context));
        assert!(poll!(&mut ready).is_pending());
        assert_eq!(*receiver.recv().await.unwrap(), 1);
        ready.await.unwrap();
        assert_eq!(*receiver.recv().await.unwrap(), 2);
        sink.feed(3).await.unwrap();
        sink.feed(4).await.unwrap();
        // Closing waits for what is held.
        let (closed, received) = future::join(sink.close(), receiver.recv()).await;
        closed.unwrap();
        assert_eq!((*received.unwrap(), *receiver.recv().await.unwrap()), (3, 4));
        assert!(receiver.recv().await.is_none());
        assert_eq!(sink.send(5).await.unwrap_err().into_inner(), 5);
        assert!(sink.sender().is_none());
    });
}

#[test]
fn a_sink_hands_back_what_cannot_be_sent() {
    let (_place, sender, receiver) = between(1);
    within(async {
        let mut sink = sender.into_sink();
        sink.send(1).await.unwrap();
        sink.feed(2).await.unwrap();
        let mut flush = sink.flush();
        assert!(poll!(&mut flush).is_pending());
        drop(receiver);
        let error = flush.await.unwrap_err();
        assert_eq!((error.kind(), error.into_inner()), (SendErrorKind::Closed, 2));
        assert_eq!(sink.send(3).await.unwrap_err().into_inner(), 3);
    });
}

#[test]
fn a_sink_waits_for_memory_too() {
    let segment = Segment::options().size(1 << 20).in_process().unwrap();
    let (sender, receiver) = segment.bytes("bytes").open().unwrap();
    let mut kept = Vec::new();
    while sender.try_send(vec![1; 50_000]).is_ok() {
        kept.push(receiver.try_recv().unwrap());
    }
    within(async {
        let mut sink = sender.into_sink();
        sink.feed(vec![2; 50_000]).await.unwrap();
        let mut flush = sink.flush();
        assert!(poll!(&mut flush).is_pending());
        kept.clear();
        flush.await.unwrap();
        assert_eq!(receiver.recv().await.unwrap()[0], 2);
    });
}

#[test]
fn a_dropped_sink_gives_its_place_up() {
    let (_place, sender, receiver) = between(1);
    sender.try_send(0).unwrap();
    within(async {
        let mut sink = sender.clone().into_sink();
        sink.feed(1).await.unwrap();
        assert!(sink.flush().now_or_never().is_none());
        let mut waiting = std::pin::pin!(sender.send(2));
        assert!(poll!(&mut waiting).is_pending());
        // What it held is lost, and who waits behind it is woken.
        assert_eq!(*receiver.recv().await.unwrap(), 0);
        drop(sink);
        waiting.await.unwrap();
        assert_eq!(*receiver.recv().await.unwrap(), 2);
    });
}

#[test]
fn a_borrowed_stream_can_be_dropped_and_made_again() {
    let (_place, sender, receiver) = between(4);
    let sending = thread::spawn(move || (0..300).for_each(|number| sender.blocking_send(number).unwrap()));
    within(async {
        let mut next = 0;
        while let Some(message) = receiver.stream().next().await {
            assert_eq!(*message, next);
            next += 1;
            assert!(receiver.stream().next().now_or_never().is_none_or(|message| {
                next += 1;
                message.is_none_or(|message| *message == next - 1)
            }));
        }
        assert!((300..=301).contains(&next), "{next}");
    });
    sending.join().unwrap();
}

#[test]
fn a_stream_that_was_woken_and_dropped_wakes_the_next() {
    #[derive(Default)]
    struct Alarm(AtomicUsize);
    impl Wake for Alarm {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let (_place, sender, receiver) = between(4);
    let (first, second) = (Arc::new(Alarm::default()), Arc::new(Alarm::default()));
    let mut dropped = receiver.clone().into_stream();
    let mut left = receiver.stream();
    assert!(dropped.poll_next_unpin(&mut Context::from_waker(&Arc::clone(&first).into())).is_pending());
    assert!(left.poll_next_unpin(&mut Context::from_waker(&Arc::clone(&second).into())).is_pending());
    sender.try_send(1).unwrap();
    eventually("the first is woken", || first.0.load(Ordering::SeqCst) > 0);
    drop(dropped);
    assert!(second.0.load(Ordering::SeqCst) > 0);
    assert_eq!(*left.next().now_or_never().unwrap().unwrap(), 1);
}

#[test]
fn a_stream_gives_its_receiver_back() {
    let (_place, sender, receiver) = between(4);
    let mut stream = receiver.into_stream();
    assert!(stream.next().now_or_never().is_none());
    sender.try_send(1).unwrap();
    let receiver = stream.into_inner();
    assert_eq!(*within(receiver.recv()).unwrap(), 1);
}

#[test]
fn a_receiver_that_was_polled_may_be_the_last_thing_of_its_segment() {
    for _ in 0..20 {
        let (place, sender, receiver) = between(4);
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(receiver.poll_recv(&mut context).is_pending());
        let mut stream = receiver.clone().into_stream();
        assert!(stream.poll_next_unpin(&mut context).is_pending());
        drop((receiver, sender));
        drop(stream);
        assert!(place.options().list().unwrap().is_empty());
    }
}

#[test]
fn draining_takes_what_waited_and_no_more() {
    let (_place, sender, receiver) = between(8);
    (0..5).for_each(|number| sender.try_send(number).unwrap());
    let mut drain = receiver.drain();
    assert_eq!(drain.size_hint(), (0, Some(5)));
    sender.try_send(5).unwrap();
    assert!(drain.by_ref().map(|message| *message).eq(0..5));
    assert!(drain.next().is_none());
    let mut stolen = receiver.drain();
    assert_eq!(*receiver.try_recv().unwrap(), 5);
    assert!(stolen.next().is_none());
    sender.try_send(6).unwrap();
    assert!(stolen.next().is_none(), "fused");
    let _ = receiver.drain();
    assert_eq!(*receiver.try_recv().unwrap(), 6, "a dropped iterator leaves the rest");
}

#[test]
fn a_blocking_iterator_ends_with_the_channel() {
    let (_place, sender, receiver) = between(2);
    let sending = thread::spawn(move || {
        for number in 0..100 {
            sender.blocking_send(number).unwrap();
            if number == 50 {
                thread::sleep(Duration::from_millis(10));
            }
        }
    });
    assert!(receiver.blocking_iter().map(|message| *message).eq(0..100));
    sending.join().unwrap();
}

#[test]
fn a_stream_that_yields_before_it_parks_delivers_too() {
    let segment = in_process();
    let channel = |name: &str| segment.channel::<u64>(name).capacity(1).wait(WaitStrategy::Adaptive).open().unwrap();
    let ((there, at), (back, home)) = (channel("there"), channel("back"));
    let answering = thread::spawn(move || {
        within(at.into_stream().map(|message| Ok(*message + 1)).forward(back.into_sink())).unwrap();
    });
    within(async {
        let mut answers = home.into_stream();
        for number in 0..2000 {
            there.send(number).await.unwrap();
            assert_eq!(*answers.next().await.unwrap(), number + 1);
            if number % 500 == 0 {
                // Long enough for the other side to give up yielding.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    drop(there);
    answering.join().unwrap();
}
