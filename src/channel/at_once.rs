//! Operations that are mostly done at once.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use crate::channel::wait::poll_budget;

pin_project! {
    /// Charges the cooperative budget for one operation, tries, and begins to wait only if that was in vain.
    ///
    /// As an `async fn` it would be one state machine with all that waiting needs, in a function of its own; this is small enough to
    /// be inlined into whoever awaits it.
    #[project = Now]
    #[project_replace = Before]
    pub(super) enum AtOnce<V, F, G, W> {
        Begun { value: V, attempt: F, wait: G },
        Waiting { #[pin] wait: W },
        Done,
    }
}

/// `attempt` gives the value back if it was in vain; `wait` goes on with it.
pub(super) fn at_once<V, R, F, G, W>(value: V, attempt: F, wait: G) -> AtOnce<V, F, G, W>
where
    F: FnOnce(V) -> Result<R, V>,
    G: FnOnce(V) -> W,
    W: Future<Output = R>,
{
    AtOnce::Begun { value, attempt, wait }
}

impl<V, R, F, G, W> Future for AtOnce<V, F, G, W>
where
    F: FnOnce(V) -> Result<R, V>,
    G: FnOnce(V) -> W,
    W: Future<Output = R>,
{
    type Output = R;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<R> {
        if let Now::Begun { .. } = self.as_mut().project() {
            ready!(poll_budget(context));
            if let Before::Begun { value, attempt, wait } = self.as_mut().project_replace(Self::Done) {
                match attempt(value) {
                    Ok(result) => return Poll::Ready(result),
                    Err(value) => self.set(Self::Waiting { wait: wait(value) }),
                }
            }
        }
        match self.project() {
            Now::Waiting { wait } => wait.poll(context),
            _ => panic!("a future was polled after it was done"),
        }
    }
}
