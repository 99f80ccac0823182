//! The errors of all modules, in one place.
//!
//! Each stands beside what returns it, too. The errors of a pattern that have the name of a channel's error
//! ([`broadcast::RecvError`](crate::broadcast::RecvError)) have a longer name here.

pub use crate::{
    alloc::AllocError,
    blocks::{HandleError, StateError, TryGuardError},
    broadcast::{
        RecvError as BroadcastRecvError, RecvTimeoutError as BroadcastRecvTimeoutError,
        TryRecvError as BroadcastTryRecvError,
    },
    channel::{
        ForwardError, RecvTimeoutError, SendError, SendErrorKind, SendTimeoutError, TryRecvError, TrySendError,
        error::DecodeError,
    },
    observer::ObserveError,
    region::error::OpenError,
    routing::ForwardError as RoutedForwardError,
    semaphore::{AcquireError, AcquireTimeoutError, TryAcquireError},
    service::{CallError, ReplyToError, RespondError},
    watch::RecvError as WatchRecvError,
};
