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
                let group = log.reserve(7, pressure).unwrap();
                log.join(group, 5, 2);
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
                [&line.terms, &line.joined, &line.stuck, &line.since, &line.returned, &line.missed, &line.discarded]
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
                        Found::Settle { position, .. } => {
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
        if let Some(late) = log.reserve(1, Pressure::Lag) {
            log.join(late, 0, 9);
        }
        assert!(log.close_all().count() <= CELLS);
    }
}

#[test]
fn what_is_missed_is_counted_though_a_mark_has_no_room_for_it() {
    let log = log(0);
    let group = log.reserve(0, Pressure::Lag).unwrap();
    log.join(group, 0, 0);
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
    let first = log.reserve(0, Pressure::Lag).unwrap();
    log.join(first, 0, 0);
    let private = Position::new(0);
    assert!(publish(&log, &private, 0) && publish(&log, &private, 1));
    let mine = Position::new(0);
    let Found::Message(taken) = log.receive(first, &mine, 5) else { panic!("there is a message") };
    log.leave(first);
    log.free_columns();
    // What is held keeps the column.
    assert_eq!(log.reserve(1, Pressure::Lag).unwrap().column, 1);
    log.acknowledge(first, &taken);
    log.free_columns();
    let second = log.reserve(2, Pressure::Lag).unwrap();
    assert_eq!((second.column, second.epoch), (first.column, first.epoch + 1));
    log.join(second, 0, 0);
    assert!(matches!(log.receive(first, &mine, 5), Found::Evicted));
    log.acknowledge(first, &taken);
    assert_eq!(log.give_back(first, &taken, 3), GivenBack::Changed);
    assert!(publish(&log, &private, 2));
    let Found::Message(taken) = log.receive(second, &Position::new(0), 5) else { panic!("there is a message") };
    assert_eq!((taken.position, taken.block), (2, BlockId(2)));
}

#[test]
fn what_is_reserved_and_not_named_is_given_back_and_uses_up_no_epoch() {
    let log = log(0);
    let first = log.reserve(3, Pressure::Lag).unwrap();
    assert_eq!(log.reserved_for(3, Pressure::Lag), Some(first));
    assert_eq!((log.reserved_for(3, Pressure::Block), log.reserved_for(4, Pressure::Lag)), (None, None));
    let (index, column) = log.columns().next().unwrap();
    log.give_back_column(index, column);
    let again = log.reserve(3, Pressure::Lag).unwrap();
    assert_eq!(again, first);
    // A late step of who gave it back.
    log.give_back_column(index, column);
    assert_eq!(log.reserved_for(3, Pressure::Lag), Some(again));
    log.join(again, 0, 0);
    let column = log.columns().next().unwrap().1;
    log.give_back_column(index, column);
    assert!(log.is_active(again));
}

#[test]
fn a_publisher_that_comes_late_changes_no_mark_of_who_has_the_column_next() {
    let log = log(0);
    let first = log.reserve(0, Pressure::Lag).unwrap();
    log.join(first, 0, 0);
    let seen = log.columns().next().unwrap().1;
    log.leave(first);
    log.free_columns();
    let second = log.reserve(1, Pressure::Block).unwrap();
    log.join(second, 0, 0);
    assert_eq!(first.column, second.column);
    let private = Position::new(0);
    assert!(publish(&log, &private, 4));
    let Found::Message(_) = log.receive(second, &Position::new(0), 5) else { panic!("there is a message") };
    let mark = Mark(Log::load(log.mark(0, second.column)));
    assert!(mark.pins(second.epoch) && mark.epoch() != seen.epoch());
    assert!(!log.concerns(second.column, seen, 0));
}

#[test]
fn a_group_is_given_its_time_though_another_was_waited_for_at_the_same_position() {
    let log = log(4);
    let private = Position::new(0);
    for block in 0..4 {
        assert!(publish(&log, &private, block));
    }
    let next = |now| log.next(&Position::new(0), || now);
    let join = |entry| {
        let group = log.reserve(entry, Pressure::Evict).unwrap();
        log.join(group, 50, 4);
        group
    };
    let first = join(0);
    assert!(matches!(next(1000), Next::Wait(Some(50))));
    assert!(matches!(next(1049), Next::Wait(Some(1))));
    log.leave(first);
    log.free_columns();
    let second = join(1);
    assert_eq!((first.column, log.start(second)), (second.column, 0));
    assert!(matches!(next(2000), Next::Wait(Some(50))));
    assert!(matches!(next(2050), Next::Evict(0, _)));
}

