//! What stands there, told by an observer: `list`, `inspect`, `peek`, `tail`.

use std::{
    io::Write,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use waterway::{
    Observer, Segment,
    observer::{ChannelView, ObserveError, Peeked},
};

use crate::say::{Failure, channel_of, parts_of, say, word};

pub(crate) fn list(as_json: bool, out: &mut impl Write) -> Result<(), Failure> {
    for segment in Segment::list()? {
        if as_json {
            say(
                out,
                json!({
                    "name": segment.name, "id": segment.id.to_string(), "size": segment.size,
                    "participants": segment.participants, "layout": segment.version,
                    "persistent": segment.persistent, "path": segment.path.to_string_lossy(), "problem": segment.problem,
                }),
            )?;
        } else {
            let problem = segment.problem.map_or_else(String::new, |problem| format!("  {problem}"));
            writeln!(out, "{}  {} bytes  {} participants{problem}", segment.name, segment.size, segment.participants)?;
        }
    }
    Ok(())
}

pub(crate) fn of_channel(view: &ChannelView) -> Value {
    let groups: Vec<Value> = view
        .groups
        .iter()
        .map(|group| {
            json!({
                "name": group.name, "lag": group.lag, "held": group.held, "missed": group.missed,
                "evicted": group.evicted, "members": group.members,
            })
        })
        .collect();
    json!({
        "name": view.name, "kind": word(view.kind), "payload": view.payload,
        "capacity": view.capacity, "depth": view.depth, "sent": view.sent, "received": view.received,
        "senders": view.senders, "receivers": view.receivers, "parked": view.parked, "reserved": view.reserved,
        "unacknowledged": view.unacknowledged, "bytes": view.bytes, "max_deliveries": view.max_deliveries,
        "persistent": view.persistent, "closed": view.closed, "groups": groups, "problem": view.problem,
    })
}

/// The channels of a segment, or the one of that name.
pub(crate) fn views_of(observer: &Observer, channel: Option<&str>) -> Result<Vec<ChannelView>, Failure> {
    let mut views = observer.try_channels()?;
    if let Some(channel) = channel {
        views.retain(|view| view.name == channel);
        if views.is_empty() {
            return Err(ObserveError::NoChannel { channel: channel.into(), path: observer.path().into() }.into());
        }
    }
    Ok(views)
}

pub(crate) fn inspect(place: &str, as_json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let (segment, channel) = parts_of(place);
    for view in views_of(&Observer::open(segment)?, channel)? {
        if as_json {
            say(out, of_channel(&view))?;
        } else {
            writeln!(
                out,
                "{}  {} of {}  {} of {} wait  {} sent  {} received  {} senders  {} receivers  {} unacknowledged  {} bytes",
                view.name,
                word(view.kind),
                view.payload,
                view.depth,
                view.capacity,
                view.sent,
                view.received,
                view.senders,
                view.receivers,
                view.unacknowledged,
                view.bytes,
            )?;
        }
    }
    Ok(())
}

/// A payload in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn show(peeked: &Peeked, as_json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let text = peeked.bytes.escape_ascii().to_string();
    if as_json {
        say(
            out,
            json!({
                "sequence": peeked.sequence, "delivery_count": peeked.delivery_count,
                "priority": word(peeked.priority),
                "age_ms": peeked.age.map(|age| age.as_millis() as u64), "hex": hex(&peeked.bytes), "text": text,
            }),
        )?;
    } else {
        writeln!(out, "{}  {text}", peeked.sequence)?;
    }
    Ok(())
}

pub(crate) fn peek(place: &str, number: usize, as_json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let (segment, channel) = channel_of(place)?;
    for peeked in Observer::open(segment)?.try_peek(channel, number)? {
        show(&peeked, as_json, out)?;
    }
    Ok(())
}

/// What `tail` was asked for.
pub(crate) struct Tailed {
    pub(crate) last: usize,
    pub(crate) follow: bool,
    pub(crate) once: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) raw: bool,
}

/// The pauses between looks: the shortest while messages come, the longest while none do.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];
/// How often it is asked whether the segment is still there.
const IS_THERE: Duration = Duration::from_millis(500);

pub(crate) fn tail(place: &str, asked: &Tailed, as_json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let (segment, channel) = channel_of(place)?;
    let observer = Observer::open(segment)?;
    let mut follower = observer.follow(channel, asked.last)?;
    let (mut pause, mut heard, mut looked_up) = (PAUSES[0], Instant::now(), Instant::now());
    loop {
        let look = match follower.look() {
            // With its last end it has gone.
            Err(ObserveError::NoChannel { .. }) => {
                return Err(Failure::Closed(format!("the channel {channel:?} has gone")));
            }
            look => look?,
        };
        if look.missed > 0 {
            // Beside the payloads, not among them.
            let (one, missed) = (segment, look.missed);
            if as_json {
                say(out, json!({ "missed": missed }))?;
            } else {
                let _ = writeln!(std::io::stderr(), "{one}/{channel}: {missed} missed: others took them first");
            }
        }
        for peeked in &look.messages {
            if asked.raw && !as_json {
                out.write_all(&peeked.bytes)?;
                out.write_all(b"\n")?;
            } else {
                show(peeked, as_json, out)?;
            }
            if asked.once {
                return Ok(out.flush()?);
            }
        }
        out.flush()?;
        if !asked.follow && !asked.once {
            return Ok(());
        }
        if look.messages.is_empty() && look.missed == 0 {
            if asked.timeout.is_some_and(|timeout| heard.elapsed() >= timeout) {
                return Err(Failure::Timeout(format!("nothing has come to {place} for that long")));
            }
            if looked_up.elapsed() > IS_THERE {
                looked_up = Instant::now();
                if Observer::open(segment).is_ok_and(|now| now.id() != observer.id()) || !observer.path().exists() {
                    return Err(Failure::Closed(format!("the segment {segment} has gone")));
                }
            }
            pause = (pause * 2).min(PAUSES[1]);
        } else {
            (pause, heard) = (PAUSES[0], Instant::now());
        }
        thread::sleep(pause);
    }
}
