//! The atomics of a build with `--cfg crash_points`: every store and every read-modify-write is a point at which the
//! process can be told to kill or to stop itself, just before it happens.
//!
//! A point is known by its number in the process and by the line that it stands in; small helpers that only wrap an
//! access are `track_caller` in such builds, so that the line is the one which says what the access is for. Loads are not
//! points: what is seen of a process depends on what it has written. Nor are plain writes of payloads, which nobody looks
//! at before the store that publishes them. System calls that others can see (locks, names) are points, too.
//!
//! The environment says what is to happen, so that a child can be told before it has done anything:
//!
//! * `WATERWAY_CRASH_AT=120` means the 120th point, `WATERWAY_CRASH_AT=src/ring/mod.rs:300:5#2` the second time that this
//!   very place is passed.
//! * `WATERWAY_CRASH_BY=stop` sends SIGSTOP instead of SIGKILL.
//! * `WATERWAY_CRASH_LOG=path`: the place is written there first.
//!
//! Without any of them nothing is counted.
//!
//! Besides, a thread can be [`watched`]: something is called just before each of its points, which may keep it there, for
//! ever or for a while, or unwind out of it. So threads can be participants that stand still or die at any point, within one
//! process; their bridges, which are threads of their own, are not to live on then ([`without_bridges`]).

use std::{
    cell::RefCell,
    collections::HashMap,
    panic::Location,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{self, Ordering},
    },
};

/// When to stop.
#[derive(Debug)]
enum At {
    /// Never, but count.
    End,
    Point(u64),
    Place(String, u64),
}

#[derive(Debug)]
struct Plan {
    at: At,
    signal: libc::c_int,
    log: Option<std::path::PathBuf>,
}

#[derive(Debug, Default)]
struct Passed {
    points: u64,
    places: HashMap<&'static Location<'static>, u64>,
}

fn plan() -> Option<&'static Plan> {
    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    PLAN.get_or_init(|| {
        let at = std::env::var("WATERWAY_CRASH_AT").ok()?;
        let at = match at.split_once('#') {
            Some((place, times)) => At::Place(place.to_owned(), times.parse().ok()?),
            None => at.parse().map_or(At::End, At::Point),
        };
        let stop = std::env::var("WATERWAY_CRASH_BY").is_ok_and(|how| how == "stop");
        let signal = if stop { libc::SIGSTOP } else { libc::SIGKILL };
        Some(Plan { at, signal, log: std::env::var_os("WATERWAY_CRASH_LOG").map(Into::into) })
    })
    .as_ref()
}

static PASSED: OnceLock<Mutex<Passed>> = OnceLock::new();

fn name_of(place: &Location<'_>) -> String {
    format!("{}:{}:{}", place.file(), place.line(), place.column())
}

/// What is called before each point of a thread.
type Watcher = Box<dyn FnMut(&'static Location<'static>)>;

thread_local! {
    static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
}

/// Does some work, and calls `each` just before every point that this thread passes in it. The points of `each` itself do
/// not count.
pub fn watched<R>(each: impl FnMut(&'static Location<'static>) + 'static, work: impl FnOnce() -> R) -> R {
    /// Ends it, also if the work unwinds.
    struct Watched;

    impl Drop for Watched {
        fn drop(&mut self) {
            WATCHER.take();
        }
    }

    WATCHER.set(Some(Box::new(each)));
    let _watched = Watched;
    work()
}

fn tell_watcher(place: &'static Location<'static>) {
    // A thread that ends has none any more.
    let watcher = WATCHER.try_with(RefCell::take).ok().flatten();
    if let Some(mut watcher) = watcher {
        watcher(place);
        WATCHER.set(Some(watcher));
    }
}

static WITHOUT_BRIDGES: atomic::AtomicBool = atomic::AtomicBool::new(false);

/// From now on no participant of this process has a bridge thread: nobody is told of a death, or woken by other participants.
pub fn without_bridges() {
    WITHOUT_BRIDGES.store(true, Ordering::SeqCst);
}

/// Whether participants are to have no bridge threads.
pub(crate) fn is_without_bridges() -> bool {
    WITHOUT_BRIDGES.load(Ordering::SeqCst)
}

/// A point is about to be passed.
#[track_caller]
pub(crate) fn point() {
    let place = Location::caller();
    tell_watcher(place);
    let Some(plan) = plan() else { return };
    let mut passed = PASSED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    passed.points += 1;
    let points = passed.points;
    let times = passed.places.entry(place).or_default();
    *times += 1;
    let now = match &plan.at {
        At::End => false,
        At::Point(number) => *number == points,
        At::Place(name, wanted) => wanted == times && *name == name_of(place),
    };
    if now {
        // Under the lock: no other thread of this process passes a point any more.
        if let Some(log) = &plan.log {
            let _ = std::fs::write(log, name_of(place));
        }
        // SAFETY: a plain system call. The signal is this thread's own, so it takes effect before the call returns; one
        // that is sent to the process may be taken by another thread, and this one runs on for a while.
        unsafe { libc::raise(plan.signal) };
    }
}

/// The places that this process has passed so far, as `file:line:column`, and how often.
pub fn passed() -> Vec<(String, u64)> {
    let passed = PASSED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let mut places: Vec<_> = passed.places.iter().map(|(place, times)| (name_of(place), *times)).collect();
    places.sort();
    places
}

macro_rules! atomics {
    ($($name:ident: $value:ty),*) => { $(
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub(crate) struct $name(atomic::$name);

        /// What changes nothing is the atomic's own.
        impl std::ops::Deref for $name {
            type Target = atomic::$name;

            fn deref(&self) -> &atomic::$name {
                &self.0
            }
        }

        #[allow(dead_code)]
        impl $name {
            pub(crate) const fn new(value: $value) -> Self {
                Self(atomic::$name::new(value))
            }

            #[track_caller]
            pub(crate) fn store(&self, value: $value, order: Ordering) {
                point();
                self.0.store(value, order);
            }

            #[track_caller]
            pub(crate) fn compare_exchange(
                &self,
                from: $value,
                to: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                point();
                self.0.compare_exchange(from, to, success, failure)
            }

            #[track_caller]
            pub(crate) fn compare_exchange_weak(
                &self,
                from: $value,
                to: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                point();
                self.0.compare_exchange_weak(from, to, success, failure)
            }

            #[track_caller]
            pub(crate) fn fetch_update(
                &self,
                set: Ordering,
                fetch: Ordering,
                update: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                point();
                self.0.fetch_update(set, fetch, update)
            }
        }

        changes!($name: $value: swap, fetch_and, fetch_or, fetch_xor);
    )* };
}

macro_rules! changes {
    ($name:ident: $value:ty: $($change:ident),*) => {
        #[allow(dead_code)]
        impl $name { $(
            #[track_caller]
            pub(crate) fn $change(&self, value: $value, order: Ordering) -> $value {
                point();
                self.0.$change(value, order)
            }
        )* }
    };
}

atomics!(AtomicBool: bool, AtomicU32: u32, AtomicU64: u64, AtomicUsize: usize);
changes!(AtomicU32: u32: fetch_add, fetch_sub, fetch_max, fetch_min);
changes!(AtomicU64: u64: fetch_add, fetch_sub, fetch_max, fetch_min);
changes!(AtomicUsize: usize: fetch_add, fetch_sub, fetch_max, fetch_min);
