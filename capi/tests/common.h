/* What the tests in C share. Each has a directory of its own for segments (WATERWAY_DIR, from test.sh), and ends after a while. */
#ifndef COMMON_H
#define COMMON_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "waterway.h"

#define CHECK(condition)                                                                               \
    do {                                                                                               \
        if (!(condition)) {                                                                            \
            fprintf(stderr, "%s:%d: %s; the last error: %s\n", __FILE__, __LINE__, #condition,         \
                    ww_last_error());                                                                  \
            exit(1);                                                                                   \
        }                                                                                              \
    } while (0)

#define IS(wanted, call)                                                                               \
    do {                                                                                               \
        ww_status found_ = (call);                                                                     \
        if (found_ != (wanted)) {                                                                      \
            fprintf(stderr, "%s:%d: %s is %s, not %s; the last error: %s\n", __FILE__, __LINE__,       \
                    #call, ww_status_name(found_), ww_status_name(wanted), ww_last_error());           \
            exit(1);                                                                                   \
        }                                                                                              \
    } while (0)

#define OK(call) IS(WW_OK, call)

/* Nobody waits for ever, whatever is broken. */
static inline void begin(void) { alarm(200); }

#define PATIENCE (100 * WW_SECOND)

/* Receives what must be there or come, and must be this. */
#define RECEIVES(receiver, text)                                                                       \
    do {                                                                                               \
        ww_msg *msg_;                                                                                  \
        OK(ww_recv(receiver, PATIENCE, &msg_));                                                        \
        CHECK(ww_msg_len(msg_) == strlen(text) && !memcmp(ww_msg_data(msg_), text, strlen(text)));     \
        ww_msg_ack(msg_);                                                                              \
    } while (0)

#endif
