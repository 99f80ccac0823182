//! tokio's `UnixStream`: a write per message, or through buffers. One connection per sender; whoever receives reads all of
//! them at the same time.

use std::{path::PathBuf, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter},
    net::{UnixListener, UnixStream},
};

use crate::{
    peers::play,
    stamp::{Seen, fill},
    worker::{Rx, Tx, Worker},
};

const BUFFER: usize = 64 << 10;

struct Stream {
    stream: UnixStream,
    payload: Vec<u8>,
}

impl Tx for Stream {
    async fn send(&mut self, number: u64) {
        fill(&mut self.payload, number);
        self.stream.write_all(&self.payload).await.expect("the receiver is there");
    }
}

impl Rx for Stream {
    async fn recv(&mut self, seen: &mut Seen) {
        self.stream.read_exact(&mut self.payload).await.expect("the sender is there");
        seen.take(&self.payload);
    }
}

struct Buffered<S> {
    stream: S,
    payload: Vec<u8>,
}

impl Tx for Buffered<BufWriter<UnixStream>> {
    async fn send(&mut self, number: u64) {
        fill(&mut self.payload, number);
        self.stream.write_all(&self.payload).await.expect("the receiver is there");
    }

    async fn flush(&mut self) {
        self.stream.flush().await.expect("the receiver is there");
    }
}

impl Rx for Buffered<BufReader<UnixStream>> {
    async fn recv(&mut self, seen: &mut Seen) {
        let size = self.payload.len();
        // Whole messages are read where they stand in the buffer.
        let there = self.stream.fill_buf().await.expect("the sender is there");
        let whole = there.len() / size * size;
        if whole > 0 {
            there[..whole].chunks_exact(size).for_each(|payload| seen.take(payload));
            self.stream.consume(whole);
        } else {
            self.stream.read_exact(&mut self.payload).await.expect("the sender is there");
            seen.take(&self.payload);
        }
    }
}

async fn connect(place: PathBuf) -> UnixStream {
    loop {
        if let Ok(stream) = UnixStream::connect(&place).await {
            return stream;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn accept(place: PathBuf, count: usize) -> Vec<UnixStream> {
    let listener = UnixListener::bind(place).expect("the place is new");
    let mut streams = Vec::new();
    while streams.len() < count {
        streams.push(listener.accept().await.expect("a sender comes").0);
    }
    streams
}

pub fn run(worker: Worker) {
    let (place, size) = (|name| worker.spec.place.join(name), worker.spec.size);
    let senders = worker.spec.senders;
    let plain = move |stream| Stream { stream, payload: vec![0; size] };
    worker.run(Box::pin(async move {
        if worker.spec.peer == "unix" {
            play!(worker,
                there: plain(connect(place("there")).await),
                    accept(place("there"), senders).await.into_iter().map(plain).collect::<Vec<_>>();
                back: plain(connect(place("back")).await),
                    accept(place("back"), 1).await.into_iter().map(plain).collect::<Vec<_>>());
        } else {
            let output = |stream| Buffered { stream: BufWriter::with_capacity(BUFFER, stream), payload: vec![0; size] };
            let input = |stream| Buffered { stream: BufReader::with_capacity(BUFFER, stream), payload: vec![0; size] };
            play!(worker,
                there: output(connect(place("there")).await),
                    accept(place("there"), senders).await.into_iter().map(input).collect::<Vec<_>>();
                back: output(connect(place("back")).await),
                    accept(place("back"), 1).await.into_iter().map(input).collect::<Vec<_>>());
        }
    }));
}
