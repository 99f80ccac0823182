//! Models of the ring: every interleaving of a few sends and receives over two cells.

use loom::{sync::Arc, thread};

use super::*;
use crate::{
    alloc::{
        Allocator, Block,
        magazine::Depot,
        sector::Sector,
        word::{State, Word},
    },
    segment::{
        lanes::{Intent, Lane, LaneId},
        layout::{CACHED_SIZES, DEPOT_WORDS, LaneLine, SectorLayout},
    },
    sys::sync::AtomicUsize,
};

fn zeroed(len: u64) -> SharedSlice<AtomicU64> {
    SharedSlice::leak((0..len).map(|_| AtomicU64::new(0)).collect())
}

fn ring(capacity: u64) -> Ring {
    // The last lap before the tags wrap around.
    let start = 2 * ((1 << 31) - 1);
    let ring = Ring::new(
        zeroed(2),
        capacity,
        SharedRef::leak(AtomicU64::new(0)),
        SharedRef::leak(AtomicU64::new(0)),
        Permits::leak(2),
    );
    ring.format(start);
    ring
}

fn take(ring: &Ring, private: &Position) -> Option<u32> {
    loop {
        let front = ring.front(private)?;
        if ring.take(private, front) {
            return Some(front.block().0);
        }
    }
}

fn model(preemptions: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(test);
}

#[test]
fn two_senders_and_a_receiver_lose_and_double_nothing() {
    for capacity in [1, 2] {
        model(3, move || {
            let ring = ring(capacity);
            let sent = Arc::new(AtomicUsize::new(0));
            let send = move |item: u32, sent: &AtomicUsize| {
                if ring.push(&Position::new(ring.tail_hint()), BlockId(item)).is_some() {
                    sent.fetch_add(1, Ordering::SeqCst);
                }
            };
            let other = thread::spawn({
                let sent = Arc::clone(&sent);
                move || send(1, &sent)
            });
            let receiver = thread::spawn(move || take(&ring, &Position::new(ring.head_hint())));
            send(2, &sent);
            other.join().unwrap();
            let mut received: Vec<u32> = receiver.join().unwrap().into_iter().collect();
            let private = Position::new(ring.head_hint());
            received.extend(std::iter::from_fn(|| take(&ring, &private)));
            received.sort_unstable();
            received.dedup();
            assert_eq!(received.len(), sent.load(Ordering::SeqCst));
            assert_eq!(ring.len(), 0);
        });
    }
}

#[test]
fn two_receivers_never_get_the_same_message_and_keep_the_order() {
    model(3, || {
        let ring = ring(2);
        let sender = thread::spawn(move || {
            let private = Position::new(ring.tail_hint());
            for item in 1..=2 {
                assert!(ring.push(&private, BlockId(item)).is_some());
            }
        });
        let receiver = thread::spawn(move || {
            let private = Position::new(ring.head_hint());
            (take(&ring, &private), take(&ring, &private))
        });
        let private = Position::new(ring.head_hint());
        let mine = (take(&ring, &private), take(&ring, &private));
        sender.join().unwrap();
        let theirs = receiver.join().unwrap();
        for (first, second) in [mine, theirs] {
            assert!(first.is_none() || second.is_none() || first < second);
        }
        let private = Position::new(ring.head_hint());
        let mut all: Vec<u32> = [mine.0, mine.1, theirs.0, theirs.1].into_iter().flatten().collect();
        all.extend(std::iter::from_fn(|| take(&ring, &private)));
        all.sort_unstable();
        assert_eq!(all, [1, 2]);
    });
}

/// An allocator of four granules and a block in it that belongs to `lane`.
fn block_of(lane: &Lane) -> (Allocator, Block) {
    let sector = |index, granules| Sector::new(index, zeroed(granules + 1), zeroed(SectorLayout::map_words(granules)));
    let depot = Depot::new(SharedSlice::leak(Vec::new()), zeroed(((CACHED_SIZES + 1) * DEPOT_WORDS) as u64));
    let allocator = Allocator::new([sector(0, 4), sector(1, 0), sector(2, 0)], depot);
    allocator.format();
    let run = allocator.sectors()[0].take(lane, 1).unwrap();
    (allocator, Block { id: BlockId::new(0, run.granule), len: 1, generation: run.generation })
}

/// A lane, and the word that shows others what it is about to do.
fn lane(id: u16) -> (Lane, SharedRef<LaneLine>) {
    let line = SharedRef::leak(LaneLine::default());
    (Lane::new(LaneId(id), line), line)
}

/// The reaper's argument: cells, then intents, then the word. Whatever a live sender and a live receiver are doing, a
/// message that was in the ring or on its way is never taken for lost.
#[test]
fn a_message_between_the_living_is_never_taken_for_lost() {
    model(3, || {
        let ring = ring(2);
        let (sending, _) = lane(1);
        let (receiving, intents) = lane(2);
        let (allocator, block) = block_of(&sending);
        let payload = Arc::new(AtomicU64::new(0));

        // The sender has died after its send: that is when a reaper looks.
        payload.store(42, Ordering::Relaxed);
        transfer::send(&allocator, &ring, &Position::new(ring.tail_hint()), &sending, block).unwrap();

        let receiver = thread::spawn({
            let payload = Arc::clone(&payload);
            move || {
                let private = Position::new(ring.head_hint());
                let received =
                    transfer::receive(&allocator, &ring, &private, &receiving, || panic!("damaged")).unwrap();
                assert_eq!((received.sender, payload.load(Ordering::Relaxed)), (LaneId(1), 42));
            }
        });
        let mut named = false;
        ring.blocks(|id| named |= id == block.id);
        let word = allocator.sectors()[0].word(block.id.granule());
        if word.state() == State::InFlight && !named {
            let intent = Intent::unpack(intents.intent.load(Ordering::SeqCst));
            let on_its_way = intent == Intent::Receive { block: block.id, generation: block.generation };
            let lost = !on_its_way
                && allocator.sectors()[0].replace(
                    block.id.granule(),
                    word,
                    Word::claimed(LaneId(3), 1, block.generation),
                );
            assert!(!lost, "a message that was just received was freed");
        }
        receiver.join().unwrap();
        assert_eq!(allocator.sectors()[0].word(block.id.granule()).lane(), LaneId(2));
    });
}

/// The same with a receiver that does not say what it is about to do: the reaper must go wrong somewhere.
#[test]
#[should_panic(expected = "was freed")]
fn without_the_receivers_intent_a_message_is_taken_for_lost() {
    model(3, || {
        let ring = ring(2);
        let (sending, _) = lane(1);
        let (allocator, block) = block_of(&sending);
        transfer::send(&allocator, &ring, &Position::new(ring.tail_hint()), &sending, block).unwrap();
        let receiver = thread::spawn(move || {
            let private = Position::new(ring.head_hint());
            let front = ring.front(&private).unwrap();
            assert!(ring.take(&private, front));
            allocator.set_allocated(LaneId(2), block);
        });
        let mut named = false;
        ring.blocks(|id| named |= id == block.id);
        let word = allocator.sectors()[0].word(block.id.granule());
        if word.state() == State::InFlight && !named {
            let claimed = Word::claimed(LaneId(3), 1, block.generation);
            let lost = allocator.sectors()[0].replace(block.id.granule(), word, claimed);
            assert!(!lost, "a message that was just received was freed");
        }
        receiver.join().unwrap();
    });
}
