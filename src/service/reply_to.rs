//! Senders that travel in messages.

use std::{
    fmt,
    hash::{Hash, Hasher},
    marker::PhantomData,
};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{
    OpenError, Segment,
    attachment::{
        directory::End,
        known::{ChannelKey, Unknown},
        port::Port,
    },
    channel::{self, Payload, Sender, WaitStrategy},
    schema::hash_of,
};

/// Where to send an answer: a [`Sender`] that can itself be sent, as plain data of 24 bytes, in a message of any channel of the
/// segment, by any codec.
///
/// Made by [`channel::Receiver::reply_to`] or [`channel::Sender::reply_to`]. Whoever gets it makes a
/// sender of it, by [`sender`](Self::sender). It keeps
/// nothing open. If the channel has gone by then, that is an error, also if there is a new channel of that name, or in its
/// place.
///
/// # Examples
///
/// ```
/// use waterway::{service::ReplyTo, Segment};
///
/// #[waterway::plain]
/// struct Question { number: u64, reply_to: ReplyTo<u64> }
///
/// # let segment = Segment::options().in_process()?;
/// let (questions, server) = segment.channel::<Question>("questions").open()?;
/// let (_mine, answers) = segment.channel::<u64>("my-answers").open()?;
/// questions.try_send(Question { number: 7, reply_to: answers.reply_to() })?;
///
/// // In another process:
/// let question = server.try_recv()?;
/// question.reply_to.sender(&segment)?.try_send(question.number + 1)?;
///
/// assert_eq!(*answers.try_recv()?, 8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ReplyTo<T: ?Sized> {
    ring: [u8; 8],
    /// Of the segment and the payload's type.
    check: [u8; 8],
    index: [u8; 4],
    reserved: [u8; 4],
    payload: PhantomData<fn(&T)>,
}

/// Bytes of a `ReplyTo`.
const SIZE: usize = 24;

/// No sender can be made of a [`ReplyTo`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyToError {
    /// The channel is not there any more.
    #[error("the channel to reply to has gone: nobody waits there for a reply")]
    Gone,
    /// It is of another segment, or the channel carries something else.
    #[error(
        "the channel to reply to is of another segment, or of another type: use the segment that the message came from"
    )]
    Foreign,
    /// The channel could not be opened.
    #[error("the channel to reply to could not be opened")]
    Open(#[source] OpenError),
}

impl<T: ?Sized> ReplyTo<T> {
    /// As bytes, for formats that have nothing better.
    pub fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; SIZE];
        bytes[..8].copy_from_slice(&self.ring);
        bytes[8..16].copy_from_slice(&self.check);
        bytes[16..20].copy_from_slice(&self.index);
        bytes[20..].copy_from_slice(&self.reserved);
        bytes
    }

    /// Out of such bytes. Any bytes make one; whether it leads anywhere is seen by [`sender`](Self::sender).
    pub fn from_bytes(bytes: [u8; 24]) -> Self {
        let [mut ring, mut check, mut index, mut reserved] = [[0; 8]; 4];
        ring.copy_from_slice(&bytes[..8]);
        check.copy_from_slice(&bytes[8..16]);
        index[..4].copy_from_slice(&bytes[16..20]);
        reserved[..4].copy_from_slice(&bytes[20..]);
        let four = |bytes: [u8; 8]| [bytes[0], bytes[1], bytes[2], bytes[3]];
        Self { ring, check, index: four(index), reserved: four(reserved), payload: PhantomData }
    }
}

/// What tells a channel of that payload in that segment from others.
fn check_of(port: &Port) -> u64 {
    check(&port.attachment().region().header().uuid, port.payload_hash())
}

fn check(uuid: &[u8; 16], payload_hash: u64) -> u64 {
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(uuid);
    bytes[16..].copy_from_slice(&payload_hash.to_ne_bytes());
    crate::region::fnv1a(&bytes)
}

impl<T: Payload + ?Sized> ReplyTo<T> {
    fn of(port: &Port) -> Self {
        let ChannelKey { index, ring } = port.key();
        Self {
            ring: ring.to_ne_bytes(),
            check: check_of(port).to_ne_bytes(),
            index: index.to_ne_bytes(),
            reserved: [0; 4],
            payload: PhantomData,
        }
    }

    /// A sender of the channel. From now on the channel stays open for its receivers, as with any sender.
    ///
    /// # Errors
    ///
    /// [`ReplyToError::Gone`] if the channel is not there any more, or nobody receives from it;
    /// [`ReplyToError::Foreign`] if it is of another segment than this one, or of another type.
    pub fn sender(&self, segment: &Segment) -> Result<Sender<T>, ReplyToError> {
        let attachment = segment.attachment();
        let hash = hash_of::<T>();
        if check(&attachment.region().header().uuid, hash) != u64::from_ne_bytes(self.check) {
            return Err(ReplyToError::Foreign);
        }
        let key = ChannelKey { index: u32::from_ne_bytes(self.index), ring: u64::from_ne_bytes(self.ring) };
        let port = attachment.enter_known(key, hash, End::Sender).map_err(|unknown| match unknown {
            Unknown::Gone => ReplyToError::Gone,
            Unknown::Payload => ReplyToError::Foreign,
            Unknown::Damaged(error) => ReplyToError::Open(error),
        })?;
        let sender = Sender::new(port, WaitStrategy::default());
        if sender.is_closed() { Err(ReplyToError::Gone) } else { Ok(sender) }
    }
}

impl<T: Payload + ?Sized> channel::Receiver<T> {
    /// Where to send what this receiver is to receive: to be sent in a message. See [`ReplyTo`].
    pub fn reply_to(&self) -> ReplyTo<T> {
        ReplyTo::of(&self.port)
    }
}

impl<T: Payload + ?Sized> channel::Sender<T> {
    /// This sender's channel, to be sent in a message. See [`ReplyTo`].
    pub fn reply_to(&self) -> ReplyTo<T> {
        ReplyTo::of(&self.port)
    }
}

impl<T: ?Sized> Clone for ReplyTo<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for ReplyTo<T> {}

impl<T: ?Sized> PartialEq for ReplyTo<T> {
    fn eq(&self, other: &Self) -> bool {
        self.to_bytes() == other.to_bytes()
    }
}

impl<T: ?Sized> Eq for ReplyTo<T> {}

impl<T: ?Sized> Hash for ReplyTo<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.to_bytes().hash(state);
    }
}

impl<T: ?Sized> fmt::Debug for ReplyTo<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyTo").field("channel", &u32::from_ne_bytes(self.index)).finish_non_exhaustive()
    }
}

#[cfg(any(feature = "postcard", feature = "json"))]
impl<T: ?Sized> serde::Serialize for ReplyTo<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_bytes().serialize(serializer)
    }
}

#[cfg(any(feature = "postcard", feature = "json"))]
impl<'de, T: ?Sized> serde::Deserialize<'de> for ReplyTo<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <[u8; SIZE]>::deserialize(deserializer).map(Self::from_bytes)
    }
}
