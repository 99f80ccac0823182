//! A broadcast: producers publish, and consumers are members of three groups.
//!
//! The survivor has two groups of its own. One blocks, and sees all that was published: of every publisher 0, 1, 2, …. The other is
//! slow and lags: what it gets and what it is told to have missed are together what the first one saw. Of the groups of consumers,
//! one blocks and delivers at least once: nothing is lost, and what comes again says so. One blocks and delivers at most once:
//! nothing comes twice, and no more is missing than the dead can have held. One lags: it gets and has missed no more than there was.
//! In all of them a member gets what is new of a publisher in the order in which it was published.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    rc::Rc,
    time::Duration,
};

use waterway::{
    Delivery, Receiver, Segment,
    broadcast::{self, Behind, Published, Subscriber},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    BOUND, CONSUMERS, Result,
    held::Stamped,
    lanes::Seen,
    patterns::{Aborted, Court, LastWord, Stage},
    stamp::{Random, Stamp},
    survivor::wait_until,
};

const LANE: usize = 400;
const CAPACITY: usize = 32;
/// Messages that a member holds at most.
const HOLD: usize = 4;
const MOST_DELIVERIES: u32 = 255;
/// The publisher and member that survives.
const SURVIVOR: u32 = u32::MAX;

/// The groups of consumers.
const GROUPS: [&str; 3] = ["workers", "blocking", "lagging"];
const WORKERS: usize = 0;
const BLOCKING: usize = 1;
const LAGGING: usize = 2;

/// A member is done with a message, or was told that its group has missed some.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Receipt {
    group: u32,
    member: u32,
    sender: u32,
    /// How often it was delivered.
    count: u32,
    number: u64,
    /// Not 0 if this is about no message.
    missed: u64,
}

fn options(segment: &Segment) -> broadcast::Options<[u8]> {
    segment.broadcast::<[u8]>("broadcast").capacity(CAPACITY)
}

fn join(segment: &Segment, group: usize) -> Result<Subscriber<[u8]>> {
    let options = options(segment).group(GROUPS[group]);
    let options = match group {
        WORKERS => options.behind(Behind::Block).delivery(Delivery::AtLeastOnce { max_deliveries: MOST_DELIVERIES }),
        BLOCKING => options.behind(Behind::Block),
        _ => options.behind(Behind::Lag),
    };
    Ok(options.subscriber()?)
}

fn receipt(held: &Stamped<Published<[u8]>>, group: usize, member: u32) -> Result<Receipt> {
    let Stamp { sender, number, .. } = held.stamp(LANE)?;
    let count = held.message.delivery_count();
    Ok(Receipt { group: group as u32, member, sender, count, number, missed: 0 })
}

pub(crate) async fn play(stage: Stage) -> Result<()> {
    let mut random = Random::new(stage.seed ^ u64::from(stage.id) << 8 ^ LANE as u64);
    if !stage.is_producer {
        let members = (0..GROUPS.len()).map(|group| take(&stage, group, Random::new(random.next())));
        return futures::future::try_join_all(members).await.map(drop);
    }
    let publisher = options(&stage.segment).publisher()?;
    for number in 0.. {
        let most = if random.below(32) == 0 { 40_000 } else { 1_000 };
        let message = Stamp { sender: stage.id, lane: LANE as u32, number, len: 0 }.message(random.below(most));
        publisher.send(message).await.map_err(|error| error.to_string())?;
        if random.below(4) == 0 {
            tokio::time::sleep(Duration::from_micros(random.below(3000) as u64)).await;
        }
    }
    Ok(())
}

/// Takes for a group, holds a few, and sends a receipt for each before it lets go.
async fn take(stage: &Stage, group: usize, mut random: Random) -> Result<()> {
    let member = join(&stage.segment, group)?;
    let receipts = stage.segment.channel::<Receipt>("broadcast-receipts").sender()?;
    let tell = async |receipt| receipts.send(receipt).await.map_err(|error| error.to_string());
    let mut held = VecDeque::new();
    loop {
        let next = match member.try_recv() {
            // Nobody waits with messages in its hands.
            Err(broadcast::TryRecvError::Empty) if held.is_empty() => member.recv().await.map_err(Into::into),
            next => next,
        };
        let idle = next.is_err();
        match next {
            Ok(message) => held.push_back(Stamped::new(message, LANE)?),
            Err(broadcast::TryRecvError::Empty) => {}
            Err(broadcast::TryRecvError::Lagged(missed)) if group == LAGGING => {
                let group = group as u32;
                tell(Receipt { group, member: stage.id, sender: 0, count: 0, number: 0, missed }).await?;
            }
            Err(error) => return Err(format!("{}: {error}", GROUPS[group]).into()),
        }
        while held.len() >= HOLD || (idle || random.below(3) == 0) && !held.is_empty() {
            let Some(one) = held.pop_front() else { break };
            if group == WORKERS && random.below(30) == 0 {
                // It comes again.
                continue;
            }
            tell(receipt(&one, group, stage.id)?).await?;
            one.message.ack();
        }
        if group == LAGGING && random.below(16) == 0 {
            tokio::time::sleep(Duration::from_micros(random.below(20_000) as u64)).await;
        }
        tokio::task::yield_now().await;
    }
}

