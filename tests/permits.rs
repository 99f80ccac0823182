//! What reserved capacity promises: it is never exceeded, never lost, and delays nobody.

mod common;

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::Poll,
    thread,
    time::Duration,
};

use bytes::BufMut;
use common::{Place, Random, Stamp, at_once, eventually, held, ready, role, two, wait_until_ready, within};
use proptest::prelude::*;
use waterway::{
    ChannelOptions, Delivery, OwnedPermit, Permit, Receiver, Segment, Sender, TryRecvError, TrySendError, WaitStrategy,
    channel::{PermitIterator, SendErrorKind},
    policy::{Priority, PriorityBy},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Senders of two participants, and a receiver of the second.
fn numbers(one: &Segment, other: &Segment, capacity: usize) -> (Sender<u64>, Sender<u64>, Receiver<u64>) {
    let sender = one.channel::<u64>("numbers").capacity(capacity).sender().unwrap();
    let (others, receiver) = other.channel::<u64>("numbers").open().unwrap();
    (sender, others, receiver)
}

fn fill(sender: &Sender<u64>) -> usize {
    (0..).take_while(|_| sender.try_send(0).is_ok()).count()
}

/// Polls a future once, which must wait.
async fn wait_a_little<F: Future>(future: &mut Pin<&mut F>) {
    poll_fn(|context| {
        assert!(future.as_mut().poll(context).is_pending(), "this should have waited");
        Poll::Ready(())
    })
    .await;
}

#[test]
fn permits_can_be_sent_to_threads_and_shared() {
    fn sharable<T: Send + Sync>() {}
    sharable::<Permit<'_, u64>>();
    sharable::<OwnedPermit<[u8]>>();
    sharable::<PermitIterator<'_, u64>>();
    let segment = Segment::options().in_process().unwrap();
    let (sender, receiver) = segment.channel::<u64>("numbers").open().unwrap();
    let permit = sender.clone().try_reserve_owned().unwrap();
    thread::spawn(move || permit.send(7)).join().unwrap();
    assert_eq!(*receiver.try_recv().unwrap(), 7);
}

#[test]
fn a_permit_takes_room_for_all_participants_until_it_is_dropped_or_sent() {
    // More cells than the capacity, and as many.
    for capacity in [1, 3, 256] {
        let (_place, one, other) = two();
        let (sender, others, receiver) = numbers(&one, &other, capacity);
        let ring = held(&one);
        let permit = sender.try_reserve().unwrap();
        assert!(permit.same_channel_as_sender(&sender));
        assert_eq!(
            (sender.capacity(), others.capacity(), receiver.capacity()),
            (capacity - 1, capacity - 1, capacity - 1)
        );
        assert_eq!((sender.len(), fill(&others)), (0, capacity - 1));
        assert_eq!(others.try_send(1), Err(TrySendError::Full(1)));
        assert!(others.try_reserve().unwrap_err().is_full() && sender.try_reserve().unwrap_err().is_full());
        drop(permit);
        assert_eq!(others.capacity(), 1);
        let permit = others.try_reserve().unwrap();
        assert_eq!(sender.try_send(1), Err(TrySendError::Full(1)));
        permit.send(9);
        assert_eq!((sender.try_send(1), sender.capacity()), (Err(TrySendError::Full(1)), 0));
        let received: Vec<u64> = std::iter::from_fn(|| receiver.try_recv().ok()).map(|number| *number).collect();
        assert_eq!((received.len(), received.last()), (capacity, Some(&9)));
        assert_eq!((sender.capacity(), held(&one)), (capacity, ring));
    }
}

#[test]
fn a_permit_that_is_held_delays_nobody() {
    let (_place, one, other) = two();
    let (sender, others, receiver) = numbers(&one, &other, 3);
    let permit = sender.try_reserve().unwrap();
    for number in 0..10_000 {
        others.try_send(number).unwrap();
        sender.try_send(number).unwrap();
        assert_eq!((*receiver.try_recv().unwrap(), *receiver.try_recv().unwrap()), (number, number));
    }
    others.try_send(1).unwrap();
    permit.send(2);
    assert_eq!((*receiver.try_recv().unwrap(), *receiver.try_recv().unwrap()), (1, 2));
}

#[test]
fn a_message_can_be_made_where_it_will_be_read() {
    #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(C, align(64))]
    struct Frame([u64; 64]);

    let segment = Segment::options().in_process().unwrap();
    let (sender, receiver) = segment.channel::<Frame>("frames").capacity(1).open().unwrap();
    within(sender.reserve()).unwrap().send(Frame([7; 64]));
    assert!(receiver.try_recv().unwrap().0 == [7; 64]);
    let sender = within(sender.reserve_owned()).unwrap().send_in_place(|frame| {
        assert!(frame.0 == [0; 64], "what was there before is not to be seen");
        frame.0[3] = 5;
    });
    assert_eq!(receiver.try_recv().unwrap().0[2..5], [0, 5, 0]);
    let panicked = catch_unwind(AssertUnwindSafe(|| sender.try_reserve().unwrap().send_in_place(|_| panic!("no"))));
    assert!(panicked.is_err());
    assert_eq!((sender.capacity(), sender.len()), (1, 0));
    drop((sender, receiver));
    assert_eq!(held(&segment), 0);
}

#[test]
fn a_permit_for_bytes_sends_what_was_written_to_it() {
    let (_place, one, other) = two();
    let sender = one.bytes("bytes").capacity(2).sender().unwrap();
    let receiver = other.bytes("bytes").receiver().unwrap();
    // Something that must not be seen again.
    sender.try_send([0xee; 100]).unwrap();
    drop(receiver.try_recv().unwrap());

    let mut permit = within(sender.reserve(100)).unwrap();
    assert_eq!((permit.len(), permit.capacity(), permit.remaining_mut()), (0, 100, 100));
    permit.put_u32(0x6162_6364);
    write!(permit, " and {}", 7).unwrap();
    permit[0] = b'A';
    assert_eq!((&permit[..], permit.remaining_mut()), (&b"Abcd and 7"[..], 90));
    permit.send();
    assert_eq!(&receiver.try_recv().unwrap()[..], b"Abcd and 7");

    let mut permit = within(sender.clone().reserve_owned(10)).unwrap();
    assert_eq!(permit.write(&[1; 20]).unwrap(), 10, "as much as there is room for");
    assert_eq!(permit.write(&[1; 20]).unwrap(), 0);
    assert!(permit.write_all(&[1]).is_err());
    permit.resize(4, 0);
    permit.resize(6, 2);
    let same = permit.send();
    assert!(same.same_channel(&sender));
    assert_eq!(&receiver.try_recv().unwrap()[..], [1, 1, 1, 1, 2, 2]);

    let mut permit = sender.try_reserve(8).unwrap();
    permit.put_u64(1);
    permit.clear();
    permit.send();
    assert_eq!(receiver.try_recv().unwrap().len(), 0);

    let mut permit = sender.try_reserve(5).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| permit.resize(6, 0))).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| permit.put_slice(&[0; 6]))).is_err());
    let released = sender.clone().try_reserve_owned(0).unwrap().release();
    drop((permit, released, same));
    assert_eq!(sender.capacity(), 2);

    for (permit, text) in within(sender.reserve_many(2, 3)).unwrap().zip(["one", "two"]) {
        let mut permit = permit;
        permit.put_slice(text.as_bytes());
        permit.send();
    }
    assert_eq!((&receiver.try_recv().unwrap()[..], &receiver.try_recv().unwrap()[..]), (&b"one"[..], &b"two"[..]));
    within(sender.send_many(&["", "three"])).unwrap();
    assert!(sender.try_reserve_many(1, 1).unwrap_err().is_full());
    assert_eq!((&receiver.try_recv().unwrap()[..], &receiver.try_recv().unwrap()[..]), (&b""[..], &b"three"[..]));
    drop((sender, receiver));
    assert_eq!(held(&one), 0);
}

