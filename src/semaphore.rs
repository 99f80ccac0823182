//! A semaphore between processes.
//!
//! It is the capacity of a channel that carries nothing: its permits are those that channels have, counted per participant,
//! so that the reaper knows how many a dead process held. `attachment/reserve.rs` says how they are granted, and how who
//! wants many waits.

use std::{
    error::Error,
    fmt,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::Arc,
    time::Duration,
};

use crate::{
    OpenError,
    attachment::{
        Anchor, ChannelRequest,
        directory::{End, Kind},
        port::{Port, Refused},
        reserve::Patience,
    },
    channel::wait::{block_on, timeout},
    region::name::Name,
    ring::{Position, permits},
    wake::budget::charge_budget,
};

/// A semaphore of a segment that is to be opened: made by [`Segment::semaphore`](crate::Segment::semaphore).
#[derive(Debug)]
#[must_use = "a semaphore is opened by `open`"]
pub struct Options {
    attachment: Anchor,
    name: String,
    permits: Option<usize>,
}

impl Options {
    pub(crate) fn new(attachment: Anchor, name: &str) -> Self {
        Self { attachment, name: name.to_owned(), permits: None }
    }

    /// How many permits it is made with, up to 2²⁴. Unless asked for, as many as the semaphore was made with, or 1 for a new
    /// one: then it is a mutex. They [become more](Semaphore::add_permits) or [fewer](Semaphore::forget_permits) later.
    pub fn permits(mut self, permits: usize) -> Self {
        self.permits = Some(permits);
        self
    }

    /// The semaphore. Whoever comes first creates it, with all its permits free; it is gone when the last handle of all
    /// processes is.
    ///
    /// # Errors
    ///
    /// [`OpenError::Mismatch`] if there is one of that name that was made with another number of permits, or something else of that name;
    /// [`OpenError::InvalidName`]; [`OpenError::InvalidOptions`] for an impossible number of permits;
    /// [`OpenError::TooManyChannels`] or [`OpenError::OutOfMemory`] if there is no place for a new one.
    pub fn open(self) -> Result<Semaphore, OpenError> {
        let name = Name::new(&self.name)?;
        if let Some(permits) = self.permits.filter(|permits| *permits > Semaphore::MAX_PERMITS) {
            return Err(OpenError::InvalidOptions(format!(
                "a semaphore of {permits} permits is not possible: choose a number up to {}",
                Semaphore::MAX_PERMITS
            )));
        }
        let permits = self.permits.map(|permits| permits as u64);
        let request = ChannelRequest::of_nothing(name.as_str(), Kind::Semaphore, permits);
        let port = self.attachment.open_channel(&request, &[End::Sender])?;
        Ok(Semaphore { position: port.start(End::Sender), port })
    }
}

/// Limits how many tasks of all processes do something at the same time: a [`tokio::sync::Semaphore`][tokio] between
/// processes.
///
/// Made by [`Segment::semaphore`](crate::Segment::semaphore). Clones are handles of the same semaphore, and so is what any
/// process opens by that name.
///
/// # Death
///
/// Permits belong to the process that acquired them. If it dies, at whatever instruction, all that
/// it held come back as soon as a death is heard of (in a run of 9,606 kills on a loaded machine
/// after 2.9 ms in the median, and 15 ms at the 99th percentile), and whoever waits for them is
/// woken. They come back, too, when a process drops its last handle, whatever it leaked. What it
/// has [forgotten](Permit::forget) or [added](Self::add_permits) stays so: that belongs to
/// the semaphore. What the permits guarded may then be half-done: who must know keeps a note of it
/// in the segment.
///
/// # Fairness
///
/// Who wants one permit gets it when it finds one: who is woken has waited longest in its process, but who comes just then
/// may be quicker. Of those who try at the same moment as many get one as there are. Who wants [many](Self::acquire_many) does not
/// starve beside those who want one: it waits at the head of a line, and nobody gets past it there. Only those who want many wait
/// for each other, in no particular order. Who could have what it waits for in the line, and does not take it for 50 milliseconds,
/// because its process is stopped or nobody polls its future, is passed over, and waits anew when it goes on.
///
/// # Not as in tokio
///
/// There are at most 2²⁴ permits. [`acquire_many`](Self::acquire_many) of more than there are at the moment, and than the semaphore
/// was made with, is an error, and no wait for somebody who may add some.
///
/// ```
/// # smol::block_on(async {
/// # let segment = waterway::Segment::options().in_process()?;
/// let jobs = segment.semaphore("jobs").permits(3).open()?;
/// let one = jobs.acquire().await?;
/// let two = jobs.acquire_many(2).await?;
/// assert_eq!(jobs.available_permits(), 0);
/// assert!(jobs.try_acquire().is_err());
/// drop((one, two));
/// assert_eq!(jobs.available_permits(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// [tokio]: https://docs.rs/tokio/latest/tokio/sync/struct.Semaphore.html
pub struct Semaphore {
    port: Arc<Port>,
    /// Where the only cell is: it never moves, as nothing is ever sent.
    position: Position,
}

