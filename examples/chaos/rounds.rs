//! Messages that go round, and channels whose ends all come and go.
//!
//! *Rounds*: two channels of messages that nobody has for himself. Every process takes from the one and forwards to the other, and back;
//! the survivor takes one now and then, looks at every byte, and ends its way. Nobody waits with a message in hands, so a process
//! that is killed has one at most. What has come to its end is never seen again, and at the end no more are missing than processes were
//! killed.
//!
//! *Ponds*: channels of slices that the survivor does not keep open. Every process opens an end, or both, sends a few, polls and drops,
//! takes, forwards to the next pond, closes, and goes: the last receiver leaves beside senders, and the place of a channel in the
//! directory is another one's next. What is received is whole; and at the end nothing of it is left.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    rc::Rc,
    task::{Context, Waker},
    time::Duration,
};

use waterway::{ChannelOptions, Receiver, Segment, Sender};

use crate::{
    Result,
    patterns::{Court, LastWord, Stage},
    stamp::{Random, Stamp},
};

const LANE: usize = 500;
const ROUNDS: [&str; 2] = ["round-there", "round-back"];
/// Messages on their way. There is always room for all of them.
const ON_THEIR_WAY: u64 = 12;
const POND: u64 = 501;
const PONDS: usize = 4;
/// The process that survives.
const SURVIVOR: u32 = u32::MAX;

fn round(segment: &Segment, which: usize) -> ChannelOptions<[u8]> {
    segment.bytes(ROUNDS[which]).capacity(1024)
}

fn pond(segment: &Segment, which: usize) -> ChannelOptions<[u64]> {
    segment.channel::<[u64]>(&format!("pond-{}", which % PONDS)).capacity([4, 1, 16, 2][which % PONDS])
}

pub(crate) async fn play(stage: Stage) -> Result<()> {
    let rounds = [
        (round(&stage.segment, 0).receiver()?, round(&stage.segment, 1).sender()?),
        (round(&stage.segment, 1).receiver()?, round(&stage.segment, 0).sender()?),
    ];
    let [there, back] = &rounds;
    futures::try_join!(pass_on(there), pass_on(back), wade(&stage)).map(drop)
}

async fn pass_on((from, to): &(Receiver<[u8]>, Sender<[u8]>)) -> Result<()> {
    while let Some(message) = from.recv().await {
        Stamp::verify(&message, LANE)?;
        message.forward(to).map_err(|error| error.to_string())?;
        tokio::task::yield_now().await;
    }
    Err("the rounds have ended, and the survivor is there".into())
}

/// What a message of a pond is made of.
fn drops(first: u64, count: usize) -> Vec<u64> {
    let mut random = Random::new(first);
    std::iter::once(first).chain((1..count).map(|_| random.next() ^ POND)).collect()
}

fn verify(found: &[u64]) -> Result<()> {
    match found.first() {
        Some(first) if drops(*first, found.len()) == found => Ok(()),
        _ => Err(format!("a pond has {found:?}").into()),
    }
}

async fn wade(stage: &Stage) -> Result<()> {
    let mut random = Random::new(stage.seed ^ u64::from(stage.id) << 8 ^ POND);
    loop {
        let which = random.below(PONDS);
        let deed = random.below(8);
        let sender = if deed < 6 { Some(pond(&stage.segment, which).sender()?) } else { None };
        let receiver = if deed > 2 { Some(pond(&stage.segment, which).receiver()?) } else { None };
        for _ in 0..random.below(24) {
            if let Some(sender) = &sender {
                let _ = sender.try_send(drops(random.next(), 1 + random.below(200)));
            }
            let Some(receiver) = &receiver else { continue };
            match random.below(4) {
                // Its place among those who wait is dropped with it.
                0 => drop(std::pin::pin!(receiver.recv()).as_mut().poll(&mut Context::from_waker(Waker::noop()))),
                1 => {
                    let Ok(message) = receiver.try_recv() else { continue };
                    verify(&message)?;
                    let next = pond(&stage.segment, which + 1).sender()?;
                    drop(message.forward(&next));
                }
                _ => {
                    if let Ok(message) = receiver.try_recv() {
                        verify(&message)?;
                    }
                }
            }
        }
        match (receiver, sender) {
            (Some(receiver), sender) if deed == 5 => {
                receiver.close();
                while let Ok(message) = receiver.try_recv() {
                    verify(&message)?;
                }
                drop(sender);
            }
            // Polled, and gone.
            (Some(receiver), sender) if deed == 4 => {
                let polled = receiver.poll_recv(&mut Context::from_waker(Waker::noop()));
                drop((sender, receiver, polled));
            }
            ends => drop(ends),
        }
        tokio::time::sleep(Duration::from_micros(random.below(4000) as u64)).await;
    }
}

/// What the survivor knows of the rounds.
#[derive(Default)]
struct Ways {
    begun: Cell<u64>,
    ended: RefCell<HashSet<u64>>,
}

impl Ways {
    fn begin(&self, to: &Sender<[u8]>) -> Result<()> {
        let number = self.begun.get();
        let message = Stamp { sender: SURVIVOR, lane: LANE as u32, number, len: 0 };
        to.try_send(message.message((number % 3 * 700) as usize)).map_err(|error| error.to_string())?;
        self.begun.set(number + 1);
        Ok(())
    }

    fn end(&self, message: &[u8]) -> Result<()> {
        let stamp = Stamp::verify(message, LANE)?;
        match self.ended.borrow_mut().insert(stamp.number) && stamp.number < self.begun.get() {
            true => Ok(()),
            false => Err(format!("{stamp:?} has come to its end before").into()),
        }
    }

    fn missing(&self) -> u64 {
        self.begun.get() - self.ended.borrow().len() as u64
    }
}

pub(crate) async fn judge(court: Court) -> Result<LastWord> {
    let (there, at_there) = round(&court.segment, 0).open()?;
    let (back, at_back) = round(&court.segment, 1).open()?;
    let ways = Rc::new(Ways::default());
    let (mut lost, mut in_vain) = (0, 0);
    while !court.is_over() {
        // As many as are lost are begun anew.
        while ways.missing().saturating_sub(lost) < ON_THEIR_WAY {
            ways.begin(&there)?;
        }
        match at_there.try_recv().or_else(|_| at_back.try_recv()) {
            Ok(message) => {
                ways.end(&message)?;
                court.went_well();
                in_vain = 0;
            }
            Err(_) => in_vain += 1,
        }
        // Nobody has them for that long, unless it is stopped: they are gone with the dead.
        if in_vain > 300 {
            lost = ways.missing().min(court.kills() as u64);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let segment = court.segment.clone();
    let holds = move || {
        for receiver in [&at_there, &at_back] {
            while let Ok(message) = receiver.try_recv() {
                ways.end(&message).unwrap_or_else(|wrong| court.fail(wrong));
            }
        }
        // What was sent before anybody came, or came again, keeps its channel.
        for which in 0..PONDS {
            let Ok(receiver) = pond(&segment, which).receiver() else { return false };
            while let Ok(message) = receiver.try_recv() {
                verify(&message).unwrap_or_else(|wrong| court.fail(wrong));
            }
        }
        ways.missing() <= court.kills() as u64
    };
    Ok(LastWord::new(holds, (there, back)))
}
