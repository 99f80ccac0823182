//! What a segment says of itself: numbers, checks, pages.

mod common;

use common::Place;
use waterway::{Segment, Stats};

fn in_process() -> Segment {
    Segment::options().size(4 << 20).in_process().unwrap()
}

fn held(stats: &Stats) -> (usize, usize) {
    let all = |of: fn(&waterway::SectorReport) -> usize| stats.sectors.iter().map(of).sum();
    (all(|sector| sector.allocated_bytes), all(|sector| sector.in_flight_bytes))
}

#[test]
fn bytes_are_counted_where_they_are() {
    let segment = in_process();
    let empty = segment.stats();
    let total: usize = empty.sectors.iter().map(|sector| sector.bytes).sum();
    assert_eq!((held(&empty), empty.free_bytes(), empty.held_bytes()), ((0, 0), total, 0));
    assert!(empty.sectors.iter().all(|sector| sector.fragmentation() == 0.0));
    let (sender, receiver) = segment.bytes("bytes").open().unwrap();
    let with_ring = segment.stats().held_bytes();
    sender.try_send(vec![1; 1000]).unwrap();
    let sent = segment.stats();
    assert!((1016..=1280).contains(&held(&sent).1), "{sent:?}");
    let message = receiver.try_recv().unwrap();
    let received = segment.stats();
    assert_eq!(held(&received), (with_ring + held(&sent).1, 0));
    drop((message, sender, receiver));
    let after = segment.stats();
    assert_eq!((held(&after), after.free_bytes()), ((0, 0), total));
}

#[test]
fn what_was_done_is_counted() {
    let segment = in_process();
    let (sender, receiver) = segment.bytes("bytes").open().unwrap();
    for _ in 0..1000 {
        sender.try_send([1; 40]).unwrap();
        drop(receiver.try_recv().unwrap());
    }
    let stats = segment.stats();
    assert!(stats.cache_hits >= 1000, "{stats:?}");
    assert!(stats.cache_hit_rate() > 0.95, "{stats:?}");
    assert!(stats.splits > 0);
    assert_eq!((stats.growths, stats.memory_waits), (0, 0));
    // Blocks that no magazine takes are divided and joined.
    sender.try_send(vec![1; 5000]).unwrap();
    drop(receiver.try_recv().unwrap());
    let later = segment.stats();
    assert!(later.splits > stats.splits && later.merges > stats.merges, "{stats:?} {later:?}");
}

#[test]
fn a_check_beside_others_at_work_finds_nothing_that_is_only_work() {
    let segment = in_process();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (segment, stop) = (&segment, &stop);
            scope.spawn(move || {
                let (sender, receiver) = segment.bytes(&format!("own-{thread}")).open().unwrap();
                let mut len = 1;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    len = len * 7919 % 20_011;
                    sender.try_send(vec![2; len]).unwrap();
                    drop(receiver.try_recv().unwrap());
                }
            });
        }
        for _ in 0..50 {
            let report = segment.check_live();
            assert!(report.is_clean(), "{report:?}");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(segment.check().is_clean());
}

#[test]
fn huge_pages_and_populating_are_wishes_that_change_nothing_else() {
    let place = Place::new();
    let options = || place.options().size(8 << 20).huge_pages(true).populate(true);
    for segment in [
        options().create("huge").unwrap(),
        options().anonymous().unwrap(),
        options().in_process().unwrap(),
        place.options().size(1 << 20).max_size(32 << 20).huge_pages(true).populate(true).create("grows").unwrap(),
    ] {
        let (sender, receiver) = segment.bytes("bytes").open().unwrap();
        sender.try_send(vec![3; 200_000]).unwrap();
        assert!(receiver.try_recv().unwrap().iter().all(|byte| *byte == 3));
        // What the kernel gave is its own business; that it says so is not.
        if let Some(huge) = segment.huge_page_bytes() {
            assert!(huge <= 64 << 20, "{huge}");
        }
    }
}
