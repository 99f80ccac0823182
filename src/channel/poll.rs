//! Waiting across calls of a `poll_…` method: the place in the queue outlives each call.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use crate::{
    channel::wait::{Patience, Spell},
    wake::{Waiter, budget::poll_budget},
};

/// A place in a queue that is kept from one poll to the next. Dropping it passes on a wake-up that it got and nobody
/// used.
#[derive(Debug)]
pub(crate) struct Place<W> {
    /// The place, if there is one, and what for.
    kept: Option<(W, Waiter)>,
    /// The wait that has begun, and whether yielding was in vain.
    spell: Option<(Spell, bool)>,
}

impl<W> Default for Place<W> {
    fn default() -> Self {
        Self { kept: None, spell: None }
    }
}

impl<W> Place<W> {
    /// Whether there is anything to be kept until the next poll.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept.is_some() || self.spell.is_some()
    }
}

impl<W: Copy + PartialEq> Place<W> {
    /// Attempts, and waits as long as that gives `Err`: for what it says. `Ok(Ok)` is a success, `Ok(Err)` the end. Yields
    /// first, for as long as `patience` says.
    pub(crate) fn poll<R, F>(
        &mut self,
        context: &mut Context<'_>,
        patience: Option<&Patience>,
        mut attempt: impl FnMut() -> Result<Result<R, F>, W>,
        listen: impl Fn(W) -> Waiter,
    ) -> Poll<Result<R, F>> {
        ready!(poll_budget(context));
        let mut notified = false;
        loop {
            let wanted = match attempt() {
                Ok(outcome) => {
                    if let (Some((_, waiter)), true) = (self.kept.take(), outcome.is_ok()) {
                        // The success has passed the wake on, if there is more.
                        waiter.finish();
                    }
                    if let (Some((spell, parked)), Some(patience)) = (self.spell.take(), patience) {
                        spell.end(patience, parked);
                    }
                    return Poll::Ready(outcome);
                }
                Err(wanted) => wanted,
            };
            // One that was notified in vain, or waits for what is not wanted any more, gives its place up.
            let kept = self.kept.take().filter(|(waits_for, _)| !notified && *waits_for == wanted);
            let is_new = kept.is_none();
            if let (true, Some(patience)) = (is_new, patience) {
                let (spell, parked) = self.spell.get_or_insert_with(|| (patience.begin(), false));
                if !*parked && ready!(spell.poll_goes_on(context)) {
                    continue;
                }
                *parked = true;
            }
            let (_, waiter) = self.kept.insert(kept.unwrap_or_else(|| (wanted, listen(wanted))));
            // With a new place: what happened before is seen by the next attempt, what happens from now on wakes us.
            notified = !is_new;
            if notified {
                ready!(Pin::new(waiter).poll(context));
            }
        }
    }
}
