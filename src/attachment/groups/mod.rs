//! Broadcasts and their groups: the process's side of [`Log`], who takes part, and what becomes of what the dead held.
//!
//! A broadcast is an entry of the directory whose block has the log behind the cells and the permits. A group is an entry of its
//! own, so that it has ends, waiters and a life as a channel has; its `value` says which column of the log it has
//! (`column + 1 << 16 | epoch`), its `epoch` is the word that names the ring of its broadcast. Whoever has an end of a group, or a
//! message, has one of the broadcast, for longer: so the log is there while anybody works in it.
//!
//! A group joins once: whoever finds its `value` 0 makes it join in a column that it has reserved, and then names that by a
//! CAS; who comes second gives its own column back. A column that nobody names and whose maker is dead is left by the reaper.
//!
//! **Burial.** The reaper first gives the dead an end of every broadcast, so that none goes meanwhile; settles what the dead held;
//! retires what nobody wants any more; and then clears the dead's ends, of groups first. All of it can be repeated.

mod members;
mod policy;

pub(crate) use members::{Claim, GroupEnd, Member, Missing, TopicEnd};
pub(crate) use policy::{DEFAULT_CAPACITY, MOST_DELIVERIES, Policy, pack_extras};
pub(super) use policy::{are_extras, describe_extras, extras, with_defaults};

use std::{ptr::NonNull, sync::atomic::Ordering, time::Duration};

use crate::{
    alloc::{AllocError, Block},
    attachment::{
        Attachment,
        directory::{self, End, Kind, PERSISTENT, Phase},
        lease::{Held, Lease},
        port::{Port, Refused},
        rings::behind_ring,
    },
    notify::{Direction, Topic, wakers},
    ring::{
        Position,
        log::{Column, Group, GroupLine, Log, MAX_GROUPS, Next, Vacancy},
        transfer,
    },
    segment::{error::OpenError, lanes::LaneId, layout::ChannelEntry},
    sys::{
        clock,
        shared::{SharedRef, SharedSlice},
        sync::AtomicU64,
    },
};

