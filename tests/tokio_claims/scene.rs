//! Plays the script of a claim: all of it in this process, or its receiving side in another one.

use std::{
    io::{BufRead, BufReader, Write},
    process::ChildStdin,
    sync::mpsc,
    thread,
};

use waterway::Segment;

use crate::{
    common::{PATIENCE, Place, Process, assert_empty, role},
    side::Side,
};

/// Before every answer of the far side: the test harness writes to its standard output, too.
const MARK: &str = "\u{1}";

/// The test that is the far side in a child.
const FAR_SIDE: &str = "far_side";

/// The far side, which takes its steps from a pipe.
struct Far {
    steps: ChildStdin,
    answers: mpsc::Receiver<String>,
    process: Process,
}

impl Far {
    fn new(place: &Place) -> Self {
        let (process, steps, said) = place.spawn_to_talk(FAR_SIDE, "far");
        let (tell, answers) = mpsc::channel();
        // In a thread of its own, so that waiting for an answer has an end.
        thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                if let Some((_, answer)) = line.split_once(MARK)
                    && tell.send(answer.to_owned()).is_err()
                {
                    break;
                }
            }
        });
        Self { steps, answers, process }
    }

    fn act(&mut self, step: &str) -> String {
        writeln!(self.steps, "{step}").expect("the far side has gone");
        self.answers.recv_timeout(PATIENCE * 2).unwrap_or_else(|_| panic!("the far side does not answer to {step}"))
    }
}

/// The far side's part: does nothing unless it is a child of a claim.
pub(crate) fn far_side() {
    if role().is_none() {
        return;
    }
    let mut side = Side::new(Place::new().options().open("claims").unwrap());
    for step in std::io::stdin().lines() {
        println!("{MARK}{}", side.act(&step.unwrap()));
    }
}

/// Both sides in this process, on the heap.
pub(crate) fn in_process(script: &str) {
    let segment = Segment::options().size(4 << 20).in_process().unwrap();
    let mut side = Side::new(segment.clone());
    play(script, |_, step| side.act(step));
    drop(side);
    assert_empty(&segment);
}

/// The sending side in this process, the receiving one in another.
pub(crate) fn between_processes(script: &str) {
    let place = Place::new();
    let segment = place.options().size(4 << 20).create("claims").unwrap();
    let mut near = Side::new(segment.clone());
    let mut far = Far::new(&place);
    play(script, |side, step| if side == "r" { far.act(step) } else { near.act(step) });
    drop(near);
    let Far { steps, process, .. } = far;
    drop(steps);
    process.succeed();
    assert_empty(&segment);
}

/// Every line is `SIDE: STEP => ANSWER`; without an answer, `ok` is expected.
fn play(script: &str, mut act: impl FnMut(&str, &str) -> String) {
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (side, step) = line.split_once(": ").unwrap_or_else(|| panic!("whose step is this: {line}"));
        assert!(["s", "r"].contains(&side), "there is no side {side}: {line}");
        let (step, expected) = step.split_once(" => ").unwrap_or((step, "ok"));
        let answer = act(side, step.trim());
        assert_eq!(answer, expected, "{line}");
    }
}
