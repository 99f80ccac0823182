//! How an event loop of asyncio waits: for a descriptor, which wakers write to.

use std::{
    future::Future,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use pyo3::{exceptions::PyOSError, prelude::*, types::PyTuple};

use crate::born::Born;

/// What is shared with wakers.
#[derive(Debug)]
struct Shared {
    descriptor: OwnedFd,
    /// Who was woken since the loop has looked.
    woken: Mutex<Vec<u64>>,
}

impl Shared {
    fn ring(&self, number: u64) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        woken.push(number);
        if woken.len() == 1 {
            // SAFETY: the descriptor is open, and the value lives. A full counter is readable, too.
            unsafe { libc::write(self.descriptor.as_raw_fd(), (&raw const ONE).cast(), size_of_val(&ONE)) };
        }
    }
}

static ONE: u64 = 1;

/// The descriptor of one event loop, readable when an operation can go on.
#[pyclass(frozen, module = "waterway._waterway")]
#[derive(Debug)]
pub(crate) struct Bell {
    shared: Arc<Shared>,
}

#[pymethods]
impl Bell {
    #[new]
    fn new() -> PyResult<Self> {
        // SAFETY: it has no preconditions.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if descriptor < 0 {
            return Err(PyOSError::new_err(std::io::Error::last_os_error().to_string()));
        }
        // SAFETY: it is open, and nobody else's.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self { shared: Arc::new(Shared { descriptor, woken: Mutex::default() }) })
    }

    fn fileno(&self) -> i32 {
        self.shared.descriptor.as_raw_fd()
    }

    /// The numbers of those who were woken since the last time.
    fn take(&self) -> Vec<u64> {
        let mut count = 0_u64;
        // Before the list is taken: who comes after that finds it empty, and writes again.
        // SAFETY: the descriptor is open, and the value can be written to. Nothing there to read is
        // fine.
        unsafe { libc::read(self.shared.descriptor.as_raw_fd(), (&raw mut count).cast(), size_of_val(&count)) };
        std::mem::take(&mut *self.shared.woken.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The waker of one operation.
#[derive(Debug)]
struct Ringer {
    bell: Arc<Shared>,
    number: u64,
    /// Whether it has rung since the operation was polled.
    has_rung: AtomicBool,
}

impl Wake for Ringer {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Ordering: Release, pairs with the store of who polls: it sees what it is woken for.
        if !self.has_rung.swap(true, Ordering::Release) {
            self.bell.ring(self.number);
        }
    }
}

/// What an operation comes to: a value, made with the interpreter at hand.
pub(crate) type Outcome = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;
type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Something that an event loop waits for. To drop it, or to cancel it, loses nothing.
#[pyclass(frozen, module = "waterway._waterway")]
pub(crate) struct Operation {
    running: Mutex<Option<Running>>,
    ringer: Arc<Ringer>,
    waker: Waker,
    born: Born,
}

impl Operation {
    pub(crate) fn new(bell: &Bell, number: u64, future: impl Future<Output = Outcome> + Send + 'static) -> Self {
        let ringer = Arc::new(Ringer { bell: bell.shared.clone(), number, has_rung: AtomicBool::new(false) });
        let waker = Waker::from(ringer.clone());
        Self { running: Mutex::new(Some(Box::pin(future))), ringer, waker, born: Born::here() }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Operation {
    /// A tuple of the value, or nothing if the bell will ring.
    fn poll<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.born.check()?;
        // Taken out: whatever its end runs of Python must not find the lock taken.
        let Some(mut running) = self.running().take() else { return Ok(None) };
        // Ordering: Acquire, pairs with the waker's swap.
        self.ringer.has_rung.swap(false, Ordering::Acquire);
        match running.as_mut().poll(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(outcome) => {
                drop(running);
                PyTuple::new(py, [outcome(py)?]).map(Some)
            }
            Poll::Pending => {
                *self.running() = Some(running);
                Ok(None)
            }
        }
    }

    /// Ends it.
    fn cancel(&self) {
        let running = self.running().take();
        drop(running);
    }
}
