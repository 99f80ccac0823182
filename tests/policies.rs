//! Policies of a channel: priorities, times to live, the oldest that give way, and what becomes of messages that nobody gets.
//! Nothing here depends on how long anything takes: messages live for hours, or for no time at all.

mod common;
#[path = "common/tasks.rs"]
mod tasks;

use std::{thread, time::Duration};

use common::{assert_empty, in_process, two, within};
use tasks::{HOURS, LEVELS, Task, numbers, task, tasks};
use waterway::{
    Delivery, Segment, TryRecvError, TrySendError, WaitStrategy,
    channel::SendTimeoutError,
    policy::{DeadLetter, Policy, Priority, PriorityBy, Retention},
};

// ---- Priorities ----

#[test]
fn higher_levels_come_first_and_each_level_in_its_order() {
    let segment = in_process();
    let (sender, receiver) = tasks(&segment).open().unwrap();
    for number in 0..12 {
        sender.try_send(task(number, (number % 4) as u32)).unwrap();
    }
    assert_eq!((receiver.len(), sender.capacity(), sender.max_capacity()), (12, 1021, 1024));
    assert_eq!(numbers(&receiver), [3, 7, 11, 2, 6, 10, 1, 5, 9, 0, 4, 8]);
    drop((sender, receiver));
    assert_empty(&segment);
}

/// How many others come between two of each level, while all levels have messages all the time.
fn most_between(levels: &[u32]) -> [usize; 4] {
    let segment = in_process();
    let (sender, receiver) = tasks(&segment).capacity(8).open().unwrap();
    for level in levels {
        (0..8).for_each(|number| sender.try_send(task(number, *level)).unwrap());
    }
    let (mut last, mut most) = ([0; 4], [0; 4]);
    for turn in 0..1000 {
        let message = receiver.try_recv().unwrap();
        let level = message.level as usize;
        let next = Task { number: message.number + 8, ..*message };
        drop(message);
        most[level] = most[level].max(turn - last[level]);
        last[level] = turn + 1;
        sender.try_send(next).unwrap();
    }
    for level in levels {
        most[*level as usize] = most[*level as usize].max(1000 - last[*level as usize]);
    }
    most
}

#[test]
fn no_level_starves_and_the_bound_is_what_the_documentation_says() {
    assert_eq!(most_between(&[0, 3]), [15, 0, 0, 1]);
    assert_eq!(most_between(&[1, 2]), [0, 31, 1, 0]);
    assert_eq!(most_between(&[0, 1, 2, 3]), [47, 47, 47, 1]);
}

#[test]
fn the_capacity_is_that_of_each_level_and_a_permit_takes_room_in_all() {
    let segment = in_process();
    let (sender, receiver) = tasks(&segment).capacity(3).open().unwrap();
    let permit = sender.try_reserve().unwrap();
    for level in 0..4 {
        sender.try_send(task(0, level)).unwrap();
        sender.try_send(task(1, level)).unwrap();
        assert!(matches!(sender.try_send(task(2, level)), Err(TrySendError::Full(_))));
    }
    assert!(matches!(sender.try_reserve(), Err(TrySendError::Full(()))));
    // There is room for it in whichever level it turns out to be.
    permit.send(task(9, 2));
    for level in [0, 1, 3] {
        sender.try_send(task(2, level)).unwrap();
    }
    assert!(matches!(sender.try_send(task(2, 2)), Err(TrySendError::Full(_))));
    assert_eq!((receiver.len(), sender.capacity()), (12, 0));
    assert_eq!(numbers(&receiver), [0, 1, 2, 0, 1, 9, 0, 1, 2, 0, 1, 2]);
    // Three at once, and none in any level until they are given back.
    let permits = sender.try_reserve_many(3).unwrap();
    (0..4).for_each(|level| assert!(sender.try_send(task(0, level)).is_err()));
    drop(permits);
    (0..4).for_each(|level| sender.try_send(task(0, level)).unwrap());
    assert!(sender.try_reserve_many(3).is_err());
    let mut two = sender.try_reserve_many(2).unwrap();
    two.next().unwrap().send_in_place(|task| (task.number, task.level) = (7, 3));
    two.next().unwrap().send(task(8, 0));
    drop(two);
    assert_eq!(numbers(&receiver), [0, 7, 0, 0, 0, 8]);
    drop((sender, receiver));
    assert_empty(&segment);
}

