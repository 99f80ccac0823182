//! A slot of a slate: two words behind the ring of a channel, see `attachment::known`.

use crate::sys::sync::AtomicU64;

#[derive(Debug)]
#[cfg_attr(all(test, loom), derive(Default))]
#[repr(C)]
pub(crate) struct Slot {
    pub(crate) word: AtomicU64,
    pub(crate) count: AtomicU64,
}
