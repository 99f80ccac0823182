//! A region: the file of a segment, mapped, with a place among its participants.
//!
//! # Life and death of a file
//!
//! * **Creation.** A segment is built in a temporary file and renamed when it is complete, its creator already in it: so
//!   nobody ever sees a half-made one, nor one without a living participant. Who tidies up takes away no temporary file of which
//!   anybody has the lock of any byte, and a creator whose file has gone builds another.
//! * **Proof of life** is a lock on a byte of the file per participant ([`crate::sys::lock`]). Byte 0 is the gate; byte
//!   `slot + 1` the participant's. Whoever has the lock of a byte whose slot says LIVE has found a dead one, and may bury
//!   it.
//! * **Coming in** is in two steps. [Entering](Region::open) takes the lock of a place, and changes nothing that others see: who
//!   fails then has not been there. [Appearing](Region::appear) says LIVE, or gives a new segment its name. In between the
//!   participant's bridge thread begins to hold its lifeline and tells another bridge: so whoever sees a participant can be sure
//!   that its death will be heard of.
//! * **No place** is had only where every slot says LIVE and nothing else, and is locked, several times in a row. A slot that says
//!   BURIED_NOW is about to be free; so is one that is locked and does not say LIVE, or about to be another's.
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
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering as Order},
    },
    time::Duration,
};

use uuid::Uuid;
use zerocopy::IntoBytes;

use crate::{
    observe,
    region::{
        checks::{
            Judged, check_directory, check_file, has_name, io_error, is_here_to_stay, judge, map_error, not_a_segment,
        },
        config::Config,
        error::OpenError,
        lanes::{LaneId, LanePool},
        layout::{BURIED_NOW, FLAG_PERSISTENT, LIFE, LIVE, ParticipantSlot, SECTORS, StaticHeader},
        name::Name,
    },
    sys::{
        file::{self, Directory, Opened},
        fork, lock,
        map::Mapping,
        shared::SharedSlice,
        sync::Ordering,
    },
};

/// The gate's byte; a participant's is its slot's number and one.
const GATE: u32 = 0;

pub(crate) fn byte_of(slot: u16) -> u32 {
    u32::from(slot) + 1
}

/// The bytes of all participants that there can ever be, in whatever version, and the gate's.
const EVERYBODY: u32 = 1 << 16;

/// How often to start over when somebody else is in the way, and how long to wait in between.
const ATTEMPTS: u32 = 2000;
const PAUSE: Duration = Duration::from_millis(1);
/// A temporary file without a creator is left alone for so long: its creator may be about to lock it.
const GRACE: Duration = Duration::from_secs(10);
const TEMPORARY: &str = ".tmp-";
/// How often in a row there must be no place.
const REFUSALS: u32 = 5;

/// A mapped segment. See the module.
#[derive(Debug)]
pub(crate) struct Region {
    name: String,
    path: PathBuf,
    /// Where its name is, wherever the path leads by now; `None` if it has no name.
    directory: Option<Directory>,
    header: StaticHeader,
    slots: SharedSlice<ParticipantSlot>,
    me: u16,
    /// `me` is ours: we have the lock of its byte.
    has_place: bool,
    /// Our slot says that we live, and others can see it.
    joined: AtomicBool,
    lanes: LanePool,
    /// Participants that this process is burying just now: locks of one description do not exclude one another.
    burying: Mutex<Vec<u16>>,
    /// The generation of forks in which the region was made.
    generation: u32,
    /// The slot was that of somebody who died in it: there is something to bury before anything else.
    inherited: bool,
    /// That has been done.
    settled: AtomicBool,
    /// It was there before, and nobody but us is in it.
    found_empty: bool,
    /// A new segment's, until it has its own name.
    temporary: Option<PathBuf>,
    /// `None` if it is this process's alone. In a forked child the descriptor is closed already, hence no automatic drop.
    file: ManuallyDrop<Option<Opened>>,
    mapping: ManuallyDrop<Mapping>,
}

/// A participant, for people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Participant {
    pub(crate) slot: u16,
    pub(crate) pid: u32,
}

