//! The line of those who wait for memory in order, over all processes.
//!
//! Who waits draws a **ticket**, a number from a counter in the segment. A participant shows the lowest ticket of its own
//! tasks in its slot (a word of its own, so that nothing leaks when it dies), and a bit in the header says that it does. A
//! task tries to allocate only when nobody shows a lower one. So a large request is not overtaken by small ones behind it:
//! what is freed gathers until it fits.
//!
//! A participant *rests* if it is parked and has taken notice of what it was told: it has tried, and there was too little
//! for it. One that stands in front and does not rest, although it has been told, is stopped, and is passed over after
//! [`STUCK`]. But one that rests may have been stopped as well, even before it has tried: nobody can see that, and what is
//! free may be enough for who stands behind it. So whoever finds it at rest [for a while](ASK) tells it that there may be
//! memory, and sees whether it reacts. Nobody polls for that: whoever waits looks again with its watchdog's ticks.

use std::{
    collections::{BTreeSet, HashMap},
    ptr::NonNull,
    time::{Duration, Instant},
};

use crate::{
    alloc::AllocError,
    attachment::Attachment,
    region::layout::{LiveHeader, ParticipantSlot, bitmap_words},
    sys::{
        held::{Mutex, MutexGuard},
        shared::{SharedRef, SharedSlice},
        sync::Ordering,
    },
    wake::{Parked, Topic, WATCHDOG},
};

/// How long a participant that does not react keeps its place.
const STUCK: Duration = Duration::from_millis(500);
/// How long a participant may rest in front of others before it is asked whether it still reacts. Less than a tick, so that
/// it is asked with every other one at the latest.
const ASK: Duration = WATCHDOG.checked_div(2).unwrap();

/// This process's part of the line.
#[derive(Debug)]
pub(super) struct Line {
    live: SharedRef<LiveHeader>,
    slots: SharedSlice<ParticipantSlot>,
    /// The participants that show a ticket.
    standing: Parked,
    me: u16,
    here: Mutex<Here>,
}

#[derive(Debug, Default)]
struct Here {
    tickets: BTreeSet<u64>,
    /// The participants in front of us, as they were when we looked last.
    in_front: HashMap<u16, Seen>,
}

/// What a participant in front of us has been doing, and since when, as far as we know.
#[derive(Clone, Copy, Debug)]
struct Seen {
    ticket: u64,
    rests: bool,
    since: Instant,
}

impl Line {
    pub(super) fn new(live: SharedRef<LiveHeader>, slots: SharedSlice<ParticipantSlot>, me: u16) -> Self {
        // SAFETY: a field of a struct that outlives the view.
        let standing = unsafe { SharedSlice::new(NonNull::from(&live.memory_line[0]), bitmap_words(slots.len())) };
        Self { live, slots, standing: Parked::new(standing), me, here: Mutex::default() }
    }

    fn here(&self) -> MutexGuard<'_, Here> {
        self.here.lock()
    }

    fn show(&self, here: &Here) {
        let lowest = here.tickets.first().copied().unwrap_or(0);
        // Ordering: SeqCst: shown before we look at the others, who do the same.
        self.slots[usize::from(self.me)].memory_ticket.store(lowest, Ordering::SeqCst);
        if lowest == 0 {
            self.standing.clear(self.me);
        } else {
            self.standing.set(self.me);
        }
    }

    /// A participant is dead, or gone, and stands in no line.
    pub(super) fn forget(&self, participant: u16) {
        if let Some(slot) = self.slots.get(usize::from(participant)) {
            slot.memory_ticket.store(0, Ordering::SeqCst);
            self.standing.clear(participant);
        }
    }

    fn enter(&self) -> u64 {
        // Under the lock, so that a task of this process that draws later shows later.
        let mut here = self.here();
        let ticket = self.live.last_ticket.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
        here.tickets.insert(ticket);
        self.show(&here);
        ticket
    }

    fn leave(&self, ticket: u64) {
        let mut here = self.here();
        here.tickets.remove(&ticket);
        self.show(&here);
    }

    /// Whether nobody stands in line, in any process.
    fn is_empty(&self) -> bool {
        !self.standing.any()
    }

    /// Whether nobody is in front of the ticket. `rests` says of a participant whether it has taken notice of what it was
    /// told last, and sleeps; `ask` tells it that there may be memory.
    fn is_first(&self, ticket: u64, rests: impl Fn(u16) -> bool, ask: impl Fn(u16)) -> bool {
        let mut here = self.here();
        if here.tickets.first() != Some(&ticket) {
            return false;
        }
        let mut is_first = true;
        // All of them, so that the time of each begins with our first look.
        for participant in self.standing.from(0).filter(|participant| *participant != self.me) {
            let Some(slot) = self.slots.get(usize::from(participant)) else { continue };
            let theirs = slot.memory_ticket.load(Ordering::SeqCst);
            if theirs == 0 || theirs > ticket {
                continue;
            }
            let now = Seen { ticket: theirs, rests: rests(participant), since: Instant::now() };
            let seen = here.in_front.entry(participant).or_insert(now);
            if (seen.ticket, seen.rests) != (now.ticket, now.rests) {
                *seen = now;
            }
            if seen.rests && seen.since.elapsed() >= ASK {
                ask(participant);
                *seen = Seen { rests: false, ..now };
            }
            is_first &= !seen.rests && seen.since.elapsed() >= STUCK;
        }
        is_first
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
        if !(self.is_usable() && (self.memory.parked() || !self.line().is_empty()))
            && let Some(result) = allocate()
        {
            return result;
        }
        let place = Place { attachment: self, ticket: self.line().enter() };
        let attempt = || {
            if !self.is_usable() {
                // A forked child, in which nobody who stands in front ever goes.
                return Some(Err(AllocError::Forked));
            }
            let topic = self.memory_topic();
            let rests =
                |participant| self.memory_parked.contains(participant) && !self.hub.is_marked(participant, topic);
            let ask = |participant| {
                self.hub.tell(participant, topic);
            };
            self.line().is_first(place.ticket, rests, ask).then(&allocate).flatten()
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
