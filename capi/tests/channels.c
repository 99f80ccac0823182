/* Channels of bytes do what the header says. */
#include "common.h"

#include <pthread.h>
#include <stdint.h>

static ww_segment *segment;

static void messages_come_in_order_and_are_read_in_place(void)
{
    ww_sender *sender;
    ww_receiver *receiver;
    ww_msg *first, *second;
    ww_channel_options options = {.struct_size = sizeof options, .capacity = 2};
    OK(ww_sender_open(segment, "order", &options, &sender));
    OK(ww_receiver_open(segment, "order", NULL, &receiver));
    CHECK(ww_receiver_capacity(receiver) == 2 && ww_sender_room(sender) == 2);
    IS(WW_EMPTY, ww_try_recv(receiver, &first));
    IS(WW_TIMEOUT, ww_recv(receiver, 0, &first));
    IS(WW_TIMEOUT, ww_recv(receiver, WW_MILLISECOND, &first));
    CHECK(first == NULL);

    OK(ww_try_send(sender, "one", 3));
    OK(ww_send_timeout(sender, NULL, 0, 0));
    IS(WW_FULL, ww_try_send(sender, "three", 5));
    IS(WW_TIMEOUT, ww_send_timeout(sender, "three", 5, WW_MILLISECOND));
    CHECK(ww_sender_len(sender) == 2 && ww_receiver_len(receiver) == 2 && ww_sender_room(sender) == 0);

    OK(ww_recv(receiver, WW_FOREVER, &first));
    OK(ww_try_recv(receiver, &second));
    CHECK(ww_msg_len(first) == 3 && !memcmp(ww_msg_data(first), "one", 3));
    CHECK((uintptr_t)ww_msg_data(first) % 8 == 0);
    CHECK(ww_msg_len(second) == 0 && ww_msg_data(second) != NULL);
    CHECK(ww_msg_sequence(second) == ww_msg_sequence(first) + 1);
    CHECK(ww_msg_delivery_count(first) == 1 && !ww_msg_redelivered(first));
    ww_msg_ack(second);
    /* Messages outlive their ends. */
    ww_sender_close(sender);
    IS(WW_CLOSED, ww_try_recv(receiver, &second));
    IS(WW_CLOSED, ww_recv(receiver, WW_FOREVER, &second));
    CHECK(ww_receiver_is_closed(receiver));
    ww_receiver_close(receiver);
    CHECK(!memcmp(ww_msg_data(first), "one", 3));
    ww_msg_ack(first);
}

static void loans_are_written_in_place(void)
{
    ww_sender *sender;
    ww_receiver *receiver;
    ww_loan *loan, *other;
    ww_channel_options options = {.struct_size = sizeof options, .capacity = 1};
    OK(ww_sender_open(segment, "loans", &options, &sender));
    OK(ww_receiver_open(segment, "loans", NULL, &receiver));
    OK(ww_sender_loan(sender, 1000, WW_FOREVER, &loan));
    CHECK(ww_loan_capacity(loan) >= 1000 && (uintptr_t)ww_loan_data(loan) % 8 == 0);
    /* It has the only room. */
    IS(WW_FULL, ww_try_send(sender, "x", 1));
    IS(WW_FULL, ww_sender_try_loan(sender, 1, &other));
    IS(WW_TIMEOUT, ww_sender_loan(sender, 1, WW_MILLISECOND, &other));
    memset(ww_loan_data(loan), 'a', 1000);
    OK(ww_sender_commit(loan, 5));
    RECEIVES(receiver, "aaaaa");

    OK(ww_sender_try_loan(sender, 10, &loan));
    ww_sender_abort(loan);
    OK(ww_sender_try_loan(sender, 10, &loan));
    IS(WW_INVALID, ww_sender_commit(loan, ww_loan_capacity(loan) + 1));
    CHECK(ww_receiver_len(receiver) == 0 && ww_sender_room(sender) == 1);
    IS(WW_TOO_LARGE, ww_sender_try_loan(sender, (size_t)1 << 40, &loan));
    IS(WW_TOO_LARGE, ww_sender_loan(sender, (size_t)1 << 40, 0, &loan));

    /* A loan outlives its sender. */
    OK(ww_sender_loan(sender, 4, 0, &loan));
    ww_sender_close(sender);
    memcpy(ww_loan_data(loan), "late", 4);
    OK(ww_sender_commit(loan, 4));
    RECEIVES(receiver, "late");

    /* Also one that cannot be sent. */
    OK(ww_sender_open(segment, "loans", &options, &sender));
    OK(ww_sender_loan(sender, 4, 0, &loan));
    ww_sender_close(sender);
    IS(WW_INVALID, ww_sender_commit(loan, (size_t)1 << 40));
    ww_receiver_close(receiver);
}

