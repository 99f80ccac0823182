//! A process's hold on a segment: the mapped region with everything that works on it.
//!
//! [`Attachment`] is what a [`Segment`](crate::Segment), every end of a channel and every message hold on to; when the
//! last of them goes, the process leaves the segment. [`channels`] opens channels and takes them down, [`directory`] is the table
//! of them, [`rings`] where theirs stand, [`port`] the door to one, [`peek`] a look through it, [`reserve`] takes capacity in
//! advance, [`room`] is where a message is written by and by, [`delivery`] brings messages back, [`policies`] are what a channel has
//! been told, and [`policed`] does it, [`signals`] are what else tasks wait for, [`routes`] says who takes from which partition,
//! [`groups`] who takes part in a broadcast, [`current`] has the values of watches; [`memory`] is where blocks come from and go to,
//! [`lease`] one that is this process's own, [`blocks`] what users build with, [`line`] those who wait for memory in order;
//! [`seats`] finds a thread's lane, [`recovery`] buries the dead.

mod anchor;
pub(crate) mod blocks;
mod channels;
pub(crate) mod current;
pub(crate) mod delivery;
mod descriptions;
pub(crate) mod directory;
mod ends;
pub(crate) mod groups;
pub(crate) mod known;
pub(crate) mod lease;
mod line;
mod memory;
mod peek;
pub(crate) mod policed;
pub(crate) mod policies;
pub(crate) mod port;
mod recovery;
pub(crate) mod reserve;
pub(crate) mod rings;
pub(crate) mod room;
pub(crate) mod routes;
mod seats;
mod signals;

pub(crate) use self::anchor::Anchor;
pub(crate) use self::channels::{ChannelRequest, bitmap_at};

use std::{
    collections::HashMap,
    panic::{RefUnwindSafe, UnwindSafe},
    ptr::NonNull,
    sync::{Arc, Weak, atomic::AtomicUsize},
    task::Context,
    time::{Duration, Instant},
};

use crate::{
    alloc::{
        Allocator, Worker,
        check::{self, CheckReport, Stats, Surroundings},
        magazine::Depot,
        sector::Sector,
    },
    attachment::{directory::Directory, line::Line, policies::Counts, port::Port},
    observe,
    region::{
        error::OpenError,
        lanes::Counter,
        layout::{
            CACHED_SIZES, ChannelEntry, DEPOT_WORDS, FLAG_ZERO_ON_FREE, HEADER_LIVE, LiveHeader, StaticHeader,
            bitmap_words, bitmaps_stride,
        },
        mapped::Region,
    },
    sys::{
        held::Mutex,
        map::Mapping,
        shared::{SharedRef, SharedSlice},
        tally::Tally,
    },
    wake::{Deadline, Ground, Hub, Parked, Topic, WaitQueue},
};

/// A process's hold on a segment. See the module.
#[derive(Debug)]
pub(crate) struct Attachment {
    key: u64,
    this: Weak<Self>,
    anchors: AtomicUsize,
    guests: Tally,
    allocator: Allocator,
    directory: Directory,
    hub: Arc<Hub>,
    /// Who waits for memory.
    memory: Arc<WaitQueue>,
    memory_parked: Parked,
    line: Line,
    /// The participant's own lane, for threads that have none.
    base: Mutex<Worker>,
    ports: Mutex<HashMap<usize, Weak<Port>>>,
    /// How many pins this process has of which channel.
    pins: Mutex<HashMap<usize, usize>>,
    guards: blocks::Guards,
    zero_on_free: bool,
    /// The first granule of the small sector.
    small: NonNull<u8>,
    /// Last, so that it is dropped last: everything above looks into it.
    region: Region,
}

/// The views that the allocator works with.
fn allocator_of(mapping: &Mapping, header: &StaticHeader) -> Allocator {
    let layout = &header.layout;
    // SAFETY: as below.
    let live = unsafe { mapping.reference::<LiveHeader>(HEADER_LIVE) };
    let sectors = std::array::from_fn(|index| {
        let sector = &layout.sectors[index];
        // SAFETY: the offsets are those of the layout that was computed from checked parameters; words and maps are
        // atomics, for which any bits are a value; the mapping outlives the attachment that holds the views.
        unsafe {
            Sector::new(
                index,
                sector.granule_log as u32,
                mapping.slice(sector.words_at, sector.granules as usize + 1),
                mapping.slice(sector.maps_at, sector.maps_len as usize),
                SharedRef::new(NonNull::from(&live.extents[index])),
            )
        }
    });
    // SAFETY: as above.
    let depot = unsafe {
        Depot::new(
            mapping.slice(layout.magazines_at, header.params.magazines as usize),
            mapping.slice(layout.depot_at, (CACHED_SIZES + 1) * DEPOT_WORDS),
            mapping.slice(layout.lanes_at, header.params.lanes as usize),
        )
    };
    Allocator::new(sectors, depot)
}