/// Why permits were not acquired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcquireError {
    /// The semaphore was closed.
    Closed,
    /// There are not so many permits, free or held.
    TooMany {
        /// Permits that were asked for.
        asked: usize,
        /// Permits that the semaphore has, or was made with.
        permits: usize,
    },
}

/// Why permits were not acquired now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryAcquireError {
    /// The semaphore was closed.
    Closed,
    /// So many are not free.
    NoPermits,
}

/// Why permits were not acquired within some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcquireTimeoutError {
    /// The semaphore was closed.
    Closed,
    /// There are not so many permits, free or held.
    TooMany {
        /// Permits that were asked for.
        asked: usize,
        /// Permits that the semaphore has, or was made with.
        permits: usize,
    },
    /// So many were not free within the time.
    Timeout,
}

impl AcquireTimeoutError {
    /// Whether the time had passed.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout)
    }
}

impl From<AcquireError> for AcquireTimeoutError {
    fn from(error: AcquireError) -> Self {
        match error {
            AcquireError::Closed => Self::Closed,
            AcquireError::TooMany { asked, permits } => Self::TooMany { asked, permits },
        }
    }
}

impl fmt::Display for AcquireTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Closed => AcquireError::Closed.fmt(f),
            Self::TooMany { asked, permits } => AcquireError::TooMany { asked, permits }.fmt(f),
            Self::Timeout => f.write_str("timed out waiting for permits"),
        }
    }
}

impl Error for AcquireTimeoutError {}

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("semaphore closed"),
            Self::TooMany { asked, permits } => write!(
                f,
                "{asked} permits cannot be had at once, the semaphore has {permits}: ask for fewer, make it with more \
                 (semaphore::Options::permits), or add some first"
            ),
        }
    }
}

impl Error for AcquireError {}

impl fmt::Display for TryAcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "semaphore closed",
            Self::NoPermits => "no permits available",
        })
    }
}

impl Error for TryAcquireError {}

/// Why an attempt failed.
enum Failed {
    NoPermits,
    ForGood(AcquireError),
}

impl Semaphore {
    /// The most permits that a semaphore may have.
    pub const MAX_PERMITS: usize = permits::MOST as usize;

