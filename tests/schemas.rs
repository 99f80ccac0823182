//! What a type looks like is part of its channel: who means something else by the same name is refused, and told what differs.

mod common;

use std::{marker::PhantomData, num::NonZeroU32};

use common::{in_process, two};
use waterway::{
    OpenError, Schema, Sender,
    schema::{Endianness, Field, Kind, Opaque},
    service::ReplyTo,
};

/// Versions of one type, as two programs may have them.
mod before {
    #[waterway::plain]
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub(super) struct Tick {
        pub(super) id: u64,
        pub(super) price: f64,
    }

    #[waterway::plain]
    pub(super) struct Order {
        pub(super) tick: Tick,
        pub(super) side: Side,
        pub(super) lots: [u16; 4],
    }

    #[waterway::plain]
    #[repr(u64)]
    #[expect(dead_code, reason = "nobody sends one")]
    pub(super) enum Side {
        Buy,
        Sell,
    }
}

mod after {
    #[waterway::plain]
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub(super) struct Tick {
        pub(super) price: f64,
        pub(super) id: u64,
    }

    #[waterway::plain]
    pub(super) struct Order {
        pub(super) tick: Tick,
        pub(super) side: Side,
        pub(super) lots: [u16; 4],
    }

    #[waterway::plain]
    #[repr(u64)]
    #[expect(dead_code, reason = "nobody sends one")]
    pub(super) enum Side {
        Sell,
        Buy,
    }
}

fn mismatch<T>(opened: Result<T, OpenError>) -> (String, String) {
    match opened.err().expect("it was opened") {
        OpenError::Mismatch { expected, found, .. } => (expected, found),
        error => panic!("{error}"),
    }
}

#[test]
fn a_field_that_was_moved_is_a_mismatch_that_shows_it() {
    let segment = in_process();
    let sender = segment.channel::<before::Tick>("ticks").sender().unwrap();
    let error = segment.channel::<after::Tick>("ticks").receiver().unwrap_err();
    let text = error.to_string();
    for line in ["  - id: u64 at 0", "  + id: u64 at 8", "  - price: f64 at 8", "  + price: f64 at 0"] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert_eq!(text.lines().count(), 6, "{text}");
    sender.try_send(before::Tick { id: 1, price: 2.0 }).unwrap();
    let receiver = segment.channel::<before::Tick>("ticks").receiver().unwrap();
    assert_eq!(*receiver.try_recv().unwrap(), before::Tick { id: 1, price: 2.0 });
}

#[test]
fn what_is_nested_is_compared_too() {
    let segment = in_process();
    let _sender = segment.channel::<before::Order>("orders").sender().unwrap();
    let (expected, found) = mismatch(segment.channel::<after::Order>("orders").receiver());
    assert!(found.starts_with("Order (32 bytes"), "{found}");
    for line in ["  - tick.id: u64 at 0", "  + tick.id: u64 at 8", "  - side::Buy = 0", "  + side::Buy = 1"] {
        assert!(expected.lines().any(|found| found == line), "{line}\n{expected}");
    }
    assert!(!expected.contains("lots"), "what is the same is not shown: {expected}");
}

#[test]
fn every_pattern_compares() {
    let segment = in_process();
    let _slices = segment.channel::<[before::Tick]>("slices").sender().unwrap();
    mismatch(segment.channel::<[after::Tick]>("slices").receiver());
    let _routed = segment.bytes("routed").routed().sender().unwrap();
    mismatch(segment.channel::<[i8]>("routed").routed().receiver());
    let _broadcast = segment.broadcast::<before::Tick>("broadcast").publisher().unwrap();
    mismatch(segment.broadcast::<after::Tick>("broadcast").subscriber());
    let initial = before::Tick { id: 0, price: 0.0 };
    let _watch = segment.watch::<before::Tick>("watch").initial(initial).sender().unwrap();
    mismatch(segment.watch::<after::Tick>("watch").receiver());
    let _service = segment.service::<before::Tick, u64>("service").server().unwrap();
    let (expected, _) = mismatch(segment.service::<after::Tick, u64>("service").client());
    assert!(expected.contains("  - request.id: u64 at 0"), "{expected}");
    let _response = segment.service::<u64, before::Tick>("response").server().unwrap();
    let (expected, _) = mismatch(segment.service::<u64, after::Tick>("response").client());
    assert!(expected.contains("  + response.price: f64 at 0"), "{expected}");

    let (_end, receiver) = segment.channel::<before::Tick>("answers").open().unwrap();
    let bytes = receiver.reply_to().to_bytes();
    assert!(ReplyTo::<after::Tick>::from_bytes(bytes).sender(&segment).is_err());
    assert!(ReplyTo::<before::Tick>::from_bytes(bytes).sender(&segment).is_ok());

    let block = segment.allocator().allocate(before::Tick { id: 1, price: 2.0 }).unwrap();
    assert!(segment.allocator().resolve::<after::Tick>(block.handle()).is_err());
    assert!(segment.allocator().resolve::<before::Tick>(block.handle()).is_ok());
}

