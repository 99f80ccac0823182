//! Broadcasts: every group sees every message once and in one order, what it misses is counted, and what is held is kept.

mod common;

use std::{
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use common::{Random, Stamp, assert_empty, in_process, two, within};
use futures::StreamExt;
use waterway::{
    Delivery, OpenError, Segment, TrySendError,
    broadcast::{self, Behind, Published, Subscriber},
    codec::Codec,
    segment::ChannelKind,
};

fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// All that is there now.
fn drain(subscriber: &Subscriber<u64>) -> Vec<u64> {
    std::iter::from_fn(|| subscriber.try_recv().ok()).map(|message| *message).collect()
}

/// Bytes that are published. Nothing may be broken.
fn published(segment: &Segment) -> usize {
    let report = segment.check();
    assert!(report.is_clean(), "{report:?}");
    report.sectors.iter().map(|sector| sector.in_flight_bytes).sum()
}

fn sequences(segment: &Segment) -> impl Fn(&Published<u64>) + '_ {
    move |message| assert_eq!(message.sequence(), **message, "{segment:?}")
}

#[test]
fn every_group_sees_every_message_and_one_member_of_it_handles_it() {
    let (_place, one, other) = two();
    let publisher = one.broadcast::<u64>("prices").publisher().unwrap();
    let alone = other.broadcast::<u64>("prices").subscriber().unwrap();
    let [first, second] =
        [&one, &other].map(|segment| segment.broadcast::<u64>("prices").group("traders").subscriber().unwrap());
    assert_eq!(alone.try_recv().unwrap_err(), broadcast::TryRecvError::Empty);
    for number in 0..100 {
        assert_eq!(publisher.try_send(number).unwrap(), 2);
    }
    assert_eq!((alone.len(), first.len(), second.len()), (100, 100, 100));
    assert_eq!(drain(&alone), (0..100).collect::<Vec<_>>());
    let mut shared = Vec::new();
    while let Ok(message) = if shared.len() % 3 == 0 { &first } else { &second }.try_recv() {
        sequences(&one)(&message);
        assert_eq!((message.delivery_count(), message.sender().is_some()), (1, true));
        shared.push(*message);
    }
    assert_eq!(shared, (0..100).collect::<Vec<_>>());
    assert_eq!(published(&one), 0);
    drop((first, second));
    assert_eq!(publisher.try_send(100).unwrap(), 1);
    drop(publisher);
    assert_eq!(alone.try_recv().unwrap().into_inner(), 100);
    assert_eq!(alone.try_recv().unwrap_err(), broadcast::TryRecvError::Closed);
    assert_eq!(within(alone.recv()).unwrap_err(), broadcast::RecvError::Closed);
    drop(alone);
    assert_empty(&one);
    assert!(one.channels().is_empty());
}

#[test]
fn a_payload_is_written_once_and_freed_when_the_last_group_is_done_with_it() {
    let segment = in_process();
    let publisher = segment.broadcast::<[u8]>("films").publisher().unwrap();
    let groups: Vec<_> = (0..4).map(|_| segment.broadcast::<[u8]>("films").subscriber().unwrap()).collect();
    let film = Stamp { sender: 1, number: 7 }.message(100_000);
    assert_eq!(publisher.try_send(&film).unwrap(), 4);
    let with_one = published(&segment);
    assert!((100_000..200_000).contains(&with_one), "{with_one}");
    let mut messages: Vec<_> = groups.iter().map(|group| group.try_recv().unwrap()).collect();
    assert!(messages.iter().all(|message| message.as_ptr() == messages[0].as_ptr() && **message == film[..]));
    let bytes = messages.pop().unwrap().into_bytes();
    messages.clear();
    assert_eq!(published(&segment), with_one);
    // Messages outlive their subscribers.
    drop((groups, publisher));
    assert!(bytes[..] == film[..]);
    thread::spawn(move || drop(bytes)).join().unwrap();
    assert_empty(&segment);
}

