//! Services: requests of bytes that are answered with bytes.

use std::{
    ffi::{c_char, c_void},
    ptr,
    sync::Arc,
    time::Instant,
};

use waterway::{
    TryRecvError,
    service::{Client, Request, Server},
};

use crate::{
    bell::{Door, Waiting},
    border::{Handle, border, border_or, bytes, close, give, handle, place, take},
    born::Born,
    message::{Content, ww_msg},
    options::{of_service, ww_service_options},
    segment::ww_segment,
    status::{Failure, ww_status},
    wait::{Limit, block_on, time},
};

/// The calling end of a service, for any number of threads.
pub struct ww_client {
    end: Client<[u8], [u8]>,
    born: Born,
}

impl Handle for ww_client {
    fn born(&self) -> Born {
        self.born
    }
}

/// The serving end of a service, for any number of threads.
pub struct ww_server {
    /// Its wait goes before the end does.
    door: Door<Option<Request<[u8], [u8]>>>,
    end: Arc<Server<[u8], [u8]>>,
    born: Born,
}

impl Handle for ww_server {
    fn born(&self) -> Born {
        self.born
    }
}

/// A request that was taken, and whose caller waits.
pub struct ww_request {
    request: Request<[u8], [u8]>,
    born: Born,
}

impl Handle for ww_request {
    fn born(&self) -> Born {
        self.born
    }
}

impl ww_server {
    /// A wait that goes on between calls.
    fn wait(&self) -> Waiting<Option<Request<[u8], [u8]>>> {
        let end = Arc::clone(&self.end);
        Box::pin(async move { end.next().await })
    }

    /// A request that is there now; if there is none, the descriptor waits for one.
    fn take(&self) -> Result<Request<[u8], [u8]>, Failure> {
        match self.end.try_next() {
            Ok(request) => Ok(request),
            Err(TryRecvError::Empty) => {
                self.door.take(|| self.wait()).ok_or(Failure::empty())?.ok_or(Failure::closed())
            }
            Err(_) => Err(Failure::closed()),
        }
    }
}

/// Opens a client of the service of that name. Whoever comes first makes it; the options may be NULL.
///
/// # Safety
///
/// `segment` is a handle, or NULL; the name ends with a zero byte; the options are NULL, or as long as they say; a pointer can be written
/// to `client`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_client_open(
    segment: *const ww_segment,
    service: *const c_char,
    options: *const ww_service_options,
    client: *mut *mut ww_client,
) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        unsafe {
            let client = place(client)?;
            let end = of_service(&handle(segment)?.inner, service, options)?.client()?;
            give(client, ww_client { end, born: Born::here() });
        }
        Ok(())
    })
}

/// Closes a client. Nothing if it is NULL.
///
/// # Safety
///
/// `client` is a handle that nobody uses any more, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_client_close(client: *mut ww_client) {
    // SAFETY: the caller's.
    unsafe { close(client) }
}

/// Sends a copy of the bytes as a request, and waits for the response for so many nanoseconds; WW_FOREVER as long as that takes. The
/// server hears of the deadline, and of a caller that has given up. If no server has come yet it waits for one. WW_TIMEOUT,
/// WW_CLOSED (no server is left), WW_SERVER_GONE, WW_UNANSWERED, WW_TOO_LARGE. The response is to be ended by ww_msg_ack.
///
/// # Safety
///
/// `client` is a handle, or NULL; `len` bytes can be read at `data`; a pointer can be written to `response`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_call(
    client: *const ww_client,
    data: *const c_void,
    len: usize,
    timeout_ns: i64,
    response: *mut *mut ww_msg,
) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        let (response, client, bytes) = unsafe { (place(response)?, handle(client)?, bytes(data, len)?) };
        let answer = match time(timeout_ns) {
            Some(time) => client.end.blocking_call_timeout(bytes, time)?,
            None => client.end.blocking_call(bytes)?,
        };
        // SAFETY: the caller's.
        unsafe { give(response, ww_msg::new(Content::Message(answer))) };
        Ok(())
    })
}

/// Whether calls fail from now on: all servers have left. A service to which no server has come yet is not closed. True if the handle
/// is NULL or inherited.
///
/// # Safety
///
/// `client` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_client_is_closed(client: *const ww_client) -> bool {
    // SAFETY: the caller's.
    border_or(true, || Ok(unsafe { handle(client) }?.end.is_closed()))
}

/// Opens a server of the service of that name. Whoever comes first makes it; the options may be NULL.
///
/// # Safety
///
/// As for ww_client_open; a pointer can be written to `server`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_server_open(
    segment: *const ww_segment,
    service: *const c_char,
    options: *const ww_service_options,
    server: *mut *mut ww_server,
) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        unsafe {
            let server = place(server)?;
            let end = of_service(&handle(segment)?.inner, service, options)?.server()?;
            give(server, ww_server { door: Door::new(), end: Arc::new(end), born: Born::here() });
        }
        Ok(())
    })
}

