//! Parked bitmaps: which participants have a waiter that nobody has notified yet.

use crate::sys::{
    shared::SharedSlice,
    sync::{AtomicU64, Ordering},
};

/// A bit per participant. The bit is written by that participant only, and by its reaper.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parked(SharedSlice<AtomicU64>);

impl Parked {
    pub(crate) fn new(words: SharedSlice<AtomicU64>) -> Self {
        Self(words)
    }

    fn word(&self, participant: u16) -> (&AtomicU64, u64) {
        (&self.0[usize::from(participant) / 64], 1 << (participant % 64))
    }

    #[cfg_attr(crash_points, track_caller)]
    pub(crate) fn set(&self, participant: u16) {
        let (word, bit) = self.word(participant);
        // Ordering: SeqCst, against {cell CAS, load of parked}.
        word.fetch_or(bit, Ordering::SeqCst);
        super::fence_for_models();
    }

    #[cfg_attr(crash_points, track_caller)]
    pub(crate) fn clear(&self, participant: u16) {
        let (word, bit) = self.word(participant);
        // Ordering: SeqCst: the reaper's clear comes before its look for work.
        word.fetch_and(!bit, Ordering::SeqCst);
    }

    /// Whether anybody waits: the only cost of a wake-up that is not needed.
    #[inline(always)]
    pub(crate) fn any(&self) -> bool {
        super::fence_for_models();
        // Ordering: SeqCst, against {set parked, load of the cell}.
        let bits = |word: &AtomicU64| word.load(Ordering::SeqCst);
        match &self.0[..] {
            // As many as there are unless told otherwise: without a loop.
            [a, b, c, d] => bits(a) | bits(b) | bits(c) | bits(d) != 0,
            words => words.iter().any(|word| bits(word) != 0),
        }
    }

    /// Whether `holds` of all participants with a waiter.
    #[inline(always)]
    pub(crate) fn all(&self, holds: impl Fn(u16) -> bool) -> bool {
        super::fence_for_models();
        for (index, word) in self.0.iter().enumerate() {
            // Ordering: SeqCst, as in `any`.
            let mut bits = word.load(Ordering::SeqCst);
            while bits != 0 {
                if !holds((index * 64) as u16 + bits.trailing_zeros() as u16) {
                    return false;
                }
                bits &= bits - 1;
            }
        }
        true
    }

    pub(crate) fn contains(&self, participant: u16) -> bool {
        let (word, bit) = self.word(participant);
        word.load(Ordering::SeqCst) & bit != 0
    }

    /// The participants with a waiter, each looked up when its turn comes, beginning with `first`.
    pub(crate) fn from(&self, first: usize) -> impl Iterator<Item = u16> + '_ {
        let words = self.0.len();
        (0..=words).flat_map(move |step| {
            let index = (first / 64 + step) % words;
            let mut bits = self.0[index].load(Ordering::SeqCst);
            // The first word comes twice: from the first bit on, and at the end up to it.
            let upper = u64::MAX << (first % 64);
            match step {
                0 => bits &= upper,
                step if step == words => bits &= !upper,
                _ => {}
            }
            std::iter::from_fn(move || {
                let bit = bits.trailing_zeros();
                bits &= bits.wrapping_sub(1);
                (bit < 64).then_some((index * 64) as u16 + bit as u16)
            })
        })
    }
}
