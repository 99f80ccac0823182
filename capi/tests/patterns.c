/* Broadcasts, services, watches, semaphores and notifies do what the header says, also between processes that are killed. */
#include "common.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/wait.h>

static ww_segment *segment;

/* Waits for it to be readable. */
static void readable(int fd)
{
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    while (poll(&wanted, 1, -1) != 1)
        ;
}

static bool is_readable(int fd)
{
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    return poll(&wanted, 1, 0) == 1;
}

#define GETS(call, text)                                                                               \
    do {                                                                                               \
        ww_msg *got_;                                                                                  \
        OK(call);                                                                                      \
        CHECK(ww_msg_len(got_) == strlen(text) && !memcmp(ww_msg_data(got_), text, strlen(text)));     \
        ww_msg_ack(got_);                                                                              \
    } while (0)

static void every_group_sees_every_message(void)
{
    ww_publisher *publisher;
    ww_subscriber *log, *one, *other, *late;
    ww_msg *msg;
    size_t groups = 0;
    uint64_t missed = 0;
    ww_broadcast_options options = {.struct_size = sizeof options, .capacity = 4, .history = 2};
    OK(ww_publisher_open(segment, "news", &options, &publisher));
    OK(ww_subscriber_open(segment, "news", NULL, &log));
    options.group = "desk";
    options.behind = WW_BLOCK;
    options.delivery = WW_AT_LEAST_ONCE;
    OK(ww_subscriber_open(segment, "news", &options, &one));
    OK(ww_subscriber_open(segment, "news", &options, &other));
    CHECK(ww_publisher_groups(publisher) == 2);

    OK(ww_publish(publisher, "a", 1, WW_FOREVER, &groups));
    OK(ww_try_publish(publisher, "b", 1, &groups));
    CHECK(groups == 2 && ww_subscriber_len(log) == 2);
    GETS(ww_subscriber_recv(log, 0, &got_, &missed), "a");
    GETS(ww_subscriber_try_recv(log, &got_, &missed), "b");
    IS(WW_EMPTY, ww_subscriber_try_recv(log, &msg, &missed));
    IS(WW_TIMEOUT, ww_subscriber_recv(log, WW_MILLISECOND, &msg, &missed));
    /* Of a group one member gets it, and another if that one gives it back. */
    GETS(ww_subscriber_recv(one, PATIENCE, &got_, NULL), "a");
    OK(ww_subscriber_recv(one, PATIENCE, &msg, NULL));
    CHECK(!ww_msg_redelivered(msg));
    OK(ww_msg_nack(msg));
    OK(ww_subscriber_recv(other, PATIENCE, &msg, NULL));
    CHECK(ww_msg_redelivered(msg) && !memcmp(ww_msg_data(msg), "b", 1));
    ww_msg_ack(msg);

    /* The desk is waited for, the log is not. */
    for (char letter = 'c'; letter <= 'f'; letter++)
        OK(ww_publish(publisher, &letter, 1, 0, NULL));
    IS(WW_FULL, ww_try_publish(publisher, "g", 1, NULL));
    IS(WW_TIMEOUT, ww_publish(publisher, "g", 1, WW_MILLISECOND, NULL));
    GETS(ww_subscriber_recv(one, PATIENCE, &got_, NULL), "c");
    OK(ww_publish(publisher, "g", 1, PATIENCE, NULL));
    IS(WW_LAGGED, ww_subscriber_recv(log, 0, &msg, &missed));
    CHECK(missed == 1);
    GETS(ww_subscriber_recv(log, 0, &got_, NULL), "d");

    /* A group that comes later begins with what was kept. */
    ww_broadcast_options again = {.struct_size = sizeof again, .replay = 10};
    OK(ww_subscriber_open(segment, "news", &again, &late));
    GETS(ww_subscriber_recv(late, 0, &got_, NULL), "f");
    GETS(ww_subscriber_recv(late, 0, &got_, NULL), "g");

    int fd = ww_subscriber_fd(late);
    IS(WW_EMPTY, ww_subscriber_try_recv(late, &msg, NULL));
    CHECK(!is_readable(fd));
    ww_publisher_close(publisher);
    readable(fd);
    IS(WW_CLOSED, ww_subscriber_try_recv(late, &msg, NULL));
    ww_subscriber_close(late);
    ww_subscriber_close(log);
    ww_subscriber_close(one);
    ww_subscriber_close(other);
}

