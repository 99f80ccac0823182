//! A server that runs a `tower` service.

use std::{
    fmt,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use tower_service::Service;

use crate::{
    channel::{Payload, Sendable, TryRecvError},
    service::{Request, Server, running::Running},
};

/// Requests that are worked on at once unless told otherwise.
const AT_ONCE: usize = 64;
/// Requests that are taken before other tasks get their turn.
const IN_A_ROW: usize = 64;

type Next<Req, Resp> = Pin<Box<dyn Future<Output = Option<Request<Req, Resp>>> + Send>>;

/// A server at work with a `tower` service, made by [`Server::serve`]: a future that is done when there will be no more requests,
/// and all that were begun are answered.
#[must_use = "a future does nothing unless it is polled"]
pub struct Serve<S, Req, Resp>
where
    S: Service<Arc<Request<Req, Resp>>>,
    Req: Payload + ?Sized + 'static,
    Resp: Payload + ?Sized + 'static,
{
    running: Running,
    /// The wait for the next request. Never kept while none would be taken: whom it is woken for goes to another server then.
    next: Option<Next<Req, Resp>>,
    server: Server<Req, Resp>,
    service: S,
    at_once: usize,
    signal: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// No more requests are taken, and why.
    over: Option<Result<(), S::Error>>,
}

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> Server<Req, Resp> {
    /// Answers requests by a service of the crate `tower`, until the last client has gone, or the service is closed, or
    /// [until](Serve::until) it is told to stop. At most 64 [at once](Serve::at_once), all in the task that polls this: for more
    /// processors, have clones of the server in tasks of their own.
    ///
    /// A request is taken only when the service has said that it is ready: what it is not ready for waits for other servers. The
    /// service gets it as an `Arc`, which dereferences to the [`Request`], and that to the payload.
    ///
    /// * If the service gives an error, the request is given [back](Request::nack): with
    ///   [`Delivery::AtLeastOnce`](crate::Delivery) another server gets it, otherwise its caller hears that it is unanswered. What
    ///   the caller shall know is said by a response.
    /// * If the caller gives up or dies, the service's future is dropped. Work that must be done all the same belongs into a task.
    /// * If the service panics, so does this, and whatever it was at is given back.
    ///
    /// A request is freed when it is answered, and the service has dropped its `Arc`. While that is kept, nobody hears of an error.
    ///
    /// # Errors
    ///
    /// The service's, if it says that it will never be ready again. What was begun is finished before.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, the requests that it is at are dropped without a response.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use waterway::{service::Request, Segment};
    ///
    /// # smol::block_on(async {
    /// # let segment = Segment::options().in_process()?;
    /// let server = segment.service::<u64, u64>("squares").server()?;
    /// let square = tower::service_fn(async |request: Arc<Request<u64, u64>>| Ok::<_, &str>(**request * **request));
    ///
    /// let client = segment.service::<u64, u64>("squares").client()?;
    /// let (served, called) = futures::join!(server.serve(square).at_once(8), async move { client.call(12).await });
    /// assert_eq!(*called?, 144);
    /// served?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn serve<S>(self, service: S) -> Serve<S, Req, Resp>
    where
        S: Service<Arc<Request<Req, Resp>>>,
        S::Response: Sendable<Resp> + Send + Sync + 'static,
        S::Error: 'static,
        S::Future: Send + 'static,
    {
        Serve {
            running: Running::default(),
            next: None,
            server: self,
            service,
            at_once: AT_ONCE,
            signal: None,
            over: None,
        }
    }
}

impl<S, Req, Resp> Serve<S, Req, Resp>
where
    S: Service<Arc<Request<Req, Resp>>>,
    Req: Payload + ?Sized + 'static,
    Resp: Payload + ?Sized + 'static,
{
    /// How many requests it is at at once, at least 1. Further ones wait, and go to whichever server has time first.
    pub fn at_once(mut self, requests: usize) -> Self {
        self.at_once = requests.max(1);
        self
    }

    /// When this is done, no more requests are taken: those that were begun are finished, the others are for other servers. If there
    /// are none, their callers hear so when this server is dropped.
    pub fn until(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.signal = Some(Box::pin(signal));
        self
    }

    /// The next request, if the service is ready for one. Sets `over` if there will be none.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Request<Req, Resp>> {
        if self.over.is_none() && self.running.len() < self.at_once {
            match self.service.poll_ready(context) {
                Poll::Ready(Ok(())) => {
                    let next = match self.next.as_mut() {
                        Some(next) => next.as_mut().poll(context),
                        None => match self.server.try_next() {
                            Ok(request) => Poll::Ready(Some(request)),
                            Err(TryRecvError::Disconnected) => Poll::Ready(None),
                            Err(TryRecvError::Empty) => {
                                let server = self.server.clone();
                                let next = self.next.insert(Box::pin(async move { server.next().await }));
                                next.as_mut().poll(context)
                            }
                        },
                    };
                    match next {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Some(request)) => {
                            self.next = None;
                            return Poll::Ready(request);
                        }
                        Poll::Ready(None) => self.over = Some(Ok(())),
                    }
                }
                Poll::Ready(Err(error)) => self.over = Some(Err(error)),
                Poll::Pending => {}
            }
        }
        self.next = None;
        Poll::Pending
    }
}

