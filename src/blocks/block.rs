//! [`Block`], [`BlockRef`] and the guards that give access to a payload.

use std::{
    fmt,
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use zerocopy::TryFromBytes;

use crate::{
    alloc::Block as BlockPlace,
    attachment::{
        Anchor, Attachment,
        blocks::{Access, Patience},
    },
    blocks::{
        allocator::{BlockInfo, FIRST_USER_STATE, Handle, info},
        error::{HandleError, StateError, TryGuardError},
    },
    channel::{Payload, Plain},
};

/// What a block may hold: [`Plain`] data, or bytes.
pub trait Content: Payload + Send + Sync + 'static {
    /// The value that these bytes are; `None` if they are none.
    #[doc(hidden)]
    fn view(bytes: &[u8]) -> Option<&Self>;

    /// The value that these bytes are; `None` if they are none.
    #[doc(hidden)]
    fn view_mut(bytes: &mut [u8]) -> Option<&mut Self>;
}

impl<T: Plain> Content for T {
    fn view(bytes: &[u8]) -> Option<&Self> {
        // An array of one has the layout of its element, and is what zerocopy knows the layout of.
        <[T; 1]>::try_ref_from_bytes(bytes).ok().map(|[value]| value)
    }

    fn view_mut(bytes: &mut [u8]) -> Option<&mut Self> {
        <[T; 1]>::try_mut_from_bytes(bytes).ok().map(|[value]| value)
    }
}

impl Content for [u8] {
    fn view(bytes: &[u8]) -> Option<&Self> {
        Some(bytes)
    }

    fn view_mut(bytes: &mut [u8]) -> Option<&mut Self> {
        Some(bytes)
    }
}

/// A reference to a block, of this process or another one. It does not keep the block from being freed: operations then
/// say [`HandleError::Stale`].
///
/// Operations that wait block the thread, so in async code use the `try_` forms, or a thread for blocking work. A thread
/// that has a guard and waits for another one of the same block may wait for ever.
pub struct BlockRef<T: Content + ?Sized> {
    attachment: Anchor,
    block: BlockPlace,
    start: usize,
    len: usize,
    content: PhantomData<fn() -> Box<T>>,
}

impl<T: Content + ?Sized> BlockRef<T> {
    /// `start + len` is at most the length of the block.
    pub(super) fn new(attachment: Anchor, block: BlockPlace, start: usize, len: usize) -> Self {
        Self { attachment, block, start, len, content: PhantomData }
    }

    /// The block's handle: valid in every process of the segment until the block is freed.
    pub fn handle(&self) -> Handle {
        Handle::of(self.block)
    }

