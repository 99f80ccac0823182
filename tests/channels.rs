//! What the two ends of a channel promise: opening, closing, waiting, and what a message is.

mod common;

use std::{thread, time::Duration};

use common::{Random, held, in_process, two, within};
use waterway::{
    OpenError, Receiver, Segment, Sender, TryRecvError, TrySendError, WaitStrategy, channel::SendErrorKind,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, TryFromBytes};

#[test]
fn ends_are_send_and_sync_and_messages_outlive_them() {
    fn sharable<T: Send + Sync + 'static>() {}
    sharable::<Segment>();
    sharable::<Sender<u64>>();
    sharable::<Receiver<[u8]>>();
    sharable::<waterway::Message<u64>>();
    let segment = in_process();
    let (sender, receiver) = segment.bytes("bytes").open().unwrap();
    sender.try_send("kept").unwrap();
    let message = receiver.try_recv().unwrap();
    drop((sender, receiver, segment));
    let bytes = message.into_bytes();
    thread::spawn(move || assert_eq!(&bytes[..], b"kept")).join().unwrap();
}

#[test]
fn another_type_layout_or_capacity_is_a_mismatch_that_names_both() {
    #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(C)]
    struct Tick(u64, f64);

    let (_place, one, other) = two();
    let _sender = one.channel::<Tick>("ticks").capacity(16).sender().unwrap();
    let mismatch = |error: OpenError| match error {
        OpenError::Mismatch { channel, expected, found } => {
            assert_eq!(channel, "ticks");
            assert!(found.contains("Tick") && found.contains("16 bytes") && found.contains("capacity 16"), "{found}");
            expected
        }
        error => panic!("{error}"),
    };
    assert!(mismatch(other.channel::<u64>("ticks").receiver().unwrap_err()).contains("u64"));
    assert!(mismatch(other.channel::<[u64; 2]>("ticks").receiver().unwrap_err()).contains("[u64; 2]"));
    assert!(mismatch(other.bytes("ticks").receiver().unwrap_err()).contains("bytes"));
    let wrong = other.channel::<Tick>("ticks").capacity(17).receiver().unwrap_err();
    assert!(mismatch(wrong).contains("capacity 17"));
    // Whoever does not ask for a capacity takes what there is.
    assert_eq!(other.channel::<Tick>("ticks").receiver().unwrap().max_capacity(), 16);
}

#[test]
fn impossible_names_and_capacities_are_refused() {
    let segment = in_process();
    for name in ["", ".hidden", "a/b", &"x".repeat(129)] {
        assert!(matches!(segment.bytes(name).open(), Err(OpenError::InvalidName { .. })), "{name:?}");
    }
    for capacity in [0, (1 << 24) + 1] {
        let opened = segment.bytes("bytes").capacity(capacity).open();
        assert!(matches!(opened, Err(OpenError::InvalidOptions(_))), "{capacity}");
    }
    let opened = segment.bytes("bytes").capacity(1 << 24).open();
    assert!(matches!(opened, Err(OpenError::OutOfMemory { .. })), "a ring that does not fit into the segment");
    assert_eq!(held(&segment), 0);
}

#[test]
fn the_directory_takes_as_many_channels_as_it_was_made_for() {
    let segment = Segment::options().size(4 << 20).channels(3).in_process().unwrap();
    let channels: Vec<_> = ["a", "b", "c"].map(|name| segment.channel::<u8>(name).open().unwrap()).into();
    let refused = segment.channel::<u8>("d").open();
    assert!(matches!(refused, Err(OpenError::TooManyChannels { limit: 3 })));
    assert_eq!(segment.channels().len(), 3);
    drop(channels);
    assert_eq!((segment.channels().len(), held(&segment)), (0, 0));
    segment.channel::<u8>("d").open().unwrap();
}

