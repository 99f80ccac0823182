//! Routing by key and by rule, in one process and between two participants. What deaths do to it is in `routing_deaths.rs`.

mod common;

use std::{
    collections::HashMap,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use common::{Place, assert_empty, eventually, in_process, role, two, wait_until_ready, within};
use futures::StreamExt;
use waterway::{
    Delivery, OpenError, Segment, TryRecvError,
    policy::{ByMessage, Policy, Priority, RouteKey},
    routing::{self, Route},
    segment::ChannelKind,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The `number`-th message of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Order {
    key: u64,
    number: u64,
}

impl Policy for Order {
    fn route(&self) -> RouteKey {
        if self.key == u64::MAX { RouteKey::default() } else { self.key.into() }
    }
}

const NO_KEY: u64 = u64::MAX;
const AT_LEAST_ONCE: Delivery = Delivery::AtLeastOnce { max_deliveries: 100 };

fn orders(segment: &Segment) -> routing::Options<Order> {
    segment.channel::<Order>("orders").delivery(AT_LEAST_ONCE).routed()
}

/// A key of each partition.
fn key_of_each(sender: &routing::Sender<Order>) -> Vec<u64> {
    let of = |partition| (0..).find(|key: &u64| sender.partition_of((*key).into()) == Some(partition)).unwrap();
    (0..sender.partition_count()).map(of).collect()
}

/// Asks receivers, of which nobody has sent a message to, until each has so many partitions.
fn settle(receivers: &[&routing::Receiver<Order>], shares: &[usize]) {
    eventually("each has its share", || {
        let mut have: Vec<usize> = Vec::new();
        for receiver in receivers {
            assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
            have.push(receiver.partitions().len());
        }
        have.sort_unstable();
        have == shares
    });
    let mut all: Vec<usize> = receivers.iter().flat_map(|receiver| receiver.partitions()).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), shares.iter().sum::<usize>(), "two have the same partition");
}

#[test]
fn messages_of_a_key_are_in_one_partition_and_in_their_order() {
    let segment = in_process();
    let (sender, receiver) = orders(&segment).open().unwrap();
    assert_eq!((sender.partition_count(), receiver.partition_count()), (16, 16));
    for number in 0..50 {
        (0..40).for_each(|key| sender.try_send(Order { key, number }).unwrap());
    }
    assert_eq!((sender.len(), receiver.len()), (2000, 2000));
    let mut next = HashMap::<u64, u64>::new();
    for _ in 0..2000 {
        let order = receiver.try_recv().unwrap();
        assert_eq!(sender.partition_of(order.key.into()), Some(order.partition()));
        assert_eq!(order.number, *next.entry(order.key).and_modify(|next| *next += 1).or_insert(0));
        assert_eq!(order.delivery_count(), 1);
    }
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
    assert_eq!(receiver.partitions(), (0..16).collect::<Vec<_>>());
    drop((sender, receiver));
    assert_empty(&segment);
    assert!(segment.channels().is_empty());
}

#[test]
fn many_keys_are_spread_over_the_partitions_and_no_key_goes_round() {
    let segment = in_process();
    let (sender, receiver) = orders(&segment).partitions(8).open().unwrap();
    for make in [|key: u64| RouteKey::from(key), |key| RouteKey::from(format!("customer {key}").as_str())] {
        let mut keys = [0; 8];
        (0..8000).for_each(|key| keys[sender.partition_of(make(key)).unwrap()] += 1);
        assert!(keys.iter().all(|count| (700..1300).contains(count)), "{keys:?}");
    }
    assert_eq!(RouteKey::from(7_u32), RouteKey::from(7_u64));
    assert_eq!(RouteKey::from("a"), RouteKey::from(&b"a"[..]));
    assert!(sender.partition_of(RouteKey::default()).is_none());
    (0..80).for_each(|number| sender.try_send(Order { key: NO_KEY, number }).unwrap());
    let mut counts = [0; 8];
    (0..80).for_each(|_| counts[receiver.try_recv().unwrap().partition()] += 1);
    assert_eq!(counts, [10; 8]);
}

