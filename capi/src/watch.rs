//! Watches of bytes: of all values that are sent the latest counts.

use std::{
    ffi::{c_char, c_void},
    sync::{Mutex, MutexGuard, PoisonError},
};

use waterway::watch::{Receiver, RecvError, Sender};

use crate::{
    bell::{Door, Waiting},
    border::{Handle, border, border_or, bytes, close, give, handle, place},
    born::Born,
    message::{Content, ww_msg},
    options::{of_watch, ww_watch_options},
    segment::ww_segment,
    status::{Failure, ww_status},
    wait::{Limit, block_on},
};

/// The sending end of a watch of bytes, for any number of threads.
pub struct ww_watch_sender {
    end: Sender<[u8]>,
    born: Born,
}

impl Handle for ww_watch_sender {
    fn born(&self) -> Born {
        self.born
    }
}

/// The receiving end of a watch of bytes, for any number of threads. It knows which value was got last.
pub struct ww_watch_receiver {
    /// Its wait goes before the end does.
    door: Door<Result<(), RecvError>>,
    /// Nobody waits while they have it: who waits does so with a clone.
    end: Mutex<Receiver<[u8]>>,
    born: Born,
}

impl Handle for ww_watch_receiver {
    fn born(&self) -> Born {
        self.born
    }
}

impl ww_watch_receiver {
    fn end(&self) -> MutexGuard<'_, Receiver<[u8]>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A wait for a value that was not got yet, which leaves it so.
    fn wait(&self) -> Waiting<Result<(), RecvError>> {
        let mut end = self.end().clone();
        Box::pin(async move { end.changed().await })
    }
}

/// Opens a sender of the watch of that name. Whoever comes first makes it; the options may be NULL.
///
/// # Safety
///
/// `segment` is a handle, or NULL; the name ends with a zero byte; the options are NULL, or as long as they say, and the value in them as
/// long as that says; a pointer can be written to `sender`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_watch_sender_open(
    segment: *const ww_segment,
    watch: *const c_char,
    options: *const ww_watch_options,
    sender: *mut *mut ww_watch_sender,
) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        unsafe {
            let sender = place(sender)?;
            let end = of_watch(&handle(segment)?.inner, watch, options)?.sender()?;
            give(sender, ww_watch_sender { end, born: Born::here() });
        }
        Ok(())
    })
}

/// Closes a sender. Nothing if it is NULL.
///
/// # Safety
///
/// `sender` is a handle that nobody uses any more, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_watch_sender_close(sender: *mut ww_watch_sender) {
    // SAFETY: the caller's.
    unsafe { close(sender) }
}

/// Makes a copy of the bytes the latest value. Never waits. WW_CLOSED (all receivers have left), WW_NO_MEMORY, WW_TOO_LARGE.
///
/// # Safety
///
/// `sender` is a handle, or NULL; `len` bytes can be read at `data`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_watch_send(sender: *const ww_watch_sender, data: *const c_void, len: usize) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        let (sender, bytes) = unsafe { (handle(sender)?, bytes(data, len)?) };
        sender.end.send(bytes)?;
        Ok(())
    })
}

/// Opens a receiver of the watch of that name. Whoever comes first makes it; the options may be NULL. It has got the value that there is:
/// ww_watch_changed waits for another one.
///
/// # Safety
///
/// As for ww_watch_sender_open; a pointer can be written to `receiver`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_watch_receiver_open(
    segment: *const ww_segment,
    watch: *const c_char,
    options: *const ww_watch_options,
    receiver: *mut *mut ww_watch_receiver,
) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        unsafe {
            let receiver = place(receiver)?;
            let end = of_watch(&handle(segment)?.inner, watch, options)?.receiver()?;
            give(receiver, ww_watch_receiver { door: Door::new(), end: Mutex::new(end), born: Born::here() });
        }
        Ok(())
    })
}

/// Closes a receiver, and its descriptor. Nothing if it is NULL.
///
/// # Safety
///
/// `receiver` is a handle that nobody uses any more, or NULL. Values that it has given may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_watch_receiver_close(receiver: *mut ww_watch_receiver) {
    // SAFETY: the caller's.
    unsafe { close(receiver) }
}

/// The latest value, in place, which this receiver has got from now on. To be ended by ww_msg_ack.
///
/// # Safety
///
/// `receiver` is a handle, or NULL; a pointer can be written to `value`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_watch_get(receiver: *const ww_watch_receiver, value: *mut *mut ww_msg) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        unsafe {
            let (value, receiver) = (place(value)?, handle(receiver)?);
            let latest = receiver.end().borrow_and_update();
            give(value, ww_msg::new(Content::Value(latest)));
        }
        Ok(())
    })
}

/// Waits until there is a value that ww_watch_get has not given, for so many nanoseconds; WW_FOREVER as long as that takes, 0 asks
/// whether there is. WW_TIMEOUT; WW_CLOSED when all senders have gone and there is none.
///
/// # Safety
///
/// `receiver` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_watch_changed(receiver: *const ww_watch_receiver, timeout_ns: i64) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        let receiver = unsafe { handle(receiver) }?;
        let mut limit = Limit::of(timeout_ns);
        loop {
            if let Some(changed) = block_on(limit, receiver.wait()) {
                return changed.map_err(|RecvError { .. }| Failure::closed());
            }
            // The wait of the descriptor may have begun before ww_watch_get: what it says is asked again.
            receiver.door.take(|| receiver.wait()).ok_or(Failure::timed_out())?.ok();
            limit = Limit::now();
        }
    })
}

/// A descriptor to wait for as that of ww_recv_fd: readable when there may be a value that ww_watch_get has not given, or the end, until
/// ww_watch_changed says WW_TIMEOUT. So: wait for it, call ww_watch_changed with 0, and ww_watch_get if that says WW_OK.
///
/// # Safety
///
/// `receiver` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_watch_fd(receiver: *const ww_watch_receiver) -> i32 {
    // SAFETY: the caller's.
    border_or(-1, || unsafe { handle(receiver) }?.door.descriptor())
}
