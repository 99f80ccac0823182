//! Why a segment or a channel could not be opened.

use std::{io, path::PathBuf};

use crate::alloc::AllocError;

/// Why a segment or a channel could not be opened, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The name cannot be used.
    #[error(
        "the name {name:?} is not possible: use 1 to 128 letters, digits, '.', '_' and '-', not beginning with '.'"
    )]
    InvalidName {
        /// The name.
        name: String,
    },
    /// The options contradict one another, or ask for too much.
    #[error("{0}")]
    InvalidOptions(String),
    /// There is no segment of that name.
    #[error("there is no segment {}: create it, or set WATERWAY_DIR to where it is", path.display())]
    NotFound {
        /// Where it would be.
        path: PathBuf,
    },
    /// Somebody is using a segment of that name.
    #[error("the segment {} exists: open it, or remove it first", path.display())]
    AlreadyExists {
        /// Where it is.
        path: PathBuf,
    },
    /// The file system has no room for the segment.
    #[error(
        "{} has {} MiB free, the segment needs {} MiB: make it larger, choose a smaller size, or set WATERWAY_DIR",
        path.display(), free >> 20, needed.div_ceil(1 << 20)
    )]
    NoRoom {
        /// The directory.
        path: PathBuf,
        /// Bytes that the segment needs.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// A limit of this process or its user does not allow for the segment.
    #[error(
        "{} needs {} MiB, which is more than {limit} allows for: raise that, or make the segment with a smaller size and \
         max_size", path.display(), needed.div_ceil(1 << 20)
    )]
    Limited {
        /// The segment.
        path: PathBuf,
        /// Bytes that it needs.
        needed: u64,
        /// Which limit it is.
        limit: &'static str,
    },
    /// The tables of the segment do not fit into its size.
    #[error(
        "a segment of {size} bytes is too small for its tables: it needs {needed} bytes, or fewer participants and channels"
    )]
    TooSmall {
        /// Bytes asked for.
        size: u64,
        /// Bytes that are needed at least.
        needed: u64,
    },
    /// The file is something else.
    #[error("{} is not a segment: {reason}", path.display())]
    NotASegment {
        /// The file.
        path: PathBuf,
        /// What it is, or lacks.
        reason: String,
    },
    /// The file or directory belongs to somebody else.
    #[error("{} belongs to user {owner}, not to user {expected}: a segment is shared by processes of one user", path.display())]
    WrongOwner {
        /// The file or directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        expected: u32,
    },
    /// Others may read or write the file or directory.
    #[error("{} has mode {mode:04o}: others must have no access, so make it {expected:04o}", path.display())]
    WrongMode {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode it should have.
        expected: u32,
    },
    /// The segment was made by another version.
    #[error("{} has layout version {found}, this program knows version {expected}: use the same version of waterway", path.display())]
    WrongVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// The segment was made by another kind of machine or program.
    #[error("{} cannot be used here: {what}", path.display())]
    Incompatible {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// The file is shorter than it says.
    #[error("{} is truncated: {found} bytes of {expected}; remove it", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes it has.
        found: u64,
        /// Bytes it should have.
        expected: u64,
    },
    /// What stands in the segment makes no sense.
    #[error("{} is damaged: {what}; remove it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// All places for processes are taken.
    #[error(
        "{limit} processes are attached, and no more can be: make the segment for more (SegmentOptions::participants)"
    )]
    TooManyParticipants {
        /// Processes that can be attached.
        limit: u32,
    },
    /// All places for channels are taken.
    #[error("the segment has {limit} channels, and no more can be: make it for more (SegmentOptions::channels)")]
    TooManyChannels {
        /// Channels that there can be.
        limit: usize,
    },
    /// There is no memory for what a channel needs.
    #[error("no memory for {what}: {source}")]
    OutOfMemory {
        /// What it is for.
        what: String,
        /// What the allocator says.
        source: AllocError,
    },
    /// The channel is there, and is another one than asked for.
    #[error(
        "channel {channel:?} is {found}, asked for was {expected}{}open it as what it is, or choose another name",
        if expected.contains('\n') { "\n" } else { ": " }
    )]
    Mismatch {
        /// The channel.
        channel: String,
        /// What was asked for. If the types are called the same and differ, there is a line for each thing that does.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The handle was inherited through `fork`.
    #[error("this process was forked from the one that opened the segment: open it again here")]
    Forked,
    /// Somebody who comes into the segment, buries another in it, or removes it, does not get on.
    #[error(
        "somebody who comes into {}, buries another there, or removes it has been stopped: continue or end that process",
        path.display()
    )]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A descriptor is opened anew through `/proc`, which is not there.
    #[error(
        "an anonymous segment is opened anew through /proc/self/fd, which is not there ({source}): mount /proc, or give the \
         segment a name"
    )]
    NoProc {
        /// What the kernel says.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was to be done.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
}