static void a_group_is_put_out_if_it_asks_for_that(void)
{
    ww_publisher *publisher;
    ww_subscriber *slow;
    ww_msg *msg;
    ww_broadcast_options options = {.struct_size = sizeof options,
                                    .capacity = 1,
                                    .behind = WW_EVICT,
                                    .evict_after_ns = WW_MILLISECOND};
    OK(ww_publisher_open(segment, "fast", &options, &publisher));
    OK(ww_subscriber_open(segment, "fast", &options, &slow));
    OK(ww_publish(publisher, "a", 1, PATIENCE, NULL));
    OK(ww_publish(publisher, "b", 1, PATIENCE, NULL));
    IS(WW_EVICTED, ww_subscriber_recv(slow, PATIENCE, &msg, NULL));
    ww_publisher_close(publisher);
    ww_subscriber_close(slow);
}

/* What a request asks for. */
static bool answers(ww_request *request)
{
    CHECK(ww_request_len(request) > 0 && ww_request_delivery_count(request) == 1);
    switch (*(const char *)ww_request_data(request)) {
    case 'e':
        /* With its own bytes. */
        OK(ww_request_respond(request, ww_request_data(request), ww_request_len(request)));
        return true;
    case 'd':
        ww_request_drop(request);
        return true;
    case 'n':
        OK(ww_request_nack(request));
        return true;
    case 'k':
        raise(SIGKILL);
        return false;
    default:
        OK(ww_request_respond(request, NULL, 0));
        return false;
    }
}

static void serves(int ready)
{
    ww_server *server;
    ww_request *request;
    bool goes_on = true;
    OK(ww_segment_open("patterns", NULL, &segment));
    OK(ww_server_open(segment, "service", NULL, &server));
    CHECK(write(ready, "x", 1) == 1);
    int fd = ww_server_fd(server);
    while (goes_on) {
        ww_status status = ww_server_try_next(server, &request);
        if (status == WW_EMPTY) {
            readable(fd);
            continue;
        }
        OK(status);
        goes_on = answers(request);
    }
    ww_server_close(server);
    ww_segment_close(segment);
    _exit(0);
}

static void requests_are_answered_or_their_callers_told(void)
{
    ww_client *client;
    ww_server *server;
    ww_request *request;
    ww_msg *msg;
    int status, ready[2];
    char byte;
    OK(ww_client_open(segment, "service", NULL, &client));
    CHECK(!pipe(ready));
    for (int round = 0; round < 2; round++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (!child) {
            begin();
            serves(ready[1]);
        }
        /* The first may come after the first call, but not after one whose server has gone. */
        if (round > 0)
            CHECK(read(ready[0], &byte, 1) == 1 && read(ready[0], &byte, 1) == 1);
        GETS(ww_call(client, "echo", 4, PATIENCE, &got_), "echo");
        GETS(ww_call(client, "echo again", 10, WW_FOREVER, &got_), "echo again");
        IS(WW_UNANSWERED, ww_call(client, "drop", 4, PATIENCE, &msg));
        IS(WW_UNANSWERED, ww_call(client, "nack", 4, PATIENCE, &msg));
        if (round == 0) {
            IS(WW_SERVER_GONE, ww_call(client, "kill", 4, PATIENCE, &msg));
            CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        } else {
            GETS(ww_call(client, "stop", 4, PATIENCE, &got_), "");
            CHECK(waitpid(child, &status, 0) == child && status == 0);
        }
    }
    ww_client_close(client);
    close(ready[0]);
    close(ready[1]);

    /* A caller that has given up, and its deadline. */
    OK(ww_server_open(segment, "other-service", NULL, &server));
    OK(ww_client_open(segment, "other-service", NULL, &client));
    IS(WW_EMPTY, ww_server_try_next(server, &request));
    IS(WW_TIMEOUT, ww_server_next(server, WW_MILLISECOND, &request));
    IS(WW_TIMEOUT, ww_call(client, "x", 1, WW_MILLISECOND, &msg));
    IS(WW_TIMEOUT, ww_server_next(server, 0, &request));
    CHECK(!ww_client_is_closed(client));
    ww_server_close(server);
    CHECK(ww_client_is_closed(client));
    IS(WW_CLOSED, ww_call(client, "x", 1, PATIENCE, &msg));
    ww_client_close(client);
}

