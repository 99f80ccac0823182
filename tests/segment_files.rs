//! Files that are no segment, not ours, or not as they should be, are refused with the reason, and left alone.

mod common;

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
};

use common::{Place, Random, exercise, files};
use waterway::{OpenError, Segment};

const SIZE: usize = 1 << 20;
/// Somebody else.
const OTHER: u32 = 65533;
/// Bytes of the header that never change.
const HEADER: usize = 440;
/// Where the fields of the header stand that the tests tamper with.
mod field {
    pub(crate) const VERSION: usize = 8;
    pub(crate) const ENDIAN: usize = 12;
    pub(crate) const REQUIRED: usize = 16;
    pub(crate) const PAGE_SIZE: usize = 32;
    pub(crate) const POINTER_BITS: usize = 36;
    pub(crate) const SIZE: usize = 56;
    pub(crate) const PARTICIPANTS: usize = 72;
    pub(crate) const LANES: usize = 76;
    pub(crate) const SHARES: usize = 88;
    pub(crate) const FLAGS: usize = 100;
    pub(crate) const GRANULES: usize = 104;
    pub(crate) const RESERVED: usize = 128;
    pub(crate) const SECTORS: usize = 224;
    pub(crate) const CHECKSUM: usize = 432;
}

fn user() -> u32 {
    // SAFETY: it has no preconditions.
    unsafe { libc::geteuid() }
}

/// A segment that stays, in nobody's use.
fn leave_one(place: &Place, name: &str) -> PathBuf {
    place.options().size(SIZE).participants(8).persistent(true).create(name).unwrap();
    place.path().join(name)
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn read_header(path: &Path) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    fs::File::open(path).unwrap().read_exact_at(&mut header, 0).unwrap();
    header
}

fn write_header(path: &Path, header: &[u8]) {
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(header, 0).unwrap();
}

/// Makes the checksum fit, as somebody would who means harm.
fn seal(header: &mut [u8; HEADER]) {
    let sum = checksum(&header[..field::CHECKSUM]);
    header[field::CHECKSUM..].copy_from_slice(&sum.to_ne_bytes());
}

/// Overwrites a part of the header, and makes the checksum fit.
fn patch(path: &Path, at: usize, bytes: &[u8]) {
    let mut header = read_header(path);
    header[at..at + bytes.len()].copy_from_slice(bytes);
    seal(&mut header);
    write_header(path, &header);
}

/// All ways to a segment of that name end with the same error.
fn every_way_in(place: &Place, name: &str, is_expected: impl Fn(&OpenError) -> bool) -> OpenError {
    let options = || place.options().size(SIZE);
    let error = options().open(name).expect_err("open");
    for error in [&error, &options().create(name).unwrap_err(), &options().open_or_create(name).unwrap_err()] {
        assert!(is_expected(error), "{error:?}");
        assert!(error.to_string().contains(name), "{error} does not say which file");
    }
    error
}

#[test]
fn what_is_no_segment_says_what_it_is() {
    let place = Place::new();
    let at = |name: &str| place.path().join(name);
    fs::write(at("empty"), "").unwrap();
    fs::write(at("short"), "WATERWAY").unwrap();
    fs::write(at("text"), "Once upon a time ".repeat(1000)).unwrap();
    fs::write(at("zeros"), vec![0; SIZE]).unwrap();
    let mut random = Random::new(7);
    fs::write(at("noise"), (0..SIZE).map(|_| random.next() as u8).collect::<Vec<_>>()).unwrap();
    for name in ["empty", "short", "text", "zeros", "noise"] {
        fs::set_permissions(at(name), PermissionsExt::from_mode(0o600)).unwrap();
    }
    fs::create_dir(at("directory")).unwrap();
    let fifo = std::ffi::CString::new(at("fifo").to_str().unwrap()).unwrap();
    // SAFETY: a path that ends with a zero.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    let names = ["directory", "empty", "fifo", "noise", "short", "text", "zeros"];
    for name in names {
        every_way_in(&place, name, |error| matches!(error, OpenError::NotASegment { .. }));
    }
    assert!(place.options().list().unwrap().is_empty());
    assert_eq!(files(place.path()), names, "what is not ours is left alone");
    // Nothing can be read from a socket's name either.
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    every_way_in(&place, "socket", |_| true);
}

