//! Messages of a channel, served over HTTP without being copied on the way: the body of each answer is the message's
//! block in shared memory.
//!
//! ```text
//! another process ──pages──► this one: axum ──HTTP──► a plain TCP client
//! ```
//!
//! `cargo run --release --example http_axum`: starts the other process and the server, fetches every page, compares it
//! with what was sent, and ends. The exit status is 1 if something is not as it should be.

use std::{error::Error, process::Command, time::Duration};

use axum::{Router, body::Body, extract::State, http::StatusCode, routing::get};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use waterway::{Receiver, Segment};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const PAGES: usize = 50;

/// A page that is easy to know again.
fn page(number: usize) -> Vec<u8> {
    (0..1000 + number * 700).map(|place| (place * 31 + number) as u8).collect()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    if let Ok(name) = std::env::var("WATERWAY_EXAMPLE_PAGES") {
        return write_pages(&name).await;
    }
    tokio::time::timeout(Duration::from_secs(60), serve_and_fetch()).await?
}

/// The other process.
async fn write_pages(name: &str) -> Result<()> {
    let pages = Segment::open(name)?.bytes("pages").sender()?;
    for number in 0..PAGES {
        pages.send(page(number)).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn serve_and_fetch() -> Result<()> {
    let name = format!("pages-{}", std::process::id());
    let segment = Segment::create(&name)?;
    let pages = segment.bytes("pages").receiver()?;
    let writer = Command::new(std::env::current_exe()?).env("WATERWAY_EXAMPLE_PAGES", &name).spawn()?;
    let mut writer = Running(writer);

    let app = Router::new().route("/next", get(next)).with_state(pages);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    let mut bytes = 0;
    for number in 0..PAGES {
        let (status, body) = fetch(address).await?;
        if status != 200 || body != page(number) {
            return Err(format!("page {number}: status {status}, {} bytes, not as sent", body.len()).into());
        }
        bytes += body.len();
    }
    // The writer has sent everything and gone: the channel has ended, and so says the server.
    let (status, _) = fetch(address).await?;
    if status != 410 {
        return Err(format!("after the last page: status {status}").into());
    }
    if !writer.0.wait()?.success() {
        return Err("the writer has failed".into());
    }
    server.abort();
    // What the server held of the messages goes with its connections, which are tasks of their own.
    while segment.stats().held_bytes() != 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("{PAGES} pages, {bytes} bytes, all as they were sent, and all memory is free again");
    Ok(())
}

/// The next page. Nothing is copied: axum holds the message, and dropping the answer acknowledges it.
async fn next(State(pages): State<Receiver<[u8]>>) -> std::result::Result<Body, StatusCode> {
    match pages.recv().await {
        // `into_bytes` gives the `Bytes` of the crate of that name, which is what axum takes.
        Some(message) => Ok(Body::from(message.into_bytes())),
        None => Err(StatusCode::GONE),
    }
}

/// The status and the body.
async fn fetch(address: std::net::SocketAddr) -> Result<(u16, Vec<u8>)> {
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(b"GET /next HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or("an answer without an end of its head")?;
    let status = std::str::from_utf8(&answer[..end])?.split(' ').nth(1).ok_or("an answer without a status")?.parse()?;
    Ok((status, answer.split_off(end + 4)))
}

/// A process that we have started: it does not outlive us.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
