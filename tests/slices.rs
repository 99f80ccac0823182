//! Channels of slices: a batch is one message in one block, whatever its elements are, and can be taken apart.

mod common;

use std::{
    collections::HashMap,
    fmt::Debug,
    io::Write,
    panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use bytes::BufMut;
use common::{Place, Random, assert_empty, eventually, held, in_process, role, two, within};
use futures::{SinkExt, StreamExt};
use waterway::{
    ChannelOptions, Delivery, OpenError, OwnedPermit, Permit, Receiver, Segment, Sender, TryRecvError, TrySendError,
    channel::{Part, Parts, Plain, SendErrorKind},
    policy::{Priority, PriorityBy},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, TryFromBytes};

const AT_LEAST_ONCE: Delivery = Delivery::AtLeastOnce { max_deliveries: 1_000_000 };

/// One value of a batch: each word of it says which one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Tick([u64; 8]);

impl Tick {
    fn new(batch: u64, index: usize) -> Self {
        Self(std::array::from_fn(|word| batch << 32 | (index as u64) << 4 | word as u64))
    }

    /// Reads it, and checks every word.
    fn verify(&self) -> (u64, usize) {
        let (batch, index) = (self.0[0] >> 32, (self.0[0] as u32 >> 4) as usize);
        assert_eq!(*self, Self::new(batch, index), "a value is damaged");
        (batch, index)
    }
}

fn batch(number: u64, len: usize) -> Vec<Tick> {
    (0..len).map(|index| Tick::new(number, index)).collect()
}

/// The number of a batch that is whole.
fn verify(ticks: &[Tick], len: usize) -> u64 {
    assert_eq!(ticks.len(), len);
    let number = ticks[0].verify().0;
    ticks.iter().enumerate().for_each(|(index, tick)| assert_eq!(tick.verify(), (number, index)));
    number
}

fn ticks(segment: &Segment) -> ChannelOptions<[Tick]> {
    segment.channel::<[Tick]>("ticks")
}

fn works_for_all<T: Plain + Copy + PartialEq + Debug>(make: impl Fn(u64) -> T) {
    let (_place, one, other) = two();
    let make =
        |number: u64, len: usize| -> Vec<T> { (0..len as u64).map(|index| make(number << 20 ^ index)).collect() };
    let sender = one.channel::<[T]>("values").capacity(4).sender().unwrap();
    let receiver = other.channel::<[T]>("values").receiver().unwrap();
    let check = |number, len| {
        let message = within(receiver.recv()).unwrap();
        assert!(message.as_ptr().is_aligned());
        assert_eq!(*message, *make(number, len));
        assert_eq!(message.as_ref().len(), len * size_of::<T>());
        assert_eq!(message.into_inner(), make(number, len));
    };
    for (number, len) in (0..).zip([0, 1, 2, 3, 7, 64, 1000, 5000]) {
        within(sender.send(make(number, len))).unwrap();
        assert_eq!(receiver.inquire().oldest.unwrap().length, len * size_of::<T>());
        check(number, len);
        let mut permit = within(sender.reserve(len)).unwrap();
        assert_eq!((permit.len(), permit.capacity()), (0, len));
        permit.extend(make(number, len));
        assert!(permit.as_ptr().is_aligned());
        permit.send();
        check(number, len);
        within(sender.send_many(&[make(number, len), make(number, 1)])).unwrap();
        check(number, len);
        check(number, 1);
    }
    // The largest fits, one more does not.
    let one_too_many = (8 << 20) / size_of::<T>();
    let error = within(sender.send(make(9, one_too_many))).unwrap_err();
    let SendErrorKind::TooLarge { largest, .. } = error.kind() else { panic!("{error}") };
    assert_eq!(error.into_inner().len(), one_too_many);
    let most = (largest - align_of::<T>().max(16)) / size_of::<T>();
    assert!(matches!(sender.try_send(make(9, most + 1)), Err(TrySendError::TooLarge(_))));
    assert!(within(sender.reserve(most + 1)).is_err() && within(sender.reserve(usize::MAX)).is_err());
    within(sender.send(make(9, most))).unwrap();
    check(9, most);
    drop((sender, receiver));
    assert_empty(&one);
}

#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Three([u8; 3]);

#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(16))]
struct Sixteen([u64; 4]);

#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
struct Line([u64; 8]);

#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(256))]
struct Lines([u64; 32]);

#[test]
fn elements_of_any_size_and_alignment_travel_in_any_number() {
    works_for_all(|number| Three([number as u8, (number >> 8) as u8, 7]));
    works_for_all(|number| number as i8);
    works_for_all(|number| number as u8);
    works_for_all(|number| number);
    works_for_all(|number| Sixteen([number; 4]));
    works_for_all(|number| Line([number; 8]));
    works_for_all(|number| Lines([number; 32]));
}

#[test]
fn everything_counts_batches_and_a_batch_goes_to_one_receiver() {
    let (_place, one, other) = two();
    let sender = ticks(&one).capacity(3).sender().unwrap();
    let receiver = ticks(&other).receiver().unwrap();
    let another = receiver.clone();
    for number in 0..3 {
        sender.try_send(batch(number, 100)).unwrap();
    }
    assert_eq!((sender.len(), sender.capacity(), receiver.inquire().waiting), (3, 0, 3));
    assert!(sender.try_reserve(1).unwrap_err().is_full());
    assert!(matches!(sender.try_send(&batch(3, 1)[..]), Err(TrySendError::Full(_))));
    let (first, second) = (receiver.try_recv().unwrap(), another.try_recv().unwrap());
    assert_eq!((first.sequence(), first.delivery_count(), verify(&first, 100)), (0, 1, 0));
    assert_eq!((second.sequence(), verify(&second, 100)), (1, 1));
    let permits = sender.try_reserve_many(2, 10).unwrap();
    assert_eq!((permits.len(), sender.capacity()), (2, 0));
    drop(permits);
    drop(sender);
    assert_eq!(verify(&within(receiver.recv()).unwrap(), 100), 2);
    assert!(within(receiver.recv()).is_none());
    drop((first, second, receiver, another));
    assert_empty(&one);
}

#[test]
fn another_element_is_a_mismatch_that_names_both() {
    let (_place, one, other) = two();
    let _sender = ticks(&one).sender().unwrap();
    let mismatch = |error: OpenError| match error {
        OpenError::Mismatch { expected, found, .. } => {
            assert!(found.contains("[Tick] (any number of 64 bytes each, alignment 8"), "{found}");
            expected
        }
        error => panic!("{error}"),
    };
    mod other_tick {
        use super::*;

        #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub(super) struct Tick(u64);
    }
    assert!(mismatch(other.channel::<Tick>("ticks").receiver().unwrap_err()).contains("Tick (64 bytes"));
    assert!(mismatch(other.channel::<[u64]>("ticks").receiver().unwrap_err()).contains("[u64] (any number of 8 bytes"));
    assert!(mismatch(other.bytes("ticks").receiver().unwrap_err()).contains("bytes (any number of bytes"));
    let same_name = other.channel::<[other_tick::Tick]>("ticks").receiver().unwrap_err();
    assert!(mismatch(same_name).contains("[Tick] (any number of 8 bytes each"));
    assert!(other.channel::<[[u64; 8]]>("ticks").receiver().is_err());
    ticks(&other).receiver().unwrap();
}

#[test]
fn a_channel_of_slices_of_bytes_is_one_of_bytes() {
    let (_place, one, other) = two();
    let sender = one.bytes("bytes").sender().unwrap();
    let receiver = other.channel::<[u8]>("bytes").receiver().unwrap();
    sender.try_send("text").unwrap();
    let message = receiver.try_recv().unwrap();
    assert_eq!((&*message, message.as_ptr() as usize % 16), (&b"text"[..], 0));
    let mut parts = message.into_parts();
    assert_eq!((*parts.next().unwrap(), *parts.next_back().unwrap(), parts.len()), (b't', b't', 2));
    assert!(other.channel::<[i8]>("bytes").receiver().is_err());
}

#[derive(Clone, Copy, Debug, PartialEq, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(u16)]
enum Colour {
    Red = 1,
    Green = 2,
}

mod careless {
    use super::*;

    /// Has the name and size of the other one, and any bits.
    #[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(C)]
    pub(super) struct Colour(pub(super) u16);
}

#[test]
fn elements_whose_bits_are_no_value_never_arrive() {
    let (_place, one, other) = two();
    let liar = one.channel::<[careless::Colour]>("colours").sender().unwrap();
    let receiver = other.channel::<[Colour]>("colours").receiver().unwrap();
    for bits in [&[1, 2][..], &[1, 2, 3], &[0], &[], &[2, 1, 2, 1], &[u16::MAX, 1]] {
        let colours: Vec<_> = bits.iter().map(|bits| careless::Colour(*bits)).collect();
        liar.try_send(colours).map_err(|_| "full").unwrap();
    }
    assert_eq!(*receiver.try_recv().unwrap(), [Colour::Red, Colour::Green]);
    assert_eq!(*receiver.try_recv().unwrap(), []);
    assert_eq!(receiver.try_recv().unwrap().into_inner(), [Colour::Green, Colour::Red, Colour::Green, Colour::Red]);
    assert_eq!((receiver.try_recv().unwrap_err(), receiver.invalid()), (TryRecvError::Empty, 3));
    drop((liar, receiver));
    assert_empty(&one);
}

/// Sends batches of which the header says what it likes.
fn headers_are_checked<T: Plain + Copy + PartialEq + Debug>(value: T) {
    let (_place, one, other) = two();
    let sender = one.channel::<[T]>("values").sender().unwrap();
    let receiver = other.channel::<[T]>("values").receiver().unwrap();
    let (size, header) = (size_of::<T>() as u64, align_of::<T>().max(16));
    let lies = [1, size - 1, size + 1, 10 * size + 1, 1 << 20, u64::MAX - size + 1, u64::MAX, 1 << 63];
    // Those that are none for bytes are left out.
    let lies = lies.into_iter().filter(|len| len % size != 0 || *len >= 1 << 20);
    for len in lies.clone() {
        let permit = sender.try_reserve(10).unwrap();
        let first = permit.as_ptr().cast_mut().cast::<u8>();
        permit.send();
        // SAFETY: the header stands there, in memory that this process may write, and nobody looks at it meanwhile.
        unsafe { first.sub(header).cast::<u64>().write(len) };
        assert!(receiver.inquire().oldest.unwrap().length < 1 << 20);
        assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty, "{len}");
    }
    assert!(lies.clone().count() > 3);
    assert_eq!(receiver.invalid(), lies.count() as u64);
    sender.try_send([value; 3]).unwrap();
    assert_eq!(*receiver.try_recv().unwrap(), [value; 3]);
    drop((sender, receiver));
    assert_empty(&one);
}

