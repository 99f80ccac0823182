//! The same for a channel that delivers at least once: nothing that was sent is lost, nothing comes twice without saying so,
//! nothing comes too often, and what nobody can work on ends among the dead letters.

use waterway::{ChannelOptions, Delivery, Message, policy::DeadLetter};

use super::*;

/// Deliveries of a job.
const MOST: u32 = 3;
/// Jobs of the parent.
const JOBS: u64 = 15;
/// More than a retry ring has cells.
const OWN: u64 = 262;

fn jobs(segment: &Segment) -> ChannelOptions<u64> {
    let delivery = Delivery::AtLeastOnce { max_deliveries: MOST };
    segment.channel("jobs").capacity(32).delivery(delivery).policy(DeadLetter::to("jobs.dead"))
}

fn at_least_once(segment: &Segment, name: &str) -> ChannelOptions<u64> {
    segment.channel(name).capacity(16).delivery(Delivery::AtLeastOnce { max_deliveries: 100 })
}

/// What a child tells its parent: what it has sent, what it has received and how often that was delivered, or, in the end, what
/// it acknowledges.
const SENT: u64 = 1 << 32;
const RECEIVED: u64 = 2 << 32;
const DONE: u64 = 3 << 32;
const OWN_SENT: u64 = 4 << 32;
const OWN_DONE: u64 = 5 << 32;

/// Whether nobody can do it.
fn is_poison(job: u64) -> bool {
    job % 5 == 4
}

/// The script beside a parent that sleeps.
pub(super) fn deliver(place: &Place) {
    let segment = open(place);
    let told = segment.channel::<u64>("told").capacity(2048).sender().unwrap();
    let tell = |what: u64| told.try_send(what).unwrap();
    let (sender, receiver) = jobs(&segment).open().unwrap();
    let next = at_least_once(&segment, "next").sender().unwrap();
    let work = |message: Message<u64>| {
        let (job, count) = (*message, u64::from(message.delivery_count()));
        tell(RECEIVED | count << 16 | job);
        match job % 5 {
            4 => message.nack(),
            // Somebody else, or we again.
            3 if count == 1 => drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let _message = message;
                std::panic::resume_unwind(Box::new(()));
            }))),
            2 => message.forward(&next).unwrap(),
            _ => {
                tell(DONE | job);
                message.ack();
            }
        }
    };
    let held: Vec<_> = (0..4).map_while(|_| receiver.try_recv().ok()).collect();
    for job in 100..106 {
        sender.try_send(job).unwrap();
        tell(SENT | job);
    }
    sender.try_reserve().unwrap().send(106);
    tell(SENT | 106);
    held.into_iter().for_each(work);
    for _ in 0..12 {
        if let Ok(message) = receiver.try_recv() {
            work(message);
        }
    }
    // More come back than the retry ring holds.
    let (sender, receiver) = at_least_once(&segment, "own").open().unwrap();
    let mut kept = Vec::new();
    for number in 0..OWN {
        sender.try_send(number).unwrap();
        kept.push(receiver.try_recv().unwrap());
    }
    tell(OWN_SENT);
    kept.into_iter().for_each(Message::nack);
    assert!(receiver.inquire().oldest.is_some_and(|oldest| oldest.delivery_count == 2));
    while let Ok(message) = receiver.try_recv() {
        tell(OWN_DONE | *message);
    }
    // What waits when a channel goes, goes with it.
    let (sender, receiver) = at_least_once(&segment, "brief").open().unwrap();
    (0..3).for_each(|number| sender.try_send(number).unwrap());
    receiver.try_recv().unwrap().nack();
    let last = receiver.try_recv().unwrap();
    drop((sender, receiver));
    last.nack();
    report();
}

/// What the parent holds while a child works.
struct Desk {
    jobs: (Sender<u64>, Receiver<u64>),
    next: (Sender<u64>, Receiver<u64>),
    own: (Sender<u64>, Receiver<u64>),
    told: (Sender<u64>, Receiver<u64>),
}

impl Desk {
    fn new(segment: &Segment) -> Self {
        let desk = Self {
            jobs: jobs(segment).open().unwrap(),
            next: at_least_once(segment, "next").open().unwrap(),
            own: at_least_once(segment, "own").open().unwrap(),
            told: segment.channel("told").capacity(2048).open().unwrap(),
        };
        (0..JOBS).for_each(|job| desk.jobs.0.try_send(job).unwrap());
        desk
    }

    /// Whether nobody else has ends, alive or not buried yet.
    fn is_alone(&self) -> bool {
        [&self.jobs, &self.next, &self.own, &self.told]
            .iter()
            .all(|(_, receiver)| (receiver.sender_count(), receiver.receiver_count()) == (1, 1))
    }

