//! Files of segments: a private directory, temporary files that become visible when they are complete, and descriptors.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::File,
    io,
    mem::ManuallyDrop,
    ops::Deref,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex, PoisonError},
};

use rustix::{
    fs::{self as rfs, AtFlags, CWD, FallocateFlags, FileType, MemfdFlags, Mode, OFlags, RenameFlags, SealFlags},
    io::Errno,
};

use crate::sys::fork::{Watched, undisturbed};

/// Mode of a segment's file.
pub(crate) const FILE_MODE: u32 = 0o600;
/// Mode of a segment's directory.
pub(crate) const DIRECTORY_MODE: u32 = 0o700;

/// What is asked about a file or directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) is_file: bool,
    pub(crate) is_directory: bool,
    pub(crate) owner: u32,
    pub(crate) mode: u32,
    /// Whether the file has more than one name.
    pub(crate) has_links: bool,
    pub(crate) size: u64,
    /// Bytes that it has of its file system.
    pub(crate) taken: u64,
    /// Device and inode: what makes it this file.
    pub(crate) identity: (u64, u64),
}

impl From<rfs::Stat> for Facts {
    fn from(stat: rfs::Stat) -> Self {
        let kind = FileType::from_raw_mode(stat.st_mode);
        Self {
            is_file: kind == FileType::RegularFile,
            is_directory: kind == FileType::Directory,
            owner: stat.st_uid,
            mode: stat.st_mode & 0o7777,
            has_links: stat.st_nlink > 1,
            size: stat.st_size as u64,
            taken: (stat.st_blocks as u64).saturating_mul(512),
            identity: (stat.st_dev, stat.st_ino),
        }
    }
}

/// The user that this process acts for.
pub(crate) fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Bytes of a page of memory.
pub(crate) fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

/// A path that does not depend on the directory that the process works in, which may change. One that was given once means the
/// same place from then on.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    static KNOWN: LazyLock<Mutex<HashMap<OsString, PathBuf>>> = LazyLock::new(Mutex::default);
    if path.is_absolute() {
        return path.to_owned();
    }
    // A child that is forked meanwhile would find the lock held for ever.
    undisturbed(|| {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.entry(path.into());
        // Where there is no directory to work in, a relative path leads nowhere either way.
        found.or_insert_with(|| std::path::absolute(path).unwrap_or_else(|_| path.to_owned())).clone()
    })
}

/// The directory of segments unless told otherwise.
pub(crate) fn default_directory() -> PathBuf {
    std::env::var_os("WATERWAY_DIR")
        .filter(|path| !path.is_empty())
        .map_or_else(|| PathBuf::from(format!("/dev/shm/waterway-{}", user())), |path| absolute(Path::new(&path)))
}

/// An open file that forked children do not have.
#[derive(Debug)]
pub(crate) struct Opened {
    file: ManuallyDrop<File>,
    watched: ManuallyDrop<Watched>,
}

impl Opened {
    /// Opens a file, and sees to it that no child that is forked meanwhile has it.
    fn by(open: impl FnOnce() -> io::Result<File>) -> io::Result<Self> {
        undisturbed(|| {
            let file = open()?;
            let watched = ManuallyDrop::new(Watched::new(file.as_fd()));
            Ok(Self { file: ManuallyDrop::new(file), watched })
        })
    }

    /// What sees to it.
    pub(crate) fn watched(&self) -> &Watched {
        &self.watched
    }
}

impl Deref for Opened {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // In this order: the number of a closed descriptor may be another one's at once.
        undisturbed(|| {
            // SAFETY: neither is used after this.
            unsafe {
                ManuallyDrop::drop(&mut self.watched);
                ManuallyDrop::drop(&mut self.file);
            }
        });
    }
}

/// A directory, wherever the path that led to it leads by now, and whoever may go there.
#[derive(Debug)]
pub(crate) struct Directory(OwnedFd);

impl Directory {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rfs::open(path, flags, Mode::empty())?))
    }

    /// Whether a name in it is that of this very file.
    pub(crate) fn has(&self, name: &str, file: &File) -> bool {
        let there = rfs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW).map(Facts::from);
        matches!((there, facts_of(file)), (Ok(there), Ok(here)) if there.identity == here.identity)
    }

    /// Takes a file's name away.
    #[cfg_attr(crash_points, track_caller)]
    pub(crate) fn unlink(&self, name: &str) -> io::Result<()> {
        crate::sys::sync::point();
        Ok(rfs::unlinkat(&self.0, name, AtFlags::empty())?)
    }
}

/// Makes a private directory, unless it is there.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    match rfs::mkdir(path, Mode::from_raw_mode(DIRECTORY_MODE)) {
        Err(Errno::EXIST) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What stands at a path; a link is not followed.
pub(crate) fn facts_of_path(path: &Path) -> io::Result<Facts> {
    Ok(rfs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?.into())
}

/// What a descriptor stands for.
pub(crate) fn facts_of(file: impl AsFd) -> io::Result<Facts> {
    Ok(rfs::fstat(file)?.into())
}

/// Makes a file that nobody else has, and gives it no room yet.
#[cfg_attr(crash_points, track_caller)]
pub(crate) fn create_new(path: &Path) -> io::Result<Opened> {
    crate::sys::sync::point();
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = Opened::by(|| Ok(rfs::open(path, flags, Mode::from_raw_mode(FILE_MODE))?.into()))?;
    // Whatever the process's mask says.
    rfs::fchmod(&*file, Mode::from_raw_mode(FILE_MODE))?;
    Ok(file)
}

