//! Segments come and go as their names, their participants and their options say.

mod common;

use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use common::{Place, Stamp, assert_empty, eventually, files, held, role, wait_to_be_killed, within};
use waterway::{OpenError, Segment, TryRecvError, error::AllocError};

const SIZE: usize = 1 << 20;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// A message goes from one to the other.
fn talk(from: &Segment, to: &Segment) {
    let (sender, receiver) = (from.bytes("talk").sender().unwrap(), to.bytes("talk").receiver().unwrap());
    within(sender.send("how do you do")).unwrap();
    assert_eq!(&*within(receiver.recv()).unwrap(), b"how do you do");
}

#[test]
fn a_list_shows_names_ids_sizes_and_the_living() {
    let place = Place::new();
    assert_eq!(place.options().list().unwrap(), []);
    let one = place.options().size(SIZE).create("one").unwrap();
    let again = place.options().open("one").unwrap();
    let two = place.options().size(2 * SIZE - 1).create("two").unwrap();
    let stays = place.options().size(SIZE).persistent(true).create("stays").unwrap();
    let stays = { stays }.id();
    fs::write(place.path().join("something-else"), "not a segment").unwrap();
    fs::write(place.path().join("not possible"), "not a name").unwrap();
    fs::create_dir(place.path().join("directory")).unwrap();
    let list = place.options().list().unwrap();
    let shown: Vec<_> = list.iter().map(|info| (info.name.as_str(), info.id, info.size, info.participants)).collect();
    assert_eq!(shown, [("one", one.id(), SIZE, 2), ("stays", stays, SIZE, 0), ("two", two.id(), 2 * SIZE, 1)]);
    let more: Vec<_> = list.iter().map(|info| (info.persistent, info.problem.is_none(), info.version)).collect();
    assert_eq!(more, [(false, true, 7), (true, true, 7), (false, true, 7)]);
    assert!(list.iter().all(|info| info.path == place.path().join(&info.name)));
    // Looking changes nothing.
    assert_eq!(place.options().list().unwrap(), list);
    drop((again, two));
    let shown: Vec<_> =
        place.options().list().unwrap().into_iter().map(|info| (info.name, info.participants)).collect();
    assert_eq!(shown, [("one".to_owned(), 1), ("stays".to_owned(), 0)]);
}

#[test]
fn who_is_attached_when_a_name_is_removed_goes_on_and_a_new_one_is_another() {
    let place = Place::new();
    let old = place.options().size(SIZE).create("name").unwrap();
    let old_too = place.options().open("name").unwrap();
    place.options().remove("name").unwrap();
    assert!(matches!(place.options().remove("name"), Err(OpenError::NotFound { .. })));
    assert!(matches!(place.options().open("name"), Err(OpenError::NotFound { .. })));
    assert!(files(place.path()).is_empty());
    talk(&old, &old_too);

    let new = place.options().size(SIZE).create("name").unwrap();
    assert_ne!(old.id(), new.id());
    assert_eq!((old.participants().len(), new.participants().len()), (2, 1));
    let silent = new.bytes("talk").persistent(true).receiver().unwrap();
    talk(&old, &old_too);
    assert_eq!(silent.try_recv().unwrap_err(), TryRecvError::Empty);
    // The last of the old one does not take the new one's name with it.
    drop((old, old_too));
    assert_eq!(place.options().open("name").unwrap().id(), new.id());
    drop((silent, new));
    assert!(files(place.path()).is_empty());
}

