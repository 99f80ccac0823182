//! Places where a segment cannot be had, or is taken away: what is said is what is wrong, nothing is left behind, and who
//! has a segment already goes on.

mod common;

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
    process::Command,
};

use common::{Place, Stamp, exercise, files, in_a_file_system_of, role, within};
use waterway::{OpenError, Segment, SegmentOptions, TrySendError};

const SIZE: usize = 1 << 20;

fn options(place: &Place) -> SegmentOptions {
    place.options().participants(4).channels(8)
}

fn is_root() -> bool {
    // SAFETY: it has no preconditions.
    unsafe { libc::geteuid() == 0 }
}

/// Limits this process, for now: the part that it may raise again.
fn limit(resource: libc::__rlimit_resource_t, to: u64) {
    // SAFETY: zeros are a value of it.
    let mut now: libc::rlimit = unsafe { std::mem::zeroed() };
    // SAFETY: a place for the answer, and then a limit to be set.
    unsafe {
        assert_eq!(libc::getrlimit(resource, &raw mut now), 0);
        now.rlim_cur = to.min(now.rlim_max);
        assert_eq!(libc::setrlimit(resource, &raw const now), 0);
    }
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Messages pass, whole.
fn talk(from: &Segment, to: &Segment) {
    let (sender, receiver) = (from.bytes("talk").sender().unwrap(), to.bytes("talk").receiver().unwrap());
    for number in 0..100 {
        let stamp = Stamp { sender: 1, number };
        sender.try_send(stamp.message(number as usize * 50 + 1)).unwrap();
        assert_eq!(Stamp::verify(&within(receiver.recv()).unwrap()), Some(stamp));
    }
}

/// The rest of the test, in a process of its own.
fn alone(test: &str, rest: impl FnOnce(&Place)) {
    let place = Place::new();
    match role() {
        Some(_) => rest(&place),
        None => place.spawn(test, "alone").succeed(),
    }
}

#[test]
fn too_few_descriptors_are_an_error_and_none_is_lost() {
    alone("too_few_descriptors_are_an_error_and_none_is_lost", |place| {
        let keep = options(place).size(SIZE).create("there").unwrap();
        exercise(&keep);
        let before = descriptors();
        let (mut refused, mut opened) = (0, 0);
        for most in before - 4..before + 4 {
            limit(libc::RLIMIT_NOFILE, most as u64);
            let attempts = [
                options(place).open("there"),
                options(place).size(SIZE).create("new"),
                options(place).open_or_create("there"),
                options(place).size(SIZE).anonymous(),
            ];
            for attempt in attempts {
                match attempt {
                    Ok(segment) => {
                        opened += 1;
                        exercise(&segment);
                    }
                    Err(error @ OpenError::Io { .. }) => {
                        refused += 1;
                        assert!(error.to_string().contains("Too many open files"), "{error}");
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
            // Whoever has a segment needs no more of them.
            exercise(&keep);
            limit(libc::RLIMIT_NOFILE, 1024);
            common::eventually("all descriptors are closed", || descriptors() == before);
            assert_eq!(files(place.path()), ["there"], "with at most {most}");
        }
        assert!(refused >= 4 && opened >= 4, "{refused} refused, {opened} opened");
    });
}

#[test]
fn too_little_address_space_is_an_error_that_says_what_to_do() {
    alone("too_little_address_space_is_an_error_that_says_what_to_do", |place| {
        let keep = options(place).size(SIZE).create("small").unwrap();
        options(place).size(64 << 20).max_size(1 << 36).persistent(true).create("large").unwrap();
        exercise(&keep);
        let before = descriptors();
        limit(libc::RLIMIT_AS, 1 << 34);
        let attempts = [
            options(place).open("large"),
            options(place).size(64 << 20).max_size(1 << 36).create("new"),
            options(place).size(64 << 20).max_size(1 << 36).anonymous(),
        ];
        for attempt in attempts {
            let error = attempt.unwrap_err();
            assert!(matches!(error, OpenError::Limited { needed, .. } if needed == 1 << 36), "{error:?}");
            let text = error.to_string();
            assert!(text.contains("65536 MiB") && text.contains("ulimit -v") && text.contains("max_size"), "{text}");
        }
        assert_eq!((descriptors(), files(place.path())), (before, vec!["large".to_owned(), "small".to_owned()]));
        talk(&keep, &options(place).open("small").unwrap());
        limit(libc::RLIMIT_AS, u64::MAX);
        exercise(&options(place).open("large").unwrap());
    });
}

#[test]
fn a_limit_of_the_size_of_files_is_an_error_and_no_signal() {
    alone("a_limit_of_the_size_of_files_is_an_error_and_no_signal", |place| {
        let grows = options(place).size(SIZE).max_size(64 << 20).create("grows").unwrap();
        // `SIGXFSZ` has its ordinary effect here: it ends the process.
        limit(libc::RLIMIT_FSIZE, 2 << 20);
        for attempt in [options(place).size(4 << 20).create("new"), options(place).size(4 << 20).anonymous()] {
            let error = attempt.unwrap_err();
            assert!(matches!(error, OpenError::Limited { needed, .. } if needed == 4 << 20), "{error:?}");
            assert!(error.to_string().contains("ulimit -f"), "{error}");
        }
        assert_eq!(files(place.path()), ["grows"]);
        // One that is within the limit, and one that was made before there was any: it grows, or says that it cannot.
        let small = options(place).size(SIZE).create("small").unwrap();
        talk(&small, &small);
        talk(&options(place).open("grows").unwrap(), &grows);
        let (sender, receiver) = grows.bytes("bytes").capacity(1 << 12).open().unwrap();
        while sender.len() < 1 << 12 && sender.try_send(vec![7; 9000]).is_ok() {}
        let sent = sender.len();
        assert!(sent > 50 && receiver.drain().all(|message| message.iter().all(|byte| *byte == 7)), "{sent}");
        limit(libc::RLIMIT_FSIZE, 0);
        assert!(matches!(options(place).size(SIZE).create("none"), Err(OpenError::Limited { .. })));
        talk(&small, &small);
    });
}

#[test]
fn who_has_a_segment_goes_on_when_its_file_or_directory_is_deleted() {
    let place = Place::new();
    let directory = place.path().join("inner");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, PermissionsExt::from_mode(0o700)).unwrap();
    let options = || Segment::options().dir(&directory).size(SIZE).max_size(16 << 20).participants(4).channels(8);
    let (one, other) = (options().create("gone").unwrap(), options().open("gone").unwrap());
    fs::remove_file(directory.join("gone")).unwrap();
    talk(&one, &other);
    assert!(matches!(options().open("gone"), Err(OpenError::NotFound { .. })));
    fs::remove_dir_all(&directory).unwrap();
    talk(&other, &one);
    // It grows, too, and those who go do no harm to what has its name now.
    let (sender, receiver) = one.bytes("large").open().unwrap();
    sender.try_send(vec![3; 3 << 20]).unwrap();
    assert_eq!(receiver.try_recv().unwrap().len(), 3 << 20);
    let fresh = options().create("gone").unwrap();
    drop((sender, receiver, one, other));
    assert_eq!(files(&directory), ["gone"]);
    talk(&fresh, &options().open("gone").unwrap());
}

#[test]
fn what_has_replaced_a_segments_file_is_not_removed_by_those_who_leave() {
    let place = Place::new();
    let path = place.path().join("replaced");
    type Replace = fn(&Path);
    let replacements: [Replace; 4] = [
        |path| fs::write(path, "a text").unwrap(),
        |path| fs::create_dir(path).unwrap(),
        |path| symlink("/dev/null", path).unwrap(),
        |path| {
            fs::write(path.with_extension("first"), "linked").unwrap();
            fs::hard_link(path.with_extension("first"), path).unwrap();
        },
    ];
    for replace in replacements {
        let (one, other) =
            (options(&place).size(SIZE).create("replaced").unwrap(), options(&place).open("replaced").unwrap());
        // Moved, so that it is there still, under another name.
        fs::rename(&path, place.path().join("moved")).unwrap();
        replace(&path);
        talk(&one, &other);
        options(&place).open("replaced").unwrap_err();
        options(&place).size(SIZE).create("replaced").unwrap_err();
        let before = fs::symlink_metadata(&path).unwrap().file_type();
        drop((one, other));
        assert_eq!(fs::symlink_metadata(&path).unwrap().file_type(), before);
        if before.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) }.unwrap();
        let _ = fs::remove_file(path.with_extension("first"));
        // Left behind without anybody in it: whoever comes by that name takes it away.
        assert!(matches!(options(&place).open("moved"), Err(OpenError::NotFound { .. })));
        assert!(files(place.path()).is_empty());
    }
}

#[test]
fn temporary_names_that_are_traps_are_left_alone() {
    let place = Place::new();
    let precious = place.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    symlink(&precious, place.path().join(".tmp-0123")).unwrap();
    symlink("nowhere", place.path().join(".tmp-4567")).unwrap();
    fs::create_dir(place.path().join(".tmp-89ab")).unwrap();
    for name in [".tmp-0123", ".tmp-4567", ".tmp-89ab"] {
        // So old that they count as left behind.
        let touched = Command::new("touch").args(["-h", "-d", "2001-01-01"]).arg(place.path().join(name)).status();
        assert!(touched.unwrap().success());
    }
    let segment = options(&place).size(SIZE).create("new").unwrap();
    talk(&segment, &options(&place).open("new").unwrap());
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    assert!(!place.path().join("nowhere").exists());
}

/// Becomes somebody else, for good.
fn become_nobody() {
    const NOBODY: u32 = 65534;
    // SAFETY: plain system calls of a process that has no other threads that care.
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setresgid(NOBODY, NOBODY, NOBODY), 0);
        assert_eq!(libc::setresuid(NOBODY, NOBODY, NOBODY), 0);
    }
}

