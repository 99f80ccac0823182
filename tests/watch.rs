//! Watches: as tokio's, between processes; values are whole, whoever is killed, and their memory comes back.

mod common;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use common::{
    PATIENCE, Place, Random, Stamp, assert_empty, eventually, held, in_process, ready, role, two, wait_to_be_killed,
    wait_until_ready, within,
};
use waterway::{OpenError, Segment, channel::SendErrorKind, segment::ChannelKind, watch};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, TryFromBytes};

fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn the_latest_value_is_seen_as_in_tokio() {
    let segment = in_process();
    let (sender, mut receiver) = segment.watch::<u64>("limit").initial(7).open().unwrap();
    assert_eq!((*receiver.borrow(), receiver.has_changed()), (7, Ok(false)));
    assert!(poll(pin!(receiver.changed())).is_pending());
    for value in 1..=3 {
        sender.send(value).unwrap();
    }
    assert!(receiver.has_changed().unwrap() && receiver.borrow().has_changed());
    // Looking is not seeing.
    assert_eq!((*receiver.borrow(), *receiver.borrow()), (3, 3));
    assert_eq!(poll(pin!(receiver.changed())), Poll::Ready(Ok(())));
    assert!(poll(pin!(receiver.changed())).is_pending());
    sender.send(4).unwrap();
    let mut second = receiver.clone();
    let third = sender.subscribe();
    assert!(receiver.borrow_and_update().has_changed() && !receiver.borrow_and_update().has_changed());
    assert!(second.has_changed().unwrap() && !third.has_changed().unwrap());
    second.mark_unchanged();
    assert!(!second.has_changed().unwrap());
    second.mark_changed();
    assert!(second.has_changed().unwrap());
    assert_eq!(*sender.send_replace(5).unwrap(), 4);
    sender.send_modify(|value| *value += 1).unwrap();
    assert!(!sender.send_if_modified(|value| std::mem::replace(value, 9) == 0).unwrap());
    assert!(sender.send_if_modified(|value| std::mem::replace(value, 8) == 6).unwrap());
    assert_eq!((*sender.borrow(), *third.borrow()), (8, 8));
    assert!(sender.same_channel(&sender.clone()) && receiver.same_channel(&third));
    assert_eq!((sender.sender_count(), sender.receiver_count(), receiver.sender_count()), (1, 1, 1));
    drop((sender, receiver, second, third));
    assert_empty(&segment);
    assert!(segment.channels().is_empty());
}

#[test]
fn a_value_that_is_read_stays_as_it_is_while_others_are_sent() {
    let (_place, one, other) = two();
    let sender = one.watch::<[u8]>("text").initial("first").sender().unwrap();
    let receiver = other.watch::<[u8]>("text").receiver().unwrap();
    let mut kept = vec![("first".to_owned(), receiver.borrow())];
    for number in 0..100 {
        let text = format!("{number}").repeat(number);
        sender.send(&text).unwrap();
        kept.push((text, receiver.borrow()));
        if number % 3 == 0 {
            kept.push(kept[number / 2].clone());
        }
    }
    assert_eq!(&*receiver.borrow(), "99".repeat(99).as_bytes());
    drop((sender, receiver));
    // They outlive the watch.
    let reading = move || kept.into_iter().for_each(|(text, value)| assert_eq!(&*value, text.as_bytes()));
    thread::spawn(reading).join().unwrap();
    assert!(one.watch::<[u8]>("text").receiver().unwrap().borrow().is_empty());
    assert_empty(&one);
}

#[test]
fn what_is_not_looked_at_any_more_is_free() {
    let segment = in_process();
    let (sender, receiver) = segment.watch::<[u8]>("film").open().unwrap();
    for _ in 0..100 {
        // Half of the segment; there is never room for more than the two that are kept.
        sender.send(vec![1; 200_000]).unwrap();
        receiver.borrow();
    }
    let with_two = held(&segment);
    for _ in 0..100 {
        sender.send([]).unwrap();
        receiver.borrow();
    }
    assert!(held(&segment) + 150_000 < with_two);
    // Nothing is in the way of who sends more than there is memory for, and nothing is lost by it.
    let mut kept = Vec::new();
    let error = loop {
        match sender.send(vec![2; 100_000]) {
            Ok(()) => kept.push(receiver.borrow()),
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), error.into_inner().len()), (SendErrorKind::OutOfMemory, 100_000));
    assert!(receiver.borrow()[..] == [2; 100_000]);
    kept.clear();
    sender.send(vec![3; 100_000]).unwrap();
    let error = sender.send(vec![4; 1 << 30]).unwrap_err();
    assert!(matches!(error.kind(), SendErrorKind::TooLarge { .. }));
    assert_eq!(segment.allocator().blocks().count(), 0);
    drop((sender, receiver));
    assert_empty(&segment);
}

