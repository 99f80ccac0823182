//! Moving messages that are in the segment already, and looking at them: `forward`, `force_send`, `inquire`.

mod common;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use common::{Stamp, held, in_process, two, within};
use waterway::{Message, Segment, TryRecvError, TrySendError, channel::ForwardError, policy::Retention};

#[test]
fn forwarding_moves_the_block() {
    let segment = in_process();
    let (sender, receiver) = segment.bytes("in").open().unwrap();
    let (onward, end) = segment.bytes("out").open().unwrap();
    end.inquire();
    for number in 0..100_u64 {
        let bytes = Stamp { sender: 1, number }.message(number as usize * 300);
        sender.try_send(&bytes).unwrap();
        let message = receiver.try_recv().unwrap();
        let (at, before) = (message.as_ptr(), held(&segment));
        message.forward(&onward).unwrap();
        assert_eq!(held(&segment), before);
        let message = end.try_recv().unwrap();
        assert_eq!((message.as_ptr(), message.sequence()), (at, number));
        assert_eq!(&message[..], bytes);
    }
    drop((sender, receiver, onward, end));
    assert_eq!(held(&segment), 0);
}

/// Each time it is sent on, or was refused, the block has another generation, of which there are 2²⁴.
#[test]
fn a_message_is_sent_on_more_often_than_a_block_has_generations() {
    const TIMES: u32 = (1 << 24) + 10;
    let segment = in_process();
    let (sender, receiver) = segment.channel::<u64>("round").capacity(2).open().unwrap();
    sender.try_send(7).unwrap();
    for _ in 0..TIMES {
        receiver.try_recv().unwrap().forward(&sender).unwrap();
    }
    let message = receiver.try_recv().unwrap();
    assert_eq!((*message, message.sequence(), receiver.invalid()), (7, u64::from(TIMES), 0));
    drop((message, sender, receiver));
    assert_eq!(held(&segment), 0);
}

#[test]
fn a_message_that_is_refused_again_and_again_stays_what_it_is() {
    for policies in [false, true] {
        let segment = in_process();
        let channel = |name, capacity| {
            let channel = segment.channel::<[u64]>(name).capacity(capacity);
            if policies { channel.policy(Retention::ttl(Duration::from_secs(9 * 3600))) } else { channel }
        };
        let (sender, receiver) = channel("in", 4).open().unwrap();
        let (narrow, end) = channel("narrow", 1).open().unwrap();
        narrow.try_send([1]).unwrap();
        sender.try_send([7; 100]).unwrap();
        let message = receiver.try_recv().unwrap();
        let mut refused = Some(message);
        for _ in 0..1000 {
            refused = refused.map(|message| message.forward(&narrow).unwrap_err().into_inner());
            assert_eq!(refused.as_deref(), Some(&[7; 100][..]));
        }
        assert_eq!(end.try_recv().unwrap()[..], [1]);
        let at = refused.as_ref().unwrap().as_ptr();
        refused.unwrap().forward(&narrow).unwrap();
        let message = end.try_recv().unwrap();
        assert_eq!((&message[..], message.as_ptr()), (&[7; 100][..], at));
        drop((message, sender, receiver, narrow, end));
        assert_eq!(held(&segment), 0);
    }
}

#[test]
fn a_relay_forwards_between_participants_and_nothing_leaks() {
    let (_place, one, other) = two();
    let sender = one.bytes("in").capacity(16).sender().unwrap();
    let receiver = other.bytes("in").receiver().unwrap();
    let onward = other.bytes("out").capacity(16).sender().unwrap();
    let end = one.bytes("out").receiver().unwrap();
    let relaying = thread::spawn(move || {
        let mut waited = 0;
        for mut message in receiver.blocking_iter() {
            while let Err(error) = message.forward(&onward) {
                assert!(error.is_full());
                message = error.into_inner();
                waited += 1;
                thread::yield_now();
            }
        }
        waited
    });
    let sending = thread::spawn(move || {
        for number in 0..3000 {
            let message = Stamp { sender: 7, number }.message(1 + (number as usize * 37) % 5000);
            sender.blocking_send(message).unwrap();
        }
    });
    for (number, message) in end.blocking_iter().enumerate() {
        assert_eq!(Stamp::verify(&message), Some(Stamp { sender: 7, number: number as u64 }));
        if number % 100 == 0 {
            thread::yield_now();
        }
        if number == 2999 {
            break;
        }
    }
    sending.join().unwrap();
    relaying.join().unwrap();
    drop(end);
    assert_eq!(held(&one), 0);
}

