//! As many processes in one segment as it can be made for: each is told apart from the others in everything that has a bit or
//! a number for each.

mod common;

use std::{
    thread,
    time::{Duration, Instant},
};

use common::{Place, eventually, held, ready, role, wait_to_be_killed, wait_until_ready, within};
use waterway::{Delivery, OpenError, Segment, SegmentOptions};

const MOST: u32 = 1024;

fn options(place: &Place) -> SegmentOptions {
    place.options().size(8 << 20).participants(MOST).channels(32)
}

/// Whether the limit of descriptors can be raised to what each participant needs.
fn may_have_many_descriptors() -> bool {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a place for the limit, which outlives the calls.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max.min(1 << 16).max(limit.rlim_cur);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
    limit.rlim_cur >= 4096
}

/// Everything that a participant can take, wait for or hold, in the hands of one that is killed with it.
fn hold_everything(segment: &Segment, place: &Place) -> ! {
    let again = Delivery::AtLeastOnce { max_deliveries: 3 };
    let to_others = segment.channel::<u64>("numbers").delivery(again).sender().unwrap();
    let numbers = segment.channel::<u64>("numbers").delivery(again).receiver().unwrap();
    let _received = numbers.try_recv().unwrap();
    let _permits = within(to_others.reserve_many(3)).unwrap();
    let all = segment.broadcast::<u64>("all").group("workers").subscriber().unwrap();
    let _seen = all.try_recv().unwrap();
    let semaphore = segment.semaphore("doors").permits(4).open().unwrap();
    let _doors = semaphore.try_acquire_many(2).unwrap();
    let block = segment.allocator().resolve_bytes(common::told(place)).unwrap();
    let _reading = block.try_read().unwrap();
    let (_watch, seen) = segment.watch::<u64>("latest").open().unwrap();
    let _latest = seen.borrow();
    ready(place);
    wait_to_be_killed()
}

#[test]
fn the_last_of_a_thousand_participants_has_and_loses_what_the_first_has() {
    const TEST: &str = "the_last_of_a_thousand_participants_has_and_loses_what_the_first_has";
    let place = Place::new();
    if role().is_some() {
        let segment = options(&place).open("many").unwrap();
        assert_eq!(segment.participants().last().map(|last| (last.slot, last.pid)), Some((1023, std::process::id())));
        hold_everything(&segment, &place);
    }
    if !may_have_many_descriptors() {
        return eprintln!("skipped: a thousand participants need more descriptors than can be had here");
    }
    let first = options(&place).create("many").unwrap();
    let others: Vec<Segment> = (2..MOST).map(|_| options(&place).open("many").unwrap()).collect();
    let again = Delivery::AtLeastOnce { max_deliveries: 3 };
    let numbers = first.channel::<u64>("numbers").capacity(8).delivery(again).open().unwrap();
    let all = first.broadcast::<u64>("all").capacity(8).publisher().unwrap();
    let worker = first.broadcast::<u64>("all").group("workers").delivery(again).subscriber().unwrap();
    let semaphore = first.semaphore("doors").permits(4).open().unwrap();
    let (latest, seen) = first.watch::<u64>("latest").open().unwrap();
    let block = first.allocator().allocate_copy(&[7; 5000]).unwrap();
    common::tell(&place, block.handle());
    numbers.0.try_send(1).unwrap();
    all.try_send(2).unwrap();
    latest.send(3).unwrap();

    let last = place.spawn(TEST, "last");
    wait_until_ready(&place, &last);
    assert_eq!(first.participants().len(), 1024);
    let refused = options(&place).open("many").unwrap_err();
    assert!(matches!(refused, OpenError::TooManyParticipants { limit: MOST }), "{refused:?}");
    // It holds everything...
    assert!(numbers.1.is_empty() && worker.try_recv().is_err());
    assert_eq!((numbers.0.capacity(), semaphore.available_permits()), (5, 2));
    assert!(block.try_write().is_err());
    // ... and all of it comes back.
    let waiting = {
        let receiver = numbers.1.clone();
        thread::spawn(move || within(receiver.recv()).map(|message| (*message, message.delivery_count())))
    };
    last.kill();
    assert_eq!(waiting.join().unwrap(), Some((1, 2)));
    assert_eq!(*within(worker.recv()).unwrap(), 2);
    eventually("the dead is buried", || first.participants().len() == 1023);
    first.bury_the_dead();
    assert_eq!((numbers.0.capacity(), semaphore.available_permits()), (8, 4));
    block.try_write().unwrap().fill(8);

    // One in the middle hears of what another one does, and is heard.
    let (there, here) = (others[700].clone(), others[900].clone());
    let receiver = there.bytes("talk").capacity(1).receiver().unwrap();
    let waiting = thread::spawn(move || within(receiver.recv()).map(|message| message.to_vec()));
    let sender = here.bytes("talk").capacity(1).sender().unwrap();
    within(sender.send("how do you do")).unwrap();
    assert_eq!(waiting.join().unwrap().as_deref(), Some(&b"how do you do"[..]));
    let guard = block.try_read().unwrap();
    let found = there.allocator().resolve_bytes(block.handle()).unwrap();
    assert!(found.try_write().is_err() && found.try_read().is_ok());
    drop(guard);
    found.try_write().unwrap().fill(9);
    drop((sender, found, here, there));

    drop((numbers, all, worker, semaphore, latest, seen, block));
    // All go at once, as at the end of a job.
    let started = Instant::now();
    drop(others);
    assert_eq!((first.participants().len(), held(&first)), (1, 0));
    assert!(started.elapsed() < Duration::from_secs(60));
}
