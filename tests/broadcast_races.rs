//! Broadcasts between threads that meet at the worst moment: nothing is jumped over, taken twice, or kept by nobody.

mod common;

use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use common::{Random, in_process, two};
use waterway::{
    Delivery, Segment,
    broadcast::{self, Behind, Published, Subscriber},
};

/// How long each of these tries; for longer runs `WATERWAY_TEST_SECONDS` says how long.
fn long_enough() -> Duration {
    let seconds = std::env::var("WATERWAY_TEST_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(2))
}

/// Keeps this thread, and those that it starts, on one of the processors that it may use: so they take turns in the middle of
/// what they do.
fn pin() {
    // SAFETY: plain data, of the size that is said.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set), 0);
        let core = (0..libc::CPU_SETSIZE as usize).find(|core| libc::CPU_ISSET(*core, &set)).unwrap();
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut one);
        assert_eq!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const one), 0);
    }
}

fn spin(rounds: u64) {
    (0..rounds).for_each(|_| std::hint::spin_loop());
}

/// Dropped, it says so, also if that is because something has failed.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Bytes that are published. Nothing may be broken.
fn published(segment: &Segment) -> usize {
    let report = segment.check();
    assert!(report.is_clean(), "{report:?}");
    report.sectors.iter().map(|sector| sector.in_flight_bytes).sum()
}

/// A cell is closed and held for a lap, and then given back and published while a member looks at it.
#[test]
fn a_member_that_looks_while_a_held_cell_is_published_anew_gets_the_message() {
    pin();
    let segment = in_process();
    let cells = 256;
    let publisher = segment.broadcast::<u64>("laps").capacity(8).publisher().unwrap();
    let group = |name| segment.broadcast::<u64>("laps").group(name).behind(Behind::Block).subscriber().unwrap();
    let (member, holder) = (group("members"), group("holders"));
    let (stop, looks, got) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(u64::MAX));
    let end = Instant::now() + long_enough();
    let mut rounds = 0;
    thread::scope(|scope| {
        let stopped = Stop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                if !looks.load(Ordering::SeqCst) {
                    thread::yield_now();
                } else if let Ok(message) = member.try_recv() {
                    let sequence = message.sequence();
                    drop(message);
                    looks.store(false, Ordering::SeqCst);
                    got.store(sequence, Ordering::SeqCst);
                }
            }
        });
        let (mut held, mut next) = (None::<Published<u64>>, 0);
        while Instant::now() < end {
            if held.as_ref().is_some_and(|held| held.sequence() + cells == next) {
                rounds += 1;
                got.store(u64::MAX, Ordering::SeqCst);
                looks.store(true, Ordering::SeqCst);
                thread::sleep(Duration::from_micros(50 + rounds % 37));
                held = None;
                publisher.try_send(next).unwrap();
                publisher.try_send(next + 1).unwrap();
                common::eventually("the member gets something", || got.load(Ordering::SeqCst) != u64::MAX);
                assert_eq!(got.load(Ordering::SeqCst), next, "in round {rounds}");
                assert_eq!((member.len(), member.try_recv().unwrap().sequence()), (1, next + 1));
                while let Ok(message) = holder.try_recv() {
                    next = message.sequence() + 1;
                }
                continue;
            }
            publisher.try_send(next).unwrap();
            drop(member.try_recv().unwrap());
            let message = holder.try_recv().unwrap();
            next = message.sequence();
            // The next position is one at which publishers raise the hint.
            if held.is_none() && next % 64 == 63 {
                held = Some(message);
            }
            next += 1;
        }
        drop(stopped);
    });
    assert!(rounds > 0);
    println!("{rounds} rounds");
}

/// A message is given back, while the last member of its group leaves.
#[test]
fn what_is_given_back_while_the_last_member_leaves_keeps_neither_memory_nor_a_place() {
    let segment = in_process();
    let publisher = segment.broadcast::<u64>("jobs").max_groups(1).capacity(4).publisher().unwrap();
    let mut random = Random::new(5);
    let end = Instant::now() + long_enough();
    let mut rounds = 0;
    while Instant::now() < end {
        rounds += 1;
        let workers = segment.broadcast::<u64>("jobs").group("workers");
        let worker = workers.delivery(Delivery::AtLeastOnce { max_deliveries: 9 }).subscriber();
        let worker = worker.unwrap_or_else(|error| panic!("in round {rounds}: {error}"));
        publisher.try_send(rounds).unwrap();
        let message = worker.try_recv().unwrap();
        let (delay, barrier, go) = (random.below(400) as u64, Barrier::new(2), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                barrier.wait();
                while !go.load(Ordering::Acquire) {
                    std::hint::spin_loop();
                }
                spin(delay);
                message.nack();
            });
            barrier.wait();
            go.store(true, Ordering::Release);
            drop(worker);
        });
        if rounds % 64 == 0 {
            assert_eq!(published(&segment), 0, "in round {rounds}");
        }
    }
    println!("{rounds} rounds");
    assert_eq!(published(&segment), 0);
}

