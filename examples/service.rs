//! Squares numbers for another process: this program starts itself again as the server.
//!
//! `cargo run --release --example service`
//!
//! With `--bench` it measures instead: a hot round trip between the two processes, beside a message through a channel.

use std::{
    env,
    error::Error,
    process::{Child, Command},
    time::{Duration, Instant},
};

use futures::StreamExt;
use waterway::{
    Segment,
    service::{CallError, Client},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The server's process; killed and reaped with us.
struct ServerProcess(Child);

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(segment: &str, role: &str) -> Result<ServerProcess> {
    Ok(ServerProcess(Command::new(env::current_exe()?).args([role, segment]).spawn()?))
}

/// Squares numbers until the last client has gone. A request for 0 is one for all squares below 10.
async fn serve(segment: Segment) -> Result<()> {
    let server = segment.service::<u64, u64>("squares").server()?;
    while let Some(request) = server.next().await {
        match *request {
            0 => {
                let mut squares = request.stream();
                for number in 0..10_u64 {
                    if squares.send(number * number).await.is_err() {
                        break;
                    }
                }
            }
            // This one is never answered: somebody has to pull the plug.
            u64::MAX => request.cancelled().await,
            number => {
                // That the caller waits no more is no concern of ours.
                let _ = request.respond(number.wrapping_mul(number)).await;
            }
        }
    }
    Ok(())
}

async fn call(client: &Client<u64, u64>, server: ServerProcess) -> Result<()> {
    println!("12 squared is {}", *client.call(12).await?);

    let squares: Vec<u64> = client
        .call_stream(0)
        .await?
        .map(|square| square.map(|s| *s))
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect::<std::result::Result<_, _>>()?;
    println!("squares: {squares:?}");

    match client.call_timeout(u64::MAX, Duration::from_millis(50)).await {
        Err(CallError::Timeout(_)) => println!("no answer in time, and the server knows"),
        other => return Err(format!("{other:?}").into()),
    }

    // A server that dies is an error, at once.
    let (answer, ()) = futures::join!(client.call(u64::MAX), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(server);
    });
    println!("{}", answer.expect_err("it was killed"));
    Ok(())
}

fn quantiles(what: &str, mut nanos: Vec<u64>) {
    nanos.sort_unstable();
    let at = |share: f64| nanos[((nanos.len() - 1) as f64 * share) as usize];
    println!("{what}: p50 {} ns, p90 {} ns, p99 {} ns", at(0.5), at(0.9), at(0.99));
}

/// Answers numbers through channels, for comparison.
async fn echo(segment: Segment) -> Result<()> {
    let there = segment.channel::<u64>("there").receiver()?;
    let back = segment.channel::<u64>("back").sender()?;
    while let Some(number) = there.recv().await {
        back.send(number.wrapping_mul(*number)).await?;
    }
    Ok(())
}

async fn bench(segment: &Segment, client: &Client<u64, u64>, name: &str) -> Result<()> {
    const CALLS: u64 = 300_000;
    let mut calls = Vec::new();
    for number in 1..=CALLS {
        let started = Instant::now();
        let square = *client.call(number).await?;
        calls.push(started.elapsed().as_nanos() as u64);
        assert_eq!(square, number * number);
    }
    let there = segment.channel::<u64>("there").sender()?;
    let back = segment.channel::<u64>("back").receiver()?;
    let _echo = start(name, "echo")?;
    let mut trips = Vec::new();
    for number in 1..=CALLS {
        let started = Instant::now();
        there.send(number).await?;
        let square = *back.recv().await.ok_or("the echo has gone")?;
        trips.push(started.elapsed().as_nanos() as u64);
        assert_eq!(square, number * number);
    }
    quantiles("call and response", calls);
    quantiles("a message there and one back", trips.clone());
    quantiles("half of that, one way", trips.into_iter().map(|nanos| nanos / 2).collect());
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["server", name] => return serve(Segment::open(name)?).await,
        ["echo", name] => return echo(Segment::open(name)?).await,
        _ => {}
    }
    let name = format!("service-{}", std::process::id());
    let segment = Segment::create(&name)?;
    let client = segment.service::<u64, u64>("squares").client()?;
    let server = start(&name, "server")?;
    if arguments.iter().any(|argument| argument == "--bench") {
        return bench(&segment, &client, &name).await;
    }
    call(&client, server).await
}