#[test]
fn a_segment_goes_with_whoever_leaves_last() {
    let place = Place::new();
    let first = place.options().size(SIZE).create("shared").unwrap();
    let id = first.id();
    let clone = first.clone();
    let second = place.options().open_or_create("shared").unwrap();
    assert_eq!((clone.id(), second.id()), (id, id));
    drop(first);
    drop(second);
    assert_eq!(files(place.path()), ["shared"], "a clone holds it");
    let (sender, receiver) = clone.bytes("b").open().unwrap();
    sender.try_send("held").unwrap();
    drop((clone, sender));
    let message = receiver.try_recv().unwrap();
    drop(receiver);
    assert_eq!(files(place.path()), ["shared"], "a message holds it");
    assert_eq!(&*message, b"held");
    drop(message);
    assert!(files(place.path()).is_empty());
    assert_ne!(place.options().size(SIZE).open_or_create("shared").unwrap().id(), id);
}

#[test]
fn a_persistent_segment_and_what_is_in_it_stay() {
    let place = Place::new();
    let segment = place.options().size(SIZE).persistent(true).create("stays").unwrap();
    let id = segment.id();
    let sender = segment.bytes("kept").capacity(4).persistent(true).sender().unwrap();
    let (fleeting, reader) = segment.bytes("fleeting").open().unwrap();
    for text in ["one", "two"] {
        sender.try_send(text).unwrap();
        fleeting.try_send(text).unwrap();
    }
    drop((sender, fleeting, reader, segment));
    assert_eq!(files(place.path()), ["stays"]);

    // Options for a new one do not matter.
    let segment = place.options().size(4 * SIZE).participants(1).open_or_create("stays").unwrap();
    assert_eq!((segment.id(), segment.participants().len()), (id, 1));
    assert_eq!(place.options().list().unwrap()[0].size, SIZE);
    let channels: Vec<_> = segment.channels().into_iter().map(|channel| (channel.name, channel.capacity)).collect();
    assert_eq!(channels, [("kept".to_owned(), 4)], "a channel that does not persist ends with its ends");
    let receiver = segment.bytes("kept").receiver().unwrap();
    assert_eq!(&*receiver.try_recv().unwrap(), b"one");
    assert_eq!(&*receiver.try_recv().unwrap(), b"two");
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
    drop((receiver, segment));
    place.options().remove("stays").unwrap();
    assert!(files(place.path()).is_empty());
}

/// The child is the only one, and is killed in the middle of everything.
#[test]
fn a_segment_whose_last_process_was_killed_is_made_afresh() {
    const TEST: &str = "a_segment_whose_last_process_was_killed_is_made_afresh";
    let place = Place::new();
    if role().is_some() {
        let segment = place.options().size(SIZE).create("left").unwrap();
        let sender = segment.bytes("b").persistent(true).sender().unwrap();
        sender.try_send("nobody will read this").unwrap();
        wait_to_be_killed();
    }
    type Way = fn(&Place) -> Result<Segment, OpenError>;
    let ways: [Way; 3] = [
        |place| place.options().size(SIZE).open_or_create("left"),
        |place| place.options().size(SIZE).create("left"),
        |place| {
            let opened = place.options().open("left");
            assert!(matches!(opened, Err(OpenError::NotFound { .. })), "{opened:?}");
            place.options().size(SIZE).create("left")
        },
    ];
    for way in ways {
        let child = place.spawn(TEST, "only");
        eventually("the child is there", || {
            place.options().list().unwrap().iter().any(|found| found.participants == 1)
                && place.options().open("left").is_ok_and(|segment| !segment.channels().is_empty())
        });
        let id = place.options().list().unwrap()[0].id;
        child.kill();
        let segment = way(&place).unwrap();
        assert_ne!(segment.id(), id);
        assert_eq!((segment.participants().len(), segment.channels().len(), held(&segment)), (1, 0, 0));
        talk(&segment, &place.options().open("left").unwrap());
    }
    assert!(files(place.path()).is_empty());
}