#[test]
fn of_two_that_join_the_last_group_at_once_both_are_members() {
    let (_place, one, other) = two();
    let end = Instant::now() + long_enough();
    let mut rounds = 0;
    while Instant::now() < end {
        rounds += 1;
        let publisher = one.broadcast::<u64>("ticks").max_groups(1).capacity(4).publisher().unwrap();
        let barrier = Barrier::new(2);
        let members: Vec<Subscriber<u64>> = thread::scope(|scope| {
            let joining = [&one, &other].map(|segment| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    segment.broadcast::<u64>("ticks").group("workers").subscriber()
                })
            });
            let joined = joining.into_iter().map(|joining| joining.join().unwrap());
            joined.map(|joined| joined.unwrap_or_else(|error| panic!("in round {rounds}: {error}"))).collect()
        });
        assert_eq!(publisher.try_send(rounds).unwrap(), 1);
        let got = members.iter().filter_map(|member| member.try_recv().ok()).map(|message| *message);
        assert_eq!(got.collect::<Vec<_>>(), [rounds]);
    }
    println!("{rounds} rounds");
}

/// Members of several groups come and go beside a publisher, with history: what a group has received once it receives or is
/// told of, and nothing twice.
#[test]
fn joins_beside_a_publisher_leave_no_untold_gap() {
    let segment = in_process();
    let ticks = || segment.broadcast::<u64>("ticks").capacity(8).history(8).max_groups(4);
    let publisher = ticks().publisher().unwrap();
    let stop = AtomicBool::new(false);
    let end = Instant::now() + long_enough();
    let joins = AtomicU64::new(0);
    thread::scope(|scope| {
        let stopped = Stop(&stop);
        scope.spawn(|| {
            let mut random = Random::new(9);
            for number in (0..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                publisher.try_send(number).unwrap();
                spin(random.below(300) as u64);
            }
        });
        let joining: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while Instant::now() < end {
                        joins.fetch_add(1, Ordering::Relaxed);
                        let subscriber = ticks().only().history(8).subscriber().unwrap();
                        let (mut last, mut missed) = (None::<u64>, 0);
                        for _ in 0..40 {
                            match subscriber.try_recv() {
                                Ok(message) => {
                                    // Numbers of messages have gaps where somebody holds a cell for a lap.
                                    let now = *message;
                                    if let Some(last) = last {
                                        assert_eq!(now - last - 1, missed, "{now} after {last}");
                                    }
                                    (last, missed) = (Some(now), 0);
                                }
                                Err(broadcast::TryRecvError::Lagged(more)) => missed += more,
                                Err(error) => assert_eq!(error, broadcast::TryRecvError::Empty),
                            }
                        }
                    }
                })
            })
            .collect();
        joining.into_iter().for_each(|joining| joining.join().unwrap());
        drop(stopped);
    });
    println!("{joins:?} joins");
}

/// Groups that publishers wait for come and go in two columns, by several members each, while messages are held for long: each reads what was
/// written, and misses nothing.
#[test]
fn columns_change_hands_beside_publishers_and_held_messages_stay_whole() {
    pin();
    let (_place, one, other) = two();
    let words = |segment: &Segment| segment.broadcast::<[u64]>("words").capacity(4).history(4).max_groups(3);
    let publisher = words(&one).publisher().unwrap();
    let (stop, end) = (AtomicBool::new(false), Instant::now() + long_enough());
    let lives = AtomicU64::new(0);
    thread::scope(|scope| {
        let stopped = Stop(&stop);
        scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                match publisher.try_send([number; 24]) {
                    Ok(_) => number += 1,
                    Err(error) => assert!(error.is_full(), "{error}"),
                }
                if number % 16 == 0 {
                    thread::yield_now();
                }
            }
        });
        let members: Vec<_> = (0..4_u64)
            .map(|at| {
                let (one, other, words, lives) = (&one, &other, &words, &lives);
                scope.spawn(move || {
                    let segment = if at < 2 { one } else { other };
                    let mut random = Random::new(at + 1);
                    let mut held: Vec<Published<[u64]>> = Vec::new();
                    while Instant::now() < end {
                        // Two of each group, at the same time or nearly so.
                        let group = words(segment).group(["odd", "even"][at as usize % 2]).behind(Behind::Block);
                        let member = group.history(random.below(3)).subscriber().unwrap();
                        lives.fetch_add(1, Ordering::Relaxed);
                        let mut last = None;
                        for _ in 0..random.below(24) {
                            match member.try_recv() {
                                Ok(message) => {
                                    assert!(last < Some(message[0]), "{} after {last:?}", message[0]);
                                    last = Some(message[0]);
                                    held.push(message);
                                }
                                Err(broadcast::TryRecvError::Empty) => thread::yield_now(),
                                // Of what was there before it.
                                Err(error) => {
                                    assert!(matches!(error, broadcast::TryRecvError::Lagged(1..=2)), "{error}")
                                }
                            }
                        }
                        let whole = |message: &Published<[u64]>| message.iter().all(|word| *word == message[0]);
                        assert!(held.iter().all(whole));
                        while held.len() > 20 {
                            drop(held.swap_remove(random.below(held.len())));
                        }
                    }
                    assert!(held.iter().all(|message| message.iter().all(|word| *word == message[0])));
                })
            })
            .collect();
        members.into_iter().for_each(|member| member.join().unwrap());
        drop(stopped);
    });
    println!("{lives:?} lives");
    drop(publisher);
    assert_eq!(published(&one), 0);
    assert!(one.channels().is_empty());
}
