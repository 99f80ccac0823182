//! The same for a routed channel: the order of each key holds, nothing that was sent is lost, nothing comes again without saying
//! so, and partitions and seats of the dead are to be had.

use waterway::{
    Delivery,
    policy::{Policy, RouteKey},
    routing,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::*;

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

const PARTITIONS: usize = 2;
/// Orders of each of the parent's keys, which are 0 and up.
const EACH: u64 = 6;
const KEYS: u64 = 4;
/// The first of the child's.
const ITS: u64 = 100;

fn routed(segment: &Segment) -> routing::Options<Order> {
    let delivery = Delivery::AtLeastOnce { max_deliveries: 100 };
    segment.channel("routed").capacity(32).delivery(delivery).routed().partitions(PARTITIONS)
}

/// What a child tells its parent, with an order.
const SENT: u64 = 1 << 32;
const RECEIVED: u64 = 2 << 32;
const DONE: u64 = 3 << 32;

fn told(segment: &Segment) -> waterway::ChannelOptions<[u64; 4]> {
    segment.channel("told").capacity(2048)
}

/// The script beside a parent that sleeps.
pub(super) fn route(place: &Place) {
    let segment = open(place);
    let told = told(&segment).sender().unwrap();
    let tell = |what, order: Order, count: u32| told.try_send([what, order.key, order.number, count.into()]).unwrap();
    let take = |receiver: &routing::Receiver<Order>| {
        let message = receiver.try_recv().ok()?;
        tell(RECEIVED, *message, message.delivery_count());
        Some(message)
    };
    let finish = |message: routing::Message<Order>| {
        tell(DONE, *message, 0);
        message.ack();
    };
    let (sender, first) = routed(&segment).open().unwrap();
    let mut held: Vec<_> = (0..10).map_while(|_| take(&first)).collect();
    for number in 0..3 {
        for key in [ITS, ITS + 1, ITS + 2] {
            sender.try_send(Order { key, number }).unwrap();
            tell(SENT, Order { key, number }, 0);
        }
    }
    // Somebody else comes: one partition is to be had when what was received from it is done with.
    let second = routed(&segment).receiver().unwrap();
    held.extend(take(&second));
    held.extend(take(&first));
    while held.len() > 4 {
        finish(held.remove(0));
    }
    // The last of its key that is unacknowledged, so that its order is kept.
    if let Some(last) = held.pop() {
        last.nack();
    }
    held.drain(..).for_each(finish);
    (0..6).filter_map(|at| take(if at % 2 == 0 { &first } else { &second })).for_each(finish);
    // One goes, with something in its hands that it had from its partition.
    let kept = take(&second);
    drop(second);
    held.extend((0..3).map_while(|_| take(&first)));
    kept.into_iter().for_each(finish);
    held.extend((0..3).map_while(|_| take(&first)));
    within(async {
        let _ = first.recv_timeout(Duration::from_millis(1)).await.map(|message| {
            tell(RECEIVED, *message, message.delivery_count());
            held.push(message);
        });
    });
    held.into_iter().for_each(finish);
    first.close();
    drop(sender);
    drop(first);
    report();
}

/// The script of a sender that stands still somewhere in its only send.
pub(super) fn send_one(place: &Place) {
    let segment = open(place);
    routed(&segment).sender().unwrap().try_send(Order { key: 0, number: EACH }).unwrap();
    report();
}

/// The script of a receiver that dies somewhere in its last receive, which may be of the message of that sender.
pub(super) fn take_all(place: &Place) {
    let segment = open(place);
    let receiver = routed(&segment).receiver().unwrap();
    (0..EACH).for_each(|number| assert_eq!(receiver.try_recv().unwrap().into_inner(), Order { key: 0, number }));
    let _last = receiver.try_recv();
    // It dies here, if not before.
    report();
    signal(std::process::id(), libc::SIGKILL);
}

/// What the parent holds while a child works.
struct Desk {
    sender: routing::Sender<Order>,
    /// Not asked for a message while the child works: it only keeps the channel.
    receiver: routing::Receiver<Order>,
    told: Receiver<[u64; 4]>,
}

impl Desk {
    fn new(segment: &Segment) -> Self {
        let (sender, receiver) = routed(segment).open().unwrap();
        let desk = Self { sender, receiver, told: told(segment).receiver().unwrap() };
        for number in 0..EACH {
            (0..KEYS).for_each(|key| desk.sender.try_send(Order { key, number }).unwrap());
        }
        desk
    }

    /// The child is dead, or has gone, and is buried.
    fn clear(self, at: &str) {
        let mut sent: BTreeSet<(u64, u64)> =
            (0..KEYS).flat_map(|key| (0..EACH).map(move |number| (key, number))).collect();
        let (mut done, mut count_of) = (BTreeSet::new(), BTreeMap::<(u64, u64), u64>::new());
        let mut next = BTreeMap::<u64, u64>::new();
        let mut receive = |key: u64, number: u64, count: u64| {
            // The first delivery of each is in order; later ones say what they are.
            let first = next.entry(key).or_default();
            assert!(number <= *first, "at {at}: {key}.{number} comes before {first}");
            *first = (*first).max(number + 1);
            let before = count_of.insert((key, number), count);
            assert!(before.is_none_or(|before| count > before), "at {at}: {key}.{number} again as {count}");
        };
        for entry in self.told.drain() {
            let [what, key, number, count] = *entry;
            match what {
                SENT => drop(sent.insert((key, number))),
                RECEIVED => receive(key, number, count),
                // Told before it is acknowledged.
                DONE => drop(done.insert((key, number))),
                _ => panic!("at {at}: {what:x}"),
            }
        }
        let mut last = BTreeMap::new();
        while let Ok(message) = self.receiver.try_recv() {
            let Order { key, number } = *message;
            receive(key, number, message.delivery_count().into());
            assert!(last.insert(key, number) < Some(number), "at {at}: {key}.{number} after {last:?}");
            done.insert((key, number));
            // One may have been sent and not told of.
            sent.insert((key, number));
        }
        assert_eq!(done, sent, "at {at}");
        assert_eq!(self.receiver.partitions().len(), PARTITIONS, "at {at}");
        assert!(self.receiver.is_empty(), "at {at}");
        // All of it, or nothing.
        assert_eq!(self.sender.is_closed(), self.receiver.is_closed(), "at {at}");
    }
}

impl Scene {
    fn route(&self, at: &str, by: &str, reaper_at: Option<&str>) -> (End, End) {
        let desk = Desk::new(&self.segment);
        let (ends, at) = self.work("route", at, by, reaper_at);
        self.bury(&self.segment, || desk.told.sender_count() == 0);
        desk.clear(&at);
        self.settle(&at);
        ends
    }
}

#[test]
fn a_receiver_may_die_at_any_point_of_routing() {
    const TEST: &str = "routing::a_receiver_may_die_at_any_point_of_routing";
    let Some(scene) = Scene::new(TEST) else { return };
    scene.kill_everywhere(&["routes.rs", "transfer.rs"], &|at, by, reaper_at| scene.route(at, by, reaper_at));
}

#[test]
fn a_receiver_may_stand_still_at_any_point_of_routing() {
    const TEST: &str = "routing::a_receiver_may_stand_still_at_any_point_of_routing";
    let Some(scene) = Scene::new(TEST) else { return };
    scene.stop_everywhere(&|at, by, reaper_at| scene.route(at, by, reaper_at));
}

#[test]
fn whoever_buries_a_receiver_of_a_routed_channel_may_die_of_it() {
    const TEST: &str = "routing::whoever_buries_a_receiver_of_a_routed_channel_may_die_of_it";
    let Some(scene) = Scene::new(TEST) else { return };
    scene.kill_reapers(|_| true, &|at, by, reaper_at| scene.route(at, by, reaper_at));
}

/// The sender of a message stands still just after it was sent, and whoever takes the message dies of it: nobody can say what
/// became of it before the sender goes on, so nobody gets what was sent after it.
#[test]
fn what_is_left_for_later_keeps_its_partition() {
    const TEST: &str = "routing::what_is_left_for_later_keeps_its_partition";
    let Some(scene) = Scene::new(TEST) else { return };
    let started = Instant::now();
    let mut waited = 0;
    let mut round = |send_at: &str, take_at: &str| {
        let at = &format!("{send_at}, then {take_at}");
        let (sender, receiver) = routed(&scene.segment).open().unwrap();
        (0..EACH).for_each(|number| sender.try_send(Order { key: 0, number }).unwrap());
        let mut sending = scene.start("send one", send_at, "stop");
        eventually("it stands still, or ends", || is_stopped(sending.pid()) || sending.ended().is_some());
        let sent = scene.file("places").exists().then(|| scene.places());
        let status = scene.start("take all", take_at, "kill").finish();
        assert_eq!(status.signal(), Some(libc::SIGKILL), "at {at}: {status}");
        let taken = scene.file("places").exists().then(|| scene.places());
        scene.segment.bury_the_dead();
        sender.try_send(Order { key: 0, number: EACH + 1 }).unwrap();
        let drain =
            || std::iter::from_fn(|| receiver.try_recv().ok().map(|message| message.number)).collect::<Vec<_>>();
        let mut numbers = drain();
        if sending.ended().is_none() {
            waited += u32::from(numbers.is_empty());
            signal(sending.pid(), libc::SIGCONT);
            sending.succeed();
        }
        eventually("all are buried", || {
            scene.segment.bury_the_dead();
            scene.segment.participants().len() == 1
        });
        numbers.extend(drain());
        assert!(numbers.ends_with(&[EACH, EACH + 1]) && numbers.is_sorted(), "at {at}: {numbers:?}");
        drop((sender, receiver));
        scene.settle(at);
        (sent, taken)
    };
    let (sent, taken) = round("end", "end");
    // The last thing that a sender does is to say that it is done.
    let of_transfer = |places: Option<Places>| {
        let places = places.unwrap().into_iter().filter(|(place, _)| place.contains("transfer.rs"));
        places.map(|(place, count)| format!("{place}#{count}")).collect::<Vec<_>>()
    };
    let line = |place: &String| place.split(':').nth(1).unwrap().parse::<u32>().unwrap();
    let last = of_transfer(sent).into_iter().max_by_key(line).unwrap();
    let taken = of_transfer(taken);
    taken.iter().for_each(|take_at| drop(round(&last, take_at)));
    println!("stopped at {last}: of {} deaths {waited} waited, in {:?}", taken.len(), started.elapsed());
    // Those between the receive and what says of it.
    assert!(waited > 0 && (waited as usize) < taken.len());
}
