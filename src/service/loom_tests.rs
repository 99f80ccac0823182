//! Models of a call: its end, however it comes, against the client that goes to sleep; and a call that is given up against the
//! server that waits for that.
//!
//! The slate and the waiting are the real ones. The request's block is a word that says whether it is there, the channel of responses
//! a number of them, and the steps of client, server and reaper are those of [`calls`](super), `link` and the reaper. A wake that is
//! lost is a deadlock, which loom reports. The last models leave a step out, or turn two round, and must fail.

use std::sync::Arc;

use loom::thread;

use super::{
    WINDOW,
    slate::{CallId, Mark, Slate},
};
use crate::{
    region::{layout::ParticipantSlot, slot::Slot},
    sys::{
        shared::{SharedRef, SharedSlice},
        sync::{AtomicU64, Ordering, fence},
    },
    wake::{
        Direction, Ground, Hub, Parked, Topic, WaitQueue, Waiter,
        loom_ground::{has_heard, model, sleep},
        success,
    },
};

const CALL: CallId = CallId { tag: 7, slot: 0 };
const CLIENT: u16 = 0;
const SERVER: u16 = 1;

/// What stands in shared memory.
#[derive(Clone, Copy)]
struct Shared {
    slots: SharedSlice<ParticipantSlot>,
    pending: SharedSlice<AtomicU64>,
    parked: [Parked; 3],
    slate: Slate,
    /// Whether the request's block is there.
    block: SharedRef<AtomicU64>,
    responses: SharedRef<AtomicU64>,
    tells: SharedRef<AtomicU64>,
}

struct Process {
    shared: Shared,
    hub: Arc<Hub>,
    wants_response: Arc<WaitQueue>,
    wants_room: Arc<WaitQueue>,
    /// Of the channel of responses: the links of servers.
    wants_close: Arc<WaitQueue>,
}

impl Shared {
    /// A request has been sent.
    fn new() -> Self {
        let word = || SharedSlice::leak(vec![AtomicU64::new(0)]);
        let shared = Self {
            slots: SharedSlice::leak((0..2).map(|_| ParticipantSlot::default()).collect()),
            pending: SharedSlice::leak((0..2).map(|_| AtomicU64::new(0)).collect()),
            parked: [Parked::new(word()), Parked::new(word()), Parked::new(word())],
            slate: Slate(SharedSlice::leak(vec![Slot::default()])),
            block: SharedRef::leak(AtomicU64::new(1)),
            responses: SharedRef::leak(AtomicU64::new(0)),
            tells: SharedRef::leak(AtomicU64::new(0)),
        };
        shared.slate.begin(CALL);
        shared
    }

    fn process(self, me: u16) -> Process {
        let hub = Hub::new(Ground {
            me,
            slots: self.slots,
            pending: self.pending,
            pending_words: 1,
            tells: self.tells,
            parked_of: Box::new(|_| None),
            on_tick: Box::new(|| {}),
        });
        let responses = self.responses;
        let receive = Box::new(move || responses.load(Ordering::SeqCst) > 0);
        let queue = |direction, work, broadcast| {
            hub.queue(Topic::channel(0, direction), self.parked[direction as usize], work, broadcast, None)
        };
        Process {
            shared: self,
            wants_response: queue(Direction::Receive, receive, false),
            wants_room: queue(Direction::Send, Box::new(|| true), false),
            wants_close: queue(Direction::Closed, Box::new(|| false), true),
            hub,
        }
    }
}

/// How a call has ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Answered,
    Freed(Option<Mark>),
}

impl Process {
    // ---- The client ----

