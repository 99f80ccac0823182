//! Semaphores: whoever tries while a permit is free that nobody else gets has it.

use waterway::semaphore::{self, Semaphore, TryAcquireError};

use crate::{
    actor::{Part, Stage},
    channel::{one, take},
    log::{Act, Outcome},
    program::{Object, Verb},
};

const MOST: usize = 3;

pub(crate) struct Semaphores {
    object: Object,
    handles: Vec<(u64, Semaphore)>,
    permits: Vec<(u64, semaphore::OwnedPermit)>,
}

/// How many permits a semaphore has.
pub(crate) fn permits_of(object: &Object) -> usize {
    object.capacity.min(8)
}

impl Semaphores {
    pub(crate) fn new(object: Object) -> Self {
        Self { object, handles: Vec::new(), permits: Vec::new() }
    }

    fn wanted(&self, argument: usize) -> u32 {
        if argument.is_multiple_of(3) { 1 + (argument / 3 % permits_of(&self.object)) as u32 } else { 1 }
    }

    fn try_acquire(&mut self, stage: &Stage<'_>, argument: usize) {
        let Some((handle, semaphore)) = one(&self.handles, argument) else { return };
        let (permit, wanted) = (stage.new_id(), self.wanted(argument));
        let clone = semaphore.clone();
        let got = stage.done(Act::Reserve, *handle, permit, || {
            let more = u64::from(wanted);
            match clone.try_acquire_many_owned(wanted) {
                Ok(owned) => (Some((permit, owned)), Outcome::Ok, permit, more),
                Err(TryAcquireError::NoPermits) => (None, Outcome::Full, permit, more),
                Err(_) => (None, Outcome::Unexpected, permit, more),
            }
        });
        self.permits.extend(got);
    }

    fn acquire(&mut self, stage: &Stage<'_>, argument: usize, polls: Option<usize>) {
        let Some((handle, semaphore)) = one(&self.handles, argument) else { return };
        let (permit, wanted) = (stage.new_id(), self.wanted(argument));
        let got = stage.done(Act::InLine, *handle, permit, || {
            let acquiring = semaphore.clone().acquire_many_owned(wanted);
            let got = match polls {
                Some(polls) => stage.poll(acquiring, polls),
                None => stage.wait(acquiring, || semaphore.available_permits() >= permits_of(&self.object)),
            };
            let more = u64::from(wanted);
            match got {
                Some(Ok(owned)) => (Some((permit, owned)), Outcome::Ok, permit, more),
                Some(Err(_)) => (None, Outcome::Unexpected, permit, more),
                None => (None, Outcome::GaveUp, permit, more),
            }
        });
        self.permits.extend(got);
    }

    fn release(&mut self, stage: &Stage<'_>, argument: usize) {
        if let Some((permit, owned)) = take(&mut self.permits, argument) {
            stage.done(Act::EndPermit, 0, permit, || (drop(owned), Outcome::Ok, permit, 0));
        }
    }
}

impl Part for Semaphores {
    fn step(&mut self, stage: &Stage<'_>, verb: Verb, argument: usize) {
        match verb {
            Verb::OpenSender | Verb::OpenReceiver | Verb::OpenBoth if self.handles.len() < MOST => {
                let permits = permits_of(&self.object);
                let open = || stage.segment.semaphore(&self.object.name()).permits(permits).open();
                self.handles.extend(stage.open(Act::OpenSender, 0, open));
            }
            Verb::DropSender | Verb::DropReceiver => {
                if let Some((handle, semaphore)) = take(&mut self.handles, argument) {
                    stage.drop(Act::DropSender, handle, semaphore);
                }
            }
            Verb::DropAll => {
                self.settle(stage);
                self.leave(stage, argument);
            }
            Verb::Put | Verb::Take | Verb::Reserve if self.permits.len() < MOST => self.try_acquire(stage, argument),
            Verb::PutMany | Verb::TakeMany | Verb::TakeSpin => {
                for turn in 0..1 + argument % 64 {
                    self.try_acquire(stage, argument + turn);
                    self.release(stage, argument);
                }
            }
            Verb::PutWait | Verb::TakeWait | Verb::ReserveMany if self.permits.is_empty() => {
                self.acquire(stage, argument, None);
            }
            Verb::PollPut | Verb::PollTake if self.permits.len() < MOST => {
                self.acquire(stage, argument, Some(1 + argument % 3));
            }
            Verb::UsePermit | Verb::DropPermit | Verb::Ack | Verb::Nack => self.release(stage, argument),
            _ => {}
        }
    }

    fn settle(&mut self, stage: &Stage<'_>) {
        while !self.permits.is_empty() {
            self.release(stage, 0);
        }
    }

    fn drain(&mut self, stage: &Stage<'_>) {
        // All have let go: all permits are there.
        if let Some((_, semaphore)) = self.handles.first()
            && semaphore.available_permits() > permits_of(&self.object)
        {
            stage.wrong(Outcome::Unexpected, semaphore.available_permits() as u64);
        }
    }

    fn leave(&mut self, stage: &Stage<'_>, argument: usize) {
        while let Some((handle, semaphore)) = take(&mut self.handles, argument) {
            stage.drop(Act::DropSender, handle, semaphore);
        }
    }
}
