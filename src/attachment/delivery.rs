//! Messages that come back: channels that deliver at least once. What they have, channels with [policies](super::policed) have, too.
//!
//! A message of such a channel that was received and is not acknowledged has a word that says so (RECEIVED), and at the end of
//! its block a [`Trailer`] with its channel and its number of deliveries. So whoever buries the receiver knows it, and puts
//! it into the channel's **retry ring**, at which receivers look first. The retry ring stands behind the cells and the permits of
//! the channel's ring, and has as many cells. If it is full (more messages came back than the channel has cells), the
//! word of the block says RETURNED, and the entry's `overflow` that there are such blocks: a receiver that finds the
//! retry ring empty looks for them, through all words of the segment.
//!
//! Whoever puts a message back must be sure that the channel stays while it does: it **pins** it ([`ends`](super::ends)). If no
//! receiver is there by then, the message is drained when it unpins.
//!
//! `docs/models/ring.py` (`mode=alo`) is the model.

use crate::{
    alloc::{
        Block,
        word::{State, Word},
    },
    attachment::{
        Attachment,
        directory::{self, CLOSED, Phase, SENDERS_GONE, Shape},
        ends::Pin,
        policies::Policies,
    },
    region::{
        lanes::{BlockId, Intent, Lane, LaneId},
        layout::ChannelEntry,
    },
    ring::{
        Position, Ring,
        transfer::{self, Back, Put, Received, TRAILER, Trailer},
    },
    sys::{
        shared::SharedRef,
        sync::{AtomicU64, Ordering},
    },
    wake::Direction,
};

/// What a channel has whose messages come back, or that has [policies](super::policed).
#[derive(Debug)]
pub(crate) struct Recall {
    pub(super) entry: SharedRef<ChannelEntry>,
    retry: Ring,
    /// Where its receivers are in the retry ring, all of this process.
    position: Position,
    /// The word that names the channel's ring.
    channel: u64,
    /// The levels above the lowest, which is the channel's ring.
    pub(super) levels: Vec<Level>,
    /// Receives of this process, of messages that did not come back.
    pub(super) turns: AtomicU64,
    pub(super) losses: SharedRef<Losses>,
    pub(super) policies: Policies,
    /// Whether messages come back: else they are acknowledged as soon as they are received.
    pub(super) comes_back: bool,
}

/// A level of priority above the lowest, and where this process is in it.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) ring: Ring,
    pub(super) sending: Position,
    pub(super) receiving: Position,
}

impl Level {
    pub(super) fn new(ring: Ring) -> Self {
        Self { ring, sending: Position::new(ring.tail_hint()), receiving: Position::new(ring.head_hint()) }
    }
}

/// How many messages of a channel came to which end that is no receiver.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct Losses {
    /// Their time to live was over.
    pub(super) expired: AtomicU64,
    /// They were the oldest, and had to give way.
    pub(super) dropped: AtomicU64,
    /// They are among the dead letters.
    pub(super) dead_letters: AtomicU64,
    _rest: [AtomicU64; 5],
}

impl Recall {
    pub(super) fn new(
        entry: SharedRef<ChannelEntry>,
        retry: Ring,
        levels: Vec<Level>,
        losses: SharedRef<Losses>,
        shape: &Shape,
    ) -> Self {
        // Ordering: Acquire, as the directory reads it.
        let channel = entry.ring.load(Ordering::Acquire);
        Self {
            entry,
            retry,
            position: Position::new(retry.head_hint()),
            channel,
            levels,
            turns: AtomicU64::new(0),
            losses,
            policies: shape.policies,
            comes_back: shape.deliveries > 0,
        }
    }

