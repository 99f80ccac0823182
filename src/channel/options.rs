//! How a channel is opened.

use std::{fmt, marker::PhantomData, sync::Arc};

use crate::{
    OpenError,
    attachment::{
        Anchor, ChannelRequest,
        directory::End,
        policies::{KEEP_CAPACITY, Order, PolicyRequest},
        port::Port,
    },
    channel::{Codec, Coded, Payload, Receiver, Sender, WaitStrategy},
    policy::{Asked, ChannelPolicy},
    region::name::Name,
    routing,
};

/// A channel of a segment that is to be opened: made by [`Segment::channel`](crate::Segment::channel) and
/// [`Segment::bytes`](crate::Segment::bytes).
///
/// Whoever comes first creates the channel. Whoever comes later gets the same one, or [`OpenError::Mismatch`] if it
/// carries something else, or has another capacity than the one asked for.
///
/// # Slices
///
/// `ChannelOptions<[T]>` is of a channel whose messages are batches, of any number of values each. All that counts messages counts
/// batches: capacity, length, permits, sequence numbers, deliveries. A batch goes to one receiver.
///
/// ```
/// # let segment = waterway::Segment::options().in_process()?;
/// let (sender, receiver) = segment.channel::<[u32]>("numbers").capacity(2).open()?;
/// sender.try_send([1, 2, 3])?;
/// sender.try_send(vec![4; 1000])?;
/// assert!(sender.try_send([5]).is_err());
/// assert_eq!(*receiver.try_recv()?, [1, 2, 3]);
/// assert_eq!(receiver.try_recv()?.len(), 1000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a channel is opened by `sender`, `receiver` or `open`"]
pub struct ChannelOptions<T: ?Sized> {
    attachment: Anchor,
    name: String,
    capacity: Option<usize>,
    persistent: Option<bool>,
    delivery: Option<Delivery>,
    policies: Asked,
    wait: WaitStrategy,
    first_position: u64,
    payload: PhantomData<fn(&T)>,
}

/// How often the messages of a channel are delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// A message that was received by a process that dies is gone.
    #[default]
    AtMostOnce,
    /// A message that was received comes back unless it is acknowledged, by dropping it, or by
    /// [`Message::ack`](crate::Message::ack): if its process dies or exits, if it is dropped in a thread that is panicking,
    /// or by [`Message::nack`](crate::Message::nack). It is delivered again ahead of all messages that were not received yet,
    /// with a [`Message::delivery_count`](crate::Message::delivery_count) of 2 or more, to whoever receives next. So every
    /// message that was sent is worked on to the end by somebody, or ends as a [dead letter](DeadLetter); and
    /// whoever works on one with a count of 1 is the first.
    ///
    /// **Closing.** [`Receiver::recv`](crate::Receiver::recv) does not say `None` while another process has messages that
    /// it has not acknowledged: it waits for them to be acknowledged, or to come back. What its own process has does not
    /// count, for it would wait for itself. So two processes must not both keep what they receive until they
    /// hear `None`. `try_recv` says `Empty` until then.
    ///
    /// **Bounds.** What is lost all the same is what goes with the channel: if the last receiver of a channel that is not
    /// [persistent](ChannelOptions::persistent) goes or dies, all that waits goes with it, and what it had received. Messages that
    /// came back take up none of the channel's capacity. If more come back than the channel has cells (its capacity,
    /// or 256), they come in another order. A message needs 40 bytes more than otherwise.
    ///
    /// **Cancel safety.** As everywhere: a `recv` that is dropped has taken nothing, and counts no delivery.
    AtLeastOnce {
        /// How often a message is delivered at most, from 1.
        max_deliveries: u32,
    },
}

