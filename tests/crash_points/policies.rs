//! The same for a channel with levels, times to live and dead letters: nothing comes twice, each level keeps its order, and what
//! has expired is a dead letter, once, whoever took it there and died of it.

use waterway::{
    ChannelOptions, Delivery,
    policy::{ByMessage, DeadLetter, Policy, Priority, Retention},
};

use super::*;

/// Tasks of the parent.
const TASKS: u64 = 24;
/// The first task of the child.
const THEIRS: u64 = 100;
const LEVELS: [Priority; 4] = [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent];

waterway::plain_types! {
    #[derive(Debug, PartialEq)]
    pub(super) struct Task {
        pub number: u64,
    }
}

impl Task {
    fn level(self) -> usize {
        (self.number % 4) as usize
    }

    fn is_late(self) -> bool {
        self.number % 3 == 2
    }
}

impl Policy for Task {
    fn priority(&self) -> Priority {
        LEVELS[self.level()]
    }

    fn retention(&self) -> Retention {
        Retention::ttl(Duration::from_secs(if self.is_late() { 0 } else { 9 * 3600 }))
    }
}

fn tasks(segment: &Segment, again: bool) -> ChannelOptions<Task> {
    let (name, delivery) = match again {
        true => ("again", Delivery::AtLeastOnce { max_deliveries: 100 }),
        false => ("once", Delivery::AtMostOnce),
    };
    let options = segment.channel(name).capacity(12).delivery(delivery);
    options.policy(ByMessage).policy(DeadLetter::to(format!("{name}.late")))
}

fn latest(segment: &Segment) -> ChannelOptions<u64> {
    segment.channel("latest").capacity(8).policy(Retention::keep_last(2))
}

/// What a child tells its parent: what it has sent, and what it has received.
const SENT: u64 = 1 << 32;
const RECEIVED: u64 = 2 << 32;
const AGAIN: u64 = 1 << 31;

/// The script beside a parent that sleeps.
pub(super) fn follow(place: &Place) {
    let segment = open(place);
    let told = segment.channel::<u64>("told").capacity(2048).sender().unwrap();
    let tell = |what: u64| told.try_send(what).unwrap();
    for again in [false, true] {
        let mark = if again { AGAIN } else { 0 };
        let (sender, receiver) = tasks(&segment, again).open().unwrap();
        let receive = |limit: usize| {
            for _ in 0..limit {
                let Ok(message) = receiver.try_recv() else { break };
                assert!(!message.is_late());
                tell(RECEIVED | mark | message.number);
                // One comes back.
                if message.number == THEIRS { message.nack() } else { message.ack() }
            }
        };
        receive(3);
        let mut permits = sender.try_reserve_many(2).unwrap();
        for number in (THEIRS..).take(30) {
            let task = Task { number };
            let sent = match number % 7 {
                3 => permits.next().map(|permit| permit.send(task)).is_some(),
                // Where there is no room, what has expired goes.
                _ => sender.try_send(task).is_ok(),
            };
            if sent {
                tell(SENT | mark | number);
            }
        }
        drop(permits);
        receiver.inquire();
        receive(20);
    }
    let (sender, receiver) = latest(&segment).open().unwrap();
    (0..9).for_each(|number| sender.try_send(number).unwrap());
    let _permit = sender.try_reserve().unwrap();
    receiver.try_recv().unwrap();
    // What waits when a channel goes, goes with it: of all levels.
    let (sender, receiver) = segment.channel::<Task>("brief").policy(ByMessage).open().unwrap();
    (0..8).for_each(|number| sender.try_send(Task { number }).unwrap());
    drop((sender, receiver));
    report();
}

/// What the parent holds while a child works.
struct Desk {
    tasks: [(Sender<Task>, Receiver<Task>); 2],
    letters: [Receiver<Task>; 2],
    latest: (Sender<u64>, Receiver<u64>),
    told: (Sender<u64>, Receiver<u64>),
}

impl Desk {
    fn new(segment: &Segment) -> Self {
        let desk = Self {
            tasks: [false, true].map(|again| tasks(segment, again).open().unwrap()),
            letters: ["once.late", "again.late"].map(|name| segment.channel(name).receiver().unwrap()),
            latest: latest(segment).open().unwrap(),
            told: segment.channel("told").capacity(2048).open().unwrap(),
        };
        for (sender, _) in &desk.tasks {
            (0..TASKS).for_each(|number| sender.try_send(Task { number }).unwrap());
        }
        desk
    }

    /// Whether nobody else has ends, alive or not buried yet.
    fn is_alone(&self) -> bool {
        let ends = |receiver: &Receiver<Task>| (receiver.sender_count(), receiver.receiver_count()) == (1, 1);
        let of_numbers = |receiver: &Receiver<u64>| (receiver.sender_count(), receiver.receiver_count()) == (1, 1);
        self.tasks.iter().all(|(_, receiver)| ends(receiver)) && of_numbers(&self.latest.1) && of_numbers(&self.told.1)
    }

