/* Every function takes NULL and nonsense, and says so. */
#include "common.h"

#include <stdint.h>

static void null_everywhere(void)
{
    ww_segment *segment = (ww_segment *)1;
    ww_sender *sender = (ww_sender *)1;
    ww_receiver *receiver = (ww_receiver *)1;
    ww_msg *msg = (ww_msg *)1;
    ww_loan *loan = (ww_loan *)1;

    IS(WW_INVALID, ww_segment_open_or_create(NULL, NULL, &segment));
    CHECK(segment == NULL);
    IS(WW_INVALID, ww_segment_open_or_create("name", NULL, NULL));
    IS(WW_INVALID, ww_segment_create(NULL, NULL, &segment));
    IS(WW_INVALID, ww_segment_open(NULL, NULL, &segment));
    IS(WW_INVALID, ww_segment_anonymous(NULL, NULL));
    IS(WW_INVALID, ww_segment_from_fd(-1, &segment));
    IS(WW_INVALID, ww_segment_from_fd(9999, &segment));
    IS(WW_INVALID, ww_segment_from_fd(0, NULL));
    IS(WW_INVALID, ww_segment_remove(NULL, NULL));
    OK(ww_segment_sweep(NULL, NULL));
    CHECK(ww_segment_fd(NULL) == -1 && ww_segment_name(NULL) == NULL && ww_segment_path(NULL) == NULL);
    CHECK(ww_segment_held_bytes(NULL) == 0);
    IS(WW_INVALID, ww_segment_check(NULL));
    ww_segment_close(NULL);

    IS(WW_INVALID, ww_sender_open(NULL, "channel", NULL, &sender));
    CHECK(sender == NULL);
    IS(WW_INVALID, ww_send(NULL, "x", 1));
    IS(WW_INVALID, ww_send_timeout(NULL, "x", 1, 0));
    IS(WW_INVALID, ww_try_send(NULL, "x", 1));
    IS(WW_INVALID, ww_sender_loan(NULL, 1, 0, &loan));
    CHECK(loan == NULL);
    IS(WW_INVALID, ww_sender_try_loan(NULL, 1, &loan));
    CHECK(ww_loan_data(NULL) == NULL && ww_loan_capacity(NULL) == 0);
    IS(WW_INVALID, ww_sender_commit(NULL, 0));
    ww_sender_abort(NULL);
    CHECK(ww_sender_is_closed(NULL) && ww_sender_len(NULL) == 0);
    CHECK(ww_sender_capacity(NULL) == 0 && ww_sender_room(NULL) == 0);
    ww_sender_close(NULL);

    IS(WW_INVALID, ww_receiver_open(NULL, "channel", NULL, &receiver));
    CHECK(receiver == NULL);
    IS(WW_INVALID, ww_recv(NULL, 0, &msg));
    CHECK(msg == NULL);
    IS(WW_INVALID, ww_try_recv(NULL, &msg));
    CHECK(ww_recv_fd(NULL) == -1);
    IS(WW_INVALID, ww_receiver_shutdown(NULL));
    CHECK(ww_receiver_is_closed(NULL) && ww_receiver_len(NULL) == 0 && ww_receiver_capacity(NULL) == 0);
    ww_receiver_close(NULL);

    ww_publisher *publisher = (ww_publisher *)1;
    ww_subscriber *subscriber = (ww_subscriber *)1;
    uint64_t missed = 7;
    IS(WW_INVALID, ww_publisher_open(NULL, "x", NULL, &publisher));
    IS(WW_INVALID, ww_publish(NULL, "x", 1, 0, NULL));
    IS(WW_INVALID, ww_try_publish(NULL, "x", 1, NULL));
    IS(WW_INVALID, ww_subscriber_open(NULL, "x", NULL, &subscriber));
    IS(WW_INVALID, ww_subscriber_recv(NULL, 0, &msg, &missed));
    IS(WW_INVALID, ww_subscriber_try_recv(NULL, &msg, &missed));
    CHECK(publisher == NULL && subscriber == NULL && msg == NULL && missed == 7);
    CHECK(ww_subscriber_fd(NULL) == -1 && ww_subscriber_len(NULL) == 0 && ww_publisher_groups(NULL) == 0);
    ww_publisher_close(NULL);
    ww_subscriber_close(NULL);

    ww_client *client = (ww_client *)1;
    ww_server *server = (ww_server *)1;
    ww_request *request = (ww_request *)1;
    IS(WW_INVALID, ww_client_open(NULL, "x", NULL, &client));
    IS(WW_INVALID, ww_call(NULL, "x", 1, 0, &msg));
    IS(WW_INVALID, ww_server_open(NULL, "x", NULL, &server));
    IS(WW_INVALID, ww_server_next(NULL, 0, &request));
    CHECK(client == NULL && server == NULL && request == NULL);
    IS(WW_INVALID, ww_server_try_next(NULL, &request));
    IS(WW_INVALID, ww_request_respond(NULL, "x", 1));
    IS(WW_INVALID, ww_request_nack(NULL));
    CHECK(ww_server_fd(NULL) == -1 && ww_request_data(NULL) == NULL && ww_request_len(NULL) == 0);
    CHECK(ww_request_delivery_count(NULL) == 0 && ww_request_time_left(NULL) == 0);
    CHECK(ww_request_is_cancelled(NULL) && ww_client_is_closed(NULL));
    ww_request_drop(NULL);
    ww_client_close(NULL);
    ww_server_close(NULL);

    ww_watch_sender *watched = (ww_watch_sender *)1;
    ww_watch_receiver *watching = (ww_watch_receiver *)1;
    IS(WW_INVALID, ww_watch_sender_open(NULL, "x", NULL, &watched));
    IS(WW_INVALID, ww_watch_send(NULL, "x", 1));
    IS(WW_INVALID, ww_watch_receiver_open(NULL, "x", NULL, &watching));
    IS(WW_INVALID, ww_watch_get(NULL, &msg));
    IS(WW_INVALID, ww_watch_changed(NULL, 0));
    CHECK(watched == NULL && watching == NULL && ww_watch_fd(NULL) == -1);
    ww_watch_sender_close(NULL);
    ww_watch_receiver_close(NULL);

    ww_semaphore *semaphore = (ww_semaphore *)1;
    ww_permit *permit = (ww_permit *)1;
    IS(WW_INVALID, ww_semaphore_open(NULL, "x", 1, &semaphore));
    IS(WW_INVALID, ww_semaphore_acquire(NULL, 1, 0, &permit));
    IS(WW_INVALID, ww_semaphore_try_acquire(NULL, 1, &permit));
    IS(WW_INVALID, ww_semaphore_shutdown(NULL));
    IS(WW_INVALID, ww_permit_forget(NULL));
    CHECK(semaphore == NULL && permit == NULL);
    CHECK(ww_semaphore_available(NULL) == 0 && ww_semaphore_add(NULL, 1) == 0);
    ww_permit_release(NULL);
    ww_semaphore_close(NULL);

    ww_notify *notify = (ww_notify *)1;
    IS(WW_INVALID, ww_notify_open(NULL, "x", &notify));
    IS(WW_INVALID, ww_notify_one(NULL));
    IS(WW_INVALID, ww_notify_all(NULL));
    IS(WW_INVALID, ww_notify_wait(NULL, 0));
    CHECK(notify == NULL);
    ww_notify_close(NULL);

    CHECK(ww_msg_data(NULL) == NULL && ww_msg_len(NULL) == 0 && ww_msg_sequence(NULL) == 0);
    CHECK(ww_msg_delivery_count(NULL) == 0 && !ww_msg_redelivered(NULL));
    ww_msg_ack(NULL);
    IS(WW_INVALID, ww_msg_nack(NULL));
}

