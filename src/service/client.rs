//! The calling side.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_core::{FusedStream, Stream};

use crate::{
    channel::{Message, Payload, SendErrorKind, Sendable, timeout, wait::block_on},
    service::{
        CallError,
        calls::{Core, End, Ticket},
        clock,
        slate::Mark,
    },
    wake::budget::charge_budget,
};

/// Calls a service, from any number of tasks and threads.
///
/// Made by [`Options::client`](crate::service::Options::client). Clones share one channel of responses, and with it the
/// number of [calls in flight](crate::service::Options::calls). Servers get `None` when the last client of all processes has gone.
pub struct Client<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> {
    /// Before the rest, so that it is dropped before it: it looks into the segment.
    #[cfg(feature = "tower")]
    pub(super) readiness: super::tower::Readiness<Req, Resp>,
    core: Arc<Core<Req, Resp>>,
    /// How often a request is delivered at most.
    deliveries: u32,
}

/// How often a request is sent again that servers have lost before they had begun with it. So often in a row it is no chance.
const MOST_LOSSES: u32 = 16;

/// Why an attempt has failed.
pub(super) enum Failure {
    Send(SendErrorKind),
    End(Option<Mark>),
}

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> Client<Req, Resp> {
    pub(super) fn new(core: Arc<Core<Req, Resp>>, deliveries: u32) -> Self {
        Self {
            #[cfg(feature = "tower")]
            readiness: Default::default(),
            core,
            deliveries,
        }
    }

    #[cfg(feature = "tower")]
    pub(super) fn core(&self) -> &Arc<Core<Req, Resp>> {
        &self.core
    }

    /// Sends a request to a server, and waits for its response, which is read in place. If no server has come yet, it waits for
    /// one; if too many calls are [in flight](crate::service::Options::calls), or too many requests wait, for one of those.
    ///
    /// # Errors
    ///
    /// [`CallError`] with the request: that the service is closed, that the server has died or has dropped the request, or that the
    /// request can never be sent. At once: a death is told by the kernel, and nobody waits for a timeout.
    ///
    /// A request that no server has begun with is sent again if that is not the request's fault: the server was killed in the
    /// very moment. With [`Delivery::AtLeastOnce`](crate::Delivery) so is one whose server died or panicked, or gave it
    /// [back](crate::service::Request::nack), until it was delivered as often as it may be.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, the call is given up: a server that has not begun with it never will, one that
    /// has is [told](crate::service::Request::cancelled), and a response is dropped. So a branch of `tokio::select!` that is not
    /// taken may have had its work done.
    ///
    /// # Examples
    ///
    /// See [`Segment::service`](crate::Segment::service).
    pub async fn call<V: Sendable<Req>>(&self, request: V) -> Result<Message<Resp>, CallError<V>> {
        match self.finish(None, &request, 0).await {
            Ok(response) => Ok(response),
            Err(failure) => Err(failure.with(request)),
        }
    }

    /// Calls as [`call`](Self::call), for at most `time`. The server sees the [deadline](crate::service::Request::deadline), and one that
    /// comes to the request later does not begin with it. Needs no runtime.
    ///
    /// # Errors
    ///
    /// As for [`call`](Self::call), and [`CallError::Timeout`].
    ///
    /// # Cancel safety
    ///
    /// As for [`call`](Self::call).
    pub async fn call_timeout<V: Sendable<Req>>(
        &self,
        request: V,
        time: Duration,
    ) -> Result<Message<Resp>, CallError<V>> {
        match timeout(self.core.requests.port.attachment(), time, self.finish(None, &request, clock::after(time))).await
        {
            Some(Ok(response)) => Ok(response),
            Some(Err(failure)) => Err(failure.with(request)),
            None => Err(CallError::Timeout(request)),
        }
    }

    /// Sends a request whose server may [answer with many](crate::service::Request::stream) responses. They are delivered at most once.
    ///
    /// # Errors
    ///
    /// [`CallError`] with the request, if it could not be sent. Later errors are items of the stream.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, or the stream before it ends, the call is given up.
    pub async fn call_stream<V: Sendable<Req>>(&self, request: V) -> Result<CallStream<Req, Resp>, CallError<V>> {
        let mut ticket = self.core.begin().await;
        let asked = ticket.ask(&request, 0, 1).await;
        match asked {
            Ok(()) => Ok(CallStream { ticket: Some(ticket) }),
            Err(kind) => Err(Failure::Send(kind).with(request)),
        }
    }

    /// Calls as [`call`](Self::call), blocking the thread until there is a response.
    ///
    /// # Errors
    ///
    /// As for [`call`](Self::call).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// # let server = segment.service::<u64, u64>("double").server()?;
    /// let client = segment.service::<u64, u64>("double").client()?;
    /// # let serving = std::thread::spawn(move || {
    /// #     let request = server.blocking_next().unwrap();
    /// #     let response = 2 * *request;
    /// #     request.blocking_respond(response).unwrap();
    /// # });
    /// assert_eq!(*client.blocking_call(21)?, 42);
    /// # serving.join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_call<V: Sendable<Req>>(&self, request: V) -> Result<Message<Resp>, CallError<V>> {
        block_on(self.call(request))
    }

    /// Calls as [`call_timeout`](Self::call_timeout), blocking the thread for at most `time`. Needs no runtime, and no other thread.
    ///
    /// # Errors
    ///
    /// As for [`call_timeout`](Self::call_timeout).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let client = segment.service::<u64, u64>("double").client()?;
    /// // No server has come yet.
    /// let refused = client.blocking_call_timeout(21, Duration::from_millis(10)).unwrap_err();
    /// assert!(refused.is_timeout());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_call_timeout<V: Sendable<Req>>(
        &self,
        request: V,
        time: Duration,
    ) -> Result<Message<Resp>, CallError<V>> {
        block_on(self.call_timeout(request, time))
    }

    /// Calls as [`call_stream`](Self::call_stream), blocking the thread until the request is sent.
    ///
    /// # Errors
    ///
    /// As for [`call_stream`](Self::call_stream).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let server = segment.service::<u64, u64>("count").server()?;
    /// let client = segment.service::<u64, u64>("count").client()?;
    /// let mut responses = client.blocking_call_stream(2)?;
    /// let request = server.blocking_next().unwrap();
    /// let mut stream = request.stream();
    /// stream.blocking_send(0)?;
    /// stream.blocking_send(1)?;
    /// stream.finish();
    /// let numbers: Vec<u64> = std::iter::from_fn(|| responses.blocking_next()).map(|next| *next.unwrap()).collect();
    /// assert_eq!(numbers, [0, 1]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_call_stream<V: Sendable<Req>>(&self, request: V) -> Result<CallStream<Req, Resp>, CallError<V>> {
        block_on(self.call_stream(request))
    }

    /// All attempts that a call may take; the first with a ticket, if there is one already.
    pub(super) async fn finish<V: Sendable<Req>>(
        &self,
        mut ticket: Option<Ticket<Req, Resp>>,
        request: &V,
        deadline: u64,
    ) -> Result<Message<Resp>, Failure> {
        let (mut attempt, mut losses) = (1, 0);
        loop {
            let failure = match self.attempt(ticket.take(), request, deadline, attempt).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            match failure {
                // Nobody has begun with it.
                Failure::End(None) if !self.core.requests.is_closed() && losses < MOST_LOSSES => losses += 1,
                Failure::End(None) if !self.core.requests.is_closed() => {
                    return Err(Failure::End(Some(Mark::Taken)));
                }
                Failure::End(Some(Mark::Taken | Mark::Again)) if attempt < self.deliveries => attempt += 1,
                failure => return Err(failure),
            }
        }
    }

    async fn attempt<V: Sendable<Req>>(
        &self,
        ticket: Option<Ticket<Req, Resp>>,
        request: &V,
        deadline: u64,
        attempt: u32,
    ) -> Result<Message<Resp>, Failure> {
        let mut ticket = match ticket {
            Some(ticket) => ticket,
            None => self.core.begin().await,
        };
        ticket.ask(request, deadline, attempt).await.map_err(Failure::Send)?;
        let response = std::future::poll_fn(|context| ticket.poll_response(context)).await;
        response.map_err(|end| match end {
            End::Freed(mark) => Failure::End(mark),
            // A call ends by its response, or without one.
            End::Answered => Failure::End(Some(Mark::Unanswered)),
        })
    }

    /// Whether all servers have left, or one has closed the service: calls fail from now on.
    ///
    /// A service to which no server has come yet is not closed.
    pub fn is_closed(&self) -> bool {
        self.core.requests.is_closed()
    }

    /// Waits until all servers have left, or one has closed the service.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: it only looks.
    pub async fn closed(&self) {
        charge_budget().await;
        self.core.requests.closed().await;
    }

    /// Waits as [`closed`](Self::closed), blocking the thread.
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let client = segment.service::<u64, u64>("squares").client()?;
    /// let server = segment.service::<u64, u64>("squares").server()?;
    /// let ends = std::thread::spawn(move || drop(server));
    /// client.blocking_closed();
    /// assert!(client.blocking_call(7).unwrap_err().is_closed());
    /// # ends.join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_closed(&self) {
        block_on(self.closed());
    }

    /// Waits as [`closed`](Self::closed), blocking the thread for at most `time`; whether the service is closed. Needs no runtime, and
    /// no other thread.
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let client = segment.service::<u64, u64>("squares").client()?;
    /// let server = segment.service::<u64, u64>("squares").server()?;
    /// assert!(!client.blocking_closed_timeout(std::time::Duration::from_millis(10)));
    /// # drop(server);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_closed_timeout(&self, time: Duration) -> bool {
        block_on(timeout(self.core.requests.port.attachment(), time, self.closed())).is_some()
    }

    /// Calls of this client and its clones that have begun and are not over.
    pub fn in_flight(&self) -> usize {
        self.core.in_flight()
    }

    /// How many participants have a server of the service.
    pub fn server_count(&self) -> usize {
        self.core.requests.receiver_count()
    }
}

