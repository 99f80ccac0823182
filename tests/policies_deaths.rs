//! Policies while processes are killed: every message comes to the end that its policies have for it.

mod common;
#[path = "common/tasks.rs"]
mod tasks;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    thread,
    time::Duration,
};

use common::{Place, Process, Random, eventually, role, within};
use tasks::{HOURS, LEVELS};
use waterway::{
    ChannelOptions, Delivery, Segment, Sender,
    policy::{ByMessage, DeadLetter, Policy, Priority, Retention},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A message that shows whether it is whole, and whose time is over or far away.
#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Load {
    /// `sender << 48 | level << 40 | number`
    stamp: u64,
    body: [u64; 40],
}

impl Load {
    fn new(sender: u64, level: u64, number: u64) -> Self {
        let stamp = sender << 48 | level << 40 | number;
        let mut random = Random::new(stamp);
        Self { stamp, body: std::array::from_fn(|_| random.next()) }
    }

    fn source(&self) -> (u64, u64) {
        (self.stamp >> 48, self.stamp >> 40 & 0xff)
    }

    fn number(&self) -> u64 {
        self.stamp & ((1 << 40) - 1)
    }

    /// What the stamp says; all of it must be there.
    fn verify(&self) -> u64 {
        let (sender, level) = self.source();
        assert!(*self == Self::new(sender, level, self.number()), "{:x} is damaged", self.stamp);
        self.stamp
    }
}

fn is_late(stamp: u64) -> bool {
    Random::new(stamp).next().is_multiple_of(5)
}

impl Policy for Load {
    fn priority(&self) -> Priority {
        LEVELS[self.source().1 as usize]
    }

    fn retention(&self) -> Retention {
        Retention::ttl(if is_late(self.stamp) { Duration::ZERO } else { HOURS })
    }
}

/// At least once, or at most once.
fn loads(segment: &Segment, again: bool) -> ChannelOptions<Load> {
    let delivery = if again { Delivery::AtLeastOnce { max_deliveries: 1_000_000 } } else { Delivery::AtMostOnce };
    let options = segment.channel::<Load>("loads").capacity(12).persistent(true).delivery(delivery);
    options.policy(ByMessage).policy(DeadLetter::to("late"))
}

fn open(place: &Place) -> Segment {
    place.options().size(16 << 20).participants(8).open_or_create("loads").unwrap()
}

/// Sends one message, of a random level.
fn send_one(sender: &Sender<Load>, id: u64, next: &mut [u64; 4], random: &mut Random) -> bool {
    let level = random.below(4);
    let load = Load::new(id, level as u64, next[level]);
    let sent = match random.below(4) {
        0 => sender.try_reserve().map(|permit| permit.send(load)).is_ok(),
        _ => sender.try_send(load).is_ok(),
    };
    next[level] += u64::from(sent);
    sent
}

fn receive_for_ever(segment: &Segment, again: bool, seed: u64) {
    let receiver = loads(segment, again).receiver().unwrap();
    let done = segment.channel::<[u64; 2]>("done").sender().unwrap();
    let mut random = Random::new(seed);
    let mut last = HashMap::new();
    within(async {
        let mut kept = Vec::new();
        while let Some(message) = receiver.recv().await {
            let stamp = message.verify();
            assert!(!is_late(stamp), "{stamp:x} was delivered late");
            // What has come back has no sender any more: what the dead had taken and not looked at is not counted as delivered.
            if message.delivery_count() == 1 && message.sender().is_some() {
                // Each level keeps its order.
                let before = last.insert(message.source(), message.number());
                assert!(before.is_none_or(|before| before < message.number()), "{stamp:x} after {before:?}");
            }
            if !again {
                done.send([stamp, 1]).await.unwrap();
                continue;
            }
            kept.push(message);
            if kept.len() > random.below(6) {
                let message = kept.swap_remove(random.below(kept.len()));
                if random.below(10) == 0 {
                    message.nack();
                    continue;
                }
                // Told before it is acknowledged: so it may be told twice, and is never not told.
                done.send([message.stamp, u64::from(message.delivery_count())]).await.unwrap();
                message.ack();
            }
        }
    });
}

