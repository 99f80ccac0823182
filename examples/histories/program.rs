//! Programs: what a seed says that is to be done, by whom, with what.

use std::fmt;

/// Good enough, and repeatable.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(mixed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Channel,
    Routed,
    Broadcast,
    Semaphore,
    Watch,
    Notify,
    Service,
}

pub(crate) const KINDS: [(&str, Kind); 7] = [
    ("channel", Kind::Channel),
    ("routed", Kind::Routed),
    ("broadcast", Kind::Broadcast),
    ("semaphore", Kind::Semaphore),
    ("watch", Kind::Watch),
    ("notify", Kind::Notify),
    ("service", Kind::Service),
];

/// One thing that is opened by its name, again and again. Everybody asks for the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object {
    pub(crate) kind: Kind,
    pub(crate) index: usize,
    pub(crate) capacity: usize,
    /// Which type its messages are of.
    pub(crate) payload: usize,
    /// At least once, with so many deliveries at most.
    pub(crate) deliveries: Option<u32>,
    /// Priorities by message.
    pub(crate) levels: bool,
    pub(crate) persistent: bool,
    /// Of a broadcast: for each group two bits, whether it blocks and whether it delivers at least once.
    pub(crate) groups: u8,
}

impl Object {
    pub(crate) fn name(&self) -> String {
        format!("{:?}-{}", self.kind, self.index)
    }

    pub(crate) fn group_blocks(&self, group: usize) -> bool {
        self.groups >> (2 * group) & 1 == 1
    }

    pub(crate) fn group_redelivers(&self, group: usize) -> bool {
        self.groups >> (2 * group) & 2 == 2
    }
}

pub(crate) const GROUPS: usize = 3;

/// What an actor does next with an object. Each kind makes of it what it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    OpenSender,
    OpenReceiver,
    OpenBoth,
    CloneSender,
    CloneReceiver,
    DropSender,
    DropReceiver,
    DropAll,
    Put,
    PutMany,
    PutWait,
    PollPut,
    Take,
    TakeMany,
    TakeSpin,
    TakeWait,
    PollTake,
    /// Polls, and drops not only the future but also who received.
    PollLeave,
    WaitClosed,
    /// Waits for the end of what it sends to, and opens something else at once.
    WaitClosedMoveOn,
    Close,
    Reserve,
    ReserveMany,
    UsePermit,
    DropPermit,
    Ack,
    Nack,
    Forward,
    /// Waits, for a moment, until another one comes here, too.
    Meet,
    Sleep,
    Spin,
    Yield,
}

use Verb::{
    Ack, CloneReceiver, CloneSender, Close, DropAll, DropPermit, DropReceiver, DropSender, Forward, Meet, Nack,
    OpenBoth, OpenReceiver, OpenSender, PollLeave, PollPut, PollTake, Put, PutMany, PutWait, Reserve, ReserveMany,
    Sleep, Spin, Take, TakeMany, TakeSpin, TakeWait, UsePermit, WaitClosed, WaitClosedMoveOn, Yield,
};

/// How programs differ: which verbs are likely. One of them is drawn for every actor.
const STYLES: [&[(Verb, u8)]; 6] = [
    // A bit of everything.
    &[
        (OpenSender, 6),
        (OpenReceiver, 6),
        (OpenBoth, 3),
        (CloneSender, 2),
        (CloneReceiver, 2),
        (DropSender, 4),
        (DropReceiver, 5),
        (DropAll, 2),
        (Put, 8),
        (PutMany, 4),
        (PutWait, 4),
        (PollPut, 2),
        (Take, 8),
        (TakeMany, 4),
        (TakeSpin, 2),
        (TakeWait, 4),
        (PollTake, 3),
        (PollLeave, 2),
        (WaitClosed, 2),
        (WaitClosedMoveOn, 1),
        (Close, 1),
        (Reserve, 4),
        (ReserveMany, 2),
        (UsePermit, 4),
        (DropPermit, 2),
        (Ack, 4),
        (Nack, 3),
        (Forward, 4),
        (Meet, 4),
        (Sleep, 2),
        (Spin, 2),
        (Yield, 2),
    ],
    // Mostly sends.
    &[
        (OpenSender, 6),
        (CloneSender, 1),
        (DropSender, 2),
        (Put, 10),
        (PutMany, 16),
        (PutWait, 6),
        (PollPut, 2),
        (WaitClosed, 2),
        (WaitClosedMoveOn, 2),
        (Reserve, 3),
        (UsePermit, 3),
        (Meet, 4),
        (Yield, 1),
        (Sleep, 1),
        (Spin, 1),
    ],
    // Mostly receives.
    &[
        (OpenReceiver, 6),
        (CloneReceiver, 1),
        (DropReceiver, 2),
        (Take, 8),
        (TakeMany, 8),
        (TakeSpin, 14),
        (TakeWait, 8),
        (PollTake, 2),
        (Ack, 5),
        (Nack, 2),
        (Forward, 2),
        (Close, 1),
        (Meet, 4),
        (Yield, 1),
        (Sleep, 2),
    ],
    // Comes, does little, and goes.
    &[
        (OpenSender, 8),
        (OpenReceiver, 12),
        (OpenBoth, 4),
        (DropSender, 6),
        (DropReceiver, 10),
        (DropAll, 8),
        (Put, 8),
        (PutMany, 8),
        (Take, 4),
        (PollTake, 2),
        (PollLeave, 8),
        (TakeWait, 2),
        (WaitClosedMoveOn, 8),
        (Close, 6),
        (Meet, 10),
        (Spin, 2),
    ],
    // Tries at the same moment as others.
    &[
        (OpenSender, 4),
        (OpenReceiver, 4),
        (Put, 10),
        (Take, 10),
        (Reserve, 20),
        (UsePermit, 3),
        (DropPermit, 14),
        (Ack, 6),
        (Meet, 30),
    ],
    // Has something for long.
    &[
        (OpenReceiver, 6),
        (Take, 10),
        (TakeSpin, 4),
        (TakeWait, 3),
        (Ack, 10),
        (Nack, 4),
        (Sleep, 8),
        (Meet, 2),
        (TakeMany, 3),
    ],
];