    fn take_response(&self) -> bool {
        let took = |responses: u64| responses.checked_sub(1);
        let taken = self.shared.responses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, took).is_ok();
        if taken {
            success(&self.wants_response, &self.wants_room, || self.shared.responses.load(Ordering::SeqCst) > 0);
        }
        taken
    }

    /// How the call has ended, or a place. `looks_again`: for a response, after the block is seen to be gone.
    fn try_wait(&self, looks_again: bool) -> Result<End, Waiter> {
        if self.take_response() {
            return Ok(End::Answered);
        }
        let place = self.wants_response.listen();
        fence(Ordering::SeqCst);
        let end = if self.take_response() {
            End::Answered
        } else if self.shared.block.load(Ordering::Acquire) == 0 {
            fence(Ordering::SeqCst);
            let answered = looks_again && self.take_response();
            if answered { End::Answered } else { End::Freed(self.shared.slate.verdict(CALL)) }
        } else {
            return Err(place);
        };
        place.finish();
        Ok(end)
    }

    fn wait(&self, looks_again: bool) -> End {
        loop {
            match self.try_wait(looks_again) {
                Ok(end) => return end,
                Err(mut place) => sleep(&self.hub, &mut place),
            }
        }
    }

    fn give_up(&self) {
        self.shared.slate.end(CALL);
        self.nudge_closing();
    }

    fn nudge_closing(&self) {
        fence(Ordering::SeqCst);
        self.wants_close.wake_all();
    }

    // ---- The server ----

    fn take(&self) -> bool {
        self.shared.slate.turn(CALL, Mark::Wanted, Mark::Taken)
    }

    fn free(&self) {
        // Ordering: AcqRel, as the CAS of a block's word.
        self.shared.block.swap(0, Ordering::AcqRel);
    }

    fn put_response(&self) {
        self.shared.responses.fetch_add(1, Ordering::SeqCst);
    }

    fn respond(&self) {
        assert!(self.take());
        self.put_response();
        success(&self.wants_room, &self.wants_response, || true);
        self.free();
    }

    fn nudge_receiver(&self) {
        fence(Ordering::SeqCst);
        if self.wants_response.parked() {
            self.wants_response.wake_one();
        }
    }

    fn drop_request(&self) {
        assert!(self.take());
        let wanted = self.shared.slate.turn(CALL, Mark::Taken, Mark::Unanswered);
        self.free();
        if wanted {
            self.nudge_receiver();
        }
    }

    /// What the reaper of a server does: between the two it clears the bits of the dead, which is SeqCst.
    fn bury(&self) {
        self.free();
        fence(Ordering::SeqCst);
        self.wants_response.wake_all();
    }

    /// Waits until nobody wants the call any more.
    fn watch(&self) {
        while self.shared.slate.is_wanted(CALL) {
            let mut place = self.wants_close.listen();
            if !self.shared.slate.is_wanted(CALL) {
                return place.finish();
            }
            sleep(&self.hub, &mut place);
        }
    }
}

fn call_against(server: fn(&Process), looks_again: bool, expected: End) {
    let expected = Arc::new(expected);
    model(2, move || {
        let shared = Shared::new();
        let client = thread::spawn(move || shared.process(CLIENT).wait(looks_again));
        server(&shared.process(SERVER));
        assert_eq!(client.join().unwrap(), *expected);
    });
}

#[test]
fn a_caller_that_goes_to_sleep_hears_of_its_response() {
    call_against(Process::respond, true, End::Answered);
}

#[test]
fn a_caller_that_goes_to_sleep_hears_that_its_request_was_dropped_and_why() {
    call_against(Process::drop_request, true, End::Freed(Some(Mark::Unanswered)));
}

#[test]
fn a_caller_that_goes_to_sleep_hears_that_its_server_has_died() {
    let dies = |server: &Process| {
        assert!(server.take());
        server.bury();
    };
    call_against(dies, true, End::Freed(Some(Mark::Taken)));
    // Before it had begun.
    call_against(Process::bury, true, End::Freed(None));
}

#[test]
fn a_response_counts_whose_server_died_before_it_told_anybody() {
    let dies = |server: &Process| {
        assert!(server.take());
        server.put_response();
        server.bury();
    };
    call_against(dies, true, End::Answered);
}

#[test]
fn a_call_that_is_given_up_is_never_begun_or_its_server_hears_of_it() {
    model(2, || {
        let shared = Shared::new();
        let server = thread::spawn(move || {
            let server = shared.process(SERVER);
            if server.take() {
                server.watch();
                // It is too late for everything.
                assert!(!shared.slate.turn(CALL, Mark::Taken, Mark::Unanswered));
            }
        });
        shared.process(CLIENT).give_up();
        server.join().unwrap();
        assert_eq!(shared.slate.verdict(CALL), None);
    });
}

/// The call that had the slot before.
const BEFORE: CallId = CallId { tag: 6, slot: 0 };