#[test]
fn a_message_without_a_key_goes_where_there_is_room() {
    let segment = in_process();
    let (sender, receiver) = orders(&segment).partitions(2).capacity(4).open().unwrap();
    let full = key_of_each(&sender)[0];
    (0..4).for_each(|number| sender.try_send(Order { key: full, number }).unwrap());
    assert!(sender.try_send(Order { key: full, number: 4 }).unwrap_err().is_full());
    (0..4).for_each(|number| sender.try_send(Order { key: NO_KEY, number }).unwrap());
    assert!(sender.try_send(Order { key: NO_KEY, number: 4 }).unwrap_err().is_full());
    let waiting = thread::spawn(move || sender.blocking_send(Order { key: NO_KEY, number: 4 }));
    for _ in 0..9 {
        receiver.blocking_recv().unwrap();
    }
    waiting.join().unwrap().unwrap();
}

#[test]
fn who_sends_without_a_key_waits_for_room_in_any_partition() {
    let segment = in_process();
    let options = || segment.channel::<Order>("orders").capacity(1).routed().partitions(2);
    let ((sender, one), other) = (options().open().unwrap(), options().receiver().unwrap());
    settle(&[&one, &other], &[1, 1]);
    let order = |number| Order { key: NO_KEY, number };
    // In turn, so that each of them begins at each of the partitions.
    for (number, reader) in (0..8).zip([&one, &one, &other, &other].into_iter().cycle()) {
        while sender.try_send(order(number)).is_ok() {}
        let (received, sent) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let outcome = match number % 3 {
                    0 => within(sender.send(order(100))).map_err(|error| error.to_string()),
                    1 => sender.blocking_send(order(100)).map_err(|error| error.to_string()),
                    _ => within(sender.send_timeout(order(100), common::PATIENCE)).map_err(|error| error.to_string()),
                };
                sent.store(1, Ordering::SeqCst);
                outcome
            });
            // Long enough to sleep, most times.
            thread::sleep(Duration::from_millis(20));
            assert_eq!(sent.load(Ordering::SeqCst), 0);
            received.fetch_add(reader.try_recv().map(|_| 1).unwrap(), Ordering::SeqCst);
            sending.join().unwrap().unwrap();
        });
        assert_eq!((received.into_inner(), sender.len()), (1, 2));
    }
    assert!(within(sender.send_timeout(order(1), Duration::from_millis(10))).is_err());
    // And hears of the end.
    thread::scope(|scope| {
        let sending = scope.spawn(|| sender.blocking_send(order(2)));
        thread::sleep(Duration::from_millis(20));
        one.close();
        assert!(sending.join().unwrap().is_err());
    });
}

/// One that says how urgent it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Urgent(Order);

impl Policy for Urgent {
    fn route(&self) -> RouteKey {
        self.0.route()
    }

    fn priority(&self) -> Priority {
        [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent][self.0.number as usize % 4]
    }
}

#[test]
fn a_routed_channel_with_priorities_keeps_the_order_of_a_key_in_each_of_them() {
    for delivery in [Delivery::AtMostOnce, AT_LEAST_ONCE] {
        let segment = in_process();
        let options =
            || segment.channel::<Urgent>("orders").policy(ByMessage).delivery(delivery).routed().partitions(3);
        let (sender, receiver) = options().open().unwrap();
        for number in 0..90 {
            sender.try_send(Urgent(Order { key: number % 9, number })).unwrap();
        }
        assert_eq!((sender.len(), receiver.len()), (90, 90));
        let mut last = HashMap::new();
        let mut came: Vec<u64> = Vec::new();
        while let Ok(Urgent(order)) = receiver.try_recv().map(|message| *message) {
            let before = last.insert((order.key, order.number % 4), order.number);
            assert!(before < Some(order.number), "{order:?} after {before:?}");
            came.push(order.number);
        }
        came.sort_unstable();
        assert_eq!(came, (0..90).collect::<Vec<_>>());
        // What waits in any level keeps the end away, and what is awaited comes.
        for number in 0..4 {
            sender.try_send(Urgent(Order { key: 1, number })).unwrap();
        }
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(20));
                drop(sender);
            });
            let rest: Vec<u64> =
                std::iter::from_fn(|| receiver.blocking_recv()).map(|message| message.0.number).collect();
            assert_eq!(rest, [3, 2, 1, 0]);
        });
        assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Disconnected);
        drop(receiver);
        assert_empty(&segment);
    }
}

