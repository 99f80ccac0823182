//! Who comes in meets whoever leaves, or makes a segment, or tidies up, at the worst moment: just before or after one of their
//! system calls, which this program stands before.

mod common;

use std::{
    cell::{Cell, RefCell},
    fs::File,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use common::{Place, files};
use waterway::OpenError;

/// Where the locks begin: the byte of the gate.
const GATE: i64 = 1 << 62;

thread_local! {
    /// How long to wait before the question about the lock of the gate.
    static PAUSE: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// What is called once, when the lock of the gate alone was given up.
    static AFTER_GATE: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// Stands before the C library's.
///
/// # Safety
///
/// As for `fcntl`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl(fd: libc::c_int, command: libc::c_int, argument: *mut libc::flock) -> libc::c_int {
    let is_about_locks = matches!(command, libc::F_OFD_GETLK | libc::F_OFD_SETLK);
    // SAFETY: says the caller; of these two commands the argument is a lock.
    let lock = is_about_locks.then(|| unsafe { *argument });
    if command == libc::F_OFD_GETLK && lock.is_some_and(|lock| lock.l_start == GATE) {
        thread::sleep(PAUSE.try_with(Cell::get).unwrap_or_default());
    }
    // SAFETY: as above.
    let result = unsafe { libc::syscall(libc::SYS_fcntl, fd, command, argument) } as libc::c_int;
    if command == libc::F_OFD_SETLK
        && lock.is_some_and(|lock| (lock.l_start, lock.l_len, i32::from(lock.l_type)) == (GATE, 1, libc::F_UNLCK))
        && let Some(then) = AFTER_GATE.try_with(RefCell::take).ok().flatten()
    {
        then();
    }
    result
}

#[test]
fn two_who_come_and_go_always_find_a_place_for_two() {
    let place = Place::new();
    let opened = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + Duration::from_secs(3);
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let (options, opened) = (place.options().size(1 << 20).participants(2), Arc::clone(&opened));
            thread::spawn(move || {
                PAUSE.set(Duration::from_micros(200));
                while Instant::now() < until {
                    drop(options.clone().open_or_create("two").unwrap());
                    opened.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    println!("{} openings", opened.load(Ordering::Relaxed));
    assert!(files(place.path()).is_empty());
}

/// All temporary files of a directory are as old as if their makers had been stopped for an hour.
fn age(directory: &Path) -> usize {
    let temporary = files(directory).into_iter().filter(|name| name.starts_with(".tmp-"));
    temporary
        .map(|name| {
            let old = SystemTime::now() - Duration::from_secs(3600);
            File::options().write(true).open(directory.join(name)).unwrap().set_modified(old).unwrap();
        })
        .count()
}

#[test]
fn who_was_stopped_before_it_named_its_file_still_has_it() {
    let place = Place::new();
    let (directory, options) = (place.path().to_owned(), place.options());
    AFTER_GATE.set(Some(Box::new(move || {
        assert_eq!(age(&directory), 1);
        // Whoever looks tidies up.
        options.clone().list().unwrap();
        options.clone().sweep().unwrap();
        drop(options.size(1 << 20).create("other").unwrap());
        assert_eq!(age(&directory), 1);
    })));
    let segment = place.options().size(1 << 20).create("late").unwrap();
    assert!(AFTER_GATE.take().is_none(), "it was not met there");
    assert_eq!(files(place.path()), ["late"]);
    assert_eq!(place.options().open("late").unwrap().id(), segment.id());
}

#[test]
fn who_has_lost_its_file_before_it_named_it_makes_another() {
    let place = Place::new();
    let directory = place.path().to_owned();
    AFTER_GATE.set(Some(Box::new(move || {
        for name in files(&directory) {
            std::fs::remove_file(directory.join(name)).unwrap();
        }
    })));
    let segment = place.options().size(1 << 20).create("again").unwrap();
    assert!(AFTER_GATE.take().is_none());
    assert_eq!(place.options().open("again").unwrap().id(), segment.id());
    assert_eq!(files(place.path()), ["again"]);
}

#[test]
fn of_two_who_make_the_same_segment_the_second_finds_the_first() {
    let place = Place::new();
    for is_create in [false, true] {
        let (options, first) = (place.options().size(1 << 20), Arc::new(std::sync::Mutex::new(None)));
        let (faster, made) = (options.clone(), Arc::clone(&first));
        AFTER_GATE.set(Some(Box::new(move || {
            *made.lock().unwrap() = Some(faster.create("same").unwrap());
        })));
        if is_create {
            let refused = options.create("same").unwrap_err();
            assert!(matches!(refused, OpenError::AlreadyExists { .. }), "{refused:?}");
        } else {
            let second = options.open_or_create("same").unwrap();
            let first = first.lock().unwrap();
            let first = first.as_ref().unwrap();
            assert_eq!((second.id(), first.participants().len()), (first.id(), 2));
        }
        drop(first);
        assert!(files(place.path()).is_empty());
    }
}
