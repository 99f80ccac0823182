//! Processes that are killed, stopped and started again at random, and one that survives and verifies.
//!
//! ```text
//! cargo run --release --example chaos -- --kills 1000 [--seconds 600] [--seed 7] [--observers 20]
//! ```
//!
//! ```text
//! producers ──work, of three sizes──► consumers ──receipts──► survivor
//! producers ──task, of three sizes, at least once──► consumers ──receipts──► survivor ◄──dead letters
//! producers ──direct, capacity 8 and 1──────────────────────► survivor
//! producers ──calls────► consumers, which answer         ◄──calls── survivor
//! all of them ──messages that go round, and channels that nobody keeps open──► all of them
//! producers ──a broadcast, a channel routed by key, one with policies──► consumers ──what they do──► survivor
//! all of them: semaphores, notifications, a watch                   survivor
//! each of them ──life, one channel per process──────────────► survivor
//! producers that end ──how many they have sent──────────────► survivor
//! ```
//!
//! Messages are stamped with their sender, their channel and their number, and filled with what follows from these. A
//! consumer verifies a message, holds it for a while together with a few others, and sends a receipt before it lets go. The
//! survivor demands:
//!
//! * *direct*: every message whole, and from every sender 0, 1, 2, … without a gap, whatever became of the sender;
//! * *work*: no message twice; in the order of their numbers, as far as one consumer got them from one sender; and missing
//!   in between only as many as consumers were killed that could hold so many;
//! * *task*, at least once: no message missing in between, with a receipt or as a dead letter; a receipt for what had one before
//!   only if its delivery count is higher than that one's; one in 50 is given back by every consumer and must end as a dead
//!   letter, once;
//! * of a producer that was asked to end, and did: all that it says it has sent, up to the last one, in the same way;
//! * *life*: its `recv` ends with `None` soon after the process was killed;
//! * *patterns* (services, semaphores, notifications, a watch, a broadcast, a routed channel, one with policies, what is forwarded again and again): what `patterns.rs` lists, and the files of each say;
//! * every channel and every pattern moves on within a bound, whoever is killed or stopped;
//! * at the end: nobody is left, no channel, no block; `check()` is clean, and all memory is free.
//!
//! With `--observers` as many processes look at everything in a loop meanwhile, and all of that must hold all the same.
//!
//! The exit status is 1 if anything is not so, and the seed is printed. A seed repeats what is done to whom, not the
//! moments at which it hits.

mod broadcast;
mod held;
mod lanes;
mod notify;
mod observers;
mod patterns;
mod policies;
mod rounds;
mod routing;
mod semaphore;
mod service;
mod stamp;
mod survivor;
mod watch;

use std::{
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use futures::future::try_join_all;
use waterway::Segment;

use crate::{
    lanes::{LANES, WORK, consume, produce},
    observers::observe,
    patterns::{PATTERNS, Stage},
    survivor::survive,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SIZE: usize = 8 << 20;
const PRODUCERS: usize = 3;
const CONSUMERS: usize = 3;
/// How long a channel may stand still, or a death go unnoticed, on a machine that has other things to do.
const BOUND: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let role = std::env::var("WATERWAY_CHAOS_ROLE").unwrap_or_default();
    let done = match role.split_once(' ') {
        Some(("observer", _)) => observe(),
        Some((role, id)) => play(role, id.parse().expect("a number")),
        None => survive(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("chaos {role}: {error}");
        ExitCode::FAILURE
    })
}

fn segment(place: &Path) -> Result<Segment> {
    Ok(Segment::options().dir(place).size(SIZE).participants(24).channels(128).open_or_create("chaos")?)
}

fn play(role: &str, id: u32) -> Result<ExitCode> {
    // SAFETY: a plain system call: we do not outlive the survivor.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let place = PathBuf::from(std::env::var_os("WATERWAY_CHAOS_PLACE").ok_or("no place")?);
    let seed = std::env::var("WATERWAY_CHAOS_SEED")?.parse()?;
    runtime()?.block_on(async {
        let segment = segment(&place)?;
        let life = segment.bytes(&format!("life-{id}")).sender()?;
        life.send(b"here").await.map_err(|error| error.to_string())?;
        let is_producer = role == "producer";
        let stage = Stage { segment: segment.clone(), id, is_producer, seed, place };
        let patterns = async {
            // Until it is asked to end.
            tokio::select! {
                done = try_join_all(PATTERNS.iter().map(|pattern| (pattern.play)(stage.clone()))) => done.map(drop),
                () = life.closed() => Ok(()),
            }
        };
        if is_producer {
            let lanes = try_join_all((0..LANES.len()).map(|lane| produce(&segment, id, lane, seed, &life)));
            futures::try_join!(lanes, patterns)?;
        } else {
            let lanes = try_join_all((0..WORK).map(|lane| consume(&segment, id, lane, seed)));
            futures::try_join!(lanes, patterns)?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

struct Arguments {
    kills: u64,
    seconds: Option<u64>,
    seed: u64,
    /// Processes that look at everything meanwhile, and are not in the segment.
    observers: u64,
}

impl Arguments {
    fn read() -> Result<Self> {
        let mut arguments = Self { kills: 200, seconds: None, seed: u64::from(std::process::id()), observers: 0 };
        let mut rest = std::env::args().skip(1);
        while let Some(name) = rest.next() {
            let value = rest.next().ok_or_else(|| format!("{name} needs a number"))?.parse()?;
            match name.as_str() {
                "--kills" => arguments.kills = value,
                "--seconds" => arguments.seconds = Some(value),
                "--seed" => arguments.seed = value,
                "--observers" => arguments.observers = value,
                _ => return Err(format!("{name}? There are --kills N, --seconds S, --seed X and --observers N").into()),
            }
        }
        Ok(arguments)
    }
}
