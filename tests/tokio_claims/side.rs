//! One side of a claim: does the steps of a script that are addressed to it, in whatever process it is.
//!
//! A step is a call, as in Rust: `tx = sender(2)`, `tx.try_send(1)`, `f = tx.send(3)`. Its answer is a word or a number.
//! What waits (`send`, `recv`, `reserve`, …) is polled once: the answer is its outcome, or `pending`. Under its name it can
//! be polled again, waited for, asked whether it was woken, or dropped; without a name it is dropped at once.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt::Display,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::{Arc, Condvar, Mutex},
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use waterway::{
    Message, OwnedPermit, Permit, Receiver, Segment, SendError, Sender, TryRecvError, TrySendError, WaitStrategy,
    WeakSender, channel::SendTimeoutError,
};

use crate::common::PATIENCE;

/// An answer, and what was made on the way.
type Reply = (String, Option<Thing>);

pub(crate) struct Side {
    segment: Segment,
    things: BTreeMap<String, Thing>,
    /// What `recv_many` appends to.
    buffer: Vec<Message<u64>>,
}

enum Thing {
    Sender(Arc<Sender<u64>>),
    Receiver(Arc<Receiver<u64>>),
    Weak(WeakSender<u64>),
    Owned(OwnedPermit<u64>),
    Job(Job),
    Alarm(Arc<Alarm>),
    /// Bytes that were in use.
    Memory(usize),
}

impl Side {
    pub(crate) fn new(segment: Segment) -> Self {
        Self { segment, things: BTreeMap::new(), buffer: Vec::new() }
    }

    /// Does a step, and answers.
    pub(crate) fn act(&mut self, step: &str) -> String {
        let (name, call) = step.split_once(" = ").map_or((None, step), |(name, call)| (Some(name), call));
        let (call, arguments) = call.strip_suffix(')').and_then(|call| call.split_once('(')).expect("a call");
        let arguments: Vec<&str> = arguments.split(", ").filter(|argument| !argument.is_empty()).collect();
        let (answer, made) = match call.split_once('.') {
            Some((target, verb)) => self.ask(target, verb, &arguments),
            None => self.make(call, &arguments),
        };
        if let (Some(name), Some(made)) = (name, made) {
            self.things.insert(name.to_owned(), made);
        }
        answer
    }

    fn make(&mut self, what: &str, arguments: &[&str]) -> Reply {
        // Everybody parks at once, so that a wake is a wake.
        let channel = |name| self.segment.channel::<u64>(name).wait(WaitStrategy::Park);
        match (what, arguments) {
            ("sender", [capacity]) => {
                let opened = channel("channel").capacity(number(capacity)).sender();
                opened.map_or_else(|_| said("error"), |sender| made(Thing::Sender(sender.into())))
            }
            ("receiver", [capacity]) => {
                let opened = channel("channel").capacity(number(capacity)).receiver();
                opened.map_or_else(|_| said("error"), |receiver| made(Thing::Receiver(receiver.into())))
            }
            ("sender_of_another", []) => made(Thing::Sender(channel("another").sender().unwrap().into())),
            ("alarm", []) => made(Thing::Alarm(Arc::default())),
            ("memory", []) => made(Thing::Memory(self.memory())),
            ("buffer", []) => {
                said(format_args!("{:?}", self.buffer.iter().map(|message| **message).collect::<Vec<_>>()))
            }
            ("channels", []) => said(self.segment.channels().len()),
            _ => panic!("nobody can make {what}{arguments:?}"),
        }
    }

    fn memory(&self) -> usize {
        crate::common::held(&self.segment)
    }

