//! The word: the only truth about a granule.
//!
//! `state:4 | owner:14 | len:22 | generation:24`, most significant first; one `AtomicU64` per granule, out of line.
//!
//! | state | owner | len | who may write the word |
//! |---|---|---|---|
//! | `Interior` | – | – | the owner of the block that covers the granule |
//! | `Free` | – | granules | anybody, by a CAS of the whole word |
//! | `Claimed` | lane | granules | that lane; its reaper |
//! | `Allocated` | lane | granules | that lane's participant; its reaper |
//! | `Cached` | magazine | granules | anybody, by a CAS of the whole word |
//! | `InFlight` | sending lane, a reaper that looks, or nobody | granules | who puts it into a ring, if it is refused; who took it out; a reaper, by CAS |
//! | `End` | – | granules back | the owner of the block that ends here; others by CAS over `Interior` or `End`; advisory |
//! | `Sentinel` | – | – | nobody while it stands after the last granule; whoever grows the sector, by CAS |
//! | `Shared` | lane | granules | anybody, by CAS to `Doomed`; its reaper. A user's block, see [`crate::blocks`] |
//! | `Promised` | as `InFlight` | granules | as `InFlight`, which it is in a channel whose messages come back: see [`Trailer`](crate::ring::transfer::Trailer) |
//! | `Received` | lane | granules | that lane's participant; its reaper. A message of such a channel, received and not acknowledged |
//! | `Returned` | nobody, or who takes it | granules | receivers of its channel, by CAS to `Promised`. Such a message for which the retry ring had no room |
//! | `Doomed` | nobody, or who looks | granules | who sees that nobody is in it, by CAS. A user's block that was freed |
//! | `Loose` | lane | granules | anybody, by a CAS of the whole word; its reaper. A raw block that was given away by its handle |
//!
//! # Generations
//!
//! The generation is a granule's own and only rises (modulo 2²⁴): a handle is a granule and a generation, so that a
//! stale one is told from a fresh one. A block has another one after it
//!
//! * was freed, merged, carved or split;
//! * was taken by its handle ([`take_loose`](crate::alloc::Allocator::take_loose));
//! * came back, to its channel or among the dead letters ([`put_back`](crate::ring::transfer::put_back));
//! * was **sent on** by who had received it, or sent **again** by who was refused: that sender says IN_FLIGHT under the next
//!   generation, and a block that is refused keeps it. A new block is sent first under the generation that it has.
//!
//! So a block is given away, or on its way, once under each of its generations: **no word by which others may get at a block says
//! the same twice**, until the generations have come round. That takes 16.7 million lives and flights of one block, about a
//! second, and whoever reads a word and changes it later may be stopped for longer. So nothing that befalls a message rests on it.
//! Whoever changes a word that is not its own, from what it has read before, has one of these reasons why that is still what
//! it means:
//!
//! | who | from | why |
//! |---|---|---|
//! | who allocates, merges or grows | `Free` | nothing else is asked of it than that it is free now, and so long |
//! | who has the handle of a raw block | `Loose` | the same: it has that generation now |
//! | a reaper, of what the dead have | `Claimed`, `Allocated`, `Loose`, `InFlight`, `Promised`, `Received` by a lane of the dead; `Cached` in a magazine of the dead | nobody else ever writes a word with that owner |
//! | a reaper, of what the dead took or sent | `InFlight`, `Promised` by anybody | it puts its **own lane** into the word, which nobody else ever does, looks once more, and changes only that: [`judge`](crate::ring::transfer::judge) |
//! | a receiver, of what had no room | `Returned` | its own lane, the same: [`take_returned`](crate::ring::transfer::take_returned) |
//! | who frees a user's block that was doomed | `Doomed` | its own lane, the same: rule G4 of [`guard`](crate::blocks::guard) |
//! | who dooms, adopts or hands over a user's block | `Shared` | its intent keeps the block from being freed (G1) |
//! | who drains others' magazines | `Cached` | the generation: nobody has taken the block out and put it back since. Not after 2²⁴ times |
//! | a reaper, of ranges that no head covers | what is no head | two looks that have seen the same generations, with the intents between them. Not after 2²⁴ changes |
//!
//! `docs/models/ring.py` has generations that come round, and shows what happens without the mark, and with neither.

