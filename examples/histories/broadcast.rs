//! Broadcasts: publishers, and members of three groups and of groups of their own.

use waterway::{
    Delivery, Segment, TrySendError,
    broadcast::{self, Behind, Published, Publisher, Subscriber},
};

use crate::{
    actor::{Part, Stage},
    channel::{Item, one, take},
    log::{Act, Outcome},
    program::{GROUPS, Object, Verb},
};

const MOST: usize = 3;
const MOST_HELD: usize = 3;

struct Member {
    handle: u64,
    group: usize,
    subscriber: Subscriber<Item>,
}

pub(crate) struct Broadcast {
    object: Object,
    publishers: Vec<(u64, Publisher<Item>)>,
    members: Vec<Member>,
    /// Of which group, and which message.
    held: Vec<(usize, u64, Published<Item>)>,
}

impl Broadcast {
    pub(crate) fn new(object: Object) -> Self {
        Self { object, publishers: Vec::new(), members: Vec::new(), held: Vec::new() }
    }

    fn options(&self, segment: &Segment) -> broadcast::Options<Item> {
        segment.broadcast::<Item>(&self.object.name()).capacity(self.object.capacity.min(64)).max_groups(GROUPS + 1)
    }

    fn join(&self, segment: &Segment, group: usize) -> Result<Subscriber<Item>, waterway::OpenError> {
        let options = self.options(segment).group(["a", "b", "c"][group]);
        let options = match self.object.group_blocks(group) {
            true => options.behind(Behind::Block),
            false => options.behind(Behind::Lag),
        };
        match self.object.group_redelivers(group) {
            true => options.delivery(Delivery::AtLeastOnce { max_deliveries: 200 }).subscriber(),
            false => options.subscriber(),
        }
    }

    fn put(&self, stage: &Stage<'_>, argument: usize) -> bool {
        let Some((handle, publisher)) = one(&self.publishers, argument) else { return false };
        let id = stage.new_id();
        stage.done(Act::Put, *handle, id, || match publisher.try_send(Item::new(id)) {
            Ok(_) => (true, Outcome::Ok, id, 0),
            Err(TrySendError::Full(_)) => (false, Outcome::Full, id, 0),
            Err(_) => (false, Outcome::Unexpected, id, 0),
        })
    }

    fn got(message: Published<Item>) -> (Option<(u64, Published<Item>)>, Outcome, u64, u64) {
        let more = u64::from(message.delivery_count()) << 48 | message.sequence() & 0xffff_ffff_ffff;
        match message.verify() {
            Some(id) => (Some((id, message)), Outcome::Ok, id, more),
            None => (None, Outcome::Damaged, 0, more),
        }
    }

    /// Whether there was something: a message, or that some were missed.
    fn take(&mut self, stage: &Stage<'_>, argument: usize) -> bool {
        let Some(Member { handle, group, subscriber }) = one(&self.members, argument) else { return false };
        let group = *group;
        let mut has_missed = false;
        let held = stage.done(Act::Take, *handle, 0, || match subscriber.try_recv() {
            Ok(message) => Self::got(message),
            Err(broadcast::TryRecvError::Empty) => (None, Outcome::Empty, 0, 0),
            Err(broadcast::TryRecvError::Closed) => (None, Outcome::Closed, 0, 0),
            Err(broadcast::TryRecvError::Lagged(missed)) => {
                has_missed = true;
                (None, Outcome::Lagged, 0, missed)
            }
            Err(_) => (None, Outcome::Unexpected, 0, 0),
        });
        self.hold(group, held) || has_missed
    }

    fn hold(&mut self, group: usize, held: Option<(u64, Published<Item>)>) -> bool {
        let is_there = held.is_some();
        self.held.extend(held.map(|(id, message)| (group, id, message)));
        while self.held.len() > MOST_HELD {
            self.held.remove(0).2.ack();
        }
        is_there
    }

    fn take_waiting(&mut self, stage: &Stage<'_>, argument: usize, polls: Option<usize>) {
        let Some(Member { handle, group, subscriber }) = one(&self.members, argument) else { return };
        let group = *group;
        let held = stage.done(Act::Take, *handle, 0, || {
            let found = match polls {
                Some(polls) => stage.poll(subscriber.recv(), polls),
                None => stage.wait(subscriber.recv(), || !subscriber.is_empty()),
            };
            match found {
                Some(Ok(message)) => Self::got(message),
                Some(Err(waterway::broadcast::RecvError::Lagged(missed))) => (None, Outcome::Lagged, 0, missed),
                Some(Err(_)) => (None, Outcome::Closed, 0, 0),
                None => (None, Outcome::GaveUp, 0, 0),
            }
        });
        self.hold(group, held);
    }
}

