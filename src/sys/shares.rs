//! A value that many own, who are counted before they are there.
//!
//! An [`Arc`](std::sync::Arc) costs an atomic operation to make another owner of it, and one when that goes. If it is known from
//! the start how many there will be, only the second is left.

use std::{
    fmt,
    marker::PhantomData,
    ops::Deref,
    panic::{RefUnwindSafe, UnwindSafe},
    ptr::NonNull,
};

use crate::sys::sync::{AtomicUsize, Ordering, fence};

/// The value, and how many own it.
struct Shared<T> {
    owners: AtomicUsize,
    value: T,
}

/// One owner, who makes the others. Dropped, it takes those with it that it has not made.
pub(crate) struct Shares<T> {
    shared: NonNull<Shared<T>>,
    left: usize,
    value: PhantomData<Shared<T>>,
}

/// One owner.
pub(crate) struct Share<T> {
    shared: NonNull<Shared<T>>,
    value: PhantomData<Shared<T>>,
}

impl<T> Shares<T> {
    /// One owner, who can make so many others.
    pub(crate) fn new(value: T, others: usize) -> Self {
        let owners = AtomicUsize::new(others.checked_add(1).expect("nobody can keep so many"));
        let shared = NonNull::from(Box::leak(Box::new(Shared { owners, value })));
        Self { shared, left: others, value: PhantomData }
    }

    /// Another owner, who was counted before; `None` if there were not so many.
    #[inline]
    pub(crate) fn share(&mut self) -> Option<Share<T>> {
        self.left = self.left.checked_sub(1)?;
        Some(Share { shared: self.shared, value: PhantomData })
    }
}

/// # Safety
///
/// The caller is so many of the owners, and they do not use the value again.
#[inline]
unsafe fn release<T>(shared: NonNull<Shared<T>>, owners: usize) {
    // SAFETY: it is there as long as it has owners, and the caller is some.
    let counted = unsafe { &shared.as_ref().owners };
    // Ordering: Release, so that whatever an owner did happens before the end of the value.
    if counted.fetch_sub(owners, Ordering::Release) == owners {
        // Ordering: Acquire, to synchronise with what all others have released.
        fence(Ordering::Acquire);
        // SAFETY: it was a box, and nobody owns it any more.
        drop(unsafe { Box::from_raw(shared.as_ptr()) });
    }
}

impl<T> Drop for Shares<T> {
    fn drop(&mut self) {
        // SAFETY: this one, and those that were not made.
        unsafe { release(self.shared, self.left + 1) };
    }
}

impl<T> Drop for Share<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this one.
        unsafe { release(self.shared, 1) };
    }
}

macro_rules! owns {
    ($owner:ident) => {
        impl<T> Deref for $owner<T> {
            type Target = T;

            #[inline(always)]
            fn deref(&self) -> &T {
                // SAFETY: it is there as long as it has owners, of which this is one, and they only ever share it.
                unsafe { &self.shared.as_ref().value }
            }
        }

        // SAFETY: threads share the value, and the last one drops it.
        unsafe impl<T: Send + Sync> Send for $owner<T> {}
        // SAFETY: as above.
        unsafe impl<T: Send + Sync> Sync for $owner<T> {}

        impl<T: RefUnwindSafe> UnwindSafe for $owner<T> {}
        impl<T: RefUnwindSafe> RefUnwindSafe for $owner<T> {}

        impl<T> fmt::Debug for $owner<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($owner)).finish_non_exhaustive()
            }
        }
    };
}

owns!(Shares);
owns!(Share);

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_value_goes_with_the_last_owner() {
        for kept in 0..=3 {
            let value = Arc::new(());
            let mut shares = Shares::new(Arc::clone(&value), 3);
            let made: Vec<_> = (0..kept).map(|_| shares.share().unwrap()).collect();
            drop(shares);
            for (left, share) in (0..kept).rev().zip(made) {
                assert_eq!(Arc::strong_count(&value), 2, "{left} are left, and this one");
                drop(share);
            }
            assert_eq!(Arc::strong_count(&value), 1);
        }
    }

    #[test]
    fn no_more_are_made_than_were_counted() {
        let mut shares = Shares::new((), 1);
        let _one = shares.share().unwrap();
        assert!(shares.share().is_none());
    }
}

#[cfg(all(test, loom))]
mod models {
    use std::sync::Arc;

    use loom::{model, thread};

    use super::*;

    /// What owners do with the value before they go, all of which its end must see.
    struct Value(loom::cell::UnsafeCell<[bool; 2]>, Arc<std::sync::atomic::AtomicUsize>);

    // SAFETY: loom says if two threads use the cell at the same time.
    unsafe impl Sync for Value {}

    impl Drop for Value {
        fn drop(&mut self) {
            // SAFETY: as above; `with_mut` must come after whatever the others did.
            assert_eq!(self.0.with_mut(|seen| unsafe { *seen }), [true; 2]);
            self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    #[test]
    fn the_last_owner_sees_what_all_have_done_and_ends_the_value_once() {
        model(|| {
            let ends = Arc::new(std::sync::atomic::AtomicUsize::new(0));
            let mut shares = Shares::new(Value(loom::cell::UnsafeCell::new([false; 2]), Arc::clone(&ends)), 3);
            let owners: Vec<_> = (0..2)
                .map(|index| {
                    let share = shares.share().unwrap();
                    thread::spawn(move || {
                        // SAFETY: each thread writes its own.
                        share.0.with(|seen| unsafe { seen.cast::<bool>().cast_mut().add(index).write(true) });
                    })
                })
                .collect();
            drop(shares);
            owners.into_iter().for_each(|owner| owner.join().unwrap());
            assert_eq!(ends.load(std::sync::atomic::Ordering::Relaxed), 1);
        });
    }
}
