//! A channel routed by key: producers send, each of keys of its own, and consumers receive, at least once.
//!
//! Whoever has sent, has received, or is about to acknowledge a message says so, in one channel for all: so the survivor hears of it
//! in the order in which it happened. What is new of a key comes in the order in which it was sent; what comes again says so, and
//! comes before all that was sent later; while a receiver has a message of a key nobody else is given one, unless that receiver is
//! dead. Nothing that was sent is lost.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    rc::Rc,
    time::Duration,
};

use waterway::{Delivery, Receiver, Segment, TryRecvError, policy::RouteKey, routing};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    BOUND, Result,
    held::Stamped,
    patterns::{Aborted, Court, LastWord, Stage},
    stamp::{Random, Stamp},
    survivor::wait_until,
};

const LANE: usize = 500;
const PARTITIONS: usize = 8;
/// Keys of a sender: it takes them in turn.
const KEYS: u64 = 5;
/// Messages that a receiver holds at most.
const HOLD: usize = 6;
const MOST_DELIVERIES: u32 = 10_000;
/// The sender that survives, and who receives what the others have left.
const SURVIVOR: u32 = u32::MAX;

/// What is done with a message.
const SENT: u32 = 1;
const TAKEN: u32 = 2;
const DONE: u32 = 3;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Event {
    what: u32,
    who: u32,
    sender: u32,
    /// How often it was delivered.
    count: u32,
    number: u64,
}

fn options(segment: &Segment) -> routing::Options<[u8]> {
    let delivery = Delivery::AtLeastOnce { max_deliveries: MOST_DELIVERIES };
    segment.bytes("routed").capacity(16).delivery(delivery).routed().partitions(PARTITIONS)
}

fn key(sender: u32, number: u64) -> RouteKey {
    ((u64::from(sender) << 8) + number % KEYS).into()
}

fn event(held: &Stamped<routing::Message<[u8]>>, what: u32, who: u32) -> Result<Event> {
    let Stamp { sender, number, .. } = held.stamp(LANE)?;
    Ok(Event { what, who, sender, count: held.message.delivery_count(), number })
}

pub(crate) async fn play(stage: Stage) -> Result<()> {
    let mut random = Random::new(stage.seed ^ u64::from(stage.id) << 8 ^ LANE as u64);
    let events = stage.segment.channel::<Event>("routed-events").sender()?;
    let tell = async |event| events.send(event).await.map_err(|error| error.to_string());
    if stage.is_producer {
        let sender = options(&stage.segment).sender()?;
        for number in 0.. {
            let most = if random.below(32) == 0 { 30_000 } else { 600 };
            let stamp = Stamp { sender: stage.id, lane: LANE as u32, number, len: 0 };
            let message = stamp.message(random.below(most));
            sender.send(key(stage.id, number), message).await.map_err(|error| error.to_string())?;
            tell(Event { what: SENT, who: stage.id, sender: stage.id, count: 0, number }).await?;
            if random.below(4) == 0 {
                tokio::time::sleep(Duration::from_micros(random.below(3000) as u64)).await;
            }
        }
    }
    let receiver = options(&stage.segment).receiver()?;
    let mut held = VecDeque::new();
    loop {
        let next = match receiver.try_recv() {
            // Nobody waits with messages in its hands.
            Err(TryRecvError::Empty) if held.is_empty() => receiver.recv().await.ok_or(TryRecvError::Disconnected),
            next => next,
        };
        let idle = next.is_err();
        match next {
            Ok(message) => {
                let one = Stamped::new(message, LANE)?;
                let taken = event(&one, TAKEN, stage.id)?;
                held.push_back(one);
                tell(taken).await?;
            }
            Err(TryRecvError::Empty) => {}
            Err(error) => return Err(format!("{error}, and the survivor is there").into()),
        }
        while held.len() >= HOLD || (idle || random.below(5) == 0) && !held.is_empty() {
            let Some(one) = held.pop_front() else { break };
            tell(event(&one, DONE, stage.id)?).await?;
            one.message.ack();
        }
        tokio::task::yield_now().await;
    }
}

/// What is known of a key.
#[derive(Default)]
struct Key {
    /// After the last one that was sent, or received for the first time.
    sent: u64,
    first: u64,
    /// All before this are done with, and these.
    below: u64,
    done: BTreeSet<u64>,
    /// What is taken and not done with, and by whom.
    held: HashMap<u32, BTreeSet<u64>>,
}