    fn attempt<'a>(&'a self, permits: usize, patience: Patience<'a, '_>) -> Result<(), Failed> {
        // One may always be added.
        let most = self.port.most_permits().max(1);
        if permits > most {
            let too_many = AcquireError::TooMany { asked: permits, permits: most };
            return Err(Failed::ForGood(if self.is_closed() { AcquireError::Closed } else { too_many }));
        }
        let refused = match permits {
            0 if self.is_closed() => Refused::Closed,
            0 => return Ok(()),
            // As many as there are at most, which has fewer than 32 bits.
            _ => match self.port.try_reserve(&self.position, permits as u32, patience, || Ok(())) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            },
        };
        Err(if refused == Refused::Full { Failed::NoPermits } else { Failed::ForGood(AcquireError::Closed) })
    }

    /// Makes attempts until one succeeds or fails for good; waits in between.
    async fn wait_for(&self, permits: usize) -> Result<(), AcquireError> {
        charge_budget().await;
        let mut line = None;
        let mut has_waited = false;
        let mut attempt = || {
            let patience = if permits > 1 { Patience::Line(&mut line) } else { Patience::None };
            let outcome = self.attempt(permits, patience);
            (outcome, line.is_some())
        };
        let (mut outcome, mut in_line) = attempt();
        loop {
            match outcome {
                Ok(()) => return Ok(()),
                Err(Failed::ForGood(error)) => {
                    if has_waited && matches!(error, AcquireError::TooMany { .. }) {
                        // So may others who wait, and it was we who were told.
                        self.port.tell_all_who_want_room();
                    }
                    return Err(error);
                }
                Err(Failed::NoPermits) => {}
            }
            has_waited = true;
            let was_in_line = in_line;
            let mut waiter = if in_line { self.port.wait_in_line() } else { self.port.wait_for_room() };
            // The place is taken: what comes back before is seen now, and what comes back from now on wakes us.
            (outcome, in_line) = attempt();
            // Who has got into the line waits in front of the others, not here.
            if matches!(outcome, Err(Failed::NoPermits)) && was_in_line == in_line {
                (&mut waiter).await;
                (outcome, in_line) = attempt();
            }
            // A success has passed the wake on, if more are free. And if there are too few for many, either we are in the
            // line, and there are none for anybody; or somebody else is, who will wake the next one.
            if outcome.is_ok() || permits > 1 && matches!(outcome, Err(Failed::NoPermits)) {
                waiter.finish();
            }
        }
    }

    /// Acquires a permit, waiting for one.
    ///
    /// # Errors
    ///
    /// [`AcquireError::Closed`] if the semaphore is closed, also while this waits.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, nothing was acquired, and its place in the queue is lost.
    pub async fn acquire(&self) -> Result<Permit<'_>, AcquireError> {
        self.acquire_many(1).await
    }

    /// Acquires so many permits at once, waiting for all of them. Does not starve beside those who want one.
    ///
    /// Who holds permits and waits for more that are only to be had with those waits for itself, as in tokio.
    ///
    /// # Errors
    ///
    /// As for [`acquire`](Self::acquire); and [`AcquireError::TooMany`], at once, if the semaphore has not so many, and had not when it was
    /// made; and while this waits, if so many are forgotten that there are not enough any more.
    ///
    /// # Cancel safety
    ///
    /// As for [`acquire`](Self::acquire).
    pub async fn acquire_many(&self, permits: u32) -> Result<Permit<'_>, AcquireError> {
        self.wait_for(permits as usize).await?;
        Ok(Permit { semaphore: self, permits })
    }

    /// Acquires a permit if one is free now: of those who try at once, as many as there are permits get one. Lock-free between
    /// processes; threads of one process that try for the last ones at the same moment take turns.
    ///
    /// # Errors
    ///
    /// [`TryAcquireError`].
    pub fn try_acquire(&self) -> Result<Permit<'_>, TryAcquireError> {
        self.try_acquire_many(1)
    }

    /// Acquires so many permits if they are free now: all or none. Lock-free, as [`try_acquire`](Self::try_acquire).
    ///
    /// # Errors
    ///
    /// [`TryAcquireError`]: `NoPermits` also if the semaphore has not so many.
    pub fn try_acquire_many(&self, permits: u32) -> Result<Permit<'_>, TryAcquireError> {
        self.attempt(permits as usize, Patience::None).map_err(|failed| match failed {
            Failed::ForGood(AcquireError::Closed) => TryAcquireError::Closed,
            _ => TryAcquireError::NoPermits,
        })?;
        Ok(Permit { semaphore: self, permits })
    }

    /// Acquires a permit as [`acquire`](Self::acquire) does; the permit takes the handle with it. Clone the handle to keep one.
    ///
    /// # Errors
    ///
    /// As for [`acquire`](Self::acquire). The handle is dropped then.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, nothing was acquired, and the handle is dropped.
    pub async fn acquire_owned(self) -> Result<OwnedPermit, AcquireError> {
        self.acquire_many_owned(1).await
    }

    /// Acquires so many permits as [`acquire_many`](Self::acquire_many) does; they take the handle with them.
    ///
    /// # Errors
    ///
    /// As for [`acquire_many`](Self::acquire_many). The handle is dropped then.
    ///
    /// # Cancel safety
    ///
    /// As for [`acquire_owned`](Self::acquire_owned).
    pub async fn acquire_many_owned(self, permits: u32) -> Result<OwnedPermit, AcquireError> {
        self.wait_for(permits as usize).await?;
        Ok(OwnedPermit { semaphore: self, permits })
    }

    /// Acquires a permit as [`try_acquire`](Self::try_acquire) does; the permit takes the handle with it.
    ///
    /// # Errors
    ///
    /// As for [`try_acquire`](Self::try_acquire). The handle is dropped then.
    pub fn try_acquire_owned(self) -> Result<OwnedPermit, TryAcquireError> {
        self.try_acquire_many_owned(1)
    }

    /// Acquires so many permits as [`try_acquire_many`](Self::try_acquire_many) does; they take the handle with them.
    ///
    /// # Errors
    ///
    /// As for [`try_acquire_many`](Self::try_acquire_many). The handle is dropped then.
    pub fn try_acquire_many_owned(self, permits: u32) -> Result<OwnedPermit, TryAcquireError> {
        // Its drop would give them back a second time.
        std::mem::forget(self.try_acquire_many(permits)?);
        Ok(OwnedPermit { semaphore: self, permits })
    }

    /// Acquires a permit, blocking the thread until there is one.
    ///
    /// # Errors
    ///
    /// As for [`acquire`](Self::acquire).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    #[track_caller]
    pub fn blocking_acquire(&self) -> Result<Permit<'_>, AcquireError> {
        block_on(self.acquire())
    }

    /// Acquires so many permits as [`acquire_many`](Self::acquire_many) does, blocking the thread until there are.
    ///
    /// # Errors
    ///
    /// As for [`acquire_many`](Self::acquire_many).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let jobs = segment.semaphore("jobs").permits(3).open()?;
    /// assert_eq!(jobs.blocking_acquire_many(2)?.num_permits(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_acquire_many(&self, permits: u32) -> Result<Permit<'_>, AcquireError> {
        block_on(self.acquire_many(permits))
    }

    /// Acquires a permit as [`acquire_owned`](Self::acquire_owned) does, blocking the thread until there is one.
    ///
    /// # Errors
    ///
    /// As for [`acquire_owned`](Self::acquire_owned).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let jobs = segment.semaphore("jobs").permits(3).open()?;
    /// let permit = jobs.clone().blocking_acquire_owned()?;
    /// std::thread::spawn(move || drop(permit)).join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_acquire_owned(self) -> Result<OwnedPermit, AcquireError> {
        block_on(self.acquire_owned())
    }

    /// Acquires so many permits as [`acquire_many_owned`](Self::acquire_many_owned) does, blocking the thread until there are.
    ///
    /// # Errors
    ///
    /// As for [`acquire_many_owned`](Self::acquire_many_owned).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let jobs = segment.semaphore("jobs").permits(3).open()?;
    /// assert_eq!(jobs.blocking_acquire_many_owned(2)?.num_permits(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_acquire_many_owned(self, permits: u32) -> Result<OwnedPermit, AcquireError> {
        block_on(self.acquire_many_owned(permits))
    }

    /// Acquires a permit, waiting for at most `time`. Needs no runtime.
    ///
    /// # Errors
    ///
    /// [`AcquireTimeoutError`].
    ///
    /// # Cancel safety
    ///
    /// As for [`acquire`](Self::acquire).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use waterway::semaphore::AcquireTimeoutError;
    ///
    /// # smol::block_on(async {
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let lock = segment.semaphore("lock").open()?;
    /// let held = lock.acquire_timeout(Duration::from_millis(10)).await?;
    /// let refused = lock.acquire_timeout(Duration::from_millis(10)).await.unwrap_err();
    /// assert_eq!(refused, AcquireTimeoutError::Timeout);
    /// # drop(held);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn acquire_timeout(&self, time: Duration) -> Result<Permit<'_>, AcquireTimeoutError> {
        self.acquire_many_timeout(1, time).await
    }

    /// Acquires so many permits as [`acquire_many`](Self::acquire_many) does, waiting for at most `time`. Needs no runtime.
    ///
    /// # Errors
    ///
    /// [`AcquireTimeoutError`].
    ///
    /// # Cancel safety
    ///
    /// As for [`acquire`](Self::acquire).
    ///
    /// # Examples
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let jobs = segment.semaphore("jobs").permits(3).open()?;
    /// let three = jobs.acquire_many_timeout(3, std::time::Duration::from_secs(1)).await?;
    /// assert_eq!(three.num_permits(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn acquire_many_timeout(&self, permits: u32, time: Duration) -> Result<Permit<'_>, AcquireTimeoutError> {
        match timeout(self.port.attachment(), time, self.acquire_many(permits)).await {
            Some(outcome) => outcome.map_err(Into::into),
            None => Err(AcquireTimeoutError::Timeout),
        }
    }

    /// Acquires a permit, blocking the thread for at most `time`. Needs no runtime, and no other thread.
    ///
    /// # Errors
    ///
    /// [`AcquireTimeoutError`].
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let jobs = segment.semaphore("jobs").permits(3).open()?;
    /// let time = Duration::from_millis(10);
    /// let permit = jobs.blocking_acquire_timeout(time)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_acquire_timeout(&self, time: Duration) -> Result<Permit<'_>, AcquireTimeoutError> {
        block_on(self.acquire_timeout(time))
    }

    /// Acquires so many permits as [`acquire_many`](Self::acquire_many) does, blocking the thread for at most `time`. Needs no runtime, and
    /// no other thread.
    ///
    /// # Errors
    ///
    /// [`AcquireTimeoutError`].
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let jobs = segment.semaphore("jobs").permits(3).open()?;
    /// let time = Duration::from_millis(10);
    /// let permit = jobs.blocking_acquire()?;
    /// assert!(jobs.blocking_acquire_many_timeout(3, time).is_err());
    /// drop(permit);
    /// assert!(jobs.blocking_acquire_many_timeout(3, time).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_acquire_many_timeout(
        &self,
        permits: u32,
        time: Duration,
    ) -> Result<Permit<'_>, AcquireTimeoutError> {
        block_on(self.acquire_many_timeout(permits, time))
    }

    /// Permits that are free now. What others wait for in the line is not free.
    pub fn available_permits(&self) -> usize {
        self.port.room().min(self.max_permits())
    }

    /// Permits that there are, free or held: those that it was made with, and what was [added](Self::add_permits), without what was
    /// forgotten.
    pub fn max_permits(&self) -> usize {
        self.port.permits()
    }

    /// Adds so many permits, and wakes who waits for them. They stay, whatever becomes of this process.
    ///
    /// Gives how many were added: fewer if there would be more than [`MAX_PERMITS`](Self::MAX_PERMITS).
    pub fn add_permits(&self, permits: usize) -> usize {
        self.port.gain(permits)
    }

    /// Takes so many free permits away for good, or fewer if there are fewer, and gives how many. Lock-free.
    ///
    /// They stay away when this process dies; [`add_permits`](Self::add_permits) brings them back. Who waits for more than there are
    /// left, and than the semaphore was made with, is told [`AcquireError::TooMany`]. A closed semaphore forgets, too.
    pub fn forget_permits(&self, permits: usize) -> usize {
        let mut wanted = permits.min(self.available_permits());
        while wanted > 0 && !self.port.forget_free(&self.position, wanted as u32) {
            // Somebody was quicker.
            wanted = (wanted - 1).min(self.available_permits());
        }
        wanted
    }

    /// Closes the semaphore, for all processes and for good: nobody gets permits any more, and whoever waits is told. Those
    /// that are held stay valid. When all handles are gone, a new semaphore of that name can be opened.
    pub fn close(&self) {
        self.port.close();
    }

    /// Whether the semaphore was closed; in a forked child, always.
    pub fn is_closed(&self) -> bool {
        self.port.is_closed_for_senders()
    }

    /// Whether both are handles of the same semaphore, through the same [`Segment`](crate::Segment).
    pub fn same_semaphore(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.port, &other.port)
    }
}

