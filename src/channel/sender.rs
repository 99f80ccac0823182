//! The sending end.

use std::{
    fmt,
    marker::PhantomData,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use crate::{
    alloc::AllocError,
    attachment::{
        directory::End,
        policies::Marks,
        port::{Port, Refused},
    },
    channel::{
        at_once::{Operation, at_once},
        error::{SendError, SendErrorKind, SendTimeoutError, TrySendError},
        payload::{Payload, Plain},
        poll::Place,
        sendable::Sendable,
        wait::{Patience, Timer, WaitStrategy, block_on, timeout},
    },
    observe::MessageSpan,
    policy::Rules,
    ring::Position,
    wake::{WATCHDOG, Waiter, budget::charge_budget},
};

/// Sends messages into a channel, from any number of tasks, threads and processes.
///
/// Made by [`ChannelOptions::sender`](crate::ChannelOptions::sender). Clones are further senders; the channel's receivers
/// get `None` when the last one of all processes has gone.
pub struct Sender<T: Payload + ?Sized> {
    pub(crate) port: Arc<Port>,
    pub(crate) position: Position,
    patience: Patience,
    strategy: WaitStrategy,
    rules: Option<Rules<T::Value>>,
    payload: PhantomData<fn(&T)>,
}

/// How long to wait before the next attempt to get many blocks, at first. It doubles with every one in vain.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// One send.
struct OneSend<'a, T: Payload + ?Sized, V> {
    sender: &'a Sender<T>,
    value: V,
    span: MessageSpan,
}

impl<T: Payload + ?Sized, V: Sendable<T>> Operation for OneSend<'_, T, V> {
    type Output = Result<(), SendError<V>>;

    #[inline(always)]
    fn attempt(self) -> Result<Self::Output, Self> {
        let entered = self.span.enter();
        let sent = self.sender.attempt_value(&self.value, self.value.block_len());
        drop(entered);
        // Whatever it is, who waits finds out.
        if sent.is_ok() { Ok(Ok(())) } else { Err(self) }
    }
}

/// What keeps a send from happening now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    Room,
    /// Room for many messages at once: and somebody else is in the line.
    ManyRooms,
    /// The same, and we are in the line.
    InLine,
    Memory,
    /// Memory for many messages at once.
    ManyBlocks,
}

impl Wait {
    /// What is to be waited for, or why that would be in vain.
    pub(crate) fn sort(refused: Refused) -> Result<Self, SendErrorKind> {
        match refused {
            Refused::Full => Ok(Self::Room),
            Refused::Closed | Refused::Memory(AllocError::Forked) => Err(SendErrorKind::Closed),
            Refused::Unwritten => Err(SendErrorKind::NotEncodable),
            Refused::Memory(AllocError::OutOfMemory { .. } | AllocError::NoRoom { .. }) => Ok(Self::Memory),
            Refused::Memory(
                AllocError::TooLarge { requested, largest } | AllocError::Alignment { requested, largest },
            ) => Err(SendErrorKind::TooLarge { needed: requested, largest }),
        }
    }
}

/// What a method that does not wait says.
pub(crate) fn refusal<V>(value: V, refused: Result<Wait, SendErrorKind>) -> TrySendError<V> {
    match refused {
        Ok(Wait::Room | Wait::ManyRooms | Wait::InLine) => TrySendError::Full(value),
        Ok(Wait::Memory | Wait::ManyBlocks) => TrySendError::OutOfMemory(value),
        Err(kind) => SendError(value, kind).into(),
    }
}

impl<T: Payload + ?Sized> Sender<T> {
    /// Takes over an end that has been entered.
    pub(crate) fn new(port: Arc<Port>, strategy: WaitStrategy) -> Self {
        Self::with_rules(port, strategy, None)
    }

    /// The same, of a channel whose messages say something of themselves.
    pub(crate) fn with_rules(port: Arc<Port>, strategy: WaitStrategy, rules: Option<Rules<T::Value>>) -> Self {
        Self {
            position: port.start(End::Sender),
            port,
            patience: Patience::new(strategy),
            strategy,
            rules,
            payload: PhantomData,
        }
    }

    pub(super) fn rules(&self) -> Option<&Rules<T::Value>> {
        self.rules.as_ref()
    }

    /// How a value is to travel.
    pub(super) fn marks(&self, value: &T::Value) -> Marks {
        self.rules.as_ref().map_or_else(Marks::default, |rules| rules(value))
    }

    pub(super) fn strategy(&self) -> WaitStrategy {
        self.strategy
    }

