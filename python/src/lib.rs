//! Waterway for Python: the module `waterway._waterway`, on which the package `waterway` stands.
//!
//! What Python sees is documented in `package/waterway/_waterway.pyi` and `docs/python.md`. The
//! rules of this crate:
//!
//! * Whoever waits has released the interpreter. The main thread answers signals meanwhile
//!   ([`wait`]).
//! * No lock of this crate is held while the interpreter is released, so that a forked child never
//!   finds one taken; what a waker takes ([`bell`]) belongs to an event loop, of which a child has
//!   its own.
//! * A waker needs no interpreter: it writes to a descriptor or a futex.
//! * A handle knows in which process it was made ([`born`]), and raises `Forked` in another.
//! * What stands in shared memory is checked before it is used ([`pickled`]).

mod bell;
mod born;
mod channel;
mod errors;
mod message;
mod pickled;
mod queue;
mod segment;
mod wait;

use pyo3::prelude::*;

/// The compiled part of the package `waterway`.
#[pymodule]
fn _waterway(module: &Bound<'_, PyModule>) -> PyResult<()> {
    born::watch_forks();
    errors::add(module)?;
    module.add_class::<bell::Bell>()?;
    module.add_class::<bell::Operation>()?;
    module.add_class::<segment::Segment>()?;
    module.add_class::<channel::Sender>()?;
    module.add_class::<channel::Receiver>()?;
    module.add_class::<message::Message>()?;
    module.add_class::<message::View>()?;
    module.add_class::<queue::Queue>()?;
    Ok(())
}
