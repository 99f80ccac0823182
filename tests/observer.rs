//! An observer looks into a segment and is not in it: what it tells is so, nobody notices it, and nothing that befalls the file does
//! more to it than an error.

mod common;

use std::{
    fs,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use common::{Place, Random, Stamp, ready, role, wait_to_be_killed, wait_until_ready};
use waterway::{
    Delivery, Observer, OpenError, Segment,
    broadcast::Behind,
    observer::{ChannelView, ObserveError, Peeked},
    policy::{ByMessage, Policy, Priority},
    segment::ChannelKind,
};

waterway::plain_types! {
    struct Order { number: u64, urgent: u64 }
}

impl Policy for Order {
    fn priority(&self) -> Priority {
        if self.urgent == 1 { Priority::Urgent } else { Priority::Normal }
    }
}

fn segment(place: &Place) -> Segment {
    place.options().size(1 << 20).max_size(4 << 20).participants(8).channels(32).open_or_create("seen").unwrap()
}

fn path(place: &Place) -> PathBuf {
    place.path().join("seen")
}

fn observer(place: &Place) -> Observer {
    Observer::open_path(path(place)).unwrap()
}

fn view(observer: &Observer, name: &str) -> ChannelView {
    let views = observer.try_channels().unwrap();
    views.into_iter().find(|view| view.name == name).unwrap_or_else(|| panic!("there is no {name}"))
}

const AT_LEAST_ONCE: Delivery = Delivery::AtLeastOnce { max_deliveries: 5 };

/// Something of every kind, with messages in it.
fn furnish(segment: &Segment) -> impl Sized {
    let lines = segment.bytes("lines").capacity(16).open().unwrap();
    for line in ["one", "two", "three"] {
        lines.0.try_send(line).unwrap();
    }
    lines.1.try_recv().unwrap().ack();
    let jobs = segment.channel::<u64>("jobs").capacity(8).delivery(AT_LEAST_ONCE).open().unwrap();
    (0..4).for_each(|number| jobs.0.try_send(number).unwrap());
    let held = jobs.1.try_recv().unwrap();
    jobs.1.try_recv().unwrap().nack();
    let orders = segment.channel::<Order>("orders").capacity(8).policy(ByMessage).open().unwrap();
    for (number, urgent) in [(1, 0), (2, 1), (3, 0), (4, 1)] {
        orders.0.try_send(Order { number, urgent }).unwrap();
    }
    let prices = segment.broadcast::<u64>("prices").capacity(8);
    let publisher = prices.publisher().unwrap();
    let fast = segment.broadcast::<u64>("prices").group("fast").subscriber().unwrap();
    let slow = segment.broadcast::<u64>("prices").group("slow").subscriber().unwrap();
    (10..13).for_each(|price| assert_eq!(publisher.try_send(price).unwrap(), 2));
    fast.try_recv().unwrap().ack();
    let price = fast.try_recv().unwrap();
    let seats = segment.semaphore("seats").permits(3).open().unwrap();
    let permit = seats.clone().try_acquire_owned().unwrap();
    let limit = segment.watch::<u64>("limit").initial(7).open().unwrap();
    let parcels = segment.bytes("parcels").capacity(8).routed().partitions(2).open().unwrap();
    parcels.0.try_send("key", "parcel").unwrap();
    (lines, jobs, held, orders, publisher, (fast, slow, price), seats, permit, limit, parcels)
}

#[test]
fn what_it_tells_of_a_segment_at_rest_is_exact() {
    let place = Place::new();
    let segment = segment(&place);
    let _furniture = furnish(&segment);
    let observer = observer(&place);

    let lines = view(&observer, "lines");
    assert_eq!((lines.kind, lines.capacity, lines.payload.as_str()), (ChannelKind::Channel, 16, "bytes"));
    assert_eq!((lines.depth, lines.sent, lines.received, lines.unacknowledged), (2, 3, 1, 0));
    assert_eq!((lines.senders, lines.receivers, lines.parked), (1, 1, 0));
    assert_eq!((lines.sender_slots, lines.receiver_slots, lines.problem), (vec![0], vec![0], None));
    assert!(lines.bytes >= 2 * 19, "{}", lines.bytes);

    let jobs = view(&observer, "jobs");
    assert_eq!((jobs.depth, jobs.sent, jobs.received), (3, 4, 2), "{jobs:?}");
    assert_eq!((jobs.unacknowledged, jobs.max_deliveries, jobs.payload_size), (1, 5, Some(8)));
    let peeked = observer.try_peek("jobs", 10).unwrap();
    let seen = |index: usize| {
        let job = &peeked[index];
        (job.sequence, job.delivery_count, u64::from_ne_bytes(job.bytes[..].try_into().unwrap()))
    };
    assert_eq!((0..peeked.len()).map(seen).collect::<Vec<_>>(), [(1, 2, 1), (2, 1, 2), (3, 1, 3)]);
    assert!(peeked.iter().all(|job| job.age.is_some()));

    let urgent_first: Vec<(u8, Priority)> =
        observer.peek("orders", 3).iter().map(|order| (order.bytes[0], order.priority)).collect();
    assert_eq!(urgent_first, [(2, Priority::Urgent), (4, Priority::Urgent), (1, Priority::Normal)]);
    assert_eq!(view(&observer, "orders").depth, 4);

    let prices = view(&observer, "prices");
    assert_eq!((prices.kind, prices.sent, prices.depth, prices.unacknowledged), (ChannelKind::Broadcast, 3, 3, 1));
    let mut groups: Vec<_> = prices.groups.iter().map(|group| (group.name.as_str(), group.lag, group.held)).collect();
    groups.sort_unstable();
    assert_eq!(groups, [("prices@group-fast", 1, 1), ("prices@group-slow", 3, 0)]);
    assert_eq!(view(&observer, "prices@group-slow").depth, 3);
    assert_eq!(observer.peek("prices", 9).iter().map(|price| price.bytes[0]).collect::<Vec<_>>(), [10, 11, 12]);

    assert_eq!((view(&observer, "seats").capacity, view(&observer, "seats").reserved), (3, 1));
    assert_eq!(view(&observer, "limit").kind, ChannelKind::Watch);
    let parcels = observer.channels().iter().filter(|it| it.name.starts_with("parcels#")).map(|it| it.depth).sum();
    assert_eq!((view(&observer, "parcels").kind, 1_usize), (ChannelKind::Routed, parcels));

    // The same as a participant sees.
    let (stats, memory) = (segment.stats(), observer.try_memory().unwrap());
    assert_eq!((memory.sectors, memory.size, memory.used), (stats.sectors, stats.bytes(), stats.held_bytes()));
    let participants = observer.try_participants().unwrap();
    assert_eq!(participants.len(), 1);
    let [only] = &participants[..] else { unreachable!() };
    assert_eq!((only.slot, only.pid, only.alive, only.stopped), (0, std::process::id(), true, false));
    assert!(only.command.as_ref().is_some_and(|line| line.contains("observer")), "{only:?}");
    // The job that was received; the price belongs to the broadcast.
    assert_eq!((only.blocks, only.bytes), (1, 64));
    assert!(only.lanes >= 1, "{only:?}");
    let named: Vec<String> = segment.channels().iter().map(|channel| channel.name.clone()).collect();
    assert!(observer.channels().iter().all(|view| named.contains(&view.name)) && named.len() >= 8);
}

#[test]
fn it_changes_no_byte_and_takes_no_slot() {
    let place = Place::new();
    let segment = segment(&place);
    let _furniture = furnish(&segment);
    // A thread of the segment's may write something once in a while, late on a busy machine. What an
    // observer wrote would be there every time.
    common::eventually("nothing has changed", || {
        let before = fs::read(path(&place)).unwrap();
        for _ in 0..20 {
            let observer = observer(&place);
            assert_eq!(observer.try_participants().unwrap().len(), 1);
            observer.try_channels().unwrap();
            observer.try_memory().unwrap();
            observer.try_peek("lines", 9).unwrap();
            assert_eq!(segment.participants().len(), 1);
        }
        fs::read(path(&place)).unwrap() == before
    });
}

#[test]
fn it_says_what_is_not_there() {
    let place = Place::new();
    let segment = segment(&place);
    let _seats = segment.semaphore("seats").permits(1).open().unwrap();
    let observer = observer(&place);
    assert!(matches!(observer.try_peek("nothing", 1), Err(ObserveError::NoChannel { .. })));
    assert!(matches!(observer.try_peek("seats", 1), Err(ObserveError::NoMessages { .. })));
    assert_eq!(observer.peek("nothing", 1), []);
    let missing = Observer::open_path(place.path().join("missing")).unwrap_err();
    assert!(matches!(missing, OpenError::NotFound { .. }), "{missing:?}");
    assert!(matches!(Observer::open("a/b").unwrap_err(), OpenError::InvalidName { .. }));
}

#[test]
fn beside_senders_and_receivers_at_work_what_it_tells_could_have_been() {
    const MESSAGES: u64 = 60_000;
    let place = Place::new();
    let one = segment(&place);
    let (sender, _) = one.bytes("busy").capacity(64).open().unwrap();
    let other = segment(&place);
    let receiver = other.bytes("busy").capacity(64).receiver().unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random::new(7);
            for number in 0..MESSAGES {
                let message = Stamp { sender: 1, number }.message(24 + random.below(400));
                sender.blocking_send(message).unwrap();
            }
        });
        scope.spawn(|| {
            for _ in 0..MESSAGES {
                receiver.blocking_recv().unwrap();
            }
            over.store(true, Ordering::SeqCst);
        });
        let observer = observer(&place);
        let (mut sent, mut received, mut peeks) = (0, 0, 0);
        while !over.load(Ordering::SeqCst) {
            let view = view(&observer, "busy");
            assert!(view.depth <= 64 && view.received <= view.sent && view.sent - view.received <= 64, "{view:?}");
            assert!(view.sent >= sent && view.received >= received && view.sent <= MESSAGES, "{view:?}");
            assert_eq!((view.senders, view.receivers, &view.problem), (1, 1, &None));
            (sent, received) = (view.sent, view.received);
            let mut last = None;
            for peeked in observer.try_peek("busy", 8).unwrap() {
                // Whole, and the very message of that number.
                assert_eq!(Stamp::verify(&peeked.bytes).unwrap().number, peeked.sequence);
                assert!(last.replace(peeked.sequence).is_none_or(|last| last < peeked.sequence));
                peeks += 1;
            }
            assert!(observer.try_memory().unwrap().used > 0);
        }
        println!("{peeks} messages were looked at");
    });
    let view = view(&observer(&place), "busy");
    assert_eq!((view.sent, view.received, view.depth, view.bytes), (MESSAGES, MESSAGES, 0, 0));
    assert_eq!(one.participants().len(), 2);
    drop((sender, receiver));
    common::assert_empty(&one);
}