#[test]
fn another_user_is_refused_whatever_the_modes() {
    const TEST: &str = "another_user_is_refused_whatever_the_modes";
    let place = Place::new();
    let names = ["closed", "open"];
    let options = |name: &str| Segment::options().dir(place.path().join(name)).size(SIZE).participants(4).channels(8);
    if role().is_some() {
        become_nobody();
        for name in names {
            for attempt in
                [options(name).open("ours"), options(name).create("theirs"), options(name).open_or_create("ours")]
            {
                let error = attempt.unwrap_err();
                assert!(matches!(error, OpenError::WrongOwner { owner: 0, expected: 65534, .. }), "{error:?}");
                assert!(error.to_string().contains(name), "{error}");
            }
        }
        let error = options("closed/shut").create("theirs").unwrap_err();
        assert!(
            matches!(&error, OpenError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied),
            "{error:?}"
        );
        return;
    }
    if !is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o711)).unwrap();
    let segments = names.map(|name| options(name).create("ours").unwrap());
    fs::set_permissions(place.path().join("open"), PermissionsExt::from_mode(0o777)).unwrap();
    fs::set_permissions(place.path().join("open/ours"), PermissionsExt::from_mode(0o666)).unwrap();
    place.spawn(TEST, "nobody").succeed();
    segments.iter().for_each(|segment| talk(segment, segment));
    names.iter().for_each(|name| assert_eq!(files(&place.path().join(name)), ["ours"]));
}

