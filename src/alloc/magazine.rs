//! Magazines: caches of freed blocks, and how a batch of them changes hands.
//!
//! A lane has up to two magazines per cached size. It frees into them and allocates from them with plain stores; a full
//! one goes to the depot and an empty one comes back, so that a process that only frees feeds a process that only
//! allocates, 28 blocks at a time.
//!
//! | state of a magazine's word | may be changed by |
//! |---|---|
//! | `Empty` | anybody, by CAS to `Owned` |
//! | `Full(size)` | anybody, by CAS to `Owned` |
//! | `Owned(lane, size)` | that lane and its reaper, by CAS; anybody, by CAS to `Revoked` |
//! | `Revoked(lane, size)` | that lane; its reaper |
//!
//! The items of a magazine are hints like all others: the truth is in the words, which say CACHED and by which
//! magazine. The depot is two kinds of bitmaps over all magazines, full ones by size and empty ones: hints again, looked
//! at before the magazines themselves.
//!
//! # How a block is taken out of somebody else's magazine
//!
//! Whoever finds no memory drains the caches, also those of a stopped process: caches never cause a false out-of-memory.
//! The owner of a magazine takes blocks out of it without a locked instruction all the same:
//!
//! ```text
//! the owner                                   who drains
//! 1  says which block it takes (`taking`)     1  looks which words say CACHED
//! 2  looks whether the magazine is its own    2  magazines: Full → Owned, Owned → Revoked
//! 3  the word becomes ALLOCATED               3  a full fence on all threads of all processes (membarrier)
//! 4  takes nothing any more                   4  looks which blocks are being taken
//!                                             5  takes the rest, by CAS over the very words of step 1
//! ```
//!
//! A full magazine is emptied at once: nobody has it in hand. Of the others, whoever passed 2 before the fence has its block seen in 4, and that one block is left to it; whoever passes 2 after the
//! fence finds the magazine revoked, and gives up what is left in it. A word of step 1 that was popped and pushed again
//! since has another generation, so no CAS of step 5 meets a magazine that was not revoked.
//!
//! Where the kernel refuses the fence to the owner, the owner takes blocks by CAS over their words, and where it refuses it
//! to who drains, that one takes from full magazines only: what others have at hand comes back as soon as they look.
//! The reaper of a lane needs its words only.

mod checks;
mod sizes;

#[cfg(not(loom))]
pub(crate) use sizes::BUDGET;
pub(crate) use sizes::{LONGEST, SizeClass};

use std::ptr::NonNull;

use crate::{
    alloc::{
        sector::{Run, Sector},
        word::{State, Word},
    },
    region::{
        lanes::{Counter, Lane, LaneId},
        layout::{CACHED_SIZES, DEPOT_WORDS, LaneLine, MAGAZINE_ITEMS, MagazineLine},
    },
    sys::{
        membarrier,
        shared::{SharedRef, SharedSlice},
        sync::{AtomicU32, AtomicU64, Ordering},
    },
};

/// Bits of a magazine's word: `kind:2 | size:6 | owner:16 | version:40`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Empty,
    Full(u8),
    Owned(LaneId, u8),
    Revoked(LaneId, u8),
}

fn pack(holder: Holder, version: u64) -> u64 {
    let (kind, size, owner) = match holder {
        Holder::Empty => (0, 0, 0),
        Holder::Full(size) => (1, size, 0),
        Holder::Owned(lane, size) => (2, size, lane.0),
        Holder::Revoked(lane, size) => (3, size, lane.0),
    };
    kind << 62 | u64::from(size) << 56 | u64::from(owner) << 40 | version & ((1 << 40) - 1)
}

fn holder(word: u64) -> Holder {
    let size = (word >> 56 & 0x3f) as u8;
    let lane = LaneId((word >> 40) as u16);
    match word >> 62 {
        0 => Holder::Empty,
        1 => Holder::Full(size),
        2 => Holder::Owned(lane, size),
        _ => Holder::Revoked(lane, size),
    }
}

/// A magazine in the hands of a lane. The count is kept here and written down when the magazine is handed over.
#[derive(Clone, Copy, Debug)]
struct Held {
    line: SharedRef<MagazineLine>,
    /// What the magazine's word is as long as nobody has revoked it.
    word: u64,
    /// The words of a block in the magazine, and of one that the lane has taken out, but for the generation.
    cached: Word,
    allocated: Word,
    magazine: u16,
    count: u8,
    /// How many blocks there is room for.
    capacity: u8,
}

