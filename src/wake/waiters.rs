//! The waiters of one process for one channel and direction.
//!
//! A list of our own and not an event library's, because of R2: the parked bit and the list change together under one
//! lock, and wakers (which may drop tasks, and with them waiters) must run outside of it.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::{
    sys::{
        held::Mutex,
        sync::{AtomicUsize, Ordering},
    },
    wake::{Hub, Parked, Topic, budget, wakers},
};

/// Who is to be woken before anybody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct First {
    pub(crate) participant: u16,
    /// Whether there is something to do for it.
    pub(crate) work: bool,
    /// Whether there was nothing before: then it is to be woken.
    pub(crate) news: bool,
    /// After so much time somebody must look whether it has reacted.
    pub(crate) patience: Duration,
}

/// Says who stands in line, if somebody does.
pub(crate) type LookAtLine = Box<dyn Fn() -> Option<First> + Send + Sync>;

/// Who in this process waits for something, and how to wake whoever waits for it anywhere.
pub(crate) struct WaitQueue {
    hub: Arc<Hub>,
    topic: Topic,
    pub(super) parked: Parked,
    /// Whether there is something to do for a waiter; also true when the channel is closed.
    work: Box<dyn Fn() -> bool + Send + Sync>,
    /// Whether a mark of this topic means all waiters, not one.
    broadcast: bool,
    /// The participant of who stands in line: see R10.
    first: Option<LookAtLine>,
    /// Where the next look at the bitmap begins.
    rotor: AtomicUsize,
    waiting: Mutex<Waiting>,
    /// Whether the process has left the channel, of which `work` and `first` look into the ring: they are asked under this lock.
    #[cfg(not(loom))]
    ended: Mutex<bool>,
}

/// Numbers of waiters are above this, of those in line below.
const FIRSTS: u64 = 1 << 63;

/// The waiters that nobody has notified yet, the oldest first; before them, who stands in line.
#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// How many have stood in line.
    firsts: u64,
    /// Nobody waits here any more: see [`WaitQueue::end`].
    ended: bool,
    list: BTreeMap<u64, Option<Waker>>,
}

impl WaitQueue {
    pub(super) fn new(
        hub: Arc<Hub>,
        topic: Topic,
        parked: Parked,
        work: Box<dyn Fn() -> bool + Send + Sync>,
        broadcast: bool,
        first: Option<LookAtLine>,
    ) -> Self {
        let rotor = AtomicUsize::new(usize::from(hub.me()) + 1);
        Self {
            hub,
            topic,
            parked,
            work,
            broadcast,
            first,
            rotor,
            waiting: Mutex::new(Waiting::default()),
            #[cfg(not(loom))]
            ended: Mutex::new(false),
        }
    }

    pub(super) fn is_broadcast(&self) -> bool {
        self.broadcast
    }

    /// R1: takes a place in the list. Try again before you sleep.
    pub(crate) fn listen(self: &Arc<Self>) -> Waiter {
        self.enlist(|waiting| {
            waiting.next += 1;
            FIRSTS + waiting.next
        })
    }

    /// The same at the head of the list, for who stands in line.
    pub(crate) fn listen_first(self: &Arc<Self>) -> Waiter {
        self.enlist(|waiting| {
            waiting.firsts += 1;
            FIRSTS - waiting.firsts
        })
    }

    fn enlist(self: &Arc<Self>, number: impl FnOnce(&mut Waiting) -> u64) -> Waiter {
        if !self.hub.is_usable() {
            // Nobody ever tells it. Who waits in a forked child looks before, and finds that there is nothing.
            return Waiter { queue: Arc::clone(self), number: 0, present: false };
        }
        let number = {
            let mut waiting = self.waiting.lock();
            let number = number(&mut waiting);
            if waiting.ended {
                // As if it had been notified.
                drop(waiting);
                return Waiter { queue: Arc::clone(self), number, present: false };
            }
            if waiting.list.is_empty() {
                self.parked.set(self.hub.me());
                self.hub.is_listening(self.topic, true);
            }
            waiting.list.insert(number, None);
            number
        };
        self.hub.waiter_came();
        Waiter { queue: Arc::clone(self), number, present: true }
    }

    /// R2: takes one out of the list, and the bit with the last.
    fn remove(&self, waiting: &mut Waiting, number: u64) -> Option<Option<Waker>> {
        let removed = waiting.list.remove(&number)?;
        if waiting.list.is_empty() {
            self.parked.clear(self.hub.me());
            self.hub.is_listening(self.topic, false);
        }
        self.hub.waiter_went();
        Some(removed)
    }

