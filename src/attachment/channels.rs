//! Channels of a segment: how a process opens one, and what becomes of it when ends go.

use std::{
    collections::HashMap,
    ptr::NonNull,
    sync::{Arc, Weak, atomic::Ordering},
};

use crate::{
    alloc::Block,
    attachment::{
        Anchor, Attachment, descriptions,
        directory::{self, End, Kind, PERSISTENT, Shape, element_size},
        ends::Pin,
        groups,
        policies::{KEEP_CAPACITY, PolicyRequest},
        port::Port,
        rings::bytes_of_rings,
    },
    observe,
    region::{
        error::OpenError,
        lanes::LaneId,
        layout::{Bitmap, bitmap_words, bitmaps_stride},
    },
    schema::{Schema, difference},
    sys::{
        held::MutexGuard,
        shared::{SharedRef, SharedSlice},
        sync::AtomicU64,
    },
    wake::{Direction, LookAtLine, Parked, Topic, WaitQueue},
};

/// Which bitmap says who is parked.
fn bitmap_of(direction: Direction) -> Bitmap {
    match direction {
        Direction::Receive => Bitmap::ParkedReceivers,
        Direction::Send => Bitmap::ParkedSenders,
        Direction::Closed => Bitmap::ParkedClosed,
    }
}

/// Where a channel's bitmap begins in the table of bitmaps, and how many words it has.
pub(crate) fn bitmap_at(index: usize, bitmap: Bitmap, participants: usize) -> (usize, usize) {
    let words = bitmap_words(participants);
    (index * bitmaps_stride(participants) + bitmap as usize * words, words)
}

/// Who is parked for a topic, by the table of bitmaps alone; `None` if no channel has it.
pub(super) fn parked_for(bitmaps: SharedSlice<AtomicU64>, topic: Topic, participants: usize) -> Option<Parked> {
    let (index, direction) = topic.of_channel()?;
    let (start, words) = bitmap_at(index, bitmap_of(direction), participants);
    let bitmap = bitmaps.get(start..start + words)?;
    // SAFETY: a part of a view, under which it stays.
    Some(Parked::new(unsafe { SharedSlice::new(NonNull::from(bitmap).cast(), words) }))
}

impl Attachment {
    /// Who is parked for a channel.
    pub(super) fn parked(&self, index: usize, direction: Direction) -> Parked {
        Parked::new(self.bitmap(index, bitmap_of(direction)))
    }

    /// One of a channel's bitmaps.
    pub(super) fn bitmap(&self, index: usize, bitmap: Bitmap) -> SharedSlice<AtomicU64> {
        let header = self.region.header();
        let (at, words) = bitmap_at(index, bitmap, header.params.participants as usize);
        // SAFETY: atomics in the mapping, which outlives the view: whoever has it holds on to us.
        unsafe { self.region.mapping().slice(header.layout.bitmaps_at + 8 * at as u64, words) }
    }

    /// A queue of local waiters for a channel; of which a mark means all, if it is `broadcast`.
    pub(super) fn queue(
        &self,
        index: usize,
        direction: Direction,
        work: Box<dyn Fn() -> bool + Send + Sync>,
        broadcast: bool,
        first: Option<LookAtLine>,
    ) -> Arc<WaitQueue> {
        // A channel closes for all who wait for that.
        let broadcast = broadcast || direction == Direction::Closed;
        self.hub.queue(Topic::channel(index as u32, direction), self.parked(index, direction), work, broadcast, first)
    }

    /// Wakes all who wait for something of a channel.
    pub(super) fn wake_all(&self, index: usize, directions: &[Direction]) {
        for direction in directions {
            self.hub.wake_all(Topic::channel(index as u32, *direction), self.parked(index, *direction));
        }
    }

