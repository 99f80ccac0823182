//! A process's door to a channel: the ring, who waits, and who is still there. Knows nothing of types.
//!
//! All senders and receivers of a channel in a process share one port. It counts them, so that the directory needs to
//! know only whether the process has any.

use std::{
    ptr::NonNull,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use crate::{
    alloc::{AllocError, Block, Worker, word::State},
    attachment::{
        Anchor,
        delivery::{self, Recall},
        directory::{self, CLOSED, End, Kind, RECEIVERS_GONE, SENDERS_GONE},
        groups::{self, Member},
        lease::{Held, Lease},
        policed,
        policies::Marks,
        reserve, seats, signals,
    },
    observe::Meters,
    region::layout::ChannelEntry,
    ring::{
        CELLS_PER_LINE, Position, Ring,
        log::Log,
        transfer::{self, Received, TRAILER},
    },
    sys::{membarrier, shared::SharedRef},
    wake::{self, WaitQueue, Waiter, wakers},
};

/// Why a message was not sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// As many messages as the capacity wait.
    Full,
    /// Nobody is there to receive.
    Closed,
    /// There is no block for it.
    Memory(AllocError),
    /// What was to be written into its block could not be.
    Unwritten,
}

/// Why no message was received now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nothing {
    /// There may be one later.
    Empty,
    /// There will be none.
    Disconnected,
}

/// A process's door to a channel. See the module.
#[derive(Debug)]
pub(crate) struct Port {
    attachment: Anchor,
    index: usize,
    pub(super) entry: SharedRef<ChannelEntry>,
    pub(super) ring: Ring,
    /// What there is more if its messages come back, or it has policies.
    pub(super) recall: Option<Recall>,
    /// What there is more if it is a broadcast.
    pub(super) log: Option<Log>,
    /// Where this process is in its broadcast, if it is a group.
    pub(super) member: Arc<OnceLock<Member>>,
    /// Locked while a thread bids for permits.
    pub(super) bidding: Mutex<()>,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    /// Senders of this process that do not keep the channel open.
    weak_senders: Arc<AtomicUsize>,
    /// Every ring was sealed since the channel was closed.
    is_sealed: AtomicBool,
    meters: Meters,
    /// Tasks that wait for messages.
    pub(super) wants_message: Arc<WaitQueue>,
    /// Tasks that wait for room.
    pub(super) wants_room: Arc<WaitQueue>,
    /// Tasks that wait for the channel to close; of a notify, for a notification of all.
    pub(super) wants_close: Arc<WaitQueue>,
    /// What tasks that wait for news know, see `signals`.
    pub(super) known: Arc<AtomicU64>,
}

