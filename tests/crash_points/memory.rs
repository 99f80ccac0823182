//! The same for what the other scripts leave out: permits, users' blocks, and segments that grow.

use waterway::{
    Segment,
    blocks::{Block, Handle, HandleError},
    error::AllocError,
};

use super::*;

/// Capacity of the channel whose permits are fought for.
const CAPACITY: usize = 4;
/// What a child's messages have, and the parent's do not.
const CHILDS: u64 = 1 << 32;

type Words = [u64; 8];

// ---- What the children do ----

/// The script beside a parent that wants the same permits.
pub(super) fn reserve(place: &Place) {
    within(async {
        let segment = open(place);
        let sender = segment.channel::<u64>("permits").sender().unwrap();
        let mut numbers = CHILDS..;
        let mut next = || numbers.next().unwrap();
        sender.reserve().await.unwrap().send(next());
        drop(sender.try_reserve());
        let mut permits = sender.reserve_many(3).await.unwrap();
        permits.next().unwrap().send(next());
        drop(permits.next());
        drop(permits);
        sender.reserve_many(CAPACITY).await.unwrap().for_each(|permit| permit.send(next()));
        let owned = sender.clone().reserve_owned().await.unwrap();
        let again = owned.send(next());
        drop(again.reserve_owned().await.unwrap().release());
        // One that stands in line, and leaves it.
        let held = sender.reserve().await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(1), sender.reserve_many(CAPACITY)).await.is_err());
        drop(held);
        sender.send_many(&[next(), next(), next()]).await.unwrap();
        // With blocks.
        let wide = segment.bytes("wide").sender().unwrap();
        for number in 0..3 {
            let message = Stamp { sender: 1, number }.message(20_000);
            let mut permits = wide.reserve_many(2, message.len()).await.unwrap();
            let mut permit = permits.next().unwrap();
            permit.resize(message.len(), 0);
            permit.copy_from_slice(&message);
            permit.send();
        }
        drop((sender, wide));
    });
    report();
}

/// The script beside a parent that uses the same blocks.
pub(super) fn share(place: &Place) {
    within(async {
        let segment = open(place);
        let allocator = segment.allocator();
        let to = segment.channel::<Handle>("to").receiver().unwrap();
        let back = segment.channel::<Handle>("back").sender().unwrap();
        let (shared, raw) = (*to.recv().await.unwrap(), *to.recv().await.unwrap());
        let (adopted, freed) = (*to.recv().await.unwrap(), *to.recv().await.unwrap());
        let shared = allocator.resolve::<Words>(shared).unwrap();
        for number in 1..4 {
            *shared.write().unwrap() = [number; 8];
            let guard = shared.read().unwrap();
            assert!(guard.iter().all(|word| *word == guard[0]));
        }
        shared.put([7; 8]).unwrap();
        shared.set_state(50).unwrap();
        shared.transition(50, 51).unwrap();
        let taken = allocator.take_raw(raw).unwrap();
        assert!(taken[..300].iter().all(|byte| *byte == 9));
        back.try_send(taken.into_handle()).unwrap();
        drop(allocator.adopt::<Words>(adopted).unwrap());
        allocator.free(freed).unwrap();
        for len in [10, 5_000, 90_000] {
            let mut given = allocator.allocate_raw(len).unwrap();
            given.fill(5);
            back.try_send(given.into_handle()).unwrap();
            let copied = allocator.allocate_copy(&vec![6; len]).unwrap();
            back.try_send(copied.into_handle()).unwrap();
        }
        let own = allocator.allocate([1_u64; 8]).unwrap();
        let handle = own.handle();
        {
            let guard = own.read().unwrap();
            allocator.free(handle).unwrap();
            assert_eq!(*guard, [1; 8]);
        }
        assert_eq!(own.read().map(drop), Err(HandleError::Stale));
        drop(allocator.allocate_when_free(std::alloc::Layout::new::<[Words; 9]>()).await.unwrap());
        drop(allocator.allocate_raw(700).unwrap());
    });
    report();
}

fn open_growing(place: &Place) -> Segment {
    place.options().size(1 << 20).max_size(16 << 20).participants(4).channels(8).open_or_create("growing").unwrap()
}

/// The script of one who needs more than there is, of every size.
pub(super) fn grow(place: &Place) {
    let segment = open_growing(place);
    let (sender, receiver) = segment.bytes("own").open().unwrap();
    let mut kept = Vec::new();
    for number in 0..60 {
        for len in [800, 8_000, 80_000] {
            let stamp = Stamp { sender: 1, number };
            sender.try_send(stamp.message(len)).unwrap();
            kept.push((stamp, receiver.try_recv().unwrap()));
        }
    }
    assert!(kept.iter().all(|(stamp, message)| Stamp::verify(message) == Some(*stamp)));
    drop(kept);
    let stamp = Stamp { sender: 1, number: 60 };
    sender.try_send(stamp.message(2 << 20)).unwrap();
    assert_eq!(Stamp::verify(&receiver.try_recv().unwrap()), Some(stamp));
    report();
}

