//! How a task waits: a few yields on a hot channel, then a place in the queue.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Wake},
    thread::{self, Thread},
    time::Duration,
};

use futures_timer::Delay;

/// What a receiver does when the channel is empty, before it parks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitStrategy {
    /// Yields to the runtime a few times if that has paid lately, then parks. A channel on which messages come seldom
    /// parks at once.
    #[default]
    Adaptive,
    /// Parks at once: the least work for the processor, a wake-up for every message that comes late.
    Park,
}

/// The most yields before a task parks.
const MOST_YIELDS: u32 = 32;
/// Where a new handle begins.
const FIRST_YIELDS: u32 = 4;

/// Remembers whether yielding has paid. Shared by the threads that share a handle; any value is fine.
#[derive(Debug)]
pub(crate) struct Patience {
    yields: AtomicU32,
}

impl Patience {
    pub(crate) fn new(strategy: WaitStrategy) -> Self {
        let yields = match strategy {
            WaitStrategy::Adaptive => FIRST_YIELDS,
            WaitStrategy::Park => 0,
        };
        Self { yields: AtomicU32::new(yields) }
    }

    /// How often to yield now.
    pub(crate) fn budget(&self) -> u32 {
        // Ordering: Relaxed here and below: a heuristic.
        self.yields.load(Ordering::Relaxed)
    }

    /// A message came while we yielded.
    pub(crate) fn paid(&self) {
        let yields = self.budget();
        if yields < MOST_YIELDS && yields > 0 {
            self.yields.store((yields * 2).min(MOST_YIELDS), Ordering::Relaxed);
        }
    }

    /// All yields were in vain.
    pub(crate) fn failed(&self) {
        let yields = self.budget();
        if yields > 1 {
            self.yields.store(yields / 2, Ordering::Relaxed);
        }
    }
}

/// Lets the runtime poll other tasks, and comes back.
#[derive(Debug, Default)]
pub(crate) struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Charges tokio's cooperative budget for one operation, so that a task whose channel is never empty lets others run.
pub(crate) async fn charge_budget() {
    #[cfg(feature = "tokio")]
    {
        let restore = std::future::poll_fn(tokio::task::coop::poll_proceed).await;
        restore.made_progress();
    }
}

/// Runs a future on this thread, which sleeps in between.
///
/// # Panics
///
/// If the thread is polling a task of a tokio runtime: it would be stopped.
#[track_caller]
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    #[cfg(feature = "tokio")]
    assert!(
        tokio::task::try_id().is_none(),
        "Cannot block the current thread from within a runtime. This happens because a function attempted to block the \
         current thread while the thread is being used to drive asynchronous tasks."
    );
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            // A token that somebody else left costs one look too many.
            Poll::Pending => thread::park(),
        }
    }
}

/// Drives a future for at most `time`: `None` if it was not done by then. Needs no runtime.
pub(crate) async fn timeout<F: Future>(time: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut delay = None;
    std::future::poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        // Most calls never come here.
        let delay = delay.get_or_insert_with(|| Delay::new(time));
        Pin::new(delay).poll(context).map(|()| None)
    })
    .await
}
