//! What the children do whose parents are in `crash_points.rs`.

use super::*;

/// Everything that one can do alone in a segment: fill it, empty it, wait for memory, close.
async fn housekeeping(segment: &Segment) {
    let (sender, receiver) = segment.bytes("own").capacity(300).open().unwrap();
    // Enough for hints to be raised and magazines to go round.
    let mut kept = Vec::new();
    for number in 0..140 {
        sender.try_send(Stamp { sender: 9, number }.message(100)).unwrap();
        if number % 3 == 0 {
            kept.push(receiver.recv().await.unwrap());
        }
    }
    drop(kept);
    while let Ok(message) = receiver.try_recv() {
        Stamp::verify(&message);
    }
    // Until there is no memory.
    let mut number = 0;
    for _ in 0..200 {
        let len = [30_000, 3_000, 90_000][number as usize % 3];
        if sender.try_send(Stamp { sender: 9, number }.message(len)).is_err() {
            break;
        }
        number += 1;
    }
    let mut held = Vec::new();
    for _ in 0..number / 2 {
        held.push(receiver.recv().await.unwrap());
    }
    let big = Stamp { sender: 8, number: 0 }.message(250_000);
    futures::join!(async { sender.send(big).await.unwrap() }, async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        drop(std::mem::take(&mut held));
        while let Some(message) = receiver.recv().await {
            if Stamp::verify(&message).unwrap().sender == 8 {
                break;
            }
        }
    });
    let numbers = segment.channel::<u64>("numbers").open().unwrap();
    numbers.0.send(5).await.unwrap();
    numbers.0.send(6).await.unwrap();
    assert_eq!(*numbers.1.recv().await.unwrap(), 5);
    receiver.close();
    assert!(sender.try_send([1]).is_err());
}

/// A segment of its own, made and left.
fn found_another(place: &Place) {
    let options = || place.options().size(256 << 10).participants(2).channels(2);
    let first = options().open_or_create("another").unwrap();
    let ends = first.bytes("x").open().unwrap();
    ends.0.try_send([1]).unwrap();
    let second = options().open("another").unwrap();
    drop(first);
    drop((ends, second));
}

/// The script beside a parent that talks: see `Scene::round`.
pub(super) fn converse(place: &Place) {
    within(async {
        let segment = open(place);
        let up = segment.bytes("up").sender().unwrap();
        let down = segment.bytes("down").receiver().unwrap();
        for (number, size) in SIZES.iter().enumerate() {
            // An empty message has no stamp.
            let stamp = Stamp { sender: 1, number: number as u64 };
            up.send(stamp.message(*size)).await.unwrap();
            let answer = down.recv().await.unwrap();
            assert_eq!(answer.is_empty(), *size == 0);
            Stamp::verify(&answer);
        }
        let narrow = segment.bytes("narrow").sender().unwrap();
        for number in 0..4 {
            narrow.send(Stamp { sender: 1, number }.message(50)).await.unwrap();
        }
        let flood = segment.bytes("flood").receiver().unwrap();
        for expected in 0..8 {
            assert_eq!(Stamp::verify(&flood.recv().await.unwrap()), Some(Stamp { sender: 0, number: expected }));
        }
        drop(flood);
        let mine = up.clone();
        thread::spawn(move || {
            for number in 0..3 {
                mine.blocking_send(Stamp { sender: 2, number }.message(1000)).unwrap();
            }
        })
        .join()
        .unwrap();
        drop(narrow);
        housekeeping(&segment).await;
    });
    found_another(place);
    report();
}

/// The script beside a parent that sleeps: see `Scene::bury_a_reaper`.
pub(super) fn work_alone(place: &Place) {
    within(async {
        let segment = open(place);
        let letters = segment.bytes("letters").receiver().unwrap();
        let first = letters.recv().await.unwrap();
        let boxed = segment.bytes("box").sender().unwrap();
        for (number, size) in [60, 3_000, 100_000].into_iter().enumerate() {
            boxed.send(Stamp { sender: 1, number: number as u64 }.message(size)).await.unwrap();
        }
        let second = letters.recv().await.unwrap();
        housekeeping(&segment).await;
        drop((first, second));
    });
    report();
}

/// The script of a reaper: it comes, buries, and goes.
pub(super) fn visit(place: &Place) {
    drop(open(place));
    report();
}

/// The script of one who dies while another stands still: its burial meets what that one is in the middle of.
pub(super) fn fall(place: &Place) {
    let segment = open(place);
    // Who stands still may have taken all memory, which is its own then: what there is none for is not done.
    if let Ok(ends) = segment.bytes("fallen").open() {
        for number in 0..3 {
            let _ = ends.0.try_send(Stamp { sender: 7, number }.message(1_500));
        }
        let _held = ends.1.try_recv();
        signal(std::process::id(), libc::SIGKILL);
    }
    signal(std::process::id(), libc::SIGKILL);
}

/// The script of one who opens both ends of a channel at once.
pub(super) fn open_both(place: &Place) {
    let segment = open(place);
    let (sender, _receiver) = segment.bytes("both").open().unwrap();
    sender.try_send(Stamp { sender: 1, number: 0 }.message(100)).unwrap();
    std::fs::write(place.path().join("sent"), []).unwrap();
    eventually("we are released", || place.path().join("release").exists());
    report();
}
