//! Broadcasts and their groups: the process's side of [`Log`], who takes part, and what becomes of what the dead held.
//!
//! A broadcast is an entry of the directory whose block has the log behind the cells and the permits. A group is an entry of its
//! own, so that it has ends, waiters and a life as a channel has; its `value` says which column of the log it has
//! (`column + 1 << 16 | epoch`), its `epoch` is the word that names the ring of its broadcast. Whoever has an end of a group, or a
//! message, has one of the broadcast, for longer: so the log is there while anybody works in it.
//!
//! A group joins once. Whoever finds its `value` 0 reserves a column for it, or finds one that was, and names it by a CAS: so of
//! several that come at once all have the same, wherever the others stand. Whoever has an end of a group then does what
//! is left of its joining; what was reserved and not named is given back by whoever finds it. The entry's end ends the column, and
//! what was reserved for it.
//!
//! **Persistence.** A group outlives its ends from when it has joined: so one that is refused leaves nothing. A broadcast outlives its ends as
//! long as a group of it does: who makes a group persistent says so of the group first, then of the broadcast, which raises the
//! version of its state; who finds no such group takes it back by a CAS from the state that it read before it looked. What a dead one
//! has left between the two its reaper completes.
//!
//! **Burial.** The reaper pins each broadcast in its turn, so that it does not go meanwhile; settles what the dead held; retires what
//! nobody wants any more; and then clears the dead's ends, of groups first. All of it can be repeated.
//!
//! A group that is taken down leaves its column with its broadcast pinned, and only if that is the one it has joined. What a
//! publisher does to the group of a column, by its number, it does with a pin of that very group.

mod members;
mod policy;

pub(crate) use members::{Claim, GroupEnd, Member, Missing, TopicEnd};
pub(crate) use policy::{DEFAULT_CAPACITY, MOST_DELIVERIES, Policy, pack_extras};
pub(super) use policy::{are_extras, describe_extras, extras, with_defaults};

use std::{sync::atomic::Ordering, time::Duration};

use crate::{
    alloc::{AllocError, Block},
    attachment::{
        Attachment,
        directory::{self, Kind, PERSISTENT},
        ends::Pin,
        lease::{Held, Lease},
        port::{Port, Refused},
    },
    region::{error::OpenError, layout::ChannelEntry},
    ring::{
        Position,
        log::{Column, Group, GroupLine, Log, MAX_GROUPS, Next, Phase as Stage, Vacancy},
        transfer,
    },
    sys::clock,
    wake::{Direction, Topic, wakers},
};

pub(super) fn stride(groups: usize) -> usize {
    groups.next_multiple_of(8)
}

/// Bytes of a log behind its cells: words of columns, lines of groups, marks.
pub(super) fn bytes_of_log(cells: usize, groups: usize) -> usize {
    8 * stride(groups) + size_of::<GroupLine>() * groups + 8 * stride(groups) * cells
}

/// Milliseconds, as all processes of a machine count them.
pub(super) fn now() -> u64 {
    clock::monotonic() / 1_000_000
}

/// The column that a group's entry names.
fn group_named(entry: &ChannelEntry) -> Option<Group> {
    // Ordering: SeqCst: named after it is active.
    let word = entry.value.load(Ordering::SeqCst);
    let column = (word >> 16).checked_sub(1)? as usize;
    (column < MAX_GROUPS).then_some(Group { column, epoch: word as u16 })
}

fn name_of(group: Group) -> u64 {
    (group.column as u64 + 1) << 16 | u64::from(group.epoch)
}

/// Why nothing was published now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unpublished {
    /// A group is behind; it will be put out after that time, if that is how it is.
    Behind(Option<Duration>),
    Refused(Refused),
}

impl Port {
    /// The log of a broadcast; `None` only if somebody has overwritten what the entry is of.
    fn log(&self) -> Option<&Log> {
        self.log.as_ref()
    }

