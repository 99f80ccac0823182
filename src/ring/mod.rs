//! The ring: many senders, many receivers, one CAS on a cell per operation, and nobody ever waits for anybody.
//!
//! `cell: AtomicU64 = tag:32 | block:32`, `tag = 2·lap + full (mod 2³²)`, `lap = position / cells`.
//!
//! | tag of the cell of position `p` in lap `l` | meaning |
//! |---|---|
//! | `2l` | position `p` may be filled |
//! | `2l + 1` | position `p` is filled and not yet taken |
//! | `2l + 2` | position `p` has been taken: the cell waits for the next lap |
//!
//! * **Send** is the CAS `2l → 2l + 1`, **receive** is the CAS `2l + 1 → 2l + 2`. Before it nothing has happened, after it
//!   everything; there is no cell that is taken and not published, hence nobody's death stalls anybody.
//! * A position is a handle's **private lower bound**: every position below it was once filled (taken). Senders fill the
//!   first cell that is not filled, receivers take the first that is not taken, so filled and taken positions are
//!   prefixes without gaps, and first in is first out. The shared head and tail words are hints for newcomers, raised
//!   now and then.
//! * A tag that does not match exactly is judged only after a look at the 64-bit hint: a handle that slept through 2³¹
//!   laps must not mistake the future for the past.
//! * **Capacity without a counter**: position `p` may be filled once position `p − capacity` has been taken. That bounds
//!   the queue exactly, costs a load (none, if the capacity is the number of cells), and survives any death.
//! * **Reserved capacity** ([`permits`]): with `k` permits held, position `p` may be filled once position
//!   `p + k − capacity` has been taken. A permit is counted first; then its owner looks at the first unfilled cell and at
//!   `k`, its own included; if position `p + k − capacity − 1` has been taken, it raises the *version* of the empty cell
//!   by a CAS: granted. Whoever had looked at `k` before has lost its own CAS on that cell. A message with a permit needs
//!   no room; after its CAS the count goes down. `docs/models/ring.py` is the model.
//!
//! * **Seal**: whoever has said something that senders look at after their look at the cell raises the version of the first
//!   unfilled cell as a grant does: what is filled below was filled before, and who fills from there on has seen what was said.
//!
//! The lower half of an empty cell is its version; taking a message makes it 0.
//!
//! [`transfer`] moves blocks through a ring, with the words and intents that make every step recoverable. [`log`] is what a
//! broadcast makes of the cells of a ring.

pub(crate) mod log;
pub(crate) mod permits;
pub(crate) mod routes;
pub(crate) mod transfer;

#[cfg(test)]
mod ground;
#[cfg(all(test, loom))]
mod loom_ends;
#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

use crate::{
    region::lanes::BlockId,
    ring::permits::Permits,
    sys::{
        shared::{SharedRef, SharedSlice},
        sync::{AtomicU64, Ordering},
    },
};

/// How many operations lie between two raises of a hint.
const HINT_INTERVAL: u64 = 64;
/// Cells on a cache line.
pub(crate) const CELLS_PER_LINE: u64 = 8;
/// How many messages before it is read a payload is asked for: less than there are cells on a line, so that it is for most.
const LOOKAHEAD: u64 = 3;

/// The process's view of a ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring {
    cells: SharedSlice<AtomicU64>,
    /// log2 of the number of cells.
    log: u32,
    capacity: u64,
    head_hint: SharedRef<AtomicU64>,
    tail_hint: SharedRef<AtomicU64>,
    permits: Permits,
}

/// A handle's private lower bound of the first position that is not yet filled (taken). Threads that share a handle
/// share it; any value that it ever had is a valid bound.
#[derive(Debug)]
pub(crate) struct Position(AtomicU64);

impl Position {
    pub(crate) fn new(position: u64) -> Self {
        Self(AtomicU64::new(position))
    }

