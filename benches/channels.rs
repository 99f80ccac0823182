//! One message at a time, between two processes on two cores: Waterway and a tokio `UnixStream`; and, for comparison,
//! tokio's mpsc channel between two threads of one process.
//!
//! `cargo bench --bench channels`
//!
//! Every payload is written in full by the sender, and read in full and verified by the receiver. The other process is
//! this program again; it is pinned to the second core, this one to the first.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    runtime::Runtime,
    sync::mpsc,
};
use waterway::{Receiver, Segment, Sender};

const SIZES: [usize; 3] = [64, 1024, 65536];
const CAPACITY: usize = 1024;
const ROLE: &str = "WATERWAY_BENCH";

fn main() {
    if let Ok(role) = std::env::var(ROLE) {
        pin(1);
        let mut words = role.split(' ');
        let (kind, size, place) =
            (words.next().unwrap(), words.next().unwrap().parse().unwrap(), words.next().unwrap());
        return match kind {
            "waterway" => serve_waterway(size, place),
            _ => serve_stream(size, place),
        };
    }
    pin(0);
    let mut criterion = Criterion::default()
        .configure_from_args()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    throughput(&mut criterion);
    round_trip(&mut criterion);
    criterion.final_summary();
}

/// Asks for a core; if there is only one, so be it.
fn pin(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Fills a payload so that every word of it depends on the message's number.
fn fill(payload: &mut [u8], number: u64) {
    for (index, word) in payload.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(number ^ index as u64).to_ne_bytes());
    }
}

/// Reads all of a payload.
fn verify(payload: &[u8], number: u64) {
    let mut wrong = 0;
    for (index, word) in payload.chunks_exact(8).enumerate() {
        wrong |= u64::from_ne_bytes(word.try_into().unwrap()) ^ number ^ index as u64;
    }
    assert_eq!(wrong, 0, "message {number} is damaged");
}

/// This program again, to play another role; killed with its handle.
struct Peer(Child);

