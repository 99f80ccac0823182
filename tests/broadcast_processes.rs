//! Broadcasts between processes, some of which are killed or stopped: groups see all, what the dead held is done with or comes
//! again, and nothing is left of them.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use common::{PATIENCE, Place, Process, Random, Stamp, eventually, ready, role, wait_until_ready, within};
use waterway::{
    Delivery, Segment,
    broadcast::{self, Behind, GroupOptions, Publisher, Subscriber},
};

const MOST: u32 = 100;

fn open(place: &Place) -> Segment {
    place.options().open("broadcast").unwrap()
}

fn group(segment: &Segment, name: &str) -> GroupOptions<[u8]> {
    let group = segment.broadcast::<[u8]>("stamps").capacity(32).group(name);
    match name {
        "blocking" => group.behind(Behind::Block),
        "workers" => {
            group.behind(Behind::Block).delivery(Delivery::AtLeastOnce { max_deliveries: MOST }).persistent(true)
        }
        "evicted" => group.behind(Behind::Evict(Duration::from_millis(50))),
        _ => group,
    }
}

fn publisher(segment: &Segment) -> Publisher<[u8]> {
    segment.broadcast::<[u8]>("stamps").capacity(32).publisher().unwrap()
}

/// What a child says it has done with: `sender:24 | number:40`.
fn word(stamp: Stamp) -> u64 {
    u64::from(stamp.sender) << 40 | stamp.number
}

/// Publishes stamps of this process: as many as it is told to, or until it is killed.
fn publish(place: &Place, most: u64) {
    let segment = open(place);
    let publisher = publisher(&segment);
    let sender = std::process::id() & 0xff_ffff;
    let mut random = Random::new(sender.into());
    ready(place);
    for number in 0..most {
        let message = Stamp { sender, number }.message(1 + random.below(if number % 50 == 0 { 100_000 } else { 300 }));
        publisher.blocking_send(message).unwrap();
    }
}

