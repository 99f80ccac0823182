//! The directory of channels: a fixed table of entries, entered and left without locks.
//!
//! `state: AtomicU64 = version:39 | participant:14 | flags:7 | phase:4`; every change of phase or flags raises the
//! version.
//!
//! ```text
//! FREE ──claim──► BUILDING(p) ──register, help──► LIVE ──nobody is left──► DEAD(p) ──cleaned──► FREE
//! ```
//!
//! | phase | who may change the entry |
//! |---|---|
//! | `Free` | anybody, by CAS to `Building` |
//! | `Building` | participant `p`; its reaper; anybody makes it `Live` once the register names it |
//! | `Live` | anybody who has an end or a pin, by CAS of the state; bitmaps by the participants they name, and by their reapers |
//! | `Dead` | participant `p`; its reaper |
//!
//! **One name, one channel.** The register holds either *nothing* with a stamp, or the entry that is being entered.
//! Whoever wants to enter one first helps with what the register says, then scans the table for the name, then tries to
//! put its entry into the register by a CAS from the very *nothing* that it saw before the scan. Every entering changes
//! the stamp, so that CAS succeeds only if nothing was entered since. The entry is complete before it is named, hence
//! anybody can finish the work of one who died there. (Stamp and version have 24 bits in the register: somebody would
//! have to be stopped for exactly 2²⁴ creations of channels to be misled.)
//!
//! **Ends and pins.** `with_sender` and `with_receiver` have a bit per participant that has such an end; `pins` has one per
//! participant that is at work in the entry or in its ring, whether or not it has an end. The entry leaves `Live` only by a
//! CAS from a state that was read *before* all three were seen empty, but for the pin of who does it; so whoever has an end
//! or a pin finds the entry, and its ring, in the same life. [`ends`](super::ends) has the rules, and how a channel ends.

use crate::{
    attachment::policies::Policies,
    region::{
        lanes::BlockId,
        layout::{BITMAP_WORDS, ChannelEntry, MAX_NAME},
    },
    sys::{
        shared::{SharedRef, SharedSlice},
        sync::{AtomicU64, Ordering},
    },
};

/// What an entry is being used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Free,
    Building,
    Live,
    Dead,
}

/// The value of an entry's state. See the table at the top of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryState(u64);

/// Somebody has had a sender.
pub(crate) const HAD_SENDER: u64 = 1 << 4;
/// Somebody has had a receiver.
pub(crate) const HAD_RECEIVER: u64 = 1 << 5;
/// There were senders, and none is left.
pub(crate) const SENDERS_GONE: u64 = 1 << 6;
/// There were receivers, and none is left.
pub(crate) const RECEIVERS_GONE: u64 = 1 << 7;
/// A receiver has closed the channel.
pub(crate) const CLOSED: u64 = 1 << 8;
/// The channel outlives its ends.
pub(crate) const PERSISTENT: u64 = 1 << 9;
/// What waits is for nobody, and is to be freed before a receiver may come: see [`ends`](super::ends).
pub(crate) const UNDRAINED: u64 = 1 << 10;

const FLAGS: u64 = HAD_SENDER | HAD_RECEIVER | SENDERS_GONE | RECEIVERS_GONE | CLOSED | PERSISTENT | UNDRAINED;
const PARTICIPANT_SHIFT: u32 = 11;
const PARTICIPANT: u64 = (1 << 14) - 1;
const VERSION_SHIFT: u32 = 25;

impl EntryState {
    pub(crate) fn phase(self) -> Phase {
        match self.0 & 0xf {
            1 => Phase::Building,
            2 => Phase::Live,
            3 => Phase::Dead,
            _ => Phase::Free,
        }
    }

    #[inline(always)]
    pub(crate) fn has(self, flags: u64) -> bool {
        self.0 & flags != 0
    }

    /// The participant of a `Building` or `Dead` entry.
    pub(crate) fn participant(self) -> u16 {
        (self.0 >> PARTICIPANT_SHIFT & PARTICIPANT) as u16
    }

