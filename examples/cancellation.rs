//! A worker that is told to stop, and stops between two messages; another one goes on with what is left.
//!
//! `cargo run --release --example cancellation`: another process sends jobs. The first worker stops as soon as its
//! `CancellationToken` says so, after at least a hundred of them; the second one starts then. Together they must have done
//! every job exactly once.

use std::{
    collections::BTreeSet,
    error::Error,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use waterway::{Receiver, Segment};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const JOBS: u64 = 5000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    if let Ok(name) = std::env::var("WATERWAY_EXAMPLE_JOBS") {
        // The other process.
        let jobs = Segment::open(&name)?.channel::<u64>("jobs").capacity(64).sender()?;
        for job in 0..JOBS {
            jobs.send(job).await?;
        }
        return Ok(());
    }
    tokio::time::timeout(Duration::from_secs(60), stop_and_go_on()).await?
}

async fn stop_and_go_on() -> Result<()> {
    let name = format!("jobs-{}", std::process::id());
    let segment = Segment::create(&name)?;
    // This one keeps the channel open between the two workers.
    let jobs = segment.channel::<u64>("jobs").capacity(64).receiver()?;
    let sender = Command::new(std::env::current_exe()?).env("WATERWAY_EXAMPLE_JOBS", &name).spawn()?;
    let mut sender = Running(sender);

    let stop = CancellationToken::new();
    let count = Arc::new(AtomicUsize::new(0));
    let first = tokio::spawn(work(jobs.clone(), stop.clone(), Arc::clone(&count)));
    while count.load(Ordering::Relaxed) < 100 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    stop.cancel();
    let first = first.await?;
    let second = work(jobs, CancellationToken::new(), count).await;

    if !sender.0.wait()?.success() {
        return Err("the sender has failed".into());
    }
    println!("{} jobs were done before the stop, {} after it", first.len(), second.len());
    let all: BTreeSet<u64> = first.iter().chain(&second).copied().collect();
    if first.len() < 100 || second.is_empty() {
        return Err("the stop came too early or too late to show anything".into());
    }
    if first.len() + second.len() != JOBS as usize || !all.into_iter().eq(0..JOBS) {
        return Err("a job was lost, or done twice".into());
    }
    Ok(())
}

/// Does jobs until it is told to stop, or there will be no more.
async fn work(jobs: Receiver<u64>, stop: CancellationToken, count: Arc<AtomicUsize>) -> Vec<u64> {
    let mut done = Vec::new();
    loop {
        // `recv` takes a message only when it is done, so dropping it here leaves the next job in the channel.
        let job = tokio::select! {
            biased;
            () = stop.cancelled() => return done,
            job = jobs.recv() => job,
        };
        let Some(job) = job else { return done };
        // Once taken, a job is finished: the token is asked again only after it.
        if *job % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        done.push(*job);
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// A process that we have started: it does not outlive us.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
