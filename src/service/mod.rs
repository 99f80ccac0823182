//! Services: requests that are answered. Many clients, many servers, in any processes.
//!
//! Requests of all clients travel in one channel, and each client has one for responses; both payloads are written once, into the
//! segment, and read there. What a client and a server must know of each other besides, who has begun and who has given up,
//! stands in a slate behind the client's channel. `calls` is the client's side and says why every call ends, `link`
//! the server's, `letter` what travels; `reply_to` is for those who build their own. `tower` and `serve` make services of the
//! crate tower of both.

#[cfg(not(loom))]
mod calls;
#[cfg(not(loom))]
mod client;
#[cfg(not(loom))]
mod clock;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod letter;
#[cfg(not(loom))]
mod link;
#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(not(loom))]
mod options;
#[cfg(not(loom))]
mod queue;
#[cfg(not(loom))]
mod reply_to;
#[cfg(all(feature = "tower", not(loom)))]
mod running;
#[cfg(all(feature = "tower", not(loom)))]
mod serve;
#[cfg(not(loom))]
mod server;
mod slate;
#[cfg(all(feature = "tower", not(loom)))]
mod tower;

/// Responses of a stream that may wait to be taken.
#[cfg(any(not(loom), test))]
const WINDOW: u64 = 16;

#[cfg(not(loom))]
pub use client::{CallStream, Client};
#[cfg(not(loom))]
pub use error::{CallError, RespondError};
#[cfg(not(loom))]
pub use options::Options;
#[cfg(not(loom))]
pub use reply_to::{ReplyTo, ReplyToError};
#[cfg(all(feature = "tower", not(loom)))]
pub use serve::Serve;
#[cfg(not(loom))]
pub use server::{Request, Responses, Server};
#[cfg(all(feature = "tower", not(loom)))]
pub use tower::CallFuture;
