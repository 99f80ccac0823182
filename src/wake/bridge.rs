//! The hub of a participant, and its bridge thread.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Condvar, Weak,
        atomic::{AtomicBool as Flag, AtomicU64 as IndexWord},
    },
    task::Context,
    thread,
    time::Duration,
};

#[cfg(not(loom))]
use std::{sync::PoisonError, time::Instant};

#[cfg(not(loom))]
use crate::wake::{deadlines::Deadlines, watch::Life};
use crate::{
    region::layout::ParticipantSlot,
    sys::{
        held::{self, Mutex, MutexGuard},
        shared::{SharedRef, SharedSlice},
        sync::{AtomicBool, AtomicU64, Ordering},
    },
    wake::{LookAtLine, Parked, Topic, WaitQueue, doorbell, second_look::Duties, wakers::survive},
};

/// One waiter that came, see [`Hub::waiters`].
const CAME: u64 = 1 << 32;

/// How often, and with what pause, somebody who goes looks whether the bridge sleeps.
#[cfg(not(loom))]
const LOOKS: u32 = 1000;
#[cfg(not(loom))]
const LOOK: Duration = Duration::from_micros(100);
/// The longest time between two looks whether the bridge has ended.
#[cfg(not(loom))]
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// How long somebody who comes in waits for its bridge.
#[cfg(not(loom))]
const ANNOUNCING: Duration = Duration::from_secs(1);

/// Where a hub is.
pub(crate) struct Ground {
    pub(crate) me: u16,
    pub(crate) slots: SharedSlice<ParticipantSlot>,
    /// `pending_words` words per participant.
    pub(crate) pending: SharedSlice<AtomicU64>,
    pub(crate) pending_words: usize,
    /// How often one of several has been told, see [`second_look`](super::second_look).
    pub(crate) tells: SharedRef<AtomicU64>,
    /// Who is parked for a topic, whether or not this process has a queue of it.
    pub(crate) parked_of: Box<dyn Fn(Topic) -> Option<Parked> + Send + Sync>,
    /// Called by the bridge with every tick of the watchdog.
    pub(crate) on_tick: Box<dyn Fn() + Send + Sync>,
}

/// What a participant needs to wake others and to be woken.
pub(crate) struct Hub {
    pub(super) me: u16,
    pub(super) slots: SharedSlice<ParticipantSlot>,
    pending: SharedSlice<AtomicU64>,
    pending_words: usize,
    pub(super) tells: SharedRef<AtomicU64>,
    pub(super) parked_of: Box<dyn Fn(Topic) -> Option<Parked> + Send + Sync>,
    pub(super) duties: Duties,
    queues: Mutex<HashMap<Topic, Weak<WaitQueue>>>,
    /// `came:32 | now:32`: how many local waiters have come so far, and how many nobody has notified yet, on all queues.
    waiters: AtomicU64,
    /// A bit per topic with local waiters, for the watchdog. Only an index: models need not see it.
    listening: Box<[IndexWord]>,
    /// The bridge sleeps, or is about to, with no timeout.
    untimed: AtomicBool,
    #[cfg(not(loom))]
    pub(super) deadlines: Deadlines,
    on_tick: Box<dyn Fn() + Send + Sync>,
    /// The bridge does anything but sleep. No model needs to see this, or the next.
    busy: Flag,
    /// The bridge is in code of others.
    outside: Flag,
    /// Somebody new has come whom we may have to watch.
    pub(super) watch_anew: AtomicBool,
    /// There may be work because time passes.
    looks: AtomicBool,
    stopped: AtomicBool,
    started: AtomicBool,
    /// A thread was refused, and there has been none since: who waits stands in for the bridge.
    lacking: Flag,
    /// What the bridge lives on, or who stands in for it. `None` while one of them does.
    #[cfg(not(loom))]
    pub(super) life: Mutex<Option<Life>>,
    bridge: Mutex<Option<thread::JoinHandle<()>>>,
    /// Whether the bridge holds its lifeline and has told who watches it.
    announced: (std::sync::Mutex<bool>, Condvar),
    /// The generation of forks in which the hub was made.
    #[cfg(not(loom))]
    generation: u32,
    last: Mutex<Last>,
}

