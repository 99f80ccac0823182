//! Routing by key between processes that are killed, stopped, or leave: nothing is lost, the order of each key holds, and each key
//! is with one receiver at a time.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    process::ExitStatus,
    thread,
    time::{Duration, Instant},
};

use common::{PATIENCE, Place, Process, Random, assert_empty, eventually, ready, role, wait_until_ready, within};
use waterway::{
    Delivery, Receiver, Segment, Sender, TryRecvError,
    policy::{Policy, RouteKey},
    routing,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Order {
    key: u64,
    number: u64,
}

impl Policy for Order {
    fn route(&self) -> RouteKey {
        self.key.into()
    }
}

fn orders(segment: &Segment) -> routing::Options<Order> {
    let delivery = Delivery::AtLeastOnce { max_deliveries: 10_000 };
    segment.channel::<Order>("orders").capacity(32).delivery(delivery).routed().partitions(8)
}

/// What a process tells: in one queue for all, so in the order in which it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Event {
    order: Order,
    who: u64,
    what: u32,
    deliveries: u32,
}

/// After the message was sent.
const SENT: u32 = 1;
/// After it was received.
const TOOK: u32 = 2;
/// Before it is acknowledged.
const DONE: u32 = 3;

/// What is known of a key.
#[derive(Debug, Default)]
struct Key {
    sent: Option<u64>,
    taken: BTreeSet<u64>,
    done: BTreeSet<u64>,
    /// What is taken and not done, and by whom.
    held: HashMap<u64, BTreeSet<u64>>,
}

/// Checks what happens.
#[derive(Debug, Default)]
struct Ledger {
    keys: BTreeMap<u64, Key>,
    /// Those whose messages others were given: they must be dead by then.
    overtaken: HashSet<u64>,
    redelivered: usize,
}

impl Ledger {
    fn note(&mut self, event: Event) -> Result<(), String> {
        let Event { order: Order { key: name, number }, who, what, deliveries } = event;
        let key = self.keys.entry(name).or_default();
        let wrong = |why: &str| Err(format!("{event:?}: {why}"));
        if what == SENT {
            key.sent = key.sent.max(Some(number));
            return Ok(());
        }
        if self.overtaken.contains(&who) {
            return wrong("another receiver has what this one had, and it lives");
        }
        if what == DONE {
            key.held.get_mut(&who).map(|held| held.remove(&number));
            key.done.insert(number);
            return Ok(());
        }
        for (other, held) in &mut key.held {
            if *other != who && !held.is_empty() {
                self.overtaken.insert(*other);
                held.clear();
            }
        }
        if deliveries == 1 && !key.taken.insert(number) {
            return wrong("it comes again and does not say so");
        }
        key.taken.insert(number);
        self.redelivered += usize::from(deliveries > 1);
        let held = key.held.entry(who).or_default();
        if let Some(before) = (0..number).rev().find(|before| !key.done.contains(before) && !held.contains(before)) {
            return wrong(&format!("number {before} was not done with before"));
        }
        if held.last().is_some_and(|last| *last >= number) {
            return wrong("it comes after one that was sent later");
        }
        held.insert(number);
        Ok(())
    }

    fn note_all(&mut self, log: &Receiver<Event>) {
        while let Ok(event) = log.try_recv() {
            self.note(*event).unwrap_or_else(|wrong| panic!("{wrong}"));
        }
    }

    /// Whether all that was sent is done with.
    fn is_complete(&self) -> bool {
        self.keys.values().all(|key| {
            let seen = key.taken.last().copied().max(key.sent);
            seen.is_none_or(|last| key.done.len() as u64 == last + 1)
        })
    }

    fn done(&self) -> usize {
        self.keys.values().map(|key| key.done.len()).sum()
    }
}

fn log(segment: &Segment) -> Sender<Event> {
    segment.channel("log").capacity(4096).sender().unwrap()
}