static void *calls(void *client)
{
    ww_msg *msg;
    ww_status status = ww_call(client, "question", 8, 50 * WW_MILLISECOND, &msg);
    IS(WW_TIMEOUT, status);
    return NULL;
}

static void a_server_hears_that_its_caller_has_given_up(void)
{
    ww_client *client;
    ww_server *server;
    ww_request *request;
    pthread_t thread;
    /* On a loaded machine the time may be over before the server looks: then the request does not come. */
    OK(ww_server_open(segment, "slow-service", NULL, &server));
    OK(ww_client_open(segment, "slow-service", NULL, &client));
    do {
        CHECK(!pthread_create(&thread, NULL, calls, client));
        ww_status status = ww_server_next(server, 100 * WW_MILLISECOND, &request);
        if (status == WW_OK) {
            CHECK(ww_request_time_left(request) <= 50 * WW_MILLISECOND);
        } else {
            IS(WW_TIMEOUT, status);
        }
        CHECK(!pthread_join(thread, NULL));
    } while (!request);
    CHECK(ww_request_is_cancelled(request) && ww_request_time_left(request) == 0);
    IS(WW_CANCELLED, ww_request_respond(request, "answer", 6));
    ww_client_close(client);
    ww_server_close(server);
}

static void of_a_watch_the_latest_value_counts(void)
{
    ww_watch_sender *sender;
    ww_watch_receiver *receiver;
    ww_msg *msg, *kept;
    ww_watch_options options = {.struct_size = sizeof options, .initial = "first", .initial_len = 5};
    OK(ww_watch_sender_open(segment, "level", &options, &sender));
    OK(ww_watch_receiver_open(segment, "level", NULL, &receiver));
    IS(WW_TIMEOUT, ww_watch_changed(receiver, 0));
    GETS(ww_watch_get(receiver, &got_), "first");
    OK(ww_watch_send(sender, "second", 6));
    OK(ww_watch_send(sender, "third", 5));
    /* Until it is got. */
    OK(ww_watch_changed(receiver, 0));
    OK(ww_watch_changed(receiver, WW_FOREVER));
    OK(ww_watch_get(receiver, &kept));
    IS(WW_TIMEOUT, ww_watch_changed(receiver, WW_MILLISECOND));

    int fd = ww_watch_fd(receiver);
    CHECK(is_readable(fd));
    IS(WW_TIMEOUT, ww_watch_changed(receiver, 0));
    CHECK(!is_readable(fd));
    OK(ww_watch_send(sender, "fourth", 6));
    readable(fd);
    OK(ww_watch_changed(receiver, 0));
    GETS(ww_watch_get(receiver, &got_), "fourth");
    IS(WW_TIMEOUT, ww_watch_changed(receiver, 0));
    CHECK(!is_readable(fd));
    /* Got without having been asked for: the wait behind the descriptor is of before. */
    OK(ww_watch_send(sender, "fifth", 5));
    GETS(ww_watch_get(receiver, &got_), "fifth");
    IS(WW_TIMEOUT, ww_watch_changed(receiver, 0));
    CHECK(!is_readable(fd));

    /* Values stay as they are while somebody has them. */
    CHECK(ww_msg_len(kept) == 5 && !memcmp(ww_msg_data(kept), "third", 5));
    OK(ww_msg_nack(kept));
    ww_watch_sender_close(sender);
    readable(fd);
    IS(WW_CLOSED, ww_watch_changed(receiver, 0));
    OK(ww_watch_get(receiver, &msg));
    ww_msg_ack(msg);
    ww_watch_receiver_close(receiver);
}

