//! Messages between real processes: nothing lost, nothing twice, nothing damaged, and in order.

mod common;

use std::collections::HashMap;

use common::{Place, Random, Stamp, role, within};
use waterway::Segment;

const SENDERS: u32 = 4;
const RECEIVERS: u32 = 4;

fn each() -> u64 {
    // A million messages in all.
    1_000_000 / u64::from(SENDERS)
}

/// Mostly short, some empty, and now and then up to 100 kB.
fn length(random: &mut Random) -> usize {
    match random.below(1000) {
        0 => 20_000 + random.below(80_001),
        1..=20 => 1000 + random.below(8000),
        21..=60 => 0,
        _ => 1 + random.below(300),
    }
}

#[derive(Default)]
struct Seen {
    /// Per sender: how many, the last number, and the sum of the numbers.
    senders: HashMap<u32, (u64, u64, u64)>,
    empty: u64,
}

/// Four senders and four receivers in eight processes, a million messages of 0 to 100 000 bytes.
#[test]
fn a_million_messages_between_eight_processes_arrive_once_whole_and_in_order() {
    const TEST: &str = "a_million_messages_between_eight_processes_arrive_once_whole_and_in_order";
    let place = Place::new();
    let segment = place.options().size(32 << 20).open_or_create("million").unwrap();
    match role().as_deref().and_then(|role| role.split_once(' ')) {
        Some(("send", number)) => return send(&segment, number.parse().unwrap()),
        Some(("receive", number)) => return receive(&segment, number.parse().unwrap()),
        _ => {}
    }
    // The parent has a sender until all senders are there, and reads what the receivers have seen.
    let hold = segment.bytes("data").capacity(256).sender().unwrap();
    let hold_receiver = segment.bytes("data").receiver().unwrap();
    let results = segment.bytes("results").receiver().unwrap();
    let hold_results = segment.bytes("results").sender().unwrap();
    let receivers: Vec<_> = (0..RECEIVERS).map(|number| place.spawn(TEST, &format!("receive {number}"))).collect();
    let senders: Vec<_> = (0..SENDERS).map(|number| place.spawn(TEST, &format!("send {number}"))).collect();
    senders.into_iter().for_each(common::Process::succeed);
    drop(hold);
    receivers.into_iter().for_each(common::Process::succeed);
    drop((hold_results, hold_receiver));

    let mut total: HashMap<u32, (u64, u64)> = HashMap::new();
    let mut empty = 0;
    within(async {
        while let Some(result) = results.recv().await {
            let text = std::str::from_utf8(&result).unwrap().to_owned();
            for line in text.lines() {
                let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
                if numbers[0] == u64::MAX {
                    empty += numbers[1];
                    continue;
                }
                let sender = total.entry(numbers[0] as u32).or_default();
                sender.0 += numbers[1];
                sender.1 += numbers[2];
            }
        }
    });
    let stamped: u64 = total.values().map(|(count, _)| count).sum();
    assert_eq!(stamped + empty, each() * u64::from(SENDERS), "messages were lost or doubled");
    for sender in 0..SENDERS {
        let (count, sum) = sent_by(sender);
        assert_eq!(total[&sender], (count, sum), "messages of sender {sender}");
    }
    drop(results);
    let report = segment.check();
    assert!(report.is_clean(), "{report:?}");
    let held: usize = report.sectors.iter().map(|sector| sector.allocated_blocks + sector.in_flight_blocks).sum();
    assert_eq!(held, 0, "memory leaked: {report:?}");
}

/// What a sender sends: how many that are not empty, and the sum of their numbers.
fn sent_by(sender: u32) -> (u64, u64) {
    let mut random = Random::new(u64::from(sender) + 1);
    let (mut count, mut sum) = (0, 0);
    for number in 0..each() {
        if length(&mut random) > 0 {
            count += 1;
            sum += number;
        }
    }
    (count, sum)
}

fn send(segment: &Segment, sender: u32) {
    let data = segment.bytes("data").sender().unwrap();
    let mut random = Random::new(u64::from(sender) + 1);
    within(async {
        for number in 0..each() {
            let len = length(&mut random);
            data.send(Stamp { sender, number }.message(len)).await.unwrap();
        }
    });
}

fn receive(segment: &Segment, _: u32) {
    let data = segment.bytes("data").receiver().unwrap();
    let results = segment.bytes("results").sender().unwrap();
    let mut seen = Seen::default();
    within(async {
        let mut kept = Vec::new();
        while let Some(message) = data.recv().await {
            match Stamp::verify(&message) {
                None => seen.empty += 1,
                Some(stamp) => {
                    let sender = seen.senders.entry(stamp.sender).or_default();
                    assert!(sender.0 == 0 || sender.1 < stamp.number, "{stamp:?} came after {}", sender.1);
                    *sender = (sender.0 + 1, stamp.number, sender.2 + stamp.number);
                }
            }
            // Some are kept for a while, and given back in another order.
            if message.len() % 7 == 1 {
                kept.push(message);
                if kept.len() > 20 {
                    kept.swap_remove(kept.len() / 2);
                }
            }
        }
        let mut text = format!("{} {}", u64::MAX, seen.empty);
        for (sender, (count, _, sum)) in &seen.senders {
            text += &format!("\n{sender} {count} {sum}");
        }
        results.send(text).await.unwrap();
    });
}

