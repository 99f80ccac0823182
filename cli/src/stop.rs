//! Waiting without polling, until something is there or a signal says that it is enough: who is in a segment leaves it then.

use std::{
    future::Future,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

/// The signal that came, for the thread that made this.
pub(crate) struct Stop {
    signal: Arc<AtomicI32>,
    waker: Waker,
}

/// Wakes a thread that has parked.
pub(crate) struct Unpark(pub(crate) Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The exit status of who ends by a signal, as shells have it.
pub(crate) fn status_of(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

impl Stop {
    /// From now on a signal ends waiting; a second one ends the process at once.
    pub(crate) fn new() -> io::Result<Self> {
        let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
        let (signal, main) = (Arc::new(AtomicI32::new(0)), thread::current());
        let waker = Waker::from(Arc::new(Unpark(main.clone())));
        let came = signal.clone();
        thread::spawn(move || {
            for signal in signals.forever() {
                // Ordering: Relaxed: unparking orders it before the look of who was parked.
                if came.swap(signal, Ordering::Relaxed) != 0 {
                    std::process::exit(status_of(signal).into());
                }
                main.unpark();
            }
        });
        Ok(Self { signal, waker })
    }

    /// The signal that came, if one has.
    pub(crate) fn signal(&self) -> Option<i32> {
        // Ordering: Relaxed: as where it is set.
        Some(self.signal.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
    }

    /// Runs a future to its end, or drops it: `Err` with the signal that came.
    pub(crate) fn run<F: Future>(&self, future: F) -> Result<F::Output, i32> {
        let (mut future, mut context) = (pin!(future), Context::from_waker(&self.waker));
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return Ok(output);
            }
            if let Some(signal) = self.signal() {
                return Err(signal);
            }
            thread::park();
        }
    }
}
