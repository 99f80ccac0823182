//! Messages that come back: at least once, dead letters, and what else changes with the mode.

mod common;

use std::{
    collections::{HashMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::Duration,
};

use common::{Place, Process, Random, Stamp, eventually, in_process, role, within};
use waterway::{ChannelOptions, Delivery, OpenError, Retention, Segment, TryRecvError, policy::DeadLetter};

const AT_LEAST_ONCE: Delivery = Delivery::AtLeastOnce { max_deliveries: 1_000_000 };

fn held(segment: &Segment) -> usize {
    let report = segment.check();
    assert!(report.is_clean(), "{report:?}");
    report.sectors.iter().map(|sector| sector.allocated_blocks + sector.in_flight_blocks).sum()
}

fn open(place: &Place) -> Segment {
    place.options().size(8 << 20).participants(8).open_or_create("delivery").unwrap()
}

fn jobs(segment: &Segment) -> ChannelOptions<u64> {
    segment.channel::<u64>("jobs").delivery(AT_LEAST_ONCE)
}

#[test]
fn what_a_killed_receiver_had_not_acknowledged_comes_back_ahead_of_what_is_newer() {
    const TEST: &str = "what_a_killed_receiver_had_not_acknowledged_comes_back_ahead_of_what_is_newer";
    let place = Place::new();
    let segment = open(&place);
    if role().is_some() {
        let receiver = jobs(&segment).receiver().unwrap();
        let mut kept = Vec::new();
        for number in 0..20 {
            let message = receiver.blocking_recv().unwrap();
            assert_eq!((*message, message.delivery_count(), message.sequence()), (number, 1, number));
            if number % 3 == 0 { message.ack() } else { kept.push(message) }
        }
        // One that nobody will ever drop is treated the same.
        std::mem::forget(kept.pop());
        segment.channel::<u64>("ready").sender().unwrap().try_send(1).unwrap();
        thread::sleep(common::PATIENCE);
        return;
    }
    let ready = segment.channel::<u64>("ready").receiver().unwrap();
    let (sender, receiver) = jobs(&segment).open().unwrap();
    let expected: Vec<u64> = (0..20).filter(|number| number % 3 != 0).collect();
    for number in 0..20 {
        sender.try_send(number).unwrap();
    }
    let child = place.spawn(TEST, "receive");
    within(ready.recv()).unwrap();
    for number in 20..30 {
        sender.try_send(number).unwrap();
    }
    assert_eq!(receiver.len(), 10);
    child.kill();
    eventually("the dead is buried", || {
        segment.bury_the_dead();
        receiver.len() == 10 + expected.len()
    });
    assert_eq!(receiver.inquire().oldest.unwrap().sequence, 1);
    for number in &expected {
        let message = receiver.try_recv().unwrap();
        assert_eq!((*message, message.delivery_count(), message.sequence()), (*number, 2, *number));
        assert_eq!(message.sender(), None);
    }
    for number in 20..30 {
        let message = receiver.try_recv().unwrap();
        assert_eq!((*message, message.delivery_count(), message.sequence()), (number, 1, number));
    }
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
    drop((sender, receiver, ready));
    assert_eq!(held(&segment), 0);
}

#[test]
fn a_process_that_exits_with_messages_it_forgot_gives_them_back() {
    const TEST: &str = "a_process_that_exits_with_messages_it_forgot_gives_them_back";
    let place = Place::new();
    let segment = open(&place);
    if role().is_some() {
        let receiver = jobs(&segment).receiver().unwrap();
        std::mem::forget(receiver.blocking_recv().unwrap());
        return;
    }
    let (sender, receiver) = jobs(&segment).open().unwrap();
    sender.try_send(7).unwrap();
    assert!(place.spawn(TEST, "receive").finish().success());
    eventually("it comes back", || {
        segment.bury_the_dead();
        receiver.len() == 1
    });
    let message = receiver.try_recv().unwrap();
    assert_eq!((*message, message.delivery_count()), (7, 2));
    drop((message, sender, receiver));
    assert_eq!(held(&segment), 0);
}

fn receive_for_ever(segment: &Segment, seed: u64) {
    let data = segment.bytes("data").delivery(AT_LEAST_ONCE).receiver().unwrap();
    let done = segment.bytes("done").sender().unwrap();
    let mut random = Random::new(seed);
    within(async {
        let mut kept = Vec::new();
        while let Some(message) = data.recv().await {
            let stamp = Stamp::verify(&message).unwrap();
            kept.push((stamp, message));
            if kept.len() > random.below(40) {
                let (stamp, message) = kept.swap_remove(random.below(kept.len()));
                if random.below(20) == 0 {
                    message.nack();
                    continue;
                }
                // Told before it is acknowledged: so it may be told twice, and is never not told.
                let report = [stamp.number, u64::from(message.delivery_count())];
                done.send(report.map(u64::to_ne_bytes).concat()).await.unwrap();
                message.ack();
            }
        }
    });
}

#[test]
fn nothing_is_lost_while_receivers_are_killed_and_only_what_was_delivered_before_comes_twice() {
    const TEST: &str = "nothing_is_lost_while_receivers_are_killed_and_only_what_was_delivered_before_comes_twice";
    const KILLS: usize = 40;
    let place = Place::new();
    let segment = open(&place);
    if let Some(role) = role() {
        return receive_for_ever(&segment, role.parse().unwrap());
    }
    let done = segment.bytes("done").capacity(256).receiver().unwrap();
    let options = || segment.bytes("data").capacity(64).persistent(true).delivery(AT_LEAST_ONCE);
    let sender = options().sender().unwrap();
    let mut random = Random::new(3);
    let mut victims: Vec<Process> = (0..2).map(|seed| place.spawn(TEST, &seed.to_string())).collect();
    let (mut sent, mut seen, mut kills) = (0, HashMap::<u64, usize>::new(), 0);
    let mut first = HashSet::new();
    let mut again = 0;
    let mut note = |report: &[u8], seen: &mut HashMap<u64, usize>| {
        let [number, count] = [0, 8].map(|at| u64::from_ne_bytes(report[at..at + 8].try_into().unwrap()));
        *seen.entry(number).or_default() += 1;
        again += u64::from(count > 1);
        assert!(count > 1 || first.insert(number), "{number} was delivered twice for the first time");
    };
    let mut next = random.below(2000);
    while kills < KILLS {
        while sender.try_send(Stamp { sender: 1, number: sent }.message(random.below(1500) + 1)).is_ok() {
            sent += 1;
        }
        let mut progress = false;
        while let Ok(report) = done.try_recv() {
            note(&report, &mut seen);
            next = next.saturating_sub(1);
            progress = true;
        }
        if next == 0 {
            victims.swap_remove(random.below(2)).kill();
            kills += 1;
            victims.push(place.spawn(TEST, &(kills + 10).to_string()));
            next = random.below(1500);
        }
        if !progress {
            thread::sleep(Duration::from_micros(200));
        }
    }
    // What the last two had, and what nobody has received yet, comes to us.
    victims.into_iter().for_each(Process::kill);
    let rest = options().receiver().unwrap();
    eventually("all dead are buried", || {
        segment.bury_the_dead();
        // Their ends go after what they held has come back.
        rest.receiver_count() == 1
    });
    while let Ok(report) = done.try_recv() {
        note(&report, &mut seen);
    }
    while let Ok(message) = rest.try_recv() {
        let number = Stamp::verify(&message).unwrap().number;
        note(&[number, u64::from(message.delivery_count())].map(u64::to_ne_bytes).concat(), &mut seen);
    }
    let lost: Vec<u64> = (0..sent).filter(|number| !seen.contains_key(number)).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert!(again > 0);
    println!(
        "{sent} messages, {again} delivered again, {} more than once",
        seen.values().filter(|times| **times > 1).count()
    );
    assert_eq!((rest.invalid(), rest.discarded()), (0, 0));
    drop((sender, rest, done));
    // The persistent channel's ring.
    assert_eq!(held(&segment), 1);
}

#[test]
fn a_poisonous_message_ends_among_the_dead_letters() {
    const TEST: &str = "a_poisonous_message_ends_among_the_dead_letters";
    let place = Place::new();
    let segment = open(&place);
    let options = || {
        let three = Delivery::AtLeastOnce { max_deliveries: 3 };
        segment.channel::<u64>("jobs").delivery(three).policy(DeadLetter::to("dead")).persistent(true)
    };
    if role().is_some() {
        let receiver = options().receiver().unwrap();
        while let Some(message) = receiver.blocking_recv() {
            if *message == 13 {
                std::process::abort();
            }
            message.ack();
        }
        return;
    }
    let sender = options().sender().unwrap();
    (10..20).for_each(|number| sender.try_send(number).unwrap());
    for _ in 0..3 {
        assert!(!place.spawn(TEST, "work").finish().success());
        segment.bury_the_dead();
    }
    let dead = segment.channel::<u64>("dead").receiver().unwrap();
    eventually("it is a dead letter", || {
        segment.bury_the_dead();
        dead.len() == 1
    });
    let letter = dead.try_recv().unwrap();
    assert_eq!((*letter, letter.delivery_count()), (13, 1));
    let receiver = options().receiver().unwrap();
    assert_eq!(receiver.len(), 6);
    assert_eq!(*receiver.try_recv().unwrap(), 14);
    drop((letter, dead, sender));
    while receiver.try_recv().is_ok() {}
    drop(receiver);
    assert_eq!(held(&segment), 2);
}

#[test]
fn without_dead_letters_a_message_is_freed_and_counted_after_its_last_delivery() {
    let segment = Segment::options().in_process().unwrap();
    let two = Delivery::AtLeastOnce { max_deliveries: 2 };
    let (sender, receiver) = segment.bytes("jobs").delivery(two).open().unwrap();
    sender.try_send("poison").unwrap();
    for count in 1..=2 {
        let message = receiver.try_recv().unwrap();
        assert_eq!((&*message, message.delivery_count()), (&b"poison"[..], count));
        message.nack();
    }
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
    assert_eq!(receiver.discarded(), 1);
    drop((sender, receiver));
    assert_eq!(held(&segment), 0);
}

#[test]
fn a_message_stays_where_it_is_while_the_dead_letters_are_full() {
    let segment = Segment::options().in_process().unwrap();
    let dead = segment.channel::<u64>("dead").capacity(1).persistent(true).receiver().unwrap();
    let one = Delivery::AtLeastOnce { max_deliveries: 1 };
    let (sender, receiver) =
        segment.channel::<u64>("jobs").delivery(one).policy(DeadLetter::to("dead")).open().unwrap();
    (0..2).for_each(|number| sender.try_send(number).unwrap());
    (0..2).for_each(|_| receiver.try_recv().unwrap().nack());
    let again = receiver.try_recv().unwrap();
    assert_eq!((*again, again.delivery_count()), (1, 2));
    assert_eq!(*dead.try_recv().unwrap(), 0);
    again.nack();
    assert_eq!(*dead.try_recv().unwrap(), 1);
    assert_eq!(receiver.discarded(), 0);
}

#[test]
fn a_message_that_is_given_back_comes_again_at_once_and_wakes_who_waits() {
    let segment = Segment::options().in_process().unwrap();
    let (sender, receiver) = jobs(&segment).capacity(2).open().unwrap();
    (0..2).for_each(|number| sender.try_send(number).unwrap());
    let first = receiver.try_recv().unwrap();
    drop(receiver.try_recv().unwrap());
    let other = receiver.clone();
    let waiting = thread::spawn(move || {
        let message = other.blocking_recv().unwrap();
        (*message, message.delivery_count(), message.sequence())
    });
    thread::sleep(Duration::from_millis(50));
    first.nack();
    assert_eq!(waiting.join().unwrap(), (0, 2, 0));
    drop((sender, receiver));
    assert_eq!(held(&segment), 0);
}

#[test]
fn a_message_that_is_dropped_in_a_panic_comes_back() {
    let segment = Segment::options().in_process().unwrap();
    let (sender, receiver) = jobs(&segment).open().unwrap();
    sender.try_send(5).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _message = receiver.try_recv().unwrap();
        std::panic::resume_unwind(Box::new("the work fails"));
    }));
    assert!(panicked.is_err());
    let message = receiver.try_recv().unwrap();
    assert_eq!((*message, message.delivery_count()), (5, 2));
    // Its bytes are the message, too.
    let bytes = message.into_bytes();
    drop(bytes);
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
    // At most once, nothing comes back.
    let (sender, receiver) = segment.channel::<u64>("plain").open().unwrap();
    sender.try_send(6).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _message = receiver.try_recv().unwrap();
        std::panic::resume_unwind(Box::new("the work fails"));
    }));
    assert!(panicked.is_err());
    sender.try_send(7).unwrap();
    let message = receiver.try_recv().unwrap();
    assert_eq!((*message, message.delivery_count()), (7, 1));
    message.nack();
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
}

