//! What the policies of a channel are: fixed when it is created, and compared with what a later opener asks for.
//!
//! They stand in two words of the channel's entry: `policies = keep:40 | order:16`, and `time_to_live` in nanoseconds, + 1. Both
//! are 0 of a channel without any.

use std::time::Duration;

/// By whose word messages have priorities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    /// Nobody's: there is one level.
    #[default]
    Sent = 0,
    /// That of a function of each opener's.
    Function = 1,
    /// That of their type, which also says how long each lives.
    Message = 2,
}

impl Order {
    /// Levels of a channel: each has a ring.
    pub(crate) fn levels(self) -> usize {
        if self == Self::Sent { 1 } else { LEVELS }
    }
}

/// Levels of priority.
pub(crate) const LEVELS: usize = 4;
/// What `keep` says if as many are kept as the capacity is.
pub(crate) const KEEP_CAPACITY: u64 = (1 << KEEP_BITS) - 1;
const KEEP_BITS: u32 = 40;
const KEEP_SHIFT: u32 = 16;

/// The policies of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policies {
    pub(crate) order: Order,
    /// The most messages of a level that wait, before the oldest has to go; 0: senders wait.
    pub(crate) keep: u64,
    /// See [`time_to_live`]. 0: messages live as long as the channel.
    pub(crate) ttl: u64,
}

impl Policies {
    /// Whether there are none.
    pub(crate) fn are_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether messages may expire.
    pub(crate) fn may_expire(&self) -> bool {
        self.ttl > 0 || self.order == Order::Message
    }

    /// The most messages that may wait in a ring of a channel of that capacity.
    pub(crate) fn limit(&self, capacity: u64) -> u64 {
        if self.keep == 0 { capacity } else { self.keep.min(capacity) }
    }

    /// The words of an entry.
    pub(super) fn pack(&self) -> (u64, u64) {
        (self.order as u64 | self.keep << KEEP_SHIFT, self.ttl)
    }

    /// What stands in an entry.
    pub(super) fn unpack(word: u64, ttl: u64) -> Self {
        let order = match word & 0xff {
            1 => Order::Function,
            2 => Order::Message,
            _ => Order::Sent,
        };
        Self { order, keep: word >> KEEP_SHIFT & KEEP_CAPACITY, ttl }
    }
}

/// A time to live, as it stands in an entry: nanoseconds, + 1; 0 is none.
pub(crate) fn time_to_live(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).saturating_add(1)
}

/// What somebody wants of a channel's policies. `None`: whatever it has, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PolicyRequest {
    pub(crate) order: Option<Order>,
    pub(crate) keep: Option<u64>,
    pub(crate) ttl: Option<u64>,
}

impl PolicyRequest {
    /// No policies at all.
    pub(crate) const NONE: Self = Self { order: Some(Order::Sent), keep: Some(0), ttl: Some(0) };

    /// Of a new channel.
    pub(super) fn policies(&self) -> Policies {
        Policies { order: self.order.unwrap_or_default(), keep: self.keep.unwrap_or(0), ttl: self.ttl.unwrap_or(0) }
    }

    /// Whether the policies of the channel that is there will do; if not, what was wanted, and what there is of that. A sender
    /// must know how the priorities come about.
    pub(super) fn differ(&self, found: &Policies, sends: bool) -> Option<(String, String)> {
        let order = self.order.or((sends && found.order != Order::Sent).then_some(Order::Sent));
        let wanted = Self { order, ..*self };
        let found = Self {
            order: wanted.order.map(|_| found.order),
            keep: wanted.keep.map(|_| found.keep),
            ttl: wanted.ttl.map(|_| found.ttl),
        };
        (wanted != found).then(|| (wanted.describe(), found.describe()))
    }

    /// What is asked for, for people.
    pub(super) fn describe(&self) -> String {
        let order = self.order.map(|order| match order {
            Order::Sent => ", no priorities",
            Order::Function => ", priorities by a function",
            Order::Message => ", policies of its messages",
        });
        let keep = self.keep.map(|keep| match keep {
            0 => ", no message gives way".into(),
            KEEP_CAPACITY => ", the oldest give way".into(),
            last => format!(", the last {last} are kept"),
        });
        let ttl = self.ttl.map(|ttl| match ttl.checked_sub(1) {
            None => ", no time to live".into(),
            Some(nanoseconds) => format!(", a time to live of {:?}", Duration::from_nanos(nanoseconds)),
        });
        [order.unwrap_or("").into(), keep.unwrap_or_default(), ttl.unwrap_or_default()].concat()
    }
}

/// What a message's policies say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Its level, from the lowest, 0.
    pub(crate) level: u8,
    /// How long it lives, as [`time_to_live`] says it; 0: as the channel has it.
    pub(crate) ttl: u64,
}

impl Default for Marks {
    /// Of a message of whom nothing is said.
    fn default() -> Self {
        Self { level: 1, ttl: 0 }
    }
}

/// What became of the messages of a channel that nobody received, as its [policies](crate::ChannelOptions::policy) had it: counted from
/// the channel's beginning, in all processes. A process that is killed may leave out the one that it was about to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Their [time to live](crate::policy::Retention::ttl) was over.
    pub expired: u64,
    /// They were the oldest, and had to [give way](crate::policy::Retention::keep_last).
    pub dropped: u64,
    /// They became [dead letters](crate::channel::DeadLetter): expired, or delivered as often as may be.
    pub dead_letters: u64,
    /// They could not become dead letters, as there is no such channel, or it was full or closed, and were freed: all that were
    /// delivered as often as may be, and of the expired those that should have become dead letters.
    pub discarded: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_come_out_of_an_entry_as_they_went_in() {
        for order in [Order::Sent, Order::Function, Order::Message] {
            for keep in [0, 1, 1 << 24, KEEP_CAPACITY] {
                for ttl in [0, 1, time_to_live(Duration::from_secs(3600)), u64::MAX] {
                    let policies = Policies { order, keep, ttl };
                    let (word, ttl) = policies.pack();
                    assert_eq!(Policies::unpack(word, ttl), policies);
                    assert_eq!((word, ttl) == (0, 0), policies.are_none());
                }
            }
        }
        assert_eq!(time_to_live(Duration::MAX), u64::MAX);
    }
}