#[test]
fn links_are_not_followed() {
    let place = Place::new();
    let path = leave_one(&place, "real");
    symlink(&path, place.path().join("link")).unwrap();
    symlink(place.path().join("nowhere"), place.path().join("dangling")).unwrap();
    symlink("loop", place.path().join("loop")).unwrap();
    for name in ["link", "dangling", "loop"] {
        every_way_in(
            &place,
            name,
            |error| matches!(error, OpenError::NotASegment { reason, .. } if reason.contains("symbolic link")),
        );
    }
    assert!(!place.path().join("nowhere").exists());
    // Removing takes away the link, not what it leads to.
    place.options().remove("link").unwrap();
    place.options().open("real").unwrap();
}

#[test]
fn a_second_name_of_the_file_is_refused_until_it_is_gone() {
    let place = Place::new();
    let path = leave_one(&place, "real");
    fs::hard_link(&path, place.path().join("second")).unwrap();
    for name in ["real", "second"] {
        every_way_in(
            &place,
            name,
            |error| matches!(error, OpenError::NotASegment { reason, .. } if reason.contains("hard link")),
        );
    }
    fs::remove_file(place.path().join("second")).unwrap();
    place.options().open("real").unwrap();
}

#[test]
fn a_directory_that_is_a_link_or_a_file_is_refused() {
    let place = Place::new();
    let (real, link) = (place.path().join("real"), place.path().join("link"));
    fs::create_dir(&real).unwrap();
    fs::set_permissions(&real, PermissionsExt::from_mode(0o700)).unwrap();
    symlink(&real, &link).unwrap();
    fs::write(place.path().join("file"), "").unwrap();
    place.options().dir(&real).size(SIZE).persistent(true).create("there").unwrap();
    let disguises = [link.clone(), link.join("."), format!("{}/", link.display()).into(), place.path().join("file")];
    for directory in disguises {
        for name in ["there", "new"] {
            let options = || place.options().dir(&directory).size(SIZE);
            for error in [options().open(name), options().create(name), options().open_or_create(name)] {
                let error = error.unwrap_err();
                assert!(matches!(error, OpenError::NotASegment { .. }), "{}: {error:?}", directory.display());
            }
        }
    }
    assert_eq!(files(&real), ["there"]);
}

#[test]
fn what_belongs_to_somebody_else_is_refused() {
    let place = Place::new();
    let path = leave_one(&place, "taken");
    if user() != 0 {
        // The root directory is somebody else's.
        let error = Segment::options().dir("/").size(SIZE).create("taken").unwrap_err();
        assert!(matches!(error, OpenError::WrongOwner { owner: 0, expected, .. } if expected == user()), "{error:?}");
    }
    if let Err(error) = chown(&path, Some(OTHER), None) {
        eprintln!("skipped in part: nothing can be given away here: {error}");
        return;
    }
    let is_others = |error: &OpenError| matches!(error, OpenError::WrongOwner { owner, expected, .. } if (*owner, *expected) == (OTHER, user()));
    let error = every_way_in(&place, "taken", is_others);
    assert!(error.to_string().contains(&OTHER.to_string()), "{error}");
    chown(&path, Some(user()), None).unwrap();
    place.options().open("taken").unwrap();

    chown(place.path(), Some(OTHER), None).unwrap();
    let errors = [place.options().open("taken"), place.options().create("new"), place.options().open_or_create("new")];
    for error in errors {
        let error = error.unwrap_err();
        assert!(is_others(&error), "{error:?}");
    }
    chown(place.path(), Some(user()), None).unwrap();
    assert_eq!(files(place.path()), ["taken"]);
}

#[test]
fn what_others_may_use_is_refused() {
    let place = Place::new();
    let path = leave_one(&place, "open");
    for mode in [0o644, 0o660, 0o666, 0o604, 0o601, 0o700, 0o400, 0o777] {
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        if mode == 0o400 && user() != 0 {
            // The kernel refuses already.
            every_way_in(&place, "open", |error| matches!(error, OpenError::Io { .. }));
            continue;
        }
        let error = every_way_in(
            &place,
            "open",
            |error| matches!(error, OpenError::WrongMode { mode: found, expected: 0o600, .. } if *found == mode),
        );
        assert!(error.to_string().contains(&format!("{mode:04o}")) && error.to_string().contains("0600"), "{error}");
    }
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    for mode in [0o755, 0o777, 0o1777, 0o710, 0o701, 0o770] {
        fs::set_permissions(place.path(), PermissionsExt::from_mode(mode)).unwrap();
        for name in ["open", "new"] {
            for error in
                [place.options().open(name), place.options().create(name), place.options().open_or_create(name)]
            {
                let error = error.unwrap_err();
                let fits = matches!(error, OpenError::WrongMode { mode: found, expected: 0o700, .. } if found == mode);
                assert!(fits, "{mode:o}: {error:?}");
            }
        }
    }
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o700)).unwrap();
    place.options().open("open").unwrap();
    assert_eq!(files(place.path()), ["open"]);
}

