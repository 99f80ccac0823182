//! Burying the dead: what a participant held comes back, whoever killed it and wherever.
//!
//! Whoever notices takes the dead's lock byte ([`Region::try_bury`]), so there is one reaper at a time, and none at all
//! when the reaper dies in its turn: the kernel gives the byte back, and the next one starts over. Every step can be
//! repeated. The order is what makes it right:
//!
//! 1. **Half-made splits and merges.** Ranges that an intent of the dead names and no head covers become blocks again.
//! 2. **Entries** that the dead was making or taking down.
//! 3. **Words.** What the dead had claimed, allocated or cached is freed. What it had IN_FLIGHT is kept if a cell names
//!    it, or the intent of another lane; else it was on its way in or out, and is freed.
//! 4. **Intents** of the dead are cleared, its magazines emptied, its lanes given back.
//! 5. **Ends and waiters.** Its bits are cleared, and whoever may now have something to do is woken.
//! 6. The slot is free.
//!
//! A process that leaves in good order does the same for itself, so there is one way out.

use std::collections::HashSet;

use crate::{
    alloc::{
        Worker,
        word::{State, Word},
    },
    attachment::{
        Attachment,
        directory::{self, End, Phase},
    },
    notify::Direction,
    segment::lanes::{BlockId, Intent, Lane, LaneId},
};

impl Attachment {
    /// Buries whoever is dead. Costs a system call per participant that seems to live.
    pub(crate) fn bury_the_dead(&self) {
        for slot in self.region().dead() {
            // In a lane of its own: on the way, channels are cleaned in the thread's. Without one, somebody else will.
            let Some(mut worker) = self.enlist() else { return };
            if let Some(burial) = self.region().try_bury(slot) {
                let lanes = self.region().lanes().of(slot).collect();
                self.recover(slot, &lanes, &mut worker);
                self.wake_everybody();
                burial.complete();
            }
            self.retire(worker);
        }
    }

    /// The first thing that a participant does: it buries whoever died in its slot, and everybody else who is dead.
    pub(super) fn begin(&self) {
        if self.region().is_inherited() {
            let lanes = self.region().lanes().of(self.region().me()).collect();
            // Not in the base lane: its intent is the predecessor's.
            if let Some(mut worker) = self.enlist() {
                self.recover(self.region().me(), &lanes, &mut worker);
                self.retire(worker);
            }
            self.wake_everybody();
        }
        self.bury_the_dead();
    }

    /// Gives back what this process has, before it leaves.
    pub(super) fn hand_back(&self) {
        let me = self.region().me();
        let lanes = self.region().lanes().of(me).collect();
        // Nobody else in this process is at work any more.
        self.recover(me, &lanes, &mut Worker::new(self.region().lanes().base()));
    }

    fn recover(&self, participant: u16, lanes: &HashSet<LaneId>, worker: &mut Worker) {
        let me = &worker.lane;
        for lane in lanes {
            if let Intent::Range { sector, granule, len } = self.region().lanes().intent(*lane)
                && let Some(found) = self.allocator().sectors().get(sector)
            {
                found.adopt(me, granule, len, || self.ranges_of_others(*lane, sector));
            }
        }
        self.recover_entries(participant);
        self.recover_words(lanes, me);
        self.allocator().depot().bury(|lane| lanes.contains(&lane));
        for lane in lanes {
            self.region().lanes().clear(*lane);
        }
        self.hub.clear_dead(participant);
        self.memory_parked.clear(participant);
        for index in 0..self.directory().len() {
            let entry = self.directory().entry(index);
            if directory::state(entry).phase() == Phase::Live {
                for direction in [Direction::Receive, Direction::Send, Direction::Closed] {
                    self.parked(index, direction).clear(participant);
                }
                for end in [End::Sender, End::Receiver] {
                    end.clear(entry, participant);
                }
                self.review(index);
            }
        }
    }

    /// Somebody has died, and may have swallowed any wake.
    fn wake_everybody(&self) {
        for index in 0..self.directory().len() {
            if directory::state(self.directory().entry(index)).phase() == Phase::Live {
                self.wake_all(index, &[Direction::Receive, Direction::Send, Direction::Closed]);
            }
        }
        self.memory.wake_all();
    }

