//! What broadcasts and groups are made with, as it stands in words of their entries.

use crate::ring::log::Pressure;

/// Messages that a broadcast keeps for its groups unless told otherwise.
pub(crate) const DEFAULT_CAPACITY: u64 = 256;
/// Groups of a broadcast unless told otherwise.
pub(crate) const DEFAULT_GROUPS: u64 = 16;
/// The most deliveries that a group can ask for.
pub(crate) const MOST_DELIVERIES: u32 = 255;

/// What a group is, in the word of an entry that is the capacity of a channel: `1 | pressure:2 | deliveries:12 | patience:32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) pressure: Pressure,
    /// Milliseconds.
    pub(crate) patience: u32,
    /// 0: at most once.
    pub(crate) deliveries: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { pressure: Pressure::Lag, patience: 0, deliveries: 0 }
    }
}

impl Policy {
    pub(crate) fn pack(self) -> u64 {
        1 << 46 | (self.pressure as u64) << 44 | u64::from(self.deliveries & 0xfff) << 32 | u64::from(self.patience)
    }

    /// The bits that say what a group does when it is behind, and how often messages are delivered.
    pub(crate) fn mask(behind: bool, deliveries: bool) -> u64 {
        (if behind { 3 << 44 | 0xffff_ffff } else { 0 }) | if deliveries { 0xfff << 32 } else { 0 }
    }

    pub(crate) fn unpack(word: u64) -> Self {
        let pressure = match word >> 44 & 3 {
            1 => Pressure::Block,
            2 => Pressure::Evict,
            _ => Pressure::Lag,
        };
        Self { pressure, patience: word as u32, deliveries: (word >> 32 & 0xfff) as u32 }
    }

    pub(crate) fn describe(self) -> String {
        let behind = match self.pressure {
            Pressure::Lag => "which lags".to_owned(),
            Pressure::Block => "which blocks".to_owned(),
            Pressure::Evict => format!("which is evicted after {} ms", self.patience),
        };
        match self.deliveries {
            0 => format!(", {behind}, at most once"),
            most => format!(", {behind}, at least once and at most {most} times"),
        }
    }
}

/// What a broadcast has besides its capacity, in the word of an entry that names dead letters in a channel. What is not asked for
/// is all ones, and 0.
pub(crate) fn pack_extras(history: Option<u32>, groups: Option<u8>) -> u64 {
    u64::from(history.unwrap_or(u32::MAX)) << 8 | u64::from(groups.unwrap_or(0))
}

/// History and groups.
pub(in crate::attachment) fn extras(word: u64) -> (u64, usize) {
    (word >> 8 & 0xffff_ffff, (word & 0xff) as usize)
}

pub(in crate::attachment) fn with_defaults(asked: Option<u64>) -> u64 {
    let (history, groups) = extras(asked.unwrap_or_else(|| pack_extras(None, None)));
    let history = if history == u64::from(u32::MAX) { 0 } else { history };
    history << 8 | if groups == 0 { DEFAULT_GROUPS } else { groups as u64 }
}

pub(in crate::attachment) fn are_extras(asked: u64, there: u64) -> bool {
    let ((history, groups), there) = (extras(asked), extras(there));
    (history == u64::from(u32::MAX) || history == there.0) && (groups == 0 || groups == there.1)
}

pub(in crate::attachment) fn describe_extras(word: u64) -> String {
    let (history, groups) = extras(word);
    let history = if history == u64::from(u32::MAX) { String::new() } else { format!(", history {history}") };
    let groups = if groups == 0 { String::new() } else { format!(", {groups} groups") };
    history + &groups
}
