//! What is measured.

use std::path::PathBuf;

use crate::{
    peers::{ONE_TO_ONE, SLICES_64K},
    spec::{Kind, Spec},
};

pub struct Case {
    pub name: &'static str,
    pub title: String,
    pub kind: Kind,
    pub size: usize,
    pub senders: usize,
    pub receivers: usize,
    pub capacity: usize,
    pub multi: bool,
    /// Peers beside whom it says something; all that fit, if empty.
    pub peers: &'static [&'static str],
    /// Those of `--quick`: all of the above, if empty; `None` leaves the case out.
    pub quick: Option<&'static [&'static str]>,
}

impl Case {
    pub fn spec(&self, peer: &str, millis: u64, messages: u64) -> Spec {
        let millis = match self.kind {
            Kind::Idle { .. } => 10_000,
            // Each of them is mostly idleness.
            Kind::RoundTrip { idle_us: 1000.. } => 2 * millis,
            _ => millis,
        };
        Spec {
            peer: peer.to_owned(),
            kind: self.kind,
            size: self.size,
            senders: self.senders,
            receivers: self.receivers,
            capacity: self.capacity,
            multi: self.multi,
            millis,
            messages,
            counted: false,
            place: PathBuf::new(),
        }
    }
}

/// Who is beside Waterway where the number of ends, or the runtime, is what matters.
const ENDS: &[&str] = &[
    "waterway",
    "waterway-many",
    "waterway-slices",
    "waterway-parts",
    SLICES_64K,
    ONE_TO_ONE,
    "tokio",
    "async-channel",
    "flume",
    "crossfire-mpmc",
    "crossfire-mpsc",
    "kanal",
    "unix",
    "ipc-channel",
    "iceoryx2",
];

/// All of them, in the order of the tables.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, title, size, capacity) in [
        ("8B", "8 B", 8, 1024),
        ("64B", "64 B", 64, 1024),
        ("1K", "1 KiB", 1 << 10, 1024),
        ("16K", "16 KiB", 16 << 10, 64),
        ("64K", "64 KiB", 64 << 10, 64),
        ("1M", "1 MiB", 1 << 20, 8),
    ] {
        let quick: Option<&[&str]> = match name {
            "64B" => Some(&[
                "waterway",
                "waterway-many",
                "waterway-slices",
                "waterway-parts",
                SLICES_64K,
                "waterway-1000",
                "tokio",
                "tokio-many",
                "crossfire-mpmc",
                "unix",
                "unix-buffered",
                "iceoryx2",
            ]),
            "64K" => Some(&["waterway-place", "unix", "iceoryx2"]),
            "1M" => Some(&["waterway-place", "unix", "iceoryx2", "memory"]),
            _ => None,
        };
        cases.push(Case {
            name,
            title: format!("{title}, one sender, one receiver, capacity {capacity}"),
            kind: Kind::Throughput,
            size,
            senders: 1,
            receivers: 1,
            capacity,
            multi: false,
            peers: &[],
            quick,
        });
    }
    let shape = |name, title: &str, senders, receivers, capacity, multi, peers, quick| Case {
        name,
        title: format!("64 B, {title}"),
        kind: Kind::Throughput,
        size: 64,
        senders,
        receivers,
        capacity,
        multi,
        peers,
        quick,
    };
    cases.extend([
        shape("capacity-1", "capacity 1", 1, 1, 1, false, ENDS, None),
        shape("capacity-64", "capacity 64", 1, 1, 64, false, ENDS, None),
        shape("4to1", "4 senders, one receiver", 4, 1, 1024, false, ENDS, None),
        shape("1to4", "one sender, 4 receivers", 1, 4, 1024, false, ENDS, None),
        shape(
            "4to4",
            "4 senders, 4 receivers",
            4,
            4,
            1024,
            false,
            ENDS,
            Some(&["waterway", ONE_TO_ONE, "crossfire-mpmc"]),
        ),
        shape("16to1", "16 senders, one receiver", 16, 1, 1024, false, ENDS, None),
        shape("multi", "multi-thread runtimes, not pinned", 1, 1, 1024, true, ENDS, None),
    ]);
    const SLEEPERS: &[&str] = &["waterway", "unix", "iceoryx2-event", "futex"];
    for (name, title, idle_us, size, multi, peers, quick) in [
        ("hot", "64 B", 0, 64, false, &[][..], Some(&["waterway", "waterway-1000", "unix", "iceoryx2", "spin"][..])),
        ("hot-1K", "1 KiB", 0, 1024, false, &[], None),
        ("hot-64K", "64 KiB", 0, 64 << 10, false, &[], None),
        ("hot-multi", "64 B, multi-thread runtimes, not pinned", 0, 64, true, ENDS, None),
        ("idle-100us", "64 B, each after 100 µs of idleness", 100, 64, false, &[], Some(SLEEPERS)),
        ("idle-10ms", "64 B, each after 10 ms of idleness", 10_000, 64, false, &[], Some(SLEEPERS)),
    ] {
        cases.push(Case {
            name,
            title: format!("there and back, {title}"),
            kind: Kind::RoundTrip { idle_us },
            size,
            senders: 1,
            receivers: 1,
            capacity: 64,
            multi,
            peers,
            quick,
        });
    }
    cases.extend(patterns());
    cases.push(Case {
        name: "waiting-1000",
        title: "1,000 receivers, each waiting for a channel of its own, 10 s".to_owned(),
        kind: Kind::Idle { receivers: 1000 },
        size: 8,
        senders: 0,
        receivers: 1,
        capacity: 64,
        multi: false,
        peers: &["waterway"],
        quick: Some(&[]),
    });
    cases
}

