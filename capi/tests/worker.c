/* The C side of `peer kills`: does jobs that are delivered at least once, until it is killed or told to stop. */
#include "common.h"

#include <stdint.h>

int main(int argc, char **argv)
{
    ww_segment *segment;
    ww_receiver *jobs;
    ww_sender *done;
    ww_msg *msg;
    begin();
    CHECK(argc == 2);
    OK(ww_segment_open(argv[1], NULL, &segment));
    ww_channel_options options = {.struct_size = sizeof options, .delivery = WW_AT_LEAST_ONCE, .max_deliveries = 1000};
    OK(ww_receiver_open(segment, "jobs", &options, &jobs));
    OK(ww_sender_open(segment, "done", NULL, &done));
    ww_segment_close(segment);
    for (;;) {
        uint64_t job;
        OK(ww_recv(jobs, PATIENCE, &msg));
        CHECK(ww_msg_len(msg) == sizeof job);
        memcpy(&job, ww_msg_data(msg), sizeof job);
        if (job == UINT64_MAX)
            break;
        if (job % 50 == 0)
            usleep(200);
        if (job % 100 == 7 && !ww_msg_redelivered(msg)) {
            OK(ww_msg_nack(msg));
            continue;
        }
        /* Done and acknowledged, or neither, or done and not acknowledged: then somebody does it again. */
        ww_status status = ww_send_timeout(done, &job, sizeof job, PATIENCE);
        /* Whoever counts may have seen all. */
        CHECK(status == WW_OK || status == WW_CLOSED);
        ww_msg_ack(msg);
    }
    ww_msg_ack(msg);
    ww_receiver_close(jobs);
    ww_sender_close(done);
    return finish();
}
