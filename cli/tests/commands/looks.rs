//! What looks and goes on looking: `tail`, `stats`, `hz`, `bw`.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Stdio,
};

use crate::place::{PATIENCE, Place, lines_of, until};

#[test]
fn tail_tells_what_comes_and_how_much_it_missed_and_takes_nothing() {
    let place = Place::new("tail");
    let segment = place.options().create("market").unwrap();
    let (sender, receiver) = segment.bytes("lines").capacity(64).open().unwrap();
    (0..4).for_each(|number| sender.try_send(format!("line {number}")).unwrap());
    assert_eq!(place.text(&["tail", "market/lines", "-n", "2"]), "2  line 2\n3  line 3\n");
    assert_eq!(place.text(&["tail", "market/lines", "-n", "2", "--raw"]), "line 2\nline 3\n");

    let mut tail = place.start(&["tail", "market/lines", "-n", "1", "--follow", "--json"]);
    assert!(tail.line().contains("line 3"));
    // Some are taken before it can see them: it may see any of them, but accounts for each.
    for number in 4..10_000 {
        sender.blocking_send(format!("line {number}")).unwrap();
        receiver.blocking_recv().unwrap();
    }
    let (mut told, mut missed) = (0, 0);
    while told + missed < 10_000 - 4 {
        let line: serde_json::Value = serde_json::from_str(&tail.line()).unwrap();
        match line["missed"].as_u64() {
            Some(more) => missed += more,
            None => told += 1,
        }
    }
    assert_eq!(told + missed, 10_000 - 4, "{told} were told, {missed} missed");
    assert_eq!(receiver.len(), 4);
    // With the channel it ends.
    drop((sender, receiver));
    assert_eq!(tail.finish().code(), Some(6));
}

#[test]
fn tail_ends_after_one_or_when_nothing_comes() {
    let place = Place::new("once");
    let segment = place.options().create("market").unwrap();
    let (sender, _receiver) = segment.bytes("lines").capacity(64).open().unwrap();
    assert_eq!(place.status(&["tail", "market/lines", "--follow", "--timeout", "50ms"]), 4);
    let mut tail = place.start(&["tail", "market/lines", "--once", "--raw"]);
    sender.try_send("now").unwrap();
    assert_eq!((tail.line(), tail.finish().code()), ("now".into(), Some(0)));
}

