//! How a routed channel is opened.

use std::{fmt, sync::Arc};

use crate::{
    Delivery, OpenError, WaitStrategy,
    attachment::{
        ChannelRequest,
        directory::{End, Kind},
        port::Port,
    },
    channel::{self, ChannelOptions, DeadLetter, Payload},
    region::name::Name,
    routing::{
        Receiver, Sender,
        tenure::{Head, MOST},
    },
};

/// Partitions of a new channel, unless told otherwise.
const PARTITIONS: usize = 16;
/// The most characters of a name: with the number of a partition it must be a name still.
const LONGEST: usize = 124;

/// A routed channel that is to be opened: made by [`ChannelOptions::routed`].
///
/// Messages with the same [key](crate::policy::Policy::route) keep their order and are with **one receiver at a time**, however many
/// receivers there are; keys are spread over the receivers. What they are spread by are **partitions**: each key belongs to
/// one, by its hash, and each partition to one receiver, which has as many of them as any other (or one more). When a
/// receiver comes, leaves or dies, partitions move, and what waits in them keeps its order.
///
/// # One at a time
///
/// A partition goes to another receiver only when every message that was received from it is acknowledged: so two messages of
/// one key are never at two receivers. A receiver that keeps its messages keeps their partitions, even when it has been dropped;
/// one that is stopped (SIGSTOP) stops its own keys and no others. A receiver gives up what is too much for it when it is
/// asked for the next message: one that has partitions and is never asked again keeps them. Drop it instead.
///
/// Within a receiver there is no such rule: tasks that share one get its messages as they come.
///
/// # Priorities
///
/// With [`ByMessage`](crate::policy::ByMessage) or [`PriorityBy`](crate::policy::PriorityBy) each partition has four levels, as a
/// [channel](crate::policy::Priority) has. So messages of a key keep their order within each [`Priority`](crate::policy::Priority), and one that is more
/// urgent is received before those of its key that were sent earlier: whoever wants one order gives all messages of a key the same
/// priority. All of them are with one receiver at a time, whatever their priorities. All other policies do what they do in a
/// channel, in each partition.
///
/// # Death
///
/// When a receiver's process dies, what it had not acknowledged comes back *before* another one has its partitions, if messages
/// come back ([`Delivery::AtLeastOnce`]): whoever has them next is given first what comes back, in its old order and with
/// a [`delivery_count`](crate::routing::Message::delivery_count) of 2 or more, then the rest. With [`Delivery::AtMostOnce`] what
/// was received is gone, as in any channel.
///
/// # Cost
///
/// A routed channel takes an entry of the segment's directory for each partition, and one more (see
/// [`SegmentOptions::channels`](crate::SegmentOptions::channels)), and the rings of as many channels: 8 bytes for each message of the
/// [capacity](Self::capacity) and 2 KiB at least, twice that where messages come back. A message costs 1.3 to 1.7 times what it
/// costs in a plain channel. More receivers than partitions are of no use: those
/// wait until others leave.
///
/// # Examples
///
/// ```
/// use waterway::{policy::{Policy, RouteKey}, Segment};
///
/// #[waterway::plain]
/// #[derive(Clone, Copy, Debug)]
/// struct Order { customer: u64, number: u64 }
///
/// impl Policy for Order {
///     fn route(&self) -> RouteKey {
///         self.customer.into()
///     }
/// }
///
/// let segment = Segment::options().in_process()?;
/// let orders = || segment.channel::<Order>("orders").routed().partitions(4);
/// let (sender, one) = orders().open()?;
/// let other = orders().receiver()?;
/// // A receiver takes its share when it is asked for a message.
/// while one.partitions().len() != 2 || other.partitions().len() != 2 {
///     assert!(one.try_recv().is_err() && other.try_recv().is_err());
/// }
///
/// for number in 0..100 {
///     sender.try_send(Order { customer: number % 10, number })?;
/// }
/// for receiver in [&one, &other] {
///     let mut last = [None; 10];
///     while let Ok(order) = receiver.try_recv() {
///         assert!(last[order.customer as usize] < Some(order.number));
///         last[order.customer as usize] = Some(order.number);
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a channel is opened by `sender`, `receiver` or `open`"]
pub struct Options<T: ?Sized> {
    channel: ChannelOptions<T>,
    partitions: Option<usize>,
}

impl<T: ?Sized> Options<T> {
    pub(crate) fn new(channel: ChannelOptions<T>) -> Self {
        Self { channel, partitions: None }
    }

    /// How many partitions there are, from 1 to 256. Unless asked for, as many as the channel has, or 16 for a new one.
    pub fn partitions(mut self, partitions: usize) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// The most messages that may wait in each partition: see [`ChannelOptions::capacity`].
    pub fn capacity(mut self, messages: usize) -> Self {
        self.channel = self.channel.capacity(messages);
        self
    }

