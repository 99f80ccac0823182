//! Why a subscriber got no message.

/// There is no message, or some were missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// All publishers have left, and there is nothing more.
    #[error("broadcast closed")]
    Closed,
    /// The group was too slow and has missed exactly so many messages. The next call gets the oldest that is there.
    #[error("the group was too slow and has missed {0} messages")]
    Lagged(u64),
    /// The group was too slow and was put out: it gets nothing any more.
    #[error("the group was too slow and was put out: drop its subscribers and subscribe again")]
    Evicted,
}

/// There is no message now, or some were missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TryRecvError {
    /// There is nothing, but publishers are there or may come.
    #[error("receiving on an empty broadcast")]
    Empty,
    /// All publishers have left, and there is nothing more.
    #[error("broadcast closed")]
    Closed,
    /// The group was too slow and has missed exactly so many messages. The next call gets the oldest that is there.
    #[error("the group was too slow and has missed {0} messages")]
    Lagged(u64),
    /// The group was too slow and was put out: it gets nothing any more.
    #[error("the group was too slow and was put out: drop its subscribers and subscribe again")]
    Evicted,
}

/// There was no message within the time, or some were missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvTimeoutError {
    /// There was nothing until the time had passed.
    #[error("timed out waiting for a message")]
    Timeout,
    /// All publishers have left, and there is nothing more.
    #[error("broadcast closed")]
    Closed,
    /// The group was too slow and has missed exactly so many messages. The next call gets the oldest that is there.
    #[error("the group was too slow and has missed {0} messages")]
    Lagged(u64),
    /// The group was too slow and was put out: it gets nothing any more.
    #[error("the group was too slow and was put out: drop its subscribers and subscribe again")]
    Evicted,
}

impl From<RecvError> for TryRecvError {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Closed => Self::Closed,
            RecvError::Lagged(missed) => Self::Lagged(missed),
            RecvError::Evicted => Self::Evicted,
        }
    }
}

impl From<RecvError> for RecvTimeoutError {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Closed => Self::Closed,
            RecvError::Lagged(missed) => Self::Lagged(missed),
            RecvError::Evicted => Self::Evicted,
        }
    }
}
