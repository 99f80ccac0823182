//! The same for a broadcast: what was published every group sees, what a dead member held comes to another, and of groups,
//! columns and messages of the dead nothing is left.

use waterway::{
    Behind, BroadcastOptions, BroadcastTryRecvError, Delivery, GroupOptions, Published, Publisher, Subscriber,
};

use super::*;

/// Messages of the parent, and of the child.
const JOBS: u64 = 12;
const FIRST: u64 = 100;
const LAST: u64 = 116;

fn stamps(segment: &Segment) -> BroadcastOptions<u64> {
    segment.broadcast("stamps").capacity(64).max_groups(4)
}

fn workers(segment: &Segment) -> GroupOptions<u64> {
    stamps(segment).group("workers").delivery(Delivery::AtLeastOnce { max_deliveries: 100 })
}

/// What a child tells its parent: what it has published, what it has received and how often that was delivered, and what it is
/// about to acknowledge.
const SENT: u64 = 1 << 32;
const RECEIVED: u64 = 2 << 32;
const DONE: u64 = 3 << 32;

/// The script beside a parent that sleeps.
pub(super) fn spread(place: &Place) {
    let segment = open(place);
    let told = segment.channel::<u64>("told").capacity(256).sender().unwrap();
    let tell = |what: u64| told.try_send(what).unwrap();
    let worker = workers(&segment).subscriber().unwrap();
    let lagging = stamps(&segment).subscriber().unwrap();
    let publisher = stamps(&segment).publisher().unwrap();
    let handle = |message: Published<u64>| {
        let (job, count) = (*message, u64::from(message.delivery_count()));
        tell(RECEIVED | count << 16 | job);
        match job % 4 {
            3 if count == 1 => message.nack(),
            _ => {
                tell(DONE | job);
                message.ack();
            }
        }
    };
    let held: Vec<_> = (0..3).map(|_| worker.try_recv().unwrap()).collect();
    for job in FIRST..LAST {
        publisher.try_send(job).unwrap();
        tell(SENT | job);
    }
    held.into_iter().rev().for_each(handle);
    (0..8).for_each(|_| handle(worker.try_recv().unwrap()));
    let kept: Vec<_> = (0..5).map(|_| lagging.try_recv().unwrap()).collect();
    assert!(kept.iter().map(|message| **message).eq(FIRST..FIRST + 5));
    drop(lagging);
    drop(kept);
    alone(&segment);
    report();
}

/// All that one can do alone: miss messages, hold one for laps, come late, be put out, leave.
fn alone(segment: &Segment) {
    let own = || segment.broadcast::<u64>("own").capacity(4).history(2).max_groups(3);
    let (publisher, slow) = own().open().unwrap();
    let evicting = Behind::Evict(Duration::from_millis(1));
    let evicted = own().group("evicted").behind(evicting).persistent(false).subscriber().unwrap();
    let send = |number| within(publisher.send(number)).unwrap();
    send(0);
    let kept = slow.try_recv().unwrap();
    (1..300).for_each(|number| drop((send(number),)));
    assert_eq!(*kept, 0);
    assert!(matches!(evicted.try_recv(), Err(BroadcastTryRecvError::Evicted)));
    drop(evicted);
    assert!(matches!(slow.try_recv(), Err(BroadcastTryRecvError::Lagged(295))));
    let late = own().only().history(2).subscriber().unwrap();
    assert_eq!((late.len(), *late.try_recv().unwrap()), (2, 298));
    drop(kept);
    drop((slow, late));
    send(300);
}

/// What the parent holds while a child works.
struct Desk {
    publisher: Publisher<u64>,
    witness: Subscriber<u64>,
    worker: Subscriber<u64>,
    told: (Sender<u64>, Receiver<u64>),
}

impl Desk {
    fn new(segment: &Segment) -> Self {
        let desk = Self {
            publisher: stamps(segment).publisher().unwrap(),
            witness: stamps(segment).group("witness").behind(Behind::Block).subscriber().unwrap(),
            worker: workers(segment).subscriber().unwrap(),
            told: segment.channel("told").capacity(256).open().unwrap(),
        };
        (0..JOBS).for_each(|job| assert_eq!(desk.publisher.try_send(job).unwrap(), 2));
        desk
    }

    /// The child is dead, or has gone, and is buried.
    fn clear(self, at: &str) {
        let (mut sent, mut received, mut done) = (Vec::new(), BTreeMap::<u64, u64>::new(), BTreeSet::new());
        for what in self.told.1.drain().map(|message| *message) {
            let job = what & 0xffff;
            match what >> 32 << 32 {
                SENT => sent.push(job),
                RECEIVED => drop(received.insert(job, what >> 16 & 0xffff)),
                DONE => drop(done.insert(job)),
                _ => panic!("at {at}: {what:x}"),
            }
        }
        // Published is published, for all groups, and in order; the last perhaps before it could be told.
        let drain = |subscriber: &Subscriber<u64>| -> Vec<(u64, u32)> {
            std::iter::from_fn(|| subscriber.try_recv().ok())
                .map(|message| (*message, message.delivery_count()))
                .collect()
        };
        let seen: Vec<u64> = drain(&self.witness).into_iter().map(|(job, _)| job).collect();
        let published = seen.len() as u64 - JOBS;
        assert!(seen.iter().copied().eq((0..JOBS).chain(FIRST..FIRST + published)), "at {at}: {seen:?}");
        assert!((sent.len() as u64..=sent.len() as u64 + 1).contains(&published), "at {at}: {published}");
        // What the child had not done comes to us, and says so if it had been delivered.
        let ours = drain(&self.worker);
        let mut handled = done.clone();
        for (job, count) in ours {
            assert!(handled.insert(job) || count > 1, "at {at}: {job} twice");
            let before = received.get(&job).copied().unwrap_or(0);
            assert!(u64::from(count) > before, "at {at}: {job} as delivered {count} after {before}");
        }
        assert!(handled.into_iter().eq(seen), "at {at}");
        assert_eq!((self.worker.discarded(), self.worker.invalid()), (0, 0), "at {at}");
        // Nobody is left but us, and no message.
        assert_eq!(self.publisher.group_count(), 2, "at {at}");
        for number in 0..200 {
            self.publisher.try_send(number).unwrap_or_else(|error| panic!("at {at}: {error}"));
            assert_eq!(*self.witness.try_recv().unwrap(), number);
            assert_eq!(*self.worker.try_recv().unwrap(), number);
        }
    }
}

