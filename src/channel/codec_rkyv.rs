//! The codec of the `rkyv` crate: values that are read where they stand, without being decoded.
//!
//! # Copies
//!
//! The sender archives into the block itself: a first pass counts, a second one writes. The receiver gets a reference into
//! the segment from [`Message::archived`], after a check of all that is in the way to it: no copy at all.
//!
//! A payload stands at a multiple of 16 bytes, which is what any archived type needs unless it asks for more.

use std::{io::Write, num::NonZeroUsize};

use rkyv::{
    Archive, Archived, Deserialize, Portable, Serialize,
    api::{
        access_with_context,
        high::{HighDeserializer, HighSerializer, HighValidator},
        serialize_using,
    },
    bytecheck::CheckBytes,
    primitive::ArchivedUsize,
    rancor::{self, Source},
    ser::{Positional, Serializer, Writer, allocator::ArenaHandle, sharing::Share},
    util::with_arena,
    validation::{Validator, archive::ArchiveValidator, shared::SharedValidator},
};

use crate::channel::{
    codec::{Codec, Coded},
    error::DecodeError,
    message::Message,
    payload::BYTES_ALIGN,
};

/// The codec of the `rkyv` crate, with the feature `rkyv`: what was received is [read in place](Message::archived), and
/// need not be decoded.
///
/// Both sides must have the same format features of `rkyv` (byte order, width of pointers), as all rkyv archives do; another
/// width is refused when the channel is opened.
///
/// # Bounds
///
/// What arrives is checked within bounds, whatever it says of itself: pointers (boxes, lists, strings, shared ones) may lead 256
/// levels deep; beyond that is an error. One thing is not bounded, because the check of the `rkyv` crate does not say how many
/// elements it looks at: a list of elements that take no bytes, as a `Vec<()>`, is checked and decoded for as long as its length
/// says, which is a number of 32 bits. Do not let types with such lists come from whom you do not trust.
///
/// ```
/// use rkyv::{Archive, Deserialize, Serialize};
/// use waterway::{codec::Rkyv, Segment};
///
/// #[derive(Archive, Serialize, Deserialize)]
/// struct Order { customer: String, items: Vec<u32> }
///
/// let segment = Segment::options().in_process()?;
/// let (sender, receiver) = segment.channel::<Order>("orders").codec::<Rkyv>().open()?;
/// sender.try_send(Order { customer: "Ada".into(), items: vec![7, 9] })?;
///
/// let message = receiver.try_recv()?;
/// let order = message.archived()?; // Stands in the segment.
/// assert_eq!(order.customer, "Ada");
/// assert_eq!(order.items[1], 9);
/// assert_eq!(message.decode()?.items, [7, 9]); // A value of one's own.
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Rkyv;

/// Where an archive is written to. One type for all, because a value says for each type whether it can be written there.
#[doc(hidden)]
pub struct Archiving<'w> {
    to: To<'w>,
    written: usize,
}

enum To<'w> {
    /// Only counts.
    Nowhere,
    /// The part of a block that is still to be written.
    Block(&'w mut [u8]),
    Writer(&'w mut dyn Write),
}

impl Positional for Archiving<'_> {
    fn pos(&self) -> usize {
        self.written
    }
}

impl Writer<rancor::Error> for Archiving<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), rancor::Error> {
        match &mut self.to {
            To::Nowhere => {}
            To::Block(rest) => rest.write_all(bytes).map_err(rancor::Error::new)?,
            To::Writer(writer) => writer.write_all(bytes).map_err(rancor::Error::new)?,
        }
        self.written += bytes.len();
        Ok(())
    }
}

/// What rkyv writes with.
type Archiver<'w, 'a> = HighSerializer<Archiving<'w>, ArenaHandle<'a>, rancor::Error>;

/// Archives a value; how many bytes that were.
fn archive<T>(value: &T, to: To<'_>) -> Result<usize, rancor::Error>
where
    T: for<'w, 'a> Serialize<Archiver<'w, 'a>>,
{
    const {
        assert!(align_of::<T::Archived>() <= BYTES_ALIGN, "an archive of this alignment cannot be read in a segment");
    }
    with_arena(|arena| {
        let mut serializer = Serializer::new(Archiving { to, written: 0 }, arena.acquire(), Share::new());
        serialize_using(value, &mut serializer)?;
        Ok(serializer.into_writer().written)
    })
}

/// How deep pointers may lead.
const LEVELS: usize = 256;

/// The value in its archive, which is checked.
fn access<T>(bytes: &[u8]) -> Result<&Archived<T>, rancor::Error>
where
    T: Archive,
    T::Archived: Portable + for<'a> CheckBytes<HighValidator<'a, rancor::Error>>,
{
    // The check follows pointers by recursion: what leads too deep would end the process.
    let archive = ArchiveValidator::with_max_depth(bytes, NonZeroUsize::new(LEVELS));
    access_with_context::<Archived<T>, _, rancor::Error>(bytes, &mut Validator::new(archive, SharedValidator::new()))
}

impl<T> Codec<T> for Rkyv
where
    T: Archive + for<'w, 'a> Serialize<Archiver<'w, 'a>> + 'static,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + Deserialize<T, HighDeserializer<rancor::Error>>,
{
    const NAME: &'static str = match size_of::<ArchivedUsize>() {
        2 => "rkyv with pointers of 16 bits",
        8 => "rkyv with pointers of 64 bits",
        _ => "rkyv",
    };
    type Error = rancor::Error;

    fn encode<W: Write>(value: &T, mut to: W) -> Result<(), rancor::Error> {
        archive(value, To::Writer(&mut to)).map(drop)
    }

    fn encode_into(value: &T, to: &mut [u8]) -> Result<usize, rancor::Error> {
        archive(value, To::Block(to))
    }

    /// The bytes must be aligned as the archive needs it; those of a message are.
    fn decode(bytes: &[u8]) -> Result<T, rancor::Error> {
        rkyv::deserialize(access::<T>(bytes)?)
    }

    fn size(value: &T) -> Result<usize, rancor::Error> {
        archive(value, To::Nowhere)
    }
}

impl<T> Message<Coded<T, Rkyv>>
where
    T: Archive + 'static,
    Rkyv: Codec<T>,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>>,
{
    /// The archived value, where it stands in the segment: nothing is copied. Every call checks all of it, so keep the
    /// reference.
    ///
    /// What was checked stays as it is as long as all processes keep to the rules: as for [plain](crate::channel::Plain) data, a
    /// process that writes where it must not, after the check, is outside of what can be promised.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the bytes are no archive of this type.
    ///
    /// # Examples
    ///
    /// See [`Rkyv`].
    pub fn archived(&self) -> Result<&Archived<T>, DecodeError> {
        access::<T>(self.as_ref()).map_err(|error| DecodeError::new(<Rkyv as Codec<T>>::NAME, error.into()))
    }
}
