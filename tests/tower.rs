//! Both ends of a service as services of the crate `tower`.
#![cfg(feature = "tower")]

mod common;

use std::{
    convert::Infallible,
    future::{Ready, pending, poll_fn, ready},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use common::{assert_empty, eventually, in_process, two, within};
use futures::{FutureExt, channel::oneshot, future::join_all, poll};
use tower::{Service, ServiceBuilder, ServiceExt, retry::Policy, service_fn};
use waterway::{
    Delivery, Message, Segment, WaitStrategy,
    service::{CallError, CallFuture, Client, Request, Server},
};

type Asked = Arc<Request<u64, u64>>;

fn ends(segment: &Segment) -> (Client<u64, u64>, Server<u64, u64>) {
    let options = || segment.service::<u64, u64>("double");
    (options().client().unwrap(), options().server().unwrap())
}

async fn double(request: Asked) -> Result<u64, Infallible> {
    Ok(**request * 2)
}

/// By the trait: `client.call` is the client's own.
fn call(client: &mut Client<u64, u64>, request: u64) -> CallFuture<u64> {
    Service::call(client, request)
}

fn poll_ready(client: &mut Client<u64, u64>, context: &mut Context<'_>) -> Poll<Result<(), CallError<()>>> {
    Service::<u64>::poll_ready(client, context)
}

fn assert_nothing_left(segment: &Segment) {
    eventually("no channel is left", || segment.channels().is_empty());
    assert_empty(segment);
}

#[test]
fn layers_work_on_both_ends() {
    let (_place, one, other) = two();
    within(async {
        let client = one.service::<u64, u64>("double").client().unwrap();
        let server = other.service::<u64, u64>("double").server().unwrap();
        let timeout = Duration::from_secs(60);
        let service = ServiceBuilder::new().concurrency_limit(3).timeout(timeout).service(service_fn(double));
        let serving = tokio::spawn(server.serve(service).at_once(5));
        let client = ServiceBuilder::new().concurrency_limit(7).timeout(timeout).service(client);
        let calls = (0..200_u64).map(|number| {
            let client = client.clone();
            async move {
                let response: Message<u64> = client.oneshot(number).await.unwrap();
                assert_eq!(*response, number * 2);
            }
        });
        join_all(calls).await;
        drop(client);
        serving.await.unwrap().unwrap();
    });
    assert_nothing_left(&one);
}

#[test]
fn a_client_is_ready_when_a_call_has_its_place_and_a_clone_is_not() {
    let segment = in_process();
    let client = segment.service::<u64, u64>("double").calls(1).client().unwrap();
    let server = segment.service::<u64, u64>("double").server().unwrap();
    within(async {
        let (mut first, mut second) = (client.clone(), client.clone());
        poll_fn(|context| poll_ready(&mut first, context)).await.unwrap();
        assert_eq!(client.in_flight(), 1);
        // Again, and it is ready still.
        poll_fn(|context| poll_ready(&mut first, context)).await.unwrap();
        let mut waiting = Box::pin(poll_fn(|context| poll_ready(&mut second, context)));
        assert!(poll!(&mut waiting).is_pending());
        let call = call(&mut first, 4);
        let answer = async {
            let request = server.next().await.unwrap();
            request.respond(8).await.unwrap();
        };
        let (response, ()) = futures::join!(call, answer);
        assert_eq!(*response.unwrap(), 8);
        waiting.await.unwrap();
        // It gives its place up when it is dropped.
        let mut third = client.clone();
        let mut waiting = Box::pin(poll_fn(|context| poll_ready(&mut third, context)));
        assert!(poll!(&mut waiting).is_pending());
        drop(second);
        waiting.await.unwrap();
    });
    drop((client, server));
    assert_nothing_left(&segment);
}

#[test]
fn a_client_is_not_ready_while_too_many_requests_wait() {
    let segment = in_process();
    let options = || segment.service::<u64, u64>("double").capacity(2);
    let (client, server) = (options().client().unwrap(), options().server().unwrap());
    within(async {
        let mut calls: Vec<_> = (0..2).map(|number| Box::pin(client.call(number))).collect();
        for call in &mut calls {
            assert!(poll!(call).is_pending());
        }
        // In tasks, which are polled only when they are woken.
        let waits = [client.clone(), client.clone()].map(|mut client| {
            tokio::spawn(async move {
                poll_fn(|context| poll_ready(&mut client, context)).await.unwrap();
                client
            })
        });
        tokio::task::yield_now().await;
        assert!(waits.iter().all(|wait| !wait.is_finished()));
        let request = server.next().await.unwrap();
        // Whoever does not use the room that it has heard of tells the next one.
        let [next, others] = waits;
        drop(next.await.unwrap());
        let mut others = others.await.unwrap();
        drop((calls, request));
        assert!(call(&mut others, 3).now_or_never().is_none());
    });
    drop((client, server));
    assert_nothing_left(&segment);
}

#[test]
fn a_call_without_readiness_waits_in_its_future_and_errors_are_those_of_calls() {
    let segment = in_process();
    let (mut client, server) = ends(&segment);
    within(async {
        let (unanswered, ()) = futures::join!(call(&mut client, 1), async { drop(server.next().await.unwrap()) });
        assert_eq!(unanswered.unwrap_err(), CallError::Unanswered(()));
        drop(server);
        // There may be a server again.
        poll_fn(|context| poll_ready(&mut client, context)).await.unwrap();
        assert_eq!(call(&mut client, 1).await.unwrap_err(), CallError::Closed(()));
        let server = segment.service::<u64, u64>("double").server().unwrap();
        poll_fn(|context| poll_ready(&mut client, context)).await.unwrap();
        let answer = async { server.next().await.unwrap().respond(2).await.unwrap() };
        let (response, ()) = futures::join!(call(&mut client, 1), answer);
        assert_eq!(*response.unwrap(), 2);
    });
}

/// So often.
#[derive(Clone)]
struct Times(usize);

impl Policy<u64, Message<u64>, CallError<()>> for Times {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut u64, result: &mut Result<Message<u64>, CallError<()>>) -> Option<Ready<()>> {
        self.0 = self.0.checked_sub(usize::from(result.is_err()))?;
        result.is_err().then(|| ready(()))
    }

    fn clone_request(&mut self, request: &u64) -> Option<u64> {
        Some(*request)
    }
}

