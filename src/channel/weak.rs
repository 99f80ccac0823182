//! Senders that do not keep a channel open.

use std::{
    fmt,
    marker::PhantomData,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    attachment::{directory::End, port::Port},
    channel::{WaitStrategy, payload::Payload, sender::Sender},
    policy::Rules,
};

/// Counts itself among its clones.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        // Ordering: Relaxed, it is a statistic.
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        Self::new(&self.0)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A sender that does not keep the channel open, nor the process attached to the segment. To send, it must be
/// [upgraded](Self::upgrade).
///
/// Made by [`Sender::downgrade`].
pub struct WeakSender<T: Payload + ?Sized> {
    port: Weak<Port>,
    counted: Counted,
    strategy: WaitStrategy,
    rules: Option<Rules<T::Value>>,
    payload: PhantomData<fn(&T)>,
}

impl<T: Payload + ?Sized> Sender<T> {
    /// A sender that does not keep the channel open.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process().unwrap();
    /// let (sender, receiver) = segment.channel::<u64>("numbers").open()?;
    /// let weak = sender.downgrade();
    /// weak.upgrade().unwrap().try_send(1)?;
    /// drop(sender);
    /// assert!(weak.upgrade().is_none());
    /// assert_eq!(*receiver.try_recv()?, 1);
    /// assert!(receiver.is_closed());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn downgrade(&self) -> WeakSender<T> {
        WeakSender {
            port: Arc::downgrade(&self.port),
            counted: Counted::new(self.port.weak_senders()),
            strategy: self.strategy(),
            rules: self.rules().cloned(),
            payload: PhantomData,
        }
    }

    /// How many senders of the channel this process has, through this [`Segment`](crate::Segment) and its clones.
    pub fn strong_count(&self) -> usize {
        self.port.local_ends(End::Sender)
    }

    /// How many [`WeakSender`]s of the channel this process has, through this [`Segment`](crate::Segment) and its clones.
    pub fn weak_count(&self) -> usize {
        self.port.weak_senders().load(Ordering::Relaxed)
    }

    /// How many participants have a sender of the channel. A process that has several senders counts once; one that has
    /// opened the segment several times, once for each that has a sender; one that was killed, until that is noticed.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process().unwrap();
    /// let (sender, receiver) = segment.channel::<u64>("numbers").open()?;
    /// let another = sender.clone();
    /// assert_eq!((sender.strong_count(), sender.sender_count(), sender.receiver_count()), (2, 1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sender_count(&self) -> usize {
        self.port.participants(End::Sender)
    }

    /// How many participants have a receiver of the channel; counted as in [`sender_count`](Self::sender_count).
    pub fn receiver_count(&self) -> usize {
        self.port.participants(End::Receiver)
    }
}

impl<T: Payload + ?Sized> WeakSender<T> {
    /// A sender; `None` if this process has none any more, even if other processes have: then
    /// [open](crate::ChannelOptions::sender) the channel anew.
    pub fn upgrade(&self) -> Option<Sender<T>> {
        let port = self.port.upgrade()?;
        port.duplicate_if_any(End::Sender).then(|| Sender::with_rules(port, self.strategy, self.rules.clone()))
    }

    /// How many senders of the channel this process has; see [`Sender::strong_count`].
    pub fn strong_count(&self) -> usize {
        self.port.upgrade().map_or(0, |port| port.local_ends(End::Sender))
    }

    /// How many weak ones there are, this one included; see [`Sender::weak_count`].
    pub fn weak_count(&self) -> usize {
        self.counted.0.load(Ordering::Relaxed)
    }
}

impl<T: Payload + ?Sized> Clone for WeakSender<T> {
    fn clone(&self) -> Self {
        Self {
            port: Weak::clone(&self.port),
            counted: self.counted.clone(),
            strategy: self.strategy,
            rules: self.rules.clone(),
            payload: PhantomData,
        }
    }
}

impl<T: Payload + ?Sized> fmt::Debug for WeakSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakSender").finish_non_exhaustive()
    }
}

// As for the sender.
impl<T: Payload + ?Sized> UnwindSafe for WeakSender<T> {}
impl<T: Payload + ?Sized> RefUnwindSafe for WeakSender<T> {}
