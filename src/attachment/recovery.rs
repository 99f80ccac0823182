//! Burying the dead: what a participant held comes back, whoever killed it and wherever.
//!
//! Whoever notices takes the dead's lock byte ([`Region::try_bury`](crate::region::mapped::Region::try_bury)), so a dead
//! participant has one reaper at a time, and none when the reaper dies in its turn: the kernel gives the byte back, and the
//! next one starts over. Every step can be repeated. Whoever buries takes all the dead that are to be had, and treats
//! them as one: two of them may name the same thing.
//!
//! 1. **Half-made splits and merges.** Ranges that an intent of the dead names and no head covers become blocks again.
//! 2. **Half-received messages.** A dead lane says that it may have taken a block out of a ring. It has, if the block is
//!    still IN_FLIGHT, no cell names it, and no lane of the living does: looked at in the order intents, cells, intents,
//!    because a living receiver may have taken it a moment ago, and a living sender may be about to put it in. Meanwhile the
//!    block may move on, and round, so the reaper puts its own lane into the word and looks again before it judges
//!    ([`transfer::judge`]). The same for what a dead lane was sending or putting back.
//! 3. **Words.** What the dead had claimed, allocated or cached is freed, and what they gave away and nobody has taken.
//!    Messages that the dead had RECEIVED and not acknowledged, and those of step 2, go back into their channels where
//!    messages come back ([`delivery`](super::delivery)). What it had IN_FLIGHT or PROMISED is kept if a cell names it;
//!    if not, and the intent of no living lane does, it was never sent, or received by the dead, and is freed.
//!    Users' blocks: the marks of the dead go, and what they owned is freed as soon as nobody is in it
//!    ([`blocks`](super::blocks)).
//! 4. **Magazines** of the dead are emptied.
//! 5. **Groups** of broadcasts: what the dead held for a group is done with, or comes back ([`groups`](super::groups)).
//! 6. **Entries** of the directory that the dead was making or taking down.
//! 7. **Permits, partitions, ends, pins and waiters.** Its permits come back, and its partitions of routed channels, unless something is
//!    left for later: whoever has them next must find what came back. Its bits are cleared, what it had begun to drain is
//!    drained ([`ends`](super::ends)), and whoever may now have something to do is woken.
//! 8. Its **lanes** and its **slot** are free.
//!
//! Where the intent of somebody who lives is in the way, that somebody is at work on the same thing just now, or has lost
//! a race for it and does not know it yet. Then nothing can be said, and the burial is left for later: the dead keep their
//! intents and their slot, and the next look tries again.
//!
//! `docs/models/carve.py` and `docs/models/ring.py` are the models of this, with what goes wrong if a look is left out.
//!
//! A process that leaves in good order gives back its own words, ends and lanes in the same way.

use std::collections::HashSet;

use crate::{
    alloc::{
        Block, Worker,
        sector::Sector,
        word::{State, Word},
    },
    attachment::{
        Attachment,
        delivery::Fate,
        directory::{self, End, Kind, Phase},
        ends::Pin,
        seats,
    },
    observe,
    region::{
        lanes::{BlockId, Intent, Lane, LaneId},
        mapped::Burial,
    },
    ring::transfer::{self, Verdict},
    sys::held::Held,
    wake::Direction,
};

/// How often to look again at something that a living lane is working on.
const LOOKS: usize = 3;

impl Attachment {
    /// Buries whoever is dead. Costs a system call per participant that seems to live.
    pub(crate) fn bury_the_dead(&self) {
        let dead = self.region().dead();
        if dead.is_empty() {
            return;
        }
        let burials: Vec<Burial> = dead.into_iter().filter_map(|slot| self.region().try_bury(slot)).collect();
        if burials.is_empty() {
            return;
        }
        let participants: Vec<u16> = burials.iter().map(Burial::slot).collect();
        let span = observe::burying(self.region(), &participants);
        participants.iter().for_each(|slot| observe::death_noticed(self.region(), *slot));
        let unsettled = self.recover(&participants);
        span.left_for_later(unsettled.len());
        for burial in burials {
            if !unsettled.contains(&burial.slot()) {
                let slot = burial.slot();
                burial.complete();
                observe::death_buried(self.region(), slot);
            }
        }
    }

