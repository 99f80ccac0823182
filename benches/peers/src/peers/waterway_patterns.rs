//! Waterway's service and watch.

use waterway::{channel::Plain, service::{Client, Server}, watch, Segment};

use crate::{
    patterns::{Reader, Writer},
    spec::Role,
    stamp::{Seen, Value, verify},
    worker::{Answerer, Caller, Worker},
};

type Payload = [u64; 8];

impl Caller for Client<Payload, Payload> {
    async fn call(&mut self, number: u64, seen: &mut Seen) {
        let response = Client::call(self, Payload::make(0, number)).await.expect("the server is there");
        seen.take(response.bytes());
    }
}

impl Answerer for Server<Payload, Payload> {
    async fn answer(&mut self, rounds: u64) -> Seen {
        let mut seen = Seen::new(1, true);
        for round in 0..rounds {
            let request = self.next().await.expect("the client is there");
            seen.take(request.bytes());
            request.respond(Payload::make(0, round)).await.expect("the client waits");
        }
        seen
    }
}

pub fn call(worker: Worker, segment: &Segment) {
    let service = segment.service::<Payload, Payload>("call").capacity(worker.spec.capacity);
    match worker.role {
        Role::Echo => worker.run(worker.answer(service.server().expect("a service can be had"))),
        _ => worker.run(worker.call(service.client().expect("a service can be had"))),
    }
}

impl<T: Plain + Value> Writer for watch::Sender<T> {
    fn write(&mut self, number: u64) {
        // That nobody has a receiver is no concern of the writer's.
        self.send_replace(T::make(0, number)).expect("there is memory");
    }
}

impl<T: Plain + Value> Reader for watch::Receiver<T> {
    fn read(&mut self) -> u64 {
        verify(self.borrow().bytes())
    }
}

pub fn watch<T: Plain + Value>(worker: Worker, segment: &Segment) {
    let watch = segment.watch::<T>("watch").initial(T::make(0, 0));
    match worker.role {
        Role::Sender(_) => worker.run(worker.write(watch.sender().expect("a watch can be had"))),
        _ => worker.run(worker.read(watch.receiver().expect("a watch can be had"))),
    }
}
