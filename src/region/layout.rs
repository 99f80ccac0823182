//! What stands where in a segment.
//!
//! ```text
//! 0            StaticHeader        written once, checked on attach, never trusted afterwards
//! HEADER_LIVE  LiveHeader          the few words of a segment that change
//! PAGE         ParticipantSlot  ×  participants
//!              pending          ×  participants     a bit per topic: who was told of what (see notify)
//!              LaneLine         ×  lanes
//!              depot            ×  cached sizes + 1   bitmaps of the magazines: full of a size, or empty
//!              MagazineLine     ×  magazines
//!              ChannelEntry     ×  channels
//!              bitmaps          ×  channels     a bit per participant each: who is parked, who may have permits
//!              maps             of the small, the medium and the large sector
//! page-aligned words            of the small, the medium and the large sector
//! page-aligned granules         of the small, the medium and the large sector
//! ```
//!
//! There is a place for as many words and granules as the segment may ever have, but memory only for those that it has
//! now: the rest are holes in the file, which nobody touches before they have been filled
//! ([`Sector`](crate::alloc::sector::Sector) says how a sector grows).
//!
//! What has a bit for each participant is as long as the segment's participants need, where it is looked at often: 32 bytes for
//! 256 of them, 128 for 1024. What is looked at seldom has room for all there can ever be.
//!
//! Words that are called *reserved* are zero, and nobody writes them. What is going to use one of them says so by a feature
//! that an attacher must know, if it matters to who does not know it.
//!
//! [`Layout::compute`] is a pure function of [`Params`]: the creator stores the parameters and the result, an attacher
//! computes it anew and compares, so no offset is ever taken from shared memory.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::sys::{
    futex::Futex,
    sync::{AtomicU32, AtomicU64, Ordering, SeldomWrittenU64},
};

/// `"WATERWAY"` in the byte order of the machine that made the segment.
pub(crate) const MAGIC: [u8; 8] = *b"WATERWAY";
/// Raised whenever anything in this file changes its meaning.
pub(crate) const LAYOUT_VERSION: u32 = 7;
/// Reads as something else on a machine of the other byte order.
pub(crate) const ENDIAN_MARK: u32 = 0x0102_0304;
/// The unit in which sections and sector data are aligned.
pub(crate) const PAGE: u64 = 4096;
/// Where the [`LiveHeader`] stands.
pub(crate) const HEADER_LIVE: u64 = 2048;
/// The most participants that a segment can be made for: what the marks of a log can name.
pub(crate) const MAX_PARTICIPANTS: u32 = 1024;
/// Participants of a segment, unless told otherwise.
pub(crate) const DEFAULT_PARTICIPANTS: u32 = 256;
/// 64-bit words of a bitmap with a bit for every participant that there can ever be.
pub(crate) const BITMAP_WORDS: usize = (MAX_PARTICIPANTS / 64) as usize;
/// The most lanes that an owner field of 14 bits can name, with some values set aside.
pub(crate) const MAX_LANES: u32 = (1 << 14) - 16;
/// Sectors of a segment.
pub(crate) const SECTORS: usize = 3;
/// Bytes of a granule of the small, the medium and the large sector, unless told otherwise.
pub(crate) const DEFAULT_GRANULES: [u64; SECTORS] = [64, 1024, 65536];
/// The least bytes of a granule: a cache line, which has room for the header of a user's block.
pub(crate) const MIN_GRANULE: u64 = 64;
/// The most bytes of a granule.
pub(crate) const MAX_GRANULE: u64 = 1 << 20;
/// The longest block in granules: what 22 bits can say.
pub(crate) const MAX_BLOCK: u64 = (1 << 22) - 1;
/// The most granules of a sector: what a block's number of 30 bits can name. What is beyond stays unused.
pub(crate) const MAX_GRANULES: u64 = (1 << 30) - 1;
/// Granules that one bit of a location bitmap stands for.
pub(crate) const CHUNK: u64 = 64;
/// Size classes of a sector: 1, 2, 3, then four per power of two up to [`MAX_BLOCK`].
pub(crate) const CLASSES: usize = 83;
/// Words of the bitmap of classes.
pub(crate) const CLASS_WORDS: usize = CLASSES.div_ceil(64);
/// Items of a magazine.
pub(crate) const MAGAZINE_ITEMS: usize = 28;
/// The most magazines of a segment.
pub(crate) const MAX_MAGAZINES: u32 = 1024;
/// 64-bit words of a bitmap with a bit per magazine.
pub(crate) const DEPOT_WORDS: usize = (MAX_MAGAZINES / 64) as usize;
/// Sizes that are cached in magazines.
pub(crate) const CACHED_SIZES: usize = 16;
/// Bits of `pending` per channel: receive, send, closed, and one spare.
pub(crate) const TOPICS_PER_CHANNEL: u32 = 4;
/// What lanes count.
pub(crate) const COUNTERS: usize = 6;
/// The longest name of a segment or channel in bytes.
pub(crate) const MAX_NAME: usize = 128;
/// Bytes that there are for the name of a payload, which is for people.
pub(crate) const MAX_PAYLOAD_NAME: usize = 48;

