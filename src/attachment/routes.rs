//! Who takes from which partition of a routed channel: the process's side of [`Routes`].
//!
//! The head of a routed channel is an entry of its own kind. Its capacity is the number of partitions, and it has a slate
//! with a slot for each:
//!
//! | word | writer | meaning |
//! |---|---|---|
//! | `word` of slot `p` | whoever takes it, by CAS from 0; then that participant, or its reaper, by CAS to 0 | 1 + the participant that alone may take messages from partition `p`; 0: nobody |
//! | `count` of slot `s` | the same | 1 + the participant of the receiver that sits in seat `s`; 0: none |
//! | `epoch` of the entry | whoever has changed one of those, or has closed the channel, or left it | how often that happened |
//!
//! Nothing is ever taken from anybody who lives. From the dead it is taken **last**, when all that they had received has
//! come back (see [`recovery`](super::recovery)): whoever has a partition next finds what came back before it finds what
//! is new.
//!
//! Receivers that sit are numbered by their seats, which tells each how many partitions are its own. They wait for `epoch` to
//! become another one, as those who wait for a notification of all do.

use crate::{
    attachment::{
        Attachment,
        delivery::{self, Recall},
        directory::{self, CLOSED, End, HAD_SENDER, Kind, SENDERS_GONE},
        port::{Port, is_finished},
    },
    ring::{
        Position,
        routes::{Right, Routes},
        transfer::Received,
    },
    segment::layout::ChannelEntry,
    sys::sync::Ordering,
};

/// What is to be expected of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// No sender has come yet.
    New,
    /// There is a sender.
    Open,
    /// Nobody can send any more.
    Over,
}

impl Port {
    /// Of a head: who has what.
    pub(crate) fn routes(&self) -> Option<Routes> {
        self.attachment().slate_of(self.index()).map(Routes::new)
    }

    /// Of a partition.
    pub(crate) fn outlook(&self) -> Outlook {
        if !self.attachment().is_usable() {
            Outlook::Over
        } else if is_finished(&self.entry, &self.ring) {
            // What was sent before that is seen by who looks from now on.
            self.seal();
            Outlook::Over
        } else if directory::state(&self.entry).has(HAD_SENDER | CLOSED) {
            Outlook::Open
        } else {
            Outlook::New
        }
    }

    /// Whether the channel was closed, not left.
    pub(crate) fn was_closed(&self) -> bool {
        self.attachment().is_usable() && directory::state(&self.entry).has(CLOSED)
    }

    /// Whether a message waits, for whoever stands at `position`.
    pub(crate) fn has_message(&self, position: &Position) -> bool {
        self.attachment().is_usable()
            && (self.ring.front(position).is_some() || self.recall.as_ref().is_some_and(Recall::has_message))
    }

    /// Whether another process has messages of the channel that may come back.
    pub(crate) fn may_come_back(&self) -> bool {
        self.recall.as_ref().is_some_and(|recall| self.attachment().is_held_by_others(recall.channel()))
    }

    /// Puts what came back into the order in which it was sent. Nobody else may receive meanwhile.
    pub(crate) fn sort_returned(&self) {
        if let Some(recall) = self.recall.as_ref().filter(|_| self.attachment().is_usable()) {
            self.attachment().sort_returned(&self.entry, recall);
        }
    }
}

impl Attachment {
    /// Whether nobody can send into a partition any more, and nothing new waits there. If the partition is not there any more,
    /// nobody minds what this says.
    pub(crate) fn is_drained(&self, index: usize) -> bool {
        directory::state(self.directory().entry(index)).has(SENDERS_GONE | CLOSED)
            && self.pin(index, |_| true).is_none_or(|pin| {
                let (ring, recall) = (self.ring_of(pin.index()), self.recall_of(pin.index()));
                ring.is_none_or(|ring| !ring.is_filled_now()) && recall.is_none_or(|recall| !recall.has_new())
            })
    }

    /// What several dead have left, or one of several threads, may be in any order.
    fn sort_returned(&self, entry: &ChannelEntry, recall: &Recall) {
        if !delivery::has_returned(entry, recall.retry()) {
            return;
        }
        // By levels, and in each by their numbers.
        let mut last = (0, 0);
        let mut sorted = !recall.has_overflowed();
        recall.retry().each_waiting(|id| {
            let rank = self.allocator().promised(id).map_or(last, |(block, _)| self.trailer(block).rank());
            sorted &= last <= rank;
            last = rank;
        });
        if sorted {
            return;
        }
        let mut taken: Vec<Received> = Vec::new();
        self.with_worker(|worker| {
            while let Some(received) = self.receive_returned(recall, &worker.lane, || {}) {
                taken.push(received);
            }
        });
        taken.sort_by_key(|received| self.trailer(received.block).rank());
        // Killed before all are back, this process has the rest, and its reaper puts it back: with one delivery too many.
        taken.into_iter().for_each(|received| self.put_back_unseen(received.block));
    }

    /// The participant has died, or left: what it had of a routed channel is to be had. The caller has a pin.
    pub(super) fn forget_routes(&self, index: usize, participant: u16) {
        let entry = self.directory().entry(index);
        if self.directory().kind(index) != Kind::Routed || !End::Sender.has(entry, participant) {
            return;
        }
        let Some(routes) = self.slate_of(index).map(Routes::new) else { return };
        for number in 0..routes.len() {
            routes.give(Right::Partition, number, participant);
            routes.give(Right::Seat, number, participant);
        }
        // Ordering: SeqCst, as in `Port::notify_all`. Whoever buries wakes all afterwards.
        entry.epoch.fetch_add(1, Ordering::SeqCst);
    }
}