impl Held {
    /// The items that count.
    fn items(&self) -> &[AtomicU32] {
        &self.line.items[..usize::from(self.count)]
    }

    /// Writes down a block behind those that count, if there is room.
    #[inline(always)]
    fn write_next(&self, granule: u64) -> bool {
        let Some(item) = self.line.items.get(usize::from(self.count)) else { return false };
        if self.count >= self.capacity || self.is_revoked() {
            return false;
        }
        item.store(granule as u32, Ordering::Relaxed);
        true
    }

    /// Whether somebody who needs memory has taken the magazine away from its owner.
    #[inline(always)]
    fn is_revoked(&self) -> bool {
        // Ordering: Relaxed: if it is revoked after this look, who drains next takes what comes in.
        self.line.word.load(Ordering::Relaxed) != self.word
    }
}

/// The two magazines that a lane has of one size.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    loaded: Option<Held>,
    spare: Option<Held>,
    /// The full one that was handed over last. It is asked for first, so that threads whose needs go up and down keep to
    /// blocks, and lines of words, of their own.
    given: Option<u16>,
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
    lanes: SharedSlice<LaneLine>,
    /// Whether this process can be made to pass a fence.
    fenced: bool,
}

const EMPTY_ROW: usize = CACHED_SIZES;

/// How many items of a full magazine count.
fn full_count(line: &MagazineLine, class: SizeClass) -> usize {
    // Ordering: Relaxed, whoever has read the magazine's word has synchronised.
    line.count.load(Ordering::Relaxed).min(class.capacity() as u64) as usize
}

