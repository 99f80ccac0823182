//! What the target `decode` does with its bytes; the test of the corpus does the same.
//!
//! The bytes arrive as the payload of a channel of bytes, of plain data, and of every codec.

use std::{cell::RefCell, collections::BTreeMap, io};

use waterway::{
    Segment,
    codec::{Codec, Json, Postcard, Prost, Rkyv},
};

waterway::plain_types! {
    #[derive(Debug)]
    struct Trade { id: u32, side: Side, last: bool, reserved: [u8; 2] }

    #[allow(dead_code)] // Made of bytes, if at all.
    #[derive(Debug)]
    #[repr(u8)]
    enum Side { Buy = 1, Sell }
}

#[derive(Debug, serde::Serialize, serde::Deserialize, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Order {
    id: u64,
    customer: String,
    items: Vec<Option<u16>>,
    notes: BTreeMap<String, bool>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Proto {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, repeated, tag = "2")]
    names: Vec<String>,
    #[prost(message, optional, boxed, tag = "3")]
    more: Option<Box<Proto>>,
}

/// As deep as the bytes say.
#[derive(Debug, serde::Serialize, serde::Deserialize, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(serialize_bounds(__S: rkyv::ser::Writer, __S::Error: rkyv::rancor::Source))]
#[rkyv(deserialize_bounds(__D::Error: rkyv::rancor::Source))]
#[rkyv(bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source)))]
struct Node {
    #[rkyv(omit_bounds)]
    next: Option<Box<Node>>,
}

thread_local! {
    static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static SEGMENT: Segment = Segment::options().size(4 << 20).in_process().unwrap();
}

/// Writes the bytes under the name of a codec.
struct Forger<C>(std::marker::PhantomData<C>);

impl<T: 'static, C: Codec<T>> Codec<T> for Forger<C> {
    const NAME: &'static str = C::NAME;
    type Error = io::Error;

    fn encode<W: io::Write>(_: &T, mut to: W) -> io::Result<()> {
        BYTES.with_borrow(|bytes| to.write_all(bytes))
    }

    fn decode(_: &[u8]) -> io::Result<T> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Has the bytes arrive, and gives the message to `look`.
fn arrive<T: 'static, C: Codec<T>>(value: T, look: impl FnOnce(&waterway::Message<waterway::codec::Coded<T, C>>)) {
    SEGMENT.with(|segment| {
        let sender = segment.channel::<T>("coded").codec::<Forger<C>>().sender().unwrap();
        let receiver = segment.channel::<T>("coded").codec::<C>().receiver().unwrap();
        if sender.try_send(value).is_ok() {
            let message = receiver.try_recv().unwrap();
            let _ = message.decode();
            look(&message);
        }
    });
}

/// Receives the bytes in every way.
pub(crate) fn run(data: &[u8]) {
    BYTES.set(data.to_vec());
    let order = || Order { id: 0, customer: String::new(), items: Vec::new(), notes: BTreeMap::new() };
    arrive::<Order, Postcard>(order(), |_| {});
    arrive::<Order, Json>(order(), |_| {});
    arrive::<Order, Rkyv>(order(), |message| {
        if let Ok(order) = message.archived() {
            assert!(order.customer.len() <= data.len());
            let _ = order.notes.iter().filter(|(key, value)| **value && !key.is_empty()).count();
        }
    });
    arrive::<Proto, Prost>(Proto::default(), |_| {});
    arrive::<Node, Postcard>(Node { next: None }, |_| {});
    arrive::<Node, Json>(Node { next: None }, |_| {});
    arrive::<Node, Rkyv>(Node { next: None }, |message| {
        let _ = message.archived();
    });
    arrive::<Vec<()>, Postcard>(Vec::new(), |_| {});
    arrive::<BTreeMap<String, Vec<()>>, Postcard>(BTreeMap::new(), |_| {});
    SEGMENT.with(|segment| {
        let (sender, receiver) = segment.bytes("bytes").open().unwrap();
        if sender.try_send(data).is_ok() {
            assert_eq!(&receiver.try_recv().unwrap()[..], data);
        }
    });
    let _ = <Trade as waterway::zerocopy::TryFromBytes>::try_read_from_bytes(data);
}
