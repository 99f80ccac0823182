//! Services: every answer is that of its own question.

use waterway::{
    Delivery, Segment, TryRecvError,
    service::{self, Client, Request, Server},
};

use crate::{
    actor::{Part, Stage},
    channel::{Item, one, take},
    log::{Act, Outcome},
    program::{Object, Verb},
};

const MOST: usize = 2;
const MOST_HELD: usize = 3;
/// Of a response, that says it is one.
const ANSWER: u64 = 1 << 63;

pub(crate) struct Service {
    object: Object,
    clients: Vec<(u64, Client<Item, Item>)>,
    servers: Vec<(u64, Server<Item, Item>)>,
    held: Vec<(u64, Request<Item, Item>)>,
}

impl Service {
    pub(crate) fn new(object: Object) -> Self {
        Self { object, clients: Vec::new(), servers: Vec::new(), held: Vec::new() }
    }

    fn options(&self, segment: &Segment) -> service::Options<Item, Item> {
        let options = segment.service::<Item, Item>(&self.object.name());
        let options = options.capacity(self.object.capacity).calls(1 + self.object.capacity % 5);
        match self.object.deliveries {
            Some(max_deliveries) => options.delivery(Delivery::AtLeastOnce { max_deliveries }),
            None => options,
        }
    }

    fn call(&self, stage: &Stage<'_>, argument: usize, polls: Option<usize>) {
        let Some((handle, client)) = one(&self.clients, argument) else { return };
        let id = stage.new_id();
        stage.done(Act::Call, *handle, id, || {
            let call = client.call(Item::new(id));
            let answer = match polls {
                Some(polls) => stage.poll(call, polls),
                None => stage.wait(call, || stage.log.has_done(Act::Respond, Outcome::Ok, id)),
            };
            match answer {
                Some(Ok(answer)) => match answer.verify() {
                    Some(found) if found == id | ANSWER => ((), Outcome::Ok, id, 0),
                    _ => ((), Outcome::Damaged, id, 0),
                },
                Some(Err(_)) => ((), Outcome::Closed, id, 0),
                None => ((), Outcome::GaveUp, id, 0),
            }
        });
    }

    fn next(&mut self, stage: &Stage<'_>, argument: usize, waits: bool) -> bool {
        let Some((handle, server)) = one(&self.servers, argument) else { return false };
        let got = stage.done(Act::Take, *handle, 0, || {
            let found = match waits {
                true => match stage.wait(server.next(), || !server.is_empty()) {
                    Some(found) => found.ok_or(Outcome::Closed),
                    None => Err(Outcome::GaveUp),
                },
                false => server.try_next().map_err(|error| match error {
                    TryRecvError::Disconnected => Outcome::Closed,
                    _ => Outcome::Empty,
                }),
            };
            match found {
                Ok(request) => match request.verify() {
                    Some(id) => {
                        let more = u64::from(request.delivery_count());
                        (Some((id, request)), Outcome::Ok, id, more)
                    }
                    None => (None, Outcome::Damaged, 0, 0),
                },
                Err(outcome) => (None, outcome, 0, 0),
            }
        });
        let is_there = got.is_some();
        self.held.extend(got);
        while self.held.len() > MOST_HELD {
            self.respond(stage, 0);
        }
        is_there
    }

    fn respond(&mut self, stage: &Stage<'_>, argument: usize) {
        let Some((id, request)) = take(&mut self.held, argument) else { return };
        let back = stage.done(Act::Respond, 0, id, || match request.try_respond(Item::new(id | ANSWER)) {
            Ok(()) => (None, Outcome::Ok, id, 0),
            Err((request, waterway::TrySendError::Full(_))) => (Some((id, request)), Outcome::Full, id, 0),
            Err(_) => (None, Outcome::Closed, id, 0),
        });
        drop(back);
    }
}

/// As that of channels.
pub(crate) fn empty(segment: &Segment, object: &Object) -> usize {
    let server = Service::new(*object).options(segment).server();
    server.map_or(0, |server| std::iter::from_fn(|| server.try_next().ok()).take(10_000).count())
}

impl Part for Service {
    fn step(&mut self, stage: &Stage<'_>, verb: Verb, argument: usize) {
        match verb {
            Verb::OpenSender if self.clients.len() < MOST => {
                self.clients.extend(stage.open(Act::OpenSender, 0, || self.options(stage.segment).client()));
            }
            Verb::OpenReceiver if self.servers.len() < MOST => {
                self.servers.extend(stage.open(Act::OpenReceiver, 0, || self.options(stage.segment).server()));
            }
            Verb::OpenBoth => {
                self.step(stage, Verb::OpenReceiver, argument);
                self.step(stage, Verb::OpenSender, argument);
            }
            Verb::DropSender => {
                if let Some((handle, client)) = take(&mut self.clients, argument) {
                    stage.drop(Act::DropSender, handle, client);
                }
            }
            Verb::DropReceiver | Verb::PollLeave => {
                if let Some((handle, server)) = take(&mut self.servers, argument) {
                    stage.drop(Act::DropReceiver, handle, server);
                }
            }
            Verb::DropAll => {
                self.settle(stage);
                self.leave(stage, argument);
            }
            Verb::Put | Verb::PutWait | Verb::Reserve => self.call(stage, argument, None),
            Verb::PollPut => self.call(stage, argument, Some(1 + argument % 4)),
            Verb::PutMany => (0..1 + argument % 4).for_each(|_| self.call(stage, argument, Some(2))),
            Verb::Take => drop(self.next(stage, argument, false)),
            Verb::TakeMany | Verb::TakeSpin => {
                for _ in 0..1 + argument % 16 {
                    self.next(stage, argument, false);
                    self.respond(stage, argument);
                }
            }
            Verb::TakeWait => {
                self.next(stage, argument, true);
                if argument.is_multiple_of(2) {
                    self.respond(stage, argument);
                }
            }
            Verb::Ack | Verb::UsePermit => self.respond(stage, argument),
            Verb::Nack => {
                if let Some((id, request)) = take(&mut self.held, argument) {
                    stage.done(Act::Nack, 0, id, || (request.nack(), Outcome::Ok, id, 0));
                }
            }
            Verb::DropPermit => drop(take(&mut self.held, argument)),
            Verb::Close => {
                if let Some((handle, server)) = one(&self.servers, argument) {
                    stage.done(Act::Close, *handle, 0, || (server.close(), Outcome::Ok, 0, 0));
                }
            }
            Verb::WaitClosed => {
                if let Some((_, client)) = one(&self.clients, argument) {
                    stage.wait(client.closed(), || client.is_closed());
                }
            }
            _ => {}
        }
    }

    fn settle(&mut self, stage: &Stage<'_>) {
        while !self.held.is_empty() {
            self.respond(stage, 0);
        }
    }

    fn drain(&mut self, stage: &Stage<'_>) {
        for server in 0..self.servers.len() {
            while self.next(stage, server, false) {
                self.respond(stage, 0);
            }
        }
        // All calls are over, as their futures are.
        for (_, client) in &self.clients {
            if client.in_flight() > 0 {
                stage.wrong(Outcome::Unexpected, client.in_flight() as u64);
            }
        }
    }

    fn leave(&mut self, stage: &Stage<'_>, argument: usize) {
        while let Some((handle, client)) = take(&mut self.clients, argument) {
            stage.drop(Act::DropSender, handle, client);
        }
        while let Some((handle, server)) = take(&mut self.servers, argument) {
            stage.drop(Act::DropReceiver, handle, server);
        }
    }
}