    /// Bytes of the payload.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the payload has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Waits until nobody writes, and reads the block in place. Many may do so at once, in any process. A guard of a
    /// process that dies is given up within 250 ms; that of a stopped one is not.
    ///
    /// # Errors
    ///
    /// [`HandleError::Stale`] if the block was freed, [`HandleError::Invalid`] if its bytes are no `T`.
    pub fn read(&self) -> Result<ReadGuard<'_, T>, HandleError> {
        self.read_guard(Patience::Endless).map_err(TryGuardError::into_handle_error)
    }

    /// Reads the block in place, if nobody writes or waits for that. Never waits.
    ///
    /// # Errors
    ///
    /// [`TryGuardError::Busy`] if somebody does; otherwise as for [`read`](Self::read).
    pub fn try_read(&self) -> Result<ReadGuard<'_, T>, TryGuardError> {
        self.read_guard(Patience::None)
    }

    /// As [`read`](Self::read), but waits for at most `time`.
    ///
    /// # Errors
    ///
    /// [`TryGuardError::Busy`] when the time is over; otherwise as for [`read`](Self::read).
    pub fn read_timeout(&self, time: Duration) -> Result<ReadGuard<'_, T>, TryGuardError> {
        self.read_guard(until(time))
    }

    /// Waits until nobody else reads or writes, and has the block alone. From the moment that it waits, no new readers come
    /// in. A guard of a process that dies is given up within 250 ms; that of a stopped one is not.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    pub fn write(&self) -> Result<WriteGuard<'_, T>, HandleError> {
        self.write_guard(Patience::Endless).map_err(TryGuardError::into_handle_error)
    }

    /// Has the block alone, if nobody else reads or writes. Never waits.
    ///
    /// # Errors
    ///
    /// [`TryGuardError::Busy`] if somebody does; otherwise as for [`read`](Self::read).
    pub fn try_write(&self) -> Result<WriteGuard<'_, T>, TryGuardError> {
        self.write_guard(Patience::None)
    }

    /// As [`write`](Self::write), but waits for at most `time`.
    ///
    /// # Errors
    ///
    /// [`TryGuardError::Busy`] when the time is over; otherwise as for [`read`](Self::read).
    pub fn write_timeout(&self, time: Duration) -> Result<WriteGuard<'_, T>, TryGuardError> {
        self.write_guard(until(time))
    }

    fn read_guard(&self, patience: Patience) -> Result<ReadGuard<'_, T>, TryGuardError> {
        ReadGuard::of(&self.attachment, self, patience)
    }

    fn write_guard(&self, patience: Patience) -> Result<WriteGuard<'_, T>, TryGuardError> {
        WriteGuard::of(&self.attachment, self, patience)
    }

    /// The state that the users of the block have given it; 0 in a new block.
    ///
    /// # Errors
    ///
    /// [`HandleError::Stale`] if the block was freed.
    pub fn state(&self) -> Result<u32, HandleError> {
        // Ordering: Acquire, pairs with whoever set it: what they did before is seen.
        self.attachment.with_header(self.block, |header, _| header.state().load(Ordering::Acquire))
    }

    /// Gives the block a state, whatever it has now. No guard is needed.
    ///
    /// # Errors
    ///
    /// [`StateError::Reserved`] for states below [`FIRST_USER_STATE`]; [`HandleError::Stale`] if the block was freed.
    pub fn set_state(&self, state: u32) -> Result<(), StateError> {
        check_state(state)?;
        // Ordering: Release, pairs with `state`.
        Ok(self.attachment.with_header(self.block, |header, _| header.state().store(state, Ordering::Release))?)
    }

    /// Gives the block a state, if it has the one that is expected. Of several who try at once, one succeeds. No guard is
    /// needed.
    ///
    /// # Errors
    ///
    /// [`StateError::Changed`] if it has another one; otherwise as for [`set_state`](Self::set_state).
    pub fn transition(&self, from: u32, to: u32) -> Result<(), StateError> {
        check_state(to)?;
        let changed = self.attachment.with_header(self.block, |header, _| {
            // Ordering: AcqRel and Acquire: what was done before earlier changes is seen, ours is to be seen.
            header.state().compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
        })?;
        changed.map(drop).map_err(|found| StateError::Changed { found })
    }

    /// The block's header as it is now: its state, its length, who owns it, and who is in it.
    ///
    /// # Errors
    ///
    /// [`HandleError::Stale`] if the block was freed.
    pub fn header(&self) -> Result<BlockInfo, HandleError> {
        info(&self.attachment, self.block)
    }

    /// Whether a writer died or panicked in the middle, and nobody has
    /// [said](WriteGuard::clear_poison) that the payload is whole again.
    ///
    /// # Errors
    ///
    /// [`HandleError::Stale`] if the block was freed.
    pub fn poisoned(&self) -> Result<bool, HandleError> {
        self.attachment.with_header(self.block, |header, _| header.is_poisoned())
    }

    /// Makes the block this process's own.
    pub(super) fn adopt(self) -> Result<Block<T>, HandleError> {
        self.attachment.adopt(self.block)?;
        Ok(Block::new(self))
    }
}

