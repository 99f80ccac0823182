//! Capacity that is taken in advance: permits of this process, and the line of those who want many.
//!
//! A permit is a [`Slot`]: one message's share of the capacity, and a block for it. Both are this process's: its reaper finds
//! the count (see [`ring::permits`](crate::ring::permits)) and the block, whose word names a lane of the process. A slot has no
//! place in the queue; so a permit that is held delays nobody, it only takes room.
//!
//! * **One permit** is had like a send happens: whoever comes first gets it, and who waits is woken one by one.
//! * **Many** at once would never be had beside a stream of small sends. So who waits for many goes to the head of the
//!   *line*, and lets its count stand while it waits: nobody gets past what it has counted, the queue shrinks, and it is
//!   granted all at once. There is one in the line at a time (the word names its participant, so that its reaper can clear
//!   it), because two could wait for each other. The others count nothing while they wait, and try when they are woken: whoever
//!   leaves the line wakes one. One that is stopped in the line holds up who wants many as long as there is not room for
//!   all of it at once; and nobody else, except that it holds what it has counted.
//!
//! Who stands in line is woken before anybody else who waits for room: that is R10 of [`notify`](crate::notify).
//!
//! Where there are levels of priority, a permit takes room in each, and is granted in each
//! ([`policed`](super::policed)).
//!
//! Whatever makes a count go down (a permit that is dropped, a future that is cancelled, a try that fails, a send) wakes one
//! who waits for room if there is some, and the chain of `notify` goes on from there.

use crate::{
    alloc::{AllocError, Block},
    attachment::{
        Attachment,
        delivery::Recall,
        directory::{self, CLOSED, SENDERS_GONE},
        policies::Marks,
        port::{Port, Refused},
    },
    notify::wakers,
    ring::{Position, Ring, transfer},
    segment::layout::ChannelEntry,
    sys::{prefetch, sync::Ordering},
};

/// Room for one message, and a block for it. To be sent or given back through its port; if it is forgotten, it comes back
/// when the process has no sender of the channel any more, and its block when the process leaves the segment.
#[derive(Debug)]
#[must_use = "a slot comes back only when it is sent or given back"]
pub(crate) struct Slot {
    block: Block,
    /// Bytes that were asked for.
    size: usize,
    marks: Marks,
}

impl Slot {
    /// Says how its message is to travel.
    pub(crate) fn mark(&mut self, marks: Marks) {
        self.marks = marks;
    }
}

/// Slots of which there are to be more. Dropped, their blocks are freed.
struct Made<'a> {
    attachment: &'a Attachment,
    slots: Vec<Slot>,
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        self.slots.drain(..).for_each(|slot| self.attachment.free(slot.block));
    }
}

/// Permits that are counted for this process, granted or not. Dropped, they are given back.
#[derive(Debug)]
struct Claim<'a> {
    port: &'a Port,
    permits: u32,
}

impl<'a> Claim<'a> {
    fn new(port: &'a Port, permits: u32) -> Self {
        port.ring.permits().add(port.me(), permits);
        Self { port, permits }
    }

    /// They stay counted: the slots have them now.
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.port.uncount(self.permits);
    }
}

/// The head of the line.
#[derive(Debug)]
struct Turn<'a>(&'a Port);

impl<'a> Turn<'a> {
    fn take(port: &'a Port) -> Option<Self> {
        let mine = u64::from(port.me()) + 1;
        // Ordering: SeqCst: before the count that it lets stand, as the clear is before the look at who waits.
        port.entry.line.compare_exchange(0, mine, Ordering::SeqCst, Ordering::Relaxed).is_ok().then(|| Self(port))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.0.attachment().is_usable() {
            leave_line(&self.0.entry, self.0.me());
            self.0.wake_for_room();
        }
    }
}

/// Who stands in line for a channel's room, and whether it may have it now.
pub(super) fn first_in_line(entry: &ChannelEntry, levels: &[Ring]) -> Option<(u16, bool)> {
    // Ordering: SeqCst: whoever makes room looks here afterwards, and who goes into the line looks for room afterwards.
    let first = entry.line.load(Ordering::SeqCst).checked_sub(1)?;
    let is_grantable = |ring: &Ring| ring.is_grantable(&Position::new(ring.tail_hint()));
    Some((u16::try_from(first).ok()?, levels.iter().all(is_grantable)))
}

fn leave_line(entry: &ChannelEntry, participant: u16) {
    let mine = u64::from(participant) + 1;
    // Ordering: SeqCst: before the look at who waits. A failure means that the participant is not in the line.
    let _ = entry.line.compare_exchange(mine, 0, Ordering::SeqCst, Ordering::Relaxed);
}

