//! Sends ticks to whoever receives them: start `ticks_recv` in another terminal, before or after.
//!
//! `cargo run --release --example ticks_send [COUNT]`

use waterway::Segment;

#[waterway::plain]
#[derive(Clone, Copy, Debug)]
struct Tick {
    id: u64,
    price: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count = std::env::args().nth(1).map_or(Ok(10), |count| count.parse())?;
    let market = Segment::open_or_create("market")?;
    let ticks = market.channel::<Tick>("ticks").sender()?;
    for id in 1..=count {
        ticks.send(Tick { id, price: 99.5 + id as f64 / 8.0 }).await?;
    }
    // What was sent goes with its last process: wait until somebody has received it.
    while !ticks.is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Ok(())
}
