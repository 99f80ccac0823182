//! What a look has seen of all segments, and how it has come to that.

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use waterway::{
    Observer, Segment,
    observer::{ChannelView, MemoryView, ObserveError, ParticipantView, Peeked},
};

use crate::{
    rates::{growth, per_second},
    say::Failure,
};

/// Looks that are remembered of each channel.
const REMEMBERED: usize = 240;
/// Payloads that are looked at.
const PAYLOADS: usize = 100;

/// How a channel has fared, look after look.
#[derive(Clone, Default)]
pub(super) struct History {
    at: Option<Instant>,
    sent: u64,
    received: u64,
    /// Messages per second, the oldest first.
    pub(super) sending: VecDeque<f64>,
    pub(super) receiving: VecDeque<f64>,
}

impl History {
    fn add(&mut self, at: Instant, view: &ChannelView) {
        if let Some(before) = self.at.replace(at) {
            for (rates, many) in [
                (&mut self.sending, growth(self.sent, view.sent)),
                (&mut self.receiving, growth(self.received, view.received)),
            ] {
                rates.push_back(per_second(many, at - before));
                if rates.len() > REMEMBERED {
                    rates.pop_front();
                }
            }
        }
        (self.sent, self.received) = (view.sent, view.received);
    }
}

/// A segment as it was seen.
#[derive(Clone)]
pub(super) struct SeenSegment {
    pub(super) name: String,
    pub(super) views: Vec<ChannelView>,
    /// Of each of the views.
    pub(super) histories: Vec<History>,
    pub(super) participants: Vec<ParticipantView>,
    pub(super) memory: MemoryView,
    /// Why there is nothing more to see.
    pub(super) problem: Option<String>,
}

impl SeenSegment {
    /// Sent and received per second, at last.
    pub(super) fn rates(&self, channel: usize) -> (f64, f64) {
        let last = |rates: &VecDeque<f64>| rates.back().copied().unwrap_or(0.0);
        let history = &self.histories[channel];
        (last(&history.sending), last(&history.receiving))
    }

    fn broken(name: String, problem: String) -> Self {
        Self {
            name,
            views: Vec::new(),
            histories: Vec::new(),
            participants: Vec::new(),
            memory: MemoryView::default(),
            problem: Some(problem),
        }
    }
}

/// All segments as they were seen.
pub(super) struct Seen {
    pub(super) segments: Vec<SeenSegment>,
    /// Of each channel, by what makes its segment this one, and its name.
    histories: HashMap<(String, String), History>,
    /// The payloads that wait in a channel, if somebody wants to see them.
    pub(super) peeked: Result<Vec<Peeked>, String>,
}

impl Default for Seen {
    fn default() -> Self {
        Self { segments: Vec::new(), histories: HashMap::new(), peeked: Ok(Vec::new()) }
    }
}

impl Seen {
    /// Looks at all segments of the directory.
    pub(super) fn look(&mut self) -> Result<(), Failure> {
        let listed = Segment::list()?;
        self.look_at(listed.into_iter().map(|listed| {
            let observer = Observer::open(&listed.name).map_err(|error| error.to_string());
            (listed.name, observer)
        }));
        Ok(())
    }

    /// Looks at these, and forgets all others.
    pub(super) fn look_at(&mut self, segments: impl Iterator<Item = (String, Result<Observer, String>)>) {
        let mut known = std::mem::take(&mut self.histories);
        self.segments.clear();
        for (name, observer) in segments {
            let seen = observer
                .and_then(|observer| self.see(name.clone(), &observer, &mut known).map_err(|error| error.to_string()));
            self.segments.push(seen.unwrap_or_else(|problem| SeenSegment::broken(name, problem)));
        }
    }

    fn see(
        &mut self,
        name: String,
        observer: &Observer,
        known: &mut HashMap<(String, String), History>,
    ) -> Result<SeenSegment, ObserveError> {
        let (id, at) = (observer.id().to_string(), Instant::now());
        let views = observer.try_channels()?;
        let (participants, memory) = (observer.try_participants()?, observer.try_memory()?);
        let histories: Vec<History> = views
            .iter()
            .map(|view| {
                let key = (id.clone(), view.name.clone());
                let mut history = known.remove(&key).unwrap_or_default();
                history.add(at, view);
                self.histories.insert(key, history.clone());
                history
            })
            .collect();
        Ok(SeenSegment { name, views, histories, participants, memory, problem: None })
    }

    /// Looks at the payloads of a channel.
    pub(super) fn peek(&mut self, segment: &str, channel: &str) {
        self.peeked = Observer::open(segment)
            .map_err(|error| error.to_string())
            .and_then(|observer| observer.try_peek(channel, PAYLOADS).map_err(|error| error.to_string()));
    }
}