#[test]
fn ends_close_and_open_again_as_others_come_and_go() {
    let (_place, one, other) = two();
    let sender = one.watch::<u64>("limit").sender().unwrap();
    // Nobody has come yet.
    assert!(!sender.is_closed());
    sender.send(1).unwrap();
    let mut receiver = other.watch::<u64>("limit").receiver().unwrap();
    assert_eq!((*receiver.borrow(), receiver.has_changed()), (1, Ok(false)));
    sender.send(2).unwrap();
    drop(sender);
    // What was sent last is seen, and then the end.
    assert_eq!(receiver.has_changed(), Err(watch::RecvError));
    assert_eq!(within(receiver.changed()), Ok(()));
    assert_eq!(within(receiver.changed()), Err(watch::RecvError));
    assert_eq!(within(receiver.wait_for(|value| *value == 2)).map(|value| *value).ok(), Some(2));
    assert_eq!(within(receiver.wait_for(|value| *value == 3)).map(|value| *value).err(), Some(watch::RecvError));
    assert_eq!(*receiver.borrow(), 2);
    let sender = one.watch::<u64>("limit").sender().unwrap();
    assert_eq!((receiver.has_changed(), *sender.borrow()), (Ok(false), 2));
    drop(receiver);
    within(sender.closed());
    let error = sender.send(3).unwrap_err();
    assert_eq!((error.is_closed(), error.into_inner()), (true, 3));
    assert_eq!(*sender.borrow(), 2);
    assert_eq!(*sender.send_replace(4).unwrap(), 2);
    let receiver = sender.subscribe();
    assert!(!sender.is_closed());
    assert_eq!(*receiver.borrow(), 4);
    drop((sender, receiver));
    assert_empty(&one);
    assert_empty(&other);
}

#[test]
fn a_persistent_watch_keeps_its_value() {
    let segment = in_process();
    let (sender, receiver) = segment.watch::<u64>("limit").persistent(true).open().unwrap();
    sender.send(7).unwrap();
    drop((sender, receiver));
    assert!(segment.check().is_clean() && segment.channels().len() == 1);
    assert_eq!(*segment.watch::<u64>("limit").initial(1).receiver().unwrap().borrow(), 7);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(u8)]
enum Mode {
    Fast = 1,
    Safe = 2,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(1024))]
struct Wide([u64; 128]);

#[test]
fn values_are_of_any_plain_type() {
    let segment = in_process();
    // Zeros are none of these.
    let error = segment.watch::<Mode>("mode").receiver().unwrap_err();
    assert!(matches!(&error, OpenError::InvalidOptions(_)) && error.to_string().contains("initial"), "{error}");
    assert!(segment.channels().is_empty());
    assert_empty(&segment);
    let (sender, receiver) = segment.watch::<Mode>("mode").initial(Mode::Fast).open().unwrap();
    assert_eq!(*receiver.borrow(), Mode::Fast);
    sender.send_modify(|mode| *mode = Mode::Safe).unwrap();
    assert_eq!(*receiver.borrow(), Mode::Safe);

    let (sender, receiver) = segment.watch::<Wide>("wide").open().unwrap();
    assert_eq!(receiver.borrow().0, [0; 128]);
    sender.send(Wide([7; 128])).unwrap();
    let value = receiver.borrow();
    assert_eq!((value.0, &raw const *value as usize % 1024), ([7; 128], 0));

    let (sender, receiver) = segment.watch::<()>("nothing").open().unwrap();
    sender.send(()).unwrap();
    assert!(receiver.has_changed().unwrap());
    let () = *receiver.borrow();
}

