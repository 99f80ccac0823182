//! Who has reserved how much of a ring's capacity: a count per participant, and a bitmap of those who may have any.
//!
//! | word | writer | meaning |
//! |---|---|---|
//! | `holders` | the participant; its reaper | bit `p`: participant `p` has reserved something since it opened the channel, so its count must be read |
//! | `counts[p]` | participant `p`; its reaper | permits that it holds, and those that it is trying to get |
//!
//! Never a counter that all share: that of a participant that dies is known, and its reaper sets it to 0. A participant's bit
//! is set before its count is first raised, and stays until the participant leaves the channel: a send looks at one
//! read-mostly line, and at a count only if there may be one.
//!
//! `k`, the sum of all counts, may be too high (of one who tries in vain, of one whose message has just been put in), but
//! never too low: see [`Ring::grant`](super::Ring::grant).

use crate::sys::{
    shared::SharedSlice,
    sync::{AtomicU32, AtomicU64, Ordering},
};

/// The process's view of a ring's permits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permits {
    holders: SharedSlice<AtomicU64>,
    counts: SharedSlice<AtomicU32>,
}

impl Permits {
    /// A view; a bit in `holders` for each of `counts`.
    pub(crate) fn new(holders: SharedSlice<AtomicU64>, counts: SharedSlice<AtomicU32>) -> Self {
        debug_assert!(counts.len().div_ceil(64) == holders.len());
        Self { holders, counts }
    }

    /// Bytes of the counts of so many participants.
    pub(crate) const fn bytes(participants: usize) -> usize {
        participants * size_of::<u32>()
    }

    /// Nobody has any. Nobody else may look yet.
    pub(crate) fn format(&self) {
        // Ordering: Relaxed: publication of the channel orders all of it.
        self.counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        self.holders.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// How many are held, at least.
    #[inline(always)]
    pub(crate) fn total(&self) -> u64 {
        // Ordering: SeqCst: a sender that parks looks here again, see `notify`. (For the capacity Acquire would do: whoever
        // sees a count go down sees the message that it went down for.)
        if self.holders.iter().all(|word| word.load(Ordering::SeqCst) == 0) { 0 } else { self.sum() }
    }

    #[cold]
    fn sum(&self) -> u64 {
        let mut sum = 0;
        for (word, counts) in self.holders.iter().zip(self.counts.chunks(64)) {
            let mut bits = word.load(Ordering::SeqCst);
            while bits != 0 {
                let count = counts.get(bits.trailing_zeros() as usize);
                sum += count.map_or(0, |count| u64::from(count.load(Ordering::SeqCst)));
                bits &= bits - 1;
            }
        }
        sum
    }

    /// Counts so many for the participant, before it tries to get them.
    pub(crate) fn add(&self, participant: u16, permits: u32) {
        let (word, bit) = self.holder(participant);
        // Ordering: SeqCst: bit, then count, then the CAS that grants. Whoever sees the cell that the CAS has changed sees
        // both.
        if word.load(Ordering::SeqCst) & bit == 0 {
            word.fetch_or(bit, Ordering::SeqCst);
        }
        self.counts[usize::from(participant)].fetch_add(permits, Ordering::SeqCst);
    }

    /// They were used, or are given back.
    #[inline]
    pub(crate) fn sub(&self, participant: u16, permits: u32) {
        // Ordering: SeqCst: after the CAS of the message, so that whoever sees less here sees the message there; and
        // before the look at who waits for room.
        self.counts[usize::from(participant)].fetch_sub(permits, Ordering::SeqCst);
    }

    /// Whether the participant may have any.
    pub(crate) fn may_have(&self, participant: u16) -> bool {
        let (word, bit) = self.holder(participant);
        word.load(Ordering::SeqCst) & bit != 0
    }

    /// The participant has none any more: it is dead, or leaves the channel. `true` if it had some.
    pub(crate) fn forget(&self, participant: u16) -> bool {
        // Ordering: SeqCst: before the look at who waits for room.
        let had = self.counts[usize::from(participant)].swap(0, Ordering::SeqCst) > 0;
        let (word, bit) = self.holder(participant);
        word.fetch_and(!bit, Ordering::SeqCst);
        had
    }

    fn holder(&self, participant: u16) -> (&AtomicU64, u64) {
        (&self.holders[usize::from(participant) / 64], 1 << (participant % 64))
    }

    /// Permits on heap memory: for models and tests.
    #[cfg(test)]
    pub(crate) fn leak(participants: usize) -> Self {
        Self::new(
            SharedSlice::leak((0..participants.div_ceil(64)).map(|_| AtomicU64::new(0)).collect()),
            SharedSlice::leak((0..participants).map(|_| AtomicU32::new(0)).collect()),
        )
    }
}
