//! `stats --prometheus`: the figures of all segments, as OpenMetrics, to whoever asks for them over HTTP.
//!
//! One connection at a time, each with a short time to say what it wants: those who scrape come every few seconds.

use std::{
    fmt::{self, Write as _},
    io::{self, Read, Write},
    net::{TcpListener, TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

use waterway::{Observer, Segment, observer::ChannelView};

use crate::say::{Failure, word};

/// How long a connection has to say what it wants, and how much it may say.
const PATIENCE: Duration = Duration::from_secs(2);
const LONGEST: usize = 16 << 10;

/// A family of figures: what all of one name have in common.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    lines: String,
}

/// What stands in braces behind a name.
struct Labels<'a>(&'a [(&'a str, &'a str)]);

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<String> = self
            .0
            .iter()
            .map(|(name, value)| {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                format!("{name}=\"{value}\"")
            })
            .collect();
        write!(f, "{{{}}}", labels.join(","))
    }
}

/// All families, in the order in which they were first named.
#[derive(Default)]
struct Page(Vec<Family>);

impl Page {
    fn add(
        &mut self,
        (name, kind, help): (&'static str, &'static str, &'static str),
        labels: &[(&str, &str)],
        value: f64,
    ) {
        let index = self.0.iter().position(|family| family.name == name).unwrap_or_else(|| {
            self.0.push(Family { name, kind, help, lines: String::new() });
            self.0.len() - 1
        });
        let suffix = if kind == "counter" { "_total" } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(self.0[index].lines, "{name}{suffix}{} {value}", Labels(labels));
    }

    fn text(self) -> String {
        let mut text = String::new();
        for Family { name, kind, help, lines } in self.0 {
            let _ = write!(text, "# TYPE {name} {kind}\n# HELP {name} {help}\n{lines}");
        }
        text + "# EOF\n"
    }

    fn add_channel(&mut self, segment: &str, view: &ChannelView) {
        let kind = word(view.kind);
        let labels = [("segment", segment), ("channel", &view.name), ("kind", &kind)];
        for (about, value) in [
            (("waterway_channel_sent", "counter", "Messages that were ever sent."), view.sent),
            (("waterway_channel_received", "counter", "Messages that were ever taken out."), view.received),
            (("waterway_channel_expired", "counter", "Messages whose time to live was over."), view.counts.expired),
            (("waterway_channel_dropped", "counter", "Messages that gave way to newer ones."), view.counts.dropped),
            (
                ("waterway_channel_dead_letters", "counter", "Messages that became dead letters."),
                view.counts.dead_letters,
            ),
            (
                ("waterway_channel_discarded", "counter", "Messages that could not become dead letters."),
                view.counts.discarded,
            ),
            (("waterway_channel_depth", "gauge", "Messages that wait."), view.depth as u64),
            (("waterway_channel_capacity", "gauge", "Messages that may wait."), view.capacity as u64),
            (
                ("waterway_channel_unacknowledged", "gauge", "Messages received and not acknowledged."),
                view.unacknowledged as u64,
            ),
            (
                ("waterway_channel_bytes", "gauge", "Bytes of the messages that wait or are not acknowledged."),
                view.bytes as u64,
            ),
            (("waterway_channel_senders", "gauge", "Participants with a sender."), view.senders as u64),
            (("waterway_channel_receivers", "gauge", "Participants with a receiver."), view.receivers as u64),
            (
                ("waterway_channel_parked_senders", "gauge", "Participants that wait for room."),
                view.parked_senders as u64,
            ),
            (
                ("waterway_channel_parked_receivers", "gauge", "Participants that wait for messages."),
                view.parked_receivers as u64,
            ),
            (
                ("waterway_channel_broken", "gauge", "Whether what the directory says of it makes no sense."),
                u64::from(view.problem.is_some()),
            ),
        ] {
            self.add(about, &labels, value as f64);
        }
        for group in &view.groups {
            let labels = [("segment", segment), ("channel", view.name.as_str()), ("group", &group.name)];
            for (about, value) in [
                (("waterway_group_lag", "gauge", "Messages that the group has not taken."), group.lag as u64),
                (("waterway_group_held", "gauge", "Messages that its members have."), group.held as u64),
                (("waterway_group_members", "gauge", "Participants with a member."), group.members as u64),
                (("waterway_group_evicted", "gauge", "Whether it was put out."), u64::from(group.evicted)),
            ] {
                self.add(about, &labels, value as f64);
            }
        }
    }

    fn add_segment(&mut self, observer: &Observer) -> Result<(), Failure> {
        let (name, memory) = (observer.name(), observer.try_memory()?);
        let participants = observer.try_participants()?;
        let views = observer.try_channels()?;
        let labels = [("segment", name)];
        let living = participants.iter().filter(|one| one.alive).count();
        let quarantined = memory.sectors.iter().filter(|sector| sector.quarantined).count();
        for (about, value) in [
            (("waterway_segment_size_bytes", "gauge", "Bytes of all sectors."), memory.size as f64),
            (
                ("waterway_segment_max_size_bytes", "gauge", "Bytes of all sectors at their largest."),
                memory.max_size as f64,
            ),
            (("waterway_segment_used_bytes", "gauge", "Bytes that belong to somebody."), memory.used as f64),
            (("waterway_segment_free_bytes", "gauge", "Bytes that are free."), memory.free as f64),
            (("waterway_segment_file_bytes", "gauge", "Bytes of memory that the file has."), memory.file_bytes as f64),
            (
                (
                    "waterway_segment_fragmentation",
                    "gauge",
                    "Share of the free memory outside the largest free blocks.",
                ),
                memory.fragmentation(),
            ),
            (("waterway_segment_participants", "gauge", "Processes that live in it."), living as f64),
            (
                ("waterway_segment_unburied", "gauge", "Processes that have died in it and are not buried."),
                (participants.len() - living) as f64,
            ),
            (("waterway_segment_quarantined_sectors", "gauge", "Sectors out of use."), quarantined as f64),
            (
                ("waterway_segment_cache_hits", "counter", "Blocks that came out of a magazine."),
                memory.cache_hits as f64,
            ),
            (
                ("waterway_segment_cache_misses", "counter", "Times that magazines were empty."),
                memory.cache_misses as f64,
            ),
            (("waterway_segment_growths", "counter", "Steps in which it has grown."), memory.growths as f64),
            (
                ("waterway_segment_memory_waits", "counter", "Times that somebody has waited for memory."),
                memory.memory_waits as f64,
            ),
        ] {
            self.add(about, &labels, value);
        }
        views.iter().for_each(|view| self.add_channel(name, view));
        Ok(())
    }
}

/// All segments. What cannot be read says so by one figure, and by its lack of others.
fn page() -> Result<String, Failure> {
    let mut page = Page::default();
    for listed in Segment::list()? {
        let mut its = Page::default();
        let is_read =
            Observer::open(&listed.name).map_err(Failure::from).and_then(|found| its.add_segment(&found)).is_ok();
        let about = ("waterway_segment_up", "gauge", "Whether it can be read.");
        page.add(about, &[("segment", &listed.name)], f64::from(u8::from(is_read)));
        if is_read {
            page.take(its);
        }
    }
    Ok(page.text())
}

impl Page {
    /// Adds another page's figures.
    fn take(&mut self, other: Self) {
        for family in other.0 {
            match self.0.iter_mut().find(|known| known.name == family.name) {
                Some(known) => known.lines.push_str(&family.lines),
                None => self.0.push(family),
            }
        }
    }
}

/// Reads as much of a request as says what is wanted; `None` if it does not within reason.
fn path_of(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let started = Instant::now();
    let (mut request, mut part) = (Vec::new(), [0; 1024]);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let Some(left) = PATIENCE.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) else {
            return Ok(None);
        };
        stream.set_read_timeout(Some(left))?;
        let read = stream.read(&mut part)?;
        request.extend_from_slice(&part[..read]);
        if read == 0 || request.len() > LONGEST {
            return Ok(None);
        }
    }
    let line = String::from_utf8_lossy(&request);
    let mut words = line.split_ascii_whitespace();
    Ok((words.next() == Some("GET")).then(|| words.next().unwrap_or_default().to_owned()))
}

