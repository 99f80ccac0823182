//! A message of a broadcast.

use std::{
    fmt,
    ops::Deref,
    panic::{RefUnwindSafe, UnwindSafe},
};

use bytes::Bytes;

use crate::{
    attachment::{
        groups::{Claim, GroupEnd, Missing},
        lease::Held,
    },
    channel::{Arrival, Codec, Coded, DecodeError, Payload, Plain},
    region::lanes::LaneId,
};

/// A message that was published, read in place, where all groups read it. Dropping it says that the group is done with it; when
/// all are, its memory is free again.
///
/// It keeps the process attached to the segment, may outlive the subscriber, and be dropped on any thread. A forked child has
/// no mapping of the segment, so it must not read the messages that it inherits: that is a fault.
pub struct Published<T: Payload + ?Sized> {
    /// Before the claim, so that it is dropped before it: that is what keeps its block.
    body: T::Held,
    claim: Claim,
    sender: u16,
}

impl<T: Payload + ?Sized> Published<T> {
    /// Receives the next message of a group. One that is no such payload is dropped and counted: only memory that somebody
    /// overwrote has such.
    pub(super) fn receive(group: &GroupEnd) -> Result<Self, Missing> {
        loop {
            let (claim, lease, sender) = group.try_receive()?;
            let topic = &group.topic().port;
            let Some(body) = T::arrive(Arrival::new(lease)) else {
                topic.count_invalid();
                continue;
            };
            topic.meters().received(body.lease().bytes().len());
            return Ok(Self { body, claim, sender: sender.0 });
        }
    }

    fn payload_bytes(&self) -> &[u8] {
        self.body.lease().bytes()
    }

    /// The message's number in its broadcast, the same for all groups: later ones have higher numbers.
    pub fn sequence(&self) -> u64 {
        self.claim.position()
    }

    /// The lane that published the message: equal numbers mean the same thread of the same process, or its successor. `None` if
    /// the publisher had died before the message was received.
    pub fn sender(&self) -> Option<u16> {
        (self.sender != LaneId::NOBODY.0).then_some(self.sender)
    }

    /// Says that the group is done with the message, as dropping it does.
    pub fn ack(self) {
        drop(self);
    }

    /// Gives the message back to its group: it is delivered again, ahead of those that nobody has taken; or is dropped and
    /// [counted](crate::broadcast::Subscriber::discarded), if this was its last delivery. In a group that delivers
    /// [at most once](crate::Delivery::AtMostOnce) this drops the message.
    ///
    /// Dropping a message in a thread that is panicking does the same.
    pub fn nack(self) {
        let Self { body, claim, .. } = self;
        drop(body);
        if claim.comes_back() {
            claim.give_back();
        }
    }

    /// How often the message was delivered to this group, this time included: 1, unless the group has messages delivered
    /// [at least once](crate::Delivery::AtLeastOnce).
    pub fn delivery_count(&self) -> u32 {
        u32::from(self.claim.tries()) + 1
    }

    /// The payload's bytes, without a copy: acknowledged when the last clone of them drops.
    pub fn into_bytes(self) -> Bytes
    where
        T: 'static,
    {
        Bytes::from_owner(self)
    }
}

impl<T: Plain> Published<T> {
    /// Copies the payload out and acknowledges the message.
    pub fn into_inner(self) -> T {
        self.body.read()
    }
}

impl<T: Plain> Published<[T]> {
    /// Copies the payload out and acknowledges the message.
    pub fn into_inner(self) -> Vec<T> {
        self.body.to_vec()
    }
}

impl<T: 'static, C: Codec<T>> Published<Coded<T, C>> {
    /// Decodes the value, from the bytes as they stand in the segment.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the bytes are not what the codec writes for this type.
    pub fn decode(&self) -> Result<T, DecodeError> {
        C::decode(self.as_ref()).map_err(|error| DecodeError::new(C::NAME, error.into()))
    }
}

impl<T: Plain> Deref for Published<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.body
    }
}

impl<T: Plain> Deref for Published<[T]> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        &self.body
    }
}

/// The payload's bytes.
impl<T: Payload + ?Sized> AsRef<[u8]> for Published<T> {
    fn as_ref(&self) -> &[u8] {
        self.payload_bytes()
    }
}

impl<T: Payload + ?Sized> fmt::Debug for Published<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Published").field("sequence", &self.sequence()).finish_non_exhaustive()
    }
}

// What was published does not change, whatever panics.
impl<T: Payload + ?Sized> UnwindSafe for Published<T> {}
impl<T: Payload + ?Sized> RefUnwindSafe for Published<T> {}
