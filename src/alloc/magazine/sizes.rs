//! The sizes of blocks that are cached, and how many of each a magazine holds.

use crate::region::layout::{CACHED_SIZES, MAGAZINE_ITEMS};

/// The lengths in granules that are cached; requests are rounded up to the next.
const SIZES: [u64; CACHED_SIZES] = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32];
/// The longest block that is cached, in granules.
pub(crate) const LONGEST: u64 = SIZES[CACHED_SIZES - 1];
/// What a magazine holds at most, in granules: at least four blocks of every size.
pub(crate) const BUDGET: u64 = 128;

/// How many blocks of each size a magazine holds: a division less on the way.
const CAPACITIES: [u8; CACHED_SIZES] = {
    let mut capacities = [0; CACHED_SIZES];
    let mut size = 0;
    while size < CACHED_SIZES {
        let fit = BUDGET / SIZES[size];
        capacities[size] = if fit < 4 { 4 } else { fit as u8 };
        if capacities[size] as usize > MAGAZINE_ITEMS {
            capacities[size] = MAGAZINE_ITEMS as u8;
        }
        size += 1;
    }
    capacities
};

/// How many blocks of each size a magazine is filled with that finds nothing cached: about half of what it holds, and as
/// many as have whole cache lines of words, so that those of two threads share none.
const REFILLS: [u8; CACHED_SIZES] = {
    let mut refills = [0; CACHED_SIZES];
    let mut size = 0;
    while size < CACHED_SIZES {
        // Eight words are a line: so many blocks, and multiples of them, have words for whole ones.
        let zeros = SIZES[size].trailing_zeros();
        let unit = if zeros < 3 { 8 >> zeros } else { 1 };
        let units = (CAPACITIES[size] / 2 + unit / 2) / unit;
        refills[size] = if units == 0 { unit } else { units * unit };
        size += 1;
    }
    refills
};

/// An index into the cached sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SizeClass(pub(super) u8);

impl SizeClass {
    /// The smallest cached size that holds `len` granules.
    #[inline(always)]
    pub(crate) fn covering(len: u64) -> Option<Self> {
        Some(Self(match len {
            0 => return None,
            1..=8 => len - 1,
            9..=16 => (len - 9) / 2 + 8,
            17..=LONGEST => (len - 17) / 4 + 12,
            _ => return None,
        } as u8))
    }

    /// Length in granules of the blocks of this class.
    #[inline(always)]
    pub(crate) fn len(self) -> u64 {
        SIZES[usize::from(self.0)]
    }

    /// The class of blocks of exactly this length.
    #[inline(always)]
    pub(super) fn exactly(len: u64) -> Option<Self> {
        Self::covering(len).filter(|class| class.len() == len)
    }

    /// How many blocks of this class a magazine holds.
    #[inline(always)]
    pub(super) fn capacity(self) -> usize {
        usize::from(CAPACITIES[usize::from(self.0)])
    }

    /// With how many blocks of this class a magazine is filled that finds nothing cached.
    pub(super) fn refill(self) -> u8 {
        REFILLS[usize::from(self.0)]
    }
}

impl TryFrom<u8> for SizeClass {
    type Error = ();

    fn try_from(size: u8) -> Result<Self, ()> {
        if usize::from(size) < CACHED_SIZES { Ok(Self(size)) } else { Err(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_short_length_has_the_smallest_class_that_holds_it() {
        for len in 1..=LONGEST {
            let class = SizeClass::covering(len).unwrap();
            let best = SIZES.iter().copied().find(|size| *size >= len).unwrap();
            assert_eq!(class.len(), best);
            assert_eq!(SizeClass::exactly(len).is_some(), SIZES.contains(&len));
        }
        assert!(SizeClass::covering(LONGEST + 1).is_none() && SizeClass::covering(0).is_none());
    }

    #[test]
    fn refills_fit_into_a_magazine_and_fill_lines_of_words() {
        for ((len, capacity), refill) in SIZES.into_iter().zip(CAPACITIES).zip(REFILLS) {
            assert!(refill > 0 && refill <= capacity && u64::from(refill) * len % 8 == 0, "{len} {capacity} {refill}");
        }
    }
}