#[test]
fn what_can_never_be_had_is_an_error_at_once() {
    let segment = Segment::options().size(4 << 20).in_process().unwrap();
    let (sender, receiver) = segment.bytes("bytes").capacity(10).open().unwrap();
    let error = within(sender.reserve(8 << 20)).unwrap_err();
    assert!(matches!(error.kind(), SendErrorKind::TooLarge { .. }), "{error}");
    assert_eq!(sender.try_reserve(usize::MAX).unwrap_err(), TrySendError::TooLarge(()));
    let error = within(sender.reserve_many(11, 1)).unwrap_err();
    assert_eq!(error.kind(), SendErrorKind::TooMany { asked: 11, capacity: 10 });
    assert!(error.to_string().contains("larger capacity"), "{error}");
    assert!(sender.try_reserve_many(usize::MAX, 1).unwrap_err().is_full());
    // Each of them fits, all of them do not.
    let error = within(sender.reserve_many(10, 1 << 20)).unwrap_err();
    assert!(matches!(error.kind(), SendErrorKind::TooLarge { .. }), "{error}");
    assert_eq!((sender.capacity(), sender.try_reserve_many(10, 1).unwrap().len()), (10, 10));
    assert_eq!(within(sender.reserve_many(0, 1)).unwrap().len(), 0);
    drop(receiver);
    assert!(within(sender.reserve(1)).unwrap_err().is_closed());
    assert!(within(sender.reserve_many(0, 1)).unwrap_err().is_closed());
    assert!(within(sender.send_many(&["x"])).unwrap_err().is_closed());
    let TrySendError::Closed(sender) = sender.try_reserve_owned(1).unwrap_err() else { panic!("not closed") };
    assert!(sender.is_closed());
}

#[test]
fn many_permits_are_had_at_once_and_those_left_over_come_back() {
    let (_place, one, other) = two();
    let (sender, others, receiver) = numbers(&one, &other, 8);
    let mut permits = within(sender.reserve_many(8)).unwrap();
    assert_eq!((permits.len(), others.capacity()), (8, 0));
    assert!(others.try_reserve_many(1).unwrap_err().is_full());
    permits.next().unwrap().send(1);
    let kept = permits.next().unwrap();
    drop(permits);
    assert_eq!((others.capacity(), others.len()), (6, 1));
    assert!(others.try_reserve_many(7).unwrap_err().is_full());
    assert_eq!(others.try_reserve_many(6).unwrap().count(), 6);
    kept.send(2);
    within(others.send_many(&[3, 4, 5, 6, 7, 8])).unwrap();
    for number in 1..=8 {
        assert_eq!(*receiver.try_recv().unwrap(), number);
    }
}

