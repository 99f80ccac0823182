//! Publishing, and what makes room for it.

use super::*;

impl Log {
    /// The first position that is not published.
    pub(crate) fn tail(&self) -> u64 {
        self.first_unfilled(Self::load(&self.tail_hint)).0
    }

    fn first_unfilled(&self, from: u64) -> (u64, u64, i32) {
        let mut position = from;
        for _ in 0..self.patience() {
            let cell = Self::load(self.cell(self.index(position)));
            let steps = self.steps(cell, position);
            match steps {
                0 => return (position, cell, 0),
                OPEN | CLOSED => position = position.wrapping_add(1),
                _ => {
                    // By how much is only meaningful if the caller did not sleep for too long.
                    let hint = Self::load(&self.tail_hint);
                    if hint > position {
                        position = hint;
                    } else if steps < 0 {
                        return (position, cell, steps);
                    } else if steps % 4 == 0 {
                        position = self.at(position, steps).wrapping_add(1).wrapping_sub(self.len());
                    } else {
                        position = self.at(position, steps).wrapping_add(1);
                    }
                }
            }
        }
        (position, Self::load(self.cell(self.index(position))), i32::MIN)
    }

    /// What to do to publish. `now` is the time in milliseconds.
    pub(crate) fn next(&self, private: &Position, now: impl Fn() -> u64) -> Next {
        for _ in 0..self.patience() {
            let (position, cell, steps) = self.first_unfilled(private.get());
            private.set(position);
            if matches!(steps, 0 | -1) {
                // Also of a position that will be void: else what is so far behind it would stay open.
                let before = position.checked_sub(self.capacity);
                if let Some(next) = before.and_then(|before| self.close_for_room(before, &now)) {
                    return next;
                }
            }
            match steps {
                0 => return Next::Vacant(Vacancy { position, cell }),
                // Closed, a lap ago.
                -1 => {
                    let index = self.index(position);
                    if self.unpinned(index).is_some() {
                        return Next::Retire(index);
                    }
                    // It is held. The next position, then.
                    let void = u64::from(self.tag(position).wrapping_add(CLOSED as u32)) << 32 | cell & 0xffff_ffff;
                    Self::change(self.cell(index), cell, void);
                }
                // Open, a lap ago: somebody has published less than two capacities after it, which only garbage does.
                -3 => {
                    if let Some(next) = self.close_for_room(position.wrapping_sub(self.len()), &now) {
                        return next;
                    }
                }
                _ => return Next::Wait(None),
            }
        }
        Next::Wait(None)
    }

    /// Makes room: skips the message at that position for those who let themselves be skipped, and closes it. `None` if there was
    /// room.
    fn close_for_room(&self, position: u64, now: &impl Fn() -> u64) -> Option<Next> {
        let index = self.index(position);
        let cell = Self::load(self.cell(index));
        if self.steps(cell, position) != OPEN {
            return None;
        }
        let lap = self.lap(position);
        for (column, word) in self.active() {
            let line = &self.lines[column];
            if position < Self::load(&line.start) {
                continue;
            }
            loop {
                let mark = Mark(Self::load(self.mark(index, column)));
                if mark.has_taken(word.epoch(), lap) {
                    break;
                }
                match word.pressure() {
                    Pressure::Lag => self.skip(index, column, mark, word.epoch(), lap),
                    Pressure::Block => return Some(Next::Wait(None)),
                    Pressure::Evict => {
                        let left = line.time_left(position, now());
                        return Some(if left == 0 { Next::Evict(column, word) } else { Next::Wait(Some(left)) });
                    }
                }
            }
        }
        Self::change(self.cell(index), cell, closed(cell));
        Some(Next::Retire(index))
    }

    /// Takes the message of that lap on a group's behalf, and counts it, in one step.
    fn skip(&self, index: usize, column: usize, mark: Mark, epoch: u16, lap: u64) {
        let before = if mark.state(epoch) == State::Skipped { mark.skipped() } else { 0 };
        let overflows = before == MOST_SKIPPED;
        let count = if overflows { 1 } else { before + 1 };
        if Self::change(self.mark(index, column), mark.0, Mark::new(State::Skipped, count, epoch, lap).0) && overflows {
            self.lines[column].missed.fetch_add(before, Ordering::SeqCst);
        }
    }

    /// Whether a publisher would find room now.
    pub(crate) fn has_room(&self, now: u64) -> bool {
        let tail = self.tail();
        for position in tail..tail.saturating_add(self.len()) {
            let index = self.index(position);
            let steps = self.steps(Self::load(self.cell(index)), position);
            let before = match steps {
                0 | -1 => position.checked_sub(self.capacity),
                -3 => position.checked_sub(self.len()),
                _ => return false,
            };
            if !before.is_none_or(|before| self.can_close(before, now)) {
                return false;
            }
            // As in `next`: it is emptied, or void.
            if steps != -1 || self.unpinned(index).is_some() {
                return true;
            }
        }
        false
    }

    /// Whether the message at a position keeps no publisher waiting.
    fn can_close(&self, position: u64, now: u64) -> bool {
        let index = self.index(position);
        self.steps(Self::load(self.cell(index)), position) != OPEN
            || self.active().all(|(column, word)| {
                let line = &self.lines[column];
                position < Self::load(&line.start)
                    || word.pressure() == Pressure::Lag
                    || Mark(Self::load(self.mark(index, column))).has_taken(word.epoch(), self.lap(position))
                    || word.pressure() == Pressure::Evict && line.is_out_of_time(position, now)
            })
    }

    /// Publishes: fills a cell that was vacant. `None` if it is not any more.
    #[cfg_attr(crash_points, track_caller)]
    pub(crate) fn fill(&self, private: &Position, vacancy: Vacancy, block: BlockId) -> Option<u64> {
        let Vacancy { position, cell } = vacancy;
        let open = u64::from(self.tag(position).wrapping_add(OPEN as u32)) << 32 | u64::from(block.0);
        if !Self::change(self.cell(self.index(position)), cell, open) {
            return None;
        }
        let next = position.wrapping_add(1);
        private.set(next);
        if next.is_multiple_of(HINT_INTERVAL) {
            self.tail_hint.fetch_max(next, Ordering::SeqCst);
        }
        Some(position)
    }

    /// Closes the oldest message that only keeps memory: of which nobody who makes publishers wait has still to take his. Its
    /// index, if there is one.
    pub(crate) fn shed(&self, now: impl Fn() -> u64) -> Option<usize> {
        let tail = self.tail();
        for position in tail.saturating_sub(self.capacity)..tail {
            match self.close_for_room(position, &now) {
                None => {}
                Some(Next::Retire(index)) => return Some(index),
                Some(_) => return None,
            }
        }
        None
    }
}
