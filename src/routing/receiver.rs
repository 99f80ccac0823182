//! The receiving end of a routed channel.

use std::{
    fmt,
    future::poll_fn,
    panic::{RefUnwindSafe, UnwindSafe},
    pin::Pin,
    sync::{Arc, atomic::fence},
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;

use crate::{
    attachment::{port::Nothing, routes::Outlook},
    channel::{self, Patience, Payload, RecvTimeoutError, TryRecvError, WaitStrategy, timeout, wait::block_on},
    routing::{
        Message,
        tenure::{Ends, Head, Hold, Seat, Tenure},
    },
    sys::{
        held::{Mutex, MutexGuard},
        sync::Ordering,
    },
    wake::{Waiter, budget::charge_budget},
};

/// How many messages are taken from a partition before it is another one's turn.
const RUN: u32 = 16;

/// Receives messages from a [routed channel](crate::routing::Options): those of its share of the keys.
///
/// It has no clones: open another receiver instead. Tasks may share one.
pub struct Receiver<T: Payload + ?Sized> {
    // In this order: partitions are to be had while there are ends of them, if anybody else has one.
    state: Mutex<State>,
    receivers: Ends<channel::Receiver<T>>,
    head: Head,
    patience: Patience,
}

#[derive(Debug, Default)]
struct State {
    /// The epoch of the head when it was last looked at who has what.
    known: Option<u64>,
    seat: Option<Seat>,
    owned: Vec<Arc<Tenure>>,
    /// How many are being prepared to be owned.
    arriving: usize,
    /// Whose turn it is of those, and how often in a row it was.
    turn: usize,
    run: u32,
}

/// What is to be done outside of the lock: this wakes tasks.
#[derive(Debug, Default)]
struct Changes {
    given_up: Vec<Arc<Tenure>>,
    /// What comes back waits there in no order yet.
    taken: Vec<Tenure>,
    has_sat_down: bool,
}

impl<T: Payload + ?Sized> Receiver<T> {
    pub(super) fn new(receivers: Vec<channel::Receiver<T>>, head: Head, strategy: WaitStrategy) -> Self {
        Self {
            state: Mutex::default(),
            receivers: Ends::new(receivers, head.clone()),
            head,
            patience: Patience::new(strategy),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Takes what is free, up to this receiver's share, and gives up what is more.
    #[cold]
    #[inline(never)]
    fn settle(&self, state: &mut State, epoch: u64) -> Changes {
        let mut changes = Changes::default();
        state.known = Some(epoch);
        if state.seat.is_none() {
            state.seat = self.head.sit();
            changes.has_sat_down = state.seat.is_some();
        }
        let Some(seat) = &state.seat else { return changes };
        let share = self.head.share(seat);
        while state.owned.len() + state.arriving > share && !state.owned.is_empty() {
            // One of which no message is unacknowledged is to be had at once.
            let idle = state.owned.iter().rposition(|tenure| Arc::strong_count(tenure) == 1);
            changes.given_up.push(state.owned.swap_remove(idle.unwrap_or(state.owned.len() - 1)));
        }
        let partitions = self.receivers.len();
        for partition in (0..partitions).map(|ahead| (seat.first() + ahead) % partitions) {
            if state.owned.len() + state.arriving >= share {
                break;
            }
            let port = &self.receivers[partition].port;
            let comes_back = port.comes_back().is_some();
            if let Some(tenure) = self.head.tenure(partition, comes_back, port.index()) {
                state.arriving += 1;
                changes.taken.push(tenure);
            }
        }
        changes
    }

    /// Does what follows from changes.
    #[cold]
    #[inline(never)]
    fn follow(&self, Changes { given_up, taken, has_sat_down }: Changes) {
        drop(given_up);
        if taken.is_empty() && !has_sat_down {
            return;
        }
        // Nobody receives from them yet.
        taken.iter().for_each(|tenure| self.receivers[tenure.partition()].port.sort_returned());
        {
            let mut state = self.state();
            state.arriving -= taken.len();
            state.owned.extend(taken.into_iter().map(Arc::new));
        }
        // Others count anew. And tasks that share this receiver wait for what it has from now on.
        self.head.tell();
    }

    /// The next partition in which a message waits, beginning with number `first` of this receiver's. A pass looks at each once.
    fn next(&self, state: &mut State, first: usize, passed: &mut usize) -> Option<Arc<Tenure>> {
        let owned = state.owned.len();
        while *passed < owned {
            let at = (first + *passed) % owned;
            *passed += 1;
            let receiver = &self.receivers[state.owned[at].partition()];
            if receiver.port.has_message(&receiver.position) {
                state.run = if at == state.turn { state.run + 1 } else { 1 };
                let done = state.run >= RUN;
                state.turn = if done { at + 1 } else { at };
                state.run = if done { 0 } else { state.run };
                return Some(Arc::clone(&state.owned[at]));
            }
        }
        None
    }

    /// Takes a message from a partition, whose tenure lasts for as long as that takes.
    fn take(&self, tenure: Arc<Tenure>) -> Option<Message<T>> {
        let message = self.receivers[tenure.partition()].attempt().ok()?;
        Some(Message::new(message, Hold(tenure)))
    }

    fn attempt(&self) -> Result<Message<T>, Nothing> {
        if !self.head.is_usable() {
            return Err(Nothing::Disconnected);
        }
        let (mut first, mut passed, mut is_settled) = (None, 0, false);
        let message = loop {
            // What is found under the lock is done outside of it: to receive may wake tasks, too.
            let found = {
                let mut state = self.state();
                let epoch = self.head.epoch();
                if state.known != Some(epoch) && !is_settled {
                    is_settled = true;
                    Err(self.settle(&mut state, epoch))
                } else {
                    let first = *first.get_or_insert(state.turn);
                    Ok(self.next(&mut state, first, &mut passed))
                }
            };
            match found {
                Err(changes) => self.follow(changes),
                Ok(Some(tenure)) => {
                    if let Some(message) = self.take(tenure) {
                        break Some(message);
                    }
                }
                Ok(None) => break None,
            }
        };
        match message {
            Some(message) => {
                // Others may wait for the last one to be taken.
                let channel::Receiver { port, position, .. } = &self.receivers[message.partition()];
                if port.is_closed_for_receivers() && !port.has_message(position) {
                    self.head.tell();
                }
                Ok(message)
            }
            None if self.is_over() => Err(Nothing::Disconnected),
            None => Err(Nothing::Empty),
        }
    }

    /// Whether there will be no more messages, for nobody.
    fn is_over(&self) -> bool {
        let mut over = false;
        for receiver in &*self.receivers {
            match receiver.port.outlook() {
                // The first one is closed first: whoever did it was killed, or is about to go on.
                Outlook::Open if self.receivers[0].port.was_closed() => receiver.close(),
                Outlook::Open => return false,
                Outlook::Over => {}
                Outlook::New => continue,
            }
            over = true;
        }
        if !over || self.receivers.iter().any(|receiver| receiver.port.has_message(&receiver.position)) {
            return false;
        }
        // Ordering: as in `Hold`.
        fence(Ordering::SeqCst);
        !self.receivers.iter().any(|receiver| receiver.port.may_come_back())
            // What came back meanwhile is in a ring by now.
            && !self.receivers.iter().any(|receiver| receiver.port.has_message(&receiver.position))
    }

    /// Places among all whose wake-up may mean that there is something to do.
    fn listen(&self) -> Vec<Waiter> {
        let (known, owned) = {
            let state = self.state();
            let owned: Vec<usize> = state.owned.iter().map(|tenure| tenure.partition()).collect();
            (state.known, owned)
        };
        // Changed since: then that wait is over at once.
        let change = self.head.wait_for_change(known.unwrap_or_default());
        let messages = owned.into_iter().map(|partition| self.receivers[partition].port.wait_for_message());
        std::iter::once(change).chain(messages).collect()
    }

    /// Receives the next message of this receiver's share, waiting for it without polling. `None` if all partitions are empty
    /// and no sender is left, or the channel was closed. If no sender has come yet, it waits for one.
    ///
    /// The partitions take turns, some messages from each.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: if the future is dropped before it is done, no message was taken.
    pub async fn recv(&self) -> Option<Message<T>> {
        charge_budget().await;
        match self.attempt() {
            Err(Nothing::Empty) => self.wait().await,
            outcome => outcome.ok(),
        }
    }

    async fn wait(&self) -> Option<Message<T>> {
        let attempt = || Some(self.attempt()).filter(|outcome| !matches!(outcome, Err(Nothing::Empty)));
        let spell = match self.patience.attempt(attempt).await {
            Ok(outcome) => return outcome.ok(),
            Err(spell) => spell,
        };
        loop {
            let mut waiters = self.listen();
            // The places are taken: what happened before is seen now, and what happens from now on wakes us.
            let mut outcome = self.attempt();
            if let Err(Nothing::Empty) = outcome {
                poll_fn(|context| {
                    let woken = waiters.iter_mut().any(|waiter| Pin::new(waiter).poll(context).is_ready());
                    if woken { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
                outcome = self.attempt();
            }
            // Those that were woken for nothing pass that on.
            drop(waiters);
            match outcome {
                Ok(message) => {
                    spell.end(&self.patience, true);
                    return Some(message);
                }
                Err(Nothing::Disconnected) => return None,
                Err(Nothing::Empty) => {}
            }
        }
    }

    /// Receives the next message of this receiver's share if there is one now.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`] or [`TryRecvError::Disconnected`].
    pub fn try_recv(&self) -> Result<Message<T>, TryRecvError> {
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
        match timeout(self.receivers[0].port.attachment(), time, self.recv()).await {
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
    /// let (_sender, receiver) = segment.bytes("lines").routed().open()?;
    /// assert!(receiver.blocking_recv_timeout(Duration::from_millis(10)).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_recv_timeout(&self, time: Duration) -> Result<Message<T>, RecvTimeoutError> {
        block_on(self.recv_timeout(time))
    }

    /// A [`Stream`] of messages that borrows the receiver. It ends when [`recv`](Self::recv) would give `None`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the stream loses nothing.
    pub fn stream(&self) -> RecvStream<'_, T> {
        RecvStream { receiver: self, next: None }
    }

    /// The partitions that this receiver has now, in order. Those that it has given up and of which messages are
    /// unacknowledged are not among them.
    pub fn partitions(&self) -> Vec<usize> {
        let mut partitions: Vec<usize> = self.state().owned.iter().map(|tenure| tenure.partition()).collect();
        partitions.sort_unstable();
        partitions
    }

    /// How many partitions there are.
    pub fn partition_count(&self) -> usize {
        self.receivers.len()
    }

    /// Closes the channel: nothing more can be sent, by anybody; what was sent can still be received.
    pub fn close(&self) {
        // The first one first: if this process dies here, others finish it.
        self.receivers.iter().for_each(channel::Receiver::close);
        if self.head.is_usable() {
            self.head.tell();
        }
    }

    /// Whether no more messages will be sent: the channel was closed, or all senders have left. Some may still wait.
    pub fn is_closed(&self) -> bool {
        self.receivers.iter().all(channel::Receiver::is_closed)
    }

    /// Messages that wait to be received, in all partitions, whoever has them.
    pub fn len(&self) -> usize {
        self.receivers.iter().map(channel::Receiver::len).sum()
    }

    /// Whether no message waits to be received.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Payload + ?Sized> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("partitions", &self.partitions()).finish_non_exhaustive()
    }
}

// As for receivers: what a panic could leave half-done is what this receiver has, each of which is whole.
impl<T: Payload + ?Sized> UnwindSafe for Receiver<T> {}
impl<T: Payload + ?Sized> RefUnwindSafe for Receiver<T> {}

/// The messages of a [`Receiver`] as a [`Stream`]: made by [`Receiver::stream`].
pub struct RecvStream<'a, T: Payload + ?Sized> {
    receiver: &'a Receiver<T>,
    next: Option<Receiving<'a, T>>,
}

type Receiving<'a, T> = Pin<Box<dyn Future<Output = Option<Message<T>>> + Send + 'a>>;

impl<T: Payload + ?Sized> Stream for RecvStream<'_, T>
where
    Message<T>: Send,
{
    type Item = Message<T>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message<T>>> {
        let Self { receiver, next } = &mut *self;
        let receiver: &Receiver<T> = receiver;
        let polled = next.get_or_insert_with(|| Box::pin(receiver.recv())).as_mut().poll(context);
        if polled.is_ready() {
            *next = None;
        }
        polled
    }
}

impl<T: Payload + ?Sized> fmt::Debug for RecvStream<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvStream").field("receiver", &self.receiver).finish_non_exhaustive()
    }
}