/// Ways in which the one permit of a channel comes back.
#[test]
fn who_waits_is_woken_however_a_permit_comes_back() {
    type Way = fn(OwnedPermit<u64>, &Receiver<u64>);
    let ways: [(&str, Way); 5] = [
        ("dropped", |permit, _| drop(permit)),
        ("released", |permit, _| drop(permit.release())),
        ("sent and received", |permit, receiver| {
            permit.send(0);
            receiver.blocking_recv().unwrap();
        }),
        ("dropped while it was being written", |permit, _| {
            assert!(catch_unwind(AssertUnwindSafe(|| permit.send_in_place(|_| panic!("no")))).is_err());
        }),
        ("dropped by another thread", |permit, _| thread::spawn(|| drop(permit)).join().unwrap()),
    ];
    for (way, come_back) in ways {
        // Who waits, and for what; in the process of the holder, or in another one.
        for waiting in 0..6 {
            let (_place, one, other) = two();
            let (sender, others, receiver) = numbers(&one, &other, 1);
            let permit = sender.clone().try_reserve_owned().unwrap();
            let waiter = if waiting % 2 == 0 { others.clone() } else { sender.clone() };
            let thread = thread::spawn(move || {
                within(async {
                    match waiting / 2 {
                        0 => waiter.send(1).await.unwrap(),
                        1 => waiter.reserve().await.unwrap().send(1),
                        _ => waiter.reserve_many(1).await.unwrap().next().unwrap().send(1),
                    }
                });
            });
            thread::sleep(Duration::from_millis(20));
            assert!(!thread.is_finished(), "{way}");
            let started = std::time::Instant::now();
            come_back(permit, &receiver);
            thread.join().unwrap();
            assert!(started.elapsed() < Duration::from_secs(5), "{way}");
            assert_eq!(*receiver.try_recv().unwrap(), 1, "{way}");
        }
    }
}

#[test]
fn a_permit_that_was_leaked_comes_back_with_the_last_sender() {
    let (_place, one, other) = two();
    let (sender, others, receiver) = numbers(&one, &other, 2);
    std::mem::forget(sender.try_reserve().unwrap());
    std::mem::forget(sender.try_reserve().unwrap());
    let waiting = thread::spawn(move || others.blocking_send(1).unwrap());
    thread::sleep(Duration::from_millis(20));
    drop(sender);
    waiting.join().unwrap();
    assert_eq!((*receiver.try_recv().unwrap(), receiver.capacity()), (1, 2));
}

#[test]
fn a_future_that_is_dropped_has_reserved_nothing_and_leaves_the_line() {
    let (_place, one, other) = two();
    let (sender, others, receiver) = numbers(&one, &other, 4);
    within(async {
        for number in 0..200 {
            sender.try_send(number).unwrap();
            {
                let mut many = pin!(sender.reserve_many(4));
                wait_a_little(&mut many).await;
                // Nobody gets past it.
                assert!(others.try_send(0).unwrap_err().is_full());
                let mut more = pin!(others.reserve_many(3));
                wait_a_little(&mut more).await;
                let mut one = pin!(others.reserve());
                wait_a_little(&mut one).await;
            }
            assert_eq!((others.capacity(), sender.capacity()), (3, 3));
            // Whoever was behind it is woken.
            let mut many = Box::pin(sender.reserve_many(4));
            wait_a_little(&mut many.as_mut()).await;
            let behind = tokio::spawn({
                let others = others.clone();
                async move { others.reserve_many(3).await.map(Iterator::count) }
            });
            tokio::task::yield_now().await;
            drop(many);
            assert_eq!(behind.await.unwrap(), Ok(3));
            assert_eq!(*receiver.recv().await.unwrap(), number);
        }
    });
    assert_eq!(fill(&sender), 4);
}

