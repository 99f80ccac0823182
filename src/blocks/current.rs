//! The block that is *current*: the value of a watch, which anybody may replace and anybody may read.
//!
//! One word of shared memory names it: `block:32 | generation:24 | version:8`, 0 for none. A block that is named is SHARED, and is
//! never written to again; whoever has another value makes another block of it.
//!
//! * **C1 Replace.** A writer makes a block, SHARED with its lane as owner, and puts its name into the word by a CAS: that is
//!   the moment. Then it hands the block over to the segment (C2), and dooms the one that was named before.
//! * **C2 Hand over.** The writer makes the segment the owner of its block, by a CAS of the block's word, and looks (after a
//!   full fence) at the name again: if it is another one by now, it dooms the block itself. So an owner that is the segment
//!   means that the block was named; and one that was named and is not any more is doomed by whoever finds it so.
//! * **C3 Read.** A reader takes the name, comes to the block as to any other (G1 and G2 of [`guard`](super::guard)), and
//!   finds it SHARED in that generation or starts over: then somebody has replaced it. While it has its mark the block stays
//!   as it is, and so its name cannot come back for another value.
//! * **C4 Judge.** A reaper reads the word of a block, and then (after a full fence) the name. If the owner is the segment or
//!   dead, and the block is not named, it never will be: it is doomed. If it is named and the owner is dead, it is handed over.
//!   In this order: a name that was read first may be one that a living writer has replaced meanwhile by this very block.
//!
//! Killed at any step, a writer leaves the old value or the new one, whole; and what is too much is found by its owner (C4).

use crate::{
    alloc::word::{State, Word},
    blocks::guard::Place,
    region::lanes::{BlockId, LaneId},
    sys::sync::{AtomicU64, Ordering, fence},
};

/// What stands in the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name(u64);

impl Name {
    /// No block.
    pub(crate) const NONE: Self = Self(0);

    /// The name of a block that is put where this one stood. Blocks come again, with the same generation after 2²⁴ times: so
    /// the name has a version of its own.
    pub(crate) fn next(self, id: BlockId, generation: u32) -> Self {
        // Never 0, whatever block it is.
        let version = (self.0 as u8 % 255) + 1;
        Self(u64::from(id.0) << 32 | u64::from(generation & 0xff_ffff) << 8 | u64::from(version))
    }

    pub(crate) fn id(self) -> BlockId {
        BlockId((self.0 >> 32) as u32)
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 8) as u32 & 0xff_ffff
    }

    /// Whether it is the name of this block.
    pub(crate) fn is_of(self, id: BlockId, generation: u32) -> bool {
        self != Self::NONE && self.id() == id && self.generation() == generation
    }
}

/// Reads the name.
#[inline(always)]
pub(crate) fn load(word: &AtomicU64) -> Name {
    // Ordering: SeqCst: against a waiter that parks and looks again; acquires the block that is named.
    Name(word.load(Ordering::SeqCst))
}

/// C1: names another block. `Err` is what stands there instead.
#[cfg_attr(crash_points, track_caller)]
pub(crate) fn replace(word: &AtomicU64, from: Name, to: Name) -> Result<(), Name> {
    // Ordering: SeqCst: publishes the block; and then the look at who is parked.
    let replaced = word.compare_exchange(from.0, to.0, Ordering::SeqCst, Ordering::SeqCst);
    replaced.map(|_| ()).map_err(Name)
}

/// The name as a word, for those who wait for another one.
pub(crate) fn as_news(name: Name) -> u64 {
    name.0
}

/// What a reaper makes of a SHARED block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// It stays.
    Kept,
    /// It stays; its owner is to be the segment.
    HandedOver,
    /// Nobody will come for it any more.
    Left,
}

impl Place<'_> {
    /// C2, for a block of the caller's process that it has named; `true` if it must be doomed.
    pub(crate) fn hand_over(&self, word: &AtomicU64) -> bool {
        let Self { sector, block, .. } = self;
        let granule = block.id.granule();
        let mine = sector.word(granule);
        // If it is something else, or becomes so, somebody has replaced and doomed it.
        let kept = mine == Word::shared(mine.lane(), block.len, block.generation)
            && sector.replace(granule, mine, Word::shared(LaneId::SEGMENT, block.len, block.generation));
        // Against the one in `judge`: the reaper of who has replaced the name sees whose the block is, or we see the name.
        fence(Ordering::SeqCst);
        kept && !load(word).is_of(block.id, block.generation)
    }
}

/// C4, for a block whose word was just read. `is_named` looks at the names.
pub(crate) fn judge(word: Word, is_dead: bool, is_named: impl FnOnce() -> bool) -> Judged {
    debug_assert!(word.state() == State::Shared);
    if !is_dead && word.lane() != LaneId::SEGMENT {
        return Judged::Kept;
    }
    // Against the one in `hand_over`.
    fence(Ordering::SeqCst);
    match (is_named(), is_dead) {
        (false, _) => Judged::Left,
        (true, true) => Judged::HandedOver,
        (true, false) => Judged::Kept,
    }
}
