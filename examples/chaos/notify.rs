//! Notifications: what ends one wait, and what ends all.
//!
//! Every process waits for both, and tells the survivor that it does, and when it was notified. All that were waiting when the
//! survivor notified all hear of it, except those that were killed. One hears of each notification of one, unless it was killed; the
//! survivor notifies again then. Nobody hears of what was not said.

use std::{cell::RefCell, collections::HashMap, rc::Rc, time::Duration};

use waterway::{Receiver, Sender};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    Result,
    patterns::{Court, LastWord, Stage},
    survivor::wait_until,
};

/// What a process says: that it waits for all, that it was notified with all, or alone.
const WAITS: u32 = 1;
const HEARD: u32 = 2;
const ALONE: u32 = 3;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Word {
    id: u32,
    what: u32,
    /// Of this process's waits.
    round: u64,
}

pub(crate) async fn play(stage: Stage) -> Result<()> {
    let words = stage.segment.channel::<Word>("notify-words").sender()?;
    let say = async |what, round| -> Result<()> {
        words.send(Word { id: stage.id, what, round }).await.map_err(|error| error.to_string().into())
    };
    let (all, one) = (stage.segment.notify("all")?, stage.segment.notify("one")?);
    let with_all = async {
        for round in 1.. {
            // It counts from here on.
            let notified = all.notified();
            say(WAITS, round).await?;
            notified.await;
            say(HEARD, round).await?;
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    };
    let alone = async {
        for round in 1.. {
            one.notified().await;
            say(ALONE, round).await?;
        }
        Ok(())
    };
    futures::try_join!(with_all, alone).map(drop)
}

/// What the survivor has heard.
#[derive(Default)]
struct Heard {
    waits: HashMap<u32, u64>,
    heard: HashMap<u32, u64>,
    /// How often all had been notified when the process first spoke.
    first: HashMap<u32, u64>,
    alone: u64,
    all_said: u64,
    one_said: u64,
}

async fn listen(court: Court, words: Receiver<Word>, heard: Rc<RefCell<Heard>>) {
    while let Some(word) = words.recv().await {
        let heard = &mut *heard.borrow_mut();
        let Word { id, what, round } = *word;
        match what {
            WAITS => drop(heard.waits.insert(id, round)),
            HEARD => drop(heard.heard.insert(id, round)),
            _ => heard.alone += 1,
        }
        let said = heard.all_said;
        // One may have been said between its first wait and our hearing of that.
        let since = said + 1 - *heard.first.entry(id).or_insert(said);
        if what == HEARD && round > since || heard.alone > heard.one_said {
            court.fail(format!("{word:?} of nothing: {since}, {} and {}", heard.alone, heard.one_said));
        }
    }
}

pub(crate) async fn judge(court: Court) -> Result<LastWord> {
    let (words_open, words): (Sender<Word>, _) = court.segment.channel("notify-words").open()?;
    let (all, one) = (court.segment.notify("all")?, court.segment.notify("one")?);
    let heard = Rc::new(RefCell::new(Heard::default()));
    tokio::task::spawn_local(listen(court.clone(), words, Rc::clone(&heard)));
    while !court.is_over() {
        // All that was said is heard by now: of who waits for the first time no more than one notification is not.
        wait_until(|| words_open.is_empty()).await;
        let waiting: Vec<(u32, u64)> = heard.borrow().waits.iter().map(|(id, round)| (*id, *round)).collect();
        heard.borrow_mut().all_said += 1;
        all.notify_waiters();
        let is_deaf = |(id, round): &(u32, u64)| {
            court.is_living(*id) && heard.borrow().heard.get(id).is_none_or(|heard| heard < round)
        };
        wait_until(|| !waiting.iter().any(is_deaf)).await;
        for deaf in waiting.iter().filter(|waiting| is_deaf(waiting)) {
            court.fail(format!("{deaf:?} has not heard that all were notified"));
        }
        heard.borrow_mut().waits.retain(|id, _| court.is_living(*id));

        let (alone, mut kills) = (heard.borrow().alone, court.kills());
        let notify = || {
            heard.borrow_mut().one_said += 1;
            one.notify_one();
        };
        notify();
        wait_until(|| {
            // Whoever was killed may have taken it along.
            if std::mem::replace(&mut kills, court.kills()) != court.kills() {
                notify();
            }
            heard.borrow().alone > alone
        })
        .await;
        if heard.borrow().alone == alone {
            court.fail("nobody has heard that one was notified");
        }
        court.went_well();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(LastWord::new(|| true, (words_open, all, one)))
}