/// A segment in a directory, for people.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) uuid: [u8; 16],
    pub(crate) size: u64,
    pub(crate) version: u32,
    pub(crate) persistent: bool,
    pub(crate) participants: usize,
    /// Why it cannot be opened.
    pub(crate) problem: Option<OpenError>,
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
    /// Makes a segment of that name, which it has not got before it [appears](Self::appear).
    pub(crate) fn create(name: &str, config: &Config, format: Format) -> Result<Self, OpenError> {
        let (name, directory) = (Name::new(name)?, config.directory());
        let path = directory.join(name.as_str());
        // One that was left behind is in nobody's use.
        match Self::try_to_enter(&name, &path) {
            // It is there. Nobody has seen us; whoever died in the place that we got is still to be buried.
            Ok(Some(_)) | Err(OpenError::TooManyParticipants { .. }) => Err(OpenError::AlreadyExists { path }),
            Ok(None) => Self::build(&name, &directory, config, format),
            Err(error) => Err(error),
        }
    }

    /// Opens the segment of that name.
    pub(crate) fn open(name: &str, config: &Config) -> Result<Self, OpenError> {
        let name = Name::new(name)?;
        let path = config.directory().join(name.as_str());
        Self::try_to_enter(&name, &path)?.ok_or(OpenError::NotFound { path })
    }

    /// Opens the segment of that name, or makes it: then it has not got the name before it [appears](Self::appear).
    pub(crate) fn open_or_create(name: &str, config: &Config, format: Format) -> Result<Self, OpenError> {
        let (name, directory) = (Name::new(name)?, config.directory());
        match Self::try_to_enter(&name, &directory.join(name.as_str()))? {
            Some(region) => Ok(region),
            None => Self::build(&name, &directory, config, format),
        }
    }

    /// Enters the segment of that name, if there is one, however many others do so, leave, or are buried just now.
    fn try_to_enter(name: &Name, path: &Path) -> Result<Option<Self>, OpenError> {
        let mut refusals = 0;
        for _ in 0..ATTEMPTS {
            match Self::enter(name, path) {
                Ok(region) => return Ok(Some(region)),
                Err(Miss::Gone) => return Ok(None),
                Err(Miss::InTheWay) => refusals = 0,
                Err(Miss::Failed(error)) => {
                    refusals += 1;
                    if refusals == REFUSALS || !matches!(error, OpenError::TooManyParticipants { .. }) {
                        return Err(error);
                    }
                }
            }
            std::thread::sleep(PAUSE);
        }
        Err(OpenError::Busy { path: path.to_owned() })
    }

    /// Builds a segment in a temporary file.
    fn build(name: &Name, directory: &Path, config: &Config, format: Format) -> Result<Self, OpenError> {
        let header = config.header()?;
        prepare_directory(directory)?;
        clean(directory);
        // Not a promise, but it saves filling the file system to find out.
        let has_room = || file::free_bytes(directory).map_or(true, |free| free >= header.params.size);
        if !has_room() && sweep_directory(directory).is_ok() && !has_room() {
            let free = file::free_bytes(directory).unwrap_or(0);
            return Err(OpenError::NoRoom { path: directory.to_owned(), needed: header.params.size, free });
        }
        let mut swept = false;
        loop {
            match Self::build_once(name, directory, header, format) {
                // Somebody was faster with what seemed to be free.
                Err(OpenError::NoRoom { .. })
                    if !swept && sweep_directory(directory).is_ok_and(|it| !it.is_empty()) =>
                {
                    swept = true;
                }
                // We were stopped for long, and somebody is tidying the file away.
                Ok(None) => {}
                Ok(Some(region)) => return Ok(region),
                Err(error) => return Err(error),
            }
        }
    }

    /// Builds it; `None` if somebody has taken the file for one that was left behind, before anything said that it is not.
    fn build_once(
        name: &Name,
        directory: &Path,
        header: StaticHeader,
        format: Format,
    ) -> Result<Option<Self>, OpenError> {
        let path = directory.join(name.as_str());
        let opened = Directory::open(directory).map_err(io_error("could not open", directory))?;
        let temporary = directory.join(format!("{TEMPORARY}{}", Uuid::new_v4().simple()));
        let file = file::create_new(&temporary).map_err(io_error("could not create", &temporary))?;
        let built = (|| {
            // Says that somebody is at work here: from now on nobody has all locks.
            if !lock::try_lock(&*file, GATE, 1).map_err(io_error("could not lock", &temporary))? {
                return Ok(None);
            }
            Self::found(name.as_str(), &path, file, header, format, directory).map(Some)
        })();
        match built {
            Ok(built) => Ok(built.map(|mut region| {
                (region.directory, region.temporary) = (Some(opened), Some(temporary));
                region
            })),
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
        file::seal(region.file()).map_err(io_error("could not seal", path))?;
        Ok(region)
    }

    /// Attaches to an anonymous segment.
    pub(crate) fn from_fd(fd: &OwnedFd) -> Result<Self, OpenError> {
        let path = Path::new("(anonymous)");
        let mut refusals = 0;
        for _ in 0..ATTEMPTS {
            let file = file::reopen(fd).map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => OpenError::NoProc { source },
                _ => io_error("could not reopen", path)(source),
            })?;
            match Self::attach("", path, file, None) {
                Ok(region) => return Ok(region),
                Err(Miss::Failed(OpenError::TooManyParticipants { .. })) if refusals + 1 < REFUSALS => refusals += 1,
                Err(Miss::Failed(error)) => return Err(error),
                Err(Miss::Gone | Miss::InTheWay) => refusals = 0,
            }
            std::thread::sleep(PAUSE);
        }
        Err(OpenError::Busy { path: path.to_owned() })
    }

    /// Makes a segment of this process alone.
    pub(crate) fn in_process(config: &Config, format: Format) -> Result<Self, OpenError> {
        let header = Config { participants: 1, ..config.clone() }.header()?;
        let path = Path::new("(in process)");
        let mapping = Mapping::of_this_process(header.layout.end as usize).map_err(|source| match source.kind() {
            io::ErrorKind::OutOfMemory => io_error("could not allocate", path)(source),
            _ => map_error(path, header.layout.end)(source),
        })?;
        format(&mapping, &header);
        let mut region = Self::new("", path, header, mapping, None);
        region.has_place = true;
        region.announce();
        Ok(region)
    }

    /// Makes an empty file a segment, with us in it.
    fn found(
        name: &str,
        path: &Path,
        file: Opened,
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
        let mapping = Mapping::of_file(&*file, layout.end as usize).map_err(map_error(path, layout.end))?;
        format(&mapping, &header);
        let locked = lock::try_lock(&*file, byte_of(0), 1).map_err(io_error("could not lock", path))?;
        debug_assert!(locked, "nobody else knows the file");
        let mut region = Self::new(name, path, header, mapping, Some(file));
        region.has_place = true;
        // Nobody else can see the file yet.
        region.announce();
        Ok(region)
    }

    /// Opens a file and takes a place in it.
    fn enter(name: &Name, path: &Path) -> Result<Self, Miss> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        match file::facts_of_path(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Miss::Gone),
            _ => check_directory(directory)?,
        }
        let opened = match Directory::open(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Miss::Gone),
            opened => opened.map_err(io_error("could not open", directory))?,
        };
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
        Self::attach(name.as_str(), path, file, Some(opened))
    }

    /// Checks a file, and takes a place in it.
    fn attach(name: &str, path: &Path, file: Opened, directory: Option<Directory>) -> Result<Self, Miss> {
        let checked = check_file(path, &file, directory.is_some());
        if let Some(directory) = &directory
            && !is_here_to_stay(&file, &checked)
            && remove_if_left(directory, name, &file).map_err(io_error("could not remove", path))?
        {
            return Err(Miss::Gone);
        }
        let header = checked?;
        let participants = header.params.participants as u16;
        let mapping =
            Mapping::of_file(&*file, header.layout.end as usize).map_err(map_error(path, header.layout.end))?;
        let mut region = Self::new(name, path, header, mapping, Some(file));
        region.directory = directory;
        // A place that was left in order, or else one of a dead participant: we bury it first thing.
        for take_dead in [false, true] {
            for slot in 0..participants {
                if region.is_live(slot) != take_dead
                    || !region.try_lock(slot).map_err(io_error("could not lock", path))?
                {
                    continue;
                }
                // Dropped from here on, it gives the place back as it was.
                (region.me, region.has_place) = (slot, true);
                if !region.has_name() {
                    return Err(Miss::InTheWay);
                }
                if region.is_live(slot) != take_dead {
                    region.unlock(slot);
                    region.has_place = false;
                    continue;
                }
                region.inherited = take_dead;
                region.lanes.set_participant(slot);
                // Whoever held it has gone.
                let taken = &region.slots[usize::from(slot)];
                taken.lifeline.word().store(0, Ordering::SeqCst);
                if take_dead {
                    taken.state.fetch_or(BURIED_NOW, Ordering::SeqCst);
                }
                region.found_empty =
                    (0..participants).all(|other| other == slot || !region.is_live(other) || !region.is_alive(other));
                return Ok(region);
            }
        }
        let in_the_way = lock::is_locked_by_other(region.file(), GATE)
            || !region.has_name()
            || region.slots.iter().any(|slot| slot.state.load(Ordering::SeqCst) & (LIFE - 1) != LIVE);
        match in_the_way {
            true => Err(Miss::InTheWay),
            false => Err(OpenError::TooManyParticipants { limit: participants.into() }.into()),
        }
    }

    fn new(name: &str, path: &Path, header: StaticHeader, mapping: Mapping, file: Option<Opened>) -> Self {
        let layout = &header.layout;
        // SAFETY: tables of atomics, at offsets of a layout that was computed here; the mapping is dropped last.
        let (slots, lanes) = unsafe {
            (
                mapping.slice(layout.participants_at, header.params.participants as usize),
                mapping.slice(layout.lanes_at, header.params.lanes as usize),
            )
        };
        if let Some(file) = &file {
            file.watched().watch_mapping(mapping.base(), mapping.len());
        }
        Self {
            name: name.to_owned(),
            path: path.to_owned(),
            directory: None,
            header,
            slots,
            me: 0,
            has_place: false,
            joined: AtomicBool::new(false),
            lanes: LanePool::new(lanes, header.params.participants as u16, 0),
            burying: Mutex::default(),
            generation: fork::generation(),
            inherited: false,
            settled: AtomicBool::new(false),
            found_empty: false,
            temporary: None,
            file: ManuallyDrop::new(file),
            mapping: ManuallyDrop::new(mapping),
        }
    }

    /// Lets others see us: says that we live, or gives a new segment its name. `false` if somebody else has given a segment this name
    /// in the meantime: this one is to be dropped.
    ///
    /// # Errors
    ///
    /// What the kernel says of the name.
    pub(crate) fn appear(&self) -> Result<bool, OpenError> {
        match &self.temporary {
            None if self.is_live(self.me) && !self.inherited => {}
            None => self.announce(),
            Some(temporary) => {
                lock::unlock(self.file(), GATE, 1);
                if !file::publish(temporary, &self.path).map_err(io_error("could not name", &self.path))? {
                    return Ok(false);
                }
            }
        }
        // Ordering: SeqCst, for the bridge, which is there already and has nothing to do before.
        self.joined.store(true, Order::SeqCst);
        Ok(true)
    }

    /// Whether others can see us.
    pub(crate) fn has_joined(&self) -> bool {
        self.joined.load(Order::SeqCst)
    }

    /// Whether others can see us, and nothing is left of whoever died in our slot.
    pub(crate) fn is_settled(&self) -> bool {
        self.has_joined() && (!self.inherited || self.settled.load(Order::SeqCst))
    }

    /// Whoever died in our slot is buried.
    pub(crate) fn predecessor_is_buried(&self) {
        self.settled.store(true, Order::SeqCst);
    }

    /// Whether it has no name, or still has it.
    fn has_name(&self) -> bool {
        self.directory.as_ref().is_none_or(|directory| directory.has(&self.name, self.file()))
    }

    fn file(&self) -> &File {
        self.file.as_ref().expect("it has a file")
    }

    /// Says in the table that we live. A predecessor that died in the slot leaves LIVE there: nothing changes for others.
    fn announce(&self) {
        let slot = &self.slots[usize::from(self.me)];
        let lives = slot.state.load(Ordering::SeqCst) / LIFE + 1;
        slot.pid.store(std::process::id().into(), Ordering::SeqCst);
        slot.state.store(lives.wrapping_mul(LIFE) + LIVE, Ordering::SeqCst);
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

    /// Where it is, for people.
    pub(crate) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Where its name is, or was when it had one; `None` if it never had one.
    pub(crate) fn named_path(&self) -> Option<&Path> {
        self.directory.as_ref().map(|_| &*self.path)
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
        self.file.as_ref().filter(|_| self.is_my_process()).map(|file| file.as_fd())
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
        let Some(file) = self.file.as_ref() else { return true };
        growth(&self.header, sector, from, to).iter().all(|(at, bytes)| file::allocate(file, *at, *bytes).is_ok())
    }

    /// Whether the file system seems to have room for a sector to grow from so many granules to so many.
    pub(crate) fn has_room(&self, sector: usize, from: u64, to: u64) -> bool {
        let Some(file) = self.file.as_ref() else { return true };
        file::free_bytes_of(file).map_or(true, |free| free >= bytes_of_growth(&self.header, sector, from, to))
    }

    /// Whether it would have if nobody else had anything there.
    pub(crate) fn could_have_room(&self, sector: usize, from: u64, to: u64) -> bool {
        let Some(file) = self.file.as_ref() else { return true };
        let (Ok(all), Ok(facts)) = (file::all_bytes_of(file), file::facts_of(&**file)) else { return true };
        all >= facts.taken.saturating_add(bytes_of_growth(&self.header, sector, from, to))
    }

    /// Bytes that the file system of the segment has free.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.file.as_ref().and_then(|file| file::free_bytes_of(file).ok()).unwrap_or(0)
    }

    /// Whether this is the process that made the region, and not one that was forked from it.
    #[inline(always)]
    pub(crate) fn is_my_process(&self) -> bool {
        self.generation == fork::generation()
    }

    fn try_lock(&self, slot: u16) -> io::Result<bool> {
        self.file.as_ref().map_or(Ok(true), |file| lock::try_lock(&**file, byte_of(slot), 1))
    }

    fn unlock(&self, slot: u16) {
        if let Some(file) = self.file.as_ref() {
            lock::unlock(&**file, byte_of(slot), 1);
        }
    }

    /// Whether a slot that is not ours is in use, by somebody alive.
    fn is_alive(&self, slot: u16) -> bool {
        self.file.as_ref().is_some_and(|file| lock::is_locked_by_other(&**file, byte_of(slot)))
    }

    /// Whether a slot is a participant's, who is buried if it is dead.
    fn is_live(&self, slot: u16) -> bool {
        self.slots[usize::from(slot)].is_live()
    }

    /// All slots; none in a forked child, which does not have the table.
    fn table(&self) -> impl Iterator<Item = u16> {
        let len = if self.is_my_process() { self.slots.len() } else { 0 };
        0..len as u16
    }

    /// Everybody who is attached and alive. Who is buried just now is not: a reaper has the lock.
    pub(crate) fn participants(&self) -> impl Iterator<Item = Participant> + '_ {
        let state = |slot: u16| self.slots[usize::from(slot)].state.load(Ordering::SeqCst) & (LIFE - 1);
        self.table()
            .filter(move |slot| state(*slot) == LIVE && (*slot == self.me || self.is_alive(*slot)))
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

    /// Whether this process is burying somebody.
    pub(crate) fn is_burying(&self) -> bool {
        !self.burying.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Takes a dead participant's slot, to bury it; `None` if somebody else does.
    pub(crate) fn try_bury(&self, slot: u16) -> Option<Burial<'_>> {
        let mut burying = self.burying.lock().unwrap_or_else(PoisonError::into_inner);
        if slot == self.me || burying.contains(&slot) || !self.try_lock(slot).is_ok_and(|locked| locked) {
            return None;
        }
        if !self.is_live(slot) {
            self.unlock(slot);
            return None;
        }
        burying.push(slot);
        self.slots[usize::from(slot)].state.fetch_or(BURIED_NOW, Ordering::SeqCst);
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
        let found = each_file(&directory)?.filter_map(|(path, file)| describe(&path, &file)).collect();
        clean(&directory);
        Ok(in_order(found))
    }

    /// Takes away the segments of the directory in which nobody lives and that are not to stay; returns what they were.
    pub(crate) fn sweep(config: &Config) -> Result<Vec<Listed>, OpenError> {
        let directory = config.directory();
        clean(&directory);
        sweep_directory(&directory)
    }

    /// Leaves: gives up the slot, and with it, as the last one, the file's name. Who has not joined gives the place back as it was.
    fn leave(&self) {
        let Some(file) = self.file.as_ref() else { return };
        if let Some(temporary) = &self.temporary
            && !self.has_joined()
        {
            // Nobody else has seen the file.
            let _ = file::unlink(temporary);
            return;
        }
        if !self.has_place {
            return;
        }
        let phase = if self.is_settled() { LIFE - 1 } else { BURIED_NOW };
        self.slots[usize::from(self.me)].state.fetch_and(!phase, Ordering::SeqCst);
        self.unlock(self.me);
        if let Some(directory) = &self.directory
            && self.header.params.flags & FLAG_PERSISTENT == 0
            && let Err(error) = remove_if_left(directory, &self.name, file)
        {
            observe::left_behind(self, &error);
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: neither is used after this, but for the file by `leave`, which only borrows it.
        let mapping = unsafe { ManuallyDrop::take(&mut self.mapping) };
        if !self.is_my_process() {
            // The child has neither the mapping nor the descriptor; what stands for them must not be given back twice.
            std::mem::forget(mapping);
            return;
        }
        self.leave();
        // The file first: it is also what keeps children from having the mapping.
        // SAFETY: not used after this.
        unsafe { ManuallyDrop::drop(&mut self.file) };
        drop(mapping);
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
        slot.state.fetch_and(!(LIFE - 1), Ordering::SeqCst);
    }
}

