//! [`Segment`]: what a user holds of a segment, and the options it is made with.

use std::{
    fmt,
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use uuid::Uuid;

pub use crate::alloc::check::{CheckReport, SectorReport, Stats};

use crate::{
    OpenError, Schema,
    attachment::{self, Anchor, Attachment, directory::Kind, policies::Counts},
    blocks::{Allocator, Content},
    broadcast,
    channel::ChannelOptions,
    notify::Notify,
    observe, raw,
    region::{
        config::Config,
        mapped::{Listed, Region},
    },
    semaphore, service,
    sys::file,
    watch,
};

/// A process's hold on a shared-memory segment: the place where channels live.
///
/// Cheap to clone; the process leaves the segment when the last clone, the last end of a channel and the last message
/// are dropped. Every `open` makes a participant of its own, so share one handle within a process.
///
/// ```
/// # fn main() -> Result<(), waterway::OpenError> {
/// let segment = waterway::Segment::options().in_process()?;
/// let (sender, receiver) = segment.channel::<u64>("numbers").open()?;
/// sender.try_send(7).unwrap();
/// assert_eq!(*receiver.try_recv().unwrap(), 7);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Segment {
    attachment: Anchor,
}

impl Drop for Segment {
    fn drop(&mut self) {
        // The bridge may have the last of something that was dropped here while it was being woken. If the process ends after this,
        // it must not be left to the bridge to leave the segment.
        self.attachment.let_the_bridge_finish();
    }
}

impl Segment {
    /// Opens the segment of that name, or makes it, with default options. However many processes do so at once, all get
    /// the same one.
    ///
    /// # Errors
    ///
    /// Any [`OpenError`].
    pub fn open_or_create(name: &str) -> Result<Self, OpenError> {
        Self::options().open_or_create(name)
    }

    /// Makes a segment of that name, with default options.
    ///
    /// # Errors
    ///
    /// [`OpenError::AlreadyExists`] if somebody is using one of that name; any other [`OpenError`].
    pub fn create(name: &str) -> Result<Self, OpenError> {
        Self::options().create(name)
    }

    /// Opens the segment of that name.
    ///
    /// # Errors
    ///
    /// [`OpenError::NotFound`] if there is none; any other [`OpenError`].
    pub fn open(name: &str) -> Result<Self, OpenError> {
        Self::options().open(name)
    }

    /// Removes the name of a segment. Whoever is attached goes on with what they have; the memory is given back when
    /// they have gone.
    ///
    /// # Errors
    ///
    /// [`OpenError::NotFound`] if there is none.
    pub fn remove(name: &str) -> Result<(), OpenError> {
        Self::options().remove(name)
    }

    /// The segments of the default directory, also those that cannot be opened: [`SegmentInfo::problem`] says why.
    ///
    /// # Errors
    ///
    /// [`OpenError::Io`] if the directory cannot be read.
    pub fn list() -> Result<Vec<SegmentInfo>, OpenError> {
        Self::options().list()
    }

    /// Removes the segments of the default directory in which nobody lives and that are not to stay, and says what they were: what
    /// processes have left behind that were all killed. Whoever makes a segment does so, too, before it finds that there is no room.
    ///
    /// # Errors
    ///
    /// [`OpenError::Io`] if the directory cannot be read.
    pub fn sweep() -> Result<Vec<SegmentInfo>, OpenError> {
        Self::options().sweep()
    }

    /// Options for a segment that is to be opened or made.
    pub fn options() -> SegmentOptions {
        SegmentOptions::default()
    }

    /// Attaches to an anonymous segment, by a descriptor that was inherited or received from a participant's
    /// [`as_fd`](Self::as_fd).
    ///
    /// # Errors
    ///
    /// Any [`OpenError`].
    pub fn from_fd(fd: OwnedFd) -> Result<Self, OpenError> {
        Self::attach("", || Region::from_fd(&fd))
    }

