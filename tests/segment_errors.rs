//! What does not open says why, and leaves nothing behind.

mod common;

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use common::{Place, exercise, files, in_a_file_system_of, within};
use waterway::{OpenError, Segment};

const SIZE: usize = 1 << 20;
fn user() -> u32 {
    // SAFETY: it has no preconditions.
    unsafe { libc::geteuid() }
}

#[test]
fn names_that_could_lead_elsewhere_are_refused_before_anything_is_touched() {
    let place = Place::new();
    let long = "x".repeat(129);
    let bad = [
        "",
        ".",
        "..",
        ".hidden",
        ".tmp-1",
        "/",
        "a/b",
        "/etc/passwd",
        "../up",
        "a/../b",
        "a b",
        " a",
        "a\n",
        "a\0",
        "a\0b",
        "ü",
        "名",
        "a\\b",
        "a:b",
        "a*",
        "a?",
        "~",
        "a~",
        "$HOME",
        "a;b",
        "a%2f",
        "\u{202e}a",
        "\t",
        "a=b",
        "a,b",
        "#a",
        &long,
    ];
    for name in bad {
        let errors = [
            place.options().create(name).map(drop),
            place.options().open(name).map(drop),
            place.options().open_or_create(name).map(drop),
            place.options().remove(name),
        ];
        for error in errors {
            let error = error.unwrap_err();
            assert!(
                matches!(&error, OpenError::InvalidName { name: refused } if refused == name),
                "{name:?}: {error:?}"
            );
        }
    }
    assert!(files(place.path()).is_empty());
    for name in ["a", "A-1_b.c", "-", "_", "a.", "tmp-1", "0", &"x".repeat(128)] {
        let segment = place.options().size(SIZE).create(name).unwrap();
        assert_eq!(segment.name(), name);
        assert_eq!(files(place.path()), [name]);
    }
}

#[test]
fn names_of_channels_obey_the_same_rule() {
    let segment = Segment::options().size(SIZE).in_process().unwrap();
    for name in ["", ".a", "a/b", "a b", "ü", "a\0", &"x".repeat(129)] {
        let opened = segment.bytes(name).sender();
        assert!(matches!(opened, Err(OpenError::InvalidName { .. })), "{name:?}");
    }
    segment.bytes(&"x".repeat(128)).sender().unwrap();
}

#[test]
fn options_that_contradict_one_another_are_refused_and_leave_nothing() {
    let place = Place::new();
    let options = || place.options().size(SIZE);
    let bad = [
        (options().participants(0), "participants"),
        (options().participants(1025), "participants"),
        (options().participants(u32::MAX), "participants"),
        (options().channels(0), "channels"),
        (options().channels((1 << 15) + 1), "channels"),
        (options().channels(u32::MAX), "channels"),
        (options().sectors(0, 0, 0), "sector"),
        (options().granules(0, 1024, 65536), "granules"),
        (options().granules(32, 1024, 65536), "granules"),
        (options().granules(96, 1024, 65536), "granules of 96, 1024 and 65536 bytes"),
        (options().granules(64, 64, 65536), "granules"),
        (options().granules(1024, 64, 65536), "granules"),
        (options().granules(64, 1024, 1024), "granules"),
        (options().granules(64, 1024, 1 << 21), "powers of two from 64 to 1048576"),
        (options().granules(usize::MAX, usize::MAX, usize::MAX), "granules"),
        (options().size((1 << 44) + 1), "size"),
        (options().size(1 << 45), "size"),
        (options().size(usize::MAX), "size"),
    ];
    for (options, about) in bad {
        let mut made = vec![options.clone().create("bad"), options.clone().open_or_create("bad")];
        made.push(options.clone().anonymous());
        if about != "participants" {
            // On the heap there is one participant, whatever was asked for.
            made.push(options.clone().in_process());
        }
        for error in made {
            let error = error.unwrap_err();
            assert!(matches!(&error, OpenError::InvalidOptions(text) if text.contains(about)), "{about}: {error:?}");
        }
        // What matters only for a new one is ignored.
        assert!(matches!(options.open("bad"), Err(OpenError::NotFound { .. })));
    }
    assert!(files(place.path()).is_empty());
}