#[test]
fn who_follows_is_told_each_message_once_or_counts_it_as_missed() {
    const MESSAGES: u64 = 40_000;
    let place = Place::new();
    let segment = segment(&place);
    let (sender, receiver) = segment.channel::<Order>("orders").capacity(64).policy(ByMessage).open().unwrap();
    let publisher = segment.broadcast::<u64>("prices").capacity(64).publisher().unwrap();
    let prices = segment.broadcast::<u64>("prices").group("all").behind(Behind::Block).subscriber().unwrap();
    let observer = observer(&place);
    let (mut orders, mut follows_prices) =
        (observer.follow("orders", 0).unwrap(), observer.follow("prices", 0).unwrap());
    let over = AtomicBool::new(false);
    let (mut told, mut missed) = ([Vec::new(), Vec::new()], [0, 0]);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..MESSAGES {
                sender.blocking_send(Order { number, urgent: number % 2 }).unwrap();
                publisher.blocking_send(number).unwrap();
            }
            over.store(true, Ordering::SeqCst);
        });
        scope.spawn(|| {
            for number in 0..MESSAGES {
                // The last ones stay.
                if number < MESSAGES - 8 {
                    receiver.blocking_recv().unwrap();
                }
                prices.blocking_recv().unwrap();
            }
        });
        loop {
            // The last look is one after all was sent.
            let is_last = over.load(Ordering::SeqCst);
            for (index, follower) in [&mut orders, &mut follows_prices].into_iter().enumerate() {
                let look = follower.look().unwrap();
                missed[index] += look.missed;
                let number = |bytes: &[u8]| u64::from_ne_bytes(bytes[..8].try_into().unwrap());
                told[index].extend(look.messages.iter().map(|message| number(&message.bytes)));
            }
            if is_last {
                break;
            }
        }
    });
    for (mut told, missed) in told.into_iter().zip(missed) {
        let many = told.len();
        told.sort_unstable();
        told.dedup();
        assert_eq!(told.len(), many, "something was told twice");
        assert_eq!(many as u64 + missed, MESSAGES);
        println!("{many} were told, {missed} missed");
    }
    // Who begins to follow now is told what waits, the last ones of it if that is asked for.
    let waits = observer.peek("orders", 100);
    assert!(waits.len() >= 8, "{waits:?}");
    let payloads = |messages: &[Peeked]| messages.iter().map(|message| message.bytes.clone()).collect::<Vec<_>>();
    let mut all = observer.follow("orders", 100).unwrap();
    assert_eq!(payloads(&all.look().unwrap().messages), payloads(&waits));
    let mut last = observer.follow("orders", 3).unwrap();
    assert_eq!(payloads(&last.look().unwrap().messages), payloads(&waits[waits.len() - 3..]));
    assert_eq!(last.look().unwrap(), orders.look().unwrap());
    // Another channel of that name is told from its beginning.
    drop((sender, receiver));
    assert!(matches!(last.look(), Err(ObserveError::NoChannel { .. })));
    let (sender, _receiver) = segment.channel::<u64>("orders").capacity(8).open().unwrap();
    sender.try_send(7).unwrap();
    let look = last.look().unwrap();
    assert_eq!((look.messages[0].bytes.as_slice(), look.missed), (&7u64.to_ne_bytes()[..], 0));
}

