//! The ends of a channel of bytes: each message goes to one receiver of all processes.

use std::{
    ffi::{c_char, c_void},
    ptr,
    sync::Arc,
};

use bytes::BufMut;
use waterway::{Message, Permit, Receiver, Sender, TryRecvError};

use crate::{
    bell::{Door, Waiting},
    border::{Handle, border, border_or, bytes, close, give, handle, place, take},
    born::Born,
    message::{Content, ww_msg},
    options::{of_channel, ww_channel_options},
    segment::ww_segment,
    status::{Failure, ww_status},
    wait::{Limit, block_on},
};

/// The sending end of a channel of bytes, for any number of threads.
pub struct ww_sender {
    end: Arc<Sender<[u8]>>,
    born: Born,
}

impl Handle for ww_sender {
    fn born(&self) -> Born {
        self.born
    }
}

/// The receiving end of a channel of bytes, for any number of threads.
pub struct ww_receiver {
    /// Its wait goes before the end does.
    door: Door<Option<Message<[u8]>>>,
    end: Arc<Receiver<[u8]>>,
    born: Born,
}

impl Handle for ww_receiver {
    fn born(&self) -> Born {
        self.born
    }
}

/// Room in a channel and memory in its segment, to be written in place and sent.
pub struct ww_loan {
    /// It goes before the sender that it borrows.
    permit: Permit<'static, [u8]>,
    _sender: Arc<Sender<[u8]>>,
    data: *mut c_void,
    born: Born,
}

impl Handle for ww_loan {
    fn born(&self) -> Born {
        self.born
    }
}

/// Opens a sending end of the channel of that name. Whoever comes first makes the channel; the options may be NULL.
///
/// # Safety
///
/// `segment` is a handle, or NULL; the name ends with a zero byte; the options are NULL, or as long as they say, and their strings
/// end with zero bytes; a pointer can be written to `sender`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_sender_open(
    segment: *const ww_segment,
    channel: *const c_char,
    options: *const ww_channel_options,
    sender: *mut *mut ww_sender,
) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        unsafe {
            let sender = place(sender)?;
            let end = of_channel(&handle(segment)?.inner, channel, options)?.sender()?;
            give(sender, ww_sender { end: Arc::new(end), born: Born::here() });
        }
        Ok(())
    })
}

/// Closes this sending end. When the last one of all processes has gone, receivers get what is left, and then WW_CLOSED. Nothing if it
/// is NULL.
///
/// # Safety
///
/// `sender` is a handle that nobody uses any more, or NULL. Its loans may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_sender_close(sender: *mut ww_sender) {
    // SAFETY: the caller's.
    unsafe { close(sender) }
}

/// Sends a copy of the bytes, and waits for room and memory as long as that takes. WW_CLOSED, WW_TOO_LARGE: nothing was sent.
///
/// # Safety
///
/// `sender` is a handle, or NULL; `len` bytes can be read at `data`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_send(sender: *const ww_sender, data: *const c_void, len: usize) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        let (sender, bytes) = unsafe { (handle(sender)?, bytes(data, len)?) };
        block_on(Limit::NEVER, sender.end.send(bytes)).unwrap_or(Ok(())).map_err(Failure::from)
    })
}

/// Sends a copy of the bytes, and waits for room and memory for so many nanoseconds; WW_FOREVER as long as that takes. WW_TIMEOUT,
/// WW_CLOSED, WW_TOO_LARGE: nothing was sent.
///
/// # Safety
///
/// As for ww_send.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_send_timeout(
    sender: *const ww_sender,
    data: *const c_void,
    len: usize,
    timeout_ns: i64,
) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        let (sender, bytes) = unsafe { (handle(sender)?, bytes(data, len)?) };
        block_on(Limit::of(timeout_ns), sender.end.send(bytes)).ok_or(Failure::timed_out())?.map_err(Failure::from)
    })
}

/// Sends a copy of the bytes if that can be done now. WW_FULL, WW_NO_MEMORY, WW_CLOSED, WW_TOO_LARGE: nothing was sent.
///
/// # Safety
///
/// As for ww_send.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_try_send(sender: *const ww_sender, data: *const c_void, len: usize) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        let (sender, bytes) = unsafe { (handle(sender)?, bytes(data, len)?) };
        sender.end.try_send(bytes).map_err(Failure::from)
    })
}

impl ww_loan {
    /// What `reserve` gives of a sender.
    fn of<'a>(sender: &'a Arc<Sender<[u8]>>, permit: Permit<'a, [u8]>) -> Self {
        // SAFETY: the permit borrows the sender, which stands where the loan's share of it keeps it, and goes before that does: it
        // is the first field.
        let mut permit: Permit<'static, [u8]> =
            unsafe { std::mem::transmute::<Permit<'a, [u8]>, Permit<'static, [u8]>>(permit) };
        let data = permit.chunk_mut().as_mut_ptr().cast();
        Self { permit, _sender: Arc::clone(sender), data, born: Born::here() }
    }
}