#[test]
fn a_channel_of_one_passes_every_message_between_processes() {
    const TEST: &str = "a_channel_of_one_passes_every_message_between_processes";
    let place = Place::new();
    let segment = place.options().size(4 << 20).open_or_create("one").unwrap();
    if role().is_some() {
        let numbers = segment.channel::<u64>("numbers").sender().unwrap();
        within(async {
            for number in 0..20_000 {
                numbers.send(number).await.unwrap();
            }
        });
        return;
    }
    let numbers = segment.channel::<u64>("numbers").capacity(1).receiver().unwrap();
    assert_eq!(numbers.max_capacity(), 1);
    let child = place.spawn(TEST, "send");
    within(async {
        for number in 0..20_000 {
            assert!(numbers.len() <= 1);
            assert_eq!(numbers.recv().await.unwrap().into_inner(), number);
        }
        assert!(numbers.recv().await.is_none());
    });
    child.succeed();
}

#[test]
fn positions_wrap_around_between_processes() {
    const TEST: &str = "positions_wrap_around_between_processes";
    let place = Place::new();
    let segment = place.options().size(4 << 20).open_or_create("wrap").unwrap();
    // 256 cells: the tag's lap wraps around after 2^31 laps.
    let start = 256 * ((1_u64 << 31) - 3);
    if role().is_some() {
        let numbers = segment.channel::<u64>("numbers").sender().unwrap();
        within(async {
            for number in 0..50_000 {
                numbers.send(number).await.unwrap();
            }
        });
        return;
    }
    let numbers = segment.channel::<u64>("numbers").capacity(100).first_sequence(start).receiver().unwrap();
    let child = place.spawn(TEST, "send");
    within(async {
        for number in 0..50_000 {
            let message = numbers.recv().await.unwrap();
            assert_eq!((*message, message.sequence()), (number, start + number));
        }
        assert!(numbers.recv().await.is_none());
    });
    child.succeed();
}

#[test]
fn select_that_cancels_again_and_again_loses_nothing_between_processes() {
    const TEST: &str = "select_that_cancels_again_and_again_loses_nothing_between_processes";
    let place = Place::new();
    let segment = place.options().size(4 << 20).open_or_create("select").unwrap();
    if role().is_some() {
        let numbers = segment.channel::<u64>("numbers").sender().unwrap();
        let mut random = Random::new(7);
        within(async {
            for number in 0..20_000_u64 {
                loop {
                    let patience = std::time::Duration::from_micros(random.below(60) as u64);
                    tokio::select! {
                        biased;
                        sent = numbers.send(number) => break sent.unwrap(),
                        () = tokio::time::sleep(patience) => {}
                    }
                }
            }
        });
        return;
    }
    let numbers = segment.channel::<u64>("numbers").capacity(2).receiver().unwrap();
    let child = place.spawn(TEST, "send");
    let mut random = Random::new(8);
    within(async {
        let mut expected = 0;
        while expected < 20_000 {
            let patience = std::time::Duration::from_micros(random.below(60) as u64);
            tokio::select! {
                biased;
                message = numbers.recv() => {
                    assert_eq!(message.unwrap().into_inner(), expected);
                    expected += 1;
                }
                () = tokio::time::sleep(patience) => {}
            }
        }
        assert!(numbers.recv().await.is_none());
    });
    child.succeed();
}

#[test]
fn twenty_processes_open_the_same_segment_and_channel_at_once() {
    const TEST: &str = "twenty_processes_open_the_same_segment_and_channel_at_once";
    let place = Place::new();
    if let Some(role) = role() {
        // Come together at a file that the parent makes.
        common::eventually("the start", || place.path().join("go").exists());
        let segment = place.options().size(4 << 20).open_or_create("twenty").unwrap();
        let ids = segment.channel::<u128>("ids").sender().unwrap();
        within(ids.send(segment.id().as_u128())).unwrap();
        // Stay until everybody has been heard.
        common::eventually("the end", || place.path().join("done").exists());
        drop(role);
        return;
    }
    let children: Vec<_> = (0..20).map(|number| place.spawn(TEST, &format!("{number}"))).collect();
    std::thread::sleep(std::time::Duration::from_millis(200));
    std::fs::write(place.path().join("go"), "").unwrap();
    let segment = place.options().size(4 << 20).open_or_create("twenty").unwrap();
    let ids = segment.channel::<u128>("ids").receiver().unwrap();
    within(async {
        for _ in 0..20 {
            assert_eq!(ids.recv().await.unwrap().into_inner(), segment.id().as_u128());
        }
    });
    assert_eq!(segment.channels().len(), 1, "one name, one channel");
    assert_eq!(segment.participants().len(), 21);
    std::fs::write(place.path().join("done"), "").unwrap();
    children.into_iter().for_each(common::Process::succeed);
    drop((ids, segment));
    assert!(place.options().list().unwrap().is_empty(), "the last one out removes the segment");
}
