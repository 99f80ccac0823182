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
//!
//! #[waterway::plain]
//! #[derive(Clone, Copy, Debug)]
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
//! * A channel lives in a segment and has a name. [`Segment::channel`] carries plain data, or, as `channel::<[T]>`, batches of
//!   it, each in one block; [`Segment::bytes`] bytes of any
//!   length, a [codec](ChannelOptions::codec) everything else. [`ChannelOptions`] give a [`Sender`], a [`Receiver`], or
//!   both.
//! * A type becomes plain data by one line, [`#[waterway::plain]`](macro@plain). Its [`Schema`], the place, name and type of each
//!   field, is part of the channel: two programs that mean different layouts by one name are told, and what differs.
//! * A [`Message`] is read in place. Dropping it acknowledges it: its memory is free again.
//!   [`Message::into_bytes`] turns it into [`bytes::Bytes`] without a copy.
//!
//! # Waiting
//!
//! [`send`](Sender#method.send) waits for room in the channel and for memory in the segment, [`recv`](Receiver::recv) for a
//! message. Both work on any executor, are cancel-safe, and have blocking and timed forms. A sender that finds nobody
//! asleep makes no system call, and neither does a receiver.
//!
//! ```
//! use std::{thread, time::Duration};
//! # let segment = waterway::Segment::options().in_process()?;
//! let (sender, receiver) = segment.channel::<u64>("numbers").capacity(2).open()?;
//! // A plain thread, which waits whenever two messages wait.
//! let sending = thread::spawn(move || (0..10).try_for_each(|number| sender.blocking_send(number)));
//!
//! // A task, on whatever executor.
//! let sum = smol::block_on(async {
//!     let mut sum = 0;
//!     while let Ok(number) = receiver.recv_timeout(Duration::from_secs(60)).await {
//!         sum += *number;
//!     }
//!     sum
//! });
//! sending.join().unwrap()?;
//! assert_eq!(sum, 45);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Permits
//!
//! A [`Permit`] is room in the channel and a block in the segment, had beforehand: sending with it cannot fail and never
//! waits. It is also the way to write a message in place. A permit for slices is like an empty `Vec`, one for bytes also a
//! [`std::io::Write`] and a [`bytes::BufMut`]; one for plain data lends the value.
//!
//! ```
//! use std::io::Write;
//! # smol::block_on(async {
//! # let segment = waterway::Segment::options().in_process()?;
//! let (lines, receiver) = segment.bytes("lines").open()?;
//! let mut line = lines.reserve(80).await?;
//! write!(line, "{} of {}", 7, 12)?;
//! line.send();
//! assert_eq!(&*receiver.try_recv()?, b"7 of 12");
//!
//! let (frames, receiver) = segment.channel::<[u16; 1024]>("frames").open()?;
//! frames.reserve().await?.send_in_place(|frame| frame[5] = 9);
//! assert_eq!(receiver.try_recv()?[5], 9);
//!
//! // Several at once: all, or none and an error.
//! for permit in frames.reserve_many(3).await? {
//!     permit.send([1; 1024]);
//! }
//! assert_eq!(receiver.len(), 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Streams and sinks
//!
//! Ends are what the `futures` crates work with: [`Receiver::into_stream`], [`Receiver::stream`], [`Sender::into_sink`].
//! For threads there are [`Receiver::blocking_iter`] and [`Receiver::drain`].
//!
//! ```
//! use futures::{SinkExt, StreamExt, stream};
//! # smol::block_on(async {
//! # let segment = waterway::Segment::options().in_process()?;
//! let (sender, receiver) = segment.channel::<u64>("numbers").open()?;
//! let mut sink = sender.into_sink();
//! sink.send_all(&mut stream::iter((1..=4).map(Ok))).await?;
//! sink.close().await?;
//! let squares: Vec<u64> = receiver.into_stream().map(|number| *number * *number).collect().await;
//! assert_eq!(squares, [1, 4, 9, 16]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Codecs
//!
//! What holds pointers cannot stand in shared memory as it is. A [`Codec`](codec::Codec) writes it there, and reads it: `Postcard` and
//! `Json` for what serde knows, with the features of those names, or one of your own.
//!
#![cfg_attr(feature = "postcard", doc = "```")]
#![cfg_attr(not(feature = "postcard"), doc = "```ignore")]
//! use serde::{Deserialize, Serialize};
//! use waterway::{Segment, codec::Postcard};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Order { customer: String, items: Vec<u32> }
//!
//! # let segment = Segment::options().in_process()?;
//! let (sender, receiver) = segment.channel::<Order>("orders").codec::<Postcard>().open()?;
//! sender.try_send(Order { customer: "Ada".into(), items: vec![7, 9] })?;
//! assert_eq!(receiver.try_recv()?.decode()?.items, [7, 9]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Policies
//!
//! A channel keeps its messages in order until somebody comes for them. [`ChannelOptions::policy`] says what else it does:
//!
//! * [`ByMessage`](policy::ByMessage): what the type says of each message by its [`Policy`]; [`PriorityBy`](policy::PriorityBy): which [come first](policy::Priority);
//! * [`Retention`]: for how long they wait, and whether the oldest give way;
//! * [`DeadLetter`]: where those go that nobody could work on ([`Delivery::AtLeastOnce`]), or whose time was over.
//!
//! Several compose. They are part of the channel: who asks for others later is refused. What they did is counted
//! ([`Receiver::inquire`]). A channel without policies pays nothing for them.
//!
//! ```
//! use std::time::Duration;
//! use waterway::policy::{ByMessage, DeadLetter, Policy, Priority, Retention};
//!
//! #[waterway::plain]
//! struct Order { number: u64, urgent: u64 }
//!
//! impl Policy for Order {
//!     fn priority(&self) -> Priority {
//!         if self.urgent == 1 { Priority::Urgent } else { Priority::Normal }
//!     }
//! }
//!
//! # let segment = waterway::Segment::options().in_process()?;
//! let orders = segment.channel::<Order>("orders").policy(ByMessage);
//! let orders = orders.policy(Retention::ttl(Duration::from_secs(30))).policy(DeadLetter::to("late-orders"));
//! let (sender, receiver) = orders.open()?;
//! sender.try_send(Order { number: 1, urgent: 0 })?;
//! sender.try_send(Order { number: 2, urgent: 1 })?;
//! let oldest = receiver.inquire().oldest.unwrap();
//! assert_eq!(oldest.priority, Priority::Urgent);
//! # assert_eq!(receiver.len(), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Routing by key
//!
//! A channel gives each message to whichever receiver comes first. In a [routed](ChannelOptions::routed) one, messages of
//! the same [key](policy::Policy::route) keep their order and are with one receiver at a time, and the keys are spread over the receivers.
//! When a receiver comes, leaves or dies, keys move in order: nobody else is given a message of a key while one is
//! unacknowledged. [`RoutedOptions`](routing::Options) says the rest. To send by rule into one of several channels there is [`Sender::route`].
//!
//! ```
//! # let segment = waterway::Segment::options().in_process()?;
//! use waterway::Delivery;
//! let lines = || segment.bytes("lines").routed().delivery(Delivery::AtLeastOnce { max_deliveries: 3 });
//! let (sender, receiver) = lines().open()?;
//! for line in ["ada 1", "bob 1", "ada 2", "ada 3", "bob 2"] {
//!     sender.try_send(&line[..3], line)?;
//! }
//! let mut of_ada = Vec::new();
//! while let Ok(line) = receiver.try_recv() {
//!     if line.starts_with(b"ada") {
//!         of_ada.push(line[4]);
//!     }
//!     line.ack();
//! }
//! assert_eq!(of_ada, *b"123");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Blocks
//!
//! Channels are made of blocks of memory, and those are there for you, too. [`Segment::allocator`] gives a [`Block`](blocks::Block); its
//! [`Handle`](blocks::Handle) is 8 bytes of plain data that any process of the segment can resolve, and that is refused when the block has
//! been freed. So a large thing can stay where it is, and its handle go through a channel.
//!
//! ```
//! use waterway::blocks::{Handle, HandleError};
//! # let segment = waterway::Segment::options().in_process()?;
//! let allocator = segment.allocator();
//! let (sender, receiver) = segment.channel::<Handle>("boards").open()?;
//! let board = allocator.allocate([[0_u8; 8]; 8])?;
//! sender.try_send(board.handle())?;
//!
//! // In another process:
//! let handle = *receiver.try_recv()?;
//! let seen = allocator.resolve::<[[u8; 8]; 8]>(handle)?;
//! seen.write()?[3][4] = 1;
//! assert_eq!(seen.read()?[3][4], 1);
//!
//! // With its owner gone, or if its owner is killed, nothing is left of it.
//! drop(board);
//! assert_eq!(seen.read().unwrap_err(), HandleError::Stale);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Services
//!
//! A service is requests that are answered: [`Segment::service`] gives a [`Client`](service::Client) and a [`Server`](service::Server). The response comes to its
//! caller, or an error that says what has become of the request: its server died, or dropped it, or there is none. A call that is
//! dropped is cancelled, and the server hears of it; deadlines reach it; one request may have [many responses](service::Request::stream).
//! For patterns of your own there is [`ReplyTo`](service::ReplyTo), a sender that can be sent.
//!
//! ```
//! # smol::block_on(async {
//! # let segment = waterway::Segment::options().in_process()?;
//! let server = segment.service::<u64, [u8]>("spell").server()?;
//! let client = segment.service::<u64, [u8]>("spell").client()?;
//! let (answer, served) = futures::join!(client.call(7), async {
//!     let request = server.next().await.expect("there is a client");
//!     let word = if *request == 7 { "seven" } else { "many" };
//!     request.respond(word).await
//! });
//! served?;
//! assert_eq!(&answer?[..], b"seven");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! With the feature `tower` a client is a service of the crate of that name, and can have its layers (timeouts, limits, retries), and
//! a server runs any such service: `server.serve(service).await`. The example `http_workers` is an axum server before worker
//! processes.
//!
//! # Broadcasts
//!
//! What is published in a broadcast every *group* of subscribers sees, and one member of each handles it. [`Segment::broadcast`] gives a
//! [`Publisher`](broadcast::Publisher), a [`Subscriber`](broadcast::Subscriber) that is a group of its own, or one of a [named group](broadcast::Options::group). The payload is
//! written once and read in place by all. What happens when a group [falls behind](broadcast::Behind) is its own choice: it misses messages,
//! and is told exactly how many; or publishers wait for it; or they wait for a while, and then it is put out.
//!
//! ```
//! use waterway::broadcast::{Behind, RecvError};
//! # smol::block_on(async {
//! # let segment = waterway::Segment::options().in_process()?;
//! let prices = || segment.broadcast::<u64>("prices").capacity(2);
//! let publisher = prices().publisher()?;
//! let screen = prices().subscriber()?;
//! let traders = prices().group("traders").behind(Behind::Block).subscriber()?;
//! for price in [100, 101, 102] {
//!     publisher.send(price).await?;
//!     assert_eq!(*traders.recv().await?, price);
//! }
//! // There was room for two.
//! assert_eq!(screen.recv().await.unwrap_err(), RecvError::Lagged(1));
//! assert_eq!(*screen.recv().await?, 101);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Semaphore, notify, watch
//!
//! What `tokio::sync` has besides channels is there between processes, too: a [`Semaphore`](semaphore::Semaphore), whose permits come back if their
//! holder dies; a [`Notify`](notify::Notify); and a watch, of which only the latest value counts ([`WatchSender`](watch::Sender), [`WatchReceiver`](watch::Receiver)).
//!
//! ```
//! # smol::block_on(async {
//! # let segment = waterway::Segment::options().in_process()?;
//! let jobs = segment.semaphore("jobs").permits(2).open()?;
//! let done = segment.notify("done")?;
//! let (limit, mut seen) = segment.watch::<u64>("limit").initial(10).open()?;
//!
//! let permit = jobs.acquire().await?;
//! limit.send(20)?;
//! seen.changed().await?;
//! assert_eq!(*seen.borrow_and_update(), 20);
//! drop(permit);
//! done.notify_one();
//! done.notified().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Growth and statistics
//!
//! A segment takes the memory of its [`size`](SegmentOptions::size) at once, and more, in steps, up to its
//! [`max_size`](SegmentOptions::max_size) when it is needed. [`Segment::stats`] tells what is where, and how often what was
//! done.
//!
//! ```
//! # use waterway::Segment;
//! let segment = Segment::options().size(1 << 20).max_size(64 << 20).in_process()?;
//! let (sender, receiver) = segment.bytes("films").open()?;
//! sender.try_send(vec![7; 4 << 20])?;
//! let stats = segment.stats();
//! assert!(stats.growths > 0 && stats.held_bytes() > 4 << 20);
//!
//! drop((sender, receiver));
//! // Nobody received it: with the last end of the channel, it has gone.
//! assert_eq!(segment.stats().held_bytes(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Closing, and death
//!
//! When the last sender has gone, receivers drain the channel and get `None`; when the last receiver has gone, sending
//! fails and hands the value back. A process that dies goes like one that leaves: its ends close, what it had allocated
//! or received is freed, and whoever waits is woken: in a run of 9,606 kills on a loaded machine after
//! 2.9 ms in the median, and 15 ms at the 99th percentile (`examples/chaos`).
//!
//! All that happens by itself. To look, or to have it done now, there are [`Segment::participants`],
//! [`Segment::bury_the_dead`] and [`Segment::check_live`]. Memory that something has written over, which Waterway never does,
//! is found by a check; [`Segment::quarantine`] takes the sector where it lies out of use, and the others go on.
//!
//! ```
//! # let segment = waterway::Segment::options().in_process()?;
//! segment.bury_the_dead();
//! assert_eq!(segment.participants()[0].pid, std::process::id());
//! let report = segment.check_live();
//! if !report.is_clean() {
//!     eprintln!("{:?}", report.problems);
//!     segment.quarantine();
//! }
//! # assert!(report.is_clean());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # When not to use this
//!
//! * Within one process: `tokio::sync::mpsc` and its kind carry any value, with its destructor, and need no names and no files.
//! * Between machines, or between users that do not trust each other: use a socket.
//! * If messages come seldom: a Unix socket is as fast, because then waking a sleeping processor is all that counts.
//! * If messages must survive a reboot: that is not here.
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
//! * `tokio` (on by default): operations charge tokio's cooperative budget by the time that they take, so that a task whose
//!   channel is never empty yields after some 75 µs; and blocking ones refuse to block a runtime.
//!   Nothing else depends on tokio.
//! * `postcard`, `json`: the codecs `Postcard` and `Json`, for [channels](ChannelOptions::codec) of whatever serde can
//!   write.
//! * `rkyv`: the codec `Rkyv`, whose messages are read in place, without being decoded.
//! * `prost`: the codec `Prost`, for protobuf messages.
//! * `tracing`: events and spans where something seldom happens: segments and channels opened and left, deaths, quarantine.
//!   Who collects `TRACE` gets a span for every send and receive; otherwise a message costs a load and a branch for it.
//! * `metrics`: counters of messages, bytes, wake-ups and deaths, by segment and channel. A message costs a call of a handle
//!   per counter. Install the recorder before channels are opened.
//!
//! # More to read
//!
//! In the folder `docs` of the source: `migration.md`, names and habits of other channels and what they are here;
//! `tokio_claims.md`, tokio's mpsc claim by claim, and which test looks after each;
//! `compare.md`, what others do better and worse; `guarantees.md`, what is promised, under which failures, and which test
//! looks after it; `design.md`, how it works and why; `api.txt`, all that is public on one page. Programs to run are in
//! `examples`.

