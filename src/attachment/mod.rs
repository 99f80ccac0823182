//! A process's hold on a segment: the mapped region with everything that works on it.
//!
//! [`Attachment`] is what a [`Segment`](crate::Segment), every end of a channel and every message hold on to; when the
//! last of them goes, the process leaves the segment. [`directory`] knows the channels, [`port`] is the door to one of
//! them, [`reserve`] takes capacity in advance, [`lease`] is a block that is this process's own, [`blocks`] what users build
//! with, [`delivery`] brings messages back, [`line`] those who wait for memory in order; [`seats`] finds a thread's lane, [`recovery`] buries the dead.

pub(crate) mod blocks;
pub(crate) mod delivery;
pub(crate) mod directory;
pub(crate) mod lease;
mod line;
pub(crate) mod port;
mod recovery;
pub(crate) mod reserve;
mod seats;

use std::{
    cell::Cell,
    collections::HashMap,
    ptr::NonNull,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{Ordering, fence},
    },
    time::Duration,
};

use crate::{
    alloc::{
        AllocError, Allocator, Block, Worker,
        check::{self, CheckReport, Stats},
        magazine::Depot,
        sector::Sector,
    },
    attachment::{
        delivery::Recall,
        directory::{Directory, End, PERSISTENT, Phase, Review, Shape},
        line::Line,
        port::Port,
    },
    notify::{Direction, First, Hub, Parked, Topic, WaitQueue, Waiter},
    ring::{Ring, permits::Permits},
    segment::{
        error::OpenError,
        lanes::{Counter, Lane, LaneId},
        layout::{
            BITMAP_WORDS, CACHED_SIZES, ChannelEntry, DEPOT_WORDS, FLAG_ZERO_ON_FREE, HEADER_LIVE, LiveHeader,
            StaticHeader,
        },
        region::Region,
    },
    sys::{
        map::Mapping,
        membarrier,
        shared::{SharedRef, SharedSlice},
        sync::{AtomicU32, AtomicU64},
    },
};

/// A process's hold on a segment. See the module.
#[derive(Debug)]
pub(crate) struct Attachment {
    key: u64,
    this: Weak<Self>,
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
    guards: blocks::Guards,
    zero_on_free: bool,
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
        )
    };
    Allocator::new(sectors, depot)
}

/// Writes what a new segment needs beyond zeros, before anybody else can see it.
pub(crate) fn format(mapping: &Mapping, header: &StaticHeader) {
    allocator_of(mapping, header).format(header.layout.sectors.map(|sector| sector.first));
}

