//! The same for services, semaphores, notifications and watches.

use futures::FutureExt;
use waterway::{
    Delivery, TryRecvError,
    semaphore::Semaphore,
    service::{self, CallError},
    watch,
};

use super::*;

/// How long a call waits that is to be given up.
const SHORT: Duration = Duration::from_millis(5);
/// Parts of a stream: more than may wait.
const PARTS: u64 = 20;
/// Permits that are fought for.
const PERMITS: usize = 4;
/// How long we pause between two looks.
const PAUSE: Duration = Duration::from_micros(200);

type Words = [u64; 64];

/// Which places are to be reached for sure. What the allocator does depends on what it was asked for before, and has scripts of its own.
fn is_of_patterns(place: &str) -> bool {
    !place.starts_with("src/alloc/")
}

fn service(segment: &Segment) -> service::Options<[u8], [u8]> {
    segment.service("service").capacity(4).calls(4)
}

/// What is done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A response, a large one every other time.
    Answer,
    /// The same, to a client that sends it again.
    Again,
    Stream,
    /// None, until the caller has given up.
    GiveUp,
    /// None.
    Drop,
}

const KINDS: [Kind; 10] = [
    Kind::Answer,
    Kind::Again,
    Kind::Stream,
    Kind::GiveUp,
    Kind::Answer,
    Kind::Drop,
    Kind::Again,
    Kind::GiveUp,
    Kind::Stream,
    Kind::Answer,
];

fn kind_of(number: u64) -> Kind {
    KINDS[number as usize]
}

fn request(number: u64) -> Vec<u8> {
    Stamp { sender: 1, number }.message(if number.is_multiple_of(4) { 3_000 } else { 60 })
}

fn response(number: u64) -> Vec<u8> {
    Stamp { sender: 2, number }.message(if number.is_multiple_of(4) { 30 } else { 5_000 })
}

/// All calls. Each ends: as its kind says, or, if the server `may_die`, by its death.
async fn make_calls(segment: &Segment, may_die: bool, at: &str) {
    let once = service(segment).client().unwrap();
    let again = service(segment).delivery(Delivery::AtLeastOnce { max_deliveries: 5 }).client().unwrap();
    for number in 0..KINDS.len() as u64 {
        let kind = kind_of(number);
        let called = match kind {
            Kind::Stream => {
                let mut stream = once.call_stream(request(number)).await.unwrap();
                let mut parts = 0;
                loop {
                    match stream.next().await {
                        Some(Ok(part)) => {
                            assert_eq!(Stamp::verify(&part), Some(Stamp { sender: 3, number: parts }), "at {at}");
                            parts += 1;
                        }
                        Some(Err(error)) => break Err(error.is_server_gone()),
                        None => {
                            assert_eq!(parts, PARTS, "at {at}");
                            break Ok(None);
                        }
                    }
                }
            }
            kind => {
                let called = match kind {
                    Kind::GiveUp => once.call_timeout(request(number), SHORT).await,
                    Kind::Again => again.call(request(number)).await,
                    _ => once.call(request(number)).await,
                };
                called.map(Some).map_err(|error| match error {
                    CallError::ServerGone(_) => true,
                    CallError::Timeout(_) => kind != Kind::GiveUp,
                    CallError::Unanswered(_) => kind != Kind::Drop,
                    error => panic!("at {at}: {number}: {error}"),
                })
            }
        };
        match called {
            Ok(None) => assert_eq!(kind, Kind::Stream),
            Ok(Some(answer)) => {
                assert_eq!(Stamp::verify(&answer), Some(Stamp { sender: 2, number }), "at {at}");
                // One that is dropped is answered only if it was not dropped: by us, when the child is dead.
                assert!(may_die || kind != Kind::Drop, "at {at}");
            }
            // What goes to another server has an answer, whoever dies.
            Err(by_death) => assert!(!by_death || may_die && kind != Kind::Again, "at {at}: {number}, {kind:?}"),
        }
    }
    assert_eq!((once.in_flight(), again.in_flight()), (0, 0), "at {at}");
}

