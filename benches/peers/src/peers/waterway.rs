//! Waterway itself, in each of the ways that it can be used.

use std::time::Duration;

use bytes::BufMut;
use waterway::{channel::Plain, Message, Receiver, Segment, Sender};

use crate::{
    peers::{waterway_broadcast, waterway_patterns},
    spec::{Kind, Role, Spec},
    stamp::{Seen, Value, fill, fill_uninit},
    worker::{BATCH, Rx, Tx, Worker, runtime},
};

/// Sends plain values.
struct Values<T: Plain>(Sender<T>);

impl<T: Plain + Value> Tx for Values<T> {
    async fn send(&mut self, number: u64) {
        self.0.send(T::make(0, number)).await.expect("the receiver is there");
    }
}

/// Sends plain values, several at once.
struct ManyValues<T: Plain>(Sender<T>, Vec<T>);

impl<T: Plain + Value> Tx for ManyValues<T> {
    async fn send(&mut self, number: u64) {
        self.send_many(number, 1).await;
    }

    async fn send_many(&mut self, first: u64, count: u64) {
        self.1.clear();
        self.1.extend((first..first + count).map(|number| T::make(0, number)));
        self.0.send_many(&self.1).await.expect("the receiver is there");
    }
}

/// Writes plain values where they will be read, several in one block.
struct Slices<T: Plain>(Sender<[T]>);

impl<T: Plain + Value> Tx for Slices<T> {
    async fn send(&mut self, number: u64) {
        self.send_many(number, 1).await;
    }

    async fn send_many(&mut self, first: u64, count: u64) {
        let mut permit = self.0.reserve(count as usize).await.expect("the receiver is there");
        permit.extend((first..first + count).map(|number| T::make(0, number)));
        permit.send();
    }
}

/// Sends bytes that stand elsewhere.
struct Bytes(Sender<[u8]>, Vec<u8>);

impl Tx for Bytes {
    async fn send(&mut self, number: u64) {
        fill(&mut self.1, number);
        self.0.send(&self.1).await.expect("the receiver is there");
    }
}

/// The same, several at once.
struct ManyBytes(Sender<[u8]>, Vec<Vec<u8>>);

impl Tx for ManyBytes {
    async fn send(&mut self, number: u64) {
        self.send_many(number, 1).await;
    }

    async fn send_many(&mut self, first: u64, count: u64) {
        let payloads = &mut self.1[..count as usize];
        payloads.iter_mut().zip(first..).for_each(|(payload, number)| fill(payload, number));
        self.0.send_many(payloads).await.expect("the receiver is there");
    }
}

/// Writes bytes where they will be read.
struct Place(Sender<[u8]>, usize);

impl Tx for Place {
    async fn send(&mut self, number: u64) {
        let Self(sender, size) = self;
        let mut permit = sender.reserve(*size).await.expect("the receiver is there");
        // SAFETY: all sizes are whole words, and so all of it is written; it was reserved.
        unsafe {
            fill_uninit(&mut permit.chunk_mut().as_uninit_slice_mut()[..*size], number);
            permit.advance_mut(*size);
        }
        permit.send();
    }
}

impl<T: Plain + Value> Rx for Receiver<T> {
    async fn recv(&mut self, seen: &mut Seen) {
        seen.take(Receiver::recv(self).await.expect("the sender is there").bytes());
    }
}

struct InSlices<T: Plain>(Receiver<[T]>);

impl<T: Plain + Value> Rx for InSlices<T> {
    async fn recv(&mut self, seen: &mut Seen) {
        let values = self.0.recv().await.expect("the sender is there");
        values.iter().for_each(|value| seen.take(value.bytes()));
    }
}

/// Takes them apart.
struct InParts<T: Plain>(Receiver<[T]>);

impl<T: Plain + Value> Rx for InParts<T> {
    async fn recv(&mut self, seen: &mut Seen) {
        let values = self.0.recv().await.expect("the sender is there");
        values.into_parts().for_each(|value| seen.take(value.bytes()));
    }
}

struct InBytes(Receiver<[u8]>);

impl Rx for InBytes {
    async fn recv(&mut self, seen: &mut Seen) {
        seen.take(&self.0.recv().await.expect("the sender is there"));
    }
}

struct Many<T: waterway::channel::Payload + ?Sized>(Receiver<T>, Vec<Message<T>>);

impl<T: Plain + Value> Rx for Many<T> {
    async fn recv(&mut self, seen: &mut Seen) {
        self.0.recv_many(&mut self.1, BATCH as usize).await;
        self.1.drain(..).for_each(|message| seen.take(message.bytes()));
    }
}

struct ManyBytesIn(Receiver<[u8]>, Vec<Message<[u8]>>);

impl Rx for ManyBytesIn {
    async fn recv(&mut self, seen: &mut Seen) {
        self.0.recv_many(&mut self.1, BATCH as usize).await;
        self.1.drain(..).for_each(|message| seen.take(&message));
    }
}

fn segment(spec: &Spec) -> Segment {
    let options = Segment::options().dir(&spec.place).channels(1100);
    let options = match spec.peer.as_str() {
        "waterway-memory" => options.size(4 << 20),
        _ => options.size(256 << 20),
    };
    options.open_or_create("compare").expect("a segment can be had")
}

