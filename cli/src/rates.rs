//! Figures, and how fast they grow: `stats`, `hz`, `bw`.
//!
//! A rate is the difference between two positions of a channel, over the time between the looks: no message is missed in it, and none
//! is looked at. Bytes are counted exactly where all payloads have one size; otherwise those of the messages that were seen stand for
//! the others, and how many those were is said.

use std::{
    collections::HashMap,
    io::Write,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use waterway::{
    Observer, Segment,
    observer::{ChannelView, Follower, MemoryView, ObserveError},
    segment::ChannelKind,
};

use crate::{
    Often,
    looks::{of_channel, views_of},
    say::{Failure, bytes, channel_of, parts_of, say, short, word},
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// How often something is told, and at what intervals.
pub(crate) struct Every {
    interval: Option<Duration>,
    count: Option<u64>,
}

impl Every {
    /// What was asked for; who asks for a number alone means every second.
    pub(crate) fn of(often: &Often, usual: Option<Duration>) -> Self {
        let interval = often.interval.or(usual).or(often.count.map(|_| SECOND));
        Self { interval, count: often.count }
    }

    /// Calls `tell` as often as that, once if no interval was asked for.
    fn tell(&self, mut tell: impl FnMut() -> Result<(), Failure>) -> Result<(), Failure> {
        let Some(interval) = self.interval else { return tell() };
        let (mut next, mut told) = (Instant::now() + interval, 0);
        while self.count.is_none_or(|count| told < count) {
            thread::sleep(next.saturating_duration_since(Instant::now()));
            tell()?;
            // Looks that took too long are not made up for.
            (next, told) = ((next + interval).max(Instant::now()), told + 1);
        }
        Ok(())
    }
}

/// What has grown from one look to the next. A figure that is less than before is another channel's of that name.
pub(crate) fn growth(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

/// Per second.
pub(crate) fn per_second(many: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { many as f64 / time.as_secs_f64() }
}

/// What a segment's memory holds, as JSON.
pub(crate) fn of_memory(memory: &MemoryView) -> Value {
    let sectors: Vec<Value> = memory
        .sectors
        .iter()
        .map(|sector| {
            json!({
                "granule": sector.granule, "bytes": sector.bytes, "free": sector.free_bytes, "cached": sector.cached_bytes,
                "allocated": sector.allocated_bytes, "in_flight": sector.in_flight_bytes,
                "largest_free": sector.largest_free, "quarantined": sector.quarantined,
            })
        })
        .collect();
    json!({
        "size": memory.size, "max_size": memory.max_size, "used": memory.used, "free": memory.free,
        "file_bytes": memory.file_bytes, "fragmentation": memory.fragmentation(), "cache_hits": memory.cache_hits,
        "cache_misses": memory.cache_misses, "growths": memory.growths, "memory_waits": memory.memory_waits,
        "sectors": sectors,
    })
}

/// Positions of all channels of a segment, at a time.
struct Positions {
    at: Instant,
    of: HashMap<String, (u64, u64)>,
}

impl Positions {
    fn new(at: Instant, views: &[ChannelView]) -> Self {
        Self { at, of: views.iter().map(|view| (view.name.clone(), (view.sent, view.received))).collect() }
    }

    /// Sent and received per second since then; a channel that was not there has begun at 0.
    fn rates(&self, at: Instant, view: &ChannelView) -> (f64, f64) {
        let (sent, received) = self.of.get(&view.name).copied().unwrap_or_default();
        let time = at - self.at;
        (per_second(growth(sent, view.sent), time), per_second(growth(received, view.received), time))
    }
}

/// Tells a segment's figures, and how fast they have grown since `before`; returns where they are.
fn tell(
    observer: &Observer,
    channel: Option<&str>,
    before: Option<&Positions>,
    as_json: bool,
    out: &mut impl Write,
) -> Result<Positions, Failure> {
    let at = Instant::now();
    let (views, memory) = (views_of(observer, channel)?, observer.try_memory()?);
    let participants = observer.try_participants()?.iter().filter(|participant| participant.alive).count();
    let rates = |view: &ChannelView| before.map(|before| before.rates(at, view));
    if as_json {
        let channel = |view: &ChannelView| {
            let mut of_it = of_channel(view);
            if let Some((sent, received)) = rates(view) {
                of_it["sent_per_second"] = sent.into();
                of_it["received_per_second"] = received.into();
            }
            of_it
        };
        let channels: Vec<Value> = views.iter().map(channel).collect();
        say(
            out,
            json!({
                "segment": observer.name(), "id": observer.id().to_string(), "participants": participants,
                "persistent": observer.is_persistent(), "memory": of_memory(&memory), "channels": channels,
            }),
        )?;
    } else {
        writeln!(
            out,
            "{}  {} used of {}, at most {}  {participants} participants  {:.0} % fragmented  {} growths  {} waits for memory",
            observer.name(),
            bytes(memory.used as f64),
            bytes(memory.size as f64),
            bytes(memory.max_size as f64),
            100.0 * memory.fragmentation(),
            memory.growths,
            memory.memory_waits,
        )?;
        for view in &views {
            let rates = rates(view).map_or_else(String::new, |(sent, received)| {
                format!("  {} sent/s  {} received/s", short(sent), short(received))
            });
            writeln!(
                out,
                "  {}  {}  {} of {} wait  {} sent  {} received{rates}",
                view.name,
                word(view.kind),
                view.depth,
                view.capacity,
                view.sent,
                view.received,
            )?;
        }
    }
    Ok(Positions::new(at, &views))
}

pub(crate) fn stats(place: Option<&str>, every: &Every, as_json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let (segment, channel) = place.map_or((None, None), |place| {
        let (segment, channel) = parts_of(place);
        (Some(segment), channel)
    });
    // Those that can be opened now; by what makes them these, whatever their names.
    let segments = || -> Result<Vec<Observer>, Failure> {
        match segment {
            Some(segment) => Ok(vec![Observer::open(segment)?]),
            None => Ok(Segment::list()?.iter().filter_map(|listed| Observer::open(&listed.name).ok()).collect()),
        }
    };
    let mut known = HashMap::new();
    if every.interval.is_some() {
        for observer in segments()? {
            let at = Instant::now();
            // What cannot be read now has no rate at first.
            known.extend(observer.try_channels().ok().map(|views| (observer.id(), Positions::new(at, &views))));
        }
    }
    every.tell(|| {
        let mut found = HashMap::new();
        for observer in segments()? {
            match tell(&observer, channel, known.get(&observer.id()), as_json, out) {
                Ok(positions) => drop(found.insert(observer.id(), positions)),
                // Of one among many `check` tells what is wrong with it.
                Err(Failure::Observe(_)) if segment.is_none() => {}
                Err(failure) => return Err(failure),
            }
        }
        known = found;
        Ok(out.flush()?)
    })
}

/// What is told per second.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Messages,
    Bytes,
}

/// How long the payloads of a channel are.
enum Lengths<'a> {
    All(usize),
    /// Seen by whoever follows it: messages, their bytes.
    Seen(Box<Follower<'a>>, u64, u64),
}

impl Lengths<'_> {
    /// Looks at what has come.
    fn look(&mut self) -> Result<(), ObserveError> {
        if let Self::Seen(follower, messages, bytes) = self {
            let looked = follower.look()?;
            *messages += looked.messages.len() as u64;
            *bytes += looked.messages.iter().map(|message| message.bytes.len() as u64).sum::<u64>();
        }
        Ok(())
    }

    /// The mean length, and of how many messages; `None` if all have it.
    fn mean(&self) -> (Option<f64>, Option<u64>) {
        match self {
            Self::All(length) => (Some(*length as f64), None),
            Self::Seen(_, 0, _) => (None, Some(0)),
            Self::Seen(_, messages, bytes) => (Some(*bytes as f64 / *messages as f64), Some(*messages)),
        }
    }
}

/// The channel; of a routed one its partitions.
fn expand(observer: &Observer, channel: &str) -> Result<Vec<ChannelView>, Failure> {
    let views = views_of(observer, Some(channel))?;
    match views[0].kind {
        ChannelKind::Channel | ChannelKind::Broadcast => Ok(views),
        ChannelKind::Routed => {
            let its = format!("{channel}#");
            Ok(observer.try_channels()?.into_iter().filter(|view| view.name.starts_with(&its)).collect())
        }
        _ => Err(ObserveError::NoMessages { channel: channel.to_owned() }.into()),
    }
}

/// Sent, received, and depth of all of them.
fn sums(views: &[ChannelView]) -> (u64, u64, usize) {
    views.iter().fold((0, 0, 0), |(sent, received, depth), view| {
        (sent.saturating_add(view.sent), received.saturating_add(view.received), depth + view.depth)
    })
}

/// How often lengths are looked at between two lines.
const GLANCES: u32 = 10;

pub(crate) fn rates(
    place: &str,
    unit: Unit,
    every: &Every,
    as_json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let (segment, channel) = channel_of(place)?;
    let observer = Observer::open(segment)?;
    let views = expand(&observer, channel)?;
    let mut lengths = Vec::new();
    if unit == Unit::Bytes {
        for view in &views {
            lengths.push(match view.payload_size {
                Some(size) => Lengths::All(size),
                None => Lengths::Seen(Box::new(observer.follow(&view.name, usize::MAX)?), 0, 0),
            });
            lengths.last_mut().map_or(Ok(()), Lengths::look)?;
        }
    }
    let (mut at, mut before) = (Instant::now(), sums(&expand(&observer, channel)?));
    let interval = every.interval.unwrap_or(SECOND);
    let mut told = 0;
    while every.count.is_none_or(|count| told < count) {
        let until = at + interval;
        for _ in 0..if lengths.is_empty() { 1 } else { GLANCES } {
            let pause = if lengths.is_empty() { interval } else { interval / GLANCES };
            thread::sleep(pause.min(until.saturating_duration_since(Instant::now())));
            lengths.iter_mut().try_for_each(Lengths::look)?;
        }
        let now = Instant::now();
        let sum = sums(&expand(&observer, channel)?);
        let time = now - at;
        let (sent, received) = (per_second(growth(before.0, sum.0), time), per_second(growth(before.1, sum.1), time));
        match unit {
            Unit::Messages if as_json => say(
                out,
                json!({
                    "place": place, "seconds": time.as_secs_f64(), "sent_per_second": sent,
                    "received_per_second": received, "sent": sum.0, "received": sum.1, "depth": sum.2,
                }),
            )?,
            Unit::Messages => {
                writeln!(out, "{} sent/s  {} received/s  {} wait", short(sent), short(received), sum.2)?;
            }
            Unit::Bytes => bandwidth(place, &lengths, (sent, received), as_json, out)?,
        }
        out.flush()?;
        (at, before, told) = (now, sum, told + 1);
    }
    Ok(())
}

fn bandwidth(
    place: &str,
    lengths: &[Lengths<'_>],
    (sent, received): (f64, f64),
    as_json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    // Partitions of one channel have payloads of one kind: their mean is that of all that were seen.
    let (known, seen) = lengths.iter().fold((Vec::new(), None), |(mut known, seen), lengths| {
        let (mean, of) = lengths.mean();
        known.extend(mean.map(|mean| (mean, of.unwrap_or(1) as f64)));
        (known, of.map_or(seen, |of| Some(seen.unwrap_or(0) + of)))
    });
    let weight: f64 = known.iter().map(|(_, weight)| weight).sum();
    let mean = (weight > 0.0).then(|| known.iter().map(|(mean, weight)| mean * weight).sum::<f64>() / weight);
    if as_json {
        return Ok(say(
            out,
            json!({
                "place": place, "bytes_sent_per_second": mean.map(|mean| mean * sent),
                "bytes_received_per_second": mean.map(|mean| mean * received), "mean_bytes": mean,
                "exact": seen.is_none(), "seen": seen, "sent_per_second": sent, "received_per_second": received,
            }),
        )?);
    }
    let by = seen.map_or_else(String::new, |seen| format!(", the mean of {seen} that were seen"));
    match mean {
        Some(mean) => writeln!(
            out,
            "{}/s sent  {}/s received  {} each{by}",
            bytes(mean * sent),
            bytes(mean * received),
            bytes(mean)
        )?,
        None => writeln!(
            out,
            "{} messages/s sent  {} received: none was seen, so their lengths are not known",
            short(sent),
            short(received)
        )?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_has_grown_and_of_another_channel_all_that_it_has() {
        assert_eq!((growth(3, 10), growth(10, 3)), (7, 3));
        assert_eq!((per_second(10, Duration::from_millis(500)), per_second(10, Duration::ZERO)), (20.0, 0.0));
    }
}