/// The parameters that decide a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Params {
    /// Bytes of memory that the segment has at first, a multiple of [`PAGE`].
    pub(crate) size: u64,
    /// Bytes of memory that it may grow to, a multiple of [`PAGE`].
    pub(crate) max_size: u64,
    pub(crate) participants: u32,
    pub(crate) lanes: u32,
    pub(crate) channels: u32,
    pub(crate) magazines: u32,
    /// Shares of the three sectors in what the tables leave.
    pub(crate) shares: [u32; SECTORS],
    /// `FLAG_*`.
    pub(crate) flags: u32,
    /// Bytes of a granule of each sector, see [`are_granules`].
    pub(crate) granules: [u64; SECTORS],
    /// Reserved: sizes of tables that there are not yet, such as those of schemas and of ledgers.
    pub(crate) reserved: [u64; 4],
}

/// 64-bit words of a bitmap with a bit for each of so many participants.
pub(crate) const fn bitmap_words(participants: usize) -> usize {
    participants.div_ceil(64)
}

/// The bitmaps that each channel has in the table of bitmaps, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bitmap {
    /// Participants with a task that waits for messages.
    ParkedReceivers = 0,
    /// Participants with a task that waits for room.
    ParkedSenders = 1,
    /// Participants that may have permits; their counts stand behind the cells, see `ring::permits`.
    Holders = 2,
    /// Participants with a task that waits for the channel to close, or for the end of an epoch.
    ParkedClosed = 3,
}

/// How many [`Bitmap`]s there are.
const BITMAPS: usize = 4;

/// 64-bit words between the bitmaps of one channel and those of the next: whole cache lines.
pub(crate) const fn bitmaps_stride(participants: usize) -> usize {
    (BITMAPS * bitmap_words(participants)).next_multiple_of(8)
}

/// Whether sectors may have granules of so many bytes: powers of two, each larger than the one before.
pub(crate) fn are_granules(granules: &[u64; SECTORS]) -> bool {
    granules.iter().all(|bytes| bytes.is_power_of_two() && (MIN_GRANULE..=MAX_GRANULE).contains(bytes))
        && granules.is_sorted_by(|some, next| some < next)
}

/// The segment stays when its last participant leaves.
pub(crate) const FLAG_PERSISTENT: u32 = 1;
/// Freed blocks are overwritten with zeros.
pub(crate) const FLAG_ZERO_ON_FREE: u32 = 2;

/// One sector's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct SectorLayout {
    /// Bytes of a granule, as the power of two.
    pub(crate) granule_log: u64,
    /// Granules that the sector may grow to; 0 if the segment has no such sector.
    pub(crate) granules: u64,
    /// Granules that it has at first.
    pub(crate) first: u64,
    /// Offset of the `granules + 1` words.
    pub(crate) words_at: u64,
    /// Offset of the hint maps.
    pub(crate) maps_at: u64,
    /// 64-bit words of the hint maps.
    pub(crate) maps_len: u64,
    /// Offset of the first granule, a multiple of [`PAGE`].
    pub(crate) data_at: u64,
}

impl SectorLayout {
    /// Bytes of so many granules.
    #[inline(always)]
    pub(crate) fn bytes(&self, granules: u64) -> u64 {
        granules << self.granule_log
    }

    /// Words of one class's location bitmap (a bit per chunk).
    pub(crate) fn leaf_words(granules: u64) -> u64 {
        granules.div_ceil(CHUNK).div_ceil(64)
    }

