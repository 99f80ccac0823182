//! The names that the root had before there were modules. Programs that were written then go on
//! compiling. The documentation does not show them.

pub use crate::{
    alloc::{
        AllocError,
        check::{CheckReport, SectorReport, Stats},
    },
    blocks::{
        Allocator, Block, BlockInfo, BlockRef, Content, FIRST_USER_STATE, Handle, HandleError, HeapMemory, HeapRead,
        HeapWrite, MemoryManager, RawBlock, ReadGuard, StateError, TryGuardError, WriteGuard,
    },
    broadcast::{
        Behind, GroupOptions, Options as BroadcastOptions, Published, Publisher, RecvError as BroadcastRecvError,
        RecvTimeoutError as BroadcastRecvTimeoutError, Subscriber, SubscriberStream,
        TryRecvError as BroadcastTryRecvError,
    },
    channel::{
        BlockingIter, Drain, ForwardError, Inquiry, Oldest, Part, Parts, Payload, PermitIterator, Plain,
        ReceiverStream, RecvStream, RecvTimeoutError, SendErrorKind, SendTimeoutError, Sendable, SenderSink,
    },
    codec::{Codec, Coded, DecodeError},
    notify::{Notified, Notify, OwnedNotified},
    policy::{ByMessage, ChannelPolicy, Counts as PolicyCounts, PriorityBy},
    routing::{
        ForwardError as RoutedForwardError, Message as RoutedMessage, Options as RoutedOptions,
        Receiver as RoutedReceiver, RecvStream as RoutedStream, Route, RuleSender, Sender as RoutedSender,
    },
    segment::{ChannelInfo, ChannelKind, ParticipantInfo},
    semaphore::{
        AcquireError, AcquireTimeoutError, Options as SemaphoreOptions, OwnedPermit as OwnedSemaphorePermit,
        Permit as SemaphorePermit, Semaphore, TryAcquireError,
    },
    service::{
        CallError, CallStream, Client, Options as ServiceOptions, ReplyTo, ReplyToError, Request, RespondError,
        Responses, Server,
    },
    watch::{Options as WatchOptions, Receiver as WatchReceiver, RecvError, Ref as WatchRef, Sender as WatchSender},
};

#[cfg(feature = "json")]
pub use crate::codec::Json;
#[cfg(feature = "postcard")]
pub use crate::codec::Postcard;
#[cfg(feature = "prost")]
pub use crate::codec::Prost;
#[cfg(feature = "rkyv")]
pub use crate::codec::Rkyv;
#[cfg(feature = "tower")]
pub use crate::service::{CallFuture, Serve};
