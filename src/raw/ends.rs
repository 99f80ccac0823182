//! Raw ends, and what they receive.

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    SendError, TryRecvError, TrySendError, WaitStrategy,
    attachment::{Attachment, port::Port},
    channel::{self, RecvTimeoutError, SendTimeoutError},
    raw::{Framed, Raw, payload::Frame},
};

/// What stands in the entry of a channel.
#[derive(Debug)]
pub(super) struct Described {
    frame: Frame,
    payload: String,
    schema: Option<String>,
}

impl Described {
    /// Of a channel that has one of our ends, so that it stays what it is; `None` if it says that it is what cannot be.
    pub(super) fn of(attachment: &Attachment, port: &Port) -> Option<Self> {
        let (shape, schema) = attachment.shape_and_schema(port.index());
        Some(Self { frame: Frame::of(&shape)?, payload: shape.payload_name, schema })
    }
}

macro_rules! describes {
    ($end:ident) => {
        impl $end {
            /// What the payload is called; a name of more than 48 bytes is cut.
            pub fn payload(&self) -> &str {
                &self.described.payload
            }

            /// The text of the payload's [`Schema`](crate::Schema), as `Display` writes it; `None` if it is too long to stand in the
            /// segment.
            pub fn schema(&self) -> Option<&str> {
                self.described.schema.as_deref()
            }

            /// The messages that wait to be received.
            pub fn len(&self) -> usize {
                self.end.len()
            }

            /// Whether no message waits to be received.
            pub fn is_empty(&self) -> bool {
                self.end.is_empty()
            }

            /// Whether the channel is closed.
            pub fn is_closed(&self) -> bool {
                self.end.is_closed()
            }

            /// The most messages that may wait to be received.
            pub fn max_capacity(&self) -> usize {
                self.end.max_capacity()
            }
        }

        impl fmt::Debug for $end {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($end)).field("end", &self.end).field("payload", &self.payload()).finish()
            }
        }
    };
}

/// Sends payloads as bytes. Clones are further senders.
///
/// The bytes must be as many as the schema says: of plain data the size of the value, of slices a multiple of an element's. That they are
/// a value is not checked here: a typed receiver refuses what is none.
#[derive(Clone)]
pub struct Sender {
    end: channel::Sender<Raw>,
    described: Arc<Described>,
}

describes!(Sender);

impl Sender {
    pub(super) fn new(port: Arc<Port>, strategy: WaitStrategy, described: Arc<Described>) -> Self {
        Self { end: channel::Sender::new(port, strategy), described }
    }

    fn framed<B: AsRef<[u8]>>(&self, bytes: B) -> Framed<B> {
        Framed { bytes, frame: self.described.frame }
    }

    /// Sends a payload, waiting for room in the channel and for memory.
    ///
    /// # Errors
    ///
    /// [`SendError`] with the bytes, at once: if the channel is closed, if they can never fit, or, as
    /// [`NotEncodable`](channel::SendErrorKind::NotEncodable), if they are of another length than a payload of this channel.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, nothing has been sent.
    pub async fn send<B: AsRef<[u8]>>(&self, bytes: B) -> Result<(), SendError<B>> {
        self.end.send_value(self.framed(bytes)).await.map_err(|SendError(framed, kind)| SendError(framed.bytes, kind))
    }

    /// Sends a payload if there is room and memory now.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with the bytes; [`NotEncodable`](TrySendError::NotEncodable) if they are of another length than a payload
    /// of this channel.
    pub fn try_send<B: AsRef<[u8]>>(&self, bytes: B) -> Result<(), TrySendError<B>> {
        self.end.try_send_value(self.framed(bytes)).map_err(|error| match error {
            TrySendError::Full(framed) => TrySendError::Full(framed.bytes),
            TrySendError::Closed(framed) => TrySendError::Closed(framed.bytes),
            TrySendError::OutOfMemory(framed) => TrySendError::OutOfMemory(framed.bytes),
            TrySendError::TooLarge(framed) => TrySendError::TooLarge(framed.bytes),
            TrySendError::NotEncodable(framed) => TrySendError::NotEncodable(framed.bytes),
        })
    }

