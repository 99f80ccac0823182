//! Blocks for those who build their own: handles, guards, states, and what becomes of them when somebody dies.

mod common;

use std::{
    alloc::Layout,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{
    Place, Process, Random, Stamp, allocated, assert_empty, eventually, in_process_of, ready, role, tell, told,
    wait_to_be_killed, wait_until_ready, within,
};
use waterway::{
    Segment,
    blocks::{
        Allocator, Block, BlockRef, FIRST_USER_STATE, Handle, HandleError, HeapMemory, MemoryManager, StateError,
        TryGuardError,
    },
    error::AllocError,
};
use zerocopy::{FromBytes, IntoBytes, TryFromBytes};

fn open(place: &Place) -> Segment {
    place.options().size(8 << 20).participants(16).open_or_create("blocks").unwrap()
}

fn in_process() -> Segment {
    in_process_of(8)
}

#[test]
fn a_value_is_read_and_written_through_its_handle() {
    let segment = in_process();
    let allocator = segment.allocator();
    let block = allocator.allocate(0x1234_5678_u64).unwrap();
    let same: BlockRef<u64> = allocator.resolve(block.handle()).unwrap();
    assert_eq!(*same.read().unwrap(), 0x1234_5678);
    *same.write().unwrap() += 1;
    assert_eq!(*block.read().unwrap(), 0x1234_5679);
    same.put(3).unwrap();
    assert_eq!((*block.read().unwrap(), block.len(), block.is_empty()), (3, 8, false));
    block.ack();
    assert_eq!(same.read().unwrap_err(), HandleError::Stale);
    assert_empty(&segment);
}

#[test]
fn a_handle_is_eight_bytes_of_plain_data_and_travels_as_a_message() {
    let segment = in_process();
    let (sender, receiver) = segment.channel::<Handle>("handles").open().unwrap();
    let block = segment.allocator().allocate_copy(b"through a block").unwrap();
    assert_eq!(size_of::<Handle>(), 8);
    sender.try_send(block.into_handle()).unwrap();
    let handle = receiver.try_recv().unwrap().into_inner();
    let block = segment.allocator().adopt::<[u8]>(handle).unwrap();
    assert_eq!(&*block.read().unwrap(), b"through a block");
    drop((block, sender, receiver));
    assert_empty(&segment);
}

#[test]
fn stale_and_nonsense_handles_are_refused() {
    let segment = in_process();
    let allocator = segment.allocator();
    let mut old = Vec::new();
    for number in 0..1000_u64 {
        let block = allocator.allocate(number).unwrap();
        for stale in &old {
            assert_ne!(*stale, block.handle());
            assert_eq!(allocator.resolve::<u64>(*stale).unwrap_err(), HandleError::Stale);
            assert_eq!(allocator.free(*stale).unwrap_err(), HandleError::Stale);
        }
        if old.len() < 20 {
            old.push(block.handle());
        }
        assert_eq!(*block.read().unwrap(), number);
    }
    let mut random = Random::new(1);
    let mine = allocator.allocate(7_u64).unwrap();
    for _ in 0..100_000 {
        let handle = Handle::read_from_bytes(random.next().as_bytes()).unwrap();
        let refused = allocator.resolve::<u64>(handle).map(|block| block.handle() == mine.handle());
        assert!(matches!(refused, Err(HandleError::Stale | HandleError::Nonsense) | Ok(true)), "{handle:?}");
    }
    assert_eq!(*mine.read().unwrap(), 7);
    drop(mine);
    assert_empty(&segment);
}

#[test]
fn a_message_is_no_block() {
    let segment = in_process();
    let (sender, receiver) = segment.bytes("data").open().unwrap();
    sender.try_send([1; 100]).unwrap();
    let received = receiver.try_recv().unwrap();
    let allocator = segment.allocator();
    for granule in 0..1000_u32 {
        for generation in 0..8_u32 {
            let handle = Handle::read_from_bytes([granule, generation].as_bytes()).unwrap();
            assert!(allocator.resolve_bytes(handle).is_err());
        }
    }
    assert_eq!(&*received, &[1; 100]);
}

#[test]
fn a_block_is_resolved_only_as_what_it_was_allocated_as() {
    let segment = in_process();
    let allocator = segment.allocator();
    let number = allocator.allocate(1_u64).unwrap();
    let bytes = allocator.allocate_bytes(8).unwrap();
    assert!(matches!(allocator.resolve::<i64>(number.handle()), Err(HandleError::WrongType { expected: "i64" })));
    assert!(matches!(allocator.resolve_bytes(number.handle()), Err(HandleError::WrongType { .. })));
    assert!(matches!(allocator.resolve::<u64>(bytes.handle()), Err(HandleError::WrongType { .. })));
    assert!(matches!(allocator.adopt::<[u8]>(number.handle()), Err(HandleError::WrongType { .. })));
    assert!(allocator.resolve::<u64>(number.handle()).is_ok());
    assert!(allocator.resolve_bytes(bytes.handle()).is_ok());
}

#[test]
fn all_sizes_from_nothing_to_a_whole_sector_and_all_alignments_up_to_a_page() {
    let segment = in_process();
    let allocator = segment.allocator();
    let free = allocator.available();
    assert!(free <= allocator.capacity() && allocator.largest() < free);
    let largest = allocator.largest();
    for len in [0, 1, 63, 64, 65, 1000, 2048, 4096, 70_000, 1 << 20, largest] {
        let block = allocator.allocate_bytes(len).unwrap();
        assert_eq!((block.len(), block.read().unwrap().len()), (len, len));
        let bytes = Stamp { sender: 1, number: len as u64 }.message(len);
        block.write().unwrap().copy_from_slice(&bytes[..len]);
        let same = allocator.resolve_bytes(block.handle()).unwrap();
        assert_eq!(&*same.read().unwrap(), &bytes[..len]);
        assert_eq!(same.header().unwrap().len, len);
    }
    assert_eq!(&*allocator.allocate(()).unwrap().read().unwrap(), &());
    for log in 0..=12 {
        for len in [0, 1, 100, 5000] {
            let layout = Layout::from_size_align(len, 1 << log).unwrap();
            let block = allocator.allocate_layout(layout).unwrap();
            let guard = block.read().unwrap();
            assert!(guard.as_ptr().addr().is_multiple_of(1 << log), "{layout:?}");
            assert_eq!(guard.len(), len);
        }
    }
    let too_large = allocator.allocate_bytes(largest + 1);
    assert!(matches!(too_large, Err(AllocError::TooLarge { requested, largest: most })
        if requested == largest + 1 && most == largest));
    assert!(matches!(allocator.allocate_bytes(usize::MAX), Err(AllocError::TooLarge { .. })));
    let too_aligned = allocator.allocate_layout(Layout::from_size_align(1, 8192).unwrap());
    assert!(matches!(too_aligned, Err(AllocError::Alignment { requested: 8192, largest: 4096 })));
    assert_eq!(allocator.available(), free);
    assert_empty(&segment);
}

#[test]
fn memory_runs_out_with_an_error_and_comes_back() {
    let segment = in_process();
    let allocator = segment.allocator();
    let free = allocator.available();
    let mut random = Random::new(2);
    for _ in 0..3 {
        let mut blocks = Vec::new();
        loop {
            match allocator.allocate_bytes(random.below(100_000)) {
                Ok(block) => blocks.push(block),
                Err(AllocError::OutOfMemory { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(allocator.blocks().count(), blocks.len());
        while !blocks.is_empty() {
            blocks.swap_remove(random.below(blocks.len())).free();
        }
        assert_eq!(allocator.available(), free);
    }
    assert_empty(&segment);
}

#[test]
fn states_are_the_users_own_from_49_on() {
    let segment = in_process();
    let block = segment.allocator().allocate(0_u8).unwrap();
    assert_eq!(block.state().unwrap(), 0);
    for state in [0, 1, FIRST_USER_STATE - 1] {
        assert_eq!(block.set_state(state).unwrap_err(), StateError::Reserved { state });
        assert_eq!(block.transition(0, state).unwrap_err(), StateError::Reserved { state });
    }
    block.transition(0, FIRST_USER_STATE).unwrap();
    assert_eq!(block.transition(50, 51).unwrap_err(), StateError::Changed { found: FIRST_USER_STATE });
    block.set_state(u32::MAX).unwrap();
    assert_eq!(block.state().unwrap(), u32::MAX);
    let same = block.reference();
    drop(block);
    assert_eq!(same.state().unwrap_err(), HandleError::Stale);
    assert_eq!(same.set_state(50).unwrap_err(), StateError::Handle(HandleError::Stale));
}

#[test]
fn of_many_who_change_a_state_one_succeeds() {
    let segment = in_process();
    let block = segment.allocator().allocate(0_u8).unwrap();
    block.set_state(100).unwrap();
    for step in 100..150 {
        let successes = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    successes.fetch_add(usize::from(block.transition(step, step + 1).is_ok()), Ordering::Relaxed)
                });
            }
        });
        assert_eq!(successes.into_inner(), 1);
    }
}

