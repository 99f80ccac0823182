//! [`HeapMemory`]: a [`MemoryManager`] of one process.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use crate::{
    alloc::AllocError,
    blocks::{Handle, HandleError, MemoryManager},
    sys::held::{Condvar, Mutex, MutexGuard},
};

/// Generations that a handle can tell apart, as in a segment.
const GENERATIONS: u32 = 1 << 24;

/// Bytes under handles, on the heap of one process.
#[derive(Debug)]
pub struct HeapMemory {
    capacity: usize,
    state: Mutex<State>,
    /// Notified whenever somebody reads or writes no more, or something is freed.
    left: Condvar,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    places: Vec<Place>,
    /// Places with nothing in them.
    free: Vec<u32>,
}

#[derive(Debug, Default)]
struct Place {
    generation: u32,
    /// Bytes of what is stored here, if anything is.
    len: Option<usize>,
    /// `None` if nothing is stored, or while somebody writes.
    bytes: Option<Arc<Vec<u8>>>,
}

impl HeapMemory {
    /// Room for so many bytes.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, state: Mutex::default(), left: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Waits until `take` gets what it wants from the place of a handle.
    fn wait_for<R>(&self, handle: Handle, mut take: impl FnMut(&mut Place) -> Option<R>) -> Result<R, HandleError> {
        let mut state = self.state();
        loop {
            if let Some(taken) = take(state.place(handle)?) {
                return Ok(taken);
            }
            state = self.left.wait(state);
        }
    }
}

impl State {
    fn place(&mut self, handle: Handle) -> Result<&mut Place, HandleError> {
        let place = self.places.get_mut(handle.block as usize).ok_or(HandleError::Nonsense)?;
        let is_it = place.generation == handle.generation && place.len.is_some();
        if is_it { Ok(place) } else { Err(HandleError::Stale) }
    }
}

impl MemoryManager for HeapMemory {
    type Read<'a> = HeapRead<'a>;
    type Write<'a> = HeapWrite<'a>;

    fn store(&self, bytes: &[u8]) -> Result<Handle, AllocError> {
        let len = bytes.len();
        if len > self.capacity {
            return Err(AllocError::TooLarge { requested: len, largest: self.capacity });
        }
        let mut state = self.state();
        if len > self.capacity - state.used {
            return Err(AllocError::OutOfMemory { requested: len });
        }
        state.used += len;
        let block = state.free.pop().unwrap_or_else(|| {
            state.places.push(Place::default());
            (state.places.len() - 1) as u32
        });
        let place = &mut state.places[block as usize];
        place.len = Some(len);
        place.bytes = Some(Arc::new(bytes.to_vec()));
        Ok(Handle { block, generation: place.generation })
    }

    fn read(&self, handle: Handle) -> Result<HeapRead<'_>, HandleError> {
        let bytes = self.wait_for(handle, |place| place.bytes.clone())?;
        Ok(HeapRead { memory: self, bytes: Some(bytes) })
    }

    fn read_mut(&self, handle: Handle) -> Result<HeapWrite<'_>, HandleError> {
        let take = |place: &mut Place| match Arc::try_unwrap(place.bytes.take()?) {
            Ok(bytes) => Some(bytes),
            Err(read_by_others) => {
                place.bytes = Some(read_by_others);
                None
            }
        };
        let bytes = self.wait_for(handle, take)?;
        Ok(HeapWrite { memory: self, handle, bytes })
    }

    fn free(&self, handle: Handle) -> Result<(), HandleError> {
        let mut state = self.state();
        let place = state.place(handle)?;
        let len = place.len.take().unwrap_or(0);
        place.bytes = None;
        place.generation = (place.generation + 1) % GENERATIONS;
        state.used -= len;
        state.free.push(handle.block);
        self.left.notify_all();
        Ok(())
    }

    fn available(&self) -> usize {
        self.capacity - self.state().used
    }

    fn capacity(&self) -> usize {
        self.capacity
    }
}

/// Bytes of a [`HeapMemory`] that are being read.
#[derive(Debug)]
pub struct HeapRead<'a> {
    memory: &'a HeapMemory,
    /// Taken on drop only.
    bytes: Option<Arc<Vec<u8>>>,
}

impl Deref for HeapRead<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.as_deref().map_or(&[], Vec::as_slice)
    }
}

impl Drop for HeapRead<'_> {
    fn drop(&mut self) {
        // Under the lock, so that a writer that saw us there is asleep when it is notified.
        let _state = self.memory.state();
        self.bytes = None;
        self.memory.left.notify_all();
    }
}

/// Bytes of a [`HeapMemory`] that are being written.
#[derive(Debug)]
pub struct HeapWrite<'a> {
    memory: &'a HeapMemory,
    handle: Handle,
    bytes: Vec<u8>,
}

impl Deref for HeapWrite<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for HeapWrite<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for HeapWrite<'_> {
    fn drop(&mut self) {
        let mut state = self.memory.state();
        // If it was freed meanwhile, nobody wants the bytes any more.
        if let Ok(place) = state.place(self.handle) {
            place.bytes = Some(Arc::new(std::mem::take(&mut self.bytes)));
        }
        self.memory.left.notify_all();
    }
}
