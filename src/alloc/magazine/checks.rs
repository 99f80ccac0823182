//! What checks and reapers ask of magazines.

use crate::{
    alloc::{
        magazine::{Depot, Holder, SizeClass, full_count, holder},
        word::Word,
    },
    region::{lanes::LaneId, layout::MAGAZINE_ITEMS},
    sys::sync::Ordering,
};

impl Depot {
    /// Whether a magazine belongs to a lane for which `dead` holds.
    pub(crate) fn is_owned_by(&self, magazine: u16, dead: impl Fn(LaneId) -> bool) -> bool {
        self.lines.get(usize::from(magazine)).is_some_and(|line| match holder(line.word.load(Ordering::Acquire)) {
            Holder::Owned(lane, _) | Holder::Revoked(lane, _) => dead(lane),
            Holder::Empty | Holder::Full(_) => false,
        })
    }

    /// Why a block cannot be in the magazine that its word names, in words; `None` if it is there. Exact only while nobody
    /// works, in lanes for which `has_lane` holds.
    pub(crate) fn doubt(&self, granule: u64, word: Word, has_lane: impl Fn(LaneId) -> bool) -> Option<String> {
        let magazine = word.owner();
        let Some(line) = self.lines.get(usize::from(magazine)) else {
            return Some(format!("cached in magazine {magazine}, of which there are {}", self.len()));
        };
        // Ordering: Acquire, as in `acquire`.
        let (size, owner) = match holder(line.word.load(Ordering::Acquire)) {
            Holder::Empty => return Some(format!("cached in magazine {magazine}, which is empty")),
            Holder::Full(size) => (size, None),
            Holder::Owned(lane, size) | Holder::Revoked(lane, size) => (size, Some(lane)),
        };
        let Some(class) = SizeClass::try_from(size).ok().filter(|class| class.len() == word.len()) else {
            return Some(format!("cached in magazine {magazine}, which has blocks of another length: {word:?}"));
        };
        if let Some(lane) = owner.filter(|lane| !has_lane(*lane)) {
            return Some(format!("cached in magazine {magazine} of lane {}, which no participant has", lane.0));
        }
        // How many items count is known in the owner's process only; what is behind them may name the block once more.
        let count = if owner.is_some() { MAGAZINE_ITEMS } else { full_count(line, class) };
        let named =
            line.items[..count].iter().filter(|item| u64::from(item.load(Ordering::Relaxed)) == granule).count();
        let is_there = named == 1 || named > 1 && owner.is_some();
        (!is_there).then(|| format!("cached in magazine {magazine}, which names it {named} times"))
    }

    /// What full magazines say that they hold: the magazine, the length of its blocks, and a granule.
    pub(crate) fn full_items(&self) -> impl Iterator<Item = (u16, u64, u64)> + '_ {
        self.lines.iter().enumerate().flat_map(|(magazine, line)| {
            // Ordering: Acquire, as in `acquire`.
            let class = match holder(line.word.load(Ordering::Acquire)) {
                Holder::Full(size) => SizeClass::try_from(size).ok(),
                _ => None,
            };
            class.into_iter().flat_map(move |class| {
                let items = line.items[..full_count(line, class)].iter();
                items.map(move |item| (magazine as u16, class.len(), u64::from(item.load(Ordering::Relaxed))))
            })
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{
        alloc::{check::check, tests},
        region::layout::MagazineLine,
    };

    #[test]
    fn full_magazines_are_checked_item_by_item() {
        let allocator = tests::allocator([4096, 0, 0], 64);
        let (mut worker, sector) = (tests::worker_of(&allocator, 1), &allocator.sectors()[0]);
        let block = allocator.allocate(&mut worker, 60, 1).unwrap();
        allocator.free(&mut worker, block);
        allocator.flush(&mut worker);
        let problems = || check(&allocator, None).problems;
        assert!(problems().is_empty());
        let depot = allocator.depot();
        let is_full = |line: &&MagazineLine| matches!(holder(line.word.load(Ordering::Relaxed)), Holder::Full(_));
        let line = depot.lines.iter().find(is_full).unwrap();
        let [first, second] = [0, 1].map(|item| line.items[item].load(Ordering::Relaxed));
        let magazine = sector.word(u64::from(first)).owner();

        line.items[1].store(first, Ordering::Relaxed);
        let mut expected = [(first, 2), (second, 0)].map(|(granule, times)| {
            format!("sector 0, granule {granule}: cached in magazine {magazine}, which names it {times} times")
        });
        expected.sort();
        let mut found = problems();
        found.sort();
        assert_eq!(found, expected);
        line.items[1].store(second, Ordering::Relaxed);

        let count = line.count.load(Ordering::Relaxed);
        line.count.store(1, Ordering::Relaxed);
        assert_eq!(problems().len() as u64, count - 1);
        line.count.store(count, Ordering::Relaxed);

        let word = sector.word(u64::from(first));
        let taken = Word::allocated(LaneId(1), word.len(), word.generation());
        sector.store(u64::from(first), taken);
        let named = format!("sector 0, granule {first}: named by magazine {magazine}, which is full,");
        assert_eq!(problems(), [format!("{named} but what stands here is {taken:?}")]);
        sector.store(u64::from(first), word);
        assert!(problems().is_empty());
    }
}