#[test]
fn many_read_or_one_writes_within_a_process() {
    let segment = in_process();
    let block = segment.allocator().allocate(5_u32).unwrap();
    let (first, second) = (block.read().unwrap(), block.try_read().unwrap());
    assert_eq!(block.try_write().unwrap_err(), TryGuardError::Busy);
    assert_eq!(block.header().unwrap().readers.len(), 1);
    drop(first);
    assert_eq!(block.try_write().unwrap_err(), TryGuardError::Busy);
    assert_eq!(block.write_timeout(Duration::from_millis(20)).unwrap_err(), TryGuardError::Busy);
    drop(second);
    let writer = block.try_write().unwrap();
    assert_eq!(block.try_read().unwrap_err(), TryGuardError::Busy);
    assert_eq!(block.try_write().unwrap_err(), TryGuardError::Busy);
    assert_eq!(block.read_timeout(Duration::from_millis(20)).unwrap_err(), TryGuardError::Busy);
    let header = block.header().unwrap();
    assert_eq!((header.readers.len(), header.writer), (0, header.owner));
    drop(writer);
    assert_eq!(*block.read().unwrap(), 5);
}

#[test]
fn who_waits_is_woken_long_before_the_watchdog() {
    let segment = in_process();
    let block = segment.allocator().allocate(0_u64).unwrap();
    let started = Instant::now();
    for _ in 0..50 {
        let writer = block.write().unwrap();
        thread::scope(|scope| {
            let readers: Vec<_> = (0..3).map(|_| scope.spawn(|| *block.read().unwrap())).collect();
            thread::sleep(Duration::from_millis(2));
            drop(writer);
            readers.into_iter().for_each(|reader| assert!(reader.join().unwrap() <= 50));
            let reader = block.read().unwrap();
            let writer = scope.spawn(|| *block.write().unwrap() += 1);
            thread::sleep(Duration::from_millis(2));
            drop(reader);
            writer.join().unwrap();
        });
    }
    assert_eq!(*block.read().unwrap(), 50);
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
}

