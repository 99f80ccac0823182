//! Somebody overwrites a segment's tables while others work in it: they see errors, and nothing worse. No crash, no panic
//! in any thread, nothing that never ends; and another segment of the same processes does not notice.
//!
//! Every round has a seed. `WATERWAY_TEST_SEED=N` plays that round alone, as far as processes at random times can be played
//! again; `WATERWAY_TEST_ROUNDS=N` plays more of them.

mod common;
mod ground;

use std::{
    ops::Range,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{Place, Process, Random, Stamp, eventually, role};
use ground::Ground;
use waterway::{
    Segment,
    channel::{Permit, Receiver, Sender},
};

const PEERS: u32 = 3;
/// How long the others may take to come to their ends when the garbage is complete.
const END: Duration = Duration::from_secs(30);

fn options(place: &Place) -> waterway::SegmentOptions {
    place.options().participants(8).channels(32)
}

fn bad(place: &Place) -> Segment {
    options(place).size(6 << 20).max_size(10 << 20).persistent(true).open_or_create("bad").unwrap()
}

fn good(place: &Place) -> Segment {
    options(place).size(2 << 20).open_or_create("good").unwrap()
}

/// A panic in any thread, and be it one that nobody waits for, ends the process.
fn end_at_panics() {
    std::panic::set_hook(Box::new(|what| {
        eprintln!("{what}\n{}", std::backtrace::Backtrace::force_capture());
        std::process::abort();
    }));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// One of the many things that one can do with a segment. What comes of it is not looked at, but that it comes to an end.
fn do_something(segment: &Segment, sender: u32, random: &mut Random) {
    const SHORT: Duration = Duration::from_millis(3);
    let name = ["a", "b", "c", "d"][random.below(4)];
    let len = [random.below(300), random.below(30_000), random.below(200_000)][random.below(3)];
    let bytes = || segment.bytes(name).capacity(64);
    match random.below(13) {
        0 | 1 => {
            let Ok(to) = bytes().sender() else { return };
            for number in 0..random.below(100) as u64 {
                let _ = to.try_send(Stamp { sender, number }.message(len));
            }
        }
        2 | 3 => {
            let Ok(from) = bytes().receiver() else { return };
            let mut kept = Vec::new();
            for _ in 0..random.below(100) {
                kept.extend(from.try_recv().ok());
            }
            let _ = (from.len(), from.inquire(), from.drain().count());
            assert!(
                kept.iter().all(|message| message.iter().map(|byte| usize::from(*byte)).sum::<usize>() < usize::MAX)
            );
        }
        4 => runtime().block_on(async {
            let Ok((to, from)) = bytes().open() else { return };
            let message = Stamp { sender, number: 1 }.message(len);
            let _ = futures::join!(to.send_timeout(&message, SHORT), from.recv_timeout(SHORT));
            let _ = tokio::time::timeout(SHORT, to.reserve_many(40, 20)).await.map(|permits| permits.map(drop));
            let _ = tokio::time::timeout(SHORT, from.recv_many(&mut Vec::new(), 20)).await;
        }),
        5 => {
            let Ok((to, from)) = segment.channel::<u64>("numbers").capacity(8).open() else { return };
            (0..20).for_each(|number| _ = to.try_send(number));
            let _ = (to.try_reserve().map(drop), to.capacity(), to.force_send(1).map(drop), from.try_recv().map(drop));
        }
        6 => {
            let allocator = segment.allocator();
            let Ok(block) = allocator.allocate_copy(&vec![1; len]) else { return };
            let handle = block.handle();
            let _ = block.try_read().map(|guard| guard.len());
            let _ = block.write_timeout(SHORT).map(|mut guard| guard.fill(2));
            let _ = allocator.resolve_bytes(handle).map(|found| found.read_timeout(SHORT).map(|guard| guard.len()));
            let _ = (block.set_state(60), block.header());
            let _ = allocator.adopt::<[u8]>(block.into_handle()).map(drop);
        }
        7 => {
            let allocator = segment.allocator();
            let raw: Vec<_> = (0..random.below(60)).map_while(|_| allocator.allocate_raw(len).ok()).collect();
            for block in raw {
                let handle = block.into_handle();
                let _ = allocator.take_raw(handle).map(drop);
            }
        }
        8 => runtime().block_on(async {
            let layout = std::alloc::Layout::from_size_align(len + 1, 8).unwrap();
            let _ = tokio::time::timeout(SHORT, segment.allocator().allocate_when_free(layout)).await.map(drop);
        }),
        9 => drop((segment.check_live(), segment.stats())),
        10 => {
            segment.bury_the_dead();
            let _ = (segment.channels(), segment.participants());
        }
        11 => {
            let Ok((to, from)) = segment.bytes(&format!("own-{}", random.below(3))).capacity(3).open() else { return };
            let _ = (to.try_send([1]), to.try_send(vec![2; len]), from.try_recv().map(|message| message.forward(&to)));
        }
        _ => {
            let _ = segment.allocator().blocks().count();
        }
    }
}

/// Works until it is told to stop, in two threads; then it must be able to talk in the good segment.
fn peer(place: &Place, number: u32, seed: u64) {
    end_at_panics();
    let (bad, good) = (bad(place), good(place));
    let report = good.bytes("reports").sender().unwrap();
    report.blocking_send([0]).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for half in 0..2 {
            let (bad, stop) = (&bad, &stop);
            let mut random = Random::new(seed << 8 | u64::from(2 * number + half));
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    do_something(bad, number, &mut random);
                }
            });
        }
        // Neighbours of the same process are not to be hurt.
        let (to, from) = good.bytes(&format!("own-{number}")).open().unwrap();
        let (path, started) = (place.path().join("stop"), Instant::now());
        for count in 0.. {
            let stamp = Stamp { sender: number, number: count };
            to.blocking_send(stamp.message(count as usize % 5000 + 1)).unwrap();
            assert_eq!(Stamp::verify(&from.blocking_recv().unwrap()), Some(stamp));
            thread::sleep(Duration::from_micros(500));
            // Not for ever: whoever would tell us may have been killed.
            if path.exists() || started.elapsed() > END {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    afterwards(&bad, number);
    drop(bad);
    assert!(good.check_live().is_clean());
    report.blocking_send([1]).unwrap();
}

/// Whatever stands there now, all of this ends.
fn afterwards(bad: &Segment, number: u32) {
    let mut random = Random::new(u64::from(number));
    let _ = (bad.check(), bad.quarantine(), bad.check());
    for _ in 0..30 {
        do_something(bad, number, &mut random);
    }
}

/// Does all that a peer does, and is killed meanwhile; or comes when all is over.
fn play(place: &Place, role: &str) {
    let mut words = role.split(' ');
    let mut next = || words.next().unwrap().to_owned();
    let (kind, number, seed): (String, u32, u64) = (next(), next().parse().unwrap(), next().parse().unwrap());
    end_at_panics();
    match kind.as_str() {
        "late" => {
            if let Ok(bad) = options(place).open("bad") {
                afterwards(&bad, number);
            }
        }
        "peer" => peer(place, number, seed),
        wound => strict_peer(place, number, seed, WOUNDS.iter().find(|known| known.name == wound).unwrap()),
    }
}

/// Waits for a process that must come to a good end.
fn ends_well(mut process: Process, what: &str, seed: u64) {
    let started = Instant::now();
    let status = loop {
        if let Some(status) = process.ended() {
            break status;
        }
        if started.elapsed() > END {
            if std::env::var_os("WATERWAY_TEST_HOLD").is_some() {
                let _ = std::process::Command::new("gdb")
                    .args(["-batch", "-ex", "thread apply all bt 30", "-p", &process.pid().to_string()])
                    .status();
            }
            panic!("{what} hangs; seed {seed}");
        }
        thread::sleep(Duration::from_millis(2));
    };
    assert!(status.success(), "{what} ended with {status}; seed {seed}");
}

fn round(test: &str, seed: u64) {
    let place = Place::new();
    let mut random = Random::new(seed);
    let (segment, good) = (bad(&place), good(&place));
    let reports = good.bytes("reports").receiver().unwrap();
    let ground = Ground::of(&place.path().join("bad"));
    // Some that stay, whatever happens.
    for name in ["a", "b", "c", "d"] {
        drop(segment.bytes(name).capacity(64).persistent(true).open().unwrap());
    }
    drop(segment);
    let start = |kind: &str, number: u32| place.spawn(test, &format!("{kind} {number} {seed}"));
    let peers: Vec<Process> = (0..PEERS).map(|number| start("peer", number)).collect();
    let victim = start("peer", PEERS);
    let mut here = 0;
    eventually("all peers are there", || {
        here += usize::from(reports.try_recv().is_ok());
        here == PEERS as usize + 1
    });
    let parts = ground.parts();
    let chosen: Vec<_> = match random.below(4) {
        0 => parts,
        most => (0..most).map(|_| parts[random.below(parts.len())].clone()).collect(),
    };
    let names: Vec<_> = chosen.iter().map(|part| part.0).take(4).collect();
    let most = 1 << random.below(10);
    let (bursts, each) = (1 + random.below(60), 1 + random.below(most));
    eprintln!("seed {seed}: {bursts} times {each} words of {names:?}");
    let mut victim = Some(victim);
    for burst in 0..bursts {
        for _ in 0..each {
            let part = &chosen[random.below(chosen.len())].1;
            ground.spoil(part, &mut random);
        }
        if burst == bursts / 2 {
            victim.take().into_iter().for_each(Process::kill);
        }
        thread::sleep(Duration::from_micros(random.below(2000) as u64));
    }
    thread::sleep(Duration::from_millis(10));
    std::fs::write(place.path().join("stop"), "").unwrap();
    let late = start("late", PEERS + 1);
    for (number, process) in peers.into_iter().enumerate() {
        ends_well(process, &format!("peer {number}"), seed);
    }
    ends_well(late, "who came late", seed);
    // All have said in the good segment that they have got this far.
    let mut said = 0;
    while reports.try_recv().is_ok_and(|message| *message == [1]) {
        said += 1;
    }
    assert_eq!(said, PEERS);
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

#[test]
fn garbage_in_any_table_hurts_nobody_but_that_segment() {
    const TEST: &str = "garbage_in_any_table_hurts_nobody_but_that_segment";
    if let Some(role) = role() {
        return play(&Place::new(), &role);
    }
    each_round(TEST, 25, |seed| round(TEST, seed));
}

/// What a sector or a channel beside the damaged one must still do: every message arrives, whole and in order.
struct Neighbour {
    name: &'static str,
    capacity: usize,
    /// How long its messages are, so that they are meant for one sector.
    least: usize,
    most: usize,
    /// That sector.
    sector: usize,
}

/// The sender of a message that is the last.
const LAST: u32 = u32::MAX;

/// Blocks of the small sector, the medium one, and the large one. The rings of the first two stand in the medium sector,
/// unless their capacity is so large that they stand in the large one.
const SMALL: Neighbour = Neighbour { name: "small", capacity: 64, least: 1, most: 200, sector: 0 };
const MEDIUM: Neighbour = Neighbour { name: "medium", capacity: 64, least: 3000, most: 9000, sector: 1 };
const LARGE: Neighbour = Neighbour { name: "large", capacity: 1, least: 540_000, most: 560_000, sector: 2 };
const SMALL_APART: Neighbour = Neighbour { name: "small-apart", capacity: 40_000, least: 1, most: 200, sector: 0 };

/// What is overwritten, and who must not notice.
struct Wound {
    name: &'static str,
    hurt: &'static Neighbour,
    safe: &'static [&'static Neighbour],
    /// The sector, or else the ring of the channel.
    sector: Option<usize>,
}

const WOUNDS: [Wound; 4] = [
    Wound { name: "small", hurt: &SMALL, safe: &[&MEDIUM, &LARGE], sector: Some(0) },
    Wound { name: "medium", hurt: &MEDIUM, safe: &[&SMALL_APART], sector: Some(1) },
    Wound { name: "large", hurt: &LARGE, safe: &[&SMALL, &MEDIUM], sector: Some(2) },
    Wound { name: "ring", hurt: &SMALL, safe: &[&MEDIUM, &LARGE], sector: None },
];

fn strict_round(test: &str, wound: &Wound, seed: u64) {
    let place = Place::new();
    let mut random = Random::new(seed);
    let (segment, good) = (bad(&place), good(&place));
    let reports = good.bytes("reports").receiver().unwrap();
    let ground = Ground::of(&place.path().join("bad"));
    // Now, while nobody is in the way, their rings are where they are meant to be.
    let safe = wound.safe.iter().flat_map(|neighbour| (0..PEERS).map(|of| open(&segment, neighbour, of)));
    let ends: Vec<_> = safe.chain([open(&segment, wound.hurt, 0)]).collect();
    let peers: Vec<_> =
        (0..PEERS).map(|number| place.spawn(test, &format!("{} {number} {seed}", wound.name))).collect();
    let mut here = 0;
    let mut count = |what: &str, until: usize| {
        eventually(what, || {
            here += usize::from(reports.try_recv().is_ok());
            here == until
        });
    };
    count("all peers are there", PEERS as usize);
    drop(ends);
    let channel = ground.channel(&format!("{}-0", wound.hurt.name)).unwrap();
    let (parts, entry) = match wound.sector {
        Some(sector) => (vec![ground.sector(sector).words, ground.sector(sector).maps], None),
        None => (vec![ground.ring(channel).unwrap().0], Some((ground.entry(channel).start, ground.bitmaps(channel)))),
    };
    let (bursts, each) = (1 + random.below(60), 1 + random.below(200));
    eprintln!("seed {seed}: {bursts} times {each} words of {}", wound.name);
    for _ in 0..bursts {
        for _ in 0..each {
            match &entry {
                None => ground.spoil(&parts[random.below(parts.len())], &mut random),
                // Anything at all: a cell that is copied or guessed may name a message of another channel, and takes it away.
                Some((entry, bitmaps)) if random.below(8) > 0 => {
                    // Who is parked or has permits, or a hint.
                    let bits = bitmaps.start + 8 * random.below(bitmaps.len() / 8);
                    let at = [bits, bits, entry + 8 * 8, entry + 8 * 16][random.below(4)];
                    ground.write(at, random.next());
                }
                Some(_) => ground.write(parts[0].start + 8 * random.below(parts[0].len() / 8), random.next()),
            }
        }
        thread::sleep(Duration::from_micros(random.below(2000) as u64));
    }
    std::fs::write(place.path().join("stop"), "").unwrap();
    for (number, process) in peers.into_iter().enumerate() {
        ends_well(process, &format!("peer {number}"), seed);
    }
    count("all senders have ended", PEERS as usize * (1 + wound.safe.len()));
    drop(segment);
}

fn open(bad: &Segment, neighbour: &Neighbour, of: u32) -> (Sender<[u8]>, Receiver<[u8]>) {
    bad.bytes(&format!("{}-{of}", neighbour.name)).capacity(neighbour.capacity).open().unwrap()
}

/// Where a byte of this process stands in a file that it has mapped.
fn offset_in(file: &Path, byte: *const u8) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let number = |hex: &str| usize::from_str_radix(hex, 16).unwrap();
    let found = maps.lines().filter(|line| line.ends_with(file.to_str().unwrap())).find_map(|line| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let offset = fields.nth(1)?;
        (number(start)..number(end)).contains(&byte.addr()).then(|| number(offset) + byte.addr() - number(start))
    });
    found.expect("the file is mapped there")
}