#[test]
fn a_persistent_segment_survives_the_kill_of_its_last_process() {
    const TEST: &str = "a_persistent_segment_survives_the_kill_of_its_last_process";
    let place = Place::new();
    if role().is_some() {
        let segment = place.options().open("left").unwrap();
        let sender = segment.bytes("kept").persistent(true).sender().unwrap();
        let (lost, _receiver) = segment.bytes("lost").open().unwrap();
        lost.try_send(vec![1; 100_000]).unwrap();
        sender.try_send("from the dead").unwrap();
        wait_to_be_killed();
    }
    let segment = place.options().size(SIZE).persistent(true).create("left").unwrap();
    let id = segment.id();
    let receiver = segment.bytes("kept").persistent(true).receiver().unwrap();
    let child = place.spawn(TEST, "last");
    eventually("the child has sent", || receiver.len() == 1);
    drop((receiver, segment));
    child.kill();
    let segment = place.options().open("left").unwrap();
    assert_eq!((segment.id(), segment.participants().len()), (id, 1));
    let receiver = segment.bytes("kept").receiver().unwrap();
    assert_eq!(&*receiver.try_recv().unwrap(), b"from the dead");
    // What the dead had is given back, and its channel is gone.
    let channels: Vec<_> = segment.channels().into_iter().map(|channel| channel.name).collect();
    assert_eq!(channels, ["kept"]);
    // The ring of the other one.
    assert!(held(&segment) < 50_000);
}

#[test]
fn a_vain_attempt_to_make_a_segment_does_not_hide_the_dead() {
    const TEST: &str = "a_vain_attempt_to_make_a_segment_does_not_hide_the_dead";
    let place = Place::new();
    if role().is_some() {
        let segment = place.options().open("two").unwrap();
        let sender = segment.bytes("b").sender().unwrap();
        sender.try_send("last words").unwrap();
        wait_to_be_killed();
    }
    let segment = place.options().size(SIZE).participants(2).create("two").unwrap();
    let receiver = segment.bytes("b").receiver().unwrap();
    let child = place.spawn(TEST, "second");
    eventually("the child has sent", || receiver.len() == 1);
    child.kill();
    // The only place left is the dead one's.
    for _ in 0..2 {
        assert!(matches!(place.options().create("two"), Err(OpenError::AlreadyExists { .. })));
    }
    assert_eq!(&*within(receiver.recv()).unwrap(), b"last words");
    assert!(within(receiver.recv()).is_none(), "its only sender is dead");
    drop(receiver);
    assert_eq!(held(&segment), 0);
    // Its place is free when it has been buried in full.
    let mut second = Err(OpenError::Forked);
    eventually("the place is free", || {
        second = place.options().open("two");
        second.is_ok()
    });
    talk(&segment, &second.unwrap());
}

#[test]
fn directory_and_file_are_private_whatever_the_mask() {
    const TEST: &str = "directory_and_file_are_private_whatever_the_mask";
    let place = Place::new();
    if let Some(mask) = role() {
        let mask = u32::from_str_radix(&mask, 8).unwrap();
        // SAFETY: it has no preconditions; the process is this test's own.
        unsafe { libc::umask(mask) };
        let directory = place.path().join(format!("mask-{mask:o}"));
        let segment = place.options().dir(&directory).size(SIZE - 1).create("private").unwrap();
        assert_eq!((mode(&directory), mode(&directory.join("private"))), (0o700, 0o600));
        assert_eq!(files(&directory), ["private"]);
        let metadata = fs::metadata(directory.join("private")).unwrap();
        assert_eq!(metadata.len(), SIZE as u64);
        assert!(metadata.blocks() * 512 >= SIZE as u64, "all room is taken at once");
        drop(segment);
        assert!(files(&directory).is_empty());
        return;
    }
    for mask in ["000", "022", "077", "177"] {
        // 177 takes nothing from 0600, but the directory would lack its x: it is made before.
        if mask == "177" {
            let directory = place.path().join("mask-177");
            fs::create_dir(&directory).unwrap();
            fs::set_permissions(&directory, PermissionsExt::from_mode(0o700)).unwrap();
        }
        place.spawn(TEST, mask).succeed();
    }
}

