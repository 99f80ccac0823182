//! Channels of what cannot stand in shared memory as it is: a codec writes it there, and reads it.
//!
//! # Copies
//!
//! There is one on each side. The sender asks the codec for the size, which is a first pass over the value that writes
//! nothing, takes a block of that size from the segment, and has the codec write into it. The receiver decodes from the
//! bytes as they stand in the segment.

use std::{
    error::Error,
    io::{self, Write},
    marker::PhantomData,
    time::Duration,
};

#[cfg(feature = "postcard")]
use crate::channel::bounded::from_postcard;
use crate::{
    attachment::{lease::Lease, policies::Marks},
    channel::{
        error::{DecodeError, SendError, SendTimeoutError, TrySendError},
        message::Message,
        payload::{Arrival, BYTES_HEADER, Payload},
        sender::Sender,
        wait::block_on,
    },
    schema::Schema,
};

/// Turns values into bytes, and bytes into values. `Postcard` and `Json`, behind features of their names, do so for
/// what serde can write, `Rkyv` and `Prost` for what those crates can; your own may do so for anything.
///
/// The same value must give the same bytes each time: it is asked for the size first. A value that changes in between is
/// not sent.
///
/// ```
/// use std::{io, str};
/// use waterway::{codec::Codec, Segment};
///
/// /// Text as it is.
/// struct Utf8;
///
/// impl Codec<String> for Utf8 {
///     const NAME: &'static str = "utf8";
///     type Error = io::Error;
///
///     fn encode<W: io::Write>(value: &String, mut to: W) -> io::Result<()> {
///         to.write_all(value.as_bytes())
///     }
///
///     fn decode(bytes: &[u8]) -> io::Result<String> {
///         str::from_utf8(bytes).map(str::to_owned).map_err(io::Error::other)
///     }
/// }
///
/// let segment = Segment::options().in_process()?;
/// let (sender, receiver) = segment.channel::<String>("words").codec::<Utf8>().open()?;
/// sender.try_send("hello".into())?;
/// assert_eq!(receiver.try_recv()?.decode()?, "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Codec<T: 'static>: 'static {
    /// What the codec is called in the segment: a channel is refused to whoever comes with another one.
    const NAME: &'static str;

    /// Why something could not be encoded or decoded.
    type Error: Into<Box<dyn Error + Send + Sync>>;

    /// Writes a value.
    ///
    /// # Errors
    ///
    /// If the value cannot be written, or the writer fails.
    fn encode<W: Write>(value: &T, to: W) -> Result<(), Self::Error>;

    /// Writes a value into memory that has as much room as [`size`](Self::size) said; returns how many bytes were written.
    /// This is what sending calls. Unless there is a quicker way, `encode` does it.
    ///
    /// # Errors
    ///
    /// If the value cannot be written, or does not fit.
    fn encode_into(value: &T, to: &mut [u8]) -> Result<usize, Self::Error> {
        let room = to.len();
        let mut rest = to;
        Self::encode(value, &mut rest)?;
        Ok(room - rest.len())
    }

    /// Reads a value. The bytes may be anything: somebody else wrote them. So what reads them is bounded by how many they
    /// are: it never recurses as deeply as they say, which would end the process, and never does or takes as much as a length
    /// in them says.
    ///
    /// # Errors
    ///
    /// If the bytes are not what `encode` writes.
    fn decode(bytes: &[u8]) -> Result<T, Self::Error>;

    /// How many bytes `encode` will write. Unless there is a quicker way, by letting it.
    ///
    /// # Errors
    ///
    /// If the value cannot be written.
    fn size(value: &T) -> Result<usize, Self::Error> {
        let mut count = Count(0);
        Self::encode(value, &mut count)?;
        Ok(count.0)
    }
}

/// Counts bytes, and keeps none.
struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a channel carries that was opened with a [codec](crate::ChannelOptions::codec): values of `T`, as `C` writes
/// them. There are no values of this type; it stands in [`Sender`], [`Receiver`](crate::Receiver) and [`Message`].
pub struct Coded<T, C>(PhantomData<fn(T) -> (T, C)>);

impl<T: 'static, C: Codec<T>> Payload for Coded<T, C> {
    const SIZE: u64 = u64::MAX;
    const ALIGN: u64 = 1;
    type Held = Lease;
    type Value = T;

    fn schema() -> Schema {
        Schema::coded::<T>(C::NAME)
    }

    #[inline]
    fn arrive(block: Arrival) -> Option<Lease> {
        block.framed(BYTES_HEADER)
    }

    fn judge(held: &Lease, rules: &dyn Fn(&T) -> Marks) -> Option<Marks> {
        C::decode(held.bytes()).ok().map(|value| rules(&value))
    }
}

