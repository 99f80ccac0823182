//! Broadcasts: every group of subscribers sees every message, and one member of each handles it.
//!
//! A broadcast lives in a [`Segment`](crate::Segment) and has a name. What is published is written once, into a block of the
//! segment, and read there by all; its memory is free again when the last group is done with it. All groups see the
//! messages in the same order, in which they are numbered. A [`Subscriber`] without a group is a group of its own.
//!
//! # Who falls behind
//!
//! A broadcast keeps as many messages as its [capacity](Options::capacity) for those who have not taken them. What happens
//! when a group has more to take is its own choice, [`Behind`]: it misses the oldest ones and is told how many; or
//! publishers wait for it; or they wait for some time, and then it is put out. A group without members, because they
//! have left or died, is gone, and holds nobody up, unless it is [persistent](GroupOptions::persistent).
//!
//! A message that somebody holds takes up no room: so whoever is stopped in the middle of one keeps its memory, and nobody from
//! publishing. (Not for ever: if as many messages are held as half of the log's cells, which are at least twice the
//! capacity and at least 256, publishers wait.)
//!
//! # Closing
//!
//! When the last [`Publisher`] of all processes has gone, subscribers get what is still there and then
//! [`RecvError::Closed`]. A subscriber that comes before any publisher waits for one. Without any group a message is
//! gone as soon as it is published, but for the [history](Options::history); that is no error, and
//! [`Publisher::try_send`] says that 0 groups got it.
//!
//! `src/ring/log.rs` has the protocol, `src/attachment/groups` the lives and deaths of groups.

mod error;
mod options;
mod published;
mod publisher;
mod subscriber;

pub use error::{RecvError, RecvTimeoutError, TryRecvError};
pub use options::{Behind, GroupOptions, Options};
pub use published::Published;
pub use publisher::Publisher;
pub use subscriber::{Subscriber, SubscriberStream};