    /// Words of one class's summary (a bit per word of the location bitmap).
    pub(crate) fn summary_words(granules: u64) -> u64 {
        Self::leaf_words(granules).div_ceil(64)
    }

    /// Words of all hint maps of a sector.
    pub(crate) fn map_words(granules: u64) -> u64 {
        CLASS_WORDS as u64 + CLASSES as u64 * (Self::leaf_words(granules) + Self::summary_words(granules))
    }
}

/// Where everything stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Layout {
    pub(crate) participants_at: u64,
    pub(crate) pending_at: u64,
    /// 64-bit words of `pending` per participant, a multiple of a cache line.
    pub(crate) pending_words: u64,
    pub(crate) lanes_at: u64,
    pub(crate) depot_at: u64,
    pub(crate) magazines_at: u64,
    pub(crate) channels_at: u64,
    /// Where the words of the first sector begin: there are no holes before.
    pub(crate) words_at: u64,
    pub(crate) sectors: [SectorLayout; SECTORS],
    /// Bytes of the file, holes included.
    pub(crate) end: u64,
    /// Of each channel its [`Bitmap`]s, see [`bitmaps_stride`].
    pub(crate) bitmaps_at: u64,
    /// Reserved: where tables stand that there are not yet.
    pub(crate) reserved: [u64; 3],
}

fn align(at: u64, to: u64) -> u64 {
    at.next_multiple_of(to)
}

/// What a share of `bytes` is. There must be a share at all.
pub(crate) fn share_of(bytes: u64, share: u32, shares: &[u32; SECTORS]) -> u64 {
    let all: u128 = shares.iter().map(|share| u128::from(*share)).sum();
    // At most `bytes`, as a share is at most all of them.
    (u128::from(bytes) * u128::from(share) / all) as u64
}

impl Layout {
    /// Lays a segment out, or says how many bytes it would need at least. The granules must be [possible](are_granules).
    pub(crate) fn compute(params: &Params) -> Result<Self, u64> {
        let topics = u64::from(params.channels + 1) * u64::from(TOPICS_PER_CHANNEL);
        let pending_words = topics.div_ceil(64).next_multiple_of(8);
        let participants_at = PAGE;
        let pending_at = participants_at + u64::from(params.participants) * size_of::<ParticipantSlot>() as u64;
        let lanes_at = align(pending_at + u64::from(params.participants) * pending_words * 8, 128);
        let depot_at = lanes_at + u64::from(params.lanes) * size_of::<LaneLine>() as u64;
        let magazines_at = align(depot_at + ((CACHED_SIZES + 1) * DEPOT_WORDS * 8) as u64, 128);
        let channels_at = align(magazines_at + u64::from(params.magazines) * size_of::<MagazineLine>() as u64, 128);
        let bitmaps_at = align(channels_at + u64::from(params.channels) * size_of::<ChannelEntry>() as u64, 128);
        let stride = (8 * bitmaps_stride(params.participants as usize)) as u64;
        let tables = align(bitmaps_at + u64::from(params.channels) * stride, PAGE);

        let least = tables + 16 * PAGE;
        if params.size < least || params.max_size < params.size || params.shares == [0; SECTORS] {
            return Err(least);
        }
        let mut sectors = [SectorLayout::default(); SECTORS];
        let mut at = tables;
        for (sector, layout) in sectors.iter_mut().enumerate() {
            let bytes = share_of(params.max_size - tables, params.shares[sector], &params.shares);
            let granule = params.granules[sector];
            layout.granule_log = u64::from(granule.ilog2());
            let maps = SectorLayout::map_words(bytes / granule) * 8;
            layout.granules = granules_in(bytes.saturating_sub(maps), granule);
            layout.maps_len = SectorLayout::map_words(layout.granules);
            layout.maps_at = at;
            at = align(layout.maps_at + layout.maps_len * 8, 64);
        }
        let words_at = align(at, PAGE);
        let room = params.size.checked_sub(words_at).ok_or(words_at.max(least))?;
        at = words_at;
        for (sector, layout) in sectors.iter_mut().enumerate() {
            let bytes = share_of(room, params.shares[sector], &params.shares);
            let most = layout.granules;
            layout.first = if params.size == params.max_size {
                most
            } else {
                granules_in(bytes, params.granules[sector]).min(most)
            };
            layout.words_at = at;
            at = align(at + (layout.granules + 1) * 8, PAGE);
        }
        // The words of all sectors first, then the data, so that a page of words is never next to a payload.
        for layout in &mut sectors {
            layout.data_at = at;
            at = align(at + layout.bytes(layout.granules), PAGE);
        }
        if sectors.iter().all(|sector| sector.first == 0) {
            return Err(words_at.max(least));
        }
        Ok(Self {
            participants_at,
            pending_at,
            pending_words,
            lanes_at,
            depot_at,
            magazines_at,
            channels_at,
            words_at,
            sectors,
            end: at.max(params.max_size),
            bitmaps_at,
            reserved: [0; 3],
        })
    }
}

