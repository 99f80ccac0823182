//! Channels whose values a codec writes.

mod common;

use std::{
    cell::Cell,
    io::{self, Write},
    thread,
    time::Duration,
};

use common::{held, in_process, two, within};
use waterway::{
    OpenError, TrySendError,
    channel::SendErrorKind,
    codec::{Codec, Coded},
};

/// Text as it is, but not that of which it was told not to like it.
struct Utf8;

impl Codec<String> for Utf8 {
    const NAME: &'static str = "utf8";
    type Error = io::Error;

    fn encode<W: Write>(value: &String, mut to: W) -> io::Result<()> {
        if value.contains("unspeakable") {
            return Err(io::Error::other("I will not say that"));
        }
        to.write_all(value.as_bytes())
    }

    fn decode(bytes: &[u8]) -> io::Result<String> {
        std::str::from_utf8(bytes).map(str::to_owned).map_err(io::Error::other)
    }
}

/// Has the same name, and writes anything.
struct Liar;

impl Codec<String> for Liar {
    const NAME: &'static str = "utf8";
    type Error = io::Error;

    fn encode<W: Write>(_: &String, mut to: W) -> io::Result<()> {
        to.write_all(&[0xff; 5])
    }

    fn decode(_: &[u8]) -> io::Result<String> {
        unreachable!()
    }
}

/// Writes more, or less, each time it is asked.
struct Fickle;

/// How much to write, and how that changes.
#[derive(Debug)]
struct Mood(Cell<usize>, isize);

impl Codec<Mood> for Fickle {
    const NAME: &'static str = "fickle";
    type Error = io::Error;

    fn encode<W: Write>(value: &Mood, mut to: W) -> io::Result<()> {
        let length = value.0.get();
        value.0.set(length.saturating_add_signed(value.1));
        to.write_all(&vec![7; length])
    }

    fn decode(bytes: &[u8]) -> io::Result<Mood> {
        Ok(Mood(Cell::new(bytes.len()), 0))
    }
}

#[test]
fn values_travel_between_participants_in_every_way_of_sending() {
    let (_place, one, other) = two();
    let sender = one.channel::<String>("words").capacity(2).codec::<Utf8>().sender().unwrap();
    let receiver = other.channel::<String>("words").codec::<Utf8>().receiver().unwrap();
    let sending = thread::spawn(move || {
        within(sender.send("one".into())).unwrap();
        sender.blocking_send("two".into()).unwrap();
        within(sender.send_timeout("three".into(), Duration::from_secs(60))).unwrap();
        while let Err(error) = sender.try_send("four".into()) {
            assert!(error.is_full());
            thread::yield_now();
        }
        let mut sink = sender.into_sink();
        within(futures::SinkExt::send(&mut sink, "five".repeat(10_000))).unwrap();
    });
    let words: Vec<String> = receiver.blocking_iter().map(|message| message.decode().unwrap()).collect();
    assert_eq!(words[..4], ["one", "two", "three", "four"]);
    assert_eq!(words[4].len(), 40_000);
    sending.join().unwrap();
    drop(receiver);
    assert_eq!(held(&one), 0);
}

#[test]
fn a_coded_message_is_bytes_too() {
    let segment = in_process();
    let (sender, receiver) = segment.channel::<String>("words").codec::<Utf8>().open().unwrap();
    let (onward, end) = segment.channel::<String>("onward").codec::<Utf8>().open().unwrap();
    sender.try_send("word".into()).unwrap();
    assert_eq!(receiver.inquire().oldest.unwrap().length, 4);
    let message = receiver.try_recv().unwrap();
    assert_eq!((message.as_ref(), message.decode().unwrap()), (&b"word"[..], "word".to_owned()));
    message.forward(&onward).unwrap();
    assert_eq!(&end.try_recv().unwrap().into_bytes()[..], b"word");
    let (latest, end) = segment.channel::<String>("latest").capacity(1).codec::<Utf8>().open().unwrap();
    assert!(latest.force_send("old".to_owned()).unwrap().is_none());
    assert_eq!(latest.force_send("new".to_owned()).unwrap().unwrap().decode().unwrap(), "old");
    assert_eq!(end.try_recv().unwrap().decode().unwrap(), "new");
}

