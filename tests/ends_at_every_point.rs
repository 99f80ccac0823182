//! Who leaves, enters, closes or sends stands still, or dies, before every store and read-modify-write that it makes, while others
//! go on in the same channel, or in the next one that has its entry, or use its memory.
//!
//! Only with `--cfg crash_points` (see `src/sys/crashing.rs`):
//!
//! ```sh
//! RUSTFLAGS="--cfg crash_points" CARGO_TARGET_DIR=target/crash cargo test --release --test ends_at_every_point
//! ```

#![cfg(crash_points)]

mod common;

use std::{
    mem,
    os::fd::{AsRawFd, OwnedFd},
    sync::mpsc::{Receiver as Hears, Sender as Says, channel},
    thread,
    time::{Duration, Instant},
};

use waterway::{
    ChannelOptions, Delivery, Receiver, Segment, Sender, TryRecvError,
    policy::{Priority, PriorityBy},
};

/// What waits when the last receiver goes.
const OLD: u64 = 3;
/// What is sent to who comes.
const NEW: std::ops::Range<u64> = 100..120;

type Options = fn(&Segment, &str) -> ChannelOptions<u64>;

fn plain(segment: &Segment, name: &str) -> ChannelOptions<u64> {
    segment.channel(name).capacity(64)
}

fn at_least_once(segment: &Segment, name: &str) -> ChannelOptions<u64> {
    plain(segment, name).delivery(Delivery::AtLeastOnce { max_deliveries: 5 })
}

fn levelled(segment: &Segment, name: &str) -> ChannelOptions<u64> {
    let level = |number: &u64| if number.is_multiple_of(2) { Priority::Low } else { Priority::High };
    plain(segment, name).policy(PriorityBy(level))
}

const KINDS: [(&str, Options); 3] = [("plain", plain), ("at least once", at_least_once), ("by level", levelled)];

fn segment() -> Segment {
    Segment::options().size(2 << 20).participants(4).channels(8).anonymous().unwrap()
}

fn another(segment: &Segment) -> Segment {
    Segment::from_fd(segment.as_fd().unwrap().try_clone_to_owned().unwrap()).unwrap()
}

/// What the kernel does when a process ends.
fn lose_locks(descriptor: &impl AsRawFd) {
    // SAFETY: `flock` is plain data.
    let mut all: libc::flock = unsafe { mem::zeroed() };
    all.l_type = libc::F_UNLCK as libc::c_short;
    all.l_whence = libc::SEEK_SET as libc::c_short;
    all.l_start = 1 << 62;
    // SAFETY: the descriptor is open, and the lock outlives the call.
    assert_eq!(unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_OFD_SETLK, &raw const all) }, 0);
}

/// Somebody who stands still before its nth access.
struct Victim<R> {
    go_on: Says<()>,
    ends: Hears<R>,
    locks: OwnedFd,
}

/// How far it came.
enum Came<R> {
    /// To that place.
    To(Victim<R>, String),
    /// To its end.
    Through(R),
}

/// Lets another participant work until it comes to a point.
fn until<R: Send + 'static>(
    segment: &Segment,
    point: u64,
    prepare: impl FnOnce(&Segment) -> Box<dyn FnOnce() -> R + Send>,
) -> Came<R> {
    let other = another(segment);
    let locks = other.as_fd().unwrap().try_clone_to_owned().unwrap();
    let work = prepare(&other);
    let (says, hears) = channel();
    let (go_on, waits) = channel::<()>();
    let (ended, ends) = channel();
    thread::spawn(move || {
        let mut passed = 0;
        let result = waterway::watch_crash_points(
            move |place| {
                if passed == point {
                    says.send(place.to_string()).unwrap();
                    if waits.recv().is_err() {
                        // Dead.
                        loop {
                            thread::park();
                        }
                    }
                }
                passed += 1;
            },
            work,
        );
        drop(other);
        ended.send(result).unwrap();
    });
    match hears.recv_timeout(common::PATIENCE) {
        Ok(place) => Came::To(Victim { go_on, ends, locks }, place),
        Err(_) => Came::Through(ends.recv_timeout(common::PATIENCE).expect("it comes to its end")),
    }
}

impl<R> Victim<R> {
    fn goes_on(self) -> R {
        self.go_on.send(()).unwrap();
        self.ends.recv_timeout(common::PATIENCE).expect("it comes to its end")
    }

    fn dies(self, segment: &Segment) {
        lose_locks(&self.locks);
        drop(self.go_on);
        let started = Instant::now();
        loop {
            segment.bury_the_dead();
            if segment.participants().len() == 1 {
                break;
            }
            assert!(started.elapsed() < Duration::from_secs(20), "it is not buried");
        }
    }
}

