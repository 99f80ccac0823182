//! Closing what all groups are done with, and emptying its cell.

use super::*;

impl Log {
    /// Closes the message at a position if all groups are done with it, and it is no history. `false` if it stays open: then
    /// whoever closes it sees what the caller did to his mark before this.
    #[inline]
    pub(crate) fn close_if_done(&self, position: u64) -> bool {
        let index = self.index(position);
        let cell = Self::load(self.cell(index));
        if self.steps(cell, position) != OPEN {
            return true;
        }
        let is_done = self.is_past(position) && self.are_done(index, position);
        if is_done {
            Self::change(self.cell(index), cell, closed(cell));
        }
        is_done
    }

    /// Whether no group may still take the message at that position, or holds it.
    fn are_done(&self, index: usize, position: u64) -> bool {
        let lap = self.lap(position);
        for (column, word) in self.columns() {
            let phase = word.phase();
            if matches!(phase, Phase::Free | Phase::Joining) {
                continue;
            }
            let mark = Mark(Self::load(self.mark(index, column)));
            let has_taken = mark.has_taken(word.epoch(), lap);
            if has_taken && !mark.pins(word.epoch()) {
                continue;
            }
            let is_wanted = phase == Phase::Active && self.concerns(column, word, position);
            if mark.pins(word.epoch()) || is_wanted {
                return false;
            }
        }
        true
    }

    /// Whether there are as many later messages as are kept for those who come late.
    fn is_past(&self, position: u64) -> bool {
        if self.history == 0 {
            return true;
        }
        let later = position.wrapping_add(self.history);
        self.steps(Self::load(self.cell(self.index(later))), later) >= OPEN
    }

    /// The cell, if it is closed and nothing pins its block.
    pub(crate) fn unpinned(&self, index: usize) -> Option<Unpinned> {
        let cell = Self::load(self.cell(index));
        if cell >> 32 & 3 != CLOSED as u64 {
            return None;
        }
        let is_pinned = self
            .columns()
            .any(|(column, word)| word.may_pin() && Mark(Self::load(self.mark(index, column))).pins(word.epoch()));
        (!is_pinned).then_some(Unpinned { index, cell })
    }

    /// Empties a closed cell: whoever succeeds has the block.
    #[cfg_attr(crash_points, track_caller)]
    pub(crate) fn take(&self, unpinned: Unpinned) -> bool {
        let empty = u64::from(((unpinned.cell >> 32) as u32).wrapping_add(1)) << 32;
        Self::change(self.cell(unpinned.index), unpinned.cell, empty)
    }

    /// The last position of each cell that was published.
    pub(crate) fn published(&self) -> impl Iterator<Item = u64> {
        let tail = self.tail();
        tail.saturating_sub(self.len())..tail
    }

    /// Every cell that names a block, closed if it was not: for who takes the log down.
    pub(crate) fn close_all(&self) -> impl Iterator<Item = Unpinned> + '_ {
        (0..self.cells.len()).filter_map(|index| {
            let cell = Self::load(self.cell(index));
            match (cell >> 32 & 3) as i32 {
                CLOSED => Some(Unpinned { index, cell }),
                OPEN if Self::change(self.cell(index), cell, closed(cell)) => {
                    Some(Unpinned { index, cell: closed(cell) })
                }
                _ => None,
            }
        })
    }
}