    /// Ranges of a sector that other lanes may be working on, and that are theirs to finish or to be buried for.
    ///
    /// Where two lanes are dead and name the same range, the one of the lower participant has it: its burial does not
    /// look at the other, and the other's leaves it alone.
    fn ranges_of_others(&self, lane: LaneId, sector: usize) -> Vec<(u64, u64)> {
        let lanes = self.region().lanes();
        let mine = lanes.owner(lane);
        lanes
            .intents()
            .filter_map(|(other, intent)| match intent {
                Intent::Range { sector: theirs, granule, len } if other != lane && theirs == sector => {
                    let owner = lanes.owner(other);
                    let yields = owner > mine && owner.is_some_and(|owner| self.region().is_dead(owner));
                    (!yields).then_some((granule, len))
                }
                _ => None,
            })
            .collect()
    }

    /// Finishes or undoes what the participant was doing to entries of the directory.
    fn recover_entries(&self, participant: u16) {
        // An entry that is named by the register becomes live, whoever made it.
        self.directory().settle();
        for index in 0..self.directory().len() {
            let state = directory::state(self.directory().entry(index));
            if matches!(state.phase(), Phase::Building | Phase::Dead) && state.participant() == participant {
                self.dismantle(index);
            }
        }
    }

    /// Frees what the dead had, and what nobody will come for.
    fn recover_words(&self, lanes: &HashSet<LaneId>, me: &Lane) {
        let dead = |lane: LaneId| lanes.contains(&lane);
        // Blocks that the dead was taking out of a ring: their words may still name the sender, whoever that is.
        let received: HashSet<(BlockId, u32)> = lanes
            .iter()
            .filter_map(|lane| match self.region().lanes().intent(*lane) {
                Intent::Receive { block, generation } => Some((block, generation)),
                _ => None,
            })
            .collect();
        // A live sender sets its intent before the word, and clears it after the cell; a live receiver sets its intent
        // before it clears the cell, and changes the word before it clears the intent. So this look at the cells comes
        // first, the look at the intents second, and the word last, by a CAS.
        let named = self.blocks_in_rings();
        for (index, sector) in self.allocator().sectors().iter().enumerate() {
            for granule in 0..sector.granules() {
                let word = sector.word(granule);
                let id = BlockId::new(index, granule);
                let lost = match word.state() {
                    State::Claimed | State::Allocated => dead(word.lane()),
                    State::Cached => self.allocator().depot().is_owned_by(word.owner(), dead),
                    State::InFlight if dead(word.lane()) || received.contains(&(id, word.generation())) => {
                        !named.contains(&id) && !self.is_on_its_way(id, word, dead)
                    }
                    _ => false,
                };
                if lost {
                    sector.seize(me, granule, word);
                } else if word.state() == State::InFlight && dead(word.lane()) {
                    // Kept, but the lane will have another owner one day.
                    let kept = Word::in_flight(LaneId::NOBODY, word.len(), word.generation());
                    sector.replace(granule, word, kept);
                } else if word.is_free() {
                    sector.repair_hint(granule, word);
                }
            }
        }
    }

    /// The blocks that full cells name, in all channels.
    fn blocks_in_rings(&self) -> HashSet<BlockId> {
        let mut named = HashSet::new();
        for index in 0..self.directory().len() {
            if matches!(directory::state(self.directory().entry(index)).phase(), Phase::Live | Phase::Dead)
                && let Some(ring) = self.ring_of(index)
            {
                ring.blocks(|block| {
                    named.insert(block);
                });
            }
        }
        named
    }

    /// Whether a lane that is not dead is putting the block into a ring, or taking it out.
    fn is_on_its_way(&self, id: BlockId, word: Word, dead: impl Fn(LaneId) -> bool) -> bool {
        self.region().lanes().intents().any(|(lane, intent)| {
            !dead(lane)
                && matches!(intent, Intent::Send { block, generation } | Intent::Receive { block, generation }
                    if block == id && generation == word.generation())
        })
    }
}