/// Writes what a new segment needs beyond zeros, before anybody else can see it.
pub(crate) fn format(mapping: &Mapping, header: &StaticHeader) {
    allocator_of(mapping, header).format(header.layout.sectors.map(|sector| sector.first));
    observe::segment_made(header);
}

// SAFETY: `small` points into the mapping, which the region keeps, and may be sent and shared.
unsafe impl Send for Attachment {}
// SAFETY: as above.
unsafe impl Sync for Attachment {}

// What is shared stays whole whatever dies, so whatever panics, too. Locks are taken over poisoned.
impl UnwindSafe for Attachment {}
impl RefUnwindSafe for Attachment {}

impl Attachment {
    /// Makes a region usable, and lets others see it; `None` if somebody else has made a segment of that name in the meantime.
    ///
    /// # Errors
    ///
    /// What the kernel says of the segment's name.
    pub(crate) fn attach(region: Region) -> Result<Option<Anchor>, OpenError> {
        let header = *region.header();
        let (mapping, layout) = (region.mapping(), &header.layout);
        let allocator = allocator_of(mapping, &header);
        let participants = header.params.participants as usize;
        // SAFETY: as in `allocator_of`.
        let (entries, bitmaps, live, slots, pending) = unsafe {
            (
                mapping.slice::<ChannelEntry>(layout.channels_at, header.params.channels as usize),
                mapping.slice(layout.bitmaps_at, header.params.channels as usize * bitmaps_stride(participants)),
                mapping.reference::<LiveHeader>(HEADER_LIVE),
                mapping.slice(layout.participants_at, participants),
                mapping.slice(layout.pending_at, participants * layout.pending_words as usize),
            )
        };
        // SAFETY: fields of structs that outlive the views.
        let (register, tells, memory_parked) = unsafe {
            (
                SharedRef::new(NonNull::from(&live.register)),
                SharedRef::new(NonNull::from(&live.tells)),
                SharedSlice::new(NonNull::from(&live.memory_parked[0]), bitmap_words(participants)),
            )
        };
        let me = region.me();
        let attachment = Arc::new_cyclic(|this: &Weak<Self>| {
            let tick = this.clone();
            let memory_parked = Parked::new(memory_parked);
            let memory_topic = Topic::memory(header.params.channels);
            let hub = Hub::new(Ground {
                me,
                slots,
                pending,
                pending_words: layout.pending_words as usize,
                tells,
                parked_of: Box::new(move |topic| {
                    if topic == memory_topic {
                        return Some(memory_parked);
                    }
                    channels::parked_for(bitmaps, topic, participants)
                }),
                on_tick: Box::new(move || {
                    // Who has not appeared has no lane yet, and would leave one if it died. And as long as somebody is buried who
                    // died in the same place, no lane must be taken that could be taken for one of theirs.
                    if let Some(attachment) = tick.upgrade().filter(|attachment| attachment.region.is_settled()) {
                        attachment.bury_the_dead();
                    }
                }),
            });
            let memory = hub.queue(memory_topic, memory_parked, Box::new(|| true), true, None);
            Self {
                key: seats::next_key(),
                this: this.clone(),
                anchors: AtomicUsize::new(0),
                guests: Tally::default(),
                allocator,
                directory: Directory::new(entries, register),
                hub,
                memory,
                memory_parked,
                line: Line::new(live, slots, me),
                base: Mutex::new(Worker::new(region.lanes().base())),
                ports: Mutex::default(),
                pins: Mutex::default(),
                guards: blocks::Guards::default(),
                zero_on_free: header.params.flags & FLAG_ZERO_ON_FREE != 0,
                // SAFETY: within the mapping: the layout was computed from checked parameters.
                small: unsafe { region.mapping().base().add(layout.sectors[0].data_at as usize) },
                region,
            }
        });
        let anchor = Anchor::new(attachment);
        anchor.hub.start();
        anchor.hub.until_announced();
        if !anchor.region.appear()? {
            return Ok(None);
        }
        observe::segment_opened(anchor.region());
        anchor.begin();
        // Its bridge may have been quicker.
        anchor.until_buried();
        Ok(Some(anchor))
    }

