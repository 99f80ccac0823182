//! Burying the dead: what a participant held comes back, whoever killed it and wherever.
//!
//! Whoever notices takes the dead's lock byte ([`Region::try_bury`]), so there is one reaper at a time, and none at all
//! when the reaper dies in its turn: the kernel gives the byte back, and the next one starts over. Every step can be
//! repeated. The order is what makes it right:
//!
//! 1. **Half-made splits and merges.** Ranges that an intent of the dead names and no head covers become blocks again.
//! 2. **Entries** that the dead was making or taking down.
//! 3. **Words.** What the dead had claimed, allocated or cached is freed. What it had IN_FLIGHT is kept if a cell names
//!    it; else it was on its way in or out, and is freed unless the intent of another lane names it.
//! 4. **Intents** of the dead are cleared, its magazines emptied, its lanes given back.
//! 5. **Ends and waiters.** Its bits are cleared, and whoever may now have something to do is woken.
//! 6. The slot is free.
//!
//! A process that leaves in good order does the same for itself, so there is one way out.

use std::collections::HashSet;

use crate::{
    alloc::word::{State, Word},
    attachment::{
        Attachment,
        directory::{self, End, Phase},
    },
    segment::{
        lanes::{BlockId, Intent, LaneId},
        layout::SECTORS,
    },
};

impl Attachment {
    /// Buries whoever is dead. Costs a system call per participant that seems to live.
    pub(crate) fn bury_the_dead(&self) {
        for slot in self.region().dead() {
            if let Some(burial) = self.region().try_bury(slot) {
                self.recover(slot);
                burial.complete();
            }
        }
    }

    /// Gives back what this process has, before it leaves.
    pub(super) fn hand_back(&self) {
        self.recover(self.region().me());
    }

    fn recover(&self, participant: u16) {
        let lanes: HashSet<LaneId> = self.region().lanes().of(participant).collect();
        let dead = |lane: LaneId| lanes.contains(&lane);
        self.with_base(|worker| {
            let me = &worker.lane;
            for lane in &lanes {
                if let Intent::Range { sector, granule, len } = self.region().lanes().intent(*lane) {
                    if sector < SECTORS {
                        self.allocator().sectors()[sector].adopt(me, granule, len, || {
                            self.region()
                                .lanes()
                                .intents()
                                .filter(|(other, _)| other != lane)
                                .filter_map(move |(_, intent)| match intent {
                                    Intent::Range { sector: other, granule, len } if other == sector => Some((granule, len)),
                                    _ => None,
                                })
                                .collect()
                        });
                    }
                }
            }
        });
        self.recover_entries(participant);
        self.recover_words(&lanes, dead);
        self.allocator().depot().bury(dead);
        for lane in &lanes {
            self.region().lanes().clear(*lane);
        }
        self.hub.clear_dead(participant);
        self.memory_parked().clear(participant);
        for index in 0..self.directory().len() {
            let entry = self.directory().entry(index);
            if directory::state(entry).phase() != Phase::Live {
                continue;
            }
            self.clear_parked(index, participant);
            for end in [End::Sender, End::Receiver] {
                end.clear(entry, participant);
            }
            self.review(index);
            self.wake_where_there_is_work(index);
        }
        self.memory.wake_all();
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
    fn recover_words(&self, lanes: &HashSet<LaneId>, dead: impl Fn(LaneId) -> bool + Copy) {
        // Blocks that the dead was taking out of a ring: their words may still name the sender, whoever that is.
        let received: HashSet<BlockId> = lanes
            .iter()
            .filter_map(|lane| match self.region().lanes().intent(*lane) {
                Intent::Receive { block, .. } => Some(block),
                _ => None,
            })
            .collect();
        for (index, sector) in self.allocator().sectors().iter().enumerate() {
            for granule in 0..sector.granules() {
                let word = sector.word(granule);
                let id = BlockId::new(index, granule);
                let mine = match word.state() {
                    State::Claimed | State::Allocated => dead(word.lane()),
                    State::Cached => self.allocator().depot().is_owned_by(word.owner(), dead),
                    State::InFlight if dead(word.lane()) || received.contains(&id) => self.is_lost(id, word, dead),
                    _ => false,
                };
                if mine {
                    self.with_base(|worker| sector.seize(&worker.lane, granule, word));
                } else if word.is_free() {
                    sector.repair_hint(granule, word);
                }
            }
        }
    }

    /// Whether a block whose word says IN_FLIGHT is on its way nowhere.
    fn is_lost(&self, id: BlockId, word: Word, dead: impl Fn(LaneId) -> bool) -> bool {
        // A live sender sets its intent before the word, and clears it after the cell; a live receiver sets its intent
        // before it clears the cell, and changes the word before it clears the intent. So: cells, then intents, then
        // (in `seize`, by CAS) the word once more.
        let mut named = false;
        for index in 0..self.directory().len() {
            if matches!(directory::state(self.directory().entry(index)).phase(), Phase::Live | Phase::Dead) {
                if let Some(ring) = self.ring_of(index) {
                    ring.blocks(|block| named |= block == id);
                }
            }
        }
        let on_its_way = self.region().lanes().intents().any(|(lane, intent)| {
            !dead(lane)
                && matches!(intent, Intent::Send { block, generation } | Intent::Receive { block, generation }
                    if block == id && generation == word.generation())
        });
        if named && dead(word.lane()) {
            // Kept, but the lane will have another owner one day.
            let sector = &self.allocator().sectors()[id.sector()];
            sector.replace(id.granule(), word, Word::in_flight(LaneId::NOBODY, word.len(), word.generation()));
        }
        !named && !on_its_way
    }
}
