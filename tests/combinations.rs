//! What composes delivers all that was sent, whatever it is composed of; what does not is refused when it is opened, with the reason.

mod common;

use std::time::Duration;

use common::{assert_empty, in_process};
use waterway::{
    ChannelOptions, Delivery, OpenError, Segment, TryRecvError,
    channel::Payload,
    policy::{ByMessage, DeadLetter, Policy, Priority, PriorityBy, Retention, RouteKey},
    routing,
};

waterway::plain_types! {
    #[derive(Debug, PartialEq)]
    struct Order { key: u64, number: u64 }
}

impl Policy for Order {
    fn route(&self) -> RouteKey {
        if self.key == 0 { RouteKey::default() } else { self.key.into() }
    }

    fn priority(&self) -> Priority {
        if self.number.is_multiple_of(2) { Priority::Urgent } else { Priority::Low }
    }

    fn retention(&self) -> Retention {
        if self.number == 7 { Retention::ttl(Duration::from_secs(3600)) } else { Retention::default() }
    }
}

const SENT: u64 = 40;
const HOUR: Duration = Duration::from_secs(3600);

/// A policy, by its name.
type Named<T> = (&'static str, Box<dyn Fn(ChannelOptions<T>) -> ChannelOptions<T>>);

/// Everything that says what a channel does with its messages and compares by no type.
fn policies<T: Payload + ?Sized>() -> Vec<Named<T>> {
    vec![
        ("nothing", Box::new(|options| options)),
        ("a time to live", Box::new(|options| options.policy(Retention::ttl(HOUR)))),
        ("the last are kept", Box::new(|options| options.policy(Retention::keep_last(SENT as usize)))),
        ("the oldest give way", Box::new(|options| options.policy(Retention::overwrite_oldest()))),
        ("by a function", Box::new(|options| options.policy(PriorityBy(|_: &T::Value| Priority::High)))),
        (
            "expired to dead letters",
            Box::new(|options| options.policy(Retention::ttl(HOUR)).policy(DeadLetter::to("dead"))),
        ),
        (
            "all at once",
            Box::new(|options| {
                let kept = options.policy(Retention::ttl(HOUR)).policy(Retention::keep_last(SENT as usize));
                kept.policy(PriorityBy(|_: &T::Value| Priority::Low)).policy(DeadLetter::to("dead"))
            }),
        ),
    ]
}

/// Opens a routed channel in all ways, sends through it, and sees that all comes, by all ways of its end.
fn walk<T, S>(what: &str, more: Vec<Named<T>>, open: impl Fn(&Segment) -> ChannelOptions<T>, send: S)
where
    T: Payload + ?Sized,
    S: Fn(&routing::Sender<T>, u64, u64),
{
    for (name, policy) in policies::<T>().into_iter().chain(more) {
        for delivery in [Delivery::AtMostOnce, Delivery::AtLeastOnce { max_deliveries: 3 }] {
            for keyed in [true, false] {
                let at = format!("{what}, {name}, {delivery:?}, with keys: {keyed}");
                let segment = in_process();
                let options =
                    || policy(open(&segment).capacity(SENT as usize).delivery(delivery)).routed().partitions(3);
                let (sender, receiver) = options().open().unwrap_or_else(|error| panic!("{at}: {error}"));
                for number in 0..SENT {
                    send(&sender, if keyed { 1 + number % 5 } else { 0 }, number);
                }
                assert_eq!((sender.len(), receiver.len()), (SENT as usize, SENT as usize), "{at}");
                let comes_back = delivery != Delivery::AtMostOnce;
                assert_eq!(take_all(&receiver, comes_back), SENT as usize, "{at}");
                send(&sender, 1, 1);
                send(&sender, 1, 2);
                drop(sender);
                assert_eq!(take_all(&receiver, comes_back), 2, "{at}");
                assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Disconnected, "{at}");
                assert!(receiver.is_empty(), "{at}");
                drop(receiver);
                if !name.contains("dead") && name != "all at once" {
                    assert_empty(&segment);
                }
            }
        }
    }
}