// The models explore the layers below the ones that use them.
#![cfg_attr(loom, allow(dead_code))]

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("waterway runs on Linux, x86-64 and AArch64: it needs futexes, OFD locks and 64-bit atomics");

/// The snippets of that page are compiled with the others.
#[cfg(doctest)]
#[doc = include_str!("../docs/migration.md")]
struct Migration;

pub(crate) mod alloc;
#[cfg(not(loom))]
pub(crate) mod attachment;
pub mod blocks;
#[cfg(not(loom))]
pub mod broadcast;
#[cfg(not(loom))]
pub mod channel;
#[cfg(not(loom))]
pub mod codec;
#[cfg(not(loom))]
pub mod error;
// Not in the documentation, where its names would take links away from their modules.
#[cfg(not(any(loom, doc)))]
mod former;
#[cfg(not(loom))]
pub mod notify;
mod observe;
#[cfg(not(loom))]
pub mod observer;
#[cfg(not(loom))]
pub mod policy;
#[cfg(not(loom))]
pub mod raw;
pub(crate) mod region;
pub(crate) mod ring;
#[cfg(not(loom))]
pub mod routing;
#[cfg(not(loom))]
pub mod schema;
#[cfg(not(loom))]
pub mod segment;
#[cfg(not(loom))]
pub mod semaphore;
#[cfg(any(not(loom), test))]
pub mod service;
pub(crate) mod sys;
pub(crate) mod wake;
#[cfg(not(loom))]
pub mod watch;

