//! A descriptor that is readable when there may be something, for programs that wait with `epoll`.
//!
//! The descriptor is an eventfd. Behind it is a wait that goes on between calls: a future, which is polled with a waker that
//! writes to the eventfd. The protocol, of those who take:
//!
//! 1. Try. What is there is taken, and the descriptor stays as it is: there may be more.
//! 2. Nothing is there: drain the descriptor, *then* poll the wait.
//! 3. It has something: take that, and ring, for there may be more.
//! 4. It has not: it stands in the queue now, with the waker. Say that nothing is there.
//!
//! So the descriptor is readable from the first moment at which there may be something until somebody is told that there is nothing.
//! No wake is lost: one that comes before 2 is drained, and what it was for is seen by the poll; one that comes after the poll rings.
//!
//! A wait that has been hot lately asks to be polled again at once, for some microseconds, before it stands in the queue. That is
//! done in place, without the descriptor: while the taker polls, a waker leaves a note instead of ringing. One that asks for that
//! without end, as where the kernel has no thread for what wakes waits, is left alone after [`IN_PLACE`], and the descriptor stays readable:
//! the program polls for it.

use std::{
    future::Future,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use crate::{
    status::{Failure, ww_status},
    wait::{Limit, block_on},
};

/// The wait stands in the queue, and the descriptor is not readable: a wake rings.
const ARMED: u8 = 0;
/// A taker polls: a wake leaves the note [`TOLD`].
const POLLING: u8 = 1;
/// The taker was told: by a note if it polls, and otherwise by the descriptor, which was rung or is about to be.
const TOLD: u8 = 2;

/// For so long a wait is polled again in place, from its first poll on: longer than one that is hot asks for.
const IN_PLACE: Duration = Duration::from_micros(250);

/// What wakers have of a bell.
#[derive(Debug)]
struct Ringer {
    descriptor: OwnedFd,
    /// The taker, under the bell's lock: anything → POLLING; POLLING → ARMED, or TOLD when it rings itself. A waker: anything →
    /// TOLD, and rings if it was ARMED. All of them swap, so that each sees what the last one did.
    state: AtomicU8,
}

impl Ringer {
    fn ring(&self) {
        let one = 1_u64;
        // SAFETY: the descriptor is open, and the value lives. A full counter is readable, too.
        unsafe { libc::write(self.descriptor.as_raw_fd(), (&raw const one).cast(), size_of_val(&one)) };
    }

    fn drain(&self) {
        let mut count = 0_u64;
        // SAFETY: the descriptor is open, and the value can be written to. Nothing there to read is fine.
        unsafe { libc::read(self.descriptor.as_raw_fd(), (&raw mut count).cast(), size_of_val(&count)) };
    }
}

impl Wake for Ringer {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Ordering: AcqRel: Release, pairs with the taker's swap, after which it sees what it is woken for; Acquire, pairs with the
        // taker's, so that the ring comes after whatever it drained before.
        if self.state.swap(TOLD, Ordering::AcqRel) == ARMED {
            self.ring();
        }
    }
}

/// A wait that goes on between calls.
pub(crate) type Waiting<R> = Pin<Box<dyn Future<Output = R> + Send>>;

/// A descriptor, and the wait behind it.
pub(crate) struct Bell<R> {
    ringer: Arc<Ringer>,
    waker: Waker,
    /// Takers poll it one after the other.
    waiting: Mutex<Option<Waiting<R>>>,
}

