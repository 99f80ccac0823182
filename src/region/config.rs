//! How a segment is to be made: what the options ask for, and the header that comes of it.

use std::path::PathBuf;

use uuid::Uuid;
use zerocopy::IntoBytes;

use crate::{
    alloc::magazine::BUDGET,
    region::{
        error::OpenError,
        fnv1a,
        layout::{
            DEFAULT_GRANULES, DEFAULT_PARTICIPANTS, ENDIAN_MARK, FLAG_PERSISTENT, FLAG_ZERO_ON_FREE, LAYOUT_VERSION,
            Layout, MAGIC, MAX_GRANULE, MAX_LANES, MAX_MAGAZINES, MAX_PARTICIPANTS, MIN_GRANULE, PAGE, Params, SECTORS,
            StaticHeader, are_granules, share_of,
        },
    },
    sys::file,
};

/// How a segment is to be made, and where.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) size: Option<u64>,
    pub(crate) max_size: Option<u64>,
    pub(crate) participants: u32,
    pub(crate) channels: Option<u32>,
    pub(crate) magazines: Option<u32>,
    pub(crate) shares: [u32; SECTORS],
    pub(crate) granules: [u64; SECTORS],
    pub(crate) dir: Option<PathBuf>,
    pub(crate) persistent: bool,
    pub(crate) zero_on_free: bool,
    /// What this process wants of its mapping.
    pub(crate) huge_pages: bool,
    pub(crate) populate: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            size: None,
            max_size: None,
            participants: DEFAULT_PARTICIPANTS,
            channels: None,
            magazines: None,
            shares: [25, 35, 40],
            granules: DEFAULT_GRANULES,
            dir: None,
            persistent: false,
            zero_on_free: false,
            huge_pages: false,
            populate: false,
        }
    }
}

/// The most channels of a segment: what the directory's register can number.
pub(super) const MAX_CHANNELS: u32 = 1 << 15;
/// The largest segment: what thirty bits of granules of the large sector can number, with a margin, if those have the
/// size that they have unless told otherwise.
pub(super) const MAX_SIZE: u64 = 1 << 44;

/// The size of a segment, and what it may grow to, unless told otherwise.
const DEFAULT_SIZE: u64 = 16 << 20;
const DEFAULT_MAX_SIZE: u64 = 1 << 30;

impl Config {
    /// The size at first, and the most. Who says only one of them means a segment of that size.
    fn sizes(&self) -> Result<(u64, u64), OpenError> {
        let (size, most) = match (self.size, self.max_size) {
            (None, None) => (DEFAULT_SIZE, DEFAULT_MAX_SIZE),
            (Some(size), most) => (size, most.unwrap_or(size)),
            (None, Some(most)) => (most.min(DEFAULT_SIZE), most),
        };
        if size.max(most) > MAX_SIZE {
            return Err(OpenError::InvalidOptions(format!(
                "a size of {} bytes is not possible: the largest is {MAX_SIZE}",
                size.max(most)
            )));
        }
        if most < size {
            return Err(OpenError::InvalidOptions(format!(
                "a segment of {size} bytes cannot be limited to {most}: choose a max_size that is not below the size"
            )));
        }
        Ok((size.next_multiple_of(PAGE), most.next_multiple_of(PAGE)))
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.dir.as_deref().map_or_else(file::default_directory, file::absolute)
    }