/// A channel for what was delivered as often as it may be, and still was not acknowledged; and for what has
/// [expired](crate::policy::Retention::ttl).
///
/// It is a channel like any other, of the same payload, that delivers at most once and is
/// [persistent](ChannelOptions::persistent); if it is not there, it is created with the default capacity. A dead letter is a new
/// message there: it has a sequence number of that channel, and no sender.
///
/// It has no delivery and no policies of its own: who asks for some gets [`OpenError::Mismatch`](crate::OpenError::Mismatch), whichever
/// of both channels is opened first. For a message may become a dead letter in the hands of whoever buries a process that died with it.
/// That one can neither take the oldest away where there is no room, nor ask how urgent a message is and how long it is to live there.
/// Where dead letters are to have all that, their receiver sends them on: [`Message::forward`](crate::Message::forward).
///
/// If that channel is full, a message that was delivered too often stays where it is and is delivered once more, with a count above
/// the most, and one that has expired is freed and [counted](crate::Receiver::discarded); if it was closed, both are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    name: String,
}

impl DeadLetter {
    /// The channel of that name.
    pub fn to(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    pub(crate) fn into_name(self) -> String {
        self.name
    }
}

impl Delivery {
    /// As in the entry of the channel.
    pub(crate) fn deliveries(self) -> u64 {
        match self {
            Self::AtMostOnce => 0,
            Self::AtLeastOnce { max_deliveries } => u64::from(max_deliveries),
        }
    }

    /// Refuses what delivers nothing. `what`: what is delivered.
    pub(crate) fn check(self, what: &str) -> Result<(), OpenError> {
        match self {
            Self::AtLeastOnce { max_deliveries: 0 } => {
                Err(OpenError::InvalidOptions(format!("a {what} must be delivered once at least: max_deliveries is 0")))
            }
            _ => Ok(()),
        }
    }
}

/// The largest capacity of a channel.
pub(crate) const MAX_CAPACITY: usize = 1 << 24;

/// A capacity that was asked for, of so many of `what`.
pub(crate) fn checked_capacity(capacity: Option<usize>, what: &str) -> Result<Option<u64>, OpenError> {
    match capacity {
        Some(capacity) if !(1..=MAX_CAPACITY).contains(&capacity) => Err(OpenError::InvalidOptions(format!(
            "a capacity of {capacity} {what} is not possible: choose one from 1 to {MAX_CAPACITY}"
        ))),
        capacity => Ok(capacity.map(|capacity| capacity as u64)),
    }
}

impl<T: ?Sized> ChannelOptions<T> {
    pub(crate) fn new(attachment: Anchor, name: &str) -> Self {
        Self {
            attachment,
            name: name.to_owned(),
            capacity: None,
            persistent: None,
            delivery: None,
            policies: Asked::default(),
            wait: WaitStrategy::default(),
            first_position: 0,
            payload: PhantomData,
        }
    }

    /// The most messages that may wait to be received, from 1 to 2²⁴. Unless asked for, it is whatever the channel has,
    /// or 1024 for a new one.
    pub fn capacity(mut self, messages: usize) -> Self {
        self.capacity = Some(messages);
        self
    }

    /// Whether the channel outlives its ends: messages wait for receivers that come later, receivers for senders that
    /// come back, and nothing is ever closed by leaving. A new one does not unless that is asked for. One that is there and does not
    /// does so from now on, if it is asked for; to ask for one that does not where it does is a mismatch. The channel still
    /// ends with its segment.
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = Some(persistent);
        self
    }

