//! Reserved capacity: permits to send.
//!
//! A permit has room for one message, and a block in the segment that is already this process's: sending with it is one
//! CAS, and cannot fail. `attachment/reserve.rs` says how permits are counted, and how who wants many waits.

use std::{
    fmt, io, iter,
    ops::{Deref, DerefMut},
    vec,
};

use bytes::{BufMut, buf::UninitSlice};
use zerocopy::FromZeros;

use crate::{
    alloc::AllocError,
    attachment::{
        port::{Port, Refused},
        reserve::{Patience, Slot},
    },
    channel::{
        error::{SendError, SendErrorKind, TrySendError},
        payload::{BYTES_ALIGN, BYTES_HEADER, Payload, Plain},
        sendable::{Sendable, framed_len, write_header},
        sender::{Sender, Wait, refusal},
    },
};

/// What a permit has.
#[derive(Debug)]
struct Held {
    slot: Slot,
    /// Bytes that were written behind the header: of a permit for bytes.
    written: usize,
}

impl Held {
    fn new(slot: Slot) -> Self {
        Self { slot, written: 0 }
    }

    /// All bytes that a permit for bytes has room for.
    fn room<'a>(&'a mut self, port: &'a Port) -> &'a mut [u8] {
        &mut port.bytes_mut(&mut self.slot)[BYTES_HEADER..]
    }
}

/// A permit to send one message: room in the channel, and a block in the segment.
///
/// Made by [`Sender::reserve`] and its kin. It is no place in the queue: a permit that is held takes room, and delays
/// nobody who finds some. Messages come out in the order in which they were *sent*. Dropping it gives both back, and wakes
/// who waits for them. If the process dies, or leaks it and then drops its last sender of the channel, it comes back, too.
///
/// It can also be used after a receiver has closed the channel: receivers get what is sent with it, and `None` only when no
/// permit is left. If all receivers have left, what is sent is dropped.
///
/// # Permits for bytes
///
/// A `Permit<'_, [u8]>` is like an empty `Vec<u8>` of fixed capacity that stands in the segment. [`bytes::BufMut`] and
/// [`std::io::Write`] append to it, it dereferences to what was appended so far, and [`send`](#method.send-1) sends exactly
/// that, without a copy.
///
/// ```
/// # smol::block_on(async {
/// use std::io::Write;
/// # let segment = waterway::Segment::options().in_process()?;
/// let (sender, receiver) = segment.bytes("log").open()?;
/// let mut line = sender.reserve(100).await?;
/// write!(line, "{} apples", 7)?;
/// line[0] = b'8';
/// line.send();
/// assert_eq!(&receiver.try_recv()?[..], b"8 apples");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// A forked child has no mapping of the segment, so it must not write to the permits that it inherits: that is a fault.
#[must_use = "a permit that is dropped gives its room back"]
pub struct Permit<'a, T: Payload + ?Sized> {
    sender: &'a Sender<T>,
    /// `None` only when it was used.
    held: Option<Held>,
}

/// A [`Permit`] that has a [`Sender`] of its own, and so can go anywhere.
///
/// Made by [`Sender::reserve_owned`] and [`Sender::try_reserve_owned`].
#[must_use = "a permit that is dropped gives its room back"]
pub struct OwnedPermit<T: Payload + ?Sized> {
    /// `None` only when it was used.
    sender: Option<Sender<T>>,
    held: Option<Held>,
}

/// Permits that were had all at once. Dropping it gives back those that it has still got.
///
/// Made by [`Sender::reserve_many`] and [`Sender::try_reserve_many`].
#[must_use = "permits that are dropped give their room back"]
pub struct PermitIterator<'a, T: Payload + ?Sized> {
    sender: &'a Sender<T>,
    slots: vec::IntoIter<Slot>,
}

const USED: &str = "a permit is there until it is used";

impl<'a, T: Payload + ?Sized> Permit<'a, T> {
    fn new(sender: &'a Sender<T>, slot: Slot) -> Self {
        Self { sender, held: Some(Held::new(slot)) }
    }

