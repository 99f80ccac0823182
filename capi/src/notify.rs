//! Notifies: threads of all processes tell each other that something has happened.

use std::ffi::c_char;

use waterway::notify::Notify;

use crate::{
    border::{Handle, border, close, give, handle, place, text},
    born::Born,
    segment::ww_segment,
    status::{Failure, ww_status},
    wait::{Limit, block_on},
};

/// A notify, for any number of threads.
pub struct ww_notify {
    inner: Notify,
    born: Born,
}

impl Handle for ww_notify {
    fn born(&self) -> Born {
        self.born
    }
}

/// Opens the notify of that name, which whoever comes first makes.
///
/// # Safety
///
/// `segment` is a handle, or NULL; the name ends with a zero byte; a pointer can be written to `notify`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_notify_open(
    segment: *const ww_segment,
    name: *const c_char,
    notify: *mut *mut ww_notify,
) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        unsafe {
            let notify = place(notify)?;
            let inner = handle(segment)?.inner.notify(text(name)?)?;
            give(notify, ww_notify { inner, born: Born::here() });
        }
        Ok(())
    })
}

/// Closes this handle. Nothing if it is NULL.
///
/// # Safety
///
/// `notify` is a handle that nobody uses any more, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_notify_close(notify: *mut ww_notify) {
    // SAFETY: the caller's.
    unsafe { close(notify) }
}

/// Notifies one who waits, of all processes; if nobody does, whoever comes next. Several that nobody waits for count as one.
///
/// # Safety
///
/// `notify` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_notify_one(notify: *const ww_notify) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        unsafe { handle(notify) }?.inner.notify_one();
        Ok(())
    })
}

/// Notifies all who wait now, of all processes.
///
/// # Safety
///
/// `notify` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_notify_all(notify: *const ww_notify) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        unsafe { handle(notify) }?.inner.notify_waiters();
        Ok(())
    })
}

/// Waits to be notified, for so many nanoseconds; WW_FOREVER as long as that takes. WW_TIMEOUT.
///
/// # Safety
///
/// `notify` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_notify_wait(notify: *const ww_notify, timeout_ns: i64) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        let notify = unsafe { handle(notify) }?;
        block_on(Limit::of(timeout_ns), notify.inner.notified()).ok_or(Failure::timed_out())
    })
}
