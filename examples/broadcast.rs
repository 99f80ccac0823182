//! Prices for everybody: one process publishes them, others subscribe. This program starts itself again as those others.
//!
//! `cargo run --release --example broadcast`
//!
//! A *screen* sees every price; two *traders* are one group, so each price goes to one of them; a *sleeper* is too slow, and is
//! told how many it has missed. One trader is killed with a price in its hands: the other one gets it.
//!
//! With `--bench` it measures instead what a message costs with one group and with four.

use std::{
    env,
    error::Error,
    hint::black_box,
    process::{Child, Command},
    time::{Duration, Instant},
};

use waterway::{
    Delivery, Segment,
    broadcast::{self, Behind, GroupOptions, Subscriber},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Price {
    number: u64,
    cents: u64,
}

const PRICES: u64 = 1000;

/// The process of a subscriber; killed and reaped with us.
struct Process(Child);

impl Process {
    fn start(segment: &str, role: &str) -> Result<Self> {
        Ok(Self(Command::new(env::current_exe()?).args([role, segment]).spawn()?))
    }

    fn finish(mut self) -> Result<()> {
        let status = self.0.wait()?;
        if status.success() { Ok(()) } else { Err(format!("a subscriber ended with {status}").into()) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whoever trades must not miss a price, nor lose one that somebody had who died.
fn traders(segment: &Segment) -> GroupOptions<Price> {
    let at_least_once = Delivery::AtLeastOnce { max_deliveries: 5 };
    segment.broadcast::<Price>("prices").group("traders").behind(Behind::Block).delivery(at_least_once)
}

async fn subscribe(segment: Segment, role: &str) -> Result<()> {
    let prices = || segment.broadcast::<Price>("prices");
    let subscriber = match role {
        "trader" | "victim" => traders(&segment).subscriber()?,
        "sleeper" => prices().subscriber()?,
        _ => prices().only().behind(Behind::Block).subscriber()?,
    };
    segment.notify("ready")?.notify_one();
    let (mut seen, mut missed, mut again) = (0, 0, 0);
    loop {
        match subscriber.recv().await {
            Ok(price) => {
                seen += 1;
                again += u32::from(price.delivery_count() > 1);
                if role == "victim" {
                    // With the price in its hands.
                    return std::future::pending().await;
                }
                if role == "sleeper" && seen == 1 {
                    // Until all has been published.
                    segment.notify("published")?.notified().await;
                }
            }
            Err(broadcast::RecvError::Lagged(count)) => missed += count,
            Err(broadcast::RecvError::Closed) => break,
            Err(error) => return Err(error.into()),
        }
    }
    println!("the {role} has seen {seen} prices, {again} of them after somebody else, and missed {missed}");
    Ok(())
}

async fn publish() -> Result<()> {
    let name = format!("broadcast-{}", std::process::id());
    let segment = Segment::create(&name)?;
    let ready = segment.notify("ready")?;
    let published = segment.notify("published")?;
    let publisher = segment.broadcast::<Price>("prices").publisher()?;
    let mut victim = Process::start(&name, "victim")?;
    ready.notified().await;
    publisher.send(Price { number: 0, cents: 100 }).await?;
    let mut others = Vec::new();
    for role in ["screen", "trader", "sleeper"] {
        others.push(Process::start(&name, role)?);
        ready.notified().await;
    }
    // The victim may not have it yet: then somebody else gets it for the first time.
    victim.0.kill()?;
    victim.0.wait()?;
    for number in 1..=PRICES {
        let groups = publisher.send(Price { number, cents: 100 + number % 7 }).await?;
        assert_eq!(groups, 3);
    }
    published.notify_one();
    drop(publisher);
    others.into_iter().try_for_each(Process::finish)?;
    println!("{PRICES} prices were published, and one before");
    Ok(())
}

/// What a message of 64 KiB costs, with so many groups: the publisher's part, and all of it.
fn measure(groups: usize) -> Result<(f64, f64)> {
    const MESSAGES: u32 = 20_000;
    let segment = Segment::options().size(256 << 20).in_process()?;
    let publisher = segment.broadcast::<[u8]>("films").capacity(64).publisher()?;
    let subscribers: Vec<Subscriber<[u8]>> =
        (0..groups).map(|_| segment.broadcast::<[u8]>("films").subscriber()).collect::<std::result::Result<_, _>>()?;
    let film = vec![7; 64 << 10];
    let (started, mut publishing) = (Instant::now(), Duration::ZERO);
    for _ in 0..MESSAGES / 16 {
        let begun = Instant::now();
        for _ in 0..16 {
            publisher.try_send(black_box(&film[..])).map_err(|error| error.to_string())?;
        }
        publishing += begun.elapsed();
        for subscriber in &subscribers {
            loop {
                match subscriber.try_recv() {
                    Ok(message) => assert_eq!(black_box(&message[..64])[63], 7),
                    Err(broadcast::TryRecvError::Empty) => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    let each = |time: Duration| time.as_nanos() as f64 / f64::from(MESSAGES);
    Ok((each(publishing), each(started.elapsed())))
}

fn bench() -> Result<()> {
    for _ in 0..5 {
        let (one, four) = (measure(1)?, measure(4)?);
        println!(
            "64 KiB, 1 group: publishing {:.0} ns, all {:.0} ns; 4 groups: {:.0} and {:.0} ns; {:.2} and {:.2} times as much",
            one.0,
            one.1,
            four.0,
            four.1,
            four.0 / one.0,
            four.1 / one.1
        );
    }
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match &arguments[..] {
        [bench] if bench == "--bench" => self::bench(),
        [role, segment] => smol::block_on(subscribe(Segment::open(segment)?, role)),
        _ => smol::block_on(publish()),
    }
}