/// As many of so many granules, of `granule` bytes, as have whole cache lines of words, if a few less do not matter. Runs are cut
/// from the end of what is free, so where that is at the end of a line, runs of whole lines share none.
pub(crate) fn whole_lines(granules: u64, granule: u64) -> u64 {
    if granule >= PAGE || granules < 1024 { granules } else { granules & !7 }
}

/// How many granules, with their words, there are in so many bytes, with the rounding of both to whole pages.
fn granules_in(bytes: u64, granule: u64) -> u64 {
    whole_lines((bytes.saturating_sub(2 * PAGE) / (granule + 8)).min(MAX_GRANULES), granule)
}

/// The part of the header that never changes after the segment was made. What stands before [`FLAGS_END`] does so in all versions:
/// that much is looked at of a file of another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct StaticHeader {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32,
    pub(crate) endian: u32,
    /// Features that an attacher must know; none so far.
    pub(crate) required: u64,
    /// Features that an attacher may ignore; none so far.
    pub(crate) optional: u64,
    pub(crate) page_size: u32,
    pub(crate) pointer_bits: u32,
    pub(crate) uuid: [u8; 16],
    pub(crate) params: Params,
    pub(crate) layout: Layout,
    /// FNV-1a of everything above.
    pub(crate) checksum: u64,
}

const _: () = assert!(size_of::<StaticHeader>() as u64 <= HEADER_LIVE);

/// Where the flags end.
pub(crate) const FLAGS_END: usize = 104;
const _: () = assert!(
    std::mem::offset_of!(StaticHeader, params) + std::mem::offset_of!(Params, flags) + size_of::<u32>() == FLAGS_END
);

/// The words of a segment's header that change.
#[repr(C, align(128))]
pub(crate) struct LiveHeader {
    /// The channel that is being entered into the directory, see `attachment::directory`.
    pub(crate) register: AtomicU64,
    /// The last ticket that somebody has drawn who waits for memory in line.
    pub(crate) last_ticket: AtomicU64,
    /// How often one of several who wait has been told of something, see `wake::second_look`.
    pub(crate) tells: AtomicU64,
    /// Reserved.
    _line: [AtomicU64; 5],
    /// Participants that stand in this line, a bit each, whether or not they are parked just now.
    pub(crate) memory_line: [AtomicU64; BITMAP_WORDS],
    /// Granules that each sector has now. On the line that every freeing looks at anyway, and as seldom written.
    pub(crate) extents: [SeldomWrittenU64; SECTORS],
    /// Reserved.
    _extents: AtomicU64,
    /// Participants that wait for memory, a bit each: the first 256 on the same line as the extents.
    pub(crate) memory_parked: [AtomicU64; BITMAP_WORDS],
    /// Reserved: the segment's incarnation, what channels may take of its memory, where its ledger stands.
    _rest: [AtomicU64; 20],
}

/// A participant's phase, in the lowest bits of its state; the rest counts lives.
pub(crate) const LIVE: u64 = 1;
/// Somebody has found that it is dead, and is at work on that. Means nothing once that somebody is dead, too: whoever has the lock
/// of its byte next clears it.
pub(crate) const BURIED_NOW: u64 = 2;
pub(crate) const LIFE: u64 = 4;

