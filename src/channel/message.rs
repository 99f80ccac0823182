//! A message that was received.

use std::{
    fmt,
    ops::Deref,
    panic::{RefUnwindSafe, UnwindSafe},
};

use bytes::Bytes;

use crate::{
    attachment::{
        lease::{Held, Lease},
        port::Port,
    },
    channel::payload::{Arrival, Payload, Plain},
    region::lanes::LaneId,
    ring::transfer::Received,
};

/// A received message, read in place: the payload stands in the segment until the message is dropped, which
/// acknowledges it and frees its block.
///
/// A message keeps the process attached to the segment. It may outlive the receiver, and be dropped on any thread. A
/// forked child has no mapping of the segment: where an inherited message had its payload there are zeros for it, so it must not
/// read one of a type of which zeros are no value.
pub struct Message<T: Payload + ?Sized> {
    pub(crate) body: T::Held,
    pub(crate) sequence: u64,
    pub(crate) sender: u16,
}

impl<T: Payload + ?Sized> Message<T> {
    /// What was received from a port; `None` if it is no such payload, and then it is gone, and counted: only memory
    /// that somebody overwrote has such a message.
    #[inline(always)]
    pub(super) fn arrive(port: &Port, received: Received) -> Option<Self> {
        let lease = Lease::received(port.attachment(), received.block, port.comes_back());
        match T::arrive(Arrival::new(lease)) {
            Some(body) => {
                port.meters().received(body.lease().bytes().len());
                Some(Self { body, sequence: received.position, sender: received.sender.0 })
            }
            None => {
                port.count_invalid();
                None
            }
        }
    }

    /// The same, moved field by field.
    #[inline(always)]
    pub(super) fn apart(self) -> Self {
        Self { body: self.body.apart(), sequence: self.sequence, sender: self.sender }
    }

    /// The payload's bytes.
    #[inline(always)]
    pub(super) fn payload_bytes(&self) -> &[u8] {
        self.body.lease().bytes()
    }

    /// The message's number in its channel, or among those of its [priority](crate::policy::Priority): later ones have higher numbers.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The lane that sent the message: equal numbers mean the same thread of the same process, or its successor.
    /// `None` if the sender had died before the message was received, or the message has come back.
    pub fn sender(&self) -> Option<u16> {
        (self.sender != LaneId::NOBODY.0).then_some(self.sender)
    }

    /// Acknowledges the message, as dropping it does.
    pub fn ack(self) {
        drop(self);
    }

    /// Gives the message back: it is delivered again, ahead of those that were sent later, to any receiver; or goes where the
    /// channel's [dead letters](crate::channel::DeadLetter) go, if this was its last delivery. Under
    /// [`Delivery::AtMostOnce`](crate::Delivery) nothing comes back, and this drops the message. One that has
    /// [expired](crate::policy::Retention::ttl) by then is not delivered again.
    ///
    /// Dropping a message in a thread that is panicking does the same.
    pub fn nack(self) {
        if self.body.lease().is_recallable() {
            let given = self.body.give(|lease| {
                lease.give_back();
                Ok::<(), std::convert::Infallible>(())
            });
            debug_assert!(given.is_ok());
        }
    }

    /// How often the message was delivered, this time included: 1, unless the channel delivers
    /// [at least once](crate::Delivery::AtLeastOnce).
    pub fn delivery_count(&self) -> u32 {
        self.body.lease().deliveries()
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
        self.body.read()
    }
}

impl<T: Plain> Message<[T]> {
    /// Copies the payload out and acknowledges the message.
    pub fn into_inner(self) -> Vec<T> {
        self.body.to_vec()
    }
}

impl<T: Plain> Deref for Message<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.body
    }
}

impl<T: Plain> Deref for Message<[T]> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        &self.body
    }
}

/// The payload's bytes.
impl<T: Payload + ?Sized> AsRef<[u8]> for Message<T> {
    fn as_ref(&self) -> &[u8] {
        self.payload_bytes()
    }
}

impl<T: Payload + ?Sized> fmt::Debug for Message<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

// Received bytes do not change, whatever panics.
impl<T: Payload + ?Sized> UnwindSafe for Message<T> {}
impl<T: Payload + ?Sized> RefUnwindSafe for Message<T> {}