    /// How often messages are delivered. Unless asked for, as the channel does it, or [`Delivery::AtMostOnce`] for a new one.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// use waterway::{policy::DeadLetter, Delivery};
    ///
    /// let at_least_once = Delivery::AtLeastOnce { max_deliveries: 2 };
    /// let (sender, receiver) =
    ///     segment.channel::<u64>("jobs").delivery(at_least_once).policy(DeadLetter::to("failed-jobs")).open()?;
    /// sender.try_send(7)?;
    /// receiver.try_recv()?.nack();
    /// let again = receiver.try_recv()?;
    /// assert_eq!((*again, again.delivery_count()), (7, 2));
    /// again.nack();
    /// assert_eq!(*segment.channel::<u64>("failed-jobs").receiver()?.try_recv()?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = Some(delivery);
        self
    }

    /// What else the channel does with its messages: [`ByMessage`](crate::policy::ByMessage), [`PriorityBy`](crate::policy::PriorityBy),
    /// [`Retention`](crate::policy::Retention), [`DeadLetter`]. Several compose. What is not asked for is as the channel has it; a new one
    /// has no policies, and pays nothing for them.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use waterway::policy::{DeadLetter, Retention};
    ///
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let quotes = segment.channel::<u64>("quotes").policy(Retention::ttl(Duration::ZERO)).policy(DeadLetter::to("old-quotes"));
    /// let (sender, receiver) = quotes.open()?;
    /// sender.try_send(7)?;
    /// // Nobody came for it in time.
    /// assert!(receiver.try_recv().is_err());
    /// assert_eq!(*segment.channel::<u64>("old-quotes").receiver()?.try_recv()?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn policy(mut self, policy: impl ChannelPolicy<T>) -> Self {
        policy.ask(&mut self.policies);
        self
    }

    /// How senders and receivers made by these options wait.
    pub fn wait(mut self, strategy: WaitStrategy) -> Self {
        self.wait = strategy;
        self
    }

    /// The sequence number of a new channel's first message: for tests of what happens when numbers wrap around.
    #[doc(hidden)]
    pub fn first_sequence(mut self, sequence: u64) -> Self {
        self.first_position = sequence;
        self
    }

    fn enter(&self, ends: &[End]) -> Result<Arc<Port>, OpenError>
    where
        T: Payload,
    {
        self.enter_as(Name::new(&self.name)?.as_str(), self.persistent, ends)
    }

    /// Makes the channel a routed one: messages of the same key keep their order, and are with one receiver at a time.
    pub fn routed(self) -> routing::Options<T> {
        routing::Options::new(self)
    }

    /// What the options are for, and whether it is to outlive its ends.
    pub(crate) fn place(&self) -> (&Anchor, &str, Option<bool>) {
        (&self.attachment, &self.name, self.persistent)
    }

    /// How ends made by these options wait.
    pub(crate) fn strategy(&self) -> WaitStrategy {
        self.wait
    }

    /// The sender that has been entered at that port.
    pub(crate) fn sender_at(&self, port: Arc<Port>) -> Sender<T>
    where
        T: Payload,
    {
        Sender::with_rules(port, self.wait, self.policies.rules())
    }

    /// Enters ends into a channel of these options and of another name, which may be one that users cannot give.
    pub(crate) fn enter_as(&self, name: &str, persistent: Option<bool>, ends: &[End]) -> Result<Arc<Port>, OpenError>
    where
        T: Payload,
    {
        let capacity = checked_capacity(self.capacity, "messages")?;
        if let Some(why) = &self.policies.impossible {
            return Err(OpenError::InvalidOptions(why.clone()));
        }
        let keep = self.policies.request.keep.filter(|keep| *keep != KEEP_CAPACITY);
        if let (Some(capacity), Some(keep)) = (capacity, keep)
            && keep > capacity
        {
            return Err(OpenError::InvalidOptions(format!(
                "the last {keep} messages cannot be kept in a channel of capacity {capacity}: choose at most that"
            )));
        }
        let dead_letter = self.dead_letters()?;
        self.attachment.open_channel(
            &ChannelRequest {
                capacity,
                persistent,
                first_position: self.first_position,
                deliveries: self.delivery.map(Delivery::deliveries),
                dead_letter,
                policies: self.policies.request,
                ..ChannelRequest::of::<T>(name)
            },
            ends,
        )
    }

    /// The channel of dead letters, + 1.
    fn dead_letters(&self) -> Result<Option<u64>, OpenError>
    where
        T: Payload,
    {
        self.delivery.map_or(Ok(()), |delivery| delivery.check("message"))?;
        let Some(name) = &self.policies.dead_letter else { return Ok(None) };
        let PolicyRequest { order, ttl, .. } = self.policies.request;
        let may_expire = ttl.is_some() || order == Some(Order::Message);
        if !matches!(self.delivery, Some(Delivery::AtLeastOnce { .. })) && !may_expire {
            return Err(OpenError::InvalidOptions(
                "only a channel that delivers at least once, or whose messages may expire, has dead letters: ask for \
                 Delivery::AtLeastOnce, Retention::ttl or ByMessage"
                    .into(),
            ));
        }
        if *name == self.name {
            return Err(OpenError::InvalidOptions("a channel cannot be that of its own dead letters".into()));
        }
        let name = Name::new(name)?;
        // Nobody else's channel is made to stay for that.
        if self.attachment.has_fleeting(name.as_str()) {
            // What does not fit at all is said first.
            self.attachment.open_channel(&ChannelRequest::of::<T>(name.as_str()), &[])?;
            return Err(OpenError::InvalidOptions(format!(
                "the channel {:?} is there and not persistent: it cannot be that of dead letters",
                name.as_str()
            )));
        }
        let request = ChannelRequest { persistent: Some(true), ..ChannelRequest::of::<T>(name.as_str()) };
        let port = self.attachment.open_channel(&request, &[])?;
        Ok(Some(port.index() as u64 + 1))
    }

    /// A sender.
    ///
    /// # Errors
    ///
    /// [`OpenError::Mismatch`] if the channel is there and carries something else, or has another capacity, delivery
    /// or other policies, or if its messages have priorities and these options do not say which;
    /// [`OpenError::InvalidName`]; [`OpenError::InvalidOptions`] for an impossible capacity;
    /// [`OpenError::TooManyChannels`] or [`OpenError::OutOfMemory`] if there is no place for a new channel.
    pub fn sender(self) -> Result<Sender<T>, OpenError>
    where
        T: Payload,
    {
        Ok(self.sender_at(self.enter(&[End::Sender])?))
    }

    /// A receiver.
    ///
    /// # Errors
    ///
    /// As for [`sender`](Self::sender).
    pub fn receiver(self) -> Result<Receiver<T>, OpenError>
    where
        T: Payload,
    {
        Ok(Receiver::new(self.enter(&[End::Receiver])?, self.wait))
    }

    /// A sender and a receiver.
    ///
    /// # Errors
    ///
    /// As for [`sender`](Self::sender).
    pub fn open(self) -> Result<(Sender<T>, Receiver<T>), OpenError>
    where
        T: Payload,
    {
        let port = self.enter(&[End::Sender, End::Receiver])?;
        let sender = self.sender_at(Arc::clone(&port));
        Ok((sender, Receiver::new(port, self.wait)))
    }
}

