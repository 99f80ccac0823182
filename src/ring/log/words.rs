//! What stands in the words of a log. The tables are in [`log`](super), and at each.

use super::Log;
use crate::{
    region::layout::MAX_PARTICIPANTS,
    sys::sync::{AtomicU64, Ordering},
};

/// What names a participant in a word.
const PARTICIPANT: u64 = MAX_PARTICIPANTS as u64 - 1;

const _: () = assert!(MAX_PARTICIPANTS == 1 << 10, "marks and columns have ten bits for a participant");

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
pub(crate) struct Column(pub(super) u64);

const ENTRY_SHIFT: u32 = 5;
const COLUMN_EPOCH_SHIFT: u32 = 21;
const RESERVATION_SHIFT: u32 = 37;

impl Column {
    /// A free column, reserved for a group.
    pub(super) fn reserved(self, pressure: Pressure, entry: usize) -> Self {
        Self(
            Phase::Joining as u64
                | (pressure as u64) << 3
                | ((entry as u64 + 1) & 0xffff) << ENTRY_SHIFT
                | u64::from(self.epoch().wrapping_add(1)) << COLUMN_EPOCH_SHIFT
                | ((self.0 >> RESERVATION_SHIFT) + 1) << RESERVATION_SHIFT,
        )
    }

    /// A reserved column, free as it was before: its epoch has not begun.
    pub(super) fn given_back(self) -> Self {
        let epoch = u64::from(self.epoch().wrapping_sub(1)) << COLUMN_EPOCH_SHIFT;
        Self(self.0 >> RESERVATION_SHIFT << RESERVATION_SHIFT | epoch)
    }