    #[inline(always)]
    pub(crate) fn get(&self) -> u64 {
        // Ordering: Relaxed: the cells themselves synchronise, and an old bound is still a bound.
        self.0.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn set(&self, position: u64) {
        self.0.store(position, Ordering::Relaxed);
    }
}

impl Clone for Position {
    fn clone(&self) -> Self {
        Self::new(self.get())
    }
}

/// What a receiver found at the front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Front {
    position: u64,
    cell: u64,
}

impl Front {
    /// The block that the cell names; not yet checked in any way.
    #[inline(always)]
    pub(crate) fn block(self) -> BlockId {
        BlockId(self.cell as u32)
    }

    #[inline(always)]
    pub(crate) fn position(self) -> u64 {
        self.position
    }

    /// What the cell says.
    pub(crate) fn cell(self) -> u64 {
        self.cell
    }
}

/// A cell that may be filled, as it was seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vacancy {
    position: u64,
    cell: u64,
}

/// Where a handle stands with respect to a cell.
enum Look {
    /// The cell has the tag that was asked for.
    Match(u64),
    /// Go on at that position.
    Ahead(u64),
    /// The cell is not there yet.
    Behind,
}

impl Ring {
    /// A view of a ring. The number of cells must be a power of two, and not less than the capacity, unless nothing is ever
    /// put in: then there may be one.
    pub(crate) fn new(
        cells: SharedSlice<AtomicU64>,
        capacity: u64,
        head_hint: SharedRef<AtomicU64>,
        tail_hint: SharedRef<AtomicU64>,
        permits: Permits,
    ) -> Self {
        debug_assert!(cells.len().is_power_of_two() && capacity > 0);
        debug_assert!(capacity <= cells.len() as u64 || cells.len() == 1);
        Self { log: cells.len().trailing_zeros(), cells, capacity, head_hint, tail_hint, permits }
    }

    /// Makes the ring empty, with `start` as its first position. Nobody else may look yet.
    pub(crate) fn format(&self, start: u64) {
        let cells = self.cells.len() as u64;
        for position in start..start + cells {
            // Ordering: Relaxed: publication of the channel orders all of it.
            self.cell(position).store(u64::from(self.empty_tag(position)) << 32, Ordering::Relaxed);
        }
        self.permits.format();
        self.head_hint.store(start, Ordering::Relaxed);
        self.tail_hint.store(start, Ordering::Relaxed);
    }

    #[inline(always)]
    fn cell(&self, position: u64) -> &AtomicU64 {
        &self.cells[(position & (self.cells.len() as u64 - 1)) as usize]
    }

    /// The tag of the position's cell when it may be filled.
    #[inline(always)]
    fn empty_tag(&self, position: u64) -> u32 {
        ((position >> self.log) as u32).wrapping_mul(2)
    }

    /// Whether a position's cell was seen with the tag so many steps after the empty one.
    #[inline(always)]
    fn is_at(&self, cell: u64, position: u64, offset: u32) -> bool {
        (cell >> 32) as u32 == self.empty_tag(position).wrapping_add(offset)
    }

    /// Where newcomers begin to send.
    pub(crate) fn tail_hint(&self) -> u64 {
        // Ordering: Acquire, pairs with `raise`.
        self.tail_hint.load(Ordering::Acquire)
    }

    /// Where newcomers begin to receive.
    pub(crate) fn head_hint(&self) -> u64 {
        // Ordering: Acquire, pairs with `raise`.
        self.head_hint.load(Ordering::Acquire)
    }

    #[cfg_attr(crash_points, track_caller)]
    fn raise(hint: &AtomicU64, position: u64) {
        if position.is_multiple_of(HINT_INTERVAL) {
            // Ordering: Release: every position below has been filled (taken) for whoever reads the hint.
            hint.fetch_max(position, Ordering::Release);
        }
    }