impl<T: Plain> BlockRef<T> {
    /// Waits until nobody else reads or writes, and puts in a new value, whatever stands there. The block is not poisoned
    /// any more.
    ///
    /// # Errors
    ///
    /// [`HandleError::Stale`] if the block was freed.
    pub fn put(&self, value: T) -> Result<(), HandleError> {
        let hold = Hold::new(&self.attachment, self.block, Access::Write, Patience::Endless)
            .map_err(TryGuardError::into_handle_error)?;
        hold.bytes_mut(self.start, self.len).copy_from_slice(value.as_bytes());
        hold.clear_poison();
        Ok(())
    }
}

fn until(time: Duration) -> Patience {
    Instant::now().checked_add(time).map_or(Patience::Endless, Patience::Until)
}

fn check_state(state: u32) -> Result<(), StateError> {
    if state < FIRST_USER_STATE { Err(StateError::Reserved { state }) } else { Ok(()) }
}

impl<T: Content + ?Sized> Clone for BlockRef<T> {
    fn clone(&self) -> Self {
        Self::new(self.attachment.clone(), self.block, self.start, self.len)
    }
}

impl<T: Content + ?Sized> fmt::Debug for BlockRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockRef").field("handle", &self.handle()).field("len", &self.len).finish_non_exhaustive()
    }
}

/// A block that this process owns: all that a [`BlockRef`] can do, and it is freed when this is dropped.
pub struct Block<T: Content + ?Sized> {
    reference: BlockRef<T>,
}

impl<T: Content + ?Sized> Block<T> {
    pub(super) fn new(reference: BlockRef<T>) -> Self {
        Self { reference }
    }

    /// A reference that does not own the block.
    pub fn reference(&self) -> BlockRef<T> {
        self.reference.clone()
    }

    /// Frees the block, as dropping it does: at once, or when the last guard of another process goes.
    pub fn free(self) {
        drop(self);
    }

    /// Acknowledges the block, as [`Message::ack`](crate::Message::ack) does: frees it.
    pub fn ack(self) {
        drop(self);
    }

    /// Keeps the block without holding on to it: it is freed by [`Allocator::free`](crate::blocks::Allocator::free) in any
    /// process, by the `Block` of one that [adopts](crate::blocks::Allocator::adopt) it, or when this process leaves the segment.
    pub fn into_handle(self) -> Handle {
        let block = ManuallyDrop::new(self);
        let handle = block.handle();
        // SAFETY: taken out once, and `block` is neither dropped nor used after this.
        drop(unsafe { std::ptr::read(&block.reference) });
        handle
    }
}

impl<T: Content + ?Sized> Deref for Block<T> {
    type Target = BlockRef<T>;

    fn deref(&self) -> &BlockRef<T> {
        &self.reference
    }
}

impl<T: Content + ?Sized> Drop for Block<T> {
    fn drop(&mut self) {
        // Another process may have freed or adopted it, and in a forked child there is nothing to free.
        let _ = self.reference.attachment.doom(self.reference.block, true);
    }
}

impl<T: Content + ?Sized> fmt::Debug for Block<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Block").field(&self.reference).finish()
    }
}

/// Access to a block, given up when dropped.
#[derive(Debug)]
struct Hold<'a> {
    attachment: &'a Attachment,
    block: BlockPlace,
    access: Access,
    /// The thread was panicking before it had this: what it does here is some destructor's work, and may be done well.
    was_panicking: bool,
}

impl<'a> Hold<'a> {
    fn new(
        attachment: &'a Attachment,
        block: BlockPlace,
        access: Access,
        patience: Patience,
    ) -> Result<Self, TryGuardError> {
        attachment.acquire(block, access, patience)?;
        Ok(Self { attachment, block, access, was_panicking: std::thread::panicking() })
    }

    fn bytes(&self, start: usize, len: usize) -> &[u8] {
        // SAFETY: within a block that is mapped as long as the attachment lives. While this lives the block is not freed,
        // and nobody writes to it but through this. (A process of the same user that writes where it must not is outside
        // of what Rust can promise.)
        unsafe { self.attachment.payload(self.block, start, len).as_ref() }
    }

