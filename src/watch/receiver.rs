//! The receiving end.

use std::{
    error::Error,
    fmt,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::Arc,
    time::Duration,
};

use crate::{
    attachment::directory::End,
    blocks::{Content, current::Name},
    channel::{
        RecvTimeoutError,
        wait::{block_on, timeout},
    },
    wake::budget::charge_budget,
    watch::value::{Ref, View},
};

/// Sees the latest value of a watch: a [`tokio::sync::watch::Receiver`][tokio] between processes.
///
/// Made by [`Options::receiver`](crate::watch::Options::receiver) and
/// [`Sender::subscribe`](crate::watch::Sender::subscribe). Clones are further receivers, which have seen the same values.
///
/// A receiver that is slow misses values, never the last one. When all senders of all processes have left,
/// [`changed`](Self::changed) fails as soon as the last value was seen; the value stays. A watch to which no sender has come
/// yet is not closed, and one that is closed is open again when another one comes.
///
/// [tokio]: https://docs.rs/tokio/latest/tokio/sync/watch/struct.Receiver.html
pub struct Receiver<T: Content + ?Sized> {
    view: View<T>,
    seen: Name,
}

/// All senders of a watch have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecvError;

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("watch closed")
    }
}

impl Error for RecvError {}

impl<T: Content + ?Sized> Receiver<T> {
    /// It has seen what there is.
    pub(super) fn new(view: View<T>) -> Self {
        Self { seen: view.port().current(), view }
    }

    /// The latest value, in place; it may be one that this receiver has seen or not. Lock-free between processes; threads that
    /// share this receiver take turns for a moment.
    #[inline]
    pub fn borrow(&self) -> Ref<T> {
        let value = self.view.look();
        let has_changed = value.name() != self.seen;
        Ref::new(value, has_changed)
    }

    /// The latest value, in place, which this receiver has seen from here on.
    #[inline]
    pub fn borrow_and_update(&mut self) -> Ref<T> {
        let value = self.borrow();
        self.seen = value.name();
        value
    }

    /// Whether there is a value that this receiver has not seen.
    ///
    /// # Errors
    ///
    /// [`RecvError`] if all senders have left, also if there is one.
    pub fn has_changed(&self) -> Result<bool, RecvError> {
        if self.view.port().is_closed_for_receivers() {
            return Err(RecvError);
        }
        Ok(self.view.port().current() != self.seen)
    }

    /// The value that there is counts as not seen.
    pub fn mark_changed(&mut self) {
        self.seen = Name::NONE;
    }

    /// The value that there is counts as seen.
    pub fn mark_unchanged(&mut self) {
        if self.view.port().attachment().is_usable() {
            self.seen = self.view.port().current();
        }
    }

    /// Waits for a value that this receiver has not seen; it counts as seen then. Sleeps until it is woken.
    ///
    /// # Errors
    ///
    /// [`RecvError`] if there is none, and all senders have left.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: if the future is dropped before it is done, nothing counts as seen.
    pub async fn changed(&mut self) -> Result<(), RecvError> {
        charge_budget().await;
        loop {
            if let Some(outcome) = self.look_for_news() {
                return outcome;
            }
            let waiter = self.view.port().wait_for_value(self.seen);
            // The place is taken: what was sent before is seen now, and what is sent from now on wakes us.
            if let Some(outcome) = self.look_for_news() {
                return outcome;
            }
            waiter.await;
        }
    }

    fn look_for_news(&mut self) -> Option<Result<(), RecvError>> {
        let port = self.view.port();
        // In this order: what was sent by those who have left is seen.
        let is_closed = port.is_closed_for_receivers();
        if !port.attachment().is_usable() {
            return Some(Err(RecvError));
        }
        let name = port.current();
        if name != self.seen {
            self.seen = name;
            return Some(Ok(()));
        }
        is_closed.then_some(Err(RecvError))
    }

    /// Waits for a value of which `is_it` is true, beginning with the one that there is; it counts as seen then, and those
    /// before it. Values that are replaced before this receiver looks are not asked about.
    ///
    /// # Errors
    ///
    /// [`RecvError`] if the last value is none of those, and all senders have left.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: if the future is dropped before it is done, values that it has asked about count as seen.
    pub async fn wait_for(&mut self, mut is_it: impl FnMut(&T) -> bool) -> Result<Ref<T>, RecvError> {
        loop {
            // Also by who is satisfied: who asks again and again lets others run.
            charge_budget().await;
            let value = self.borrow_and_update();
            if is_it(&value) {
                return Ok(value);
            }
            drop(value);
            self.changed().await?;
        }
    }