/// What the bridge does last of all, if that is left to it.
#[cfg_attr(loom, allow(dead_code))]
#[derive(Default)]
enum Last {
    /// It is at work, and nothing is left to it so far.
    #[default]
    Nothing,
    Work(Work),
    /// It is past that.
    Ended,
}

type Work = Box<dyn FnOnce() + Send>;

/// The bridge is at work, or in code of others, for as long as this lives.
struct During<'a>(&'a Flag);

impl<'a> During<'a> {
    fn new(flag: &'a Flag) -> Self {
        // Ordering: SeqCst, here and below: who waits for the end of it sees what was done.
        flag.store(true, Ordering::SeqCst);
        Self(flag)
    }
}

impl Drop for During<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Hub {
    pub(crate) fn new(ground: Ground) -> Arc<Self> {
        let Ground { me, slots, pending, pending_words, tells, parked_of, on_tick } = ground;
        Arc::new(Self {
            me,
            slots,
            pending,
            pending_words,
            tells,
            parked_of,
            duties: Duties::new(pending_words),
            queues: Mutex::new(HashMap::new()),
            waiters: AtomicU64::new(0),
            listening: (0..pending_words).map(|_| IndexWord::new(0)).collect(),
            untimed: AtomicBool::new(false),
            #[cfg(not(loom))]
            deadlines: Deadlines::new(),
            on_tick,
            busy: Flag::new(false),
            outside: Flag::new(false),
            watch_anew: AtomicBool::new(false),
            looks: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            started: AtomicBool::new(false),
            lacking: Flag::new(false),
            #[cfg(not(loom))]
            life: Mutex::new(Some(Life::new())),
            bridge: Mutex::new(None),
            announced: Default::default(),
            #[cfg(not(loom))]
            generation: crate::sys::fork::generation(),
            last: Mutex::new(Last::Nothing),
        })
    }

    /// Whether this is the process that made the hub, and not one that was forked from it.
    #[inline(always)]
    pub(super) fn is_usable(&self) -> bool {
        #[cfg(not(loom))]
        return self.generation == crate::sys::fork::generation();
        #[cfg(loom)]
        true
    }

    pub(super) fn me(&self) -> u16 {
        self.me
    }

    pub(super) fn participants(&self) -> usize {
        self.slots.len()
    }

