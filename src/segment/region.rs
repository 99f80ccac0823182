//! A region: the file of a segment, mapped, with a place among its participants.
//!
//! # Life and death of a file
//!
//! * **Creation.** A segment is built in a temporary file and renamed when it is complete, its creator already in it: so
//!   nobody ever sees a half-made one, nor one without a living participant.
//! * **Proof of life** is a lock on a byte of the file per participant ([`crate::sys::lock`]). Byte 0 is the gate; byte
//!   `slot + 1` the participant's. Whoever has the lock of a byte whose slot says LIVE has found a dead one, and may bury
//!   it.
//! * **The end.** Only who has the locks of *all* bytes, gate included, may take away the name of a segment: then nobody
//!   lives in it, and nobody can enter. A leaver gives up its own byte and then tries for all of them: the last one gets
//!   them. An opener tries, too: what it gets has been left behind by processes that were killed. All attempts are
//!   non-blocking. Who finds the gate locked meets somebody in the middle of this, for a few microseconds, and starts over.
//! * An opener that has got a place looks whether the file still has its name: if not, it starts over.

use std::{
    fs::File,
    io,
    mem::ManuallyDrop,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use uuid::Uuid;
use zerocopy::IntoBytes;

use crate::{
    segment::{
        checks::{check_directory, check_file, has_name, io_error, map_error, not_a_segment},
        config::Config,
        error::OpenError,
        lanes::{LaneId, LanePool},
        layout::{FLAG_PERSISTENT, ParticipantSlot, SECTORS, StaticHeader},
        name::Name,
    },
    sys::{
        file,
        fork::{self, Watched},
        held::Mutex,
        lock,
        map::Mapping,
        shared::SharedSlice,
        sync::Ordering,
    },
};

/// A participant's phase, in the lowest bits of its state; the rest counts lives.
const LIVE: u64 = 1;
const LIFE: u64 = 2;

/// The gate's byte; a participant's is its slot's number and one.
const GATE: u32 = 0;

fn byte_of(slot: u16) -> u32 {
    u32::from(slot) + 1
}

/// How often to start over when somebody else is in the way, and how long to wait in between.
const ATTEMPTS: u32 = 2000;
const PAUSE: Duration = Duration::from_millis(1);
/// A temporary file without a creator is left alone for so long: its creator may be about to lock it.
const GRACE: Duration = Duration::from_secs(10);
const TEMPORARY: &str = ".tmp-";

/// A mapped segment. See the module.
#[derive(Debug)]
pub(crate) struct Region {
    name: String,
    path: PathBuf,
    header: StaticHeader,
    slots: SharedSlice<ParticipantSlot>,
    me: u16,
    lanes: LanePool,
    /// Participants that this process is burying just now: locks of one description do not exclude one another.
    burying: Mutex<Vec<u16>>,
    /// The generation of forks in which the region was made.
    generation: u32,
    /// The slot was that of somebody who died in it: there is something to bury before anything else.
    inherited: bool,
    /// It was there before, and nobody but us is in it.
    found_empty: bool,
    /// `None` on the heap. In a forked child the descriptor is closed already, hence no automatic drop.
    file: Option<ManuallyDrop<File>>,
    watched: ManuallyDrop<Option<Watched>>,
    mapping: ManuallyDrop<Mapping>,
}

/// A participant, for people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Participant {
    pub(crate) slot: u16,
    pub(crate) pid: u32,
}

/// A segment in a directory, for people.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) uuid: [u8; 16],
    pub(crate) size: u64,
    pub(crate) participants: usize,
}

/// What writes the tables of a new segment, over zeros.
pub(crate) type Format = fn(&Mapping, &StaticHeader);

/// An attempt that did not lead anywhere.
enum Miss {
    /// There is none.
    Gone,
    /// Somebody is removing it.
    InTheWay,
    /// It will not do.
    Failed(OpenError),
}

impl From<OpenError> for Miss {
    fn from(error: OpenError) -> Self {
        Self::Failed(error)
    }
}