    pub(super) fn ports(&self) -> MutexGuard<'_, HashMap<usize, Weak<Port>>> {
        self.ports.lock()
    }

    /// Finds or makes the channel, and enters an end of each kind in `ends`.
    pub(crate) fn open_channel(&self, request: &ChannelRequest<'_>, ends: &[End]) -> Result<Arc<Port>, OpenError> {
        if !self.is_usable() {
            return Err(OpenError::Forked);
        }
        let _span = observe::opening_channel(&self.region, request.name, ends);
        self.bury_the_dead();
        let mut built: Option<Built> = None;
        // What could not be made into a channel, to be freed outside of the lock: that wakes tasks.
        let mut rest: Option<Block> = None;
        let opened = loop {
            let quiet = self.directory.settle();
            if let Some((index, found)) = self.directory.find(request.name) {
                let described = self.directory.read(index);
                let schema = || self.schema_of(&described);
                let fits = request.accepts(&described.shape, found.has(PERSISTENT), ends, schema);
                if directory::state(self.directory.entry(index)) != found {
                    continue;
                }
                if let Err(error) = fits {
                    break Err(error);
                }
                // What could not be pinned is another one by now, or somebody has come or gone.
                let Ok(pin) = self.pin_found(index, found) else { continue };
                match self.enter(pin, ends, request.persistent == Some(true)) {
                    Some(entered) => break entered,
                    None => continue,
                }
            }
            // One that we have entered and that is not there any more was taken down by somebody who looked at it before it
            // had ends (a reaper looks at all channels): its entry and its ring are no longer ours.
            built = built.filter(|built| !built.entered);
            if request.as_it_is {
                break Err(OpenError::InvalidOptions(format!(
                    "there is no channel {:?} whose schema could be taken: say which one it is to have",
                    request.name
                )));
            }
            let built = match &mut built {
                Some(built) => built,
                None => match self.build(request, &mut rest) {
                    Ok(new) => built.insert(new),
                    Err(error) => break Err(error),
                },
            };
            let flags = if request.persistent == Some(true) { PERSISTENT } else { 0 };
            if self.directory.enter(built.index, quiet, flags) {
                built.entered = true;
            }
        };
        rest.into_iter().for_each(|block| self.free(block));
        if let Some(built) = built.filter(|built| !built.entered) {
            self.raze(built.index, built.ring);
        }
        let port = opened?;
        // Who shares the segment has its thread since it came in. Who is alone needs it for what time does to messages.
        self.hub.start();
        observe::channel_opened(&self.region, request.name, ends);
        Ok(port)
    }

    /// Whether there is a channel of that name which goes with its ends.
    pub(crate) fn has_fleeting(&self, name: &str) -> bool {
        self.is_usable() && self.directory.find(name).is_some_and(|(_, found)| !found.has(PERSISTENT))
    }

    /// E3: enters ends into a channel, and unpins it. `None`: what waits there had to be drained before; look again.
    pub(super) fn enter(&self, pin: Pin<'_>, ends: &[End], persistent: bool) -> Option<Result<Arc<Port>, OpenError>> {
        let index = pin.index();
        let entered = {
            let mut ports = self.ports();
            let joined = self.directory.join(index, ends, self.region.me(), persistent);
            let entered = joined.then(|| self.port(&mut ports, index, ends));
            if !matches!(entered, Some(Ok(_))) {
                let port = ports.get(&index).and_then(Weak::upgrade);
                for end in ends {
                    if port.as_ref().is_none_or(|port| port.count(*end).load(Ordering::Relaxed) == 0) {
                        end.clear(self.directory.entry(index), self.region.me());
                    }
                }
            }
            entered
        };
        // Out of the lock: this drains, and wakes tasks.
        drop(pin);
        if let Some(Ok(port)) = &entered {
            port.meters().count_for(self.region.name(), || self.directory.read(index).name);
        }
        entered
    }

    /// The process's port to a channel that its ends have been entered into. If it makes no sense the caller takes them back.
    fn port(&self, ports: &mut HashMap<usize, Weak<Port>>, index: usize, ends: &[End]) -> Result<Arc<Port>, OpenError> {
        let port = match ports.get(&index).and_then(Weak::upgrade) {
            Some(port) => port,
            None => {
                let described = self.directory.read(index);
                let (ring, recall) = (self.ring_of(index), self.recall_of(index));
                let Some(ring) = ring.filter(|_| recall.is_some() == described.shape.has_trailers()) else {
                    return Err(self.lost_ring(&described.name));
                };
                let attachment = Anchor::another(self);
                // SAFETY: an entry in the mapping, which the attachment keeps.
                let entry = unsafe { SharedRef::new(NonNull::from(self.directory.entry(index))) };
                let log = self.log_of(index);
                if log.is_none() && described.shape.kind == Kind::Broadcast {
                    return Err(self.lost_ring(&described.name));
                }
                let port = Arc::new(Port::new(attachment, index, entry, ring, recall, log, described.shape.kind));
                ports.insert(index, Arc::downgrade(&port));
                port
            }
        };
        for end in ends {
            port.count(*end).fetch_add(1, Ordering::Relaxed);
        }
        Ok(port)
    }

    pub(super) fn lost_ring(&self, channel: &str) -> OpenError {
        self.damaged(format!("the ring of channel {channel:?} is not where the directory says"))
    }

    /// Something that only who has overwritten memory could have left there.
    pub(crate) fn damaged(&self, what: String) -> OpenError {
        OpenError::Damaged { path: self.region.path(), what }
    }

    /// Prepares an entry and a ring for a new channel. If that fails, the caller has to free the `rest`, when it holds no lock.
    fn build(&self, request: &ChannelRequest<'_>, rest: &mut Option<Block>) -> Result<Built, OpenError> {
        let mut shape = request.shape();
        let rings = bytes_of_rings(&shape, request.slots, self.region.header().params.participants as usize);
        let schema = request.schema.to_string();
        let bytes = descriptions::place_behind(rings, &schema, &mut shape);
        let block = self.with_worker(|worker| self.allocate(worker, bytes, 64)).map_err(|error| {
            OpenError::OutOfMemory { what: format!("the ring of channel {:?}", request.name), source: error }
        })?;
        let Some(index) = self.directory.claim(self.region.me()) else {
            *rest = Some(block);
            return Err(OpenError::TooManyChannels { limit: self.directory.len() });
        };
        self.directory.describe(index, request.name, &shape, (block.id, block.generation));
        // From here on the block is found through the entry, whoever dies.
        self.allocator.set_allocated(LaneId::SEGMENT, block);
        let Some(ring) = self.ring_of(index) else {
            // Somebody overwrites what we write.
            self.vacate(index, block);
            *rest = Some(block);
            return Err(self.lost_ring(request.name));
        };
        ring.format(request.first_position);
        if let Some(recall) = self.recall_of(index) {
            recall.format(request.first_position);
        }
        self.format_slate(index, request.slots);
        self.write_schema(index, &schema);
        if let Some(log) = self.log_of(index) {
            log.format();
        }
        Ok(Built { index, ring: block, entered: false })
    }

    /// Takes an entry and its ring down that nobody has seen, or nobody uses any more.
    fn raze(&self, index: usize, ring: Block) {
        self.vacate(index, ring);
        self.free(ring);
    }

    /// Gives up an entry, whose ring is this process's own from then on.
    fn vacate(&self, index: usize, ring: Block) {
        self.with_worker(|worker| self.allocator.set_allocated(worker.lane.id(), ring));
        self.directory.release(index);
    }

    /// E4: an end of a port goes.
    pub(super) fn leave(&self, port: &Port, end: End) {
        let index = port.index();
        let (pin, forgotten, wakers) = {
            let mut ports = self.ports();
            // Ordering: AcqRel: what was done with the end comes before it is gone.
            if port.count(end).fetch_sub(1, Ordering::AcqRel) > 1 {
                return;
            }
            let mut wakers = Vec::new();
            if [End::Sender, End::Receiver].iter().all(|end| port.count(*end).load(Ordering::Acquire) == 0) {
                ports.remove(&index);
                // Who waits still has leaked its place. The bits must not be there when the entry is another channel's.
                port.queues().iter().for_each(|queue| wakers.extend(queue.end()));
            }
            let pin = self.pin_own(index);
            // Every permit has a sender: one that is left now was leaked.
            let forgotten = end == End::Sender && self.forget_permits(index, self.region.me());
            end.clear(self.directory.entry(index), self.region.me());
            (pin, forgotten, wakers)
        };
        // Outside of the lock: this wakes tasks, and an event runs code of the user's.
        port.meters().left(&self.region, end);
        if forgotten {
            self.settle_signals(index);
            self.wake_all(index, &[Direction::Send]);
        }
        drop(pin);
        wakers.into_iter().for_each(crate::wake::wakers::wake);
    }

    /// Takes down a channel whose entry is dead and ours to clean.
    pub(super) fn dismantle(&self, index: usize) {
        match self.directory.kind(index) {
            Kind::Broadcast => self.drain_log(index),
            Kind::Group => self.leave_log(index),
            Kind::Watch => self.drop_value(index),
            _ => {}
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

/// What somebody wants of a channel.
#[derive(Clone, Debug)]
pub(crate) struct ChannelRequest<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: Kind,
    /// `None`: whatever it has, or the default.
    pub(crate) capacity: Option<u64>,
    /// Which bits of the capacity were asked for: of a group, what it does and how often messages are delivered.
    pub(crate) asked: u64,
    /// `None`: as it is, or not. One that is to be persistent becomes so.
    pub(crate) persistent: Option<bool>,
    /// Of slices that of an element, negative: see [`element_size`](super::directory::element_size).
    pub(crate) payload_size: u64,
    pub(crate) payload_align: u64,
    pub(crate) schema: Schema,
    /// Whatever it carries will do, and it is not made if it is not there.
    pub(crate) as_it_is: bool,
    pub(crate) first_position: u64,
    /// How often a message is delivered at most, 0: at most once. `None`: whatever it has, or at most once.
    pub(crate) deliveries: Option<u64>,
    /// The channel of dead letters, + 1. `None`: whatever it has, or none.
    pub(crate) dead_letter: Option<u64>,
    pub(crate) policies: PolicyRequest,
    /// Slots of a slate behind a new ring (see [`known`](super::known)); 0: none.
    pub(crate) slots: u64,
}

/// Messages that a channel holds unless told otherwise.
pub(crate) const DEFAULT_CAPACITY: u64 = 1024;
/// The least number of cells, so that a tag cannot come round while somebody is between a load and a CAS.
const MIN_CELLS: u64 = 256;

impl<'a> ChannelRequest<'a> {
    /// What carries nothing.
    pub(crate) fn of_nothing(name: &'a str, kind: Kind, capacity: Option<u64>) -> Self {
        Self {
            name,
            kind,
            capacity,
            asked: u64::MAX,
            persistent: None,
            payload_size: 0,
            payload_align: 1,
            schema: Schema::of_nothing(),
            as_it_is: false,
            first_position: 0,
            deliveries: None,
            dead_letter: None,
            policies: PolicyRequest::NONE,
            slots: 0,
        }
    }

    fn shape(&self) -> Shape {
        let policies = self.policies.policies();
        let capacity = self.capacity.unwrap_or(match (self.kind, policies.keep) {
            (Kind::Channel, 0 | KEEP_CAPACITY) => DEFAULT_CAPACITY,
            (Kind::Channel, last) => last.max(DEFAULT_CAPACITY),
            (Kind::Routed, _) => self.slots,
            (Kind::Broadcast, _) => groups::DEFAULT_CAPACITY,
            (Kind::Group, _) => groups::Policy::default().pack(),
            _ => 1,
        });
        let cells = match self.kind {
            Kind::Channel => capacity.max(MIN_CELLS).next_power_of_two(),
            // A slate has no more slots than there are cells.
            Kind::Routed => capacity.next_power_of_two(),
            // What is held takes up no room, but a cell.
            Kind::Broadcast => (2 * capacity).max(MIN_CELLS).next_power_of_two(),
            _ => 1,
        };
        Shape {
            kind: self.kind,
            cells_log: cells.trailing_zeros(),
            capacity,
            payload_size: self.payload_size,
            payload_align: self.payload_align,
            payload_hash: self.schema.hash(),
            deliveries: self.deliveries.unwrap_or(0),
            dead_letter: match self.kind {
                Kind::Broadcast => groups::with_defaults(self.dead_letter),
                _ => self.dead_letter.unwrap_or(0),
            },
            policies,
            payload_name: self.schema.name().to_owned(),
            schema: None,
        }
    }

    /// Whether the channel that is there will do for somebody who enters these ends. `schema`: the text of its payload's schema, if
    /// it is there.
    fn accepts(
        &self,
        shape: &Shape,
        is_persistent: bool,
        ends: &[End],
        schema: impl FnOnce() -> Option<String>,
    ) -> Result<(), OpenError> {
        let same_payload = self.as_it_is
            || (shape.payload_size, shape.payload_align, shape.payload_hash)
                == (self.payload_size, self.payload_align, self.schema.hash());
        let kinds_differ = self.kind != shape.kind;
        let policies = self.policies.differ(&shape.policies, ends.contains(&End::Sender)).filter(|_| !kinds_differ);
        if !kinds_differ
            && same_payload
            && self.capacity.is_none_or(|capacity| (capacity ^ shape.capacity) & self.asked == 0)
            && !(is_persistent && self.persistent == Some(false))
            && self.deliveries.is_none_or(|deliveries| deliveries == shape.deliveries)
            && self.dead_letter.is_none_or(|dead_letter| match self.kind {
                Kind::Broadcast => groups::are_extras(dead_letter, shape.dead_letter),
                _ => dead_letter == shape.dead_letter,
            })
            && policies.is_none()
        {
            return Ok(());
        }
        let (mut wanted, mut found) = policies.unwrap_or_default();
        if self.persistent == Some(false) && is_persistent {
            wanted += ", not persistent";
            found += ", persistent";
        }
        let describe =
            |kind, name: &str, size: u64, align: u64, capacity: Option<u64>, deliveries, dead_letter, policies| {
                let size = match element_size(size) {
                    None => format!("{size} bytes"),
                    Some(1) => "any number of bytes".into(),
                    Some(element) => format!("any number of {element} bytes each"),
                };
                let what = match (kind, capacity) {
                    (Kind::Channel, _) if kinds_differ => "a channel of ",
                    (Kind::Watch, _) => "a watch of ",
                    (Kind::Broadcast, _) => "a broadcast of ",
                    (Kind::Group, _) => "a group of ",
                    (Kind::Notify, _) => return "a notify".into(),
                    (Kind::Routed, None) => return "a routed channel".into(),
                    (Kind::Routed, Some(partitions)) => {
                        return format!("a routed channel of {partitions} partitions");
                    }
                    (Kind::Semaphore, None) => return "a semaphore".into(),
                    (Kind::Semaphore, Some(permits)) => return format!("a semaphore of {permits} permits"),
                    (Kind::Channel, _) => "",
                };
                let capacity =
                    capacity.filter(|_| kind != Kind::Watch).map_or_else(String::new, |capacity| match kind {
                        Kind::Group => groups::Policy::unpack(capacity).describe(),
                        _ => format!(", capacity {capacity}"),
                    });
                let deliveries = match deliveries {
                    None => String::new(),
                    Some(0) => ", at most once".into(),
                    Some(most) => format!(", at least once and at most {most} times"),
                };
                let dead_letter = match dead_letter {
                    Some(extras) if kind == Kind::Broadcast => groups::describe_extras(extras),
                    Some(number) if kind == Kind::Group => format!(", of broadcast number {number}"),
                    None => String::new(),
                    Some(0) => ", no dead letters".into(),
                    Some(number) => format!(", dead letters to channel number {number}"),
                };
                format!("{what}{name} ({size}, alignment {align}{capacity}{deliveries}{dead_letter}{policies})")
            };
        let (name, size, align) = match self.as_it_is {
            true => (&*shape.payload_name, shape.payload_size, shape.payload_align),
            false => (self.schema.name(), self.payload_size, self.payload_align),
        };
        let mut expected =
            describe(self.kind, name, size, align, self.capacity, self.deliveries, self.dead_letter, wanted);
        // Of types that are not even called the same, all differs.
        if !kinds_differ && !same_payload && descriptions::are_called_the_same(&shape.payload_name, self.schema.name())
        {
            expected.push_str(&match schema() {
                Some(there) => format!(
                    " with another layout (-: what is there, +: what was asked for)\n{}",
                    difference(&there, &self.schema.to_string())
                ),
                None => " with another layout".into(),
            });
        }
        Err(OpenError::Mismatch {
            channel: self.name.to_owned(),
            expected,
            found: describe(
                shape.kind,
                &shape.payload_name,
                shape.payload_size,
                shape.payload_align,
                Some(shape.capacity),
                self.deliveries.map(|_| shape.deliveries),
                self.dead_letter.map(|_| shape.dead_letter),
                found,
            ),
        })
    }
}
