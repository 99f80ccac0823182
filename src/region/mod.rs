//! The mapped region: layout, creation and attachment, participants, lanes.

#[cfg(not(loom))]
pub(crate) mod checks;
#[cfg(not(loom))]
pub(crate) mod config;
#[cfg(not(loom))]
pub(crate) mod error;
pub(crate) mod lanes;
pub(crate) mod layout;
#[cfg(not(loom))]
pub(crate) mod mapped;
#[cfg(not(loom))]
pub(crate) mod name;
pub(crate) mod notes;
#[cfg(any(not(loom), test))]
pub(crate) mod slot;

/// The 64-bit FNV-1a hash: for checksums against accidents, and for telling layouts apart.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
