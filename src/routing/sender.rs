//! The sending end of a routed channel.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::Poll,
    time::Duration,
};

use crate::{
    channel::{
        self, Codec, Coded, Patience, Payload, Plain, SendError, SendErrorKind, SendTimeoutError, Sendable,
        TrySendError, Wait, WaitStrategy, refusal, timeout, wait::block_on,
    },
    policy::{Policy, RouteKey},
    routing::tenure::{Ends, Head},
    wake::{Waiter, budget::charge_budget},
};

/// Sends messages into a [routed channel](crate::routing::Options), from any number of tasks, threads and processes.
///
/// Messages of the same key from one sender keep their order. Those without a key go to the partitions in turn, past those
/// that are full; where all are, they wait for room in any of them.
pub struct Sender<T: Payload + ?Sized> {
    // In this order: receivers are told when the ends have gone.
    senders: Ends<channel::Sender<T>>,
    farewell: Farewell,
    /// Where the next message without a key goes.
    next: AtomicUsize,
    /// For those without a key.
    patience: Patience,
    strategy: WaitStrategy,
}

/// Tells receivers that a sender has gone.
#[derive(Debug)]
struct Farewell(Head);

impl Drop for Farewell {
    fn drop(&mut self) {
        if self.0.is_usable() {
            self.0.tell();
        }
    }
}

impl<T: Payload + ?Sized> Sender<T> {
    pub(super) fn new(senders: Vec<channel::Sender<T>>, head: Head, strategy: WaitStrategy) -> Self {
        Self {
            senders: Ends::new(senders, head.clone()),
            farewell: Farewell(head),
            next: AtomicUsize::new(0),
            patience: Patience::new(strategy),
            strategy,
        }
    }

    /// The sender of the partition that a key belongs to.
    fn of(&self, key: RouteKey) -> Option<&channel::Sender<T>> {
        key.partition(self.senders.len()).map(|partition| &self.senders[partition])
    }

    /// The number of the partition at which the next message without a key begins.
    fn turn(&self) -> usize {
        // Ordering: Relaxed, any beginning is fine.
        self.next.fetch_add(1, Ordering::Relaxed) % self.senders.len()
    }

    /// One attempt to send a value that has no key, wherever there is room, beginning with partition `first`.
    fn attempt_anywhere<V: Sendable<T>>(&self, value: &V, first: usize) -> Result<(), Result<Wait, SendErrorKind>> {
        let len = value.block_len();
        let mut obstacle = Wait::Room;
        let (before, from) = self.senders.split_at(first);
        for sender in from.iter().chain(before) {
            match sender.attempt_value(value, len) {
                Err(Ok(Wait::Room)) => {}
                // There is room, but no memory.
                Err(Ok(wait)) => obstacle = wait,
                outcome => return outcome,
            }
        }
        Err(Ok(obstacle))
    }

