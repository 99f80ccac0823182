//! What can be sent into a channel, and how it gets into its block.

use zerocopy::IntoBytes;

use crate::{
    channel::{
        codec::{Codec, Coded},
        payload::{BYTES_ALIGN, BYTES_HEADER, Payload, Plain, header},
    },
    raw::{Framed, Raw},
    sys::prefetch,
};

mod sealed {
    use super::{Codec, Coded, Framed, Payload, Plain, Raw};

    /// Who sends has a lane in its hands while some of these write, so no others may be made.
    pub trait Sealed<P: Payload + ?Sized> {}

    impl<T: Plain> Sealed<T> for T {}
    impl<T: Plain, B: AsRef<[T]>> Sealed<[T]> for B {}
    impl<T: 'static, C: Codec<T>> Sealed<Coded<T, C>> for T {}
    impl<B: AsRef<[u8]>> Sealed<Raw> for Framed<B> {}
}

/// What can be sent into a channel that carries `P`: a value of [`Plain`] data, anything that is
/// [`AsRef<[T]>`](AsRef) for slices, a value that the codec can write.
///
/// It cannot be implemented for other types: a [`Codec`] writes what these cannot.
///
/// What [`Sender::force_send`](crate::Sender::force_send) and [`Sender::into_sink`](crate::Sender::into_sink) take.
pub trait Sendable<P: Payload + ?Sized>: sealed::Sealed<P> {
    /// Alignment of the block.
    #[doc(hidden)]
    fn block_align(&self) -> usize;

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
    #[inline(always)]
    fn block_align(&self) -> usize {
        align_of::<T>()
    }

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

impl<T: Plain, B: AsRef<[T]>> Sendable<[T]> for B {
    #[inline(always)]
    fn block_align(&self) -> usize {
        header::<T>()
    }

    #[inline]
    fn block_len(&self) -> Option<usize> {
        Some(elements_len::<T>(self.as_ref().len()))
    }

    fn value(&self) -> &[T] {
        self.as_ref()
    }

    #[inline]
    fn writer(&self) -> impl FnOnce(&mut [u8]) -> bool {
        let bytes = self.as_ref().as_bytes();
        move |block| {
            prefetch::block_for_write(block.as_ptr(), block.len());
            frame(block, header::<T>(), |payload| {
                // It may have had another length when it was asked for it.
                payload.get_mut(..bytes.len())?.copy_from_slice(bytes);
                Some(bytes.len())
            })
        }
    }
}

impl<T: 'static, C: Codec<T>> Sendable<Coded<T, C>> for T {
    const RUNS_CODE: bool = true;

    fn block_align(&self) -> usize {
        BYTES_ALIGN
    }

    fn block_len(&self) -> Option<usize> {
        C::size(self).ok().map(elements_len::<u8>)
    }

    fn value(&self) -> &T {
        self
    }

    fn writer(&self) -> impl FnOnce(&mut [u8]) -> bool {
        |block| {
            frame(block, BYTES_HEADER, |payload| {
                let room = payload.len();
                C::encode_into(self, payload).ok().filter(|len| *len <= room)
            })
        }
    }
}

impl<B: AsRef<[u8]>> Sendable<Raw> for Framed<B> {
    fn block_align(&self) -> usize {
        Self::block_align(self)
    }

    fn block_len(&self) -> Option<usize> {
        Self::block_len(self)
    }

    fn value(&self) -> &[u8] {
        self.bytes()
    }

    fn writer(&self) -> impl FnOnce(&mut [u8]) -> bool {
        |block| {
            // They may have had another length when they were asked for it.
            let bytes = self.bytes();
            let Some(header) = self.header() else {
                let fits = block.len() == bytes.len();
                if fits {
                    block.copy_from_slice(bytes);
                }
                return fits;
            };
            frame(block, header, |payload| {
                payload.get_mut(..bytes.len())?.copy_from_slice(bytes);
                Some(bytes.len())
            })
        }
    }
}

/// Bytes of a block that holds so many elements.
pub(super) fn elements_len<T>(elements: usize) -> usize {
    elements.saturating_mul(size_of::<T>()).saturating_add(header::<T>())
}

/// Writes the length of a payload before it, in bytes.
pub(super) fn write_header(block: &mut [u8], header: usize, len: usize) {
    block[..header].fill(0);
    block[..8].copy_from_slice(&(len as u64).to_ne_bytes());
}

/// Lets `fill` write the payload, and writes its length into the header before it.
#[inline]
fn frame(block: &mut [u8], header: usize, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
    let len = fill(&mut block[header..]);
    write_header(block, header, len.unwrap_or(0));
    len.is_some()
}
