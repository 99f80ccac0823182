//! Blocks in and out of a ring, with every step recoverable.
//!
//! ```text
//! send      intent Send(b)  →  word IN_FLIGHT(me)  →  cell CAS  →  intent cleared
//! receive   intent Receive(b)  →  cell CAS  →  word ALLOCATED(me)  →  intent cleared
//! ```
//!
//! In a channel whose messages come back, or that has policies, the words are others, and the block has a [`Trailer`]:
//!
//! ```text
//! send      intent Send(b)  →  word PROMISED(me)  →  cell CAS  →  intent cleared
//! receive   number noted  →  intent Receive(b)  →  cell CAS  →  trailer  →  word RECEIVED(me)  →  intent cleared
//! ack       word ALLOCATED(me), and the block is freed like any other; at once, where messages do not come back
//! back      intent Retry(b, generation + 1)  →  trailer  →  word PROMISED(nobody, generation + 1)  →  cell CAS in the
//!           retry ring  →  intent cleared
//! ```
//!
//! In the log of a broadcast *send* is the same, and the block is *received* by whoever retires its message.
//!
//! A block whose word says IN_FLIGHT is either named by a cell, or by the intent of a lane that is putting it in or
//! taking it out. If neither, its lane is dead, and a reaper frees it ([`judge`]). After the CAS a sender does not touch the
//! block again.
//!
//! Each flight of a block has a generation of its own: whoever sends a block on that it has received, or tries again, does so
//! under the next one. [`word`](crate::alloc::word) says what rests on that, and what does not.

use crate::{
    alloc::{
        Allocator, Block,
        word::{State, Word},
    },
    region::lanes::{BlockId, Intent, Lane, LaneId},
    ring::{
        Front, Position, Ring, Vacancy,
        log::{self, Log},
    },
    sys::sync::{AtomicU64, Ordering},
};

/// What stands at the end of a block that travels in a channel whose messages come back, or that has policies.
///
/// | word | meaning |
/// |---|---|
/// | `channel` | the word that names the channel's ring in its entry: no other channel has it |
/// | `tries` | `generation:32 \| count:32`: how often the message was delivered in vain when its block got that generation |
/// | `sequence` | the message's number, once it was received |
/// | `sent` | `nanoseconds:61 \| level:3`: when it was sent, by the ticks of the machine's clock, and at which level |
/// | `expiry` | when nobody wants it any more, by the machine's clock (`sys::clock`); `u64::MAX`: never |
///
/// Written by who owns the block (or buries who did), before the word that says so.
#[cfg_attr(any(test, loom), derive(Default, Debug))]
#[repr(C)]
pub(crate) struct Trailer {
    channel: AtomicU64,
    tries: AtomicU64,
    sequence: AtomicU64,
    sent: AtomicU64,
    expiry: AtomicU64,
}

/// Bytes of a trailer.
pub(crate) const TRAILER: usize = 5 * size_of::<u64>();
/// Bits of a level in a trailer.
const LEVEL_BITS: u32 = 3;

// Ordering of all accesses: Relaxed. The word of the block, or a cell, is written after and read before.
impl Trailer {
    /// Nobody has received the message yet.
    pub(crate) fn begin(&self, channel: u64, generation: u32) {
        self.channel.store(channel, Ordering::Relaxed);
        self.tries.store(u64::from(generation) << 32, Ordering::Relaxed);
        self.sequence.store(u64::MAX, Ordering::Relaxed);
        self.stamp(0, 0, u64::MAX);
    }

    /// Says when the message is sent, at which level, and when nobody wants it any more.
    pub(crate) fn stamp(&self, level: u8, sent: u64, expiry: u64) {
        self.sent.store(sent << LEVEL_BITS | u64::from(level), Ordering::Relaxed);
        self.expiry.store(expiry, Ordering::Relaxed);
    }

    /// The level at which the message was sent.
    pub(crate) fn level(&self) -> u8 {
        (self.sent.load(Ordering::Relaxed) & ((1 << LEVEL_BITS) - 1)) as u8
    }