fn answer(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let path = path_of(stream)?;
    let (status, kind, body) = match path.as_deref().map(|path| path.split('?').next().unwrap_or_default()) {
        Some("/metrics") => match page() {
            Ok(page) => ("200 OK", "application/openmetrics-text; version=1.0.0; charset=utf-8", page),
            Err(failure) => ("500 Internal Server Error", "text/plain; charset=utf-8", format!("{failure}\n")),
        },
        Some("/") => ("200 OK", "text/plain; charset=utf-8", "The figures are at /metrics\n".to_owned()),
        Some(_) => ("404 Not Found", "text/plain; charset=utf-8", "The figures are at /metrics\n".to_owned()),
        None => ("400 Bad Request", "text/plain; charset=utf-8", "GET /metrics\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

pub(crate) fn serve(address: &str, out: &mut impl Write) -> Result<(), Failure> {
    let address = if address.starts_with(':') { format!("127.0.0.1{address}") } else { address.to_owned() };
    let wrong = |error| Failure::Usage(format!("{address:?} is no address: say ADDRESS:PORT, or :PORT ({error})"));
    let addresses: Vec<_> = address.to_socket_addrs().map_err(wrong)?.collect();
    let listener = TcpListener::bind(&addresses[..])
        .map_err(|error| Failure::Refused(format!("could not listen at {address}: {error}")))?;
    writeln!(out, "http://{}/metrics", listener.local_addr()?)?;
    out.flush()?;
    for stream in listener.incoming() {
        // Who comes and goes is no concern of the others.
        let _ = stream.and_then(|mut stream| answer(&mut stream));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_each_family_once_and_its_labels_escaped() {
        let mut page = Page::default();
        page.add(("a", "counter", "As."), &[("x", "1")], 3.0);
        page.add(("b", "gauge", "Bs."), &[], 0.5);
        let mut other = Page::default();
        other.add(("a", "counter", "As."), &[("x", "\"\\\n")], 4.0);
        page.take(other);
        let text = "# TYPE a counter\n# HELP a As.\na_total{x=\"1\"} 3\na_total{x=\"\\\"\\\\\\n\"} 4\n\
                    # TYPE b gauge\n# HELP b Bs.\nb{} 0.5\n# EOF\n";
        assert_eq!(page.text(), text);
    }
}
