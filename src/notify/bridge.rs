//! The hub of a participant, and its bridge thread.

use std::{
    collections::HashMap,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, PoisonError, Weak, atomic::AtomicU64 as IndexWord},
    thread,
    time::Duration,
};

use crate::{
    notify::{First, Parked, Topic, WaitQueue, doorbell},
    segment::layout::ParticipantSlot,
    sys::{
        shared::SharedSlice,
        sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering},
    },
};

/// One waiter that came, see [`Hub::waiters`].
const CAME: u64 = 1 << 32;

/// How often, and with what pause, somebody who goes looks whether the bridge sleeps.
#[cfg(not(loom))]
const LOOKS: u32 = 1000;
#[cfg(not(loom))]
const LOOK: Duration = Duration::from_micros(100);

/// How long somebody who comes in waits for its bridge.
#[cfg(not(loom))]
const ANNOUNCING: Duration = Duration::from_secs(1);

/// What a participant needs to wake others and to be woken.
pub(crate) struct Hub {
    pub(super) me: u16,
    pub(super) slots: SharedSlice<ParticipantSlot>,
    /// `pending_words` words per participant.
    pending: SharedSlice<AtomicU64>,
    pending_words: usize,
    queues: Mutex<HashMap<Topic, Weak<WaitQueue>>>,
    /// `came:32 | now:32`: how many local waiters have come so far, and how many nobody has notified yet, on all queues.
    waiters: AtomicU64,
    /// A bit per topic with local waiters, for the watchdog. Only an index: models need not see it.
    listening: Box<[IndexWord]>,
    /// The bridge sleeps, or is about to, with no timeout.
    untimed: AtomicBool,
    on_tick: Box<dyn Fn() + Send + Sync>,
    /// Locked while that goes on.
    ticking: std::sync::Mutex<()>,
    /// Locked while the bridge does anything but sleep.
    busy: std::sync::Mutex<()>,
    /// Somebody new has come whom we may have to watch.
    pub(super) watch_anew: AtomicBool,
    /// There may be work because time passes.
    looks: AtomicBool,
    stopped: AtomicBool,
    started: AtomicBool,
    bridge: Mutex<Option<thread::JoinHandle<()>>>,
    /// Whether the bridge holds its lifeline and has told who watches it.
    announced: (std::sync::Mutex<bool>, Condvar),
    /// The generation of forks in which the hub was made.
    #[cfg(not(loom))]
    generation: u32,
}

