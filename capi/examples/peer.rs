//! The Rust side of the tests with two languages: `peer echo C-PROGRAM`, `peer kills C-PROGRAM`. See `test.sh`.

use std::{
    collections::HashMap,
    env,
    error::Error,
    process::{Child, Command},
    thread,
    time::Duration,
};

use waterway::{ChannelOptions, Delivery, Segment, SegmentOptions};

type Outcome = Result<(), Box<dyn Error>>;

/// The longest that anybody waits for anybody.
const PATIENCE: Duration = Duration::from_secs(100);

/// A child of ours, which does not outlive us.
struct Ours(Child);

impl Ours {
    fn start(program: &str, segment: &str) -> Result<Self, Box<dyn Error>> {
        Ok(Self(Command::new(program).arg(segment).spawn()?))
    }

    fn kill(&mut self) -> Outcome {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    fn finish(mut self) -> Outcome {
        let status = self.0.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the C program ended with {status}").into()) }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn segment(name: &str) -> Result<Segment, Box<dyn Error>> {
    // One that the processes fill and empty many times.
    Ok(SegmentOptions::default().size(8 << 20).create(name)?)
}

/// Nobody has left anything.
fn check(segment: &Segment) -> Outcome {
    segment.bury_the_dead();
    let report = segment.check();
    if !report.is_clean() {
        return Err(format!("{:?}", report.problems).into());
    }
    match segment.stats().held_bytes() {
        0 => Ok(()),
        held => Err(format!("{held} bytes are held by nobody").into()),
    }
}

/// Bytes of every length come back as they were.
fn echo(program: &str) -> Outcome {
    let segment = segment("echo")?;
    let there = segment.bytes("there").capacity(8).sender()?;
    let back = segment.bytes("back").receiver()?;
    let child = Ours::start(program, "echo")?;
    for round in 0..3_000_usize {
        let len = if round % 100 == 99 { 100_000 + round } else { round % 300 };
        let sent: Vec<u8> = (0..len).map(|at| (at * 7 + round) as u8).collect();
        there.blocking_send_timeout(&sent, PATIENCE).map_err(|error| error.to_string())?;
        let received = back.blocking_recv_timeout(PATIENCE)?;
        if *received != sent[..] {
            return Err(format!("{len} bytes came back as {} others", received.len()).into());
        }
    }
    drop(there);
    if back.blocking_recv_timeout(PATIENCE).is_ok() {
        return Err("a message came that nobody had sent".into());
    }
    child.finish()?;
    drop(back);
    check(&segment)
}

const WORKERS: usize = 3;
const KILLS: usize = 40;
const PER_KILL: u64 = 200;
/// The job of whoever is to end.
const STOP: u64 = u64::MAX;

fn jobs(segment: &Segment) -> ChannelOptions<[u8]> {
    segment.bytes("jobs").capacity(64).delivery(Delivery::AtLeastOnce { max_deliveries: 1000 })
}

/// Every job is done, though workers in C are killed all the time.
fn kills(program: &str) -> Outcome {
    let segment = segment("kills")?;
    let sender = jobs(&segment).sender()?;
    // The last ends must not go with a worker.
    let keepers = (jobs(&segment).receiver()?, segment.bytes("done").sender()?);
    let done = segment.bytes("done").receiver()?;
    let mut workers: Vec<_> = (0..WORKERS).map(|_| Ours::start(program, "kills")).collect::<Result<_, _>>()?;
    let total = KILLS as u64 * PER_KILL;

    let counting = thread::spawn(move || {
        let mut counts = HashMap::<u64, u32>::new();
        while (counts.len() as u64) < total {
            let message = done
                .blocking_recv_timeout(PATIENCE)
                .map_err(|error| format!("{} of {total} jobs: {error}", counts.len()))?;
            let job = u64::from_ne_bytes((*message).try_into().map_err(|_| "what is done has another length")?);
            if job >= total {
                return Err(format!("job {job} was done, and never sent"));
            }
            *counts.entry(job).or_default() += 1;
        }
        Ok(counts)
    });
    let mut random = 88_172_645_463_325_252_u64;
    for kill in 0..KILLS {
        for job in 0..PER_KILL {
            sender.blocking_send_timeout((kill as u64 * PER_KILL + job).to_ne_bytes(), PATIENCE)?;
        }
        // At whatever moment.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        thread::sleep(Duration::from_micros(random % 3_000));
        let victim = &mut workers[kill % WORKERS];
        victim.kill()?;
        *victim = Ours::start(program, "kills")?;
    }
    let counts = counting.join().map_err(|_| "the counting thread panicked")??;
    // A worker that was just started may come only now.
    for _ in 0..WORKERS {
        sender.blocking_send_timeout(STOP.to_ne_bytes(), PATIENCE)?;
    }
    workers.into_iter().try_for_each(Ours::finish)?;
    drop((sender, keepers));
    let again = counts.values().filter(|count| **count > 1).count();
    println!("{total} jobs done beside {KILLS} kills, {again} of them more than once");
    check(&segment)
}

fn main() -> Outcome {
    let arguments: Vec<String> = env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "echo", program] => echo(program),
        [_, "kills", program] => kills(program),
        _ => Err("usage: peer echo|kills C-PROGRAM".into()),
    }
}