    fn attach(name: &str, mut open: impl FnMut() -> Result<Region, OpenError>) -> Result<Self, OpenError> {
        let span = observe::opening_segment(name);
        let attached = (|| {
            // However often somebody else is faster with the name, theirs can be opened, or has gone.
            loop {
                if let Some(attachment) = Attachment::attach(open()?)? {
                    return Ok(attachment);
                }
            }
        })();
        span.opened(attached.as_ref().map(|attachment: &Anchor| attachment.region()));
        Ok(Self { attachment: attached? })
    }

    /// The descriptor to hand to another process; `None` for a segment that lives on the heap.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.attachment.region().fd()
    }

    /// Where the segment's file is, or was before somebody removed it; `None` for a segment without a name.
    pub fn path(&self) -> Option<&Path> {
        self.attachment.region().named_path()
    }

    /// The segment's name; empty for one without.
    pub fn name(&self) -> &str {
        self.attachment.region().name()
    }

    /// What makes the segment this one, whatever its name.
    pub fn id(&self) -> Uuid {
        Uuid::from_bytes(self.attachment.region().header().uuid)
    }

    /// A channel of [`Plain`](crate::channel::Plain) data, read in place; of slices of it (`channel::<[T]>`), any number of values in each
    /// message; or, with a [codec](ChannelOptions::codec), of anything that one can write.
    ///
    /// # Examples
    ///
    /// A batch travels as one block: it is written where it will be read, and released when all of it is acknowledged.
    ///
    /// ```
    /// # smol::block_on(async {
    /// use waterway::Segment;
    ///
    /// #[waterway::plain]
    /// #[derive(Debug, PartialEq)]
    /// struct Tick { id: u64, price: f64 }
    ///
    /// # let segment = Segment::options().in_process()?;
    /// let (sender, receiver) = segment.channel::<[Tick]>("ticks").capacity(16).open()?;
    /// let mut batch = sender.reserve(64).await?;
    /// for id in 0..50 {
    ///     batch.push(Tick { id, price: 1.5 });
    /// }
    /// batch.send();
    ///
    /// let ticks = receiver.recv().await.unwrap();
    /// assert_eq!((ticks.len(), &ticks[7]), (50, &Tick { id: 7, price: 1.5 }));
    /// // The channel counts batches.
    /// assert_eq!(sender.capacity(), 16);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// What takes up no memory has no slices:
    ///
    /// ```compile_fail
    /// # let segment = waterway::Segment::options().in_process().unwrap();
    /// segment.channel::<[()]>("nothings").open().unwrap();
    /// ```
    pub fn channel<T: ?Sized>(&self, name: &str) -> ChannelOptions<T> {
        ChannelOptions::new(self.attachment.clone(), name)
    }

    /// A channel for who does not have its type: tools, bridges, other languages. Its ends carry payloads as the bytes that they are in
    /// the segment, see [`raw`]. With a schema the channel is that of the type that has it, and is made if it is not there; without one
    /// it must be there, and is taken as it is.
    pub fn raw(&self, name: &str, schema: Option<&Schema>) -> raw::Options {
        raw::Options::new(self.attachment.clone(), name, schema)
    }

    /// A channel of bytes of any length, up to the largest block of the segment: the same as `channel::<[u8]>`.
    pub fn bytes(&self, name: &str) -> ChannelOptions<[u8]> {
        ChannelOptions::new(self.attachment.clone(), name)
    }

    /// A broadcast: every group of subscribers sees every message, and one member of it handles it. Of plain data, of slices
    /// (`broadcast::<[T]>`; `[u8]` for bytes), or, with a [codec](broadcast::Options::codec), of anything that one can write.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let publisher = segment.broadcast::<u64>("prices").publisher()?;
    /// let log = segment.broadcast::<u64>("prices").subscriber()?;
    /// let trader = segment.broadcast::<u64>("prices").group("traders").subscriber()?;
    /// let other_trader = trader.clone();
    ///
    /// assert_eq!(publisher.try_send(7)?, 2);
    /// assert_eq!(publisher.try_send(8)?, 2);
    /// assert_eq!((*log.try_recv()?, *log.try_recv()?), (7, 8));
    /// // Of a group one member gets it.
    /// assert_eq!((*trader.try_recv()?, *other_trader.try_recv()?), (7, 8));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn broadcast<T: ?Sized>(&self, name: &str) -> broadcast::Options<T> {
        broadcast::Options::new(self.attachment.clone(), name)
    }

    /// A service: requests that are answered, with any number of clients and servers. Of plain data, of slices, or, with a
    /// [codec](service::Options::codec), of anything that one can write.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// use std::thread;
    ///
    /// // One process…
    /// let server = segment.service::<u64, u64>("squares").server()?;
    /// let serving = thread::spawn(move || {
    ///     smol::block_on(async {
    ///         while let Some(request) = server.next().await {
    ///             let square = *request * *request;
    ///             // That nobody waits for it any more is no concern of ours.
    ///             let _ = request.respond(square).await;
    ///         }
    ///     })
    /// });
    ///
    /// // … and another.
    /// let client = segment.service::<u64, u64>("squares").client()?;
    /// assert_eq!(*smol::block_on(client.call(12))?, 144);
    /// # drop(client);
    /// # serving.join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn service<Req: ?Sized, Resp: ?Sized>(&self, name: &str) -> service::Options<Req, Resp> {
        service::Options::new(self.attachment.clone(), name)
    }

    /// The process's hold on the segment.
    pub(crate) fn attachment(&self) -> &Anchor {
        &self.attachment
    }

    /// A semaphore: permits that the tasks of all processes share.
    pub fn semaphore(&self, name: &str) -> semaphore::Options {
        semaphore::Options::new(self.attachment.clone(), name)
    }

    /// A watch: the latest of the values that are sent, of [`Plain`](crate::channel::Plain) data or of bytes of any length
    /// (`watch::<[u8]>`), read in place by all processes.
    pub fn watch<T: Content + ?Sized>(&self, name: &str) -> watch::Options<T> {
        watch::Options::new(self.attachment.clone(), name)
    }

    /// A notify: tasks of all processes tell each other that something has happened. Whoever comes first creates it; it is
    /// gone when the last handle of all processes is.
    ///
    /// # Errors
    ///
    /// [`OpenError::Mismatch`] if something else has that name; [`OpenError::InvalidName`]; [`OpenError::TooManyChannels`]
    /// or [`OpenError::OutOfMemory`] if there is no place for a new one.
    pub fn notify(&self, name: &str) -> Result<Notify, OpenError> {
        Notify::open(&self.attachment, name)
    }

    /// The segment's memory, block by block, for those who build something of their own.
    pub fn allocator(&self) -> Allocator {
        Allocator::new(self.attachment.clone())
    }

    /// The channels that the segment has now, and what else has a name there.
    pub fn channels(&self) -> Vec<ChannelInfo> {
        let described = self.attachment.channels();
        described
            .into_iter()
            .map(|(channel, counts)| ChannelInfo {
                name: channel.name,
                kind: ChannelKind::of(channel.shape.kind),
                payload: channel.shape.payload_name,
                capacity: match channel.shape.kind {
                    Kind::Group => 1,
                    _ => channel.shape.capacity as usize,
                },
                counts,
            })
            .collect()
    }

    /// Who is attached now.
    pub fn participants(&self) -> Vec<ParticipantInfo> {
        self.attachment
            .region()
            .participants()
            .map(|participant| ParticipantInfo { slot: participant.slot, pid: participant.pid })
            .collect()
    }

    /// Checks every invariant of the segment's memory, and counts what is where: blocks lie side by side without gaps and are
    /// as long together as each sector; each belongs to somebody who is there; a hint leads to each that is free; what is
    /// cached is in its magazine, and what is on its way in one cell of one channel; and nobody is in the middle of
    /// anything. Exact while nobody works in the segment, and the dead are buried; otherwise work in progress may be reported as a
    /// problem. Takes time in proportion to the size.
    pub fn check(&self) -> CheckReport {
        self.attachment.check()
    }

    /// Checks what can be checked while others work in the segment: that blocks lie side by side, and that nobody who is not
    /// there is at work on one. Reports only what stays broken over several looks, some milliseconds apart, and what no
    /// thread of any process says it is working on, however long that thread is stopped. Hints, magazines, owners and
    /// what is on its way are left to [`check`](Self::check): a free block without a hint, for one, may be one whose
    /// hint comes a moment later.
    pub fn check_live(&self) -> CheckReport {
        self.attachment.check_live()
    }

    /// Checks as [`check_live`](Self::check_live) does, and takes sectors in which something is broken out of use, for all
    /// processes and for good: nothing is allocated there any more, and messages on their way there are lost. The other
    /// sectors go on. Happens by itself when a persistent segment is opened that nobody else uses.
    pub fn quarantine(&self) -> CheckReport {
        self.attachment.quarantine()
    }

    /// What the segment's memory holds, and how often what was done.
    pub fn stats(&self) -> Stats {
        self.attachment.stats()
    }

    /// Bytes of this process's mapping that the kernel keeps in huge pages now; `None` where it does not say.
    pub fn huge_page_bytes(&self) -> Option<u64> {
        self.attachment.region().mapping().huge_bytes()
    }

    /// Looks for participants that have died, and gives back what they held. Happens by itself whenever somebody dies or a
    /// process opens a channel; this is for those who want to see it done. Where another thread of this process is at it,
    /// or a living process is in the way, waits for that, but no longer than a second.
    pub fn bury_the_dead(&self) {
        for _ in 0..1000 {
            self.attachment.bury_the_dead();
            if self.attachment.region().dead().is_empty() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").field("name", &self.name()).field("id", &self.id()).finish_non_exhaustive()
    }
}

