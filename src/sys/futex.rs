//! A word to sleep on: `futex(2)`, always shared between processes.
//!
//! Reference: `FUTEX_WAIT` compares and falls asleep in one step of the kernel; `FUTEX_WAKE` wakes at most so many. Both
//! may return for no reason: whoever sleeps looks again. Plain waiting is the one futex call that no container profile
//! refuses; `futex_waitv` some do.

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

    // The kernel knows no other than a real one.
    #[cfg(shuttle)]
    use std::sync::atomic::AtomicU32;

    #[cfg(not(shuttle))]
    use crate::sys::sync::AtomicU32;
    use crate::sys::sync::{AtomicBool, Ordering};

    /// `struct futex_waitv` of `futex_waitv(2)` (Linux 5.16).
    #[repr(C)]
    struct Waiter {
        expected: u64,
        address: u64,
        flags: u32,
        reserved: u32,
    }

    /// A word of 32 bits, shared between processes.
    const FUTEX2_SIZE_U32: u32 = 2;

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

        /// As [`wait`](Self::wait), but a wake or change of the other word, from what it is expected to be, ends it, too.
        /// Where the kernel cannot do that, or is not allowed to, the other word is not looked at.
        pub(crate) fn wait_either(&self, expected: u32, other: (&Self, u32), time: Option<Duration>) {
            static REFUSED: AtomicBool = AtomicBool::new(false);
            if REFUSED.load(Ordering::Relaxed) {
                return self.wait(expected, time);
            }
            let waiter = |futex: &Self, expected: u32| Waiter {
                expected: expected.into(),
                address: std::ptr::from_ref(&futex.0) as u64,
                flags: FUTEX2_SIZE_U32,
                reserved: 0,
            };
            let waiters = [waiter(self, expected), waiter(other.0, other.1)];
            // This call takes the time at which to give up.
            let deadline = time.map(|time| {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
                let end = Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec as u32).saturating_add(time);
                Timespec { tv_sec: end.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: end.subsec_nanos().into() }
            });
            let deadline = deadline.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
            // SAFETY: the waiters and the time outlive the call, and their number is right; the words are mapped.
            let woken = unsafe {
                libc::syscall(
                    libc::SYS_futex_waitv,
                    waiters.as_ptr(),
                    waiters.len(),
                    0,
                    deadline,
                    libc::CLOCK_MONOTONIC,
                )
            };
            if woken >= 0 {
                return;
            }
            match std::io::Error::last_os_error().raw_os_error() {
                // All of them mean: look again.
                Some(libc::EAGAIN | libc::EINTR | libc::ETIMEDOUT) => {}
                _ => {
                    REFUSED.store(true, Ordering::Relaxed);
                    self.wait(expected, time);
                }
            }
        }

        /// Wakes one sleeper.
        #[cfg_attr(crash_points, track_caller)]
        pub(crate) fn wake_one(&self) {
            crate::sys::sync::point();
            // An error means that nobody can be asleep there.
            let _ = futex::wake(&self.0, Flags::empty(), 1);
        }

        /// Wakes all sleepers.
        pub(crate) fn wake_all(&self) {
            // As above.
            let _ = futex::wake(&self.0, Flags::empty(), i32::MAX as u32);
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

        pub(crate) fn wait_either(&self, expected: u32, _: (&Self, u32), time: Option<Duration>) {
            self.wait(expected, time);
        }

        pub(crate) fn wake_one(&self) {
            let _lock = self.lock.lock().unwrap();
            self.sleepers.notify_one();
        }

        pub(crate) fn wake_all(&self) {
            let _lock = self.lock.lock().unwrap();
            self.sleepers.notify_all();
        }
    }
}