#[test]
fn more_messages_come_back_than_the_channel_has_cells_and_none_is_lost() {
    let segment = Segment::options().in_process().unwrap();
    let (sender, receiver) = jobs(&segment).capacity(16).open().unwrap();
    let mut kept = Vec::new();
    for number in 0..2000 {
        sender.try_send(number).unwrap();
        kept.push(receiver.try_recv().unwrap());
    }
    kept.into_iter().for_each(waterway::Message::nack);
    sender.try_send(2000).unwrap();
    let mut seen = HashSet::new();
    for _ in 0..2000 {
        let message = receiver.try_recv().unwrap();
        assert_eq!(message.delivery_count(), 2);
        assert_eq!(*message, message.sequence());
        assert!(*message < 2000 && seen.insert(*message));
    }
    assert_eq!(*receiver.try_recv().unwrap(), 2000);
    drop((sender, receiver));
    assert_eq!(held(&segment), 0);
}

#[test]
fn a_channel_takes_what_came_back_with_it() {
    let segment = Segment::options().in_process().unwrap();
    let (sender, receiver) = jobs(&segment).capacity(16).open().unwrap();
    let mut kept = Vec::new();
    for number in 0..600 {
        sender.try_send(number).unwrap();
        kept.push(receiver.try_recv().unwrap());
    }
    let last = kept.split_off(590);
    kept.into_iter().for_each(waterway::Message::nack);
    drop((sender, receiver));
    // These have no channel any more, whether they are given back or acknowledged.
    for (number, message) in last.into_iter().enumerate() {
        if number % 2 == 0 { message.nack() } else { message.ack() }
    }
    assert!(segment.channels().is_empty());
    assert_eq!(held(&segment), 0);
}

