//! Looking at what waits in a channel without taking it.

use std::sync::atomic::{Ordering, fence};

use crate::{
    attachment::{delivery::Recall, port::Port},
    ring::{Position, transfer::TRAILER},
};

/// What was seen of a message without taking it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peeked {
    pub(crate) sequence: u64,
    /// How often it was delivered before.
    pub(crate) deliveries: u32,
    /// The first word of its block, and the bytes that the block has for the payload.
    pub(crate) first_word: Option<(u64, usize)>,
    /// Its level, and when it was sent, if that is known.
    pub(crate) sent: Option<(u8, u64)>,
}

impl Port {
    /// Looks at the oldest message without taking it; at the first word of its block only if `with_word`.
    pub(crate) fn peek(&self, position: &Position, with_word: bool) -> Option<Peeked> {
        if !self.attachment().is_usable() {
            return None;
        }
        if let Some(recall) = &self.recall {
            return self.peek_recallable(position, recall, with_word);
        }
        let allocator = self.attachment().allocator();
        // A front that changes while we look is one that somebody has taken: there is progress.
        loop {
            let front = self.ring.front(position)?;
            if !with_word {
                return Some(Peeked { sequence: front.position(), deliveries: 0, first_word: None, sent: None });
            }
            let first_word = allocator
                .in_flight(front.block())
                .map(|(block, _)| (self.attachment().first_word(block), allocator.bytes_of(block)));
            if self.ring.is_front(front) {
                return Some(Peeked { sequence: front.position(), deliveries: 0, first_word, sent: None });
            }
        }
    }

    fn peek_recallable(&self, position: &Position, recall: &Recall, with_word: bool) -> Option<Peeked> {
        let attachment = &**self.attachment();
        if recall.has_overflowed() {
            attachment.with_worker(|worker| attachment.refill(recall, &worker.lane));
        }
        self.sweep(recall);
        let others =
            recall.in_turn(recall.turn(), (&self.ring, position)).map(|(ring, position)| (ring, position, false));
        for (ring, position, came_back) in [(recall.retry(), recall.position(), true)].into_iter().chain(others) {
            while let Some(front) = ring.front(position) {
                let block = attachment.allocator().promised(front.block()).map(|(block, _)| block);
                let first_word = block.map(|block| {
                    (attachment.first_word(block), attachment.allocator().bytes_of(block).saturating_sub(TRAILER))
                });
                let trailer = block.map(|block| attachment.trailer(block));
                let before = trailer.filter(|_| came_back);
                let peeked = Peeked {
                    sequence: before.map_or(front.position(), |trailer| trailer.sequence()),
                    deliveries: before.filter(|_| recall.comes_back).map_or(0, |trailer| trailer.tries()),
                    first_word: first_word.filter(|_| with_word),
                    sent: trailer.map(|trailer| (trailer.level(), trailer.sent())),
                };
                // Ordering: what was read of the block was read before this look.
                fence(Ordering::Acquire);
                if ring.is_front(front) {
                    return Some(peeked);
                }
            }
        }
        None
    }
}
