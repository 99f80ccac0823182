//! Async channels between processes, through shared memory.

// The models explore the layers below the ones that use them.
#![cfg_attr(loom, allow(dead_code))]

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("waterway runs on Linux, x86-64 and AArch64: it needs futexes, OFD locks and 64-bit atomics");

pub(crate) mod alloc;
#[cfg(not(loom))]
pub(crate) mod attachment;
#[cfg(not(loom))]
mod channel;
#[cfg(not(loom))]
mod handle;
pub(crate) mod notify;
pub(crate) mod ring;
pub(crate) mod segment;
pub(crate) mod sys;

pub use alloc::{
    AllocError,
    check::{CheckReport, SectorReport},
};
#[cfg(not(loom))]
pub use channel::{
    ChannelOptions, Message, Payload, Plain, Receiver, RecvTimeoutError, SendError, SendErrorKind, SendTimeoutError,
    Sender, TryRecvError, TrySendError, WaitStrategy,
};
#[cfg(not(loom))]
pub use handle::{ChannelInfo, ParticipantInfo, Segment, SegmentInfo, SegmentOptions};
#[cfg(not(loom))]
pub use segment::error::OpenError;