    /// Waits until this process is done with those that it is burying; no longer than a second, as it may be at it in a waker that
    /// waits for the caller.
    fn until_buried(&self) {
        for _ in 0..1000 {
            if !self.region.is_burying() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// A future that is done at some time, and needs no runtime.
    pub(crate) fn deadline(&self, at: Instant) -> Deadline {
        self.hub.deadline(at)
    }

    /// See [`Hub::drive`]: for who waits by a waiter that others poll.
    #[inline]
    pub(crate) fn drive(&self, is_first: bool, among: usize, context: &Context<'_>) {
        self.hub.drive(is_first, among, context);
    }

    /// Waits a moment for what the bridge is doing just now.
    pub(crate) fn let_the_bridge_finish(&self) {
        if self.is_usable() {
            self.hub.until_asleep();
        }
    }

    pub(crate) fn region(&self) -> &Region {
        &self.region
    }

    pub(crate) fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    fn line(&self) -> &Line {
        &self.line
    }

    fn key(&self) -> u64 {
        self.key
    }

    fn weak(&self) -> Weak<Self> {
        self.this.clone()
    }

    /// Whether this process may touch the segment: a forked child may not.
    #[inline(always)]
    pub(crate) fn is_usable(&self) -> bool {
        self.region.is_my_process()
    }

    /// Runs `work` with a lane and its magazines.
    #[inline]
    pub(crate) fn with_worker<R>(&self, work: impl FnOnce(&mut Worker) -> R) -> R {
        match seats::with(self, work) {
            Ok(result) => result,
            Err(work) => self.with_base(work),
        }
    }

    #[cold]
    fn with_base<R>(&self, work: impl FnOnce(&mut Worker) -> R) -> R {
        work(&mut self.base.lock())
    }

    /// A worker for a thread.
    fn enlist(&self) -> Option<Worker> {
        self.region.lanes().take().map(Worker::new)
    }

    /// A thread needs its worker no more.
    fn retire(&self, mut worker: Worker) {
        if self.is_usable() {
            self.allocator.flush(&mut worker);
            self.region.lanes().give(worker.lane);
        }
    }

    /// What is where, and what is broken.
    pub(crate) fn check(&self) -> CheckReport {
        if self.is_usable() {
            self.until_buried();
            let has_lane = |lane| self.region.has_lane(lane);
            let mut in_rings = HashMap::new();
            self.each_in_rings(&mut Vec::new(), |block| *in_rings.entry(block).or_default() += 1);
            let mut current = HashMap::new();
            self.names().for_each(|name| *current.entry(name.id()).or_default() += 1);
            return check::check(&self.allocator, Some(&Surroundings { has_lane: &has_lane, in_rings, current }));
        }
        CheckReport { problems: vec![OpenError::Forked.to_string()], ..CheckReport::default() }
    }

    /// What is broken although somebody may be at work.
    pub(crate) fn check_live(&self) -> CheckReport {
        if self.is_usable() { self.findings().report() } else { self.check() }
    }

    fn findings(&self) -> check::Findings {
        let has_lane = |lane| self.region.has_lane(lane);
        check::check_live(&self.allocator, has_lane, || std::thread::sleep(Duration::from_millis(2)))
    }

    /// Takes sectors that are damaged out of use.
    pub(crate) fn quarantine(&self) -> CheckReport {
        if !self.is_usable() {
            return self.check();
        }
        let found = self.findings();
        for index in found.damaged() {
            self.allocator.sectors()[index].quarantine();
            observe::quarantined(&self.region, index);
        }
        CheckReport { sectors: check::survey(&self.allocator), ..found.report() }
    }

    /// What is where, and how often what was done.
    pub(crate) fn stats(&self) -> Stats {
        if !self.is_usable() {
            return Stats::default();
        }
        let counted = |what| self.region.lanes().counted(what);
        Stats {
            sectors: check::survey(&self.allocator),
            cache_hits: counted(Counter::CacheHit),
            cache_misses: counted(Counter::CacheMiss),
            splits: counted(Counter::Split),
            merges: counted(Counter::Merge),
            growths: counted(Counter::Growth),
            memory_waits: counted(Counter::Wait),
        }
    }

    /// The channels that there are now, and what their policies have done.
    pub(crate) fn channels(&self) -> Vec<(directory::Described, Counts)> {
        let entries = if self.is_usable() { self.directory.len() } else { 0 };
        (0..entries)
            .filter_map(|index| self.pin(index, |_| true))
            .map(|pin| {
                let counts =
                    policed::counts_of(self.recall_of(pin.index()).as_ref(), self.directory.entry(pin.index()));
                (self.directory.read(pin.index()), counts)
            })
            .collect()
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // A forked child has not got the memory. The bridge has ended before, or it is the bridge that does this.
        if self.is_usable() {
            // Who has never appeared has nothing, unless it is what somebody left who died in the same place.
            if self.region.has_joined() {
                self.hand_back();
                observe::segment_left(&self.region);
            }
        }
    }
}
