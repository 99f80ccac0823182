//! Many processes, many tasks, many channels, and much coming and going: nothing is lost, nothing grows.

mod common;

use std::time::Duration;

use common::{Place, eventually, held, role, within};

const PROCESSES: u64 = 64;
const TASKS: u64 = 256;

/// Every process has 256 tasks, each of which sends a number and waits for one of anybody's.
#[test]
fn sixty_four_processes_of_256_tasks_share_a_segment() {
    const TEST: &str = "sixty_four_processes_of_256_tasks_share_a_segment";
    let place = Place::new();
    let segment = place.options().size(32 << 20).participants(80).open_or_create("many").unwrap();
    if let Some(role) = role() {
        let process: u64 = role.parse().unwrap();
        let (sender, receiver) = segment.channel::<u64>("numbers").capacity(128).open().unwrap();
        let sums = segment.channel::<u64>("sums").sender().unwrap();
        return within(async {
            let tasks: Vec<_> = (0..TASKS)
                .map(|task| {
                    let (sender, receiver) = (sender.clone(), receiver.clone());
                    tokio::spawn(async move {
                        sender.send(process * TASKS + task).await.unwrap();
                        drop(sender);
                        receiver.recv().await.map_or(0, |number| *number)
                    })
                })
                .collect();
            let mut sum = 0;
            for task in tasks {
                sum += task.await.unwrap();
            }
            sums.send(sum).await.unwrap();
        });
    }
    let (keep, sums) = segment.channel::<u64>("sums").open().unwrap();
    let hold = segment.channel::<u64>("numbers").capacity(128).open().unwrap();
    let children: Vec<_> = (0..PROCESSES).map(|process| place.spawn(TEST, &process.to_string())).collect();
    let mut sum = 0;
    within(async {
        for _ in 0..PROCESSES {
            sum += *sums.recv().await.unwrap();
        }
    });
    children.into_iter().for_each(common::Process::succeed);
    let all = PROCESSES * TASKS;
    assert_eq!(sum, all * (all - 1) / 2, "every number was received once");
    drop((keep, hold, sums));
    assert_eq!((held(&segment), segment.participants().len()), (0, 1));
}

#[test]
fn a_thousand_channels_work_side_by_side() {
    let place = Place::new();
    let segment = place.options().size(64 << 20).participants(4).channels(1024).create("wide").unwrap();
    // Another participant of the same file.
    let other = place.options().open("wide").unwrap();
    let ends: Vec<_> = (0..1000)
        .map(|number| {
            let name = format!("channel-{number}");
            let receiver = other.channel::<u64>(&name).capacity(64).receiver().unwrap();
            (segment.channel::<u64>(&name).capacity(64).sender().unwrap(), receiver)
        })
        .collect();
    assert_eq!(segment.channels().len(), 1000);
    within(async {
        for round in 0..20 {
            for (number, (sender, _)) in ends.iter().enumerate() {
                sender.send(round * 1000 + number as u64).await.unwrap();
            }
            for (number, (_, receiver)) in ends.iter().enumerate() {
                assert_eq!(*receiver.recv().await.unwrap(), round * 1000 + number as u64);
            }
        }
    });
    drop(ends);
    assert_eq!((held(&segment), segment.channels().len()), (0, 0));
}

/// Bytes of memory that this process has, without what it shares with others.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: Vec<usize> = pages.split_whitespace().map(|pages| pages.parse().unwrap()).collect();
    (pages[1] - pages[2]) * 4096
}

/// Descriptors and threads of this process.
fn own() -> (usize, usize) {
    let count = |path: &str| std::fs::read_dir(path).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

#[test]
fn opening_and_closing_without_end_leaves_nothing_behind() {
    const TEST: &str = "opening_and_closing_without_end_leaves_nothing_behind";
    // Alone in its process, whose descriptors and threads are counted.
    let place = Place::new();
    if role().is_none() {
        return place.spawn(TEST, "churn").succeed();
    }
    let keep = place.options().size(4 << 20).participants(8).create("churn").unwrap();
    let mut before = own();
    let mut warm = (0, 0);
    let taken = || std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(place.path().join("churn")).unwrap());
    // `WATERWAY_TEST_ROUNDS=100000` for an hour of it.
    let rounds = common::rounds(300);
    for round in 0..rounds {
        if round == rounds / 3 {
            warm = (resident(), taken());
        }
        if round == 10 {
            // By now there is everything that stays: a timer thread, and the like.
            eventually("threads that have ended are gone", || {
                let now = own();
                let calm = now == before;
                before = now;
                std::thread::sleep(Duration::from_millis(5));
                calm
            });
        }
        let segment = place.options().open("churn").unwrap();
        for number in 0..5 {
            let (sender, receiver) = segment.channel::<u64>(&format!("{number}")).open().unwrap();
            sender.try_send(round).unwrap();
            assert_eq!(receiver.try_recv().unwrap().into_inner(), round);
            within(async { receiver.recv_timeout(Duration::from_micros(10)).await.unwrap_err() });
        }
    }
    eventually("threads that have ended are gone", || own() == before);
    // Neither this process nor the segment has grown; the process's own allocator may keep a little.
    let grown = resident().saturating_sub(warm.0);
    assert!(grown < 1 << 20, "{grown} bytes in {} rounds", rounds - rounds / 3);
    assert_eq!(taken(), warm.1);
    assert_eq!((held(&keep), keep.channels().len(), keep.participants().len()), (0, 0, 1));
}
