//! `top` on a terminal: what the unit tests cannot see of it.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::Stdio,
    sync::{Arc, Mutex},
    thread,
};

use rustix::{
    fs::{Mode, OFlags, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcgetattr, tcsetwinsize},
};

use crate::place::{Place, Running, until};

/// A terminal of 80 columns and 24 lines: its two ends.
fn terminal() -> (File, OwnedFd) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let theirs = open(ptsname(&ours, Vec::new()).unwrap(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    tcsetwinsize(&theirs, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    (ours.into(), theirs)
}

#[test]
fn top_draws_on_a_terminal_hears_keys_and_leaves_it_as_it_was() {
    let place = Place::new("top");
    let segment = place.options().create("market").unwrap();
    let (sender, receiver) = segment.bytes("lines").capacity(4).open().unwrap();
    sender.try_send("a-payload").unwrap();
    let (mut ours, theirs) = terminal();
    let was = format!("{:?}", tcgetattr(&theirs).unwrap().local_modes);
    let end = || Stdio::from(theirs.try_clone().unwrap());
    let mut command = place.command(&["top", "--interval", "20ms"]);
    command.env("TERM", "xterm").env("LC_ALL", "C.UTF-8").env("NO_COLOR", "1");
    let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    let mut running = Running { child, output: None };
    let drawn = Arc::new(Mutex::new(String::new()));
    let reading = thread::spawn({
        let (drawn, mut from) = (drawn.clone(), ours.try_clone().unwrap());
        move || {
            let mut part = [0; 4096];
            // It ends with an error when nobody has the other end any more.
            while let Ok(read) = from.read(&mut part) {
                drawn.lock().unwrap().push_str(&String::from_utf8_lossy(&part[..read]));
            }
        }
    });
    // Words, for what was blank before stays as it was.
    let has = |text: &str| until(|| drawn.lock().unwrap().contains(text));
    has(">market/lines");
    has("1/4");
    ours.write_all(b"p").unwrap();
    has("a-payload");
    // Live: what comes is seen without a key.
    sender.try_send("another-one").unwrap();
    has("another-one");
    ours.write_all(b"\x1b").unwrap();
    ours.write_all(b"?").unwrap();
    has("SEGMENT/CHANNEL");
    ours.write_all(b"q").unwrap();
    assert_eq!(running.finish().code(), Some(0));
    // The other screen is left.
    has("\x1b[?1049l");
    assert_eq!(format!("{:?}", tcgetattr(&theirs).unwrap().local_modes), was);
    assert!(!drawn.lock().unwrap().contains("\x1b[31m"), "there was to be no colour");
    // With the last descriptor of that end reading ends.
    drop((theirs, command));
    reading.join().unwrap();
    assert_eq!((receiver.len(), segment.participants().len()), (2, 1));
}

#[test]
fn top_says_that_it_needs_a_terminal() {
    assert_eq!(Place::new("none").status(&["top"]), 2);
}
