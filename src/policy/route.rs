//! Which messages belong together.

use crate::segment::fnv1a;

/// Which messages belong together. The default is no key: such a message belongs to no other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RouteKey(u64);

impl RouteKey {
    /// Of what is not 0, which is no key.
    fn of(bytes: &[u8]) -> Self {
        Self(fnv1a(bytes).max(1))
    }
}

impl From<u64> for RouteKey {
    fn from(number: u64) -> Self {
        Self::of(&number.to_le_bytes())
    }
}

impl From<u32> for RouteKey {
    fn from(number: u32) -> Self {
        u64::from(number).into()
    }
}

impl From<&str> for RouteKey {
    fn from(text: &str) -> Self {
        Self::of(text.as_bytes())
    }
}

impl From<&[u8]> for RouteKey {
    fn from(bytes: &[u8]) -> Self {
        Self::of(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_are_equal_and_none_is_no_key() {
        assert_eq!(RouteKey::from(7_u32), RouteKey::from(7_u64));
        assert_eq!(RouteKey::from("seven"), RouteKey::from(&b"seven"[..]));
        assert_ne!(RouteKey::from(0_u64), RouteKey::default());
        assert_ne!(RouteKey::from(""), RouteKey::default());
    }
}