/// A permit whose block stands in the sector that it is meant for. Where others are about to cut a block out of the last
/// run there, the allocator goes on to the next sector.
fn permit_in<'a>(to: &'a Sender<[u8]>, len: usize, sector: &Range<usize>, file: &Path) -> Permit<'a, [u8]> {
    let (runtime, started) = (runtime(), Instant::now());
    loop {
        let left = END.saturating_sub(started.elapsed());
        let permit = runtime.block_on(async { tokio::time::timeout(left, to.reserve(len)).await });
        let permit = permit.expect("a block in the sector").unwrap();
        if sector.contains(&offset_in(file, permit.as_ptr())) {
            return permit;
        }
    }
}

/// Talks to the next peer in a neighbouring channel, and does anything in the channel that is hurt, until told to stop.
fn strict_peer(place: &Place, number: u32, seed: u64, wound: &Wound) {
    let Wound { hurt, safe, .. } = wound;
    end_at_panics();
    let (bad, good) = (bad(place), good(place));
    let report = good.bytes("reports").sender().unwrap();
    let pairs: Vec<_> = safe
        .iter()
        .map(|neighbour| {
            let ((to, _), (_, from)) = (open(&bad, neighbour, number), open(&bad, neighbour, (number + 1) % PEERS));
            (to, from, *neighbour)
        })
        .collect();
    let (to_hurt, from_hurt) = open(&bad, hurt, 0);
    let file = place.path().join("bad");
    let ground = Ground::of(&file);
    report.blocking_send([0]).unwrap();
    let (stop, started) = (place.path().join("stop"), Instant::now());
    thread::scope(|scope| {
        for (to, from, neighbour) in pairs {
            let (report, stop, file, own) = (&report, &stop, &file, ground.place(neighbour.sector));
            scope.spawn(move || {
                for count in 0.. {
                    let stopped = count % 16 == 0 && (stop.exists() || started.elapsed() > END);
                    let stamp = Stamp { sender: if stopped { LAST } else { number }, number: count };
                    let len = neighbour.least + count as usize * 7919 % (neighbour.most - neighbour.least);
                    let message = stamp.message(len);
                    let mut permit = permit_in(&to, message.len(), &own, file);
                    permit.extend_from_slice(&message);
                    permit.send();
                    if stopped {
                        break;
                    }
                }
                report.blocking_send([1]).unwrap();
            });
            scope.spawn(move || {
                for count in 0.. {
                    let message = runtime().block_on(from.recv_timeout(END)).unwrap();
                    let stamp = Stamp::verify(&message).unwrap();
                    assert_eq!(stamp.number, count, "of {}, {} invalid", neighbour.name, from.invalid());
                    if stamp.sender == LAST {
                        break;
                    }
                    assert_eq!(stamp.sender, (number + 1) % PEERS);
                }
                assert_eq!(from.invalid(), 0);
            });
        }
        let mut random = Random::new(seed << 8 | u64::from(number));
        while !stop.exists() && started.elapsed() < END {
            for _ in 0..20 {
                let _ = to_hurt.try_send(vec![1; hurt.least + random.below(hurt.most - hurt.least)]);
                let _ = from_hurt.try_recv().map(|message| message.len());
            }
            thread::sleep(Duration::from_micros(50));
        }
    });
    let _ = (bad.quarantine(), bad.check());
}