#[test]
fn what_came_back_with_priorities_comes_in_its_old_order_to_whoever_has_the_partition_next() {
    let segment = in_process();
    let options =
        || segment.channel::<Urgent>("orders").policy(ByMessage).delivery(AT_LEAST_ONCE).routed().partitions(1);
    let (sender, receiver) = options().open().unwrap();
    for number in 0..12 {
        sender.try_send(Urgent(Order { key: 1, number })).unwrap();
    }
    let mut held: Vec<_> = std::iter::from_fn(|| receiver.try_recv().ok()).collect();
    let order: Vec<u64> = held.iter().map(|message| message.0.number).collect();
    assert_eq!(order, [3, 7, 11, 2, 6, 10, 1, 5, 9, 0, 4, 8]);
    // One after the other, the last one first.
    let next = options().receiver().unwrap();
    drop(receiver);
    while let Some(message) = held.pop() {
        assert!(next.try_recv().is_err());
        message.nack();
    }
    let again: Vec<_> = std::iter::from_fn(|| next.try_recv().ok()).collect();
    assert!(again.iter().all(|message| message.delivery_count() == 2));
    assert_eq!(again.iter().map(|message| message.0.number).collect::<Vec<_>>(), order);
}

#[test]
fn every_receiver_has_its_share_as_they_come_and_go() {
    let (_place, one, other) = two();
    let (sender, first) = orders(&one).open().unwrap();
    settle(&[&first], &[16]);
    let second = orders(&other).receiver().unwrap();
    settle(&[&first, &second], &[8, 8]);
    let third = orders(&other).receiver().unwrap();
    let fourth = orders(&one).receiver().unwrap();
    let fifth = orders(&other).receiver().unwrap();
    settle(&[&first, &second, &third, &fourth, &fifth], &[3, 3, 3, 3, 4]);
    drop((first, third));
    settle(&[&second, &fourth, &fifth], &[5, 5, 6]);
    drop((second, fourth));
    settle(&[&fifth], &[16]);
    // Of more than there are partitions some wait until others go.
    let few = |segment: &Segment| segment.channel::<Order>("few").routed().partitions(2);
    let receivers: Vec<_> = (0..4).map(|_| few(&one).receiver().unwrap()).collect();
    settle(&receivers.iter().collect::<Vec<_>>(), &[0, 0, 1, 1]);
    let (have, wait): (Vec<_>, Vec<_>) = receivers.into_iter().partition(|receiver| !receiver.partitions().is_empty());
    drop(have);
    settle(&wait.iter().collect::<Vec<_>>(), &[1, 1]);
    drop((sender, fifth, wait));
    assert_empty(&one);
}

#[test]
fn a_partition_moves_when_its_last_message_is_acknowledged_and_not_before() {
    let (_place, one, other) = two();
    let (sender, old) = orders(&one).partitions(2).open().unwrap();
    settle(&[&old], &[2]);
    let keys = key_of_each(&sender);
    for number in 0..3 {
        keys.iter().for_each(|key| sender.try_send(Order { key: *key, number }).unwrap());
    }
    // Two of each.
    let mut held: Vec<_> = Vec::new();
    while held.len() < 4 {
        let message = old.try_recv().unwrap();
        if message.number < 2 { held.push(message) } else { message.nack() }
    }
    let new = orders(&other).receiver().unwrap();
    assert_eq!(new.try_recv().unwrap_err(), TryRecvError::Empty);
    // The old one has heard of it, and given one up: but it is not to be had.
    let left = old.try_recv().unwrap();
    assert_eq!((left.number, old.partitions().len()), (2, 1));
    assert_eq!(new.try_recv().unwrap_err(), TryRecvError::Empty);
    assert!(new.partitions().is_empty());
    let moving = 1 - left.partition();
    held.retain(|message| message.partition() == moving);
    // The first of the two is done with, the second one is given back: then it comes back, and in its order.
    held.sort_by_key(|message| message.number);
    held.remove(0).ack();
    assert_eq!(new.try_recv().unwrap_err(), TryRecvError::Empty);
    held.remove(0).nack();
    let again: Vec<_> = (0..2).map(|_| new.try_recv().unwrap()).collect();
    assert_eq!(again.iter().map(|message| message.number).collect::<Vec<_>>(), [1, 2]);
    assert!(again[0].delivery_count() > 1);
    assert_eq!(new.partitions(), [moving]);
    // What outlives its receiver keeps its partition, too.
    drop(new);
    assert_eq!(old.try_recv().unwrap_err(), TryRecvError::Empty);
    assert_eq!(old.partitions().len(), 1);
    drop(again);
    assert_eq!(old.try_recv().unwrap_err(), TryRecvError::Empty);
    assert_eq!(old.partitions().len(), 2);
    drop((left, sender, old));
    assert_empty(&one);
}

