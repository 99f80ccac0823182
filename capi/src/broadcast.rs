//! Broadcasts of bytes: every group of subscribers sees every message, and one member of it handles it.

use std::{
    ffi::{c_char, c_void},
    sync::Arc,
};

use waterway::broadcast::{Published, Publisher, RecvError, Subscriber, TryRecvError};

use crate::{
    bell::{Door, Waiting},
    border::{Handle, border, border_or, bytes, close, give, handle, place},
    born::Born,
    message::{Content, ww_msg},
    options::{of_broadcast, of_group, ww_broadcast_options},
    segment::ww_segment,
    status::{Failure, ww_status},
    wait::{Limit, block_on},
};

/// The sending end of a broadcast of bytes, for any number of threads.
pub struct ww_publisher {
    end: Publisher<[u8]>,
    born: Born,
}

impl Handle for ww_publisher {
    fn born(&self) -> Born {
        self.born
    }
}

type Outcome = Result<Published<[u8]>, RecvError>;

/// A receiving end of a broadcast of bytes: a member of a group, for any number of threads.
pub struct ww_subscriber {
    /// Its wait goes before the end does.
    door: Door<Outcome>,
    end: Arc<Subscriber<[u8]>>,
    born: Born,
}

impl Handle for ww_subscriber {
    fn born(&self) -> Born {
        self.born
    }
}

impl ww_subscriber {
    /// A wait that goes on between calls.
    fn wait(&self) -> Waiting<Outcome> {
        let end = Arc::clone(&self.end);
        Box::pin(async move { end.recv().await })
    }

    /// What is there now; if there is nothing, the descriptor waits for it.
    fn take(&self) -> Result<Outcome, Failure> {
        match self.end.try_recv() {
            Ok(published) => Ok(Ok(published)),
            Err(TryRecvError::Empty) => self.door.take(|| self.wait()).ok_or(Failure::empty()),
            Err(TryRecvError::Lagged(missed)) => Ok(Err(RecvError::Lagged(missed))),
            Err(TryRecvError::Evicted) => Ok(Err(RecvError::Evicted)),
            Err(_) => Ok(Err(RecvError::Closed)),
        }
    }
}

/// Opens a publisher of the broadcast of that name. Whoever comes first makes it; the options may be NULL.
///
/// # Safety
///
/// `segment` is a handle, or NULL; the name ends with a zero byte; the options are NULL, or as long as they say, and their strings
/// end with zero bytes; a pointer can be written to `publisher`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_publisher_open(
    segment: *const ww_segment,
    broadcast: *const c_char,
    options: *const ww_broadcast_options,
    publisher: *mut *mut ww_publisher,
) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        unsafe {
            let publisher = place(publisher)?;
            let end = of_broadcast(&handle(segment)?.inner, broadcast, options)?.publisher()?;
            give(publisher, ww_publisher { end, born: Born::here() });
        }
        Ok(())
    })
}

/// Closes a publisher. When the last one of all processes has gone, subscribers get what is left, and then WW_CLOSED. Nothing if it is
/// NULL.
///
/// # Safety
///
/// `publisher` is a handle that nobody uses any more, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_publisher_close(publisher: *mut ww_publisher) {
    // SAFETY: the caller's.
    unsafe { close(publisher) }
}

/// Publishes a copy of the bytes, and waits for groups that are behind, and for memory, for so many nanoseconds; WW_FOREVER as long as
/// that takes. Puts how many groups there are to `groups`, unless it is NULL. WW_TIMEOUT, WW_TOO_LARGE: nothing was published.
///
/// # Safety
///
/// `publisher` is a handle, or NULL; `len` bytes can be read at `data`; `groups` is NULL, or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_publish(
    publisher: *const ww_publisher,
    data: *const c_void,
    len: usize,
    timeout_ns: i64,
    groups: *mut usize,
) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        let (publisher, bytes) = unsafe { (handle(publisher)?, bytes(data, len)?) };
        let seen = block_on(Limit::of(timeout_ns), publisher.end.send(bytes)).ok_or(Failure::timed_out())??;
        if !groups.is_null() {
            // SAFETY: the caller's.
            unsafe { groups.write(seen) };
        }
        Ok(())
    })
}

/// Publishes a copy of the bytes if that can be done now. Puts how many groups there are to `groups`, unless it is NULL. WW_FULL,
/// WW_NO_MEMORY, WW_TOO_LARGE: nothing was published.
///
/// # Safety
///
/// As for ww_publish.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_try_publish(
    publisher: *const ww_publisher,
    data: *const c_void,
    len: usize,
    groups: *mut usize,
) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        let (publisher, bytes) = unsafe { (handle(publisher)?, bytes(data, len)?) };
        let seen = publisher.end.try_send(bytes)?;
        if !groups.is_null() {
            // SAFETY: the caller's.
            unsafe { groups.write(seen) };
        }
        Ok(())
    })
}