#[test]
fn who_waits_uses_no_processor_time() {
    /// Nanoseconds that this thread has run.
    fn run_time() -> u64 {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        stat.split(' ').next().unwrap().parse().unwrap()
    }
    let segment = in_process();
    let block = segment.allocator().allocate(0_u64).unwrap();
    let measure = |wait: &(dyn Fn() + Sync)| {
        let before = run_time();
        wait();
        run_time() - before
    };
    thread::scope(|scope| {
        let writer = block.write().unwrap();
        let waiting = [
            scope.spawn(|| measure(&|| drop(block.read().unwrap()))),
            scope.spawn(|| measure(&|| drop(block.read().unwrap()))),
            scope.spawn(|| measure(&|| drop(block.write().unwrap()))),
        ];
        thread::sleep(Duration::from_millis(600));
        drop(writer);
        let waited = waiting.map(|thread| thread.join().unwrap());
        assert!(waited.iter().all(|nanoseconds| *nanoseconds < 20_000_000), "{waited:?}");
    });
}

#[test]
fn what_is_freed_while_it_is_read_goes_with_the_last_guard() {
    let segment = in_process();
    let allocator = segment.allocator();
    let block = allocator.allocate_copy(&[7; 500]).unwrap();
    let same = block.reference();
    let (first, second) = (same.read().unwrap(), same.read().unwrap());
    block.free();
    assert_eq!(same.read().unwrap_err(), HandleError::Stale);
    assert_eq!(allocator.blocks().count(), 0);
    // Whatever is allocated now is not in the readers' way.
    let others: Vec<_> = (0..100).map(|_| allocator.allocate_copy(&[9; 500]).unwrap()).collect();
    drop(first);
    assert_eq!(allocated(&segment), 101);
    assert_eq!(&*second, &[7; 500]);
    drop(second);
    assert_eq!(allocated(&segment), 100);
    drop(others);
    let block = allocator.allocate_copy(&[7; 500]).unwrap();
    let handle = block.into_handle();
    let mut writer = allocator.read_mut(handle).unwrap();
    allocator.free(handle).unwrap();
    writer.fill(1);
    assert_eq!(allocated(&segment), 1);
    drop(writer);
    assert_empty(&segment);
}

#[test]
fn who_waits_for_a_block_that_is_freed_is_told() {
    let segment = in_process();
    let block = segment.allocator().allocate(1_u8).unwrap();
    let same = block.reference();
    let reader = same.read().unwrap();
    thread::scope(|scope| {
        let writer = scope.spawn(|| same.write().map(drop));
        eventually("the writer waits", || same.header().unwrap().writer.is_some());
        block.free();
        assert_eq!(writer.join().unwrap().unwrap_err(), HandleError::Stale);
    });
    assert_eq!(*reader, 1);
    drop(reader);
    assert_empty(&segment);
}

#[test]
fn a_writer_that_panics_leaves_the_block_poisoned_until_somebody_makes_it_whole() {
    let segment = in_process();
    let block = segment.allocator().allocate([1_u32; 4]).unwrap();
    thread::scope(|scope| {
        let panicked = scope.spawn(|| {
            let _writer = block.write().unwrap();
            std::panic::resume_unwind(Box::new("half-way"));
        });
        assert!(panicked.join().is_err());
    });
    assert!(block.poisoned().unwrap() && block.read().unwrap().poisoned());
    let mut writer = block.write().unwrap();
    assert!(writer.poisoned());
    *writer = [2; 4];
    writer.clear_poison();
    drop(writer);
    assert!(!block.poisoned().unwrap());
}

