//! Who looks after segments: `check`, `reap`, `sweep`, `remove`.

use std::{
    fs,
    os::unix::fs::FileExt,
    process::{Child, Command, Stdio},
};

use waterway::Observer;

use crate::place::{Place, lines_of, until};

/// This test binary again, as somebody in the segment, with something in hand, who waits to be killed.
fn somebody(place: &Place) -> Child {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["care::somebody_lives_there", "--exact", "--ignored"])
        .env("WATERWAY_TEST_CLI_PLACE", place.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let observer = || Observer::open_path(place.path().join("market")).ok();
    let is_in = |observer: Observer| observer.participants().iter().any(|one| one.pid == child.id() && one.blocks > 1);
    until(|| observer().is_some_and(is_in));
    child
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
#[ignore = "the other process of the tests here"]
fn somebody_lives_there() {
    let Some(place) = std::env::var_os("WATERWAY_TEST_CLI_PLACE") else { return };
    let segment = waterway::Segment::options().dir(place).size(1 << 20).open_or_create("market").unwrap();
    let (sender, receiver) = segment.bytes("lines").open().unwrap();
    let _held: Vec<_> = (0..2)
        .map(|_| {
            sender.try_send("line").unwrap();
            receiver.try_recv().unwrap()
        })
        .collect();
    loop {
        std::thread::park();
    }
}

#[test]
fn check_says_what_is_wrong_and_only_then_fails() {
    let place = Place::new("check");
    let segment = place.options().create("market").unwrap();
    let (sender, _receiver) = segment.bytes("lines").capacity(4).open().unwrap();
    assert_eq!(place.text(&["check", "market"]), "market  ok\n");
    assert_eq!(place.json(&["check", "--json"])[0]["status"], "ok");
    // It was in it, and has left.
    assert_eq!(segment.participants().len(), 1);
    let nagios = place.run(&["check", "--nagios"]);
    let said = String::from_utf8(nagios.stdout).unwrap();
    assert!(
        nagios.status.success() && said.starts_with("WATERWAY OK - 1 segments, 1 channels | 'market_used'="),
        "{said}"
    );

    (0..4).for_each(|_| sender.try_send("line").unwrap());
    let full = place.run(&["check", "market", "--look"]);
    let said = String::from_utf8(full.stdout).unwrap();
    assert_eq!(
        (full.status.code(), said.as_str()),
        (Some(7), "market  critical\n  critical  channel \"lines\": 4 of 4 messages wait\n")
    );
    assert_eq!(place.status(&["check", "--nagios"]), 2);
    assert_eq!(place.status(&["check", "--nagios", "--critical", "101"]), 1);
    assert_eq!(place.status(&["check", "--critical", "101"]), 0);
    assert_eq!(place.status(&["check", "nothing", "--nagios"]), 3);
}

#[test]
fn check_finds_what_something_has_written_over() {
    let place = Place::new("damage");
    drop(place.options().persistent(true).create("market").unwrap());
    let file = fs::OpenOptions::new().write(true).open(place.path().join("market")).unwrap();
    let bytes = file.metadata().unwrap().len();
    // All but the header: the words of the granules are among that.
    file.write_all_at(&vec![0xa5; bytes as usize - (64 << 10)], 64 << 10).unwrap();
    let check = place.run(&["check", "market", "--json"]);
    assert_eq!((check.status.code(), &lines_of(&check)[0]["status"]), (Some(7), &"critical".into()));
    file.set_len(bytes / 2).unwrap();
    let check = place.run(&["check", "--json"]);
    assert_eq!((check.status.code(), &lines_of(&check)[0]["status"]), (Some(7), &"critical".into()));
}

#[test]
fn what_the_dead_left_is_reaped_and_swept() {
    let place = Place::new("reap");
    let persistent = place.options().persistent(true).create("market").unwrap();
    let child = somebody(&place);
    drop(persistent);
    assert_eq!(place.status(&["remove", "market"]), 1);
    end(child);
    // Nobody is there to bury it.
    let look = String::from_utf8(place.run(&["check", "market", "--look"]).stdout).unwrap();
    assert!(look.contains("has died and nobody has buried it"), "{look}");
    let said = place.text(&["reap", "market"]);
    assert!(said.starts_with("market  participant ") && said.ends_with("is buried\n"), "{said}");
    let observer = Observer::open_path(place.path().join("market")).unwrap();
    assert!(observer.participants().is_empty());
    assert_eq!(place.text(&["reap", "market"]), "");
    assert_eq!(place.text(&["sweep"]), "");
    assert_eq!(place.status(&["remove", "market"]), 0);
    assert_eq!(place.text(&["list"]), "");

    // What is not to stay goes.
    let child = somebody(&place);
    end(child);
    assert_eq!(place.status(&["reap", "market"]), 1);
    let swept = place.json(&["sweep", "--json"]);
    assert_eq!((swept.len(), &swept[0]["name"]), (1, &"market".into()));
    assert_eq!(place.text(&["list"]), "");
}

#[test]
fn a_segment_where_somebody_lives_is_removed_by_force_alone() {
    let place = Place::new("remove");
    let segment = place.options().create("market").unwrap();
    assert_eq!(place.status(&["remove", "market"]), 1);
    assert_eq!(place.json(&["remove", "market", "--force", "--json"])[0]["removed"], "market");
    assert_eq!(place.status(&["inspect", "market"]), 3);
    let (sender, receiver) = segment.bytes("lines").open().unwrap();
    sender.try_send("line").unwrap();
    assert_eq!(&*receiver.try_recv().unwrap(), b"line");
    // What is no segment of ours goes by force, too.
    fs::write(place.path().join("other"), "nothing").unwrap();
    assert_eq!((place.status(&["remove", "other"]), place.status(&["check", "other"])), (1, 7));
    assert_eq!((place.status(&["remove", "other", "--force"]), place.text(&["list"])), (0, String::new()));
}

#[test]
fn doctor_says_what_is_missing_and_what_to_do_about_it() {
    let place = Place::new("doctor");
    let findings = place.run(&["doctor", "--json"]);
    let findings = lines_of(&findings);
    for about in ["kernel", "futex_waitv", "directory", "room", "limits", "cgroup", "a trial"] {
        assert!(findings.iter().any(|finding| finding["about"] == about), "{about} is not in {findings:?}");
    }
    let is_useful = |finding: &serde_json::Value| finding["grade"] == "ok" || finding["remedy"] != "";
    assert!(findings.iter().all(is_useful), "{findings:?}");
    // The trial leaves nothing behind.
    assert_eq!(place.text(&["list"]), "");
    // Where no segment can be made, it says why, and fails.
    fs::create_dir_all(place.path()).unwrap();
    let file = place.path().join("file");
    fs::write(&file, "").unwrap();
    let ran = place.command(&["doctor"]).env("WATERWAY_DIR", &file).output().unwrap();
    let said = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(ran.status.code(), Some(7), "{said}");
    assert!(said.lines().any(|line| line.starts_with("critical  a trial: ")), "{said}");
}
