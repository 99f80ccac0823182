//! What models of waiting share.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use super::{Hub, WATCHDOG, Waiter};

pub(crate) fn model(preemptions: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(test);
}

pub(crate) fn is_notified(waiter: &mut Waiter) -> bool {
    Pin::new(waiter).poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
}

/// Runs the bridge until the waiter is notified. A wake that is lost is a deadlock, which loom reports: no model has a watchdog.
pub(crate) fn sleep(hub: &Hub, waiter: &mut Waiter) {
    while !is_notified(waiter) {
        hub.sleep(Some(WATCHDOG), None);
        hub.deliver();
    }
}

/// Whether the waiter has been notified by now, or is by the marks that there are.
pub(crate) fn has_heard(hub: &Hub, waiter: &mut Waiter) -> bool {
    hub.deliver();
    is_notified(waiter)
}