    /// Waits as [`changed`](Self::changed), blocking the thread.
    ///
    /// # Errors
    ///
    /// As for [`changed`](Self::changed).
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
    /// let (sender, mut receiver) = segment.watch::<u64>("level").initial(1).open()?;
    /// sender.send(2)?;
    /// receiver.blocking_changed()?;
    /// assert_eq!(*receiver.borrow(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_changed(&mut self) -> Result<(), RecvError> {
        block_on(self.changed())
    }

    /// Waits as [`changed`](Self::changed), blocking the thread for at most `time`. Needs no runtime, and no other thread.
    ///
    /// # Errors
    ///
    /// [`RecvTimeoutError::Timeout`]; [`RecvTimeoutError::Disconnected`] where [`changed`](Self::changed) fails.
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
    /// let (sender, mut receiver) = segment.watch::<u64>("level").initial(1).open()?;
    /// receiver.mark_unchanged();
    /// assert!(receiver.blocking_changed_timeout(std::time::Duration::from_millis(10)).is_err());
    /// # drop(sender);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_changed_timeout(&mut self, time: Duration) -> Result<(), RecvTimeoutError> {
        let port = Arc::clone(self.view.port());
        match block_on(timeout(port.attachment(), time, self.changed())) {
            Some(Ok(())) => Ok(()),
            Some(Err(RecvError)) => Err(RecvTimeoutError::Disconnected),
            None => Err(RecvTimeoutError::Timeout),
        }
    }

    /// Waits as [`wait_for`](Self::wait_for), blocking the thread.
    ///
    /// # Errors
    ///
    /// As for [`wait_for`](Self::wait_for).
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
    /// let (sender, mut receiver) = segment.watch::<u64>("level").initial(1).open()?;
    /// sender.send(5)?;
    /// assert_eq!(*receiver.blocking_wait_for(|level| *level > 3)?, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_wait_for(&mut self, is_it: impl FnMut(&T) -> bool) -> Result<Ref<T>, RecvError> {
        block_on(self.wait_for(is_it))
    }

    /// Waits as [`wait_for`](Self::wait_for), blocking the thread for at most `time`. Needs no runtime, and no other thread.
    ///
    /// # Errors
    ///
    /// [`RecvTimeoutError::Timeout`]; [`RecvTimeoutError::Disconnected`] where [`wait_for`](Self::wait_for) fails.
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let (sender, mut receiver) = segment.watch::<u64>("level").initial(1).open()?;
    /// assert!(receiver.blocking_wait_for_timeout(|level| *level > 3, Duration::from_millis(10)).is_err());
    /// sender.send(5)?;
    /// assert_eq!(*receiver.blocking_wait_for_timeout(|level| *level > 3, Duration::from_secs(10))?, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_wait_for_timeout(
        &mut self,
        is_it: impl FnMut(&T) -> bool,
        time: Duration,
    ) -> Result<Ref<T>, RecvTimeoutError> {
        let port = Arc::clone(self.view.port());
        match block_on(timeout(port.attachment(), time, self.wait_for(is_it))) {
            Some(Ok(value)) => Ok(value),
            Some(Err(RecvError)) => Err(RecvTimeoutError::Disconnected),
            None => Err(RecvTimeoutError::Timeout),
        }
    }

    /// How many participants have a sender of the watch.
    pub fn sender_count(&self) -> usize {
        self.view.port().participants(End::Sender)
    }

    /// How many participants have a receiver of the watch.
    pub fn receiver_count(&self) -> usize {
        self.view.port().participants(End::Receiver)
    }

    /// Whether both receive from the same watch, through the same [`Segment`](crate::Segment).
    pub fn same_channel(&self, other: &Self) -> bool {
        Arc::ptr_eq(self.view.port(), other.view.port())
    }
}

impl<T: Content + ?Sized> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { view: self.view.another(End::Receiver), seen: self.seen }
    }
}

impl<T: Content + ?Sized> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("channel", &self.view.port().index()).finish_non_exhaustive()
    }
}

// As for receivers of channels: what a panic finds half-done is nothing.
impl<T: Content + ?Sized> UnwindSafe for Receiver<T> {}
impl<T: Content + ?Sized> RefUnwindSafe for Receiver<T> {}
