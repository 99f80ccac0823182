//! What is drawn, without a terminal.

use std::{fs, path::PathBuf};

use ratatui::{Terminal, backend::TestBackend};
use waterway::{Observer, Segment};

use super::*;

struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A segment with something of several kinds, and a screen on which nothing is drawn yet.
fn furnished(name: &str) -> (Place, Segment, impl Sized, Top) {
    let place = Place(std::env::temp_dir().join(format!("waterway-test-top-{name}-{}", std::process::id())));
    let segment = Segment::options().dir(&place.0).size(1 << 20).create("market").unwrap();
    let (lines, from_lines) = segment.bytes("lines").capacity(4).open().unwrap();
    (0..4).for_each(|number| lines.try_send(format!("line {number}\n")).unwrap());
    let ticks = segment.channel::<u64>("ticks").open().unwrap();
    let prices = segment.broadcast::<u64>("prices").group("screens").subscriber().unwrap();
    let publisher = segment.broadcast::<u64>("prices").publisher().unwrap();
    publisher.try_send(7).unwrap();
    let top = Top::new(String::new(), Paint { has_colour: false, has_blocks: true });
    (place, segment, (lines, from_lines, ticks, prices, publisher), top)
}

fn look(top: &mut Top, place: &Place) {
    let observer = Observer::open_path(place.0.join("market")).map_err(|error| error.to_string());
    top.seen.look_at([("market".to_owned(), observer)].into_iter());
}

fn drawn(top: &Top, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen::draw(top, frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned() + "\n";
    (0..height).map(row).collect()
}

fn press(top: &mut Top, code: KeyCode) -> Then {
    top.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn type_in(top: &mut Top, text: &str) {
    for letter in text.chars() {
        press(top, KeyCode::Char(letter));
    }
}

#[test]
fn eighty_columns_and_no_colour_say_all_of_it() {
    let (place, _segment, _furniture, mut top) = furnished("all");
    look(&mut top, &place);
    look(&mut top, &place);
    let screen = drawn(&top, 80, 24);
    for text in [
        " waterway top  1 segments  4 channels",
        ">market",
        ">market/lines        chan  █████ 4/4",
        " market/prices       bcast ░░░░░ 1/256",
        " market/ticks        chan  ░░░░░ 0/1024",
        "MEMORY of market",
        "small",
        "q quit",
    ] {
        assert!(screen.contains(text), "{text:?} is not in\n{screen}");
    }
    assert!(screen.contains(&std::process::id().to_string()), "{screen}");
    // However small the terminal is.
    for (width, height) in [(1, 1), (20, 5), (79, 10), (300, 100)] {
        assert_eq!(drawn(&top, width, height).lines().count(), usize::from(height));
    }
    top.paint.has_blocks = false;
    let screen = drawn(&top, 80, 24);
    assert!(screen.is_ascii() && screen.contains(">market/lines        chan  ##### 4/4"), "{screen}");
}

#[test]
fn keys_sort_filter_freeze_and_look_into_things() {
    let (place, segment, _furniture, mut top) = furnished("keys");
    look(&mut top, &place);
    let order = |top: &Top| -> Vec<String> {
        top.rows().iter().map(|(segment, channel)| top.seen.segments[*segment].views[*channel].name.clone()).collect()
    };
    assert_eq!(order(&top)[0], "lines");
    press(&mut top, KeyCode::Char('r'));
    assert_eq!(order(&top)[0], "ticks");
    press(&mut top, KeyCode::Char('r'));
    // By depth after name, sent and received.
    type_in(&mut top, "sss");
    assert_eq!((top.sort, order(&top)[0].as_str()), (Sort::Depth, "lines"));
    // A filter, typed.
    press(&mut top, KeyCode::Char('/'));
    type_in(&mut top, "tickx");
    press(&mut top, KeyCode::Backspace);
    press(&mut top, KeyCode::Enter);
    assert_eq!(order(&top), ["ticks"]);
    assert!(drawn(&top, 80, 24).contains("/tick"));
    press(&mut top, KeyCode::Esc);
    assert_eq!(order(&top).len(), 4);
    // What is selected stays so wherever it moves.
    press(&mut top, KeyCode::End);
    let selected = top.selection().unwrap().1.to_owned();
    press(&mut top, KeyCode::Char('s'));
    press(&mut top, KeyCode::Char('r'));
    assert_eq!(top.selection().unwrap().1, selected);
    // Into a channel, and back.
    press(&mut top, KeyCode::Char('/'));
    type_in(&mut top, "lines");
    press(&mut top, KeyCode::Enter);
    press(&mut top, KeyCode::Enter);
    let screen = drawn(&top, 80, 24);
    for text in [" market/lines", "channel of bytes  at most once", "4 of 4", "both"] {
        assert!(screen.contains(text), "{text:?} is not in\n{screen}");
    }
    press(&mut top, KeyCode::Esc);
    // Its payloads; the keys look in the usual directory, so what they would find is put there.
    top.select(0);
    top.page = Page::Payloads;
    top.seen.peeked = Ok(Observer::open_path(place.0.join("market")).unwrap().peek("lines", 9));
    let screen = drawn(&top, 80, 24);
    assert!(screen.contains("market/lines: 4 wait") && screen.contains("line 3\\n"), "{screen}");
    press(&mut top, KeyCode::Char('?'));
    assert!(drawn(&top, 80, 24).contains("freeze, and go on"));
    press(&mut top, KeyCode::Esc);
    // What is frozen is not looked at.
    press(&mut top, KeyCode::Char(' '));
    segment.notify("new").map(drop).unwrap();
    top.look().unwrap();
    assert!(drawn(&top, 80, 24).contains("FROZEN") && top.seen.segments.len() == 1);
    press(&mut top, KeyCode::Esc);
    assert_eq!(press(&mut top, KeyCode::Char('q')), Then::Quit);
}

#[test]
fn rates_come_of_two_looks_and_what_is_broken_is_said() {
    let (place, segment, _furniture, mut top) = furnished("rates");
    let (sender, _receiver) = segment.bytes("more").open().unwrap();
    look(&mut top, &place);
    (0..100).for_each(|_| sender.try_send("line").unwrap());
    look(&mut top, &place);
    let seen = &top.seen.segments[0];
    let more = seen.views.iter().position(|view| view.name == "more").unwrap();
    assert!(seen.rates(more).0 > 0.0 && seen.rates(more).1 == 0.0);
    assert!(drawn(&top, 80, 24).contains('█'));
    top.seen.look_at([("market".to_owned(), Err("it is not so".to_owned()))].into_iter());
    let screen = drawn(&top, 80, 24);
    assert!(screen.contains(">market") && screen.contains("it is not so"), "{screen}");
    top.seen.look_at(std::iter::empty());
    assert!(drawn(&top, 80, 24).contains("there are no segments"));
}
