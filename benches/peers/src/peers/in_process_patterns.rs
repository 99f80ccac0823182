//! tokio's watch and broadcast, between threads of one process.

use std::{sync::Arc, thread};

use tokio::sync::{broadcast, watch};

use crate::{
    page::Page,
    patterns::{Reader, Writer},
    spec::{Kind, Role, Spec},
    stamp::{Seen, Value, verify},
    worker::{Play, Rx, Tx, Worker},
};

impl<T: Value + Sync> Writer for watch::Sender<T> {
    fn write(&mut self, number: u64) {
        self.send_replace(T::make(0, number));
    }
}

impl<T: Value + Sync> Reader for watch::Receiver<T> {
    fn read(&mut self) -> u64 {
        verify(self.borrow().bytes())
    }
}

pub fn watch<T: Value + Sync>(spec: &'static Spec, page: &'static Page) {
    let (sender, receiver) = watch::channel(T::make(0, 0));
    thread::scope(|scope| {
        scope.spawn(move || play(spec, page, Role::Sender(0), |worker| worker.write(sender)));
        scope.spawn(move || play(spec, page, Role::Receiver(0), |worker| worker.read(receiver)));
    });
}

fn play(spec: &'static Spec, page: &'static Page, role: Role, begin: impl FnOnce(Worker) -> Play) {
    let worker = Worker { spec, page, role, shared: true };
    worker.pin();
    worker.run(begin(worker));
}

/// It overwrites what is not received in time: so whoever sends looks from time to time how much room there is.
struct Out<T> {
    sender: broadcast::Sender<T>,
    size: usize,
    capacity: usize,
    room: usize,
}

impl<T: Value + Clone> Tx for Out<T> {
    async fn send(&mut self, number: u64) {
        while self.room == 0 {
            self.room = self.capacity - self.sender.len();
            if self.room == 0 {
                tokio::task::yield_now().await;
            }
        }
        self.room -= 1;
        assert!(self.sender.send(T::make(self.size, number)).is_ok(), "the receivers are gone");
    }
}

struct In<T>(broadcast::Receiver<T>);

impl<T: Value + Clone> Rx for In<T> {
    async fn recv(&mut self, seen: &mut Seen) {
        seen.take(self.0.recv().await.expect("nothing is overwritten").bytes());
    }
}

/// What receivers share, so that it is not copied for each.
impl Value for Arc<[u8]> {
    fn make(size: usize, number: u64) -> Self {
        let mut payload = Arc::new_uninit_slice(size);
        crate::stamp::fill_uninit(Arc::get_mut(&mut payload).expect("nobody else has it"), number);
        // SAFETY: all sizes are whole words, and so all of it was written.
        unsafe { payload.assume_init() }
    }

    fn bytes(&self) -> &[u8] {
        self
    }
}

pub fn broadcast<T: Value + Clone>(spec: &'static Spec, page: &'static Page) {
    let publishes = spec.kind == Kind::Publish;
    let (sender, _) = broadcast::channel::<T>(spec.capacity);
    thread::scope(|scope| {
        for index in 0..spec.receivers {
            let rx = In(sender.subscribe());
            let begin = move |worker: Worker| if publishes { worker.subscribe(rx) } else { worker.receive(vec![rx]) };
            scope.spawn(move || play(spec, page, Role::Receiver(index), begin));
        }
        let tx = Out { sender, size: spec.size, capacity: spec.capacity, room: 0 };
        let begin = move |worker: Worker| if publishes { worker.publish(tx) } else { worker.send(tx) };
        scope.spawn(move || play(spec, page, Role::Sender(0), begin));
    });
}