#[test]
fn a_value_that_cannot_be_written_comes_back_at_once() {
    let segment = in_process();
    let (sender, receiver) = segment.channel::<String>("words").codec::<Utf8>().open().unwrap();
    let before = held(&segment);
    let word = || "unspeakable".to_owned();
    assert_eq!(sender.try_send(word()), Err(TrySendError::NotEncodable(word())));
    let error = within(sender.send(word())).unwrap_err();
    assert_eq!(error.kind(), SendErrorKind::NotEncodable);
    assert!(error.to_string().contains("Codec::size"), "{error}");
    assert_eq!(Utf8::size(&error.into_inner()).unwrap_err().to_string(), "I will not say that");
    assert_eq!(within(sender.send_timeout(word(), Duration::from_secs(1))).unwrap_err().into_inner(), word());
    assert_eq!((receiver.len(), held(&segment)), (0, before));
}

#[test]
fn a_value_that_changes_while_it_is_sent_harms_nobody() {
    let segment = in_process();
    let (sender, receiver) = segment.channel::<Mood>("moods").codec::<Fickle>().open().unwrap();
    let before = held(&segment);
    let error = sender.try_send(Mood(Cell::new(100), 1)).unwrap_err();
    assert!(matches!(error, TrySendError::NotEncodable(_)), "more than there is room for");
    assert_eq!(held(&segment), before);
    sender.try_send(Mood(Cell::new(100), -1)).unwrap();
    assert_eq!(receiver.try_recv().unwrap().as_ref(), [7; 99], "less: as much as was written");
    sender.try_send(Mood(Cell::new(0), 0)).unwrap();
    assert!(receiver.try_recv().unwrap().as_ref().is_empty());
}

#[test]
fn what_can_never_fit_comes_back_too() {
    let segment = in_process();
    let (sender, _receiver) = segment.channel::<String>("words").codec::<Utf8>().open().unwrap();
    let error = within(sender.send("x".repeat(8 << 20))).unwrap_err();
    assert!(matches!(error.kind(), SendErrorKind::TooLarge { .. }));
    assert_eq!(error.into_inner().len(), 8 << 20);
}

#[test]
fn wrong_bytes_are_an_error_of_decoding_with_its_cause() {
    let (_place, one, other) = two();
    let liar = one.channel::<String>("words").codec::<Liar>().sender().unwrap();
    let receiver = other.channel::<String>("words").codec::<Utf8>().receiver().unwrap();
    liar.try_send("anything".into()).unwrap();
    let message = receiver.try_recv().unwrap();
    let error = message.decode().unwrap_err();
    assert_eq!(error.codec(), "utf8");
    assert!(error.to_string().contains("utf8"), "{error}");
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("utf-8"));
    assert_eq!(message.as_ref(), [0xff; 5], "the message is still there");
}

#[test]
fn another_codec_or_none_is_a_mismatch_that_names_both() {
    struct Other;
    impl Codec<String> for Other {
        const NAME: &'static str = "other";
        type Error = io::Error;

        fn encode<W: Write>(_: &String, _: W) -> io::Result<()> {
            Ok(())
        }

        fn decode(_: &[u8]) -> io::Result<String> {
            Ok(String::new())
        }
    }

    let (_place, one, other) = two();
    let _sender = one.channel::<String>("words").codec::<Utf8>().sender().unwrap();
    for (error, name) in [
        (other.channel::<String>("words").codec::<Other>().receiver().unwrap_err(), "String via other"),
        (other.bytes("words").receiver().unwrap_err(), "bytes"),
    ] {
        let OpenError::Mismatch { expected, found, .. } = error else { panic!("{error}") };
        assert!(expected.contains(name) && found.contains("String via utf8"), "{expected} {found}");
    }
}

/// Panics, or uses the very channel that it is sent into, in the middle of being written.
struct Meddler(Cell<u32>, Option<waterway::Sender<Coded<Meddler, Meddling>>>);