/// Opens a file that is there. A link is an error, and so is everything that could block.
pub(crate) fn open(path: &Path) -> io::Result<Opened> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Opened::by(|| Ok(rfs::open(path, flags, Mode::empty())?.into()))
}

/// Opens a file that is there, to read it. A link is an error, and so is everything that could block.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(rfs::open(path, flags, Mode::empty())?.into())
}

/// An anonymous file.
pub(crate) fn anonymous() -> io::Result<Opened> {
    Opened::by(|| Ok(rfs::memfd_create("waterway", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?.into()))
}

/// Nobody can make the anonymous file larger or smaller from now on.
pub(crate) fn seal(file: &File) -> io::Result<()> {
    Ok(rfs::fcntl_add_seals(file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?)
}

/// The same file again, with locks of its own: through `/proc`, as the kernel knows no other way.
///
/// # Errors
///
/// `NotFound` if `/proc` is not mounted here, and cannot be had without anybody else seeing it, either.
pub(crate) fn reopen(file: &OwnedFd) -> io::Result<Opened> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let (number, name) = (file.as_raw_fd(), "/proc/self/fd");
    let reopened = Opened::by(|| Ok(rfs::open(format!("{name}/{number}"), flags, Mode::empty())?.into()));
    match reopened {
        Err(error) if error.kind() == io::ErrorKind::NotFound && user() == 0 => {
            let Ok(proc) = proc_of_our_own() else { return Err(error) };
            Opened::by(|| Ok(rfs::openat(&proc, format!("self/fd/{number}"), flags, Mode::empty())?.into()))
        }
        reopened => reopened,
    }
}

/// `/proc` without a place, which is gone when the descriptor is closed. Root may have one: `fsopen(2)`, Linux 5.2.
fn proc_of_our_own() -> io::Result<OwnedFd> {
    const CLOSE_ON_EXEC: libc::c_ulong = 1;
    const CREATE: libc::c_ulong = 6;
    let taken = |result: libc::c_long| {
        let number = libc::c_int::try_from(result).ok().filter(|number| *number >= 0);
        // SAFETY: a descriptor that the kernel has just given to us alone.
        number.map(|number| unsafe { OwnedFd::from_raw_fd(number) }).ok_or_else(io::Error::last_os_error)
    };
    // SAFETY: a name that outlives the call.
    let made = taken(unsafe { libc::syscall(libc::SYS_fsopen, c"proc".as_ptr(), CLOSE_ON_EXEC) })?;
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: the command takes neither key nor value.
    if unsafe { libc::syscall(libc::SYS_fsconfig, made.as_raw_fd(), CREATE, none, none, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: plain numbers.
    taken(unsafe { libc::syscall(libc::SYS_fsmount, made.as_raw_fd(), CLOSE_ON_EXEC, 0) })
}

/// Bytes of the longest file that this process may make.
pub(crate) fn largest() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Fsize).current.unwrap_or(u64::MAX)
}

/// Says how long a file is, and gives it no room: it is one hole.
pub(crate) fn set_len(file: &File, bytes: u64) -> io::Result<()> {
    Ok(rfs::ftruncate(file, bytes)?)
}

/// Gives a part of a file room, so that touching its memory never fails. What has room already stays as it is.
#[cfg_attr(crash_points, track_caller)]
pub(crate) fn allocate(file: &File, from: u64, bytes: u64) -> io::Result<()> {
    crate::sys::sync::point();
    loop {
        match rfs::fallocate(file, FallocateFlags::KEEP_SIZE, from, bytes) {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Bytes that are free in the file system of a directory, for an ordinary user.
pub(crate) fn free_bytes(directory: &Path) -> io::Result<u64> {
    Ok(free(&rfs::statvfs(directory)?))
}

/// Bytes that are free in the file system of a file, for an ordinary user.
pub(crate) fn free_bytes_of(file: &File) -> io::Result<u64> {
    Ok(free(&rfs::fstatvfs(file)?))
}

/// Bytes that there are in the file system of a file, whoever has them.
pub(crate) fn all_bytes_of(file: &File) -> io::Result<u64> {
    let facts = rfs::fstatvfs(file)?;
    Ok(if facts.f_blocks == 0 { u64::MAX } else { facts.f_blocks.saturating_mul(facts.f_frsize) })
}

fn free(facts: &rfs::StatVfs) -> u64 {
    if facts.f_blocks == 0 {
        // A file system without a limit says nothing.
        return u64::MAX;
    }
    facts.f_bavail.saturating_mul(facts.f_frsize)
}

/// Gives a complete file its name; `false` if there is one of that name, or the file has gone.
#[cfg_attr(crash_points, track_caller)]
pub(crate) fn publish(from: &Path, to: &Path) -> io::Result<bool> {
    crate::sys::sync::point();
    match rfs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        // Or somebody has taken it for one that was left behind.
        Err(Errno::EXIST | Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Takes a file's name away.
#[cfg_attr(crash_points, track_caller)]
pub(crate) fn unlink(path: &Path) -> io::Result<()> {
    crate::sys::sync::point();
    Ok(rfs::unlink(path)?)
}

/// Reads the beginning of a file: as much as there is of `bytes`.
pub(crate) fn read_start(file: &File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// When a file was last changed, in seconds.
pub(crate) fn age(path: &Path) -> Option<std::time::Duration> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    let changed = std::time::UNIX_EPOCH + std::time::Duration::from_secs(metadata.mtime().try_into().ok()?);
    changed.elapsed().ok()
}
