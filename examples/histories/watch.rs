//! Watches: values are whole, and whoever looks sees the newest.

use waterway::{Segment, watch};

use crate::{
    actor::{Part, Stage},
    channel::{Item, one, take},
    log::{Act, Outcome},
    program::{Object, Verb},
};

const MOST: usize = 3;

pub(crate) struct Watching {
    object: Object,
    senders: Vec<(u64, watch::Sender<Item>)>,
    receivers: Vec<(u64, watch::Receiver<Item>)>,
}

impl Watching {
    pub(crate) fn new(object: Object) -> Self {
        Self { object, senders: Vec::new(), receivers: Vec::new() }
    }

    fn options(&self, segment: &Segment) -> watch::Options<Item> {
        segment.watch::<Item>(&self.object.name()).initial(Item::new(0))
    }

    fn put(&self, stage: &Stage<'_>, argument: usize) {
        let Some((handle, sender)) = one(&self.senders, argument) else { return };
        let id = stage.new_id();
        stage.done(Act::Put, *handle, id, || match sender.send(Item::new(id)) {
            Ok(()) => ((), Outcome::Ok, id, 0),
            Err(error) if error.is_closed() => ((), Outcome::Closed, id, 0),
            Err(_) => ((), Outcome::Unexpected, id, 0),
        });
    }

    /// Looks, and sees which value is there.
    fn look(stage: &Stage<'_>, handle: u64, value: impl FnOnce() -> Item) {
        stage.done(Act::Take, handle, 0, || match value().verify() {
            Some(id) => ((), Outcome::Ok, id, 0),
            None => ((), Outcome::Damaged, 0, 0),
        });
    }

    fn take(&mut self, stage: &Stage<'_>, argument: usize) {
        let count = self.receivers.len();
        if count == 0 {
            if let Some((handle, sender)) = one(&self.senders, argument) {
                Self::look(stage, *handle, || *sender.borrow());
            }
            return;
        }
        let (handle, receiver) = &mut self.receivers[argument % count];
        Self::look(stage, *handle, || {
            if argument.is_multiple_of(2) { *receiver.borrow_and_update() } else { *receiver.borrow() }
        });
    }
}

impl Part for Watching {
    fn step(&mut self, stage: &Stage<'_>, verb: Verb, argument: usize) {
        match verb {
            Verb::OpenSender if self.senders.len() < MOST => {
                self.senders.extend(stage.open(Act::OpenSender, 0, || self.options(stage.segment).sender()));
            }
            Verb::OpenReceiver if self.receivers.len() < MOST => {
                self.receivers.extend(stage.open(Act::OpenReceiver, 0, || self.options(stage.segment).receiver()));
            }
            Verb::OpenBoth => {
                self.step(stage, Verb::OpenSender, argument);
                self.step(stage, Verb::OpenReceiver, argument);
            }
            Verb::CloneReceiver if self.receivers.len() < MOST => {
                let cloned = match one(&self.senders, argument) {
                    Some((_, sender)) => stage.open(Act::OpenReceiver, 0, || Ok(sender.subscribe())),
                    None => one(&self.receivers, argument)
                        .and_then(|(_, receiver)| stage.open(Act::OpenReceiver, 0, || Ok(receiver.clone()))),
                };
                self.receivers.extend(cloned);
            }
            Verb::DropSender => {
                if let Some((handle, sender)) = take(&mut self.senders, argument) {
                    stage.drop(Act::DropSender, handle, sender);
                }
            }
            Verb::DropReceiver => {
                if let Some((handle, receiver)) = take(&mut self.receivers, argument) {
                    stage.drop(Act::DropReceiver, handle, receiver);
                }
            }
            Verb::DropAll => self.leave(stage, argument),
            Verb::Put | Verb::Reserve | Verb::PutWait => self.put(stage, argument),
            Verb::PutMany => (0..1 + argument % 8).for_each(|_| self.put(stage, argument)),
            Verb::Take => self.take(stage, argument),
            Verb::TakeMany | Verb::TakeSpin => (0..1 + argument % 16).for_each(|_| self.take(stage, argument)),
            Verb::TakeWait | Verb::PollTake | Verb::PollLeave => {
                let Some((handle, mut receiver)) = take(&mut self.receivers, argument) else { return };
                // It has seen what this one has.
                let twin = receiver.clone();
                let _ = match verb {
                    Verb::TakeWait => stage.wait(receiver.changed(), || twin.has_changed().unwrap_or(true)),
                    _ => stage.poll(receiver.changed(), 1 + argument % 3),
                };
                drop(twin);
                if verb == Verb::PollLeave {
                    stage.drop(Act::DropReceiver, handle, receiver);
                    return;
                }
                Self::look(stage, handle, || *receiver.borrow());
                self.receivers.push((handle, receiver));
            }
            Verb::WaitClosed => {
                if let Some((_, sender)) = one(&self.senders, argument) {
                    stage.wait(sender.closed(), || sender.is_closed());
                }
            }
            _ => {}
        }
    }

    fn settle(&mut self, _stage: &Stage<'_>) {}

    fn drain(&mut self, stage: &Stage<'_>) {
        for receiver in 0..self.receivers.len() {
            self.take(stage, receiver);
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
