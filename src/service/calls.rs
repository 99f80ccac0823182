//! The calls of a client, and who takes responses out of its channel.
//!
//! All calls of a client wait at one channel. There is no thread and no task for that: whoever comes by *pumps*, a caller that is
//! polled, or whoever wakes the client, on its own thread. One at a time; who comes meanwhile has it go round once more. So the
//! parts of a stream stay in order, and wakers run under no lock.
//!
//! # Why every call ends
//!
//! A call's proof of life is the word of its request's block. As long as somebody may still answer, that block is on its way, or in
//! the hands of a server: its word says so, with the generation under which it was sent. Whoever ends a call without a response
//! frees the block: the server that drops the request, whoever drains the channel after the last server, the reaper of a
//! server that was killed, at whatever instruction. Once freed, a block never has that generation again.
//!
//! * A response is sent *before* the block is freed. So whoever sees the block freed, and then finds no response in the
//!   channel, knows that there will be none. The slate says why, or says nothing: then the server has died.
//! * Whoever frees the block wakes the client after that: the server through the channel of responses
//!   ([`Port::nudge_receiver`](crate::attachment::port::Port::nudge_receiver)), the last server's leaving through the closing of the
//!   channel of requests, the reaper by waking everybody. The client, before it sleeps, takes its places with both, and looks at
//!   the blocks of all its calls after that. So it sees the block freed, or it is woken. A server that is killed between freeing and
//!   waking has a reaper that wakes.
//!
//! A response that was sent before its server died counts: it is taken before the blocks are looked at.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering, fence},
    },
    task::{Context, Poll, Wake, Waker, ready},
};

use crate::{
    alloc::Block,
    attachment::{known::ChannelKey, lease::Held, policies::Marks, port::Refused},
    channel::{Message, Patience, Payload, Receiver, Sendable, Sender, Spell},
    service::{
        letter::{Answer, Query, Question, Reply, WHOLE, open_answer, seal},
        queue::{Place, Queue},
        slate::{CallId, Mark, Slate},
    },
    sys::held::Mutex,
    wake::{Waiter, wakers},
};

/// How a call has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With its last response.
    Answered,
    /// By what a server said; `None`: it was freed, and nothing was said.
    Freed(Option<Mark>),
}

/// A call that is in flight.
struct Call<Resp: Payload + ?Sized> {
    tag: u64,
    /// The request, once there is one.
    block: Option<Block>,
    responses: VecDeque<Message<Resp>>,
    end: Option<End>,
    waker: Option<Waker>,
    /// The caller sleeps, or is about to: the client must have its places.
    sleeps: bool,
}

struct Calls<Resp: Payload + ?Sized> {
    slots: Vec<Option<Call<Resp>>>,
    free: Vec<usize>,
    next_tag: u64,
    /// How many sleep.
    sleeping: usize,
}

/// Where the client waits while callers sleep.
#[derive(Default)]
struct Places {
    responses: Option<Waiter>,
    closing: Option<Waiter>,
}

/// What all clones of a client share.
pub(super) struct Core<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> {
    /// Before the channels, so that they are dropped before them: they look into the segment.
    places: Mutex<Places>,
    has_places: AtomicBool,
    calls: Mutex<Calls<Resp>>,
    /// Who wants a slot for a call.
    want_slot: Arc<Queue>,
    /// How often somebody wanted to pump since the last one who did was done.
    turns: AtomicUsize,
    /// Whether one of those wants to sleep, or was woken.
    thorough: AtomicBool,
    patience: Patience,
    pub(super) requests: Sender<Question<Req, Resp>>,
    responses: Receiver<Answer<Resp>>,
    /// Servers come and go: with this one the channel never says that nobody will send any more.
    _keeps_open: Sender<Answer<Resp>>,
    key: ChannelKey,
    slate: Slate,
    me: Weak<Self>,
}

struct Bell<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static>(Weak<Core<Req, Resp>>);

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> Wake for Bell<Req, Resp> {
    fn wake(self: Arc<Self>) {
        if let Some(core) = self.0.upgrade() {
            core.pump(true);
        }
    }
}

impl<Resp: Payload + ?Sized> Calls<Resp> {
    fn of(&mut self, call: CallId) -> Option<&mut Call<Resp>> {
        self.slots.get_mut(call.slot)?.as_mut().filter(|found| found.tag == call.tag)
    }

    /// A call has ended; who is to be told.
    fn end(&mut self, call: CallId, end: End) -> Option<Waker> {
        let found = self.of(call).filter(|found| found.end.is_none())?;
        found.end = Some(end);
        let waker = found.waker.take();
        let slept = std::mem::take(&mut found.sleeps);
        self.sleeping -= usize::from(slept);
        waker
    }

