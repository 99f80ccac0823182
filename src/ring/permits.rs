//! Who has reserved how much of a ring's capacity: a count per participant, a bitmap of those who may have any, and two
//! words for wishes.
//!
//! | word | writer | meaning |
//! |---|---|---|
//! | `holders` | the participant; its reaper | bit `p`: participant `p` has reserved something since it opened the channel, so its count must be read |
//! | `counts[p]` | participant `p`; its reaper; who concludes its bid | `tag:32 \| count:32`: permits that it holds, and those that it is trying to get; the number of the last bid that it won |
//! | `bid` | anybody | a wish that is being decided: whoever finds it [concludes](Permits::contend) it |
//! | `line` | its participant; its reaper; who passes it over | the wish of who stands in line ([`attachment::reserve`](crate::attachment)) |
//! | `told` | anybody | `number:32 \| time:32`: since when there has been something to do for who stands in line, in milliseconds |
//! | `absent` | anybody, by one step | of a semaphore: permits that are forgotten, less those that were added |
//!
//! Never a counter of what is held that all share: that of a participant that dies is known, and its reaper sets it to 0. A participant's bit
//! is set before its count is first raised, and before it wishes; it stays until the participant leaves the channel: a send looks at one
//! read-mostly line, and at a count only if there may be one.
//!
//! `k`, the sum of all counts and of both wishes, may be too high (of one who tries in vain, of one whose message has just been put
//! in), but never too low: see [`Ring::grant`](super::Ring::grant). Whoever sums up reads the wishes first and then the counts: a wish
//! that is granted is counted before it is gone. A bid whose number the count has is counted already, and not added to it.
//!
//! Nobody is refused because of what was counted twice: permits that pass from one participant to another while somebody reads
//! the one count and then the other. Who finds too little room sums up until two sums in a row were of the same words,
//! 16 times at most ([`Permits::total_of_a_moment`]).
//!
//! # Bids
//!
//! Two who count theirs at the same moment may each be refused because of the other. So who has counted in vain takes its count
//! back, and bids: it puts its wish into `bid`, where there is one at a time. Whoever finds a bid there concludes it first, so nobody
//! waits for anybody:
//!
//! ```text
//! bid      free(s) ─► open(s+1, p, n) ─┬─► granted(s+1, p, n) ─► free(s+1)
//!                                      └─► free(s+1)                          refused
//! conclude open: grant it in the cells, as if it were counted; CAS the word: granted if that went well, else free
//!          granted: counts[p] from tag ≠ s+1 to (tag s+1, count + n); then CAS the word: free
//! ```
//!
//! * The wish is part of `k` from before anybody grants it until the count has it: so the argument of `Ring::grant` holds whoever
//!   does it.
//! * Exactly one CAS decides the word, and the tag lets the count rise once: the count is read before the word is seen to be still
//!   granted, and has the tag from then on.
//! * Of those who try at the same time one gets what there is: the last of their bids to be decided meets nothing that is only
//!   counted, as whoever counts in vain bids later.
//! * A bid of the dead is refused by their reaper, or counted and then forgotten with the rest.
//! * One thread of a process bids at a time; it finds by the tag what became of it.
//!
//! `docs/models/permits.py` is the model.

use std::hash::{DefaultHasher, Hasher};

use crate::{
    region::layout::MAX_PARTICIPANTS,
    sys::{
        shared::{SharedRef, SharedSlice},
        sync::{AtomicU64, Ordering},
    },
};

/// The lower half of a count's word.
const COUNT: u64 = u32::MAX as u64;
/// Where the upper half begins.
const TAG_AT: u32 = 32;

/// How often who is about to be refused sums up at most.
const MOST_LOOKS: usize = if cfg!(loom) { 3 } else { 16 };

/// The most permits of a semaphore: the capacity of its ring. Those that it has not got are absent.
pub(crate) const MOST: u64 = 1 << 24;

/// The process's view of a ring's permits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permits {
    holders: SharedSlice<AtomicU64>,
    counts: SharedSlice<AtomicU64>,
    /// `None` where nobody ever reserves.
    wishes: Option<Wishes>,
    absent: Option<Absent>,
}

/// The words of wishes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wishes {
    bid: SharedRef<AtomicU64>,
    line: SharedRef<AtomicU64>,
    told: SharedRef<AtomicU64>,
}

impl Wishes {
    pub(crate) fn new(bid: SharedRef<AtomicU64>, line: SharedRef<AtomicU64>, told: SharedRef<AtomicU64>) -> Self {
        Self { bid, line, told }
    }
}

