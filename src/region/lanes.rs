//! Lanes: what one thread of a participant owns while it works in a segment.
//!
//! A lane's line in shared memory holds its **intent**: one word that names what the lane is about to do, set before
//! the first step and cleared after the last, so that whoever buries it can finish or undo the work. A lane does one
//! thing at a time, hence one word is enough.
//!
//! A lane belongs to its participant until that participant leaves or dies, however often it changes threads: words of
//! blocks name lanes, and a block may outlive the thread that made it.
//!
//! | intent | meaning |
//! |---|---|
//! | `None` | nothing |
//! | `Range(sector, granule, len)` | these granules may be mine without a head word that covers them |
//! | `Send(block, generation)` | this block is on its way into a ring: its word may say IN_FLIGHT with no cell naming it |
//! | `Receive(block, generation)` | this block may have left a ring by my hand: its word may still say IN_FLIGHT |
//! | `Retry(block, generation)` | this message comes back, or goes to the dead letters: its word may say PROMISED (IN_FLIGHT) of that generation with no cell naming it |
//! | `Guard(block, generation)` | I am looking at the header of this user's block, or changing it: it must not be freed |

use std::ptr::NonNull;

use crate::{
    region::{layout::LaneLine, notes::Notes},
    sys::{
        held::{Mutex, MutexGuard},
        shared::{SharedRef, SharedSlice},
        sync::Ordering,
    },
};

/// A lane's number: below the number of lanes of the segment, and in 14 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaneId(pub(crate) u16);

impl LaneId {
    /// Owner of the blocks that belong to the segment itself, such as rings.
    pub(crate) const SEGMENT: Self = Self((1 << 14) - 1);
    /// Owner of a message in flight whose sender is dead and buried.
    pub(crate) const NOBODY: Self = Self((1 << 14) - 2);
}

/// A block's number: two bits of sector, thirty of granule. The only address that stands in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BlockId(pub(crate) u32);

impl BlockId {
    pub(crate) fn new(sector: usize, granule: u64) -> Self {
        debug_assert!(sector < 4 && granule < 1 << 30);
        Self((sector as u32) << 30 | granule as u32)
    }

    #[inline(always)]
    pub(crate) fn sector(self) -> usize {
        (self.0 >> 30) as usize
    }

    #[inline(always)]
    pub(crate) fn granule(self) -> u64 {
        u64::from(self.0 & ((1 << 30) - 1))
    }
}

/// What a lane is about to do. See the table at the top of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intent {
    None,
    Range { sector: usize, granule: u64, len: u64 },
    Send { block: BlockId, generation: u32 },
    Receive { block: BlockId, generation: u32 },
    Guard { block: BlockId, generation: u32 },
    Retry { block: BlockId, generation: u32 },
}

/// Bits of an intent: `kind:4 | …`; range: `sector:2 | granule:30 | len:22`; message: `block:32 | generation:24`.
impl Intent {
    #[inline(always)]
    pub(crate) fn pack(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Range { sector, granule, len } => 1 << 60 | (sector as u64) << 52 | granule << 22 | len,
            Self::Send { block, generation } => 2 << 60 | u64::from(block.0) << 24 | u64::from(generation),
            Self::Receive { block, generation } => 3 << 60 | u64::from(block.0) << 24 | u64::from(generation),
            Self::Guard { block, generation } => 4 << 60 | u64::from(block.0) << 24 | u64::from(generation),
            Self::Retry { block, generation } => 5 << 60 | u64::from(block.0) << 24 | u64::from(generation),
        }
    }

    /// What the word says; nonsense reads as `None`.
    pub(crate) fn unpack(word: u64) -> Self {
        let block = BlockId((word >> 24) as u32);
        let generation = (word & 0xff_ffff) as u32;
        match word >> 60 {
            1 => Self::Range {
                sector: (word >> 52 & 3) as usize,
                granule: word >> 22 & ((1 << 30) - 1),
                len: word & ((1 << 22) - 1),
            },
            2 => Self::Send { block, generation },
            3 => Self::Receive { block, generation },
            4 => Self::Guard { block, generation },
            5 => Self::Retry { block, generation },
            _ => Self::None,
        }
    }
}

/// What lanes count, each for itself: statistics, and nothing that anything depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Counter {
    /// A block out of a magazine.
    CacheHit,
    /// A block of a cached size for which all magazines at hand were empty.
    CacheMiss,
    /// A free block that was divided.
    Split,
    /// A freed block that was joined with a neighbour.
    Merge,
    /// A step of growth.
    Growth,
    /// A wait for memory.
    Wait,
}

impl LaneLine {
    /// What the lane is about to do.
    pub(crate) fn intent(&self) -> Intent {
        // Ordering: SeqCst: recovery reasons about the order of its looks at cells, intents and words.
        Intent::unpack(self.intent.load(Ordering::SeqCst))
    }

    /// The block that the lane is taking out of a magazine.
    pub(crate) fn taking(&self) -> Option<u64> {
        // Ordering: Acquire, pairs with `Lane::taken`.
        self.taking.load(Ordering::Acquire).checked_sub(1)
    }
}