#[test]
fn who_wants_many_does_not_starve_beside_small_sends() {
    let (_place, one, other) = two();
    let (sender, others, receiver) = numbers(&one, &other, 16);
    let stop = Arc::new(AtomicBool::new(false));
    let small: Vec<_> = [sender.clone(), others.clone(), others]
        .into_iter()
        .map(|sender| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if sender.try_send(1).is_err() {
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let drain = thread::spawn(move || while receiver.blocking_recv().is_some() {});
    within(async {
        for _ in 0..200 {
            for permit in sender.reserve_many(16).await.unwrap() {
                permit.send(2);
            }
        }
    });
    stop.store(true, Ordering::Relaxed);
    drop(sender);
    small.into_iter().for_each(|thread| thread.join().unwrap());
    drain.join().unwrap();
}

#[test]
fn those_who_want_many_do_not_wait_for_each_other_for_ever() {
    const EACH: usize = 300;
    for capacity in [2, 5, 300] {
        let (_place, one, other) = two();
        let (sender, others, receiver) = numbers(&one, &other, capacity);
        let threads: Vec<_> = [&sender, &others, &sender, &others]
            .into_iter()
            .enumerate()
            .map(|(index, sender)| {
                let sender = sender.clone();
                thread::spawn(move || {
                    let mut random = Random::new(index as u64);
                    within(async {
                        for _ in 0..EACH {
                            let many = 1 + random.below(capacity);
                            let permits = sender.reserve_many(many).await.unwrap();
                            assert_eq!(permits.len(), many);
                            let used = random.below(many + 1);
                            permits.take(used).for_each(|permit| permit.send(1));
                        }
                    });
                })
            })
            .collect();
        drop((sender, others));
        while receiver.blocking_recv().is_some() {}
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(receiver.capacity(), capacity);
    }
}

#[test]
fn a_closed_channel_ends_when_its_last_permit_is_gone() {
    let (_place, one, other) = two();
    let (sender, others, receiver) = numbers(&one, &other, 4);
    let first = sender.clone().try_reserve_owned().unwrap();
    let second = others.try_reserve().unwrap();
    receiver.close();
    assert!(sender.try_reserve().unwrap_err().is_closed());
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
    second.send(2);
    assert_eq!(*receiver.try_recv().unwrap(), 2);
    let waiting = thread::spawn(move || (receiver.blocking_recv().map(|number| *number), receiver));
    thread::sleep(Duration::from_millis(20));
    first.send(3);
    let (received, receiver) = waiting.join().unwrap();
    assert_eq!(received, Some(3));
    assert!(within(receiver.recv()).is_none());

    // The same with a permit that is not used.
    let sender = one.channel::<u64>("more").sender().unwrap();
    let receivers: Vec<Receiver<u64>> = (0..3).map(|_| other.channel("more").receiver().unwrap()).collect();
    let permit = sender.try_reserve().unwrap();
    receivers[0].close();
    let waiting: Vec<_> =
        receivers.into_iter().map(|receiver| thread::spawn(move || receiver.blocking_recv().is_none())).collect();
    thread::sleep(Duration::from_millis(20));
    drop(permit);
    assert!(waiting.into_iter().all(|thread| thread.join().unwrap()));
}

#[test]
fn what_is_sent_with_a_permit_after_the_last_receiver_has_left_is_released() {
    let (_place, one, other) = two();
    let (sender, others, receiver) = numbers(&one, &other, 4);
    let (first, second) = (sender.clone().try_reserve_owned().unwrap(), sender.try_reserve().unwrap());
    drop(receiver);
    assert!(sender.try_reserve().unwrap_err().is_closed());
    drop(first.send(1));
    drop(second);
    assert_eq!(sender.len(), 0);
    drop((sender, others));
    assert_eq!(held(&one), 0);
}

#[test]
fn a_permit_waits_for_memory_and_gives_it_back() {
    let (_place, one, other) = two();
    let sender = one.bytes("bytes").sender().unwrap();
    let receiver = other.bytes("bytes").receiver().unwrap();
    let ring = held(&one);
    let mut permits = Vec::new();
    while let Ok(permit) = sender.try_reserve(60_000) {
        permits.push(permit);
    }
    assert!(sender.capacity() > 0);
    assert_eq!(sender.try_reserve(60_000).unwrap_err(), TrySendError::OutOfMemory(()));
    assert_eq!(sender.try_reserve_many(2, 60_000).unwrap_err(), TrySendError::OutOfMemory(()));
    let reserved = sender.max_capacity() - sender.capacity();
    assert_eq!(reserved, permits.len());
    let threads = [1, 3].map(|many| {
        let others = other.bytes("bytes").sender().unwrap();
        thread::spawn(move || {
            for mut permit in within(others.reserve_many(many, 60_000)).unwrap() {
                permit.put_u8(1);
                permit.send();
            }
        })
    });
    thread::sleep(Duration::from_millis(20));
    permits.truncate(permits.len() - 4);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(receiver.len(), 4);
    drop(permits);
    while receiver.try_recv().is_ok() {}
    assert_eq!((sender.capacity(), held(&one)), (sender.max_capacity(), ring));
}

#[test]
fn who_waits_for_memory_for_many_leaves_the_thread_to_others() {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let segment = Segment::options().size(4 << 20).in_process().unwrap();
        let (sender, receiver) = segment.bytes("many").capacity(256).open().unwrap();
        let room = segment.bytes("room").capacity(8).open().unwrap();
        while sender.try_send([0; 60_000]).is_ok() {}
        drop(receiver.try_recv().unwrap());
        // There is memory for one of them: it is had, and given back, with every attempt.
        let gave_up = within(async {
            tokio::time::timeout(std::time::Duration::from_millis(30), room.0.reserve_many(3, 60_000)).await.is_err()
        });
        done.send(gave_up).unwrap();
    });
    let gave_up = ended.recv_timeout(common::PATIENCE / 4);
    assert_eq!(gave_up, Ok(true), "the timeout of the same thread has never run");
}

#[test]
fn many_tasks_that_give_up_at_any_time_lose_nothing() {
    for capacity in [1, 2, 7] {
        let (_place, one, other) = two();
        let (sender, others, receiver) = numbers(&one, &other, capacity);
        let sent = Arc::new(AtomicU64::new(0));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let tasks: Vec<_> = (0..24)
                .map(|task| {
                    let sender = if task % 2 == 0 { sender.clone() } else { others.clone() };
                    let sent = Arc::clone(&sent);
                    tokio::spawn(async move {
                        let mut random = Random::new(task);
                        for _ in 0..300 {
                            let patience = random.below(4);
                            let give_up = async {
                                for _ in 0..patience {
                                    tokio::task::yield_now().await;
                                }
                            };
                            let many = 1 + random.below(capacity);
                            tokio::select! {
                                biased;
                                permit = sender.reserve(), if task % 3 == 0 => {
                                    let permit = permit.unwrap();
                                    tokio::task::yield_now().await;
                                    if random.below(3) > 0 {
                                        sent.fetch_add(1, Ordering::Relaxed);
                                        permit.send(1);
                                    }
                                }
                                permits = sender.reserve_many(many), if task % 3 == 1 => {
                                    for permit in permits.unwrap().take(random.below(many + 1)) {
                                        tokio::task::yield_now().await;
                                        sent.fetch_add(1, Ordering::Relaxed);
                                        permit.send(1);
                                    }
                                }
                                done = sender.send(1), if task % 3 == 2 => {
                                    done.unwrap();
                                    sent.fetch_add(1, Ordering::Relaxed);
                                }
                                () = give_up => {}
                            }
                        }
                    })
                })
                .collect();
            let drain = tokio::spawn(async move {
                let mut received = 0;
                while let Some(message) = receiver.recv().await {
                    received += *message;
                    assert!(receiver.len() <= capacity);
                }
                (received, receiver)
            });
            for task in tasks {
                tokio::time::timeout(common::PATIENCE, task).await.expect("somebody was not woken").unwrap();
            }
            let drained = async {
                while !sender.is_empty() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(common::PATIENCE, drained).await.expect("nobody receives");
            assert_eq!(sender.capacity(), capacity);
            drop((sender, others));
            let (received, receiver) = drain.await.unwrap();
            assert_eq!((received, receiver.capacity()), (sent.load(Ordering::Relaxed), capacity));
        });
        let report = one.check();
        assert!(report.is_clean(), "{report:?}");
    }
}