    /// Publishes a message whose block is filled by `fill`, as for a channel: see [`Port::try_send`]. Returns how many groups get
    /// it.
    pub(crate) fn try_publish(
        &self,
        position: &Position,
        size: usize,
        align: usize,
        fill: impl FnOnce(&mut [u8]) -> bool,
    ) -> Result<usize, Unpublished> {
        let attachment = self.attachment();
        let Some(log) = self.log().filter(|_| attachment.is_usable()) else {
            return Err(Unpublished::Refused(Refused::Closed));
        };
        if log.history() == 0 && log.entries().next().is_none() {
            return Ok(0);
        }
        // Before anything is allocated: who waits for room holds no memory that others may need. And nothing is taken from anybody
        // before all that may be refused has been had.
        self.may_publish(log, position)?;
        let mut lease = Lease::new(attachment, self.block_for(log, size, align)?);
        if !fill(&mut lease.bytes_mut()[..size]) {
            return Err(Unpublished::Refused(Refused::Unwritten));
        }
        let mut published = 0;
        let mut was_sent = false;
        let given = lease.give(|lease| {
            loop {
                let vacancy = self.vacancy(log, position)?;
                if was_sent {
                    // Its generation was seen on the way to the log.
                    lease.renew();
                }
                let allocator = attachment.allocator();
                let filled = attachment.with_worker(|worker| {
                    transfer::publish(allocator, log, position, &worker.lane, vacancy, lease.block())
                });
                if let Some(at) = filled {
                    published = at;
                    return Ok(());
                }
                was_sent = true;
            }
        });
        given.map_err(|(error, _)| error)?;
        self.meters().sent();
        let groups = self.has_published(log);
        // It makes an older one past; or whoever wanted it has left since.
        if (log.history() > 0 || groups == 0)
            && let Some(past) = published.checked_sub(log.history())
        {
            attachment.settle(log, past, None);
        }
        Ok(groups)
    }

    /// Whether there is room, which nobody has made yet.
    fn may_publish(&self, log: &Log, position: &Position) -> Result<(), Unpublished> {
        // Each round has put a group out, or seen somebody else do so.
        for _ in 0..4 * log.cells() {
            match log.obstacle(position, now) {
                None => return Ok(()),
                Some(next) => self.step(log, next)?,
            };
        }
        Err(Unpublished::Behind(None))
    }

    /// Makes room.
    fn vacancy(&self, log: &Log, position: &Position) -> Result<Vacancy, Unpublished> {
        // Each round has emptied a cell, or put a group out, or seen somebody else do so.
        for _ in 0..4 * log.cells() {
            if let Some(vacancy) = self.step(log, log.next(position, now))? {
                return Ok(vacancy);
            }
        }
        Err(Unpublished::Behind(None))
    }

    /// Does what is to be done next.
    fn step(&self, log: &Log, next: Next) -> Result<Option<Vacancy>, Unpublished> {
        match next {
            Next::Vacant(vacancy) => return Ok(Some(vacancy)),
            Next::Retire(index) => self.attachment().retire_cell(log, index, None),
            Next::Evict(index, column) => self.evict(log, index, column),
            Next::Wait(left) => return Err(Unpublished::Behind(left.map(Duration::from_millis))),
        }
        Ok(None)
    }

    /// Puts a group out that was behind for too long.
    fn evict(&self, log: &Log, index: usize, column: Column) {
        if !log.evict(index, column) {
            return;
        }
        self.attachment().finish_eviction(self.index(), log, index, column);
    }

    /// Memory for a message. What waits only for those who may miss it gives way.
    fn block_for(&self, log: &Log, size: usize, align: usize) -> Result<Block, Unpublished> {
        let attachment = self.attachment();
        let mut may_be_enough = None;
        for _ in 0..=log.cells() {
            let error = match attachment.with_worker(|worker| attachment.allocate(worker, size, align)) {
                Ok(block) => return Ok(block),
                Err(error) => error,
            };
            let gives_way = matches!(error, AllocError::OutOfMemory { .. } | AllocError::NoRoom { .. })
                && *may_be_enough.get_or_insert_with(|| attachment.can_shed(log, size));
            match gives_way.then(|| log.shed(now)).flatten() {
                Some(index) => attachment.retire_cell(log, index, None),
                None => return Err(Unpublished::Refused(Refused::Memory(error))),
            }
        }
        Err(Unpublished::Behind(None))
    }