#[test]
fn who_lags_is_told_how_many_it_has_missed_and_goes_on_with_the_oldest() {
    let segment = in_process();
    let (publisher, slow) = segment.broadcast::<u64>("ticks").capacity(8).open().unwrap();
    let quick = segment.broadcast::<u64>("ticks").subscriber().unwrap();
    for number in 0..8 {
        publisher.try_send(number).unwrap();
    }
    assert_eq!(drain(&quick).len(), 8);
    for number in 8..13 {
        publisher.try_send(number).unwrap();
    }
    assert_eq!(slow.try_recv().unwrap_err(), broadcast::TryRecvError::Lagged(5));
    assert_eq!(drain(&slow), (5..13).collect::<Vec<_>>());
    assert_eq!(drain(&quick), (8..13).collect::<Vec<_>>());
    // By many laps, of a group with several members: once.
    let other = slow.clone();
    for number in 13..10_013 {
        publisher.try_send(number).unwrap();
        assert_eq!(*quick.try_recv().unwrap(), number);
    }
    assert_eq!(within(other.recv()).unwrap_err(), broadcast::RecvError::Lagged(9992));
    assert_eq!(drain(&slow), (10_005..10_013).collect::<Vec<_>>());
    assert_eq!(other.try_recv().unwrap_err(), broadcast::TryRecvError::Empty);
    drop((publisher, slow, quick, other));
    assert_empty(&segment);
}

#[test]
fn what_somebody_holds_stays_and_stops_no_publisher() {
    let segment = in_process();
    let (publisher, slow) = segment.broadcast::<u64>("ticks").capacity(4).open().unwrap();
    let blocking = segment.broadcast::<u64>("ticks").group("all").behind(Behind::Block).subscriber().unwrap();
    let mut kept = Vec::new();
    let mut seen = Vec::new();
    let mut missed = 0;
    for number in 0..2000 {
        publisher.try_send(number).unwrap();
        if number % 97 == 0 {
            // Of the first cells of many laps.
            match slow.try_recv() {
                Ok(message) => kept.push((*message, message)),
                Err(broadcast::TryRecvError::Lagged(count)) => {
                    missed += count;
                    let message = slow.try_recv().unwrap();
                    kept.push((*message, message));
                }
                Err(error) => panic!("{error}"),
            }
        }
        seen.push(*blocking.try_recv().unwrap());
    }
    assert_eq!(seen, (0..2000).collect::<Vec<_>>());
    assert!(kept.len() == 21 && kept.iter().all(|(number, message)| **message == *number));
    while let Err(broadcast::TryRecvError::Lagged(count)) =
        slow.try_recv().map(|message| kept.push((*message, message)))
    {
        missed += count;
    }
    let rest = drain(&slow).len() as u64;
    assert_eq!(missed + kept.len() as u64 + rest, 2000);
    assert!(segment.check().is_clean());
    drop(kept);
    assert_eq!(published(&segment), 0);
    drop((publisher, slow, blocking));
    assert_empty(&segment);
}

#[test]
fn publishers_wait_for_a_group_that_blocks() {
    let segment = in_process();
    let (publisher, lagging) = segment.broadcast::<u64>("jobs").capacity(3).open().unwrap();
    let blocking = segment.broadcast::<u64>("jobs").group("all").behind(Behind::Block).subscriber().unwrap();
    for number in 0..3 {
        publisher.try_send(number).unwrap();
    }
    assert!(matches!(publisher.try_send(3), Err(TrySendError::Full(3))));
    let timed = within(publisher.send_timeout(3, Duration::from_millis(5)));
    assert!(timed.unwrap_err().is_timeout());
    {
        let mut sending = pin!(publisher.send(3));
        assert!(poll(sending.as_mut()).is_pending());
        // Taken is enough.
        let message = blocking.try_recv().unwrap();
        assert_eq!(within(sending).unwrap(), 2);
        assert_eq!(*message, 0);
    }
    // A waiting publisher goes on when the group does, or leaves.
    let waiting = thread::spawn({
        let publisher = publisher.clone();
        move || (4..10).try_for_each(|number| publisher.blocking_send(number).map(drop))
    });
    for number in 1..5 {
        assert_eq!(*within(blocking.recv()).unwrap(), number);
    }
    drop(blocking);
    waiting.join().unwrap().unwrap();
    assert_eq!(lagging.try_recv().unwrap_err(), broadcast::TryRecvError::Lagged(7));
    assert_eq!(drain(&lagging), [7, 8, 9]);
    drop((publisher, lagging));
    assert_empty(&segment);
}