/// Takes messages for a group, keeps some for a while, and says what it has done with.
fn work(place: &Place, name: &str) {
    let segment = open(place);
    let told = segment.channel::<u64>("told").sender().unwrap();
    let member = group(&segment, name).subscriber().unwrap();
    let mut random = Random::new(std::process::id().into());
    let mut kept = Vec::new();
    ready(place);
    loop {
        match member.blocking_recv() {
            Ok(message) => {
                let stamp = Stamp::verify(&message).unwrap();
                assert!(message.delivery_count() == 1 || name == "workers");
                kept.push((stamp, message));
                if kept.len() > random.below(6) {
                    for (stamp, message) in kept.drain(..) {
                        assert_eq!(Stamp::verify(&message), Some(stamp));
                        if name == "workers" && random.below(20) == 0 {
                            message.nack();
                            continue;
                        }
                        if name == "workers" || name == "blocking" {
                            told.blocking_send(word(stamp)).unwrap();
                        }
                    }
                }
            }
            Err(broadcast::RecvError::Lagged(_)) if name == "lagging" => {}
            Err(broadcast::RecvError::Evicted) if name == "evicted" => return,
            Err(broadcast::RecvError::Closed) => {
                for (stamp, message) in kept {
                    if name == "workers" || name == "blocking" {
                        told.blocking_send(word(stamp)).unwrap();
                    }
                    drop(message);
                }
                return;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Plays a child's part; `false` in the parent.
fn is_child(place: &Place) -> bool {
    match role().as_deref() {
        Some("publish") => publish(place, 2000),
        Some("publish for ever") => publish(place, u64::MAX),
        Some(name) => work(place, name),
        None => return false,
    }
    true
}

fn spawn(place: &Place, test: &str, role: &str) -> Process {
    let process = place.spawn(test, role);
    wait_until_ready(place, &process);
    process
}

/// Sees all that is published, and that each sender's are complete and in order.
#[derive(Default)]
struct Witness {
    next: BTreeMap<u32, u64>,
    last: Option<u64>,
    seen: BTreeSet<u64>,
}

impl Witness {
    fn look(&mut self, subscriber: &Subscriber<[u8]>) -> bool {
        match subscriber.try_recv() {
            Ok(message) => {
                let stamp = Stamp::verify(&message).unwrap();
                assert!(self.last < Some(message.sequence()));
                self.last = Some(message.sequence());
                let next = self.next.entry(stamp.sender).or_default();
                assert_eq!(stamp.number, *next, "of {}", stamp.sender);
                *next += 1;
                assert!(self.seen.insert(word(stamp)));
                true
            }
            Err(broadcast::TryRecvError::Empty | broadcast::TryRecvError::Closed) => false,
            Err(error) => panic!("{error}"),
        }
    }
}

fn published(segment: &Segment) -> usize {
    let report = segment.check();
    assert!(report.is_clean(), "{report:?}");
    report.sectors.iter().map(|sector| sector.in_flight_bytes).sum()
}

#[test]
fn groups_of_processes_see_every_message() {
    let place = Place::new();
    if is_child(&place) {
        return;
    }
    let test = "groups_of_processes_see_every_message";
    let segment = place.options().size(32 << 20).create("broadcast").unwrap();
    let told = segment.channel::<u64>("told").capacity(1 << 16).receiver().unwrap();
    let alone = segment.broadcast::<[u8]>("stamps").capacity(32).only().behind(Behind::Block).subscriber().unwrap();
    let members: Vec<_> =
        ["blocking", "blocking", "blocking", "lagging"].iter().map(|name| spawn(&place, test, name)).collect();
    let publishers: Vec<_> = (0..2).map(|_| spawn(&place, test, "publish")).collect();
    let mut witness = Witness::default();
    let started = Instant::now();
    while witness.seen.len() < 4000 {
        if !witness.look(&alone) {
            thread::yield_now();
        }
        assert!(started.elapsed() < PATIENCE, "{} seen", witness.seen.len());
    }
    publishers.into_iter().for_each(Process::succeed);
    members.into_iter().for_each(Process::succeed);
    assert_eq!(alone.try_recv().unwrap_err(), broadcast::TryRecvError::Closed);
    let done: Vec<u64> = told.drain().map(|word| *word).collect();
    assert_eq!(done.len(), 4000);
    assert!(done.into_iter().collect::<BTreeSet<_>>() == witness.seen);
    segment.bury_the_dead();
    assert_eq!(published(&segment), 0);
}

#[test]
fn whoever_is_killed_takes_nothing_with_it() {
    let place = Place::new();
    if is_child(&place) {
        return;
    }
    let test = "whoever_is_killed_takes_nothing_with_it";
    let segment = place.options().size(32 << 20).create("broadcast").unwrap();
    let told = segment.channel::<u64>("told").capacity(1 << 20).persistent(true).receiver().unwrap();
    drop(group(&segment, "workers").subscriber().unwrap());
    let alone = group(&segment, "witness").behind(Behind::Block).subscriber().unwrap();
    let roles = ["publish for ever", "publish for ever", "workers", "workers", "lagging", "evicted", "blocking"];
    let seed = std::process::id().into();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let mut witness = Witness::default();
    let mut children: Vec<(usize, Process)> =
        (0..roles.len()).map(|index| (index, spawn(&place, test, roles[index]))).collect();
    for _ in 0..60 {
        let until = Instant::now() + Duration::from_micros(random.below(30_000) as u64);
        while Instant::now() < until {
            if !witness.look(&alone) {
                thread::yield_now();
            }
        }
        let (index, child) = children.swap_remove(random.below(children.len()));
        child.kill();
        children.push((index, spawn(&place, test, roles[index])));
    }
    // Publishers first: who is killed afterwards leaves no more.
    children.sort_by_key(|(index, _)| *index);
    children.into_iter().for_each(|(_, child)| child.kill());
    segment.bury_the_dead();
    while witness.look(&alone) {}
    println!("{} messages", witness.seen.len());
    // What was in the hands of the dead comes again, and what they had not taken comes.
    let workers = group(&segment, "workers").subscriber().unwrap();
    let mut done: BTreeSet<u64> = told.drain().map(|word| *word).collect();
    let mut again = 0;
    while let Ok(message) = workers.try_recv() {
        again += u32::from(message.delivery_count() > 1);
        done.insert(word(Stamp::verify(&message).unwrap()));
    }
    println!("{again} came again");
    let missing: Vec<_> = witness.seen.difference(&done).collect();
    assert!(missing.is_empty(), "{} of {} were lost: {missing:?}", missing.len(), witness.seen.len());
    assert_eq!(published(&segment), 0);
    // Of the groups of the dead nothing is left.
    drop((alone, workers));
    let left = segment.channels();
    assert_eq!(left.len(), 3, "{left:?}");
    assert_eq!(witness.next.len().min(2), 2);
}

#[test]
fn who_dies_with_a_message_in_hands_pins_nothing() {
    let place = Place::new();
    let test = "who_dies_with_a_message_in_hands_pins_nothing";
    if let Some(role) = role() {
        let segment = open(&place);
        let member = group(&segment, &role).subscriber().unwrap();
        ready(&place);
        let kept: Vec<_> = (0..5).map(|_| member.blocking_recv().unwrap()).collect();
        std::fs::write(place.path().join(format!("has-{}", std::process::id())), []).unwrap();
        kept.iter().for_each(|message| assert!(Stamp::verify(message).is_some()));
        common::wait_to_be_killed();
    }
    let segment = place.options().size(8 << 20).create("broadcast").unwrap();
    let publisher = publisher(&segment);
    let witness = group(&segment, "workers").subscriber().unwrap();
    let other = group(&segment, "lagging").subscriber().unwrap();
    let children = ["lagging", "blocking", "workers"].map(|name| spawn(&place, test, name));
    for number in 0..10 {
        assert_eq!(publisher.try_send(Stamp { sender: 1, number }.message(1000)).unwrap(), 3);
    }
    let has = |child: &Process| place.path().join(format!("has-{}", child.pid())).exists();
    eventually("all have five", || children.iter().all(has));
    // All others of that group are done with theirs before its member dies.
    let rest: Vec<u64> = std::iter::from_fn(|| other.try_recv().ok()).map(|message| message.sequence()).collect();
    assert_eq!(rest, [5, 6, 7, 8, 9]);
    let came: Vec<_> = std::iter::from_fn(|| witness.try_recv().ok())
        .map(|message| (message.sequence(), message.delivery_count()))
        .collect();
    assert_eq!(came, [5, 6, 7, 8, 9].map(|number| (number, 1)));
    let [lagging, blocking, worker] = children;
    [blocking, worker].into_iter().for_each(Process::kill);
    // That group is gone; what the workers' member held comes again. (The third child may be the one that buries.)
    eventually("the dead are buried", || {
        segment.bury_the_dead();
        publisher.group_count() == 2
    });
    let came = [(); 5].map(|()| {
        let message = within(witness.recv()).unwrap();
        (message.sequence(), message.delivery_count())
    });
    assert_eq!(came, [0, 1, 2, 3, 4].map(|number| (number, 2)));
    // What only the other dead one held is free without anybody's doing anything.
    assert!(published(&segment) > 5 * 1000);
    lagging.kill();
    segment.bury_the_dead();
    assert_eq!(published(&segment), 0);
    // Nobody who blocks is left.
    for number in 0..32 {
        publisher.try_send(Stamp { sender: 1, number }.message(10)).unwrap();
    }
    assert!(publisher.try_send([]).is_err());
    drop((witness, other));
    assert!(publisher.try_send([]).is_err(), "it is persistent");
}

/// A member that stands still with messages in its hands, and waits in a queue, stops neither publishers nor other groups.
#[test]
fn who_is_stopped_stops_nobody_else() {
    let place = Place::new();
    if is_child(&place) {
        return;
    }
    let test = "who_is_stopped_stops_nobody_else";
    let segment = place.options().size(16 << 20).create("broadcast").unwrap();
    let _told = segment.channel::<u64>("told").capacity(1 << 12).receiver().unwrap();
    let publisher = publisher(&segment);
    let alone = group(&segment, "witness").behind(Behind::Block).subscriber().unwrap();
    let children = ["lagging", "lagging", "evicted"].map(|name| spawn(&place, test, name));
    let signal = |name: &str| {
        for child in &children {
            assert!(Command::new("kill").args([name, &child.pid().to_string()]).status().unwrap().success());
        }
    };
    let mut random = Random::new(3);
    let mut number = 0;
    for _ in 0..20 {
        signal("-STOP");
        for _ in 0..200 {
            let message = Stamp { sender: 1, number }.message(1 + random.below(2000));
            within(publisher.send(message)).unwrap();
            assert_eq!(Stamp::verify(&within(alone.recv()).unwrap()).unwrap().number, number);
            number += 1;
        }
        signal("-CONT");
        thread::sleep(Duration::from_millis(1));
    }
    drop(publisher);
    children.into_iter().for_each(Process::succeed);
    segment.bury_the_dead();
    assert_eq!(published(&segment), 0);
}
