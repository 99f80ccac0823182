//! The codec of the `prost` crate: protobuf messages.
//!
//! # Copies
//!
//! A message knows its encoded length, and is encoded into the block itself. It is decoded from the block; what it owns
//! (strings, lists) is copied out, as protobuf wants it.

use std::{error::Error, io::Write};

use crate::channel::codec::Codec;

/// Protobuf, as the `prost` crate writes it: for programs in other languages, and for types that change. With the feature
/// `prost`.
///
/// No bytes at all are a message of defaults, and fields that are not known are skipped: protobuf is meant to take what
/// another version wrote. What is nested more than 100 levels deep is an error when it is decoded, as the crate has it.
///
/// ```
/// use waterway::{codec::Prost, Segment};
///
/// #[derive(Clone, PartialEq, prost::Message)]
/// struct Order {
///     #[prost(string, tag = "1")]
///     customer: String,
///     #[prost(uint32, repeated, tag = "2")]
///     items: Vec<u32>,
/// }
///
/// let segment = Segment::options().in_process()?;
/// let (sender, receiver) = segment.channel::<Order>("orders").codec::<Prost>().open()?;
/// sender.try_send(Order { customer: "Ada".into(), items: vec![7, 9] })?;
/// assert_eq!(receiver.try_recv()?.decode()?.items, [7, 9]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Prost;

impl<T: prost::Message + Default + 'static> Codec<T> for Prost {
    const NAME: &'static str = "protobuf";
    type Error = Box<dyn Error + Send + Sync>;

    /// Through a buffer: what is sent goes through [`encode_into`](Codec::encode_into), which needs none.
    fn encode<W: Write>(value: &T, mut to: W) -> Result<(), Self::Error> {
        Ok(to.write_all(&value.encode_to_vec())?)
    }

    fn encode_into(value: &T, to: &mut [u8]) -> Result<usize, Self::Error> {
        let room = to.len();
        let mut rest = to;
        value.encode(&mut rest)?;
        Ok(room - rest.len())
    }

    fn decode(bytes: &[u8]) -> Result<T, Self::Error> {
        Ok(T::decode(bytes)?)
    }

    fn size(value: &T) -> Result<usize, Self::Error> {
        Ok(value.encoded_len())
    }
}
