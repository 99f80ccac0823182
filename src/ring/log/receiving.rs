//! Receiving: what a member finds, takes, and is done with.

use super::*;

impl Log {
    /// What there is for a group, beginning at `private`, which is raised over what the group has taken.
    fn look(&self, group: Group, private: &Position) -> Seen {
        let mut position = private.get().max(self.start(group));
        for _ in 0..self.patience() {
            private.set(position);
            let index = self.index(position);
            let mut cell = Self::load(self.cell(index));
            let mut steps = self.steps(cell, position);
            if steps <= 0 {
                let hint = Self::load(&self.tail_hint);
                if hint <= position {
                    return Seen::Nothing;
                }
                // I6. A publisher may have filled the cell since: the hint speaks of what it says now.
                cell = Self::load(self.cell(index));
                steps = self.steps(cell, position);
                if steps <= 0 {
                    // Only who slept for too long has so much to catch up with.
                    let oldest = hint.saturating_sub(self.len());
                    if self.has_skipped_before(group, position, oldest) {
                        return Seen::Skipped;
                    }
                    position = oldest.max(position + 1);
                    continue;
                }
            }
            let mark = Mark(Self::load(self.mark(index, group.column)));
            if mark.state(group.epoch) == State::Skipped {
                return Seen::Skipped;
            }
            if steps == OPEN && !mark.has_taken(group.epoch, self.lap(position)) {
                return Seen::Open { position, cell, mark };
            }
            if mark.wants(group.epoch, self.lap(position)) {
                return Seen::Gone { position, mark };
            }
            // Taken; or closed, and void, or gone before the group joined; or gone by laps. An empty
            // cell was at the lap before. What stands less than a lap before that may be open still:
            // a void position is emptied as soon as nobody holds its block.
            let emptied = if steps % 4 == 0 { self.len() } else { 0 };
            let last = self.at(position, steps).saturating_sub(emptied);
            let oldest = last.saturating_add(1).saturating_sub(self.len());
            if self.has_skipped_before(group, position, oldest) {
                return Seen::Skipped;
            }
            position = position.saturating_add(1).max(oldest);
        }
        Seen::Nothing
    }

    /// Whether something was skipped that a member would not come by if it went on from a position to the oldest that is there.
    /// All before that is taken by now.
    fn has_skipped_before(&self, group: Group, position: u64, oldest: u64) -> bool {
        oldest > position.saturating_add(1)
            && (0..self.cells.len())
                .any(|index| Mark(Self::load(self.mark(index, group.column))).state(group.epoch) == State::Skipped)
    }

    /// Whether a member would find something other than nothing.
    pub(crate) fn has_work(&self, group: Group, private: &Position) -> bool {
        !self.is_active(group)
            || Self::load(&self.lines[group.column].returned) & 1 == 1
            || !matches!(self.look(group, private), Seen::Nothing)
    }

    /// Takes the next message for a group.
    pub(crate) fn receive(&self, group: Group, private: &Position, me: u16) -> Found {
        if !self.is_active(group) {
            return Found::Evicted;
        }
        if Self::load(&self.lines[group.column].returned) & 1 == 1
            && let Some(found) = self.take_returned(group, me)
        {
            return found;
        }
        loop {
            match self.look(group, private) {
                Seen::Nothing => return Found::Nothing,
                Seen::Skipped => {
                    let missed = self.count_missed(group);
                    if missed > 0 {
                        return Found::Lagged(missed);
                    }
                }
                // Closed around the join by who did not know of the group.
                Seen::Gone { position, mark } => {
                    let done = Mark::new(State::Done, 0, group.epoch, self.lap(position));
                    if Self::change(self.mark(self.index(position), group.column), mark.0, done.0) {
                        return Found::Lagged(1);
                    }
                }
                Seen::Open { position, cell, mark } => {
                    let (index, lap) = (self.index(position), self.lap(position));
                    let word = self.mark(index, group.column);
                    let held = Mark::held(me, 0, group.epoch, lap);
                    let is_known = self.joined(group.column, group.epoch).is_some_and(|joined| position >= joined);
                    let claimed = if is_known { held } else { Mark::claimed(me, group.epoch, lap) };
                    if !Self::change(word, mark.0, claimed.0) {
                        continue;
                    }
                    // I1.
                    let is_safe = Self::load(self.cell(index)) == cell || is_known && self.is_active(group);
                    if is_safe && (is_known || Self::change(word, claimed.0, held.0)) {
                        private.set(position.wrapping_add(1));
                        return Found::Message(Taken { position, block: BlockId(cell as u32), mark: held });
                    }
                    // Gone, and missed if the group is to have messages still. It is told at once: others have passed the mark.
                    Self::change(word, claimed.0, Mark::new(State::Done, 0, group.epoch, lap).0);
                    return Found::Settle { position, missed: u64::from(!is_known) };
                }
            }
        }
    }

