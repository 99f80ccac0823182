//! Which lane a thread works in: found through a thread-local, given back when the thread ends.

use std::{
    cell::{Cell, RefCell},
    ptr::NonNull,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    alloc::Worker,
    attachment::Attachment,
    sys::{held::Held, tally::Count},
};

/// A thread's worker in one segment.
struct Seat {
    /// The attachment's number, unique in the process.
    key: u64,
    attachment: Weak<Attachment>,
    place: NonNull<Place>,
}

/// What a thread has in a segment.
struct Place {
    worker: Worker,
    /// Messages that this process has, as far as this thread knows of them.
    count: Arc<Count>,
}

impl Seat {
    /// The place, to which nobody has a reference.
    fn leave(self) -> (Weak<Attachment>, Place) {
        // SAFETY: made from a box, in `change`, and given up here, once.
        (self.attachment, *unsafe { Box::from_raw(self.place.as_ptr()) })
    }
}

/// All seats of a thread.
#[derive(Default)]
struct Seats(RefCell<Vec<Seat>>);

impl Drop for Seats {
    fn drop(&mut self) {
        FRONT.with(Front::clear);
        for seat in self.0.take() {
            let (attachment, place) = seat.leave();
            if let Some(attachment) = attachment.upgrade() {
                attachment.guests.retire(&place.count);
                attachment.retire(place.worker);
            }
        }
    }
}

/// The seat that was used last. Apart, because it is found without a look whether the thread is ending.
struct Front {
    /// Whose seat it is; 0: there is none, or it is in use.
    key: Cell<u64>,
    /// Dangling if there is none.
    place: Cell<NonNull<Place>>,
}

impl Front {
    fn clear(&self) {
        self.key.set(0);
        self.place.set(NonNull::dangling());
    }

    fn is_in_use(&self) -> bool {
        self.key.get() == 0 && self.place.get() != NonNull::dangling()
    }
}

thread_local! {
    static FRONT: Front = const { Front { key: Cell::new(0), place: Cell::new(NonNull::dangling()) } };
    static SEATS: Seats = Seats::default();
}

/// A number for an attachment that no other in this process ever has.
pub(super) fn next_key() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The front seat while it is in use.
struct Taken<'a> {
    front: &'a Front,
    key: u64,
}

impl Drop for Taken<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.front.key.set(self.key);
    }
}

/// The thread's front seat.
#[inline(always)]
fn front() -> &'static Front {
    let front = FRONT.with(|front| NonNull::from(front));
    // SAFETY: a thread-local that needs no destructor: it lives as long as the thread does, and is not `Sync`, so that the
    // reference stays in the thread.
    unsafe { front.as_ref() }
}

/// Runs `work` with the thread's worker in the segment of `attachment`, or gives it back if there is none to be had: the
/// thread is ending, all lanes are taken, or the thread is in the middle of something in another segment.
#[inline(always)]
pub(super) fn with<R, W: FnOnce(&mut Worker) -> R>(attachment: &Attachment, work: W) -> Result<R, W> {
    let front = front();
    if front.key.get() != attachment.key() && !change(front, attachment) {
        return Err(work);
    }
    let mut place = front.place.get();
    front.key.set(0);
    let _taken = Taken { front, key: attachment.key() };
    // Who comes back meanwhile would find the seat in use.
    let _held = Held::new();
    // SAFETY: the worker of a seat of this thread, which stays until the thread ends or another seat has come to the front.
    // While it is in use the key is 0: nobody gets here, and no other seat comes to the front.
    Ok(work(unsafe { &mut place.as_mut().worker }))
}

/// The thread's worker, if the seat is in front. Not by a closure: that would be a function of its own, and have its results in
/// memory.
///
/// # Safety
///
/// While it is used nobody must get here again, by any way.
#[allow(clippy::mut_from_ref)] // It is not part of the attachment, but of the thread.
#[inline(always)]
pub(super) unsafe fn at_hand(attachment: &Attachment) -> Option<&mut Worker> {
    let front = front();
    if front.key.get() != attachment.key() {
        return None;
    }
    // SAFETY: as above, and the caller keeps everybody else from getting here.
    Some(unsafe { &mut front.place.get().as_mut().worker })
}

/// The thread's count of the messages of `attachment`, if the seat is in front. It stays where it is until the thread sits down in
/// another segment.
#[inline(always)]
pub(super) fn count(attachment: &Attachment) -> Option<NonNull<Count>> {
    let front = front();
    // SAFETY: as above; only the count is looked at, of which nobody has the only reference.
    (front.key.get() == attachment.key()).then(|| NonNull::from(&**unsafe { &(*front.place.get().as_ptr()).count }))
}

/// The attachment ends, and nobody but the caller has it: the thread's seat gives up its magazines, and is not found any more.
pub(super) fn put_away(attachment: &Attachment) {
    let front = front();
    if front.key.get() == attachment.key() {
        front.clear();
    }
    let found = SEATS.try_with(|seats| {
        let seats = seats.0.try_borrow().ok()?;
        seats.iter().find(|seat| seat.key == attachment.key()).map(|seat| seat.place)
    });
    // The place stays: the count may be that by which the last guest goes just now.
    if let Some(mut place) = found.ok().flatten() {
        // SAFETY: a seat of this thread. Nobody has a reference to its worker: who uses it has the attachment.
        attachment.allocator().flush(unsafe { &mut place.as_mut().worker });
    }
}

/// Brings the seat in this segment to the front.
#[cold]
#[inline(never)]
fn change(front: &Front, attachment: &Attachment) -> bool {
    // Who leaves does so in the base lane.
    if front.is_in_use() || attachment.this.strong_count() == 0 {
        return false;
    }
    front.clear();
    let found = SEATS.try_with(|seats| {
        let mut seats = seats.0.try_borrow_mut().ok()?;
        if let Some(seat) = seats.iter().find(|seat| seat.key == attachment.key()) {
            return Some(seat.place);
        }
        // A segment that this process has left needs no seat any more.
        for left in seats.extract_if(.., |seat| seat.attachment.strong_count() == 0) {
            drop(left.leave());
        }
        let place = Place { worker: attachment.enlist()?, count: attachment.guests.enlist() };
        let place = NonNull::from(Box::leak(Box::new(place)));
        seats.push(Seat { key: attachment.key(), attachment: attachment.weak(), place });
        Some(place)
    });
    let Some(place) = found.ok().flatten() else { return false };
    front.place.set(place);
    front.key.set(attachment.key());
    true
}
