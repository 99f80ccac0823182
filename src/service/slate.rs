//! The slate: what a client and a server say to each other about a call without a message.
//!
//! It stands behind the ring of the client's channel of responses, with a slot for each call that the client may have in flight. A
//! call's number is `tag:48 | slot:16`, and a slot's word `tag:48 | mark:16`: whoever comes late with an old tag finds another
//! one and changes nothing, for every change but the client's own is a CAS from the mark that it expects.
//!
//! | mark | who writes it | then |
//! |---|---|---|
//! | `Wanted` | the client, when the call begins | a server may take it |
//! | `Taken` | the server that has received the request, from `Wanted` | it works on it |
//! | `Late` | the same, from `Wanted`: the deadline had passed | the request is freed |
//! | `Unanswered` | the server, from `Taken`: it will not answer | the request is freed |
//! | `Again` | the same: it could not, another one may | the request is freed |
//! | `Ended` | the same: there are no more responses | the request is freed |
//! | `Over` | the client, from anything: it wants no more | the server is told |
//!
//! The slot's second word counts the parts of a stream that the client has used, above [`WAITS`], by which the server says that it
//! waits for that.

// Models use a part of it.
#![cfg_attr(loom, allow(dead_code))]

use crate::{
    segment::slot::Slot,
    sys::{shared::SharedSlice, sync::Ordering},
};

/// What stands in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Wanted = 1,
    Taken = 2,
    Late = 3,
    Unanswered = 4,
    Again = 5,
    Ended = 6,
    Over = 7,
}

/// A call of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallId {
    pub(super) tag: u64,
    pub(super) slot: usize,
}

/// The most calls that a client may have in flight.
pub(super) const MOST_CALLS: usize = 1 << 15;
const TAG: u64 = (1 << 48) - 1;
/// In the second word of a slot: the server waits. The count is above it.
const WAITS: u64 = 1;

impl CallId {
    pub(super) fn new(tag: u64, slot: usize) -> Self {
        Self { tag: tag & TAG, slot }
    }

    pub(super) fn of(number: u64) -> Self {
        Self { tag: number >> 16, slot: (number & 0xffff) as usize }
    }

    pub(super) fn number(self) -> u64 {
        self.tag << 16 | self.slot as u64
    }

    fn word(self, mark: Mark) -> u64 {
        self.tag << 16 | mark as u64
    }
}

/// A view of a client's slate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slate(pub(super) SharedSlice<Slot>);

impl Slate {
    /// A call begins. The client's.
    pub(super) fn begin(&self, call: CallId) {
        if let Some(slot) = self.0.get(call.slot) {
            slot.count.store(0, Ordering::Relaxed);
            // Ordering: Release, with the Acquire of `turn`: the count is that of this call.
            slot.word.store(call.word(Mark::Wanted), Ordering::Release);
        }
    }

    /// The client wants no more. To be followed by a nudge, if the server may be at it.
    pub(super) fn end(&self, call: CallId) {
        if let Some(slot) = self.0.get(call.slot) {
            // Ordering: Release, and the nudge has a fence. Loom does not know that a store comes after a CAS that has not seen
            // it, and lets it be overlooked for ever; so models change the word.
            #[cfg(not(loom))]
            slot.word.store(call.word(Mark::Over), Ordering::Release);
            #[cfg(loom)]
            slot.word.swap(call.word(Mark::Over), Ordering::AcqRel);
        }
    }

    /// What a server has made of the call. `None`: nothing.
    pub(super) fn verdict(&self, call: CallId) -> Option<Mark> {
        // Ordering: Acquire, though whoever asks has seen the request's block freed, which comes later.
        let word = self.0.get(call.slot)?.word.load(Ordering::Acquire);
        [Mark::Taken, Mark::Late, Mark::Unanswered, Mark::Again, Mark::Ended]
            .into_iter()
            .find(|mark| call.word(*mark) == word)
    }

    /// Turns one mark of the call into another; `false` if it has another mark, or the client is at another call.
    pub(super) fn turn(&self, call: CallId, from: Mark, to: Mark) -> bool {
        self.0.get(call.slot).is_some_and(|slot| {
            let (from, to) = (call.word(from), call.word(to));
            slot.word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })
    }

    /// Whether a server is at it, and the client still wants it.
    pub(super) fn is_wanted(&self, call: CallId) -> bool {
        // Ordering: SeqCst: who waits for it has registered before it looks.
        self.0.get(call.slot).is_some_and(|slot| slot.word.load(Ordering::SeqCst) == call.word(Mark::Taken))
    }

    /// The client has used one more part. How many it has used, and whether the server waits, which it does not any more.
    pub(super) fn use_part(&self, call: CallId) -> (u64, bool) {
        let Some(slot) = self.0.get(call.slot) else { return (0, false) };
        // Ordering: SeqCst: {count, look who waits} against {say that I wait, look at the count}.
        let before = slot.count.fetch_add(2, Ordering::SeqCst);
        (before / 2 + 1, before & WAITS != 0)
    }

    /// The server waits no more.
    pub(super) fn wait_no_more(&self, call: CallId) {
        if let Some(slot) = self.0.get(call.slot) {
            slot.count.fetch_and(!WAITS, Ordering::SeqCst);
        }
    }

    /// Parts that the client has used.
    pub(super) fn used(&self, call: CallId) -> u64 {
        self.0.get(call.slot).map_or(0, |slot| slot.count.load(Ordering::Acquire) / 2)
    }

    /// Says that the server waits for parts to be used, and returns how many were used by then.
    pub(super) fn wait(&self, call: CallId) -> u64 {
        self.0.get(call.slot).map_or(0, |slot| slot.count.fetch_or(WAITS, Ordering::SeqCst) / 2)
    }
}
