//! What happens to the others when a process is killed, or stopped.

mod common;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use common::{Place, Random, Stamp, assert_empty, eventually, ready, role, wait_until_ready, within};
use waterway::{Receiver, Segment, Sender, policy::Retention};

fn open(place: &Place) -> Segment {
    place.options().size(8 << 20).participants(8).open_or_create("deaths").unwrap()
}

fn send_for_ever(segment: &Segment, sender: u32) {
    let data = segment.bytes("data").sender().unwrap();
    let mut random = Random::new(u64::from(sender) + 1);
    within(async {
        for number in 0.. {
            let len = random.below(2000);
            if data.send(Stamp { sender, number }.message(len.max(1))).await.is_err() {
                return;
            }
        }
    });
}

#[test]
fn a_killed_sender_leaves_what_it_sent_and_nothing_else() {
    const TEST: &str = "a_killed_sender_leaves_what_it_sent_and_nothing_else";
    let place = Place::new();
    let segment = open(&place);
    if role().is_some() {
        return send_for_ever(&segment, 1);
    }
    let mut random = Random::new(11);
    for _ in 0..30 {
        let data = segment.bytes("data").capacity(1 + random.below(300)).receiver().unwrap();
        let child = place.spawn(TEST, "send");
        let before_the_end = random.below(3000) as u64;
        within(async {
            let mut expected = 0;
            let mut child = Some(child);
            // `None` comes because the death of the only sender was noticed.
            while let Some(message) = data.recv().await {
                assert_eq!(Stamp::verify(&message), Some(Stamp { sender: 1, number: expected }));
                expected += 1;
                if expected >= before_the_end
                    && let Some(child) = child.take()
                {
                    child.kill();
                }
            }
            assert!(expected >= before_the_end);
        });
        drop(data);
        assert_empty(&segment);
        assert_eq!(segment.participants().len(), 1);
    }
}

#[test]
fn a_killed_receiver_gives_back_what_it_had_read_and_the_senders_are_told() {
    const TEST: &str = "a_killed_receiver_gives_back_what_it_had_read_and_the_senders_are_told";
    let place = Place::new();
    let segment = open(&place);
    if role().is_some() {
        let data = segment.bytes("data").receiver().unwrap();
        let mut random = Random::new(5);
        return within(async {
            let mut kept = Vec::new();
            while let Some(message) = data.recv().await {
                Stamp::verify(&message);
                kept.push(message);
                if kept.len() > 50 {
                    kept.swap_remove(random.below(kept.len()));
                }
            }
        });
    }
    let mut random = Random::new(12);
    for _ in 0..30 {
        let data = segment.bytes("data").capacity(64).sender().unwrap();
        let child = place.spawn(TEST, "receive");
        let before_the_end = 64 + random.below(2000) as u64;
        within(async {
            let mut child = Some(child);
            for number in 0.. {
                if number == before_the_end
                    && let Some(child) = child.take()
                {
                    child.kill();
                }
                // Before the death was noticed, up to a capacity of messages; then an error, also while waiting.
                let sent = data.send(Stamp { sender: 1, number }.message(random.below(3000) + 1)).await;
                if sent.is_err() {
                    break;
                }
                assert!(number < before_the_end + 64, "sent without end to a dead receiver");
            }
            assert!(child.is_none());
        });
        drop(data);
        assert_empty(&segment);
    }
}

#[test]
fn the_living_go_on_while_others_are_killed() {
    const TEST: &str = "the_living_go_on_while_others_are_killed";
    let place = Place::new();
    let segment = open(&place);
    if let Some(role) = role() {
        let number = role.split_once(' ').map(|(_, number)| number.parse().unwrap()).unwrap();
        return send_for_ever(&segment, number);
    }
    let data = segment.bytes("data").capacity(64).receiver().unwrap();
    // One sender lives all the time, two others are killed again and again.
    let survivor = place.spawn(TEST, "send 0");
    let mut victims: Vec<_> = (1..3).map(|number| (number, place.spawn(TEST, &format!("send {number}")))).collect();
    let mut next = 3;
    let mut random = Random::new(13);
    let mut seen: std::collections::HashMap<u32, u64> = Default::default();
    within(async {
        for kill in 0..40 {
            // Before the first kill the one that stays must be there: without it all senders may be gone.
            let mut left = random.below(2000);
            while left > 0 || !seen.contains_key(&0) {
                left = left.saturating_sub(1);
                let message = data.recv().await.unwrap();
                let stamp = Stamp::verify(&message).unwrap();
                let expected = seen.entry(stamp.sender).or_default();
                assert_eq!(stamp.number, *expected, "of sender {}", stamp.sender);
                *expected += 1;
            }
            let (_, victim) = victims.swap_remove(kill % 2);
            victim.kill();
            victims.push((next, place.spawn(TEST, &format!("send {next}"))));
            next += 1;
        }
    });
    assert!(seen[&0] > 0);
    victims.into_iter().for_each(|(_, victim)| victim.kill());
    survivor.kill();
    within(async { while data.recv().await.is_some() {} });
    drop(data);
    assert_empty(&segment);
    assert_eq!(segment.participants().len(), 1);
}

