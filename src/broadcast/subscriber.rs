//! The subscribing end.

use std::{
    fmt,
    marker::PhantomData,
    panic::{RefUnwindSafe, UnwindSafe},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;

use crate::{
    attachment::groups::{GroupEnd, Missing},
    broadcast::{
        Published,
        error::{RecvError, RecvTimeoutError, TryRecvError},
    },
    channel::{Patience, Payload, WaitStrategy, poll::Place, timeout, wait::block_on},
    wake::budget::charge_budget,
};

/// A member of a group that receives a broadcast: a [`tokio::sync::broadcast::Receiver`][tokio] between processes, of which
/// several can share the work.
///
/// Made by [`Options::subscriber`](crate::broadcast::Options::subscriber), as a group of its own, and by
/// [`GroupOptions::subscriber`](crate::broadcast::GroupOptions::subscriber). Clones are further members of the same group. A group begins
/// with what is published after its first member has come, and the [history](crate::broadcast::GroupOptions::history) that it asks for.
///
/// [tokio]: https://docs.rs/tokio/latest/tokio/sync/broadcast/struct.Receiver.html
pub struct Subscriber<T: Payload + ?Sized> {
    group: GroupEnd,
    patience: Patience,
    strategy: WaitStrategy,
    payload: PhantomData<fn() -> Box<T>>,
}

impl<T: Payload + ?Sized> Subscriber<T> {
    pub(super) fn new(group: GroupEnd, strategy: WaitStrategy) -> Self {
        Self { group, patience: Patience::new(strategy), strategy, payload: PhantomData }
    }

    /// One attempt: `Err` if there is nothing now.
    fn attempt(&self) -> Result<Result<Published<T>, RecvError>, ()> {
        match Published::receive(&self.group) {
            Ok(message) => Ok(Ok(message)),
            Err(Missing::Empty) => Err(()),
            Err(Missing::Closed) => Ok(Err(RecvError::Closed)),
            Err(Missing::Lagged(missed)) => Ok(Err(RecvError::Lagged(missed))),
            Err(Missing::Evicted) => Ok(Err(RecvError::Evicted)),
        }
    }

    /// Receives the next message of the group, waiting for it without polling.
    ///
    /// # Errors
    ///
    /// [`RecvError`]: that there will be no more; or, once, that the group has missed some.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: if the future is dropped before it is done, no message was taken.
    pub async fn recv(&self) -> Result<Published<T>, RecvError> {
        charge_budget().await;
        if let Ok(outcome) = self.attempt() {
            return outcome;
        }
        let spell = match self.patience.attempt(|| self.attempt().ok()).await {
            Ok(outcome) => return outcome,
            Err(spell) => spell,
        };
        loop {
            let mut waiter = self.group.port.wait_for_message();
            // The place is taken: what was published before is seen now, and what is published from now on wakes us.
            let mut outcome = self.attempt();
            if outcome.is_err() {
                (&mut waiter).await;
                outcome = self.attempt();
            }
            if let Ok(outcome) = outcome {
                if outcome.is_ok() {
                    // The receive has passed the wake on, if there is more.
                    waiter.finish();
                    spell.end(&self.patience, true);
                }
                return outcome;
            }
        }
    }

    /// Receives the next message of the group if there is one now. Lock-free, and makes no system call unless somebody must be
    /// woken.
    ///
    /// # Errors
    ///
    /// [`TryRecvError`].
    pub fn try_recv(&self) -> Result<Published<T>, TryRecvError> {
        match self.attempt() {
            Ok(outcome) => outcome.map_err(Into::into),
            Err(()) => Err(TryRecvError::Empty),
        }
    }

    /// Receives the next message of the group, waiting for at most `time`. Needs no runtime.
    ///
    /// # Errors
    ///
    /// [`RecvTimeoutError`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe, as [`recv`](Self::recv).
    pub async fn recv_timeout(&self, time: Duration) -> Result<Published<T>, RecvTimeoutError> {
        match timeout(self.group.port.attachment(), time, self.recv()).await {
            Some(outcome) => outcome.map_err(Into::into),
            None => Err(RecvTimeoutError::Timeout),
        }
    }

    /// Receives the next message of the group, blocking the thread until there is one.
    ///
    /// # Errors
    ///
    /// As for [`recv`](Self::recv).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    #[track_caller]
    pub fn blocking_recv(&self) -> Result<Published<T>, RecvError> {
        block_on(self.recv())
    }

    /// Receives the next message of the group, blocking the thread for at most `time`. Needs no runtime, and no other thread.
    ///
    /// # Errors
    ///
    /// As for [`recv_timeout`](Self::recv_timeout).
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
    /// let (publisher, subscriber) = segment.broadcast::<u64>("numbers").open()?;
    /// publisher.blocking_send(1)?;
    /// assert_eq!(*subscriber.blocking_recv_timeout(Duration::from_millis(10))?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_recv_timeout(&self, time: Duration) -> Result<Published<T>, RecvTimeoutError> {
        block_on(self.recv_timeout(time))
    }

    /// The subscriber as a [`Stream`]. It ends when the broadcast is closed or the group put out; what was missed comes as an
    /// error in between.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::TryStreamExt;
    ///
    /// # smol::block_on(async {
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let (publisher, subscriber) = segment.broadcast::<u64>("numbers").open()?;
    /// publisher.send(1).await?;
    /// publisher.send(2).await?;
    /// drop(publisher);
    /// let sum = subscriber.into_stream().try_fold(0, async |sum, message| Ok(sum + *message)).await?;
    /// assert_eq!(sum, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn into_stream(self) -> SubscriberStream<T> {
        SubscriberStream { place: Place::default(), subscriber: self }
    }

    /// Messages that wait for the group. Not those that it has missed, which tokio counts until it is told of them.
    pub fn len(&self) -> usize {
        self.group.waiting() as usize
    }

    /// Whether no message waits for the group.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many messages the group was given as often as it may be, and were dropped.
    pub fn discarded(&self) -> u64 {
        self.group.discarded()
    }

    /// How many messages were dropped, by any group, because their bytes were not what a publisher of this type writes. Anything
    /// but 0 means that somebody has overwritten memory that is not theirs.
    pub fn invalid(&self) -> u64 {
        self.group.topic().port.invalid()
    }

    /// Whether all publishers have left. Some messages may still wait.
    ///
    /// A broadcast to which no publisher has come yet is not closed.
    pub fn is_closed(&self) -> bool {
        self.group.topic().port.is_closed_for_receivers()
    }

    /// Whether both are members of the same group, through the same [`Segment`](crate::Segment).
    pub fn same_group(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.group.port, &other.group.port)
    }
}

