//! What each thread of a measurement does, whoever carries the messages.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
    },
    time::Duration,
};

use tokio::{
    runtime::{Builder, Runtime},
    sync::Mutex,
};

use crate::{
    page::{self, Page, SAMPLES},
    spec::{Role, Spec},
    stamp::{STOP, Seen, number},
    syscalls,
};

/// Messages that are sent, or received, at once where a peer can do that.
pub const BATCH: u64 = 64;

/// Writes payloads and sends them.
pub trait Tx: Send + 'static {
    fn send(&mut self, number: u64) -> impl Future<Output = ()> + Send;

    /// Sends several, with numbers that follow each other.
    fn send_many(&mut self, first: u64, count: u64) -> impl Future<Output = ()> + Send {
        async move {
            for number in first..first + count {
                self.send(number).await;
            }
        }
    }

    /// Sees to it that nothing is kept back.
    fn flush(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// Receives one message or more, and reads them.
pub trait Rx: Send + 'static {
    fn recv(&mut self, seen: &mut Seen) -> impl Future<Output = ()> + Send;
}

/// Asks, and reads the answer.
pub trait Caller: Send + 'static {
    fn call(&mut self, number: u64, seen: &mut Seen) -> impl Future<Output = ()> + Send;
}

/// Reads what is asked, and answers.
pub trait Answerer: Send + 'static {
    fn answer(&mut self, rounds: u64) -> impl Future<Output = Seen> + Send;

    /// Sees to it that the last answer gets away before this thread sleeps.
    fn settle(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// A way there and a way back.
struct Pair<T, R>(T, R);

impl<T: Tx, R: Rx> Caller for Pair<T, R> {
    async fn call(&mut self, number: u64, seen: &mut Seen) {
        self.0.send(number).await;
        self.0.flush().await;
        while seen.count <= number {
            self.1.recv(seen).await;
        }
    }
}

impl<T: Tx, R: Rx> Answerer for Pair<T, R> {
    async fn answer(&mut self, rounds: u64) -> Seen {
        let mut seen = Seen::new(1, true);
        for round in 0..rounds {
            while seen.count <= round {
                self.1.recv(&mut seen).await;
            }
            self.0.send(round).await;
            self.0.flush().await;
        }
        seen
    }
}

/// What a thread does. In a box, so that there is only one kind of it to compile for each runtime; it is polled once per
/// waking, not per message.
pub type Play = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One thread's part.
#[derive(Clone, Copy)]
pub struct Worker {
    pub spec: &'static Spec,
    pub page: &'static Page,
    pub role: Role,
    /// Whether others have threads in this process, too.
    pub shared: bool,
}

impl Worker {
    pub fn index(&self) -> usize {
        match self.role {
            Role::Sender(index) => index,
            Role::Receiver(index) => self.spec.senders + index,
            Role::Ping => 0,
            Role::Echo => 1,
        }
    }

    /// Waits until all are here. It sleeps, so that nobody is disturbed.
    pub async fn barrier(&self, which: usize) {
        let all = self.spec.roles().len();
        self.page.arrive(which);
        while !self.page.complete(which, all) {
            if self.spec.multi {
                // The runtime's thread may have others to run, whom nobody else can take over.
                tokio::time::sleep(Duration::from_millis(1)).await;
            } else {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }

    /// Pins this thread: senders to every other core, receivers to those between.
    pub fn pin(&self) {
        if !self.spec.multi {
            pin(match self.role {
                Role::Sender(index) | Role::Receiver(index) => {
                    2 * index + usize::from(matches!(self.role, Role::Receiver(_)))
                }
                Role::Ping => 0,
                Role::Echo => 1,
            });
        }
    }

    /// Plays a role on a runtime of the kind that is asked for.
    pub fn run(self, play: Play) {
        self.run_on(&runtime(self.spec.multi), play);
    }

    /// The same on a runtime that is there already.
    pub fn run_on(self, runtime: &Runtime, play: Play) {
        if self.spec.multi {
            runtime.block_on(async { tokio::spawn(play).await.expect("nothing panics") });
        } else {
            runtime.block_on(play);
        }
    }

    /// Does the measured part.
    pub async fn measured(&self, part: impl Future<Output = (u64, u64)> + Send) {
        let slot = &self.page.slots[self.index()];
        let (sleeps, cpu) = (page::sleeps(self.shared), page::cpu(self.shared));
        // Of threads of one process the first counts for all.
        let counts = self.spec.counted && (self.index() == 0 || !self.shared);
        let calls = if counts { syscalls::seen() } else { 0 };
        slot.started.store(page::now(), SeqCst);
        let (count, sum) = part.await;
        slot.ended.store(page::now(), SeqCst);
        if counts {
            // The look itself is one, too.
            slot.calls.store((syscalls::seen() - calls).saturating_sub(1), SeqCst);
        }
        slot.sleeps.store(page::sleeps(self.shared) - sleeps, SeqCst);
        slot.cpu.store(page::cpu(self.shared) - cpu, SeqCst);
        slot.count.store(count, SeqCst);
        slot.sum.store(sum, SeqCst);
    }

    /// How many messages the measured part has, from how long the warm-up took; never more than `most`.
    pub fn decide(&self, nanos: u64, least: u64, most: u64) {
        let messages = match self.spec.messages {
            0 => self.spec.warm_up() * self.spec.millis * 1_000_000 / nanos.max(1),
            messages => messages / self.spec.senders as u64,
        };
        self.page.messages.store(messages.clamp(least, most), SeqCst);
    }

    pub fn send(self, mut tx: impl Tx) -> Play {
        Box::pin(async move {
            self.barrier(0).await;
            let started = page::now();
            self.send_all(&mut tx, 0, self.spec.warm_up()).await;
            self.barrier(1).await;
            if self.index() == 0 {
                self.decide(page::now() - started, 16, 1 << 32);
            }
            self.barrier(2).await;
            let messages = self.page.messages.load(SeqCst);
            self.measured(async {
                self.send_all(&mut tx, 1, messages).await;
                (0, 0)
            })
            .await;
            self.barrier(3).await;
        })
    }

    async fn send_all(&self, tx: &mut impl Tx, part: usize, messages: u64) {
        let mut sent = 0;
        while sent < messages {
            let count = self.spec.batch().min(messages - sent);
            tx.send_many(number(self.index(), sent), count).await;
            sent += count;
        }
        tx.flush().await;
        // Where several receive, nobody knows who gets the last one: so each gets one more.
        let last = self.page.done[part].fetch_add(1, SeqCst) as usize + 1 == self.spec.senders;
        if last && self.spec.shared_out() {
            for _ in 0..self.spec.receivers {
                tx.send(STOP).await;
            }
            tx.flush().await;
        }
    }

    /// Receives; from several at the same time, if the peer cannot join them itself.
    pub fn receive(self, rxs: Vec<impl Rx>) -> Play {
        let rxs: Vec<_> = rxs.into_iter().map(|rx| Arc::new(Mutex::new(rx))).collect();
        Box::pin(async move {
            self.barrier(0).await;
            self.receive_all(&rxs, self.spec.warm_up()).await;
            self.barrier(1).await;
            self.barrier(2).await;
            let messages = self.page.messages.load(SeqCst);
            self.measured(self.receive_all(&rxs, messages)).await;
            self.barrier(3).await;
        })
    }

    async fn receive_all(&self, rxs: &[Arc<Mutex<impl Rx>>], messages: u64) -> (u64, u64) {
        let (senders, alone) = (self.spec.senders, !self.spec.shared_out());
        if let [rx] = rxs {
            let mut rx = rx.lock().await;
            let mut seen = Seen::new(senders, alone);
            while !seen.stopped && (!alone || seen.count < messages * senders as u64) {
                rx.recv(&mut seen).await;
            }
            return (seen.count, seen.sum);
        }
        let mut tasks = Vec::new();
        for rx in rxs {
            let rx = rx.clone();
            let play: Pin<Box<dyn Future<Output = Seen> + Send>> = Box::pin(async move {
                let mut rx = rx.lock_owned().await;
                let mut seen = Seen::new(senders, true);
                while seen.count < messages {
                    rx.recv(&mut seen).await;
                }
                seen
            });
            tasks.push(tokio::spawn(play));
        }
        let mut all = (0, 0);
        for task in tasks {
            let seen = task.await.expect("nothing panics");
            all = (all.0 + seen.count, all.1 + seen.sum);
        }
        all
    }

    pub fn ping(self, tx: impl Tx, rx: impl Rx) -> Play {
        self.call(Pair(tx, rx))
    }

    pub fn call(self, mut caller: impl Caller) -> Play {
        Box::pin(async move {
            let idle_us = self.spec.kind.idle_us().expect("only what is there and back has a ping");
            let idle = Duration::from_micros(idle_us);
            self.barrier(0).await;
            let started = page::now();
            self.rounds(&mut caller, idle, self.spec.warm_up(), false).await;
            self.decide(page::now() - started, 10, SAMPLES as u64);
            self.barrier(1).await;
            let rounds = self.page.messages.load(SeqCst);
            self.measured(self.rounds(&mut caller, idle, rounds, true)).await;
            self.barrier(2).await;
        })
    }

    async fn rounds(&self, caller: &mut impl Caller, idle: Duration, rounds: u64, keep: bool) -> (u64, u64) {
        let mut seen = Seen::new(1, true);
        let mut started = page::now();
        for round in 0..rounds {
            if !idle.is_zero() {
                std::thread::sleep(idle);
                started = page::now();
            }
            caller.call(round, &mut seen).await;
            let ended = page::now();
            if keep {
                let nanos = (ended - started).try_into().unwrap_or(u32::MAX);
                self.page.samples[round as usize].store(nanos, Relaxed);
            }
            started = ended;
        }
        (seen.count, seen.sum)
    }

    pub fn echo(self, rx: impl Rx, tx: impl Tx) -> Play {
        self.answer(Pair(tx, rx))
    }

    pub fn answer(self, mut answerer: impl Answerer) -> Play {
        Box::pin(async move {
            self.barrier(0).await;
            answerer.answer(self.spec.warm_up()).await;
            answerer.settle().await;
            self.barrier(1).await;
            let rounds = self.page.messages.load(SeqCst);
            self.measured(async {
                let seen = answerer.answer(rounds).await;
                (seen.count, seen.sum)
            })
            .await;
            answerer.settle().await;
            self.barrier(2).await;
        })
    }

    /// Nothing comes, for the time of the measurement.
    pub fn idle(self, runtime: &Runtime) {
        runtime.block_on(async {
            self.barrier(0).await;
            // Let everybody fall asleep first.
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.measured(async {
                tokio::time::sleep(Duration::from_millis(self.spec.millis)).await;
                (0, 0)
            })
            .await;
        });
    }
}

pub fn runtime(multi: bool) -> Runtime {
    let mut builder = if multi { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    builder.enable_all().build().expect("a runtime can be had")
}

/// Cores that this process was given.
pub fn cores() -> Vec<usize> {
    // SAFETY: a plain set of bits, which the kernel fills.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of_val(&set), &mut set);
        (0..libc::CPU_SETSIZE as usize).filter(|&core| libc::CPU_ISSET(core, &set)).collect()
    }
}

/// Pins this thread, and those that it starts from now on, to the n-th of the cores that it was given.
fn pin(wanted: usize) {
    use std::sync::OnceLock;
    // Once pinned, a thread sees one core only.
    static CORES: OnceLock<Vec<usize>> = OnceLock::new();
    let cores = CORES.get_or_init(cores);
    // SAFETY: a plain set of bits; if the kernel refuses, so be it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cores[wanted % cores.len()], &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set);
        // A sleep of 100 µs is to be one.
        libc::prctl(libc::PR_SET_TIMERSLACK, 1_000);
    }
}
