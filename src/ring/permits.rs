//! Who has reserved how much of a ring's capacity: a count per participant, and a bitmap of those who may have any.
//!
//! | word | writer | meaning |
//! |---|---|---|
//! | `holders` | the participant; its reaper | bit `p`: participant `p` has reserved something since it opened the channel, so its count must be read |
//! | `counts[p]` | participant `p`; its reaper | permits that it holds, and those that it is trying to get |
//!
//! | `absent` | anybody, by one step | of a semaphore: permits that are forgotten, less those that were added |
//!
//! Never a counter of what is held that all share: that of a participant that dies is known, and its reaper sets it to 0. A participant's bit
//! is set before its count is first raised, and stays until the participant leaves the channel: a send looks at one
//! read-mostly line, and at a count only if there may be one.
//!
//! `k`, the sum of all counts, may be too high (of one who tries in vain, of one whose message has just been put in), but
//! never too low: see [`Ring::grant`](super::Ring::grant).

use crate::sys::{
    shared::{SharedRef, SharedSlice},
    sync::{AtomicU32, AtomicU64, Ordering},
};

/// The most permits of a semaphore: the capacity of its ring. Those that it has not got are absent.
pub(crate) const MOST: u64 = 1 << 24;

/// The process's view of a ring's permits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permits {
    holders: SharedSlice<AtomicU64>,
    counts: SharedSlice<AtomicU32>,
    absent: Option<Absent>,
}

/// Permits of a semaphore that nobody can have. Nobody holds them, so no death brings them back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Absent {
    /// How many were absent in the beginning.
    first: u64,
    /// How many more are now, or fewer: a signed number.
    word: SharedRef<AtomicU64>,
}

impl Absent {
    /// Of a semaphore that was made with so many permits, at most [`MOST`].
    pub(crate) fn new(made: u64, word: SharedRef<AtomicU64>) -> Self {
        Self { first: MOST.saturating_sub(made), word }
    }

    fn of(&self, word: u64) -> u64 {
        // Garbage gives any number of them, but none that overflows what it is added to.
        self.first.saturating_add_signed(word as i64).min(MOST)
    }
}

impl Permits {
    /// A view; a bit in `holders` for each of `counts`.
    pub(crate) fn new(holders: SharedSlice<AtomicU64>, counts: SharedSlice<AtomicU32>) -> Self {
        debug_assert!(counts.len().div_ceil(64) == holders.len());
        Self { holders, counts, absent: None }
    }

    /// The same of a semaphore.
    pub(crate) fn with(self, absent: Absent) -> Self {
        Self { absent: Some(absent), ..self }
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

    /// How many are held or absent, at least.
    #[inline(always)]
    pub(crate) fn total(&self) -> u64 {
        // Ordering: SeqCst: a sender that parks looks here again, see `notify`. (For the capacity Acquire would do: whoever
        // sees a count go down sees the message that it went down for.)
        let held = if self.holders.iter().all(|word| word.load(Ordering::SeqCst) == 0) { 0 } else { self.sum() };
        // In this order, against `lose`: what is not seen among the held any more is seen here.
        if self.absent.is_some() { held + self.absent() } else { held }
    }

    /// How many a semaphore lacks.
    pub(crate) fn absent(&self) -> u64 {
        // Ordering: SeqCst, as in `total`.
        self.absent.map_or(0, |absent| absent.of(absent.word.load(Ordering::SeqCst)))
    }

    /// How many a semaphore has, or had when it was made, whatever is more.
    pub(crate) fn most(&self) -> u64 {
        let first = self.absent.map_or(0, |absent| absent.first);
        MOST - first.min(self.absent())
    }

    /// So many that the participant holds are absent from now on. If it is killed on the way they are absent, or they come back.
    pub(crate) fn lose(&self, participant: u16, permits: u32) {
        if let Some(absent) = self.absent {
            // Ordering: SeqCst: first absent, then not held any more. In between there seem to be fewer, never more.
            absent.word.fetch_add(u64::from(permits), Ordering::SeqCst);
            self.sub(participant, permits);
        }
    }

    /// So many are absent no more; fewer if there are not so many. How many.
    pub(crate) fn gain(&self, permits: u64) -> u64 {
        let Some(absent) = self.absent else { return 0 };
        let mut gained = 0;
        // Ordering: SeqCst: before the look at who waits for room.
        let _ = absent.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| {
            gained = permits.min(absent.of(word));
            (gained > 0).then(|| word.wrapping_sub(gained))
        });
        gained
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