    /// One attempt to send a value that needs a block of `len` bytes. The kind of an error says whether it is final.
    #[inline(always)]
    pub(crate) fn attempt_value<V: Sendable<T>>(
        &self,
        value: &V,
        len: Option<usize>,
    ) -> Result<(), Result<Wait, SendErrorKind>> {
        let len = len.ok_or(Err(SendErrorKind::NotEncodable))?;
        if !V::RUNS_CODE && self.port.send_at_hand(&self.position, len, value.block_align(), value.writer()) {
            return Ok(());
        }
        self.attempt_slowly(value, len)
    }

    #[cold]
    #[inline(never)]
    fn attempt_slowly<V: Sendable<T>>(&self, value: &V, len: usize) -> Result<(), Result<Wait, SendErrorKind>> {
        let marks = self.marks(value.value());
        self.port.try_send(&self.position, len, value.block_align(), marks, value.writer()).map_err(Wait::sort)
    }

    /// Of one send.
    #[inline(always)]
    fn span(&self) -> MessageSpan {
        self.port.meters().sending(self.port.attachment().region())
    }

    pub(crate) fn listen(&self, wait: Wait) -> Waiter {
        match wait {
            Wait::Room | Wait::ManyRooms => self.port.wait_for_room(),
            Wait::InLine => self.port.wait_in_line(),
            Wait::Memory | Wait::ManyBlocks => self.port.attachment().wait_for_memory(),
        }
    }

    /// Sends a value as soon as there is room and memory. Dropped before it is done, it has not sent. The budget is charged.
    ///
    /// `&mut`, so that the future is `Send` if the value is.
    async fn deliver<V: Sendable<T>>(&self, value: &mut V) -> Result<(), SendErrorKind> {
        let len = V::block_len(value);
        self.keep_trying(move || self.attempt_value(&*value, len)).await
    }

    /// The same, with the value.
    async fn wait<V: Sendable<T>>(&self, mut value: V) -> Result<(), SendError<V>> {
        match self.deliver(&mut value).await {
            Ok(()) => Ok(()),
            Err(kind) => Err(SendError(value, kind)),
        }
    }

    /// Makes attempts until one succeeds, or fails for good; waits in between.
    pub(crate) async fn until_done<R>(
        &self,
        attempt: impl FnMut() -> Result<R, Result<Wait, SendErrorKind>>,
    ) -> Result<R, SendErrorKind> {
        charge_budget().await;
        self.keep_trying(attempt).await
    }

    /// The same, with the budget charged.
    async fn keep_trying<R>(
        &self,
        mut attempt: impl FnMut() -> Result<R, Result<Wait, SendErrorKind>>,
    ) -> Result<R, SendErrorKind> {
        let mut outcome = attempt();
        let mut spell = None;
        let mut pause = FIRST_PAUSE;
        // For memory there is nothing to yield for: who frees it may be far away.
        let is_for_room =
            |outcome: &Result<R, _>| matches!(outcome, Err(Ok(Wait::Room | Wait::ManyRooms | Wait::InLine)));
        if is_for_room(&outcome) {
            self.patience.gather(self.position.get(), |messages| self.port.is_emptied(&self.position, messages));
            match self.patience.attempt(|| Some(attempt()).filter(|now| !is_for_room(now))).await {
                Ok(now) => outcome = now,
                Err(begun) => spell = Some(begun),
            }
        }
        loop {
            let wait = match outcome {
                Ok(done) => return Ok(done),
                Err(Err(kind)) => return Err(kind),
                Err(Ok(wait)) => wait,
            };
            let mut waiter = self.listen(wait);
            // The place is taken: what was freed before is seen now, and what is freed from now on wakes us.
            outcome = attempt();
            // If it is something else now that we lack, this is not the place to wait for it.
            if let Err(Ok(now)) = outcome
                && now == wait
            {
                (&mut waiter).await;
                if wait == Wait::ManyBlocks {
                    // An attempt in vain gives back what it had got, and that wakes all who wait for memory: us, too.
                    Timer::new(self.port.attachment(), pause).await;
                    pause = (2 * pause).min(WATCHDOG);
                }
                outcome = attempt();
            }
            if let Ok(_) | Err(Ok(Wait::ManyRooms | Wait::InLine)) = outcome {
                // The send has passed the wake on, if there is more room. And if there is too little for many, either we
                // are in the line, and there is none for anybody; or somebody else is, who will wake the next one.
                waiter.finish();
                if let Some(spell) = spell.take_if(|_| outcome.is_ok()) {
                    spell.end(&self.patience, true);
                }
            }
        }
    }

