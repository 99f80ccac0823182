//! A server's link to a client: the way back, and news of what the client does not want any more.
//!
//! A link has a sender of the client's channel of responses, so that channel and its slate stay for as long as it is there. It
//! always has a place among those who wait for the channel to close. Whoever cancels a call wakes them, and so do the client's
//! leaving and its death: then the link tells those who wait here, and, if the client has gone, it goes, too. It is rung on
//! whatever thread wakes, and has no task of its own.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
    task::{Context, Poll, Wake, Waker},
};

use crate::{
    attachment::{Anchor, Attachment, directory::End, known::ChannelKey, lease::Held, policies::Marks, port::Refused},
    channel::{Payload, Sendable, Sender, Wait, WaitStrategy},
    schema::hash_of,
    service::{
        letter::{Answer, Reply, seal},
        slate::{CallId, Mark, Slate},
    },
    sys::held::Mutex,
    wake::{Waiter, wakers},
};

/// The links of a server and its clones.
pub(super) struct Links<Resp: Payload + ?Sized + 'static> {
    attachment: Anchor,
    strategy: WaitStrategy,
    links: Mutex<HashMap<ChannelKey, Arc<Link<Resp>>>>,
}

/// A link to a client. See the module.
pub(super) struct Link<Resp: Payload + ?Sized + 'static> {
    /// Before the sender, so that it is dropped before it: it looks into the segment.
    place: Mutex<Option<Waiter>>,
    watchers: Mutex<Watchers>,
    sender: Sender<Answer<Resp>>,
    pub(super) slate: Slate,
    key: ChannelKey,
    links: Weak<Links<Resp>>,
}

/// Who wants to hear of news.
#[derive(Default)]
struct Watchers {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

/// A place among them, which goes with whoever watches: most requests are answered, and nobody is ever told of those.
struct Watching<'a> {
    watchers: &'a Mutex<Watchers>,
    number: Option<u64>,
}

impl Watching<'_> {
    fn enlist(&mut self, waker: &Waker) {
        let is_known = |known: &Waker| known.will_wake(waker);
        if self.number.is_some_and(|number| self.watchers.lock().wakers.get(&number).is_some_and(is_known)) {
            return;
        }
        let waker = wakers::copy(waker);
        let old = {
            let mut watchers = self.watchers.lock();
            let number = *self.number.get_or_insert_with(|| {
                watchers.next += 1;
                watchers.next
            });
            watchers.wakers.insert(number, waker)
        };
        wakers::discard(old);
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let left = self.watchers.lock().wakers.remove(&number);
        wakers::discard(left);
    }
}

/// Rings a link that is still there.
struct Bell<Resp: Payload + ?Sized + 'static>(Weak<Link<Resp>>);

impl<Resp: Payload + ?Sized + 'static> Wake for Bell<Resp> {
    fn wake(self: Arc<Self>) {
        if let Some(link) = self.0.upgrade() {
            link.ring();
        }
    }
}

impl<Resp: Payload + ?Sized + 'static> Links<Resp> {
    pub(super) fn new(attachment: Anchor, strategy: WaitStrategy) -> Self {
        Self { attachment, strategy, links: Mutex::default() }
    }

    /// The link to the client that has that channel; `None` if it has gone.
    pub(super) fn to(self: &Arc<Self>, key: ChannelKey) -> Option<Arc<Link<Resp>>> {
        let known = self.links.lock().get(&key).cloned();
        if known.is_some() {
            return known;
        }
        let hash = hash_of::<Answer<Resp>>();
        let port = self.attachment.enter_known(key, hash, End::Sender).ok()?;
        let sender = Sender::new(port, self.strategy);
        let slate = Slate(self.attachment.slate_of(key.index as usize)?);
        let link = Arc::new(Link {
            place: Mutex::default(),
            watchers: Mutex::default(),
            sender,
            slate,
            key,
            links: Arc::downgrade(self),
        });
        // If two do this at once, one of them goes; outside of the lock.
        let replaced = self.links.lock().insert(key, Arc::clone(&link));
        drop(replaced);
        link.take_place();
        if link.is_gone() {
            self.forget(key);
            return None;
        }
        Some(link)
    }

    fn forget(&self, key: ChannelKey) {
        let gone = self.links.lock().remove(&key);
        // Outside of the lock: this leaves the channel.
        drop(gone);
    }
}

