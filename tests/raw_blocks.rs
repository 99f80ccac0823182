//! Raw blocks that change hands by their handles: nobody ever has one twice, and none is lost when somebody dies.

mod common;

use std::{
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use common::{
    Place, Process, Random, Stamp, allocated, assert_empty, eventually, in_process_of, role, wait_to_be_killed,
};
use waterway::{
    Segment,
    blocks::{Allocator, Handle, HandleError},
    error::AllocError,
};
use zerocopy::{FromBytes, IntoBytes};

const LENGTHS: [usize; 8] = [24, 64, 65, 500, 640, 2048, 5000, 70_000];

fn open(place: &Place) -> Segment {
    place.options().size(8 << 20).participants(16).open_or_create("raw").unwrap()
}

fn in_process() -> Segment {
    in_process_of(8)
}

fn give(allocator: &Allocator, sender: u32, number: u64, len: usize) -> Handle {
    let mut block = allocator.allocate_raw(len).unwrap();
    block.copy_from_slice(&Stamp { sender, number }.message(len));
    block.into_handle()
}

/// Takes a block, verifies all of it, and frees it. Which one it was.
fn verify(allocator: &Allocator, handle: Handle, len: usize) -> Result<Stamp, HandleError> {
    let block = allocator.take_raw(handle)?;
    assert!(block.len() >= len && block.len().is_multiple_of(64));
    Ok(Stamp::verify(&block[..len]).unwrap())
}

#[test]
fn a_raw_block_is_taken_with_what_was_written_to_it() {
    let segment = in_process();
    let allocator = segment.allocator();
    for round in 0..100 {
        let given: Vec<_> = LENGTHS.map(|len| (give(&allocator, 1, round, len), len)).into();
        assert_eq!(allocated(&segment), LENGTHS.len());
        // They are no blocks that one could look into.
        assert_eq!(allocator.blocks().count(), 0);
        for (handle, len) in given {
            if round % 2 == 0 {
                assert_eq!(verify(&allocator, handle, len), Ok(Stamp { sender: 1, number: round }));
            } else {
                allocator.free(handle).unwrap();
            }
            assert_eq!(allocator.take_raw(handle).unwrap_err(), HandleError::Stale);
            assert_eq!(allocator.free(handle).unwrap_err(), HandleError::Stale);
        }
        assert_empty(&segment);
    }
}

#[test]
fn who_gives_a_block_away_again_has_another_handle() {
    let segment = in_process();
    let allocator = segment.allocator();
    for len in LENGTHS {
        let mut handles = vec![give(&allocator, 1, 2, len)];
        for _ in 0..5 {
            let block = allocator.take_raw(handles[handles.len() - 1]).unwrap();
            assert_eq!(Stamp::verify(&block[..len]), Some(Stamp { sender: 1, number: 2 }));
            let handle = block.into_handle();
            for old in &handles {
                assert_ne!(*old, handle);
                assert_eq!(allocator.take_raw(*old).unwrap_err(), HandleError::Stale);
                assert_eq!(allocator.free(*old).unwrap_err(), HandleError::Stale);
            }
            handles.push(handle);
        }
        allocator.free(handles[5]).unwrap();
    }
    assert_empty(&segment);
}

#[test]
fn a_raw_block_is_no_users_block_and_a_users_block_is_not_raw() {
    let segment = in_process();
    let allocator = segment.allocator();
    let raw = give(&allocator, 1, 1, 64);
    let users = allocator.allocate(5_u64).unwrap();
    let is_wrong = |error| matches!(error, HandleError::WrongType { .. });
    assert!(is_wrong(allocator.resolve::<u64>(raw).unwrap_err()));
    assert!(is_wrong(allocator.resolve_bytes(raw).unwrap_err()));
    assert!(is_wrong(allocator.adopt::<[u8]>(raw).unwrap_err()));
    let refused = allocator.take_raw(users.handle()).unwrap_err();
    assert!(is_wrong(refused));
    assert!(refused.to_string().contains("a raw block"), "{refused}");
    assert_eq!(*users.read().unwrap(), 5);
    assert_eq!(verify(&allocator, raw, 64), Ok(Stamp { sender: 1, number: 1 }));
    // A block that somebody has is nobody else's, whatever its generation.
    let mine = allocator.allocate_raw(64).unwrap();
    for granule in 0..2000_u32 {
        for generation in 0..8_u32 {
            let handle = Handle::read_from_bytes([granule, generation].as_bytes()).unwrap();
            assert!(allocator.take_raw(handle).is_err());
            assert!(handle == users.handle() || allocator.free(handle).is_err());
        }
    }
    drop((users, mine));
    assert_empty(&segment);
}

#[test]
fn forged_handles_are_refused() {
    let segment = in_process();
    let allocator = segment.allocator();
    let (loose, mut mine) = (give(&allocator, 1, 1, 500), allocator.allocate_raw(500).unwrap());
    mine.fill(7);
    let refused = |handle: Handle| {
        let errors = [allocator.take_raw(handle).err(), allocator.free(handle).err()];
        assert!(
            errors.iter().all(|error| matches!(error, Some(HandleError::Stale | HandleError::Nonsense))),
            "{errors:?}"
        );
    };
    let mut random = Random::new(3);
    let number = u64::read_from_bytes(loose.as_bytes()).unwrap();
    let forged = (0..64).map(|bit| number ^ 1 << bit).chain([0, u64::MAX, 3 << 30]);
    let forged = forged.chain(std::iter::repeat_with(|| random.next()).take(100_000));
    for number in forged.filter(|forged| *forged != number) {
        refused(Handle::read_from_bytes(number.as_bytes()).unwrap());
    }
    assert_eq!(*mine, [7; 500]);
    drop(mine);
    assert_eq!(verify(&allocator, loose, 500), Ok(Stamp { sender: 1, number: 1 }));
    assert_empty(&segment);
}

#[test]
fn of_several_who_want_a_block_one_gets_it() {
    const ROUNDS: usize = 2000;
    const THREADS: usize = 4;
    let segment = in_process();
    let allocator = segment.allocator();
    let handles: Vec<_> = (0..ROUNDS).map(|number| give(&allocator, 1, number as u64, 64)).collect();
    let (start, got) = (Barrier::new(THREADS), AtomicUsize::new(0));
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (allocator, handles, start, got) = (&allocator, &handles, &start, &got);
            scope.spawn(move || {
                start.wait();
                for (number, handle) in handles.iter().enumerate() {
                    let outcome = if (number + thread).is_multiple_of(2) {
                        verify(allocator, *handle, 64).map(|stamp| assert_eq!(stamp.number, number as u64))
                    } else {
                        allocator.free(*handle)
                    };
                    match outcome {
                        Ok(()) => _ = got.fetch_add(1, Ordering::Relaxed),
                        Err(error) => assert_eq!(error, HandleError::Stale),
                    }
                }
            });
        }
    });
    assert_eq!(got.into_inner(), ROUNDS);
    assert_empty(&segment);
}