#[test]
fn the_mode_belongs_to_the_channel() {
    let segment = Segment::options().in_process().unwrap();
    let with = |deliveries| Delivery::AtLeastOnce { max_deliveries: deliveries };
    let _ends = segment.channel::<u64>("jobs").delivery(with(3)).policy(DeadLetter::to("dead")).open().unwrap();
    let _plain = segment.channel::<u64>("plain").open().unwrap();
    let jobs = || segment.channel::<u64>("jobs");
    assert!(jobs().receiver().is_ok());
    assert!(jobs().delivery(with(3)).receiver().is_ok());
    assert!(jobs().delivery(with(3)).policy(DeadLetter::to("dead")).receiver().is_ok());
    for options in [
        jobs().delivery(Delivery::AtMostOnce),
        jobs().delivery(with(4)),
        jobs().delivery(with(3)).policy(DeadLetter::to("elsewhere")),
        segment.channel::<u64>("plain").delivery(with(3)),
    ] {
        let error = options.receiver().unwrap_err();
        assert!(matches!(error, OpenError::Mismatch { .. }), "{error}");
    }
    for options in [
        jobs().delivery(with(0)),
        jobs().policy(DeadLetter::to("dead")),
        jobs().delivery(with(3)).policy(DeadLetter::to("jobs")),
        segment.channel::<u64>("other").delivery(with(3)).policy(DeadLetter::to("plain")),
    ] {
        let error = options.receiver().unwrap_err();
        assert!(matches!(error, OpenError::InvalidOptions(_)), "{error}");
    }
}