fn send_for_ever(segment: &Segment, again: bool, id: u64) {
    let sender = loads(segment, again).sender().unwrap();
    let (mut random, mut next) = (Random::new(id), [0; 4]);
    loop {
        if !send_one(&sender, id, &mut next, &mut random) {
            thread::sleep(Duration::from_micros(100));
        }
    }
}

#[derive(Default)]
struct Ends {
    /// How often each was done, by stamp; and those that were delivered for the first time.
    done: BTreeMap<u64, usize>,
    first: BTreeSet<u64>,
    late: BTreeSet<u64>,
    done_again: u64,
}

impl Ends {
    fn note_done(&mut self, stamp: u64, count: u64) {
        *self.done.entry(stamp).or_default() += 1;
        self.done_again += u64::from(count > 1);
        assert!(count > 1 || self.first.insert(stamp), "{stamp:x} was delivered twice for the first time");
    }

    fn note_late(&mut self, load: &Load) {
        let stamp = load.verify();
        assert!(is_late(stamp) && self.late.insert(stamp), "{stamp:x} is a dead letter, or again");
    }

    /// The end of a message.
    fn has(&self, stamp: u64) -> bool {
        if is_late(stamp) { self.late.contains(&stamp) } else { self.done.contains_key(&stamp) }
    }
}

fn kill_and_account(test: &str, again: bool, kills: usize) {
    let place = Place::new();
    let segment = open(&place);
    if let Some(role) = role() {
        let (what, number) = role.split_once(' ').unwrap();
        let number = number.parse().unwrap();
        return if what == "send" {
            send_for_ever(&segment, again, number)
        } else {
            receive_for_ever(&segment, again, number)
        };
    }
    let letters = segment.channel::<Load>("late").capacity(1 << 13).persistent(true).receiver().unwrap();
    let done = segment.channel::<[u64; 2]>("done").capacity(256).receiver().unwrap();
    let sender = loads(&segment, again).sender().unwrap();
    let mut random = Random::new(29);
    let mut children = 0_u64;
    let mut start = |what: &str| {
        children += 1;
        place.spawn(test, &format!("{what} {children}"))
    };
    let mut victims: Vec<(&str, Process)> =
        ["receive", "receive", "send"].into_iter().map(|what| (what, start(what))).collect();
    let (mut ends, mut sent, mut killed) = (Ends::default(), [0; 4], 0);
    let mut receivers_killed = 0;
    let mut next = random.below(500);
    while killed < kills {
        while send_one(&sender, 0, &mut sent, &mut random) {}
        let mut progress = false;
        letters.drain().for_each(|letter| ends.note_late(&letter));
        for report in done.drain() {
            ends.note_done(report[0], report[1]);
            next = next.saturating_sub(1);
            progress = true;
        }
        if next == 0 {
            let (what, mut victim) = victims.swap_remove(random.below(3));
            assert!(victim.ended().is_none(), "{what} has ended by itself");
            victim.kill();
            killed += 1;
            receivers_killed += usize::from(what == "receive");
            victims.push((what, start(what)));
            next = random.below(500);
        }
        if !progress {
            thread::sleep(Duration::from_micros(200));
        }
    }
    for (what, mut victim) in victims {
        assert!(victim.ended().is_none(), "{what} has ended by itself");
        victim.kill();
    }
    receivers_killed += 2;
    let rest = loads(&segment, again).receiver().unwrap();
    eventually("all dead are buried", || {
        segment.bury_the_dead();
        // Their ends go after what they held has come back.
        rest.receiver_count() == 1 && rest.sender_count() == 1
    });
    done.drain().for_each(|report| ends.note_done(report[0], report[1]));
    while let Ok(message) = rest.try_recv() {
        ends.note_done(message.verify(), message.delivery_count().into());
        message.ack();
        letters.drain().for_each(|letter| ends.note_late(&letter));
    }
    letters.drain().for_each(|letter| ends.note_late(&letter));

    // What we have sent, and of each sender that was killed what it had sent, which has no gap.
    let mut sources: BTreeMap<(u64, u64), u64> = (0..4).map(|level| ((0, level), sent[level as usize])).collect();
    for stamp in ends.done.keys().chain(&ends.late) {
        let most = sources.entry((stamp >> 48, stamp >> 40 & 0xff)).or_default();
        *most = (*most).max((stamp & ((1 << 40) - 1)) + 1);
    }
    let all = sources
        .iter()
        .flat_map(|((sender, level), most)| (0..*most).map(move |number| sender << 48 | level << 40 | number));
    let lost: Vec<u64> = all.filter(|stamp| !ends.has(*stamp)).collect();
    let counts = rest.inquire().counts;
    println!(
        "{} done, {} of them again, {} late, {} lost with {receivers_killed} receivers, {counts:?}",
        ends.done.len(),
        ends.done_again,
        ends.late.len(),
        lost.len()
    );
    // Whoever is killed may have moved one that it has not counted yet.
    let uncounted = ends.late.len() as u64 - counts.dead_letters;
    assert!(uncounted <= kills as u64 + 3, "{uncounted} are not counted");
    assert_eq!((counts.discarded, counts.dropped, rest.invalid()), (0, 0, 0));
    // At most once, a receiver that is killed takes one with it that it had received: never one that had expired.
    assert!(lost.iter().all(|stamp| !is_late(*stamp)), "late and lost: {lost:x?}");
    assert!(lost.len() <= if again { 0 } else { receivers_killed }, "lost: {lost:x?}");
    assert!(!ends.late.is_empty() && (!again || ends.done_again > 0));
    drop((sender, rest, done, letters));
    let report = segment.check();
    assert!(report.is_clean(), "{report:?}");
    // The rings of the two persistent channels.
    let held: usize = report.sectors.iter().map(|sector| sector.allocated_blocks + sector.in_flight_blocks).sum();
    assert_eq!(held, 2);
}