#[derive(Default)]
struct Ledger {
    keys: HashMap<(u32, u64), Key>,
    /// Whose messages others were given: they must be dead by then.
    overtaken: HashSet<u32>,
}

impl Ledger {
    fn note(&mut self, event: Event, is_living: impl Fn(u32) -> bool) -> Result<()> {
        let Event { what, who, sender, count, number } = event;
        let key = self.keys.entry((sender, number % KEYS)).or_default();
        let number = number / KEYS;
        if what == SENT {
            key.sent = key.sent.max(number + 1);
            return Ok(());
        }
        let wrong = |why: String| Err(format!("{why}: {event:?}").into());
        if self.overtaken.contains(&who) {
            return wrong("another receiver has what this one had, and it lives".into());
        }
        let held = key.held.entry(who).or_default();
        if what == DONE {
            if !held.remove(&number) {
                return wrong("it was not taken".into());
            }
            key.done.insert(number);
            while key.done.remove(&key.below) {
                key.below += 1;
            }
            return Ok(());
        }
        if count == 1 && number < key.first || count > MOST_DELIVERIES {
            return wrong(format!("it comes again and does not say so, after {}", key.first));
        }
        if let Some(before) = (key.below..number).find(|before| !key.done.contains(before) && !held.contains(before)) {
            return wrong(format!("{before} of this key was not done with before"));
        }
        if held.last().is_some_and(|last| *last >= number) {
            return wrong("it comes after one that was sent later".into());
        }
        held.insert(number);
        key.first = key.first.max(number + 1);
        for (other, _) in key.held.extract_if(|other, held| *other != who && !held.is_empty()) {
            if is_living(other) {
                return wrong(format!("{other} has one of this key"));
            }
            self.overtaken.insert(other);
        }
        Ok(())
    }

    fn is_done(&self, sender: u32, number: u64) -> bool {
        let key = self.keys.get(&(sender, number % KEYS));
        key.is_some_and(|key| number / KEYS < key.below || key.done.contains(&(number / KEYS)))
    }

    fn is_complete(&self) -> bool {
        self.keys.values().all(|key| key.below == key.sent.max(key.first))
    }
}

async fn read_events(court: Court, events: Receiver<Event>, ledger: Rc<RefCell<Ledger>>) {
    while let Some(event) = events.recv().await {
        // At the end they go without being killed, and the others have what they had.
        let is_living = |id| !court.is_over() && court.is_living(id);
        let done = ledger.borrow_mut().note(*event, is_living);
        done.unwrap_or_else(|wrong| court.fail(wrong));
    }
}

pub(crate) async fn judge(court: Court) -> Result<LastWord> {
    // The receiver keeps the channel, and has no partition until it is asked for a message, when the others have gone.
    let (sender, receiver) = options(&court.segment).open()?;
    let (events_open, events) = court.segment.channel::<Event>("routed-events").open()?;
    let ledger = Rc::new(RefCell::new(Ledger::default()));
    let reader = tokio::task::spawn_local(read_events(court.clone(), events.clone(), Rc::clone(&ledger)));
    for number in 0.. {
        if court.is_over() {
            break;
        }
        let message = Stamp { sender: SURVIVOR, lane: LANE as u32, number, len: 0 }.message(100);
        let sent = sender.send_timeout(key(SURVIVOR, number), message, BOUND);
        sent.await.map_err(|error| error.to_string())?;
        let is_done = || ledger.borrow().is_done(SURVIVOR, number);
        wait_until(is_done).await;
        if !is_done() {
            return Err(format!("nobody is done with {number}").into());
        }
        court.went_well();
    }
    let holds = move || {
        // What the last receivers have left, after all that they have said.
        while events.is_empty()
            && let Ok(message) = receiver.try_recv()
        {
            let done = take(&mut ledger.borrow_mut(), message);
            done.unwrap_or_else(|wrong| court.fail(wrong));
        }
        events.is_empty() && receiver.is_empty() && ledger.borrow().is_complete()
    };
    Ok(LastWord::new(holds, (sender, events_open, Aborted(reader))))
}

fn take(ledger: &mut Ledger, message: routing::Message<[u8]>) -> Result<()> {
    let held = Stamped::new(message, LANE)?;
    ledger.note(event(&held, TAKEN, SURVIVOR)?, |_| false)?;
    ledger.note(event(&held, DONE, SURVIVOR)?, |_| false)?;
    held.message.ack();
    Ok(())
}
