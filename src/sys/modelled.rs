//! Loom's atomics, made to explore what they would skip.
//!
//! Loom looks for races of an access with the last one of the same atomic only. A thread that loads a word and then
//! changes it races with itself, and what another thread did before is forgotten: such histories are never explored
//! (tokio-rs/loom issues 166 and 392). So every access here is preceded by a relaxed read-modify-write of a word beside
//! the real one. Those all race with one another, so every order of them is explored; they order nothing, so what the
//! real accesses may see stays as it is.

use loom::sync::atomic::{self, Ordering};

macro_rules! atomics {
    ($($name:ident: $value:ty),*) => { $(
        #[derive(Debug)]
        pub(crate) struct $name {
            value: atomic::$name,
            turn: atomic::AtomicUsize,
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new(<$value>::default())
            }
        }

        impl $name {
            pub(crate) fn new(value: $value) -> Self {
                Self { value: atomic::$name::new(value), turn: atomic::AtomicUsize::new(0) }
            }

            fn take_turn(&self) -> &atomic::$name {
                self.turn.fetch_add(1, Ordering::Relaxed);
                &self.value
            }

            pub(crate) fn load(&self, order: Ordering) -> $value {
                self.take_turn().load(order)
            }

            pub(crate) fn store(&self, value: $value, order: Ordering) {
                self.take_turn().store(value, order);
            }

            pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                self.take_turn().swap(value, order)
            }

            pub(crate) fn compare_exchange(
                &self,
                from: $value,
                to: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.take_turn().compare_exchange(from, to, success, failure)
            }

            pub(crate) fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                self.take_turn().fetch_and(value, order)
            }

            pub(crate) fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                self.take_turn().fetch_or(value, order)
            }
        }
    )* };
}

macro_rules! numbers {
    ($($name:ident: $value:ty),*) => { $(
        impl $name {
            pub(crate) fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                self.take_turn().fetch_add(value, order)
            }

            pub(crate) fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                self.take_turn().fetch_sub(value, order)
            }

            pub(crate) fn fetch_max(&self, value: $value, order: Ordering) -> $value {
                self.take_turn().fetch_max(value, order)
            }

            pub(crate) fn fetch_update(
                &self,
                set: Ordering,
                fetch: Ordering,
                update: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                self.take_turn().fetch_update(set, fetch, update)
            }
        }
    )* };
}

atomics!(AtomicBool: bool, AtomicU32: u32, AtomicU64: u64, AtomicUsize: usize);
numbers!(AtomicU32: u32, AtomicU64: u64, AtomicUsize: usize);