impl Port {
    pub(super) fn new(
        attachment: Anchor,
        index: usize,
        entry: SharedRef<ChannelEntry>,
        ring: Ring,
        recall: Option<Recall>,
        log: Option<Log>,
        kind: Kind,
    ) -> Self {
        let known = Arc::new(AtomicU64::new(0));
        // Of all levels.
        let rings = recall.as_ref().map_or_else(|| vec![ring], |recall| recall.rings(&ring));
        let is_levelled = rings.len() > 1;
        // SAFETY: as for the mapping: whoever looks for work holds on to the attachment, or is its bridge, which ends first.
        let process = unsafe { SharedRef::new(NonNull::from(&*attachment)) };
        let queue = |direction, work: Box<dyn Fn() -> bool + Send + Sync>, broadcast| {
            let first: Option<wake::LookAtLine> = match direction {
                wake::Direction::Send => {
                    let rings = rings.clone();
                    Some(Box::new(move || reserve::first_in_line(rings.iter())))
                }
                _ => None,
            };
            attachment.queue(index, direction, work, broadcast, first)
        };
        let member = Arc::<OnceLock<Member>>::default();
        let has_message: Box<dyn Fn() -> bool + Send + Sync> = match &recall {
            _ if kind == Kind::Group => {
                let (member, me) = (Arc::clone(&member), attachment.region().me());
                Box::new(move || member.get().is_some_and(|member| member.has_work(me)))
            }
            // Members wait for their group.
            _ if kind == Kind::Broadcast => Box::new(|| false),
            _ if kind == Kind::Notify => Box::new(move || signals::is_notified(&entry)),
            _ if kind == Kind::Watch => {
                let known = Arc::clone(&known);
                Box::new(move || signals::has_news(&entry, &known) || is_finished(&entry, &ring))
            }
            None => Box::new(move || is_receivable(&ring) || is_finished(&entry, &ring)),
            Some(recall) => {
                let (retry, channel, rings) = (*recall.retry(), recall.channel(), rings.clone());
                Box::new(move || {
                    rings.iter().any(is_receivable)
                        || delivery::has_returned(&entry, &retry)
                        || is_finished(&entry, &ring) && !process.is_held_by_others(channel)
                })
            }
        };
        let has_room: Box<dyn Fn() -> bool + Send + Sync> = match &recall {
            None => Box::new(move || has_room(&entry, &ring)),
            Some(recall) => {
                let rings = rings.clone();
                let (gives_way, may_expire) = (recall.policies.keep > 0, recall.policies.may_expire());
                if gives_way || may_expire {
                    // There may be room because time passes, or because somebody tries once more.
                    attachment.hub.look_now_and_then();
                }
                Box::new(move || {
                    rings.iter().any(|ring| has_room(&entry, ring) || gives_way && is_receivable(ring))
                        || may_expire && policed::has_expired_in_front(&process, &rings)
                })
            }
        };
        let is_over: Box<dyn Fn() -> bool + Send + Sync> = match kind {
            Kind::Notify => {
                let known = Arc::clone(&known);
                Box::new(move || entry.epoch.load(Ordering::SeqCst) != known.load(Ordering::SeqCst))
            }
            _ => Box::new(move || is_closed(&entry)),
        };
        Self {
            wants_message: queue(wake::Direction::Receive, has_message, kind == Kind::Watch),
            wants_room: match log {
                Some(log) => queue(wake::Direction::Send, Box::new(move || log.has_room(groups::now())), false),
                // Room is room of some level, and who is woken may want that of another.
                None => queue(wake::Direction::Send, has_room, is_levelled),
            },
            wants_close: queue(wake::Direction::Closed, is_over, kind == Kind::Notify),
            known,
            meters: Meters::new(|| attachment.directory().read(index).name),
            attachment,
            index,
            entry,
            ring,
            recall,
            log,
            member,
            bidding: Mutex::new(()),
            senders: AtomicUsize::new(0),
            receivers: AtomicUsize::new(0),
            weak_senders: Arc::default(),
            is_sealed: AtomicBool::new(false),
        }
    }

    /// Number of the channel in the segment.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// The process's hold on the segment.
    #[inline(always)]
    pub(crate) fn attachment(&self) -> &Anchor {
        &self.attachment
    }

    pub(super) fn count(&self, end: End) -> &AtomicUsize {
        match end {
            End::Sender => &self.senders,
            End::Receiver => &self.receivers,
        }
    }

    /// One more end of a kind of which the caller has one.
    pub(crate) fn duplicate(&self, end: End) {
        // Ordering: Relaxed, as for any reference count that is raised by who has a reference.
        self.count(end).fetch_add(1, Ordering::Relaxed);
    }