impl<T: 'static, C: Codec<T>> Sender<Coded<T, C>> {
    /// Encodes a value into the segment and sends it, waiting for room in the channel and for memory.
    ///
    /// # Errors
    ///
    /// [`SendError`] with the value, at once: if the channel is closed, if the value can never fit, or if the codec cannot
    /// write it.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, the message has not been sent, and the value is lost.
    ///
    /// # Examples
    ///
    /// See [`ChannelOptions::codec`](crate::ChannelOptions::codec).
    #[must_use = "nothing is sent before this is awaited: `try_send` sends at once"]
    pub fn send(&self, value: T) -> impl Future<Output = Result<(), SendError<T>>> {
        self.send_value(value)
    }

    /// Encodes and sends a value if there is room and memory now.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with the value.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.try_send_value(value)
    }

    /// Encodes and sends a value, waiting for room and memory for at most `time`. Needs no runtime.
    ///
    /// # Errors
    ///
    /// [`SendTimeoutError`] with the value.
    ///
    /// # Cancel safety
    ///
    /// As for [`send`](Self::send).
    pub async fn send_timeout(&self, value: T, time: Duration) -> Result<(), SendTimeoutError<T>> {
        self.send_value_within(value, time).await
    }

    /// Encodes and sends a value, blocking the thread until there is room and memory.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    #[track_caller]
    pub fn blocking_send(&self, value: T) -> Result<(), SendError<T>> {
        block_on(self.send(value))
    }

    /// Encodes and sends a value, blocking the thread until there is room and memory, for at most `time`. Needs no runtime, and no other
    /// thread.
    ///
    /// # Errors
    ///
    /// As for [`send_timeout`](Self::send_timeout).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # let segment = waterway::Segment::options().in_process()?;
    /// # #[cfg(feature = "json")] {
    /// let (sender, _receiver) = segment.channel::<String>("lines").capacity(1).codec::<waterway::codec::Json>().open()?;
    /// let time = Duration::from_millis(10);
    /// sender.blocking_send_timeout("one".into(), time)?;
    /// assert!(sender.blocking_send_timeout("two".into(), time).unwrap_err().is_timeout());
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_send_timeout(&self, value: T, time: Duration) -> Result<(), SendTimeoutError<T>> {
        block_on(self.send_timeout(value, time))
    }
}

impl<T: 'static, C: Codec<T>> Message<Coded<T, C>> {
    /// Decodes the value, from the bytes as they stand in the segment. The message stays; dropping it acknowledges it.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the bytes are not what the codec writes for this type. That happens if the sender has another
    /// version of the type: only its name is compared when a channel is opened.
    ///
    /// # Examples
    ///
    /// See [`ChannelOptions::codec`](crate::ChannelOptions::codec).
    pub fn decode(&self) -> Result<T, DecodeError> {
        C::decode(self.as_ref()).map_err(|error| DecodeError::new(C::NAME, error.into()))
    }
}

/// The codec of the `postcard` crate: small and quick. With the feature `postcard`.
///
/// # Bounds
///
/// What arrives is decoded within bounds, whatever it says of itself; beyond them is an error. A value may be nested 256 levels
/// deep: structs, tuples, sequences, maps, enums, newtypes and options are one each. It may have 65,536 elements, in all of its
/// sequences and maps, that take no byte (as those of a `Vec<()>`). Nothing else can be longer than the bytes of the message.
#[cfg(feature = "postcard")]
#[derive(Clone, Copy, Debug)]
pub struct Postcard;

#[cfg(feature = "postcard")]
impl<T: serde::Serialize + serde::de::DeserializeOwned + 'static> Codec<T> for Postcard {
    const NAME: &'static str = "postcard";
    type Error = postcard::Error;

    fn encode<W: Write>(value: &T, to: W) -> Result<(), postcard::Error> {
        postcard::to_io(value, to).map(drop)
    }

    fn decode(bytes: &[u8]) -> Result<T, postcard::Error> {
        from_postcard(bytes)
    }

    fn size(value: &T) -> Result<usize, postcard::Error> {
        postcard::serialize_with_flavor(value, postcard::ser_flavors::Size::default())
    }
}

/// JSON, as the `serde_json` crate writes it: for people and other languages to read. With the feature `json`.
///
/// What is nested more than 127 levels deep is an error when it is decoded, as the crate has it.
#[cfg(feature = "json")]
#[derive(Clone, Copy, Debug)]
pub struct Json;

#[cfg(feature = "json")]
impl<T: serde::Serialize + serde::de::DeserializeOwned + 'static> Codec<T> for Json {
    const NAME: &'static str = "json";
    type Error = serde_json::Error;

    fn encode<W: Write>(value: &T, to: W) -> Result<(), serde_json::Error> {
        serde_json::to_writer(to, value)
    }

    fn decode(bytes: &[u8]) -> Result<T, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}
