//! What each thread does where the latest value counts, or where publishing alone is measured.

use std::{
    sync::atomic::{
        AtomicU32,
        Ordering::{Relaxed, SeqCst},
    },
    time::Duration,
};

use crate::{
    page,
    spec::Kind,
    stamp::{Seen, number},
    worker::{Play, Rx, Tx, Worker},
};

/// Writes new values, each over the one before.
pub trait Writer: Send + 'static {
    fn write(&mut self, number: u64);
}

/// Reads the latest value in full, and verifies it.
pub trait Reader: Send + 'static {
    fn read(&mut self) -> u64;
}

/// Values that a reader has seen: never an older one after a newer.
#[derive(Default)]
struct Values {
    latest: u64,
    changes: u64,
}

impl Values {
    #[inline]
    fn take(&mut self, number: u64) {
        assert!(number >= self.latest, "value {number} came after {}", self.latest);
        self.changes += u64::from(number != self.latest);
        self.latest = number;
    }
}

impl Worker {
    /// The first value is there already, with the number 0.
    pub fn write(self, mut writer: impl Writer) -> Play {
        Box::pin(async move {
            let mut number = 0;
            let mut write = || {
                number += 1;
                writer.write(number);
                number
            };
            self.barrier(0).await;
            match self.spec.kind {
                Kind::Write => {
                    let started = page::now();
                    for _ in 0..self.spec.warm_up() {
                        write();
                    }
                    self.decide(page::now() - started, 16, 1 << 32);
                    self.barrier(1).await;
                    self.barrier(2).await;
                    let values = self.page.messages.load(SeqCst);
                    self.measured(async { (values, (0..values).fold(0, |_, _| write())) }).await;
                }
                Kind::Read { written: true } => {
                    // As fast as it can, until the reader is done.
                    let mut until = |done: &AtomicU32| {
                        let mut values = 0;
                        loop {
                            let last = write();
                            values += 1;
                            if done.load(Relaxed) != 0 {
                                return (values, last);
                            }
                        }
                    };
                    until(&self.page.done[0]);
                    self.barrier(1).await;
                    self.barrier(2).await;
                    self.measured(async { until(&self.page.done[1]) }).await;
                }
                _ => {
                    self.barrier(1).await;
                    self.barrier(2).await;
                }
            }
            self.barrier(3).await;
        })
    }

    pub fn read(self, mut reader: impl Reader) -> Play {
        Box::pin(async move {
            let mut values = Values::default();
            let mut read = |times: u64| {
                for _ in 0..times {
                    values.take(reader.read());
                }
                (times, values.changes)
            };
            self.barrier(0).await;
            if self.spec.kind == Kind::Write {
                self.barrier(1).await;
                self.barrier(2).await;
            } else {
                let started = page::now();
                read(self.spec.warm_up());
                self.decide(page::now() - started, 16, 1 << 32);
                self.page.done[0].store(1, SeqCst);
                self.barrier(1).await;
                self.barrier(2).await;
                let times = self.page.messages.load(SeqCst);
                self.measured(async {
                    let seen = read(times);
                    self.page.done[1].store(1, SeqCst);
                    seen
                })
                .await;
            }
            self.barrier(3).await;
            // The writer's sum is the number of its last value.
            read(1);
            assert_eq!(values.latest, self.page.slots[0].sum.load(SeqCst), "the last value is the one that is read");
        })
    }

    /// Sends as much as there is room for, and lets it be received before it goes on; the time of the former counts.
    pub fn publish(self, mut tx: impl Tx) -> Play {
        Box::pin(async move {
            let mut round = 0;
            self.barrier(0).await;
            let spent = self.publish_all(&mut tx, self.rounds_of(self.spec.warm_up()), &mut round).await;
            self.decide(spent, 1, 1 << 32);
            let rounds = self.rounds_of(self.page.messages.load(SeqCst));
            self.page.messages.store(rounds * self.spec.capacity as u64, SeqCst);
            self.barrier(1).await;
            self.barrier(2).await;
            let mut spent = 0;
            self.measured(async {
                spent = self.publish_all(&mut tx, rounds, &mut round).await;
                (0, 0)
            })
            .await;
            self.page.slots[self.index()].busy.store(spent, SeqCst);
            self.barrier(3).await;
        })
    }

    fn rounds_of(&self, messages: u64) -> u64 {
        messages.div_ceil(self.spec.capacity as u64)
    }

    async fn publish_all(&self, tx: &mut impl Tx, rounds: u64, round: &mut u32) -> u64 {
        let (capacity, mut spent) = (self.spec.capacity as u64, 0);
        for sent in (0..rounds).map(|done| done * capacity) {
            let started = page::now();
            tx.send_many(number(self.index(), sent), capacity).await;
            tx.flush().await;
            spent += page::now() - started;
            *round += 1;
            let [published, taken, ..] = &self.page.done;
            published.store(*round, SeqCst);
            self.until(taken, *round * self.spec.receivers as u32);
        }
        spent
    }

    pub fn subscribe(self, mut rx: impl Rx) -> Play {
        Box::pin(async move {
            let mut round = 0;
            self.barrier(0).await;
            self.take_all(&mut rx, self.rounds_of(self.spec.warm_up()), &mut round).await;
            self.barrier(1).await;
            self.barrier(2).await;
            let rounds = self.rounds_of(self.page.messages.load(SeqCst));
            self.measured(self.take_all(&mut rx, rounds, &mut round)).await;
            self.barrier(3).await;
        })
    }

    async fn take_all(&self, rx: &mut impl Rx, rounds: u64, round: &mut u32) -> (u64, u64) {
        let mut seen = Seen::new(1, true);
        for done in 1..=rounds {
            *round += 1;
            let [published, taken, ..] = &self.page.done;
            self.until(published, *round);
            while seen.count < done * self.spec.capacity as u64 {
                rx.recv(&mut seen).await;
            }
            taken.fetch_add(1, SeqCst);
        }
        (seen.count, seen.sum)
    }

    /// Sleeps until the others are so far, so that nobody is disturbed.
    fn until(&self, counter: &AtomicU32, so_far: u32) {
        while counter.load(SeqCst) < so_far {
            self.page.check();
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_counted() {
        let mut values = Values::default();
        [0, 0, 3, 3, 4].into_iter().for_each(|number| values.take(number));
        assert_eq!((values.latest, values.changes), (4, 2));
    }

    #[test]
    #[should_panic(expected = "came after")]
    fn an_older_value_after_a_newer_one_is_seen() {
        let mut values = Values::default();
        [3, 2].into_iter().for_each(|number| values.take(number));
    }
}
