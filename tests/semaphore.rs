//! Semaphores: as tokio's, between processes, and whoever holds permits may be killed.

mod common;

use std::{
    fs::File,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use common::{
    Place, Random, assert_empty, at_once, eventually, in_process, ready, role, two, wait_to_be_killed,
    wait_until_ready, within,
};
use waterway::{
    OpenError, Segment,
    segment::ChannelKind,
    semaphore::{AcquireError, Semaphore, TryAcquireError},
};

fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn permits_are_had_and_given_back_as_in_tokio() {
    let segment = in_process();
    let semaphore = segment.semaphore("jobs").permits(5).open().unwrap();
    assert_eq!((semaphore.available_permits(), semaphore.max_permits()), (5, 5));
    let mut two = semaphore.try_acquire_many(2).unwrap();
    let three = within(semaphore.acquire_many(3)).unwrap();
    assert_eq!((two.num_permits(), three.num_permits(), semaphore.available_permits()), (2, 3, 0));
    assert_eq!(semaphore.try_acquire().unwrap_err(), TryAcquireError::NoPermits);
    assert_eq!(semaphore.try_acquire_many(0).unwrap().num_permits(), 0);
    two.merge(three);
    let one = two.split(1).unwrap();
    assert!(two.split(5).is_none());
    assert_eq!((two.num_permits(), one.num_permits()), (4, 1));
    drop(two);
    assert_eq!(semaphore.available_permits(), 4);
    assert_eq!(semaphore.try_acquire_many(5).unwrap_err(), TryAcquireError::NoPermits);
    drop(one);
    drop(semaphore.try_acquire_many(5).unwrap());
    // More than there are can never be had.
    let refused = within(semaphore.acquire_many(6)).unwrap_err();
    assert_eq!(refused, AcquireError::TooMany { asked: 6, permits: 5 });
    assert!(refused.to_string().contains("has 5"), "{refused}");
    assert_eq!(semaphore.try_acquire_many(6).unwrap_err(), TryAcquireError::NoPermits);
    drop(semaphore);
    assert_empty(&segment);
    assert!(segment.channels().is_empty());
}

#[test]
fn owned_permits_go_anywhere_and_outlive_handles() {
    let segment = in_process();
    let semaphore = segment.semaphore("jobs").permits(3).open().unwrap();
    let mut owned = within(semaphore.clone().acquire_many_owned(2)).unwrap();
    let half = owned.split(1).unwrap();
    assert!(half.semaphore().same_semaphore(&semaphore));
    assert_eq!(semaphore.clone().try_acquire_many_owned(2).unwrap_err(), TryAcquireError::NoPermits);
    drop(semaphore);
    thread::spawn(move || drop(half)).join().unwrap();
    // The handle in the permit keeps the semaphore.
    let again = segment.semaphore("jobs").open().unwrap();
    assert_eq!(again.available_permits(), 2);
    drop(owned);
    assert_eq!(again.available_permits(), 3);
    drop(again);
    assert_empty(&segment);
}

#[test]
fn a_semaphore_is_what_it_was_opened_as() {
    let segment = in_process();
    let _semaphore = segment.semaphore("jobs").permits(3).open().unwrap();
    let _channel = segment.channel::<u64>("numbers").open().unwrap();
    let told = |error: OpenError| match &error {
        OpenError::Mismatch { .. } => error.to_string(),
        other => panic!("{other:?}"),
    };
    let said = told(segment.semaphore("jobs").permits(4).open().unwrap_err());
    assert!(said.contains("a semaphore of 3 permits") && said.contains("a semaphore of 4 permits"), "{said}");
    let said = told(segment.channel::<u64>("jobs").sender().unwrap_err());
    assert!(said.contains("a semaphore of 3 permits") && said.contains("a channel of u64"), "{said}");
    let said = told(segment.semaphore("numbers").open().unwrap_err());
    assert!(said.contains("asked for was a semaphore:") && said.contains("a channel of u64 (8 bytes"), "{said}");
    let too_many = segment.semaphore("x").permits(Semaphore::MAX_PERMITS + 1).open();
    assert!(matches!(too_many, Err(OpenError::InvalidOptions(_))));
    assert!(matches!(segment.semaphore("no name").open(), Err(OpenError::InvalidName { .. })));
    let mut listed: Vec<_> =
        segment.channels().into_iter().map(|found| (found.name, found.kind, found.capacity)).collect();
    listed.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [("jobs".into(), ChannelKind::Semaphore, 3), ("numbers".into(), ChannelKind::Channel, 1024)];
    assert_eq!(listed, expected);
    // The most that there can be needs no more memory than the least.
    let large = segment.semaphore("large").permits(1 << 24).open().unwrap();
    let all = large.try_acquire_many(1 << 24).unwrap();
    assert_eq!(large.try_acquire().unwrap_err(), TryAcquireError::NoPermits);
    drop(all);
    assert_eq!(large.available_permits(), 1 << 24);
}

#[test]
fn permits_are_added_and_forgotten() {
    let segment = in_process();
    let semaphore = segment.semaphore("jobs").permits(3).open().unwrap();
    let counts = || (semaphore.available_permits(), semaphore.max_permits());
    semaphore.try_acquire().unwrap().forget();
    assert_eq!(counts(), (2, 2));
    let mut two = semaphore.clone().try_acquire_many_owned(2).unwrap();
    two.split(1).unwrap().forget();
    assert_eq!((two.num_permits(), counts()), (1, (0, 1)));
    drop(two);
    assert_eq!(counts(), (1, 1));
    assert_eq!((semaphore.forget_permits(5), semaphore.forget_permits(1), counts()), (1, 0, (0, 0)));
    assert_eq!(semaphore.try_acquire().unwrap_err(), TryAcquireError::NoPermits);
    // More than it was made with.
    assert_eq!((semaphore.add_permits(5), counts()), (5, (5, 5)));
    assert_eq!(within(semaphore.acquire_many(5)).unwrap().num_permits(), 5);
    let asked = AcquireError::TooMany { asked: 6, permits: 5 };
    assert_eq!(within(semaphore.acquire_many(6)).unwrap_err(), asked);
    // As many as it was made with can be waited for, though there are fewer just now.
    assert_eq!((semaphore.forget_permits(3), counts()), (3, (2, 2)));
    within(async {
        let mut three = Box::pin(semaphore.acquire_many(3));
        assert!(futures::poll!(&mut three).is_pending());
        semaphore.add_permits(1);
        assert_eq!(three.await.unwrap().num_permits(), 3);
    });
    // Another one that was made with as many finds it as it is now.
    let again = segment.semaphore("jobs").permits(3).open().unwrap();
    assert_eq!(again.add_permits(Semaphore::MAX_PERMITS), Semaphore::MAX_PERMITS - 3);
    assert_eq!((counts(), again.add_permits(1)), ((Semaphore::MAX_PERMITS, Semaphore::MAX_PERMITS), 0));
    assert_eq!(again.forget_permits(usize::MAX), Semaphore::MAX_PERMITS);
    assert_eq!(counts(), (0, 0));
    drop((again, semaphore));
    assert_empty(&segment);
    // And a new one of that name is new.
    assert_eq!(segment.semaphore("jobs").permits(3).open().unwrap().available_permits(), 3);
}

#[test]
fn permits_that_are_added_wake_who_waits_in_another_process_and_there_may_be_none_before() {
    let (_place, one, other) = two();
    let ours = one.semaphore("signal").permits(0).open().unwrap();
    let theirs = other.semaphore("signal").open().unwrap();
    assert_eq!(ours.max_permits(), 0);
    let waiting = thread::spawn(move || {
        for _ in 0..100 {
            theirs.blocking_acquire().unwrap().forget();
        }
    });
    for _ in 0..50 {
        thread::sleep(Duration::from_micros(200));
        assert_eq!(ours.add_permits(2), 2);
    }
    eventually("all are used", || waiting.is_finished());
    waiting.join().unwrap();
    assert_eq!((ours.available_permits(), ours.max_permits()), (0, 0));
    drop(ours);
    assert_empty(&one);
}

#[test]
fn what_a_killed_process_has_forgotten_or_added_stays_so_and_the_rest_comes_back() {
    const TEST: &str = "what_a_killed_process_has_forgotten_or_added_stays_so_and_the_rest_comes_back";
    let place = Place::new();
    let (segment, semaphore) = open(&place);
    if role().is_some() {
        let held = semaphore.try_acquire_many(2).unwrap();
        semaphore.try_acquire().unwrap().forget();
        semaphore.add_permits(10);
        assert_eq!(semaphore.forget_permits(4), 4);
        ready(&place);
        let _held = held;
        wait_to_be_killed();
    }
    let child = place.spawn(TEST, "forget");
    wait_until_ready(&place, &child);
    assert_eq!((semaphore.available_permits(), semaphore.max_permits()), (6, 8));
    child.kill();
    // 3 - 1 + 10 - 4
    assert_eq!(within(semaphore.acquire_many(8)).unwrap().num_permits(), 8);
    assert_eq!((semaphore.available_permits(), semaphore.max_permits()), (8, 8));
    drop(semaphore);
    assert_empty(&segment);
}

#[test]
fn closing_tells_whoever_waits_and_leaves_what_is_held() {
    let (_place, one, other) = two();
    let semaphore = one.semaphore("jobs").open().unwrap();
    let theirs = other.semaphore("jobs").permits(1).open().unwrap();
    let held = semaphore.try_acquire().unwrap();
    let waiting = thread::spawn(move || (theirs.blocking_acquire().map(drop), theirs));
    // Most likely it waits by now; if not, it finds it closed.
    thread::sleep(Duration::from_millis(20));
    semaphore.close();
    let (outcome, theirs) = waiting.join().unwrap();
    assert_eq!(outcome, Err(AcquireError::Closed));
    assert!(theirs.is_closed());
    drop(held);
    assert_eq!(theirs.try_acquire().unwrap_err(), TryAcquireError::Closed);
    assert_eq!(within(theirs.acquire_many(0)).unwrap_err(), AcquireError::Closed);
    drop((semaphore, theirs));
    // A new one is open.
    assert!(one.semaphore("jobs").open().unwrap().try_acquire().is_ok());
    assert_empty(&one);
}

#[test]
fn who_wants_many_is_not_passed_by_who_wants_one() {
    let segment = in_process();
    let semaphore = segment.semaphore("jobs").permits(4).open().unwrap();
    let mut held: Vec<_> = (0..4).map(|_| semaphore.try_acquire().unwrap()).collect();
    let mut many = std::pin::pin!(semaphore.acquire_many(3));
    assert!(poll(many.as_mut()).is_pending());
    let mut one = std::pin::pin!(semaphore.acquire());
    assert!(poll(one.as_mut()).is_pending());
    // What comes back is for who stands in line, and nobody else, however often they ask.
    for _ in 0..2 {
        held.pop();
        assert!(poll(one.as_mut()).is_pending() && semaphore.try_acquire().is_err());
        assert!(poll(many.as_mut()).is_pending());
    }
    held.pop();
    assert!(semaphore.try_acquire().is_err());
    let Poll::Ready(Ok(many)) = poll(many.as_mut()) else { panic!("three are free") };
    assert_eq!(many.num_permits(), 3);
    assert!(poll(one.as_mut()).is_pending());
    drop(many);
    assert!(poll(one.as_mut()).is_ready());
}

#[test]
fn a_wait_that_is_dropped_has_taken_nothing_and_passes_its_wake_on() {
    let segment = in_process();
    let semaphore = segment.semaphore("jobs").permits(2).open().unwrap();
    for wanted in [1, 2] {
        let held = semaphore.try_acquire_many(2).unwrap();
        let mut first = Box::pin(semaphore.acquire_many(wanted));
        assert!(poll(first.as_mut()).is_pending());
        let (wakes, waker) = counting_waker();
        let mut second = std::pin::pin!(semaphore.acquire());
        assert!(second.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        // The first is notified, and goes.
        drop(held);
        drop(first);
        assert!(wakes.load(Ordering::Relaxed) > 0, "the second of two was not woken when the first went ({wanted})");
        assert!(poll(second.as_mut()).is_ready());
        assert_eq!(semaphore.available_permits(), 2);
    }
}

fn counting_waker() -> (Arc<AtomicUsize>, Waker) {
    struct Count(Arc<AtomicUsize>);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let count = Arc::new(AtomicUsize::new(0));
    (Arc::clone(&count), Arc::new(Count(count)).into())
}

fn open(place: &Place) -> (Segment, Semaphore) {
    let segment = place.options().size(4 << 20).participants(8).open_or_create("semaphore").unwrap();
    let semaphore = segment.semaphore("jobs").permits(3).open().unwrap();
    (segment, semaphore)
}

#[test]
fn what_a_killed_process_held_comes_back_and_wakes_who_waits() {
    const TEST: &str = "what_a_killed_process_held_comes_back_and_wakes_who_waits";
    let place = Place::new();
    let (segment, semaphore) = open(&place);
    if role().is_some() {
        let held = semaphore.try_acquire_many(3).unwrap();
        ready(&place);
        let _held = held;
        wait_to_be_killed();
    }
    for wanted in [1, 3] {
        let child = place.spawn(TEST, "hold");
        wait_until_ready(&place, &child);
        assert_eq!(semaphore.available_permits(), 0);
        within(async {
            let mut waiting = std::pin::pin!(semaphore.acquire_many(wanted));
            assert!(tokio::time::timeout(Duration::from_millis(20), waiting.as_mut()).await.is_err());
            child.kill();
            assert_eq!(waiting.await.unwrap().num_permits(), wanted as usize);
        });
        assert_eq!(semaphore.available_permits(), 3);
    }
    drop(semaphore);
    assert_empty(&segment);
}

/// Works with permits until it is killed. Whoever holds one puts its number into a place of its own in a file, which nobody
/// else who holds permits at that time may use: the file is the witness that there are never more than three at work.
fn work_for_ever(place: &Place, semaphore: &Semaphore, number: u64) {
    let file = File::options().read(true).write(true).open(place.path().join("witness")).unwrap();
    let mut random = Random::new(number);
    within(async {
        loop {
            let wanted = 1 + random.below(3) as u32;
            if random.below(4) == 0 {
                // Gives up in the middle, too.
                let time = Duration::from_micros(random.below(300) as u64);
                let _ = tokio::time::timeout(time, semaphore.acquire_many(wanted)).await;
                continue;
            }
            let Ok(held) = semaphore.acquire_many(wanted).await else { return };
            if wanted == 3 {
                // All of them: nobody else is at work.
                file.write_all_at(&number.to_le_bytes(), 0).unwrap();
                tokio::task::yield_now().await;
                let mut there = [0; 8];
                file.read_exact_at(&mut there, 0).unwrap();
                assert_eq!(u64::from_le_bytes(there), number, "two had all permits at the same time");
            }
            let mut count = [0; 8];
            file.read_exact_at(&mut count, 8 * (1 + number % 8)).unwrap();
            count = (u64::from_le_bytes(count) + 1).to_le_bytes();
            file.write_all_at(&count, 8 * (1 + number % 8)).unwrap();
            drop(held);
        }
    });
}

#[test]
fn holders_and_waiters_are_killed_at_random_moments_and_the_others_go_on() {
    const TEST: &str = "holders_and_waiters_are_killed_at_random_moments_and_the_others_go_on";
    let place = Place::new();
    if let Some(role) = role() {
        let (_segment, semaphore) = open(&place);
        return work_for_ever(&place, &semaphore, role.parse().unwrap());
    }
    std::fs::write(place.path().join("witness"), [0; 9 * 8]).unwrap();
    let (segment, semaphore) = open(&place);
    let file = File::open(place.path().join("witness")).unwrap();
    let done = |number: u64| {
        let mut count = [0; 8];
        file.read_exact_at(&mut count, 8 * (1 + number % 8)).unwrap();
        u64::from_le_bytes(count)
    };
    let start = |number: u64| (number, done(number), place.spawn(TEST, &number.to_string()));
    let mut random = Random::new(7);
    let mut children: Vec<_> = (1..4).map(start).collect();
    for next in 4..44 {
        let at = random.below(children.len());
        let (number, before, mut child) = children.swap_remove(at);
        eventually("it gets permits in its turn", || {
            assert!(child.ended().is_none(), "process {number} has ended");
            done(number) > before
        });
        thread::sleep(Duration::from_micros(random.below(3000) as u64));
        child.kill();
        children.push(start(next));
        // This process gets all of them, too.
        assert_eq!(within(semaphore.acquire_many(3)).unwrap().num_permits(), 3);
    }
    for (number, _, mut child) in children {
        assert!(child.ended().is_none(), "process {number} has ended");
        child.kill();
    }
    segment.bury_the_dead();
    assert_eq!(semaphore.available_permits(), 3);
    assert_eq!(segment.participants().len(), 1);
    drop(semaphore);
    assert_empty(&segment);
    assert!(segment.channels().is_empty());
}

#[test]
fn of_those_who_try_for_permits_at_once_as_many_get_one_as_there_are() {
    let (_place, one, other) = two();
    for (permits, threads) in [(1, 2), (1, 3), (2, 3)] {
        let name = format!("jobs-{permits}-{threads}");
        let ours = one.semaphore(&name).permits(permits).open().unwrap();
        let theirs = other.semaphore(&name).open().unwrap();
        // Threads of one process, of two, and those that own what they get.
        for handles in [[&ours, &ours, &ours], [&ours, &theirs, &ours]] {
            let got = at_once(300, threads, |number| handles[number].try_acquire().ok());
            assert!(got.iter().all(|got| *got == permits), "{permits} permits, {threads} threads: {got:?}");
            let got = at_once(200, threads, |number| handles[number].clone().try_acquire_owned().ok());
            assert!(got.iter().all(|got| *got == permits), "{permits} permits, {threads} threads: {got:?}");
        }
        assert_eq!((ours.available_permits(), ours.max_permits()), (permits, permits));
    }
}

#[test]
fn of_two_who_try_for_all_permits_at_once_one_gets_them() {
    let (_place, one, other) = two();
    let ours = one.semaphore("all").permits(5).open().unwrap();
    let theirs = other.semaphore("all").open().unwrap();
    for handles in [[&ours, &ours], [&ours, &theirs]] {
        let got = at_once(300, 2, |number| handles[number].try_acquire_many(5).ok());
        assert!(got.iter().all(|got| *got == 1), "{got:?}");
        // Who wants three, and who wants four.
        let got = at_once(300, 2, |number| handles[number].try_acquire_many(3 + number as u32).ok());
        assert!(got.iter().all(|got| *got == 1), "{got:?}");
        let got = at_once(300, 2, |number| handles[number].try_acquire_many(2 + number as u32).ok());
        assert!(got.iter().all(|got| *got == 2), "{got:?}");
        // Forgetting takes what is free, too.
        let got = at_once(200, 2, |number| {
            let forgotten = handles[number].forget_permits(5);
            handles[number].add_permits(forgotten);
            (forgotten > 0).then_some(())
        });
        assert!(got.iter().all(|got| *got >= 1), "{got:?}");
    }
    assert_eq!((ours.available_permits(), theirs.max_permits()), (5, 5));
}

#[test]
fn who_waits_for_more_permits_than_there_are_any_more_is_told_and_keeps_none_from_others() {
    let (_place, one, other) = two();
    for handles in [(&one, &one), (&one, &other), (&other, &one)] {
        let ours = handles.0.semaphore("shrinking").permits(1).open().unwrap();
        let theirs = handles.1.semaphore("shrinking").open().unwrap();
        assert_eq!(ours.add_permits(4), 4);
        let four = ours.try_acquire_many(4).unwrap();
        // One in the line, one behind it, and one who wants what there is.
        let waiting: Vec<_> = [5, 3, 1]
            .into_iter()
            .map(|permits| {
                let theirs = theirs.clone();
                let waiting =
                    thread::spawn(move || within(theirs.acquire_many(permits)).map(|permit| permit.num_permits()));
                thread::sleep(Duration::from_millis(50));
                waiting
            })
            .collect();
        four.forget();
        let told: Vec<_> = waiting.into_iter().map(|waiting| waiting.join().unwrap()).collect();
        let too_many = |asked| Err(AcquireError::TooMany { asked, permits: 1 });
        assert_eq!(told, [too_many(5), too_many(3), Ok(1)]);
        assert_eq!((ours.available_permits(), ours.max_permits()), (1, 1));
    }
}

#[test]
fn who_does_not_poll_its_wait_for_many_permits_keeps_none_from_others() {
    let (_place, one, other) = two();
    let ours = one.semaphore("jobs").permits(4).open().unwrap();
    let theirs = other.semaphore("jobs").open().unwrap();
    let held = theirs.try_acquire().unwrap();
    let mut many = Box::pin(ours.acquire_many(4));
    assert!(poll(many.as_mut()).is_pending());
    // As long as it could not have them, nobody gets past it.
    thread::sleep(Duration::from_millis(200));
    assert_eq!(theirs.try_acquire().unwrap_err(), TryAcquireError::NoPermits);
    drop(held);
    eventually("others get past it", || theirs.try_acquire().is_ok());
    // What was forgotten cannot be had any more, and is in nobody's way either.
    let all = within(theirs.acquire_many(4)).unwrap();
    assert!(poll(many.as_mut()).is_pending());
    drop(all);
    assert_eq!(within(many).unwrap().num_permits(), 4);
    assert_eq!(ours.available_permits(), 4);
}

#[test]
fn a_process_stopped_while_it_waits_for_many_permits_keeps_none_from_others() {
    const TEST: &str = "a_process_stopped_while_it_waits_for_many_permits_keeps_none_from_others";
    let place = Place::new();
    let (_segment, semaphore) = open(&place);
    if role().is_some() {
        // The first poll shall go as far as it can.
        let waiting = semaphore.acquire_many(semaphore.max_permits() as u32);
        let mut many = std::pin::pin!(tokio::task::unconstrained(waiting));
        let mut is_told = false;
        let permits = within(std::future::poll_fn(|context| {
            let polled = many.as_mut().poll(context);
            if !std::mem::replace(&mut is_told, true) {
                assert!(polled.is_pending());
                ready(&place);
            }
            polled
        }))
        .unwrap();
        assert_eq!(permits.num_permits(), semaphore.max_permits());
        return;
    }
    let all = semaphore.max_permits();
    let held = semaphore.try_acquire_many(all as u32).unwrap();
    let child = place.spawn(TEST, "wait");
    wait_until_ready(&place, &child);
    child.stop();
    let waiting = thread::spawn({
        let semaphore = semaphore.clone();
        move || within(semaphore.acquire()).unwrap().forget()
    });
    thread::sleep(Duration::from_millis(100));
    drop(held);
    waiting.join().unwrap();
    eventually("all others are to be had", || semaphore.try_acquire_many(all as u32 - 1).is_ok());
    // It goes on as if it had just come.
    semaphore.add_permits(1);
    child.signal(libc::SIGCONT);
    child.succeed();
    assert_eq!(semaphore.available_permits(), all);
}

#[test]
fn a_closed_semaphore_forgets_permits_as_an_open_one() {
    let segment = in_process();
    let semaphore = segment.semaphore("jobs").permits(1 << 22).open().unwrap();
    let held = semaphore.try_acquire_many(10).unwrap();
    semaphore.close();
    assert_eq!(semaphore.forget_permits(5), 5);
    assert_eq!((semaphore.available_permits(), semaphore.max_permits()), ((1 << 22) - 15, (1 << 22) - 5));
    assert_eq!(semaphore.forget_permits(usize::MAX), (1 << 22) - 15);
    drop(held);
    assert_eq!((semaphore.forget_permits(11), semaphore.forget_permits(1)), (10, 0));
    assert_eq!(semaphore.try_acquire().unwrap_err(), TryAcquireError::Closed);
}
