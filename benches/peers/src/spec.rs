//! What one measurement is: said by the parent to the processes that do it.

use std::path::PathBuf;

use crate::{peers::SLICES_64K, worker::BATCH};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// How many messages per second.
    Throughput,
    /// How long there and back, each time after so much idleness.
    RoundTrip { idle_us: u64 },
    /// How long a request and its response.
    Call,
    /// How many messages per second, each to all who receive.
    Broadcast,
    /// How long it takes to send such a message, while nobody receives.
    Publish,
    /// How long it takes to read the latest value, while another is written over and over, or none.
    Read { written: bool },
    /// How long it takes to write one, while nobody reads.
    Write,
    /// What it costs that many receive and nothing comes.
    Idle { receivers: usize },
}

impl Kind {
    /// Whether it says something how many there are: not where nothing is carried, or only a part of the time counts.
    pub fn has_system_calls(self) -> bool {
        matches!(self, Self::Throughput | Self::RoundTrip { .. } | Self::Call | Self::Broadcast)
    }

    /// Of what is there and back: microseconds of idleness before each.
    pub fn idle_us(self) -> Option<u64> {
        match self {
            Self::RoundTrip { idle_us } => Some(idle_us),
            Self::Call => Some(0),
            _ => None,
        }
    }
}

/// Who one thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Sender(usize),
    Receiver(usize),
    /// Of a round trip: the one that takes the time, and the other.
    Ping,
    Echo,
}

#[derive(Clone, Debug)]
pub struct Spec {
    pub peer: String,
    pub kind: Kind,
    pub size: usize,
    pub senders: usize,
    pub receivers: usize,
    pub capacity: usize,
    /// Tokio's multi-thread runtime with a worker per core and no pinning, instead of a pinned current-thread runtime.
    pub multi: bool,
    pub millis: u64,
    /// So many messages instead of so much time, if not 0.
    pub messages: u64,
    /// System calls are counted, which takes time that the figures must not have.
    pub counted: bool,
    /// A directory of this measurement alone.
    pub place: PathBuf,
}

impl Spec {
    pub fn roles(&self) -> Vec<Role> {
        match self.kind {
            Kind::Throughput if self.peer == "memory" => vec![Role::Sender(0)],
            Kind::Throughput | Kind::Broadcast | Kind::Publish | Kind::Read { .. } | Kind::Write => {
                (0..self.senders).map(Role::Sender).chain((0..self.receivers).map(Role::Receiver)).collect()
            }
            Kind::RoundTrip { .. } | Kind::Call => vec![Role::Ping, Role::Echo],
            Kind::Idle { .. } => vec![Role::Receiver(0)],
        }
    }

    /// Whether messages travel as slices, many in one block.
    pub fn in_slices(&self) -> bool {
        ["waterway-slices", "waterway-parts", SLICES_64K].contains(&self.peer.as_str())
    }

    /// Messages that are sent at once where that can be done.
    pub fn batch(&self) -> u64 {
        if self.peer == SLICES_64K { (64 << 10) / self.size as u64 } else { BATCH }
    }

    /// Whether several receive, and each message comes to one of them.
    pub fn shared_out(&self) -> bool {
        self.kind == Kind::Throughput && self.receivers > 1
    }

    /// Messages before anything is measured, of each sender.
    pub fn warm_up(&self) -> u64 {
        match self.kind {
            Kind::Throughput | Kind::Broadcast | Kind::Publish => {
                (32 << 20) / (self.size as u64).max(1024) / self.senders as u64
            }
            Kind::RoundTrip { idle_us: 0 } | Kind::Call => 2000,
            Kind::RoundTrip { idle_us } => (100_000 / idle_us).clamp(10, 500),
            Kind::Read { .. } => 50_000,
            Kind::Write => 5000,
            Kind::Idle { .. } => 0,
        }
    }

    pub fn to_args(&self) -> Vec<String> {
        let kind = match self.kind {
            Kind::Throughput => "throughput".to_owned(),
            Kind::RoundTrip { idle_us } => format!("round-trip:{idle_us}"),
            Kind::Call => "call".to_owned(),
            Kind::Broadcast => "broadcast".to_owned(),
            Kind::Publish => "publish".to_owned(),
            Kind::Read { written } => format!("read:{written}"),
            Kind::Write => "write".to_owned(),
            Kind::Idle { receivers } => format!("idle:{receivers}"),
        };
        vec![
            self.peer.clone(),
            kind,
            self.size.to_string(),
            self.senders.to_string(),
            self.receivers.to_string(),
            self.capacity.to_string(),
            self.multi.to_string(),
            self.millis.to_string(),
            self.messages.to_string(),
            self.counted.to_string(),
            self.place.display().to_string(),
        ]
    }

    /// `None` if that is none.
    pub fn from_args(mut args: impl Iterator<Item = String>) -> Option<Self> {
        let peer = args.next()?;
        let kind = args.next()?;
        let kind = match kind.split_once(':').unwrap_or((&kind, "")) {
            ("throughput", _) => Kind::Throughput,
            ("round-trip", idle) => Kind::RoundTrip { idle_us: idle.parse().ok()? },
            ("call", _) => Kind::Call,
            ("broadcast", _) => Kind::Broadcast,
            ("publish", _) => Kind::Publish,
            ("read", written) => Kind::Read { written: written.parse().ok()? },
            ("write", _) => Kind::Write,
            ("idle", receivers) => Kind::Idle { receivers: receivers.parse().ok()? },
            _ => return None,
        };
        Some(Self {
            peer,
            kind,
            size: args.next()?.parse().ok()?,
            senders: args.next()?.parse().ok()?,
            receivers: args.next()?.parse().ok()?,
            capacity: args.next()?.parse().ok()?,
            multi: args.next()?.parse().ok()?,
            millis: args.next()?.parse().ok()?,
            messages: args.next()?.parse().ok()?,
            counted: args.next()?.parse().ok()?,
            place: args.next()?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_told_what_the_parent_means() {
        let kinds = [
            Kind::Throughput,
            Kind::RoundTrip { idle_us: 100 },
            Kind::Call,
            Kind::Broadcast,
            Kind::Publish,
            Kind::Read { written: true },
            Kind::Read { written: false },
            Kind::Write,
            Kind::Idle { receivers: 7 },
        ];
        for kind in kinds {
            let spec = Spec {
                peer: "waterway".to_owned(),
                kind,
                size: 64,
                senders: 1,
                receivers: 2,
                capacity: 3,
                multi: true,
                millis: 4,
                messages: 5,
                counted: true,
                place: "/dev/shm/here".into(),
            };
            let told = Spec::from_args(spec.to_args().into_iter()).expect("it was written by us");
            assert_eq!(format!("{told:?}"), format!("{spec:?}"));
        }
    }
}
