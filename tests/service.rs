//! Services: what a call ends with, whoever dies, and what is left behind.
#![cfg(feature = "json")]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use common::{
    PATIENCE, Place, Process, Random, Stamp, assert_empty, eventually, in_process, ready, role, two, wait_until_ready,
    within,
};
use futures::{StreamExt, future::join_all};
use waterway::{
    Delivery, OpenError, Segment, TryRecvError, TrySendError,
    codec::Json,
    service::{CallError, Client, Server},
};

fn doubler(segment: &Segment) -> (Client<u64, u64>, Server<u64, u64>) {
    let options = || segment.service::<u64, u64>("double");
    (options().client().unwrap(), options().server().unwrap())
}

/// Nothing is held, and there is no channel.
fn assert_nothing_left(segment: &Segment) {
    // Whoever is just being woken, on another thread, may be the last to let go of a client.
    eventually("no channel is left", || segment.channels().is_empty());
    assert_empty(segment);
}

async fn serve(server: &Server<u64, u64>) {
    while let Some(request) = server.next().await {
        let number = *request;
        let _ = request.respond(number * 2).await;
    }
}

#[test]
fn a_call_is_answered() {
    let segment = in_process();
    let (client, server) = doubler(&segment);
    within(async {
        let (response, ()) = futures::join!(client.call(21), async {
            let request = server.next().await.unwrap();
            assert_eq!((*request, request.delivery_count(), request.deadline()), (21, 1, None));
            assert!(!request.is_cancelled());
            request.respond(42).await.unwrap();
        });
        assert_eq!(*response.unwrap(), 42);
    });
    assert_eq!((client.in_flight(), client.server_count(), server.client_count()), (0, 1, 1));
    drop((client, server));
    assert_nothing_left(&segment);
}

#[test]
fn requests_and_responses_are_read_where_they_stand_whatever_they_are() {
    let (_place, one, other) = two();
    within(async {
        let client = one.service::<[u8], [u8]>("bytes").client().unwrap();
        let server = other.service::<[u8], [u8]>("bytes").server().unwrap();
        for len in [0, 1, 15, 16, 17, 100, 5000, 300_000] {
            let asked = vec![7_u8; len];
            let (response, ()) = futures::join!(client.call(&asked), async {
                let request = server.next().await.unwrap();
                assert_eq!(request.len(), len);
                assert_eq!(request.as_ptr().addr() % 16, 0);
                let answer = [&request[..], b"!"].concat();
                request.respond(answer).await.unwrap();
            });
            let response = response.unwrap();
            assert_eq!((response.len(), response[len]), (len + 1, b'!'));
            // It can be sent on as any other message.
            let (sender, receiver) = one.bytes("onward").open().unwrap();
            response.forward(&sender).unwrap();
            assert_eq!(receiver.try_recv().unwrap().len(), len + 1);
        }
    });
    within(async {
        let options = |segment: &Segment| segment.service::<String, Vec<u32>>("words").codec::<Json>();
        let (client, server) = (options(&one).client().unwrap(), options(&other).server().unwrap());
        let (response, ()) = futures::join!(client.call("abc".to_owned()), async {
            let request = server.next().await.unwrap();
            let word = request.message().decode().unwrap();
            request.respond(word.chars().map(u32::from).collect::<Vec<_>>()).await.unwrap();
        });
        assert_eq!(response.unwrap().decode().unwrap(), [97, 98, 99]);
    });
    eventually("nothing is left", || one.channels().is_empty());
    assert_nothing_left(&one);
}