    /// [`send`](Sender#method.send), whatever the channel carries.
    pub(crate) fn send_value<V: Sendable<T>>(&self, value: V) -> impl Future<Output = Result<(), SendError<V>>> {
        at_once(OneSend { sender: self, value, span: self.span() }, |send| send.span.around(self.wait(send.value)))
    }

    /// [`try_send`](Sender#method.try_send), whatever the channel carries.
    #[inline]
    pub(crate) fn try_send_value<V: Sendable<T>>(&self, value: V) -> Result<(), TrySendError<V>> {
        let span = self.span();
        let _entered = span.enter();
        let sent = self.attempt_value(&value, value.block_len());
        sent.map_err(|refused| refusal(value, refused))
    }

    /// [`send_timeout`](Sender#method.send_timeout), whatever the channel carries.
    pub(crate) async fn send_value_within<V: Sendable<T>>(
        &self,
        mut value: V,
        time: Duration,
    ) -> Result<(), SendTimeoutError<V>> {
        let delivered = async {
            charge_budget().await;
            self.deliver(&mut value).await
        };
        match self.span().around(timeout(self.port.attachment(), time, delivered)).await {
            Some(Ok(())) => Ok(()),
            Some(Err(kind)) => Err(SendError(value, kind).into()),
            None => Err(SendTimeoutError::Timeout(value)),
        }
    }

    /// Sends a value as soon as there is room and memory, from one poll to the next.
    pub(super) fn poll_send_value<V: Sendable<T>>(
        &self,
        place: &mut Place<Wait>,
        value: &V,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), SendErrorKind>> {
        let len = value.block_len();
        let attempt = || match self.attempt_value(value, len) {
            Err(Ok(wait)) => Err(wait),
            Err(Err(kind)) => Ok(Err(kind)),
            Ok(()) => Ok(Ok(())),
        };
        place.poll(context, Some(&self.patience), attempt, |wait| self.listen(wait))
    }

    /// Waits until all receivers have left, or one has closed the channel.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: it only looks.
    pub async fn closed(&self) {
        charge_budget().await;
        loop {
            if self.is_closed() {
                return;
            }
            let waiter = self.port.wait_for_close();
            if self.is_closed() {
                return;
            }
            waiter.await;
        }
    }

    /// Waits as [`closed`](Self::closed), blocking the thread.
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
    /// let (sender, receiver) = segment.channel::<u64>("numbers").open()?;
    /// let ends = std::thread::spawn(move || drop(receiver));
    /// sender.blocking_closed();
    /// assert!(sender.try_send(1).is_err());
    /// # ends.join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_closed(&self) {
        block_on(self.closed());
    }

    /// Waits as [`closed`](Self::closed), blocking the thread for at most `time`; whether the channel is closed. Needs no runtime, and
    /// no other thread.
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
    /// let (sender, receiver) = segment.channel::<u64>("numbers").open()?;
    /// assert!(!sender.blocking_closed_timeout(std::time::Duration::from_millis(10)));
    /// drop(receiver);
    /// assert!(sender.blocking_closed_timeout(std::time::Duration::from_secs(10)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_closed_timeout(&self, time: Duration) -> bool {
        block_on(timeout(self.port.attachment(), time, self.closed())).is_some()
    }

    /// Whether all receivers have left, or one has closed the channel: sending fails from now on.
    ///
    /// A channel to which no receiver has come yet is not closed.
    pub fn is_closed(&self) -> bool {
        self.port.is_closed_for_senders()
    }

    /// Messages for which there is room now: as many as neither wait to be received nor are reserved by permits. Where there are
    /// [priorities](crate::policy::Priority), as many as there is room for in each.
    pub fn capacity(&self) -> usize {
        self.port.room()
    }

    /// The most messages that may wait to be received: of each [priority](crate::policy::Priority), where there are such. Where the oldest
    /// [give way](crate::policy::Retention::keep_last), how many are kept.
    pub fn max_capacity(&self) -> usize {
        self.port.capacity()
    }

    /// Messages that wait to be received.
    pub fn len(&self) -> usize {
        self.port.len()
    }

    /// Whether no message waits to be received.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether both send into the same channel.
    pub fn same_channel(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.port, &other.port)
    }
}

impl<T: Plain> Sender<T> {
    /// Sends a value, waiting for room in the channel and for memory in the segment.
    ///
    /// # Errors
    ///
    /// [`SendError`] with the value, at once: if the channel is closed, or if the value can never fit.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, the message has not been sent, and the value is lost. In
    /// `tokio::select!` that is the branch not taken.
    #[must_use = "nothing is sent before this is awaited: `try_send` sends at once"]
    pub fn send(&self, value: T) -> impl Future<Output = Result<(), SendError<T>>> {
        self.send_value(value)
    }

