//! How a channel ends, and who may be at work in it meanwhile: the one protocol for who leaves, enters, closes, drains, or
//! buries who did.
//!
//! **Pins.** Nobody touches an entry, its ring, or what stands behind it, without an end of the channel or a pin; and neither
//! holds for another life of the entry. An end is a bit of the participant in `with_sender` or `with_receiver`, a pin is one in
//! `pins`, which says nothing of ends: a participant that is stopped with a pin keeps an entry and a ring from being used
//! anew, and nobody from hearing that the last receiver has gone.
//!
//! * **E1 Pin.** Read the state; see that it is that of the channel that is meant; set the bit; CAS of the state from what was
//!   read. Whoever has an end of the channel sets the bit and is done.
//! * **E2 Unpin.** Do what is to be done (E5, E6). If nobody else is there and nothing more is to be kept, the channel goes, by a
//!   CAS from the state that was read before that look. Else clear the bit, and look again: who left meanwhile has seen the
//!   bit, and relies on whoever had it. So does one who had to take its bit back because its CAS failed.
//! * **E3 Enter.** Pin; set the bits of the ends; CAS of the state, which says that there are such ends; unpin. A receiver enters
//!   no channel that is UNDRAINED: it drains first.
//! * **E4 Leave.** Those of the process who wait give up their places, and with them the parked bits; pin; clear the bit of
//!   the end; unpin.
//! * **E5 Review.** The last sender or receiver has gone: said by a CAS from the state that was read before the look at who is there.
//!   With the last receiver, unless the channel outlives its ends, it becomes UNDRAINED by the same CAS.
//! * **E6 Drain.** Anybody with an end or a pin, any number at once: seal each ring, which gives the position of its first
//!   cell that is not filled; see that the state is still what it was; free what waits before those positions, and no more; clear
//!   UNDRAINED by a CAS from that state. As no receiver enters meanwhile, what waits before was sent to nobody who is there;
//!   whoever was stopped in the middle, and goes on when there is a receiver again, finds those positions taken.
//! * **E7 Seal.** A sender looks at its cell, then at the flags, then fills the cell by a CAS. Whoever has set a flag (RECEIVERS_GONE,
//!   CLOSED) raises the version of the first cell that is not filled, by a CAS, as a grant of permits does. A sender that
//!   has filled a cell before is seen by who looks from then on; one that comes later sees the flag, or has its CAS fail.
//!   A receiver says that nothing will come only after it has sealed the ring itself: who has set the flag may be stopped.
//!
//! **Deaths.** A reaper takes pins of its own, never those of the dead: it pins every live entry, clears all bits of the dead
//! in it, does what is to be done, and unpins. So it makes good for whoever died between any two steps of the above.
//!
//! **Sends with a permit** are not refused by CLOSED, and looked at by the same rule for RECEIVERS_GONE: then the message is for
//! nobody, and not put in. What comes back (a `nack`, a burial) is put in with a pin, whatever the flags say; who unpins
//! finds it, and drains anew if nobody is there to receive.
//!
//! `docs/models/ends.py` is the model, with what goes wrong if a rule is left out.

use std::{
    any::Any,
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
};

use crate::{
    attachment::{
        Attachment,
        delivery::Recall,
        directory::{
            self, CLOSED, End, EntryState, HAD_RECEIVER, Kind, PERSISTENT, Phase, RECEIVERS_GONE, SENDERS_GONE,
            UNDRAINED,
        },
    },
    region::layout::ChannelEntry,
    ring::{Position, Ring, transfer},
    sys::held::MutexGuard,
    wake::Direction,
};

/// A pin of this process, or one that could not be had and whose bit others may have seen. To be dropped where no lock is held
/// and no lane is in use: that may take the channel down, and wakes tasks.
#[derive(Debug)]
#[must_use = "a channel stays pinned for as long as the pin lives"]
pub(super) struct Pin<'a> {
    attachment: &'a Attachment,
    index: usize,
    is_held: bool,
}