    /// How many messages were skipped that no member was told of. Whoever is killed in here has been told of those that it has
    /// counted.
    fn count_missed(&self, group: Group) -> u64 {
        let mut missed = words::take_from(&self.lines[group.column].missed, group.epoch);
        for index in 0..self.cells.len() {
            let word = self.mark(index, group.column);
            loop {
                let mark = Mark(Self::load(word));
                if mark.state(group.epoch) != State::Skipped {
                    break;
                }
                if Self::change(word, mark.0, Mark::new(State::Done, 0, group.epoch, mark.lap()).0) {
                    missed = missed.saturating_add(mark.skipped());
                    break;
                }
            }
        }
        missed
    }

    /// The position of what a mark is about, which is before `tail`.
    pub(super) fn position_of(&self, index: usize, mark: Mark, tail: u64) -> u64 {
        let last = self.lap(tail);
        let lap = last.wrapping_sub(last.wrapping_sub(mark.lap()) & LAP);
        lap << self.log | index as u64
    }

    /// Takes the oldest message that came back; or says how many were missed, if some were where no member comes by.
    fn take_returned(&self, group: Group, me: u16) -> Option<Found> {
        let returned = &self.lines[group.column].returned;
        loop {
            let seen = Self::load(returned);
            let marks: Vec<(usize, Mark)> = (0..self.cells.len())
                .map(|index| (index, Mark(Self::load(self.mark(index, group.column)))))
                .filter(|(_, mark)| matches!(mark.state(group.epoch), State::Returned | State::Skipped))
                .collect();
            // I6: after the marks, so that none of them is of a lap after it.
            let tail = self.tail();
            let found = marks
                .into_iter()
                .map(|(index, mark)| (self.position_of(index, mark, tail), index, mark))
                .min_by_key(|(position, _, mark)| (mark.state(group.epoch) != State::Returned, *position));
            let Some((position, index, mark)) = found else {
                // It fails if another has come back since we began to look.
                Self::change(returned, seen, seen & !1);
                return None;
            };
            if mark.state(group.epoch) == State::Skipped {
                match self.count_missed(group) {
                    0 => continue,
                    missed => return Some(Found::Lagged(missed)),
                }
            }
            let held = Mark::held(me, mark.count(), group.epoch, mark.lap());
            if Self::change(self.mark(index, group.column), mark.0, held.0) {
                // Pinned all the time: the cell has named it since.
                let block = BlockId(Self::load(self.cell(index)) as u32);
                return Some(Found::Message(Taken { position, block, mark: held }));
            }
        }
    }

    /// The group is done with a message that the caller holds: settle its position.
    #[cfg_attr(crash_points, track_caller)]
    pub(crate) fn acknowledge(&self, group: Group, taken: &Taken) {
        let done = Mark::new(State::Done, 0, group.epoch, taken.mark.lap());
        Self::change(self.mark(self.index(taken.position), group.column), taken.mark.0, done.0);
    }

    /// A message comes back, or is done with if it was delivered `most` times. (0: it never comes back.)
    pub(crate) fn give_back(&self, group: Group, taken: &Taken, most: u64) -> GivenBack {
        let tries = taken.mark.count().saturating_add(1);
        let lap = taken.mark.lap();
        let word = self.mark(self.index(taken.position), group.column);
        let comes_back = u64::from(tries) < most && self.is_active(group);
        let to = if comes_back {
            Mark::returned(tries, group.epoch, lap)
        } else {
            Mark::new(State::Done, 0, group.epoch, lap)
        };
        if !Self::change(word, taken.mark.0, to.0) {
            return GivenBack::Changed;
        }
        let line = &self.lines[group.column];
        if !comes_back {
            if most > 0 {
                words::add_to(&line.discarded, group.epoch, 1);
            }
            return GivenBack::Done;
        }
        line.has_returned();
        // I7. Whoever ends the group may have looked for what came back before this was there.
        if self.is_active(group) {
            return GivenBack::Waits;
        }
        // Who ends it, or a member, has been quicker if this fails: they settle it, and so may the caller.
        Self::change(word, to.0, Mark::new(State::Done, 0, group.epoch, lap).0);
        GivenBack::Done
    }

    /// Messages that were delivered as often as they may be.
    pub(crate) fn discarded(&self, group: Group) -> u64 {
        words::number_of(&self.lines[group.column].discarded, group.epoch)
    }

    /// Messages that wait for a group, as far as `private` knows.
    pub(crate) fn waiting(&self, group: Group, private: &Position) -> u64 {
        let tail = self.tail();
        let from = private.get().max(self.start(group)).max(tail.saturating_sub(self.len()));
        let open = (from..tail).filter(|position| {
            let index = self.index(*position);
            self.steps(Self::load(self.cell(index)), *position) == OPEN
                && !Mark(Self::load(self.mark(index, group.column))).has_taken(group.epoch, self.lap(*position))
        });
        open.count() as u64
    }

    /// Whether members other than the participant hold something for the group, or something came back.
    pub(crate) fn is_held_by_others(&self, group: Group, me: u16) -> bool {
        (0..self.cells.len()).any(|index| {
            let mark = Mark(Self::load(self.mark(index, group.column)));
            match mark.state(group.epoch) {
                State::Held | State::Claimed => mark.participant() != me,
                State::Returned => true,
                _ => false,
            }
        })
    }
}