#[test]
fn a_segment_of_another_version_names_both() {
    let place = Place::new();
    let path = leave_one(&place, "version");
    let ours = u32::from_ne_bytes(read_header(&path)[field::VERSION..][..4].try_into().unwrap());
    for version in [0, ours + 1, u32::MAX] {
        patch(&path, field::VERSION, &version.to_ne_bytes());
        let error = every_way_in(
            &place,
            "version",
            |error| matches!(error, OpenError::WrongVersion { found, expected, .. } if (*found, *expected) == (version, ours)),
        );
        assert!(error.to_string().contains(&version.to_string()), "{error}");
    }
    patch(&path, field::VERSION, &ours.to_ne_bytes());
    place.options().open("version").unwrap();
}

#[test]
fn a_segment_of_another_machine_or_program_is_incompatible() {
    let place = Place::new();
    let path = leave_one(&place, "foreign");
    let whole = read_header(&path);
    let other_order = 0x0102_0304_u32.swap_bytes().to_ne_bytes();
    let cases: [(usize, &[u8], &str); 6] = [
        (field::ENDIAN, &other_order, "byte order"),
        (field::REQUIRED, &1_u64.to_ne_bytes(), "0x1"),
        (field::REQUIRED, &(1_u64 << 63).to_ne_bytes(), "features"),
        (field::PAGE_SIZE, &12_288_u32.to_ne_bytes(), "12288"),
        (field::PAGE_SIZE, &0_u32.to_ne_bytes(), "pages"),
        (field::POINTER_BITS, &32_u32.to_ne_bytes(), "32 bits"),
    ];
    for (at, bytes, about) in cases {
        patch(&path, at, bytes);
        every_way_in(
            &place,
            "foreign",
            |error| matches!(error, OpenError::Incompatible { what, .. } if what.contains(about)),
        );
        write_header(&path, &whole);
    }
    place.options().open("foreign").unwrap();
}

#[test]
fn a_truncated_file_says_how_much_is_left() {
    let place = Place::new();
    let path = leave_one(&place, "short");
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let whole = file.metadata().unwrap().len();
    for len in [whole - 1, whole / 2, 4096, HEADER as u64] {
        file.set_len(len).unwrap();
        every_way_in(
            &place,
            "short",
            |error| matches!(error, OpenError::Truncated { found, expected, .. } if (*found, *expected) == (len, whole)),
        );
    }
    file.set_len(HEADER as u64 - 1).unwrap();
    every_way_in(&place, "short", |error| matches!(error, OpenError::NotASegment { .. }));
    place.options().remove("short").unwrap();
    place.options().size(SIZE).create("short").unwrap();
}