#[test]
fn at_least_once_nothing_is_lost_and_what_has_expired_is_a_dead_letter_once() {
    kill_and_account("at_least_once_nothing_is_lost_and_what_has_expired_is_a_dead_letter_once", true, 60);
}

#[test]
fn at_most_once_only_what_a_killed_receiver_had_is_lost_and_nothing_that_had_expired() {
    kill_and_account("at_most_once_only_what_a_killed_receiver_had_is_lost_and_nothing_that_had_expired", false, 60);
}

#[test]
fn whoever_overwrites_may_be_killed_and_the_others_go_on() {
    const TEST: &str = "whoever_overwrites_may_be_killed_and_the_others_go_on";
    const KILLS: usize = 40;
    let place = Place::new();
    let segment = open(&place);
    let options = || segment.bytes("latest").policy(Retention::keep_last(2)).persistent(true);
    if let Some(role) = role() {
        let sender = options().sender().unwrap();
        let id: u32 = role.parse().unwrap();
        // As fast as it can: it never waits.
        for number in 0.. {
            sender.try_send(common::Stamp { sender: id, number }.message(100)).unwrap();
        }
    }
    let receiver = options().receiver().unwrap();
    let mut random = Random::new(5);
    let mut victims: Vec<Process> = (0..2).map(|id| place.spawn(TEST, &id.to_string())).collect();
    let mut last = HashMap::new();
    for kill in 0..KILLS {
        for _ in 0..random.below(3000) + 100 {
            let message = within(receiver.recv()).unwrap();
            let stamp = common::Stamp::verify(&message).unwrap();
            if message.sender().is_none() {
                // Perhaps it came back from somebody who was killed when it was about to drop it.
                continue;
            }
            let before = last.insert(stamp.sender, stamp.number);
            assert!(before.is_none_or(|before| before < stamp.number), "{stamp:?} after {before:?}");
        }
        let mut victim = victims.swap_remove(random.below(2));
        assert!(victim.ended().is_none());
        victim.kill();
        victims.push(place.spawn(TEST, &(kill + 2).to_string()));
    }
    victims.into_iter().for_each(Process::kill);
    eventually("all dead are buried", || {
        segment.bury_the_dead();
        receiver.sender_count() == 0
    });
    // What each of the last three was about to drop when it was killed may have come back.
    let (dropped, left) = (receiver.inquire().counts.dropped, receiver.len());
    assert!(dropped > 0 && left <= 2 + 3, "{dropped} were dropped, {left} are left");
    receiver.drain().for_each(drop);
    drop(receiver);
    let report = segment.check();
    assert!(report.is_clean(), "{report:?}");
    let held: usize = report.sectors.iter().map(|sector| sector.allocated_blocks + sector.in_flight_blocks).sum();
    assert_eq!(held, 1, "the ring of the persistent channel");
}