#[test]
fn a_stopped_process_holds_up_nobody() {
    const TEST: &str = "a_stopped_process_holds_up_nobody";
    let place = Place::new();
    let segment = open(&place);
    if role().is_some() {
        return send_for_ever(&segment, 1);
    }
    let data = segment.bytes("data").capacity(16).receiver().unwrap();
    let mine = segment.bytes("data").sender().unwrap();
    let child = place.spawn(TEST, "send");
    let mut random = Random::new(14);
    within(async {
        for _ in 0..100 {
            for _ in 0..random.below(100) {
                Stamp::verify(&data.recv().await.unwrap());
            }
            signal(child.pid(), libc::SIGSTOP);
            // Whatever it was in the middle of, a message of another process passes, and memory is to be had.
            for _ in 0..20 {
                let sent = Stamp { sender: 2, number: 7 }.message(500);
                let mut waiting = Some(sent);
                while let Some(message) = waiting.take() {
                    if let Err(refused) = mine.try_send(message) {
                        waiting = Some(refused.into_inner());
                    }
                    if let Ok(message) = data.try_recv() {
                        Stamp::verify(&message);
                    }
                }
            }
            signal(child.pid(), libc::SIGCONT);
        }
    });
    child.kill();
    drop(mine);
    within(async { while data.recv().await.is_some() {} });
    drop(data);
    assert_empty(&segment);
}

fn signal(pid: u32, signal: i32) {
    // SAFETY: a plain system call on a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(pid as libc::pid_t, signal) }, 0);
}

#[test]
fn the_slots_of_the_dead_are_used_again() {
    const TEST: &str = "the_slots_of_the_dead_are_used_again";
    let place = Place::new();
    let segment = open(&place);
    if role().is_some() {
        let _ends = segment.bytes("data").open().unwrap();
        segment.bytes("hello").sender().unwrap().try_send([1]).unwrap();
        thread::sleep(common::PATIENCE);
        return;
    }
    let hello = segment.bytes("hello").receiver().unwrap();
    for _ in 0..5 {
        // As many as there are places, all killed at once.
        let children: Vec<_> = (0..7).map(|_| place.spawn(TEST, "hold")).collect();
        let mut greeted = 0;
        eventually("all processes are there", || {
            greeted += usize::from(hello.try_recv().is_ok());
            greeted == 7
        });
        assert!(matches!(place.options().open("deaths"), Err(waterway::OpenError::TooManyParticipants { limit: 8 })));
        children.into_iter().for_each(common::Process::kill);
        eventually("all dead are buried", || {
            segment.bury_the_dead();
            segment.participants().len() == 1
        });
        assert_eq!(segment.channels().len(), 1);
    }
    drop(hello);
    assert_empty(&segment);
}

#[test]
fn whoever_comes_after_all_were_killed_finds_a_fresh_segment() {
    const TEST: &str = "whoever_comes_after_all_were_killed_finds_a_fresh_segment";
    let place = Place::new();
    if role().is_some() {
        let segment = open(&place);
        let sender = segment.bytes("data").persistent(true).sender().unwrap();
        sender.try_send([1]).unwrap();
        std::fs::write(place.path().join("ready"), segment.id().to_string()).unwrap();
        thread::sleep(common::PATIENCE);
        return;
    }
    let child = place.spawn(TEST, "hold");
    eventually("it is there", || place.path().join("ready").exists());
    thread::sleep(Duration::from_millis(20));
    child.kill();
    let segment = open(&place);
    assert_ne!(segment.id().to_string(), std::fs::read_to_string(place.path().join("ready")).unwrap());
    assert!(segment.channels().is_empty());
}

