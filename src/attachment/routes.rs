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
//!
//! # One life
//!
//! The partitions are entered, left and closed one after the other. So who opens may find some in one life and the others in the
//! next, if somebody closes and leaves meanwhile; and who dies of it may have been in some of them only. All are closed, or none:
//!
//! * **R1** Who has entered all of them looks at all. If one is CLOSED, it closes the rest. If of one all ends of a kind have gone,
//!   and into others none has ever come, it says of those that they have gone, too ([`Attachment::unite`]). Who closes begins
//!   with the first one, as does who closes the rest.
//! * **R2** Who is refused in the middle leaves what it has entered, and does the same to what is there.
//! * **R3** So does who buries anybody, when the ends of the dead are gone: it pins what is there first. As long as it has that pin,
//!   whoever enters that partition enters that life, and sees that it is CLOSED; and what is not there yet is seen to by
//!   who makes it (R1).
//! * **R4** The head is made persistent before the partitions, when all are there; who has entered all of them, and finds the head
//!   persistent, makes the partitions persistent; so does who buries, while the dead have their ends still.
//!
//! * **R5** Who leaves pins all partitions, leaves all, and only then unpins ([`Port::pin_together`]). So nobody finds one of them in
//!   a new life before it can see of each of the others that the ends have gone from it.
//!
//! Why that is enough: somebody who has all of them, and has looked, keeps them all in one life. Whatever becomes of one of them from
//! then on is done by somebody who has them all, too (then they are the same), or has died of it (R3). Without R5 it was not: an
//! opener found the first partitions in a new life and a receiver in the last ones, where it was only about to leave. The
//! opener's look saw nothing, and the receiver had no more to look with. `docs/models/routes.py` is the model.

use crate::{
    attachment::{
        Attachment,
        delivery::{self, Recall},
        directory::{self, CLOSED, End, EntryState, HAD_SENDER, Kind, PERSISTENT, Phase, SENDERS_GONE},
        ends::Pin,
        port::{Port, is_finished},
    },
    region::layout::ChannelEntry,
    ring::{
        Position,
        routes::{Right, Routes},
        transfer::Received,
    },
    sys::sync::Ordering,
    wake::Direction,
};

