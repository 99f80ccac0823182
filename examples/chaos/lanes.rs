//! Channels: what is sent into them, what must come out, and what may be missing.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use waterway::{ChannelOptions, Delivery, Receiver, Segment, Sender, policy::DeadLetter};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    Result,
    stamp::{Random, Stamp},
    survivor::{Shared, State},
};

/// A channel of stamped messages.
pub(crate) struct Lane {
    pub(crate) name: &'static str,
    capacity: usize,
    largest: usize,
    /// How many a consumer may hold before it sends receipts. What is taken by the survivor needs none.
    hold: usize,
    /// How often a message is delivered at most; 0: at most once.
    deliveries: u32,
}

impl Lane {
    pub(crate) fn options(&self, segment: &Segment) -> ChannelOptions<[u8]> {
        let options = segment.bytes(self.name).capacity(self.capacity);
        match self.deliveries {
            0 => options,
            most => options.delivery(Delivery::AtLeastOnce { max_deliveries: most }).policy(DeadLetter::to(DEAD)),
        }
    }
}

/// Where tasks go that nobody can do.
pub(crate) const DEAD: &str = "task-dead";

/// Larger messages go into other sectors of the segment; all that may wait or be held at a time does not quite fit into it.
pub(crate) const LANES: [Lane; 8] = [
    Lane { name: "work-small", capacity: 64, largest: 2_000, hold: 4, deliveries: 0 },
    Lane { name: "work-medium", capacity: 16, largest: 30_000, hold: 2, deliveries: 0 },
    Lane { name: "work-large", capacity: 4, largest: 250_000, hold: 1, deliveries: 0 },
    Lane { name: "task-small", capacity: 64, largest: 2_000, hold: 4, deliveries: 5 },
    Lane { name: "task-medium", capacity: 16, largest: 30_000, hold: 2, deliveries: 3 },
    Lane { name: "task-large", capacity: 4, largest: 250_000, hold: 1, deliveries: 4 },
    Lane { name: "direct", capacity: 8, largest: 60_000, hold: 0, deliveries: 0 },
    Lane { name: "direct-narrow", capacity: 1, largest: 500, hold: 0, deliveries: 0 },
];
/// The first of these go to consumers.
pub(crate) const WORK: usize = 6;
/// What a consumer may have taken and not acknowledged when it is killed, of what does not come back.
pub(crate) const HELD: u64 = (LANES[0].hold + LANES[1].hold + LANES[2].hold) as u64;

/// A consumer has taken a message and found it whole.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Receipt {
    consumer: u32,
    lane: u16,
    /// How often it was delivered.
    count: u16,
    /// Of the receipts of this consumer for this lane.
    number: u64,
    /// What was received.
    sender: u64,
    of: u64,
}

/// A producer has ended in good order.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Farewell {
    sender: u32,
    lane: u32,
    /// How many messages it has sent.
    count: u64,
}

/// Sends until the channel is closed, or until it is asked to end: by the end of its life's receiver.
pub(crate) async fn produce(segment: &Segment, id: u32, lane: usize, seed: u64, life: &Sender<[u8]>) -> Result<()> {
    let sender = LANES[lane].options(segment).sender()?;
    let farewells = segment.channel::<Farewell>("farewells").sender()?;
    let mut random = Random::new(seed ^ u64::from(id) << 8 ^ lane as u64);
    for number in 0.. {
        if life.is_closed() {
            let farewell = Farewell { sender: id, lane: lane as u32, count: number };
            farewells.send(farewell).await.map_err(|error| error.to_string())?;
            break;
        }
        // Mostly short, sometimes as long as they come.
        let most = LANES[lane].largest >> (random.below(4) * 2);
        let message = Stamp { sender: id, lane: lane as u32, number, len: 0 }.message(random.below(most) + 1);
        if sender.send(message).await.is_err() {
            break;
        }
        if random.below(16) == 0 {
            tokio::time::sleep(Duration::from_micros(random.below(3000) as u64)).await;
        }
    }
    Ok(())
}

/// Whether nobody can do it.
fn is_poison(number: u64) -> bool {
    number % 50 == 49
}

