//! The serving side.

use std::{
    fmt,
    ops::Deref,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    attachment::known::ChannelKey,
    channel::{
        Message, Payload, Receiver, RecvTimeoutError, Sendable, TryRecvError, TrySendError, Wait,
        wait::{block_on, timeout},
    },
    service::{
        RespondError, WINDOW, clock,
        letter::{PART, Query, Question, WHOLE, open_question},
        link::{Link, Links},
        slate::{CallId, Mark},
    },
};

/// Takes requests of a service. Each goes to exactly one server of all processes.
///
/// Made by [`Options::server`](crate::service::Options::server). Clones are further servers, and share the links to
/// clients. Calls fail when the last server of all processes has gone.
pub struct Server<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> {
    requests: Receiver<Question<Req, Resp>>,
    links: Arc<Links<Resp>>,
}

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> Server<Req, Resp> {
    pub(super) fn new(requests: Receiver<Question<Req, Resp>>, links: Arc<Links<Resp>>) -> Self {
        Self { requests, links }
    }

    /// The next request, in the order in which they were sent. Waits for it without polling. `None` if no request waits
    /// and the last client has left, or the service was closed. If no client has come yet, it waits for one; and a client may
    /// come after `None`. A [persistent](crate::service::Options::persistent) service waits for the next client.
    ///
    /// A request whose caller has given up, or has died, or whose deadline has passed, does not come.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: if the future is dropped before it is done, no request was taken.
    pub async fn next(&self) -> Option<Request<Req, Resp>> {
        loop {
            let message = self.requests.recv().await?;
            if let Some(request) = self.accept(message) {
                return Some(request);
            }
        }
    }

    /// The next request, blocking the thread until there is one. `None` as for [`next`](Self::next).
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
    /// let server = segment.service::<u64, u64>("double").server()?;
    /// let client = segment.service::<u64, u64>("double").client()?;
    /// let serving = std::thread::spawn(move || {
    ///     while let Some(request) = server.blocking_next() {
    ///         let response = 2 * *request;
    ///         request.blocking_respond(response).unwrap();
    ///     }
    /// });
    /// assert_eq!(*client.blocking_call(21)?, 42);
    /// drop(client);
    /// serving.join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_next(&self) -> Option<Request<Req, Resp>> {
        block_on(self.next())
    }

    /// The next request, blocking the thread for at most `time`. Needs no runtime, and no other thread.
    ///
    /// # Errors
    ///
    /// [`RecvTimeoutError::Timeout`] or [`RecvTimeoutError::Disconnected`].
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
    /// let server = segment.service::<u64, u64>("double").server()?;
    /// assert!(server.blocking_next_timeout(Duration::from_millis(10)).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_next_timeout(&self, time: Duration) -> Result<Request<Req, Resp>, RecvTimeoutError> {
        match block_on(timeout(self.requests.port.attachment(), time, self.next())) {
            Some(Some(request)) => Ok(request),
            Some(None) => Err(RecvTimeoutError::Disconnected),
            None => Err(RecvTimeoutError::Timeout),
        }
    }

    /// The next request, if there is one now.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`] or [`TryRecvError::Disconnected`].
    pub fn try_next(&self) -> Result<Request<Req, Resp>, TryRecvError> {
        loop {
            if let Some(request) = self.accept(self.requests.try_recv()?) {
                return Ok(request);
            }
        }
    }

    /// Takes a request, if somebody waits for its response.
    fn accept(&self, message: Message<Question<Req, Resp>>) -> Option<Request<Req, Resp>> {
        let (Query { call, deadline, ring, index, attempt }, message) = open_question(message);
        let (call, key) = (CallId::of(call), ChannelKey { index, ring });
        let Some(link) = self.links.to(key) else {
            // If the client is there, and only the way to it is not, it hears that nobody will answer.
            drop(message);
            self.links.nudge(key);
            return None;
        };
        if clock::is_past(deadline) {
            link.end(call, Mark::Wanted, Mark::Late, || drop(message));
            return None;
        }
        // From here on it is begun: if we die of it, the caller hears so.
        let taken = link.slate.turn(call, Mark::Wanted, Mark::Taken);
        taken.then(|| Request { message: Some(message), link, call, deadline, attempt })
    }

    /// Closes the service: no more requests can be sent, by anybody; those that wait still come.
    pub fn close(&self) {
        self.requests.close();
    }

    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether no request waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many participants have a client of the service.
    pub fn client_count(&self) -> usize {
        self.requests.sender_count()
    }
}

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> Clone for Server<Req, Resp> {
    fn clone(&self) -> Self {
        Self { requests: self.requests.clone(), links: Arc::clone(&self.links) }
    }
}

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> fmt::Debug for Server<Req, Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("requests", &self.requests).finish_non_exhaustive()
    }
}