impl<R> Bell<R> {
    /// One that is readable: whoever waits for it first tries, and so begins to wait.
    pub(crate) fn new() -> Result<Self, Failure> {
        // SAFETY: it has no preconditions.
        let descriptor = unsafe { libc::eventfd(1, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if descriptor < 0 {
            let error = io::Error::last_os_error();
            return Err(Failure::made(ww_status::WW_SYSTEM, &format!("no eventfd is to be had: {error}")));
        }
        // SAFETY: it is open, and nobody else's.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let ringer = Arc::new(Ringer { descriptor, state: AtomicU8::new(TOLD) });
        Ok(Self { waker: Waker::from(Arc::clone(&ringer)), ringer, waiting: Mutex::default() })
    }

    pub(crate) fn descriptor(&self) -> i32 {
        self.ringer.descriptor.as_raw_fd()
    }

    /// Steps 2 to 4, for who has tried in vain. `wait` begins a wait, if none goes on.
    pub(crate) fn take(&self, wait: impl FnOnce() -> Waiting<R>) -> Option<R> {
        let mut kept = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out: one that panics is not polled again.
        let mut waiting = kept.take().unwrap_or_else(wait);
        let mut context = Context::from_waker(&self.waker);
        let state = &self.ringer.state;
        // Ordering: AcqRel here and below, pairs with the waker's swap: the next poll sees what a waker was for that came before, and
        // a waker that finds the wait armed comes after the poll.
        state.swap(POLLING, Ordering::AcqRel);
        // A waker that found it armed a moment ago may ring after this. The program comes in vain then.
        self.ringer.drain();
        let mut polled = None;
        loop {
            let is_late = polled.is_some_and(|first: Instant| first.elapsed() > IN_PLACE);
            if let Poll::Ready(output) = waiting.as_mut().poll(&mut context) {
                state.swap(TOLD, Ordering::AcqRel);
                self.ringer.ring();
                return Some(output);
            }
            if state.compare_exchange(POLLING, ARMED, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                *kept = Some(waiting);
                return None;
            }
            if is_late {
                *kept = Some(waiting);
                self.ringer.ring();
                return None;
            }
            polled.get_or_insert_with(Instant::now);
            state.swap(POLLING, Ordering::AcqRel);
            thread::yield_now();
        }
    }
}

/// The bell of an end, once a program has asked for it.
pub(crate) struct Door<R>(OnceLock<Bell<R>>);

impl<R> Door<R> {
    pub(crate) fn new() -> Self {
        Self(OnceLock::new())
    }

    pub(crate) fn descriptor(&self) -> Result<i32, Failure> {
        if let Some(bell) = self.0.get() {
            return Ok(bell.descriptor());
        }
        let bell = Bell::new()?;
        Ok(self.0.get_or_init(|| bell).descriptor())
    }

    /// For who has tried in vain: [`Bell::take`], if there is one.
    pub(crate) fn take(&self, wait: impl FnOnce() -> Waiting<R>) -> Option<R> {
        self.0.get()?.take(wait)
    }

    /// Waits in this thread. If the time is over, whoever waits for the descriptor next does not wait in vain: `wait` is what it
    /// waits for then.
    pub(crate) fn within(
        &self,
        limit: Limit,
        future: impl Future<Output = R>,
        wait: impl FnOnce() -> Waiting<R>,
    ) -> Result<R, Failure> {
        block_on(limit, future).or_else(|| self.take(wait)).ok_or(Failure::timed_out())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        future::poll_fn,
        sync::atomic::{AtomicBool, AtomicU64},
    };

    use super::*;

    /// A queue, and who waits for it.
    #[derive(Default)]
    struct Queue {
        items: VecDeque<u64>,
        waker: Option<Waker>,
    }

    type Shared = Arc<Mutex<Queue>>;

    fn try_take(queue: &Shared) -> Option<u64> {
        queue.lock().unwrap().items.pop_front()
    }

    fn put(queue: &Shared, item: u64) {
        let waker = {
            let mut queue = queue.lock().unwrap();
            queue.items.push_back(item);
            queue.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes from the queue; asks to be polled again `spins` times before it waits.
    fn wait(queue: &Shared, mut spins: u32) -> Waiting<u64> {
        let queue = Arc::clone(queue);
        Box::pin(poll_fn(move |context| {
            let mut queue = queue.lock().unwrap();
            if let Some(item) = queue.items.pop_front() {
                return Poll::Ready(item);
            }
            if let Some(left) = spins.checked_sub(1) {
                spins = left;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            queue.waker = Some(context.waker().clone());
            Poll::Pending
        }))
    }

    fn is_readable(descriptor: i32, milliseconds: i32) -> bool {
        let mut poll = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
        // SAFETY: the structure lives, and is one.
        unsafe { libc::poll(&raw mut poll, 1, milliseconds) == 1 }
    }

    #[test]
    fn it_is_readable_until_somebody_is_told_that_there_is_nothing() {
        let (bell, queue) = (Bell::new().unwrap(), Shared::default());
        assert!(is_readable(bell.descriptor(), 0));
        assert_eq!(bell.take(|| wait(&queue, 1)), None);
        assert!(!is_readable(bell.descriptor(), 0));
        put(&queue, 7);
        assert!(is_readable(bell.descriptor(), 0));
        put(&queue, 8);
        // The wait that goes on takes one, and there may be more.
        assert_eq!(bell.take(|| unreachable!("a wait goes on")), Some(7));
        assert!(is_readable(bell.descriptor(), 0));
        assert_eq!(try_take(&queue), Some(8));
        assert!(is_readable(bell.descriptor(), 0));
        assert_eq!(bell.take(|| wait(&queue, 0)), None);
        assert!(!is_readable(bell.descriptor(), 0));
    }

    #[test]
    fn who_asks_for_polls_without_end_gets_them_from_the_program() {
        let (bell, queue) = (Bell::new().unwrap(), Shared::default());
        assert_eq!(bell.take(|| wait(&queue, u32::MAX)), None);
        assert!(is_readable(bell.descriptor(), 0));
        assert_eq!(bell.take(|| unreachable!("a wait goes on")), None);
        queue.lock().unwrap().items.push_back(7);
        assert!(is_readable(bell.descriptor(), 0));
        assert_eq!(bell.take(|| unreachable!("a wait goes on")), Some(7));
    }

    /// Nothing else wakes the takers, so a wake that is lost is a test that does not end.
    #[test]
    fn no_wake_is_lost_between_threads_that_put_and_threads_that_take() {
        const PUTTERS: u64 = 3;
        const EACH: u64 = 5_000;
        let (bell, queue) = (Arc::new(Bell::new().unwrap()), Shared::default());
        let (sum, taken, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            for putter in 0..PUTTERS {
                let queue = &queue;
                scope.spawn(move || {
                    for item in 0..EACH {
                        put(queue, putter * EACH + item);
                        if item % 8 == 0 {
                            thread::yield_now();
                        }
                    }
                });
            }
            for taker in 0..2 {
                let (bell, queue, sum, taken, over) = (&bell, &queue, &sum, &taken, &over);
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        assert!(is_readable(bell.descriptor(), -1));
                        while let Some(item) = try_take(queue).or_else(|| bell.take(|| wait(queue, taker))) {
                            sum.fetch_add(item, Ordering::Relaxed);
                            if taken.fetch_add(1, Ordering::Relaxed) + 1 == PUTTERS * EACH {
                                over.store(true, Ordering::Relaxed);
                            }
                        }
                        if over.load(Ordering::Relaxed) {
                            // The other one may wait for it.
                            bell.ringer.ring();
                        }
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), (0..PUTTERS * EACH).sum());
    }
}
