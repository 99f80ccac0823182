//! Models of the allocator's races: every interleaving of two lanes over a handful of granules.

use super::{sector::Sector, word::State};
use crate::{
    segment::{
        lanes::{Lane, LaneId},
        layout::{LaneLine, SectorLayout},
    },
    sys::{
        shared::{SharedRef, SharedSlice},
        sync::{AtomicU64, AtomicUsize, Ordering},
    },
};

fn zeroed(len: u64) -> SharedSlice<AtomicU64> {
    SharedSlice::leak((0..len).map(|_| AtomicU64::new(0)).collect())
}

fn sector(granules: u64) -> Sector {
    let sector = Sector::new(0, zeroed(granules + 1), zeroed(SectorLayout::map_words(granules)));
    sector.format();
    sector
}

fn lane(id: u16) -> Lane {
    Lane::new(LaneId(id), SharedRef::leak(LaneLine::default()))
}

fn model(test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(test);
}

#[test]
fn allocate_and_free_beside_allocate_and_free() {
    model(|| {
        let sector = sector(6);
        let owners: &'static [AtomicUsize; 6] = Box::leak(Box::new(std::array::from_fn(|_| AtomicUsize::new(0))));
        let work = move |id: u16, len: u64| {
            let lane = lane(id);
            if let Some(run) = sector.take(&lane, len) {
                for granule in run.granule..run.granule + run.len {
                    assert_eq!(owners[granule as usize].swap(id as usize, Ordering::Relaxed), 0, "given out twice");
                }
                for granule in run.granule..run.granule + run.len {
                    owners[granule as usize].store(0, Ordering::Relaxed);
                }
                assert_eq!(sector.word(run.granule).state(), State::Allocated);
                sector.release(&lane, run.granule);
            }
        };
        let other = loom::thread::spawn(move || work(1, 2));
        work(2, 1);
        other.join().unwrap();
    });
}
