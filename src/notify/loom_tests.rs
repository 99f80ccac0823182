//! Models of the wake-up: every interleaving of a send and a task that goes to sleep. A lost wake is a deadlock, which
//! loom reports.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use loom::thread;

use super::*;
use crate::{
    segment::layout::ParticipantSlot,
    sys::{
        shared::{SharedRef, SharedSlice},
        sync::{AtomicU32, AtomicU64, Ordering},
    },
};

/// A channel of numbers that are only counted, and two processes.
#[derive(Clone, Copy)]
struct Shared {
    slots: SharedSlice<ParticipantSlot>,
    pending: SharedSlice<AtomicU64>,
    parked: [Parked; 2],
    messages: SharedRef<AtomicU64>,
}

const CAPACITY: u64 = 1;

impl Shared {
    fn new() -> Self {
        let word = || SharedSlice::leak(vec![AtomicU64::new(0)]);
        Self {
            slots: SharedSlice::leak((0..2).map(|_| ParticipantSlot::default()).collect()),
            pending: SharedSlice::leak((0..2).map(|_| AtomicU64::new(0)).collect()),
            parked: [Parked::new(word()), Parked::new(word())],
            messages: SharedRef::leak(AtomicU64::new(0)),
        }
    }

    fn process(self, me: u16) -> Process {
        let hub = Hub::new(me, self.slots, self.pending, 1, Box::new(|| {}));
        let messages = self.messages;
        let receive = Box::new(move || messages.load(Ordering::SeqCst) > 0);
        let send = Box::new(move || messages.load(Ordering::SeqCst) < CAPACITY);
        Process {
            messages,
            wants_message: hub.queue(Topic::channel(0, Direction::Receive), self.parked[0], receive, false, None),
            wants_room: hub.queue(Topic::channel(0, Direction::Send), self.parked[1], send, false, None),
            hub,
        }
    }
}

struct Process {
    hub: Arc<Hub>,
    messages: SharedRef<AtomicU64>,
    wants_message: Arc<WaitQueue>,
    wants_room: Arc<WaitQueue>,
}

impl Process {
    fn try_send(&self) -> bool {
        let sent = self
            .messages
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |messages| (messages < CAPACITY).then_some(messages + 1))
            .is_ok();
        if sent {
            success(&self.wants_room, &self.wants_message, || self.wants_room.has_work());
        }
        sent
    }

    fn try_receive(&self) -> bool {
        let received =
            self.messages.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |messages| messages.checked_sub(1)).is_ok();
        if received {
            success(&self.wants_message, &self.wants_room, || self.wants_message.has_work());
        }
        received
    }

    /// Runs the bridge until the waiter is notified.
    fn sleep(&self, waiter: &mut Waiter) {
        while !is_notified(waiter) {
            self.hub.sleep(Some(WATCHDOG), None);
            self.hub.deliver();
        }
    }

    fn wait_for(&self, queue: &Arc<WaitQueue>, attempt: impl Fn() -> bool) {
        while !attempt() {
            let mut waiter = queue.listen();
            if attempt() {
                waiter.finish();
                return;
            }
            self.sleep(&mut waiter);
        }
    }
}

fn is_notified(waiter: &mut Waiter) -> bool {
    Pin::new(waiter).poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
}

fn model(preemptions: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(test);
}

#[test]
fn a_receiver_that_goes_to_sleep_hears_of_a_send() {
    model(3, || {
        let shared = Shared::new();
        let receiver = thread::spawn(move || {
            let process = shared.process(1);
            process.wait_for(&process.wants_message, || process.try_receive());
        });
        assert!(shared.process(0).try_send());
        receiver.join().unwrap();
    });
}

#[test]
fn a_sender_that_waits_for_room_hears_of_a_receive() {
    model(2, || {
        let shared = Shared::new();
        shared.messages.store(CAPACITY, Ordering::SeqCst);
        let sender = thread::spawn(move || {
            let process = shared.process(1);
            process.wait_for(&process.wants_room, || process.try_send());
        });
        assert!(shared.process(0).try_receive());
        sender.join().unwrap();
        assert_eq!(shared.messages.load(Ordering::SeqCst), CAPACITY);
    });
}

#[test]
fn two_messages_through_a_channel_of_one_never_stall() {
    model(2, || {
        let shared = Shared::new();
        let receiver = thread::spawn(move || {
            let process = shared.process(1);
            for _ in 0..2 {
                process.wait_for(&process.wants_message, || process.try_receive());
            }
        });
        let process = shared.process(0);
        for _ in 0..2 {
            process.wait_for(&process.wants_room, || process.try_send());
        }
        receiver.join().unwrap();
    });
}

#[test]
fn a_cancelled_waiter_passes_its_wake_on() {
    model(2, || {
        let shared = Shared::new();
        let receiver = thread::spawn(move || {
            let process = shared.process(1);
            // One task gives up at some point; the other must get the message.
            let first = process.wants_message.listen();
            let mut second = process.wants_message.listen();
            process.hub.deliver();
            drop(first);
            while !process.try_receive() {
                process.sleep(&mut second);
                drop(second);
                second = process.wants_message.listen();
            }
            second.finish();
        });
        assert!(shared.process(0).try_send());
        receiver.join().unwrap();
    });
}

/// A bridge without a timeout has no watchdog, so it must not be asleep while somebody waits.
#[test]
fn a_waiter_wakes_a_bridge_that_falls_asleep_without_a_timeout() {
    model(4, || {
        let process = Arc::new(Shared::new().process(1));
        let waiting = thread::spawn({
            let process = Arc::clone(&process);
            move || process.wants_message.listen()
        });
        process.hub.sleep_untimed(None);
        waiting.join().unwrap().finish();
    });
}

/// Rule R1 without its second try: a message is there, and nobody has been told.
#[test]
#[should_panic(expected = "the wake is lost")]
fn without_a_second_try_a_wake_is_lost() {
    model(3, || {
        let shared = Shared::new();
        let receiver = thread::spawn(move || {
            let process = shared.process(1);
            (!process.try_receive()).then(|| (process.wants_message.listen(), process))
        });
        assert!(shared.process(0).try_send());
        if let Some((mut waiter, process)) = receiver.join().unwrap() {
            process.hub.deliver();
            assert!(is_notified(&mut waiter), "the wake is lost");
        }
    });
}

/// Rule R6 without its look at the marks: there is one, and the bridge sleeps on a word that nobody will change.
#[test]
#[should_panic(expected = "the wake is lost")]
fn without_a_look_at_the_marks_a_wake_is_lost() {
    model(3, || {
        let shared = Shared::new();
        fn bell(shared: &Shared) -> &AtomicU32 {
            shared.slots[1].doorbell.word()
        }
        let receiver = thread::spawn(move || {
            let process = shared.process(1);
            let waiter = process.wants_message.listen();
            if process.try_receive() {
                waiter.finish();
                return None;
            }
            Some((
                bell(&shared).fetch_add(doorbell::FALL_ASLEEP, Ordering::SeqCst) + doorbell::FALL_ASLEEP,
                waiter,
                process,
            ))
        });
        assert!(shared.process(0).try_send());
        if let Some((asleep, ..)) = receiver.join().unwrap() {
            assert_ne!(bell(&shared).load(Ordering::SeqCst), asleep, "the wake is lost");
        }
    });
}
