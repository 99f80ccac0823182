//! Async channels between processes, through shared memory.
//!
//! Waterway is to processes what `tokio::sync::mpsc` is to tasks, with any number of receivers: a sender writes a message
//! into a segment of shared memory, a receiver in another process reads it there, in place. A waiting task sleeps until
//! it is woken; nobody polls. A process that is killed, at whatever instruction, holds up nobody, and what it held comes
//! back.
//!
//! # A first message
//!
//! Two programs open the same segment by its name, and the same channel in it:
//!
//! ```
//! use waterway::Segment;
//! use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
//!
//! #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
//! #[repr(C)]
//! struct Tick { id: u64, price: f64 }
//!
//! # let directory = std::env::temp_dir().join(format!("waterway-doc-{}", std::process::id()));
//! # unsafe { std::env::set_var("WATERWAY_DIR", &directory) };
//! # smol::block_on(async {
//! // One process…
//! let market = Segment::open_or_create("market")?;
//! let ticks = market.channel::<Tick>("ticks").sender()?;
//! ticks.send(Tick { id: 1, price: 99.5 }).await?;
//! # drop(ticks);
//!
//! // … and another.
//! let market = Segment::open_or_create("market")?;
//! let ticks = market.channel::<Tick>("ticks").receiver()?;
//! while let Some(tick) = ticks.recv().await {
//!     println!("{} {}", tick.id, tick.price);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! # std::fs::remove_dir_all(directory).unwrap();
//! ```
//!
//! # The parts
//!
//! * A [`Segment`] is a region of memory that processes share: a file in a private directory of `/dev/shm`, an anonymous
//!   file whose descriptor is handed over, or, for tests, the heap. [`SegmentOptions`] say how large it is and where.
//! * A channel lives in a segment and has a name. [`Segment::channel`] carries plain data, [`Segment::bytes`] bytes of any
//!   length, a [codec](ChannelOptions::codec) everything else. [`ChannelOptions`] give a [`Sender`], a [`Receiver`], or
//!   both.
//! * A [`Message`] is read in place. Dropping it acknowledges it: its memory is free again.
//!   [`Message::into_bytes`] turns it into [`bytes::Bytes`] without a copy.
//!
//! # Waiting
//!
//! [`send`](Sender#method.send) waits for room in the channel and for memory in the segment, [`recv`](Receiver::recv) for a
//! message. Both work on any executor, are cancel-safe, and have blocking and timed forms. A sender that finds nobody
//! asleep makes no system call, and neither does a receiver.
//!
//! # Closing, and death
//!
//! When the last sender has gone, receivers drain the channel and get `None`; when the last receiver has gone, sending
//! fails and hands the value back. A process that dies goes like one that leaves: its ends close, what it had allocated
//! or received is freed, and whoever waits is woken, usually within two milliseconds.
//!
//! # What a segment trusts
//!
//! Everybody who may open the file: the processes of one user. What stands in shared memory is checked before it is used,
//! so garbage gives an error and never undefined behaviour in checking; but a process with write access can overwrite a
//! payload while another one reads it, or truncate the file, and then the reader gets SIGBUS. For peers that you trust less
//! there is [`SegmentOptions::anonymous`], whose size is sealed.
//!
//! # Features
//!
//! * `tokio` (on by default): operations charge tokio's cooperative budget, and blocking ones refuse to block a runtime.
//!   Nothing else depends on tokio.
//! * `postcard`, `json`: the codecs `Postcard` and `Json`, for [channels](ChannelOptions::codec) of whatever serde can
//!   write.

// The models explore the layers below the ones that use them.
#![cfg_attr(loom, allow(dead_code))]

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("waterway runs on Linux, x86-64 and AArch64: it needs futexes, OFD locks and 64-bit atomics");

pub(crate) mod alloc;
#[cfg(not(loom))]
pub(crate) mod attachment;
pub(crate) mod blocks;
#[cfg(not(loom))]
mod channel;
#[cfg(not(loom))]
mod handle;
pub(crate) mod notify;
pub(crate) mod ring;
pub(crate) mod segment;
pub(crate) mod sys;

/// Which places of a build with `--cfg crash_points` a process has passed.
#[cfg(all(crash_points, not(loom)))]
#[doc(hidden)]
pub use sys::crashing::passed as crash_points_passed;

pub use alloc::{
    AllocError,
    check::{CheckReport, SectorReport, Stats},
};
#[cfg(not(loom))]
pub use blocks::{
    Allocator, Block, BlockInfo, BlockRef, Content, FIRST_USER_STATE, Handle, HandleError, HeapMemory, HeapRead,
    HeapWrite, MemoryManager, RawBlock, ReadGuard, StateError, TryGuardError, WriteGuard,
};
#[cfg(all(feature = "json", not(loom)))]
pub use channel::Json;
#[cfg(all(feature = "postcard", not(loom)))]
pub use channel::Postcard;
#[cfg(not(loom))]
pub use channel::{
    BlockingIter, ChannelOptions, Codec, Coded, DecodeError, Delivery, Drain, ForwardError, Inquiry, Message, Oldest,
    OwnedPermit, Payload, Permit, PermitIterator, Plain, Receiver, ReceiverStream, RecvStream, RecvTimeoutError,
    SendError, SendErrorKind, SendTimeoutError, Sendable, Sender, SenderSink, TryRecvError, TrySendError, WaitStrategy,
    WeakSender,
};
#[cfg(not(loom))]
pub use handle::{ChannelInfo, ParticipantInfo, Segment, SegmentInfo, SegmentOptions};
#[cfg(not(loom))]
pub use segment::error::OpenError;
