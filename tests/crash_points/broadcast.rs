//! The same for a broadcast: what was published every group sees, what a dead member held comes to another, and of groups,
//! columns and messages of the dead nothing is left.

use waterway::{
    Delivery,
    broadcast::{self, Behind, GroupOptions, Published, Publisher, Subscriber},
};

use super::*;

/// Messages of the parent, and of the child; and those that the parent publishes while a child stands still.
const JOBS: u64 = 12;
const FIRST: u64 = 100;
const LAST: u64 = 116;
const MEANWHILE: u64 = 1000;

fn stamps(segment: &Segment) -> broadcast::Options<u64> {
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
    // While we stood still, all may have been done by others.
    let held: Vec<_> = (0..3).map_while(|_| worker.try_recv().ok()).collect();
    for job in FIRST..LAST {
        publisher.try_send(job).unwrap();
        tell(SENT | job);
    }
    held.into_iter().rev().for_each(handle);
    for _ in 0..8 {
        if let Ok(message) = worker.try_recv() {
            handle(message);
        }
    }
    let kept: Vec<_> = (0..5).map_while(|_| lagging.try_recv().ok()).collect();
    assert!(kept.is_sorted_by(|one, other| **one < **other));
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
    for number in 1..300 {
        send(number);
    }
    assert_eq!(*kept, 0);
    assert!(matches!(evicted.try_recv(), Err(broadcast::TryRecvError::Evicted)));
    drop(evicted);
    assert!(matches!(slow.try_recv(), Err(broadcast::TryRecvError::Lagged(295))));
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
    seen: Vec<u64>,
    ours: Vec<(u64, u32)>,
}

impl Desk {
    fn new(segment: &Segment) -> Self {
        let desk = Self {
            publisher: stamps(segment).publisher().unwrap(),
            witness: stamps(segment).group("witness").behind(Behind::Block).subscriber().unwrap(),
            worker: workers(segment).subscriber().unwrap(),
            told: segment.channel("told").capacity(256).open().unwrap(),
            seen: Vec::new(),
            ours: Vec::new(),
        };
        (0..JOBS).for_each(|job| assert_eq!(desk.publisher.try_send(job).unwrap(), 2));
        desk
    }

    fn drain(&mut self) {
        self.seen.extend(std::iter::from_fn(|| self.witness.try_recv().ok()).map(|message| *message));
        let ours = std::iter::from_fn(|| self.worker.try_recv().ok());
        self.ours.extend(ours.map(|message| (*message, message.delivery_count())));
    }

    /// A child stands still somewhere: that stops nobody else, by more messages than there is room for.
    fn go_on(&mut self, at: &str) {
        for job in MEANWHILE..MEANWHILE + 100 {
            self.publisher.try_send(job).unwrap_or_else(|error| panic!("at {at}: {error}"));
            self.drain();
        }
        let theirs = self.seen.iter().filter(|job| **job >= MEANWHILE);
        assert!(theirs.copied().eq(MEANWHILE..MEANWHILE + 100), "at {at}");
    }

    /// The child is dead, or has gone, and is buried.
    fn clear(mut self, segment: &Segment, at: &str) {
        let (mut sent, mut received, mut done) = (Vec::new(), BTreeMap::<u64, u64>::new(), BTreeSet::new());
        for what in self.told.1.drain().map(|message| *message) {
            let job = what & 0xffff;
            match what >> 32 << 32 {
                SENT => sent.push(job),
                // Each delivery says which one it is.
                RECEIVED => {
                    let count = what >> 16 & 0xffff;
                    assert!(received.insert(job, count) < Some(count), "at {at}: {job} as delivered {count}");
                }
                DONE => drop(done.insert(job)),
                _ => panic!("at {at}: {what:x}"),
            }
        }
        // Published is published, for all groups, and in order; the last perhaps before it could be told.
        self.drain();
        // What the dead had a part in and all groups are done with is free.
        let started = Instant::now();
        loop {
            segment.bury_the_dead();
            let report = segment.check();
            let left: usize = report.sectors.iter().map(|sector| sector.in_flight_blocks).sum();
            if report.is_clean() && left == 0 {
                break;
            }
            // Another thread of ours may be at it just now, the watchdog's; and who died first may not be buried yet.
            assert!(started.elapsed() < LATEST, "at {at}: {left} messages are left: {report:?}");
            thread::sleep(Duration::from_millis(1));
        }
        let seen: Vec<u64> = self.seen.iter().copied().filter(|job| *job < MEANWHILE).collect();
        let published = seen.len() as u64 - JOBS;
        assert!(seen.iter().copied().eq((0..JOBS).chain(FIRST..FIRST + published)), "at {at}: {seen:?}");
        assert!((sent.len() as u64..=sent.len() as u64 + 1).contains(&published), "at {at}: {published}");
        // What the child had not done comes to us, and says so if it had been delivered.
        let mut handled = done.clone();
        for (job, count) in std::mem::take(&mut self.ours) {
            assert!(handled.insert(job) || count > 1, "at {at}: {job} twice");
        }
        let all: BTreeSet<u64> = self.seen.iter().copied().collect();
        assert!(handled == all && all.len() == self.seen.len(), "at {at}");
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
        let mut desk = Desk::new(&self.segment);
        let mut child = self.start("spread", at, by);
        *self.rounds.borrow_mut() += 1;
        let end = match by {
            "stop" => {
                self.stand_still(child, &mut desk, at);
                std::fs::read_to_string(self.file("log")).map_or(End::Done, End::At)
            }
            _ => {
                eventually("the child ends", || child.ended().is_some());
                self.end(child.finish(), at)
            }
        };
        let (ends, at) = self.then_reap(end, at, reaper_at);
        // The ends of the dead go after what they held has come back.
        self.bury(&self.segment, || desk.told.1.sender_count() == 1);
        desk.clear(&self.segment, &at);
        self.settle(&at);
        ends
    }

    /// A child stops itself, and then is killed, or goes on.
    fn stand_still(&self, mut child: Process, desk: &mut Desk, at: &str) {
        eventually("the child stops or ends", || child.ended().is_some() || is_stopped(child.pid()));
        if child.ended().is_none() {
            desk.go_on(at);
            if self.rounds.borrow().is_multiple_of(2) {
                return child.kill();
            }
            signal(child.pid(), libc::SIGCONT);
        }
        child.succeed();
    }
}

/// Where something is done that only broadcasts do.
const OURS: [&str; 3] = ["ring/log/", "attachment/groups/", "transfer.rs"];

#[test]
fn whoever_publishes_or_subscribes_may_die_at_any_point() {
    const TEST: &str = "broadcast::whoever_publishes_or_subscribes_may_die_at_any_point";
    let Some(scene) = Scene::new(TEST) else { return };
    scene.kill_everywhere(&OURS, &|at, by, reaper_at| scene.spread(at, by, reaper_at));
}

#[test]
fn whoever_publishes_or_subscribes_may_stand_still_at_any_point() {
    const TEST: &str = "broadcast::whoever_publishes_or_subscribes_may_stand_still_at_any_point";
    let Some(scene) = Scene::new(TEST) else { return };
    scene.stop_everywhere(&|at, by, reaper_at| scene.spread(at, by, reaper_at));
}

#[test]
fn whoever_buries_members_may_die_of_it() {
    const TEST: &str = "broadcast::whoever_buries_members_may_die_of_it";
    let Some(scene) = Scene::new(TEST) else { return };
    let is_ours = |place: &str| OURS.iter().any(|name| place.contains(name));
    scene.kill_reapers(is_ours, &|at, by, reaper_at| scene.spread(at, by, reaper_at));
}