/// With no room for anybody, those who wait must sleep: also if one of them was woken, and somebody else was faster.
#[test]
fn who_was_woken_in_vain_wakes_nobody() {
    let (_place, one, other) = two();
    let (_, others, receiver) = numbers(&one, &other, 1);
    // Yielding is no waiting: those who are counted park at once.
    let sender = one.channel::<u64>("numbers").wait(WaitStrategy::Park).sender().unwrap();
    sender.try_send(0).unwrap();
    let polls = Arc::new(AtomicUsize::new(0));
    within(async {
        let tasks: Vec<_> = (0..6)
            .map(|task| {
                let (sender, polls) = (sender.clone(), Arc::clone(&polls));
                tokio::spawn(async move {
                    let mut waiting = pin!(async {
                        match task % 2 {
                            0 => sender.send(1).await.unwrap(),
                            _ => sender.reserve().await.unwrap().send(1),
                        }
                    });
                    poll_fn(|context| {
                        polls.fetch_add(1, Ordering::Relaxed);
                        waiting.as_mut().poll(context)
                    })
                    .await
                })
            })
            .collect();
        tokio::task::yield_now().await;
        // One of them is woken, and before it runs the room is gone.
        receiver.try_recv().unwrap();
        others.try_send(2).unwrap();
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let polls = polls.load(Ordering::Relaxed);
        assert!(polls < 50, "{polls} polls");
        assert_eq!(*receiver.try_recv().unwrap(), 2);
        for task in tasks {
            assert_eq!(*receiver.recv().await.unwrap(), 1);
            drop(task);
        }
    });
}

/// Rounds in which nobody receives: whoever tries, with permits or without, the capacity is had once, all of it.
#[test]
fn four_threads_of_two_participants_get_the_capacity_once() {
    const ROUNDS: usize = 3000;
    for capacity in [1, 2, 3, 256] {
        let rounds = if capacity == 256 { ROUNDS / 10 } else { ROUNDS };
        let (_place, one, other) = two();
        let (sender, others, receiver) = numbers(&one, &other, capacity);
        let barrier = Barrier::new(5);
        let taken = AtomicUsize::new(0);
        thread::scope(|scope| {
            for (index, sender) in [&sender, &others, &sender, &others].into_iter().enumerate() {
                let (barrier, taken) = (&barrier, &taken);
                let sender = sender.clone();
                scope.spawn(move || {
                    let mut random = Random::new(index as u64);
                    for _ in 0..rounds {
                        barrier.wait();
                        let mut permits = Vec::new();
                        let mut refused = 0;
                        while refused < 2 {
                            let got = match random.below(3) {
                                0 => usize::from(sender.try_send(1).is_ok()),
                                1 => sender.try_reserve().map(|permit| permits.push(permit)).map_or(0, |()| 1),
                                _ => {
                                    let many = 1 + random.below(3).min(capacity - 1);
                                    let got = sender.try_reserve_many(many);
                                    got.map(|got| permits.extend(got)).map_or(0, |()| many)
                                }
                            };
                            let before = taken.fetch_add(got, Ordering::SeqCst);
                            assert!(before + got <= capacity, "{before} and {got} of {capacity}");
                            refused += usize::from(got == 0);
                        }
                        barrier.wait();
                        permits.into_iter().for_each(|permit| permit.send(1));
                        barrier.wait();
                    }
                });
            }
            for _ in 0..rounds {
                taken.store(0, Ordering::SeqCst);
                barrier.wait();
                barrier.wait();
                barrier.wait();
                let received = std::iter::from_fn(|| receiver.try_recv().ok()).count();
                assert_eq!(received, taken.load(Ordering::SeqCst));
                assert_eq!(sender.capacity(), capacity);
            }
        });
    }
}

#[derive(Clone, Debug)]
enum Op {
    Send(bool),
    Reserve(bool),
    ReserveMany(bool, usize),
    Use(usize),
    Drop(usize),
    Receive,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        any::<bool>().prop_map(Op::Send),
        any::<bool>().prop_map(Op::Reserve),
        (any::<bool>(), 0..6_usize).prop_map(|(who, many)| Op::ReserveMany(who, many)),
        any::<usize>().prop_map(Op::Use),
        any::<usize>().prop_map(Op::Drop),
        Just(Op::Receive),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_channel_with_permits_is_a_queue_and_a_number(capacity in 1..6_usize, ops in prop::collection::vec(op(), 1..200)) {
        let (_place, one, other) = two();
        let (sender, others, receiver) = numbers(&one, &other, capacity);
        let pick = |who: bool| if who { &sender } else { &others };
        let mut queue = VecDeque::new();
        let mut permits: Vec<Permit<'_, u64>> = Vec::new();
        for (number, op) in (0_u64..).zip(ops) {
            let room = capacity - queue.len() - permits.len();
            match op {
                Op::Send(who) => {
                    prop_assert_eq!(pick(who).try_send(number).is_ok(), room > 0);
                    if room > 0 {
                        queue.push_back(number);
                    }
                }
                Op::Reserve(who) => {
                    let permit = pick(who).try_reserve();
                    prop_assert_eq!(permit.is_ok(), room > 0);
                    permits.extend(permit);
                }
                Op::ReserveMany(who, many) => {
                    let got = pick(who).try_reserve_many(many);
                    prop_assert_eq!(got.is_ok(), many <= room);
                    permits.extend(got.into_iter().flatten());
                }
                Op::Use(index) if !permits.is_empty() => {
                    let permit = permits.swap_remove(index % permits.len());
                    permit.send(number);
                    queue.push_back(number);
                }
                Op::Drop(index) if !permits.is_empty() => drop(permits.swap_remove(index % permits.len())),
                Op::Use(_) | Op::Drop(_) => {}
                Op::Receive => prop_assert_eq!(receiver.try_recv().ok().map(|message| *message), queue.pop_front()),
            }
            prop_assert_eq!(sender.capacity(), capacity - queue.len() - permits.len());
            prop_assert_eq!(receiver.len(), queue.len());
        }
    }
}