#[test]
fn receivers_hear_of_the_end_when_all_partitions_are_drained() {
    let (_place, one, other) = two();
    let (sender, first) = orders(&one).partitions(4).open().unwrap();
    let second = orders(&other).receiver().unwrap();
    settle(&[&first, &second], &[2, 2]);
    let keys = key_of_each(&sender);
    keys.iter().for_each(|key| sender.try_send(Order { key: *key, number: 0 }).unwrap());
    let clone = sender.clone();
    drop(sender);
    drop(clone);
    let held: Vec<_> = (0..2).map(|_| first.try_recv().unwrap()).collect();
    assert_eq!(first.try_recv().unwrap_err(), TryRecvError::Empty, "the other has messages");
    (0..2).for_each(|_| second.try_recv().unwrap().ack());
    assert_eq!(second.try_recv().unwrap_err(), TryRecvError::Empty, "the other has received what may come back");
    // Woken by the last acknowledgement, not by a timer.
    let waiting = thread::spawn(move || second.blocking_recv().is_none());
    thread::sleep(Duration::from_millis(20));
    drop(held);
    assert!(waiting.join().unwrap());
    assert!(within(first.recv()).is_none() && first.is_closed());
    drop(first);
    assert_empty(&one);
}

#[test]
fn a_receiver_that_comes_after_the_senders_have_gone_gets_what_they_have_sent_and_the_end() {
    let segment = in_process();
    let sender = orders(&segment).sender().unwrap();
    (0..10).for_each(|number| sender.try_send(Order { key: 7, number }).unwrap());
    drop(sender);
    let receiver = orders(&segment).receiver().unwrap();
    let numbers: Vec<u64> = within(receiver.stream().map(|order| order.number).collect());
    assert_eq!(numbers, (0..10).collect::<Vec<_>>());
    // Who comes when nobody was there waits.
    drop(receiver);
    let receiver = orders(&segment).receiver().unwrap();
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
    assert!(!receiver.is_closed());
}

#[test]
fn a_closed_channel_takes_nothing_and_gives_what_it_has() {
    let segment = in_process();
    let (sender, receiver) = orders(&segment).open().unwrap();
    let idle = orders(&segment).receiver().unwrap();
    settle(&[&receiver, &idle], &[8, 8]);
    (0..64).for_each(|key| sender.try_send(Order { key, number: 0 }).unwrap());
    let waiting = thread::spawn(move || (0..).take_while(|_| idle.blocking_recv().is_some()).count());
    receiver.close();
    assert!(sender.is_closed() && sender.try_send(Order { key: 1, number: 1 }).unwrap_err().is_closed());
    let here = (0..).take_while(|_| receiver.blocking_recv().is_some()).count();
    assert_eq!(here + waiting.join().unwrap(), 64);
    drop(receiver);
    assert!(sender.is_closed());
}

/// Whether a channel takes a message, of a key of each partition: all say the same.
fn takes(sender: &routing::Sender<Order>) -> bool {
    let takes: Vec<bool> = key_of_each(sender)
        .into_iter()
        .map(|key| match sender.try_send(Order { key, number: 0 }) {
            Err(refused) if refused.is_closed() => false,
            outcome => outcome.map(|()| true).unwrap(),
        })
        .collect();
    assert!(takes.iter().all(|takes| *takes != sender.is_closed()), "{} {takes:?}", sender.is_closed());
    takes[0]
}

