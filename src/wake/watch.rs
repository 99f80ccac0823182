//! The bridge's life: deliver what others have left, look for lost wakes now and then, and watch one other process.
//!
//! Every bridge holds its participant's **lifeline**, a word that the kernel marks when the thread ends, and sleeps on two
//! words at once: its own doorbell and the lifeline of its *buddy*, the next participant in the table that holds one. So
//! everybody is watched by somebody, and a death is heard of within a millisecond; whoever hears of it buries the dead and
//! wakes whom that concerns. Proof is the lock, as ever: the lifeline only says when to look. A newcomer tells the one
//! before it to watch it from now on, and only then [appears](crate::region::mapped::Region::appear) to others: nobody whom they
//! have seen dies unheard. Where the kernel refuses any of this, the watchdog finds the dead.
//!
//! # Without a thread
//!
//! Where the kernel has no thread for the bridge (`ulimit -u`, the `pids.max` of a control group), whoever waits [stands
//! in](Hub::stand_in) for it: at each of its polls it takes one round of the bridge's life, in which it sleeps on the bridge's words
//! for [`SHARE`] at most, and then wakes itself, so that its executor polls it again. One at a time has the bridge's [`Life`]; the
//! others sleep for as long. Wakers of ours have no task that would poll again: whoever waits by one of those
//! [drives](Hub::drive) the bridge. Each wait that begins tries again to start the thread, and so does who stands in, every [`WATCHDOG`].
//! Nobody holds the lifeline meanwhile: a thread of users may end while the process lives on.

use std::{
    cell::Cell,
    collections::HashMap,
    ptr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    sys::{robust, shared::SharedRef, signals, sync::Ordering},
    wake::{Hub, REST, WATCHDOG, second_look::Looks},
};

/// The first pause after a death was heard of and could not be proved yet: the kernel marks the lifeline a moment before it
/// gives the lock back, or longer where processors are scarce. It doubles with every look in vain.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
/// The longest pause in the first while after that, which is when the proof must come if it ever does.
const SHORT_PAUSE: Duration = Duration::from_millis(4);
const FIRST_WHILE: Duration = Duration::from_secs(1);

/// How long those who stand in for the bridge sleep in their polls, all that wait in the process together. An executor's thread is
/// not there for others so long, and so much later a waiter hears of what another thread of its process has done.
const SHARE: Duration = Duration::from_millis(1);
/// With what pause the bridge looks whether its life is to be had.
const LOOK: Duration = Duration::from_micros(100);

/// Whom a bridge watches.
#[derive(Debug, Default)]
struct Watch {
    buddy: Option<u16>,
    /// Deaths that we have tried to bury and could not yet, and what their lifelines say.
    unsettled: HashMap<u16, u32>,
    /// How long to wait before the next look at them.
    pause: Duration,
    /// When the last of them was heard of.
    heard: Option<Instant>,
}

/// For how long nothing has happened here.
#[derive(Debug, Default)]
struct Rest {
    /// Who waited at the last tick, see [`Hub::waiters`].
    waiters: u64,
    /// Ticks since somebody came or went.
    ticks: u32,
    /// How often one of several had been told by the last tick, in the whole segment.
    tells: u64,
    /// It has happened since the tick before that: whoever was told, and whoever has told it, may
    /// be stopped.
    has_told: bool,
    /// Nobody has waited for a whole period: the bridge sleeps without a timeout, and who waits then must ring. (A process that has
    /// just had waiters is likely to have some soon.)
    is_idle: bool,
}

impl Rest {
    /// One more tick; one in which the dead wait to be buried counts as if somebody had come.
    fn go_on(&mut self, hub: &Hub, is_settled: bool) {
        let waiters = hub.waiters();
        let is_quiet = is_settled && waiters == self.waiters;
        self.ticks = if is_quiet { self.ticks.saturating_add(1) } else { 0 };
        self.waiters = waiters;
        self.is_idle = is_quiet && !hub.is_waiting();
        // Ordering: SeqCst: loaded before the look; counted after what there is to be seen.
        let tells = hub.tells.load(Ordering::SeqCst);
        self.has_told = tells != self.tells;
        self.tells = tells;
    }

    /// Where nothing has happened for a while it is ever less likely that there is something to be found: [`REST`].
    fn is_time_to_look(&self) -> bool {
        let least = REST.as_millis() / WATCHDOG.as_millis();
        let ticks = u128::from(self.ticks);
        self.has_told || ticks <= 4 || ticks % least == 0 || (ticks < least && ticks.is_power_of_two())
    }
}

impl Watch {
    /// A look was in vain.
    fn be_more_patient(&mut self) {
        let is_new = self.heard.is_some_and(|heard| heard.elapsed() < FIRST_WHILE);
        self.pause = self.pause.saturating_mul(2).min(if is_new { SHORT_PAUSE } else { WATCHDOG });
    }
}

/// What the bridge knows from one round to the next, or who stands in for it.
#[derive(Debug)]
pub(super) struct Life {
    last_tick: Instant,
    watch: Watch,
    rest: Rest,
    looks: Looks,
    /// When a thread was refused last.
    refused: Instant,
}

impl Life {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let (watch, rest, looks) = (Watch::default(), Rest::default(), Looks::default());
        Self { last_tick: now, watch, rest, looks, refused: now }
    }
}

/// Has the bridge's life, as nobody else does while this lives: nobody else sleeps on its words.
struct Living<'a> {
    hub: &'a Hub,
    /// Is there until the drop.
    life: Option<Life>,
}

impl Drop for Living<'_> {
    fn drop(&mut self) {
        *self.hub.life.lock() = self.life.take();
    }
}