#[test]
fn a_closed_pipe_ends_tail_quietly() {
    let place = Place::new("pipe");
    let segment = place.options().create("market").unwrap();
    let (sender, receiver) = segment.bytes("lines").capacity(64).open().unwrap();
    let mut command = place.command(&["tail", "market/lines", "--follow"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut ended = None;
    until(|| {
        // It waits until the next round.
        let _ = receiver.try_recv();
        sender.try_send("line").unwrap();
        ended = child.try_wait().unwrap();
        ended.is_some()
    });
    let mut said = String::new();
    child.stderr.unwrap().read_to_string(&mut said).unwrap();
    let only_missed = said.lines().all(|line| line.contains("missed"));
    assert!(ended.unwrap().success() && only_missed, "{said}");
}

#[test]
fn stats_are_of_one_look_and_rates_of_two() {
    let place = Place::new("stats");
    let segment = place.options().create("market").unwrap();
    let other = place.options().create("other").unwrap();
    let (sender, receiver) = segment.bytes("lines").capacity(64).open().unwrap();
    let _jobs = other.channel::<u64>("jobs").open().unwrap();
    (0..5).for_each(|_| sender.try_send("line").unwrap());
    receiver.try_recv().unwrap();

    let looks = place.json(&["stats", "--json"]);
    assert_eq!((&looks[0]["segment"], &looks[1]["segment"], looks.len()), (&"market".into(), &"other".into(), 2));
    let lines = &looks[0]["channels"][0];
    assert_eq!((&lines["sent"], &lines["received"], &lines["depth"]), (&5.into(), &1.into(), &4.into()));
    assert!(lines["sent_per_second"].is_null() && looks[0]["memory"]["used"].as_u64().unwrap() > 0);
    assert!(place.text(&["stats", "market/lines"]).contains("lines  channel  4 of 64 wait  5 sent  1 received\n"));

    let mut running = place.start(&["stats", "market", "--interval", "20ms", "--count", "3", "--json"]);
    let first: serde_json::Value = serde_json::from_str(&running.line()).unwrap();
    assert_eq!(first["channels"][0]["sent_per_second"], 0.0);
    running.line();
    running.line();
    assert!(running.finish().success() && running.line().is_empty());
}

#[test]
fn rates_are_differences_of_positions() {
    let place = Place::new("rates");
    let segment = place.options().create("market").unwrap();
    let (sender, receiver) = segment.channel::<u64>("numbers").capacity(1 << 10).open().unwrap();
    let (lines, _lines) = segment.bytes("lines").capacity(64).open().unwrap();
    let routed = segment.bytes("parcels").capacity(8).routed().partitions(2).open().unwrap();
    routed.0.try_send("key", "parcel").unwrap();
    (0..8).for_each(|_| lines.try_send("four").unwrap());

    let mut hz = place.start(&["hz", "market/numbers", "--interval", "20ms", "--json"]);
    let mut bw = place.start(&["bw", "market/numbers", "--interval", "20ms", "--json"]);
    let line = |of: &mut crate::place::Running| serde_json::from_str::<serde_json::Value>(&of.line()).unwrap();
    let mut before = line(&mut hz);
    for number in 0..1000 {
        sender.try_send(number).unwrap();
        if number % 2 == 0 {
            receiver.try_recv().unwrap();
        }
    }
    // However slow or late a look is: a rate is what has come between two looks, over the time between them.
    while before["sent"] != 1000 || before["received"] != 500 {
        let now = line(&mut hz);
        for (total, rate) in [("sent", "sent_per_second"), ("received", "received_per_second")] {
            let grown = now[total].as_f64().unwrap() - before[total].as_f64().unwrap();
            let told = now[rate].as_f64().unwrap() * now["seconds"].as_f64().unwrap();
            assert!((grown - told).abs() < 1e-6, "{before} {now}");
        }
        before = now;
        let now = line(&mut bw);
        assert_eq!((&now["exact"], &now["mean_bytes"]), (&true.into(), &8.0.into()));
        assert_eq!(now["bytes_sent_per_second"].as_f64(), now["sent_per_second"].as_f64().map(|rate| rate * 8.0));
    }

    let told = &place.json(&["bw", "market/lines", "--interval", "10ms", "--count", "1", "--json"])[0];
    assert_eq!((&told["exact"], &told["mean_bytes"], &told["seen"]), (&false.into(), &4.0.into(), &8.into()));
    let told = &place.json(&["hz", "market/parcels", "--interval", "10ms", "--count", "1", "--json"])[0];
    assert_eq!((&told["sent"], &told["depth"]), (&1.into(), &1.into()));
}

#[test]
fn prometheus_gets_the_figures_of_all_segments() {
    let place = Place::new("prometheus");
    let segment = place.options().create("market").unwrap();
    let (sender, _receiver) = segment.bytes("lines").capacity(64).open().unwrap();
    let _group = segment.broadcast::<u64>("prices").group("screens").subscriber().unwrap();
    (0..5).for_each(|_| sender.try_send("line").unwrap());
    let mut serving = place.start(&["stats", "--prometheus", ":0"]);
    let line = serving.line();
    let address = line.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap();
    let get = |request: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = get("GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("application/openmetrics-text"), "{head}");
    for line in [
        "# TYPE waterway_channel_sent counter",
        "waterway_channel_sent_total{segment=\"market\",channel=\"lines\",kind=\"channel\"} 5",
        "waterway_channel_depth{segment=\"market\",channel=\"lines\",kind=\"channel\"} 5",
        "waterway_segment_participants{segment=\"market\"} 1",
        "waterway_segment_up{segment=\"market\"} 1",
    ] {
        assert!(body.lines().any(|it| it == line), "{line} is not in\n{body}");
    }
    assert!(
        body.contains("waterway_group_lag{segment=\"market\",channel=\"prices\",group=") && body.ends_with("# EOF\n")
    );
    // Each family is told once, and stays together.
    let families: Vec<&str> = body.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert!(families.iter().all(|family| families.iter().filter(|other| *other == family).count() == 1));
    assert!(get("GET /elsewhere HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
    assert!(get("nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
}

#[test]
fn json_of_everything_has_a_version_in_each_line() {
    let place = Place::new("versions");
    let segment = place.options().create("market").unwrap();
    let (sender, _receiver) = segment.bytes("lines").capacity(64).open().unwrap();
    sender.try_send("line").unwrap();
    for arguments in [
        &["list"][..],
        &["inspect", "market"],
        &["peek", "market/lines"],
        &["tail", "market/lines"],
        &["stats"],
        &["hz", "market/lines", "-i", "1ms", "-c", "1"],
        &["bw", "market/lines", "-i", "1ms", "-c", "1"],
        &["check"],
    ] {
        let ran = place.command(arguments).arg("--json").output().unwrap();
        let lines = lines_of(&ran);
        assert!(!lines.is_empty() && lines.iter().all(|line| line["version"] == 1), "{arguments:?}: {ran:?}");
    }
}