/// Runs a scene for each point of what the victim does; twice: it goes on afterwards, or dies. `meanwhile` is what others do, and
/// returns what is to be seen to afterwards.
fn at_every_point<W, R: Send + 'static, A: FnOnce(Option<R>, &str)>(
    begin: impl Fn(&Segment) -> W,
    victim: impl Fn(&Segment) -> Box<dyn FnOnce() -> R + Send>,
    meanwhile: impl Fn(&Segment, W, &str) -> A,
) {
    waterway::without_bridges();
    for dies in [false, true] {
        for point in 0.. {
            let segment = segment();
            let world = begin(&segment);
            let (came, at) = match until(&segment, point, &victim) {
                Came::To(stopped, place) => (Some(stopped), format!("{place} (access {point}, dies: {dies})")),
                Came::Through(result) => {
                    meanwhile(&segment, world, "the end")(Some(result), "the end");
                    assert!(point > 3, "{point} points");
                    break;
                }
            };
            let after = meanwhile(&segment, world, &at);
            let result = match came {
                Some(stopped) if dies => {
                    stopped.dies(&segment);
                    None
                }
                Some(stopped) => Some(stopped.goes_on()),
                None => None,
            };
            after(result, &at);
            // Nobody is there any more.
            segment.bury_the_dead();
            assert!(segment.channels().is_empty(), "at {at}: {:?}", segment.channels());
            let report = segment.check();
            assert!(report.is_clean(), "at {at}: {report:?}");
            assert_eq!(common::held(&segment), 0, "at {at}: {report:?}");
        }
    }
}

fn take_all(receiver: &Receiver<u64>) -> Vec<u64> {
    let mut taken = Vec::new();
    while let Ok(message) = receiver.try_recv() {
        taken.push(*message);
        message.ack();
    }
    taken
}

/// The last receiver of a channel in which something waits.
fn last_receiver(options: Options) -> impl Fn(&Segment) -> Box<dyn FnOnce() + Send> {
    move |other| {
        let receiver = options(other, "first").receiver().unwrap();
        let sender = options(other, "first").sender().unwrap();
        (0..OLD).for_each(|number| sender.try_send(number).unwrap());
        drop(sender);
        Box::new(move || drop(receiver))
    }
}

#[test]
fn what_is_sent_to_who_comes_is_received_wherever_the_last_receiver_stands_still_or_dies() {
    for (kind, options) in KINDS {
        at_every_point(
            |segment| options(segment, "first").sender().unwrap(),
            last_receiver(options),
            |segment, sender: Sender<u64>, at| {
                let receiver = options(segment, "first").receiver().unwrap();
                NEW.for_each(|number| {
                    sender.try_send(number).unwrap_or_else(|error| panic!("{kind}, at {at}: {error}"))
                });
                move |_, at: &str| {
                    let mut taken = take_all(&receiver);
                    // Where the old one had not gone yet, what waited for it is had as well.
                    taken.retain(|number| *number >= OLD);
                    taken.sort_unstable();
                    assert_eq!(taken, NEW.collect::<Vec<u64>>(), "{kind}, at {at}");
                    drop((sender, receiver));
                }
            },
        );
    }
}

#[test]
fn another_channel_is_left_alone_wherever_the_last_receiver_stands_still_or_dies() {
    for (kind, options) in KINDS {
        at_every_point(
            |segment| options(segment, "first").sender().unwrap(),
            last_receiver(options),
            |segment, sender: Sender<u64>, _| {
                drop(sender);
                let (sender, receiver) = options(segment, "second").open().unwrap();
                NEW.for_each(|number| sender.try_send(number).unwrap());
                move |_, at: &str| {
                    let mut taken = take_all(&receiver);
                    taken.sort_unstable();
                    assert_eq!(taken, NEW.collect::<Vec<u64>>(), "{kind}, at {at}");
                    assert_eq!(receiver.invalid(), 0);
                    drop((sender, receiver));
                }
            },
        );
    }
}

#[test]
fn nobodys_memory_is_written_to_wherever_the_last_receiver_stands_still_or_dies() {
    const PAIR: [u8; 8] = [7, 0, 0, 0, 1, 0, 0, 0];
    for (kind, options) in KINDS {
        at_every_point(
            |segment| options(segment, "first").sender().unwrap(),
            last_receiver(options),
            |segment, sender: Sender<u64>, _| {
                drop(sender);
                // All memory, as what would be taken for full cells.
                let allocator = segment.allocator();
                let mut blocks = Vec::new();
                for len in [65536, 4096, 1024, 64] {
                    while let Ok(mut block) = allocator.allocate_raw(len) {
                        block.chunks_exact_mut(8).for_each(|pair| pair.copy_from_slice(&PAIR));
                        blocks.push(block.into_handle());
                    }
                }
                let segment = segment.clone();
                move |_, at: &str| {
                    let allocator = segment.allocator();
                    for handle in blocks {
                        let block = allocator.take_raw(handle).unwrap();
                        let changed = block.chunks_exact(8).filter(|pair| *pair != PAIR).count();
                        assert_eq!(changed, 0, "{kind}, at {at}");
                    }
                }
            },
        );
    }
}

/// Receives what is there, and whether the end is said then: it is not as long as something may come back from somebody.
fn until_the_end(receiver: &Receiver<u64>) -> (Vec<u64>, bool) {
    let mut taken = Vec::new();
    loop {
        match receiver.try_recv() {
            Ok(message) => taken.push(*message),
            Err(error) => return (taken, error == TryRecvError::Disconnected),
        }
    }
}