/// Has room for a message of up to `len` bytes, to be written in the segment, where it will be read: ww_loan_data. Waits for so many
/// nanoseconds; WW_FOREVER as long as that takes. A loan takes up room in the channel until ww_sender_commit or ww_sender_abort.
/// WW_TIMEOUT, WW_CLOSED, WW_TOO_LARGE.
///
/// # Safety
///
/// `sender` is a handle, or NULL; a pointer can be written to `loan`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_sender_loan(
    sender: *const ww_sender,
    len: usize,
    timeout_ns: i64,
    loan: *mut *mut ww_loan,
) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        let (loan, sender) = unsafe { (place(loan)?, handle(sender)?) };
        let permit = block_on(Limit::of(timeout_ns), sender.end.reserve(len)).ok_or(Failure::timed_out())?;
        // SAFETY: the caller's.
        unsafe { give(loan, ww_loan::of(&sender.end, permit?)) };
        Ok(())
    })
}

/// As ww_sender_loan, if there is room and memory now. WW_FULL, WW_NO_MEMORY, WW_CLOSED, WW_TOO_LARGE.
///
/// # Safety
///
/// As for ww_sender_loan.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_sender_try_loan(
    sender: *const ww_sender,
    len: usize,
    loan: *mut *mut ww_loan,
) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        unsafe {
            let (loan, sender) = (place(loan)?, handle(sender)?);
            give(loan, ww_loan::of(&sender.end, sender.end.try_reserve(len)?));
        }
        Ok(())
    })
}

/// Where the message is to be written, aligned to 8 bytes. What stands there is old. NULL if the handle is NULL or inherited.
///
/// # Safety
///
/// `loan` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_loan_data(loan: *mut ww_loan) -> *mut c_void {
    // SAFETY: the caller's.
    border_or(ptr::null_mut(), || Ok(unsafe { handle(loan) }?.data))
}

/// How many bytes may be written. 0 if the handle is NULL or inherited.
///
/// # Safety
///
/// `loan` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_loan_capacity(loan: *const ww_loan) -> usize {
    // SAFETY: the caller's.
    border_or(0, || Ok(unsafe { handle(loan) }?.permit.capacity()))
}

/// Sends the first `len` bytes of the loan, without a copy. Never waits. WW_INVALID if that is more than its capacity: nothing was
/// sent. The loan is gone, whatever this returns.
///
/// # Safety
///
/// `loan` is a handle that nobody uses any more, or NULL; `len` bytes were written, or what stood there before is to be sent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_sender_commit(loan: *mut ww_loan, len: usize) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        let loan = unsafe { take(loan) }?;
        loan.born.check()?;
        // The sender outlives the permit here, too: what is declared last goes first.
        let loan = *loan;
        let _sender = loan._sender;
        let mut permit = loan.permit;
        if len > permit.capacity() {
            return Err(Failure::invalid(c"more bytes were written than the loan has"));
        }
        // SAFETY: it is no more than there is, and bytes of a mapping are some bytes, whoever wrote them.
        unsafe { permit.advance_mut(len) };
        permit.send();
        Ok(())
    })
}

/// Gives a loan back without sending. Nothing if it is NULL.
///
/// # Safety
///
/// `loan` is a handle that nobody uses any more, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_sender_abort(loan: *mut ww_loan) {
    // SAFETY: the caller's.
    unsafe { close(loan) }
}

/// Whether sending fails from now on: all receivers have left, or somebody has closed the channel. A channel to which no receiver has
/// come yet is not closed. True if the handle is NULL or inherited.
///
/// # Safety
///
/// `sender` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_sender_is_closed(sender: *const ww_sender) -> bool {
    // SAFETY: the caller's.
    border_or(true, || Ok(unsafe { handle(sender) }?.end.is_closed()))
}

/// Messages that wait to be received. 0 if the handle is NULL or inherited.
///
/// # Safety
///
/// `sender` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_sender_len(sender: *const ww_sender) -> usize {
    // SAFETY: the caller's.
    border_or(0, || Ok(unsafe { handle(sender) }?.end.len()))
}

/// The most messages that may wait. 0 if the handle is NULL or inherited.
///
/// # Safety
///
/// `sender` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_sender_capacity(sender: *const ww_sender) -> usize {
    // SAFETY: the caller's.
    border_or(0, || Ok(unsafe { handle(sender) }?.end.max_capacity()))
}

/// Messages for which there is room now. 0 if the handle is NULL or inherited.
///
/// # Safety
///
/// `sender` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_sender_room(sender: *const ww_sender) -> usize {
    // SAFETY: the caller's.
    border_or(0, || Ok(unsafe { handle(sender) }?.end.capacity()))
}