    /// Puts a response where its caller finds it: who is to be told, or the response if nobody wants it.
    fn deliver(&mut self, call: CallId, kind: u64, response: Message<Resp>) -> Result<Option<Waker>, Message<Resp>> {
        let Some(found) = self.of(call).filter(|found| found.end.is_none()) else { return Err(response) };
        found.responses.push_back(response);
        if kind == WHOLE { Ok(self.end(call, End::Answered)) } else { Ok(found.waker.take()) }
    }
}

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> Core<Req, Resp> {
    pub(super) fn new(
        requests: Sender<Question<Req, Resp>>,
        (keeps_open, responses): (Sender<Answer<Resp>>, Receiver<Answer<Resp>>),
        slate: Slate,
        patience: Patience,
    ) -> Arc<Self> {
        let slots = slate.0.len();
        Arc::new_cyclic(|me| Self {
            places: Mutex::default(),
            has_places: AtomicBool::new(false),
            calls: Mutex::new(Calls { slots: Vec::new(), free: (0..slots).rev().collect(), next_tag: 1, sleeping: 0 }),
            want_slot: Arc::default(),
            turns: AtomicUsize::new(0),
            thorough: AtomicBool::new(false),
            patience,
            key: responses.port.key(),
            requests,
            responses,
            _keeps_open: keeps_open,
            slate,
            me: me.clone(),
        })
    }

    /// Calls that are in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.calls.lock().slots.iter().flatten().count()
    }

    /// Begins a call, as soon as there are fewer than may be in flight.
    pub(super) async fn begin(self: &Arc<Self>) -> Ticket<Req, Resp> {
        let mut place = None;
        std::future::poll_fn(|context| self.poll_begin(&mut place, context)).await
    }

    /// The same, from one poll to the next, between which it has a place among those who wait for a slot.
    pub(super) fn poll_begin(
        self: &Arc<Self>,
        place: &mut Option<Place>,
        context: &mut Context<'_>,
    ) -> Poll<Ticket<Req, Resp>> {
        loop {
            if let Some(waiting) = place {
                ready!(Pin::new(waiting).poll(context));
                *place = None;
            }
            if let Some(ticket) = self.try_begin() {
                return Poll::Ready(ticket);
            }
            *place = Some(self.want_slot.listen());
            // The place is taken: what was given up before is seen now, and what is given up from now on wakes us.
            if let Some(ticket) = self.try_begin() {
                *place = None;
                return Poll::Ready(ticket);
            }
        }
    }

    /// Begins a call, if there are fewer than may be in flight.
    fn try_begin(self: &Arc<Self>) -> Option<Ticket<Req, Resp>> {
        let call = {
            let mut calls = self.calls.lock();
            let slot = calls.free.pop()?;
            let call = CallId::new(calls.next_tag, slot);
            calls.next_tag += 1;
            if calls.slots.len() <= slot {
                calls.slots.resize_with(slot + 1, || None);
            }
            calls.slots[slot] = Some(Call {
                tag: call.tag,
                block: None,
                responses: VecDeque::new(),
                end: None,
                waker: None,
                sleeps: false,
            });
            call
        };
        self.slate.begin(call);
        Some(Ticket { core: Arc::clone(self), call, sent: false, spell: None })
    }

    /// One attempt to send a request.
    fn try_ask<V: Sendable<Req>>(&self, call: CallId, value: &V, deadline: u64, attempt: u32) -> Result<(), Refused> {
        let (port, position) = (&self.requests.port, &self.requests.position);
        port.may_send(position)?;
        let ChannelKey { index, ring } = self.key;
        let lease = seal::<Req, V, Query>(port, value, &Query { call: call.number(), deadline, ring, index, attempt })?;
        // Before it is sent: from then on it may be freed at any time.
        let note = |block| {
            if let Some(found) = self.calls.lock().of(call) {
                found.block = block;
            }
        };
        note(Some(lease.block()));
        lease.give(|lease| port.try_send_new(position, lease, Marks::default())).map_err(|(refused, lease)| {
            note(None);
            drop(lease);
            refused
        })
    }

    /// Takes responses out of the channel, and hands them to their callers. `thorough`: takes places, if callers sleep, and looks
    /// whose request is gone.
    fn pump(&self, thorough: bool) {
        if thorough {
            // Ordering: Relaxed: the counting of turns publishes it.
            self.thorough.store(true, Ordering::Relaxed);
        }
        // Ordering: AcqRel: who pumps sees what was done by those for whom it goes round again.
        if self.turns.fetch_add(1, Ordering::AcqRel) > 0 {
            return;
        }
        let mut taken = 1;
        loop {
            let guard = Unwinding(self);
            self.go_round(self.thorough.swap(false, Ordering::Relaxed));
            std::mem::forget(guard);
            let before = self.turns.fetch_sub(taken, Ordering::AcqRel);
            if before == taken {
                return;
            }
            taken = before - taken;
        }
    }

    fn go_round(&self, thorough: bool) {
        self.take_responses();
        if !thorough {
            if self.has_places.load(Ordering::Relaxed) && self.calls.lock().sleeping == 0 {
                self.leave_places();
            }
            return;
        }
        if self.calls.lock().sleeping == 0 {
            return self.leave_places();
        }
        self.take_places();
        // What was sent before that is seen now, and what is sent from now on wakes us.
        self.take_responses();
        self.look_for_the_lost();
        if self.calls.lock().sleeping == 0 {
            self.leave_places();
        }
    }

    fn take_responses(&self) {
        while let Ok(message) = self.responses.try_recv() {
            let (Reply { call, kind }, response) = open_answer(message);
            let delivered = self.calls.lock().deliver(CallId::of(call), kind, response);
            // Outside of the lock: both run code of others.
            match delivered {
                Ok(Some(waker)) => wakers::wake(waker),
                Ok(None) => {}
                Err(unwanted) => drop(unwanted),
            }
        }
    }

    /// Takes places, or keeps those that it has. Only who pumps does this.
    fn take_places(&self) {
        let waker = Waker::from(Arc::new(Bell(self.me.clone())));
        let context = Context::from_waker(&waker);
        // Out of their lock meanwhile: this runs code of others.
        let Places { responses, closing } = std::mem::take(&mut *self.places.lock());
        let take = |mut place: Option<Waiter>, listen: &dyn Fn() -> Waiter| {
            loop {
                let waiter = place.take().unwrap_or_else(listen);
                if waiter.poll_for_bell(&context).is_pending() {
                    return Some(waiter);
                }
                // We look at everything anyway: nothing is to be passed on.
                waiter.finish();
            }
        };
        let places = Places {
            responses: take(responses, &|| self.responses.port.wait_for_message()),
            closing: take(closing, &|| self.requests.port.wait_for_close()),
        };
        *self.places.lock() = places;
        self.has_places.store(true, Ordering::Relaxed);
        // Ordering: as in `nudge_receiver`: the places are taken before the blocks are looked at.
        fence(Ordering::SeqCst);
    }

    fn leave_places(&self) {
        self.has_places.store(false, Ordering::Relaxed);
        let left = std::mem::take(&mut *self.places.lock());
        [left.responses, left.closing].into_iter().flatten().for_each(Waiter::finish);
    }

    /// Ends the calls whose requests are gone.
    fn look_for_the_lost(&self) {
        let attachment = self.requests.port.attachment();
        let lost: Vec<CallId> = {
            let calls = self.calls.lock();
            let is_lost =
                |call: &Call<Resp>| call.end.is_none() && call.block.is_some_and(|block| !attachment.is_there(block));
            let found = calls.slots.iter().enumerate();
            found
                .filter_map(|(slot, call)| call.as_ref().filter(|call| is_lost(call)).map(|call| (slot, call.tag)))
                .map(|(slot, tag)| CallId { tag, slot })
                .collect()
        };
        if lost.is_empty() {
            return;
        }
        // What was sent before the request was freed is there by now.
        fence(Ordering::SeqCst);
        self.take_responses();
        for call in lost {
            let waker = self.calls.lock().end(call, End::Freed(self.slate.verdict(call)));
            waker.into_iter().for_each(wakers::wake);
        }
    }
}

