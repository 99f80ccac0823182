//! Objects in messages.
//!
//! A message of a queue begins with eight bytes: [`MAGIC`], what it is, and how many buffers lie
//! beside the pickle, little-endian. Of [bytes](BYTES) the rest is the object. Of a
//! [pickle](PICKLE) without buffers the rest is the pickle; with buffers there follows a table of
//! where the pickle and each of them lie, counted from the first byte of the message, and how long
//! they are, in 16 bytes each. Buffers begin at multiples of [`ALIGNMENT`] in memory: segments are
//! mapped in whole pages everywhere, so what is aligned here is aligned there.

use std::{iter, sync::Arc};

use pyo3::{
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyByteArray, PyBytes, PyDict, PyList},
};
use waterway::Permit;

use crate::{
    channel::Given,
    errors::Damaged,
    message::{Held, View},
};

const MAGIC: [u8; 3] = *b"WQ1";
const BYTES: u8 = 0;
const PICKLE: u8 = 1;
const HEADER: usize = 8;
const ENTRY: usize = 16;
/// Of a buffer, in bytes: a cache line.
const ALIGNMENT: usize = 64;
/// From so many bytes on they are read where they lie, and written with the interpreter released.
pub(crate) const LARGE: usize = 32 << 10;

/// An object, ready to be written into a message.
pub(crate) enum Pickled {
    Bytes(Given),
    Pickle { pickle: Given, buffers: Vec<Given> },
}

fn pickle_module<'py>(py: Python<'py>) -> PyResult<&'py Bound<'py, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    MODULE.get_or_try_init(py, || Ok(py.import("pickle")?.unbind())).map(|module| module.bind(py))
}

impl Pickled {
    /// Pickles an object. Its buffers are not copied yet.
    pub(crate) fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        if object.is_exact_instance_of::<PyBytes>() {
            return Ok(Self::Bytes(Given::new(object)?));
        }
        let py = object.py();
        let beside = PyList::empty(py);
        let options = PyDict::new(py);
        options.set_item(intern!(py, "protocol"), 5)?;
        // `append` says nothing, which means that the buffer is not in the pickle.
        options.set_item(intern!(py, "buffer_callback"), beside.getattr(intern!(py, "append"))?)?;
        let pickle = pickle_module(py)?.call_method(intern!(py, "dumps"), (object,), Some(&options))?;
        let raw = |buffer: Bound<'_, PyAny>| Given::new(&buffer.call_method0(intern!(py, "raw"))?);
        Ok(Self::Pickle { pickle: Given::new(&pickle)?, buffers: beside.iter().map(raw).collect::<PyResult<_>>()? })
    }

    /// Bytes that a message must have room for.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => HEADER + bytes.bytes().len(),
            Self::Pickle { pickle, buffers } => {
                let beside = buffers.iter().map(|buffer| ENTRY + ALIGNMENT - 1 + buffer.bytes().len()).sum::<usize>();
                let own_entry = if buffers.is_empty() { 0 } else { ENTRY };
                HEADER + own_entry + pickle.bytes().len() + beside
            }
        }
    }

    /// Writes it into an empty permit of that length.
    pub(crate) fn write(&self, permit: &mut Permit<'_, [u8]>) {
        let header = |permit: &mut Permit<'_, [u8]>, kind, buffers: usize| {
            permit.extend_from_slice(&MAGIC);
            permit.push(kind);
            // More than fit into the number would not fit into a segment.
            permit.extend_from_slice(&(buffers as u32).to_le_bytes());
        };
        let (pickle, buffers) = match self {
            Self::Bytes(bytes) => {
                header(permit, BYTES, 0);
                return permit.extend_from_slice(bytes.bytes());
            }
            Self::Pickle { pickle, buffers } => (pickle.bytes(), buffers),
        };
        header(permit, PICKLE, buffers.len());
        if buffers.is_empty() {
            return permit.extend_from_slice(pickle);
        }
        let first = permit.as_ptr().addr();
        let mut put = |start: usize, len: usize| {
            permit.extend_from_slice(&(start as u64).to_le_bytes());
            permit.extend_from_slice(&(len as u64).to_le_bytes());
            start + len
        };
        let mut end = put(HEADER + ENTRY * (1 + buffers.len()), pickle.len());
        for buffer in buffers {
            let start = (first + end).next_multiple_of(ALIGNMENT) - first;
            end = put(start, buffer.bytes().len());
        }
        permit.extend_from_slice(pickle);
        for buffer in buffers {
            let gap = (first + permit.len()).next_multiple_of(ALIGNMENT) - first - permit.len();
            permit.extend(iter::repeat_n(0, gap));
            permit.extend_from_slice(buffer.bytes());
        }
    }
}

/// What a message says of itself.
enum Contents {
    Bytes,
    /// Where the pickle and the buffers lie, and how long they are.
    Pickle(Vec<(usize, usize)>),
}

impl Contents {
    /// Nothing if it is not the message of a queue.
    fn of(message: &[u8]) -> Option<Self> {
        let (header, rest) = message.split_first_chunk::<HEADER>()?;
        let [magic @ .., kind, b0, b1, b2, b3] = *header;
        let buffers = u32::from_le_bytes([b0, b1, b2, b3]) as usize;
        match (magic == MAGIC, kind, buffers) {
            (true, BYTES, 0) => Some(Self::Bytes),
            (true, PICKLE, 0) => Some(Self::Pickle(vec![(HEADER, rest.len())])),
            (true, PICKLE, _) => {
                let table = rest.get(..buffers.checked_add(1)?.checked_mul(ENTRY)?)?;
                let number = |bytes: &[u8]| Some(u64::from_le_bytes(bytes.try_into().ok()?) as usize);
                let entry = |entry: &[u8]| Some((number(&entry[..8])?, number(&entry[8..])?));
                table.chunks_exact(ENTRY).map(entry).collect::<Option<_>>().map(Self::Pickle)
            }
            _ => None,
        }
    }
}

/// The object of a message. Its buffers are those of the message, or copies that can be written to.
pub(crate) fn object<'py>(py: Python<'py>, held: &Arc<Held>, copy: bool) -> PyResult<Bound<'py, PyAny>> {
    let damaged = || Damaged::new_err("the message is not one of a Queue");
    let parts = match Contents::of(held).ok_or_else(damaged)? {
        Contents::Bytes => return Ok(PyBytes::new(py, &held[HEADER..]).into_any()),
        Contents::Pickle(parts) => parts,
    };
    let part = |&(start, len): &(usize, usize)| held.get(start..start.checked_add(len)?);
    let (at, beside) = parts.split_first().ok_or_else(damaged)?;
    let pickle = part(at).ok_or_else(damaged)?;
    let pickle = if pickle.len() < LARGE {
        PyBytes::new(py, pickle).into_any()
    } else {
        Bound::new(py, View::new(held, at.0, at.1).ok_or_else(damaged)?)?.into_any()
    };
    let loads = intern!(py, "loads");
    if beside.is_empty() {
        return pickle_module(py)?.call_method1(loads, (pickle,));
    }
    let buffers = PyList::empty(py);
    for at in beside {
        if copy {
            buffers.append(PyByteArray::new(py, part(at).ok_or_else(damaged)?))?;
        } else {
            buffers.append(View::new(held, at.0, at.1).ok_or_else(damaged)?)?;
        }
    }
    let options = PyDict::new(py);
    options.set_item(intern!(py, "buffers"), buffers)?;
    pickle_module(py)?.call_method(loads, (pickle,), Some(&options))
}