#[test]
fn types_of_other_names_are_named_and_not_compared_by_field() {
    let segment = in_process();
    let _sender = segment.channel::<before::Tick>("ticks").sender().unwrap();
    let (expected, found) = mismatch(segment.channel::<[u64; 2]>("ticks").receiver());
    assert!(found.contains("Tick") && expected.contains("[u64; 2]") && !expected.contains('\n'), "{expected}; {found}");
    // A mismatch of something else says nothing of fields.
    let (expected, _) = mismatch(segment.channel::<before::Tick>("ticks").capacity(7).receiver());
    assert!(!expected.contains("layout"), "{expected}");
}

#[test]
fn processes_compare_what_stands_in_the_segment() {
    let (_place, one, other) = two();
    let _sender: Sender<before::Tick> = one.channel("ticks").sender().unwrap();
    let (expected, _) = mismatch(other.channel::<after::Tick>("ticks").receiver());
    assert!(expected.contains("  - id: u64 at 0"), "{expected}");
    assert!(one.check_live().is_clean());
}

#[test]
fn a_schema_that_is_too_long_to_stand_there_is_compared_all_the_same() {
    macro_rules! wide {
        ($module:ident: $($field:ident),* $(,)?) => {
            mod $module {
                #[waterway::plain]
                pub(super) struct Wide { $(pub(super) $field: Long),* }

                #[waterway::plain]
                pub(super) struct Long {
                    a_field_of_a_name_that_is_as_long_as_a_sentence_and_says_as_much_as_that_and_goes_on: [u64; 9],
                    another_field_of_a_name_that_is_as_long_as_a_sentence_and_says_as_much_and_goes_on: [u64; 8],
                }
            }
        };
    }
    wide!(
        one: a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, c0, c1, c2, c3, c4, c5, c6, c7,
        c8, c9, d0, d1, d2, d3, d4, d5, d6, d7, d8, d9, e0, e1, e2, e3, e4, e5, e6, e7, e8, e9, f0, f1, f2, f3, f4, f5, f6,
        f7, f8, f9, g0, g1, g2, g3, g4, g5, g6, g7, g8, g9, h0, h1, h2, h3, h4, h5, h6, h7, h8, h9,
    );
    wide!(
        two: a1, a0, a2, a3, a4, a5, a6, a7, a8, a9, b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, c0, c1, c2, c3, c4, c5, c6, c7,
        c8, c9, d0, d1, d2, d3, d4, d5, d6, d7, d8, d9, e0, e1, e2, e3, e4, e5, e6, e7, e8, e9, f0, f1, f2, f3, f4, f5, f6,
        f7, f8, f9, g0, g1, g2, g3, g4, g5, g6, g7, g8, g9, h0, h1, h2, h3, h4, h5, h6, h7, h8, h9,
    );
    assert!(Schema::of::<one::Wide>().to_string().len() > 16 << 10);
    let segment = in_process();
    let _sender = segment.channel::<one::Wide>("wide").sender().unwrap();
    assert!(mismatch(segment.channel::<two::Wide>("wide").receiver()).0.ends_with("with another layout"));
    segment.channel::<one::Wide>("wide").receiver().unwrap();
}