#[cfg(not(any(loom, doc)))]
#[doc(hidden)]
pub use former::*;
/// What a build with `--cfg crash_points` has for its tests.
#[cfg(all(crash_points, not(loom)))]
#[doc(hidden)]
pub use sys::crashing::{passed as crash_points_passed, watched as watch_crash_points, without_bridges};

#[cfg(not(loom))]
#[doc(inline)]
pub use channel::{
    ChannelOptions, Delivery, Message, OwnedPermit, Permit, Receiver, SendError, Sender, TryRecvError, TrySendError,
    WaitStrategy, WeakSender,
};
#[cfg(not(loom))]
#[doc(inline)]
pub use observer::Observer;
/// A type of messages says its policy where it is declared: `impl waterway::Policy for Order`.
#[cfg(not(loom))]
#[doc(hidden)]
pub use policy::{DeadLetter, Policy, Priority, Retention, RouteKey};
#[cfg(not(loom))]
#[doc(inline)]
pub use region::error::OpenError;
/// Plain data that is known by its name, its size and its alignment only.
#[cfg(not(loom))]
#[doc(hidden)]
pub use schema::Opaque;
#[cfg(not(loom))]
#[doc(inline)]
pub use schema::Schema;
#[cfg(not(loom))]
#[doc(inline)]
pub use segment::{Segment, SegmentInfo, SegmentOptions};
/// Makes a struct or an enum [`Plain`](channel::Plain) data, without a dependency on zerocopy of one's own.
///
/// A struct becomes `#[repr(C)]`, unless it says `#[repr(C, …)]` or `#[repr(transparent)]` itself. An enum says how large it is,
/// with `#[repr(u8)]` for instance; its variants may have fields. Both get what zerocopy derives (`TryFromBytes`, `IntoBytes`,
/// `Immutable`), but for what a `#[derive]` below the attribute has, and a [`Schema`], by which channels tell the type from
/// others. Write it before all derives: `KnownLayout` is taken out of them, since a type that has it is plain without the
/// attribute, and its fields are not known. Where only some bits are a value (`bool`, an enum, a struct that has one), what arrives is checked; a struct
/// in which any bits are a value costs no check. All other attributes, derives and documentation stay as they are written.
///
/// Of a type that is written in place ([`Permit::send_in_place`]) zeros, or any bits, must be a value: let it derive
/// `waterway::zerocopy::FromZeros`, or `FromBytes`, below the attribute.
///
/// Padding is refused by the compiler: order the fields by size, or fill the gap with a field. A generic struct must have
/// no padding whatever its parameters are: one field, fields of one type, or `#[repr(transparent)]`.
///
/// The crate must be called `waterway` in `Cargo.toml`; else say `#[other::plain(crate = "::other")]`.
///
/// ```
/// # use waterway::Segment;
/// /// A trade.
/// #[waterway::plain]
/// #[derive(Clone, Copy, Debug, PartialEq)]
/// pub struct Trade {
///     pub id: u64,
///     pub price: f64,
///     pub side: Side,
///     pub last: bool,
///     reserved: [u8; 6],
/// }
///
/// #[waterway::plain]
/// #[derive(Clone, Copy, Debug, PartialEq)]
/// #[repr(u8)]
/// pub enum Side { Buy = 1, Sell = 2 }
///
/// let segment = Segment::options().in_process()?;
/// let (sender, receiver) = segment.channel::<Trade>("trades").open()?;
/// sender.try_send(Trade { id: 1, price: 99.5, side: Side::Sell, last: false, reserved: [0; 6] })?;
/// assert_eq!(receiver.try_recv()?.side, Side::Sell);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// What has padding does not compile:
///
/// ```compile_fail,E0277
/// #[waterway::plain]
/// struct Gap { small: u8, large: u64 }
/// ```
///
/// Nor does what has no layout to rely on, and the message says what to put instead (see [`Plain`](channel::Plain)):
///
/// ```compile_fail,E0277
/// #[waterway::plain]
/// struct Job { id: u64, patience: std::time::Duration }
/// ```
///
/// ```compile_fail,E0277
/// #[waterway::plain]
/// struct Job { id: u64, name: String }
/// ```
///
/// An enum without a representation, a union and what borrows are refused by the attribute itself:
///
/// ```compile_fail
/// #[waterway::plain]
/// enum Side { Buy, Sell }
/// ```
///
/// ```compile_fail
/// #[waterway::plain]
/// union Either { number: u64, real: f64 }
/// ```
///
/// ```compile_fail
/// #[waterway::plain]
/// struct Name<'a> { name: &'a [u8; 8] }
/// ```
#[cfg(not(loom))]
pub use waterway_derive::plain;
/// Makes several structs and enums [`Plain`](channel::Plain) data that is `Clone` and `Copy`: [`#[plain]`](macro@plain) and these two derives before each.
///
/// ```
/// waterway::plain_types! {
///     #[derive(Debug, PartialEq)]
///     pub struct Trade { pub id: u64, pub price: Price, pub side: Side }
///
///     #[derive(Debug, PartialEq)]
///     #[repr(u64)]
///     pub enum Side { Buy = 1, Sell = 2 }
///
///     #[derive(Debug, PartialEq)]
///     pub struct Price(pub u64);
/// }
///
/// let trade = Trade { id: 1, price: Price(99), side: Side::Sell };
/// let again = trade;
/// assert_eq!(trade, again);
/// ```
#[cfg(not(loom))]
pub use waterway_derive::plain_types;
/// The crate that says what may be written as bytes and checked when it is read, in the version that this one uses: what
/// [`macro@plain`] derives from.
pub use zerocopy;
