//! Keys by which messages are routed.

use crate::region::fnv1a;

/// What a message is routed by: a number, or the hash of a text or of bytes. The default is no key.
///
/// Two texts may have the same hash (FNV-1a, 64 bits): then they are treated as one key. The same key is the same in every
/// process, on every machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RouteKey(Option<u64>);

impl RouteKey {
    /// Whether this is no key.
    pub fn is_none(self) -> bool {
        self.0.is_none()
    }

    /// The partition of so many that has this key; `None` if it is no key.
    pub(crate) fn partition(self, partitions: usize) -> Option<usize> {
        // Numbers that follow each other are to be far apart, and all bits to count: the finalizer of splitmix64.
        let mut mixed = self.0?;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        Some(((u128::from(mixed) * partitions as u128) >> 64) as usize)
    }
}

impl From<u64> for RouteKey {
    fn from(key: u64) -> Self {
        Self(Some(key))
    }
}

impl From<u32> for RouteKey {
    fn from(key: u32) -> Self {
        u64::from(key).into()
    }
}

impl From<&[u8]> for RouteKey {
    fn from(key: &[u8]) -> Self {
        fnv1a(key).into()
    }
}

impl From<&str> for RouteKey {
    fn from(key: &str) -> Self {
        key.as_bytes().into()
    }
}
