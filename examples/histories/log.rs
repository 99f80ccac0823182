//! What actors have done: each writes into its own part of memory that the parent shares, so that it is still there when its
//! process is killed. And how they meet, wait for each other, and know that nothing will happen any more.
//!
//! Time is a counter that all share: of two accesses to it the order is known, which is all that the judges need.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use memmap2::MmapMut;

use crate::program::MOST_ACTORS;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Act {
    OpenSender,
    OpenReceiver,
    DropSender,
    DropReceiver,
    Put,
    Take,
    Reserve,
    EndPermit,
    /// Counts for as long as it waits.
    InLine,
    Nack,
    Close,
    /// Of a service.
    Call,
    Respond,
    /// Something is wrong by itself: the outcome says what.
    Wrong,
}

const ACTS: [Act; 14] = [
    Act::OpenSender,
    Act::OpenReceiver,
    Act::DropSender,
    Act::DropReceiver,
    Act::Put,
    Act::Take,
    Act::Reserve,
    Act::EndPermit,
    Act::InLine,
    Act::Nack,
    Act::Close,
    Act::Call,
    Act::Respond,
    Act::Wrong,
];

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Outcome {
    /// It never ended: the process was killed.
    None,
    Ok,
    Full,
    Empty,
    Closed,
    Lagged,
    GaveUp,
    Refused,
    // What is wrong by itself.
    Damaged,
    Deaf,
    Unexpected,
}

const OUTCOMES: [Outcome; 11] = [
    Outcome::None,
    Outcome::Ok,
    Outcome::Full,
    Outcome::Empty,
    Outcome::Closed,
    Outcome::Lagged,
    Outcome::GaveUp,
    Outcome::Refused,
    Outcome::Damaged,
    Outcome::Deaf,
    Outcome::Unexpected,
];

/// The end of what never ended.
pub(crate) const NEVER: u64 = u64::MAX;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) actor: usize,
    pub(crate) start: u64,
    /// [`NEVER`] if the process was killed before.
    pub(crate) end: u64,
    pub(crate) act: Act,
    pub(crate) outcome: Outcome,
    pub(crate) object: usize,
    /// Of the sender or receiver.
    pub(crate) handle: u64,
    /// The message, or the permit.
    pub(crate) id: u64,
    /// What else the act has to say: a delivery count, a capacity, how many.
    pub(crate) more: u64,
    /// When the first of those began that looked for the same in vain, one after the other.
    pub(crate) since: u64,
}

impl Event {
    pub(crate) fn is(&self, act: Act, outcome: Outcome) -> bool {
        self.act == act && self.outcome == outcome
    }
}

const RECORD: usize = 7;
const RECORDS: usize = 1 << 14;
/// Words before the records: the clock, where actors meet, and a line for each actor.
const HEAD: usize = 8 + 8 * (MOST_ACTORS + 1);
const WORDS: usize = HEAD + MOST_ACTORS * RECORD * RECORDS;

const CLOCK: usize = 0;
const MEETING: usize = 1;
const SETTLED: usize = 2;
const ENOUGH: usize = 3;
// Of each actor.
const PHASE: usize = 0;
const IDLE: usize = 1;
const COUNT: usize = 2;

/// Whoever kills and stops the others, and takes part in the phases until that is over.
pub(crate) const PARENT: usize = MOST_ACTORS;
/// The phase of who is dead, or done.
pub(crate) const GONE: u64 = u64::MAX;

pub(crate) struct Log(MmapMut);

impl Log {
    /// In memory of this process.
    pub(crate) fn anonymous() -> std::io::Result<Self> {
        Ok(Self(MmapMut::map_anon(8 * WORDS)?))
    }

