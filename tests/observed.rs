//! What the crate says of itself, with the features `tracing` and `metrics`.

mod common;

#[cfg(feature = "tracing")]
mod events {
    use std::{
        fmt::{self, Write},
        sync::{Mutex, Once},
        time::Duration,
    };

    use tracing::field::{Field, Visit};
    use tracing_subscriber::{Layer, layer::SubscriberExt};

    use super::common::{Place, eventually, role, within};

    /// What was said, by all tests: they tell theirs by the names of their segments.
    static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

    struct Listener;

    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            if field.name() == "message" {
                self.0.insert_str(0, &format!("{value:?}:"));
            } else {
                write!(self.0, " {}={value:?}", field.name()).unwrap();
            }
        }
    }

    impl<S: tracing::Subscriber> Layer<S> for Listener {
        fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            assert_eq!(event.metadata().target(), "waterway");
            let mut line = Line(String::new());
            event.record(&mut line);
            SAID.lock().unwrap().push(line.0);
        }
    }

    fn listen() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Listener)).unwrap();
        });
    }

    fn said(of: &str) -> Vec<String> {
        SAID.lock().unwrap().iter().filter(|line| line.contains(&format!("segment={of:?}"))).cloned().collect()
    }

    fn was_said(of: &str, parts: &[&str]) -> bool {
        said(of).iter().any(|line| parts.iter().all(|part| line.contains(part)))
    }

    #[test]
    fn segments_and_channels_say_when_they_come_and_go_and_messages_say_nothing() {
        listen();
        let place = Place::new();
        let segment = place.options().size(4 << 20).create("spoken").unwrap();
        let (sender, receiver) = segment.channel::<u64>("numbers").open().unwrap();
        for number in 0..10 {
            sender.try_send(number).unwrap();
            receiver.try_recv().unwrap();
        }
        receiver.close();
        drop((sender, receiver, segment));
        let said: Vec<String> = said("spoken").iter().map(|line| line.split(':').next().unwrap().to_owned()).collect();
        let expected =
            ["segment opened", "channel opened", "channel closed", "channel left", "channel left", "segment left"];
        assert_eq!(said, expected);
        assert!(was_said("spoken", &["channel opened", "channel=\"numbers\"", "ends=[Sender, Receiver]"]));
    }

    #[test]
    fn a_death_is_noticed_and_buried() {
        let place = Place::new();
        if role().is_some() {
            let segment = place.options().open("grave").unwrap();
            let sender = segment.channel::<u64>("numbers").sender().unwrap();
            within(sender.send(1)).unwrap();
            std::thread::sleep(Duration::from_secs(600));
        }
        listen();
        let segment = place.options().size(4 << 20).create("grave").unwrap();
        let receiver = segment.channel::<u64>("numbers").receiver().unwrap();
        let child = place.spawn("events::a_death_is_noticed_and_buried", "sender");
        assert_eq!(*within(receiver.recv()).unwrap(), 1);
        child.kill();
        assert!(within(receiver.recv()).is_none());
        segment.bury_the_dead();
        eventually("it is said", || was_said("grave", &["death buried", "participant=1"]));
        assert!(was_said("grave", &["death noticed", "participant=1"]));
        assert!(SAID.lock().unwrap().iter().any(|line| line.starts_with("bridge started:")));
    }
}

#[cfg(feature = "metrics")]
mod counters {
    use std::{
        collections::HashMap,
        sync::{
            Arc, Mutex, OnceLock,
            atomic::{AtomicU64, Ordering},
        },
    };

    use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

    use super::common::{Place, within};

    /// Counters by name and labels.
    #[derive(Default)]
    struct Book(Mutex<HashMap<String, Arc<AtomicU64>>>);

    impl Book {
        fn count(&self, name: &str, labels: &str) -> u64 {
            let counters = self.0.lock().unwrap();
            counters.get(&format!("{name} {labels}")).map_or(0, |counter| counter.load(Ordering::Relaxed))
        }
    }

    struct Writer(Arc<Book>);

    impl Recorder for Writer {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            let labels: Vec<String> = key.labels().map(|label| label.value().to_owned()).collect();
            let mut counters = self.0.0.lock().unwrap();
            Counter::from_arc(Arc::clone(counters.entry(format!("{} {}", key.name(), labels.join("/"))).or_default()))
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    fn book() -> &'static Book {
        static BOOK: OnceLock<Arc<Book>> = OnceLock::new();
        BOOK.get_or_init(|| {
            let book = Arc::new(Book::default());
            assert!(metrics::set_global_recorder(Writer(Arc::clone(&book))).is_ok());
            book
        })
    }

    #[test]
    fn messages_and_their_bytes_are_counted_by_segment_and_channel() {
        let book = book();
        let place = Place::new();
        let segment = place.options().size(4 << 20).create("counted").unwrap();
        let (sender, receiver) = segment.bytes("words").open().unwrap();
        for word in ["one", "two", "three"] {
            sender.try_send(word).unwrap();
        }
        let mut permit = sender.try_reserve(4).unwrap();
        bytes::BufMut::put_slice(&mut permit, b"four");
        permit.send();
        let number = receiver.drain().count();
        assert_eq!(number, 4);
        assert_eq!(book.count("waterway_messages_sent_total", "counted/words"), 4);
        assert_eq!(book.count("waterway_messages_received_total", "counted/words"), 4);
        assert_eq!(book.count("waterway_bytes_received_total", "counted/words"), 15);
        assert_eq!(book.count("waterway_wakeups_total", "counted/words"), 0);
    }

    #[test]
    fn waking_somebody_is_counted() {
        let book = book();
        let place = Place::new();
        let segment = place.options().size(4 << 20).create("sleepy").unwrap();
        let (sender, receiver) = segment.channel::<u64>("numbers").open().unwrap();
        let sleeper = std::thread::spawn(move || while within(receiver.recv()).is_some() {});
        super::common::eventually("it is counted", || {
            let _ = sender.try_send(7);
            book.count("waterway_wakeups_total", "sleepy/numbers") > 0
        });
        drop(sender);
        sleeper.join().unwrap();
    }

    #[test]
    fn burials_are_counted_by_segment() {
        let place = Place::new();
        if super::common::role().is_some() {
            let _segment = place.options().open("tomb").unwrap();
            std::process::abort();
        }
        let book = book();
        let segment = place.options().size(4 << 20).create("tomb").unwrap();
        assert!(!place.spawn("counters::burials_are_counted_by_segment", "dies").finish().success());
        segment.bury_the_dead();
        super::common::eventually("it is counted", || book.count("waterway_deaths_buried_total", "tomb") == 1);
    }
}