#[test]
fn a_channel_that_is_opened_while_others_close_it_and_leave_is_closed_as_a_whole_or_open() {
    let (_place, one, other) = two();
    let options = |segment: &Segment| orders(segment).partitions(16).capacity(8);
    let (start, mut outcomes) = (Barrier::new(2), HashMap::new());
    for round in 0..600_u64 {
        let (closes, receives) = (round % 2 == 0, round % 4 < 2);
        let old = options(&other).receiver().unwrap();
        let (sender, receiver) = thread::scope(|scope| {
            let (start, options) = (&start, &options);
            scope.spawn(move || {
                start.wait();
                // So that now one of them is ahead, now the other.
                (0..round % 64 * 20).for_each(|_| std::hint::spin_loop());
                if closes {
                    old.close();
                }
                drop(old);
            });
            let new = scope.spawn(|| {
                start.wait();
                match receives {
                    true => (None, Some(options(&one).receiver().unwrap())),
                    false => (Some(options(&one).sender().unwrap()), None),
                }
            });
            new.join().unwrap()
        });
        // Whoever left has left by now.
        let sender = sender.unwrap_or_else(|| options(&one).sender().unwrap());
        let takes = takes_of(&one, &sender, receiver.as_ref());
        *outcomes.entry((closes, receives, takes)).or_insert(0) += 1;
        drop((sender, receiver));
        assert!(one.channels().is_empty(), "round {round}: {:?}", one.channels());
    }
    // Who receives keeps what was not closed open.
    assert!(!outcomes.contains_key(&(false, true, false)), "{outcomes:?}");
    assert_empty(&one);
}

/// The same; a receiver knows of it, and takes what was sent.
fn takes_of(segment: &Segment, sender: &routing::Sender<Order>, receiver: Option<&routing::Receiver<Order>>) -> bool {
    let takes = takes(sender);
    if let Some(receiver) = receiver {
        assert_eq!(receiver.is_closed(), !takes);
        let taken = std::iter::from_fn(|| receiver.try_recv().ok()).count();
        assert_eq!(taken, if takes { receiver.partition_count() } else { 0 });
        assert_eq!(receiver.try_recv().unwrap_err() == TryRecvError::Disconnected, !takes);
    } else if takes {
        // What was sent waits for the first receiver.
        drop(orders(segment).receiver().unwrap());
    }
    takes
}

#[test]
fn who_waits_is_woken_for_messages_and_for_partitions() {
    let (_place, one, other) = two();
    let (sender, old) = orders(&one).open().unwrap();
    settle(&[&old], &[16]);
    let received = Arc::new(AtomicUsize::new(0));
    let new = orders(&other).receiver().unwrap();
    let counting = Arc::clone(&received);
    let waiting = thread::spawn(move || {
        while let Some(message) = new.blocking_recv() {
            counting.fetch_add(1, Ordering::Relaxed);
            drop(message);
        }
    });
    // It has sat down, and waits: what the old one has it gets when that goes.
    thread::sleep(Duration::from_millis(20));
    drop(old);
    for number in 0..100 {
        (0..16).for_each(|key| sender.blocking_send(Order { key, number }).unwrap());
        eventually("all are received", || received.load(Ordering::Relaxed) as u64 == (number + 1) * 16);
    }
    drop(sender);
    waiting.join().unwrap();
}

#[test]
fn a_wait_that_is_dropped_has_taken_nothing() {
    let segment = in_process();
    let (sender, receiver) = orders(&segment).open().unwrap();
    within(async {
        for number in 0..500 {
            assert!(receiver.recv_timeout(Duration::from_micros(50)).await.is_err());
            let sent = async {
                sender.send(Order { key: number % 7, number }).await.unwrap();
                tokio::task::yield_now().await;
            };
            let got = tokio::select! {
                biased;
                () = sent => None,
                message = receiver.recv() => message,
            };
            let message = match got {
                Some(message) => message,
                None => receiver.recv().await.unwrap(),
            };
            assert_eq!((message.number, message.delivery_count()), (number, 1));
        }
    });
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
}

