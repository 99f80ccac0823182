//! What stands in a log, for who looks at a copy that nobody changes.

use super::*;

/// A message that groups may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Published {
    pub(crate) position: u64,
    pub(crate) block: BlockId,
    pub(crate) cell: u64,
}

/// How far a group is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// The group's entry in the directory; not checked.
    pub(crate) entry: usize,
    /// Whether it was put out.
    pub(crate) is_evicted: bool,
    /// Messages that it may take, those that came back included.
    pub(crate) behind: u64,
    /// Messages that its members hold.
    pub(crate) held: u64,
    /// Messages that were skipped, of which no member has been told.
    pub(crate) missed: u64,
}

impl Log {
    /// What groups may take, the oldest first.
    pub(crate) fn open(&self) -> impl Iterator<Item = Published> {
        self.published().filter_map(|position| self.open_at(position))
    }

    /// What groups may take at a position.
    pub(crate) fn open_at(&self, position: u64) -> Option<Published> {
        let cell = Self::load(self.cell(self.index(position)));
        (self.steps(cell, position) == OPEN).then_some(Published { position, block: BlockId(cell as u32), cell })
    }

    /// The cell in which something stands that was published.
    pub(crate) fn cell_of(&self, message: Published) -> &AtomicU64 {
        self.cell(self.index(message.position))
    }

    /// How far each group is.
    pub(crate) fn progress(&self) -> Vec<Progress> {
        let groups = self.columns().filter(|(_, column)| matches!(column.phase(), Phase::Active | Phase::Evicted));
        let open: Vec<u64> = self.open().map(|message| message.position).collect();
        groups
            .map(|(index, column)| {
                let epoch = column.epoch();
                let is_active = column.phase() == Phase::Active;
                let may_take = |position: &&u64| {
                    let mark = Mark(Self::load(self.mark(self.index(**position), index)));
                    !mark.has_taken(epoch, self.lap(**position)) && self.concerns(index, column, **position)
                };
                let mut progress = Progress {
                    entry: column.entry(),
                    is_evicted: !is_active,
                    behind: if is_active { open.iter().filter(may_take).count() as u64 } else { 0 },
                    held: 0,
                    missed: words::number_of(&self.lines[index].missed, epoch),
                };
                for mark in (0..self.cells.len()).map(|cell| Mark(Self::load(self.mark(cell, index)))) {
                    match mark.state(epoch) {
                        State::Held | State::Claimed => progress.held += 1,
                        State::Returned => progress.behind += 1,
                        State::Skipped => progress.missed += mark.skipped(),
                        _ => {}
                    }
                }
                progress
            })
            .collect()
    }
}
