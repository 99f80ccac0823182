//! What travels: a payload as in any channel, and behind it, at the end of the block, an envelope.
//!
//! The payload stands where it stands in a channel of its own type. So what is taken out of its envelope is a [`Message`] like
//! any other, which can be forwarded, or become bytes.

use std::marker::PhantomData;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    attachment::{
        directory::element_size,
        lease::{Held, Lease},
        policies::Marks,
        port::{Port, Refused},
    },
    channel::{Arrival, Message, Payload, Sendable},
    schema::Schema,
};

/// The envelope of a request.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Query {
    /// Which call it is of: see [`super::slate`].
    pub(super) call: u64,
    /// Nanoseconds of the monotonic clock; 0: none.
    pub(super) deadline: u64,
    /// The word that names the ring of the client's channel.
    pub(super) ring: u64,
    /// The number of the client's channel.
    pub(super) index: u32,
    /// How often it was sent, this time included.
    pub(super) attempt: u32,
}

/// The envelope of a response.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Reply {
    pub(super) call: u64,
    /// [`WHOLE`], or [`PART`].
    pub(super) kind: u64,
}

/// There will be no more.
pub(super) const WHOLE: u64 = 1;
/// There may be more.
pub(super) const PART: u64 = 2;

/// What a service's channel of requests carries.
pub(crate) struct Question<Req: ?Sized, Resp: ?Sized>(PhantomData<fn(&Req, &Resp)>);

/// What a client's channel of responses carries.
pub(crate) struct Answer<Resp: ?Sized>(PhantomData<fn(&Resp)>);

/// A payload that has arrived with its envelope.
#[derive(Debug)]
pub(crate) struct Letter<H, E> {
    envelope: E,
    body: H,
}

impl<H: Held, E> Held for Letter<H, E> {
    fn lease(&self) -> &Lease {
        self.body.lease()
    }

    fn apart(self) -> Self {
        Self { envelope: self.envelope, body: self.body.apart() }
    }

    fn give<G>(self, taker: impl FnOnce(&mut Lease) -> Result<(), G>) -> Result<(), (G, Self)> {
        let Self { envelope, body } = self;
        body.give(taker).map_err(|(error, body)| (error, Self { envelope, body }))
    }
}

/// Takes the envelope off.
fn unseal<P: Payload + ?Sized, E: FromBytes>(block: Arrival) -> Option<Letter<P::Held, E>> {
    let lease = block.into_lease();
    let len = lease.bytes().len().checked_sub(size_of::<E>())?;
    let envelope = E::read_from_bytes(&lease.bytes()[len..]).ok()?;
    Some(Letter { envelope, body: P::arrive(Arrival::new(lease.narrow(0, len)?))? })
}

impl<Req: Payload + ?Sized, Resp: Payload + ?Sized> Payload for Question<Req, Resp> {
    const SIZE: u64 = Req::SIZE;
    const ALIGN: u64 = Req::ALIGN;
    type Held = Letter<Req::Held, Query>;
    type Value = ();

    /// With the response, so that whoever expects another one is refused.
    fn schema() -> Schema {
        let (request, response) = (Req::schema(), Resp::schema());
        let size = match element_size(Resp::SIZE) {
            None => format!(" of {} bytes", Resp::SIZE),
            Some(1) => String::new(),
            Some(element) => format!(" of {element} bytes each"),
        };
        let name = format!("{} to {}{size}", request.name(), response.name());
        request.clone().with(name, vec![("request", request), ("response", response)])
    }

    fn arrive(block: Arrival) -> Option<Self::Held> {
        unseal::<Req, Query>(block)
    }

    fn judge(_: &Self::Held, _: &dyn Fn(&()) -> Marks) -> Option<Marks> {
        None
    }
}

impl<Resp: Payload + ?Sized> Payload for Answer<Resp> {
    const SIZE: u64 = Resp::SIZE;
    const ALIGN: u64 = Resp::ALIGN;
    type Held = Letter<Resp::Held, Reply>;
    type Value = ();

    fn schema() -> Schema {
        let response = Resp::schema();
        response.clone().with(format!("response {}", response.name()), vec![("response", response)])
    }

    fn arrive(block: Arrival) -> Option<Self::Held> {
        unseal::<Resp, Reply>(block)
    }

    fn judge(_: &Self::Held, _: &dyn Fn(&()) -> Marks) -> Option<Marks> {
        None
    }
}

/// A request out of its envelope.
pub(super) fn open_question<Req, Resp>(message: Message<Question<Req, Resp>>) -> (Query, Message<Req>)
where
    Req: Payload + ?Sized,
    Resp: Payload + ?Sized,
{
    let Message { body: Letter { envelope, body }, sequence, sender } = message;
    (envelope, Message { body, sequence, sender })
}

/// A response out of its envelope.
pub(super) fn open_answer<Resp: Payload + ?Sized>(message: Message<Answer<Resp>>) -> (Reply, Message<Resp>) {
    let Message { body: Letter { envelope, body }, sequence, sender } = message;
    (envelope, Message { body, sequence, sender })
}

/// Writes a value and its envelope into a block.
pub(super) fn seal<P, V, E>(port: &Port, value: &V, envelope: &E) -> Result<Lease, Refused>
where
    P: Payload + ?Sized,
    V: Sendable<P>,
    E: IntoBytes + Immutable,
{
    let len = value.block_len().ok_or(Refused::Unwritten)?;
    let (attachment, bytes) = (port.attachment(), len.saturating_add(size_of::<E>()));
    let block = attachment.with_worker(|worker| attachment.allocate(worker, bytes, value.block_align()));
    let mut lease = Lease::new(attachment, block.map_err(Refused::Memory)?);
    let bytes = lease.bytes_mut();
    let (payload, end) = bytes.split_at_mut(bytes.len() - size_of::<E>());
    if !value.writer()(&mut payload[..len]) {
        return Err(Refused::Unwritten);
    }
    end.copy_from_slice(envelope.as_bytes());
    Ok(lease)
}
