/* A million messages, by every way, and neither memory nor descriptors nor blocks of the segment grow. */
#include "common.h"

#include <dirent.h>
#include <stdint.h>

enum { MESSAGES = 1000000, WARM = 100000, OPENINGS = 300 };

/* Memory of the process's own, in KiB. What it has touched of the segment is counted by the segment. */
static long resident(void)
{
    long found = -1;
    char line[256];
    FILE *file = fopen("/proc/self/status", "r");
    CHECK(file);
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "RssAnon: %ld", &found) == 1)
            break;
    fclose(file);
    CHECK(found > 0);
    return found;
}

static int descriptors(void)
{
    int count = 0;
    DIR *dir = opendir("/proc/self/fd");
    CHECK(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static ww_segment *segment;
static ww_sender *sender;
static ww_receiver *receiver, *polled;

static void one(uint64_t number)
{
    static const char bytes[300];
    ww_msg *msg;
    ww_loan *loan;
    size_t len = number % sizeof bytes;
    switch (number % 4) {
    case 0:
        OK(ww_try_send(sender, bytes, len));
        break;
    case 1:
        OK(ww_send_timeout(sender, bytes, len, WW_SECOND));
        break;
    case 2:
        OK(ww_sender_loan(sender, len, WW_FOREVER, &loan));
        OK(ww_sender_commit(loan, len));
        break;
    default:
        OK(ww_sender_try_loan(sender, len, &loan));
        ww_sender_abort(loan);
        OK(ww_send(sender, bytes, len));
    }
    ww_receiver *from = number % 16 < 8 ? receiver : polled;
    OK(number % 3 ? ww_try_recv(from, &msg) : ww_recv(from, WW_FOREVER, &msg));
    CHECK(ww_msg_len(msg) == len);
    if (number % 5) {
        ww_msg_ack(msg);
    } else {
        OK(ww_msg_nack(msg));
        OK(ww_recv(from, WW_FOREVER, &msg));
        ww_msg_ack(msg);
    }
    if (number % 7 == 0)
        IS(WW_EMPTY, ww_try_recv(from, &msg));
    if (number % 1000 == 0) {
        ww_segment *nowhere;
        IS(WW_TIMEOUT, ww_recv(from, 1, &msg));
        IS(WW_NOT_FOUND, ww_segment_open("nowhere", NULL, &nowhere));
    }
}

static void opens(void)
{
    ww_segment *again;
    ww_sender *another;
    ww_receiver *third;
    ww_msg *msg;
    OK(ww_segment_open("leaks", NULL, &again));
    OK(ww_receiver_open(again, "other", NULL, &third));
    OK(ww_sender_open(again, "other", NULL, &another));
    CHECK(ww_recv_fd(third) >= 0);
    IS(WW_EMPTY, ww_try_recv(third, &msg));
    OK(ww_send(another, "x", 1));
    ww_publisher *publisher;
    ww_subscriber *subscriber;
    ww_watch_sender *watched;
    ww_watch_receiver *watching;
    ww_semaphore *semaphore;
    ww_permit *permit;
    uint64_t missed = 0;
    ww_broadcast_options wide = {.struct_size = sizeof wide, .capacity = 2};
    OK(ww_publisher_open(again, "broadcast", &wide, &publisher));
    OK(ww_subscriber_open(again, "broadcast", &wide, &subscriber));
    CHECK(ww_subscriber_fd(subscriber) >= 0);
    IS(WW_EMPTY, ww_subscriber_try_recv(subscriber, &msg, NULL));
    for (int at = 0; at < 5; at++)
        OK(ww_publish(publisher, "x", 1, 0, NULL));
    IS(WW_LAGGED, ww_subscriber_try_recv(subscriber, &msg, &missed));
    CHECK(missed > 0);
    OK(ww_subscriber_try_recv(subscriber, &msg, NULL));
    ww_msg_ack(msg);
    ww_publisher_close(publisher);
    ww_subscriber_close(subscriber);
    OK(ww_watch_sender_open(again, "watch", NULL, &watched));
    OK(ww_watch_receiver_open(again, "watch", NULL, &watching));
    CHECK(ww_watch_fd(watching) >= 0);
    IS(WW_TIMEOUT, ww_watch_changed(watching, 0));
    OK(ww_watch_send(watched, "x", 1));
    OK(ww_watch_changed(watching, PATIENCE));
    OK(ww_watch_get(watching, &msg));
    ww_msg_ack(msg);
    ww_watch_sender_close(watched);
    ww_watch_receiver_close(watching);
    OK(ww_semaphore_open(again, "semaphore", 0, &semaphore));
    OK(ww_semaphore_acquire(semaphore, 1, 0, &permit));
    ww_permit_release(permit);
    ww_semaphore_close(semaphore);

    ww_segment_close(again);
    ww_receiver_close(third);
    ww_sender_close(another);
}

int main(void)
{
    begin();
    ww_channel_options options = {.struct_size = sizeof options, .delivery = WW_AT_LEAST_ONCE};
    OK(ww_segment_create("leaks", NULL, &segment));
    OK(ww_sender_open(segment, "x", &options, &sender));
    OK(ww_receiver_open(segment, "x", &options, &receiver));
    OK(ww_receiver_open(segment, "x", &options, &polled));
    CHECK(ww_recv_fd(polled) >= 0);
    for (int round = 0; round < OPENINGS / 3; round++)
        opens();
    for (uint64_t number = 0; number < WARM; number++)
        one(number);
    long before = resident();
    int open = descriptors();
    size_t held = ww_segment_held_bytes(segment);
    for (int round = 0; round < OPENINGS; round++)
        opens();
    for (uint64_t number = 0; number < MESSAGES; number++)
        one(number);
    long grown = resident() - before;
    printf("a million messages: %ld KiB more, %d descriptors more\n", grown, descriptors() - open);
    /* A byte lost with every message would be 977 KiB. */
    CHECK(grown < 500);
    CHECK(descriptors() == open);
    CHECK(ww_segment_held_bytes(segment) == held);
    ww_sender_close(sender);
    ww_receiver_close(receiver);
    ww_receiver_close(polled);
    OK(ww_segment_check(segment));
    ww_segment_close(segment);
    return finish();
}
