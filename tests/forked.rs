//! What a forked child inherits is of no use to it and does no harm: every method is an error, `None` or nothing, every future
//! ends, every drop is a drop; the child is ended by no signal and waits for nothing, and its parent notices nothing.

mod common;

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use common::{Place, held, within};
use futures::{FutureExt, Sink, Stream, StreamExt};
use waterway::{
    Delivery, Message, OpenError, Segment, TryRecvError, TrySendError,
    blocks::HandleError,
    broadcast,
    error::AllocError,
    policy::{Priority, PriorityBy},
};

/// How long a child may take. The alarm ends it then, which is a signal.
const PATIENCE: u32 = 60;

/// Something that a child does with what it inherits; `false` if it is not as it should be.
type Step = (&'static str, Box<dyn FnOnce() -> bool>);

/// A number that a child and its parent share.
struct Shared(*mut AtomicUsize);

impl Shared {
    fn new() -> Self {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, of zeros.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, flags, -1, 0) };
        assert_ne!(page, libc::MAP_FAILED);
        Self(page.cast())
    }

    fn number(&self) -> &AtomicUsize {
        // SAFETY: mapped until this is dropped, and aligned.
        unsafe { &*self.0 }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the whole mapping.
        unsafe { libc::munmap(self.0.cast(), 4096) };
    }
}

/// Forks, and waits for the child, which does `work` and ends with what that returns. `None` if a signal ended it.
fn in_child(work: impl FnOnce() -> i32) -> Option<i32> {
    // SAFETY: the child only does `work`, and then ends without any cleaning up.
    match unsafe { libc::fork() } {
        -1 => panic!("{}", io::Error::last_os_error()),
        0 => {
            // SAFETY: it has no preconditions.
            unsafe { libc::alarm(PATIENCE) };
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(101);
            // SAFETY: as above.
            unsafe { libc::_exit(code) }
        }
        child => {
            let mut status = 0;
            // SAFETY: our child, and a place for its status.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
        }
    }
}

/// Does all steps in a child. Those of the parent are dropped.
fn all_hold_in_a_child(steps: Vec<Step>) {
    let names: Vec<&str> = steps.iter().map(|(name, _)| *name).collect();
    let reached = Shared::new();
    let mut steps = Some(steps);
    let ended = in_child(|| {
        for (number, (_, step)) in steps.take().unwrap().into_iter().enumerate() {
            reached.number().store(number, Ordering::SeqCst);
            if !step() {
                return 1;
            }
        }
        0
    });
    let last = names[reached.number().load(Ordering::SeqCst)];
    assert_eq!(ended, Some(0), "{last}");
}

fn once<T>(future: &mut Pin<Box<dyn Future<Output = T>>>) -> Poll<T> {
    future.poll_unpin(&mut Context::from_waker(Waker::noop()))
}

/// A future that waits already.
fn waiting<T: 'static>(future: impl Future<Output = T> + 'static) -> Pin<Box<dyn Future<Output = T>>> {
    let mut future: Pin<Box<dyn Future<Output = T>>> = Box::pin(future);
    // More often than anything is tried again before it waits.
    assert!((0..2000).all(|_| once(&mut future).is_pending()), "it has nothing to wait for");
    future
}

/// A future ends when the child polls it, or soon after.
fn ends<T>(mut future: Pin<Box<dyn Future<Output = T>>>) -> Option<T> {
    (0..100).find_map(|_| match once(&mut future) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    })
}

/// Steps of every kind of thing that a child can inherit.
#[derive(Default)]
struct Steps(Vec<Step>);

impl Steps {
    fn add(&mut self, name: &'static str, step: impl FnOnce() -> bool + 'static) {
        self.0.push((name, Box::new(step)));
    }

    /// It is dropped.
    fn drop_it<T: 'static>(&mut self, name: &'static str, it: T) {
        self.add(name, move || {
            drop(it);
            true
        });
    }

    /// A future that waits is dropped, and another one of the same kind ends.
    fn future<T: 'static, F: Future<Output = T> + 'static>(
        &mut self,
        name: &'static str,
        make: impl Fn() -> F,
        is_right: impl Fn(T) -> bool + 'static,
    ) {
        let (dropped, polled) = (waiting(make()), waiting(make()));
        let untouched: Pin<Box<dyn Future<Output = T>>> = Box::pin(make());
        self.drop_it(name, dropped);
        self.add(name, move || ends(polled).is_some_and(&is_right) && ends(untouched).is_some_and(&is_right));
    }
}