static void what_is_given_back_comes_again(void)
{
    ww_sender *sender;
    ww_receiver *receiver, *letters;
    ww_msg *msg;
    ww_channel_options options = {.struct_size = sizeof options,
                                  .delivery = WW_AT_LEAST_ONCE,
                                  .max_deliveries = 2,
                                  .dead_letter = "letters"};
    OK(ww_sender_open(segment, "jobs", &options, &sender));
    OK(ww_receiver_open(segment, "jobs", &options, &receiver));
    OK(ww_receiver_open(segment, "letters", NULL, &letters));
    OK(ww_send(sender, "job", 3));
    OK(ww_recv(receiver, 0, &msg));
    OK(ww_msg_nack(msg));
    OK(ww_recv(receiver, 0, &msg));
    CHECK(ww_msg_redelivered(msg) && ww_msg_delivery_count(msg) == 2);
    OK(ww_msg_nack(msg));
    IS(WW_EMPTY, ww_try_recv(receiver, &msg));
    RECEIVES(letters, "job");
    ww_sender_close(sender);
    ww_receiver_close(receiver);
    ww_receiver_close(letters);
}

static void policies_are_kept(void)
{
    ww_sender *sender;
    ww_receiver *receiver;
    ww_msg *msg;
    ww_channel_options options = {.struct_size = sizeof options, .capacity = 4, .keep_last = 2};
    OK(ww_sender_open(segment, "latest", &options, &sender));
    OK(ww_receiver_open(segment, "latest", NULL, &receiver));
    for (char letter = 'a'; letter <= 'e'; letter++)
        OK(ww_try_send(sender, &letter, 1));
    RECEIVES(receiver, "d");
    RECEIVES(receiver, "e");
    ww_sender_close(sender);
    ww_receiver_close(receiver);

    options = (ww_channel_options){.struct_size = sizeof options, .ttl_ns = 1};
    OK(ww_sender_open(segment, "brief", &options, &sender));
    OK(ww_receiver_open(segment, "brief", NULL, &receiver));
    OK(ww_send(sender, "x", 1));
    usleep(1000);
    IS(WW_EMPTY, ww_try_recv(receiver, &msg));
    ww_sender_close(sender);
    ww_receiver_close(receiver);

    options = (ww_channel_options){.struct_size = sizeof options, .persistent = WW_YES};
    OK(ww_sender_open(segment, "lasting", &options, &sender));
    OK(ww_send(sender, "kept", 4));
    ww_sender_close(sender);
    OK(ww_receiver_open(segment, "lasting", NULL, &receiver));
    RECEIVES(receiver, "kept");
    IS(WW_EMPTY, ww_try_recv(receiver, &msg));
    ww_receiver_close(receiver);
}

