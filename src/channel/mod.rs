//! Channels: many senders, many receivers, each message to exactly one receiver, in order.
//!
//! A channel lives in a [`Segment`](crate::Segment) and has a name. Any process that has the segment can send into it and
//! receive from it, as if it were a `tokio::sync::mpsc` channel with more than one receiver.
//!
//! # Disconnection
//!
//! When the last [`Sender`] of all processes has gone, receivers get what is still there and then `None`. When the last
//! [`Receiver`] has gone, sending fails and hands the value back, and what waits is released. A receiver that comes
//! before any sender waits for one; a message that is sent before any receiver has come waits for one. A receiver can
//! [`close`](Receiver::close) the channel. A channel that is [persistent](ChannelOptions::persistent) outlives its ends.
//!
//! # Cancel safety
//!
//! Nothing is ever handed into a waiting future: a message is queued, and then somebody is woken to fetch it. So
//! [`Receiver::recv`] can be dropped at any await point, in `tokio::select!` or elsewhere, and loses nothing; a wake-up
//! that it had got already goes on to the next. [`Sender::send`] that is dropped has not sent.
//!
//! # Permits
//!
//! [`Sender::reserve`] takes room in the channel and memory in the segment in advance: sending with the [`Permit`] can
//! neither wait nor fail, and the message can be written where it will be read. A permit is no place in the queue:
//! however long it is held, it delays nobody. Permits of a process that dies come back.
//!
//! # Runtimes and threads
//!
//! Futures are woken from a thread of the process's own, and need no particular runtime: tokio in both flavours, smol,
//! `futures::executor`, or [`blocking_send`](Sender::blocking_send) and [`blocking_recv`](Receiver::blocking_recv)
//! on plain threads.
//!
//! # Slices
//!
//! A channel of slices, `segment.channel::<[T]>(name)`, carries any number of values in one message: one block, which is
//! written and read in place ([`reserve`](Sender::reserve) has a [`Permit`] that is like an empty `Vec`), and released when the
//! message is dropped, or the last of its [`Parts`]. Such a batch is a message in everything: it takes up one of the capacity, has one
//! sequence number and one delivery count, and goes to one receiver.
//!
//! # Memory
//!
//! A message's payload is written once, into a block of the segment, and read there. The block is freed when the
//! [`Message`] is dropped. A sender that finds no memory waits for it, as it waits for room.

mod at_once;
#[cfg(feature = "postcard")]
mod bounded;
pub(crate) mod codec;
#[cfg(feature = "prost")]
pub(crate) mod codec_prost;
#[cfg(feature = "rkyv")]
pub(crate) mod codec_rkyv;
pub(crate) mod error;
mod forward;
mod inquiry;
mod many;
mod message;
pub(crate) mod options;
mod parts;
mod payload;
mod permit;
pub(crate) mod poll;
mod receiver;
mod reserve;
mod sendable;
mod sender;
mod sink;
mod stream;
pub(crate) mod wait;
mod weak;

pub(crate) use codec::{Codec, Coded};
pub(crate) use error::DecodeError;
pub use error::{
    ForwardError, RecvTimeoutError, SendError, SendErrorKind, SendTimeoutError, TryRecvError, TrySendError,
};
pub use inquiry::{Inquiry, Oldest};
pub use message::Message;
pub use options::{ChannelOptions, Delivery};
pub(crate) use options::{DeadLetter, MAX_CAPACITY, checked_capacity};
pub use parts::{Part, Parts};
pub(crate) use payload::{Arrival, header_of, short_name};
pub use payload::{Payload, Plain};
pub use permit::{OwnedPermit, Permit, PermitIterator};
pub use receiver::Receiver;
pub use sendable::Sendable;
pub use sender::Sender;
pub(crate) use sender::{Wait, refusal};
pub use sink::SenderSink;
pub use stream::{BlockingIter, Drain, ReceiverStream, RecvStream};
pub use wait::WaitStrategy;
pub(crate) use wait::{Patience, Spell, timeout};
pub use weak::WeakSender;
