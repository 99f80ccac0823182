//! Channels of one process: each end on a thread of its own, with a runtime of its own unless that is multi-threaded.

use std::thread;

use crate::{
    page::Page,
    peers::{by_value, memory},
    spec::{Kind, Role, Spec},
    stamp::{Seen, Value},
    worker::{BATCH, Rx, Tx, Worker, runtime},
};

struct Out<S> {
    sender: S,
    size: usize,
}

struct In<R>(R);

/// An end whose channel is named by `$tx` and `$rx`, for values of type `T`.
macro_rules! ends {
    ($tx:ty, $rx:ty, |$message:ident| $unpacked:expr) => {
        impl<T: Value + Unpin> Tx for Out<$tx> {
            async fn send(&mut self, number: u64) {
                let sent = self.sender.send(T::make(self.size, number)).await;
                assert!(sent.is_ok(), "the receiver is gone");
            }
        }

        impl<T: Value + Unpin> Rx for In<$rx> {
            async fn recv(&mut self, seen: &mut Seen) {
                let $message = self.0.recv().await;
                seen.take($unpacked.expect("the sender is there").bytes());
            }
        }
    };
}

ends!(tokio::sync::mpsc::Sender<T>, tokio::sync::mpsc::Receiver<T>, |message| message);
#[cfg(feature = "peers")]
ends!(async_channel::Sender<T>, async_channel::Receiver<T>, |message| message.ok());
#[cfg(feature = "peers")]
ends!(kanal::AsyncSender<T>, kanal::AsyncReceiver<T>, |message| message.ok());
#[cfg(feature = "peers")]
ends!(crossfire::MAsyncTx<crossfire::mpmc::Array<T>>, crossfire::MAsyncRx<crossfire::mpmc::Array<T>>, |message| {
    message.ok()
});
#[cfg(feature = "peers")]
ends!(crossfire::MAsyncTx<crossfire::mpsc::Array<T>>, crossfire::AsyncRx<crossfire::mpsc::Array<T>>, |message| message
    .ok());
#[cfg(feature = "peers")]
ends!(crossfire::AsyncTx<crossfire::spsc::Array<T>>, crossfire::AsyncRx<crossfire::spsc::Array<T>>, |message| message
    .ok());

#[cfg(feature = "peers")]
impl<T: Value> Tx for Out<flume::Sender<T>> {
    async fn send(&mut self, number: u64) {
        let sent = self.sender.send_async(T::make(self.size, number)).await;
        assert!(sent.is_ok(), "the receiver is gone");
    }
}

#[cfg(feature = "peers")]
impl<T: Value> Rx for In<flume::Receiver<T>> {
    async fn recv(&mut self, seen: &mut Seen) {
        seen.take(self.0.recv_async().await.expect("the sender is there").bytes());
    }
}

/// Several at once.
struct Many<T> {
    receiver: tokio::sync::mpsc::Receiver<T>,
    buffer: Vec<T>,
}

impl<T: Value> Rx for Many<T> {
    async fn recv(&mut self, seen: &mut Seen) {
        self.receiver.recv_many(&mut self.buffer, BATCH as usize).await;
        for message in self.buffer.drain(..) {
            seen.take(message.bytes());
        }
    }
}

pub fn run(spec: &'static Spec, page: &'static Page) {
    by_value!(spec.size, T => run_with::<T>(spec, page));
}

fn run_with<T: Value + Unpin>(spec: &'static Spec, page: &'static Page) {
    let capacity = spec.capacity;
    match spec.peer.as_str() {
        "tokio" => play(spec, page, || tokio::sync::mpsc::channel::<T>(capacity), several, single, In),
        "tokio-many" => {
            let many = |receiver| Many { receiver, buffer: Vec::new() };
            play(spec, page, || tokio::sync::mpsc::channel::<T>(capacity), several, single, many);
        }
        #[cfg(feature = "peers")]
        "async-channel" => play(spec, page, || async_channel::bounded::<T>(capacity), several, several, In),
        #[cfg(feature = "peers")]
        "flume" => play(spec, page, || flume::bounded::<T>(capacity), several, several, In),
        #[cfg(feature = "peers")]
        "kanal" => play(spec, page, || kanal::bounded_async::<T>(capacity), several, several, In),
        #[cfg(feature = "peers")]
        "crossfire-mpmc" => play(spec, page, || crossfire::mpmc::bounded_async::<T>(capacity), several, several, In),
        #[cfg(feature = "peers")]
        "crossfire-mpsc" => play(spec, page, || crossfire::mpsc::bounded_async::<T>(capacity), several, single, In),
        #[cfg(feature = "peers")]
        "crossfire-spsc" => play(spec, page, || crossfire::spsc::bounded_async::<T>(capacity), single, single, In),
        "memory" => memory::run(Worker { spec, page, role: Role::Sender(0), shared: true }),
        peer => panic!("there is no peer {peer}"),
    }
}

fn several<E: Clone>(end: E, count: usize) -> Vec<E> {
    vec![end; count]
}

fn single<E>(end: E, count: usize) -> Vec<E> {
    assert_eq!(count, 1, "this channel has one end of the kind");
    vec![end]
}

/// Starts a thread for every end.
fn play<S: Send + 'static, R, I: Rx>(
    spec: &'static Spec,
    page: &'static Page,
    channel: impl Fn() -> (S, R),
    senders: fn(S, usize) -> Vec<S>,
    receivers: fn(R, usize) -> Vec<R>,
    into: impl Fn(R) -> I,
) where
    Out<S>: Tx,
{
    let runtime = runtime(spec.multi);
    let out = |sender| Out { sender, size: spec.size };
    let start = |role| {
        let worker = Worker { spec, page, role, shared: true };
        move || {
            worker.pin();
            worker
        }
    };
    thread::scope(|scope| {
        let runtime = &runtime;
        // A multi-thread runtime is shared; of the other kind everybody has one.
        macro_rules! spawn {
            ($role:expr, |$worker:ident| $play:expr) => {{
                let begin = start($role);
                scope.spawn(move || {
                    let $worker = begin();
                    if spec.multi { $worker.run_on(runtime, $play) } else { $worker.run($play) }
                });
            }};
        }
        let (tx, rx) = channel();
        if matches!(spec.kind, Kind::RoundTrip { .. }) {
            let (back_tx, back_rx) = channel();
            let (tx, back_tx, rx, back_rx) = (out(tx), out(back_tx), into(rx), into(back_rx));
            spawn!(Role::Ping, |worker| worker.ping(tx, back_rx));
            spawn!(Role::Echo, |worker| worker.echo(rx, back_tx));
            return;
        }
        for (index, tx) in senders(tx, spec.senders).into_iter().enumerate() {
            let tx = out(tx);
            spawn!(Role::Sender(index), |worker| worker.send(tx));
        }
        for (index, rx) in receivers(rx, spec.receivers).into_iter().enumerate() {
            let rx = into(rx);
            spawn!(Role::Receiver(index), |worker| worker.receive(vec![rx]));
        }
    });
}
