//! Segments, and those that this process has open.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use pyo3::{prelude::*, types::PyTuple};
use waterway::{Segment as Inner, SegmentOptions};

use crate::{
    born::Born,
    channel::{Options, Receiver, Sender},
    errors,
};

/// Where a segment is, and how it is made if it is not there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) size: Option<usize>,
    pub(crate) max_size: Option<usize>,
    pub(crate) dir: Option<PathBuf>,
}

impl Place {
    pub(crate) fn open(&self) -> PyResult<Inner> {
        let mut options = options_in(self.dir.as_deref());
        if let Some(size) = self.size {
            options = options.size(size);
        }
        if let Some(max_size) = self.max_size {
            options = options.max_size(max_size);
        }
        options.open_or_create(&self.name).map_err(errors::refused)
    }
}

/// Options for segments of a directory, or of the default one.
fn options_in(dir: Option<&Path>) -> SegmentOptions {
    dir.into_iter().fold(Inner::options(), SegmentOptions::dir)
}

/// A region of memory that processes share.
#[pyclass(frozen, weakref, module = "waterway._waterway")]
pub(crate) struct Segment {
    inner: Mutex<Option<Inner>>,
    pub(crate) place: Place,
    born: Born,
}

impl Segment {
    fn inner(&self) -> PyResult<Inner> {
        self.born.check()?;
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(errors::ended)
    }
}

#[pymethods]
impl Segment {
    #[new]
    #[pyo3(signature = (name, *, size=None, max_size=None, dir=None))]
    fn new(name: String, size: Option<usize>, max_size: Option<usize>, dir: Option<PathBuf>) -> PyResult<Self> {
        let place = Place { name, size, max_size, dir };
        let inner = place.open()?;
        Ok(Self { place: located(&inner, place), inner: Mutex::new(Some(inner)), born: Born::here() })
    }

    #[pyo3(signature = (channel, *, capacity=None, at_least_once=false, max_deliveries=16, persistent=false))]
    fn sender(
        &self,
        channel: String,
        capacity: Option<usize>,
        at_least_once: bool,
        max_deliveries: u32,
        persistent: bool,
    ) -> PyResult<Sender> {
        let max_deliveries = at_least_once.then_some(max_deliveries);
        Sender::open(&self.inner()?, Options { name: channel, capacity, max_deliveries, persistent })
    }

    #[pyo3(signature = (channel, *, capacity=None, at_least_once=false, max_deliveries=16, persistent=false))]
    fn receiver(
        &self,
        channel: String,
        capacity: Option<usize>,
        at_least_once: bool,
        max_deliveries: u32,
        persistent: bool,
    ) -> PyResult<Receiver> {
        let max_deliveries = at_least_once.then_some(max_deliveries);
        Receiver::open(&self.inner()?, Options { name: channel, capacity, max_deliveries, persistent })
    }

    #[getter]
    fn name(&self) -> &str {
        &self.place.name
    }

    #[getter]
    fn path(&self) -> PyResult<Option<PathBuf>> {
        Ok(self.inner()?.path().map(Into::into))
    }

    /// Bytes that messages and channels hold now.
    #[getter]
    fn held_bytes(&self) -> PyResult<usize> {
        Ok(self.inner()?.stats().held_bytes())
    }

    /// Looks whether everything is in order; says what is not.
    fn check(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let inner = self.inner()?;
        let report = py.detach(|| inner.check());
        Ok(report.problems)
    }

    /// Leaves the segment. Ends and messages that are left keep it.
    fn close(&self) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(inner);
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_error))]
    fn __exit__(&self, _error: &Bound<'_, PyAny>) {
        self.close();
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let Place { name, size, max_size, dir } = slf.get().place.clone();
        let remake = slf.py().import("waterway")?.getattr("_remake_segment")?;
        (remake, (name, size, max_size, dir)).into_pyobject(slf.py())
    }

    fn __repr__(&self) -> String {
        format!("<waterway.Segment {:?}>", self.place.name)
    }

    /// Removes a segment that nobody uses, or the name of one that somebody does.
    #[staticmethod]
    #[pyo3(signature = (name, *, dir=None))]
    fn remove(name: &str, dir: Option<PathBuf>) -> PyResult<()> {
        options_in(dir.as_deref()).remove(name).map_err(errors::refused)
    }

    /// Removes what processes have left behind that died before they could; the names.
    #[staticmethod]
    #[pyo3(signature = (*, dir=None))]
    fn sweep(dir: Option<PathBuf>) -> PyResult<Vec<String>> {
        let swept = options_in(dir.as_deref()).sweep().map_err(errors::refused)?;
        Ok(swept.into_iter().map(|segment| segment.name).collect())
    }
}

/// A segment that queues have open.
struct Known {
    born: Born,
    /// What was asked for, and where that is.
    asked: Place,
    found: Place,
    segment: Weak<Inner>,
}

/// Segments that queues of this process have open: one for all queues of a segment, as long as
/// there is one.
static OPEN: Mutex<Vec<Known>> = Mutex::new(Vec::new());

/// A segment that a queue of this process has open already, or that is opened now; and where it is,
/// whatever the environment says later, or in another process.
pub(crate) fn shared(place: &Place) -> PyResult<(Arc<Inner>, Place)> {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    open.retain(|known| !known.born.is_elsewhere() && known.segment.strong_count() > 0);
    let mut asked = place.clone();
    asked.dir = asked.dir.or_else(|| std::env::var_os("WATERWAY_DIR").map(PathBuf::from));
    let is_it = |place: &Place| place.name == asked.name && place.dir == asked.dir;
    for known in &*open {
        if let (true, Some(segment)) = (is_it(&known.asked) || is_it(&known.found), known.segment.upgrade()) {
            return Ok((segment, known.found.clone()));
        }
    }
    let segment = Arc::new(asked.open()?);
    let found = located(&segment, asked.clone());
    open.push(Known { born: Born::here(), asked, found: found.clone(), segment: Arc::downgrade(&segment) });
    Ok((segment, found))
}

/// A place, with the directory in which its segment is.
fn located(segment: &Inner, place: Place) -> Place {
    let dir = segment.path().and_then(Path::parent).map(Into::into).or(place.dir);
    Place { dir, ..place }
}
