//! The ring on heap memory: edges, laps, and threads.

use std::sync::atomic::AtomicBool;

use super::{
    ground::{block_of, lane},
    transfer::Verdict,
    *,
};
use crate::{
    alloc::word::{State, Word},
    region::lanes::{Intent, LaneId},
};

fn ring(cells: usize, capacity: u64, start: u64) -> Ring {
    let cells = SharedSlice::leak((0..cells).map(|_| AtomicU64::new(0)).collect());
    let ring = Ring::new(
        cells,
        capacity,
        SharedRef::leak(AtomicU64::new(0)),
        SharedRef::leak(AtomicU64::new(0)),
        Permits::leak(2),
    );
    ring.format(start);
    ring
}

fn take(ring: &Ring, private: &Position) -> Option<(u64, BlockId)> {
    loop {
        let front = ring.front(private)?;
        if ring.take(private, front) {
            return Some((front.position(), front.block()));
        }
    }
}

/// The last positions before the tags wrap around, and before a 64-bit position would look like another.
const STARTS: [u64; 4] = [0, 4 * ((1 << 31) - 1), 4 * ((1 << 32) - 1), 4 * ((1 << 32) - 1) + 3];

#[test]
fn what_goes_in_comes_out_in_order_on_every_lap() {
    for start in STARTS {
        for capacity in 1..=4 {
            let ring = ring(4, capacity, start);
            let (sender, receiver) = (Position::new(ring.tail_hint()), Position::new(ring.head_hint()));
            for round in 0..100_u64 {
                let filled = capacity.min(1 + round % 4);
                for item in 0..filled {
                    assert_eq!(ring.len(), item);
                    assert!(ring.push(&sender, BlockId(item as u32), || true).is_some());
                }
                if filled == capacity {
                    assert_eq!(ring.push(&sender, BlockId(77), || true), None, "capacity {capacity}");
                    assert_eq!(ring.push(&Position::new(ring.tail_hint()), BlockId(77), || true), None);
                }
                for item in 0..filled {
                    assert_eq!(take(&ring, &receiver).unwrap().1, BlockId(item as u32));
                }
                assert_eq!(take(&ring, &receiver), None);
                assert_eq!(take(&ring, &Position::new(ring.head_hint())), None);
            }
        }
    }
}

#[test]
fn handles_that_slept_for_laps_find_their_place() {
    for start in STARTS {
        let ring = ring(4, 4, start);
        let (sleepy_sender, sleepy_receiver) = (Position::new(start), Position::new(start));
        let (sender, receiver) = (Position::new(start), Position::new(start));
        for sent in 0..1000_u64 {
            assert_eq!(ring.push(&sender, BlockId(1), || true), Some(start + sent));
            assert_eq!(take(&ring, &receiver), Some((start + sent, BlockId(1))));
        }
        assert_eq!(take(&ring, &sleepy_receiver), None);
        assert_eq!(ring.push(&sleepy_sender, BlockId(2), || true), Some(start + 1000));
        assert_eq!(take(&ring, &sleepy_receiver), Some((start + 1000, BlockId(2))));
    }
}

#[test]
fn garbage_in_the_cells_ends_every_search() {
    for tag in [0, 1, 2, 3, 77, 1 << 31, u32::MAX, u32::MAX - 1] {
        let ring = ring(8, 5, 0);
        for cell in ring.cells.iter() {
            cell.store(u64::from(tag) << 32 | 0xdead, Ordering::Relaxed);
        }
        let (sender, receiver) = (Position::new(0), Position::new(0));
        for _ in 0..20 {
            ring.push(&sender, BlockId(1), || true);
            take(&ring, &receiver);
            assert!(ring.len() <= 5);
        }
    }
}

#[test]
fn threads_neither_lose_nor_double_nor_reorder() {
    const EACH: u32 = 100_000;
    for (cells, capacity, start) in [(4, 1, STARTS[1]), (4, 3, STARTS[2]), (256, 256, 256 * ((1 << 31) - 7))] {
        let ring = ring(cells, capacity, start);
        let done = AtomicBool::new(false);
        let mut received: Vec<u32> = std::thread::scope(|scope| {
            let receivers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let private = Position::new(ring.head_hint());
                        let mut last = [0_u32; 2];
                        let mut all = Vec::new();
                        loop {
                            let finished = done.load(Ordering::Acquire);
                            while let Some((_, BlockId(item))) = take(&ring, &private) {
                                let sender = (item & 1) as usize;
                                assert!(last[sender] < item, "sender {sender} was reordered");
                                last[sender] = item;
                                all.push(item);
                            }
                            if finished {
                                return all;
                            }
                            std::thread::yield_now();
                        }
                    })
                })
                .collect();
            let senders: Vec<_> = (0..2)
                .map(|sender| {
                    scope.spawn(move || {
                        let private = Position::new(ring.tail_hint());
                        for item in 1..=EACH {
                            while ring.push(&private, BlockId(item << 1 | sender), || true).is_none() {
                                std::thread::yield_now();
                            }
                            assert!(ring.len() <= capacity);
                        }
                    })
                })
                .collect();
            senders.into_iter().for_each(|sender| sender.join().unwrap());
            done.store(true, Ordering::Release);
            receivers.into_iter().flat_map(|receiver| receiver.join().unwrap()).collect()
        });
        received.sort_unstable();
        let expected: Vec<u32> = (1..=EACH).flat_map(|item| [item << 1, item << 1 | 1]).collect();
        assert!(received == expected, "{} messages came out", received.len());
    }
}