    /// Prepares all that is new. Nobody else may look yet.
    pub(super) fn format(&self, first_position: u64) {
        self.retry.format(0);
        self.levels.iter().for_each(|level| level.ring.format(first_position));
        // Ordering: Relaxed: publication of the channel orders all of it.
        for count in [&self.losses.expired, &self.losses.dropped, &self.losses.dead_letters] {
            count.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn retry(&self) -> &Ring {
        &self.retry
    }

    /// The word that names the channel's ring.
    pub(super) fn channel(&self) -> u64 {
        self.channel
    }

    /// Whether some of its messages are in no ring.
    pub(super) fn has_overflowed(&self) -> bool {
        overflowed(&self.entry)
    }

    /// Whether a message waits above the lowest level that has not come back.
    pub(super) fn has_new(&self) -> bool {
        self.levels.iter().any(|level| level.ring.front(&level.receiving).is_some())
    }

    /// Whether a receiver would find a message, besides those of the lowest level.
    pub(super) fn has_message(&self) -> bool {
        has_returned(&self.entry, &self.retry) || self.has_new()
    }

    /// Whether messages wait, besides those of the lowest level.
    pub(super) fn has_any(&self) -> bool {
        has_returned(&self.entry, &self.retry) || self.levels.iter().any(|level| level.ring.is_filled_now())
    }

    /// Calls `each` with the blocks of all its rings but the first.
    pub(super) fn blocks(&self, mut each: impl FnMut(BlockId)) {
        self.retry.blocks(&mut each);
        self.levels.iter().for_each(|level| level.ring.blocks(&mut each));
    }

    pub(super) fn position(&self) -> &Position {
        &self.position
    }
}

/// Whether messages wait that came back.
pub(super) fn has_returned(entry: &ChannelEntry, retry: &Ring) -> bool {
    overflowed(entry) || retry.is_filled_now()
}

fn overflowed(entry: &ChannelEntry) -> bool {
    // Ordering: SeqCst: a receiver that parks looks here again, see `notify`.
    entry.overflow.load(Ordering::SeqCst) & 1 == 1
}

fn set_overflow(entry: &ChannelEntry) {
    // Ordering: SeqCst: after the word that says RETURNED, before the look at who waits. It never fails.
    let _ =
        entry.overflow.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |overflow| Some(overflow.wrapping_add(2) | 1));
}

/// What became of a message that was to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its word has changed: nothing has happened.
    Changed,
    /// It is gone: there is no such channel, or it was its last delivery.
    Freed,
    /// It waits in its channel.
    Waits,
    /// It is a dead letter.
    Letter,
}

impl Attachment {
    /// The end of a block that travels in a channel whose messages come back.
    pub(super) fn trailer(&self, block: Block) -> &Trailer {
        let at = self.allocator().bytes_of(block) - TRAILER;
        // SAFETY: within the block (at least one granule, which is longer), aligned as the granule is, mapped as long as we live.
        // It is made of atomics, of which any bits are a value.
        unsafe { self.data(block).add(at).cast::<Trailer>().as_ref() }
    }

    /// Receives the next message: of those that came back, or else of the others, by their levels.
    pub(super) fn receive_recallable(
        &self,
        ring: &Ring,
        recall: &Recall,
        private: &Position,
        lane: &Lane,
        damaged: impl Fn(),
    ) -> Option<Received> {
        self.receive_returned(recall, lane, &damaged).or_else(|| {
            let receive = |(ring, private)| self.receive_from(ring, private, lane, false, &damaged);
            if recall.levels.is_empty() {
                return receive((ring, private));
            }
            // Ordering: Relaxed, any order is fair.
            let turn = recall.turns.fetch_add(1, Ordering::Relaxed);
            recall.in_turn(turn, (ring, private)).find_map(receive)
        })
    }

    /// Receives the first message of those that came back.
    pub(super) fn receive_returned(&self, recall: &Recall, lane: &Lane, damaged: impl Fn()) -> Option<Received> {
        let receive = || self.receive_from(&recall.retry, &recall.position, lane, true, &damaged);
        receive().or_else(|| {
            if !overflowed(&recall.entry) {
                return None;
            }
            self.refill(recall, lane);
            receive()
        })
    }

    fn receive_from(
        &self,
        ring: &Ring,
        private: &Position,
        lane: &Lane,
        came_back: bool,
        damaged: impl Fn(),
    ) -> Option<Received> {
        let trailer = |block| self.trailer(block);
        transfer::receive_promised(
            self.allocator(),
            ring,
            private,
            lane,
            came_back,
            u64::MAX,
            trailer,
            |_| true,
            damaged,
        )
    }

    /// Receives the first message of one of the rings, if it stands before a position.
    pub(super) fn receive_before(
        &self,
        ring: &Ring,
        private: &Position,
        lane: &Lane,
        came_back: bool,
        until: u64,
    ) -> Option<Received> {
        let trailer = |block| self.trailer(block);
        transfer::receive_promised(self.allocator(), ring, private, lane, came_back, until, trailer, |_| true, || {})
    }