#[test]
fn what_is_closed_around_a_join_is_told_and_nothing_before_it_is_given() {
    let log = log(4);
    let private = Position::new(0);
    for block in 0..4 {
        assert!(publish(&log, &private, block));
    }
    // Closed by who knows of no group: the second before the join, the last one after it.
    let close = |position: u64| {
        let cell = Log::load(log.cell(log.index(position)));
        assert!(Log::change(log.cell(log.index(position)), cell, closed(cell)));
    };
    close(1);
    let group = log.reserve(0, Pressure::Block).unwrap();
    log.join(group, 0, 4);
    close(3);
    let mine = Position::new(0);
    let Found::Message(taken) = log.receive(group, &mine, 5) else { panic!("there is a message") };
    assert_eq!((taken.position, taken.block), (2, BlockId(2)));
    assert!(matches!(log.receive(group, &mine, 5), Found::Lagged(1)));
    assert!(matches!(log.receive(group, &mine, 5), Found::Nothing));
}

#[test]
fn what_a_dead_member_had_claimed_and_somebody_closed_is_told_to_others() {
    for (is_closed, most) in [(true, 3), (false, 3), (true, 0), (false, 0)] {
        let log = log(4);
        assert!(publish(&log, &Position::new(0), 7));
        let group = log.reserve(0, Pressure::Lag).unwrap();
        log.join(group, 0, 4);
        let claimed = Mark::claimed(5, group.epoch, 0);
        log.mark(0, group.column).store(claimed.0, Ordering::SeqCst);
        if is_closed {
            let cell = Log::load(log.cell(0));
            assert!(Log::change(log.cell(0), cell, closed(cell)));
            assert!(log.unpinned(0).is_none());
        }
        log.bury(5, |_| most);
        // Who is past it hears of it, too.
        match log.receive(group, &Position::new(1), 6) {
            Found::Message(taken) => assert_eq!((taken.block, is_closed, most), (BlockId(7), false, 3)),
            Found::Lagged(missed) => assert_eq!((missed, is_closed), (1, true)),
            Found::Nothing => assert_eq!((is_closed, most), (false, 0)),
            found => panic!("{found:?}"),
        }
    }
}

/// Several laps are skipped, the first of them are told, and more are skipped in cells that the member has been told of already.
#[test]
fn what_is_skipped_after_some_was_told_is_told_before_the_next_message() {
    let log = log(0);
    let group = log.reserve(0, Pressure::Lag).unwrap();
    log.join(group, 0, 0);
    let (private, mine) = (Position::new(0), Position::new(0));
    let (mut sent, mut told, mut next) = (0, 0, 0);
    for more in [1, 9, 30, 3, 17, 8, 25, 16, 5] {
        for _ in 0..more {
            assert!(publish(&log, &private, sent));
            sent += 1;
        }
        // One look only, as if the member stood still after each.
        match log.receive(group, &mine, 0) {
            Found::Lagged(missed) => told += missed,
            Found::Message(taken) => {
                assert_eq!(taken.position, next + told);
                (told, next) = (0, taken.position + 1);
                log.acknowledge(group, &taken);
            }
            found => panic!("{found:?}"),
        }
    }
    let rest = std::iter::from_fn(|| match log.receive(group, &mine, 0) {
        Found::Lagged(missed) => Some(missed),
        Found::Message(taken) => {
            log.acknowledge(group, &taken);
            Some(1)
        }
        _ => None,
    });
    assert_eq!(next + told + rest.sum::<u64>(), u64::from(sent));
}

/// A message is held while its position is void, once or several times, and let go at any moment: its cell is emptied
/// while messages before that position are open.
#[test]
fn what_is_open_before_a_void_position_is_not_passed_over_when_that_is_emptied() {
    for (published, released) in
        (1..40).flat_map(|published| (1..=published).map(move |released| (published, released)))
    {
        let log = log(0);
        let [group, holder] = [log.reserve(0, Pressure::Lag).unwrap(), log.reserve(1, Pressure::Lag).unwrap()];
        [group, holder].into_iter().for_each(|group| log.join(group, 0, 0));
        let (private, mine, theirs) = (Position::new(0), Position::new(0), Position::new(0));
        let mut held = None;
        for number in 1..=published {
            assert!(publish(&log, &private, number));
            if number == 1 {
                let Found::Message(taken) = log.receive(holder, &theirs, 1) else { panic!("nothing is there") };
                held = Some(taken);
            }
            if number == released {
                log.acknowledge(holder, &held.take().unwrap());
                log.close_if_done(0);
                log.unpinned(0).map(|unpinned| log.take(unpinned));
            }
        }
        let found = std::iter::from_fn(|| match log.receive(group, &mine, 0) {
            Found::Lagged(missed) => Some(missed),
            Found::Message(taken) => {
                log.acknowledge(group, &taken);
                Some(1)
            }
            Found::Nothing => None,
            found => panic!("{found:?}"),
        });
        assert_eq!(found.sum::<u64>(), u64::from(published), "{published} published, let go after {released}");
    }
}