#[test]
fn bytes_that_are_no_value_are_refused_until_a_value_is_put_in() {
    #[derive(Clone, Copy, Debug, PartialEq, TryFromBytes, IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
    #[repr(u8)]
    enum Light {
        Red = 1,
        Green = 2,
    }
    let segment = in_process();
    let block = segment.allocator().allocate(Light::Red).unwrap();
    // As a writer of an unlike program would.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut guard = block.write().unwrap();
            // SAFETY: never read as a `Light`: the guard is dropped next.
            unsafe { (&raw mut *guard).cast::<u8>().write(9) };
        });
    });
    assert_eq!(block.read().unwrap_err(), HandleError::Invalid);
    assert_eq!(block.try_write().unwrap_err(), TryGuardError::Handle(HandleError::Invalid));
    block.put(Light::Green).unwrap();
    assert_eq!(*block.read().unwrap(), Light::Green);
}

#[test]
fn blocks_are_walked_with_what_they_are() {
    let segment = in_process();
    let allocator = segment.allocator();
    let blocks: Vec<_> = [0, 100, 5000, 200_000].map(|len| allocator.allocate_bytes(len).unwrap()).into();
    blocks[1].set_state(77).unwrap();
    let _reader = blocks[2].read().unwrap();
    let me = segment.participants()[0].slot;
    let mut walked: Vec<_> = allocator.blocks().collect();
    walked.sort_by_key(|block| block.len);
    assert_eq!(walked.len(), 4);
    for (found, block) in walked.iter().zip(&blocks) {
        assert_eq!((found.handle, found.len, found.owner), (block.handle(), block.len(), Some(me)));
        assert_eq!(*found, block.header().unwrap());
    }
    assert_eq!((walked[0].state, walked[1].state), (0, 77));
    assert_eq!((walked[2].readers.as_slice(), walked[1].readers.len()), (&[me][..], 0));
}

#[test]
fn threads_allocate_read_write_and_free_at_once_and_all_memory_comes_back() {
    let segment = in_process();
    let allocator = segment.allocator();
    let free = allocator.available();
    let handles = &std::sync::Mutex::new(vec![None; 8]);
    thread::scope(|scope| {
        for worker in 0..4 {
            let allocator = allocator.clone();
            scope.spawn(move || churn(&allocator, handles, worker, 5000));
        }
    });
    let left: Vec<_> = allocator.blocks().collect();
    left.iter().for_each(|block| allocator.free(block.handle).unwrap());
    assert_empty(&segment);
    assert_eq!(allocator.available(), free);
}

/// Replaces, reads, writes and frees blocks that others do the same to.
fn churn(allocator: &Allocator, handles: &std::sync::Mutex<Vec<Option<Handle>>>, worker: u32, rounds: u64) {
    let mut random = Random::new(u64::from(worker) + 100);
    for number in 0..rounds {
        let place = random.below(8);
        let handle = handles.lock().unwrap()[place];
        let Some(handle) = handle else {
            let message = Stamp { sender: worker, number }.message(random.below(3000));
            handles.lock().unwrap()[place] = Some(allocator.store(&message).unwrap());
            continue;
        };
        match random.below(3) {
            0 => {
                // Several may try; somebody may have been faster.
                let freed = MemoryManager::free(allocator, handle);
                assert!(matches!(freed, Ok(()) | Err(HandleError::Stale)));
                let mut handles = handles.lock().unwrap();
                if handles[place] == Some(handle) {
                    handles[place] = None;
                }
            }
            1 => match allocator.read_mut(handle) {
                Ok(mut writer) => {
                    Stamp::verify(&writer);
                    let len = writer.len();
                    writer.copy_from_slice(&Stamp { sender: worker, number }.message(len));
                }
                Err(error) => assert_eq!(error, HandleError::Stale),
            },
            _ => match allocator.read(handle) {
                Ok(reader) => {
                    Stamp::verify(&reader);
                    Stamp::verify(&reader);
                }
                Err(error) => assert_eq!(error, HandleError::Stale),
            },
        }
    }
}

#[test]
fn zero_on_free_wipes_blocks() {
    let place = Place::new();
    let segment = place.options().size(8 << 20).participants(16).zero_on_free(true).open_or_create("blocks").unwrap();
    const TEST: &str = "zero_on_free_wipes_blocks";
    const MARK: &[u8; 32] = b"this must not be found afterward";
    let file = || std::fs::read(place.path().join("blocks")).unwrap();
    let is_found = || file().windows(32).any(|window| window == MARK);
    let allocator = segment.allocator();
    if role().is_some() {
        let _block = allocator.allocate_copy(&MARK.repeat(100)).unwrap();
        let other = allocator.resolve_bytes(told(&place)).unwrap();
        let _reader = other.read().unwrap();
        ready(&place);
        wait_to_be_killed();
    }
    let block = allocator.allocate_copy(&MARK.repeat(10)).unwrap();
    assert!(is_found());
    block.free();
    assert!(!is_found());
    // Now with a child that has a block of its own and reads another one, and is killed.
    let block = allocator.allocate_copy(&MARK.repeat(10)).unwrap();
    tell(&place, block.handle());
    let child = place.spawn(TEST, "hold");
    wait_until_ready(&place, &child);
    block.free();
    assert!(is_found());
    child.kill();
    segment.bury_the_dead();
    assert!(!is_found());
    assert_empty(&segment);
}