    /// Reads the cell of `position`, which should have the tag `offset` steps after the empty one.
    #[inline(always)]
    fn look(&self, position: u64, offset: u32, hint: &AtomicU64) -> Look {
        // Ordering: SeqCst: against a waiter that parks and looks again, see `notify`.
        let cell = self.cell(position).load(Ordering::SeqCst);
        let ahead = ((cell >> 32) as u32).wrapping_sub(self.empty_tag(position).wrapping_add(offset));
        if ahead == 0 { Look::Match(cell) } else { self.judge(position, ahead.cast_signed(), offset, hint) }
    }

    /// The tag is another one. By how much is only meaningful if we did not sleep for too long.
    fn judge(&self, position: u64, ahead: i32, offset: u32, hint: &AtomicU64) -> Look {
        let hint = hint.load(Ordering::Acquire);
        if hint > position {
            return Look::Ahead(hint);
        }
        if ahead < 0 {
            return Look::Behind;
        }
        // `ahead` steps of the cell are `(ahead + offset) / 2` laps: the position that the cell is at, or was last.
        let steps = ahead as u64 + u64::from(offset);
        let at = position.wrapping_add((steps / 2) << self.log);
        let filled = steps % 2 == 1;
        // Filled (for a sender) or taken (for a receiver) up to where?
        Look::Ahead(match (offset, filled) {
            (0, true) => at.wrapping_add(1),
            // The cell waits for `at`: a lap before, it was filled and taken.
            (0, false) | (_, false) => at.wrapping_add(1).wrapping_sub(self.cells.len() as u64),
            // Filled at `at`, hence taken a lap before.
            (_, true) => at.wrapping_add(1).wrapping_sub(self.cells.len() as u64),
        })
    }

    /// How often a search may go on before the cells must be called garbage.
    fn patience(&self) -> usize {
        2 * self.cells.len() + 2
    }

    /// The first position that is not filled, and its cell, if `room` says of that position that it may be.
    #[inline(always)]
    fn writable(&self, from: u64, room: impl Fn(u64) -> bool) -> Result<(u64, u64), u64> {
        let mut position = from;
        for _ in 0..self.patience() {
            match self.look(position, 0, &self.tail_hint) {
                // In this order: the cell, then the permits. See `grant`.
                Look::Match(cell) => return if room(position) { Ok((position, cell)) } else { Err(position) },
                Look::Ahead(next) => position = next.max(position.wrapping_add(1)),
                Look::Behind => break,
            }
        }
        Err(position)
    }

    /// Whether `position` may be filled if `ahead` messages more are to fit before it has been taken.
    #[inline(always)]
    fn has_room(&self, position: u64, ahead: u64) -> bool {
        if ahead >= self.capacity {
            return false;
        }
        let back = self.capacity - ahead;
        if back == self.cells.len() as u64 {
            // It is the same cell, and we have just seen it empty.
            return true;
        }
        let before = position.wrapping_sub(back);
        // Ordering: SeqCst: a sender that parks looks here again, see `notify`.
        let tag = (self.cell(before).load(Ordering::SeqCst) >> 32) as u32;
        tag.wrapping_sub(self.empty_tag(before).wrapping_add(2)).cast_signed() >= 0
    }

    /// The same, if that are the permits, and some more or fewer.
    #[inline(always)]
    fn has_room_beside(&self, position: u64, ahead: impl Fn(u64) -> u64) -> bool {
        self.has_room(position, ahead(self.permits.total()))
            || self.permits.total_of_a_moment().is_some_and(|permits| self.has_room(position, ahead(permits)))
    }

    /// Whether so many sends would succeed now, or so many permits be granted.
    #[inline]
    pub(crate) fn is_writable(&self, private: &Position, messages: u64) -> bool {
        let room = |position| self.has_room_beside(position, |permits| permits.saturating_add(messages - 1));
        match self.writable(private.get(), room) {
            Ok((position, _)) => {
                private.set(position);
                true
            }
            Err(_) => false,
        }
    }