    /// How often messages are delivered: see [`ChannelOptions::delivery`].
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.channel = self.channel.delivery(delivery);
        self
    }

    /// Where messages go that come back after their last delivery: see [`ChannelOptions::policy`].
    pub fn policy(mut self, policy: DeadLetter) -> Self {
        self.channel = self.channel.policy(policy);
        self
    }

    /// Whether the channel outlives its ends: see [`ChannelOptions::persistent`].
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.channel = self.channel.persistent(persistent);
        self
    }

    /// How senders and receivers made by these options wait.
    pub fn wait(mut self, strategy: WaitStrategy) -> Self {
        self.channel = self.channel.wait(strategy);
        self
    }

    fn head(&self) -> Result<Head, OpenError>
    where
        T: Payload,
    {
        let (attachment, name, persistent) = self.channel.place();
        let name = Name::new(name)?;
        if name.as_str().len() > LONGEST {
            return Err(OpenError::InvalidName { name: name.as_str().to_owned() });
        }
        if let Some(partitions) = self.partitions.filter(|partitions| !(1..=MOST).contains(partitions)) {
            return Err(OpenError::InvalidOptions(format!(
                "{partitions} partitions are not possible: choose a number from 1 to {MOST}"
            )));
        }
        let request = ChannelRequest {
            // To be persistent all of it must be there, see `settle`.
            persistent: persistent.filter(|persistent| !persistent),
            slots: self.partitions.unwrap_or(PARTITIONS) as u64,
            schema: T::schema(),
            ..ChannelRequest::of_nothing(
                name.as_str(),
                Kind::Routed,
                self.partitions.map(|partitions| partitions as u64),
            )
        };
        let port = attachment.open_channel(&request, &[End::Sender])?;
        Head::new(port).ok_or_else(|| {
            let what = format!("the head of the routed channel {:?} has no place for its partitions", name.as_str());
            attachment.damaged(what)
        })
    }

    /// Enters ends into all partitions, one after the other, and makes something of each.
    fn enter<R>(&self, head: &Head, ends: &[End], make: impl Fn(Arc<Port>) -> R) -> Result<Vec<R>, OpenError>
    where
        T: Payload,
    {
        let (_, name, persistent) = self.channel.place();
        let persistent = persistent.filter(|persistent| !persistent);
        let entered: Result<Vec<R>, OpenError> = (0..head.partitions())
            .map(|partition| match self.channel.enter_as(&format!("{name}#{partition}"), persistent, ends) {
                Ok(port) => Ok(make(port)),
                // Users know the channel by its name.
                Err(OpenError::Mismatch { expected, found, .. }) => {
                    Err(OpenError::Mismatch { channel: name.to_owned(), expected, found })
                }
                Err(error) => Err(error),
            })
            .collect();
        if entered.is_err() {
            // Those that were entered have been left again.
            head.unite_those_there();
        }
        entered
    }

    /// All partitions are there. The channel outlives its ends from now on, if that was asked for, not before: what is refused leaves
    /// nothing. The head does first: whoever enters it, or buries us, makes the partitions follow.
    fn settle<'a>(&self, head: &Head, partitions: impl Iterator<Item = &'a Arc<Port>>) {
        if self.channel.place().2 == Some(true) {
            head.persist();
        }
        head.unite(&partitions.map(|port| &**port).collect::<Vec<_>>());
    }

    /// A sender.
    ///
    /// # Errors
    ///
    /// [`OpenError::Mismatch`] if the channel is there and carries something else, or has another number of partitions, another
    /// capacity or delivery, or if something else has that name; [`OpenError::InvalidName`], also for a name of more
    /// than 124 characters; [`OpenError::InvalidOptions`] for an impossible number;
    /// [`OpenError::TooManyChannels`] or [`OpenError::OutOfMemory`] if there is no place for all partitions.
    pub fn sender(self) -> Result<Sender<T>, OpenError>
    where
        T: Payload,
    {
        let head = self.head()?;
        let senders = self.enter(&head, &[End::Sender], |port| self.channel.sender_at(port))?;
        self.settle(&head, senders.iter().map(|sender| &sender.port));
        Ok(Sender::new(senders, head, self.channel.strategy()))
    }

    /// A receiver. It takes its share of the partitions when it is first asked for a message.
    ///
    /// # Errors
    ///
    /// As for [`sender`](Self::sender).
    pub fn receiver(self) -> Result<Receiver<T>, OpenError>
    where
        T: Payload,
    {
        let (head, strategy) = (self.head()?, self.channel.strategy());
        let receivers = self.enter(&head, &[End::Receiver], |port| channel::Receiver::new(port, strategy))?;
        self.settle(&head, receivers.iter().map(|receiver| &receiver.port));
        Ok(Receiver::new(receivers, head, strategy))
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
        let (head, strategy) = (self.head()?, self.channel.strategy());
        let ends = self.enter(&head, &[End::Sender, End::Receiver], |port| {
            (self.channel.sender_at(Arc::clone(&port)), channel::Receiver::new(port, strategy))
        })?;
        let (senders, receivers): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
        self.settle(&head, senders.iter().map(|sender| &sender.port));
        Ok((Sender::new(senders, head.clone(), strategy), Receiver::new(receivers, head, strategy)))
    }
}

impl<T: ?Sized> fmt::Debug for Options<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("channel", &self.channel)
            .field("partitions", &self.partitions)
            .finish_non_exhaustive()
    }
}