    fn ask(&mut self, target: &str, verb: &str, arguments: &[&str]) -> Reply {
        let thing = self.things.remove(target).unwrap_or_else(|| panic!("there is no {target}"));
        match (thing, verb) {
            (Thing::Sender(sender), "drop") => drop(alone(sender)),
            (Thing::Receiver(receiver), "drop") => drop(alone(receiver)),
            (thing, "drop") => drop(thing),
            (Thing::Sender(sender), "try_reserve_owned") => match alone(sender).try_reserve_owned() {
                Ok(permit) => return made(Thing::Owned(permit)),
                Err(error) => {
                    let (answer, sender) = (refused(&error), error.into_inner());
                    self.things.insert(target.to_owned(), Thing::Sender(sender.into()));
                    return said(answer);
                }
            },
            (Thing::Sender(sender), "reserve_owned") => {
                let sender = alone(sender);
                return Job::begin(async move {
                    match sender.reserve_owned().await {
                        Ok(permit) => made(Thing::Owned(permit)),
                        Err(error) => failed(&error),
                    }
                });
            }
            (Thing::Owned(permit), "send") => return made(Thing::Sender(permit.send(number(arguments[0])).into())),
            (Thing::Owned(permit), "release") => return made(Thing::Sender(permit.release().into())),
            (Thing::Job(mut job), "poll" | "await") => {
                let (answer, next) = match job.poll() {
                    None if verb == "await" => job.finish(),
                    polled => job.after(polled),
                };
                self.things.extend(next.map(|next| (target.to_owned(), next)));
                return (answer, None);
            }
            (mut thing, verb) => {
                let reply = match &mut thing {
                    Thing::Sender(sender) => self.ask_sender(sender, verb, arguments),
                    Thing::Receiver(receiver) => self.ask_receiver(receiver, verb, arguments),
                    Thing::Weak(weak) => ask_weak(weak, verb),
                    Thing::Owned(permit) => match (verb, self.things.get(*arguments.first().unwrap_or(&""))) {
                        ("same_channel_as_sender", Some(Thing::Sender(sender))) => {
                            said(yes(permit.same_channel_as_sender(sender)))
                        }
                        ("same_channel", Some(Thing::Owned(other))) => said(yes(permit.same_channel(other))),
                        _ => panic!("a permit cannot {verb}"),
                    },
                    Thing::Job(job) => job.ask(verb, arguments),
                    Thing::Alarm(alarm) => said(alarm.ask(verb)),
                    Thing::Memory(before) => match verb {
                        "is_as_it_was" => said(yes(self.memory() == *before)),
                        "has_grown" => said(yes(self.memory() > *before)),
                        _ => panic!("memory cannot {verb}"),
                    },
                };
                self.things.insert(target.to_owned(), thing);
                return reply;
            }
        }
        said("ok")
    }