    /// The blocks of a channel for which the retry ring had no room, oldest first.
    pub(super) fn returned(&self, channel: u64) -> Vec<(BlockId, Word)> {
        let returned = self.allocator().heads().filter(|(_, word)| word.state() == State::Returned);
        let mut returned: Vec<_> = returned
            .map(|(id, word)| (self.trailer(Block { id, len: word.len(), generation: word.generation() }), id, word))
            .filter(|(trailer, _, _)| trailer.channel() == channel)
            .map(|(trailer, id, word)| (trailer.rank(), id, word))
            .collect();
        returned.sort_by_key(|(rank, _, _)| *rank);
        returned.into_iter().map(|(_, id, word)| (id, word)).collect()
    }

    /// Moves blocks that say RETURNED into the retry ring, as many as there is room for.
    #[cold]
    pub(super) fn refill(&self, recall: &Recall, lane: &Lane) {
        let seen = recall.entry.overflow.load(Ordering::SeqCst);
        let private = Position::new(recall.retry.tail_hint());
        let mut all = true;
        for (id, word) in self.returned(recall.channel) {
            let mut full = false;
            let place = Back { ring: &recall.retry, private: &private, state: State::Promised };
            // Somebody else may do the same: then the word has changed.
            let Some(word) = self.take_returned(recall, lane, id, word) else {
                all = false;
                continue;
            };
            let put = transfer::put_back(self.allocator(), lane, id, word, &[place], || {
                set_overflow(&recall.entry);
                full = true;
            });
            if full {
                return;
            }
            all &= put != Put::Changed;
        }
        if !all {
            // Whoever has it may die of it. So it is for somebody who finds none to say that there are none.
            return;
        }
        // Ordering: SeqCst. It fails if another has become RETURNED since we began to look.
        let _ = recall.entry.overflow.compare_exchange(seen, seen & !1, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Makes the word of a block that says RETURNED the lane's own, if the block is of that channel; returns it.
    fn take_returned(&self, recall: &Recall, lane: &Lane, id: BlockId, word: Word) -> Option<Word> {
        let block = Block { id, len: word.len(), generation: word.generation() };
        let is_of_channel = || self.trailer(block).channel() == recall.channel;
        transfer::take_returned(self.allocator(), lane, id, word, is_of_channel)
    }

    /// The blocks for which the retry ring had no room, if there are any, and what the entry said of them before that look.
    pub(super) fn returned_now(&self, recall: &Recall) -> (u64, Vec<(BlockId, Word)>) {
        let seen = recall.entry.overflow.load(Ordering::SeqCst);
        (seen, if seen & 1 == 1 { self.returned(recall.channel) } else { Vec::new() })
    }

    /// Frees blocks that said RETURNED, as far as they do so still. How many.
    pub(super) fn free_returned(&self, recall: &Recall, (seen, returned): (u64, Vec<(BlockId, Word)>)) -> usize {
        let freed = self.with_worker(|worker| {
            let seize = |(id, word): &(BlockId, Word)| {
                let Some((sector, _)) = self.allocator().word_of(*id) else { return false };
                self.take_returned(recall, &worker.lane, *id, *word)
                    .is_some_and(|word| self.seize(sector, &worker.lane, id.granule(), word))
            };
            returned.iter().filter(|returned| seize(returned)).count()
        });
        // As in `refill`: whoever was quicker may die of it, and what it has must be found then.
        if freed == returned.len() {
            // Ordering: SeqCst. It fails if another has become RETURNED since we looked.
            let _ = recall.entry.overflow.compare_exchange(seen, seen & !1, Ordering::SeqCst, Ordering::SeqCst);
        }
        if freed > 0 {
            self.memory_was_freed();
        }
        freed
    }

    /// The message is done with. `index` is its channel, if receivers may wait there for that.
    pub(super) fn acknowledge(&self, block: Block, index: Option<usize>) {
        if !self.is_usable() {
            return;
        }
        let is_ours = self.with_worker(|worker| {
            // Not if somebody has written here who must not.
            let word = self.allocator().word_of(block.id).map(|(_, word)| word);
            let is_ours = word.is_some_and(|word| {
                (word.state(), word.len(), word.generation()) == (State::Received, block.len, block.generation)
            });
            if is_ours {
                self.allocator().set_allocated(worker.lane.id(), block);
            }
            is_ours
        });
        if is_ours {
            self.free(block);
        }
        if let Some(index) = index {
            self.was_acknowledged(index);
        }
    }

    /// Wakes who waits for nobody to have messages of a channel any more.
    pub(super) fn was_acknowledged(&self, index: usize) {
        // The channel may have gone, and its entry be another's: then somebody looks in vain. Who waits has made all processes
        // pass a fence between parking and looking at our word, see `Port::wait_for_message`.
        if directory::state(self.directory().entry(index)).has(SENDERS_GONE | CLOSED)
            && self.parked(index, Direction::Receive).any()
        {
            self.wake_all(index, &[Direction::Receive]);
        }
    }

    /// Whether another participant has messages of the channel in its hands, or is taking one or putting one back.
    ///
    /// A message's block stays where it is from the send to the acknowledgement, and its word has one of these states all
    /// the time, so a pass through all words misses none that is there throughout.
    pub(super) fn is_held_by_others(&self, channel: u64) -> bool {
        let me = self.region().me();
        self.allocator().heads().any(|(id, word)| {
            let state = word.state();
            matches!(state, State::Received | State::Promised | State::Returned)
                && self.allocator().is_whole(id, word)
                && !(state == State::Received && self.region().lanes().owner(word.lane()) == Some(me))
                && self.trailer(Block { id, len: word.len(), generation: word.generation() }).channel() == channel
        })
    }

    /// The message goes back to where it came from.
    #[cold]
    pub(crate) fn give_back(&self, block: Block) {
        self.return_block(block, true);
    }

    /// The same for one that nobody has seen: that counts as no delivery.
    pub(super) fn put_back_unseen(&self, block: Block) {
        self.return_block(block, false);
    }

    fn return_block(&self, block: Block, in_vain: bool) {
        if !self.is_usable() {
            return;
        }
        let mut debts = Vec::new();
        let (fate, index) = self.with_worker(|worker| {
            let Some((_, word)) = self.allocator().word_of(block.id) else { return (Fate::Changed, None) };
            if (word.state(), word.len(), word.generation()) != (State::Received, block.len, block.generation) {
                return (Fate::Changed, None);
            }
            self.put_back(&worker.lane, block.id, word, in_vain, None, &mut debts)
        });
        // Out of the lane: this wakes tasks. Who puts back what it has not looked at is about to take it.
        if let Some(index) = index.filter(|_| in_vain) {
            self.wake_for(index);
        }
        drop(debts);
        if fate == Fate::Freed {
            self.memory_was_freed();
        }
    }

    /// Wakes who waits for messages of a channel, and of its dead letters.
    pub(super) fn wake_for(&self, index: usize) {
        self.wake_all(index, &[Direction::Receive]);
        if let Some(dead) = self.dead_letters_of(index) {
            self.wake_all(dead, &[Direction::Receive]);
        }
    }

    fn dead_letters_of(&self, index: usize) -> Option<usize> {
        // Ordering: Acquire, as the directory reads it.
        let number = self.directory().entry(index).dead_letter.load(Ordering::Acquire);
        usize::try_from(number.checked_sub(1)?).ok().filter(|index| *index < self.directory().len())
    }

    /// Pins the channel whose ring that word names. The pin is the last of `debts`; its entry.
    fn pin_channel<'a>(&'a self, channel: u64, debts: &mut Vec<Pin<'a>>) -> Option<usize> {
        (0..self.directory().len()).find_map(|index| {
            let pin = self.pin_later(index, |entry| entry.ring.load(Ordering::Acquire) == channel, debts)?;
            debts.push(pin);
            Some(index)
        })
    }

    /// Puts back a message whose word nobody but the caller may change: it is the caller's, or that of somebody dead. What keeps
    /// the channel there meanwhile is among the `debts`, which the caller drops when it is out of its lane; the channel's entry.
    /// `sequence` is the message's number, if the trailer has none.
    pub(super) fn put_back<'a>(
        &'a self,
        me: &Lane,
        id: BlockId,
        word: Word,
        in_vain: bool,
        sequence: Option<u64>,
        debts: &mut Vec<Pin<'a>>,
    ) -> (Fate, Option<usize>) {
        let Some((sector, _)) = self.allocator().word_of(id).filter(|_| self.allocator().is_whole(id, word)) else {
            return (Fate::Freed, None);
        };
        let free = || {
            if self.seize(sector, me, id.granule(), word) { Fate::Freed } else { Fate::Changed }
        };
        let trailer = self.trailer(Block { id, len: word.len(), generation: word.generation() });
        let Some(index) = self.pin_channel(trailer.channel(), debts) else { return (free(), None) };
        let entry = self.directory().entry(index);
        let deliveries = entry.deliveries.load(Ordering::Acquire);
        let Some(recall) = self.recall_of(index) else { return (free(), Some(index)) };
        if let Some(sequence) = sequence {
            trailer.number(sequence);
        }
        let tries = transfer::tries_after(trailer, word, in_vain);
        let private = Position::new(recall.retry.tail_hint());
        let retry = Back { ring: &recall.retry, private: &private, state: State::Promised };
        // Where they do not come back, what somebody had received is not here: nobody has seen this one.
        if deliveries == 0 || u64::from(tries) < deliveries {
            let put = transfer::put_back(self.allocator(), me, id, word, &[retry], || set_overflow(&recall.entry));
            return (if put == Put::Changed { Fate::Changed } else { Fate::Waits }, Some(index));
        }
        let fate = self.put_away(&recall, index, me, id, word, true);
        (fate, Some(index))
    }

