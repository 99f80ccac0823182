//! Messages, read in place.

use std::{ffi::c_void, ptr};

use waterway::{Message, broadcast::Published, watch::Ref};

use crate::{
    border::{Handle, border, border_or, close, handle, take},
    born::Born,
    status::ww_status,
};

/// A received message, response, or value of a watch. Its bytes stand in the segment until it is acknowledged.
pub struct ww_msg {
    content: Content,
    born: Born,
}

pub(crate) enum Content {
    Message(Message<[u8]>),
    Published(Published<[u8]>),
    Value(Ref<[u8]>),
}

impl Content {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Message(message) => message,
            Self::Published(published) => published,
            Self::Value(value) => value,
        }
    }

    fn sequence(&self) -> u64 {
        match self {
            Self::Message(message) => message.sequence(),
            Self::Published(published) => published.sequence(),
            Self::Value(_) => 0,
        }
    }

    fn delivery_count(&self) -> u32 {
        match self {
            Self::Message(message) => message.delivery_count(),
            Self::Published(published) => published.delivery_count(),
            Self::Value(_) => 1,
        }
    }
}

impl ww_msg {
    pub(crate) fn new(content: Content) -> Self {
        Self { content, born: Born::here() }
    }
}

impl Handle for ww_msg {
    fn born(&self) -> Born {
        self.born
    }
}

/// The message's bytes, to be read only, until it is acknowledged or given back. Not NULL, also if there are none; NULL if the handle is
/// NULL or inherited. They are aligned to 8 bytes.
///
/// # Safety
///
/// `msg` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_msg_data(msg: *const ww_msg) -> *const c_void {
    // SAFETY: the caller's.
    border_or(ptr::null(), || Ok(unsafe { handle(msg) }?.content.bytes().as_ptr().cast()))
}

/// How many bytes the message has. 0 if the handle is NULL or inherited.
///
/// # Safety
///
/// `msg` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_msg_len(msg: *const ww_msg) -> usize {
    // SAFETY: the caller's.
    border_or(0, || Ok(unsafe { handle(msg) }?.content.bytes().len()))
}

/// The message's number in its channel: later ones have higher numbers. 0 for a value of a watch, or if the handle is NULL or inherited.
///
/// # Safety
///
/// `msg` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_msg_sequence(msg: *const ww_msg) -> u64 {
    // SAFETY: the caller's.
    border_or(0, || Ok(unsafe { handle(msg) }?.content.sequence()))
}

/// How often the message was delivered, this time included. 0 if the handle is NULL or inherited.
///
/// # Safety
///
/// `msg` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_msg_delivery_count(msg: *const ww_msg) -> u32 {
    // SAFETY: the caller's.
    border_or(0, || Ok(unsafe { handle(msg) }?.content.delivery_count()))
}

/// Whether somebody had the message before, and has not acknowledged it.
///
/// # Safety
///
/// `msg` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_msg_redelivered(msg: *const ww_msg) -> bool {
    // SAFETY: the caller's.
    border_or(false, || Ok(unsafe { handle(msg) }?.content.delivery_count() > 1))
}

/// Acknowledges the message: its memory is free, and the handle gone, whatever this returns. Nothing if it is NULL.
///
/// # Safety
///
/// `msg` is a handle that nobody uses any more, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_msg_ack(msg: *mut ww_msg) {
    // SAFETY: the caller's.
    unsafe { close(msg) }
}

/// Gives the message back: where messages are delivered at least once, it is delivered again. The handle is gone, whatever this returns.
///
/// # Safety
///
/// `msg` is a handle that nobody uses any more, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_msg_nack(msg: *mut ww_msg) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        let msg = unsafe { take(msg) }?;
        msg.born.check()?;
        match msg.content {
            Content::Message(message) => message.nack(),
            Content::Published(published) => published.nack(),
            Content::Value(value) => drop(value),
        }
        Ok(())
    })
}