/// Does with a request what its kind says.
async fn answer(request: waterway::service::Request<[u8], [u8]>) -> u64 {
    let Stamp { sender, number } = Stamp::verify(&request).unwrap();
    assert_eq!(sender, 1);
    match kind_of(number) {
        Kind::Answer => drop(request.respond(response(number)).await),
        Kind::Again if request.delivery_count() == 1 => request.nack(),
        Kind::Again => drop(request.try_respond(response(number))),
        Kind::GiveUp => request.cancelled().await,
        Kind::Drop => drop(request),
        Kind::Stream => {
            let mut stream = request.stream();
            for number in 0..PARTS {
                if stream.send(Stamp { sender: 3, number }.message(100)).await.is_err() {
                    break;
                }
            }
        }
    }
    number
}

// ---- What the children do ----

/// The script beside a parent that serves.
pub(super) fn call(place: &Place) {
    within(async {
        let segment = open(place);
        make_calls(&segment, false, "the child").await;
    });
    report();
}

/// The script beside a parent that calls.
pub(super) fn serve(place: &Place) {
    within(async {
        let segment = open(place);
        let server = service(&segment).server().unwrap();
        while let Some(request) = server.next().await {
            if answer(request).await + 1 == KINDS.len() as u64 {
                break;
            }
        }
    });
    report();
}

fn permits(segment: &Segment) -> Semaphore {
    segment.semaphore("permits").permits(PERMITS).open().unwrap()
}

/// The script beside a parent that wants the same permits.
pub(super) fn acquire(place: &Place) {
    within(async {
        let segment = open(place);
        let permits = permits(&segment);
        drop(permits.acquire().await.unwrap());
        drop(permits.try_acquire());
        let mut many = permits.acquire_many(3).await.unwrap();
        let part = many.split(1);
        drop(many);
        drop(part);
        let all = permits.clone().acquire_many_owned(PERMITS as u32).await.unwrap();
        // One that stands in line, and leaves it.
        assert!(tokio::time::timeout(Duration::from_millis(1), permits.acquire_many(2)).await.is_err());
        drop(all);
        drop(permits.acquire_many(2).await.unwrap());
        // Fewer, and as many again: one step each, or none.
        permits.acquire().await.unwrap().forget();
        permits.add_permits(1);
        let own = segment.semaphore("own").permits(1).open().unwrap();
        own.close();
        assert!(own.acquire().await.is_err());
        // One that it leaves behind. It must not wait for more with that: we want all.
        std::mem::forget(permits.acquire().await.unwrap());
    });
    report();
}

/// The script beside a parent that notifies, one and all, again and again.
pub(super) fn notify(place: &Place) {
    within(async {
        let segment = open(place);
        let (there, back) = (segment.notify("there").unwrap(), segment.notify("back").unwrap());
        for _ in 0..5 {
            there.notify_one();
            back.notified().await;
        }
        there.notify_waiters();
        // Two at once; one of them goes.
        futures::future::select(Box::pin(back.notified()), Box::pin(back.notified())).await;
        let mut waits = Box::pin(back.notified());
        waits.as_mut().enable();
        drop(waits);
        // One that is stored.
        let own = segment.notify("own").unwrap();
        own.notify_one();
        own.notified().await;
    });
    report();
}

fn values(segment: &Segment) -> (watch::Sender<Words>, watch::Receiver<Words>) {
    segment.watch::<Words>("values").initial([0; 64]).open().unwrap()
}

fn blob(segment: &Segment) -> (watch::Sender<[u8]>, watch::Receiver<[u8]>) {
    segment.watch::<[u8]>("blob").initial(Stamp { sender: 1, number: 0 }.message(50)).open().unwrap()
}