    /// Grants the permits that the caller has counted, if there is room for them and all others. Afterwards the caller's
    /// sends need no room; until then, and if this fails, they are counted and not granted.
    ///
    /// The CAS raises the version of the first unfilled cell. So a sender or another grant that has looked at the permits
    /// before ours were counted, and would exceed the capacity now, has a cell to change that is not the one it saw.
    pub(crate) fn grant(&self, private: &Position) -> bool {
        let mut from = private.get();
        loop {
            let Ok((position, cell)) = self.writable(from, |position| self.has_room_for_permits(position)) else {
                return false;
            };
            // Ordering: SeqCst: after the count, and acquires what it is compared with.
            if self.cell(position).compare_exchange(cell, raised(cell), Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                private.set(position);
                return true;
            }
            from = position;
        }
    }

    /// Raises the version of the first unfilled cell, and returns its position: what is sent before was sent before the caller
    /// looked, and who sends from there on has looked at its cell, hence at whatever it looks at after that, after the caller
    /// did what it did before. (If all cells are filled, none of them has been looked at by who may fill it.)
    #[cfg_attr(crash_points, track_caller)]
    pub(crate) fn seal(&self) -> u64 {
        let mut from = self.tail_hint();
        loop {
            let (position, cell) = match self.writable(from, |_| true) {
                Ok(vacant) => vacant,
                Err(position) => return position,
            };
            // Ordering: SeqCst: after what the caller has said, for who acquires it by its look at the cell.
            if self.cell(position).compare_exchange(cell, raised(cell), Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                return position;
            }
            from = position;
        }
    }

    /// Whether all permits that are counted now could be granted.
    pub(crate) fn is_grantable(&self, private: &Position) -> bool {
        self.writable(private.get(), |position| self.has_room_for_permits(position)).is_ok()
    }

    /// Whether the last of all permits that are counted could be used, if all of them were used from `position` on.
    fn has_room_for_permits(&self, position: u64) -> bool {
        self.has_room_beside(position, |permits| permits.saturating_sub(1))
    }

    /// Who has reserved how much.
    pub(crate) fn permits(&self) -> &Permits {
        &self.permits
    }

    /// The cell that may be filled next, if it is where the handle thinks.
    #[inline(always)]
    pub(crate) fn vacancy_at_hand(&self, private: &Position) -> Option<Vacancy> {
        let position = private.get();
        // Ordering: as in `look`.
        let cell = self.cell(position).load(Ordering::SeqCst);
        // In this order: the cell, then the permits. See `grant`.
        let is_vacant =
            (cell >> 32) as u32 == self.empty_tag(position) && self.has_room(position, self.permits.total());
        is_vacant.then_some(Vacancy { position, cell })
    }

