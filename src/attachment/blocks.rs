//! Users' blocks: the process's side of [`crate::blocks::guard`].
//!
//! In shared memory a participant has one bit per block that it reads. How many guards its threads have is known in
//! [`Guards`] only: the first sets the bit, the last clears it, both under the lock. Lock order: a lane, then the guards.

use std::{
    collections::{HashMap, hash_map::Entry},
    ptr::NonNull,
    time::{Duration, Instant},
};

use crate::{
    alloc::{
        AllocError, Block, Worker,
        sector::Sector,
        word::{State, Word},
    },
    attachment::{Attachment, seats},
    blocks::{
        HandleError, TryGuardError,
        current::Judged,
        guard::{Header, Place, Visited, header_bytes},
    },
    region::lanes::{BlockId, Lane, LaneId},
    sys::{
        held::{Mutex, MutexGuard},
        sync::AtomicU64,
    },
    wake::WATCHDOG,
};

/// How many read guards this process has, of which blocks.
#[derive(Debug, Default)]
pub(super) struct Guards(Mutex<HashMap<BlockId, usize>>);

impl Guards {
    fn lock(&self) -> MutexGuard<'_, HashMap<BlockId, usize>> {
        self.0.lock()
    }
}

/// What a guard is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// How long to wait for a guard.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    None,
    Until(Instant),
    Endless,
}

/// What came of an attempt to get a guard.
enum Attempt {
    Entered,
    Busy,
    /// Sleep, if `turn` is still this.
    Wait(u32),
}

impl Attachment {
    /// How many participants there may be.
    fn participants(&self) -> usize {
        self.region().header().params.participants as usize
    }

    /// Bytes before the payload of a user's block, if that needs no larger alignment.
    pub(crate) fn header_bytes(&self) -> usize {
        header_bytes(self.participants())
    }