    /// Whether this permit is one of the sender's channel.
    pub fn same_channel_as_sender(&self, sender: &Sender<T>) -> bool {
        self.sender.same_channel(sender)
    }

    fn sender(&self) -> &Sender<T> {
        self.sender
    }

    fn parts(&self) -> (&Port, &Held) {
        (&self.sender.port, self.held.as_ref().expect(USED))
    }

    fn parts_mut(&mut self) -> (&Port, &mut Held) {
        (&self.sender.port, self.held.as_mut().expect(USED))
    }

    fn commit(mut self) {
        if let Some(held) = self.held.take() {
            self.sender.port.send_slots(&self.sender.position, [held.slot]);
        }
    }
}

impl<T: Payload + ?Sized> OwnedPermit<T> {
    fn new(sender: Sender<T>, slot: Slot) -> Self {
        Self { sender: Some(sender), held: Some(Held::new(slot)) }
    }

    /// Gives the permit back, without sending, and returns the sender.
    pub fn release(mut self) -> Sender<T> {
        self.give_back();
        self.sender.take().expect(USED)
    }

    /// Whether both are of the same channel.
    pub fn same_channel(&self, other: &Self) -> bool {
        self.sender().same_channel(other.sender())
    }

    /// Whether this permit is one of the sender's channel.
    pub fn same_channel_as_sender(&self, sender: &Sender<T>) -> bool {
        self.sender().same_channel(sender)
    }

    fn sender(&self) -> &Sender<T> {
        self.sender.as_ref().expect(USED)
    }

    fn parts(&self) -> (&Port, &Held) {
        (&self.sender().port, self.held.as_ref().expect(USED))
    }

    fn parts_mut(&mut self) -> (&Port, &mut Held) {
        (&self.sender.as_ref().expect(USED).port, self.held.as_mut().expect(USED))
    }

    fn commit(mut self) -> Sender<T> {
        let sender = self.sender.take().expect(USED);
        if let Some(held) = self.held.take() {
            sender.port.send_slots(&sender.position, [held.slot]);
        }
        sender
    }

    fn give_back(&mut self) {
        if let (Some(sender), Some(held)) = (&self.sender, self.held.take()) {
            sender.port.give_back([held.slot]);
        }
    }
}

macro_rules! permit_for_plain_data {
    ($permit:ty, $returns:ty, $returned:literal) => {
        impl<T: Plain> $permit {
            #[doc = concat!("Sends a value", $returned, ". Lock-free; cannot fail, and never waits.")]
            pub fn send(mut self, value: T) -> $returns {
                let marks = self.sender().marks(&value);
                let (port, held) = self.parts_mut();
                Sendable::<T>::writer(&value)(port.bytes_mut(&mut held.slot));
                held.slot.mark(marks);
                self.commit()
            }

            #[doc = concat!("Sends a value that `fill` makes of zeros, in the segment, where it will be read", $returned, ".")]
            /// For values that are large, or come in parts. If `fill` panics, nothing is sent, and the permit is given
            /// back.
            pub fn send_in_place(mut self, fill: impl FnOnce(&mut T)) -> $returns
            where
                T: FromZeros,
            {
                let rules = self.sender().rules().cloned();
                let (port, held) = self.parts_mut();
                let bytes = port.bytes_mut(&mut held.slot);
                bytes.fill(0);
                let value = T::try_mut_from_bytes(bytes);
                let value = value.ok().expect("zeros are a value of the type, and the block has its alignment");
                fill(value);
                let rules = rules.as_ref().map(|rules| rules(value));
                held.slot.mark(rules.unwrap_or_default());
                self.commit()
            }
        }
    };
}