/// Somebody wants so many permits: `number:26 | permits − 1:24 | participant:12 | state:2`. The number tells the wishes of a word
/// from each other, and stays when one has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish(u64);

const STATE: u64 = 3;
const OPEN: u64 = 1;
const GRANTED: u64 = 2;
const PARTICIPANT_AT: u32 = 2;
const PARTICIPANT: u64 = (1 << 12) - 1;
const PERMITS_AT: u32 = 14;
const NUMBER_AT: u32 = 38;
const _: () = assert!(MAX_PARTICIPANTS as u64 <= PARTICIPANT + 1 && MOST <= 1 << (NUMBER_AT - PERMITS_AT));

impl Wish {
    /// The one after what stands in the word.
    fn after(word: u64, participant: u16, permits: u32) -> Self {
        // Never 0, which `told` has when nobody is told.
        let number = match (word >> NUMBER_AT).wrapping_add(1) << NUMBER_AT {
            0 => 1 << NUMBER_AT,
            number => number,
        };
        let permits = u64::from(permits).saturating_sub(1).min(MOST - 1) << PERMITS_AT;
        Self(number | permits | u64::from(participant) << PARTICIPANT_AT | OPEN)
    }

    /// What a word says; `None` if nobody wishes anything.
    fn read(word: u64) -> Option<Self> {
        matches!(word & STATE, OPEN | GRANTED).then_some(Self(word))
    }

    fn gone(self) -> u64 {
        self.0 >> NUMBER_AT << NUMBER_AT
    }

    fn granted(self) -> Self {
        Self(self.0 & !STATE | GRANTED)
    }

    fn is_granted(self) -> bool {
        self.0 & STATE == GRANTED
    }

    fn tag(self) -> u64 {
        self.0 >> NUMBER_AT
    }

    pub(crate) fn participant(self) -> u16 {
        (self.0 >> PARTICIPANT_AT & PARTICIPANT) as u16
    }

    pub(crate) fn permits(self) -> u64 {
        (self.0 >> PERMITS_AT & (MOST - 1)) + 1
    }
}

/// Whether there has been something to do for who stands in line for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Since now: it must be woken.
    Now,
    /// For a while.
    Since,
    /// For too long.
    TooLong,
}

/// Permits of a semaphore that nobody can have. Nobody holds them, so no death brings them back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Absent {
    /// How many were absent in the beginning.
    first: u64,
    /// How many more are now, or fewer: a signed number.
    word: SharedRef<AtomicU64>,
}

impl Absent {
    /// Of a semaphore that was made with so many permits, at most [`MOST`].
    pub(crate) fn new(made: u64, word: SharedRef<AtomicU64>) -> Self {
        Self { first: MOST.saturating_sub(made), word }
    }

    fn of(&self, word: u64) -> u64 {
        // Garbage gives any number of them, but none that overflows what it is added to.
        self.first.saturating_add_signed(word as i64).min(MOST)
    }
}

impl Permits {
    /// A view; a bit in `holders` for each of `counts`.
    pub(crate) fn new(holders: SharedSlice<AtomicU64>, counts: SharedSlice<AtomicU64>, wishes: Option<Wishes>) -> Self {
        debug_assert!(counts.len().div_ceil(64) == holders.len());
        Self { holders, counts, wishes, absent: None }
    }

    /// The same of a semaphore.
    pub(crate) fn with(self, absent: Absent) -> Self {
        Self { absent: Some(absent), ..self }
    }

    /// Words before the counts: `bid` and `told`.
    pub(crate) const WORDS: usize = 2;

    /// Bytes of these words and of the counts of so many participants.
    pub(crate) const fn bytes(participants: usize) -> usize {
        (Self::WORDS + participants) * size_of::<u64>()
    }

    /// Nobody has any. Nobody else may look yet.
    pub(crate) fn format(&self) {
        // Ordering: Relaxed: publication of the channel orders all of it.
        self.counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        self.holders.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        if let Some(Wishes { bid, line, told }) = &self.wishes {
            [bid, line, told].into_iter().for_each(|word| word.store(0, Ordering::Relaxed));
        }
    }

    /// How many are held, wanted or absent, at least.
    #[inline(always)]
    pub(crate) fn total(&self) -> u64 {
        // Ordering: SeqCst: a sender that parks looks here again, see `notify`. (For the capacity Acquire would do: whoever
        // sees a count go down sees the message that it went down for.)
        let held = if self.holders.iter().all(|word| word.load(Ordering::SeqCst) == 0) { 0 } else { self.sum() };
        // In this order, against `lose`: what is not seen among the held any more is seen here.
        if self.absent.is_some() { held + self.absent() } else { held }
    }