#[test]
fn a_channel_of_dead_letters_has_nothing_of_its_own_whichever_is_opened_first() {
    let open = |segment: &Segment| {
        let work = segment.channel::<u64>("work").delivery(Delivery::AtLeastOnce { max_deliveries: 1 });
        work.policy(DeadLetter::to("dead")).open()
    };
    let dead = |segment: &Segment| segment.channel::<u64>("dead").persistent(true);
    let wishes: [fn(ChannelOptions<u64>) -> ChannelOptions<u64>; 3] = [
        |options| options.delivery(Delivery::AtLeastOnce { max_deliveries: 3 }),
        |options| options.policy(Retention::ttl(Duration::from_secs(100))),
        |options| options.policy(Retention::keep_last(100)),
    ];
    for wish in wishes {
        let segment = in_process();
        let _dead = wish(dead(&segment)).receiver().unwrap();
        let error = open(&segment).unwrap_err();
        assert!(matches!(&error, OpenError::Mismatch { channel, .. } if channel == "dead"), "{error}");
        let segment = in_process();
        let _work = open(&segment).unwrap();
        let error = wish(dead(&segment)).receiver().unwrap_err();
        assert!(matches!(&error, OpenError::Mismatch { channel, .. } if channel == "dead"), "{error}");
    }
    // One that was opened first, with a capacity of its own, gets all of them; and sends them on to where they are kept otherwise.
    let segment = in_process();
    let dead = dead(&segment).capacity(10).receiver().unwrap();
    let (sender, receiver) = open(&segment).unwrap();
    let (onward, kept) =
        segment.channel::<u64>("kept").delivery(Delivery::AtLeastOnce { max_deliveries: 3 }).open().unwrap();
    for number in 0..10 {
        sender.try_send(number).unwrap();
        receiver.try_recv().unwrap().nack();
        dead.try_recv().unwrap().forward(&onward).unwrap();
    }
    assert_eq!(
        std::iter::from_fn(|| kept.try_recv().ok().map(|message| *message)).collect::<Vec<_>>(),
        Vec::from_iter(0..10)
    );
    assert_eq!(receiver.inquire().counts.dead_letters, 10);
}