#[test]
fn a_handle_works_in_other_processes_and_is_stale_in_all_of_them_when_the_block_is_freed() {
    const TEST: &str = "a_handle_works_in_other_processes_and_is_stale_in_all_of_them_when_the_block_is_freed";
    let place = Place::new();
    let segment = open(&place);
    let allocator = segment.allocator();
    if role().is_some() {
        let handle = told(&place);
        let block = allocator.resolve::<[u64; 4]>(handle).unwrap();
        assert!(matches!(allocator.resolve_bytes(handle), Err(HandleError::WrongType { .. })));
        assert_ne!(
            block.header().unwrap().owner,
            Some(segment.participants().iter().find(|other| other.pid == std::process::id()).unwrap().slot)
        );
        block.write().unwrap()[1] += 1;
        block.transition(50, 51).unwrap();
        eventually("it is freed", || block.try_read().is_err_and(|error| error == HandleError::Stale.into()));
        assert!(matches!(allocator.resolve::<[u64; 4]>(handle), Err(HandleError::Stale)));
        return;
    }
    for round in 0..5_u64 {
        let block = allocator.allocate([round; 4]).unwrap();
        block.set_state(50).unwrap();
        tell(&place, block.handle());
        let child = place.spawn(TEST, "use");
        eventually("the child has used it", || block.state().unwrap() == 51);
        assert_eq!(*block.read().unwrap(), [round, round + 1, round, round]);
        block.free();
        child.succeed();
        std::fs::remove_file(place.path().join("handle")).unwrap();
        assert_empty(&segment);
    }
}

#[test]
fn many_processes_read_or_one_writes_and_no_payload_is_torn() {
    const TEST: &str = "many_processes_read_or_one_writes_and_no_payload_is_torn";
    const LEN: usize = 20_000;
    let place = Place::new();
    let segment = open(&place);
    let allocator = segment.allocator();
    let take_part = |block: &BlockRef<[u8]>, sender: u32, rounds: u64| {
        for number in 0..rounds {
            if number % 3 == 0 {
                let mut writer = block.write().unwrap();
                Stamp::verify(&writer).unwrap();
                writer.copy_from_slice(&Stamp { sender, number }.message(LEN));
            } else {
                let reader = block.read().unwrap();
                let stamp = Stamp::verify(&reader).unwrap();
                assert_eq!(Stamp::verify(&reader), Some(stamp));
            }
        }
    };
    if let Some(role) = role() {
        let block = allocator.resolve_bytes(told(&place)).unwrap();
        let sender = role.parse().unwrap();
        // Two threads each: within a process guards exclude one another as well.
        thread::scope(|scope| {
            scope.spawn(|| take_part(&block, sender + 100, 300));
            take_part(&block, sender, 300);
        });
        return;
    }
    let block = allocator.allocate_copy(&Stamp { sender: 0, number: 0 }.message(LEN)).unwrap();
    tell(&place, block.handle());
    let children: Vec<_> = (1..4).map(|sender| place.spawn(TEST, &sender.to_string())).collect();
    take_part(&block, 0, 300);
    children.into_iter().for_each(Process::succeed);
    let header = block.header().unwrap();
    assert_eq!((header.readers.len(), header.writer), (0, None));
    drop(block);
    assert_empty(&segment);
}

#[test]
fn the_guards_of_the_killed_are_given_up() {
    const TEST: &str = "the_guards_of_the_killed_are_given_up";
    let place = Place::new();
    let segment = open(&place);
    let allocator = segment.allocator();
    if let Some(role) = role() {
        let block = allocator.resolve_bytes(told(&place)).unwrap();
        if role == "read" {
            let _guards = [block.read().unwrap(), block.read().unwrap()];
            ready(&place);
            wait_to_be_killed();
        }
        let mut writer = block.write().unwrap();
        writer[..50].fill(9);
        ready(&place);
        wait_to_be_killed();
    }
    let block = allocator.allocate_bytes(100).unwrap();
    tell(&place, block.handle());
    for _ in 0..3 {
        let child = place.spawn(TEST, "read");
        wait_until_ready(&place, &child);
        assert_eq!(*block.try_read().unwrap(), [0; 100]);
        assert_eq!(block.try_write().unwrap_err(), TryGuardError::Busy);
        // Nobody calls `bury_the_dead`: who waits looks for itself.
        let died = thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(block.write().unwrap()));
            thread::sleep(Duration::from_millis(20));
            let died = Instant::now();
            child.kill();
            waiting.join().unwrap();
            died
        });
        assert!(died.elapsed() < Duration::from_secs(2), "{:?}", died.elapsed());
        assert!(!block.poisoned().unwrap());
    }
    for _ in 0..3 {
        let child = place.spawn(TEST, "write");
        wait_until_ready(&place, &child);
        assert_eq!(block.try_read().unwrap_err(), TryGuardError::Busy);
        child.kill();
        let reader = block.read().unwrap();
        assert!(reader.poisoned());
        assert_eq!((reader[0], reader[99]), (9, 0));
        drop(reader);
        let mut writer = block.write().unwrap();
        writer.fill(0);
        writer.clear_poison();
    }
    drop(block);
    // Who buries may be at the block just now, and frees it afterwards.
    segment.bury_the_dead();
    assert_empty(&segment);
    assert_eq!(segment.participants().len(), 1);
}