#[test]
fn a_publisher_that_is_refused_has_taken_nothing_from_anybody() {
    // Whatever refuses it, and in whichever order the groups came.
    for lagging_first in [true, false] {
        let segment = in_process();
        let publisher = segment.broadcast::<u64>("ticks").capacity(4).publisher().unwrap();
        let join = |behind| segment.broadcast::<u64>("ticks").only().behind(behind).subscriber().unwrap();
        let early = lagging_first.then(|| join(Behind::Lag));
        let blocking = join(Behind::Block);
        let lagging = early.unwrap_or_else(|| join(Behind::Lag));
        let patient = join(Behind::Evict(Duration::from_secs(3600)));
        for number in 0..4 {
            publisher.try_send(number).unwrap();
        }
        assert!(publisher.try_send(4).unwrap_err().is_full());
        assert!(within(publisher.send_timeout(4, Duration::from_millis(10))).is_err());
        assert_eq!(drain(&blocking), [0, 1, 2, 3]);
        assert!(publisher.try_send(4).unwrap_err().is_full());
        assert_eq!((lagging.len(), drain(&lagging)), (4, vec![0, 1, 2, 3]));
        assert_eq!(drain(&patient), [0, 1, 2, 3]);
        assert_eq!(publisher.try_send(4).unwrap(), 3);
    }
}

#[test]
fn a_publisher_that_finds_a_held_cell_and_then_no_room_has_taken_nothing() {
    let segment = in_process();
    let publisher = segment.broadcast::<u64>("ticks").capacity(4).publisher().unwrap();
    let lagging = segment.broadcast::<u64>("ticks").subscriber().unwrap();
    let blocking = segment.broadcast::<u64>("ticks").only().behind(Behind::Block).subscriber().unwrap();
    publisher.try_send(0).unwrap();
    let (held, _) = (lagging.try_recv().unwrap(), blocking.try_recv().unwrap());
    let mut last = 0;
    while last < 255 {
        publisher.try_send(last + 1).unwrap();
        last = blocking.try_recv().unwrap().sequence();
        if last < 252 {
            drop(lagging.try_recv().unwrap());
        }
    }
    // The next cell is held, and the one after it has room only when 253 goes, which nobody keeps.
    assert_eq!(publisher.try_send(257).unwrap(), 2);
    assert_eq!(blocking.try_recv().unwrap().sequence(), 257);
    assert_eq!(lagging.try_recv().unwrap_err(), broadcast::TryRecvError::Lagged(2));
    assert_eq!(drain(&lagging), [254, 255, 257]);
    drop(held);
    // The same, with somebody who keeps what is in the way.
    let held = (publisher.try_send(258).unwrap(), lagging.try_recv().unwrap(), blocking.try_recv().unwrap());
    for number in 259..513 {
        publisher.try_send(number).unwrap();
        if number < 510 {
            drop(lagging.try_recv().unwrap());
        }
        if number < 511 {
            drop(blocking.try_recv().unwrap());
        }
    }
    publisher.try_send(513).unwrap();
    assert_eq!((lagging.len(), blocking.len()), (4, 3));
    // 514 is held, and 515 keeps 511, which one of them has not taken.
    assert!(publisher.try_send(515).unwrap_err().is_full());
    assert_eq!(drain(&lagging), [510, 511, 512, 513]);
    assert_eq!(drain(&blocking), [511, 512, 513]);
    assert_eq!(publisher.try_send(515).unwrap(), 2);
    assert_eq!(lagging.try_recv().unwrap().sequence(), 515);
    drop(held);
}

/// Words that cannot be written once they are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unwritable(bool);

impl Codec<Unwritable> for Unwritable {
    const NAME: &'static str = "unwritable";
    type Error = std::io::Error;

    fn encode<W: std::io::Write>(_: &Unwritable, mut to: W) -> Result<(), std::io::Error> {
        to.write_all(&[1])
    }

    fn encode_into(value: &Unwritable, to: &mut [u8]) -> Result<usize, std::io::Error> {
        to[0] = 1;
        if value.0 { Err(std::io::ErrorKind::Other.into()) } else { Ok(1) }
    }

    fn decode(_: &[u8]) -> Result<Unwritable, std::io::Error> {
        Ok(Unwritable(false))
    }
}

