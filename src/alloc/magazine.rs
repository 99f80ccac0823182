//! Magazines: caches of freed blocks, and how a batch of them changes hands.
//!
//! A lane has up to two magazines per cached size. It frees into them with two plain stores and allocates from them
//! with one CAS on the block's own word; a full one goes to the depot and an empty one comes back, so that a process
//! that only frees feeds a process that only allocates, 28 blocks at a time.
//!
//! | state of a magazine's word | may be changed by |
//! |---|---|
//! | `Empty` | anybody, by CAS to `Owned` |
//! | `Full(size)` | anybody, by CAS to `Owned` |
//! | `Owned(lane, size)` | that lane; its reaper |
//!
//! The items of a magazine are hints like all others: the truth is in the words, which say CACHED and by which
//! magazine. Whoever finds no memory takes cached blocks out of any magazine by a CAS on their words
//! ([`Sector::steal_cached`]); the magazine's owner finds a stale item and goes on to the next. Thus caches never cause
//! a false out-of-memory, not even those of a stopped process, and the reaper of a lane needs its words only.
//!
//! The depot is two kinds of bitmaps over all magazines, full ones by size and empty ones: hints again, looked at before
//! the magazines themselves.

use crate::{
    alloc::{
        sector::{Run, Sector},
        word::Word,
    },
    segment::{
        lanes::{Counter, Lane, LaneId},
        layout::{CACHED_SIZES, DEPOT_WORDS, MAGAZINE_ITEMS, MagazineLine},
    },
    sys::{
        shared::SharedSlice,
        sync::{AtomicU64, Ordering},
    },
};

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

/// An index into the cached sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SizeClass(u8);

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
    fn exactly(len: u64) -> Option<Self> {
        Self::covering(len).filter(|class| class.len() == len)
    }

    /// How many blocks of this class a magazine holds.
    #[inline(always)]
    fn capacity(self) -> usize {
        usize::from(CAPACITIES[usize::from(self.0)])
    }
}

/// Bits of a magazine's word: `kind:2 | size:6 | owner:16 | version:40`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Empty,
    Full(u8),
    Owned(LaneId, u8),
}

fn pack(holder: Holder, version: u64) -> u64 {
    let (kind, size, owner) = match holder {
        Holder::Empty => (0, 0, 0),
        Holder::Full(size) => (1, size, 0),
        Holder::Owned(lane, size) => (2, size, lane.0),
    };
    kind << 62 | u64::from(size) << 56 | u64::from(owner) << 40 | version & ((1 << 40) - 1)
}

fn holder(word: u64) -> Option<Holder> {
    let size = (word >> 56 & 0x3f) as u8;
    match word >> 62 {
        0 => Some(Holder::Empty),
        1 => Some(Holder::Full(size)),
        2 => Some(Holder::Owned(LaneId((word >> 40) as u16), size)),
        _ => None,
    }
}

/// A magazine in the hands of a lane. The count is kept here and written down when the magazine is handed over.
#[derive(Clone, Copy, Debug)]
struct Held {
    magazine: u16,
    count: u8,
}

/// The two magazines that a lane has of one size.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    loaded: Option<Held>,
    spare: Option<Held>,
}

/// A lane's magazines.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    pairs: [Pair; CACHED_SIZES],
}

/// All magazines of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Depot {
    lines: SharedSlice<MagazineLine>,
    /// `DEPOT_WORDS` words per size for full magazines, then as many for empty ones.
    maps: SharedSlice<AtomicU64>,
}

const EMPTY_ROW: usize = CACHED_SIZES;

impl Depot {
    pub(crate) fn new(lines: SharedSlice<MagazineLine>, maps: SharedSlice<AtomicU64>) -> Self {
        Self { lines, maps }
    }

    /// Makes all magazines empty. Nobody else may look yet.
    pub(crate) fn format(&self) {
        for magazine in 0..self.lines.len() {
            self.raise(EMPTY_ROW, magazine as u16);
        }
    }

    #[cfg_attr(crash_points, track_caller)]
    fn raise(&self, row: usize, magazine: u16) {
        let (word, bit) = (usize::from(magazine) / 64, magazine % 64);
        // Ordering: Release, so that who follows the hint sees the magazine's word.
        self.maps[row * DEPOT_WORDS + word].fetch_or(1 << bit, Ordering::Release);
    }

