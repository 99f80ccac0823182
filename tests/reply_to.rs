//! Senders that travel in messages: where they lead, and where not.
#![cfg(all(feature = "json", feature = "postcard"))]

mod common;

use common::{Place, assert_empty, eventually, in_process, role, two, within};
use waterway::{
    Segment,
    codec::{Json, Postcard},
    service::{ReplyTo, ReplyToError},
};
use zerocopy::{FromBytes, IntoBytes};

waterway::plain_types! {
    struct Question { number: u64, reply_to: ReplyTo<u64> }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Letter {
    text: String,
    reply_to: ReplyTo<[u8]>,
}

fn is_gone(refused: Result<waterway::Sender<u64>, ReplyToError>) -> bool {
    matches!(refused, Err(ReplyToError::Gone))
}

#[test]
fn an_answer_goes_where_the_question_says() {
    let (_place, one, other) = two();
    let (asks, asked) = (
        one.channel::<Question>("questions").sender().unwrap(),
        other.channel::<Question>("questions").receiver().unwrap(),
    );
    // Two who ask, in channels of their own.
    let answers: Vec<_> =
        ["a", "b"].map(|name| one.channel::<u64>(name).persistent(false).open().unwrap()).into_iter().collect();
    for (number, (_, receiver)) in answers.iter().enumerate() {
        asks.try_send(Question { number: number as u64, reply_to: receiver.reply_to() }).unwrap();
    }
    for _ in 0..2 {
        let question = asked.try_recv().unwrap();
        question.reply_to.sender(&other).unwrap().try_send(question.number + 10).unwrap();
    }
    for (number, (_, receiver)) in answers.iter().enumerate() {
        assert_eq!(*receiver.try_recv().unwrap(), number as u64 + 10);
        assert!(receiver.is_empty());
    }
    drop((asks, asked, answers));
    assert_empty(&one);
}

#[test]
fn any_codec_carries_it() {
    let segment = in_process();
    let (_mine, answers) = segment.bytes("answers").open().unwrap();
    let letter = || Letter { text: "hello".into(), reply_to: answers.reply_to() };
    let (sender, receiver) = segment.channel::<Letter>("postcard").codec::<Postcard>().open().unwrap();
    sender.try_send(letter()).unwrap();
    let (json, from_json) = segment.channel::<Letter>("json").codec::<Json>().open().unwrap();
    json.try_send(letter()).unwrap();
    for letter in [receiver.try_recv().unwrap().decode().unwrap(), from_json.try_recv().unwrap().decode().unwrap()] {
        assert_eq!(letter.reply_to, answers.reply_to());
        letter.reply_to.sender(&segment).unwrap().try_send(letter.text).unwrap();
        assert_eq!(&*answers.try_recv().unwrap(), b"hello");
    }
    let bytes = answers.reply_to().to_bytes();
    assert_eq!(ReplyTo::<[u8]>::from_bytes(bytes), answers.reply_to());
    assert_eq!(answers.reply_to().as_bytes(), bytes);
}

#[test]
fn a_channel_that_has_gone_is_refused_and_its_successor_is_not_met() {
    let (_place, one, other) = two();
    let mut old: Vec<ReplyTo<u64>> = Vec::new();
    // Of one name, and most likely in one entry and one block, again and again.
    for life in 0..50 {
        let (sender, receiver) = one.channel::<u64>("answers").open().unwrap();
        let here = receiver.reply_to();
        assert_eq!(here, sender.reply_to());
        for stale in &old {
            assert_ne!(*stale, here);
            assert!(is_gone(stale.sender(&one)) && is_gone(stale.sender(&other)));
        }
        here.sender(&other).unwrap().try_send(life).unwrap();
        assert_eq!(*receiver.try_recv().unwrap(), life);
        old.push(here);
        // Nobody waits for an answer: that is known before it is sent.
        drop(receiver);
        assert!(is_gone(here.sender(&other)));
        drop(sender);
        assert!(is_gone(here.sender(&other)));
    }
    assert_empty(&one);
    assert!(one.channels().is_empty());
}

#[test]
fn what_is_of_another_segment_or_type_or_is_garbage_is_refused() {
    let (segment, other) = (in_process(), in_process());
    let (_sender, receiver) = segment.channel::<u64>("answers").open().unwrap();
    let _same = other.channel::<u64>("answers").open().unwrap();
    let foreign = |refused: ReplyToError| assert!(matches!(refused, ReplyToError::Foreign), "{refused}");
    let here = receiver.reply_to();
    foreign(here.sender(&other).unwrap_err());
    foreign(ReplyTo::<i64>::from_bytes(here.to_bytes()).sender(&segment).unwrap_err());
    for byte in 0..24 {
        for bit in 0..8 {
            let mut bytes = here.to_bytes();
            bytes[byte] ^= 1 << bit;
            let reply_to = ReplyTo::<u64>::read_from_bytes(&bytes).unwrap();
            match reply_to.sender(&segment) {
                // What is reserved has no meaning yet.
                Ok(sender) => assert!(byte >= 20 && sender.same_channel(&here.sender(&segment).unwrap())),
                Err(error) => assert!(byte < 20, "{error}"),
            }
        }
    }
    assert!(receiver.is_empty());
}

#[test]
fn the_channel_of_a_killed_process_has_gone() {
    const TEST: &str = "the_channel_of_a_killed_process_has_gone";
    let place = Place::new();
    let segment: Segment = place.options().size(4 << 20).participants(4).open_or_create("reply").unwrap();
    let questions = || segment.channel::<Question>("questions");
    if role().is_some() {
        let (_mine, answers) = segment.channel::<u64>("answers").open().unwrap();
        let asks = questions().sender().unwrap();
        within(asks.send(Question { number: 1, reply_to: answers.reply_to() })).unwrap();
        within(asks.send(Question { number: *within(answers.recv()).unwrap(), reply_to: answers.reply_to() })).unwrap();
        common::wait_to_be_killed();
    }
    let asked = questions().receiver().unwrap();
    let child = place.spawn(TEST, "ask");
    let first = within(asked.recv()).unwrap().into_inner();
    first.reply_to.sender(&segment).unwrap().try_send(5).unwrap();
    let second = within(asked.recv()).unwrap().into_inner();
    assert_eq!((first.number, second.number), (1, 5));
    child.kill();
    eventually("its channel has gone", || is_gone(second.reply_to.sender(&segment)));
    // Somebody else's channel, of that name.
    let (_sender, receiver) = segment.channel::<u64>("answers").open().unwrap();
    assert!(is_gone(second.reply_to.sender(&segment)));
    assert!(receiver.is_empty());
    drop((asked, _sender, receiver));
    eventually("nothing is left", || segment.channels().is_empty());
    assert_empty(&segment);
}
