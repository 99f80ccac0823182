//! Models of the log: members, publishers, those who join, and a reaper, around one or two messages.
//!
//! The payload of each message is watched by a cell of loom's: whoever frees it writes to it, so an access that nothing orders
//! before is a race, which loom reports. The last models leave a step out on purpose, and must fail.

use std::sync::Arc;

use loom::{cell::UnsafeCell, thread};

use super::*;
use crate::sys::sync::AtomicUsize;

fn model(preemptions: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(test);
}

const BLOCKS: usize = 3;

/// A log of two cells and a capacity of one, with that many groups that are active, and some blocks.
struct Ground {
    log: Log,
    groups: Vec<Group>,
    payloads: [UnsafeCell<u64>; BLOCKS],
    freed: [AtomicUsize; BLOCKS],
}

impl Ground {
    fn new(columns: usize, groups: &[Pressure], history: u64) -> Arc<Self> {
        let zeroed = |len: usize| SharedSlice::leak((0..len).map(|_| AtomicU64::new(0)).collect());
        let log = Log::new(
            zeroed(2),
            zeroed(2 * columns),
            zeroed(columns),
            SharedSlice::leak((0..columns).map(|_| GroupLine::default()).collect()),
            SharedRef::leak(AtomicU64::new(0)),
            (1, history),
        );
        let join = |pressure: &Pressure| {
            let group = log.reserve(0, *pressure).unwrap();
            log.join(group, 0, 0);
            group
        };
        Arc::new(Self {
            groups: groups.iter().map(join).collect(),
            log,
            payloads: std::array::from_fn(|at| UnsafeCell::new(at as u64)),
            freed: std::array::from_fn(|_| AtomicUsize::new(0)),
        })
    }

    /// Publishes a block; `false` if there is no room. Its payload is its position.
    fn publish(&self, block: usize) -> bool {
        let private = Position::new(0);
        loop {
            match self.log.next(&private, || 0) {
                Next::Vacant(vacancy) => {
                    if let Some(at) = self.log.fill(&private, vacancy, BlockId(block as u32)) {
                        if let Some(past) = at.checked_sub(self.log.history()).filter(|_| self.log.history() > 0) {
                            self.settle(past);
                        }
                        return true;
                    }
                }
                Next::Retire(index) => self.retire(index),
                Next::Wait(_) | Next::Evict(..) => return false,
            }
        }
    }

    fn free(&self, block: BlockId) {
        let block = block.0 as usize;
        self.freed[block].fetch_add(1, Ordering::Relaxed);
        // SAFETY: this is what the models are to show.
        self.payloads[block].with_mut(|payload| unsafe { *payload = 0xdead });
    }

    fn retire(&self, index: usize) {
        while let Some(unpinned) = self.log.unpinned(index) {
            if self.log.take(unpinned) {
                return self.free(unpinned.block());
            }
        }
    }

    fn settle(&self, position: u64) {
        if self.log.close_if_done(position) {
            self.retire(self.log.index(position));
        }
    }

    /// One receive: the message, or how many were missed.
    fn receive(&self, group: usize, me: u16) -> Result<Taken, u64> {
        let private = Position::new(0);
        loop {
            match self.log.receive(self.groups[group], &private, me) {
                Found::Message(taken) => return Ok(taken),
                Found::Nothing | Found::Evicted => return Err(0),
                Found::Lagged(missed) => return Err(missed),
                Found::Settle { position, missed } => {
                    self.settle(position);
                    if missed > 0 {
                        return Err(missed);
                    }
                }
            }
        }
    }

    fn read(&self, taken: &Taken) {
        // SAFETY: this is what the models are to show.
        let payload = self.payloads[taken.block.0 as usize].with(|payload| unsafe { *payload });
        assert_eq!(payload, u64::from(taken.block.0));
    }

    fn acknowledge(&self, group: usize, taken: &Taken) {
        self.log.acknowledge(self.groups[group], taken);
        self.settle(taken.position);
    }

    /// Receives, reads and acknowledges; how many messages are accounted for by it.
    fn handle(&self, group: usize, me: u16) -> u64 {
        match self.receive(group, me) {
            Ok(taken) => {
                self.read(&taken);
                self.acknowledge(group, &taken);
                1
            }
            Err(missed) => missed,
        }
    }

    fn freed(&self) -> [usize; BLOCKS] {
        std::array::from_fn(|block| self.freed[block].load(Ordering::Relaxed))
    }
}

