//! A word to sleep on: `futex(2)`, always shared between processes.
//!
//! Reference: `FUTEX_WAIT` compares and falls asleep in one step of the kernel; `FUTEX_WAKE` wakes at most so many. Both
//! may return for no reason: whoever sleeps looks again. Plain waiting is the one futex call that no container profile
//! refuses.

#[cfg(not(loom))]
pub(crate) use real::Futex;
#[cfg(loom)]
pub(crate) use stand_in::Futex;

#[cfg(not(loom))]
mod real {
    use std::time::Duration;

    use rustix::{
        io::Errno,
        thread::futex::{self, Flags, Timespec},
    };

    use crate::sys::sync::AtomicU32;

    /// A 32-bit word in shared memory on which threads of any process can sleep.
    #[derive(Debug, Default)]
    #[repr(transparent)]
    pub(crate) struct Futex(AtomicU32);

    impl Futex {
        /// The word.
        pub(crate) fn word(&self) -> &AtomicU32 {
            &self.0
        }

        /// Sleeps while the word is `expected`, for at most `time`. Returns for any other reason, too.
        pub(crate) fn wait(&self, expected: u32, time: Option<Duration>) {
            let timeout = time.map(|time| Timespec {
                tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: time.subsec_nanos().into(),
            });
            match futex::wait(&self.0, Flags::empty(), expected, timeout.as_ref()) {
                // All of them mean: look again.
                Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => {}
                // Refused by a profile, or the page is gone: do not turn a sleep into a busy loop.
                Err(_) => std::thread::sleep(time.unwrap_or(Duration::from_millis(10)).min(Duration::from_millis(10))),
            }
        }

        /// Wakes one sleeper.
        #[cfg_attr(crash_points, track_caller)]
        pub(crate) fn wake_one(&self) {
            crate::sys::sync::point();
            // An error means that nobody can be asleep there.
            let _ = futex::wake(&self.0, Flags::empty(), 1);
        }
    }
}

#[cfg(loom)]
mod stand_in {
    use std::time::Duration;

    use crate::sys::sync::{AtomicU32, Condvar, Mutex, Ordering};

    /// The model's futex: comparing and falling asleep are one step, by the mutex.
    #[derive(Debug)]
    pub(crate) struct Futex {
        word: AtomicU32,
        lock: Mutex<()>,
        sleepers: Condvar,
    }

    impl Default for Futex {
        fn default() -> Self {
            Self { word: AtomicU32::new(0), lock: Mutex::new(()), sleepers: Condvar::new() }
        }
    }

    impl Futex {
        pub(crate) fn word(&self) -> &AtomicU32 {
            &self.word
        }

        pub(crate) fn wait(&self, expected: u32, _: Option<Duration>) {
            let lock = self.lock.lock().unwrap();
            if self.word.load(Ordering::SeqCst) == expected {
                drop(self.sleepers.wait(lock).unwrap());
            }
        }

        pub(crate) fn wake_one(&self) {
            let _lock = self.lock.lock().unwrap();
            self.sleepers.notify_one();
        }
    }
}
