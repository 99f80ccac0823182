//! The codecs of rkyv and prost, and plain data made by the macro.

mod common;

use common::Place;
use waterway::{Segment, TrySendError, codec::Codec};

fn in_process() -> Segment {
    Segment::options().size(4 << 20).in_process().unwrap()
}

fn two() -> (Place, Segment, Segment) {
    let place = Place::new();
    let one = place.options().size(4 << 20).create("two").unwrap();
    let other = place.options().open("two").unwrap();
    (place, one, other)
}

/// Bytes that anybody has.
fn held(segment: &Segment) -> usize {
    let report = segment.check();
    assert!(report.is_clean(), "{report:?}");
    report.sectors.iter().map(|sector| sector.allocated_bytes + sector.in_flight_bytes).sum()
}

/// Writes any bytes under the name of another codec: what a process does that has another version of a type, or worse.
#[allow(unused_macros)] // Used with one of the features only.
macro_rules! forger {
    ($forger:ident, $codec:ty, $type:ty) => {
        struct $forger;

        thread_local! {
            static FORGED: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
        }

        impl Codec<$type> for $forger {
            const NAME: &'static str = <$codec as Codec<$type>>::NAME;
            type Error = std::io::Error;

            fn encode<W: std::io::Write>(_: &$type, mut to: W) -> std::io::Result<()> {
                FORGED.with_borrow(|bytes| to.write_all(bytes))
            }

            fn decode(_: &[u8]) -> std::io::Result<$type> {
                unreachable!()
            }
        }
    };
}

mod plain {
    use super::*;

    waterway::plain_types! {
        /// Only some bits are a value.
        #[derive(Debug, PartialEq)]
        struct Trade {
            id: u64,
            /// With documentation.
            price: f64,
            side: Side,
            last: bool,
            reserved: [u8; 6],
        }

        #[allow(dead_code)] // One of them is only there to be no other.
        #[derive(Debug, PartialEq)]
        #[repr(u8)]
        enum Side { Buy = 1, Sell }

        #[derive(Debug, PartialEq)]
        pub(crate) struct Pair(pub u32, u32);
    }

    const TRADE: Trade = Trade { id: 7, price: 0.5, side: Side::Sell, last: true, reserved: [0; 6] };

    #[test]
    fn what_the_macro_makes_travels() {
        let (_place, one, other) = two();
        let sender = one.channel::<Trade>("trades").sender().unwrap();
        let receiver = other.channel::<Trade>("trades").receiver().unwrap();
        sender.try_send(TRADE).unwrap();
        assert_eq!(*receiver.try_recv().unwrap(), TRADE);
        let (sender, receiver) = one.channel::<Pair>("pairs").open().unwrap();
        sender.try_send(Pair(1, 2)).unwrap();
        assert_eq!(receiver.try_recv().unwrap().into_inner(), Pair(1, 2));
    }

    #[test]
    fn bits_that_are_no_value_are_refused() {
        use waterway::zerocopy::{IntoBytes, TryFromBytes};
        let mut bytes = TRADE.as_bytes().to_vec();
        assert_eq!(Trade::try_read_from_bytes(&bytes).unwrap(), TRADE);
        bytes[16] = 3;
        assert!(Trade::try_read_from_bytes(&bytes).is_err());
        bytes[16] = 1;
        bytes[17] = 2;
        assert!(Trade::try_read_from_bytes(&bytes).is_err());
    }
}

#[cfg(feature = "rkyv")]
mod with_rkyv {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use rkyv::{Archive, Deserialize, Serialize};
    use waterway::{OpenError, codec::Rkyv};

    use super::*;

    #[derive(Archive, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[rkyv(derive(Debug))]
    enum Item {
        Nothing,
        Text(String),
        Numbers { many: Vec<i64>, one: Option<u128> },
    }

    #[derive(Archive, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[rkyv(derive(Debug))]
    struct Order {
        id: u64,
        customer: String,
        items: Vec<Item>,
        notes: BTreeMap<String, bool>,
    }

    forger!(Forger, Rkyv, Order);

