//! What the crate says of itself, if it is asked to: events and spans with the feature `tracing`, counters with the feature
//! `metrics`. Without them nothing of this is there.
//!
//! # Events
//!
//! Only where something happens seldom: never per message. All have the target `waterway`.
//!
//! | level | event | fields |
//! |---|---|---|
//! | `DEBUG` | `segment made` | `segment_id`, `size` |
//! | `DEBUG` | `segment opened`, `segment left` | `segment`, `segment_id`, `participant` |
//! | `DEBUG` | `channel opened`, `channel left` | `segment`, `channel`, `ends` |
//! | `DEBUG` | `channel closed` | `segment`, `channel` |
//! | `DEBUG` | `bridge started` | `participant` |
//! | `WARN` | `no thread for the bridge` | `participant`, `error` |
//! | `INFO` | `death noticed`, `death buried` | `segment`, `participant` |
//! | `WARN` | `segment left behind` | `segment`, `path`, `error`: the last one who left may not remove its file any more |
//! | `ERROR` | `sector quarantined` | `segment`, `sector` |
//!
//! # Spans
//!
//! | level | span | fields | lasts |
//! |---|---|---|---|
//! | `DEBUG` | `segment.open` | `segment`, then `segment_id` and `participant`, or `error` | while a segment is made or opened |
//! | `DEBUG` | `channel.open` | `segment`, `channel`, `ends` | while a channel is made or opened |
//! | `INFO` | `burial` | `segment`, `participants`, then `left_for_later` | while the dead are buried |
//! | `TRACE` | `send`, `recv` | `segment`, `channel` | from the call of `send`, `recv` and their timed, blocking and trying forms to its end |
//!
//! Where nobody wants `TRACE`, the last two cost a load of tracing's highest level and a branch.
//!
//! # Counters
//!
//! | counter | labels | counts |
//! |---|---|---|
//! | `waterway_messages_sent_total` | `segment`, `channel` | messages that this process has put into the channel |
//! | `waterway_messages_received_total` | `segment`, `channel` | messages that it has taken out and read |
//! | `waterway_bytes_received_total` | `segment`, `channel` | bytes of their payloads |
//! | `waterway_wakeups_total` | `segment`, `channel` | messages sent or received while somebody slept who waited for that |
//! | `waterway_deaths_buried_total` | `segment` | participants that this process has buried |
//!
//! The handles of a channel's counters are asked for when the process opens the channel, so the recorder must be there by
//! then. A message costs a plain call of such a handle per counter: with the usual recorders an atomic addition, with none
//! a branch.

#![cfg_attr(not(all(feature = "tracing", feature = "metrics")), allow(unused_variables))]
// Models use a part of it.
#![cfg_attr(loom, allow(dead_code))]

use crate::region::layout::StaticHeader;
#[cfg(any(feature = "tracing", feature = "metrics"))]
use crate::sys::held;
#[cfg(not(loom))]
use crate::{
    attachment::directory::End,
    region::{error::OpenError, mapped::Region},
};

/// An event, if there are any.
macro_rules! say {
    ($level:ident, $($event:tt)*) => {
        // Subscribers are code of others.
        #[cfg(feature = "tracing")]
        held::assert_none();
        #[cfg(feature = "tracing")]
        tracing::event!(target: "waterway", tracing::Level::$level, $($event)*);
    };
}

#[cfg(feature = "tracing")]
fn id(header: &StaticHeader) -> impl tracing::Value {
    tracing::field::display(uuid::Uuid::from_bytes(header.uuid))
}

pub(crate) fn segment_made(header: &StaticHeader) {
    say!(DEBUG, segment_id = id(header), size = header.params.size, "segment made");
}

#[cfg(not(loom))]
pub(crate) fn segment_opened(region: &Region) {
    say!(DEBUG, segment = region.name(), segment_id = id(region.header()), participant = region.me(), "segment opened");
}

#[cfg(not(loom))]
pub(crate) fn segment_left(region: &Region) {
    say!(DEBUG, segment = region.name(), segment_id = id(region.header()), participant = region.me(), "segment left");
}