fn each_round(test: &str, rounds: u64, round: impl Fn(u64)) {
    let first = number_of("WATERWAY_TEST_SEED").or(number_of("WATERWAY_TEST_FIRST")).unwrap_or(1);
    let rounds = match std::env::var_os("WATERWAY_TEST_SEED") {
        Some(_) => 1,
        None => number_of("WATERWAY_TEST_ROUNDS").unwrap_or(rounds),
    };
    (first..first + rounds).for_each(round);
    eprintln!("{test}: {rounds} rounds from {first} on");
}

#[test]
fn garbage_in_one_sector_or_ring_stops_no_channel_elsewhere() {
    const TEST: &str = "garbage_in_one_sector_or_ring_stops_no_channel_elsewhere";
    if let Some(role) = role() {
        return play(&Place::new(), &role);
    }
    each_round(TEST, 12, |seed| strict_round(TEST, &WOUNDS[seed as usize % 4], seed));
}

/// What must come to an end, although nobody else helps it.
fn must_end(what: &'static str, work: impl FnOnce() + Send + 'static) {
    let (done, ended) = std::sync::mpsc::channel();
    thread::spawn(move || {
        work();
        done.send(()).unwrap();
    });
    assert_eq!(ended.recv_timeout(END), Ok(()), "{what}");
}