fn channels(segment: &Segment, steps: &mut Steps) {
    let (sender, receiver) = segment.channel::<u64>("plain").capacity(4).open().unwrap();
    let (sender, receiver) = (Arc::new(sender), Arc::new(receiver));
    let rx = Arc::clone(&receiver);
    steps.future(
        "recv",
        move || {
            let rx = Arc::clone(&rx);
            async move { rx.recv().await.is_none() }
        },
        |none| none,
    );
    let rx = Arc::clone(&receiver);
    steps.future(
        "recv_many",
        move || {
            let rx = Arc::clone(&rx);
            async move { rx.recv_many(&mut Vec::new(), 4).await == 0 }
        },
        |none| none,
    );
    let tx = Arc::clone(&sender);
    steps.future(
        "closed",
        move || {
            let tx = Arc::clone(&tx);
            async move { tx.closed().await }
        },
        |()| true,
    );
    assert!((0..2000).all(|_| receiver.poll_recv(&mut Context::from_waker(Waker::noop())).is_pending()));
    (0..4).for_each(|number| sender.try_send(number).unwrap());
    let received = receiver.try_recv().unwrap();
    let kept = receiver.try_recv().unwrap();
    let permit = Arc::clone(&sender).as_ref().clone();
    let owned = within(async move { permit.reserve_owned().await }).unwrap();
    sender.try_send(9).unwrap();
    let tx = Arc::clone(&sender);
    steps.future(
        "send",
        move || {
            let tx = Arc::clone(&tx);
            async move { tx.send(1).await.is_err() }
        },
        |refused| refused,
    );
    let tx = Arc::clone(&sender);
    steps.future(
        "reserve",
        move || {
            let tx = Arc::clone(&tx);
            async move { tx.reserve().await.is_err() }
        },
        |refused| refused,
    );
    let tx = Arc::clone(&sender);
    steps.future(
        "reserve_many",
        move || {
            let tx = Arc::clone(&tx);
            async move { tx.reserve_many(3).await.is_err() }
        },
        |refused| refused,
    );
    let (tx, rx) = (Arc::clone(&sender), Arc::clone(&receiver));
    let weak = sender.downgrade();
    steps.add("methods of a channel", move || {
        let (mut buffer, mut context) = (Vec::new(), Context::from_waker(Waker::noop()));
        matches!(tx.try_send(1), Err(TrySendError::Closed(1)))
            && tx.blocking_send(1).is_err()
            && tx.force_send(1).is_err()
            && tx.try_reserve().is_err()
            && tx.try_reserve_many(2).is_err()
            && tx.is_closed()
            && (tx.len(), tx.capacity(), tx.is_empty()) == (0, tx.capacity(), true)
            && tx.same_channel(&tx.as_ref().clone())
            && (tx.strong_count(), tx.receiver_count()) == (tx.strong_count(), 0)
            && weak.upgrade().is_none_or(|sender| sender.try_send(1).is_err())
            && matches!(rx.try_recv(), Err(TryRecvError::Disconnected))
            && rx.blocking_recv().is_none()
            && rx.blocking_recv_many(&mut buffer, 3) == 0
            && rx.poll_recv(&mut context).is_ready()
            && rx.drain().count() == 0
            && rx.blocking_iter().count() == 0
            && rx.inquire().waiting == 0
            && (rx.len(), rx.sender_count(), rx.is_empty(), rx.is_closed()) == (0, 0, true, true)
            && (rx.discarded(), rx.invalid()) == (0, 0)
            && {
                rx.close();
                drop((tx.as_ref().clone(), rx.as_ref().clone(), tx.downgrade(), rx.reply_to()));
                true
            }
    });
    // Zeros, or what was there: but no signal.
    steps.add("reading a message", move || *received == 0 || *received < 4);
    let to = Arc::clone(&sender);
    steps.add("forwarding a message", move || kept.forward(&to).is_err());
    steps.drop_it("an owned permit", owned);
    steps.drop_it("the ends", (sender, receiver));

    let (sender, receiver) = segment.bytes("bytes").open().unwrap();
    (0..6).for_each(|number| sender.try_send(vec![number; 3000]).unwrap());
    let messages: Vec<Message<[u8]>> = (0..4).map(|_| receiver.try_recv().unwrap()).collect();
    let [a, b, c, d] = <[_; 4]>::try_from(messages).unwrap();
    let shared = b.into_bytes();
    let permit = within(sender.clone().reserve_owned(100)).unwrap();
    let many = within(sender.clone().reserve_owned(100)).unwrap();
    steps.add("bytes of a message", move || a.iter().all(|byte| *byte == 0) && a.as_ref().len() == 3000);
    steps.add("shared bytes", move || shared.clone().len() == 3000 && shared.iter().all(|byte| *byte <= 1));
    steps.add("a copy of a message", move || c.into_inner().len() == 3000);
    steps.add("acknowledging", move || {
        d.ack();
        true
    });
    steps.add("sending by a permit", move || {
        permit.send();
        true
    });
    steps.add("giving up a permit", move || {
        drop(many.release());
        true
    });
    let mut sink = Box::pin(sender.clone().into_sink::<Vec<u8>>());
    steps.add("a sink", move || {
        let mut context = Context::from_waker(Waker::noop());
        matches!(Sink::<Vec<u8>>::poll_ready(sink.as_mut(), &mut context), Poll::Ready(_))
            && matches!(Sink::<Vec<u8>>::poll_close(sink.as_mut(), &mut context), Poll::Ready(_))
    });
    let mut stream = Box::pin(receiver.clone().into_stream());
    steps.add("a stream", move || {
        let mut context = Context::from_waker(Waker::noop());
        matches!(stream.as_mut().poll_next(&mut context), Poll::Ready(None))
    });
    steps.drop_it("ends of bytes", (receiver, sender));

    let (sender, receiver) = segment.channel::<[u64]>("slices").open().unwrap();
    (0..3).for_each(|_| sender.try_send([1, 2, 3]).unwrap());
    let mut parts = receiver.try_recv().unwrap().into_parts();
    let part = parts.next().unwrap();
    let slice = receiver.try_recv().unwrap();
    let mut permit = within(sender.clone().reserve_owned(8)).unwrap();
    permit.push(1);
    steps.add("a part", move || *part < 4);
    steps.add("parts", move || parts.len() == 2 && parts.all(|part| *part < 4));
    steps.add("a slice", move || slice.len() == 3);
    steps.drop_it("a slice that was begun", permit);
    steps.drop_it("ends of slices", (sender, receiver));

    let again = Delivery::AtLeastOnce { max_deliveries: 3 };
    let options = || {
        segment.channel::<u64>("levels").delivery(again).policy(PriorityBy(|number: &u64| match number {
            0 => Priority::Low,
            _ => Priority::High,
        }))
    };
    let (sender, receiver) = options().open().unwrap();
    (0..4).for_each(|number| sender.try_send(number % 2).unwrap());
    let (held, back) = (receiver.try_recv().unwrap(), receiver.try_recv().unwrap());
    steps.add("what comes back", move || {
        back.nack();
        drop(held);
        true
    });
    let rx = Arc::new(receiver);
    steps.add("levels", move || {
        sender.try_send(1).is_err() && rx.try_recv().is_err() && rx.inquire().waiting == 0 && rx.drain().count() == 0
    });

    let (sender, receiver) = segment.channel::<[u8]>("routed").routed().partitions(4).open().unwrap();
    (0..8_u64).for_each(|key| sender.try_send(key, [1, 2]).unwrap());
    let (kept, read) = (receiver.try_recv().unwrap(), receiver.try_recv().unwrap());
    let empty = Arc::new(segment.channel::<[u8]>("routed-too").routed().partitions(2).open().unwrap());
    let rx = Arc::clone(&empty);
    steps.future(
        "routed recv",
        move || {
            let rx = Arc::clone(&rx);
            async move { rx.1.recv().await.is_none() }
        },
        |none| none,
    );
    steps.add("a routed channel", move || {
        sender.try_send(1_u64, [1]).is_err()
            && sender.blocking_send(1_u64, [1]).is_err()
            && receiver.try_recv().is_err()
            && receiver.blocking_recv().is_none()
            && (sender.len(), receiver.len(), read.len()) == (0, 0, 2)
            && {
                read.nack();
                drop((kept, empty, sender, receiver));
                true
            }
    });
}

