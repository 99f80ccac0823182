//! The log of a broadcast: every message in one cell, and for every group a mark beside it that says how far that group is
//! with it. Publishing is one CAS, however many groups there are; a payload stands there once.
//!
//! `cell: AtomicU64 = tag:32 | block:32`, `tag = 4·lap + step (mod 2³²)`, `lap = position / cells`.
//!
//! | tag of the cell of position `p` in lap `l` | meaning |
//! |---|---|
//! | `4l` | *empty*: `p` may be published |
//! | `4l + 1` | *open*: the message is there, and groups may take it |
//! | `4l + 3` | *closed*: nobody takes it any more; the block stays while somebody holds it. Or `p` is *void*: the block is that of a lap before, and was held when `p` was to be published |
//! | `4l + 4` | it is gone: the cell waits for the next lap |
//!
//! A filled cell has an odd tag, as in every [`Ring`](super::Ring): so recovery finds what is on its way.
//!
//! Each group has a **column** of marks, one beside each cell. `mark = lap:28 | epoch:16 | count:8 | participant:9 | state:3`:
//!
//! | state | meaning | who changes it |
//! |---|---|---|
//! | `FRESH` | the group has not been here since it joined | a member or a publisher |
//! | `DONE` | done with the message of that lap | the same, for a later lap |
//! | `SKIPPED` | so many messages at this cell, the last of them that of the lap, were skipped, and no member has been told (`count` and `participant` are that number) | the same; a member that tells, to `DONE` |
//! | `HELD` | the participant has the message of that lap; it was delivered `count` times before | that participant; its reaper |
//! | `RETURNED` | the message of that lap came back, for the `count`th time | a member |
//!
//! A position is *taken* by a group once its mark has that lap or a later one. A mark of another epoch is of a group that had
//! the column before, and counts as `FRESH`.
//!
//! A column's word: `epoch:16 | entry + 1:16 | participant:9 | behind:2 | phase:3`.
//!
//! ```text
//! FREE ──► JOINING(participant) ──► ACTIVE ──► EVICTED
//!   ▲                                  └───► LEAVING ◄┘
//!   └──────────── nothing is held ───────────┘
//! ```
//!
//! # Invariants
//!
//! * **I1** A block that a mark HELD or RETURNED *pins* is named by the cell beside it. Who closes a cell does so and then looks at
//!   the marks; nobody takes a block out of a cell unless it is closed and no mark beside it pins. Who takes an open message
//!   writes HELD and then looks whether the cell is still open: then whoever closes it sees the mark. If it is closed, somebody
//!   may have looked before the mark was there: but only who does not heed the group, because it joined after the
//!   message was published or was put out. Else whoever closed it saw that the group had taken it.
//! * **I2** Every position from a group's start on that was published is taken by exactly one CAS: by a member that receives it, or
//!   by a publisher that skips it and counts it with the same CAS. So what a group misses is known exactly, whoever is killed.
//! * **I3** Only who finds that no active group may still take a message closes it: the last to be done with it, a publisher
//!   that needs its room, or a reaper. A closed message with no pin is freed by whoever unpinned it last, or closed it: each looks
//!   after the other's step.
//! * **I4** Position `p` may be published once `p − capacity` is closed, or void. What is held takes up no room; so nobody who is
//!   stopped while he holds a message stops a publisher, until he holds as many as half of the cells.
//! * **I5** A group that joins is active before it looks where the end is: what is published from there on is retired only
//!   by those who see the group.

use crate::{
    ring::Position,
    segment::lanes::BlockId,
    sys::{
        shared::{SharedRef, SharedSlice},
        sync::{AtomicU64, Ordering},
    },
};

/// How many messages lie between two raises of the hint.
const HINT_INTERVAL: u64 = 64;
/// The most groups of a log.
pub(crate) const MAX_GROUPS: usize = 64;

const OPEN: i32 = 1;
const CLOSED: i32 = 3;

/// What a publisher does about a group that is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pressure {
    /// Skips what it has not taken.
    Lag = 0,
    /// Waits for it.
    Block = 1,
    /// Waits for it, but not for long.
    Evict = 2,
}

/// What a column is being used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Free = 0,
    Joining = 1,
    Active = 2,
    Evicted = 3,
    Leaving = 4,
}

/// The word of a column. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Column(u64);

impl Column {
    fn new(phase: Phase, pressure: Pressure, participant: u16, entry: usize, epoch: u16) -> Self {
        Self(
            phase as u64
                | (pressure as u64) << 3
                | u64::from(participant & 0x1ff) << 5
                | (entry as u64 + 1 & 0xffff) << 14
                | u64::from(epoch) << 30,
        )
    }

    fn with(self, phase: Phase) -> Self {
        Self(self.0 & !7 | phase as u64)
    }

    pub(crate) fn phase(self) -> Phase {
        match self.0 & 7 {
            1 => Phase::Joining,
            2 => Phase::Active,
            3 => Phase::Evicted,
            4 => Phase::Leaving,
            _ => Phase::Free,
        }
    }

