//! ipc-channel, with bytes, so that nothing is spent on serde. Its calls block the thread.

use std::{fs, path::PathBuf, time::Duration};

use ipc_channel::ipc::{self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcSender};

use crate::{
    peers::play,
    spec::Role,
    stamp::{Seen, fill},
    worker::{Rx, Tx, Worker},
};

struct Out {
    sender: IpcBytesSender,
    payload: Vec<u8>,
}

impl Tx for Out {
    async fn send(&mut self, number: u64) {
        fill(&mut self.payload, number);
        self.sender.send(&self.payload).expect("the receiver is there");
    }
}

struct In(IpcBytesReceiver);

impl Rx for In {
    async fn recv(&mut self, seen: &mut Seen) {
        seen.take(&self.0.recv().expect("the sender is there"));
    }
}

/// Asks whoever receives for an end to send to.
fn sender(worker: Worker, direction: &str) -> Out {
    let index = if let Role::Sender(index) = worker.role { index } else { 0 };
    let (server, name) = IpcOneShotServer::new().expect("a server can be had");
    let file = place(worker, direction, index);
    fs::write(file.with_extension("new"), name).expect("the directory is ours");
    fs::rename(file.with_extension("new"), file).expect("the directory is ours");
    let (_, sender) = server.accept().expect("the receiver comes");
    Out { sender, payload: vec![0; worker.spec.size] }
}

/// Makes a channel, and gives an end to everybody who asks.
fn receiver(worker: Worker, direction: &str) -> In {
    let (sender, receiver) = ipc::bytes_channel().expect("a channel can be had");
    for index in 0..worker.spec.senders {
        let name = loop {
            if let Ok(name) = fs::read_to_string(place(worker, direction, index)) {
                break name;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let to = IpcSender::<IpcBytesSender>::connect(name).expect("the sender waits");
        to.send(sender.clone()).expect("the sender waits");
    }
    In(receiver)
}

fn place(worker: Worker, direction: &str, index: usize) -> PathBuf {
    worker.spec.place.join(format!("{direction}-{index}"))
}

pub fn run(worker: Worker) {
    worker.run(Box::pin(async move {
        play!(worker, there: sender(worker, "there"), vec![receiver(worker, "there")];
            back: sender(worker, "back"), vec![receiver(worker, "back")]);
    }));
}