impl<T: Payload + ?Sized> Clone for Subscriber<T> {
    fn clone(&self) -> Self {
        Self::new(self.group.another(), self.strategy)
    }
}

impl<T: Payload + ?Sized> fmt::Debug for Subscriber<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("group", &self.group.port.index()).finish_non_exhaustive()
    }
}

/// A subscriber as a [`Stream`], made by [`Subscriber::into_stream`].
pub struct SubscriberStream<T: Payload + ?Sized> {
    /// Before the subscriber, so that it is dropped before it: it looks into the segment.
    place: Place<()>,
    subscriber: Subscriber<T>,
}

impl<T: Payload + ?Sized> SubscriberStream<T> {
    /// The subscriber.
    pub fn subscriber(&self) -> &Subscriber<T> {
        &self.subscriber
    }

    /// The subscriber back. Nothing is lost.
    pub fn into_inner(self) -> Subscriber<T> {
        self.subscriber
    }
}

impl<T: Payload + ?Sized> Stream for SubscriberStream<T> {
    type Item = Result<Published<T>, RecvError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { place, subscriber } = &mut *self;
        let patience = Some(&subscriber.patience);
        place.poll(context, patience, || subscriber.attempt(), |()| subscriber.group.port.wait_for_message()).map(
            |outcome| match outcome {
                Err(RecvError::Closed | RecvError::Evicted) => None,
                outcome => Some(outcome),
            },
        )
    }
}

impl<T: Payload + ?Sized> fmt::Debug for SubscriberStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriberStream").field("subscriber", &self.subscriber).finish_non_exhaustive()
    }
}

// As for receivers of channels: what a panic finds half-done is nothing.
impl<T: Payload + ?Sized> UnwindSafe for Subscriber<T> {}
impl<T: Payload + ?Sized> RefUnwindSafe for Subscriber<T> {}
impl<T: Payload + ?Sized> UnwindSafe for SubscriberStream<T> {}
impl<T: Payload + ?Sized> RefUnwindSafe for SubscriberStream<T> {}