/// Receives until it is told to leave by the end of its input, keeping some messages for a while.
fn receive(segment: &Segment, who: u64, most: usize) {
    let (receiver, log) = (orders(segment).receiver().unwrap(), log(segment));
    let tell = |order, what, deliveries| log.blocking_send(Event { order, who, what, deliveries }).unwrap();
    if most == usize::MAX && who.is_multiple_of(2) {
        // One that waits for as long as it takes.
        while let Some(message) = receiver.blocking_recv() {
            tell(*message, TOOK, message.delivery_count());
            tell(*message, DONE, 0);
        }
        return;
    }
    let mut random = Random::new(who);
    let mut held = Vec::new();
    for _ in 0..most {
        let message = within(receiver.recv_timeout(Duration::from_millis(2)));
        let waits = message.is_err();
        if let Ok(message) = message {
            tell(*message, TOOK, message.delivery_count());
            held.push(message);
        }
        if waits || held.len() > 80 || random.below(60) == 0 {
            for message in held.drain(..) {
                tell(*message, DONE, 0);
                message.ack();
            }
        }
    }
    // In good order, with messages in its hands.
    drop(receiver);
    for message in held {
        tell(*message, DONE, 0);
    }
}

/// Sends some messages of keys of its own.
fn send(segment: &Segment, who: u64) {
    let (sender, log) = (orders(segment).sender().unwrap(), log(segment));
    for number in 0..400 {
        for key in 0..5 {
            let order = Order { key: who << 16 | key, number };
            sender.blocking_send(order).unwrap();
            log.blocking_send(Event { order, who, what: SENT, deliveries: 0 }).unwrap();
        }
    }
}

fn make(place: &Place) -> Segment {
    place.options().size(16 << 20).participants(16).open_or_create("deaths").unwrap()
}

/// Plays a part, if this is a child.
fn play(place: &Place) -> bool {
    let Some(role) = role() else { return false };
    let segment = make(place);
    let (part, who) = role.split_once(' ').unwrap();
    let who = who.parse().unwrap();
    match part {
        "send" => send(&segment, who),
        "visit" => receive(&segment, who, 200),
        "stay" => receive(&segment, who, usize::MAX),
        _ => panic!("{role}"),
    }
    true
}

fn signal(process: &Process, signal: i32) {
    // SAFETY: a child of ours that was not reaped yet.
    assert_eq!(unsafe { libc::kill(process.pid() as i32, signal) }, 0);
}

