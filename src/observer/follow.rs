//! What comes into a channel, look after look.
//!
//! A [`Follower`] knows of each ring the first position that it has not told. At each look everything below the tail, which a ring's
//! copy tells, has been sent by the time its cell was copied. So a message there waits, and is told, or it has been taken, and is
//! counted: nothing is left open from one look to the next, and no message is told twice.

use crate::{
    observer::{Observer, Peeked, channels::Rings, error::ObserveError, peek::Candidate},
    ring::Ring,
};

/// Tells what comes into a channel or a broadcast, and takes nothing away: made by [`Observer::follow`].
#[derive(Clone, Debug)]
pub struct Follower<'a> {
    observer: &'a Observer,
    channel: String,
    /// The word that names the rings: another one, and it is another channel of that name.
    life: u64,
    /// The first position of each ring that was not told, the lowest priority first.
    next: Vec<u64>,
}

/// What a look of a [`Follower`] has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Followed {
    /// Messages that nobody has taken so far: those of the highest priority first, the oldest of those first.
    pub messages: Vec<Peeked>,
    /// How many more were sent since the look before: somebody has taken them already.
    pub missed: u64,
}

/// What messages are sent into.
enum Line<'a> {
    Ring(Ring),
    Log(&'a crate::ring::log::Log),
}

impl Line<'_> {
    /// The lowest priority first.
    fn all(rings: &Rings) -> Vec<Line<'_>> {
        match &rings.log {
            Some(log) => vec![Line::Log(log)],
            None => rings.levels().into_iter().map(Line::Ring).collect(),
        }
    }

    /// The first position at which nothing was sent.
    fn tail(&self) -> u64 {
        match self {
            Self::Ring(ring) => ring.counted().1,
            Self::Log(log) => log.tail(),
        }
    }

    /// Positions at which something may wait.
    fn cells(&self) -> u64 {
        match self {
            Self::Ring(ring) => ring.cells(),
            Self::Log(log) => log.cells() as u64,
        }
    }

    fn at(&self, rings: &Rings, position: u64) -> Option<Candidate> {
        match self {
            Self::Ring(ring) => Some(Candidate::waiting(rings, ring, ring.waiting_at(position)?, false)),
            Self::Log(log) => Some(Candidate::published(rings, log, log.open_at(position)?)),
        }
    }

    /// From where the last `most` that wait are, and how many those are.
    fn last(&self, rings: &Rings, most: usize) -> (u64, usize) {
        let tail = self.tail();
        let waits = |position: &u64| self.at(rings, *position).is_some();
        let waiting = (tail.saturating_sub(self.cells())..tail).rev().filter(waits).take(most);
        waiting.fold((tail, 0), |(_, many), position| (position, many + 1))
    }
}

impl Observer {
    /// Follows a channel or a broadcast: begins with the `last` messages that wait now, those that came back left out.
    ///
    /// ```
    /// # let directory = std::env::temp_dir().join(format!("waterway-doc-follow-{}", std::process::id()));
    /// # unsafe { std::env::set_var("WATERWAY_DIR", &directory) };
    /// # let market = waterway::Segment::open_or_create("market")?;
    /// # let (sender, receiver) = market.bytes("lines").open()?;
    /// let observer = waterway::Observer::open("market")?;
    /// let mut follower = observer.follow("lines", 0)?;
    /// sender.try_send("first")?;
    /// sender.try_send("second")?;
    /// receiver.try_recv()?;
    /// let look = follower.look()?;
    /// assert_eq!((look.messages[0].bytes.as_slice(), look.missed), (&b"second"[..], 1));
    /// assert!(follower.look()?.messages.is_empty());
    /// # drop((sender, receiver, market));
    /// # std::fs::remove_dir_all(directory).unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`try_peek`](Self::try_peek).
    pub fn follow(&self, channel: &str, last: usize) -> Result<Follower<'_>, ObserveError> {
        let words = self.words()?;
        let snapshot = self.with_messages(&words, channel)?;
        let rings = snapshot.rings()?;
        let mut left = last;
        let begin = |line: &Line<'_>| {
            let (from, many) = line.last(rings, left);
            left -= many;
            from
        };
        let next = Line::all(rings).iter().map(begin).collect();
        Ok(Follower { observer: self, channel: channel.to_owned(), life: snapshot.ring_word(), next })
    }
}

impl Follower<'_> {
    /// What was sent since the look before. If the channel has gone since then, and another one of that name has come, that one from its
    /// beginning on.
    ///
    /// # Errors
    ///
    /// As for [`Observer::try_peek`]. The next look tells what this one has not.
    pub fn look(&mut self) -> Result<Followed, ObserveError> {
        let words = self.observer.words()?;
        let snapshot = self.observer.with_messages(&words, &self.channel)?;
        let rings = snapshot.rings()?;
        // Anew: the segment may have grown for what stands in the rings.
        let words = self.observer.words()?;
        let lines = Line::all(rings);
        let mut next = self.next.clone();
        if snapshot.ring_word() != self.life {
            next = Vec::new();
        }
        next.resize(lines.len(), 0);
        let (mut found, mut left) = (Followed::default(), self.observer.source.taken()?);
        for (line, next) in lines.iter().zip(&mut next).rev() {
            let (tail, from) = (line.tail().max(*next), *next);
            let first = from.max(tail.saturating_sub(line.cells()));
            let mut told = 0;
            for candidate in (first..tail).filter_map(|position| line.at(rings, position)) {
                if let Some(peeked) = self.observer.look(&words, &snapshot, &candidate, left)? {
                    left = left.saturating_sub(peeked.bytes.len() as u64);
                    found.messages.push(peeked);
                    told += 1;
                }
            }
            found.missed = found.missed.saturating_add(tail - from - told);
            *next = tail;
        }
        (self.life, self.next) = (snapshot.ring_word(), next);
        Ok(found)
    }
}
