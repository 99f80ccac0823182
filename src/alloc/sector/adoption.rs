//! What a dead lane was working on: ranges that no head covers any more, or not yet, become blocks again.

use crate::{
    alloc::{sector::Sector, word::Word},
    region::lanes::Lane,
};

/// How often to look again at a range that somebody who lives is working on.
const ADOPTION_LOOKS: usize = 3;
/// How often to look again because something has changed from one look to the next.
const ADOPTION_CHANGES: usize = 1000;

/// What a look at the heads has seen.
struct Look {
    /// Runs of granules, from and up to.
    uncovered: Vec<(u64, u64)>,
    fingerprint: u64,
}

/// What is in both lists of runs; each is in order.
fn intersect(some: &[(u64, u64)], others: &[(u64, u64)]) -> Vec<(u64, u64)> {
    some.iter()
        .flat_map(|(from, to)| others.iter().map(move |(start, stop)| (*from.max(start), *to.min(stop))))
        .filter(|(from, to)| from < to)
        .collect()
}

/// What is left of runs of granules, which are in order, without those that are named by their first one and their length.
fn without(runs: &[(u64, u64)], named: &[(u64, u64)]) -> Vec<(u64, u64)> {
    named.iter().fold(runs.to_vec(), |rest, (start, len)| {
        intersect(&rest, &[(0, *start), (start.saturating_add(*len), u64::MAX)])
    })
}

impl Sector {
    /// Makes blocks again of whatever part of a dead lane's range no head covers, and frees them. `false` if something is
    /// left for later, because somebody who lives names it: the dead lane must keep its intent. If not, `settled` is
    /// called before anything is freed.
    ///
    /// `others` are the ranges that lanes of the living may be working on. It is asked between two looks at the heads,
    /// and both must see the same: a head that one of them has missed was being moved over by somebody, who was either
    /// at work when `others` was asked, or has left another word.
    pub(crate) fn adopt(
        &self,
        lane: &Lane,
        granule: u64,
        len: u64,
        others: impl Fn() -> Vec<(u64, u64)>,
        settled: impl FnOnce(),
    ) -> bool {
        let end = granule.saturating_add(len);
        if len == 0 || end > self.granules() {
            settled();
            return true;
        }
        let mut orphans = vec![(granule, end)];
        let mut adopted = Vec::new();
        let (mut looks, mut changes) = (0, 0);
        let done = loop {
            let Some((from, to)) = orphans.first().zip(orphans.last()).map(|(first, last)| (first.0, last.1)) else {
                break true;
            };
            let first = self.look(from, to);
            let named = others();
            let second = self.look(from, to);
            orphans = intersect(&intersect(&orphans, &first.uncovered), &second.uncovered);
            if first.fingerprint != second.fingerprint {
                changes += 1;
                if changes == ADOPTION_CHANGES {
                    break false;
                }
                continue;
            }
            let free_of_others = without(&orphans, &named);
            if free_of_others.iter().all(|(start, stop)| self.adopt_run(lane, *start, *stop, &mut adopted)) {
                if free_of_others == orphans {
                    break true;
                }
                looks += 1;
                if looks == ADOPTION_LOOKS {
                    break false;
                }
                std::thread::yield_now();
            }
        };
        if done {
            settled();
        }
        for granule in adopted {
            self.release(lane, granule);
        }
        done
    }

    /// What no head covers from `granule` to `end`, although nobody is working on it. `others`, the ranges that lanes may
    /// be working on, is asked between two looks that must see the same, for the reason that [`adopt`](Self::adopt) has:
    /// without that, a lane could be done with one thing when it is asked, and at the next when the heads are looked at.
    pub(crate) fn uncovered(&self, granule: u64, end: u64, others: impl Fn() -> Vec<(u64, u64)>) -> Vec<(u64, u64)> {
        let mut orphans = vec![(granule, end)];
        for _ in 0..ADOPTION_CHANGES {
            let first = self.look(granule, end);
            let named = others();
            let second = self.look(granule, end);
            orphans = without(&intersect(&intersect(&orphans, &first.uncovered), &second.uncovered), &named);
            if orphans.is_empty() || first.fingerprint == second.fingerprint {
                break;
            }
        }
        // If something has changed each time, this was covered in none of the many looks: not by chance.
        orphans
    }

    /// What no head covers from `granule` to `end`, and a fingerprint of all that was seen on the way.
    fn look(&self, granule: u64, end: u64) -> Look {
        // From the nearest head on the left: it may cover the first of them.
        let from = (0..=granule).rev().find(|at| self.word(*at).is_head()).unwrap_or(0);
        let mut look = Look { uncovered: Vec::new(), fingerprint: 0 };
        let mut covered = from;
        for at in from..end {
            let word = self.word(at);
            let seen = if word.is_head() { word.0 } else { u64::from(word.generation()) };
            look.fingerprint = (look.fingerprint ^ seen).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
            if word.is_head() {
                covered = covered.max(at + word.len());
            }
            if at >= granule && at >= covered {
                match look.uncovered.last_mut() {
                    Some((_, stop)) if *stop == at => *stop = at + 1,
                    _ => look.uncovered.push((at, at + 1)),
                }
            }
        }
        look
    }

    /// Makes a block of a run that no head covers; `false` if somebody else has done so.
    fn adopt_run(&self, lane: &Lane, at: u64, stop: u64, adopted: &mut Vec<u64>) -> bool {
        let len = stop - at;
        self.store_end(at, len);
        let word = self.word(at);
        let taken = !word.is_head() && self.replace(at, word, Word::claimed(lane.id(), len, word.next_generation()));
        if taken {
            adopted.push(at);
        }
        taken
    }
}
