//! Models of the ring: every interleaving of a few sends and receives over two cells.

use loom::{sync::Arc, thread};

use super::{
    ground::{block_of, lane, zeroed},
    transfer::Verdict,
    *,
};
use crate::{
    alloc::{
        Allocator, Block,
        word::{State, Word},
    },
    region::lanes::{Intent, Lane, LaneId},
    sys::sync::{AtomicUsize, fence},
};

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
                if ring.push(&Position::new(ring.tail_hint()), BlockId(item), || true).is_some() {
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
                assert!(ring.push(&private, BlockId(item), || true).is_some());
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

/// A grant, with or without what makes it exclude others.
fn reserve(ring: &Ring, participant: u16, permits: u32, grant: fn(&Ring, &Position) -> bool) -> bool {
    ring.permits().add(participant, permits);
    let granted = grant(ring, &Position::new(ring.tail_hint()));
    if !granted {
        ring.permits().sub(participant, permits);
    }
    granted
}

/// One who reserves, one who just sends, in a ring that has room for one of them (and one message more): messages and
/// permits together never exceed the capacity. `used` says whether the permit is sent with, after both are done.
fn permit_beside_a_send(capacity: u64, waiting: u64, grant: fn(&Ring, &Position) -> bool) {
    model(3, move || {
        let ring = ring(capacity);
        let filler = Position::new(ring.tail_hint());
        (0..waiting).for_each(|item| assert!(ring.push(&filler, BlockId(item as u32), || true).is_some()));
        let sender = thread::spawn(move || ring.push(&Position::new(ring.tail_hint()), BlockId(77), || true).is_some());
        let granted = reserve(&ring, 0, 1, grant);
        let sent = sender.join().unwrap();
        let taken = waiting + u64::from(granted) + u64::from(sent);
        assert!(taken <= capacity, "the capacity was exceeded");
        // Who comes second may be refused because of who is refused in its turn, never both because of nothing.
        assert!(sent || granted || waiting == capacity, "nobody got what there was");
        if granted {
            assert!(ring.push_reserved(&Position::new(ring.tail_hint()), BlockId(78), || true).is_some());
            ring.permits().sub(0, 1);
        }
        let private = Position::new(ring.head_hint());
        assert_eq!(std::iter::from_fn(|| take(&ring, &private)).count() as u64, taken);
    });
}

#[test]
fn permits_and_messages_together_never_exceed_the_capacity() {
    permit_beside_a_send(1, 0, Ring::grant);
    permit_beside_a_send(2, 1, Ring::grant);
}

/// The same where a grant leaves the cell as it was: the sender that has looked at the permits before must go wrong.
#[test]
#[should_panic(expected = "the capacity was exceeded")]
fn without_the_version_of_the_cell_a_permit_is_overlooked() {
    permit_beside_a_send(1, 0, |ring, private| {
        ring.writable(private.get(), |position| ring.has_room(position, ring.permits().total() - 1)).is_ok()
    });
}

/// Two who reserve, and a receiver that makes room for one of them.
#[test]
fn of_two_grants_for_one_place_one_is_had_at_most() {
    model(3, || {
        let ring = ring(1);
        assert!(ring.push(&Position::new(ring.tail_hint()), BlockId(1), || true).is_some());
        let receiver = thread::spawn(move || take(&ring, &Position::new(ring.head_hint())).unwrap());
        let other = thread::spawn(move || reserve(&ring, 1, 1, Ring::grant));
        let granted = reserve(&ring, 0, 1, Ring::grant);
        receiver.join().unwrap();
        assert!(!(other.join().unwrap() && granted), "the capacity was exceeded");
    });
}

/// A try, and a bid after it: as `attachment::reserve` does it.
fn try_for(ring: &Ring, participant: u16, permits: u32, bids: bool) -> bool {
    let granted = reserve(ring, participant, permits, Ring::grant);
    let grant = || ring.grant(&Position::new(ring.tail_hint()));
    granted || bids && ring.permits().contend(participant, permits, grant)
}

/// Two who try for one permit at the same moment.
fn two_try_for_one(bids: bool) {
    model(3, move || {
        let ring = ring(1);
        let other = thread::spawn(move || try_for(&ring, 1, 1, bids));
        let got = try_for(&ring, 0, 1, bids);
        let other = other.join().unwrap();
        assert!(!(got && other), "the capacity was exceeded");
        assert!(got || other, "neither got what was there");
        assert_eq!(ring.permits().total(), 1);
        ring.permits().sub(u16::from(other), 1);
        assert_eq!(ring.permits().total(), 0);
    });
}

#[test]
fn of_two_who_try_for_one_permit_one_gets_it() {
    two_try_for_one(true);
}

/// The same where nobody bids: each is refused because of the other.
#[test]
#[should_panic(expected = "neither got")]
fn without_bids_two_who_try_for_one_permit_may_both_be_refused() {
    two_try_for_one(false);
}

/// Two whose bids are for different permits: each is won and counted once, whoever concludes it.
#[test]
fn a_bid_is_counted_once_whoever_concludes_it() {
    model(2, || {
        let ring = ring(2);
        let bid =
            move |participant| ring.permits().contend(participant, 1, || ring.grant(&Position::new(ring.tail_hint())));
        let other = thread::spawn(move || bid(1));
        assert!(bid(0) && other.join().unwrap(), "a bid was refused for which there was room");
        assert_eq!(ring.permits().total(), 2);
        assert!(ring.permits().forget(0) && ring.permits().forget(1));
        assert_eq!(ring.permits().total(), 0);
    });
}

/// Of two permits one is bid for: there is room for another one at any moment.
#[test]
fn who_looks_beside_a_bid_counts_it_once() {
    model(2, || {
        let ring = ring(2);
        let position = || Position::new(ring.tail_hint());
        let bid = thread::spawn(move || ring.permits().contend(0, 1, || ring.grant(&Position::new(ring.tail_hint()))));
        assert!(ring.is_writable(&position(), 1), "a bid was counted twice");
        assert!(bid.join().unwrap());
    });
}

/// Of two permits one passes from one participant to another: there is room for another one at any moment.
fn one_passes_on(look: fn(&Ring) -> bool) {
    model(2, move || {
        let ring = ring(2);
        assert!(reserve(&ring, 1, 1, Ring::grant) && reserve(&ring, 0, 1, Ring::grant));
        // It has had some: so its count is read, too.
        ring.permits().sub(1, 1);
        let passes = thread::spawn(move || {
            ring.permits().sub(0, 1);
            reserve(&ring, 1, 1, Ring::grant)
        });
        assert!(look(&ring), "a permit was counted for both");
        assert!(passes.join().unwrap());
    });
}

#[test]
fn who_looks_while_a_permit_passes_on_counts_it_once() {
    one_passes_on(|ring| ring.is_writable(&Position::new(ring.tail_hint()), 1));
}

#[test]
#[should_panic(expected = "counted for both")]
fn who_sums_up_once_counts_a_permit_that_passes_on_twice() {
    one_passes_on(|ring| {
        ring.writable(ring.tail_hint(), |position| ring.has_room(position, ring.permits().total())).is_ok()
    });
}

/// Who stands in line is passed over while it has its wish granted: it has it, or the other one gets what is there.
#[test]
fn who_is_passed_over_has_nothing_granted() {
    model(3, || {
        let ring = ring(1);
        let wish = ring.permits().stand_in_line(0, 1).unwrap();
        let other = thread::spawn(move || ring.permits().leave_line(wish) && try_for(&ring, 1, 1, true));
        let got = ring.grant(&Position::new(ring.tail_hint())) && ring.permits().count_in_line(wish);
        let other = other.join().unwrap();
        assert!(!(got && other), "the capacity was exceeded");
        if got {
            ring.permits().sub(0, 1);
        } else if other {
            ring.permits().sub(1, 1);
        }
        assert_eq!((ring.permits().total(), ring.permits().in_line()), (0, None));
    });
}

/// A permit that is used beside a sender that finds the ring as full as it is: its message takes the permit's place, and
/// not one more.
#[test]
fn a_permit_that_is_used_makes_room_for_nobody() {
    for capacity in [1, 2] {
        model(3, move || {
            let ring = ring(capacity);
            assert!(reserve(&ring, 0, 1, Ring::grant));
            let holder = thread::spawn(move || {
                assert!(ring.push_reserved(&Position::new(ring.tail_hint()), BlockId(1), || true).is_some());
                ring.permits().sub(0, 1);
            });
            let private = Position::new(ring.tail_hint());
            let sent = (0..2).filter(|item| ring.push(&private, BlockId(10 + item), || true).is_some()).count() as u64;
            holder.join().unwrap();
            assert!(sent < capacity, "the capacity was exceeded");
            let private = Position::new(ring.head_hint());
            assert_eq!(std::iter::from_fn(|| take(&ring, &private)).count() as u64, sent + 1);
        });
    }
}

/// R1 against a permit that is given back: either the waiter sees the room, or the other one sees the waiter.
#[test]
fn who_waits_for_room_hears_of_a_permit_that_comes_back() {
    model(3, || {
        let ring = ring(1);
        let parked = SharedRef::leak(AtomicU64::new(0));
        assert!(reserve(&ring, 0, 1, Ring::grant));
        let holder = thread::spawn(move || {
            ring.permits().sub(0, 1);
            fence(Ordering::SeqCst);
            parked.load(Ordering::SeqCst) != 0
        });
        parked.store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let sent = ring.push(&Position::new(ring.tail_hint()), BlockId(1), || true).is_some();
        assert!(holder.join().unwrap() || sent, "nobody hears of it");
    });
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
        transfer::send(&allocator, &ring, &Position::new(ring.tail_hint()), &sending, block, State::InFlight, || true)
            .unwrap();

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

/// A message that comes back beside a receiver: it is received once, by whoever comes, and its number and count come with it.
#[test]
fn a_message_that_comes_back_is_received_once_with_its_count() {
    model(2, || {
        let (main, retry) = (ring(2), ring(2));
        let (mine, _) = lane(1);
        let (receiving, _) = lane(2);
        let (allocator, block) = block_of(&mine);
        let trailer: &'static transfer::Trailer = Box::leak(Box::default());
        trailer.begin(5, block.generation);
        let receive = move |ring: &Ring, lane: &Lane, comes_back| {
            let private = Position::new(ring.head_hint());
            transfer::receive_promised(
                &allocator,
                ring,
                &private,
                lane,
                comes_back,
                u64::MAX,
                |_| trailer,
                |_| true,
                || panic!("damaged"),
            )
        };
        transfer::send(&allocator, &main, &Position::new(main.tail_hint()), &mine, block, State::Promised, || true)
            .unwrap();
        let received = receive(&main, &mine, false).unwrap();
        let other = thread::spawn(move || {
            receive(&retry, &receiving, true).map(|received| {
                assert_eq!(trailer.tries(), 1);
                received.position
            })
        });
        let word = allocator.sectors()[0].word(block.id.granule());
        assert_eq!(transfer::tries_after(trailer, word, true), 1);
        let place = transfer::Back { ring: &retry, private: &Position::new(retry.tail_hint()), state: State::Promised };
        let put = transfer::put_back(&allocator, &mine, block.id, word, &[place], || panic!("no room"));
        assert_eq!(put, transfer::Put::At(0));
        let theirs = other.join().unwrap();
        let rest = receive(&retry, &mine, true).map(|received| received.position);
        assert!(theirs.is_some() != rest.is_some(), "lost, or received twice");
        assert_eq!(theirs.or(rest), Some(received.position));
        assert_eq!(allocator.sectors()[0].word(block.id.granule()).state(), State::Received);
    });
}

/// A reaper beside a receiver at the retry ring, for which a dead one has put a message there: it puts nothing back that
/// somebody is receiving.
#[test]
fn a_reaper_puts_nothing_back_that_is_being_received() {
    model(2, || {
        let (main, retry) = (ring(2), ring(2));
        let (dead, _) = lane(1);
        let (receiving, intents) = lane(2);
        let (reaping, _) = lane(3);
        let (allocator, block) = block_of(&dead);
        let trailer: &'static transfer::Trailer = Box::leak(Box::default());
        trailer.begin(5, block.generation);
        transfer::send(&allocator, &main, &Position::new(main.tail_hint()), &dead, block, State::Promised, || true)
            .unwrap();
        let receive = move |ring: &Ring, lane: &Lane, comes_back| {
            let private = Position::new(ring.head_hint());
            transfer::receive_promised(
                &allocator,
                ring,
                &private,
                lane,
                comes_back,
                u64::MAX,
                |_| trailer,
                |_| true,
                || panic!("damaged"),
            )
        };
        receive(&main, &dead, false).unwrap();
        let word = allocator.sectors()[0].word(block.id.granule());
        let back = move |lane: &Lane, word| {
            let private = Position::new(retry.tail_hint());
            let place = transfer::Back { ring: &retry, private: &private, state: State::Promised };
            transfer::put_back(&allocator, lane, block.id, word, &[place], || panic!("no room")) == transfer::Put::At(0)
        };
        assert!(back(&dead, word));
        // It dies before it has taken its intent back: the reaper looks whether the message got into the ring.
        let generation = word.next_generation();
        let receiver = thread::spawn(move || receive(&retry, &receiving, true).is_some());
        let mut named = false;
        let mut look = || retry.blocks(|id| named |= id == block.id);
        let word = allocator.sectors()[0].word(block.id.granule());
        let is_named =
            || Intent::unpack(intents.intent.load(Ordering::SeqCst)) == Intent::Receive { block: block.id, generation };
        let mut again = false;
        if word.state() == State::Promised && word.generation() == generation && !is_named() {
            look();
            again = !named && !is_named() && back(&reaping, word);
        }
        assert!(receiver.join().unwrap());
        assert!(!again && receive(&retry, &reaping, true).is_none(), "put back, and received");
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
        transfer::send(&allocator, &ring, &Position::new(ring.tail_hint()), &sending, block, State::InFlight, || true)
            .unwrap();
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

/// How a reaper finds out whether a flight is over, by looks for an intent of the living and for a cell.
type Judge = fn(&Allocator, &Lane, BlockId, u32, &dyn Fn() -> bool, &dyn Fn() -> bool) -> Verdict;

fn judge(
    allocator: &Allocator,
    reaper: &Lane,
    id: BlockId,
    generation: u32,
    is_named: &dyn Fn() -> bool,
    in_ring: &dyn Fn() -> bool,
) -> Verdict {
    transfer::judge(allocator, reaper, id, generation, is_named, in_ring)
}

/// The same looks, by one who believes that the word he has read first tells all flights from one another.
fn judge_by_the_first_word(
    allocator: &Allocator,
    _: &Lane,
    id: BlockId,
    generation: u32,
    is_named: &dyn Fn() -> bool,
    in_ring: &dyn Fn() -> bool,
) -> Verdict {
    let word = allocator.sectors()[0].word(id.granule());
    if !word.is_on_its_way() || word.generation() != generation || is_named() || in_ring() || is_named() {
        return Verdict::Settled;
    }
    Verdict::Left(word)
}

/// Somebody has died between saying that it takes a message and taking it. A living lane takes the message and sends it on, beside
/// the reaper. `renews`: under another generation.
fn forwarded_beside_a_reaper(renews: bool, judge: Judge) {
    model(3, move || {
        let ring = ring(2);
        let (living, intents) = lane(1);
        let (reaping, _) = lane(3);
        let (allocator, block) = block_of(&living);
        transfer::send(&allocator, &ring, &Position::new(ring.tail_hint()), &living, block, State::InFlight, || true)
            .unwrap();
        let forwarder = thread::spawn(move || {
            let private = Position::new(ring.head_hint());
            let received = transfer::receive(&allocator, &ring, &private, &living, || panic!("damaged")).unwrap();
            let block = if renews { received.block.renewed() } else { received.block };
            let private = Position::new(ring.tail_hint());
            transfer::send(&allocator, &ring, &private, &living, block, State::InFlight, || true).unwrap();
        });
        let Block { id, generation, .. } = block;
        let is_named = || {
            let intent = Intent::unpack(intents.intent.load(Ordering::SeqCst));
            intent == Intent::Receive { block: id, generation } || intent == Intent::Send { block: id, generation }
        };
        let in_ring = || {
            let mut found = false;
            ring.blocks(|block| found |= block == id);
            found
        };
        if let Verdict::Left(word) = judge(&allocator, &reaping, id, generation, &is_named, &in_ring) {
            let claimed = Word::claimed(LaneId(3), 1, word.generation());
            let is_taken = allocator.sectors()[0].replace(id.granule(), word, claimed);
            assert!(!is_taken, "a message on its way was freed");
        }
        forwarder.join().unwrap();
        let private = Position::new(ring.head_hint());
        let (other, _) = lane(5);
        let received = transfer::receive(&allocator, &ring, &private, &other, || panic!("damaged")).unwrap();
        assert_eq!(received.block.id, id);
    });
}

#[test]
fn a_message_that_is_sent_on_beside_a_reaper_stays() {
    forwarded_beside_a_reaper(true, judge);
}

/// As if the generations had come round: the word is the one that it was.
#[test]
fn a_message_that_comes_round_with_the_same_word_stays() {
    forwarded_beside_a_reaper(false, judge);
}

/// What a generation for each flight is good for: it tells flights from one another for as long as it does not come round.
#[test]
fn under_another_generation_even_the_first_word_tells_flights_apart() {
    forwarded_beside_a_reaper(true, judge_by_the_first_word);
}

/// The two together are one too few: the same word again, and a reaper that does not mark it.
#[test]
#[should_panic(expected = "was freed")]
fn without_a_mark_and_another_generation_a_message_that_is_sent_on_is_freed() {
    forwarded_beside_a_reaper(false, judge_by_the_first_word);
}

/// A reaper whose first look has seen nothing, as the word was that of an earlier flight then, marks a message that is being put
/// back, with no room in the first place: whoever puts it back gets it into the second all the same.
#[test]
fn a_mark_keeps_nobody_from_putting_a_message_back() {
    model(3, || {
        let (main, full, retry) = (ring(2), ring(1), ring(2));
        let (mine, intents) = lane(1);
        let (reaping, _) = lane(3);
        let (allocator, block) = block_of(&mine);
        let trailer: &'static transfer::Trailer = Box::leak(Box::default());
        trailer.begin(5, block.generation);
        assert!(full.push(&Position::new(full.tail_hint()), BlockId(77), || true).is_some());
        transfer::send(&allocator, &main, &Position::new(main.tail_hint()), &mine, block, State::Promised, || true)
            .unwrap();
        let receive = move |ring: &Ring, lane: &Lane| {
            let private = Position::new(ring.head_hint());
            let damaged = || panic!("damaged");
            transfer::receive_promised(&allocator, ring, &private, lane, true, u64::MAX, |_| trailer, |_| true, damaged)
        };
        receive(&main, &mine).unwrap();
        let id = block.id;
        let word = allocator.sectors()[0].word(id.granule());
        let generation = word.next_generation();
        let putting = thread::spawn(move || {
            let (first, second) = (Position::new(full.tail_hint()), Position::new(retry.tail_hint()));
            // As dead letters of a plain channel, and back to where it came from.
            let places = [(&full, &first, State::InFlight), (&retry, &second, State::Promised)]
                .map(|(ring, private, state)| transfer::Back { ring, private, state });
            let put = transfer::put_back(&allocator, &mine, id, word, &places, || panic!("no room"));
            assert_eq!(put, transfer::Put::At(1));
        });
        // The first look is two of these and one at the cells.
        let looks = std::cell::Cell::new(0);
        let is_blind = || looks.replace(looks.get() + 1) < 3;
        let is_named = || {
            let intent = Intent::unpack(intents.intent.load(Ordering::SeqCst));
            !is_blind() && intent == Intent::Retry { block: id, generation }
        };
        let in_ring = || {
            let mut found = false;
            retry.blocks(|block| found |= block == id);
            !is_blind() && found
        };
        let verdict = transfer::judge(&allocator, &reaping, id, generation, is_named, in_ring);
        assert!(!matches!(verdict, Verdict::Left(_)), "a message that comes back was taken for lost");
        putting.join().unwrap();
        assert!(receive(&retry, &reaping).is_some());
    });
}
