//! Channels with policies: levels of priority, times to live, and the oldest that give way.
//!
//! Their blocks have trailers, and travel as those of messages that come back ([`delivery`](super::delivery)): received, a message
//! is RECEIVED, and only when it is clear that somebody gets it is it acknowledged, or, where messages come back, left to the
//! user. So whoever is killed while it takes an expired message to the dead letters loses none: the reaper puts it back. A channel
//! without policies has nothing of this, and pays nothing.
//!
//! * **Levels.** One ring for each, with the channel's capacity each. A receiver takes of the highest that has any; but
//!   of [`TURNS`] receives of a process one looks first at one of the lower levels, each of them in its turn, and then from the
//!   lowest up. So nobody starves: while a message waits at the front of a level, a process receives at most
//!   `TURNS · (levels − 1) − 1` others. The turns are counted by the process, in memory of its own. **Permits** are had before the
//!   level is known: so they take room in all levels. They are the same count for all rings, raised before it is granted in
//!   each of them in turn by the same CAS as in a channel with one. A sender that waits for room may wait for that of one
//!   level only: so whoever makes room wakes all of them.
//! * **Time to live.** The trailer says when a message expires. Whoever would receive it then takes it away instead, and so
//!   does a sender that finds no room, from the front. If it sleeps by then, the watchdog's look wakes it.
//! * **The oldest give way.** The ring has room for so many as are to be kept, and a sender that finds no room takes the oldest out,
//!   as a receiver would.

use std::sync::atomic::Ordering;

use crate::{
    alloc::{
        Block,
        word::{State, Word},
    },
    attachment::{
        Attachment,
        delivery::{Fate, Recall},
        policies::{Counts, Marks},
        port::{Port, Refused},
    },
    region::layout::ChannelEntry,
    ring::{
        Position, Ring,
        transfer::{self, Received, Trailer},
    },
    sys::clock,
    wake,
};

/// How many receives of a process there are to one that looks at the lower levels first.
pub(crate) const TURNS: u64 = 16;
/// How often in a row there may be neither room nor a message that could go.
const LOOKS: u64 = 100;

impl Trailer {
    /// Whether nobody wants the message any more.
    pub(super) fn has_expired(&self) -> bool {
        let expiry = self.expiry();
        expiry != u64::MAX && clock::now() >= expiry
    }
}

impl Recall {
    /// Says at the end of a block in which channel it is about to travel, and how.
    pub(super) fn begin(&self, attachment: &Attachment, block: Block, marks: Marks) {
        let trailer = attachment.trailer(block);
        let expiry = match (marks.ttl, self.policies.ttl) {
            (0, 0) => u64::MAX,
            (0, ttl) | (ttl, _) => clock::now().saturating_add(ttl - 1),
        };
        trailer.begin(self.channel(), block.generation);
        trailer.stamp(marks.level, clock::ticks(), expiry);
    }

    /// The number that the next receive will have.
    pub(super) fn turn(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// All levels and where their receivers are, in the order in which a receive of that number looks at them.
    pub(super) fn in_turn<'a>(
        &'a self,
        turn: u64,
        lowest: (&'a Ring, &'a Position),
    ) -> impl Iterator<Item = (&'a Ring, &'a Position)> {
        let higher = self.levels.len();
        let level = move |number: usize| match number.checked_sub(1) {
            None => lowest,
            Some(above) => (&self.levels[above].ring, &self.levels[above].receiving),
        };
        let favoured = (turn % TURNS == TURNS - 1 && higher > 0).then(|| (turn / TURNS % higher as u64) as usize);
        // Twice the favoured one, which costs a look.
        let upwards = favoured.is_some();
        let rest = (0..=higher).map(move |number| if upwards { number } else { higher - number });
        favoured.into_iter().chain(rest).map(level)
    }

    /// The ring for a message of that level, and where senders are.
    pub(super) fn way<'a>(&'a self, level: u8, lowest: (&'a Ring, &'a Position)) -> (&'a Ring, &'a Position) {
        match usize::from(level).checked_sub(1).and_then(|above| self.levels.get(above)) {
            None => lowest,
            Some(level) => (&level.ring, &level.sending),
        }
    }

    /// The rings of all levels.
    pub(crate) fn rings(&self, lowest: &Ring) -> Vec<Ring> {
        std::iter::once(*lowest).chain(self.levels.iter().map(|level| level.ring)).collect()
    }
}