/// A request that a server has taken: its payload is read in place, and its caller waits for a response.
///
/// It dereferences to the payload, as a [`Message`] does. Dropping it without a response tells the caller
/// ([`CallError::Unanswered`](crate::service::CallError::Unanswered)); so does its process's death
/// ([`CallError::ServerGone`](crate::service::CallError::ServerGone)). One that is leaked leaves its caller waiting until the process ends.
#[must_use = "a request that is dropped is not answered"]
pub struct Request<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> {
    /// `None` once it has ended.
    message: Option<Message<Req>>,
    link: Arc<Link<Resp>>,
    call: CallId,
    deadline: u64,
    attempt: u32,
}

const TAKEN: &str = "a request is there until it has ended";

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> Request<Req, Resp> {
    /// The request as a message: for what a codec has written, [`decode`](Message#method.decode) reads it.
    pub fn message(&self) -> &Message<Req> {
        self.message.as_ref().expect(TAKEN)
    }

    /// Sends the response, waiting for room in the client's channel and for memory. The request is freed after that.
    ///
    /// # Errors
    ///
    /// [`RespondError`] with the response. The caller is told that there will be none.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, the request is dropped without a response.
    pub async fn respond<V: Sendable<Resp>>(mut self, response: V) -> Result<(), RespondError<V>> {
        match self.link.answer(&response, self.call, WHOLE).await {
            Ok(()) => {
                self.message = None;
                Ok(())
            }
            Err(kind) => Err(RespondError::new(response, kind)),
        }
    }

    /// Sends the response as [`respond`](Self::respond) does, blocking the thread until there is room and memory.
    ///
    /// # Errors
    ///
    /// As for [`respond`](Self::respond).
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
    /// let server = segment.service::<u64, u64>("double").server()?;
    /// let client = segment.service::<u64, u64>("double").client()?;
    /// let calling = std::thread::spawn(move || *client.blocking_call(21).unwrap());
    /// let request = server.blocking_next().unwrap();
    /// let response = 2 * *request;
    /// request.blocking_respond(response)?;
    /// assert_eq!(calling.join().unwrap(), 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_respond<V: Sendable<Resp>>(self, response: V) -> Result<(), RespondError<V>> {
        block_on(self.respond(response))
    }

    /// Sends the response if there is room and memory now. Lock-free, and makes no system call unless somebody must be woken.
    ///
    /// # Errors
    ///
    /// The request and why: [`TrySendError`] with the response, `Closed` if nobody waits for it.
    pub fn try_respond<V: Sendable<Resp>>(mut self, response: V) -> Result<(), (Self, TrySendError<V>)> {
        let kind = match self.link.try_answer(&response, self.call, WHOLE) {
            Ok(()) => {
                self.message = None;
                return Ok(());
            }
            Err(refused) => Wait::sort(refused),
        };
        Err((self, crate::channel::refusal(response, kind)))
    }

    /// Sends the response of a request that others may look at still. It is over, and freed with the last of them.
    #[cfg(feature = "tower")]
    pub(super) async fn answer<V: Sendable<Resp>>(self: Arc<Self>, response: &V) {
        let sent = self.link.answer(response, self.call, WHOLE).await.is_ok();
        if let (Some(mut request), true) = (Arc::into_inner(self), sent) {
            request.message = None;
        }
    }

    /// Answers with many responses. If the caller wants one only, it gets the first.
    pub fn stream(self) -> Responses<Req, Resp> {
        Responses { request: self, sent: 0 }
    }

    /// Gives the request back: under [`Delivery::AtLeastOnce`](crate::Delivery) its client sends it again, to any server, until it
    /// was delivered as often as it may be; otherwise its caller hears that it is unanswered. Dropping it in a thread that is
    /// panicking does the same.
    pub fn nack(mut self) {
        self.end(Mark::Again);
    }

    /// How often the request was delivered, this time included: 1, unless its client
    /// [sends it again](crate::service::Options::delivery).
    pub fn delivery_count(&self) -> u32 {
        self.attempt
    }

    /// When the caller stops waiting, if it has said so, by [`Client::call_timeout`](crate::service::Client::call_timeout).
    pub fn deadline(&self) -> Option<Instant> {
        clock::instant(self.deadline)
    }

    /// Whether nobody waits for a response any more: the caller has given up or died.
    pub fn is_cancelled(&self) -> bool {
        !self.link.is_wanted(self.call)
    }

    /// Waits until nobody waits for a response any more.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: it only looks.
    ///
    /// # Examples
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let segment = waterway::Segment::options().in_process()?;
    /// # let client = segment.service::<u64, u64>("slow").client()?;
    /// # let server = segment.service::<u64, u64>("slow").server()?;
    /// let mut call = Box::pin(client.call(7));
    /// assert!(futures::poll!(&mut call).is_pending());
    /// let request = server.next().await.unwrap();
    /// drop(call);
    /// request.cancelled().await;
    /// assert!(request.respond(8).await.unwrap_err().is_cancelled());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn cancelled(&self) {
        self.link.watch(|| self.is_cancelled().then_some(())).await;
    }

    /// Waits as [`cancelled`](Self::cancelled), blocking the thread.
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
    /// # let client = segment.service::<u64, u64>("slow").client()?;
    /// # let server = segment.service::<u64, u64>("slow").server()?;
    /// let calls = std::thread::spawn(move || client.blocking_call_timeout(7, std::time::Duration::from_millis(10)));
    /// if let Some(request) = server.blocking_next() {
    ///     request.blocking_cancelled();
    ///     assert!(request.is_cancelled());
    /// }
    /// assert!(calls.join().unwrap().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_cancelled(&self) {
        block_on(self.cancelled());
    }

    /// Waits as [`cancelled`](Self::cancelled), blocking the thread for at most `time`; whether nobody waits for a response any more.
    /// Needs no runtime, and no other thread.
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let segment = waterway::Segment::options().in_process()?;
    /// # let client = segment.service::<u64, u64>("slow").client()?;
    /// # let server = segment.service::<u64, u64>("slow").server()?;
    /// let mut call = Box::pin(client.call(7));
    /// assert!(futures::poll!(&mut call).is_pending());
    /// let request = server.blocking_next().unwrap();
    /// assert!(!request.blocking_cancelled_timeout(std::time::Duration::from_millis(10)));
    /// drop(call);
    /// assert!(request.blocking_cancelled_timeout(std::time::Duration::from_secs(10)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    #[track_caller]
    pub fn blocking_cancelled_timeout(&self, time: Duration) -> bool {
        block_on(timeout(self.link.attachment(), time, self.cancelled())).is_some()
    }

    /// Ends it without a further response.
    fn end(&mut self, mark: Mark) {
        if let Some(message) = self.message.take() {
            self.link.end(self.call, Mark::Taken, mark, || drop(message));
        }
    }
}

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> Deref for Request<Req, Resp>
where
    Message<Req>: Deref,
{
    type Target = <Message<Req> as Deref>::Target;

    #[inline]
    fn deref(&self) -> &Self::Target {
        self.message()
    }
}

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> Drop for Request<Req, Resp> {
    fn drop(&mut self) {
        self.end(if std::thread::panicking() { Mark::Again } else { Mark::Unanswered });
    }
}

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> fmt::Debug for Request<Req, Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("call", &self.call.number()).finish_non_exhaustive()
    }
}

