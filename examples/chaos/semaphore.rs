//! Semaphores: one of one permit, which is a mutex, and one of several.
//!
//! Whoever has the mutex writes its name into a file, and finds it there when it lets go. Whoever has permits of the other says
//! so in another file, and the survivor, when it has all of them, finds nobody there who is not dead: it knows who is, as it has
//! killed and reaped them. That it gets all of them, again and again, shows that those of the dead come back.

use std::{fs::File, os::unix::fs::FileExt, path::Path, time::Duration};

use waterway::{Segment, semaphore::Semaphore};

use crate::{
    BOUND, Result,
    patterns::{Court, LastWord, Stage},
    stamp::Random,
};

const PERMITS: usize = 4;

fn open(segment: &Segment) -> Result<(Semaphore, Semaphore)> {
    let mutex = segment.semaphore("mutex").permits(1).open()?;
    Ok((mutex, segment.semaphore("permits").permits(PERMITS).open()?))
}

fn file(place: &Path, name: &str) -> Result<File> {
    let path = place.join(format!("semaphore-{name}"));
    Ok(File::options().read(true).write(true).create(true).truncate(false).open(path)?)
}

fn write(file: &File, at: u32, word: u32) -> Result<()> {
    Ok(file.write_all_at(&word.to_le_bytes(), 4 * u64::from(at))?)
}

/// What stands there; 0 behind the end.
fn read(file: &File, at: u32) -> Result<u32> {
    let mut word = [0; 4];
    let read = file.read_at(&mut word, 4 * u64::from(at))?;
    Ok(if read == word.len() { u32::from_le_bytes(word) } else { 0 })
}

/// Says that it is inside, until it is dropped.
struct Inside<'a>(&'a File, u32);

impl<'a> Inside<'a> {
    fn new(file: &'a File, id: u32, permits: u32) -> Result<Self> {
        write(file, id, permits)?;
        Ok(Self(file, id))
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let _ = write(self.0, self.1, 0);
    }
}

pub(crate) async fn play(stage: Stage) -> Result<()> {
    let (mutex, permits) = open(&stage.segment)?;
    let (owner, inside) = (file(&stage.place, "owner")?, file(&stage.place, "inside")?);
    let mut random = Random::new(stage.seed ^ u64::from(stage.id) << 8 ^ 200);
    loop {
        let work = Duration::from_micros(random.below(800) as u64);
        match random.below(4) {
            0 => {
                let _permit = mutex.acquire().await?;
                exclude(&owner, stage.id + 1, work).await?;
            }
            // Sometimes it gives up before it has got them.
            1 => {
                let wanted = permits.acquire_many(1 + random.below(PERMITS) as u32);
                if let Ok(permit) = tokio::time::timeout(work, wanted).await {
                    drop(permit?);
                }
            }
            some => {
                let permit = permits.acquire_many(some as u32).await?;
                let _inside = Inside::new(&inside, stage.id, permit.num_permits() as u32)?;
                tokio::time::sleep(work).await;
            }
        }
        tokio::time::sleep(Duration::from_micros(random.below(3000) as u64)).await;
    }
}

/// Nobody else has the mutex.
async fn exclude(owner: &File, name: u32, time: Duration) -> Result<()> {
    write(owner, 0, name)?;
    tokio::time::sleep(time).await;
    match read(owner, 0)? {
        found if found == name => Ok(()),
        found => Err(format!("{found} has the mutex of {name}").into()),
    }
}

pub(crate) async fn judge(court: Court) -> Result<LastWord> {
    let (mutex, permits) = open(&court.segment)?;
    let (owner, inside) = (file(&court.place, "owner")?, file(&court.place, "inside")?);
    while !court.is_over() {
        let all = tokio::time::timeout(BOUND, permits.acquire_many(PERMITS as u32)).await;
        let all = all.map_err(|_| format!("permits are lost: {} are free", permits.available_permits()))??;
        for id in court.living() {
            let held = read(&inside, id)?;
            if held != 0 {
                court.fail(format!("{id} has {held} permits, and we have all {PERMITS}"));
            }
        }
        drop(all);
        let one = tokio::time::timeout(BOUND, mutex.acquire()).await.map_err(|_| "the mutex is lost")??;
        exclude(&owner, u32::MAX, Duration::from_micros(300)).await?;
        drop(one);
        court.went_well();
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let kept = (mutex.clone(), permits.clone());
    Ok(LastWord::new(move || (mutex.available_permits(), permits.available_permits()) == (1, PERMITS), kept))
}