    fn pressure(self) -> Pressure {
        match self.0 >> 3 & 3 {
            1 => Pressure::Block,
            2 => Pressure::Evict,
            _ => Pressure::Lag,
        }
    }

    /// Who is joining.
    pub(crate) fn participant(self) -> u16 {
        (self.0 >> 5 & 0x1ff) as u16
    }

    /// The group's entry in the directory; not checked.
    pub(crate) fn entry(self) -> usize {
        (self.0 >> 14 & 0xffff).wrapping_sub(1) as usize
    }

    pub(crate) fn epoch(self) -> u16 {
        (self.0 >> 30) as u16
    }

    /// Whether its marks may pin something.
    fn may_pin(self) -> bool {
        matches!(self.phase(), Phase::Active | Phase::Evicted | Phase::Leaving)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fresh = 0,
    Done = 1,
    Skipped = 2,
    Held = 3,
    Returned = 4,
}

/// A mark. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark(u64);

/// Bits of a lap in a mark.
const LAP_BITS: u32 = 28;
const LAP: u64 = (1 << LAP_BITS) - 1;
/// The most messages that a mark can count as skipped.
const MOST_SKIPPED: u64 = (1 << 17) - 1;

impl Mark {
    fn new(state: State, low: u64, epoch: u16, lap: u64) -> Self {
        Self(state as u64 | low << 3 | u64::from(epoch) << 20 | (lap & LAP) << 36)
    }

    fn held(participant: u16, count: u8, epoch: u16, lap: u64) -> Self {
        Self::new(State::Held, u64::from(participant & 0x1ff) | u64::from(count) << 9, epoch, lap)
    }

    fn returned(count: u8, epoch: u16, lap: u64) -> Self {
        Self::new(State::Returned, u64::from(count) << 9, epoch, lap)
    }

    /// The state, as far as a group of that epoch is concerned; nonsense is done.
    fn state(self, epoch: u16) -> State {
        match self.0 & 7 {
            _ if self.epoch() != epoch => State::Fresh,
            0 => State::Fresh,
            2 => State::Skipped,
            3 => State::Held,
            4 => State::Returned,
            _ => State::Done,
        }
    }

    fn epoch(self) -> u16 {
        (self.0 >> 20) as u16
    }

    fn lap(self) -> u64 {
        self.0 >> 36
    }

    fn participant(self) -> u16 {
        (self.0 >> 3 & 0x1ff) as u16
    }

    fn count(self) -> u8 {
        (self.0 >> 12) as u8
    }

    /// How many were skipped.
    fn skipped(self) -> u64 {
        self.0 >> 3 & MOST_SKIPPED
    }

    /// Whether a group of that epoch has taken what was here in that lap.
    fn has_taken(self, epoch: u16, lap: u64) -> bool {
        // Laps are compared as far as a mark can tell them apart.
        let ahead = (self.lap().wrapping_sub(lap & LAP) << (64 - LAP_BITS)).cast_signed();
        self.state(epoch) != State::Fresh && ahead >= 0
    }

    fn pins(self, epoch: u16) -> bool {
        matches!(self.state(epoch), State::Held | State::Returned)
    }
}

/// What there is of each group besides its marks.
///
/// | word | writer | meaning |
/// |---|---|---|
/// | `start` | who makes the group join | the first position that concerns the group |
/// | `joined` | the same | the first that all who close messages knew of the group for |
/// | `patience` | the same | milliseconds that publishers wait for it, if it is to be evicted then |
/// | `stuck` | publishers | `position:24 \| milliseconds:40`: what they wait for, and since when |
/// | `returned` | who returns a message; members | `times << 1 \| pending`: some marks say RETURNED |
/// | `missed` | publishers; members | messages that were skipped and for which a mark had no room |
/// | `discarded` | members, reapers | messages that were delivered as often as they may be |
#[cfg_attr(any(test, loom), derive(Default))]
#[repr(C, align(64))]
pub(crate) struct GroupLine {
    start: AtomicU64,
    patience: AtomicU64,
    stuck: AtomicU64,
    returned: AtomicU64,
    missed: AtomicU64,
    discarded: AtomicU64,
    joined: AtomicU64,
    _rest: AtomicU64,
}

/// Which group: its column, and the epoch in which it has that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) column: usize,
    pub(crate) epoch: u16,
}

/// The process's view of a log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log {
    cells: SharedSlice<AtomicU64>,
    /// A row of `stride` per cell.
    marks: SharedSlice<AtomicU64>,
    columns: SharedSlice<AtomicU64>,
    lines: SharedSlice<GroupLine>,
    tail_hint: SharedRef<AtomicU64>,
    /// log2 of the number of cells.
    log: u32,
    stride: usize,
    capacity: u64,
    history: u64,
}

/// A cell that may be filled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vacancy {
    position: u64,
    cell: u64,
}

