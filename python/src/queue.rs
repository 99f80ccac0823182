//! `multiprocessing.Queue`, through a channel.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
};

use pyo3::{exceptions::PyValueError, prelude::*, types::PyTuple};
use waterway::{Permit, Receiver, Segment as Inner, SendError, Sender, TryRecvError, TrySendError, WaitStrategy};

use crate::{
    born::Born,
    channel::Options,
    errors::{self, Empty, Full},
    message::Held,
    pickled::{self, LARGE, Pickled},
    segment::{Place, Segment, shared},
    wait::{Limit, block_on},
};

/// What `maxsize=0` means: as many as that.
const MOST: usize = 1 << 16;
/// The segment of queues that are not told another.
const SEGMENT: &str = "queues";

/// What a queue has open.
struct Ends {
    sender: Sender<[u8]>,
    receiver: Receiver<[u8]>,
    /// What was got here, and is not done yet, each with the thread that got it.
    undone: Mutex<VecDeque<(ThreadId, Arc<Held>)>>,
    born: Born,
    /// Keeps the segment, after the ends.
    _segment: Arc<Inner>,
}

/// A queue between processes, as `multiprocessing.Queue`.
#[pyclass(frozen, generic, weakref, module = "waterway._waterway")]
pub(crate) struct Queue {
    place: Place,
    options: Options,
    maxsize: isize,
    copy: bool,
    /// None once this process has closed it.
    ends: Mutex<Option<Arc<Ends>>>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Ends>>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(place: &Place, options: &Options) -> PyResult<(Arc<Ends>, Place)> {
        let (segment, place) = shared(place)?;
        let (sender, receiver) = options.of(&segment, WaitStrategy::Adaptive).open().map_err(errors::refused)?;
        let ends = Ends { sender, receiver, undone: Mutex::default(), born: Born::here(), _segment: segment };
        Ok((Arc::new(ends), place))
    }

    /// The ends; those of a forked child are opened anew, by name.
    fn ends(&self) -> PyResult<Arc<Ends>> {
        let mut kept = self.lock();
        let ends = kept.as_ref().ok_or_else(|| PyValueError::new_err("the queue is closed"))?;
        if !ends.born.is_elsewhere() {
            return Ok(ends.clone());
        }
        let (ends, _) = Self::open(&self.place, &self.options)?;
        *kept = Some(ends.clone());
        Ok(ends)
    }

    fn is_at_least_once(&self) -> bool {
        self.options.max_deliveries.is_some()
    }
}

/// Writes an object into its message, and sends it.
fn send(py: Python<'_>, mut permit: Permit<'_, [u8]>, pickled: &Pickled) {
    let write = || {
        pickled.write(&mut permit);
        permit.send();
    };
    if pickled.len() < LARGE { write() } else { py.detach(write) }
}

fn full() -> PyErr {
    Full::new_err(())
}

fn empty() -> PyErr {
    Empty::new_err(())
}

#[pymethods]
impl Queue {
    #[new]
    #[pyo3(signature = (name, maxsize=256, *, copy=false, at_least_once=false, max_deliveries=16, segment=None))]
    fn new(
        name: String,
        maxsize: isize,
        copy: bool,
        at_least_once: bool,
        max_deliveries: u32,
        segment: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let place = match segment {
            None => Place { name: SEGMENT.to_owned(), ..Place::default() },
            Some(segment) => match segment.cast::<Segment>() {
                Ok(segment) => segment.get().place.clone(),
                Err(_) => match segment.extract() {
                    Ok(name) => Place { name, ..Place::default() },
                    // What an unpickled queue comes with.
                    Err(_) => {
                        let (name, size, max_size, dir) = segment.extract()?;
                        Place { name, size, max_size, dir }
                    }
                },
            },
        };
        let capacity = usize::try_from(maxsize).ok().filter(|maxsize| *maxsize > 0).unwrap_or(MOST);
        let max_deliveries = at_least_once.then_some(max_deliveries);
        let options = Options { name, capacity: Some(capacity), max_deliveries, persistent: true };
        let (ends, place) = Self::open(&place, &options)?;
        Ok(Self { place, options, maxsize, copy, ends: Mutex::new(Some(ends)) })
    }