#[test]
fn a_death_is_heard_of_long_before_the_next_look() {
    const TEST: &str = "a_death_is_heard_of_long_before_the_next_look";
    let place = Place::new();
    let segment = open(&place);
    if role().is_some() {
        let _sender = segment.bytes("data").sender().unwrap();
        // Also on a loaded machine its bridge is there by then.
        thread::sleep(Duration::from_millis(50));
        segment.bytes("hello").sender().unwrap().try_send([1]).unwrap();
        thread::sleep(common::PATIENCE);
        return;
    }
    let (keep, hello) = segment.bytes("hello").open().unwrap();
    let mut times = Vec::new();
    // `WATERWAY_TEST_KILLS=500` for figures.
    let kills = std::env::var("WATERWAY_TEST_KILLS").map_or(40, |kills| kills.parse().unwrap());
    for _ in 0..kills {
        let data = segment.bytes("data").receiver().unwrap();
        let child = place.spawn(TEST, "hold");
        within(hello.recv()).unwrap();
        let heard = thread::spawn(move || {
            assert!(data.blocking_recv().is_none());
            std::time::Instant::now()
        });
        thread::sleep(Duration::from_millis(15));
        let killed = std::time::Instant::now();
        child.kill();
        times.push(heard.join().unwrap().saturating_duration_since(killed));
    }
    times.sort();
    // No assertion: how fast a machine is, is not ours to say. `tests/deaths.rs` with `--nocapture` shows it.
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    println!("heard of a death after {:?} (p50), {:?} (p99), {:?} (worst of {kills})", at(50), at(99), at(100));
    drop((keep, hello));
    assert_empty(&segment);
}

/// Takes what comes and sends it on, in the same block, until it is told to stop.
fn pass_on(receiver: &Receiver<[u64]>, sender: &Sender<[u64]>, over: impl Fn() -> bool) {
    while !over() {
        let Ok(message) = receiver.try_recv() else { continue };
        assert!(message.iter().all(|word| *word == message[0]));
        let mut refused = Some(message);
        while let Some(message) = refused.take() {
            refused = message.forward(sender).err().map(|error| error.into_inner());
        }
    }
}

#[test]
fn who_is_killed_while_messages_go_round_takes_no_more_than_one_with_it() {
    const TEST: &str = "who_is_killed_while_messages_go_round_takes_no_more_than_one_with_it";
    const MESSAGES: u64 = 3;
    let place = Place::new();
    let segment = open(&place);
    // Where there are policies, a block on its way has another word.
    let ends = |timed: bool| {
        let channel = segment.channel::<[u64]>(if timed { "timed" } else { "plain" }).capacity(8);
        let channel = if timed { channel.policy(Retention::ttl(Duration::from_secs(9 * 3600))) } else { channel };
        channel.open().unwrap()
    };
    let courts = [ends(false), ends(true)];
    if let Some(role) = role() {
        let (sender, receiver) = &courts[usize::from(role == "timed")];
        ready(&place);
        return pass_on(receiver, sender, || false);
    }
    let mut random = Random::new(21);
    for (role, (sender, receiver)) in ["plain", "timed"].iter().zip(&courts) {
        for _ in 0..15 {
            (0..MESSAGES).for_each(|number| sender.try_send(vec![number; 1 + 40 * number as usize]).unwrap());
            let over = AtomicBool::new(false);
            let (mine, theirs) = ((sender.clone(), receiver.clone()), place.spawn(TEST, role));
            thread::scope(|scope| {
                let passing = scope.spawn(|| pass_on(&mine.1, &mine.0, || over.load(Ordering::SeqCst)));
                wait_until_ready(&place, &theirs);
                thread::sleep(Duration::from_micros(random.below(3000) as u64));
                theirs.kill();
                eventually("it is missed", || segment.participants().len() == 1);
                over.store(true, Ordering::SeqCst);
                passing.join().unwrap();
            });
            // What was left for later, as somebody was at work on the same, has come back then, and nothing comes afterwards.
            eventually("it is buried", || {
                segment.bury_the_dead();
                segment.check().is_clean()
            });
            let mut there: Vec<u64> = receiver.drain().map(|message| message[0]).collect();
            there.sort_unstable();
            let rest = there.len() as u64;
            there.dedup();
            assert!(there.len() as u64 == rest && rest + 1 >= MESSAGES, "{role}: there are {there:?}");
            assert_eq!(receiver.invalid(), 0);
        }
    }
    drop(courts);
    assert_empty(&segment);
}