    #[allow(clippy::mut_from_ref)]
    fn bytes_mut(&self, start: usize, len: usize) -> &mut [u8] {
        debug_assert_eq!(self.access, Access::Write);
        // SAFETY: as for `bytes`; and nobody else reads. Called once per hold.
        unsafe { self.attachment.payload(self.block, start, len).as_mut() }
    }

    fn clear_poison(&self) {
        self.attachment.with_guarded_header(self.block, |header| header.clear_poison());
    }

    fn is_poisoned(&self) -> bool {
        self.attachment.with_guarded_header(self.block, |header| header.is_poisoned())
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let panics = !self.was_panicking && std::thread::panicking();
        if self.access == Access::Write && panics && self.attachment.is_usable() {
            self.attachment.with_guarded_header(self.block, |header| header.poison());
        }
        self.attachment.release(self.block, self.access);
    }
}

/// A block that is being read in place. While it lives nobody writes to the block, and its memory is used for nothing
/// else, even if the block is freed or its owner dies.
pub struct ReadGuard<'a, T: ?Sized> {
    content: NonNull<T>,
    hold: Hold<'a>,
}

impl<'a, T: Content + ?Sized> ReadGuard<'a, T> {
    pub(super) fn of(
        attachment: &'a Attachment,
        reference: &BlockRef<T>,
        patience: Patience,
    ) -> Result<Self, TryGuardError> {
        let hold = Hold::new(attachment, reference.block, Access::Read, patience)?;
        let content = T::view(hold.bytes(reference.start, reference.len)).ok_or(HandleError::Invalid)?;
        Ok(Self { content: NonNull::from(content), hold })
    }
}

impl<T: ?Sized> ReadGuard<'_, T> {
    /// Whether a writer died or panicked in the middle, and nobody has said that the payload is whole again.
    pub fn poisoned(&self) -> bool {
        self.hold.is_poisoned()
    }
}

impl<T: ?Sized> Deref for ReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `of` has found a `T` there, and the hold keeps it as it is.
        unsafe { self.content.as_ref() }
    }
}

// SAFETY: a shared reference to a `T`, and what is given up on drop may be given up from any thread.
unsafe impl<T: ?Sized + Sync> Send for ReadGuard<'_, T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Sync> Sync for ReadGuard<'_, T> {}

impl<T: ?Sized + fmt::Debug> fmt::Debug for ReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// A block that nobody else reads or writes. Its memory is used for nothing else while this lives, even if the block is
/// freed or its owner dies.
pub struct WriteGuard<'a, T: ?Sized> {
    content: NonNull<T>,
    hold: Hold<'a>,
}

impl<'a, T: Content + ?Sized> WriteGuard<'a, T> {
    pub(super) fn of(
        attachment: &'a Attachment,
        reference: &BlockRef<T>,
        patience: Patience,
    ) -> Result<Self, TryGuardError> {
        let hold = Hold::new(attachment, reference.block, Access::Write, patience)?;
        let content = T::view_mut(hold.bytes_mut(reference.start, reference.len)).ok_or(HandleError::Invalid)?;
        Ok(Self { content: NonNull::from(content), hold })
    }
}

impl<T: ?Sized> WriteGuard<'_, T> {
    /// Whether an earlier writer died or panicked in the middle, and nobody has said that the payload is whole again.
    pub fn poisoned(&self) -> bool {
        self.hold.is_poisoned()
    }

    /// Says that the payload is whole again.
    pub fn clear_poison(&mut self) {
        self.hold.clear_poison();
    }
}

impl<T: ?Sized> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `of` has found a `T` there, and only this changes it.
        unsafe { self.content.as_ref() }
    }
}

impl<T: ?Sized> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and this is borrowed exclusively.
        unsafe { self.content.as_mut() }
    }
}

// SAFETY: an exclusive reference to a `T`, and what is given up on drop may be given up from any thread.
unsafe impl<T: ?Sized + Send> Send for WriteGuard<'_, T> {}
// SAFETY: as above; shared, it only reads.
unsafe impl<T: ?Sized + Sync> Sync for WriteGuard<'_, T> {}

impl<T: ?Sized + fmt::Debug> fmt::Debug for WriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