/// Takes until no sender is left, holds a few, and sends a receipt for each before it lets go.
pub(crate) async fn consume(segment: &Segment, id: u32, lane: usize, seed: u64) -> Result<()> {
    let receiver = LANES[lane].options(segment).receiver()?;
    let receipts = segment.channel::<Receipt>("receipts").sender()?;
    let mut random = Random::new(seed ^ u64::from(id) << 8 ^ lane as u64);
    let mut held = VecDeque::new();
    let (mut number, mut over) = (0, false);
    loop {
        let comes_back = LANES[lane].deliveries > 0;
        let message = match receiver.try_recv() {
            Ok(message) => Some(message),
            // No consumer waits for another's: at the end all would.
            Err(_) if comes_back && !held.is_empty() => None,
            Err(_) => match receiver.recv().await {
                Some(message) => Some(message),
                None => {
                    over = true;
                    None
                }
            },
        };
        let idle = message.is_none();
        if let Some(message) = message {
            let stamp = Stamp::verify(&message, lane)?;
            if comes_back && is_poison(stamp.number) {
                message.nack();
                continue;
            }
            held.push_back((stamp, message));
            // So that tasks are not done by whoever looks all the time.
            tokio::task::yield_now().await;
        }
        while held.len() >= LANES[lane].hold || (idle || random.below(3) == 0) && !held.is_empty() {
            let Some((stamp, message)) = held.pop_front() else { break };
            let count = message.delivery_count() as u16;
            let sender = stamp.sender.into();
            let receipt = Receipt { consumer: id, lane: lane as u16, count, number, sender, of: stamp.number };
            receipts.send(receipt).await.map_err(|error| error.to_string())?;
            number += 1;
            drop(message);
        }
        if over {
            return Ok(());
        }
    }
}

/// What was received of one sender in one lane.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    bits: Vec<u64>,
    count: u64,
    end: u64,
}

impl Seen {
    /// `false` if it was there already.
    pub(crate) fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        let new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        self.count += u64::from(new);
        self.end = self.end.max(number + 1);
        new
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        self.bits.get((number / 64) as usize).is_some_and(|word| word & 1 << (number % 64) != 0)
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// After the highest number.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }
}

/// What the survivor knows of the channels.
#[derive(Debug)]
pub(crate) struct Lanes {
    pub(crate) received: [u64; LANES.len()],
    pub(crate) moved: [Instant; LANES.len()],
    /// The next number of each sender in each direct lane.
    pub(crate) direct: HashMap<(usize, u32), u64>,
    /// How many each sender that has ended in good order has sent in each direct lane.
    pub(crate) last: HashMap<(usize, u32), u64>,
    work: HashMap<(usize, u32), Seen>,
    /// The last count of each message that was delivered again.
    again: HashMap<(usize, u32, u64), u16>,
    dead: HashMap<(usize, u32), Seen>,
    pub(crate) dead_letters: u64,
    pub(crate) redelivered: u64,
    /// The next receipt of each consumer, by lane.
    receipts: HashMap<(usize, u32), u64>,
    /// The last number that a consumer got of a sender, by lane.
    order: HashMap<(usize, u32, u32), u64>,
    pub(crate) farewells: u64,
}

impl Lanes {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            received: [0; LANES.len()],
            moved: [now; LANES.len()],
            direct: HashMap::new(),
            last: HashMap::new(),
            work: HashMap::new(),
            again: HashMap::new(),
            dead: HashMap::new(),
            dead_letters: 0,
            redelivered: 0,
            receipts: HashMap::new(),
            order: HashMap::new(),
            farewells: 0,
        }
    }

    /// What was taken and never acknowledged, as far as something later of the same sender was, or the sender has said that
    /// it has sent it; in lanes at least once, or not.
    pub(crate) fn lost(&self, comes_back: bool) -> u64 {
        let lanes = self.work.iter().filter(|((lane, _), _)| (LANES[*lane].deliveries > 0) == comes_back);
        lanes.map(|(_, seen)| seen.end - seen.count).sum()
    }
}

impl State {
    fn moved(&mut self, lane: usize) {
        self.lanes.received[lane] += 1;
        self.lanes.moved[lane] = Instant::now();
    }