    pub(super) fn with(self, phase: Phase) -> Self {
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

    pub(super) fn pressure(self) -> Pressure {
        match self.0 >> 3 & 3 {
            1 => Pressure::Block,
            2 => Pressure::Evict,
            _ => Pressure::Lag,
        }
    }

    /// The group's entry in the directory; not checked.
    pub(crate) fn entry(self) -> usize {
        (self.0 >> ENTRY_SHIFT & 0xffff).wrapping_sub(1) as usize
    }

    pub(crate) fn epoch(self) -> u16 {
        (self.0 >> COLUMN_EPOCH_SHIFT) as u16
    }

    /// Whether its marks may pin something.
    pub(super) fn may_pin(self) -> bool {
        matches!(self.phase(), Phase::Active | Phase::Evicted | Phase::Leaving)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Fresh = 0,
    Done = 1,
    Skipped = 2,
    Held = 3,
    Returned = 4,
    Claimed = 5,
    Wanted = 6,
}

/// A mark. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark(pub(super) u64);

/// Bits of a lap in a mark.
const LAP_BITS: u32 = 27;
pub(super) const LAP: u64 = (1 << LAP_BITS) - 1;
/// Where the count begins, behind the participant; where the epoch does, and the lap.
const COUNT_SHIFT: u32 = 13;
const EPOCH_SHIFT: u32 = 21;
const LAP_SHIFT: u32 = 37;
/// The most messages that a mark can count as skipped.
pub(super) const MOST_SKIPPED: u64 = (1 << 18) - 1;

impl Mark {
    pub(super) fn new(state: State, low: u64, epoch: u16, lap: u64) -> Self {
        Self(state as u64 | low << 3 | u64::from(epoch) << EPOCH_SHIFT | (lap & LAP) << LAP_SHIFT)
    }

    pub(super) fn held(participant: u16, count: u8, epoch: u16, lap: u64) -> Self {
        Self::new(State::Held, u64::from(participant) & PARTICIPANT | u64::from(count) << (COUNT_SHIFT - 3), epoch, lap)
    }

    /// The same, of what may have been closed by somebody who did not know of the group.
    pub(super) fn claimed(participant: u16, epoch: u16, lap: u64) -> Self {
        Self::new(State::Claimed, u64::from(participant) & PARTICIPANT, epoch, lap)
    }

    pub(super) fn returned(count: u8, epoch: u16, lap: u64) -> Self {
        Self::new(State::Returned, u64::from(count) << (COUNT_SHIFT - 3), epoch, lap)
    }

    /// The state, as far as a group of that epoch is concerned; nonsense is done.
    pub(super) fn state(self, epoch: u16) -> State {
        match self.0 & 7 {
            _ if self.epoch() != epoch => State::Fresh,
            0 => State::Fresh,
            2 => State::Skipped,
            3 => State::Held,
            4 => State::Returned,
            5 => State::Claimed,
            6 => State::Wanted,
            _ => State::Done,
        }
    }

    pub(super) fn epoch(self) -> u16 {
        (self.0 >> EPOCH_SHIFT) as u16
    }

    pub(super) fn lap(self) -> u64 {
        self.0 >> LAP_SHIFT
    }

    pub(super) fn participant(self) -> u16 {
        (self.0 >> 3 & PARTICIPANT) as u16
    }

    pub(super) fn count(self) -> u8 {
        (self.0 >> COUNT_SHIFT) as u8
    }

    /// How many were skipped.
    pub(super) fn skipped(self) -> u64 {
        self.0 >> 3 & MOST_SKIPPED
    }

    /// Whether a group of that epoch has taken what was here in that lap.
    pub(super) fn has_taken(self, epoch: u16, lap: u64) -> bool {
        // Laps are compared as far as a mark can tell them apart.
        let ahead = (self.lap().wrapping_sub(lap & LAP) << (64 - LAP_BITS)).cast_signed();
        !matches!(self.state(epoch), State::Fresh | State::Wanted) && ahead >= 0
    }

    pub(super) fn pins(self, epoch: u16) -> bool {
        matches!(self.state(epoch), State::Held | State::Returned | State::Claimed)
    }

    /// Whether it says that a group of that epoch is to have what was here in that lap.
    pub(super) fn wants(self, epoch: u16, lap: u64) -> bool {
        self.state(epoch) == State::Wanted && self.lap() == lap & LAP
    }
}

/// What there is of each group besides its marks. Each word says of which epoch it is: one of another epoch was left by a group that had
/// the column before, and counts as 0, or as not said yet.
///
/// | word | writer | meaning |
/// |---|---|---|
/// | `terms` | who makes the group join, once | `epoch:11 \| history:21 \| patience:32`: how many of the messages before `joined` concern the group; milliseconds that publishers wait for it, if it is to be evicted then |
/// | `joined` | the same: *not known*; then whoever asks first | the first position that all who close messages knew of the group for. *Not known* is `1 \| epoch:16` at both ends, else it is `0 \| epoch:10 \| position:53` |
/// | `stuck` | publishers | `epoch:16 \| position:48`: what they wait for |
/// | `since` | publishers, who only raise it, before `stuck` | since when at least, in milliseconds |
/// | `returned` | who returns a message; members | `times << 1 \| pending`: some marks say RETURNED, or SKIPPED where no member comes by any more |
/// | `missed` | publishers; members | `epoch:16 \| messages:48` that were skipped and for which a mark had no room |
/// | `discarded` | members, reapers | `epoch:16 \| messages:48` that were delivered as often as they may be |
#[cfg_attr(any(test, loom), derive(Default))]
#[repr(C, align(64))]
pub(crate) struct GroupLine {
    pub(super) terms: AtomicU64,
    pub(super) joined: AtomicU64,
    pub(super) stuck: AtomicU64,
    pub(super) since: AtomicU64,
    pub(super) returned: AtomicU64,
    pub(super) missed: AtomicU64,
    pub(super) discarded: AtomicU64,
    _rest: AtomicU64,
}

/// What a group was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms(pub(super) u64);

const HISTORY_SHIFT: u32 = 32;
const TERMS_EPOCH_SHIFT: u32 = 53;

impl Terms {
    pub(super) fn new(epoch: u16, history: u64, patience: u32) -> Self {
        let history = history & ((1 << (TERMS_EPOCH_SHIFT - HISTORY_SHIFT)) - 1);
        Self(u64::from(epoch) << TERMS_EPOCH_SHIFT | history << HISTORY_SHIFT | u64::from(patience))
    }

    pub(super) fn are_of(self, epoch: u16) -> bool {
        self.0 >> TERMS_EPOCH_SHIFT == u64::from(epoch) << TERMS_EPOCH_SHIFT >> TERMS_EPOCH_SHIFT
    }

    pub(super) fn history(self) -> u64 {
        self.0 << (64 - TERMS_EPOCH_SHIFT) >> (64 - TERMS_EPOCH_SHIFT + HISTORY_SHIFT)
    }

    pub(super) fn patience(self) -> u64 {
        self.0 & 0xffff_ffff
    }
}

/// Where a group has joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Joined(pub(super) u64);

const JOINED_EPOCH_SHIFT: u32 = 53;

impl Joined {
    /// Nobody has asked yet.
    pub(super) fn unknown(epoch: u16) -> Self {
        Self(1 << 63 | u64::from(epoch))
    }

    pub(super) fn at(epoch: u16, position: u64) -> Self {
        Self(u64::from(epoch & 0x3ff) << JOINED_EPOCH_SHIFT | position & ((1 << JOINED_EPOCH_SHIFT) - 1))
    }

    /// Where it was, if that is said for a group of that epoch.
    pub(super) fn position(self, epoch: u16) -> Option<u64> {
        (self.0 >> JOINED_EPOCH_SHIFT == u64::from(epoch & 0x3ff)).then_some(self.0 & ((1 << JOINED_EPOCH_SHIFT) - 1))
    }
}

/// A number, with the epoch that it is of.
const NUMBER_BITS: u32 = 48;
const NUMBER: u64 = (1 << NUMBER_BITS) - 1;

/// The number, if it is of that epoch; else 0.
pub(super) fn number_of(word: &AtomicU64, epoch: u16) -> u64 {
    let word = Log::load(word);
    if word >> NUMBER_BITS == u64::from(epoch) { word & NUMBER } else { 0 }
}

/// Adds to the number of that epoch.
pub(super) fn add_to(word: &AtomicU64, epoch: u16, number: u64) {
    // It never fails.
    let _ = word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| {
        let before = if now >> NUMBER_BITS == u64::from(epoch) { now & NUMBER } else { 0 };
        Some(u64::from(epoch) << NUMBER_BITS | before.saturating_add(number) & NUMBER)
    });
}

/// Takes the number of that epoch.
pub(super) fn take_from(word: &AtomicU64, epoch: u16) -> u64 {
    // A word of another epoch is left as it is.
    let taken = word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| {
        (now >> NUMBER_BITS == u64::from(epoch) && now & NUMBER > 0).then_some(u64::from(epoch) << NUMBER_BITS)
    });
    taken.map_or(0, |taken| taken & NUMBER)
}