#[test]
fn openers_who_disagree_are_told() {
    let segment = in_process();
    let (_sender, _receiver) = orders(&segment).partitions(4).capacity(8).open().unwrap();
    let refused = |options: routing::Options<Order>| match options.sender() {
        Err(OpenError::Mismatch { channel, expected, found }) => {
            assert_eq!(channel, "orders");
            (expected, found)
        }
        other => panic!("{other:?}"),
    };
    let (expected, found) = refused(orders(&segment).partitions(5));
    assert!(expected.contains("5 partitions") && found.contains("4 partitions"), "{expected}; {found}");
    refused(orders(&segment).capacity(9));
    refused(orders(&segment).delivery(Delivery::AtMostOnce));
    assert!(matches!(segment.channel::<Order>("orders").receiver(), Err(OpenError::Mismatch { .. })));
    assert!(matches!(segment.bytes("orders").routed().receiver(), Err(OpenError::Mismatch { .. })));
    assert_eq!(orders(&segment).receiver().unwrap().partition_count(), 4);
    for impossible in [0, 257] {
        assert!(matches!(orders(&segment).partitions(impossible).sender(), Err(OpenError::InvalidOptions(_))));
    }
    for name in ["orders#0", &"x".repeat(125)] {
        assert!(matches!(segment.channel::<Order>(name).routed().sender(), Err(OpenError::InvalidName { .. })));
    }
    let kinds: Vec<_> = segment.channels().into_iter().filter(|channel| channel.kind == ChannelKind::Routed).collect();
    assert_eq!((kinds.len(), kinds[0].capacity, &*kinds[0].name), (1, 4, "orders"));
    // Too small for all partitions: nothing of it is left.
    let small = Segment::options().size(1 << 20).channels(16).in_process().unwrap();
    assert!(matches!(small.channel::<Order>("orders").routed().sender(), Err(OpenError::TooManyChannels { .. })));
    assert!(small.channels().is_empty());
}

#[test]
fn a_routed_channel_that_is_refused_leaves_nothing() {
    let segment = Segment::options().size(4 << 20).channels(12).in_process().unwrap();
    for _ in 0..3 {
        let refused = segment.channel::<Order>("orders").persistent(true).routed().partitions(16).open();
        assert!(matches!(refused, Err(OpenError::TooManyChannels { .. })));
        assert!(segment.channels().is_empty());
    }
    drop(segment.channel::<Order>("orders").persistent(true).routed().partitions(2).open().unwrap());
    assert_eq!(segment.channels().len(), 3);
}

#[test]
fn bytes_are_routed_too() {
    let segment = in_process();
    let (sender, receiver) = segment.bytes("bytes").routed().partitions(3).open().unwrap();
    within(async {
        sender.send("ada", "one").await.unwrap();
        sender.send_timeout("ada", vec![2; 9], Duration::from_secs(60)).await.unwrap();
    });
    sender.blocking_send(7_u64, [7]).unwrap();
    sender.try_send(RouteKey::default(), []).unwrap();
    let mut all: Vec<Vec<u8>> = (0..4).map(|_| receiver.try_recv().unwrap().into_inner()).collect();
    all.sort();
    assert_eq!(all, [vec![], vec![2; 9], vec![7], b"one".to_vec()]);
}

#[test]
#[cfg(feature = "postcard")]
fn what_a_codec_writes_is_routed_by_its_value() {
    let segment = in_process();
    #[derive(serde::Serialize, serde::Deserialize, Debug, PartialEq)]
    struct Name(String);
    impl Policy for Name {
        fn route(&self) -> RouteKey {
            self.0[..1].into()
        }
    }
    let (sender, receiver) =
        segment.channel::<Name>("names").codec::<waterway::codec::Postcard>().routed().open().unwrap();
    sender.try_send(Name("Ada".into())).unwrap();
    sender.blocking_send(Name("Anna".into())).unwrap();
    let names: Vec<Name> = (0..2).map(|_| receiver.try_recv().unwrap().decode().unwrap()).collect();
    assert_eq!(names, [Name("Ada".into()), Name("Anna".into())]);
}