#[test]
fn options_at_their_limits_work() {
    let place = Place::new();
    for participants in [1, 256, 1024] {
        let segment = place.options().size(8 << 20).participants(participants).create("limits").unwrap();
        exercise(&segment);
        assert!(segment.check().is_clean());
    }
    for channels in [1, 1 << 15] {
        let segment = place.options().size(64 << 20).participants(1).channels(channels).create("limits").unwrap();
        exercise(&segment);
        assert!(segment.check().is_clean());
    }
    for (small, medium, large) in [(1, 0, 0), (0, 1, 0), (0, 0, 1), (u32::MAX, u32::MAX, u32::MAX), (1, 0, u32::MAX)] {
        let segment = place.options().size(4 << 20).sectors(small, medium, large).create("limits").unwrap();
        exercise(&segment);
        assert!(segment.check().is_clean());
    }
    for (small, medium, large) in [(64, 128, 256), (64, 1 << 19, 1 << 20), (1 << 18, 1 << 19, 1 << 20)] {
        for shares in [(25, 35, 40), (1, 0, 0), (0, 0, 1)] {
            let options = place.options().size(16 << 20).granules(small, medium, large);
            let segment = options.sectors(shares.0, shares.1, shares.2).create("limits").unwrap();
            exercise(&segment);
            assert!(segment.check().is_clean());
        }
    }
    assert!(files(place.path()).is_empty());
}

#[test]
fn what_is_not_there_is_not_found_where_it_was_sought() {
    let place = Place::new();
    for options in [place.options(), place.options().dir(place.path().join("missing"))] {
        assert!(matches!(options.clone().open("none"), Err(OpenError::NotFound { path }) if path.ends_with("none")));
        assert!(matches!(options.clone().remove("none"), Err(OpenError::NotFound { path }) if path.ends_with("none")));
        assert!(options.list().unwrap().is_empty());
    }
    assert!(files(place.path()).is_empty(), "looking for something makes nothing");
    let nowhere = place.options().dir(place.path().join("missing/deep")).create("none").unwrap_err();
    assert!(matches!(nowhere, OpenError::Io { .. }), "{nowhere:?}");
}

#[test]
fn what_is_there_already_exists_in_use_or_persistent() {
    let place = Place::new();
    let segment = place.options().size(SIZE).create("used").unwrap();
    place.options().size(SIZE).persistent(true).create("stays").unwrap();
    for name in ["used", "stays"] {
        let error = place.options().create(name).unwrap_err();
        assert!(matches!(&error, OpenError::AlreadyExists { path } if path.ends_with(name)), "{error:?}");
        assert!(error.to_string().contains("exists"));
    }
    assert_eq!((files(place.path()), segment.participants().len()), (vec!["stays".to_owned(), "used".to_owned()], 1));
}

#[test]
fn a_size_too_small_for_the_tables_says_what_would_do() {
    let place = Place::new();
    for size in [0, 1, 4096, 64 << 10] {
        let OpenError::TooSmall { size: asked, needed } = place.options().size(size).create("small").unwrap_err()
        else {
            panic!("{size} bytes are enough")
        };
        assert_eq!(asked, size.next_multiple_of(4096) as u64);
        assert!(needed > asked);
        let error = Segment::options().size(size).in_process().unwrap_err();
        assert!(matches!(error, OpenError::TooSmall { .. }), "{error:?}");
    }
    assert!(files(place.path()).is_empty());
    for shares in [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1000, u32::MAX)] {
        let options = || place.options().sectors(shares.0, shares.1, shares.2);
        let OpenError::TooSmall { needed, .. } = options().size(1).create("small").unwrap_err() else { panic!() };
        options().size(needed as usize).create("small").unwrap();
    }
    for granules in [(64, 256, 4096), (4096, 65536, 1 << 20), (1 << 18, 1 << 19, 1 << 20)] {
        let options = || place.options().granules(granules.0, granules.1, granules.2);
        let OpenError::TooSmall { needed, .. } = options().size(1).create("small").unwrap_err() else { panic!() };
        options().size(needed as usize).create("small").unwrap();
    }
    // Fewer participants and channels need less.
    place.options().size(256 << 10).participants(2).channels(1).create("small").unwrap();
}

#[test]
fn more_than_the_memory_of_the_process_is_an_error() {
    // No machine lends so much to one process.
    let error = Segment::options().size(1 << 44).sectors(1, 1, 1).in_process().map(drop);
    if let Err(error) = error {
        assert!(
            matches!(&error, OpenError::Io { source, .. } if source.kind() == io::ErrorKind::OutOfMemory),
            "{error:?}"
        );
    }
}

