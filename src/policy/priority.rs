//! How soon a message is received.

use std::fmt;

/// How soon a message is received, compared with others that wait.
///
/// A channel with priorities ([`ByMessage`](crate::policy::ByMessage), [`PriorityBy`]) has four levels. Messages of a level are received in the
/// order in which they were sent; a receiver takes from the highest level that has any. So that none starves, of 16 receives
/// of a process one looks first at the lower levels, each in its turn, and then from the lowest up: while a message is the
/// first of its level, a process receives at most 47 others. What [came back](crate::Delivery::AtLeastOnce) comes before all of them.
///
/// In a [routed](crate::routing::Options) channel this holds for each partition: a key keeps its order within a priority.
///
/// **Capacity.** The [capacity](crate::ChannelOptions::capacity) is that of each level: urgent messages do not wait for room behind
/// others. A [permit](crate::Permit) is had before anybody knows its message, so it takes room in all levels until it is used. A
/// [sequence number](crate::Message::sequence) is that of a message in its level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// When there is nothing else.
    Low,
    /// Like most.
    #[default]
    Normal,
    /// Before most.
    High,
    /// Before all others.
    Urgent,
}

impl Priority {
    /// The number of the level.
    pub(crate) fn level(self) -> u8 {
        self as u8
    }

    /// The priority of a level; of what is none, the highest.
    pub(crate) fn of_level(level: u8) -> Self {
        match level {
            0 => Self::Low,
            1 => Self::Normal,
            2 => Self::High,
            _ => Self::Urgent,
        }
    }
}

/// The policy of a channel whose messages have the priority that a function says, which is called by whoever sends.
///
/// Each process that sends must ask for one, and brings its own function: nobody compares them. With a codec it is asked for after
/// [`codec`](crate::ChannelOptions::codec).
///
/// # Examples
///
/// ```
/// use waterway::policy::{Priority, PriorityBy};
///
/// # let segment = waterway::Segment::options().in_process()?;
/// let by_length = |bytes: &[u8]| if bytes.len() < 100 { Priority::High } else { Priority::Low };
/// let (sender, receiver) = segment.bytes("files").policy(PriorityBy(by_length)).open()?;
/// sender.try_send(vec![0; 1000])?;
/// sender.try_send("a short one")?;
/// assert_eq!(receiver.inquire().oldest.unwrap().priority, Priority::High);
/// assert_eq!(&*receiver.try_recv()?, b"a short one");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct PriorityBy<F>(pub F);

impl<F> fmt::Debug for PriorityBy<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PriorityBy").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attachment::policies::LEVELS;

    #[test]
    fn every_priority_has_a_level() {
        let all = [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent];
        assert_eq!(all.len(), LEVELS);
        assert!(all.iter().zip(0..).all(|(priority, level)| priority.level() == level));
        assert!(all.iter().all(|priority| Priority::of_level(priority.level()) == *priority));
        assert!(all.is_sorted());
    }
}
