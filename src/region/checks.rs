//! What is looked at before a file is mapped: nothing that stands in it is taken on trust.

use std::{fs::File, io, path::Path};

use zerocopy::{FromZeros, IntoBytes};

use crate::{
    region::{
        config::{MAX_CHANNELS, MAX_SIZE, checksum},
        error::OpenError,
        layout::{
            ENDIAN_MARK, FLAG_PERSISTENT, FLAGS_END, LAYOUT_VERSION, Layout, MAGIC, MAX_LANES, MAX_MAGAZINES,
            MAX_PARTICIPANTS, PAGE, StaticHeader, are_granules,
        },
    },
    sys::file::{self, DIRECTORY_MODE, FILE_MODE},
};

/// What the kernel refused, with what.
pub(crate) fn io_error<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> OpenError + 'a {
    move |source| OpenError::Io { what, path: path.to_owned(), source }
}

/// Why a file of so many bytes was not mapped.
pub(super) fn map_error(path: &Path, bytes: u64) -> impl Fn(io::Error) -> OpenError + '_ {
    move |source| match source.raw_os_error() {
        Some(libc::ENOMEM) => {
            OpenError::Limited { path: path.to_owned(), needed: bytes, limit: "the limit of address space (ulimit -v)" }
        }
        Some(libc::EAGAIN) => {
            let limit = "the limit of locked memory (ulimit -l) of a process that locks what it maps (mlockall)";
            OpenError::Limited { path: path.to_owned(), needed: bytes, limit }
        }
        _ => io_error("could not map", path)(source),
    }
}

/// There is something else.
pub(crate) fn not_a_segment(path: &Path, reason: &str) -> OpenError {
    OpenError::NotASegment { path: path.to_owned(), reason: reason.to_owned() }
}

/// Whether a directory is ours alone.
pub(crate) fn check_directory(directory: &Path) -> Result<(), OpenError> {
    let facts = file::facts_of_path(directory).map_err(io_error("could not look at", directory))?;
    if !facts.is_directory {
        return Err(not_a_segment(directory, "the place of segments must be a directory, and no link to one"));
    }
    check_owner(directory, facts.owner)?;
    if facts.mode & 0o077 != 0 {
        return Err(OpenError::WrongMode { path: directory.to_owned(), mode: facts.mode, expected: DIRECTORY_MODE });
    }
    Ok(())
}

fn check_owner(path: &Path, owner: u32) -> Result<(), OpenError> {
    let expected = file::user();
    if owner == expected { Ok(()) } else { Err(OpenError::WrongOwner { path: path.to_owned(), owner, expected }) }
}

/// Whether the path leads to this very file.
pub(super) fn has_name(path: &Path, file: &File) -> bool {
    match (file::facts_of_path(path), file::facts_of(file)) {
        (Ok(there), Ok(here)) => there.identity == here.identity,
        _ => false,
    }
}

/// What a file is that begins as a segment.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) uuid: [u8; 16],
    pub(super) size: u64,
    pub(super) version: u32,
    pub(super) persistent: bool,
    /// Why it cannot be opened.
    pub(super) problem: Option<OpenError>,
}

/// Its header, as far as there is one, whatever the version; `None` if it does not begin as a segment.
fn header_of(file: &File) -> Option<StaticHeader> {
    let mut header = StaticHeader::new_zeroed();
    let read = file::read_start(file, header.as_mut_bytes()).ok()?;
    (read >= FLAGS_END && header.magic == MAGIC).then_some(header)
}

/// What a file is; `None` if it does not begin as a segment.
pub(super) fn judge(path: &Path, file: &File) -> Option<Judged> {
    let header = header_of(file)?;
    let problem = check_file(path, file, true).err();
    let is_ours = header.version == LAYOUT_VERSION && header.endian == ENDIAN_MARK;
    let size = match is_ours {
        true => header.params.size,
        false => file::facts_of(file).map_or(0, |facts| facts.size),
    };
    let persistent = is_persistent(&header);
    Some(Judged { uuid: header.uuid, size, version: header.version, persistent, problem })
}

