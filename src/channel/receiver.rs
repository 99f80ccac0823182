//! The receiving end.

use std::{
    fmt,
    marker::PhantomData,
    mem::take,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::Arc,
    time::Duration,
};

use crate::{
    attachment::{
        directory::End,
        port::{Nothing, Port},
    },
    channel::{
        at_once::{Operation, at_once},
        error::{RecvTimeoutError, TryRecvError},
        message::Message,
        payload::Payload,
        poll::Place,
        wait::{Patience, WaitStrategy, block_on, timeout},
    },
    observe::MessageSpan,
    ring::Position,
    sys::held::Mutex,
};

/// One receive.
struct OneReceive<'a, T: Payload + ?Sized> {
    receiver: &'a Receiver<T>,
    span: MessageSpan,
}

impl<T: Payload + ?Sized> Operation for OneReceive<'_, T> {
    type Output = Option<Message<T>>;

    #[inline(always)]
    fn attempt(self) -> Result<Option<Message<T>>, Self> {
        let entered = self.span.enter();
        let message = self.receiver.attempt_at_hand::<false>();
        drop(entered);
        match message {
            Some(message) => Ok(Some(message)),
            None => Err(self),
        }
    }
}

/// Receives messages from a channel, in the order in which they were sent; each goes to exactly one receiver of all
/// processes.
///
/// Made by [`ChannelOptions::receiver`](crate::ChannelOptions::receiver). Clones are further receivers; senders get an
/// error when the last one of all processes has gone.
pub struct Receiver<T: Payload + ?Sized> {
    /// Where `poll_recv` waits. It goes before the end does.
    pub(super) polled: Mutex<Place<()>>,
    pub(crate) port: Arc<Port>,
    pub(crate) position: Position,
    pub(super) patience: Patience,
    strategy: WaitStrategy,
    payload: PhantomData<fn() -> Box<T>>,
}

impl<T: Payload + ?Sized> Receiver<T> {
    /// Takes over an end that has been entered.
    pub(crate) fn new(port: Arc<Port>, strategy: WaitStrategy) -> Self {
        Self {
            polled: Mutex::default(),
            position: port.start(End::Receiver),
            port,
            patience: Patience::new(strategy),
            strategy,
            payload: PhantomData,
        }
    }

    /// One attempt. In the common case a message is built where it is used, from values in registers.
    #[inline(always)]
    pub(crate) fn attempt(&self) -> Result<Message<T>, Nothing> {
        if let Some(message) = self.attempt_at_hand::<false>() {
            return Ok(message);
        }
        match self.attempt_slowly() {
            Ok(message) => Ok(message.apart()),
            Err(nothing) => Err(nothing),
        }
    }

