//! A sector: granules, their words, and the hints about which are free.
//!
//! # Invariants
//!
//! 1. The heads (`Word::is_head`) and their lengths tile the sector, but for ranges that an [`Intent::Range`] names.
//! 2. Only the owner of a block that is not FREE (or CACHED) changes its words; a reaper acts for the dead.
//! 3. FREE is left only by a CAS of the whole word. ABA is harmless: whatever happened in between, a free block of that
//!    length begins there.
//! 4. The word of a granule inside of a block is never a head, least of all FREE.
//! 5. Everything else, END tags and hints, is advice.
//!
//! # How blocks change their size
//!
//! ```text
//! carve        |  FREE L        |          one CAS on the free block's own word takes the tail;
//!              |  FREE L-n | n  |          the free rest is never owned by anybody
//! extend left  | FREE p | b |              W[b] becomes interior, then one CAS on W[p] covers it
//!              | FREE p+b   |
//! absorb right | b | FREE r |              one CAS makes W[r] interior, then one store to W[b] covers it
//!              | b+r        |
//! ```
//!
//! Between the two steps of each, the range is covered by no head; the lane's intent names it from before the first
//! step until after the second. A lane that is stopped there pins that range and no more. Free space gathers to the
//! left, and a free block on the left is never owned while it grows.
//!
//! # How a sector grows
//!
//! There are words for as many granules as it may ever have, and an *extent*: how many it has now. After the last one
//! stands a SENTINEL, which is no head and never free, so nothing is ever merged across it. Whoever finds no memory makes
//! sure that there is memory behind the next step (the steps follow from the extent alone, so all who try at once try the
//! same), and then:
//!
//! ```text
//! 1  SENTINEL at the new end, by CAS over a word that nobody has touched
//! 2  the extent is raised
//! 3  the SENTINEL at the old end becomes CLAIMED, by CAS: one of those who grow has the new run, and frees it
//! ```
//!
//! Stopped anywhere in between, the steps can be taken again by anybody; a SENTINEL below the extent is taken for what it is
//! by the next sweep, or by the reaper. Nobody waits for anybody.

mod adoption;

use crate::{
    alloc::{
        hints::{Hints, Visit},
        word::{State, Word, class_covering, class_of},
    },
    region::{
        lanes::{Counter, Intent, Lane},
        layout::{CHUNK, CLASSES, MAX_BLOCK, PAGE, whole_lines},
    },
    sys::{
        prefetch,
        shared::{SharedRef, SharedSlice},
        sync::{AtomicU64, Ordering, SeldomWrittenU64, fence},
    },
};

/// What stands after the last granule.
const SENTINEL: Word = Word::sentinel();
/// The least bytes that a sector grows by, unless a granule has more.
const MIN_STEP_BYTES: u64 = 256 << 10;

/// The extent of a sector in quarantine.
const QUARANTINE: u64 = u64::MAX;

/// How often a published block is taken back to be merged with a neighbour that was freed at the same time.
const MERGE_ATTEMPTS: usize = 3;

/// The process's view of one sector.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sector {
    index: usize,
    /// Bytes of a granule, as the power of two.
    granule_log: u32,
    words: SharedSlice<AtomicU64>,
    hints: Hints,
    /// Granules that there are now.
    extent: SharedRef<SeldomWrittenU64>,
}

/// A run of granules that was taken from the free ones: its head says ALLOCATED by the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) granule: u64,
    pub(crate) len: u64,
    pub(crate) generation: u32,
}

impl Sector {
    /// A view over the words (one more than the most granules that there may be), the hint maps, and the number of
    /// granules that there are now. A granule has `2^granule_log` bytes.
    pub(crate) fn new(
        index: usize,
        granule_log: u32,
        words: SharedSlice<AtomicU64>,
        maps: SharedSlice<AtomicU64>,
        extent: SharedRef<SeldomWrittenU64>,
    ) -> Self {
        let granules = words.len() as u64 - 1;
        Self { index, granule_log, words, hints: Hints::new(maps, granules), extent }
    }

