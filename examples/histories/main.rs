//! Random programs over the whole face: what is played is drawn, and what came of it is judged.
//!
//! ```text
//! cargo run --release --example histories -- --seconds 120 [--seed S [--same]] [--only KIND] [--world WORLD] [--failures N]
//! [--events] [--players N]
//! ```
//!
//! A *history* is a program that was played once. The program follows from its seed: what there is (channels of three types, routed
//! channels, broadcasts, semaphores, watches, notifications, services; nearly all of them so small that they wrap and are full), how
//! many actors there are, and what each of them does with what, one after the other: open, clone, send, receive, poll and drop,
//! reserve, forward, acknowledge, give back, close, leave, come again. Nothing is played in a fixed order, and nothing is kept open
//! for the others: the last receiver goes while a sender sends, and its place in the directory is another channel's next.
//!
//! The actors are threads of one participant, threads of a participant each, or processes, of which some are killed or stopped at
//! any time; on one core in half of all programs, where whoever is woken comes between. The schedule is the kernel's: the same seed
//! gives the same program, not the same history. `--same` plays it again and again.
//!
//! Each actor writes down when what it did began and was over, and what came of it, into memory that survives it. From that the
//! judges say what must be so in every order that these times allow:
//!
//! * what was sent (`Ok`) while there was a receiver all the time until it was received is received, once, whole, in the order of its
//!   sender; or again, if it was given back, and says so; or is lost with who was killed with it, at most once;
//! * whoever hears `Empty`, `Full`, `NoPermits`, `Closed` or the end hears the truth; those who try at the same time and fail are no
//!   excuse for each other;
//! * whoever waits is woken: when nobody does anything any more, nobody waits beside what it waits for;
//! * a group of a broadcast misses nothing, or is told of all that it missed;
//! * nobody has a permit too many; nobody sees an older value than there surely was; an answer is that of its question;
//! * in the end there is no channel, no block, no participant, and `check()` is clean.
//!
//! Several players play at the same time, each a program of its own in segments of its own: they disturb each other.
//!
//! The exit status is 1 if anything is not so; what is wrong is printed with the seed and the program.

mod actor;
mod broadcast;
mod channel;
mod judge;
mod log;
mod notify;
mod program;
mod routed;
mod semaphore;
mod service;
mod watch;
mod worlds;

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    program::{KINDS, Kind, Program, WORLDS, World},
    worlds::Ground,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// For how long one world is played before the next.
const TURN: Duration = Duration::from_millis(500);

#[derive(Clone)]
struct Arguments {
    seconds: u64,
    seed: u64,
    same: bool,
    only: Option<Kind>,
    world: Option<World>,
    /// It ends after so many.
    failures: usize,
    /// Prints all that was done in a history that fails.
    events: bool,
    players: usize,
}

impl Arguments {
    fn read() -> Result<Self> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let seed = now.as_nanos() as u64 >> 10 & 0xffff_ffff;
        let mut arguments =
            Self { seconds: 20, seed, same: false, only: None, world: None, failures: 3, events: false, players: 8 };
        let mut rest = std::env::args().skip(1);
        while let Some(name) = rest.next() {
            if name == "--same" {
                arguments.same = true;
                continue;
            }
            if name == "--events" {
                arguments.events = true;
                continue;
            }
            let value = rest.next().ok_or_else(|| format!("{name} of what?"))?;
            match name.as_str() {
                "--seconds" => arguments.seconds = value.parse()?,
                "--seed" => arguments.seed = value.parse()?,
                "--players" => arguments.players = value.parse()?,
                "--failures" => arguments.failures = value.parse()?,
                "--only" => arguments.only = Some(named(&KINDS, &value)?),
                "--world" => arguments.world = Some(named(&WORLDS, &value)?),
                _ => return Err(format!("{name}? See the first lines of examples/histories/main.rs").into()),
            }
        }
        Ok(arguments)
    }
}

fn named<T: Copy>(all: &[(&str, T)], name: &str) -> Result<T> {
    let found = all.iter().find(|(other, _)| *other == name).map(|(_, value)| *value);
    found.ok_or_else(|| format!("{name}? There are {:?}", all.iter().map(|(name, _)| *name).collect::<Vec<_>>()).into())
}

