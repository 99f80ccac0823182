//! What a user does first.

mod common;

use std::time::Duration;

use common::{Place, in_process, within};
use waterway::{
    OpenError, TryRecvError, TrySendError,
    channel::{RecvTimeoutError, SendTimeoutError},
};

#[test]
fn what_is_sent_is_received_in_order() {
    let segment = in_process();
    let (sender, receiver) = segment.channel::<u64>("numbers").open().unwrap();
    for number in 0..100 {
        sender.try_send(number).unwrap();
    }
    assert_eq!((sender.len(), sender.capacity(), sender.max_capacity()), (100, 924, 1024));
    for number in 0..100 {
        assert_eq!(*receiver.try_recv().unwrap(), number);
    }
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
    drop(sender);
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Disconnected);
}

#[test]
fn a_full_channel_refuses_and_hands_the_value_back() {
    let segment = in_process();
    let (sender, receiver) = segment.channel::<u64>("numbers").capacity(2).open().unwrap();
    sender.try_send(1).unwrap();
    sender.try_send(2).unwrap();
    assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
    let late = within(sender.send_timeout(3, Duration::from_millis(5)));
    assert_eq!(late, Err(SendTimeoutError::Timeout(3)));
    drop(receiver);
    assert_eq!(sender.try_send(3), Err(TrySendError::Closed(3)));
    assert_eq!(within(sender.send(4)).unwrap_err().into_inner(), 4);
}

#[test]
fn bytes_of_any_length_arrive_whole() {
    let segment = in_process();
    let (sender, receiver) = segment.bytes("bytes").open().unwrap();
    for len in [0, 1, 47, 48, 49, 63, 64, 65, 1000, 2032, 2033, 65_536, 100_000] {
        let bytes: Vec<u8> = (0..len).map(|index| (index * 31) as u8).collect();
        sender.try_send(&bytes).unwrap();
        let message = receiver.try_recv().unwrap();
        assert_eq!(&*message, &bytes[..]);
        let shared = message.into_bytes();
        assert_eq!(&shared.slice(len / 2..)[..], &bytes[len / 2..]);
    }
    assert!(sender.try_send(vec![0; 64 << 20]).unwrap_err().into_inner().len() == 64 << 20);
}

#[test]
fn all_memory_comes_back() {
    let segment = in_process();
    let before = segment.check();
    let (sender, receiver) = segment.bytes("bytes").open().unwrap();
    let mut kept = Vec::new();
    for len in 0..5000_usize {
        sender.try_send(vec![1; len * 7 % 5000]).unwrap();
        kept.push(receiver.try_recv().unwrap());
        if kept.len() > 50 {
            kept.swap_remove(len % 50);
        }
    }
    drop((sender, receiver, kept));
    let after = segment.check();
    assert!(after.is_clean(), "{after:?}");
    let held = |report: &waterway::segment::CheckReport| -> usize {
        report.sectors.iter().map(|sector| sector.allocated_bytes + sector.in_flight_bytes).sum()
    };
    assert_eq!((held(&before), held(&after)), (0, 0));
}

#[test]
fn a_task_waits_for_a_message_and_for_room() {
    let segment = in_process();
    let (sender, receiver) = segment.channel::<u64>("numbers").capacity(1).open().unwrap();
    within(async {
        let receive = async {
            for number in 0..1000 {
                assert_eq!(receiver.recv().await.unwrap().into_inner(), number);
            }
            assert_eq!(receiver.recv_timeout(Duration::from_millis(5)).await.unwrap_err(), RecvTimeoutError::Timeout);
        };
        let send = async {
            for number in 0..1000 {
                sender.send(number).await.unwrap();
            }
        };
        tokio::join!(receive, send);
    });
}

#[test]
fn two_handles_of_one_process_are_two_participants() {
    let place = Place::new();
    let one = place.options().size(4 << 20).create("shared").unwrap();
    let two = place.options().open("shared").unwrap();
    assert_eq!((one.id(), one.participants().len()), (two.id(), 2));
    assert!(matches!(place.options().create("shared"), Err(OpenError::AlreadyExists { .. })));
    let sender = one.channel::<u64>("numbers").sender().unwrap();
    let receiver = two.channel::<u64>("numbers").receiver().unwrap();
    within(async {
        let receive = async {
            for number in 0..10_000 {
                assert_eq!(receiver.recv().await.unwrap().into_inner(), number);
            }
            assert!(receiver.recv().await.is_none());
        };
        let send = async {
            for number in 0..10_000 {
                sender.send(number).await.unwrap();
            }
            drop(sender);
        };
        tokio::join!(receive, send);
    });
    drop((one, two, receiver));
    assert!(matches!(place.options().open("shared"), Err(OpenError::NotFound { .. })));
}
