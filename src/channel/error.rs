//! Errors of sending and receiving. Those of sending hand the value back.

use std::{error::Error, fmt};

use crate::channel::{message::Message, payload::Payload};

/// The message was not sent: the channel is closed, or the message can never fit.
///
/// The value that was not sent is in `.0`.
#[non_exhaustive]
#[derive(PartialEq, Eq, Clone, Copy)]
pub struct SendError<T>(pub T, pub SendErrorKind);

/// Why a message could not be sent and never will be.
#[non_exhaustive]
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum SendErrorKind {
    /// All receivers have left, or one has closed the channel.
    Closed,
    /// The message is larger than the largest block that the segment can hold.
    TooLarge {
        /// Bytes that the message needs.
        needed: usize,
        /// Bytes of the largest block of the segment.
        largest: usize,
    },
    /// More permits were asked for than the channel has capacity.
    TooMany {
        /// Permits that were asked for.
        asked: usize,
        /// The channel's capacity.
        capacity: usize,
    },
    /// The codec cannot write the value.
    NotEncodable,
    /// The segment has no free block of the size now: of what does not wait for one.
    OutOfMemory,
}

impl SendErrorKind {
    fn explain(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("channel closed"),
            Self::TooLarge { needed, largest } => too_large(f, needed, largest),
            Self::TooMany { asked, capacity } => write!(
                f,
                "{asked} permits can never be had at once, the channel's capacity is {capacity}: ask for fewer, or make \
                 the channel with a larger capacity (ChannelOptions::capacity)"
            ),
            Self::NotEncodable => f.write_str(NOT_ENCODABLE),
            Self::OutOfMemory => f.write_str(OUT_OF_MEMORY),
        }
    }
}

const OUT_OF_MEMORY: &str = "the segment has no free block of that size: try again when some is free, or make the segment larger \
                             (SegmentOptions::max_size)";

const NOT_ENCODABLE: &str = "the codec cannot write this value: Codec::size of the value says why; a raw sender: the schema says how many bytes it is";

fn too_large(f: &mut fmt::Formatter<'_>, needed: usize, largest: usize) -> fmt::Result {
    write!(
        f,
        "the message needs a block of {needed} bytes, the segment's largest is {largest}: make the segment larger \
         (SegmentOptions::size) or split the message"
    )
}

impl<T> SendError<T> {
    /// The value that was not sent.
    pub fn into_inner(self) -> T {
        self.0
    }

    /// Why it was not sent.
    pub fn kind(&self) -> SendErrorKind {
        self.1
    }

    /// Whether the channel is closed.
    pub fn is_closed(&self) -> bool {
        self.1 == SendErrorKind::Closed
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SendError").field(&self.1).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.1.explain(f)
    }
}

impl<T> Error for SendError<T> {}

/// The message was not sent now.
#[non_exhaustive]
#[derive(PartialEq, Eq, Clone, Copy)]
pub enum TrySendError<T> {
    /// As many messages as the channel's capacity are waiting to be received.
    Full(T),
    /// All receivers have left, or one has closed the channel.
    Closed(T),
    /// The segment has no free block of the size now.
    OutOfMemory(T),
    /// The message is larger than the largest block that the segment can hold.
    TooLarge(T),
    /// The codec cannot write the value.
    NotEncodable(T),
}

impl<T> TrySendError<T> {
    /// The value that was not sent.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(value)
            | Self::Closed(value)
            | Self::OutOfMemory(value)
            | Self::TooLarge(value)
            | Self::NotEncodable(value) => value,
        }
    }

    /// Whether the channel had no room.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }

    /// Whether the channel is closed.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_))
    }
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Closed(_) => "Closed(..)",
            Self::OutOfMemory(_) => "OutOfMemory(..)",
            Self::TooLarge(_) => "TooLarge(..)",
            Self::NotEncodable(_) => "NotEncodable(..)",
        })
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "no available capacity",
            Self::Closed(_) => "channel closed",
            Self::OutOfMemory(_) => "the segment has no free block of that size: wait with send, or make it larger",
            Self::TooLarge(_) => "the message is larger than the segment's largest block: make the segment larger",
            Self::NotEncodable(_) => NOT_ENCODABLE,
        })
    }
}

impl<T> Error for TrySendError<T> {}

impl<T> From<SendError<T>> for TrySendError<T> {
    fn from(error: SendError<T>) -> Self {
        match error.1 {
            SendErrorKind::Closed => Self::Closed(error.0),
            SendErrorKind::TooLarge { .. } => Self::TooLarge(error.0),
            // As in tokio.
            SendErrorKind::TooMany { .. } => Self::Full(error.0),
            SendErrorKind::NotEncodable => Self::NotEncodable(error.0),
            SendErrorKind::OutOfMemory => Self::OutOfMemory(error.0),
        }
    }
}