#[test]
fn every_caller_gets_its_own_answer() {
    let (_place, one, other) = two();
    let served = Arc::new(AtomicU64::new(0));
    let servers: Vec<_> = (0..3)
        .map(|index| {
            let server = if index == 0 { &one } else { &other }.service::<u64, u64>("double").server().unwrap();
            let served = Arc::clone(&served);
            thread::spawn(move || {
                within(async {
                    while let Some(request) = server.next().await {
                        served.fetch_add(1, Ordering::Relaxed);
                        let number = *request;
                        request.respond(number * 2).await.unwrap();
                    }
                });
            })
        })
        .collect();
    let clients: Vec<_> = (0..4)
        .map(|index| {
            // Two in each participant, with fewer slots than tasks.
            let segment = if index < 2 { &one } else { &other };
            let client = segment.service::<u64, u64>("double").calls(5).client().unwrap();
            thread::spawn(move || {
                within(join_all((0..8).map(|task| {
                    let client = client.clone();
                    async move {
                        for number in 0..300 {
                            let number = index << 32 | task << 16 | number;
                            assert_eq!(*client.call(number).await.unwrap(), number * 2);
                        }
                    }
                })));
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    servers.into_iter().for_each(|server| server.join().unwrap());
    assert_eq!(served.load(Ordering::Relaxed), 4 * 8 * 300);
    assert_nothing_left(&one);
}

#[test]
fn a_request_that_is_dropped_is_unanswered_and_comes_back_to_its_caller() {
    let (_place, one, other) = two();
    let client = one.service::<u64, u64>("double").client().unwrap();
    let server = other.service::<u64, u64>("double").server().unwrap();
    within(async {
        // With a caller that sleeps by then, and with one that does not.
        for pause in [30, 0] {
            let (answer, ()) = futures::join!(client.call(7), async {
                let request = server.next().await.unwrap();
                tokio::time::sleep(Duration::from_millis(pause)).await;
                drop(request);
            });
            assert_eq!(answer.unwrap_err(), CallError::Unanswered(7));
        }
        // A response that was given up has not been sent.
        let (answer, ()) = futures::join!(client.call(8), async {
            drop(server.next().await.unwrap().respond(16));
        });
        assert_eq!(answer.unwrap_err(), CallError::Unanswered(8));
        let (answer, ()) = futures::join!(client.call(9), async { server.next().await.unwrap().nack() });
        assert_eq!(answer.unwrap_err(), CallError::Unanswered(9));
    });
    drop((client, server));
    assert_nothing_left(&one);
}

#[test]
fn a_request_that_is_given_back_is_sent_again_as_often_as_it_may_be() {
    let (_place, one, other) = two();
    let client =
        one.service::<u64, u64>("double").delivery(Delivery::AtLeastOnce { max_deliveries: 3 }).client().unwrap();
    let server = other.service::<u64, u64>("double").server().unwrap();
    within(async {
        let (answer, ()) = futures::join!(client.call(7), async {
            server.next().await.unwrap().nack();
            let request = server.next().await.unwrap();
            assert_eq!((*request, request.delivery_count()), (7, 2));
            let panicking = thread::spawn(move || {
                let _request = request;
                panic!("as it is meant to");
            });
            panicking.join().unwrap_err();
            let request = server.next().await.unwrap();
            assert_eq!(request.delivery_count(), 3);
            request.respond(14).await.unwrap();
        });
        assert_eq!(*answer.unwrap(), 14);
        let (answer, ()) = futures::join!(client.call(8), async {
            for count in 1..=3 {
                let request = server.next().await.unwrap();
                assert_eq!(request.delivery_count(), count);
                request.nack();
            }
        });
        assert_eq!(answer.unwrap_err(), CallError::Unanswered(8));
        // What is dropped on purpose is not sent again.
        let (answer, ()) = futures::join!(client.call(9), async { drop(server.next().await.unwrap()) });
        assert_eq!(answer.unwrap_err(), CallError::Unanswered(9));
    });
    assert_eq!(server.try_next().unwrap_err(), TryRecvError::Empty);
}

#[test]
fn without_a_server_calls_fail_at_once_and_before_the_first_they_wait() {
    let (_place, one, other) = two();
    let client = one.service::<u64, u64>("double").client().unwrap();
    within(async {
        let mut early = Box::pin(client.call(1));
        assert!(futures::poll!(&mut early).is_pending());
        let server = other.service::<u64, u64>("double").server().unwrap();
        let ((), answer) = futures::join!(async { server.next().await.unwrap().respond(2).await.unwrap() }, early);
        assert_eq!(*answer.unwrap(), 2);
        // Those that wait in the queue, and one that waits to be answered.
        let calls = (10..13).map(|number| client.call(number));
        let (answers, ()) = futures::join!(join_all(calls), async {
            let request = server.next().await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            drop(server);
            drop(request);
        });
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap_err).collect();
        assert_eq!(answers, [CallError::Unanswered(10), CallError::Closed(11), CallError::Closed(12)]);
        assert!(client.is_closed());
        client.closed().await;
        assert_eq!(client.call(13).await.unwrap_err(), CallError::Closed(13));
        // The next server opens it again.
        let server = other.service::<u64, u64>("double").server().unwrap();
        let ((), answer) =
            futures::join!(async { server.next().await.unwrap().respond(28).await.unwrap() }, client.call(14));
        assert_eq!(*answer.unwrap(), 28);
        server.close();
        assert_eq!(client.call(15).await.unwrap_err(), CallError::Closed(15));
        assert!(server.next().await.is_none());
    });
}

#[test]
fn a_call_that_is_given_up_is_told_to_the_server() {
    let (_place, one, other) = two();
    let client = one.service::<u64, u64>("double").client().unwrap();
    let server = other.service::<u64, u64>("double").server().unwrap();
    within(async {
        // Each is polled once: a budget that is used up must not keep it from being sent.
        let call = |number| Box::pin(tokio::task::unconstrained(client.call(number)));
        let mut calls: Vec<_> = (0..4).map(call).collect();
        for call in &mut calls {
            assert!(futures::poll!(call).is_pending());
        }
        let mut requests = Vec::new();
        for _ in 0..3 {
            requests.push(server.next().await.unwrap());
        }
        // One that nobody has begun with does not come any more.
        calls.truncate(3);
        assert_eq!(server.try_next().unwrap_err(), TryRecvError::Empty);
        let others = calls.split_off(2);
        let second = requests.pop().unwrap();
        drop(calls);
        for request in &requests {
            request.cancelled().await;
            assert!(request.is_cancelled());
        }
        assert!(!second.is_cancelled());
        let (request, refused) = requests.pop().unwrap().try_respond(1).unwrap_err();
        assert_eq!(refused, TrySendError::Closed(1));
        assert!(request.respond(1).await.unwrap_err().is_cancelled());
        second.respond(4).await.unwrap();
        assert_eq!(*others.into_iter().next().unwrap().await.unwrap(), 4);
        // Many wait for it, and are told each when it is its own.
        let mut calls: Vec<_> = (0..10).map(call).collect();
        for call in &mut calls {
            assert!(futures::poll!(call).is_pending());
        }
        let mut waiting = Vec::new();
        for _ in 0..10 {
            let request = server.next().await.unwrap();
            waiting.push(tokio::spawn(async move {
                request.cancelled().await;
                *request
            }));
        }
        tokio::task::yield_now().await;
        for (number, (call, waits)) in calls.into_iter().zip(waiting).enumerate() {
            assert!(!waits.is_finished());
            drop(call);
            assert_eq!(waits.await.unwrap(), number as u64);
        }
    });
    drop((client, server));
    assert_nothing_left(&one);
}

#[test]
fn a_deadline_reaches_the_server_and_who_is_late_does_not_begin() {
    let (_place, one, other) = two();
    let client = one.service::<u64, u64>("double").client().unwrap();
    let server = other.service::<u64, u64>("double").server().unwrap();
    within(async {
        let (answer, ()) = futures::join!(client.call_timeout(1, PATIENCE), async {
            let request = server.next().await.unwrap();
            let left = request.deadline().unwrap().saturating_duration_since(Instant::now());
            assert!(left <= PATIENCE && !left.is_zero());
            request.respond(2).await.unwrap();
        });
        assert_eq!(*answer.unwrap(), 2);
        // Nobody takes it in time.
        let answer = client.call_timeout(3, Duration::from_millis(5)).await;
        assert_eq!(answer.unwrap_err(), CallError::Timeout(3));
        assert_eq!(server.try_next().unwrap_err(), TryRecvError::Empty);
        // Somebody does, and is told when it is in vain.
        let (answer, ()) = futures::join!(client.call_timeout(4, Duration::from_millis(200)), async {
            let request = server.next().await.unwrap();
            request.cancelled().await;
            assert!(request.respond(8).await.unwrap_err().is_cancelled());
        });
        assert_eq!(answer.unwrap_err(), CallError::Timeout(4));
        // The caller has not heard of the time, and the server has.
        let mut call = Box::pin(client.call_timeout(5, Duration::from_millis(5)));
        assert!(futures::poll!(&mut call).is_pending());
        thread::sleep(Duration::from_millis(10));
        assert_eq!(server.try_next().unwrap_err(), TryRecvError::Empty);
        assert_eq!(call.await.unwrap_err(), CallError::Timeout(5));
    });
    drop((client, server));
    assert_nothing_left(&one);
}

#[test]
fn a_stream_of_responses_comes_in_order_and_ends() {
    let (_place, one, other) = two();
    let client = one.service::<u64, u64>("count").client().unwrap();
    let server = other.service::<u64, u64>("count").server().unwrap();
    within(async {
        for parts in [0, 1, 15, 16, 17, 500] {
            let ((), ()) = futures::join!(
                async {
                    let stream = client.call_stream(parts).await.unwrap();
                    let got: Vec<u64> = stream.map(|part| *part.unwrap()).collect().await;
                    assert_eq!(got, (0..parts).collect::<Vec<_>>());
                },
                async {
                    let mut responses = server.next().await.unwrap().stream();
                    for part in 0..**responses.request() {
                        responses.send(part).await.unwrap();
                    }
                    if parts % 2 == 0 { responses.finish() } else { drop(responses) }
                }
            );
        }
        // One response is a stream of one; of many a caller who wants one gets the first.
        let (mut stream, ()) = futures::join!(async { client.call_stream(7).await.unwrap() }, async {
            server.next().await.unwrap().respond(1).await.unwrap();
        });
        assert_eq!(*stream.next().await.unwrap().unwrap(), 1);
        assert!(stream.next().await.is_none());
        assert!(stream.next().await.is_none());
        let (answer, ()) = futures::join!(client.call(7), async {
            let mut responses = server.next().await.unwrap().stream();
            responses.send(1).await.unwrap();
            responses.request().cancelled().await;
            assert!(responses.send(2).await.unwrap_err().is_cancelled());
        });
        assert_eq!(*answer.unwrap(), 1);
        // Dropped, or panicked: an error, after what was sent.
        for panics in [false, true] {
            let mut stream = client.call_stream(7).await.unwrap();
            let request = server.next().await.unwrap();
            if panics {
                let thread = thread::spawn(move || {
                    let mut responses = request.stream();
                    within(responses.send(1)).unwrap();
                    panic!("as it is meant to");
                });
                thread.join().unwrap_err();
                assert_eq!(*stream.next().await.unwrap().unwrap(), 1);
            } else {
                drop(request);
            }
            assert_eq!(stream.next().await.unwrap().unwrap_err(), CallError::Unanswered(()));
            assert!(stream.next().await.is_none());
        }
    });
    drop((client, server));
    assert_nothing_left(&one);
}

#[test]
fn a_slow_reader_of_a_stream_holds_up_its_server_and_nobody_else() {
    let (_place, one, other) = two();
    let client = one.service::<u64, u64>("count").calls(4).client().unwrap();
    let server = other.service::<u64, u64>("count").server().unwrap();
    within(async {
        let mut stream = client.call_stream(0).await.unwrap();
        let mut responses = server.next().await.unwrap().stream();
        let sent = Arc::new(AtomicU64::new(0));
        let counts = Arc::clone(&sent);
        let sending = tokio::spawn(async move {
            for part in 0..200 {
                responses.send(part).await.unwrap();
                counts.fetch_add(1, Ordering::Relaxed);
            }
        });
        // Others are answered although there is room for four responses only.
        for number in 0..100 {
            let (answer, ()) = futures::join!(client.call(number), async {
                server.next().await.unwrap().respond(number + 1).await.unwrap();
            });
            assert_eq!(*answer.unwrap(), number + 1);
        }
        assert!(sent.load(Ordering::Relaxed) <= 16, "{sent:?}");
        for part in 0..200 {
            assert_eq!(*stream.next().await.unwrap().unwrap(), part);
        }
        assert!(stream.next().await.is_none());
        sending.await.unwrap();
    });
    drop((client, server));
    assert_nothing_left(&one);
}

#[test]
fn a_service_of_other_types_is_refused() {
    let segment = in_process();
    let _client = segment.service::<u64, u64>("double").client().unwrap();
    let refused = |error: OpenError| assert!(matches!(error, OpenError::Mismatch { .. }), "{error}");
    refused(segment.service::<u64, u32>("double").server().unwrap_err());
    refused(segment.service::<u32, u64>("double").server().unwrap_err());
    refused(segment.service::<u64, [u8]>("double").client().unwrap_err());
    refused(segment.service::<u64, u64>("double").capacity(7).server().unwrap_err());
    // A channel of that name is another thing.
    let _channel = segment.channel::<u32>("double").sender().unwrap();
    let names: Vec<String> = segment.channels().into_iter().map(|channel| channel.name).collect();
    assert!(names.contains(&"double@service".to_owned()) && names.contains(&"double".to_owned()), "{names:?}");
    for bad in ["", "a@b", &"x".repeat(121)] {
        let error = segment.service::<u64, u64>(bad).client().unwrap_err();
        assert!(matches!(error, OpenError::InvalidName { .. }), "{error}");
    }
    for calls in [0, 1 << 16] {
        let error = segment.service::<u64, u64>("double").calls(calls).client().unwrap_err();
        assert!(matches!(error, OpenError::InvalidOptions(_)), "{error}");
    }
}

#[test]
fn a_request_that_never_fits_and_a_response_too_are_errors() {
    let (_place, one, other) = two();
    let client = one.service::<[u8], [u8]>("bytes").client().unwrap();
    let server = other.service::<[u8], [u8]>("bytes").server().unwrap();
    within(async {
        let error = client.call(vec![0; 64 << 20]).await.unwrap_err();
        assert!(matches!(&error, CallError::TooLarge(value) if value.len() == 64 << 20), "{error}");
        let (answer, ()) = futures::join!(client.call(b"a"), async {
            let request = server.next().await.unwrap();
            assert!(!request.respond(vec![0; 64 << 20]).await.unwrap_err().is_cancelled());
        });
        assert_eq!(answer.unwrap_err(), CallError::Unanswered(b"a"));
    });
    drop((client, server));
    assert_nothing_left(&one);
}

/// Waits for a child while the calls of this thread go on.
async fn is_ready(place: &Place, child: &Process) {
    let path = place.path().join(format!("ready-{}", child.pid()));
    while !path.exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn open(place: &Place) -> Segment {
    place.options().size(8 << 20).participants(16).open_or_create("service").unwrap()
}

#[test]
fn the_death_of_a_server_is_told_at_once_and_only_to_those_whose_requests_it_had() {
    const TEST: &str = "the_death_of_a_server_is_told_at_once_and_only_to_those_whose_requests_it_had";
    let place = Place::new();
    let segment = open(&place);
    if role().is_some() {
        let server = segment.service::<u64, u64>("double").server().unwrap();
        let mut kept = Vec::new();
        within(async {
            for _ in 0..3 {
                kept.push(server.next().await.unwrap());
            }
            // One is answered, one is a stream that has begun.
            kept.pop().unwrap().respond(99).await.unwrap();
            let mut responses = kept.pop().unwrap().stream();
            responses.send(5).await.unwrap();
            common::ready(&place);
            common::wait_to_be_killed()
        });
    }
    within(async {
        let client = segment.service::<u64, u64>("double").client().unwrap();
        let held = tokio::spawn({
            let client = client.clone();
            async move { client.call(1).await }
        });
        tokio::task::yield_now().await;
        let mut stream = client.call_stream(2).await.unwrap();
        let mut answered = Box::pin(client.call(3));
        assert!(futures::poll!(&mut answered).is_pending());
        let mut queued = Box::pin(client.call(4));
        assert!(futures::poll!(&mut queued).is_pending());
        let child = place.spawn(TEST, "server");
        assert_eq!(*answered.await.unwrap(), 99);
        is_ready(&place, &child).await;
        let mine = segment.service::<u64, u64>("double").server().unwrap();
        let killed = Instant::now();
        child.kill();
        assert_eq!(held.await.unwrap().unwrap_err(), CallError::ServerGone(1));
        println!("told after {:?}", killed.elapsed());
        assert_eq!(*stream.next().await.unwrap().unwrap(), 5);
        assert_eq!(stream.next().await.unwrap().unwrap_err(), CallError::ServerGone(()));
        // What nobody had begun with goes to another server.
        let ((), answer) = futures::join!(async { mine.next().await.unwrap().respond(8).await.unwrap() }, queued);
        assert_eq!(*answer.unwrap(), 8);
        drop((client, mine, stream));
    });
    assert_nothing_left(&segment);
}

#[test]
fn the_request_of_a_dead_server_goes_to_another_one_if_it_may() {
    const TEST: &str = "the_request_of_a_dead_server_goes_to_another_one_if_it_may";
    let place = Place::new();
    let segment = open(&place);
    let options = || segment.service::<u64, u64>("double").delivery(Delivery::AtLeastOnce { max_deliveries: 2 });
    if role().is_some() {
        let server = options().server().unwrap();
        let _request = within(server.next()).unwrap();
        common::ready(&place);
        common::wait_to_be_killed();
    }
    let client = options().client().unwrap();
    let server = segment.service::<u64, u64>("double").server().unwrap();
    within(async {
        for lives in [1, 2] {
            let call = tokio::spawn({
                let client = client.clone();
                async move { client.call(7).await }
            });
            for _ in 0..lives {
                let child = place.spawn(TEST, "server");
                is_ready(&place, &child).await;
                child.kill();
            }
            if lives == 1 {
                let request = server.next().await.unwrap();
                assert_eq!((*request, request.delivery_count()), (7, 2));
                request.respond(14).await.unwrap();
                assert_eq!(*call.await.unwrap().unwrap(), 14);
            } else {
                assert_eq!(call.await.unwrap().unwrap_err(), CallError::ServerGone(7));
            }
        }
    });
    drop((client, server));
    assert_nothing_left(&segment);
}

#[test]
fn the_death_of_a_client_is_told_to_the_server_and_leaves_nothing() {
    const TEST: &str = "the_death_of_a_client_is_told_to_the_server_and_leaves_nothing";
    let place = Place::new();
    let segment = open(&place);
    if role().is_some() {
        let client = segment.service::<u64, u64>("double").client().unwrap();
        let _ = within(join_all((0..5).map(|number| client.call(number))));
        return;
    }
    // Keeps the service open.
    let client = segment.service::<u64, u64>("double").client().unwrap();
    let server = segment.service::<u64, u64>("double").server().unwrap();
    let child = place.spawn(TEST, "client");
    within(async {
        let first = server.next().await.unwrap();
        let second = server.next().await.unwrap();
        assert!(!first.is_cancelled());
        child.kill();
        first.cancelled().await;
        assert!(second.respond(7).await.unwrap_err().is_cancelled());
        drop(first);
        // Nor do those come that it had sent.
        assert_eq!(server.try_next().unwrap_err(), TryRecvError::Empty);
    });
    eventually("its channel goes by itself", || segment.channels().len() == 2);
    drop((client, server));
    assert_nothing_left(&segment);
}

/// What a server does with a request, by its number: `None` drops it.
fn answer_to(stamp: Stamp) -> Option<Stamp> {
    (!stamp.number.is_multiple_of(17)).then_some(Stamp { sender: stamp.sender + 1000, number: stamp.number })
}

async fn serve_for_ever(segment: &Segment, seed: u64) {
    let server = segment.service::<[u8], [u8]>("stamps").server().unwrap();
    let mut random = Random::new(seed);
    let mut kept = Vec::new();
    while let Some(request) = server.next().await {
        kept.push(request);
        // Some are in its hands when it is killed.
        if kept.len() < random.below(6) && !server.is_empty() {
            continue;
        }
        for request in kept.drain(..) {
            let stamp = Stamp::verify(&request).unwrap();
            if stamp.number.is_multiple_of(5) && stamp.sender.is_multiple_of(2) {
                let mut responses = request.stream();
                for part in 0..stamp.number % 40 {
                    let part = Stamp { sender: stamp.sender, number: part }.message(random.below(300) + 1);
                    if responses.send(part).await.is_err() {
                        break;
                    }
                }
            } else if let Some(answer) = answer_to(stamp) {
                let _ = request.respond(answer.message(random.below(3000) + 1)).await;
            }
        }
    }
}

/// Calls, and looks at what comes; counts answers and deaths.
async fn call_for_a_while(client: Client<[u8], [u8]>, sender: u32, until: Arc<AtomicU64>) -> (u64, u64) {
    let mut random = Random::new(sender.into());
    let (mut answers, mut deaths) = (0, 0);
    let mut number = 0;
    while until.load(Ordering::Relaxed) == 0 {
        number += 1;
        let stamp = Stamp { sender, number };
        let request = stamp.message(random.below(2000) + 1);
        if number % 5 == 0 && sender.is_multiple_of(2) {
            let mut stream = match client.call_stream(&request).await {
                Ok(stream) => stream,
                Err(CallError::Closed(_)) => continue,
                Err(error) => panic!("{error}"),
            };
            let mut parts = 0;
            let complete = loop {
                match stream.next().await {
                    Some(Ok(part)) => {
                        assert_eq!(Stamp::verify(&part), Some(Stamp { sender, number: parts }));
                        parts += 1;
                    }
                    Some(Err(CallError::ServerGone(()) | CallError::Closed(()))) => break false,
                    Some(Err(error)) => panic!("{error}"),
                    None => break true,
                }
            };
            assert!(!complete || parts == number % 40, "{parts} parts of {}", number % 40);
            continue;
        }
        let call = client.call(&request);
        if random.below(20) == 0 {
            // Given up at some point.
            let _ = futures::future::select(Box::pin(call), Box::pin(tokio::task::yield_now())).await;
            continue;
        }
        match (call.await, answer_to(stamp)) {
            (Ok(answer), expected) => {
                assert_eq!(Stamp::verify(&answer), expected);
                answers += 1;
            }
            (Err(CallError::ServerGone(_)), _) => deaths += 1,
            (Err(CallError::Closed(_)), _) => tokio::task::yield_now().await,
            (Err(CallError::Unanswered(_)), None) => {}
            (Err(error), _) => panic!("{error} for {stamp:?}"),
        }
    }
    (answers, deaths)
}

#[test]
fn every_call_ends_while_servers_and_clients_are_killed() {
    const TEST: &str = "every_call_ends_while_servers_and_clients_are_killed";
    const KILLS: u64 = 60;
    let place = Place::new();
    let segment = open(&place);
    let client = || segment.service::<[u8], [u8]>("stamps").calls(8).client().unwrap();
    if let Some(role) = role() {
        let (kind, seed) = role.split_once(' ').unwrap();
        let seed: u64 = seed.parse().unwrap();
        return within(async {
            match kind {
                "server" => serve_for_ever(&segment, seed).await,
                _ => {
                    let until = Arc::new(AtomicU64::new(0));
                    let client = client();
                    let sender = 100 + seed as u32;
                    join_all((0..4).map(|task| call_for_a_while(client.clone(), sender + task, Arc::clone(&until))))
                        .await;
                }
            }
        });
    }
    let until = Arc::new(AtomicU64::new(0));
    let mine = client();
    let calling = {
        let (mine, until) = (mine.clone(), Arc::clone(&until));
        thread::spawn(move || {
            within(join_all((0..6).map(|task| call_for_a_while(mine.clone(), task, Arc::clone(&until)))))
        })
    };
    let kinds = ["server", "server", "client", "client"];
    let mut random = Random::new(11);
    let mut next = 0;
    let mut spawn = |kind: &str| {
        next += 10;
        place.spawn(TEST, &format!("{kind} {next}"))
    };
    let mut victims: Vec<Process> = kinds.iter().map(|kind| spawn(kind)).collect();
    for _ in 0..KILLS {
        thread::sleep(Duration::from_millis(random.below(40) as u64 + 5));
        let which = random.below(kinds.len());
        let fresh = spawn(kinds[which]);
        std::mem::replace(&mut victims[which], fresh).kill();
    }
    until.store(1, Ordering::Relaxed);
    let ended: Vec<(u64, u64)> = calling.join().unwrap();
    let (answers, deaths) = ended.iter().fold((0, 0), |(a, d), (answers, deaths)| (a + answers, d + deaths));
    println!("{answers} answers, {deaths} deaths of servers with a request");
    assert!(answers > 0 && deaths > 0, "{answers} answers, {deaths} deaths");
    assert_eq!(mine.in_flight(), 0);
    victims.into_iter().for_each(Process::kill);
    eventually("all dead are buried", || {
        segment.bury_the_dead();
        segment.participants().len() == 1
    });
    drop(mine);
    assert_nothing_left(&segment);
}

/// Sends a stream, and says when it waits for the first time, and when it has heard that nobody wants it any more.
async fn stream_numbers(place: &Place, segment: &Segment) {
    let server = segment.service::<u64, u64>("numbers").server().unwrap();
    std::fs::write(place.path().join(format!("open-{}", std::process::id())), []).unwrap();
    let request = server.next().await.unwrap();
    let mut responses = request.stream();
    let mut has_waited = false;
    for number in 0..100 {
        let sent = {
            let mut send = std::pin::pin!(responses.send(number));
            std::future::poll_fn(|context| {
                let polled = send.as_mut().poll(context);
                if polled.is_pending() && number >= 16 && !has_waited {
                    has_waited = true;
                    ready(place);
                }
                polled
            })
            .await
        };
        if sent.is_err() {
            std::fs::write(place.path().join("given-up"), []).unwrap();
            return;
        }
    }
    responses.finish();
}

#[test]
fn a_server_that_was_stopped_does_not_hold_up_the_stream_of_another_one_for_the_same_client() {
    const TEST: &str = "a_server_that_was_stopped_does_not_hold_up_the_stream_of_another_one_for_the_same_client";
    let place = Place::new();
    let segment = place.options().size(4 << 20).participants(8).open_or_create("streams").unwrap();
    if role().is_some() {
        return within(stream_numbers(&place, &segment));
    }
    let signal = |child: &Process, signal| {
        // SAFETY: a plain system call on our child.
        assert_eq!(unsafe { libc::kill(child.pid() as libc::pid_t, signal) }, 0);
    };
    let is_open = |child: &Process| {
        let path = place.path().join(format!("open-{}", child.pid()));
        eventually("the server is there", || path.exists());
    };
    // One call at a time: each has the slot that the one before gave up.
    let client = segment.service::<u64, u64>("numbers").client().unwrap();
    let stopped = place.spawn(TEST, "stopped");
    is_open(&stopped);
    let first = within(client.call_stream(1)).unwrap();
    wait_until_ready(&place, &stopped);
    signal(&stopped, libc::SIGSTOP);
    drop(first);
    let other = place.spawn(TEST, "other");
    is_open(&other);
    within(async {
        let mut second = client.call_stream(2).await.unwrap();
        wait_until_ready(&place, &other);
        // Both wait now, each for the client of its call.
        signal(&stopped, libc::SIGCONT);
        eventually("the one that was stopped hears that its call was given up", || {
            place.path().join("given-up").exists()
        });
        for number in 0..100 {
            assert_eq!(*second.next().await.unwrap().unwrap(), number);
        }
        assert!(second.next().await.is_none());
    });
    stopped.succeed();
    other.succeed();
    drop(client);
    assert_nothing_left(&segment);
}

struct Idle;

impl std::task::Wake for Idle {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn calls_that_are_given_up_while_they_wait_for_a_slot_leave_nothing_behind() {
    let segment = in_process();
    let client = segment.service::<u64, u64>("double").calls(1).client().unwrap();
    let server = segment.service::<u64, u64>("double").server().unwrap();
    let mut first = Box::pin(client.call(1));
    assert!(first.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_pending());
    let idle = Arc::new(Idle);
    for _ in 0..10_000 {
        let waker = std::task::Waker::from(Arc::clone(&idle));
        let mut call = Box::pin(client.call(2));
        assert!(call.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    }
    assert_eq!(Arc::strong_count(&idle), 1);
    assert_eq!(client.in_flight(), 1);
    // Those that wait still are served in their turn.
    within(async {
        let mut calls = futures::stream::FuturesOrdered::new();
        (2..6).for_each(|number| calls.push_back(client.call(number)));
        let served = async {
            for number in [2, 3, 4, 5] {
                let request = server.next().await.unwrap();
                assert_eq!(*request, number);
                request.respond(number * 2).await.unwrap();
            }
        };
        drop(first);
        let answers = async {
            for number in 2..6 {
                assert_eq!(*calls.next().await.unwrap().unwrap(), number * 2);
            }
        };
        futures::join!(served, answers);
    });
}

#[test]
fn calls_that_come_seldom_are_answered() {
    let (_place, one, other) = two();
    let client = one.service::<u64, u64>("double").client().unwrap();
    let server = other.service::<u64, u64>("double").server().unwrap();
    let serving = thread::spawn(move || within(serve(&server)));
    within(async {
        for number in 0..10 {
            tokio::time::sleep(Duration::from_millis(2)).await;
            assert_eq!(*client.call(number).await.unwrap(), number * 2);
        }
    });
    drop(client);
    serving.join().unwrap();
    assert_nothing_left(&one);
}