thread_local! {
    /// For whose bridge this thread stands in.
    static STANDING: Cell<*const Hub> = const { Cell::new(ptr::null()) };
}

/// This thread stands in for the bridge while this lives.
struct Standing {
    /// A waker that it calls may wait in its turn.
    before: *const Hub,
}

impl Standing {
    fn new(hub: &Hub) -> Self {
        Self { before: STANDING.replace(hub) }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        STANDING.set(self.before);
    }
}

impl Hub {
    /// The bridge's life.
    pub(super) fn run(&self) {
        signals::block_all();
        // SAFETY: the slot outlives the bridge: it lets go, or is joined, before the segment is unmapped.
        let _held = robust::hold(unsafe { SharedRef::new((&self.slots[usize::from(self.me)].lifeline).into()) });
        self.announce();
        self.has_announced();
        self.live();
    }

    /// Takes the bridge's life; `None` if somebody has it.
    fn take_life(&self) -> Option<Living<'_>> {
        let life = self.life.lock().take()?;
        Some(Living { hub: self, life: Some(life) })
    }

    /// One round of the bridge's life, by a waiter of a process that has got no thread for it. To be called by whoever is about to
    /// say that it waits, outside of all locks: it sleeps for a moment, and may call wakers. Then the caller wakes itself.
    #[cold]
    pub(super) fn stand_in(self: &Arc<Self>, among: usize) {
        // Each of those that one thread may be polling in turn has its share.
        let share = SHARE / self.waiting().max(u32::try_from(among).unwrap_or(u32::MAX)).max(1);
        let Some(mut living) = self.take_life() else { return thread::sleep(share) };
        let Some(life) = &mut living.life else { return };
        if life.refused.elapsed() >= WATCHDOG {
            life.refused = Instant::now();
            // Refused again, it goes on as before.
            self.launch();
        }
        // The bridge may have been started by now, and waits for its life.
        if self.lacks_bridge() && !self.is_stopped() {
            let _standing = Standing::new(self);
            self.live_on(life, Some(share));
        }
    }

    /// Whether this thread stands in for the bridge just now.
    pub(super) fn is_standing_in(&self) -> bool {
        ptr::eq(STANDING.get(), self)
    }

    /// Tells the one before us that there is somebody new to watch.
    fn announce(&self) {
        if let Some(watcher) = self.others().rev().find(|other| robust::is_held(self.lifeline(*other))) {
            self.tell(watcher, self.watch_topic());
        }
    }

    /// All others, beginning with the next one.
    fn others(&self) -> impl DoubleEndedIterator<Item = u16> {
        let (me, len) = (self.me, self.slots.len() as u16);
        (1..len).map(move |step| (me + step) % len)
    }

    fn lifeline(&self, participant: u16) -> u32 {
        self.slots[usize::from(participant)].lifeline.word().load(Ordering::SeqCst)
    }

    fn live(&self) {
        // Who stood in until now is done with its round soon.
        let mut living = loop {
            match self.take_life() {
                Some(living) => break living,
                None if self.is_stopped() => return,
                None => thread::sleep(LOOK),
            }
        };
        let Some(life) = &mut living.life else { return };
        while !self.is_stopped() && self.live_on(life, None) {}
    }

    /// Sleeps until there is something to do, for at most `most`, and does it; `false` if it is over.
    fn live_on(&self, life: &mut Life, most: Option<Duration>) -> bool {
        let Life { last_tick, watch, rest, looks, .. } = life;
        let watched = self.look(watch);
        let is_settled = watch.unsettled.is_empty();
        let period = if is_settled { WATCHDOG } else { watch.pause };
        let is_ticking = self.is_waiting() || !rest.is_idle || !is_settled;
        let until_tick = is_ticking.then(|| period.saturating_sub(last_tick.elapsed()));
        match [until_tick, looks.left(self), most].into_iter().flatten().min() {
            Some(time) => self.sleep(Some(time), watched),
            None => self.sleep_untimed(watched),
        }
        let _busy = self.work();
        if self.is_stopped() || !self.deliver() || !looks.look(self) {
            return false;
        }
        self.end_deadlines();
        if self.is_stopped() {
            return false;
        }
        if last_tick.elapsed() >= period {
            *last_tick = Instant::now();
            watch.be_more_patient();
            let is_settled = watch.unsettled.is_empty();
            rest.go_on(self, is_settled);
            if (!rest.is_idle || !is_settled) && !self.tick(rest.is_time_to_look()) {
                return false;
            }
        }
        true
    }

    /// Whom to watch, with what the lifeline says. Notes who has died.
    fn look(&self, watch: &mut Watch) -> Option<(u16, u32)> {
        watch.unsettled.retain(|participant, word| self.lifeline(*participant) == *word);
        if self.watch_anew.swap(false, Ordering::SeqCst) {
            watch.buddy = None;
        }
        let buddy = watch.buddy.map(|buddy| (buddy, self.lifeline(buddy)));
        if let Some((_, word)) = buddy
            && robust::is_held(word)
        {
            return buddy;
        }
        let mut next = None;
        for other in self.others() {
            let word = self.lifeline(other);
            if robust::is_held(word) {
                next = Some((other, word));
                break;
            }
            // Who died before it appeared has left nothing.
            let was_here = self.slots[usize::from(other)].is_live();
            if was_here && robust::is_orphan(word) && watch.unsettled.insert(other, word) != Some(word) {
                watch.pause = FIRST_PAUSE;
                watch.heard = Some(Instant::now());
            }
        }
        watch.buddy = next.map(|(buddy, _)| buddy);
        next
    }
}
