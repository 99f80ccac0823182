//! The process's side of the allocator: blocks come and go, and what is short is had without detours.
//!
//! What ends in `at_hand` is the common case and inlined into whoever calls it, so that it passes values in registers; all
//! that is out of the ordinary is in functions of its own, which take longer anyway.

use std::{
    cell::Cell,
    ptr::NonNull,
    sync::atomic::{Ordering, fence},
};

use crate::{
    alloc::{AllocError, Block, Worker},
    attachment::{Attachment, seats},
    region::lanes::{BlockId, Counter, Lane},
    sys::{membarrier, prefetch, sync::AtomicU64},
    wake::Waiter,
};

/// How many requests before it is had a block is asked for. Measured, messages of 64 bytes between two processors: 46 ns per message
/// with 3, 43 with 8, 43 with 14; where lines move slowly, 127, 107 and 108.
const LOOKAHEAD: u8 = 8;

impl Attachment {
    /// Takes a block of at least `bytes` bytes, letting the segment grow if it must and may.
    ///
    /// # Errors
    ///
    /// [`AllocError`]: there is none now, or never will be.
    #[inline(always)]
    pub(crate) fn allocate(&self, worker: &mut Worker, bytes: usize, align: usize) -> Result<Block, AllocError> {
        if let Some(block) = self.allocate_ahead(worker, bytes, align) {
            return Ok(block);
        }
        let result = self.allocate_slowly(worker, bytes, align);
        // Most probably out of a magazine that was not at hand before.
        (1..=LOOKAHEAD).for_each(|ahead| self.prefetch_upcoming(worker, bytes, ahead));
        result
    }

    /// Takes a short block, if there is one at hand, and asks for one of those that come after it.
    #[inline(always)]
    pub(super) fn allocate_ahead(&self, worker: &mut Worker, bytes: usize, align: usize) -> Option<Block> {
        let block = self.allocator.allocate_at_hand(worker, bytes, align)?;
        self.prefetch_upcoming(worker, bytes, LOOKAHEAD);
        Some(block)
    }

    /// Asks for the block that the request of that size will get which is so many after this one, if it is known.
    #[inline(always)]
    fn prefetch_upcoming(&self, worker: &Worker, bytes: usize, ahead: u8) {
        if let Some(granule) = self.allocator.upcoming(worker, bytes, ahead) {
            prefetch::for_write(self.small_data(granule));
        }
    }

    /// Where the bytes of a granule of the small sector are; anywhere if there is no such granule.
    #[inline(always)]
    fn small_data(&self, granule: u64) -> *const u8 {
        self.small.as_ptr().wrapping_add(self.allocator.sectors()[0].bytes(granule) as usize)
    }

    /// Asks for the bytes of a block, if it is a small one: larger ones are fetched by who reads on.
    #[inline(always)]
    pub(super) fn prefetch(&self, id: BlockId) {
        if id.sector() == 0 {
            prefetch::for_read(self.small_data(id.granule()));
        }
    }

    /// The same for a message that is about to be received, whose word will be written.
    #[inline(always)]
    pub(super) fn prefetch_message(&self, id: BlockId) {
        self.prefetch(id);
        if id.sector() == 0 {
            self.allocator.sectors()[0].prefetch(id.granule());
        }
    }

    #[cold]
    #[inline(never)]
    fn allocate_slowly(&self, worker: &mut Worker, bytes: usize, align: usize) -> Result<Block, AllocError> {
        match self.allocator.allocate(worker, bytes, align) {
            Err(AllocError::OutOfMemory { .. }) => self.allocate_growing(&worker.lane, bytes, align),
            result => result,
        }
    }

    /// Takes a short block, if there is one at hand: where its bytes are, and its generation.
    #[inline(always)]
    pub(crate) fn allocate_at_hand(&self, bytes: usize) -> Option<(NonNull<u8>, u32)> {
        if !self.is_usable() {
            return None;
        }
        // SAFETY: nobody else's code runs while it is used, and none of ours that wants a worker.
        let block = self.allocator.allocate_at_hand(unsafe { seats::at_hand(self) }?, bytes, 1)?;
        // SAFETY: as in `data`. It is in the small sector.
        let data = unsafe { self.small.add(self.allocator.sectors()[0].bytes(block.id.granule()) as usize) };
        Some((data, block.generation))
    }

