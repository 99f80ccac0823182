//! [`MemoryManager`]: memory by handle, wherever it is.

use std::ops::{Deref, DerefMut};

use crate::{
    alloc::AllocError,
    attachment::blocks::Patience,
    blocks::{Allocator, Handle, HandleError, ReadGuard, TryGuardError, WriteGuard},
};

/// Bytes that are kept under handles: in a segment ([`Allocator`]), or, for tests and programs of one process, on the
/// heap ([`HeapMemory`](crate::blocks::HeapMemory)).
///
/// ```
/// use waterway::{blocks::{HeapMemory, MemoryManager}, Segment};
///
/// fn shout(memory: &impl MemoryManager, text: &str) -> String {
///     let handle = memory.store(text.as_bytes()).unwrap();
///     memory.read_mut(handle).unwrap().make_ascii_uppercase();
///     let loud = String::from_utf8(memory.read(handle).unwrap().to_vec()).unwrap();
///     memory.free(handle).unwrap();
///     loud
/// }
///
/// assert_eq!(shout(&HeapMemory::new(1 << 20), "hello"), "HELLO");
/// assert_eq!(shout(&Segment::options().in_process().unwrap().allocator(), "hello"), "HELLO");
/// ```
pub trait MemoryManager {
    /// Bytes that are being read.
    type Read<'a>: Deref<Target = [u8]>
    where
        Self: 'a;
    /// Bytes that are being written.
    type Write<'a>: DerefMut<Target = [u8]>
    where
        Self: 'a;

    /// Keeps a copy of these bytes until they are [freed](Self::free); in a segment, or until this process leaves it.
    ///
    /// # Errors
    ///
    /// Any [`AllocError`].
    fn store(&self, bytes: &[u8]) -> Result<Handle, AllocError>;

    /// Reads what was stored, in place. Waits while somebody writes to it.
    ///
    /// # Errors
    ///
    /// [`HandleError::Stale`] if it was freed; any other [`HandleError`].
    fn read(&self, handle: Handle) -> Result<Self::Read<'_>, HandleError>;

    /// Changes what was stored, in place. Waits while somebody else reads it or writes to it.
    ///
    /// # Errors
    ///
    /// [`HandleError::Stale`] if it was freed; any other [`HandleError`].
    fn read_mut(&self, handle: Handle) -> Result<Self::Write<'_>, HandleError>;

    /// Frees what was stored. Who reads it or writes to it just now goes on.
    ///
    /// # Errors
    ///
    /// [`HandleError::Stale`] if it was freed before; any other [`HandleError`].
    fn free(&self, handle: Handle) -> Result<(), HandleError>;

    /// Bytes that are free.
    fn available(&self) -> usize;

    /// Bytes that there are.
    fn capacity(&self) -> usize;
}

impl MemoryManager for Allocator {
    type Read<'a> = ReadGuard<'a, [u8]>;
    type Write<'a> = WriteGuard<'a, [u8]>;

    fn store(&self, bytes: &[u8]) -> Result<Handle, AllocError> {
        Ok(self.allocate_copy(bytes)?.into_handle())
    }

    fn read(&self, handle: Handle) -> Result<ReadGuard<'_, [u8]>, HandleError> {
        let block = self.resolve_bytes(handle)?;
        ReadGuard::of(self.attachment(), &block, Patience::Endless).map_err(TryGuardError::into_handle_error)
    }

    fn read_mut(&self, handle: Handle) -> Result<WriteGuard<'_, [u8]>, HandleError> {
        let block = self.resolve_bytes(handle)?;
        WriteGuard::of(self.attachment(), &block, Patience::Endless).map_err(TryGuardError::into_handle_error)
    }

    fn free(&self, handle: Handle) -> Result<(), HandleError> {
        Self::free(self, handle)
    }

    fn available(&self) -> usize {
        Self::available(self)
    }

    fn capacity(&self) -> usize {
        Self::capacity(self)
    }
}