permit_for_plain_data!(Permit<'_, T>, (), "");
permit_for_plain_data!(OwnedPermit<T>, Sender<T>, ", and returns the sender");

macro_rules! permit_for_bytes {
    ($permit:ty, $returns:ty, $returned:literal) => {
        impl $permit {
            #[doc = concat!("Sends the bytes that were written, without a copy", $returned, ".")]
            /// If none were written, an empty message. Lock-free; cannot fail, and never waits.
            pub fn send(mut self) -> $returns {
                let marks = self.sender().marks(&self);
                let (port, held) = self.parts_mut();
                let written = held.written;
                write_header(port.bytes_mut(&mut held.slot), written);
                held.slot.mark(marks);
                self.commit()
            }

            /// Bytes that were reserved: so many can be written in all.
            pub fn capacity(&self) -> usize {
                let (port, held) = self.parts();
                port.bytes(&held.slot).len() - BYTES_HEADER
            }

            /// Makes the message `len` bytes long: cuts what is beyond, or appends bytes of that value.
            ///
            /// # Panics
            ///
            /// If `len` is more than the [`capacity`](Self::capacity).
            pub fn resize(&mut self, len: usize, value: u8) {
                let (port, held) = self.parts_mut();
                let written = held.written;
                if len > written {
                    held.room(port)[written..len].fill(value);
                }
                held.written = len;
            }

            /// Forgets what was written.
            pub fn clear(&mut self) {
                self.parts_mut().1.written = 0;
            }
        }

        /// What was written so far.
        impl Deref for $permit {
            type Target = [u8];

            fn deref(&self) -> &[u8] {
                let (port, held) = self.parts();
                &port.bytes(&held.slot)[BYTES_HEADER..][..held.written]
            }
        }

        impl DerefMut for $permit {
            fn deref_mut(&mut self) -> &mut [u8] {
                let (port, held) = self.parts_mut();
                let written = held.written;
                &mut held.room(port)[..written]
            }
        }

        /// Appends. Writes less than it was given only where there is no room for all of it, and 0 bytes if there is none.
        impl io::Write for $permit {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let len = bytes.len().min(self.remaining_mut());
                self.put_slice(&bytes[..len]);
                Ok(len)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        // SAFETY: `chunk_mut` is what is behind the bytes that were written, all of it, and `advance_mut` counts what was
        // written there. (`BufMut` is an unsafe trait because others rely on that.)
        unsafe impl BufMut for $permit {
            fn remaining_mut(&self) -> usize {
                self.capacity() - self.parts().1.written
            }

            fn chunk_mut(&mut self) -> &mut UninitSlice {
                let (port, held) = self.parts_mut();
                let written = held.written;
                UninitSlice::new(&mut held.room(port)[written..])
            }

            // SAFETY: the caller says that so many bytes were written; shared memory is initialised in any case.
            unsafe fn advance_mut(&mut self, count: usize) {
                assert!(
                    count <= self.remaining_mut(),
                    "advanced by {count} bytes, where there are {}",
                    self.remaining_mut()
                );
                self.parts_mut().1.written += count;
            }
        }
    };
}

permit_for_bytes!(Permit<'_, [u8]>, (), "");
permit_for_bytes!(OwnedPermit<[u8]>, Sender<[u8]>, ", and returns the sender");

impl<T: Payload + ?Sized> Drop for Permit<'_, T> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.sender.port.give_back([held.slot]);
        }
    }
}

impl<T: Payload + ?Sized> Drop for OwnedPermit<T> {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl<'a, T: Payload + ?Sized> Iterator for PermitIterator<'a, T> {
    type Item = Permit<'a, T>;

    fn next(&mut self) -> Option<Permit<'a, T>> {
        self.slots.next().map(|slot| Permit::new(self.sender, slot))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.slots.size_hint()
    }
}

impl<T: Payload + ?Sized> PermitIterator<'_, T> {
    /// Sends what was written into the blocks.
    fn send(mut self) {
        self.sender.port.send_slots(&self.sender.position, self.slots.by_ref());
    }
}

impl<T: Payload + ?Sized> ExactSizeIterator for PermitIterator<'_, T> {}

impl<T: Payload + ?Sized> iter::FusedIterator for PermitIterator<'_, T> {}

impl<T: Payload + ?Sized> Drop for PermitIterator<'_, T> {
    fn drop(&mut self) {
        self.sender.port.give_back(self.slots.by_ref());
    }
}

