//! A queue of tasks of this process, of which one after the other is told that there is something for it.
//!
//! The list is that of the crate event-listener: it keeps the order, forgets who gives up, and passes on what somebody was told
//! and had no use for. But it calls, clones and drops wakers under its lock, and they are code of others: one that drops the last
//! reference to a task that stands in the same list would wait for itself. So the list knows **bells** of ours only. A bell that
//! rings takes down whose waker is to be called, and whoever has rung it calls those when the list's lock is free again.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker, ready},
};

use event_listener::{Event, EventListener};

use crate::{sys::held::Mutex, wake::wakers};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Queue {
    event: Event,
    rung: Arc<Mutex<Vec<Waker>>>,
}

#[derive(Debug)]
struct Bell {
    /// Of who waits.
    waker: Mutex<Option<Waker>>,
    /// Where to take it down.
    rung: Arc<Mutex<Vec<Waker>>>,
}

impl Wake for Bell {
    /// Under the lock of the list. Its place has another reference, so nothing ends here.
    fn wake(self: Arc<Self>) {
        if let Some(waker) = self.waker.lock().take() {
            self.rung.lock().push(waker);
        }
    }
}

impl Queue {
    /// A place at the end of the queue. Look again for what you wait for before you sleep.
    pub(super) fn listen(self: &Arc<Self>) -> Place {
        let bell = Arc::new(Bell { waker: Mutex::default(), rung: Arc::clone(&self.rung) });
        Place { listener: Some(self.event.listen()), bell, queue: Arc::clone(self) }
    }

    /// There is something for one more.
    pub(super) fn tell_one(&self) {
        self.event.notify_additional(1);
        self.call();
    }

    /// Calls those whose bells have rung.
    fn call(&self) {
        let rung = std::mem::take(&mut *self.rung.lock());
        rung.into_iter().for_each(wakers::wake);
    }
}

/// A place in a queue. A future that is done when there is something for who has it.
#[derive(Debug)]
#[must_use = "a place is to be waited in"]
pub(super) struct Place {
    /// `None` once it has been told. Before the bell, which it has a reference to.
    listener: Option<EventListener>,
    bell: Arc<Bell>,
    queue: Arc<Queue>,
}

impl Place {
    /// Says whom to wake.
    fn listen_for(&self, waker: &Waker) {
        if self.bell.waker.lock().as_ref().is_some_and(|known| known.will_wake(waker)) {
            return;
        }
        let waker = wakers::copy(waker);
        let old = self.bell.waker.lock().replace(waker);
        wakers::discard(old);
    }
}

impl Future for Place {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.listen_for(context.waker());
        let bell = Waker::from(Arc::clone(&self.bell));
        if let Some(listener) = &mut self.listener {
            ready!(Pin::new(listener).poll(&mut Context::from_waker(&bell)));
            self.listener = None;
        }
        Poll::Ready(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // If it has been told, the next one is told instead.
        self.listener = None;
        self.queue.call();
        let waker = self.bell.waker.lock().take();
        wakers::discard(waker);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn poll(place: &mut Place, count: &Arc<Count>) -> bool {
        let waker = Waker::from(Arc::clone(count));
        Pin::new(place).poll(&mut Context::from_waker(&waker)).is_ready()
    }

    #[test]
    fn each_is_told_in_turn_and_who_gives_up_passes_it_on() {
        let queue = Arc::new(Queue::default());
        let counts: [Arc<Count>; 3] = Default::default();
        let told = || [0, 1, 2].map(|index: usize| counts[index].0.load(Ordering::SeqCst));
        let mut places: Vec<Place> = (0..3).map(|_| queue.listen()).collect();
        for (place, count) in places.iter_mut().zip(&counts) {
            assert!(!poll(place, count));
        }
        queue.tell_one();
        queue.tell_one();
        assert_eq!(told(), [1, 1, 0]);
        // The first one has no use for it.
        drop(places.remove(0));
        assert_eq!(told(), [1, 1, 1]);
        assert!(poll(&mut places[0], &counts[1]) && poll(&mut places[1], &counts[2]));
    }

    #[test]
    fn who_has_given_up_leaves_nothing_behind() {
        let queue = Arc::new(Queue::default());
        let count = Arc::new(Count::default());
        for _ in 0..100 {
            assert!(!poll(&mut queue.listen(), &count));
        }
        assert_eq!(Arc::strong_count(&count), 1);
    }

    /// The last owner of a place in the same queue.
    struct Owner {
        _place: Mutex<Option<Place>>,
    }

    impl Wake for Owner {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn a_waker_may_be_the_last_owner_of_a_place_in_the_same_queue() {
        let queue = Arc::new(Queue::default());
        let mut place = queue.listen();
        let owner = Arc::new(Owner { _place: Mutex::new(Some(queue.listen())) });
        let waker = Waker::from(owner);
        assert!(Pin::new(&mut place).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        queue.tell_one();
        assert!(Pin::new(&mut place).poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }
}