/// What the rounds have found, one by one.
#[test]
fn an_extent_that_was_overwritten_ends_the_growth_of_its_sector() {
    const EXTENTS: usize = 2048 + 192;
    for extent in [0, 7, u64::MAX] {
        let place = Place::new();
        let segment = bad(&place);
        let ground = Ground::of(&place.path().join("bad"));
        ground.write(EXTENTS + 8, extent);
        // Where its next end would be, something stands that is none.
        for granule in 200..400 {
            ground.write(ground.sector(1).words.start + 8 * granule, u64::MAX);
        }
        must_end("sending until there is no memory", move || {
            let Ok(sender) = segment.bytes("data").capacity(1000).sender() else { return };
            for _ in 0..3000 {
                let _ = sender.try_send([1; 5000]);
            }
        });
    }
}

#[test]
fn a_block_whose_head_was_overwritten_is_left_alone_when_it_is_freed() {
    for len in [0, (1 << 22) - 1] {
        let place = Place::new();
        let segment = bad(&place);
        let ground = Ground::of(&place.path().join("bad"));
        let blocks: Vec<_> =
            [100, 3000, 200_000].map(|len| segment.allocator().allocate_copy(&vec![1; len]).unwrap()).into();
        let raw: Vec<_> = segment.bytes("data").open().into_iter().collect();
        for at in (0..3).flat_map(|sector| ground.sector(sector).words.step_by(8)) {
            ground.write(at, ground.read(at) & !(((1 << 22) - 1) << 24) | len << 24);
        }
        must_end("freeing and leaving", move || drop((blocks, raw, segment)));
    }
}

#[test]
fn a_doorbell_that_was_overwritten_keeps_nobody_from_leaving() {
    let place = Place::new();
    let (segment, other) = (bad(&place), bad(&place));
    let ground = Ground::of(&place.path().join("bad"));
    // Long enough for both bridges to sleep without a timeout.
    thread::sleep(Duration::from_millis(800));
    let slots = ground.parts()[1].1.clone();
    for at in slots.step_by(128) {
        // The lifeline, beside it, stays.
        ground.write(at + 64, ground.read(at + 64) & !0xffff_ffff);
    }
    must_end("leaving", move || drop((segment, other)));
}
