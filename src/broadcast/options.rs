//! How a broadcast and its groups are opened.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use uuid::Uuid;

use crate::{
    OpenError,
    attachment::{
        Anchor, ChannelRequest,
        directory::{End, Kind},
        groups::{GroupEnd, MOST_DELIVERIES, Policy, TopicEnd, pack_extras},
    },
    broadcast::{Publisher, Subscriber},
    channel::{Codec, Coded, Delivery, Payload, WaitStrategy},
    region::{layout::MAX_NAME, name::Name},
    ring::log::{MAX_GROUPS, Pressure},
};

/// What stands between the name of a broadcast and that of a group; and before the number of a group that has no name.
const GROUP: &str = "@group-";
const ONLY: &str = "@only-";
/// The largest capacity of a broadcast.
const MAX_CAPACITY: usize = 1 << 20;

/// What happens when a group is as many messages behind as the broadcast's capacity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Behind {
    /// It misses the oldest ones: publishers never wait for it. A member is told how many, exactly, by
    /// [`RecvError::Lagged`](crate::broadcast::RecvError::Lagged), and goes on with the oldest that is there.
    #[default]
    Lag,
    /// Publishers wait for it.
    Block,
    /// Publishers wait for it, but no longer than this for one message; then it is put out, and its members get
    /// [`RecvError::Evicted`](crate::broadcast::RecvError::Evicted). In whole milliseconds, from 1.
    Evict(Duration),
}

/// A broadcast of a segment that is to be opened: made by [`Segment::broadcast`](crate::Segment::broadcast).
///
/// Whoever comes first creates it. Whoever comes later gets the same one, or [`OpenError::Mismatch`] if it carries something else,
/// or was made with another capacity or history than the one asked for.
///
/// A group stands among the [channels](crate::Segment::channels) of the segment under the broadcast's name, with `@group-` and its
/// own name behind it; both together have at most 121 bytes. The name of a broadcast alone has at most 90.
#[must_use = "a broadcast is opened by `publisher`, `subscriber`, `open` or `group`"]
pub struct Options<T: ?Sized> {
    attachment: Anchor,
    name: String,
    capacity: Option<usize>,
    history: Option<usize>,
    groups: Option<usize>,
    wait: WaitStrategy,
    payload: PhantomData<fn(&T)>,
}

impl<T: ?Sized> Options<T> {
    pub(crate) fn new(attachment: Anchor, name: &str) -> Self {
        Self {
            attachment,
            name: name.to_owned(),
            capacity: None,
            history: None,
            groups: None,
            wait: WaitStrategy::default(),
            payload: PhantomData,
        }
    }

    /// The most messages that a group may be behind, from 1 to 2²⁰. Unless asked for, it is whatever the broadcast has, or 256
    /// for a new one.
    pub fn capacity(mut self, messages: usize) -> Self {
        self.capacity = Some(messages);
        self
    }

    /// So many of the latest messages are kept for groups that come later and [ask for them](GroupOptions::history), unless their memory
    /// is needed; at most the capacity. Unless asked for, it is whatever the broadcast has, or 0 for a new one.
    pub fn history(mut self, messages: usize) -> Self {
        self.history = Some(messages);
        self
    }

    /// How many groups there can be at a time, from 1 to 64. Unless asked for, it is whatever the broadcast has, or 16 for a new
    /// one. Each takes 8 bytes per message of twice the capacity.
    pub fn max_groups(mut self, groups: usize) -> Self {
        self.groups = Some(groups);
        self
    }

    /// How publishers and subscribers made by these options wait.
    pub fn wait(mut self, strategy: WaitStrategy) -> Self {
        self.wait = strategy;
        self
    }

    /// A group of that name, which all processes share: each message goes to one of its members.
    pub fn group(self, name: &str) -> GroupOptions<T> {
        GroupOptions {
            name: Some(name.to_owned()),
            broadcast: self,
            behind: None,
            delivery: None,
            history: 0,
            persistent: None,
        }
    }

    /// A group of one, which nobody else can find; for its options.
    pub fn only(self) -> GroupOptions<T> {
        GroupOptions { name: None, ..self.group("") }
    }