#[test]
fn sizes_are_rounded_up_to_pages() {
    let place = Place::new();
    for size in [SIZE - 1, SIZE, SIZE + 1, SIZE + 4096] {
        let _segment = place.options().size(size).create("rounded").unwrap();
        assert_eq!(place.options().list().unwrap()[0].size, size.next_multiple_of(4096));
    }
}

#[test]
fn the_directory_comes_from_the_environment_unless_told_otherwise() {
    const TEST: &str = "the_directory_comes_from_the_environment_unless_told_otherwise";
    let place = Place::new();
    match role().as_deref() {
        Some("set") => {
            // SAFETY: no other thread of this process looks at the environment now.
            unsafe { std::env::set_var("WATERWAY_DIR", place.path().join("from-environment")) };
            let segment = Segment::options().size(SIZE).create("here").unwrap();
            assert_eq!(files(&place.path().join("from-environment")), ["here"]);
            assert_eq!(Segment::open("here").unwrap().id(), segment.id());
            assert_eq!(Segment::open_or_create("here").unwrap().id(), segment.id());
            assert!(matches!(Segment::create("here"), Err(OpenError::AlreadyExists { .. })));
            assert_eq!(Segment::list().unwrap()[0].id, segment.id());
            // Being told comes first.
            assert!(matches!(place.options().open("here"), Err(OpenError::NotFound { .. })));
            Segment::remove("here").unwrap();
            assert!(Segment::list().unwrap().is_empty());
        }
        Some(_) => {
            // SAFETY: as above.
            unsafe { std::env::remove_var("WATERWAY_DIR") };
            // Nothing is made in a directory that others may be using.
            let name = format!("nobody-has-this-{}", std::process::id());
            // SAFETY: it has no preconditions.
            let expected = format!("/dev/shm/waterway-{}/{name}", unsafe { libc::geteuid() });
            let error = Segment::open(&name).unwrap_err();
            assert!(error.to_string().contains(&expected) || !matches!(error, OpenError::NotFound { .. }), "{error}");
        }
        None => ["set", "unset"].into_iter().for_each(|role| place.spawn(TEST, role).succeed()),
    }
}

#[test]
fn temporary_files_of_the_dead_go_and_those_of_the_living_stay() {
    let place = Place::new();
    let temporary = |name: &str| {
        let path = place.path().join(name);
        fs::write(&path, "half a segment").unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        File::options().write(true).open(path).unwrap()
    };
    let (old, fresh) = (temporary(".tmp-old"), temporary(".tmp-fresh"));
    old.set_modified(std::time::SystemTime::now() - Duration::from_secs(3600)).unwrap();
    drop((old, fresh));
    let segment = place.options().size(SIZE).create("new").unwrap();
    assert_eq!(files(place.path()), [".tmp-fresh", "new"]);
    drop(segment);
}

/// Granules of a segment's sectors, in bytes.
fn granules(segment: &Segment) -> [usize; 3] {
    segment.stats().sectors.map(|sector| sector.granule)
}

#[test]
fn a_segment_has_the_granules_that_it_was_made_with_whoever_opens_it() {
    let place = Place::new();
    let first = place.options().size(4 << 20).granules(128, 2048, 32_768).persistent(true).create("coarse").unwrap();
    assert_eq!(granules(&first), [128, 2048, 32_768]);
    // Like all that matters only for a new one, others are ignored, and so is what would be refused.
    let openers = [place.options(), place.options().granules(64, 256, 4096), place.options().granules(3, 2, 1)];
    for options in openers {
        for segment in [options.clone().open("coarse").unwrap(), options.open_or_create("coarse").unwrap()] {
            assert_eq!(granules(&segment), [128, 2048, 32_768]);
            talk(&first, &segment);
            talk(&segment, &first);
        }
    }
    drop(first);
    let again = place.options().open("coarse").unwrap();
    assert_eq!(granules(&again), [128, 2048, 32_768]);
    assert_eq!(granules(&place.options().size(4 << 20).create("usual").unwrap()), [64, 1024, 65_536]);
}

