//! Routing: by key, to one receiver at a time; and by rule, to one channel of several.
//!
//! # By key
//!
//! A routed channel is `P` channels, its **partitions**, and a **head**. A message goes into the partition that its key
//! hashes to, so messages of the same key are in the same queue, in the order in which they were sent. A receiver takes
//! messages only from partitions that it *has*, and nobody else has them: that is what keeps the order when there are many
//! receivers.
//!
//! ```text
//! sender ──hash(key)──►  orders#0   ──►  receiver A   (has 0 and 1)
//!                        orders#1   ──►
//!                        orders#2   ──►  receiver B   (has 2)
//!                        orders     the head: who has what, who sits where, and how often that has changed
//! ```
//!
//! A partition is had by a `Tenure`, which is shared by the receiver and by every message that it was
//! given of that partition, and given back by the last of them. So nobody else is given a message of a key while one is
//! unacknowledged, even if its receiver has left.
//!
//! Each receiver has its share: all partitions, divided by the receivers. When one comes, the others give up what is too
//! much; when one goes, what it had is free. Both change the *epoch* of the head, which all receivers look at before they
//! take a message, and wait for while there is none. Nobody is told what to take: each counts who is there, and takes what
//! is free until it has its share. The shares make up all partitions, so that comes to rest.
//!
//! All receivers have an end of all partitions, and so have all senders: a routed channel closes as a channel does.
//!
//! # By rule
//!
//! A [`RuleSender`] asks the message where to go.

mod message;
mod options;
mod receiver;
mod rule;
mod sender;
mod tenure;

pub use message::{ForwardError, Message};
pub use options::Options;
pub use receiver::{Receiver, RecvStream};
pub use rule::{Route, RuleSender};
pub use sender::Sender;