#[test]
fn headers_that_lie_are_counted_and_nothing_else() {
    headers_are_checked(Tick::new(1, 2));
    headers_are_checked(7_u8);
    headers_are_checked(Three([1, 2, 3]));
    headers_are_checked(Line([3; 8]));
    headers_are_checked(Colour::Green);
}

#[test]
fn a_permit_is_a_vector_of_fixed_capacity() {
    let (_place, one, other) = two();
    let sender = one.channel::<[Colour]>("colours").capacity(2).sender().unwrap();
    let receiver = other.channel::<[Colour]>("colours").receiver().unwrap();
    use Colour::{Green, Red};

    // What nobody wrote has no bits of a colour.
    let mut permit = within(sender.reserve(4)).unwrap();
    assert_eq!((permit.len(), permit.capacity()), (0, 4));
    permit.push(Red);
    permit.extend_from_slice(&[Green, Green]);
    permit[0] = Green;
    assert_eq!(permit.try_push(Red), Ok(()));
    assert_eq!(permit.try_push(Red), Err(Red));
    let too_much: [fn(&mut Permit<'_, [Colour]>); 4] = [
        |permit| permit.push(Red),
        |permit| permit.extend_from_slice(&[Red]),
        |permit| permit.extend([Red]),
        |permit| permit.resize(5, Red),
    ];
    for write in too_much {
        let said = catch_unwind(AssertUnwindSafe(|| write(&mut permit))).unwrap_err();
        assert!(said.downcast_ref::<String>().unwrap().contains("reserve a larger one"));
    }
    assert_eq!(*permit, [Green, Green, Green, Red]);
    permit.reverse();
    permit.send();
    assert_eq!(*receiver.try_recv().unwrap(), [Red, Green, Green, Green]);

    // As many as were written, of all that was reserved.
    let mut permit = within(sender.clone().reserve_owned(1000)).unwrap();
    permit.resize(3, Red);
    permit.resize(2, Red);
    permit.resize(4, Green);
    let again = permit.send();
    assert_eq!(*receiver.try_recv().unwrap(), [Red, Red, Green, Green]);
    let mut permit = again.try_reserve_owned(10).unwrap();
    permit.push(Red);
    permit.clear();
    assert!(permit.is_empty());
    drop(permit.send());
    assert_eq!(*receiver.try_recv().unwrap(), []);

    for (mut permit, colour) in within(sender.reserve_many(2, 2)).unwrap().zip([Red, Green]) {
        permit.push(colour);
        permit.send();
    }
    assert_eq!((receiver.try_recv().unwrap()[0], receiver.try_recv().unwrap()[0]), (Red, Green));
    let mut dropped = sender.try_reserve(100).unwrap();
    dropped.push(Red);
    assert_eq!(sender.capacity(), 1);
    drop(dropped);
    assert_eq!((sender.capacity(), sender.len()), (2, 0));

    // An iterator that panics leaves what it had given.
    let mut permit = sender.try_reserve(5).unwrap();
    let broken = [Red, Green].into_iter().chain(std::iter::once_with(|| panic!("no more")));
    assert!(catch_unwind(AssertUnwindSafe(|| permit.extend(broken))).is_err());
    permit.send();
    assert_eq!(*receiver.try_recv().unwrap(), [Red, Green]);

    let bytes = one.bytes("bytes").sender().unwrap();
    let mut permit = bytes.try_reserve(8).unwrap();
    permit.push(1);
    permit.write_all(&[2, 3]).unwrap();
    permit.put_u16_ne(0);
    assert_eq!((&permit[..], permit.remaining_mut()), (&[1, 2, 3, 0, 0][..], 3));
    drop(permit);
    drop((bytes, sender, receiver));
    assert_empty(&one);
}

#[test]
fn slices_go_wherever_messages_go() {
    let segment = in_process();
    let by_length = |ticks: &[Tick]| if ticks.len() < 10 { Priority::High } else { Priority::Low };
    let (sender, receiver) = ticks(&segment).policy(PriorityBy(by_length)).open().unwrap();
    within(sender.send_many(&[batch(0, 20), batch(1, 5)])).unwrap();
    let mut permit = sender.try_reserve(20).unwrap();
    permit.extend(batch(2, 9));
    permit.send();
    assert_eq!([5, 9, 20].map(|len| verify(&receiver.try_recv().unwrap(), len)), [1, 2, 0]);

    let (sender, receiver) = segment.channel::<[Tick]>("latest").capacity(1).open().unwrap();
    assert!(sender.force_send(batch(0, 3)).unwrap().is_none());
    assert_eq!(verify(&sender.force_send(batch(1, 4)).unwrap().unwrap(), 3), 0);
    assert_eq!(verify(&receiver.try_recv().unwrap(), 4), 1);
    within(async {
        let mut sink = sender.into_sink();
        let sending = async {
            for number in 0..10 {
                sink.send(batch(number, 6)).await.unwrap();
            }
            drop(sink);
        };
        let stream = receiver.into_stream().map(|message| verify(&message, 6)).collect::<Vec<_>>();
        assert_eq!(futures::join!(sending, stream).1, Vec::from_iter(0..10));
    });

    let publisher = segment.broadcast::<[Tick]>("all").publisher().unwrap();
    let subscriber = segment.broadcast::<[Tick]>("all").subscriber().unwrap();
    publisher.try_send(batch(5, 8)).unwrap();
    let published = subscriber.try_recv().unwrap();
    assert_eq!((verify(&published, 8), published.into_inner()), (5, batch(5, 8)));

    let sender = segment.channel::<[Tick]>("routed").routed().sender().unwrap();
    let receiver = segment.channel::<[Tick]>("routed").routed().receiver().unwrap();
    sender.try_send(7_u64, batch(6, 3)).unwrap();
    let routed = within(receiver.recv()).unwrap();
    assert_eq!((verify(&routed, 3), routed.into_inner()), (6, batch(6, 3)));

    let server = segment.service::<[Tick], [Line]>("lines").server().unwrap();
    let client = segment.service::<[Tick], [Line]>("lines").client().unwrap();
    assert!(segment.service::<[Tick], [Tick]>("lines").client().is_err());
    within(async {
        let answering = async {
            let request = server.next().await.unwrap();
            let lines: Vec<_> = request.iter().map(|tick| Line(tick.0)).collect();
            request.respond(lines).await.unwrap();
        };
        let (response, ()) = futures::join!(client.call(batch(3, 9)), answering);
        let response = response.unwrap();
        assert!(response.as_ptr().is_aligned());
        assert!(response.iter().zip(batch(3, 9)).all(|(line, tick)| line.0 == tick.0));
    });
}

#[test]
fn a_batch_that_is_copied_on_its_way_stays_aligned() {
    let segment = in_process();
    let (sender, receiver) = segment.channel::<[Lines]>("in").delivery(AT_LEAST_ONCE).open().unwrap();
    // Blocks that are not as long as a multiple of the alignment, so that one that is aligned is no luck.
    let (onward, end) = segment.channel::<[Lines]>("out").delivery(AT_LEAST_ONCE).open().unwrap();
    let values: Vec<_> = (0..50).map(|number| Lines([number; 32])).collect();
    let lens = || (0..20).flat_map(|len| [len; 10]);
    for len in lens() {
        sender.try_send(&values[..len]).unwrap();
        receiver.try_recv().unwrap().forward(&onward).unwrap();
    }
    for len in lens() {
        let message = end.try_recv().unwrap();
        assert!(message.as_ptr().is_aligned());
        assert_eq!(*message, values[..len]);
    }
    assert_eq!(end.invalid(), 0);
}

#[test]
fn parts_are_send_and_sync_and_share_one_block_until_the_last_goes() {
    fn sharable<T: Send + Sync + UnwindSafe + RefUnwindSafe + 'static>() {}
    sharable::<Part<Tick>>();
    sharable::<Parts<Tick>>();
    fn sendable<T: Send + Sync>() {}
    sendable::<Permit<'_, [Tick]>>();
    sendable::<OwnedPermit<[Tick]>>();

    let (_place, one, other) = two();
    let (sender, receiver) = (ticks(&one).sender().unwrap(), ticks(&other).receiver().unwrap());
    sender.try_send(batch(4, 30)).unwrap();
    let message = receiver.try_recv().unwrap();
    let at = message.as_ptr();
    let mut parts = message.into_parts();
    assert_eq!((parts.len(), parts.sequence(), parts.delivery_count()), (30, 0, 1));
    assert!(format!("{parts:?}").contains("30"));
    let (first, last) = (parts.next().unwrap(), parts.next_back().unwrap());
    assert_eq!((&raw const *first, first.index(), last.index(), first.sequence()), (at, 0, 29, 0));
    assert_eq!((first.verify(), last.verify()), ((4, 0), (4, 29)));
    assert_eq!(last.into_inner(), Tick::new(4, 29));
    let rest: Vec<_> = parts.by_ref().collect();
    assert!(parts.next().is_none() && parts.next_back().is_none() && parts.next().is_none());
    rest.iter().zip(1..).for_each(|(part, index)| assert_eq!((part.verify(), part.index()), ((4, index), index)));
    drop((sender, receiver, parts, first));
    let threads: Vec<_> = rest
        .into_iter()
        .map(|part| {
            let segment = one.clone();
            thread::spawn(move || {
                assert!(held(&segment) > 0, "it is there while this part is");
                part.verify();
                if part.index() % 2 == 0 { part.ack() } else { drop(part) }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(one.stats().held_blocks(), 0);
    assert_empty(&one);
}

#[test]
fn a_batch_is_released_however_its_parts_go() {
    let segment = in_process();
    let (sender, receiver) = ticks(&segment).open().unwrap();
    let rings = segment.stats().held_blocks();
    let empty = |when: &str| assert_eq!(segment.stats().held_blocks(), rings, "{when}");
    let take = |len: usize| {
        sender.try_send(batch(1, len)).unwrap();
        receiver.try_recv().unwrap().into_parts()
    };
    drop(take(0));
    empty("of an empty one");
    assert!(take(0).next().is_none());
    drop(take(5));
    empty("none was taken");
    let mut parts = take(5);
    let kept = parts.nth(2).unwrap();
    drop(parts);
    assert!(segment.stats().held_blocks() > rings);
    drop(kept);
    empty("one was taken");
    take(9).rev().for_each(drop);
    empty("all were taken");
    // At most once nothing comes back.
    take(9).for_each(Part::nack);
    empty("all were given back");
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
}

fn jobs(segment: &Segment) -> (Sender<[Tick]>, Receiver<[Tick]>) {
    ticks(segment).delivery(AT_LEAST_ONCE).open().unwrap()
}

#[test]
fn a_part_that_is_given_back_brings_the_batch_back_once_all_are_gone() {
    let segment = in_process();
    let (sender, receiver) = jobs(&segment);
    sender.try_send(batch(0, 10)).unwrap();
    sender.try_send(batch(1, 10)).unwrap();
    let mut parts: Vec<_> = receiver.try_recv().unwrap().into_parts().collect();
    parts.swap_remove(3).nack();
    let last = parts.pop().unwrap();
    drop(parts);
    assert_eq!(receiver.inquire().oldest.unwrap().sequence, 1, "one part is still worked on");
    last.ack();
    let again = receiver.try_recv().unwrap();
    assert_eq!((verify(&again, 10), again.sequence(), again.delivery_count()), (0, 0, 2));
    let parts = again.into_parts();
    assert_eq!((parts.delivery_count(), parts.map(Part::ack).count()), (2, 10));
    assert_eq!(verify(&receiver.try_recv().unwrap(), 10), 1);
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
    drop((sender, receiver));
    assert_empty(&segment);
}

#[test]
fn a_part_or_the_rest_that_is_dropped_by_a_panic_brings_the_batch_back() {
    let segment = in_process();
    let (sender, receiver) = jobs(&segment);
    sender.try_send(batch(0, 4)).unwrap();
    // The one of another thread, while others are acknowledged later.
    let mut parts = receiver.try_recv().unwrap().into_parts();
    let part = parts.next().unwrap();
    let worker = thread::spawn(move || {
        part.verify();
        panic!("as intended");
    });
    assert!(worker.join().is_err());
    assert_eq!(parts.map(Part::ack).count(), 3);
    // The iterator, of which the part that is worked on was acknowledged.
    let again = receiver.try_recv().unwrap();
    assert_eq!(again.delivery_count(), 2);
    let kept = AtomicU64::new(0);
    let worker = catch_unwind(AssertUnwindSafe(|| {
        for part in again.into_parts() {
            assert_ne!(part.index(), 2, "as intended");
            kept.fetch_add(1, Ordering::Relaxed);
        }
    }));
    assert!(worker.is_err() && kept.into_inner() == 2);
    let again = receiver.try_recv().unwrap();
    assert_eq!((verify(&again, 4), again.delivery_count()), (0, 3));
    again.into_parts().for_each(drop);
    drop((sender, receiver));
    assert_empty(&segment);
}

/// What the processes of the tests below work with.
fn open(place: &Place) -> Segment {
    place.options().size(16 << 20).participants(8).open_or_create("slices").unwrap()
}

fn a_receiver_is_killed_with_parts(test: &str, delivery: Delivery) {
    let place = Place::new();
    let segment = open(&place);
    let options = || ticks(&segment).delivery(delivery);
    if role().is_some() {
        let receiver = options().receiver().unwrap();
        let mut parts = receiver.blocking_recv().unwrap().into_parts();
        let second: Vec<_> = receiver.blocking_recv().unwrap().into_parts().collect();
        parts.next().unwrap().ack();
        let kept = parts.next().unwrap();
        assert_eq!((kept.verify(), second.len()), ((0, 1), 20));
        receiver.blocking_recv().unwrap().into_parts().for_each(Part::ack);
        common::ready(&place);
        common::wait_to_be_killed();
    }
    let (sender, receiver) = options().open().unwrap();
    for number in 0..3 {
        sender.try_send(batch(number, 20)).unwrap();
    }
    let child = place.spawn(test, "receive");
    common::wait_until_ready(&place, &child);
    sender.try_send(batch(3, 20)).unwrap();
    assert_eq!(receiver.len(), 1);
    child.kill();
    let back = if delivery == Delivery::AtMostOnce { 0 } else { 2 };
    eventually("the dead is buried", || {
        segment.bury_the_dead();
        receiver.len() == 1 + back && segment.participants().len() == 1
    });
    for number in 0..back as u64 {
        let message = receiver.try_recv().unwrap();
        assert_eq!((verify(&message, 20), message.delivery_count()), (number, 2));
    }
    let message = receiver.try_recv().unwrap();
    assert_eq!((verify(&message, 20), message.delivery_count()), (3, 1));
    drop((message, sender, receiver));
    assert_empty(&segment);
}

#[test]
fn batches_of_whose_parts_a_killed_receiver_had_some_come_back() {
    const TEST: &str = "batches_of_whose_parts_a_killed_receiver_had_some_come_back";
    a_receiver_is_killed_with_parts(TEST, AT_LEAST_ONCE);
}

#[test]
fn the_memory_of_parts_that_a_killed_receiver_had_comes_back() {
    const TEST: &str = "the_memory_of_parts_that_a_killed_receiver_had_comes_back";
    a_receiver_is_killed_with_parts(TEST, Delivery::AtMostOnce);
}

const SENDERS: u64 = 3;
const EACH: u64 = 20_000;

/// How long a batch is, and how it is sent and received.
fn length(number: u64) -> (usize, usize) {
    let mut random = Random::new(number + 1);
    let len = if random.below(100) == 0 { random.below(2000) } else { random.below(40) };
    (1 + len, random.below(4))
}

#[test]
fn batches_between_processes_arrive_once_whole_and_in_order() {
    const TEST: &str = "batches_between_processes_arrive_once_whole_and_in_order";
    let place = Place::new();
    let segment = open(&place);
    match role().as_deref().and_then(|role| role.split_once(' ')) {
        Some(("send", number)) => return send(&segment, number.parse().unwrap()),
        Some(("receive", _)) => return receive(&segment),
        _ => {}
    }
    let hold = (ticks(&segment).capacity(16).open().unwrap(), segment.channel::<[u64]>("seen").open().unwrap());
    let receivers: Vec<_> = (0..2).map(|number| place.spawn(TEST, &format!("receive {number}"))).collect();
    let senders: Vec<_> = (0..SENDERS).map(|number| place.spawn(TEST, &format!("send {number}"))).collect();
    let ((sender, receiver), (seen_sender, seen)) = hold;
    senders.into_iter().for_each(common::Process::succeed);
    drop(sender);
    receivers.into_iter().for_each(common::Process::succeed);
    drop((receiver, seen_sender));
    let mut total = HashMap::<u64, u64>::new();
    while let Some(numbers) = within(seen.recv()) {
        numbers.iter().for_each(|number| *total.entry(*number).or_default() += 1);
    }
    assert_eq!(total.len() as u64, SENDERS * EACH);
    assert!(total.values().all(|count| *count == 1));
    drop(seen);
    assert_empty(&segment);
}

fn send(segment: &Segment, which: u64) {
    let sender = ticks(segment).sender().unwrap();
    within(async {
        for number in which * EACH..(which + 1) * EACH {
            let (len, way) = length(number);
            match way {
                0 => sender.send(batch(number, len)).await.unwrap(),
                1 => sender.send_many(&[batch(number, len)]).await.unwrap(),
                _ => {
                    let mut permit = sender.reserve(len + way).await.unwrap();
                    (0..len).for_each(|index| permit.push(Tick::new(number, index)));
                    permit.send();
                }
            }
        }
    });
}

fn receive(segment: &Segment) {
    let receiver = ticks(segment).receiver().unwrap();
    let mut seen = Vec::new();
    let mut last = HashMap::new();
    let mut buffer = Vec::new();
    while within(receiver.recv_many(&mut buffer, 8)) > 0 {
        for message in buffer.drain(..) {
            let number = message[0].verify().0;
            let (len, way) = length(number);
            match way {
                0 | 1 => assert_eq!(verify(&message, len), number),
                _ => {
                    let parts = message.into_parts();
                    assert_eq!(parts.len(), len);
                    parts.zip(0..).for_each(|(part, index)| assert_eq!(part.verify(), (number, index)));
                }
            }
            assert!(last.insert(number / EACH, number).is_none_or(|last| last < number), "out of order");
            seen.push(number);
        }
    }
    let sender = segment.channel::<[u64]>("seen").sender().unwrap();
    for numbers in seen.chunks(10_000) {
        within(sender.send(numbers)).unwrap();
    }
}