struct Meddling;

impl Codec<Meddler> for Meddling {
    const NAME: &'static str = "meddling";
    type Error = io::Error;

    fn encode<W: Write>(value: &Meddler, mut to: W) -> io::Result<()> {
        to.write_all(b"something")?;
        value.0.set(value.0.get() + 1);
        if value.0.get() == 2 {
            let channel = value.1.as_ref().expect("nothing to meddle with");
            channel.try_send(Meddler(Cell::new(10), None)).map_err(|error| io::Error::other(error.to_string()))?;
        }
        Ok(())
    }

    fn decode(_: &[u8]) -> io::Result<Meddler> {
        Ok(Meddler(Cell::new(0), None))
    }
}

#[test]
fn a_codec_may_panic_or_use_the_segment_while_it_writes() {
    let segment = in_process();
    let (sender, receiver) = segment.channel::<Meddler>("meddlers").capacity(2).codec::<Meddling>().open().unwrap();
    let before = held(&segment);
    std::panic::catch_unwind(|| drop(sender.try_send(Meddler(Cell::new(0), None)))).unwrap_err();
    assert_eq!((receiver.len(), held(&segment)), (0, before));
    sender.try_send(Meddler(Cell::new(0), Some(sender.clone()))).map_err(drop).unwrap();
    assert_eq!(receiver.drain().count(), 2);
    // It takes the last room itself.
    sender.try_send(Meddler(Cell::new(10), None)).map_err(drop).unwrap();
    assert!(sender.try_send(Meddler(Cell::new(0), Some(sender.clone()))).unwrap_err().is_full());
    assert_eq!(receiver.drain().count(), 2);
    assert_eq!(held(&segment), before);
}

#[test]
fn sending_what_is_send_is_send() {
    fn is_send<T: Send>(_: T) {}
    let (sender, _receiver) = in_process().channel::<Mood>("moods").codec::<Fickle>().open().unwrap();
    is_send(sender.send(Mood(Cell::new(1), 0)));
    is_send(sender.send_timeout(Mood(Cell::new(1), 0), Duration::ZERO));
    is_send(sender.into_sink::<Mood>());
}

#[test]
fn coded_ends_are_as_free_as_others() {
    fn free<T: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug>() {}
    // Whatever the type is: its values stay where they are.
    type Rc = Coded<std::rc::Rc<Cell<String>>, Never>;
    struct Never;
    impl<T: 'static> Codec<T> for Never {
        const NAME: &'static str = "never";
        type Error = io::Error;

        fn encode<W: Write>(_: &T, _: W) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn decode(_: &[u8]) -> io::Result<T> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }
    free::<waterway::Sender<Rc>>();
    free::<waterway::Receiver<Rc>>();
    free::<waterway::Message<Rc>>();
    free::<waterway::WeakSender<Rc>>();
}