#[test]
fn who_takes_a_message_that_a_publisher_closes_has_it_or_has_missed_it() {
    model(3, || {
        let ground = Ground::new(1, &[Pressure::Lag], 0);
        assert!(ground.publish(0));
        let other = Arc::clone(&ground);
        let member = thread::spawn(move || other.handle(0, 1));
        assert!(ground.publish(1));
        let mut accounted = member.join().unwrap();
        accounted += ground.handle(0, 1);
        accounted += ground.handle(0, 1);
        assert_eq!((accounted, ground.freed()), (2, [1, 1, 0]));
    });
}

#[test]
fn a_publisher_that_waits_for_a_group_finds_room_when_it_has_taken_its_message() {
    model(3, || {
        let ground = Ground::new(1, &[Pressure::Block], 0);
        assert!(ground.publish(0));
        let other = Arc::clone(&ground);
        let member = thread::spawn(move || {
            // Nobody can have missed it.
            let taken = other.receive(0, 1).unwrap();
            other.read(&taken);
            other.acknowledge(0, &taken);
        });
        let published = ground.publish(1);
        member.join().unwrap();
        assert!(published || ground.publish(1));
        assert_eq!(ground.handle(0, 1), 1);
        assert_eq!(ground.freed(), [1, 1, 0]);
    });
}

#[test]
fn of_two_members_one_takes_a_message() {
    model(3, || {
        let ground = Ground::new(1, &[Pressure::Block], 0);
        assert!(ground.publish(0));
        let other = Arc::clone(&ground);
        let member = thread::spawn(move || other.handle(0, 1));
        let mine = ground.handle(0, 2);
        assert_eq!(mine + member.join().unwrap(), 1);
        assert_eq!(ground.freed(), [1, 0, 0]);
    });
}

fn two_groups(done: fn(&Ground, usize, &Taken)) {
    model(3, move || {
        let ground = Ground::new(2, &[Pressure::Block, Pressure::Lag], 0);
        assert!(ground.publish(0));
        let taken = [0, 1].map(|group| ground.receive(group, 1).unwrap());
        let other = Arc::clone(&ground);
        let member = thread::spawn(move || {
            other.read(&taken[0]);
            done(&other, 0, &taken[0]);
        });
        ground.read(&taken[1]);
        done(&ground, 1, &taken[1]);
        member.join().unwrap();
        assert_eq!(ground.freed(), [1, 0, 0]);
    });
}

#[test]
fn of_two_groups_the_last_frees_the_message() {
    two_groups(|ground, group, taken| ground.acknowledge(group, taken));
}

/// Position 0 is held, closed, and in the way of position 2, whose cell it has.
#[test]
fn a_held_message_that_is_in_the_way_makes_a_position_void_and_is_freed_once() {
    model(2, || {
        let ground = Ground::new(1, &[Pressure::Lag], 0);
        assert!(ground.publish(0));
        let taken = ground.receive(0, 1).unwrap();
        assert!(ground.publish(1));
        let other = Arc::clone(&ground);
        let member = thread::spawn(move || {
            other.read(&taken);
            other.acknowledge(0, &taken);
        });
        // At 2, or at 3 if that is void.
        assert!(ground.publish(2));
        member.join().unwrap();
        let mut accounted = 0;
        for _ in 0..3 {
            accounted += ground.handle(0, 1);
        }
        assert_eq!((accounted, ground.freed()), (2, [1, 1, 1]));
    });
}

/// A message that is kept as history is retired by a publisher while somebody joins who wants it.
fn joins(spoil: fn(&Ground, Group)) {
    model(3, move || {
        let ground = Ground::new(1, &[], 1);
        assert!(ground.publish(0));
        let other = Arc::clone(&ground);
        let joining = thread::spawn(move || {
            let group = other.log.reserve(0, Pressure::Lag).unwrap();
            other.log.join(group, 0, 1);
            spoil(&other, group);
            let private = Position::new(0);
            match other.log.receive(group, &private, 1) {
                Found::Message(taken) => {
                    other.read(&taken);
                    other.log.acknowledge(group, &taken);
                    other.settle(taken.position);
                }
                Found::Settle { position, .. } => other.settle(position),
                _ => {}
            }
            group
        });
        assert!(ground.publish(1));
        let group = joining.join().unwrap();
        // What is published from now on it gets, or is told of.
        let private = Position::new(0);
        let mut accounted = 0;
        assert!(ground.publish(2));
        loop {
            match ground.log.receive(group, &private, 1) {
                Found::Message(taken) => {
                    ground.read(&taken);
                    accounted += u64::from(taken.block.0 == 2);
                    ground.log.acknowledge(group, &taken);
                    ground.settle(taken.position);
                }
                Found::Lagged(_) | Found::Settle { .. } => {}
                _ => break,
            }
        }
        assert_eq!(accounted, 1);
        assert_eq!(ground.freed(), [1, 1, 0]);
    });
}

