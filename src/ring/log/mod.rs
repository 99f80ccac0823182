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
//! Each group has a **column** of marks, one beside each cell. `mark = lap:27 | epoch:16 | count:8 | participant:10 | state:3`:
//!
//! | state | meaning | who changes it |
//! |---|---|---|
//! | `FRESH` | the group has not been here since it joined | a member or a publisher |
//! | `DONE` | done with the message of that lap | the same, for a later lap |
//! | `SKIPPED` | so many messages at this cell, the last of them that of the lap, were skipped, and no member has been told (`count` and `participant` are that number) | the same; a member that tells, to `DONE` |
//! | `HELD` | the participant has the message of that lap; it was delivered `count` times before | that participant; its reaper |
//! | `RETURNED` | the message of that lap came back, for the `count`th time | a member |
//! | `CLAIMED` | as `HELD`, of a message that was there before the group: the participant has not looked yet whether it was closed | that participant, to `HELD` or `DONE`; its reaper |
//! | `WANTED` | the message of that lap was there before the group, which is to have it | a member, a publisher |
//!
//! A position is *taken* by a group once its mark has that lap or a later one. A mark of another epoch is of a group that had
//! the column before, and counts as `FRESH`.
//!
//! A column's word: `reservation:27 | epoch:16 | entry + 1:16 | behind:2 | phase:3`.
//!
//! ```text
//! FREE ──► JOINING(entry) ──► ACTIVE ──► EVICTED
//!  ▲ ▲         │  │             └───► LEAVING ◄┘
//!  │ └─ given back└──────────────────►   │
//!  └────────────── nothing is held ──────┘
//! ```
//!
//! A reservation is nobody's own: it is for a group, whose entry in the directory then **names** one of those that were made for it, by a
//! CAS that succeeds once. Who has an end of the group does the rest, from wherever others stand. A reservation that was not named is given
//! back, and its epoch begins with the next one; so that a late step finds another word, reservations are numbered, too.
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
//! * **I6** What a hint, or a tail, is compared with is looked at after it. A hint that is beyond a position says that the position
//!   was published, and nothing of when: a cell that was loaded before may be that of a lap ago. And what was published after the
//!   tail was looked at may be of a lap that it knows nothing of.
//! * **I7** Who ends a group says so in its column and then looks for marks RETURNED; who writes RETURNED looks at the column after
//!   that. So one of them sees the other, and nothing that nobody will come for stays pinned.
//! * **I8** A publisher takes nothing from a group that lags before it has seen that no other group keeps it from publishing: so who
//!   is refused has skipped nothing.
//! * **I9** All marks of a group are of its epoch before it is active. So who finds one of another epoch, beside a column that was the
//!   group's when it looked, stands still for so long that somebody else has the column: that mark is not his to change.
//! * **I5** Nobody writes beside a column that is not named by the entry of a group of which he has an end; and that column is not free before the
//!   entry goes, which is not before all its ends. So whoever stands still while a group joins, at whatever step, writes into nothing that
//!   is another group's when it goes on; and others of the group need not wait for it: each step is a CAS from what was left by who had
//!   the column before, which the epoch tells apart. A group is active before anybody looks where the end is, and where that was is said
//!   once, by whoever asks first: what is published from there on is retired only by those who see the group. Of what was published before,
//!   members mark what they find open, from the last one backwards to the first that is not; what is closed after that, by who did not
//!   see the group, is told as missed.

mod columns;
mod publishing;
mod receiving;
mod retiring;
mod viewing;
mod words;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

#[cfg(not(loom))]
pub(crate) use viewing::Published;
pub(crate) use words::{Column, GroupLine, Phase, Pressure};
use words::{Joined, LAP, MOST_SKIPPED, Mark, State, Terms};

use crate::{
    region::lanes::BlockId,
    ring::Position,
    sys::{
        shared::{SharedRef, SharedSlice},
        sync::{AtomicU64, Ordering},
    },
};

/// How many messages lie between two raises of the hint. A model has few messages.
const HINT_INTERVAL: u64 = if cfg!(loom) { 3 } else { 64 };
/// The most groups of a log.
pub(crate) const MAX_GROUPS: usize = 64;

const OPEN: i32 = 1;
const CLOSED: i32 = 3;

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
    /// See whether the message at that position can be retired. So many were missed; if none was, ask again.
    Settle {
        position: u64,
        missed: u64,
    },
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
    Open {
        position: u64,
        cell: u64,
        mark: Mark,
    },
    /// The group was to have what was here, and it was closed without its being asked.
    Gone {
        position: u64,
        mark: Mark,
    },
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
        // Ordering: Relaxed: publication of the broadcast orders all of it.
        self.columns.iter().chain(self.marks.iter()).for_each(|word| word.store(0, Ordering::Relaxed));
        self.lines.iter().for_each(GroupLine::format);
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
}

/// An open cell, closed.
fn closed(cell: u64) -> u64 {
    cell | 2 << 32
}