#[test]
fn the_order_of_a_key_survives_the_deaths_of_those_who_send_and_receive() {
    const TEST: &str = "the_order_of_a_key_survives_the_deaths_of_those_who_send_and_receive";
    const ROUNDS: usize = 120;
    let place = Place::new();
    if play(&place) {
        return;
    }
    let segment = make(&place);
    let events = segment.channel::<Event>("log").capacity(4096).receiver().unwrap();
    // Never asked for a message, it has no partitions: it only keeps the channel. And while there is a sender, nobody hears of
    // its end.
    let (open, keeper) = orders(&segment).open().unwrap();
    let mut ledger = Ledger::default();
    let seed = std::env::var("WATERWAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let mut random = Random::new(seed);
    let mut next = 0;
    let mut start = |part: &str| {
        next += 1;
        place.spawn(TEST, &format!("{part} {next}"))
    };
    let mut senders: Vec<Process> = (0..2).map(|_| start("send")).collect();
    let mut receivers: Vec<Process> = (0..3).map(|_| start("stay")).collect();
    let (mut killed, mut stopped) = (0, 0);
    for _ in 0..ROUNDS {
        let until = Instant::now() + Duration::from_micros(random.below(60_000) as u64);
        while Instant::now() < until {
            ledger.note_all(&events);
            thread::sleep(Duration::from_millis(1));
        }
        let victim = random.below(receivers.len());
        match random.below(8) {
            0 => {
                let sender = random.below(senders.len());
                std::mem::replace(&mut senders[sender], start("send")).kill();
                killed += 1;
            }
            1 => {
                signal(&receivers[victim], libc::SIGSTOP);
                thread::sleep(Duration::from_millis(random.below(30) as u64));
                signal(&receivers[victim], libc::SIGCONT);
                stopped += 1;
            }
            // One more, for a while: it leaves by itself.
            2 if receivers.len() < 6 => receivers.push(start("visit")),
            // Stopped and then killed, wherever that is.
            part => {
                if part == 3 {
                    signal(&receivers[victim], libc::SIGSTOP);
                    thread::sleep(Duration::from_millis(2));
                }
                std::mem::replace(&mut receivers[victim], start("stay")).kill();
                killed += 1;
            }
        }
        receivers.retain_mut(|receiver| receiver.ended().is_none_or(|status| !ended_well(status)));
        senders.iter_mut().for_each(|sender| {
            if let Some(status) = sender.ended() {
                ended_well(status);
                *sender = start("send");
            }
        });
    }
    senders.into_iter().for_each(Process::kill);
    let started = Instant::now();
    // What was sent and not told of is seen by being received.
    while !(ledger.is_complete() && keeper.is_empty()) {
        assert!(started.elapsed() < PATIENCE, "{} messages wait; {:?}", keeper.len(), ledger.keys);
        ledger.note_all(&events);
        thread::sleep(Duration::from_millis(1));
    }
    receivers.into_iter().for_each(Process::kill);
    ledger.note_all(&events);
    println!("{killed} killed, {stopped} stopped, {} done, {} redelivered", ledger.done(), ledger.redelivered);
    assert!(ledger.is_complete() && ledger.redelivered > 0);
    eventually("the dead are buried", || {
        segment.bury_the_dead();
        segment.participants().len() == 1
    });
    // The last ones may have been killed before an acknowledgement that they had told of.
    while let Ok(message) = keeper.try_recv() {
        assert!(ledger.keys[&message.key].done.contains(&message.number) && message.delivery_count() > 1);
    }
    assert_eq!(keeper.partitions().len(), 8);
    drop((open, keeper, events));
    assert_empty(&segment);
    assert!(segment.channels().is_empty());
}

fn ended_well(status: ExitStatus) -> bool {
    assert!(status.success(), "a process ended with {status}");
    true
}

/// The ledger sees what a channel without routing does: this test is about the tests.
#[test]
fn receivers_of_a_plain_channel_do_not_keep_the_order() {
    let segment = common::in_process();
    let (sender, one) = segment.channel::<Order>("plain").open().unwrap();
    let other = one.clone();
    (0..4).for_each(|number| sender.try_send(Order { key: 1, number }).unwrap());
    let mut ledger = Ledger::default();
    let mut note = |who, what, order: Order| ledger.note(Event { order, who, what, deliveries: 1 });
    let first = one.try_recv().unwrap();
    note(1, TOOK, *first).unwrap();
    // At another one while the first is not done with: either that is seen at once, or as soon as the first does anything.
    let second = other.try_recv().unwrap();
    assert!(note(2, TOOK, *second).is_err());
    assert!(note(1, DONE, *first).is_err());
    let mut ledger = Ledger::default();
    let mut note = |who, what, order: Order, deliveries| ledger.note(Event { order, who, what, deliveries });
    note(1, TOOK, *first, 1).unwrap();
    assert!(note(1, TOOK, *first, 1).is_err(), "twice, and does not say so");
    assert!(note(1, TOOK, Order { key: 1, number: 2 }, 1).is_err(), "a gap");
}

/// Receives all that is there for it.
fn drain(receiver: &routing::Receiver<Order>) -> Vec<(u64, u64, u32)> {
    std::iter::from_fn(|| receiver.try_recv().ok())
        .map(|message| (message.key, message.number, message.delivery_count()))
        .collect()
}

/// A child that keeps all it gets, and says how many that should be.
fn keep(place: &Place, most: usize) -> ! {
    let segment = make(place);
    let receiver = orders(&segment).receiver().unwrap();
    let held: Vec<_> = (0..most).map(|_| receiver.blocking_recv().unwrap()).collect();
    ready(place);
    let _kept = held;
    common::wait_to_be_killed();
}

#[test]
fn what_a_dead_receiver_had_comes_first_and_in_order_however_many_die_of_it() {
    const TEST: &str = "what_a_dead_receiver_had_comes_first_and_in_order_however_many_die_of_it";
    let place = Place::new();
    if let Some(role) = role() {
        keep(&place, role.parse().unwrap());
    }
    let segment = make(&place);
    let (sender, receiver) = orders(&segment).open().unwrap();
    (0..20).for_each(|number| sender.try_send(Order { key: 5, number }).unwrap());
    // Each dies with fewer than the one before: what it gives back was sent before what is still there of the others.
    for most in [12, 7, 3] {
        let child = place.spawn(TEST, &most.to_string());
        wait_until_ready(&place, &child);
        child.kill();
    }
    eventually("the dead is buried", || {
        segment.bury_the_dead();
        segment.participants().len() == 1
    });
    let expected: Vec<_> = (0..20)
        .map(|number| (5, number, 1 + [12, 7, 3].into_iter().filter(|most| number < *most).count() as u32))
        .collect();
    assert_eq!(drain(&receiver), expected);
    drop((sender, receiver));
    assert_empty(&segment);
}

#[test]
fn a_stopped_receiver_stops_its_own_keys_and_no_others() {
    const TEST: &str = "a_stopped_receiver_stops_its_own_keys_and_no_others";
    let place = Place::new();
    if role().is_some() {
        keep(&place, 4);
    }
    let segment = make(&place);
    let (sender, receiver) = orders(&segment).open().unwrap();
    let partition = |key: u64| sender.partition_of(key.into()).unwrap();
    let keys: Vec<u64> = (0..8).map(|at| (0..).find(|key| partition(*key) == at).unwrap()).collect();
    let child = place.spawn(TEST, "4");
    // Both have their halves when the child has got four messages.
    let mut sent = 0;
    eventually("each has its share", || {
        let _ = drain(&receiver);
        if receiver.partitions().len() == 4 && sent == 0 {
            let mine = receiver.partitions();
            keys.iter().filter(|key| !mine.contains(&partition(**key))).for_each(|key| {
                sender.try_send(Order { key: *key, number: 0 }).unwrap();
                sent += 1;
            });
        }
        sent > 0
    });
    wait_until_ready(&place, &child);
    signal(&child, libc::SIGSTOP);
    let mine = receiver.partitions();
    for number in 1..20 {
        keys.iter().for_each(|key| sender.try_send(Order { key: *key, number }).unwrap());
    }
    let got = drain(&receiver);
    assert_eq!(got.len(), 4 * 19);
    assert!(got.iter().all(|(key, _, _)| mine.contains(&partition(*key))));
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
    // Killed while it is stopped: now they are to be had, what it had received first.
    child.kill();
    let mut rest = Vec::new();
    eventually("the rest comes", || {
        rest.extend(drain(&receiver));
        rest.len() == 4 * 20
    });
    for key in keys.iter().filter(|key| !mine.contains(&partition(**key))) {
        let of_key = rest.iter().filter(|(of, _, _)| of == key).map(|(_, number, count)| (*number, *count));
        let of_key: Vec<_> = of_key.collect();
        let expected: Vec<_> = (0..20).map(|number| (number, if number == 0 { 2 } else { 1 })).collect();
        assert_eq!(of_key, expected, "key {key}");
    }
    drop((sender, receiver));
    assert_empty(&segment);
}

#[test]
fn those_who_wait_are_woken_when_a_receiver_or_the_last_sender_dies() {
    const TEST: &str = "those_who_wait_are_woken_when_a_receiver_or_the_last_sender_dies";
    let place = Place::new();
    match role().as_deref() {
        None => {}
        Some("send") => {
            let _sender = orders(&make(&place)).sender().unwrap();
            ready(&place);
            common::wait_to_be_killed();
        }
        Some(most) => keep(&place, most.parse().unwrap()),
    }
    let segment = make(&place);
    let sender = orders(&segment).sender().unwrap();
    let keeper = orders(&segment).receiver().unwrap();
    (0..3).for_each(|number| sender.try_send(Order { key: 1, number }).unwrap());
    let child = place.spawn(TEST, "3");
    wait_until_ready(&place, &child);
    let other = place.spawn(TEST, "send");
    wait_until_ready(&place, &other);
    drop(sender);
    let waiting = thread::spawn(move || {
        let numbers: Vec<u64> = (0..3).map(|_| keeper.blocking_recv().unwrap().number).collect();
        (numbers, keeper.blocking_recv().is_none())
    });
    thread::sleep(Duration::from_millis(20));
    child.kill();
    thread::sleep(Duration::from_millis(20));
    other.kill();
    assert_eq!(waiting.join().unwrap(), (vec![0, 1, 2], true));
    assert_empty(&segment);
}

/// Channels of which a child opens one after the other until it is killed.
const MANY: usize = 24;
const PARTITIONS: usize = 12;

fn make_many(place: &Place) -> Segment {
    place.options().size(16 << 20).participants(16).channels(512).open_or_create("openers").unwrap()
}

fn of_many(segment: &Segment, number: usize) -> routing::Options<Order> {
    segment.channel::<Order>(&format!("many-{number}")).capacity(8).routed().partitions(PARTITIONS)
}

/// Kills a child that opens in that role, at a random time, and has it buried.
fn kill_an_opener(place: &Place, segment: &Segment, test: &str, role: &str, random: &mut Random) {
    let child = place.spawn(test, role);
    wait_until_ready(place, &child);
    let started = Instant::now();
    let time = Duration::from_micros(random.below(1500) as u64);
    while started.elapsed() < time {
        std::hint::spin_loop();
    }
    child.kill();
    eventually("the dead is buried", || {
        segment.bury_the_dead();
        segment.participants().len() == 1
    });
}

#[test]
fn a_channel_whose_opener_or_closer_dies_is_closed_as_a_whole_or_open() {
    const TEST: &str = "a_channel_whose_opener_or_closer_dies_is_closed_as_a_whole_or_open";
    let place = Place::new();
    let segment = make_many(&place);
    if let Some(role) = role() {
        ready(&place);
        let _kept: Vec<_> = (0..MANY)
            .map(|number| {
                let receiver = of_many(&segment, number).receiver().unwrap();
                if role == "close" {
                    receiver.close();
                }
                receiver
            })
            .collect();
        common::wait_to_be_killed();
    }
    let mut random = Random::new(7);
    let mut counts = [0; 2];
    for round in 0..40 {
        let closes = round % 2 == 1;
        let senders: Vec<_> = (0..MANY).map(|number| of_many(&segment, number).sender().unwrap()).collect();
        // They are not asked for anything: nobody makes good for who dies of closing but who buries it. Without them the child is
        // the first receiver.
        let kept = if closes { MANY } else { 0 };
        let keepers: Vec<_> = (0..kept).map(|number| of_many(&segment, number).receiver().unwrap()).collect();
        let role = if closes { "close" } else { "open" };
        kill_an_opener(&place, &segment, TEST, role, &mut random);
        for (number, sender) in senders.iter().enumerate() {
            let is_closed = sender.is_closed();
            for key in 0..64 {
                let refused = sender.try_send(Order { key, number: 0 }).is_err_and(|refused| refused.is_closed());
                assert_eq!(refused, is_closed, "{role} {round}, channel {number}, key {key}");
            }
            counts[usize::from(is_closed)] += 1;
            if is_closed {
                // At once.
                assert!(within(sender.send(Order { key: 1, number: 0 })).is_err());
            }
        }
        keepers.iter().zip(&senders).for_each(|(keeper, sender)| assert_eq!(keeper.is_closed(), sender.is_closed()));
        // What waits for a first receiver goes with it.
        (0..MANY).for_each(|number| drop(of_many(&segment, number).receiver().unwrap()));
        drop((senders, keepers));
        assert!(segment.channels().is_empty(), "{:?}", segment.channels());
    }
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    assert_empty(&segment);
}

#[test]
fn whoever_dies_of_making_a_channel_persistent_leaves_all_of_it_or_nothing() {
    const TEST: &str = "whoever_dies_of_making_a_channel_persistent_leaves_all_of_it_or_nothing";
    const CHANNELS: usize = 4;
    const WIDE: usize = 100;
    let open = |segment: &Segment, number: usize, persistent: Option<bool>| {
        let channel = segment.channel::<Order>(&format!("wide-{number}")).capacity(8).routed().partitions(WIDE);
        persistent.into_iter().fold(channel, routing::Options::persistent).sender()
    };
    let place = Place::new();
    if role().is_some() {
        let segment = make_many(&place);
        // All is there, so that it takes little else than to make it persistent.
        let _fleeting: Vec<_> = (0..CHANNELS).map(|number| open(&segment, number, None).unwrap()).collect();
        ready(&place);
        let _kept: Vec<_> = (0..CHANNELS).map(|number| open(&segment, number, Some(true)).unwrap()).collect();
        common::wait_to_be_killed();
    }
    let mut random = Random::new(8);
    for round in 0..60 {
        // Persistent channels end with their segment.
        let place = Place::new();
        let segment = make_many(&place);
        kill_an_opener(&place, &segment, TEST, "persist", &mut random);
        let mut parts = BTreeMap::<String, usize>::new();
        for channel in segment.channels() {
            *parts.entry(channel.name.split('#').next().unwrap().to_owned()).or_default() += 1;
        }
        assert!(parts.values().all(|count| *count == WIDE + 1), "round {round}: {parts:?}");
        for number in 0..CHANNELS {
            let is_there = parts.contains_key(&format!("wide-{number}"));
            assert_eq!(open(&segment, number, Some(false)).is_err(), is_there, "round {round}: {parts:?}");
        }
    }
}
