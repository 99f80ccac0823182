//! Policies: what is asked for and told, several processes, and a model.

mod common;
#[path = "common/tasks.rs"]
mod tasks;

use std::{thread, time::Duration};

use common::{Place, assert_empty, eventually, held, in_process, role, two, within};
use tasks::{HOURS, Task, numbers, task, tasks};
use waterway::{
    ChannelOptions, Delivery, OpenError, Segment, Sender,
    policy::{ByMessage, DeadLetter, Priority, PriorityBy, Retention, RouteKey},
};

// ---- What was asked for, and what is told ----

#[test]
fn policies_are_part_of_the_channel() {
    let segment = in_process();
    let plain = || segment.channel::<Task>("plain");
    let _plain = plain().open().unwrap();
    let refused = |options: ChannelOptions<Task>, expected: &str, found: &str| {
        let error = options.receiver().unwrap_err();
        let OpenError::Mismatch { expected: wanted, found: there, .. } = &error else { panic!("{error}") };
        assert!(wanted.contains(expected) && there.contains(found), "{error}");
    };
    refused(plain().policy(ByMessage), "policies of its messages", "no priorities");
    refused(plain().policy(PriorityBy(|_: &Task| Priority::Low)), "priorities by a function", "no priorities");
    refused(plain().policy(Retention::ttl(HOURS)), "a time to live of 32400s", "no time to live");
    refused(plain().policy(Retention::keep_last(7)), "the last 7 are kept", "no message gives way");
    refused(plain().policy(Retention::overwrite_oldest()), "the oldest give way", "no message gives way");

    let full =
        || tasks(&segment).policy(Retention::ttl(HOURS)).policy(Retention::keep_last(7)).policy(DeadLetter::to("dead"));
    let _full = full().open().unwrap();
    full().open().unwrap();
    tasks(&segment).open().unwrap();
    refused(full().policy(Retention::ttl(Duration::from_millis(5))), "to live of 5ms", "to live of 32400s");
    refused(full().policy(Retention::keep_last(8)), "the last 8", "the last 7");
    refused(full().policy(DeadLetter::to("deader")), "dead letters", "dead letters");
    refused(
        segment.channel::<Task>("tasks").policy(PriorityBy(|_: &Task| Priority::Low)),
        "by a function",
        "of its messages",
    );
    // Whoever receives need not ask; whoever sends must know.
    segment.channel::<Task>("tasks").receiver().unwrap();
    let error = segment.channel::<Task>("tasks").sender().unwrap_err().to_string();
    assert!(error.contains("no priorities") && error.contains("policies of its messages"), "{error}");
    let (sender, _receiver) = segment.channel::<Task>("other").policy(Retention::keep_last(2)).open().unwrap();
    segment.channel::<Task>("other").sender().unwrap().try_send(task(1, 1)).unwrap();
    drop(sender);
    // Dead letters come into a channel without policies.
    let options = segment.channel::<Task>("more").policy(Retention::ttl(HOURS)).policy(DeadLetter::to("other"));
    assert!(matches!(options.open(), Err(OpenError::Mismatch { .. })));
    assert!(matches!(segment.watch::<Task>("tasks").open(), Err(OpenError::Mismatch { .. })));
}

#[test]
fn what_is_impossible_is_refused() {
    let segment = in_process();
    let numbers = || segment.channel::<Task>("numbers");
    for (options, why) in [
        (numbers().policy(Retention::keep_last(0)), "the last 0 messages"),
        (numbers().policy(Retention::keep_last(1 << 25)), "the last 33554432 messages"),
        (numbers().capacity(4).policy(Retention::keep_last(5)), "capacity 4"),
        (numbers().policy(DeadLetter::to("dead")), "Retention::ttl"),
        (numbers().policy(ByMessage).policy(PriorityBy(|_: &Task| Priority::Low)), "by a function"),
        (numbers().policy(ByMessage).policy(DeadLetter::to("numbers")), "its own dead letters"),
    ] {
        let error = options.open().unwrap_err();
        assert!(matches!(error, OpenError::InvalidOptions(_)) && error.to_string().contains(why), "{error}");
    }
    assert_empty(&segment);
    assert_eq!(RouteKey::from("seven"), RouteKey::from(&b"seven"[..]));
}

