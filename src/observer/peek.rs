//! Messages that wait, without taking them.

use std::time::Duration;

use crate::{
    attachment::directory::{Kind, element_size},
    channel::header_of,
    observer::{
        Observer,
        channels::{Rings, Snapshot},
        error::ObserveError,
        words::{Found, Words},
    },
    policy::Priority,
    region::lanes::BlockId,
    ring::{
        Front, Ring,
        log::{Log, Published},
        transfer::{TRAILER, Trailer},
    },
    sys::clock,
};

/// A message that waits, told by [`Observer::peek`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peeked {
    /// Its number, which is its [`Message::sequence`](crate::Message::sequence).
    pub sequence: u64,
    /// Its [`Message::delivery_count`](crate::Message::delivery_count) when it is received next.
    pub delivery_count: u32,
    /// Its priority; [`Normal`](Priority::Normal) where there are none.
    pub priority: Priority,
    /// How long ago it was sent, to some milliseconds; known where messages come back, or the channel has policies.
    pub age: Option<Duration>,
    /// Its payload.
    pub bytes: Vec<u8>,
}

/// A message that stood in a cell.
pub(super) struct Candidate {
    position: u64,
    block: BlockId,
    cell: u64,
    /// Where that cell is in the file.
    at: u64,
    came_back: bool,
}

impl Observer {
    /// Up to `most` messages that wait in a channel or a broadcast, without taking them: those first that receivers would be given first,
    /// but for the turns that lower priorities have; of a broadcast the oldest that some group may still take. Each is whole. What somebody
    /// takes meanwhile is left out. Empty where there are none, or they cannot be read.
    pub fn peek(&self, channel: &str, most: usize) -> Vec<Peeked> {
        self.try_peek(channel, most).unwrap_or_default()
    }

    /// The same, or why they cannot be read.
    ///
    /// # Errors
    ///
    /// [`ObserveError::NoChannel`], [`ObserveError::NoMessages`] if there can be none; any other [`ObserveError`] of reading.
    pub fn try_peek(&self, channel: &str, most: usize) -> Result<Vec<Peeked>, ObserveError> {
        let words = self.words()?;
        let snapshot = self.with_messages(&words, channel)?;
        // Together messages have no more memory than the file.
        let (mut seen, mut left) = (Vec::new(), self.source.taken()?);
        for candidate in candidates(&snapshot)? {
            if seen.len() == most {
                break;
            }
            if let Some(peeked) = self.look(&words, &snapshot, &candidate, left)? {
                left = left.saturating_sub(peeked.bytes.len() as u64);
                seen.push(peeked);
            }
        }
        Ok(seen)
    }

    /// The channel or broadcast of that name.
    pub(super) fn with_messages(&self, words: &Words<'_>, channel: &str) -> Result<Snapshot, ObserveError> {
        let none = || ObserveError::NoChannel { channel: channel.to_owned(), path: self.path().to_owned() };
        let snapshot = self.find(words, channel)?.ok_or_else(none)?;
        match snapshot.described.shape.kind {
            Kind::Channel | Kind::Broadcast => Ok(snapshot),
            _ => Err(ObserveError::NoMessages { channel: channel.to_owned() }),
        }
    }

    /// Reads a message; `None` if it is not there any more, or longer than what is left.
    pub(super) fn look(
        &self,
        words: &Words<'_>,
        snapshot: &Snapshot,
        candidate: &Candidate,
        left: u64,
    ) -> Result<Option<Peeked>, ObserveError> {
        let shape = &snapshot.described.shape;
        let Some(found) = words.block_now(candidate.block)?.filter(|found| found.word.is_on_its_way()) else {
            return Ok(None);
        };
        let rest = if shape.has_trailers() { TRAILER as u64 } else { 0 };
        let Some(room) = found.bytes.checked_sub(rest) else { return Ok(None) };
        let (from, len) = match element_size(shape.payload_size) {
            None => (0, shape.payload_size),
            Some(_) => {
                let header = header_of(usize::try_from(shape.payload_align).unwrap_or(usize::MAX)) as u64;
                (header, self.source.word(found.at)?)
            }
        };
        if len > left || from.checked_add(len).is_none_or(|end| end > room) {
            return Ok(None);
        }
        let mut bytes = self.source.room(len)?;
        self.source.read(found.at + from, &mut bytes)?;
        let mut peeked =
            Peeked { sequence: candidate.position, delivery_count: 1, priority: Priority::default(), age: None, bytes };
        if rest > 0 {
            self.add_trailer(&found, room, candidate.came_back, &mut peeked)?;
        }
        // In this order: whoever takes the message changes the cell first.
        let again = words.block_now(candidate.block)?.map(|found| found.word);
        let is_there = again == Some(found.word) && self.source.word(candidate.at)? == candidate.cell;
        Ok(is_there.then_some(peeked))
    }

    fn add_trailer(&self, found: &Found, at: u64, came_back: bool, peeked: &mut Peeked) -> Result<(), ObserveError> {
        let copied = self.table::<Trailer>(found.at + at, 1)?;
        let trailer = &copied[0];
        peeked.priority = Priority::of_level(trailer.level());
        peeked.age = Some(Duration::from_nanos(clock::ticks().saturating_sub(trailer.sent())));
        if came_back {
            (peeked.sequence, peeked.delivery_count) = (trailer.sequence(), trailer.tries().saturating_add(1));
        }
        Ok(())
    }
}

// SAFETY: made of atomics, by its definition.
unsafe impl super::Atomics for Trailer {}

/// What stands in the cells, in the order in which it would be received.
fn candidates(snapshot: &Snapshot) -> Result<Vec<Candidate>, ObserveError> {
    let rings = snapshot.rings()?;
    if let Some(log) = &rings.log {
        return Ok(log.open().map(|message| Candidate::published(rings, log, message)).collect());
    }
    let came_back = rings.recall.iter().map(|recall| (*recall.retry(), true));
    let sent = rings.levels().into_iter().rev().map(|ring| (ring, false));
    let mut found = Vec::new();
    for (ring, came_back) in came_back.chain(sent) {
        found.extend(ring.waiting().map(|front| Candidate::waiting(rings, &ring, front, came_back)));
    }
    Ok(found)
}

impl Candidate {
    pub(super) fn waiting(rings: &Rings, ring: &Ring, front: Front, came_back: bool) -> Self {
        Self {
            position: front.position(),
            block: front.block(),
            cell: front.cell(),
            at: rings.place_of(ring.cell_of(front)),
            came_back,
        }
    }

    pub(super) fn published(rings: &Rings, log: &Log, message: Published) -> Self {
        Self {
            position: message.position,
            block: message.block,
            cell: message.cell,
            at: rings.place_of(log.cell_of(message)),
            came_back: false,
        }
    }
}
