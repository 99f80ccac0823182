//! The command line of waterway: what stands in segments, told by an observer, which is not in them; what goes through channels,
//! by an end of them; and who tidies up.
//!
//! Exit status: 0 ok, 1 failed, 2 usage, 3 not found, 4 timeout, 5 mismatch, 6 closed, 7 unhealthy. With `--json` it prints one
//! object per line, with a version.

mod care;
mod doctor;
mod looks;
mod metrics;
mod pipes;
mod rates;
mod say;
mod stop;
mod top;

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use clap::{CommandFactory, Parser, Subcommand};

use crate::{
    care::{Care, check, reap, remove, sweep},
    looks::{Tailed, inspect, list, peek, tail},
    pipes::{Ack, Framing, Making, Receiving, recv, send},
    rates::{Every, Unit, rates, stats},
    say::{Failure, time},
};

#[derive(Parser)]
#[command(name = "waterway", version, about = "Look into segments of shared memory, and care for them")]
struct Arguments {
    /// One JSON object per line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// How often something is told.
#[derive(clap::Args)]
struct Often {
    /// From one look to the next: `2`, `500ms`, `1m`
    #[arg(short, long, value_parser = time)]
    interval: Option<Duration>,
    /// How often; without end unless told otherwise
    #[arg(short, long)]
    count: Option<u64>,
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
    /// The last messages that wait, and those that come, without taking them
    Tail {
        /// SEGMENT/CHANNEL
        place: String,
        /// How many of those that wait
        #[arg(short, long, default_value_t = 10)]
        number: usize,
        /// Go on with those that come
        #[arg(short, long)]
        follow: bool,
        /// End after the first message
        #[arg(long)]
        once: bool,
        /// End, with status 4, when nothing has come for so long: `2`, `500ms`, `1m`
        #[arg(short, long, value_parser = time)]
        timeout: Option<Duration>,
        /// Payloads alone, as they are, a line each
        #[arg(short, long)]
        raw: bool,
    },
    /// Figures of a segment and its channels, or of all segments; with an interval, rates
    Stats {
        /// SEGMENT or SEGMENT/CHANNEL; all segments unless given
        place: Option<String>,
        #[command(flatten)]
        often: Often,
        /// Serve the figures of all segments there, as OpenMetrics at /metrics: `:9184` is of the loopback
        #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["place", "interval", "count"])]
        prometheus: Option<String>,
    },
    /// Messages per second of a channel, by its positions
    Hz {
        /// SEGMENT/CHANNEL
        place: String,
        #[command(flatten)]
        often: Often,
    },
    /// Bytes per second of a channel, by its positions
    Bw {
        /// SEGMENT/CHANNEL
        place: String,
        #[command(flatten)]
        often: Often,
    },
    /// What goes on in all segments, live; `?` tells the keys
    Top {
        /// From one look to the next: `2`, `500ms`, `1m`
        #[arg(short, long, value_parser = time, default_value = "500ms")]
        interval: Duration,
        /// Show only what has this text in SEGMENT/CHANNEL
        #[arg(short, long, default_value = "")]
        filter: String,
    },
    /// Send what comes from standard input, a message per line
    Send {
        /// SEGMENT/CHANNEL, of bytes
        place: String,
        #[command(flatten)]
        framing: Framing,
        #[command(flatten)]
        making: Making,
        /// End, with status 4, when there is no room for so long: `2`, `500ms`, `1m`
        #[arg(short, long, value_parser = time)]
        timeout: Option<Duration>,
    },
    /// Receive, and print to standard output, a message per line
    Recv {
        /// SEGMENT/CHANNEL, of bytes
        place: String,
        #[command(flatten)]
        framing: Framing,
        #[command(flatten)]
        making: Making,
        /// How many; until the channel is closed unless told otherwise
        #[arg(short, long)]
        number: Option<u64>,
        /// When a message is acknowledged
        #[arg(long, value_enum, default_value_t = Ack::AfterPrint)]
        ack: Ack,
        /// End, with status 4, when nothing comes for so long: `2`, `500ms`, `1m`
        #[arg(short, long, value_parser = time)]
        timeout: Option<Duration>,
    },
    /// Whether a segment is well, or all are; status 7 if not
    Check {
        /// SEGMENT; all of them unless given
        segment: Option<String>,
        /// One line and the status of a Nagios plugin: 0 ok, 1 warning, 2 critical, 3 unknown
        #[arg(long)]
        nagios: bool,
        /// Warn of channels and memory that are fuller, in per cent
        #[arg(long, value_name = "PERCENT", default_value_t = 80)]
        warning: u8,
        /// Fail for those that are
        #[arg(long, value_name = "PERCENT", default_value_t = 95)]
        critical: u8,
        /// Only look, and be at no time in the segment: does not check its memory
        #[arg(long)]
        look: bool,
    },
    /// Give back what participants held that have died
    Reap { segment: String },
    /// Remove the segments that nobody lives in and that are not to stay
    Sweep,
    /// Remove a segment
    Remove {
        segment: String,
        /// Even if somebody lives there, who goes on with what they have
        #[arg(long)]
        force: bool,
    },
    /// What this machine lacks for segments, each finding with its remedy; status 7 if they cannot be used
    Doctor,
    /// Completions for a shell
    Completions { shell: clap_complete::Shell },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments, &mut io::stdout().lock()) {
        Ok(status) => status,
        // The reader of the pipe has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "waterway: {failure}");
            ExitCode::from(failure.status())
        }
    }
}

fn run(arguments: &Arguments, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let as_json = arguments.json;
    match &arguments.command {
        Command::List => list(as_json, out)?,
        Command::Inspect { place } => inspect(place, as_json, out)?,
        Command::Peek { place, number } => peek(place, *number, as_json, out)?,
        Command::Tail { place, number, follow, once, timeout, raw } => {
            let tailed = Tailed { last: *number, follow: *follow, once: *once, timeout: *timeout, raw: *raw };
            tail(place, &tailed, as_json, out)?;
        }
        Command::Stats { prometheus: Some(address), .. } => metrics::serve(address, out)?,
        Command::Stats { place, often, prometheus: None } => {
            stats(place.as_deref(), &Every::of(often, None), as_json, out)?;
        }
        Command::Hz { place, often } => {
            rates(place, Unit::Messages, &Every::of(often, Some(rates::SECOND)), as_json, out)?;
        }
        Command::Bw { place, often } => {
            rates(place, Unit::Bytes, &Every::of(often, Some(rates::SECOND)), as_json, out)?;
        }
        Command::Top { interval, filter } => top::top(*interval, filter)?,
        Command::Send { place, framing, making, timeout } => {
            return send(place, *framing, making, *timeout, as_json, out);
        }
        Command::Recv { place, framing, making, number, ack, timeout } => {
            let receiving = Receiving { framing: *framing, ack: *ack, number: *number, timeout: *timeout };
            return recv(place, making, &receiving, as_json);
        }
        Command::Check { segment, nagios, warning, critical, look } => {
            let care = Care { warning: *warning, critical: *critical, only_look: *look };
            return check(segment.as_deref(), &care, *nagios, as_json, out);
        }
        Command::Reap { segment } => reap(segment, as_json, out)?,
        Command::Sweep => sweep(as_json, out)?,
        Command::Remove { segment, force } => remove(segment, *force, as_json, out)?,
        Command::Doctor => return doctor::doctor(as_json, out),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "waterway", &mut script);
            out.write_all(&script)?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
