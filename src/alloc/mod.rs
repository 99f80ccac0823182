//! The allocator: claim words, carve and extend left, magazines.
//!
//! One rule carries everything: **one out-of-line 64-bit word per granule is the only truth; every index is a hint.**
//! Allocation and ownership are the same CAS, so nothing is ever taken by nobody, and whoever dies leaves words that
//! name it. [`word`] has the table of states, [`sector`] the invariants and how blocks change their size, [`hints`] the
//! bitmaps that make the search short, [`magazine`] the caches that make it unnecessary, [`check`] what must hold.
//!
//! All operations are lock-free. Nothing read from shared memory is used as an index before it was checked.

pub(crate) mod check;
pub(crate) mod hints;
pub(crate) mod magazine;
pub(crate) mod sector;
pub(crate) mod word;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod seed_mistakes;
#[cfg(all(test, not(loom)))]
mod sequential_model;
#[cfg(all(test, shuttle))]
mod shuttle_tests;
#[cfg(all(test, not(loom)))]
mod tests;

use crate::{
    alloc::{
        magazine::{Cache, Depot, LONGEST, SizeClass},
        sector::{Run, Sector},
        word::{State, Word},
    },
    region::{
        lanes::{BlockId, Lane, LaneId},
        layout::SECTORS,
    },
};

/// Blocks of at least this many granules go to the next larger sector, unless they would waste most of a granule there.
const PREFERRED_LEN: [u64; SECTORS] = [LONGEST + 1, 512, u64::MAX];

/// Why there is no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocError {
    /// No free run of that size exists now.
    #[error(
        "out of memory: no {requested} bytes in one piece are free in the segment; wait, or make the segment larger"
    )]
    OutOfMemory {
        /// Bytes asked for.
        requested: usize,
    },
    /// No free run of that size exists now, and the segment cannot grow: its file system is full.
    #[error(
        "out of memory: no {requested} bytes in one piece are free in the segment, and its file system, with {free} bytes \
         free, has no room for it to grow; wait, or make room there"
    )]
    NoRoom {
        /// Bytes asked for.
        requested: usize,
        /// Bytes that are free in the file system.
        free: u64,
    },
    /// The segment can never hold a block of that size, or not in the file system that it stands in, however much of that were
    /// free.
    #[error(
        "{requested} bytes can never fit into the segment, whose largest block is {largest} bytes; make it larger, or the file \
         system that it stands in, if that has less room than the segment may grow to"
    )]
    TooLarge {
        /// Bytes asked for.
        requested: usize,
        /// Bytes of the largest block that the segment can hold.
        largest: usize,
    },
    /// No sector has blocks with that alignment.
    #[error("an alignment of {requested} bytes is not supported; the largest is {largest}")]
    Alignment {
        /// Bytes asked for.
        requested: usize,
        /// The largest alignment that a sector of the segment has.
        largest: usize,
    },
    /// This process is a forked child of the one that opened the segment.
    #[error("this process was forked from the one that opened the segment: open it again here")]
    Forked,
}

/// A block: where it is, how long, and which of the blocks that were ever there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) id: BlockId,
    /// Granules.
    pub(crate) len: u64,
    pub(crate) generation: u32,
}

impl Block {
    /// The same block, of the generation after this one.
    pub(crate) fn renewed(self) -> Self {
        Self { generation: Word::new(State::Allocated, 0, 0, self.generation).next_generation(), ..self }
    }
}

fn block_of(sector: usize, run: Run) -> Block {
    Block { id: BlockId::new(sector, run.granule), len: run.len, generation: run.generation }
}

/// What a thread works with in a segment: its lane, and the lane's magazines.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) lane: Lane,
    pub(crate) cache: Cache,
}

impl Worker {
    pub(crate) fn new(lane: Lane) -> Self {
        Self { lane, cache: Cache::default() }
    }
}

/// The process's view of a segment's allocator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allocator {
    sectors: [Sector; SECTORS],
    depot: Depot,
}