#[test]
fn a_capacity_is_exact_and_what_was_missed_does_not_wait() {
    let segment = in_process();
    for capacity in [1, 3, 5, 300] {
        let name = format!("b{capacity}");
        let (publisher, subscriber) = segment.broadcast::<u64>(&name).capacity(capacity).open().unwrap();
        let last = capacity as u64 + 6;
        (0..=last).for_each(|number| assert_eq!(publisher.try_send(number).unwrap(), 1));
        assert_eq!(subscriber.len(), capacity);
        assert_eq!(subscriber.try_recv().unwrap_err(), broadcast::TryRecvError::Lagged(7));
        assert_eq!(drain(&subscriber), Vec::from_iter(7..=last));
    }
}

#[test]
fn a_publisher_that_cannot_write_its_message_or_has_no_memory_for_it_has_taken_nothing() {
    let segment = in_process();
    let words = || segment.broadcast::<Unwritable>("words").capacity(2).codec::<Unwritable>();
    let (publisher, lagging) = words().open().unwrap();
    for _ in 0..2 {
        publisher.try_send(Unwritable(false)).unwrap();
    }
    publisher.try_send(Unwritable(true)).unwrap_err();
    assert_eq!(lagging.len(), 2);
    assert_eq!(lagging.try_recv().unwrap().sequence(), 0);
    // All memory is with somebody else.
    let segment = in_process();
    let (publisher, lagging) = segment.broadcast::<[u8]>("films").capacity(4).open().unwrap();
    for number in 0..4 {
        publisher.try_send([number; 64]).unwrap();
    }
    let (sender, _receiver) = segment.channel::<[u8]>("hoard").capacity(1 << 12).open().unwrap();
    for size in [1 << 19, 1 << 16, 1 << 13] {
        while sender.try_send(vec![0; size]).is_ok() {}
    }
    let error = publisher.try_send(vec![4; 1 << 20]).unwrap_err();
    assert!(matches!(error, TrySendError::OutOfMemory(_)), "{error}");
    assert_eq!(lagging.len(), 4);
    assert_eq!(lagging.try_recv().unwrap()[0], 0);
}

#[test]
fn a_group_that_is_behind_for_too_long_is_put_out() {
    let segment = in_process();
    let publisher = segment.broadcast::<u64>("jobs").capacity(2).publisher().unwrap();
    let evicting = Behind::Evict(Duration::from_millis(20));
    let group = || segment.broadcast::<u64>("jobs").group("slow").behind(evicting).persistent(true).subscriber();
    let (slow, other) = (group().unwrap(), group().unwrap());
    publisher.try_send(0).unwrap();
    publisher.try_send(1).unwrap();
    assert!(publisher.try_send(2).unwrap_err().is_full());
    let held_by_slow = slow.try_recv().unwrap();
    // It has made room, and has its time anew.
    publisher.try_send(2).unwrap();
    assert!(publisher.try_send(3).unwrap_err().is_full());
    assert_eq!(within(publisher.send(3)).unwrap(), 0);
    assert_eq!(slow.try_recv().unwrap_err(), broadcast::TryRecvError::Evicted);
    assert_eq!(within(other.recv()).unwrap_err(), broadcast::RecvError::Evicted);
    assert_eq!(*held_by_slow, 0);
    assert_eq!(published(&segment), 64);
    drop((slow, other));
    // It is gone, though it was persistent; a new one has its name.
    assert!(segment.channels().iter().all(|channel| channel.kind != ChannelKind::Group));
    let again = group().unwrap();
    publisher.try_send(4).unwrap();
    assert_eq!(*again.try_recv().unwrap(), 4);
    drop(held_by_slow);
    assert_eq!(published(&segment), 0);
}

#[test]
fn who_waits_for_a_group_that_is_put_out_goes_on() {
    let segment = in_process();
    let publisher = segment.broadcast::<u64>("jobs").capacity(2).publisher().unwrap();
    let evicting = Behind::Evict(Duration::from_millis(30));
    let slow = segment.broadcast::<u64>("jobs").group("slow").behind(evicting).subscriber().unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| (0..5).try_for_each(|number| publisher.blocking_send(number).map(|_| ())).unwrap());
        }
    });
    assert_eq!(within(slow.recv()).unwrap_err(), broadcast::RecvError::Evicted);
}