    /// When it was sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed) >> LEVEL_BITS
    }

    /// When nobody wants it any more.
    pub(crate) fn expiry(&self) -> u64 {
        self.expiry.load(Ordering::Relaxed)
    }

    /// Which channel the message is in.
    pub(crate) fn channel(&self) -> u64 {
        self.channel.load(Ordering::Relaxed)
    }

    /// How often the message was delivered in vain.
    pub(crate) fn tries(&self) -> u32 {
        self.tries.load(Ordering::Relaxed) as u32
    }

    /// Counts a delivery in vain, and returns how many there were; once for each generation, however often it is called.
    fn count(&self, generation: u32, in_vain: bool) -> u32 {
        let tries = self.tries.load(Ordering::Relaxed);
        if tries >> 32 == u64::from(generation) {
            return tries as u32;
        }
        let count = (tries as u32).saturating_add(u32::from(in_vain));
        self.tries.store(u64::from(generation) << 32 | u64::from(count), Ordering::Relaxed);
        count
    }

    /// The number of the message; `u64::MAX` if it is not known.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Relaxed)
    }

    /// What is less comes first: a higher level, then a lower number.
    pub(crate) fn rank(&self) -> (u8, u64) {
        (u8::MAX - self.level(), self.sequence())
    }

    /// Writes the number down.
    pub(crate) fn number(&self, sequence: u64) {
        self.sequence.store(sequence, Ordering::Relaxed);
    }
}

/// A block that came out of a ring and now belongs to the receiving lane's participant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    pub(crate) block: Block,
    /// The lane that sent it.
    pub(crate) sender: LaneId,
    /// The message's position, which is its sequence number.
    pub(crate) position: u64,
}

/// Sends a block of the lane's participant, under a generation under which it never was on its way; returns its position. `None` if
/// the ring is full, or not open, which is asked after the look at the cell: the block is the lane's as before, and must have
/// another generation before it is sent again.
#[inline]
pub(crate) fn send(
    allocator: &Allocator,
    ring: &Ring,
    private: &Position,
    lane: &Lane,
    block: Block,
    state: State,
    is_open: impl Fn() -> bool,
) -> Option<u64> {
    put(allocator, lane, block, state, || ring.push(private, block.id, is_open))
}

/// The same for a sender with a permit, which is still counted afterwards: killed before it is not, the sender leaves a permit
/// too many, which its reaper takes back. `None` only if the ring is not open, or garbage. `state` is what a block on its way in that channel
/// has: IN_FLIGHT or PROMISED.
#[inline]
pub(crate) fn send_reserved(
    allocator: &Allocator,
    ring: &Ring,
    private: &Position,
    lane: &Lane,
    block: Block,
    state: State,
    is_open: impl Fn() -> bool,
) -> Option<u64> {
    put(allocator, lane, block, state, || ring.push_reserved(private, block.id, is_open))
}

#[inline(always)]
fn put(
    allocator: &Allocator,
    lane: &Lane,
    block: Block,
    state: State,
    push: impl FnOnce() -> Option<u64>,
) -> Option<u64> {
    lane.intend(Intent::Send { block: block.id, generation: block.generation });
    allocator.set_state(state, lane.id(), block);
    let position = push();
    if position.is_none() {
        allocator.set_allocated(lane.id(), block);
    }
    lane.done();
    position
}

/// Sends a block of the lane's participant into a cell that was vacant just now. `false` if it is not any more. As for
/// [`send`].
#[inline(always)]
pub(crate) fn send_at_hand(
    allocator: &Allocator,
    ring: &Ring,
    private: &Position,
    lane: &Lane,
    vacancy: Vacancy,
    block: Block,
) -> bool {
    let fill = || ring.fill(private, vacancy, block.id).then_some(0);
    put(allocator, lane, block, State::InFlight, fill).is_some()
}

/// Publishes a block of the lane's participant in a log, in a cell that was vacant just now; returns its position. `None` if it is
/// not any more. As for [`send`].
pub(crate) fn publish(
    allocator: &Allocator,
    log: &Log,
    private: &Position,
    lane: &Lane,
    vacancy: log::Vacancy,
    block: Block,
) -> Option<u64> {
    put(allocator, lane, block, State::InFlight, || log.fill(private, vacancy, block.id))
}

/// Takes the block out of a cell of a log, if it is closed and nobody holds its message: it is the lane's, to be freed.
pub(crate) fn retire(
    allocator: &Allocator,
    log: &Log,
    lane: &Lane,
    index: usize,
    mut damaged: impl FnMut(),
) -> Option<Block> {
    loop {
        let unpinned = log.unpinned(index)?;
        let Some((block, _)) = allocator.in_flight(unpinned.block()) else {
            // Either somebody has taken it by now, or the cell is garbage.
            if log.take(unpinned) {
                damaged();
            }
            continue;
        };
        if take(allocator, log, lane, unpinned, block) {
            return Some(block);
        }
    }
}