#[test]
fn forwarding_hands_the_message_back_if_it_cannot() {
    let segment = in_process();
    let (sender, receiver) = segment.channel::<u64>("in").open().unwrap();
    let (onward, end) = segment.channel::<u64>("out").capacity(1).open().unwrap();
    sender.try_send(1).unwrap();
    sender.try_send(2).unwrap();
    receiver.try_recv().unwrap().forward(&onward).unwrap();
    let error = receiver.try_recv().unwrap().forward(&onward).unwrap_err();
    assert!(matches!(error, ForwardError::Full(_)), "{error:?}");
    let message = error.into_inner();
    assert_eq!((*message, message.sequence()), (2, 1));
    let (elsewhere, _end) = in_process().channel::<u64>("out").open().unwrap();
    let error = message.forward(&elsewhere).unwrap_err();
    assert!(matches!(error, ForwardError::OtherSegment(_)) && error.to_string().contains("send a copy"));
    drop(end);
    let error = error.into_inner().forward(&onward).unwrap_err();
    assert!(error.is_closed());
    assert_eq!(error.into_inner().into_inner(), 2);
    drop((sender, receiver, onward));
    assert_eq!(held(&segment), 0);
}

#[test]
fn another_participant_of_the_same_segment_is_another_segment_to_forward() {
    let (_place, one, other) = two();
    let (sender, receiver) = one.channel::<u64>("in").open().unwrap();
    let (onward, _end) = other.channel::<u64>("out").open().unwrap();
    sender.try_send(1).unwrap();
    let error = receiver.try_recv().unwrap().forward(&onward).unwrap_err();
    assert!(matches!(error, ForwardError::OtherSegment(_)));
}

#[test]
fn forwarding_wakes_who_waits() {
    let (_place, one, other) = two();
    let (sender, receiver) = one.bytes("in").open().unwrap();
    let onward = one.bytes("out").sender().unwrap();
    let end = other.bytes("out").receiver().unwrap();
    let waiting = thread::spawn(move || end.blocking_recv().map(Message::<[u8]>::into_inner));
    sender.try_send("hello").unwrap();
    thread::sleep(std::time::Duration::from_millis(20));
    receiver.try_recv().unwrap().forward(&onward).unwrap();
    assert_eq!(waiting.join().unwrap().unwrap(), b"hello");
}

#[test]
fn forcing_replaces_the_oldest_and_returns_it() {
    let (_place, one, other) = two();
    let sender = one.bytes("latest").capacity(3).sender().unwrap();
    let receiver = other.bytes("latest").receiver().unwrap();
    for number in 0..10_u8 {
        let displaced = sender.force_send([number; 100]).unwrap();
        assert_eq!(displaced.map(|message| message[0]), number.checked_sub(3));
    }
    assert_eq!((sender.len(), receiver.inquire().oldest.unwrap().sequence), (3, 7));
    assert!(receiver.drain().map(|message| message[0]).eq(7..10));
    receiver.close();
    assert_eq!(sender.force_send("x").unwrap_err(), TrySendError::Closed("x"));
    drop((sender, receiver));
    assert_eq!(held(&one), 0);
}

#[test]
fn forcing_against_receivers_and_other_senders_loses_only_what_it_returns() {
    let (_place, one, other) = two();
    let receiver = other.channel::<u64>("latest").capacity(4).receiver().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let sending: Vec<_> = (0..2_u64)
            .map(|sender_number| {
                let sender = one.channel::<u64>("latest").sender().unwrap();
                scope.spawn(move || {
                    let mut displaced = 0;
                    for number in 0..5000 {
                        displaced += usize::from(sender.force_send(number * 2 + sender_number).unwrap().is_some());
                    }
                    displaced
                })
            })
            .collect();
        let receiving = scope.spawn(|| {
            let mut last = [None; 2];
            let mut count = 0;
            while !done.load(Ordering::Acquire) || !receiver.is_empty() {
                let Ok(message) = receiver.try_recv() else { continue };
                let (sender, number) = ((*message % 2) as usize, Some(*message / 2));
                assert!(last[sender] < number, "in order");
                last[sender] = number;
                count += 1;
            }
            count
        });
        let displaced: usize = sending.into_iter().map(|thread| thread.join().unwrap()).sum();
        done.store(true, Ordering::Release);
        let received = receiving.join().unwrap();
        // More may have gone than was returned, if both made room at once.
        assert!(received + displaced <= 10_000 && received > 0, "{received} {displaced}");
    });
    drop(receiver);
    assert_eq!(held(&one), 0);
}

