//! What can be sent into a channel, and how it gets into its block.

use crate::channel::{
    codec::{Codec, Coded},
    payload::{BYTES_ALIGN, BYTES_HEADER, Payload, Plain},
};

/// What can be sent into a channel that carries `P`: a value of [`Plain`] data, anything that is
/// [`AsRef<[u8]>`](AsRef) for bytes, a value that the codec can write.
///
/// What [`Sender::force_send`](crate::Sender::force_send) and [`Sender::into_sink`](crate::Sender::into_sink) take.
pub trait Sendable<P: Payload + ?Sized> {
    /// Alignment of the block.
    #[doc(hidden)]
    const BLOCK_ALIGN: usize;

    /// Bytes of the block, absurd lengths stay absurd; `None` if the value cannot be written at all.
    #[doc(hidden)]
    fn block_len(&self) -> Option<usize>;

    /// Whether the writer runs code of the user's, which may panic or use the segment.
    #[doc(hidden)]
    const RUNS_CODE: bool = false;

    /// What policies are asked about.
    #[doc(hidden)]
    fn value(&self) -> &P::Value;

    /// What writes the block: `false` if the value cannot be written.
    #[doc(hidden)]
    fn writer(&self) -> impl FnOnce(&mut [u8]) -> bool;
}

impl<T: Plain> Sendable<T> for T {
    const BLOCK_ALIGN: usize = align_of::<T>();

    #[inline(always)]
    fn block_len(&self) -> Option<usize> {
        Some(size_of::<T>())
    }

    fn value(&self) -> &T {
        self
    }

    #[inline(always)]
    fn writer(&self) -> impl FnOnce(&mut [u8]) -> bool {
        |block| {
            block.copy_from_slice(self.as_bytes());
            true
        }
    }
}

impl<B: AsRef<[u8]>> Sendable<[u8]> for B {
    const BLOCK_ALIGN: usize = BYTES_ALIGN;

    #[inline]
    fn block_len(&self) -> Option<usize> {
        Some(framed_len(self.as_ref().len()))
    }

    fn value(&self) -> &[u8] {
        self.as_ref()
    }

    #[inline]
    fn writer(&self) -> impl FnOnce(&mut [u8]) -> bool {
        let slice = self.as_ref();
        move |block| {
            frame(block, |payload| {
                // It may have had another length when it was asked for it.
                payload.get_mut(..slice.len())?.copy_from_slice(slice);
                Some(slice.len())
            })
        }
    }
}

impl<T: 'static, C: Codec<T>> Sendable<Coded<T, C>> for T {
    const BLOCK_ALIGN: usize = BYTES_ALIGN;
    const RUNS_CODE: bool = true;

    fn block_len(&self) -> Option<usize> {
        C::size(self).ok().map(framed_len)
    }

    fn value(&self) -> &T {
        self
    }

    fn writer(&self) -> impl FnOnce(&mut [u8]) -> bool {
        |block| {
            frame(block, |payload| {
                let room = payload.len();
                C::encode_into(self, payload).ok().filter(|len| *len <= room)
            })
        }
    }
}

/// Bytes of a block that holds so many.
pub(super) fn framed_len(len: usize) -> usize {
    len.saturating_add(BYTES_HEADER)
}

/// Writes the length of a payload before it.
pub(super) fn write_header(block: &mut [u8], len: usize) {
    block[..BYTES_HEADER].fill(0);
    block[..8].copy_from_slice(&(len as u64).to_ne_bytes());
}

/// Lets `fill` write the payload, and writes its length before it.
#[inline]
fn frame(block: &mut [u8], fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
    let len = fill(&mut block[BYTES_HEADER..]);
    write_header(block, len.unwrap_or(0));
    len.is_some()
}
