/* Programs that wait with epoll hear of every message, and of the end: level- and edge-triggered, threads that share a receiver,
 * beside threads that block on the same receiver, and other processes. A message that nobody hears of is a program that does not end. */
#include "common.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/wait.h>

enum { SENDERS = 3, EACH = 6000, CHANNELS = 2 };

static const char *const names[CHANNELS] = {"left", "right"};
static ww_receiver *receivers[CHANNELS];
static atomic_ullong sum, count;

static bool is_readable(int fd)
{
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    return poll(&wanted, 1, 0) == 1;
}

static void takes(ww_msg *msg)
{
    sum += *(const uint64_t *)ww_msg_data(msg);
    count++;
    ww_msg_ack(msg);
}

/* Waits for all channels, until all are closed. `most`: how many messages it takes before it waits again; 0: all. */
static void waits(uint32_t how, int most)
{
    int open = CHANNELS;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    for (int at = 0; at < CHANNELS; at++) {
        struct epoll_event event = {.events = EPOLLIN | how, .data.u32 = (uint32_t)at};
        CHECK(!epoll_ctl(epoll, EPOLL_CTL_ADD, ww_recv_fd(receivers[at]), &event));
    }
    while (open) {
        struct epoll_event event;
        if (epoll_wait(epoll, &event, 1, -1) != 1)
            continue;
        ww_receiver *receiver = receivers[event.data.u32];
        ww_msg *msg;
        ww_status status = WW_OK;
        for (int taken = 0; status == WW_OK && (!most || taken < most); taken++)
            if ((status = ww_try_recv(receiver, &msg)) == WW_OK)
                takes(msg);
        if (status == WW_CLOSED) {
            open--;
            CHECK(!epoll_ctl(epoll, EPOLL_CTL_DEL, ww_recv_fd(receiver), NULL));
        } else if (status != WW_OK) {
            IS(WW_EMPTY, status);
        }
    }
    close(epoll);
}

static void *level(void *unused)
{
    waits(0, 1);
    return unused;
}

static void *edge(void *unused)
{
    waits(EPOLLET, 0);
    return unused;
}

/* Takes messages from under those who wait. */
static void *blocks(void *unused)
{
    ww_msg *msg;
    ww_status status;
    do {
        status = ww_recv(receivers[0], 50000, &msg);
        if (status == WW_OK)
            takes(msg);
    } while (status != WW_CLOSED);
    return unused;
}

static void sends(void)
{
    ww_segment *segment;
    ww_sender *senders[CHANNELS];
    OK(ww_segment_open("epoll", NULL, &segment));
    for (int at = 0; at < CHANNELS; at++)
        OK(ww_sender_open(segment, names[at], NULL, &senders[at]));
    for (uint64_t number = 1; number <= EACH; number++) {
        OK(ww_send(senders[number % CHANNELS], &number, sizeof number));
        /* So that it is empty now and then. */
        if (number % 32 == 0)
            usleep((unsigned)(number % 7) * 30);
    }
    for (int at = 0; at < CHANNELS; at++)
        ww_sender_close(senders[at]);
    ww_segment_close(segment);
}

/* Each message reaches one of those who wait in this process. */
static void nothing_is_missed(void)
{
    ww_segment *segment;
    pid_t children[SENDERS];
    pthread_t threads[4];
    void *(*const bodies[4])(void *) = {level, level, edge, blocks};
    ww_channel_options options = {.struct_size = sizeof options, .capacity = 64};
    OK(ww_segment_create("epoll", NULL, &segment));
    /* Its last sender must not go before the first of a child has come. */
    ww_sender *keepers[CHANNELS];
    for (int at = 0; at < CHANNELS; at++) {
        OK(ww_receiver_open(segment, names[at], &options, &receivers[at]));
        OK(ww_sender_open(segment, names[at], NULL, &keepers[at]));
    }
    for (int at = 0; at < SENDERS; at++) {
        children[at] = fork();
        CHECK(children[at] >= 0);
        if (!children[at]) {
            begin();
            sends();
            /* What it inherited is the parent's. */
            _exit(0);
        }
    }
    for (int at = 0; at < 4; at++)
        CHECK(!pthread_create(&threads[at], NULL, bodies[at], NULL));
    for (int at = 0; at < SENDERS; at++) {
        int status;
        CHECK(waitpid(children[at], &status, 0) == children[at] && status == 0);
    }
    for (int at = 0; at < CHANNELS; at++)
        ww_sender_close(keepers[at]);
    for (int at = 0; at < 4; at++)
        CHECK(!pthread_join(threads[at], NULL));
    CHECK(count == (unsigned long long)SENDERS * EACH);
    CHECK(sum == (unsigned long long)SENDERS * EACH * (EACH + 1) / 2);
    for (int at = 0; at < CHANNELS; at++)
        ww_receiver_close(receivers[at]);
    OK(ww_segment_check(segment));
    ww_segment_close(segment);
}