#[test]
fn forcing_without_memory_gives_up_what_it_displaced_first() {
    let segment = Segment::options().size(1 << 20).in_process().unwrap();
    let (sender, receiver) = segment.bytes("bytes").capacity(2).open().unwrap();
    let mut kept = Vec::new();
    while sender.try_send(vec![1; 50_000]).is_ok() {
        kept.push(receiver.try_recv().unwrap());
    }
    // The channel has room, the segment has not.
    assert!(matches!(sender.force_send(vec![2; 50_000]), Err(TrySendError::OutOfMemory(_))));
    kept.truncate(kept.len() - 2);
    sender.try_send(vec![3; 50_000]).unwrap();
    sender.try_send(vec![4; 50_000]).unwrap();
    assert!(sender.force_send(vec![5; 50_000]).unwrap().is_none(), "its memory was needed");
    assert!(receiver.drain().map(|message| message[0]).eq([4, 5]));
}

#[test]
fn inquiring_tells_what_waits_and_takes_nothing() {
    let (_place, one, other) = two();
    let sender = one.bytes("lines").sender().unwrap();
    let receiver = other.bytes("lines").receiver().unwrap();
    let nothing = receiver.inquire();
    assert_eq!((nothing.waiting, nothing.oldest), (0, None));
    for length in [5, 0, 70_000] {
        sender.try_send(vec![1; length]).unwrap();
    }
    for (index, length) in [5, 0, 70_000].into_iter().enumerate() {
        for _ in 0..3 {
            let inquiry = receiver.inquire();
            assert_eq!(inquiry.waiting, 3 - index);
            let oldest = inquiry.oldest.unwrap();
            assert_eq!((oldest.length, oldest.sequence), (length, index as u64));
        }
        assert_eq!(receiver.try_recv().unwrap().len(), length);
    }
    let (sender, receiver) = one.channel::<[u32; 3]>("plain").open().unwrap();
    sender.try_send([1; 3]).unwrap();
    assert_eq!(receiver.inquire().oldest.unwrap().length, 12);
}

#[test]
fn inquiring_while_others_receive_tells_only_what_was_there() {
    let (_place, one, other) = two();
    let sender = one.bytes("lines").capacity(4).sender().unwrap();
    let receiver = other.bytes("lines").receiver().unwrap();
    let looking = receiver.clone();
    let sending = thread::spawn(move || {
        for number in 0..20_000_usize {
            sender.blocking_send(vec![0; number % 200]).unwrap();
        }
    });
    let receiving = thread::spawn(move || receiver.blocking_iter().count());
    let mut last = 0;
    while !looking.is_closed() || !looking.is_empty() {
        let inquiry = looking.inquire();
        assert!(inquiry.waiting <= 4);
        if let Some(oldest) = inquiry.oldest {
            assert_eq!(oldest.length as u64, oldest.sequence % 200);
            assert!(oldest.sequence >= last);
            last = oldest.sequence;
        }
    }
    sending.join().unwrap();
    assert_eq!(receiving.join().unwrap(), 20_000);
    assert_eq!(looking.try_recv().unwrap_err(), TryRecvError::Disconnected);
    assert!(within(looking.recv()).is_none());
}

#[test]
fn force_send_is_refused_when_all_the_room_is_reserved() {
    let (_place, one, other) = two();
    let (sender, receiver) = one.channel::<u64>("latest").capacity(2).open().unwrap();
    let elsewhere = other.channel::<u64>("latest").sender().unwrap();
    let permits = (elsewhere.try_reserve().unwrap(), elsewhere.try_reserve().unwrap());
    // There is nothing that could go, and whoever has the permits may never use them.
    assert!(matches!(sender.force_send(1), Err(TrySendError::Full(1))));
    permits.0.send(2);
    assert_eq!(*sender.force_send(3).unwrap().unwrap(), 2);
    drop(permits.1);
    assert!(sender.force_send(4).unwrap().is_none());
    assert_eq!((*receiver.try_recv().unwrap(), *receiver.try_recv().unwrap()), (3, 4));
}
