//! Orders by customer: this program starts itself again, three times, to work on them. The orders of a customer are worked on in
//! their order, by one process at a time, also when one of the three is killed in the middle of it.
//!
//! `cargo run --release --example routing`
//!
//! With `--bench` it measures instead: messages through a routed channel beside a plain one, from this process to another.

use std::{
    collections::HashMap,
    env,
    error::Error,
    process::{Child, Command},
    time::{Duration, Instant},
};

use waterway::{
    Delivery, Segment,
    policy::{Policy, RouteKey},
    routing,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Order {
    customer: u64,
    number: u64,
}

impl Policy for Order {
    fn route(&self) -> RouteKey {
        self.customer.into()
    }
}

/// An order that was worked on, and by whom.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Done {
    order: Order,
    worker: u64,
    deliveries: u64,
}

const CUSTOMERS: u64 = 50;
const ORDERS: u64 = 40;

fn orders(segment: &Segment) -> routing::Options<Order> {
    segment.channel::<Order>("orders").delivery(Delivery::AtLeastOnce { max_deliveries: 5 }).routed()
}

/// A process of this program; killed and reaped with us.
struct Worker(Child);

impl Worker {
    fn start(role: &str, segment: &str) -> Result<Self> {
        Ok(Self(Command::new(env::current_exe()?).args([role, segment]).spawn()?))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn work(segment: &Segment) -> Result<()> {
    let (receiver, done) = (orders(segment).receiver()?, segment.channel::<Done>("done").sender()?);
    while let Some(order) = receiver.recv().await {
        // Some work.
        tokio::time::sleep(Duration::from_micros(200)).await;
        let deliveries = order.delivery_count().into();
        done.send(Done { order: *order, worker: std::process::id().into(), deliveries }).await?;
        // Acknowledged here: only now may anybody else have this customer's orders.
        order.ack();
    }
    Ok(())
}

async fn coordinate(segment: &Segment, name: &str) -> Result<()> {
    let sender = orders(segment).sender()?;
    let done = segment.channel::<Done>("done").receiver()?;
    // It is never asked for a message, so it has no share; but while it is there, nothing is closed.
    let keeper = orders(segment).receiver()?;
    let mut workers: Vec<Worker> = (0..3).map(|_| Worker::start("work", name)).collect::<Result<_>>()?;

    let sending = async {
        for number in 0..ORDERS {
            for customer in 0..CUSTOMERS {
                sender.send(Order { customer, number }).await?;
            }
        }
        Ok::<_, Box<dyn Error>>(())
    };
    let gathering = async {
        let mut last = HashMap::<u64, Done>::new();
        let (mut count, mut again, mut moved) = (0, 0, 0);
        while count < CUSTOMERS * ORDERS {
            let now = *done.recv().await.ok_or("the workers have gone")?;
            let expected = last.get(&now.order.customer).map_or(0, |last| last.order.number + 1);
            if now.order.number == expected {
                count += 1;
                moved += u64::from(last.insert(now.order.customer, now).is_some_and(|last| last.worker != now.worker));
            } else if now.order.number < expected && now.deliveries > 1 {
                // It had been done, and its worker was killed before it could say so to the channel.
                again += 1;
            } else {
                return Err(
                    format!("customer {}: {} comes after {expected}", now.order.customer, now.order.number).into()
                );
            }
            if count == CUSTOMERS * ORDERS / 2 && workers.len() == 3 {
                // In the middle of an order.
                workers.pop();
                println!("one of three workers was killed");
            }
        }
        println!(
            "{count} orders of {CUSTOMERS} customers, each customer's in order; {moved} times a customer went to another \
             worker, {again} orders were worked on again"
        );
        Ok::<_, Box<dyn Error>>(())
    };
    let (sent, gathered) = futures::join!(sending, gathering);
    sent?;
    gathered?;
    drop((sender, keeper));
    for worker in &mut workers {
        println!("a worker has seen the end: {}", worker.0.wait()?);
    }
    Ok(())
}

/// Takes messages as fast as it can, and answers the last one of each run.
async fn take(segment: &Segment) -> Result<()> {
    let back = segment.channel::<u64>("back").sender()?;
    let (plain, routed) = (plain(segment).receiver()?, by_key(segment).receiver()?);
    let mut sum = 0_u64;
    loop {
        let mut last = 0;
        while last < MESSAGES {
            let order = *plain.recv().await.ok_or("nobody sends")?;
            (last, sum) = (last.max(order.number), sum.wrapping_add(order.customer));
        }
        back.send(sum).await?;
        let mut received = 0;
        while received < MESSAGES {
            let order = routed.recv().await.ok_or("nobody sends")?;
            (received, sum) = (received + 1, sum.wrapping_add(order.customer));
        }
        back.send(sum).await?;
    }
}

const MESSAGES: u64 = 2_000_000;

fn plain(segment: &Segment) -> waterway::ChannelOptions<Order> {
    segment.channel("plain")
}

fn by_key(segment: &Segment) -> routing::Options<Order> {
    segment.channel("keyed").routed()
}

async fn bench(segment: &Segment, name: &str) -> Result<()> {
    let back = segment.channel::<u64>("back").receiver()?;
    let (plain, routed) = (plain(segment).sender()?, by_key(segment).sender()?);
    let _worker = Worker::start("take", name)?;
    for keys in [1, 16, 1000, 1000] {
        let started = Instant::now();
        for number in 1..=MESSAGES {
            plain.send(Order { customer: number % keys, number }).await?;
        }
        back.recv().await.ok_or("the worker has gone")?;
        let once = started.elapsed();
        let started = Instant::now();
        for number in 1..=MESSAGES {
            routed.send(Order { customer: number % keys, number }).await?;
        }
        back.recv().await.ok_or("the worker has gone")?;
        let each = |time: Duration| time.as_nanos() as f64 / MESSAGES as f64;
        let (plain, routed) = (each(once), each(started.elapsed()));
        println!("{keys} keys: {plain:.0} ns per message plain, {routed:.0} ns routed: {:.2} times", routed / plain);
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["work", name] => return work(&Segment::open(name)?).await,
        ["take", name] => return take(&Segment::open(name)?).await,
        _ => {}
    }
    let name = format!("routing-{}", std::process::id());
    let segment = Segment::create(&name)?;
    if arguments.iter().any(|argument| argument == "--bench") {
        return bench(&segment, &name).await;
    }
    coordinate(&segment, &name).await
}
