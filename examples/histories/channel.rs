//! Channels: an actor's senders, receivers, permits, and messages in its hands.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Waker},
};

use waterway::{
    ChannelOptions, Delivery, Message, OwnedPermit, Receiver, Segment, SendError, Sender, TryRecvError, TrySendError,
    channel::{ForwardError, Payload},
    policy::{Policy, Priority, PriorityBy, RouteKey},
};

use crate::{
    actor::{Part, Stage},
    log::{Act, Outcome},
    program::{Object, Verb},
};

waterway::plain_types! {
    /// A message that shows whether it is whole.
    pub(crate) struct Item {
        pub(crate) id: u64,
        pub(crate) check: u64,
    }
}

fn check(id: u64) -> u64 {
    id.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Item {
    pub(crate) fn new(id: u64) -> Self {
        Self { id, check: check(id) }
    }

    pub(crate) fn verify(&self) -> Option<u64> {
        (self.check == check(self.id)).then_some(self.id)
    }
}

/// The level that a message is of, where there are levels.
pub(crate) fn level(id: u64) -> Priority {
    [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent][(id >> 1) as usize % 4]
}

impl Policy for Item {
    fn priority(&self) -> Priority {
        level(self.id)
    }

    fn route(&self) -> RouteKey {
        key(self.id)
    }
}

/// Of a routed channel.
pub(crate) fn key(id: u64) -> RouteKey {
    match id % 5 {
        0 => RouteKey::default(),
        key => RouteKey::from(key),
    }
}

type Sending<'a> = Pin<Box<dyn Future<Output = bool> + 'a>>;

/// A type of messages: how one is made of a number.
pub(crate) trait Load: Payload + 'static {
    fn options(segment: &Segment, object: &Object) -> ChannelOptions<Self>;
    fn try_send(sender: &Sender<Self>, id: u64) -> Result<(), Outcome>;
    fn send(sender: &Sender<Self>, id: u64) -> Sending<'_>;
    fn try_reserve(sender: Sender<Self>, id: u64) -> Result<OwnedPermit<Self>, (Outcome, Option<Sender<Self>>)>;
    fn reserve_many<'a>(
        sender: &'a Sender<Self>,
        ids: &'a [u64],
        put: &'a dyn Fn(u64, &mut dyn FnMut()),
    ) -> Sending<'a>;
    fn use_permit(permit: OwnedPermit<Self>, id: u64) -> Sender<Self>;
    /// The number, if all of it is there.
    fn verify(bytes: &[u8]) -> Option<u64>;
}

fn refused<V>(error: &TrySendError<V>) -> Outcome {
    match error {
        TrySendError::Full(_) => Outcome::Full,
        TrySendError::Closed(_) => Outcome::Closed,
        _ => Outcome::Unexpected,
    }
}

fn was_sent<V>(result: Result<(), SendError<V>>) -> bool {
    result.is_ok()
}

fn options<T: Payload + ?Sized>(options: ChannelOptions<T>, object: &Object) -> ChannelOptions<T> {
    let options = options.capacity(object.capacity).persistent(object.persistent);
    match object.deliveries {
        Some(max_deliveries) => options.delivery(Delivery::AtLeastOnce { max_deliveries }),
        None => options,
    }
}

impl Load for Item {
    fn options(segment: &Segment, object: &Object) -> ChannelOptions<Self> {
        let options = options(segment.channel::<Self>(&object.name()), object);
        match object.levels {
            true => options.policy(PriorityBy(|item: &Item| level(item.id))),
            false => options,
        }
    }

    fn try_send(sender: &Sender<Self>, id: u64) -> Result<(), Outcome> {
        sender.try_send(Self::new(id)).map_err(|error| refused(&error))
    }

    fn send(sender: &Sender<Self>, id: u64) -> Sending<'_> {
        Box::pin(async move { was_sent(sender.send(Self::new(id)).await) })
    }

    fn try_reserve(sender: Sender<Self>, _: u64) -> Result<OwnedPermit<Self>, (Outcome, Option<Sender<Self>>)> {
        sender.try_reserve_owned().map_err(|error| (refused(&error), Some(error.into_inner())))
    }

    fn reserve_many<'a>(
        sender: &'a Sender<Self>,
        ids: &'a [u64],
        put: &'a dyn Fn(u64, &mut dyn FnMut()),
    ) -> Sending<'a> {
        Box::pin(async move {
            let Ok(permits) = sender.reserve_many(ids.len()).await else { return false };
            for (permit, id) in permits.zip(ids) {
                let mut permit = Some(permit);
                put(*id, &mut || {
                    if let Some(permit) = permit.take() {
                        permit.send(Self::new(*id));
                    }
                });
            }
            true
        })
    }

    fn use_permit(permit: OwnedPermit<Self>, id: u64) -> Sender<Self> {
        permit.send(Self::new(id))
    }

    fn verify(bytes: &[u8]) -> Option<u64> {
        let word = |at| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        Self { id: word(0)?, check: word(8)? }.verify()
    }
}