#[test]
fn a_schema_says_what_a_type_consists_of() {
    let schema = Schema::of::<before::Order>();
    assert_eq!((schema.name(), schema.kind(), schema.size(), schema.alignment()), ("Order", Kind::Plain, 32, 8));
    assert_eq!((schema.endianness(), schema.codec(), schema.is_opaque()), (Endianness::Little, None, false));
    let shown = |field: &Field| (field.name().to_owned(), field.offset(), field.ty().to_owned(), field.count());
    let fields: Vec<_> = schema.fields().iter().map(shown).collect();
    let expected = [("tick", 0, "Tick", 1), ("side", 16, "Side", 1), ("lots", 24, "u16", 4)];
    assert_eq!(fields, expected.map(|(name, at, ty, count)| (name.to_owned(), at, ty.to_owned(), count)));
    let nested = |number: usize| schema.fields()[number].nested();
    assert_eq!(nested(0), Some(&Schema::of::<before::Tick>()));
    let sides: Vec<_> = nested(1).unwrap().variants().iter().map(|side| (side.name(), side.value())).collect();
    assert_eq!(sides, [("Buy", "0"), ("Sell", "1")]);
    assert_eq!(nested(2), None);

    // The text is what is hashed, and stays: what another build of the program has is compared with it.
    let text = "Tick: 16 bytes, alignment 8, little-endian\nid: u64 at 0\nprice: f64 at 8";
    assert_eq!(Schema::of::<before::Tick>().to_string(), text);
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    assert_eq!(Schema::of::<before::Tick>().hash(), text.bytes().fold(0xcbf2_9ce4_8422_2325, fnv));
}

#[test]
fn kinds_of_payload_have_schemas() {
    let bytes = Schema::of::<[u8]>();
    assert_eq!((bytes.name(), bytes.kind(), bytes.size()), ("bytes", Kind::Bytes, 1));
    let ticks = Schema::of::<[before::Tick]>();
    assert_eq!((ticks.name(), ticks.kind(), ticks.size()), ("[Tick]", Kind::Slice, 16));
    assert_ne!(ticks.hash(), Schema::of::<[after::Tick]>().hash());
    let of_arrays = Schema::of::<[[u8; 8]; 4]>();
    assert_eq!((of_arrays.fields()[0].ty(), of_arrays.fields()[0].count()), ("[u8; 8]", 4));
    assert_ne!(Schema::of::<[[u8; 8]; 1]>(), Schema::of::<[u8; 8]>());
    #[cfg(all(feature = "json", feature = "postcard"))]
    {
        let schema = Schema::of::<waterway::codec::Coded<String, waterway::codec::Postcard>>();
        assert_eq!(
            (schema.name(), schema.kind(), schema.codec()),
            ("String via postcard", Kind::Codec, Some("postcard"))
        );
        assert_ne!(schema.hash(), Schema::of::<waterway::codec::Coded<String, waterway::codec::Json>>().hash());
    }
}

#[test]
fn generics_enums_with_fields_and_what_is_plain_by_itself_travel() {
    #[waterway::plain]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Pair<T, const N: usize> {
        first: T,
        rest: [T; N],
    }

    #[waterway::plain]
    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(transparent)]
    struct Id<T: Send + Sync + 'static> {
        number: u64,
        of: PhantomData<T>,
    }

    #[waterway::plain]
    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(u32)]
    enum Shape {
        Circle { radius: f32, filled: u32 } = 3,
        Square(f32, u32),
    }

    #[waterway::plain]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Mixed {
        id: Id<u8>,
        pair: Pair<u32, 3>,
        shape: Shape,
        maybe: Option<NonZeroU32>,
        letter: char,
        sure: bool,
        r#type: [bool; 3],
    }

    let segment = in_process();
    let (sender, receiver) = segment.channel::<Mixed>("mixed").open().unwrap();
    let mixed = Mixed {
        id: Id { number: 7, of: PhantomData },
        pair: Pair { first: 1, rest: [2, 3, 4] },
        shape: Shape::Square(2.0, 1),
        maybe: None,
        letter: 'ß',
        sure: true,
        r#type: [false; 3],
    };
    sender.try_send(mixed).unwrap();
    assert_eq!(*receiver.try_recv().unwrap(), mixed);

    assert_eq!(Schema::of::<Pair<u32, 3>>().name(), "Pair<u32, 3>");
    assert_ne!(Schema::of::<Pair<u32, 3>>().hash(), Schema::of::<Pair<i32, 3>>().hash());
    let lines = Schema::of::<Mixed>().to_string();
    for line in [
        "id.of: PhantomData<u8> at 8",
        "pair.rest: [u32; 3] at 4",
        "shape: Shape at 24 (12 bytes, alignment 4, enum of u32)",
        "shape::Circle = 3",
        "shape::Circle.radius: f32 at 4",
        "shape::Square = 4",
        "shape::Square.1: u32 at 8",
        "maybe: Option<NonZero<u32>> at 36",
        "letter: char at 40",
        "type: [bool; 3] at 45",
    ] {
        assert!(lines.lines().any(|found| found == line), "{line}\n{lines}");
    }
    let _ = Shape::Circle { radius: 1.0, filled: 1 };
}