#[test]
fn the_block_of_a_killed_owner_stays_until_the_living_let_go() {
    const TEST: &str = "the_block_of_a_killed_owner_stays_until_the_living_let_go";
    let place = Place::new();
    let segment = open(&place);
    let allocator = segment.allocator();
    if role().is_some() {
        let block = allocator.allocate_copy(&Stamp { sender: 1, number: 2 }.message(5000)).unwrap();
        tell(&place, block.handle());
        wait_to_be_killed();
    }
    let child = place.spawn(TEST, "own");
    let block = allocator.resolve_bytes(told(&place)).unwrap();
    let reader = block.read().unwrap();
    child.kill();
    segment.bury_the_dead();
    assert_eq!(segment.participants().len(), 1);
    assert_eq!(block.read().unwrap_err(), HandleError::Stale);
    // Everything that is free is used for something else; the reader sees nothing of it.
    let mut others = Vec::new();
    while let Ok(other) = allocator.allocate_copy(&[0xff; 5000]) {
        others.push(other);
    }
    assert_eq!(Stamp::verify(&reader), Some(Stamp { sender: 1, number: 2 }));
    assert_eq!(allocated(&segment), others.len() + 1);
    drop(others);
    drop(reader);
    assert_empty(&segment);
}

#[test]
fn a_block_that_was_freed_is_given_back_when_its_last_reader_is_killed() {
    const TEST: &str = "a_block_that_was_freed_is_given_back_when_its_last_reader_is_killed";
    let place = Place::new();
    let segment = open(&place);
    let allocator = segment.allocator();
    if role().is_some() {
        let block = allocator.resolve_bytes(told(&place)).unwrap();
        let _reader = block.read().unwrap();
        ready(&place);
        wait_to_be_killed();
    }
    let block = allocator.allocate_bytes(5000).unwrap();
    tell(&place, block.handle());
    let child = place.spawn(TEST, "read");
    wait_until_ready(&place, &child);
    block.free();
    assert_eq!(allocated(&segment), 1);
    child.kill();
    segment.bury_the_dead();
    assert_empty(&segment);
}

#[test]
fn a_process_that_leaves_frees_what_it_kept_and_what_another_adopted_stays() {
    let place = Place::new();
    let segment = open(&place);
    let other = open(&place);
    let (kept, given) = (other.allocator().store(&[1; 10]).unwrap(), other.allocator().store(&[2; 10]).unwrap());
    let block = segment.allocator().adopt::<[u8]>(given).unwrap();
    drop(other);
    assert!(matches!(segment.allocator().resolve_bytes(kept), Err(HandleError::Stale)));
    assert_eq!(*block.read().unwrap(), [2; 10]);
    drop(block);
    assert_empty(&segment);
}

#[test]
fn kills_at_any_time_lose_no_memory_and_tear_nothing_that_was_not_being_written() {
    const TEST: &str = "kills_at_any_time_lose_no_memory_and_tear_nothing_that_was_not_being_written";
    const BLOCKS: usize = 4;
    let place = Place::new();
    let segment = open(&place);
    let allocator = segment.allocator();
    let path = place.path().join("handles");
    if let Some(role) = role() {
        let sender: u32 = role.parse().unwrap();
        let handles = <[Handle; BLOCKS]>::read_from_bytes(&std::fs::read(&path).unwrap()).unwrap();
        let mut random = Random::new(u64::from(sender));
        let mut own = Vec::new();
        ready(&place);
        for number in 0.. {
            let block = allocator.resolve_bytes(handles[random.below(BLOCKS)]).unwrap();
            if random.below(2) == 0 {
                let mut writer = block.write().unwrap();
                let len = writer.len();
                if !writer.poisoned() {
                    Stamp::verify(&writer);
                }
                writer.copy_from_slice(&Stamp { sender, number }.message(len));
                writer.clear_poison();
            } else {
                let reader = block.read().unwrap();
                if !reader.poisoned() {
                    Stamp::verify(&reader);
                }
            }
            own.push(allocator.allocate_bytes(random.below(5000)).unwrap());
            if own.len() > 20 {
                own.swap_remove(random.below(own.len()));
            }
        }
    }
    let blocks: Vec<_> = (0..BLOCKS as u64)
        .map(|number| allocator.allocate_copy(&Stamp { sender: 0, number }.message(3000)).unwrap())
        .collect();
    let handles: Vec<Handle> = blocks.iter().map(|block| block.handle()).collect();
    std::fs::write(&path, handles.as_bytes()).unwrap();
    let mut random = Random::new(21);
    let mut children: Vec<_> = (1..4).map(|sender| place.spawn(TEST, &sender.to_string())).collect();
    for sender in 4..24_u32 {
        let victim = children.swap_remove(random.below(children.len()));
        wait_until_ready(&place, &victim);
        thread::sleep(Duration::from_micros(random.below(20_000) as u64));
        victim.kill();
        segment.bury_the_dead();
        for block in &blocks {
            let reader = block.read().unwrap();
            if !reader.poisoned() {
                Stamp::verify(&reader);
            }
        }
        children.push(place.spawn(TEST, &sender.to_string()));
    }
    children.into_iter().for_each(Process::kill);
    segment.bury_the_dead();
    for block in &blocks {
        let header = block.header().unwrap();
        assert_eq!((header.readers.len(), header.writer), (0, None));
    }
    drop(blocks);
    assert_empty(&segment);
}

