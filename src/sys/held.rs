//! Locks of this process, and whether the thread holds any.
//!
//! **Code of others runs under no lock of ours**: wakers when they are called, cloned or dropped, what users implement
//! ([`AsRef`], codecs, policies), and what subscribers and recorders do with events and counters. It may take a lock of its
//! user's, which another thread holds while it waits for ours; or it comes back to us, and waits for itself. The same holds while
//! a thread works in its lane: who comes back finds the lane in use.
//!
//! So all locks of the crate are of this module, which counts those that a thread holds, and whoever is about to run code of
//! others says so by [`assert_none`]. Builds for users count nothing and check nothing: they do so with debug assertions, and
//! with `--cfg crash_points`, in which all tests of what wakes are run once.
//!
//! Locks are taken over poisoned: what a panic leaves behind is whole, or it was not under a lock.

// Models use a part of it.
#![cfg_attr(loom, allow(dead_code))]

use std::{
    marker::PhantomData,
    ops::{Deref, DerefMut},
    sync::PoisonError,
};

use crate::sys::sync;

/// Counts what the thread holds.
#[cfg(all(any(debug_assertions, crash_points), not(any(loom, shuttle))))]
mod count {
    use std::cell::Cell;

    thread_local! {
        static HELD: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn change(by: isize) {
        HELD.set(HELD.get().wrapping_add_signed(by));
    }

    #[track_caller]
    pub(super) fn assert_none() {
        let held = HELD.get();
        assert!(held == 0, "code of others is about to run under {held} locks of ours");
    }
}

/// Models run all their threads in one, and builds for users are not checked.
#[cfg(not(all(any(debug_assertions, crash_points), not(any(loom, shuttle)))))]
mod count {
    #[inline(always)]
    pub(super) fn change(_: isize) {}

    #[inline(always)]
    pub(super) fn assert_none() {}
}

/// Code of others is about to run here.
///
/// # Panics
///
/// In builds that check it, if the thread holds a lock of ours.
#[inline(always)]
#[track_caller]
pub(crate) fn assert_none() {
    count::assert_none();
}

/// The thread holds something under which no code of others may run, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Held(PhantomData<*const ()>);

impl Held {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        count::change(1);
        Self(PhantomData)
    }
}

impl Drop for Held {
    #[inline(always)]
    fn drop(&mut self) {
        count::change(-1);
    }
}

/// A lock of ours.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(sync::Mutex<T>);

/// A lock that this thread holds.
#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T> {
    guard: sync::MutexGuard<'a, T>,
    held: Held,
}

impl<T> Mutex<T> {
    #[cfg(not(loom))]
    pub(crate) const fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    #[cfg(loom)]
    pub(crate) fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        MutexGuard { guard, held: Held::new() }
    }

    /// What is in it, where nobody else can be at it.
    #[cfg(not(loom))]
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// Where threads sleep until something under a lock has changed.
#[cfg(not(loom))]
#[derive(Debug, Default)]
pub(crate) struct Condvar(std::sync::Condvar);

#[cfg(not(loom))]
impl Condvar {
    pub(crate) const fn new() -> Self {
        Self(std::sync::Condvar::new())
    }

    /// Gives the lock up while it sleeps. The thread runs nothing meanwhile, so it counts as holding it.
    pub(crate) fn wait<'a, T>(&self, held: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let MutexGuard { guard, held } = held;
        MutexGuard { guard: self.0.wait(guard).unwrap_or_else(PoisonError::into_inner), held }
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

#[cfg(all(test, any(debug_assertions, crash_points), not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_holds_is_counted() {
        let (one, other) = (Mutex::new(1), Mutex::new(2));
        assert_none();
        let held = (one.lock(), other.lock());
        assert!(std::panic::catch_unwind(assert_none).is_err());
        drop(held.0);
        assert!(std::panic::catch_unwind(assert_none).is_err());
        drop(held.1);
        assert_none();
        std::thread::scope(|scope| {
            let _held = one.lock();
            // Another thread holds nothing.
            scope.spawn(assert_none).join().unwrap();
        });
    }
}
