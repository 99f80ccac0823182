//! Where the rings of a channel stand: all of them in one block.
//!
//! ```text
//! cells │ counts of the permits │ slate                                            of a service's responses
//! cells │ counts of the permits │ losses │ retry ring │ a ring per level above      where blocks have trailers
//! cells │ counts of the permits │ columns and marks of groups                      of a broadcast
//! cells │ counts of the permits │                                                  of any other channel
//! ```
//!
//! The first ring is that of the lowest level. Its hints stand in the entry, those of the others before their cells. All levels
//! have the same capacity, and the same permits.

use std::ptr::NonNull;

use crate::{
    attachment::{
        Attachment,
        delivery::{Level, Losses, Recall},
        directory::{Kind, Shape},
        groups,
        known::SLOT,
    },
    region::{
        lanes::LaneId,
        layout::{Bitmap, ChannelEntry},
    },
    ring::{
        Ring,
        log::{GroupLine, Log, MAX_GROUPS},
        permits::{Absent, MOST, Permits, Wishes},
    },
    sys::{
        shared::{SharedRef, SharedSlice},
        sync::AtomicU64,
    },
};

/// Bytes of the hints of a ring that is not the first.
const HINTS: usize = 16;

/// The most cells of a ring: far more than any segment has room for, and so few that nothing overflows that is computed from
/// them, whatever an entry says.
const MOST_CELLS_LOG: u32 = 40;

/// How many cells an entry says that its channel has, if that makes sense.
pub(super) fn cells_of(shape: &Shape) -> Option<usize> {
    (shape.cells_log <= MOST_CELLS_LOG).then(|| 1 << shape.cells_log)
}

/// Where what stands behind the first ring begins: behind its cells and the counts of the permits.
pub(super) fn behind_ring(cells: usize, participants: usize) -> usize {
    (8 * cells + Permits::bytes(participants)).next_multiple_of(64)
}

/// Where the retry ring begins, 0, or the ring of a level, counted from where the losses begin.
fn further_ring(number: usize, cells: usize) -> usize {
    size_of::<Losses>() + number * (HINTS + 8 * cells).next_multiple_of(64)
}

/// Bytes of the block of a channel's rings.
pub(super) fn bytes_of_rings(shape: &Shape, slots: u64, participants: usize) -> usize {
    let cells = 1_usize << shape.cells_log;
    match slots {
        _ if shape.kind == Kind::Broadcast => {
            let (_, groups) = groups::extras(shape.dead_letter);
            behind_ring(cells, participants) + groups::bytes_of_log(cells, groups)
        }
        _ if shape.has_trailers() => {
            behind_ring(cells, participants) + further_ring(shape.policies.order.levels(), cells)
        }
        0 => 8 * cells + Permits::bytes(participants),
        slots => behind_ring(cells, participants) + SLOT * slots as usize,
    }
}

/// The block of a channel's rings, as its entry says: in the mapping, or a copy of both.
pub(crate) struct RingBlock {
    data: NonNull<u8>,
    len: usize,
    entry: SharedRef<ChannelEntry>,
    holders: SharedSlice<AtomicU64>,
    shape: Shape,
    cells: usize,
    participants: usize,
}

impl RingBlock {
    /// The block, of `len` bytes; `None` if the number of its cells makes no sense.
    ///
    /// # Safety
    ///
    /// The bytes, aligned to 64, the entry, and the bitmap of who may hold permits, outlive this and all views that come of it. They are
    /// only ever accessed atomically. There is a bit in the bitmap for each of so many participants.
    pub(crate) unsafe fn new(
        (data, len): (NonNull<u8>, usize),
        entry: SharedRef<ChannelEntry>,
        holders: SharedSlice<AtomicU64>,
        shape: Shape,
        participants: usize,
    ) -> Option<Self> {
        Some(Self { data, len, entry, holders, cells: cells_of(&shape)?, shape, participants })
    }

