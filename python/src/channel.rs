//! The ends of a channel of bytes.

use std::{
    slice,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use pyo3::{buffer::PyUntypedBuffer, exceptions::PyBufferError, intern, prelude::*, sync::PyOnceLock};
use waterway::{
    ChannelOptions, Delivery, OpenError, Receiver as Rx, Segment, SendError, Sender as Tx, TryRecvError, WaitStrategy,
};

use crate::{
    bell::{Bell, Operation, Outcome},
    born::Born,
    errors::{self, Empty},
    message::Message,
    wait::{Limit, block_on},
};

/// What a channel is opened with.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) name: String,
    pub(crate) capacity: Option<usize>,
    pub(crate) max_deliveries: Option<u32>,
    pub(crate) persistent: bool,
}

impl Options {
    pub(crate) fn of(&self, segment: &Segment, wait: WaitStrategy) -> ChannelOptions<[u8]> {
        let mut options = segment.bytes(&self.name).wait(wait).persistent(self.persistent);
        if let Some(capacity) = self.capacity {
            options = options.capacity(capacity);
        }
        options.delivery(match self.max_deliveries {
            Some(max_deliveries) => Delivery::AtLeastOnce { max_deliveries },
            None => Delivery::AtMostOnce,
        })
    }
}

/// An end, twice: threads try for a moment before they sleep; event loops, for which to try is to
/// go round, sleep at once. The second is opened when it is needed first.
struct Ends<E> {
    patient: Arc<E>,
    parked: OnceLock<Arc<E>>,
    segment: Segment,
    options: Options,
}

type Opening<E> = fn(ChannelOptions<[u8]>) -> Result<E, OpenError>;

/// An end of Python's: closed at once by its owner, and of one process.
struct Port<E> {
    ends: Mutex<Option<Arc<Ends<E>>>>,
    born: Born,
    open: Opening<E>,
}

impl<E> Port<E> {
    fn open(segment: &Segment, options: Options, open: Opening<E>) -> PyResult<Self> {
        let patient = open(options.of(segment, WaitStrategy::Adaptive)).map_err(errors::refused)?;
        let ends = Ends { patient: Arc::new(patient), parked: OnceLock::new(), segment: segment.clone(), options };
        Ok(Self { ends: Mutex::new(Some(Arc::new(ends))), born: Born::here(), open })
    }

    fn ends(&self) -> PyResult<Arc<Ends<E>>> {
        self.born.check()?;
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(errors::ended)
    }

    fn patient(&self) -> PyResult<Arc<E>> {
        Ok(self.ends()?.patient.clone())
    }

    fn parked(&self) -> PyResult<Arc<E>> {
        let ends = self.ends()?;
        if let Some(end) = ends.parked.get() {
            return Ok(end.clone());
        }
        let end = (self.open)(ends.options.of(&ends.segment, WaitStrategy::Park)).map_err(errors::refused)?;
        Ok(ends.parked.get_or_init(|| Arc::new(end)).clone())
    }

    fn close(&self) {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(ends);
    }
}

/// Bytes that somebody wants to send.
pub(crate) struct Given(PyUntypedBuffer);

impl Given {
    pub(crate) fn new(data: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyUntypedBuffer::get(data)?;
        if !buffer.is_c_contiguous() {
            return Err(PyBufferError::new_err("what is sent must lie in one piece: copy it first"));
        }
        Ok(Self(buffer))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        let len = self.0.len_bytes();
        if len == 0 {
            return &[];
        }
        // SAFETY: the buffer is in one piece, and stays for as long as this has it. The bytes are
        // copied, and nothing but the copy depends on them: a thread that writes there meanwhile
        // has something torn sent, as with any other reader of buffers without the interpreter.
        unsafe { slice::from_raw_parts(self.0.buf_ptr().cast(), len) }
    }
}

/// Waits for room, and sends a copy of the bytes.
async fn send_copy(end: &Tx<[u8]>, given: &Given) -> Result<(), SendError<()>> {
    let mut permit = end.reserve(given.bytes().len()).await?;
    permit.extend_from_slice(given.bytes());
    permit.send();
    Ok(())
}

/// How event loops wait, in Python.
fn asyncio<'py>(py: Python<'py>) -> PyResult<&'py Bound<'py, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    MODULE.get_or_try_init(py, || Ok(py.import("waterway._asyncio")?.unbind())).map(|module| module.bind(py))
}

/// The sending end of a channel of bytes.
#[pyclass(frozen, module = "waterway._waterway")]
pub(crate) struct Sender(Port<Tx<[u8]>>);