/// A segment of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// Its name.
    pub name: String,
    /// What makes it this one, whatever its name.
    pub id: Uuid,
    /// Its bytes.
    pub size: usize,
    /// Processes that are attached and alive.
    pub participants: usize,
    /// Where its file is.
    pub path: PathBuf,
    /// The version of its layout: [`open`](Segment::open) knows one.
    pub version: u32,
    /// Whether it stays when nobody is attached.
    pub persistent: bool,
    /// Why it cannot be opened, if so. What nobody lives in and is not to stay is made afresh by
    /// [`open_or_create`](Segment::open_or_create), whatever this says of its version.
    pub problem: Option<String>,
}

impl SegmentInfo {
    fn of(found: Listed) -> Self {
        Self {
            name: found.name,
            id: Uuid::from_bytes(found.uuid),
            size: found.size as usize,
            participants: found.participants,
            path: found.path,
            version: found.version,
            persistent: found.persistent,
            problem: found.problem.map(|problem| problem.to_string()),
        }
    }
}

/// What has a name in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelKind {
    /// A channel: [`Segment::channel`], [`Segment::bytes`].
    Channel,
    /// A [`Semaphore`](crate::semaphore::Semaphore).
    Semaphore,
    /// A [`Notify`].
    Notify,
    /// A [watch](crate::watch::Sender).
    Watch,
    /// A broadcast: [`Segment::broadcast`].
    Broadcast,
    /// A [group](crate::broadcast::Options::group) of a broadcast.
    Group,
    /// A [routed channel](crate::routing::Options), whose capacity is the number of its partitions. Each of those is a
    /// channel, too, named after it with `#` and its number.
    Routed,
}