/// A participant's place in the table.
///
/// | word | writer | meaning |
/// |---|---|---|
/// | `state` | the participant; whoever holds its lock byte once it is dead | `lives:62 \| BURIED_NOW:1 \| LIVE:1`, see [`crate::region::mapped`] |
/// | `pid` | the participant | for people to read; never used as proof of anything |
/// | `doorbell` | anybody | [`crate::notify`] |
/// | `lifeline` | the participant's bridge thread; the kernel when that thread ends; its reaper | [`crate::sys::robust`] |
/// | `memory_ticket` | the participant; its reaper | its longest wait for memory in line, see `attachment::line`; 0: none |
#[cfg_attr(any(test, loom), derive(Default))]
#[repr(C, align(128))]
pub(crate) struct ParticipantSlot {
    pub(crate) state: AtomicU64,
    pub(crate) pid: AtomicU64,
    _line: [AtomicU64; 6],
    pub(crate) doorbell: Futex,
    pub(crate) lifeline: Futex,
    pub(crate) memory_ticket: AtomicU64,
    _rest: [AtomicU64; 6],
}

impl ParticipantSlot {
    /// Whether it is a participant's, who is buried if it is dead.
    pub(crate) fn is_live(&self) -> bool {
        // Ordering: SeqCst: after what the kernel says of the participant.
        self.state.load(Ordering::SeqCst) & LIVE != 0
    }
}

/// A lane's place in the table: written by its owner only, read by reapers.
///
/// | word | meaning |
/// |---|---|
/// | `owner` | participant that has the lane, see [`crate::region::lanes`] |
/// | `intent` | what the lane is about to do, see [`crate::region::lanes::Intent`] |
/// | `taking` | the granule + 1 of the block that it is taking out of a magazine, see [`crate::alloc::magazine`]; 0: none |
/// | `sequence` | number of the message that the intent to receive is about, in a channel whose messages come back |
/// | `counters` | how often the lane has done what, see [`crate::region::lanes::Counter`]; they outlive its owners |
/// | `in_use` | in the first line of either kind (participants' own, threads'): so many lines of that kind have ever been used |
#[cfg_attr(any(test, loom), derive(Default))]
#[repr(C, align(128))]
pub(crate) struct LaneLine {
    pub(crate) owner: AtomicU64,
    pub(crate) intent: AtomicU64,
    pub(crate) taking: AtomicU64,
    // On the same cache line, which the owner writes anyway.
    pub(crate) counters: [AtomicU64; COUNTERS],
    pub(crate) sequence: AtomicU64,
    _rest: [AtomicU64; 11 - COUNTERS],
    // On a line that nobody writes otherwise.
    pub(crate) in_use: AtomicU64,
}

/// A magazine's place in the table, see [`crate::alloc`].
#[repr(C, align(128))]
pub(crate) struct MagazineLine {
    pub(crate) word: AtomicU64,
    pub(crate) count: AtomicU64,
    pub(crate) items: [AtomicU32; MAGAZINE_ITEMS],
}