/// A thread's hold on a lane. Not `Clone`: one thread at a time.
#[derive(Debug)]
pub(crate) struct Lane {
    id: LaneId,
    line: SharedRef<LaneLine>,
    notes: Notes,
}

impl Lane {
    pub(crate) fn new(id: LaneId, line: SharedRef<LaneLine>) -> Self {
        Self { id, line, notes: Notes::default() }
    }

    /// Where the lane has seen free blocks.
    pub(crate) fn notes(&self) -> &Notes {
        &self.notes
    }

    #[inline(always)]
    pub(crate) fn id(&self) -> LaneId {
        self.id
    }

    /// Says what comes next.
    #[inline(always)]
    #[cfg_attr(crash_points, track_caller)]
    pub(crate) fn intend(&self, intent: Intent) {
        // Ordering: Release, so that a reaper that reads what follows in program order finds the intent, too. It learns
        // of the death from the kernel, which orders everything that the dead has done before what the reaper does.
        // Against live lanes the reaper's argument needs the store before the CAS that follows it: a locked
        // instruction on x86-64, and Release on AArch64.
        self.line.intent.store(intent.pack(), Ordering::Release);
    }

    /// Says which number the message has that comes next, for whoever has to put it back.
    pub(crate) fn note(&self, sequence: u64) {
        // Ordering: Relaxed: the intent that follows publishes it.
        self.line.sequence.store(sequence, Ordering::Relaxed);
    }