impl Region {
    /// Makes a segment of that name.
    pub(crate) fn create(name: &str, config: &Config, format: Format) -> Result<Self, OpenError> {
        let (name, directory) = (Name::new(name)?, config.directory());
        let path = directory.join(name.as_str());
        for _ in 0..ATTEMPTS {
            // One that was left behind is in nobody's use.
            match Self::enter(&name, &path) {
                Ok(region) => {
                    if region.inherited {
                        // Whoever died in the place that we got is not buried yet: that must be seen.
                        region.forget_name();
                    }
                    return Err(OpenError::AlreadyExists { path });
                }
                Err(Miss::InTheWay) => std::thread::sleep(PAUSE),
                // It is full, so it is there.
                Err(Miss::Failed(OpenError::TooManyParticipants { .. })) => {
                    return Err(OpenError::AlreadyExists { path });
                }
                Err(Miss::Failed(error)) => return Err(error),
                Err(Miss::Gone) => {
                    if let Some(region) = Self::build(&name, &directory, config, format)? {
                        return Ok(region);
                    }
                }
            }
        }
        Err(OpenError::Busy { path })
    }

    /// Opens the segment of that name.
    pub(crate) fn open(name: &str, config: &Config) -> Result<Self, OpenError> {
        let name = Name::new(name)?;
        let path = config.directory().join(name.as_str());
        for _ in 0..ATTEMPTS {
            match Self::enter(&name, &path) {
                Ok(region) => return Ok(region),
                Err(Miss::Gone) => return Err(OpenError::NotFound { path }),
                Err(Miss::Failed(error)) => return Err(error),
                Err(Miss::InTheWay) => std::thread::sleep(PAUSE),
            }
        }
        Err(OpenError::Busy { path })
    }

    /// Opens the segment of that name, or makes it.
    pub(crate) fn open_or_create(name: &str, config: &Config, format: Format) -> Result<Self, OpenError> {
        let (name, directory) = (Name::new(name)?, config.directory());
        let path = directory.join(name.as_str());
        for _ in 0..ATTEMPTS {
            match Self::enter(&name, &path) {
                Ok(region) => return Ok(region),
                Err(Miss::Failed(error)) => return Err(error),
                Err(Miss::InTheWay) => std::thread::sleep(PAUSE),
                Err(Miss::Gone) => {
                    if let Some(region) = Self::build(&name, &directory, config, format)? {
                        return Ok(region);
                    }
                }
            }
        }
        Err(OpenError::Busy { path })
    }

    /// Builds a segment and gives it its name; `None` if somebody else was faster.
    fn build(name: &Name, directory: &Path, config: &Config, format: Format) -> Result<Option<Self>, OpenError> {
        let header = config.header()?;
        prepare_directory(directory)?;
        clean(directory);
        // Not a promise, but it saves filling the file system to find out.
        if let Ok(free) = file::free_bytes(directory)
            && free < header.params.size
        {
            return Err(OpenError::NoRoom { path: directory.to_owned(), needed: header.params.size, free });
        }
        let path = directory.join(name.as_str());
        let temporary = directory.join(format!("{TEMPORARY}{}", Uuid::new_v4().simple()));
        let file = file::create_new(&temporary).map_err(io_error("could not create", &temporary))?;
        let built = (|| {
            // Says that somebody is at work here.
            lock::try_lock(&file, GATE, 1).map_err(io_error("could not lock", &temporary))?;
            let region = Self::found(name.as_str(), &path, file, header, format, directory)?;
            lock::unlock(region.file.as_deref().expect("it has a file"), GATE, 1);
            let published = file::publish(&temporary, &path).map_err(io_error("could not name", &path))?;
            Ok((region, published))
        })();
        match built {
            Ok((region, true)) => Ok(Some(region)),
            Ok((region, false)) => {
                region.forget_name();
                let _ = file::unlink(&temporary);
                Ok(None)
            }
            Err(error) => {
                let _ = file::unlink(&temporary);
                Err(error)
            }
        }
    }

    /// Makes an anonymous file a segment, sealed at its size.
    pub(crate) fn anonymous(config: &Config, format: Format) -> Result<Self, OpenError> {
        let path = Path::new("(anonymous)");
        let header = config.header()?;
        let file = file::anonymous().map_err(io_error("could not create", path))?;
        let region = Self::found("", path, file, header, format, Path::new("/dev/shm"))?;
        file::seal(region.file.as_deref().expect("it has a file")).map_err(io_error("could not seal", path))?;
        Ok(region)
    }