    fn version(self) -> u64 {
        self.0 >> VERSION_SHIFT
    }

    fn next(self, phase: Phase, participant: u16, flags: u64) -> Self {
        let version = (self.version() + 1) & ((1 << (64 - VERSION_SHIFT)) - 1);
        Self(version << VERSION_SHIFT | u64::from(participant) << PARTICIPANT_SHIFT | flags & FLAGS | phase as u64)
    }

    /// The same with flags set and cleared.
    pub(crate) fn with(self, set: u64, clear: u64) -> Self {
        self.next(self.phase(), self.participant(), (self.0 & FLAGS | set) & !clear)
    }

    fn flags(self) -> u64 {
        self.0 & FLAGS
    }
}

/// Reads the state of an entry.
#[inline(always)]
pub(crate) fn state(entry: &ChannelEntry) -> EntryState {
    // Ordering: SeqCst: against the bitmaps of ends and pins (set, then CAS; CAS, then look). For a sender, after its load of
    // the cell: if that cell was raised by who has set a flag, the flag is seen. A plain load on x86-64.
    EntryState(entry.state.load(Ordering::SeqCst))
}

/// Changes the state of an entry from exactly this one.
#[cfg_attr(crash_points, track_caller)]
pub(crate) fn change(entry: &ChannelEntry, from: EntryState, to: EntryState) -> bool {
    entry.state.compare_exchange(from.0, to.0, Ordering::SeqCst, Ordering::SeqCst).is_ok()
}

/// Which end of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Sender,
    Receiver,
}

impl End {
    fn bitmap(self, entry: &ChannelEntry) -> &Bitmap {
        match self {
            Self::Sender => &entry.with_sender,
            Self::Receiver => &entry.with_receiver,
        }
    }

    pub(crate) fn had(self) -> u64 {
        match self {
            Self::Sender => HAD_SENDER,
            Self::Receiver => HAD_RECEIVER,
        }
    }

    pub(crate) fn gone(self) -> u64 {
        match self {
            Self::Sender => SENDERS_GONE,
            Self::Receiver => RECEIVERS_GONE,
        }
    }

    /// Whether any participant has such an end.
    pub(crate) fn any(self, entry: &ChannelEntry) -> bool {
        is_any(self.bitmap(entry))
    }

    /// How many participants have such an end.
    pub(crate) fn participants(self, entry: &ChannelEntry) -> usize {
        // Ordering: Relaxed: it is old news as soon as it is read.
        self.bitmap(entry).iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum()
    }

    /// Says that the participant has such an end. The caller has a pin.
    #[cfg_attr(crash_points, track_caller)]
    pub(crate) fn set(self, entry: &ChannelEntry, participant: u16) {
        set(self.bitmap(entry), participant);
    }

    /// Whether the participant has such an end.
    pub(crate) fn has(self, entry: &ChannelEntry, participant: u16) -> bool {
        has(self.bitmap(entry), participant)
    }

    /// Says that the participant has no such end.
    #[cfg_attr(crash_points, track_caller)]
    pub(crate) fn clear(self, entry: &ChannelEntry, participant: u16) {
        clear(self.bitmap(entry), participant);
    }
}

/// A bit per participant. Only the participant changes its bit, and its reaper.
type Bitmap = [AtomicU64; BITMAP_WORDS];

// Ordering of all of them: SeqCst, against the CAS of the state: see the module's text on ends and pins.
#[cfg_attr(crash_points, track_caller)]
fn set(bitmap: &Bitmap, participant: u16) {
    bitmap[usize::from(participant) / 64].fetch_or(1 << (participant % 64), Ordering::SeqCst);
}

#[cfg_attr(crash_points, track_caller)]
fn clear(bitmap: &Bitmap, participant: u16) {
    bitmap[usize::from(participant) / 64].fetch_and(!(1 << (participant % 64)), Ordering::SeqCst);
}