impl Clone for Semaphore {
    fn clone(&self) -> Self {
        self.port.duplicate(End::Sender);
        Self { port: Arc::clone(&self.port), position: self.position.clone() }
    }
}

impl Drop for Semaphore {
    fn drop(&mut self) {
        self.port.leave(End::Sender);
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").field("channel", &self.port.index()).finish_non_exhaustive()
    }
}

// As for senders: a port has no invariant that a panic could break.
impl UnwindSafe for Semaphore {}
impl RefUnwindSafe for Semaphore {}

/// Permits of a [`Semaphore`]. Dropping it gives them back, and wakes who waits.
///
/// Made by [`Semaphore::acquire`] and its kin. Leaked, they come back when the process has no handle of the semaphore any
/// more.
#[must_use = "permits that are dropped are given back"]
pub struct Permit<'a> {
    semaphore: &'a Semaphore,
    permits: u32,
}

/// Permits that have a [`Semaphore`] of their own, and so can go anywhere.
///
/// Made by [`Semaphore::acquire_owned`] and its kin.
#[must_use = "permits that are dropped are given back"]
pub struct OwnedPermit {
    semaphore: Semaphore,
    permits: u32,
}

macro_rules! permits_of_a_semaphore {
    ($permit:ty, $name:literal, $handle:ident, $taken:expr) => {
        impl $permit {
            /// Takes over the permits of another one.
            ///
            /// # Panics
            ///
            /// If they are of different semaphores.
            #[track_caller]
            pub fn merge(&mut self, mut other: Self) {
                assert!(self.semaphore.same_semaphore(&other.semaphore), "merged permits of different semaphores");
                self.permits += std::mem::take(&mut other.permits);
            }

            /// Splits so many off; `None` if there are not so many.
            pub fn split(&mut self, permits: usize) -> Option<Self> {
                let permits = u32::try_from(permits).ok()?;
                self.permits = self.permits.checked_sub(permits)?;
                let $handle = &self.semaphore;
                Some(Self { semaphore: $taken, permits })
            }

            /// Drops it without giving the permits back: the semaphore has so many fewer from now on, also when this process has
            /// died. [`Semaphore::add_permits`] brings them back.
            pub fn forget(mut self) {
                self.semaphore.port.lose(std::mem::take(&mut self.permits));
            }

            /// How many there are.
            pub fn num_permits(&self) -> usize {
                self.permits as usize
            }
        }

        impl Drop for $permit {
            fn drop(&mut self) {
                self.semaphore.port.uncount(self.permits);
            }
        }

        impl fmt::Debug for $permit {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct($name).field("permits", &self.permits).finish_non_exhaustive()
            }
        }
    };
}

permits_of_a_semaphore!(Permit<'_>, "Permit", semaphore, semaphore);
permits_of_a_semaphore!(OwnedPermit, "OwnedPermit", semaphore, semaphore.clone());

impl OwnedPermit {
    /// The semaphore.
    pub fn semaphore(&self) -> &Semaphore {
        &self.semaphore
    }
}