/// The script beside a parent that sends and looks, too.
pub(super) fn publish(place: &Place) {
    within(async {
        let segment = open(place);
        let (sender, mut receiver) = values(&segment);
        let (blobs, blobs_seen) = blob(&segment);
        for number in 1..5 {
            sender.send_modify(|words| *words = words.map(|word| word + 1)).unwrap();
            receiver.changed().await.unwrap();
            let kept = receiver.borrow_and_update();
            assert!(kept.iter().all(|word| *word == kept[0]));
            let size = [40, 2_000, 30_000, 300][number as usize % 4];
            let old = blobs.send_replace(Stamp { sender: 1, number }.message(size)).unwrap();
            Stamp::verify(&old);
            assert_eq!(Stamp::verify(&blobs_seen.borrow()), Some(Stamp { sender: 1, number }));
            assert!(!sender.send_if_modified(|_| false).unwrap());
        }
        // A watch of its own, with what stands in it.
        let own = segment.watch::<u64>("own").initial(1).open().unwrap();
        own.0.send(2).unwrap();
        let kept = own.1.borrow();
        drop(own);
        assert_eq!(*kept, 2);
    });
    report();
}

// ---- What the parent does ----

impl Scene {
    fn call_beside(&self, at: &str, by: &str) -> End {
        let server = service(&self.segment).server().unwrap();
        let end = self.beside("call", at, by, async |over| {
            let mut seen = BTreeSet::new();
            loop {
                match server.try_next() {
                    Ok(request) => {
                        let (stamp, count) = (Stamp::verify(&request).unwrap(), request.delivery_count());
                        assert!(seen.insert((stamp.number, count)), "at {at}: {stamp:?} came twice");
                        answer(request).await;
                    }
                    Err(TryRecvError::Empty) if over.get() => return,
                    Err(TryRecvError::Disconnected) => return,
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        });
        self.bury(&self.segment, || server.client_count() == 0);
        assert_eq!((server.client_count(), server.len()), (0, 0), "at {at} ({end:?})");
        drop(server);
        self.settle(&format!("{at} ({end:?})"));
        end
    }

    fn serve_beside(&self, at: &str, by: &str) -> End {
        // Serves only when the child has ended.
        let server = service(&self.segment).server().unwrap();
        let end = self.beside("serve", at, by, async |over| {
            let rescue = async {
                loop {
                    if over.get()
                        && let Ok(request) = server.try_next()
                    {
                        answer(request).await;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            };
            tokio::select! {
                () = make_calls(&self.segment, true, at) => {}
                () = rescue => {}
            }
        });
        let at = &format!("{at} ({end:?})");
        self.bury(&self.segment, || server.client_count() == 0);
        assert_eq!((server.client_count(), server.len()), (0, 0), "at {at}");
        drop(server);
        self.settle(at);
        end
    }

    fn acquire_beside(&self, at: &str, by: &str) -> End {
        let permits = permits(&self.segment);
        let end = self.beside("acquire", at, by, async |over| {
            let mut turn = 0;
            while !over.get() {
                let held = permits.acquire_many(1 + turn % 3).await.unwrap();
                turn += 1;
                assert!(permits.available_permits() + held.num_permits() <= PERMITS, "at {at}");
                tokio::time::sleep(PAUSE).await;
            }
        });
        let at = &format!("{at} ({end:?})");
        self.bury(&self.segment, || permits.available_permits() == permits.max_permits());
        // What the dead had is to be had again, all of it; and it may have died between forgetting one and adding one.
        let left = permits.max_permits();
        assert!(left == PERMITS || left + 1 == PERMITS, "at {at}: {left}");
        assert_eq!(permits.available_permits(), left, "at {at}");
        drop(permits.try_acquire_many(left as u32).unwrap_or_else(|error| panic!("at {at}: {error}")));
        drop(permits);
        self.settle(at);
        end
    }

    fn notify_beside(&self, at: &str, by: &str) -> End {
        let (there, back) = (self.segment.notify("there").unwrap(), self.segment.notify("back").unwrap());
        let end = self.beside("notify", at, by, async |over| {
            while !over.get() {
                let _ = tokio::time::timeout(Duration::from_millis(1), there.notified()).await;
                back.notify_one();
                back.notify_waiters();
            }
        });
        let at = &format!("{at} ({end:?})");
        self.segment.bury_the_dead();
        // Whatever the dead was about to hear, we hear what is said now.
        for notify in [&there, &back] {
            within(async {
                let waits = notify.notified();
                notify.notify_waiters();
                waits.await;
                // What was said and not heard, at most to the three waits of the dead.
                let stored = (0..4).take_while(|_| notify.notified().now_or_never().is_some()).count();
                assert!(stored < 4, "at {at}: heard of nothing");
                notify.notify_one();
                notify.notified().await;
            });
        }
        drop((there, back));
        self.settle(at);
        end
    }

    fn publish_beside(&self, at: &str, by: &str) -> End {
        let (sender, receiver) = values(&self.segment);
        let (blobs, blobs_seen) = blob(&self.segment);
        let (last, last_blob) = (Cell::new(0), Cell::new(0));
        let look = || {
            let words = receiver.borrow();
            assert!(words.iter().all(|word| *word == words[0]) && words[0] >= last.get(), "at {at}: {}", words[0]);
            last.set(words[0]);
            let number = Stamp::verify(&blobs_seen.borrow()).unwrap().number;
            assert!(number >= last_blob.get(), "at {at}: {number} after {}", last_blob.get());
            last_blob.set(number);
        };
        let end = self.beside("publish", at, by, async |over| {
            while !over.get() {
                look();
                sender.send_modify(|words| *words = words.map(|word| word + 1)).unwrap();
                tokio::time::sleep(PAUSE).await;
            }
        });
        let at = &format!("{at} ({end:?})");
        look();
        self.bury(&self.segment, || receiver.sender_count() == 1);
        look();
        // It goes on from there.
        sender.send([1_000_000; 64]).unwrap();
        blobs.send(Stamp { sender: 1, number: 1_000_000 }.message(100)).unwrap();
        look();
        assert_eq!((last.get(), last_blob.get()), (1_000_000, 1_000_000), "at {at}");
        drop((sender, receiver, blobs, blobs_seen));
        self.settle(at);
        end
    }
}

#[test]
fn whoever_calls_may_die_or_stand_still_at_any_point() {
    const TEST: &str = "patterns::whoever_calls_may_die_or_stand_still_at_any_point";
    let Some(scene) = Scene::new(TEST) else { return };
    scene.everywhere(is_of_patterns, |at, by| scene.call_beside(at, by));
}

#[test]
fn whoever_serves_may_die_or_stand_still_at_any_point() {
    const TEST: &str = "patterns::whoever_serves_may_die_or_stand_still_at_any_point";
    let Some(scene) = Scene::new(TEST) else { return };
    scene.everywhere(is_of_patterns, |at, by| scene.serve_beside(at, by));
}

#[test]
fn whoever_has_permits_of_a_semaphore_may_die_or_stand_still_at_any_point() {
    const TEST: &str = "patterns::whoever_has_permits_of_a_semaphore_may_die_or_stand_still_at_any_point";
    let Some(scene) = Scene::new(TEST) else { return };
    scene.everywhere(is_of_patterns, |at, by| scene.acquire_beside(at, by));
}

#[test]
fn whoever_notifies_or_waits_for_that_may_die_or_stand_still_at_any_point() {
    const TEST: &str = "patterns::whoever_notifies_or_waits_for_that_may_die_or_stand_still_at_any_point";
    let Some(scene) = Scene::new(TEST) else { return };
    scene.everywhere(is_of_patterns, |at, by| scene.notify_beside(at, by));
}

#[test]
fn whoever_sends_to_a_watch_or_looks_at_it_may_die_or_stand_still_at_any_point() {
    const TEST: &str = "patterns::whoever_sends_to_a_watch_or_looks_at_it_may_die_or_stand_still_at_any_point";
    let Some(scene) = Scene::new(TEST) else { return };
    scene.everywhere(is_of_patterns, |at, by| scene.publish_beside(at, by));
}