    /// A queue of local waiters. There is one per topic in a process at a time.
    ///
    /// `work` says whether there is something to do for a waiter; `broadcast` that a mark means all waiters; `first` who
    /// stands in line.
    pub(crate) fn queue(
        self: &Arc<Self>,
        topic: Topic,
        parked: Parked,
        work: Box<dyn Fn() -> bool + Send + Sync>,
        broadcast: bool,
        first: Option<LookAtLine>,
    ) -> Arc<WaitQueue> {
        let queue = Arc::new(WaitQueue::new(Arc::clone(self), topic, parked, work, broadcast, first));
        let mut queues = self.queues();
        queues.retain(|_, queue| queue.strong_count() > 0);
        queues.insert(topic, Arc::downgrade(&queue));
        queue
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<Topic, Weak<WaitQueue>>> {
        self.queues.lock()
    }

    #[inline(always)]
    pub(super) fn pending_of(&self, participant: u16) -> &[AtomicU64] {
        let start = usize::from(participant) * self.pending_words;
        self.pending.get(start..start + self.pending_words).unwrap_or_default()
    }

    /// Marks a topic of another participant and rings; `true` if the mark was new.
    pub(crate) fn tell(&self, participant: u16, topic: Topic) -> bool {
        let (Some(slot), Some(word)) =
            (self.slots.get(usize::from(participant)), self.pending_of(participant).get(topic.0 as usize / 64))
        else {
            return false;
        };
        let bit = 1 << (topic.0 % 64);
        super::fence_for_models();
        // Ordering: SeqCst: {set pending, load doorbell} against {change doorbell, load pending}. A mark that is there will be taken
        // after this look, hence after what we have to tell of, and who takes it looks for that. So where processes wait for a
        // processor and not for messages, what is sent meanwhile costs a look and no change.
        let new = word.load(Ordering::SeqCst) & bit == 0 && word.fetch_or(bit, Ordering::SeqCst) & bit == 0;
        doorbell::ring(&slot.doorbell);
        new
    }

    /// Whether [`tell`](Self::tell) would change nothing: the mark is there, and the bell has been rung.
    #[inline(always)]
    pub(super) fn is_told(&self, participant: u16, topic: Topic) -> bool {
        super::fence_for_models();
        self.is_marked(participant, topic)
            && self.slots.get(usize::from(participant)).is_some_and(|slot| !doorbell::is_asleep(&slot.doorbell))
    }

    /// Whether a participant has been told of a topic and has not taken notice yet.
    #[inline(always)]
    pub(crate) fn is_marked(&self, participant: u16, topic: Topic) -> bool {
        let word = self.pending_of(participant).get(topic.0 as usize / 64);
        word.is_some_and(|word| word.load(Ordering::SeqCst) >> (topic.0 % 64) & 1 == 1)
    }

    /// Wakes everybody who is parked for a topic, whether or not this process has a queue of it: for those who close
    /// channels and bury the dead.
    #[cold]
    pub(crate) fn wake_all(&self, topic: Topic, parked: Parked) {
        for participant in parked.from(0) {
            if participant != self.me {
                self.tell(participant, topic);
            }
        }
        if let Some(queue) = self.find(topic) {
            queue.notify_all_local();
        }
    }

    /// R4: wakes one waiter of a topic, whether or not this process has a queue of it: for those who publish to groups.
    #[cold]
    pub(crate) fn wake_one(&self, topic: Topic, parked: Parked) {
        match self.find(topic) {
            Some(queue) => queue.wake_one(),
            None => self.wake_elsewhere(topic, &parked),
        }
    }

    /// One more local waiter: the bridge must run, and have a timeout.
    pub(super) fn waiter_came(self: &Arc<Self>) {
        // Ordering: SeqCst: {count, load untimed, load doorbell} against {set untimed, change doorbell, load count}.
        self.waiters.fetch_add(CAME + 1, Ordering::SeqCst);
        super::fence_for_models();
        if self.slots.len() == 1 && !self.looks.load(Ordering::Relaxed) {
            // Nobody else can wake us, and nobody can swallow a wake.
            return;
        }
        if !self.started.load(Ordering::Acquire) {
            // If no thread is to be had now, this one stands in for it, and the next one tries again.
            self.start();
        }
        if self.untimed.load(Ordering::SeqCst) {
            doorbell::insist(&self.slots[usize::from(self.me)].doorbell);
        }
    }

    /// From now on there may be work because time passes: the watchdog is needed even by who is alone.
    #[cfg(not(loom))]
    pub(crate) fn look_now_and_then(&self) {
        // Ordering: Relaxed: set before anybody waits for that.
        self.looks.store(true, Ordering::Relaxed);
    }

    pub(super) fn waiter_went(&self) {
        self.waiters.fetch_sub(1, Ordering::SeqCst);
    }

    /// Who waits here, and who has come and gone: another number whenever that changes.
    pub(super) fn waiters(&self) -> u64 {
        self.waiters.load(Ordering::SeqCst)
    }

    /// How many wait here.
    pub(super) fn waiting(&self) -> u32 {
        (self.waiters() & (CAME - 1)) as u32
    }

    /// Whether somebody waits here.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting() != 0
    }

