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

    /// Takes a free column for a group that is to join; `None` if there is none.
    pub(crate) fn reserve(&self, entry: usize, pressure: Pressure, me: u16) -> Option<Group> {
        self.columns().find_map(|(index, column)| {
            let epoch = column.epoch().wrapping_add(1);
            let joining = Column::new(Phase::Joining, pressure, me, entry, epoch);
            (column.phase() == Phase::Free && Self::change(&self.columns[index], column.0, joining.0))
                .then_some(Group { column: index, epoch })
        })
    }

    /// Gives a column back that was reserved and not activated.
    pub(crate) fn unreserve(&self, index: usize, column: Column) {
        if column.phase() == Phase::Joining {
            Self::change(&self.columns[index], column.0, column.with(Phase::Free).0);
        }
    }

    /// Makes a group join whose column is reserved: it sees what is published from now on, and up to `history` messages that
    /// are there. `false` if the column is not the caller's any more.
    pub(crate) fn activate(&self, group: Group, patience: u64, history: u64) -> bool {
        let Some(column) = self.column_of(group) else { return false };
        let line = &self.lines[group.column];
        for index in 0..self.cells.len() {
            // Ordering: nobody looks at a column that is being joined.
            self.mark(index, group.column).store(Mark::new(State::Fresh, 0, group.epoch, 0).0, Ordering::SeqCst);
        }
        for word in [&line.stuck, &line.returned, &line.missed, &line.discarded] {
            word.store(0, Ordering::SeqCst);
        }
        line.patience.store(patience, Ordering::SeqCst);
        let history = history.min(self.history);
        let first = self.tail().saturating_sub(history);
        line.start.store(first, Ordering::SeqCst);
        if !Self::change(&self.columns[group.column], column.0, column.with(Phase::Active).0) {
            return false;
        }
        // I5. What came in between is none of the group's: it is passed over, so that nobody counts it as skipped.
        let end = self.tail();
        let start = end.saturating_sub(history);
        line.joined.store(end, Ordering::SeqCst);
        for position in first.max(start.saturating_sub(self.len()))..start {
            let mark = self.mark(self.index(position), group.column);
            let done = Mark::new(State::Done, 0, group.epoch, self.lap(position));
            let _ = mark.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| {
                (!Mark(now).pins(group.epoch)).then_some(done.0)
            });
        }
        line.start.fetch_max(start, Ordering::SeqCst);
        true
    }

    /// Where the group began.
    pub(crate) fn start(&self, group: Group) -> u64 {
        Self::load(&self.lines[group.column].start)
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
        for (column, word) in self.columns() {
            match word.phase() {
                Phase::Joining if word.participant() == participant => self.unreserve(column, word),
                Phase::Active | Phase::Evicted | Phase::Leaving => {
                    self.bury_in(Group { column, epoch: word.epoch() }, participant, most(word.entry()));
                }
                _ => {}
            }
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
                // Whoever gave it back may have died before it said so.
                State::Returned => has_returned = true,
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
