//! The atomics, the mutex and the reference count that every layer uses: `std`'s, or loom's when the crate is built
//! with `--cfg loom`, so that the very code which ships is the code that the models explore. With `--cfg shuttle` the
//! atomics are shuttle's, for histories that are longer and have more threads; such a build is for the tests of `alloc`
//! only. With `--cfg crash_points` they are `std`'s with a place to die at before every change; in any other build
//! [`point`] is nothing.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{Ordering, fence},
};

#[cfg(loom)]
pub(crate) use crate::sys::modelled::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};

/// For words that are read everywhere and hardly ever written: models would be lost in the orders of the reads.
#[cfg(loom)]
pub(crate) use loom::sync::atomic::AtomicU64 as SeldomWrittenU64;

#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::atomic::AtomicU64 as SeldomWrittenU64;

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{Ordering, fence},
};

#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicU64 as SeldomWrittenU64, AtomicUsize};

#[cfg(not(any(loom, shuttle, crash_points)))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};

#[cfg(all(crash_points, not(loom)))]
pub(crate) use crate::sys::crashing::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, point};

/// A system call that others can see is about to happen.
#[cfg(not(any(loom, crash_points)))]
#[inline(always)]
pub(crate) fn point() {}