/// Types that have zerocopy's derives and no attribute.
mod elsewhere {
    use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

    #[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(C)]
    pub(super) struct Tick {
        pub(super) id: u64,
        pub(super) price: f64,
    }

    /// Has plain data in it.
    #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(C)]
    pub(super) struct Outer {
        pub(super) inner: super::Inner,
        pub(super) number: u64,
    }
}

#[waterway::plain]
#[derive(zerocopy::FromBytes)]
struct Inner(u64);

#[test]
fn a_type_with_zerocopys_derives_is_known_by_its_name() {
    let segment = in_process();
    let (sender, receiver) = segment.channel::<elsewhere::Tick>("ticks").open().unwrap();
    let tick = elsewhere::Tick { id: 1, price: 0.5 };
    sender.try_send(tick).unwrap();
    assert_eq!(*receiver.try_recv().unwrap(), tick);
    let schema = Schema::of::<elsewhere::Tick>();
    assert!(schema.is_opaque() && schema.fields().is_empty());
    assert_eq!(schema.to_string(), "Tick: 16 bytes, alignment 8, opaque, little-endian");
    assert_eq!(Schema::of::<elsewhere::Outer>().size(), 16);

    // Who knows the fields says that they are not to be compared.
    let (expected, _) = mismatch(segment.channel::<before::Tick>("ticks").receiver());
    assert!(expected.contains("  - Tick: 16 bytes, alignment 8, opaque"), "{expected}");
    assert_eq!(Schema::of::<Opaque<before::Tick>>(), schema);
    let blind = segment.channel::<Opaque<before::Tick>>("ticks").receiver().unwrap();
    sender.try_send(tick).unwrap();
    assert_eq!(blind.try_recv().unwrap().0, before::Tick { id: 1, price: 0.5 });
    let _slices = segment.channel::<[elsewhere::Tick]>("slices").sender().unwrap();
    segment.channel::<[Opaque<after::Tick>]>("slices").receiver().unwrap();
}

#[test]
fn the_attribute_takes_the_place_of_the_derives() {
    use zerocopy::{FromBytes, Immutable, IntoBytes};

    #[waterway::plain]
    #[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, zerocopy::KnownLayout)]
    #[repr(C)]
    struct Tick {
        id: u64,
        prices: [[f64; 2]; 3],
    }

    let schema = Schema::of::<Tick>();
    assert!(!schema.is_opaque());
    let lines = "prices: [[f64; 2]; 3] at 8 (16 bytes, alignment 8)\nprices[]: [f64; 2] at 0";
    assert!(schema.to_string().ends_with(lines), "{schema}");
}

#[test]
fn an_array_by_itself_is_known_by_its_name_and_length() {
    let segment = in_process();
    let _sender = segment.channel::<[before::Tick; 2]>("arrays").sender().unwrap();
    mismatch(segment.channel::<[before::Tick; 3]>("arrays").receiver());
    mismatch(segment.channel::<[Inner; 4]>("arrays").receiver());
    segment.channel::<[before::Tick; 2]>("arrays").receiver().unwrap();
    assert!(Schema::of::<[before::Tick; 2]>().fields()[0].nested().unwrap().is_opaque());
}
