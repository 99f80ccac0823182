/* The C side of `peer echo`: sends back what comes, each by another way. */
#include "common.h"

int main(int argc, char **argv)
{
    ww_segment *segment;
    ww_receiver *there;
    ww_sender *back;
    ww_msg *msg;
    ww_loan *loan;
    ww_status status;
    begin();
    CHECK(argc == 2);
    OK(ww_segment_open(argv[1], NULL, &segment));
    ww_channel_options options = {.struct_size = sizeof options, .capacity = 9};
    IS(WW_MISMATCH, ww_receiver_open(segment, "there", &options, &there));
    options.capacity = 8;
    OK(ww_receiver_open(segment, "there", &options, &there));
    OK(ww_sender_open(segment, "back", NULL, &back));
    ww_segment_close(segment);
    for (int round = 0; (status = ww_recv(there, PATIENCE, &msg)) == WW_OK; round++) {
        if (round % 2) {
            OK(ww_send_timeout(back, ww_msg_data(msg), ww_msg_len(msg), PATIENCE));
        } else {
            OK(ww_sender_loan(back, ww_msg_len(msg), PATIENCE, &loan));
            memcpy(ww_loan_data(loan), ww_msg_data(msg), ww_msg_len(msg));
            OK(ww_sender_commit(loan, ww_msg_len(msg)));
        }
        ww_msg_ack(msg);
    }
    IS(WW_CLOSED, status);
    ww_receiver_close(there);
    ww_sender_close(back);
    return finish();
}
