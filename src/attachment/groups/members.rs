//! Members of groups, and the messages that they hold.

use std::sync::Arc;

use crate::{
    attachment::{
        directory::{self, CLOSED, End, SENDERS_GONE},
        groups::Policy,
        lease::Lease,
        port::Port,
    },
    region::{error::OpenError, lanes::LaneId, layout::ChannelEntry},
    ring::{
        Position,
        log::{Found, GivenBack, Group, Log, Taken},
    },
    sys::shared::SharedRef,
    wake::Direction,
};

/// Where a process is in a broadcast, for one group.
#[derive(Debug)]
pub(crate) struct Member {
    pub(super) log: Log,
    pub(super) topic: SharedRef<ChannelEntry>,
    pub(super) group: Group,
    /// How often a message is delivered at most; 0: at most once.
    pub(super) most: u64,
    /// The group has taken all before this. Shared by all members of the process.
    pub(super) position: Position,
}

impl Member {
    /// Whether there is something for a member, or the end.
    pub(in crate::attachment) fn has_work(&self, me: u16) -> bool {
        self.log.has_work(self.group, &self.position) || is_finished(&self.topic) && !self.awaits(me)
    }

    /// Whether something may come back that another process holds.
    fn awaits(&self, me: u16) -> bool {
        self.most > 0 && self.log.is_held_by_others(self.group, me)
    }
}

fn is_finished(topic: &ChannelEntry) -> bool {
    directory::state(topic).has(SENDERS_GONE | CLOSED)
}

/// Why a member got no message now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Empty,
    Closed,
    Lagged(u64),
    Evicted,
}

/// A message that a member holds. Dropped, it is acknowledged.
#[derive(Debug)]
pub(crate) struct Claim {
    topic: Arc<TopicEnd>,
    group: Group,
    most: u64,
    /// The group's entry, for who waits there.
    index: usize,
    taken: Taken,
    ended: bool,
}

impl Claim {
    pub(crate) fn position(&self) -> u64 {
        self.taken.position
    }

    pub(crate) fn tries(&self) -> u8 {
        self.taken.tries()
    }

    /// Whether the message comes back unless it is acknowledged.
    pub(crate) fn comes_back(&self) -> bool {
        self.most > 0
    }

    /// The message is to be delivered again.
    pub(crate) fn give_back(mut self) {
        self.ended = true;
        self.end(true);
    }

    fn end(&self, back: bool) {
        let attachment = self.topic.port.attachment();
        if !attachment.is_usable() {
            return;
        }
        let Some(log) = self.topic.port.log() else { return };
        if back {
            if log.give_back(self.group, &self.taken, self.most) == GivenBack::Waits {
                attachment.wake_one_of(self.index);
                return;
            }
        } else {
            log.acknowledge(self.group, &self.taken);
        }
        attachment.settle(log, self.taken.position, Some(&self.topic.port));
        if log.is_left(self.group) {
            log.free_columns();
        }
        // Who waits for the end waits for this, too.
        if self.most > 0
            && is_finished(&self.topic.port.entry)
            && attachment.parked(self.index, Direction::Receive).any()
        {
            attachment.wake_all(self.index, &[Direction::Receive]);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Whoever panics has not done its work.
        self.end(self.most > 0 && std::thread::panicking());
    }
}

/// An end of a broadcast, of either kind.
#[derive(Debug)]
pub(crate) struct TopicEnd {
    pub(crate) port: Arc<Port>,
    pub(crate) end: End,
}

impl Drop for TopicEnd {
    fn drop(&mut self) {
        self.port.leave(self.end);
    }
}

/// An end of a group. It goes before the end of its broadcast.
#[derive(Debug)]
pub(crate) struct GroupEnd {
    pub(crate) port: Arc<Port>,
    topic: Arc<TopicEnd>,
}

impl Drop for GroupEnd {
    fn drop(&mut self) {
        self.port.leave(End::Receiver);
    }
}

impl GroupEnd {
    /// Takes over an end of a group that was entered, and makes the group join, if nobody has.
    pub(crate) fn new(port: Arc<Port>, topic: Arc<TopicEnd>, policy: Policy, history: u64) -> Result<Self, OpenError> {
        let this = Self { port, topic };
        this.port.join(&this.topic.port, policy, history)?;
        Ok(this)
    }

    pub(crate) fn topic(&self) -> &Arc<TopicEnd> {
        &self.topic
    }

    /// Another end of the same group, for somebody else in this process.
    pub(crate) fn another(&self) -> Self {
        self.port.duplicate(End::Receiver);
        Self { port: Arc::clone(&self.port), topic: Arc::clone(&self.topic) }
    }

    /// Receives the next message of the group. Lock-free.
    pub(crate) fn try_receive(&self) -> Result<(Claim, Lease, LaneId), Missing> {
        let attachment = self.port.attachment();
        let Some(member) = self.port.member.get().filter(|_| attachment.is_usable()) else {
            return Err(Missing::Closed);
        };
        let (me, topic) = (attachment.region().me(), &self.topic.port);
        loop {
            // In this order: what was published by those who have gone is seen.
            let is_finished = is_finished(&member.topic);
            match member.log.receive(member.group, &member.position, me) {
                Found::Message(taken) => {
                    let (topic_end, index) = (Arc::clone(&self.topic), self.port.index());
                    let Member { group, most, .. } = *member;
                    let claim = Claim { topic: topic_end, group, most, index, taken, ended: false };
                    // What is taken takes up no room.
                    if topic.wants_room.parked() {
                        topic.wants_room.wake_one_if_work();
                    }
                    if self.port.wants_message.parked() {
                        self.port.wants_message.wake_one_if_work();
                    }
                    match attachment.allocator().in_flight(taken.block) {
                        Some((block, sender)) => return Ok((claim, Lease::pinned(attachment, block), sender)),
                        None => topic.count_invalid(),
                    }
                }
                Found::Settle { position, missed } => {
                    attachment.settle(&member.log, position, Some(topic));
                    if missed > 0 {
                        return Err(Missing::Lagged(missed));
                    }
                }
                Found::Lagged(missed) => return Err(Missing::Lagged(missed)),
                Found::Evicted => return Err(Missing::Evicted),
                Found::Nothing if !is_finished || member.awaits(me) => return Err(Missing::Empty),
                Found::Nothing => {
                    // Whoever else waits must hear of it, too.
                    self.port.wants_message.wake_one_if_work();
                    return Err(Missing::Closed);
                }
            }
        }
    }

    /// The group outlives its ends from now on.
    pub(crate) fn outlive(&self) {
        self.port.outlive(&self.topic.port);
    }

    /// Messages that wait for the group.
    pub(crate) fn waiting(&self) -> u64 {
        let member = self.port.member.get().filter(|_| self.port.attachment().is_usable());
        member.map_or(0, |member| member.log.waiting(member.group, &member.position))
    }

    /// Messages that were delivered as often as they may be.
    pub(crate) fn discarded(&self) -> u64 {
        let member = self.port.member.get().filter(|_| self.port.attachment().is_usable());
        member.map_or(0, |member| member.log.discarded(member.group))
    }
}