#[test]
fn retries_come_again() {
    let segment = in_process();
    let (client, server) = ends(&segment);
    within(async {
        let seen = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&seen);
        let service = service_fn(move |request: Asked| {
            let turn = counted.fetch_add(1, Ordering::Relaxed);
            async move { if turn < 2 { Err("not yet") } else { Ok(**request * 2) } }
        });
        let serving = tokio::spawn(server.serve(service));
        let client = ServiceBuilder::new().retry(Times(5)).service(client);
        assert_eq!(*client.oneshot(21).await.unwrap(), 42);
        assert_eq!(seen.load(Ordering::Relaxed), 3);
        serving.await.unwrap().unwrap();
    });
}

#[test]
fn a_server_is_at_no_more_requests_at_once_than_it_may_be() {
    let segment = in_process();
    let (client, server) = ends(&segment);
    within(async {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counters = (Arc::clone(&now), Arc::clone(&most));
        // Nobody goes on before three are there.
        let barrier = Arc::new(tokio::sync::Barrier::new(3));
        let service = service_fn(move |request: Asked| {
            let ((now, most), barrier) = (counters.clone(), Arc::clone(&barrier));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                barrier.wait().await;
                now.fetch_sub(1, Ordering::Relaxed);
                double(request).await
            }
        });
        let serving = tokio::spawn(server.serve(service).at_once(3));
        let calls = join_all((0..99).map(|number| client.call(number))).await;
        for (number, response) in (0..).zip(calls) {
            assert_eq!(*response.unwrap(), number * 2);
        }
        assert_eq!(most.load(Ordering::Relaxed), 3);
        drop(client);
        serving.await.unwrap().unwrap();
    });
    assert_nothing_left(&segment);
}