#[test]
fn who_waits_for_room_of_one_level_does_not_keep_others_from_theirs() {
    // Nobody is there who would make good for a wake that went to the wrong one.
    let segment = in_process();
    let options = segment.channel::<Task>("tasks").policy(PriorityBy(Task::priority)).capacity(1);
    let (sender, receiver) = options.wait(WaitStrategy::Park).open().unwrap();
    within(async {
        for round in 0..300 {
            let top = round % 3 + 1;
            (0..=top).for_each(|level| sender.try_send(task(0, level)).unwrap());
            // The one who can be served has mostly come last.
            let mut waiting = Vec::new();
            for level in 0..=top {
                let sender = sender.clone();
                waiting.push(tokio::spawn(async move { sender.send(task(1, level)).await.unwrap() }));
                tokio::task::yield_now().await;
            }
            // Mostly the highest.
            let level = receiver.recv().await.unwrap().level;
            waiting.remove(level as usize).await.unwrap();
            let mut received = 1;
            while received < 2 * (top + 1) {
                receiver.recv().await.unwrap();
                received += 1;
            }
            for waiting in waiting {
                waiting.await.unwrap();
            }
            assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
        }
    });
}

#[test]
fn the_room_that_a_permit_had_in_other_levels_is_had_when_it_is_used() {
    let segment = in_process();
    let options = segment.channel::<Task>("tasks").policy(PriorityBy(Task::priority)).capacity(1);
    let (sender, receiver) = options.wait(WaitStrategy::Park).open().unwrap();
    within(async {
        let permit = sender.reserve().await.unwrap();
        let mut waiting = Box::pin(sender.send(task(1, 0)));
        assert!(futures::poll!(&mut waiting).is_pending());
        permit.send(task(0, 3));
        waiting.await.unwrap();
        assert_eq!(numbers(&receiver), [0, 1]);
    });
}

#[test]
fn who_waits_for_many_permits_gets_them_when_all_levels_have_room() {
    let segment = in_process();
    let (sender, receiver) = tasks(&segment).capacity(4).open().unwrap();
    within(async {
        sender.send_many(&[task(0, 0), task(0, 3), task(1, 3)]).await.unwrap();
        let mut waiting = Box::pin(sender.reserve_many(3));
        assert!(futures::poll!(&mut waiting).is_pending());
        // What is counted is in nobody else's way in the line; others find no room.
        assert!(sender.try_reserve().is_err());
        assert_eq!((receiver.recv().await.unwrap().level, receiver.len()), (3, 2));
        let mut permits = waiting.await.unwrap();
        permits.next().unwrap().send(task(2, 3));
        drop(permits);
        assert_eq!(numbers(&receiver), [1, 2, 0]);
    });
}

#[test]
fn all_ways_to_send_and_receive_know_the_levels() {
    let segment = in_process();
    let (sender, receiver) = tasks(&segment).capacity(16).open().unwrap();
    let (onward, end) = segment
        .channel::<Task>("onward")
        .policy(PriorityBy(|task: &Task| LEVELS[3 - task.level as usize]))
        .open()
        .unwrap();
    within(async {
        sender.send(task(0, 0)).await.unwrap();
        sender.send_timeout(task(1, 1), HOURS).await.unwrap();
        sender.send_many(&[task(2, 2), task(3, 3)]).await.unwrap();
        sender.reserve().await.unwrap().send(task(4, 3));
        sender.clone().reserve_owned().await.unwrap().send(task(5, 2));
        sender.downgrade().upgrade().unwrap().try_send(task(6, 1)).unwrap();
        let mut batch = Vec::new();
        assert_eq!(receiver.recv_many(&mut batch, 3).await, 3);
        assert_eq!(batch.iter().map(|message| message.number).collect::<Vec<_>>(), [3, 4, 2]);
        // Another channel has its own.
        batch.into_iter().for_each(|message| message.forward(&onward).unwrap());
        assert_eq!(numbers(&end), [2, 3, 4]);
        assert_eq!(receiver.recv_timeout(HOURS).await.unwrap().number, 5);
    });
    thread::scope(|scope| {
        scope.spawn(|| sender.blocking_send(task(7, 3)).unwrap());
    });
    assert_eq!(receiver.blocking_recv().unwrap().number, 7);
    assert!(sender.force_send(task(8, 0)).unwrap().is_none());
    assert_eq!(numbers(&receiver), [1, 6, 0, 8]);
    // What has to go for another one is of the same level.
    (0..16).for_each(|number| sender.try_send(task(number, 1)).unwrap());
    sender.try_send(task(99, 0)).unwrap();
    assert_eq!(sender.force_send(task(16, 1)).unwrap().unwrap().number, 0);
    assert_eq!(receiver.len(), 17);
    within(async {
        let full = sender.send_timeout(task(17, 1), Duration::from_millis(1)).await;
        assert!(matches!(full, Err(SendTimeoutError::Timeout(Task { number: 17, .. }))));
        receiver.recv().await.unwrap();
        sender.send_timeout(task(17, 1), HOURS).await.unwrap();
    });
    drop((sender, receiver, onward, end));
    assert_empty(&segment);
}