#[test]
fn messages_are_forwarded_between_channels_of_both_kinds() {
    let segment = Segment::options().in_process().unwrap();
    // 48 bytes and their header fill a granule, so there is no room for what comes back.
    for len in [1, 48, 100] {
        let plain = segment.bytes("plain").open().unwrap();
        let first = segment.bytes("first").delivery(AT_LEAST_ONCE).open().unwrap();
        let second = segment.bytes("second").delivery(AT_LEAST_ONCE).capacity(1).open().unwrap();
        let payload = vec![7; len];
        plain.0.try_send(&payload).unwrap();
        plain.1.try_recv().unwrap().forward(&first.0).unwrap();
        first.1.try_recv().unwrap().nack();
        first.1.try_recv().unwrap().forward(&second.0).unwrap();
        plain.0.try_send("another").unwrap();
        let refused = plain.1.try_recv().unwrap().forward(&second.0).unwrap_err();
        assert!(refused.is_full());
        refused.into_inner().ack();
        let message = second.1.try_recv().unwrap();
        assert_eq!((&*message, message.delivery_count()), (&payload[..], 1));
        message.forward(&plain.0).unwrap();
        let message = plain.1.try_recv().unwrap();
        assert_eq!((&*message, message.delivery_count()), (&payload[..], 1));
    }
    assert_eq!(held(&segment), 0);
}

#[test]
fn permits_send_messages_that_come_back() {
    let segment = Segment::options().in_process().unwrap();
    let (sender, receiver) = jobs(&segment).capacity(2).open().unwrap();
    let permit = sender.try_reserve().unwrap();
    permit.send(9);
    receiver.try_recv().unwrap().nack();
    assert_eq!(receiver.try_recv().unwrap().delivery_count(), 2);
    drop((sender, receiver));
    assert_eq!(held(&segment), 0);
}

#[test]
fn nobody_hears_none_while_another_has_what_may_come_back() {
    let place = Place::new();
    let (one, two) = (open(&place), open(&place));
    let (sender, receiver) = jobs(&one).open().unwrap();
    let others = jobs(&two).receiver().unwrap();
    (0..3).for_each(|number| sender.try_send(number).unwrap());
    let held: Vec<_> = (0..3).map(|_| others.try_recv().unwrap()).collect();
    drop(sender);
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
    // What it has itself is nothing to wait for.
    assert_eq!(others.try_recv().unwrap_err(), TryRecvError::Disconnected);
    let waiting = thread::spawn(move || {
        let first = receiver.blocking_recv().map(|message| (*message, message.delivery_count()));
        (first, receiver.blocking_recv().is_none())
    });
    let mut held = held.into_iter();
    held.next().unwrap().ack();
    thread::sleep(Duration::from_millis(20));
    held.next().unwrap().nack();
    thread::sleep(Duration::from_millis(20));
    assert!(!waiting.is_finished());
    held.next().unwrap().ack();
    assert_eq!(waiting.join().unwrap(), (Some((1, 2)), true));
    drop(others);
    assert_eq!(self::held(&one), 0);
}

#[test]
fn a_look_shows_what_came_back_first_and_what_has_to_go_is_what_takes_up_room() {
    let segment = Segment::options().in_process().unwrap();
    let (sender, receiver) = jobs(&segment).capacity(2).open().unwrap();
    (0..2).for_each(|number| sender.try_send(number).unwrap());
    receiver.try_recv().unwrap().nack();
    let oldest = receiver.inquire().oldest.unwrap();
    assert_eq!((oldest.sequence, oldest.delivery_count), (0, 2));
    sender.try_send(2).unwrap();
    assert_eq!(*sender.force_send(3).unwrap().unwrap(), 1);
    let counts: Vec<_> = receiver.drain().map(|message| (*message, message.delivery_count())).collect();
    assert_eq!(counts, [(0, 2), (2, 1), (3, 1)]);
    assert_eq!(receiver.inquire().oldest, None);
}
