//! What has a name in a segment, and how it is.

use std::{collections::HashMap, mem::offset_of, ptr::NonNull};

use crate::{
    attachment::{
        bitmap_at,
        delivery::Recall,
        directory::{self, CLOSED, Described, Directory, End, EntryState, Kind, PERSISTENT, Phase, element_size},
        policed::counts_of,
        policies::Counts,
        rings::RingBlock,
    },
    observer::{Observer, Table, error::ObserveError, words::Words},
    region::{
        lanes::BlockId,
        layout::{Bitmap, ChannelEntry, HEADER_LIVE, LiveHeader, SECTORS, bitmap_words},
    },
    ring::{Ring, log::Log, transfer::TRAILER},
    segment::ChannelKind,
    sys::{
        copied::Copied,
        shared::SharedRef,
        sync::{AtomicU64, Ordering},
    },
};

/// How often a look is repeated if the entry is another channel's at its end.
const LOOKS: usize = 8;

/// What has a name in a segment, told by [`Observer::channels`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelView {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: ChannelKind,
    /// What its type of payload is called.
    pub payload: String,
    /// Bytes of a payload, if all have the same number; of slices and bytes `None`.
    pub payload_size: Option<usize>,
    /// The most messages that may wait (of each priority); the permits of a semaphore when it was made; the partitions of a routed
    /// channel; else 1.
    pub capacity: usize,
    /// How often a message is delivered at most, if it comes back when it was not acknowledged; 0: it does not.
    pub max_deliveries: u32,
    /// Whether it outlives its ends.
    pub persistent: bool,
    /// Whether a receiver has closed it.
    pub closed: bool,
    /// Messages that wait: in a channel those of all priorities, and those that came back; in a broadcast those that some group may
    /// still take, or that are kept for who comes later; of a group those that it has not taken; of a notify the notifications
    /// that nobody has taken. 0 of a semaphore, a watch, and the head of a routed channel, whose partitions have the messages.
    pub depth: usize,
    /// Messages that were ever sent in a channel or a broadcast. Else 0.
    pub sent: u64,
    /// Messages that were ever taken out of a channel: by receivers, and for its policies; those that came back count once. Else 0:
    /// of a broadcast each group takes its own.
    pub received: u64,
    /// Participants that have a sender, a publisher, or a client. (Of a semaphore, a notify or a watch: a handle that counts so.)
    pub senders: usize,
    /// Participants that have a receiver, a subscriber, or a server.
    pub receivers: usize,
    /// The slots of those with a sender.
    pub sender_slots: Vec<u16>,
    /// The slots of those with a receiver.
    pub receiver_slots: Vec<u16>,
    /// Participants with a task that waits here: for a message, for room, or for the end.
    pub parked: usize,
    /// Participants with a task that waits for a message.
    pub parked_receivers: usize,
    /// Participants with a task that waits for room.
    pub parked_senders: usize,
    /// Permits that somebody has, or wishes for.
    pub reserved: usize,
    /// Messages that were received and are not acknowledged, of a channel whose messages come back; of a group those that its members
    /// have; of a broadcast those of all groups. Else 0: what was received at most once is acknowledged.
    pub unacknowledged: usize,
    /// Bytes of memory of the messages that wait or are not acknowledged.
    pub bytes: usize,
    /// What became of messages that nobody received.
    pub counts: Counts,
    /// Of a broadcast: its groups.
    pub groups: Vec<GroupView>,
    /// Why some figures are 0, if what the entry names makes no sense.
    pub problem: Option<String>,
}

/// A group of a broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupView {
    /// The name under which it stands among the channels.
    pub name: String,
    /// Messages that it has not taken, those that came back to it included.
    pub lag: usize,
    /// Messages that its members have.
    pub held: usize,
    /// Messages that it has missed, of which no member has been told so far.
    pub missed: u64,
    /// Whether it was put out, because it was behind.
    pub evicted: bool,
    /// Participants with a member.
    pub members: usize,
}

/// An entry, and what it names: copies that belong together.
pub(super) struct Snapshot {
    index: usize,
    state: EntryState,
    pub(super) described: Described,
    entry: Table<ChannelEntry>,
    bitmaps: [Table<AtomicU64>; 3],
    /// Views of the copies.
    pub(super) rings: Option<Rings>,
    /// The block of the rings; and who may hold permits, of which the rings have views.
    _copies: (Option<Copied>, Table<AtomicU64>),
}