    #[pyo3(signature = (obj, block=true, timeout=None))]
    fn put(&self, obj: &Bound<'_, PyAny>, block: bool, timeout: Option<f64>) -> PyResult<()> {
        let py = obj.py();
        let (ends, limit) = (self.ends()?, Limit::of(timeout)?);
        let pickled = Pickled::new(obj)?;
        match ends.sender.try_reserve(pickled.len()) {
            Ok(permit) => {
                send(py, permit, &pickled);
                return Ok(());
            }
            // There is no memory while too much of it is in messages: the queue is full in bytes.
            Err(TrySendError::Full(()) | TrySendError::OutOfMemory(())) if block => {}
            Err(TrySendError::Full(()) | TrySendError::OutOfMemory(())) => return Err(full()),
            Err(error) => return Err(errors::not_sent_now(&error)),
        }
        let reserve = ends.sender.reserve(pickled.len());
        let permit: Result<_, SendError<()>> = block_on(py, limit, reserve)?.ok_or_else(full)?;
        send(py, permit.map_err(|error| errors::not_sent(&error))?, &pickled);
        Ok(())
    }

    fn put_nowait(&self, obj: &Bound<'_, PyAny>) -> PyResult<()> {
        self.put(obj, false, None)
    }

    #[pyo3(signature = (block=true, timeout=None))]
    fn get<'py>(&self, py: Python<'py>, block: bool, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        let (ends, limit) = (self.ends()?, Limit::of(timeout)?);
        let received = match ends.receiver.try_recv() {
            Ok(received) => received,
            Err(TryRecvError::Empty) if !block => return Err(empty()),
            Err(TryRecvError::Empty) => {
                block_on(py, limit, ends.receiver.recv())?.ok_or_else(empty)?.ok_or_else(errors::closed)?
            }
            Err(_) => return Err(errors::closed()),
        };
        let held = Arc::new(Held::new(received, !self.is_at_least_once()));
        if self.is_at_least_once() {
            let mut undone = ends.undone.lock().unwrap_or_else(PoisonError::into_inner);
            undone.push_back((thread::current().id(), held.clone()));
        }
        pickled::object(py, &held, self.copy)
    }

    fn get_nowait<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.get(py, false, None)
    }

    /// The oldest object that this thread has got, and that is not done, is done.
    fn task_done(&self) -> PyResult<()> {
        if !self.is_at_least_once() {
            return Err(PyValueError::new_err("only a queue with at_least_once=True knows tasks"));
        }
        let ends = self.ends()?;
        let me = thread::current().id();
        let mut undone = ends.undone.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = undone.iter().position(|(thread, _)| *thread == me);
        let task = oldest.and_then(|oldest| undone.remove(oldest));
        drop(undone);
        let (_, held) = task.ok_or_else(|| PyValueError::new_err("task_done() called too many times"))?;
        held.done();
        Ok(())
    }

    fn qsize(&self) -> PyResult<usize> {
        Ok(self.ends()?.receiver.len())
    }

    fn empty(&self) -> PyResult<bool> {
        Ok(self.ends()?.receiver.is_empty())
    }

    fn full(&self) -> PyResult<bool> {
        Ok(self.ends()?.sender.capacity() == 0)
    }

    /// This process puts and gets no more. What it has got, and not done, comes back.
    fn close(&self) {
        let ends = self.lock().take();
        drop(ends);
    }

    /// Does nothing: what was put is in the queue.
    fn join_thread(&self) {}

    /// Does nothing: there is no thread.
    fn cancel_join_thread(&self) {}

    #[getter]
    fn name(&self) -> &str {
        &self.options.name
    }

    #[getter]
    fn maxsize(&self) -> isize {
        self.maxsize
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let Self { place, options, maxsize, copy, .. } = slf.get();
        let remake = slf.py().import("waterway")?.getattr("_remake_queue")?;
        let place = (place.name.clone(), place.size, place.max_size, place.dir.clone());
        (remake, (options.name.clone(), *maxsize, *copy, options.max_deliveries, place)).into_pyobject(slf.py())
    }

    fn __repr__(&self) -> String {
        format!("<waterway.Queue {:?} of {}>", self.options.name, self.maxsize)
    }
}
