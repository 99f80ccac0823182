//! Channels by what is known of them without a name, and the slate that one may have.
//!
//! A [`ChannelKey`] is the number of an entry and the word that names its ring. That word has the generation of the ring's
//! block, so it is another one when the entry is used again: whoever comes with an old key is refused, and never gets
//! another channel. (The block must come back with the same generation for that, after 2²⁴ lives.)
//!
//! A **slate** is a row of slots behind the ring of a channel, two words each, for those who have an end: the ring's block stays
//! as long as they do. What the words mean is said by who uses it, [`crate::service`].

use std::sync::{Arc, atomic::Ordering};

use crate::{
    alloc::{Block, word::State},
    attachment::{
        Attachment,
        directory::{self, End, Phase},
        port::Port,
        rings::{behind_ring, cells_of},
    },
    region::{error::OpenError, lanes::LaneId, slot::Slot},
    sys::{shared::SharedSlice, sync::fence},
    wake::Direction,
};

/// Bytes of a slot.
pub(super) const SLOT: usize = size_of::<Slot>();

/// A channel of a segment, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ChannelKey {
    pub(crate) index: u32,
    pub(crate) ring: u64,
}

/// Why a channel could not be entered by its key.
#[derive(Debug)]
pub(crate) enum Unknown {
    /// It is not there any more, or never was.
    Gone,
    /// It carries something else.
    Payload,
    /// It is damaged, or this process may not touch the segment.
    Damaged(OpenError),
}

impl Attachment {
    /// Writes the slate of a new channel.
    pub(super) fn format_slate(&self, index: usize, slots: u64) {
        if slots > 0
            && let Some(slate) = self.slate_of(index)
        {
            for slot in slate.iter() {
                // Ordering: Relaxed: the CAS that makes the channel live publishes them.
                slot.word.store(0, Ordering::Relaxed);
                slot.count.store(0, Ordering::Relaxed);
            }
        }
    }

    /// The slate of a channel that was made with as many slots as its capacity, and that the caller has an end of.
    pub(crate) fn slate_of(&self, index: usize) -> Option<SharedSlice<Slot>> {
        let described = self.directory.read(index);
        let block = self.allocator.owned_by(described.ring, described.ring_generation, LaneId::SEGMENT)?;
        let cells = cells_of(&described.shape)?;
        let slots = usize::try_from(described.shape.capacity).ok().filter(|slots| *slots <= cells)?;
        let at = behind_ring(cells, self.region.header().params.participants as usize);
        if self.allocator.bytes_of(block) < at.checked_add(SLOT * slots)? {
            return None;
        }
        // SAFETY: within the block (checked), at a multiple of 64 bytes; it stays the channel's for as long as anybody has an
        // end, which the caller has. Slots are made of atomics, of which any bits are a value.
        Some(unsafe { SharedSlice::new(self.data(block).add(at).cast::<Slot>(), slots) })
    }

    /// Enters an end into the channel of that key, if it carries that payload.
    pub(crate) fn enter_known(&self, key: ChannelKey, payload_hash: u64, end: End) -> Result<Arc<Port>, Unknown> {
        if !self.is_usable() {
            return Err(Unknown::Damaged(OpenError::Forked));
        }
        let index = key.index as usize;
        if index >= self.directory.len() {
            return Err(Unknown::Gone);
        }
        loop {
            let entry = self.directory.entry(index);
            // The pin is from this very state, so the entry is that channel's all the time.
            let found = directory::state(entry);
            if found.phase() != Phase::Live || entry.ring.load(Ordering::Acquire) != key.ring {
                return Err(Unknown::Gone);
            }
            if entry.payload_hash.load(Ordering::Acquire) != payload_hash {
                return Err(Unknown::Payload);
            }
            if let Ok(pin) = self.pin_found(index, found)
                && let Some(entered) = self.enter(pin, &[end], false)
            {
                return entered.map_err(Unknown::Damaged);
            }
        }
    }

    /// Wakes who waits for a message of the channel of that key, to look at what the caller has done before this.
    pub(crate) fn nudge_known(&self, key: ChannelKey) {
        // Ordering: as in `Port::nudge_receiver`.
        fence(Ordering::SeqCst);
        // If another channel has the entry by now, its receivers look in vain.
        if self.is_usable() && (key.index as usize) < self.directory.len() {
            self.wake_all(key.index as usize, &[Direction::Receive]);
        }
    }

    /// Whether a block is still what it was when it was sent: on its way, or in the hands of who has received it. Once it is
    /// not, it never is again.
    pub(crate) fn is_there(&self, block: Block) -> bool {
        self.is_usable()
            && self.allocator.word_of(block.id).is_some_and(|(_, word)| {
                matches!(word.state(), State::Allocated | State::InFlight)
                    && (word.len(), word.generation()) == (block.len, block.generation)
            })
    }
}

impl Port {
    /// The channel, whatever its name.
    pub(crate) fn key(&self) -> ChannelKey {
        // Ordering: Acquire, as the directory reads it.
        ChannelKey { index: self.index() as u32, ring: self.entry.ring.load(Ordering::Acquire) }
    }

    /// What its payload is.
    pub(crate) fn payload_hash(&self) -> u64 {
        self.entry.payload_hash.load(Ordering::Acquire)
    }

    /// Wakes somebody who waits for a message, to look at what the caller has done before this.
    pub(crate) fn nudge_receiver(&self) {
        // Ordering: what the caller did comes before the look at who is parked. Who parks looks behind a fence, too.
        fence(Ordering::SeqCst);
        if self.attachment().is_usable() && self.wants_message.parked() {
            self.wants_message.wake_one();
        }
    }

    /// Wakes all who wait for the channel to close, to look at what the caller has done before this.
    pub(crate) fn nudge_closing(&self) {
        // Ordering: as above.
        fence(Ordering::SeqCst);
        if self.attachment().is_usable() {
            self.attachment().wake_all(self.index(), &[Direction::Closed]);
        }
    }
}