/// What stands in the block of a channel's rings.
pub(super) struct Rings {
    pub(super) first: Ring,
    pub(super) recall: Option<Recall>,
    pub(super) log: Option<Log>,
    /// Where the block is in the file, and where in this process.
    at: u64,
    copy: NonNull<u8>,
}

impl Rings {
    /// Where a cell is in the file.
    pub(super) fn place_of(&self, cell: &AtomicU64) -> u64 {
        self.at + (std::ptr::from_ref(cell).addr() - self.copy.addr().get()) as u64
    }

    /// All rings: that of what came back last.
    pub(super) fn all(&self) -> Vec<Ring> {
        let retry = self.recall.iter().map(|recall| *recall.retry());
        self.levels().into_iter().chain(retry).collect()
    }

    /// Those that messages are sent into, the lowest level first.
    pub(super) fn levels(&self) -> Vec<Ring> {
        self.recall.as_ref().map_or_else(|| vec![self.first], |recall| recall.rings(&self.first))
    }
}

fn slots(words: &[AtomicU64], participants: usize) -> Vec<u16> {
    let has = |slot: &u16| words[usize::from(*slot) / 64].load(Ordering::Relaxed) >> (slot % 64) & 1 == 1;
    (0..participants as u16).filter(has).collect()
}

impl Snapshot {
    fn entry(&self) -> &ChannelEntry {
        &self.entry[0]
    }

    pub(super) fn rings(&self) -> Result<&Rings, ObserveError> {
        let damaged = || ObserveError::Damaged { what: format!("the ring of channel {:?}", self.described.name) };
        self.rings.as_ref().ok_or_else(damaged)
    }

    /// The word that names its rings, which no other channel has at the same time.
    pub(super) fn ring_word(&self) -> u64 {
        self.entry().ring.load(Ordering::Relaxed)
    }
}

impl Observer {
    fn entry_at(&self, index: usize) -> u64 {
        self.header.layout.channels_at + (index * size_of::<ChannelEntry>()) as u64
    }

    fn bitmap(&self, index: usize, bitmap: Bitmap) -> Result<Table<AtomicU64>, ObserveError> {
        let (at, words) = bitmap_at(index, bitmap, self.header.params.participants as usize);
        self.table(self.header.layout.bitmaps_at + 8 * at as u64, words)
    }

    /// A directory of some copied entries.
    fn directory(&self, entries: &Table<ChannelEntry>) -> Result<(Directory, Table<AtomicU64>), ObserveError> {
        let register = self.table(HEADER_LIVE + offset_of!(LiveHeader, register) as u64, 1)?;
        // SAFETY: the caller keeps it as long as the directory.
        let word = unsafe { SharedRef::new(NonNull::from(&register[0])) };
        Ok((Directory::new(entries.view(), word), register))
    }

    /// The entries of live channels, and their names.
    fn live(&self) -> Result<Vec<(usize, String)>, ObserveError> {
        let entries = self.table(self.header.layout.channels_at, self.header.params.channels as usize)?;
        let (directory, _register) = self.directory(&entries)?;
        let is_live = |index: &usize| directory::state(directory.entry(*index)).phase() == Phase::Live;
        Ok((0..directory.len()).filter(is_live).map(|index| (index, directory.read(index).name)).collect())
    }

    /// The channel of that name; `None` if there is none.
    pub(super) fn find(&self, words: &Words<'_>, name: &str) -> Result<Option<Snapshot>, ObserveError> {
        match self.live()?.into_iter().find(|(_, live)| live == name) {
            Some((index, _)) => self.snapshot(words, index),
            None => Ok(None),
        }
    }

    /// What a live entry says, and what it names; `None` if it is not live any more.
    fn snapshot(&self, words: &Words<'_>, index: usize) -> Result<Option<Snapshot>, ObserveError> {
        for last in (0..LOOKS).rev() {
            let entry = self.table::<ChannelEntry>(self.entry_at(index), 1)?;
            let (directory, _register) = self.directory(&entry)?;
            let (state, described) = (directory::state(&entry[0]), directory.read(0));
            if state.phase() != Phase::Live {
                return Ok(None);
            }
            let bitmaps = [
                self.bitmap(index, Bitmap::ParkedReceivers)?,
                self.bitmap(index, Bitmap::ParkedSenders)?,
                self.bitmap(index, Bitmap::ParkedClosed)?,
            ];
            let holders = self.bitmap(index, Bitmap::Holders)?;
            let (copied, rings) = self.rings(words, &entry, &holders, &described)?;
            let word = self.source.word(self.entry_at(index) + offset_of!(ChannelEntry, ring) as u64)?;
            let snapshot = Snapshot { index, state, described, entry, bitmaps, rings, _copies: (copied, holders) };
            // In each life of a channel the word is another one.
            if word == snapshot.ring_word() && (snapshot.rings.is_some() || last == 0) {
                return Ok(Some(snapshot));
            }
        }
        Ok(None)
    }

