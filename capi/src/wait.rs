//! How a thread of C waits: it sleeps until it is woken, or its time is over.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// For how long somebody waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit(Option<Instant>);

impl Limit {
    pub(crate) const NEVER: Self = Self(None);

    /// Asks once.
    pub(crate) fn now() -> Self {
        Self(Some(Instant::now()))
    }

    /// So many nanoseconds from now; a negative number is for ever.
    pub(crate) fn of(nanos: i64) -> Self {
        // What is beyond the clock never comes.
        Self(time(nanos).and_then(|time| Instant::now().checked_add(time)))
    }
}

/// So many nanoseconds; `None` for a negative number, which is for ever.
pub(crate) fn time(nanos: i64) -> Option<Duration> {
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    /// Wakes this thread. What it woke the thread for in an earlier wait costs one look too many.
    static WAKER: Waker = Waker::from(Arc::new(Unpark(thread::current())));
}

/// Drives a future in this thread, which sleeps in between: `None` if it was not done in time. It is asked once at least.
pub(crate) fn block_on<F: Future>(limit: Limit, future: F) -> Option<F::Output> {
    // A thread that ends may have no waker any more.
    let waker = WAKER.try_with(Waker::clone).unwrap_or_else(|_| Waker::from(Arc::new(Unpark(thread::current()))));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        match limit.0 {
            None => thread::park(),
            Some(end) => {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return None;
                }
                thread::park_timeout(left);
            }
        }
    }
}