impl<T: Payload + ?Sized> fmt::Debug for Permit<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("channel", &self.sender.port.index()).finish_non_exhaustive()
    }
}

impl<T: Payload + ?Sized> fmt::Debug for OwnedPermit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedPermit").field("sender", &self.sender).finish_non_exhaustive()
    }
}

impl<T: Payload + ?Sized> fmt::Debug for PermitIterator<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("PermitIterator");
        debug.field("channel", &self.sender.port.index()).field("left", &self.len()).finish()
    }
}

/// Reserving, whatever the payload.
impl<T: Payload + ?Sized> Sender<T> {
    /// One slot, now.
    fn attempt_slot(&self, size: usize, align: usize) -> Result<Slot, Refused> {
        self.port.try_reserve(&self.position, 1, Patience::None, || self.port.slot(size, align))
    }

    /// One slot, as soon as there is room and memory.
    async fn slot(&self, size: usize, align: usize) -> Result<Slot, SendErrorKind> {
        self.until_done(|| self.attempt_slot(size, align).map_err(Wait::sort)).await
    }

    /// What `allocate` makes for so many messages.
    fn attempt_slots<'a>(
        &'a self,
        messages: usize,
        patience: Patience<'a, '_>,
        allocate: impl FnOnce(&'a Port) -> Result<Vec<Slot>, AllocError>,
    ) -> Result<PermitIterator<'a, T>, Result<Wait, SendErrorKind>> {
        let capacity = self.max_capacity();
        if messages > capacity {
            return Err(Err(SendErrorKind::TooMany { asked: messages, capacity }));
        }
        let slots = match messages {
            0 if self.is_closed() => return Err(Err(SendErrorKind::Closed)),
            0 => Vec::new(),
            // A capacity, and so a number up to it, has fewer than 32 bits: see `ChannelOptions::capacity`.
            _ => {
                let reserved =
                    self.port.try_reserve(&self.position, messages as u32, patience, || allocate(&self.port));
                reserved.map_err(|refused| match refused {
                    Refused::Full => Ok(Wait::ManyRooms),
                    refused => match Wait::sort(refused) {
                        Ok(Wait::Memory) if messages > 1 => Ok(Wait::ManyBlocks),
                        sorted => sorted,
                    },
                })?
            }
        };
        Ok(PermitIterator { sender: self, slots: slots.into_iter() })
    }

    /// The same, as soon as there is room and memory for all.
    async fn slots<'a>(
        &'a self,
        messages: usize,
        allocate: impl Fn(&'a Port) -> Result<Vec<Slot>, AllocError>,
    ) -> Result<PermitIterator<'a, T>, SendError<()>> {
        let mut line = None;
        let attempt = || match self.attempt_slots(messages, Patience::Line(&mut line), &allocate) {
            Err(Ok(Wait::ManyRooms)) if line.is_some() => Err(Ok(Wait::InLine)),
            outcome => outcome,
        };
        let reserved = self.until_done(attempt).await;
        reserved.map_err(|kind| SendError((), kind))
    }
}

