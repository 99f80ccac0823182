//! Models of the wake-up: every interleaving of a send and a task that goes to sleep. A lost wake is a deadlock, which
//! loom reports.

use std::sync::Arc;

use loom::thread;

use super::{
    loom_ground::{is_notified, model, sleep},
    second_look::Looks,
    *,
};
use crate::{
    region::layout::ParticipantSlot,
    sys::{
        shared::{SharedRef, SharedSlice},
        sync::{AtomicU32, AtomicU64, Ordering},
    },
};

/// A channel of numbers that are only counted, and two processes or more.
#[derive(Clone, Copy)]
struct Shared {
    slots: SharedSlice<ParticipantSlot>,
    pending: SharedSlice<AtomicU64>,
    parked: [Parked; 2],
    messages: SharedRef<AtomicU64>,
    /// Whether the channel is closed, and who waits for that.
    closed: SharedRef<AtomicU64>,
    waits_for_close: Parked,
    tells: SharedRef<AtomicU64>,
}

const CAPACITY: u64 = 1;

impl Shared {
    fn new() -> Self {
        Self::of(2)
    }

    fn of(processes: usize) -> Self {
        let word = || SharedSlice::leak(vec![AtomicU64::new(0)]);
        Self {
            slots: SharedSlice::leak((0..processes).map(|_| ParticipantSlot::default()).collect()),
            pending: SharedSlice::leak((0..processes).map(|_| AtomicU64::new(0)).collect()),
            parked: [Parked::new(word()), Parked::new(word())],
            messages: SharedRef::leak(AtomicU64::new(0)),
            closed: SharedRef::leak(AtomicU64::new(0)),
            tells: SharedRef::leak(AtomicU64::new(0)),
            waits_for_close: Parked::new(word()),
        }
    }

    fn hub(self, me: u16) -> Arc<Hub> {
        Hub::new(Ground {
            me,
            slots: self.slots,
            pending: self.pending,
            pending_words: 1,
            tells: self.tells,
            parked_of: Box::new(move |topic| {
                Some(match topic.of_channel()? {
                    (_, Direction::Receive) => self.parked[0],
                    (_, Direction::Send) => self.parked[1],
                    (_, Direction::Closed) => self.waits_for_close,
                })
            }),
            on_tick: Box::new(|| {}),
        })
    }

    fn process(self, me: u16) -> Process {
        self.process_of(self.hub(me))
    }

    fn process_of(self, hub: Arc<Hub>) -> Process {
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

    fn wait_for(&self, queue: &Arc<WaitQueue>, attempt: impl Fn() -> bool) {
        while !attempt() {
            let mut waiter = queue.listen();
            if attempt() {
                waiter.finish();
                return;
            }
            sleep(&self.hub, &mut waiter);
        }
    }
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

/// Whoever set the mark was killed before it rang.
#[test]
fn a_mark_that_nobody_has_rung_for_is_rung_for_by_the_next() {
    model(3, || {
        let shared = Shared::new();
        let receiver = thread::spawn(move || {
            let process = shared.process(1);
            process.wait_for(&process.wants_message, || process.try_receive());
        });
        shared.pending[1].fetch_or(1 << Topic::channel(0, Direction::Receive).0, Ordering::SeqCst);
        assert!(shared.process(0).try_send());
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
                sleep(&process.hub, &mut second);
                drop(second);
                second = process.wants_message.listen();
            }
            second.finish();
        });
        assert!(shared.process(0).try_send());
        receiver.join().unwrap();
    });
}

/// A process's queue of those who wait for the channel to close.
fn closing(shared: Shared, hub: &Arc<Hub>, broadcast: bool) -> Arc<WaitQueue> {
    let is_closed = Box::new(move || shared.closed.load(Ordering::SeqCst) > 0);
    hub.queue(Topic::channel(0, Direction::Closed), shared.waits_for_close, is_closed, broadcast, None)
}

/// Two tasks of a process wait, and nothing that they do makes the one wake the other.
fn two_wait_for_close(broadcast: bool) {
    model(2, move || {
        let shared = Shared::new();
        let waiting = thread::spawn(move || {
            let hub = shared.process(1).hub;
            let queue = closing(shared, &hub, broadcast);
            let waiters = [(); 2].map(|()| {
                let waiter = queue.listen();
                if shared.closed.load(Ordering::SeqCst) == 0 {
                    return Some(waiter);
                }
                waiter.finish();
                None
            });
            (hub, queue, waiters)
        });
        let hub = shared.process(0).hub;
        let queue = closing(shared, &hub, broadcast);
        shared.closed.store(1, Ordering::SeqCst);
        fence_for_models();
        queue.wake_all();
        let (hub, _queue, waiters) = waiting.join().unwrap();
        hub.deliver();
        for mut waiter in waiters.into_iter().flatten() {
            assert!(is_notified(&mut waiter), "the wake is lost");
            waiter.finish();
        }
    });
}

#[test]
fn all_who_wait_for_a_channel_to_close_hear_of_it() {
    two_wait_for_close(true);
}

/// A mark that means one waiter, and nobody who carries the wake on.
#[test]
#[should_panic(expected = "the wake is lost")]
fn a_mark_that_means_one_waiter_leaves_the_other_asleep() {
    two_wait_for_close(false);
}

