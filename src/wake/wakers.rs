//! Wakers are code of others: they are called, cloned and dropped here, under no lock of ours, see [`held`].
//!
//! One that panics harms nobody else. Whoever calls it is in the middle of something that is not the waker's business: it has others
//! to wake, and perhaps a message in its hands. So the panic ends here, and the panic hook has said what there is to say. Only who
//! sends, notifies or closes, and has nothing in its hands, [lets it out](letting_out) when all is done, as tokio's channels do.

// Models use a part of it.
#![cfg_attr(loom, allow(dead_code))]

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    task::Waker,
    thread,
};

use crate::sys::held;

type Panic = Box<dyn Any + Send>;

/// What becomes of panics of wakers that this thread calls.
#[derive(Default)]
enum Outcome {
    /// They end.
    #[default]
    End,
    /// The first one comes out later.
    Later(Option<Panic>),
}

thread_local! {
    static OUTCOME: Cell<Outcome> = const { Cell::new(Outcome::End) };
}

/// Calls a waker.
#[track_caller]
pub(crate) fn wake(waker: Waker) {
    held::assert_none();
    survive(|| waker.wake());
}

/// Drops a waker that is not needed any more: with it may go a task, and all that it has.
#[track_caller]
pub(crate) fn discard(waker: Option<Waker>) {
    if let Some(waker) = waker {
        held::assert_none();
        survive(|| drop(waker));
    }
}

/// Another waker of the same task. If it panics, that is for whoever polls.
#[track_caller]
pub(crate) fn copy(waker: &Waker) -> Waker {
    held::assert_none();
    waker.clone()
}

/// Says what becomes of panics from now on, and gives what was said before. A thread that ends lets none out.
fn put(outcome: Outcome) -> Outcome {
    OUTCOME.try_with(|place| place.replace(outcome)).unwrap_or_default()
}

/// What was thrown may panic as well when it is dropped. Then that is left.
fn forget(panic: Panic) {
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(another);
    }
}

/// Runs code of others, and goes on if that panics.
pub(crate) fn survive(foreign: impl FnOnce()) {
    if cfg!(loom) {
        // What a model finds is a panic, too.
        return foreign();
    }
    // What others do in there is another matter than what we are at.
    let outcome = put(Outcome::End);
    let panicked = catch_unwind(AssertUnwindSafe(foreign)).err();
    match (outcome, panicked) {
        (Outcome::Later(None), panicked) => drop(put(Outcome::Later(panicked))),
        (outcome, panicked) => {
            put(outcome);
            panicked.into_iter().for_each(forget);
        }
    }
}

/// Does what wakes others; if a waker panics, so does this when all is done. Within another one of these, that one does.
pub(crate) fn letting_out(work: impl FnOnce()) {
    /// Puts back what was said before, whatever happens.
    struct Before(Option<Outcome>);

    impl Before {
        fn end(&mut self) -> Outcome {
            self.0.take().map_or(Outcome::End, put)
        }
    }

    impl Drop for Before {
        fn drop(&mut self) {
            if let Outcome::Later(Some(panic)) = self.end() {
                forget(panic);
            }
        }
    }

    match put(Outcome::Later(None)) {
        outer @ Outcome::Later(_) => {
            put(outer);
            work();
        }
        outer => {
            let mut before = Before(Some(outer));
            work();
            if let Outcome::Later(Some(panic)) = before.end() {
                if thread::panicking() {
                    return forget(panic);
                }
                resume_unwind(panic);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };

    use super::*;

    /// Panics when it is called, and what it throws does so when it is dropped.
    struct Panics(Arc<AtomicUsize>);

    struct Thrown;

    impl Drop for Thrown {
        fn drop(&mut self) {
            resume_unwind(Box::new("again"));
        }
    }

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
            resume_unwind(Box::new(Thrown));
        }
    }

    fn panics() -> (Arc<AtomicUsize>, impl Fn()) {
        let called = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&called);
        (called, move || wake(Waker::from(Arc::new(Panics(Arc::clone(&count))))))
    }

    #[test]
    fn a_panic_ends_where_the_waker_is_called() {
        let (called, wake) = panics();
        wake();
        wake();
        assert_eq!(called.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_panic_comes_out_once_when_all_is_done() {
        let (called, wake) = panics();
        let out = catch_unwind(AssertUnwindSafe(|| {
            letting_out(|| {
                letting_out(&wake);
                wake();
                // What is done in a waker is another matter.
                survive(|| assert!(catch_unwind(AssertUnwindSafe(|| letting_out(&wake))).map_err(forget).is_err()));
            });
        }));
        assert!(out.map_err(forget).is_err());
        assert_eq!(called.load(Ordering::SeqCst), 3);
        // Nothing of it is left for the next one.
        letting_out(|| {});
        assert!(catch_unwind(|| letting_out(|| resume_unwind(Box::new("of its own")))).is_err());
        letting_out(|| {});
        wake();
    }
}
