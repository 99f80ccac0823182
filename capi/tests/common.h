/* What the tests in C share. Each has a directory of its own for segments (WATERWAY_DIR, from test.sh), and ends after a while. */
#ifndef COMMON_H
#define COMMON_H

#include <dirent.h>
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
static inline void begin(void) { alarm(800); }

/* The end of main: the library's threads have gone with the segments, so that the sanitizer can tell what is lost from what they have. */
static inline int finish(void)
{
    for (;;) {
        int threads = 0;
        struct dirent *entry;
        DIR *tasks = opendir("/proc/self/task");
        CHECK(tasks);
        while ((entry = readdir(tasks)))
            threads += entry->d_name[0] != '.';
        closedir(tasks);
        if (threads == 1)
            return 0;
        usleep(1000);
    }
}

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
