//! The only module that talks to the kernel, and the facade over the atomics.

pub(crate) mod prefetch;
pub(crate) mod shared;
pub(crate) mod sync;