    /// Puts a message among the dead letters whose word nobody but the caller may change. If they have no place any more it is
    /// freed, and counted. If they have no room it goes back into its channel, if it `may_wait`, or else is freed, too.
    pub(super) fn put_away(
        &self,
        recall: &Recall,
        index: usize,
        me: &Lane,
        id: BlockId,
        word: Word,
        may_wait: bool,
    ) -> Fate {
        // A channel that was closed takes nothing any more. It is persistent, so it is there for as long as the segment.
        let open = |dead: &usize| {
            let state = directory::state(self.directory().entry(*dead));
            state.phase() == Phase::Live && !state.has(CLOSED)
        };
        let private = Position::new(recall.retry.tail_hint());
        let retry = Back { ring: &recall.retry, private: &private, state: State::Promised };
        let put = |places: &[Back<'_>]| {
            transfer::put_back(self.allocator(), me, id, word, places, || set_overflow(&recall.entry))
        };
        let dead = self.dead_letters_of(index);
        let is_wanted = dead.is_some();
        if let Some(dead) = dead.filter(open).and_then(|dead| self.ring_of(dead)) {
            let private = Position::new(dead.tail_hint());
            if dead.is_writable(&private, 1) {
                return match put(&[Back { ring: &dead, private: &private, state: State::InFlight }, retry]) {
                    Put::Changed => Fate::Changed,
                    Put::At(0) => {
                        // Ordering: Relaxed, it is a statistic.
                        recall.losses.dead_letters.fetch_add(1, Ordering::Relaxed);
                        Fate::Letter
                    }
                    Put::At(_) => Fate::Waits,
                };
            }
            if may_wait {
                return if put(&[retry]) == Put::Changed { Fate::Changed } else { Fate::Waits };
            }
        }
        let Some((sector, _)) = self.allocator().word_of(id) else { return Fate::Freed };
        if !self.seize(sector, me, id.granule(), word) {
            return Fate::Changed;
        }
        // What has expired is counted as that, and only here if it was to be kept.
        if is_wanted || may_wait {
            recall.entry.discarded.fetch_add(1, Ordering::Relaxed);
        }
        Fate::Freed
    }