impl Sender {
    pub(crate) fn open(segment: &Segment, options: Options) -> PyResult<Self> {
        Port::open(segment, options, ChannelOptions::sender).map(Self)
    }
}

#[pymethods]
impl Sender {
    #[pyo3(signature = (data, timeout=None))]
    fn blocking_send(&self, py: Python<'_>, data: &Bound<'_, PyAny>, timeout: Option<f64>) -> PyResult<()> {
        let (end, given, limit) = (self.0.patient()?, Given::new(data)?, Limit::of(timeout)?);
        match block_on(py, limit, send_copy(&end, &given))? {
            Some(sent) => sent.map_err(|error| errors::not_sent(&error)),
            None => Err(errors::timed_out()),
        }
    }

    fn try_send(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let (end, given) = (self.0.patient()?, Given::new(data)?);
        let mut permit = end.try_reserve(given.bytes().len()).map_err(|error| errors::not_sent_now(&error))?;
        permit.extend_from_slice(given.bytes());
        permit.send();
        Ok(())
    }

    /// A coroutine.
    fn send<'py>(slf: &Bound<'py, Self>, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        asyncio(py)?.call_method1(intern!(py, "drive"), (slf.getattr(intern!(py, "_send"))?, data))
    }

    fn _send(&self, data: &Bound<'_, PyAny>, bell: &Bell, number: u64) -> PyResult<Operation> {
        let (end, given) = (self.0.parked()?, Given::new(data)?);
        Ok(Operation::new(bell, number, async move {
            let sent = send_copy(&end, &given).await;
            Box::new(move |py: Python<'_>| match sent {
                Ok(()) => Ok(py.None()),
                Err(error) => Err(errors::not_sent(&error)),
            }) as Outcome
        }))
    }

    fn is_closed(&self) -> PyResult<bool> {
        Ok(self.0.patient()?.is_closed())
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(self.0.patient()?.len())
    }

    #[getter]
    fn capacity(&self) -> PyResult<usize> {
        Ok(self.0.patient()?.max_capacity())
    }

    fn close(&self) {
        self.0.close();
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_error))]
    fn __exit__(&self, _error: &Bound<'_, PyAny>) {
        self.0.close();
    }
}

/// The receiving end of a channel of bytes.
#[pyclass(frozen, module = "waterway._waterway")]
pub(crate) struct Receiver(Port<Rx<[u8]>>);

impl Receiver {
    pub(crate) fn open(segment: &Segment, options: Options) -> PyResult<Self> {
        Port::open(segment, options, ChannelOptions::receiver).map(Self)
    }
}

#[pymethods]
impl Receiver {
    #[pyo3(signature = (timeout=None))]
    fn blocking_recv(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Message>> {
        let (end, limit) = (self.0.patient()?, Limit::of(timeout)?);
        if let Ok(received) = end.try_recv() {
            return Ok(Some(Message::new(received)));
        }
        match block_on(py, limit, end.recv())? {
            Some(received) => Ok(received.map(Message::new)),
            None => Err(errors::timed_out()),
        }
    }

    fn try_recv(&self) -> PyResult<Message> {
        match self.0.patient()?.try_recv() {
            Ok(received) => Ok(Message::new(received)),
            Err(TryRecvError::Empty) => Err(Empty::new_err("no message waits")),
            Err(_) => Err(errors::closed()),
        }
    }

    /// A coroutine.
    fn recv<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        asyncio(py)?.call_method1(intern!(py, "drive"), (slf.getattr(intern!(py, "_recv"))?,))
    }

    fn __aiter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// A coroutine.
    fn __anext__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        asyncio(py)?.call_method1(intern!(py, "drive_next"), (slf.getattr(intern!(py, "_recv"))?,))
    }

    fn _recv(&self, bell: &Bell, number: u64) -> PyResult<Operation> {
        let end = self.0.parked()?;
        Ok(Operation::new(bell, number, async move {
            let received = end.recv().await;
            Box::new(move |py: Python<'_>| match received {
                Some(received) => Ok(Py::new(py, Message::new(received))?.into_any()),
                None => Ok(py.None()),
            }) as Outcome
        }))
    }

    fn is_closed(&self) -> PyResult<bool> {
        Ok(self.0.patient()?.is_closed())
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(self.0.patient()?.len())
    }

    #[getter]
    fn capacity(&self) -> PyResult<usize> {
        Ok(self.0.patient()?.max_capacity())
    }

    fn close(&self) {
        self.0.close();
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Message>> {
        self.blocking_recv(py, None)
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_error))]
    fn __exit__(&self, _error: &Bound<'_, PyAny>) {
        self.0.close();
    }
}
