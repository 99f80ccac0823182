//! What functions return, and how the library's errors become that.

use std::ffi::{CStr, CString, c_char};

use waterway::{
    OpenError, SendError, TrySendError, broadcast,
    channel::SendErrorKind,
    semaphore::AcquireError,
    service::{CallError, RespondError},
};

/// What a function has come to. Numbers keep their meaning for ever; later versions may have further ones.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ww_status {
    /// It is done.
    WW_OK = 0,
    /// An argument is not possible: NULL where there must be something, an impossible name, or options that contradict
    /// one another.
    WW_INVALID = 1,
    /// Nothing is there now: no message, no request, no permit.
    WW_EMPTY = 2,
    /// There is no room now.
    WW_FULL = 3,
    /// The time was over.
    WW_TIMEOUT = 4,
    /// The other ends have gone, or somebody has closed it.
    WW_CLOSED = 5,
    /// The handle was inherited by a forked child: open the segment again there.
    WW_FORKED = 6,
    /// The segment has no free block of that size now.
    WW_NO_MEMORY = 7,
    /// The segment can never hold a message of that size.
    WW_TOO_LARGE = 8,
    /// There is no segment of that name.
    WW_NOT_FOUND = 9,
    /// Somebody is using a segment of that name.
    WW_EXISTS = 10,
    /// What has that name is something else, or has other options than those asked for.
    WW_MISMATCH = 11,
    /// A file system, a limit, or a table of the segment has no room for it.
    WW_NO_ROOM = 12,
    /// A file or directory is somebody else's, or others may use it.
    WW_PERMISSION = 13,
    /// The segment was made by another version, or by another kind of machine.
    WW_INCOMPATIBLE = 14,
    /// The file is no segment, or one that is damaged.
    WW_DAMAGED = 15,
    /// Somebody who comes into the segment, or removes it, was stopped in the middle.
    WW_BUSY = 16,
    /// The kernel refused.
    WW_SYSTEM = 17,
    /// A mistake in the library; the text says where. What the function was to do may be done by halves.
    WW_PANIC = 18,
    /// The group of the subscriber has missed messages: how many is told. The next receive goes on behind them.
    WW_LAGGED = 19,
    /// The group of the subscriber was put out, as publishers had waited for it too long.
    WW_EVICTED = 20,
    /// The server died while it had the request: it may have done the work.
    WW_SERVER_GONE = 21,
    /// The server dropped the request without a response.
    WW_UNANSWERED = 22,
    /// The caller waits no more.
    WW_CANCELLED = 23,
    /// There are not so many permits.
    WW_TOO_MANY = 24,
}

use ww_status::*;

impl ww_status {
    fn name(self) -> &'static CStr {
        match self {
            WW_OK => c"WW_OK",
            WW_INVALID => c"WW_INVALID",
            WW_EMPTY => c"WW_EMPTY",
            WW_FULL => c"WW_FULL",
            WW_TIMEOUT => c"WW_TIMEOUT",
            WW_CLOSED => c"WW_CLOSED",
            WW_FORKED => c"WW_FORKED",
            WW_NO_MEMORY => c"WW_NO_MEMORY",
            WW_TOO_LARGE => c"WW_TOO_LARGE",
            WW_NOT_FOUND => c"WW_NOT_FOUND",
            WW_EXISTS => c"WW_EXISTS",
            WW_MISMATCH => c"WW_MISMATCH",
            WW_NO_ROOM => c"WW_NO_ROOM",
            WW_PERMISSION => c"WW_PERMISSION",
            WW_INCOMPATIBLE => c"WW_INCOMPATIBLE",
            WW_DAMAGED => c"WW_DAMAGED",
            WW_BUSY => c"WW_BUSY",
            WW_SYSTEM => c"WW_SYSTEM",
            WW_PANIC => c"WW_PANIC",
            WW_LAGGED => c"WW_LAGGED",
            WW_EVICTED => c"WW_EVICTED",
            WW_SERVER_GONE => c"WW_SERVER_GONE",
            WW_UNANSWERED => c"WW_UNANSWERED",
            WW_CANCELLED => c"WW_CANCELLED",
            WW_TOO_MANY => c"WW_TOO_MANY",
        }
    }

    /// The status of that number.
    fn of_number(number: i32) -> Option<Self> {
        const ALL: [ww_status; 25] = [
            WW_OK,
            WW_INVALID,
            WW_EMPTY,
            WW_FULL,
            WW_TIMEOUT,
            WW_CLOSED,
            WW_FORKED,
            WW_NO_MEMORY,
            WW_TOO_LARGE,
            WW_NOT_FOUND,
            WW_EXISTS,
            WW_MISMATCH,
            WW_NO_ROOM,
            WW_PERMISSION,
            WW_INCOMPATIBLE,
            WW_DAMAGED,
            WW_BUSY,
            WW_SYSTEM,
            WW_PANIC,
            WW_LAGGED,
            WW_EVICTED,
            WW_SERVER_GONE,
            WW_UNANSWERED,
            WW_CANCELLED,
            WW_TOO_MANY,
        ];
        ALL.into_iter().find(|status| *status as i32 == number)
    }
}

/// The name of a status, such as "WW_FULL", for logs. Never NULL: "WW_UNKNOWN" for a number that is none.
#[unsafe(no_mangle)]
pub extern "C" fn ww_status_name(status: i32) -> *const c_char {
    ww_status::of_number(status).map_or(c"WW_UNKNOWN", ww_status::name).as_ptr()
}

