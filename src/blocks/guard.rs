//! The header of a user's block, who is in the block, and when it may be freed.
//!
//! The header stands in the first bytes of the block, as many as [`header_bytes`] says, before the payload:
//!
//! | word | writer | meaning |
//! |---|---|---|
//! | `shape` | the owner, before others know the block | `log2(start):8 \| len:56`: where the payload begins, and its bytes |
//! | `kind` | the owner, before others know the block | hash of the payload's type, as in a channel's entry |
//! | `writer` | CAS from 0 by a writer; then that writer, its reaper | 0, or `participant + 1`, and `WRITING` once it is in |
//! | `flags` | anybody | `POISONED`: a writer died in the middle; `WAITING`: somebody sleeps on `turn` |
//! | `state` | anybody | the user's own |
//! | `turn` | who wakes | a futex, raised by each wake |
//! | `readers` | a participant its own bit; its reaper | participants that read the block: the first 256, and behind the header the others, if the segment may have more |
//!
//! # Rules
//!
//! * **G1 Intent.** The header is memory that may be freed and used for something else. Whoever touches it says so first:
//!   the lane's intent becomes `Guard(block, generation)`, then (after a full fence) the word is looked at. Only if it is
//!   SHARED and of that generation, or if the participant has a mark in the header, is the header touched. The intent is
//!   cleared last.
//! * **G2 Mark.** A reader that finds no `writer` sets its bit, and looks (after a full fence) again; if somebody is there
//!   now, it takes the bit back. A writer puts itself into `writer`, and looks (after a full fence) at `readers`; it is in when there are
//!   none.
//! * **G3 Doom.** To free a block is to CAS its word from SHARED to DOOMED: from here on nobody new comes in.
//! * **G4 Collect.** A doomed block becomes its collector's own in two steps. A CAS puts the collector's lane into the word,
//!   DOOMED as before. Then the collector looks at the intents, the marks, and the intents again: the first look at the
//!   intents is for those who come (intent, mark, no intent), the second for those who go (intent, no mark, no intent). If it
//!   finds nobody, the block is its own. Otherwise it takes its lane out and looks once more, as those who have gone meanwhile
//!   have left the block to it. A look before the first step could prove nothing: the collector may stand still after it until
//!   the block has had all its generations and is doomed again, with somebody in it.
//! * **G5 Last one out.** Whoever has cleared an intent looks (after a full fence) whether the word is DOOMED, and if so,
//!   collects. Hence somebody does, whoever was in the way; and a reaper does the same for the dead.
//! * **G6 Wake.** A waiter sets `WAITING`, reads `turn`, tries again, and sleeps on `turn`. Whoever takes a mark away, or
//!   dooms the block, looks (after a full fence) at `WAITING`, clears it, raises `turn` and wakes all. A waker that dies in
//!   between is made good for by the watchdog: nobody sleeps for longer than that.
//!
//! A participant that is stopped at any step pins this one block, and no more.

use std::ptr::NonNull;

use crate::{
    alloc::{Block, sector::Sector, word::Word},
    region::{
        lanes::{Intent, Lane, LaneId, LanePool},
        layout::bitmap_words,
    },
    sys::{
        futex::Futex,
        shared::{SharedRef, SharedSlice},
        sync::{AtomicU32, AtomicU64, Ordering, fence},
    },
};

/// Bytes of the header itself.
const HEADER: usize = 64;
/// 64-bit words of marks of readers in it.
const WORDS: usize = 4;

/// Bytes of the header in a segment for so many participants, and of the marks behind it, a power of two: the payload begins
/// there, or further on if it needs a larger alignment.
pub(crate) const fn header_bytes(participants: usize) -> usize {
    (HEADER + 8 * bitmap_words(participants).saturating_sub(WORDS)).next_power_of_two()
}

/// A writer died while it was in.
const POISONED: u32 = 1;
/// Somebody sleeps on `turn`.
const WAITING: u32 = 2;
/// In `writer`: there are no readers any more, and the payload may be half-written.
const WRITING: u32 = 1 << 16;