impl ChannelKind {
    pub(crate) fn of(kind: Kind) -> Self {
        match kind {
            Kind::Channel => Self::Channel,
            Kind::Semaphore => Self::Semaphore,
            Kind::Notify => Self::Notify,
            Kind::Watch => Self::Watch,
            Kind::Broadcast => Self::Broadcast,
            Kind::Routed => Self::Routed,
            Kind::Group => Self::Group,
        }
    }
}

/// A channel of a segment, or something else that has a name there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelInfo {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: ChannelKind,
    /// What it carries.
    pub payload: String,
    /// The most messages that may wait; the permits of a semaphore; else 1.
    pub capacity: usize,
    /// What became of messages that nobody received.
    pub counts: Counts,
}

/// A process that is attached to a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParticipantInfo {
    /// Its place in the segment's table.
    pub slot: u16,
    /// Its process number, in its own namespace.
    pub pid: u32,
}

/// Options for a segment. What matters only for a new one is ignored when the segment is there already.
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing until a segment is opened with them"]
pub struct SegmentOptions {
    config: Config,
}

impl SegmentOptions {
    /// Bytes of memory that a new segment has at first, rounded up to whole pages: 16 MiB unless told otherwise. All of it
    /// is taken from the file system at once. Unless there is a [`max_size`](Self::max_size), the segment stays as it is.
    pub fn size(mut self, bytes: usize) -> Self {
        self.config.size = Some(bytes as u64);
        self
    }