#[test]
fn who_joins_beside_a_publisher_gets_what_is_there() {
    joins(|_, _| {});
}

#[test]
fn what_a_dead_member_held_comes_to_another_while_a_publisher_makes_room() {
    model(2, || {
        let ground = Ground::new(1, &[Pressure::Lag], 0);
        assert!(ground.publish(0));
        let taken = ground.receive(0, 1).unwrap();
        let other = Arc::clone(&ground);
        let publisher = thread::spawn(move || assert!(other.publish(1)));
        // Participant 1 has died.
        ground.log.bury(1, |_| 3);
        let again = ground.receive(0, 2).unwrap();
        assert_eq!((again.position, again.block, again.tries()), (taken.position, taken.block, 1));
        ground.read(&again);
        // A late step of the dead is none.
        ground.log.acknowledge(ground.groups[0], &taken);
        ground.acknowledge(0, &again);
        publisher.join().unwrap();
        assert_eq!(ground.handle(0, 2), 1);
        assert_eq!(ground.freed(), [1, 1, 0]);
    });
}

#[test]
fn who_is_put_out_while_he_takes_a_message_has_it_or_nothing() {
    model(3, || {
        let ground = Ground::new(1, &[Pressure::Block], 0);
        assert!(ground.publish(0));
        let other = Arc::clone(&ground);
        let member = thread::spawn(move || other.handle(0, 1));
        let column = ground.log.columns().next().unwrap().1;
        assert!(ground.log.evict(0, column));
        ground.settle(0);
        member.join().unwrap();
        assert_eq!(ground.freed(), [1, 0, 0]);
    });
}

/// A member of a group that blocks looks at position 2, whose cell is held from a lap ago, while that is given back and published anew.
/// `look` is the member's first look, which takes nothing.
fn a_lap(look: fn(&Log, Group, &Position)) {
    model(3, move || {
        let ground = Ground::new(1, &[Pressure::Block], 0);
        assert!(ground.publish(0));
        let taken = ground.receive(0, 1).unwrap();
        assert!(ground.publish(1));
        assert_eq!(ground.handle(0, 1), 1);
        let private = Arc::new(Position::new(2));
        let (other, theirs) = (Arc::clone(&ground), Arc::clone(&private));
        let member = thread::spawn(move || look(&other.log, other.groups[0], &theirs));
        ground.acknowledge(0, &taken);
        assert!(ground.publish(2));
        member.join().unwrap();
        assert!(matches!(
            ground.log.receive(ground.groups[0], &private, 2),
            Found::Message(Taken { position: 2, block: BlockId(2), .. })
        ));
    });
}

#[test]
fn who_looks_while_a_publisher_comes_round_jumps_over_nothing() {
    a_lap(|log, group, private| {
        log.has_work(group, private);
    });
}

/// A message is given back by `give_back`, while the last member of its group leaves.
fn an_end(give_back: fn(&Ground, &Taken)) {
    model(3, move || {
        let ground = Ground::new(1, &[Pressure::Lag], 0);
        assert!(ground.publish(0));
        let taken = ground.receive(0, 1).unwrap();
        let other = Arc::clone(&ground);
        let giving = thread::spawn(move || give_back(&other, &taken));
        let group = ground.groups[0];
        ground.log.leave(group);
        ground.log.forget_returned(group);
        ground.settle(0);
        ground.log.free_columns();
        giving.join().unwrap();
        assert_eq!((ground.freed(), ground.log.column_of(group)), ([1, 0, 0], None));
    });
}

#[test]
fn what_is_given_back_while_its_group_ends_is_freed() {
    an_end(|ground, taken| {
        let group = ground.groups[0];
        if ground.log.give_back(group, taken, 9) == GivenBack::Done {
            ground.settle(taken.position);
            if ground.log.is_left(group) {
                ground.log.free_columns();
            }
        }
    });
}

