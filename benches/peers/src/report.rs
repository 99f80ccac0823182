//! Tables in Markdown, and everything as JSON.

use std::{fmt::Write, fs};

use serde_json::json;

use crate::{
    claims::claims,
    results::{Figure, Results, times},
    spec::Kind,
    worker::cores,
};

/// What the figures were taken on, and with.
pub struct Setting {
    pub machine: String,
    pub versions: String,
    pub runs: usize,
    pub millis: u64,
    pub load: (String, String),
}

impl Setting {
    pub fn new(runs: usize, millis: u64) -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let named =
            |key| cpu.lines().find_map(|line| line.strip_prefix(key)).map(|rest| rest.trim_matches([' ', '\t', ':']));
        let model = named("model name").unwrap_or(std::env::consts::ARCH);
        let kernel = read("/proc/sys/kernel/osrelease");
        let (cores, rustc) = (cores().len(), env!("RUSTC_VERSION"));
        let machine = format!("{model}, {cores} cores, Linux {}, {rustc}", kernel.trim());
        // What was locked is what was built.
        let lock: Vec<_> = include_str!("../Cargo.lock").lines().collect();
        let version = |name: &str| {
            let at = lock.iter().position(|line| *line == format!("name = \"{name}\""))?;
            Some(format!("{name} {}", lock[at + 1].trim_start_matches("version = ").trim_matches('"')))
        };
        let peers =
            ["waterway", "tokio", "async-channel", "flume", "crossfire", "kanal", "ipc-channel", "iceoryx2", "tonic"];
        let versions = peers.into_iter().filter_map(version).collect::<Vec<_>>().join(", ");
        Self { machine, versions, runs, millis, load: (load(), String::new()) }
    }

    pub fn done(&mut self) {
        self.load.1 = load();
    }
}

fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

/// Nanoseconds, in the unit that suits them.
pub fn time(nanos: f64) -> String {
    match nanos {
        ..100.0 => format!("{nanos:.1} ns"),
        ..1e3 => format!("{nanos:.0} ns"),
        ..1e5 => format!("{:.2} µs", nanos / 1e3),
        ..1e6 => format!("{:.0} µs", nanos / 1e3),
        _ => format!("{:.2} ms", nanos / 1e6),
    }
}

fn or_dash(value: Option<f64>, format: impl Fn(f64) -> String) -> String {
    value.map_or("–".to_owned(), format)
}

fn factor(ratio: f64) -> String {
    if ratio < 9.95 { format!("{ratio:.2}") } else { format!("{ratio:.0}") }
}

/// Whom a case's ratios are taken to: Waterway in the way that suits it.
fn ours<'a>(results: &'a Results, case: usize, name: &str) -> Option<&'a Figure> {
    results.of(case).find(|figure| figure.peer.name == name)
}

pub fn markdown(results: &Results, setting: &Setting) -> String {
    let mut out = String::new();
    let Setting { machine, versions, runs, millis, load } = setting;
    let _ = writeln!(out, "{machine}.\n\n{versions}.\n");
    let _ = writeln!(
        out,
        "Medians of {runs} interleaved runs of {millis} ms each; load {} before, {} after. Ratios are medians of those \
         within a run: above 1, Waterway takes less time.\n",
        load.0, load.1
    );
    for (index, case) in results.cases.iter().enumerate() {
        if results.of(index).next().is_none() {
            continue;
        }
        let _ = writeln!(out, "### {} (`{}`)\n", case.title, case.name);
        match case.kind {
            Kind::Throughput | Kind::Broadcast => throughput(&mut out, results, index),
            Kind::RoundTrip { .. } | Kind::Call => round_trip(&mut out, results, index),
            Kind::Publish => cost(&mut out, results, index, "message"),
            Kind::Read { .. } => cost(&mut out, results, index, "read"),
            Kind::Write => cost(&mut out, results, index, "write"),
            Kind::Idle { .. } => {
                for figure in results.of(index) {
                    let Some((sleeps, seconds)) = figure.idle else { continue };
                    let (title, millis) = (figure.peer.title, seconds * 1e3);
                    let _ = writeln!(out, "{title}: {millis:.2} ms of processor time, {sleeps} sleeps.");
                }
            }
        }
        for figure in results.of(index) {
            for failure in &figure.failures {
                let _ = writeln!(out, "\n{} failed: {failure}.", figure.peer.title);
            }
        }
        out.push('\n');
    }
    must_hold(&mut out, results);
    out
}

fn kind(figure: &Figure) -> &'static str {
    if figure.peer.in_process { "one process" } else { "processes" }
}

fn throughput(out: &mut String, results: &Results, index: usize) {
    let case = &results.cases[index];
    let one = ours(results, index, "waterway").or(ours(results, index, "waterway-broadcast"));
    let best = ours(results, index, "waterway-many").or(ours(results, index, "waterway-place"));
    let _ = write!(
        out,
        "| | ends in | per message | from … to | payload | sleeps per 1,000 | system calls per 1,000 | processor time |"
    );
    let columns: Vec<_> = [one, best].into_iter().flatten().collect();
    for ours in &columns {
        let _ = write!(out, " ratio to {} |", ours.peer.title.replace("**", ""));
    }
    let _ = writeln!(out, "\n|---|---|---|---|---|---|---|---|{}", "---|".repeat(columns.len()));
    for figure in results.of(index) {
        let nanos = figure.median(|run| run.nanos);
        let (least, most) = figure.range(|run| run.nanos);
        let _ = write!(
            out,
            "| {} | {} | {} | {} … {} | {} | {} | {} | {} |",
            figure.peer.title,
            kind(figure),
            or_dash(nanos, time),
            or_dash(nanos.map(|_| least), time),
            or_dash(nanos.map(|_| most), time),
            or_dash(nanos, |nanos| format!("{:.2} GB/s", case.size as f64 / nanos)),
            or_dash(figure.median(|run| run.sleeps * 1e3), |sleeps| format!("{sleeps:.1}")),
            or_dash(figure.calls, |calls| format!("{:.1}", calls * 1e3)),
            or_dash(figure.median(|run| run.cpu), time),
        );
        for ours in &columns {
            let _ = write!(out, " {} |", or_dash(times(ours, figure, |run| run.nanos), factor));
        }
        out.push('\n');
    }
}

