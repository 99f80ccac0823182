//! Notifications: nobody sleeps beside a permit.

use futures::FutureExt;
use waterway::notify::Notify;

use crate::{
    actor::{Part, Stage},
    channel::{one, take},
    log::{Act, Outcome},
    program::{Object, Verb},
};

const MOST: usize = 3;

pub(crate) struct Notifying {
    object: Object,
    handles: Vec<(u64, Notify)>,
}

impl Notifying {
    pub(crate) fn new(object: Object) -> Self {
        Self { object, handles: Vec::new() }
    }
}

impl Part for Notifying {
    fn step(&mut self, stage: &Stage<'_>, verb: Verb, argument: usize) {
        match verb {
            Verb::OpenSender | Verb::OpenReceiver | Verb::OpenBoth if self.handles.len() < MOST => {
                let open = || stage.segment.notify(&self.object.name());
                self.handles.extend(stage.open(Act::OpenSender, 0, open));
            }
            Verb::CloneSender | Verb::CloneReceiver if self.handles.len() < MOST => {
                if let Some((_, notify)) = one(&self.handles, argument) {
                    let cloned = stage.open(Act::OpenSender, 0, || Ok(notify.clone()));
                    self.handles.extend(cloned);
                }
            }
            Verb::DropSender | Verb::DropReceiver => {
                if let Some((handle, notify)) = take(&mut self.handles, argument) {
                    stage.drop(Act::DropSender, handle, notify);
                }
            }
            Verb::DropAll => self.leave(stage, argument),
            Verb::Put | Verb::PutWait | Verb::Reserve => {
                if let Some((handle, notify)) = one(&self.handles, argument) {
                    stage.done(Act::Put, *handle, 0, || (notify.notify_one(), Outcome::Ok, 0, 0));
                }
            }
            Verb::PutMany => {
                if let Some((handle, notify)) = one(&self.handles, argument) {
                    stage.done(Act::Put, *handle, 0, || (notify.notify_waiters(), Outcome::Ok, 0, 1));
                }
            }
            Verb::Take | Verb::PollTake | Verb::TakeMany | Verb::PollLeave => {
                if let Some((handle, notify)) = one(&self.handles, argument) {
                    stage.done(Act::Take, *handle, 0, || match stage.poll(notify.notified(), 1 + argument % 3) {
                        Some(()) => ((), Outcome::Ok, 0, 0),
                        None => ((), Outcome::Empty, 0, 0),
                    });
                }
            }
            Verb::TakeWait | Verb::TakeSpin | Verb::WaitClosed => {
                let Some((handle, notify)) = one(&self.handles, argument) else { return };
                stage.done(Act::Take, *handle, 0, || {
                    let there_is = || {
                        // Who takes it puts it back, for whoever should have been woken.
                        let is_there = notify.notified().now_or_never().is_some();
                        if is_there {
                            notify.notify_one();
                        }
                        is_there
                    };
                    match stage.wait(notify.notified(), there_is) {
                        Some(()) => ((), Outcome::Ok, 0, 0),
                        None => ((), Outcome::GaveUp, 0, 0),
                    }
                });
            }
            _ => {}
        }
    }

    fn settle(&mut self, _stage: &Stage<'_>) {}

    fn drain(&mut self, _stage: &Stage<'_>) {}

    fn leave(&mut self, stage: &Stage<'_>, argument: usize) {
        while let Some((handle, notify)) = take(&mut self.handles, argument) {
            stage.drop(Act::DropSender, handle, notify);
        }
    }
}