#[test]
fn a_header_that_makes_no_sense_is_damaged() {
    let place = Place::new();
    let path = leave_one(&place, "damaged");
    let whole = read_header(&path);
    let is_damaged =
        |error: &OpenError| matches!(error, OpenError::Damaged { .. }) && error.to_string().contains("remove it");
    let cases: [(usize, &[u8]); 18] = [
        (field::ENDIAN, &7_u32.to_ne_bytes()),
        (field::SIZE, &0_u64.to_ne_bytes()),
        (field::SIZE, &(SIZE as u64 + 1).to_ne_bytes()),
        (field::SIZE, &(SIZE as u64 * 2).to_ne_bytes()),
        (field::SIZE, &u64::MAX.to_ne_bytes()),
        (field::PARTICIPANTS, &0_u32.to_ne_bytes()),
        (field::PARTICIPANTS, &u32::MAX.to_ne_bytes()),
        (field::LANES, &1_u32.to_ne_bytes()),
        (field::LANES, &u32::MAX.to_ne_bytes()),
        (field::SHARES, &[0; 12]),
        (field::SHARES, &[255; 12]),
        (field::GRANULES, &[0; 24]),
        (field::GRANULES, &[255; 24]),
        (field::GRANULES, &32_u64.to_ne_bytes()),
        (field::GRANULES, &128_u64.to_ne_bytes()),
        (field::GRANULES, &1024_u64.to_ne_bytes()),
        (field::RESERVED, &1_u64.to_ne_bytes()),
        (field::SECTORS, &u64::MAX.to_ne_bytes()),
    ];
    for (at, bytes) in cases {
        patch(&path, at, bytes);
        every_way_in(&place, "damaged", is_damaged);
        write_header(&path, &whole);
    }
    let mut unsealed = whole;
    unsealed[field::CHECKSUM] ^= 1;
    write_header(&path, &unsealed);
    let error = every_way_in(&place, "damaged", is_damaged);
    assert!(error.to_string().contains("checksum"), "{error}");
    write_header(&path, &whole);
    // More than it should have is as bad as less.
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(&[0]).unwrap();
    every_way_in(&place, "damaged", is_damaged);
    // It is listed, with what is wrong, and nobody sweeps it away.
    assert!(place.options().sweep().unwrap().is_empty());
    let [found] = &place.options().list().unwrap()[..] else { panic!("one is listed") };
    assert!(found.problem.as_ref().is_some_and(|problem| problem.contains("damaged")), "{found:?}");
}

#[test]
fn every_byte_of_the_header_may_be_wrong_and_nothing_crashes() {
    let place = Place::new();
    let path = leave_one(&place, "flipped");
    let whole = fs::read(&path).unwrap();
    let mut working = 0;
    for (at, flip, sealed) in (0..HEADER)
        .flat_map(|at| [0x01, 0x80, 0xff].map(|flip| (at, flip)))
        .flat_map(|(at, flip)| [(at, flip, false), (at, flip, true)])
    {
        let mut header: [u8; HEADER] = whole[..HEADER].try_into().unwrap();
        header[at] ^= flip;
        if sealed && at < field::CHECKSUM {
            seal(&mut header);
        }
        if !path.exists() {
            // Without the flag that it stays, it was taken for one that was left behind.
            assert_eq!(at / 4 * 4, field::FLAGS);
            fs::write(&path, &whole).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        }
        write_header(&path, &header);
        match place.options().open("flipped") {
            Err(error) => assert!(!error.to_string().is_empty()),
            Ok(segment) => {
                assert!(sealed, "byte {at} of the header is not covered by the checksum");
                working += 1;
                exercise(&segment);
            }
        }
    }
    assert!(working >= 16, "another id is no damage, but only {working} opened");
    if !path.exists() {
        return;
    }
    write_header(&path, &whole[..HEADER]);
    place.options().open("flipped").unwrap();
}

#[test]
fn bytes_of_the_tables_may_be_wrong_and_nothing_crashes() {
    let place = Place::new();
    let path = leave_one(&place, "tables");
    {
        let segment = place.options().open("tables").unwrap();
        let (sender, _receiver) = segment.bytes("exercise").capacity(8).persistent(true).open().unwrap();
        [0, 1, 100, 5000].into_iter().for_each(|len| sender.try_send(vec![7; len]).unwrap());
    }
    let whole = fs::read(&path).unwrap();
    let tables = HEADER..SIZE / 4;
    let used: Vec<usize> = tables.clone().filter(|at| whole[*at] != 0).collect();
    let mut random = Random::new(1);
    for _ in 0..500 {
        let mut damaged = whole.clone();
        for _ in 0..=random.below(6) {
            let anywhere = tables.start + random.below(tables.len());
            let at = if random.below(4) > 0 { used[random.below(used.len())] } else { anywhere.max(HEADER) };
            damaged[at] = random.next() as u8;
        }
        fs::write(&path, &damaged).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let Ok(segment) = place.options().open("tables") else { continue };
        segment.check();
        for name in ["exercise", "other"] {
            let Ok((sender, receiver)) = segment.bytes(name).open() else { continue };
            [0, 1, 100, 5000].into_iter().for_each(|len| drop(sender.try_send(vec![7; len])));
            for _ in 0..100 {
                let _ = receiver.try_recv();
            }
        }
        segment.check();
    }
}