    /// The first thing that a participant does: it buries whoever died in its slot, and everybody else who is dead.
    pub(super) fn begin(&self) {
        if self.region().is_inherited() {
            // What a lane of the living keeps us from settling is settled as soon as that lane goes on. If it is stopped
            // for this long, a range or a message of the predecessor stays lost.
            let me = self.region().me();
            for _ in 0..100 {
                if self.recover(&[me]).is_empty() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            // What it had kept back for that: nobody else will bury it.
            self.recover_ends(me, true);
            self.region().predecessor_is_buried();
        }
        self.bury_the_dead();
        if self.region().is_found_empty() {
            self.quarantine();
        }
    }

    /// Gives back what this process has, before it leaves. Nobody else in it is at work any more.
    pub(super) fn hand_back(&self) {
        let me = self.region().me();
        // From here on all work is done in the base lane. What comes after the words frees blocks, too: whoever else has gone
        // meanwhile has relied on us. In another lane they would be in magazines of somebody who has left.
        seats::put_away(self);
        let lanes: HashSet<LaneId> = self.region().lanes().of(me).collect();
        let mut debts = Vec::new();
        let back = self.with_base(|base| {
            self.allocator().flush(base);
            let back = self.recover_words(&[me], &lanes, &base.lane, &mut debts, |sector, granule, word, _| {
                // Sent by us, and on its way: whoever took it out will say so, or its reaper.
                sector.replace(granule, word, without_owner(word))
            });
            self.allocator().depot().bury(|lane| lanes.contains(&lane));
            back
        });
        drop(debts);
        if back {
            self.wake_everybody();
        }
        self.recover_entries(me);
        self.recover_ends(me, true);
        self.hub.hand_on_duties();
        self.with_base(|base| self.allocator().flush(base));
        for lane in lanes {
            self.region().lanes().clear(lane);
        }
    }

    /// Gives back what dead participants held; returns those of whom something is left for later.
    fn recover(&self, participants: &[u16]) -> HashSet<u16> {
        let lanes: HashSet<LaneId> = participants
            .iter()
            .flat_map(|participant| self.region().lanes().of(*participant))
            // The place of a dead one may be ours by now: what we have taken since is not its.
            .filter(|lane| !self.region().lanes().is_ours(*lane))
            .collect();
        let mut debts = Vec::new();
        // In a lane of its own, which none of the dead has. Without one, in that of all threads without one.
        let unsettled = match self.enlist() {
            Some(mut worker) => {
                let _held = Held::new();
                let unsettled = self.recover_memory(participants, &lanes, &mut worker, &mut debts);
                self.retire(worker);
                unsettled
            }
            None => self.with_base(|worker| {
                // It may be the lane of a predecessor, too, whose magazines are buried.
                self.allocator().flush(worker);
                self.recover_memory(participants, &lanes, worker, &mut debts)
            }),
        };
        // Out of the lane: this wakes tasks.
        drop(debts);
        let owners = unsettled.iter().filter_map(|lane| self.region().lanes().owner(*lane));
        let left_for_later: HashSet<u16> = owners.collect();
        self.persist_partitions();
        for participant in participants {
            self.recover_groups(*participant);
            self.recover_entries(*participant);
            self.recover_ends(*participant, !left_for_later.contains(participant));
        }
        self.unite_all();
        self.wake_everybody();
        for lane in lanes.difference(&unsettled) {
            self.region().lanes().clear(*lane);
        }
        left_for_later
    }

    /// Steps 1 to 4; returns the lanes of which something is left for later. Wakes nobody.
    ///
    /// `debts` are the pins of channels into which something was put back, to be dropped out of the lane.
    fn recover_memory<'a>(
        &'a self,
        participants: &[u16],
        lanes: &HashSet<LaneId>,
        worker: &mut Worker,
        debts: &mut Vec<Pin<'a>>,
    ) -> HashSet<LaneId> {
        let me = &worker.lane;
        let mut unsettled = HashSet::new();
        for lane in lanes {
            let settled = match self.region().lanes().intent(*lane) {
                Intent::Range { sector, granule, len } => self.allocator().sectors().get(sector).is_none_or(|found| {
                    let others = || self.ranges_of_others(lanes, sector);
                    found.adopt(me, granule, len, others, || self.region().lanes().forget_intent(*lane))
                }),
                Intent::Send { block, generation } | Intent::Receive { block, generation } => {
                    self.recover_flight(lanes, me, block, generation, debts)
                }
                Intent::Retry { block, generation } => {
                    self.recover_returned(block, generation);
                    self.recover_flight(lanes, me, block, generation, debts)
                }
                Intent::Guard { .. } => {
                    // Before the words: whoever finds no intent any more finds the marks, or that there are none.
                    self.region().lanes().forget_intent(*lane);
                    true
                }
                Intent::None => true,
            };
            if !settled {
                unsettled.insert(*lane);
            }
        }
        // Only the dead's own words are looked at. What they had sent is in a cell, most often, or was.
        let named = self.blocks_in_rings(debts);
        self.recover_words(participants, lanes, me, debts, |sector, granule, word, debts| {
            let id = BlockId::new(sector.index(), granule);
            if named.contains(&id) {
                // Kept, but the lane will have another owner one day.
                return sector.replace(granule, word, without_owner(word));
            }
            // It was never sent, or somebody has it. Or the word is the mark of a reaper that died, and who is sending it may live:
            // so another look is due at the cells as well.
            if !self.recover_flight(lanes, me, id, word.generation(), debts) {
                unsettled.insert(word.lane());
            } else {
                // In a cell by now, if it is what it was.
                sector.replace(granule, word, without_owner(word));
            }
            true
        });
        self.allocator().depot().bury(|lane| lanes.contains(&lane));
        unsettled
    }