    /// [`send`](Self::send) that waits no longer than `time`.
    ///
    /// # Errors
    ///
    /// As for `send`, and [`SendTimeoutError::Timeout`].
    ///
    /// # Cancel safety
    ///
    /// As for `send`.
    pub async fn send_timeout<B: AsRef<[u8]>>(&self, bytes: B, time: Duration) -> Result<(), SendTimeoutError<B>> {
        self.end.send_value_within(self.framed(bytes), time).await.map_err(|error| match error {
            SendTimeoutError::Timeout(framed) => SendTimeoutError::Timeout(framed.bytes),
            SendTimeoutError::Closed(framed) => SendTimeoutError::Closed(framed.bytes),
            SendTimeoutError::TooLarge(framed) => SendTimeoutError::TooLarge(framed.bytes),
            SendTimeoutError::NotEncodable(framed) => SendTimeoutError::NotEncodable(framed.bytes),
        })
    }

    /// [`send`](Self::send) that blocks the thread.
    ///
    /// # Errors
    ///
    /// As for `send`.
    ///
    /// # Panics
    ///
    /// In a task of an asynchronous runtime, as tokio's does.
    pub fn blocking_send<B: AsRef<[u8]>>(&self, bytes: B) -> Result<(), SendError<B>> {
        channel::wait::block_on(self.send(bytes))
    }

    /// Waits until all receivers have left, or one has closed the channel.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: it only looks.
    pub async fn closed(&self) {
        self.end.closed().await;
    }
}

/// Receives payloads as bytes. Clones are further receivers.
#[derive(Clone)]
pub struct Receiver {
    end: channel::Receiver<Raw>,
    described: Arc<Described>,
}

describes!(Receiver);

impl Receiver {
    pub(super) fn new(port: Arc<Port>, strategy: WaitStrategy, described: Arc<Described>) -> Self {
        Self { end: channel::Receiver::new(port, strategy), described }
    }

    /// Finds the payload in its block. What cannot be one is gone, and counted, as with typed receivers.
    fn find(&self, message: channel::Message<Raw>) -> Option<Message> {
        let Some((start, len)) = self.described.frame.find(message.as_ref()) else {
            self.end.port.count_invalid();
            return None;
        };
        Some(Message { message, start, len })
    }

    /// Receives the next message, waiting for one. `None` if the channel is closed and empty.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: if the future is dropped before it is done, nothing has been received.
    pub async fn recv(&self) -> Option<Message> {
        loop {
            let message = self.end.recv().await?;
            if let Some(found) = self.find(message) {
                return Some(found);
            }
        }
    }

    /// Receives a message if there is one.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`] if there is none now, [`TryRecvError::Disconnected`] if there will never be one.
    pub fn try_recv(&self) -> Result<Message, TryRecvError> {
        loop {
            let message = self.end.try_recv()?;
            if let Some(found) = self.find(message) {
                return Ok(found);
            }
        }
    }

    /// [`recv`](Self::recv) that waits no longer than `time` for a message.
    ///
    /// # Errors
    ///
    /// [`RecvTimeoutError`].
    ///
    /// # Cancel safety
    ///
    /// As for `recv`.
    pub async fn recv_timeout(&self, time: Duration) -> Result<Message, RecvTimeoutError> {
        loop {
            let message = self.end.recv_timeout(time).await?;
            if let Some(found) = self.find(message) {
                return Ok(found);
            }
        }
    }

    /// [`recv`](Self::recv) that blocks the thread.
    ///
    /// # Panics
    ///
    /// In a task of an asynchronous runtime, as tokio's does.
    pub fn blocking_recv(&self) -> Option<Message> {
        channel::wait::block_on(self.recv())
    }

    /// Closes the channel: nothing more is sent, and what is there can still be received.
    pub fn close(&self) {
        self.end.close();
    }

    /// Messages that could not be a payload of this channel, and were dropped by this process.
    pub fn invalid(&self) -> u64 {
        self.end.invalid()
    }
}

/// A received payload, read in place. Dropping it acknowledges it.
pub struct Message {
    message: channel::Message<Raw>,
    start: usize,
    len: usize,
}

impl Message {
    /// The message's number in its channel, see [`Message::sequence`](channel::Message::sequence).
    pub fn sequence(&self) -> u64 {
        self.message.sequence()
    }

    /// How often the message was delivered, this time included.
    pub fn delivery_count(&self) -> u32 {
        self.message.delivery_count()
    }

    /// Acknowledges the message, as dropping it does.
    pub fn ack(self) {
        self.message.ack();
    }

    /// Gives the message back, see [`Message::nack`](channel::Message::nack).
    pub fn nack(self) {
        self.message.nack();
    }

    /// The bytes, without a copy: acknowledged when the last clone of them drops.
    pub fn into_bytes(self) -> Bytes {
        let (start, end) = (self.start, self.start + self.len);
        self.message.into_bytes().slice(start..end)
    }
}

impl Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.message.as_ref()[self.start..self.start + self.len]
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("message", &self.message).field("len", &self.len).finish()
    }
}