/// What is said of a failure. What happens often takes no allocation.
#[derive(Debug)]
pub(crate) enum Text {
    Fixed(&'static CStr),
    Made(CString),
}

impl Text {
    fn made(text: &impl ToString) -> Self {
        let mut bytes = text.to_string().into_bytes();
        bytes.retain(|byte| *byte != 0);
        Self::Made(CString::new(bytes).unwrap_or_default())
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        match self {
            Self::Fixed(text) => text,
            Self::Made(text) => text,
        }
    }
}

/// Why a function has not done what it was to do.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: ww_status,
    pub(crate) text: Text,
}

impl Failure {
    pub(crate) const fn fixed(status: ww_status, text: &'static CStr) -> Self {
        Self { status, text: Text::Fixed(text) }
    }

    pub(crate) fn made(status: ww_status, text: &impl ToString) -> Self {
        Self { status, text: Text::made(text) }
    }

    pub(crate) const fn invalid(text: &'static CStr) -> Self {
        Self::fixed(WW_INVALID, text)
    }

    pub(crate) const fn closed() -> Self {
        Self::fixed(WW_CLOSED, c"the channel is closed: all other ends have gone, or somebody closed it")
    }

    pub(crate) const fn empty() -> Self {
        Self::fixed(WW_EMPTY, c"no message waits")
    }

    pub(crate) const fn full() -> Self {
        Self::fixed(WW_FULL, c"there is no room now")
    }

    pub(crate) const fn timed_out() -> Self {
        Self::fixed(WW_TIMEOUT, c"the time was over")
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let status = match &error {
            OpenError::InvalidName { .. } | OpenError::InvalidOptions(_) => WW_INVALID,
            OpenError::NotFound { .. } => WW_NOT_FOUND,
            OpenError::AlreadyExists { .. } => WW_EXISTS,
            OpenError::NoRoom { .. }
            | OpenError::Limited { .. }
            | OpenError::TooSmall { .. }
            | OpenError::TooManyParticipants { .. }
            | OpenError::TooManyChannels { .. } => WW_NO_ROOM,
            OpenError::OutOfMemory { .. } => WW_NO_MEMORY,
            OpenError::WrongOwner { .. } | OpenError::WrongMode { .. } => WW_PERMISSION,
            OpenError::WrongVersion { .. } | OpenError::Incompatible { .. } => WW_INCOMPATIBLE,
            OpenError::NotASegment { .. } | OpenError::Truncated { .. } | OpenError::Damaged { .. } => WW_DAMAGED,
            OpenError::Mismatch { .. } => WW_MISMATCH,
            OpenError::Forked => WW_FORKED,
            OpenError::Busy { .. } => WW_BUSY,
            _ => WW_SYSTEM,
        };
        Self::made(status, &error)
    }
}

impl<V> From<SendError<V>> for Failure {
    fn from(error: SendError<V>) -> Self {
        match error.kind() {
            SendErrorKind::Closed => Self::closed(),
            SendErrorKind::TooLarge { .. } => Self::made(WW_TOO_LARGE, &error),
            SendErrorKind::OutOfMemory => Self::made(WW_NO_MEMORY, &error),
            _ => Self::made(WW_INVALID, &error),
        }
    }
}

impl<V> From<TrySendError<V>> for Failure {
    fn from(error: TrySendError<V>) -> Self {
        match error {
            TrySendError::Full(_) => Self::full(),
            TrySendError::Closed(_) => Self::closed(),
            TrySendError::OutOfMemory(_) => Self::made(WW_NO_MEMORY, &error),
            TrySendError::TooLarge(_) => Self::made(WW_TOO_LARGE, &error),
            _ => Self::made(WW_INVALID, &error),
        }
    }
}

impl From<broadcast::RecvError> for Failure {
    fn from(error: broadcast::RecvError) -> Self {
        match error {
            broadcast::RecvError::Closed => Self::closed(),
            broadcast::RecvError::Lagged(_) => Self::made(WW_LAGGED, &error),
            broadcast::RecvError::Evicted => Self::made(WW_EVICTED, &error),
            _ => Self::made(WW_SYSTEM, &error),
        }
    }
}

impl<V> From<CallError<V>> for Failure {
    fn from(error: CallError<V>) -> Self {
        let status = match &error {
            CallError::Closed(_) => WW_CLOSED,
            CallError::ServerGone(_) => WW_SERVER_GONE,
            CallError::Unanswered(_) => WW_UNANSWERED,
            CallError::Timeout(_) => WW_TIMEOUT,
            CallError::TooLarge(_) => WW_TOO_LARGE,
            _ => WW_INVALID,
        };
        Self::made(status, &error)
    }
}

impl<V> From<RespondError<V>> for Failure {
    fn from(error: RespondError<V>) -> Self {
        let status = match &error {
            RespondError::Cancelled(_) => WW_CANCELLED,
            RespondError::TooLarge(_) => WW_TOO_LARGE,
            _ => WW_INVALID,
        };
        Self::made(status, &error)
    }
}

impl From<AcquireError> for Failure {
    fn from(error: AcquireError) -> Self {
        let status = match error {
            AcquireError::Closed => WW_CLOSED,
            _ => WW_TOO_MANY,
        };
        Self::made(status, &error)
    }
}