    /// In a file, which is made if it is not there.
    pub(crate) fn shared(path: &Path) -> std::io::Result<Self> {
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        file.set_len(8 * WORDS as u64)?;
        // SAFETY: all who map it use it as atomic words, and nobody makes it shorter.
        Ok(Self(unsafe { MmapMut::map_mut(&file)? }))
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < WORDS);
        // SAFETY: within the map (checked), which is aligned to pages; everybody uses atomics.
        unsafe { &*self.0.as_ptr().cast::<AtomicU64>().add(index) }
    }

    fn of_actor(&self, actor: usize, word: usize) -> &AtomicU64 {
        self.word(8 + 8 * actor + word)
    }

    /// For the next history.
    pub(crate) fn reset(&self, actors: usize) {
        for index in 0..HEAD {
            self.word(index).store(0, SeqCst);
        }
        for actor in actors..=MOST_ACTORS {
            self.of_actor(actor, PHASE).store(GONE, SeqCst);
        }
    }

    pub(crate) fn tick(&self) -> u64 {
        self.word(CLOCK).fetch_add(1, SeqCst) + 1
    }

    /// Where it stands: whether anything has happened.
    pub(crate) fn now(&self) -> u64 {
        self.word(CLOCK).load(SeqCst)
    }

    /// How many have come to meet somebody.
    pub(crate) fn meeting(&self) -> &AtomicU64 {
        self.word(MEETING)
    }

    pub(crate) fn enter(&self, actor: usize, phase: u64) {
        self.of_actor(actor, PHASE).store(phase, SeqCst);
    }

    pub(crate) fn have_all_entered(&self, phase: u64) -> bool {
        (0..=MOST_ACTORS).all(|actor| self.of_actor(actor, PHASE).load(SeqCst) >= phase)
    }

    /// All that there was is received by now. Whoever says so first is right.
    pub(crate) fn settle(&self) {
        let _ = self.word(SETTLED).compare_exchange(0, self.tick(), SeqCst, SeqCst);
    }

    pub(crate) fn settled(&self) -> u64 {
        self.word(SETTLED).load(SeqCst)
    }

    pub(crate) fn set_idle(&self, actor: usize, is_idle: bool) {
        self.of_actor(actor, IDLE).store(u64::from(is_idle), SeqCst);
    }

    /// Nobody does anything: all wait, or wait for the next phase.
    pub(crate) fn is_quiet(&self, phase: u64) -> bool {
        (0..=MOST_ACTORS).all(|actor| {
            self.of_actor(actor, IDLE).load(SeqCst) == 1 || self.of_actor(actor, PHASE).load(SeqCst) > phase
        })
    }

    fn record(&self, actor: usize, record: usize, word: usize) -> &AtomicU64 {
        self.word(HEAD + (actor * RECORDS + record) * RECORD + word)
    }

    /// Something is wrong: there is no need to go on.
    pub(crate) fn stop(&self) {
        self.word(ENOUGH).store(1, SeqCst);
    }

    /// Whether the actor has done enough.
    pub(crate) fn is_enough(&self, actor: usize) -> bool {
        self.word(ENOUGH).load(SeqCst) == 1 || self.of_actor(actor, COUNT).load(SeqCst) as usize > RECORDS / 2
    }

    /// Of the actor that calls it.
    pub(crate) fn begin(&self, actor: usize, act: Act, object: usize, handle: u64, id: u64) -> usize {
        let count = self.of_actor(actor, COUNT);
        let record = count.load(SeqCst) as usize;
        assert!(record < RECORDS, "an actor has done too much");
        let what = (act as u64) << 16 | object as u64;
        for (word, value) in [0, 0, what, handle, id, 0, 0].into_iter().enumerate() {
            self.record(actor, record, word).store(value, SeqCst);
        }
        let start = self.tick();
        [0, 6].into_iter().for_each(|word| self.record(actor, record, word).store(start, SeqCst));
        count.store(record as u64 + 1, SeqCst);
        record
    }

    pub(crate) fn end(&self, actor: usize, record: usize, outcome: Outcome, id: u64, more: u64) {
        let end = self.tick();
        let what = self.record(actor, record, 2);
        what.store(what.load(SeqCst) | (outcome as u64) << 24, SeqCst);
        self.record(actor, record, 4).store(id, SeqCst);
        self.record(actor, record, 5).store(more, SeqCst);
        self.record(actor, record, 1).store(end, SeqCst);
        // Who looks for the same in vain again and again fills no log.
        if record > 0 && matches!(outcome, Outcome::Empty | Outcome::Full) {
            let same = |word| {
                self.record(actor, record, word).load(SeqCst) == self.record(actor, record - 1, word).load(SeqCst)
            };
            if same(2) && same(3) && same(5) && self.of_actor(actor, COUNT).load(SeqCst) as usize == record + 1 {
                // The last one is kept, and since when.
                for word in 0..RECORD - 1 {
                    self.record(actor, record - 1, word).store(self.record(actor, record, word).load(SeqCst), SeqCst);
                }
                self.of_actor(actor, COUNT).store(record as u64, SeqCst);
            }
        }
    }

    /// Whether any actor has done this, and is done with it.
    pub(crate) fn has_done(&self, act: Act, outcome: Outcome, id: u64) -> bool {
        (0..MOST_ACTORS).any(|actor| {
            (0..self.of_actor(actor, COUNT).load(SeqCst) as usize).any(|record| {
                let word = |word| self.record(actor, record, word).load(SeqCst);
                let what = word(2);
                word(1) != 0 && word(4) == id && what >> 16 & 0xff == act as u64 && what >> 24 == outcome as u64
            })
        })
    }

    /// Where all stand: for who hangs.
    pub(crate) fn state(&self) -> String {
        let actors = (0..=MOST_ACTORS).map(|actor| {
            let word = |word| self.of_actor(actor, word).load(SeqCst);
            format!("actor {actor}: phase {}, idle {}, {} acts", word(PHASE) as i64, word(IDLE), word(COUNT))
        });
        let events = self.events(MOST_ACTORS);
        let open = events.iter().filter(|event| event.end == NEVER);
        let last = events.iter().rev().take(20);
        let acts = open.chain(last).map(|event| format!("{event:?}"));
        actors.chain(acts).collect::<Vec<_>>().join("\n  ")
    }

    /// All that was done, in the order in which it was begun.
    pub(crate) fn events(&self, actors: usize) -> Vec<Event> {
        let mut events = Vec::new();
        for actor in 0..actors {
            for record in 0..self.of_actor(actor, COUNT).load(SeqCst) as usize {
                let word = |word| self.record(actor, record, word).load(SeqCst);
                let (what, end) = (word(2), word(1));
                let is_over = end != 0;
                events.push(Event {
                    actor,
                    start: word(0),
                    end: if is_over { end } else { NEVER },
                    act: ACTS[(what >> 16 & 0xff) as usize],
                    outcome: if is_over { OUTCOMES[(what >> 24) as usize] } else { Outcome::None },
                    object: (what & 0xffff) as usize,
                    handle: word(3),
                    id: word(4),
                    more: word(5),
                    since: word(6),
                });
            }
        }
        events.sort_by_key(|event| event.start);
        events
    }
}
