//! What must be true of a history, whatever the order in which things happened.
//!
//! All that was done has a time at which it began and one at which it was over. What is *surely* so at a time follows from what was
//! over by then, what is *maybe* so from what had begun. Wrong is only what is wrong in every order that the times allow.

use std::collections::{HashMap, HashSet};

use crate::{
    log::{Act, Event, NEVER, Outcome},
    program::{GROUPS, Kind, Object, Program},
    semaphore::permits_of,
};

/// A history, after its end.
pub(crate) struct History<'a> {
    pub(crate) program: &'a Program,
    pub(crate) events: Vec<Event>,
    /// For each actor, when it began to be killed.
    pub(crate) killed: Vec<Option<u64>>,
    /// When the last phases began: from then on nothing is sent, and all is received.
    pub(crate) settled: u64,
}

/// A time during which a sender or receiver was surely there.
#[derive(Clone, Copy, Debug)]
struct Life {
    handle: u64,
    from: u64,
    to: u64,
}

/// A message in a queue, once: put there, and taken from there as often as it came back.
#[derive(Debug)]
struct Passage<'a> {
    put: &'a Event,
    takes: Vec<&'a Event>,
}

/// At so many answers of one object the judge looks, in a history.
const MOST_LOOKS: usize = 400;

pub(crate) fn judge(history: &History<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    // All were killed: nobody was there to receive what was left.
    if history.settled == 0 {
        return wrong;
    }
    for event in &history.events {
        let is_wrong = matches!(event.outcome, Outcome::Damaged | Outcome::Deaf | Outcome::Unexpected);
        if is_wrong {
            wrong.push(format!("{event:?}"));
        }
    }
    for (index, object) in history.program.objects.iter().enumerate() {
        let events: Vec<&Event> = history.events.iter().filter(|event| event.object == index).collect();
        let of = OfObject { history, object, events: &events };
        let mut found = match object.kind {
            Kind::Channel | Kind::Routed => of.queue(),
            Kind::Broadcast => of.broadcast(),
            Kind::Semaphore => of.semaphore(),
            Kind::Watch => of.watch(),
            Kind::Notify => Vec::new(),
            Kind::Service => of.service(),
        };
        wrong.extend(found.drain(..).map(|what| format!("{}: {what}", object.name())));
    }
    wrong
}

struct OfObject<'a> {
    history: &'a History<'a>,
    object: &'a Object,
    events: &'a [&'a Event],
}

/// Whether somebody was surely there all the time.
fn covered(lives: &[Life], from: u64, to: u64) -> bool {
    let mut at = from;
    // Lives are in the order in which they begin.
    for life in lives {
        if life.from > at {
            break;
        }
        if life.to > at {
            at = life.to;
        }
        if at >= to {
            return true;
        }
    }
    at >= to
}

impl<'a> OfObject<'a> {
    /// Times during which ends were surely there.
    fn lives(&self, open: Act, drop: Act, more: Option<u64>) -> Vec<Life> {
        let mut ends = HashMap::new();
        for event in self.events.iter().filter(|event| event.act == drop) {
            ends.insert(event.handle, event.start);
        }
        let opened = self.events.iter().filter(|event| event.is(open, Outcome::Ok));
        let mut lives: Vec<Life> = opened
            .filter(|event| more.is_none_or(|more| event.more == more))
            .map(|event| {
                let killed = self.history.killed[event.actor].unwrap_or(NEVER);
                let to = ends.get(&event.handle).copied().unwrap_or(NEVER).min(killed);
                Life { handle: event.handle, from: event.end, to }
            })
            .collect();
        lives.sort_by_key(|life| life.from);
        lives
    }

    /// Whether it was done before the process was killed.
    fn is_certain(&self, event: &Event) -> bool {
        event.end != NEVER
    }