    fn direct(&mut self, lane: usize, message: &[u8]) {
        match Stamp::verify(message, lane) {
            Ok(stamp) => {
                let expected = self.lanes.direct.entry((lane, stamp.sender)).or_default();
                let was = std::mem::replace(expected, stamp.number + 1);
                if was != stamp.number {
                    self.fail(format!("{}: {stamp:?} came, {was} was expected", LANES[lane].name));
                }
            }
            Err(error) => self.fail(error.to_string()),
        }
        self.moved(lane);
    }

    fn receipt(&mut self, receipt: Receipt) {
        let (lane, consumer, sender) = (receipt.lane as usize, receipt.consumer, receipt.sender as u32);
        if lane >= WORK {
            return self.fail(format!("{receipt:?}"));
        }
        let expected = self.lanes.receipts.entry((lane, consumer)).or_default();
        let was = std::mem::replace(expected, receipt.number + 1);
        if was != receipt.number {
            self.fail(format!("{receipt:?}, and {was} was expected"));
        }
        let new = self.lanes.work.entry((lane, sender)).or_default().insert(receipt.of);
        if LANES[lane].deliveries > 0 {
            self.lanes.redelivered += u64::from(receipt.count > 1);
            let last = match receipt.count {
                // What had a receipt before was delivered before.
                1 => {
                    if new {
                        None
                    } else {
                        Some(1)
                    }
                }
                count => self.lanes.again.insert((lane, sender, receipt.of), count),
            };
            if last.is_some_and(|last| last >= receipt.count) || u32::from(receipt.count) > LANES[lane].deliveries {
                self.fail(format!("again, after {last:?}: {receipt:?}"));
            }
            return self.moved(lane);
        }
        if !new {
            self.fail(format!("twice: {receipt:?}"));
        }
        if let Some(last) = self.lanes.order.insert((lane, consumer, sender), receipt.of)
            && last >= receipt.of
        {
            self.fail(format!("out of order, after {last}: {receipt:?}"));
        }
        self.moved(lane);
    }

    /// What a producer says that it has sent. Its last messages may still be on their way: they are judged at the end.
    fn farewell(&mut self, farewell: Farewell) {
        let at = (farewell.lane as usize, farewell.sender);
        self.lanes.farewells += 1;
        if at.0 < WORK {
            let seen = self.lanes.work.entry(at).or_default();
            if seen.end > farewell.count {
                let end = seen.end;
                self.fail(format!("{farewell:?}, and {end} were received"));
                return;
            }
            seen.end = farewell.count;
        } else {
            self.lanes.last.insert(at, farewell.count);
        }
    }

    fn dead_letter(&mut self, message: &[u8]) {
        let lane = Stamp::read_from_prefix(message).map_or(0, |(stamp, _)| stamp.lane as usize);
        match Stamp::verify(message, lane.min(LANES.len() - 1)) {
            Ok(stamp) => {
                self.lanes.dead_letters += 1;
                if !self.lanes.dead.entry((lane, stamp.sender)).or_default().insert(stamp.number) {
                    self.fail(format!("twice among the dead letters: {stamp:?}"));
                }
                self.lanes.work.entry((lane, stamp.sender)).or_default().insert(stamp.number);
            }
            Err(error) => self.fail(format!("dead letter: {error}")),
        }
    }
}

pub(crate) async fn receive_direct(receiver: Receiver<[u8]>, lane: usize, state: Shared) {
    while let Some(message) = receiver.recv().await {
        state.borrow_mut().direct(lane, &message);
    }
}

pub(crate) async fn receive_dead_letters(receiver: Receiver<[u8]>, state: Shared) {
    while let Some(message) = receiver.recv().await {
        state.borrow_mut().dead_letter(&message);
    }
}

pub(crate) async fn receive_farewells(receiver: Receiver<Farewell>, state: Shared) {
    while let Some(farewell) = receiver.recv().await {
        state.borrow_mut().farewell(*farewell);
    }
}

pub(crate) async fn receive_receipts(receiver: Receiver<Receipt>, state: Shared) {
    while let Some(receipt) = receiver.recv().await {
        state.borrow_mut().receipt(*receipt);
    }
}
