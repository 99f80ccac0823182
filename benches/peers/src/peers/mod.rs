//! Whom Waterway is compared with.

#[cfg(feature = "peers")]
mod iceoryx;
#[cfg(feature = "peers")]
mod iceoryx_patterns;
mod in_process;
mod in_process_patterns;
#[cfg(feature = "peers")]
mod ipc;
mod memory;
mod raw;
#[cfg(feature = "tonic")]
mod rpc;
mod socket;
mod waterway;
mod waterway_broadcast;
mod waterway_patterns;

use std::{path::Path, sync::Arc};

use crate::{
    page::Page,
    spec::{Kind, Role, Spec},
    worker::{BATCH, Worker},
};

/// A way to carry messages.
pub struct Peer {
    pub name: &'static str,
    /// How it is called in tables.
    pub title: &'static str,
    /// Its threads are in one process.
    pub in_process: bool,
    /// What can be measured with it.
    pub fits: fn(&Spec) -> bool,
}

fn one_to_one(spec: &Spec) -> bool {
    spec.senders == 1 && spec.receivers == 1
}

fn throughput(spec: &Spec) -> bool {
    spec.kind == Kind::Throughput
}

fn traffic(spec: &Spec) -> bool {
    throughput(spec) || round_trip(spec)
}

fn call(spec: &Spec) -> bool {
    spec.kind == Kind::Call
}

fn watch(spec: &Spec) -> bool {
    matches!(spec.kind, Kind::Read { .. } | Kind::Write)
}

fn broadcast(spec: &Spec) -> bool {
    matches!(spec.kind, Kind::Broadcast | Kind::Publish)
}

fn round_trip(spec: &Spec) -> bool {
    matches!(spec.kind, Kind::RoundTrip { .. })
}

/// One of each, in a case that has more of them: what they are compared with, measured in the same minute.
pub const ONE_TO_ONE: &str = "waterway-one";

/// Slices as long as the buffers of a `UnixStream`.
pub const SLICES_64K: &str = "waterway-slices-64k";

/// Bytes from which on it matters whether a payload is copied.
const LARGE: usize = 16 << 10;

fn batches(spec: &Spec) -> bool {
    throughput(spec) && spec.receivers == 1 && spec.size < LARGE && spec.capacity >= BATCH as usize
}

const PEERS: &[Peer] = &[
    Peer {
        name: "waterway",
        title: "**Waterway**",
        in_process: false,
        fits: |spec| traffic(spec) || call(spec) || matches!(spec.kind, Kind::Idle { .. }),
    },
    Peer {
        name: ONE_TO_ONE,
        title: "**Waterway**, one sender and one receiver",
        in_process: false,
        fits: |spec| throughput(spec) && spec.senders == 4 && spec.receivers == 4,
    },
    Peer { name: "waterway-call", title: "**Waterway, a service**", in_process: false, fits: call },
    Peer { name: "waterway-watch", title: "**Waterway**", in_process: false, fits: watch },
    Peer { name: "waterway-broadcast", title: "**Waterway**", in_process: false, fits: broadcast },
    Peer {
        name: "waterway-many",
        title: "**Waterway, `send_many` and `recv_many` of 64**",
        in_process: false,
        fits: batches,
    },
    Peer {
        name: "waterway-slices",
        title: "**Waterway, slices of 64, written in place**",
        in_process: false,
        fits: batches,
    },
    Peer {
        name: SLICES_64K,
        title: "**Waterway, slices of 64 KiB, written in place**",
        in_process: false,
        fits: |spec| batches(spec) && spec.capacity == 1024,
    },
    Peer { name: "waterway-parts", title: "**Waterway, slices of 64, taken apart**", in_process: false, fits: batches },
    Peer {
        name: "waterway-place",
        title: "**Waterway, written in place**",
        in_process: false,
        fits: |spec| traffic(spec) && spec.size >= LARGE,
    },
    Peer {
        name: "waterway-memory",
        title: "Waterway, awaiting memory (room for some 16 messages)",
        in_process: false,
        fits: |spec| throughput(spec) && spec.size == 64 << 10 && one_to_one(spec),
    },
    Peer {
        name: "waterway-1000",
        title: "Waterway, 1,000 more channels in the segment",
        in_process: false,
        fits: |spec| traffic(spec) && spec.size <= 1024 && one_to_one(spec) && !spec.multi,
    },
    Peer {
        name: "waterway-fallback",
        title: "Waterway where `futex_waitv` is refused",
        in_process: false,
        fits: |spec| traffic(spec) && spec.size == 64 && one_to_one(spec) && !spec.multi && spec.capacity > 64,
    },
    Peer { name: "tokio", title: "tokio mpsc", in_process: true, fits: |spec| traffic(spec) && spec.receivers == 1 },
    Peer {
        name: "tokio-many",
        title: "tokio mpsc, `recv_many` of 64",
        in_process: true,
        fits: |spec| throughput(spec) && spec.receivers == 1,
    },
    Peer { name: "tokio-watch", title: "tokio watch", in_process: true, fits: watch },
    Peer { name: "tokio-broadcast", title: "tokio broadcast", in_process: true, fits: broadcast },
    Peer { name: "async-channel", title: "async-channel", in_process: true, fits: traffic },
    Peer { name: "flume", title: "flume", in_process: true, fits: traffic },
    Peer { name: "crossfire-mpmc", title: "crossfire mpmc", in_process: true, fits: traffic },
    Peer {
        name: "crossfire-mpsc",
        title: "crossfire mpsc",
        in_process: true,
        fits: |spec| traffic(spec) && spec.receivers == 1,
    },
    Peer {
        name: "crossfire-spsc",
        title: "crossfire spsc",
        in_process: true,
        fits: |spec| traffic(spec) && one_to_one(spec),
    },
    Peer { name: "kanal", title: "kanal", in_process: true, fits: traffic },
    Peer {
        name: "unix",
        title: "tokio `UnixStream`",
        in_process: false,
        fits: |spec| traffic(spec) && spec.receivers == 1,
    },
    Peer {
        name: "unix-buffered",
        title: "tokio `UnixStream`, buffers of 64 KiB",
        in_process: false,
        fits: |spec| throughput(spec) && spec.receivers == 1 && spec.size < LARGE,
    },
    Peer {
        name: "ipc-channel",
        title: "ipc-channel, bytes",
        in_process: false,
        fits: |spec| traffic(spec) && spec.receivers == 1 && !spec.multi,
    },
    Peer {
        name: "iceoryx2",
        title: "iceoryx2 publish-subscribe, polled",
        in_process: false,
        fits: |spec| traffic(spec) && spec.receivers == 1 && !spec.multi,
    },
    Peer {
        name: "iceoryx2-broadcast",
        title: "iceoryx2 publish-subscribe, polled",
        in_process: false,
        fits: broadcast,
    },
    Peer { name: "iceoryx2-call", title: "iceoryx2 request-response, polled", in_process: false, fits: call },
    Peer { name: "iceoryx2-blackboard", title: "iceoryx2 blackboard", in_process: false, fits: watch },
    Peer { name: "tonic", title: "tonic on a Unix socket", in_process: false, fits: call },
    Peer {
        name: "iceoryx2-event",
        title: "iceoryx2 with its event service",
        in_process: false,
        fits: |spec| round_trip(spec) && !spec.multi,
    },
    Peer {
        name: "spin",
        title: "a ring in shared memory, both spin",
        in_process: false,
        fits: |spec| traffic(spec) && one_to_one(spec) && spec.size * spec.capacity <= 2 << 20 && !spec.multi,
    },
    Peer {
        name: "futex",
        title: "the same, on a raw futex",
        in_process: false,
        fits: |spec| round_trip(spec) && !spec.multi,
    },
    Peer {
        name: "memory",
        title: "one thread writes and reads as many buffers",
        in_process: true,
        fits: |spec| throughput(spec) && one_to_one(spec) && spec.size >= LARGE && !spec.multi,
    },
];