    fn place(&self, block: Block) -> Place<'_> {
        // SAFETY: the block is at least a granule long, which has room for a header, and aligned to 64 bytes at least; the
        // mapping outlives the view. The rules in `guard` say when it may be looked at.
        let header = unsafe { Header::new(self.data(block), self.allocator().bytes_of(block), self.participants()) };
        let sector = &self.allocator().sectors()[block.id.sector()];
        Place { sector, lanes: self.region().lanes(), header, block }
    }

    /// Goes to a block's header, and frees the block if that was what was in the way.
    fn visit<R>(&self, block: Block, go: impl FnOnce(&Place<'_>, &Lane) -> Visited<R>) -> Result<R, HandleError> {
        if !self.is_usable() {
            return Err(HandleError::Forked);
        }
        let place = self.place(block);
        let visited = self.with_worker(|worker: &mut Worker| {
            let visited = go(&place, &worker.lane);
            if visited.abandoned {
                self.wipe(block);
                self.allocator().free(worker, block);
            }
            visited
        });
        if visited.abandoned {
            self.memory_was_freed();
        }
        visited.found.ok_or(HandleError::Stale)
    }

    /// Looks at the header of a block, if the block is still there, or changes it.
    pub(crate) fn with_header<R>(
        &self,
        block: Block,
        touch: impl FnOnce(&Header, Word) -> R,
    ) -> Result<R, HandleError> {
        self.visit(block, |place, lane| place.enter(lane, touch))
    }

    /// Makes a block with a payload of `len` bytes, which `fill` writes. Returns the block and where its payload begins.
    pub(crate) fn allocate_shared(
        &self,
        len: usize,
        align: usize,
        kind: u64,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(Block, usize), AllocError> {
        let start = self.header_bytes().max(align);
        let for_user = |error| match error {
            AllocError::TooLarge { largest, .. } => {
                AllocError::TooLarge { requested: len, largest: largest.saturating_sub(start) }
            }
            AllocError::OutOfMemory { .. } => AllocError::OutOfMemory { requested: len },
            AllocError::NoRoom { free, .. } => AllocError::NoRoom { requested: len, free },
            other => other,
        };
        if !self.is_usable() {
            return Err(AllocError::Forked);
        }
        let bytes = len.saturating_add(start);
        self.with_worker(|worker| {
            let block = self.allocate(worker, bytes, align).map_err(for_user)?;
            // Until the word says SHARED the block is this lane's alone, and whoever buries it frees it.
            fill(&mut self.bytes_mut(block, bytes)[start..]);
            self.place(block).header.format(start, len, kind);
            self.allocator().set_shared(worker.lane.id(), block);
            Ok((block, start))
        })
    }

    /// Makes a block of this process one that others find, as [`allocate_shared`](Self::allocate_shared) does.
    pub(super) fn share(&self, block: Block, start: usize, len: usize, kind: u64) {
        self.place(block).header.format(start, len, kind);
        self.with_worker(|worker| self.allocator().set_shared(worker.lane.id(), block));
    }

    /// The segment takes over a block of this process that is named by `word`; `true` if it is not named any more, and must
    /// be doomed.
    pub(super) fn hand_over(&self, block: Block, word: &AtomicU64) -> bool {
        self.place(block).hand_over(word)
    }

    /// The user's block of a handle, if it is there now.
    pub(crate) fn find_shared(
        &self,
        id: BlockId,
        generation: u32,
        expected: &'static str,
    ) -> Result<Block, HandleError> {
        if !self.is_usable() {
            return Err(HandleError::Forked);
        }
        let (sector, word) = self.allocator().word_of(id).ok_or(HandleError::Nonsense)?;
        if word.generation() != generation || word.len() == 0 || id.granule() + word.len() > sector.granules() {
            return Err(HandleError::Stale);
        }
        match word.state() {
            State::Shared => Ok(Block { id, len: word.len(), generation }),
            State::Loose => Err(HandleError::WrongType { expected }),
            _ => Err(HandleError::Stale),
        }
    }

    /// Gives a raw block of this process away, by where its bytes are. Whoever has its number and generation may take it.
    #[inline(always)]
    pub(crate) fn give_away(&self, data: NonNull<u8>, generation: u32) -> BlockId {
        let id = self.small_at(data).unwrap_or_else(|| self.id_at(data));
        if self.is_usable() {
            self.allocator().set_loose(id, generation);
        }
        id
    }

    /// Takes a short raw block that was given away, if that needs nothing out of the ordinary: where its bytes are, what its
    /// generation is from now on, and how many there are.
    #[inline(always)]
    pub(crate) fn take_loose_at_hand(&self, id: BlockId, generation: u32) -> Option<(NonNull<u8>, u32, usize)> {
        if !self.is_usable() || id.sector() != 0 {
            return None;
        }
        // SAFETY: nobody else's code runs while it is used, and none of ours that wants a worker.
        let worker = unsafe { seats::at_hand(self) }?;
        let block = self.allocator().take_loose(worker.lane.id(), id, generation)?;
        let bytes = |granules| self.allocator().sectors()[0].bytes(granules) as usize;
        // SAFETY: as in `data`. It is in the small sector.
        let data = unsafe { self.small.add(bytes(id.granule())) };
        Some((data, block.generation, bytes(block.len)))
    }

    /// Takes any raw block that was given away.
    #[cold]
    #[inline(never)]
    pub(crate) fn take_loose(&self, id: BlockId, generation: u32) -> Result<(NonNull<u8>, u32, usize), HandleError> {
        if !self.is_usable() {
            return Err(HandleError::Forked);
        }
        if let Some(block) = self.with_worker(|worker| self.allocator().take_loose(worker.lane.id(), id, generation)) {
            return Ok((self.data(block), block.generation, self.allocator().bytes_of(block)));
        }
        let (_, word) = self.allocator().word_of(id).filter(|_| generation >> 24 == 0).ok_or(HandleError::Nonsense)?;
        let is_users = word.state() == State::Shared && word.generation() == generation;
        Err(if is_users { HandleError::WrongType { expected: "a raw block" } } else { HandleError::Stale })
    }

    /// Frees a short raw block that was given away, if that needs nothing out of the ordinary.
    #[inline(always)]
    pub(crate) fn free_loose_at_hand(&self, id: BlockId, generation: u32) -> bool {
        // SAFETY: nobody else's code runs while it is used, and none of ours that wants a worker.
        let Some(worker) = (unsafe { self.seat_to_free() }) else { return false };
        let is_freed = self.allocator().free_loose_at_hand(worker, id, generation);
        self.was_freed(is_freed)
    }

    /// The participant that owns a block, by its word.
    pub(crate) fn owner_of(&self, word: Word) -> Option<u16> {
        self.region().lanes().owner(word.lane())
    }

    /// Frees a block: at once if nobody is in it, or when the last guard goes. `only_own`: only if this process owns it.
    pub(crate) fn doom(&self, block: Block, only_own: bool) -> Result<(), HandleError> {
        let me = self.region().me();
        let may = |word| !only_own || self.owner_of(word) == Some(me);
        self.visit(block, |place, lane| place.doom(lane, may))
            .and_then(|doomed| doomed.then_some(()).ok_or(HandleError::Stale))
    }

    /// Makes a block this process's own, whoever owned it.
    pub(crate) fn adopt(&self, block: Block) -> Result<(), HandleError> {
        let adopted = self.visit(block, |place, lane| {
            place.enter(lane, |_, word| {
                let mine = Word::shared(lane.id(), word.len(), word.generation());
                place.sector.replace(block.id.granule(), word, mine)
            })
        })?;
        adopted.then_some(()).ok_or(HandleError::Stale)
    }

    /// Gets a guard. Nothing of the block is freed, and nobody gets in who must not, until [`release`](Self::release).
    pub(crate) fn acquire(&self, block: Block, access: Access, patience: Patience) -> Result<(), TryGuardError> {
        let mut claimed = false;
        let outcome = loop {
            let attempt = self.with_header(block, |header, _| {
                let mut attempt = || match access {
                    Access::Read => self.begin_read(header, block.id),
                    Access::Write => {
                        let me = self.region().me();
                        claimed = claimed || header.claim_write(me);
                        claimed && header.start_write(me)
                    }
                };
                if attempt() {
                    return Attempt::Entered;
                }
                if matches!(patience, Patience::None) {
                    return Attempt::Busy;
                }
                let turn = header.enrol();
                if attempt() { Attempt::Entered } else { Attempt::Wait(turn) }
            });
            let turn = match attempt {
                Ok(Attempt::Entered) => return Ok(()),
                Ok(Attempt::Busy) => break TryGuardError::Busy,
                Ok(Attempt::Wait(turn)) => turn,
                Err(error) => break error.into(),
            };
            let now = Instant::now();
            let time = match patience {
                Patience::Until(then) => then.saturating_duration_since(now).min(WATCHDOG),
                Patience::None | Patience::Endless => WATCHDOG,
            };
            if time == Duration::ZERO {
                break TryGuardError::Busy;
            }
            // If the block is freed meanwhile, this is a look at other memory by the kernel, and a sleep that is too long
            // by a watchdog at most.
            self.place(block).header.sleep(turn, time);
            if now.elapsed() >= WATCHDOG {
                self.bury_the_dead();
            }
        };
        if claimed {
            self.leave_block(block, Header::end_write);
        }
        Err(outcome)
    }

    /// One more reader in this process, if no writer is in the way.
    fn begin_read(&self, header: &Header, id: BlockId) -> bool {
        let mut guards = self.guards.lock();
        match guards.entry(id) {
            Entry::Occupied(mut count) => {
                let entered = header.begin_read_again();
                *count.get_mut() += usize::from(entered);
                entered
            }
            Entry::Vacant(vacant) => {
                let entered = header.begin_read(self.region().me());
                if entered {
                    vacant.insert(1);
                }
                entered
            }
        }
    }

    /// Goes to the header of a block in which this process has a mark.
    fn leave_block(&self, block: Block, touch: impl FnOnce(&Header)) {
        // In a forked child there is nothing to be done.
        let _ = self.visit(block, |place, lane| place.leave(lane, touch));
    }

    /// Gives up a guard.
    pub(crate) fn release(&self, block: Block, access: Access) {
        self.leave_block(block, |header| match access {
            Access::Write => header.end_write(),
            Access::Read => {
                let mut guards = self.guards.lock();
                let Entry::Occupied(mut count) = guards.entry(block.id) else { return };
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                    header.end_read(self.region().me());
                }
            }
        });
    }

    /// Does something to the header of a block of which the caller has a guard.
    pub(crate) fn with_guarded_header<R>(&self, block: Block, touch: impl FnOnce(&Header) -> R) -> R {
        // The guard keeps the block from being freed.
        touch(&self.place(block).header)
    }

    /// The payload of a block, which is `len` bytes from `start` on.
    pub(crate) fn payload(&self, block: Block, start: usize, len: usize) -> NonNull<[u8]> {
        debug_assert!(start + len <= self.allocator().bytes_of(block));
        // SAFETY: within the block, as whoever made the reference has checked.
        let data = unsafe { self.data(block).add(start) };
        NonNull::slice_from_raw_parts(data, len)
    }

    /// A part of burying: takes the marks of dead participants off a user's block, or a watch's, and frees it if they owned it, or
    /// were the last that were in it. `false` if the word has changed.
    pub(super) fn recover_block(
        &self,
        sector: &Sector,
        me: &Lane,
        granule: u64,
        word: Word,
        participants: &[u16],
        dead: impl Fn(LaneId) -> bool,
    ) -> bool {
        if word.len() == 0 || granule + word.len() > sector.granules() {
            return true;
        }
        let id = BlockId::new(sector.index(), granule);
        let block = Block { id, len: word.len(), generation: word.generation() };
        let place = self.place(block);
        let visited = if word.state() == State::Shared {
            place.enter(me, |header, word| {
                participants.iter().for_each(|participant| header.forget(*participant));
                match self.judge(id, word, header, dead(word.lane())) {
                    Judged::Kept => true,
                    Judged::HandedOver => {
                        sector.replace(granule, word, Word::shared(LaneId::SEGMENT, block.len, block.generation))
                    }
                    Judged::Left => {
                        let doomed = sector.replace(granule, word, Word::doomed(block.len, block.generation));
                        if doomed {
                            header.wake();
                        }
                        doomed
                    }
                }
            })
        } else {
            // A collector that died while it looked. If somebody else has done this, the word has changed.
            if dead(word.lane()) && !sector.replace(granule, word, place.doomed()) {
                return false;
            }
            let Visited { found, abandoned } = place.forget_doomed(me, participants);
            Visited { found: found.map(|()| true), abandoned }
        };
        if visited.abandoned {
            self.seize(sector, me, granule, Word::claimed(me.id(), block.len, block.generation));
        }
        visited.found == Some(true)
    }
}