#[test]
fn the_last_sender_closes_after_what_it_sent() {
    let (_place, one, other) = two();
    let receiver = other.channel::<u64>("numbers").receiver().unwrap();
    // Before any sender has come, receivers wait.
    assert!(!receiver.is_closed());
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
    let first = one.channel::<u64>("numbers").sender().unwrap();
    let second = first.clone();
    assert!(first.same_channel(&second));
    first.try_send(1).unwrap();
    drop(first);
    second.try_send(2).unwrap();
    assert!(!receiver.is_closed());
    drop(second);
    assert!(receiver.is_closed());
    within(async {
        assert_eq!(*receiver.recv().await.unwrap(), 1);
        assert_eq!(*receiver.recv().await.unwrap(), 2);
        assert!(receiver.recv().await.is_none());
    });
    // Somebody comes back: the channel goes on.
    let third = one.channel::<u64>("numbers").sender().unwrap();
    assert!(!receiver.is_closed());
    third.try_send(3).unwrap();
    assert_eq!(*receiver.try_recv().unwrap(), 3);
}

#[test]
fn a_waiting_receiver_hears_that_the_last_sender_has_gone() {
    let (_place, one, other) = two();
    let sender = one.channel::<u64>("numbers").sender().unwrap();
    let receivers: Vec<_> = (0..3).map(|_| other.channel::<u64>("numbers").receiver().unwrap()).collect();
    let waiting: Vec<_> =
        receivers.into_iter().map(|receiver| thread::spawn(move || receiver.blocking_recv().is_none())).collect();
    thread::sleep(Duration::from_millis(30));
    drop(sender);
    assert!(waiting.into_iter().all(|thread| thread.join().unwrap()));
}

#[test]
fn the_last_receiver_closes_and_what_waits_is_released() {
    let (_place, one, other) = two();
    let sender = one.bytes("bytes").capacity(4).sender().unwrap();
    let receiver = other.bytes("bytes").receiver().unwrap();
    let another = receiver.clone();
    for _ in 0..4 {
        sender.try_send([7; 1000]).unwrap();
    }
    let waiting = thread::spawn({
        let sender = sender.clone();
        move || sender.blocking_send([8; 10]).unwrap_err()
    });
    let watching = thread::spawn({
        let sender = sender.clone();
        move || futures::executor::block_on(sender.closed())
    });
    thread::sleep(Duration::from_millis(30));
    drop(receiver);
    assert!(!sender.is_closed());
    drop(another);
    let error = waiting.join().unwrap();
    assert!(error.is_closed());
    assert_eq!(error.into_inner(), [8; 10]);
    watching.join().unwrap();
    assert!(sender.is_closed() && sender.is_empty());
    assert_eq!(sender.try_send("no"), Err(TrySendError::Closed("no")));
    drop(sender);
    assert_eq!(held(&one), 0);
}

#[test]
fn a_receiver_can_close_the_channel_and_drain_it() {
    let (_place, one, other) = two();
    let sender = one.channel::<u64>("numbers").sender().unwrap();
    let receiver = other.channel::<u64>("numbers").receiver().unwrap();
    sender.try_send(1).unwrap();
    receiver.close();
    assert!(sender.is_closed() && receiver.is_closed());
    assert_eq!(within(sender.send(2)).unwrap_err().kind(), SendErrorKind::Closed);
    assert_eq!(*within(receiver.recv()).unwrap(), 1);
    assert!(within(receiver.recv()).is_none());
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Disconnected);
}

#[test]
fn messages_wait_for_the_first_receiver() {
    let (_place, one, other) = two();
    let sender = one.channel::<u64>("numbers").sender().unwrap();
    sender.try_send(5).unwrap();
    drop(sender);
    let receiver = other.channel::<u64>("numbers").receiver().unwrap();
    assert_eq!(*within(receiver.recv()).unwrap(), 5);
    assert!(within(receiver.recv()).is_none());
}

#[test]
fn a_persistent_channel_outlives_its_ends() {
    let (_place, one, other) = two();
    let (sender, receiver) = one.channel::<u64>("numbers").persistent(true).open().unwrap();
    sender.try_send(1).unwrap();
    drop(receiver);
    assert!(!sender.is_closed());
    sender.try_send(2).unwrap();
    drop(sender);
    let receiver = other.channel::<u64>("numbers").receiver().unwrap();
    assert_eq!((*receiver.try_recv().unwrap(), *receiver.try_recv().unwrap()), (1, 2));
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
    drop(receiver);
    assert_eq!(one.channels()[0].name, "numbers");
}