/// Takes the block out of a closed cell of a log: it is the lane's, to be freed. `false` if somebody else has taken it.
pub(crate) fn take(allocator: &Allocator, log: &Log, lane: &Lane, unpinned: log::Unpinned, block: Block) -> bool {
    lane.intend(Intent::Receive { block: block.id, generation: block.generation });
    let taken = log.take(unpinned);
    if taken {
        allocator.set_allocated(lane.id(), block);
    }
    lane.done();
    taken
}

/// Receives the block at the front, if it is where the handle thinks and nobody else takes it: the case that matters.
#[inline(always)]
pub(crate) fn receive_at_hand(allocator: &Allocator, ring: &Ring, private: &Position, lane: &Lane) -> Option<Received> {
    let front = ring.front_at_hand(private)?;
    let (block, sender) = allocator.in_flight(front.block())?;
    lane.intend(Intent::Receive { block: block.id, generation: block.generation });
    if !ring.take(private, front) {
        lane.done();
        return None;
    }
    allocator.set_allocated(lane.id(), block);
    lane.done();
    Some(Received { block, sender, position: front.position() })
}

/// Receives the block at the front, if there is one. `damaged` hears of every cell that had to be dropped because it
/// named no block in flight: only memory that was overwritten has such cells.
#[inline]
pub(crate) fn receive(
    allocator: &Allocator,
    ring: &Ring,
    private: &Position,
    lane: &Lane,
    damaged: impl FnMut(),
) -> Option<Received> {
    receive_next(allocator, ring, lane, || ring.front(private), private, damaged)
}

/// The same of what stands before a position.
pub(crate) fn receive_before(
    allocator: &Allocator,
    ring: &Ring,
    private: &Position,
    lane: &Lane,
    until: u64,
    damaged: impl FnMut(),
) -> Option<Received> {
    receive_next(allocator, ring, lane, || ring.front_before(private, until), private, damaged)
}

#[inline(always)]
fn receive_next(
    allocator: &Allocator,
    ring: &Ring,
    lane: &Lane,
    front: impl Fn() -> Option<Front>,
    private: &Position,
    mut damaged: impl FnMut(),
) -> Option<Received> {
    loop {
        let front = front()?;
        let Some((block, sender)) = allocator.in_flight(front.block()) else {
            // Either somebody has received it by now, and the cell shows it; or the cell is garbage.
            if ring.is_front(front) && ring.take(private, front) {
                damaged();
            }
            continue;
        };
        lane.intend(Intent::Receive { block: block.id, generation: block.generation });
        if ring.take(private, front) {
            allocator.set_allocated(lane.id(), block);
            lane.done();
            return Some(Received { block, sender, position: front.position() });
        }
        lane.done();
    }
}

/// Receives the block at the front of one of the rings of a channel whose blocks have trailers, if it stands before `until` and
/// `wanted` says so of the trailer. In the retry ring a message comes with its number, in another its place is its number.
#[allow(clippy::too_many_arguments)]
pub(crate) fn receive_promised<'a>(
    allocator: &Allocator,
    ring: &Ring,
    private: &Position,
    lane: &Lane,
    comes_back: bool,
    until: u64,
    trailer: impl Fn(Block) -> &'a Trailer,
    wanted: impl Fn(&Trailer) -> bool,
    mut damaged: impl FnMut(),
) -> Option<Received> {
    loop {
        let front = ring.front_before(private, until)?;
        let Some((block, sender)) = allocator.promised(front.block()) else {
            if ring.is_front(front) && ring.take(private, front) {
                damaged();
            }
            continue;
        };
        if !wanted(trailer(block)) {
            // If somebody else took it, that was the trailer of something else.
            if ring.is_front(front) {
                return None;
            }
            continue;
        }
        lane.note(if comes_back { u64::MAX } else { front.position() });
        lane.intend(Intent::Receive { block: block.id, generation: block.generation });
        if ring.take(private, front) {
            let trailer = trailer(block);
            if !comes_back {
                trailer.number(front.position());
            }
            allocator.set_state(State::Received, lane.id(), block);
            lane.done();
            return Some(Received { block, sender, position: trailer.sequence() });
        }
        lane.done();
    }
}

/// Where a message goes that comes back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Back<'a> {
    pub(crate) ring: &'a Ring,
    pub(crate) private: &'a Position,
    /// What the block is on its way there: PROMISED, or IN_FLIGHT for the dead letters of a plain channel.
    pub(crate) state: State,
}

/// What became of a message that was put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// Its word has changed: nothing has happened.
    Changed,
    /// It is in the place of that number; behind the last, its word says RETURNED.
    At(usize),
}

