//! What keeps an attachment: anchors, which handles have, and guests, which are blocks that this process has received.

use std::{
    mem::ManuallyDrop,
    ops::Deref,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
};

use crate::{
    attachment::{Attachment, seats},
    sys::tally::{Count, Parting, Tally},
};

/// Attachments without anchors, whose messages are still read.
static PARTING: Parting<Kept> = Parting::new();

/// The reference count that goes with the last anchor and the last guest.
struct Kept(ManuallyDrop<Arc<Attachment>>);

impl Drop for Kept {
    fn drop(&mut self) {
        // SAFETY: not used after this.
        let attachment = unsafe { ManuallyDrop::take(&mut self.0) };
        let hub = Arc::clone(&attachment.hub);
        // The bridge has another reference now and then. It must not be left to it to leave the segment if that can be helped: the
        // process may be over before.
        hub.shutdown(Box::new(move || drop(attachment)));
    }
}

impl AsRef<Tally> for Kept {
    fn as_ref(&self) -> &Tally {
        &self.0.guests
    }
}

/// Keeps the process attached to a segment. What a [`Segment`](crate::Segment) and every end of a channel has; messages are
/// [guests](Attachment::admit).
#[derive(Debug)]
pub(crate) struct Anchor(NonNull<Attachment>);

// SAFETY: a reference to an attachment, which may be shared by threads, and dropped by any.
unsafe impl Send for Anchor {}
// SAFETY: as above.
unsafe impl Sync for Anchor {}

impl Anchor {
    /// The first one.
    pub(super) fn new(attachment: Arc<Attachment>) -> Self {
        attachment.anchors.store(1, Ordering::Relaxed);
        // SAFETY: a reference count that was a box.
        Self(unsafe { NonNull::new_unchecked(Arc::into_raw(attachment).cast_mut()) })
    }

    /// One more of an attachment that the caller knows by an anchor.
    pub(super) fn another(attachment: &Attachment) -> Self {
        // Ordering: Relaxed, as for any reference count that is raised by who has a reference.
        attachment.anchors.fetch_add(1, Ordering::Relaxed);
        Self(NonNull::from(attachment))
    }

    /// Whether both keep the same attachment.
    pub(crate) fn keeps(&self, attachment: &Attachment) -> bool {
        std::ptr::eq(self.0.as_ptr(), attachment)
    }
}

impl Clone for Anchor {
    fn clone(&self) -> Self {
        Self::another(self)
    }
}

impl Deref for Anchor {
    type Target = Attachment;

    #[inline(always)]
    fn deref(&self) -> &Attachment {
        // SAFETY: the first anchor has the reference count, which goes with the last one.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Anchor {
    fn drop(&mut self) {
        // Ordering: Release, and Acquire for the last one: what others did with their anchors comes before what follows.
        if self.anchors.fetch_sub(1, Ordering::Release) > 1 {
            return;
        }
        fence(Ordering::Acquire);
        // SAFETY: made by `into_raw` in `new`, and this is the last anchor.
        let attachment = unsafe { Arc::from_raw(self.0.as_ptr()) };
        if attachment.is_usable() {
            PARTING.part(Kept(ManuallyDrop::new(attachment)));
        } else {
            // A forked child: whatever it has inherited, it may look at us again, and nothing of this is the parent's.
            std::mem::forget(attachment);
        }
    }
}

impl Attachment {
    /// A guest comes: until it is [dismissed](Self::dismiss), the attachment lives. The caller knows it by an anchor.
    #[inline(always)]
    pub(super) fn admit(&self) {
        match seats::count(self) {
            // SAFETY: the count of this thread, which keeps it.
            Some(count) => unsafe { count.as_ref() }.come(),
            None => self.guests.come(),
        }
    }

    /// A guest goes.
    ///
    /// # Safety
    ///
    /// It was admitted, and does not look at the attachment again.
    #[inline(always)]
    pub(super) unsafe fn dismiss(this: NonNull<Self>) {
        // SAFETY: until the count says that the guest has gone.
        let attachment = unsafe { this.as_ref() };
        if !attachment.is_usable() {
            return;
        }
        let fenced = attachment.allocator.depot().is_fenced();
        match seats::count(attachment) {
            // SAFETY: as above.
            Some(count) => PARTING.go(unsafe { count.as_ref() }, fenced),
            None => Self::dismiss_without_seat(attachment.guests.rest()),
        }
    }

    #[cold]
    #[inline(never)]
    fn dismiss_without_seat(rest: Arc<Count>) {
        PARTING.go_by_rest(&rest);
    }
}