/// Answers one request, unless its caller gives up.
async fn answer<Req, Resp, V, E>(request: Arc<Request<Req, Resp>>, work: impl Future<Output = Result<V, E>>)
where
    Req: Payload + ?Sized + 'static,
    Resp: Payload + ?Sized + 'static,
    V: Sendable<Resp>,
{
    let done = {
        let (mut work, mut cancelled) = (pin!(work), pin!(request.cancelled()));
        std::future::poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done.ok())),
            Poll::Pending => cancelled.as_mut().poll(context).map(|()| None),
        })
        .await
    };
    match done {
        Some(Some(response)) => request.answer(&response).await,
        Some(None) => {
            if let Some(request) = Arc::into_inner(request) {
                request.nack();
            }
        }
        None => {}
    }
}

impl<S, Req, Resp> Future for Serve<S, Req, Resp>
where
    S: Service<Arc<Request<Req, Resp>>>,
    S::Response: Sendable<Resp> + Send + Sync + 'static,
    S::Error: 'static,
    S::Future: Send + 'static,
    Req: Payload + ?Sized + 'static,
    Resp: Payload + ?Sized + 'static,
{
    type Output = Result<(), S::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.over.is_none()
            && let Some(signal) = &mut this.signal
            && signal.as_mut().poll(context).is_ready()
        {
            this.signal = None;
            this.over = Some(Ok(()));
        }
        this.running.poll_woken(context);
        let mut taken = 0;
        while let Poll::Ready(request) = this.poll_next(context) {
            let request = Arc::new(request);
            let work = this.service.call(Arc::clone(&request));
            this.running.push(Box::pin(answer(request, work)));
            this.running.poll_woken(context);
            taken += 1;
            if taken == IN_A_ROW {
                context.waker().wake_by_ref();
                break;
            }
        }
        if this.running.len() > 0 {
            return Poll::Pending;
        }
        this.over.take().map_or(Poll::Pending, Poll::Ready)
    }
}

// Nothing in it is pinned but what is boxed.
impl<S, Req, Resp> Unpin for Serve<S, Req, Resp>
where
    S: Service<Arc<Request<Req, Resp>>>,
    Req: Payload + ?Sized + 'static,
    Resp: Payload + ?Sized + 'static,
{
}

impl<S, Req, Resp> fmt::Debug for Serve<S, Req, Resp>
where
    S: Service<Arc<Request<Req, Resp>>>,
    Req: Payload + ?Sized + 'static,
    Resp: Payload + ?Sized + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve").field("running", &self.running.len()).finish_non_exhaustive()
    }
}
