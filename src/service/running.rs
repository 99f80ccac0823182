//! Futures that run in one task, of which only those are polled that have been woken.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

use crate::{sys::held::Mutex, wake::wakers};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What has been woken, and whom to tell.
#[derive(Default)]
struct Woken {
    places: Vec<usize>,
    task: Option<Waker>,
}

/// Wakes one place, whoever has it: a future that is polled in vain does no harm.
struct Bell {
    place: usize,
    rung: AtomicBool,
    woken: Arc<Mutex<Woken>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // Ordering: AcqRel, with the same in `poll_woken`: what was done before the wake is seen by who is polled for it.
        if !self.rung.swap(true, Ordering::AcqRel) {
            // The task leaves its waker again with its next poll.
            let task = {
                let mut woken = self.woken.lock();
                woken.places.push(self.place);
                woken.task.take()
            };
            task.into_iter().for_each(wakers::wake);
        }
    }
}

#[derive(Default)]
pub(super) struct Running {
    places: Vec<(Option<Task>, Arc<Bell>)>,
    free: Vec<usize>,
    woken: Arc<Mutex<Woken>>,
}

impl Running {
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// One more. It is polled by the next [`poll_woken`](Self::poll_woken).
    pub(super) fn push(&mut self, task: Task) {
        let place = self.free.pop().unwrap_or_else(|| {
            let place = self.places.len();
            let bell = Bell { place, rung: AtomicBool::new(false), woken: Arc::clone(&self.woken) };
            self.places.push((None, Arc::new(bell)));
            place
        });
        let (kept, bell) = &mut self.places[place];
        *kept = Some(task);
        Arc::clone(bell).wake();
    }

    /// Polls those that have been woken, each once, and forgets those that are done. The task of `context` is woken for others.
    pub(super) fn poll_woken(&mut self, context: &Context<'_>) {
        if !self.woken.lock().task.as_ref().is_some_and(|task| task.will_wake(context.waker())) {
            let task = wakers::copy(context.waker());
            let old = self.woken.lock().task.replace(task);
            wakers::discard(old);
        }
        // After the waker is there: what is woken from now on wakes the task.
        let woken = std::mem::take(&mut self.woken.lock().places);
        for place in woken {
            let (kept, bell) = &mut self.places[place];
            bell.rung.swap(false, Ordering::AcqRel);
            let Some(mut task) = kept.take() else { continue };
            let waker = Waker::from(Arc::clone(bell));
            // It is out of its place meanwhile: if it panics, it is gone, and so it is if it is done.
            self.free.push(place);
            if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                self.free.pop();
                self.places[place].0 = Some(task);
            }
        }
    }
}