impl Depot {
    /// A view over the magazines, their maps, and the lanes of all who may have magazines.
    pub(crate) fn new(
        lines: SharedSlice<MagazineLine>,
        maps: SharedSlice<AtomicU64>,
        lanes: SharedSlice<LaneLine>,
    ) -> Self {
        Self { lines, maps, lanes, fenced: membarrier::register() }
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
                let taken = self.take(lane, (index * 64) as u16 + bit as u16, wanted, class);
                if taken.is_some() {
                    return taken;
                }
            }
        }
        None
    }

    /// Takes this magazine, if it is `wanted`.
    fn take(&self, lane: &Lane, magazine: u16, wanted: Holder, class: SizeClass) -> Option<Held> {
        let line = self.lines.get(usize::from(magazine))?;
        // Ordering: Acquire, pairs with the Release that handed the magazine over: its items and count, and what the last
        // owner read from its blocks.
        let held = line.word.load(Ordering::Acquire);
        let owned = pack(Holder::Owned(lane.id(), class.0), held.wrapping_add(1));
        if holder(held) != wanted
            || line.word.compare_exchange(held, owned, Ordering::AcqRel, Ordering::Relaxed).is_err()
        {
            return None;
        }
        // Ordering: Relaxed, the CAS has synchronised. What an empty one has had does not count.
        let count = if wanted == Holder::Empty { 0 } else { line.count.load(Ordering::Relaxed) };
        Some(self.held(lane, magazine, owned, count, class))
    }

    /// A magazine that has become this lane's; `count` is what stands in shared memory.
    fn held(&self, lane: &Lane, magazine: u16, word: u64, count: u64, class: SizeClass) -> Held {
        Held {
            // SAFETY: a line of the table, which outlives the views of it.
            line: unsafe { SharedRef::new(NonNull::from(&self.lines[usize::from(magazine)])) },
            word,
            cached: Word::cached(magazine, class.len(), 0),
            allocated: Word::allocated(lane.id(), class.len(), 0),
            magazine,
            count: count.min(class.capacity() as u64) as u8,
            capacity: class.capacity() as u8,
        }
    }

    /// Gives a magazine up, full or empty.
    #[cfg_attr(crash_points, track_caller)]
    fn hand_over(&self, sector: &Sector, lane: &Lane, held: Held, class: SizeClass) {
        held.line.count.store(u64::from(held.count), Ordering::Relaxed);
        let (state, row) =
            if held.count == 0 { (Holder::Empty, EMPTY_ROW) } else { (Holder::Full(class.0), usize::from(class.0)) };
        // Ordering: Release, so that the taker sees count, items and words.
        let next = pack(state, held.word + 1);
        if held.line.word.compare_exchange(held.word, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.raise(row, held.magazine);
        } else {
            self.abandon(sector, lane, held);
        }
    }

    /// Gives up a magazine that was revoked: somebody needs the memory, so what nobody has taken is freed.
    #[cold]
    #[cfg_attr(crash_points, track_caller)]
    fn abandon(&self, sector: &Sector, lane: &Lane, held: Held) {
        for item in held.items() {
            // Ordering: Relaxed, the items are ours.
            let granule = u64::from(item.load(Ordering::Relaxed));
            if granule < sector.granules() {
                let word = sector.word(granule);
                if word.state() == State::Cached && word.owner() == held.magazine {
                    self.take_out(sector, lane, granule, word);
                }
            }
        }
        // Ordering: Relaxed and Release: nobody else changes it by now, and whoever takes it next finds no word that names
        // it.
        let version = held.line.word.load(Ordering::Relaxed).wrapping_add(1);
        held.line.word.store(pack(Holder::Empty, version), Ordering::Release);
        self.raise(EMPTY_ROW, held.magazine);
    }

    /// Frees a cached block, if its word is still the one that was seen.
    #[cfg_attr(crash_points, track_caller)]
    fn take_out(&self, sector: &Sector, lane: &Lane, granule: u64, word: Word) {
        let claimed = Word::claimed(lane.id(), word.len(), word.generation());
        if word.len() > 0 && granule + word.len() <= sector.granules() && sector.replace(granule, word, claimed) {
            sector.release(lane, granule);
        }
    }

    /// The granule of the block that will be taken `ahead` blocks later, if that is in the magazine at hand.
    #[inline(always)]
    pub(crate) fn upcoming(&self, cache: &Cache, class: SizeClass, ahead: u8) -> Option<u64> {
        let held = cache.pairs[usize::from(class.0)].loaded.as_ref()?;
        let item = held.line.items.get(usize::from(held.count.checked_sub(ahead)?))?;
        Some(u64::from(item.load(Ordering::Relaxed)))
    }

    /// Takes a block of the class out of the magazine at hand, if that needs nothing out of the ordinary; its head then says
    /// ALLOCATED by the lane.
    #[inline(always)]
    pub(crate) fn pop_at_hand(&self, sector: &Sector, lane: &Lane, cache: &mut Cache, class: SizeClass) -> Option<Run> {
        let held = cache.pairs[usize::from(class.0)].loaded.as_mut()?;
        let count = held.count.checked_sub(1)?;
        // Ordering: Relaxed, the items are ours.
        let granule = u64::from(held.line.items.get(usize::from(count))?.load(Ordering::Relaxed));
        if granule + held.cached.len() > sector.granules() || !self.fenced {
            return None;
        }
        let word = sector.word(granule);
        let generation = word.generation();
        if word != held.cached.of_generation(generation) {
            return None;
        }
        lane.taking(granule);
        // Between the two, who drains may have us pass a fence.
        membarrier::light();
        let is_own = !held.is_revoked();
        if is_own {
            sector.store(granule, held.allocated.of_generation(generation));
            held.count = count;
            lane.count(Counter::CacheHit);
        }
        lane.taken();
        is_own.then_some(Run { granule, len: class.len(), generation })
    }

    /// Whether this process can be made to pass a fence.
    #[inline(always)]
    pub(crate) fn is_fenced(&self) -> bool {
        self.fenced
    }

    /// Takes a block of the class out of the lane's magazines or the depot; its head then says ALLOCATED by the lane.
    pub(crate) fn pop(&self, sector: &Sector, lane: &Lane, cache: &mut Cache, class: SizeClass) -> Option<Run> {
        loop {
            if let Some(run) = self.pop_at_hand(sector, lane, cache, class) {
                return Some(run);
            }
            let pair = &mut cache.pairs[usize::from(class.0)];
            match &mut pair.loaded {
                Some(held) if held.is_revoked() => {
                    let revoked = *held;
                    pair.loaded = None;
                    self.abandon(sector, lane, revoked);
                }
                // The item is stale, or this process passes no fences.
                Some(held) if held.count > 0 => {
                    held.count -= 1;
                    let item = &held.line.items[usize::from(held.count)];
                    let granule = u64::from(item.load(Ordering::Relaxed));
                    if granule + held.cached.len() > sector.granules() {
                        continue;
                    }
                    let word = sector.word(granule);
                    let generation = word.generation();
                    if word == held.cached.of_generation(generation)
                        && sector.replace(granule, word, held.allocated.of_generation(generation))
                    {
                        lane.count(Counter::CacheHit);
                        return Some(Run { granule, len: held.allocated.len(), generation });
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
        // The hint to the one that was given stays: whoever follows it finds nothing, and clears it.
        let wanted = Holder::Full(class.0);
        let given = pair.given.take().and_then(|given| self.take(lane, given, wanted, class));
        if let Some(full) = given.or_else(|| self.acquire(lane, usize::from(class.0), wanted, class)) {
            for item in full.items() {
                sector.prefetch(u64::from(item.load(Ordering::Relaxed)));
            }
            if let Some(empty) = pair.loaded.replace(full) {
                match pair.spare {
                    Some(_) => self.hand_over(sector, lane, empty, class),
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
        let pieces = class.refill();
        let Some(run) = sector.take(lane, u64::from(pieces) * class.len()) else { return false };
        let mut granules = [0; MAGAZINE_ITEMS];
        let mut found = 0;
        sector.split(lane, run, class.len(), |granule, generation| {
            granules[found] = granule as u32;
            found += 1;
            held.cached.of_generation(generation)
        });
        // Last in, first out: the lowest address is to be taken first, so that a fresh stream walks upwards.
        for (item, granule) in held.line.items.iter().zip(granules[..found].iter().rev()) {
            item.store(*granule, Ordering::Relaxed);
        }
        held.count = found as u8;
        true
    }

    /// Puts a block of the lane's participant, of exactly this class, into the magazine at hand. `false` if there is no room
    /// in it.
    #[inline(always)]
    pub(crate) fn push_at_hand(
        &self,
        sector: &Sector,
        cache: &mut Cache,
        granule: u64,
        class: SizeClass,
        generation: u32,
    ) -> bool {
        let Some(held) = &mut cache.pairs[usize::from(class.0)].loaded else { return false };
        if !held.write_next(granule) {
            return false;
        }
        held.count += 1;
        sector.store(granule, held.cached.of_generation(generation.wrapping_add(1)));
        true
    }

    /// Puts a loose block, whose word was `word`, into the magazine at hand. `false` if there is no room in it, or the block is
    /// not of a cached size, or its word has changed.
    #[inline(always)]
    pub(crate) fn push_loose_at_hand(&self, sector: &Sector, cache: &mut Cache, granule: u64, word: Word) -> bool {
        let Some(class) = SizeClass::exactly(word.len()) else { return false };
        let Some(held) = &mut cache.pairs[usize::from(class.0)].loaded else { return false };
        let cached = held.cached.of_generation(word.next_generation());
        // An item does not count before the word says so.
        let is_taken = held.write_next(granule) && sector.replace(granule, word, cached);
        held.count += u8::from(is_taken);
        is_taken
    }

    /// Puts a block of the lane's participant into a magazine. `false` if it is not of a cached size, or there is no
    /// magazine for it.
    pub(crate) fn push(&self, sector: &Sector, lane: &Lane, cache: &mut Cache, granule: u64, word: Word) -> bool {
        let Some(class) = SizeClass::exactly(word.len()) else { return false };
        let generation = word.generation();
        self.push_at_hand(sector, cache, granule, class, generation)
            || self.unload(sector, lane, &mut cache.pairs[usize::from(class.0)], class)
                && self.push_at_hand(sector, cache, granule, class, generation)
    }

    /// Brings a magazine with room in it to the front.
    #[cold]
    fn unload(&self, sector: &Sector, lane: &Lane, pair: &mut Pair, class: SizeClass) -> bool {
        for slot in [&mut pair.loaded, &mut pair.spare] {
            if let Some(held) = *slot
                && held.is_revoked()
            {
                *slot = None;
                self.abandon(sector, lane, held);
            }
        }
        if pair.spare.is_some_and(|spare| spare.count < spare.capacity) {
            std::mem::swap(&mut pair.loaded, &mut pair.spare);
            return true;
        }
        let Some(empty) = self.acquire(lane, EMPTY_ROW, Holder::Empty, class) else { return false };
        if let Some(full) = pair.loaded.replace(empty)
            && let Some(spare) = pair.spare.replace(full)
        {
            pair.given = Some(spare.magazine);
            self.hand_over(sector, lane, spare, class);
        }
        true
    }

    /// Gives up all magazines of a lane.
    pub(crate) fn flush(&self, sector: &Sector, lane: &Lane, cache: &mut Cache) {
        for (class, pair) in cache.pairs.iter_mut().enumerate() {
            for held in [pair.loaded.take(), pair.spare.take()].into_iter().flatten() {
                self.hand_over(sector, lane, held, SizeClass(class as u8));
            }
        }
    }

    /// Takes all cached blocks out of all magazines, and frees them. See the module.
    #[cold]
    pub(crate) fn drain(&self, sector: &Sector, lane: &Lane) {
        let cached: Vec<(u64, Word)> = (0..sector.granules())
            .map(|granule| (granule, sector.word(granule)))
            .filter(|(_, word)| word.state() == State::Cached)
            .collect();
        let mut revoked = [0_u64; DEPOT_WORDS];
        for magazine in 0..self.lines.len() {
            if self.revoke(sector, lane, magazine as u16) {
                revoked[magazine / 64] |= 1 << (magazine % 64);
            }
        }
        // Pairs with the one in `pop`.
        if cached.is_empty() || !self.fenced || !membarrier::everywhere() {
            return;
        }
        // A block that its owner is taking is left to it: but an owner that has found its magazine revoked meanwhile takes it
        // no more, and works on another one.
        let mut left = cached;
        for _ in 0..2 {
            let taking: Vec<u64> = self.lanes.iter().filter_map(LaneLine::taking).collect();
            left.retain(|(granule, word)| {
                let magazine = usize::from(word.owner());
                let is_revoked = revoked.get(magazine / 64).is_some_and(|bits| bits >> (magazine % 64) & 1 == 1);
                let is_left = is_revoked && taking.contains(granule);
                if is_revoked && !is_left {
                    self.take_out(sector, lane, *granule, *word);
                }
                is_left
            });
            if left.is_empty() {
                break;
            }
        }
    }

    /// Takes a magazine away from its owner; `false` if it had nothing in it, or was full and is empty now.
    fn revoke(&self, sector: &Sector, lane: &Lane, magazine: u16) -> bool {
        let line = &self.lines[usize::from(magazine)];
        loop {
            // Ordering: as in `acquire`.
            let word = line.word.load(Ordering::Acquire);
            let (next, full) = match holder(word) {
                Holder::Empty => return false,
                Holder::Revoked(..) => return true,
                Holder::Full(size) => (Holder::Owned(lane.id(), size), SizeClass::try_from(size).ok()),
                Holder::Owned(owner, size) => (Holder::Revoked(owner, size), None),
            };
            let next = pack(next, word.wrapping_add(1));
            if line.word.compare_exchange(word, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                if let Some(class) = full {
                    // Nobody has it any more, nor had a part of it in hand.
                    let count = line.count.load(Ordering::Relaxed);
                    self.abandon(sector, lane, self.held(lane, magazine, next, count, class));
                }
                return full.is_none();
            }
        }
    }

    /// Empties the magazines of lanes that are dead: their blocks have been taken out by their words.
    pub(crate) fn bury(&self, dead: impl Fn(LaneId) -> bool) {
        for (magazine, line) in self.lines.iter().enumerate() {
            loop {
                // Ordering: Acquire and AcqRel: as in `acquire`.
                let held = line.word.load(Ordering::Acquire);
                match holder(held) {
                    Holder::Owned(lane, _) | Holder::Revoked(lane, _) if dead(lane) => {
                        let empty = pack(Holder::Empty, held.wrapping_add(1));
                        if line.word.compare_exchange(held, empty, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                            continue;
                        }
                        self.raise(EMPTY_ROW, magazine as u16);
                    }
                    Holder::Empty => self.raise(EMPTY_ROW, magazine as u16),
                    Holder::Full(size) if usize::from(size) < CACHED_SIZES => {
                        self.raise(usize::from(size), magazine as u16)
                    }
                    _ => {}
                }
                break;
            }
        }
    }

    /// The lines of all lanes that may have magazines.
    pub(crate) fn lanes(&self) -> &[LaneLine] {
        &self.lanes
    }

    /// The view of a process to which the kernel refuses fences.
    #[cfg(test)]
    pub(crate) fn without_fences(self) -> Self {
        Self { fenced: false, ..self }
    }

    /// A lane of those who may have magazines.
    #[cfg(test)]
    pub(crate) fn lane(&self, id: LaneId) -> Lane {
        // SAFETY: a line of the table, which outlives the views of it.
        Lane::new(id, unsafe { SharedRef::new(NonNull::from(&self.lanes[usize::from(id.0)])) })
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
    fn words_of_magazines_survive_packing() {
        let lane = LaneId(16_383);
        for state in [Holder::Empty, Holder::Full(15), Holder::Owned(lane, 7), Holder::Revoked(lane, 0)] {
            assert_eq!(holder(pack(state, u64::MAX)), state);
        }
    }
}
