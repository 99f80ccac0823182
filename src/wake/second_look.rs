//! R11, the second look: what becomes of a wake that was told to a process which does not react.
//!
//! A process that is stopped cannot say so, and whoever tells it of work sees only that it has been
//! told. Where nobody else waits that harms nobody: who comes later tries before it sleeps. Where
//! others wait, one of them should have been told instead. So a waker that tells one of several
//! leaves a *duty* to its own bridge, and the bridge looks again after [`SECOND_LOOK`]: if there is
//! still something to do and somebody who has not been told, it tells [`FACTOR`] more, then
//! [`FACTOR`] times as many with every further look. After [`LOOKS`] looks everybody has been told,
//! and whoever of them runs takes what there is.
//!
//! The duty is a bit per topic in this process's own memory, and `state` says whether the bridge
//! knows that there are any:
//!
//! | state | meaning | changed by |
//! |---|---|---|
//! | `IDLE` | the bridge has looked at all bits since, and will not look again by itself | the bridge, *before* it looks |
//! | `RUNG` | there is a bit that the bridge has no time set for | a waker, which then rings |
//! | `SCHEDULED` | the bridge will look at all bits that are set by then | the bridge |
//!
//! {set a bit, load the state} against {make it `IDLE`, take the bits}: a waker that finds
//! `SCHEDULED` has its bit seen by the look to come. So however many wakes there are, the bridge is
//! woken once, and looks once in [`SECOND_LOOK`]; where nobody has been told, or nobody else waits,
//! there is no timer.
//!
//! The spread is what bounds the delay: with one more for each look, nine that are stopped would
//! cost ten looks; so 84 are covered by three, and 1,024 by [`LOOKS`].
//!
//! *Who leaves hands its duties on*: it tells everybody at once where the one that it has told last
//! has not taken notice yet. *Who dies* has a reaper, which wakes everybody. *Who is stopped* with
//! a duty has counted it before it told anybody (`tells`, one word for the segment): by that the
//! watchdogs of those who wait know that there is something to look for (R9).

#[cfg(not(loom))]
use std::time::Instant;
use std::{collections::HashMap, sync::atomic::AtomicU16 as IndexShort, time::Duration};

use crate::{
    sys::sync::{AtomicU32, AtomicU64, Ordering},
    wake::{Hub, Parked, Topic, doorbell},
};

/// After what time a bridge looks whether a wake has led to something. A process that runs takes
/// notice within some ten microseconds, and within some milliseconds where processors are scarce;
/// who is woken without need costs some microseconds.
pub(super) const SECOND_LOOK: Duration = Duration::from_millis(10);
/// How many more are told with the first look, and how many times as many with each that follows.
const FACTOR: usize = 4;
/// So many looks tell all the participants that there may be.
const LOOKS: u32 = 5;
const _: () = assert!(FACTOR.pow(LOOKS) >= crate::region::layout::MAX_PARTICIPANTS as usize);

pub(super) const IDLE: u32 = 0;
pub(super) const RUNG: u32 = 1;
pub(super) const SCHEDULED: u32 = 2;

/// What the bridge of this process has to look at again. See the module.
pub(super) struct Duties {
    topics: Box<[AtomicU64]>,
    /// Per topic whom a waker of this process has told last. Any value is fine.
    told: Box<[IndexShort]>,
    pub(super) state: AtomicU32,
}

impl Duties {
    pub(super) fn new(pending_words: usize) -> Self {
        Self {
            topics: (0..pending_words).map(|_| AtomicU64::new(0)).collect(),
            told: (0..64 * pending_words).map(|_| IndexShort::new(0)).collect(),
            state: AtomicU32::new(IDLE),
        }
    }

    /// Whether the bridge must set a time before it sleeps.
    pub(super) fn are_new(&self) -> bool {
        self.state.load(Ordering::SeqCst) == RUNG
    }

    fn add(&self, topic: Topic) {
        if let Some(word) = self.topics.get(topic.0 as usize / 64) {
            // Ordering: SeqCst: {set a bit, load the state} against {make it IDLE, take the bits}.
            word.fetch_or(1 << (topic.0 % 64), Ordering::SeqCst);
            super::fence_for_models();
        }
    }

