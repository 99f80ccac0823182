//! tonic: a unary call over a Unix socket, as its generated code does it.

use std::{
    convert::Infallible,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use prost::Message;
use tokio::{net::UnixListener, sync::Notify};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{
    Request, Response, Status,
    body::Body,
    client,
    codegen::{BoxFuture, Service, http, http::uri::PathAndQuery},
    server,
    transport::{Channel, Endpoint, Server},
};
use tonic_prost::ProstCodec;

use crate::{
    spec::Role,
    stamp::{Seen, fill},
    worker::{Answerer, Caller, Worker},
};

#[derive(Clone, PartialEq, Message)]
struct Payload {
    #[prost(bytes = "bytes", tag = "1")]
    bytes: Bytes,
}

fn payload(size: usize, number: u64) -> Payload {
    let mut bytes = vec![0; size];
    fill(&mut bytes, number);
    Payload { bytes: bytes.into() }
}

struct Asking {
    client: client::Grpc<Channel>,
    size: usize,
}

impl Caller for Asking {
    async fn call(&mut self, number: u64, seen: &mut Seen) {
        self.client.ready().await.expect("the server is there");
        let request = Request::new(payload(self.size, number));
        let path = PathAndQuery::from_static("/compare.Echo/Call");
        let codec = ProstCodec::<Payload, Payload>::default();
        let response = self.client.unary(request, path, codec).await.expect("the server is there");
        seen.take(&response.into_inner().bytes);
    }
}

/// What the server has seen, and is to see.
#[derive(Default)]
struct Progress {
    seen: Mutex<(Seen, u64)>,
    done: Notify,
}

#[derive(Clone)]
struct Echo(Arc<Progress>, usize);

impl Service<Request<Payload>> for Echo {
    type Response = Response<Payload>;
    type Error = Status;
    type Future = std::future::Ready<Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Payload>) -> Self::Future {
        let mut guard = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (seen, rounds) = &mut *guard;
        let round = seen.count;
        seen.take(&request.into_inner().bytes);
        if seen.count == *rounds {
            self.0.done.notify_one();
        }
        std::future::ready(Ok(Response::new(payload(self.1, round))))
    }
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<Payload, Payload>::default();
            Ok(server::Grpc::new(codec).unary(echo, request).await)
        })
    }
}

impl server::NamedService for Echo {
    const NAME: &'static str = "compare.Echo";
}

impl Answerer for Echo {
    async fn answer(&mut self, rounds: u64) -> Seen {
        *self.0.seen.lock().unwrap_or_else(PoisonError::into_inner) = (Seen::new(1, true), rounds);
        self.0.done.notified().await;
        std::mem::take(&mut self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).0)
    }

    async fn settle(&mut self) {
        // The connection is a task of its own, and nobody says when it has written.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn connect(place: PathBuf) -> Channel {
    let endpoint = Endpoint::try_from(format!("unix://{}", place.display())).expect("a plain path");
    loop {
        if let Ok(channel) = endpoint.connect().await {
            return channel;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub fn run(worker: Worker) {
    let (place, size) = (worker.spec.place.join("socket"), worker.spec.size);
    worker.run(Box::pin(async move {
        if worker.role == Role::Ping {
            let client = client::Grpc::new(connect(place).await);
            worker.call(Asking { client, size }).await;
        } else {
            let listener = UnixListener::bind(place).expect("the place is new");
            let echo = Echo(Arc::default(), size);
            tokio::spawn(
                Server::builder().add_service(echo.clone()).serve_with_incoming(UnixListenerStream::new(listener)),
            );
            worker.answer(echo).await;
        }
    }));
}