#[cfg(not(loom))]
pub(crate) fn left_behind(region: &Region, error: &std::io::Error) {
    say!(WARN, segment = region.name(), path = ?region.path(), error = %error, "segment left behind");
}

#[cfg(not(loom))]
pub(crate) fn channel_opened(region: &Region, channel: &str, ends: &[End]) {
    say!(DEBUG, segment = region.name(), channel, ends = ?ends, "channel opened");
}

pub(crate) fn bridge_started(participant: u16) {
    say!(DEBUG, participant, "bridge started");
}

/// No thread could be started for the bridge, for the first time since there was none.
pub(crate) fn bridge_refused(participant: u16, error: &std::io::Error) {
    say!(WARN, participant, error = %error, "no thread for the bridge");
}

#[cfg(not(loom))]
pub(crate) fn death_noticed(region: &Region, participant: u16) {
    say!(INFO, segment = region.name(), participant, "death noticed");
}

#[cfg(not(loom))]
pub(crate) fn death_buried(region: &Region, participant: u16) {
    say!(INFO, segment = region.name(), participant, "death buried");
    #[cfg(feature = "metrics")]
    held::assert_none();
    #[cfg(feature = "metrics")]
    metrics::counter!("waterway_deaths_buried_total", "segment" => region.name().to_owned()).increment(1);
}

#[cfg(not(loom))]
pub(crate) fn quarantined(region: &Region, sector: usize) {
    say!(ERROR, segment = region.name(), sector, "sector quarantined");
}

/// A span of something that happens seldom, which lasts until this is dropped.
#[cfg(not(loom))]
#[must_use = "it lasts until it is dropped"]
pub(crate) struct Span {
    #[cfg(feature = "tracing")]
    entered: tracing::span::EnteredSpan,
}

/// A span that is entered.
#[cfg(not(loom))]
macro_rules! during {
    ($level:ident, $name:literal, $($fields:tt)*) => {
        Span {
            #[cfg(feature = "tracing")]
            entered: {
                held::assert_none();
                tracing::span!(target: "waterway", tracing::Level::$level, $name, $($fields)*).entered()
            },
        }
    };
}

#[cfg(not(loom))]
pub(crate) fn opening_segment(name: &str) -> Span {
    during!(
        DEBUG,
        "segment.open",
        segment = name,
        segment_id = tracing::field::Empty,
        participant = tracing::field::Empty,
        error = tracing::field::Empty
    )
}

#[cfg(not(loom))]
pub(crate) fn opening_channel(region: &Region, channel: &str, ends: &[End]) -> Span {
    during!(DEBUG, "channel.open", segment = region.name(), channel, ends = ?ends)
}

#[cfg(not(loom))]
pub(crate) fn burying(region: &Region, participants: &[u16]) -> Span {
    during!(INFO, "burial", segment = region.name(), participants = ?participants, left_for_later = tracing::field::Empty)
}

#[cfg(not(loom))]
impl Span {
    /// What came of opening a segment.
    pub(crate) fn opened(&self, region: Result<&Region, &OpenError>) {
        #[cfg(feature = "tracing")]
        match region {
            Ok(region) => {
                self.entered.record("segment_id", id(region.header()));
                self.entered.record("participant", region.me());
            }
            Err(error) => drop(self.entered.record("error", tracing::field::display(error))),
        }
    }

    /// How many of the dead could not be buried yet.
    pub(crate) fn left_for_later(&self, participants: usize) {
        #[cfg(feature = "tracing")]
        self.entered.record("left_for_later", participants);
    }
}

/// A span of one message. There is none unless somebody wants it.
#[cfg(not(loom))]
pub(crate) struct MessageSpan {
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

#[cfg(not(loom))]
impl MessageSpan {
    /// For what does not wait, or a part of what may: lasts until what is returned is dropped.
    #[inline(always)]
    pub(crate) fn enter(&self) -> impl Sized + '_ {
        #[cfg(feature = "tracing")]
        return self.span.enter();
        #[cfg(not(feature = "tracing"))]
        self
    }

    /// For what waits: a future that is in the span whenever it is polled.
    #[inline(always)]
    pub(crate) fn around<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        #[cfg(feature = "tracing")]
        return tracing::Instrument::instrument(future, self.span);
        #[cfg(not(feature = "tracing"))]
        future
    }
}