#[test]
fn what_can_never_fit_is_an_error_at_once_with_the_value() {
    let segment = in_process();
    let (sender, _receiver) = segment.bytes("bytes").open().unwrap();
    let error = within(sender.send(vec![1; 8 << 20])).unwrap_err();
    let SendErrorKind::TooLarge { needed, largest } = error.kind() else { panic!("{error}") };
    assert!(needed > 8 << 20 && (1 << 20..4 << 20).contains(&largest), "{needed} {largest}");
    assert!(error.to_string().contains("make the segment larger"), "{error}");
    assert_eq!(error.into_inner().len(), 8 << 20);
    // The largest fits, one byte more does not.
    let most = largest - 16;
    sender.try_send(vec![1; most]).unwrap();
    assert!(matches!(sender.try_send(vec![1; most + 1]), Err(TrySendError::TooLarge(_))));
}

#[test]
fn a_sender_waits_for_memory_that_another_participant_frees() {
    let (_place, one, other) = two();
    let sender = one.bytes("bytes").sender().unwrap();
    let receiver = other.bytes("bytes").receiver().unwrap();
    let mut random = Random::new(3);
    for round in 0..50 {
        // Fill all memory, with one reader that holds on to what it has read.
        let mut kept = Vec::new();
        while let Ok(()) = sender.try_send(vec![round; 1000 + random.below(100_000)]) {
            kept.push(receiver.try_recv().unwrap());
        }
        let waiting = thread::spawn({
            let sender = sender.clone();
            move || sender.blocking_send(vec![round; 90_000]).unwrap()
        });
        while !kept.is_empty() {
            kept.swap_remove(random.below(kept.len()));
            if random.below(4) == 0 {
                thread::yield_now();
            }
        }
        waiting.join().unwrap();
        assert_eq!(within(receiver.recv()).unwrap().len(), 90_000);
    }
    drop((sender, receiver));
    assert_eq!(held(&one), 0);
}

/// A thousand messages there and back, each end driven by its own executor.
fn ping_pong(drive_one: fn(Sender<u64>, Receiver<u64>), drive_other: fn(Sender<u64>, Receiver<u64>)) {
    let (_place, one, other) = two();
    let channel = |segment: &Segment, name: &str| segment.channel::<u64>(name).capacity(1);
    let ends = (channel(&one, "there").sender().unwrap(), channel(&one, "back").receiver().unwrap());
    let others = (channel(&other, "back").sender().unwrap(), channel(&other, "there").receiver().unwrap());
    let thread = thread::spawn(move || drive_other(others.0, others.1));
    drive_one(ends.0, ends.1);
    thread.join().unwrap();
}

async fn ping(sender: Sender<u64>, receiver: Receiver<u64>) {
    for number in 0..1000 {
        sender.send(number).await.unwrap();
        assert_eq!(receiver.recv().await.unwrap().into_inner(), number + 1);
    }
}

async fn pong(sender: Sender<u64>, receiver: Receiver<u64>) {
    while let Some(number) = receiver.recv().await {
        if sender.send(*number + 1).await.is_err() {
            return;
        }
    }
}

#[test]
fn every_executor_and_plain_threads_do() {
    fn multi_thread<F: Future<Output = ()> + Send + 'static>(future: F) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async { tokio::spawn(future).await.unwrap() });
    }
    ping_pong(|s, r| within(ping(s, r)), |s, r| smol::block_on(pong(s, r)));
    ping_pong(|s, r| futures::executor::block_on(ping(s, r)), |s, r| multi_thread(pong(s, r)));
    ping_pong(|s, r| multi_thread(ping(s, r)), |s, r| futures::executor::block_on(pong(s, r)));
    ping_pong(
        |sender, receiver| {
            for number in 0..1000 {
                sender.blocking_send(number).unwrap();
                assert_eq!(receiver.blocking_recv().unwrap().into_inner(), number + 1);
            }
        },
        |s, r| within(pong(s, r)),
    );
}

#[test]
fn both_wait_strategies_deliver() {
    for strategy in [WaitStrategy::Adaptive, WaitStrategy::Park] {
        let (_place, one, other) = two();
        let sender = one.channel::<u64>("numbers").sender().unwrap();
        let receiver = other.channel::<u64>("numbers").wait(strategy).receiver().unwrap();
        let thread = thread::spawn(move || (0..5000).for_each(|number| sender.blocking_send(number).unwrap()));
        within(async {
            for number in 0..5000 {
                assert_eq!(receiver.recv().await.unwrap().into_inner(), number);
            }
            assert!(receiver.recv().await.is_none());
        });
        thread.join().unwrap();
    }
}