impl Part for Broadcast {
    fn step(&mut self, stage: &Stage<'_>, verb: Verb, argument: usize) {
        match verb {
            Verb::OpenSender if self.publishers.len() < MOST => {
                let opened = stage.open(Act::OpenSender, 0, || self.options(stage.segment).publisher());
                self.publishers.extend(opened);
            }
            Verb::OpenReceiver if self.members.len() < MOST => {
                let group = argument % GROUPS;
                let opened = stage.open(Act::OpenReceiver, group as u64, || self.join(stage.segment, group));
                self.members.extend(opened.map(|(handle, subscriber)| Member { handle, group, subscriber }));
            }
            Verb::OpenBoth => {
                self.step(stage, Verb::OpenReceiver, argument);
                self.step(stage, Verb::OpenSender, argument);
            }
            Verb::CloneReceiver if self.members.len() < MOST => {
                if let Some(Member { group, subscriber, .. }) = one(&self.members, argument) {
                    let group = *group;
                    let cloned = stage.open(Act::OpenReceiver, group as u64, || Ok(subscriber.clone()));
                    self.members.extend(cloned.map(|(handle, subscriber)| Member { handle, group, subscriber }));
                }
            }
            Verb::DropSender => {
                if let Some((handle, publisher)) = take(&mut self.publishers, argument) {
                    stage.drop(Act::DropSender, handle, publisher);
                }
            }
            Verb::DropReceiver | Verb::PollLeave => {
                if verb == Verb::PollLeave {
                    self.take_waiting(stage, argument, Some(20));
                }
                if let Some(Member { handle, subscriber, .. }) = take(&mut self.members, argument) {
                    stage.drop(Act::DropReceiver, handle, subscriber);
                }
            }
            Verb::DropAll => {
                self.settle(stage);
                self.leave(stage, argument);
            }
            Verb::Put | Verb::Reserve => drop(self.put(stage, argument)),
            // Up to more than there are cells.
            Verb::PutMany => {
                for turn in 0..1 + argument % [8, 64, 700][argument / 700 % 3] {
                    if !self.put(stage, argument) {
                        stage.pause(turn);
                    }
                }
            }
            Verb::PutWait | Verb::PollPut => {
                let Some((handle, publisher)) = one(&self.publishers, argument) else { return };
                let id = stage.new_id();
                stage.done(Act::Put, *handle, id, || {
                    let sending = publisher.send(Item::new(id));
                    let done = match verb {
                        Verb::PollPut => stage.poll(sending, 1 + argument % 3),
                        _ => stage.wait(sending, || false),
                    };
                    let outcome = match done {
                        Some(Ok(_)) => Outcome::Ok,
                        Some(Err(_)) => Outcome::Unexpected,
                        None => Outcome::GaveUp,
                    };
                    ((), outcome, id, 0)
                });
            }
            Verb::Take => drop(self.take(stage, argument)),
            Verb::TakeMany => {
                for turn in 0..1 + argument % [8, 64, 700][argument / 700 % 3] {
                    if !self.take(stage, argument) {
                        stage.pause(turn);
                    } else if argument.is_multiple_of(2) && !self.held.is_empty() {
                        self.held.drain(1.min(self.held.len() - 1)..).for_each(|(_, _, message)| message.ack());
                    }
                }
            }
            Verb::TakeSpin => {
                for _ in 0..1 + argument % 2000 {
                    if self.take(stage, argument) {
                        break;
                    }
                }
            }
            Verb::TakeWait => self.take_waiting(stage, argument, None),
            Verb::PollTake => self.take_waiting(stage, argument, Some(1 + argument % 3)),
            Verb::Ack | Verb::UsePermit | Verb::DropPermit => {
                if let Some((_, _, message)) = take(&mut self.held, argument) {
                    message.ack();
                }
            }
            Verb::Nack => {
                let redelivers = |held: &(usize, u64, Published<Item>)| self.object.group_redelivers(held.0);
                if let Some(at) = self.held.iter().position(redelivers) {
                    let (group, id, message) = self.held.swap_remove(at);
                    stage.done(Act::Nack, group as u64, id, || (message.nack(), Outcome::Ok, id, 0));
                }
            }
            _ => {}
        }
    }

    fn settle(&mut self, _stage: &Stage<'_>) {
        self.held.drain(..).for_each(|(_, _, message)| message.ack());
    }

    fn drain(&mut self, stage: &Stage<'_>) {
        for member in 0..self.members.len() {
            // What was missed is told between messages.
            while self.take(stage, member) {
                self.settle(stage);
            }
        }
    }

    fn leave(&mut self, stage: &Stage<'_>, argument: usize) {
        while let Some((handle, publisher)) = take(&mut self.publishers, argument) {
            stage.drop(Act::DropSender, handle, publisher);
        }
        while let Some(Member { handle, subscriber, .. }) = take(&mut self.members, argument) {
            stage.drop(Act::DropReceiver, handle, subscriber);
        }
    }
}
