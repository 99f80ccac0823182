//! A semaphore, a watch and a notify at work between processes.
//!
//! ```sh
//! cargo run --release --example patterns
//! ```
//!
//! This process starts four others. The semaphore lets two of them work at a time; the watch tells them how, and is
//! changed while they do; with the notify they tell this process about each piece of work. One of them is killed with a
//! permit in its hands, which comes back.

use std::{
    error::Error,
    process::{Child, Command},
    time::Duration,
};

use waterway::Segment;

/// How the workers work.
#[waterway::plain]
#[derive(Clone, Copy, Debug)]
struct Settings {
    round: u64,
    pause_micros: u64,
}

const SEGMENT: &str = "patterns";
const WORKERS: usize = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match std::env::args().nth(1) {
        None => runtime.block_on(direct()),
        Some(role) => runtime.block_on(work(role == "greedy")),
    }
}

/// Waits for each round of settings, and works according to them.
async fn work(is_greedy: bool) -> Result<(), Box<dyn Error>> {
    let segment = Segment::open(SEGMENT)?;
    let jobs = segment.semaphore("jobs").open()?;
    let done = segment.notify("done")?;
    let mut settings = segment.watch::<Settings>("settings").receiver()?;
    settings.mark_changed();
    // Until the sender has gone.
    while settings.changed().await.is_ok() {
        let settings = settings.borrow_and_update();
        if settings.round == 0 {
            continue;
        }
        let permit = jobs.acquire().await?;
        if is_greedy {
            // Keeps the permit until it is killed.
            done.notify_one();
            std::mem::forget(permit);
            return std::future::pending().await;
        }
        tokio::time::sleep(Duration::from_micros(settings.pause_micros)).await;
        drop(permit);
        done.notify_one();
    }
    Ok(())
}

/// Ends what it started, however this process ends.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn direct() -> Result<(), Box<dyn Error>> {
    let segment = Segment::open_or_create(SEGMENT)?;
    let jobs = segment.semaphore("jobs").permits(2).open()?;
    let done = segment.notify("done")?;
    let settings = segment.watch::<Settings>("settings").sender()?;
    let start = |role| Command::new(std::env::current_exe()?).arg(role).spawn().map(Worker);

    let mut greedy = start("greedy")?;
    settings.send_replace(Settings { round: 1, pause_micros: 500 })?;
    done.notified().await;
    println!("a greedy worker has a permit: {} of {} are free", jobs.available_permits(), jobs.max_permits());
    greedy.0.kill()?;
    // It comes back with the death, not with a timeout: both can be had.
    drop(jobs.acquire_many(2).await?);
    println!("it was killed, and its permit came back: {} are free", jobs.available_permits());

    let workers = (0..WORKERS).map(|_| start("worker")).collect::<Result<Vec<_>, _>>()?;
    for round in 1..=5 {
        settings.send_modify(|settings| {
            settings.round = round;
            settings.pause_micros /= 2;
        })?;
        // Each change is seen by somebody; who is slow sees the last one only.
        done.notified().await;
        println!("round {round}: somebody has worked with {:?}", *settings.borrow());
    }
    drop(settings);
    for mut worker in workers {
        let status = worker.0.wait()?;
        println!("a worker has seen the end: {status}");
    }
    Ok(())
}