    /// Sends a value if there is room and memory now. Lock-free, and makes no system call unless somebody must be woken.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with the value.
    #[inline]
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.try_send_value(value)
    }

    /// Sends a value, waiting for room and memory for at most `time`. Needs no runtime.
    ///
    /// # Errors
    ///
    /// [`SendTimeoutError`] with the value.
    ///
    /// # Cancel safety
    ///
    /// As for [`send`](Self::send).
    pub async fn send_timeout(&self, value: T, time: Duration) -> Result<(), SendTimeoutError<T>> {
        self.send_value_within(value, time).await
    }

    /// Sends a value, blocking the thread until there is room and memory.
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

    /// Sends a value, blocking the thread until there is room and memory, for at most `time`. Needs no runtime, and no other thread.
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
    /// let (sender, _receiver) = segment.channel::<u64>("numbers").capacity(1).open()?;
    /// let time = Duration::from_millis(10);
    /// sender.blocking_send_timeout(1, time)?;
    /// assert!(sender.blocking_send_timeout(2, time).unwrap_err().is_timeout());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_send_timeout(&self, value: T, time: Duration) -> Result<(), SendTimeoutError<T>> {
        block_on(self.send_timeout(value, time))
    }
}

impl<T: Plain> Sender<[T]> {
    /// Sends a slice, waiting for room in the channel and for memory in the segment. It is copied once, into one block of
    /// the segment; see [`reserve`](Self::reserve) for writing it there.
    ///
    /// # Errors
    ///
    /// [`SendError`] with what was given, at once: if the channel is closed, or if that many can never fit.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, the message has not been sent.
    #[must_use = "nothing is sent before this is awaited: `try_send` sends at once"]
    pub fn send<B: AsRef<[T]>>(&self, values: B) -> impl Future<Output = Result<(), SendError<B>>> {
        self.send_value(values)
    }

    /// Sends a slice if there is room and memory now. Lock-free, and makes no system call unless somebody must be woken.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with what was given.
    pub fn try_send<B: AsRef<[T]>>(&self, values: B) -> Result<(), TrySendError<B>> {
        self.try_send_value(values)
    }

    /// Sends a slice, waiting for room and memory for at most `time`. Needs no runtime.
    ///
    /// # Errors
    ///
    /// [`SendTimeoutError`] with what was given.
    ///
    /// # Cancel safety
    ///
    /// As for [`send`](Self::send).
    pub async fn send_timeout<B: AsRef<[T]>>(&self, values: B, time: Duration) -> Result<(), SendTimeoutError<B>> {
        self.send_value_within(values, time).await
    }

    /// Sends a slice, blocking the thread until there is room and memory.
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
    pub fn blocking_send<B: AsRef<[T]>>(&self, values: B) -> Result<(), SendError<B>> {
        block_on(self.send(values))
    }

    /// Sends a slice, blocking the thread until there is room and memory, for at most `time`. Needs no runtime, and no other thread.
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
    /// let (sender, _receiver) = segment.bytes("lines").capacity(1).open()?;
    /// let time = Duration::from_millis(10);
    /// sender.blocking_send_timeout("one", time)?;
    /// assert!(sender.blocking_send_timeout("two", time).unwrap_err().is_timeout());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_send_timeout<B: AsRef<[T]>>(&self, values: B, time: Duration) -> Result<(), SendTimeoutError<B>> {
        block_on(self.send_timeout(values, time))
    }
}

impl<T: Payload + ?Sized> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.port.duplicate(End::Sender);
        Self {
            port: Arc::clone(&self.port),
            position: self.position.clone(),
            patience: Patience::new(self.strategy),
            strategy: self.strategy,
            rules: self.rules.clone(),
            payload: PhantomData,
        }
    }
}

impl<T: Payload + ?Sized> Drop for Sender<T> {
    fn drop(&mut self) {
        self.port.leave(End::Sender);
    }
}

impl<T: Payload + ?Sized> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("channel", &self.port.index()).finish_non_exhaustive()
    }
}

// A port has no invariant that a panic could break: all of it is atomics, and locks that are never held across code that
// may panic.
impl<T: Payload + ?Sized> UnwindSafe for Sender<T> {}
impl<T: Payload + ?Sized> RefUnwindSafe for Sender<T> {}