    fn rings(
        &self,
        words: &Words<'_>,
        entry: &Table<ChannelEntry>,
        holders: &Table<AtomicU64>,
        described: &Described,
    ) -> Result<(Option<Copied>, Option<Rings>), ObserveError> {
        // What is allocated has memory; what says that it is longer than all of that is damaged.
        let taken = self.source.taken()?;
        let found = words.ring(described.ring, described.ring_generation)?.filter(|found| found.bytes <= taken);
        let Some(found) = found else { return Ok((None, None)) };
        let copied = self.source.copy(found.at, found.bytes)?;
        let participants = self.header.params.participants as usize;
        // SAFETY: the caller keeps all three copies as long as the views. The block is aligned to 128 bytes, and made of atomics.
        let block = unsafe {
            let entry = SharedRef::new(NonNull::from(&entry[0]));
            RingBlock::new(copied.place(), entry, holders.view(), described.shape.clone(), participants)
        };
        let rings = block.and_then(|block| {
            let (first, recall, log) = (block.first()?, block.recall(), block.log());
            let is_whole = recall.is_some() == described.shape.has_trailers()
                && log.is_some() == (described.shape.kind == Kind::Broadcast);
            is_whole.then(|| Rings { first, recall, log, at: found.at, copy: copied.place().0 })
        });
        Ok((Some(copied), rings))
    }

    /// What has a name in the segment, and how it is; empty where that cannot be read. In time proportional to the number of
    /// messages that wait, and, if there are channels whose messages come back, to the segment's size.
    pub fn channels(&self) -> Vec<ChannelView> {
        self.try_channels().unwrap_or_default()
    }

    /// The same, or why it cannot be read.
    ///
    /// # Errors
    ///
    /// Any [`ObserveError`] of reading. What makes no sense in one entry is said in [`ChannelView::problem`].
    pub fn try_channels(&self) -> Result<Vec<ChannelView>, ObserveError> {
        let rings_of = self.words()?;
        let mut found = Vec::new();
        for (index, _) in self.live()? {
            if let Some(snapshot) = self.snapshot(&rings_of, index)? {
                found.push((self.view(&snapshot)?, snapshot));
            }
        }
        // The words of messages are read after the cells that name them.
        let words = self.words()?;
        for (view, snapshot) in &mut found {
            let Some(rings) = &snapshot.rings else { continue };
            let mut blocks = Vec::new();
            rings.all().iter().for_each(|ring| match rings.log {
                Some(_) => ring.blocks(|block| blocks.push(block)),
                None => ring.each_waiting(|block| blocks.push(block)),
            });
            for block in blocks {
                view.bytes += self.bytes_on_the_way(&words, block)?;
            }
        }
        self.add_what_is_apart(&words, &mut found)?;
        add_groups(&mut found);
        let mut views: Vec<ChannelView> = found.into_iter().map(|(view, _)| view).collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(views)
    }

    fn bytes_on_the_way(&self, words: &Words<'_>, block: BlockId) -> Result<usize, ObserveError> {
        let found = words.block(block)?.filter(|found| found.word.is_on_its_way());
        Ok(found.map_or(0, |found| found.bytes as usize))
    }