    /// The passages of all messages, and takes that have none.
    fn passages(
        &self,
        takes: impl Fn(&Event) -> bool,
        count: impl Fn(&Event) -> u64,
    ) -> (Vec<Passage<'a>>, Vec<&'a Event>) {
        let mut puts: HashMap<u64, Vec<Passage<'a>>> = HashMap::new();
        for event in self.events.iter().filter(|event| event.act == Act::Put) {
            // What was given up, or broke off, may not have been sent.
            if matches!(event.outcome, Outcome::Ok | Outcome::None) {
                puts.entry(event.id).or_default().push(Passage { put: event, takes: Vec::new() });
            }
        }
        let mut astray = Vec::new();
        let mut taken: Vec<&Event> =
            self.events.iter().copied().filter(|event| event.is(Act::Take, Outcome::Ok) && takes(event)).collect();
        taken.sort_by_key(|event| event.end);
        for take in taken {
            let passages = puts.get_mut(&take.id).map_or(&mut [][..], |passages| &mut passages[..]);
            // What is new comes to the first that nobody has had, and what comes again to where it was last; or its first receiver
            // was killed before it could say so.
            let new = passages.iter().position(|passage| passage.takes.is_empty());
            let last = passages.iter().rposition(|passage| !passage.takes.is_empty());
            match if count(take) <= 1 { new } else { last.or(new) } {
                Some(passage) => passages[passage].takes.push(take),
                None => astray.push(take),
            }
        }
        let mut passages: Vec<_> = puts.into_values().flatten().collect();
        passages.sort_by_key(|passage| passage.put.start);
        (passages, astray)
    }