impl<Resp: Payload + ?Sized + 'static> Links<Resp> {
    /// Wakes a client to which there is no link, to look at what the caller has done before this.
    pub(super) fn nudge(&self, key: ChannelKey) {
        self.attachment.nudge_known(key);
    }
}

impl<Resp: Payload + ?Sized + 'static> Link<Resp> {
    pub(super) fn attachment(&self) -> &Attachment {
        self.sender.port.attachment()
    }

    /// Whether the client has left or died.
    pub(super) fn is_gone(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether somebody waits for responses.
    pub(super) fn is_wanted(&self, call: CallId) -> bool {
        self.slate.is_wanted(call) && !self.is_gone()
    }

    /// Takes a place among those who hear of news, if it has none.
    fn take_place(self: &Arc<Self>) {
        let waker = Waker::from(Arc::new(Bell(Arc::downgrade(self))));
        let context = Context::from_waker(&waker);
        // Out of its lock meanwhile, here and below: this runs code of others.
        let mut kept = self.place.lock().take();
        loop {
            let waiter = kept.take().unwrap_or_else(|| self.sender.port.wait_for_close());
            if waiter.poll_for_bell(&context).is_pending() {
                // If another thread has taken a place as well, one of them goes.
                let other = self.place.lock().replace(waiter);
                drop(other);
                return;
            }
        }
    }

    /// There may be news.
    fn ring(self: &Arc<Self>) {
        // First: what comes from now on rings again, and what came before is seen by those who are woken here.
        self.take_place();
        if self.is_gone()
            && let Some(links) = self.links.upgrade()
        {
            links.forget(self.key);
        }
        let told = std::mem::take(&mut self.watchers.lock().wakers);
        told.into_values().for_each(wakers::wake);
    }

    /// Is done as soon as `look` says so, which is asked again with all news.
    pub(super) async fn watch<R>(&self, mut look: impl FnMut() -> Option<R>) -> R {
        let mut watching = Watching { watchers: &self.watchers, number: None };
        std::future::poll_fn(|context| {
            if let Some(seen) = look() {
                return Poll::Ready(seen);
            }
            let is_first = watching.number.is_none();
            watching.enlist(context.waker());
            // What came before the place was taken is seen now.
            if let Some(seen) = look() {
                return Poll::Ready(seen);
            }
            let among = self.watchers.lock().wakers.len();
            self.attachment().drive(is_first, among, context);
            Poll::Pending
        })
        .await
    }

    /// One attempt to send a response.
    pub(super) fn try_answer<V: Sendable<Resp>>(&self, value: &V, call: CallId, kind: u64) -> Result<(), Refused> {
        let (port, position) = (&self.sender.port, &self.sender.position);
        port.may_send(position)?;
        if !self.is_wanted(call) {
            return Err(Refused::Closed);
        }
        let lease = seal::<Resp, V, Reply>(port, value, &Reply { call: call.number(), kind })?;
        lease.give(|lease| port.try_send_new(position, lease, Marks::default())).map_err(|(refused, _)| refused)
    }

    /// Sends a response as soon as there is room and memory.
    pub(super) async fn answer<V: Sendable<Resp>>(
        &self,
        value: &V,
        call: CallId,
        kind: u64,
    ) -> Result<(), crate::channel::SendErrorKind> {
        self.sender.until_done(|| self.try_answer(value, call, kind).map_err(Wait::sort)).await
    }

    /// Says that there will be no more, and why, and gives the request up by `free`. In this order: whoever sees the request's
    /// block freed sees what was said of it. Needs no memory and no room, so it cannot fail.
    pub(super) fn end(&self, call: CallId, from: Mark, mark: Mark, free: impl FnOnce()) {
        let wanted = self.slate.turn(call, from, mark);
        free();
        if wanted {
            self.sender.port.nudge_receiver();
        }
    }
}