    /// Takes a word's bits, one after the other, each when its turn comes: what is left undone
    /// stays.
    pub(super) fn take(&self, index: usize) -> impl Iterator<Item = Topic> + '_ {
        let word = &self.topics[index];
        let mut bits = word.load(Ordering::SeqCst);
        std::iter::from_fn(move || {
            let bit = bits & bits.wrapping_neg();
            bits &= !bit;
            (bit != 0).then(|| {
                // Ordering: SeqCst: before the look. Who sets it again from here on has a look of
                // its own.
                word.fetch_and(!bit, Ordering::SeqCst);
                Topic(index as u32 * 64 + bit.trailing_zeros())
            })
        })
    }

    fn told(&self, topic: Topic) -> u16 {
        self.told.get(topic.0 as usize).map_or(0, |told| told.load(Ordering::Relaxed))
    }
}

/// The bridge's part: when it looks, and how often it has looked at what without end.
#[derive(Debug, Default)]
pub(super) struct Looks {
    #[cfg(not(loom))]
    due: Option<Instant>,
    series: HashMap<Topic, u32>,
}

impl Looks {
    /// How long the bridge may sleep, as far as duties go.
    #[cfg(not(loom))]
    pub(super) fn left(&mut self, hub: &Hub) -> Option<Duration> {
        if self.due.is_none() && self.schedule(hub) {
            self.due = Some(Instant::now() + SECOND_LOOK);
        }
        self.due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// Looks, if it is time to; `false` if it is over.
    #[cfg(not(loom))]
    pub(super) fn look(&mut self, hub: &Hub) -> bool {
        if self.due.is_none_or(|due| Instant::now() < due) {
            return true;
        }
        self.due = None;
        let goes_on = self.look_at_all(hub);
        if !self.series.is_empty() {
            hub.duties.state.store(SCHEDULED, Ordering::SeqCst);
            self.due = Some(Instant::now() + SECOND_LOOK);
        }
        goes_on
    }

    /// Whether there is something to look at. Then who comes from here on need not ring.
    pub(super) fn schedule(&self, hub: &Hub) -> bool {
        hub.duties.are_new() && {
            hub.duties.state.store(SCHEDULED, Ordering::SeqCst);
            true
        }
    }

    /// Looks at all that there is by now; `false` if it is over.
    pub(super) fn look_at_all(&mut self, hub: &Hub) -> bool {
        // Ordering: SeqCst: before the bits are taken.
        hub.duties.state.store(IDLE, Ordering::SeqCst);
        super::fence_for_models();
        let mut before = std::mem::take(&mut self.series);
        for index in 0..hub.duties.topics.len() {
            for topic in hub.duties.take(index) {
                let looks = before.remove(&topic).unwrap_or(0) + 1;
                let mut told = false;
                hub.outside(|| told = hub.look_again(topic, FACTOR.pow(looks)));
                // A waker may have dropped the last handle, and the segment with it.
                if hub.is_stopped() {
                    return false;
                }
                if told && looks < LOOKS {
                    self.series.insert(topic, looks);
                    hub.duties.add(topic);
                }
            }
        }
        true
    }
}

impl Hub {
    /// R4: tells one of those who are parked. `true` if that one will look for what there is to do,
    /// and has not been told before. `is_duty`: if it does not, and others wait, they are told by
    /// and by.
    pub(super) fn tell_one_of(&self, parked: &Parked, participant: u16, topic: Topic, is_duty: bool) -> bool {
        // An old mark does not count.
        if self.is_marked(participant, topic) {
            self.tell(participant, topic);
            return false;
        }
        let is_duty = is_duty && !parked.all(|other| other == participant || self.is_marked(other, topic));
        if is_duty {
            // Ordering: SeqCst: counted before anybody is told. Whoever is stopped from here on
            // leaves a number that others see.
            self.tells.fetch_add(1, Ordering::SeqCst);
        }
        if !self.tell(participant, topic) {
            return false;
        }
        super::fence_for_models();
        // Ordering: SeqCst: {set pending, load parked} against {clear parked, take pending} of one
        // that leaves: it passes the mark on, or we see that it is gone.
        if !parked.contains(participant) {
            return false;
        }
        if is_duty {
            self.take_duty(participant, topic);
        }
        true
    }