/// Closes a server, and its descriptor. Nothing if it is NULL.
///
/// # Safety
///
/// `server` is a handle that nobody uses any more, or NULL. Its requests may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_server_close(server: *mut ww_server) {
    // SAFETY: the caller's.
    unsafe { close(server) }
}

/// Takes the next request, and waits for it for so many nanoseconds; WW_FOREVER as long as that takes. WW_TIMEOUT; WW_CLOSED when all
/// clients have gone. To be ended by ww_request_respond, ww_request_nack or ww_request_drop.
///
/// # Safety
///
/// `server` is a handle, or NULL; a pointer can be written to `request`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_server_next(
    server: *const ww_server,
    timeout_ns: i64,
    request: *mut *mut ww_request,
) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        let (to, server) = unsafe { (place(request)?, handle(server)?) };
        let request = server.door.within(Limit::of(timeout_ns), server.end.next(), || server.wait())?;
        let request = request.ok_or(Failure::closed())?;
        // SAFETY: the caller's.
        unsafe { give(to, ww_request { request, born: Born::here() }) };
        Ok(())
    })
}

/// Takes the next request if there is one now. WW_EMPTY, WW_CLOSED. To be ended as after ww_server_next.
///
/// # Safety
///
/// As for ww_server_next.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_server_try_next(server: *const ww_server, request: *mut *mut ww_request) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        unsafe {
            let (to, server) = (place(request)?, handle(server)?);
            give(to, ww_request { request: server.take()?, born: Born::here() });
        }
        Ok(())
    })
}

/// A descriptor as that of ww_recv_fd: wait for it, then call ww_server_try_next until it says WW_EMPTY.
///
/// # Safety
///
/// `server` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_server_fd(server: *const ww_server) -> i32 {
    // SAFETY: the caller's.
    border_or(-1, || unsafe { handle(server) }?.door.descriptor())
}

/// The request's bytes, to be read only, until it has ended. NULL if the handle is NULL or inherited.
///
/// # Safety
///
/// `request` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_request_data(request: *const ww_request) -> *const c_void {
    // SAFETY: the caller's.
    border_or(ptr::null(), || Ok(unsafe { handle(request) }?.request.message().as_ptr().cast()))
}

/// How many bytes the request has. 0 if the handle is NULL or inherited.
///
/// # Safety
///
/// `request` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_request_len(request: *const ww_request) -> usize {
    // SAFETY: the caller's.
    border_or(0, || Ok(unsafe { handle(request) }?.request.message().len()))
}

/// How often the request was delivered, this time included. 0 if the handle is NULL or inherited.
///
/// # Safety
///
/// `request` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_request_delivery_count(request: *const ww_request) -> u32 {
    // SAFETY: the caller's.
    border_or(0, || Ok(unsafe { handle(request) }?.request.delivery_count()))
}

/// For how many nanoseconds the caller still waits; WW_FOREVER if it has set no time. 0 if the handle is NULL or inherited.
///
/// # Safety
///
/// `request` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_request_time_left(request: *const ww_request) -> i64 {
    border_or(0, || {
        // SAFETY: the caller's.
        let deadline = unsafe { handle(request) }?.request.deadline();
        Ok(deadline.map_or(-1, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            i64::try_from(left.as_nanos()).unwrap_or(i64::MAX)
        }))
    })
}

/// Whether nobody waits for the response any more. True if the handle is NULL or inherited.
///
/// # Safety
///
/// `request` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_request_is_cancelled(request: *const ww_request) -> bool {
    // SAFETY: the caller's.
    border_or(true, || Ok(unsafe { handle(request) }?.request.is_cancelled()))
}

/// Sends a copy of the bytes as the response, and waits for room and memory. WW_CANCELLED if nobody waits for it any more; WW_TOO_LARGE:
/// the caller is told that there will be no response. The request is gone, whatever this returns.
///
/// # Safety
///
/// `request` is a handle that nobody uses any more, or NULL; `len` bytes can be read at `data`, which may be the
/// request's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_request_respond(request: *mut ww_request, data: *const c_void, len: usize) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        let request = unsafe { take(request) }?;
        request.born.check()?;
        // SAFETY: the caller's.
        let bytes = unsafe { bytes(data, len) }?;
        block_on(Limit::NEVER, request.request.respond(bytes)).unwrap_or(Ok(()))?;
        Ok(())
    })
}

/// Gives the request back: a client that delivers at least once sends it again, another is told WW_UNANSWERED. The request is gone,
/// whatever this returns.
///
/// # Safety
///
/// `request` is a handle that nobody uses any more, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_request_nack(request: *mut ww_request) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        let request = unsafe { take(request) }?;
        request.born.check()?;
        request.request.nack();
        Ok(())
    })
}

/// Ends the request without a response: its caller is told WW_UNANSWERED. Nothing if it is NULL.
///
/// # Safety
///
/// `request` is a handle that nobody uses any more, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_request_drop(request: *mut ww_request) {
    // SAFETY: the caller's.
    unsafe { close(request) }
}
