//! The command line of waterway: what stands in segments, told by an observer, which is not in
//! them.
//!
//! Exit status: 0 ok, 1 failed, 2 usage, 3 not found, 5 mismatch, 7 unhealthy. With `--json` it
//! prints one object per line, with a version.

use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
};

use clap::{CommandFactory, Parser, Subcommand};
use serde_json::{Value, json};
use waterway::{
    Observer, OpenError, Segment,
    observer::{ChannelView, ObserveError},
};

/// The version of what `--json` says; raised when a field changes its meaning or goes.
const VERSION: u32 = 1;

#[derive(Parser)]
#[command(name = "waterway", version, about = "Look into segments of shared memory without being in them")]
struct Arguments {
    /// One JSON object per line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The segments of $WATERWAY_DIR, or of the default directory
    List,
    /// The channels of a segment, or one of them
    Inspect {
        /// SEGMENT or SEGMENT/CHANNEL
        place: String,
    },
    /// Messages that wait, without taking them
    Peek {
        /// SEGMENT/CHANNEL
        place: String,
        /// How many at most
        #[arg(short, long, default_value_t = 10)]
        number: usize,
    },
    /// Completions for a shell
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Observe(#[from] ObserveError),
    #[error("{0}")]
    Usage(&'static str),
    #[error(transparent)]
    Output(#[from] io::Error),
}

impl Failure {
    fn status(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Open(OpenError::InvalidName { .. }) => 2,
            Self::Open(OpenError::NotFound { .. }) | Self::Observe(ObserveError::NoChannel { .. }) => 3,
            Self::Open(OpenError::WrongVersion { .. } | OpenError::Incompatible { .. })
            | Self::Observe(ObserveError::NoMessages { .. }) => 5,
            Self::Open(OpenError::Damaged { .. } | OpenError::Truncated { .. })
            | Self::Observe(ObserveError::Damaged { .. } | ObserveError::Truncated { .. }) => 7,
            _ => 1,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the pipe has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "waterway: {failure}");
            ExitCode::from(failure.status())
        }
    }
}

fn run(arguments: &Arguments, out: &mut impl Write) -> Result<(), Failure> {
    match &arguments.command {
        Command::List => list(arguments.json, out)?,
        Command::Inspect { place } => inspect(place, arguments.json, out)?,
        Command::Peek { place, number } => peek(place, *number, arguments.json, out)?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "waterway", &mut script);
            out.write_all(&script)?;
        }
    }
    Ok(out.flush()?)
}

/// The name of a variant, in lower case.
fn word(variant: impl fmt::Debug) -> String {
    format!("{variant:?}").to_lowercase()
}

/// A line of JSON, with the version.
fn say(out: &mut impl Write, mut what: Value) -> io::Result<()> {
    what["version"] = VERSION.into();
    writeln!(out, "{what}")
}

fn list(as_json: bool, out: &mut impl Write) -> Result<(), Failure> {
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

fn of_channel(view: &ChannelView) -> Value {
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

fn inspect(place: &str, as_json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let (segment, channel) = place.split_once('/').map_or((place, None), |(segment, channel)| (segment, Some(channel)));
    let observer = Observer::open(segment)?;
    let mut views = observer.try_channels()?;
    if let Some(channel) = channel {
        views.retain(|view| view.name == channel);
        if views.is_empty() {
            return Err(ObserveError::NoChannel { channel: channel.into(), path: observer.path().into() }.into());
        }
    }
    for view in views {
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

fn peek(place: &str, number: usize, as_json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let usage = || Failure::Usage("a channel is SEGMENT/CHANNEL");
    let (segment, channel) = place.split_once('/').ok_or_else(usage)?;
    for peeked in Observer::open(segment)?.try_peek(channel, number)? {
        let text = peeked.bytes.escape_ascii().to_string();
        if as_json {
            let bytes: String = peeked.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            say(
                out,
                json!({
                    "sequence": peeked.sequence, "delivery_count": peeked.delivery_count,
                    "priority": word(peeked.priority),
                    "age_ms": peeked.age.map(|age| age.as_millis() as u64), "hex": bytes, "text": text,
                }),
            )?;
        } else {
            writeln!(out, "{}  {text}", peeked.sequence)?;
        }
    }
    Ok(())
}
