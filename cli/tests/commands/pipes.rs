//! `send` and `recv`: standard input and output at the ends of channels.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::process::ExitStatusExt,
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use waterway::{Delivery, Observer};

use crate::place::{Place, Running, until};

/// The program at work, with a pipe to its standard input and from its standard output.
fn start(place: &Place, arguments: &[&str], input: &[u8]) -> Running {
    let mut child = place.command(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut to = child.stdin.take().unwrap();
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    // Little enough for a pipe.
    to.write_all(input).unwrap();
    Running { child, output: Some(output) }
}

/// Waits until somebody has made one.
fn has_channel(place: &Place) {
    until(|| Observer::open_path(place.path().join("market")).is_ok_and(|it| !it.channels().is_empty()));
}

#[test]
fn what_is_sent_from_a_pipe_is_received_into_another() {
    let place = Place::new("pipes");
    for (framing, input) in [
        (&[][..], &b"one\n\nthree\n"[..]),
        (&["--null"], b"one\ntwo\0\0three\0"),
        (&["--length-prefixed"], b"\0\0\0\x03one\0\0\0\0\0\0\0\x02\n\0"),
    ] {
        // The receiver comes first, and ends with the sender.
        let mut receiver = place.start(&[&["recv", "market/lines", "--create", "--capacity", "2"], framing].concat());
        has_channel(&place);
        let mut sender = start(&place, &[&["send", "market/lines", "--create", "--json"], framing].concat(), input);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&sender.line()).unwrap()["sent"], 3);
        assert!(sender.finish().success() && receiver.finish().success());
        let mut output = Vec::new();
        receiver.output.take().unwrap().read_to_end(&mut output).unwrap();
        assert_eq!(output, input);
        // With the last one the segment has gone.
        assert_eq!(place.text(&["list"]), "");
    }
}

#[test]
fn a_sender_that_comes_first_waits_until_somebody_receives() {
    let place = Place::new("first");
    let mut sender = start(&place, &["send", "market/lines", "--create"], b"one\ntwo\n");
    until(|| Observer::open_path(place.path().join("market")).is_ok_and(|it| it.peek("lines", 9).len() == 2));
    assert_eq!(place.text(&["recv", "market/lines"]), "one\ntwo\n");
    assert!(sender.finish().success());
    let mut alone = start(&place, &["send", "market/lines", "--create", "--timeout", "50ms"], b"one\n");
    assert_eq!(alone.finish().code(), Some(4));
    // Where it is to stay, nobody need be there.
    let mut sender = start(&place, &["send", "market/lines", "--create", "--persistent"], b"one\ntwo\n");
    assert!(sender.finish().success());
    assert_eq!(place.text(&["recv", "market/lines", "-n", "2"]), "one\ntwo\n");
    assert_eq!(place.text(&["list"]).lines().count(), 1);
}

#[test]
fn the_exit_status_says_how_it_ended() {
    let place = Place::new("ends");
    let segment = place.options().create("market").unwrap();
    let (sender, receiver) = segment.bytes("lines").capacity(2).open().unwrap();
    let _numbers = segment.channel::<u64>("numbers").open().unwrap();
    for (arguments, status) in [
        (&["recv", "nothing/lines"][..], 3),
        (&["recv", "market/nothing"], 3),
        (&["send", "market/nothing"], 3),
        (&["recv", "market"], 2),
        (&["recv", "market/numbers"], 5),
        (&["send", "market/numbers"], 5),
        (&["recv", "market/lines", "--capacity", "3"], 2),
        (&["recv", "market/lines", "--create", "--capacity", "3"], 5),
        (&["recv", "market/lines", "--null", "--length-prefixed"], 2),
        (&["recv", "market/lines", "--timeout", "20ms"], 4),
        (&["recv", "market/lines", "-n", "0"], 0),
        (&["send", "market/lines"], 0),
    ] {
        assert_eq!(place.status(arguments), status, "{arguments:?}");
    }
    let mut full = start(&place, &["send", "market/lines", "--timeout", "20ms"], b"one\ntwo\nthree\n");
    assert_eq!((full.finish().code(), receiver.len()), (Some(4), 2));
    let mut cut = start(&place, &["send", "market/lines", "--length-prefixed"], b"\0\0\0\x05one");
    assert_eq!(cut.finish().code(), Some(1));
    drop(sender);
    // The channel ends before there were three.
    assert_eq!(place.status(&["recv", "market/lines", "-n", "3"]), 6);
    let keeper = segment.bytes("lines").sender().unwrap();
    drop(receiver);
    let mut closed = start(&place, &["send", "market/lines"], b"one\n");
    assert_eq!(closed.finish().code(), Some(6));
    drop(keeper);
}

