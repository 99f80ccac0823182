//! Who has which column: groups that join, leave, are put out, and whose members die.

use super::*;

impl Log {
    pub(crate) fn columns(&self) -> impl Iterator<Item = (usize, Column)> + '_ {
        self.columns.iter().enumerate().map(|(index, word)| (index, Column(Self::load(word))))
    }

    pub(super) fn active(&self) -> impl Iterator<Item = (usize, Column)> + '_ {
        self.columns().filter(|(_, column)| column.phase() == Phase::Active)
    }

    /// The directory entries of the groups that see what is published now.
    pub(crate) fn entries(&self) -> impl Iterator<Item = usize> + '_ {
        self.active().map(|(_, column)| column.entry())
    }

    /// The column, if the group still has it.
    pub(crate) fn column_of(&self, group: Group) -> Option<Column> {
        let column = Column(Self::load(self.columns.get(group.column)?));
        (column.epoch() == group.epoch && column.phase() != Phase::Free).then_some(column)
    }

    /// Whether the group is there, and was not put out.
    pub(crate) fn is_active(&self, group: Group) -> bool {
        self.column_of(group).is_some_and(|column| column.phase() == Phase::Active)
    }

    /// A column that somebody has reserved for that group.
    pub(crate) fn reserved_for(&self, entry: usize, pressure: Pressure) -> Option<Group> {
        self.columns()
            .find(|(_, column)| {
                column.phase() == Phase::Joining && column.entry() == entry && column.pressure() == pressure
            })
            .map(|(index, column)| Group { column: index, epoch: column.epoch() })
    }

    /// Reserves a free column for the group of that entry; `None` if there is none. Nobody writes beside it before it is named.
    pub(crate) fn reserve(&self, entry: usize, pressure: Pressure) -> Option<Group> {
        self.columns().find_map(|(index, column)| {
            let reserved = column.reserved(pressure, entry);
            (column.phase() == Phase::Free && Self::change(&self.columns[index], column.0, reserved.0))
                .then_some(Group { column: index, epoch: reserved.epoch() })
        })
    }

    /// Gives a column back that was reserved, was seen so, and that its entry does not name and will not.
    pub(crate) fn give_back_column(&self, index: usize, column: Column) {
        if column.phase() == Phase::Joining {
            Self::change(&self.columns[index], column.0, column.given_back().0);
        }
    }

    /// Makes a group join whose column its entry names: it sees what is published from now on, and up to `history` messages that
    /// are there. Whoever has an end of the group calls this before anything else, however many do, and however far others have come:
    /// each step is done once (I5).
    pub(crate) fn join(&self, group: Group, patience: u32, history: u64) {
        let Some(column) = self.column_of(group) else { return };
        if column.phase() == Phase::Joining {
            self.prepare(group, patience, history);
            Self::change(&self.columns[group.column], column.0, column.with(Phase::Active).0);
        }
        self.admit(group);
    }

    /// Before publishers see the group.
    fn prepare(&self, group: Group, patience: u32, history: u64) {
        let line = &self.lines[group.column];
        for index in 0..self.cells.len() {
            let word = self.mark(index, group.column);
            loop {
                // A late step on behalf of who had the column before fails after this.
                let mark = Mark(Self::load(word));
                let fresh = Mark::new(State::Fresh, 0, group.epoch, 0);
                if mark.epoch() == group.epoch || Self::change(word, mark.0, fresh.0) {
                    break;
                }
            }
        }
        let terms = Terms(Self::load(&line.terms));
        if !terms.are_of(group.epoch) {
            let ours = Terms::new(group.epoch, history.min(self.history), patience);
            Self::change(&line.terms, terms.0, ours.0);
        }
        let (joined, unknown) = (Joined(Self::load(&line.joined)), Joined::unknown(group.epoch));
        if joined != unknown && joined.position(group.epoch).is_none() {
            Self::change(&line.joined, joined.0, unknown.0);
        }
    }

    /// Decides which of the messages that were there before the group are its own: the latest ones of which none was closed. From the
    /// last one backwards, each by one CAS of its mark.
    fn admit(&self, group: Group) {
        let (Some(joined), Some(start)) = (self.joined(group.column, group.epoch), self.start_in(group)) else {
            return;
        };
        let mut is_over = false;
        for position in (start..joined).rev().take(self.cells.len()) {
            let (index, lap) = (self.index(position), self.lap(position));
            let word = self.mark(index, group.column);
            loop {
                let mark = Mark(Self::load(word));
                if mark.state(group.epoch) != State::Fresh {
                    // Decided.
                    is_over |= mark.state(group.epoch) == State::Done;
                    break;
                }
                let is_wanted = !is_over && self.steps(Self::load(self.cell(index)), position) == OPEN;
                let state = if is_wanted { State::Wanted } else { State::Done };
                if Self::change(word, mark.0, Mark::new(state, 0, group.epoch, lap).0) {
                    is_over |= !is_wanted;
                    break;
                }
            }
        }
    }

    /// The first position that all who close messages knew of a group for, whose column was seen ACTIVE in that epoch. `None` if
    /// somebody else has the column by now.
    pub(super) fn joined(&self, column: usize, epoch: u16) -> Option<u64> {
        let word = &self.lines[column].joined;
        let seen = Joined(Self::load(word));
        if let Some(position) = seen.position(epoch) {
            return Some(position);
        }
        if seen != Joined::unknown(epoch) {
            return None;
        }
        // I5: the column is active already.
        let end = self.tail();
        Self::change(word, seen.0, Joined::at(epoch, end).0);
        Joined(Self::load(word)).position(epoch)
    }

    /// The first position that concerns a group whose column was seen ACTIVE in that epoch.
    pub(super) fn start_in(&self, Group { column, epoch }: Group) -> Option<u64> {
        let joined = self.joined(column, epoch)?;
        Some(joined.saturating_sub(Terms(Self::load(&self.lines[column].terms)).history()))
    }

    /// Whether a position concerns a group whose column was seen ACTIVE with that word.
    pub(super) fn concerns(&self, column: usize, word: Column, position: u64) -> bool {
        self.start_in(Group { column, epoch: word.epoch() }).is_some_and(|start| position >= start)
    }

    /// Where the group began.
    pub(crate) fn start(&self, group: Group) -> u64 {
        self.start_in(group).unwrap_or(0)
    }

    /// Puts a group out that was seen with that column; `false` if that has changed.
    pub(crate) fn evict(&self, index: usize, column: Column) -> bool {
        column.phase() == Phase::Active && Self::change(&self.columns[index], column.0, column.with(Phase::Evicted).0)
    }

    /// The group has no members any more. Whatever it has not taken it will not take; what is held stays so.
    pub(crate) fn leave(&self, group: Group) {
        while let Some(column) = self.column_of(group) {
            if column.phase() == Phase::Leaving
                || Self::change(&self.columns[group.column], column.0, column.with(Phase::Leaving).0)
            {
                break;
            }
        }
    }

    /// Frees the columns of groups that have left and hold nothing any more.
    pub(crate) fn free_columns(&self) {
        for (index, column) in self.columns().filter(|(_, column)| column.phase() == Phase::Leaving) {
            if !(0..self.cells.len()).any(|cell| Mark(Self::load(self.mark(cell, index))).pins(column.epoch())) {
                Self::change(&self.columns[index], column.0, column.with(Phase::Free).0);
            }
        }
    }

    /// Whether some group has left and holds something.
    pub(crate) fn is_left(&self, group: Group) -> bool {
        self.column_of(group).is_some_and(|column| column.phase() == Phase::Leaving)
    }

    /// A participant is dead, or holds nothing any more: what it held comes back, if `most` says of the group's entry that
    /// messages do. Can be repeated. Whoever calls this settles all positions afterwards.
    pub(crate) fn bury(&self, participant: u16, most: impl Fn(usize) -> u64) {
        for (column, word) in self.columns().filter(|(_, word)| word.may_pin()) {
            self.bury_in(Group { column, epoch: word.epoch() }, participant, most(word.entry()));
        }
    }

    fn bury_in(&self, group: Group, participant: u16, most: u64) {
        let mut has_returned = false;
        for index in 0..self.cells.len() {
            let mark = Mark(Self::load(self.mark(index, group.column)));
            match mark.state(group.epoch) {
                State::Held if mark.participant() == participant => {
                    let position = self.position_of(index, mark, self.tail());
                    self.give_back(group, &Taken { position, block: BlockId(0), mark }, most);
                }
                State::Claimed if mark.participant() == participant => {
                    let position = self.position_of(index, mark, self.tail());
                    if self.steps(Self::load(self.cell(index)), position) == OPEN {
                        // Whoever closes it from now on sees the mark.
                        self.give_back(group, &Taken { position, block: BlockId(0), mark }, most);
                    } else {
                        // It may be gone: missed, then, and no member comes by any more.
                        let skipped = Mark::new(State::Skipped, 1, group.epoch, mark.lap());
                        Self::change(self.mark(index, group.column), mark.0, skipped.0);
                        has_returned = true;
                    }
                }
                // Whoever wrote that may have died before it said so.
                State::Returned | State::Skipped => has_returned = true,
                _ => {}
            }
        }
        if has_returned {
            self.lines[group.column].has_returned();
        }
    }

    /// What came back to a group that is put out, or leaves, is done with. Whoever calls this settles all positions
    /// afterwards.
    pub(crate) fn forget_returned(&self, group: Group) {
        for index in 0..self.cells.len() {
            let word = self.mark(index, group.column);
            let mark = Mark(Self::load(word));
            if mark.state(group.epoch) == State::Returned {
                Self::change(word, mark.0, Mark::new(State::Done, 0, group.epoch, mark.lap()).0);
            }
        }
    }
}
