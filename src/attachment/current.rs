//! Values of watches: the process's side of [`crate::blocks::current`].

use std::{fmt, ops::Deref, ptr::NonNull, sync::Arc};

use crate::{
    alloc::{AllocError, Block, word::Word},
    attachment::{
        Attachment,
        blocks::{Access, Patience},
        directory::{self, End, Kind, RECEIVERS_GONE},
        lease::{Held, Lease},
        port::Port,
    },
    blocks::{
        HandleError, TryGuardError,
        current::{self, Judged, Name},
        guard::Header,
    },
    region::{fnv1a, lanes::BlockId},
    sys::sync::Ordering,
    wake::Waiter,
};

/// The reader's mark on a value: while this is there, the value stays as it is, whatever becomes of the watch.
#[derive(Debug)]
struct Pin {
    port: Arc<Port>,
    block: Block,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.port.attachment().release(self.block, Access::Read);
    }
}

/// A value that is read in place.
pub(crate) struct Pinned<T: ?Sized> {
    pin: Arc<Pin>,
    name: Name,
    value: NonNull<T>,
}

// SAFETY: a shared reference to a `T`, and a mark that any thread may take away.
unsafe impl<T: ?Sized + Sync> Send for Pinned<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Sync> Sync for Pinned<T> {}

impl<T: ?Sized> Pinned<T> {
    /// What it was called when it was current.
    #[inline(always)]
    pub(crate) fn name(&self) -> Name {
        self.name
    }
}

impl<T: ?Sized> Clone for Pinned<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        Self { pin: Arc::clone(&self.pin), name: self.name, value: self.value }
    }
}

impl<T: ?Sized> Deref for Pinned<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: `pin` has found a `T` there, which is mapped as long as the port's attachment lives, and which nobody writes
        // to or frees while the participant has its mark: until the pin is dropped.
        unsafe { self.value.as_ref() }
    }
}

impl<T: ?Sized> fmt::Debug for Pinned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").field("pin", &self.pin).field("name", &self.name).finish_non_exhaustive()
    }
}

/// A value in the making: a block that nobody else knows. Dropped, it is freed.
#[derive(Debug)]
pub(crate) struct Draft {
    lease: Lease,
    start: usize,
    len: usize,
}

impl Draft {
    /// The bytes of the value; what was there before, until somebody writes.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.lease.bytes_mut()[self.start..][..self.len]
    }
}

/// What keeps the value of a watch from being taken for a user's block.
fn kind() -> u64 {
    fnv1a(b"the value of a watch")
}

impl Port {
    /// The name of the current value.
    #[inline(always)]
    pub(crate) fn current(&self) -> Name {
        current::load(&self.entry.value)
    }

    /// The current value, read in place; `None` if there is none, or it is `known`, or it is no `T`: only memory that was
    /// overwritten has such. Lock-free: it starts over only when somebody has sent another value.
    pub(crate) fn pin<T: ?Sized>(
        self: &Arc<Self>,
        known: Name,
        view: impl Fn(&[u8]) -> Option<&T>,
    ) -> Option<Pinned<T>> {
        let attachment = self.attachment();
        loop {
            let name = self.current();
            if name == known || name == Name::NONE || !attachment.is_usable() {
                return None;
            }
            let block = attachment.find_shared(name.id(), name.generation(), "a value");
            let entered = block.map_err(TryGuardError::from).and_then(|block| {
                attachment.acquire(block, Access::Read, Patience::None)?;
                Ok(Pin { port: Arc::clone(self), block })
            });
            let pinned = match entered {
                Ok(pin) => {
                    let value = attachment.value_in(pin.block).and_then(|bytes| view(bytes).map(NonNull::from));
                    value.map(|value| Pinned { pin: Arc::new(pin), name, value })
                }
                // Somebody has sent another value.
                Err(_) if self.current() != name => continue,
                Err(_) => None,
            };
            if pinned.is_none() {
                self.count_invalid();
            }
            return pinned;
        }
    }

    /// A block for a value of `len` bytes.
    pub(crate) fn draft(&self, len: usize, align: usize) -> Result<Draft, AllocError> {
        let attachment = self.attachment();
        if !attachment.is_usable() {
            return Err(AllocError::Forked);
        }
        let start = attachment.header_bytes().max(align);
        let block = attachment.with_worker(|worker| attachment.allocate(worker, len.saturating_add(start), align))?;
        Ok(Draft { lease: Lease::new(attachment, block), start, len })
    }

    /// Makes a value current, whatever was.
    pub(crate) fn publish(&self, draft: Draft) {
        let block = self.share(draft);
        let mut from = self.current();
        while let Err(now) = self.name(block, from) {
            from = now;
        }
    }