fn has(bitmap: &Bitmap, participant: u16) -> bool {
    bitmap[usize::from(participant) / 64].load(Ordering::SeqCst) & 1 << (participant % 64) != 0
}

fn is_any(bitmap: &Bitmap) -> bool {
    bitmap.iter().any(|word| word.load(Ordering::SeqCst) != 0)
}

/// Whether a participant but this one has a pin.
fn is_pinned_by_others(entry: &ChannelEntry, participant: u16) -> bool {
    let mine = |word: usize| if word == usize::from(participant) / 64 { 1 << (participant % 64) } else { 0 };
    entry.pins.iter().enumerate().any(|(index, word)| word.load(Ordering::SeqCst) & !mine(index) != 0)
}

/// Whether nobody but this participant is there: no end, no other pin.
pub(crate) fn is_alone(entry: &ChannelEntry, participant: u16) -> bool {
    // In this order: who leaves has its pin before its end goes. (Who enters has its end before its pin goes, and changes the
    // state in between.)
    !End::Sender.any(entry) && !End::Receiver.any(entry) && !is_pinned_by_others(entry, participant)
}

/// Whether nobody is there at all.
pub(crate) fn is_deserted(entry: &ChannelEntry) -> bool {
    // In the same order.
    !End::Sender.any(entry) && !End::Receiver.any(entry) && !is_any(&entry.pins)
}

/// Says that the participant is at work in the entry.
#[cfg_attr(crash_points, track_caller)]
pub(crate) fn set_pin(entry: &ChannelEntry, participant: u16) {
    set(&entry.pins, participant);
}

/// Says that the participant is at work there no more.
#[cfg_attr(crash_points, track_caller)]
pub(crate) fn clear_pin(entry: &ChannelEntry, participant: u16) {
    clear(&entry.pins, participant);
}

/// What an entry is of: all of them have a name, ends, and those who wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Channel = 0,
    /// The capacity of a channel that carries nothing.
    Semaphore = 1,
    /// Notifications; the permits of its ring count those who wait for one.
    Notify = 2,
    /// A value, in a block of its own.
    Watch = 3,
    /// A log of messages that all groups see.
    Broadcast = 4,
    /// The head of a routed channel, whose capacity is the number of its partitions: see [`routes`](super::routes).
    Routed = 5,
    /// A group of a broadcast: its members, and who of them waits.
    Group = 6,
}

impl Kind {
    /// What stands in a shape; a channel, if it makes no sense: then the rest does not, either.
    fn unpack(shape: u64) -> Self {
        match shape >> 8 & 0xff {
            1 => Self::Semaphore,
            2 => Self::Notify,
            3 => Self::Watch,
            4 => Self::Broadcast,
            5 => Self::Routed,
            6 => Self::Group,
            _ => Self::Channel,
        }
    }
}

/// Bytes of an element, if that is the size of a payload of slices. Sizes are far from 2⁶³, so a negative one says so.
pub(crate) fn element_size(payload_size: u64) -> Option<u64> {
    ((payload_size as i64) < 0).then(|| payload_size.wrapping_neg())
}

/// What a channel is made of: fixed when it is created.
///
/// In the entry the first three are one word, `capacity:48 | kind:8 | cells_log:8`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) kind: Kind,
    pub(crate) cells_log: u32,
    pub(crate) capacity: u64,
    /// Of slices that of an element, negative: see [`element_size`].
    pub(crate) payload_size: u64,
    pub(crate) payload_align: u64,
    pub(crate) payload_hash: u64,
    /// 0: at most once. Else: how often a message is delivered at most.
    pub(crate) deliveries: u64,
    /// The channel of dead letters, + 1; 0: none. Of a broadcast: `history << 8 | groups`; of a group: its broadcast, + 1.
    pub(crate) dead_letter: u64,
    /// Of what is no channel: none.
    pub(crate) policies: Policies,
    /// For messages to people; what is too long is cut.
    pub(crate) payload_name: String,
    /// Where the text of the payload's schema stands in the block of the rings; `None`: it does not.
    pub(crate) schema: Option<Place>,
}