#[test]
fn all_levels_are_received_before_the_end_and_released_with_the_last_receiver() {
    let segment = in_process();
    let (sender, receiver) = tasks(&segment).open().unwrap();
    (0..4).for_each(|level| sender.try_send(task(level.into(), level)).unwrap());
    drop(sender);
    assert!(receiver.is_closed());
    let received: Vec<u64> = within(async {
        let mut received = Vec::new();
        while let Some(message) = receiver.recv().await {
            received.push(message.number);
        }
        received
    });
    assert_eq!(received, [3, 2, 1, 0]);
    drop(receiver);
    // A permit of a channel that was closed.
    let (sender, receiver) = tasks(&segment).open().unwrap();
    let permit = sender.try_reserve().unwrap();
    sender.try_send(task(1, 0)).unwrap();
    receiver.close();
    assert!(sender.try_send(task(2, 3)).is_err());
    assert_eq!(receiver.try_recv().unwrap().number, 1);
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
    permit.send(task(3, 2));
    assert_eq!(receiver.try_recv().unwrap().number, 3);
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Disconnected);
    drop((sender, receiver));
    let (sender, receiver) = tasks(&segment).open().unwrap();
    (0..4).for_each(|level| sender.try_send(task(level.into(), level)).unwrap());
    drop(receiver);
    assert!(sender.is_closed());
    assert_eq!(segment.check().sectors.iter().map(|sector| sector.in_flight_blocks).sum::<usize>(), 0);
    drop(sender);
    // Nobody ever came: it stays for who comes.
    tasks(&segment).sender().unwrap().try_send(task(5, 3)).unwrap();
    assert_eq!(tasks(&segment).receiver().unwrap().try_recv().unwrap().number, 5);
    assert_empty(&segment);
}

#[test]
fn what_came_back_comes_before_all_levels() {
    let segment = in_process();
    let delivery = Delivery::AtLeastOnce { max_deliveries: 2 };
    let (sender, receiver) = tasks(&segment).delivery(delivery).policy(DeadLetter::to("dead")).open().unwrap();
    (0..4).for_each(|level| sender.try_send(task(level.into(), level)).unwrap());
    let all: Vec<_> = receiver.drain().collect();
    all.into_iter().filter(|message| message.level < 2).for_each(|message| message.nack());
    sender.try_send(task(9, 3)).unwrap();
    let oldest = receiver.inquire().oldest.unwrap();
    assert_eq!((oldest.priority, oldest.delivery_count), (Priority::Normal, 2));
    let next: Vec<_> = receiver.drain().collect();
    let seen: Vec<_> = next.iter().map(|message| (message.number, message.delivery_count())).collect();
    assert_eq!(seen, [(1, 2), (0, 2), (9, 1)]);
    next.into_iter().for_each(|message| message.nack());
    assert_eq!(numbers(&receiver), [9]);
    let letters = segment.channel::<Task>("dead").receiver().unwrap();
    assert_eq!(numbers(&letters), [1, 0]);
    let counts = receiver.inquire().counts;
    assert_eq!((counts.dead_letters, counts.expired, counts.discarded), (2, 0, 0));
}

