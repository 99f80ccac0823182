//! An HTTP server that does nothing itself: what it is asked goes to worker processes, and what they answer is the body, which
//! is read where the worker has written it.
//!
//! ```text
//! HTTP clients ──► this process: axum ──tower──► service "reverse" ◄──tower── worker processes
//! ```
//!
//! `cargo run --release --features tower --example http_workers`: starts three workers and the server, asks a lot at once, and kills
//! a worker (SIGKILL) while it is at some of that. All is answered all the same, because a request whose worker has died is sent
//! to another one. The exit status is 1 if something is not as it should be.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    error::Error,
    net::SocketAddr,
    process::{Child, Command},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::StatusCode,
    routing::post,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tower::{ServiceBuilder, ServiceExt, limit::ConcurrencyLimit, service_fn, timeout::Timeout};
use waterway::{
    Delivery, Segment,
    service::{Client, Request},
};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const WORKERS: usize = 3;
const REQUESTS: usize = 120;
/// When a worker is killed.
const BEFORE_THE_KILL: usize = 20;

/// The client with its layers. Clones share the limit.
type Workers = Timeout<ConcurrencyLimit<Client<[u8], [u8]>>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    if let Ok(name) = std::env::var("WATERWAY_EXAMPLE_WORKER") {
        return work(&name).await;
    }
    tokio::time::timeout(Duration::from_secs(60), front()).await?
}

/// A worker process: turns bytes round, four requests at once, until the last client has gone.
async fn work(name: &str) -> Result<()> {
    let server = Segment::open(name)?.service::<[u8], [u8]>("reverse").server()?;
    let reverse = service_fn(async |request: Arc<Request<[u8], [u8]>>| {
        // This is where the work would be.
        tokio::time::sleep(Duration::from_millis(10)).await;
        let mut answer = format!("{} {} ", std::process::id(), request.delivery_count()).into_bytes();
        answer.extend(request.iter().rev());
        Ok::<_, Infallible>(answer)
    });
    server.serve(reverse).at_once(4).await?;
    Ok(())
}

/// The front process.
async fn front() -> Result<()> {
    let name = format!("workers-{}", std::process::id());
    let segment = Segment::create(&name)?;
    let delivery = Delivery::AtLeastOnce { max_deliveries: 5 };
    let client = segment.service::<[u8], [u8]>("reverse").delivery(delivery).client()?;
    let start = || Ok(Running(Command::new(std::env::current_exe()?).env("WATERWAY_EXAMPLE_WORKER", &name).spawn()?));
    let mut workers = (0..WORKERS).map(|_| start()).collect::<Result<Vec<Running>>>()?;

    let service = ServiceBuilder::new().timeout(Duration::from_secs(30)).concurrency_limit(64).service(client);
    let app = Router::new().route("/reverse", post(reverse)).with_state(service);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    let (answers, mut answered) = mpsc::unbounded_channel();
    for number in 0..REQUESTS {
        let answers = answers.clone();
        tokio::spawn(async move { answers.send((number, ask(address, &question(number)).await)) });
    }
    drop(answers);
    let (mut by_worker, mut again, mut count, mut killed) = (BTreeMap::<u32, usize>::new(), 0, 0, None);
    while let Some((number, answer)) = answered.recv().await {
        let (worker, delivery, reversed) = read(answer?)?;
        if reversed.iter().rev().ne(question(number).as_bytes()) {
            return Err(format!("request {number} has got another answer").into());
        }
        *by_worker.entry(worker).or_default() += 1;
        again += usize::from(delivery > 1);
        count += 1;
        if count == BEFORE_THE_KILL {
            let mut worker = workers.remove(0);
            worker.0.kill()?;
            worker.0.wait()?;
            println!("worker {} was killed", worker.0.id());
            killed = Some(worker.0.id());
        }
    }
    if count != REQUESTS || killed.is_none() {
        return Err(format!("{count} answers to {REQUESTS} requests").into());
    }
    for (worker, count) in &by_worker {
        println!("worker {worker} has answered {count}{}", if killed == Some(*worker) { ", before" } else { "" });
    }
    println!("all {REQUESTS} requests are answered, {again} of them by a second worker");

    // With the server goes the last client, and the workers end by themselves. What holds it are tasks of connections, too.
    server.abort();
    for mut worker in workers {
        while worker.0.try_wait()?.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(())
}

/// What HTTP clients get. The body is the worker's block in shared memory.
async fn reverse(State(workers): State<Workers>, body: Bytes) -> std::result::Result<Body, (StatusCode, String)> {
    match workers.oneshot(body).await {
        Ok(response) => Ok(Body::from(response.into_bytes())),
        Err(error) => Err((StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
    }
}

fn question(number: usize) -> String {
    format!("question {number} ").repeat(number + 1)
}

/// The body that is the answer to another one.
async fn ask(address: SocketAddr, body: &str) -> Result<Vec<u8>> {
    let mut connection = TcpStream::connect(address).await?;
    let head = format!(
        "POST /reverse HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).await?;
    connection.write_all(body.as_bytes()).await?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or("an answer without an end of its head")?;
    let body = answer.split_off(end + 4);
    match std::str::from_utf8(&answer)?.split(' ').nth(1) {
        Some("200") => Ok(body),
        status => Err(format!("status {status:?}: {}", String::from_utf8_lossy(&body)).into()),
    }
}

/// Which worker has answered, at which delivery, and what.
fn read(body: Vec<u8>) -> Result<(u32, u32, Vec<u8>)> {
    let mut parts = body.splitn(3, |byte| *byte == b' ');
    let mut part = || parts.next().ok_or("an answer that is too short");
    let number = |part: &[u8]| -> Result<u32> { Ok(std::str::from_utf8(part)?.parse()?) };
    Ok((number(part()?)?, number(part()?)?, part()?.to_vec()))
}

/// A process that we have started: it does not outlive us.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
