//! Receives the ticks that `ticks_send` sends, until it has left.
//!
//! `cargo run --release --example ticks_recv`

use waterway::Segment;

#[waterway::plain]
#[derive(Clone, Copy, Debug)]
struct Tick {
    id: u64,
    price: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let market = Segment::open_or_create("market")?;
    let ticks = market.channel::<Tick>("ticks").receiver()?;
    while let Some(tick) = ticks.recv().await {
        println!("{} {}", tick.id, tick.price);
    }
    Ok(())
}
