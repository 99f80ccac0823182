//! A watch: many senders, many receivers, and only the latest value counts.
//!
//! A value is a block of the segment that is never written to again once it was sent. One word names the current one, and
//! sending is a CAS of that word; `blocks/current.rs` has the rules. So nobody waits for anybody: a receiver that reads holds
//! on to the value that it reads, while senders send others; and nobody ever sees a value half-written, whoever is killed.

mod options;
mod receiver;
mod sender;
mod value;

pub use options::Options;
pub use receiver::{Receiver, RecvError};
pub use sender::Sender;
pub use value::Ref;
