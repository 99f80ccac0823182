//! The claims that are played in one process and between two: `s` is the sending side, `r` the receiving one. What a step
//! can be and answers is in `side.rs`.

use crate::{Claim, scene};

/// Each claim is a test in one process and one between two: its words, the tests of tokio's about it, its script.
macro_rules! claims {
    ($($(#[$meta:meta])* $name:ident: $words:literal, $theirs:literal, $script:literal;)*) => {
        $(
            $(#[$meta])*
            mod $name {
                const SCRIPT: &str = $script;

                #[test]
                fn in_process() {
                    super::scene::in_process(SCRIPT);
                }

                #[test]
                fn between_processes() {
                    super::scene::between_processes(SCRIPT);
                }
            }
        )*

        pub(crate) const CLAIMS: &[Claim] = &[
            $(Claim { words: $words, theirs: $theirs, test: stringify!($name), script: Some($script) },)*
        ];
    };
}

claims! {
    // ---- Sending and receiving ----

    what_is_sent_arrives_in_order: "what is sent arrives, in order",
    "send_recv_with_buffer async_send_recv_with_buffer start_send_past_cap",
    "
        s: tx = sender(16)
        r: rx = receiver(16)
        s: all = tx.send_all(2000) => started
        r: received = rx.recv_all() => started
        s: all.await()
        s: tx.drop()
        r: received.await() => 2000 in order
    ";

    a_full_channel_hands_the_value_back:
    "a bounded channel takes `capacity` messages, then `try_send` says `Full` and hands the value back",
    "try_send_fail try_send_fail_with_try_recv",
    "
        s: tx = sender(2)
        r: rx = receiver(2)
        s: tx.try_send(1)
        s: tx.try_send(2)
        s: tx.try_send(3) => full 3
        r: rx.try_recv() => 1
        s: tx.try_send(3)
        r: rx.drain() => [2, 3]
    ";

    send_waits_for_room: "`send` waits when the channel is full, and is woken when a message is received",
    "send_recv_buffer_limited start_send_past_cap",
    "
        s: tx = sender(1)
        r: rx = receiver(1)
        s: tx.send(1)
        s: second = tx.send(2) => pending
        s: second.sleeps() => yes
        r: rx.recv() => 1
        s: second.is_woken() => yes
        s: second.poll()
        r: rx.recv() => 2
    ";

    a_waiting_recv_is_woken: "a waiting `recv` is woken by a message",
    "send_recv_with_buffer",
    "
        s: tx = sender(4)
        r: rx = receiver(4)
        r: next = rx.recv() => pending
        r: next.sleeps() => yes
        s: tx.try_send(7)
        r: next.is_woken() => yes
        r: next.poll() => 7
    ";

    each_message_goes_to_one_of_many_receivers: "(not in tokio) each message goes to one of the receivers",
    "",
    "
        s: tx = sender(8)
        r: rx = receiver(8)
        r: shared = rx.share_with(3) => started
        s: all = tx.send_all(3000) => started
        s: all.await()
        s: tx.drop()
        r: shared.await() => 3000 once true in order true
    ";

    // ---- Numbers ----

    capacity_is_what_is_free: "`capacity` falls with each message and permit and rises with each receive; `max_capacity` stays",
    "test_tx_capacity",
    "
        s: tx = sender(5)
        r: rx = receiver(5)
        s: tx.capacity() => 5
        s: tx.try_send(0)
        s: permit = tx.try_reserve()
        r: rx.capacity() => 3
        s: many = tx.try_reserve_many(2)
        s: tx.capacity() => 1
        s: tx.max_capacity() => 5
        r: rx.max_capacity() => 5
        r: rx.append_many(5) => 1
        # Kept, and not in the channel any more.
        s: tx.capacity() => 2
        s: permit.drop()
        s: many.drop()
        r: rx.capacity() => 5
    ";

    length_is_what_waits: "`len` and `is_empty` of the receiver; here of the sender, too",
    "test_rx_is_empty_when_no_messages_were_sent test_rx_is_not_empty_when_there_are_messages_in_the_buffer \
     test_rx_is_not_empty_when_the_buffer_is_full test_rx_is_not_empty_when_all_but_one_messages_are_consumed \
     test_rx_is_empty_when_all_messages_are_consumed test_rx_is_empty_all_senders_are_dropped_and_messages_consumed \
     test_rx_len_on_empty_channel test_rx_len_on_empty_channel_without_senders test_rx_len_on_filled_channel \
     test_rx_len_on_filled_channel_without_senders test_rx_len_when_consuming_all_messages test_is_empty_32_msgs",
    "
        s: tx = sender(3)
        r: rx = receiver(3)
        r: rx.is_empty() => yes
        s: tx.is_empty() => yes
        s: tx.try_send(1)
        s: tx.try_send(2)
        s: tx.try_send(3)
        s: tx.len() => 3
        r: rx.len() => 3
        r: rx.try_recv() => 1
        r: rx.try_recv() => 2
        s: tx.len() => 1
        r: rx.is_empty() => no
        s: tx.drop()
        r: rx.len() => 1
        r: rx.try_recv() => 3
        r: rx.len() => 0
        r: rx.is_empty() => yes
    ";

    closing_leaves_the_length_as_it_is: "`close` changes nothing about `len`, before or after the senders have gone",
    "test_rx_len_when_close_is_called test_rx_len_when_close_is_called_before_dropping_sender \
     test_rx_len_when_close_is_called_after_dropping_sender",
    "
        s: tx = sender(3)
        r: rx = receiver(3)
        s: tx.try_send(1)
        r: rx.close()
        r: rx.len() => 1
        s: tx.drop()
        r: rx.len() => 1
        r: rx.close()
        r: rx.len() => 1
    ";

    // ---- The end ----

    try_recv_tells_empty_from_disconnected:
    "`try_recv` says `Empty`, then `Disconnected` when all senders are dropped and nothing waits",
    "try_recv_bounded try_recv_close_while_empty_bounded",
    "
        s: tx = sender(4)
        r: rx = receiver(4)
        r: rx.try_recv() => empty
        s: tx.try_send(1)
        s: tx.try_send(2)
        s: tx.drop()
        r: rx.try_recv() => 1
        r: rx.try_recv() => 2
        r: rx.try_recv() => disconnected
        r: rx.try_recv() => disconnected
    ";

    dropping_all_senders_drains_and_ends: "`recv` gives what is left, then `None`, after the last sender is dropped",
    "tx_close_gets_none send_recv_with_buffer",
    "
        s: tx = sender(4)
        r: rx = receiver(4)
        s: tx.try_send(1)
        s: tx.try_send(2)
        s: tx.drop()
        r: rx.recv() => 1
        r: rx.recv() => 2
        r: rx.recv() => none
        r: rx.recv() => none
    ";

    a_clone_keeps_the_channel_open: "clones of the sender keep the channel open",
    "test_rx_is_closed_when_dropping_all_senders test_rx_is_not_closed_when_there_are_senders",
    "
        s: tx = sender(4)
        r: rx = receiver(4)
        s: another = tx.clone()
        s: tx.drop()
        r: rx.is_closed() => no
        s: another.try_send(1)
        s: another.drop()
        r: rx.is_closed() => yes
        r: rx.drain() => [1]
    ";

    close_refuses_and_drains: "`close` lets no more be sent, and what was sent be received",
    "recv_close_gets_none_idle try_recv_after_receiver_close",
    "
        s: tx = sender(4)
        r: rx = receiver(4)
        s: tx.try_send(1)
        r: rx.close()
        s: tx.try_send(2) => closed 2
        s: tx.send(3) => closed 3
        s: tx.try_reserve() => closed
        s: tx.reserve() => closed
        r: rx.recv() => 1
        r: rx.recv() => none
        r: rx.try_recv() => disconnected
    ";

    is_closed_tells_who_has_gone: "`is_closed` of the receiver: after `close`, and when the senders have gone, also if messages wait",
    "test_rx_is_closed_when_calling_close_with_sender test_rx_is_not_closed_when_there_are_senders_and_buffer_filled \
     test_rx_is_closed_when_there_are_no_senders_and_there_are_messages \
     test_rx_is_closed_when_there_are_messages_and_close_is_called",
    "
        s: tx = sender(1)
        r: rx = receiver(1)
        s: tx.try_send(1)
        s: tx.is_closed() => no
        r: rx.is_closed() => no
        s: tx.drop()
        r: rx.is_closed() => yes
        r: rx.is_empty() => no
        r: rx.drop()
        s: tx = sender(1)
        r: rx = receiver(1)
        s: tx.try_send(1)
        r: rx.close()
        r: rx.is_closed() => yes
        s: tx.is_closed() => yes
    ";

    a_permit_is_a_sender_that_is_left: "`is_closed` is false while there is an owned permit, without any other sender",
    "test_rx_is_not_closed_when_there_are_permits_but_not_senders",
    "
        s: tx = sender(4)
        r: rx = receiver(4)
        s: permit = tx.reserve_owned()
        r: rx.is_closed() => no
        r: rx.try_recv() => empty
        s: permit.drop()
        r: rx.is_closed() => yes
        r: rx.try_recv() => disconnected
    ";

    a_waiting_recv_hears_the_end: "a waiting `recv` gets `None` when the last sender goes",
    "tx_close_gets_none",
    "
        s: tx = sender(4)
        r: rx = receiver(4)
        r: next = rx.recv() => pending
        s: tx.drop()
        r: next.await() => none
    ";

    a_waiting_send_hears_the_end: "a waiting `send` fails with its value when the receiver goes",
    "dropping_rx_closes_channel recv_close_gets_none_reserved",
    "
        s: tx = sender(1)
        r: rx = receiver(1)
        s: tx.try_send(1)
        s: second = tx.send(2) => pending
        s: third = tx.reserve() => pending
        r: rx.drop()
        s: second.await() => closed 2
        s: third.await() => closed
    ";

    dropping_the_receiver_closes: "dropping the receiver closes, for `send`, `try_send` and all that reserve",
    "dropping_rx_closes_channel dropping_rx_closes_channel_for_try",
    "
        s: tx = sender(4)
        r: rx = receiver(4)
        r: rx.drop()
        s: tx.try_send(1) => closed 1
        s: tx.send(2) => closed 2
        s: tx.reserve() => closed
        s: tx.try_reserve() => closed
        s: tx.try_reserve_owned() => closed
        s: tx.is_closed() => yes
        s: tx.reserve_owned() => closed
    ";

    what_waits_is_dropped_with_the_receiver: "dropping the receiver drops what waits: here, its memory is free at once",
    "unconsumed_messages_are_dropped test_msgs_dropped_on_rx_drop",
    "
        s: tx = sender(50)
        r: rx = receiver(50)
        s: before = memory()
        s: all = tx.send_all(50) => started
        s: all.await()
        s: before.has_grown() => yes
        r: rx.drop()
        s: before.is_as_it_was() => yes
        s: tx.is_empty() => yes
    ";

    closed_waits_for_the_receiver_to_go: "`closed` is done when the receiver goes or closes, and at once after that",
    "",
    "
        s: tx = sender(4)
        r: rx = receiver(4)
        s: gone = tx.closed() => pending
        s: gone.sleeps() => yes
        r: rx.drop()
        s: gone.is_woken() => yes
        s: gone.poll()
        s: tx.closed()
        s: tx.drop()
        s: tx = sender(4)
        r: rx = receiver(4)
        s: gone = tx.closed() => pending
        r: rx.close()
        s: gone.await()
    ";

    same_channel_compares_channels: "`same_channel` of senders and owned permits, `same_channel_as_sender`: within a process",
    "",
    "
        s: tx = sender(4)
        s: clone = tx.clone()
        s: another = sender_of_another()
        s: tx.same_channel(clone) => yes
        s: tx.same_channel(another) => no
        s: permit = clone.try_reserve_owned()
        s: permit.same_channel_as_sender(tx) => yes
        s: permit.same_channel_as_sender(another) => no
        s: elsewhere = another.try_reserve_owned()
        s: permit.same_channel(elsewhere) => no
    ";

    // ---- Several at once ----

    recv_many_takes_up_to_the_limit: "`recv_many` takes what waits up to the limit, and appends",
    "send_recv_many_bounded_capacity async_send_recv_many_with_buffer",
    "
        s: tx = sender(100)
        r: rx = receiver(100)
        s: all = tx.send_all(10) => started
        s: all.await()
        r: rx.append_many(4) => 4
        r: rx.append_many(100) => 6
        r: buffer() => [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    ";

    recv_many_with_limit_0_returns_at_once: "`recv_many` with limit 0 is 0 at once, even if nothing waits",
    "send_recv_many_bounded_capacity",
    "
        s: tx = sender(4)
        r: rx = receiver(4)
        r: rx.recv_many(0) => []
        s: tx.try_send(1)
        r: rx.recv_many(0) => []
        r: rx.len() => 1
    ";

    recv_many_waits_for_one: "`recv_many` waits for the first message",
    "async_send_recv_many_with_buffer",
    "
        s: tx = sender(4)
        r: rx = receiver(4)
        r: some = rx.recv_many(10) => pending
        s: tx.try_send(7)
        r: some.await() => [7]
    ";

    recv_many_is_0_after_the_end: "`recv_many` is 0 when closed and empty, and gives what is left before; the buffer stays as it is",
    "recv_many_with_non_empty_buffer_bounded_rx_closed_and_idle",
    "
        s: tx = sender(4)
        r: rx = receiver(4)
        s: tx.try_send(1)
        r: rx.close()
        r: rx.append_many(10) => 1
        r: rx.append_many(1) => 0
        r: buffer() => [1]
        s: tx.drop()
        r: rx.append_many(10) => 0
    ";

    many_are_sent_together: "(not in tokio) `send_many` sends all or none",
    "",
    "
        s: tx = sender(3)
        r: rx = receiver(3)
        s: tx.send_many(1, 2)
        s: more = tx.send_many(3, 4) => pending
        r: rx.len() => 2
        r: rx.recv() => 1
        s: more.await()
        r: rx.drain() => [2, 3, 4]
    ";

    // ---- Permits ----

    a_permit_sends_without_waiting: "a permit takes room until it is sent or dropped, and sends without waiting",
    "try_reserve_fails drop_permit_releases_permit reserve_disarm",
    "
        s: tx = sender(1)
        r: rx = receiver(1)
        s: permit = tx.try_reserve()
        s: tx.try_reserve() => full
        s: tx.try_send(1) => full 1
        s: waiting = tx.reserve() => pending
        s: permit.drop()
        s: waiting.was_woken() => yes
        s: waiting.poll()
        s: waiting.send(2)
        r: rx.recv() => 2
        s: permit = tx.reserve()
        s: permit.send(3)
        r: rx.recv() => 3
    ";

    messages_are_in_the_order_of_sending: "a permit is no place in the queue: messages come in the order of `send`",
    "",
    "
        s: tx = sender(4)
        r: rx = receiver(4)
        s: permit = tx.reserve()
        s: tx.try_send(1)
        r: rx.recv() => 1
        s: permit.send(2)
        r: rx.recv() => 2
    ";

    a_waiting_reserve_is_woken_by_a_receive: "a waiting `reserve` is woken when a message is received",
    "reserve_disarm",
    "
        s: tx = sender(1)
        r: rx = receiver(1)
        s: tx.try_send(1)
        s: permit = tx.reserve() => pending
        r: rx.recv() => 1
        s: permit.await()
        s: permit.send(2)
        r: rx.recv() => 2
    ";

    an_owned_permit_gives_its_sender_back: "`OwnedPermit::send` and `release` give the sender back",
    "dropping_rx_closes_channel_for_try",
    "
        s: tx = sender(1)
        r: rx = receiver(1)
        s: permit = tx.reserve_owned()
        s: tx = permit.release()
        s: tx.capacity() => 1
        s: permit = tx.try_reserve_owned()
        s: tx = permit.send(5)
        s: tx.try_reserve_owned() => full
        r: rx.recv() => 5
        s: tx.try_send(6)
    ";

    many_permits_are_had_at_once: "`reserve_many` and `try_reserve_many`: all or none, sent one by one",
    "reserve_many_and_send try_reserve_many_and_send try_reserve_many_full",
    "
        s: tx = sender(4)
        r: rx = receiver(4)
        s: three = tx.reserve_many(3)
        s: three.left() => 3
        s: tx.try_reserve_many(2) => full
        s: one = tx.try_reserve_many(1)
        s: three.send(1)
        s: three.send(2)
        s: one.send(3)
        s: three.left() => 1
        r: rx.drain() => [1, 2, 3]
        s: three.send(4)
        r: rx.recv() => 4
    ";

    dropped_permits_come_back: "permits of a dropped `PermitIterator` come back, and wake who waits for many",
    "drop_permit_iterator_releases_permits",
    "
        s: tx = sender(5)
        r: rx = receiver(5)
        s: five = tx.reserve_many(5)
        s: again = tx.reserve_many(5) => pending
        s: five.drop()
        s: again.was_woken() => yes
        s: again.poll()
        s: again.left() => 5
        s: again.drop()
        s: tx.capacity() => 5
    ";

    many_permits_wait_for_receives: "`reserve_many` waits until there is room for all",
    "reserve_many_and_send",
    "
        s: tx = sender(3)
        r: rx = receiver(3)
        s: tx.send_many(1, 2, 3)
        s: two = tx.reserve_many(2) => pending
        r: rx.recv() => 1
        # Nobody gets past it.
        s: tx.try_send(9) => full 9
        r: rx.recv() => 2
        s: two.await()
        s: two.send(4)
        s: two.send(5)
        r: rx.drain() => [3, 4, 5]
    ";

    no_permits_are_had_at_once: "`reserve_many(0)` succeeds at once, also when full; fails when closed",
    "try_reserve_many_zero reserve_many_zero try_reserve_many_edge_cases",
    "
        s: tx = sender(1)
        r: rx = receiver(1)
        s: none = tx.try_reserve_many(0)
        s: none.left() => 0
        s: none.drop()
        s: tx.try_send(1)
        s: tx.try_reserve_many(0)
        s: tx.reserve_many(0)
        r: rx.drop()
        s: tx.try_reserve_many(0) => closed
        s: tx.reserve_many(0) => closed
    ";

    more_than_the_capacity_is_refused: "more permits than the capacity: `reserve_many` fails at once, `try_reserve_many` says `Full`",
    "reserve_many_above_cap try_reserve_many_edge_cases",
    "
        s: tx = sender(1)
        r: rx = receiver(1)
        s: tx.try_reserve_many(2) => full
        s: tx.try_reserve_many(18446744073709551615) => full
        s: tx.reserve_many(2) => 2 permits can never be had at once, the channel's capacity is 1: ask for fewer, or make \
              the channel with a larger capacity (ChannelOptions::capacity)
    ";

    closed_channels_grant_no_permits: "`reserve_many` and `try_reserve_many` on a closed channel fail",
    "reserve_many_on_closed_channel try_reserve_many_on_closed_channel",
    "
        s: tx = sender(10)
        r: rx = receiver(10)
        r: rx.drop()
        s: tx.reserve_many(5) => closed
        s: tx.try_reserve_many(5) => closed
    ";

    // ---- Closing with permits ----

    closing_waits_for_permits: "after `close`, `recv` gives what is sent with permits, `None` only when none is left; who waits for one fails",
    "recv_close_gets_none_reserved sending_last_permit_wakes_closed_receiver permit_available_not_acquired_close",
    "
        s: tx = sender(1)
        r: rx = receiver(1)
        s: permit = tx.reserve()
        s: waiting = tx.reserve() => pending
        r: rx.close()
        s: waiting.is_woken() => yes
        s: waiting.poll() => closed
        r: next = rx.recv() => pending
        s: permit.send(123)
        r: next.is_woken() => yes
        r: next.poll() => 123
        r: rx.recv() => none
    ";

    the_last_permit_ends_a_closed_channel: "dropping the last permit of a closed channel wakes the receiver, which gets `None`",
    "ready_close_cancel_bounded dropping_last_permit_wakes_closed_receiver",
    "
        s: tx = sender(100)
        r: rx = receiver(100)
        s: permit = tx.reserve()
        r: rx.close()
        r: next = rx.recv() => pending
        s: permit.drop()
        r: next.is_woken() => yes
        r: next.poll() => none
    ";

    the_last_owned_permit_ends_a_closed_channel: "… an owned one: dropped, released, or sent",
    "dropping_last_owned_permit_wakes_closed_receiver releasing_last_owned_permit_wakes_closed_receiver \
     sending_last_owned_permit_wakes_closed_receiver",
    "
        s: tx = sender(100)
        r: rx = receiver(100)
        s: one = tx.clone()
        s: two = tx.clone()
        s: one = one.try_reserve_owned()
        s: two = two.try_reserve_owned()
        s: three = tx.try_reserve_owned()
        r: rx.close()
        r: next = rx.recv() => pending
        s: one.send(1)
        r: next.await() => 1
        r: next = rx.recv() => pending
        s: two.drop()
        r: next.sleeps() => yes
        s: tx = three.release()
        r: next.is_woken() => yes
        r: next.poll() => none
    ";

    the_last_of_many_permits_ends_a_closed_channel: "… and a `PermitIterator`",
    "dropping_last_permit_iterator_wakes_closed_receiver",
    "
        s: tx = sender(100)
        r: rx = receiver(100)
        s: many = tx.try_reserve_many(3)
        r: rx.close()
        s: many.send(1)
        r: rx.recv() => 1
        r: next = rx.recv() => pending
        s: many.drop()
        r: next.is_woken() => yes
        r: next.poll() => none
    ";

    try_recv_waits_for_permits: "`try_recv` of a closed channel says `Empty` while there is a permit, then `Disconnected`",
    "try_recv_after_receiver_close_with_permit",
    "
        s: tx = sender(5)
        r: rx = receiver(5)
        s: permit = tx.try_reserve()
        r: rx.try_recv() => empty
        r: rx.close()
        r: rx.try_recv() => empty
        s: permit.drop()
        r: rx.try_recv() => disconnected
    ";

    a_reservation_that_fails_lets_the_receiver_end:
    "a `reserve` or `reserve_many` that had been given room, and fails or is cancelled after `close`, does not keep the receiver waiting",
    "failed_reserve_wakes_closed_receiver cancelled_reserve_wakes_closed_receiver \
     failed_reserve_many_wakes_closed_receiver cancelled_reserve_many_wakes_closed_receiver",
    "
        s: tx = sender(2)
        r: rx = receiver(2)
        s: permit = tx.try_reserve()
        s: many = tx.reserve_many(2) => pending
        s: other = tx.reserve_many(2) => pending
        r: rx.close()
        r: next = rx.recv() => pending
        s: permit.drop()
        s: many.await() => closed
        s: other.drop()
        r: next.await() => none
    ";

    // ---- Cancelling and waking ----

    cancelled_receives_lose_nothing: "`recv` and `recv_many` in a `select!` lose nothing",
    "",
    "
        s: tx = sender(4)
        r: rx = receiver(4)
        s: all = tx.send_all(2000) => started
        r: received = rx.recv_all_cancelling() => started
        s: all.await()
        s: tx.drop()
        r: received.await() => 2000 in order
    ";

    a_cancelled_send_has_not_sent: "`send` in a `select!` that is not taken has not sent",
    "",
    "
        s: tx = sender(1)
        r: rx = receiver(1)
        s: tx.try_send(1)
        # Polled once, and dropped.
        s: tx.send(2) => pending
        r: rx.drain() => [1]
        s: tx.try_send(3)
        r: rx.drain() => [3]
    ";

    a_cancelled_reserve_has_reserved_nothing: "a `reserve` or `reserve_many` that is dropped gives its place up",
    "",
    "
        s: tx = sender(2)
        r: rx = receiver(2)
        s: tx.send_many(1, 2)
        s: tx.reserve() => pending
        s: tx.reserve_many(2) => pending
        r: rx.drain() => [1, 2]
        s: tx.capacity() => 2
        s: tx.send_many(3, 4)
    ";

    a_woken_recv_that_is_dropped_wakes_the_next: "a waiter that was woken and is dropped passes the wake on",
    "",
    "
        s: tx = sender(4)
        r: rx = receiver(4)
        r: first = rx.recv() => pending
        r: second = rx.recv() => pending
        s: tx.try_send(1)
        r: first.is_woken() => yes
        r: second.sleeps() => yes
        r: first.drop()
        r: second.was_woken() => yes
        r: second.poll() => 1
    ";

    a_woken_send_that_is_dropped_wakes_the_next: "… and so does one that waits for room",
    "",
    "
        s: tx = sender(1)
        r: rx = receiver(1)
        s: tx.try_send(1)
        s: first = tx.send(2) => pending
        s: second = tx.send(3) => pending
        r: rx.recv() => 1
        s: first.is_woken() => yes
        s: first.drop()
        s: second.was_woken() => yes
        s: second.poll()
        r: rx.recv() => 3
    ";

    a_polled_receiver_that_is_dropped_wakes_the_next: "… and a receiver whose `poll_recv` was woken, when it is dropped",
    "",
    "
        s: tx = sender(4)
        r: rx = receiver(4)
        r: polled = rx.clone()
        r: alarm = alarm()
        r: polled.poll_recv(alarm) => pending
        r: waiting = rx.recv() => pending
        s: tx.try_send(1)
        r: alarm.is_woken() => yes
        r: polled.drop()
        r: waiting.was_woken() => yes
        r: waiting.poll() => 1
    ";

    only_the_last_poller_is_woken: "`poll_recv` wakes only the task that polled last",
    "",
    "
        s: tx = sender(4)
        r: rx = receiver(4)
        r: one = alarm()
        r: another = alarm()
        r: rx.poll_recv(one) => pending
        r: rx.poll_recv(another) => pending
        s: tx.try_send(1)
        r: another.is_woken() => yes
        r: one.sleeps() => yes
        r: rx.poll_recv(one) => 1
    ";

    polling_receives: "`poll_recv`, `poll_recv_many`",
    "send_recv_stream_with_buffer",
    "
        s: tx = sender(4)
        r: rx = receiver(4)
        s: all = tx.send_all(3000) => started
        r: received = rx.recv_all_polling() => started
        s: all.await()
        s: tx.drop()
        r: received.await() => 3000 in order
    ";

    // ---- Threads and time ----

    blocking_ends_meet: "`blocking_send`, `blocking_recv`, `blocking_recv_many` on plain threads",
    "blocking_recv blocking_send",
    "
        s: tx = sender(2)
        r: rx = receiver(2)
        r: first = rx.blocking_recv() => started
        s: sent = tx.blocking_send(77) => started
        r: first.await() => 77
        s: sent.await()
        s: all = tx.send_all(500) => started
        r: received = rx.blocking_recv_many(7) => started
        s: all.await()
        s: tx.drop()
        r: received.await() => 500 in order
        r: end = rx.blocking_recv() => started
        r: end.await() => none
    ";

    a_blocked_send_hears_the_end: "`blocking_send` fails with its value when the receiver goes",
    "",
    "
        s: tx = sender(1)
        r: rx = receiver(1)
        s: tx.try_send(1)
        s: sent = tx.blocking_send(2) => started
        r: rx.drop()
        s: sent.await() => closed 2
    ";

    send_timeout_gives_the_value_back: "`send_timeout` gives the value back; here on any executor, tokio's needs its timer",
    "recv_timeout recv_timeout_panic",
    "
        s: tx = sender(1)
        r: rx = receiver(1)
        s: tx.send_timeout(1, 10)
        s: second = tx.send_timeout(2, 10) => pending
        s: second.await() => timeout 2
        s: third = tx.send_timeout(3, 60000) => pending
        r: rx.recv() => 1
        s: third.await()
        r: rx.close()
        s: tx.send_timeout(4, 10) => closed 4
    ";

    recv_timeout_takes_nothing_in_vain: "`timeout` around `recv`; here `recv_timeout`, too",
    "",
    "
        s: tx = sender(1)
        r: rx = receiver(1)
        r: none = rx.recv_timeout(10) => pending
        r: none.await() => timed out waiting for a message
        r: one = rx.recv_timeout(60000) => pending
        s: tx.try_send(1)
        r: one.await() => 1
    ";

    #[cfg(feature = "tokio")]
    a_busy_channel_lets_others_run: "operations charge the cooperative budget: for the time since the last, 75 µs in all, where tokio's charge for each one",
    "",
    "
        s: tx = sender(1024)
        r: rx = receiver(1024)
        s: all = tx.send_all(1024) => started
        s: all.await()
        r: rx.take_turns() => a hundred times in 50 ms true
    ";

    // ---- Weak senders ----

    weak_senders_upgrade_while_there_is_a_sender: "`upgrade` while a sender is left, and after that `None`",
    "weak_sender actor_weak_sender downgrade_upgrade_sender_success downgrade_upgrade_sender_failure \
     downgrade_drop_upgrade test_tx_count_weak_sender",
    "
        s: tx = sender(4)
        r: rx = receiver(4)
        s: weak = tx.downgrade()
        s: upgraded = weak.upgrade()
        s: upgraded.same_channel(tx) => yes
        s: tx.drop()
        r: rx.is_closed() => no
        s: upgraded.try_send(1)
        s: other = weak.clone()
        s: last = other.upgrade()
        s: upgraded.drop()
        s: last.try_send(2)
        s: last.drop()
        s: weak.upgrade() => none
        s: other.upgrade() => none
        r: rx.drain() => [1, 2]
    ";

    weak_senders_keep_nothing_open: "a weak sender does not keep the channel open",
    "test_rx_is_closed_when_dropping_all_senders_except_weak_senders",
    "
        s: tx = sender(4)
        r: rx = receiver(4)
        s: weak = tx.downgrade()
        r: next = rx.recv() => pending
        s: tx.drop()
        r: next.await() => none
        r: rx.is_closed() => yes
        r: rx.drop()
        s: weak.upgrade() => none
        s: channels() => 0
        s: weak.strong_count() => 0
        s: weak.weak_count() => 1
    ";

    an_owned_permit_can_be_upgraded_from: "`upgrade` with an owned permit and no other sender left",
    "downgrade_get_permit_upgrade_no_senders downgrade_upgrade_get_permit_no_senders",
    "
        s: tx = sender(4)
        r: rx = receiver(4)
        s: weak = tx.downgrade()
        s: permit = tx.reserve_owned()
        s: upgraded = weak.upgrade()
        s: permit.drop()
        s: upgraded.try_send(1)
        r: rx.recv() => 1
    ";

    senders_are_counted: "`strong_count`, `weak_count`: here of this process",
    "sender_strong_count_when_cloned sender_weak_count_when_downgraded sender_strong_count_when_dropped \
     sender_weak_count_when_dropped sender_strong_and_weak_conut",
    "
        s: tx = sender(4)
        r: rx = receiver(4)
        s: clone = tx.clone()
        s: weak = tx.downgrade()
        s: another = weak.clone()
        s: tx.strong_count() => 2
        s: tx.weak_count() => 2
        s: clone.drop()
        s: weak.drop()
        s: another.strong_count() => 1
        s: another.weak_count() => 1
        s: another.drop()
        s: tx.strong_count() => 1
        s: tx.weak_count() => 0
    ";
}
