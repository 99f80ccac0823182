//! Every command, by the real program.

mod care;
mod looks;
mod pipes;
mod place;
mod terminal;

use place::Place;

#[test]
fn every_command_tells_what_is_there_and_takes_nothing() {
    let place = Place::new("looks");
    let segment = place.options().create("market").unwrap();
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
    assert_eq!(place.text(&["peek", "market/lines"]), "0  first\n1  second\\n\n");
    let said = place.text(&["inspect", "market"]);
    assert!(said.starts_with("lines  channel of bytes  2 of 8 wait  2 sent  0 received"), "{said}");
    assert!(place.text(&["list"]).starts_with("market  "));

    assert_eq!(receiver.len(), 2);
    assert_eq!(segment.participants().len(), 1);
}

#[test]
fn the_exit_status_says_what_was_wrong() {
    let place = Place::new("status");
    let segment = place.options().create("market").unwrap();
    let _seats = segment.semaphore("seats").permits(1).open().unwrap();
    for (arguments, status) in [
        (&["inspect", "nothing"][..], 3),
        (&["inspect", "market/nothing"], 3),
        (&["peek", "market/nothing"], 3),
        (&["peek", "market/seats"], 5),
        (&["peek", "market"], 2),
        (&["inspect", "../market"], 2),
        (&["tail", "market/seats"], 5),
        (&["hz", "market/nothing", "-c", "1"], 3),
        (&["hz", "market"], 2),
        (&["bw", "market/seats"], 5),
        (&["stats", "nothing"], 3),
        (&["stats", "--interval", "0"], 2),
        (&["stats", "--prometheus", "nowhere"], 2),
        (&["check", "nothing"], 3),
        (&["reap", "nothing"], 3),
        (&["remove", "nothing"], 3),
        (&["remove", "nothing", "--force"], 3),
        (&["nonsense"], 2),
        (&["inspect", "market"], 0),
    ] {
        assert_eq!(place.status(arguments), status, "{arguments:?}");
    }
}

#[test]
fn there_are_completions_for_the_shells() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(Place::new("completions").text(&["completions", shell]).contains("inspect"), "{shell}");
    }
}
