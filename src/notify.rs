//! Telling tasks of other processes that something has happened.
//!
//! `attachment/signals.rs` says how notifications are stored and counted, and what becomes of those of the dead.

use std::{
    fmt,
    future::Future,
    panic::{RefUnwindSafe, UnwindSafe},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use crate::{
    OpenError,
    attachment::{
        Anchor, ChannelRequest,
        directory::{End, Kind},
        port::Port,
    },
    channel::wait::{block_on, timeout},
    region::name::Name,
    wake::{Waiter, budget::poll_budget},
};

/// Tells one task, or all that wait, that something has happened: a [`tokio::sync::Notify`][tokio] between processes.
///
/// Made by [`Segment::notify`](crate::Segment::notify). Clones are handles of the same notify, and so is what any process
/// opens by that name.
///
/// It carries nothing: what has happened stands elsewhere, in a [block](crate::blocks::Block) or a file. What is done before a
/// notification is seen by whoever it wakes.
///
/// # What is promised
///
/// * [`notify_one`](Self::notify_one) with tasks waiting ends one wait, and so many calls end so many waits. With nobody
///   waiting it is stored: the next wait ends at once. One is stored at most for those who are to come.
/// * A notification is *fetched* by whoever waits, never handed over. A task that is dropped, or whose process dies, before
///   it has fetched one has taken nothing: somebody else is woken for it. A process that dies afterwards had been notified;
///   what it was to do is not done again. So if each notification is a job, put the jobs into a channel.
/// * [`notify_waiters`](Self::notify_waiters) ends the waits of all that were *created* before it, polled or not, in all
///   processes. It needs nobody to fetch anything, and nobody's death or stop keeps it from the others.
/// * A process that is killed while it notifies has done so or has not.
///
/// # Not as in tokio
///
/// Who has waited longest is woken first only within a process; between processes any may be, and one that comes just then
/// may be quicker. A wait that `notify_waiters` ends leaves a notification of `notify_one` that it has not fetched yet
/// to others. There is no `notify_last`.
///
/// ```
/// # smol::block_on(async {
/// # let segment = waterway::Segment::options().in_process()?;
/// let notify = segment.notify("tick")?;
/// notify.notify_one();
/// notify.notify_one();
/// // Both were stored as one.
/// notify.notified().await;
///
/// let waiting = notify.notified();
/// notify.notify_waiters();
/// waiting.await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// [tokio]: https://docs.rs/tokio/latest/tokio/sync/struct.Notify.html
pub struct Notify {
    port: Arc<Port>,
}

impl Notify {
    pub(crate) fn open(attachment: &Anchor, name: &str) -> Result<Self, OpenError> {
        let name = Name::new(name)?;
        let request = ChannelRequest::of_nothing(name.as_str(), Kind::Notify, None);
        Ok(Self { port: attachment.open_channel(&request, &[End::Sender])? })
    }

    /// Notifies one task of those that wait, in whatever process; if none does, the next that comes. Lock-free, and makes no
    /// system call unless somebody must be woken.
    pub fn notify_one(&self) {
        self.port.notify_one();
    }

    /// Notifies all tasks that wait now, in all processes, and stores nothing. Takes time in proportion to the processes and
    /// to the waiting tasks of this one.
    pub fn notify_waiters(&self) {
        self.port.notify_all();
    }

    /// Waits for a notification. In a forked child it never ends.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, it has fetched no notification, and if it was woken for one, somebody
    /// else is. Its place in the queue is lost.
    pub fn notified(&self) -> Notified<'_> {
        Notified { port: &self.port, wait: Wait::new(&self.port) }
    }

    /// Waits as [`notified`](Self::notified) does; the wait takes the handle with it. Clone the handle to keep one.
    ///
    /// # Cancel safety
    ///
    /// As for [`notified`](Self::notified); and the handle is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let notify = segment.notify("tick")?;
    /// let waiting = notify.clone().notified_owned();
    /// let waiting = std::thread::spawn(|| smol::block_on(waiting));
    /// notify.notify_one();
    /// waiting.join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn notified_owned(self) -> OwnedNotified {
        OwnedNotified { wait: Wait::new(&self.port), notify: self }
    }

    /// Waits for a notification, blocking the thread.
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
    /// let notify = segment.notify("tick")?;
    /// notify.notify_one();
    /// notify.blocking_notified();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_notified(&self) {
        block_on(self.notified());
    }

    /// Waits for a notification, blocking the thread for at most `time`; `false` if there was none. Needs no runtime, and no other thread.
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
    /// let notify = segment.notify("tick")?;
    /// assert!(!notify.blocking_notified_timeout(Duration::from_millis(10)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_notified_timeout(&self, time: Duration) -> bool {
        block_on(timeout(self.port.attachment(), time, self.notified())).is_some()
    }

    /// Whether both are handles of the same notify, through the same [`Segment`](crate::Segment).
    pub fn same_notify(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.port, &other.port)
    }
}