impl<T: Plain> Sender<T> {
    /// Reserves room and memory for a message, waiting for both.
    ///
    /// # Errors
    ///
    /// [`SendError`], at once: if the channel is closed, or if the message can never fit.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, nothing was reserved.
    pub async fn reserve(&self) -> Result<Permit<'_, T>, SendError<()>> {
        let slot = self.slot(size_of::<T>(), align_of::<T>()).await;
        slot.map(|slot| Permit::new(self, slot)).map_err(|kind| SendError((), kind))
    }

    /// Reserves room and memory for a message if there are both now. Lock-free.
    ///
    /// # Errors
    ///
    /// [`TrySendError`].
    pub fn try_reserve(&self) -> Result<Permit<'_, T>, TrySendError<()>> {
        let slot = self.attempt_slot(size_of::<T>(), align_of::<T>());
        slot.map(|slot| Permit::new(self, slot)).map_err(|refused| refusal((), Wait::sort(refused)))
    }

    /// Reserves room and memory for so many messages, all at once, waiting for both.
    ///
    /// It does not starve beside small sends: it waits at the head of a line, with what it wants already counted, so that
    /// nobody gets past it; only those who want many wait for each other, in no particular order. Who holds permits
    /// and waits for many that are only to be had with those waits for itself, as in tokio. So does who does not poll the
    /// future and does not drop it: meanwhile others may find no room.
    ///
    /// # Errors
    ///
    /// [`SendError`], at once: if the channel is closed, if so many are more than its capacity, or if the messages can never
    /// fit into the segment.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, nothing was reserved, and its place in the line is given up.
    pub async fn reserve_many(&self, messages: usize) -> Result<PermitIterator<'_, T>, SendError<()>> {
        self.slots(messages, plain_slots::<T>(messages)).await
    }

    /// Reserves room and memory for so many messages if there are both now. Lock-free.
    ///
    /// # Errors
    ///
    /// [`TrySendError`]: `Full` also if so many are more than the channel's capacity.
    pub fn try_reserve_many(&self, messages: usize) -> Result<PermitIterator<'_, T>, TrySendError<()>> {
        let reserved = self.attempt_slots(messages, Patience::None, plain_slots::<T>(messages));
        reserved.map_err(|refused| refusal((), refused))
    }

    /// Reserves as [`reserve`](Self::reserve); the permit takes the sender with it. Clone the sender to keep one.
    ///
    /// # Errors
    ///
    /// As for [`reserve`](Self::reserve). The sender is dropped then.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, nothing was reserved, and the sender is dropped.
    pub async fn reserve_owned(self) -> Result<OwnedPermit<T>, SendError<()>> {
        match self.slot(size_of::<T>(), align_of::<T>()).await {
            Ok(slot) => Ok(OwnedPermit::new(self, slot)),
            Err(kind) => Err(SendError((), kind)),
        }
    }

    /// Reserves as [`try_reserve`](Self::try_reserve); the permit takes the sender with it.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with the sender.
    pub fn try_reserve_owned(self) -> Result<OwnedPermit<T>, TrySendError<Self>> {
        match self.attempt_slot(size_of::<T>(), align_of::<T>()) {
            Ok(slot) => Ok(OwnedPermit::new(self, slot)),
            Err(refused) => Err(refusal(self, Wait::sort(refused))),
        }
    }

    /// Sends copies of all these values, in their order, as soon as there is room and memory for all of them: all or none.
    /// Messages of others may come between them.
    ///
    /// # Errors
    ///
    /// As for [`reserve_many`](Self::reserve_many); then none was sent.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, none was sent.
    pub async fn send_many(&self, values: &[T]) -> Result<(), SendError<()>> {
        let mut reserved = self.reserve_many(values.len()).await?;
        for (slot, value) in reserved.slots.as_mut_slice().iter_mut().zip(values) {
            Sendable::<T>::writer(value)(self.port.bytes_mut(slot));
            slot.mark(self.marks(value));
        }
        reserved.send();
        Ok(())
    }
}

fn plain_slots<T>(messages: usize) -> impl Fn(&Port) -> Result<Vec<Slot>, AllocError> {
    move |port| port.slots(iter::repeat_n(size_of::<T>(), messages), align_of::<T>())
}