#[test]
fn a_watch_is_a_watch() {
    let segment = in_process();
    let _watch = segment.watch::<u64>("limit").open().unwrap();
    let mismatch = |error: OpenError| match error {
        OpenError::Mismatch { expected, found, .. } => (expected, found),
        other => panic!("{other:?}"),
    };
    let found = "a watch of u64 (8 bytes, alignment 8)".to_owned();
    let expected = "a watch of i64 (8 bytes, alignment 8)".to_owned();
    assert_eq!(mismatch(segment.watch::<i64>("limit").sender().unwrap_err()), (expected, found.clone()));
    let expected = "a channel of u64 (8 bytes, alignment 8)".to_owned();
    assert_eq!(mismatch(segment.channel::<u64>("limit").sender().unwrap_err()), (expected, found.clone()));
    assert_eq!(mismatch(segment.notify("limit").unwrap_err()), ("a notify".to_owned(), found));
    assert_eq!(segment.channels()[0].kind, ChannelKind::Watch);
    assert!(matches!(segment.watch::<u64>("").open(), Err(OpenError::InvalidName { .. })));
}

#[test]
fn a_change_that_panics_changes_nothing() {
    let segment = in_process();
    let (sender, receiver) = segment.watch::<[u64; 100]>("board").open().unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        sender.send_modify(|board| {
            board[50] = 1;
            panic!("half-way");
        })
    }));
    assert!(panicked.is_err());
    assert_eq!((*receiver.borrow(), receiver.has_changed()), ([0; 100], Ok(false)));
    drop((sender, receiver));
    assert_empty(&segment);
}

#[test]
fn changes_of_many_threads_are_all_made() {
    let (_place, one, other) = two();
    let (mine, theirs) = (one.watch::<u64>("sum").sender().unwrap(), other.watch::<u64>("sum").sender().unwrap());
    let mut receiver = mine.subscribe();
    thread::scope(|scope| {
        for sender in [&mine, &theirs, &mine, &theirs] {
            let change = |sum: &mut u64| {
                // Others come in between.
                thread::yield_now();
                *sum += 1;
            };
            scope.spawn(move || (0..2000).for_each(|_| sender.send_modify(change).unwrap()));
        }
        // And whoever waits sees it rise, and the last of all.
        let mut last = 0;
        within(async {
            while last < 8000 {
                receiver.changed().await.unwrap();
                let now = *receiver.borrow_and_update();
                assert!(now >= last);
                last = now;
            }
        });
    });
    assert_eq!(*theirs.borrow(), 8000);
    drop((mine, theirs, receiver));
    assert_empty(&one);
}

#[test]
fn memory_that_somebody_has_overwritten_gives_the_last_good_value() {
    let segment = in_process();
    let (sender, receiver) = segment.watch::<Mode>("mode").initial(Mode::Safe).open().unwrap();
    // Somebody sends what is no value, through a type of the same name.
    mod other {
        use super::{FromBytes, Immutable, IntoBytes, KnownLayout};
        #[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(transparent)]
        pub(super) struct Mode(pub(super) u8);
    }
    let liar = segment.watch::<other::Mode>("mode").sender().unwrap();
    liar.send(other::Mode(0)).unwrap();
    assert_eq!((*receiver.borrow(), *sender.borrow()), (Mode::Safe, Mode::Safe));
    assert!(matches!(segment.watch::<Mode>("mode").receiver(), Err(OpenError::Damaged { .. })));
    // The next change begins with what was good.
    sender.send_modify(|mode| assert_eq!(*mode, Mode::Safe)).unwrap();
    assert_eq!(*receiver.borrow(), Mode::Safe);
    assert!(segment.watch::<Mode>("mode").receiver().is_ok());
    drop((sender, receiver, liar));
    assert_empty(&segment);
}

// ---- Between processes ----

/// A value with a checksum over all of it: a torn one cannot hide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Board {
    number: u64,
    changes: [u64; 30],
    sum: u64,
}