fn broadcasts(segment: &Segment, steps: &mut Steps) {
    let (publisher, subscriber) = segment.broadcast::<u64>("all").capacity(4).open().unwrap();
    let group =
        segment.broadcast::<u64>("all").group("g").behind(waterway::broadcast::Behind::Block).subscriber().unwrap();
    let rx = Arc::new(group.clone());
    steps.future(
        "a subscriber's recv",
        move || {
            let rx = Arc::clone(&rx);
            async move { rx.recv().await.is_err() }
        },
        |closed| closed,
    );
    (0..4).for_each(|number| _ = publisher.try_send(number).unwrap());
    let (read, kept, back) =
        (subscriber.try_recv().unwrap(), subscriber.try_recv().unwrap(), group.try_recv().unwrap());
    let publisher = Arc::new(publisher);
    publisher.try_send(4).unwrap();
    let tx = Arc::clone(&publisher);
    steps.future(
        "publishing",
        move || {
            let tx = Arc::clone(&tx);
            async move { tx.send(5).await.is_err() }
        },
        |refused| refused,
    );
    steps.add("a broadcast", move || {
        publisher.try_send(6).is_err()
            && publisher.blocking_send(6).is_err()
            && publisher.group_count() == 0
            && matches!(subscriber.try_recv(), Err(broadcast::TryRecvError::Closed))
            && subscriber.blocking_recv().is_err()
            && (group.len(), group.is_empty(), *read < 5) == (0, true, true)
            && subscriber
                .clone()
                .into_stream()
                .next()
                .now_or_never()
                .is_some_and(|next| next.is_none_or(|it| it.is_err()))
            && {
                back.nack();
                drop((read, kept, group, subscriber, publisher));
                true
            }
    });
}