impl Sender<[u8]> {
    /// Reserves room and memory for a message of up to `len` bytes, waiting for both.
    ///
    /// # Errors
    ///
    /// [`SendError`], at once: if the channel is closed, or if that many bytes can never fit.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, nothing was reserved.
    pub async fn reserve(&self, len: usize) -> Result<Permit<'_, [u8]>, SendError<()>> {
        let slot = self.slot(framed_len(len), BYTES_ALIGN).await;
        slot.map(|slot| Permit::new(self, slot)).map_err(|kind| SendError((), kind))
    }

    /// Reserves room and memory for a message of up to `len` bytes if there are both now. Lock-free.
    ///
    /// # Errors
    ///
    /// [`TrySendError`].
    pub fn try_reserve(&self, len: usize) -> Result<Permit<'_, [u8]>, TrySendError<()>> {
        let slot = self.attempt_slot(framed_len(len), BYTES_ALIGN);
        slot.map(|slot| Permit::new(self, slot)).map_err(|refused| refusal((), Wait::sort(refused)))
    }

    /// Reserves room and memory for so many messages of up to `len` bytes each, all at once, waiting for both. It does not
    /// starve beside small sends: it waits at the head of a line, with what it wants already counted, so that nobody gets
    /// past it; only those who want many wait for each other, in no particular order. Who holds permits and waits for many
    /// that are only to be had with those waits for itself, as in tokio.
    ///
    /// # Errors
    ///
    /// [`SendError`], at once: if the channel is closed, if so many are more than its capacity, or if the messages can never
    /// fit into the segment.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, nothing was reserved, and its place in the line is given up.
    pub async fn reserve_many(&self, messages: usize, len: usize) -> Result<PermitIterator<'_, [u8]>, SendError<()>> {
        self.slots(messages, bytes_slots(iter::repeat_n(len, messages))).await
    }

    /// Reserves room and memory for so many messages of up to `len` bytes each if there are both now. Lock-free.
    ///
    /// # Errors
    ///
    /// [`TrySendError`]: `Full` also if so many are more than the channel's capacity.
    pub fn try_reserve_many(&self, messages: usize, len: usize) -> Result<PermitIterator<'_, [u8]>, TrySendError<()>> {
        let reserved = self.attempt_slots(messages, Patience::None, bytes_slots(iter::repeat_n(len, messages)));
        reserved.map_err(|refused| refusal((), refused))
    }

    /// Reserves as [`reserve`](Self::reserve); the permit takes the sender with it. Clone the sender to keep one.
    ///
    /// # Errors
    ///
    /// As for [`reserve`](Self::reserve). The sender is dropped then.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, nothing was reserved, and the sender is dropped.
    pub async fn reserve_owned(self, len: usize) -> Result<OwnedPermit<[u8]>, SendError<()>> {
        match self.slot(framed_len(len), BYTES_ALIGN).await {
            Ok(slot) => Ok(OwnedPermit::new(self, slot)),
            Err(kind) => Err(SendError((), kind)),
        }
    }

    /// Reserves as [`try_reserve`](Self::try_reserve); the permit takes the sender with it.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with the sender.
    pub fn try_reserve_owned(self, len: usize) -> Result<OwnedPermit<[u8]>, TrySendError<Self>> {
        match self.attempt_slot(framed_len(len), BYTES_ALIGN) {
            Ok(slot) => Ok(OwnedPermit::new(self, slot)),
            Err(refused) => Err(refusal(self, Wait::sort(refused))),
        }
    }

    /// Sends all these messages, in their order, as soon as there is room and memory for all of them: all or none. Messages
    /// of others may come between them.
    ///
    /// # Errors
    ///
    /// As for [`reserve_many`](Self::reserve_many); then none was sent.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, none was sent.
    pub async fn send_many<B: AsRef<[u8]>>(&self, messages: &[B]) -> Result<(), SendError<()>> {
        let lens = messages.iter().map(|bytes| bytes.as_ref().len());
        let mut reserved = self.slots(messages.len(), bytes_slots(lens)).await?;
        for (slot, bytes) in reserved.slots.as_mut_slice().iter_mut().zip(messages) {
            // Whoever is asked twice may answer twice: there is room for what it said first.
            let (block, bytes) = (self.port.bytes_mut(slot), bytes.as_ref());
            let payload = &mut block[BYTES_HEADER..];
            let len = bytes.len().min(payload.len());
            payload[..len].copy_from_slice(&bytes[..len]);
            write_header(block, len);
            slot.mark(self.marks(&bytes[..len]));
        }
        reserved.send();
        Ok(())
    }
}

fn bytes_slots(lens: impl Iterator<Item = usize> + Clone) -> impl Fn(&Port) -> Result<Vec<Slot>, AllocError> {
    move |port| port.slots(lens.clone().map(framed_len), BYTES_ALIGN)
}