#[cfg(all(feature = "postcard", feature = "json"))]
mod with_serde {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};
    use waterway::codec::{Json, Postcard};

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Item {
        Nothing,
        Text(String),
        Numbers { many: Vec<i64>, one: Option<u8> },
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Order {
        id: u64,
        customer: String,
        items: Vec<Item>,
        notes: BTreeMap<String, bool>,
    }

    fn item() -> impl Strategy<Value = Item> {
        prop_oneof![
            Just(Item::Nothing),
            ".*".prop_map(Item::Text),
            (prop::collection::vec(any::<i64>(), 0..50), any::<Option<u8>>())
                .prop_map(|(many, one)| Item::Numbers { many, one }),
        ]
    }

    fn order() -> impl Strategy<Value = Order> {
        let notes = prop::collection::btree_map(".*", any::<bool>(), 0..5);
        (any::<u64>(), ".*", prop::collection::vec(item(), 0..10), notes)
            .prop_map(|(id, customer, items, notes)| Order { id, customer, items, notes })
    }

    /// Sends values there, and compares what arrives, and how it is written.
    fn round_trip<C: Codec<Order>>(orders: Vec<Order>, written: impl Fn(&Order) -> Vec<u8>) {
        let (_place, one, other) = two();
        let sender = one.channel::<Order>("orders").codec::<C>().sender().unwrap();
        let receiver = other.channel::<Order>("orders").codec::<C>().receiver().unwrap();
        for order in orders {
            sender.try_send(order.clone()).unwrap();
            let message = receiver.try_recv().unwrap();
            assert_eq!(message.as_ref(), written(&order));
            assert_eq!(message.decode().unwrap(), order);
        }
        drop((sender, receiver));
        assert_eq!(held(&one), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn whatever_serde_writes_comes_back_as_it_was(orders in prop::collection::vec(order(), 1..8)) {
            round_trip::<Postcard>(orders.clone(), postcard_bytes);
            round_trip::<Json>(orders, |order| serde_json::to_vec(order).unwrap());
        }

        #[test]
        fn any_bytes_decode_or_give_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = <Postcard as Codec<Order>>::decode(&bytes);
            let _ = <Json as Codec<Order>>::decode(&bytes);
        }
    }

    fn postcard_bytes(order: &Order) -> Vec<u8> {
        let mut bytes = Vec::new();
        Postcard::encode(order, &mut bytes).unwrap();
        assert_eq!(Postcard::size(order).unwrap(), bytes.len());
        bytes
    }

    #[test]
    fn postcard_and_json_refuse_each_other() {
        let (_place, one, other) = two();
        let _sender = one.channel::<String>("words").codec::<Postcard>().sender().unwrap();
        let error = other.channel::<String>("words").codec::<Json>().receiver().unwrap_err();
        let OpenError::Mismatch { expected, found, .. } = error else { panic!("{error}") };
        assert!(expected.contains("String via json") && found.contains("String via postcard"), "{expected} {found}");
    }

    mod newer {
        #[derive(serde::Serialize, serde::Deserialize)]
        pub(super) struct Order {
            pub(super) id: String,
        }
    }

    #[test]
    fn another_version_of_a_type_is_an_error_of_decoding() {
        fn check<C: Codec<Order> + Codec<newer::Order>>() {
            let (_place, one, other) = two();
            let sender = one.channel::<newer::Order>("orders").codec::<C>().sender().unwrap();
            let receiver = other.channel::<Order>("orders").codec::<C>().receiver().unwrap();
            sender.try_send(newer::Order { id: "seven".into() }).map_err(drop).unwrap();
            let error = receiver.try_recv().unwrap().decode().unwrap_err();
            assert!(std::error::Error::source(&error).is_some());
        }
        check::<Postcard>();
        check::<Json>();
    }

    /// Leads deeper in every way in which a value can hold another one.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Nest {
        End,
        Boxed(Box<Nest>),
        Pair(u8, Box<Nest>),
        Field { nest: Box<Nest> },
        Optional(Option<Box<Nest>>),
        Many(Vec<Nest>),
        Named(BTreeMap<u8, Nest>),
        Wrapped(Wrapped),
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Wrapped(Box<Nest>);

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Node {
        next: Option<Box<Node>>,
    }

    fn nodes(count: usize) -> Node {
        (1..count).fold(Node { next: None }, |node, _| Node { next: Some(Box::new(node)) })
    }

    #[test]
    fn what_is_nested_deeper_than_a_stack_is_an_error_of_decoding() {
        // What each way repeats, as postcard writes it: the number of the variant, and what stands before the next one.
        for level in [&[1][..], &[2, 7], &[3], &[4, 1], &[5, 1], &[6, 1, 9], &[7]] {
            let deep = |levels| [level.repeat(levels), vec![0]].concat();
            assert!(<Postcard as Codec<Nest>>::decode(&deep(50)).is_ok(), "{level:?}");
            assert!(<Postcard as Codec<Nest>>::decode(&deep(1_000_000)).is_err(), "{level:?}");
        }
        assert!(<Postcard as Codec<Node>>::decode(&vec![1; 4 << 20]).is_err());
        assert!(<Json as Codec<Node>>::decode(&b"{\"next\":".repeat(400_000)).is_err());
        assert!(<Json as Codec<Nest>>::decode(&b"{\"Many\":[".repeat(400_000)).is_err());
    }

    #[test]
    fn postcard_reads_what_is_nested_as_deep_as_json_does() {
        let deepest = nodes(120);
        let mut bytes = Vec::new();
        Postcard::encode(&deepest, &mut bytes).unwrap();
        assert_eq!(<Postcard as Codec<Node>>::decode(&bytes).unwrap(), deepest);
        bytes.clear();
        Json::encode(&deepest, &mut bytes).unwrap();
        assert_eq!(<Json as Codec<Node>>::decode(&bytes).unwrap(), deepest);
        // Side by side is not nested.
        let many: Vec<Node> = (0..1000).map(|_| nodes(100)).collect();
        bytes.clear();
        Postcard::encode(&many, &mut bytes).unwrap();
        assert_eq!(<Postcard as Codec<Vec<Node>>>::decode(&bytes).unwrap(), many);
    }

    #[test]
    fn a_length_that_says_more_than_there_is_takes_neither_time_nor_memory() {
        const MOST: [u8; 10] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];

        #[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        struct Nothing;

        fn refused<T: Serialize + serde::de::DeserializeOwned + 'static>() {
            assert!(<Postcard as Codec<T>>::decode(&MOST).is_err(), "{}", std::any::type_name::<T>());
            // A thousand bytes of lengths.
            let nested = [&[0xe7, 7][..], &MOST.repeat(999)].concat();
            assert!(<Postcard as Codec<Vec<T>>>::decode(&nested).is_err(), "{}", std::any::type_name::<T>());
        }
        refused::<Vec<()>>();
        refused::<Vec<Nothing>>();
        refused::<Vec<((), [Nothing; 3])>>();
        refused::<BTreeMap<(), ()>>();
        refused::<BTreeMap<Nothing, Vec<u8>>>();
        refused::<std::collections::LinkedList<()>>();
        refused::<Vec<u64>>();
        refused::<Vec<[u64; 30]>>();
        refused::<String>();
    }

    #[test]
    fn so_many_elements_without_bytes_as_the_documentation_says_are_read() {
        let read = |elements: &Vec<()>| {
            let mut bytes = Vec::new();
            Postcard::encode(elements, &mut bytes).unwrap();
            <Postcard as Codec<Vec<()>>>::decode(&bytes)
        };
        let most = vec![(); 65_536];
        assert_eq!(read(&most).unwrap(), most);
        assert!(read(&vec![(); 65_537]).is_err());
        // In all sequences of the value together.
        let halves = vec![vec![(); 40_000], vec![(); 40_000]];
        let mut bytes = Vec::new();
        Postcard::encode(&halves, &mut bytes).unwrap();
        assert!(<Postcard as Codec<Vec<Vec<()>>>>::decode(&bytes).is_err());
        // Those that have bytes are not among them.
        let bytes = vec![0; 200_000];
        let mut written = Vec::new();
        Postcard::encode(&bytes, &mut written).unwrap();
        assert_eq!(<Postcard as Codec<Vec<u8>>>::decode(&written).unwrap(), bytes);
    }

    #[test]
    fn bytes_behind_a_value_are_an_error() {
        assert!(<Postcard as Codec<u8>>::decode(&[1, 2]).is_err());
        assert!(<Json as Codec<u8>>::decode(b"1 2").is_err());
        assert_eq!(<Postcard as Codec<u8>>::decode(&[1]).unwrap(), 1);
        assert_eq!(<Json as Codec<u8>>::decode(b"1").unwrap(), 1);
    }

    #[test]
    fn json_says_why_it_cannot_write_a_value() {
        let (sender, _receiver) =
            in_process().channel::<BTreeMap<(u8, u8), u8>>("maps").codec::<Json>().open().unwrap();
        let error = sender.try_send([((1, 2), 3)].into()).unwrap_err();
        assert!(matches!(error, TrySendError::NotEncodable(_)));
        assert!(Json::size(&error.into_inner()).unwrap_err().to_string().contains("key must be a string"));
    }
}