#[test]
fn the_heap_keeps_bytes_as_a_segment_does() {
    fn use_it(memory: &(impl MemoryManager + Sync)) {
        let free = memory.available();
        assert!(free <= memory.capacity());
        let handle = memory.store(b"some bytes").unwrap();
        assert!(memory.available() < free);
        assert_eq!(&*memory.read(handle).unwrap(), b"some bytes");
        memory.read_mut(handle).unwrap()[0] = b'S';
        let (first, second) = (memory.read(handle).unwrap(), memory.read(handle).unwrap());
        thread::scope(|scope| {
            let writer = scope.spawn(|| memory.read_mut(handle).unwrap().fill(b'x'));
            thread::sleep(Duration::from_millis(5));
            assert_eq!((&*first, &*second), (&b"Some bytes"[..], &b"Some bytes"[..]));
            drop((first, second));
            writer.join().unwrap();
        });
        let reader = memory.read(handle).unwrap();
        memory.free(handle).unwrap();
        assert_eq!(&*reader, b"xxxxxxxxxx");
        drop(reader);
        assert!(matches!(memory.read(handle), Err(HandleError::Stale)));
        assert!(matches!(memory.read_mut(handle), Err(HandleError::Stale)));
        assert_eq!(memory.free(handle), Err(HandleError::Stale));
        let next = memory.store(&[]).unwrap();
        assert_ne!(next, handle);
        let mut writer = memory.read_mut(next).unwrap();
        memory.free(next).unwrap();
        writer.fill(0);
        drop(writer);
        assert_eq!(memory.available(), free);
        assert!(memory.store(&vec![0; memory.capacity() + 1]).is_err());
    }
    use_it(&HeapMemory::new(1000));
    use_it(&in_process().allocator());
    let full = HeapMemory::new(10);
    full.store(&[0; 6]).unwrap();
    assert_eq!(full.store(&[0; 6]), Err(AllocError::OutOfMemory { requested: 6 }));
}

#[test]
fn raw_memory_is_this_process_s_own_and_comes_back() {
    let segment = in_process();
    let allocator = segment.allocator();
    let mut blocks: Vec<_> = [0, 1, 63, 64, 65, 5000, 70_000].map(|len| allocator.allocate_raw(len).unwrap()).into();
    for (number, block) in blocks.iter_mut().enumerate() {
        assert!(block.as_ptr().addr().is_multiple_of(64));
        block.fill(number as u8);
    }
    for (number, block) in blocks.iter().enumerate() {
        assert!(block.iter().all(|byte| *byte == number as u8));
    }
    // Nobody can have a handle of it.
    assert_eq!(allocator.blocks().count(), 0);
    drop(blocks);
    assert_empty(&segment);
}

/// Layouts of so many bytes.
fn sized(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).unwrap()
}

/// A segment of one sector, so that all compete for the same memory.
fn one_sector(place: &Place) -> Segment {
    place.options().size(1 << 20).sectors(0, 1, 0).participants(8).channels(4).open_or_create("line").unwrap()
}

/// All memory that there is.
fn all_of(allocator: &Allocator) -> Vec<Block<[u8]>> {
    std::iter::from_fn(|| allocator.allocate_bytes(3000).ok()).collect()
}

/// The child of a test: stands in the line for more than it will get.
fn wait_in_line(place: &Place, allocator: &Allocator) -> ! {
    let mut wait = std::pin::pin!(allocator.allocate_when_free(sized(500_000)));
    within(async {
        assert!(futures::poll!(&mut wait).is_pending());
        ready(place);
        wait.await.unwrap();
    });
    wait_to_be_killed()
}

#[test]
fn who_came_first_gets_memory_first_and_the_large_are_not_overtaken() {
    let place = Place::new();
    let (segment, other) = (one_sector(&place), one_sector(&place));
    let allocator = segment.allocator();
    let mut held = all_of(&allocator);
    let order = std::sync::Mutex::new(Vec::new());
    within(async {
        let wait = |segment: &Segment, name: &'static str, bytes: usize| {
            let (allocator, order) = (segment.allocator(), &order);
            async move {
                let block = allocator.allocate_when_free(sized(bytes)).await.unwrap();
                order.lock().unwrap().push(name);
                // Given back at once, so that the next one has its turn.
                drop(block);
            }
        };
        let free = async {
            while !held.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
                // In an order that leaves small gaps first.
                held.swap_remove(held.len() / 2);
            }
        };
        // They come one after the other, in two participants.
        let waits = futures::future::join_all([
            Box::pin(wait(&segment, "large", 100_000)) as std::pin::Pin<Box<dyn Future<Output = ()>>>,
            Box::pin(wait(&other, "small", 3000)),
            Box::pin(wait(&segment, "smaller", 1000)),
        ]);
        tokio::join!(waits, free);
    });
    assert_eq!(order.into_inner().unwrap(), ["large", "small", "smaller"]);
    assert_empty(&segment);
}

