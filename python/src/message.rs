//! Messages, read in place: what looks at one keeps it.

use std::{
    mem::ManuallyDrop,
    ops::Deref,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use pyo3::{
    exceptions::{PyBufferError, PyValueError},
    ffi,
    prelude::*,
};
use waterway::Message as Received;

use crate::born::Born;

/// Lends bytes to whoever wants to read them.
///
/// # Safety
///
/// `view` is what the interpreter gives to `bf_getbuffer`, and the bytes stay where they are,
/// readable, for as long as `owner` has a reference.
unsafe fn lend(bytes: *const [u8], owner: *mut ffi::PyObject, view: *mut ffi::Py_buffer, flags: i32) -> PyResult<()> {
    // SAFETY: the caller's. Nobody writes through it: it is read-only.
    let status =
        unsafe { ffi::PyBuffer_FillInfo(view, owner, bytes.cast_mut().cast(), bytes.len() as isize, 1, flags) };
    if status != 0 {
        return Err(Python::attach(PyErr::fetch));
    }
    Ok(())
}

/// A message of a channel: read-only bytes in shared memory. It is acknowledged, and its memory
/// goes, when the last that looks at it has gone, or by `ack`.
#[pyclass(frozen, module = "waterway._waterway")]
pub(crate) struct Message {
    received: Mutex<Option<Received<[u8]>>>,
    /// How many look at it.
    views: AtomicUsize,
    born: Born,
}

impl Message {
    pub(crate) fn new(received: Received<[u8]>) -> Self {
        Self { received: Mutex::new(Some(received)), views: AtomicUsize::new(0), born: Born::here() }
    }

    fn with<R>(&self, look: impl FnOnce(&Received<[u8]>) -> R) -> PyResult<R> {
        self.born.check()?;
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.as_ref().map(look).ok_or_else(|| PyValueError::new_err("the message has been given back"))
    }

    /// The message, which nobody looks at from now on.
    fn take(&self) -> PyResult<Received<[u8]>> {
        self.born.check()?;
        // Ordering: Relaxed: the interpreter is held wherever it changes.
        let views = self.views.load(Ordering::Relaxed);
        if views > 0 {
            return Err(PyBufferError::new_err(format!(
                "{views} views of the message are left: release them, or drop them and the message"
            )));
        }
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner).take();
        received.ok_or_else(|| PyValueError::new_err("the message has been given back"))
    }
}

#[pymethods]
impl Message {
    fn ack(&self) -> PyResult<()> {
        self.take().map(Received::ack)
    }

    fn nack(&self) -> PyResult<()> {
        self.take().map(Received::nack)
    }

    #[getter]
    fn sequence(&self) -> PyResult<u64> {
        self.with(Received::sequence)
    }

    #[getter]
    fn delivery_count(&self) -> PyResult<u32> {
        self.with(Received::delivery_count)
    }

    fn __len__(&self) -> PyResult<usize> {
        self.with(|received| received.len())
    }

    fn __repr__(&self) -> String {
        match self.with(|received| (received.sequence(), received.len())) {
            Ok((sequence, len)) => format!("<waterway.Message {sequence} of {len} bytes>"),
            Err(_) => "<waterway.Message, given back>".to_owned(),
        }
    }

    // SAFETY of the two: the interpreter calls them as buffer protocol, and a message with views is
    // not given back.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: i32) -> PyResult<()> {
        let this = slf.get();
        let bytes = this.with(|received| &raw const **received)?;
        // SAFETY: the message keeps the bytes while it has views, which have a reference to it.
        unsafe { lend(bytes, slf.as_ptr(), view, flags) }?;
        this.views.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        self.views.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A message of a queue. Its objects look at it, each through a [`View`], and the queue keeps it
/// until its task is done.
#[derive(Debug)]
pub(crate) struct Held {
    received: ManuallyDrop<Received<[u8]>>,
    /// Whether it is acknowledged when it goes; otherwise it comes back.
    is_done: AtomicBool,
    born: Born,
}

impl Held {
    pub(crate) fn new(received: Received<[u8]>, is_done: bool) -> Self {
        Self { received: ManuallyDrop::new(received), is_done: AtomicBool::new(is_done), born: Born::here() }
    }

    /// From now on it is acknowledged when it goes.
    pub(crate) fn done(&self) {
        // Ordering: Relaxed: who drops it last has synchronised with everybody through the count of
        // references.
        self.is_done.store(true, Ordering::Relaxed);
    }
}

impl Deref for Held {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.received
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: it is not used any more.
        let received = unsafe { ManuallyDrop::take(&mut self.received) };
        if *self.is_done.get_mut() { received.ack() } else { received.nack() }
    }
}

/// Read-only bytes of a message of a queue.
#[pyclass(frozen, module = "waterway._waterway")]
pub(crate) struct View {
    held: Arc<Held>,
    start: usize,
    len: usize,
}

impl View {
    /// Of a part of a message. Nothing if it has no such part.
    pub(crate) fn new(held: &Arc<Held>, start: usize, len: usize) -> Option<Self> {
        held.get(start..start.checked_add(len)?)?;
        Some(Self { held: held.clone(), start, len })
    }
}

#[pymethods]
impl View {
    // SAFETY: the interpreter calls it as buffer protocol.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: i32) -> PyResult<()> {
        let this = slf.get();
        this.held.born.check()?;
        let bytes = &raw const this.held[this.start..this.start + this.len];
        // SAFETY: the message stays for as long as this has it.
        unsafe { lend(bytes, slf.as_ptr(), view, flags) }
    }
}
