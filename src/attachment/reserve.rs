//! Capacity that is taken in advance: permits of this process, and the line of those who want many.
//!
//! A permit is a [`Slot`]: one message's share of the capacity, and a block for it. Both are this process's: its reaper finds
//! the count (see [`ring::permits`](crate::ring::permits)) and the block, whose word names a lane of the process. A slot has no
//! place in the queue; so a permit that is held delays nobody, it only takes room.
//!
//! * **One permit** is had like a send happens: whoever comes first gets it, and who waits is woken one by one. Of those who come
//!   at the same moment one gets it: who was refused because of what others were counting [bids](crate::ring::permits).
//! * **Many** at once would never be had beside a stream of small sends. So who waits for many goes to the head of the
//!   *line*, and lets its wish stand while it waits: nobody gets past it, the queue shrinks, and it is
//!   granted all at once. There is one in the line at a time (the word names its participant, so that its reaper can clear
//!   it), because two could wait for each other. The others wish for nothing while they wait, and try when they are woken: whoever
//!   leaves the line wakes one.
//! * **Who does not react is passed over.** As soon as there is something to do for who stands in line (there is room for all that
//!   it wants, or there will never be, as permits were forgotten), whoever sees that notes the time and wakes it. Who wants room
//!   [`STUCK`] later, and finds it there still, takes it out of the line: it was stopped, or nobody polls its future. If it goes on
//!   after that, it tries as if it had just come. What it wanted was in that word alone, so nothing of it is left.
//!
//! Who stands in line is woken before anybody else who waits for room: that is R10 of [`notify`](crate::notify).
//!
//! Where there are levels of priority, a permit takes room in each, and is granted in each
//! ([`policed`](super::policed)).
//!
//! Whatever makes a count go down (a permit that is dropped, a future that is cancelled, a try that fails, a send) wakes one
//! who waits for room if there is some, and the chain of `notify` goes on from there.

use std::{sync::PoisonError, time::Duration};

use crate::{
    alloc::{AllocError, Block},
    attachment::{
        Attachment,
        delivery::Recall,
        directory::{self, CLOSED, SENDERS_GONE},
        policies::Marks,
        port::{Port, Refused},
    },
    ring::{
        Position, Ring,
        permits::{Due, Wish},
        transfer,
    },
    sys::{clock, prefetch},
    wake::{First, wakers},
};

/// For how long there may be something to do for who stands in line before others get past it.
pub(crate) const STUCK: Duration = Duration::from_millis(50);
/// How much the clock by which that is told may be behind.
const TICK: Duration = Duration::from_millis(10);

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

/// The head of the line, and what is wanted there. Dropped, it leaves.
#[derive(Debug)]
pub(crate) struct InLine<'a> {
    port: &'a Port,
    wish: Wish,
    /// Whether it has left already.
    is_over: bool,
}

impl<'a> InLine<'a> {
    fn enter(port: &'a Port, permits: u32) -> Option<Self> {
        let wish = port.ring.permits().stand_in_line(port.me(), permits)?;
        Some(Self { port, wish, is_over: false })
    }

    /// Has what is wanted granted. Otherwise it stands in line still, unless it was passed over.
    fn attempt(mut self, position: &Position) -> Result<Claim<'a>, Option<Self>> {
        let port = self.port;
        let permits = port.ring.permits();
        // Before we look for room: who makes some from here on notes the time anew.
        permits.is_not_due(self.wish);
        if permits.in_line() == Some(self.wish) {
            if !port.grant(position) {
                return Err(Some(self));
            }
            if permits.count_in_line(self.wish) {
                self.is_over = true;
                return Ok(Claim { port, permits: self.wish.permits() as u32 });
            }
        }
        self.is_over = true;
        // What it has counted for a moment may have been in somebody's way.
        port.wake_for_room();
        Err(None)
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.port.attachment().is_usable() && self.port.ring.permits().leave_line(self.wish) {
            self.port.wake_for_room();
        }
    }
}