    /// One more end of a kind, if this process has one still.
    pub(crate) fn duplicate_if_any(&self, end: End) -> bool {
        // Ordering: Relaxed, as in `duplicate`: whoever has the end that is counted has not left yet.
        self.count(end)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count > 0).then_some(count + 1))
            .is_ok()
    }

    /// How many ends of a kind this process has.
    pub(crate) fn local_ends(&self, end: End) -> usize {
        self.count(end).load(Ordering::Relaxed)
    }

    /// How many participants have an end of a kind.
    pub(crate) fn participants(&self, end: End) -> usize {
        if self.attachment.is_usable() { end.participants(&self.entry) } else { 0 }
    }

    /// The count of those senders that do not keep the channel open.
    pub(crate) fn weak_senders(&self) -> &Arc<AtomicUsize> {
        &self.weak_senders
    }

    /// The queues of those who wait. They look into the ring, so they end before the last end of the process goes.
    pub(super) fn queues(&self) -> [&Arc<WaitQueue>; 3] {
        [&self.wants_message, &self.wants_room, &self.wants_close]
    }

    /// An end goes.
    pub(crate) fn leave(&self, end: End) {
        if self.attachment.is_usable() {
            self.attachment.leave(self, end);
        }
    }

    /// Where a new handle begins.
    pub(crate) fn start(&self, end: End) -> Position {
        Position::new(match end {
            End::Sender => self.ring.tail_hint(),
            End::Receiver => self.ring.head_hint(),
        })
    }

    /// Sends a message whose block is filled by `fill`, if nothing out of the ordinary is needed; `size` bytes are. `fill` writes,
    /// and does nothing else; it may be called and the message not be sent.
    #[inline(always)]
    pub(crate) fn send_at_hand(
        &self,
        position: &Position,
        size: usize,
        align: usize,
        fill: impl FnOnce(&mut [u8]) -> bool,
    ) -> bool {
        let attachment = &*self.attachment;
        if self.recall.is_some() || !attachment.is_usable() {
            return false;
        }
        // Before anything is allocated: see `may_send`.
        let Some(vacancy) = self.ring.vacancy_at_hand(position) else { return false };
        // In this order: the cell, then the flags. See `ends`.
        if !self.is_open() {
            return false;
        }
        // SAFETY: nothing in there wants a worker.
        let Some(worker) = (unsafe { seats::at_hand(attachment) }) else { return false };
        let Some(block) = attachment.allocate_ahead(worker, size, align) else { return false };
        let sent = fill(attachment.bytes_mut(block, size))
            && transfer::send_at_hand(attachment.allocator(), &self.ring, position, &worker.lane, vacancy, block);
        if !sent {
            attachment.free(block);
            return false;
        }
        self.meters.sent();
        if self.wants_room.parked() | self.wants_message.parked() {
            self.has_sent(position);
        }
        true
    }

    /// Sends a message whose block is filled by `fill`; `size` bytes are needed. `fill` tells whether it could write; it may panic, or
    /// use the segment: it runs with the block in the hands of a lease.
    ///
    /// Lock-free. `fill` may be called and the message not be sent.
    pub(crate) fn try_send(
        &self,
        position: &Position,
        size: usize,
        align: usize,
        marks: Marks,
        fill: impl FnOnce(&mut [u8]) -> bool,
    ) -> Result<(), Refused> {
        self.may_send_marked(position, marks)?;
        let attachment = &self.attachment;
        let block = attachment.with_worker(|worker| attachment.allocate(worker, self.bytes_for(size), align));
        let mut lease = Lease::new(attachment, block.map_err(Refused::Memory)?);
        if !fill(&mut lease.bytes_mut()[..size]) {
            return Err(Refused::Unwritten);
        }
        lease.give(|lease| self.try_send_new(position, lease, marks)).map_err(|(refused, _)| refused)
    }

    /// Sends a block that was allocated for it, under the generation that it has. If it is refused it belongs to this process as
    /// before, but must not be sent by this again. Where blocks have trailers, it has room for one.
    ///
    /// Lock-free.
    pub(crate) fn try_send_new(&self, position: &Position, lease: &mut Lease, marks: Marks) -> Result<(), Refused> {
        self.try_send_block(position, lease, marks, false)
    }

    /// Sends a block that belongs to this process; if it is refused, it still does. `was_sent`: its generation has been seen in
    /// a ring, or on the way to one. So each attempt but the first of a new block is made under another generation, which the
    /// block keeps: see [`word`](crate::alloc::word).
    fn try_send_block(
        &self,
        position: &Position,
        lease: &mut Lease,
        marks: Marks,
        mut was_sent: bool,
    ) -> Result<(), Refused> {
        let allocator = self.attachment.allocator();
        let mut looks = self.looks_for_room();
        loop {
            self.may_send_marked(position, marks)?;
            if was_sent {
                lease.renew();
            }
            let block = lease.block();
            let state = self.travelling(block, marks);
            let (ring, position) = self.way(position, marks);
            let send = |worker: &mut Worker| {
                transfer::send(allocator, ring, position, &worker.lane, block, state, || self.is_open())
            };
            if self.attachment.with_worker(send).is_some() {
                break;
            }
            if !self.is_open() {
                return Err(Refused::Closed);
            }
            was_sent = true;
            // Others were quicker: which matters only to who would have made room.
            looks = looks.checked_sub(1).ok_or(Refused::Full)?;
        }
        self.meters.sent();
        self.has_sent(position);
        Ok(())
    }

    /// The ring for a message, and where senders are.
    #[inline(always)]
    pub(super) fn way<'a>(&'a self, position: &'a Position, marks: Marks) -> (&'a Ring, &'a Position) {
        match &self.recall {
            None => (&self.ring, position),
            Some(recall) => recall.way(marks.level, (&self.ring, position)),
        }
    }

    /// Prepares a block for its way through the channel, and says what its word is on it.
    #[inline(always)]
    pub(super) fn travelling(&self, block: Block, marks: Marks) -> State {
        match &self.recall {
            None => State::InFlight,
            Some(recall) => {
                recall.begin(&self.attachment, block, marks);
                State::Promised
            }
        }
    }

    /// Bytes of a block for a message of that size.
    #[inline(always)]
    pub(super) fn bytes_for(&self, size: usize) -> usize {
        if self.recall.is_some() { size.saturating_add(TRAILER) } else { size }
    }

    /// The number of the channel, if its messages come back.
    #[inline(always)]
    pub(crate) fn comes_back(&self) -> Option<usize> {
        self.recall.as_ref().filter(|recall| recall.comes_back).map(|_| self.index)
    }

    /// Sends on what a lease has: its block, if it may move and has room for what the channel needs, or else a copy of that
    /// alignment.
    pub(crate) fn try_send_on(
        &self,
        position: &Position,
        lease: &mut Lease,
        align: usize,
        marks: Marks,
    ) -> Result<(), Refused> {
        let bytes = self.bytes_for(lease.used().len());
        // Until the copy is on its way, what comes back must not be lost.
        if !lease.is_recallable() && bytes <= self.attachment.allocator().bytes_of(lease.block()) {
            return self.try_send_block(position, lease, marks, true);
        }
        let used = lease.used();
        self.try_send(position, used.len(), align, marks, |bytes| {
            bytes.copy_from_slice(used);
            true
        })?;
        lease.let_go();
        Ok(())
    }

    /// Whether sending is not in vain. To be asked after the look at the cell that is to be filled.
    #[inline(always)]
    fn is_open(&self) -> bool {
        !is_closed(&self.entry)
    }

    /// The same for a sender with a permit.
    #[inline(always)]
    pub(super) fn is_open_by_permit(&self) -> bool {
        !directory::state(&self.entry).has(RECEIVERS_GONE)
    }

    /// What is to be done after messages were put in, if anybody waits.
    #[inline(never)]
    pub(super) fn has_sent(&self, position: &Position) {
        self.meters.wakes(|| self.wants_message.parked());
        if self.recall.is_none() && wake::is_nobody_to_be_told(&self.wants_room, &self.wants_message) {
            return;
        }
        wakers::letting_out(|| match &self.recall {
            None => wake::success(&self.wants_room, &self.wants_message, || {
                self.ring.is_writable(position, 1) || is_closed(&self.entry)
            }),
            Some(_) => self.has_sent_policed(),
        });
    }

    /// Whether there is somebody to send to, and room. To be asked before anything is allocated: who waits for room holds
    /// no memory that others may need.
    #[inline(always)]
    pub(crate) fn may_send(&self, position: &Position) -> Result<(), Refused> {
        if self.is_closed_for_senders() {
            return Err(Refused::Closed);
        }
        if self.has_room(position) || self.passes_over() && self.has_room(position) {
            Ok(())
        } else {
            Err(Refused::Full)
        }
    }

    #[inline(always)]
    fn has_room(&self, position: &Position) -> bool {
        self.ring.is_writable(position, 1)
    }

    #[inline(always)]
    fn may_send_marked(&self, position: &Position, marks: Marks) -> Result<(), Refused> {
        match &self.recall {
            None => self.may_send(position),
            Some(recall) => self.may_send_policed(recall, position, marks),
        }
    }

    /// Receives the oldest message, if nothing out of the ordinary is needed. `IN_RUN`: of many, which are asked for ahead.
    #[inline(always)]
    pub(crate) fn receive_at_hand<const IN_RUN: bool>(&self, position: &Position) -> Option<Received> {
        let attachment = &*self.attachment;
        if !attachment.is_usable() || self.recall.is_some() {
            return None;
        }
        // SAFETY: nothing in there wants a worker.
        let worker = unsafe { seats::at_hand(attachment) }?;
        let received = transfer::receive_at_hand(attachment.allocator(), &self.ring, position, &worker.lane)?;
        if IN_RUN {
            self.prefetch_next_line(position);
        } else if let Some(upcoming) = self.ring.upcoming(received.position) {
            attachment.prefetch(upcoming);
        }
        if self.wants_room.parked() | self.wants_message.parked() {
            self.has_received(position);
        }
        Some(received)
    }

    /// Asks for the messages from the handle's position to the end of the next line of cells. For who is about to receive many.
    pub(crate) fn prefetch_run(&self, position: &Position) {
        let rest = CELLS_PER_LINE - position.get() % CELLS_PER_LINE;
        self.prefetch(position, 0);
        self.prefetch(position, rest);
    }

    /// From `ahead` after the handle's position to the end of that line.
    #[inline(always)]
    fn prefetch(&self, position: &Position, ahead: u64) {
        if self.attachment.is_usable() {
            self.ring
                .line(position.get().wrapping_add(ahead))
                .for_each(|block| self.attachment.prefetch_message(block));
        }
    }

    /// The next line, once for each.
    #[inline(always)]
    fn prefetch_next_line(&self, position: &Position) {
        if position.get().is_multiple_of(CELLS_PER_LINE) {
            self.prefetch(position, CELLS_PER_LINE);
        }
    }

    /// What is to be done after a message was taken, if anybody waits.
    #[cold]
    #[inline(never)]
    fn has_received(&self, position: &Position) {
        self.meters.wakes(|| self.wants_room.parked());
        wake::success(&self.wants_message, &self.wants_room, || {
            self.ring.front(position).is_some() || is_finished(&self.entry, &self.ring)
        });
    }

    /// Whether there are levels of priority.
    pub(super) fn is_levelled(&self) -> bool {
        self.recall.as_ref().is_some_and(|recall| !recall.levels.is_empty())
    }

    /// Receives the oldest message.
    ///
    /// Lock-free.
    pub(crate) fn try_receive(&self, position: &Position) -> Result<Received, Nothing> {
        if !self.attachment.is_usable() {
            return Err(Nothing::Disconnected);
        }
        match self.take(position) {
            Some(received) => Ok(received),
            None => self.nothing(position),
        }
    }

    #[cold]
    fn nothing(&self, position: &Position) -> Result<Received, Nothing> {
        if !is_finished(&self.entry, &self.ring) {
            return Err(Nothing::Empty);
        }
        self.seal();
        // What was sent before the last sender went, or the channel was closed, or with the last permit, is there by now.
        let Some(received) = self.take(position) else {
            // What others have may come back.
            if self.recall.as_ref().is_some_and(|recall| self.attachment.is_held_by_others(recall.channel())) {
                return Err(Nothing::Empty);
            }
            // Whoever else waits must hear of it, too.
            self.wants_message.wake_one_if_work();
            return Err(Nothing::Disconnected);
        };
        Ok(received)
    }

    fn take(&self, position: &Position) -> Option<Received> {
        let attachment = &*self.attachment;
        if let Some(recall) = &self.recall {
            return self.take_policed(position, recall);
        }
        let received = attachment.with_worker(|worker| {
            transfer::receive(attachment.allocator(), &self.ring, position, &worker.lane, || self.count_invalid())
        })?;
        self.has_received(position);
        Some(received)
    }

    /// Receives the oldest message of those that take up the room that a message with these marks wants: not one that came
    /// back, which takes up none.
    pub(crate) fn try_displace(&self, marks: Marks) -> Option<Received> {
        match &self.recall {
            None => self.try_receive(&self.start(End::Receiver)).ok(),
            Some(recall) => self.displace_policed(recall, marks.level),
        }
    }

    /// Messages that were freed after their last delivery.
    pub(crate) fn discarded(&self) -> u64 {
        self.entry.discarded.load(Ordering::Relaxed)
    }

    /// Whether so many messages wait, for whoever stands at `position`. A guess.
    pub(crate) fn is_filled(&self, position: &Position, messages: u64) -> bool {
        !self.attachment.is_usable() || self.ring.is_filled(position, messages)
    }

    /// Whether there is room for so many messages, for whoever stands at `position`. A guess.
    pub(crate) fn is_emptied(&self, position: &Position, messages: u64) -> bool {
        !self.attachment.is_usable() || self.ring.is_emptied(position, messages)
    }

    /// What is said and counted of the channel.
    #[inline(always)]
    pub(crate) fn meters(&self) -> &Meters {
        &self.meters
    }

    /// A cell or a payload made no sense: only memory that was overwritten has such.
    #[cold]
    pub(crate) fn count_invalid(&self) {
        // Ordering: Relaxed, it is a statistic.
        self.entry.invalid.fetch_add(1, Ordering::Relaxed);
    }

    /// How many made no sense so far.
    pub(crate) fn invalid(&self) -> u64 {
        self.entry.invalid.load(Ordering::Relaxed)
    }

    /// Makes sure that who sends from now on sees that the channel is closed, if it is, and that what was sent before is seen.
    pub(super) fn seal(&self) {
        // Ordering: Acquire, Release: whoever sees that it was done sees what was there then. The flag stays for good, hence once is enough.
        if self.is_sealed.load(Ordering::Acquire) || !directory::state(&self.entry).has(CLOSED) {
            return;
        }
        self.ring.seal();
        for level in self.recall.iter().flat_map(|recall| &recall.levels) {
            level.ring.seal();
        }
        self.is_sealed.store(true, Ordering::Release);
    }

    /// A place among those who wait for a message.
    pub(crate) fn wait_for_message(&self) -> Waiter {
        let waiter = self.wants_message.listen();
        if self.recall.is_some() && is_finished(&self.entry, &self.ring) {
            // Whoever acknowledges what we wait for has no locked instruction. Where the kernel refuses this call, the watchdog
            // makes good for it.
            let _ = membarrier::everywhere();
        }
        waiter
    }

    /// A place among those who wait for room.
    pub(crate) fn wait_for_room(&self) -> Waiter {
        self.wants_room.listen()
    }

    /// A place among those who wait for room, for who stands in line.
    pub(crate) fn wait_in_line(&self) -> Waiter {
        self.wants_room.listen_first()
    }

    /// A place among those who wait for the channel to close.
    pub(crate) fn wait_for_close(&self) -> Waiter {
        self.wants_close.listen()
    }

    /// The channel outlives its ends from now on.
    pub(crate) fn persist(&self) {
        if self.attachment.is_usable() {
            self.attachment.persist(self.index);
        }
    }

    /// Nobody may send any more; what waits may be received.
    pub(crate) fn close(&self) {
        if self.attachment.is_usable() {
            self.attachment.directory().set_flags(self.index, CLOSED);
            self.seal();
            self.meters.closed(self.attachment.region());
            wakers::letting_out(|| {
                self.wants_room.wake_all();
                self.wants_message.wake_all();
                self.wants_close.wake_all();
            });
        }
    }

    /// Whether sending is in vain.
    pub(crate) fn is_closed_for_senders(&self) -> bool {
        !self.attachment.is_usable() || directory::state(&self.entry).has(RECEIVERS_GONE | CLOSED)
    }

    /// Whether no more messages will be sent.
    pub(crate) fn is_closed_for_receivers(&self) -> bool {
        !self.attachment.is_usable() || directory::state(&self.entry).has(SENDERS_GONE | CLOSED)
    }

    /// Messages that wait.
    pub(crate) fn len(&self) -> usize {
        if !self.attachment.is_usable() {
            return 0;
        }
        let returned = self.recall.as_ref().map_or(0, |recall| {
            let outside = if recall.has_overflowed() { self.attachment.returned(recall.channel()).len() } else { 0 };
            let higher: u64 = recall.levels.iter().map(|level| level.ring.len()).sum();
            (recall.retry().len() + higher) as usize + outside
        });
        self.ring.len() as usize + returned
    }

    /// Messages for which there is room now, whatever their level: neither waiting nor reserved.
    pub(crate) fn room(&self) -> usize {
        if !self.attachment.is_usable() {
            return self.capacity();
        }
        let levels = self.recall.as_ref().map_or(&[][..], |recall| &recall.levels);
        let longest = levels.iter().map(|level| level.ring.len()).fold(self.ring.len(), u64::max);
        self.ring.capacity().saturating_sub(longest).saturating_sub(self.ring.permits().total()) as usize
    }

    /// Permits of a semaphore, free or held.
    pub(crate) fn permits(&self) -> usize {
        if !self.attachment.is_usable() {
            return 0;
        }
        self.ring.capacity().saturating_sub(self.ring.permits().absent()) as usize
    }

    /// For how many permits of a semaphore it makes sense to wait.
    pub(crate) fn most_permits(&self) -> usize {
        if self.attachment.is_usable() { self.ring.permits().most() as usize } else { 0 }
    }

    /// The most messages that may wait in a level.
    pub(crate) fn capacity(&self) -> usize {
        self.ring.capacity() as usize
    }
}

fn is_receivable(ring: &Ring) -> bool {
    ring.is_filled_now()
}

/// Whether nobody can send any more. With a permit one can, also after the channel was closed.
pub(super) fn is_finished(entry: &ChannelEntry, ring: &Ring) -> bool {
    // In this order: who is granted a permit looks at the state again after that.
    directory::state(entry).has(SENDERS_GONE | CLOSED) && !ring.permits().are_held()
}

fn has_room(entry: &ChannelEntry, ring: &Ring) -> bool {
    ring.is_writable(&Position::new(ring.tail_hint()), 1) || is_closed(entry)
}

fn is_closed(entry: &ChannelEntry) -> bool {
    directory::state(entry).has(RECEIVERS_GONE | CLOSED)
}
