//! Messages that are given back if their holder is told to end before it is done with them.

use std::ops::Deref;

use waterway::{Message, broadcast::Published, channel::Plain, routing};

use crate::{Result, stamp::Stamp};

/// A message that may come back.
pub(crate) trait Delivered {
    fn ack(self);
    fn nack(self);
}

macro_rules! delivered {
    ($([$($parameter:tt)*] $message:ty;)*) => {$(
        impl<$($parameter)*> Delivered for $message {
            fn ack(self) {
                self.ack();
            }

            fn nack(self) {
                self.nack();
            }
        }
    )*};
}

delivered! {
    [T: Plain] Message<T>;
    [] Published<[u8]>;
    [] routing::Message<[u8]>;
}

/// A message that is given back when it is dropped.
pub(crate) struct Held<M: Delivered>(Option<M>);

impl<M: Delivered> Held<M> {
    pub(crate) fn new(message: M) -> Self {
        Self(Some(message))
    }

    pub(crate) fn ack(mut self) {
        if let Some(message) = self.0.take() {
            message.ack();
        }
    }
}

impl<M: Delivered> Deref for Held<M> {
    type Target = M;

    fn deref(&self) -> &M {
        self.0.as_ref().expect("a message is there until it is acknowledged")
    }
}

impl<M: Delivered> Drop for Held<M> {
    fn drop(&mut self) {
        if let Some(message) = self.0.take() {
            message.nack();
        }
    }
}

/// The same with the stamp that it had when it came.
pub(crate) struct Stamped<M: Delivered> {
    stamp: Stamp,
    pub(crate) message: Held<M>,
}

impl<M: Delivered + Deref<Target = [u8]>> Stamped<M> {
    pub(crate) fn new(message: M, lane: usize) -> Result<Self> {
        Ok(Self { stamp: Stamp::verify(&message, lane)?, message: Held::new(message) })
    }

    /// The stamp, which must still be there: nobody has got the message's memory meanwhile.
    pub(crate) fn stamp(&self, lane: usize) -> Result<Stamp> {
        let (stamp, found) = (self.stamp, Stamp::verify(&self.message, lane)?);
        if found != stamp {
            return Err(format!("{stamp:?} has become {found:?}").into());
        }
        Ok(found)
    }
}
