//! Where the text of a channel's schema stands: behind its rings, in the same block, for as long as the channel.
//!
//! It is there for messages to people. What is compared is the hash in the entry, and a text is shown only if it has that hash. So it
//! may be read without a pin, while somebody takes the channel down: then it is not shown.

use std::sync::atomic::Ordering;

use crate::{
    attachment::{
        Attachment,
        directory::{Described, Place, Shape, store_text},
    },
    region::{fnv1a, lanes::LaneId, layout::MAX_PAYLOAD_NAME},
    sys::{shared::SharedSlice, sync::AtomicU64},
};

/// The longest text that is put there.
const LONGEST: usize = 16 << 10;

/// Says in the shape where the text comes. Returns the bytes of the block.
pub(super) fn place_behind(rings: usize, schema: &str, shape: &mut Shape) -> usize {
    let offset = rings.next_multiple_of(8);
    match u32::try_from(offset) {
        Ok(offset) if shape.payload_size > 0 && schema.len() <= LONGEST => {
            shape.schema = Some(Place { offset, len: schema.len() as u32 });
            offset as usize + schema.len().next_multiple_of(8)
        }
        _ => rings,
    }
}

/// Whether the name in an entry, which may have been cut, is that of the type.
pub(super) fn are_called_the_same(in_entry: &str, name: &str) -> bool {
    in_entry == name || name.len() > MAX_PAYLOAD_NAME && name.as_bytes().starts_with(in_entry.as_bytes())
}

impl Attachment {
    /// The words of the text, if they are within the block of the rings.
    fn words_of_schema(&self, described: &Described) -> Option<(SharedSlice<AtomicU64>, usize)> {
        let Place { offset, len } = described.shape.schema?;
        let (offset, len) = (offset as usize, len as usize);
        let block = self.allocator.owned_by(described.ring, described.ring_generation, LaneId::SEGMENT)?;
        let words = len.div_ceil(8);
        if !offset.is_multiple_of(8) || len > LONGEST || self.allocator.bytes_of(block) < offset + 8 * words {
            return None;
        }
        // SAFETY: within the block (checked), which is in the mapping for as long as we are, at a multiple of 8 bytes. Atomics, of
        // which any bits are a value.
        let text = unsafe { SharedSlice::new(self.data(block).add(offset).cast::<AtomicU64>(), words) };
        Some((text, len))
    }

    /// Writes the text of a new channel.
    pub(super) fn write_schema(&self, index: usize, schema: &str) {
        if let Some((words, _)) = self.words_of_schema(&self.directory.read(index)) {
            store_text(&words, schema);
        }
    }

    /// What a channel is that has one of our ends, and the text of its schema.
    pub(crate) fn shape_and_schema(&self, index: usize) -> (Shape, Option<String>) {
        let described = self.directory.read(index);
        let schema = self.schema_of(&described);
        (described.shape, schema)
    }

    /// The text of a channel; `None` if it is not there, or is not what the entry says.
    pub(super) fn schema_of(&self, described: &Described) -> Option<String> {
        let (words, len) = self.words_of_schema(described)?;
        // Ordering: Relaxed: the state that was read before says that it is published; if it has changed since, the hash is wrong.
        let bytes = words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes());
        let text = String::from_utf8(bytes.take(len).collect()).ok()?;
        (fnv1a(text.as_bytes()) == described.shape.payload_hash).then_some(text)
    }
}