/// What somebody in the line has: the line, and a count that stands. Dropped, it leaves.
#[derive(Debug)]
pub(crate) struct InLine<'a> {
    // In this order: when the count goes down, whoever is woken finds the line free.
    turn: Turn<'a>,
    claim: Claim<'a>,
}

/// What one who wants permits does when there is not enough room.
pub(crate) enum Patience<'a, 'b> {
    /// It comes back later, or not at all.
    None,
    /// It goes to the head of the line if that is free. It must come back with the same wish, or drop what it gets there.
    Line(&'b mut Option<InLine<'a>>),
}

impl Port {
    fn me(&self) -> u16 {
        self.attachment().region().me()
    }

    /// Takes room for so many messages, at least one, and what `allocate` makes for them.
    ///
    /// Lock-free.
    pub(crate) fn try_reserve<'a, R>(
        &'a self,
        position: &Position,
        messages: u32,
        patience: Patience<'a, '_>,
        allocate: impl FnOnce() -> Result<R, AllocError>,
    ) -> Result<R, Refused> {
        if self.is_closed_for_senders() {
            return Err(Refused::Closed);
        }
        let claim = match &self.recall {
            None => None,
            Some(recall) => self.claim_by_force(recall, position, messages),
        };
        let claim = claim.or_else(|| self.claim(position, messages, patience)).ok_or(Refused::Full)?;
        // Somebody may have closed the channel since we looked, and have seen nothing of our permits. Who closes it from
        // now on sees them.
        if self.is_closed_for_senders() {
            return Err(Refused::Closed);
        }
        let reserved = allocate().map_err(Refused::Memory)?;
        claim.keep();
        // The chain: there may be room for more.
        self.wake_for_room();
        Ok(reserved)
    }

    /// Counts permits and has them granted.
    fn claim<'a>(&'a self, position: &Position, permits: u32, patience: Patience<'a, '_>) -> Option<Claim<'a>> {
        let mut nowhere = None;
        let (line, patient) = match patience {
            Patience::None => (&mut nowhere, false),
            Patience::Line(line) => (line, true),
        };
        let (turn, claim) = match line.take() {
            Some(InLine { turn, claim }) => (Some(turn), claim),
            None => {
                // A look before we count anything, which would be in the way of others.
                let turn =
                    match self.ways(position).all(|(ring, position)| ring.is_writable(position, u64::from(permits))) {
                        true => None,
                        false if patient => Some(Turn::take(self)?),
                        false => return None,
                    };
                (turn, Claim::new(self, permits))
            }
        };
        // In each level, as nobody knows which it will be. What is granted in some and not in others is not counted any more.
        if self.ways(position).all(|(ring, position)| ring.grant(position)) {
            return Some(claim);
        }
        if let Some(turn) = turn.or_else(|| patient.then(|| Turn::take(self)).flatten()) {
            *line = Some(InLine { turn, claim });
        }
        None
    }

    /// The rings of all levels, and where senders are.
    fn ways<'a>(&'a self, position: &'a Position) -> impl Iterator<Item = (&'a Ring, &'a Position)> {
        let levels = self.recall.as_ref().map_or(&[][..], |recall| &recall.levels);
        std::iter::once((&self.ring, position)).chain(levels.iter().map(|level| (&level.ring, &level.sending)))
    }

    /// Counts permits and has them granted, in room that was made for them, if what is in the way may go.
    fn claim_by_force<'a>(&'a self, recall: &Recall, position: &Position, permits: u32) -> Option<Claim<'a>> {
        (0..=self.looks_for_room()).find_map(|_| {
            let made = self.make_room_for_permits(recall, position, permits);
            made.then(|| self.claim(position, permits, Patience::None)).flatten()
        })
    }

    /// A block for a message.
    pub(crate) fn slot(&self, size: usize, align: usize) -> Result<Slot, AllocError> {
        let attachment = self.attachment();
        let block = attachment.with_worker(|worker| attachment.allocate(worker, self.bytes_for(size), align))?;
        prefetch::block_for_write(attachment.data(block).as_ptr(), size);
        Ok(Slot { block, size, marks: Marks::default() })
    }

    /// Blocks for many messages: all or none.
    pub(crate) fn slots(
        &self,
        sizes: impl Iterator<Item = usize> + Clone,
        align: usize,
    ) -> Result<Vec<Slot>, AllocError> {
        let attachment = self.attachment();
        let mut made = Made { attachment, slots: Vec::with_capacity(sizes.size_hint().0) };
        // Each size is asked for before there is a lane: it may be code of the user's that says it, and that may panic, or come back.
        let failed = sizes.clone().find_map(|size| {
            let bytes = self.bytes_for(size);
            match attachment.with_worker(|worker| attachment.allocate(worker, bytes, align)) {
                Ok(block) => {
                    made.slots.push(Slot { block, size, marks: Marks::default() });
                    None
                }
                Err(error) => Some(error),
            }
        });
        if let Some(error) = failed {
            drop(made);
            let sectors = attachment.allocator().sectors().iter();
            let most = sectors.map(|sector| sector.bytes(sector.granules())).sum::<u64>() as usize;
            let requested = sizes.fold(0, usize::saturating_add);
            // Waiting would be in vain.
            return Err(if requested > most { AllocError::TooLarge { requested, largest: most } } else { error });
        }
        Ok(std::mem::take(&mut made.slots))
    }

    /// The bytes of a slot: what was there before, until somebody writes.
    pub(crate) fn bytes<'a>(&'a self, slot: &'a Slot) -> &'a [u8] {
        // SAFETY: the block is mapped as long as the attachment lives, has `size` bytes (`slot` asked for so many), and is
        // this slot's alone: nobody writes while the slot is borrowed. Shared memory is always initialised.
        unsafe { std::slice::from_raw_parts(self.attachment().data(slot.block).as_ptr(), slot.size) }
    }

    /// The bytes of a slot, to be written.
    pub(crate) fn bytes_mut<'a>(&'a self, slot: &'a mut Slot) -> &'a mut [u8] {
        self.attachment().bytes_mut(slot.block, slot.size)
    }

    /// Sends what stands in slots, in their order.
    ///
    /// Lock-free.
    pub(crate) fn send_slots(&self, position: &Position, slots: impl IntoIterator<Item = Slot>) {
        let attachment = self.attachment();
        if !attachment.is_usable() {
            return;
        }
        let (mut permits, mut lost) = (0, Vec::new());
        attachment.with_worker(|worker| {
            let allocator = attachment.allocator();
            for slot in slots {
                let state = self.travelling(slot.block, slot.marks);
                let (ring, position) = self.way(position, slot.marks);
                let sent = transfer::send_reserved(allocator, ring, position, &worker.lane, slot.block, state);
                if sent.is_none() {
                    lost.push(slot.block);
                }
                permits += 1;
            }
        });
        for block in lost {
            // The cells are garbage. Only memory that was overwritten has such.
            self.count_invalid();
            attachment.free(block);
        }
        (0..permits).for_each(|_| self.meters().sent());
        // All at once: until then others see less room than there is, never more.
        self.ring.permits().sub(self.me(), permits);
        wakers::letting_out(|| {
            self.has_sent(position);
            if self.is_levelled() {
                // They had room in all levels, and used that of one.
                self.wake_for_room();
            }
            self.wake_if_finished();
        });
    }

    /// Gives slots back that were not used.
    pub(crate) fn give_back(&self, slots: impl IntoIterator<Item = Slot>) {
        if !self.attachment().is_usable() {
            return;
        }
        let mut permits = 0;
        for slot in slots {
            self.attachment().free(slot.block);
            permits += 1;
        }
        self.uncount(permits);
    }

    /// Capacity comes back.
    pub(crate) fn uncount(&self, permits: u32) {
        if permits > 0 && self.attachment().is_usable() {
            self.ring.permits().sub(self.me(), permits);
            self.wake_for_room();
            self.wake_if_finished();
        }
    }

    /// Permits of a semaphore that this process holds come back to nobody.
    pub(crate) fn lose(&self, permits: u32) {
        if permits > 0 && self.attachment().is_usable() {
            self.ring.permits().lose(self.me(), permits);
        }
    }

    /// A semaphore has so many more permits, as far as it may. How many.
    pub(crate) fn gain(&self, permits: usize) -> usize {
        if !self.attachment().is_usable() {
            return 0;
        }
        let gained = self.ring.permits().gain(permits as u64) as usize;
        if gained > 0 {
            self.wake_for_room();
        }
        gained
    }

    pub(super) fn wake_for_room(&self) {
        if !self.wants_room.parked() {
            return;
        }
        if self.is_levelled() {
            self.wants_room.wake_all();
        } else {
            self.wants_room.wake_one_if_work();
        }
    }

    /// The last permit of a channel that was closed goes: receivers wait for nothing more.
    fn wake_if_finished(&self) {
        if directory::state(&self.entry).has(CLOSED | SENDERS_GONE) && self.wants_message.parked() {
            self.wants_message.wake_one_if_work();
        }
    }
}

impl Attachment {
    /// The participant has no permits of a channel any more, and waits for none. `true` if it had some.
    ///
    /// It still has a sender if it had any: so the channel stays while this goes on.
    pub(super) fn forget_permits(&self, index: usize, participant: u16) -> bool {
        leave_line(self.directory().entry(index), participant);
        self.ring_of(index).is_some_and(|ring| {
            // Where it has none, the channel may be taken down while we look, and the counts with it.
            ring.permits().may_have(participant) && ring.permits().forget(participant)
        })
    }
}
