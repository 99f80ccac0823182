//! Who takes from which partition of a routed channel.
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
    ring::{Position, transfer::Received},
    segment::{layout::ChannelEntry, slot::Slot},
    sys::{
        shared::SharedSlice,
        sync::{AtomicU64, Ordering},
    },
};

/// A view of a head's slate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Routes(SharedSlice<Slot>);

/// What there is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// To take messages from a partition.
    Partition,
    /// To have a share of the partitions.
    Seat,
}

fn change(word: &AtomicU64, from: u64, to: u64) -> bool {
    // Ordering: SeqCst: who takes a partition sees all that was done by who had it before, and the epoch changes after it.
    word.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
}

impl Routes {
    /// How many partitions there are, and seats.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn word(&self, right: Right, number: usize) -> Option<&AtomicU64> {
        self.0.get(number).map(|slot| match right {
            Right::Partition => &slot.word,
            Right::Seat => &slot.count,
        })
    }

    /// Takes it, if nobody has it.
    pub(crate) fn take(&self, right: Right, number: usize, participant: u16) -> bool {
        self.word(right, number).is_some_and(|word| change(word, 0, u64::from(participant) + 1))
    }

    /// The participant has it no more.
    pub(crate) fn give(&self, right: Right, number: usize, participant: u16) -> bool {
        self.word(right, number).is_some_and(|word| change(word, u64::from(participant) + 1, 0))
    }

    /// How many partitions are for the receiver in a seat. The shares of all who sit make up all partitions, and none is
    /// empty.
    pub(crate) fn share(&self, seat: usize) -> usize {
        let taken = |number: &usize| {
            *number == seat || self.word(Right::Seat, *number).is_some_and(|word| word.load(Ordering::SeqCst) != 0)
        };
        let (before, all) = ((0..seat).filter(taken).count(), (0..self.len()).filter(taken).count());
        self.len() / all.max(1) + usize::from(before < self.len() % all.max(1))
    }
}

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
        self.attachment().slate_of(self.index()).map(Routes)
    }

    /// Of a partition.
    pub(crate) fn outlook(&self) -> Outlook {
        if !self.attachment().is_usable() || is_finished(&self.entry, &self.ring) {
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
            && (self.ring.front(position).is_some()
                || self.recall.as_ref().is_some_and(|recall| delivery::has_returned(&self.entry, recall.retry())))
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
            && self.ring_of(index).is_none_or(|ring| ring.front(&Position::new(ring.head_hint())).is_none())
    }

    /// What several dead have left, or one of several threads, may be in any order.
    fn sort_returned(&self, entry: &ChannelEntry, recall: &Recall) {
        if !delivery::has_returned(entry, recall.retry()) {
            return;
        }
        let mut last = 0;
        let mut sorted = !recall.has_overflowed();
        recall.retry().each_waiting(|id| {
            let sequence = self.allocator().promised(id).map_or(last, |(block, _)| self.trailer(block).sequence());
            sorted &= last <= sequence;
            last = sequence;
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
        taken.sort_by_key(|received| received.position);
        // Killed before all are back, this process has the rest, and its reaper puts it back: with one delivery too many.
        taken.into_iter().for_each(|received| self.put_back_unseen(received.block));
    }

    /// The participant has died, or left: what it had of a routed channel is to be had.
    pub(super) fn forget_routes(&self, index: usize, participant: u16) {
        let entry = self.directory().entry(index);
        // Without an end of it the head may be taken down while we look, and the slate with it.
        if self.directory().kind(index) != Kind::Routed || !End::Sender.has(entry, participant) {
            return;
        }
        let Some(routes) = self.slate_of(index).map(Routes) else { return };
        for number in 0..routes.len() {
            routes.give(Right::Partition, number, participant);
            routes.give(Right::Seat, number, participant);
        }
        // Ordering: SeqCst, as in `Port::notify_all`. Whoever buries wakes all afterwards.
        entry.epoch.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(partitions: usize) -> Routes {
        let slots = (0..partitions).map(|_| Slot { word: AtomicU64::new(0), count: AtomicU64::new(0) });
        Routes(SharedSlice::leak(slots.collect()))
    }

    #[test]
    fn shares_make_up_all_partitions_and_differ_by_one_at_most() {
        for partitions in [1, 2, 7, 16, 256] {
            let routes = routes(partitions);
            let mut seats = Vec::new();
            // Every third seat first, as if others had gone.
            for seat in (0..partitions).step_by(3).chain(0..partitions) {
                if routes.take(Right::Seat, seat, 5) {
                    seats.push(seat);
                    let shares: Vec<usize> = seats.iter().map(|seat| routes.share(*seat)).collect();
                    assert_eq!(shares.iter().sum::<usize>(), partitions, "{seats:?}");
                    let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
                    assert!(*least > 0 && most - least <= 1, "{seats:?}: {shares:?}");
                }
            }
            assert_eq!(seats.len(), partitions);
        }
    }

    #[test]
    fn what_somebody_has_nobody_else_gets_or_gives_back() {
        let routes = routes(2);
        assert!(routes.take(Right::Partition, 1, 3));
        assert!(!routes.take(Right::Partition, 1, 3) && !routes.take(Right::Partition, 1, 4));
        assert!(!routes.give(Right::Partition, 1, 4) && !routes.give(Right::Seat, 1, 3));
        assert!(routes.give(Right::Partition, 1, 3) && routes.take(Right::Partition, 1, 4));
        assert!(!routes.take(Right::Partition, 2, 3));
    }
}