    /// Wakes one member of each group that waits; returns how many groups there are.
    fn has_published(&self, log: &Log) -> usize {
        let mut groups = 0;
        wakers::letting_out(|| {
            for entry in log.entries() {
                groups += 1;
                if entry < self.attachment().directory().len()
                    && self.attachment().parked(entry, Direction::Receive).any()
                {
                    self.meters().wakes(|| true);
                    self.attachment().wake_one_of(entry);
                }
            }
            if self.wants_room.parked() {
                self.wants_room.wake_one_if_work();
            }
        });
        groups
    }

    /// Groups that see what is published now.
    pub(crate) fn groups(&self) -> usize {
        self.log().filter(|_| self.attachment().is_usable()).map_or(0, |log| log.entries().count())
    }

    /// Messages that a group may be behind.
    pub(crate) fn depth(&self) -> u64 {
        self.log().map_or(0, Log::capacity)
    }

    /// Makes the group of this port join the broadcast, unless it has, and remembers where it is.
    fn join(&self, topic: &Port, policy: Policy, history: u64) -> Result<(), OpenError> {
        let (attachment, entry) = (self.attachment(), self.entry);
        let Some(log) = topic.log().copied() else {
            return Err(attachment.lost_ring(&attachment.directory().read(topic.index()).name));
        };
        // Whoever ends the group finds the broadcast by this, and what was reserved there. All write the same.
        entry.epoch.store(topic.entry.ring.load(Ordering::Acquire), Ordering::SeqCst);
        let group = self.column(&log, policy)?;
        log.join(group, policy.patience, history);
        if !log.is_active(group) {
            // Whoever has put it out may have died of it: it does not outlive its members.
            attachment.directory().clear_flags(self.index(), PERSISTENT, |_| true);
        }
        let position = Position::new(log.start(group));
        let topic_entry = topic.entry;
        self.member.get_or_init(|| Member { log, topic: topic_entry, group, most: policy.deliveries.into(), position });
        Ok(())
    }

    /// The column that the group's entry names, which it does from now on.
    fn column(&self, log: &Log, policy: Policy) -> Result<Group, OpenError> {
        let named = || group_named(&self.entry).filter(|group| group.column < log.columns().count());
        let group = loop {
            if let Some(group) = named() {
                break group;
            }
            let reserved = log.reserved_for(self.index(), policy.pressure).or_else(|| {
                log.free_columns();
                self.attachment().give_back_unnamed(log);
                log.reserve(self.index(), policy.pressure)
            });
            let Some(reserved) = reserved else {
                // Of those who come at once another may have been quicker.
                if named().is_some() || log.reserved_for(self.index(), policy.pressure).is_some() {
                    continue;
                }
                return Err(OpenError::InvalidOptions(format!(
                    "the broadcast has {} groups, and room for no more: make it with more (broadcast::Options::max_groups)",
                    log.columns().count()
                )));
            };
            // Ordering: SeqCst: named before anything is written beside it. It fails if another is named.
            let word = &self.entry.value;
            if word.compare_exchange(0, name_of(reserved), Ordering::SeqCst, Ordering::SeqCst).is_err()
                && named().is_none()
            {
                // Nothing that makes sense is named.
                return Err(self.attachment().lost_ring(&self.attachment().directory().read(self.index()).name));
            }
        };
        self.attachment().give_back_unnamed(log);
        Ok(group)
    }

    /// The group of this port outlives its ends from now on, and so does its broadcast; unless it was put out.
    fn outlive(&self, topic: &Port) {
        let attachment = self.attachment();
        let Some(member) = self.member.get().filter(|_| attachment.is_usable()) else { return };
        attachment.persist(self.index());
        if member.log.is_active(member.group) {
            attachment.persist(topic.index());
            // It may have been put out since.
            attachment.settle_persistence(topic.index(), &member.log);
        } else {
            attachment.directory().clear_flags(self.index(), PERSISTENT, |_| true);
        }
    }