/// What a publisher has to do next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Next {
    /// Fill that cell.
    Vacant(Vacancy),
    /// See whether the cell of that index can be emptied, and ask again.
    Retire(usize),
    /// Wait for a group that is behind; no longer than so many milliseconds, if there is a bound.
    Wait(Option<u64>),
    /// Put that group out, and ask again.
    Evict(usize, Column),
}

/// A closed cell that nothing pins, as it was seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unpinned {
    index: usize,
    cell: u64,
}

impl Unpinned {
    pub(crate) fn block(self) -> BlockId {
        BlockId(self.cell as u32)
    }
}

/// A message that this participant holds for its group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) position: u64,
    /// Not checked in any way.
    pub(crate) block: BlockId,
    mark: Mark,
}

impl Taken {
    /// How often it was delivered before.
    pub(crate) fn tries(&self) -> u8 {
        self.mark.count()
    }
}

/// What a member finds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found {
    Message(Taken),
    /// There is nothing for the group now.
    Nothing,
    /// The group has missed so many messages.
    Lagged(u64),
    /// The group was put out.
    Evicted,
    /// See whether the message at that position can be retired, and ask again.
    Settle(u64),
}

/// What became of a message that was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GivenBack {
    /// It waits for a member.
    Waits,
    /// It was done with: settle its position.
    Done,
    /// It was not the caller's.
    Changed,
}

enum Seen {
    Open { position: u64, cell: u64, mark: Mark },
    Skipped,
    Nothing,
}

/// Under loom SeqCst accesses count as acquire and release only; a fence gives them their meaning back.
#[inline(always)]
fn fence_for_models() {
    #[cfg(loom)]
    crate::sys::sync::fence(Ordering::SeqCst);
}

// Ordering of all accesses: SeqCst. I1, I3 and I5 are arguments about one order of all steps; on x86-64 only the changes cost
// anything, and those are locked instructions anyway.
impl Log {
    /// A view. The number of cells is a power of two, and at least twice the capacity; there are `stride` marks per cell.
    pub(crate) fn new(
        cells: SharedSlice<AtomicU64>,
        marks: SharedSlice<AtomicU64>,
        columns: SharedSlice<AtomicU64>,
        lines: SharedSlice<GroupLine>,
        tail_hint: SharedRef<AtomicU64>,
        (capacity, history): (u64, u64),
    ) -> Self {
        debug_assert!(cells.len().is_power_of_two() && capacity > 0 && capacity <= cells.len() as u64);
        debug_assert!(columns.len() == lines.len() && marks.len() >= cells.len() * columns.len());
        let (log, stride) = (cells.len().trailing_zeros(), marks.len() / cells.len());
        Self { cells, marks, columns, lines, tail_hint, log, stride, capacity, history }
    }

    /// No group has a column. Nobody else may look yet. The cells are those of a new ring.
    pub(crate) fn format(&self) {
        self.columns.iter().for_each(|column| column.store(0, Ordering::SeqCst));
    }

    fn len(&self) -> u64 {
        self.cells.len() as u64
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(crate) fn cells(&self) -> usize {
        self.cells.len()
    }

    pub(crate) fn history(&self) -> u64 {
        self.history
    }

    #[inline(always)]
    pub(crate) fn index(&self, position: u64) -> usize {
        (position & (self.len() - 1)) as usize
    }

    fn lap(&self, position: u64) -> u64 {
        position >> self.log
    }

    /// The tag of the position's cell when it is empty.
    #[inline(always)]
    fn tag(&self, position: u64) -> u32 {
        (self.lap(position) as u32).wrapping_mul(4)
    }

    #[inline(always)]
    fn cell(&self, index: usize) -> &AtomicU64 {
        &self.cells[index]
    }

    fn mark(&self, index: usize, column: usize) -> &AtomicU64 {
        &self.marks[index * self.stride + column]
    }

    #[inline(always)]
    fn load(word: &AtomicU64) -> u64 {
        word.load(Ordering::SeqCst)
    }

    #[inline(always)]
    #[cfg_attr(crash_points, track_caller)]
    fn change(word: &AtomicU64, from: u64, to: u64) -> bool {
        let changed = word.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        fence_for_models();
        changed
    }

    /// How many steps the cell is after being empty for that position.
    #[inline(always)]
    fn steps(&self, cell: u64, position: u64) -> i32 {
        ((cell >> 32) as u32).wrapping_sub(self.tag(position)).cast_signed()
    }

    /// The position with the cell of `position` that the cell is at, if it is so many steps after that.
    fn at(&self, position: u64, steps: i32) -> u64 {
        position.wrapping_add((steps as u64 / 4) << self.log)
    }

    /// How often a search may go on before the cells must be called garbage.
    fn patience(&self) -> usize {
        2 * self.cells.len() + 2
    }

    // ---- Columns ----

    pub(crate) fn columns(&self) -> impl Iterator<Item = (usize, Column)> + '_ {
        self.columns.iter().enumerate().map(|(index, word)| (index, Column(Self::load(word))))
    }

