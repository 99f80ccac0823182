//! Looking at what waits without taking it.

use std::time::Duration;

use crate::{
    attachment::{
        directory::{End, element_size},
        policies::Counts,
    },
    channel::{
        payload::{Payload, header_of},
        receiver::Receiver,
    },
    policy::Priority,
    sys::clock,
};

/// What waits in a channel, told by [`Receiver::inquire`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inquiry {
    /// Messages that wait.
    pub waiting: usize,
    /// The one that would be received next.
    pub oldest: Option<Oldest>,
    /// What became of those that nobody received.
    pub counts: Counts,
}

/// The oldest message that waits in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Oldest {
    /// Bytes of its payload.
    pub length: usize,
    /// Its number in the channel, which is its [`Message::sequence`](crate::Message::sequence).
    pub sequence: u64,
    /// Its [`Message::delivery_count`](crate::Message::delivery_count) when it is received.
    pub delivery_count: u32,
    /// Its priority; [`Normal`](Priority::Normal) where there are none.
    pub priority: Priority,
    /// How long ago it was sent, to some milliseconds; the time for which the machine was asleep does not count. Known where messages come back ([`Delivery::AtLeastOnce`](crate::Delivery)) or the channel has
    /// [policies](crate::ChannelOptions::policy): others do not pay for it.
    pub age: Option<Duration>,
}

impl<T: Payload + ?Sized> Receiver<T> {
    /// Looks at what waits without taking it. What it tells may be old by the time it is read: other receivers take
    /// messages, and senders send them. What has [expired](crate::policy::Retention::ttl) and is first goes its way, as if it were to be
    /// received.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let (sender, receiver) = segment.bytes("lines").open()?;
    /// assert_eq!(receiver.inquire().oldest, None);
    /// sender.try_send("first")?;
    /// sender.try_send("second one")?;
    /// let inquiry = receiver.inquire();
    /// assert_eq!((inquiry.waiting, inquiry.oldest.unwrap().length), (2, 5));
    /// assert_eq!(&*receiver.try_recv()?, b"first");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn inquire(&self) -> Inquiry {
        let oldest = self.port.peek(&self.position, element_size(T::SIZE).is_some()).map(|peeked| Oldest {
            // A length that cannot be is that of a message that nobody will receive.
            length: match peeked.first_word {
                Some((length, room)) => usize::try_from(length)
                    .map_or(0, |length| length.min(room.saturating_sub(header_of(T::ALIGN as usize)))),
                None => usize::try_from(T::SIZE).unwrap_or(0),
            },
            sequence: peeked.sequence,
            delivery_count: peeked.deliveries.saturating_add(1),
            priority: peeked.sent.map_or_else(Priority::default, |(level, _)| Priority::of_level(level)),
            age: peeked.sent.map(|(_, sent)| Duration::from_nanos(clock::ticks().saturating_sub(sent))),
        });
        let waiting = self.len().max(usize::from(oldest.is_some()));
        Inquiry { waiting, oldest, counts: self.port.counts() }
    }

    /// How many participants have a sender of the channel. A process that has several senders counts once; one that has
    /// opened the segment several times, once for each that has a sender; one that was killed, until that is noticed.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let receiver = segment.channel::<u64>("numbers").receiver()?;
    /// assert_eq!(receiver.sender_count(), 0);
    /// let sender = segment.channel::<u64>("numbers").sender()?;
    /// assert_eq!(receiver.sender_count(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sender_count(&self) -> usize {
        self.port.participants(End::Sender)
    }

    /// How many participants have a receiver of the channel; counted as in [`sender_count`](Self::sender_count).
    pub fn receiver_count(&self) -> usize {
        self.port.participants(End::Receiver)
    }
}
