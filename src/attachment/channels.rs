//! Channels of a segment: how a process opens one, and what becomes of it when ends go.

use std::{
    collections::HashMap,
    ptr::NonNull,
    sync::{Arc, MutexGuard, PoisonError, Weak, atomic::Ordering},
};

use crate::{
    alloc::Block,
    attachment::{
        Attachment,
        directory::{self, End, PERSISTENT, Review, Shape},
        port::{self, Port},
    },
    notify::{Direction, First, Parked, Topic, WaitQueue},
    observe,
    ring::{Ring, permits::Permits},
    segment::{error::OpenError, lanes::LaneId, layout::BITMAP_WORDS},
    sys::{
        shared::{SharedRef, SharedSlice},
        sync::{AtomicU32, AtomicU64},
    },
};

impl Attachment {
    /// Who is parked for a channel.
    pub(super) fn parked(&self, index: usize, direction: Direction) -> Parked {
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
    pub(super) fn queue(
        &self,
        index: usize,
        direction: Direction,
        work: Box<dyn Fn() -> bool + Send + Sync>,
        first: Option<First>,
    ) -> Arc<WaitQueue> {
        self.hub.queue(Topic::channel(index as u32, direction), self.parked(index, direction), work, false, first)
    }

    /// Wakes all who wait for something of a channel.
    pub(super) fn wake_all(&self, index: usize, directions: &[Direction]) {
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
        drop(ports);
        if opened.is_ok() {
            observe::channel_opened(&self.region, request.name, ends);
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
                    return Err(self.lost_ring(&self.directory.read(index).name));
                };
                let attachment = self.this.upgrade().expect("somebody holds on to us while they call us");
                // SAFETY: an entry in the mapping, which the attachment keeps.
                let entry = unsafe { SharedRef::new(NonNull::from(self.directory.entry(index))) };
                let port = Arc::new(Port::new(attachment, index, entry, ring));
                ports.insert(index, Arc::downgrade(&port));
                port
            }
        };
        for end in ends {
            port.count(*end).fetch_add(1, Ordering::Relaxed);
        }
        Ok(port)
    }

    fn lost_ring(&self, channel: &str) -> OpenError {
        let what = format!("the ring of channel {channel:?} is not where the directory says");
        OpenError::Damaged { path: self.region.path(), what }
    }

    /// The ring of a channel, if its entry makes sense.
    pub(super) fn ring_of(&self, index: usize) -> Option<Ring> {
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

    /// Prepares an entry and a ring for a new channel.
    fn build(&self, request: &ChannelRequest<'_>) -> Result<Built, OpenError> {
        let shape = request.shape();
        let bytes = (8_usize << shape.cells_log) + Permits::bytes(self.region.header().params.participants as usize);
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
        let Some(ring) = self.ring_of(index) else {
            // Somebody overwrites what we write.
            self.raze(index, block);
            return Err(self.lost_ring(request.name));
        };
        ring.format(request.first_position);
        Ok(Built { index, ring: block, entered: false })
    }

    /// Takes an entry and its ring down that nobody has seen, or nobody uses any more.
    fn raze(&self, index: usize, ring: Block) {
        self.with_worker(|worker| self.allocator.set_allocated(worker.lane.id(), ring));
        self.directory.release(index);
        self.free(ring);
    }

    /// Looks who is left in a channel, and acts on it.
    pub(super) fn review(&self, index: usize) {
        self.act_on(index, self.look_who_is_left(index));
    }

    /// Does what follows from a review of a channel's ends.
    fn act_on(&self, index: usize, review: Review) {
        if review.removed {
            self.dismantle(index);
            return;
        }
        if review.receivers_gone {
            if let Some(ring) = self.ring_of(index) {
                port::drain(self, &ring);
            }
            self.wake_all(index, &[Direction::Send, Direction::Closed]);
        }
        if review.senders_gone {
            self.wake_all(index, &[Direction::Receive]);
        }
    }

    fn look_who_is_left(&self, index: usize) -> Review {
        self.directory.review(index, self.region.me(), || self.ring_of(index).is_some_and(|ring| ring.len() > 0))
    }

    /// An end of a port goes.
    pub(super) fn leave(&self, port: &Port, end: End) {
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
        // Outside of the lock: this wakes tasks, and an event runs code of the user's.
        port.meters().left(&self.region, end);
        if forgotten && !review.removed {
            self.wake_all(index, &[Direction::Send]);
        }
        self.act_on(index, review);
    }

    /// Takes down a channel whose entry is dead and ours to clean.
    pub(super) fn dismantle(&self, index: usize) {
        if let Some(ring) = self.ring_of(index) {
            port::drain(self, &ring);
        }
        let described = self.directory.read(index);
        match self.allocator.owned_by(described.ring, described.ring_generation, LaneId::SEGMENT) {
            Some(block) => self.raze(index, block),
            None => self.directory.release(index),
        }
    }
}

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
        if same_payload && self.capacity.is_none_or(|capacity| capacity == shape.capacity) {
            return Ok(());
        }
        let describe = |name: &str, size: u64, align: u64, capacity: Option<u64>| {
            let size = if size == u64::MAX { "any number of bytes".into() } else { format!("{size} bytes") };
            let capacity = capacity.map_or_else(String::new, |capacity| format!(", capacity {capacity}"));
            format!("{name} ({size}, alignment {align}{capacity})")
        };
        Err(OpenError::Mismatch {
            channel: self.name.to_owned(),
            expected: describe(&self.payload_name, self.payload_size, self.payload_align, self.capacity),
            found: describe(&shape.payload_name, shape.payload_size, shape.payload_align, Some(shape.capacity)),
        })
    }
}