    /// Whether anybody holds any. What is only wished for does not count: whoever is granted a wish looks, after it is counted, whether
    /// the channel was closed.
    pub(crate) fn are_held(&self) -> bool {
        self.holders.iter().any(|word| word.load(Ordering::SeqCst) != 0)
            && self.counts.iter().any(|count| count.load(Ordering::SeqCst) & COUNT > 0)
    }

    /// How many a semaphore lacks.
    pub(crate) fn absent(&self) -> u64 {
        // Ordering: SeqCst, as in `total`.
        self.absent.map_or(0, |absent| absent.of(absent.word.load(Ordering::SeqCst)))
    }

    /// How many a semaphore has, or had when it was made, whatever is more.
    pub(crate) fn most(&self) -> u64 {
        let first = self.absent.map_or(0, |absent| absent.first);
        MOST - first.min(self.absent())
    }

    /// So many that the participant holds are absent from now on. If it is killed on the way they are absent, or they come back.
    pub(crate) fn lose(&self, participant: u16, permits: u32) {
        if let Some(absent) = self.absent {
            // Ordering: SeqCst: first absent, then not held any more. In between there seem to be fewer, never more.
            absent.word.fetch_add(u64::from(permits), Ordering::SeqCst);
            self.sub(participant, permits);
        }
    }