    /// Attaches to an anonymous segment.
    pub(crate) fn from_fd(fd: OwnedFd) -> Result<Self, OpenError> {
        let path = Path::new("(anonymous)");
        let file = file::reopen(&fd).map_err(io_error("could not reopen", path))?;
        match Self::attach("", path, file, false) {
            Ok(region) => Ok(region),
            Err(Miss::Failed(error)) => Err(error),
            Err(Miss::Gone | Miss::InTheWay) => Err(OpenError::Busy { path: path.to_owned() }),
        }
    }

    /// Makes a segment on the heap.
    pub(crate) fn in_process(config: &Config, format: Format) -> Result<Self, OpenError> {
        let header = Config { participants: 1, ..config.clone() }.header()?;
        let path = Path::new("(in process)");
        let mapping = Mapping::on_heap(header.layout.end as usize).map_err(io_error("could not allocate", path))?;
        format(&mapping, &header);
        let region = Self::new("", path, header, mapping, None, 0);
        region.announce();
        Ok(region)
    }

    /// Makes an empty file a segment, with us in it.
    fn found(
        name: &str,
        path: &Path,
        file: File,
        header: StaticHeader,
        format: Format,
        directory: &Path,
    ) -> Result<Self, OpenError> {
        use std::os::unix::fs::FileExt;
        let layout = &header.layout;
        if layout.end > file::largest() {
            // The kernel would not just refuse it, but send a signal that ends the process.
            let limit = "the limit of the size of files (ulimit -f)";
            return Err(OpenError::Limited { path: path.to_owned(), needed: layout.end, limit });
        }
        file::set_len(&file, layout.end).map_err(io_error("could not set the length of", path))?;
        let needed = header.params.size;
        for (from, bytes) in first_parts(&header) {
            file::allocate(&file, from, bytes).map_err(|source| match source.raw_os_error() {
                Some(libc::EDQUOT) => {
                    OpenError::Limited { path: path.to_owned(), needed, limit: "the user's quota of the file system" }
                }
                Some(libc::ENOSPC | libc::EFBIG) => {
                    // What it has got already counts as free.
                    let _ = file::set_len(&file, 0);
                    let free = file::free_bytes(directory).unwrap_or(0);
                    OpenError::NoRoom { path: directory.to_owned(), needed, free }
                }
                _ => io_error("could not allocate", path)(source),
            })?;
        }
        file.write_all_at(header.as_bytes(), 0).map_err(io_error("could not write", path))?;
        let mapping = Mapping::of_file(&file, layout.end as usize).map_err(map_error(path, layout.end))?;
        format(&mapping, &header);
        let locked = lock::try_lock(&file, byte_of(0), 1).map_err(io_error("could not lock", path))?;
        debug_assert!(locked, "nobody else knows the file");
        let region = Self::new(name, path, header, mapping, Some(file), 0);
        region.announce();
        Ok(region)
    }

