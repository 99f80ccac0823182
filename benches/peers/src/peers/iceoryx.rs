//! iceoryx2: publish and subscribe, loaned and written in place, without loss; whoever receives polls, or waits for an event.

use core::mem::MaybeUninit;

use iceoryx2::{
    config::Config,
    node::Node,
    port::{listener::Listener, notifier::Notifier, publisher::Publisher, subscriber::Subscriber},
    prelude::*,
};

use crate::{
    peers::{iceoryx_patterns, play, prefix},
    spec::{Kind, Role},
    stamp::{Seen, fill_uninit},
    worker::{Rx, Tx, Worker},
};

/// What only one thread uses: these workers have a current-thread runtime each, and never leave it.
pub struct Alone<T>(pub T);

// SAFETY: see above; `run` does not let a runtime with several threads near it.
unsafe impl<T> Send for Alone<T> {}

struct Out {
    _node: Node<ipc::Service>,
    publisher: Publisher<ipc::Service, [u8], ()>,
    notifier: Option<Notifier<ipc::Service>>,
    size: usize,
}

impl Tx for Alone<Out> {
    async fn send(&mut self, number: u64) {
        let Out { publisher, notifier, size, .. } = &self.0;
        // A strategy to retry is set, and yet now and then a sample gets to nobody: then it was not sent.
        loop {
            let mut sample = publisher.loan_slice_uninit(*size).expect("as many are there as can be under way");
            let payload: &mut [MaybeUninit<u8>] = sample.payload_mut();
            fill_uninit(payload, number);
            // SAFETY: all sizes are whole words, and so all of it was written.
            let sample = unsafe { sample.assume_init() };
            if sample.send().expect("the subscriber is there") > 0 {
                break;
            }
        }
        if let Some(notifier) = notifier {
            notifier.notify().expect("the listener is there");
        }
    }
}

struct In {
    _node: Node<ipc::Service>,
    subscriber: Subscriber<ipc::Service, [u8], ()>,
    listener: Option<Listener<ipc::Service>>,
    /// Others poll on the same core.
    yields: bool,
}

impl Rx for Alone<In> {
    async fn recv(&mut self, seen: &mut Seen) {
        loop {
            if let Some(sample) = self.0.subscriber.receive().expect("samples can be had") {
                return seen.take(sample.payload());
            }
            match &self.0.listener {
                Some(listener) => drop(listener.blocking_wait(|_| {}).expect("one can wait")),
                None if self.0.yields => std::thread::yield_now(),
                None => std::hint::spin_loop(),
            }
        }
    }
}

pub fn node(worker: Worker) -> Node<ipc::Service> {
    let place = &worker.spec.place;
    let mut config = Config::default();
    config.global.prefix = prefix(place).as_str().try_into().expect("a short name");
    config.global.set_root_path(&place.to_str().expect("a plain name").try_into().expect("a short path"));
    NodeBuilder::new().config(&config).create().expect("a node can be had")
}

macro_rules! service {
    ($worker:expr, $node:expr, $direction:expr) => {
        $node
            .service_builder(&$direction.try_into().expect("a plain name"))
            .publish_subscribe::<[u8]>()
            .enable_safe_overflow(false)
            .history_size(0)
            .subscriber_max_buffer_size($worker.spec.capacity)
            .max_subscribers($worker.spec.receivers)
            .max_publishers($worker.spec.senders)
            .max_nodes(64)
            .open_or_create()
            .expect("a service can be had")
    };
}

macro_rules! event {
    ($node:expr, $direction:expr) => {
        $node.service_builder(&$direction.try_into().expect("a plain name")).event().open_or_create()
    };
}

fn with_events(worker: Worker) -> bool {
    worker.spec.peer == "iceoryx2-event"
}

fn sender(worker: Worker, direction: &str) -> Alone<Out> {
    let node = node(worker);
    let service = service!(worker, node, direction);
    let publisher = service.publisher_builder().initial_max_slice_len(worker.spec.size);
    let publisher = publisher.backpressure_strategy(BackpressureStrategy::RetryUntilDelivered).create();
    let notifier = with_events(worker).then(|| {
        let events = event!(node, direction).expect("a service can be had");
        events.notifier_builder().create().expect("a notifier can be had")
    });
    let publisher = publisher.expect("a publisher can be had");
    Alone(Out { _node: node, publisher, notifier, size: worker.spec.size })
}

fn receiver(worker: Worker, direction: &str) -> Alone<In> {
    let node = node(worker);
    let subscriber = service!(worker, node, direction).subscriber_builder().create().expect("a subscriber can be had");
    let listener = with_events(worker).then(|| {
        let events = event!(node, direction).expect("a service can be had");
        events.listener_builder().create().expect("a listener can be had")
    });
    Alone(In { _node: node, subscriber, listener, yields: worker.spec.receivers > 1 })
}

pub fn run(worker: Worker) {
    assert!(!worker.spec.multi, "the ends of iceoryx2 stay on their thread here");
    match worker.spec.kind {
        Kind::Call => return iceoryx_patterns::call(worker),
        Kind::Read { .. } | Kind::Write if worker.spec.size == 64 => {
            return iceoryx_patterns::board::<[u64; 8]>(worker);
        }
        Kind::Read { .. } | Kind::Write => return iceoryx_patterns::board::<[u64; 512]>(worker),
        Kind::Publish => {
            return worker.run(match worker.role {
                Role::Sender(_) => worker.publish(sender(worker, "there")),
                _ => worker.subscribe(receiver(worker, "there")),
            });
        }
        _ => {}
    }
    worker.run(Box::pin(async move {
        play!(worker, there: sender(worker, "there"), vec![receiver(worker, "there")];
            back: sender(worker, "back"), vec![receiver(worker, "back")]);
    }));
}
