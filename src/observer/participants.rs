//! Who is in a segment.

use std::{collections::HashMap, fs, os::unix::fs::MetadataExt};

use crate::{
    alloc::word::State,
    observer::{Observer, error::ObserveError},
    region::{
        layout::{LIVE, LaneLine, ParticipantSlot, SECTORS},
        mapped::byte_of,
    },
    sys::{file, lock, sync::Ordering},
};

/// A process in a segment, told by [`Observer::participants`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParticipantView {
    /// Its place in the segment's table.
    pub slot: u16,
    /// Its process number, in its own namespace of processes.
    pub pid: u32,
    /// Whether it lives. What does not has died, and nobody has buried it yet.
    pub alive: bool,
    /// How it was started; `None` if no process of that number that this one may look at has the segment's file open: it is
    /// dead, another user's, or in another namespace of processes.
    pub command: Option<String>,
    /// Whether it is stopped, as by SIGSTOP or a debugger; known only if `command` is.
    pub stopped: bool,
    /// Lanes that it has: one of its own, and one for each thread that works in the segment.
    pub lanes: usize,
    /// Blocks that it has: messages that it has received, permits, blocks of its own; not what is on its way.
    pub blocks: usize,
    /// Bytes of them.
    pub bytes: usize,
}

impl Observer {
    /// Who is in the segment: those who live, and those who have died and are not buried. Empty where that cannot be read. In time
    /// proportional to the segment's size.
    pub fn participants(&self) -> Vec<ParticipantView> {
        self.try_participants().unwrap_or_default()
    }

    /// The same, or why it cannot be read.
    ///
    /// # Errors
    ///
    /// Any [`ObserveError`] of reading.
    pub fn try_participants(&self) -> Result<Vec<ParticipantView>, ObserveError> {
        let (params, layout) = (&self.header.params, &self.header.layout);
        let slots = self.table::<ParticipantSlot>(layout.participants_at, params.participants as usize)?;
        let is_there = |slot: &&ParticipantSlot| slot.state.load(Ordering::Relaxed) & LIVE != 0;
        let mut views: Vec<ParticipantView> = (0..params.participants as u16)
            .zip(slots.iter())
            .filter(|(_, slot)| is_there(slot))
            .map(|(number, slot)| ParticipantView {
                slot: number,
                pid: slot.pid.load(Ordering::Relaxed) as u32,
                // A question to the kernel, which takes no lock.
                alive: lock::is_locked_by_other(self.source.file(), byte_of(number)),
                ..ParticipantView::default()
            })
            .collect();
        let lanes = self.table::<LaneLine>(layout.lanes_at, params.lanes as usize)?;
        // Lanes below the number of participants are their own.
        let owner_of = |lane: usize| match lane.checked_sub(params.participants as usize) {
            None => Some(lane as u64),
            Some(_) => lanes.get(lane)?.owner.load(Ordering::Relaxed).checked_sub(1),
        };
        let mut holdings: HashMap<u64, (usize, usize, usize)> = HashMap::new();
        for owner in (0..lanes.len()).filter_map(owner_of) {
            holdings.entry(owner).or_default().0 += 1;
        }
        let words = self.words()?;
        for sector in 0..SECTORS {
            words.each(sector, |_, found| {
                let is_had = matches!(
                    found.word.state(),
                    State::Claimed | State::Allocated | State::Received | State::Shared | State::Loose
                );
                if let Some(owner) = owner_of(usize::from(found.word.owner())).filter(|_| is_had) {
                    let (_, blocks, bytes) = holdings.entry(owner).or_default();
                    (*blocks, *bytes) = (*blocks + 1, *bytes + found.bytes as usize);
                }
            })?;
        }
        for view in &mut views {
            (view.lanes, view.blocks, view.bytes) = holdings.get(&u64::from(view.slot)).copied().unwrap_or_default();
            if view.alive && self.has_file_open(view.pid) {
                view.command = command(view.pid);
                view.stopped = is_stopped(view.pid);
            }
        }
        Ok(views)
    }

    /// Whether a process has the segment's file open, and says so to us: then it is the participant.
    fn has_file_open(&self, pid: u32) -> bool {
        let Ok(ours) = file::facts_of(self.source.file()) else { return false };
        let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        open.flatten().any(|entry| fs::metadata(entry.path()).is_ok_and(|it| (it.dev(), it.ino()) == ours.identity))
    }
}

/// How a process was started.
fn command(pid: u32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ");
    (!line.is_empty()).then_some(line)
}

fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state stands behind the name, which is in brackets and may have some in it.
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['T', 't']))
}