    /// Opens a file and takes a place in it.
    fn enter(name: &Name, path: &Path) -> Result<Self, Miss> {
        if let Some(directory) = path.parent() {
            match file::facts_of_path(directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Miss::Gone),
                _ => check_directory(directory)?,
            }
        }
        let file = match file::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Miss::Gone),
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                return Err(not_a_segment(path, "it is a symbolic link").into());
            }
            Err(error) if error.raw_os_error() == Some(libc::EISDIR) => {
                return Err(not_a_segment(path, "it is a directory").into());
            }
            Err(error) => return Err(io_error("could not open", path)(error).into()),
        };
        Self::attach(name.as_str(), path, file, true)
    }

    /// Checks a file, and takes a place in it.
    fn attach(name: &str, path: &Path, file: File, named: bool) -> Result<Self, Miss> {
        let header = check_file(path, &file, named)?;
        let participants = header.params.participants;
        if named && header.params.flags & FLAG_PERSISTENT == 0 {
            let all = lock::try_lock(&file, GATE, participants + 1).map_err(io_error("could not lock", path))?;
            if all {
                // Nobody lives here: it was left behind. Its name is ours to take away, if it still has it.
                if has_name(path, &file) {
                    file::unlink(path).map_err(io_error("could not remove", path))?;
                }
                return Err(Miss::Gone);
            }
        }
        let mapping =
            Mapping::of_file(&file, header.layout.end as usize).map_err(map_error(path, header.layout.end))?;
        let mut region = Self::new(name, path, header, mapping, Some(file), 0);
        // A place that was left in order, or else one of a dead participant: we bury it first thing.
        for take_dead in [false, true] {
            for slot in 0..participants as u16 {
                let live = region.slots[usize::from(slot)].state.load(Ordering::SeqCst) & (LIFE - 1) == LIVE;
                if live != take_dead || !region.try_lock(slot).map_err(io_error("could not lock", path))? {
                    continue;
                }
                if named && !has_name(path, region.file.as_deref().expect("it has a file")) {
                    region.forget_name();
                    return Err(Miss::InTheWay);
                }
                let still = region.slots[usize::from(slot)].state.load(Ordering::SeqCst) & (LIFE - 1) == LIVE;
                if still != take_dead {
                    region.unlock(slot);
                    continue;
                }
                region.me = slot;
                region.inherited = take_dead;
                region.lanes.set_participant(slot);
                region.announce();
                region.found_empty = (0..participants as u16)
                    .all(|other| other == slot || !region.is_live(other) || !region.is_alive(other));
                return Ok(region);
            }
        }
        let in_the_way = lock::is_locked_by_other(region.file.as_deref().expect("it has a file"), GATE);
        region.forget_name();
        match in_the_way {
            true => Err(Miss::InTheWay),
            false => Err(OpenError::TooManyParticipants { limit: participants }.into()),
        }
    }

    fn new(name: &str, path: &Path, header: StaticHeader, mapping: Mapping, file: Option<File>, me: u16) -> Self {
        let layout = &header.layout;
        // SAFETY: tables of atomics, at offsets of a layout that was computed here; the mapping is dropped last.
        let (slots, lanes) = unsafe {
            (
                mapping.slice(layout.participants_at, header.params.participants as usize),
                mapping.slice(layout.lanes_at, header.params.lanes as usize),
            )
        };
        let watched = file.as_ref().map(|file| Watched::new(file.as_fd()));
        Self {
            name: name.to_owned(),
            path: path.to_owned(),
            header,
            slots,
            me,
            lanes: LanePool::new(lanes, header.params.participants as u16, me),
            burying: Mutex::default(),
            generation: fork::generation(),
            inherited: false,
            found_empty: false,
            file: file.map(ManuallyDrop::new),
            watched: ManuallyDrop::new(watched),
            mapping: ManuallyDrop::new(mapping),
        }
    }

    /// Says in the table that we live. A predecessor that died in the slot leaves LIVE there: nothing changes for others.
    fn announce(&self) {
        let slot = &self.slots[usize::from(self.me)];
        let lives = slot.state.load(Ordering::SeqCst) / LIFE + 1;
        slot.pid.store(std::process::id().into(), Ordering::SeqCst);
        slot.state.store(lives.wrapping_mul(LIFE) + LIVE, Ordering::SeqCst);
    }

    /// This region is not to leave as a participant does.
    fn forget_name(mut self) {
        self.path = PathBuf::new();
    }

    pub(crate) fn header(&self) -> &StaticHeader {
        &self.header
    }

    #[inline(always)]
    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Our slot.
    pub(crate) fn me(&self) -> u16 {
        self.me
    }

    /// Whether the segment was there before, and nobody was in it when we came.
    pub(crate) fn is_found_empty(&self) -> bool {
        self.found_empty
    }

    /// Whether somebody died in our slot and was not buried.
    pub(crate) fn is_inherited(&self) -> bool {
        self.inherited
    }

    pub(crate) fn lanes(&self) -> &LanePool {
        &self.lanes
    }

    /// The descriptor of the file, if there is one. A forked child has none: its number may be another file's by now.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_deref().filter(|_| self.is_my_process()).map(AsFd::as_fd)
    }

    /// Does to the mapping what this process wants done to it.
    pub(crate) fn prepare(self, config: &Config) -> Result<Self, OpenError> {
        if config.huge_pages {
            self.mapping.ask_for_huge_pages();
        }
        if config.populate {
            for (from, bytes) in first_parts(&self.header) {
                let populated = self.mapping.populate(from as usize, bytes as usize);
                populated.map_err(io_error("could not populate", &self.path))?;
            }
        }
        Ok(self)
    }

    /// Gives a sector the memory to grow from so many granules to so many; `false` if the file system has no more.
    pub(crate) fn provide(&self, sector: usize, from: u64, to: u64) -> bool {
        let Some(file) = self.file.as_deref() else { return true };
        growth(&self.header, sector, from, to).iter().all(|(at, bytes)| file::allocate(file, *at, *bytes).is_ok())
    }

    /// Bytes that the file system of the segment has free.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.file.as_deref().and_then(|file| file::free_bytes_of(file).ok()).unwrap_or(0)
    }

    /// Whether this is the process that made the region, and not one that was forked from it.
    #[inline(always)]
    pub(crate) fn is_my_process(&self) -> bool {
        self.generation == fork::generation()
    }

    fn try_lock(&self, slot: u16) -> io::Result<bool> {
        self.file.as_deref().map_or(Ok(true), |file| lock::try_lock(file, byte_of(slot), 1))
    }

    fn unlock(&self, slot: u16) {
        if let Some(file) = self.file.as_deref() {
            lock::unlock(file, byte_of(slot), 1);
        }
    }

    /// Whether a slot that is not ours is in use, by somebody alive.
    fn is_alive(&self, slot: u16) -> bool {
        self.file.as_deref().is_some_and(|file| lock::is_locked_by_other(file, byte_of(slot)))
    }

    fn is_live(&self, slot: u16) -> bool {
        self.slots[usize::from(slot)].state.load(Ordering::SeqCst) & (LIFE - 1) == LIVE
    }

    /// All slots; none in a forked child, which does not have the table.
    fn table(&self) -> impl Iterator<Item = u16> {
        let len = if self.is_my_process() { self.slots.len() } else { 0 };
        0..len as u16
    }

    /// Everybody who is attached and alive.
    pub(crate) fn participants(&self) -> impl Iterator<Item = Participant> + '_ {
        self.table()
            .filter(|slot| self.is_live(*slot) && (*slot == self.me || self.is_alive(*slot)))
            .map(|slot| Participant { slot, pid: self.slots[usize::from(slot)].pid.load(Ordering::Relaxed) as u32 })
    }

    /// Whether a participant has the lane, alive or not buried yet.
    pub(crate) fn has_lane(&self, lane: LaneId) -> bool {
        self.lanes.owner(lane).is_some_and(|slot| usize::from(slot) < self.slots.len() && self.is_live(slot))
    }

    /// Whether a lane belongs to a participant that has died and is not buried yet.
    pub(crate) fn is_dead(&self, slot: u16) -> bool {
        slot != self.me && usize::from(slot) < self.slots.len() && self.is_live(slot) && !self.is_alive(slot)
    }

    /// Slots of participants that have died. A system call for each that seems to live.
    pub(crate) fn dead(&self) -> Vec<u16> {
        self.table().filter(|slot| self.is_dead(*slot)).collect()
    }

    /// Takes a dead participant's slot, to bury it; `None` if somebody else does.
    pub(crate) fn try_bury(&self, slot: u16) -> Option<Burial<'_>> {
        let mut burying = self.burying.lock();
        if slot == self.me || burying.contains(&slot) || !self.try_lock(slot).is_ok_and(|locked| locked) {
            return None;
        }
        if !self.is_live(slot) {
            self.unlock(slot);
            return None;
        }
        burying.push(slot);
        Some(Burial { region: self, slot })
    }

    /// Takes a segment's name away, whoever uses it.
    pub(crate) fn remove(name: &str, config: &Config) -> Result<(), OpenError> {
        let path = config.directory().join(Name::new(name)?.as_str());
        match file::unlink(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(OpenError::NotFound { path }),
            Err(error) => Err(io_error("could not remove", &path)(error)),
        }
    }

    /// The segments in the directory.
    pub(crate) fn list(config: &Config) -> Result<Vec<Listed>, OpenError> {
        let directory = config.directory();
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error("could not read", &directory)(error)),
        };
        clean(&directory);
        let mut found: Vec<Listed> = entries
            .filter_map(|entry| {
                let name = entry.ok()?.file_name().into_string().ok()?;
                let name = Name::new(&name).ok()?;
                let path = directory.join(name.as_str());
                let file = file::open(&path).ok()?;
                let header = check_file(&path, &file, true).ok()?;
                let living = (0..header.params.participants as u16)
                    .filter(|slot| lock::is_locked_by_other(&file, byte_of(*slot)))
                    .count();
                let name = name.as_str().to_owned();
                Some(Listed { name, uuid: header.uuid, size: header.params.size, participants: living })
            })
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Leaves: gives up the slot, and with it, as the last one, the file's name.
    fn leave(&self) {
        let Some(file) = self.file.as_deref() else { return };
        if self.path.as_os_str().is_empty() {
            return;
        }
        let slot = &self.slots[usize::from(self.me)];
        slot.state.store(slot.state.load(Ordering::SeqCst) & !(LIFE - 1), Ordering::SeqCst);
        self.unlock(self.me);
        if self.name.is_empty() || self.header.params.flags & FLAG_PERSISTENT != 0 {
            return;
        }
        let last = lock::try_lock(file, GATE, self.header.params.participants + 1).is_ok_and(|all| all);
        if last && has_name(&self.path, file) {
            let _ = file::unlink(&self.path);
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: neither is used after this.
        let (watched, mapping) =
            unsafe { (ManuallyDrop::take(&mut self.watched), ManuallyDrop::take(&mut self.mapping)) };
        if !self.is_my_process() {
            // The child has neither the mapping nor the descriptor; what stands for them must not be given back twice.
            std::mem::forget((watched, mapping));
            return;
        }
        self.leave();
        drop((watched, mapping));
        if let Some(mut file) = self.file.take() {
            // SAFETY: taken out of the option, and not used after this.
            unsafe { ManuallyDrop::drop(&mut file) };
        }
    }
}