#[test]
fn who_comes_late_gets_the_latest_messages() {
    let segment = in_process();
    let prices = || segment.broadcast::<u64>("prices").history(5);
    let publisher = prices().capacity(10).publisher().unwrap();
    for number in 0..100 {
        assert_eq!(publisher.try_send(number).unwrap(), 0);
    }
    assert_eq!(published(&segment), 5 * 64);
    let all = prices().only().history(50).subscriber().unwrap();
    let some = prices().only().history(2).subscriber().unwrap();
    let none = prices().subscriber().unwrap();
    assert_eq!((all.len(), some.len(), none.len()), (5, 2, 0));
    publisher.try_send(100).unwrap();
    assert_eq!(drain(&all), (95..101).collect::<Vec<_>>());
    assert_eq!(drain(&some), (98..101).collect::<Vec<_>>());
    assert_eq!(drain(&none), [100]);
    assert_eq!(published(&segment), 5 * 64);
    // Also if there is no more room than that.
    let publisher = segment.broadcast::<u64>("brief").history(3).capacity(3).publisher().unwrap();
    (0..10).for_each(|number| assert_eq!(publisher.try_send(number).unwrap(), 0));
    let late = segment.broadcast::<u64>("brief").only().history(3).subscriber().unwrap();
    assert_eq!(drain(&late), [7, 8, 9]);
    publisher.try_send(10).unwrap();
    assert_eq!(drain(&late), [10]);
    drop((publisher, late, all, some, none));
}

#[test]
fn what_is_given_back_comes_again_to_the_same_group_and_not_for_ever() {
    let segment = in_process();
    let publisher = segment.broadcast::<u64>("jobs").capacity(4).publisher().unwrap();
    let at_least_once = Delivery::AtLeastOnce { max_deliveries: 3 };
    let workers = segment.broadcast::<u64>("jobs").group("workers").delivery(at_least_once).subscriber().unwrap();
    let other = segment.broadcast::<u64>("jobs").subscriber().unwrap();
    (0..3).for_each(|number| assert_eq!(publisher.try_send(number).unwrap(), 2));
    let (first, second) = (workers.try_recv().unwrap(), workers.try_recv().unwrap());
    second.nack();
    first.nack();
    // The oldest first, and ahead of what nobody has had.
    for (number, count) in [(0, 2), (1, 2), (2, 1)] {
        let message = workers.try_recv().unwrap();
        assert_eq!((*message, message.delivery_count(), message.sequence()), (number, count, number));
        if number == 0 {
            message.nack();
            let message = workers.try_recv().unwrap();
            assert_eq!((*message, message.delivery_count(), workers.discarded()), (0, 3, 0));
            message.nack();
            assert_eq!(workers.discarded(), 1);
        }
    }
    // By a panic.
    publisher.try_send(3).unwrap();
    let message = workers.try_recv().unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _message = message;
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(panicked.is_err());
    assert_eq!(workers.try_recv().unwrap().delivery_count(), 2);
    assert_eq!(drain(&other), [0, 1, 2, 3]);
    // One that came back stays, however far publishers go on.
    publisher.try_send(4).unwrap();
    let message = workers.try_recv().unwrap();
    message.nack();
    (5..1000).for_each(|number| assert_eq!(publisher.try_send(number).unwrap(), 2));
    let message = workers.try_recv().unwrap();
    assert_eq!((*message, message.delivery_count()), (4, 2));
    assert_eq!(workers.try_recv().unwrap_err(), broadcast::TryRecvError::Lagged(991));
    // What is at most once does not come back.
    assert_eq!(other.try_recv().unwrap_err(), broadcast::TryRecvError::Lagged(992));
    other.try_recv().unwrap().nack();
    assert_eq!(*other.try_recv().unwrap(), 997);
    drop((publisher, workers, other, message));
    assert_empty(&segment);
}

#[test]
fn a_persistent_group_keeps_its_messages_while_nobody_is_there() {
    let segment = in_process();
    let publisher = segment.broadcast::<u64>("jobs").capacity(4).publisher().unwrap();
    let workers = |name| segment.broadcast::<u64>("jobs").group(name).persistent(true);
    drop(workers("lagging").subscriber().unwrap());
    (0..6).for_each(|number| assert_eq!(publisher.try_send(number).unwrap(), 1));
    let lagging = workers("lagging").subscriber().unwrap();
    assert_eq!(lagging.try_recv().unwrap_err(), broadcast::TryRecvError::Lagged(2));
    assert_eq!(*lagging.try_recv().unwrap(), 2);
    drop(lagging);
    drop(workers("blocking").behind(Behind::Block).subscriber().unwrap());
    (6..10).for_each(|number| assert_eq!(publisher.try_send(number).unwrap(), 2));
    assert!(publisher.try_send(10).unwrap_err().is_full());
    // The broadcast, too.
    drop(publisher);
    let publisher = segment.broadcast::<u64>("jobs").publisher().unwrap();
    assert!(publisher.try_send(10).unwrap_err().is_full());
    assert_eq!(drain(&workers("blocking").subscriber().unwrap()), [6, 7, 8, 9]);
    assert_eq!(publisher.try_send(10).unwrap(), 2);
}