/// A reaper is stopped in the middle of its looks, until the block has had all generations and has the very word again that it
/// had when the reaper began. What that word is about by then is not the reaper's.
#[test]
fn a_reaper_that_slept_through_all_generations_takes_nothing_from_the_living() {
    // At which of its looks: before the cells, after them, and last of all.
    for stopped_at in 0..3 {
        let ring = ring(4, 4, 0);
        let ((living, intents), (reaping, _)) = (lane(1), lane(3));
        let (allocator, block) = block_of(&living);
        let word = || allocator.sectors()[0].word(block.id.granule());
        let send = || {
            let private = Position::new(ring.tail_hint());
            transfer::send(&allocator, &ring, &private, &living, block, State::InFlight, || true).unwrap();
        };
        let receive = || {
            let private = Position::new(ring.head_hint());
            transfer::receive(&allocator, &ring, &private, &living, || panic!("damaged")).unwrap();
        };
        send();
        let before = word();
        let looks = std::cell::Cell::new(0);
        let turn = || {
            let look = looks.replace(looks.get() + 1);
            // In the hands of the living at the first look, which does not see it in a cell; on its way again afterwards.
            if look == 0 {
                receive();
            }
            if look == stopped_at {
                send();
                assert_eq!(word(), before);
            }
        };
        let is_named = || {
            turn();
            intents.intent() != Intent::None
        };
        let in_ring = || {
            let mut found = false;
            ring.blocks(|id| found |= id == block.id);
            turn();
            found
        };
        let verdict = transfer::judge(&allocator, &reaping, block.id, block.generation, is_named, in_ring);
        assert_eq!(verdict, Verdict::Settled);
        let private = Position::new(ring.head_hint());
        assert!(transfer::receive(&allocator, &ring, &private, &reaping, || panic!("damaged")).is_some());
    }
}

#[test]
fn a_reaper_takes_what_is_in_nobodys_hands_and_leaves_what_somebody_names() {
    let ((dead, _), (reaping, _)) = (lane(1), lane(3));
    let (allocator, block) = block_of(&dead);
    let word = || allocator.sectors()[0].word(block.id.granule());
    let judge = |generation, is_named: &dyn Fn() -> bool, in_ring: &dyn Fn() -> bool| {
        transfer::judge(&allocator, &reaping, block.id, generation, is_named, in_ring)
    };
    let generation = block.generation;
    // It is not on its way.
    assert_eq!(judge(generation, &|| false, &|| false), Verdict::Settled);
    allocator.set_state(State::InFlight, dead.id(), block);
    let flight = word();
    // That was another flight.
    assert_eq!(judge(generation + 1, &|| false, &|| false), Verdict::Settled);
    assert_eq!(judge(generation, &|| true, &|| false), Verdict::Busy);
    assert_eq!(judge(generation, &|| false, &|| true), Verdict::Settled);
    assert_eq!(word(), flight);
    // Somebody whom the first look has missed: the mark is taken off, and names nobody.
    let looks = std::cell::Cell::new(0);
    let names = || looks.replace(looks.get() + 1) > 1;
    assert_eq!(judge(generation, &names, &|| false), Verdict::Busy);
    assert_eq!(word(), flight.owned_by(LaneId::NOBODY));
    let mark = flight.owned_by(LaneId(3));
    assert_eq!(judge(generation, &|| false, &|| false), Verdict::Left(mark));
    assert_eq!(word(), mark);
    // Whoever takes it after all takes it from the reaper.
    allocator.set_allocated(LaneId(5), block);
    assert!(!allocator.sectors()[0].replace(block.id.granule(), mark, Word::claimed(LaneId(3), 1, generation)));
}

/// What stood in its word when somebody looked may be the message of another channel by now, with the same word.
#[test]
fn a_message_without_a_place_is_taken_only_for_its_own_channel() {
    let ((mine, _), (other, _)) = (lane(1), lane(2));
    let (allocator, block) = block_of(&mine);
    let word = || allocator.sectors()[0].word(block.id.granule());
    allocator.set_state(State::Returned, LaneId::NOBODY, block);
    let returned = word();
    assert_eq!(transfer::take_returned(&allocator, &mine, block.id, returned, || false), None);
    assert_eq!(word(), returned);
    let taken = transfer::take_returned(&allocator, &mine, block.id, returned, || true).unwrap();
    assert_eq!((taken, word()), (returned.owned_by(LaneId(1)), taken));
    assert_eq!(transfer::take_returned(&allocator, &other, block.id, returned, || true), None);
    // Killed there, it is as before: somebody else takes it over.
    assert!(transfer::take_returned(&allocator, &other, block.id, taken, || true).is_some());
}