// ---- What the parent does ----

impl Scene {
    fn reserve_beside(&self, at: &str, by: &str) -> End {
        let (sender, receiver) = self.segment.channel::<u64>("permits").capacity(CAPACITY).open().unwrap();
        let (wide, wide_end) = self.segment.bytes("wide").capacity(2).open().unwrap();
        let child = self.start("reserve", at, by);
        *self.rounds.borrow_mut() += 1;
        let (over, finished) = (Cell::new(false), Cell::new(false));
        let (status, sent, ()) = within(async {
            futures::join!(
                async {
                    let status = self.watch(child, by, ()).await;
                    over.set(true);
                    status
                },
                async {
                    let mut sent = 0;
                    // Waits behind whoever has them, alive or dead.
                    while !over.get() {
                        let mut permits = sender.reserve_many(2).await.unwrap();
                        permits.next().unwrap().send(sent);
                        sent += 1;
                        drop(permits);
                        tokio::time::sleep(Duration::from_micros(300)).await;
                    }
                    finished.set(true);
                    sent
                },
                async {
                    let (mut mine, mut theirs, mut wides) = (0, CHILDS, 0);
                    loop {
                        let last = finished.get();
                        while let Ok(message) = wide_end.try_recv() {
                            assert_eq!(Stamp::verify(&message), Some(Stamp { sender: 1, number: wides }), "at {at}");
                            wides += 1;
                        }
                        while let Ok(message) = receiver.try_recv() {
                            let expected = if *message < CHILDS { &mut mine } else { &mut theirs };
                            assert_eq!(*message, *expected, "at {at}");
                            *expected += 1;
                        }
                        if last {
                            return;
                        }
                        tokio::time::sleep(Duration::from_micros(200)).await;
                    }
                }
            )
        });
        let end = self.ended(status, at, by);
        let at = &format!("{at} ({end:?}), {sent} sent");
        self.bury(&self.segment, || wide.sender_count() == 1 && sender.capacity() == CAPACITY);
        // What the dead had is to be had again, all of it.
        assert_eq!((sender.capacity(), receiver.len()), (CAPACITY, 0), "at {at}");
        drop(sender.try_reserve_many(CAPACITY).unwrap_or_else(|error| panic!("at {at}: {error}")));
        drop(wide.try_reserve_many(2, 20_000).unwrap_or_else(|error| panic!("at {at}: {error}")));
        drop((sender, receiver, wide, wide_end));
        self.settle(at);
        end
    }

    fn share_beside(&self, at: &str, by: &str) -> End {
        let allocator = self.segment.allocator();
        let to = self.segment.channel::<Handle>("to").capacity(4).open().unwrap();
        let back = self.segment.channel::<Handle>("back").capacity(16).open().unwrap();
        let shared: Block<Words> = allocator.allocate([0; 8]).unwrap();
        let mut raw = allocator.allocate_raw(300).unwrap();
        raw.fill(9);
        let raw = raw.into_handle();
        let [adopted, freed] = [1, 2].map(|number: u64| allocator.allocate([number; 8]).unwrap().into_handle());
        [shared.handle(), raw, adopted, freed].iter().for_each(|handle| to.0.try_send(*handle).unwrap());
        let child = self.start("share", at, by);
        *self.rounds.borrow_mut() += 1;
        let over = Cell::new(false);
        let is_whole = |words: &Words| words.iter().all(|word| *word == words[0]);
        // What somebody gives away may be freed at any time: with its owner.
        let take_back = || {
            for handle in back.1.drain() {
                match allocator.take_raw(*handle) {
                    Ok(given) => assert!(given.iter().take(10).all(|byte| [5, 9].contains(byte)), "at {at}"),
                    Err(HandleError::Stale) => {}
                    Err(HandleError::WrongType { .. }) => match allocator.adopt::<[u8]>(*handle) {
                        Ok(block) => assert!(block.read().unwrap().iter().all(|byte| *byte == 6), "at {at}"),
                        Err(error) => assert_eq!(error, HandleError::Stale, "at {at}"),
                    },
                    Err(error) => panic!("at {at}: {error}"),
                }
            }
        };
        let (status, ()) = within(async {
            futures::join!(
                async {
                    let status = self.watch(child, by, ()).await;
                    over.set(true);
                    status
                },
                async {
                    for round in 1.. {
                        if over.get() {
                            return;
                        }
                        if let Ok(guard) = shared.try_read() {
                            assert!(is_whole(&guard) || guard.poisoned(), "at {at}: {:?}", *guard);
                        }
                        if round % 4 == 0
                            && let Ok(mut guard) = shared.try_write()
                        {
                            *guard = [100; 8];
                            guard.clear_poison();
                        }
                        take_back();
                        tokio::time::sleep(Duration::from_micros(200)).await;
                    }
                }
            )
        });
        let end = self.ended(status, at, by);
        let at = &format!("{at} ({end:?})");
        take_back();
        // Whatever access the dead had, it has none any more.
        {
            let mut guard = shared.write_timeout(LATEST).unwrap_or_else(|error| panic!("at {at}: {error}"));
            assert!(is_whole(&guard) || guard.poisoned(), "at {at}: {:?}", *guard);
            *guard = [8; 8];
            guard.clear_poison();
        }
        assert_eq!(*shared.read().unwrap(), [8; 8]);
        for handle in [raw, adopted, freed] {
            assert!(matches!(allocator.free(handle), Ok(()) | Err(HandleError::Stale)), "at {at}");
        }
        drop((shared, to, back));
        self.bury(&self.segment, || allocator.blocks().count() == 0);
        let left: Vec<_> = allocator.blocks().collect();
        assert!(left.is_empty(), "at {at}: {left:?}");
        self.settle(at);
        end
    }

