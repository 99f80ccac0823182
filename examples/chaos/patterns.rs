//! What all processes play beside the channels, and what the survivor demands of it.

use std::{
    any::Any,
    path::{Path, PathBuf},
    rc::Rc,
};

use futures::future::LocalBoxFuture;
use waterway::Segment;

use crate::{Result, broadcast, notify, policies, rounds, routing, semaphore, service, survivor::Shared, watch};

/// A pattern.
pub(crate) struct Pattern {
    pub(crate) name: &'static str,
    /// The part of a process. It is dropped, wherever it is, when the process is asked to end; what it finds to be wrong ends the
    /// process at once.
    pub(crate) play: fn(Stage) -> LocalBoxFuture<'static, Result<()>>,
    /// The survivor's. It goes on until the court [is over](Court::is_over), finishes what it is at then, and never waits for
    /// anything that a killed process would have to do.
    pub(crate) judge: fn(Court) -> LocalBoxFuture<'static, Result<LastWord>>,
}

/// One more pattern is one more line here, and a file.
pub(crate) const PATTERNS: [Pattern; 8] = [
    Pattern {
        name: "service",
        play: |stage| Box::pin(service::play(stage)),
        judge: |court| Box::pin(service::judge(court)),
    },
    Pattern {
        name: "semaphore",
        play: |stage| Box::pin(semaphore::play(stage)),
        judge: |court| Box::pin(semaphore::judge(court)),
    },
    Pattern {
        name: "notify",
        play: |stage| Box::pin(notify::play(stage)),
        judge: |court| Box::pin(notify::judge(court)),
    },
    Pattern { name: "watch", play: |stage| Box::pin(watch::play(stage)), judge: |court| Box::pin(watch::judge(court)) },
    Pattern {
        name: "broadcast",
        play: |stage| Box::pin(broadcast::play(stage)),
        judge: |court| Box::pin(broadcast::judge(court)),
    },
    Pattern {
        name: "routing",
        play: |stage| Box::pin(routing::play(stage)),
        judge: |court| Box::pin(routing::judge(court)),
    },
    Pattern {
        name: "policies",
        play: |stage| Box::pin(policies::play(stage)),
        judge: |court| Box::pin(policies::judge(court)),
    },
    Pattern {
        name: "rounds",
        play: |stage| Box::pin(rounds::play(stage)),
        judge: |court| Box::pin(rounds::judge(court)),
    },
];

/// Where a process plays.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) segment: Segment,
    pub(crate) id: u32,
    pub(crate) is_producer: bool,
    pub(crate) seed: u64,
    pub(crate) place: PathBuf,
}

/// Where the survivor judges a pattern.
#[derive(Clone)]
pub(crate) struct Court {
    pub(crate) segment: Segment,
    pub(crate) place: Rc<Path>,
    state: Shared,
    pattern: usize,
    over: tokio::sync::watch::Receiver<bool>,
}

/// What must come true when all others have gone. What it holds is kept until then.
pub(crate) struct LastWord {
    pub(crate) holds: Box<dyn Fn() -> bool>,
    _keeps: Box<dyn Any>,
}

/// A task that ends with what it belongs to.
pub(crate) struct Aborted(pub(crate) tokio::task::JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl LastWord {
    pub(crate) fn new(holds: impl Fn() -> bool + 'static, keeps: impl Any) -> Self {
        Self { holds: Box::new(holds), _keeps: Box::new(keeps) }
    }
}

impl Court {
    pub(crate) fn new(
        segment: &Segment,
        place: &Path,
        state: &Shared,
        pattern: usize,
        over: &tokio::sync::watch::Receiver<bool>,
    ) -> Self {
        let (segment, place, state) = (segment.clone(), place.into(), Rc::clone(state));
        Self { segment, place, state, pattern, over: over.clone() }
    }

    pub(crate) fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    pub(crate) fn went_well(&self) {
        self.state.borrow_mut().went_well(self.pattern);
    }

    pub(crate) fn fail(&self, what: impl std::fmt::Display) {
        self.state.borrow_mut().fail(format!("{}: {what}", PATTERNS[self.pattern].name));
    }

    /// Whether a process was started, and neither killed nor has it ended.
    pub(crate) fn is_living(&self, id: u32) -> bool {
        self.state.borrow().living.contains(&id)
    }

    pub(crate) fn living(&self) -> Vec<u32> {
        self.state.borrow().living.iter().copied().collect()
    }

    /// How many were killed until now.
    pub(crate) fn kills(&self) -> usize {
        self.state.borrow().killed.len()
    }
}