    fn item() -> impl Strategy<Value = Item> {
        prop_oneof![
            Just(Item::Nothing),
            ".*".prop_map(Item::Text),
            (prop::collection::vec(any::<i64>(), 0..50), any::<Option<u128>>())
                .prop_map(|(many, one)| Item::Numbers { many, one }),
        ]
    }

    fn order() -> impl Strategy<Value = Order> {
        let notes = prop::collection::btree_map(".*", any::<bool>(), 0..5);
        (any::<u64>(), ".*", prop::collection::vec(item(), 0..10), notes)
            .prop_map(|(id, customer, items, notes)| Order { id, customer, items, notes })
    }

    fn an_order() -> Order {
        Order {
            id: 9,
            customer: "Ada Lovelace, at some length".into(),
            items: vec![Item::Nothing, Item::Numbers { many: vec![1, -2, 3], one: Some(4) }],
            notes: [("a note that is too long to be inline".to_owned(), true)].into(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn whatever_rkyv_archives_comes_back_as_it_was(orders in prop::collection::vec(order(), 1..8)) {
            let (_place, one, other) = two();
            let sender = one.channel::<Order>("orders").codec::<Rkyv>().sender().unwrap();
            let receiver = other.channel::<Order>("orders").codec::<Rkyv>().receiver().unwrap();
            for order in orders {
                sender.try_send(order.clone()).unwrap();
                let message = receiver.try_recv().unwrap();
                assert_eq!(message.as_ref().len(), Rkyv::size(&order).unwrap());
                let mut written = Vec::new();
                Rkyv::encode(&order, &mut written).unwrap();
                assert_eq!(message.as_ref(), written);
                assert_eq!(message.archived().unwrap().id, order.id);
                assert_eq!(message.decode().unwrap(), order);
            }
            drop((sender, receiver));
            assert_eq!(held(&one), 0);
        }

        #[test]
        fn any_bytes_are_read_or_give_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = <Rkyv as Codec<Order>>::decode(&bytes);
        }

        #[test]
        fn an_archive_with_wrong_bytes_is_read_or_gives_an_error(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut written = Vec::new();
            Rkyv::encode(&an_order(), &mut written).unwrap();
            written.truncate(written.len() - cut.index(2) * cut.index(written.len()));
            for (at, byte) in changes {
                if let 1.. = written.len() {
                    let at = at.index(written.len());
                    written[at] = byte;
                }
            }
            FORGED.set(written);
            let segment = in_process();
            let forger = segment.channel::<Order>("orders").codec::<Forger>().sender().unwrap();
            let receiver = segment.channel::<Order>("orders").codec::<Rkyv>().receiver().unwrap();
            forger.try_send(an_order()).unwrap();
            let message = receiver.try_recv().unwrap();
            assert_eq!(message.archived().is_ok(), message.decode().is_ok());
        }
    }

    #[test]
    fn an_archive_is_read_where_it_stands() {
        let (_place, one, other) = two();
        let sender = one.channel::<Order>("orders").codec::<Rkyv>().sender().unwrap();
        let receiver = other.channel::<Order>("orders").codec::<Rkyv>().receiver().unwrap();
        sender.try_send(an_order()).unwrap();
        let message = receiver.try_recv().unwrap();
        let order = message.archived().unwrap();
        assert_eq!((order.id.to_native(), order.customer.as_str()), (9, "Ada Lovelace, at some length"));
        // The root and what it points to lie within the message's own bytes.
        let payload = message.as_ref().as_ptr_range();
        assert!(payload.contains(&std::ptr::from_ref(order).cast()));
        assert!(payload.contains(&order.customer.as_str().as_ptr()));
        assert!(payload.contains(&order.items.as_ptr().cast()));
    }

    #[test]
    fn what_is_no_archive_is_an_error_with_its_cause() {
        let segment = in_process();
        let forger = segment.channel::<Order>("orders").codec::<Forger>().sender().unwrap();
        let receiver = segment.channel::<Order>("orders").codec::<Rkyv>().receiver().unwrap();
        for bytes in [vec![], vec![0xff; 7], vec![0xff; 500]] {
            FORGED.set(bytes.clone());
            forger.try_send(an_order()).unwrap();
            let message = receiver.try_recv().unwrap();
            let error = message.archived().unwrap_err();
            assert_eq!(error.codec(), "rkyv");
            assert!(std::error::Error::source(&error).is_some());
            assert!(message.decode().is_err());
            assert_eq!(message.as_ref(), bytes, "the message is still there");
        }
    }

    /// A list of boxes.
    #[derive(Archive, Debug, PartialEq, Serialize, Deserialize)]
    #[rkyv(serialize_bounds(__S: rkyv::ser::Writer, __S::Error: rkyv::rancor::Source))]
    #[rkyv(deserialize_bounds(__D::Error: rkyv::rancor::Source))]
    #[rkyv(bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source)))]
    struct Node {
        #[rkyv(omit_bounds)]
        next: Option<Box<Node>>,
    }

    mod nodes {
        use super::*;

        forger!(Forger, Rkyv, Node);

        #[test]
        fn what_leads_deeper_than_a_stack_is_an_error() {
            let segment = Segment::options().size(16 << 20).in_process().unwrap();
            let forger = segment.channel::<Node>("nodes").codec::<Forger>().sender().unwrap();
            let receiver = segment.channel::<Node>("nodes").codec::<Rkyv>().receiver().unwrap();
            // Each node says whether there is a next one, and how far before it that stands.
            let node: Vec<u8> = [1, 0, 0, 0].into_iter().chain((-12_i32).to_le_bytes()).collect();
            for (count, is_read) in [(100, true), (400_000, false)] {
                FORGED.set([vec![0; 8], node.repeat(count)].concat());
                forger.try_send(Node { next: None }).map_err(drop).unwrap();
                let message = receiver.try_recv().unwrap();
                assert_eq!(message.archived().is_ok(), is_read, "{count}");
                assert_eq!(message.decode().is_ok(), is_read, "{count}");
            }
        }

        #[test]
        fn what_is_nested_a_hundred_times_comes_back_as_it_was() {
            let (sender, receiver) = in_process().channel::<Node>("nodes").codec::<Rkyv>().open().unwrap();
            let nodes = || (0..100).fold(Node { next: None }, |node, _| Node { next: Some(Box::new(node)) });
            sender.try_send(nodes()).map_err(drop).unwrap();
            assert_eq!(receiver.try_recv().unwrap().decode().unwrap(), nodes());
        }
    }

    #[test]
    fn rkyv_and_bytes_refuse_each_other() {
        let (_place, one, other) = two();
        let _sender = one.channel::<Order>("orders").codec::<Rkyv>().sender().unwrap();
        let error = other.bytes("orders").receiver().unwrap_err();
        let OpenError::Mismatch { expected, found, .. } = error else { panic!("{error}") };
        assert!(expected.contains("bytes") && found.contains("Order via rkyv"), "{expected} {found}");
    }

    #[test]
    fn less_room_than_it_needs_is_an_error() {
        let size = Rkyv::size(&an_order()).unwrap();
        let mut room = vec![0; size];
        assert_eq!(Rkyv::encode_into(&an_order(), &mut room).unwrap(), size);
        assert!(Rkyv::encode_into(&an_order(), &mut room[1..]).is_err());
    }
}

#[cfg(feature = "prost")]
mod with_prost {
    use proptest::prelude::*;
    use prost::Message;
    use waterway::{OpenError, codec::Prost};

    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Order {
        #[prost(uint64, tag = "1")]
        id: u64,
        #[prost(string, tag = "2")]
        customer: String,
        #[prost(bytes = "vec", repeated, tag = "3")]
        items: Vec<Vec<u8>>,
        #[prost(map = "string, sint32", tag = "4")]
        notes: std::collections::HashMap<String, i32>,
        #[prost(message, optional, boxed, tag = "5")]
        before: Option<Box<Order>>,
    }