/// Where something stands in a block.
///
/// In the entry one word, `offset:32 | bytes:32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

impl Place {
    fn pack(this: Option<Self>) -> u64 {
        this.map_or(0, |place| u64::from(place.offset) << 32 | u64::from(place.len))
    }

    fn unpack(word: u64) -> Option<Self> {
        (word > 0).then_some(Self { offset: (word >> 32) as u32, len: word as u32 })
    }
}

impl Shape {
    /// Whether its messages have trailers: they come back, or it has policies.
    pub(crate) fn has_trailers(&self) -> bool {
        self.deliveries > 0 || !self.policies.are_none()
    }
}

/// What the entry of a live channel says.
#[derive(Clone, Debug)]
pub(crate) struct Described {
    pub(crate) name: String,
    pub(crate) shape: Shape,
    pub(crate) ring: BlockId,
    pub(crate) ring_generation: u32,
}

/// Writes a text into words, the rest of which are zeros.
pub(super) fn store_text(words: &[AtomicU64], text: &str) {
    for (index, word) in words.iter().enumerate() {
        let mut bytes = [0; 8];
        let from = (index * 8).min(text.len());
        let until = (index * 8 + 8).min(text.len());
        bytes[..until - from].copy_from_slice(&text.as_bytes()[from..until]);
        // Ordering: Relaxed: the CAS that makes the entry live publishes it.
        word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
    }
}

fn load_text(words: &[AtomicU64]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn has_text(words: &[AtomicU64], text: &str) -> bool {
    words.iter().enumerate().all(|(index, word)| {
        let mut bytes = [0; 8];
        let from = (index * 8).min(text.len());
        let until = (index * 8 + 8).min(text.len());
        bytes[..until - from].copy_from_slice(&text.as_bytes()[from..until]);
        word.load(Ordering::Relaxed) == u64::from_ne_bytes(bytes)
    })
}

/// The process's view of the directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Directory {
    entries: SharedSlice<ChannelEntry>,
    register: SharedRef<AtomicU64>,
}

/// The register as it was when nothing was being entered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quiet(u64);

/// Bits of the register: `stamp:24 | version:24 | index + 1:16`; index and version are 0 when nothing is being entered.
fn named(register: u64) -> Option<(usize, u64)> {
    let index = (register & 0xffff) as usize;
    (index > 0).then(|| (index - 1, register >> 16 & 0xff_ffff))
}