    /// The dead was putting a message back, and may have written RETURNED without saying so.
    pub(super) fn recover_returned(&self, id: BlockId, generation: u32) {
        let Some((_, word)) = self.allocator().word_of(id) else { return };
        if word.state() != State::Returned || word.generation() != generation || !self.allocator().is_whole(id, word) {
            return;
        }
        let channel = self.trailer(Block { id, len: word.len(), generation }).channel();
        for index in 0..self.directory().len() {
            // Said of another channel that has come there since, it costs a look in vain.
            let entry = self.directory().entry(index);
            if directory::state(entry).phase() == Phase::Live && entry.ring.load(Ordering::Acquire) == channel {
                set_overflow(entry);
            }
        }
    }

    /// The number of the message that a dead lane was receiving, if it came out of the main ring.
    pub(super) fn number_of(&self, lane: LaneId) -> Option<u64> {
        let lanes = self.region().lanes();
        matches!(lanes.intent(lane), Intent::Receive { .. })
            .then(|| lanes.noted(lane))
            .filter(|number| *number != u64::MAX)
    }

    /// What a lane that is dead says of a message: whether it is about that one.
    pub(super) fn is_named_by(&self, lane: LaneId, id: BlockId, generation: u32) -> bool {
        matches!(self.region().lanes().intent(lane),
            Intent::Receive { block, generation: of } | Intent::Retry { block, generation: of }
                if block == id && of == generation)
    }
}