#[test]
fn more_than_the_file_system_has_is_refused_with_what_it_has() {
    let place = Place::new();
    let most = 1_u64 << 44;
    // SAFETY: zeros are a value of it.
    let mut facts: libc::statvfs = unsafe { std::mem::zeroed() };
    let path = std::ffi::CString::new(place.path().to_str().unwrap()).unwrap();
    // SAFETY: a path that ends with a zero, and a place for the answer.
    assert_eq!(unsafe { libc::statvfs(path.as_ptr(), &raw mut facts) }, 0);
    if facts.f_blocks == 0
        || facts.f_blocks.saturating_mul(facts.f_frsize) >= most
        || !place.path().starts_with("/dev/shm")
    {
        eprintln!("skipped: the file system has no limit below 16 TiB, or would be filled to find it");
        return;
    }
    let error = place.options().size(most as usize).create("huge").unwrap_err();
    let OpenError::NoRoom { path, needed, free } = &error else { panic!("{error:?}") };
    assert_eq!((path.as_path(), *needed), (place.path(), most));
    let text = error.to_string();
    assert!(text.contains(&format!("has {} MiB free", free >> 20)), "{text}");
    assert!(text.contains("needs 16777216 MiB") && text.contains("WATERWAY_DIR"), "{text}");
    assert!(files(place.path()).is_empty());
}

#[test]
fn a_full_file_system_is_no_room_and_nothing_is_left_in_it() {
    const TEST: &str = "a_full_file_system_is_no_room_and_nothing_is_left_in_it";
    in_a_file_system_of(1, TEST, in_a_full_file_system);
}

fn in_a_full_file_system(tiny: &Path) {
    let options = |size: usize| Segment::options().dir(tiny).participants(2).channels(2).size(size);
    for size in [2 << 20, 4 << 20, 1 << 30] {
        let error = options(size).create("big").unwrap_err();
        let OpenError::NoRoom { path, needed, free } = &error else { panic!("{error:?}") };
        assert_eq!((path.as_path(), *needed), (tiny, size as u64));
        assert!((1..=1 << 20).contains(free), "{free} bytes free");
        assert!(error.to_string().contains(&format!("needs {} MiB", size >> 20)), "{error}");
        assert!(files(tiny).is_empty());
    }
    // What did not fit holds nothing: half of it is there for one that fits, and never lacks memory.
    let segment = options(512 << 10).create("fits").unwrap();
    assert!(matches!(options(768 << 10).create("second"), Err(OpenError::NoRoom { .. })));
    assert_eq!(files(tiny), ["fits"]);
    fs::write(tiny.join("filler"), vec![1; 1 << 20]).unwrap_err();
    exercise(&segment);
    assert!(segment.check().is_clean());
}

#[test]
fn a_place_more_than_there_are_is_refused_until_somebody_leaves() {
    let place = Place::new();
    let first = place.options().size(SIZE).participants(2).create("full").unwrap();
    let second = place.options().open("full").unwrap();
    for error in [place.options().open("full"), place.options().open_or_create("full")] {
        let error = error.unwrap_err();
        assert!(matches!(error, OpenError::TooManyParticipants { limit: 2 }), "{error:?}");
        assert!(error.to_string().contains("SegmentOptions::participants"), "{error}");
    }
    place.options().create("full").unwrap_err();
    drop(second);
    let second = place.options().open("full").unwrap();
    let (sender, receiver) = (first.bytes("b").sender().unwrap(), second.bytes("b").receiver().unwrap());
    within(sender.send("after")).unwrap();
    assert_eq!(&*within(receiver.recv()).unwrap(), b"after");
}

#[test]
fn a_missing_permission_is_reported_with_the_file() {
    if user() == 0 {
        eprintln!("skipped: nothing is forbidden to root");
        return;
    }
    let place = Place::new();
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o500)).unwrap();
    let error = place.options().size(SIZE).create("new").unwrap_err();
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let OpenError::Io { path, source, .. } = &error else { panic!("{error:?}") };
    assert!(path.starts_with(place.path()));
    assert_eq!(source.kind(), io::ErrorKind::PermissionDenied);
}
