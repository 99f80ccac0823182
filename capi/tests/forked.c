/* A forked child can use nothing that it inherited, is told so, and can close it; what it opens anew works. */
#include "common.h"

#include <sys/wait.h>

int main(void)
{
    ww_segment *segment;
    ww_sender *sender;
    ww_receiver *receiver;
    ww_msg *msg, *other;
    ww_loan *loan, *another;
    begin();
    OK(ww_segment_create("forked", NULL, &segment));
    OK(ww_sender_open(segment, "x", NULL, &sender));
    OK(ww_receiver_open(segment, "x", NULL, &receiver));
    int fd = ww_recv_fd(receiver);
    IS(WW_EMPTY, ww_try_recv(receiver, &msg));
    OK(ww_send(sender, "parent", 6));
    OK(ww_recv(receiver, PATIENCE, &msg));
    OK(ww_sender_loan(sender, 5, 0, &loan));

    ww_publisher *publisher;
    ww_subscriber *subscriber;
    ww_client *client;
    ww_server *server;
    ww_request *request;
    ww_watch_sender *watched;
    ww_watch_receiver *watching;
    ww_semaphore *semaphore;
    ww_permit *permit;
    ww_notify *notify;
    OK(ww_publisher_open(segment, "b", NULL, &publisher));
    OK(ww_subscriber_open(segment, "b", NULL, &subscriber));
    OK(ww_client_open(segment, "s", NULL, &client));
    OK(ww_server_open(segment, "s", NULL, &server));
    OK(ww_watch_sender_open(segment, "w", NULL, &watched));
    OK(ww_watch_receiver_open(segment, "w", NULL, &watching));
    OK(ww_semaphore_open(segment, "p", 1, &semaphore));
    OK(ww_semaphore_acquire(semaphore, 1, 0, &permit));
    OK(ww_notify_open(segment, "n", &notify));

    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        begin();
        IS(WW_FORKED, ww_publish(publisher, "x", 1, WW_FOREVER, NULL));
        IS(WW_FORKED, ww_subscriber_recv(subscriber, WW_FOREVER, &other, NULL));
        IS(WW_FORKED, ww_call(client, "x", 1, WW_FOREVER, &other));
        IS(WW_FORKED, ww_server_next(server, WW_FOREVER, &request));
        IS(WW_FORKED, ww_watch_send(watched, "x", 1));
        IS(WW_FORKED, ww_watch_get(watching, &other));
        IS(WW_FORKED, ww_watch_changed(watching, WW_FOREVER));
        IS(WW_FORKED, ww_notify_wait(notify, WW_FOREVER));
        IS(WW_FORKED, ww_permit_forget(permit));
        IS(WW_FORKED, ww_semaphore_acquire(semaphore, 1, WW_FOREVER, &permit));
        ww_publisher_close(publisher);
        ww_subscriber_close(subscriber);
        ww_client_close(client);
        ww_server_close(server);
        ww_watch_sender_close(watched);
        ww_watch_receiver_close(watching);
        ww_semaphore_close(semaphore);
        ww_notify_close(notify);
        IS(WW_FORKED, ww_send(sender, "x", 1));
        CHECK(strstr(ww_last_error(), "forked"));
        IS(WW_FORKED, ww_send_timeout(sender, "x", 1, WW_FOREVER));
        IS(WW_FORKED, ww_try_send(sender, "x", 1));
        IS(WW_FORKED, ww_sender_loan(sender, 1, WW_FOREVER, &another));
        IS(WW_FORKED, ww_sender_try_loan(sender, 1, &another));
        IS(WW_FORKED, ww_recv(receiver, WW_FOREVER, &other));
        IS(WW_FORKED, ww_try_recv(receiver, &other));
        IS(WW_FORKED, ww_receiver_shutdown(receiver));
        IS(WW_FORKED, ww_segment_check(segment));
        IS(WW_FORKED, ww_sender_open(segment, "x", NULL, &sender) == WW_OK ? WW_OK : WW_FORKED);
        CHECK(ww_recv_fd(receiver) == -1 && ww_msg_data(msg) == NULL && ww_msg_len(msg) == 0);
        CHECK(ww_loan_data(loan) == NULL && ww_segment_name(segment) == NULL);
        CHECK(ww_receiver_is_closed(receiver));
        IS(WW_FORKED, ww_msg_nack(msg));
        IS(WW_FORKED, ww_sender_commit(loan, 0));
        ww_receiver_close(receiver);
        ww_segment_close(segment);

        OK(ww_segment_open("forked", NULL, &segment));
        OK(ww_sender_open(segment, "x", NULL, &sender));
        OK(ww_send(sender, "child", 5));
        ww_sender_close(sender);
        ww_segment_close(segment);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    /* Nothing that the child has ended was the parent's. */
    CHECK(!memcmp(ww_msg_data(msg), "parent", 6) && fd == ww_recv_fd(receiver));
    ww_msg_ack(msg);
    RECEIVES(receiver, "child");
    memcpy(ww_loan_data(loan), "lent", 4);
    OK(ww_sender_commit(loan, 4));
    RECEIVES(receiver, "lent");
    IS(WW_EMPTY, ww_try_recv(receiver, &msg));
    CHECK(ww_semaphore_available(semaphore) == 0);
    ww_permit_release(permit);
    CHECK(ww_semaphore_available(semaphore) == 1);
    OK(ww_publish(publisher, "x", 1, 0, NULL));
    OK(ww_subscriber_recv(subscriber, PATIENCE, &msg, NULL));
    ww_msg_ack(msg);
    ww_publisher_close(publisher);
    ww_subscriber_close(subscriber);
    ww_client_close(client);
    ww_server_close(server);
    ww_watch_sender_close(watched);
    ww_watch_receiver_close(watching);
    ww_semaphore_close(semaphore);
    ww_notify_close(notify);
    ww_sender_close(sender);
    ww_receiver_close(receiver);
    OK(ww_segment_check(segment));
    ww_segment_close(segment);
    return finish();
}
