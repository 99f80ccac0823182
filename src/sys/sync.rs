//! The atomics, the mutex and the reference count that every layer uses: `std`'s, or loom's when the crate is built
//! with `--cfg loom`, so that the very code which ships is the code that the models explore.

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

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::AtomicU64 as SeldomWrittenU64;

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};