/// A dead participant's slot, locked by us.
#[derive(Debug)]
pub(crate) struct Burial<'a> {
    region: &'a Region,
    slot: u16,
}

impl Burial<'_> {
    /// Whose it is.
    pub(crate) fn slot(&self) -> u16 {
        self.slot
    }

    /// All that it held has been given back: the slot is free.
    pub(crate) fn complete(self) {
        let slot = &self.region.slots[usize::from(self.slot)];
        slot.lifeline.word().store(0, Ordering::SeqCst);
        slot.state.store(slot.state.load(Ordering::SeqCst) & !(LIFE - 1), Ordering::SeqCst);
    }
}

impl Drop for Burial<'_> {
    fn drop(&mut self) {
        let mut burying = self.region.burying.lock();
        burying.retain(|slot| *slot != self.slot);
        self.region.unlock(self.slot);
    }
}

/// The parts of the file, from where and how many bytes, that have memory from the beginning.
fn first_parts(header: &StaticHeader) -> Vec<(u64, u64)> {
    let (params, layout) = (&header.params, &header.layout);
    if params.size == params.max_size {
        return vec![(0, layout.end)];
    }
    let sectors = (0..SECTORS).flat_map(|index| growth(header, index, 0, layout.sectors[index].first));
    std::iter::once((0, layout.words_at)).chain(sectors).collect()
}

/// The parts of the file, from where and how many bytes, that a sector needs to grow from so many granules to so many.
fn growth(header: &StaticHeader, sector: usize, from: u64, to: u64) -> [(u64, u64); 2] {
    let layout = &header.layout.sectors[sector];
    [
        // With the word that stands behind the last granule.
        (layout.words_at + from * 8, (to + 1 - from) * 8),
        (layout.data_at + layout.bytes(from), layout.bytes(to - from).max(1)),
    ]
}

/// Makes a directory that only we can use, or finds that it is one.
fn prepare_directory(directory: &Path) -> Result<(), OpenError> {
    file::make_directory(directory).map_err(io_error("could not make the directory", directory))?;
    check_directory(directory)
}

/// Removes temporary files of creators that have died.
fn clean(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY));
        if !is_ours || file::age(&path).is_none_or(|age| age < GRACE) {
            continue;
        }
        if let Ok(file) = file::open(&path)
            && lock::try_lock(&file, GATE, 1).is_ok_and(|locked| locked)
            && has_name(&path, &file)
        {
            let _ = file::unlink(&path);
        }
    }
}