    /// A queue has got its first waiter, or lost its last one. Called under its lock.
    pub(super) fn is_listening(&self, topic: Topic, listens: bool) {
        let Some(word) = self.listening.get(topic.0 as usize / 64) else { return };
        let bit = 1 << (topic.0 % 64);
        // Ordering: Relaxed: the watchdog comes again.
        if listens {
            word.fetch_or(bit, Ordering::Relaxed);
        } else {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    /// Starts the bridge, unless it runs. Nobody else hears of this process's death at once before it does. Where no thread is to be
    /// had, who waits [stands in](Self::stand_in) for it.
    #[cold]
    pub(crate) fn start(self: &Arc<Self>) {
        if cfg!(loom) || self.slots.len() == 1 && !self.looks.load(Ordering::Relaxed) {
            // A model takes the bridge's steps itself; who is alone needs none.
            return;
        }
        self.launch();
    }

    /// Starts the bridge for who has a deadline, even if nobody else can wake it.
    #[cfg(not(loom))]
    pub(super) fn start_for_deadlines(self: &Arc<Self>) {
        // Who stands in for it tries again now and then.
        if !self.started.load(Ordering::Acquire) && !self.lacks_bridge() {
            self.launch();
        }
    }

    /// Whether there is no bridge because there was no thread for it.
    #[inline(always)]
    pub(super) fn lacks_bridge(&self) -> bool {
        // Ordering: Relaxed: who reads an old value has tried to start it itself, or is polled again by who has.
        self.lacking.load(Ordering::Relaxed)
    }

    /// For whoever is about to say that it waits, outside of all locks. Where there is no bridge it does what the bridge would do,
    /// and the task is polled again. `is_first`: it has only just begun, and may never be polled again, so it need not sleep. `among`:
    /// how many wait by one waiter, as this one does.
    #[inline]
    pub(crate) fn drive(self: &Arc<Self>, is_first: bool, among: usize, context: &Context<'_>) {
        // A forked child has nothing to wait for.
        if self.lacks_bridge() && self.is_usable() {
            self.drive_on(is_first, among, context);
        }
    }

    #[cold]
    fn drive_on(self: &Arc<Self>, is_first: bool, among: usize, context: &Context<'_>) {
        #[cfg(not(loom))]
        if !is_first {
            self.stand_in(among);
        }
        // No model lacks its bridge.
        #[cfg(loom)]
        let _ = (is_first, among);
        // If it panics, that is for whoever polls.
        held::assert_none();
        context.waker().wake_by_ref();
    }

    /// Wakes the bridge, whatever it sleeps for.
    #[cfg(not(loom))]
    pub(super) fn insist(&self) {
        doorbell::insist(&self.slots[usize::from(self.me)].doorbell);
    }

    /// Starts the bridge, unless it runs, or there is no thread for it.
    pub(super) fn launch(self: &Arc<Self>) {
        #[cfg(all(crash_points, not(loom)))]
        if crate::sys::crashing::is_without_bridges() {
            return;
        }
        let mut bridge = self.bridge.lock();
        if bridge.is_some() || self.stopped.load(Ordering::SeqCst) {
            return;
        }
        let hub = Arc::clone(self);
        let run = move || {
            #[cfg(not(loom))]
            hub.run();
            hub.end();
        };
        let refused = match thread::Builder::new().name("waterway-bridge".into()).spawn(run) {
            Ok(handle) => {
                *bridge = Some(handle);
                self.started.store(true, Ordering::Release);
                self.lacking.store(false, Ordering::Relaxed);
                None
            }
            Err(error) => (!self.lacking.swap(true, Ordering::Relaxed)).then_some(error),
        };
        let is_started = bridge.is_some();
        drop(bridge);
        if is_started {
            crate::observe::bridge_started(self.me);
        } else if let Some(error) = refused {
            crate::observe::bridge_refused(self.me, &error);
        }
    }

    /// The bridge touches nothing any more, and does what was left to it.
    fn end(&self) {
        let last = std::mem::replace(&mut *self.last.lock(), Last::Ended);
        if let Last::Work(work) = last {
            work();
        }
    }

    /// The bridge's death would be heard of.
    #[cfg(not(loom))]
    pub(super) fn has_announced(&self) {
        *self.announced.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.announced.1.notify_all();
    }

    /// Waits until the bridge, if there is one, has told who watches it; not for ever, as a processor may be hard to get.
    #[cfg(not(loom))]
    pub(crate) fn until_announced(&self) {
        if !self.started.load(Ordering::Acquire) {
            return;
        }
        let announced = self.announced.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.announced.1.wait_timeout_while(announced, ANNOUNCING, |announced| !*announced));
    }

    /// Whether this thread is the bridge.
    fn is_bridge(&self) -> bool {
        let bridge = self.bridge.lock();
        bridge.as_ref().is_some_and(|bridge| bridge.thread().id() == thread::current().id())
    }

    /// The bridge begins to do something, and goes on for as long as what is returned lives.
    #[cfg(not(loom))]
    pub(super) fn work(&self) -> impl Sized + '_ {
        During::new(&self.busy)
    }

