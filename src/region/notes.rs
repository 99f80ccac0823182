//! Where a lane has last seen free blocks: hints of its own, which cost no access to shared memory.
//!
//! A note may be out of date like any hint: whoever follows one looks at the word. Nothing depends on a note that is not
//! there, so there are few per class, and new ones push out old ones.

use std::cell::Cell;

use crate::region::layout::{CLASSES, SECTORS};

/// How many blocks of a class are remembered.
const DEPTH: usize = 4;

/// The granules of some blocks of one class: the last `len` before `next`, round and round.
#[derive(Clone, Copy, Debug, Default)]
struct Pile {
    granules: [u32; DEPTH],
    next: u8,
    len: u8,
}

/// A lane's notes.
#[derive(Debug)]
pub(crate) struct Notes(Box<[[Cell<Pile>; CLASSES]; SECTORS]>);

impl Default for Notes {
    fn default() -> Self {
        Self(Box::new(std::array::from_fn(|_| std::array::from_fn(|_| Cell::default()))))
    }
}

impl Notes {
    /// A free block of the class begins there.
    #[inline]
    pub(crate) fn add(&self, sector: usize, class: usize, granule: u64) {
        let place = &self.0[sector][class];
        let mut pile = place.get();
        pile.granules[usize::from(pile.next) % DEPTH] = granule as u32;
        pile.next = (pile.next + 1) % DEPTH as u8;
        pile.len = (pile.len + 1).min(DEPTH as u8);
        place.set(pile);
    }

    /// Where a free block of the class began when it was seen; the latest first. It is forgotten.
    #[inline]
    pub(crate) fn take(&self, sector: usize, class: usize) -> Option<u64> {
        let place = &self.0[sector][class];
        let mut pile = place.get();
        pile.len = pile.len.checked_sub(1)?;
        pile.next = (pile.next + DEPTH as u8 - 1) % DEPTH as u8;
        place.set(pile);
        Some(u64::from(pile.granules[usize::from(pile.next) % DEPTH]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_notes_are_kept_and_come_first() {
        let notes = Notes::default();
        (0..10).for_each(|granule| notes.add(1, 7, granule));
        let kept: Vec<_> = std::iter::from_fn(|| notes.take(1, 7)).collect();
        assert_eq!(kept, [9, 8, 7, 6]);
        notes.add(1, 7, 11);
        assert_eq!((notes.take(0, 7), notes.take(1, 7), notes.take(1, 7)), (None, Some(11), None));
    }
}
