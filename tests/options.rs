//! Options that were not given accept what is there; those that were given are honoured or refused: in whatever order two open the
//! same thing.

mod common;

use std::any::Any;

use waterway::{Delivery, OpenError, Segment, broadcast::Behind};

const CAPACITIES: [Option<usize>; 3] = [None, Some(8), Some(16)];
const DELIVERIES: [Option<Delivery>; 3] =
    [None, Some(Delivery::AtMostOnce), Some(Delivery::AtLeastOnce { max_deliveries: 3 })];
const PERSISTENCES: [Option<bool>; 3] = [None, Some(false), Some(true)];

/// What somebody asks for.
#[derive(Clone, Copy, Debug)]
struct Wish {
    capacity: Option<usize>,
    delivery: Option<Delivery>,
    persistent: Option<bool>,
}

fn wishes() -> impl Iterator<Item = Wish> + Clone {
    CAPACITIES.into_iter().flat_map(|capacity| {
        DELIVERIES.into_iter().flat_map(move |delivery| {
            PERSISTENCES.into_iter().map(move |persistent| Wish { capacity, delivery, persistent })
        })
    })
}

/// Whether the one who comes second gets what it asks for.
fn fits(first: Wish, second: Wish, capacity: usize) -> bool {
    second.capacity.is_none_or(|asked| asked == first.capacity.unwrap_or(capacity))
        && second.delivery.is_none_or(|asked| asked == first.delivery.unwrap_or_default())
        && (second.persistent != Some(false) || first.persistent != Some(true))
}

type Opened = Result<Box<dyn Any>, OpenError>;

fn any<T: 'static>(ends: T) -> Box<dyn Any> {
    Box::new(ends)
}

/// Opens the same thing twice, with every pair of wishes that `knows` has options for. `name` is that of its entry.
fn all_pairs(
    default: usize,
    knows: impl Fn(Wish) -> bool + Copy,
    first: impl Fn(&Segment, Wish) -> Opened,
    second: impl Fn(&Segment, Wish) -> Opened,
    is_it: impl Fn(&str) -> bool,
) {
    let known = wishes().filter(|wish| knows(*wish));
    for one in known.clone() {
        for other in known.clone() {
            let segment = Segment::options().size(1 << 20).channels(8).in_process().unwrap();
            let opened = first(&segment, one).unwrap();
            let again = second(&segment, other);
            let fits = fits(one, other, default);
            match &again {
                Ok(_) => assert!(fits, "{one:?}, then {other:?}: not refused"),
                Err(OpenError::Mismatch { .. }) => assert!(!fits, "{one:?}, then {other:?}: refused"),
                Err(error) => panic!("{one:?}, then {other:?}: {error}"),
            }
            let persistent = one.persistent == Some(true) || fits && other.persistent == Some(true);
            drop((opened, again));
            let stays = segment.channels().iter().any(|channel| is_it(&channel.name));
            assert_eq!(stays, persistent, "{one:?}, then {other:?}: outlives its ends");
        }
    }
}

#[test]
fn a_channel_is_what_both_have_asked_for_or_refused() {
    let open = |segment: &Segment, wish: Wish| {
        let mut options = segment.channel::<u64>("c");
        if let Some(capacity) = wish.capacity {
            options = options.capacity(capacity);
        }
        if let Some(delivery) = wish.delivery {
            options = options.delivery(delivery);
        }
        if let Some(persistent) = wish.persistent {
            options = options.persistent(persistent);
        }
        options
    };
    let sender = |segment: &Segment, wish| open(segment, wish).sender().map(any);
    let receiver = |segment: &Segment, wish| open(segment, wish).receiver().map(any);
    all_pairs(1024, |_| true, sender, receiver, |name| name == "c");
    all_pairs(1024, |_| true, receiver, sender, |name| name == "c");
}

