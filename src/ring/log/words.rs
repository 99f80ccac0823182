//! What stands in the words of a log. The tables are in [`log`](super), and at each.

use super::Log;
use crate::{
    segment::layout::MAX_PARTICIPANTS,
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

impl Column {
    pub(super) fn new(phase: Phase, pressure: Pressure, participant: u16, entry: usize, epoch: u16) -> Self {
        Self(
            phase as u64
                | (pressure as u64) << 3
                | (u64::from(participant) & PARTICIPANT) << 5
                | ((entry as u64 + 1) & 0xffff) << 15
                | u64::from(epoch) << 31,
        )
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

    /// Who is joining.
    pub(crate) fn participant(self) -> u16 {
        (self.0 >> 5 & PARTICIPANT) as u16
    }

    /// The group's entry in the directory; not checked.
    pub(crate) fn entry(self) -> usize {
        (self.0 >> 15 & 0xffff).wrapping_sub(1) as usize
    }

    pub(crate) fn epoch(self) -> u16 {
        (self.0 >> 31) as u16
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
        self.state(epoch) != State::Fresh && ahead >= 0
    }

    pub(super) fn pins(self, epoch: u16) -> bool {
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
    pub(super) start: AtomicU64,
    pub(super) patience: AtomicU64,
    pub(super) stuck: AtomicU64,
    pub(super) returned: AtomicU64,
    pub(super) missed: AtomicU64,
    pub(super) discarded: AtomicU64,
    pub(super) joined: AtomicU64,
    _rest: AtomicU64,
}

impl GroupLine {
    pub(super) fn has_returned(&self) {
        // It never fails.
        let _ = self
            .returned
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |returned| Some(returned.wrapping_add(2) | 1));
    }

    /// How long publishers wait for the group to take that position; 0 if they have waited long enough.
    pub(super) fn time_left(&self, position: u64, now: u64) -> u64 {
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
}
