//! Every command, by the real program.

use std::process::{Command, Output};

use waterway::Segment;

struct Place(std::path::PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("waterway-test-cli-{name}-{}", std::process::id()));
        Self(path)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let program = env!("CARGO_BIN_EXE_waterway");
        Command::new(program).args(arguments).env("WATERWAY_DIR", &self.0).output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Vec<serde_json::Value> {
        let ran = self.run(arguments);
        assert!(ran.status.success(), "{ran:?}");
        let lines = String::from_utf8(ran.stdout).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn every_command_tells_what_is_there_and_takes_nothing() {
    let place = Place::new("looks");
    let segment = Segment::options().dir(&place.0).size(1 << 20).create("market").unwrap();
    let (sender, receiver) = segment.bytes("lines").capacity(8).open().unwrap();
    sender.try_send("first").unwrap();
    sender.try_send("second\n").unwrap();

    let listed = place.json(&["list", "--json"]);
    assert_eq!((listed.len(), &listed[0]["name"], &listed[0]["participants"]), (1, &"market".into(), &1.into()));
    assert_eq!(listed[0]["version"], 1);
    let lines = &place.json(&["inspect", "market/lines", "--json"])[0];
    assert_eq!((&lines["depth"], &lines["sent"], &lines["kind"]), (&2.into(), &2.into(), &"channel".into()));
    assert_eq!(place.json(&["inspect", "market", "--json"]).len(), 1);
    let peeked = place.json(&["peek", "market/lines", "-n", "1", "--json"]);
    assert_eq!((peeked.len(), &peeked[0]["text"], &peeked[0]["hex"]), (1, &"first".into(), &"6669727374".into()));
    assert_eq!(place.run(&["peek", "market/lines"]).stdout, b"0  first\n1  second\\n\n");
    let said = String::from_utf8(place.run(&["inspect", "market"]).stdout).unwrap();
    assert!(said.starts_with("lines  channel of bytes  2 of 8 wait  2 sent  0 received"), "{said}");
    assert!(String::from_utf8(place.run(&["list"]).stdout).unwrap().starts_with("market  "));

    assert_eq!(receiver.len(), 2);
    assert_eq!(segment.participants().len(), 1);
}

#[test]
fn the_exit_status_says_what_was_wrong() {
    let place = Place::new("status");
    let segment = Segment::options().dir(&place.0).size(1 << 20).create("market").unwrap();
    let _seats = segment.semaphore("seats").permits(1).open().unwrap();
    for (arguments, status) in [
        (&["inspect", "nothing"][..], 3),
        (&["inspect", "market/nothing"], 3),
        (&["peek", "market/nothing"], 3),
        (&["peek", "market/seats"], 5),
        (&["peek", "market"], 2),
        (&["inspect", "../market"], 2),
        (&["nonsense"], 2),
        (&["inspect", "market"], 0),
    ] {
        assert_eq!(place.run(arguments).status.code(), Some(status), "{arguments:?}");
    }
}

#[test]
fn there_are_completions_for_the_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let script = Place::new("completions").run(&["completions", shell]);
        assert!(script.status.success() && String::from_utf8(script.stdout).unwrap().contains("inspect"), "{shell}");
    }
}