    /// Bytes of memory that a new segment may grow to, when there is not enough: the [`size`](Self::size) if there is one,
    /// or else 1 GiB. Every process that attaches needs as much address space. It grows in steps, each of which is taken
    /// from the file system before anybody uses it; it never shrinks.
    pub fn max_size(mut self, bytes: usize) -> Self {
        self.config.max_size = Some(bytes as u64);
        self
    }

    /// Shares of the small, the medium and the large sector in a new segment: 25, 35 and 40 unless told otherwise. A sector
    /// with no share does not exist.
    pub fn sectors(mut self, small: u32, medium: u32, large: u32) -> Self {
        self.config.shares = [small, medium, large];
        self
    }

    /// Bytes of a granule, the unit of allocation, of the small, the medium and the large sector in a new segment: 64, 1024
    /// and 65536 unless told otherwise. Each is a power of two from 64 to 1048576 (1 MiB), and larger than the one before;
    /// anything else is an [`OpenError::InvalidOptions`].
    ///
    /// Small granules waste less of a block's end; large ones need less for the segment's own tables, which are some 8 bytes
    /// per granule. Messages and blocks of up to 32 small granules go to the small sector and are cached when they are
    /// freed; longer ones of less than 512 medium granules go to the medium sector; but nothing goes to a sector of which it
    /// would not fill half a granule, unless it must. A block has at most 2²² − 1 granules, and is aligned to its granule,
    /// or to a page of 4096 bytes if that is less. A sector has whole granules only, at most 2³⁰ − 1. At most a quarter of
    /// the small sector is cached: one of less than 512 granules is not.
    pub fn granules(mut self, small: usize, medium: usize, large: usize) -> Self {
        self.config.granules = [small, medium, large].map(|bytes| bytes as u64);
        self
    }

    /// The most processes that may be attached to a new segment at once, from 1 to 1024: 256 unless told otherwise. Each that
    /// there may be needs 1 to 1.7 KiB of the segment where there may be 1024 channels, and 4 bytes in every channel that there is; 64
    /// of them need 32 bytes for each channel that there may be. Where there may be more than 256, the header of a user's block has
    /// 256 bytes instead of 64. A send or receive looks at as many bits as there may be participants, 256 in one cache line.
    pub fn participants(mut self, most: u32) -> Self {
        self.config.participants = most;
        self
    }

    /// The most channels that a new segment may have at once: one per 16 KiB of its size, from 16 to 1024, unless told
    /// otherwise.
    pub fn channels(mut self, most: u32) -> Self {
        self.config.channels = Some(most);
        self
    }

    /// How many magazines a new segment has; none is slower. For measurements.
    #[doc(hidden)]
    pub fn magazines(mut self, magazines: u32) -> Self {
        self.config.magazines = Some(magazines);
        self
    }

