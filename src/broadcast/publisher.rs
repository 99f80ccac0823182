//! The publishing end.

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::Arc,
    time::Duration,
};

use crate::{
    SendError, TrySendError,
    attachment::{
        directory::End,
        groups::{TopicEnd, Unpublished},
    },
    channel::{
        Codec, Coded, Payload, Plain, SendErrorKind, SendTimeoutError, Sendable, Wait, refusal, timeout,
        wait::{Patience, WaitStrategy, block_on},
    },
    ring::Position,
    wake::budget::charge_budget,
};

/// Publishes messages, from any number of tasks, threads and processes, to all groups of a broadcast: a
/// [`tokio::sync::broadcast::Sender`][tokio] between processes.
///
/// Made by [`Options::publisher`](crate::broadcast::Options::publisher). Clones are further publishers; subscribers get
/// [`Closed`](crate::broadcast::RecvError::Closed) when the last one of all processes has gone.
///
/// Publishing says how many groups will see the message. If there are none, that is 0, and no error; nothing is kept
/// then but the [history](crate::broadcast::Options::history).
///
/// # What is promised
///
/// * All groups see the messages in one order, the order of their numbers. A payload is written once, however many groups
///   there are, and freed when the last of them is done with it.
/// * A publisher that is killed, at whatever instruction, has published its message to all groups or to none.
/// * Publishing waits for groups that [block](crate::broadcast::Behind::Block), and for memory; never for those that lag, nor for whoever
///   holds a message in his hands, whether stopped, slow or dead.
///
/// [tokio]: https://docs.rs/tokio/latest/tokio/sync/broadcast/struct.Sender.html
pub struct Publisher<T: Payload + ?Sized> {
    topic: Arc<TopicEnd>,
    position: Position,
    patience: Patience,
    strategy: WaitStrategy,
    payload: PhantomData<fn(&T)>,
}

/// What keeps a message from being published now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    /// A group is behind, and will be put out after so much time, if that is how it is.
    Behind(Option<Duration>),
    Memory,
}

/// Whether it may take only moments until there is room.
fn is_behind(outcome: &Result<usize, Result<Obstacle, SendErrorKind>>) -> bool {
    matches!(outcome, Err(Ok(Obstacle::Behind(_))))
}

impl<T: Payload + ?Sized> Publisher<T> {
    /// Takes over an end that has been entered.
    pub(super) fn new(topic: Arc<TopicEnd>, strategy: WaitStrategy) -> Self {
        let position = topic.port.start(End::Sender);
        Self { position, topic, patience: Patience::new(strategy), strategy, payload: PhantomData }
    }

    /// One attempt. The kind of an error says whether it is final.
    fn attempt<V: Sendable<T>>(&self, value: &V) -> Result<usize, Result<Obstacle, SendErrorKind>> {
        let len = value.block_len().ok_or(Err(SendErrorKind::NotEncodable))?;
        let published = self.topic.port.try_publish(&self.position, len, value.block_align(), value.writer());
        published.map_err(|unpublished| match unpublished {
            Unpublished::Behind(left) => Ok(Obstacle::Behind(left)),
            Unpublished::Refused(refused) => Wait::sort(refused).map(|_| Obstacle::Memory),
        })
    }

    /// Makes attempts until one succeeds or fails for good; waits in between.
    async fn deliver<V: Sendable<T>>(&self, value: &mut V) -> Result<usize, SendErrorKind> {
        charge_budget().await;
        let mut outcome = self.attempt(&*value);
        let mut spell = None;
        if is_behind(&outcome) {
            match self.patience.attempt(|| Some(self.attempt(&*value)).filter(|now| !is_behind(now))).await {
                Ok(now) => outcome = now,
                Err(begun) => spell = Some(begun),
            }
        }
        loop {
            let obstacle = match outcome {
                Ok(groups) => {
                    if let Some(spell) = spell {
                        spell.end(&self.patience, true);
                    }
                    return Ok(groups);
                }
                Err(Err(kind)) => return Err(kind),
                Err(Ok(obstacle)) => obstacle,
            };
            let port = &self.topic.port;
            let mut waiter = match obstacle {
                Obstacle::Behind(_) => port.wait_for_room(),
                Obstacle::Memory => port.attachment().wait_for_memory(),
            };
            // The place is taken: what happened before is seen now, and what happens from now on wakes us.
            outcome = self.attempt(&*value);
            match outcome {
                Err(Ok(Obstacle::Behind(None))) if obstacle != Obstacle::Memory => (&mut waiter).await,
                Err(Ok(Obstacle::Memory)) if obstacle == Obstacle::Memory => (&mut waiter).await,
                // Nobody wakes us when the time is over.
                Err(Ok(Obstacle::Behind(Some(left)))) if obstacle != Obstacle::Memory => {
                    timeout(self.topic.port.attachment(), left, &mut waiter).await;
                }
                // It is something else now that we lack, or nothing.
                _ => {
                    if outcome.is_ok() {
                        // The success has passed the wake on, if there is more room.
                        waiter.finish();
                    }
                    continue;
                }
            }
            outcome = self.attempt(&*value);
            if outcome.is_ok() {
                waiter.finish();
            }
        }
    }