impl<T: 'static> ChannelOptions<T> {
    /// Has a codec write the values: `Postcard` or `Json`, behind features of their names, or [your own](Codec). For
    /// what is not [`Plain`](crate::channel::Plain) data.
    ///
    /// The codec is part of what the channel carries: whoever comes with another one gets [`OpenError::Mismatch`]. Of
    /// the type only the name is compared; two versions of it are told apart when a message is decoded, if at all.
    ///
    /// # Examples
    ///
    #[cfg_attr(feature = "json", doc = "```")]
    #[cfg_attr(not(feature = "json"), doc = "```ignore")]
    /// use serde::{Deserialize, Serialize};
    /// use waterway::{codec::Json, Segment};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Order { customer: String, items: Vec<u32> }
    ///
    /// # let segment = Segment::options().in_process()?;
    /// let (sender, receiver) = segment.channel::<Order>("orders").codec::<Json>().open()?;
    /// sender.try_send(Order { customer: "Ada".into(), items: vec![7, 9] })?;
    /// let message = receiver.try_recv()?;
    /// assert_eq!(message.as_ref(), br#"{"customer":"Ada","items":[7,9]}"#);
    /// assert_eq!(message.decode()?.items, [7, 9]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn codec<C: Codec<T>>(self) -> ChannelOptions<Coded<T, C>> {
        let Self { attachment, name, capacity, persistent, delivery, policies, wait, first_position, payload: _ } =
            self;
        ChannelOptions {
            attachment,
            name,
            capacity,
            persistent,
            delivery,
            policies,
            wait,
            first_position,
            payload: PhantomData,
        }
    }
}

impl<T: ?Sized> fmt::Debug for ChannelOptions<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelOptions")
            .field("name", &self.name)
            .field("capacity", &self.capacity)
            .field("persistent", &self.persistent)
            .field("policies", &self.policies)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}