fn services(segment: &Segment, steps: &mut Steps) {
    let options = || segment.service::<u64, u64>("squares");
    let (server, client) = (Arc::new(options().server().unwrap()), Arc::new(options().client().unwrap()));
    let caller = Arc::clone(&client);
    let calls: Vec<_> = (0..4)
        .map(|number| {
            let caller = Arc::clone(&caller);
            waiting(async move { caller.call(number).await.is_err() })
        })
        .collect();
    let mut requests: Vec<_> = (0..3).map(|_| within(server.next()).unwrap()).collect();
    let other = Arc::new(segment.service::<u64, u64>("idle").server().unwrap());
    let idle = Arc::clone(&other);
    steps.future(
        "a server's next",
        move || {
            let idle = Arc::clone(&idle);
            async move { idle.next().await.is_none() }
        },
        |none| none,
    );
    let streaming = requests.pop().unwrap().stream();
    let (answered, dropped) = (requests.pop().unwrap(), requests.pop().unwrap());
    let mut calls = calls.into_iter();
    let (first, second) = (calls.next().unwrap(), calls.next().unwrap());
    steps.add("a call ends", move || ends(first) == Some(true));
    steps.drop_it("a call", second);
    steps.drop_it("the other calls", calls.collect::<Vec<_>>());
    steps.add("a request", move || {
        let _ = (answered.is_cancelled(), answered.deadline(), answered.delivery_count(), **answered.message() < 4);
        answered.try_respond(1).is_err()
    });
    steps.drop_it("a request that is not answered", dropped);
    steps.drop_it("a stream of responses", streaming);
    steps.add("a client and a server", move || {
        ends(Box::pin(async move { client.call(1).await.is_err() && client.is_closed() })) == Some(true)
            && ends(Box::pin(async move { server.next().await.is_none() })) == Some(true)
    });
}