impl Failure {
    pub(super) fn with<V>(self, value: V) -> CallError<V> {
        match self {
            Self::Send(SendErrorKind::Closed) => CallError::Closed(value),
            Self::Send(SendErrorKind::NotEncodable) => CallError::NotEncodable(value),
            Self::Send(_) => CallError::TooLarge(value),
            Self::End(None) => CallError::Closed(value),
            Self::End(Some(Mark::Taken)) => CallError::ServerGone(value),
            Self::End(Some(Mark::Late)) => CallError::Timeout(value),
            Self::End(Some(_)) => CallError::Unanswered(value),
        }
    }
}

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> Clone for Client<Req, Resp> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.core), self.deliveries)
    }
}

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> fmt::Debug for Client<Req, Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

/// Responses of a server to one request, in order. Made by [`Client::call_stream`].
///
/// It ends when the server [finishes](crate::service::Responses::finish) or drops its side. If the server dies, or panics, or drops the
/// request without a stream, its last item is an error. Dropping it tells the server.
///
/// At most 16 responses wait here; the server waits for them to be taken before it sends more.
#[must_use = "a stream does nothing unless it is polled"]
pub struct CallStream<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> {
    /// `None` after the end.
    ticket: Option<Ticket<Req, Resp>>,
}

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> CallStream<Req, Resp> {
    /// The next response. `None` after the last one.
    ///
    /// # Errors
    ///
    /// [`CallError`]: there will be no more, though the server has not finished.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: if the future is dropped before it is done, no response was taken.
    pub async fn next(&mut self) -> Option<Result<Message<Resp>, CallError<()>>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// The next response, blocking the thread until there is one. `None` after the last one.
    ///
    /// # Errors
    ///
    /// As for [`next`](Self::next).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let server = segment.service::<u64, u64>("count").server()?;
    /// let client = segment.service::<u64, u64>("count").client()?;
    /// let mut responses = client.blocking_call_stream(2)?;
    /// let request = server.blocking_next().unwrap();
    /// let mut stream = request.stream();
    /// stream.blocking_send(0)?;
    /// stream.blocking_send(1)?;
    /// stream.finish();
    /// let numbers: Vec<u64> = std::iter::from_fn(|| responses.blocking_next()).map(|next| *next.unwrap()).collect();
    /// assert_eq!(numbers, [0, 1]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_next(&mut self) -> Option<Result<Message<Resp>, CallError<()>>> {
        block_on(self.next())
    }

    /// The next response, blocking the thread for at most `time`. `None` after the last one. Needs no runtime, and no other thread.
    ///
    /// # Errors
    ///
    /// As for [`next`](Self::next); [`CallError::Timeout`] if there was none within the time: the call goes on, and a later attempt
    /// may get it.
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let server = segment.service::<u64, u64>("count").server()?;
    /// let client = segment.service::<u64, u64>("count").client()?;
    /// let mut responses = client.blocking_call_stream(2)?;
    /// assert!(responses.blocking_next_timeout(Duration::from_millis(10)).unwrap().unwrap_err().is_timeout());
    /// let mut stream = server.blocking_next().unwrap().stream();
    /// stream.blocking_send(7)?;
    /// assert_eq!(*responses.blocking_next_timeout(Duration::from_secs(10)).unwrap()?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_next_timeout(&mut self, time: Duration) -> Option<Result<Message<Resp>, CallError<()>>> {
        // One that has ended has no segment any more, and nothing to wait for.
        let core = Arc::clone(self.ticket.as_ref()?.core());
        block_on(timeout(core.requests.port.attachment(), time, self.next()))
            .unwrap_or(Some(Err(CallError::Timeout(()))))
    }
}

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> Stream for CallStream<Req, Resp> {
    type Item = Result<Message<Resp>, CallError<()>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(ticket) = &mut self.ticket else { return Poll::Ready(None) };
        let end = match ready!(ticket.poll_response(context)) {
            Ok(response) => {
                ticket.use_part();
                return Poll::Ready(Some(Ok(response)));
            }
            Err(end) => end,
        };
        let is_closed = ticket.is_closed();
        self.ticket = None;
        Poll::Ready(match end {
            End::Answered | End::Freed(Some(Mark::Ended)) => None,
            End::Freed(None) if !is_closed => Some(Err(CallError::ServerGone(()))),
            End::Freed(mark) => Some(Err(Failure::End(mark).with(()))),
        })
    }
}

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> FusedStream for CallStream<Req, Resp> {
    fn is_terminated(&self) -> bool {
        self.ticket.is_none()
    }
}

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> Unpin for CallStream<Req, Resp> {}

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> fmt::Debug for CallStream<Req, Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallStream").field("ended", &self.ticket.is_none()).finish_non_exhaustive()
    }
}