/// Who sends, receives, comes and goes, and holds.
const CAST: [usize; 5] = [1, 2, 5, 3, 2];

#[derive(Clone, Copy)]
pub(crate) struct Op {
    pub(crate) object: usize,
    pub(crate) verb: Verb,
    pub(crate) argument: usize,
}

impl fmt::Debug for Op {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{:?}({})", self.object, self.verb, self.argument)
    }
}

/// Who the actors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum World {
    /// Threads of one process, which is one participant.
    Threads,
    /// Threads of one process, which is a participant for each.
    Participants,
    /// Processes, of one or two threads each.
    Processes,
}

pub(crate) const WORLDS: [(&str, World); 3] =
    [("threads", World::Threads), ("participants", World::Participants), ("processes", World::Processes)];

/// What is done to a process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Harm {
    Kill {
        process: usize,
        after_micros: u64,
    },
    /// Stopped, and after a while told to go on.
    Stop {
        process: usize,
        after_micros: u64,
        for_micros: u64,
    },
}

pub(crate) const MOST_ACTORS: usize = 8;

#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) seed: u64,
    pub(crate) world: World,
    /// All on one core: whoever is woken comes between.
    pub(crate) is_pinned: bool,
    pub(crate) threads_per_process: usize,
    pub(crate) objects: Vec<Object>,
    pub(crate) actors: Vec<Vec<Op>>,
    pub(crate) harm: Vec<Harm>,
}

impl Program {
    pub(crate) fn new(seed: u64, world: World, only: Option<Kind>) -> Self {
        let mut random = Random::new(seed);
        let random = &mut random;
        let is_processes = world == World::Processes;
        let kinds: Vec<Kind> = match only {
            Some(kind) => vec![kind; 1 + random.below(3)],
            // Most of what there is, is a channel.
            None => (0..1 + random.below(4))
                .map(|_| if random.one_in(3) { Kind::Channel } else { KINDS[random.below(KINDS.len())].1 })
                .collect(),
        };
        let objects: Vec<Object> =
            kinds.into_iter().enumerate().map(|(index, kind)| object(random, kind, index, is_processes)).collect();
        let threads_per_process = if is_processes { 1 + random.below(2) } else { 1 };
        let actors = if is_processes { 2 + random.below(4) } else { 2 + random.below(3) };
        let actors = (actors * threads_per_process).min(MOST_ACTORS / threads_per_process * threads_per_process);
        let long = random.one_in(16);
        let ops = if long { 200 + random.below(600) } else { 8 + random.below(60) };
        let alike = random.one_in(4).then(|| random.below(STYLES.len()));
        // Or each has a part of its own: some send, some receive, some hold what they have.
        let cast = random.one_in(2).then(|| random.below(STYLES.len()));
        let favourite = random.one_in(2).then(|| random.below(objects.len()));
        let mut actors: Vec<Vec<Op>> = (0..actors)
            .map(|actor| {
                let style = match (alike, cast) {
                    (Some(style), _) => style,
                    (_, Some(first)) => CAST[(first + actor) % CAST.len()],
                    _ => random.below(STYLES.len()),
                };
                let favourite = favourite.unwrap_or_else(|| random.below(objects.len()));
                (0..ops).map(|_| op(random, STYLES[style], favourite, objects.len())).collect()
            })
            .collect();
        // All do the same at the same time.
        if alike.is_some() && random.one_in(2) {
            let first = actors[0].clone();
            actors.fill(first);
        }
        let processes = actors.len() / threads_per_process;
        let mut harm = Vec::new();
        if is_processes && !random.one_in(3) {
            for _ in 0..1 + random.below(2) {
                let (process, after_micros) = (random.below(processes), random.below(6000) as u64);
                harm.push(match random.one_in(3) {
                    true => Harm::Stop { process, after_micros, for_micros: random.below(20_000) as u64 },
                    false => Harm::Kill { process, after_micros },
                });
            }
        }
        let is_pinned = random.one_in(2);
        Self { seed, world, is_pinned, threads_per_process, objects, actors, harm }
    }
}

fn object(random: &mut Random, kind: Kind, index: usize, is_processes: bool) -> Object {
    let levels = random.one_in(4);
    Object {
        kind,
        index,
        capacity: random.of(&[1, 1, 2, 3, 4, 8, 16, 64, 500]),
        payload: if levels { 0 } else { random.below(3) },
        deliveries: random.one_in(3).then(|| random.of(&[2, 3, 200, 200])),
        levels,
        // A channel that lasts would be left for the next history in the same segment.
        persistent: is_processes && random.one_in(4),
        groups: random.next() as u8,
    }
}

fn op(random: &mut Random, style: &[(Verb, u8)], favourite: usize, objects: usize) -> Op {
    let all: usize = style.iter().map(|(_, weight)| usize::from(*weight)).sum();
    let mut at = random.below(all);
    let mut verb = Yield;
    for (other, weight) in style {
        if at < usize::from(*weight) {
            verb = *other;
            break;
        }
        at -= usize::from(*weight);
    }
    let object = if random.one_in(3) { random.below(objects) } else { favourite };
    Op { object, verb, argument: random.next() as usize & 0xffff_ffff }
}
