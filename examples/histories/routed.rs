//! Channels routed by key.

use waterway::{Delivery, Segment, TryRecvError, TrySendError, routing};

use crate::{
    actor::{Part, Stage},
    channel::{Item, one, take},
    log::{Act, Outcome},
    program::{Object, Verb},
};

const MOST: usize = 2;
const MOST_HELD: usize = 4;

pub(crate) struct Routed {
    object: Object,
    senders: Vec<(u64, routing::Sender<Item>)>,
    receivers: Vec<(u64, routing::Receiver<Item>)>,
    held: Vec<(u64, routing::Message<Item>)>,
}

impl Routed {
    pub(crate) fn new(object: Object) -> Self {
        Self { object, senders: Vec::new(), receivers: Vec::new(), held: Vec::new() }
    }

    fn options(&self, segment: &Segment) -> routing::Options<Item> {
        let Object { capacity, deliveries, persistent, levels, groups, .. } = self.object;
        let channel = segment.channel::<Item>(&self.object.name());
        let options = if levels { channel.policy(waterway::policy::ByMessage) } else { channel }.routed();
        let options = options.partitions(1 + usize::from(groups) % 4).capacity(capacity).persistent(persistent);
        match deliveries {
            Some(max_deliveries) => options.delivery(Delivery::AtLeastOnce { max_deliveries }),
            None => options,
        }
    }

    fn put(&self, stage: &Stage<'_>, argument: usize) -> bool {
        let Some((handle, sender)) = one(&self.senders, argument) else { return false };
        let id = stage.new_id();
        stage.done(Act::Put, *handle, id, || match sender.try_send(Item::new(id)) {
            Ok(()) => (true, Outcome::Ok, id, 0),
            Err(TrySendError::Full(_)) => (false, Outcome::Full, id, 0),
            Err(TrySendError::Closed(_)) => (false, Outcome::Closed, id, 0),
            Err(_) => (false, Outcome::Unexpected, id, 0),
        })
    }

    fn got(message: routing::Message<Item>) -> (Option<(u64, routing::Message<Item>)>, Outcome, u64, u64) {
        let more = u64::from(message.delivery_count());
        match message.verify() {
            Some(id) => (Some((id, message)), Outcome::Ok, id, more),
            None => (None, Outcome::Damaged, 0, more),
        }
    }

    fn take(&mut self, stage: &Stage<'_>, argument: usize) -> bool {
        let Some((handle, receiver)) = one(&self.receivers, argument) else { return false };
        let held = stage.done(Act::Take, *handle, 0, || match receiver.try_recv() {
            Ok(message) => Self::got(message),
            Err(TryRecvError::Disconnected) => (None, Outcome::Closed, 0, 0),
            Err(_) => (None, Outcome::Empty, 0, 0),
        });
        let is_there = held.is_some();
        self.hold(held);
        is_there
    }

    fn hold(&mut self, held: Option<(u64, routing::Message<Item>)>) {
        self.held.extend(held);
        while self.held.len() > MOST_HELD {
            self.held.remove(0).1.ack();
        }
    }

    fn take_waiting(&mut self, stage: &Stage<'_>, argument: usize, polls: Option<usize>) {
        // Who waits with messages in hand may wait for itself.
        if polls.is_none() {
            self.held.drain(..).for_each(|(_, message)| message.ack());
        }
        let Some((handle, receiver)) = one(&self.receivers, argument) else { return };
        let held = stage.done(Act::Take, *handle, 0, || {
            let found = match polls {
                Some(polls) => stage.poll(receiver.recv(), polls),
                // Others may have the partitions in which messages wait.
                None => stage.wait(receiver.recv(), || false),
            };
            match found {
                Some(Some(message)) => Self::got(message),
                Some(None) => (None, Outcome::Closed, 0, 0),
                None => (None, Outcome::GaveUp, 0, 0),
            }
        });
        self.hold(held);
    }
}

/// As that of channels.
pub(crate) fn empty(segment: &Segment, object: &Object) -> usize {
    let receiver = Routed::new(*object).options(segment).receiver();
    receiver.map_or(0, |receiver| std::iter::from_fn(|| receiver.try_recv().ok()).count())
}