#[test]
fn who_gives_up_waiting_for_memory_holds_up_nobody() {
    let segment = Segment::options().size(1 << 20).sectors(0, 1, 0).in_process().unwrap();
    let allocator = segment.allocator();
    let mut held = all_of(&allocator);
    within(async {
        for _ in 0..100 {
            let first = allocator.allocate_when_free(sized(200_000));
            let second = allocator.allocate_when_free(sized(2500));
            let mut second = std::pin::pin!(second);
            // The first one is in front, and goes.
            assert!(tokio::time::timeout(Duration::from_micros(200), first).await.is_err());
            assert!(futures::poll!(&mut second).is_pending());
            held.pop();
            held.push(second.await.unwrap());
        }
        let impossible = allocator.allocate_when_free(sized(2 << 20)).await;
        assert!(matches!(impossible, Err(AllocError::TooLarge { .. })));
    });
}

#[test]
fn a_process_that_is_killed_or_stopped_in_the_line_holds_up_nobody() {
    const TEST: &str = "a_process_that_is_killed_or_stopped_in_the_line_holds_up_nobody";
    let place = Place::new();
    let segment = one_sector(&place);
    let allocator = segment.allocator();
    if role().is_some() {
        wait_in_line(&place, &allocator);
    }
    for signal in [libc::SIGKILL, libc::SIGSTOP] {
        let mut held = all_of(&allocator);
        let child = place.spawn(TEST, "wait");
        wait_until_ready(&place, &child);
        // SAFETY: a plain system call on a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(child.pid() as libc::pid_t, signal) }, 0);
        within(async {
            let wait = allocator.allocate_when_free(sized(2500));
            let mut wait = std::pin::pin!(wait);
            assert!(futures::poll!(&mut wait).is_pending());
            held.pop();
            wait.await.unwrap();
        });
        child.kill();
        segment.bury_the_dead();
        drop(held);
        assert_empty(&segment);
    }
}

#[test]
fn what_was_free_before_the_first_in_line_was_stopped_is_had_by_the_next() {
    const TEST: &str = "what_was_free_before_the_first_in_line_was_stopped_is_had_by_the_next";
    const WAITERS: usize = 100;
    let place = Place::new();
    let segment = one_sector(&place);
    let allocator = segment.allocator();
    if role().is_some() {
        wait_in_line(&place, &allocator);
    }
    let mut held = all_of(&allocator);
    let child = place.spawn(TEST, "wait");
    wait_until_ready(&place, &child);
    // It learns of this, finds that it is too little, and waits on. Nobody frees anything after that, but who has waited.
    held.pop();
    thread::sleep(Duration::from_millis(100));
    // SAFETY: a plain system call on a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(child.pid() as libc::pid_t, libc::SIGSTOP) }, 0);
    let started = Instant::now();
    within(futures::future::join_all((0..WAITERS).map(|_| async {
        // Given back at once, so that the next one has its turn.
        drop(allocator.allocate_when_free(sized(2500)).await.unwrap());
    })));
    // The first of them looks with every tick of the watchdog, however many there are.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    child.kill();
    segment.bury_the_dead();
    drop(held);
    assert_empty(&segment);
}

#[test]
fn who_has_been_woken_and_has_not_tried_yet_keeps_its_place() {
    let place = Place::new();
    let (segment, other) = (one_sector(&place), one_sector(&place));
    let allocator = segment.allocator();
    let mut held = all_of(&allocator);
    let order = std::sync::Mutex::new(Vec::new());
    within(async {
        let wait = |segment: &Segment, name: &'static str, bytes: usize| {
            let (allocator, order) = (segment.allocator(), &order);
            async move {
                let block = allocator.allocate_when_free(sized(bytes)).await.unwrap();
                order.lock().unwrap().push(name);
                drop(block);
            }
        };
        let mut large = std::pin::pin!(wait(&segment, "large", 100_000));
        let mut small = std::pin::pin!(wait(&other, "small", 2500));
        assert!(futures::poll!(&mut large).is_pending());
        // The large one is notified, and waits no more; but it has not been polled since.
        held.pop();
        assert!(futures::poll!(&mut small).is_pending());
        assert!(futures::poll!(&mut large).is_pending());
        held.clear();
        tokio::join!(large, small);
    });
    assert_eq!(order.into_inner().unwrap(), ["large", "small"]);
    assert_empty(&segment);
}
