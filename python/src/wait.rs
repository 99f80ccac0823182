//! How a thread of Python waits: with the interpreter released, in a futex, from which a signal
//! wakes it.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use pyo3::{exceptions::PyValueError, prelude::*};

/// The longest sleep. A signal that comes after the interpreter was asked for signals, and before
/// the thread sleeps, waits for so long.
const LONGEST: Duration = Duration::from_secs(1);

/// What a waiting thread looks at: 1 if it was woken.
#[derive(Debug, Default)]
struct Word(AtomicU32);

impl Wake for Word {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Ordering: Release, pairs with the swap of who waits: it sees what it is woken for.
        if self.0.swap(1, Ordering::Release) == 0 {
            // SAFETY: the word lives, and the call reads nothing else.
            unsafe { libc::syscall(libc::SYS_futex, &self.0, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1) };
        }
    }
}

impl Word {
    /// Sleeps until it is woken, for at most `time`; not at all if it has been woken. A signal ends
    /// it.
    fn sleep(&self, time: Duration) {
        let time = libc::timespec { tv_sec: time.as_secs() as libc::time_t, tv_nsec: time.subsec_nanos().into() };
        // SAFETY: the word and the time live; the kernel reads them only. Whatever comes of it, the
        // caller looks again.
        unsafe { libc::syscall(libc::SYS_futex, &self.0, libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, 0, &time) };
    }
}

/// For how long somebody waits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// For ever.
    Never,
    /// Until then.
    At(Instant),
}

impl Limit {
    /// Of a timeout in seconds; `None` is for ever, and less than nothing is nothing.
    pub(crate) fn of(timeout: Option<f64>) -> PyResult<Self> {
        let Some(seconds) = timeout else { return Ok(Self::Never) };
        if seconds.is_nan() {
            return Err(PyValueError::new_err("a timeout must be a number"));
        }
        let time = Duration::try_from_secs_f64(seconds.max(0.0)).ok();
        // What is beyond the clock never comes.
        Ok(time.and_then(|time| Instant::now().checked_add(time)).map_or(Self::Never, Self::At))
    }

    fn left(self) -> Duration {
        match self {
            Self::Never => LONGEST,
            Self::At(end) => end.saturating_duration_since(Instant::now()).min(LONGEST),
        }
    }
}

/// Drives a future with the interpreter released: `None` if the time was over. The future is
/// dropped then, or if a signal's handler raises.
pub(crate) fn block_on<F>(py: Python<'_>, limit: Limit, future: F) -> PyResult<Option<F::Output>>
where
    F: Future + Send,
    F::Output: Send,
{
    let mut future = pin!(future);
    let word = Arc::new(Word::default());
    let waker = Waker::from(word.clone());
    loop {
        if let Some(outcome) = py.detach(|| drive(future.as_mut(), &word, &waker, limit)) {
            return Ok(Some(outcome));
        }
        py.check_signals()?;
        if limit.left().is_zero() {
            return Ok(None);
        }
    }
}

/// Drives a future until it is done, or the thread has slept and was not woken.
fn drive<F: Future>(mut future: Pin<&mut F>, word: &Word, waker: &Waker, limit: Limit) -> Option<F::Output> {
    let mut context = Context::from_waker(waker);
    loop {
        if let Poll::Ready(outcome) = future.as_mut().poll(&mut context) {
            return Some(outcome);
        }
        // Ordering: Acquire, pairs with the waker's swap.
        if word.0.swap(0, Ordering::Acquire) == 1 {
            // The future wants to be asked again soon.
            thread::yield_now();
            continue;
        }
        word.sleep(limit.left());
        if word.0.swap(0, Ordering::Acquire) == 0 {
            return None;
        }
    }
}