use crate::region::lanes::LaneId;

/// What a granule is. `Damaged` is what no code ever writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    Interior = 0,
    Free = 1,
    Claimed = 2,
    Allocated = 3,
    Cached = 4,
    InFlight = 5,
    End = 6,
    Sentinel = 7,
    Shared = 8,
    Doomed = 9,
    Loose = 10,
    Promised = 11,
    Received = 12,
    Returned = 13,
    Damaged = 15,
}

/// The value of a word. See the table at the top of this module.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) u64);

const GENERATION: u64 = (1 << 24) - 1;
const LEN: u64 = (1 << 22) - 1;
const OWNER: u64 = (1 << 14) - 1;

impl Word {
    #[inline(always)]
    pub(crate) fn new(state: State, owner: u16, len: u64, generation: u32) -> Self {
        debug_assert!(len <= LEN && u64::from(owner) <= OWNER);
        Self((state as u64) << 60 | u64::from(owner) << 46 | len << 24 | u64::from(generation) & GENERATION)
    }

    #[inline(always)]
    pub(crate) fn free(len: u64, generation: u32) -> Self {
        Self::new(State::Free, 0, len, generation)
    }

    #[inline(always)]
    pub(crate) fn allocated(lane: LaneId, len: u64, generation: u32) -> Self {
        Self::new(State::Allocated, lane.0, len, generation)
    }

    #[inline(always)]
    pub(crate) fn claimed(lane: LaneId, len: u64, generation: u32) -> Self {
        Self::new(State::Claimed, lane.0, len, generation)
    }

    #[inline(always)]
    pub(crate) fn cached(magazine: u16, len: u64, generation: u32) -> Self {
        Self::new(State::Cached, magazine, len, generation)
    }

    /// What stands after the last granule.
    pub(crate) const fn sentinel() -> Self {
        Self((State::Sentinel as u64) << 60 | 1 << 24)
    }

    #[inline(always)]
    pub(crate) fn shared(lane: LaneId, len: u64, generation: u32) -> Self {
        Self::new(State::Shared, lane.0, len, generation)
    }

    #[inline(always)]
    pub(crate) fn doomed(len: u64, generation: u32) -> Self {
        Self::new(State::Doomed, LaneId::NOBODY.0, len, generation)
    }

    /// This block, given away by whoever has it.
    #[inline(always)]
    pub(crate) fn into_loose(self) -> Self {
        Self::new(State::Loose, self.owner(), self.len(), self.generation())
    }

    /// This granule, now in the middle of a block.
    #[inline(always)]
    pub(crate) fn into_interior(self) -> Self {
        Self::new(State::Interior, 0, 0, self.generation())
    }

    /// This granule, now the last of a block of `len`.
    #[inline(always)]
    pub(crate) fn into_end(self, len: u64) -> Self {
        Self::new(State::End, 0, len, self.generation())
    }

    #[inline(always)]
    pub(crate) fn state(self) -> State {
        match self.0 >> 60 {
            0 => State::Interior,
            1 => State::Free,
            2 => State::Claimed,
            3 => State::Allocated,
            4 => State::Cached,
            5 => State::InFlight,
            6 => State::End,
            7 => State::Sentinel,
            8 => State::Shared,
            9 => State::Doomed,
            10 => State::Loose,
            11 => State::Promised,
            12 => State::Received,
            13 => State::Returned,
            _ => State::Damaged,
        }
    }

    #[inline(always)]
    pub(crate) fn owner(self) -> u16 {
        (self.0 >> 46 & OWNER) as u16
    }

