//! The line of those who wait for memory in order, over all processes.
//!
//! Who waits draws a **ticket**, a number from a counter in the segment. A participant shows the lowest ticket of its own
//! tasks in its slot (a word of its own, so that nothing leaks when it dies), and a task tries to allocate only when nobody
//! shows a lower one. So a large request is not overtaken by small ones behind it: what is freed gathers until it fits.
//!
//! A participant that has been told of freed memory and does not react, because it is stopped, is passed over after
//! [`STUCK`]. Nobody polls for that: whoever waits looks again with its watchdog's ticks.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    alloc::AllocError,
    attachment::Attachment,
    notify::Topic,
    segment::layout::{LiveHeader, ParticipantSlot},
    sys::{
        shared::{SharedRef, SharedSlice},
        sync::Ordering,
    },
};

/// How long a participant that does not react keeps its place.
const STUCK: Duration = Duration::from_millis(500);

/// This process's part of the line.
#[derive(Debug)]
pub(super) struct Line {
    live: SharedRef<LiveHeader>,
    slots: SharedSlice<ParticipantSlot>,
    me: u16,
    here: Mutex<Here>,
}

#[derive(Debug, Default)]
struct Here {
    tickets: BTreeSet<u64>,
    /// Since when participants in front of us have not reacted, and with which ticket.
    silent: HashMap<u16, (u64, Instant)>,
}

impl Line {
    pub(super) fn new(live: SharedRef<LiveHeader>, slots: SharedSlice<ParticipantSlot>, me: u16) -> Self {
        Self { live, slots, me, here: Mutex::default() }
    }

    fn here(&self) -> MutexGuard<'_, Here> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, here: &Here) {
        let lowest = here.tickets.first().copied().unwrap_or(0);
        // Ordering: SeqCst: shown before we look at the others, who do the same.
        self.slots[usize::from(self.me)].memory_ticket.store(lowest, Ordering::SeqCst);
    }

    /// A participant is dead, or gone, and stands in no line.
    pub(super) fn forget(&self, participant: u16) {
        if let Some(slot) = self.slots.get(usize::from(participant)) {
            slot.memory_ticket.store(0, Ordering::SeqCst);
        }
    }

    fn enter(&self) -> u64 {
        // Under the lock, so that a task of this process that draws later shows later.
        let mut here = self.here();
        let ticket = self.live.last_ticket.fetch_add(1, Ordering::SeqCst) + 1;
        here.tickets.insert(ticket);
        self.show(&here);
        ticket
    }

    fn leave(&self, ticket: u64) {
        let mut here = self.here();
        here.tickets.remove(&ticket);
        self.show(&here);
    }

    /// Whether nobody is in front of the ticket. `reacts` says of a participant whether it has taken notice of what it was
    /// told last.
    fn is_first(&self, ticket: u64, waiting: impl Iterator<Item = u16>, reacts: impl Fn(u16) -> bool) -> bool {
        let mut here = self.here();
        if here.tickets.first() != Some(&ticket) {
            return false;
        }
        for participant in waiting.filter(|participant| *participant != self.me) {
            let Some(slot) = self.slots.get(usize::from(participant)) else { continue };
            let theirs = slot.memory_ticket.load(Ordering::SeqCst);
            if theirs == 0 || theirs > ticket {
                continue;
            }
            if reacts(participant) {
                here.silent.remove(&participant);
                return false;
            }
            let (seen, since) = *here.silent.entry(participant).or_insert((theirs, Instant::now()));
            if seen != theirs {
                here.silent.insert(participant, (theirs, Instant::now()));
                return false;
            }
            if since.elapsed() < STUCK {
                return false;
            }
        }
        true
    }
}

/// A place in the line; given up when it is dropped, and then the next one is told.
struct Place<'a> {
    attachment: &'a Attachment,
    ticket: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.attachment.is_usable() {
            self.attachment.line().leave(self.ticket);
            self.attachment.memory_was_freed();
        }
    }
}

impl Attachment {
    /// Does what needs memory as soon as there is enough, behind all who stand in line already. Dropped before it is done,
    /// it has done nothing.
    ///
    /// # Errors
    ///
    /// All but [`AllocError::OutOfMemory`] and [`AllocError::NoRoom`], at once.
    pub(crate) async fn when_free<R>(&self, allocate: impl Fn() -> Result<R, AllocError>) -> Result<R, AllocError> {
        let allocate = || match allocate() {
            Err(AllocError::OutOfMemory { .. } | AllocError::NoRoom { .. }) => None,
            result => Some(result),
        };
        if !(self.is_usable() && self.memory.parked())
            && let Some(result) = allocate()
        {
            return result;
        }
        let place = Place { attachment: self, ticket: self.line().enter() };
        let attempt = || {
            let waiting = self.memory_parked.from(0);
            let reacts = |participant| !self.hub.is_marked(participant, self.memory_topic());
            self.line().is_first(place.ticket, waiting, reacts).then(&allocate).flatten()
        };
        loop {
            if let Some(result) = attempt() {
                return result;
            }
            let waiter = self.wait_for_memory();
            // The place is taken: what was freed before is seen now, and what is freed from now on wakes us.
            if let Some(result) = attempt() {
                return result;
            }
            waiter.await;
        }
    }

    fn memory_topic(&self) -> Topic {
        Topic::memory(self.region().header().params.channels)
    }
}