/// Two make one group join beside a publisher, each of them wherever the other stands. Afterwards one of them takes what there is; another
/// group has had the column before, and has left marks.
#[test]
fn two_make_one_group_join_beside_a_publisher() {
    model(2, || {
        let ground = Ground::new(1, &[Pressure::Lag], 1);
        assert!(ground.publish(0));
        assert_eq!(ground.handle(0, 1), 1);
        ground.log.leave(ground.groups[0]);
        ground.log.free_columns();
        let group = ground.log.reserve(0, Pressure::Block).unwrap();
        let other = Arc::clone(&ground);
        let joining = thread::spawn(move || {
            other.log.join(group, 0, 1);
            match other.log.receive(group, &Position::new(0), 1) {
                Found::Message(taken) => {
                    other.read(&taken);
                    other.log.acknowledge(group, &taken);
                    other.settle(taken.position);
                    vec![taken.position]
                }
                Found::Settle { position, .. } => {
                    other.settle(position);
                    vec![]
                }
                _ => vec![],
            }
        });
        ground.log.join(group, 0, 1);
        // What was there is waited for, if the group is to have it.
        let published = ground.publish(1);
        let mut got = joining.join().unwrap();
        let private = Position::new(0);
        let mut drain = || {
            loop {
                match ground.log.receive(group, &private, 2) {
                    Found::Message(taken) => {
                        ground.read(&taken);
                        got.push(taken.position);
                        ground.log.acknowledge(group, &taken);
                        ground.settle(taken.position);
                    }
                    Found::Nothing => break,
                    Found::Settle { position, .. } => ground.settle(position),
                    Found::Lagged(_) => {}
                    Found::Evicted => panic!("it is there"),
                }
            }
        };
        drain();
        if !published {
            assert!(ground.publish(1));
            drain();
        }
        // It has joined before 1 was published, whoever did it.
        assert!(got.is_sorted() && got.contains(&1), "{got:?}");
        assert_eq!(ground.freed()[1], 0, "it is history");
    });
}

// ---- What must fail ----

#[test]
#[should_panic]
fn who_reads_without_a_mark_reads_what_is_freed() {
    model(3, || {
        let ground = Ground::new(1, &[Pressure::Lag], 0);
        assert!(ground.publish(0));
        let other = Arc::clone(&ground);
        let member = thread::spawn(move || {
            let cell = Log::load(other.log.cell(0));
            if other.log.steps(cell, 0) == OPEN {
                // SAFETY: it is not, which loom is to find.
                other.payloads[0].with(|payload| assert_eq!(unsafe { *payload }, 0));
            }
        });
        assert!(ground.publish(1));
        member.join().unwrap();
    });
}

#[test]
#[should_panic]
fn who_takes_the_block_without_a_look_at_the_marks_takes_it_from_a_reader() {
    model(3, || {
        let ground = Ground::new(1, &[Pressure::Block], 0);
        assert!(ground.publish(0));
        let other = Arc::clone(&ground);
        let member = thread::spawn(move || other.handle(0, 1));
        for unpinned in ground.log.close_all().collect::<Vec<_>>() {
            if ground.log.take(unpinned) {
                ground.free(unpinned.block());
            }
        }
        member.join().unwrap();
    });
}

#[test]
#[should_panic]
fn if_nobody_looks_after_his_own_mark_nobody_frees_the_message() {
    two_groups(|ground, group, taken| {
        ground.settle(taken.position);
        ground.log.acknowledge(ground.groups[group], taken);
    });
}

#[test]
#[should_panic]
fn who_believes_that_he_is_heeded_too_early_reads_what_is_freed() {
    joins(|ground, group| {
        ground.log.lines[group.column].joined.store(Joined::at(group.epoch, 0).0, Ordering::SeqCst);
    });
}

#[test]
#[should_panic]
fn a_claim_that_is_given_up_although_it_was_heeded_loses_a_message_of_a_group_that_blocks() {
    model(3, || {
        let ground = Ground::new(1, &[Pressure::Block], 0);
        // As if it had joined later than it has.
        let (group, line) = (ground.groups[0], &ground.log.lines[0]);
        line.joined.store(Joined::at(group.epoch, 9).0, Ordering::SeqCst);
        line.terms.store(Terms::new(group.epoch, 9, 0).0, Ordering::SeqCst);
        assert!(ground.publish(0));
        let other = Arc::clone(&ground);
        let member = thread::spawn(move || assert!(other.receive(0, 1).is_ok()));
        ground.publish(1);
        member.join().unwrap();
    });
}

#[test]
#[should_panic]
fn who_compares_a_cell_with_a_hint_of_later_jumps_over_a_message() {
    a_lap(|log, _, private| {
        let position = private.get();
        let cell = Log::load(log.cell(log.index(position)));
        if log.steps(cell, position) <= 0 && Log::load(&log.tail_hint) > position {
            private.set(position + 1);
        }
    });
}

#[test]
#[should_panic]
fn what_is_given_back_without_a_look_at_the_group_after_it_is_never_freed() {
    an_end(|ground, taken| {
        let group = ground.groups[0];
        let back = if ground.log.is_active(group) { Mark::returned(1, group.epoch, 0) } else { Mark(0) };
        if back != Mark(0) {
            assert!(Log::change(ground.log.mark(0, group.column), taken.mark.0, back.0));
        } else {
            ground.acknowledge(0, taken);
            ground.log.free_columns();
        }
    });
}