    fn params(&self) -> Result<Params, OpenError> {
        if !(1..=MAX_PARTICIPANTS).contains(&self.participants) {
            return Err(OpenError::InvalidOptions(format!(
                "{} participants are not possible: choose from 1 to {MAX_PARTICIPANTS}",
                self.participants
            )));
        }
        if self.shares == [0; SECTORS] {
            return Err(OpenError::InvalidOptions("at least one sector must have a share".into()));
        }
        if !are_granules(&self.granules) {
            let [small, medium, large] = self.granules;
            return Err(OpenError::InvalidOptions(format!(
                "granules of {small}, {medium} and {large} bytes are not possible: choose powers of two from \
                 {MIN_GRANULE} to {MAX_GRANULE}, each larger than the one before"
            )));
        }
        let (size, max_size) = self.sizes()?;
        let channels = self.channels.unwrap_or((size >> 14).clamp(16, 1024) as u32);
        if !(1..=MAX_CHANNELS).contains(&channels) {
            return Err(OpenError::InvalidOptions(format!(
                "{channels} channels are not possible: choose from 1 to {MAX_CHANNELS}"
            )));
        }
        // At most 1/32 of the size for lanes, but a few for each participant.
        let least = 2 * self.participants;
        let lanes = (8 * self.participants).min((size / 32 / 128) as u32).clamp(least.min(MAX_LANES), MAX_LANES);
        // All magazines together hold at most a quarter of the small sector.
        let small = share_of(size, self.shares[0], &self.shares) / self.granules[0];
        let magazines = self.magazines.map_or(small / 4 / BUDGET, u64::from).min(u64::from(MAX_MAGAZINES)) as u32;
        let mut params = Params {
            size,
            max_size,
            participants: self.participants,
            lanes,
            channels,
            magazines,
            shares: self.shares,
            flags: if self.persistent { FLAG_PERSISTENT } else { 0 }
                | if self.zero_on_free { FLAG_ZERO_ON_FREE } else { 0 },
            granules: self.granules,
            reserved: [0; 4],
        };
        // What the tables leave is known only now; with fewer magazines it is more.
        if self.magazines.is_none()
            && let Ok(layout) = Layout::compute(&params)
        {
            params.magazines = magazines.min((layout.sectors[0].first / 4 / BUDGET) as u32);
        }
        Ok(params)
    }

    /// A size from `least` on that is enough. Tables grow with the size, so it is found by trying.
    fn enough(&self, least: u64) -> u64 {
        let larger = |size: &u64| Some(size + (size / 16).next_multiple_of(PAGE));
        std::iter::successors(Some(least.next_multiple_of(PAGE)), larger)
            .take_while(|size| *size <= MAX_SIZE)
            .find(|size| {
                let max_size = self.max_size.map(|most| most.max(*size));
                let params = Self { size: Some(*size), max_size, ..self.clone() }.params();
                params.is_ok_and(|params| Layout::compute(&params).is_ok())
            })
            .unwrap_or(MAX_SIZE)
    }

    pub(super) fn header(&self) -> Result<StaticHeader, OpenError> {
        let params = self.params()?;
        let layout = Layout::compute(&params)
            .map_err(|least| OpenError::TooSmall { size: params.size, needed: self.enough(least.max(params.size)) })?;
        let mut header = StaticHeader {
            magic: MAGIC,
            version: LAYOUT_VERSION,
            endian: ENDIAN_MARK,
            required: 0,
            optional: 0,
            page_size: file::page_size() as u32,
            pointer_bits: usize::BITS,
            uuid: Uuid::new_v4().into_bytes(),
            params,
            layout,
            checksum: 0,
        };
        header.checksum = checksum(&header);
        Ok(header)
    }
}

/// The checksum of all that stands before it.
pub(super) fn checksum(header: &StaticHeader) -> u64 {
    let bytes = header.as_bytes();
    fnv1a(&bytes[..bytes.len() - size_of::<u64>()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magazines_hold_at_most_a_quarter_of_the_small_sector() {
        let granules = [DEFAULT_GRANULES, [128, 2048, 65536], [64, 256, 4096], [4096, 65536, 1 << 20]];
        let shares = [[25, 35, 40], [1, 0, 0], [1, 1, 1000], [0, 1, 0]];
        for (granules, shares) in granules.into_iter().flat_map(|granules| shares.map(|shares| (granules, shares))) {
            let mut before = 0;
            for size in [4 << 20, 16 << 20, 64 << 20, 1 << 30, 16 << 30] {
                let header = Config { size: Some(size), granules, shares, ..Config::default() }.header().unwrap();
                let (magazines, small) = (u64::from(header.params.magazines), header.layout.sectors[0].first);
                assert!(4 * BUDGET * magazines <= small, "{magazines} magazines, {small} granules");
                // And nearly that much, as far as there may be so many.
                assert!(5 * BUDGET * (magazines + 2) > small || magazines == u64::from(MAX_MAGAZINES));
                assert!(magazines >= before);
                before = magazines;
            }
        }
    }
}