    fn ask_sender(&self, sender: &Arc<Sender<u64>>, verb: &str, arguments: &[&str]) -> Reply {
        let value = |at: usize| number::<u64>(arguments[at]);
        let own = Arc::clone(sender);
        match verb {
            "try_send" => said(match sender.try_send(value(0)) {
                Ok(()) => "ok".to_owned(),
                Err(error) => format!("{} {}", refused(&error), error.into_inner()),
            }),
            "send" => {
                let value = value(0);
                Job::begin(async move { sent(own.send(value).await) })
            }
            "send_timeout" => {
                let (value, time) = (value(0), Duration::from_millis(value(1)));
                Job::begin(async move {
                    said(match own.send_timeout(value, time).await {
                        Ok(()) => "ok".to_owned(),
                        Err(SendTimeoutError::Timeout(value)) => format!("timeout {value}"),
                        Err(SendTimeoutError::Closed(value)) => format!("closed {value}"),
                        Err(error) => format!("{error}"),
                    })
                })
            }
            "blocking_send" => {
                let value = value(0);
                Job::in_thread(move || sent(own.blocking_send(value)).0)
            }
            "send_all" => {
                let count = value(0);
                Job::in_thread(move || {
                    for number in 0..count {
                        own.blocking_send(number).unwrap();
                        if number % 7 == 0 {
                            thread::yield_now();
                        }
                    }
                    "ok".to_owned()
                })
            }
            "reserve" => Job::begin_granted(|granted| async move {
                match own.reserve().await {
                    Ok(permit) => hold(std::iter::once(permit), 1, granted).await,
                    Err(error) => failed(&error),
                }
            }),
            "try_reserve" => Job::begin_granted(|granted| async move {
                match own.try_reserve() {
                    Ok(permit) => hold(std::iter::once(permit), 1, granted).await,
                    Err(error) => said(refused(&error)),
                }
            }),
            "reserve_many" => {
                let count = number::<usize>(arguments[0]);
                Job::begin_granted(move |granted| async move {
                    match own.reserve_many(count).await {
                        Ok(permits) => {
                            let len = permits.len();
                            hold(permits, len, granted).await
                        }
                        Err(error) => failed(&error),
                    }
                })
            }
            "try_reserve_many" => {
                let count = number::<usize>(arguments[0]);
                Job::begin_granted(move |granted| async move {
                    match own.try_reserve_many(count) {
                        Ok(permits) => {
                            let len = permits.len();
                            hold(permits, len, granted).await
                        }
                        Err(error) => said(refused(&error)),
                    }
                })
            }
            "send_many" => {
                let values: Vec<u64> = arguments.iter().map(|value| number(value)).collect();
                Job::begin(
                    async move { own.send_many(&values).await.map_or_else(|error| failed(&error), |()| said("ok")) },
                )
            }
            "closed" => Job::begin(async move {
                own.closed().await;
                said("ok")
            }),
            "clone" => made(Thing::Sender(Arc::new(Sender::clone(sender)))),
            "downgrade" => made(Thing::Weak(sender.downgrade())),
            "same_channel" => match self.things.get(arguments[0]) {
                Some(Thing::Sender(other)) => said(yes(sender.same_channel(other))),
                _ => panic!("{} is no sender", arguments[0]),
            },
            "is_closed" => said(yes(sender.is_closed())),
            "is_empty" => said(yes(sender.is_empty())),
            "len" => said(sender.len()),
            "capacity" => said(sender.capacity()),
            "max_capacity" => said(sender.max_capacity()),
            "strong_count" => said(sender.strong_count()),
            "weak_count" => said(sender.weak_count()),
            "sender_count" => said(sender.sender_count()),
            "receiver_count" => said(sender.receiver_count()),
            _ => panic!("a sender cannot {verb}"),
        }
    }

    fn ask_receiver(&mut self, receiver: &Arc<Receiver<u64>>, verb: &str, arguments: &[&str]) -> Reply {
        let own = Arc::clone(receiver);
        match verb {
            "try_recv" => said(match receiver.try_recv() {
                Ok(message) => (*message).to_string(),
                Err(TryRecvError::Empty) => "empty".to_owned(),
                Err(TryRecvError::Disconnected) => "disconnected".to_owned(),
                Err(error) => error.to_string(),
            }),
            "recv" => Job::begin(async move { said(received(own.recv().await)) }),
            "recv_many" => {
                let (limit, mut buffer) = (number(arguments[0]), Vec::new());
                // Of its own until it is done: a future that was dropped must not have taken anything.
                Job::begin(async move {
                    let count = own.recv_many(&mut buffer, limit).await;
                    assert_eq!(count, buffer.len());
                    said(format_args!("{:?}", buffer.iter().map(|message| **message).collect::<Vec<_>>()))
                })
            }
            "append_many" => {
                let limit = number(arguments[0]);
                said(crate::common::within(own.recv_many(&mut self.buffer, limit)))
            }
            "recv_timeout" => {
                let time = Duration::from_millis(number(arguments[0]));
                Job::begin(async move {
                    said(
                        own.recv_timeout(time)
                            .await
                            .map_or_else(|error| error.to_string(), |message| (*message).to_string()),
                    )
                })
            }
            "blocking_recv" => Job::in_thread(move || received(own.blocking_recv())),
            "blocking_recv_many" => {
                let limit = number(arguments[0]);
                Job::in_thread(move || {
                    let mut buffer = Vec::new();
                    while own.blocking_recv_many(&mut buffer, limit) > 0 {}
                    in_order(&buffer)
                })
            }
            "recv_all" => Job::in_thread(move || {
                let mut buffer = Vec::new();
                crate::common::within(async { while own.recv_many(&mut buffer, 1).await > 0 {} });
                in_order(&buffer)
            }),
            "recv_all_cancelling" => Job::in_thread(move || in_order(&super::cancelling(&own))),
            "recv_all_polling" => Job::in_thread(move || in_order(&super::polling(&own))),
            "share_with" => {
                let clones: Vec<_> = (0..number(arguments[0])).map(|_| Receiver::clone(receiver)).collect();
                Job::in_thread(move || super::share(clones))
            }
            #[cfg(feature = "tokio")]
            "take_turns" => said(super::take_turns(own)),
            "poll_recv" => {
                let Some(Thing::Alarm(alarm)) = self.things.get(arguments[0]) else { panic!("no such alarm") };
                let waker = Waker::from(Arc::clone(alarm));
                said(match receiver.poll_recv(&mut Context::from_waker(&waker)) {
                    Poll::Ready(message) => received(message),
                    Poll::Pending => "pending".to_owned(),
                })
            }
            "clone" => made(Thing::Receiver(Arc::new(Receiver::clone(receiver)))),
            "drain" => said(format_args!("{:?}", receiver.drain().map(|message| *message).collect::<Vec<_>>())),
            "close" => {
                receiver.close();
                said("ok")
            }
            "is_closed" => said(yes(receiver.is_closed())),
            "is_empty" => said(yes(receiver.is_empty())),
            "len" => said(receiver.len()),
            "capacity" => said(receiver.capacity()),
            "max_capacity" => said(receiver.max_capacity()),
            "sender_count" => said(receiver.sender_count()),
            "receiver_count" => said(receiver.receiver_count()),
            _ => panic!("a receiver cannot {verb}"),
        }
    }
}