#[test]
fn a_group_that_is_refused_leaves_nothing() {
    let segment = Segment::options().size(4 << 20).channels(12).in_process().unwrap();
    let (publisher, _first) = segment.broadcast::<u64>("jobs").max_groups(1).open().unwrap();
    let there = segment.channels().len();
    for number in 0..100 {
        let group = format!("workers-{number}");
        let error = segment.broadcast::<u64>("jobs").group(&group).persistent(true).subscriber().unwrap_err();
        assert!(error.to_string().contains("1 groups"), "{error}");
        assert_eq!(segment.channels().len(), there);
    }
    // Nor is the broadcast kept by what was no group.
    let wrong = segment.broadcast::<u64>("jobs").group("a@b").persistent(true).subscriber();
    assert!(matches!(wrong, Err(OpenError::InvalidName { .. })));
    drop((publisher, _first));
    assert!(segment.channels().is_empty());
    let (publisher, group) = {
        let jobs = || segment.broadcast::<u64>("jobs");
        (jobs().publisher().unwrap(), jobs().group("workers").behind(Behind::Lag).subscriber().unwrap())
    };
    let workers = segment.broadcast::<u64>("jobs").group("workers").behind(Behind::Block).persistent(true);
    assert!(matches!(workers.subscriber(), Err(OpenError::Mismatch { .. })));
    drop((publisher, group));
    assert!(segment.channels().is_empty());
    assert_empty(&segment);
}

#[test]
fn a_broadcast_lives_as_long_as_a_persistent_group_of_it() {
    let segment = in_process();
    let jobs = || segment.broadcast::<u64>("jobs").capacity(2).max_groups(2);
    let evicting = Behind::Evict(Duration::from_millis(1));
    drop(jobs().group("first").behind(evicting).persistent(true).subscriber().unwrap());
    assert_eq!(segment.channels().len(), 2);
    // It was no persistent one, and is one now.
    let second = jobs().group("second").behind(evicting).subscriber().unwrap();
    drop(jobs().group("second").persistent(true).subscriber().unwrap());
    drop(second);
    assert_eq!(segment.channels().len(), 3);
    let publisher = jobs().publisher().unwrap();
    for number in 0..3 {
        within(publisher.send(number)).unwrap();
    }
    assert_eq!(publisher.group_count(), 0);
    drop(publisher);
    assert!(segment.channels().is_empty(), "{:?}", segment.channels());
    assert_empty(&segment);
}

#[test]
fn memory_that_only_waits_for_who_may_miss_it_gives_way() {
    let segment = in_process();
    let (publisher, lagging) = segment.broadcast::<[u8]>("films").open().unwrap();
    for number in 0..200 {
        assert_eq!(publisher.try_send(vec![number as u8; 200_000]).unwrap(), 1, "message {number}");
    }
    let Err(broadcast::TryRecvError::Lagged(missed)) = lagging.try_recv() else { panic!("it has missed nothing") };
    let mut rest = 0;
    while let Ok(message) = lagging.try_recv() {
        assert!(message.iter().all(|byte| *byte == (missed + rest) as u8));
        rest += 1;
    }
    assert_eq!(missed + rest, 200);
    // But not what somebody waits for.
    let blocking = segment.broadcast::<[u8]>("films").group("all").behind(Behind::Block).subscriber().unwrap();
    let mut sent = 0;
    while publisher.try_send(vec![1; 200_000]).is_ok() {
        sent += 1;
    }
    let sending = thread::spawn(move || publisher.blocking_send(vec![1; 200_000]).map_err(|error| error.kind()));
    let mut received = 0;
    while let Ok(message) = blocking.blocking_recv() {
        assert!(message.iter().all(|byte| *byte == 1));
        received += 1;
    }
    assert_eq!(sending.join().unwrap(), Ok(2));
    assert_eq!(received, sent + 1);
    drop((lagging, blocking));
    assert_empty(&segment);
}

