//! Names of segments and channels.

use crate::region::{error::OpenError, layout::MAX_NAME};

/// A name that has been checked: 1 to 128 of `A-Za-z0-9._-`, not beginning with a dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name(String);

impl Name {
    pub(crate) fn new(name: &str) -> Result<Self, OpenError> {
        let fits = (1..=MAX_NAME).contains(&name.len())
            && !name.starts_with('.')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if fits { Ok(Self(name.to_owned())) } else { Err(OpenError::InvalidName { name: name.to_owned() }) }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_plain_and_visible() {
        for good in ["a", "market", "A-1_b.c", &"x".repeat(128)] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "a b", "ü", "a\0", &"x".repeat(129)] {
            assert!(matches!(Name::new(bad), Err(OpenError::InvalidName { .. })), "{bad:?}");
        }
    }
}
