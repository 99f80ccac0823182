//! Looking at the value.

use std::{
    fmt,
    ops::Deref,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::Arc,
};

use crate::{
    OpenError,
    attachment::{current::Pinned, directory::End, port::Port},
    blocks::{Content, current::Name},
    sys::held::Mutex,
};

/// A value of a watch, read in place. It stays as it is for as long as this is there, whatever is sent meanwhile.
///
/// Made by [`Receiver::borrow`](crate::watch::Receiver::borrow) and its kin. Unlike tokio's it keeps nobody from sending,
/// so it may be held across await points, sent to other threads, and outlive the receiver; it keeps the value's memory, and
/// the process attached to the segment. If the process dies, the memory comes back.
///
/// A forked child has no mapping of the segment, so it must not read the values that it inherits: that is a fault.
pub struct Ref<T: Content + ?Sized> {
    value: Pinned<T>,
    has_changed: bool,
}

impl<T: Content + ?Sized> Ref<T> {
    pub(super) fn new(value: Pinned<T>, has_changed: bool) -> Self {
        Self { value, has_changed }
    }

    pub(super) fn name(&self) -> Name {
        self.value.name()
    }

    /// Whether the receiver had not seen this value before. Always `false` for one that a sender borrowed.
    pub fn has_changed(&self) -> bool {
        self.has_changed
    }
}

impl<T: Content + ?Sized> Deref for Ref<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Content + ?Sized> Clone for Ref<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), has_changed: self.has_changed }
    }
}

impl<T: Content + ?Sized + fmt::Debug> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ref").field(&&**self).finish()
    }
}

// What was sent does not change, whatever panics.
impl<T: Content + ?Sized> UnwindSafe for Ref<T> {}
impl<T: Content + ?Sized> RefUnwindSafe for Ref<T> {}

/// One end of a watch, of either kind: what it has looked at last. That is what it sees if the current value should be
/// none, because somebody has overwritten memory that is not its own.
pub(super) struct View<T: Content + ?Sized> {
    port: Arc<Port>,
    end: End,
    last: Mutex<Pinned<T>>,
}

impl<T: Content + ?Sized> View<T> {
    /// Takes over an end that has been entered.
    pub(super) fn new(port: Arc<Port>, end: End) -> Result<Self, OpenError> {
        let Some(value) = port.pin(Name::NONE, T::view) else {
            port.leave(end);
            return Err(port.attachment().damaged("the value of a watch is none of its type".into()));
        };
        Ok(Self { port, end, last: Mutex::new(value) })
    }

    /// The current value.
    #[inline]
    pub(super) fn look(&self) -> Pinned<T> {
        let last = self.last.lock().clone();
        if self.port.attachment().is_usable() && last.name() != self.port.current() {
            return self.look_again(last);
        }
        last
    }

    /// The current value, which is another one than the last.
    #[cold]
    fn look_again(&self, last: Pinned<T>) -> Pinned<T> {
        let Some(now) = self.port.pin(last.name(), T::view) else { return last };
        // Outside of the lock what is not looked at any more is freed, which wakes tasks.
        let unused = {
            let mut kept = self.last.lock();
            // Unless another thread has looked meanwhile, and later than we, for all we know.
            if kept.name() == last.name() { std::mem::replace(&mut *kept, now.clone()) } else { now.clone() }
        };
        drop((unused, last));
        now
    }

    /// Another end, of the same kind or of another, which has looked at the same.
    pub(super) fn another(&self, end: End) -> Self {
        self.port.enter(end);
        let last = self.last.lock().clone();
        Self { port: Arc::clone(&self.port), end, last: Mutex::new(last) }
    }

    #[inline(always)]
    pub(super) fn port(&self) -> &Arc<Port> {
        &self.port
    }
}

impl<T: Content + ?Sized> Drop for View<T> {
    fn drop(&mut self) {
        self.port.leave(self.end);
    }
}
