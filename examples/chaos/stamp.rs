//! Messages that show who sent them, which ones they are, and whether all of them is there.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Result;

/// Good enough, and repeatable.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Stamp {
    pub(crate) sender: u32,
    /// What it belongs to: a channel, or a pattern's.
    pub(crate) lane: u32,
    pub(crate) number: u64,
    pub(crate) len: u64,
}

const STAMP: usize = size_of::<Stamp>();

impl Stamp {
    pub(crate) fn message(mut self, len: usize) -> Vec<u8> {
        let len = len.max(STAMP);
        self.len = len as u64;
        let mut bytes = self.as_bytes().to_vec();
        let mut random = Random::new(self.number << 24 ^ u64::from(self.sender) << 3 ^ u64::from(self.lane));
        while bytes.len() < len {
            let word = random.next().to_le_bytes();
            bytes.extend(&word[..(len - bytes.len()).min(8)]);
        }
        bytes
    }

    /// Reads a message of a lane, and looks at every byte of it.
    pub(crate) fn verify(message: &[u8], lane: usize) -> Result<Self> {
        let (stamp, _) = Self::read_from_prefix(message).map_err(|_| format!("{} bytes only", message.len()))?;
        if stamp.lane as usize != lane || stamp.len != message.len() as u64 || stamp.message(message.len()) != message {
            return Err(format!("damaged in {lane}: {stamp:?}, {} bytes", message.len()).into());
        }
        Ok(stamp)
    }
}