impl Part for Routed {
    fn step(&mut self, stage: &Stage<'_>, verb: Verb, argument: usize) {
        match verb {
            Verb::OpenSender if self.senders.len() < MOST => {
                let more = self.object.capacity as u64;
                let opened = stage.open(Act::OpenSender, more, || self.options(stage.segment).sender());
                self.senders.extend(opened);
            }
            Verb::OpenReceiver if self.receivers.len() < MOST => {
                let opened = stage.open(Act::OpenReceiver, 0, || self.options(stage.segment).receiver());
                self.receivers.extend(opened);
            }
            Verb::OpenBoth => {
                self.step(stage, Verb::OpenReceiver, argument);
                self.step(stage, Verb::OpenSender, argument);
            }
            Verb::CloneSender if self.senders.len() < MOST => {
                if let Some((_, sender)) = one(&self.senders, argument) {
                    let cloned = stage.open(Act::OpenSender, 0, || Ok(sender.clone()));
                    self.senders.extend(cloned);
                }
            }
            Verb::DropSender => {
                if let Some((handle, sender)) = take(&mut self.senders, argument) {
                    stage.drop(Act::DropSender, handle, sender);
                }
            }
            Verb::DropReceiver | Verb::PollLeave => {
                if verb == Verb::PollLeave {
                    self.take_waiting(stage, argument, Some(20));
                }
                if let Some((handle, receiver)) = take(&mut self.receivers, argument) {
                    stage.drop(Act::DropReceiver, handle, receiver);
                }
            }
            Verb::DropAll => {
                self.settle(stage);
                self.leave(stage, argument);
            }
            Verb::Put | Verb::Reserve => drop(self.put(stage, argument)),
            Verb::PutMany => {
                for turn in 0..1 + argument % 16 {
                    if !self.put(stage, argument) {
                        stage.pause(turn);
                    }
                }
            }
            Verb::PutWait | Verb::PollPut => {
                let Some((handle, sender)) = one(&self.senders, argument) else { return };
                let id = stage.new_id();
                stage.done(Act::Put, *handle, id, || {
                    let sending = sender.send(Item::new(id));
                    let done = match verb {
                        Verb::PollPut => stage.poll(sending, 1 + argument % 3),
                        _ => stage.wait(sending, || sender.is_closed()),
                    };
                    let outcome = match done {
                        Some(Ok(())) => Outcome::Ok,
                        Some(Err(_)) => Outcome::Closed,
                        None => Outcome::GaveUp,
                    };
                    ((), outcome, id, 0)
                });
            }
            Verb::Take => drop(self.take(stage, argument)),
            Verb::TakeMany => {
                for _ in 0..1 + argument % 16 {
                    if !self.take(stage, argument) {
                        break;
                    }
                }
            }
            Verb::TakeSpin => {
                for _ in 0..1 + argument % 200 {
                    if self.take(stage, argument) {
                        break;
                    }
                }
            }
            Verb::TakeWait => self.take_waiting(stage, argument, None),
            Verb::PollTake => self.take_waiting(stage, argument, Some(1 + argument % 3)),
            Verb::Close => {
                if let Some((handle, receiver)) = one(&self.receivers, argument) {
                    stage.done(Act::Close, *handle, 0, || (receiver.close(), Outcome::Ok, 0, 0));
                }
            }
            Verb::Ack | Verb::UsePermit | Verb::DropPermit => {
                if let Some((_, message)) = take(&mut self.held, argument) {
                    message.ack();
                }
            }
            Verb::Nack if self.object.deliveries.is_some() => {
                if let Some((id, message)) = take(&mut self.held, argument) {
                    let more = u64::from(message.delivery_count());
                    stage.done(Act::Nack, 0, id, || (message.nack(), Outcome::Ok, id, more));
                }
            }
            Verb::Forward => self.forward(stage, argument),
            _ => {}
        }
    }

    fn settle(&mut self, _stage: &Stage<'_>) {
        self.held.drain(..).for_each(|(_, message)| message.ack());
    }

    fn drain(&mut self, stage: &Stage<'_>) {
        for receiver in 0..self.receivers.len() {
            while self.take(stage, receiver) {
                self.settle(stage);
            }
        }
    }

    fn leave(&mut self, stage: &Stage<'_>, argument: usize) {
        while let Some((handle, sender)) = take(&mut self.senders, argument) {
            stage.drop(Act::DropSender, handle, sender);
        }
        while let Some((handle, receiver)) = take(&mut self.receivers, argument) {
            stage.drop(Act::DropReceiver, handle, receiver);
        }
    }
}

impl Routed {
    /// Out of the routed channel into one of the actor's own, from which it goes at once.
    fn forward(&mut self, stage: &Stage<'_>, argument: usize) {
        let Some((id, message)) = take(&mut self.held, argument) else { return };
        let name = format!("aside-{}-{}", stage.actor, self.object.index);
        let Ok((sender, receiver)) = stage.segment.channel::<Item>(&name).capacity(1).open() else {
            return stage.wrong(Outcome::Unexpected, id);
        };
        match message.forward(&sender) {
            Ok(()) => match receiver.try_recv().ok().and_then(|item| item.verify()) {
                Some(found) if found == id => {}
                _ => stage.wrong(Outcome::Damaged, id),
            },
            Err(routing::ForwardError::Full(message)) => drop(message),
            Err(_) => stage.wrong(Outcome::Unexpected, id),
        }
    }
}