/* The descriptor is readable exactly from when there may be something until somebody is told that there is nothing. */
static void it_is_readable_when_there_is_something(void)
{
    ww_segment *segment;
    ww_sender *sender;
    ww_receiver *receiver;
    ww_msg *msg;
    OK(ww_segment_create("readable", NULL, &segment));
    OK(ww_sender_open(segment, "x", NULL, &sender));
    OK(ww_receiver_open(segment, "x", NULL, &receiver));
    int fd = ww_recv_fd(receiver);
    CHECK(fd >= 0 && fd == ww_recv_fd(receiver) && is_readable(fd));
    IS(WW_EMPTY, ww_try_recv(receiver, &msg));
    CHECK(!is_readable(fd));
    OK(ww_send(sender, "a", 1));
    OK(ww_send(sender, "b", 1));
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    CHECK(poll(&wanted, 1, -1) == 1);
    RECEIVES(receiver, "a");
    CHECK(is_readable(fd));
    RECEIVES(receiver, "b");
    CHECK(is_readable(fd));
    /* Whatever says that there is nothing. */
    IS(WW_TIMEOUT, ww_recv(receiver, WW_MILLISECOND, &msg));
    CHECK(!is_readable(fd));
    ww_sender_close(sender);
    CHECK(poll(&wanted, 1, -1) == 1);
    IS(WW_CLOSED, ww_try_recv(receiver, &msg));
    CHECK(is_readable(fd));
    ww_receiver_close(receiver);
    ww_segment_close(segment);
}

/* Two processes that answer each other, one message in flight: with nothing else on its way, a wake that is lost stops both. */
static void a_ball_goes_to_and_fro(void)
{
    enum { ROUNDS = 3000 };
    ww_segment *segment;
    ww_sender *out;
    ww_receiver *in;
    ww_msg *msg;
    OK(ww_segment_create("ball", NULL, &segment));
    OK(ww_receiver_open(segment, "from", NULL, &in));
    OK(ww_sender_open(segment, "to", NULL, &out));
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        begin();
        OK(ww_segment_open("ball", NULL, &segment));
        OK(ww_receiver_open(segment, "to", NULL, &in));
        OK(ww_sender_open(segment, "from", NULL, &out));
    }
    if (child)
        OK(ww_send(out, "0", 1));
    struct pollfd wanted = {.fd = ww_recv_fd(in), .events = POLLIN};
    for (int round = 0; round < ROUNDS; round++) {
        ww_status status;
        while ((status = ww_try_recv(in, &msg)) == WW_EMPTY)
            CHECK(poll(&wanted, 1, -1) == 1);
        OK(status);
        /* The child answers the last one, too; the parent does not. */
        if (!child || round + 1 < ROUNDS)
            OK(ww_send(out, ww_msg_data(msg), ww_msg_len(msg)));
        ww_msg_ack(msg);
    }
    if (!child) {
        ww_sender_close(out);
        ww_receiver_close(in);
        ww_segment_close(segment);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    ww_sender_close(out);
    ww_receiver_close(in);
    ww_segment_close(segment);
}

int main(void)
{
    begin();
    it_is_readable_when_there_is_something();
    nothing_is_missed();
    a_ball_goes_to_and_fro();
    return finish();
}