fn signals(segment: &Segment, steps: &mut Steps) {
    let semaphore = Arc::new(segment.semaphore("doors").permits(3).open().unwrap());
    let owned = semaphore.as_ref().clone().try_acquire_many_owned(2).unwrap();
    let last = semaphore.as_ref().clone().try_acquire_owned().unwrap();
    let of = Arc::clone(&semaphore);
    steps.future(
        "acquire_many",
        move || {
            let of = Arc::clone(&of);
            async move { of.acquire_many(2).await.is_err() }
        },
        |refused| refused,
    );
    let of = Arc::clone(&semaphore);
    steps.future(
        "acquire",
        move || {
            let of = Arc::clone(&of);
            async move { of.acquire().await.is_err() }
        },
        |refused| refused,
    );
    steps.add("a semaphore", move || {
        semaphore.try_acquire().is_err()
            && semaphore.blocking_acquire().is_err()
            && (semaphore.available_permits(), semaphore.add_permits(1), semaphore.forget_permits(1)) == (0, 0, 0)
            && {
                semaphore.close();
                last.forget();
                drop((owned, semaphore.as_ref().clone(), semaphore));
                true
            }
    });

    let notify = Arc::new(segment.notify("bell").unwrap());
    let of = Arc::clone(&notify);
    let dropped = waiting(async move { of.notified().await });
    let of = Arc::clone(&notify);
    let polled = waiting(async move { of.notified().await });
    steps.drop_it("notified", dropped);
    steps.add("a notify", move || {
        let _ = ends(polled);
        notify.notify_one();
        notify.notify_waiters();
        drop(notify.as_ref().clone());
        true
    });

    let (sender, mut receiver) = segment.watch::<u64>("latest").open().unwrap();
    sender.send(7).unwrap();
    let value = receiver.borrow_and_update();
    let mut waits = receiver.clone();
    let dropped = waiting(async move { waits.changed().await.is_err() });
    let mut waits = receiver.clone();
    let polled = waiting(async move { waits.changed().await.is_err() });
    steps.drop_it("changed", dropped);
    steps.add("a watch", move || {
        ends(polled) == Some(true) && sender.send(8).is_err() && receiver.has_changed().is_err() && {
            receiver.mark_changed();
            receiver.mark_unchanged();
            let _ = (receiver.sender_count(), receiver.receiver_count(), sender.is_closed());
            drop((value, receiver.clone(), sender.clone(), receiver, sender));
            true
        }
    });
}

fn blocks(segment: &Segment, steps: &mut Steps) {
    let allocator: &'static _ = Box::leak(Box::new(segment.allocator()));
    let block = allocator.allocate_copy(&[7; 3000]).unwrap();
    let other = allocator.allocate(7_u64).unwrap();
    let leaked: &'static _ = Box::leak(Box::new(allocator.resolve_bytes(block.handle()).unwrap()));
    let written: &'static _ = Box::leak(Box::new(allocator.resolve::<u64>(other.handle()).unwrap()));
    let (reading, writing) = (leaked.try_read().unwrap(), written.try_write().unwrap());
    let (raw, short) = (allocator.allocate_raw(3000).unwrap(), allocator.allocate_raw(64).unwrap());
    let given = allocator.allocate_raw(64).unwrap().into_handle();
    let most = allocator.largest();
    let big: Vec<_> = std::iter::from_fn(|| allocator.allocate_bytes(most / 4).ok()).take(40).collect();
    let layout = std::alloc::Layout::from_size_align(most / 4, 8).unwrap();
    if allocator.allocate_bytes(most / 4).is_err() {
        steps.future(
            "allocate_when_free",
            move || async move { allocator.allocate_when_free(layout).await.is_err() },
            |it| it,
        );
    }
    steps.drop_it("much memory", big);
    steps.add("blocks", move || {
        matches!(allocator.allocate(1_u64), Err(AllocError::Forked))
            && matches!(allocator.allocate_raw(64), Err(AllocError::Forked))
            && matches!(allocator.resolve_bytes(block.handle()), Err(HandleError::Forked))
            && matches!(allocator.take_raw(given), Err(HandleError::Forked))
            && matches!(allocator.free(block.handle()), Err(HandleError::Forked))
            && matches!(block.read(), Err(HandleError::Forked))
            && block.try_write().is_err()
            && block.header().is_err()
            && (block.state().is_err(), block.set_state(50).is_err(), block.poisoned().is_err()) == (true, true, true)
            && (allocator.available(), allocator.largest(), allocator.blocks().count()) == (0, 0, 0)
            && reading.len() == 3000
            && raw.len() >= 3000
            && {
                drop((reading, writing, raw, short, block.reference()));
                let _ = block.into_handle();
                other.free();
                true
            }
    });
}

fn of_itself(segment: &Segment, steps: &mut Steps) {
    let segment = segment.clone();
    steps.add("a segment", move || {
        let options = || segment.bytes("new");
        matches!(options().sender(), Err(OpenError::Forked))
            && matches!(segment.semaphore("new").permits(1).open(), Err(OpenError::Forked))
            && matches!(segment.notify("new"), Err(OpenError::Forked))
            && segment.watch::<u64>("new").open().is_err()
            && segment.broadcast::<u64>("new").open().is_err()
            && segment.service::<u64, u64>("new").client().is_err()
            && segment.service::<u64, u64>("new").server().is_err()
            && options().routed().open().is_err()
            && (segment.channels().len(), segment.participants().len()) == (0, 0)
            && segment.as_fd().is_none()
            && ![segment.check(), segment.check_live(), segment.quarantine()].iter().any(|report| report.is_clean())
            && segment.stats().cache_hits == 0
            && {
                segment.bury_the_dead();
                let _ = (segment.huge_page_bytes(), segment.path(), segment.name(), segment.id());
                drop((segment.clone(), segment));
                true
            }
    });
}