/// A channel's place in the directory. Entries are never used for anything else, so that a late write by somebody who
/// was stopped for long can only ever meet another channel's entry. What every operation looks at besides stands in the table of
/// [`Bitmap`]s.
#[repr(C, align(64))]
pub(crate) struct ChannelEntry {
    // One read-mostly line: looked at by every operation.
    /// Phase, flags and version, see `attachment::directory`.
    pub(crate) state: AtomicU64,
    /// The block that holds the cells.
    pub(crate) ring: AtomicU64,
    /// Cells (log2), kind and capacity, see `attachment::directory`.
    pub(crate) shape: AtomicU64,
    /// Payloads whose bytes were not a valid value of the type.
    pub(crate) invalid: AtomicU64,
    /// Reserved: the version of what stands in the entry; its incarnation; bytes that its messages may have and deadlines of
    /// deliveries, which senders and receivers would look at.
    _line: [AtomicU64; 4],
    // Hints, and what is written as often.
    pub(crate) head_hint: AtomicU64,
    /// Who waits at the head of the line for many permits, see `ring::permits`.
    pub(crate) line: AtomicU64,
    /// Of a semaphore: permits that are absent, see `ring::permits`. Of a notify: how many notifications are stored, see
    /// `attachment::signals`. Of a watch: the block of its value, see `blocks::current`. Of a group: its column, see
    /// `attachment::groups`.
    pub(crate) value: AtomicU64,
    /// Of a notify: how often all were notified. Of a group: the word that names the ring of its broadcast.
    pub(crate) epoch: AtomicU64,
    /// Reserved: bytes that messages of the channel have now.
    _hints: [AtomicU64; 4],
    pub(crate) tail_hint: AtomicU64,
    /// Size of a payload of plain data in bytes; of slices that of an element, negative: `u64::MAX` for bytes.
    pub(crate) payload_size: AtomicU64,
    pub(crate) payload_align: AtomicU64,
    /// FNV-1a of the text of the payload's schema.
    pub(crate) payload_hash: AtomicU64,
    /// 0: at most once. Else at least once: how often a message is delivered at most.
    pub(crate) deliveries: AtomicU64,
    /// Number of the channel for what was delivered too often, + 1; 0: none. Of a broadcast and its groups see
    /// `attachment::directory::Shape`.
    pub(crate) dead_letter: AtomicU64,
    /// Messages that were freed after their last delivery.
    pub(crate) discarded: AtomicU64,
    /// `times << 1 | pending`: whether some blocks say RETURNED because the retry ring had no room.
    pub(crate) overflow: AtomicU64,
    pub(crate) name: [AtomicU64; MAX_NAME / 8],
    pub(crate) payload_name: [AtomicU64; MAX_PAYLOAD_NAME / 8],
    /// What else it was told to do with its messages, see `attachment::policies`.
    pub(crate) policies: AtomicU64,
    /// How long they live, in nanoseconds, + 1; 0: as long as the channel.
    pub(crate) time_to_live: AtomicU64,
    // Who has an end of the channel: looked at when somebody comes or goes.
    pub(crate) with_sender: [AtomicU64; BITMAP_WORDS],
    pub(crate) with_receiver: [AtomicU64; BITMAP_WORDS],
    /// Participants that are at work here, see `attachment::ends`.
    pub(crate) pins: [AtomicU64; BITMAP_WORDS],
    /// `offset:32 | bytes:32` of the text of the payload's schema in the block that holds the cells; 0: it is not there.
    pub(crate) schema: AtomicU64,
    /// Reserved: the room for headers of messages, the channel's ledger.
    _rest: [AtomicU64; 7],
}

#[cfg(not(any(loom, shuttle)))]
const _: () = {
    assert!(size_of::<LiveHeader>() == 512);
    assert!(HEADER_LIVE + size_of::<LiveHeader>() as u64 <= PAGE);
    assert!(size_of::<ParticipantSlot>() == 128);
    assert!(size_of::<LaneLine>() == 128);
    assert!(size_of::<MagazineLine>() == 128);
    assert!(size_of::<ChannelEntry>() == 832);
    assert!(size_of::<StaticHeader>() < 512);
};

#[cfg(test)]
mod tests {
    use super::*;

    fn params(size: u64) -> Params {
        Params {
            size,
            max_size: 4 * size,
            participants: 256,
            lanes: 2048,
            channels: 1024,
            magazines: 512,
            shares: [25, 35, 40],
            flags: 0,
            granules: DEFAULT_GRANULES,
            reserved: [0; 4],
        }
    }

    /// Granules of many proportions.
    const GRANULES: [[u64; SECTORS]; 6] = [
        DEFAULT_GRANULES,
        [64, 128, 256],
        [128, 2048, 65536],
        [64, 256, 4096],
        [4096, 65536, 1 << 20],
        [64, 1 << 19, 1 << 20],
    ];

