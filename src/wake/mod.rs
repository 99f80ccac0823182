//! Waking a task in another process.
//!
//! ```text
//! waker                                     sleeper's process
//! cell CAS                                  waiter → list, parked |= me
//! parked? ──► pending |= mark ──► ring ──►  bridge thread: take pending ──► notify one local waiter
//! ```
//!
//! Per channel and direction a **parked bitmap**, a bit per participant. Per participant **pending** marks (a bit per
//! channel and direction) and a **doorbell**. Per process one **bridge** thread that sleeps on the doorbell and hands
//! wake-ups to local waiters, whatever runtime or thread they are on. **Only its owner clears a parked bit; a waker marks
//! and rings, and holds nothing**: killed or stopped at any step, it leaves nobody deaf.
//!
//! The rules, which the code refers to:
//!
//! * **R1 Wait.** Try. Under the list's lock: append, set the parked bit. Try again. Sleep; when notified, start over.
//! * **R2** List and bit change together, under the lock; the bit is set exactly while a waiter not yet notified is in
//!   the list.
//! * **R3 Success.** After a send or receive: somebody parked on the other side → wake one of them. Then the *chain*:
//!   somebody parked on my own side, and still work for them → wake one. Who succeeds drops its own notification: the
//!   chain has passed it on. Closing is work without end.
//! * **R4 Wake one.** For each participant in the bitmap, starting anywhere: myself → notify one
//!   local waiter, done if there was one. Another → mark, ring; done if the mark was new and the
//!   parked bit is still there. An old mark does not count: whoever set it may be dead or stopped.
//!   Ring all the same, and go on to the next. Without the bit it may have gone after it took its
//!   marks for the last time. Where all who are parked are others with a mark and a bell that does
//!   not sleep, all this is known to change nothing, by a look.
//! * **R5 Ring.** See [`doorbell`].
//! * **R6 Bridge.** Take the marks; for each notify one waiter; nobody there, but work → wake one
//!   elsewhere. No queue of the topic there any more → wake one elsewhere, work or not: nobody here
//!   can tell.
//! * **R7 Leaving.** A waiter that is dropped after it was notified passes that on, if there is
//!   work. (If there is none, who made it gone will wake somebody when it comes back; and waiters
//!   that fail must not wake each other for ever.) Who leaves the segment clears its bits, then
//!   takes its marks, and tells everybody else of those topics: nobody looks again for it.
//! * **R8 Reaper.** Clear the dead's bits, then hand its marks on as if it had left, then wake all,
//!   as it may have swallowed any wake.
//! * **R9 Watchdog.** While it has local waiters the bridge sleeps at most [`WATCHDOG`], then
//!   notifies one more for each channel and direction with waiters and work: a process that was
//!   stopped between its change and its telling, between a mark and its task, or with a duty (R11),
//!   has swallowed a wake. (Where a mark means all waiters, all of them: one of them sees what the
//!   others do not.) Where nobody has come or gone for a second, and nobody in the segment has told
//!   one of several (a count that every tick looks at), it looks less and less often, and every
//!   [`REST`] at last. It also finds the work that the mere passing of time makes, room behind what
//!   has expired: a process that may wait for that looks with every tick. Waits with a time limit
//!   end by the bridge, too ([`deadlines`]). There is no other timer but R11's.
//! * **R10 The line.** Who stands in line for many permits (`attachment::reserve`) has what it waits for counted already,
//!   so nobody else has work until it has got it: it is woken and nobody else, and is the first in its process's list. Who does not
//!   react to that for a while stands there no more, and whoever had woken it looks again then.
//! * **R11 Second look.** Who tells one of several that are parked looks again after a while
//!   whether there is still something to do, and then tells others: see [`second_look`].
//! * **R12 Leaving a channel.** A parked bit is set and cleared in one life of the channel's entry: before the last end of a
//!   process goes, all its queues of that channel end. Who waits there still (a place that was leaked) is woken.
//!
//! `docs/models/wakeup.py` is the model of these rules, and shows what is lost when one is left out.
//!
//! # Orderings
//!
//! {cell CAS, load of parked} against {set parked, load of the cell}, and {set pending, load of the doorbell} against
//! {change of the doorbell, load of pending}: all SeqCst. On x86-64 the first of each pair is a locked instruction
//! anyway, and the second a plain load.

