//! The only module that talks to the kernel, and the facade over the atomics.

#[cfg(not(loom))]
pub(crate) mod clock;
#[cfg(not(loom))]
pub(crate) mod copied;
#[cfg(all(crash_points, not(loom)))]
pub(crate) mod crashing;
#[cfg(not(loom))]
pub(crate) mod file;
#[cfg(not(loom))]
pub(crate) mod fork;
pub(crate) mod futex;
pub(crate) mod held;
#[cfg(not(loom))]
pub(crate) mod lock;
#[cfg(not(loom))]
pub(crate) mod map;
pub(crate) mod membarrier;
#[cfg(loom)]
mod modelled;
pub(crate) mod prefetch;
#[cfg(not(loom))]
pub(crate) mod processors;
#[cfg(not(loom))]
pub(crate) mod robust;
pub(crate) mod shared;
#[cfg(any(not(loom), test))]
pub(crate) mod shares;
#[cfg(not(loom))]
pub(crate) mod signals;
pub(crate) mod sync;
pub(crate) mod tally;