fn round_trip(out: &mut String, results: &Results, index: usize) {
    let one = ours(results, index, "waterway-call").or(ours(results, index, "waterway"));
    let _ = writeln!(
        out,
        "| | ends in | p50 | from … to | p99 | p99.9 | sleeps | system calls | ratio of p50 | ratio of p99 |"
    );
    let _ = writeln!(out, "|---|---|---|---|---|---|---|---|---|---|");
    for figure in results.of(index) {
        let nanos = figure.median(|run| run.nanos);
        let (least, most) = figure.range(|run| run.nanos);
        let ratio = |of| one.and_then(|one| times(one, figure, of));
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} … {} | {} | {} | {} | {} | {} | {} |",
            figure.peer.title,
            kind(figure),
            or_dash(nanos, time),
            or_dash(nanos.map(|_| least), time),
            or_dash(nanos.map(|_| most), time),
            or_dash(figure.median(|run| run.p99), time),
            or_dash(figure.p999(), time),
            or_dash(figure.median(|run| run.sleeps), |sleeps| format!("{sleeps:.2}")),
            or_dash(figure.calls, |calls| format!("{calls:.2}")),
            or_dash(ratio(|run| run.nanos), factor),
            or_dash(ratio(|run| run.p99), factor),
        );
    }
}

/// What it takes to do one thing.
fn cost(out: &mut String, results: &Results, index: usize, what: &str) {
    let one = ["waterway-watch", "waterway-broadcast"].into_iter().find_map(|name| ours(results, index, name));
    let writes = matches!(results.cases[index].kind, Kind::Read { written: true });
    let _ = write!(out, "| | ends in | per {what} | from … to | ratio |");
    let _ = writeln!(out, "{}", if writes { " per write meanwhile |" } else { "" });
    let _ = writeln!(out, "|---|---|---|---|---|{}", if writes { "---|" } else { "" });
    for figure in results.of(index) {
        let nanos = figure.median(|run| run.nanos);
        let (least, most) = figure.range(|run| run.nanos);
        let _ = write!(
            out,
            "| {} | {} | {} | {} … {} | {} |",
            figure.peer.title,
            kind(figure),
            or_dash(nanos, time),
            or_dash(nanos.map(|_| least), time),
            or_dash(nanos.map(|_| most), time),
            or_dash(one.and_then(|one| times(one, figure, |run| run.nanos)), factor),
        );
        if writes {
            let _ = write!(out, " {} |", or_dash(figure.median(|run| run.write), time));
        }
        out.push('\n');
    }
}

fn must_hold(out: &mut String, results: &Results) {
    let measured: Vec<_> = claims(results).into_iter().filter(|claim| claim.seen.is_some()).collect();
    if measured.is_empty() {
        return;
    }
    let _ = writeln!(out, "### What must hold\n\n| | asked | seen | |\n|---|---|---|---|");
    for claim in measured {
        let seen = or_dash(claim.seen, |seen| format!("{}{}", factor(seen), claim.unit));
        let _ = writeln!(
            out,
            "| {} | {} | {seen} | {} |",
            claim.text,
            claim.asked,
            if claim.holds { "holds" } else { "**falls short**" }
        );
    }
}

pub fn json(results: &Results, setting: &Setting) -> String {
    let figures: Vec<_> = results
        .figures
        .iter()
        .map(|figure| {
            let case = &results.cases[figure.case];
            let runs: Vec<_> = figure
                .runs
                .iter()
                .map(|run| {
                    run.map(|run| {
                        json!({"ns": run.nanos, "p99_ns": run.p99, "sleeps": run.sleeps, "cpu_ns": run.cpu,
                            "write_ns": run.write.is_finite().then_some(run.write)})
                    })
                })
                .collect();
            json!({
                "case": case.name,
                "peer": figure.peer.name,
                "in_process": figure.peer.in_process,
                "round_trip": case.kind.idle_us().is_some(),
                "size": case.size,
                "senders": case.senders,
                "receivers": case.receivers,
                "capacity": case.capacity,
                "multi_thread": case.multi,
                "ns": figure.median(|run| run.nanos),
                "p99_ns": figure.median(|run| run.p99),
                "p99.9_ns": figure.p999(),
                "system_calls": figure.calls,
                "idle": figure.idle.map(|(sleeps, seconds)| json!({"sleeps": sleeps, "cpu_s": seconds})),
                "runs": runs,
                "failures": figure.failures,
            })
        })
        .collect();
    let claims: Vec<_> = claims(results)
        .into_iter()
        .map(|claim| json!({"claim": claim.text, "asked": claim.asked, "seen": claim.seen, "holds": claim.holds}))
        .collect();
    let all = json!({
        "machine": setting.machine,
        "versions": setting.versions,
        "runs": setting.runs,
        "millis": setting.millis,
        "load": [setting.load.0, setting.load.1],
        "figures": figures,
        "claims": claims,
    });
    format!("{all:#}\n")
}