fn main() -> ExitCode {
    let done = match worlds::role() {
        Some(role) => worlds::play(&role),
        None => run(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("histories: {error}");
        ExitCode::FAILURE
    })
}

/// What all players have done.
#[derive(Default)]
struct Tally {
    failures: usize,
    /// By world: histories, and acts in them.
    played: BTreeMap<String, (u64, u64)>,
}

fn run() -> Result<ExitCode> {
    let arguments = Arguments::read()?;
    println!("seed {}", arguments.seed);
    let started = Instant::now();
    let (tally, seed) = (Mutex::new(Tally::default()), AtomicU64::new(arguments.seed));
    let done: std::result::Result<Vec<()>, String> = thread::scope(|scope| {
        let (arguments, tally, seed) = (&arguments, &tally, &seed);
        let players: Vec<_> = (0..arguments.players)
            .map(|player| {
                scope.spawn(move || play(arguments, player, started, seed, tally).map_err(|error| error.to_string()))
            })
            .collect();
        players.into_iter().map(|player| player.join().unwrap_or_else(|_| Err("a player panicked".into()))).collect()
    });
    done?;
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (world, (histories, acts)) in tally.played {
        println!("{world}: {histories} histories, {acts} acts");
    }
    println!("{} failures in {:.1} s", tally.failures, started.elapsed().as_secs_f64());
    Ok(if tally.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn play(arguments: &Arguments, player: usize, started: Instant, seed: &AtomicU64, tally: &Mutex<Tally>) -> Result<()> {
    let until = started + Duration::from_secs(arguments.seconds);
    let worlds: Vec<World> = WORLDS.iter().map(|(_, world)| *world).collect();
    let worlds = arguments.world.map_or(worlds, |world| vec![world]);
    let mut grounds = worlds.iter().map(|world| Ground::new(*world, player)).collect::<Result<Vec<_>>>()?;
    let count = grounds.len();
    // They begin with different worlds.
    for turn in player.. {
        let ground = &mut grounds[turn % count];
        let turn = (Instant::now() + TURN).min(until);
        while Instant::now() < turn {
            let seed = if arguments.same { arguments.seed } else { seed.fetch_add(1, Relaxed) };
            let program = Program::new(seed, ground.world, arguments.only);
            let wrong = ground.history(&program, arguments.only)?;
            if !wrong.is_empty() {
                let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                tally.failures += 1;
                say(&program, &wrong, started, arguments);
                if arguments.events {
                    ground.events().iter().for_each(|event| println!("    {event:?}"));
                }
            }
            if tally.lock().unwrap_or_else(PoisonError::into_inner).failures >= arguments.failures {
                break;
            }
        }
        let failures = tally.lock().unwrap_or_else(PoisonError::into_inner).failures;
        if Instant::now() >= until || failures >= arguments.failures {
            break;
        }
    }
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    for ground in &grounds {
        let (histories, acts) = tally.played.entry(format!("{:?}", ground.world)).or_default();
        *histories += ground.histories;
        *acts += ground.acts;
    }
    Ok(())
}

/// What was wrong, with what is needed to see it again.
fn say(program: &Program, wrong: &[String], started: Instant, arguments: &Arguments) {
    let world = WORLDS.iter().find(|(_, world)| *world == program.world).map_or("", |(name, _)| name);
    let only = KINDS.iter().find(|(_, kind)| Some(*kind) == arguments.only);
    let only = only.map(|(name, _)| format!(" --only {name}")).unwrap_or_default();
    println!(
        "\nFAILED after {:.1} s: --seed {} --same --world {world}{only}",
        started.elapsed().as_secs_f64(),
        program.seed
    );
    println!("  pinned: {}, {:?}", program.is_pinned, program.harm);
    program.objects.iter().for_each(|object| println!("  {object:?}"));
    wrong.iter().take(6).for_each(|what| println!("  {what}"));
    if wrong.len() > 6 {
        println!("  and {} more", wrong.len() - 6);
    }
    if program.actors.iter().all(|ops| ops.len() < 70) {
        program.actors.iter().enumerate().for_each(|(actor, ops)| println!("  actor {actor}: {ops:?}"));
    }
}