impl GroupLine {
    /// Nobody else may look yet.
    pub(super) fn format(&self) {
        let Self { terms, joined, stuck, since, returned, missed, discarded, _rest } = self;
        for word in [terms, joined, stuck, since, returned, missed, discarded, _rest] {
            // Ordering: Relaxed: publication of the broadcast orders all of it.
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Members are to look at all marks.
    pub(super) fn has_returned(&self) {
        // It never fails.
        let _ = self
            .returned
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |returned| Some(returned.wrapping_add(2) | 1));
    }

    /// How long publishers wait for the group of that epoch to take that position; 0 if they have waited long enough.
    pub(super) fn time_left(&self, epoch: u16, position: u64, now: u64) -> u64 {
        let patience = Terms(Log::load(&self.terms)).patience();
        let (key, stuck) = (u64::from(epoch) << NUMBER_BITS | position & NUMBER, Log::load(&self.stuck));
        if stuck != key {
            // In this order, and never back: whoever finds the position finds no earlier time than that of who wrote it. If
            // somebody waits for another position at the same time, the time is later than it might be.
            self.since.fetch_max(now, Ordering::SeqCst);
            // Of two who come at once either will do.
            Log::change(&self.stuck, stuck, key);
            return patience.max(1);
        }
        patience.saturating_sub(now.saturating_sub(Log::load(&self.since)))
    }
}