    #[inline(always)]
    pub(crate) fn lane(self) -> LaneId {
        LaneId(self.owner())
    }

    #[inline(always)]
    pub(crate) fn len(self) -> u64 {
        self.0 >> 24 & LEN
    }

    #[inline(always)]
    pub(crate) fn generation(self) -> u32 {
        (self.0 & GENERATION) as u32
    }

    /// The word, if it were that lane's.
    pub(crate) fn owned_by(self, lane: LaneId) -> Self {
        Self::new(self.state(), lane.0, self.len(), self.generation())
    }

    /// Whether it is the word of a message that was sent and that nobody has received.
    pub(crate) fn is_on_its_way(self) -> bool {
        matches!(self.state(), State::InFlight | State::Promised)
    }

    /// The word, if it were lane 0's.
    #[inline(always)]
    pub(crate) fn without_owner(self) -> Self {
        Self(self.0 & !(OWNER << 46))
    }

    /// The word, which has generation 0, of another generation.
    #[inline(always)]
    pub(crate) fn of_generation(self, generation: u32) -> Self {
        Self(self.0 | u64::from(generation) & GENERATION)
    }

    /// The generation after this one.
    #[inline(always)]
    pub(crate) fn next_generation(self) -> u32 {
        (self.0.wrapping_add(1) & GENERATION) as u32
    }

    #[inline(always)]
    pub(crate) fn is_free(self) -> bool {
        self.0 >> 60 == State::Free as u64
    }

    /// Whether a block begins here.
    #[inline(always)]
    pub(crate) fn is_head(self) -> bool {
        use State::{Allocated, Cached, Claimed, Doomed, Free, InFlight, Loose, Promised, Received, Returned, Shared};
        matches!(
            self.state(),
            Free | Claimed | Allocated | Cached | InFlight | Shared | Doomed | Loose | Promised | Received | Returned
        )
    }
}

impl std::fmt::Debug for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}(owner {}, len {}, generation {})", self.state(), self.owner(), self.len(), self.generation())
    }
}

/// The size class of a run of `len` granules: 1, 2 and 3, then four classes per power of two.
#[inline]
pub(crate) fn class_of(len: u64) -> usize {
    debug_assert!(len > 0);
    if len < 4 {
        return len as usize - 1;
    }
    let log = len.ilog2();
    (log as usize - 2) * 4 + (len >> (log - 2) & 3) as usize + 3
}

/// The first class whose every member has at least `len` granules.
#[inline]
pub(crate) fn class_covering(len: u64) -> usize {
    if len < 4 {
        return class_of(len);
    }
    class_of(len + (1 << (len.ilog2() - 2)) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::layout::{CLASSES, MAX_BLOCK};

    #[test]
    fn fields_do_not_disturb_one_another() {
        let word = Word::new(State::InFlight, 0x2aaa, 0x2a_aaaa, 0xaa_aaaa);
        assert_eq!(
            (word.state(), word.owner(), word.len(), word.generation()),
            (State::InFlight, 0x2aaa, 0x2a_aaaa, 0xaa_aaaa)
        );
        assert_eq!(Word::new(State::Free, 0, 1, GENERATION as u32).next_generation(), 0);
    }

    #[test]
    fn classes_rise_with_the_length_and_a_covering_class_fits() {
        let mut least = [u64::MAX; CLASSES];
        for len in (1..100_000).chain([MAX_BLOCK]) {
            least[class_of(len)] = least[class_of(len)].min(len);
        }
        assert!(least.iter().zip(&least[1..]).all(|(a, b)| a < b || *b == u64::MAX || *a == u64::MAX));
        for len in 1..90_000_u64 {
            let class = class_covering(len);
            assert!(least[class] >= len && class - class_of(len) <= 1, "{len}");
        }
        assert_eq!(class_of(MAX_BLOCK), CLASSES - 1);
    }
}
