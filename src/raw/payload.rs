//! What raw ends send and receive, as channels see it.

use crate::{
    attachment::{
        directory::{Shape, element_size},
        lease::Lease,
        policies::Marks,
    },
    channel::{Arrival, Payload, header_of},
    schema::Schema,
};

/// A payload of whatever type: the whole block. Where in it the bytes are follows from the channel, see [`Frame`].
pub(crate) struct Raw;

impl Payload for Raw {
    const SIZE: u64 = u64::MAX;
    const ALIGN: u64 = 1;
    type Held = Lease;
    type Value = [u8];

    fn schema() -> Schema {
        Schema::bytes()
    }

    fn arrive(block: Arrival) -> Option<Lease> {
        Some(block.into_lease())
    }

    fn judge(held: &Lease, rules: &dyn Fn(&[u8]) -> Marks) -> Option<Marks> {
        Some(rules(held.bytes()))
    }
}

/// How the payloads of a channel stand in their blocks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Frame {
    /// A value of that size.
    Value { size: usize, align: usize },
    /// Elements, or bytes, behind a header that has the number of their bytes.
    Elements { size: usize, align: usize },
}

impl Frame {
    /// `None` if no type is like that: then somebody has overwritten the entry.
    pub(super) fn of(shape: &Shape) -> Option<Self> {
        let align = usize::try_from(shape.payload_align).ok().filter(|align| align.is_power_of_two())?;
        let largest = isize::MAX as usize - align;
        let size = usize::try_from(element_size(shape.payload_size).unwrap_or(shape.payload_size)).ok()?;
        (size <= largest).then_some(match element_size(shape.payload_size) {
            None => Self::Value { size, align },
            Some(_) => Self::Elements { size, align },
        })
    }

    /// Alignment of the block.
    fn align(self) -> usize {
        match self {
            Self::Value { align, .. } => align,
            Self::Elements { align, .. } => header_of(align),
        }
    }

    /// Where the payload is in a block; `None` if it cannot be there.
    pub(super) fn find(self, block: &[u8]) -> Option<(usize, usize)> {
        match self {
            Self::Value { size, .. } => (size <= block.len()).then_some((0, size)),
            Self::Elements { size, align } => {
                let len = u64::from_ne_bytes(*block.first_chunk()?);
                let (len, header) = (usize::try_from(len).ok()?, header_of(align));
                (len.is_multiple_of(size) && len <= block.len().checked_sub(header)?).then_some((header, len))
            }
        }
    }
}

/// Bytes that are to be sent into a channel whose payloads stand so.
pub(crate) struct Framed<B> {
    pub(super) bytes: B,
    pub(super) frame: Frame,
}

impl<B: AsRef<[u8]>> Framed<B> {
    /// What [`Sendable`](crate::channel::Sendable) has to say of it.
    pub(crate) fn block_align(&self) -> usize {
        self.frame.align()
    }

    /// Bytes of the block; `None` if a payload of the channel has another length.
    pub(crate) fn block_len(&self) -> Option<usize> {
        let len = self.bytes.as_ref().len();
        match self.frame {
            Frame::Value { size, .. } => (len == size).then_some(size),
            Frame::Elements { size, align } => len.is_multiple_of(size).then(|| len.saturating_add(header_of(align))),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// Bytes of the header that stands before them.
    pub(crate) fn header(&self) -> Option<usize> {
        match self.frame {
            Frame::Value { .. } => None,
            Frame::Elements { align, .. } => Some(header_of(align)),
        }
    }
}