fn ask_weak(weak: &WeakSender<u64>, verb: &str) -> Reply {
    match verb {
        "upgrade" => weak.upgrade().map_or_else(|| said("none"), |sender| made(Thing::Sender(sender.into()))),
        "clone" => made(Thing::Weak(weak.clone())),
        "strong_count" => said(weak.strong_count()),
        "weak_count" => said(weak.weak_count()),
        _ => panic!("a weak sender cannot {verb}"),
    }
}

fn number<N: std::str::FromStr>(text: &str) -> N {
    text.parse().ok().unwrap_or_else(|| panic!("{text} is no number"))
}

fn said(answer: impl Display) -> Reply {
    (answer.to_string(), None)
}

fn made(thing: Thing) -> Reply {
    ("ok".to_owned(), Some(thing))
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

fn received(message: Option<Message<u64>>) -> String {
    message.map_or_else(|| "none".to_owned(), |message| (*message).to_string())
}

fn sent(outcome: Result<(), SendError<u64>>) -> Reply {
    match outcome {
        Ok(()) => said("ok"),
        Err(error) => said(format_args!("{} {}", failed(&error).0, error.into_inner())),
    }
}

fn failed<V>(error: &SendError<V>) -> Reply {
    said(if error.is_closed() { "closed".to_owned() } else { error.to_string() })
}

fn refused<V>(error: &TrySendError<V>) -> String {
    match error {
        TrySendError::Full(_) => "full".to_owned(),
        TrySendError::Closed(_) => "closed".to_owned(),
        _ => error.to_string(),
    }
}

fn in_order(messages: &[Message<u64>]) -> String {
    let whole = messages.iter().map(|message| **message).eq(0..messages.len() as u64);
    format!("{} {}", messages.len(), if whole { "in order" } else { "out of order" })
}

/// What no future or thread of this side uses any more: as the borrow checker would have it.
fn alone<T>(shared: Arc<T>) -> T {
    Arc::into_inner(shared).expect("it is borrowed")
}

// ---- What waits ----

/// A future that is polled when a step says so, and knows whether it was woken since.
struct Job {
    future: Pin<Box<dyn Future<Output = Reply>>>,
    alarm: Arc<Alarm>,
    granted: Granted,
}

/// What a future that has got permits is told, and says.
type Granted = Rc<RefCell<Grant>>;

#[derive(Default)]
struct Grant {
    left: Option<usize>,
    to_send: Option<u64>,
}

/// Holds permits, which borrow from their sender, and sends with them when told to.
async fn hold<'a>(mut permits: impl Iterator<Item = Permit<'a, u64>>, len: usize, granted: Granted) -> Reply {
    granted.borrow_mut().left = Some(len);
    poll_fn(|_| {
        let mut granted = granted.borrow_mut();
        if let Some(value) = granted.to_send.take() {
            permits.next().expect("there is a permit left").send(value);
            granted.left = granted.left.map(|left| left - 1);
        }
        Poll::Pending
    })
    .await
}