macro_rules! slices {
    ($element:ty, $make:path, $verify:path) => {
        impl Load for [$element] {
            fn options(segment: &Segment, object: &Object) -> ChannelOptions<Self> {
                options(segment.channel::<Self>(&object.name()), object)
            }

            fn try_send(sender: &Sender<Self>, id: u64) -> Result<(), Outcome> {
                sender.try_send($make(id)).map_err(|error| refused(&error))
            }

            fn send(sender: &Sender<Self>, id: u64) -> Sending<'_> {
                Box::pin(async move { was_sent(sender.send($make(id)).await) })
            }

            fn try_reserve(
                sender: Sender<Self>,
                id: u64,
            ) -> Result<OwnedPermit<Self>, (Outcome, Option<Sender<Self>>)> {
                let len = $make(id).len();
                sender.try_reserve_owned(len).map_err(|error| (refused(&error), Some(error.into_inner())))
            }

            fn reserve_many<'a>(
                sender: &'a Sender<Self>,
                ids: &'a [u64],
                put: &'a dyn Fn(u64, &mut dyn FnMut()),
            ) -> Sending<'a> {
                Box::pin(async move {
                    let most = ids.iter().map(|id| $make(*id).len()).max().unwrap_or_default();
                    let Ok(permits) = sender.reserve_many(ids.len(), most).await else { return false };
                    for (permit, id) in permits.zip(ids) {
                        let mut permit = Some(permit);
                        put(*id, &mut || {
                            if let Some(mut permit) = permit.take() {
                                permit.extend_from_slice(&$make(*id));
                                permit.send();
                            }
                        });
                    }
                    true
                })
            }

            fn use_permit(mut permit: OwnedPermit<Self>, id: u64) -> Sender<Self> {
                permit.extend_from_slice(&$make(id));
                permit.send()
            }

            fn verify(bytes: &[u8]) -> Option<u64> {
                $verify(bytes)
            }
        }
    };
}

fn words(id: u64) -> Vec<u64> {
    std::iter::once(id).chain((1..1 + id % 40).map(|word| check(id + word))).collect()
}

fn verify_words(bytes: &[u8]) -> Option<u64> {
    let id = u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?);
    words(id).iter().flat_map(|word| word.to_ne_bytes()).eq(bytes.iter().copied()).then_some(id)
}

fn bytes(id: u64) -> Vec<u8> {
    id.to_ne_bytes().into_iter().chain((0..id % 300).map(|byte| check(id + byte) as u8)).collect()
}

fn verify_bytes(found: &[u8]) -> Option<u64> {
    let id = u64::from_ne_bytes(found.get(..8)?.try_into().ok()?);
    (bytes(id) == found).then_some(id)
}

slices!(u64, words, verify_words);
slices!(u8, bytes, verify_bytes);

/// Receives what was sent before a receiver came: such messages keep the channel.
pub(crate) fn empty(segment: &Segment, object: &Object) -> usize {
    fn rest<T: Load + ?Sized>(segment: &Segment, object: &Object) -> usize {
        let receiver = T::options(segment, object).receiver();
        receiver.map_or(0, |receiver| std::iter::from_fn(|| receiver.try_recv().ok()).count())
    }
    match object.payload {
        0 => rest::<Item>(segment, object),
        1 => rest::<[u64]>(segment, object),
        _ => rest::<[u8]>(segment, object),
    }
}

/// A message in the hands of an actor.
struct Held<T: Load + ?Sized> {
    id: u64,
    message: Message<T>,
}

/// Room that an actor has: the handle of the sender that is in it, and its own number.
struct Room<T: Load + ?Sized> {
    handle: u64,
    permit: u64,
    id: u64,
    owned: OwnedPermit<T>,
}

pub(crate) struct Channel<T: Load + ?Sized> {
    object: Object,
    senders: Vec<(u64, Sender<T>)>,
    receivers: Vec<(u64, Receiver<T>)>,
    rooms: Vec<Room<T>>,
    held: Vec<Held<T>>,
}

/// No actor has more of anything.
const MOST: usize = 4;