    /// The directory: `$WATERWAY_DIR`, or `/dev/shm/waterway-<uid>`, unless told otherwise. It is made if it is not there,
    /// and must be private to the user. A relative one is meant from where the process works when it is given for the first time,
    /// wherever it works later.
    pub fn dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.dir = Some(file::absolute(&path.into()));
        self
    }

    /// Whether a new segment stays when the last process leaves. Off by default.
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.config.persistent = persistent;
        self
    }

    /// Whether blocks are overwritten with zeros when they are freed. Off by default.
    pub fn zero_on_free(mut self, zero: bool) -> Self {
        self.config.zero_on_free = zero;
        self
    }

    /// Whether this process asks the kernel for huge pages (2 MiB on x86-64) for its mapping: fewer faults and less work for
    /// the processor's page tables where much memory is used. Off by default. It is a wish:
    /// [`Segment::huge_page_bytes`] tells what came of it. (Shared memory needs
    /// `/sys/kernel/mm/transparent_hugepage/shmem_enabled` to be `advise` or more.)
    pub fn huge_pages(mut self, ask: bool) -> Self {
        self.config.huge_pages = ask;
        self
    }

    /// Whether this process touches all memory that the segment has at first when it opens it, so that nothing is slower
    /// the first time. Off by default.
    pub fn populate(mut self, populate: bool) -> Self {
        self.config.populate = populate;
        self
    }

    fn attach(&self, name: &str, open: impl Fn(&Config) -> Result<Region, OpenError>) -> Result<Segment, OpenError> {
        Segment::attach(name, || open(&self.config)?.prepare(&self.config))
    }

    /// Opens the segment of that name, or makes it. However many processes do so at once, all get the same one.
    ///
    /// # Errors
    ///
    /// Any [`OpenError`].
    pub fn open_or_create(self, name: &str) -> Result<Segment, OpenError> {
        self.attach(name, |config| Region::open_or_create(name, config, attachment::format))
    }

    /// Makes a segment of that name.
    ///
    /// # Errors
    ///
    /// [`OpenError::AlreadyExists`] if somebody is using one of that name; any other [`OpenError`].
    pub fn create(self, name: &str) -> Result<Segment, OpenError> {
        self.attach(name, |config| Region::create(name, config, attachment::format))
    }

    /// Opens the segment of that name.
    ///
    /// # Errors
    ///
    /// [`OpenError::NotFound`] if there is none; any other [`OpenError`].
    pub fn open(self, name: &str) -> Result<Segment, OpenError> {
        self.attach(name, |config| Region::open(name, config))
    }

    /// Makes a segment without a name: an anonymous file that others attach to through a
    /// [descriptor](Segment::as_fd), sealed so that nobody can truncate it.
    ///
    /// # Errors
    ///
    /// Any [`OpenError`].
    pub fn anonymous(self) -> Result<Segment, OpenError> {
        self.attach("", |config| Region::anonymous(config, attachment::format))
    }

    /// Makes a segment on the heap, for this process alone: the same channels, with nothing shared.
    ///
    /// # Errors
    ///
    /// Any [`OpenError`].
    pub fn in_process(self) -> Result<Segment, OpenError> {
        self.attach("", |config| Region::in_process(config, attachment::format))
    }

    /// Removes the name of a segment; see [`Segment::remove`].
    ///
    /// # Errors
    ///
    /// [`OpenError::NotFound`] if there is none.
    pub fn remove(self, name: &str) -> Result<(), OpenError> {
        Region::remove(name, &self.config)
    }

    /// The segments of the directory, also those that cannot be opened: [`SegmentInfo::problem`] says why.
    ///
    /// # Errors
    ///
    /// [`OpenError::Io`] if the directory cannot be read.
    pub fn list(self) -> Result<Vec<SegmentInfo>, OpenError> {
        Ok(Region::list(&self.config)?.into_iter().map(SegmentInfo::of).collect())
    }

    /// Removes the segments of the directory in which nobody lives and that are not to stay; see [`Segment::sweep`].
    ///
    /// # Errors
    ///
    /// [`OpenError::Io`] if the directory cannot be read.
    pub fn sweep(self) -> Result<Vec<SegmentInfo>, OpenError> {
        Ok(Region::sweep(&self.config)?.into_iter().map(SegmentInfo::of).collect())
    }
}