    /// The child is dead, or has gone, and is buried.
    fn clear(self, at: &str) {
        let told: Vec<u64> = self.told.1.drain().map(|message| *message).collect();
        for (again, ((sender, receiver), letters)) in self.tasks.iter().zip(&self.letters).enumerate() {
            let mark = if again == 1 { AGAIN } else { 0 };
            let of = |kind: u64| {
                let kind = kind | mark;
                told.iter().filter(move |what| **what & !0xffff == kind).map(|what| what & 0xffff)
            };
            let mut sent: BTreeSet<u64> = (0..TASKS).chain(of(SENT)).collect();
            let received: Vec<u64> = of(RECEIVED).collect();
            let mut done: BTreeSet<u64> = received.iter().copied().collect();
            // A capacity is a capacity, permits of the dead included.
            let waiting = receiver.len();
            assert!(waiting <= 4 * 12 + 2, "at {at}: {waiting}");
            let rest: Vec<_> =
                receiver.drain().map(|message| (*message, message.delivery_count(), message.sender())).collect();
            let mut last = [None; 4];
            for (task, count, from) in &rest {
                assert!(!task.is_late(), "at {at}: {task:?} was delivered");
                let is_again = !done.insert(task.number);
                // Told and not acknowledged, or given back; or sent and not told.
                assert!(!is_again || again == 1 && *count > 1, "at {at}: {task:?} twice, {count}");
                if from.is_some() {
                    let before: Option<u64> = last[task.level()].replace(task.number);
                    assert!(before < Some(task.number), "at {at}: {task:?} after {before:?}");
                }
            }
            let mut late = BTreeSet::new();
            for letter in letters.drain() {
                assert!(letter.is_late() && late.insert(letter.number), "at {at}: dead letter {letter:?}");
            }
            sent.extend(done.iter().chain(&late));
            let lost: Vec<u64> =
                sent.iter().filter(|number| !done.contains(number) && !late.contains(number)).copied().collect();
            // At most once, the child may have died with the one that it had just received.
            let most = usize::from(again == 0);
            assert!(lost.len() <= most && lost.iter().all(|number| number % 3 != 2), "at {at}: {lost:?} are lost");
            let counts = receiver.inquire().counts;
            assert_eq!((counts.discarded, counts.dropped, receiver.invalid()), (0, 0, 0), "at {at}: {counts:?}");
            // One may have been moved and not counted.
            let moved = late.len() as u64;
            assert!(
                (moved.saturating_sub(2)..=moved).contains(&counts.expired),
                "at {at}: {counts:?}, {moved} letters"
            );
            assert_eq!(sender.capacity(), 12, "at {at}");
            (0..4).for_each(|level| {
                (0..12).for_each(|number| sender.try_send(Task { number: 12 * number + level }).unwrap());
            });
            receiver.drain().for_each(drop);
            letters.drain().for_each(drop);
        }
        assert!(self.latest.1.len() <= 3, "at {at}");
        self.latest.1.drain().for_each(drop);
        assert_eq!(self.latest.0.capacity(), 2, "at {at}");
    }
}

impl Scene {
    fn for_policies(test: &'static str) -> Option<Self> {
        Self::with(test, |segment| {
            [false, true].into_iter().for_each(|again| drop(tasks(segment, again).open().unwrap()));
        })
    }

    fn follow(&self, at: &str, by: &str, reaper_at: Option<&str>) -> (End, End) {
        let desk = Desk::new(&self.segment);
        let (ends, at) = self.work("follow", at, by, reaper_at);
        self.bury(&self.segment, || desk.is_alone());
        desk.clear(&at);
        self.settle(&at);
        ends
    }
}

#[test]
fn a_process_may_die_at_any_point_of_following_policies() {
    const TEST: &str = "policies::a_process_may_die_at_any_point_of_following_policies";
    let Some(scene) = Scene::for_policies(TEST) else { return };
    let core = ["policed.rs", "delivery.rs", "transfer.rs", "ring/mod.rs"];
    scene.kill_everywhere(&core, &|at, by, reaper_at| scene.follow(at, by, reaper_at));
}

#[test]
fn a_process_may_stand_still_at_any_point_of_following_policies() {
    const TEST: &str = "policies::a_process_may_stand_still_at_any_point_of_following_policies";
    let Some(scene) = Scene::for_policies(TEST) else { return };
    scene.stop_everywhere(&|at, by, reaper_at| scene.follow(at, by, reaper_at));
}

#[test]
fn whoever_buries_one_who_followed_policies_may_die_of_it() {
    const TEST: &str = "policies::whoever_buries_one_who_followed_policies_may_die_of_it";
    let Some(scene) = Scene::for_policies(TEST) else { return };
    scene.kill_reapers(|_| true, &|at, by, reaper_at| scene.follow(at, by, reaper_at));
}
