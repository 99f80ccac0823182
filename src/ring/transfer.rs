//! Blocks in and out of a ring, with every step recoverable.
//!
//! ```text
//! send      intent Send(b)  →  word IN_FLIGHT(me)  →  cell CAS  →  intent cleared
//! receive   intent Receive(b)  →  cell CAS  →  word ALLOCATED(me)  →  intent cleared
//! ```
//!
//! A block whose word says IN_FLIGHT is either named by a cell, or by the intent of a lane that is putting it in or
//! taking it out. If neither, its lane is dead, and a reaper frees it. After the CAS a sender does not touch the block
//! again.

use crate::{
    alloc::{Allocator, Block},
    ring::{Position, Ring},
    segment::lanes::{Intent, Lane, LaneId},
};

/// A block that came out of a ring and now belongs to the receiving lane's participant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    pub(crate) block: Block,
    /// The lane that sent it.
    pub(crate) sender: LaneId,
    /// The message's position, which is its sequence number.
    pub(crate) position: u64,
}

/// Sends a block of the lane's participant; returns its position. `None` if the ring is full: the block is the lane's as
/// before.
#[inline]
pub(crate) fn send(allocator: &Allocator, ring: &Ring, private: &Position, lane: &Lane, block: Block) -> Option<u64> {
    put(allocator, lane, block, || ring.push(private, block.id))
}

/// The same with a permit of the participant, which is used up even if the ring is garbage and nothing was sent.
#[inline]
pub(crate) fn send_reserved(
    allocator: &Allocator,
    ring: &Ring,
    private: &Position,
    lane: &Lane,
    participant: u16,
    block: Block,
) -> Option<u64> {
    let position = put(allocator, lane, block, || ring.push_reserved(private, block.id));
    // Killed before this, the sender leaves a permit too many, which its reaper takes back.
    ring.permits().sub(participant, 1);
    position
}

#[inline(always)]
fn put(allocator: &Allocator, lane: &Lane, block: Block, push: impl FnOnce() -> Option<u64>) -> Option<u64> {
    lane.intend(Intent::Send { block: block.id, generation: block.generation });
    allocator.set_in_flight(lane.id(), block);
    let position = push();
    if position.is_none() {
        allocator.set_allocated(lane.id(), block);
    }
    lane.done();
    position
}

/// Receives the block at the front, if it is where the handle thinks and nobody else takes it: the case that matters.
#[inline(always)]
pub(crate) fn receive_at_hand(allocator: &Allocator, ring: &Ring, private: &Position, lane: &Lane) -> Option<Received> {
    let front = ring.front_at_hand(private)?;
    let (block, sender) = allocator.in_flight(front.block())?;
    lane.intend(Intent::Receive { block: block.id, generation: block.generation });
    if !ring.take(private, front) {
        lane.done();
        return None;
    }
    allocator.set_allocated(lane.id(), block);
    lane.done();
    Some(Received { block, sender, position: front.position() })
}

/// Receives the block at the front, if there is one. `damaged` hears of every cell that had to be dropped because it
/// named no block in flight: only memory that was overwritten has such cells.
#[inline]
pub(crate) fn receive(
    allocator: &Allocator,
    ring: &Ring,
    private: &Position,
    lane: &Lane,
    mut damaged: impl FnMut(),
) -> Option<Received> {
    loop {
        let front = ring.front(private)?;
        let Some((block, sender)) = allocator.in_flight(front.block()) else {
            // Either somebody has received it by now, and the cell shows it; or the cell is garbage.
            if ring.is_front(front) && ring.take(private, front) {
                damaged();
            }
            continue;
        };
        lane.intend(Intent::Receive { block: block.id, generation: block.generation });
        if ring.take(private, front) {
            allocator.set_allocated(lane.id(), block);
            lane.done();
            return Some(Received { block, sender, position: front.position() });
        }
        lane.done();
    }
}