/// Requests that are answered, the latest value, and messages that all receive.
fn patterns() -> Vec<Case> {
    let case = |name, title: String, kind, size, receivers, capacity, peers, quick| Case {
        name,
        title,
        kind,
        size,
        senders: 1,
        receivers,
        capacity,
        multi: false,
        peers,
        quick,
    };
    const CALLS: &[&str] = &["waterway-call", "waterway", "iceoryx2-call", "tonic"];
    let title = "a request and its response, 64 B each".to_owned();
    let mut cases = vec![case("call", title, Kind::Call, 64, 1, 64, CALLS, Some(&[]))];

    let (calm, written) = (Kind::Read { written: false }, Kind::Read { written: true });
    let ours: Option<&[&str]> = Some(&["waterway-watch"]);
    for (name, what, kind, size, quick) in [
        ("watch-64B", "64 B, nobody writes", calm, 64, ours),
        ("watch-4K", "4 KiB, nobody writes", calm, 4 << 10, None),
        ("watch-written-64B", "64 B, while another writes as fast as it can", written, 64, ours),
        ("watch-written-4K", "4 KiB, while another writes as fast as it can", written, 4 << 10, None),
    ] {
        cases.push(case(name, format!("reading the latest value, {what}"), kind, size, 1, 1, &[], quick));
    }
    for (name, what, size) in [("watch-send-64B", "64 B", 64), ("watch-send-4K", "4 KiB", 4 << 10)] {
        let title = format!("writing the latest value, {what}, nobody reads");
        cases.push(case(name, title, Kind::Write, size, 1, 1, &[], None));
    }

    let ours: Option<&[&str]> = Some(&["waterway-broadcast"]);
    for (name, what, size, receivers, capacity) in [
        ("broadcast-64B-1", "64 B, one group", 64, 1, 1024),
        ("broadcast-64B-4", "64 B, four groups", 64, 4, 1024),
        ("broadcast-64K-1", "64 KiB, one group", 64 << 10, 1, 64),
        ("broadcast-64K-4", "64 KiB, four groups", 64 << 10, 4, 64),
    ] {
        let title = format!("one publisher, {what}, capacity {capacity}");
        cases.push(case(name, title, Kind::Broadcast, size, receivers, capacity, &[], None));
    }
    for (name, what, size, receivers, capacity, quick) in [
        ("publish-64B-1", "64 B to one group", 64, 1, 1024, None),
        ("publish-64B-4", "64 B to four groups", 64, 4, 1024, None),
        ("publish-64K-1", "64 KiB to one group", 64 << 10, 1, 64, ours),
        ("publish-64K-4", "64 KiB to four groups", 64 << 10, 4, 64, ours),
    ] {
        let title = format!("publishing {what}, nobody receives meanwhile");
        cases.push(case(name, title, Kind::Publish, size, receivers, capacity, &[], quick));
    }
    cases
}
