//! For how long messages wait, and how many.

use std::time::Duration;

use crate::{
    attachment::policies::{KEEP_CAPACITY, time_to_live},
    channel::MAX_CAPACITY,
    policy::Asked,
};

/// For how long messages wait to be received, and how many of them. The default is as long as the channel is there, and that
/// senders wait for room.
///
/// As a policy of a channel it is that of all its messages. A [time to live](Self::ttl) and a [number](Self::keep_last) compose, if
/// both are asked for. What was lost that way is counted: [`Receiver::inquire`](crate::Receiver::inquire).
///
/// # Examples
///
/// ```
/// use waterway::policy::Retention;
///
/// # let segment = waterway::Segment::options().in_process()?;
/// let (sender, receiver) = segment.channel::<u64>("readings").policy(Retention::keep_last(2)).open()?;
/// (1..=5).try_for_each(|reading| sender.try_send(reading))?;
/// assert_eq!((*receiver.try_recv()?, *receiver.try_recv()?), (4, 5));
/// assert_eq!(receiver.inquire().counts.dropped, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    ttl: Option<Duration>,
    keep: Keep,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Keep {
    #[default]
    All,
    Last(usize),
    Capacity,
}

impl Retention {
    /// Messages that have waited for so long are not delivered any more: they become [dead letters](crate::channel::DeadLetter) if the channel
    /// has such, or are freed.
    ///
    /// That is found out when a receiver would take them, and when a sender finds no room because of them; until then they
    /// count as waiting. Time is counted from the moment of sending, by the clock of the machine that goes on while it is asleep
    /// (`CLOCK_BOOTTIME`), the same for all processes; with zero, nothing is ever received. A message that a receiver has got is
    /// its own, however long it keeps it; one that [comes back](crate::Delivery::AtLeastOnce) may have expired by then.
    pub fn ttl(time: Duration) -> Self {
        Self { ttl: Some(time), keep: Keep::All }
    }

    /// The last `messages` are kept: a sender that finds so many waiting drops the oldest, of its level if there are
    /// [priorities](crate::policy::Priority), and never waits for a receiver. At most the capacity; for a channel as a whole, not for single
    /// messages.
    ///
    /// Permits count as messages. If they have all the room, senders wait for them. What [came
    /// back](crate::Delivery::AtLeastOnce) takes up no room, and does not give way.
    pub fn keep_last(messages: usize) -> Self {
        Self { ttl: None, keep: Keep::Last(messages) }
    }

    /// As many are kept as the channel's capacity is: see [`keep_last`](Self::keep_last).
    pub fn overwrite_oldest() -> Self {
        Self { ttl: None, keep: Keep::Capacity }
    }

    /// What it says of a message.
    pub(super) fn marks(&self) -> u64 {
        self.ttl.map_or(0, time_to_live)
    }

    /// Asks for it as the policy of a channel.
    pub(super) fn ask_for(&self, asked: &mut Asked) {
        if let Some(ttl) = self.ttl {
            asked.request.ttl = Some(time_to_live(ttl));
        }
        match self.keep {
            Keep::All => {}
            Keep::Capacity => asked.request.keep = Some(KEEP_CAPACITY),
            Keep::Last(messages) if (1..=MAX_CAPACITY).contains(&messages) => {
                asked.request.keep = Some(messages as u64);
            }
            Keep::Last(messages) => {
                asked.impossible = Some(format!(
                    "the last {messages} messages cannot be kept: choose a number from 1 to {MAX_CAPACITY}"
                ));
            }
        }
    }
}