/// Takes one of them out.
pub(crate) fn take<E>(of: &mut Vec<E>, argument: usize) -> Option<E> {
    (!of.is_empty()).then(|| of.swap_remove(argument % of.len()))
}

/// Looks at one of them.
pub(crate) fn one<E>(of: &[E], argument: usize) -> Option<&E> {
    (!of.is_empty()).then(|| &of[argument % of.len()])
}

impl<T: Load + ?Sized> Channel<T> {
    pub(crate) fn new(object: Object) -> Self {
        Self { object, senders: Vec::new(), receivers: Vec::new(), rooms: Vec::new(), held: Vec::new() }
    }

    fn open_sender(&mut self, stage: &Stage<'_>) {
        if self.senders.len() < MOST {
            let open = || T::options(stage.segment, &self.object).sender();
            self.senders.extend(stage.open(Act::OpenSender, self.object.capacity as u64, open));
        }
    }

    fn open_receiver(&mut self, stage: &Stage<'_>) {
        if self.receivers.len() < MOST {
            let open = || T::options(stage.segment, &self.object).receiver();
            self.receivers.extend(stage.open(Act::OpenReceiver, 0, open));
        }
    }

    fn put(&self, stage: &Stage<'_>, argument: usize) -> bool {
        let Some((handle, sender)) = one(&self.senders, argument) else { return false };
        let id = stage.new_id();
        stage.done(Act::Put, *handle, id, || match T::try_send(sender, id) {
            Ok(()) => (true, Outcome::Ok, id, 0),
            Err(outcome) => (false, outcome, id, 0),
        })
    }

    fn got(message: Message<T>) -> (Option<Held<T>>, Outcome, u64, u64) {
        let more = u64::from(message.delivery_count());
        match T::verify(message.as_ref()) {
            Some(id) => (Some(Held { id, message }), Outcome::Ok, id, more),
            None => (None, Outcome::Damaged, 0, more),
        }
    }

    fn take(&mut self, stage: &Stage<'_>, argument: usize) -> bool {
        let Some((handle, receiver)) = one(&self.receivers, argument) else { return false };
        let held = stage.done(Act::Take, *handle, 0, || match receiver.try_recv() {
            Ok(message) => Self::got(message),
            Err(TryRecvError::Disconnected) => (None, Outcome::Closed, 0, 0),
            Err(_) => (None, Outcome::Empty, 0, 0),
        });
        let is_there = held.is_some();
        self.hold(held);
        is_there
    }

    fn hold(&mut self, held: Option<Held<T>>) {
        self.held.extend(held);
        while self.held.len() > MOST {
            self.held.swap_remove(0).message.ack();
        }
    }

    /// Waits for a message, and says whether it was worth it.
    fn take_waiting(&mut self, stage: &Stage<'_>, argument: usize, polls: Option<usize>) {
        let Some((handle, receiver)) = one(&self.receivers, argument) else { return };
        let held = stage.done(Act::Take, *handle, 0, || {
            // The end, if there were senders that could go.
            let ends = self.object.deliveries.is_none() && !self.object.persistent && receiver.sender_count() > 0;
            let there_is = || !receiver.is_empty() || ends && receiver.sender_count() == 0;
            let found = match polls {
                Some(polls) => stage.poll(receiver.recv(), polls),
                None => stage.wait(receiver.recv(), there_is),
            };
            match found {
                Some(Some(message)) => Self::got(message),
                Some(None) => (None, Outcome::Closed, 0, 0),
                None => (None, Outcome::GaveUp, 0, 0),
            }
        });
        self.hold(held);
    }

    fn drop_sender(&mut self, stage: &Stage<'_>, argument: usize) {
        if let Some((handle, sender)) = take(&mut self.senders, argument) {
            stage.drop(Act::DropSender, handle, sender);
        }
    }

    fn drop_receiver(&mut self, stage: &Stage<'_>, argument: usize) {
        if let Some((handle, receiver)) = take(&mut self.receivers, argument) {
            stage.drop(Act::DropReceiver, handle, receiver);
        }
    }

    fn reserve(&mut self, stage: &Stage<'_>, argument: usize) {
        let Some((_, sender)) = one(&self.senders, argument) else { return };
        if self.rooms.len() >= MOST {
            return;
        }
        let (handle, id, permit) = (stage.new_id(), stage.new_id(), stage.new_id());
        let clone =
            stage.done(Act::OpenSender, handle, 0, || (sender.clone(), Outcome::Ok, 0, self.object.capacity as u64));
        let (room, rest) = stage.done(Act::Reserve, handle, permit, || match T::try_reserve(clone, id) {
            Ok(owned) => ((Some(Room { handle, permit, id, owned }), None), Outcome::Ok, permit, 1),
            Err((outcome, sender)) => ((None, sender), outcome, permit, 1),
        });
        self.rooms.extend(room);
        if let Some(sender) = rest {
            stage.drop(Act::DropSender, handle, sender);
        }
    }