    /// Takes a block of at least `bytes` bytes, of which there may be `most`: where they are, and its generation.
    ///
    /// # Errors
    ///
    /// As for [`allocate`](Self::allocate), and that this is a forked child.
    #[cold]
    #[inline(never)]
    pub(crate) fn allocate_bytes(&self, bytes: usize, most: usize) -> Result<(NonNull<u8>, u32), AllocError> {
        if !self.is_usable() {
            return Err(AllocError::Forked);
        }
        if bytes > most {
            return Err(match self.allocator.impossible(bytes, 1) {
                AllocError::TooLarge { requested, largest } => {
                    AllocError::TooLarge { requested, largest: largest.min(most) }
                }
                error => error,
            });
        }
        let block = self.with_worker(|worker| self.allocate_slowly(worker, bytes, 1))?;
        Ok((self.data(block), block.generation))
    }

    fn allocate_growing(&self, lane: &Lane, bytes: usize, align: usize) -> Result<Block, AllocError> {
        let full = Cell::new(false);
        let provide = |sector, from, to, last| {
            // Where more than one step is needed, and there is no room for all of them, the first would be taken in vain.
            let has_room = to == last || self.region.has_room(sector, from, last);
            full.set(!has_room || !self.region.provide(sector, from, to));
            !full.get()
        };
        let grown = self.allocator.allocate_growing(lane, bytes, align, provide);
        if grown.is_err() && full.get() {
            let may_grow = |sector, from, to| self.region.could_have_room(sector, from, to);
            return Err(match self.allocator.longest_within(bytes, align, may_grow) {
                (largest, false) => AllocError::TooLarge { requested: bytes, largest },
                (_, true) => AllocError::NoRoom { requested: bytes, free: self.region.free_bytes() },
            });
        }
        grown
    }

    /// The first byte of a block.
    #[inline(always)]
    pub(crate) fn data(&self, block: Block) -> NonNull<u8> {
        let sector = &self.region.header().layout.sectors[block.id.sector()];
        let at = sector.data_at + sector.bytes(block.id.granule());
        debug_assert!(at + sector.bytes(block.len) <= self.region.mapping().len() as u64);
        // SAFETY: a block lies within its sector, whose place was computed from checked parameters: `Block`s are only
        // made by the allocator, which checks every granule and length against the sector.
        unsafe { self.region.mapping().base().add(at as usize) }
    }

    /// The first `len` bytes of a block that nobody else knows of, or has lost interest in.
    ///
    /// `len` is at most the length of the block.
    #[allow(clippy::mut_from_ref)]
    pub(super) fn bytes_mut(&self, block: Block, len: usize) -> &mut [u8] {
        assert!(len <= self.allocator.bytes_of(block));
        // SAFETY: within the block (checked), which the caller's lane owns and nobody else looks at: it was allocated
        // by the caller just now, or received. Shared memory is always initialised.
        unsafe { std::slice::from_raw_parts_mut(self.data(block).as_ptr(), len) }
    }

    /// The first word of a block, whoever owns it: a guess, unless the caller finds out that nobody has written to it in
    /// the meantime.
    pub(super) fn first_word(&self, block: Block) -> u64 {
        // SAFETY: a block is mapped as long as we live, is at least one granule long, and granules are aligned to 64
        // bytes at least. An atomic load, because whoever owns the block by now may be writing there.
        let word = unsafe { self.data(block).cast::<AtomicU64>().as_ref() }.load(Ordering::Relaxed);
        // Ordering: the caller's next look comes after the load.
        fence(Ordering::Acquire);
        word
    }

    /// Frees a block of this process, and wakes who waits for memory.
    #[inline(always)]
    pub(crate) fn free(&self, block: Block) {
        let Block { id, generation, .. } = block;
        if !self.free_at_hand(id, generation, self.allocator.bytes_of(block)) {
            self.free_slowly(id, generation);
        }
    }

