//! Where free blocks may be found: bitmaps that may be stale in either direction without harm.
//!
//! ```text
//! classes    a bit per size class             ──┐ set bottom up, cleared top down only when found empty
//! summary    per class: a bit per leaf word     │
//! leaf       per class: a bit per chunk of 64 granules: a free block of the class may begin in it
//! ```
//!
//! A hint is set after the word that it speaks of became FREE, and cleared in three steps: clear, full fence, look
//! again and set it again if that was wrong. The fence pairs with the one between a word's publication and the setting
//! of its hint: either the publisher sees the cleared bit and sets it, or the clearer sees the published word. The same
//! goes for each level and the one above, so whoever sets a bit, for the first time or again, puts a fence behind it and
//! looks at all levels above. What a death between clear and look leaves undone is made good by the reaper, which sets
//! the hints of all free blocks.

use crate::{
    region::layout::{CHUNK, CLASS_WORDS, CLASSES, SectorLayout},
    sys::{
        shared::SharedSlice,
        sync::{AtomicU64, Ordering, fence},
    },
};

/// The hint maps of one sector.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hints {
    words: SharedSlice<AtomicU64>,
    summary_words: usize,
    leaf_words: usize,
}

/// The positions of the bits set in `bits`.
fn ones(mut bits: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let bit = bits.trailing_zeros() as usize;
        bits &= bits.wrapping_sub(1);
        (bit < 64).then_some(bit)
    })
}

impl Hints {
    /// A view over the maps of a sector of so many granules.
    pub(crate) fn new(words: SharedSlice<AtomicU64>, granules: u64) -> Self {
        debug_assert!(words.len() as u64 >= SectorLayout::map_words(granules));
        Self {
            words,
            summary_words: SectorLayout::summary_words(granules) as usize,
            leaf_words: SectorLayout::leaf_words(granules) as usize,
        }
    }

    fn summary(&self, class: usize, word: usize) -> &AtomicU64 {
        &self.words[CLASS_WORDS + class * (self.summary_words + self.leaf_words) + word]
    }

    fn leaf(&self, class: usize, word: usize) -> &AtomicU64 {
        &self.words[CLASS_WORDS + class * (self.summary_words + self.leaf_words) + self.summary_words + word]
    }

    /// Says that a free block of the class begins in the granule's chunk. The caller has published the block and put a
    /// full fence behind it.
    pub(crate) fn set(&self, class: usize, granule: u64) {
        let chunk = (granule / CHUNK) as usize;
        let (leaf, bit) = (chunk / 64, chunk % 64);
        raise(self.leaf(class, leaf), bit);
        self.set_above(class, leaf);
    }

    /// Says that a leaf word has a bit set: the part of [`set`](Self::set) above the leaf.
    fn set_above(&self, class: usize, leaf: usize) {
        raise(self.summary(class, leaf / 64), leaf % 64);
        raise(&self.words[class / 64], class % 64);
    }

    /// Whether all three levels say that a free block of the class may begin in the granule's chunk.
    pub(crate) fn is_set(&self, class: usize, granule: u64) -> bool {
        let chunk = (granule / CHUNK) as usize;
        let has = |word: &AtomicU64, bit: usize| word.load(Ordering::Acquire) >> bit & 1 == 1;
        has(self.leaf(class, chunk / 64), chunk % 64)
            && has(self.summary(class, chunk / 64 / 64), chunk / 64 % 64)
            && has(&self.words[class / 64], class % 64)
    }

    /// The classes in `from..until` of which there may be free blocks.
    pub(crate) fn classes(&self, from: usize, until: usize) -> impl Iterator<Item = usize> + '_ {
        (from / 64..until.div_ceil(64).min(CLASS_WORDS)).flat_map(move |group| {
            // Ordering: Acquire, to see the leaf bits that were set before the class bit.
            let bits = self.words[group].load(Ordering::Acquire);
            let from = from.saturating_sub(group * 64);
            ones(if from < 64 { bits & u64::MAX << from } else { 0 })
                .map(move |bit| group * 64 + bit)
                .take_while(move |class| *class < until.min(CLASSES))
        })
    }

    /// Visits the chunks in which a free block of the class may begin, until `visit` says [`Visit::Stop`]. A chunk that it
    /// finds [`Visit::Empty`] loses its bit.
    pub(crate) fn search(&self, class: usize, mut visit: impl FnMut(u64) -> Visit) {
        let mut any = false;
        for summary in 0..self.summary_words {
            for leaf in ones(self.summary(class, summary).load(Ordering::Acquire)).map(|bit| summary * 64 + bit) {
                if leaf >= self.leaf_words {
                    break;
                }
                any = true;
                let bits = self.leaf(class, leaf).load(Ordering::Acquire);
                if bits == 0 {
                    lower(self.summary(class, summary), leaf % 64);
                    if self.leaf(class, leaf).load(Ordering::Acquire) != 0 {
                        self.set_above(class, leaf);
                    }
                }
                for chunk in ones(bits).map(|bit| leaf * 64 + bit) {
                    match visit(chunk as u64) {
                        Visit::Stop => return,
                        Visit::Found => {}
                        Visit::Empty => {
                            lower(self.leaf(class, leaf), chunk % 64);
                            // The second look may well take what it finds.
                            let again = visit(chunk as u64);
                            if again != Visit::Empty {
                                // Meanwhile somebody may have found the leaf empty, and cleared the levels above.
                                self.set(class, chunk as u64 * CHUNK);
                            }
                            if again == Visit::Stop {
                                return;
                            }
                        }
                    }
                }
            }
        }
        if !any {
            let word = &self.words[class / 64];
            lower(word, class % 64);
            if (0..self.summary_words).any(|word| self.summary(class, word).load(Ordering::Acquire) != 0) {
                raise(word, class % 64);
            }
        }
    }
}

/// What a visit to a chunk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    /// No free block of the class begins here.
    Empty,
    /// There is one, but it was not taken.
    Found,
    /// Enough: end the search.
    Stop,
}

/// Sets a bit. The caller's fence stands before this, and pairs with the one in `lower`.
#[cfg_attr(crash_points, track_caller)]
fn raise(word: &AtomicU64, bit: usize) {
    if word.load(Ordering::Acquire) >> bit & 1 == 0 {
        // Ordering: Release, so that who sees this bit sees the level below.
        word.fetch_or(1 << bit, Ordering::AcqRel);
        // Before the look at the level above: pairs with the fence of whoever clears that.
        fence(Ordering::SeqCst);
    }
}

/// Clears a bit. The caller must look again whether that was right: clear, fence, look.
#[cfg_attr(crash_points, track_caller)]
fn lower(word: &AtomicU64, bit: usize) {
    word.fetch_and(!(1 << bit), Ordering::AcqRel);
    fence(Ordering::SeqCst);
}
