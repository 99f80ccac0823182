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
//! The slot's second word is `tag:48 | used:15 | waits:1`: the client counts the parts of a stream that it has used, and the server
//! says by [`WAITS`] that it waits for that.
//!
//! **Every word of a slot names its call, and is changed by CAS from that**, but for the two stores by which the client begins the
//! next one. So a server that was stopped in the middle, and goes on when the slot has another call, changes nothing: were
//! `waits` to go for that one, its server and the client would both sleep, and nobody would look. `docs/models/slate.py` shows it.
//!
//! There are never more parts unused than [`WINDOW`](super::WINDOW), so 15 bits of a count are enough to tell how many.

// Models use a part of it.
#![cfg_attr(loom, allow(dead_code))]

use crate::{
    region::slot::Slot,
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
/// In the second word of a slot: the server waits.
const WAITS: u64 = 1;
/// One part that was used.
const PART: u64 = 2;
/// What is below the tag.
const BELOW: u64 = 0xffff;

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
            slot.count.store(call.tag << 16, Ordering::Relaxed);
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

    /// Changes what the second word says of the call. What it said before; `None` if the slot has another call by now.
    fn change(&self, call: CallId, change: impl Fn(u64) -> u64) -> Option<u64> {
        let is_its = |word: u64| word >> 16 == call.tag;
        let changed = |word| is_its(word).then(|| call.tag << 16 | change(word) & BELOW);
        // Ordering: SeqCst: {count, look who waits} against {say that I wait, look at the count}.
        self.0.get(call.slot)?.count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, changed).ok()
    }

    /// The client has used one more part. How many it has used, in 15 bits, and whether the server waits.
    pub(super) fn use_part(&self, call: CallId) -> (u64, bool) {
        let before = self.change(call, |word| word.wrapping_add(PART)).unwrap_or(0);
        ((before.wrapping_add(PART) & BELOW) / PART, before & WAITS != 0)
    }

    /// The server waits no more.
    pub(super) fn wait_no_more(&self, call: CallId) {
        self.change(call, |word| word & !WAITS);
    }

    /// Of so many parts that were sent, how many the client has not used yet. None, if it is at another call.
    pub(super) fn unused(&self, call: CallId, sent: u64) -> u64 {
        let word = self.0.get(call.slot).map(|slot| slot.count.load(Ordering::Acquire));
        word.filter(|word| word >> 16 == call.tag).map_or(0, |word| unused(word, sent))
    }

    /// The same, and says that the server waits for parts to be used.
    pub(super) fn wait(&self, call: CallId, sent: u64) -> u64 {
        self.change(call, |word| word | WAITS).map_or(0, |word| unused(word, sent))
    }
}

fn unused(word: u64, sent: u64) -> u64 {
    sent.wrapping_sub((word & BELOW) / PART) & (BELOW / PART)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{
        region::slot::Slot,
        sys::{shared::SharedSlice, sync::AtomicU64},
    };

    fn slate() -> Slate {
        Slate(SharedSlice::leak(vec![Slot { word: AtomicU64::new(0), count: AtomicU64::new(0) }]))
    }

    #[test]
    fn however_many_parts_were_used_the_tag_stays_and_what_is_unused_is_known() {
        let (slate, call) = (slate(), CallId::new(5, 0));
        slate.begin(call);
        for sent in 1..100_000 {
            assert_eq!(slate.wait(call, sent), 1);
            assert_eq!(slate.use_part(call), (sent & 0x7fff, true));
            slate.wait_no_more(call);
            assert_eq!(slate.unused(call, sent), 0);
        }
    }

    #[test]
    fn who_comes_late_finds_another_call_and_changes_nothing() {
        let (slate, late, now) = (slate(), CallId::new(5, 0), CallId::new(6, 0));
        slate.begin(late);
        slate.begin(now);
        assert_eq!(slate.wait(now, 16), 16);
        slate.wait_no_more(late);
        assert_eq!(slate.wait(late, 16), 0);
        assert_eq!(slate.unused(late, 16), 0);
        assert_eq!(slate.use_part(late), (1, false));
        assert_eq!(slate.use_part(now), (1, true));
        assert!(!slate.turn(late, Mark::Wanted, Mark::Taken) && slate.turn(now, Mark::Wanted, Mark::Taken));
    }
}