/// A service that is ready when it is told so, and then counts.
#[derive(Clone, Default)]
struct Gate {
    is_open: Arc<AtomicBool>,
    is_broken: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
}

impl Service<Asked> for Gate {
    type Response = u64;
    type Error = &'static str;
    type Future = Pin<Box<dyn Future<Output = Result<u64, &'static str>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Poll::Ready(Err("broken"));
        }
        if self.is_open.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        // Nobody is told: the server comes round again when it hears of something else.
        Poll::Pending
    }

    fn call(&mut self, request: Asked) -> Self::Future {
        assert!(self.is_open.load(Ordering::Relaxed), "called without being ready");
        self.calls.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move { Ok(**request * 2) })
    }
}

#[test]
fn what_a_service_is_not_ready_for_goes_to_other_servers() {
    let (_place, one, other) = two();
    within(async {
        let (client, server) = ends(&one);
        let (shut, open) = (Gate::default(), Gate::default());
        open.is_open.store(true, Ordering::Relaxed);
        let shut_server = tokio::spawn(server.serve(shut.clone()));
        let open_server = tokio::spawn(other.service::<u64, u64>("double").server().unwrap().serve(open.clone()));
        for number in 0..100 {
            assert_eq!(*client.call(number).await.unwrap(), number * 2);
        }
        assert_eq!((shut.calls.load(Ordering::Relaxed), open.calls.load(Ordering::Relaxed)), (0, 100));
        shut_server.abort();
        // One that will never be ready again ends.
        let broken = Gate::default();
        broken.is_broken.store(true, Ordering::Relaxed);
        let broken = one.service::<u64, u64>("double").server().unwrap().serve(broken);
        assert_eq!(broken.await, Err("broken"));
        assert_eq!(*client.call(4).await.unwrap(), 8);
        drop(client);
        open_server.await.unwrap().unwrap();
    });
    assert_nothing_left(&one);
}

#[test]
fn a_server_that_sleeps_until_a_request_comes_and_is_not_ready_then_wakes_another() {
    let segment = in_process();
    within(async {
        let options = || segment.service::<u64, u64>("double").wait(WaitStrategy::Park);
        let client = options().client().unwrap();
        let gates = [Gate::default(), Gate::default()];
        gates.iter().for_each(|gate| gate.is_open.store(true, Ordering::Relaxed));
        // The first waits longest, and is woken first.
        let [first, second] = gates.clone().map(|gate| tokio::spawn(options().server().unwrap().serve(gate)));
        tokio::task::yield_now().await;
        gates[0].is_open.store(false, Ordering::Relaxed);
        assert_eq!(*client.call(4).await.unwrap(), 8);
        assert_eq!(gates[1].calls.load(Ordering::Relaxed), 1);
        drop(client);
        first.abort();
        second.await.unwrap().unwrap();
    });
}