/// What the survivor knows.
#[derive(Default)]
struct Ledger {
    /// How many each publisher has published.
    published: HashMap<u32, u64>,
    all: u64,
    /// Where the messages stand that the lagging group of the survivor must have got or missed.
    unsettled: VecDeque<u64>,
    /// What that group got, and how many it has missed just before.
    got: VecDeque<(u64, u64)>,
    /// By group and publisher.
    taken: HashMap<(u32, u32), Seen>,
    /// The last number that a member got for the first time, by group and publisher.
    order: HashMap<(u32, u32, u32), u64>,
    /// The last count of each message that was delivered again.
    again: HashMap<(u32, u64), u32>,
    /// Of consumers' groups, what they were told.
    missed: u64,
}

impl Ledger {
    fn publish(&mut self, sequence: u64, message: &[u8]) -> Result<()> {
        let stamp = Stamp::verify(message, LANE)?;
        let expected = self.published.entry(stamp.sender).or_default();
        if stamp.number != *expected {
            return Err(format!("{stamp:?} was published, {expected} was expected").into());
        }
        *expected += 1;
        self.all += 1;
        self.unsettled.push_back(sequence);
        self.settle()
    }

    fn lag(&mut self, sequence: u64, message: &[u8], missed: u64) -> Result<()> {
        Stamp::verify(message, LANE)?;
        self.got.push_back((sequence, missed));
        self.settle()
    }

    /// Counts what was published before each message that the lagging group got.
    fn settle(&mut self) -> Result<()> {
        while let Some((sequence, missed)) = self.got.front().copied()
            && self.unsettled.back().is_some_and(|last| *last >= sequence)
        {
            let before = self.unsettled.iter().take_while(|other| **other < sequence).count();
            if self.unsettled.get(before) != Some(&sequence) || before as u64 != missed {
                return Err(format!("{missed} were missed before {sequence}, and there were {before}").into());
            }
            self.unsettled.drain(..=before);
            self.got.pop_front();
        }
        Ok(())
    }

    fn receipt(&mut self, receipt: Receipt) -> Result<()> {
        let Receipt { group, member, sender, count, number, missed } = receipt;
        if missed > 0 {
            self.missed += missed;
            return Ok(());
        }
        let wrong = |why: String| Err(format!("{}: {why}: {receipt:?}", GROUPS[group as usize]).into());
        let new = self.taken.entry((group, sender)).or_default().insert(number);
        if count > 1 {
            let last = self.again.insert((sender, number), count).unwrap_or(1);
            if group as usize != WORKERS || last >= count || count > MOST_DELIVERIES {
                return wrong(format!("again, after {last}"));
            }
            return Ok(());
        }
        if !new {
            return wrong("twice".into());
        }
        if let Some(last) = self.order.insert((group, member, sender), number)
            && last >= number
        {
            return wrong(format!("out of order, after {last}"));
        }
        Ok(())
    }

    fn has(&self, group: usize, sender: u32, number: u64) -> bool {
        self.taken.get(&(group as u32, sender)).is_some_and(|seen| seen.contains(number))
    }

    /// How many messages of a group have a receipt; `None` if one has that was not published.
    fn done(&self, group: usize) -> Option<u64> {
        let of_group = self.taken.iter().filter(|((other, _), _)| *other as usize == group);
        let counts = of_group.map(|((_, sender), seen)| {
            (seen.end() <= self.published.get(sender).copied().unwrap_or_default()).then(|| seen.count())
        });
        counts.sum()
    }

    fn is_complete(&self, most_held: u64) -> bool {
        let (workers, blocking) = (self.done(WORKERS), self.done(BLOCKING));
        workers == Some(self.all)
            && blocking.is_some_and(|done| done + most_held >= self.all)
            && self.done(LAGGING).is_some_and(|done| done + self.missed <= self.all)
            && self.got.is_empty()
    }
}