/// Opens a receiving end of the channel of that name. Whoever comes first makes the channel; the options may be NULL.
///
/// # Safety
///
/// As for ww_sender_open; a pointer can be written to `receiver`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_receiver_open(
    segment: *const ww_segment,
    channel: *const c_char,
    options: *const ww_channel_options,
    receiver: *mut *mut ww_receiver,
) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        unsafe {
            let receiver = place(receiver)?;
            let end = of_channel(&handle(segment)?.inner, channel, options)?.receiver()?;
            give(receiver, ww_receiver { door: Door::new(), end: Arc::new(end), born: Born::here() });
        }
        Ok(())
    })
}

/// Closes this receiving end, and its descriptor. When the last one of all processes has gone, sending fails, and what waits is gone
/// unless the channel is persistent. Nothing if it is NULL.
///
/// # Safety
///
/// `receiver` is a handle that nobody uses any more, or NULL. Its messages may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_receiver_close(receiver: *mut ww_receiver) {
    // SAFETY: the caller's.
    unsafe { close(receiver) }
}

impl ww_receiver {
    /// A wait that goes on between calls.
    fn wait(&self) -> Waiting<Option<Message<[u8]>>> {
        let end = Arc::clone(&self.end);
        Box::pin(async move { end.recv().await })
    }

    /// A message that is there now; if there is none, the descriptor waits for one.
    fn take(&self) -> Result<Message<[u8]>, Failure> {
        match self.end.try_recv() {
            Ok(message) => Ok(message),
            Err(TryRecvError::Empty) => {
                self.door.take(|| self.wait()).ok_or(Failure::empty())?.ok_or(Failure::closed())
            }
            Err(_) => Err(Failure::closed()),
        }
    }
}

/// Receives the next message, and waits for it for so many nanoseconds; WW_FOREVER as long as that takes. WW_TIMEOUT; WW_CLOSED when
/// all senders have gone and nothing is left. To be ended by ww_msg_ack or ww_msg_nack.
///
/// # Safety
///
/// `receiver` is a handle, or NULL; a pointer can be written to `msg`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_recv(receiver: *const ww_receiver, timeout_ns: i64, msg: *mut *mut ww_msg) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        let (msg, receiver) = unsafe { (place(msg)?, handle(receiver)?) };
        let received = receiver.door.within(Limit::of(timeout_ns), receiver.end.recv(), || receiver.wait())?;
        let received = received.ok_or(Failure::closed())?;
        // SAFETY: the caller's.
        unsafe { give(msg, ww_msg::new(Content::Message(received))) };
        Ok(())
    })
}

/// Receives the next message if there is one now. WW_EMPTY, WW_CLOSED. To be ended by ww_msg_ack or ww_msg_nack.
///
/// # Safety
///
/// As for ww_recv.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_try_recv(receiver: *const ww_receiver, msg: *mut *mut ww_msg) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        unsafe {
            let (msg, receiver) = (place(msg)?, handle(receiver)?);
            give(msg, ww_msg::new(Content::Message(receiver.take()?)));
        }
        Ok(())
    })
}

/// A descriptor to wait for with poll or epoll, which is readable when there may be a message, or the end. It stays readable until
/// ww_try_recv says WW_EMPTY (or ww_recv WW_TIMEOUT). So: wait for it, then call ww_try_recv until it says WW_EMPTY. It is readable
/// at first, and may be readable in vain. That holds level- and edge-triggered, and for any number of threads and processes. Nobody else
/// reads or writes it. It is closed with the receiver. -1 if the handle is NULL or inherited, or if there is no descriptor to be had.
///
/// # Safety
///
/// `receiver` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_recv_fd(receiver: *const ww_receiver) -> i32 {
    border_or(-1, || {
        // SAFETY: the caller's.
        unsafe { handle(receiver) }?.door.descriptor()
    })
}

/// Closes the channel for everybody: nothing more can be sent, and what was sent can still be received.
///
/// # Safety
///
/// `receiver` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_receiver_shutdown(receiver: *const ww_receiver) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        unsafe { handle(receiver) }?.end.close();
        Ok(())
    })
}

/// Whether no more messages will be sent; some may still wait. A channel to which no sender has come yet is not closed. True if the
/// handle is NULL or inherited.
///
/// # Safety
///
/// `receiver` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_receiver_is_closed(receiver: *const ww_receiver) -> bool {
    // SAFETY: the caller's.
    border_or(true, || Ok(unsafe { handle(receiver) }?.end.is_closed()))
}

/// Messages that wait to be received. 0 if the handle is NULL or inherited.
///
/// # Safety
///
/// `receiver` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_receiver_len(receiver: *const ww_receiver) -> usize {
    // SAFETY: the caller's.
    border_or(0, || Ok(unsafe { handle(receiver) }?.end.len()))
}

/// The most messages that may wait. 0 if the handle is NULL or inherited.
///
/// # Safety
///
/// `receiver` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_receiver_capacity(receiver: *const ww_receiver) -> usize {
    // SAFETY: the caller's.
    border_or(0, || Ok(unsafe { handle(receiver) }?.end.max_capacity()))
}