    fn reserve_many(&mut self, stage: &Stage<'_>, argument: usize) {
        let Some((handle, sender)) = one(&self.senders, argument) else { return };
        let ids: Vec<u64> = (0..1 + argument % 3).map(|_| stage.new_id()).collect();
        // It keeps others out while it waits, and until all are used.
        stage.done(Act::InLine, *handle, 0, || {
            let put = |id: u64, send: &mut dyn FnMut()| {
                stage.done(Act::Put, *handle, id, || {
                    send();
                    ((), Outcome::Ok, id, 0)
                });
            };
            let sending = T::reserve_many(sender, &ids, &put);
            let done = match argument % 5 {
                0 => stage.poll(sending, 2),
                _ => stage.wait(sending, || false),
            };
            let outcome = match done {
                Some(true) => Outcome::Ok,
                Some(false) => Outcome::Closed,
                None => Outcome::GaveUp,
            };
            ((), outcome, 0, ids.len() as u64)
        });
    }

    fn end_permit(&mut self, stage: &Stage<'_>, argument: usize, use_it: bool) {
        let Some(Room { handle, permit, id, owned }) = take(&mut self.rooms, argument) else { return };
        stage.done(Act::EndPermit, handle, permit, || {
            let sender = match use_it {
                true => stage.done(Act::Put, handle, id, || (T::use_permit(owned, id), Outcome::Ok, id, 0)),
                false => owned.release(),
            };
            stage.drop(Act::DropSender, handle, sender);
            ((), Outcome::Ok, permit, 0)
        });
    }

    fn forward(&mut self, stage: &Stage<'_>, argument: usize) {
        let Some(Held { id, message }) = take(&mut self.held, argument) else { return };
        let Some((handle, sender)) = one(&self.senders, argument) else {
            self.held.push(Held { id, message });
            return;
        };
        let back = stage.done(Act::Put, *handle, id, || match message.forward(sender) {
            Ok(()) => (None, Outcome::Ok, id, 1),
            Err(error) => {
                let outcome = match &error {
                    ForwardError::Full(_) => Outcome::Full,
                    ForwardError::Closed(_) => Outcome::Closed,
                    _ => Outcome::Unexpected,
                };
                (Some(Held { id, message: error.into_inner() }), outcome, id, 1)
            }
        });
        self.hold(back);
    }

    fn nack(&mut self, stage: &Stage<'_>, argument: usize) {
        if let Some(Held { id, message }) = take(&mut self.held, argument)
            && self.object.deliveries.is_some()
        {
            let more = u64::from(message.delivery_count());
            stage.done(Act::Nack, 0, id, || (message.nack(), Outcome::Ok, id, more));
        }
    }

    fn wait_closed(&self, stage: &Stage<'_>, argument: usize) {
        if let Some((_, sender)) = one(&self.senders, argument) {
            stage.wait(sender.closed(), || sender.is_closed());
        }
    }
}