    /// A ring with its hints before it, if it is within the block.
    fn further(&self, number: usize, capacity: u64, permits: Permits) -> Option<Ring> {
        let at = behind_ring(self.cells, self.participants) + further_ring(number, self.cells);
        if at.checked_add(HINTS)?.checked_add(8 * self.cells)? > self.len {
            return None;
        }
        // SAFETY: within the block (checked), at a multiple of 64 bytes; atomics. It stays the channel's for as long as anybody has
        // an end, which whoever uses the ring has.
        unsafe {
            let hints = self.data.add(at).cast::<AtomicU64>();
            let cells = SharedSlice::new(hints.add(2), self.cells);
            Some(Ring::new(cells, capacity, SharedRef::new(hints), SharedRef::new(hints.add(1)), permits))
        }
    }

    /// The first ring, if the entry makes sense.
    pub(crate) fn first(&self) -> Option<Ring> {
        let Self { data, len, entry, holders, ref shape, cells, participants } = *self;
        let room = len.checked_sub(Permits::bytes(participants))?;
        // Of what carries nothing no cell is ever filled: there the capacity may be more.
        let carries = matches!(shape.kind, Kind::Channel | Kind::Routed | Kind::Broadcast);
        let is_semaphore = shape.kind == Kind::Semaphore;
        let fits = if carries { shape.capacity <= cells as u64 } else { cells == 1 };
        if cells > room / 8 || shape.capacity == 0 && !is_semaphore || !fits {
            return None;
        }
        // SAFETY: the block is the channel's, and as long (checked); cells and the words behind them are atomics. It stays
        // the channel's for as long as anybody has an end, which whoever uses the ring has.
        let (cells, [bid, told], counts) = unsafe {
            let words = data.cast::<AtomicU64>();
            let behind = words.add(cells);
            (
                SharedSlice::new(words, cells),
                [SharedRef::new(behind), SharedRef::new(behind.add(1))],
                SharedSlice::new(behind.add(Permits::WORDS), participants),
            )
        };
        // SAFETY: fields of the entry.
        let (head, tail, line) = unsafe {
            (
                SharedRef::new(NonNull::from(&entry.head_hint)),
                SharedRef::new(NonNull::from(&entry.tail_hint)),
                SharedRef::new(NonNull::from(&entry.line)),
            )
        };
        let permits = Permits::new(holders, counts, Some(Wishes::new(bid, line, told)));
        if is_semaphore {
            // SAFETY: as above.
            let absent = unsafe { Absent::new(shape.capacity, SharedRef::new(NonNull::from(&entry.value))) };
            return Some(Ring::new(cells, MOST, head, tail, permits.with(absent)));
        }
        Some(Ring::new(cells, shape.policies.limit(shape.capacity), head, tail, permits))
    }

    /// What the channel has if its blocks have trailers.
    pub(crate) fn recall(&self) -> Option<Recall> {
        if !self.shape.has_trailers() {
            return None;
        }
        let ring = self.first()?;
        let none = NonNull::<AtomicU64>::dangling();
        // SAFETY: nothing is read of no permits.
        let no_permits = unsafe { Permits::new(SharedSlice::new(none, 0), SharedSlice::new(none, 0), None) };
        let retry = self.further(0, self.cells as u64, no_permits)?;
        let levels = (1..self.shape.policies.order.levels())
            .map(|level| self.further(level, ring.capacity(), *ring.permits()).map(Level::new))
            .collect::<Option<Vec<_>>>()?;
        let at = behind_ring(self.cells, self.participants);
        // SAFETY: before the retry ring, which is within the block; atomics.
        let losses = unsafe { SharedRef::new(self.data.add(at).cast::<Losses>()) };
        Some(Recall::new(self.entry, retry, levels, losses, &self.shape))
    }

