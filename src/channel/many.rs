//! Receiving several messages at once, and receiving by polling.

use std::task::{Context, Poll, ready};

use crate::{
    attachment::port::Nothing,
    channel::{message::Message, payload::Payload, poll::Place, receiver::Receiver, wait::block_on},
};

impl<T: Payload + ?Sized> Receiver<T> {
    /// Receives as many messages as wait, up to `limit`, and appends them to `buffer`; if none waits, waits for one.
    /// Returns how many: 0 if the channel is empty and no sender is left, or it was closed; or, at once, if `limit` is 0.
    ///
    /// Counts as one operation for tokio's cooperative budget.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: if the future is dropped before it is done, no message was taken.
    ///
    /// # Examples
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let (sender, receiver) = segment.channel::<u64>("numbers").open()?;
    /// for number in 0..5 {
    ///     sender.send(number).await?;
    /// }
    /// drop(sender);
    /// let mut buffer = Vec::new();
    /// assert_eq!(receiver.recv_many(&mut buffer, 3).await, 3);
    /// assert_eq!(receiver.recv_many(&mut buffer, 3).await, 2);
    /// assert_eq!(receiver.recv_many(&mut buffer, 3).await, 0);
    /// assert_eq!(buffer.len(), 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn recv_many(&self, buffer: &mut Vec<Message<T>>, limit: usize) -> usize {
        if limit == 0 {
            return 0;
        }
        match self.recv().await {
            Some(first) => self.append(buffer, first, limit),
            None => 0,
        }
    }

    /// Receives as many messages as wait, up to `limit`, blocking the thread until there is one. Returns how many, as
    /// [`recv_many`](Self::recv_many) does.
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
    /// sender.blocking_send(1)?;
    /// let mut buffer = Vec::new();
    /// assert_eq!(receiver.blocking_recv_many(&mut buffer, 10), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_recv_many(&self, buffer: &mut Vec<Message<T>>, limit: usize) -> usize {
        block_on(self.recv_many(buffer, limit))
    }

    /// Appends a message and those that wait behind it, `limit` in all at most.
    fn append(&self, buffer: &mut Vec<Message<T>>, first: Message<T>, limit: usize) -> usize {
        buffer.push(first);
        let mut count = 1;
        self.port.prefetch_run(&self.position);
        while count < limit {
            // Two places that append: a message that could come from either would have to be in memory before it is.
            if let Some(next) = self.attempt_at_hand::<true>() {
                buffer.push(next);
            } else if let Ok(next) = self.attempt_slowly() {
                buffer.push(next);
            } else {
                break;
            }
            count += 1;
        }
        count
    }

    /// Receives the next message, or has the task woken when there may be one. `Ready(None)` as for
    /// [`recv`](Self::recv).
    ///
    /// Of several tasks that poll one receiver, only the one that polled last is woken: give each a clone. A receiver that
    /// was polled and said `Pending` stands in the queue of those who wait, until it is polled again or dropped: if
    /// nobody does either, a message may lie for up to 4 seconds before another receiver is woken in its stead.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost between polls.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::{future::poll_fn, pin::pin};
    ///
    /// # smol::block_on(async {
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let (sender, receiver) = segment.channel::<u64>("numbers").open()?;
    /// sender.send(1).await?;
    /// let message = poll_fn(|context| receiver.poll_recv(context)).await;
    /// assert_eq!(*message.unwrap(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn poll_recv(&self, context: &mut Context<'_>) -> Poll<Option<Message<T>>> {
        // Out of its lock meanwhile: what is received may wake others, and their wakers may come back here.
        let mut place = std::mem::take(&mut *self.polled.lock());
        let polled = self.poll_with(&mut place, context);
        // Who polled at the same time and waits keeps its place, unless we wait, too.
        let unused = {
            let mut kept = self.polled.lock();
            if place.is_kept() { std::mem::replace(&mut *kept, place) } else { place }
        };
        drop(unused);
        polled
    }

    /// Receives as many messages as wait, up to `limit`, and appends them to `buffer`; or has the task woken when there
    /// may be one. Returns how many, as [`recv_many`](Self::recv_many) does; otherwise as [`poll_recv`](Self::poll_recv).
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost between polls.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::future::poll_fn;
    ///
    /// # smol::block_on(async {
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let (sender, receiver) = segment.channel::<u64>("numbers").open()?;
    /// sender.send(1).await?;
    /// sender.send(2).await?;
    /// let mut buffer = Vec::new();
    /// assert_eq!(poll_fn(|context| receiver.poll_recv_many(context, &mut buffer, 10)).await, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn poll_recv_many(&self, context: &mut Context<'_>, buffer: &mut Vec<Message<T>>, limit: usize) -> Poll<usize> {
        if limit == 0 {
            return Poll::Ready(0);
        }
        Poll::Ready(match ready!(self.poll_recv(context)) {
            Some(first) => self.append(buffer, first, limit),
            None => 0,
        })
    }

    /// Receives the next message, or waits for it in a place that is kept until the next poll.
    pub(super) fn poll_with(&self, place: &mut Place<()>, context: &mut Context<'_>) -> Poll<Option<Message<T>>> {
        let attempt = || match self.attempt() {
            Ok(message) => Ok(Ok(message)),
            Err(Nothing::Disconnected) => Ok(Err(())),
            Err(Nothing::Empty) => Err(()),
        };
        place.poll(context, Some(&self.patience), attempt, |()| self.port.wait_for_message()).map(Result::ok)
    }
}