#[test]
fn waiting_subscribers_are_woken_in_all_groups() {
    let (_place, one, other) = two();
    let publisher = one.broadcast::<u64>("ticks").publisher().unwrap();
    let subscribers: Vec<_> = (0..3)
        .flat_map(|group| {
            [&one, &other]
                .map(|segment| segment.broadcast::<u64>("ticks").group(&format!("{group}")).subscriber().unwrap())
        })
        .collect();
    let sums: [AtomicUsize; 6] = Default::default();
    thread::scope(|scope| {
        for (subscriber, sum) in subscribers.iter().zip(&sums) {
            scope.spawn(|| {
                loop {
                    match subscriber.blocking_recv() {
                        Ok(message) => sum.fetch_add(*message as usize, Ordering::Relaxed),
                        Err(broadcast::RecvError::Closed) => break,
                        Err(error) => panic!("{error}"),
                    };
                }
            });
        }
        let mut random = Random::new(7);
        for number in 1..=200 {
            if random.below(10) == 0 {
                thread::sleep(Duration::from_millis(1));
            }
            publisher.try_send(number).unwrap();
        }
        drop(publisher);
    });
    let sums = sums.map(AtomicUsize::into_inner);
    assert_eq!([sums[0] + sums[1], sums[2] + sums[3], sums[4] + sums[5]], [20_100; 3]);
    drop(subscribers);
    assert_empty(&one);
}

#[test]
fn receiving_can_be_cancelled_and_timed_and_is_a_stream() {
    let segment = in_process();
    let (publisher, subscriber) = segment.broadcast::<u64>("ticks").open().unwrap();
    {
        let mut receiving = pin!(subscriber.recv());
        assert!(poll(receiving.as_mut()).is_pending());
        publisher.try_send(1).unwrap();
    }
    assert_eq!(*within(subscriber.recv_timeout(Duration::from_secs(60))).unwrap(), 1);
    let timed = within(subscriber.recv_timeout(Duration::from_millis(2)));
    assert_eq!(timed.unwrap_err(), broadcast::RecvTimeoutError::Timeout);
    let waiting = thread::spawn(move || {
        smol::block_on(subscriber.into_stream().map(|message| message.map(|message| *message)).collect::<Vec<_>>())
    });
    (0..20).for_each(|number| assert_eq!(publisher.try_send(number).unwrap(), 1));
    drop(publisher);
    assert_eq!(waiting.join().unwrap(), (0..20).map(Ok).collect::<Vec<_>>());
    assert_empty(&segment);
}