/// Whether the front of one of the rings has expired: then there is room for who takes it away.
pub(super) fn has_expired_in_front(attachment: &Attachment, rings: &[Ring]) -> bool {
    rings.iter().any(|ring| {
        ring.front(&Position::new(ring.head_hint())).is_some_and(|front| {
            let block = attachment.allocator().promised(front.block());
            // If somebody else has taken it, that may have been the trailer of something else.
            block.is_some_and(|(block, _)| attachment.trailer(block).has_expired()) && ring.is_front(front)
        })
    })
}

impl Port {
    /// Receives the next message that somebody wants still.
    pub(super) fn take_policed(&self, position: &Position, recall: &Recall) -> Option<Received> {
        let attachment = &**self.attachment();
        loop {
            let (received, expired) = attachment.with_worker(|worker| {
                let damaged = || self.count_invalid();
                let received = attachment.receive_recallable(&self.ring, recall, position, &worker.lane, damaged)?;
                let expired = recall.policies.may_expire() && attachment.trailer(received.block).has_expired();
                if !expired && !recall.comes_back {
                    attachment.allocator().set_allocated(worker.lane.id(), received.block);
                }
                Some((received, expired))
            })?;
            self.has_received_policed();
            if expired {
                attachment.expire(recall, self.index(), received.block);
                continue;
            }
            if !recall.comes_back {
                attachment.was_acknowledged(self.index());
            }
            return Some(received);
        }
    }

    /// What is to be done after messages were put in, if anybody waits.
    pub(super) fn has_sent_policed(&self) {
        if !self.is_levelled() {
            wake::success(&self.wants_room, &self.wants_message, || self.wants_room.has_work());
        } else if self.wants_message.parked() {
            // Who waits for room was told when it was made.
            self.wants_message.wake_one();
        }
    }

    /// What is to be done after a message was taken, if anybody waits.
    fn has_received_policed(&self) {
        self.meters().wakes(|| self.wants_room.parked());
        if !self.is_levelled() {
            return wake::success(&self.wants_message, &self.wants_room, || self.wants_message.has_work());
        }
        self.wake_for_room();
        if self.wants_message.parked() {
            self.wants_message.wake_one_if_work();
        }
    }

    /// Takes the front of a ring, if it is `wanted`. It is RECEIVED then.
    fn take_front(
        &self,
        ring: &Ring,
        position: &Position,
        came_back: bool,
        wanted: impl Fn(&Trailer) -> bool,
    ) -> Option<Received> {
        let attachment = self.attachment();
        attachment.with_worker(|worker| {
            let trailer = |block| attachment.trailer(block);
            let (allocator, damaged) = (attachment.allocator(), || self.count_invalid());
            let (lane, until) = (&worker.lane, u64::MAX);
            transfer::receive_promised(allocator, ring, position, lane, came_back, until, trailer, wanted, damaged)
        })
    }

    /// Receives the oldest message of a level: of those that take up room, not one that came back.
    pub(super) fn displace_policed(&self, recall: &Recall, level: u8) -> Option<Received> {
        let anywhere = Position::new(0);
        let (ring, _) = recall.way(level, (&self.ring, &anywhere));
        let received = self.take_front(ring, &Position::new(ring.head_hint()), false, |_| true)?;
        if !recall.comes_back {
            let attachment = self.attachment();
            attachment.with_worker(|worker| attachment.allocator().set_allocated(worker.lane.id(), received.block));
            attachment.was_acknowledged(self.index());
        }
        self.has_received_policed();
        Some(received)
    }

    /// Whether there is somebody to send to, and room, or what is in the way may go.
    #[inline]
    pub(super) fn may_send_policed(&self, recall: &Recall, position: &Position, marks: Marks) -> Result<(), Refused> {
        if self.is_closed_for_senders() {
            return Err(Refused::Closed);
        }
        let (ring, sending) = recall.way(marks.level, (&self.ring, position));
        let made = || self.make_room(recall, ring, sending, 1);
        if made() || self.passes_over() && made() { Ok(()) } else { Err(Refused::Full) }
    }