    /// What the group was made with.
    pub(crate) fn policy(&self) -> Policy {
        Policy::unpack(self.attachment().directory().read(self.index()).shape.capacity)
    }
}

impl Attachment {
    /// Whether so many bytes might be had if all messages that only keep memory gave way: else they would for nothing.
    fn can_shed(&self, log: &Log, bytes: usize) -> bool {
        let blocks = log.sheddable(now).filter_map(|block| self.allocator.in_flight(block));
        let shed: usize = blocks.map(|(block, _)| self.allocator.bytes_of(block)).sum();
        shed.saturating_add(self.stats().free_bytes()) >= bytes
    }

    /// Frees the message of a cell, if it is closed and nobody holds it.
    fn retire_cell(&self, log: &Log, index: usize, topic: Option<&Port>) {
        let retired = self.with_worker(|worker| transfer::retire(&self.allocator, log, &worker.lane, index, || {}));
        if let Some(block) = retired {
            self.free(block);
            // Only where all cells were held did anybody wait for that.
            if let Some(topic) = topic
                && topic.wants_room.parked()
            {
                topic.wants_room.wake_one_if_work();
            }
        }
    }

    /// Frees the message at a position, if all groups are done with it.
    fn settle(&self, log: &Log, position: u64, topic: Option<&Port>) {
        if log.close_if_done(position) {
            self.retire_cell(log, log.index(position), topic);
        } else {
            // It may keep memory only for those who may miss it from now on: a publisher that waits for memory takes it from them.
            self.was_freed(true);
        }
    }

    fn settle_all(&self, log: &Log) {
        log.published().for_each(|position| self.settle(log, position, None));
    }

    /// A group that has left, or never came to be.
    fn leave_column(&self, log: &Log, group: Group) {
        log.leave(group);
        log.forget_returned(group);
        self.settle_all(log);
        log.free_columns();
    }

    /// Gives back what was reserved for groups that have another column.
    fn give_back_unnamed(&self, log: &Log) {
        for (index, column) in log.columns().filter(|(_, column)| column.phase() == Stage::Joining) {
            let named = self.group_at(column.entry());
            if column.entry() >= self.directory.len()
                || named.is_some_and(|named| named != Group { column: index, epoch: column.epoch() })
            {
                log.give_back_column(index, column);
            }
        }
    }

    /// The column that an entry names.
    fn group_at(&self, entry: usize) -> Option<Group> {
        (entry < self.directory.len()).then(|| self.directory.entry(entry)).and_then(group_named)
    }

    /// Whether a group of the broadcast outlives its ends.
    fn has_persistent_group(&self, log: &Log) -> bool {
        log.columns().filter(|(_, column)| column.phase() == Stage::Active).any(|(index, column)| {
            self.group_at(column.entry()) == Some(Group { column: index, epoch: column.epoch() })
                && self.directory.kind(column.entry()) == Kind::Group
                && directory::state(self.directory.entry(column.entry())).has(PERSISTENT)
        })
    }

    /// A group has ended, or outlives its ends no more: the broadcast does as long as another one does.
    fn settle_persistence(&self, topic: usize, log: &Log) {
        self.directory.clear_flags(topic, PERSISTENT, |topic| {
            directory::state(topic).has(PERSISTENT) && !self.has_persistent_group(log)
        });
    }

    /// Does what follows once a group is put out of a broadcast, in which the caller has an end or a pin. It may have been done
    /// already.
    fn finish_eviction(&self, topic: usize, log: &Log, index: usize, column: Column) {
        let (group, number) = (Group { column: index, epoch: column.epoch() }, column.entry());
        log.forget_returned(group);
        self.settle_all(log);
        if number >= self.directory.len() {
            return;
        }
        // Not the group of another broadcast that has the entry by now.
        let ring = self.directory.entry(topic).ring.load(Ordering::Acquire);
        let is_it = |entry: &ChannelEntry| {
            self.directory.kind(number) == Kind::Group
                && entry.epoch.load(Ordering::SeqCst) == ring
                && group_named(entry) == Some(group)
        };
        if let Some(pin) = self.pin(number, is_it) {
            // It does not outlive its members any more.
            self.directory.clear_flags(number, PERSISTENT, |_| true);
            self.settle_persistence(topic, log);
            self.wake_all(number, &[Direction::Receive]);
            drop(pin);
        }
    }

