//! Waterway's broadcast, to groups of one subscriber each, for which publishers wait.

use waterway::{broadcast::{Behind, Publisher, Subscriber}, Segment};

use crate::{
    spec::{Kind, Role},
    stamp::{Seen, Value, fill},
    worker::{Rx, Tx, Worker},
};

type Payload = [u64; 8];

struct Bytes(Publisher<[u8]>, Vec<u8>);

impl Tx for Bytes {
    async fn send(&mut self, number: u64) {
        fill(&mut self.1, number);
        self.0.send(&self.1).await.expect("there is memory");
    }
}

impl Tx for Publisher<Payload> {
    async fn send(&mut self, number: u64) {
        Publisher::<Payload>::send(self, Payload::make(0, number)).await.expect("there is memory");
    }
}

impl Rx for Subscriber<Payload> {
    async fn recv(&mut self, seen: &mut Seen) {
        seen.take(Subscriber::recv(self).await.expect("the publisher is there").bytes());
    }
}

impl Rx for Subscriber<[u8]> {
    async fn recv(&mut self, seen: &mut Seen) {
        seen.take(&Subscriber::recv(self).await.expect("the publisher is there"));
    }
}

macro_rules! broadcast {
    ($worker:expr, $broadcast:expr, |$publisher:ident| $tx:expr) => {{
        let broadcast = $broadcast.capacity($worker.spec.capacity);
        let publishes = $worker.spec.kind == Kind::Publish;
        match $worker.role {
            Role::Receiver(index) => {
                let group = broadcast.group(&format!("group-{index}")).behind(Behind::Block);
                let rx = group.subscriber().expect("a group can be had");
                $worker.run(if publishes { $worker.subscribe(rx) } else { $worker.receive(vec![rx]) });
            }
            _ => {
                let $publisher = broadcast.publisher().expect("a broadcast can be had");
                $worker.run(if publishes { $worker.publish($tx) } else { $worker.send($tx) });
            }
        }
    }};
}

pub fn run(worker: Worker, segment: &Segment) {
    if worker.spec.size == size_of::<Payload>() {
        broadcast!(worker, segment.broadcast::<Payload>("broadcast"), |publisher| publisher);
    } else {
        let size = worker.spec.size;
        broadcast!(worker, segment.broadcast::<[u8]>("broadcast"), |publisher| Bytes(publisher, vec![0; size]));
    }
}
