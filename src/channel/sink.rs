//! A sender as a sink of the `futures` crates.

use std::{
    fmt,
    panic::{RefUnwindSafe, UnwindSafe},
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_sink::Sink;

use crate::channel::{
    error::{SendError, SendErrorKind},
    payload::Payload,
    poll::Place,
    sendable::Sendable,
    sender::{Sender, Wait},
};

/// A sender as a [`Sink`], made by [`Sender::into_sink`]. It holds at most one value, which waits for room or memory.
///
/// Closing it flushes it and drops the sender. A value that still waits when the sink is dropped is lost.
pub struct SenderSink<P: Payload + ?Sized, V> {
    /// Before the sender, so that it is dropped before it: it looks into the segment.
    place: Place<Wait>,
    waiting: Option<V>,
    /// `None` when closed.
    sender: Option<Sender<P>>,
}

impl<T: Payload + ?Sized> Sender<T> {
    /// The sender as a [`Sink`].
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::{SinkExt, StreamExt, stream};
    ///
    /// # smol::block_on(async {
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let (sender, receiver) = segment.channel::<u64>("numbers").open()?;
    /// let mut sink = sender.into_sink();
    /// sink.send_all(&mut stream::iter([1, 2, 3].map(Ok))).await?;
    /// sink.close().await?;
    /// let received: Vec<u64> = receiver.into_stream().map(|message| *message).collect().await;
    /// assert_eq!(received, [1, 2, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn into_sink<V: Sendable<T>>(self) -> SenderSink<T, V> {
        SenderSink { place: Place::default(), waiting: None, sender: Some(self) }
    }
}

impl<P: Payload + ?Sized, V> SenderSink<P, V> {
    /// The sender; `None` once the sink is closed.
    pub fn sender(&self) -> Option<&Sender<P>> {
        self.sender.as_ref()
    }
}

/// A value that waits is moved only between polls, and is never pinned.
impl<P: Payload + ?Sized, V> Unpin for SenderSink<P, V> {}

impl<P: Payload + ?Sized, V: Sendable<P>> Sink<V> for SenderSink<P, V> {
    type Error = SendError<V>;

    fn poll_ready(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), SendError<V>>> {
        self.poll_flush(context)
    }

    fn start_send(mut self: Pin<&mut Self>, value: V) -> Result<(), SendError<V>> {
        assert!(self.waiting.is_none(), "start_send without a poll_ready that said yes");
        let Some(sender) = &self.sender else { return Err(SendError(value, SendErrorKind::Closed)) };
        match sender.attempt_value(&value, value.block_len()) {
            Ok(()) => Ok(()),
            Err(Err(kind)) => Err(SendError(value, kind)),
            Err(Ok(_)) => {
                self.waiting = Some(value);
                Ok(())
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), SendError<V>>> {
        let Self { place, waiting, sender } = &mut *self;
        let (Some(value), Some(sender)) = (waiting.as_ref(), sender.as_ref()) else { return Poll::Ready(Ok(())) };
        let sent = ready!(sender.poll_send_value(place, value, context));
        let value = waiting.take();
        Poll::Ready(match (sent, value) {
            (Err(kind), Some(value)) => Err(SendError(value, kind)),
            _ => Ok(()),
        })
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), SendError<V>>> {
        let flushed = ready!(self.as_mut().poll_flush(context));
        self.sender = None;
        Poll::Ready(flushed)
    }
}

impl<P: Payload + ?Sized, V> fmt::Debug for SenderSink<P, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SenderSink")
            .field("sender", &self.sender)
            .field("is_waiting", &self.waiting.is_some())
            .finish_non_exhaustive()
    }
}

// As for the sender; the place is only ever taken or put.
impl<P: Payload + ?Sized, V: UnwindSafe> UnwindSafe for SenderSink<P, V> {}
impl<P: Payload + ?Sized, V: RefUnwindSafe> RefUnwindSafe for SenderSink<P, V> {}