    /// R11: a waker of this process has told one of several.
    fn take_duty(&self, told: u16, topic: Topic) {
        if let Some(last) = self.duties.told.get(topic.0 as usize) {
            // Ordering: Relaxed: whoever reads another one looks at the mark of somebody else who
            // was told of this.
            last.store(told, Ordering::Relaxed);
        }
        self.duties.add(topic);
        // Ordering: SeqCst: as for the bit. Most of the time the bridge knows already.
        if self.duties.state.load(Ordering::SeqCst) == IDLE
            && self.duties.state.compare_exchange(IDLE, RUNG, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        {
            doorbell::ring(&self.slots[usize::from(self.me)].doorbell);
        }
    }

    /// R11: tells so many more, if there is something to do still; `false` if there is not, or if
    /// all have been told.
    fn look_again(&self, topic: Topic, most: usize) -> bool {
        if let Some(queue) = self.find(topic) {
            return queue.wake_more(most);
        }
        // Nobody here knows whether there is something to do, only whether who was told has taken
        // notice.
        let Some(parked) = (self.parked_of)(topic).filter(|_| self.is_marked(self.duties.told(topic), topic)) else {
            return false;
        };
        self.tell_others(topic, &parked, most)
    }

    /// Tells so many more of those who are parked in other processes; `false` if all have been
    /// told.
    fn tell_others(&self, topic: Topic, parked: &Parked, most: usize) -> bool {
        let others = parked.from(usize::from(self.me)).filter(|participant| *participant != self.me);
        others.filter(|participant| self.tell_one_of(parked, *participant, topic, false)).take(most).count() > 0
    }

    /// R6: a mark of a topic of which this process has no queue any more is for somebody else.
    pub(super) fn pass_on(&self, topic: Topic) {
        if let Some(parked) = (self.parked_of)(topic) {
            self.wake_elsewhere(topic, &parked);
        }
    }

    /// R4, for who has no queue of the topic.
    pub(super) fn wake_elsewhere(&self, topic: Topic, parked: &Parked) {
        for participant in parked.from(usize::from(self.me)) {
            if participant != self.me && self.tell_one_of(parked, participant, topic, true) {
                return;
            }
        }
    }

    /// R7 and R8: a participant is gone, dead or in good order, and is parked nowhere any more.
    /// What it was told is told to everybody else who waits for it: nobody can look again whether
    /// one of them reacts.
    pub(crate) fn hand_on_marks(&self, participant: u16) {
        for (index, word) in self.pending_of(participant).iter().enumerate() {
            // Ordering: SeqCst: {clear parked, take pending} against {set pending, load parked}.
            let mut marks = word.swap(0, Ordering::SeqCst);
            while marks != 0 {
                let topic = Topic(index as u32 * 64 + marks.trailing_zeros());
                marks &= marks - 1;
                if topic == self.watch_topic() {
                    // Of whoever died in our place, or for our bridge, which looks anew in either case.
                    if participant == self.me {
                        self.watch_anew.store(true, Ordering::SeqCst);
                        #[cfg(not(loom))]
                        self.insist();
                    }
                    continue;
                }
                if let Some(parked) = (self.parked_of)(topic) {
                    self.tell_others(topic, &parked, usize::MAX);
                }
            }
        }
    }

    /// R11: this process leaves, and its bridge has ended. Where somebody has not taken notice yet,
    /// everybody is told.
    pub(crate) fn hand_on_duties(&self) {
        for index in 0..self.duties.topics.len() {
            for topic in self.duties.take(index) {
                if self.is_marked(self.duties.told(topic), topic)
                    && let Some(parked) = (self.parked_of)(topic)
                {
                    self.tell_others(topic, &parked, usize::MAX);
                }
            }
        }
    }
}