#[test]
fn channels_and_blocks_work_whatever_the_granules() {
    for (small, medium, large) in
        [(128, 2048, 65_536), (64, 256, 4096), (4096, 65_536, 1 << 20), (64, 128, 256), (64, 1 << 19, 1 << 20)]
    {
        let place = Place::new();
        let options = || place.options().size(24 << 20).participants(8).channels(16).zero_on_free(true);
        let segment = options().granules(small, medium, large).create("any").unwrap();
        let other = place.options().open("any").unwrap();
        let (sender, receiver) = (segment.bytes("bytes").sender().unwrap(), other.bytes("bytes").receiver().unwrap());
        let lens = [0, 1, small - 1, small, small + 1, 20 * small, 40 * small, medium + 1, large - 1, large + 1];
        for (number, len) in lens.into_iter().enumerate().cycle().take(300) {
            let sent = Stamp { sender: 1, number: number as u64 };
            sender.try_send(sent.message(len)).unwrap();
            let message = receiver.try_recv().unwrap();
            assert_eq!(Stamp::verify(&message), (len > 0).then_some(sent));
        }

        // What is aligned to more than a line is there for as much as a granule has, up to a page.
        let most = large.min(4096);
        let (ours, theirs) = (segment.allocator(), other.allocator());
        let mut kept = Vec::new();
        for align in [1, 64, small.min(4096), medium.min(4096), most] {
            for len in [1, align, 3 * medium] {
                let layout = std::alloc::Layout::from_size_align(len, align).unwrap();
                let block = ours.allocate_layout(layout).unwrap();
                block.write().unwrap().fill(len as u8);
                let found = theirs.resolve_bytes(block.handle()).unwrap();
                let guard = found.read().unwrap();
                assert!(guard.as_ptr().addr().is_multiple_of(align) && guard.len() == len, "{len} bytes at {align}");
                assert!(guard.iter().all(|byte| *byte == len as u8));
                drop(guard);
                kept.push(block);
            }
        }
        let layout = std::alloc::Layout::from_size_align(64, 2 * most).unwrap();
        let refused = ours.allocate_layout(layout).unwrap_err();
        assert!(matches!(refused, AllocError::Alignment { largest, .. } if largest == most), "{refused:?}");

        // All of it, to the last granule, and back.
        let raw = ours.allocate_raw(small).unwrap();
        assert!(raw.as_ptr().addr().is_multiple_of(small.min(4096)));
        drop(raw);
        let mut blocks = Vec::new();
        while let Ok(block) = ours.allocate_bytes(medium) {
            blocks.push(block);
        }
        assert!(segment.check().is_clean());
        drop((blocks, kept, sender, receiver));
        assert_empty(&segment);
    }
}

#[test]
fn a_segment_grows_whatever_its_granules() {
    let place = Place::new();
    let options = || place.options().participants(8).channels(16).size(1 << 20).max_size(64 << 20);
    for (small, medium, large) in [(4096, 65_536, 1 << 20), (64, 128, 256)] {
        let segment = options().granules(small, medium, large).create("grows").unwrap();
        let (sender, receiver) = segment.bytes("bytes").capacity(32).open().unwrap();
        let kept: Vec<_> = (0..20_u64)
            .map(|number| {
                sender.try_send(Stamp { sender: 1, number }.message(900_000)).unwrap();
                receiver.try_recv().unwrap()
            })
            .collect();
        assert!(segment.stats().growths > 0 && segment.check().is_clean());
        for (number, message) in kept.iter().enumerate() {
            assert_eq!(Stamp::verify(message), Some(Stamp { sender: 1, number: number as u64 }));
        }
        drop((kept, sender, receiver));
        assert_empty(&segment);
    }
}
