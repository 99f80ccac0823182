//! A message of a routed channel.

use std::{
    error::Error,
    fmt,
    ops::Deref,
    panic::{RefUnwindSafe, UnwindSafe},
};

use bytes::Bytes;

use crate::{
    channel::{self, Codec, Coded, DecodeError, Payload, Plain},
    routing::tenure::Hold,
};

/// A message of a [routed channel](crate::routing::Options): a [`channel::Message`], read in place. As long as it is neither dropped nor
/// acknowledged, no other receiver is given a message of its key.
///
/// If it is leaked ([`std::mem::forget`]), its partition is lost to others until the process leaves the segment.
pub struct Message<T: Payload + ?Sized> {
    // In this order: the partition is to be had when the message is done with.
    message: channel::Message<T>,
    hold: Hold,
}

impl<T: Payload + ?Sized> Message<T> {
    pub(super) fn new(message: channel::Message<T>, hold: Hold) -> Self {
        Self { message, hold }
    }

    /// The partition that the message was in.
    pub fn partition(&self) -> usize {
        self.hold.0.partition()
    }

    /// The message's number in its partition: see [`channel::Message::sequence`].
    pub fn sequence(&self) -> u64 {
        self.message.sequence()
    }

    /// The lane that sent the message: see [`channel::Message::sender`].
    pub fn sender(&self) -> Option<u16> {
        self.message.sender()
    }

    /// How often the message was delivered, this time included: see [`channel::Message::delivery_count`].
    pub fn delivery_count(&self) -> u32 {
        self.message.delivery_count()
    }

    /// Acknowledges the message, as dropping it does.
    pub fn ack(self) {
        drop(self);
    }

    /// Gives the message back: it is delivered again, ahead of those that nobody has received: see [`channel::Message::nack`]. What
    /// its receiver was given of the same key after it was given already.
    pub fn nack(self) {
        let Self { message, hold } = self;
        message.nack();
        drop(hold);
    }

    /// Sends the message on into another channel of the segment, without a copy: see [`channel::Message::forward`].
    ///
    /// # Errors
    ///
    /// [`ForwardError`] with the message.
    pub fn forward(self, to: &channel::Sender<T>) -> Result<(), ForwardError<T>> {
        let Self { message, hold } = self;
        message.forward(to).map_err(|error| match error {
            channel::ForwardError::Full(message) => ForwardError::Full(Self { message, hold }),
            channel::ForwardError::Closed(message) => ForwardError::Closed(Self { message, hold }),
            channel::ForwardError::OtherSegment(message) => ForwardError::OtherSegment(Self { message, hold }),
        })
    }

    /// The payload's bytes, without a copy: acknowledged when the last clone of them drops.
    pub fn into_bytes(self) -> Bytes
    where
        T: 'static,
    {
        Bytes::from_owner(self)
    }
}

impl<T: Plain> Message<T> {
    /// Copies the payload out and acknowledges the message.
    pub fn into_inner(self) -> T {
        let Self { message, hold } = self;
        let value = message.into_inner();
        drop(hold);
        value
    }
}

impl<T: Plain> Message<[T]> {
    /// Copies the payload out and acknowledges the message.
    pub fn into_inner(self) -> Vec<T> {
        self.message.body.to_vec()
    }
}

impl<T: 'static, C: Codec<T>> Message<Coded<T, C>> {
    /// Decodes the value: see [`channel::Message::decode`].
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the bytes are not what the codec writes for this type.
    pub fn decode(&self) -> Result<T, DecodeError> {
        self.message.decode()
    }
}

impl<T: Plain> Deref for Message<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.message
    }
}

impl<T: Plain> Deref for Message<[T]> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.message
    }
}

/// The payload's bytes.
impl<T: Payload + ?Sized> AsRef<[u8]> for Message<T> {
    fn as_ref(&self) -> &[u8] {
        self.message.as_ref()
    }
}

impl<T: Payload + ?Sized> fmt::Debug for Message<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("partition", &self.partition())
            .field("sequence", &self.sequence())
            .finish_non_exhaustive()
    }
}

// As for messages.
impl<T: Payload + ?Sized> UnwindSafe for Message<T> {}
impl<T: Payload + ?Sized> RefUnwindSafe for Message<T> {}

/// A message of a routed channel was not forwarded; it is handed back, and still keeps its key.
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