impl Hub {
    /// `on_tick` is called by the bridge with every tick of the watchdog.
    pub(crate) fn new(
        me: u16,
        slots: SharedSlice<ParticipantSlot>,
        pending: SharedSlice<AtomicU64>,
        pending_words: usize,
        on_tick: Box<dyn Fn() + Send + Sync>,
    ) -> Arc<Self> {
        Arc::new(Self {
            me,
            slots,
            pending,
            pending_words,
            queues: Mutex::new(HashMap::new()),
            waiters: AtomicU64::new(0),
            listening: (0..pending_words).map(|_| IndexWord::new(0)).collect(),
            untimed: AtomicBool::new(false),
            on_tick,
            ticking: std::sync::Mutex::new(()),
            busy: std::sync::Mutex::new(()),
            watch_anew: AtomicBool::new(false),
            looks: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            started: AtomicBool::new(false),
            bridge: Mutex::new(None),
            announced: Default::default(),
            #[cfg(not(loom))]
            generation: crate::sys::fork::generation(),
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
        first: Option<First>,
    ) -> Arc<WaitQueue> {
        let queue = Arc::new(WaitQueue::new(Arc::clone(self), topic, parked, work, broadcast, first));
        let mut queues = self.queues();
        queues.retain(|_, queue| queue.strong_count() > 0);
        queues.insert(topic, Arc::downgrade(&queue));
        queue
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<Topic, Weak<WaitQueue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline(always)]
    fn pending_of(&self, participant: u16) -> &[AtomicU64] {
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
        if let Some(queue) = self.find(topic) {
            return queue.wake_one();
        }
        for participant in parked.from(usize::from(self.me)) {
            if participant != self.me && self.tell(participant, topic) {
                return;
            }
        }
    }

    /// R8: forgets what a dead participant was told.
    pub(crate) fn clear_dead(&self, participant: u16) {
        for word in self.pending_of(participant) {
            word.store(0, Ordering::SeqCst);
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
            // If no thread is to be had now, the next waiter tries again. (Who shares the segment has had one since it came in.)
            let _ = self.start();
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

    /// Whether somebody waits here.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiters() & (CAME - 1) != 0
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

    /// Starts the bridge, unless it runs. Nobody else hears of this process's death at once before it does.
    ///
    /// # Errors
    ///
    /// What the kernel says if it has no thread.
    #[cold]
    pub(crate) fn start(self: &Arc<Self>) -> io::Result<()> {
        if cfg!(loom) || self.slots.len() == 1 && !self.looks.load(Ordering::Relaxed) {
            // A model takes the bridge's steps itself; who is alone needs none.
            return Ok(());
        }
        #[cfg(all(crash_points, not(loom)))]
        if crate::sys::crashing::is_without_bridges() {
            return Ok(());
        }
        let mut bridge = self.bridge.lock().unwrap_or_else(PoisonError::into_inner);
        if bridge.is_some() || self.stopped.load(Ordering::SeqCst) {
            return Ok(());
        }
        let hub = Arc::clone(self);
        let run = move || {
            #[cfg(not(loom))]
            hub.run();
            #[cfg(loom)]
            drop(hub);
        };
        *bridge = Some(thread::Builder::new().name("waterway-bridge".into()).spawn(run)?);
        self.started.store(true, Ordering::Release);
        crate::observe::bridge_started(self.me);
        Ok(())
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
        let bridge = self.bridge.lock().unwrap_or_else(PoisonError::into_inner);
        bridge.as_ref().is_some_and(|bridge| bridge.thread().id() == thread::current().id())
    }

    /// Waits for the end of what is done with a tick, and keeps the bridge from beginning again for as long as what is returned lives.
    /// `None` for the bridge itself, which may be in the middle of it.
    pub(crate) fn between_ticks(&self) -> Option<std::sync::MutexGuard<'_, ()>> {
        if self.is_bridge() {
            return None;
        }
        Some(self.ticking.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The bridge begins to do something, and goes on for as long as what is returned lives.
    #[cfg(not(loom))]
    pub(super) fn work(&self) -> impl Sized + '_ {
        self.busy.try_lock()
    }

    /// Waits for the end of what the bridge is doing, but not for long: a waker that it calls may be waiting for us.
    #[cfg(not(loom))]
    pub(crate) fn until_asleep(&self) {
        if self.is_bridge() {
            return;
        }
        for _ in 0..LOOKS {
            match self.busy.try_lock() {
                Err(std::sync::TryLockError::WouldBlock) => thread::sleep(LOOK),
                Ok(_) | Err(std::sync::TryLockError::Poisoned(_)) => return,
            }
        }
    }

    /// Ends the bridge. Afterwards nothing of it touches the segment any more.
    pub(crate) fn shutdown(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        let handle = self.bridge.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(handle) = handle else { return };
        if handle.thread().id() == thread::current().id() {
            // A waker that the bridge called has dropped the last handle: the bridge sees that it is over when it
            // comes back, before it touches the segment.
            #[cfg(not(loom))]
            crate::sys::robust::let_go();
            return;
        }
        let bell = &self.slots[usize::from(self.me)].doorbell;
        doorbell::insist(bell);
        // Once is enough, unless somebody overwrites the doorbell just now.
        let mut pause = Duration::from_micros(50);
        while !handle.is_finished() {
            thread::sleep(pause);
            pause = (2 * pause).min(super::WATCHDOG);
            doorbell::insist(bell);
        }
        let _ = handle.join();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// R6, the first half. A change of `watched`, a participant's lifeline, ends the sleep, too.
    pub(super) fn sleep(&self, timeout: Option<Duration>, watched: Option<(u16, u32)>) {
        let bell = &self.slots[usize::from(self.me)].doorbell;
        let watched = watched.map(|(participant, word)| (&self.slots[usize::from(participant)].lifeline, word));
        doorbell::sleep(bell, timeout, watched, || {
            // Ordering: SeqCst: {change doorbell, load these} against {set pending, set stopped or count a waiter, load
            // doorbell}. Without a timeout nobody may be waiting: there would be no watchdog.
            !self.is_stopped()
                && (timeout.is_some() || !self.is_waiting())
                && self.pending_of(self.me).iter().all(|word| word.load(Ordering::SeqCst) == 0)
        });
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
                }
                let Some(queue) = self.find(topic) else { continue };
                survive(|| {
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

    fn find(&self, topic: Topic) -> Option<Arc<WaitQueue>> {
        self.queues().get(&topic).and_then(Weak::upgrade)
    }

    /// Of this topic a participant is told when there is somebody new for it to watch: the last bit, which no channel has.
    pub(super) fn watch_topic(&self) -> Topic {
        Topic(self.pending_words as u32 * 64 - 1)
    }

    /// R9; `false` if it is over. Looks for work only if `look`, or where time makes some.
    pub(super) fn tick(&self, look: bool) -> bool {
        if let Ok(_ticking) = self.ticking.try_lock() {
            survive(|| (self.on_tick)());
        }
        let looked = if look || self.looks.load(Ordering::Relaxed) { self.listening.len() } else { 0 };
        for (index, word) in self.listening[..looked].iter().enumerate() {
            let mut topics = word.load(Ordering::Relaxed);
            while topics != 0 && !self.is_stopped() {
                let topic = Topic(index as u32 * 64 + topics.trailing_zeros());
                topics &= topics - 1;
                let Some(queue) = self.find(topic) else { continue };
                survive(|| {
                    if queue.has_work() && queue.is_broadcast() {
                        queue.notify_all_local();
                    } else if queue.has_work() || queue.has_work_in_line() {
                        queue.notify_local();
                    }
                });
            }
        }
        !self.is_stopped()
    }
}

/// Calls wakers, which are others' code. One that panics must not end the bridge, and with it the wakes of all others; the
/// panic hook has said what there is to say.
fn survive(wake: impl FnOnce()) {
    if cfg!(loom) {
        // What a model finds is a panic, too.
        return wake();
    }
    let _ = catch_unwind(AssertUnwindSafe(wake));
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("me", &self.me).finish_non_exhaustive()
    }
}