#[test]
fn bytes_and_codecs_have_priorities_too() {
    let segment = in_process();
    let by_first = |bytes: &[u8]| LEVELS[usize::from(bytes[0] - b'0')];
    let (sender, receiver) = segment.bytes("bytes").policy(PriorityBy(by_first)).open().unwrap();
    sender.try_send("0 low").unwrap();
    let mut permit = sender.try_reserve(20).unwrap();
    bytes::BufMut::put_slice(&mut permit, b"3 urgent");
    permit.send();
    within(sender.send_many(&["1 normal", "2 high"])).unwrap();
    let order: Vec<_> = receiver.drain().map(|message| message[0]).collect();
    assert_eq!(order, b"3210");
}

#[cfg(feature = "json")]
#[test]
fn the_type_behind_a_codec_has_a_policy() {
    use waterway::{codec::Json, policy::ByMessage};

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Job {
        name: String,
        urgent: bool,
    }
    impl Policy for Job {
        fn priority(&self) -> Priority {
            if self.urgent { Priority::Urgent } else { Priority::Low }
        }
    }
    let job = |name: &str, urgent| Job { name: name.into(), urgent };
    let segment = in_process();
    let (sender, receiver) = segment.channel::<Job>("before").policy(ByMessage).codec::<Json>().open().unwrap();
    let (after, end) = segment.channel::<Job>("after").codec::<Json>().policy(ByMessage).open().unwrap();
    let (by, _end) = segment
        .channel::<Job>("by")
        .codec::<Json>()
        .policy(PriorityBy(|job: &Job| if job.name == "two" { Priority::High } else { Priority::Normal }))
        .open()
        .unwrap();
    sender.try_send(job("one", false)).unwrap();
    sender.try_send(job("two", true)).unwrap();
    let (first, second) = (receiver.try_recv().unwrap(), receiver.try_recv().unwrap());
    assert_eq!(first.decode().unwrap().name, "two");
    // Moved on, it is asked again.
    second.forward(&after).unwrap();
    first.forward(&after).unwrap();
    assert_eq!(end.try_recv().unwrap().decode().unwrap().name, "two");
    end.try_recv().unwrap().forward(&by).unwrap();
    assert_eq!(_end.inquire().oldest.unwrap().priority, Priority::Normal);
}

// ---- Times to live ----

#[test]
fn what_has_expired_is_not_delivered_but_counted() {
    let segment = in_process();
    let (sender, receiver) = tasks(&segment).open().unwrap();
    for number in 0..20 {
        sender.try_send(Task { number, level: (number % 4) as u32, lives: (number % 3) as u32 }).unwrap();
    }
    let mut received = numbers(&receiver);
    received.sort_unstable();
    assert!(received.iter().copied().eq((0..20).filter(|number| number % 3 != 1)));
    assert_eq!((receiver.inquire().counts.expired, receiver.len()), (7, 0));
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
    let info = segment.channels().into_iter().find(|channel| channel.name == "tasks").unwrap();
    assert_eq!(info.counts, receiver.inquire().counts);
    drop((sender, receiver));
    assert_empty(&segment);
}

#[test]
fn what_has_expired_becomes_a_dead_letter() {
    for delivery in [Delivery::AtMostOnce, Delivery::AtLeastOnce { max_deliveries: 5 }] {
        let segment = in_process();
        let quotes = || {
            segment
                .bytes("quotes")
                .delivery(delivery)
                .policy(Retention::ttl(Duration::ZERO))
                .policy(DeadLetter::to("old"))
        };
        let (sender, receiver) = quotes().open().unwrap();
        let letters = segment.bytes("old").receiver().unwrap();
        (0..5_u8).for_each(|number| sender.try_send([number; 100]).unwrap());
        assert_eq!(receiver.len(), 5);
        // Whoever waits for them hears of them.
        within(async {
            let mut waiting = Box::pin(letters.recv());
            assert!(futures::poll!(&mut waiting).is_pending());
            assert!(receiver.try_recv().is_err());
            assert_eq!(&waiting.await.unwrap()[..], [0; 100]);
        });
        assert!(letters.drain().map(|letter| letter[99]).eq(1..5));
        let counts = receiver.inquire().counts;
        assert_eq!((counts.expired, counts.dead_letters, counts.discarded), (5, 5, 0));
        drop((sender, receiver, letters));
        // The persistent channel's ring.
        assert_eq!(segment.check().sectors.iter().map(|sector| sector.allocated_blocks).sum::<usize>(), 1);
    }
}

