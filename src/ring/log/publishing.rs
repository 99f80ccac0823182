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

    /// What keeps a message from being published now: a wait, or a group that is to be put out. `None` if nothing does. It takes
    /// nothing from anybody. `now` is the time in milliseconds.
    pub(crate) fn obstacle(&self, private: &Position, now: impl Fn() -> u64) -> Option<Next> {
        let mut position = self.first_unfilled(private.get()).0;
        private.set(position);
        for _ in 0..self.patience() {
            let index = self.index(position);
            let steps = self.steps(Self::load(self.cell(index)), position);
            let before = match steps {
                0 | -1 => position.checked_sub(self.capacity),
                -3 => position.checked_sub(self.len()),
                // Published meanwhile.
                OPEN | CLOSED => {
                    position = position.wrapping_add(1);
                    continue;
                }
                // Others have come round meanwhile.
                _ => {
                    position = self.first_unfilled(position).0;
                    continue;
                }
            };
            if let Some(next) = before.and_then(|before| self.keeper(before, &now)) {
                return Some(next);
            }
            // As in `next`: it is emptied, or void.
            if steps != -1 || self.unpinned(index).is_some() {
                return None;
            }
            position = position.wrapping_add(1);
        }
        Some(Next::Wait(None))
    }

    /// What to do to publish. `now` is the time in milliseconds.
    pub(crate) fn next(&self, private: &Position, now: impl Fn() -> u64) -> Next {
        for _ in 0..self.patience() {
            let (position, cell, steps) = self.first_unfilled(private.get());
            private.set(position);
            let index = self.index(position);
            // I8: what is held makes the position void, and it is a later one that there must be room for.
            if steps == -1
                && self.unpinned(index).is_none()
                && let Some(obstacle) = self.obstacle(private, &now)
            {
                return obstacle;
            }
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

    /// What keeps the message at that position where it is: groups that have not taken it and that publishers wait for.
    fn keeper(&self, position: u64, now: &impl Fn() -> u64) -> Option<Next> {
        let index = self.index(position);
        if self.steps(Self::load(self.cell(index)), position) != OPEN {
            return None;
        }
        let lap = self.lap(position);
        let mut wait = None;
        for (column, word) in self.active().filter(|(_, word)| word.pressure() != Pressure::Lag) {
            let mark = Mark(Self::load(self.mark(index, column)));
            // I9.
            let is_theirs = mark.epoch() == word.epoch();
            if !is_theirs || mark.has_taken(word.epoch(), lap) || !self.concerns(column, word, position) {
                continue;
            }
            let left = match word.pressure() {
                Pressure::Evict => match self.lines[column].time_left(word.epoch(), position, now()) {
                    0 => return Some(Next::Evict(column, word)),
                    left => Some(left),
                },
                _ => None,
            };
            // As long as the first of those that are to be put out.
            wait = Some(match wait.flatten() {
                Some(least) => Some(left.map_or(least, |left| left.min(least))),
                None => left,
            });
        }
        wait.map(Next::Wait)
    }

    /// Makes room: skips the message at that position for those who let themselves be skipped, and closes it. `None` if there was
    /// room.
    fn close_for_room(&self, position: u64, now: &impl Fn() -> u64) -> Option<Next> {
        let index = self.index(position);
        let cell = Self::load(self.cell(index));
        if self.steps(cell, position) != OPEN {
            return None;
        }
        // I8: before anything is skipped.
        if let Some(next) = self.keeper(position, now) {
            return Some(next);
        }
        let lap = self.lap(position);
        for (column, word) in self.active().filter(|(_, word)| word.pressure() == Pressure::Lag) {
            if !self.concerns(column, word, position) {
                continue;
            }
            loop {
                let mark = Mark(Self::load(self.mark(index, column)));
                // I9.
                if mark.epoch() != word.epoch() || mark.has_taken(word.epoch(), lap) {
                    break;
                }
                self.skip(index, column, mark, word.epoch(), lap);
            }
        }
        Self::change(self.cell(index), cell, closed(cell));
        Some(Next::Retire(index))
    }

    /// Takes the message of that lap on a group's behalf, and counts it, in one step.
    fn skip(&self, index: usize, column: usize, mark: Mark, epoch: u16, lap: u64) {
        let before = match mark.state(epoch) {
            State::Skipped => mark.skipped(),
            // Of a lap before: whoever closed that did not know of the group.
            State::Wanted if !mark.wants(epoch, lap) => 1,
            _ => 0,
        };
        let overflows = before == MOST_SKIPPED;
        let count = if overflows { 1 } else { before + 1 };
        if Self::change(self.mark(index, column), mark.0, Mark::new(State::Skipped, count, epoch, lap).0) && overflows {
            words::add_to(&self.lines[column].missed, epoch, before);
        }
    }

    /// Whether a publisher would find room now, or a group to put out.
    pub(crate) fn has_room(&self, now: u64) -> bool {
        let private = Position::new(Self::load(&self.tail_hint));
        !matches!(self.obstacle(&private, || now), Some(Next::Wait(_)))
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

    /// The blocks of the messages that only keep memory, the oldest first.
    pub(crate) fn sheddable(&self, now: impl Fn() -> u64) -> impl Iterator<Item = BlockId> {
        let tail = self.tail();
        let positions = (tail.saturating_sub(self.capacity)..tail)
            .take_while(move |position| self.keeper(*position, &now).is_none())
            .map(|position| (position, Self::load(self.cell(self.index(position)))));
        positions.filter(|(position, cell)| self.steps(*cell, *position) == OPEN).map(|(_, cell)| BlockId(cell as u32))
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
