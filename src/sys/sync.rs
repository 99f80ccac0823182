//! The atomics, the mutex and the reference count that every layer uses: `std`'s, or loom's when the crate is built
//! with `--cfg loom`, so that the very code which ships is the code that the models explore.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{Ordering, fence},
};

#[cfg(loom)]
pub(crate) use crate::sys::modelled::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};