    async fn send_value<V: Sendable<T>>(&self, mut value: V) -> Result<usize, SendError<V>> {
        match self.deliver(&mut value).await {
            Ok(groups) => Ok(groups),
            Err(kind) => Err(SendError(value, kind)),
        }
    }

    fn try_send_value<V: Sendable<T>>(&self, value: V) -> Result<usize, TrySendError<V>> {
        self.attempt(&value).map_err(|refused| {
            refusal(
                value,
                refused.map(|obstacle| match obstacle {
                    Obstacle::Behind(_) => Wait::Room,
                    Obstacle::Memory => Wait::Memory,
                }),
            )
        })
    }

    async fn send_value_within<V: Sendable<T>>(
        &self,
        mut value: V,
        time: Duration,
    ) -> Result<usize, SendTimeoutError<V>> {
        match timeout(self.topic.port.attachment(), time, self.deliver(&mut value)).await {
            Some(Ok(groups)) => Ok(groups),
            Some(Err(kind)) => Err(SendError(value, kind).into()),
            None => Err(SendTimeoutError::Timeout(value)),
        }
    }

    /// How many groups see what is published now.
    pub fn group_count(&self) -> usize {
        self.topic.port.groups()
    }

    /// Messages that a group may be behind.
    pub fn max_capacity(&self) -> usize {
        self.topic.port.depth() as usize
    }

    /// Whether both publish to the same broadcast, through the same [`Segment`](crate::Segment).
    pub fn same_channel(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.topic.port, &other.topic.port)
    }
}

impl<T: Plain> Publisher<T> {
    /// Publishes a value, waiting for groups that block and for memory in the segment. Returns how many groups will see it.
    ///
    /// # Errors
    ///
    /// [`SendError`] with what was given, at once, if it can never be published.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, nothing was published.
    #[must_use = "nothing is sent before this is awaited: `try_send` sends at once"]
    pub fn send(&self, value: T) -> impl Future<Output = Result<usize, SendError<T>>> {
        self.send_value(value)
    }

    /// The same if there is room and memory now. Lock-free, and makes no system call unless somebody must be woken.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with what was given.
    pub fn try_send(&self, value: T) -> Result<usize, TrySendError<T>> {
        self.try_send_value(value)
    }

    /// The same, waiting for room and memory for at most `time`. Needs no runtime.
    ///
    /// # Errors
    ///
    /// [`SendTimeoutError`] with what was given.
    ///
    /// # Cancel safety
    ///
    /// As for [`send`](Self::send).
    pub async fn send_timeout(&self, value: T, time: Duration) -> Result<usize, SendTimeoutError<T>> {
        self.send_value_within(value, time).await
    }

    /// The same, blocking the thread until there is room and memory.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    #[track_caller]
    pub fn blocking_send(&self, value: T) -> Result<usize, SendError<T>> {
        block_on(self.send_value(value))
    }

    /// The same, blocking the thread for at most `time`. Needs no runtime, and no other thread.
    ///
    /// # Errors
    ///
    /// As for [`send_timeout`](Self::send_timeout).
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
    /// let (publisher, subscriber) = segment.broadcast::<u64>("news").open()?;
    /// let time = Duration::from_millis(10);
    /// assert_eq!(publisher.blocking_send_timeout(1, time)?, 1);
    /// subscriber.blocking_recv_timeout(time)?;
    /// assert!(subscriber.blocking_recv_timeout(time).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_send_timeout(&self, value: T, time: Duration) -> Result<usize, SendTimeoutError<T>> {
        block_on(self.send_value_within(value, time))
    }
}

