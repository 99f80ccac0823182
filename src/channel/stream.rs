//! A receiver as a stream of the `futures` crates, and as iterators.

use std::{
    fmt,
    panic::{RefUnwindSafe, UnwindSafe},
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;

use crate::channel::{message::Message, payload::Payload, poll::Place, receiver::Receiver};

/// A receiver as a [`Stream`], made by [`Receiver::into_stream`]. It ends when [`Receiver::recv`] would give `None`.
pub struct ReceiverStream<T: Payload + ?Sized> {
    /// Before the receiver, so that it is dropped before it: it looks into the segment.
    place: Place<()>,
    receiver: Receiver<T>,
}

/// A borrowed receiver as a [`Stream`], made by [`Receiver::stream`].
pub struct RecvStream<'a, T: Payload + ?Sized> {
    place: Place<()>,
    receiver: &'a Receiver<T>,
}

impl<T: Payload + ?Sized> Receiver<T> {
    /// The receiver as a [`Stream`] of messages.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::StreamExt;
    ///
    /// # smol::block_on(async {
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let (sender, receiver) = segment.channel::<u64>("numbers").open()?;
    /// sender.send(1).await?;
    /// sender.send(2).await?;
    /// drop(sender);
    /// let sum = receiver.into_stream().fold(0, async |sum, message| sum + *message).await;
    /// assert_eq!(sum, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn into_stream(self) -> ReceiverStream<T> {
        ReceiverStream { place: Place::default(), receiver: self }
    }

    /// A [`Stream`] of messages that borrows the receiver. There may be several at once; each message goes to one.
    ///
    /// # Cancel safety
    ///
    /// Dropping the stream loses nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::StreamExt;
    ///
    /// # smol::block_on(async {
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let (sender, receiver) = segment.channel::<u64>("numbers").open()?;
    /// sender.send(1).await?;
    /// assert_eq!(*receiver.stream().next().await.unwrap(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn stream(&self) -> RecvStream<'_, T> {
        RecvStream { place: Place::default(), receiver: self }
    }

    /// An iterator over the messages that wait now. It waits for none, and takes no more than have waited when it was
    /// made.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let (sender, receiver) = segment.channel::<u64>("numbers").open()?;
    /// sender.try_send(1)?;
    /// sender.try_send(2)?;
    /// assert_eq!(receiver.drain().map(|message| *message).sum::<u64>(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn drain(&self) -> Drain<'_, T> {
        Drain { receiver: self, left: self.len() }
    }

    /// An iterator that blocks the thread until the next message comes, and ends when [`recv`](Self::recv) would give
    /// `None`.
    ///
    /// # Panics
    ///
    /// When it is asked for a message in a task of a tokio runtime, which it would stop.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let (sender, receiver) = segment.channel::<u64>("numbers").open()?;
    /// let sending = std::thread::spawn(move || (1..=3).try_for_each(|number| sender.blocking_send(number)));
    /// assert_eq!(receiver.blocking_iter().map(|message| *message).sum::<u64>(), 6);
    /// sending.join().unwrap()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn blocking_iter(&self) -> BlockingIter<'_, T> {
        BlockingIter { receiver: self }
    }
}

impl<T: Payload + ?Sized> ReceiverStream<T> {
    /// The receiver.
    pub fn receiver(&self) -> &Receiver<T> {
        &self.receiver
    }

    /// The receiver back. Nothing is lost.
    pub fn into_inner(self) -> Receiver<T> {
        self.receiver
    }
}

impl<T: Payload + ?Sized> Stream for ReceiverStream<T> {
    type Item = Message<T>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message<T>>> {
        let Self { place, receiver } = &mut *self;
        receiver.poll_with(place, context)
    }
}

impl<T: Payload + ?Sized> Stream for RecvStream<'_, T> {
    type Item = Message<T>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message<T>>> {
        let Self { place, receiver } = &mut *self;
        receiver.poll_with(place, context)
    }
}

/// The messages that wait now, made by [`Receiver::drain`]. Dropping it leaves the rest where it is.
pub struct Drain<'a, T: Payload + ?Sized> {
    receiver: &'a Receiver<T>,
    left: usize,
}

impl<T: Payload + ?Sized> Iterator for Drain<'_, T> {
    type Item = Message<T>;

    fn next(&mut self) -> Option<Message<T>> {
        self.left = self.left.checked_sub(1)?;
        let message = self.receiver.try_recv().ok();
        if message.is_none() {
            self.left = 0;
        }
        message
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // Another receiver may take them.
        (0, Some(self.left))
    }
}

impl<T: Payload + ?Sized> std::iter::FusedIterator for Drain<'_, T> {}

/// Messages as they come, made by [`Receiver::blocking_iter`].
pub struct BlockingIter<'a, T: Payload + ?Sized> {
    receiver: &'a Receiver<T>,
}

impl<T: Payload + ?Sized> Iterator for BlockingIter<'_, T> {
    type Item = Message<T>;

    #[track_caller]
    fn next(&mut self) -> Option<Message<T>> {
        self.receiver.blocking_recv()
    }
}

macro_rules! shows_its_receiver {
    ($($name:ident $(<$lifetime:lifetime>)?),*) => {$(
        impl<T: Payload + ?Sized> fmt::Debug for $name<$($lifetime,)? T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).field("receiver", &self.receiver).finish_non_exhaustive()
            }
        }
    )*};
}
shows_its_receiver!(ReceiverStream, RecvStream<'_>, Drain<'_>, BlockingIter<'_>);

// As for the receiver; the place is only ever taken or put.
impl<T: Payload + ?Sized> UnwindSafe for ReceiverStream<T> {}
impl<T: Payload + ?Sized> RefUnwindSafe for ReceiverStream<T> {}
impl<T: Payload + ?Sized> UnwindSafe for RecvStream<'_, T> {}
impl<T: Payload + ?Sized> RefUnwindSafe for RecvStream<'_, T> {}
