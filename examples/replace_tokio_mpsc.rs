//! A service written once against tokio's mpsc channel, and once against Waterway. The diff is in the `use` lines and in
//! how the channel is made; `diff` prints it.
//!
//! `cargo run --release --example replace_tokio_mpsc`: both do the same work, Waterway's producer in another process.

/// An order, as plain data.
#[waterway::plain]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    customer: u64,
    cents: u64,
}

mod on_tokio {
    // begin
    use tokio::sync::mpsc::{Receiver, Sender, channel};

    use super::Order;

    pub(crate) fn open() -> (Sender<Order>, Receiver<Order>) {
        channel(1024)
    }

    pub(crate) async fn produce(orders: Sender<Order>) {
        for customer in 0..1000 {
            orders.send(Order { customer, cents: customer * 7 }).await.unwrap();
        }
    }

    pub(crate) async fn consume(mut orders: Receiver<Order>) -> u64 {
        let mut cents = 0;
        while let Some(order) = orders.recv().await {
            cents += order.cents;
        }
        cents
    }
    // end
}

mod on_waterway {
    // begin
    use waterway::{Receiver, Segment, Sender};

    use super::Order;

    pub(crate) fn open(shop: &Segment) -> (Sender<Order>, Receiver<Order>) {
        shop.channel("orders").capacity(1024).open().unwrap()
    }

    pub(crate) async fn produce(orders: Sender<Order>) {
        for customer in 0..1000 {
            orders.send(Order { customer, cents: customer * 7 }).await.unwrap();
        }
    }

    pub(crate) async fn consume(orders: Receiver<Order>) -> u64 {
        let mut cents = 0;
        while let Some(order) = orders.recv().await {
            cents += order.cents;
        }
        cents
    }
    // end
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::var("WATERWAY_EXAMPLE_SHOP");
    if let Ok(name) = &name {
        // The other process.
        let shop = waterway::Segment::open(name)?;
        let (sender, _) = on_waterway::open(&shop);
        on_waterway::produce(sender).await;
        return Ok(());
    }

    let (sender, receiver) = on_tokio::open();
    let (_, in_process) = tokio::join!(on_tokio::produce(sender), on_tokio::consume(receiver));

    let name = format!("shop-{}", std::process::id());
    let shop = waterway::Segment::create(&name)?;
    let (sender, receiver) = on_waterway::open(&shop);
    let mut producer =
        std::process::Command::new(std::env::current_exe()?).env("WATERWAY_EXAMPLE_SHOP", &name).spawn()?;
    let consumer = tokio::spawn(on_waterway::consume(receiver));
    producer.wait()?;
    // The producer has its own: without ours, the orders end.
    drop(sender);
    let across_processes = consumer.await?;

    println!("within one process, on tokio:      {in_process} cents");
    println!("between two processes, on waterway: {across_processes} cents");
    assert_eq!(in_process, across_processes);
    println!("\nwhat differs:");
    print_diff();
    Ok(())
}

/// The lines of one module that the other does not have.
fn print_diff() {
    let source = include_str!("replace_tokio_mpsc.rs");
    let mut parts = source.split("// begin\n").skip(1).map(|part| part.split("// end\n").next().unwrap_or_default());
    let (tokio, waterway) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    for line in tokio.lines().filter(|line| !waterway.contains(line)) {
        println!("-{line}");
    }
    for line in waterway.lines().filter(|line| !tokio.contains(line)) {
        println!("+{line}");
    }
}
