//! Which lane a thread works in: found through a thread-local, given back when the thread ends.

use std::{
    cell::RefCell,
    sync::{
        Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{alloc::Worker, attachment::Attachment};

/// A thread's worker in one segment.
struct Seat {
    /// The attachment's number, unique in the process.
    key: u64,
    attachment: Weak<Attachment>,
    worker: Worker,
}

/// All seats of a thread.
#[derive(Default)]
struct Seats(RefCell<Vec<Seat>>);

impl Drop for Seats {
    fn drop(&mut self) {
        for seat in self.0.take() {
            if let Some(attachment) = seat.attachment.upgrade() {
                attachment.retire(seat.worker);
            }
        }
    }
}

thread_local! {
    static SEATS: Seats = Seats::default();
}

/// A number for an attachment that no other in this process ever has.
pub(super) fn next_key() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Runs `work` with the thread's worker in the segment of `attachment`, or gives it back if there is none to be had: the
/// thread is ending, all lanes are taken, or the thread is in the middle of something in another segment.
#[inline]
pub(super) fn with<R, W: FnOnce(&mut Worker) -> R>(attachment: &Attachment, work: W) -> Result<R, W> {
    let mut work = Some(work);
    SEATS
        .try_with(|seats| {
            let mut seats = seats.0.try_borrow_mut().ok()?;
            // The segment that was used last is in front.
            if seats.first().is_none_or(|seat| seat.key != attachment.key()) {
                find(&mut seats, attachment)?;
            }
            let seat = seats.first_mut()?;
            Some(work.take()?(&mut seat.worker))
        })
        .ok()
        .flatten()
        .ok_or_else(|| work.expect("the work was not begun"))
}

/// Brings the seat in this segment to the front.
#[cold]
fn find(seats: &mut Vec<Seat>, attachment: &Attachment) -> Option<()> {
    if let Some(index) = seats.iter().position(|seat| seat.key == attachment.key()) {
        seats.swap(0, index);
        return Some(());
    }
    // A segment that this process has left needs no seat any more.
    seats.retain(|seat| seat.attachment.strong_count() > 0);
    let worker = attachment.enlist()?;
    seats.insert(0, Seat { key: attachment.key(), attachment: attachment.weak(), worker });
    Some(())
}