    /// Granules that there are now: none, if the sector is in quarantine, or the extent is nonsense.
    #[inline(always)]
    pub(crate) fn granules(&self) -> u64 {
        // Ordering: Acquire, pairs with the raise: the sentinel at the end is there.
        let extent = self.extent.load(Ordering::Acquire);
        if extent <= self.most() { extent } else { 0 }
    }

    /// Takes the sector out of use, for everybody and for good: nothing is allocated in it any more, what is freed in it
    /// stays as it is, and messages on their way in it are lost. Its words are damaged, so nothing else is safe.
    pub(crate) fn quarantine(&self) {
        self.extent.store(QUARANTINE, Ordering::Release);
    }

    /// Whether the sector is out of use.
    pub(crate) fn is_quarantined(&self) -> bool {
        self.extent.load(Ordering::Acquire) > self.most()
    }

    /// The most granules that there may ever be.
    #[inline(always)]
    pub(crate) fn most(&self) -> u64 {
        self.words.len() as u64 - 1
    }

    /// Makes one free run (or a few, where a word cannot say the length) of zeroed words. Nobody else may look yet.
    pub(crate) fn format(&self, granules: u64) {
        // Ordering: Relaxed throughout: publication of the segment orders all of it.
        self.extent.store(granules, Ordering::Relaxed);
        self.words[granules as usize].store(SENTINEL.0, Ordering::Relaxed);
        let mut at = 0;
        while at < granules {
            let len = (granules - at).min(MAX_BLOCK);
            if len > 1 {
                self.words[(at + len - 1) as usize].store(Word(0).into_end(len).0, Ordering::Relaxed);
            }
            self.words[at as usize].store(Word::free(len, 1).0, Ordering::Relaxed);
            self.hints.set(class_of(len), at);
            at += len;
        }
    }

    /// The number of granules after the next step of growth from `extent`; `None` if that is all there may be.
    pub(crate) fn next_extent(&self, extent: u64) -> Option<u64> {
        let step = (extent / 2).clamp((MIN_STEP_BYTES >> self.granule_log).max(1), MAX_BLOCK / 2);
        (extent < self.most() && !self.is_quarantined())
            .then(|| (extent + whole_lines(step, self.bytes(1))).min(self.most()))
    }

    /// The extent behind which there is a run of so many granules, together with what is free at the end now; `None` if there can be
    /// none. Somebody else may take what is free meanwhile.
    pub(crate) fn extent_for(&self, from: u64, len: u64) -> Option<u64> {
        let start = from.checked_sub(self.free_at_end(from))?;
        let mut to = self.next_extent(from)?;
        while to - start < len {
            to = self.next_extent(to)?;
        }
        Some(to)
    }

    /// How many granules are free at the end, in one piece, as far as one can see from there.
    fn free_at_end(&self, end: u64) -> u64 {
        let Some(last) = end.checked_sub(1) else { return 0 };
        // An END says how long the block before it is; a block of one granule has none.
        let tag = self.word(last);
        let len = if tag.state() == State::End { tag.len() } else { 1 };
        let is_free = |head: &u64| self.is_free_run(*head, self.word(*head)) && self.word(*head).len() == len;
        end.checked_sub(len).filter(is_free).map_or(0, |_| len)
    }

    /// Grows from one extent to the next, for which there must be memory. Whoever else does so at the same time does the
    /// same.
    #[cold]
    pub(crate) fn grow(&self, lane: &Lane, from: u64, to: u64) {
        let end = self.word(to);
        if end == Word(0) {
            // A failure means that somebody else has done it.
            self.replace(to, end, SENTINEL);
        }
        if self.word(to) == SENTINEL {
            // Ordering: Release: whoever sees the extent sees the sentinel.
            self.extent.fetch_max(to, Ordering::Release);
            self.open_up(lane, from);
        }
    }

    /// The end of the run behind the sentinel at an old end, if it is still there.
    pub(crate) fn unopened(&self, old_end: u64) -> Option<u64> {
        let is_there = self.word(old_end) == SENTINEL;
        self.next_extent(old_end).filter(|end| is_there && *end <= self.granules())
    }