/// Groups that there are now. 0 if the handle is NULL or inherited.
///
/// # Safety
///
/// `publisher` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_publisher_groups(publisher: *const ww_publisher) -> usize {
    // SAFETY: the caller's.
    border_or(0, || Ok(unsafe { handle(publisher) }?.end.group_count()))
}

/// Opens a subscriber of the broadcast of that name, in the group that the options name. Whoever comes first makes them; the options
/// may be NULL.
///
/// # Safety
///
/// As for ww_publisher_open; a pointer can be written to `subscriber`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_subscriber_open(
    segment: *const ww_segment,
    broadcast: *const c_char,
    options: *const ww_broadcast_options,
    subscriber: *mut *mut ww_subscriber,
) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        unsafe {
            let subscriber = place(subscriber)?;
            let end = of_group(&handle(segment)?.inner, broadcast, options)?.subscriber()?;
            give(subscriber, ww_subscriber { door: Door::new(), end: Arc::new(end), born: Born::here() });
        }
        Ok(())
    })
}

/// Closes a subscriber, and its descriptor. Nothing if it is NULL.
///
/// # Safety
///
/// `subscriber` is a handle that nobody uses any more, or NULL. Its messages may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_subscriber_close(subscriber: *mut ww_subscriber) {
    // SAFETY: the caller's.
    unsafe { close(subscriber) }
}

/// Gives C what was received, and says what was missed.
///
/// # Safety
///
/// A handle can be written to `msg`; `missed` is NULL, or can be written to.
unsafe fn tell(outcome: Outcome, msg: *mut *mut ww_msg, missed: *mut u64) -> Result<(), Failure> {
    if let (Err(RecvError::Lagged(messages)), false) = (&outcome, missed.is_null()) {
        // SAFETY: the caller's.
        unsafe { missed.write(*messages) };
    }
    // SAFETY: the caller's.
    unsafe { give(msg, ww_msg::new(Content::Published(outcome?))) };
    Ok(())
}

/// Receives the next message of the group, and waits for it for so many nanoseconds; WW_FOREVER as long as that takes. WW_LAGGED: the
/// group has missed messages, and how many is put to `missed`, unless it is NULL; the next call goes on behind them. WW_EVICTED,
/// WW_TIMEOUT, WW_CLOSED. To be ended by ww_msg_ack or ww_msg_nack.
///
/// # Safety
///
/// `subscriber` is a handle, or NULL; a pointer can be written to `msg`; `missed` is NULL, or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_subscriber_recv(
    subscriber: *const ww_subscriber,
    timeout_ns: i64,
    msg: *mut *mut ww_msg,
    missed: *mut u64,
) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        let (msg, subscriber) = unsafe { (place(msg)?, handle(subscriber)?) };
        let limit = Limit::of(timeout_ns);
        let outcome = subscriber.door.within(limit, subscriber.end.recv(), || subscriber.wait())?;
        // SAFETY: the caller's.
        unsafe { tell(outcome, msg, missed) }
    })
}

/// Receives the next message of the group if there is one now. WW_EMPTY, and what ww_subscriber_recv says. To be ended by ww_msg_ack or
/// ww_msg_nack.
///
/// # Safety
///
/// As for ww_subscriber_recv.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_subscriber_try_recv(
    subscriber: *const ww_subscriber,
    msg: *mut *mut ww_msg,
    missed: *mut u64,
) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        unsafe {
            let (msg, subscriber) = (place(msg)?, handle(subscriber)?);
            tell(subscriber.take()?, msg, missed)
        }
    })
}

/// A descriptor as that of ww_recv_fd: wait for it, then call ww_subscriber_try_recv until it says WW_EMPTY.
///
/// # Safety
///
/// `subscriber` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_subscriber_fd(subscriber: *const ww_subscriber) -> i32 {
    // SAFETY: the caller's.
    border_or(-1, || unsafe { handle(subscriber) }?.door.descriptor())
}

/// Messages that wait for the group. 0 if the handle is NULL or inherited.
///
/// # Safety
///
/// `subscriber` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_subscriber_len(subscriber: *const ww_subscriber) -> usize {
    // SAFETY: the caller's.
    border_or(0, || Ok(unsafe { handle(subscriber) }?.end.len()))
}