impl<'a> Pin<'a> {
    /// The number of the entry.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// Unpins a channel in which nothing was done but to look. Only if everybody else has left it meanwhile something is to be done
    /// later, and among the `debts`.
    pub(super) fn let_go(self, debts: &mut Vec<Self>) {
        let Self { attachment, index, .. } = self;
        std::mem::forget(self);
        if attachment.take_pin(index) && directory::is_deserted(attachment.directory().entry(index)) {
            debts.push(Pin { attachment, index, is_held: false });
        }
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        if !self.attachment.is_usable() {
            return;
        }
        let mut panicked = None;
        if self.is_held {
            self.attachment.unpin(self.index, &mut panicked);
        } else {
            self.attachment.look_after(self.index, &mut panicked);
        }
        if let Some(panic) = panicked
            && !thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

/// What the waker of a task has panicked with.
type Panicked = Option<Box<dyn Any + Send>>;

/// Wakes tasks, whose wakers are others' code.
fn survive(panicked: &mut Panicked, wake: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(wake)) {
        *panicked = Some(panic);
    }
}

impl Attachment {
    /// How many pins this process has of which entry.
    fn pins(&self) -> MutexGuard<'_, HashMap<usize, usize>> {
        self.pins.lock()
    }

    /// E1: pins the channel that was found in that state. `Err` if it has another one by now: to be dropped as a pin.
    pub(super) fn pin_found(&self, index: usize, found: EntryState) -> Result<Pin<'_>, Pin<'_>> {
        self.try_pin(index, found).ok_or_else(|| Pin { attachment: self, index, is_held: false })
    }