#[test]
fn an_inquiry_tells_age_priority_and_what_policies_did() {
    let segment = in_process();
    let (sender, receiver) = tasks(&segment).policy(Retention::keep_last(1)).open().unwrap();
    sender.try_send(task(0, 2)).unwrap();
    sender.try_send(task(1, 2)).unwrap();
    sender.try_send(Task { number: 2, level: 3, lives: 1 }).unwrap();
    let inquiry = receiver.inquire();
    let oldest = inquiry.oldest.unwrap();
    // The urgent one had expired.
    assert_eq!((inquiry.waiting, oldest.priority, oldest.length), (1, Priority::High, size_of::<Task>()));
    assert_eq!((inquiry.counts.expired, inquiry.counts.dropped), (1, 1));
    let age = oldest.age.unwrap();
    // It is told to some milliseconds.
    thread::sleep(Duration::from_millis(30));
    let later = receiver.inquire().oldest.unwrap().age.unwrap();
    assert!(later > age && later < HOURS, "{age:?}, {later:?}");
    // Nobody pays for it in a channel without policies.
    let (sender, receiver) = segment.channel::<u64>("plain").open().unwrap();
    sender.try_send(1).unwrap();
    let oldest = receiver.inquire().oldest.unwrap();
    assert_eq!((oldest.age, oldest.priority), (None, Priority::Normal));
}

#[test]
fn policies_outlive_the_ends_of_a_persistent_channel() {
    let (_place, one, other) = two();
    let options = |segment: &Segment| tasks(segment).persistent(true).policy(Retention::keep_last(2));
    let sender = options(&one).sender().unwrap();
    for number in 0..5 {
        (0..4).for_each(|level| sender.try_send(task(number, level)).unwrap());
    }
    drop(sender);
    drop(one);
    let receiver = options(&other).receiver().unwrap();
    assert_eq!(numbers(&receiver), [3, 4, 3, 4, 3, 4, 3, 4]);
    assert_eq!(receiver.inquire().counts.dropped, 12);
}

// ---- Two processes ----

#[test]
fn processes_wait_for_each_other_in_all_levels() {
    const TEST: &str = "processes_wait_for_each_other_in_all_levels";
    const EACH: u64 = 3_000;
    let place = Place::new();
    let segment = place.options().size(8 << 20).participants(8).open_or_create("policies").unwrap();
    let send = |sender: &Sender<Task>, level: u32| {
        for number in 0..EACH {
            sender.blocking_send(Task { number, level, lives: 2 }).unwrap();
        }
    };
    if let Some(role) = role() {
        let sender = tasks(&segment).capacity(2).sender().unwrap();
        match role.as_str() {
            // Two that wait for room of different levels, in one process.
            "both" => thread::scope(|scope| {
                scope.spawn(|| send(&sender, 0));
                scope.spawn(|| send(&sender, 3));
            }),
            level => send(&sender, level.parse().unwrap()),
        }
        return;
    }
    // Ours is there until all have come: who is done first must not close the channel.
    let (keeper, receiver) = tasks(&segment).capacity(2).open().unwrap();
    let children = ["both", "1", "2"].map(|role| place.spawn(TEST, role));
    let mut next = [0; 4];
    within(async {
        for _ in 0..4 * EACH {
            let message = receiver.recv().await.unwrap();
            assert_eq!(message.number, next[message.level as usize], "of level {}", message.level);
            next[message.level as usize] += 1;
        }
        drop(keeper);
        assert!(receiver.recv().await.is_none());
    });
    children.into_iter().for_each(|child| child.succeed());
    drop(receiver);
    eventually("nobody holds anything", || {
        segment.bury_the_dead();
        held(&segment) == 0
    });
}

