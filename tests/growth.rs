//! Segments that grow: from a size to a largest size, agreed on by everybody, and never beyond what there is.

mod common;

use std::{path::Path, thread};

use common::{Place, Random, Stamp, assert_empty, in_a_file_system_of, role, within};
use waterway::{OpenError, Segment, TrySendError, segment::CheckReport};

/// Bytes of all sectors.
fn bytes(report: &CheckReport) -> usize {
    report.sectors.iter().map(|sector| sector.bytes).sum()
}

/// Bytes of memory that a file has.
fn taken(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(path).unwrap()) * 512
}

#[test]
fn a_segment_grows_with_what_is_in_it_and_takes_no_more_than_that() {
    let place = Place::new();
    let segment = place.options().participants(8).size(1 << 20).max_size(64 << 20).create("grows").unwrap();
    let file = place.path().join("grows");
    let before = taken(&file);
    assert!(before <= 1 << 20, "{before} bytes are taken at first");
    let (sender, receiver) = segment.bytes("bytes").open().unwrap();
    let mut kept = Vec::new();
    let mut sent = 0;
    let mut random = Random::new(1);
    while sent < 16 << 20 {
        let len = random.below(60_000);
        sender.try_send(Stamp { sender: 0, number: sent as u64 }.message(len)).unwrap();
        kept.push(receiver.try_recv().unwrap());
        sent += len;
    }
    let after = taken(&file);
    assert!((16 << 20..40 << 20).contains(&after), "{after} bytes are taken for {sent}");
    assert!(kept.iter().filter_map(|message| Stamp::verify(message)).count() > 0);
    drop((kept, sender, receiver));
    assert_empty(&segment);
    // What it has, it keeps.
    assert_eq!(taken(&file), after);
}

#[test]
fn a_message_larger_than_the_segment_is_now_fits_if_it_may_grow() {
    let place = Place::new();
    let segment = place.options().participants(8).size(1 << 20).max_size(64 << 20).create("grows").unwrap();
    let (sender, receiver) = segment.bytes("bytes").open().unwrap();
    let message = Stamp { sender: 1, number: 2 }.message(20 << 20);
    sender.try_send(&message).unwrap();
    assert_eq!(&*receiver.try_recv().unwrap(), &message[..]);
    assert!(matches!(sender.try_send(vec![0; 64 << 20]), Err(TrySendError::TooLarge(_))));
}

#[test]
fn a_segment_stays_as_it_is_unless_it_may_grow() {
    let place = Place::new();
    let segment = place.options().participants(8).size(1 << 20).create("fixed").unwrap();
    let (sender, _receiver) = segment.bytes("bytes").open().unwrap();
    let before = bytes(&segment.check());
    while sender.try_send([0; 5000]).is_ok() {}
    assert!(matches!(sender.try_send([0; 5000]), Err(TrySendError::OutOfMemory(_))));
    assert_eq!(bytes(&segment.check()), before);
    let refused = place.options().size(2 << 20).max_size(1 << 20).create("shrinks");
    assert!(matches!(refused, Err(OpenError::InvalidOptions(_))));
}

#[test]
fn in_process_and_anonymous_segments_grow_too() {
    let options = || Segment::options().participants(8).size(1 << 20).max_size(32 << 20);
    for segment in [options().in_process().unwrap(), options().anonymous().unwrap()] {
        let (sender, receiver) = segment.bytes("bytes").open().unwrap();
        let message = Stamp { sender: 1, number: 2 }.message(10 << 20);
        sender.try_send(&message).unwrap();
        assert_eq!(&*receiver.try_recv().unwrap(), &message[..]);
        drop((sender, receiver));
        assert_empty(&segment);
    }
}

#[test]
fn processes_that_grow_a_segment_at_once_agree() {
    const TEST: &str = "processes_that_grow_a_segment_at_once_agree";
    let place = Place::new();
    let segment = place.options().participants(8).size(1 << 20).max_size(256 << 20).open_or_create("together").unwrap();
    if let Some(role) = role() {
        let sender: u32 = role.parse().unwrap();
        let (mine, back) = segment.bytes(&format!("own-{sender}")).open().unwrap();
        let done = segment.bytes("done").sender().unwrap();
        let mut random = Random::new(u64::from(sender));
        let mut kept = Vec::new();
        // Everybody holds more and more, so all grow all sectors again and again.
        for number in 0..1500 {
            let len = [random.below(500), random.below(20_000), random.below(100_000)][random.below(3)].max(1);
            mine.try_send(Stamp { sender, number }.message(len)).unwrap();
            kept.push(back.try_recv().unwrap());
        }
        for (number, message) in kept.iter().enumerate() {
            assert_eq!(Stamp::verify(message), Some(Stamp { sender, number: number as u64 }));
        }
        within(done.send([1])).unwrap();
        return;
    }
    let done = segment.bytes("done").receiver().unwrap();
    let children: Vec<_> = (0..4).map(|number| place.spawn(TEST, &number.to_string())).collect();
    within(async {
        for _ in 0..4 {
            done.recv().await.unwrap();
        }
    });
    children.into_iter().for_each(common::Process::succeed);
    drop(done);
    assert!(bytes(&segment.check()) > 64 << 20);
    assert_empty(&segment);
}