#[test]
fn a_read_only_file_system_is_reported() {
    in_a_file_system_of(4, "a_read_only_file_system_is_reported", |tiny| {
        let options = || Segment::options().dir(tiny).size(SIZE).participants(4).channels(8);
        let there = options().persistent(true).create("there").unwrap();
        drop(there);
        let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(tiny).status().unwrap();
        assert!(remounted.success());
        for attempt in [options().create("new"), options().open("there"), options().open_or_create("new")] {
            let error = attempt.unwrap_err();
            assert!(matches!(&error, OpenError::Io { .. }), "{error:?}");
            assert!(error.to_string().contains("Read-only file system"), "{error}");
        }
        assert_eq!(files(tiny), ["there"]);
    });
}

#[test]
fn a_users_quota_is_an_error_when_making_and_no_memory_when_growing() {
    const TEST: &str = "a_users_quota_is_an_error_when_making_and_no_memory_when_growing";
    const HOW: &str = "size=32m,mode=0700,usrquota,usrquota_block_hardlimit=4m";
    let try_it = format!("mount -t tmpfs -o {HOW} tmpfs /dev/shm");
    if !is_root()
        || !Command::new("unshare").args(["-m", "sh", "-c", &try_it]).status().is_ok_and(|tried| tried.success())
    {
        eprintln!("skipped: no file system with quotas can be mounted here");
        return;
    }
    in_a_file_system_of(64, TEST, |tiny| {
        let quota = tiny.join("quota");
        fs::create_dir(&quota).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", HOW, "tmpfs"]).arg(&quota).status().unwrap();
        assert!(mounted.success());
        fs::set_permissions(tiny, PermissionsExt::from_mode(0o711)).unwrap();
        chown(&quota, Some(65534), Some(65534)).unwrap();
        become_nobody();
        let options = || Segment::options().dir(&quota).participants(4).channels(8);
        let error = options().size(8 << 20).create("large").unwrap_err();
        assert!(matches!(error, OpenError::Limited { needed, .. } if needed == 8 << 20), "{error:?}");
        assert!(error.to_string().contains("quota"), "{error}");
        assert!(files(&quota).is_empty());
        let grows = options().size(SIZE).max_size(16 << 20).create("grows").unwrap();
        let (sender, receiver) = grows.bytes("bytes").capacity(1 << 12).open().unwrap();
        let refused = loop {
            if let Err(error) = sender.try_send(vec![9; 5000]) {
                break error;
            }
        };
        assert!(matches!(refused, TrySendError::OutOfMemory(_)), "{refused:?}");
        let sent = sender.len();
        assert!(
            sent > 200 && receiver.drain().all(|message| message.iter().all(|byte| *byte == 9)),
            "{sent} were sent"
        );
        talk(&grows, &grows);
        common::assert_empty(&grows);
    });
}
