//! What must hold, beside what was seen.

use crate::{
    peers::{ONE_TO_ONE, SLICES_64K},
    results::{Results, Run},
    worker::cores,
};

pub struct Claim {
    pub text: String,
    pub asked: String,
    /// `None` if it was not measured.
    pub seen: Option<f64>,
    pub unit: &'static str,
    pub holds: bool,
}

const ONE: (&str, &str) = ("64B", "waterway");
const MANY: (&str, &str) = ("64B", "waterway-many");
const SLICES: (&str, &str) = ("64B", "waterway-slices");

fn nanos(run: &Run) -> f64 {
    run.nanos
}

fn p99(run: &Run) -> f64 {
    run.p99
}

pub fn claims(results: &Results) -> Vec<Claim> {
    let mut claims = Vec::new();
    let mut claim = |text: &str, least: bool, asked: f64, unit, seen: Option<f64>| {
        let holds = seen.is_some_and(|seen| if least { seen >= asked } else { seen <= asked });
        let asked = format!("{} {}{unit}", if least { "≥" } else { "≤" }, (asked * 100.0).round() / 100.0);
        claims.push(Claim { text: text.to_owned(), asked, seen, unit, holds });
    };
    let faster = |first, second| results.ratio(first, second, nanos);
    let longer = |first, second, of| results.ratio(second, first, of);

    for (peer, title, asked) in [
        ("tokio", "tokio mpsc in one process", 2.5),
        ("crossfire-mpmc", "crossfire mpmc in one process", 1.0),
        ("unix", "`UnixStream`, a write per message", 20.0),
        ("iceoryx2", "iceoryx2, polled", 5.0),
    ] {
        let text = format!("64 B, one at a time, as fast as {title}");
        claim(&text, true, asked, "×", faster(ONE, ("64B", peer)));
    }
    for (ours, how) in [(MANY, "batches"), (SLICES, "batches of one block")] {
        for (peer, title, asked) in [
            ("tokio", "tokio mpsc, one at a time", 4.5),
            ("tokio-many", "tokio mpsc, `recv_many`", 3.0),
            ("unix-buffered", "`UnixStream`, buffered", 1.0),
        ] {
            let text = format!("64 B in {how}, as fast as {title}");
            claim(&text, true, asked, "×", faster(ours, ("64B", peer)));
        }
    }
    // Both have what is in 64 KiB travel together.
    let text = "64 B in slices of 64 KiB, as fast as `UnixStream` with buffers of 64 KiB";
    claim(text, true, 1.0, "×", faster(("64B", SLICES_64K), ("64B", "unix-buffered")));
    let place = ("64K", "waterway-place");
    claim("64 KiB in place, as fast as iceoryx2", true, 1.0, "×", faster(place, ("64K", "iceoryx2")));
    claim("64 KiB in place, as fast as `UnixStream`", true, 3.0, "×", faster(place, ("64K", "unix")));
    let place = ("1M", "waterway-place");
    let text = "1 MiB in place, as fast as one thread that writes and reads it";
    claim(text, true, 1.0, "×", faster(place, ("1M", "memory")));

    let hot = ("hot", "waterway");
    let p50 = |peer| results.figure(hot.0, peer).and_then(|figure| figure.median(nanos)).map(|p50| p50 / 1000.0);
    // One of the two is enough.
    let asked = p50("spin").map_or(1.0, |spin| (2.5 * spin).max(1.0));
    claim("hot round trip, p50: a microsecond, or 2.5 times two that spin", false, asked, " µs", p50(hot.1));
    claim("hot round trip, p50, as fast as `UnixStream`", true, 20.0, "×", faster(hot, ("hot", "unix")));
    for (case, title) in [("idle-100us", "100 µs"), ("idle-10ms", "10 ms")] {
        let (ours, futex, unix) = ((case, "waterway"), (case, "futex"), (case, "unix"));
        let text = format!("round trip after {title} of idleness, p50, as long as a raw futex");
        claim(&text, false, 1.3, "×", longer(ours, futex, nanos));
        let text = format!("round trip after {title} of idleness, p99, as long as `UnixStream`");
        claim(&text, false, 1.0, "×", longer(ours, unix, p99));
    }

    let sleeps = |case, peer| results.figure(case, peer).and_then(|figure| figure.median(|run| run.sleeps));
    claim(
        "sleeps per 1,000 messages while both are busy",
        false,
        1.0,
        "",
        sleeps("64B", "waterway").map(|it| it * 1e3),
    );
    let more = |case| Some(sleeps(case, "waterway")? - sleeps(case, "futex")?);
    let text = "sleeps per round trip after 10 ms of idleness, more than a raw futex's";
    claim(text, false, 2.0, "", more("idle-10ms"));
    let idle = results.figure("waiting-1000", "waterway").and_then(|figure| figure.idle);
    claim("1,000 receivers that wait for 10 s: processor time", false, 10.0, " ms", idle.map(|idle| idle.1 * 1e3));

    let call = ("call", "waterway-call");
    let text = "a call and its response, p50, as long as a round trip through two channels";
    claim(text, false, 2.2, "×", longer(call, ("call", "waterway"), nanos));
    let text = "a call and its response, p50, as fast as tonic on a Unix socket";
    claim(text, true, 10.0, "×", faster(call, ("call", "tonic")));
    let read = results.figure("watch-64B", "waterway-watch").and_then(|figure| figure.median(nanos));
    claim("reading the latest value of 64 B, nobody writes", false, 50.0, " ns", read);
    let publish = |case| (case, "waterway-broadcast");
    let text = "publishing 64 KiB to four groups, as long as to one";
    claim(text, false, 1.3, "×", longer(publish("publish-64K-4"), publish("publish-64K-1"), nanos));

    let used = |ends: usize| cores().len().min(ends) as f64;
    let per_core = faster(("4to4", "waterway"), ("4to4", ONE_TO_ONE)).map(|ratio| ratio * used(2) / used(8));
    claim("4 senders and 4 receivers, as fast as one of each, per core used", true, 0.8, "×", per_core);
    for (case, title) in [("64B", "64 B, one at a time"), ("hot", "hot round trip")] {
        let text = format!("{title}, with 1,000 more channels, as long as without");
        claim(&text, false, 1.1, "×", longer((case, "waterway-1000"), (case, "waterway"), nanos));
    }
    claims
}
