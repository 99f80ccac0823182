//! A client as a `tower` service.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use crate::{
    attachment::port::Refused,
    channel::{Message, Payload, Sendable},
    service::{CallError, Client, calls::Ticket, queue::Place},
    sys::held::Mutex,
    wake::Waiter,
};

/// What a client has got together for its next call. Each clone has its own.
pub(super) struct Readiness<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> {
    /// Where it waits for room. Before the ticket, so that it is dropped before it: it looks into the segment. In a mutex, which
    /// nobody ever waits for, because clients are shared between threads.
    room: Mutex<Option<Waiter>>,
    ticket: Mutex<Option<Ticket<Req, Resp>>>,
    /// Where it waits for a slot.
    slot: Mutex<Option<Place>>,
}

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> Default for Readiness<Req, Resp> {
    fn default() -> Self {
        Self { room: Mutex::default(), ticket: Mutex::default(), slot: Mutex::default() }
    }
}

/// The response that a [`Client`] waits for that is used as a `tower_service::Service`.
///
/// If it is dropped before it is done, the call is given up, as [`Client::call`] says.
#[must_use = "a future does nothing unless it is polled"]
pub struct CallFuture<Resp: Payload + ?Sized + 'static>(Pin<Box<dyn Future<Output = Called<Resp>> + Send>>);

type Called<Resp> = Result<Message<Resp>, CallError<()>>;

impl<Resp: Payload + ?Sized + 'static> Future for CallFuture<Resp> {
    type Output = Called<Resp>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl<Resp: Payload + ?Sized + 'static> fmt::Debug for CallFuture<Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFuture").finish_non_exhaustive()
    }
}

/// A client is a service of the crate `tower`, and so can have its layers: timeouts, limits, retries.
///
/// *Ready* is a client that has a place among the [calls in flight](crate::service::Options::calls), which its clones share, and that
/// has seen room among the requests that wait. It keeps the place until its next call, or until it is dropped; the room is
/// not kept, as clients of all processes share it, and if it is gone by then, the future waits for it. A clone is not ready.
/// A call without readiness waits for both in its future.
///
/// It is never a failure to get ready: a service that has no server at the moment may have one later. Its calls fail until then.
///
/// The request itself is not in the error: who wants to send it again has a clone of it, as tower's retries do.
impl<V, Req, Resp> tower_service::Service<V> for Client<Req, Resp>
where
    V: Sendable<Req> + Send + Sync + 'static,
    Req: Payload + ?Sized + 'static,
    Resp: Payload + ?Sized + 'static,
{
    type Response = Message<Resp>;
    type Error = CallError<()>;
    type Future = CallFuture<Resp>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), CallError<()>>> {
        let core = std::sync::Arc::clone(self.core());
        let ticket = self.readiness.ticket.get_mut();
        if ticket.is_none() {
            *ticket = Some(ready!(core.poll_begin(self.readiness.slot.get_mut(), context)));
        }
        let (port, position) = (&core.requests.port, &core.requests.position);
        let place = self.readiness.room.get_mut();
        loop {
            let was_there = place.is_some();
            if port.may_send(position) != Err(Refused::Full) {
                // One that was notified passes that on: we may never send.
                *place = None;
                return Poll::Ready(Ok(()));
            }
            let waiter = place.get_or_insert_with(|| port.wait_for_room());
            // With a new place: what was taken before is seen by the next look, what is taken from now on wakes us.
            if was_there {
                ready!(Pin::new(waiter).poll(context));
                *place = None;
            }
        }
    }

    fn call(&mut self, request: V) -> CallFuture<Resp> {
        *self.readiness.room.get_mut() = None;
        let ticket = self.readiness.ticket.get_mut().take();
        let client = self.clone();
        CallFuture(Box::pin(
            async move { client.finish(ticket, &request, 0).await.map_err(|failure| failure.with(())) },
        ))
    }
}