impl Clone for Notify {
    fn clone(&self) -> Self {
        self.port.duplicate(End::Sender);
        Self { port: Arc::clone(&self.port) }
    }
}

impl Drop for Notify {
    fn drop(&mut self) {
        self.port.leave(End::Sender);
    }
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notify").field("channel", &self.port.index()).finish_non_exhaustive()
    }
}

// As for senders: a port has no invariant that a panic could break.
impl UnwindSafe for Notify {}
impl RefUnwindSafe for Notify {}

/// One wait.
#[derive(Debug)]
struct Wait {
    /// How often all had been notified when this was created.
    epoch: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    New,
    /// Counted among those who wait, in two lists: for a notification of one, and for that of all.
    Waiting {
        one: Waiter,
        all: Waiter,
    },
    Done,
}

impl Wait {
    fn new(port: &Port) -> Self {
        let epoch = if port.attachment().is_usable() { port.epoch() } else { 0 };
        Self { epoch, state: State::New }
    }

    fn advance(&mut self, port: &Port) -> bool {
        if matches!(self.state, State::Done) {
            return true;
        }
        // A forked child has no segment.
        if !port.attachment().is_usable() {
            return false;
        }
        self.look(port)
            || matches!(self.state, State::New) && {
                port.begin_to_wait();
                self.state = State::Waiting { one: port.wait_for_message(), all: port.wait_for_epoch(self.epoch) };
                // The places are taken: what happened before is seen now, and what happens from now on wakes us.
                self.look(port)
            }
    }

    /// Looks whether there is a notification, and if so, leaves.
    fn look(&mut self, port: &Port) -> bool {
        // In this order: what is stored is not for those who were all notified.
        let with_all = port.epoch() != self.epoch;
        let notified = with_all || port.fetch_notification();
        if notified {
            self.leave(port, with_all);
        }
        notified
    }

    /// Waits no more. `unused` is whether somebody else is to have the notification for which this was woken, if it was.
    fn leave(&mut self, port: &Port, unused: bool) {
        let State::Waiting { one, all } = std::mem::replace(&mut self.state, State::Done) else { return };
        port.cease_to_wait();
        all.finish();
        if unused {
            drop(one);
        } else {
            one.finish();
        }
    }

    fn poll(&mut self, port: &Port, context: &mut Context<'_>) -> Poll<()> {
        ready!(poll_budget(context));
        loop {
            if self.advance(port) {
                return Poll::Ready(());
            }
            let epoch = self.epoch;
            let State::Waiting { one, all } = &mut self.state else { return Poll::Pending };
            let (one_woken, all_woken) =
                (Pin::new(&mut *one).poll(context).is_ready(), Pin::new(&mut *all).poll(context).is_ready());
            if !one_woken && !all_woken {
                return Poll::Pending;
            }
            // Woken, and we have looked in vain, or must look again: with new places.
            if all_woken {
                *all = port.wait_for_epoch(epoch);
            }
            if one_woken {
                *one = port.wait_for_message();
            }
        }
    }
}

/// Waits for a notification: made by [`Notify::notified`].
#[must_use = "a wait waits only when it is polled"]
pub struct Notified<'a> {
    port: &'a Port,
    wait: Wait,
}

/// Waits for a notification, and has a [`Notify`] of its own, and so can go anywhere: made by [`Notify::notified_owned`].
#[must_use = "a wait waits only when it is polled"]
pub struct OwnedNotified {
    wait: Wait,
    notify: Notify,
}

macro_rules! waits_for_a_notification {
    ($wait:ty, $name:literal, $this:ident, $port:expr) => {
        impl $wait {
            /// Takes a place in the queue without being polled, as the first poll does: from here on this is one of those that
            /// [`Notify::notify_one`] may wake. `true` if it is notified already; then it is done.
            pub fn enable(self: Pin<&mut Self>) -> bool {
                let $this = self.get_mut();
                $this.wait.advance($port)
            }
        }

        impl Future for $wait {
            type Output = ();

            fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
                let $this = self.get_mut();
                $this.wait.poll($port, context)
            }
        }

        impl Drop for $wait {
            fn drop(&mut self) {
                let $this = self;
                $this.wait.leave($port, true);
            }
        }

        impl fmt::Debug for $wait {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let $this = self;
                f.debug_struct($name).field("channel", &$port.index()).field("state", &$this.wait.state).finish()
            }
        }
    };
}

waits_for_a_notification!(Notified<'_>, "Notified", this, this.port);
waits_for_a_notification!(OwnedNotified, "OwnedNotified", this, &this.notify.port);