impl Attachment {
    /// Makes a region usable.
    pub(crate) fn new(region: Region) -> Arc<Self> {
        membarrier::register();
        let header = *region.header();
        let (mapping, layout) = (region.mapping(), &header.layout);
        let allocator = allocator_of(mapping, &header);
        let participants = header.params.participants as usize;
        // SAFETY: as in `allocator_of`.
        let (entries, live, slots, pending) = unsafe {
            (
                mapping.slice::<ChannelEntry>(layout.channels_at, header.params.channels as usize),
                mapping.reference::<LiveHeader>(HEADER_LIVE),
                mapping.slice(layout.participants_at, participants),
                mapping.slice(layout.pending_at, participants * layout.pending_words as usize),
            )
        };
        // SAFETY: fields of structs that outlive the views.
        let (register, memory_parked) = unsafe {
            (
                SharedRef::new(NonNull::from(&live.register)),
                SharedSlice::new(NonNull::from(&live.memory_parked[0]), participants.div_ceil(64)),
            )
        };
        let me = region.me();
        let attachment = Arc::new_cyclic(|this: &Weak<Self>| {
            let tick = this.clone();
            let hub = Hub::new(
                me,
                slots,
                pending,
                layout.pending_words as usize,
                Box::new(move || {
                    if let Some(attachment) = tick.upgrade() {
                        attachment.bury_the_dead();
                    }
                }),
            );
            let memory_parked = Parked::new(memory_parked);
            let memory = hub.queue(Topic::memory(header.params.channels), memory_parked, Box::new(|| true), true, None);
            Self {
                key: seats::next_key(),
                this: this.clone(),
                allocator,
                directory: Directory::new(entries, register),
                hub,
                memory,
                memory_parked,
                line: Line::new(live, slots, me),
                base: Mutex::new(Worker::new(region.lanes().base())),
                ports: Mutex::default(),
                guards: blocks::Guards::default(),
                zero_on_free: header.params.flags & FLAG_ZERO_ON_FREE != 0,
                region,
            }
        });
        attachment.begin();
        attachment.hub.start();
        attachment
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
        work(&mut self.base.lock().unwrap_or_else(PoisonError::into_inner))
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

    /// Takes a block of at least `bytes` bytes, letting the segment grow if it must and may.
    ///
    /// # Errors
    ///
    /// [`AllocError`]: there is none now, or never will be.
    #[inline]
    pub(crate) fn allocate(&self, worker: &mut Worker, bytes: usize, align: usize) -> Result<Block, AllocError> {
        match self.allocator.allocate(worker, bytes, align) {
            Err(AllocError::OutOfMemory { .. }) => self.allocate_growing(&worker.lane, bytes, align),
            result => result,
        }
    }

    #[cold]
    fn allocate_growing(&self, lane: &Lane, bytes: usize, align: usize) -> Result<Block, AllocError> {
        let full = Cell::new(false);
        let provide = |sector, from, to| {
            full.set(!self.region.provide(sector, from, to));
            !full.get()
        };
        let grown = self.allocator.allocate_growing(lane, bytes, align, provide);
        if grown.is_err() && full.get() {
            return Err(AllocError::NoRoom { requested: bytes, free: self.region.free_bytes() });
        }
        grown
    }

    /// The first byte of a block.
    #[inline(always)]
    pub(crate) fn data(&self, block: Block) -> NonNull<u8> {
        let sector = &self.region.header().layout.sectors[block.id.sector()];
        let at = sector.data_at + block.id.granule() * sector.granule;
        debug_assert!(at + block.len * sector.granule <= self.region.mapping().len() as u64);
        // SAFETY: a block lies within its sector, whose place was computed from checked parameters: `Block`s are only
        // made by the allocator, which checks every granule and length against the sector.
        unsafe { self.region.mapping().base().add(at as usize) }
    }

    /// The first `len` bytes of a block that nobody else knows of, or has lost interest in.
    ///
    /// `len` is at most the length of the block.
    #[allow(clippy::mut_from_ref)]
    fn bytes_mut(&self, block: Block, len: usize) -> &mut [u8] {
        assert!(len <= self.allocator.bytes_of(block));
        // SAFETY: within the block (checked), which the caller's lane owns and nobody else looks at: it was allocated
        // by the caller just now, or received. Shared memory is always initialised.
        unsafe { std::slice::from_raw_parts_mut(self.data(block).as_ptr(), len) }
    }

    /// The first word of a block, whoever owns it: a guess, unless the caller finds out that nobody has written to it in
    /// the meantime.
    fn first_word(&self, block: Block) -> u64 {
        // SAFETY: a block is mapped as long as we live, is at least one granule long, and granules are aligned to 64
        // bytes. An atomic load, because whoever owns the block by now may be writing there.
        let word = unsafe { self.data(block).cast::<AtomicU64>().as_ref() }.load(Ordering::Relaxed);
        // Ordering: the caller's next look comes after the load.
        fence(Ordering::Acquire);
        word
    }

    /// Frees a block of this process, and wakes who waits for memory.
    #[inline]
    pub(crate) fn free(&self, block: Block) {
        if !self.is_usable() {
            return;
        }
        self.wipe(block);
        self.with_worker(|worker| self.allocator.free(worker, block));
        self.memory_was_freed();
    }

    /// Overwrites a block of this process that is about to be freed, if the segment wants that.
    #[inline]
    fn wipe(&self, block: Block) {
        if self.zero_on_free {
            self.bytes_mut(block, self.allocator.bytes_of(block)).fill(0);
        }
    }

    /// Wakes who waits for memory.
    #[inline(always)]
    fn memory_was_freed(&self) {
        // What was freed is seen by who parks after this look, and who parked before is seen by it: the waiter has
        // made all processes pass a full fence in between (`wait_for_memory`).
        if self.memory.parked() {
            self.memory.wake_all();
        }
    }

    /// A place among those who wait for memory. Try again before you sleep.
    pub(crate) fn wait_for_memory(&self) -> Waiter {
        let waiter = self.memory.listen();
        self.with_worker(|worker| worker.lane.count(Counter::Wait));
        // Frees have no locked instruction. Where the kernel refuses this call, the watchdog makes good for it.
        membarrier::everywhere();
        waiter
    }

    /// Who is parked for a channel.
    fn parked(&self, index: usize, direction: Direction) -> Parked {
        let entry = self.directory.entry(index);
        let words: &[AtomicU64; BITMAP_WORDS] = match direction {
            Direction::Receive => &entry.parked_receivers,
            Direction::Send => &entry.parked_senders,
            Direction::Closed => &entry.parked_closed,
        };
        let used = (self.region.header().params.participants as usize).div_ceil(64);
        // SAFETY: a field of an entry in the mapping, which outlives the view: whoever has it holds on to us.
        Parked::new(unsafe { SharedSlice::new(NonNull::from(&words[0]), used) })
    }

    /// A queue of local waiters for a channel.
    fn queue(
        &self,
        index: usize,
        direction: Direction,
        work: Box<dyn Fn() -> bool + Send + Sync>,
        first: Option<First>,
    ) -> Arc<WaitQueue> {
        self.hub.queue(Topic::channel(index as u32, direction), self.parked(index, direction), work, false, first)
    }

    /// Wakes all who wait for something of a channel.
    fn wake_all(&self, index: usize, directions: &[Direction]) {
        for direction in directions {
            self.hub.wake_all(Topic::channel(index as u32, *direction), self.parked(index, *direction));
        }
    }

    fn ports(&self) -> MutexGuard<'_, HashMap<usize, Weak<Port>>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds or makes the channel, and enters an end of each kind in `ends`.
    ///
    /// `first_position` is where a new ring begins.
    pub(crate) fn open_channel(&self, request: &ChannelRequest<'_>, ends: &[End]) -> Result<Arc<Port>, OpenError> {
        if !self.is_usable() {
            return Err(OpenError::Forked);
        }
        self.bury_the_dead();
        let mut ports = self.ports();
        let mut built: Option<Built> = None;
        let opened = loop {
            let quiet = self.directory.settle();
            if let Some((index, found)) = self.directory.find(request.name) {
                let described = self.directory.read(index);
                let fits = request.accepts(&described.shape);
                if directory::state(self.directory.entry(index)) != found {
                    continue;
                }
                if let Err(error) = fits {
                    break Err(error);
                }
                if !self.directory.join(index, found, ends, self.region.me()) {
                    self.undo_join(&ports, index, ends);
                    continue;
                }
                break self.port(&mut ports, index, ends);
            }
            // One that we have entered and that is not there any more was taken down by somebody who looked at it before it
            // had ends (a reaper looks at all channels): its entry and its ring are no longer ours.
            built = built.filter(|built| !built.entered);
            let built = match &mut built {
                Some(built) => built,
                None => match self.build(request) {
                    Ok(new) => built.insert(new),
                    Err(error) => break Err(error),
                },
            };
            let flags = if request.persistent { PERSISTENT } else { 0 };
            if self.directory.enter(built.index, quiet, flags) {
                built.entered = true;
            }
        };
        if let Some(built) = built.filter(|built| !built.entered) {
            self.raze(built.index, built.ring);
        }
        opened
    }

    /// Takes back the bits of ends that could not be entered.
    fn undo_join(&self, ports: &HashMap<usize, Weak<Port>>, index: usize, ends: &[End]) {
        let port = ports.get(&index).and_then(Weak::upgrade);
        for end in ends {
            if port.as_ref().is_none_or(|port| port.count(*end).load(Ordering::Relaxed) == 0) {
                end.clear(self.directory.entry(index), self.region.me());
            }
        }
        // Somebody may have looked while the bits were set.
        self.review(index);
    }

    /// The process's port to a channel that its ends have been entered into.
    fn port(&self, ports: &mut HashMap<usize, Weak<Port>>, index: usize, ends: &[End]) -> Result<Arc<Port>, OpenError> {
        let port = match ports.get(&index).and_then(Weak::upgrade) {
            Some(port) => port,
            None => {
                let Some(ring) = self.ring_of(index) else {
                    for end in ends {
                        end.clear(self.directory.entry(index), self.region.me());
                    }
                    return Err(OpenError::Damaged {
                        path: self.region.path(),
                        what: format!(
                            "the ring of channel {:?} is not where the directory says",
                            self.directory.read(index).name
                        ),
                    });
                };
                let attachment = self.this.upgrade().expect("somebody holds on to us while they call us");
                // SAFETY: an entry in the mapping, which the attachment keeps.
                let entry = unsafe { SharedRef::new(NonNull::from(self.directory.entry(index))) };
                let recall = self.recall_of(index);
                if recall.is_none() && entry.deliveries.load(Ordering::Acquire) > 0 {
                    for end in ends {
                        end.clear(self.directory.entry(index), self.region.me());
                    }
                    return Err(OpenError::Damaged {
                        path: self.region.path(),
                        what: "the retry ring of a channel is not where the directory says".into(),
                    });
                }
                let port = Arc::new(Port::new(attachment, index, entry, ring, recall));
                ports.insert(index, Arc::downgrade(&port));
                port
            }
        };
        for end in ends {
            port.count(*end).fetch_add(1, Ordering::Relaxed);
        }
        Ok(port)
    }

    /// The ring of a channel, if its entry makes sense.
    fn ring_of(&self, index: usize) -> Option<Ring> {
        let entry = self.directory.entry(index);
        let described = self.directory.read(index);
        let cells = 1_u64.checked_shl(described.shape.cells_log)?;
        let block = self.allocator.owned_by(described.ring, described.ring_generation, LaneId::SEGMENT)?;
        let capacity = described.shape.capacity;
        let participants = self.region.header().params.participants as usize;
        let room = self.allocator.bytes_of(block).checked_sub(Permits::bytes(participants))?;
        if cells > room as u64 / 8 || capacity == 0 || capacity > cells {
            return None;
        }
        let (data, cells) = (self.data(block), cells as usize);
        // SAFETY: the block is the channel's, and as long (checked); cells and the counts behind them are atomics. It stays
        // the channel's for as long as anybody has an end, which whoever uses the ring has.
        let (cells, counts) = unsafe {
            (
                SharedSlice::new(data.cast::<AtomicU64>(), cells),
                SharedSlice::new(data.cast::<AtomicU64>().add(cells).cast::<AtomicU32>(), participants),
            )
        };
        // SAFETY: fields of an entry in the mapping.
        let (head, tail, holders) = unsafe {
            (
                SharedRef::new(NonNull::from(&entry.head_hint)),
                SharedRef::new(NonNull::from(&entry.tail_hint)),
                SharedSlice::new(NonNull::from(&entry.holders[0]), participants.div_ceil(64)),
            )
        };
        Some(Ring::new(cells, capacity, head, tail, Permits::new(holders, counts)))
    }

    /// What the channel has if its messages come back.
    fn recall_of(&self, index: usize) -> Option<Recall> {
        let described = self.directory.read(index);
        if described.shape.deliveries == 0 {
            return None;
        }
        let ring = self.ring_of(index)?;
        let block = self.allocator.owned_by(described.ring, described.ring_generation, LaneId::SEGMENT)?;
        let cells = 1_usize.checked_shl(described.shape.cells_log)?;
        let at = retry_at(cells, self.region.header().params.participants as usize);
        if self.allocator.bytes_of(block) < at.checked_add(RETRY_HINTS)?.checked_add(8 * cells)? {
            return None;
        }
        let none = NonNull::<AtomicU64>::dangling();
        // SAFETY: as in `ring_of`: behind what is there, within the block (checked), atomics; nothing is read of no permits.
        let (entry, retry) = unsafe {
            let hints = self.data(block).add(at).cast::<AtomicU64>();
            (
                SharedRef::new(NonNull::from(self.directory.entry(index))),
                Ring::new(
                    SharedSlice::new(hints.add(2), cells),
                    cells as u64,
                    SharedRef::new(hints),
                    SharedRef::new(hints.add(1)),
                    Permits::new(SharedSlice::new(none, 0), SharedSlice::new(none.cast::<AtomicU32>(), 0)),
                ),
            )
        };
        debug_assert_eq!(ring.capacity(), described.shape.capacity);
        Some(Recall::new(entry, retry))
    }

    /// Frees all messages that wait in a channel.
    fn drain(&self, index: usize) {
        if let Some(ring) = self.ring_of(index) {
            port::drain(self, &ring, self.recall_of(index).as_ref());
        }
    }

    /// Prepares an entry and a ring for a new channel.
    fn build(&self, request: &ChannelRequest<'_>) -> Result<Built, OpenError> {
        let shape = request.shape();
        let (cells, participants) = (1_usize << shape.cells_log, self.region.header().params.participants as usize);
        let bytes = match shape.deliveries {
            0 => 8 * cells + Permits::bytes(participants),
            _ => retry_at(cells, participants) + RETRY_HINTS + 8 * cells,
        };
        let block = self.with_worker(|worker| self.allocate(worker, bytes, 64)).map_err(|error| {
            OpenError::OutOfMemory { what: format!("the ring of channel {:?}", request.name), source: error }
        })?;
        let Some(index) = self.directory.claim(self.region.me()) else {
            self.free(block);
            return Err(OpenError::TooManyChannels { limit: self.directory.len() });
        };
        self.directory.describe(index, request.name, &shape, (block.id, block.generation));
        // From here on the block is found through the entry, whoever dies.
        self.allocator.set_allocated(LaneId::SEGMENT, block);
        let ring = self.ring_of(index).expect("the ring was just made");
        ring.format(request.first_position);
        if let Some(recall) = self.recall_of(index) {
            recall.retry().format(0);
        }
        Ok(Built { index, ring: block, entered: false })
    }

    /// Takes an entry and its ring down that nobody has seen, or nobody uses any more.
    fn raze(&self, index: usize, ring: Block) {
        self.with_worker(|worker| self.allocator.set_allocated(worker.lane.id(), ring));
        self.directory.release(index);
        self.free(ring);
    }

    /// Looks who is left in a channel, and acts on it.
    fn review(&self, index: usize) {
        self.act_on(index, self.look_who_is_left(index));
    }

    /// Does what follows from a review of a channel's ends.
    fn act_on(&self, index: usize, review: Review) {
        if review.removed {
            self.dismantle(index);
            return;
        }
        if review.receivers_gone {
            self.drain(index);
            self.wake_all(index, &[Direction::Send, Direction::Closed]);
        }
        if review.senders_gone {
            self.wake_all(index, &[Direction::Receive]);
        }
    }

    fn look_who_is_left(&self, index: usize) -> Review {
        self.directory.review(index, self.region.me(), || {
            self.ring_of(index).is_some_and(|ring| ring.len() > 0)
                || self
                    .recall_of(index)
                    .is_some_and(|recall| delivery::has_returned(self.directory.entry(index), recall.retry()))
        })
    }

    /// An end of a port goes.
    fn leave(&self, port: &Port, end: End) {
        let index = port.index();
        let (forgotten, review) = {
            let mut ports = self.ports();
            // Ordering: AcqRel: what was done with the end comes before it is gone.
            if port.count(end).fetch_sub(1, Ordering::AcqRel) > 1 {
                return;
            }
            if [End::Sender, End::Receiver].iter().all(|end| port.count(*end).load(Ordering::Acquire) == 0) {
                ports.remove(&index);
            }
            // Every permit has a sender: one that is left now was leaked.
            let forgotten = end == End::Sender && self.forget_permits(index, self.region.me());
            end.clear(self.directory.entry(index), self.region.me());
            (forgotten, self.look_who_is_left(index))
        };
        // Outside of the lock: this wakes tasks.
        if forgotten && !review.removed {
            self.wake_all(index, &[Direction::Send]);
        }
        self.act_on(index, review);
    }

    /// Takes down a channel whose entry is dead and ours to clean.
    fn dismantle(&self, index: usize) {
        self.drain(index);
        let described = self.directory.read(index);
        match self.allocator.owned_by(described.ring, described.ring_generation, LaneId::SEGMENT) {
            Some(block) => self.raze(index, block),
            None => self.directory.release(index),
        }
    }

    /// What is where, and what is broken.
    pub(crate) fn check(&self) -> CheckReport {
        if self.is_usable() {
            return check::check(&self.allocator);
        }
        CheckReport { problems: vec![OpenError::Forked.to_string()], ..CheckReport::default() }
    }

    /// What is broken although somebody may be at work.
    pub(crate) fn check_live(&self) -> CheckReport {
        if self.is_usable() { self.findings().report() } else { self.check() }
    }

    fn findings(&self) -> check::Findings {
        check::check_live(&self.allocator, || std::thread::sleep(Duration::from_millis(2)))
    }

    /// Takes sectors that are damaged out of use.
    pub(crate) fn quarantine(&self) -> CheckReport {
        if !self.is_usable() {
            return self.check();
        }
        let found = self.findings();
        for index in found.damaged() {
            self.allocator.sectors()[index].quarantine();
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

    /// The channels that there are now.
    pub(crate) fn channels(&self) -> Vec<directory::Described> {
        let entries = if self.is_usable() { self.directory.len() } else { 0 };
        (0..entries)
            .filter(|index| directory::state(self.directory.entry(*index)).phase() == Phase::Live)
            .map(|index| self.directory.read(index))
            .collect()
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // A forked child has neither the bridge's thread nor the memory.
        if self.is_usable() {
            self.hub.shutdown();
            self.hand_back();
        }
    }
}

/// Where the retry ring begins in the block of a channel's ring: behind the cells and the counts of the permits.
fn retry_at(cells: usize, participants: usize) -> usize {
    (8 * cells + Permits::bytes(participants)).next_multiple_of(64)
}

/// Bytes of the hints of a retry ring, which stand before its cells.
const RETRY_HINTS: usize = 16;

/// A ring and an entry that are being prepared.
#[derive(Debug)]
struct Built {
    index: usize,
    ring: Block,
    entered: bool,
}

/// What tells one type of payload from another, in any program.
pub(crate) fn payload_hash(name: &str, size: u64, align: u64) -> u64 {
    crate::segment::fnv1a(format!("{name}/{size}/{align}").as_bytes())
}

/// What somebody wants of a channel.
#[derive(Clone, Debug)]
pub(crate) struct ChannelRequest<'a> {
    pub(crate) name: &'a str,
    /// `None`: whatever it has, or the default.
    pub(crate) capacity: Option<u64>,
    pub(crate) persistent: bool,
    /// `u64::MAX` for bytes of any length.
    pub(crate) payload_size: u64,
    pub(crate) payload_align: u64,
    pub(crate) payload_name: String,
    pub(crate) first_position: u64,
    /// How often a message is delivered at most, 0: at most once. `None`: whatever it has, or at most once.
    pub(crate) deliveries: Option<u64>,
    /// The channel of dead letters, + 1. `None`: whatever it has, or none.
    pub(crate) dead_letter: Option<u64>,
}

/// Messages that a channel holds unless told otherwise.
pub(crate) const DEFAULT_CAPACITY: u64 = 1024;
/// The least number of cells, so that a tag cannot come round while somebody is between a load and a CAS.
const MIN_CELLS: u64 = 256;

impl ChannelRequest<'_> {
    fn shape(&self) -> Shape {
        let capacity = self.capacity.unwrap_or(DEFAULT_CAPACITY);
        let cells = capacity.max(MIN_CELLS).next_power_of_two();
        Shape {
            cells_log: cells.trailing_zeros(),
            capacity,
            payload_size: self.payload_size,
            payload_align: self.payload_align,
            payload_hash: self.payload_hash(),
            deliveries: self.deliveries.unwrap_or(0),
            dead_letter: self.dead_letter.unwrap_or(0),
            payload_name: self.payload_name.clone(),
        }
    }

    fn payload_hash(&self) -> u64 {
        payload_hash(&self.payload_name, self.payload_size, self.payload_align)
    }

    /// Whether the channel that is there will do.
    fn accepts(&self, shape: &Shape) -> Result<(), OpenError> {
        let same_payload = (shape.payload_size, shape.payload_align, shape.payload_hash)
            == (self.payload_size, self.payload_align, self.payload_hash());
        if same_payload
            && self.capacity.is_none_or(|capacity| capacity == shape.capacity)
            && self.deliveries.is_none_or(|deliveries| deliveries == shape.deliveries)
            && self.dead_letter.is_none_or(|dead_letter| dead_letter == shape.dead_letter)
        {
            return Ok(());
        }
        let describe = |name: &str, size: u64, align: u64, capacity: Option<u64>, deliveries, dead_letter| {
            let size = if size == u64::MAX { "any number of bytes".into() } else { format!("{size} bytes") };
            let capacity = capacity.map_or_else(String::new, |capacity| format!(", capacity {capacity}"));
            let deliveries = match deliveries {
                None => String::new(),
                Some(0) => ", at most once".into(),
                Some(most) => format!(", at least once and at most {most} times"),
            };
            let dead_letter = match dead_letter {
                None => String::new(),
                Some(0) => ", no dead letters".into(),
                Some(number) => format!(", dead letters to channel number {number}"),
            };
            format!("{name} ({size}, alignment {align}{capacity}{deliveries}{dead_letter})")
        };
        Err(OpenError::Mismatch {
            channel: self.name.to_owned(),
            expected: describe(
                &self.payload_name,
                self.payload_size,
                self.payload_align,
                self.capacity,
                self.deliveries,
                self.dead_letter,
            ),
            found: describe(
                &shape.payload_name,
                shape.payload_size,
                shape.payload_align,
                Some(shape.capacity),
                self.deliveries.map(|_| shape.deliveries),
                self.dead_letter.map(|_| shape.dead_letter),
            ),
        })
    }
}
