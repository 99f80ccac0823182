//! Where a message is written: a slot, and how much of its block was written so far.
//!
//! For a message of elements that is a vector of fixed capacity. Only what was written into it is ever handed out as an
//! element: what else stands in the block may have no bits of one.

use std::{marker::PhantomData, mem::MaybeUninit, slice};

use zerocopy::{Immutable, IntoBytes};

use crate::attachment::{port::Port, reserve::Slot};

/// A slot for a message of `P`, and what was written into it.
#[derive(Debug)]
pub(crate) struct Room<P: ?Sized> {
    slot: Slot,
    /// Elements that were written, of slices.
    written: usize,
    payload: PhantomData<fn(&P)>,
}

impl<P: ?Sized> Room<P> {
    pub(crate) fn new(slot: Slot) -> Self {
        Self { slot, written: 0, payload: PhantomData }
    }

    pub(crate) fn slot_mut(&mut self) -> &mut Slot {
        &mut self.slot
    }

    pub(crate) fn into_slot(self) -> Slot {
        self.slot
    }
}

impl<T: IntoBytes + Immutable> Room<[T]> {
    /// What stands behind the header, written or not.
    fn all<'a>(&'a self, port: &'a Port, header: usize) -> &'a [MaybeUninit<T>] {
        let bytes = port.bytes(&self.slot).get(header..).unwrap_or_default();
        // SAFETY: any bytes may be what is not known to be a `T`.
        unsafe { bytes.align_to().1 }
    }

    /// How many elements there is room for in all.
    pub(crate) fn capacity(&self, port: &Port, header: usize) -> usize {
        self.all(port, header).len()
    }

    /// What was written.
    #[inline]
    pub(crate) fn elements<'a>(&'a self, port: &'a Port, header: usize) -> &'a [T] {
        let written = &self.all(port, header)[..self.written];
        // SAFETY: they were written by a `Vector`, and stand where it was; nobody else writes to the block of a slot.
        unsafe { slice::from_raw_parts(written.as_ptr().cast(), written.len()) }
    }

    /// Forgets what was written.
    pub(crate) fn clear(&mut self) {
        self.written = 0;
    }

    /// To be written.
    #[inline]
    pub(crate) fn vector<'a>(&'a mut self, port: &'a Port, header: usize) -> Vector<'a, T> {
        let bytes = port.bytes_mut(&mut self.slot).get_mut(header..).unwrap_or_default();
        // SAFETY: as in `all`; and whoever writes a `T` writes all of its bytes, as it has no padding.
        Vector { room: unsafe { bytes.align_to_mut().1 }, written: &mut self.written }
    }
}

/// A vector of fixed capacity in a block.
#[derive(Debug)]
pub(crate) struct Vector<'a, T> {
    room: &'a mut [MaybeUninit<T>],
    /// The first so many are values.
    written: &'a mut usize,
}

impl<'a, T: IntoBytes + Immutable> Vector<'a, T> {
    /// How many more there is room for.
    #[inline]
    pub(crate) fn left(&self) -> usize {
        self.room.len() - *self.written
    }

    /// Appends a value, or hands it back.
    #[inline]
    pub(crate) fn push(&mut self, value: T) -> Result<(), T> {
        match self.room.get_mut(*self.written) {
            Some(place) => {
                place.write(value);
                *self.written += 1;
                Ok(())
            }
            None => Err(value),
        }
    }

    /// Appends copies of values: all, or none if there is no room for all.
    #[inline]
    pub(crate) fn append(&mut self, values: &[T]) -> Result<(), NoRoom> {
        let place = self.room[*self.written..].get_mut(..values.len()).ok_or(NoRoom)?;
        // SAFETY: as many as there are places, elsewhere, whose bits are copied: values are bytes here, see `Plain`.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), place.as_mut_ptr().cast(), values.len()) };
        *self.written += values.len();
        Ok(())
    }

    /// Cuts what is beyond `len`, or appends copies of a value, if there is room.
    pub(crate) fn resize(&mut self, len: usize, value: &T) -> Result<(), NoRoom> {
        let places = self.room.get_mut(..len).ok_or(NoRoom)?;
        for place in places.iter_mut().skip(*self.written) {
            // SAFETY: bits are copied, as in `append`.
            unsafe { std::ptr::copy_nonoverlapping(value, place.as_mut_ptr(), 1) };
        }
        *self.written = len;
        Ok(())
    }

    /// What was written.
    #[inline]
    pub(crate) fn into_elements(self) -> &'a mut [T] {
        let written = &mut self.room[..*self.written];
        // SAFETY: they were written.
        unsafe { slice::from_raw_parts_mut(written.as_mut_ptr().cast(), written.len()) }
    }

    /// What was not written yet.
    pub(crate) fn into_rest(self) -> &'a mut [MaybeUninit<T>] {
        &mut self.room[*self.written..]
    }

    /// So many more were written.
    ///
    /// # Safety
    ///
    /// The first so many of [`into_rest`](Self::into_rest) are values.
    pub(crate) unsafe fn advance(&mut self, count: usize) -> Result<(), NoRoom> {
        let after = self.written.checked_add(count).filter(|after| *after <= self.room.len()).ok_or(NoRoom)?;
        *self.written = after;
        Ok(())
    }
}

/// As many elements do not fit.
#[derive(Debug)]
pub(crate) struct NoRoom;