impl Directory {
    pub(crate) fn new(entries: SharedSlice<ChannelEntry>, register: SharedRef<AtomicU64>) -> Self {
        Self { entries, register }
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What an entry is of, or was last.
    pub(crate) fn kind(&self, index: usize) -> Kind {
        Kind::unpack(self.entries[index].shape.load(Ordering::Acquire))
    }

    /// An entry, by its number.
    pub(crate) fn entry(&self, index: usize) -> &ChannelEntry {
        &self.entries[index]
    }

    /// Finishes what the register says is being entered, until it says nothing.
    pub(crate) fn settle(&self) -> Quiet {
        loop {
            let register = self.register.load(Ordering::SeqCst);
            let Some((index, version)) = named(register) else { return Quiet(register) };
            if let Some(entry) = self.entries.get(index) {
                let building = state(entry);
                // The version is that of the entry as its builder named it: a later life of the entry has another.
                if building.phase() == Phase::Building && building.version() & 0xff_ffff == version {
                    change(entry, building, building.next(Phase::Live, 0, building.flags()));
                }
            }
            let stamp = (register >> 40).wrapping_add(1) << 40;
            // A failure means that somebody else has done it.
            let _ = self.register.compare_exchange(register, stamp, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// The live channel of that name, and its state when it was found.
    pub(crate) fn find(&self, name: &str) -> Option<(usize, EntryState)> {
        self.entries.iter().enumerate().find_map(|(index, entry)| {
            let found = state(entry);
            (found.phase() == Phase::Live && has_text(&entry.name, name)).then_some((index, found))
        })
    }

    /// Claims a free entry for a participant.
    pub(crate) fn claim(&self, participant: u16) -> Option<usize> {
        self.entries.iter().position(|entry| {
            let free = state(entry);
            free.phase() == Phase::Free && change(entry, free, free.next(Phase::Building, participant, 0))
        })
    }

    /// Writes a claimed entry.
    pub(crate) fn describe(&self, index: usize, name: &str, shape: &Shape, ring: (BlockId, u32)) {
        let entry = &self.entries[index];
        debug_assert!(name.len() <= MAX_NAME);
        let (policies, ttl) = shape.policies.pack();
        store_text(&entry.name, name);
        store_text(&entry.payload_name, &shape.payload_name);
        for (word, value) in [
            (&entry.shape, shape.capacity << 16 | (shape.kind as u64) << 8 | u64::from(shape.cells_log)),
            (&entry.payload_size, shape.payload_size),
            (&entry.payload_align, shape.payload_align),
            (&entry.payload_hash, shape.payload_hash),
            (&entry.invalid, 0),
            (&entry.line, 0),
            (&entry.value, 0),
            (&entry.epoch, 0),
            (&entry.policies, policies),
            (&entry.time_to_live, ttl),
            (&entry.deliveries, shape.deliveries),
            (&entry.dead_letter, shape.dead_letter),
            (&entry.discarded, 0),
            (&entry.overflow, 0),
            (&entry.schema, Place::pack(shape.schema)),
            (&entry.ring, u64::from(ring.1) << 32 | u64::from(ring.0.0)),
        ] {
            // Ordering: Release: a reaper that finds the ring's block finds it described.
            word.store(value, Ordering::Release);
        }
    }

    /// What an entry says; checked by the caller's next CAS of its state, and for sense where it is used.
    pub(crate) fn read(&self, index: usize) -> Described {
        let entry = &self.entries[index];
        let load = |word: &AtomicU64| word.load(Ordering::Acquire);
        let (shape, ring) = (load(&entry.shape), load(&entry.ring));
        Described {
            name: load_text(&entry.name),
            shape: Shape {
                kind: Kind::unpack(shape),
                cells_log: (shape & 0xff) as u32,
                capacity: shape >> 16,
                payload_size: load(&entry.payload_size),
                payload_align: load(&entry.payload_align),
                payload_hash: load(&entry.payload_hash),
                deliveries: load(&entry.deliveries),
                dead_letter: load(&entry.dead_letter),
                policies: Policies::unpack(load(&entry.policies), load(&entry.time_to_live)),
                payload_name: load_text(&entry.payload_name),
                schema: Place::unpack(load(&entry.schema)),
            },
            ring: BlockId(ring as u32),
            ring_generation: (ring >> 32) as u32 & 0xff_ffff,
        }
    }

    /// Enters a claimed and described entry, unless something was entered since `quiet`. `true` makes the channel live.
    pub(crate) fn enter(&self, index: usize, quiet: Quiet, flags: u64) -> bool {
        let entry = &self.entries[index];
        let building = state(entry);
        let ready = building.with(flags, 0);
        if !change(entry, building, ready) {
            return false;
        }
        let register = quiet.0 & !((1 << 40) - 1) | (ready.version() & 0xff_ffff) << 16 | (index as u64 + 1);
        let entered = self.register.compare_exchange(quiet.0, register, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if entered {
            self.settle();
        }
        entered
    }

    /// Gives back an entry that was claimed or is dead, and is clean.
    pub(crate) fn release(&self, index: usize) {
        let entry = &self.entries[index];
        let held = state(entry);
        if matches!(held.phase(), Phase::Building | Phase::Dead) {
            change(entry, held, held.next(Phase::Free, 0, 0));
        }
    }

    /// Enters ends of the participant into a channel in which it has a pin or another end, all or none. `false`: there is
    /// something to be drained before; the ends are entered as far as the bitmaps go.
    ///
    /// In one step: if the state said that there was a sender, and then the receiver could not be entered, taking the
    /// sender back would tell all receivers that the last one has gone.
    ///
    /// With `persistent` the channel outlives its ends from now on, whoever has gone before.
    pub(crate) fn join(&self, index: usize, ends: &[End], participant: u16, persistent: bool) -> bool {
        let entry = &self.entries[index];
        ends.iter().for_each(|end| end.set(entry, participant));
        let (had, gone) = ends.iter().fold((0, 0), |(had, gone), end| (had | end.had(), gone | end.gone()));
        loop {
            let seen = state(entry);
            let becomes_persistent = persistent && !seen.has(PERSISTENT);
            if seen.has(UNDRAINED) && (ends.contains(&End::Receiver) || becomes_persistent) {
                return false;
            }
            let (had, gone) = match becomes_persistent {
                true => (had | PERSISTENT, gone | SENDERS_GONE | RECEIVERS_GONE),
                false => (had, gone),
            };
            // Whoever looked who is left before the bits were there looks again.
            if change(entry, seen, seen.with(had, gone)) {
                return true;
            }
        }
    }

    /// Says that ends have gone, of an entry in which the caller has a pin, if that is so and is not said yet. Returns the
    /// flags that it has set. `drains`: what waits goes with the last receiver.
    pub(crate) fn review(&self, index: usize, drains: bool) -> u64 {
        let entry = &self.entries[index];
        loop {
            // The order matters: the state, then who is there, then the CAS from that state.
            let seen = state(entry);
            let mut gone = 0;
            if seen.phase() == Phase::Live && !seen.has(PERSISTENT) {
                for end in [End::Sender, End::Receiver] {
                    if seen.has(end.had()) && !seen.has(end.gone()) && !end.any(entry) {
                        gone |= end.gone();
                    }
                }
            }
            if gone & RECEIVERS_GONE != 0 && drains {
                gone |= UNDRAINED;
            }
            if gone == 0 || change(entry, seen, seen.with(gone, 0)) {
                return gone;
            }
        }
    }

    /// Says that ends of a kind have gone of a live channel into which none has come yet; unless it outlives its ends. `drains`: what
    /// waits goes with that. The caller has a pin. `false`: nothing was to be said.
    pub(crate) fn pass_over(&self, index: usize, end: End, drains: bool) -> bool {
        let entry = &self.entries[index];
        let gone = end.had() | end.gone() | if drains { UNDRAINED } else { 0 };
        loop {
            // Whoever enters such an end changes the state: its CAS comes before this look, or takes back what we say.
            let seen = state(entry);
            if seen.phase() != Phase::Live || seen.has(PERSISTENT | end.had()) {
                return false;
            }
            if change(entry, seen, seen.with(gone, 0)) {
                return true;
            }
        }
    }

    /// Takes a channel out that was seen in that state with nobody there but the participant, which has a pin. `true`: the
    /// entry is the participant's to clean.
    pub(crate) fn remove(&self, index: usize, seen: EntryState, participant: u16) -> bool {
        change(&self.entries[index], seen, seen.next(Phase::Dead, participant, seen.flags()))
    }

    /// Clears flags of a live channel of which `is_it` is true.
    pub(crate) fn clear_flags(&self, index: usize, flags: u64, is_it: impl Fn(&ChannelEntry) -> bool) {
        let entry = &self.entries[index];
        loop {
            // The CAS is from the state that was read before the question.
            let seen = state(entry);
            if seen.phase() != Phase::Live || !is_it(entry) || change(entry, seen, seen.with(0, flags)) {
                return;
            }
        }
    }

    /// Sets flags of a live channel.
    pub(crate) fn set_flags(&self, index: usize, flags: u64) {
        let entry = &self.entries[index];
        loop {
            let seen = state(entry);
            if seen.phase() != Phase::Live || change(entry, seen, seen.with(flags, 0)) {
                return;
            }
        }
    }
}