fn open(place: &Place) -> Segment {
    place.options().size(4 << 20).participants(8).open_or_create("permits").unwrap()
}

#[test]
fn the_permits_of_a_killed_process_come_back_to_who_waits() {
    const TEST: &str = "the_permits_of_a_killed_process_come_back_to_who_waits";
    let place = Place::new();
    let segment = open(&place);
    if role().is_some() {
        let sender = segment.bytes("data").sender().unwrap();
        let ready = segment.bytes("ready").sender().unwrap();
        return within(async {
            let permits: Vec<_> = sender.reserve_many(6, 1000).await.unwrap().collect();
            let mut owned = sender.clone().reserve_owned(100).await.unwrap();
            owned.put_slice(b"never sent");
            // And one that stands in line for more than there is.
            let mut line = pin!(tokio::task::unconstrained(sender.reserve_many(8, 1000)));
            wait_a_little(&mut line).await;
            ready.send("ready").await.unwrap();
            tokio::time::sleep(common::PATIENCE).await;
            drop((permits, owned));
        });
    }
    for round in 0..8 {
        let (data, receiver) = segment.bytes("data").capacity(8).open().unwrap();
        let ready = segment.bytes("ready").receiver().unwrap();
        let child = place.spawn(TEST, "hold");
        within(ready.recv()).unwrap();
        drop(ready);
        assert_eq!(data.capacity(), 0, "7 permits, and 8 that are wanted");
        let waiting: Vec<_> = (0..3)
            .map(|how| {
                let data = data.clone();
                thread::spawn(move || {
                    within(async {
                        match how {
                            0 => data.send("sent").await.unwrap(),
                            1 => data.reserve(5).await.unwrap().send(),
                            _ => drop(data.reserve_many(6, 10).await.unwrap()),
                        }
                    })
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(20));
        assert!(waiting.iter().all(|thread| !thread.is_finished()));
        child.kill();
        waiting.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!((data.capacity(), receiver.len()), (6, 2), "round {round}");
        while receiver.try_recv().is_ok() {}
        assert_eq!(within(data.reserve_many(8, 10)).unwrap().len(), 8);
        drop((data, receiver));
        eventually("all is given back", || {
            segment.bury_the_dead();
            segment.channels().is_empty() && held(&segment) == 0
        });
    }
}

#[test]
fn a_stopped_process_keeps_its_permits_and_nothing_else() {
    const TEST: &str = "a_stopped_process_keeps_its_permits_and_nothing_else";
    let place = Place::new();
    let segment = open(&place);
    if role().is_some() {
        let sender = segment.bytes("data").sender().unwrap();
        let _permits = within(sender.reserve_many(2, 10)).unwrap();
        within(segment.bytes("ready").sender().unwrap().send("ready")).unwrap();
        thread::sleep(common::PATIENCE);
        return;
    }
    let (data, receiver) = segment.bytes("data").capacity(4).open().unwrap();
    let ready = segment.bytes("ready").receiver().unwrap();
    let child = place.spawn(TEST, "hold");
    within(ready.recv()).unwrap();
    // SAFETY: a plain system call on a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(child.pid() as libc::pid_t, libc::SIGSTOP) }, 0);
    for number in 0..1000_u64 {
        within(data.send_many(&[number.to_le_bytes(), number.to_le_bytes()])).unwrap();
        assert!(data.try_reserve(1).unwrap_err().is_full());
        assert_eq!(receiver.try_recv().unwrap()[..], number.to_le_bytes());
        assert_eq!(receiver.try_recv().unwrap()[..], number.to_le_bytes());
    }
    child.kill();
    assert_eq!(within(data.reserve_many(4, 10)).unwrap().len(), 4);
}

/// Sends stamped messages in every way there is, and gives up now and then.
async fn send_for_ever(segment: &Segment, sender: u32) {
    let data = segment.bytes("data").sender().unwrap();
    let capacity = data.max_capacity();
    let mut random = Random::new(u64::from(sender) + 1);
    let mut stamps = (0..).map(|number| Stamp { sender, number });
    loop {
        assert!(data.len() <= capacity);
        match random.below(5) {
            0 => {
                let message = stamps.next().unwrap().message(1 + random.below(500));
                if data.send(message).await.is_err() {
                    return;
                }
            }
            1 => {
                let Ok(mut permit) = data.reserve(524).await else { return };
                if random.below(3) > 0 {
                    permit.put_slice(&stamps.next().unwrap().message(1 + random.below(500)));
                    permit.send();
                }
            }
            2 => {
                let many = 1 + random.below(capacity);
                let Ok(permits) = data.reserve_many(many, 524).await else { return };
                for mut permit in permits.take(random.below(many + 1)) {
                    permit.put_slice(&stamps.next().unwrap().message(1 + random.below(500)));
                    permit.send();
                }
            }
            3 => {
                // Whoever does not get it at once goes away.
                let mut many = pin!(data.reserve_many(1 + random.below(capacity), 24));
                let closed = poll_fn(|context| match many.as_mut().poll(context) {
                    Poll::Ready(Err(_)) => Poll::Ready(true),
                    _ => Poll::Ready(false),
                })
                .await;
                if closed {
                    return;
                }
            }
            _ => {
                let messages: Vec<_> = stamps.by_ref().take(random.below(capacity + 1)).collect();
                let messages: Vec<_> = messages.into_iter().map(|stamp| stamp.message(30)).collect();
                if data.send_many(&messages).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[test]
fn processes_that_reserve_and_are_killed_lose_and_exceed_nothing() {
    const TEST: &str = "processes_that_reserve_and_are_killed_lose_and_exceed_nothing";
    let place = Place::new();
    let segment = open(&place);
    if let Some(role) = role() {
        return within(send_for_ever(&segment, role.parse().unwrap()));
    }
    for capacity in [1, 4, 256] {
        let data = segment.bytes("data").capacity(capacity).receiver().unwrap();
        let survivor = place.spawn(TEST, "0");
        let mut victims: Vec<_> = (1..3_u32).map(|number| place.spawn(TEST, &number.to_string())).collect();
        let mut next = 3;
        let mut random = Random::new(13);
        let mut seen: std::collections::HashMap<u32, u64> = Default::default();
        within(async {
            for kill in 0..20 {
                let mut left = random.below(1500);
                // The survivor must be there before anybody is killed: or there may be no sender left.
                while left > 0 || !seen.contains_key(&0) {
                    left = left.saturating_sub(1);
                    let message = data.recv().await.unwrap();
                    assert!(data.len() <= capacity);
                    let stamp = Stamp::verify(&message).unwrap();
                    let expected = seen.entry(stamp.sender).or_default();
                    assert_eq!(stamp.number, *expected, "of sender {}", stamp.sender);
                    *expected += 1;
                }
                victims.swap_remove(kill % 2).kill();
                victims.push(place.spawn(TEST, &next.to_string()));
                next += 1;
            }
        });
        assert!(seen[&0] > 0);
        victims.into_iter().for_each(common::Process::kill);
        survivor.kill();
        within(async { while data.recv().await.is_some() {} });
        assert_eq!(data.capacity(), capacity);
        drop(data);
        eventually("all is given back", || {
            segment.bury_the_dead();
            segment.channels().is_empty() && held(&segment) == 0
        });
    }
}

/// Options of a channel, of some kind in which permits are had.
fn channel_of(segment: &Segment, kind: &str, capacity: usize) -> ChannelOptions<u64> {
    let options = segment.channel::<u64>(&format!("{kind}-{capacity}")).capacity(capacity);
    match kind {
        "levels" => options.policy(PriorityBy(|_: &u64| Priority::Normal)),
        "again" => options.delivery(Delivery::AtLeastOnce { max_deliveries: 2 }),
        _ => options,
    }
}

/// What was got: room, or a message that takes it up until it is received.
enum Got<'a, T: 'a> {
    Permit(#[allow(dead_code)] T),
    Message(&'a Receiver<u64>),
}

impl<T> Drop for Got<'_, T> {
    fn drop(&mut self) {
        if let Self::Message(receiver) = self {
            drop(receiver.try_recv().unwrap());
        }
    }
}

#[test]
fn of_those_who_try_to_reserve_at_once_as_many_get_a_place_as_there_are() {
    let (_place, one, other) = two();
    for (capacity, kind) in
        [1, 2].into_iter().flat_map(|capacity| ["plain", "levels", "again"].map(|kind| (capacity, kind)))
    {
        let (ours, receiver) = channel_of(&one, kind, capacity).open().unwrap();
        let theirs = channel_of(&other, kind, capacity).sender().unwrap();
        for senders in [[&ours, &ours, &ours], [&ours, &theirs, &ours]] {
            for threads in [2, 3] {
                let most = capacity.min(threads);
                let got = at_once(40, threads, |number| senders[number].try_reserve().ok());
                assert!(got.iter().all(|got| *got == most), "{kind} {capacity} {threads}: {got:?}");
                let got = at_once(20, threads, |number| senders[number].clone().try_reserve_owned().ok());
                assert!(got.iter().all(|got| *got == most), "owned {kind} {capacity} {threads}: {got:?}");
                let got = at_once(40, threads, |number| senders[number].try_reserve_many(capacity).ok());
                assert!(got.iter().all(|got| *got == 1), "many {kind} {capacity} {threads}: {got:?}");
                // One of them just sends.
                let got = at_once(40, threads, |number| match number {
                    0 => senders[0].try_send(0).ok().map(|()| Got::Message(&receiver)),
                    _ => senders[number].try_reserve().ok().map(Got::Permit),
                });
                assert!(got.iter().all(|got| *got == most), "beside a send {kind} {capacity} {threads}: {got:?}");
            }
        }
        assert_eq!((ours.capacity(), theirs.capacity(), receiver.len()), (capacity, capacity, 0));
    }
}

#[test]
fn of_two_who_try_to_reserve_slices_at_once_one_gets_the_last_place() {
    let (_place, one, other) = two();
    let (ours, _receiver) = one.channel::<[u32]>("slices").capacity(1).open().unwrap();
    let theirs = other.channel::<[u32]>("slices").sender().unwrap();
    for senders in [[&ours, &ours], [&ours, &theirs]] {
        let got = at_once(300, 2, |number| senders[number].try_reserve(5).ok());
        assert!(got.iter().all(|got| *got == 1), "{got:?}");
        let got = at_once(300, 2, |number| senders[number].try_reserve_many(1, 5).ok());
        assert!(got.iter().all(|got| *got == 1), "{got:?}");
    }
    assert_eq!(ours.capacity(), 1);
}

/// Waits for so many permits of a full channel, and says when it stands in line.
fn wait_in_line(place: &Place, sender: &Sender<u64>, messages: usize) {
    // The first poll shall go as far as it can.
    let mut waiting = pin!(tokio::task::unconstrained(sender.reserve_many(messages)));
    let mut is_told = false;
    let permits = within(poll_fn(|context| {
        let polled = waiting.as_mut().poll(context);
        if !std::mem::replace(&mut is_told, true) {
            assert!(polled.is_pending());
            ready(place);
        }
        polled
    }));
    permits.unwrap().for_each(|permit| permit.send(7));
}

#[test]
fn who_is_stopped_in_the_line_keeps_no_room_from_others() {
    const TEST: &str = "who_is_stopped_in_the_line_keeps_no_room_from_others";
    let place = Place::new();
    let segment = place.options().size(4 << 20).participants(8).open_or_create("line").unwrap();
    if let Some(role) = role() {
        let (kind, messages) = role.split_once(' ').unwrap();
        wait_in_line(&place, &channel_of(&segment, kind, 8).sender().unwrap(), messages.parse().unwrap());
        return;
    }
    for (kind, messages) in ["plain", "levels", "again"].into_iter().flat_map(|kind| [(kind, 4), (kind, 8)]) {
        let (sender, receiver) = channel_of(&segment, kind, 8).open().unwrap();
        fill(&sender);
        let child = place.spawn(TEST, &format!("{kind} {messages}"));
        wait_until_ready(&place, &child);
        child.stop();
        // Who waits already, in other ways, gets past it as soon as there is room for it.
        thread::scope(|scope| {
            let waiting = [
                scope.spawn(|| within(sender.send(1)).is_ok()),
                scope.spawn(|| within(sender.reserve()).map(|permit| permit.send(2)).is_ok()),
                scope.spawn(|| within(sender.send_many(&[3, 4, 5])).is_ok()),
            ];
            thread::sleep(Duration::from_millis(50));
            while let Ok(message) = receiver.try_recv() {
                assert_eq!(*message, 0);
            }
            waiting.into_iter().for_each(|waiting| assert!(waiting.join().unwrap()));
        });
        // And a stream goes on as if it were not there.
        thread::scope(|scope| {
            scope.spawn(|| (0..5000).for_each(|number| within(sender.send(number)).unwrap()));
            let received = (0..5005).map(|_| u64::from(within(receiver.recv()).is_some())).sum::<u64>();
            assert_eq!(received, 5005);
        });
        // It goes on as if it had just come.
        child.signal(libc::SIGCONT);
        child.succeed();
        assert_eq!(std::iter::from_fn(|| receiver.try_recv().ok()).filter(|message| **message == 7).count(), messages);
    }
}

#[test]
fn who_is_stopped_in_the_line_makes_an_empty_channel_full_for_a_moment_only() {
    const TEST: &str = "who_is_stopped_in_the_line_makes_an_empty_channel_full_for_a_moment_only";
    let place = Place::new();
    let segment = place.options().size(4 << 20).participants(8).open_or_create("line").unwrap();
    if let Some(role) = role() {
        let (kind, capacity) = role.split_once(' ').unwrap();
        let capacity = capacity.parse().unwrap();
        return wait_in_line(&place, &channel_of(&segment, kind, capacity).sender().unwrap(), capacity);
    }
    let attempts =
        [|sender: &Sender<u64>| sender.try_send(1).is_ok(), |sender: &Sender<u64>| sender.try_reserve().is_ok()];
    for kind in ["plain", "levels", "again"] {
        for (attempt, capacity) in attempts.into_iter().zip([8, 9]) {
            let (sender, receiver) = channel_of(&segment, kind, capacity).open().unwrap();
            fill(&sender);
            let child = place.spawn(TEST, &format!("{kind} {capacity}"));
            wait_until_ready(&place, &child);
            child.stop();
            while receiver.try_recv().is_ok() {}
            eventually("there is room", || attempt(&sender));
            child.kill();
        }
    }
}

#[test]
fn a_closed_channel_ends_beside_who_is_stopped_in_the_line() {
    const TEST: &str = "a_closed_channel_ends_beside_who_is_stopped_in_the_line";
    let place = Place::new();
    let segment = place.options().size(4 << 20).participants(8).open_or_create("line").unwrap();
    if role().is_some() {
        return wait_in_line(&place, &channel_of(&segment, "plain", 8).sender().unwrap(), 8);
    }
    let (sender, receiver) = channel_of(&segment, "plain", 8).open().unwrap();
    let messages = fill(&sender);
    let child = place.spawn(TEST, "wait");
    wait_until_ready(&place, &child);
    child.stop();
    receiver.close();
    assert_eq!(std::iter::from_fn(|| receiver.try_recv().ok()).count(), messages);
    assert!(matches!(receiver.try_recv(), Err(TryRecvError::Disconnected)));
    assert!(within(receiver.recv()).is_none());
    child.kill();
}