#[test]
fn a_channel_that_becomes_persistent_keeps_what_is_sent_from_then_on() {
    let segment = common::in_process();
    drop(segment.channel::<u64>("c").open().unwrap());
    let receiver = segment.channel::<u64>("c").receiver().unwrap();
    let sender = segment.channel::<u64>("c").persistent(true).sender().unwrap();
    drop(receiver);
    sender.try_send(7).unwrap();
    drop(sender);
    let receiver = segment.channel::<u64>("c").receiver().unwrap();
    assert_eq!(*receiver.try_recv().unwrap(), 7);
    // Also if the last receiver had gone before.
    let (sender, receiver) = segment.channel::<u64>("d").open().unwrap();
    sender.try_send(1).unwrap();
    drop(receiver);
    assert!(sender.try_send(2).is_err());
    let again = segment.channel::<u64>("d").persistent(true).sender().unwrap();
    assert!(!sender.is_closed());
    sender.try_send(3).unwrap();
    drop((sender, again));
    assert_eq!(*segment.channel::<u64>("d").receiver().unwrap().try_recv().unwrap(), 3);
}

#[test]
fn a_service_is_what_both_have_asked_for_or_refused() {
    let open = |segment: &Segment, wish: Wish| {
        let mut options = segment.service::<u64, u64>("s");
        if let Some(capacity) = wish.capacity {
            options = options.capacity(capacity);
        }
        if let Some(persistent) = wish.persistent {
            options = options.persistent(persistent);
        }
        options
    };
    let client = |segment: &Segment, wish| open(segment, wish).client().map(any);
    let server = |segment: &Segment, wish| open(segment, wish).server().map(any);
    let knows = |wish: Wish| wish.delivery.is_none();
    all_pairs(1024, knows, client, server, |name| name.starts_with('s'));
    all_pairs(1024, knows, server, client, |name| name.starts_with('s'));
}

#[test]
fn a_watch_is_what_both_have_asked_for_or_refused() {
    let open = |segment: &Segment, wish: Wish| {
        let options = segment.watch::<u64>("w").initial(1);
        match wish.persistent {
            Some(persistent) => options.persistent(persistent),
            None => options,
        }
    };
    let sender = |segment: &Segment, wish| open(segment, wish).sender().map(any);
    let receiver = |segment: &Segment, wish| open(segment, wish).receiver().map(any);
    let knows = |wish: Wish| wish.delivery.is_none() && wish.capacity.is_none();
    all_pairs(0, knows, sender, receiver, |name| name == "w");
    all_pairs(0, knows, receiver, sender, |name| name == "w");
}

#[test]
fn a_semaphore_is_what_both_have_asked_for_or_refused() {
    let open = |segment: &Segment, wish: Wish| {
        let options = segment.semaphore("p");
        let options = match wish.capacity {
            Some(permits) => options.permits(permits),
            None => options,
        };
        options.open().map(any)
    };
    all_pairs(1, |wish| wish.delivery.is_none() && wish.persistent.is_none(), open, open, |name| name == "p");
}

#[test]
fn a_group_is_what_both_have_asked_for_or_refused() {
    let open = |segment: &Segment, wish: Wish| {
        let mut group = segment.broadcast::<u64>("b").group("g");
        // The capacity stands for what it does when it is behind.
        match wish.capacity {
            Some(8) => group = group.behind(Behind::Block),
            Some(_) => group = group.behind(Behind::Lag),
            None => {}
        }
        if let Some(delivery) = wish.delivery {
            group = group.delivery(delivery);
        }
        if let Some(persistent) = wish.persistent {
            group = group.persistent(persistent);
        }
        group.subscriber().map(any)
    };
    // To lag is the default.
    all_pairs(16, |_| true, open, open, |name| name.starts_with('b') && name.len() > 1);
}

#[test]
fn a_broadcast_is_what_both_have_asked_for_or_refused() {
    let open = |segment: &Segment, wish: Wish| {
        let options = segment.broadcast::<u64>("b");
        match wish.capacity {
            Some(capacity) => options.capacity(capacity),
            None => options,
        }
    };
    let publisher = |segment: &Segment, wish| open(segment, wish).publisher().map(any);
    let subscriber = |segment: &Segment, wish| open(segment, wish).subscriber().map(any);
    let knows = |wish: Wish| wish.delivery.is_none() && wish.persistent.is_none();
    all_pairs(256, knows, publisher, subscriber, |name| name == "b");
    all_pairs(256, knows, subscriber, publisher, |name| name == "b");
}