mod bridge;
pub(crate) mod budget;
#[cfg(not(loom))]
mod deadlines;
mod doorbell;
mod parked;
mod second_look;
mod waiters;
pub(crate) mod wakers;
#[cfg(not(loom))]
mod watch;

#[cfg(all(test, loom))]
pub(crate) mod loom_ground;
#[cfg(all(test, loom))]
mod loom_tests;

pub(crate) use bridge::{Ground, Hub};
#[cfg(not(loom))]
pub(crate) use deadlines::Deadline;
#[cfg(not(loom))]
pub(crate) use doorbell::has_rung;
pub(crate) use parked::Parked;
#[cfg(not(loom))]
pub(crate) use waiters::First;
pub(crate) use waiters::{LookAtLine, WaitQueue, Waiter};

use std::time::Duration;

use crate::region::layout::TOPICS_PER_CHANNEL;

/// How long a bridge with local waiters sleeps at most. It is for what nobody can see: a process
/// that was stopped within some instructions, a kernel that refuses to tell of deaths or to fence.
/// Four wakes a second cost a waiting process some 50 µs of processor per second; a tenth of a
/// second would cost more than twice that for what hardly ever happens.
pub(crate) const WATCHDOG: Duration = Duration::from_millis(250);

/// The longest time between two looks for lost wakes, in a process in which nothing has happened
/// for that long, while nobody in the segment has told one of several.
pub(crate) const REST: Duration = Duration::from_secs(4);

/// What waiters of a channel wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// A message.
    Receive = 0,
    /// Room.
    Send = 1,
    /// The end.
    Closed = 2,
}

/// A channel and a direction, or the segment's memory: the number of a bit in `pending`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Topic(u32);

impl Topic {
    pub(crate) fn channel(index: u32, direction: Direction) -> Self {
        Self(index * TOPICS_PER_CHANNEL + direction as u32)
    }

    /// The channel's index, and for what of it.
    pub(crate) fn of_channel(self) -> Option<(usize, Direction)> {
        let direction = match self.0 % TOPICS_PER_CHANNEL {
            0 => Direction::Receive,
            1 => Direction::Send,
            2 => Direction::Closed,
            _ => return None,
        };
        Some(((self.0 / TOPICS_PER_CHANNEL) as usize, direction))
    }

    /// Waiting for memory, in a segment of so many channels.
    pub(crate) fn memory(channels: u32) -> Self {
        Self(channels * TOPICS_PER_CHANNEL)
    }
}

/// R3: after a success, looks who else has something to do now. `own` is the queue of those who wait for what the caller
/// has got, `other` of those who wait for what the caller has made. `more` says whether there is work for `own`: who has just had
/// some knows where to look.
#[inline(always)]
pub(crate) fn success(own: &WaitQueue, other: &WaitQueue, more: impl FnOnce() -> bool) {
    if !other.are_all_told() {
        other.wake_one();
    }
    if !own.are_all_told() {
        own.wake_one_if(more);
    }
}

/// Whether a success changes nothing for anybody: then [`success`] calls no waker.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) fn is_nobody_to_be_told(own: &WaitQueue, other: &WaitQueue) -> bool {
    other.are_all_told() && own.are_all_told()
}

/// Under loom SeqCst accesses count as acquire and release only; a fence gives them their meaning back. Nothing in the
/// code that ships.
#[inline(always)]
fn fence_for_models() {
    #[cfg(loom)]
    crate::sys::sync::fence(crate::sys::sync::Ordering::SeqCst);
}