    fn nacks(&self) -> HashMap<u64, Vec<&'a Event>> {
        let mut nacks: HashMap<u64, Vec<&Event>> = HashMap::new();
        for event in self.events.iter().filter(|event| event.act == Act::Nack) {
            nacks.entry(event.id).or_default().push(event);
        }
        nacks
    }

    fn any_killed(&self) -> bool {
        self.history.killed.iter().any(Option::is_some)
    }

    /// Messages that came to be lost with whoever was killed in the middle of receiving, at most.
    fn lost_in_hands(&self) -> usize {
        self.events.iter().filter(|event| event.act == Act::Take && !self.is_certain(event)).count()
    }

    fn queue(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let receivers = self.lives(Act::OpenReceiver, Act::DropReceiver, None);
        let senders = self.lives(Act::OpenSender, Act::DropSender, None);
        let (passages, astray) = self.passages(|_| true, |take| take.more);
        for take in astray {
            wrong.push(format!("received once more than it was sent: {take:?}"));
        }
        let nacks = self.nacks();
        let again = self.object.deliveries;
        let mut lost = Vec::new();
        for Passage { put, takes } in &passages {
            for pair in takes.windows(2) {
                if pair[1].more <= pair[0].more {
                    wrong.push(format!("it came again, and did not say so: {put:?}, {takes:?}"));
                }
                let is_given_back = nacks
                    .get(&put.id)
                    .is_some_and(|nacks| nacks.iter().any(|nack| nack.start > pair[0].end && nack.start < pair[1].end));
                if !is_given_back && self.history.killed[pair[0].actor].is_none() && !self.any_killed() {
                    wrong.push(format!("it came again, and nobody gave it back: {put:?}, {takes:?}"));
                }
            }
            if takes.first().is_some_and(|take| take.end < put.start) {
                wrong.push(format!("received before it was sent: {put:?}, {takes:?}"));
            }
            // Whoever had it last gave it back, or was killed with it.
            let waits = match takes.last() {
                None => true,
                Some(take) => {
                    let given_back =
                        nacks.get(&put.id).and_then(|nacks| nacks.iter().rfind(|nack| nack.start > take.end));
                    let is_forwarded = passages
                        .iter()
                        .any(|other| other.put.id == put.id && other.put.start > take.end && other.put.more == 1);
                    again.is_some_and(|most| take.more < u64::from(most))
                        && given_back.is_some_and(|nack| self.is_certain(nack))
                        && !is_forwarded
                }
            };
            let is_due = self.is_certain(put) && put.outcome == Outcome::Ok && waits;
            if is_due && covered(&receivers, put.start, self.history.settled) {
                lost.push((put, takes));
            }
        }
        if lost.len() > if again.is_some() { 0 } else { self.lost_in_hands() } {
            for (put, takes) in lost {
                wrong.push(format!("sent to living receivers, and lost: {put:?}, {takes:?}"));
            }
        }
        self.order(&passages, &mut wrong);
        self.answers(&passages, &receivers, &senders, &mut wrong);
        wrong
    }

    /// What one sender sends, one receiver receives in its order.
    fn order(&self, passages: &[Passage<'_>], wrong: &mut Vec<String>) {
        if self.object.kind == Kind::Routed && self.any_killed() {
            return;
        }
        let mut firsts: Vec<(&Event, &Event)> = passages
            .iter()
            .filter_map(|passage| Some((passage.put, *passage.takes.first()?)))
            .filter(|(put, take)| take.more <= 1 && put.outcome == Outcome::Ok)
            .collect();
        firsts.sort_by_key(|(_, take)| take.start);
        let mut last: HashMap<(usize, usize, u64), &Event> = HashMap::new();
        for (put, take) in firsts {
            let class = match self.object.kind {
                // Of each key, and of no key none.
                Kind::Routed if put.id % 5 == 0 => continue,
                Kind::Routed => (put.id % 5) << 8 | if self.object.levels { put.id >> 1 & 3 } else { 0 },
                _ if self.object.levels => put.id >> 1 & 3,
                _ => 0,
            };
            if let Some(before) = last.insert((put.actor, take.actor, class), put)
                && before.start > put.start
            {
                wrong.push(format!("out of order: {put:?} was received after {before:?}, {take:?}"));
            }
        }
    }

    /// What was said when something was not to be had was so.
    fn answers(&self, passages: &[Passage<'_>], receivers: &[Life], senders: &[Life], wrong: &mut Vec<String>) {
        if self.any_killed() {
            return;
        }
        let closes: Vec<u64> =
            self.events.iter().filter(|event| event.act == Act::Close).map(|event| event.start).collect();
        let closed_by = |time: u64| closes.iter().any(|close| *close <= time);
        let alive =
            |lives: &[Life], event: &Event| lives.iter().any(|life| life.from < event.start && life.to > event.end);
        let is_plain = self.object.kind == Kind::Channel;
        if is_plain && !self.object.levels {
            self.refusals(self.object.capacity, &self.had(passages), wrong);
        }
        let mut looked = 0;
        for event in self.events {
            looked += usize::from(event.outcome == Outcome::Empty);
            if looked > MOST_LOOKS {
                break;
            }
            match (event.act, event.outcome) {
                (Act::Take, Outcome::Empty) if is_plain => {
                    let waits = passages.iter().find(|Passage { put, takes }| {
                        put.outcome == Outcome::Ok
                            && put.end < event.start
                            && takes.first().is_none_or(|take| take.start > event.end)
                            && covered(receivers, put.start, event.end)
                    });
                    if let Some(passage) = waits {
                        wrong.push(format!("{event:?} beside a message: {passage:?}"));
                    }
                }
                (Act::Take, Outcome::Closed) => {
                    if alive(senders, event) && !closed_by(event.end) && !self.object.persistent {
                        wrong.push(format!("{event:?} beside a sender"));
                    }
                    // Whoever sends to the same channel afterwards is refused. What was being sent was
                    // sent before, maybe, and freed when there was no receiver.
                    let late = passages.iter().find(|Passage { put, takes }| {
                        put.outcome == Outcome::Ok
                            && put.end > event.start
                            && (put.start > event.end || covered(receivers, put.start, event.end))
                            && takes.first().is_none_or(|take| take.start > event.end)
                            && senders.iter().any(|sender| {
                                sender.handle == put.handle && sender.from < event.start && sender.to > event.end
                            })
                            && receivers.iter().any(|receiver| receiver.handle == event.handle)
                            && self.object.deliveries.is_none()
                    });
                    if let Some(passage) = late {
                        wrong.push(format!("{event:?}, and then there was {passage:?}"));
                    }
                }
                (Act::Put | Act::Reserve, Outcome::Closed) if alive(receivers, event) && !closed_by(event.end) => {
                    wrong.push(format!("{event:?} beside a receiver"));
                }
                _ => {}
            }
        }
    }

    /// From when to when room, or permits, were maybe had, and how many.
    fn had(&self, passages: &[Passage<'_>]) -> Vec<(u64, u64, u64)> {
        let mut ends = HashMap::new();
        for event in self.events.iter().filter(|event| event.act == Act::EndPermit) {
            ends.insert(event.id, event.end);
        }
        let messages = passages.iter().map(|Passage { put, takes }| {
            // What comes back may stand in the channel again.
            let to = if self.object.deliveries.is_some() { None } else { takes.first() };
            (put.start, to.map_or(NEVER, |take| take.end), 1)
        });
        let permits = self.events.iter().filter_map(|event| match (event.act, event.outcome) {
            (Act::Reserve, Outcome::Ok | Outcome::None) => {
                Some((event.start, ends.get(&event.id).copied().unwrap_or(NEVER), event.more.max(1)))
            }
            // Many are counted while they are tried for, though they are not had.
            (Act::Reserve, Outcome::Full) if event.more > 1 => Some((event.since, event.end, event.more)),
            // A semaphore's are had until they are given back, those of a channel until they are used.
            (Act::InLine, Outcome::Ok) if event.id != 0 => {
                Some((event.start, ends.get(&event.id).copied().unwrap_or(NEVER), event.more))
            }
            (Act::InLine, _) => Some((event.start, event.end, event.more)),
            _ => None,
        });
        messages.chain(permits).collect()
    }

    /// Those that were refused though at no time of their tries there was too little.
    ///
    /// Two that try at the same time and fail are no excuse for each other. But who is stopped while it
    /// fails is counted for so long: that is an excuse for others, if there was too little for it.
    fn refusals(&self, capacity: usize, had: &[(u64, u64, u64)], wrong: &mut Vec<String>) {
        let most = |event: &Event, had: &[_]| most_at_once(had, event);
        let lacked = |event: &Event, had: &[_]| {
            let wanted = if event.act == Act::Reserve { event.more } else { 1 };
            most(event, had) + wanted > capacity as u64
        };
        let tries = |event: &&Event| matches!(event.act, Act::Put | Act::Reserve) && event.outcome == Outcome::Full;
        let refused = || self.events.iter().copied().filter(tries);
        let mut left: Vec<&Event> = refused().take(MOST_LOOKS).filter(|event| !lacked(event, had)).collect();
        if left.is_empty() {
            return;
        }
        let beside = |event: &&Event| left.iter().any(|other| other.start < event.end && event.since < other.end);
        let (mut others, mut had): (Vec<&Event>, _) = (refused().filter(beside).collect(), had.to_vec());
        loop {
            let (excused, rest): (Vec<&Event>, _) = others.into_iter().partition(|event| lacked(event, &had));
            if excused.is_empty() {
                break;
            }
            had.extend(excused.iter().filter(|event| event.more <= 1).map(|event| (event.since, event.end, 1)));
            others = rest;
        }
        left.retain(|event| !lacked(event, &had));
        for event in left {
            wrong.push(format!("{event:?}, and there were at most {} of {capacity}", most(event, &had)));
        }
    }

    fn semaphore(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let permits = permits_of(self.object) as u64;
        // Surely had: never more than there are.
        let mut ends = HashMap::new();
        for event in self.events.iter().filter(|event| event.act == Act::EndPermit) {
            ends.insert(event.id, event.start);
        }
        let got = |event: &&&Event| {
            matches!(event.act, Act::Reserve | Act::InLine) && event.outcome == Outcome::Ok && event.end != NEVER
        };
        let had: Vec<(u64, u64, u64)> = self
            .events
            .iter()
            .filter(got)
            .map(|event| {
                let killed = self.history.killed[event.actor].unwrap_or(NEVER);
                (event.end, ends.get(&event.id).copied().unwrap_or(NEVER).min(killed), event.more)
            })
            .filter(|(from, to, _)| from < to)
            .collect();
        let most = most_in(&had, 0, NEVER);
        if most > permits {
            wrong.push(format!("{most} of {permits} permits were had at once"));
        }
        if self.any_killed() {
            return wrong;
        }
        self.refusals(permits as usize, &self.had(&[]), &mut wrong);
        wrong
    }

    fn watch(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let puts: HashMap<u64, &Event> = self
            .events
            .iter()
            .filter(|event| event.act == Act::Put && matches!(event.outcome, Outcome::Ok | Outcome::None))
            .map(|event| (event.id, *event))
            .collect();
        let mut lives = self.lives(Act::OpenReceiver, Act::DropReceiver, None);
        lives.extend(self.lives(Act::OpenSender, Act::DropSender, None));
        lives.sort_by_key(|life| life.from);
        for look in self.events.iter().filter(|event| event.is(Act::Take, Outcome::Ok)) {
            let from = match (look.id, puts.get(&look.id)) {
                (0, _) => 0,
                (_, Some(put)) if put.start < look.end => put.end,
                _ => {
                    wrong.push(format!("seen and not sent: {look:?}"));
                    continue;
                }
            };
            // The newest that was surely there before: what was seen must not be older.
            let newer =
                puts.values().filter(|put| put.outcome == Outcome::Ok && put.start > from && put.end < look.start);
            for put in newer {
                if covered(&lives, put.start, look.end) {
                    wrong.push(format!("{look:?}, and {put:?} was newer"));
                    break;
                }
            }
        }
        wrong
    }

    fn broadcast(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for group in 0..GROUPS {
            let lives = self.lives(Act::OpenReceiver, Act::DropReceiver, Some(group as u64));
            let members: HashSet<u64> = lives.iter().map(|life| life.handle).collect();
            let is_here = |event: &Event| members.contains(&event.handle);
            let count = |take: &Event| take.more >> 48;
            let (passages, astray) = self.passages(is_here, count);
            for take in astray {
                wrong.push(format!("group {group}: received once more than it was published: {take:?}"));
            }
            let redelivers = self.object.group_redelivers(group);
            let nacked: HashMap<u64, &Event> = self
                .events
                .iter()
                .filter(|event| event.act == Act::Nack && event.handle == group as u64)
                .map(|event| (event.id, *event))
                .collect();
            let mut lost = Vec::new();
            for Passage { put, takes } in &passages {
                if takes.windows(2).any(|pair| count(pair[1]) <= count(pair[0])) {
                    wrong.push(format!("group {group}: it came again, and did not say so: {put:?}, {takes:?}"));
                }
                let comes_again = takes.last().is_some_and(|take| {
                    redelivers && nacked.get(&put.id).is_some_and(|nack| nack.start > take.end && nack.end != NEVER)
                });
                let is_due = put.outcome == Outcome::Ok && (takes.is_empty() || comes_again);
                if is_due && self.object.group_blocks(group) && covered(&lives, put.start, self.history.settled) {
                    lost.push(put);
                }
                // A blocking group's member that finds nothing.
                if !self.any_killed() && self.object.group_blocks(group) && put.outcome == Outcome::Ok {
                    let first = takes.first().map_or(NEVER, |take| take.start);
                    let beside = self.events.iter().find(|event| {
                        event.is(Act::Take, Outcome::Empty)
                            && is_here(event)
                            && event.start > put.end
                            && event.end < first
                            && covered(&lives, put.start, event.end)
                    });
                    if let Some(event) = beside {
                        wrong.push(format!("group {group}: {event:?} beside a message: {put:?}"));
                    }
                }
            }
            if lost.len() > if redelivers { 0 } else { self.lost_in_hands() } {
                lost.iter().for_each(|put| wrong.push(format!("group {group}: published, and lost: {put:?}")));
            }
            self.order_in_group(group, &passages, &mut wrong);
            self.missed(group, &lives, &passages, &members, &mut wrong);
        }
        wrong
    }

    /// By sequence numbers: of the group's members each gets what is new in order.
    fn order_in_group(&self, group: usize, passages: &[Passage<'_>], wrong: &mut Vec<String>) {
        let mut firsts: Vec<&Event> = passages.iter().filter_map(|passage| passage.takes.first().copied()).collect();
        firsts.retain(|take| take.more >> 48 <= 1);
        firsts.sort_by_key(|take| take.start);
        let sequence = |take: &Event| take.more & 0xffff_ffff_ffff;
        let mut last: HashMap<u64, &Event> = HashMap::new();
        for take in firsts {
            if let Some(before) = last.insert(take.handle, take)
                && sequence(before) >= sequence(take)
            {
                wrong.push(format!("group {group}: out of order: {before:?}, {take:?}"));
            }
        }
    }

    /// What a group that lags got, and what it was told to have missed, are all that there was.
    fn missed(
        &self,
        group: usize,
        lives: &[Life],
        passages: &[Passage<'_>],
        members: &HashSet<u64>,
        wrong: &mut Vec<String>,
    ) {
        let Some(first) = passages.first() else { return };
        let is_certain = passages.iter().all(|passage| passage.put.outcome == Outcome::Ok);
        if !is_certain || self.any_killed() || !covered(lives, first.put.start, self.history.settled) {
            return;
        }
        let told: u64 = self
            .events
            .iter()
            .filter(|event| event.is(Act::Take, Outcome::Lagged) && members.contains(&event.handle))
            .map(|event| event.more)
            .sum();
        let taken = passages.iter().filter(|passage| !passage.takes.is_empty()).count() as u64;
        if taken + told != passages.len() as u64 {
            let published = passages.len();
            wrong.push(format!("group {group}: of {published} it got {taken}, and was told that it missed {told}"));
        }
    }

    fn service(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let responses: HashMap<u64, &Event> = self
            .events
            .iter()
            .filter(|event| event.act == Act::Respond && event.outcome != Outcome::Closed)
            .map(|event| (event.id, *event))
            .collect();
        for call in self.events.iter().filter(|event| event.is(Act::Call, Outcome::Ok)) {
            if responses.get(&call.id).is_none_or(|response| response.start > call.end) {
                wrong.push(format!("an answer that nobody gave: {call:?}"));
            }
        }
        wrong
    }
}

/// How many others had at most, at any time of a try.
fn most_at_once(had: &[(u64, u64, u64)], event: &Event) -> u64 {
    let others: Vec<_> = had
        .iter()
        .filter(|(from, to, _)| *from <= event.end && *to >= event.start && *from != event.since)
        .copied()
        .collect();
    most_in(&others, event.start, event.end)
}

/// How many there are at most, at any time of an interval.
fn most_in(from_to: &[(u64, u64, u64)], start: u64, end: u64) -> u64 {
    let mut now = 0;
    let mut changes = Vec::new();
    for (from, to, count) in from_to.iter().filter(|(from, to, _)| *from <= end && *to >= start) {
        match *from <= start {
            true => now += count,
            false => changes.push((*from, true, count)),
        }
        if *to < end {
            changes.push((to + 1, false, count));
        }
    }
    changes.sort_unstable();
    let mut most = now;
    for (_, more, count) in changes {
        now = if more { now + count } else { now - count };
        most = most.max(now);
    }
    most
}