#[test]
fn what_has_expired_and_finds_no_place_among_the_dead_letters_is_counted() {
    let segment = in_process();
    let _small = segment.channel::<u64>("old").capacity(2).persistent(true).receiver().unwrap();
    let (sender, receiver) = segment
        .channel::<u64>("quotes")
        .policy(DeadLetter::to("old"))
        .policy(Retention::ttl(Duration::ZERO))
        .open()
        .unwrap();
    (0..5).for_each(|number| sender.try_send(number).unwrap());
    assert!(receiver.try_recv().is_err());
    let counts = receiver.inquire().counts;
    assert_eq!((counts.expired, counts.dead_letters, counts.discarded, receiver.discarded()), (5, 2, 3, 3));
}

#[test]
fn a_sender_that_finds_no_room_takes_away_what_has_expired() {
    let segment = in_process();
    let (sender, receiver) = tasks(&segment).capacity(4).open().unwrap();
    for number in 0..1000 {
        sender.try_send(Task { number, level: 2, lives: 1 }).unwrap();
    }
    // Not behind what is wanted still.
    sender.try_send(task(7, 1)).unwrap();
    (0..3).for_each(|number| sender.try_send(Task { number, level: 1, lives: 1 }).unwrap());
    assert!(matches!(sender.try_send(task(8, 1)), Err(TrySendError::Full(_))));
    // Permits, too.
    assert!(sender.try_reserve().is_err());
    assert_eq!(receiver.try_recv().unwrap().number, 7);
    let permits = sender.try_reserve_many(4).unwrap();
    assert_eq!((receiver.len(), receiver.inquire().counts.expired), (0, 1003));
    drop(permits);
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
}

/// A sender that sleeps when its room comes because time passes.
fn wait_behind_what_expires(segment: &Segment) {
    let options = || segment.channel::<u64>("brief").capacity(2).policy(Retention::ttl(Duration::from_millis(300)));
    let (sender, receiver) = options().open().unwrap();
    sender.try_send(1).unwrap();
    sender.try_send(2).unwrap();
    within(sender.send(3)).unwrap();
    // However late it is by now.
    let rest = receiver.len();
    let counts = receiver.inquire().counts;
    assert!(counts.expired >= 1 && rest <= 2, "{counts:?}, {rest}");
}

#[test]
fn a_sender_that_sleeps_is_woken_when_what_is_in_its_way_expires() {
    wait_behind_what_expires(&in_process());
    let (_place, one, _other) = two();
    wait_behind_what_expires(&one);
}

#[test]
fn what_comes_back_may_have_expired() {
    let segment = in_process();
    let delivery = Delivery::AtLeastOnce { max_deliveries: 9 };
    let options = segment.channel::<u64>("jobs").delivery(delivery).policy(Retention::ttl(Duration::from_millis(1)));
    let (sender, receiver) = options.policy(DeadLetter::to("late")).open().unwrap();
    let letters = segment.channel::<u64>("late").receiver().unwrap();
    // Whether it is received or is too late: it is not lost, and there once.
    for number in 0..200 {
        sender.try_send(number).unwrap();
        if let Ok(message) = receiver.try_recv() {
            assert_eq!(*message, number);
            thread::sleep(Duration::from_millis(2));
            message.nack();
            assert!(receiver.try_recv().is_err());
        }
        assert_eq!(*letters.try_recv().unwrap(), number);
    }
    assert_eq!(receiver.inquire().counts.dead_letters, 200);
}