/// The message was not sent within the time.
#[non_exhaustive]
#[derive(PartialEq, Eq, Clone, Copy)]
pub enum SendTimeoutError<T> {
    /// There was no room, or no memory, until the time had passed.
    Timeout(T),
    /// All receivers have left, or one has closed the channel.
    Closed(T),
    /// The message is larger than the largest block that the segment can hold.
    TooLarge(T),
    /// The codec cannot write the value.
    NotEncodable(T),
}

impl<T> SendTimeoutError<T> {
    /// The value that was not sent.
    pub fn into_inner(self) -> T {
        match self {
            Self::Timeout(value) | Self::Closed(value) | Self::TooLarge(value) | Self::NotEncodable(value) => value,
        }
    }

    /// Whether the time had passed.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout(_))
    }

    /// Whether the channel is closed.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_))
    }
}

impl<T> fmt::Debug for SendTimeoutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout(_) => "Timeout(..)",
            Self::Closed(_) => "Closed(..)",
            Self::TooLarge(_) => "TooLarge(..)",
            Self::NotEncodable(_) => "NotEncodable(..)",
        })
    }
}

impl<T> fmt::Display for SendTimeoutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout(_) => "timed out waiting on send operation",
            Self::Closed(_) => "channel closed",
            Self::TooLarge(_) => "the message is larger than the segment's largest block: make the segment larger",
            Self::NotEncodable(_) => NOT_ENCODABLE,
        })
    }
}

impl<T> Error for SendTimeoutError<T> {}

impl<T> From<SendError<T>> for SendTimeoutError<T> {
    fn from(error: SendError<T>) -> Self {
        match error.1 {
            SendErrorKind::Closed => Self::Closed(error.0),
            // Permits have no timeout.
            SendErrorKind::TooLarge { .. } | SendErrorKind::TooMany { .. } => Self::TooLarge(error.0),
            SendErrorKind::NotEncodable => Self::NotEncodable(error.0),
            // What has a timeout waits for memory.
            SendErrorKind::OutOfMemory => Self::Timeout(error.0),
        }
    }
}

/// There is no message now.
#[non_exhaustive]
#[derive(Debug, PartialEq, Eq, Clone, Copy, thiserror::Error)]
pub enum TryRecvError {
    /// The channel is empty, but senders are there or may come.
    #[error("receiving on an empty channel")]
    Empty,
    /// The channel is empty, and all senders have left or the channel was closed.
    #[error("receiving on a closed channel")]
    Disconnected,
}

/// There was no message within the time.
#[non_exhaustive]
#[derive(Debug, PartialEq, Eq, Clone, Copy, thiserror::Error)]
pub enum RecvTimeoutError {
    /// The channel was empty until the time had passed.
    #[error("timed out waiting for a message")]
    Timeout,
    /// The channel is empty, and all senders have left or the channel was closed.
    #[error("receiving on a closed channel")]
    Disconnected,
}

/// A received message was not forwarded; it is handed back.
#[non_exhaustive]
pub enum ForwardError<T: Payload + ?Sized> {
    /// As many messages as the other channel's capacity are waiting to be received.
    Full(Message<T>),
    /// The other channel is closed.
    Closed(Message<T>),
    /// The message and the sender were not opened from one [`Segment`](crate::Segment) or its clones.
    OtherSegment(Message<T>),
}

impl<T: Payload + ?Sized> ForwardError<T> {
    /// The message that was not forwarded.
    pub fn into_inner(self) -> Message<T> {
        match self {
            Self::Full(message) | Self::Closed(message) | Self::OtherSegment(message) => message,
        }
    }

    /// Whether the other channel had no room.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }

    /// Whether the other channel is closed.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_))
    }
}

impl<T: Payload + ?Sized> fmt::Debug for ForwardError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Closed(_) => "Closed(..)",
            Self::OtherSegment(_) => "OtherSegment(..)",
        })
    }
}

impl<T: Payload + ?Sized> fmt::Display for ForwardError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "no available capacity",
            Self::Closed(_) => "channel closed",
            Self::OtherSegment(_) => {
                "the message is from another segment: open both channels from one Segment or its clones, or send a copy"
            }
        })
    }
}

impl<T: Payload + ?Sized> Error for ForwardError<T> {}

/// The bytes of a message are not what its codec writes for the type.
#[derive(Debug, thiserror::Error)]
#[error("the message is not what {codec} writes for this type: have both sides the same version of it?")]
pub struct DecodeError {
    codec: &'static str,
    #[source]
    source: Box<dyn Error + Send + Sync>,
}

impl DecodeError {
    pub(crate) fn new(codec: &'static str, source: Box<dyn Error + Send + Sync>) -> Self {
        Self { codec, source }
    }

    /// The name of the codec.
    pub fn codec(&self) -> &'static str {
        self.codec
    }
}