impl<T: Plain> Publisher<[T]> {
    /// Publishes a slice, waiting for groups that block and for memory in the segment. Returns how many groups will see it.
    ///
    /// # Errors
    ///
    /// [`SendError`] with what was given, at once, if it can never be published.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, nothing was published.
    #[must_use = "nothing is sent before this is awaited: `try_send` sends at once"]
    pub fn send<B: AsRef<[T]>>(&self, values: B) -> impl Future<Output = Result<usize, SendError<B>>> {
        self.send_value(values)
    }

    /// The same if there is room and memory now. Lock-free, and makes no system call unless somebody must be woken.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with what was given.
    pub fn try_send<B: AsRef<[T]>>(&self, values: B) -> Result<usize, TrySendError<B>> {
        self.try_send_value(values)
    }

    /// The same, waiting for room and memory for at most `time`. Needs no runtime.
    ///
    /// # Errors
    ///
    /// [`SendTimeoutError`] with what was given.
    ///
    /// # Cancel safety
    ///
    /// As for [`send`](Self::send).
    pub async fn send_timeout<B: AsRef<[T]>>(&self, values: B, time: Duration) -> Result<usize, SendTimeoutError<B>> {
        self.send_value_within(values, time).await
    }

    /// The same, blocking the thread until there is room and memory.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    #[track_caller]
    pub fn blocking_send<B: AsRef<[T]>>(&self, values: B) -> Result<usize, SendError<B>> {
        block_on(self.send_value(values))
    }

    /// The same, blocking the thread for at most `time`. Needs no runtime, and no other thread.
    ///
    /// # Errors
    ///
    /// As for [`send_timeout`](Self::send_timeout).
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
    /// let (publisher, subscriber) = segment.broadcast::<[u8]>("news").open()?;
    /// let time = Duration::from_millis(10);
    /// assert_eq!(publisher.blocking_send_timeout("one", time)?, 1);
    /// subscriber.blocking_recv_timeout(time)?;
    /// assert!(subscriber.blocking_recv_timeout(time).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_send_timeout<B: AsRef<[T]>>(
        &self,
        values: B,
        time: Duration,
    ) -> Result<usize, SendTimeoutError<B>> {
        block_on(self.send_value_within(values, time))
    }
}

impl<T: 'static, C: Codec<T>> Publisher<Coded<T, C>> {
    /// Encodes a value into the segment and publishes it, waiting for groups that block and for memory in the segment. Returns how many groups will see it.
    ///
    /// # Errors
    ///
    /// [`SendError`] with what was given, at once, if it can never be published, or encoded.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, nothing was published.
    #[must_use = "nothing is sent before this is awaited: `try_send` sends at once"]
    pub fn send(&self, value: T) -> impl Future<Output = Result<usize, SendError<T>>> {
        self.send_value(value)
    }

    /// The same if there is room and memory now. Lock-free, and makes no system call unless somebody must be woken.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with what was given.
    pub fn try_send(&self, value: T) -> Result<usize, TrySendError<T>> {
        self.try_send_value(value)
    }

    /// The same, waiting for room and memory for at most `time`. Needs no runtime.
    ///
    /// # Errors
    ///
    /// [`SendTimeoutError`] with what was given.
    ///
    /// # Cancel safety
    ///
    /// As for [`send`](Self::send).
    pub async fn send_timeout(&self, value: T, time: Duration) -> Result<usize, SendTimeoutError<T>> {
        self.send_value_within(value, time).await
    }

    /// The same, blocking the thread until there is room and memory.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    #[track_caller]
    pub fn blocking_send(&self, value: T) -> Result<usize, SendError<T>> {
        block_on(self.send_value(value))
    }

    /// The same, blocking the thread for at most `time`. Needs no runtime, and no other thread.
    ///
    /// # Errors
    ///
    /// As for [`send_timeout`](Self::send_timeout).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    #[track_caller]
    pub fn blocking_send_timeout(&self, value: T, time: Duration) -> Result<usize, SendTimeoutError<T>> {
        block_on(self.send_value_within(value, time))
    }
}

impl<T: Payload + ?Sized> Clone for Publisher<T> {
    fn clone(&self) -> Self {
        Self {
            topic: Arc::clone(&self.topic),
            position: self.position.clone(),
            patience: Patience::new(self.strategy),
            strategy: self.strategy,
            payload: PhantomData,
        }
    }
}

impl<T: Payload + ?Sized> fmt::Debug for Publisher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("channel", &self.topic.port.index()).finish_non_exhaustive()
    }
}

// As for senders of channels: what a panic finds half-done is nothing.
impl<T: Payload + ?Sized> UnwindSafe for Publisher<T> {}
impl<T: Payload + ?Sized> RefUnwindSafe for Publisher<T> {}