/// Pins of all partitions, which stay what they are meanwhile. To be dropped like a pin.
#[must_use = "the partitions stay together for as long as this lives"]
pub(crate) struct Together<'a>(Vec<Pin<'a>>);

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

    /// Of a head: the caller has entered all partitions, which are of one life from now on. See the module.
    pub(crate) fn unite(&self, partitions: &[&Port]) {
        let attachment = self.attachment();
        if !attachment.is_usable() {
            return;
        }
        if directory::state(&self.entry).has(PERSISTENT) {
            partitions
                .iter()
                .filter(|port| !directory::state(&port.entry).has(PERSISTENT))
                .for_each(|port| port.persist());
        }
        let states: Vec<EntryState> = partitions.iter().map(|port| directory::state(&port.entry)).collect();
        if is_of_one_life(&states) {
            return;
        }
        let pins = self.pin_together(partitions.iter().map(|port| port.index()));
        attachment.unite(&pins.0);
        drop(pins);
        self.notify_all();
    }

    /// Of a head: pins partitions that the caller has ends of.
    pub(crate) fn pin_together(&self, partitions: impl Iterator<Item = usize>) -> Together<'_> {
        let attachment = self.attachment();
        let usable = partitions.take_while(|_| attachment.is_usable());
        Together(usable.map(|index| attachment.pin_own(index)).collect())
    }

    /// Of a head: the caller has entered some partitions, and left them again.
    pub(crate) fn unite_those_there(&self) {
        if self.attachment().is_usable() && self.attachment().unite_partitions_of(self.index()) {
            self.notify_all();
        }
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

/// Whether all partitions are closed, or none; and the same for the ends of each kind that came and have gone.
fn is_of_one_life(states: &[EntryState]) -> bool {
    let any = |is: &dyn Fn(&EntryState) -> bool| states.iter().any(is);
    let some_are_closed = any(&|state| state.has(CLOSED)) && any(&|state| !state.has(CLOSED));
    !some_are_closed
        && [End::Sender, End::Receiver]
            .into_iter()
            .all(|end| !any(&|state| state.has(end.gone())) || !any(&|state| !state.has(end.had() | PERSISTENT)))
}

impl Attachment {
    /// Partitions that the caller has pinned, in their order, are of one life from now on. `true`: something was done to that end.
    fn unite(&self, partitions: &[Pin<'_>]) -> bool {
        let is_any =
            |flag| partitions.iter().any(|pin| directory::state(self.directory().entry(pin.index())).has(flag));
        let mut changed: Vec<usize> = Vec::new();
        if is_any(CLOSED) {
            for index in partitions.iter().map(Pin::index) {
                if !directory::state(self.directory().entry(index)).has(CLOSED) {
                    self.directory().set_flags(index, CLOSED);
                    self.seal_rings(index);
                    changed.push(index);
                }
            }
        }
        for end in [End::Sender, End::Receiver] {
            if is_any(end.gone()) {
                let passed_over = |index: &usize| self.directory().pass_over(*index, end, end == End::Receiver);
                changed.extend(partitions.iter().map(Pin::index).filter(passed_over));
            }
        }
        for index in &changed {
            self.wake_all(*index, &[Direction::Receive, Direction::Send, Direction::Closed]);
        }
        !changed.is_empty()
    }

    fn seal_rings(&self, index: usize) {
        let Some(ring) = self.ring_of(index) else { return };
        let rings = self.recall_of(index).map_or_else(|| vec![ring], |recall| recall.rings(&ring));
        for ring in rings {
            ring.seal();
        }
    }

    /// Pins what is there of the partitions of a head that the caller has an end of, or a pin.
    fn partitions_of(&self, head: usize) -> Vec<Pin<'_>> {
        let prefix = format!("{}#", self.directory().read(head).name);
        let partition_at = |index: usize| -> Option<usize> {
            let is_channel = self.directory().kind(index) == Kind::Channel;
            self.directory().read(index).name.strip_prefix(&prefix)?.parse().ok().filter(|_| is_channel)
        };
        let mut partitions: Vec<(usize, Pin<'_>)> = Vec::new();
        for index in 0..self.directory().len() {
            if directory::state(self.directory().entry(index)).phase() != Phase::Live {
                continue;
            }
            if let Some(partition) = partition_at(index)
                && let Some(pin) = self.pin(index, |_| partition_at(index) == Some(partition))
            {
                partitions.push((partition, pin));
            }
        }
        partitions.sort_by_key(|(partition, _)| *partition);
        partitions.into_iter().map(|(_, pin)| pin).collect()
    }

    fn unite_partitions_of(&self, head: usize) -> bool {
        self.unite(&self.partitions_of(head))
    }

    /// Somebody has died, who may have been opening or closing routed channels, and has no ends any more. The caller wakes all.
    pub(super) fn unite_all(&self) {
        for index in 0..self.directory().len() {
            if let Some(head) = self.pin(index, |_| self.directory().kind(index) == Kind::Routed)
                && self.unite_partitions_of(head.index())
            {
                // Ordering: as in `forget_routes`.
                self.directory().entry(head.index()).epoch.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    /// Somebody has died, who may have made a head persistent and not yet all of its partitions. It has its ends still.
    pub(super) fn persist_partitions(&self) {
        let is_persistent = |index: usize| directory::state(self.directory().entry(index)).has(PERSISTENT);
        for index in 0..self.directory().len() {
            let Some(head) = self.pin(index, |_| self.directory().kind(index) == Kind::Routed && is_persistent(index))
            else {
                continue;
            };
            for partition in self.partitions_of(head.index()) {
                if !is_persistent(partition.index()) {
                    self.persist(partition.index());
                }
            }
        }
    }

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