impl Allocator {
    pub(crate) fn new(sectors: [Sector; SECTORS], depot: Depot) -> Self {
        Self { sectors, depot }
    }

    /// Makes everything free, with so many granules in each sector. Nobody else may look yet.
    pub(crate) fn format(&self, granules: [u64; SECTORS]) {
        for (sector, granules) in self.sectors.iter().zip(granules) {
            sector.format(granules);
        }
        self.depot.format();
    }

    /// The length in granules from which on a block goes to the next larger sector: there it fills half a granule at least.
    fn preferred_len(&self, index: usize) -> u64 {
        let half = self.sectors.get(index + 1).map_or(0, |next| next.bytes(1) as usize / 2);
        PREFERRED_LEN[index].max(self.sectors[index].granules_for(half))
    }

    /// The sectors for a request, the preferred one first: larger ones follow, smaller ones only stand in for those
    /// that the segment does not have.
    fn candidates(&self, bytes: usize, align: usize) -> impl Iterator<Item = (usize, u64)> + '_ {
        let fits = move |index: usize| {
            let sector = &self.sectors[index];
            let len = sector.granules_for(bytes);
            (align as u64 <= sector.alignment() && len <= sector.longest() && !sector.is_quarantined())
                .then_some((index, len))
        };
        let preferred = (0..SECTORS)
            .find(|index| fits(*index).is_some_and(|(index, len)| len < self.preferred_len(index)))
            .or_else(|| (0..SECTORS).rev().find(|index| fits(*index).is_some()))
            .unwrap_or(SECTORS);
        (preferred..SECTORS).filter_map(fits)
    }

    /// Takes a block of at least `bytes` bytes out of the magazine at hand: the case that matters.
    #[inline(always)]
    pub(crate) fn allocate_at_hand(&self, worker: &mut Worker, bytes: usize, align: usize) -> Option<Block> {
        let class = self.cached_class(bytes, align)?;
        let Worker { lane, cache } = worker;
        let Run { granule, len, generation } = self.depot.pop_at_hand(&self.sectors[0], lane, cache, class)?;
        // A granule's number fits.
        Some(Block { id: BlockId(granule as u32), len, generation })
    }

    /// The granule of the block that a request of that size will get, `ahead` requests after this one, if it is known; its word is
    /// asked for. A guess.
    #[inline(always)]
    pub(crate) fn upcoming(&self, worker: &Worker, bytes: usize, ahead: u8) -> Option<u64> {
        let granule = self.depot.upcoming(&worker.cache, self.cached_class(bytes, 1)?, ahead)?;
        self.sectors[0].prefetch(granule);
        Some(granule)
    }

    /// The size of cached blocks that serves a request, if there is one.
    #[inline(always)]
    fn cached_class(&self, bytes: usize, align: usize) -> Option<SizeClass> {
        let small = &self.sectors[0];
        if align as u64 > small.alignment() {
            return None;
        }
        SizeClass::covering(small.granules_for(bytes))
    }

    /// Takes a block of at least `bytes` bytes.
    ///
    /// # Errors
    ///
    /// [`AllocError::OutOfMemory`] only if no free run of the length exists, caches included, in any sector that may
    /// serve the request; the others at once and for ever.
    pub(crate) fn allocate(&self, worker: &mut Worker, bytes: usize, align: usize) -> Result<Block, AllocError> {
        let small = &self.sectors[0];
        if self.depot.len() > 0
            && let Some(class) = self.cached_class(bytes, align)
        {
            let Worker { lane, cache } = worker;
            if let Some(run) = self.depot.pop(small, lane, cache, class) {
                return Ok(block_of(0, run));
            }
        }
        self.allocate_slowly(worker, bytes, align)
    }

    #[cold]
    fn allocate_slowly(&self, worker: &mut Worker, bytes: usize, align: usize) -> Result<Block, AllocError> {
        let mut possible = false;
        for (index, len) in self.candidates(bytes, align) {
            possible = true;
            if let Some(run) = self.sectors[index].take(&worker.lane, len) {
                return Ok(block_of(index, run));
            }
        }
        if !possible {
            return Err(self.impossible(bytes, align));
        }
        for (index, len) in self.candidates(bytes, align) {
            if index == 0 {
                self.drain_caches(worker);
            }
            if let Some(run) = self.sectors[index].sweep(&worker.lane, len) {
                return Ok(block_of(index, run));
            }
        }
        Err(AllocError::OutOfMemory { requested: bytes })
    }

    /// Takes a block of at least `bytes` bytes after `allocate` found none, by letting a sector grow. `provide` makes sure
    /// that there is memory for a sector to grow from so many granules to so many; it is also told how many granules there will be in
    /// the end, and had better refuse the first step if it will refuse another: growth is not undone.
    ///
    /// # Errors
    ///
    /// [`AllocError::OutOfMemory`] if no sector can grow far enough, or `provide` finds no memory.
    #[cold]
    pub(crate) fn allocate_growing(
        &self,
        lane: &Lane,
        bytes: usize,
        align: usize,
        provide: impl Fn(usize, u64, u64, u64) -> bool,
    ) -> Result<Block, AllocError> {
        for (index, len) in self.candidates(bytes, align) {
            let sector = &self.sectors[index];
            // A step may be too short for a long block, and others may take what it brings.
            loop {
                let from = sector.granules();
                let Some((to, last)) = sector.next_extent(from).zip(sector.extent_for(from, len)) else { break };
                if !provide(index, from, to, last) {
                    break;
                }
                sector.grow(lane, from, to);
                if let Some(run) = sector.take(lane, len) {
                    return Ok(block_of(index, run));
                }
                if sector.granules() <= from {
                    // What stands at the end is no end: somebody has overwritten it, or the extent.
                    break;
                }
            }
        }
        Err(AllocError::OutOfMemory { requested: bytes })
    }

    /// The longest block of at least that alignment that there can be if sectors grow as far as `may_grow` allows, which is asked
    /// whether a sector may grow from what it has now to so many granules; and whether one of so many bytes is among those that there can
    /// be.
    pub(crate) fn longest_within(
        &self,
        bytes: usize,
        align: usize,
        may_grow: impl Fn(usize, u64, u64) -> bool,
    ) -> (usize, bool) {
        let mut longest = 0;
        for (index, sector) in self.sectors.iter().enumerate() {
            if sector.is_quarantined() || sector.alignment() < align as u64 {
                continue;
            }
            let now = sector.granules();
            let grown = std::iter::successors(Some(now), |from| sector.next_extent(*from));
            let last = grown.take_while(|to| *to == now || may_grow(index, now, *to)).last().unwrap_or(now);
            longest = longest.max(sector.bytes(last.min(sector.longest())) as usize);
        }
        (longest, bytes <= longest)
    }

    /// Why a request can never be served.
    pub(crate) fn impossible(&self, bytes: usize, align: usize) -> AllocError {
        // Of each sector: the largest alignment, and bytes of the longest block.
        let sectors = self.sectors.iter().filter(|sector| sector.most() > 0 && !sector.is_quarantined());
        let sectors = sectors.map(|sector| (sector.alignment() as usize, sector.bytes(sector.longest()) as usize));
        let largest = sectors.clone().map(|(align, _)| align).max().unwrap_or(0);
        if align > largest {
            return AllocError::Alignment { requested: align, largest };
        }
        let largest = sectors.filter(|(most, _)| align <= *most).map(|(_, longest)| longest).max().unwrap_or(0);
        AllocError::TooLarge { requested: bytes, largest }
    }

    /// Gives back a block that the worker's participant owns, if it is as long as a request for so many bytes gets it out of
    /// a magazine, and there is room for it in the one at hand: the case that matters.
    #[inline(always)]
    pub(crate) fn free_at_hand(&self, worker: &mut Worker, id: BlockId, generation: u32, bytes: usize) -> bool {
        let Some(class) = self.cached_class(bytes, 1) else { return false };
        let (sector, granule) = (&self.sectors[0], id.granule());
        let Some(word) = sector.get(granule).filter(|_| id.sector() == 0) else { return false };
        // What follows needs the word only to be sure that it is as expected.
        let expected = Word::allocated(LaneId(0), class.len(), generation);
        word.without_owner() == expected
            && self.depot.push_at_hand(sector, &mut worker.cache, granule, class, generation)
    }

    /// Gives back a block that the worker's participant owns.
    pub(crate) fn free(&self, worker: &mut Worker, block: Block) {
        let id = block.id;
        // Not there any more if the sector is in quarantine.
        let Some((sector, word)) = self.head(id, block.generation) else { return };
        if !matches!(word.state(), State::Allocated | State::Claimed) {
            // Somebody has written here who must not.
            return;
        }
        let Worker { lane, cache } = worker;
        if id.sector() != 0 || self.depot.len() == 0 || !self.depot.push(sector, lane, cache, id.granule(), word) {
            sector.release(lane, id.granule());
        }
    }

    /// Gives up a lane's magazines.
    pub(crate) fn flush(&self, worker: &mut Worker) {
        self.depot.flush(&self.sectors[0], &worker.lane, &mut worker.cache);
    }

    /// Frees what is in magazines, whoever has them.
    #[cold]
    fn drain_caches(&self, worker: &mut Worker) {
        // Its own are taken as all full ones are, also where the kernel refuses what it takes to have others' at hand.
        self.flush(worker);
        self.depot.drain(&self.sectors[0], &worker.lane);
    }

    /// The sector and head word of a block, if there is such a block.
    fn head(&self, id: BlockId, generation: u32) -> Option<(&Sector, Word)> {
        let (sector, word) = self.word_of(id)?;
        (word.is_head() && word.generation() == generation).then_some((sector, word))
    }

    /// The block that begins at `id`, if it is allocated, of that generation, and that lane's.
    pub(crate) fn owned_by(&self, id: BlockId, generation: u32, lane: LaneId) -> Option<Block> {
        let (sector, word) = self.head(id, generation)?;
        (word == Word::allocated(lane, word.len(), generation) && id.granule() + word.len() <= sector.granules())
            .then_some(Block { id, len: word.len(), generation })
    }

    /// The block that begins at `id`, of that generation, whatever its state.
    pub(crate) fn find(&self, id: BlockId, generation: u32) -> Option<Block> {
        self.head(id, generation).map(|(_, word)| Block { id, len: word.len(), generation })
    }

    /// The block that begins at `id`, if there may be one at all: its sector, and the word that stands there.
    #[inline]
    pub(crate) fn word_of(&self, id: BlockId) -> Option<(&Sector, Word)> {
        let sector = self.sectors.get(id.sector()).filter(|sector| id.granule() < sector.granules())?;
        Some((sector, sector.word(id.granule())))
    }

    /// Where blocks begin now, of whatever state. Takes time in proportion to the size of the segment.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (BlockId, Word)> + '_ {
        self.sectors.iter().flat_map(|sector| {
            let mut granule = 0;
            std::iter::from_fn(move || {
                while granule < sector.granules() {
                    let (at, word) = (granule, sector.word(granule));
                    let is_block = word.is_head() && word.len() > 0 && at + word.len() <= sector.granules();
                    granule += if is_block { word.len() } else { 1 };
                    if is_block {
                        return Some((BlockId::new(sector.index(), at), word));
                    }
                }
                None
            })
        })
    }

    /// The block that begins at `id` and is on its way through a ring, if that is what stands there.
    #[inline(always)]
    pub(crate) fn in_flight(&self, id: BlockId) -> Option<(Block, LaneId)> {
        let sector = self.sectors.get(id.sector())?;
        if id.granule() >= sector.granules() {
            return None;
        }
        let word = sector.word(id.granule());
        (word.state() == State::InFlight && word.len() > 0 && id.granule() + word.len() <= sector.granules())
            .then(|| (Block { id, len: word.len(), generation: word.generation() }, word.lane()))
    }

    /// The same for a block in a channel whose messages come back.
    pub(crate) fn promised(&self, id: BlockId) -> Option<(Block, LaneId)> {
        let (_, word) = self.word_of(id)?;
        (word.state() == State::Promised && self.is_whole(id, word))
            .then(|| (Block { id, len: word.len(), generation: word.generation() }, word.lane()))
    }

    /// Whether the block that a word tells of is in its sector.
    pub(crate) fn is_whole(&self, id: BlockId, word: Word) -> bool {
        self.sectors
            .get(id.sector())
            .is_some_and(|sector| word.len() > 0 && id.granule() + word.len() <= sector.granules())
    }

    /// Writes the word of a block of the lane.
    #[inline(always)]
    #[cfg_attr(crash_points, track_caller)]
    pub(crate) fn set_state(&self, state: State, lane: LaneId, block: Block) {
        self.sectors[block.id.sector()]
            .store(block.id.granule(), Word::new(state, lane.0, block.len, block.generation));
    }

    /// Says that the lane has taken a block out of a ring, or never put it in.
    #[inline(always)]
    #[cfg_attr(crash_points, track_caller)]
    pub(crate) fn set_allocated(&self, lane: LaneId, block: Block) {
        self.sectors[block.id.sector()].store(block.id.granule(), Word::allocated(lane, block.len, block.generation));
    }

    /// Makes a block of the lane a user's block, which others may look for by its handle.
    pub(crate) fn set_shared(&self, lane: LaneId, block: Block) {
        self.sectors[block.id.sector()].store(block.id.granule(), Word::shared(lane, block.len, block.generation));
    }

    /// Gives a block away that the caller's participant has, if it is there: whoever knows its generation may take it.
    #[inline(always)]
    pub(crate) fn set_loose(&self, id: BlockId, generation: u32) {
        // Not there any more if the sector is in quarantine.
        if let Some((sector, word)) = self.word_of(id)
            && word.state() == State::Allocated
            && word.generation() == generation
        {
            sector.store(id.granule(), word.into_loose());
        }
    }

    /// The word of a loose block of that generation, if there is one.
    #[inline(always)]
    fn loose(&self, sector: &Sector, granule: u64, generation: u32) -> Option<Word> {
        let granules = sector.granules();
        if granule >= granules {
            return None;
        }
        // Whoever has given it away has the line, and it is about to be changed.
        sector.prefetch(granule);
        let word = sector.word(granule);
        (word.state() == State::Loose
            && word.generation() == generation
            && word.len() > 0
            && granule + word.len() <= granules)
            .then_some(word)
    }

    /// Takes a loose block for the lane, if it is there. It is of the next generation then, so that who gives it away again
    /// has another handle.
    #[inline(always)]
    pub(crate) fn take_loose(&self, lane: LaneId, id: BlockId, generation: u32) -> Option<Block> {
        let sector = self.sectors.get(id.sector())?;
        let word = self.loose(sector, id.granule(), generation)?;
        let block = Block { id, len: word.len(), generation: word.next_generation() };
        let taken = Word::allocated(lane, block.len, block.generation);
        sector.replace(id.granule(), word, taken).then_some(block)
    }

    /// Takes a loose block straight into the magazine at hand, if it is there, and if that needs nothing out of the ordinary.
    #[inline(always)]
    pub(crate) fn free_loose_at_hand(&self, worker: &mut Worker, id: BlockId, generation: u32) -> bool {
        let (sector, granule) = (&self.sectors[0], id.granule());
        id.sector() == 0
            && self
                .loose(sector, granule, generation)
                .is_some_and(|word| self.depot.push_loose_at_hand(sector, &mut worker.cache, granule, word))
    }

    /// Bytes that a block has room for.
    #[inline(always)]
    pub(crate) fn bytes_of(&self, block: Block) -> usize {
        self.sectors[block.id.sector()].bytes(block.len) as usize
    }

    /// All sectors.
    pub(crate) fn sectors(&self) -> &[Sector; SECTORS] {
        &self.sectors
    }

    /// The magazines.
    pub(crate) fn depot(&self) -> &Depot {
        &self.depot
    }
}
