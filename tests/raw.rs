//! Raw ends: what a typed end sends arrives as bytes, and the other way round.

mod common;

use std::time::Duration;

use common::{assert_empty, in_process, two, within};
use waterway::{Delivery, OpenError, Schema, TryRecvError, TrySendError, channel::SendErrorKind};
use zerocopy::IntoBytes;

#[waterway::plain]
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tick {
    id: u64,
    price: f64,
}

#[waterway::plain]
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(256))]
struct Page([u64; 32]);

#[test]
fn values_of_any_alignment_go_both_ways_between_processes() {
    let (_place, one, other) = two();
    let (sender, receiver) = one.channel::<Tick>("ticks").open().unwrap();
    let schema = Schema::of::<Tick>();
    let (raw, arrives) = other.raw("ticks", Some(&schema)).open().unwrap();
    assert_eq!((raw.payload(), raw.schema()), ("Tick", Some(&*schema.to_string())));
    let tick = Tick { id: 7, price: 0.5 };
    raw.try_send(tick.as_bytes()).unwrap();
    assert_eq!(*receiver.try_recv().unwrap(), tick);
    sender.try_send(tick).unwrap();
    let message = arrives.try_recv().unwrap();
    assert_eq!((&*message, message.sequence()), (tick.as_bytes(), 1));
    assert_eq!(message.into_bytes(), tick.as_bytes());

    let (sender, receiver) = one.channel::<Page>("pages").open().unwrap();
    let (raw, arrives) = other.raw("pages", None).open().unwrap();
    let page = Page(std::array::from_fn(|number| number as u64));
    for _ in 0..20 {
        raw.try_send(page.as_bytes()).unwrap();
        assert_eq!(receiver.try_recv().unwrap().0, page.0);
    }
    sender.try_send(page).unwrap();
    assert_eq!(*arrives.try_recv().unwrap(), *page.as_bytes());
    drop((sender, receiver, raw, arrives));
    assert!(one.raw("pages", None).sender().is_err(), "it went with its ends");
}

#[test]
fn slices_bytes_and_elements_of_wide_alignment_are_framed() {
    let segment = in_process();
    let (sender, receiver) = segment.channel::<[Tick]>("ticks").open().unwrap();
    let (raw, arrives) = segment.raw("ticks", Some(&Schema::of::<[Tick]>())).open().unwrap();
    let ticks = [Tick { id: 1, price: 1.5 }, Tick { id: 2, price: 2.5 }];
    raw.try_send(ticks.as_bytes()).unwrap();
    assert_eq!(*receiver.try_recv().unwrap(), ticks);
    sender.try_send(ticks).unwrap();
    assert_eq!(*arrives.try_recv().unwrap(), *ticks.as_bytes());
    raw.try_send([]).unwrap();
    assert!(receiver.try_recv().unwrap().is_empty());

    let (_sender, pages) = segment.channel::<[Page]>("pages").open().unwrap();
    let (raw, arrives) = segment.raw("pages", None).open().unwrap();
    let both = [Page([1; 32]), Page([2; 32])];
    raw.try_send(both.as_bytes()).unwrap();
    assert_eq!(*pages.try_recv().unwrap(), both);
    raw.try_send(both.as_bytes()).unwrap();
    assert_eq!(*arrives.try_recv().unwrap(), *both.as_bytes());

    let (_sender, lines) = segment.bytes("lines").open().unwrap();
    segment.raw("lines", None).sender().unwrap().try_send("a line").unwrap();
    assert_eq!(*lines.try_recv().unwrap(), *b"a line");
    drop((sender, receiver));
}

#[test]
fn bytes_of_another_length_are_handed_back() {
    let segment = in_process();
    let (raw, _arrives) = segment.raw("ticks", Some(&Schema::of::<Tick>())).open().unwrap();
    for len in [0, 15, 17] {
        assert!(matches!(raw.try_send(vec![0; len]), Err(TrySendError::NotEncodable(back)) if back.len() == len));
    }
    let error = within(raw.send(vec![0; 3])).unwrap_err();
    assert_eq!((error.kind(), error.0.len()), (SendErrorKind::NotEncodable, 3));
    let (slices, arrives) = segment.raw("slices", Some(&Schema::of::<[u32]>())).open().unwrap();
    assert!(slices.try_send([1; 6]).is_err());
    slices.try_send([1; 8]).unwrap();
    assert_eq!(arrives.try_recv().unwrap().len(), 8);
}

#[test]
fn bytes_that_are_no_value_are_refused_by_typed_receivers_only() {
    let segment = in_process();
    let (raw, arrives) = segment.raw("flags", Some(&Schema::of::<bool>())).open().unwrap();
    raw.try_send([7]).unwrap();
    assert_eq!(*arrives.try_recv().unwrap(), [7]);
    let flags = segment.channel::<bool>("flags").receiver().unwrap();
    raw.try_send([7]).unwrap();
    raw.try_send([1]).unwrap();
    assert!(*flags.try_recv().unwrap());
    assert_eq!(flags.invalid(), 1);
}

#[test]
fn raw_ends_are_ends_like_others() {
    let segment = in_process();
    let jobs = segment.raw("jobs", Some(&Schema::of::<u64>()));
    let (sender, receiver) = jobs.capacity(2).delivery(Delivery::AtLeastOnce { max_deliveries: 3 }).open().unwrap();
    sender.blocking_send(1_u64.to_ne_bytes()).unwrap();
    within(sender.send(2_u64.to_ne_bytes())).unwrap();
    assert!(matches!(sender.try_send(3_u64.to_ne_bytes()), Err(TrySendError::Full(_))));
    assert!(within(sender.send_timeout(3_u64.to_ne_bytes(), Duration::ZERO)).is_err());
    assert_eq!((receiver.len(), receiver.max_capacity()), (2, 2));
    within(receiver.recv()).unwrap().nack();
    let again = receiver.blocking_recv().unwrap();
    assert_eq!((again.delivery_count(), &*again), (2, &1_u64.to_ne_bytes()[..]));
    again.ack();
    // A typed end takes what is left.
    assert_eq!(*segment.channel::<u64>("jobs").receiver().unwrap().try_recv().unwrap(), 2);
    assert!(within(receiver.recv_timeout(Duration::ZERO)).is_err());
    drop(sender);
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Disconnected);
    drop(receiver);
    assert_empty(&segment);
}

#[test]
fn who_asks_for_another_schema_or_nothing_at_all_is_told() {
    let segment = in_process();
    assert!(matches!(segment.raw("none", None).sender(), Err(OpenError::InvalidOptions(why)) if why.contains("none")));
    let _ticks = segment.channel::<Tick>("ticks").capacity(8).sender().unwrap();
    let refused = segment.raw("ticks", Some(&Schema::of::<[u64; 2]>())).receiver().unwrap_err();
    assert!(matches!(refused, OpenError::Mismatch { .. }), "{refused}");
    let refused = segment.raw("ticks", None).capacity(9).receiver().unwrap_err().to_string();
    assert!(refused.contains("Tick (16 bytes, alignment 8, capacity 9"), "{refused}");
    let _watch = segment.watch::<u64>("watch").initial(1).sender().unwrap();
    assert!(matches!(segment.raw("watch", None).receiver(), Err(OpenError::Mismatch { .. })));
}
