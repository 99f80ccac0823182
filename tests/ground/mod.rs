//! A segment's file as its enemy sees it: where everything stands in it, and how to overwrite that.

#![allow(dead_code)] // Each test file uses its own part.

use std::{
    fs::OpenOptions,
    ops::Range,
    os::fd::AsRawFd,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::common::Random;

/// Offsets in the header, see `src/region/layout.rs`.
mod field {
    use std::ops::Range;

    pub(super) const PARTICIPANTS: usize = 72;
    pub(super) const LANES: usize = 76;
    pub(super) const CHANNELS: usize = 80;
    pub(super) const MAGAZINES: usize = 84;
    pub(super) const LAYOUT: usize = 160;
    pub(super) const LIVE: Range<usize> = 2048..2560;
}

/// Bytes of an entry of the directory.
const ENTRY: usize = 832;

/// A file, mapped by somebody who takes part in nothing.
pub(crate) struct Ground {
    words: &'static [AtomicU64],
}

/// The place of one sector.
#[derive(Clone, Debug)]
pub(crate) struct Sector {
    pub(crate) granule: usize,
    pub(crate) words: Range<usize>,
    pub(crate) maps: Range<usize>,
    pub(crate) data: Range<usize>,
}

impl Ground {
    pub(crate) fn of(path: &Path) -> Self {
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let len = file.metadata().unwrap().len() as usize;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of a whole file.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        assert_ne!(start, libc::MAP_FAILED);
        // SAFETY: pages of the mapping, which stays until it is dropped; atomics may change at any time.
        Self { words: unsafe { std::slice::from_raw_parts(start.cast(), len / 8) } }
    }

    fn u32_at(&self, at: usize) -> usize {
        (self.read(at & !7) >> (at % 8 * 8)) as u32 as usize
    }

    /// The word at an offset.
    pub(crate) fn read(&self, at: usize) -> u64 {
        self.words[at / 8].load(Ordering::Relaxed)
    }

    pub(crate) fn write(&self, at: usize, value: u64) {
        self.words[at / 8].store(value, Ordering::Relaxed);
    }

    fn layout(&self, index: usize) -> usize {
        self.read(field::LAYOUT + 8 * index) as usize
    }

    pub(crate) fn sector(&self, index: usize) -> Sector {
        let at = |field: usize| self.layout(8 + 7 * index + field);
        let (granules, first, granule) = (at(1), at(2), 1 << at(0));
        Sector {
            granule,
            // Those that there are at first; the rest may be holes.
            words: at(3)..at(3) + 8 * (first + 1),
            maps: at(4)..at(4) + 8 * at(5),
            data: at(6)..at(6) + granule * first.min(granules),
        }
    }

    /// Where the data of a sector may stand, grown as far as it can.
    pub(crate) fn place(&self, index: usize) -> Range<usize> {
        let next = if index < 2 { self.sector(index + 1).data.start } else { usize::MAX };
        self.sector(index).data.start..next
    }

    /// An entry of the directory.
    pub(crate) fn entry(&self, index: usize) -> Range<usize> {
        let at = self.layout(6) + ENTRY * index;
        at..at + ENTRY
    }

    /// Who is parked for a channel, and who may have permits.
    pub(crate) fn bitmaps(&self, index: usize) -> Range<usize> {
        let stride = 8 * (4 * self.u32_at(field::PARTICIPANTS).div_ceil(64)).next_multiple_of(8);
        let at = self.layout(30) + stride * index;
        at..at + stride
    }

    /// What the slots of all participants say of themselves: the lowest bit is whether it lives.
    pub(crate) fn participants(&self) -> Vec<u64> {
        (0..self.u32_at(field::PARTICIPANTS)).map(|slot| self.read(self.layout(0) + 128 * slot)).collect()
    }

    pub(crate) fn channels(&self) -> usize {
        self.u32_at(field::CHANNELS)
    }

    /// The live channel of that name.
    pub(crate) fn channel(&self, name: &str) -> Option<usize> {
        (0..self.channels()).find(|index| {
            let entry = self.entry(*index);
            let bytes: Vec<u8> =
                (0..16).flat_map(|word| self.read(entry.start + 192 + 8 * word).to_ne_bytes()).collect();
            self.read(entry.start) & 0xf == 2 && bytes.split(|byte| *byte == 0).next() == Some(name.as_bytes())
        })
    }

    /// The cells of a channel and what stands behind them; and the word of their block.
    pub(crate) fn ring(&self, index: usize) -> Option<(Range<usize>, usize)> {
        let entry = self.entry(index).start;
        let (ring, cells_log) = (self.read(entry + 8), self.read(entry + 16) & 0xff);
        let (sector, granule) = ((ring >> 30 & 3) as usize, (ring & ((1 << 30) - 1)) as usize);
        let sector = (sector < 3).then(|| self.sector(sector))?;
        let start = sector.data.start + granule * sector.granule;
        let len = (8_usize.checked_shl(cells_log as u32)?).checked_add(4 * self.u32_at(field::PARTICIPANTS))? & !7;
        let word = sector.words.start + 8 * granule;
        (start.checked_add(len)? <= sector.data.end && sector.words.contains(&word))
            .then_some((start..start + len, word))
    }

    /// The parts of the file, with names for people.
    pub(crate) fn parts(&self) -> Vec<(&'static str, Range<usize>)> {
        let run = |from: usize, each: usize, count: usize| from..from + each * count;
        let mut parts = vec![
            ("live header", field::LIVE),
            ("participants", run(self.layout(0), 128, self.u32_at(field::PARTICIPANTS))),
            ("pending", run(self.layout(1), 8 * self.layout(2), self.u32_at(field::PARTICIPANTS))),
            // Most lanes are never used.
            ("lanes", run(self.layout(3), 128, 32.min(self.u32_at(field::LANES)))),
            ("depot", self.layout(4)..self.layout(5)),
            ("magazines", run(self.layout(5), 128, 32.min(self.u32_at(field::MAGAZINES)))),
            ("entries", self.entry(0).start..self.entry(self.channels().min(12)).start),
            ("bitmaps", self.bitmaps(0).start..self.bitmaps(self.channels().min(12)).start),
        ];
        let names = [("small words", "small maps"), ("medium words", "medium maps"), ("large words", "large maps")];
        for (index, (words, maps)) in names.into_iter().enumerate() {
            let sector = self.sector(index);
            parts.extend([(words, sector.words), (maps, sector.maps)]);
        }
        for index in 0..self.channels() {
            parts.extend(
                self.ring(index)
                    .filter(|_| self.read(self.entry(index).start) & 0xf == 2)
                    .map(|ring| ("cells", ring.0)),
            );
        }
        parts
    }

    /// Overwrites a word somewhere in there with something that may mean something.
    pub(crate) fn spoil(&self, part: &Range<usize>, random: &mut Random) {
        // Many tables are empty behind their beginnings.
        let words = part.len() / 8;
        let words = if random.below(2) == 0 { words } else { words.min(64) };
        let somewhere = |random: &mut Random| part.start + 8 * random.below(words);
        let at = somewhere(random);
        let now = self.read(at);
        let value = match random.below(9) {
            0 => 0,
            1 => u64::MAX,
            2 | 3 => now ^ 1 << random.below(64),
            4 => now.wrapping_add([1, u64::MAX, 1 << 24, 1 << 32][random.below(4)]),
            5 => self.read(somewhere(random)),
            6 => random.below(4096) as u64,
            7 => now & !0xffff_ffff | random.next() >> 32,
            _ => random.next(),
        };
        self.write(at, value);
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, which nobody has a reference to any more.
        unsafe { libc::munmap(self.words.as_ptr().cast_mut().cast(), size_of_val(self.words)) };
    }
}