    /// Waits for the end of what the bridge is doing, but not for long: a waker that it calls may be waiting for us.
    #[cfg(not(loom))]
    pub(crate) fn until_asleep(&self) {
        if self.is_bridge() || self.is_standing_in() {
            return;
        }
        for _ in 0..LOOKS {
            if !self.busy.load(Ordering::SeqCst) {
                return;
            }
            thread::sleep(LOOK);
        }
    }

    /// Ends the bridge, then does the last work: to leave the segment. When that is done, nothing of the bridge touches the
    /// segment.
    ///
    /// If the bridge is in code of others, and does not come back, that code may be waiting for a lock which our caller holds. So
    /// the work is left to the bridge then, which does it as soon as it comes back: nobody waits for code of others.
    #[cfg(not(loom))]
    pub(crate) fn shutdown(&self, work: Work) {
        self.stopped.store(true, Ordering::SeqCst);
        let handle = self.bridge.lock().take();
        let Some(handle) = handle else { return work() };
        if handle.thread().id() == thread::current().id() {
            // A waker that the bridge called has dropped the last handle: the bridge sees that it is over when it
            // comes back, before it touches the segment.
            crate::sys::robust::let_go();
            return work();
        }
        let bell = &self.slots[usize::from(self.me)].doorbell;
        let mut pause = Duration::from_micros(50);
        let mut outside = None;
        doorbell::insist(bell);
        // Once is enough, unless somebody overwrites the doorbell just now.
        while !handle.is_finished() {
            if !self.outside.load(Ordering::SeqCst) {
                outside = None;
            } else if outside.get_or_insert_with(Instant::now).elapsed() >= super::WATCHDOG {
                let mut last = self.last.lock();
                if !matches!(*last, Last::Ended) {
                    *last = Last::Work(work);
                    return;
                }
            }
            thread::sleep(pause);
            pause = (2 * pause).min(LONGEST_PAUSE);
            doorbell::insist(bell);
        }
        let _ = handle.join();
        work();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// R6, the first half. A change of `watched`, a participant's lifeline, ends the sleep, too.
    pub(super) fn sleep(&self, timeout: Option<Duration>, watched: Option<(u16, u32)>) {
        let bell = &self.slots[usize::from(self.me)].doorbell;
        let limit = self.limit(timeout);
        let watched = watched.map(|(participant, word)| (&self.slots[usize::from(participant)].lifeline, word));
        doorbell::sleep(bell, limit, watched, || {
            // Ordering: SeqCst: {change doorbell, load these} against {set pending, set stopped,
            // take a duty or count a waiter, load doorbell}. Without a timeout nobody may be
            // waiting: there would be no watchdog.
            !self.is_stopped()
                && !self.duties.are_new()
                && (timeout.is_some() || !self.is_waiting())
                && !self.would_oversleep()
                && self.pending_of(self.me).iter().all(|word| word.load(Ordering::SeqCst) == 0)
        });
    }

    /// For how long the bridge may sleep, if it would sleep for at most `timeout`.
    fn limit(&self, timeout: Option<Duration>) -> Option<Duration> {
        #[cfg(not(loom))]
        return self.deadlines.fall_asleep(timeout);
        #[cfg(loom)]
        timeout
    }

    /// Whether there is a deadline by now that it would miss.
    fn would_oversleep(&self) -> bool {
        #[cfg(not(loom))]
        return self.deadlines.has_earlier();
        #[cfg(loom)]
        false
    }

    /// Sleeps until somebody rings: this process's next waiter, or whoever has something for it.
    pub(super) fn sleep_untimed(&self, watched: Option<(u16, u32)>) {
        self.untimed.store(true, Ordering::SeqCst);
        self.sleep(None, watched);
        self.untimed.store(false, Ordering::SeqCst);
    }

    /// R6, the second half; `false` if it is over.
    pub(super) fn deliver(&self) -> bool {
        for index in 0..self.pending_words {
            let word = &self.pending_of(self.me)[index];
            if word.load(Ordering::SeqCst) == 0 {
                continue;
            }
            let mut marks = word.swap(0, Ordering::SeqCst);
            while marks != 0 {
                let topic = Topic(index as u32 * 64 + marks.trailing_zeros());
                marks &= marks - 1;
                if topic == self.watch_topic() {
                    self.watch_anew.store(true, Ordering::SeqCst);
                    continue;
                }
                let Some(queue) = self.find(topic) else {
                    self.pass_on(topic);
                    continue;
                };
                self.outside(|| {
                    if queue.is_broadcast() {
                        queue.notify_all_local();
                    } else if !queue.notify_local() {
                        queue.wake_one_if_work();
                    }
                });
                // A waker may have dropped the last handle, and the segment with it.
                drop(queue);
                if self.is_stopped() {
                    return false;
                }
            }
        }
        true
    }

    /// Does what calls code of others. If that panics, it must not end the bridge, and with it the wakes of all others.
    pub(super) fn outside(&self, work: impl FnOnce()) {
        let _outside = During::new(&self.outside);
        survive(work);
    }

    pub(super) fn find(&self, topic: Topic) -> Option<Arc<WaitQueue>> {
        self.queues().get(&topic).and_then(Weak::upgrade)
    }

    /// Of this topic a participant is told when there is somebody new for it to watch: the last bit, which no channel has.
    pub(super) fn watch_topic(&self) -> Topic {
        Topic(self.pending_words as u32 * 64 - 1)
    }

    /// R9; `false` if it is over. Looks for work only if `look`, or where time makes some.
    pub(super) fn tick(&self, look: bool) -> bool {
        self.outside(|| (self.on_tick)());
        let looked = if look || self.looks.load(Ordering::Relaxed) { self.listening.len() } else { 0 };
        for (index, word) in self.listening[..looked].iter().enumerate() {
            let mut topics = word.load(Ordering::Relaxed);
            while topics != 0 && !self.is_stopped() {
                let topic = Topic(index as u32 * 64 + topics.trailing_zeros());
                topics &= topics - 1;
                let Some(queue) = self.find(topic) else { continue };
                self.outside(|| {
                    // The line first: who is passed over there makes work for others.
                    let in_line = queue.has_work_in_line();
                    if queue.has_work() && queue.is_broadcast() {
                        queue.notify_all_local();
                    } else if in_line || queue.has_work() {
                        queue.notify_local();
                    }
                });
            }
        }
        !self.is_stopped()
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("me", &self.me).finish_non_exhaustive()
    }
}