/// Who stands in line for a channel's room, and whether there is something to do for it. Passes it over if there has been for long.
pub(super) fn first_in_line<'a>(mut levels: impl Iterator<Item = &'a Ring> + Clone) -> Option<First> {
    let permits = levels.clone().next()?.permits();
    // A bid that its owner does not get to decide takes up room, too.
    permits.help(|| levels.clone().all(|ring| ring.grant(&Position::new(ring.tail_hint()))));
    let wish = permits.in_line()?;
    let is_grantable = |ring: &Ring| ring.is_grantable(&Position::new(ring.tail_hint()));
    // One may always be added.
    let work = wish.permits() > permits.most().max(1) || levels.all(is_grantable);
    if !work {
        permits.is_not_due(wish);
        return Some(First { participant: wish.participant(), work, news: false, patience: STUCK + TICK });
    }
    // Milliseconds since some time, which wrap around.
    let now = (clock::ticks() / 1_000_000) as u32;
    let due = match permits.is_due(wish, now, STUCK.as_millis() as u32) {
        Due::TooLong if permits.leave_line(wish) => return None,
        due => due,
    };
    Some(First { participant: wish.participant(), work, news: due == Due::Now, patience: STUCK + TICK })
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

    /// Has permits granted, and counted.
    fn claim<'a>(&'a self, position: &Position, permits: u32, patience: Patience<'a, '_>) -> Option<Claim<'a>> {
        let mut nowhere = None;
        let (line, patient) = match patience {
            Patience::None => (&mut nowhere, false),
            Patience::Line(line) => (line, true),
        };
        if let Some(in_line) = line.take() {
            match in_line.attempt(position) {
                Ok(claim) => return Some(claim),
                Err(Some(in_line)) => {
                    *line = Some(in_line);
                    return None;
                }
                // It was passed over.
                Err(None) => {}
            }
        }
        // A look before we count anything, which would be in the way of others.
        let is_free = || self.ways(position).all(|(ring, position)| ring.is_writable(position, u64::from(permits)));
        if is_free() || self.passes_over() && is_free() {
            let claim = Claim::new(self, permits);
            if self.grant(position) {
                return Some(claim);
            }
            drop(claim);
            if self.contend(position, permits) {
                return Some(Claim { port: self, permits });
            }
        }
        if patient && let Some(in_line) = InLine::enter(self, permits) {
            match in_line.attempt(position) {
                Ok(claim) => return Some(claim),
                Err(in_line) => *line = in_line,
            }
        }
        None
    }

    /// Has what is counted and wished for granted. In each level, as nobody knows which it will be: what is granted in some and not
    /// in others is not granted.
    fn grant(&self, position: &Position) -> bool {
        self.ways(position).all(|(ring, position)| ring.grant(position))
    }

    /// Bids, after it was refused, perhaps because of what others were counting.
    #[cold]
    fn contend(&self, position: &Position, permits: u32) -> bool {
        let won = {
            let _alone = self.bidding.lock().unwrap_or_else(PoisonError::into_inner);
            self.ring.permits().contend(self.me(), permits, || self.grant(position))
        };
        if !won {
            // While it was there it may have been in somebody's way. Outside of the lock: a waker may do anything.
            self.wake_for_room();
        }
        won
    }

    /// Whether it makes sense to look for room again, as nobody stands in line or bids any more: who did so did not react.
    pub(super) fn passes_over(&self) -> bool {
        let permits = self.ring.permits();
        let over = (permits.in_line().is_some() || permits.has_bid()) && self.wants_room.passes_over();
        if over {
            // Who leaves the line wakes one.
            self.wake_for_room();
        }
        over
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
        // The sizes are asked for before there is a lane: it may be the user's code that says them,
        // and that may panic, or come back here. So the lane is taken once for some of them.
        let (mut rest, mut some) = (sizes.clone(), [0; 32]);
        let failed = loop {
            let mut count = 0;
            for (place, size) in some.iter_mut().zip(&mut rest) {
                *place = size;
                count += 1;
            }
            let allocated = attachment.with_worker(|worker| {
                some[..count].iter().try_for_each(|&size| {
                    let block = attachment.allocate(worker, self.bytes_for(size), align)?;
                    made.slots.push(Slot { block, size, marks: Marks::default() });
                    Ok(())
                })
            });
            match allocated {
                Err(error) => break Some(error),
                Ok(()) if count < some.len() => break None,
                Ok(()) => {}
            }
        };
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
                let is_open = || self.is_open_by_permit();
                let sent = transfer::send_reserved(allocator, ring, position, &worker.lane, slot.block, state, is_open);
                if sent.is_none() {
                    lost.push(slot.block);
                }
                permits += 1;
            }
        });
        for block in lost {
            // Nobody is there to receive; or the cells are garbage: only memory that was overwritten has such.
            if self.is_open_by_permit() {
                self.count_invalid();
            }
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
            let most = self.ring.permits().most();
            self.ring.permits().lose(self.me(), permits);
            if self.ring.permits().most() < most {
                // Who waits for more than that waits in vain.
                self.tell_all_who_want_room();
            }
        }
    }

    /// So many free permits of a semaphore come to nobody any more; `false` if there are not so many.
    pub(crate) fn forget_free(&self, position: &Position, permits: u32) -> bool {
        let Some(claim) =
            self.attachment().is_usable().then(|| self.claim(position, permits, Patience::None)).flatten()
        else {
            return false;
        };
        claim.keep();
        self.lose(permits);
        true
    }

    /// Wakes all who wait for room, as some of them will never get it.
    #[cold]
    pub(crate) fn tell_all_who_want_room(&self) {
        if self.wants_room.parked() {
            self.wants_room.wake_all();
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
    /// The caller has a pin, or an end.
    pub(super) fn forget_permits(&self, index: usize, participant: u16) -> bool {
        self.ring_of(index).is_some_and(|ring| {
            // Where it has none, the channel may be taken down while we look, and the counts with it.
            ring.permits().may_have(participant) && ring.permits().forget(participant)
        })
    }
}
