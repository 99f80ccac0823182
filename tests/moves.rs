//! Messages that go round, from hand to hand in the same block, beside those who die a moment before they would have taken them.
//!
//! Only with `--cfg crash_points` (see `src/sys/crashing.rs`):
//!
//! ```sh
//! RUSTFLAGS="--cfg crash_points" CARGO_TARGET_DIR=target/crash cargo test --release --test moves -- --nocapture
//! ```
//!
//! Within one process, as in `crash_points_in_process`: who dies stands still, and loses its locks. What it was about to take is
//! in its intent still, so whoever buries it has to find out that it has not taken it; and by then the block may be anywhere.

#![cfg(crash_points)]

mod common;

use std::{
    mem,
    os::fd::{AsRawFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Sender as Orders, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use common::{PATIENCE, held};
use waterway::{ChannelOptions, Delivery, Message, Receiver, Segment, Sender, policy::Retention};

/// One granule long, so that a channel that needs more room at the end of its blocks has two.
type Ball = [u64; 7];

/// How many die in a test.
const DEATHS: u64 = 100;

/// How a message goes round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// It is forwarded into the channel that it came from.
    Forwarded,
    /// The same where messages expire, and blocks have trailers.
    ForwardedWithPolicies,
    /// It is given back.
    GivenBack,
}

impl Course {
    fn channel(self, segment: &Segment) -> ChannelOptions<Ball> {
        let channel = segment.channel("balls").capacity(4);
        match self {
            Self::Forwarded => channel,
            Self::ForwardedWithPolicies => channel.policy(Retention::ttl(PATIENCE * 100)),
            Self::GivenBack => channel.delivery(Delivery::AtLeastOnce { max_deliveries: u32::MAX }),
        }
    }

    fn pass_on(self, message: Message<Ball>, sender: &Sender<Ball>) {
        let number = message[0];
        assert_eq!(*message, [number; 7]);
        if self == Self::GivenBack {
            return message.nack();
        }
        let mut message = message;
        while let Err(error) = message.forward(sender) {
            assert!(error.is_full());
            message = error.into_inner();
        }
    }
}

fn another(segment: &Segment) -> Segment {
    Segment::from_fd(segment.as_fd().unwrap().try_clone_to_owned().unwrap()).unwrap()
}

/// What the kernel does when a process ends.
fn lose_locks(descriptor: &OwnedFd) {
    // SAFETY: `flock` is plain data, for which zeros are a value.
    let mut all: libc::flock = unsafe { mem::zeroed() };
    all.l_type = libc::F_UNLCK as libc::c_short;
    all.l_whence = libc::SEEK_SET as libc::c_short;
    // From there on: see `src/sys/lock.rs`.
    all.l_start = 1 << 62;
    // SAFETY: the descriptor is open, and the lock outlives the call.
    assert_eq!(unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_OFD_SETLK, &raw const all) }, 0);
}

/// The line in which a receiver takes a message out of its cell.
fn line_of_taking() -> u32 {
    let taking = |line: &str| line.contains("compare_exchange(front.cell, empty");
    1 + include_str!("../src/ring/mod.rs").lines().position(taking).unwrap() as u32
}

/// Somebody who is dead: it stands still until it is let go.
struct Dead {
    go: Orders<()>,
    thread: JoinHandle<()>,
}

impl Dead {
    /// Joins the channel, and dies before it takes a message that it has said it would take.
    fn before_it_takes(course: Course, segment: &Segment) -> Self {
        let victim = another(segment);
        let locks = victim.as_fd().unwrap().try_clone_to_owned().unwrap();
        let ((says, hears), (go, waits)) = (channel(), channel::<()>());
        let line = line_of_taking();
        let thread = thread::spawn(move || {
            let receiver = course.channel(&victim).receiver().unwrap();
            let stand_still = move |place: &std::panic::Location<'_>| {
                if place.file().ends_with("ring/mod.rs") && place.line() == line {
                    says.send(()).unwrap();
                    // Until nobody wants anything of it any more: not even that it unwinds in good order.
                    assert!(waits.recv().is_err());
                    resume_unwind(Box::new(()));
                }
            };
            let take = || loop {
                // If others are quicker at each look, it looks again.
                if receiver.try_recv().is_ok() {
                    panic!("it stands still before it takes anything");
                }
            };
            let ended = catch_unwind(AssertUnwindSafe(|| waterway::watch_crash_points(stand_still, take)));
            assert!(ended.is_err_and(|end| end.is::<()>()));
            // The dead leave nothing.
            mem::forget((receiver, victim));
        });
        hears.recv_timeout(PATIENCE).expect("it comes to the place");
        lose_locks(&locks);
        Self { go, thread }
    }

    fn end(self) {
        drop(self.go);
        self.thread.join().unwrap();
    }
}

/// Passes on all that it gets, until it is told to stop. Counts.
fn juggle(course: Course, receiver: &Receiver<Ball>, sender: &Sender<Ball>, moved: &AtomicU64, over: &AtomicBool) {
    while !over.load(Ordering::SeqCst) {
        if let Ok(message) = receiver.try_recv() {
            course.pass_on(message, sender);
            moved.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn survives(course: Course) {
    waterway::without_bridges();
    let segment = Segment::options().size(2 << 20).participants(4).channels(8).anonymous().unwrap();
    let before = held(&segment);
    let (sender, receiver) = course.channel(&segment).open().unwrap();
    let reaper = another(&segment);
    let (moved, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    sender.try_send([7; 7]).unwrap();
    let juggler = {
        let (receiver, sender, moved, over) = (receiver.clone(), sender.clone(), Arc::clone(&moved), Arc::clone(&over));
        thread::spawn(move || juggle(course, &receiver, &sender, &moved, &over))
    };
    let mut dead = Vec::new();
    for death in 0..DEATHS {
        dead.push(Dead::before_it_takes(course, &segment));
        // What is left for later, as the message was in somebody's hands at each look, is found by the next.
        for _ in 0..5 {
            reaper.bury_the_dead();
        }
        // It goes on.
        let (then, started) = (moved.load(Ordering::SeqCst), Instant::now());
        while moved.load(Ordering::SeqCst) == then {
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "lost at death {death}: {:?}",
                segment.check().problems
            );
            thread::yield_now();
        }
    }
    over.store(true, Ordering::SeqCst);
    juggler.join().unwrap();
    reaper.bury_the_dead();
    assert_eq!(reaper.participants().len(), 2);
    assert_eq!(*receiver.try_recv().unwrap(), [7; 7]);
    assert!(receiver.try_recv().is_err());
    assert_eq!(receiver.invalid(), 0);
    drop((sender, receiver));
    assert_eq!(held(&segment), before);
    drop(reaper);
    dead.into_iter().for_each(Dead::end);
    // Whoever ends as the dead do leaves it in no good order.
    mem::forget(segment);
}

#[test]
fn a_message_that_goes_round_survives_all_who_died_before_they_took_it() {
    survives(Course::Forwarded);
}

#[test]
fn a_message_with_policies_that_goes_round_survives_all_who_died_before_they_took_it() {
    survives(Course::ForwardedWithPolicies);
}

#[test]
fn a_message_that_is_given_back_again_and_again_survives_all_who_died_before_they_took_it() {
    survives(Course::GivenBack);
}