#[test]
fn blocks_of_small_lengths_come_and_go_wherever_there_was_room() {
    let segment = Segment::options().size(1 << 20).in_process().unwrap();
    let allocator = segment.allocator();
    let mut given = Vec::new();
    while let Ok(block) = allocator.allocate_raw(2000) {
        given.push(block.into_handle());
    }
    let sectors = segment.check().sectors;
    assert!(sectors[1].allocated_blocks > 0, "{sectors:?}");
    for (number, handle) in given.into_iter().enumerate() {
        match number % 2 {
            0 => drop(allocator.take_raw(handle).unwrap()),
            _ => allocator.free(handle).unwrap(),
        }
    }
    assert_empty(&segment);
}

#[test]
fn zero_on_free_wipes_what_nobody_has_taken() {
    let segment = Segment::options().size(1 << 20).sectors(1, 0, 0).zero_on_free(true).in_process().unwrap();
    let allocator = segment.allocator();
    for len in [64, 5000] {
        let mut block = allocator.allocate_raw(len).unwrap();
        block.fill(9);
        let place = block.as_ptr();
        allocator.free(block.into_handle()).unwrap();
        let again = allocator.allocate_raw(len).unwrap();
        assert_eq!(again.as_ptr(), place);
        assert!(again.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn blocks_go_through_processes_and_come_back() {
    const TEST: &str = "blocks_go_through_processes_and_come_back";
    const BLOCKS: u64 = 20_000;
    let place = Place::new();
    let segment = open(&place);
    let allocator = segment.allocator();
    let (there, back) =
        (segment.channel::<Handle>("there").capacity(64), segment.channel::<Handle>("back").capacity(64));
    let len = |number: u64| LENGTHS[number as usize % LENGTHS.len()];
    if role().is_some() {
        let (receiver, sender) = (there.receiver().unwrap(), back.sender().unwrap());
        for number in 0..BLOCKS {
            let handle = receiver.blocking_recv().unwrap().into_inner();
            let block = allocator.take_raw(handle).unwrap();
            assert_eq!(Stamp::verify(&block[..len(number)]), Some(Stamp { sender: 1, number }));
            if number.is_multiple_of(2) {
                sender.blocking_send(block.into_handle()).unwrap();
            }
        }
        // What it gave away goes with it.
        assert!(receiver.blocking_recv().is_none());
        return;
    }
    let (sender, receiver) = (there.sender().unwrap(), back.receiver().unwrap());
    let child = place.spawn(TEST, "take");
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..BLOCKS {
                sender.blocking_send(give(&allocator, 1, number, len(number))).unwrap();
            }
        });
        for number in (0..BLOCKS).step_by(2) {
            let handle = receiver.blocking_recv().unwrap().into_inner();
            if number.is_multiple_of(4) {
                assert_eq!(verify(&allocator, handle, len(number)), Ok(Stamp { sender: 1, number }));
            } else {
                allocator.free(handle).unwrap();
            }
        }
    });
    drop(sender);
    child.succeed();
    drop(receiver);
    assert_empty(&segment);
}

