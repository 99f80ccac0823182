//! A batch that was received, taken apart.

use std::{
    fmt,
    iter::FusedIterator,
    ops::{Deref, Range},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::{
    channel::{message::Message, payload::Plain},
    sys::shares::{Share, Shares},
};

/// What a batch and its parts share.
struct Batch<T: Plain> {
    /// `None` only at the end.
    message: Option<Message<[T]>>,
    /// Whether somebody has not done its part.
    failed: AtomicBool,
}

impl<T: Plain> Batch<T> {
    #[inline]
    fn message(&self) -> &Message<[T]> {
        self.message.as_ref().expect("a batch is there until all have dropped it")
    }

    fn fail(&self) {
        // Ordering: whoever drops the batch synchronises with all who have dropped their shares of it.
        self.failed.store(true, Ordering::Relaxed);
    }

    /// What is dropped by a panic was not done.
    #[inline]
    fn fail_if_panicking(&self) {
        if thread::panicking() {
            self.fail();
        }
    }
}

impl<T: Plain> Drop for Batch<T> {
    fn drop(&mut self) {
        if *self.failed.get_mut()
            && let Some(message) = self.message.take()
        {
            message.nack();
        }
    }
}

/// The parts of a batch that was received, each to be worked on by itself: made by [`Message::into_parts`].
///
/// They share the batch's block, in which they stand; each can go to another thread. The batch is acknowledged, and its block
/// freed, when this iterator and the last of the parts are dropped; those that were never taken from the iterator go with it.
///
/// **At least once.** Where the channel delivers [at least once](crate::Delivery::AtLeastOnce), the batch is what is delivered again,
/// as a whole: if the process dies before all of it was dropped; or, once all of it is, if any part was
/// [given back](Part::nack), or dropped in a thread that was panicking (the iterator, too). Then those that were
/// acknowledged come again with the others.
///
/// It takes one allocation per batch, and one atomic operation per part.
///
/// # Examples
///
/// ```
/// use std::thread;
///
/// # let segment = waterway::Segment::options().in_process()?;
/// let (sender, receiver) = segment.channel::<[u64]>("numbers").open()?;
/// sender.try_send([1, 2, 3])?;
///
/// let workers: Vec<_> = receiver.try_recv()?.into_parts().map(|part| thread::spawn(move || *part * 10)).collect();
/// let results: Vec<u64> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
/// assert_eq!(results, [10, 20, 30]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a batch is acknowledged when its parts are dropped"]
pub struct Parts<T: Plain> {
    batch: Shares<Batch<T>>,
    /// Those that were not taken yet.
    left: Range<usize>,
}

/// One element of a batch that was received, read in place: made by [`Parts`], where it is said what becomes of the batch.
pub struct Part<T: Plain> {
    batch: Share<Batch<T>>,
    index: usize,
}

impl<T: Plain> Message<[T]> {
    /// Takes the batch apart, so that each of its elements can be worked on, and acknowledged, by itself: see [`Parts`].
    pub fn into_parts(self) -> Parts<T> {
        let len = self.len();
        let batch = Batch { message: Some(self), failed: AtomicBool::new(false) };
        Parts { batch: Shares::new(batch, len), left: 0..len }
    }
}

impl<T: Plain> Parts<T> {
    /// The [number](Message::sequence) of the batch.
    pub fn sequence(&self) -> u64 {
        self.batch.message().sequence()
    }

    /// How often the batch was [delivered](Message::delivery_count).
    pub fn delivery_count(&self) -> u32 {
        self.batch.message().delivery_count()
    }

    #[inline]
    fn part(&mut self, index: usize) -> Option<Part<T>> {
        Some(Part { batch: self.batch.share()?, index })
    }
}

impl<T: Plain> Iterator for Parts<T> {
    type Item = Part<T>;

    #[inline]
    fn next(&mut self) -> Option<Part<T>> {
        let index = self.left.next()?;
        self.part(index)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.left.size_hint()
    }
}

impl<T: Plain> DoubleEndedIterator for Parts<T> {
    #[inline]
    fn next_back(&mut self) -> Option<Part<T>> {
        let index = self.left.next_back()?;
        self.part(index)
    }
}

impl<T: Plain> ExactSizeIterator for Parts<T> {}

impl<T: Plain> FusedIterator for Parts<T> {}

impl<T: Plain> Drop for Parts<T> {
    fn drop(&mut self) {
        self.batch.fail_if_panicking();
    }
}

impl<T: Plain> Part<T> {
    /// Acknowledges the part, as dropping it does. The batch is acknowledged when all of it is.
    pub fn ack(self) {
        drop(self);
    }

    /// Gives the part back: the whole batch is delivered again, as by [`Message::nack`], once nobody has a part of it any
    /// more.
    pub fn nack(self) {
        self.batch.fail();
    }

    /// Copies the value out and acknowledges the part.
    pub fn into_inner(self) -> T {
        self.batch.message().body.read_at(self.index)
    }

    /// Which element of its batch it is, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The [number](Message::sequence) of its batch.
    pub fn sequence(&self) -> u64 {
        self.batch.message().sequence()
    }

    /// How often its batch was [delivered](Message::delivery_count).
    pub fn delivery_count(&self) -> u32 {
        self.batch.message().delivery_count()
    }
}

impl<T: Plain> Deref for Part<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.batch.message()[self.index]
    }
}

impl<T: Plain> Drop for Part<T> {
    #[inline]
    fn drop(&mut self) {
        self.batch.fail_if_panicking();
    }
}

impl<T: Plain> fmt::Debug for Parts<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("sequence", &self.sequence()).field("left", &self.len()).finish()
    }
}

impl<T: Plain> fmt::Debug for Part<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("sequence", &self.sequence()).field("index", &self.index).finish_non_exhaustive()
    }
}
