//! A channel with priorities and times to live: producers send in all levels, and consumers receive, at least once.
//!
//! The time of some messages is over when they are sent: nobody gets one of those, and as many are counted as expired. The others
//! have hours: none is lost, and what comes again says so. A consumer gets what is new of a producer and a level in the order in
//! which it was sent. What the survivor sends with the lowest priority is done with, however much comes before it.

use std::{cell::RefCell, collections::HashMap, rc::Rc, time::Duration};

use waterway::{
    ChannelOptions, Delivery, Message, Receiver, Segment, Sender, TryRecvError,
    policy::{ByMessage, Policy, Priority, Retention},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    BOUND, CONSUMERS, PRODUCERS, Result,
    held::Held,
    lanes::Seen,
    patterns::{Aborted, Court, LastWord, Stage},
    stamp::Random,
    survivor::wait_until,
};

const LEVELS: [Priority; 4] = [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent];
const HOURS: Duration = Duration::from_secs(9 * 3600);
/// Messages that a consumer holds at most.
const HOLD: usize = 4;
const MOST_DELIVERIES: u32 = 10_000;
/// The sender that survives, and who receives what the others have left.
const SURVIVOR: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Load {
    sender: u32,
    level: u32,
    number: u64,
    body: [u64; 60],
}

impl Load {
    fn new(sender: u32, level: u32, number: u64) -> Self {
        let mut random = Random::new(number << 24 ^ u64::from(sender) << 3 ^ u64::from(level));
        Self { sender, level, number, body: [(); 60].map(|()| random.next()) }
    }

    /// Whether it is whole, and may be delivered.
    fn check(&self) -> Result<()> {
        if *self != Self::new(self.sender, self.level, self.number) {
            return Err(format!("damaged: {self:?}").into());
        }
        if is_late(self.sender, self.number) {
            return Err(format!("{} of {} in {} was delivered late", self.number, self.sender, self.level).into());
        }
        Ok(())
    }
}

fn is_late(sender: u32, number: u64) -> bool {
    sender != SURVIVOR && number % 5 == 3
}

impl Policy for Load {
    fn priority(&self) -> Priority {
        LEVELS[self.level as usize % LEVELS.len()]
    }

    fn retention(&self) -> Retention {
        Retention::ttl(if is_late(self.sender, self.number) { Duration::ZERO } else { HOURS })
    }
}

/// A consumer is about to acknowledge a message.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Receipt {
    consumer: u32,
    sender: u32,
    level: u32,
    /// How often it was delivered.
    count: u32,
    number: u64,
    /// Whether it may be older than what came before: others had taken it, and not looked at it.
    came_back: u64,
}

fn options(segment: &Segment) -> ChannelOptions<Load> {
    let delivery = Delivery::AtLeastOnce { max_deliveries: MOST_DELIVERIES };
    segment.channel::<Load>("policies").capacity(12).delivery(delivery).policy(ByMessage)
}

fn receipt(message: &Message<Load>, consumer: u32) -> Result<Receipt> {
    message.check()?;
    let Load { sender, level, number, .. } = **message;
    let came_back = u64::from(message.sender().is_none());
    Ok(Receipt { consumer, sender, level, count: message.delivery_count(), number, came_back })
}

pub(crate) async fn play(stage: Stage) -> Result<()> {
    let random = Random::new(stage.seed ^ u64::from(stage.id) << 8 ^ 600);
    if stage.is_producer {
        return send(options(&stage.segment).sender()?, stage.id, random).await;
    }
    receive(&stage, random).await
}

async fn send(sender: Sender<Load>, id: u32, mut random: Random) -> Result<()> {
    let mut next = [0; LEVELS.len()];
    loop {
        let level = random.below(LEVELS.len());
        let load = Load::new(id, level as u32, next[level]);
        if random.below(4) == 0 {
            sender.reserve().await.map_err(|error| error.to_string())?.send(load);
        } else {
            sender.send(load).await.map_err(|error| error.to_string())?;
        }
        next[level] += 1;
        if random.below(4) == 0 {
            tokio::time::sleep(Duration::from_micros(random.below(3000) as u64)).await;
        }
    }
}