    /// Takes a magazine that is `wanted`, by the bitmap in `row`.
    fn acquire(&self, lane: &Lane, row: usize, wanted: Holder, class: SizeClass) -> Option<Held> {
        if self.lines.is_empty() {
            return None;
        }
        for (index, word) in self.maps[row * DEPOT_WORDS..(row + 1) * DEPOT_WORDS].iter().enumerate() {
            loop {
                // Ordering: Acquire, pairs with `raise`.
                let bits = word.load(Ordering::Acquire);
                if bits == 0 {
                    break;
                }
                let bit = bits.trailing_zeros();
                word.fetch_and(!(1 << bit), Ordering::AcqRel);
                let magazine = index * 64 + bit as usize;
                let Some(line) = self.lines.get(magazine) else { continue };
                // Ordering: Acquire, pairs with the Release that handed the magazine over: its items and count, and
                // what the last owner read from its blocks.
                let held = line.word.load(Ordering::Acquire);
                let owned = pack(Holder::Owned(lane.id(), class.0), held + 1);
                if holder(held) == Some(wanted)
                    && line.word.compare_exchange(held, owned, Ordering::AcqRel, Ordering::Relaxed).is_ok()
                {
                    // Ordering: Relaxed, the CAS has synchronised. What an empty one has had does not count.
                    let written = if wanted == Holder::Empty { 0 } else { line.count.load(Ordering::Relaxed) };
                    let count = written.min(class.capacity() as u64) as u8;
                    return Some(Held { magazine: magazine as u16, count });
                }
            }
        }
        None
    }

    /// Gives a magazine up, full or empty.
    #[cfg_attr(crash_points, track_caller)]
    fn hand_over(&self, held: Held, class: SizeClass) {
        let line = &self.lines[usize::from(held.magazine)];
        line.count.store(u64::from(held.count), Ordering::Relaxed);
        let (state, row) =
            if held.count == 0 { (Holder::Empty, EMPTY_ROW) } else { (Holder::Full(class.0), usize::from(class.0)) };
        // Ordering: Relaxed, the word is ours; Release, so that the taker sees count, items and words.
        let version = line.word.load(Ordering::Relaxed) + 1;
        line.word.store(pack(state, version), Ordering::Release);
        self.raise(row, held.magazine);
    }

    /// Takes a block of the class out of the lane's magazines or the depot; its head then says ALLOCATED by the lane.
    #[inline]
    pub(crate) fn pop(&self, sector: &Sector, lane: &Lane, cache: &mut Cache, class: SizeClass) -> Option<Run> {
        loop {
            let pair = &mut cache.pairs[usize::from(class.0)];
            match &mut pair.loaded {
                Some(held) if held.count > 0 => {
                    held.count -= 1;
                    // Ordering: Relaxed, the items are ours.
                    let item =
                        self.lines[usize::from(held.magazine)].items[usize::from(held.count)].load(Ordering::Relaxed);
                    let granule = u64::from(item);
                    if granule >= sector.granules() {
                        continue;
                    }
                    let word = sector.word(granule);
                    let taken = Word::allocated(lane.id(), class.len(), word.generation());
                    // The item was a hint, the word decides.
                    if word == Word::cached(held.magazine, class.len(), word.generation())
                        && sector.replace(granule, word, taken)
                    {
                        lane.count(Counter::CacheHit);
                        return Some(Run { granule, len: class.len(), generation: word.generation() });
                    }
                }
                _ => {
                    lane.count(Counter::CacheMiss);
                    if !self.reload(sector, lane, cache, class) {
                        return None;
                    }
                }
            }
        }
    }

    /// Brings a magazine with something in it to the front.
    #[cold]
    fn reload(&self, sector: &Sector, lane: &Lane, cache: &mut Cache, class: SizeClass) -> bool {
        let pair = &mut cache.pairs[usize::from(class.0)];
        if pair.spare.is_some_and(|spare| spare.count > 0) {
            std::mem::swap(&mut pair.loaded, &mut pair.spare);
            return true;
        }
        if let Some(full) = self.acquire(lane, usize::from(class.0), Holder::Full(class.0), class) {
            for item in &self.lines[usize::from(full.magazine)].items[..usize::from(full.count)] {
                sector.prefetch(u64::from(item.load(Ordering::Relaxed)));
            }
            if let Some(empty) = pair.loaded.replace(full) {
                match pair.spare {
                    Some(_) => self.hand_over(empty, class),
                    None => pair.spare = Some(empty),
                }
            }
            return true;
        }
        // Nothing cached anywhere: a whole magazine's worth is carved in one piece, and split.
        if pair.loaded.is_none() {
            pair.loaded = self.acquire(lane, EMPTY_ROW, Holder::Empty, class);
        }
        let Some(held) = &mut pair.loaded else { return false };
        let pieces = class.capacity() as u64 / 2;
        let Some(run) = sector.take(lane, pieces * class.len()) else { return false };
        let items = &self.lines[usize::from(held.magazine)].items;
        let mut granules = [0; MAGAZINE_ITEMS];
        let mut found = 0;
        sector.split(lane, run, class.len(), |granule, generation| {
            granules[found] = granule as u32;
            found += 1;
            Word::cached(held.magazine, class.len(), generation)
        });
        // Last in, first out: the lowest address is to be taken first, so that a fresh stream walks upwards.
        for (item, granule) in items.iter().zip(granules[..found].iter().rev()) {
            item.store(*granule, Ordering::Relaxed);
        }
        held.count = found as u8;
        true
    }

