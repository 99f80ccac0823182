//! Files of segments: a private directory, temporary files that become visible when they are complete, and descriptors.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self as rfs, AtFlags, CWD, FallocateFlags, FileType, MemfdFlags, Mode, OFlags, RenameFlags, SealFlags},
    io::Errno,
};

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

/// The directory of segments unless told otherwise.
pub(crate) fn default_directory() -> PathBuf {
    std::env::var_os("WATERWAY_DIR")
        .map_or_else(|| PathBuf::from(format!("/dev/shm/waterway-{}", user())), PathBuf::from)
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
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    crate::sys::sync::point();
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rfs::open(path, flags, Mode::from_raw_mode(FILE_MODE))?;
    // Whatever the process's mask says.
    rfs::fchmod(&file, Mode::from_raw_mode(FILE_MODE))?;
    Ok(file.into())
}

/// Opens a file that is there. A link is an error, and so is everything that could block.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(rfs::open(path, flags, Mode::empty())?.into())
}

/// An anonymous file.
pub(crate) fn anonymous() -> io::Result<File> {
    Ok(rfs::memfd_create("waterway", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?.into())
}

/// Nobody can make the anonymous file larger or smaller from now on.
pub(crate) fn seal(file: &File) -> io::Result<()> {
    Ok(rfs::fcntl_add_seals(file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?)
}

/// The same file again, with locks of its own.
pub(crate) fn reopen(file: &OwnedFd) -> io::Result<File> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rfs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?.into())
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

fn free(facts: &rfs::StatVfs) -> u64 {
    if facts.f_blocks == 0 {
        // A file system without a limit says nothing.
        return u64::MAX;
    }
    facts.f_bavail.saturating_mul(facts.f_frsize)
}

/// Gives a complete file its name, unless there is one of that name: then `false`.
#[cfg_attr(crash_points, track_caller)]
pub(crate) fn publish(from: &Path, to: &Path) -> io::Result<bool> {
    crate::sys::sync::point();
    match rfs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
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