    fn active(&self) -> impl Iterator<Item = (usize, Column)> + '_ {
        self.columns().filter(|(_, column)| column.phase() == Phase::Active)
    }

    /// The directory entries of the groups that see what is published now.
    pub(crate) fn entries(&self) -> impl Iterator<Item = usize> + '_ {
        self.active().map(|(_, column)| column.entry())
    }

    /// The column, if the group still has it.
    pub(crate) fn column_of(&self, group: Group) -> Option<Column> {
        let column = Column(Self::load(self.columns.get(group.column)?));
        (column.epoch() == group.epoch && column.phase() != Phase::Free).then_some(column)
    }

    /// Whether the group is there, and was not put out.
    pub(crate) fn is_active(&self, group: Group) -> bool {
        self.column_of(group).is_some_and(|column| column.phase() == Phase::Active)
    }

    /// Takes a free column for a group that is to join; `None` if there is none.
    pub(crate) fn reserve(&self, entry: usize, pressure: Pressure, me: u16) -> Option<Group> {
        self.columns().find_map(|(index, column)| {
            let epoch = column.epoch().wrapping_add(1);
            let joining = Column::new(Phase::Joining, pressure, me, entry, epoch);
            (column.phase() == Phase::Free && Self::change(&self.columns[index], column.0, joining.0))
                .then_some(Group { column: index, epoch })
        })
    }

    /// Gives a column back that was reserved and not activated.
    pub(crate) fn unreserve(&self, index: usize, column: Column) {
        if column.phase() == Phase::Joining {
            Self::change(&self.columns[index], column.0, column.with(Phase::Free).0);
        }
    }

    /// Makes a group join whose column is reserved: it sees what is published from now on, and up to `history` messages that
    /// are there. `false` if the column is not the caller's any more.
    pub(crate) fn activate(&self, group: Group, patience: u64, history: u64) -> bool {
        let Some(column) = self.column_of(group) else { return false };
        let line = &self.lines[group.column];
        for index in 0..self.cells.len() {
            // Ordering: nobody looks at a column that is being joined.
            self.mark(index, group.column).store(Mark::new(State::Fresh, 0, group.epoch, 0).0, Ordering::SeqCst);
        }
        for word in [&line.stuck, &line.returned, &line.missed, &line.discarded] {
            word.store(0, Ordering::SeqCst);
        }
        line.patience.store(patience, Ordering::SeqCst);
        let history = history.min(self.history);
        let first = self.tail().saturating_sub(history);
        line.start.store(first, Ordering::SeqCst);
        if !Self::change(&self.columns[group.column], column.0, column.with(Phase::Active).0) {
            return false;
        }
        // I5. What came in between is none of the group's: it is passed over, so that nobody counts it as skipped.
        let end = self.tail();
        let start = end.saturating_sub(history);
        line.joined.store(end, Ordering::SeqCst);
        for position in first.max(start.saturating_sub(self.len()))..start {
            let mark = self.mark(self.index(position), group.column);
            let done = Mark::new(State::Done, 0, group.epoch, self.lap(position));
            let _ = mark.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| {
                (!Mark(now).pins(group.epoch)).then_some(done.0)
            });
        }
        line.start.fetch_max(start, Ordering::SeqCst);
        true
    }

    /// Where the group began.
    pub(crate) fn start(&self, group: Group) -> u64 {
        Self::load(&self.lines[group.column].start)
    }

    /// Puts a group out that was seen with that column; `false` if that has changed.
    pub(crate) fn evict(&self, index: usize, column: Column) -> bool {
        column.phase() == Phase::Active && Self::change(&self.columns[index], column.0, column.with(Phase::Evicted).0)
    }

    /// The group has no members any more. Whatever it has not taken it will not take; what is held stays so.
    pub(crate) fn leave(&self, group: Group) {
        while let Some(column) = self.column_of(group) {
            if column.phase() == Phase::Leaving
                || Self::change(&self.columns[group.column], column.0, column.with(Phase::Leaving).0)
            {
                break;
            }
        }
    }

    /// Frees the columns of groups that have left and hold nothing any more.
    pub(crate) fn free_columns(&self) {
        for (index, column) in self.columns().filter(|(_, column)| column.phase() == Phase::Leaving) {
            if !(0..self.cells.len()).any(|cell| Mark(Self::load(self.mark(cell, index))).pins(column.epoch())) {
                Self::change(&self.columns[index], column.0, column.with(Phase::Free).0);
            }
        }
    }

    /// Whether some group has left and holds something.
    pub(crate) fn is_left(&self, group: Group) -> bool {
        self.column_of(group).is_some_and(|column| column.phase() == Phase::Leaving)
    }

    // ---- Publishing ----

    /// The first position that is not published.
    pub(crate) fn tail(&self) -> u64 {
        self.first_unfilled(Self::load(&self.tail_hint)).0
    }

    fn first_unfilled(&self, from: u64) -> (u64, u64, i32) {
        let mut position = from;
        for _ in 0..self.patience() {
            let cell = Self::load(self.cell(self.index(position)));
            let steps = self.steps(cell, position);
            match steps {
                0 => return (position, cell, 0),
                OPEN | CLOSED => position = position.wrapping_add(1),
                _ => {
                    // By how much is only meaningful if the caller did not sleep for too long.
                    let hint = Self::load(&self.tail_hint);
                    if hint > position {
                        position = hint;
                    } else if steps < 0 {
                        return (position, cell, steps);
                    } else if steps % 4 == 0 {
                        position = self.at(position, steps).wrapping_add(1).wrapping_sub(self.len());
                    } else {
                        position = self.at(position, steps).wrapping_add(1);
                    }
                }
            }
        }
        (position, Self::load(self.cell(self.index(position))), i32::MIN)
    }

    /// What to do to publish. `now` is the time in milliseconds.
    pub(crate) fn next(&self, private: &Position, now: impl Fn() -> u64) -> Next {
        for _ in 0..self.patience() {
            let (position, cell, steps) = self.first_unfilled(private.get());
            private.set(position);
            if matches!(steps, 0 | -1) {
                // Also of a position that will be void: else what is so far behind it would stay open.
                let before = position.checked_sub(self.capacity);
                if let Some(next) = before.and_then(|before| self.close_for_room(before, &now)) {
                    return next;
                }
            }
            match steps {
                0 => return Next::Vacant(Vacancy { position, cell }),
                // Closed, a lap ago.
                -1 => {
                    let index = self.index(position);
                    if self.unpinned(index).is_some() {
                        return Next::Retire(index);
                    }
                    // It is held. The next position, then.
                    let void = u64::from(self.tag(position).wrapping_add(CLOSED as u32)) << 32 | cell & 0xffff_ffff;
                    Self::change(self.cell(index), cell, void);
                }
                // Open, a lap ago: somebody has published less than two capacities after it, which only garbage does.
                -3 => {
                    if let Some(next) = self.close_for_room(position.wrapping_sub(self.len()), &now) {
                        return next;
                    }
                }
                _ => return Next::Wait(None),
            }
        }
        Next::Wait(None)
    }

    /// Makes room: skips the message at that position for those who let themselves be skipped, and closes it. `None` if there was
    /// room.
    fn close_for_room(&self, position: u64, now: &impl Fn() -> u64) -> Option<Next> {
        let index = self.index(position);
        let cell = Self::load(self.cell(index));
        if self.steps(cell, position) != OPEN {
            return None;
        }
        let lap = self.lap(position);
        for (column, word) in self.active() {
            let line = &self.lines[column];
            if position < Self::load(&line.start) {
                continue;
            }
            loop {
                let mark = Mark(Self::load(self.mark(index, column)));
                if mark.has_taken(word.epoch(), lap) {
                    break;
                }
                match word.pressure() {
                    Pressure::Lag => self.skip(index, column, mark, word.epoch(), lap),
                    Pressure::Block => return Some(Next::Wait(None)),
                    Pressure::Evict => {
                        let left = line.time_left(position, now());
                        return Some(if left == 0 { Next::Evict(column, word) } else { Next::Wait(Some(left)) });
                    }
                }
            }
        }
        Self::change(self.cell(index), cell, closed(cell));
        Some(Next::Retire(index))
    }

    /// Takes the message of that lap on a group's behalf, and counts it, in one step.
    fn skip(&self, index: usize, column: usize, mark: Mark, epoch: u16, lap: u64) {
        let before = if mark.state(epoch) == State::Skipped { mark.skipped() } else { 0 };
        let overflows = before == MOST_SKIPPED;
        let count = if overflows { 1 } else { before + 1 };
        if Self::change(self.mark(index, column), mark.0, Mark::new(State::Skipped, count, epoch, lap).0) && overflows {
            self.lines[column].missed.fetch_add(before, Ordering::SeqCst);
        }
    }

    /// Whether a publisher would find room now.
    pub(crate) fn has_room(&self, now: u64) -> bool {
        let tail = self.tail();
        for position in tail..tail.saturating_add(self.len()) {
            let index = self.index(position);
            let steps = self.steps(Self::load(self.cell(index)), position);
            let before = match steps {
                0 | -1 => position.checked_sub(self.capacity),
                -3 => position.checked_sub(self.len()),
                _ => return false,
            };
            if !before.is_none_or(|before| self.can_close(before, now)) {
                return false;
            }
            // As in `next`: it is emptied, or void.
            if steps != -1 || self.unpinned(index).is_some() {
                return true;
            }
        }
        false
    }

    /// Whether the message at a position keeps no publisher waiting.
    fn can_close(&self, position: u64, now: u64) -> bool {
        let index = self.index(position);
        self.steps(Self::load(self.cell(index)), position) != OPEN
            || self.active().all(|(column, word)| {
                let line = &self.lines[column];
                position < Self::load(&line.start)
                    || word.pressure() == Pressure::Lag
                    || Mark(Self::load(self.mark(index, column))).has_taken(word.epoch(), self.lap(position))
                    || word.pressure() == Pressure::Evict && line.is_out_of_time(position, now)
            })
    }

    /// Publishes: fills a cell that was vacant. `None` if it is not any more.
    #[cfg_attr(crash_points, track_caller)]
    pub(crate) fn fill(&self, private: &Position, vacancy: Vacancy, block: BlockId) -> Option<u64> {
        let Vacancy { position, cell } = vacancy;
        let open = u64::from(self.tag(position).wrapping_add(OPEN as u32)) << 32 | u64::from(block.0);
        if !Self::change(self.cell(self.index(position)), cell, open) {
            return None;
        }
        let next = position.wrapping_add(1);
        private.set(next);
        if next.is_multiple_of(HINT_INTERVAL) {
            self.tail_hint.fetch_max(next, Ordering::SeqCst);
        }
        Some(position)
    }

    /// Closes the oldest message that only keeps memory: of which nobody who makes publishers wait has still to take his. Its
    /// index, if there is one.
    pub(crate) fn shed(&self, now: impl Fn() -> u64) -> Option<usize> {
        let tail = self.tail();
        for position in tail.saturating_sub(self.capacity)..tail {
            match self.close_for_room(position, &now) {
                None => {}
                Some(Next::Retire(index)) => return Some(index),
                Some(_) => return None,
            }
        }
        None
    }

    // ---- Retiring ----

    /// Closes the message at a position if all groups are done with it, and it is no history.
    pub(crate) fn close_if_done(&self, position: u64) {
        let index = self.index(position);
        let cell = Self::load(self.cell(index));
        if self.steps(cell, position) != OPEN || !self.is_past(position) {
            return;
        }
        let lap = self.lap(position);
        let is_done = self.columns().all(|(column, word)| {
            let mark = Mark(Self::load(self.mark(index, column)));
            match word.phase() {
                Phase::Free | Phase::Joining => true,
                _ if mark.pins(word.epoch()) => false,
                Phase::Active => position < Self::load(&self.lines[column].start) || mark.has_taken(word.epoch(), lap),
                Phase::Evicted | Phase::Leaving => true,
            }
        });
        if is_done {
            Self::change(self.cell(index), cell, closed(cell));
        }
    }

    /// Whether there are as many later messages as are kept for those who come late.
    fn is_past(&self, position: u64) -> bool {
        if self.history == 0 {
            return true;
        }
        let later = position.wrapping_add(self.history);
        self.steps(Self::load(self.cell(self.index(later))), later) >= OPEN
    }

    /// The cell, if it is closed and nothing pins its block.
    pub(crate) fn unpinned(&self, index: usize) -> Option<Unpinned> {
        let cell = Self::load(self.cell(index));
        if cell >> 32 & 3 != CLOSED as u64 {
            return None;
        }
        let is_pinned = self
            .columns()
            .any(|(column, word)| word.may_pin() && Mark(Self::load(self.mark(index, column))).pins(word.epoch()));
        (!is_pinned).then_some(Unpinned { index, cell })
    }

    /// Empties a closed cell: whoever succeeds has the block.
    #[cfg_attr(crash_points, track_caller)]
    pub(crate) fn take(&self, unpinned: Unpinned) -> bool {
        let empty = u64::from(((unpinned.cell >> 32) as u32).wrapping_add(1)) << 32;
        Self::change(self.cell(unpinned.index), unpinned.cell, empty)
    }

    /// The last position of each cell that was published.
    pub(crate) fn published(&self) -> impl Iterator<Item = u64> {
        let tail = self.tail();
        tail.saturating_sub(self.len())..tail
    }

    /// Every cell that names a block, closed if it was not: for who takes the log down.
    pub(crate) fn close_all(&self) -> impl Iterator<Item = Unpinned> + '_ {
        (0..self.cells.len()).filter_map(|index| {
            let cell = Self::load(self.cell(index));
            match (cell >> 32 & 3) as i32 {
                CLOSED => Some(Unpinned { index, cell }),
                OPEN if Self::change(self.cell(index), cell, closed(cell)) => {
                    Some(Unpinned { index, cell: closed(cell) })
                }
                _ => None,
            }
        })
    }

    // ---- Receiving ----

    /// What there is for a group, beginning at `private`, which is raised over what the group has taken.
    fn look(&self, group: Group, private: &Position) -> Seen {
        let mut position = private.get().max(self.start(group));
        for _ in 0..self.patience() {
            private.set(position);
            let index = self.index(position);
            let cell = Self::load(self.cell(index));
            let steps = self.steps(cell, position);
            if steps <= 0 {
                let hint = Self::load(&self.tail_hint);
                // Only who slept for too long has so much to catch up with.
                if hint <= position || steps == 0 {
                    return Seen::Nothing;
                }
                position = hint.saturating_sub(self.len()).max(position + 1);
                continue;
            }
            let mark = Mark(Self::load(self.mark(index, group.column)));
            if mark.state(group.epoch) == State::Skipped {
                return Seen::Skipped;
            }
            if steps == OPEN && !mark.has_taken(group.epoch, self.lap(position)) {
                return Seen::Open { position, cell, mark };
            }
            // Taken; or closed, and void, or gone before the group joined; or gone by laps.
            let oldest = self.at(position, steps).saturating_add(1).saturating_sub(self.len());
            position = position.saturating_add(1).max(oldest);
        }
        Seen::Nothing
    }

    /// Whether a member would find something other than nothing.
    pub(crate) fn has_work(&self, group: Group, private: &Position) -> bool {
        !self.is_active(group)
            || Self::load(&self.lines[group.column].returned) & 1 == 1
            || !matches!(self.look(group, private), Seen::Nothing)
    }

    /// Takes the next message for a group.
    pub(crate) fn receive(&self, group: Group, private: &Position, me: u16) -> Found {
        if !self.is_active(group) {
            return Found::Evicted;
        }
        if Self::load(&self.lines[group.column].returned) & 1 == 1
            && let Some(taken) = self.take_returned(group, me)
        {
            return Found::Message(taken);
        }
        loop {
            match self.look(group, private) {
                Seen::Nothing => return Found::Nothing,
                Seen::Skipped => {
                    let missed = self.count_missed(group);
                    if missed > 0 {
                        return Found::Lagged(missed);
                    }
                }
                Seen::Open { position, cell, mark } => {
                    let index = self.index(position);
                    let word = self.mark(index, group.column);
                    let held = Mark::held(me, 0, group.epoch, self.lap(position));
                    if !Self::change(word, mark.0, held.0) {
                        continue;
                    }
                    // I1.
                    if Self::load(self.cell(index)) == cell || self.is_heeded(group, position) {
                        private.set(position.wrapping_add(1));
                        return Found::Message(Taken { position, block: BlockId(cell as u32), mark: held });
                    }
                    // Missed, then.
                    Self::change(word, held.0, Mark::new(State::Skipped, 1, group.epoch, self.lap(position)).0);
                    return Found::Settle(position);
                }
            }
        }
    }

    /// Whether nobody could close the message at that position who had not seen that the group has taken it.
    fn is_heeded(&self, group: Group, position: u64) -> bool {
        position >= Self::load(&self.lines[group.column].joined) && self.is_active(group)
    }

    /// How many messages were skipped that no member was told of.
    fn count_missed(&self, group: Group) -> u64 {
        let mut missed = self.lines[group.column].missed.swap(0, Ordering::SeqCst);
        for index in 0..self.cells.len() {
            let word = self.mark(index, group.column);
            loop {
                let mark = Mark(Self::load(word));
                if mark.state(group.epoch) != State::Skipped {
                    break;
                }
                if Self::change(word, mark.0, Mark::new(State::Done, 0, group.epoch, mark.lap()).0) {
                    missed += mark.skipped();
                    break;
                }
            }
        }
        missed
    }

    /// The position of what a mark is about.
    fn position_of(&self, index: usize, mark: Mark, tail: u64) -> u64 {
        let last = self.lap(tail);
        let lap = last.wrapping_sub(last.wrapping_sub(mark.lap()) & LAP);
        lap << self.log | index as u64
    }

    /// Takes the oldest message that came back.
    fn take_returned(&self, group: Group, me: u16) -> Option<Taken> {
        let returned = &self.lines[group.column].returned;
        loop {
            let seen = Self::load(returned);
            let tail = self.tail();
            let found = (0..self.cells.len())
                .map(|index| (index, Mark(Self::load(self.mark(index, group.column)))))
                .filter(|(_, mark)| mark.state(group.epoch) == State::Returned)
                .map(|(index, mark)| (self.position_of(index, mark, tail), index, mark))
                .min_by_key(|(position, _, _)| *position);
            let Some((position, index, mark)) = found else {
                // It fails if another has come back since we began to look.
                Self::change(returned, seen, seen & !1);
                return None;
            };
            let held = Mark::held(me, mark.count(), group.epoch, mark.lap());
            if Self::change(self.mark(index, group.column), mark.0, held.0) {
                // Pinned all the time: the cell has named it since.
                let block = BlockId(Self::load(self.cell(index)) as u32);
                return Some(Taken { position, block, mark: held });
            }
        }
    }

    /// The group is done with a message that the caller holds: settle its position.
    #[cfg_attr(crash_points, track_caller)]
    pub(crate) fn acknowledge(&self, group: Group, taken: &Taken) {
        let done = Mark::new(State::Done, 0, group.epoch, taken.mark.lap());
        Self::change(self.mark(self.index(taken.position), group.column), taken.mark.0, done.0);
    }

    /// A message comes back, or is done with if it was delivered `most` times. (0: it never comes back.)
    pub(crate) fn give_back(&self, group: Group, taken: &Taken, most: u64) -> GivenBack {
        let tries = taken.mark.count().saturating_add(1);
        let lap = taken.mark.lap();
        let word = self.mark(self.index(taken.position), group.column);
        let comes_back = u64::from(tries) < most && self.is_active(group);
        let to = if comes_back {
            Mark::returned(tries, group.epoch, lap)
        } else {
            Mark::new(State::Done, 0, group.epoch, lap)
        };
        if !Self::change(word, taken.mark.0, to.0) {
            return GivenBack::Changed;
        }
        let line = &self.lines[group.column];
        if comes_back {
            line.has_returned();
            return GivenBack::Waits;
        }
        if most > 0 {
            line.discarded.fetch_add(1, Ordering::SeqCst);
        }
        GivenBack::Done
    }

    /// Messages that were delivered as often as they may be.
    pub(crate) fn discarded(&self, group: Group) -> u64 {
        Self::load(&self.lines[group.column].discarded)
    }

    /// Messages that wait for a group, as far as `private` knows.
    pub(crate) fn waiting(&self, group: Group, private: &Position) -> u64 {
        let tail = self.tail();
        let from = private.get().max(self.start(group)).max(tail.saturating_sub(self.len()));
        let open = (from..tail).filter(|position| {
            let index = self.index(*position);
            self.steps(Self::load(self.cell(index)), *position) == OPEN
                && !Mark(Self::load(self.mark(index, group.column))).has_taken(group.epoch, self.lap(*position))
        });
        open.count() as u64
    }

    /// Whether members other than the participant hold something for the group, or something came back.
    pub(crate) fn is_held_by_others(&self, group: Group, me: u16) -> bool {
        (0..self.cells.len()).any(|index| {
            let mark = Mark(Self::load(self.mark(index, group.column)));
            match mark.state(group.epoch) {
                State::Held => mark.participant() != me,
                State::Returned => true,
                _ => false,
            }
        })
    }

    /// A participant is dead, or holds nothing any more: what it held comes back, if `most` says of the group's entry that
    /// messages do. Can be repeated. Whoever calls this settles all positions afterwards.
    pub(crate) fn bury(&self, participant: u16, most: impl Fn(usize) -> u64) {
        for (column, word) in self.columns() {
            match word.phase() {
                Phase::Joining if word.participant() == participant => self.unreserve(column, word),
                Phase::Active | Phase::Evicted | Phase::Leaving => {
                    self.bury_in(Group { column, epoch: word.epoch() }, participant, most(word.entry()));
                }
                _ => {}
            }
        }
    }

    fn bury_in(&self, group: Group, participant: u16, most: u64) {
        let tail = self.tail();
        let mut has_returned = false;
        for index in 0..self.cells.len() {
            let mark = Mark(Self::load(self.mark(index, group.column)));
            match mark.state(group.epoch) {
                State::Held if mark.participant() == participant => {
                    let position = self.position_of(index, mark, tail);
                    self.give_back(group, &Taken { position, block: BlockId(0), mark }, most);
                }
                // Whoever gave it back may have died before it said so.
                State::Returned => has_returned = true,
                _ => {}
            }
        }
        if has_returned {
            self.lines[group.column].has_returned();
        }
    }

    /// What came back to a group that is put out, or leaves, is done with. Whoever calls this settles all positions
    /// afterwards.
    pub(crate) fn forget_returned(&self, group: Group) {
        for index in 0..self.cells.len() {
            let word = self.mark(index, group.column);
            let mark = Mark(Self::load(word));
            if mark.state(group.epoch) == State::Returned {
                Self::change(word, mark.0, Mark::new(State::Done, 0, group.epoch, mark.lap()).0);
            }
        }
    }
}