    /// The same if `from` is current still. If not, the value is freed, and `false`.
    pub(crate) fn publish_over(&self, draft: Draft, from: Name) -> bool {
        let block = self.share(draft);
        let published = self.name(block, from).is_ok();
        if !published {
            self.attachment().doom_for_good(block.id, block.generation);
        }
        published
    }

    fn share(&self, draft: Draft) -> Block {
        let Draft { lease, start, len } = draft;
        let block = lease.block();
        let shared: Result<(), ((), _)> = lease.give(|_| {
            self.attachment().share(block, start, len, kind());
            Ok(())
        });
        debug_assert!(shared.is_ok());
        block
    }

    /// C1: names a block of this process, if `from` is named now.
    fn name(&self, block: Block, from: Name) -> Result<(), Name> {
        let (attachment, word) = (self.attachment(), &self.entry.value);
        current::replace(word, from, from.next(block.id, block.generation))?;
        if attachment.hand_over(block, word) {
            attachment.doom_for_good(block.id, block.generation);
        }
        if from != Name::NONE {
            attachment.doom_for_good(from.id(), from.generation());
        }
        if self.wants_message.parked() {
            self.wants_message.wake_all();
        }
        Ok(())
    }

    /// A place among those who wait for another value than the one they know.
    pub(crate) fn wait_for_value(&self, known: Name) -> Waiter {
        self.listen_for_news(&self.wants_message, current::as_news(known))
    }

    /// Enters an end of a kind that this process may have none of, of a channel of which it has another one.
    pub(crate) fn enter(&self, end: End) {
        let attachment = self.attachment();
        // Under the lock, as whoever leaves.
        let _ports = attachment.ports();
        if self.count(end).load(Ordering::SeqCst) == 0 && attachment.is_usable() {
            // A watch has nothing to be drained.
            let joined = attachment.directory().join(self.index(), &[end], attachment.region().me(), false);
            debug_assert!(joined);
        }
        self.duplicate(end);
    }

    /// Whether there were receivers, and none is left.
    pub(crate) fn is_without_receivers(&self) -> bool {
        !self.attachment().is_usable() || directory::state(&self.entry).has(RECEIVERS_GONE)
    }
}

impl Attachment {
    /// The payload of a watch's block in which this process has a mark; `None` if it is something else.
    fn value_in(&self, block: Block) -> Option<&[u8]> {
        let bytes = self.allocator().bytes_of(block);
        let shape =
            self.with_guarded_header(block, |header| (header.kind() == kind()).then(|| header.shape(bytes)).flatten());
        let (start, len) = shape?;
        // SAFETY: as for `Pinned`: the caller keeps its mark for as long as it uses this.
        Some(unsafe { self.payload(block, start, len).as_ref() })
    }

    /// Whether a block is, or was, or is about to be, the value of a watch.
    pub(crate) fn is_value(&self, block: Block) -> Result<bool, HandleError> {
        self.with_header(block, |header, _| header.kind() == kind())
    }

    /// Frees a watch's block as soon as nobody is in it, if nobody has done so.
    fn doom_for_good(&self, id: BlockId, generation: u32) {
        // Somebody may hand it over just now, once: then its word has changed, and it is there still.
        while let Ok(block) = self.find_shared(id, generation, "a value") {
            if self.doom(block, false) != Err(HandleError::Stale) {
                return;
            }
        }
    }

    /// What a reaper makes of a block, a user's or a watch's, of whose word it has seen whether the owner is dead.
    pub(super) fn judge(&self, id: BlockId, word: Word, header: &Header, is_dead: bool) -> Judged {
        let is_named = || header.kind() == kind() && self.names().any(|name| name.is_of(id, word.generation()));
        current::judge(word, is_dead, is_named)
    }

    /// What is current, in all watches.
    pub(super) fn names(&self) -> impl Iterator<Item = Name> + '_ {
        (0..self.directory().len()).filter_map(|index| {
            let name = current::load(&self.directory().entry(index).value);
            (name != Name::NONE && self.directory().kind(index) == Kind::Watch).then_some(name)
        })
    }

    /// Frees the value of a watch that is taken down.
    pub(super) fn drop_value(&self, index: usize) {
        if self.directory().kind(index) == Kind::Watch {
            let word = &self.directory().entry(index).value;
            let name = current::load(word);
            if name != Name::NONE {
                self.doom_for_good(name.id(), name.generation());
            }
            // Ordering: SeqCst, as all of this word.
            word.store(0, Ordering::SeqCst);
        }
    }
}