impl Drop for Burial<'_> {
    fn drop(&mut self) {
        self.region.slots[usize::from(self.slot)].state.fetch_and(!BURIED_NOW, Ordering::SeqCst);
        let mut burying = self.region.burying.lock().unwrap_or_else(PoisonError::into_inner);
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

fn bytes_of_growth(header: &StaticHeader, sector: usize, from: u64, to: u64) -> u64 {
    growth(header, sector, from, to).iter().map(|(_, bytes)| bytes).sum()
}

/// Makes a directory that only we can use, or finds that it is one.
fn prepare_directory(directory: &Path) -> Result<(), OpenError> {
    file::make_directory(directory).map_err(io_error("could not make the directory", directory))?;
    check_directory(directory)
}

/// Takes a file's name away if nobody lives in it, and nobody is about to; `true` if it has not got the name any more.
///
/// # Errors
///
/// What the kernel says: above all that this process may not.
fn remove_if_left(directory: &Directory, name: &str, file: &File) -> io::Result<bool> {
    if !lock::try_lock(file, GATE, EVERYBODY)? {
        return Ok(false);
    }
    // Nobody lives here: it was left behind. Its name is ours to take away, if it still has it.
    if directory.has(name, file) {
        let removed = directory.unlink(name);
        if removed.is_err() {
            lock::unlock(file, GATE, EVERYBODY);
        }
        removed?;
    }
    Ok(true)
}

/// The files of a directory that have a segment's name and can be opened. None if there is no such directory.
fn each_file(directory: &Path) -> Result<impl Iterator<Item = (PathBuf, Opened)>, OpenError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => Some(entries),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(io_error("could not read", directory)(error)),
    };
    let directory = directory.to_owned();
    Ok(entries.into_iter().flatten().filter_map(move |entry| {
        let name = Name::new(&entry.ok()?.file_name().into_string().ok()?).ok()?;
        let path = directory.join(name.as_str());
        let file = file::open(&path).ok()?;
        Some((path, file))
    }))
}

