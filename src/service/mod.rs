//! Services: requests that are answered. Many clients, many servers, in any processes.
//!
//! Requests of all clients travel in one channel, and each client has one for responses; both payloads are written once, into the
//! segment, and read there. What a client and a server must know of each other besides, who has begun and who has given up,
//! stands in a [slate](slate) behind the client's channel. [`calls`] is the client's side and says why every call ends, [`link`]
//! the server's, [`letter`] what travels; [`reply_to`] is for those who build their own. `tower` and `serve` make services of the
//! crate tower of both.

mod calls;
mod client;
mod clock;
mod error;
mod letter;
mod link;
mod options;
mod reply_to;
#[cfg(feature = "tower")]
mod running;
#[cfg(feature = "tower")]
mod serve;
mod server;
mod slate;
#[cfg(feature = "tower")]
mod tower;

/// Responses of a stream that may wait to be taken.
const WINDOW: u64 = 16;

pub use client::{CallStream, Client};
pub use error::{CallError, RespondError};
pub use options::ServiceOptions;
pub use reply_to::{ReplyTo, ReplyToError};
#[cfg(feature = "tower")]
pub use serve::Serve;
pub use server::{Request, Responses, Server};
#[cfg(feature = "tower")]
pub use tower::CallFuture;
