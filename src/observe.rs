//! What the crate says of itself, if it is asked to: events with the feature `tracing`, counters with the feature
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
//! | `INFO` | `death noticed`, `death buried` | `segment`, `participant` |
//! | `ERROR` | `sector quarantined` | `segment`, `sector` |
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

use crate::segment::layout::StaticHeader;
#[cfg(not(loom))]
use crate::{attachment::directory::End, segment::region::Region};

/// An event, if there are any.
macro_rules! say {
    ($level:ident, $($event:tt)*) => {
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
pub(crate) fn channel_opened(region: &Region, channel: &str, ends: &[End]) {
    say!(DEBUG, segment = region.name(), channel, ends = ?ends, "channel opened");
}

pub(crate) fn bridge_started(participant: u16) {
    say!(DEBUG, participant, "bridge started");
}

#[cfg(not(loom))]
pub(crate) fn death_noticed(region: &Region, participant: u16) {
    say!(INFO, segment = region.name(), participant, "death noticed");
}

#[cfg(not(loom))]
pub(crate) fn death_buried(region: &Region, participant: u16) {
    say!(INFO, segment = region.name(), participant, "death buried");
    #[cfg(feature = "metrics")]
    metrics::counter!("waterway_deaths_buried_total", "segment" => region.name().to_owned()).increment(1);
}

#[cfg(not(loom))]
pub(crate) fn quarantined(region: &Region, sector: usize) {
    say!(ERROR, segment = region.name(), sector, "sector quarantined");
}

/// What a channel's port says and counts.
#[derive(Debug)]
pub(crate) struct Meters {
    #[cfg(feature = "tracing")]
    channel: String,
    #[cfg(feature = "metrics")]
    counters: Counters,
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
    /// Asks the recorder for the channel's counters.
    pub(crate) fn new(segment: &str, channel: impl Fn() -> String) -> Self {
        #[cfg(feature = "metrics")]
        let labels = [("segment", segment.to_owned()), ("channel", channel())];
        Self {
            #[cfg(feature = "tracing")]
            channel: channel(),
            #[cfg(feature = "metrics")]
            counters: Counters {
                sent: metrics::counter!("waterway_messages_sent_total", &labels),
                received: metrics::counter!("waterway_messages_received_total", &labels),
                received_bytes: metrics::counter!("waterway_bytes_received_total", &labels),
                wakeups: metrics::counter!("waterway_wakeups_total", &labels),
            },
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

    /// A message was put in.
    #[inline(always)]
    pub(crate) fn sent(&self) {
        #[cfg(feature = "metrics")]
        self.counters.sent.increment(1);
    }

    /// A message was taken out, and can be read.
    #[inline(always)]
    pub(crate) fn received(&self, bytes: usize) {
        #[cfg(feature = "metrics")]
        {
            self.counters.received.increment(1);
            self.counters.received_bytes.increment(bytes as u64);
        }
    }

    /// Somebody is about to be woken, if somebody sleeps.
    #[inline(always)]
    pub(crate) fn wakes(&self, sleeps: impl FnOnce() -> bool) {
        #[cfg(feature = "metrics")]
        if sleeps() {
            self.counters.wakeups.increment(1);
        }
    }
}
