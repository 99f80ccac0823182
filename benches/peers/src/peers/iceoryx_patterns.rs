//! iceoryx2's request and response, polled, and its blackboard.

use core::mem::MaybeUninit;

use iceoryx2::{
    node::Node,
    port::{client::Client, reader::EntryHandle, server::Server, writer::EntryHandleMut},
    prelude::*,
};

use crate::{
    patterns::{Reader, Writer},
    peers::iceoryx::{Alone, node},
    spec::Role,
    stamp::{Seen, Value, fill_uninit, verify},
    worker::{Answerer, Caller, Worker},
};

struct Asking {
    client: Client<ipc::Service, [u8], (), [u8], ()>,
    size: usize,
    _node: Node<ipc::Service>,
}

impl Caller for Alone<Asking> {
    async fn call(&mut self, number: u64, seen: &mut Seen) {
        let Asking { client, size, .. } = &self.0;
        let mut request = client.loan_slice_uninit(*size).expect("as many are there as can be under way");
        let payload: &mut [MaybeUninit<u8>] = request.payload_mut();
        fill_uninit(payload, number);
        // SAFETY: all sizes are whole words, and so all of it was written.
        let pending = unsafe { request.assume_init() }.send().expect("the server is there");
        loop {
            if let Some(response) = pending.receive().expect("responses can be had") {
                return seen.take(response.payload());
            }
            std::hint::spin_loop();
        }
    }
}

struct Answering {
    server: Server<ipc::Service, [u8], (), [u8], ()>,
    size: usize,
    _node: Node<ipc::Service>,
}

impl Answerer for Alone<Answering> {
    async fn answer(&mut self, rounds: u64) -> Seen {
        let Answering { server, size, .. } = &self.0;
        let mut seen = Seen::new(1, true);
        while seen.count < rounds {
            let Some(request) = server.receive().expect("requests can be had") else {
                std::hint::spin_loop();
                continue;
            };
            let round = seen.count;
            seen.take(request.payload());
            let mut response = request.loan_slice_uninit(*size).expect("as many are there as can be under way");
            let payload: &mut [MaybeUninit<u8>] = response.payload_mut();
            fill_uninit(payload, round);
            // SAFETY: as above.
            unsafe { response.assume_init() }.send().expect("the client is there");
        }
        seen
    }
}

pub fn call(worker: Worker) {
    let (node, size) = (node(worker), worker.spec.size);
    let service = node.service_builder(&"call".try_into().expect("a plain name")).request_response::<[u8], [u8]>();
    let service = service.max_nodes(64).open_or_create().expect("a service can be had");
    if worker.role == Role::Ping {
        let client = service.client_builder().initial_max_slice_len(size).create().expect("a client can be had");
        worker.run(worker.call(Alone(Asking { client, size, _node: node })));
    } else {
        let server = service.server_builder().initial_max_slice_len(size).create().expect("a server can be had");
        worker.run(worker.answer(Alone(Answering { server, size, _node: node })));
    }
}

const KEY: u64 = 1;

struct Board<H> {
    handle: H,
    _node: Node<ipc::Service>,
}

impl<T: Value + ZeroCopySend + Copy> Writer for Alone<Board<EntryHandleMut<ipc::Service, u64, T>>> {
    fn write(&mut self, number: u64) {
        self.0.handle.update_with_copy(T::make(0, number));
    }
}

impl<T: Value + ZeroCopySend + Copy> Reader for Alone<Board<EntryHandle<ipc::Service, u64, T>>> {
    fn read(&mut self) -> u64 {
        verify(self.0.handle.get().bytes())
    }
}

pub fn board<T: Value + ZeroCopySend + Copy>(worker: Worker) {
    let node = node(worker);
    let name = "board".try_into().expect("a plain name");
    if let Role::Sender(_) = worker.role {
        let service = node.service_builder(&name).blackboard_creator::<u64>().add::<T>(KEY, T::make(0, 0));
        let service = service.create().expect("a blackboard can be had");
        let writer = service.writer_builder().create().expect("a writer can be had");
        let handle = writer.entry::<T>(&KEY).expect("the entry is there");
        worker.run(worker.write(Alone(Board { handle, _node: node })));
    } else {
        let service = loop {
            // The writer creates it.
            match node.service_builder(&name).blackboard_opener::<u64>().open() {
                Ok(service) => break service,
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(1)),
            }
            worker.page.check();
        };
        let reader = service.reader_builder().create().expect("a reader can be had");
        let handle = reader.entry::<T>(&KEY).expect("the entry is there");
        worker.run(worker.read(Alone(Board { handle, _node: node })));
    }
}
