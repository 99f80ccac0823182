//! One task that waits for two channels and a clock at once, with the `select!` of tokio and the one of futures.
//!
//! `cargo run --release --example select`: another process sends orders and, now and then, a cancellation; then it leaves.
//! Every message must come exactly once, whichever branch of the `select!` was taken, and however often the clock was first.

use std::{error::Error, process::Command, time::Duration};

use futures::StreamExt;
use waterway::{Receiver, Segment, Sender};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const ORDERS: u64 = 2000;
const CANCELLATIONS: u64 = 200;

/// What came of each kind, and how often the clock was first.
#[derive(Debug, Default)]
struct Seen {
    orders: Vec<u64>,
    cancellations: Vec<u64>,
    quiet: u64,
}

impl Seen {
    fn check(&self, with: &str) -> Result<()> {
        // As a single sender sent them: all, once, in order.
        let all = self.orders.iter().copied().eq(0..ORDERS) && self.cancellations.iter().copied().eq(0..CANCELLATIONS);
        println!(
            "{with}: {} orders, {} cancellations, and the clock was first {} times",
            self.orders.len(),
            self.cancellations.len(),
            self.quiet
        );
        if all { Ok(()) } else { Err(format!("{with}: something was lost, or came twice").into()) }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    if let Ok(name) = std::env::var("WATERWAY_EXAMPLE_SELECT") {
        let segment = Segment::open(&name)?;
        return send(segment.channel("orders").sender()?, segment.channel("cancellations").sender()?).await;
    }
    let both = async {
        run("tokio::select!", with_tokio).await?;
        run("futures::select!", with_futures).await
    };
    tokio::time::timeout(Duration::from_secs(60), both).await?
}

/// The other process.
async fn send(orders: Sender<u64>, cancellations: Sender<u64>) -> Result<()> {
    for order in 0..ORDERS {
        orders.send(order).await?;
        if order % (ORDERS / CANCELLATIONS) == 0 {
            cancellations.send(order / (ORDERS / CANCELLATIONS)).await?;
        }
        if order % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
    Ok(())
}

async fn run(with: &str, receive: impl AsyncFnOnce(Receiver<u64>, Receiver<u64>) -> Seen) -> Result<()> {
    let name = format!("select-{}", std::process::id());
    let segment = Segment::create(&name)?;
    let orders = segment.channel("orders").receiver()?;
    let cancellations = segment.channel("cancellations").receiver()?;
    let sender = Command::new(std::env::current_exe()?).env("WATERWAY_EXAMPLE_SELECT", &name).spawn()?;
    let mut sender = Running(sender);
    let seen = receive(orders, cancellations).await;
    if !sender.0.wait()?.success() {
        return Err("the sender has failed".into());
    }
    seen.check(with)
}

async fn with_tokio(orders: Receiver<u64>, cancellations: Receiver<u64>) -> Seen {
    let mut seen = Seen::default();
    loop {
        // The futures of branches that are not taken are dropped. That loses nothing.
        tokio::select! {
            Some(order) = orders.recv() => seen.orders.push(*order),
            Some(cancellation) = cancellations.recv() => seen.cancellations.push(*cancellation),
            () = tokio::time::sleep(Duration::from_micros(500)), if !(orders.is_closed() && cancellations.is_closed()) => {
                seen.quiet += 1;
            }
            // Both channels are over.
            else => return seen,
        }
    }
}

async fn with_futures(orders: Receiver<u64>, cancellations: Receiver<u64>) -> Seen {
    let mut seen = Seen::default();
    // As streams, which know that they have ended.
    let mut orders = orders.into_stream().fuse();
    let mut cancellations = cancellations.into_stream().fuse();
    loop {
        let mut clock = std::pin::pin!(futures::FutureExt::fuse(tokio::time::sleep(Duration::from_micros(500))));
        futures::select! {
            order = orders.select_next_some() => seen.orders.push(*order),
            cancellation = cancellations.select_next_some() => seen.cancellations.push(*cancellation),
            () = clock => {
                if orders.is_done() && cancellations.is_done() {
                    return seen;
                }
                seen.quiet += 1;
            }
        }
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