#[test]
fn what_a_killed_process_gave_away_is_there_until_it_is_buried() {
    const TEST: &str = "what_a_killed_process_gave_away_is_there_until_it_is_buried";
    let place = Place::new();
    let segment = open(&place);
    let allocator = segment.allocator();
    let channel = segment.channel::<Handle>("handles").capacity(64);
    if role().is_some() {
        let sender = channel.sender().unwrap();
        LENGTHS.iter().for_each(|len| sender.blocking_send(give(&allocator, 1, 1, *len)).unwrap());
        wait_to_be_killed();
    }
    let (sender, receiver) = channel.open().unwrap();
    for _ in 0..3 {
        let child = place.spawn(TEST, "give");
        let handles = LENGTHS.map(|len| (receiver.blocking_recv().unwrap().into_inner(), len));
        let (taken, left) = handles.split_at(4);
        // What was taken before stays.
        let taken: Vec<_> = taken.iter().map(|(handle, len)| (allocator.take_raw(*handle).unwrap(), len)).collect();
        child.kill();
        segment.bury_the_dead();
        for (handle, _) in left {
            assert_eq!(allocator.take_raw(*handle).unwrap_err(), HandleError::Stale);
            assert_eq!(allocator.free(*handle).unwrap_err(), HandleError::Stale);
        }
        eventually("it is buried", || segment.participants().len() == 1);
        assert_eq!(allocated(&segment), taken.len() + 1, "what was taken, and the ring");
        for (block, len) in &taken {
            assert_eq!(Stamp::verify(&block[..**len]), Some(Stamp { sender: 1, number: 1 }));
        }
    }
    drop((sender, receiver));
    assert_empty(&segment);
}

#[test]
fn a_process_that_leaves_frees_what_nobody_has_taken() {
    let place = Place::new();
    let (segment, other) = (open(&place), open(&place));
    let handles = LENGTHS.map(|len| give(&other.allocator(), 1, 1, len));
    let allocator = segment.allocator();
    let block = allocator.take_raw(handles[1]).unwrap();
    drop(other);
    for handle in handles {
        assert_eq!(allocator.take_raw(handle).unwrap_err(), HandleError::Stale);
    }
    assert_eq!(allocated(&segment), 1);
    assert_eq!(Stamp::verify(&block), Some(Stamp { sender: 1, number: 1 }));
    drop(block);
    assert_empty(&segment);
}

#[test]
fn kills_at_any_time_lose_no_block_and_give_none_twice() {
    const TEST: &str = "kills_at_any_time_lose_no_block_and_give_none_twice";
    let place = Place::new();
    let segment = open(&place);
    let allocator = segment.allocator();
    let channel = || segment.channel::<Handle>("handles").capacity(256);
    if let Some(role) = role() {
        let sender = role.parse().unwrap();
        let (give_to, take_from) = channel().open().unwrap();
        for number in 0.. {
            let handle = give(&allocator, sender, number, 500);
            if give_to.try_send(handle).is_err() {
                allocator.free(handle).unwrap();
            }
            // Of those who died some handles are left.
            if let Ok(handle) = take_from.try_recv() {
                let outcome = if number % 3 == 0 {
                    allocator.free(handle.into_inner())
                } else {
                    verify(&allocator, handle.into_inner(), 500).map(drop)
                };
                assert!(matches!(outcome, Ok(()) | Err(HandleError::Stale)), "{outcome:?}");
            }
        }
    }
    let receiver = channel().receiver().unwrap();
    let mut random = Random::new(5);
    let mut children: Vec<_> = (1..4).map(|sender| place.spawn(TEST, &sender.to_string())).collect();
    for sender in 4..20_u32 {
        let victim = children.swap_remove(random.below(children.len()));
        thread::sleep(Duration::from_micros(5_000 + random.below(30_000) as u64));
        let _ = receiver.blocking_recv();
        victim.kill();
        segment.bury_the_dead();
        children.push(place.spawn(TEST, &sender.to_string()));
    }
    children.into_iter().for_each(Process::kill);
    segment.bury_the_dead();
    while let Ok(handle) = receiver.try_recv() {
        assert_eq!(allocator.free(handle.into_inner()).unwrap_err(), HandleError::Stale);
    }
    drop(receiver);
    assert_empty(&segment);
}

#[test]
fn what_can_never_be_had_is_refused_with_what_can() {
    for segment in [in_process_of(1), Segment::options().size(1 << 20).max_size(8 << 20).in_process().unwrap()] {
        let allocator = segment.allocator();
        for len in [64 << 20, 1 << 45, usize::MAX] {
            let error = allocator.allocate_raw(len).unwrap_err();
            let AllocError::TooLarge { requested, largest } = error else { panic!("{error}") };
            assert_eq!(requested, len);
            drop(allocator.allocate_raw(largest).unwrap());
        }
    }
}