/// Whoever pumped has panicked, in a subscriber or a recorder: others may pump, and those who left it to us must.
struct Unwinding<'a, Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static>(&'a Core<Req, Resp>);

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> Drop for Unwinding<'_, Req, Resp> {
    fn drop(&mut self) {
        // Ordering: AcqRel, as in `pump`.
        self.0.turns.swap(0, Ordering::AcqRel);
        let all: Vec<Waker> =
            self.0.calls.lock().slots.iter_mut().flatten().filter_map(|call| call.waker.take()).collect();
        all.into_iter().for_each(wakers::wake);
    }
}

/// The task that is to be woken is not the one that waits.
struct NoWaker;

/// A call that has begun. Dropping it gives it up.
pub(super) struct Ticket<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> {
    core: Arc<Core<Req, Resp>>,
    call: CallId,
    sent: bool,
    /// The wait for the first response, and whether yielding was in vain.
    spell: Option<(Spell, bool)>,
}

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> Ticket<Req, Resp> {
    /// Sends the request, as soon as there is room and memory.
    pub(super) async fn ask<V: Sendable<Req>>(
        &mut self,
        value: &V,
        deadline: u64,
        attempt: u32,
    ) -> Result<(), crate::channel::SendErrorKind> {
        let (core, call) = (&self.core, self.call);
        core.requests
            .until_done(|| core.try_ask(call, value, deadline, attempt).map_err(crate::channel::Wait::sort))
            .await?;
        self.sent = true;
        Ok(())
    }

    /// The next response, or how the call has ended.
    pub(super) fn poll_response(&mut self, context: &mut Context<'_>) -> Poll<Result<Message<Resp>, End>> {
        let core = Arc::clone(&self.core);
        if !core.requests.port.attachment().is_usable() {
            // A forked child: whoever answers, answers its parent.
            return Poll::Ready(Err(End::Freed(None)));
        }
        let (sleeps, sleeping) = loop {
            core.pump(false);
            if let Some(ready) = self.take(context) {
                return Poll::Ready(ready);
            }
            let (spell, is_parked) = *self.spell.get_or_insert_with(|| (core.patience.begin(), false));
            if !is_parked && ready!(spell.poll_goes_on(context)) {
                continue;
            }
            self.spell = Some((spell, true));
            let mut calls = core.calls.lock();
            let slept = calls.of(self.call).is_some_and(|call| std::mem::replace(&mut call.sleeps, true));
            calls.sleeping += usize::from(!slept);
            break (!slept, calls.sleeping);
        };
        if sleeps {
            core.pump(true);
            if let Some(ready) = self.take(context) {
                return Poll::Ready(ready);
            }
        }
        core.requests.port.attachment().drive(sleeps, sleeping, context);
        Poll::Pending
    }

    /// What there is for the caller; if there is nothing, leaves its waker.
    fn take(&mut self, context: &mut Context<'_>) -> Option<Result<Message<Resp>, End>> {
        let ready = match self.look(None, context) {
            Ok(ready) => ready,
            // What came meanwhile is seen by the second look, and what comes from now on wakes.
            Err(NoWaker) => self.look(Some(wakers::copy(context.waker())), context).ok()?,
        };
        if ready.is_some()
            && let Some((spell, parked)) = self.spell.take()
        {
            spell.end(&self.core.patience, parked);
        }
        ready
    }

    /// The same, with a waker to leave, if the one that is there is of another task.
    #[allow(clippy::type_complexity)] // What there is, if there is something; if a waker can be left otherwise.
    fn look(&self, waker: Option<Waker>, context: &Context<'_>) -> Result<Option<Result<Message<Resp>, End>>, NoWaker> {
        // What is not needed is dropped outside of the lock.
        let (found, unused) = {
            let mut calls = self.core.calls.lock();
            match calls.of(self.call) {
                None => (Ok(None), waker),
                Some(call) => match call.responses.pop_front().map(Ok).or(call.end.map(Err)) {
                    Some(ready) => {
                        let slept = std::mem::take(&mut call.sleeps);
                        calls.sleeping -= usize::from(slept);
                        (Ok(Some(ready)), waker)
                    }
                    None if call.waker.as_ref().is_some_and(|known| known.will_wake(context.waker())) => {
                        (Ok(None), waker)
                    }
                    None => match waker {
                        Some(waker) => (Ok(None), call.waker.replace(waker)),
                        None => (Err(NoWaker), None),
                    },
                },
            }
        };
        wakers::discard(unused);
        found
    }

    pub(super) fn core(&self) -> &Arc<Core<Req, Resp>> {
        &self.core
    }

    /// Whether the service is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.core.requests.is_closed()
    }

    /// The caller has used a part of a stream: the server may send more.
    pub(super) fn use_part(&mut self) {
        let (used, waits) = self.core.slate.use_part(self.call);
        if waits && used.is_multiple_of(super::WINDOW / 2) {
            self.core.slate.wait_no_more(self.call);
            self.core.responses.port.nudge_closing();
        }
    }
}

impl<Req: Payload + ?Sized + 'static, Resp: Payload + ?Sized + 'static> Drop for Ticket<Req, Resp> {
    fn drop(&mut self) {
        let core = &self.core;
        core.slate.end(self.call);
        let call = {
            let mut calls = core.calls.lock();
            let found = calls.of(self.call).is_some();
            let call = if found { calls.slots[self.call.slot].take() } else { None };
            calls.sleeping -= usize::from(call.as_ref().is_some_and(|call| call.sleeps));
            calls.free.push(self.call.slot);
            call
        };
        core.want_slot.tell_one();
        let is_open = call.as_ref().is_some_and(|call| call.end.is_none());
        if let Some(Call { waker, responses, .. }) = call {
            drop(responses);
            wakers::discard(waker);
        }
        if self.sent && is_open {
            // The server may be at it.
            core.responses.port.nudge_closing();
            core.pump(true);
        } else if core.has_places.load(Ordering::Relaxed) {
            core.pump(false);
        }
    }
}
