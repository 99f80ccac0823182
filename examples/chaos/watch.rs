//! Watches: producers send, and all look.
//!
//! A value is made of the one before it, and shows whether it is whole. Nobody sees one that is torn, or older than what it has seen,
//! or than what it has sent. When the others have gone, killed or not, the last one stands there.

use std::{cell::Cell, rc::Rc, time::Duration};

use waterway::{channel::SendErrorKind, watch};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    Result,
    patterns::{Court, LastWord, Stage},
    stamp::Random,
};

const WORDS: usize = 500;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Value {
    version: u64,
    by: u64,
    words: [u64; WORDS],
}

impl Value {
    fn new(version: u64, by: u64) -> Self {
        let mut random = Random::new(version << 24 ^ by);
        Self { version, by, words: [(); WORDS].map(|()| random.next()) }
    }

    /// Whether it is whole, and no older than another one.
    fn check(&self, least: u64) -> Result<()> {
        if self.words != Self::new(self.version, self.by).words {
            return Err(format!("version {} by {} is torn", self.version, self.by).into());
        }
        if self.version < least {
            return Err(format!("version {} came after {least}", self.version).into());
        }
        Ok(())
    }
}

fn open(segment: &waterway::Segment) -> Result<(watch::Sender<Value>, watch::Receiver<Value>)> {
    Ok(segment.watch::<Value>("watch").initial(Value::new(0, 0)).open()?)
}

pub(crate) async fn play(stage: Stage) -> Result<()> {
    let (sender, receiver) = open(&stage.segment)?;
    let mut random = Random::new(stage.seed ^ u64::from(stage.id) << 8 ^ 300);
    let looking = look(receiver, |_| {});
    if !stage.is_producer {
        // A sender that never sends would see older and older values.
        drop(sender);
        return looking.await;
    }
    let sending = async {
        loop {
            let mut sent = 0;
            let done = sender.send_modify(|value| {
                sent = value.version + 1;
                *value = Value::new(sent, stage.id.into());
            });
            match done {
                Ok(()) => sender.borrow().check(sent)?,
                // Others have all memory.
                Err(error) if error.kind() == SendErrorKind::OutOfMemory => {}
                Err(error) => return Err(error.to_string().into()),
            }
            tokio::time::sleep(Duration::from_micros(random.below(3000) as u64)).await;
        }
    };
    futures::try_join!(looking, sending).map(|((), ())| ())
}

/// Looks at every change that it does not miss.
async fn look(mut receiver: watch::Receiver<Value>, mut seen: impl FnMut(u64)) -> Result<()> {
    let mut least = 0;
    while receiver.changed().await.is_ok() {
        let version = {
            let value = receiver.borrow_and_update();
            value.check(least)?;
            value.version
        };
        // Later looks may see the same one.
        receiver.borrow().check(version)?;
        seen(version);
        least = version + 1;
    }
    Ok(())
}

pub(crate) async fn judge(court: Court) -> Result<LastWord> {
    let (sender, receiver) = open(&court.segment)?;
    let last = Rc::new(Cell::new(0));
    let looking = look(receiver.clone(), |version| {
        last.set(version);
        court.went_well();
    });
    let over = async {
        while !court.is_over() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        done = looking => return Err(done.err().unwrap_or_else(|| "it has ended".into())),
        () = over => {}
    }
    let last = last.get();
    Ok(LastWord::new(move || receiver.borrow().check(last).is_ok() && sender.sender_count() == 1, ()))
}