impl Peer {
    fn start(kind: &str, size: usize, place: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        Self(command.env(ROLE, format!("{kind} {size} {place}")).stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What both sides open: a command (how many messages; the highest bit asks for echoes), messages, and echoes.
struct Ends {
    commands: (Sender<u64>, Receiver<u64>),
    messages: (Sender<[u8]>, Receiver<[u8]>),
    echoes: (Sender<[u8]>, Receiver<[u8]>),
}

const ECHO: u64 = 1 << 63;

fn open(place: &str) -> Ends {
    let segment = Segment::options().size(256 << 20).open_or_create(place).unwrap();
    Ends {
        commands: segment.channel("commands").open().unwrap(),
        messages: segment.bytes("messages").capacity(CAPACITY).open().unwrap(),
        echoes: segment.bytes("echoes").capacity(CAPACITY).open().unwrap(),
    }
}

fn serve_waterway(size: usize, place: &str) {
    let ends = open(place);
    let mut payload = vec![0; size];
    runtime().block_on(async {
        while let Some(command) = ends.commands.1.recv().await {
            for number in 0..*command & !ECHO {
                if *command & ECHO != 0 {
                    let message = ends.messages.1.recv().await.unwrap();
                    ends.echoes.0.send(&message).await.unwrap();
                } else {
                    fill(&mut payload, number);
                    ends.messages.0.send(&payload).await.unwrap();
                }
            }
        }
    });
}

fn serve_stream(size: usize, place: &str) {
    let mut payload = vec![0; size];
    runtime().block_on(async {
        let mut stream = UnixStream::connect(place).await.unwrap();
        while let Ok(command) = stream.read_u64().await {
            for number in 0..command & !ECHO {
                if command & ECHO != 0 {
                    stream.read_exact(&mut payload).await.unwrap();
                } else {
                    fill(&mut payload, number);
                }
                stream.write_all(&payload).await.unwrap();
            }
        }
    });
}

/// A place for a socket.
fn socket() -> String {
    std::env::temp_dir().join(format!("waterway-bench-{}", std::process::id())).to_str().unwrap().to_owned()
}

fn connect(runtime: &Runtime, size: usize) -> (UnixStream, Peer, String) {
    let place = socket();
    let _ = std::fs::remove_file(&place);
    runtime.block_on(async {
        let listener = UnixListener::bind(&place).unwrap();
        let peer = Peer::start("stream", size, &place);
        (listener.accept().await.unwrap().0, peer, place)
    })
}

fn throughput(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("throughput");
    for size in SIZES {
        group.throughput(Throughput::Elements(1));
        let runtime = runtime();

        let place = format!("bench-{}-{size}", std::process::id());
        let ends = open(&place);
        let peer = Peer::start("waterway", size, &place);
        group.bench_function(BenchmarkId::new("waterway, two processes", size), |bencher| {
            bencher.iter_custom(|count| {
                runtime.block_on(async {
                    let started = Instant::now();
                    ends.commands.0.send(count).await.unwrap();
                    for number in 0..count {
                        verify(&ends.messages.1.recv().await.unwrap(), number);
                    }
                    started.elapsed()
                })
            });
        });
        drop((peer, ends));

        group.bench_function(BenchmarkId::new("tokio mpsc, one process", size), |bencher| {
            bencher.iter_custom(|count| {
                let (sender, mut receiver) = mpsc::channel::<Box<[u8]>>(CAPACITY);
                let started = Instant::now();
                let thread = std::thread::spawn(move || {
                    pin(1);
                    self::runtime().block_on(async {
                        for number in 0..count {
                            let mut payload = vec![0; size].into_boxed_slice();
                            fill(&mut payload, number);
                            sender.send(payload).await.unwrap();
                        }
                    });
                });
                runtime.block_on(async {
                    for number in 0..count {
                        verify(&receiver.recv().await.unwrap(), number);
                    }
                });
                let elapsed = started.elapsed();
                thread.join().unwrap();
                elapsed
            });
        });

        if size == 64 {
            group.bench_function(BenchmarkId::new("tokio mpsc by value, one process", size), |bencher| {
                bencher.iter_custom(|count| {
                    let (sender, mut receiver) = mpsc::channel::<[u8; 64]>(CAPACITY);
                    let started = Instant::now();
                    let thread = std::thread::spawn(move || {
                        pin(1);
                        self::runtime().block_on(async {
                            for number in 0..count {
                                let mut payload = [0; 64];
                                fill(&mut payload, number);
                                sender.send(payload).await.unwrap();
                            }
                        });
                    });
                    runtime.block_on(async {
                        for number in 0..count {
                            verify(&receiver.recv().await.unwrap(), number);
                        }
                    });
                    let elapsed = started.elapsed();
                    thread.join().unwrap();
                    elapsed
                });
            });
        }

        let (mut stream, peer, place) = connect(&runtime, size);
        let mut payload = vec![0; size];
        group.bench_function(BenchmarkId::new("tokio UnixStream, two processes", size), |bencher| {
            bencher.iter_custom(|count| {
                runtime.block_on(async {
                    let started = Instant::now();
                    stream.write_u64(count).await.unwrap();
                    for number in 0..count {
                        stream.read_exact(&mut payload).await.unwrap();
                        verify(&payload, number);
                    }
                    started.elapsed()
                })
            });
        });
        drop(peer);
        let _ = std::fs::remove_file(place);
    }
    group.finish();
}

fn round_trip(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("round trip");
    for size in SIZES {
        let runtime = runtime();
        let mut payload = vec![0; size];

        let place = format!("bench-{}-{size}", std::process::id());
        let ends = open(&place);
        let peer = Peer::start("waterway", size, &place);
        group.bench_function(BenchmarkId::new("waterway, two processes", size), |bencher| {
            bencher.iter_custom(|count| {
                runtime.block_on(async {
                    let started = Instant::now();
                    ends.commands.0.send(count | ECHO).await.unwrap();
                    for number in 0..count {
                        fill(&mut payload, number);
                        ends.messages.0.send(&payload).await.unwrap();
                        verify(&ends.echoes.1.recv().await.unwrap(), number);
                    }
                    started.elapsed()
                })
            });
        });
        drop((peer, ends));

        group.bench_function(BenchmarkId::new("tokio mpsc, one process", size), |bencher| {
            bencher.iter_custom(|count| {
                let (there, mut from) = mpsc::channel::<Box<[u8]>>(CAPACITY);
                let (back, mut echo) = mpsc::channel::<Box<[u8]>>(CAPACITY);
                let thread = std::thread::spawn(move || {
                    pin(1);
                    self::runtime().block_on(async {
                        while let Some(message) = from.recv().await {
                            back.send(message).await.unwrap();
                        }
                    });
                });
                let elapsed = runtime.block_on(async {
                    let started = Instant::now();
                    for number in 0..count {
                        let mut payload = vec![0; size].into_boxed_slice();
                        fill(&mut payload, number);
                        there.send(payload).await.unwrap();
                        verify(&echo.recv().await.unwrap(), number);
                    }
                    started.elapsed()
                });
                drop(there);
                thread.join().unwrap();
                elapsed
            });
        });

        let (mut stream, peer, place) = connect(&runtime, size);
        group.bench_function(BenchmarkId::new("tokio UnixStream, two processes", size), |bencher| {
            bencher.iter_custom(|count| {
                runtime.block_on(async {
                    let started = Instant::now();
                    stream.write_u64(count | ECHO).await.unwrap();
                    for number in 0..count {
                        fill(&mut payload, number);
                        stream.write_all(&payload).await.unwrap();
                        stream.read_exact(&mut payload).await.unwrap();
                        verify(&payload, number);
                    }
                    started.elapsed()
                })
            });
        });
        drop(peer);
        let _ = std::fs::remove_file(place);
    }
    group.finish();
}