#[test]
fn a_server_that_is_told_to_stop_finishes_what_it_has_begun_and_leaves_the_rest() {
    let (_place, one, other) = two();
    within(async {
        let (client, server) = ends(&one);
        let others = other.service::<u64, u64>("double").server().unwrap();
        let (go_on, waits) = tokio::sync::watch::channel(false);
        let service = service_fn(move |request: Asked| {
            let mut waits = waits.clone();
            async move {
                waits.wait_for(|go_on| *go_on).await.unwrap();
                double(request).await
            }
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let mut serving = Box::pin(server.serve(service).at_once(2).until(stopped.map(|_| ())));
        let mut calls: Vec<_> = (0..5).map(|number| Box::pin(client.call(number))).collect();
        for call in &mut calls {
            assert!(poll!(call).is_pending());
        }
        assert!(poll!(&mut serving).is_pending());
        stop.send(()).unwrap();
        assert!(poll!(&mut serving).is_pending());
        go_on.send(true).unwrap();
        serving.await.unwrap();
        let others = tokio::spawn(others.serve(service_fn(double)));
        for (number, response) in (0..).zip(join_all(calls).await) {
            assert_eq!(*response.unwrap(), number * 2);
        }
        drop(client);
        others.await.unwrap().unwrap();
    });
    assert_nothing_left(&one);
}

#[test]
fn a_call_that_is_given_up_drops_the_services_future() {
    struct Dropped(Option<oneshot::Sender<()>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.take().unwrap().send(());
        }
    }
    let segment = in_process();
    let (client, server) = ends(&segment);
    within(async {
        let (tell, told) = oneshot::channel();
        let (begin, mut begun) = tokio::sync::mpsc::unbounded_channel();
        let mut tell = Some(Dropped(Some(tell)));
        let service = service_fn(move |_: Asked| {
            begin.send(()).unwrap();
            let dropped = tell.take();
            async move {
                let _dropped = dropped;
                pending::<Result<u64, Infallible>>().await
            }
        });
        let serving = tokio::spawn(server.serve(service));
        let client = ServiceBuilder::new().timeout(Duration::from_millis(50)).service(client);
        let call = tokio::spawn(client.oneshot(1));
        begun.recv().await.unwrap();
        told.await.unwrap();
        assert!(call.await.unwrap().unwrap_err().is::<tower::timeout::error::Elapsed>());
        serving.await.unwrap().unwrap();
    });
    assert_nothing_left(&segment);
}

#[test]
fn a_request_whose_service_fails_or_panics_goes_to_another_server_if_it_may() {
    let (_place, one, other) = two();
    within(async {
        let failing = one.service::<u64, u64>("double").server().unwrap();
        let failing = tokio::spawn(failing.serve(service_fn(async |_: Asked| Err::<u64, _>("I cannot"))));
        let once = one.service::<u64, u64>("double").client().unwrap();
        assert_eq!(once.call(1).await.unwrap_err(), CallError::Unanswered(1));

        let often = one.service::<u64, u64>("double").delivery(Delivery::AtLeastOnce { max_deliveries: 1_000_000 });
        let often = often.client().unwrap();
        let good = other.service::<u64, u64>("double").server().unwrap();
        let good = tokio::spawn(good.serve(service_fn(double)));
        for number in 0..50 {
            assert_eq!(*often.call(number).await.unwrap(), number * 2);
        }
        let panicking = one.service::<u64, u64>("double").server().unwrap();
        let panicking = tokio::spawn(panicking.serve(service_fn(async |request: Asked| {
            assert_eq!(request.delivery_count(), 0, "it is 1 at least");
            double(request).await
        })));
        let mut number = 0;
        while !panicking.is_finished() {
            number += 1;
            assert_eq!(*often.call(number).await.unwrap(), number * 2);
        }
        assert!(panicking.await.unwrap_err().is_panic());
        drop((once, often));
        failing.await.unwrap().unwrap();
        good.await.unwrap().unwrap();
    });
    assert_nothing_left(&one);
}

#[test]
fn a_service_may_keep_its_request_longer_than_it_works_on_it() {
    let segment = in_process();
    let (client, server) = ends(&segment);
    let (keep, mut kept) = tokio::sync::mpsc::unbounded_channel();
    within(async {
        let service = service_fn(move |request: Asked| {
            keep.send(Arc::clone(&request)).unwrap();
            double(request)
        });
        let serving = tokio::spawn(server.serve(service));
        for number in 0..10 {
            assert_eq!(*client.call(number).await.unwrap(), number * 2);
        }
        drop(client);
        serving.await.unwrap().unwrap();
    });
    for number in 0..10 {
        assert_eq!(**kept.try_recv().unwrap(), number);
    }
    drop(kept);
    assert_nothing_left(&segment);
}