#[test]
fn who_sleeps_until_a_channel_closes_is_woken() {
    model(3, || {
        let shared = Shared::new();
        let waiting = thread::spawn(move || {
            let hub = shared.process(1).hub;
            let queue = closing(shared, &hub, true);
            let mut waiter = queue.listen();
            if shared.closed.load(Ordering::SeqCst) == 0 {
                sleep(&hub, &mut waiter);
            }
            waiter.finish();
        });
        let hub = shared.process(0).hub;
        let queue = closing(shared, &hub, true);
        shared.closed.store(1, Ordering::SeqCst);
        fence_for_models();
        queue.wake_all();
        waiting.join().unwrap();
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

const MESSAGE: Topic = Topic(0);

/// Two others wait; a waker of this process sends, and tells one of them, who does not react.
fn one_of_two_is_told(bridge: impl Fn(&Hub) + Send + Sync + 'static, then: impl Fn(&Hub) + Send + Sync + 'static) {
    model(3, move || {
        let shared = Shared::of(3);
        [1, 2].iter().for_each(|other| shared.parked[0].set(*other));
        let process = Arc::new(shared.process(0));
        let waking = thread::spawn({
            let process = Arc::clone(&process);
            move || assert!(process.try_send())
        });
        bridge(&process.hub);
        waking.join().unwrap();
        then(&process.hub);
    });
}

fn both_are_told(hub: &Hub) -> bool {
    [1, 2].iter().all(|other| hub.is_marked(*other, MESSAGE))
}

#[test]
fn a_bridge_that_falls_asleep_beside_a_duty_is_woken_for_it() {
    let bridge = |hub: &Hub| {
        let mut looks = Looks::default();
        while !looks.schedule(hub) {
            hub.sleep_untimed(None);
        }
        looks.look_at_all(hub);
    };
    one_of_two_is_told(bridge, |hub| assert!(both_are_told(hub), "one of them is not told"));
}

/// The bridge's last look before it sleeps, without one at the duties.
#[test]
#[should_panic(expected = "deadlock")]
fn without_a_look_at_the_duties_a_bridge_sleeps_beside_one() {
    let bridge = |hub: &Hub| {
        while !Looks::default().schedule(hub) {
            doorbell::sleep(&hub.slots[0].doorbell, None, None, || true);
        }
    };
    one_of_two_is_told(bridge, |_| {});
}

#[test]
fn a_duty_beside_a_look_is_looked_at_or_rung_for() {
    let bridge = |hub: &Hub| {
        hub.duties.state.store(second_look::SCHEDULED, Ordering::SeqCst);
        Looks::default().look_at_all(hub);
    };
    one_of_two_is_told(bridge, |hub| assert!(both_are_told(hub) || hub.duties.are_new(), "nobody will look"));
}

/// A bridge that says only after its look that it will not look again.
#[test]
#[should_panic(expected = "nobody will look")]
fn a_duty_beside_a_look_that_is_over_late_is_lost() {
    let bridge = |hub: &Hub| {
        hub.duties.state.store(second_look::SCHEDULED, Ordering::SeqCst);
        let taken = hub.duties.take(0).count();
        hub.duties.state.store(second_look::IDLE, Ordering::SeqCst);
        fence_for_models();
        if taken > 0 {
            // The rest is as it should be.
            hub.duties.state.store(second_look::RUNG, Ordering::SeqCst);
        }
    };
    one_of_two_is_told(bridge, |hub| assert!(hub.duties.are_new(), "nobody will look"));
}

/// Two others wait, the first of whom leaves while the waker tells it.
fn the_first_of_two_leaves(wake: impl Fn(&Process) + Send + Sync + 'static) {
    model(3, move || {
        let shared = Shared::of(3);
        [1, 2].iter().for_each(|other| shared.parked[0].set(*other));
        let leaving = thread::spawn(move || {
            let hub = shared.hub(1);
            shared.parked[0].clear(1);
            fence_for_models();
            hub.hand_on_marks(1);
        });
        let process = shared.process(0);
        shared.messages.store(1, Ordering::SeqCst);
        fence_for_models();
        wake(&process);
        leaving.join().unwrap();
        assert!(process.hub.is_marked(2, MESSAGE), "the wake is lost");
    });
}

#[test]
fn a_wake_of_one_that_leaves_is_somebody_elses() {
    the_first_of_two_leaves(|process| process.wants_message.wake_one());
}

/// R4 without the second look at whether who was told is parked still.
#[test]
#[should_panic(expected = "the wake is lost")]
fn without_a_look_whether_it_is_parked_still_a_wake_goes_with_one_that_leaves() {
    the_first_of_two_leaves(|process| {
        for other in [1, 2] {
            if process.wants_message.parked.contains(other) && process.hub.tell(other, MESSAGE) {
                return;
            }
        }
    });
}

/// The receiver that was told has gone, and its process has no queue any more.
#[test]
fn a_mark_without_a_queue_is_somebody_elses() {
    model(2, || {
        let shared = Shared::of(3);
        [1, 2].iter().for_each(|other| shared.parked[0].set(*other));
        let told = thread::spawn(move || {
            let process = shared.process(1);
            let Process { hub, wants_message, wants_room, .. } = process;
            shared.parked[0].clear(1);
            drop((wants_message, wants_room));
            hub
        });
        let process = shared.process(0);
        assert!(process.try_send());
        let hub = told.join().unwrap();
        hub.deliver();
        assert!(hub.is_marked(2, MESSAGE), "the wake is lost");
    });
}