#[test]
fn what_nobody_can_do_goes_to_the_dead_letters_and_the_rest_goes_on() {
    let segment = in_process();
    let delivery = Delivery::AtLeastOnce { max_deliveries: 2 };
    let options = segment.channel::<Order>("orders").routed().partitions(2).delivery(delivery);
    let (sender, receiver) = options.policy(waterway::policy::DeadLetter::to("dead")).persistent(true).open().unwrap();
    (0..4).for_each(|number| sender.try_send(Order { key: 3, number }).unwrap());
    let mut done = Vec::new();
    while let Ok(message) = receiver.try_recv() {
        if message.number == 1 { message.nack() } else { done.push(message.into_inner().number) }
    }
    assert_eq!(done, [0, 2, 3]);
    let letters = segment.channel::<Order>("dead").receiver().unwrap();
    assert_eq!((letters.try_recv().unwrap().number, letters.len()), (1, 0));
    // It is persistent, with its number of partitions.
    sender.try_send(Order { key: 3, number: 4 }).unwrap();
    drop((sender, receiver, letters));
    let receiver = orders(&segment).delivery(delivery).receiver().unwrap();
    assert_eq!((receiver.try_recv().unwrap().number, receiver.partition_count()), (4, 2));
}

#[test]
fn a_message_keeps_its_key_while_anything_of_it_is_left() {
    let segment = in_process();
    let (sender, old) = orders(&segment).partitions(1).open().unwrap();
    let (onward, end) = segment.channel::<Order>("end").capacity(1).open().unwrap();
    (0..5).for_each(|number| sender.try_send(Order { key: 1, number }).unwrap());
    let bytes = old.try_recv().unwrap().into_bytes();
    assert_eq!(old.try_recv().unwrap().into_inner(), Order { key: 1, number: 1 });
    old.try_recv().unwrap().forward(&onward).unwrap();
    let Err(routing::ForwardError::Full(kept)) = old.try_recv().unwrap().forward(&onward) else {
        panic!("it has no room")
    };
    let new = orders(&segment).receiver().unwrap();
    drop(old);
    let waits = || assert_eq!(new.try_recv().unwrap_err(), TryRecvError::Empty);
    waits();
    assert_eq!((kept.number, end.try_recv().unwrap().number), (3, 2));
    drop(kept);
    waits();
    let clone = bytes.clone();
    drop(bytes);
    waits();
    drop(clone);
    assert_eq!(new.try_recv().unwrap().number, 4);
}

#[test]
fn rules_are_asked_in_their_order() {
    let segment = in_process();
    let (rest, at_rest) = segment.channel::<Order>("rest").open().unwrap();
    let (even, at_even) = segment.channel::<Order>("even").capacity(1).open().unwrap();
    let (large, at_large) = segment.channel::<Order>("large").open().unwrap();
    let sender = rest.route(|order: &Order| order.key.is_multiple_of(2), even).route(|order| order.key > 100, large);
    let send = |key| sender.try_send(Order { key, number: 0 });
    assert_eq!(send(200).unwrap(), Route::Rule(0));
    assert_eq!(send(201).unwrap(), Route::Rule(1));
    assert_eq!(within(sender.send(Order { key: 1, number: 0 })).unwrap(), Route::Default);
    // Where there is no room it waits, and goes nowhere else.
    assert!(send(202).unwrap_err().is_full());
    assert_eq!([&at_even, &at_large, &at_rest].map(|end| end.try_recv().unwrap().key), [200, 201, 1]);
    assert_eq!(send(202).unwrap(), Route::Rule(0));
    drop(at_large);
    assert!(send(201).unwrap_err().is_closed());
}

/// What the tasks of a process have in their hands: per key, which receiver.
#[derive(Default)]
struct Ledger {
    held: Mutex<HashMap<u64, (usize, usize)>>,
    next: Mutex<HashMap<u64, u64>>,
}

impl Ledger {
    fn take(&self, receiver: usize, order: &Order) {
        let mut held = self.held.lock().unwrap();
        let (holder, count) = held.entry(order.key).or_insert((receiver, 0));
        assert!(*count == 0 || *holder == receiver, "{order:?} is at {receiver} while one is at {holder}");
        (*holder, *count) = (receiver, *count + 1);
        let mut next = self.next.lock().unwrap();
        let next = next.entry(order.key).or_default();
        assert_eq!(order.number, *next, "of key {}", order.key);
        *next += 1;
    }

    fn done(&self, order: &Order) {
        self.held.lock().unwrap().get_mut(&order.key).unwrap().1 -= 1;
    }
}