#[test]
fn what_was_sent_is_received_before_the_end_wherever_who_closes_stands_still_or_dies() {
    for (kind, options) in KINDS {
        at_every_point(
            |segment| options(segment, "first").open().unwrap(),
            |other| {
                let receiver = options(other, "first").receiver().unwrap();
                Box::new(move || receiver.close())
            },
            |_, (sender, receiver): (Sender<u64>, Receiver<u64>), at| {
                let mut sent: Vec<u64> = (0..5).filter(|number| sender.try_send(*number).is_ok()).collect();
                let mut taken = Vec::new();
                if receiver.is_closed() {
                    let (before, is_over) = until_the_end(&receiver);
                    assert!(is_over && sender.try_send(9).is_err(), "{kind}, at {at}: sent after the end");
                    taken = before;
                }
                move |_, at: &str| {
                    // If it has died before it closed anything.
                    receiver.close();
                    assert!(sender.try_send(9).is_err());
                    let (rest, is_over) = until_the_end(&receiver);
                    assert!(is_over, "{kind}, at {at}");
                    taken.extend(rest);
                    taken.sort_unstable();
                    sent.sort_unstable();
                    assert_eq!(taken, sent, "{kind}, at {at}");
                    drop((sender, receiver));
                }
            },
        );
    }
}

#[test]
fn a_send_says_yes_and_is_received_or_no_wherever_it_stands_still_while_the_channel_closes() {
    for (kind, options) in KINDS {
        at_every_point(
            |segment| options(segment, "first").receiver().unwrap(),
            |other| {
                let sender = options(other, "first").sender().unwrap();
                Box::new(move || sender.try_send(7).is_ok())
            },
            |_, receiver: Receiver<u64>, _| {
                receiver.close();
                let (mut taken, is_over) = until_the_end(&receiver);
                move |sent, at: &str| {
                    let late = take_all(&receiver);
                    assert!(!is_over || late.is_empty(), "{kind}, at {at}: it comes after the end");
                    taken.extend(late);
                    match sent {
                        Some(true) => assert!(taken == [7], "{kind}, at {at}: sent, and not received"),
                        Some(false) => assert!(taken.is_empty(), "{kind}, at {at}: received, and not sent"),
                        None => assert!(taken.len() <= 1, "{kind}, at {at}"),
                    }
                    drop(receiver);
                }
            },
        );
    }
}

#[test]
fn a_send_leaves_nothing_wherever_it_stands_still_while_the_last_receiver_goes_and_another_comes() {
    for (kind, options) in KINDS {
        at_every_point(
            |segment| options(segment, "first").receiver().unwrap(),
            |other| {
                let sender = options(other, "first").sender().unwrap();
                Box::new(move || {
                    let _ = sender.try_send(7);
                })
            },
            |segment, receiver: Receiver<u64>, _| {
                drop(receiver);
                let receiver = options(segment, "first").receiver().unwrap();
                move |_, at: &str| {
                    assert!(take_all(&receiver).len() <= 1, "{kind}, at {at}");
                    drop(receiver);
                }
            },
        );
    }
}

#[test]
fn who_comes_disturbs_nobody_wherever_it_stands_still_or_dies() {
    for (kind, options) in KINDS {
        at_every_point(
            |segment| {
                let (sender, receiver) = options(segment, "first").open().unwrap();
                (0..OLD).for_each(|number| sender.try_send(number).unwrap());
                // Nobody is there when it comes.
                drop(receiver);
                sender
            },
            |other| {
                let other = other.clone();
                Box::new(move || drop(options(&other, "first").receiver().unwrap()))
            },
            |segment, sender: Sender<u64>, at| {
                let receiver = options(segment, "first").receiver().unwrap();
                NEW.for_each(|number| {
                    sender.try_send(number).unwrap_or_else(|error| panic!("{kind}, at {at}: {error}"))
                });
                move |_, at: &str| {
                    let mut taken = take_all(&receiver);
                    // What it was draining when it died comes back, where messages do.
                    taken.retain(|number| *number >= OLD);
                    taken.sort_unstable();
                    assert_eq!(taken, NEW.collect::<Vec<u64>>(), "{kind}, at {at}");
                    drop((sender, receiver));
                }
            },
        );
    }
}

#[test]
fn what_a_last_receiver_gives_back_is_freed_wherever_it_stands_still_or_dies() {
    at_every_point(
        |segment| at_least_once(segment, "first").sender().unwrap(),
        |other| {
            let (sender, receiver) = at_least_once(other, "first").open().unwrap();
            (0..OLD).for_each(|number| sender.try_send(number).unwrap());
            let message = receiver.try_recv().unwrap();
            Box::new(move || {
                drop((sender, receiver));
                message.nack();
            })
        },
        |_, sender: Sender<u64>, _| {
            move |_, at: &str| {
                assert!(sender.is_closed(), "at {at}");
                drop(sender);
            }
        },
    );
}