#[test]
fn what_lives_for_hours_is_received() {
    let segment = in_process();
    for ttl in [HOURS, Duration::MAX] {
        let (sender, receiver) =
            segment.channel::<u64>("numbers").policy(Retention::ttl(ttl)).capacity(2).open().unwrap();
        sender.try_send(1).unwrap();
        sender.try_send(2).unwrap();
        assert!(sender.try_send(3).is_err());
        assert_eq!(receiver.drain().map(|message| *message).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(receiver.inquire().counts.expired, 0);
    }
}

// ---- The oldest give way ----

#[test]
fn the_last_are_kept() {
    let segment = in_process();
    let options = || segment.channel::<u64>("readings").policy(Retention::keep_last(3));
    let (sender, receiver) = options().open().unwrap();
    assert_eq!(sender.max_capacity(), 3);
    for number in 0..1000 {
        sender.try_send(number).unwrap();
    }
    within(sender.send(1000)).unwrap();
    assert_eq!(receiver.len(), 3);
    assert_eq!(receiver.drain().map(|message| *message).collect::<Vec<_>>(), [998, 999, 1000]);
    assert_eq!(receiver.inquire().counts.dropped, 998);
    // Permits take up room, and do not give way.
    (0..3).for_each(|number| sender.try_send(number).unwrap());
    let permits = sender.try_reserve_many(2).unwrap();
    assert_eq!(receiver.len(), 1);
    sender.try_send(7).unwrap();
    assert_eq!(receiver.len(), 1);
    let third = sender.try_reserve().unwrap();
    assert_eq!(receiver.len(), 0);
    assert!(matches!(sender.try_send(8), Err(TrySendError::Full(8))));
    drop(permits);
    third.send(9);
    assert_eq!(*receiver.try_recv().unwrap(), 9);
    drop((sender, receiver));
    let (sender, receiver) =
        segment.channel::<u64>("all").capacity(5).policy(Retention::overwrite_oldest()).open().unwrap();
    (0..12).for_each(|number| sender.try_send(number).unwrap());
    assert_eq!(receiver.drain().map(|message| *message).collect::<Vec<_>>(), [7, 8, 9, 10, 11]);
    drop((sender, receiver));
    // More than the default capacity.
    let (sender, receiver) = segment.channel::<u64>("many").policy(Retention::keep_last(3000)).open().unwrap();
    (0..4000).for_each(|number| sender.try_send(number).unwrap());
    assert_eq!((receiver.len(), *receiver.try_recv().unwrap()), (3000, 1000));
    drop((sender, receiver));
    assert_empty(&segment);
}

#[test]
fn the_oldest_of_the_same_level_give_way_and_what_came_back_does_not() {
    let segment = in_process();
    let delivery = Delivery::AtLeastOnce { max_deliveries: 9 };
    let (sender, receiver) = tasks(&segment).delivery(delivery).policy(Retention::keep_last(1)).open().unwrap();
    sender.try_send(task(0, 0)).unwrap();
    let kept = receiver.try_recv().unwrap();
    for number in 1..10 {
        (0..4).for_each(|level| sender.try_send(task(number, level)).unwrap());
    }
    kept.nack();
    assert_eq!(receiver.len(), 5);
    assert_eq!(numbers(&receiver), [0, 9, 9, 9, 9]);
    let counts = receiver.inquire().counts;
    assert_eq!((counts.dropped, counts.discarded), (32, 0));
    drop((sender, receiver));
    assert_empty(&segment);
}

#[test]
fn many_senders_overwrite_at_once_and_nothing_is_lost_uncounted() {
    const EACH: u64 = 20_000;
    let segment = in_process();
    let options = || segment.channel::<u64>("latest").policy(Retention::keep_last(2));
    let (sender, receiver) = options().open().unwrap();
    let received: u64 = thread::scope(|scope| {
        for _ in 0..3 {
            let sender = sender.clone();
            scope.spawn(move || (0..EACH).for_each(|number| sender.try_send(number).unwrap()));
        }
        drop(sender);
        let receivers: Vec<_> = (0..2)
            .map(|_| {
                let receiver = receiver.clone();
                scope.spawn(move || {
                    within(async {
                        let mut received = 0;
                        while receiver.recv().await.is_some() {
                            received += 1;
                        }
                        received
                    })
                })
            })
            .collect();
        receivers.into_iter().map(|receiver| receiver.join().unwrap()).sum()
    });
    assert_eq!(received + receiver.inquire().counts.dropped, 3 * EACH);
    drop(receiver);
    assert_empty(&segment);
}