#[cfg(feature = "json")]
#[test]
fn a_codec_writes_what_is_not_plain() {
    let segment = in_process();
    let words = || segment.broadcast::<Vec<String>>("words").codec::<waterway::codec::Json>();
    let (publisher, subscriber) = words().open().unwrap();
    publisher.try_send(vec!["one".into(), "two".into()]).unwrap();
    let message = subscriber.try_recv().unwrap();
    assert_eq!(message.as_ref(), br#"["one","two"]"#);
    assert_eq!(message.decode().unwrap(), ["one", "two"]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let segment = in_process();
    let (publisher, subscriber) = segment.broadcast::<u64>("ticks").capacity(4).max_groups(2).open().unwrap();
    let _second = segment.broadcast::<u64>("ticks").group("g").subscriber().unwrap();
    let error = segment.broadcast::<u64>("ticks").subscriber().unwrap_err();
    assert!(error.to_string().contains("2 groups"), "{error}");
    drop(subscriber);
    let _third = segment.broadcast::<u64>("ticks").subscriber().unwrap();
    let mismatches = [
        segment.broadcast::<u32>("ticks").publisher().map(drop),
        segment.broadcast::<u64>("ticks").capacity(5).publisher().map(drop),
        segment.broadcast::<u64>("ticks").history(1).publisher().map(drop),
        segment.broadcast::<u64>("ticks").max_groups(3).publisher().map(drop),
        segment.broadcast::<u64>("ticks").group("g").behind(Behind::Block).subscriber().map(drop),
        segment.channel::<u64>("ticks").sender().map(drop),
        segment.watch::<u64>("ticks").sender().map(drop),
    ];
    for mismatch in mismatches {
        let error = mismatch.unwrap_err();
        assert!(matches!(error, OpenError::Mismatch { .. }), "{error}");
        println!("{error}");
    }
    segment.broadcast::<u64>("ticks").history(0).capacity(4).max_groups(2).publisher().unwrap();
    segment.broadcast::<u64>("ticks").group("g").behind(Behind::Lag).subscriber().unwrap();
    let invalid = [
        segment.broadcast::<u64>("a").capacity(0).publisher().map(drop),
        segment.broadcast::<u64>("a").capacity(3).history(4).publisher().map(drop),
        segment.broadcast::<u64>("a").max_groups(65).publisher().map(drop),
        segment.broadcast::<u64>("a").group("g").behind(Behind::Evict(Duration::ZERO)).subscriber().map(drop),
        segment
            .broadcast::<u64>("a")
            .only()
            .delivery(Delivery::AtLeastOnce { max_deliveries: 0 })
            .subscriber()
            .map(drop),
        segment
            .broadcast::<u64>("a")
            .only()
            .delivery(Delivery::AtLeastOnce { max_deliveries: 256 })
            .subscriber()
            .map(drop),
    ];
    for invalid in invalid {
        let error = invalid.unwrap_err();
        assert!(matches!(error, OpenError::InvalidOptions(_)), "{error}");
    }
    for name in ["", "a@b", &"x".repeat(91)] {
        let error = segment.broadcast::<u64>(name).publisher().unwrap_err();
        assert!(matches!(error, OpenError::InvalidName { .. }), "{error}");
    }
    assert!(matches!(segment.broadcast::<u64>("a").group("a@b").subscriber(), Err(OpenError::InvalidName { .. })));
    assert_eq!(publisher.group_count(), 2);
    assert_eq!(publisher.max_capacity(), 4);
}

/// Groups with several members and publishers on threads, and messages of all lengths: all groups see all, in one order.
#[test]
fn all_groups_see_the_same_order() {
    const EACH: u64 = 3000;
    let (_place, one, other) = two();
    let group = |segment: &Segment, name: &str| {
        segment.broadcast::<[u8]>("stamps").capacity(16).group(name).behind(Behind::Block).subscriber().unwrap()
    };
    let members = [group(&one, "a"), group(&other, "a"), group(&other, "b"), group(&one, "c"), group(&one, "c")];
    let publishers = [&one, &other].map(|segment| segment.broadcast::<[u8]>("stamps").publisher().unwrap());
    let seen: Vec<Vec<(u64, Stamp)>> = thread::scope(|scope| {
        let receiving: Vec<_> = members
            .iter()
            .map(|member| {
                scope.spawn(move || {
                    let mut seen = Vec::new();
                    let mut random = Random::new(seen.len() as u64 + 3);
                    let mut kept = Vec::new();
                    loop {
                        match member.blocking_recv() {
                            Ok(message) => {
                                seen.push((message.sequence(), Stamp::verify(&message).unwrap()));
                                kept.push(message);
                                if random.below(4) == 0 {
                                    kept.clear();
                                }
                            }
                            Err(broadcast::RecvError::Closed) => return seen,
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
            })
            .collect();
        for (sender, publisher) in publishers.into_iter().enumerate() {
            scope.spawn(move || {
                let mut random = Random::new(sender as u64);
                for number in 0..EACH {
                    let message = Stamp { sender: sender as u32, number }.message(1 + random.below(300));
                    publisher.blocking_send(message).unwrap();
                }
            });
        }
        receiving.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let of = |members: &[usize]| {
        let mut all: Vec<_> = members.iter().flat_map(|member| seen[*member].clone()).collect();
        for member in members {
            assert!(seen[*member].is_sorted_by_key(|(sequence, _)| *sequence));
        }
        all.sort_by_key(|(sequence, _)| *sequence);
        all
    };
    let all = of(&[2]);
    for members in [&[0, 1], &[3, 4]] {
        let theirs = of(members);
        let differ = |(one, other): &(&_, &_)| one != other;
        assert!(all == theirs, "{} {} {:?}", all.len(), theirs.len(), all.iter().zip(&theirs).find(differ));
    }
    assert!(all.is_sorted_by(|(one, _), (other, _)| one < other));
    for sender in 0..2 {
        assert!(all.iter().filter(|(_, stamp)| stamp.sender == sender).map(|(_, stamp)| stamp.number).eq(0..EACH));
    }
    drop(members);
    assert_empty(&one);
}