    /// Puts a block of the lane's participant into a magazine. `false` if it is not of a cached size, or there is no
    /// magazine for it.
    #[inline]
    pub(crate) fn push(&self, sector: &Sector, lane: &Lane, cache: &mut Cache, granule: u64, word: Word) -> bool {
        let Some(class) = SizeClass::exactly(word.len()) else { return false };
        let pair = &mut cache.pairs[usize::from(class.0)];
        if pair.loaded.is_none_or(|held| usize::from(held.count) >= class.capacity()) && !self.unload(lane, pair, class)
        {
            return false;
        }
        let Some(held) = &mut pair.loaded else { return false };
        let item = &self.lines[usize::from(held.magazine)].items[usize::from(held.count)];
        item.store(granule as u32, Ordering::Relaxed);
        held.count += 1;
        sector.store(granule, Word::cached(held.magazine, word.len(), word.next_generation()));
        true
    }

    /// Brings a magazine with room in it to the front.
    #[cold]
    fn unload(&self, lane: &Lane, pair: &mut Pair, class: SizeClass) -> bool {
        if pair.spare.is_some_and(|spare| usize::from(spare.count) < class.capacity()) {
            std::mem::swap(&mut pair.loaded, &mut pair.spare);
            return true;
        }
        let Some(empty) = self.acquire(lane, EMPTY_ROW, Holder::Empty, class) else { return false };
        if let Some(full) = pair.loaded.replace(empty)
            && let Some(spare) = pair.spare.replace(full)
        {
            self.hand_over(spare, class);
        }
        true
    }

    /// Gives up all magazines of a lane.
    pub(crate) fn flush(&self, cache: &mut Cache) {
        for (class, pair) in cache.pairs.iter_mut().enumerate() {
            for held in [pair.loaded.take(), pair.spare.take()].into_iter().flatten() {
                self.hand_over(held, SizeClass(class as u8));
            }
        }
    }

    /// Empties the magazines of lanes that are dead: their blocks have been taken out by their words.
    pub(crate) fn bury(&self, dead: impl Fn(LaneId) -> bool) {
        for (magazine, line) in self.lines.iter().enumerate() {
            // Ordering: Acquire and AcqRel: as in `acquire`.
            let held = line.word.load(Ordering::Acquire);
            match holder(held) {
                Some(Holder::Owned(lane, _)) if dead(lane) => {
                    let empty = pack(Holder::Empty, held + 1);
                    if line.word.compare_exchange(held, empty, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                        self.raise(EMPTY_ROW, magazine as u16);
                    }
                }
                Some(Holder::Empty) => self.raise(EMPTY_ROW, magazine as u16),
                Some(Holder::Full(size)) if usize::from(size) < CACHED_SIZES => {
                    self.raise(usize::from(size), magazine as u16)
                }
                _ => {}
            }
        }
    }

    /// Whether a magazine belongs to a lane for which `dead` holds.
    pub(crate) fn is_owned_by(&self, magazine: u16, dead: impl Fn(LaneId) -> bool) -> bool {
        self.lines.get(usize::from(magazine)).is_some_and(
            |line| matches!(holder(line.word.load(Ordering::Acquire)), Some(Holder::Owned(lane, _)) if dead(lane)),
        )
    }

    /// Number of magazines.
    pub(crate) fn len(&self) -> usize {
        self.lines.len()
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
    fn words_of_magazines_survive_packing() {
        for state in [Holder::Empty, Holder::Full(15), Holder::Owned(LaneId(16_383), 7)] {
            assert_eq!(holder(pack(state, u64::MAX)), Some(state));
        }
    }
}