    /// Fills a cell; `false` if somebody else has changed it. This is the moment of sending.
    #[inline(always)]
    pub(crate) fn fill(&self, private: &Position, vacancy: Vacancy, block: BlockId) -> bool {
        let Vacancy { position, cell } = vacancy;
        let full = u64::from(self.empty_tag(position).wrapping_add(1)) << 32 | u64::from(block.0);
        // Ordering: SeqCst: publishes the payload to the receiver, and is one half of the pair {cell CAS, load of the
        // parked bitmap} against {set the parked bit, load of the cell}.
        let filled = self.cell(position).compare_exchange(cell, full, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        if filled {
            private.set(position.wrapping_add(1));
            Self::raise(&self.tail_hint, position.wrapping_add(1));
        }
        filled
    }

    /// Puts a block in, at the position that is returned; `None` if the ring is full, or not open. This is the moment of
    /// sending.
    ///
    /// Whether it `is_open` is asked after the look at the cell: whoever closes it [seals](Self::seal) it afterwards.
    #[inline]
    pub(crate) fn push(&self, private: &Position, block: BlockId, is_open: impl Fn() -> bool) -> Option<u64> {
        self.put(private, block, |position| self.has_room_beside(position, |permits| permits) && is_open())
    }

    /// The same for a sender with a permit, which it must give up afterwards. `None` only if the ring is not open, or garbage.
    #[inline]
    pub(crate) fn push_reserved(&self, private: &Position, block: BlockId, is_open: impl Fn() -> bool) -> Option<u64> {
        self.put(private, block, |_| is_open())
    }

    #[inline(always)]
    fn put(&self, private: &Position, block: BlockId, room: impl Fn(u64) -> bool) -> Option<u64> {
        let mut from = private.get();
        loop {
            let (position, cell) = self.writable(from, &room).ok()?;
            if self.fill(private, Vacancy { position, cell }, block) {
                return Some(position);
            }
            from = position;
        }
    }

    /// Whether the last of the next `messages` is there, or of the half of the capacity if that is less. A guess.
    pub(crate) fn is_filled(&self, private: &Position, messages: u64) -> bool {
        let last = private.get().wrapping_add(messages.min(self.capacity / 2));
        self.is_at(self.cell(last).load(Ordering::Relaxed), last, 1)
    }

    /// Whether there is room for the next `messages`, or for half of the capacity if that is less. A guess.
    pub(crate) fn is_emptied(&self, private: &Position, messages: u64) -> bool {
        let last = private.get().wrapping_add(messages.min(self.capacity / 2));
        // `has_room` believes that the cell itself is empty.
        let is_empty = || self.is_at(self.cell(last).load(Ordering::Relaxed), last, 0);
        self.has_room(last, 0) && (self.capacity < self.cells.len() as u64 || is_empty())
    }

    /// What stands at the front, if it is where the handle thinks.
    #[inline(always)]
    pub(crate) fn front_at_hand(&self, private: &Position) -> Option<Front> {
        let position = private.get();
        // Ordering: as in `look`.
        let cell = self.cell(position).load(Ordering::SeqCst);
        self.is_at(cell, position, 1).then_some(Front { position, cell })
    }

    /// The block that will come some messages after `position`, if its cell is on the same cache line: to look at another one
    /// would disturb who is about to fill it. A guess.
    #[inline(always)]
    pub(crate) fn upcoming(&self, position: u64) -> Option<BlockId> {
        let next = position.wrapping_add(LOOKAHEAD);
        if next % CELLS_PER_LINE < LOOKAHEAD {
            return None;
        }
        // Ordering: Relaxed, a guess.
        let cell = self.cell(next).load(Ordering::Relaxed);
        (cell >> 32 & 1 == 1).then_some(BlockId(cell as u32))
    }

    /// The blocks of the messages from `position` to the end of its line of cells, if all have been sent: to look at cells that
    /// somebody is about to fill would disturb it. A guess.
    #[inline(always)]
    pub(crate) fn line(&self, position: u64) -> impl Iterator<Item = BlockId> {
        let last = position | (CELLS_PER_LINE - 1);
        let cells = last.wrapping_add(1).wrapping_sub(position);
        let is_filled = self.is_at(self.cell(last).load(Ordering::Relaxed), last, 1);
        (0..if is_filled { cells } else { 0 })
            .map(move |ahead| BlockId(self.cell(position.wrapping_add(ahead)).load(Ordering::Relaxed) as u32))
    }

    /// What stands at the front, if there is anything.
    #[inline]
    pub(crate) fn front(&self, private: &Position) -> Option<Front> {
        let mut position = private.get();
        for _ in 0..self.patience() {
            match self.look(position, 1, &self.head_hint) {
                Look::Match(cell) => {
                    private.set(position);
                    return Some(Front { position, cell });
                }
                Look::Ahead(next) => position = next.max(position.wrapping_add(1)),
                Look::Behind => break,
            }
        }
        None
    }

    /// Takes what stands at the front; `false` if somebody else did. This is the moment of receiving.
    #[inline(always)]
    pub(crate) fn take(&self, private: &Position, front: Front) -> bool {
        let empty = u64::from(self.empty_tag(front.position).wrapping_add(2)) << 32;
        // Ordering: SeqCst: acquires the payload, and is one half of the pair {cell CAS, load of the parked bitmap}
        // against {set the parked bit, load of the cell}.
        let taken =
            self.cell(front.position).compare_exchange(front.cell, empty, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        if taken {
            private.set(front.position.wrapping_add(1));
            Self::raise(&self.head_hint, front.position.wrapping_add(1));
        }
        taken
    }

    /// Whether anything stands at the front, for whoever looks now.
    pub(crate) fn is_filled_now(&self) -> bool {
        self.front(&Position::new(self.head_hint())).is_some()
    }

    /// The same as [`front`](Self::front), of what stands before a position.
    #[inline]
    pub(crate) fn front_before(&self, private: &Position, until: u64) -> Option<Front> {
        self.front(private).filter(|front| front.position < until)
    }

    /// Whether the front is still what it was.
    pub(crate) fn is_front(&self, front: Front) -> bool {
        self.cell(front.position).load(Ordering::SeqCst) == front.cell
    }

    /// Calls `each` with the blocks that wait, the oldest first: all of them while nobody sends or receives.
    pub(crate) fn each_waiting(&self, mut each: impl FnMut(BlockId)) {
        self.waiting().for_each(|front| each(front.block()));
    }

    /// What waits, the oldest first: all of it while nobody sends or receives.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Front> {
        let head = self.head();
        (0..self.cells.len() as u64).map_while(move |ahead| self.waiting_at(head.wrapping_add(ahead)))
    }

    /// What waits at a position; `None` if nothing does yet, or any more.
    pub(crate) fn waiting_at(&self, position: u64) -> Option<Front> {
        match self.look(position, 1, &self.head_hint) {
            Look::Match(cell) => Some(Front { position, cell }),
            _ => None,
        }
    }

    /// How many messages have been taken, and how many filled in, counted from position 0: exact in a copy that nobody changes.
    pub(crate) fn counted(&self) -> (u64, u64) {
        let head = self.head();
        (head, self.tail().max(head))
    }

    /// The cell in which something waits.
    pub(crate) fn cell_of(&self, front: Front) -> &AtomicU64 {
        self.cell(front.position)
    }

    /// How many messages are in the ring: exact while nobody sends or receives, and at any time between 0 and the
    /// capacity.
    pub(crate) fn len(&self) -> u64 {
        let head = self.head();
        self.tail().saturating_sub(head).min(self.capacity)
    }

    /// The first position that is not taken.
    fn head(&self) -> u64 {
        let mut position = self.head_hint();
        for _ in 0..self.patience() {
            match self.look(position, 1, &self.head_hint) {
                Look::Match(_) | Look::Behind => break,
                Look::Ahead(next) => position = next.max(position.wrapping_add(1)),
            }
        }
        position
    }

    /// The first position that is not filled.
    fn tail(&self) -> u64 {
        let mut position = self.tail_hint();
        for _ in 0..self.patience() {
            match self.look(position, 0, &self.tail_hint) {
                Look::Match(_) | Look::Behind => break,
                Look::Ahead(next) => position = next.max(position.wrapping_add(1)),
            }
        }
        position
    }

    /// How many cells the ring has.
    pub(crate) fn cells(&self) -> u64 {
        self.cells.len() as u64
    }

    /// The most messages that the ring holds.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Calls `each` with every block that a full cell names.
    pub(crate) fn blocks(&self, mut each: impl FnMut(BlockId)) {
        for cell in self.cells.iter() {
            // Ordering: SeqCst: recovery reasons about the order of this look, the intents and the words.
            let cell = cell.load(Ordering::SeqCst);
            if cell >> 32 & 1 == 1 {
                each(BlockId(cell as u32));
            }
        }
    }
}

/// An empty cell with the next version.
fn raised(cell: u64) -> u64 {
    cell & !u64::from(u32::MAX) | u64::from((cell as u32).wrapping_add(1))
}
