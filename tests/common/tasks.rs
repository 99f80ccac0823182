//! Messages that say which policies are theirs, for tests of those.

#![allow(dead_code)] // Each test file uses its own part.

use std::time::Duration;

use waterway::{
    ChannelOptions, Receiver, Segment,
    policy::{ByMessage, Policy, Priority, Retention},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub(crate) const HOURS: Duration = Duration::from_secs(9 * 3600);
pub(crate) const LEVELS: [Priority; 4] = [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent];

/// A message that says its level, and whether nobody will want it.
#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Task {
    pub number: u64,
    pub level: u32,
    /// 0: as the channel has it, 1: for no time, 2: for hours.
    pub lives: u32,
}

impl Policy for Task {
    fn priority(&self) -> Priority {
        LEVELS[self.level as usize]
    }

    fn retention(&self) -> Retention {
        match self.lives {
            0 => Retention::default(),
            1 => Retention::ttl(Duration::ZERO),
            _ => Retention::ttl(HOURS),
        }
    }
}

pub(crate) fn task(number: u64, level: u32) -> Task {
    Task { number, level, lives: 0 }
}

pub(crate) fn tasks(segment: &Segment) -> ChannelOptions<Task> {
    segment.channel::<Task>("tasks").policy(ByMessage)
}

pub(crate) fn numbers(receiver: &Receiver<Task>) -> Vec<u64> {
    receiver.drain().map(|task| task.number).collect()
}