/// How many messages come; each is given back once before, if it comes again then.
fn take_all<T: Payload + ?Sized>(receiver: &routing::Receiver<T>, comes_back: bool) -> usize {
    let mut taken = 0;
    while let Ok(message) = receiver.try_recv() {
        if comes_back && message.delivery_count() == 1 {
            message.nack();
        } else {
            taken += 1;
        }
    }
    taken
}

#[test]
fn a_routed_channel_composes_with_every_policy_delivery_and_payload() {
    let by_message: Vec<Named<Order>> = vec![
        ("by its messages", Box::new(|options| options.policy(ByMessage))),
        ("by its messages, kept", Box::new(|options| options.policy(ByMessage).policy(Retention::overwrite_oldest()))),
    ];
    walk(
        "plain data",
        by_message,
        |segment| segment.channel::<Order>("orders"),
        |sender, key, number| {
            sender.try_send(Order { key, number }).unwrap();
        },
    );
    let key_of = |key: u64| if key == 0 { RouteKey::default() } else { key.into() };
    walk(
        "bytes",
        vec![],
        |segment| segment.bytes("orders"),
        |sender, key, number| {
            sender.try_send(key_of(key), number.to_ne_bytes()).unwrap();
        },
    );
    walk(
        "slices",
        vec![],
        |segment| segment.channel::<[u64]>("orders"),
        |sender, key, number| {
            sender.try_send(key_of(key), [number; 3]).unwrap();
        },
    );
}

#[test]
fn what_has_expired_in_a_routed_channel_is_not_delivered() {
    let segment = in_process();
    let options = segment.channel::<Order>("orders").policy(Retention::ttl(Duration::from_millis(1)));
    let (sender, receiver) = options.policy(DeadLetter::to("dead")).routed().partitions(2).open().unwrap();
    for number in 0..SENT {
        sender.try_send(Order { key: 1 + number, number }).unwrap();
    }
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
    assert!(receiver.is_empty());
    drop(sender);
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Disconnected);
    let dead = segment.channel::<Order>("dead").receiver().unwrap();
    let mut numbers: Vec<u64> = std::iter::from_fn(|| dead.try_recv().ok()).map(|message| message.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..SENT).collect::<Vec<_>>());
}

#[test]
fn the_oldest_of_a_partition_give_way_and_no_others() {
    let segment = in_process();
    let options = segment.channel::<Order>("orders").policy(Retention::keep_last(2));
    let (sender, receiver) = options.routed().partitions(2).open().unwrap();
    let keys =
        [0, 1].map(|partition| (1..).find(|key: &u64| sender.partition_of((*key).into()) == Some(partition)).unwrap());
    for number in 0..10 {
        sender.try_send(Order { key: keys[0], number }).unwrap();
    }
    sender.try_send(Order { key: keys[1], number: 99 }).unwrap();
    let mut numbers: Vec<u64> = std::iter::from_fn(|| receiver.try_recv().ok()).map(|message| message.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [8, 9, 99]);
}

#[test]
fn what_does_not_compose_is_refused_with_the_reason() {
    let segment = in_process();
    let channel = || segment.channel::<Order>("orders");
    let refused = [
        channel().policy(ByMessage).policy(PriorityBy(|_: &Order| Priority::Low)).routed().open().map(drop),
        channel().policy(DeadLetter::to("dead")).routed().open().map(drop),
        channel().policy(DeadLetter::to("orders")).policy(Retention::ttl(HOUR)).routed().open().map(drop),
        channel().capacity(3).policy(Retention::keep_last(4)).routed().open().map(drop),
        channel().policy(Retention::keep_last(0)).routed().open().map(drop),
        channel().delivery(Delivery::AtLeastOnce { max_deliveries: 0 }).routed().open().map(drop),
    ];
    for refused in refused {
        let error = refused.unwrap_err();
        assert!(matches!(error, OpenError::InvalidOptions(_)), "{error}");
        println!("{error}");
    }
    assert!(segment.channels().iter().all(|channel| channel.name == "dead"), "{:?}", segment.channels());
}