    #[inline(always)]
    pub(super) fn attempt_at_hand<const IN_RUN: bool>(&self) -> Option<Message<T>> {
        Message::arrive(&self.port, self.port.receive_at_hand::<IN_RUN>(&self.position)?)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn attempt_slowly(&self) -> Result<Message<T>, Nothing> {
        loop {
            let received = self.port.try_receive(&self.position)?;
            if let Some(message) = Message::arrive(&self.port, received) {
                return Ok(message);
            }
        }
    }

    /// Receives the next message, waiting for it without polling. `None` if the channel is empty and no sender is left,
    /// or it was closed. If no sender has come yet, it waits for one.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: if the future is dropped before it is done, no message was taken. In `tokio::select!` a branch that
    /// is not taken loses nothing.
    pub fn recv(&self) -> impl Future<Output = Option<Message<T>>> {
        at_once(OneReceive { receiver: self, span: self.span() }, |receive| receive.span.around(self.wait()))
    }

    /// Of one receive.
    #[inline(always)]
    fn span(&self) -> MessageSpan {
        self.port.meters().receiving(self.port.attachment().region())
    }

    /// Receives the next message, if it is not at hand. The budget is charged.
    async fn wait(&self) -> Option<Message<T>> {
        match self.attempt_slowly() {
            Ok(message) => return Some(message),
            Err(Nothing::Disconnected) => return None,
            Err(Nothing::Empty) => {}
        }
        self.patience.gather(self.position.get(), |messages| self.port.is_filled(&self.position, messages));
        // `Patience::attempt`, written out: in a future of its own it costs a hot round trip 5 % more.
        let spell = self.patience.begin();
        while spell.goes_on().await {
            match self.attempt() {
                Ok(message) => {
                    spell.end(&self.patience, false);
                    return Some(message);
                }
                Err(Nothing::Disconnected) => return None,
                Err(Nothing::Empty) => {}
            }
        }
        loop {
            let mut waiter = self.port.wait_for_message();
            // The place is taken: what was sent before is seen now, and what is sent from now on wakes us.
            let mut outcome = self.attempt();
            if let Err(Nothing::Empty) = outcome {
                (&mut waiter).await;
                outcome = self.attempt();
            }
            match outcome {
                Ok(message) => {
                    // The receive has passed the wake on, if there is more.
                    waiter.finish();
                    spell.end(&self.patience, true);
                    return Some(message);
                }
                Err(Nothing::Disconnected) => return None,
                Err(Nothing::Empty) => {}
            }
        }
    }

    /// Receives the next message if there is one now. Lock-free, and makes no system call unless somebody must be woken.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`] or [`TryRecvError::Disconnected`].
    #[inline(always)]
    pub fn try_recv(&self) -> Result<Message<T>, TryRecvError> {
        let span = self.span();
        let _entered = span.enter();
        self.attempt().map_err(|nothing| match nothing {
            Nothing::Empty => TryRecvError::Empty,
            Nothing::Disconnected => TryRecvError::Disconnected,
        })
    }

    /// Receives the next message, waiting for at most `time`. Needs no runtime.
    ///
    /// # Errors
    ///
    /// [`RecvTimeoutError::Timeout`] or [`RecvTimeoutError::Disconnected`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe, as [`recv`](Self::recv).
    pub async fn recv_timeout(&self, time: Duration) -> Result<Message<T>, RecvTimeoutError> {
        match timeout(self.port.attachment(), time, self.recv()).await {
            Some(Some(message)) => Ok(message),
            Some(None) => Err(RecvTimeoutError::Disconnected),
            None => Err(RecvTimeoutError::Timeout),
        }
    }

    /// Receives the next message, blocking the thread until there is one. `None` as for [`recv`](Self::recv).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    #[track_caller]
    pub fn blocking_recv(&self) -> Option<Message<T>> {
        block_on(self.recv())
    }

    /// Receives the next message, blocking the thread for at most `time`. Needs no runtime, and no other thread.
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
    /// let (sender, receiver) = segment.channel::<u64>("numbers").open()?;
    /// let time = Duration::from_millis(10);
    /// assert!(receiver.blocking_recv_timeout(time).is_err());
    /// sender.blocking_send(1)?;
    /// assert_eq!(*receiver.blocking_recv_timeout(time)?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_recv_timeout(&self, time: Duration) -> Result<Message<T>, RecvTimeoutError> {
        block_on(self.recv_timeout(time))
    }

    /// Closes the channel: nothing more can be sent, by anybody; what was sent can still be received.
    pub fn close(&self) {
        self.port.close();
    }

    /// Whether no more messages will be sent: the channel was closed, or all senders have left. Some may still wait.
    ///
    /// A channel to which no sender has come yet is not closed.
    pub fn is_closed(&self) -> bool {
        self.port.is_closed_for_receivers()
    }

    /// Messages that wait to be received.
    pub fn len(&self) -> usize {
        self.port.len()
    }

    /// Whether no message waits to be received.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Messages for which there is room now: as many as neither wait to be received nor are reserved by permits.
    pub fn capacity(&self) -> usize {
        self.port.room()
    }

    /// The most messages that may wait to be received.
    pub fn max_capacity(&self) -> usize {
        self.port.capacity()
    }

    /// How many messages of the channel were dropped, by any receiver, because their bytes were not what a sender of
    /// this type writes. Anything but 0 means that somebody has overwritten memory that is not theirs.
    pub fn invalid(&self) -> u64 {
        self.port.invalid()
    }

    /// How many messages of the channel were freed after their last delivery, because it has no channel for
    /// [dead letters](crate::channel::DeadLetter), or that one is closed; and of those that [expired](crate::policy::Retention::ttl) and should have
    /// become dead letters, how many found no place there. [`inquire`](Self::inquire) tells what else policies did.
    pub fn discarded(&self) -> u64 {
        self.port.discarded()
    }

    /// Whether both receive from the same channel.
    pub fn same_channel(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.port, &other.port)
    }
}

impl<T: Payload + ?Sized> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.port.duplicate(End::Receiver);
        Self {
            polled: Mutex::default(),
            port: Arc::clone(&self.port),
            position: self.position.clone(),
            patience: Patience::new(self.strategy),
            strategy: self.strategy,
            payload: PhantomData,
        }
    }
}

impl<T: Payload + ?Sized> Drop for Receiver<T> {
    fn drop(&mut self) {
        // First: the place in the queue is one in this channel, which may be another one's as soon as we have left.
        drop(take(self.polled.get_mut()));
        self.port.leave(End::Receiver);
    }
}

impl<T: Payload + ?Sized> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("channel", &self.port.index()).finish_non_exhaustive()
    }
}

// As for the sender; the place is only ever taken or put.
impl<T: Payload + ?Sized> UnwindSafe for Receiver<T> {}
impl<T: Payload + ?Sized> RefUnwindSafe for Receiver<T> {}
