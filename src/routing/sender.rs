//! The sending end of a routed channel.

use std::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use crate::{
    Policy, RouteKey,
    channel::{
        Codec, Coded, Payload, Plain, SendError, SendTimeoutError, Sendable, Sender, TrySendError, wait::block_on,
    },
    routing::tenure::Head,
};

/// Sends messages into a [routed channel](crate::RoutedOptions), from any number of tasks, threads and processes.
///
/// Messages of the same key from one sender keep their order. Those without a key go to the partitions in turn, past those
/// that are full.
pub struct RoutedSender<T: Payload + ?Sized> {
    // In this order: receivers are told when the ends have gone.
    senders: Box<[Sender<T>]>,
    farewell: Farewell,
    /// Where the next message without a key goes.
    next: AtomicUsize,
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

impl<T: Payload + ?Sized> RoutedSender<T> {
    pub(super) fn new(senders: Vec<Sender<T>>, head: Head) -> Self {
        Self { senders: senders.into(), farewell: Farewell(head), next: AtomicUsize::new(0) }
    }

    /// The sender of the partition that a value goes to. One without a key is sent, if there is room for it somewhere:
    /// then there is none left.
    fn choose<V: Sendable<T>>(&self, key: RouteKey, value: V) -> (&Sender<T>, Option<V>) {
        if let Some(partition) = key.partition(self.senders.len()) {
            return (&self.senders[partition], Some(value));
        }
        // Ordering: Relaxed, any beginning is fine.
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut value = value;
        for sender in (0..self.senders.len()).map(|ahead| self.sender(first.wrapping_add(ahead))) {
            value = match sender.try_send_value(value) {
                Ok(()) => return (sender, None),
                Err(error) => error.into_inner(),
            };
        }
        (self.sender(first), Some(value))
    }

    fn sender(&self, turn: usize) -> &Sender<T> {
        &self.senders[turn % self.senders.len()]
    }

    async fn send_keyed<V: Sendable<T>>(&self, key: RouteKey, value: V) -> Result<(), SendError<V>> {
        match self.choose(key, value) {
            (_, None) => Ok(()),
            (sender, Some(value)) => sender.send_value(value).await,
        }
    }

    fn try_send_keyed<V: Sendable<T>>(&self, key: RouteKey, value: V) -> Result<(), TrySendError<V>> {
        match self.choose(key, value) {
            (_, None) => Ok(()),
            (sender, Some(value)) => sender.try_send_value(value),
        }
    }

    async fn send_keyed_within<V: Sendable<T>>(
        &self,
        key: RouteKey,
        value: V,
        time: Duration,
    ) -> Result<(), SendTimeoutError<V>> {
        match self.choose(key, value) {
            (_, None) => Ok(()),
            (sender, Some(value)) => sender.send_value_within(value, time).await,
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
        self.senders.iter().any(Sender::is_closed)
    }

    /// Messages that wait to be received, in all partitions.
    pub fn len(&self) -> usize {
        self.senders.iter().map(Sender::len).sum()
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
        /// If called from a task of a tokio runtime, which it would stop.
        #[track_caller]
        pub fn blocking_send(&self, value: T) -> Result<(), SendError<T>> {
            block_on(self.send(value))
        }
    };
}

impl<T: Plain + Policy> RoutedSender<T> {
    sends_by_policy!();
}

impl<T: Policy + 'static, C: Codec<T>> RoutedSender<Coded<T, C>> {
    sends_by_policy!();
}

impl<T: Plain> RoutedSender<[T]> {
    /// Sends a slice to where a key belongs, waiting for room there and for memory.
    ///
    /// # Errors
    ///
    /// [`SendError`] with what was given, at once: if the channel is closed, or if that many can never fit.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, the message has not been sent.
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
    /// If called from a task of a tokio runtime, which it would stop.
    #[track_caller]
    pub fn blocking_send<B: AsRef<[T]>>(&self, key: impl Into<RouteKey>, values: B) -> Result<(), SendError<B>> {
        block_on(self.send(key, values))
    }
}

impl<T: Payload + ?Sized> Clone for RoutedSender<T> {
    fn clone(&self) -> Self {
        Self::new(self.senders.to_vec(), self.farewell.0.clone())
    }
}

impl<T: Payload + ?Sized> fmt::Debug for RoutedSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoutedSender").field("partitions", &self.senders.len()).finish_non_exhaustive()
    }
}
