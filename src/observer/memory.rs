//! What a segment's memory holds.

use crate::{
    alloc::check::SectorReport,
    observer::{Observer, error::ObserveError, words::Words},
    region::{
        lanes::Counter,
        layout::{LaneLine, SECTORS},
    },
};

/// The memory of a segment, told by [`Observer::memory`]: a survey, made while others work, and no balance.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct MemoryView {
    /// The small, the medium and the large sector.
    pub sectors: [SectorReport; SECTORS],
    /// Bytes of all sectors, as large as they are now.
    pub size: usize,
    /// Bytes of all sectors if the segment grows as far as it may.
    pub max_size: usize,
    /// Bytes that belong to somebody, messages on their way included.
    pub used: usize,
    /// Bytes that are free, those in magazines included.
    pub free: usize,
    /// Bytes of memory that the file has of its file system, tables included.
    pub file_bytes: usize,
    /// Blocks that came out of a magazine since the segment was made.
    pub cache_hits: u64,
    /// Times that a thread found its magazines of a size empty.
    pub cache_misses: u64,
    /// Steps in which the segment has grown.
    pub growths: u64,
    /// Times that somebody has waited for memory.
    pub memory_waits: u64,
}

impl MemoryView {
    /// How much of the free memory is not in the largest free block of its sector: from 0 to nearly 1.
    pub fn fragmentation(&self) -> f64 {
        let free: usize = self.sectors.iter().map(|sector| sector.free_bytes).sum();
        let largest: usize = self.sectors.iter().map(|sector| sector.largest_free).sum();
        if free == 0 { 0.0 } else { 1.0 - largest as f64 / free as f64 }
    }
}

impl Observer {
    /// What the segment's memory holds; zeros where that cannot be read. In time proportional to the segment's size.
    pub fn memory(&self) -> MemoryView {
        self.try_memory().unwrap_or_default()
    }

    /// The same, or why it cannot be read.
    ///
    /// # Errors
    ///
    /// Any [`ObserveError`] of reading.
    pub fn try_memory(&self) -> Result<MemoryView, ObserveError> {
        let words = self.words()?;
        let mut view = MemoryView { file_bytes: self.source.taken()? as usize, ..MemoryView::default() };
        self.add_counters(&mut view)?;
        for (index, sector) in self.header.layout.sectors.iter().enumerate() {
            view.sectors[index] = self.sector(&words, index)?;
            view.max_size += sector.bytes(sector.granules) as usize;
        }
        for sector in &view.sectors {
            view.size += sector.bytes;
            view.used += sector.allocated_bytes + sector.in_flight_bytes;
            view.free += sector.free_bytes + sector.cached_bytes;
        }
        Ok(view)
    }

    fn sector(&self, words: &Words<'_>, index: usize) -> Result<SectorReport, ObserveError> {
        let layout = &self.header.layout.sectors[index];
        let mut report = SectorReport {
            granule: layout.bytes(1) as usize,
            bytes: layout.bytes(words.extent(index).unwrap_or(0)) as usize,
            quarantined: words.extent(index).is_none(),
            ..SectorReport::default()
        };
        // Where a free block ends.
        let mut free_until = None;
        words.each(index, |_, found| {
            report.count(found.word, found.bytes as usize, free_until == Some(found.at));
            free_until = found.word.is_free().then_some(found.at + found.bytes);
        })?;
        Ok(report)
    }

    /// What all lanes have counted.
    fn add_counters(&self, view: &mut MemoryView) -> Result<(), ObserveError> {
        let lanes = self.table::<LaneLine>(self.header.layout.lanes_at, self.header.params.lanes as usize)?;
        for line in lanes.iter() {
            let counted = |what| line.counters[what as usize].load(crate::sys::sync::Ordering::Relaxed);
            for (sum, what) in [
                (&mut view.cache_hits, Counter::CacheHit),
                (&mut view.cache_misses, Counter::CacheMiss),
                (&mut view.growths, Counter::Growth),
                (&mut view.memory_waits, Counter::Wait),
            ] {
                *sum = sum.wrapping_add(counted(what));
            }
        }
        Ok(())
    }
}