    #[test]
    fn sections_follow_one_another_without_overlap() {
        let sizes = |granules| [8 << 20, 16 << 20, 16 << 30].map(|size| (size, granules));
        for (size, granules) in GRANULES.into_iter().flat_map(sizes) {
            let params = Params { granules, ..params(size) };
            let layout = Layout::compute(&params).unwrap();
            assert!(layout.bitmaps_at >= layout.channels_at + u64::from(params.channels) * 832);
            let mut at = layout.bitmaps_at + u64::from(params.channels) * 128;
            for sector in &layout.sectors {
                assert!(sector.maps_at >= at);
                at = sector.maps_at + sector.maps_len * 8;
            }
            assert!(layout.words_at >= at);
            at = layout.words_at;
            for sector in &layout.sectors {
                assert!(sector.words_at >= at && sector.words_at.is_multiple_of(PAGE));
                at = sector.words_at + (sector.granules + 1) * 8;
            }
            for sector in &layout.sectors {
                assert!(sector.data_at >= at && sector.data_at.is_multiple_of(PAGE));
                at = sector.data_at + sector.bytes(sector.granules);
            }
            assert!(at <= layout.end && layout.end == params.max_size);
            assert_eq!(layout.sectors.map(|sector| sector.bytes(1)), granules);
            let first: u64 = layout.sectors.iter().map(|sector| sector.bytes(sector.first) + sector.first * 8).sum();
            // What is left over is less than a granule of each sector, or than eight short ones, their words, and some pages;
            // but there may be granules that no block's number can name.
            let few = |bytes: u64| if bytes < PAGE { 8 } else { 1 };
            let left = granules.iter().map(|bytes| (bytes + 8) * few(*bytes) + 2 * PAGE).sum::<u64>() + PAGE;
            let all_named = layout.sectors.iter().all(|sector| sector.first < MAX_GRANULES);
            assert!(layout.words_at + first <= size && (layout.words_at + first > size - left || !all_named));
        }
    }

    #[test]
    fn no_sector_has_more_granules_than_a_block_number_can_name() {
        let shares = [[25, 35, 40], [1, 0, 0], [0, 1, 0], [0, 0, 1], [u32::MAX; 3]];
        for (shares, granules) in shares.into_iter().flat_map(|shares| GRANULES.map(|granules| (shares, granules))) {
            let layout = Layout::compute(&Params { shares, granules, ..params(1 << 44) }).unwrap();
            assert!(layout.sectors.iter().all(|sector| sector.granules <= MAX_GRANULES));
            assert_eq!(layout.end, 4 << 44);
        }
    }

    #[test]
    fn only_the_proportion_of_shares_counts() {
        let of = |shares| Layout::compute(&Params { shares, ..params(4 << 20) }).unwrap();
        assert_eq!(of([1, 1, 1]), of([u32::MAX; 3]));
        assert_eq!(of([5, 7, 8]), of([5 << 28, 7 << 28, 8 << 28]));
    }

    #[test]
    fn a_segment_too_small_for_its_tables_says_what_it_needs() {
        let least = Layout::compute(&params(64 << 10)).unwrap_err();
        assert!(Layout::compute(&params(least)).is_ok() || Layout::compute(&params(2 * least)).is_ok());
    }

    #[test]
    fn granules_are_ascending_powers_of_two_within_bounds() {
        assert!(GRANULES.iter().all(are_granules));
        for granules in [
            [0, 1024, 65536],
            [1, 1024, 65536],
            [32, 1024, 65536],
            [64, 64, 65536],
            [64, 1024, 1024],
            [64, 65536, 1024],
            [96, 1024, 65536],
            [64, 1024, 65535],
            [64, 1024, 1 << 21],
            [64, 1024, 1 << 63],
            [u64::MAX; SECTORS],
        ] {
            assert!(!are_granules(&granules), "{granules:?}");
        }
    }

    /// What words and maps of each sector are to its data.
    fn metadata(layout: &Layout) -> [f64; SECTORS] {
        layout
            .sectors
            .map(|sector| (8 * (sector.granules + 1 + sector.maps_len)) as f64 / sector.bytes(sector.granules) as f64)
    }

    #[test]
    fn words_and_maps_are_an_eighth_of_the_small_sector_and_a_hundredth_of_the_others() {
        for size in [64 << 20, 1 << 30] {
            let params = Params { max_size: size, ..params(size) };
            let [small, medium, large] = metadata(&Layout::compute(&params).unwrap());
            println!("{} MiB: {:.3} %, {:.3} %, {:.3} %", size >> 20, small * 100.0, medium * 100.0, large * 100.0);
            assert!(small <= 0.13 && medium <= 0.01 && large <= 0.01, "{small} {medium} {large}");
            // Twice the granule, about half of it.
            let params = Params { granules: [128, 2048, 1 << 17], ..params };
            let halves = metadata(&Layout::compute(&params).unwrap());
            assert!(halves[0] <= 0.065 && halves[1] <= 0.005 && halves[2] <= 0.005, "{halves:?}");
        }
    }
}