    forger!(Forger, Prost, Order);

    fn order() -> impl Strategy<Value = Order> {
        let items = || prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..5);
        let notes = prop::collection::hash_map(".*", any::<i32>(), 0..2);
        (any::<u64>(), ".*", items(), notes, prop::option::of(items())).prop_map(
            |(id, customer, more, notes, before)| {
                let before = before.map(|items| Box::new(Order { items, ..Order::default() }));
                Order { id, customer, items: more, notes, before }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn whatever_prost_writes_comes_back_as_it_was(orders in prop::collection::vec(order(), 1..8)) {
            let (_place, one, other) = two();
            let sender = one.channel::<Order>("orders").codec::<Prost>().sender().unwrap();
            let receiver = other.channel::<Order>("orders").codec::<Prost>().receiver().unwrap();
            for order in orders {
                sender.try_send(order.clone()).unwrap();
                let message = receiver.try_recv().unwrap();
                assert_eq!(message.as_ref(), order.encode_to_vec());
                assert_eq!(message.decode().unwrap(), order);
            }
            drop((sender, receiver));
            assert_eq!(held(&one), 0);
        }

        #[test]
        fn any_bytes_decode_or_give_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = <Prost as Codec<Order>>::decode(&bytes);
        }
    }

    #[test]
    fn what_is_no_protobuf_is_an_error_with_its_cause() {
        let segment = in_process();
        let forger = segment.channel::<Order>("orders").codec::<Forger>().sender().unwrap();
        let receiver = segment.channel::<Order>("orders").codec::<Prost>().receiver().unwrap();
        FORGED.set(vec![0xff; 30]);
        forger.try_send(Order::default()).unwrap();
        let message = receiver.try_recv().unwrap();
        let error = message.decode().unwrap_err();
        assert_eq!(error.codec(), "protobuf");
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("Protobuf"));
        assert_eq!(message.as_ref(), [0xff; 30], "the message is still there");
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Nest {
        #[prost(message, optional, boxed, tag = "1")]
        next: Option<Box<Nest>>,
    }