#[test]
fn it_sees_who_died_and_what_they_left() {
    let place = Place::new();
    if role().is_some() {
        let segment = segment(&place);
        let (sender, _receiver) = segment.bytes("last-words").open().unwrap();
        (0..3).for_each(|number| sender.try_send(Stamp { sender: 9, number }.message(100)).unwrap());
        ready(&place);
        wait_to_be_killed();
    }
    let child = place.spawn("it_sees_who_died_and_what_they_left", "die");
    wait_until_ready(&place, &child);
    let pid = child.pid();
    let observer = observer(&place);
    assert_eq!(
        observer.try_participants().unwrap().iter().map(|it| (it.pid, it.alive)).collect::<Vec<_>>(),
        [(pid, true)]
    );
    child.kill();
    let bytes = fs::read(path(&place)).unwrap();
    for observer in [observer, self::observer(&place)] {
        let participants = observer.try_participants().unwrap();
        assert_eq!(participants.iter().map(|it| (it.pid, it.alive)).collect::<Vec<_>>(), [(pid, false)]);
        assert_eq!(participants[0].command, None);
        let view = view(&observer, "last-words");
        assert_eq!((view.depth, view.sent, view.senders, view.receivers), (3, 3, 1, 1));
        let numbers = observer
            .peek("last-words", 9)
            .iter()
            .map(|it| Stamp::verify(&it.bytes).unwrap().number)
            .collect::<Vec<_>>();
        assert_eq!(numbers, [0, 1, 2]);
    }
    // It has buried nobody, and taken nothing away.
    assert!(fs::read(path(&place)).unwrap() == bytes);
}