/// A server has sent as many parts as may be unused, but for 7 that were used already, and waits; the client uses the 8th. `late` is
/// what a server does meanwhile that was stopped when it was at the call before; `looks_first`: before it takes its place.
fn stream_against(late: fn(&Slate), looks_first: bool) {
    const SENT: u64 = WINDOW + WINDOW / 2 - 1;
    model(2, move || {
        let shared = Shared::new();
        assert!(shared.slate.turn(CALL, Mark::Wanted, Mark::Taken));
        for _ in 1..WINDOW / 2 {
            shared.slate.use_part(CALL);
        }
        let server = thread::spawn(move || {
            let server = shared.process(SERVER);
            let may_send = || shared.slate.wait(CALL, SENT) < WINDOW;
            if looks_first && may_send() {
                return (None, server);
            }
            let place = server.wants_close.listen();
            if !looks_first && may_send() {
                place.finish();
                return (None, server);
            }
            (Some(place), server)
        });
        let client = thread::spawn(move || {
            let client = shared.process(CLIENT);
            let (used, waits) = shared.slate.use_part(CALL);
            if waits && used.is_multiple_of(WINDOW / 2) {
                shared.slate.wait_no_more(CALL);
                client.nudge_closing();
            }
        });
        late(&shared.slate);
        client.join().unwrap();
        if let (Some(mut place), server) = server.join().unwrap() {
            assert!(has_heard(&server.hub, &mut place), "the wake is lost");
        }
    });
}

#[test]
fn a_server_that_waits_for_parts_to_be_used_hears_of_it() {
    stream_against(|_| {}, false);
}

#[test]
fn a_server_that_was_stopped_at_the_call_before_takes_no_wake_from_the_one_that_is() {
    stream_against(
        |slate| {
            slate.wait_no_more(BEFORE);
            assert_eq!(slate.wait(BEFORE, WINDOW), 0);
        },
        false,
    );
}

#[test]
#[should_panic(expected = "the wake is lost")]
fn must_fail_if_who_comes_late_clears_what_another_call_has() {
    stream_against(
        |slate| {
            slate.0[0].count.fetch_and(!1, Ordering::SeqCst);
        },
        false,
    );
}

#[test]
#[should_panic(expected = "the wake is lost")]
fn must_fail_if_a_server_looks_before_it_takes_its_place() {
    stream_against(|_| {}, true);
}

#[test]
#[should_panic(expected = "Freed")]
fn without_a_last_look_a_response_is_missed() {
    call_against(Process::respond, false, End::Answered);
}

#[test]
#[should_panic(expected = "the wake is lost")]
fn a_server_that_tells_before_it_frees_is_not_heard() {
    model(2, || {
        let shared = Shared::new();
        let client = thread::spawn(move || {
            let client = shared.process(CLIENT);
            (client.try_wait(true), client)
        });
        let server = shared.process(SERVER);
        assert!(server.take());
        shared.slate.turn(CALL, Mark::Taken, Mark::Unanswered);
        server.nudge_receiver();
        server.free();
        if let (Err(mut place), client) = client.join().unwrap() {
            assert!(has_heard(&client.hub, &mut place), "the wake is lost");
        }
    });
}

#[test]
#[should_panic(expected = "Taken")]
fn a_server_that_frees_before_it_says_why_is_taken_for_dead() {
    let server = |server: &Process| {
        assert!(server.take());
        server.free();
        server.shared.slate.turn(CALL, Mark::Taken, Mark::Unanswered);
        server.nudge_receiver();
    };
    call_against(server, true, End::Freed(Some(Mark::Unanswered)));
}

#[test]
#[should_panic(expected = "the wake is lost")]
fn a_server_that_does_not_look_before_it_sleeps_misses_that_a_call_is_given_up() {
    model(2, || {
        let shared = Shared::new();
        let server = thread::spawn(move || {
            let server = shared.process(SERVER);
            let waits = server.take() && shared.slate.is_wanted(CALL);
            (waits.then(|| server.wants_close.listen()), server)
        });
        shared.process(CLIENT).give_up();
        if let (Some(mut place), server) = server.join().unwrap() {
            assert!(has_heard(&server.hub, &mut place), "the wake is lost");
        }
    });
}