    #[test]
    fn what_is_nested_deeper_than_a_stack_is_an_error() {
        // Each level says that all the rest belongs to it.
        let mut deep = Vec::new();
        for _ in 0..50_000 {
            let mut level = vec![0x0a];
            prost::encoding::encode_varint(deep.len() as u64, &mut level);
            deep.splice(0..0, level);
        }
        assert!(<Prost as Codec<Nest>>::decode(&deep).is_err());
        assert!(<Prost as Codec<Nest>>::decode(&vec![0x0a; 1 << 20]).is_err());
    }

    #[test]
    fn a_message_of_defaults_is_no_bytes() {
        let (sender, receiver) = in_process().channel::<Order>("orders").codec::<Prost>().open().unwrap();
        sender.try_send(Order::default()).unwrap();
        let message = receiver.try_recv().unwrap();
        assert!(message.as_ref().is_empty());
        assert_eq!(message.decode().unwrap(), Order::default());
    }

    #[test]
    fn prost_and_another_codec_refuse_each_other() {
        let (_place, one, other) = two();
        let _sender = one.channel::<Order>("orders").codec::<Prost>().sender().unwrap();
        let error = other.bytes("orders").receiver().unwrap_err();
        let OpenError::Mismatch { found, .. } = error else { panic!("{error}") };
        assert!(found.contains("Order via protobuf"), "{found}");
    }
}

/// Says that it writes more into memory than there is.
struct Braggart;

impl Codec<u8> for Braggart {
    const NAME: &'static str = "braggart";
    type Error = std::io::Error;

    fn encode<W: std::io::Write>(value: &u8, mut to: W) -> std::io::Result<()> {
        to.write_all(&[*value])
    }

    fn encode_into(_: &u8, to: &mut [u8]) -> std::io::Result<usize> {
        Ok(to.len() + 1)
    }

    fn decode(bytes: &[u8]) -> std::io::Result<u8> {
        bytes.first().copied().ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    }
}

#[test]
fn a_codec_that_lies_about_what_it_wrote_sends_nothing() {
    let segment = in_process();
    let (sender, receiver) = segment.channel::<u8>("numbers").codec::<Braggart>().open().unwrap();
    let before = held(&segment);
    assert_eq!(sender.try_send(1), Err(TrySendError::NotEncodable(1)));
    assert_eq!((receiver.len(), held(&segment)), (0, before));
}