/// Many responses to one request. Made by [`Request::stream`].
///
/// Dropping it ends the caller's stream, as [`finish`](Self::finish) does; but if the thread is panicking, with an error.
#[must_use = "a stream that is dropped has ended"]
pub struct Responses<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> {
    request: Request<Req, Resp>,
    sent: u64,
}

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> Responses<Req, Resp> {
    /// Sends the next response, as soon as fewer than 16 wait to be taken by the caller, and there is room and memory.
    ///
    /// # Errors
    ///
    /// [`RespondError`] with the response.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, the response was not sent.
    pub async fn send<V: Sendable<Resp>>(&mut self, response: V) -> Result<(), RespondError<V>> {
        let (link, call) = (&self.request.link, self.request.call);
        if link.slate.unused(call, self.sent) >= WINDOW {
            let may_send = || !link.is_wanted(call) || link.slate.wait(call, self.sent) < WINDOW;
            link.watch(|| may_send().then_some(())).await;
            link.slate.wait_no_more(call);
        }
        match link.answer(&response, call, PART).await {
            Ok(()) => {
                self.sent += 1;
                Ok(())
            }
            Err(kind) => Err(RespondError::new(response, kind)),
        }
    }

    /// Sends the next response as [`send`](Self::send) does, blocking the thread meanwhile.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send).
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
    pub fn blocking_send<V: Sendable<Resp>>(&mut self, response: V) -> Result<(), RespondError<V>> {
        block_on(self.send(response))
    }

    /// The request that is being answered.
    pub fn request(&self) -> &Request<Req, Resp> {
        &self.request
    }

    /// Ends the caller's stream. Never waits.
    pub fn finish(self) {
        drop(self);
    }
}

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> Drop for Responses<Req, Resp> {
    fn drop(&mut self) {
        self.request.end(if std::thread::panicking() { Mark::Again } else { Mark::Ended });
    }
}

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> fmt::Debug for Responses<Req, Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responses").field("sent", &self.sent).finish_non_exhaustive()
    }
}
