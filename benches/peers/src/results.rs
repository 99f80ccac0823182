//! What was seen, over all runs: medians, and ratios of what ran in the same run.

use crate::{cases::Case, peers::Peer, run::Seen, spec::Kind};

/// One peer in one case, in one run.
#[derive(Clone, Copy)]
pub struct Run {
    /// Nanoseconds per message, or of the median round trip.
    pub nanos: f64,
    pub p99: f64,
    /// Sleeps per message, or round trip.
    pub sleeps: f64,
    /// Nanoseconds of processor time per message, or round trip, of all sides.
    pub cpu: f64,
    /// Nanoseconds per write, where the latest value is written while it is read.
    pub write: f64,
}

/// One peer in one case.
pub struct Figure {
    pub case: usize,
    pub peer: &'static Peer,
    /// `None` where it failed.
    pub runs: Vec<Option<Run>>,
    pub failures: Vec<String>,
    /// Round trips of all runs, sorted when all are there.
    pub samples: Vec<u32>,
    /// Of a case in which nothing happens: sleeps and seconds of processor time.
    pub idle: Option<(u64, f64)>,
    /// System calls per message, or round trip, of all sides, from a run of its own.
    pub calls: Option<f64>,
}

impl Figure {
    pub fn new(case: usize, peer: &'static Peer) -> Self {
        Self { case, peer, runs: Vec::new(), failures: Vec::new(), samples: Vec::new(), idle: None, calls: None }
    }

    pub fn add(&mut self, case: &Case, seen: Result<Seen, String>) {
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) => {
                self.failures.push(error);
                return self.runs.push(None);
            }
        };
        let messages = seen.messages.max(1) as f64;
        let (nanos, p99) = match case.kind {
            Kind::RoundTrip { .. } | Kind::Call => (seen.percentile(0.5), seen.percentile(0.99)),
            _ => (seen.seconds * 1e9 / messages, 0.0),
        };
        if let Kind::Idle { .. } = case.kind {
            self.idle = Some((seen.all_sleeps, seen.cpu_seconds));
        }
        let (sleeps, cpu) = (seen.sleeps, seen.cpu_seconds * 1e9 / messages);
        let write = seen.write_nanos.unwrap_or(f64::NAN);
        self.runs.push(Some(Run { nanos, p99, sleeps, cpu, write }));
        self.samples.extend(seen.samples);
    }

    /// What a run has shown in which system calls were counted.
    pub fn add_counted(&mut self, seen: Result<Seen, String>) {
        match seen {
            Ok(seen) => self.calls = Some(seen.calls as f64 / seen.messages.max(1) as f64),
            Err(error) => self.failures.push(format!("{error} (while system calls were counted)")),
        }
    }

    pub fn median(&self, of: fn(&Run) -> f64) -> Option<f64> {
        median(self.runs.iter().flatten().map(of))
    }

    /// The least and the most of what runs gave.
    pub fn range(&self, of: fn(&Run) -> f64) -> (f64, f64) {
        let of = || self.runs.iter().flatten().map(of);
        (of().fold(f64::MAX, f64::min), of().fold(0.0, f64::max))
    }

    /// Over all runs, if there are enough round trips to speak of one in a thousand.
    pub fn p999(&self) -> Option<f64> {
        (self.samples.len() >= 2000).then(|| f64::from(self.samples[self.samples.len() * 999 / 1000]))
    }
}

/// Everything.
pub struct Results {
    pub cases: Vec<Case>,
    pub figures: Vec<Figure>,
}

impl Results {
    pub fn case(&self, name: &str) -> Option<usize> {
        self.cases.iter().position(|case| case.name == name)
    }

    pub fn of(&self, case: usize) -> impl Iterator<Item = &Figure> {
        self.figures.iter().filter(move |figure| figure.case == case)
    }

    pub fn figure(&self, case: &str, peer: &str) -> Option<&Figure> {
        let case = self.case(case)?;
        self.of(case).find(|figure| figure.peer.name == peer)
    }

    /// How many times longer the second takes than the first: the median over runs.
    pub fn ratio(&self, first: (&str, &str), second: (&str, &str), of: fn(&Run) -> f64) -> Option<f64> {
        times(self.figure(first.0, first.1)?, self.figure(second.0, second.1)?, of)
    }
}

/// How many times longer the second takes than the first: the median over runs.
pub fn times(first: &Figure, second: &Figure, of: fn(&Run) -> f64) -> Option<f64> {
    let pairs = first.runs.iter().zip(&second.runs);
    median(pairs.filter_map(|(first, second)| Some(of(second.as_ref()?) / of(first.as_ref()?))))
}

pub fn median(of: impl Iterator<Item = f64>) -> Option<f64> {
    let mut all: Vec<_> = of.filter(|value| value.is_finite()).collect();
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    match all.len() {
        0 => None,
        even if even % 2 == 0 => Some((all[middle - 1] + all[middle]) / 2.0),
        _ => Some(all[middle]),
    }
}
