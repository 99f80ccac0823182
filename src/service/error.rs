//! Errors of calling and responding. All hand back what was not sent, or not answered.

use std::{error::Error, fmt};

use crate::channel::SendErrorKind;

/// A call has ended without a response. The request is in it.
#[non_exhaustive]
#[derive(PartialEq, Eq, Clone, Copy)]
pub enum CallError<V> {
    /// All servers have left, or one has closed the service, and none has begun with the request.
    Closed(V),
    /// A server has died that had the request: it may have done some of the work, or all.
    ServerGone(V),
    /// A server has dropped the request without a response.
    Unanswered(V),
    /// There was no response within the time.
    Timeout(V),
    /// The request is larger than the largest block that the segment can hold.
    TooLarge(V),
    /// The codec cannot write the request.
    NotEncodable(V),
}

impl<V> CallError<V> {
    /// The request.
    pub fn into_inner(self) -> V {
        match self {
            Self::Closed(value)
            | Self::ServerGone(value)
            | Self::Unanswered(value)
            | Self::Timeout(value)
            | Self::TooLarge(value)
            | Self::NotEncodable(value) => value,
        }
    }

    /// Whether there is no server.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_))
    }

    /// Whether the server has died.
    pub fn is_server_gone(&self) -> bool {
        matches!(self, Self::ServerGone(_))
    }

    /// Whether the time had passed.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout(_))
    }
}

impl<V> fmt::Debug for CallError<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed(_) => "Closed(..)",
            Self::ServerGone(_) => "ServerGone(..)",
            Self::Unanswered(_) => "Unanswered(..)",
            Self::Timeout(_) => "Timeout(..)",
            Self::TooLarge(_) => "TooLarge(..)",
            Self::NotEncodable(_) => "NotEncodable(..)",
        })
    }
}

impl<V> fmt::Display for CallError<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed(_) => "the service has no server: start one",
            Self::ServerGone(_) => "the server died while it had the request: it may have done the work",
            Self::Unanswered(_) => "the server dropped the request without a response",
            Self::Timeout(_) => "timed out waiting for a response",
            Self::TooLarge(_) => TOO_LARGE,
            Self::NotEncodable(_) => NOT_ENCODABLE,
        })
    }
}

impl<V> Error for CallError<V> {}

const TOO_LARGE: &str =
    "the message is larger than the segment's largest block: make the segment larger (SegmentOptions::size)";
const NOT_ENCODABLE: &str = "the codec cannot write this value: Codec::size of the value says why";

/// A response was not sent. It is in it.
#[non_exhaustive]
#[derive(PartialEq, Eq, Clone, Copy)]
pub enum RespondError<V> {
    /// Nobody waits for it any more: the caller has given up, has got what it wanted, or has died.
    Cancelled(V),
    /// The response is larger than the largest block that the segment can hold.
    TooLarge(V),
    /// The codec cannot write the response.
    NotEncodable(V),
}

impl<V> RespondError<V> {
    pub(super) fn new(value: V, kind: SendErrorKind) -> Self {
        match kind {
            // The last is said only by what does not wait for memory, and a response does.
            SendErrorKind::TooLarge { .. } | SendErrorKind::TooMany { .. } | SendErrorKind::OutOfMemory => {
                Self::TooLarge(value)
            }
            SendErrorKind::NotEncodable => Self::NotEncodable(value),
            SendErrorKind::Closed => Self::Cancelled(value),
        }
    }

    /// The response.
    pub fn into_inner(self) -> V {
        match self {
            Self::Cancelled(value) | Self::TooLarge(value) | Self::NotEncodable(value) => value,
        }
    }

    /// Whether nobody waits for it.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled(_))
    }
}

impl<V> fmt::Debug for RespondError<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled(_) => "Cancelled(..)",
            Self::TooLarge(_) => "TooLarge(..)",
            Self::NotEncodable(_) => "NotEncodable(..)",
        })
    }
}

impl<V> fmt::Display for RespondError<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled(_) => "the caller waits no more",
            Self::TooLarge(_) => TOO_LARGE,
            Self::NotEncodable(_) => NOT_ENCODABLE,
        })
    }
}

impl<V> Error for RespondError<V> {}