    /// R12: the process is about to leave the channel. Who waits still gives up its place, and with the last one goes the parked bit;
    /// nobody gets a place any more. What is returned is to be woken.
    #[cfg(not(loom))]
    pub(crate) fn end(&self) -> Vec<Waker> {
        let wakers = {
            let mut waiting = self.waiting.lock();
            waiting.ended = true;
            let numbers: Vec<u64> = waiting.list.keys().copied().collect();
            numbers.into_iter().filter_map(|number| self.remove(&mut waiting, number)).flatten().collect()
        };
        *self.ended.lock() = true;
        wakers
    }

    /// What `look` says, or `otherwise` where the process has left the channel.
    fn look<R>(&self, otherwise: R, look: impl FnOnce() -> R) -> R {
        // No model has a queue that ends.
        #[cfg(not(loom))]
        let ended = self.ended.lock();
        #[cfg(not(loom))]
        if *ended {
            return otherwise;
        }
        #[cfg(loom)]
        drop(otherwise);
        look()
    }

    /// Notifies the local waiter that has waited longest; `false` if there is none.
    pub(super) fn notify_local(&self) -> bool {
        if !self.hub.is_usable() {
            return false;
        }
        let waker = {
            let mut waiting = self.waiting.lock();
            let Some(number) = waiting.list.keys().next().copied() else { return false };
            self.remove(&mut waiting, number)
        };
        // Outside of the lock: a waker may do anything. And last: it may drop all that we stand on.
        if let Some(Some(waker)) = waker {
            wakers::wake(waker);
        }
        true
    }

    /// Notifies all local waiters.
    pub(crate) fn notify_all_local(&self) {
        if !self.hub.is_usable() {
            return;
        }
        let wakers: Vec<Option<Waker>> = {
            let mut waiting = self.waiting.lock();
            let numbers: Vec<u64> = waiting.list.keys().copied().collect();
            numbers.into_iter().filter_map(|number| self.remove(&mut waiting, number)).collect()
        };
        wakers.into_iter().flatten().for_each(wakers::wake);
    }

    /// Whether anybody waits, in any process.
    #[inline(always)]
    pub(crate) fn parked(&self) -> bool {
        self.parked.any()
    }

    /// Whether all who wait, if anybody does, are others who have been told already and rung for: then [`wake_one`](Self::wake_one)
    /// would change nothing. Where processes wait for a processor, not for messages, this is so at nearly every success.
    #[inline(always)]
    pub(super) fn are_all_told(&self) -> bool {
        self.parked.all(|participant| participant != self.hub.me() && self.hub.is_told(participant, self.topic))
    }

    /// Whether there is something to do for a waiter.
    pub(crate) fn has_work(&self) -> bool {
        self.look(false, || (self.work)())
    }

    /// Whether there is something to do for who stands in line, in this process. For the watchdog.
    pub(super) fn has_work_in_line(&self) -> bool {
        let Some(first) = self.first() else { return false };
        #[cfg(not(loom))]
        if first.work && !first.news {
            // Whoever has noted that it is due may be stopped, or gone.
            self.hub.look_at_line_after(first.patience, self.topic);
        }
        first.work && first.participant == self.hub.me()
    }

    fn first(&self) -> Option<First> {
        let first = self.look(None, self.first.as_ref()?)?;
        if first.news {
            // Whoever waits behind it looks, too, should this process go, or be stopped, before its bridge does.
            if !self.parked.all(|participant| participant == first.participant) {
                self.hub.tells.fetch_add(1, Ordering::SeqCst);
            }
            // The look at the line is its second look.
            #[cfg(not(loom))]
            self.hub.look_at_line_after(first.patience, self.topic);
            // Last: a waker may drop all that we stand on.
            self.wake_first(first, false);
        }
        Some(first)
    }

    fn wake_first(&self, first: First, is_duty: bool) -> bool {
        match first.participant == self.hub.me() {
            true => self.notify_local(),
            false => self.hub.tell_one_of(&self.parked, first.participant, self.topic, is_duty),
        }
    }

    /// Wakes others if who stands in line has not done what it was woken for.
    #[cfg(not(loom))]
    pub(super) fn look_at_line(&self) {
        if self.passes_over() {
            self.wake_one_if_work();
        }
    }

    /// Whether who stood in line does so no more. If it does, and has something to do, it knows.
    #[cold]
    pub(crate) fn passes_over(&self) -> bool {
        self.first().is_none()
    }

    /// R4, R10 and R11: wakes one waiter, wherever it is, and looks again if it does not react.
    #[cold]
    pub(crate) fn wake_one(&self) {
        self.wake(true);
    }

    /// R11: wakes so many more, if there is something to do still; `false` if there is not, or if
    /// all have been told.
    pub(super) fn wake_more(&self, most: usize) -> bool {
        match self.first() {
            Some(first) => self.wake_first_in_line(first, false),
            // Who is here runs.
            None => self.has_work() && (self.notify_local() || (0..most).take_while(|_| self.wake(false)).count() > 0),
        }
    }

