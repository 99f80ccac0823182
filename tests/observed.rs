//! What the crate says of itself, with the features `tracing` and `metrics`.

mod common;

#[cfg(feature = "tracing")]
mod events {
    use std::{
        collections::HashMap,
        fmt::{self, Write},
        sync::{Mutex, Once},
        time::Duration,
    };

    use tracing::field::{Field, Visit};
    use tracing::{level_filters::LevelFilter, span};
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

    /// Fields of spans that have ended, by their names.
    static SPANS: Mutex<Vec<String>> = Mutex::new(Vec::new());

    /// Writes down spans, with all that is recorded of them.
    #[derive(Default)]
    struct Watcher {
        open: Mutex<HashMap<u64, Line>>,
    }

    impl<S: tracing::Subscriber> Layer<S> for Watcher {
        fn on_new_span(&self, of: &span::Attributes<'_>, id: &span::Id, _: tracing_subscriber::layer::Context<'_, S>) {
            assert_eq!(of.metadata().target(), "waterway");
            let mut line = Line(format!("{} {}:", of.metadata().level(), of.metadata().name()));
            of.record(&mut line);
            self.open.lock().unwrap().insert(id.into_u64(), line);
        }

        fn on_record(&self, id: &span::Id, values: &span::Record<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            values.record(self.open.lock().unwrap().get_mut(&id.into_u64()).unwrap());
        }

        fn on_enter(&self, id: &span::Id, _: tracing_subscriber::layer::Context<'_, S>) {
            self.open.lock().unwrap().get_mut(&id.into_u64()).unwrap().0.push_str(" entered");
        }

        fn on_close(&self, id: span::Id, _: tracing_subscriber::layer::Context<'_, S>) {
            SPANS.lock().unwrap().push(self.open.lock().unwrap().remove(&id.into_u64()).unwrap().0);
        }
    }

    fn spans(of: &str) -> Vec<String> {
        SPANS.lock().unwrap().iter().filter(|line| line.contains(&format!("segment={of:?}"))).cloned().collect()
    }

    fn was_spanned(of: &str, parts: &[&str]) -> bool {
        spans(of).iter().any(|line| parts.iter().all(|part| line.contains(part)))
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
            let layers = Listener.and_then(Watcher::default()).with_filter(LevelFilter::DEBUG);
            tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layers)).unwrap();
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
    fn opening_is_a_span() {
        listen();
        let place = Place::new();
        let segment = place.options().size(4 << 20).create("spans").unwrap();
        assert!(was_spanned(
            "spans",
            &["DEBUG segment.open:", "participant=0", &format!("segment_id={}", segment.id())]
        ));
        let _ends = segment.channel::<u64>("numbers").open().unwrap();
        let expected = ["DEBUG channel.open:", "channel=\"numbers\"", "ends=[Sender, Receiver]", "entered"];
        assert!(was_spanned("spans", &expected), "{:?}", spans("spans"));
        drop(place.options().open("nowhere").unwrap_err());
        assert!(was_spanned("nowhere", &["segment.open:", "error="]), "{:?}", spans("nowhere"));
    }

    /// Sends and receives in all ways.
    fn exchange(segment: &waterway::Segment) {
        let (sender, receiver) = segment.channel::<u64>("numbers").capacity(1).open().unwrap();
        sender.try_send(1).unwrap();
        receiver.try_recv().unwrap();
        within(async {
            sender.send(2).await.unwrap();
            // This one has to wait, and is polled more than once.
            let (sent, received) = futures::join!(sender.send(3), async {
                tokio::task::yield_now().await;
                receiver.recv().await
            });
            sent.unwrap();
            assert_eq!(*received.unwrap(), 2);
            sender.send_timeout(4, Duration::ZERO).await.unwrap_err();
            receiver.recv_timeout(Duration::from_secs(60)).await.unwrap();
        });
    }

    #[test]
    fn messages_are_spans_where_somebody_wants_to_trace_them_and_else_nothing() {
        listen();
        let place = Place::new();
        let quiet = place.options().size(4 << 20).create("untraced").unwrap();
        exchange(&quiet);
        let expected = ["DEBUG segment.open", "DEBUG channel.open"];
        let seen = |of| spans(of).iter().map(|line| line.split(':').next().unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(seen("untraced"), expected);

        let traced = place.options().size(4 << 20).create("traced").unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Watcher::default()), || {
            exchange(&traced)
        });
        let (sends, receives): (Vec<_>, Vec<_>) =
            seen("traced").into_iter().filter(|span| span.starts_with("TRACE")).partition(|span| span == "TRACE send");
        assert_eq!((sends.len(), receives.len()), (4, 3), "{:?}", spans("traced"));
        assert!(receives.iter().all(|span| span == "TRACE recv"));
        assert!(
            was_spanned("traced", &["TRACE send:", "channel=\"numbers\"", "entered entered"]),
            "{:?}",
            spans("traced")
        );
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
        eventually("its span has ended", || {
            was_spanned("grave", &["INFO burial:", "participants=[1]", "left_for_later=0"])
        });
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