static void nonsense(void)
{
    ww_segment *segment, *other;
    ww_sender *sender;
    ww_receiver *receiver;
    OK(ww_segment_open_or_create("border", NULL, &segment));
    CHECK(!strcmp(ww_segment_name(segment), "border") && strstr(ww_segment_path(segment), "border"));

    IS(WW_INVALID, ww_segment_open_or_create("no/name", NULL, &other));
    CHECK(strstr(ww_last_error(), "no/name"));
    IS(WW_INVALID, ww_segment_open_or_create("\xff", NULL, &other));
    IS(WW_NOT_FOUND, ww_segment_open("nowhere", NULL, &other));
    IS(WW_NOT_FOUND, ww_segment_remove("nowhere", NULL));
    IS(WW_EXISTS, ww_segment_create("border", NULL, &other));
    CHECK(other == NULL);

    IS(WW_INVALID, ww_sender_open(segment, NULL, NULL, &sender));
    IS(WW_INVALID, ww_sender_open(segment, "no name", NULL, &sender));
    IS(WW_INVALID, ww_sender_open(segment, "channel", NULL, NULL));

    ww_channel_options options = {.struct_size = sizeof options};
    options.capacity = (uint64_t)1 << 40;
    IS(WW_INVALID, ww_sender_open(segment, "channel", &options, &sender));
    options.capacity = 16;
    options.delivery = 3;
    IS(WW_INVALID, ww_sender_open(segment, "channel", &options, &sender));
    options.delivery = WW_DELIVERY_DEFAULT;
    options.persistent = 7;
    IS(WW_INVALID, ww_sender_open(segment, "channel", &options, &sender));
    options.persistent = WW_DEFAULT;
    options.wait = 2;
    IS(WW_INVALID, ww_sender_open(segment, "channel", &options, &sender));
    options.wait = WW_WAIT_PARK;
    options.reserved = 1;
    IS(WW_INVALID, ww_sender_open(segment, "channel", &options, &sender));
    options.reserved = 0;
    options.keep_last = 2;
    options.overwrite_oldest = WW_YES;
    IS(WW_INVALID, ww_sender_open(segment, "channel", &options, &sender));
    options.keep_last = 0;
    options.overwrite_oldest = WW_DEFAULT;
    options.struct_size = 0;
    IS(WW_INVALID, ww_sender_open(segment, "channel", &options, &sender));
    /* A header from before the fields behind the capacity. */
    options.struct_size = 16;
    options.delivery = 77;
    OK(ww_sender_open(segment, "channel", &options, &sender));
    CHECK(ww_sender_capacity(sender) == 16);

    options = (ww_channel_options){.struct_size = sizeof options, .capacity = 17};
    IS(WW_MISMATCH, ww_receiver_open(segment, "channel", &options, &receiver));
    CHECK(strstr(ww_last_error(), "16") && strstr(ww_last_error(), "17"));

    ww_publisher *publisher;
    ww_subscriber *subscriber;
    ww_watch_sender *watched;
    ww_broadcast_options wide = {.struct_size = sizeof wide, .behind = 4};
    IS(WW_INVALID, ww_subscriber_open(segment, "broadcast", &wide, &subscriber));
    wide = (ww_broadcast_options){.struct_size = sizeof wide, .delivery = WW_AT_LEAST_ONCE, .max_deliveries = 256};
    IS(WW_INVALID, ww_subscriber_open(segment, "broadcast", &wide, &subscriber));
    wide = (ww_broadcast_options){.struct_size = sizeof wide, .max_groups = 65};
    IS(WW_INVALID, ww_publisher_open(segment, "broadcast", &wide, &publisher));
    IS(WW_MISMATCH, ww_publisher_open(segment, "channel", NULL, &publisher));
    ww_watch_options value = {.struct_size = sizeof value, .initial_len = 1};
    IS(WW_INVALID, ww_watch_sender_open(segment, "watch", &value, &watched));
    value = (ww_watch_options){.struct_size = sizeof value, .reserved = 1};
    IS(WW_INVALID, ww_watch_sender_open(segment, "watch", &value, &watched));

    IS(WW_INVALID, ww_send(sender, NULL, 1));
    IS(WW_INVALID, ww_send(sender, "x", SIZE_MAX));
    IS(WW_TOO_LARGE, ww_send_timeout(sender, "x", 0, 0) == WW_OK ? ww_send(sender, segment, (size_t)1 << 40) : WW_OK);
    IS(WW_INVALID, ww_sender_loan(sender, 1, 0, NULL));

    CHECK(!strcmp(ww_status_name(WW_MISMATCH), "WW_MISMATCH"));
    CHECK(!strcmp(ww_status_name(-5), "WW_UNKNOWN") && !strcmp(ww_status_name(1000), "WW_UNKNOWN"));
    ww_sender_close(sender);
    OK(ww_segment_check(segment));
    ww_segment_close(segment);
    IS(WW_NOT_FOUND, ww_segment_open("border", NULL, &segment));
}

int main(void)
{
    begin();
    CHECK(!strcmp(ww_last_error(), ""));
    null_everywhere();
    nonsense();
    return finish();
}