    /// The child is dead, or has gone, and is buried.
    fn clear(self, segment: &Segment, at: &str) {
        let mut deliveries = BTreeMap::<u64, Vec<u32>>::new();
        let (mut sent, mut done) = ((0..JOBS).collect::<BTreeSet<u64>>(), BTreeSet::new());
        let (mut own_sent, mut own) = (false, BTreeSet::new());
        let told: Vec<u64> = self.told.1.drain().map(|message| *message).collect();
        for what in told {
            let job = what & 0xffff;
            match what >> 32 << 32 {
                SENT => drop(sent.insert(job)),
                RECEIVED => deliveries.entry(job).or_default().push((what >> 16 & 0xffff) as u32),
                // Told before it is acknowledged.
                DONE => drop(done.insert(job)),
                OWN_SENT => own_sent = true,
                OWN_DONE => drop(own.insert(job)),
                _ => panic!("at {at}: {what:x}"),
            }
        }
        // What came back is ahead of what nobody has received.
        let waiting: Vec<Message<u64>> = self.jobs.1.drain().collect();
        assert_eq!(self.jobs.1.len(), 0, "at {at}");
        let last = waiting.iter().rposition(|message| message.delivery_count() > 1).map_or(0, |last| last + 1);
        let fresh = waiting[..last].iter().filter(|message| message.delivery_count() == 1).count();
        // One that the dead had taken and nobody has seen was not delivered.
        assert!(fresh <= 1 && waiting[last..].is_sorted_by_key(Message::sequence), "at {at}: {waiting:?}");
        let mut dead = BTreeSet::new();
        let mut finish = |message: Message<u64>| {
            let (job, count) = (*message, message.delivery_count());
            deliveries.entry(job).or_default().push(count);
            if is_poison(job) { message.nack() } else { assert!(done.insert(job) || count > 1, "at {at}: {job} again") }
        };
        waiting.into_iter().for_each(&mut finish);
        while let Ok(message) = self.jobs.1.try_recv() {
            finish(message);
        }
        let letters = segment.channel::<u64>("jobs.dead").receiver().unwrap();
        while let Ok(letter) = letters.try_recv() {
            assert!(is_poison(*letter) && dead.insert(*letter), "at {at}: dead letter {}", *letter);
        }
        while let Ok(message) = self.next.1.try_recv() {
            // Copied first, and then acknowledged: it may be there twice, if it says so where it was.
            let job = *message;
            assert!(done.insert(job) || deliveries[&job].iter().any(|count| *count > 1), "at {at}: {job} twice");
        }
        for (job, counts) in &deliveries {
            // Each delivery says which one it is.
            assert!(counts.is_sorted_by(|before, after| before < after), "at {at}: {job} as delivered {counts:?}");
            assert!(counts.last().is_some_and(|count| *count <= MOST), "at {at}: {job} as delivered {counts:?}");
        }
        for job in &sent {
            assert!(done.contains(job) != dead.contains(job), "at {at}: {job} is lost, or done and dead");
        }
        assert_eq!(self.jobs.1.discarded() + self.jobs.1.invalid(), 0, "at {at}");
        let mut rest = BTreeSet::new();
        while let Ok(message) = self.own.1.try_recv() {
            assert!(rest.insert(*message) && message.delivery_count() <= 4, "at {at}: {} of its own twice", *message);
        }
        own.extend(&rest);
        assert!(
            if own_sent { own.len() as u64 == OWN } else { own.iter().copied().eq(0..own.len() as u64) },
            "at {at}"
        );
    }
}

impl Scene {
    fn for_delivery(test: &'static str) -> Option<Self> {
        Self::with(test, |segment| drop(jobs(segment).open().unwrap()))
    }

    fn shift(&self, at: &str, by: &str, reaper_at: Option<&str>) -> (End, End) {
        let desk = Desk::new(&self.segment);
        let (ends, at) = self.work("deliver", at, by, reaper_at);
        // The ends of the dead go after what they held has come back.
        self.bury(&self.segment, || desk.is_alone());
        desk.clear(&self.segment, &at);
        self.settle(&at);
        ends
    }
}

#[test]
fn a_receiver_may_die_at_any_point_of_a_delivery() {
    const TEST: &str = "delivery::a_receiver_may_die_at_any_point_of_a_delivery";
    let Some(scene) = Scene::for_delivery(TEST) else { return };
    let core = ["delivery.rs", "transfer.rs", "ring/mod.rs"];
    scene.kill_everywhere(&core, &|at, by, reaper_at| scene.shift(at, by, reaper_at));
}

#[test]
fn a_receiver_may_stand_still_at_any_point_of_a_delivery() {
    const TEST: &str = "delivery::a_receiver_may_stand_still_at_any_point_of_a_delivery";
    let Some(scene) = Scene::for_delivery(TEST) else { return };
    scene.stop_everywhere(&|at, by, reaper_at| scene.shift(at, by, reaper_at));
}

#[test]
fn whoever_puts_messages_back_for_the_dead_may_die_of_it() {
    const TEST: &str = "delivery::whoever_puts_messages_back_for_the_dead_may_die_of_it";
    let Some(scene) = Scene::for_delivery(TEST) else { return };
    scene.kill_reapers(|_| true, &|at, by, reaper_at| scene.shift(at, by, reaper_at));
}