/// Whether it is to stay when nobody lives in it. What is of the other byte order is: nobody knows.
fn is_persistent(header: &StaticHeader) -> bool {
    header.endian != ENDIAN_MARK || header.params.flags & FLAG_PERSISTENT != 0
}

/// Whether a file is to stay even if nobody lives in it: what is meant to, and what may be no segment at all. `checked` is what came
/// of the [check](check_file). What another version or another kind of program has left behind is nobody's, as what ours has.
pub(super) fn is_here_to_stay(file: &File, checked: &Result<StaticHeader, OpenError>) -> bool {
    match checked {
        Ok(header) => is_persistent(header),
        Err(OpenError::WrongVersion { .. } | OpenError::Incompatible { .. }) => {
            header_of(file).is_none_or(|header| is_persistent(&header))
        }
        Err(_) => true,
    }
}

/// Everything that can be known of a file without mapping it.
pub(crate) fn check_file(path: &Path, file: &File, named: bool) -> Result<StaticHeader, OpenError> {
    let facts = file::facts_of(file).map_err(io_error("could not look at", path))?;
    if !facts.is_file {
        return Err(not_a_segment(path, "it is no regular file"));
    }
    check_owner(path, facts.owner)?;
    if named && facts.mode & 0o777 != FILE_MODE {
        return Err(OpenError::WrongMode { path: path.to_owned(), mode: facts.mode, expected: FILE_MODE });
    }
    if named && facts.has_links {
        return Err(not_a_segment(path, "it has a second name (a hard link)"));
    }
    let mut header = StaticHeader::new_zeroed();
    let read = file::read_start(file, header.as_mut_bytes()).map_err(io_error("could not read", path))?;
    if read < header.as_bytes().len() {
        return Err(not_a_segment(path, "it is shorter than a header"));
    }
    check_header(path, &header)?;
    let expected = header.layout.end;
    if facts.size < expected {
        return Err(OpenError::Truncated { path: path.to_owned(), found: facts.size, expected });
    }
    if facts.size > expected {
        return Err(damaged(path, format!("it has {} bytes, its header says {expected}", facts.size)));
    }
    Ok(header)
}

fn damaged(path: &Path, what: String) -> OpenError {
    OpenError::Damaged { path: path.to_owned(), what }
}

fn check_header(path: &Path, header: &StaticHeader) -> Result<(), OpenError> {
    let incompatible = |what: String| Err(OpenError::Incompatible { path: path.to_owned(), what });
    if header.magic != MAGIC {
        return Err(not_a_segment(path, "it does not begin as one"));
    }
    if header.endian == ENDIAN_MARK.swap_bytes() {
        return incompatible("it was made on a machine of the other byte order".into());
    }
    if header.endian != ENDIAN_MARK {
        return Err(damaged(path, "the mark of the byte order".into()));
    }
    if header.version != LAYOUT_VERSION {
        return Err(OpenError::WrongVersion { path: path.to_owned(), found: header.version, expected: LAYOUT_VERSION });
    }
    if header.checksum != checksum(header) {
        return Err(damaged(path, "the checksum of its header".into()));
    }
    if header.required != 0 {
        return incompatible(format!("it needs features {:#x} that this program does not know", header.required));
    }
    if u64::from(header.page_size) != file::page_size() {
        return incompatible(format!("it was made for pages of {} bytes", header.page_size));
    }
    if header.pointer_bits != usize::BITS {
        return incompatible(format!("it was made by a program of {} bits", header.pointer_bits));
    }
    let params = &header.params;
    let sensible = (1..=MAX_PARTICIPANTS).contains(&params.participants)
        && (1..=MAX_LANES).contains(&params.lanes)
        && params.lanes >= params.participants
        && (1..=MAX_CHANNELS).contains(&params.channels)
        && params.magazines <= MAX_MAGAZINES
        && are_granules(&params.granules)
        && params.reserved == [0; 4]
        && params.max_size <= MAX_SIZE
        && params.size.is_multiple_of(PAGE)
        && params.max_size.is_multiple_of(PAGE);
    if !sensible || Layout::compute(params) != Ok(header.layout) {
        return Err(damaged(path, "its layout".into()));
    }
    Ok(())
}