impl Scene {
    /// A child works that kills or stops itself somewhere; then perhaps comes a reaper, which is killed as well.
    fn spread(&self, at: &str, by: &str, reaper_at: Option<&str>) -> (End, End) {
        let desk = Desk::new(&self.segment);
        let mut child = self.start("spread", at, by);
        *self.rounds.borrow_mut() += 1;
        let end = match by {
            "stop" => {
                within(self.watch(child, by, ()));
                std::fs::read_to_string(self.file("log")).map_or(End::Done, End::At)
            }
            _ => {
                eventually("the child ends", || child.ended().is_some());
                self.end(child.finish(), at)
            }
        };
        let at = &format!("{at} ({end:?}), then {reaper_at:?}");
        let reaper =
            reaper_at.map_or(End::Done, |reaper_at| self.end(self.start("visit", reaper_at, "kill").finish(), at));
        let started = Instant::now();
        // The ends of the dead go after what they held has come back.
        while desk.told.1.sender_count() > 1 || self.segment.participants().len() > 1 {
            assert!(started.elapsed() < LATEST, "at {at}: not buried");
            self.segment.bury_the_dead();
            thread::sleep(Duration::from_micros(100));
        }
        desk.clear(at);
        self.settle(at);
        (end, reaper)
    }

    fn places_of_spreading(&self) -> Places {
        assert!(matches!(self.spread("end", "kill", None).0, End::Done));
        self.places()
    }
}

/// Where something is done that only broadcasts do.
fn is_ours(place: &str) -> bool {
    ["ring/log/", "groups.rs", "transfer.rs"].iter().any(|name| place.contains(name))
}

#[test]
fn whoever_publishes_or_subscribes_may_die_at_any_point() {
    const TEST: &str = "broadcast::whoever_publishes_or_subscribes_may_die_at_any_point";
    let place = Place::new();
    if play(&place) {
        return;
    }
    let scene = Scene::new(place, TEST);
    let started = Instant::now();
    let places = scene.places_of_spreading();
    let (mut kills, mut killed) = (0, BTreeSet::new());
    let mut run = |at: &str| {
        if let (End::At(place), _) = scene.spread(at, "kill", None) {
            kills += 1;
            killed.insert(place);
        }
    };
    for (place, count) in &places {
        let step = if is_ours(place) { (count / 12).max(1) } else { (count / 3).max(1) };
        (1..=*count).step_by(step as usize).for_each(|time| run(&format!("{place}#{time}")));
    }
    let missed = insist(places.keys(), &mut killed, |place, _| scene.spread(&format!("{place}#1"), "kill", None).0);
    println!("killed {kills} times, in {} of {} places, in {:?}", killed.len(), places.len(), started.elapsed());
    assert!(places.keys().filter(|place| is_ours(place)).count() > 10, "{places:?}");
    assert!(missed.len() * 20 <= places.len(), "never killed at {missed:?}");
}

#[test]
fn whoever_buries_members_may_die_of_it() {
    const TEST: &str = "broadcast::whoever_buries_members_may_die_of_it";
    let place = Place::new();
    if play(&place) {
        return;
    }
    let scene = Scene::new(place, TEST);
    let started = Instant::now();
    let victim = scene.places_of_spreading();
    let mut passed = Graves::new();
    for (place, count) in victim.iter().filter(|(place, _)| is_ours(place)) {
        let grave = format!("{place}#{}", count.div_ceil(2));
        if let (End::At(_), End::Done) = scene.spread(&grave, "kill", Some("end")) {
            note_grave(&mut passed, &grave, scene.places());
        }
    }
    let (mut kills, mut killed) = (0, BTreeSet::new());
    for (place, graves) in &passed {
        let (grave, count) = &graves[0];
        for time in (1..=*count).step_by((count / 6).max(1) as usize) {
            // The watchdog of the parent may have been quicker.
            for _ in 0..10 {
                if let (_, End::At(place)) = scene.spread(grave, "kill", Some(&format!("{place}#{time}"))) {
                    kills += 1;
                    killed.insert(place);
                    break;
                }
                if killed.contains(place) {
                    break;
                }
            }
        }
    }
    let missed = insist(passed.keys(), &mut killed, |place, attempt| {
        let graves = &passed[place];
        scene.spread(&graves[attempt % graves.len()].0, "kill", Some(&format!("{place}#1"))).1
    });
    println!(
        "reapers passed {} places and were killed {kills} times in {} of them, in {:?}",
        passed.len(),
        killed.len(),
        started.elapsed()
    );
    assert!(missed.len() * 20 <= passed.len(), "never killed at {missed:?}");
}
