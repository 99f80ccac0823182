//! What a segment says of itself: numbers, checks, pages.

mod common;

use std::{fs::File, os::unix::fs::FileExt};

use common::{Place, in_process};
use waterway::segment::Stats;

fn held(stats: &Stats) -> (usize, usize) {
    let all = |of: fn(&waterway::segment::SectorReport) -> usize| stats.sectors.iter().map(of).sum();
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
    // In all, as in the sectors one by one.
    let sums = |of: fn(&waterway::segment::SectorReport) -> usize| received.sectors.iter().map(of).sum::<usize>();
    assert_eq!((received.bytes(), received.held_blocks()), (total, sums(|sector| sector.allocated_blocks)));
    assert_eq!(received.largest_free(), received.sectors.iter().map(|sector| sector.largest_free).max().unwrap());
    assert_eq!(received.fragmentation(), 0.0);
    assert!(sums(|sector| sector.cached_blocks) > 0 && sums(|sector| sector.cached_bytes) > 0);
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
        let broken = (0..50).map(|_| segment.check_live()).find(|report| !report.is_clean());
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(broken, None);
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

fn file_of(place: &Place, name: &str) -> File {
    File::options().read(true).write(true).open(place.path().join(name)).unwrap()
}

/// Where the words of a sector begin in a segment's file.
fn words_of(file: &File, sector: usize) -> u64 {
    let mut header = [0; 392];
    file.read_exact_at(&mut header, 0).unwrap();
    // The table of sectors: granule as the power of two, most, first, words, maps, length of the maps, data.
    let field = |index: usize| {
        let at = 224 + sector * 56 + index * 8;
        u64::from_ne_bytes(header[at..at + 8].try_into().unwrap())
    };
    assert_eq!(1 << field(0), [64, 1024, 65536][sector]);
    field(3)
}

/// Overwrites the words of a sector, as somebody would who runs wild.
fn damage(place: &Place, name: &str, sector: usize) {
    let file = file_of(place, name);
    file.write_all_at(&[0xFF; 80], words_of(&file, sector) + 8).unwrap();
}

/// Replaces the one word of the file from `start` on that fits by what `to` makes of it; returns where it is, and what it was.
fn replace(file: &File, start: u64, fits: impl Fn(u64) -> bool, to: impl Fn(u64) -> u64) -> (u64, u64) {
    let mut bytes = vec![0; (file.metadata().unwrap().len() - start) as usize];
    file.read_exact_at(&mut bytes, start).unwrap();
    let words = bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap()));
    let (index, word) = words.enumerate().find(|(_, word)| fits(*word)).unwrap();
    let at = start + index as u64 * 8;
    file.write_all_at(&to(word).to_ne_bytes(), at).unwrap();
    (at, word)
}

#[test]
fn a_check_compares_words_with_rings_and_lanes() {
    let place = Place::new();
    let segment = place.options().size(4 << 20).participants(8).create("compared").unwrap();
    let (sender, receiver) = segment.bytes("bytes").open().unwrap();
    sender.try_send([7; 3000]).unwrap();
    assert!(segment.check().is_clean());
    let file = file_of(&place, "compared");
    let words = words_of(&file, 1);
    let is_in_flight = |word: u64| word >> 60 == 5;
    let (at, in_flight) = replace(&file, words, is_in_flight, |word| (word & !(0xF << 60)) | (3 << 60));
    let said = |expected: &[&str]| {
        let problems = segment.check().problems;
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        assert!(problems.iter().zip(expected).all(|(problem, expected)| problem.contains(expected)), "{problems:?}");
    };
    said(&["named by a cell of a ring, but what stands here is Allocated"]);
    // The lane of a participant that is not there.
    file.write_all_at(&((in_flight & !(0x3FFF << 46)) | (7 << 46)).to_ne_bytes(), at).unwrap();
    said(&["its owner is a lane that no participant has: InFlight"]);
    file.write_all_at(&in_flight.to_ne_bytes(), at).unwrap();
    assert!(segment.check().is_clean());
    // The cell, full in its first lap.
    let block = (1 << 30) | ((at - words) / 8);
    let (at, cell) = replace(&file, words, |word| word == (1 << 32) | block, |_| 0);
    said(&["on its way, and named by 0 cells of rings"]);
    file.write_all_at(&cell.to_ne_bytes(), at + 8).unwrap();
    file.write_all_at(&cell.to_ne_bytes(), at).unwrap();
    said(&["on its way, and named by 2 cells of rings"]);
    file.write_all_at(&[0; 8], at + 8).unwrap();
    assert!(segment.check().is_clean());
    assert!(receiver.try_recv().unwrap().iter().all(|byte| *byte == 7));
}

#[test]
fn a_damaged_sector_is_found_and_put_out_of_use_and_the_others_go_on() {
    for sector in 0..3 {
        let place = Place::new();
        let segment = place.options().size(8 << 20).participants(8).create("damaged").unwrap();
        let other = place.options().open("damaged").unwrap();
        damage(&place, "damaged", sector);
        assert!(!segment.check_live().is_clean());
        let report = segment.quarantine();
        assert!(!report.is_clean());
        assert!((0..3).all(|index| report.sectors[index].quarantined == (index == sector)), "{report:?}");
        // Everybody sees it, and goes on with what there is.
        assert!(other.check().is_clean() && other.check().sectors[sector].quarantined);
        let (sender, receiver) = (other.bytes("bytes").sender().unwrap(), segment.bytes("bytes").receiver().unwrap());
        for round in 0..500 {
            for len in [10, 3000, 40_000] {
                sender.try_send(vec![round as u8; len]).unwrap();
                let message = receiver.try_recv().unwrap();
                assert!(message.len() == len && message.iter().all(|byte| *byte == round as u8));
            }
        }
        drop((sender, receiver));
        let report = segment.check();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(segment.stats().held_bytes(), 0);
    }
}

#[test]
fn a_persistent_segment_that_is_opened_alone_is_checked() {
    let place = Place::new();
    drop(place.options().size(4 << 20).participants(8).persistent(true).create("kept").unwrap());
    damage(&place, "kept", 1);
    let segment = place.options().open("kept").unwrap();
    assert!(segment.check().is_clean());
    assert_eq!(segment.check().sectors.map(|sector| sector.quarantined), [false, true, false]);
}