/// What stands before a payload. See the module.
#[derive(Clone, Copy)]
pub(crate) struct Header {
    head: SharedRef<Head>,
    /// The marks of readers behind it; none in a block that is too short to have them, which nobody reads.
    more: SharedSlice<AtomicU64>,
}

/// The first [`HEADER`] bytes.
#[cfg_attr(any(test, loom), derive(Default))]
#[repr(C, align(64))]
struct Head {
    shape: AtomicU64,
    kind: AtomicU64,
    writer: AtomicU32,
    flags: AtomicU32,
    state: AtomicU32,
    turn: Futex,
    readers: [AtomicU64; WORDS],
}

#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(size_of::<Head>() == HEADER);

impl Header {
    /// The header of a block of so many bytes, in a segment for so many participants.
    ///
    /// # Safety
    ///
    /// The block is at least [`HEADER`] bytes long, aligned to as many, and stays mapped for as long as any copy of the view
    /// is used. What stands there is only looked at as the rules of the module say.
    pub(crate) unsafe fn new(block: NonNull<u8>, bytes: usize, participants: usize) -> Self {
        let whole = header_bytes(participants);
        let more = if whole <= bytes { bitmap_words(participants).saturating_sub(WORDS) } else { 0 };
        // SAFETY: atomics only, within the block; the rest is the caller's.
        unsafe {
            let head = SharedRef::new(block.cast::<Head>());
            let more = SharedSlice::new(block.add(HEADER.min(bytes)).cast::<AtomicU64>(), more);
            Self { head, more }
        }
    }

    /// A header on the heap: for models.
    #[cfg(all(test, loom))]
    pub(crate) fn leak() -> Self {
        Self { head: SharedRef::leak(Head::default()), more: SharedSlice::leak(Vec::new()) }
    }

    /// Bytes of it, and of the marks behind it.
    fn bytes(&self) -> usize {
        (HEADER + 8 * self.more.len()).next_power_of_two()
    }

    /// The marks of readers, 64 participants in each.
    fn marks(&self) -> impl Iterator<Item = &AtomicU64> {
        self.head.readers.iter().chain(self.more.iter())
    }

