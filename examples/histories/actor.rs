//! Who plays a program: a thread, with its part of every object.

use std::{
    cell::Cell,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use waterway::{OpenError, Segment};

use crate::{
    broadcast::Broadcast,
    channel::{Channel, Item},
    log::{Act, GONE, Log, Outcome},
    notify::Notifying,
    program::{Kind, Object, Op, Program, Verb},
    routed::Routed,
    semaphore::Semaphores,
    service::Service,
    watch::Watching,
};

/// How long somebody who should have been woken may sleep on, on a machine that has other things to do.
const DEAF: Duration = Duration::from_secs(3);

/// How long an actor plays: where many others want the processor, every yield takes long.
const LONGEST: Duration = Duration::from_millis(300);

/// The phases of a history: all actors end one before any begins the next.
pub(crate) const PLAY: u64 = 1;
/// Permits and messages that are held go.
pub(crate) const SETTLE: u64 = 2;
/// Who has a receiver receives all that there is, more than once: what is to be had may move between receivers.
pub(crate) const DRAIN: u64 = 3;
pub(crate) const DRAINS: u64 = 4;
/// All ends go.
pub(crate) const LEAVE: u64 = DRAIN + DRAINS;

/// The part of an actor in what is done with an object.
pub(crate) trait Part {
    fn step(&mut self, stage: &Stage<'_>, verb: Verb, argument: usize);
    /// Lets go of permits and messages.
    fn settle(&mut self, stage: &Stage<'_>);
    fn drain(&mut self, stage: &Stage<'_>);
    /// Drops all ends.
    fn leave(&mut self, stage: &Stage<'_>, argument: usize);
}

/// Where an actor plays.
pub(crate) struct Stage<'a> {
    pub(crate) segment: &'a Segment,
    pub(crate) log: &'a Log,
    pub(crate) actor: usize,
    pub(crate) object: usize,
    is_pinned: bool,
    ids: &'a Cell<u64>,
}

/// Wakes a thread, and remembers that it did.
#[derive(Debug)]
struct Bell {
    thread: Thread,
    has_rung: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.has_rung.store(true, SeqCst);
        self.thread.unpark();
    }
}

impl Stage<'_> {
    /// Between two tries. Who shares a core with the others lets them work now and then; a yield to others may take long.
    pub(crate) fn pause(&self, turn: usize) {
        match self.is_pinned && turn % 16 == 15 {
            true => thread::yield_now(),
            false => (0..30).for_each(|_| std::hint::spin_loop()),
        }
    }

    /// Of this history, for a message, a handle or a permit.
    pub(crate) fn new_id(&self) -> u64 {
        self.ids.set(self.ids.get() + 1);
        (self.actor as u64 + 1) << 32 | self.ids.get()
    }

    /// Does something, and writes down when, and what came of it.
    pub(crate) fn done<R>(&self, act: Act, handle: u64, id: u64, what: impl FnOnce() -> (R, Outcome, u64, u64)) -> R {
        let record = self.log.begin(self.actor, act, self.object, handle, id);
        let (result, outcome, id, more) = what();
        self.log.end(self.actor, record, outcome, id, more);
        result
    }

    /// Something is wrong by itself.
    pub(crate) fn wrong(&self, outcome: Outcome, id: u64) {
        self.done(Act::Wrong, 0, id, || ((), outcome, id, 0));
    }

    pub(crate) fn open<R>(&self, act: Act, more: u64, open: impl FnOnce() -> Result<R, OpenError>) -> Option<(u64, R)> {
        let handle = self.new_id();
        self.done(act, handle, 0, || match open() {
            Ok(end) => (Some((handle, end)), Outcome::Ok, 0, more),
            Err(error) => {
                // Combinations that do not exist.
                let is_refused = matches!(error, OpenError::InvalidOptions(_) | OpenError::TooManyChannels { .. });
                if !is_refused {
                    eprintln!("object {} is not opened: {error}", self.object);
                }
                (None, if is_refused { Outcome::Refused } else { Outcome::Unexpected }, 0, 0)
            }
        })
    }

    pub(crate) fn drop<R>(&self, act: Act, handle: u64, end: R) {
        self.done(act, handle, 0, || {
            drop(end);
            ((), Outcome::Ok, 0, 0)
        });
    }

    /// Waits until the future is ready, or until nobody does anything any more. It is wrong if `there_is` says that it should be
    /// ready then, and goes on to, and nobody has woken it.
    pub(crate) fn wait<F: Future>(&self, future: F, there_is: impl Fn() -> bool) -> Option<F::Output> {
        let bell = Arc::new(Bell { thread: thread::current(), has_rung: AtomicBool::new(false) });
        let waker = Waker::from(Arc::clone(&bell));
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Some(output);
            }
            self.log.set_idle(self.actor, true);
            let mut looks = 0;
            let mut quiet_since = None;
            let mut last = self.log.now();
            let has_rung = loop {
                if bell.has_rung.swap(false, SeqCst) {
                    break true;
                }
                if !self.log.is_quiet(PLAY) || self.log.now() != last {
                    last = self.log.now();
                    (looks, quiet_since) = (0, None);
                } else if looks < 4 {
                    looks += 1;
                } else if !there_is() {
                    break false;
                } else if quiet_since.get_or_insert_with(Instant::now).elapsed() > DEAF {
                    self.wrong(Outcome::Deaf, 0);
                    self.log.stop();
                    break false;
                }
                thread::park_timeout(Duration::from_micros(if quiet_since.is_some() { 1000 } else { 50 }));
            };
            self.log.set_idle(self.actor, false);
            if !has_rung {
                return None;
            }
        }
    }

    /// Polls a few times, with a waker that nobody listens to.
    pub(crate) fn poll<F: Future>(&self, future: F, times: usize) -> Option<F::Output> {
        let mut future = pin!(future);
        (0..times).find_map(|_| match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    }
}

fn part(object: &Object) -> Box<dyn Part> {
    match (object.kind, object.payload) {
        (Kind::Channel, 0) => Box::new(Channel::<Item>::new(*object)),
        (Kind::Channel, 1) => Box::new(Channel::<[u64]>::new(*object)),
        (Kind::Channel, _) => Box::new(Channel::<[u8]>::new(*object)),
        (Kind::Routed, _) => Box::new(Routed::new(*object)),
        (Kind::Broadcast, _) => Box::new(Broadcast::new(*object)),
        (Kind::Semaphore, _) => Box::new(Semaphores::new(*object)),
        (Kind::Watch, _) => Box::new(Watching::new(*object)),
        (Kind::Notify, _) => Box::new(Notifying::new(*object)),
        (Kind::Service, _) => Box::new(Service::new(*object)),
    }
}

/// Plays from the first phase to the last.
pub(crate) fn play(program: &Program, actor: usize, segment: &Segment, log: &Log) {
    if program.is_pinned {
        pin_to_one_core(program.seed);
    }
    let ids = Cell::new(0);
    let mut parts: Vec<_> = program.objects.iter().map(part).collect();
    let stage = |object| Stage { segment, log, actor, object, is_pinned: program.is_pinned, ids: &ids };
    let enter = |phase| {
        log.enter(actor, phase);
        wait_until(|| log.have_all_entered(phase));
    };
    enter(PLAY);
    let started = Instant::now();
    for Op { object, verb, argument } in &program.actors[actor] {
        if log.is_enough(actor) || started.elapsed() > LONGEST {
            break;
        }
        match verb {
            Verb::Meet => meet(log, argument % 2 == 0 && !program.is_pinned),
            Verb::Sleep => thread::sleep(Duration::from_micros(10 + *argument as u64 % 100)),
            Verb::Spin => (0..argument % 2000).for_each(|_| std::hint::spin_loop()),
            Verb::Yield => thread::yield_now(),
            _ => parts[*object].step(&stage(*object), *verb, *argument),
        }
    }
    enter(SETTLE);
    parts.iter_mut().enumerate().for_each(|(object, part)| part.settle(&stage(object)));
    // What is to be had of a routed channel moves between receivers.
    let is_routed = program.objects.iter().any(|object| object.kind == Kind::Routed);
    for round in 0..if is_routed { DRAINS } else { 1 } {
        enter(DRAIN + round);
        parts.iter_mut().enumerate().for_each(|(object, part)| part.drain(&stage(object)));
    }
    enter(LEAVE);
    log.settle();
    enter(LEAVE + 1);
    let argument = program.seed as usize + actor;
    parts.iter_mut().enumerate().for_each(|(object, part)| part.leave(&stage(object), argument));
    log.enter(actor, GONE);
}

/// Waits for a moment until somebody else comes here, too.
fn meet(log: &Log, patiently: bool) {
    let mine = log.meeting().fetch_add(1, SeqCst);
    if mine % 2 == 1 {
        return;
    }
    for _ in 0..if patiently { 5000 } else { 200 } {
        if log.meeting().load(SeqCst) != mine + 1 {
            return;
        }
        std::hint::spin_loop();
    }
    // Nobody comes: the next one is the first again.
    let _ = log.meeting().compare_exchange(mine + 1, mine, SeqCst, SeqCst);
}

pub(crate) fn wait_until(mut is_so: impl FnMut() -> bool) {
    for turn in 0_u32.. {
        if is_so() {
            return;
        }
        match turn {
            0..4 => thread::yield_now(),
            _ => thread::sleep(Duration::from_micros(30)),
        }
    }
}

fn pin_to_one_core(seed: u64) {
    // SAFETY: plain data and plain system calls about this thread. If they fail, it runs where it likes.
    unsafe {
        let mut all: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut all) != 0 {
            return;
        }
        let cores: Vec<usize> = (0..libc::CPU_SETSIZE as usize).filter(|core| libc::CPU_ISSET(*core, &all)).collect();
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        if let Some(core) = cores.get(seed as usize % cores.len().max(1)) {
            libc::CPU_SET(*core, &mut one);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const one);
        }
    }
}
