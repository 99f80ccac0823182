//! How a service is opened.

use std::{fmt, marker::PhantomData, sync::Arc};

use uuid::Uuid;

use crate::{
    OpenError,
    attachment::{Anchor, ChannelRequest, directory::End, port::Port},
    channel::{Codec, Coded, Delivery, Patience, Payload, Receiver, Sender, WaitStrategy, checked_capacity},
    region::name::Name,
    service::{
        Client, Server,
        calls::Core,
        letter::{Answer, Question},
        link::Links,
        slate::{MOST_CALLS, Slate},
    },
};

/// A service of a segment that is to be opened: made by [`Segment::service`](crate::Segment::service).
///
/// Whoever comes first creates it. Whoever comes later gets the same one, or [`OpenError::Mismatch`] if its requests or responses
/// are of other types, or it has another capacity than the one asked for.
///
/// Its requests travel in a channel that is called as the service, with `@service` behind it, and each client's responses in one
/// that begins with `@reply-`. No other channel has such a name.
#[must_use = "a service is opened by `client` or `server`"]
pub struct Options<Req: ?Sized, Resp: ?Sized> {
    attachment: Anchor,
    name: String,
    capacity: Option<usize>,
    calls: usize,
    persistent: Option<bool>,
    delivery: Delivery,
    wait: WaitStrategy,
    payloads: PhantomData<fn(&Req, &Resp)>,
}

/// Calls that a client may have in flight unless told otherwise.
const DEFAULT_CALLS: usize = 256;
/// What stands behind the name of a service.
const SUFFIX: &str = "@service";
/// The longest name that has room for it.
const LONGEST: usize = crate::region::layout::MAX_NAME - SUFFIX.len();

impl<Req: ?Sized, Resp: ?Sized> Options<Req, Resp> {
    pub(crate) fn new(attachment: Anchor, name: &str) -> Self {
        Self {
            attachment,
            name: name.to_owned(),
            capacity: None,
            calls: DEFAULT_CALLS,
            persistent: None,
            delivery: Delivery::default(),
            wait: WaitStrategy::default(),
            payloads: PhantomData,
        }
    }

    /// The most requests that may wait for a server, from 1 to 2²⁴. Unless asked for, it is whatever the service has, or 1024
    /// for a new one.
    pub fn capacity(mut self, requests: usize) -> Self {
        self.capacity = Some(requests);
        self
    }

    /// The most calls that a client made by these options, and its clones, may have in flight, from 1 to 2¹⁵: 256 unless told
    /// otherwise. Further ones wait for one of those.
    pub fn calls(mut self, most: usize) -> Self {
        self.calls = most;
        self
    }

    /// Whether the service outlives its ends: requests wait for servers that come later, servers for clients that come back,
    /// and leaving closes nothing. A new one does not unless that is asked for; for one that is there see
    /// [`ChannelOptions::persistent`](crate::ChannelOptions::persistent). What is said of a server's death holds all the same.
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = Some(persistent);
        self
    }

    /// What a client made by these options does with a request whose server dies, panics, or [gives it
    /// back](crate::service::Request::nack). By default its caller gets the error. With [`Delivery::AtLeastOnce`] the client sends it
    /// again, to whichever server takes it, behind the requests that wait; after `max_deliveries` the caller gets the error
    /// of the last one. A request whose caller has given up or died is not sent again.
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// How clients and servers made by these options wait.
    pub fn wait(mut self, strategy: WaitStrategy) -> Self {
        self.wait = strategy;
        self
    }

    /// The channel of requests.
    fn requests(&self, end: End) -> Result<Arc<Port>, OpenError>
    where
        Req: Payload,
        Resp: Payload,
    {
        let name = Name::new(&self.name)?;
        if name.as_str().len() > LONGEST {
            return Err(OpenError::InvalidName { name: self.name.clone() });
        }
        let name = format!("{}{SUFFIX}", name.as_str());
        let request = ChannelRequest {
            capacity: checked_capacity(self.capacity, "requests")?,
            persistent: self.persistent,
            ..ChannelRequest::of::<Question<Req, Resp>>(&name)
        };
        self.attachment.open_channel(&request, &[end])
    }

    /// A client.
    ///
    /// # Errors
    ///
    /// [`OpenError::Mismatch`] if the service is there and carries something else, or has another capacity;
    /// [`OpenError::InvalidName`], also for a name of more than 120 characters; [`OpenError::InvalidOptions`] for an impossible
    /// number; [`OpenError::TooManyChannels`] or [`OpenError::OutOfMemory`] if there is no place for two new channels.
    pub fn client(self) -> Result<Client<Req, Resp>, OpenError>
    where
        Req: Payload + 'static,
        Resp: Payload + 'static,
    {
        self.delivery.check("request")?;
        let deliveries = match self.delivery {
            Delivery::AtLeastOnce { max_deliveries } => max_deliveries,
            Delivery::AtMostOnce => 1,
        };
        if !(1..=MOST_CALLS).contains(&self.calls) {
            return Err(OpenError::InvalidOptions(format!(
                "{} calls in flight are not possible: choose a number from 1 to {MOST_CALLS}",
                self.calls
            )));
        }
        let requests = Sender::new(self.requests(End::Sender)?, self.wait);
        let name = format!("@reply-{}", Uuid::new_v4().simple());
        let calls = self.calls as u64;
        let request =
            ChannelRequest { capacity: Some(calls), slots: calls, ..ChannelRequest::of::<Answer<Resp>>(&name) };
        let responses = self.attachment.open_channel(&request, &[End::Sender, End::Receiver])?;
        let ends = (Sender::new(Arc::clone(&responses), self.wait), Receiver::new(Arc::clone(&responses), self.wait));
        let Some(slate) = self.attachment.slate_of(responses.index()) else {
            return Err(self.attachment.damaged("the channel of responses that was just made has no slate".into()));
        };
        Ok(Client::new(Core::new(requests, ends, Slate(slate), Patience::new(self.wait)), deliveries))
    }

    /// A server.
    ///
    /// # Errors
    ///
    /// As for [`client`](Self::client).
    pub fn server(self) -> Result<Server<Req, Resp>, OpenError>
    where
        Req: Payload + 'static,
        Resp: Payload + 'static,
    {
        let requests = Receiver::new(self.requests(End::Receiver)?, self.wait);
        Ok(Server::new(requests, Arc::new(Links::new(self.attachment, self.wait))))
    }
}

impl<Req: 'static, Resp: 'static> Options<Req, Resp> {
    /// Has a codec write requests and responses, as for [channels](crate::ChannelOptions::codec).
    pub fn codec<C: Codec<Req> + Codec<Resp>>(self) -> Options<Coded<Req, C>, Coded<Resp, C>> {
        let Self { attachment, name, capacity, calls, persistent, delivery, wait, payloads: _ } = self;
        Options { attachment, name, capacity, calls, persistent, delivery, wait, payloads: PhantomData }
    }
}

impl<Req: ?Sized, Resp: ?Sized> fmt::Debug for Options<Req, Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("name", &self.name)
            .field("capacity", &self.capacity)
            .field("calls", &self.calls)
            .field("delivery", &self.delivery)
            .finish_non_exhaustive()
    }
}