#[test]
#[should_panic(expected = "Cannot block the current thread from within a runtime")]
fn blocking_inside_of_a_runtime_panics_as_in_tokio() {
    let (_sender, receiver) = in_process().channel::<u64>("numbers").open().unwrap();
    within(async { tokio::spawn(async move { receiver.blocking_recv().is_none() }).await })
        .map_err(|error| std::panic::resume_unwind(error.into_panic()))
        .unwrap();
}

mod careless {
    use super::*;

    /// Has the name and size of the other one, and any bits.
    #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(C)]
    pub(super) struct Colour(pub(super) u8);
}

#[test]
fn bits_that_are_no_value_never_arrive() {
    #[derive(Debug, PartialEq, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(u8)]
    enum Colour {
        Red = 1,
        Green = 2,
    }
    let (_place, one, other) = two();
    let liar = one.channel::<careless::Colour>("colours").sender().unwrap();
    let receiver = other.channel::<Colour>("colours").receiver().unwrap();
    for bits in [1, 7, 0, 255, 2] {
        liar.try_send(careless::Colour(bits)).map_err(|_| "full").unwrap();
    }
    assert_eq!(*receiver.try_recv().unwrap(), Colour::Red);
    assert_eq!(receiver.try_recv().unwrap().into_inner(), Colour::Green);
    assert_eq!((receiver.try_recv().unwrap_err(), receiver.invalid()), (TryRecvError::Empty, 3));
    drop((liar, receiver));
    assert_eq!(held(&one), 0);
}

#[test]
fn payloads_without_bytes_and_with_much_alignment_travel() {
    #[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(C, align(64))]
    struct Line([u64; 8]);
    let segment = in_process();
    let (sender, receiver) = segment.channel::<()>("nothing").open().unwrap();
    sender.try_send(()).unwrap();
    assert_eq!(receiver.try_recv().unwrap().sequence(), 0);
    let (sender, receiver) = segment.channel::<Line>("lines").open().unwrap();
    for number in 0..100 {
        sender.try_send(Line([number; 8])).unwrap();
        let message = receiver.try_recv().unwrap();
        assert!((&raw const *message).is_aligned());
        assert_eq!(message.into_inner(), Line([number; 8]));
    }
}

#[test]
fn bytes_share_the_block_until_the_last_clone_goes() {
    let segment = in_process();
    let (sender, receiver) = segment.bytes("bytes").open().unwrap();
    sender.try_send(vec![9; 50_000]).unwrap();
    let message = receiver.try_recv().unwrap();
    let at = message.as_ptr();
    let bytes = message.into_bytes();
    assert_eq!(bytes.as_ptr(), at, "no copy");
    let tail = bytes.slice(49_000..);
    drop((bytes, sender, receiver));
    assert!(held(&segment) >= 50_000);
    assert!(tail.iter().all(|byte| *byte == 9));
    drop(tail);
    assert_eq!(held(&segment), 0);
}

#[test]
fn acknowledging_frees_and_copies_stay() {
    let segment = in_process();
    let (sender, receiver) = segment.bytes("bytes").open().unwrap();
    for _ in 0..3 {
        sender.try_send([1; 100]).unwrap();
    }
    let copy: Vec<u8> = receiver.try_recv().unwrap().into_inner();
    receiver.try_recv().unwrap().ack();
    drop(receiver.try_recv().unwrap());
    drop((sender, receiver));
    assert_eq!((held(&segment), copy), (0, vec![1; 100]));
}

#[test]
fn zero_on_free_leaves_nothing_to_read() {
    let segment = Segment::options().size(4 << 20).zero_on_free(true).in_process().unwrap();
    let (sender, receiver) = segment.bytes("bytes").open().unwrap();
    sender.try_send([0xAA; 48]).unwrap();
    let message = receiver.try_recv().unwrap();
    let at = message.as_ptr();
    drop(message);
    // SAFETY: in-process segments stay mapped, and nobody else uses this one.
    let after = unsafe { std::slice::from_raw_parts(at, 48) };
    assert!(after.iter().all(|byte| *byte == 0));
}