    /// Counts what was done.
    #[inline(always)]
    pub(crate) fn count(&self, what: Counter) {
        // Models are about other things, and have no steps to spare.
        if !cfg!(any(loom, shuttle)) {
            let counter = &self.line.counters[what as usize];
            // Ordering: Relaxed, a statistic that nobody else writes.
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Says which block comes out of a magazine next.
    #[inline(always)]
    #[cfg_attr(crash_points, track_caller)]
    pub(crate) fn taking(&self, granule: u64) {
        // Ordering: Relaxed, the fence behind it makes it seen in time.
        self.line.taking.store(granule + 1, Ordering::Relaxed);
    }

    /// It has come out, or not.
    #[inline(always)]
    #[cfg_attr(crash_points, track_caller)]
    pub(crate) fn taken(&self) {
        // Ordering: Release: whoever sees that nothing is being taken sees the word of what was.
        self.line.taking.store(0, Ordering::Release);
    }

    /// The work is done.
    #[inline(always)]
    #[cfg_attr(crash_points, track_caller)]
    pub(crate) fn done(&self) {
        // Ordering: Release: whoever sees the intent gone sees what it was about.
        self.line.intent.store(0, Ordering::Release);
    }
}

/// The lanes of a segment, and those of them that this process has and does not use just now.
///
/// Lanes below the number of participants are the participants' own, by their number. The others are taken by a CAS of
/// their owner from 0 to `participant + 1`, and stay with the participant until it leaves or is buried.
#[derive(Debug)]
pub(crate) struct LanePool {
    lines: SharedSlice<LaneLine>,
    participants: u16,
    me: u16,
    idle: Mutex<Vec<Lane>>,
    /// All that this process has taken, whether it uses them just now or not.
    taken: Mutex<Vec<LaneId>>,
}

impl LanePool {
    pub(crate) fn new(lines: SharedSlice<LaneLine>, participants: u16, me: u16) -> Self {
        Self { lines, participants, me, idle: Mutex::new(Vec::new()), taken: Mutex::new(Vec::new()) }
    }

    /// Says whose lanes are taken from now on.
    pub(crate) fn set_participant(&mut self, me: u16) {
        self.me = me;
    }

    /// The lane of that number. The caller is the only one to use it.
    pub(crate) fn lane(&self, id: LaneId) -> Lane {
        self.put_in_use(id);
        // SAFETY: a line of the table, which outlives the views of it.
        Lane::new(id, unsafe { SharedRef::new(NonNull::from(&self.lines[usize::from(id.0)])) })
    }

    /// The lines of the participants' own lanes, and those of the others.
    fn kinds(&self) -> [&[LaneLine]; 2] {
        let (own, others) = self.lines.split_at(usize::from(self.participants).min(self.lines.len()));
        [own, others]
    }

    /// Raises the number of lines of its kind that have been used, before this one is. It never falls.
    fn put_in_use(&self, id: LaneId) {
        let [own, others] = self.kinds();
        let at = usize::from(id.0);
        let (lines, at) = if at < own.len() { (own, at) } else { (others, at - own.len()) };
        let in_use = &lines[0].in_use;
        // Ordering: SeqCst, see `intents_in_use`.
        if in_use.load(Ordering::SeqCst) <= at as u64 {
            in_use.fetch_max(at as u64 + 1, Ordering::SeqCst);
        }
    }

    /// The participant's own lane. To be had once.
    pub(crate) fn base(&self) -> Lane {
        self.lane(LaneId(self.me))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Lane>> {
        self.idle.lock()
    }

    /// A lane for a thread, if there is one.
    pub(crate) fn take(&self) -> Option<Lane> {
        if let Some(lane) = self.idle().pop() {
            return Some(lane);
        }
        let owner = u64::from(self.me) + 1;
        (self.participants..self.lines.len() as u16).map(LaneId).find_map(|id| {
            let line = &self.lines[usize::from(id.0)];
            // Ordering: Acquire: what the last owner left in the line is there, and cleared.
            (line.owner.load(Ordering::Relaxed) == 0
                && line.owner.compare_exchange(0, owner, Ordering::AcqRel, Ordering::Relaxed).is_ok())
            .then(|| {
                self.taken.lock().push(id);
                self.lane(id)
            })
        })
    }

    /// A thread has ended: its lane waits for another.
    pub(crate) fn give(&self, lane: Lane) {
        self.idle().push(lane);
    }

    /// What all lanes have counted since the segment was made.
    pub(crate) fn counted(&self, what: Counter) -> u64 {
        let counts = self.lines.iter().map(|line| line.counters[what as usize].load(Ordering::Relaxed));
        counts.fold(0, u64::wrapping_add)
    }

    /// Whether this process has taken the lane. What it has not is what somebody left who died in its place.
    pub(crate) fn is_ours(&self, id: LaneId) -> bool {
        self.taken.lock().contains(&id)
    }

    /// The lanes of a participant, its own first.
    pub(crate) fn of(&self, participant: u16) -> impl Iterator<Item = LaneId> + '_ {
        let owner = u64::from(participant) + 1;
        let taken = (self.participants..self.lines.len() as u16)
            .filter(move |id| self.lines[usize::from(*id)].owner.load(Ordering::Acquire) == owner);
        std::iter::once(participant).chain(taken).map(LaneId)
    }

    /// The participant that has a lane.
    pub(crate) fn owner(&self, lane: LaneId) -> Option<u16> {
        if lane.0 < self.participants {
            return Some(lane.0);
        }
        let owner = self.lines.get(usize::from(lane.0))?.owner.load(Ordering::Acquire);
        u16::try_from(owner.checked_sub(1)?).ok()
    }

    /// What a lane was about to do.
    pub(crate) fn intent(&self, lane: LaneId) -> Intent {
        self.lines.get(usize::from(lane.0)).map_or(Intent::None, LaneLine::intent)
    }

    /// What the lane noted last.
    pub(crate) fn noted(&self, lane: LaneId) -> u64 {
        // Ordering: Relaxed: the lane is dead, and its intent was read before.
        self.lines.get(usize::from(lane.0)).map_or(u64::MAX, |line| line.sequence.load(Ordering::Relaxed))
    }

    /// What all lanes are about to do.
    pub(crate) fn intents(&self) -> impl Iterator<Item = (LaneId, Intent)> + '_ {
        (0..self.lines.len() as u16)
            .map(|id| (LaneId(id), self.intent(LaneId(id))))
            .filter(|(_, intent)| *intent != Intent::None)
    }

    /// The same, of those lanes only that have ever been used, which are few of many.
    ///
    /// For who has had a full fence since what it asks about was written, against lanes that have one between their intent and
    /// their look at that. Of the two fences one is first. If it is ours, the other sees what was written, and does not what
    /// it intended. If it is the other's, all is seen here that was done before it: its intent, and, as that came earlier, that its
    /// line is in use (whether it raised the number itself or found it raised). Or, without fences, for who has seen something that
    /// such a lane wrote after its intent.
    pub(crate) fn intents_in_use(&self) -> impl Iterator<Item = Intent> + '_ {
        self.kinds().into_iter().flat_map(|lines| {
            // Ordering: SeqCst, after the fence. Garbage is no more than there are.
            let in_use = lines.first().map_or(0, |line| line.in_use.load(Ordering::SeqCst));
            lines.iter().take(usize::try_from(in_use).unwrap_or(usize::MAX)).map(LaneLine::intent)
        })
    }

    /// What a dead lane was about to do has been settled.
    #[cfg_attr(crash_points, track_caller)]
    pub(crate) fn forget_intent(&self, lane: LaneId) {
        self.lines[usize::from(lane.0)].intent.store(0, Ordering::Release);
    }

    /// A dead participant's lane is nobody's, and about to do nothing.
    pub(crate) fn clear(&self, lane: LaneId) {
        self.forget_intent(lane);
        self.lines[usize::from(lane.0)].taking.store(0, Ordering::Release);
        if lane.0 >= self.participants {
            self.lines[usize::from(lane.0)].owner.store(0, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intents_survive_packing() {
        let block = BlockId::new(2, (1 << 30) - 1);
        for intent in [
            Intent::None,
            Intent::Range { sector: 2, granule: (1 << 30) - 1, len: (1 << 22) - 1 },
            Intent::Range { sector: 0, granule: 0, len: 1 },
            Intent::Send { block, generation: 0xff_ffff },
            Intent::Receive { block: BlockId(0), generation: 0 },
            Intent::Guard { block, generation: 1 },
            Intent::Retry { block, generation: 2 },
        ] {
            assert_eq!(Intent::unpack(intent.pack()), intent);
        }
    }
}