impl Board {
    fn sum(&self) -> u64 {
        self.changes
            .iter()
            .fold(self.number, |sum, change| sum.rotate_left(7) ^ change.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn change(&mut self, random: &mut Random) {
        self.number += 1;
        let at = random.below(30);
        self.changes[at] = random.next();
        self.sum = self.sum();
    }

    fn verify(&self) {
        assert!(self.number == 0 || self.sum == self.sum(), "{self:?} is torn");
    }
}

fn open(place: &Place) -> Segment {
    place.options().size(8 << 20).participants(12).open_or_create("watch").unwrap()
}

#[test]
fn a_process_that_waits_hears_of_every_last_value() {
    const TEST: &str = "a_process_that_waits_hears_of_every_last_value";
    let place = Place::new();
    let segment = open(&place);
    let options = || (segment.watch::<u64>("there"), segment.watch::<u64>("back"));
    if role().is_some() {
        let (there, back) = options();
        let (mut there, back) = (there.receiver().unwrap(), back.sender().unwrap());
        ready(&place);
        return within(async {
            while there.changed().await.is_ok() {
                back.send(*there.borrow_and_update()).unwrap();
            }
        });
    }
    let (there, back) = options();
    let (there, mut back) = (there.sender().unwrap(), back.receiver().unwrap());
    let child = place.spawn(TEST, "echo");
    wait_until_ready(&place, &child);
    within(async {
        for number in 1..=2000 {
            there.send(number).unwrap();
            if number % 7 != 0 {
                assert_eq!(*back.wait_for(|echo| *echo >= number).await.unwrap(), number);
            }
        }
        drop(there);
        // The child sees the end of the senders, and goes.
        back.wait_for(|_| false).await.unwrap_err();
        assert_eq!(*back.borrow(), 2000);
    });
    child.succeed();
    drop(back);
    assert_empty(&segment);
}

#[test]
fn the_death_of_the_last_sender_or_receiver_is_told() {
    const TEST: &str = "the_death_of_the_last_sender_or_receiver_is_told";
    let place = Place::new();
    let segment = open(&place);
    if let Some(role) = role() {
        let (sender, receiver);
        if role == "send" {
            sender = segment.watch::<u64>("limit").sender().unwrap();
            sender.send_replace(7).unwrap();
        } else {
            receiver = segment.watch::<u64>("limit").receiver().unwrap();
            receiver.borrow();
        }
        ready(&place);
        wait_to_be_killed();
    }
    let mut receiver = segment.watch::<u64>("limit").receiver().unwrap();
    let child = place.spawn(TEST, "send");
    wait_until_ready(&place, &child);
    within(async {
        receiver.wait_for(|value| *value == 7).await.unwrap();
        let mut waiting = pin!(receiver.changed());
        assert!(poll(waiting.as_mut()).is_pending());
        child.kill();
        assert_eq!(waiting.await, Err(watch::RecvError));
    });
    assert_eq!(*receiver.borrow(), 7);
    drop(receiver);
    let sender = segment.watch::<u64>("limit").sender().unwrap();
    let child = place.spawn(TEST, "receive");
    wait_until_ready(&place, &child);
    within(async {
        let mut waiting = pin!(sender.closed());
        assert!(poll(waiting.as_mut()).is_pending());
        child.kill();
        waiting.await;
    });
    drop(sender);
    assert_empty(&segment);
}

/// What the children of the next test do until they are killed.
fn work_for_ever(segment: &Segment, role: &str) {
    let (what, number) = role.split_once(' ').unwrap();
    let number: u32 = number.parse().unwrap();
    let mut random = Random::new(u64::from(number) + 1);
    let texts = || segment.watch::<[u8]>("texts");
    let boards = || segment.watch::<Board>("boards");
    let started = Instant::now();
    match what {
        "write" => {
            let (texts, boards) = (texts().sender().unwrap(), boards().sender().unwrap());
            for value in 0.. {
                let len = 1 + random.below(if value % 64 == 0 { 50_000 } else { 1500 });
                let _ = texts.send_replace(Stamp { sender: number, number: value }.message(len));
                boards.send_modify(|board| board.change(&mut random)).unwrap();
                assert!(started.elapsed() < PATIENCE);
            }
        }
        _ => {
            let (mut texts, mut boards) = (texts().receiver().unwrap(), boards().receiver().unwrap());
            let mut kept = Vec::new();
            within(async {
                loop {
                    texts.changed().await.unwrap();
                    let text = texts.borrow_and_update();
                    Stamp::verify(&text);
                    kept.push(text);
                    if kept.len() > 10 {
                        Stamp::verify(&kept.swap_remove(random.below(10)));
                    }
                    boards.changed().await.unwrap();
                    boards.borrow_and_update().verify();
                }
            });
        }
    }
}

#[test]
fn writers_and_readers_are_killed_at_random_moments_and_values_stay_whole() {
    const TEST: &str = "writers_and_readers_are_killed_at_random_moments_and_values_stay_whole";
    let place = Place::new();
    let segment = open(&place);
    if let Some(role) = role() {
        return work_for_ever(&segment, &role);
    }
    let (texts, mut text) = segment.watch::<[u8]>("texts").open().unwrap();
    let (boards, mut board) = segment.watch::<Board>("boards").open().unwrap();
    let start = |number: usize| place.spawn(TEST, &format!("{} {number}", ["write", "read"][number % 2]));
    let mut children: Vec<_> = (0..4).map(start).collect();
    let mut random = Random::new(5);
    // The last value of each writer that was seen, and of all.
    let mut last = std::collections::HashMap::new();
    let mut changes = 0;
    for next in 4..64 {
        within(async {
            for _ in 0..20 {
                text.changed().await.unwrap();
                let text = text.borrow_and_update();
                if let Some(Stamp { sender, number }) = Stamp::verify(&text) {
                    let last = last.entry(sender).or_insert(number);
                    assert!(number >= *last, "an old value came again");
                    *last = number;
                }
                board.changed().await.unwrap();
                let board = board.borrow_and_update();
                board.verify();
                assert!(board.number > changes, "a change was lost");
                changes = board.number;
            }
        });
        thread::sleep(Duration::from_micros(random.below(2000) as u64));
        // Of the same kind as the next one.
        let at = if next % 2 == 0 { 2 * random.below(2) } else { 1 + 2 * random.below(2) };
        let mut child = std::mem::replace(&mut children[at], start(next));
        assert!(child.ended().is_none(), "a child has ended before it was killed");
        child.kill();
    }
    for mut child in children {
        assert!(child.ended().is_none(), "a child has ended before it was killed");
        child.kill();
    }
    segment.bury_the_dead();
    eventually("all are buried", || segment.participants().len() == 1);
    Stamp::verify(&text.borrow_and_update());
    board.borrow_and_update().verify();
    // Two values are there, and those at which the ends here have looked, and the two rings; and nothing else.
    texts.send([]).unwrap();
    boards.send(*board.borrow()).unwrap();
    drop((texts.borrow(), text.borrow(), boards.borrow(), board.borrow()));
    let report = segment.check();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.sectors.iter().map(|sector| sector.allocated_blocks).sum::<usize>(), 4, "{report:?}");
    drop((texts, text, boards, board));
    assert_empty(&segment);
    assert!(segment.channels().is_empty());
}

#[test]
fn a_killed_writer_has_made_its_last_change_or_not() {
    const TEST: &str = "a_killed_writer_has_made_its_last_change_or_not";
    let place = Place::new();
    let segment = open(&place);
    let done = || segment.watch::<u64>("done");
    let sum = || segment.watch::<u64>("sum");
    if role().is_some() {
        let (done, sum): (watch::Sender<u64>, watch::Sender<u64>) = (done().sender().unwrap(), sum().sender().unwrap());
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            sum.send_modify(|sum| *sum += 1).unwrap();
            done.send_modify(|done| *done += 1).unwrap();
        }
        return;
    }
    let (done, sum): (watch::Receiver<u64>, watch::Receiver<u64>) =
        (done().receiver().unwrap(), sum().receiver().unwrap());
    let mut random = Random::new(9);
    let mut off = 0;
    for _ in 0..30 {
        let child = place.spawn(TEST, "change");
        let before = *done.borrow();
        eventually("the child is at work", || *done.borrow() > before + 100);
        thread::sleep(Duration::from_micros(random.below(1000) as u64));
        child.kill();
        let (done, sum) = (*done.borrow(), *sum.borrow());
        assert!((done + off..=done + off + 1).contains(&sum), "{done} {sum} {off}");
        off = sum - done;
    }
    segment.bury_the_dead();
    drop((done, sum));
    assert_empty(&segment);
}

