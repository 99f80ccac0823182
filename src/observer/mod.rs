//! Looking into a segment without being in it.
//!
//! An [`Observer`] has a descriptor of the segment's file that can only be read, and reads it by `pread(2)`. It takes no slot and no lock,
//! starts no thread, maps nothing, and writes nothing: nobody in the segment can notice it, and nothing that befalls the file can do
//! more to it than an error. What it reads it copies (`source`), and looks at the copies through the same views as everybody else
//! looks at the segment: rings, logs and entries are what they are in one place only.
//!
//! # What it can rely on
//!
//! A copy is not of one moment. What each figure means then:
//!
//! * A ring's cells only go forward, and the hints are read before them; so what is counted as sent (received) had been sent
//!   (received) by the end of the look, and whatever had been by its beginning is counted.
//! * What is looked at for longer, such as a message's payload, is looked at again: the word of its block, and the cell. If both are
//!   what they were, nobody has taken the message before the last of its bytes was read.
//! * An entry of the directory is read before and after all that it names. If it is another channel's by then, the look is repeated.
//!
//! Offsets and lengths that come from the segment are compared with those of its layout, which is computed here, before they are used.

mod channels;
mod error;
mod follow;
mod memory;
mod participants;
mod peek;
mod source;
mod words;

pub use self::{
    channels::{ChannelView, GroupView},
    error::ObserveError,
    follow::{Followed, Follower},
    memory::MemoryView,
    participants::ParticipantView,
    peek::Peeked,
};

use std::{
    io,
    ops::Deref,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use crate::{
    OpenError,
    observer::{source::Source, words::Words},
    region::{
        checks::{check_directory, check_file, io_error, not_a_segment},
        config::Config,
        layout::{ChannelEntry, FLAG_PERSISTENT, LaneLine, ParticipantSlot, StaticHeader},
        name::Name,
    },
    sys::{copied::Copied, file, shared::SharedSlice, sync::AtomicU64},
};

/// Looks into a segment without being in it: read only, beside anybody at work, in segments of the dead, and in damaged ones.
///
/// It takes no place in the segment and no lock, and writes nothing. It cannot wake, hold up or bury anybody. Each method reads anew;
/// none of them waits. What they tell may be old by the time it is read, as others go on working.
///
/// A method that says only what there is says nothing of what cannot be read; its namesake that begins with `try_` says why.
///
/// ```
/// # let directory = std::env::temp_dir().join(format!("waterway-doc-observer-{}", std::process::id()));
/// # unsafe { std::env::set_var("WATERWAY_DIR", &directory) };
/// use waterway::{Observer, Segment};
///
/// let market = Segment::open_or_create("market")?;
/// let (sender, receiver) = market.bytes("lines").open()?;
/// sender.try_send("first")?;
///
/// // In any process:
/// let observer = Observer::open("market")?;
/// let lines = &observer.channels()[0];
/// assert_eq!((lines.name.as_str(), lines.depth, lines.senders), ("lines", 1, 1));
/// assert_eq!(observer.peek("lines", 10)[0].bytes, b"first");
/// assert_eq!(observer.participants().len(), 1);
/// // It is still there.
/// assert_eq!(&*receiver.try_recv()?, b"first");
/// # drop((sender, receiver, market));
/// # std::fs::remove_dir_all(directory).unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Observer {
    source: Source,
    header: StaticHeader,
}

impl Observer {
    /// Looks into the segment of that name, in the default directory.
    ///
    /// # Errors
    ///
    /// [`OpenError::NotFound`] if there is none; any other [`OpenError`] that says what the file is instead.
    pub fn open(name: &str) -> Result<Self, OpenError> {
        let directory = Config::default().directory();
        let path = directory.join(Name::new(name)?.as_str());
        match file::facts_of_path(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(OpenError::NotFound { path }),
            _ => check_directory(&directory).and_then(|()| Self::open_path(path)),
        }
    }

    /// Looks into the segment whose file that is.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn open_path(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let path = path.into();
        let file = file::open_to_read(&path).map_err(|source| match source.raw_os_error() {
            Some(libc::ENOENT) => OpenError::NotFound { path: path.clone() },
            Some(libc::ELOOP) => not_a_segment(&path, "it is a symbolic link"),
            _ => io_error("could not open", &path)(source),
        })?;
        let header = check_file(&path, &file, true)?;
        Ok(Self { source: Source::new(file, path, header.layout.end), header })
    }

    /// The segment's name, by that of its file.
    pub fn name(&self) -> &str {
        self.path().file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// Where the file was when it was opened.
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// What makes the segment this one, whatever its name.
    pub fn id(&self) -> Uuid {
        Uuid::from_bytes(self.header.uuid)
    }

    /// Whether the segment stays when nobody is in it.
    pub fn is_persistent(&self) -> bool {
        self.header.params.flags & FLAG_PERSISTENT != 0
    }

    fn words(&self) -> Result<Words<'_>, ObserveError> {
        Words::new(&self.source, &self.header.layout)
    }

    /// A copy of a table, or of a part of it.
    fn table<T: Atomics>(&self, at: u64, len: usize) -> Result<Table<T>, ObserveError> {
        let copied = self.source.copy(at, (len * size_of::<T>()) as u64)?;
        // SAFETY: atomics, as the trait says; the copy stays with the view.
        let view = unsafe { copied.slice(0, len) };
        Ok(Table { view, copied })
    }
}

/// What is made of atomics only, as long as some words.
///
/// # Safety
///
/// Any bits are a value.
unsafe trait Atomics {}

// SAFETY: structs of atomics, by their definitions in `layout`.
unsafe impl Atomics for ParticipantSlot {}
// SAFETY: as above.
unsafe impl Atomics for LaneLine {}
// SAFETY: as above.
unsafe impl Atomics for ChannelEntry {}
// SAFETY: an atomic.
unsafe impl Atomics for AtomicU64 {}

/// A copy of a table.
struct Table<T> {
    /// Of the copy.
    view: SharedSlice<T>,
    copied: Copied,
}

impl<T> Table<T> {
    /// For views that do not outlive this.
    fn view(&self) -> SharedSlice<T> {
        self.view
    }
}

impl<T> Deref for Table<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        debug_assert!(size_of_val(&*self.view) <= self.copied.place().1);
        &self.view
    }
}
