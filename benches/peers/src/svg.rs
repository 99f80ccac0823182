//! Charts: throughput by size, and percentiles of round trips. Both axes are logarithmic where they carry figures.

use std::fmt::Write;

use crate::{report::time, results::Results, spec::Kind};

const COLOURS: [&str; 10] =
    ["#0b5fff", "#00a3a3", "#d1495b", "#edae49", "#66a182", "#8d6a9f", "#2e4057", "#c77d3b", "#7f7f7f", "#b5179e"];
/// Whose lines are drawn: with more nobody could tell them apart.
const LINES: [&str; 10] = [
    "waterway",
    "waterway-many",
    "waterway-place",
    "tokio",
    "crossfire-mpmc",
    "kanal",
    "unix",
    "unix-buffered",
    "ipc-channel",
    "iceoryx2",
];
const SIZES: [&str; 6] = ["8B", "64B", "1K", "16K", "64K", "1M"];

/// A logarithmic axis.
struct Axis {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// Whole powers of ten around all values.
    fn around(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Option<Self> {
        let least = values.clone().fold(f64::MAX, f64::min);
        let most = values.fold(0.0, f64::max);
        let whole = |value: f64, round: fn(f64) -> f64| 10f64.powf(round(value.log10()));
        (most > 0.0).then(|| Self { least: whole(least, f64::floor), most: whole(most, f64::ceil), from, to })
    }

    fn at(&self, value: f64) -> f64 {
        let part = (value / self.least).ln() / (self.most / self.least).ln();
        self.from + part * (self.to - self.from)
    }

    fn marks(&self) -> impl Iterator<Item = f64> {
        let (mut mark, most) = (self.least, self.most * 1.01);
        std::iter::from_fn(move || {
            let this = mark;
            mark *= 10.0;
            (this <= most).then_some(this)
        })
    }
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, what: &str) {
    let _ = writeln!(out, r#"<text x="{x:.0}" y="{y:.0}" text-anchor="{anchor}">{what}</text>"#);
}

fn begin(width: u32, height: u32, title: &str) -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(&mut out, 10.0, 20.0, "start", title);
    out
}

fn plain(title: &str) -> String {
    title.replace(['*', '`'], "").replace('&', "&amp;")
}

/// Messages per second by size; `None` if there is nothing to show.
pub fn throughput(results: &Results) -> Option<String> {
    let point = |size, peer| results.figure(size, peer).and_then(|figure| figure.median(|run| 1e9 / run.nanos));
    let all: Vec<_> = LINES.iter().flat_map(|peer| SIZES.iter().filter_map(|size| point(size, peer))).collect();
    let axis = Axis::around(all.iter().copied(), 400.0, 50.0)?;
    let x = |index: usize| 90.0 + 90.0 * index as f64;
    let mut out = begin(860, 440, "Messages per second by size, one sender and one receiver");
    for mark in axis.marks() {
        let y = axis.at(mark);
        let _ = writeln!(out, r##"<path d="M70 {y:.1}H560" stroke="#ddd"/>"##);
        let label = if mark >= 1e6 { format!("{} M", mark / 1e6) } else { format!("{} k", mark / 1e3) };
        text(&mut out, 64.0, y + 4.0, "end", &label);
    }
    for (index, size) in SIZES.iter().enumerate() {
        let label = size.replace('K', " KiB").replace('M', " MiB").replace('B', " B").replace("i B", "iB");
        text(&mut out, x(index), 420.0, "middle", &label);
    }
    let mut row = 60.0;
    for (peer, colour) in LINES.iter().zip(COLOURS) {
        let points: Vec<_> =
            SIZES.iter().enumerate().filter_map(|(i, size)| Some((x(i), axis.at(point(size, peer)?)))).collect();
        if points.is_empty() {
            continue;
        }
        let width = if peer.starts_with("waterway") { 3 } else { 1 };
        let line: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            out,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="{width}"/>"#,
            line.join(" ")
        );
        for (x, y) in points {
            let _ = writeln!(out, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{colour}"/>"#);
        }
        let _ = writeln!(out, r#"<rect x="575" y="{:.0}" width="14" height="4" fill="{colour}"/>"#, row - 6.0);
        let figure = results.figures.iter().find(|figure| figure.peer.name == *peer)?;
        text(&mut out, 595.0, row, "start", &plain(figure.peer.title));
        row += 20.0;
    }
    out.push_str("</svg>\n");
    Some(out)
}

/// Percentiles of a case's round trips: p50, p99 and p99.9 of everybody.
pub fn round_trips(results: &Results, index: usize) -> Option<String> {
    let case = &results.cases[index];
    if !matches!(case.kind, Kind::RoundTrip { .. }) {
        return None;
    }
    let rows: Vec<_> = results.of(index).filter(|figure| !figure.samples.is_empty()).collect();
    let points =
        |figure: &crate::results::Figure| [figure.median(|run| run.nanos), figure.median(|run| run.p99), figure.p999()];
    let all: Vec<_> = rows.iter().flat_map(|figure| points(figure)).flatten().collect();
    let axis = Axis::around(all.iter().copied(), 330.0, 830.0)?;
    let height = 80 + 22 * rows.len() as u32;
    let title = format!("{}: p50 (filled), p99, p99.9 (smallest)", plain(&case.title));
    let mut out = begin(860, height, &title);
    for mark in axis.marks() {
        let x = axis.at(mark);
        let _ = writeln!(out, r##"<path d="M{x:.1} 35V{}" stroke="#ddd"/>"##, height - 35);
        let label = time(mark).replace(".00", "").replace(".0", "");
        text(&mut out, x, f64::from(height) - 18.0, "middle", &label);
    }
    for (row, figure) in rows.iter().enumerate() {
        let y = 50.0 + 22.0 * row as f64;
        text(&mut out, 320.0, y + 4.0, "end", &plain(figure.peer.title));
        let colour = if figure.peer.name.starts_with("waterway") { COLOURS[0] } else { COLOURS[6] };
        let places: Vec<_> = points(figure).into_iter().flatten().map(|value| axis.at(value)).collect();
        if let [first, .., last] = places[..] {
            let _ = writeln!(out, r#"<path d="M{first:.1} {y:.1}H{last:.1}" stroke="{colour}"/>"#);
        }
        for (x, (radius, fill)) in places.into_iter().zip([(5, colour), (4, "white"), (3, "white")]) {
            let _ = writeln!(out, r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius}" fill="{fill}" stroke="{colour}"/>"#);
        }
    }
    out.push_str("</svg>\n");
    Some(out)
}