    /// Step 3: takes the run behind the sentinel at an old end, if it is still there, and frees it.
    #[cold]
    pub(crate) fn open_up(&self, lane: &Lane, old_end: u64) {
        if let Some(end) = self.unopened(old_end)
            && self.replace(old_end, SENTINEL, Word::claimed(lane.id(), end - old_end, 1))
        {
            lane.count(Counter::Growth);
            self.release(lane, old_end);
        }
    }

    /// The word of a granule below `granules() + 1`.
    #[inline(always)]
    pub(crate) fn word(&self, granule: u64) -> Word {
        // Ordering: Acquire, to synchronise with the Release of whoever gave the granule up: what stood in it is read
        // no more, and what the word says (its length above all) is there.
        Word(self.words[granule as usize].load(Ordering::Acquire))
    }

    /// The word of a granule, if there can ever be such a granule.
    #[inline(always)]
    pub(crate) fn get(&self, granule: u64) -> Option<Word> {
        // Ordering: as for `word`.
        self.words.get(granule as usize).map(|word| Word(word.load(Ordering::Acquire)))
    }

    /// Writes a word that the caller owns (rule 2).
    #[inline(always)]
    #[cfg_attr(crash_points, track_caller)]
    pub(crate) fn store(&self, granule: u64, word: Word) {
        // Ordering: Release: everything done to the block before, in payload and tags, comes before its new state.
        self.words[granule as usize].store(word.0, Ordering::Release);
    }

