//! Notifications: as tokio's, between processes, and whoever notifies or waits may be killed.

mod common;

use std::{
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use common::{Place, Random, assert_empty, in_process, ready, role, two, wait_to_be_killed, wait_until_ready, within};
use waterway::{OpenError, Segment, notify::Notify, segment::ChannelKind};

fn is_done<F: Future<Output = ()>>(future: Pin<&mut F>) -> bool {
    future.poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Count {
    fn new() -> (Arc<Self>, Waker) {
        let count = Arc::new(Self(AtomicUsize::new(0)));
        (Arc::clone(&count), count.into())
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn one_notification_is_stored_and_no_more() {
    let segment = in_process();
    let notify = segment.notify("tick").unwrap();
    assert!(!is_done(pin!(notify.notified())));
    for _ in 0..3 {
        notify.notify_one();
    }
    assert!(is_done(pin!(notify.notified())));
    assert!(!is_done(pin!(notify.notified())));
    // One that nobody has polled waits for nothing.
    let never_polled = notify.notified();
    notify.notify_one();
    drop(never_polled);
    assert!(is_done(pin!(notify.notified())));
    // Nothing is stored for those who come after.
    notify.notify_waiters();
    assert!(!is_done(pin!(notify.notified())));
    drop(notify);
    assert_empty(&segment);
    assert!(segment.channels().is_empty());
}

#[test]
fn each_call_ends_a_wait_and_the_longest_first() {
    let segment = in_process();
    let notify = segment.notify("tick").unwrap();
    let mut waits: Vec<_> = (0..3).map(|_| Box::pin(notify.notified())).collect();
    let counts: Vec<_> = waits
        .iter_mut()
        .map(|wait| {
            let (count, waker) = Count::new();
            assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            count
        })
        .collect();
    notify.notify_one();
    assert_eq!(counts.iter().map(|count| count.get()).collect::<Vec<_>>(), [1, 0, 0]);
    notify.notify_one();
    assert_eq!(counts.iter().map(|count| count.get()).collect::<Vec<_>>(), [1, 1, 0]);
    notify.notify_one();
    // Three for the three who wait, and one for who comes.
    for _ in 0..5 {
        notify.notify_one();
    }
    assert!(waits.iter_mut().all(|wait| is_done(wait.as_mut())));
    assert!(is_done(pin!(notify.notified())));
    assert!(!is_done(pin!(notify.notified())));
}

#[test]
fn a_notified_wait_that_is_dropped_passes_it_on_or_leaves_it_stored() {
    let segment = in_process();
    let notify = segment.notify("tick").unwrap();
    let mut first = Box::pin(notify.notified());
    let mut second = Box::pin(notify.notified());
    let (wakes, waker) = Count::new();
    assert!(!is_done(first.as_mut()));
    assert!(second.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    notify.notify_one();
    assert_eq!(wakes.get(), 0);
    drop(first);
    assert_eq!(wakes.get(), 1);
    // And the second as well: it is stored for who comes. However many there were, one is.
    notify.notify_one();
    drop(second);
    assert!(is_done(pin!(notify.notified())));
    assert!(!is_done(pin!(notify.notified())));
}

#[test]
fn all_that_were_created_before_are_notified_polled_or_not() {
    let (_place, one, other) = two();
    let (mine, theirs) = (one.notify("tick").unwrap(), other.notify("tick").unwrap());
    let mut waits: Vec<_> =
        (0..4).map(|at| Box::pin(if at % 2 == 0 { mine.notified() } else { theirs.notified() })).collect();
    for wait in &mut waits[..2] {
        assert!(!is_done(wait.as_mut()));
    }
    assert!(!waits[2].as_mut().enable());
    mine.notify_waiters();
    let mut late = pin!(theirs.notified());
    assert!(waits.iter_mut().all(|wait| is_done(wait.as_mut())));
    assert!(!is_done(late.as_mut()));
    // One that is done has left the queue: this is for the one who still waits.
    theirs.notify_one();
    assert!(is_done(late.as_mut()));
    drop(waits);
    assert!(!is_done(pin!(mine.notified())));
}

#[test]
fn one_that_is_enabled_is_notified_before_it_is_polled() {
    let segment = in_process();
    let notify = segment.notify("tick").unwrap();
    let mut waiting = pin!(notify.notified());
    assert!(!waiting.as_mut().enable());
    notify.notify_one();
    notify.notify_one();
    assert!(waiting.as_mut().enable() && is_done(waiting));
    assert!(is_done(pin!(notify.notified())));
}

#[test]
fn tasks_of_many_threads_hear_of_everything() {
    let (_place, one, other) = two();
    let (mine, theirs) = (one.notify("tick").unwrap(), other.notify("tick").unwrap());
    let heard = AtomicUsize::new(0);
    thread::scope(|scope| {
        for notify in [&mine, &theirs, &mine, &theirs] {
            let heard = &heard;
            scope.spawn(move || {
                within(async {
                    for _ in 0..500 {
                        notify.notified().await;
                        heard.fetch_add(1, Ordering::SeqCst);
                    }
                });
            });
        }
        // One at a time: none is stored with another one, and none is lost.
        for number in 0..2000 {
            [&theirs, &mine][number % 2].notify_one();
            common::eventually("somebody has heard", || heard.load(Ordering::SeqCst) > number);
        }
    });
    drop((mine, theirs));
    assert_empty(&one);
}

#[test]
fn a_notify_is_a_notify() {
    let segment = in_process();
    let _notify = segment.notify("tick").unwrap();
    let OpenError::Mismatch { expected, found, .. } = segment.semaphore("tick").permits(2).open().unwrap_err() else {
        panic!("it is a notify");
    };
    assert_eq!((expected.as_str(), found.as_str()), ("a semaphore of 2 permits", "a notify"));
    assert!(matches!(segment.bytes("tick").open(), Err(OpenError::Mismatch { .. })));
    assert_eq!(segment.channels()[0].kind, ChannelKind::Notify);
    assert!(matches!(segment.notify(""), Err(OpenError::InvalidName { .. })));
}

fn open(place: &Place) -> (Segment, Notify, Notify) {
    let segment = place.options().size(4 << 20).participants(8).open_or_create("notify").unwrap();
    let (there, back) = (segment.notify("there").unwrap(), segment.notify("back").unwrap());
    (segment, there, back)
}

#[test]
fn a_notification_that_a_killed_process_was_woken_for_is_somebody_elses() {
    const TEST: &str = "a_notification_that_a_killed_process_was_woken_for_is_somebody_elses";
    let place = Place::new();
    let (segment, there, _back) = open(&place);
    if role().is_some() {
        let mut waiting = pin!(there.notified());
        assert!(!waiting.as_mut().enable());
        ready(&place);
        // It never fetches anything.
        wait_to_be_killed();
    }
    for _ in 0..10 {
        let child = place.spawn(TEST, "wait");
        wait_until_ready(&place, &child);
        // Two, for the child and for who comes: with the child dead, nobody waits, and one is stored.
        there.notify_one();
        there.notify_one();
        child.kill();
        segment.bury_the_dead();
        assert!(is_done(pin!(there.notified())));
        assert!(!is_done(pin!(there.notified())));

        // And with somebody asleep here, who has been waiting for longer or shorter.
        let child = place.spawn(TEST, "wait");
        wait_until_ready(&place, &child);
        within(async {
            let mut here = pin!(there.notified());
            assert!(tokio::time::timeout(Duration::from_millis(1), here.as_mut()).await.is_err());
            there.notify_one();
            child.kill();
            here.await;
        });
        assert!(!is_done(pin!(there.notified())));
    }
    segment.bury_the_dead();
    drop((there, _back));
    assert_empty(&segment);
}

#[test]
fn waiters_and_notifiers_are_killed_at_random_moments_and_the_others_go_on() {
    const TEST: &str = "waiters_and_notifiers_are_killed_at_random_moments_and_the_others_go_on";
    let place = Place::new();
    let (segment, there, back) = open(&place);
    if let Some(role) = role() {
        let mut random = Random::new(role.parse().unwrap());
        return within(async {
            loop {
                // Gives up in the middle, too.
                let time = Duration::from_micros(random.below(2000) as u64);
                if tokio::time::timeout(time, there.notified()).await.is_ok() || random.below(8) == 0 {
                    back.notify_one();
                }
            }
        });
    }
    let mut random = Random::new(3);
    let mut children: Vec<_> = (0..3).map(|number| place.spawn(TEST, &number.to_string())).collect();
    for round in 0..40 {
        within(async {
            for _ in 0..20 {
                match random.below(4) {
                    0 => there.notify_waiters(),
                    _ => there.notify_one(),
                }
                back.notified().await;
            }
        });
        let at = random.below(children.len());
        thread::sleep(Duration::from_micros(random.below(2000) as u64));
        let mut child = children.swap_remove(at);
        assert!(child.ended().is_none());
        child.kill();
        children.push(place.spawn(TEST, &(10 + round).to_string()));
    }
    for mut child in children {
        assert!(child.ended().is_none());
        child.kill();
    }
    segment.bury_the_dead();
    // Whatever happened, one at most is stored with nobody there to fetch it.
    for notify in [&there, &back] {
        let _ = is_done(pin!(notify.notified()));
        assert!(!is_done(pin!(notify.notified())));
        notify.notify_one();
        assert!(is_done(pin!(notify.notified())));
    }
    assert_eq!(segment.participants().len(), 1);
    drop((there, back));
    assert_empty(&segment);
}

#[test]
fn a_wait_is_over_also_for_tasks_that_sleep_in_another_process() {
    const TEST: &str = "a_wait_is_over_also_for_tasks_that_sleep_in_another_process";
    let place = Place::new();
    let (segment, there, back) = open(&place);
    if role().is_some() {
        return within(async {
            let mut waits: Vec<_> = (0..5).map(|_| Box::pin(there.notified())).collect();
            for wait in &mut waits {
                assert!(Pin::new(wait).poll(&mut Context::from_waker(Waker::noop())) == Poll::Pending);
            }
            back.notify_one();
            for wait in waits {
                wait.await;
            }
            back.notify_one();
        });
    }
    // One for each, and before they come: of what nobody waits for, only one is stored.
    let mut ready: Vec<_> = (0..3).map(|_| Box::pin(back.notified())).collect();
    ready.iter_mut().for_each(|wait| assert!(!wait.as_mut().enable()));
    let children: Vec<_> = ready.iter().map(|_| place.spawn(TEST, "wait")).collect();
    within(async {
        for wait in ready {
            wait.await;
        }
        there.notify_waiters();
    });
    children.into_iter().for_each(common::Process::succeed);
    drop((there, back));
    assert_empty(&segment);
}
