//! Reserved capacity: permits to send.
//!
//! A permit has room for one message, and a block in the segment that is already this process's: sending with it is one
//! CAS, and cannot fail. [`reserve`](super::reserve) makes them; `attachment/reserve.rs` says how they are counted, and how who
//! wants many waits.

use std::{
    fmt, io, iter,
    ops::{Deref, DerefMut},
    vec,
};

use bytes::{BufMut, buf::UninitSlice};
use zerocopy::{FromZeros, TryFromBytes};

use crate::{
    attachment::{
        port::Port,
        reserve::Slot,
        room::{Room, Vector},
    },
    channel::{
        payload::{Payload, Plain, header},
        sendable::{Sendable, write_header},
        sender::Sender,
    },
};

/// A permit to send one message: room in the channel, and a block in the segment.
///
/// Made by [`Sender::reserve`] and its kin. It is no place in the queue: a permit that is held takes room, and delays
/// nobody who finds some. Messages come out in the order in which they were *sent*. Dropping it gives both back, and wakes
/// who waits for them. If the process dies, or leaks it and then drops its last sender of the channel, it comes back, too.
///
/// It can also be used after a receiver has closed the channel: receivers get what is sent with it, and `None` only when no
/// permit is left. If all receivers have left, what is sent is dropped.
///
/// # Permits for slices
///
/// A `Permit<'_, [T]>` is like an empty `Vec<T>` of fixed capacity that stands in the segment: values are pushed or extended
/// to it, it dereferences to what was appended so far, and [`send`](#method.send-1) sends exactly that, without a copy.
/// [`bytes::BufMut`] and [`std::io::Write`] append to one for bytes.
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
/// A forked child has no mapping of the segment: what it writes to a permit that it inherits is seen by nobody.
#[must_use = "a permit that is dropped gives its room back"]
pub struct Permit<'a, T: Payload + ?Sized> {
    sender: &'a Sender<T>,
    /// `None` only when it was used.
    held: Option<Room<T>>,
}

/// A [`Permit`] that has a [`Sender`] of its own, and so can go anywhere.
///
/// Made by [`Sender::reserve_owned`] and [`Sender::try_reserve_owned`].
#[must_use = "a permit that is dropped gives its room back"]
pub struct OwnedPermit<T: Payload + ?Sized> {
    /// `None` only when it was used.
    sender: Option<Sender<T>>,
    held: Option<Room<T>>,
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
    pub(super) fn new(sender: &'a Sender<T>, slot: Slot) -> Self {
        Self { sender, held: Some(Room::new(slot)) }
    }

    /// Whether this permit is one of the sender's channel.
    pub fn same_channel_as_sender(&self, sender: &Sender<T>) -> bool {
        self.sender.same_channel(sender)
    }

    fn sender(&self) -> &Sender<T> {
        self.sender
    }

    fn parts(&self) -> (&Port, &Room<T>) {
        (&self.sender.port, self.held.as_ref().expect(USED))
    }

    fn parts_mut(&mut self) -> (&Port, &mut Room<T>) {
        (&self.sender.port, self.held.as_mut().expect(USED))
    }

    fn commit(mut self) {
        if let Some(held) = self.held.take() {
            self.sender.port.send_slots(&self.sender.position, [held.into_slot()]);
        }
    }
}

impl<T: Payload + ?Sized> OwnedPermit<T> {
    pub(super) fn new(sender: Sender<T>, slot: Slot) -> Self {
        Self { sender: Some(sender), held: Some(Room::new(slot)) }
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

    fn parts(&self) -> (&Port, &Room<T>) {
        (&self.sender().port, self.held.as_ref().expect(USED))
    }

    fn parts_mut(&mut self) -> (&Port, &mut Room<T>) {
        (&self.sender.as_ref().expect(USED).port, self.held.as_mut().expect(USED))
    }

    fn commit(mut self) -> Sender<T> {
        let sender = self.sender.take().expect(USED);
        if let Some(held) = self.held.take() {
            sender.port.send_slots(&sender.position, [held.into_slot()]);
        }
        sender
    }

    fn give_back(&mut self) {
        if let (Some(sender), Some(held)) = (&self.sender, self.held.take()) {
            sender.port.give_back([held.into_slot()]);
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
                Sendable::<T>::writer(&value)(port.bytes_mut(held.slot_mut()));
                held.slot_mut().mark(marks);
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
                let bytes = port.bytes_mut(held.slot_mut());
                bytes.fill(0);
                let value = <[T; 1]>::try_mut_from_bytes(bytes).ok().map(|[value]| value);
                let value = value.expect("zeros are a value of the type, and the block has its alignment");
                fill(value);
                let rules = rules.as_ref().map(|rules| rules(value));
                held.slot_mut().mark(rules.unwrap_or_default());
                self.commit()
            }
        }
    };
}

