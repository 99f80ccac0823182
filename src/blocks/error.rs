//! Why a block cannot be had, or not like that.

/// Why a handle leads to no block that can be used as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// Its block was freed.
    #[error("the block of this handle was freed; get a new handle from whoever owns the data")]
    Stale,
    /// No such block can be in this segment.
    #[error("this is no handle of a block of this segment; take it to the segment in which it was made")]
    Nonsense,
    /// The block holds something else.
    #[error("the block holds something else than {expected}; resolve it as the type that it was allocated as")]
    WrongType {
        /// What was asked for.
        expected: &'static str,
    },
    /// The bytes in the block are not a value of its type.
    #[error("what stands in the block is no value of its type: a writer has left it half-written; put a new value in")]
    Invalid,
    /// This process is a forked child of the one that opened the segment.
    #[error("this process was forked from the one that opened the segment: open it again here")]
    Forked,
}

/// Why there is no guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TryGuardError {
    /// Somebody else has a guard that excludes this one, or was just trying to get one.
    #[error("somebody else is in the block; try again, or wait for it")]
    Busy,
    /// There is no such block.
    #[error(transparent)]
    Handle(#[from] HandleError),
}

impl TryGuardError {
    /// What is told to somebody who waits for as long as it takes, and is never told that others were in the way.
    pub(super) fn into_handle_error(self) -> HandleError {
        match self {
            Self::Handle(error) => error,
            Self::Busy => HandleError::Stale,
        }
    }
}

/// Why a block's state was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// States below [`FIRST_USER_STATE`](crate::blocks::FIRST_USER_STATE) are not the user's.
    #[error("state {state} is reserved; use {} and up", crate::blocks::FIRST_USER_STATE)]
    Reserved {
        /// The state that was asked for.
        state: u32,
    },
    /// The state is not the one that was expected.
    #[error("the block is in state {found}; look what that means, and try from there")]
    Changed {
        /// The state that was found.
        found: u32,
    },
    /// There is no such block.
    #[error(transparent)]
    Handle(#[from] HandleError),
}