#[test]
fn a_signal_ends_them_and_they_leave_the_segment() {
    let place = Place::new("signal");
    for arguments in [["recv", "market/lines", "--create"], ["send", "market/lines", "--create"]] {
        // A pipe that nobody closes.
        let child = place.command(&arguments).stdin(Stdio::piped()).spawn().unwrap();
        let mut running = Running { child, output: None };
        has_channel(&place);
        let pid = rustix::process::Pid::from_child(&running.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert_eq!(running.finish().code(), Some(130));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_closed_pipe_gives_back_what_could_not_be_printed() {
    let place = Place::new("closed");
    let segment = place.options().create("market").unwrap();
    let delivery = Delivery::AtLeastOnce { max_deliveries: 3 };
    let (sender, receiver) = segment.bytes("lines").capacity(8).delivery(delivery).open().unwrap();
    let mut running = place.start(&["recv", "market/lines"]);
    sender.try_send("one").unwrap();
    assert_eq!(running.line(), "one");
    drop(running.output.take());
    sender.try_send("two").unwrap();
    assert!(running.finish().success());
    let again = receiver.try_recv().unwrap();
    assert_eq!((&*again, again.delivery_count()), (&b"two"[..], 2));
    again.ack();
    // The other way it has been acknowledged by then.
    let mut running = place.start(&["recv", "market/lines", "--ack", "received"]);
    sender.try_send("three").unwrap();
    assert_eq!(running.line(), "three");
    drop(running.output.take());
    sender.try_send("four").unwrap();
    assert!(running.finish().success() && receiver.try_recv().is_err());
}

#[test]
fn recv_that_is_killed_loses_nothing_at_least_once() {
    const KILLS: u64 = 50;
    let place = Place::new("kills");
    let segment = place.options().max_size(8 << 20).create("market").unwrap();
    let delivery = Delivery::AtLeastOnce { max_deliveries: u32::MAX };
    let sender = segment.bytes("jobs").capacity(16).delivery(delivery).persistent(true).sender().unwrap();
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let outputs: Vec<_> = (0..=KILLS).map(|kill| place.path().join(format!("printed-{kill}"))).collect();
    let start = |output: &std::path::Path| {
        let file = OpenOptions::new().create(true).append(true).open(output).unwrap();
        let child = place.command(&["recv", "market/jobs"]).stdout(file).spawn().unwrap();
        Running { child, output: None }
    };
    // Whole lines: the last one may have been cut.
    let printed = |output: &std::path::Path| -> Vec<u64> {
        let mut text = String::new();
        File::open(output).unwrap().read_to_string(&mut text).unwrap();
        text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')?.parse().ok()).collect()
    };
    let mut found: BTreeMap<u64, u64> = BTreeMap::new();
    thread::scope(|scope| {
        let producer = scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let number = sent.load(Ordering::SeqCst);
                sender.blocking_send(number.to_string()).unwrap();
                sent.store(number + 1, Ordering::SeqCst);
            }
        });
        for (kill, output) in outputs[..KILLS as usize].iter().enumerate() {
            let mut running = start(output);
            until(|| fs::metadata(output).unwrap().len() > 0);
            // At another moment each time.
            (0..kill * 100).for_each(|_| std::hint::spin_loop());
            running.child.kill().unwrap();
            assert_eq!(running.child.wait().unwrap().signal(), Some(9));
        }
        over.store(true, Ordering::SeqCst);
        let last = start(&outputs[KILLS as usize]);
        // From here on no more is sent.
        producer.join().unwrap();
        until(|| {
            found.clear();
            outputs.iter().flat_map(|output| printed(output)).for_each(|number| *found.entry(number).or_default() += 1);
            found.len() as u64 == sent.load(Ordering::SeqCst) && sender.is_empty()
        });
        drop(last);
    });
    let sent = sent.into_inner();
    assert!(found.keys().copied().eq(0..sent), "{} of {sent} were printed", found.len());
    // Each kill comes after the printing and before the acknowledgement of one message at most.
    let repeated: u64 = found.values().map(|times| times - 1).sum();
    assert!(repeated <= KILLS, "{repeated} were printed more than once");
    println!("{sent} messages, {repeated} printed again, {KILLS} kills");
    drop(sender);
}