    /// Fills in the header of a block that nobody else knows yet.
    pub(crate) fn format(&self, start: usize, len: usize, kind: u64) {
        // Ordering: Relaxed throughout: the store that makes the word SHARED publishes all of it.
        self.head.shape.store(u64::from(start.trailing_zeros()) << 56 | len as u64, Ordering::Relaxed);
        self.head.kind.store(kind, Ordering::Relaxed);
        self.head.writer.store(0, Ordering::Relaxed);
        self.head.flags.store(0, Ordering::Relaxed);
        self.head.state.store(0, Ordering::Relaxed);
        self.head.turn.word().store(0, Ordering::Relaxed);
        for word in self.marks() {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Where the payload begins and how long it is, if that lies within `bytes`.
    pub(crate) fn shape(&self, bytes: usize) -> Option<(usize, usize)> {
        // Ordering: Relaxed: the look at the word has synchronised with who wrote it.
        let shape = self.head.shape.load(Ordering::Relaxed);
        let start = 1_usize.checked_shl((shape >> 56) as u32)?;
        let len = usize::try_from(shape & ((1 << 56) - 1)).ok()?;
        (start >= self.bytes() && start.checked_add(len)? <= bytes).then_some((start, len))
    }

    /// The hash of the payload's type.
    pub(crate) fn kind(&self) -> u64 {
        // Ordering: Relaxed: as for `shape`.
        self.head.kind.load(Ordering::Relaxed)
    }

    fn bit(&self, participant: u16) -> (&AtomicU64, u64) {
        let index = usize::from(participant) / 64;
        // A block that is too short for its marks is no block of a user's, and what is written there means nothing.
        let word = self.marks().nth(index).unwrap_or(&self.head.readers[index % WORDS]);
        (word, 1 << (participant % 64))
    }

    /// G2: the participant reads from here on; `false` if a writer is in the way.
    pub(crate) fn begin_read(&self, me: u16) -> bool {
        // Without a mark that would have to be taken away again: a waiting reader that wakes itself would never sleep.
        if !self.begin_read_again() {
            return false;
        }
        let (word, bit) = self.bit(me);
        // Ordering: AcqRel, for whoever collects. The fence is against the one in `start_write`.
        word.fetch_or(bit, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        // Ordering: Acquire, pairs with `end_write`: what was written is seen.
        let entered = self.head.writer.load(Ordering::Acquire) == 0;
        if !entered {
            self.end_read(me);
        }
        entered
    }

    /// Whether a reader that has its bit already may let one more in: not if a writer waits, which would never get in.
    pub(crate) fn begin_read_again(&self) -> bool {
        // Ordering: Acquire: as in `begin_read`.
        self.head.writer.load(Ordering::Acquire) == 0
    }

    /// The participant reads no more.
    pub(crate) fn end_read(&self, me: u16) {
        let (word, bit) = self.bit(me);
        // Ordering: AcqRel: all that was read comes before what a writer or a collector does when it sees the bit gone.
        word.fetch_and(!bit, Ordering::AcqRel);
        self.wake();
    }

    /// G2: no other writer comes in from here on, and no reader; `false` if there is a writer.
    pub(crate) fn claim_write(&self, me: u16) -> bool {
        // Ordering: AcqRel, pairs with `end_write`.
        self.head.writer.compare_exchange(0, u32::from(me) + 1, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// G2: the participant, which has claimed, writes from here on; `false` as long as there are readers.
    pub(crate) fn start_write(&self, me: u16) -> bool {
        // Against the one in `begin_read`: one of the two sees the other.
        fence(Ordering::SeqCst);
        let free = self.readers().next().is_none();
        if free {
            // Ordering: Release, before anything of the payload changes, for the reaper, which learns of the death from
            // the kernel.
            self.head.writer.store((u32::from(me) + 1) | WRITING, Ordering::Release);
        }
        free
    }

    /// The participant writes no more, or waits for that no more.
    pub(crate) fn end_write(&self) {
        // Ordering: Release: what was written is there for who finds nobody.
        self.head.writer.store(0, Ordering::Release);
        self.wake();
    }

    /// Participants that read.
    pub(crate) fn readers(&self) -> impl Iterator<Item = u16> + '_ {
        self.marks().zip(0_u16..).flat_map(|(word, index)| {
            // Ordering: Acquire, pairs with `end_read`.
            let bits = word.load(Ordering::Acquire);
            (0..64).filter(move |bit| bits >> bit & 1 != 0).map(move |bit| index * 64 + bit)
        })
    }

    /// The participant that writes, or waits for that.
    pub(crate) fn writer(&self) -> Option<u16> {
        // Ordering: Acquire, pairs with `end_write`.
        ((self.head.writer.load(Ordering::Acquire) & (WRITING - 1)) as u16).checked_sub(1)
    }

    pub(super) fn is_held(&self) -> bool {
        // Ordering: Acquire, pairs with `end_write` and `end_read`.
        self.head.writer.load(Ordering::Acquire) != 0 || self.marks().any(|word| word.load(Ordering::Acquire) != 0)
    }

    /// Whether a participant has a mark.
    fn has_mark(&self, participant: u16) -> bool {
        let (word, bit) = self.bit(participant);
        // Ordering: Acquire: whoever asks looks at the block's word next.
        word.load(Ordering::Acquire) & bit != 0 || self.writer() == Some(participant)
    }

    /// Takes away the marks of a participant that is dead.
    pub(crate) fn forget(&self, participant: u16) {
        let (word, bit) = self.bit(participant);
        // Ordering: AcqRel: as in `end_read`, for the dead.
        let was_reading = word.fetch_and(!bit, Ordering::AcqRel) & bit != 0;
        let writer = self.head.writer.load(Ordering::Acquire);
        let was_writing = writer & (WRITING - 1) == u32::from(participant) + 1;
        if was_writing {
            if writer & WRITING != 0 {
                self.poison();
            }
            // Ordering: AcqRel: as in `end_write`. By CAS, as somebody may have done the same and died of it.
            let _ = self.head.writer.compare_exchange(writer, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
        if was_reading || was_writing {
            self.wake();
        }
    }

    /// Says that the payload may be half-written.
    pub(crate) fn poison(&self) {
        // Ordering: Release: it is there before the writer's mark is gone.
        self.head.flags.fetch_or(POISONED, Ordering::Release);
    }

    /// The payload is whole again.
    pub(crate) fn clear_poison(&self) {
        // Ordering: Release: what made it whole comes before.
        self.head.flags.fetch_and(!POISONED, Ordering::Release);
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        // Ordering: Acquire, pairs with `poison`.
        self.head.flags.load(Ordering::Acquire) & POISONED != 0
    }

    /// The user's state.
    pub(crate) fn state(&self) -> &AtomicU32 {
        &self.head.state
    }

    /// G6: says that somebody is about to sleep; returns what [`sleep`](Self::sleep) wants to know. Try again in between.
    pub(crate) fn enrol(&self) -> u32 {
        // Ordering: AcqRel and the fence: against the fence in `wake`.
        self.head.flags.fetch_or(WAITING, Ordering::AcqRel);
        let turn = self.head.turn.word().load(Ordering::Acquire);
        fence(Ordering::SeqCst);
        turn
    }

    /// Sleeps until somebody wakes, or for so long. May return for any other reason, above all if the block is gone.
    #[cfg(not(loom))]
    pub(crate) fn sleep(&self, turn: u32, time: std::time::Duration) {
        self.head.turn.wait(turn, Some(time));
    }

    #[cfg(loom)]
    pub(crate) fn sleep(&self, turn: u32) {
        self.head.turn.wait(turn, None);
    }

    /// G6: wakes who waits.
    pub(crate) fn wake(&self) {
        // Against the fence in `enrol`: we see that somebody waits, or they see what we have done.
        fence(Ordering::SeqCst);
        // Ordering: Relaxed, the fence has ordered it.
        if self.head.flags.load(Ordering::Relaxed) & WAITING != 0 {
            // Ordering: AcqRel: a waiter that comes later sets it again, and sees what we have done.
            self.head.flags.fetch_and(!WAITING, Ordering::AcqRel);
            self.head.turn.word().fetch_add(1, Ordering::AcqRel);
            self.head.turn.wake_all();
        }
    }
}

/// A user's block, seen from this process.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) sector: &'a Sector,
    pub(crate) lanes: &'a LanePool,
    pub(crate) header: Header,
    pub(crate) block: Block,
}

/// What came of going to a block's header.
#[must_use = "an abandoned block is the caller's to free"]
#[derive(Debug)]
pub(crate) struct Visited<R> {
    /// `None`: there is no such block any more.
    pub(crate) found: Option<R>,
    /// The block was doomed and nobody is in it: its word says CLAIMED by the caller's lane, who must free it.
    pub(crate) abandoned: bool,
}

impl Place<'_> {
    fn word(&self) -> Word {
        self.sector.word(self.block.id.granule())
    }

    fn intent(&self) -> Intent {
        Intent::Guard { block: self.block.id, generation: self.block.generation }
    }

    /// G1: goes to the header, if the block is still there.
    pub(crate) fn enter<R>(&self, lane: &Lane, touch: impl FnOnce(&Header, Word) -> R) -> Visited<R> {
        lane.intend(self.intent());
        // Against the one in `collect`: who dooms sees our intent, or we see the doom.
        fence(Ordering::SeqCst);
        let word = self.word();
        let is_there = word == Word::shared(word.lane(), self.block.len, self.block.generation);
        let found = is_there.then(|| touch(&self.header, word));
        self.go(lane, found)
    }

    /// G1: goes to the header of a block in which the caller has a mark.
    pub(crate) fn leave<R>(&self, lane: &Lane, touch: impl FnOnce(&Header) -> R) -> Visited<R> {
        lane.intend(self.intent());
        // A collector that sees the mark gone sees the intent: Release, and Acquire.
        let found = Some(touch(&self.header));
        self.go(lane, found)
    }

    /// Takes the marks of dead participants off a doomed block, if it is still there. The caller is their only reaper.
    pub(crate) fn forget_doomed(&self, lane: &Lane, dead: &[u16]) -> Visited<()> {
        lane.intend(self.intent());
        fence(Ordering::SeqCst);
        for participant in dead {
            // The word after the mark: if it is the same, the mark was one. Then it pins the block, and nobody but us
            // takes it away. If not, that was another block's memory, or there is nothing to be done.
            if self.header.has_mark(*participant) && self.is_doomed() {
                self.header.forget(*participant);
            }
        }
        self.go(lane, Some(()))
    }

    /// G5.
    fn go<R>(&self, lane: &Lane, found: Option<R>) -> Visited<R> {
        lane.done();
        // Who dooms sees that our intent is gone, or we see the doom.
        fence(Ordering::SeqCst);
        Visited { found, abandoned: self.collect(lane) }
    }

    /// G3: frees the block, as soon as nobody is in it. Finds `false` if somebody else has done so.
    pub(crate) fn doom(&self, lane: &Lane, may: impl Fn(Word) -> bool) -> Visited<bool> {
        self.enter(lane, |header, word| {
            let done = may(word) && self.sector.replace(self.block.id.granule(), word, self.doomed());
            if done {
                header.wake();
            }
            done
        })
    }

    /// G4: makes a doomed block the lane's own, if nobody is in it.
    pub(super) fn collect(&self, lane: &Lane) -> bool {
        // Every visit ends here, and most blocks are not doomed. A collector whose mark stands there frees
        // the block, or looks again after it has taken the mark off.
        if self.word() != self.doomed() {
            return false;
        }
        // Against the one in `enter`. A reader or writer that is in collects the block when it goes,
        // and most that keep a block are found here, before the word is touched.
        fence(Ordering::SeqCst);
        if self.header.is_held() {
            return false;
        }
        let granule = self.block.id.granule();
        let mark = self.doomed().owned_by(lane.id());
        // Another collector may free the block before this, and then what we saw means nothing. But then
        // the word is another one, and the CAS fails; or, 2²⁴ lives of the block later, it does not. So the
        // look under the mark decides.
        while self.sector.replace(granule, self.doomed(), mark) {
            let is_ours = !self.is_in_use();
            let claimed = Word::claimed(lane.id(), self.block.len, self.block.generation);
            // Nobody else changes a word with our mark.
            self.sector.replace(granule, mark, if is_ours { claimed } else { self.doomed() });
            if is_ours {
                return true;
            }
            // Visitors that have gone meanwhile have seen the mark, and left the block to us.
            if self.is_in_use() {
                return false;
            }
        }
        false
    }

    /// Whether somebody is in the block, or on the way in or out.
    fn is_in_use(&self) -> bool {
        // Against the one in `enter`, and the one in `go`.
        fence(Ordering::SeqCst);
        self.is_named() || self.header.is_held() || self.is_named()
    }

    pub(crate) fn doomed(&self) -> Word {
        Word::doomed(self.block.len, self.block.generation)
    }

    pub(super) fn is_named(&self) -> bool {
        let intent = self.intent();
        self.lanes.intents_in_use().any(|other| other == intent)
    }

    /// Whether the block was freed, and waits for those who are in it, or is looked at by a collector.
    pub(super) fn is_doomed(&self) -> bool {
        self.word().owned_by(LaneId::NOBODY) == self.doomed()
    }
}
