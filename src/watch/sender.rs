//! The sending end.

use std::{
    fmt,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::Arc,
    time::Duration,
};

use crate::{
    SendError,
    alloc::AllocError,
    attachment::{
        current::{Draft, Pinned},
        directory::End,
    },
    blocks::Content,
    channel::{
        Plain, SendErrorKind,
        wait::{block_on, timeout},
    },
    wake::budget::charge_budget,
    watch::{
        receiver::Receiver,
        value::{Ref, View},
    },
};

/// Sends values to a watch, from any number of tasks, threads and processes: a [`tokio::sync::watch::Sender`][tokio] between
/// processes.
///
/// Made by [`Options::sender`](crate::watch::Options::sender). Clones are further senders.
///
/// # What is promised
///
/// * A value that was sent is seen whole by every receiver that looks afterwards, or a later one. Of several senders the last
///   one's value stays. Nobody waits for anybody: a receiver that reads, or is stopped, or killed, keeps no sender from
///   sending, nor the other way.
/// * A sender that is killed, at whatever instruction, leaves the value that was or its new one.
/// * A value's memory comes back when it is not current any more and nobody reads it, whoever is killed.
///   Each end holds on to the value that it looked at last, until it looks at another one or is dropped: a receiver by
///   borrowing, a sender by borrowing or modifying. So as many values may be kept as there are ends and guards, and one.
///
/// # Not as in tokio
///
/// Sending needs memory, and says so if there is none. What modifies may be called more than once; if it panics, the old value stays.
///
/// ```
/// # let segment = waterway::Segment::options().in_process()?;
/// let (sender, mut receiver) = segment.watch::<u64>("limit").initial(10).open()?;
/// assert_eq!(*receiver.borrow(), 10);
/// sender.send(20)?;
/// sender.send_modify(|limit| *limit += 1)?;
/// assert!(receiver.has_changed()?);
/// assert_eq!(*receiver.borrow_and_update(), 21);
/// assert!(!receiver.has_changed()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [tokio]: https://docs.rs/tokio/latest/tokio/sync/watch/struct.Sender.html
pub struct Sender<T: Content + ?Sized> {
    view: View<T>,
}

fn refusal(error: AllocError) -> SendErrorKind {
    match error {
        AllocError::OutOfMemory { .. } | AllocError::NoRoom { .. } => SendErrorKind::OutOfMemory,
        AllocError::TooLarge { requested, largest } | AllocError::Alignment { requested, largest } => {
            SendErrorKind::TooLarge { needed: requested, largest }
        }
        AllocError::Forked => SendErrorKind::Closed,
    }
}

impl<T: Content + ?Sized> Sender<T> {
    pub(super) fn new(view: View<T>) -> Self {
        Self { view }
    }

    fn draft(&self, bytes: &[u8]) -> Result<Draft, SendErrorKind> {
        let mut draft = self.view.port().draft(bytes.len(), T::ALIGN as usize).map_err(refusal)?;
        draft.bytes_mut().copy_from_slice(bytes);
        Ok(draft)
    }

    fn send_bytes(&self, bytes: &[u8]) -> Result<(), SendErrorKind> {
        if self.is_closed() {
            return Err(SendErrorKind::Closed);
        }
        self.view.port().publish(self.draft(bytes)?);
        Ok(())
    }

    /// Makes the draft of each value that is current until one gets through, and gives the value that it replaced. `Ok(None)` if
    /// there is nothing to send.
    fn replace(
        &self,
        mut draft: impl FnMut(&Pinned<T>) -> Result<Option<Draft>, SendErrorKind>,
    ) -> Result<Option<Pinned<T>>, SendErrorKind> {
        let mut unreadable = None;
        loop {
            let old = self.view.look();
            let Some(new) = draft(&old)? else { return Ok(None) };
            if self.view.port().publish_over(new, unreadable.unwrap_or(old.name())) {
                return Ok(Some(old));
            }
            // Somebody has sent another value; or what stands there is none, and `old` an older one, which ends that.
            let now = self.view.port().current();
            unreadable = (now != old.name() && self.view.look().name() == old.name()).then_some(now);
        }
    }

    /// The current value, in place. Lock-free between processes; threads that share this sender take turns for a moment.
    pub fn borrow(&self) -> Ref<T> {
        Ref::new(self.view.look(), false)
    }