    /// `busy`: the parent needs more and more as well.
    fn grow_beside(&self, at: &str, by: &str, busy: bool) -> End {
        let segment = open_growing(&self.place);
        let (sender, receiver) = segment.bytes("parent").open().unwrap();
        let mut child = self.start("grow", at, by);
        *self.rounds.borrow_mut() += 1;
        let started = Instant::now();
        let (mut kept, mut stopped) = (Vec::new(), false);
        let go_on = |kept: &mut Vec<_>, most: usize| {
            for len in [300, 3_000, 30_000] {
                let stamp = Stamp { sender: 2, number: kept.len() as u64 };
                if kept.len() < most {
                    sender.try_send(stamp.message(len)).unwrap_or_else(|error| panic!("at {at}: {error}"));
                    kept.push((stamp, receiver.try_recv().unwrap()));
                }
            }
        };
        let status = loop {
            assert!(started.elapsed() < PATIENCE, "at {at}: it does not end");
            if let Some(status) = child.ended() {
                break status;
            }
            if by == "stop" && !stopped && is_stopped(child.pid()) {
                stopped = true;
                (0..40).for_each(|_| go_on(&mut kept, 120));
                let and = if self.rounds.borrow().is_multiple_of(2) { libc::SIGKILL } else { libc::SIGCONT };
                signal(child.pid(), and);
            }
            if busy {
                go_on(&mut kept, 90);
            }
            thread::sleep(Duration::from_micros(100));
        };
        let end = self.ended(status, at, by);
        let at = &format!("{at} ({end:?})");
        assert!(kept.iter().all(|(stamp, message)| Stamp::verify(message) == Some(*stamp)), "at {at}");
        drop((kept, sender, receiver));
        self.bury(&segment, || {
            let report = segment.check();
            report.is_clean() && held(&report) == 0
        });
        let report = segment.check();
        assert!(report.is_clean() && held(&report) == 0, "at {at}: {report:?}");
        // All that there may ever be is to be had in one piece, and then it is all there.
        let allocator = segment.allocator();
        let Err(AllocError::TooLarge { largest, .. }) = allocator.allocate_raw(1 << 30) else {
            panic!("at {at}: there is no end")
        };
        let mut whole = allocator.allocate_raw(largest).unwrap_or_else(|error| panic!("at {at}: {error}"));
        whole.fill(3);
        drop(whole);
        drop(allocator);
        let report = segment.check();
        assert!(report.is_clean() && held(&report) == 0, "at {at}: {report:?}");
        drop(segment);
        assert!(!self.file("growing").exists(), "at {at}");
        end
    }
}

#[test]
fn whoever_has_permits_may_die_or_stand_still_at_any_point() {
    const TEST: &str = "memory::whoever_has_permits_may_die_or_stand_still_at_any_point";
    let Some(scene) = Scene::new(TEST) else { return };
    scene.everywhere(|_| true, |at, by| scene.reserve_beside(at, by));
}

#[test]
fn whoever_shares_blocks_may_die_or_stand_still_at_any_point() {
    const TEST: &str = "memory::whoever_shares_blocks_may_die_or_stand_still_at_any_point";
    let Some(scene) = Scene::new(TEST) else { return };
    scene.everywhere(|_| true, |at, by| scene.share_beside(at, by));
}

#[test]
fn whoever_grows_a_segment_may_die_or_stand_still_at_any_point() {
    const TEST: &str = "memory::whoever_grows_a_segment_may_die_or_stand_still_at_any_point";
    let Some(scene) = Scene::new(TEST) else { return };
    scene.everywhere(|_| true, |at, by| scene.grow_beside(at, by, false));
    // Both at once. The last child may have been killed, and has told no places then.
    assert!(matches!(scene.grow_beside("end", "kill", false), End::Done));
    let places = scene.places();
    for (place, count) in places.iter().filter(|(place, _)| place.starts_with("src/alloc/")) {
        scene.grow_beside(&format!("{place}#{}", count.div_ceil(2)), "kill", true);
    }
}