#[test]
fn a_process_killed_while_it_grows_the_segment_hurts_nobody() {
    const TEST: &str = "a_process_killed_while_it_grows_the_segment_hurts_nobody";
    let place = Place::new();
    let mut random = Random::new(4);
    for round in 0..20 {
        let name = format!("round-{}", role().unwrap_or_else(|| round.to_string()));
        let segment = place.options().participants(8).size(1 << 20).max_size(64 << 20).open_or_create(&name).unwrap();
        let (sender, receiver) = segment.bytes("bytes").open().unwrap();
        if role().is_some() {
            let (mine, back) = segment.bytes("own").open().unwrap();
            sender.try_send([1]).unwrap();
            let mut kept = Vec::new();
            while mine.try_send([2; 3000]).is_ok() {
                kept.push(back.try_recv().unwrap());
            }
            return;
        }
        let child = place.spawn(TEST, &round.to_string());
        within(receiver.recv()).unwrap();
        thread::sleep(std::time::Duration::from_micros(random.below(3000) as u64));
        child.kill();
        segment.bury_the_dead();
        // All that there may be is to be had by who lives.
        let largest = match sender.try_send(vec![0; 64 << 20]).map_err(|_| within(sender.send(vec![0; 64 << 20]))) {
            Err(Err(error)) => match error.kind() {
                waterway::channel::SendErrorKind::TooLarge { largest, .. } => largest,
                kind => panic!("{kind:?}"),
            },
            _ => panic!("64 MiB in a segment of 64 MiB"),
        };
        sender.try_send(vec![3; largest - 16]).unwrap();
        assert_eq!(within(receiver.recv()).unwrap().len(), largest - 16);
        drop((sender, receiver));
        assert_empty(&segment);
    }
}

#[test]
fn a_file_system_that_fills_up_is_an_error_and_no_fault() {
    const TEST: &str = "a_file_system_that_fills_up_is_an_error_and_no_fault";
    in_a_file_system_of(4, TEST, in_a_small_file_system);
}

#[test]
fn what_the_file_system_can_never_hold_is_refused_at_once_and_takes_nothing() {
    const TEST: &str = "what_the_file_system_can_never_hold_is_refused_at_once_and_takes_nothing";
    in_a_file_system_of(32, TEST, |tiny| {
        let options = Segment::options().dir(tiny).participants(4).channels(8);
        let segment = options.size(2 << 20).max_size(256 << 20).create("small").unwrap();
        let (sender, receiver) = segment.bytes("bytes").open().unwrap();
        let file = tiny.join("small");
        let before = taken(&file);
        let too_long = vec![0; 40 << 20];
        assert!(matches!(sender.try_send(&too_long), Err(TrySendError::TooLarge(_))));
        let Err(error) = within(sender.send(&too_long)) else { panic!("40 MiB in 32") };
        let waterway::channel::SendErrorKind::TooLarge { largest, .. } = error.kind() else { panic!("{error:?}") };
        assert!((10 << 20..32 << 20).contains(&largest), "{largest}");
        let allocator = segment.allocator();
        assert!(matches!(allocator.allocate_bytes(40 << 20), Err(waterway::error::AllocError::TooLarge { .. })));
        assert!(matches!(allocator.allocate_raw(40 << 20), Err(waterway::error::AllocError::TooLarge { .. })));
        let layout = std::alloc::Layout::from_size_align(40 << 20, 8).unwrap();
        assert!(matches!(
            within(allocator.allocate_when_free(layout)),
            Err(waterway::error::AllocError::TooLarge { .. })
        ));
        assert_eq!(taken(&file), before);
        // What it says can be had.
        sender.try_send(vec![1; largest - 4096]).unwrap();
        assert_eq!(receiver.try_recv().unwrap().len(), largest - 4096);
        let grown = taken(&file);
        // What others have may go: that is worth waiting for, and takes nothing either.
        let other = std::fs::File::create(tiny.join("other")).unwrap();
        let room = std::process::Command::new("fallocate").args(["-l", "6M"]).arg(tiny.join("other")).status();
        if room.is_ok_and(|status| status.success()) {
            let held: Vec<_> = std::iter::from_fn(|| allocator.allocate_bytes(largest - 4096).ok()).collect();
            let refused = sender.try_send(vec![1; largest - 4096]);
            assert!(matches!(refused, Err(TrySendError::OutOfMemory(_))), "{} are held", held.len());
            assert_eq!(taken(&file), grown);
        }
        drop(other);
    });
}

fn in_a_small_file_system(tiny: &Path) {
    let options = Segment::options().dir(tiny).participants(2).channels(4);
    let segment = options.size(1 << 20).max_size(64 << 20).create("full").unwrap();
    let (sender, receiver) = segment.bytes("bytes").open().unwrap();
    let mut kept = Vec::new();
    while let Ok(()) = sender.try_send([5; 2000]) {
        kept.push(receiver.try_recv().unwrap());
    }
    assert!(kept.len() > 1000, "{} messages in 4 MiB", kept.len());
    assert!(matches!(sender.try_send([5; 2000]), Err(TrySendError::OutOfMemory(_))));
    assert!(kept.iter().all(|message| message.iter().all(|byte| *byte == 5)));
    // Waiting goes on when somebody frees.
    within(async {
        let send = async { sender.send(vec![6; 2000]).await.unwrap() };
        let free = async { kept.truncate(kept.len() - 10) };
        tokio::join!(send, free);
        assert_eq!(receiver.recv().await.unwrap()[0], 6);
    });
    drop((kept, sender, receiver));
    assert_empty(&segment);
}
