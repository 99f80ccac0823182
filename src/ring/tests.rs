//! The ring on heap memory: edges, laps, and threads.

use std::sync::atomic::AtomicBool;

use super::*;

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