#[test]
fn a_stopped_reader_keeps_nobody_from_sending_and_pins_what_it_reads() {
    const TEST: &str = "a_stopped_reader_keeps_nobody_from_sending_and_pins_what_it_reads";
    let place = Place::new();
    let segment = open(&place);
    if role().is_some() {
        let receiver = segment.watch::<[u8]>("film").receiver().unwrap();
        let _film = receiver.borrow();
        ready(&place);
        wait_to_be_killed();
    }
    let sender = segment.watch::<[u8]>("film").initial(vec![1; 100_000]).sender().unwrap();
    let child = place.spawn(TEST, "read");
    wait_until_ready(&place, &child);
    let stop = |signal: &str| {
        let mut kill = std::process::Command::new("kill");
        assert!(kill.args([signal, &child.pid().to_string()]).status().unwrap().success());
    };
    stop("-STOP");
    for number in 0..1000 {
        sender.send(vec![number as u8; 100_000]).unwrap();
    }
    let mine = sender.borrow();
    assert!(mine[..] == [999_usize as u8; 100_000]);
    drop(mine);
    let pinned = held(&segment);
    child.kill();
    segment.bury_the_dead();
    assert!(held(&segment) + 100_000 <= pinned);
    drop(sender);
    assert_empty(&segment);
}