permit_for_plain_data!(Permit<'_, T>, (), "");
permit_for_plain_data!(OwnedPermit<T>, Sender<T>, ", and returns the sender");

macro_rules! permit_for_slices {
    ($permit:ty, $returns:ty, $returned:literal) => {
        impl<T: Plain> $permit {
            #[doc = concat!("Sends what was written, without a copy", $returned, ".")]
            /// If nothing was written, an empty message. Lock-free; cannot fail, and never waits.
            pub fn send(mut self) -> $returns {
                let marks = self.sender().marks(&self);
                let len = size_of_val(&*self);
                let (port, held) = self.parts_mut();
                write_header(port.bytes_mut(held.slot_mut()), header::<T>(), len);
                held.slot_mut().mark(marks);
                self.commit()
            }

            /// Elements that were reserved: so many can be written in all.
            pub fn capacity(&self) -> usize {
                let (port, held) = self.parts();
                held.capacity(port, header::<T>())
            }

            /// Appends a value.
            ///
            /// # Panics
            ///
            /// If as many were written as the [`capacity`](Self::capacity).
            #[inline]
            #[track_caller]
            pub fn push(&mut self, value: T) {
                if self.try_push(value).is_err() {
                    is_full(1, 0);
                }
            }

            /// Appends a value, or hands it back if as many were written as the [`capacity`](Self::capacity).
            ///
            /// # Errors
            ///
            /// The value.
            #[inline]
            pub fn try_push(&mut self, value: T) -> Result<(), T> {
                self.vector().push(value)
            }

            /// Appends copies of values.
            ///
            /// # Panics
            ///
            /// If there is no room for all of them; then none is appended.
            #[track_caller]
            pub fn extend_from_slice(&mut self, values: &[T]) {
                let mut vector = self.vector();
                if vector.append(values).is_err() {
                    is_full(values.len(), vector.left());
                }
            }

            /// Makes the message `len` elements long: cuts what is beyond, or appends copies of that value.
            ///
            /// # Panics
            ///
            /// If `len` is more than the [`capacity`](Self::capacity).
            #[track_caller]
            pub fn resize(&mut self, len: usize, value: T) {
                let mut vector = self.vector();
                if vector.resize(len, &value).is_err() {
                    let left = vector.left();
                    is_full(len - self.len(), left);
                }
            }

            /// Forgets what was written.
            pub fn clear(&mut self) {
                self.parts_mut().1.clear();
            }

            #[inline]
            fn vector(&mut self) -> Vector<'_, T> {
                let (port, held) = self.parts_mut();
                held.vector(port, header::<T>())
            }
        }

        /// What was written so far.
        impl<T: Plain> Deref for $permit {
            type Target = [T];

            #[inline]
            fn deref(&self) -> &[T] {
                let (port, held) = self.parts();
                held.elements(port, header::<T>())
            }
        }

        impl<T: Plain> DerefMut for $permit {
            #[inline]
            fn deref_mut(&mut self) -> &mut [T] {
                self.vector().into_elements()
            }
        }

        /// Appends. Panics if there is no room for a value; those before it are written then.
        impl<T: Plain> Extend<T> for $permit {
            #[inline]
            fn extend<I: IntoIterator<Item = T>>(&mut self, values: I) {
                let mut vector = self.vector();
                values.into_iter().for_each(|value| {
                    if vector.push(value).is_err() {
                        is_full(1, 0);
                    }
                });
            }
        }
    };
}

permit_for_slices!(Permit<'_, [T]>, (), "");
permit_for_slices!(OwnedPermit<[T]>, Sender<[T]>, ", and returns the sender");

#[cold]
#[track_caller]
fn is_full(more: usize, left: usize) -> ! {
    panic!("{more} more cannot be written, as the permit has room for {left} more: reserve a larger one")
}

macro_rules! permit_for_bytes {
    ($permit:ty) => {
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
                self.capacity() - self.len()
            }

            fn chunk_mut(&mut self) -> &mut UninitSlice {
                UninitSlice::uninit(self.vector().into_rest())
            }

            // SAFETY: the caller says that so many bytes were written.
            unsafe fn advance_mut(&mut self, count: usize) {
                let mut vector = self.vector();
                // SAFETY: as above.
                if unsafe { vector.advance(count) }.is_err() {
                    panic!("advanced by {count} bytes, where there are {}", vector.left());
                }
            }
        }
    };
}

permit_for_bytes!(Permit<'_, [u8]>);
permit_for_bytes!(OwnedPermit<[u8]>);

impl<T: Payload + ?Sized> Drop for Permit<'_, T> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.sender.port.give_back([held.into_slot()]);
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

impl<'a, T: Payload + ?Sized> PermitIterator<'a, T> {
    pub(super) fn new(sender: &'a Sender<T>, slots: Vec<Slot>) -> Self {
        Self { sender, slots: slots.into_iter() }
    }

    /// The slots, in their order.
    pub(super) fn slots(&mut self) -> &mut [Slot] {
        self.slots.as_mut_slice()
    }

    /// Sends what was written into the blocks.
    pub(super) fn send(mut self) {
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