/// A model that knows nothing of rings: what must come out, in which order, and what may.
mod model {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Send { level: u32, lives: u32 },
        Receive,
        Reserve,
        SendReserved { level: u32, lives: u32 },
        GiveBack,
        Inquire,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let marks = || (0..4_u32, 0..3_u32);
        let step = prop_oneof![
            4 => marks().prop_map(|(level, lives)| Step::Send { level, lives }),
            4 => Just(Step::Receive),
            1 => Just(Step::Reserve),
            1 => marks().prop_map(|(level, lives)| Step::SendReserved { level, lives }),
            1 => Just(Step::GiveBack),
            1 => Just(Step::Inquire),
        ];
        prop::collection::vec(step, 1..400)
    }

    #[derive(Default)]
    struct Model {
        levels: [VecDeque<Task>; 4],
        capacity: usize,
        keep: bool,
        reserved: usize,
        expired: u64,
        dropped: u64,
        /// Receives since one of that level was received, while it had any.
        passed: [usize; 4],
    }

    impl Model {
        fn take_away_expired(&mut self, level: usize) {
            while self.levels[level].front().is_some_and(|task| task.lives == 1) {
                self.levels[level].pop_front();
                self.expired += 1;
            }
        }

        /// Makes room as a sender does; `false` if there is none.
        fn make_room(&mut self, level: usize) -> bool {
            while self.levels[level].len() + self.reserved >= self.capacity {
                match self.levels[level].front() {
                    Some(task) if task.lives == 1 => self.expired += 1,
                    Some(_) if self.keep => self.dropped += 1,
                    _ => return false,
                }
                self.levels[level].pop_front();
            }
            true
        }
    }

    fn play(steps: Vec<Step>, capacity: usize, keep: bool, delivery: Delivery) {
        let segment = in_process();
        let mut options = tasks(&segment).capacity(capacity).delivery(delivery);
        if keep {
            options = options.policy(Retention::overwrite_oldest());
        }
        let (sender, receiver) = options.open().unwrap();
        let mut permits = Vec::new();
        let mut model = Model { capacity, keep, ..Model::default() };
        for (number, step) in (0..).zip(steps) {
            match step {
                Step::Send { level, lives } => {
                    let task = Task { number, level, lives };
                    let room = model.make_room(level as usize);
                    assert_eq!(sender.try_send(task).is_ok(), room, "{number}");
                    if room {
                        model.levels[level as usize].push_back(task);
                    }
                }
                Step::Reserve => {
                    let room = (0..4).fold(true, |room, level| model.make_room(level) & room);
                    let reserved = sender.try_reserve();
                    assert_eq!(reserved.is_ok(), room, "{number}");
                    if let Ok(permit) = reserved {
                        permits.push(permit);
                        model.reserved += 1;
                    }
                }
                Step::SendReserved { level, lives } => {
                    if let Some(permit) = permits.pop() {
                        let task = Task { number, level, lives };
                        permit.send(task);
                        model.reserved -= 1;
                        model.levels[level as usize].push_back(task);
                    }
                }
                Step::GiveBack => model.reserved -= usize::from(permits.pop().is_some()),
                Step::Inquire => {
                    (0..4).for_each(|level| model.take_away_expired(level));
                    let inquiry = receiver.inquire();
                    assert_eq!(inquiry.waiting, model.levels.iter().map(VecDeque::len).sum::<usize>());
                    assert_eq!((inquiry.counts.expired, inquiry.counts.dropped), (model.expired, model.dropped));
                }
                Step::Receive => {
                    let message = receiver.try_recv().ok();
                    // The first of its level that has not expired; nothing only if there is nothing.
                    let Some(message) = message else {
                        (0..4).for_each(|level| model.take_away_expired(level));
                        assert!(model.levels.iter().all(VecDeque::is_empty));
                        continue;
                    };
                    let level = message.level as usize;
                    model.take_away_expired(level);
                    assert_eq!(model.levels[level].pop_front(), Some(*message));
                    let waits = |level: &VecDeque<Task>| level.iter().any(|task| task.lives != 1);
                    for other in 0..4 {
                        let passed = other != level && waits(&model.levels[other]);
                        model.passed[other] = if passed { model.passed[other] + 1 } else { 0 };
                        assert!(model.passed[other] < 48, "{other} starves");
                    }
                }
            }
            assert!(receiver.len() <= 4 * capacity);
        }
        drop(permits);
        let rest: Vec<Task> = receiver.drain().map(|message| *message).collect();
        (0..4).for_each(|level| model.levels[level].retain(|task| task.lives != 1));
        for level in 0..4 {
            assert!(rest.iter().filter(|task| task.level as usize == level).eq(&model.levels[level]));
        }
        drop((sender, receiver));
        assert_empty(&segment);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_channel_does_what_the_model_does(
            steps in steps(),
            capacity in 1..6_usize,
            keep: bool,
            again: bool,
        ) {
            let delivery =
                if again { Delivery::AtLeastOnce { max_deliveries: 3 } } else { Delivery::AtMostOnce };
            play(steps, capacity, keep, delivery);
        }
    }
}