    /// Frees a block of this process by where its bytes are, and how many it was asked for.
    #[inline(always)]
    pub(crate) fn free_bytes(&self, data: NonNull<u8>, generation: u32, bytes: usize) {
        if !self.small_at(data).is_some_and(|id| self.free_at_hand(id, generation, bytes)) {
            self.free_at(data, generation);
        }
    }

    #[cold]
    #[inline(never)]
    fn free_at(&self, data: NonNull<u8>, generation: u32) {
        self.free_slowly(self.id_at(data), generation);
    }

    /// The block that begins there, if it is in the small sector.
    #[inline(always)]
    pub(super) fn small_at(&self, data: NonNull<u8>) -> Option<BlockId> {
        let offset = data.addr().get().wrapping_sub(self.small.addr().get()) as u64;
        let small = &self.allocator.sectors()[0];
        let granule = small.whole_granules(offset);
        // A granule's number fits.
        (granule < small.most()).then_some(BlockId(granule as u32))
    }

    /// The block that begins there, in whichever sector.
    #[cold]
    #[inline(never)]
    pub(super) fn id_at(&self, data: NonNull<u8>) -> BlockId {
        let at = (data.addr().get() - self.region.mapping().base().addr().get()) as u64;
        let sectors = &self.region.header().layout.sectors;
        // The sectors follow one another.
        let is_in = |index: &usize| sectors[*index].granules > 0 && sectors[*index].data_at <= at;
        let index = (0..sectors.len()).rev().find(is_in).unwrap_or(0);
        BlockId::new(index, self.allocator.sectors()[index].whole_granules(at - sectors[index].data_at))
    }

    /// Frees a block that is in the small sector and as long as a request for so many bytes, if nothing out of the ordinary is
    /// needed.
    #[inline(always)]
    fn free_at_hand(&self, id: BlockId, generation: u32, bytes: usize) -> bool {
        // SAFETY: nobody else's code runs while it is used, and none of ours that wants a worker.
        let Some(worker) = (unsafe { self.seat_to_free() }) else { return false };
        let is_freed = self.allocator.free_at_hand(worker, id, generation, bytes);
        self.was_freed(is_freed)
    }

    /// The thread's seat, if that is in front and what is freed there needs nothing else.
    ///
    /// # Safety
    ///
    /// As for [`seats::at_hand`].
    #[allow(clippy::mut_from_ref)] // As there.
    #[inline(always)]
    pub(super) unsafe fn seat_to_free(&self) -> Option<&mut Worker> {
        if !self.is_usable() || self.zero_on_free {
            return None;
        }
        // SAFETY: the caller's.
        unsafe { seats::at_hand(self) }
    }

    /// Wakes who waits for memory, if some was freed.
    #[inline(always)]
    pub(super) fn was_freed(&self, is_freed: bool) -> bool {
        if is_freed && self.memory.parked() {
            self.memory_was_freed();
        }
        is_freed
    }

    #[cold]
    #[inline(never)]
    fn free_slowly(&self, id: BlockId, generation: u32) {
        if !self.is_usable() {
            return;
        }
        // Not there any more if its sector is in quarantine.
        if let Some(block) = self.allocator.find(id, generation) {
            self.wipe(block);
            self.with_worker(|worker| self.allocator.free(worker, block));
        }
        self.memory_was_freed();
    }

    /// Overwrites a block of this process that is about to be freed, if the segment wants that.
    pub(super) fn wipe(&self, block: Block) {
        if self.zero_on_free {
            self.bytes_mut(block, self.allocator.bytes_of(block)).fill(0);
        }
    }

    /// Wakes who waits for memory.
    #[cold]
    pub(super) fn memory_was_freed(&self) {
        // What was freed is seen by who parks after this look, and who parked before is seen by it: the waiter has
        // made all processes pass a full fence in between (`wait_for_memory`).
        if self.memory.parked() {
            self.memory.wake_all();
        }
    }

    /// A place among those who wait for memory. Try again before you sleep.
    pub(crate) fn wait_for_memory(&self) -> Waiter {
        let waiter = self.memory.listen();
        self.with_worker(|worker| worker.lane.count(Counter::Wait));
        // Frees have no locked instruction. Where the kernel refuses this call, the watchdog makes good for it.
        let _ = membarrier::everywhere();
        waiter
    }
}