static void a_channel_is_closed_by_its_last_receiver_or_by_shutdown(void)
{
    ww_sender *sender;
    ww_receiver *receiver;
    OK(ww_sender_open(segment, "closing", NULL, &sender));
    CHECK(!ww_sender_is_closed(sender));
    OK(ww_receiver_open(segment, "closing", NULL, &receiver));
    OK(ww_send(sender, "before", 6));
    OK(ww_receiver_shutdown(receiver));
    CHECK(ww_sender_is_closed(sender) && ww_receiver_is_closed(receiver));
    IS(WW_CLOSED, ww_send(sender, "after", 5));
    IS(WW_CLOSED, ww_try_send(sender, "after", 5));
    IS(WW_CLOSED, ww_send_timeout(sender, "after", 5, PATIENCE));
    RECEIVES(receiver, "before");
    ww_receiver_close(receiver);
    ww_sender_close(sender);
}

enum { SENDERS = 3, RECEIVERS = 3, EACH = 3000 };

static void *sends(void *sender)
{
    for (uint64_t number = 1; number <= EACH; number++)
        OK(ww_send(sender, &number, sizeof number));
    return NULL;
}

static void *receives(void *receiver)
{
    uint64_t *sum = calloc(1, sizeof *sum);
    ww_msg *msg;
    ww_status status;
    while ((status = ww_recv(receiver, PATIENCE, &msg)) == WW_OK) {
        *sum += *(const uint64_t *)ww_msg_data(msg);
        ww_msg_ack(msg);
    }
    IS(WW_CLOSED, status);
    return sum;
}

static void threads_share_handles(void)
{
    ww_sender *sender;
    ww_receiver *receiver;
    pthread_t senders[SENDERS], receivers[RECEIVERS];
    ww_channel_options options = {.struct_size = sizeof options, .capacity = 16};
    uint64_t sum = 0;
    OK(ww_sender_open(segment, "threads", &options, &sender));
    OK(ww_receiver_open(segment, "threads", NULL, &receiver));
    for (int at = 0; at < SENDERS; at++)
        CHECK(!pthread_create(&senders[at], NULL, sends, sender));
    for (int at = 0; at < RECEIVERS; at++)
        CHECK(!pthread_create(&receivers[at], NULL, receives, receiver));
    for (int at = 0; at < SENDERS; at++)
        CHECK(!pthread_join(senders[at], NULL));
    ww_sender_close(sender);
    for (int at = 0; at < RECEIVERS; at++) {
        void *partial;
        CHECK(!pthread_join(receivers[at], &partial));
        sum += *(uint64_t *)partial;
        free(partial);
    }
    CHECK(sum == (uint64_t)SENDERS * EACH * (EACH + 1) / 2);
    ww_receiver_close(receiver);
}

static void anonymous_segments_are_opened_by_descriptor(void)
{
    ww_segment *one, *other;
    ww_sender *sender;
    ww_receiver *receiver;
    ww_segment_options options = {.struct_size = sizeof options, .bytes = 4 << 20};
    OK(ww_segment_anonymous(&options, &one));
    CHECK(ww_segment_path(one) == NULL && !strcmp(ww_segment_name(one), ""));
    OK(ww_segment_from_fd(ww_segment_fd(one), &other));
    OK(ww_receiver_open(other, "x", NULL, &receiver));
    OK(ww_sender_open(one, "x", NULL, &sender));
    OK(ww_send(sender, "hello", 5));
    RECEIVES(receiver, "hello");
    ww_sender_close(sender);
    ww_receiver_close(receiver);
    ww_segment_close(one);
    ww_segment_close(other);
}

int main(void)
{
    begin();
    ww_segment_options options = {.struct_size = sizeof options, .bytes = 8 << 20, .zero_on_free = WW_YES};
    OK(ww_segment_create("channels", &options, &segment));
    messages_come_in_order_and_are_read_in_place();
    loans_are_written_in_place();
    what_is_given_back_comes_again();
    policies_are_kept();
    a_channel_is_closed_by_its_last_receiver_or_by_shutdown();
    threads_share_handles();
    anonymous_segments_are_opened_by_descriptor();
    OK(ww_segment_check(segment));
    ww_segment_close(segment);
    return finish();
}