    /// Sends a value that has no key as soon as there is room in some partition, and memory.
    async fn deliver_anywhere<V: Sendable<T>>(&self, value: &mut V) -> Result<(), SendErrorKind> {
        charge_budget().await;
        let (value, first) = (&*value, self.turn());
        let attempt = || self.attempt_anywhere(value, first);
        let mut outcome = attempt();
        let mut spell = None;
        if let Err(Ok(Wait::Room)) = outcome {
            let is_settled = |now: &Result<(), _>| !matches!(now, Err(Ok(Wait::Room)));
            match self.patience.attempt(|| Some(attempt()).filter(is_settled)).await {
                Ok(now) => outcome = now,
                Err(begun) => spell = Some(begun),
            }
        }
        loop {
            let wait = match outcome {
                Ok(()) => {
                    if let Some(spell) = spell {
                        spell.end(&self.patience, true);
                    }
                    return Ok(());
                }
                Err(Err(kind)) => return Err(kind),
                Err(Ok(wait)) => wait,
            };
            // Room in any of them will do; memory is the same for all.
            let places = if wait == Wait::Room { &self.senders[..] } else { &self.senders[..1] };
            let mut waiters: Vec<Waiter> = places.iter().map(|sender| sender.listen(wait)).collect();
            // The places are taken: what was freed before is seen now, and what is freed from now on wakes us.
            outcome = attempt();
            if matches!(outcome, Err(Ok(now)) if now == wait) {
                poll_fn(|context| {
                    let woken = waiters.iter_mut().any(|waiter| Pin::new(waiter).poll(context).is_ready());
                    if woken { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
                outcome = attempt();
            }
            // Those that were woken for nothing pass that on.
            drop(waiters);
        }
    }

    async fn send_keyed<V: Sendable<T>>(&self, key: RouteKey, mut value: V) -> Result<(), SendError<V>> {
        match self.of(key) {
            Some(sender) => sender.send_value(value).await,
            None => self.deliver_anywhere(&mut value).await.map_err(|kind| SendError(value, kind)),
        }
    }

    fn try_send_keyed<V: Sendable<T>>(&self, key: RouteKey, value: V) -> Result<(), TrySendError<V>> {
        match self.of(key) {
            Some(sender) => sender.try_send_value(value),
            None => self.attempt_anywhere(&value, self.turn()).map_err(|refused| refusal(value, refused)),
        }
    }

    async fn send_keyed_within<V: Sendable<T>>(
        &self,
        key: RouteKey,
        mut value: V,
        time: Duration,
    ) -> Result<(), SendTimeoutError<V>> {
        match self.of(key) {
            Some(sender) => sender.send_value_within(value, time).await,
            None => match timeout(self.senders[0].port.attachment(), time, self.deliver_anywhere(&mut value)).await {
                Some(Ok(())) => Ok(()),
                Some(Err(kind)) => Err(SendError(value, kind).into()),
                None => Err(SendTimeoutError::Timeout(value)),
            },
        }
    }

    /// How many partitions there are.
    pub fn partition_count(&self) -> usize {
        self.senders.len()
    }

    /// The partition that a key belongs to; `None` for no key.
    pub fn partition_of(&self, key: RouteKey) -> Option<usize> {
        key.partition(self.senders.len())
    }

    /// Whether all receivers have left, or one has closed the channel: sending fails from now on.
    pub fn is_closed(&self) -> bool {
        self.senders.iter().any(channel::Sender::is_closed)
    }

    /// Messages that wait to be received, in all partitions.
    pub fn len(&self) -> usize {
        self.senders.iter().map(channel::Sender::len).sum()
    }

    /// Whether no message waits to be received.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

macro_rules! sends_by_policy {
    () => {
        /// Sends a value to where its [key](Policy::route) belongs, waiting for room there and for memory.
        ///
        /// # Errors
        ///
        /// [`SendError`] with the value, at once: if the channel is closed, or if the value can never be sent.
        ///
        /// # Cancel safety
        ///
        /// If the future is dropped before it is done, the message has not been sent, and the value is lost.
        #[must_use = "nothing is sent before this is awaited: `try_send` sends at once"]
        pub fn send(&self, value: T) -> impl Future<Output = Result<(), SendError<T>>> {
            self.send_keyed(value.route(), value)
        }

        /// Sends a value if there is room and memory now, for its key.
        ///
        /// # Errors
        ///
        /// [`TrySendError`] with the value.
        pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
            self.try_send_keyed(value.route(), value)
        }

        /// Sends a value, waiting for at most `time`. Needs no runtime.
        ///
        /// # Errors
        ///
        /// [`SendTimeoutError`] with the value.
        ///
        /// # Cancel safety
        ///
        /// As for [`send`](Self::send).
        pub async fn send_timeout(&self, value: T, time: Duration) -> Result<(), SendTimeoutError<T>> {
            self.send_keyed_within(value.route(), value, time).await
        }

        /// Sends a value, blocking the thread until it is sent.
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
        pub fn blocking_send(&self, value: T) -> Result<(), SendError<T>> {
            block_on(self.send(value))
        }

        /// Sends a value, blocking the thread until it is sent, for at most `time`. Needs no runtime, and no other thread.
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
        pub fn blocking_send_timeout(&self, value: T, time: Duration) -> Result<(), SendTimeoutError<T>> {
            block_on(self.send_timeout(value, time))
        }
    };
}

impl<T: Plain + Policy> Sender<T> {
    sends_by_policy!();
}

impl<T: Policy + 'static, C: Codec<T>> Sender<Coded<T, C>> {
    sends_by_policy!();
}

impl<T: Plain> Sender<[T]> {
    /// Sends a slice to where a key belongs, waiting for room there and for memory.
    ///
    /// # Errors
    ///
    /// [`SendError`] with what was given, at once: if the channel is closed, or if that many can never fit.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, the message has not been sent.
    #[must_use = "nothing is sent before this is awaited: `try_send` sends at once"]
    pub fn send<B: AsRef<[T]>>(
        &self,
        key: impl Into<RouteKey>,
        values: B,
    ) -> impl Future<Output = Result<(), SendError<B>>> {
        self.send_keyed(key.into(), values)
    }

    /// Sends a slice if there is room and memory now, for its key.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with what was given.
    pub fn try_send<B: AsRef<[T]>>(&self, key: impl Into<RouteKey>, values: B) -> Result<(), TrySendError<B>> {
        self.try_send_keyed(key.into(), values)
    }

    /// Sends a slice, waiting for at most `time`. Needs no runtime.
    ///
    /// # Errors
    ///
    /// [`SendTimeoutError`] with what was given.
    ///
    /// # Cancel safety
    ///
    /// As for [`send`](Self::send).
    pub async fn send_timeout<B: AsRef<[T]>>(
        &self,
        key: impl Into<RouteKey>,
        values: B,
        time: Duration,
    ) -> Result<(), SendTimeoutError<B>> {
        self.send_keyed_within(key.into(), values, time).await
    }

    /// Sends a slice, blocking the thread until it is sent.
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
    pub fn blocking_send<B: AsRef<[T]>>(&self, key: impl Into<RouteKey>, values: B) -> Result<(), SendError<B>> {
        block_on(self.send(key, values))
    }

    /// Sends a slice, blocking the thread until it is sent, for at most `time`. Needs no runtime, and no other thread.
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
    /// let (sender, receiver) = segment.bytes("lines").routed().capacity(1).open()?;
    /// let time = Duration::from_millis(10);
    /// sender.blocking_send_timeout("key", "one", time)?;
    /// assert!(sender.blocking_send_timeout("key", "two", time).unwrap_err().is_timeout());
    /// assert_eq!(receiver.blocking_recv_timeout(time)?[..], *b"one");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_send_timeout<B: AsRef<[T]>>(
        &self,
        key: impl Into<RouteKey>,
        values: B,
        time: Duration,
    ) -> Result<(), SendTimeoutError<B>> {
        block_on(self.send_timeout(key, values, time))
    }
}

impl<T: Payload + ?Sized> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self::new(self.senders.to_vec(), self.farewell.0.clone(), self.strategy)
    }
}

impl<T: Payload + ?Sized> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("partitions", &self.senders.len()).finish_non_exhaustive()
    }
}