    /// Ranges of a sector that lanes of the living may be working on.
    fn ranges_of_others(&self, dead: &HashSet<LaneId>, sector: usize) -> Vec<(u64, u64)> {
        self.region()
            .lanes()
            .intents()
            .filter_map(|(lane, intent)| match intent {
                Intent::Range { sector: theirs, granule, len } if theirs == sector && !dead.contains(&lane) => {
                    Some((granule, len))
                }
                _ => None,
            })
            .collect()
    }

    /// Finds out what becomes of a flight in which somebody dead has a part, and sees to it; `false` if it is left for later.
    fn recover_flight<'a>(
        &'a self,
        dead: &HashSet<LaneId>,
        me: &Lane,
        id: BlockId,
        generation: u32,
        debts: &mut Vec<Pin<'a>>,
    ) -> bool {
        let mut looks = 0;
        loop {
            let is_named = || self.is_named_by_others(dead, id, generation);
            let in_ring = || self.blocks_in_rings(debts).contains(&id);
            match transfer::judge(self.allocator(), me, id, generation, is_named, in_ring) {
                Verdict::Settled => return true,
                Verdict::Busy => {
                    looks += 1;
                    if looks == LOOKS {
                        return false;
                    }
                    std::thread::yield_now();
                }
                Verdict::Left(word) => {
                    if self.settle_flight(dead, me, id, word, debts) {
                        return true;
                    }
                }
            }
        }
    }

    /// What becomes of a message that is in nobody's hands, and whose word nobody but the caller may change: it comes back, if one
    /// of the dead had received it or was putting it back; if not, it was never sent. `false` if its word has changed.
    fn settle_flight<'a>(
        &'a self,
        dead: &HashSet<LaneId>,
        me: &Lane,
        id: BlockId,
        word: Word,
        debts: &mut Vec<Pin<'a>>,
    ) -> bool {
        // One that was put back, or among the dead letters of a plain channel, was sent, whatever its word says. One that was
        // sent or received in a plain channel was not, or is nobody's.
        let names = |lane: &&LaneId| match self.region().lanes().intent(**lane) {
            Intent::Retry { block, generation } => block == id && generation == word.generation(),
            _ => word.state() == State::Promised && self.is_named_by(**lane, id, word.generation()),
        };
        match dead.iter().find(names) {
            // Nobody has seen it, or it was counted before.
            Some(lane) => self.put_back(me, id, word, false, self.number_of(*lane), debts).0 != Fate::Changed,
            None => {
                let found = self.allocator().word_of(id);
                found.is_none_or(|(sector, _)| self.seize(sector, me, id.granule(), word))
            }
        }
    }

    /// Step 3. `in_flight` says what becomes of a word that the dead had sent; `false` if it has changed in the meantime. Returns whether
    /// messages came back, of which the caller tells everybody.
    fn recover_words<'a>(
        &'a self,
        participants: &[u16],
        lanes: &HashSet<LaneId>,
        me: &Lane,
        debts: &mut Vec<Pin<'a>>,
        mut in_flight: impl FnMut(&Sector, u64, Word, &mut Vec<Pin<'a>>) -> bool,
    ) -> bool {
        let dead = |lane: LaneId| lanes.contains(&lane);
        let mut received = Vec::new();
        for sector in self.allocator().sectors() {
            for granule in 0..sector.granules() {
                loop {
                    let word = sector.word(granule);
                    let settled = match word.state() {
                        State::Claimed | State::Allocated | State::Loose if dead(word.lane()) => {
                            self.seize(sector, me, granule, word)
                        }
                        State::Cached if self.allocator().depot().is_owned_by(word.owner(), dead) => {
                            self.seize(sector, me, granule, word)
                        }
                        State::InFlight | State::Promised if dead(word.lane()) => {
                            in_flight(sector, granule, word, debts)
                        }
                        State::Received if dead(word.lane()) => {
                            let id = BlockId::new(sector.index(), granule);
                            if self.allocator().is_whole(id, word) {
                                let block = Block { id, len: word.len(), generation: word.generation() };
                                received.push((self.trailer(block).rank(), id, word));
                            }
                            true
                        }
                        State::Returned if dead(word.lane()) => sector.replace(granule, word, without_owner(word)),
                        State::Shared | State::Doomed => {
                            self.recover_block(sector, me, granule, word, participants, dead)
                        }
                        State::Free => {
                            sector.repair_hint(granule, word);
                            true
                        }
                        State::Sentinel => {
                            sector.open_up(me, granule);
                            true
                        }
                        _ => true,
                    };
                    if settled || sector.word(granule) == word {
                        break;
                    }
                }
            }
        }
        // In the order in which they would have been received.
        received.sort_by_key(|(rank, _, _)| *rank);
        let back = !received.is_empty();
        for (_, id, word) in received {
            self.put_back(me, id, word, true, None, debts);
        }
        back
    }

    /// Takes the block of somebody who is dead, wipes it if the segment wants that, and frees it; `false` if its word has
    /// changed.
    pub(super) fn seize(&self, sector: &Sector, me: &Lane, granule: u64, word: Word) -> bool {
        let block = Block { id: BlockId::new(sector.index(), granule), len: word.len(), generation: word.generation() };
        sector.seize(me, granule, word, || self.wipe(block))
    }

    /// The blocks that full cells name, in all channels.
    fn blocks_in_rings<'a>(&'a self, debts: &mut Vec<Pin<'a>>) -> HashSet<BlockId> {
        let mut named = HashSet::new();
        self.each_in_rings(debts, |block| {
            named.insert(block);
        });
        named
    }

    /// Calls `each` with what every full cell names, in all channels.
    ///
    /// One that is being taken down by somebody stays, with its ring, for as long as its state does. It has no messages that can
    /// be received any more; but what it drops is in its cells until then.
    pub(super) fn each_in_rings<'a>(&'a self, debts: &mut Vec<Pin<'a>>, mut each: impl FnMut(BlockId)) {
        for index in 0..self.directory().len() {
            let entry = self.directory().entry(index);
            loop {
                let found = directory::state(entry);
                let carries = matches!(self.directory().kind(index), Kind::Channel | Kind::Broadcast);
                let (pin, is_live) = match found.phase() {
                    // Nothing is ever in its cells. A pin would only keep it in place if this reaper stood still.
                    Phase::Live if !carries && directory::state(entry) == found => break,
                    Phase::Live => (self.pin_later(index, |_| true, debts), true),
                    Phase::Dead => (None, false),
                    Phase::Free | Phase::Building => break,
                };
                let mut named = Vec::new();
                if let Some(ring) = self.ring_of(index).filter(|_| pin.is_some() == is_live) {
                    ring.blocks(|block| named.push(block));
                    if let Some(recall) = self.recall_of(index) {
                        recall.blocks(|block| named.push(block));
                    }
                }
                if pin.is_some() || directory::state(entry) == found {
                    named.into_iter().for_each(&mut each);
                    pin.into_iter().for_each(|pin| pin.let_go(debts));
                    break;
                }
            }
        }
    }

    /// Whether a lane of the living is putting the block into a ring, or taking it out, as far as it knows.
    fn is_named_by_others(&self, dead: &HashSet<LaneId>, id: BlockId, generation: u32) -> bool {
        self.region().lanes().intents().any(|(lane, intent)| {
            !dead.contains(&lane)
                && matches!(intent,
                    Intent::Send { block, generation: of } | Intent::Receive { block, generation: of }
                    | Intent::Retry { block, generation: of }
                    if block == id && of == generation)
        })
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

    /// The participant has no ends of channels any more, and waits for nothing. Unless all that it had received has come back,
    /// it keeps its partitions.
    fn recover_ends(&self, participant: u16, settled: bool) {
        self.memory_parked.clear(participant);
        self.line().forget(participant);
        // Groups first: their broadcast stays as long as the participant has an end of it.
        let (groups, others): (Vec<usize>, Vec<usize>) =
            (0..self.directory().len()).partition(|index| self.directory().kind(*index) == Kind::Group);
        for index in groups.into_iter().chain(others) {
            let entry = self.directory().entry(index);
            // Also where there is no channel: what it has done to one that is gone by now would be taken for its share in the next.
            for direction in [Direction::Receive, Direction::Send, Direction::Closed] {
                self.parked(index, direction).clear(participant);
            }
            let pin = self.pin(index, |_| true);
            if pin.is_some() && !settled && self.directory().kind(index) == Kind::Routed {
                continue;
            }
            if pin.is_some() {
                self.forget_routes(index, participant);
                if self.forget_permits(index, participant) {
                    self.settle_signals(index);
                }
            }
            for end in [End::Sender, End::Receiver] {
                end.clear(entry, participant);
            }
            let forgotten = self.forget_pin(index, participant);
            drop(pin);
            drop(forgotten);
        }
        // After its bits, see there.
        self.hub.hand_on_marks(participant);
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
}

/// The word of a message whose sender is gone.
fn without_owner(word: Word) -> Word {
    word.owned_by(LaneId::NOBODY)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::{
        attachment::{Anchor, ChannelRequest, format},
        region::{config::Config, mapped::Region},
    };

    fn ground() -> Anchor {
        // So few that a ring of nothing is short enough for a magazine.
        let config = Config { size: Some(2 << 20), participants: 8, ..Config::default() };
        Attachment::attach(Region::anonymous(&config, format).unwrap()).unwrap().unwrap()
    }

    fn another(attachment: &Attachment) -> Anchor {
        let fd = attachment.region().fd().unwrap().try_clone_to_owned().unwrap();
        Attachment::attach(Region::from_fd(&fd).unwrap()).unwrap().unwrap()
    }

    /// The thread has a seat, and a magazine with something in it.
    fn fill_a_magazine(attachment: &Attachment) {
        let block = attachment.with_worker(|worker| attachment.allocate(worker, 64, 1)).unwrap();
        attachment.free(block);
    }

    /// The channel's last end goes while who leaves has a pin, looking whether the channel is to go: it is, then, by the leaver's hand.
    fn leaves_what_it_has_to_take_down(stays: &Attachment, leaves: Anchor) {
        let request = ChannelRequest::of_nothing("brief", Kind::Notify, None);
        let port = stays.open_channel(&request, &[End::Sender]).unwrap();
        let index = port.index();
        std::mem::forget(leaves.pin(index, |_| true).unwrap());
        port.leave(End::Sender);
        drop(port);
        assert_eq!(directory::state(stays.directory().entry(index)).phase(), Phase::Live);
        // It has the bit, and is about to look again.
        leaves.pins.lock().clear();
        drop(leaves);
        assert_eq!(directory::state(stays.directory().entry(index)).phase(), Phase::Free);
    }

    #[test]
    fn what_is_freed_while_leaving_is_in_no_magazine_of_who_has_left() {
        let stays = ground();
        for has_seat in [false, true, true] {
            let leaves = another(&stays);
            if has_seat {
                fill_a_magazine(&leaves);
            }
            leaves_what_it_has_to_take_down(&stays, leaves);
            assert_eq!(stays.check().problems, Vec::<String>::new(), "with a seat: {has_seat}");
            let lanes = stays.region().lanes();
            let participants = stays.region().header().params.participants as u16;
            assert!((1..participants).all(|gone| lanes.of(gone).count() == 1), "a lane is still taken");
        }
    }

    #[test]
    fn what_is_freed_in_leaving_is_there_for_others() {
        let stays = ground();
        let free = || stays.stats().free_bytes();
        leaves_what_it_has_to_take_down(&stays, another(&stays));
        let before = free();
        for _ in 0..300 {
            leaves_what_it_has_to_take_down(&stays, another(&stays));
        }
        assert_eq!((stays.check().problems, free()), (Vec::new(), before));
    }

    #[test]
    fn who_buries_its_predecessor_keeps_the_lanes_that_it_has_taken_itself() {
        let stays = ground();
        let (mine, theirs) = (another(&stays), another(&stays));
        fill_a_magazine(&mine);
        fill_a_magazine(&theirs);
        let lanes: Vec<LaneId> = mine.region().lanes().of(mine.region().me()).collect();
        assert!(lanes.len() > 1);
        mine.recover(&[mine.region().me()]);
        assert_eq!(mine.region().lanes().of(mine.region().me()).collect::<Vec<_>>()[..lanes.len()], lanes);
        assert_eq!(stays.check().problems, Vec::<String>::new());
    }
}
