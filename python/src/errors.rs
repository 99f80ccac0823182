//! What Python catches.

use pyo3::{
    create_exception,
    exceptions::{PyException, PyMemoryError, PyTimeoutError, PyValueError},
    import_exception,
    prelude::*,
};
use waterway::{OpenError as Refused, SendError, TrySendError};

create_exception!(waterway, WaterwayError, PyException, "The root of what Waterway raises.");
create_exception!(waterway, OpenError, WaterwayError, "A segment or a channel could not be opened.");
create_exception!(waterway, Mismatch, OpenError, "A channel is there, and has other options than those asked for.");
create_exception!(
    waterway,
    Closed,
    WaterwayError,
    "The channel is closed: its other ends have gone, or this end was closed."
);
create_exception!(waterway, Forked, WaterwayError, "A handle was inherited by a forked child.");
create_exception!(waterway, Damaged, WaterwayError, "A message is none that a Queue has put there.");
import_exception!(queue, Full);
import_exception!(queue, Empty);

/// Adds the exceptions to the module.
pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("WaterwayError", py.get_type::<WaterwayError>())?;
    module.add("OpenError", py.get_type::<OpenError>())?;
    module.add("Mismatch", py.get_type::<Mismatch>())?;
    module.add("Closed", py.get_type::<Closed>())?;
    module.add("Forked", py.get_type::<Forked>())?;
    module.add("Damaged", py.get_type::<Damaged>())
}

/// A segment or a channel was refused.
pub(crate) fn refused(error: Refused) -> PyErr {
    let text = error.to_string();
    match error {
        Refused::Mismatch { .. } => Mismatch::new_err(text),
        Refused::Forked => Forked::new_err(text),
        Refused::InvalidName { .. } | Refused::InvalidOptions(_) => PyValueError::new_err(text),
        _ => OpenError::new_err(text),
    }
}

/// Something was not sent, and never will be.
pub(crate) fn not_sent(error: &SendError<()>) -> PyErr {
    if error.is_closed() { closed() } else { PyValueError::new_err(error.to_string()) }
}

/// Something was not sent now.
pub(crate) fn not_sent_now(error: &TrySendError<()>) -> PyErr {
    match error {
        TrySendError::Full(()) => Full::new_err("the channel is full"),
        TrySendError::OutOfMemory(()) => PyMemoryError::new_err(error.to_string()),
        TrySendError::Closed(()) => closed(),
        _ => PyValueError::new_err(error.to_string()),
    }
}

/// The other ends have gone.
pub(crate) fn closed() -> PyErr {
    Closed::new_err("the channel is closed")
}

/// This end was closed by its owner.
pub(crate) fn ended() -> PyErr {
    Closed::new_err("this end was closed")
}

/// The time was over.
pub(crate) fn timed_out() -> PyErr {
    PyTimeoutError::new_err("the time was over")
}