impl<T: Load + ?Sized> Part for Channel<T> {
    fn step(&mut self, stage: &Stage<'_>, verb: Verb, argument: usize) {
        match verb {
            Verb::OpenSender => self.open_sender(stage),
            Verb::OpenReceiver => self.open_receiver(stage),
            Verb::OpenBoth => {
                self.open_sender(stage);
                self.open_receiver(stage);
            }
            Verb::CloneSender => {
                if let Some((_, sender)) = one(&self.senders, argument)
                    && self.senders.len() < MOST
                {
                    let cloned = stage.open(Act::OpenSender, self.object.capacity as u64, || Ok(sender.clone()));
                    self.senders.extend(cloned);
                }
            }
            Verb::CloneReceiver => {
                if let Some((_, receiver)) = one(&self.receivers, argument)
                    && self.receivers.len() < MOST
                {
                    let cloned = stage.open(Act::OpenReceiver, 0, || Ok(receiver.clone()));
                    self.receivers.extend(cloned);
                }
            }
            Verb::DropSender => self.drop_sender(stage, argument),
            Verb::DropReceiver => self.drop_receiver(stage, argument),
            Verb::DropAll => {
                self.settle(stage);
                self.leave(stage, argument);
            }
            Verb::Put => drop(self.put(stage, argument)),
            Verb::PutMany => {
                let mut refused = 0;
                for _ in 0..1 + argument % [4, 16, 64][argument / 64 % 3] {
                    if !self.put(stage, argument) {
                        stage.pause(refused);
                        refused += 1;
                    }
                    if refused > 20 {
                        break;
                    }
                }
            }
            Verb::PutWait | Verb::PollPut => {
                let Some((handle, sender)) = one(&self.senders, argument) else { return };
                let id = stage.new_id();
                stage.done(Act::Put, *handle, id, || {
                    // Where there are levels there may be room, and not for this one.
                    let there_is = || !self.object.levels && sender.capacity() > 0 || sender.is_closed();
                    let done = match verb {
                        Verb::PollPut => stage.poll(T::send(sender, id), 1 + argument % 3),
                        _ => stage.wait(T::send(sender, id), there_is),
                    };
                    let outcome = match done {
                        Some(true) => Outcome::Ok,
                        Some(false) => Outcome::Closed,
                        None => Outcome::GaveUp,
                    };
                    ((), outcome, id, 0)
                });
            }
            Verb::Take => drop(self.take(stage, argument)),
            Verb::TakeMany => {
                for _ in 0..1 + argument % 32 {
                    if !self.take(stage, argument) {
                        break;
                    }
                }
            }
            Verb::TakeSpin => {
                for _ in 0..1 + argument % 500 {
                    if self.take(stage, argument) {
                        break;
                    }
                }
            }
            Verb::TakeWait => self.take_waiting(stage, argument, None),
            Verb::PollTake => self.take_waiting(stage, argument, Some(1 + argument % 3)),
            Verb::PollLeave => {
                let Some((handle, receiver)) = take(&mut self.receivers, argument) else { return };
                for _ in 0..1 + argument % 300 {
                    let polled = stage.done(Act::Take, handle, 0, || {
                        match receiver.poll_recv(&mut Context::from_waker(Waker::noop())) {
                            std::task::Poll::Ready(Some(message)) => Self::got(message),
                            std::task::Poll::Ready(None) => (None, Outcome::Closed, 0, 0),
                            std::task::Poll::Pending => (None, Outcome::Empty, 0, 0),
                        }
                    });
                    if polled.is_some() {
                        self.hold(polled);
                        break;
                    }
                }
                stage.drop(Act::DropReceiver, handle, receiver);
            }
            Verb::WaitClosed => self.wait_closed(stage, argument),
            Verb::WaitClosedMoveOn => {
                self.wait_closed(stage, argument);
                while !self.senders.is_empty() {
                    self.drop_sender(stage, 0);
                }
                self.open_receiver(stage);
                match argument % 2 {
                    0 => self.take_waiting(stage, argument, None),
                    _ => self.open_sender(stage),
                }
            }
            Verb::Close => {
                if let Some((handle, receiver)) = one(&self.receivers, argument) {
                    stage.done(Act::Close, *handle, 0, || (receiver.close(), Outcome::Ok, 0, 0));
                    // And what it had is received, up to the end.
                    if argument.is_multiple_of(2) {
                        while self.take(stage, argument) {}
                    }
                }
            }
            Verb::Reserve => self.reserve(stage, argument),
            Verb::ReserveMany => self.reserve_many(stage, argument),
            Verb::UsePermit => self.end_permit(stage, argument, true),
            Verb::DropPermit => self.end_permit(stage, argument, false),
            Verb::Ack => {
                if let Some(held) = take(&mut self.held, argument) {
                    held.message.ack();
                }
            }
            Verb::Nack => self.nack(stage, argument),
            Verb::Forward => self.forward(stage, argument),
            Verb::Meet | Verb::Sleep | Verb::Spin | Verb::Yield => {}
        }
    }

    fn settle(&mut self, stage: &Stage<'_>) {
        while !self.rooms.is_empty() {
            self.end_permit(stage, 0, false);
        }
        self.held.drain(..).for_each(|held| held.message.ack());
    }

    fn drain(&mut self, stage: &Stage<'_>) {
        for receiver in 0..self.receivers.len() {
            while self.take(stage, receiver) {
                self.held.drain(..).for_each(|held| held.message.ack());
            }
        }
    }

    fn leave(&mut self, stage: &Stage<'_>, argument: usize) {
        while !self.senders.is_empty() || !self.receivers.is_empty() {
            match argument % 2 {
                0 => self.drop_sender(stage, argument),
                _ => self.drop_receiver(stage, argument),
            }
            match argument % 2 {
                0 => self.drop_receiver(stage, argument),
                _ => self.drop_sender(stage, argument),
            }
        }
    }
}