/// Sees all.
async fn witness(court: Court, subscriber: Rc<Subscriber<[u8]>>, ledger: Rc<RefCell<Ledger>>) {
    while let Ok(message) = subscriber.recv().await {
        let done = ledger.borrow_mut().publish(message.sequence(), &message);
        done.unwrap_or_else(|wrong| court.fail(wrong));
    }
    court.fail("there is nobody to publish, and the survivor is there");
}

/// Sees what it can.
async fn lag(court: Court, subscriber: Rc<Subscriber<[u8]>>, ledger: Rc<RefCell<Ledger>>) {
    let mut random = Random::new(3);
    let mut missed = 0;
    loop {
        match subscriber.recv().await {
            Ok(message) => {
                let missed = std::mem::take(&mut missed);
                let done = ledger.borrow_mut().lag(message.sequence(), &message, missed);
                done.unwrap_or_else(|wrong| court.fail(wrong));
            }
            Err(broadcast::RecvError::Lagged(count)) => missed += count,
            Err(error) => return court.fail(error),
        }
        if random.below(40) == 0 && !court.is_over() {
            tokio::time::sleep(Duration::from_micros(random.below(100_000) as u64)).await;
        }
    }
}

async fn read_receipts(court: Court, receipts: Receiver<Receipt>, ledger: Rc<RefCell<Ledger>>) {
    while let Some(receipt) = receipts.recv().await {
        let done = ledger.borrow_mut().receipt(*receipt);
        done.unwrap_or_else(|wrong| court.fail(wrong));
    }
}

pub(crate) async fn judge(court: Court) -> Result<LastWord> {
    let publisher = options(&court.segment).publisher()?;
    // They keep the groups, and take nothing until the others have gone.
    let groups = (0..GROUPS.len()).map(|group| join(&court.segment, group)).collect::<Result<Vec<_>>>()?;
    let all = Rc::new(options(&court.segment).only().behind(Behind::Block).subscriber()?);
    let some = Rc::new(options(&court.segment).subscriber()?);
    let (receipts_open, receipts) = court.segment.channel::<Receipt>("broadcast-receipts").open()?;
    let ledger = Rc::new(RefCell::new(Ledger::default()));
    let readers = [
        Aborted(tokio::task::spawn_local(witness(court.clone(), Rc::clone(&all), Rc::clone(&ledger)))),
        Aborted(tokio::task::spawn_local(lag(court.clone(), Rc::clone(&some), Rc::clone(&ledger)))),
        Aborted(tokio::task::spawn_local(read_receipts(court.clone(), receipts.clone(), Rc::clone(&ledger)))),
    ];
    for number in 0.. {
        if court.is_over() {
            break;
        }
        let message = Stamp { sender: SURVIVOR, lane: LANE as u32, number, len: 0 }.message(100);
        publisher.send_timeout(message, BOUND).await.map_err(|error| error.to_string())?;
        let is_done = || ledger.borrow().has(WORKERS, SURVIVOR, number);
        wait_until(is_done).await;
        if !is_done() {
            return Err(format!("nobody is done with {number}").into());
        }
        court.went_well();
    }
    let holds = move || {
        // What the last members have left, after all that they have said.
        if receipts.is_empty() {
            for (group, member) in groups.iter().enumerate() {
                take_rest(&court, &mut ledger.borrow_mut(), group, member);
            }
        }
        // Those that were asked to end held something, too.
        let most_held = (court.kills() + CONSUMERS) * HOLD;
        all.is_empty() && some.is_empty() && receipts.is_empty() && ledger.borrow().is_complete(most_held as u64)
    };
    Ok(LastWord::new(holds, (publisher, receipts_open, readers)))
}

fn take_rest(court: &Court, ledger: &mut Ledger, group: usize, member: &Subscriber<[u8]>) {
    loop {
        let done = match member.try_recv() {
            Ok(message) => Stamped::new(message, LANE).and_then(|held| {
                let done = ledger.receipt(receipt(&held, group, SURVIVOR)?);
                held.message.ack();
                done
            }),
            Err(broadcast::TryRecvError::Lagged(missed)) if group == LAGGING => {
                ledger.missed += missed;
                Ok(())
            }
            Err(broadcast::TryRecvError::Empty) => return,
            Err(error) => return court.fail(error),
        };
        done.unwrap_or_else(|wrong| court.fail(wrong));
    }
}