    fn try_pin(&self, index: usize, found: EntryState) -> Option<Pin<'_>> {
        let (entry, me) = (self.directory().entry(index), self.region().me());
        let mut pins = self.pins();
        let had = pins.contains_key(&index);
        if !had {
            directory::set_pin(entry, me);
        }
        if directory::change(entry, found, found.with(0, 0)) {
            *pins.entry(index).or_default() += 1;
            return Some(Pin { attachment: self, index, is_held: true });
        }
        if !had {
            directory::clear_pin(entry, me);
        }
        None
    }

    /// The same for a channel that this process has an end of.
    pub(super) fn pin_own(&self, index: usize) -> Pin<'_> {
        let mut pins = self.pins();
        let count = pins.entry(index).or_default();
        if *count == 0 {
            directory::set_pin(self.directory().entry(index), self.region().me());
        }
        *count += 1;
        Pin { attachment: self, index, is_held: true }
    }

    /// Pins the channel that is live in an entry, if `is_it`. What is to be dropped later, where no lock is held and no lane in
    /// use, is put into `debts`.
    pub(super) fn pin_later<'a>(
        &'a self,
        index: usize,
        is_it: impl Fn(&ChannelEntry) -> bool,
        debts: &mut Vec<Pin<'a>>,
    ) -> Option<Pin<'a>> {
        let entry = self.directory().entry(index);
        loop {
            let found = directory::state(entry);
            if found.phase() != Phase::Live || !is_it(entry) {
                return None;
            }
            match self.pin_found(index, found) {
                Ok(pin) => return Some(pin),
                Err(debt) => debts.push(debt),
            }
        }
    }

    /// Pins the channel that is live in an entry, if `is_it`. No lock is held, and no lane in use.
    pub(super) fn pin(&self, index: usize, is_it: impl Fn(&ChannelEntry) -> bool) -> Option<Pin<'_>> {
        self.pin_later(index, is_it, &mut Vec::new())
    }

    /// One pin less; `true` if that was the last of this process.
    fn take_pin(&self, index: usize) -> bool {
        let mut pins = self.pins();
        match pins.get_mut(&index) {
            // Whoever else in this process has one looks when it goes.
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            _ => {
                pins.remove(&index);
                directory::clear_pin(self.directory().entry(index), self.region().me());
                true
            }
        }
    }

    /// A participant that is dead, or begins, or leaves, has no pin but what this process has. What is returned is to be dropped
    /// as a pin: others may rely on the one that had it.
    pub(super) fn forget_pin(&self, index: usize, participant: u16) -> Pin<'_> {
        let pins = self.pins();
        if participant != self.region().me() || !pins.contains_key(&index) {
            directory::clear_pin(self.directory().entry(index), participant);
        }
        Pin { attachment: self, index, is_held: false }
    }

    /// A channel that this process has an end of, or a pin, outlives its ends from now on, whoever has gone before. What waits
    /// for nobody is drained first.
    pub(super) fn persist(&self, index: usize) {
        while !self.directory().join(index, &[], self.region().me(), true) {
            // Its drop drains.
            drop(self.pin_own(index));
        }
    }

    /// E2.
    fn unpin(&self, index: usize, panicked: &mut Panicked) {
        let (entry, me) = (self.directory().entry(index), self.region().me());
        loop {
            self.settle_ends(index, panicked);
            let (removed, alone) = {
                let mut pins = self.pins();
                match pins.get_mut(&index) {
                    // Whoever else in this process has one does the same.
                    Some(count) if *count > 1 => {
                        *count -= 1;
                        return;
                    }
                    _ => {}
                }
                let seen = directory::state(entry);
                let is_alone = directory::is_alone(entry, me);
                let removed = is_alone && self.is_over(index, seen) && self.directory().remove(index, seen, me);
                pins.remove(&index);
                directory::clear_pin(entry, me);
                (removed, is_alone.then_some(seen))
            };
            if removed {
                return survive(panicked, || self.dismantle(index));
            }
            // Who has left since that look relies on us, if it has seen the bit.
            if !self.pin_anew(index, |now| alone != Some(now)) {
                return;
            }
        }
    }

    /// The bit of a pin that could not be had is gone: who has left meanwhile relies on us, if it has seen it.
    fn look_after(&self, index: usize, panicked: &mut Panicked) {
        if self.pin_anew(index, |_| true) {
            self.unpin(index, panicked);
        }
    }

    /// Pins a channel that everybody has left, if it is in a state of which `is_new` is true. `false` if there is none.
    fn pin_anew(&self, index: usize, is_new: impl Fn(EntryState) -> bool) -> bool {
        let entry = self.directory().entry(index);
        loop {
            let now = directory::state(entry);
            if now.phase() != Phase::Live || !directory::is_deserted(entry) || !is_new(now) {
                return false;
            }
            if let Some(pin) = self.try_pin(index, now) {
                // Its owner unpins.
                std::mem::forget(pin);
                return true;
            }
        }
    }

    /// Whether a channel that nobody is in any more is to go.
    fn is_over(&self, index: usize, seen: EntryState) -> bool {
        seen.phase() == Phase::Live
            && !seen.has(PERSISTENT | UNDRAINED)
            // What senders have left for the first receiver stays.
            && (seen.has(HAD_RECEIVER | CLOSED) || !self.has_queued(index))
    }

    /// E5 and E6: says who has gone, and frees what waits for nobody. The caller has a pin.
    fn settle_ends(&self, index: usize, panicked: &mut Panicked) {
        let entry = self.directory().entry(index);
        // What was published stays for those who come late, and nothing else carries anything.
        let drains = self.directory().kind(index) == Kind::Channel;
        let mut in_vain = false;
        loop {
            let gone = self.directory().review(index, drains);
            if gone & RECEIVERS_GONE != 0 {
                survive(panicked, || self.wake_all(index, &[Direction::Send, Direction::Closed]));
            }
            if gone & SENDERS_GONE != 0 {
                survive(panicked, || self.wake_all(index, &[Direction::Receive]));
                survive(panicked, || self.wake_groups(index));
            }
            let seen = directory::state(entry);
            if seen.phase() != Phase::Live {
                return;
            }
            if !drains {
                if seen.has(UNDRAINED) {
                    // Garbage: who enters would wait for it.
                    directory::change(entry, seen, seen.with(0, UNDRAINED));
                }
                return;
            }
            if seen.has(UNDRAINED) {
                // Only where somebody has written what makes no sense there is nothing to be had and something left.
                let mut freed = 0;
                survive(panicked, || freed = self.drain(index, seen));
                in_vain = freed == 0;
            } else if in_vain || !self.is_for_nobody(index, seen) {
                return;
            } else {
                // If the state has changed meanwhile we look again.
                directory::change(entry, seen, seen.with(UNDRAINED, 0));
            }
        }
    }

    /// Whether something waits for which nobody will come: it has come back after the last receiver went.
    fn is_for_nobody(&self, index: usize, seen: EntryState) -> bool {
        seen.has(RECEIVERS_GONE) && !End::Receiver.any(self.directory().entry(index)) && self.has_queued(index)
    }

    /// Whether messages wait in a channel that the caller has pinned.
    fn has_queued(&self, index: usize) -> bool {
        self.directory().kind(index) == Kind::Channel
            && (self.ring_of(index).is_some_and(|ring| ring.is_filled_now())
                || self.recall_of(index).is_some_and(|recall| recall.has_any()))
    }

    /// E6: frees what waits in a channel that was seen UNDRAINED in that state. How many messages.
    fn drain(&self, index: usize, seen: EntryState) -> usize {
        let entry = self.directory().entry(index);
        let Some(ring) = self.ring_of(index) else {
            // Garbage: nothing is to be had.
            directory::change(entry, seen, seen.with(0, UNDRAINED));
            return 0;
        };
        let recall = self.recall_of(index);
        let mut freed = 0;
        let drained = match &recall {
            None => {
                let until = ring.seal();
                // What is before that was sent to nobody who is there, if the state is the same still.
                let is_ours = directory::state(entry) == seen;
                if is_ours {
                    freed += self.drain_ring(&ring, until);
                }
                is_ours
            }
            Some(recall) => self.drain_recall(entry, seen, &ring, recall, &mut freed),
        };
        if drained {
            directory::change(entry, seen, seen.with(0, UNDRAINED));
        }
        freed
    }

    fn drain_ring(&self, ring: &Ring, until: u64) -> usize {
        let position = Position::new(ring.head_hint());
        let mut freed = 0;
        while let Some(received) = self.with_worker(|worker| {
            transfer::receive_before(self.allocator(), ring, &position, &worker.lane, until, || {})
        }) {
            self.free(received.block);
            freed += 1;
        }
        freed
    }

    fn drain_recall(
        &self,
        entry: &ChannelEntry,
        seen: EntryState,
        ring: &Ring,
        recall: &Recall,
        freed: &mut usize,
    ) -> bool {
        let levels: Vec<(Ring, u64)> = recall.rings(ring).into_iter().map(|ring| (ring, ring.seal())).collect();
        let returned = self.returned_now(recall);
        let before = recall.retry().seal();
        if directory::state(entry) != seen {
            return false;
        }
        let all = levels.into_iter().map(|(ring, until)| (ring, until, false));
        for (ring, until, came_back) in all.chain([(*recall.retry(), before, true)]) {
            let position = Position::new(ring.head_hint());
            while let Some(received) =
                self.with_worker(|worker| self.receive_before(&ring, &position, &worker.lane, came_back, until))
            {
                self.acknowledge(received.block, None);
                *freed += 1;
            }
        }
        // What another has taken out, and not freed yet, it may leave: then it is found anew.
        let left = returned.1.len();
        let taken = self.free_returned(recall, returned);
        *freed += taken;
        taken == left
    }
}