/// Does all that an observer can.
fn look_at_everything(observer: &Observer) -> usize {
    let mut errors = 0;
    errors += usize::from(observer.try_participants().is_err());
    errors += usize::from(observer.try_memory().is_err());
    let Ok(views) = observer.try_channels() else { return errors + 1 };
    for view in views {
        errors += usize::from(observer.try_peek(&view.name, 100).is_err());
        errors += usize::from(observer.follow(&view.name, 3).and_then(|mut follower| follower.look()).is_err());
        errors += usize::from(view.problem.is_some());
    }
    errors
}

/// Where what is worth spoiling stands: everything that is not zero.
fn marks(bytes: &[u8]) -> Vec<usize> {
    (0..bytes.len() / 8).map(|word| word * 8).filter(|at| bytes[*at..at + 8] != [0; 8]).collect()
}

fn written(path: &Path, bytes: &[u8]) -> fs::File {
    let file =
        fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

#[test]
fn garbage_and_truncation_are_errors_and_nothing_worse() {
    const ROUNDS: usize = 4000;
    let place = Place::new();
    let original = {
        let segment = segment(&place);
        let _furniture = furnish(&segment);
        fs::read(path(&place)).unwrap()
    };
    let copy = place.path().join("spoilt");
    let file = written(&copy, &original);
    let observer = Observer::open_path(&copy).unwrap();
    assert_eq!(
        look_at_everything(&observer),
        10,
        "each twice what has no messages of its own: seats, limit, parcels, and two groups"
    );
    let marks: Vec<usize> = marks(&original).into_iter().filter(|at| *at >= 2048).collect();
    let mut random = Random::new(std::env::var("WATERWAY_TEST_SEED").map_or(1, |seed| seed.parse().unwrap()));
    let mut found = 0;
    for _ in 0..ROUNDS {
        let mut spoilt = Vec::new();
        for _ in 0..1 + random.below(12) {
            let at = marks[random.below(marks.len())];
            let word = u64::from_ne_bytes(original[at..at + 8].try_into().unwrap());
            let garbage = match random.below(5) {
                0 => random.next(),
                1 => word ^ 1 << random.below(64),
                2 => u64::MAX,
                3 => word.wrapping_add(random.below(3) as u64).wrapping_sub(1) << random.below(3),
                _ => {
                    let from = marks[random.below(marks.len())];
                    u64::from_ne_bytes(original[from..from + 8].try_into().unwrap())
                }
            };
            file.write_all_at(&garbage.to_ne_bytes(), at as u64).unwrap();
            spoilt.push(at);
        }
        found += usize::from(look_at_everything(&observer) != 5);
        for at in spoilt {
            file.write_all_at(&original[at..at + 8], at as u64).unwrap();
        }
    }
    assert!(found > ROUNDS / 100, "only {found} of {ROUNDS} were seen at all");
    // Every header that makes no sense is refused; what is shorter than it was is an error from then on.
    for _ in 0..ROUNDS / 4 {
        let at = random.below(400);
        file.write_all_at(&[original[at] ^ 1 << random.below(8)], at as u64).unwrap();
        assert!(Observer::open_path(&copy).is_err(), "byte {at}");
        file.write_all_at(&original[at..=at], at as u64).unwrap();
    }
    let whole = observer.try_memory().unwrap();
    for _ in 0..100 {
        let len = random.below(original.len());
        file.set_len(len as u64).unwrap();
        match observer.try_memory() {
            Err(ObserveError::Truncated { at, .. }) => assert!(at + (1 << 16) > len as u64, "{at} of {len} bytes"),
            seen => assert_eq!(seen.unwrap().sectors, whole.sectors, "{len} bytes"),
        }
        look_at_everything(&observer);
        file.write_all_at(&original[len..], len as u64).unwrap();
    }
    file.set_len(0).unwrap();
    assert!(matches!(observer.try_channels(), Err(ObserveError::Truncated { .. })));
    assert_eq!((observer.channels(), observer.participants()), (vec![], vec![]));
}