pub fn run(worker: Worker) {
    if worker.spec.peer == "waterway-fallback" {
        refuse_futex_waitv();
    }
    let segment = segment(worker.spec);
    if let Kind::Idle { receivers } = worker.spec.kind {
        return idle(worker, &segment, receivers);
    }
    match worker.spec.peer.as_str() {
        "waterway-call" => return waterway_patterns::call(worker, &segment),
        "waterway-watch" if worker.spec.size == 64 => return waterway_patterns::watch::<[u64; 8]>(worker, &segment),
        "waterway-broadcast" => return waterway_broadcast::run(worker, &segment),
        "waterway-watch" => return waterway_patterns::watch::<[u64; 512]>(worker, &segment),
        _ => {}
    }
    // Others, on which nobody waits; the first thread of each measurement has them.
    let others: Vec<_> = (0..if worker.spec.peer == "waterway-1000" { 1000 } else { 0 })
        .map(|index| segment.channel::<u64>(&format!("other-{index}")).open().expect("a channel can be had"))
        .collect();
    match worker.spec.size {
        8 => plain::<[u64; 1]>(worker, &segment),
        64 => plain::<[u64; 8]>(worker, &segment),
        1024 if worker.spec.in_slices() => slices::<[u64; 128]>(worker, &segment),
        _ => bytes(worker, &segment),
    }
    drop(others);
}

/// Opens the ends that the worker's role needs, and runs it.
macro_rules! start {
    ($worker:expr, $tx:expr, $rx:expr) => {{
        let (worker, tx, rx) = ($worker, $tx, $rx);
        match worker.role {
            Role::Sender(_) => worker.run(worker.send(tx("there"))),
            Role::Receiver(_) => worker.run(worker.receive(vec![rx("there")])),
            Role::Ping => worker.run(worker.ping(tx("there"), rx("back"))),
            Role::Echo => worker.run(worker.echo(rx("there"), tx("back"))),
        }
    }};
}

fn plain<T: Plain + Value>(worker: Worker, segment: &Segment) {
    let capacity = worker.spec.capacity;
    if worker.spec.in_slices() {
        return slices::<T>(worker, segment);
    }
    let channel = |name: &str| segment.channel::<T>(name).capacity(capacity);
    let sender = |name: &str| channel(name).sender().expect("a channel can be had");
    let receiver = |name: &str| channel(name).receiver().expect("a channel can be had");
    if worker.spec.peer == "waterway-many" {
        let tx = |name: &str| ManyValues(sender(name), Vec::new());
        let rx = |name: &str| Many(receiver(name), Vec::new());
        start!(worker, tx, rx);
    } else {
        let tx = |name: &str| Values(sender(name));
        let rx = |name: &str| receiver(name);
        start!(worker, tx, rx);
    }
}

/// As many messages wait as with the others, in fewer blocks; but four blocks at least.
fn slices<T: Plain + Value>(worker: Worker, segment: &Segment) {
    let capacity = (worker.spec.capacity / worker.spec.batch() as usize).max(4);
    let channel = |name: &str| segment.channel::<[T]>(name).capacity(capacity);
    let receiver = |name: &str| channel(name).receiver().expect("a channel can be had");
    let tx = |name: &str| Slices(channel(name).sender().expect("a channel can be had"));
    if worker.spec.peer == "waterway-parts" {
        start!(worker, tx, |name: &str| InParts(receiver(name)));
    } else {
        start!(worker, tx, |name: &str| InSlices(receiver(name)));
    }
}

fn bytes(worker: Worker, segment: &Segment) {
    let Spec { capacity, size, .. } = *worker.spec;
    let channel = |name: &str| segment.bytes(name).capacity(capacity);
    let sender = |name: &str| channel(name).sender().expect("a channel can be had");
    let receiver = |name: &str| channel(name).receiver().expect("a channel can be had");
    match worker.spec.peer.as_str() {
        "waterway-many" => {
            let tx = |name: &str| ManyBytes(sender(name), vec![vec![0; size]; BATCH as usize]);
            let rx = |name: &str| ManyBytesIn(receiver(name), Vec::new());
            start!(worker, tx, rx);
        }
        "waterway-place" => {
            let tx = |name: &str| Place(sender(name), size);
            let rx = |name: &str| InBytes(receiver(name));
            start!(worker, tx, rx);
        }
        _ => {
            let tx = |name: &str| Bytes(sender(name), vec![0; size]);
            let rx = |name: &str| InBytes(receiver(name));
            start!(worker, tx, rx);
        }
    }
}

/// So many tasks wait, each for a channel of its own or, beyond a thousand, one with others.
fn idle(worker: Worker, segment: &Segment, receivers: usize) {
    let runtime = runtime(false);
    for index in 0..receivers {
        let channel = segment.channel::<u64>(&format!("waiting-{}", index % 1000));
        let receiver = channel.receiver().expect("a channel can be had");
        runtime.spawn(async move { receiver.recv().await });
    }
    worker.idle(&runtime);
    runtime.shutdown_timeout(Duration::from_secs(1));
}

/// Has the kernel refuse the call from now on, as some containers do.
fn refuse_futex_waitv() {
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let back = libc::BPF_RET | libc::BPF_K;
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut steps = [
        step(load, 0, 0, 0),
        step(equal, 0, 1, libc::SYS_futex_waitv as u32),
        step(back, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(back, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the program outlives the call, and its length is right.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) != 0
    };
    assert!(!refused, "the kernel takes no filter");
}