    fn enter(&self, end: End) -> Result<Arc<TopicEnd>, OpenError>
    where
        T: Payload,
    {
        let name = Name::new(&self.name)?;
        if name.as_str().len() + ONLY.len() + 32 > MAX_NAME {
            return Err(OpenError::InvalidName { name: self.name.clone() });
        }
        let within = |what: &str, asked: Option<usize>, least: usize, most: usize| match asked {
            Some(asked) if !(least..=most).contains(&asked) => Err(OpenError::InvalidOptions(format!(
                "{what} of {asked} is not possible: choose from {least} to {most}"
            ))),
            asked => Ok(asked),
        };
        let capacity = within("a capacity", self.capacity, 1, MAX_CAPACITY)?;
        let groups = within("a number of groups", self.groups, 1, MAX_GROUPS)?;
        let most = capacity.unwrap_or(crate::attachment::groups::DEFAULT_CAPACITY as usize);
        let history = within("a history", self.history, 0, most)?;
        let extras = (history.is_some() || groups.is_some())
            .then(|| pack_extras(history.map(|history| history as u32), groups.map(|groups| groups as u8)));
        let request = ChannelRequest {
            capacity: capacity.map(|capacity| capacity as u64),
            payload_size: T::SIZE,
            payload_align: T::ALIGN,
            schema: T::schema(),
            dead_letter: extras,
            ..ChannelRequest::of_nothing(name.as_str(), Kind::Broadcast, None)
        };
        let port = self.attachment.open_channel(&request, &[end])?;
        Ok(Arc::new(TopicEnd { port, end }))
    }

    /// A publisher.
    ///
    /// # Errors
    ///
    /// [`OpenError::Mismatch`] if the broadcast is there and carries something else, or has another capacity, history or number
    /// of groups; or something else has that name; [`OpenError::InvalidName`]; [`OpenError::InvalidOptions`];
    /// [`OpenError::TooManyChannels`] or [`OpenError::OutOfMemory`] if there is no place for a new one.
    pub fn publisher(self) -> Result<Publisher<T>, OpenError>
    where
        T: Payload,
    {
        Ok(Publisher::new(self.enter(End::Sender)?, self.wait))
    }

    /// A subscriber that is a group of its own: it sees every message, and [lags](Behind::Lag) if it is too slow.
    ///
    /// # Errors
    ///
    /// As for [`publisher`](Self::publisher), and [`OpenError::InvalidOptions`] if there are as many groups as there can be.
    pub fn subscriber(self) -> Result<Subscriber<T>, OpenError>
    where
        T: Payload,
    {
        self.only().subscriber()
    }

    /// A publisher and a subscriber that is a group of its own.
    ///
    /// # Errors
    ///
    /// As for [`subscriber`](Self::subscriber).
    pub fn open(self) -> Result<(Publisher<T>, Subscriber<T>), OpenError>
    where
        T: Payload,
    {
        let publisher = Publisher::new(self.enter(End::Sender)?, self.wait);
        Ok((publisher, self.subscriber()?))
    }
}

impl<T: 'static> Options<T> {
    /// Has a codec write the values, as for a [channel](crate::ChannelOptions::codec).
    pub fn codec<C: Codec<T>>(self) -> Options<Coded<T, C>> {
        let Self { attachment, name, capacity, history, groups, wait, payload: _ } = self;
        Options { attachment, name, capacity, history, groups, wait, payload: PhantomData }
    }
}

/// A group of a broadcast that is to be opened: made by [`Options::group`].
///
/// Whoever comes first creates the group. Whoever comes later gets the same one, or [`OpenError::Mismatch`] if it was made with
/// other options than those asked for.
#[must_use = "a group is opened by `subscriber`"]
pub struct GroupOptions<T: ?Sized> {
    broadcast: Options<T>,
    name: Option<String>,
    behind: Option<Behind>,
    delivery: Option<Delivery>,
    history: usize,
    persistent: Option<bool>,
}

impl<T: ?Sized> GroupOptions<T> {
    /// What happens when the group falls behind. [`Behind::Lag`], unless told otherwise.
    pub fn behind(mut self, behind: Behind) -> Self {
        self.behind = Some(behind);
        self
    }