    /// Wakes a member of a group.
    fn wake_one_of(&self, index: usize) {
        if index < self.directory.len() {
            let parked = self.parked(index, Direction::Receive);
            self.hub.wake_one(Topic::channel(index as u32, Direction::Receive), parked);
        }
    }

    /// The last publisher has gone: whoever waits in a group must hear of it.
    pub(super) fn wake_groups(&self, index: usize) {
        if let Some(log) = self.log_of(index) {
            for entry in log.entries().filter(|entry| *entry < self.directory.len()) {
                self.wake_all(entry, &[Direction::Receive]);
            }
        }
    }

    /// Pins the broadcast of a group whose entry is being taken down, if it is there still.
    fn topic_of(&self, index: usize) -> Option<Pin<'_>> {
        let entry = self.directory.entry(index);
        let topic = self.directory.read(index).shape.dead_letter.checked_sub(1)?;
        let topic = usize::try_from(topic).ok().filter(|topic| *topic < self.directory.len())?;
        let ring = entry.epoch.load(Ordering::SeqCst);
        self.pin(topic, |found| found.ring.load(Ordering::Acquire) == ring)
    }

    /// A group goes: its entry is being taken down, and nobody has an end of it any more.
    pub(super) fn leave_log(&self, index: usize) {
        // The broadcast is pinned: if it was that group that kept it open, it goes when the pin does.
        let Some(topic) = self.topic_of(index) else { return };
        let Some(log) = self.log_of(topic.index()) else { return };
        let named = group_named(self.directory.entry(index));
        let mut has_left = false;
        for (at, column) in log.columns().filter(|(_, column)| column.entry() == index) {
            let group = Group { column: at, epoch: column.epoch() };
            if named == Some(group) {
                self.leave_column(&log, group);
                has_left = true;
            } else {
                log.give_back_column(at, column);
            }
        }
        self.settle_persistence(topic.index(), &log);
        if has_left {
            self.wake_all(topic.index(), &[Direction::Send]);
        }
    }

    /// Frees all that a broadcast has, whose entry is dead, and the caller's to clean.
    pub(super) fn drain_log(&self, index: usize) {
        let Some(log) = self.log_of(index) else { return };
        for unpinned in log.close_all() {
            let Some((block, _)) = self.allocator.in_flight(unpinned.block()) else { continue };
            let taken = self.with_worker(|worker| transfer::take(&self.allocator, &log, &worker.lane, unpinned, block));
            if taken {
                self.free(block);
            }
        }
    }

    /// What a dead participant held for groups is done with, or comes back. (Who leaves in good order holds nothing: a message keeps
    /// its process attached.)
    pub(super) fn recover_groups(&self, participant: u16) {
        for index in 0..self.directory.len() {
            let Some(pin) = self.pin(index, |_| self.directory.kind(index) == Kind::Broadcast) else { continue };
            let Some(log) = self.log_of(index) else { continue };
            log.bury(participant, |entry| {
                let is_group = entry < self.directory.len() && self.directory.kind(entry) == Kind::Group;
                if is_group { Policy::unpack(self.directory.read(entry).shape.capacity).deliveries.into() } else { 0 }
            });
            self.give_back_unnamed(&log);
            // Who puts a group out may have died of it.
            for (at, column) in log.columns().filter(|(_, column)| column.phase() == Stage::Evicted) {
                self.finish_eviction(index, &log, at, column);
            }
            if self.has_persistent_group(&log) {
                // It may have died between the two.
                self.persist(index);
            } else {
                self.settle_persistence(index, &log);
            }
            self.settle_all(&log);
            log.free_columns();
            drop(pin);
        }
    }
}
