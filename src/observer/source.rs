//! Reading a segment's file, with nothing but `pread(2)`: whatever becomes of the file, this fails and does nothing worse.
//!
//! A word may change while the kernel copies it, in the middle even. So everything is read twice: a word that was the same both times
//! stood there so. One that was not is read by itself until it is, or often enough; of a word that never rests the last look counts.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::{
    observer::error::ObserveError,
    sys::{copied::Copied, file},
};

/// How often a word is read that changes.
const LOOKS: usize = 8;
/// How many bytes are compared at a time.
const CHUNK: usize = 1 << 16;
const WORD: usize = size_of::<u64>();

/// The file of a segment. No offset in it is trusted.
#[derive(Debug)]
pub(super) struct Source {
    file: File,
    path: PathBuf,
    /// Bytes that its header says it has.
    end: u64,
}

impl Source {
    pub(super) fn new(file: File, path: PathBuf, end: u64) -> Self {
        Self { file, path, end }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of memory that the file has now.
    pub(super) fn taken(&self) -> Result<u64, ObserveError> {
        file::facts_of(&self.file).map(|facts| facts.taken).map_err(|source| self.io(source))
    }

    fn io(&self, source: io::Error) -> ObserveError {
        ObserveError::Io { path: self.path.clone(), source }
    }

    /// Fills `bytes` with what stands at an offset: all of it, or it is an error.
    pub(super) fn read(&self, at: u64, bytes: &mut [u8]) -> Result<(), ObserveError> {
        if at.checked_add(bytes.len() as u64).is_none_or(|end| end > self.end) {
            return Err(ObserveError::Damaged { what: format!("an offset of {at}") });
        }
        self.file.read_exact_at(bytes, at).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => ObserveError::Truncated { path: self.path.clone(), at },
            _ => self.io(source),
        })
    }

    /// A word that rests, or its last value.
    pub(super) fn word(&self, at: u64) -> Result<u64, ObserveError> {
        let look = || {
            let mut word = [0; WORD];
            self.read(at, &mut word).map(|()| u64::from_ne_bytes(word))
        };
        let mut word = look()?;
        for _ in 0..LOOKS {
            let again = look()?;
            if again == word {
                break;
            }
            word = again;
        }
        Ok(word)
    }

    /// Fills `bytes`, whole words, with words that rest, or their last values.
    fn read_words(&self, at: u64, bytes: &mut [u8]) -> Result<(), ObserveError> {
        let mut again = vec![0; bytes.len().min(CHUNK)];
        let mut at = at;
        for chunk in bytes.chunks_mut(CHUNK) {
            let again = &mut again[..chunk.len()];
            self.read(at, chunk)?;
            self.read(at, again)?;
            for (index, (word, other)) in chunk.chunks_exact_mut(WORD).zip(again.chunks_exact(WORD)).enumerate() {
                if word != other {
                    word.copy_from_slice(&self.word(at + (index * WORD) as u64)?.to_ne_bytes());
                }
            }
            at += chunk.len() as u64;
        }
        Ok(())
    }

    /// So many words that rest, or their last values.
    pub(super) fn words(&self, at: u64, words: usize) -> Result<Vec<u64>, ObserveError> {
        let mut bytes = self.room(words.saturating_mul(WORD) as u64)?;
        self.read_words(at, &mut bytes)?;
        let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
        Ok(bytes.chunks_exact(WORD).map(word).collect())
    }

    /// A copy of so many bytes, whole words.
    pub(super) fn copy(&self, at: u64, bytes: u64) -> Result<Copied, ObserveError> {
        let none = || ObserveError::NoMemory { bytes };
        let mut copied = usize::try_from(bytes).ok().and_then(Copied::new).ok_or_else(none)?;
        self.read_words(at, copied.bytes_mut())?;
        Ok(copied)
    }

    /// So many zeros, if there is memory for them.
    pub(super) fn room(&self, bytes: u64) -> Result<Vec<u8>, ObserveError> {
        let none = || ObserveError::NoMemory { bytes };
        let len = usize::try_from(bytes).map_err(|_| none())?;
        let mut room = Vec::new();
        room.try_reserve_exact(len).map_err(|_| none())?;
        room.resize(len, 0);
        Ok(room)
    }
}
