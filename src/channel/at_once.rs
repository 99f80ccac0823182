//! Operations that are mostly done at once.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use crate::wake::budget::poll_budget;

/// What can mostly be done at once.
pub(super) trait Operation: Sized {
    type Output;

    /// Tries; gives itself back if that was in vain. Make it `#[inline(always)]`: a method of a trait, and not a closure, because a
    /// closure cannot be told to be.
    fn attempt(self) -> Result<Self::Output, Self>;
}

pin_project! {
    /// Charges the cooperative budget for one operation, tries, and begins to wait only if that was in vain.
    ///
    /// As an `async fn` it would be one state machine with all that waiting needs, in a function of its own; this is small enough to
    /// be inlined into whoever awaits it.
    #[project = Now]
    #[project_replace = Before]
    pub(super) enum AtOnce<O, G, W> {
        Begun { operation: O, wait: G },
        Waiting { #[pin] wait: W },
        Done,
    }
}

/// `wait` goes on with an operation that could not be done at once.
pub(super) fn at_once<O, G, W>(operation: O, wait: G) -> AtOnce<O, G, W>
where
    O: Operation,
    G: FnOnce(O) -> W,
    W: Future<Output = O::Output>,
{
    AtOnce::Begun { operation, wait }
}

impl<O, G, W> Future for AtOnce<O, G, W>
where
    O: Operation,
    G: FnOnce(O) -> W,
    W: Future<Output = O::Output>,
{
    type Output = O::Output;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<O::Output> {
        if let Now::Begun { .. } = self.as_mut().project() {
            ready!(poll_budget(context));
            if let Before::Begun { operation, wait } = self.as_mut().project_replace(Self::Done) {
                match operation.attempt() {
                    Ok(result) => return Poll::Ready(result),
                    Err(operation) => self.set(Self::Waiting { wait: wait(operation) }),
                }
            }
        }
        match self.project() {
            Now::Waiting { wait } => wait.poll(context),
            _ => panic!("a future was polled after it was done"),
        }
    }
}