/// An open cell, closed.
fn closed(cell: u64) -> u64 {
    cell | 2 << 32
}

impl GroupLine {
    fn has_returned(&self) {
        // It never fails.
        let _ = self
            .returned
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |returned| Some(returned.wrapping_add(2) | 1));
    }

    /// How long publishers wait for the group to take that position; 0 if they have waited long enough.
    fn time_left(&self, position: u64, now: u64) -> u64 {
        let patience = Log::load(&self.patience);
        let key = (position & 0xff_ffff) << 40;
        let stuck = Log::load(&self.stuck);
        let now = now & ((1 << 40) - 1);
        if stuck >> 40 << 40 != key || stuck == 0 {
            // Of two who come at once either will do. (`| 1`: at position 0, time 0, too.)
            Log::change(&self.stuck, stuck, key | now | 1);
            return patience.max(1);
        }
        let since = stuck & ((1 << 40) - 1);
        patience.saturating_sub(now.saturating_sub(since))
    }

    fn is_out_of_time(&self, position: u64, now: u64) -> bool {
        let stuck = Log::load(&self.stuck);
        let since = stuck & ((1 << 40) - 1);
        stuck != 0
            && stuck >> 40 == position & 0xff_ffff
            && (now & ((1 << 40) - 1)).saturating_sub(since) >= Log::load(&self.patience)
    }
}