async fn receive(stage: &Stage, mut random: Random) -> Result<()> {
    let receiver = options(&stage.segment).receiver()?;
    let receipts = stage.segment.channel::<Receipt>("policies-receipts").sender()?;
    let mut held = Vec::new();
    loop {
        let next = match receiver.try_recv() {
            // Nobody waits with messages in its hands.
            Err(TryRecvError::Empty) if held.is_empty() => receiver.recv().await.ok_or(TryRecvError::Disconnected),
            next => next,
        };
        let idle = next.is_err();
        match next {
            Ok(message) => {
                message.check()?;
                held.push(Held::new(message));
            }
            Err(TryRecvError::Empty) => {}
            Err(error) => return Err(format!("{error}, and the survivor is there").into()),
        }
        while held.len() >= HOLD || (idle || random.below(3) == 0) && !held.is_empty() {
            let one = held.remove(0);
            if random.below(30) == 0 {
                // It comes again.
                continue;
            }
            receipts.send(receipt(&one, stage.id)?).await.map_err(|error| error.to_string())?;
            one.ack();
        }
        tokio::task::yield_now().await;
    }
}

/// What the survivor knows.
#[derive(Default)]
struct Ledger {
    /// By sender and level.
    done: HashMap<(u32, u32), Seen>,
    /// The last number that a consumer got for the first time, by sender and level.
    order: HashMap<(u32, u32, u32), u64>,
    /// The last count of each message that was delivered again.
    again: HashMap<(u32, u32, u64), u32>,
}

impl Ledger {
    fn receipt(&mut self, receipt: Receipt) -> Result<()> {
        let Receipt { consumer, sender, level, count, number, came_back } = receipt;
        let wrong = |why: String| Err(format!("{why}: {receipt:?}").into());
        let new = self.done.entry((sender, level)).or_default().insert(number);
        if count > 1 {
            let last = self.again.insert((sender, level, number), count).unwrap_or(1);
            return if last >= count { wrong(format!("again, after {last}")) } else { Ok(()) };
        }
        if !new {
            return wrong("twice".into());
        }
        if came_back == 0
            && let Some(last) = self.order.insert((consumer, sender, level), number)
            && last >= number
        {
            return wrong(format!("out of order, after {last}"));
        }
        Ok(())
    }

    fn has(&self, sender: u32, level: u32, number: u64) -> bool {
        self.done.get(&(sender, level)).is_some_and(|seen| seen.contains(number))
    }

    /// How many are missing before the last one that was received, of those whose time is not over and of the others.
    fn missing(&self) -> (u64, u64) {
        let (mut lost, mut late) = (0, 0);
        for ((sender, _), seen) in &self.done {
            let of_sender = (0..seen.end()).filter(|number| is_late(*sender, *number)).count() as u64;
            late += of_sender;
            lost += seen.end() - seen.count() - of_sender;
        }
        (lost, late)
    }
}

async fn read_receipts(court: Court, receipts: Receiver<Receipt>, ledger: Rc<RefCell<Ledger>>) {
    while let Some(receipt) = receipts.recv().await {
        let done = ledger.borrow_mut().receipt(*receipt);
        done.unwrap_or_else(|wrong| court.fail(wrong));
    }
}

pub(crate) async fn judge(court: Court) -> Result<LastWord> {
    // The receiver keeps the channel, and takes nothing until the others have gone.
    let (sender, receiver) = options(&court.segment).open()?;
    let (receipts_open, receipts) = court.segment.channel::<Receipt>("policies-receipts").open()?;
    let ledger = Rc::new(RefCell::new(Ledger::default()));
    let reader = tokio::task::spawn_local(read_receipts(court.clone(), receipts.clone(), Rc::clone(&ledger)));
    for number in 0.. {
        if court.is_over() {
            break;
        }
        sender.send_timeout(Load::new(SURVIVOR, 0, number), BOUND).await.map_err(|error| error.to_string())?;
        let is_done = || ledger.borrow().has(SURVIVOR, 0, number);
        wait_until(is_done).await;
        if !is_done() {
            return Err(format!("nobody is done with {number}, of the lowest level").into());
        }
        court.went_well();
    }
    let holds = move || {
        // What the last consumers have left, after all that they have said.
        while receipts.is_empty()
            && let Ok(message) = receiver.try_recv()
        {
            let held = Held::new(message);
            let done = receipt(&held, SURVIVOR).and_then(|receipt| ledger.borrow_mut().receipt(receipt));
            done.unwrap_or_else(|wrong| court.fail(wrong));
            held.ack();
        }
        let (lost, late) = ledger.borrow().missing();
        // Whoever is killed may have taken one that it has not counted yet; the last one of a sender and level may be late.
        let killed = (court.kills() + CONSUMERS + PRODUCERS) as u64;
        let expired = receiver.inquire().counts.expired;
        let is_counted = (late.saturating_sub(killed)..=late + killed * LEVELS.len() as u64).contains(&expired);
        receipts.is_empty() && receiver.is_empty() && lost == 0 && is_counted
    };
    Ok(LastWord::new(holds, (sender, receipts_open, Aborted(reader))))
}