fn walk(segment: Segment) {
    for part in [channels, broadcasts, services, signals, of_itself, blocks] {
        let mut steps = Steps::default();
        part(&segment, &mut steps);
        all_hold_in_a_child(steps.0);
    }
    // The parent goes on, and has lost nothing.
    let (sender, receiver) = segment.bytes("after").open().unwrap();
    within(sender.send("all is well")).unwrap();
    assert_eq!(&*within(receiver.recv()).unwrap(), b"all is well");
    assert_eq!(segment.participants().len(), 1);
}

#[test]
fn all_that_a_forked_child_inherits_of_a_named_segment_is_harmless() {
    let place = Place::new();
    walk(place.options().size(4 << 20).create("forked").unwrap());
}

#[test]
fn all_that_a_forked_child_inherits_of_an_anonymous_segment_is_harmless() {
    walk(Segment::options().size(4 << 20).anonymous().unwrap());
}

#[test]
fn all_that_a_forked_child_inherits_of_a_segment_in_the_process_is_harmless() {
    walk(Segment::options().size(4 << 20).in_process().unwrap());
}

#[test]
fn a_child_that_is_forked_in_the_middle_of_anything_ends_what_it_inherits() {
    let place = Place::new();
    let segment = place.options().size(4 << 20).create("busy").unwrap();
    let other = place.options().open("busy").unwrap();
    let (sender, receiver) = segment.channel::<u64>("c").capacity(4).open().unwrap();
    let echo = other.channel::<u64>("c").receiver().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (busy, listener) = (Arc::clone(&stop), receiver.clone());
    let sending = thread::spawn(move || {
        while !busy.load(Ordering::Relaxed) {
            within(sender.send_timeout(1, Duration::from_secs(60))).unwrap();
        }
    });
    let receiving = [listener, echo].map(|from| thread::spawn(move || while from.blocking_recv().is_some() {}));
    let mut ends = Some((segment.clone(), receiver.clone()));
    for _ in 0..100 {
        let mut pending: Pin<Box<dyn Future<Output = bool>>> = {
            let receiver = receiver.clone();
            Box::pin(async move { receiver.recv().await.is_none() })
        };
        let _ = once(&mut pending);
        let mut pending = Some(pending);
        let ended = in_child(|| {
            let pending = pending.take().unwrap();
            drop((pending, ends.take()));
            0
        });
        assert_eq!(ended, Some(0));
    }
    stop.store(true, Ordering::Relaxed);
    sending.join().unwrap();
    drop((ends, receiver));
    receiving.into_iter().for_each(|receiving| receiving.join().unwrap());
    assert_eq!((other.participants().len(), held(&segment)), (2, 0));
}

#[test]
fn a_child_that_is_forked_while_others_open_segments_keeps_none_of_them_alive() {
    let place = Place::new();
    let stop = Arc::new(AtomicBool::new(false));
    let opening: Vec<_> = (0..2)
        .map(|number| {
            let (options, stop) = (place.options().size(1 << 20), Arc::clone(&stop));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    drop(options.clone().open_or_create(&format!("s{number}")).unwrap());
                }
            })
        })
        .collect();
    let children: Vec<_> = (0..200)
        // SAFETY: the child waits, and ends without any cleaning up.
        .map(|_| match unsafe { libc::fork() } {
            0 => loop {
                // SAFETY: it has no preconditions.
                unsafe {
                    libc::alarm(PATIENCE);
                    libc::pause();
                }
            },
            child => child,
        })
        .collect();
    stop.store(true, Ordering::Relaxed);
    opening.into_iter().for_each(|opening| opening.join().unwrap());
    // All have left: nobody lives there, though the children do.
    let left: Vec<_> = place.options().list().unwrap().into_iter().filter(|found| found.participants > 0).collect();
    for child in children {
        let mut status = 0;
        // SAFETY: our children, each waited for once.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, &raw mut status, 0);
        }
    }
    assert!(left.is_empty(), "{left:?}");
    assert!(common::files(place.path()).is_empty());
}