    /// All but what other places say.
    fn view(&self, snapshot: &Snapshot) -> Result<ChannelView, ObserveError> {
        let (entry, shape) = (snapshot.entry(), &snapshot.described.shape);
        let participants = self.header.params.participants as usize;
        let words = bitmap_words(participants);
        let parked: Vec<Vec<u16>> = snapshot.bitmaps.iter().map(|bitmap| slots(bitmap, participants)).collect();
        let (sender_slots, receiver_slots) =
            (slots(&entry.with_sender[..words], participants), slots(&entry.with_receiver[..words], participants));
        let mut anybody: Vec<u16> = parked.concat();
        anybody.sort_unstable();
        anybody.dedup();
        let mut view = ChannelView {
            name: snapshot.described.name.clone(),
            kind: ChannelKind::of(shape.kind),
            payload: shape.payload_name.clone(),
            payload_size: match element_size(shape.payload_size) {
                None => usize::try_from(shape.payload_size).ok(),
                Some(_) => None,
            },
            capacity: if shape.kind == Kind::Group { 1 } else { shape.capacity as usize },
            max_deliveries: u32::try_from(shape.deliveries).unwrap_or(u32::MAX),
            persistent: snapshot.state.has(PERSISTENT),
            closed: snapshot.state.has(CLOSED),
            depth: 0,
            sent: 0,
            received: 0,
            senders: End::Sender.participants(entry),
            receivers: End::Receiver.participants(entry),
            sender_slots,
            receiver_slots,
            parked: anybody.len(),
            parked_receivers: parked[0].len(),
            parked_senders: parked[1].len(),
            reserved: 0,
            unacknowledged: 0,
            bytes: 0,
            counts: counts_of(snapshot.rings.as_ref().and_then(|rings| rings.recall.as_ref()), entry),
            groups: Vec::new(),
            problem: None,
        };
        let Some(rings) = &snapshot.rings else {
            view.problem = Some("its ring is not where the directory says".into());
            return Ok(view);
        };
        let permits = rings.first.permits();
        match shape.kind {
            Kind::Channel => {
                view.depth = rings.all().iter().map(|ring| ring.waiting().count()).sum();
                for (received, sent) in rings.levels().iter().map(Ring::counted) {
                    view.sent = view.sent.saturating_add(sent);
                    view.received = view.received.saturating_add(received);
                }
                view.reserved = permits.total() as usize;
            }
            Kind::Broadcast => {
                if let Some(log) = &rings.log {
                    (view.depth, view.sent) = (log.open().count(), log.tail());
                }
            }
            Kind::Semaphore => view.reserved = permits.total().saturating_sub(permits.absent()) as usize,
            Kind::Notify => view.depth = entry.value.load(Ordering::Relaxed) as usize,
            Kind::Watch | Kind::Routed | Kind::Group => {}
        }
        Ok(view)
    }

    /// Messages that no ring names: received and not acknowledged, or come back when the ring for that was full.
    fn add_what_is_apart(&self, words: &Words<'_>, found: &mut [(ChannelView, Snapshot)]) -> Result<(), ObserveError> {
        if found.iter().all(|(view, _)| view.max_deliveries == 0) {
            return Ok(());
        }
        let mut apart = Vec::new();
        for sector in 0..SECTORS {
            words.each(sector, |_, block| {
                if Words::is_apart(block.word) && block.bytes >= TRAILER as u64 {
                    apart.push(block);
                }
            })?;
        }
        for block in apart {
            // The first word of a trailer names the channel.
            let channel = self.source.word(block.at + block.bytes - TRAILER as u64)?;
            let its = found.iter_mut().find(|(_, snapshot)| snapshot.ring_word() == channel);
            if let Some((view, _)) = its.filter(|(view, _)| view.max_deliveries > 0) {
                let is_back = block.word.state() == crate::alloc::word::State::Returned;
                *(if is_back { &mut view.depth } else { &mut view.unacknowledged }) += 1;
                view.bytes += block.bytes as usize;
            }
        }
        Ok(())
    }
}

/// Fills in what the logs of broadcasts say: into their views, and into those of their groups.
fn add_groups(found: &mut [(ChannelView, Snapshot)]) {
    let groups: HashMap<usize, (String, usize)> = found
        .iter()
        .filter(|(view, _)| view.kind == ChannelKind::Group)
        .map(|(view, snapshot)| (snapshot.index, (view.name.clone(), view.receivers)))
        .collect();
    let mut figures = HashMap::new();
    for (view, snapshot) in found.iter_mut() {
        let Some(log) = snapshot.rings.as_ref().and_then(|rings| rings.log.as_ref()) else { continue };
        for progress in log.progress() {
            // Without an entry it is about to go.
            let Some((name, members)) = groups.get(&progress.entry) else { continue };
            let (lag, held) = (progress.behind as usize, progress.held as usize);
            figures.insert(progress.entry, (lag, held));
            view.unacknowledged += held;
            view.groups.push(GroupView {
                name: name.clone(),
                lag,
                held,
                missed: progress.missed,
                evicted: progress.is_evicted,
                members: *members,
            });
        }
    }
    for (view, snapshot) in found {
        if let Some(group) = figures.get(&snapshot.index) {
            (view.depth, view.unacknowledged) = *group;
        }
    }
}