    /// How often to try again when others have taken the room that was made.
    pub(super) fn looks_for_room(&self) -> u64 {
        self.recall.as_ref().filter(|recall| recall.policies.keep > 0).map_or(0, |_| LOOKS)
    }

    /// Makes room in all levels for permits of so many messages, where something may go; `false` if there was none in one of them.
    pub(super) fn make_room_for_permits(&self, recall: &Recall, position: &Position, permits: u32) -> bool {
        let permits = u64::from(permits);
        let lowest = self.make_room(recall, &self.ring, position, permits);
        lowest && recall.levels.iter().all(|level| self.make_room(recall, &level.ring, &level.sending, permits))
    }

    /// Takes away what has expired at the front, and the oldest, if they give way, until there is room for so many messages.
    /// `false` if there was none in the end; what there was others may have by now.
    fn make_room(&self, recall: &Recall, ring: &Ring, sending: &Position, messages: u64) -> bool {
        let gives_way = recall.policies.keep > 0;
        // If that is not enough, others are quicker all the time, or permits have the room.
        for _ in 0..messages + LOOKS {
            if ring.is_writable(sending, messages) {
                return true;
            }
            if !gives_way && !recall.policies.may_expire() {
                break;
            }
            let front = Position::new(ring.head_hint());
            let Some(received) = self.take_front(ring, &front, false, |trailer| gives_way || trailer.has_expired())
            else {
                if gives_way { continue } else { return false }
            };
            self.take_away(recall, received.block);
            self.wake_for_room();
        }
        false
    }

    /// What was received is for nobody.
    fn take_away(&self, recall: &Recall, block: Block) {
        let attachment = self.attachment();
        if attachment.trailer(block).has_expired() {
            attachment.expire(recall, self.index(), block);
        } else {
            attachment.acknowledge(block, Some(self.index()));
            // Ordering: Relaxed, it is a statistic.
            recall.losses.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes away what has expired at the front of all rings.
    pub(super) fn sweep(&self, recall: &Recall) {
        if !recall.policies.may_expire() {
            return;
        }
        let rings = recall.rings(&self.ring);
        for (ring, came_back) in rings.iter().map(|ring| (ring, false)).chain([(recall.retry(), true)]) {
            let front = Position::new(ring.head_hint());
            while let Some(received) = self.take_front(ring, &front, came_back, Trailer::has_expired) {
                self.take_away(recall, received.block);
                self.has_received_policed();
            }
        }
    }

    /// What policies have done so far.
    pub(crate) fn counts(&self) -> Counts {
        counts_of(self.recall.as_ref(), &self.entry)
    }
}

impl Attachment {
    /// A message that this process has received was wanted until a time that is over: it becomes a dead letter, or is freed.
    fn expire(&self, recall: &Recall, index: usize, block: Block) {
        let fate = self.with_worker(|worker| {
            let word = self.allocator().word_of(block.id).map(|(_, word)| word);
            let is_ours = |word: &Word| {
                (word.state(), word.len(), word.generation()) == (State::Received, block.len, block.generation)
            };
            word.filter(is_ours).map(|word| self.put_away(recall, index, &worker.lane, block.id, word, false))
        });
        // Outside of the lane: this wakes tasks.
        match fate {
            Some(Fate::Letter | Fate::Freed) => {
                // Ordering: Relaxed, it is a statistic.
                recall.losses.expired.fetch_add(1, Ordering::Relaxed);
            }
            Some(Fate::Waits | Fate::Changed) | None => {}
        }
        if fate == Some(Fate::Freed) {
            self.memory_was_freed();
        }
        self.wake_for(index);
    }
}

/// What policies have done in a channel so far.
pub(crate) fn counts_of(recall: Option<&Recall>, entry: &ChannelEntry) -> Counts {
    let discarded = entry.discarded.load(Ordering::Relaxed);
    let Some(Recall { losses, .. }) = recall else { return Counts { discarded, ..Counts::default() } };
    Counts {
        expired: losses.expired.load(Ordering::Relaxed),
        dropped: losses.dropped.load(Ordering::Relaxed),
        dead_letters: losses.dead_letters.load(Ordering::Relaxed),
        discarded,
    }
}