/// What a channel's port says and counts.
#[derive(Debug)]
pub(crate) struct Meters {
    #[cfg(feature = "tracing")]
    channel: String,
    /// Of a recorder, which is code of others: asked for when no lock is held.
    #[cfg(feature = "metrics")]
    counters: std::sync::OnceLock<Counters>,
}

#[cfg(feature = "metrics")]
#[derive(Debug)]
struct Counters {
    sent: metrics::Counter,
    received: metrics::Counter,
    received_bytes: metrics::Counter,
    wakeups: metrics::Counter,
}

impl Meters {
    /// Nothing is counted before [`count_for`](Self::count_for).
    pub(crate) fn new(channel: impl Fn() -> String) -> Self {
        Self {
            #[cfg(feature = "tracing")]
            channel: channel(),
            #[cfg(feature = "metrics")]
            counters: std::sync::OnceLock::new(),
        }
    }

    /// Asks the recorder for the channel's counters, unless that was done.
    pub(crate) fn count_for(&self, segment: &str, channel: impl Fn() -> String) {
        #[cfg(feature = "metrics")]
        if self.counters.get().is_none() {
            held::assert_none();
            let labels = [("segment", segment.to_owned()), ("channel", channel())];
            let counters = Counters {
                sent: metrics::counter!("waterway_messages_sent_total", &labels),
                received: metrics::counter!("waterway_messages_received_total", &labels),
                received_bytes: metrics::counter!("waterway_bytes_received_total", &labels),
                wakeups: metrics::counter!("waterway_wakeups_total", &labels),
            };
            // Whoever opens the channel at the same time has the same counters.
            let _ = self.counters.set(counters);
        }
    }

    /// Counts something.
    #[cfg(feature = "metrics")]
    #[inline(always)]
    fn count(&self, count: impl FnOnce(&Counters)) {
        held::assert_none();
        if let Some(counters) = self.counters.get() {
            count(counters);
        }
    }

    /// The process's last end of a kind has gone.
    #[cfg(not(loom))]
    pub(crate) fn left(&self, region: &Region, end: End) {
        say!(DEBUG, segment = region.name(), channel = self.channel, ends = ?[end], "channel left");
    }

    /// Somebody of this process closes the channel.
    #[cfg(not(loom))]
    pub(crate) fn closed(&self, region: &Region) {
        say!(DEBUG, segment = region.name(), channel = self.channel, "channel closed");
    }

    /// A message is being sent.
    #[cfg(not(loom))]
    #[inline(always)]
    pub(crate) fn sending(&self, region: &Region) -> MessageSpan {
        #[cfg(feature = "tracing")]
        held::assert_none();
        MessageSpan {
            #[cfg(feature = "tracing")]
            span: tracing::trace_span!(target: "waterway", "send", segment = region.name(), channel = self.channel),
        }
    }

    /// A message is being received.
    #[cfg(not(loom))]
    #[inline(always)]
    pub(crate) fn receiving(&self, region: &Region) -> MessageSpan {
        #[cfg(feature = "tracing")]
        held::assert_none();
        MessageSpan {
            #[cfg(feature = "tracing")]
            span: tracing::trace_span!(target: "waterway", "recv", segment = region.name(), channel = self.channel),
        }
    }

    /// A message was put in.
    #[inline(always)]
    pub(crate) fn sent(&self) {
        #[cfg(feature = "metrics")]
        self.count(|counters| counters.sent.increment(1));
    }

    /// A message was taken out, and can be read.
    #[inline(always)]
    pub(crate) fn received(&self, bytes: usize) {
        #[cfg(feature = "metrics")]
        self.count(|counters| {
            counters.received.increment(1);
            counters.received_bytes.increment(bytes as u64);
        });
    }

    /// Somebody is about to be woken, if somebody sleeps.
    #[inline(always)]
    pub(crate) fn wakes(&self, sleeps: impl FnOnce() -> bool) {
        #[cfg(feature = "metrics")]
        if sleeps() {
            self.count(|counters| counters.wakeups.increment(1));
        }
    }
}