static void permits_of_the_killed_come_back(void)
{
    ww_semaphore *semaphore;
    ww_permit *permit, *other;
    int status, ready[2];
    char byte;
    OK(ww_semaphore_open(segment, "permits", 3, &semaphore));
    OK(ww_semaphore_try_acquire(semaphore, 3, &permit));
    CHECK(ww_semaphore_available(semaphore) == 0);
    IS(WW_EMPTY, ww_semaphore_try_acquire(semaphore, 1, &other));
    IS(WW_TIMEOUT, ww_semaphore_acquire(semaphore, 1, WW_MILLISECOND, &other));
    IS(WW_TOO_MANY, ww_semaphore_acquire(semaphore, 4, PATIENCE, &other));
    ww_permit_release(permit);

    CHECK(!pipe(ready));
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        begin();
        OK(ww_segment_open("patterns", NULL, &segment));
        OK(ww_semaphore_open(segment, "permits", 3, &semaphore));
        OK(ww_semaphore_acquire(semaphore, 3, PATIENCE, &permit));
        CHECK(write(ready[1], "x", 1) == 1);
        for (;;)
            pause();
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    IS(WW_EMPTY, ww_semaphore_try_acquire(semaphore, 1, &permit));
    CHECK(!kill(child, SIGKILL) && waitpid(child, &status, 0) == child);
    OK(ww_semaphore_acquire(semaphore, 3, PATIENCE, &permit));
    close(ready[0]);
    close(ready[1]);

    OK(ww_permit_forget(permit));
    CHECK(ww_semaphore_add(semaphore, 1) == 1 && ww_semaphore_available(semaphore) == 1);
    OK(ww_semaphore_shutdown(semaphore));
    IS(WW_CLOSED, ww_semaphore_acquire(semaphore, 1, PATIENCE, &permit));
    IS(WW_CLOSED, ww_semaphore_try_acquire(semaphore, 1, &permit));
    ww_semaphore_close(semaphore);
}

static void *notified(void *notify)
{
    OK(ww_notify_wait(notify, PATIENCE));
    return NULL;
}

static void who_waits_is_notified(void)
{
    enum { THREADS = 3 };
    ww_notify *notify;
    pthread_t threads[THREADS];
    OK(ww_notify_open(segment, "bell", &notify));
    IS(WW_TIMEOUT, ww_notify_wait(notify, WW_MILLISECOND));
    OK(ww_notify_one(notify));
    OK(ww_notify_wait(notify, 0));
    IS(WW_TIMEOUT, ww_notify_wait(notify, 0));
    /* Nobody waits: this is for nobody. */
    OK(ww_notify_all(notify));
    IS(WW_TIMEOUT, ww_notify_wait(notify, 0));
    /* Once for each, and all at once; again and again, as nobody can see whether they wait already. */
    ww_status (*const ways[2])(const ww_notify *) = {ww_notify_one, ww_notify_all};
    for (int way = 0; way < 2; way++) {
        for (int at = 0; at < THREADS; at++)
            CHECK(!pthread_create(&threads[at], NULL, notified, notify));
        for (int left = THREADS; left > 0;) {
            OK(ways[way](notify));
            if (!pthread_tryjoin_np(threads[left - 1], NULL))
                left--;
            usleep(1000);
        }
    }
    ww_notify_close(notify);
}

int main(void)
{
    begin();
    OK(ww_segment_create("patterns", NULL, &segment));
    every_group_sees_every_message();
    a_group_is_put_out_if_it_asks_for_that();
    requests_are_answered_or_their_callers_told();
    a_server_hears_that_its_caller_has_given_up();
    of_a_watch_the_latest_value_counts();
    permits_of_the_killed_come_back();
    who_waits_is_notified();
    OK(ww_segment_check(segment));
    ww_segment_close(segment);
    return finish();
}