    /// A receiver. It has seen the value that there is.
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver::new(self.view.another(End::Receiver))
    }

    /// Waits until all receivers of all processes have left.
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
            let waiter = self.view.port().wait_for_close();
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
    /// let (sender, receiver) = segment.watch::<u64>("level").initial(1).open()?;
    /// let ends = std::thread::spawn(move || drop(receiver));
    /// sender.blocking_closed();
    /// # ends.join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_closed(&self) {
        block_on(self.closed());
    }

    /// Waits as [`closed`](Self::closed), blocking the thread for at most `time`; whether all receivers have left. Needs no runtime,
    /// and no other thread.
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
    /// let (sender, receiver) = segment.watch::<u64>("level").initial(1).open()?;
    /// assert!(!sender.blocking_closed_timeout(std::time::Duration::from_millis(10)));
    /// drop(receiver);
    /// assert!(sender.blocking_closed_timeout(std::time::Duration::from_secs(10)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_closed_timeout(&self, time: Duration) -> bool {
        block_on(timeout(self.view.port().attachment(), time, self.closed())).is_some()
    }

    /// Whether there were receivers, and all have left. A watch to which no receiver has come yet is not closed, and one that
    /// is closed is open again when another one comes.
    pub fn is_closed(&self) -> bool {
        self.view.port().is_without_receivers()
    }

    /// How many participants have a receiver of the watch.
    pub fn receiver_count(&self) -> usize {
        self.view.port().participants(End::Receiver)
    }

    /// How many participants have a sender of the watch.
    pub fn sender_count(&self) -> usize {
        self.view.port().participants(End::Sender)
    }

    /// Whether both send to the same watch, through the same [`Segment`](crate::Segment).
    pub fn same_channel(&self, other: &Self) -> bool {
        Arc::ptr_eq(self.view.port(), other.view.port())
    }
}

impl<T: Plain> Sender<T> {
    /// Sends a value, and wakes who waits for one. Lock-free; never waits.
    ///
    /// # Errors
    ///
    /// [`SendError`] with the value: if all receivers have left, or if there is no memory for it.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.send_bytes(value.as_bytes()).map_err(|kind| SendError(value, kind))
    }

    /// Sends a value, whether or not there are receivers, and gives the one that it replaced.
    ///
    /// # Errors
    ///
    /// [`SendError`] with the value, if there is no memory for it.
    pub fn send_replace(&self, value: T) -> Result<Ref<T>, SendError<T>> {
        match self.replace(|_| self.draft(value.as_bytes()).map(Some)) {
            Ok(old) => Ok(Ref::new(old.expect("there was a value to send"), false)),
            Err(kind) => Err(SendError(value, kind)),
        }
    }

    /// Sends what `modify` makes of the current value, whether or not there are receivers. It works on a copy, in the
    /// segment; if somebody else has sent a value meanwhile, it is called again, with that one. So no change is lost, and
    /// what it does beside changing the value may be done several times. If it panics, nothing is sent.
    ///
    /// # Errors
    ///
    /// [`SendError`], if there is no memory for the copy.
    pub fn send_modify(&self, mut modify: impl FnMut(&mut T)) -> Result<(), SendError<()>> {
        self.send_if_modified(|value| {
            modify(value);
            true
        })
        .map(|_| ())
    }

    /// The same, if `modify` says `true`; if not, its changes are dropped. Returns what it said.
    ///
    /// # Errors
    ///
    /// As for [`send_modify`](Self::send_modify).
    pub fn send_if_modified(&self, mut modify: impl FnMut(&mut T) -> bool) -> Result<bool, SendError<()>> {
        let sent = self.replace(|old| {
            let mut draft = self.draft(old.as_bytes())?;
            let is_modified = T::view_mut(draft.bytes_mut()).is_some_and(&mut modify);
            Ok(is_modified.then_some(draft))
        });
        sent.map(|old| old.is_some()).map_err(|kind| SendError((), kind))
    }
}

impl Sender<[u8]> {
    /// Sends bytes, and wakes who waits for some. Lock-free; never waits. They are copied once, into the segment.
    ///
    /// # Errors
    ///
    /// [`SendError`] with what was given: if all receivers have left, or if there is no memory for it.
    pub fn send<B: AsRef<[u8]>>(&self, bytes: B) -> Result<(), SendError<B>> {
        self.send_bytes(bytes.as_ref()).map_err(|kind| SendError(bytes, kind))
    }

    /// Sends bytes, whether or not there are receivers, and gives those that they replaced.
    ///
    /// # Errors
    ///
    /// [`SendError`] with what was given, if there is no memory for it.
    pub fn send_replace<B: AsRef<[u8]>>(&self, bytes: B) -> Result<Ref<[u8]>, SendError<B>> {
        match self.replace(|_| self.draft(bytes.as_ref()).map(Some)) {
            Ok(old) => Ok(Ref::new(old.expect("there was a value to send"), false)),
            Err(kind) => Err(SendError(bytes, kind)),
        }
    }
}

impl<T: Content + ?Sized> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self::new(self.view.another(End::Sender))
    }
}

impl<T: Content + ?Sized> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("channel", &self.view.port().index()).finish_non_exhaustive()
    }
}

// As for senders of channels: what a panic finds half-done is nothing.
impl<T: Content + ?Sized> UnwindSafe for Sender<T> {}
impl<T: Content + ?Sized> RefUnwindSafe for Sender<T> {}
