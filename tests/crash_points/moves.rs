//! The same for messages that move on in their blocks: forwarded, refused and forwarded again, given back, and taken from among the
//! dead letters, beside a parent that moves the same messages on. Who dies takes one with it, the one in its hands, and no other
//! is lost, or there twice.

use std::sync::atomic::{AtomicBool, Ordering};

use waterway::{
    ChannelOptions, Delivery, Message,
    policy::{DeadLetter, Retention},
};

use super::*;

type Ball = [u64; 7];

/// Messages that go round.
const BALLS: u64 = 4;
/// How many moves a child makes.
const MOVES: u64 = 40;

fn back(segment: &Segment) -> ChannelOptions<Ball> {
    let delivery = Delivery::AtLeastOnce { max_deliveries: 2 };
    segment.channel("back").capacity(8).delivery(delivery).policy(DeadLetter::to("letters"))
}

/// Where messages go round. Whoever has one passes it on, to another channel or to the same.
struct Court {
    /// Their blocks are one granule.
    plain: (Sender<Ball>, Receiver<Ball>),
    /// Their blocks have trailers, and move on to the others as they are.
    timed: (Sender<Ball>, Receiver<Ball>),
    /// What is received here is given back, and is a dead letter the second time.
    back: (Sender<Ball>, Receiver<Ball>),
    letters: Receiver<Ball>,
    /// There is never room.
    narrow: Sender<Ball>,
}

impl Court {
    fn new(segment: &Segment) -> Self {
        Self {
            plain: segment.channel("plain").capacity(8).open().unwrap(),
            timed: segment.channel("timed").capacity(8).policy(Retention::ttl(PATIENCE * 100)).open().unwrap(),
            back: back(segment).open().unwrap(),
            letters: segment.channel("letters").receiver().unwrap(),
            narrow: segment.channel("narrow").capacity(1).sender().unwrap(),
        }
    }

    /// Takes a message from somewhere, if there is one, and passes it on. Which, and where to, depends on `number`.
    fn pass_on(&self, number: u64) -> bool {
        let receivers = [&self.plain.1, &self.timed.1, &self.back.1, &self.letters];
        let found = (0..4).find_map(|turn| {
            let from = ((number + turn) % 4) as usize;
            receivers[from].try_recv().ok().map(|message| (from, message))
        });
        let Some((from, message)) = found else { return false };
        verify(&message);
        if from == 2 {
            message.nack();
            return true;
        }
        let refused = message.forward(&self.narrow).unwrap_err();
        assert!(refused.is_full());
        let to = [&self.plain.0, &self.timed.0, &self.plain.0, &self.back.0][(number / 4 % 4) as usize];
        let mut refused = Some(refused.into_inner());
        while let Some(message) = refused.take() {
            refused = message.forward(to).err().map(|error| error.into_inner());
        }
        true
    }

    /// Whether nobody else has ends, alive or not buried yet.
    fn is_alone(&self) -> bool {
        [&self.plain.1, &self.timed.1, &self.back.1]
            .iter()
            .all(|end| (end.sender_count(), end.receiver_count()) == (1, 1))
    }

    /// Takes all messages away; which there were.
    fn clear(self) -> Vec<u64> {
        let mut numbers = Vec::new();
        for receiver in [&self.plain.1, &self.timed.1, &self.back.1, &self.letters] {
            while let Ok(message) = receiver.try_recv() {
                numbers.push(verify(&message));
            }
            assert_eq!(receiver.invalid(), 0);
        }
        numbers.sort_unstable();
        numbers
    }
}

fn verify(message: &Message<Ball>) -> u64 {
    let number = message[0];
    assert_eq!(**message, [number; 7]);
    number
}

/// The script beside a parent that does the same.
pub(super) fn pass_on(place: &Place) {
    let segment = open(place);
    let court = Court::new(&segment);
    let (mut made, started) = (0, Instant::now());
    while made < MOVES {
        made += u64::from(court.pass_on(made));
        assert!(started.elapsed() < PATIENCE, "no message comes this way any more");
    }
    drop(court);
    report();
}

impl Scene {
    fn for_moves(test: &'static str) -> Option<Self> {
        Self::with(test, |segment| drop(back(segment).open().unwrap()))
    }

    /// A child passes messages on that dies somewhere, and so does a thread of ours, while we bury.
    fn game(&self, at: &str, by: &str, reaper_at: Option<&str>) -> (End, End) {
        let (court, ours) = (Court::new(&self.segment), Court::new(&self.segment));
        let filled = self.segment.channel::<Ball>("narrow").receiver().unwrap();
        court.narrow.try_send([0; 7]).unwrap();
        (0..BALLS).for_each(|number| court.plain.0.try_send([number; 7]).unwrap());
        let over = AtomicBool::new(false);
        let (ends, at) = thread::scope(|scope| {
            let passing = scope.spawn(|| {
                for number in 0.. {
                    if over.load(Ordering::SeqCst) {
                        break;
                    }
                    if !ours.pass_on(number) {
                        thread::yield_now();
                    }
                }
            });
            let end = self.beside("pass on", at, by, async |_| {});
            let ends = self.then_reap(end, at, reaper_at);
            // As long as messages move, what is left for later is left for later again.
            over.store(true, Ordering::SeqCst);
            passing.join().unwrap();
            ends
        });
        drop(ours);
        self.bury(&self.segment, || court.is_alone());
        drop(filled);
        let there = court.clear();
        let missing = (0..BALLS).filter(|number| !there.contains(number)).count();
        let may_miss = usize::from(matches!(ends.0, End::At(_)));
        assert!(missing <= may_miss && there.len() + missing == BALLS as usize, "at {at}: there are {there:?}");
        self.settle(&at);
        ends
    }
}

#[test]
fn who_passes_messages_on_may_die_or_stand_still_at_any_point_of_it() {
    const TEST: &str = "moves::who_passes_messages_on_may_die_or_stand_still_at_any_point_of_it";
    let Some(scene) = Scene::for_moves(TEST) else { return };
    scene.everywhere(|_| true, |at, by| scene.game(at, by, None).0);
}

#[test]
fn whoever_buries_those_who_passed_messages_on_may_die_of_it() {
    const TEST: &str = "moves::whoever_buries_those_who_passed_messages_on_may_die_of_it";
    let Some(scene) = Scene::for_moves(TEST) else { return };
    let matters = |place: &str| ["transfer.rs", "ring/mod.rs", "delivery.rs"].iter().any(|name| place.contains(name));
    // What there is to be done depends on where the messages are by then, which is chance.
    let (passed, killed) = scene.kill_reapers_by_chance(matters, &|at, by, reaper_at| scene.game(at, by, reaper_at));
    assert!(killed.len() * 2 >= passed.len(), "killed at {killed:?} of {:?}", passed.keys());
}