/// Receivers of two participants come and go while a sender sends: the order of each key holds, and each is with one receiver at a
/// time.
#[test]
fn a_key_is_with_one_receiver_at_a_time_while_receivers_come_and_go() {
    const KEYS: u64 = 40;
    const EACH: u64 = 600;
    let (_place, one, other) = two();
    let sender = orders(&one).partitions(8).capacity(16).sender().unwrap();
    // Somebody is there all the time.
    let steady = orders(&other).receiver().unwrap();
    let (ledger, ids, received) = (Ledger::default(), AtomicUsize::new(0), AtomicU64::new(0));
    let work = |receiver: routing::Receiver<Order>, most: usize, seed: u64| {
        let id = ids.fetch_add(1, Ordering::Relaxed);
        let mut random = common::Random::new(seed);
        let mut held = Vec::new();
        for _ in 0..most {
            // Others may have all that is left.
            let Ok(message) = within(receiver.recv_timeout(Duration::from_millis(20))) else {
                if receiver.is_closed() && received.load(Ordering::Relaxed) == KEYS * EACH {
                    break;
                }
                held.drain(..).for_each(|message: waterway::routing::Message<Order>| {
                    ledger.done(&message);
                    message.ack();
                });
                continue;
            };
            ledger.take(id, &message);
            received.fetch_add(1, Ordering::Relaxed);
            held.push(message);
            if random.below(3) == 0 {
                for message in held.drain(..) {
                    ledger.done(&message);
                    message.ack();
                }
            }
        }
        // Some outlive their receiver.
        drop(receiver);
        for message in held {
            ledger.done(&message);
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| work(steady, usize::MAX, 1));
        for (lane, segment) in [&one, &other].into_iter().enumerate() {
            let (work, received) = (&work, &received);
            scope.spawn(move || {
                for round in 0_u64.. {
                    if received.load(Ordering::Relaxed) == KEYS * EACH {
                        return;
                    }
                    let seed = round * 2 + lane as u64 + 10;
                    work(orders(segment).receiver().unwrap(), 20 + seed as usize % 50, seed);
                }
            });
        }
        for number in 0..EACH {
            (0..KEYS).for_each(|key| sender.blocking_send(Order { key, number }).unwrap());
        }
        drop(sender);
    });
    assert!(ledger.next.lock().unwrap().values().all(|next| *next == EACH));
    assert_eq!(received.load(Ordering::Relaxed), KEYS * EACH);
    drop(other);
    assert_empty(&one);
}

/// Clock ticks of processor time, and voluntary switches to another task, of all threads of a process.
fn work_of(pid: u32) -> (u64, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    let ticks = [11, 12].map(|field| fields[field].parse::<u64>().unwrap()).iter().sum();
    let switches = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().filter_map(|task| {
        let status = std::fs::read_to_string(task.ok()?.path().join("status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    (ticks, switches.sum())
}

/// A receiver that waits for 16 partitions and for changes uses no timer of its own, and nearly no processor time.
#[test]
fn an_idle_receiver_sleeps() {
    const TEST: &str = "an_idle_receiver_sleeps";
    let place = Place::new();
    let segment = place.options().size(4 << 20).open_or_create("idle").unwrap();
    if role().is_some() {
        let receiver = orders(&segment).receiver().unwrap();
        let mut received = 0;
        while let Some(message) = receiver.blocking_recv() {
            received += message.number;
            if message.number == 1 {
                common::ready(&place);
            }
        }
        assert_eq!(received, 3);
        return;
    }
    let sender = orders(&segment).sender().unwrap();
    sender.try_send(Order { key: 1, number: 1 }).unwrap();
    let child = place.spawn(TEST, "receive");
    wait_until_ready(&place, &child);
    thread::sleep(Duration::from_millis(500));
    let (before, started) = (work_of(child.pid()), Instant::now());
    thread::sleep(Duration::from_secs(2));
    let after = work_of(child.pid());
    let quarters = started.elapsed().as_millis() as u64 / 250;
    // The watchdog looks for lost wakes at most four times a second, for all partitions at once; there is no other timer.
    assert!(
        after.1 - before.1 <= 2 * quarters + 4,
        "{} switches in {quarters} quarters of a second",
        after.1 - before.1
    );
    assert!(after.0 - before.0 <= 5, "{} ticks", after.0 - before.0);
    sender.try_send(Order { key: 2, number: 2 }).unwrap();
    drop(sender);
    child.succeed();
}
