//! Signals: what tasks of any process wait for besides messages and room.
//!
//! | word of the entry | of a notify | of a watch |
//! |---|---|---|
//! | `value` | notifications that are stored; raised by who notifies, lowered by who is notified | see [`blocks::current`](crate::blocks::current) |
//! | `epoch` | how often all were notified | |
//! | `counts` of the ring's permits | tasks that wait for a notification, per participant | |
//!
//! **One.** Whoever notifies stores a notification and wakes somebody to fetch it; nothing is ever handed to a waiter. So a
//! process that dies before it has fetched one has taken nothing, and its reaper wakes somebody else; one that dies
//! afterwards had been notified. There are never more stored than tasks wait, and one: what is too many when somebody ceases
//! to wait is dropped then. The tasks that wait are counted per participant: those of the dead are known.
//!
//! **All.** A word changes, and all who wait are woken and compare it with what they know. A mark in `pending` means all
//! waiters of a process there, so each process remembers which value of the word its waiters know ([`Port::listen_for_news`]):
//! if it is another one by now, whoever should have woken them was stopped or killed, and the watchdog makes good for it.

use std::sync::{Arc, atomic::AtomicU64};

use crate::{
    attachment::{Attachment, directory::Kind, port::Port},
    region::layout::ChannelEntry,
    ring::permits::Permits,
    sys::sync::Ordering,
    wake::{WaitQueue, Waiter, wakers},
};

/// Drops notifications that nobody waits for, but for one.
fn settle(entry: &ChannelEntry, waiting: &Permits) {
    // Ordering: SeqCst: the count that went down before this, and the notifications that came after it.
    let mut stored = entry.value.load(Ordering::SeqCst);
    loop {
        let most = waiting.total() + 1;
        if stored <= most {
            return;
        }
        match entry.value.compare_exchange(stored, most, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => return,
            Err(now) => stored = now,
        }
    }
}

/// Whether the value is another one than those who wait for news know.
pub(super) fn has_news(entry: &ChannelEntry, known: &AtomicU64) -> bool {
    // Ordering: SeqCst: against {park, look here again}.
    entry.value.load(Ordering::SeqCst) != known.load(Ordering::SeqCst)
}

/// Whether a notification is stored.
pub(super) fn is_notified(entry: &ChannelEntry) -> bool {
    // Ordering: SeqCst: against {park, look here again}.
    entry.value.load(Ordering::SeqCst) > 0
}

impl Port {
    /// Stores a notification, unless there is one for everybody who waits and one more, and wakes one to fetch it.
    pub(crate) fn notify_one(&self) {
        if !self.attachment().is_usable() {
            return;
        }
        let most = || self.ring.permits().total().saturating_add(1);
        // Ordering: SeqCst: stored, then the look at who is parked; parked, then the look at what is stored.
        let _ = self
            .entry
            .value
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |stored| (stored < most()).then_some(stored + 1));
        if self.wants_message.parked() {
            wakers::letting_out(|| self.wants_message.wake_one_if_work());
        }
    }

    /// Fetches a notification, if one is stored.
    pub(crate) fn fetch_notification(&self) -> bool {
        // Ordering: SeqCst, as above; acquires what the notifier did before.
        let fetched =
            self.entry.value.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |stored| stored.checked_sub(1)).is_ok();
        // The chain: there may be one for somebody else.
        if fetched && self.wants_message.parked() {
            self.wants_message.wake_one_if_work();
        }
        fetched
    }

    /// A task of this process waits for notifications from here on.
    pub(crate) fn begin_to_wait(&self) {
        // Those who were counted when they died are not any more.
        settle(&self.entry, self.ring.permits());
        self.ring.permits().add(self.attachment().region().me(), 1);
    }

    /// It waits no more.
    pub(crate) fn cease_to_wait(&self) {
        if self.attachment().is_usable() {
            self.ring.permits().sub(self.attachment().region().me(), 1);
            settle(&self.entry, self.ring.permits());
        }
    }

    /// Notifies all who wait, and stores nothing.
    pub(crate) fn notify_all(&self) {
        if self.attachment().is_usable() {
            // Ordering: SeqCst, as in `notify_one`.
            self.entry.epoch.fetch_add(1, Ordering::SeqCst);
            wakers::letting_out(|| self.wants_close.wake_all());
        }
    }

    /// How often all were notified.
    pub(crate) fn epoch(&self) -> u64 {
        // Ordering: SeqCst, as above; acquires what the notifier did before.
        self.entry.epoch.load(Ordering::SeqCst)
    }

    /// A place among those who wait for a notification of all, and know of so many.
    pub(crate) fn wait_for_epoch(&self, known: u64) -> Waiter {
        self.listen_for_news(&self.wants_close, known)
    }

    /// A place among those who wait for a word to become another one than they know. Look at the word again before you
    /// sleep.
    pub(super) fn listen_for_news(&self, queue: &Arc<WaitQueue>, known: u64) -> Waiter {
        // Ordering: SeqCst: whoever is in the list from here on and knows something else looks at the word after we did, or
        // is woken by us.
        if self.known.swap(known, Ordering::SeqCst) != known {
            queue.notify_all_local();
        }
        queue.listen()
    }
}

impl Attachment {
    /// The counts of a channel went down, as somebody has died or left.
    pub(super) fn settle_signals(&self, index: usize) {
        if self.directory().kind(index) == Kind::Notify
            && let Some(ring) = self.ring_of(index)
        {
            settle(self.directory().entry(index), ring.permits());
        }
    }
}
