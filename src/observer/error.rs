//! Why something could not be looked at.

use std::{io, path::PathBuf};

/// Why an [`Observer`](crate::Observer) could not look at something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// The file has become shorter since it was opened.
    #[error("{} has been truncated: there is nothing at byte {at}; remove it", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Where something should have been.
        at: u64,
    },
    /// What stands in the segment makes no sense.
    #[error("{what} makes no sense: it is damaged, or somebody is changing it just now")]
    Damaged {
        /// What makes no sense.
        what: String,
    },
    /// There is no channel of that name.
    #[error("there is no channel {channel:?} in {}", path.display())]
    NoChannel {
        /// The name.
        channel: String,
        /// The segment.
        path: PathBuf,
    },
    /// What has that name has no messages of its own.
    #[error(
        "{channel:?} has no messages of its own: look at a channel, a broadcast, or a partition of a routed channel"
    )]
    NoMessages {
        /// The name.
        channel: String,
    },
    /// This process has not got the memory for a copy.
    #[error("no memory for a copy of {bytes} bytes")]
    NoMemory {
        /// Bytes that were needed.
        bytes: u64,
    },
    /// The kernel refused.
    #[error("could not read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
}