/// Puts a message back whose block has the word `word`, which nobody but the caller may change. Where there is no room in the
/// first of the places, it goes to the second, and if there is none there, its word says RETURNED and `overflow` is told.
pub(crate) fn put_back(
    allocator: &Allocator,
    lane: &Lane,
    id: BlockId,
    word: Word,
    places: &[Back<'_>],
    overflow: impl FnOnce(),
) -> Put {
    let Some((sector, _)) = allocator.word_of(id) else { return Put::At(places.len()) };
    let granule = id.granule();
    let generation = word.next_generation();
    let mut from = Some(word);
    lane.intend(Intent::Retry { block: id, generation });
    // The first change is a CAS: from then on the block is the lane's to write, whatever a reaper that looks makes of the word.
    let mut turn = |state| {
        let to = Word::new(state, LaneId::NOBODY.0, word.len(), generation);
        match from.take() {
            Some(from) => sector.replace(granule, from, to),
            None => {
                while !sector.replace(granule, sector.word(granule), to) {}
                true
            }
        }
    };
    for (number, place) in places.iter().enumerate() {
        if !turn(place.state) {
            lane.done();
            return Put::Changed;
        }
        if place.ring.push(place.private, id, || true).is_some() {
            lane.done();
            return Put::At(number);
        }
    }
    let done = turn(State::Returned);
    if done {
        overflow();
    }
    lane.done();
    if done { Put::At(places.len()) } else { Put::Changed }
}

/// What a reaper finds out about a flight that somebody dead names in its intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is over, or a cell names the block: nothing is to be done.
    Settled,
    /// Somebody who lives names it, too.
    Busy,
    /// The block is in nobody's hands. Its word is this one, which nobody but the reaper can write.
    Left(Word),
}

/// Finds out about the flight of a block under a generation. `is_named` looks for the intents of those who live, `in_ring` for
/// a cell.
///
/// The reaper looks at the intents, the cells, and the intents again: a receiver may have taken the block since the first, and
/// a sender may be about to put it in. By then all may have happened to the block that happens to blocks, and after 2²⁴ of its
/// lives and flights it even has the word that it had when the looks began. So a CAS from that word proves nothing. The reaper
/// makes the word its own first: IN_FLIGHT (or PROMISED) **by the reaper's lane**, which only the reaper ever writes, and looks
/// again. If its word is there still when it settles what is left, it was there all the time, and so was what the looks
/// have seen.
///
/// The mark is in nobody's way. A receiver that has read the cell takes the block by a plain store over it, a sender that is
/// refused likewise. If the second look finds somebody, the word goes back to being nobody's: the sender may have died
/// meanwhile.
pub(crate) fn judge(
    allocator: &Allocator,
    reaper: &Lane,
    id: BlockId,
    generation: u32,
    is_named: impl Fn() -> bool,
    mut in_ring: impl FnMut() -> bool,
) -> Verdict {
    let mut look = || match () {
        () if is_named() => Some(Verdict::Busy),
        () if in_ring() => Some(Verdict::Settled),
        () if is_named() => Some(Verdict::Busy),
        () => None,
    };
    loop {
        let Some((sector, word)) = allocator.word_of(id) else { return Verdict::Settled };
        if !word.is_on_its_way() || word.generation() != generation {
            return Verdict::Settled;
        }
        if let Some(found) = look() {
            return found;
        }
        let mark = word.owned_by(reaper.id());
        if word != mark && !sector.replace(id.granule(), word, mark) {
            continue;
        }
        let Some(found) = look() else { return Verdict::Left(mark) };
        // A failure means that somebody has received it.
        sector.replace(id.granule(), mark, mark.owned_by(LaneId::NOBODY));
        return found;
    }
}

/// Takes a message for which there was no room anywhere, if `is_wanted` says so of the block; its word is the lane's own then, and
/// the lane intends to put it back. `word` was read before, and so may be that of another message by now: hence the look
/// after the word is the lane's.
pub(crate) fn take_returned(
    allocator: &Allocator,
    lane: &Lane,
    id: BlockId,
    word: Word,
    is_wanted: impl FnOnce() -> bool,
) -> Option<Word> {
    let (sector, _) = allocator.word_of(id)?;
    let mine = word.owned_by(lane.id());
    if !sector.replace(id.granule(), word, mine) {
        return None;
    }
    if !is_wanted() {
        sector.replace(id.granule(), mine, mine.owned_by(LaneId::NOBODY));
        return None;
    }
    Some(mine)
}

/// How often a message was delivered in vain, if that was once more.
pub(crate) fn tries_after(trailer: &Trailer, word: Word, in_vain: bool) -> u32 {
    trailer.count(word.next_generation(), in_vain)
}