/// What a file is, if it begins as a segment.
fn describe(path: &Path, file: &File) -> Option<Listed> {
    let Judged { uuid, size, version, persistent, problem } = judge(path, file)?;
    let participants = lock::held_by_others(file, byte_of(0), EVERYBODY - 1);
    let name = path.file_name()?.to_str()?.to_owned();
    Some(Listed { name, path: path.to_owned(), uuid, size, version, persistent, participants, problem })
}

fn in_order(mut found: Vec<Listed>) -> Vec<Listed> {
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Takes away what [`Region::sweep`] does.
fn sweep_directory(directory: &Path) -> Result<Vec<Listed>, OpenError> {
    let mut swept = Vec::new();
    for (path, file) in each_file(directory)? {
        let opened = Directory::open(directory).map_err(io_error("could not open", directory))?;
        if is_here_to_stay(&file, &check_file(&path, &file, true)) {
            continue;
        }
        // What cannot be removed is not among what was.
        if let Some(found) = describe(&path, &file)
            && remove_if_left(&opened, &found.name, &file).unwrap_or(false)
        {
            swept.push(found);
        }
    }
    Ok(in_order(swept))
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
        // All bytes: a creator that is about to name its file has given up the gate, but not its place.
        if let Ok(file) = file::open(&path)
            && lock::try_lock(&*file, GATE, EVERYBODY).is_ok_and(|locked| locked)
            && has_name(&path, &file)
        {
            let _ = file::unlink(&path);
        }
    }
}