    /// Replaces exactly this word.
    #[inline(always)]
    #[cfg_attr(crash_points, track_caller)]
    pub(crate) fn replace(&self, granule: u64, from: Word, to: Word) -> bool {
        // Ordering: AcqRel: takes over what the last owner left, and publishes what we wrote before.
        self.words[granule as usize].compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Prepares to write a word.
    #[inline(always)]
    pub(crate) fn prefetch(&self, granule: u64) {
        if let Some(word) = self.words.get(granule as usize) {
            prefetch::for_write(word);
        }
    }

    /// A free head that makes sense: it ends within the sector.
    #[inline(always)]
    fn is_free_run(&self, granule: u64, word: Word) -> bool {
        word.is_free() && word.len() > 0 && granule + word.len() <= self.granules()
    }

    /// The longest block that the sector can ever hold, in granules.
    pub(crate) fn longest(&self) -> u64 {
        self.most().min(MAX_BLOCK)
    }

    /// Takes `len` granules where the hints lead, or says that they led nowhere.
    ///
    /// Lock-free: a failed CAS means that somebody else got somewhere.
    pub(crate) fn take(&self, lane: &Lane, len: u64) -> Option<Run> {
        debug_assert!(len > 0);
        if len > self.longest() {
            return None;
        }
        let covering = class_covering(len);
        // What the lane has seen, up to about twice as long. Members of the exact class may or may not be long enough, hence
        // they come last.
        (covering..CLASSES.min(covering + 4))
            .find_map(|class| self.take_noted(lane, len, class))
            .or_else(|| self.search(lane, len, covering, CLASSES))
            .or_else(|| self.search(lane, len, class_of(len), covering))
    }

    fn search(&self, lane: &Lane, len: u64, from: usize, until: usize) -> Option<Run> {
        self.hints.classes(from, until).find_map(|class| {
            self.take_noted(lane, len, class).or_else(|| {
                let mut taken = None;
                self.hints.search(class, |chunk| self.visit(lane, len, class, chunk, &mut taken));
                taken
            })
        })
    }

    /// Takes `len` granules of a free block of the class that begins in the chunk, if there is one.
    fn visit(&self, lane: &Lane, len: u64, class: usize, chunk: u64, taken: &mut Option<Run>) -> Visit {
        let mut found = Visit::Empty;
        let (mut granule, end) = (chunk * CHUNK, ((chunk + 1) * CHUNK).min(self.granules()));
        while granule < end {
            let mut word = self.word(granule);
            // Most are, where blocks are long: a few instructions for each instead of all that follows.
            if word.state() == State::Interior {
                granule += 1;
                continue;
            }
            while self.is_free_run(granule, word) && class_of(word.len()) == class {
                found = Visit::Found;
                if word.len() < len {
                    break;
                }
                *taken = self.carve(lane, granule, word, len);
                if taken.is_some() {
                    return Visit::Stop;
                }
                word = self.word(granule);
            }
            // No block begins inside of a block.
            granule += if word.is_head() { word.len().max(1) } else { 1 };
        }
        found
    }

    /// Takes `len` granules of a free block of the class that the lane has seen before.
    fn take_noted(&self, lane: &Lane, len: u64, class: usize) -> Option<Run> {
        while let Some(granule) = lane.notes().take(self.index, class) {
            let word = self.word(granule);
            if self.is_free_run(granule, word)
                && class_of(word.len()) == class
                && word.len() >= len
                && let Some(run) = self.carve(lane, granule, word, len)
            {
                return Some(run);
            }
        }
        None
    }

    /// The way of last resort: looks at every head, sets missing hints, merges what lies side by side, takes what fits.
    /// Says `None` only if it came by no free run of `len` granules.
    #[cold]
    pub(crate) fn sweep(&self, lane: &Lane, len: u64) -> Option<Run> {
        let mut granule = 0;
        while granule < self.granules() {
            let mut word = self.word(granule);
            if word.state() == State::Sentinel {
                // Whoever grew the sector was stopped, or worse.
                self.open_up(lane, granule);
                word = self.word(granule);
            }
            while self.is_free_run(granule, word) {
                self.hints.set(class_of(word.len()), granule);
                let next = granule + word.len();
                if self.can_follow(word.len(), next) {
                    // Two free blocks side by side: whoever freed them was stopped in between, or worse.
                    let claimed = Word::claimed(lane.id(), word.len(), word.generation());
                    if self.replace(granule, word, claimed) {
                        self.release(lane, granule);
                    }
                } else if word.len() >= len {
                    if let Some(run) = self.carve(lane, granule, word, len) {
                        return Some(run);
                    }
                } else {
                    break;
                }
                word = self.word(granule);
            }
            granule += if word.is_head() { word.len().max(1) } else { 1 };
        }
        None
    }

    /// Takes the last `len` granules of the free block at `granule`, whose word was `word`; `None` if the word has
    /// changed.
    fn carve(&self, lane: &Lane, granule: u64, word: Word, len: u64) -> Option<Run> {
        let rest = word.len() - len;
        if rest == 0 {
            let taken = Word::allocated(lane.id(), len, word.generation());
            return self.replace(granule, word, taken).then_some(Run { granule, len, generation: word.generation() });
        }
        let tail = granule + rest;
        lane.intend(Intent::Range { sector: self.index, granule: tail, len });
        if !self.replace(granule, word, Word::free(rest, word.next_generation())) {
            lane.done();
            return None;
        }
        // The tail is mine: its END tag first, then the head that covers it.
        let generation = self.word(tail).next_generation();
        self.store_end(tail, len);
        self.store(tail, Word::allocated(lane.id(), len, generation));
        // The rest is not mine: by now anybody may have carved it, so its END tag may only replace what is no head.
        if rest > 1 {
            let last = self.word(tail - 1);
            if matches!(last.state(), State::Interior | State::End) {
                self.replace(tail - 1, last, last.into_end(rest));
            }
        }
        lane.notes().add(self.index, class_of(rest), granule);
        if class_of(rest) != class_of(word.len()) {
            fence(Ordering::SeqCst);
            self.hints.set(class_of(rest), granule);
        }
        lane.done();
        lane.count(Counter::Split);
        Some(Run { granule: tail, len, generation })
    }

    /// Tags the last granule of a block that the caller owns.
    #[inline]
    #[cfg_attr(crash_points, track_caller)]
    fn store_end(&self, granule: u64, len: u64) {
        if len > 1 {
            let last = granule + len - 1;
            self.store(last, self.word(last).into_end(len));
        }
    }

    /// Splits a block of the lane into pieces of `piece` granules and hands each to `each`, which says what its head
    /// becomes. The length must be a multiple of `piece`.
    pub(crate) fn split(&self, lane: &Lane, run: Run, piece: u64, mut each: impl FnMut(u64, u32) -> Word) {
        let Run { mut granule, mut len, generation: mut head } = run;
        debug_assert!(len.is_multiple_of(piece));
        while len > piece {
            let rest = granule + piece;
            lane.intend(Intent::Range { sector: self.index, granule: rest, len: len - piece });
            self.store_end(granule, piece);
            self.store(granule, each(granule, head));
            head = self.word(rest).next_generation();
            len -= piece;
            granule = rest;
            self.store(granule, Word::allocated(lane.id(), len, head));
        }
        self.store_end(granule, piece);
        self.store(granule, each(granule, head));
        lane.done();
    }

    /// The free block that ends where `granule` begins, if its END tag leads to it.
    fn left_of(&self, granule: u64) -> Option<(u64, Word)> {
        let tag = self.word(granule.checked_sub(1)?);
        let left = match tag.state() {
            State::End => granule.checked_sub(tag.len())?,
            State::Free if tag.len() == 1 => granule - 1,
            _ => return None,
        };
        let word = self.word(left);
        // The tag is advice, this is the proof; the CAS that follows demands the very same word.
        (word.is_free() && left < granule && left + word.len() == granule).then_some((left, word))
    }

    /// Frees the block at `granule`, whose head says ALLOCATED or CLAIMED by the lane (or its participant), and merges
    /// it with the free blocks on both sides. A head that somebody has overwritten stays as it is.
    pub(crate) fn release(&self, lane: &Lane, granule: u64) {
        let mut at = granule;
        let mut attempts = 0;
        // `Some` while the block is ours.
        let mut mine = Some(self.word(at));
        while let Some(word) = mine.filter(|word| word.len() > 0 && at + word.len() <= self.granules()) {
            let word = self.absorb_right(lane, at, word);
            match self.left_of(at) {
                Some((left, left_word)) if left_word.len() + word.len() <= MAX_BLOCK => {
                    let Some(total) = self.extend_left(lane, at, word, left, left_word) else {
                        // The left one has changed: look again.
                        mine = Some(self.word(at));
                        continue;
                    };
                    // What was freed on our right in the meantime is now next to a block that is not ours. Take that
                    // one, and let it extend the block in its turn.
                    let right = left + total;
                    mine = self.take_back(lane, right, &mut attempts, self.can_follow(total, right));
                    at = right;
                }
                _ => {
                    let freed = Word::free(word.len(), word.next_generation());
                    self.store_end(at, word.len());
                    self.store(at, freed);
                    // Pairs with the same fence of a neighbour that is being freed, and with the one in `hints`.
                    fence(Ordering::SeqCst);
                    self.hints.set(class_of(freed.len()), at);
                    lane.notes().add(self.index, class_of(freed.len()), at);
                    let mergeable = self.can_follow(freed.len(), at + freed.len())
                        || self.left_of(at).is_some_and(|(_, left)| left.len() + freed.len() <= MAX_BLOCK);
                    mine = self.take_back(lane, at, &mut attempts, mergeable);
                }
            }
        }
    }

    /// Whether a free block stands at `right` that a block of `len` granules before it could absorb.
    fn can_follow(&self, len: u64, right: u64) -> bool {
        right < self.granules() && {
            let word = self.word(right);
            self.is_free_run(right, word) && len + word.len() <= MAX_BLOCK
        }
    }

    /// Claims a free block again if it can be merged, for a limited number of times.
    fn take_back(&self, lane: &Lane, at: u64, attempts: &mut usize, mergeable: bool) -> Option<Word> {
        if *attempts == MERGE_ATTEMPTS || !mergeable {
            return None;
        }
        *attempts += 1;
        let word = self.word(at);
        let claimed = Word::claimed(lane.id(), word.len(), word.generation());
        (self.is_free_run(at, word) && self.replace(at, word, claimed)).then_some(claimed)
    }

    /// Merges free blocks on the right into the lane's block at `at`; returns its new word.
    fn absorb_right(&self, lane: &Lane, at: u64, mut word: Word) -> Word {
        loop {
            let right = at + word.len();
            if right >= self.granules() {
                return word;
            }
            let free = self.word(right);
            if !self.is_free_run(right, free) || word.len() + free.len() > MAX_BLOCK {
                return word;
            }
            lane.intend(Intent::Range { sector: self.index, granule: right, len: free.len() });
            if self.replace(right, free, free.into_interior()) {
                let len = word.len() + free.len();
                let whole = Word::claimed(lane.id(), len, word.generation());
                self.store_end(at, len);
                self.store(at, whole);
                // The granule before the seam was our END.
                if word.len() > 1 {
                    self.store(right - 1, self.word(right - 1).into_interior());
                }
                word = whole;
                lane.count(Counter::Merge);
            }
            lane.done();
        }
    }

    /// Lets the free block on the left grow over the lane's block; returns the new length. `None` if the left one has
    /// changed: the block is ours as before.
    fn extend_left(&self, lane: &Lane, at: u64, word: Word, left: u64, left_word: Word) -> Option<u64> {
        let total = left_word.len() + word.len();
        lane.intend(Intent::Range { sector: self.index, granule: at, len: word.len() });
        if word.len() == 1 {
            self.store(at, word.into_end(total));
        } else {
            self.store_end_of(at, word.len(), total);
            self.store(at, word.into_interior());
        }
        if self.replace(left, left_word, Word::free(total, left_word.next_generation())) {
            // Pairs with the same fence of a neighbour that is being freed, and with the one in `hints`.
            fence(Ordering::SeqCst);
            if class_of(total) != class_of(left_word.len()) {
                self.hints.set(class_of(total), left);
            }
            lane.notes().add(self.index, class_of(total), left);
            lane.done();
            lane.count(Counter::Merge);
            return Some(total);
        }
        self.store_end(at, word.len());
        // Another generation, so that a reaper which saw no head here before sees that there was one in between.
        self.store(at, Word::claimed(lane.id(), word.len(), word.next_generation()));
        lane.done();
        None
    }

    /// Tags the last granule of a run with the length of the block it will be the end of.
    #[cfg_attr(crash_points, track_caller)]
    fn store_end_of(&self, granule: u64, len: u64, total: u64) {
        let last = granule + len - 1;
        self.store(last, self.word(last).into_end(total));
    }

    /// Takes the block of somebody who is dead, wipes it, and frees it, if its word is still the one that was seen;
    /// `false` if not.
    pub(crate) fn seize(&self, lane: &Lane, granule: u64, word: Word, wipe: impl FnOnce()) -> bool {
        let claimed = Word::claimed(lane.id(), word.len(), word.generation());
        let seized = word.len() > 0 && granule + word.len() <= self.granules() && self.replace(granule, word, claimed);
        if seized {
            wipe();
            self.release(lane, granule);
        }
        seized
    }

    /// Sets the hint of a free block, whoever forgot it.
    pub(crate) fn repair_hint(&self, granule: u64, word: Word) {
        if self.is_free_run(granule, word) {
            self.hints.set(class_of(word.len()), granule);
        }
    }

    /// The sector's number.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Bytes of so many granules.
    #[inline(always)]
    pub(crate) fn bytes(&self, granules: u64) -> u64 {
        granules << self.granule_log
    }

    /// How many granules so many bytes fill.
    #[inline(always)]
    pub(crate) fn whole_granules(&self, bytes: u64) -> u64 {
        bytes >> self.granule_log
    }

    /// How many granules have room for so many bytes: one at least.
    #[inline(always)]
    pub(crate) fn granules_for(&self, bytes: usize) -> u64 {
        (bytes.saturating_sub(1) as u64 >> self.granule_log) + 1
    }

    /// What all blocks of the sector are aligned to, in bytes: a granule, or a page if that is less.
    #[inline(always)]
    pub(crate) fn alignment(&self) -> u64 {
        self.bytes(1).min(PAGE)
    }

    /// The hint maps.
    pub(crate) fn hints(&self) -> &Hints {
        &self.hints
    }
}