impl Job {
    fn new(future: impl Future<Output = Reply> + 'static, granted: Granted) -> Self {
        Self { future: Box::pin(future), alarm: Arc::default(), granted }
    }

    fn begin(future: impl Future<Output = Reply> + 'static) -> Reply {
        Self::new(future, Granted::default()).first()
    }

    fn begin_granted<F: Future<Output = Reply> + 'static>(future: impl FnOnce(Granted) -> F) -> Reply {
        let granted = Granted::default();
        Self::new(future(Rc::clone(&granted)), granted).first()
    }

    /// Work that blocks.
    fn in_thread(work: impl FnOnce() -> String + Send + 'static) -> Reply {
        let (tell, told) = futures::channel::oneshot::channel();
        thread::spawn(move || tell.send(work()));
        let job = Self::new(async { said(told.await.expect("the thread has panicked")) }, Granted::default());
        ("started".to_owned(), Some(Thing::Job(job)))
    }

    fn first(mut self) -> Reply {
        let polled = self.poll();
        self.after(polled)
    }

    /// What there is to say after a poll, and what is left: one that has permits keeps them.
    fn after(self, polled: Option<Reply>) -> Reply {
        match polled {
            Some((answer, _)) if self.is_granted() => (answer, Some(Thing::Job(self))),
            Some(reply) => reply,
            None => ("pending".to_owned(), Some(Thing::Job(self))),
        }
    }

    fn is_granted(&self) -> bool {
        self.granted.borrow().left.is_some()
    }

    fn poll(&mut self) -> Option<Reply> {
        self.alarm.disarm();
        let waker = Waker::from(Arc::clone(&self.alarm));
        match self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(reply) => Some(reply),
            Poll::Pending => self.is_granted().then(|| said("ok")),
        }
    }

    /// Until it is done.
    fn finish(mut self) -> Reply {
        loop {
            assert!(self.alarm.rings(), "it is not woken");
            let polled = self.poll();
            if polled.is_some() {
                return self.after(polled);
            }
        }
    }

    fn ask(&mut self, verb: &str, arguments: &[&str]) -> Reply {
        match verb {
            "send" => {
                self.granted.borrow_mut().to_send = Some(number(arguments[0]));
                self.poll().expect("it has permits")
            }
            "left" => said(self.granted.borrow().left.expect("it has permits")),
            _ => said(self.alarm.ask(verb)),
        }
    }
}

/// A waker that remembers whether it was used.
#[derive(Default)]
struct Alarm {
    rang: Mutex<bool>,
    ringing: Condvar,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        *self.rang.lock().unwrap() = true;
        self.ringing.notify_all();
    }
}

impl Alarm {
    fn disarm(&self) {
        *self.rang.lock().unwrap() = false;
    }

    /// Whether it rings, sooner or later.
    fn rings(&self) -> bool {
        let rang = self.rang.lock().unwrap();
        *self.ringing.wait_timeout_while(rang, PATIENCE, |rang| !*rang).unwrap().0
    }

    fn ask(&self, verb: &str) -> &'static str {
        match verb {
            "is_woken" => yes(self.rings()),
            // At once, by what was done in the step before: not by a watchdog that makes good for it.
            "was_woken" => yes(*self.rang.lock().unwrap()),
            "sleeps" => {
                // Time for something to happen that must not.
                thread::sleep(Duration::from_millis(30));
                yes(!*self.rang.lock().unwrap())
            }
            _ => panic!("what waits cannot {verb}"),
        }
    }
}