    /// Wakes who stands in line, if it can be served; `false` if there is nothing to tell it.
    fn wake_first_in_line(&self, first: First, is_duty: bool) -> bool {
        // With news it has been woken already.
        first.work && (first.news || self.wake_first(first, is_duty))
    }

    /// Wakes one that has not been told yet; `false` if there is none. `is_duty`: the bridge looks
    /// again, if others wait, too.
    fn wake(&self, is_duty: bool) -> bool {
        if let Some(first) = self.first() {
            return self.wake_first_in_line(first, is_duty);
        }
        // Ordering: Relaxed, any beginning is fine.
        let first = self.rotor.fetch_add(1, Ordering::Relaxed);
        self.parked.from(first % self.hub.participants()).any(|participant| match participant == self.hub.me() {
            true => self.notify_local(),
            false => self.hub.tell_one_of(&self.parked, participant, self.topic, is_duty),
        })
    }

    /// The chain's part of R3: wakes one more if there is something to do for it.
    #[cold]
    pub(crate) fn wake_one_if_work(&self) {
        if self.parked.any() {
            self.wake_one_if(|| self.has_work());
        }
    }

    /// The same, if `work` says whether there is something to do.
    #[cold]
    pub(super) fn wake_one_if(&self, work: impl FnOnce() -> bool) {
        // The line first: who is passed over there makes work for others.
        match self.first() {
            Some(first) => {
                self.wake_first_in_line(first, true);
            }
            None if work() => self.wake_one(),
            None => {}
        }
    }

    /// Wakes everybody. Another process's waiters learn of it one after the other, by the chain, unless the topic is one
    /// of which a mark means all.
    #[cold]
    pub(crate) fn wake_all(&self) {
        self.hub.wake_all(self.topic, self.parked);
    }

    /// R7: passes on a notification that nobody used, if somebody can use it. (If nobody can, two who pass it on to each
    /// other would never sleep. Where a mark means all waiters, all have got it already.)
    #[cold]
    fn pass_on(&self) {
        if !self.broadcast && self.has_work() && !self.notify_local() {
            self.wake_one();
        }
    }
}

impl fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitQueue").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// A place in the list. A future that is done when it has been notified; to be dropped if nobody waits any more, which
/// passes a notification on, or [finished](Self::finish).
#[derive(Debug)]
#[must_use = "a waiter waits only when it is polled"]
pub(crate) struct Waiter {
    queue: Arc<WaitQueue>,
    number: u64,
    /// Whether the drop has still something to do.
    present: bool,
}

impl Waiter {
    /// Leaves after a success, which has passed on what notification there was (R3).
    pub(crate) fn finish(mut self) {
        self.leave();
    }

    /// Leaves; `true` if it had been notified.
    fn leave(&mut self) -> bool {
        self.present = false;
        if !self.queue.hub.is_usable() {
            // The bit is the parent's, and the lock may be held by one of its threads, which is not here.
            return false;
        }
        let removed = {
            let mut waiting = self.queue.waiting.lock();
            self.queue.remove(&mut waiting, self.number)
        };
        let was_notified = removed.is_none();
        wakers::discard(removed.flatten());
        was_notified
    }
}

impl Future for Waiter {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (is_first, told) = self.leave_waker(context);
        if told.is_pending() {
            self.queue.hub.drive(is_first, 1, context);
        }
        told
    }
}

impl Waiter {
    /// As a poll, with a waker that has no task, which would poll it again. Whoever waits for what that waker does is to
    /// [drive](Hub::drive) the hub itself.
    pub(crate) fn poll_for_bell(&self, context: &Context<'_>) -> Poll<()> {
        self.leave_waker(context).1
    }

    /// Whether it has been notified, and whether it had no waker before.
    fn leave_waker(&self, context: &Context<'_>) -> (bool, Poll<()>) {
        if !self.queue.hub.is_usable() {
            // One that the parent has enlisted looks again, and finds that there is nothing.
            return (false, if self.present { Poll::Ready(()) } else { Poll::Pending });
        }
        let (is_first, is_kept) = match self.queue.waiting.lock().list.get(&self.number) {
            None => return (false, Poll::Ready(())),
            Some(None) => (true, false),
            Some(Some(waker)) => (false, waker.will_wake(context.waker())),
        };
        if !is_kept {
            let waker = wakers::copy(context.waker());
            let kept = match self.queue.waiting.lock().list.get_mut(&self.number) {
                Some(kept) => Ok(kept.replace(waker)),
                // Notified meanwhile.
                None => Err(waker),
            };
            match kept {
                Ok(old) => wakers::discard(old),
                Err(unused) => {
                    wakers::discard(Some(unused));
                    return (false, Poll::Ready(()));
                }
            }
        }
        budget::rest();
        (is_first, Poll::Pending)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.present && self.leave() {
            self.queue.pass_on();
        }
    }
}