/// Whether it was built.
fn is_here(peer: &Peer) -> bool {
    let first = peer.name.split('-').next().unwrap_or_default();
    if first == "tonic" {
        return cfg!(feature = "tonic");
    }
    cfg!(feature = "peers") || ["waterway", "tokio", "unix", "spin", "futex", "memory"].contains(&first)
}

/// All that were built.
pub fn peers() -> impl Iterator<Item = &'static Peer> {
    PEERS.iter().filter(|peer| is_here(peer))
}

pub fn peer(name: &str) -> Option<&'static Peer> {
    peers().find(|peer| peer.name == name)
}

/// What the names of all files of a measurement with iceoryx2 begin with.
pub fn prefix(place: &Path) -> String {
    format!("{}_", place.file_name().unwrap_or_default().display())
}

/// What a process of a measurement does.
pub fn work(spec: &'static Spec, page: &'static Page, role: Role) {
    if peer(&spec.peer).is_some_and(|peer| peer.in_process) {
        return match spec.peer.as_str() {
            "tokio-watch" if spec.size == 64 => in_process_patterns::watch::<[u64; 8]>(spec, page),
            "tokio-watch" => in_process_patterns::watch::<[u64; 512]>(spec, page),
            "tokio-broadcast" if spec.size == 64 => in_process_patterns::broadcast::<[u64; 8]>(spec, page),
            "tokio-broadcast" => in_process_patterns::broadcast::<Arc<[u8]>>(spec, page),
            _ => in_process::run(spec, page),
        };
    }
    let worker = Worker { spec, page, role, shared: false };
    worker.pin();
    match spec.peer.split('-').next() {
        Some("waterway") => waterway::run(worker),
        Some("unix") => socket::run(worker),
        #[cfg(feature = "peers")]
        Some("ipc") => ipc::run(worker),
        #[cfg(feature = "peers")]
        Some("iceoryx2") => iceoryx::run(worker),
        #[cfg(feature = "tonic")]
        Some("tonic") => rpc::run(worker),
        Some("spin" | "futex") => raw::run(worker),
        _ => panic!("there is no peer {}", spec.peer),
    }
}

/// Evaluates something with `$value` as the type that carries so many bytes by value, or in a box.
macro_rules! by_value {
    ($size:expr, $value:ident => $body:expr) => {
        match $size {
            8 => {
                type $value = [u64; 1];
                $body
            }
            64 => {
                type $value = [u64; 8];
                $body
            }
            _ => {
                type $value = Box<[u8]>;
                $body
            }
        }
    };
}
pub(crate) use by_value;

/// Plays a worker's role with the ends that it needs; only those are opened.
macro_rules! play {
    ($worker:expr, there: $there_tx:expr, $there_rx:expr; back: $back_tx:expr, $back_rx:expr) => {
        match $worker.role {
            $crate::spec::Role::Sender(_) => {
                let tx = $there_tx;
                $worker.send(tx).await
            }
            $crate::spec::Role::Receiver(_) => {
                let rxs = $there_rx;
                $worker.receive(rxs).await
            }
            $crate::spec::Role::Ping => {
                // The other side opens its ends in the same order of channels: some wait for each other.
                let tx = $there_tx;
                let rx = $back_rx.remove(0);
                $worker.ping(tx, rx).await
            }
            $crate::spec::Role::Echo => {
                let rx = $there_rx.remove(0);
                let tx = $back_tx;
                $worker.echo(rx, tx).await
            }
        }
    };
}
pub(crate) use play;