fn stride(groups: usize) -> usize {
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
        let given = lease.give(|lease| {
            loop {
                let vacancy = self.vacancy(log, position)?;
                let allocator = attachment.allocator();
                let filled = attachment.with_worker(|worker| {
                    transfer::publish(allocator, log, position, &worker.lane, vacancy, lease.block())
                });
                if let Some(at) = filled {
                    published = at;
                    return Ok(());
                }
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
            Next::Evict(index, column) => self.attachment().evict(log, index, column),
            Next::Wait(left) => {
                if !self.attachment().leave_unnamed(log) {
                    return Err(Unpublished::Behind(left.map(Duration::from_millis)));
                }
            }
        }
        Ok(None)
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

    /// The broadcast outlives its ends, as a group of it does.
    pub(crate) fn outlive(&self) {
        if self.attachment().is_usable() {
            self.attachment().directory().set_flags(self.index(), PERSISTENT);
        }
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
        let group = loop {
            if let Some(group) = group_named(&entry).filter(|group| group.column < log.columns().count()) {
                if !log.is_active(group) {
                    // Whoever has put it out may have died of it: it does not outlive its members.
                    attachment.directory().clear_flags(self.index(), PERSISTENT, |_| true);
                }
                break group;
            }
            log.free_columns();
            let Some(group) = log.reserve(self.index(), policy.pressure, attachment.region().me()) else {
                return Err(OpenError::InvalidOptions(format!(
                    "the broadcast has {} groups, and room for no more: make it with more (BroadcastOptions::max_groups)",
                    log.columns().count()
                )));
            };
            entry.epoch.store(topic.entry.ring.load(Ordering::Acquire), Ordering::SeqCst);
            let joined = log.activate(group, policy.patience.into(), history);
            // Ordering: SeqCst: whoever sees the name finds the group active.
            let word = entry.value.compare_exchange(0, name_of(group), Ordering::SeqCst, Ordering::SeqCst);
            if word.is_err() || !joined {
                // Somebody was quicker.
                attachment.leave_column(&log, group);
            }
        };
        let position = Position::new(log.start(group));
        let topic_entry = topic.entry;
        self.member.get_or_init(|| Member { log, topic: topic_entry, group, most: policy.deliveries.into(), position });
        Ok(())
    }

    /// What the group was made with.
    pub(crate) fn policy(&self) -> Policy {
        Policy::unpack(self.attachment().directory().read(self.index()).shape.capacity)
    }
}

impl Attachment {
    /// The log of a broadcast, if its entry makes sense.
    pub(super) fn log_of(&self, index: usize) -> Option<Log> {
        let described = self.directory.read(index);
        if described.shape.kind != Kind::Broadcast {
            return None;
        }
        let ring = self.ring_of(index)?;
        let block = self.allocator.owned_by(described.ring, described.ring_generation, LaneId::SEGMENT)?;
        let cells = 1_usize.checked_shl(described.shape.cells_log)?;
        let (history, groups) = extras(described.shape.dead_letter);
        let capacity = ring.capacity();
        let at = behind_ring(cells, self.region.header().params.participants as usize);
        let fits = (1..=MAX_GROUPS).contains(&groups)
            && capacity <= cells as u64 / 2
            && history <= capacity
            && self.allocator.bytes_of(block) >= at.checked_add(bytes_of_log(cells, groups))?;
        if !fits {
            return None;
        }
        let stride = stride(groups);
        // SAFETY: within the block (checked), at multiples of 64 bytes, atomics; as in `ring_of` it stays the broadcast's for as
        // long as anybody has an end, which whoever uses the log has. The hint is a field of an entry in the mapping.
        unsafe {
            let cell = self.data(block).cast::<AtomicU64>();
            let columns = self.data(block).add(at).cast::<AtomicU64>();
            let lines = columns.add(stride).cast::<GroupLine>();
            let marks = lines.add(groups).cast::<AtomicU64>();
            let tail = SharedRef::new(NonNull::from(&self.directory.entry(index).tail_hint));
            Some(Log::new(
                SharedSlice::new(cell, cells),
                SharedSlice::new(marks, stride * cells),
                SharedSlice::new(columns, groups),
                SharedSlice::new(lines, groups),
                tail,
                (capacity, history),
            ))
        }
    }

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

    /// Takes out columns of groups that have another: of who came second, and has not noticed yet. `true` if there was one.
    fn leave_unnamed(&self, log: &Log) -> bool {
        let mut found = false;
        for (column, word) in log.columns() {
            let group = Group { column, epoch: word.epoch() };
            let named =
                (word.entry() < self.directory.len()).then(|| self.directory.entry(word.entry())).and_then(group_named);
            if log.is_active(group) && named.is_some_and(|named| named != group) {
                self.leave_column(log, group);
                found = true;
            }
        }
        found
    }

    /// Puts a group out that was behind for too long.
    fn evict(&self, log: &Log, index: usize, column: Column) {
        if !log.evict(index, column) {
            return;
        }
        let (group, entry) = (Group { column: index, epoch: column.epoch() }, column.entry());
        log.forget_returned(group);
        self.settle_all(log);
        if entry < self.directory.len() {
            // It does not outlive its members any more.
            self.directory.clear_flags(entry, PERSISTENT, |entry| group_named(entry) == Some(group));
            self.review(entry);
            self.wake_all(entry, &[Direction::Receive]);
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

    /// The broadcast of a group whose entry is there, if it is there still.
    fn topic_of(&self, index: usize) -> Option<(usize, Log)> {
        let entry = self.directory.entry(index);
        let topic = self.directory.read(index).shape.dead_letter.checked_sub(1)?;
        let topic = usize::try_from(topic).ok().filter(|topic| *topic < self.directory.len())?;
        let found = self.directory.entry(topic);
        let is_it = directory::state(found).phase() == Phase::Live
            && found.ring.load(Ordering::Acquire) == entry.epoch.load(Ordering::SeqCst);
        is_it.then(|| self.log_of(topic)).flatten().map(|log| (topic, log))
    }

    /// A group goes: its entry is being taken down.
    pub(super) fn leave_log(&self, index: usize) {
        let Some(group) = group_named(self.directory.entry(index)) else { return };
        let Some((topic, log)) = self.topic_of(index) else { return };
        if log.column_of(group).is_some_and(|column| column.entry() == index) {
            self.leave_column(&log, group);
            self.wake_all(topic, &[Direction::Send]);
        }
    }

    /// Frees all that a broadcast has, of which nobody has an end.
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

    /// What a dead participant held for groups is done with, or comes back. Afterwards it has an end of every broadcast. (Who leaves
    /// in good order holds nothing: a message keeps its process attached.)
    pub(super) fn recover_groups(&self, participant: u16) {
        for index in 0..self.directory.len() {
            if self.directory.kind(index) != Kind::Broadcast || !self.hold_open(index, participant) {
                continue;
            }
            let Some(log) = self.log_of(index) else { continue };
            log.bury(participant, |entry| {
                let is_group = entry < self.directory.len() && self.directory.kind(entry) == Kind::Group;
                if is_group { Policy::unpack(self.directory.read(entry).shape.capacity).deliveries.into() } else { 0 }
            });
            for (column, word) in log.columns() {
                let group = Group { column, epoch: word.epoch() };
                // It was making a group join, and has not said so.
                let is_named = || {
                    word.entry() < self.directory.len()
                        && group_named(self.directory.entry(word.entry())) == Some(group)
                };
                if word.participant() == participant && log.is_active(group) && !is_named() {
                    log.leave(group);
                    log.forget_returned(group);
                }
            }
            self.settle_all(&log);
            log.free_columns();
        }
    }

    /// Gives a participant that does nothing of its own an end of a broadcast. `false` if there is no such.
    fn hold_open(&self, index: usize, participant: u16) -> bool {
        let entry = self.directory.entry(index);
        loop {
            let found = directory::state(entry);
            if found.phase() != Phase::Live || self.directory.kind(index) != Kind::Broadcast {
                return false;
            }
            End::Receiver.set(entry, participant);
            // As in `Directory::join`: whoever looked who is left before the bit was there looks again.
            if directory::change(entry, found, found.with(0, 0)) {
                return true;
            }
            if directory::state(entry).phase() != Phase::Live {
                End::Receiver.clear(entry, participant);
                return false;
            }
        }
    }
}