    /// So many are absent no more; fewer if there are not so many. How many.
    pub(crate) fn gain(&self, permits: u64) -> u64 {
        let Some(absent) = self.absent else { return 0 };
        let mut gained = 0;
        // Ordering: SeqCst: before the look at who waits for room.
        let _ = absent.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| {
            gained = permits.min(absent.of(word));
            (gained > 0).then(|| word.wrapping_sub(gained))
        });
        gained
    }

    #[cold]
    fn sum(&self) -> u64 {
        self.collect(|_| {})
    }

    /// Adds up what is held, wanted or wished for, and shows each word that says so.
    fn collect(&self, mut show: impl FnMut(u64)) -> u64 {
        let mut read = |word: &AtomicU64| {
            // Ordering: SeqCst, as in `total`.
            let word = word.load(Ordering::SeqCst);
            show(word);
            word
        };
        // First: what is granted is counted before the wish is gone.
        let (mut bid, line) = match &self.wishes {
            Some(Wishes { bid, line, .. }) => (Wish::read(read(bid)), Wish::read(read(line))),
            None => (None, None),
        };
        let mut sum = line.map_or(0, Wish::permits);
        for (index, (word, counts)) in self.holders.iter().zip(self.counts.chunks(64)).enumerate() {
            let mut bits = read(word);
            while bits != 0 {
                let place = bits.trailing_zeros();
                let count = counts.get(place as usize).map_or(0, &mut read);
                // The bid was granted, and is counted: its word says so for a moment longer.
                let is_its = |bid: Wish| usize::from(bid.participant()) == 64 * index + place as usize;
                bid = bid.filter(|bid| !(is_its(*bid) && count >> TAG_AT == bid.tag()));
                sum += count & COUNT;
                bits &= bits - 1;
            }
        }
        sum + bid.map_or(0, Wish::permits)
    }

    /// The same as [`total`](Self::total), of one moment: permits that pass from one participant to another meanwhile are not
    /// counted for both. `None` if nobody has any, and what `total` says is of one moment.
    ///
    /// No sum is too low. So if others change the words all the time, the least of several sums is as good
    /// as nearly always.
    #[cold]
    #[inline(never)]
    pub(crate) fn total_of_a_moment(&self) -> Option<u64> {
        if self.holders.iter().all(|word| word.load(Ordering::SeqCst) == 0) {
            return None;
        }
        let look = || {
            let mut seen = DefaultHasher::new();
            let sum = self.collect(|word| seen.write_u64(word));
            let absent = self.absent();
            seen.write_u64(absent);
            (sum + absent, seen.finish())
        };
        let mut before = look();
        let mut least = before.0;
        for _ in 0..MOST_LOOKS {
            let now = look();
            if now == before {
                return Some(now.0);
            }
            least = least.min(now.0);
            before = now;
        }
        Some(least)
    }

    /// Counts so many for the participant, before it tries to get them.
    pub(crate) fn add(&self, participant: u16, permits: u32) {
        self.hold(participant);
        self.counts[usize::from(participant)].fetch_add(u64::from(permits), Ordering::SeqCst);
    }

    /// From now on the participant may have permits, or wish for some.
    fn hold(&self, participant: u16) {
        let (word, bit) = self.holder(participant);
        // Ordering: SeqCst: bit, then count or wish, then the CAS that grants. Whoever sees the cell that the CAS has changed sees
        // both.
        if word.load(Ordering::SeqCst) & bit == 0 {
            word.fetch_or(bit, Ordering::SeqCst);
        }
    }

    /// They were used, or are given back.
    #[inline]
    pub(crate) fn sub(&self, participant: u16, permits: u32) {
        // Ordering: SeqCst: after the CAS of the message, so that whoever sees less here sees the message there; and
        // before the look at who waits for room.
        self.counts[usize::from(participant)].fetch_sub(u64::from(permits), Ordering::SeqCst);
    }

    /// Bids for so many permits, after all that were counted at the same time; whether they are the participant's now. `grant`
    /// grants what is counted and wished for. One thread of a process at a time.
    ///
    /// Lock-free: who is in the way is helped.
    pub(crate) fn contend(&self, participant: u16, permits: u32, grant: impl Fn() -> bool) -> bool {
        let Some(Wishes { bid, .. }) = &self.wishes else { return false };
        self.hold(participant);
        loop {
            // Ordering: SeqCst here and below: the wish, then the cells, then the counts.
            let word = bid.load(Ordering::SeqCst);
            if let Some(theirs) = Wish::read(word) {
                self.conclude(theirs, &grant);
                continue;
            }
            let mut mine = Wish::after(word, participant, permits);
            if mine.tag() == self.count_of(participant) >> TAG_AT {
                // The last one that it won was as many bids ago as there are numbers.
                mine = Wish::after(mine.0, participant, permits);
            }
            if bid.compare_exchange(word, mine.0, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                self.conclude(mine, &grant);
                return self.count_of(participant) >> TAG_AT == mine.tag();
            }
        }
    }

    /// Decides the bid that there is, if there is one: whoever made it may stand still.
    pub(crate) fn help(&self, grant: impl Fn() -> bool) {
        if let Some(bid) = self.bid() {
            self.conclude(bid, grant);
        }
    }

    /// Whether somebody bids.
    pub(crate) fn has_bid(&self) -> bool {
        self.bid().is_some()
    }

    fn bid(&self) -> Option<Wish> {
        // Ordering: SeqCst, as in `contend`.
        Wish::read(self.wishes.as_ref()?.bid.load(Ordering::SeqCst))
    }

    /// Decides a bid, unless somebody else does, and does what follows from that.
    fn conclude(&self, wish: Wish, grant: impl Fn() -> bool) {
        let Some(Wishes { bid, .. }) = &self.wishes else { return };
        let granted = wish.granted();
        if !wish.is_granted() {
            let decided = if grant() { granted.0 } else { wish.gone() };
            // Who is first has decided, whatever we have found.
            let _ = bid.compare_exchange(wish.0, decided, Ordering::SeqCst, Ordering::SeqCst);
        }
        if let Some(count) = self.counts.get(usize::from(wish.participant())) {
            loop {
                // In this order: a count that is read while the word is granted has the tag, or nobody has raised it.
                let before = count.load(Ordering::SeqCst);
                if bid.load(Ordering::SeqCst) != granted.0 {
                    return;
                }
                if before >> TAG_AT == wish.tag() {
                    break;
                }
                let after = wish.tag() << TAG_AT | (before & COUNT).wrapping_add(wish.permits()) & COUNT;
                if count.compare_exchange(before, after, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                    break;
                }
            }
        }
        let _ = bid.compare_exchange(granted.0, wish.gone(), Ordering::SeqCst, Ordering::SeqCst);
    }

    fn count_of(&self, participant: u16) -> u64 {
        self.counts.get(usize::from(participant)).map_or(0, |count| count.load(Ordering::SeqCst))
    }

    /// Who stands in line, and for how many.
    #[inline]
    pub(crate) fn in_line(&self) -> Option<Wish> {
        // Ordering: SeqCst: whoever makes room looks here afterwards, and who goes into the line looks for room afterwards.
        Wish::read(self.wishes.as_ref()?.line.load(Ordering::SeqCst))
    }

    /// The participant goes to the head of the line, if that is free: from now on nobody gets past what it wants.
    pub(crate) fn stand_in_line(&self, participant: u16, permits: u32) -> Option<Wish> {
        let line = &self.wishes.as_ref()?.line;
        self.hold(participant);
        // Ordering: SeqCst: before the look at the cells, as the clear is before the look at who waits.
        let word = line.load(Ordering::SeqCst);
        if Wish::read(word).is_some() {
            return None;
        }
        let mine = Wish::after(word, participant, permits);
        line.compare_exchange(word, mine.0, Ordering::SeqCst, Ordering::Relaxed).is_ok().then_some(mine)
    }

    /// A wish does not stand in line any more; `false` if it had been passed over.
    pub(crate) fn leave_line(&self, wish: Wish) -> bool {
        self.wishes.as_ref().is_some_and(|wishes| {
            // Ordering: SeqCst: before the look at who waits for room.
            wishes.line.compare_exchange(wish.0, wish.gone(), Ordering::SeqCst, Ordering::Relaxed).is_ok()
        })
    }

    /// What stood in line was granted in the cells, and is counted from now on; `false` if it has been passed over meanwhile.
    pub(crate) fn count_in_line(&self, wish: Wish) -> bool {
        let permits = wish.permits() as u32;
        self.add(wish.participant(), permits);
        let stood = self.leave_line(wish);
        if !stood {
            self.sub(wish.participant(), permits);
        }
        stood
    }

    /// There is something to do for who stands in line, at that time: since when.
    pub(crate) fn is_due(&self, wish: Wish, now: u32, patience: u32) -> Due {
        let Some(Wishes { told, .. }) = &self.wishes else { return Due::Since };
        let word = told.load(Ordering::SeqCst);
        if word >> TAG_AT == wish.tag() {
            return if now.wrapping_sub(word as u32) < patience { Due::Since } else { Due::TooLong };
        }
        let since = wish.tag() << TAG_AT | u64::from(now);
        // Ordering: SeqCst: who stands in line takes this back, then looks for room.
        match told.compare_exchange(word, since, Ordering::SeqCst, Ordering::Relaxed) {
            Ok(_) => Due::Now,
            Err(_) => Due::Since,
        }
    }

    /// Who stands in line looks for room now; or there is nothing to do for it.
    pub(crate) fn is_not_due(&self, wish: Wish) {
        if let Some(Wishes { told, .. }) = &self.wishes {
            let word = told.load(Ordering::SeqCst);
            if word >> TAG_AT == wish.tag() {
                // Ordering: SeqCst, as above.
                let _ = told.compare_exchange(word, 0, Ordering::SeqCst, Ordering::Relaxed);
            }
        }
    }

    /// Whether the participant may have any.
    pub(crate) fn may_have(&self, participant: u16) -> bool {
        let (word, bit) = self.holder(participant);
        word.load(Ordering::SeqCst) & bit != 0
    }

    /// The participant has none any more, and wants none: it is dead, or leaves the channel. `true` if it had some.
    pub(crate) fn forget(&self, participant: u16) -> bool {
        let mut had = false;
        if let Some(Wishes { bid, .. }) = &self.wishes {
            while let Some(wish) =
                Wish::read(bid.load(Ordering::SeqCst)).filter(|wish| wish.participant() == participant)
            {
                // Refused, or counted, as somebody has decided.
                self.conclude(wish, || false);
                had = true;
            }
        }
        if let Some(wish) = self.in_line().filter(|wish| wish.participant() == participant) {
            had |= self.leave_line(wish);
        }
        // Ordering: SeqCst: before the look at who waits for room. The tag stays, against who concludes late.
        had |= self.counts[usize::from(participant)].fetch_and(!COUNT, Ordering::SeqCst) & COUNT > 0;
        let (word, bit) = self.holder(participant);
        word.fetch_and(!bit, Ordering::SeqCst);
        had
    }

    fn holder(&self, participant: u16) -> (&AtomicU64, u64) {
        (&self.holders[usize::from(participant) / 64], 1 << (participant % 64))
    }

    /// Permits on heap memory: for models and tests.
    #[cfg(test)]
    pub(crate) fn leak(participants: usize) -> Self {
        Self::new(
            SharedSlice::leak((0..participants.div_ceil(64)).map(|_| AtomicU64::new(0)).collect()),
            SharedSlice::leak((0..participants).map(|_| AtomicU64::new(0)).collect()),
            Some(Wishes {
                bid: SharedRef::leak(AtomicU64::new(0)),
                line: SharedRef::leak(AtomicU64::new(0)),
                told: SharedRef::leak(AtomicU64::new(0)),
            }),
        )
    }
}
