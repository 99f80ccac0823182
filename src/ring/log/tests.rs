//! The log alone: what garbage does to it, and marks that count for long.

use super::*;

const CELLS: usize = 8;
const COLUMNS: usize = 4;

fn zeroed(len: usize) -> SharedSlice<AtomicU64> {
    SharedSlice::leak((0..len).map(|_| AtomicU64::new(0)).collect())
}

fn log(history: u64) -> Log {
    let lines = SharedSlice::leak((0..COLUMNS).map(|_| GroupLine::default()).collect());
    let hint = SharedRef::leak(AtomicU64::new(0));
    Log::new(zeroed(CELLS), zeroed(COLUMNS * CELLS), zeroed(COLUMNS), lines, hint, (CELLS as u64 / 2, history))
}

/// Publishes; `false` if somebody is waited for.
fn publish(log: &Log, private: &Position, block: u32) -> bool {
    for _ in 0..100 {
        match log.next(private, || 0) {
            Next::Vacant(vacancy) => return log.fill(private, vacancy, BlockId(block)).is_some(),
            Next::Retire(index) => {
                if let Some(unpinned) = log.unpinned(index) {
                    log.take(unpinned);
                }
            }
            Next::Evict(index, column) => assert!(log.evict(index, column)),
            Next::Wait(_) => return false,
        }
    }
    false
}

#[test]
fn whatever_stands_in_its_words_nothing_panics_or_goes_on_for_ever() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    for round in 0..20_000 {
        let log = log(2);
        let groups: Vec<Group> = [Pressure::Lag, Pressure::Block, Pressure::Evict]
            .map(|pressure| {
                let group = log.reserve(7, pressure, 3).unwrap();
                assert!(log.activate(group, 5, 2));
                group
            })
            .into();
        let private = Position::new(0);
        for block in 0..random() % 5 {
            publish(&log, &private, block as u32);
        }
        // Some words, of some kind, with a few bits or all of them.
        for _ in 0..1 + random() % 6 {
            let bits = if round % 2 == 0 { random() } else { 1 << (random() % 64) };
            let lines = log.lines.iter().flat_map(|line| {
                [&line.start, &line.patience, &line.stuck, &line.returned, &line.missed, &line.joined]
            });
            let words: Vec<&AtomicU64> =
                log.cells.iter().chain(log.marks.iter()).chain(log.columns.iter()).chain(lines).collect();
            let word = words[(random() % words.len() as u64) as usize];
            word.store(word.load(Ordering::SeqCst) ^ bits, Ordering::SeqCst);
            if random() % 4 == 0 {
                log.tail_hint.store(bits, Ordering::SeqCst);
            }
        }
        for start in [0, random()] {
            let private = Position::new(start);
            publish(&log, &private, 9);
            log.has_room(random());
            log.shed(|| 0);
            for group in &groups {
                let mine = Position::new(start);
                log.has_work(*group, &mine);
                log.waiting(*group, &mine);
                log.is_held_by_others(*group, 1);
                for _ in 0..2 * CELLS {
                    match log.receive(*group, &mine, 1) {
                        Found::Message(taken) => {
                            log.give_back(*group, &taken, random() % 3);
                        }
                        Found::Settle(position) => {
                            log.close_if_done(position);
                        }
                        _ => {}
                    }
                }
            }
        }
        log.bury(1, |_| 2);
        for position in log.published() {
            log.close_if_done(position);
        }
        groups.iter().for_each(|group| log.leave(*group));
        groups.iter().for_each(|group| log.forget_returned(*group));
        log.free_columns();
        let late = log.reserve(1, Pressure::Lag, 1);
        late.map(|group| log.activate(group, 0, 9));
        assert!(log.close_all().count() <= CELLS);
    }
}

#[test]
fn what_is_missed_is_counted_though_a_mark_has_no_room_for_it() {
    let log = log(0);
    let group = log.reserve(0, Pressure::Lag, 0).unwrap();
    assert!(log.activate(group, 0, 0));
    let (private, mine) = (Position::new(0), Position::new(0));
    let sent = (MOST_SKIPPED + 3) * CELLS as u64;
    for block in 0..sent {
        assert!(publish(&log, &private, block as u32));
    }
    let Found::Lagged(missed) = log.receive(group, &mine, 0) else { panic!("it has missed nothing") };
    let rest = std::iter::from_fn(|| match log.receive(group, &mine, 0) {
        Found::Message(taken) => Some(taken.position),
        _ => None,
    });
    assert!(rest.eq(missed..sent));
    assert_eq!(missed, sent - CELLS as u64 / 2);
}

#[test]
fn columns_are_used_again_and_late_steps_of_who_had_them_are_none() {
    let log = log(0);
    let first = log.reserve(0, Pressure::Lag, 0).unwrap();
    assert!(log.activate(first, 0, 0));
    let private = Position::new(0);
    assert!(publish(&log, &private, 0) && publish(&log, &private, 1));
    let mine = Position::new(0);
    let Found::Message(taken) = log.receive(first, &mine, 5) else { panic!("there is a message") };
    log.leave(first);
    log.free_columns();
    // What is held keeps the column.
    assert_eq!(log.reserve(1, Pressure::Lag, 0).unwrap().column, 1);
    log.acknowledge(first, &taken);
    log.free_columns();
    let second = log.reserve(2, Pressure::Lag, 0).unwrap();
    assert_eq!((second.column, second.epoch), (first.column, first.epoch + 1));
    assert!(log.activate(second, 0, 0));
    assert!(matches!(log.receive(first, &mine, 5), Found::Evicted));
    log.acknowledge(first, &taken);
    assert_eq!(log.give_back(first, &taken, 3), GivenBack::Changed);
    assert!(publish(&log, &private, 2));
    let Found::Message(taken) = log.receive(second, &Position::new(0), 5) else { panic!("there is a message") };
    assert_eq!((taken.position, taken.block), (2, BlockId(2)));
}
