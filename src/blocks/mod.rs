//! Blocks for those who build something of their own: memory of the segment that processes read and write in turn.
//!
//! `guard` has the header of a block, and the rules by which guards of several processes, and whoever frees the block,
//! keep out of each other's way, whoever dies; `current` those of a block that many may replace. `attachment::blocks` is what a process does by them. Here is the face:
//! [`Allocator`] makes blocks and finds them, [`Block`] owns one, [`BlockRef`] refers to one of anybody's,
//! [`ReadGuard`] and [`WriteGuard`] give access to the payload, and [`MemoryManager`] is what code can ask for that does
//! not want to know whether its memory is shared.

#[cfg(not(loom))]
mod allocator;
#[cfg(not(loom))]
mod block;
pub(crate) mod current;
#[cfg(not(loom))]
mod error;
pub(crate) mod guard;
#[cfg(not(loom))]
mod heap;
#[cfg(all(test, loom))]
mod loom_current;
#[cfg(all(test, loom))]
mod loom_ground;
#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(not(loom))]
mod manager;

#[cfg(not(loom))]
mod raw;

#[cfg(not(loom))]
pub use crate::alloc::AllocError;

#[cfg(not(loom))]
pub use self::{
    allocator::{Allocator, BlockInfo, FIRST_USER_STATE, Handle},
    block::{Block, BlockRef, Content, ReadGuard, WriteGuard},
    error::{HandleError, StateError, TryGuardError},
    heap::{HeapMemory, HeapRead, HeapWrite},
    manager::MemoryManager,
    raw::RawBlock,
};
