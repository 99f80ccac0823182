//! Codecs: how a channel carries what cannot stand in shared memory as it is.
//!
//! A [`Codec`] writes a value into a block of the segment, and reads it there. [`ChannelOptions::codec`] chooses one; so do
//! the options of broadcasts and services. There are `Postcard` and `Json` for what serde can write, `Rkyv` and `Prost`, each
//! with the feature of its name.
//!
//! The ends of such a channel are those of any other, for [`Coded`] messages. [`Sender`], [`Receiver`], [`Message`] and the
//! permits of this module are short for them.
//!
//! # Examples
//!
#![cfg_attr(feature = "postcard", doc = "```")]
#![cfg_attr(not(feature = "postcard"), doc = "```ignore")]
//! use serde::{Deserialize, Serialize};
//! use waterway::codec::{Postcard, Receiver, Sender};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Order { customer: String, items: Vec<u32> }
//!
//! struct Shop { orders: Sender<Order, Postcard> }
//! struct Kitchen { orders: Receiver<Order, Postcard> }
//!
//! # let segment = waterway::Segment::options().in_process()?;
//! let (sender, receiver) = segment.channel::<Order>("orders").codec::<Postcard>().open()?;
//! let (shop, kitchen) = (Shop { orders: sender }, Kitchen { orders: receiver });
//! shop.orders.try_send(Order { customer: "Ada".into(), items: vec![7, 9] })?;
//! assert_eq!(kitchen.orders.try_recv()?.decode()?.items, [7, 9]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`ChannelOptions::codec`]: crate::ChannelOptions::codec

#[cfg(feature = "json")]
pub use crate::channel::codec::Json;
#[cfg(feature = "postcard")]
pub use crate::channel::codec::Postcard;
#[cfg(feature = "prost")]
pub use crate::channel::codec_prost::Prost;
#[cfg(feature = "rkyv")]
pub use crate::channel::codec_rkyv::Rkyv;
pub use crate::channel::{
    codec::{Codec, Coded},
    error::DecodeError,
};

/// The sender of a channel whose messages a codec writes.
pub type Sender<T, C> = crate::Sender<Coded<T, C>>;

/// The receiver of a channel whose messages a codec reads.
pub type Receiver<T, C> = crate::Receiver<Coded<T, C>>;

/// A message that a codec [reads](crate::Message::decode).
pub type Message<T, C> = crate::Message<Coded<T, C>>;

/// A permit to send a message that a codec writes.
pub type Permit<'a, T, C> = crate::Permit<'a, Coded<T, C>>;

/// A permit to send a message that a codec writes, which owns its sender.
pub type OwnedPermit<T, C> = crate::OwnedPermit<Coded<T, C>>;
