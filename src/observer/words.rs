//! The words of a segment's granules, of which [`word`](crate::alloc::word) has the table.

use std::{cell::RefCell, collections::HashMap, mem::offset_of};

use crate::{
    alloc::word::{State, Word},
    observer::{error::ObserveError, source::Source},
    region::{
        lanes::{BlockId, LaneId},
        layout::{HEADER_LIVE, Layout, LiveHeader, SECTORS},
    },
};

/// Words that are read together.
const PAGE: u64 = 512;
/// Words that are read together by who reads all of them.
const SCAN: u64 = 1 << 15;

/// A block of which all is where it can be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) word: Word,
    /// Where it begins in the file.
    pub(super) at: u64,
    pub(super) bytes: u64,
}

/// The words, as they are read for the first time.
pub(super) struct Words<'a> {
    source: &'a Source,
    layout: &'a Layout,
    /// Granules of each sector; `None` if it is out of use, or what it says makes no sense.
    extents: [Option<u64>; SECTORS],
    pages: RefCell<HashMap<(usize, u64), Vec<u64>>>,
}

impl<'a> Words<'a> {
    pub(super) fn new(source: &'a Source, layout: &'a Layout) -> Result<Self, ObserveError> {
        let mut extents = [None; SECTORS];
        for (sector, extent) in extents.iter_mut().enumerate() {
            let at = HEADER_LIVE as usize + offset_of!(LiveHeader, extents) + sector * size_of::<u64>();
            *extent = Some(source.word(at as u64)?).filter(|granules| *granules <= layout.sectors[sector].granules);
        }
        Ok(Self { source, layout, extents, pages: RefCell::default() })
    }

    /// Granules that a sector has now; `None` if it is out of use.
    pub(super) fn extent(&self, sector: usize) -> Option<u64> {
        self.extents.get(sector).copied().flatten()
    }

    fn is_there(&self, id: BlockId) -> bool {
        self.extent(id.sector()).is_some_and(|granules| id.granule() < granules)
    }

    fn place_of(&self, id: BlockId) -> u64 {
        self.layout.sectors[id.sector()].words_at + id.granule() * size_of::<u64>() as u64
    }

    fn found(&self, id: BlockId, word: Word) -> Option<Found> {
        let sector = &self.layout.sectors[id.sector()];
        let fits = self.extent(id.sector()).is_some_and(|granules| id.granule() + word.len() <= granules);
        (word.is_head() && word.len() > 0 && fits).then(|| Found {
            word,
            at: sector.data_at + sector.bytes(id.granule()),
            bytes: sector.bytes(word.len()),
        })
    }

    /// The block that begins there, as it was when somebody first asked for one nearby.
    pub(super) fn block(&self, id: BlockId) -> Result<Option<Found>, ObserveError> {
        if !self.is_there(id) {
            return Ok(None);
        }
        let (page, inside) = (id.granule() / PAGE, (id.granule() % PAGE) as usize);
        let mut pages = self.pages.borrow_mut();
        let words = match pages.entry((id.sector(), page)) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => {
                let first = BlockId::new(id.sector(), page * PAGE);
                let rest = self.extent(id.sector()).unwrap_or(0).saturating_sub(page * PAGE);
                new.insert(self.source.words(self.place_of(first), rest.min(PAGE) as usize)?)
            }
        };
        Ok(words.get(inside).and_then(|word| self.found(id, Word(*word))))
    }

    /// The block that begins there now.
    pub(super) fn block_now(&self, id: BlockId) -> Result<Option<Found>, ObserveError> {
        if !self.is_there(id) {
            return Ok(None);
        }
        Ok(self.found(id, Word(self.source.word(self.place_of(id))?)))
    }

    /// The block of a channel's rings.
    pub(super) fn ring(&self, id: BlockId, generation: u32) -> Result<Option<Found>, ObserveError> {
        let is_ring = |found: &Found| found.word == Word::allocated(LaneId::SEGMENT, found.word.len(), generation);
        Ok(self.block_now(id)?.filter(is_ring))
    }

    /// Calls `each` with every block of a sector that one can find; what no block covers is passed over.
    pub(super) fn each(&self, sector: usize, mut each: impl FnMut(BlockId, Found)) -> Result<(), ObserveError> {
        let granules = self.extent(sector).unwrap_or(0);
        let (mut at, mut first, mut words) = (0, 0, Vec::new());
        while at < granules {
            if at >= first + words.len() as u64 {
                first = at;
                let many = SCAN.min(granules - first) as usize;
                words = self.source.words(self.place_of(BlockId::new(sector, first)), many)?;
            }
            let id = BlockId::new(sector, at);
            let word = words.get((at - first) as usize).map_or(Word(0), |word| Word(*word));
            match self.found(id, word) {
                Some(found) => {
                    each(id, found);
                    at += found.word.len();
                }
                None => at += 1,
            }
        }
        Ok(())
    }

    /// Whether it is the block of a message that was received and is not acknowledged, or that came back and is in no ring.
    pub(super) fn is_apart(word: Word) -> bool {
        matches!(word.state(), State::Received | State::Returned)
    }
}