    /// The log of a broadcast.
    pub(crate) fn log(&self) -> Option<Log> {
        if self.shape.kind != Kind::Broadcast {
            return None;
        }
        let (ring, cells) = (self.first()?, self.cells);
        let (history, groups) = groups::extras(self.shape.dead_letter);
        let capacity = ring.capacity();
        let at = behind_ring(cells, self.participants);
        let fits = (1..=MAX_GROUPS).contains(&groups)
            && capacity <= cells as u64 / 2
            && history <= capacity
            && self.len >= at.checked_add(groups::bytes_of_log(cells, groups))?;
        if !fits {
            return None;
        }
        let stride = groups::stride(groups);
        // SAFETY: within the block (checked), at multiples of 64 bytes, atomics; as in `first` it stays the broadcast's for as
        // long as anybody has an end, which whoever uses the log has. The hint is a field of the entry.
        unsafe {
            let cell = self.data.cast::<AtomicU64>();
            let columns = self.data.add(at).cast::<AtomicU64>();
            let lines = columns.add(stride).cast::<GroupLine>();
            let marks = lines.add(groups).cast::<AtomicU64>();
            let tail = SharedRef::new(NonNull::from(&self.entry.tail_hint));
            Some(Log::new(
                SharedSlice::new(cell, cells),
                SharedSlice::new(marks, stride * cells),
                SharedSlice::new(columns, groups),
                SharedSlice::new(lines, groups),
                tail,
                (capacity, history),
            ))
        }
    }
}

impl Attachment {
    fn ring_block(&self, index: usize) -> Option<RingBlock> {
        let described = self.directory().read(index);
        let block = self.allocator().owned_by(described.ring, described.ring_generation, LaneId::SEGMENT)?;
        let participants = self.region().header().params.participants as usize;
        let place = (self.data(block), self.allocator().bytes_of(block));
        // SAFETY: the block is the channel's. It, the entry and the bitmap are in the mapping, which whoever has a view keeps.
        unsafe {
            let entry = SharedRef::new(NonNull::from(self.directory().entry(index)));
            RingBlock::new(place, entry, self.bitmap(index, Bitmap::Holders), described.shape, participants)
        }
    }

    /// The ring of a channel, if its entry makes sense.
    pub(super) fn ring_of(&self, index: usize) -> Option<Ring> {
        self.ring_block(index)?.first()
    }

    /// What the channel has if its blocks have trailers.
    pub(super) fn recall_of(&self, index: usize) -> Option<Recall> {
        self.ring_block(index)?.recall()
    }

    /// The log of a broadcast, if its entry makes sense.
    pub(super) fn log_of(&self, index: usize) -> Option<Log> {
        self.ring_block(index)?.log()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::{
        attachment::{Anchor, ChannelRequest, directory::End, format},
        region::{config::Config, mapped::Region},
    };

    fn ground() -> Anchor {
        let config = Config { size: Some(2 << 20), ..Config::default() };
        Attachment::attach(Region::in_process(&config, format).unwrap()).unwrap().unwrap()
    }

    #[test]
    fn whatever_an_entry_says_of_its_ring_nothing_overflows_and_nothing_is_beyond_its_block() {
        let attachment = ground();
        let request = ChannelRequest::of_nothing("garbage", Kind::Channel, Some(4));
        let port = attachment.open_channel(&request, &[End::Sender]).unwrap();
        let index = port.index();
        let entry = attachment.directory().entry(index);
        let words = [&entry.shape, &entry.deliveries, &entry.policies];
        let was = words.map(|word| word.load(Ordering::SeqCst));
        let most = attachment.ring_block(index).unwrap().len;
        for kind in 0..8_u64 {
            for cells_log in 0..=255_u64 {
                for capacity in [0, 1, 4, 255, 1 << 20, 1 << 40, (1 << 48) - 1] {
                    for deliveries in [0, 3] {
                        entry.shape.store(capacity << 16 | kind << 8 | cells_log, Ordering::SeqCst);
                        entry.deliveries.store(deliveries, Ordering::SeqCst);
                        entry.policies.store(u64::MAX, Ordering::SeqCst);
                        let ring = attachment.ring_of(index);
                        assert!(ring.is_none() || cells_log < 40 && 8 << cells_log <= most, "{kind} {cells_log}");
                        attachment.recall_of(index);
                        attachment.log_of(index);
                        attachment.slate_of(index);
                    }
                }
            }
        }
        words.iter().zip(was).for_each(|(word, was)| word.store(was, Ordering::SeqCst));
    }
}
