//! Locks on bytes of a file that belong to an open file description: proof of life.
//!
//! Reference: `fcntl(2)`, open file description locks (Linux 3.15). The kernel releases them when the last descriptor of
//! the description is closed, however the process ends; they work across PID namespaces; and they conflict between two
//! descriptions even within a process, but never within one description.

use std::{io, os::fd::AsRawFd};

/// Where the bytes begin: far behind the data, so that locks and data never meet.
const BASE: i64 = 1 << 62;

fn request(kind: libc::c_int, from: u32, len: u32) -> libc::flock {
    // SAFETY: `flock` is plain data, for which zeros are a value; an OFD lock demands a zero pid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = BASE + i64::from(from);
    lock.l_len = i64::from(len);
    lock
}

/// Takes the write lock of `len` bytes at once, or finds that somebody else has one of them.
#[cfg_attr(crash_points, track_caller)]
pub(crate) fn try_lock(file: &impl AsRawFd, from: u32, len: u32) -> io::Result<bool> {
    crate::sys::sync::point();
    let lock = request(libc::F_WRLCK, from, len);
    // SAFETY: the descriptor is open, and the lock outlives the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Gives up the lock of `len` bytes.
#[cfg_attr(crash_points, track_caller)]
pub(crate) fn unlock(file: &impl AsRawFd, from: u32, len: u32) {
    crate::sys::sync::point();
    let lock = request(libc::F_UNLCK, from, len);
    // SAFETY: as above. Unlocking cannot fail for a valid range.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
}

/// How many of `len` bytes other open file descriptions have the locks of.
pub(crate) fn held_by_others(file: &impl AsRawFd, from: u32, len: u32) -> usize {
    let (mut at, end, mut held) = (i64::from(from), i64::from(from) + i64::from(len), 0);
    while at < end {
        let mut lock = request(libc::F_WRLCK, at as u32, (end - at) as u32);
        // SAFETY: as above; the kernel writes into the lock, which one of those that are in the way has.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
        if result != 0 || i32::from(lock.l_type) == libc::F_UNLCK {
            break;
        }
        let (first, last) = ((lock.l_start - BASE).max(at), (lock.l_start - BASE + lock.l_len).min(end));
        held += (last - first).max(1) as usize;
        at = last.max(at + 1);
    }
    held
}

/// Whether another open file description has the lock of a byte. A kernel that does not answer counts as yes: nobody is
/// taken for dead without proof.
pub(crate) fn is_locked_by_other(file: &impl AsRawFd, byte: u32) -> bool {
    let mut lock = request(libc::F_WRLCK, byte, 1);
    // SAFETY: as above; the kernel writes into the lock.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    result != 0 || i32::from(lock.l_type) != libc::F_UNLCK
}