    /// How often messages are delivered to the group. [`Delivery::AtMostOnce`], unless told otherwise: what a member held that died
    /// is done with. With [`Delivery::AtLeastOnce`] it goes to another member, ahead of those that nobody has taken, with a
    /// [count](crate::broadcast::Published::delivery_count) of 2 or more; at most 255 times, and then it is dropped and
    /// [counted](crate::broadcast::Subscriber::discarded). What came back is never missed: it stays until a member takes it.
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = Some(delivery);
        self
    }

    /// A new group begins with up to so many of the latest messages, as far as the broadcast has [kept](Options::history)
    /// them. 0, unless told otherwise.
    pub fn history(mut self, messages: usize) -> Self {
        self.history = messages;
        self
    }

    /// Whether the group outlives its members: messages wait for those that come later, as far as what it does when it is
    /// [behind](Self::behind) allows. A new one does not unless that is asked for; for one that is there see
    /// [`ChannelOptions::persistent`](crate::ChannelOptions::persistent). The broadcast outlives its ends then, too, for as long as it
    /// has such a group, and is not closed. A group that publishers wait for, and that nobody is in, stops them.
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = Some(persistent);
        self
    }

    fn policy(&self) -> Result<Policy, OpenError> {
        let (pressure, patience) = match self.behind.unwrap_or_default() {
            Behind::Lag => (Pressure::Lag, 0),
            Behind::Block => (Pressure::Block, 0),
            Behind::Evict(after) => match u32::try_from(after.as_millis()) {
                Ok(millis @ 1..) => (Pressure::Evict, millis),
                _ => {
                    return Err(OpenError::InvalidOptions(format!(
                        "a group cannot be evicted after {after:?}: choose from 1 to {} milliseconds",
                        u32::MAX
                    )));
                }
            },
        };
        let deliveries = match self.delivery.unwrap_or_default() {
            Delivery::AtMostOnce => 0,
            Delivery::AtLeastOnce { max_deliveries: most @ 1..=MOST_DELIVERIES } => most,
            Delivery::AtLeastOnce { max_deliveries } => {
                return Err(OpenError::InvalidOptions(format!(
                    "a group cannot be given a message {max_deliveries} times: choose from 1 to {MOST_DELIVERIES}"
                )));
            }
        };
        Ok(Policy { pressure, patience, deliveries })
    }

    /// A member of the group.
    ///
    /// # Errors
    ///
    /// As for [`Options::subscriber`]; and [`OpenError::Mismatch`] if the group is there with other options.
    pub fn subscriber(self) -> Result<Subscriber<T>, OpenError>
    where
        T: Payload,
    {
        let policy = self.policy()?;
        let topic = self.broadcast.enter(End::Receiver)?;
        let name = match &self.name {
            Some(group) => format!("{}{GROUP}{}", self.broadcast.name, Name::new(group)?.as_str()),
            None => format!("{}{ONLY}{}", self.broadcast.name, Uuid::new_v4().simple()),
        };
        if name.len() > MAX_NAME {
            return Err(OpenError::InvalidName { name });
        }
        let request = ChannelRequest {
            capacity: (self.behind.is_some() || self.delivery.is_some()).then(|| policy.pack()),
            asked: Policy::mask(self.behind.is_some(), self.delivery.is_some()),
            // To be persistent it must have joined, see below.
            persistent: self.persistent.filter(|persistent| !persistent),
            payload_size: T::SIZE,
            payload_align: T::ALIGN,
            schema: T::schema(),
            dead_letter: Some(topic.port.index() as u64 + 1),
            ..ChannelRequest::of_nothing(&name, Kind::Group, None)
        };
        let port = self.broadcast.attachment.open_channel(&request, &[End::Receiver])?;
        // If it was there, that is what it does.
        let policy = port.policy();
        let group = GroupEnd::new(port, topic, policy, self.history as u64)?;
        // Not before: what is refused leaves nothing.
        if self.persistent == Some(true) {
            group.outlive();
        }
        Ok(Subscriber::new(group, self.broadcast.wait))
    }
}

impl<T: ?Sized> fmt::Debug for Options<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("name", &self.name)
            .field("capacity", &self.capacity)
            .field("history", &self.history)
            .field("max_groups", &self.groups)
            .finish_non_exhaustive()
    }
}

impl<T: ?Sized> fmt::Debug for GroupOptions<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupOptions")
            .field("broadcast", &self.broadcast)
            .field("name", &self.name)
            .field("behind", &self.behind)
            .field("delivery", &self.delivery)
            .field("history", &self.history)
            .field("persistent", &self.persistent)
            .finish()
    }
}
