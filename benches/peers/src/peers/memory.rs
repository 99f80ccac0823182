//! No channel at all: one thread writes a payload and reads it, in as many buffers in turn as a channel has.

use crate::{
    stamp::{Seen, fill},
    worker::{Tx, Worker},
};

struct Buffers {
    buffers: Vec<Vec<u8>>,
    seen: Seen,
}

impl Tx for Buffers {
    async fn send(&mut self, number: u64) {
        let count = self.buffers.len() as u64;
        let buffer = &mut self.buffers[(number % count) as usize];
        fill(buffer, number);
        if number == 0 {
            // The warm-up is over, or begins.
            self.seen = Seen::new(1, true);
        }
        // What was written `count` messages ago would be in other caches; this is the better case.
        self.seen.take(std::hint::black_box(buffer));
    }
}

pub fn run(worker: Worker) {
    worker.pin();
    let buffers = vec![vec![0; worker.spec.size]; worker.spec.capacity];
    worker.run(worker.send(Buffers { buffers, seen: Seen::new(1, true) }));
}
