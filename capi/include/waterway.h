/* Waterway for C: channels between processes, through shared memory. See docs/c.md.
 *
 * Made of the sources in capi/src; a test compares. Link with `pkg-config --cflags --libs waterway`.
 *
 * Functions return a ww_status, or a value that says that there is none; then ww_last_error() has a text. NULL is an error, and
 * no crash. Handles may be used by several threads at once, but for the function that ends one. A handle that a forked child
 * inherited gives WW_FORKED. Times are in nanoseconds; WW_FOREVER waits without a limit. */

#ifndef WATERWAY_H
#define WATERWAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Waits until it is done, however long that takes. Any negative time means so. */
#define WW_FOREVER INT64_C(-1)
/** A millisecond, in the unit of all times. */
#define WW_MILLISECOND INT64_C(1000000)
/** A second, in the unit of all times. */
#define WW_SECOND INT64_C(1000000000)

/**
 * Deliveries at most, where that is not asked for.
 */
#define WW_DEFAULT_MAX_DELIVERIES 16

/**
 * What a function has come to. Numbers keep their meaning for ever; later versions may have further ones.
 */
enum ww_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * It is done.
   */
  WW_OK = 0,
  /**
   * An argument is not possible: NULL where there must be something, an impossible name, or options that contradict
   * one another.
   */
  WW_INVALID = 1,
  /**
   * Nothing is there now: no message, no request, no permit.
   */
  WW_EMPTY = 2,
  /**
   * There is no room now.
   */
  WW_FULL = 3,
  /**
   * The time was over.
   */
  WW_TIMEOUT = 4,
  /**
   * The other ends have gone, or somebody has closed it.
   */
  WW_CLOSED = 5,
  /**
   * The handle was inherited by a forked child: open the segment again there.
   */
  WW_FORKED = 6,
  /**
   * The segment has no free block of that size now.
   */
  WW_NO_MEMORY = 7,
  /**
   * The segment can never hold a message of that size.
   */
  WW_TOO_LARGE = 8,
  /**
   * There is no segment of that name.
   */
  WW_NOT_FOUND = 9,
  /**
   * Somebody is using a segment of that name.
   */
  WW_EXISTS = 10,
  /**
   * What has that name is something else, or has other options than those asked for.
   */
  WW_MISMATCH = 11,
  /**
   * A file system, a limit, or a table of the segment has no room for it.
   */
  WW_NO_ROOM = 12,
  /**
   * A file or directory is somebody else's, or others may use it.
   */
  WW_PERMISSION = 13,
  /**
   * The segment was made by another version, or by another kind of machine.
   */
  WW_INCOMPATIBLE = 14,
  /**
   * The file is no segment, or one that is damaged.
   */
  WW_DAMAGED = 15,
  /**
   * Somebody who comes into the segment, or removes it, was stopped in the middle.
   */
  WW_BUSY = 16,
  /**
   * The kernel refused.
   */
  WW_SYSTEM = 17,
  /**
   * A mistake in the library; the text says where. What the function was to do may be done by halves.
   */
  WW_PANIC = 18,
  /**
   * The group of the subscriber has missed messages: how many is told. The next receive goes on behind them.
   */
  WW_LAGGED = 19,
  /**
   * The group of the subscriber was put out, as publishers had waited for it too long.
   */
  WW_EVICTED = 20,
  /**
   * The server died while it had the request: it may have done the work.
   */
  WW_SERVER_GONE = 21,
  /**
   * The server dropped the request without a response.
   */
  WW_UNANSWERED = 22,
  /**
   * The caller waits no more.
   */
  WW_CANCELLED = 23,
  /**
   * There are not so many permits.
   */
  WW_TOO_MANY = 24,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ww_status ww_status;
#else
typedef int32_t ww_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Yes, no, or not asked for.
 */
enum ww_choice
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * As it is, or as it is by default.
   */
  WW_DEFAULT = 0,
  /**
   * No.
   */
  WW_NO = 1,
  /**
   * Yes.
   */
  WW_YES = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ww_choice ww_choice;
#else
typedef uint32_t ww_choice;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How often messages are delivered.
 */
enum ww_delivery
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * As the channel does it; at most once, for a new one.
   */
  WW_DELIVERY_DEFAULT = 0,
  /**
   * What a process had received that died is gone.
   */
  WW_AT_MOST_ONCE = 1,
  /**
   * What was received comes back unless it is acknowledged: if its process dies, or by ww_msg_nack.
   */
  WW_AT_LEAST_ONCE = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ww_delivery ww_delivery;
#else
typedef uint32_t ww_delivery;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How somebody waits.
 */
enum ww_wait
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Tries for some microseconds, for as long as that has paid lately, and then sleeps.
   */
  WW_WAIT_ADAPTIVE = 0,
  /**
   * Sleeps at once: the least work for the processor.
   */
  WW_WAIT_PARK = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ww_wait ww_wait;
#else
typedef uint32_t ww_wait;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What happens when a group of subscribers falls behind.
 */
enum ww_behind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * As the group does it; a new one lags.
   */
  WW_BEHIND_DEFAULT = 0,
  /**
   * It misses the oldest messages, and is told how many.
   */
  WW_LAG = 1,
  /**
   * Publishers wait for it.
   */
  WW_BLOCK = 2,
  /**
   * Publishers wait for it for evict_after_ns, and then it is put out.
   */
  WW_EVICT = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ww_behind ww_behind;
#else
typedef uint32_t ww_behind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The calling end of a service, for any number of threads.
 */
typedef struct ww_client ww_client;

/**
 * Room in a channel and memory in its segment, to be written in place and sent.
 */
typedef struct ww_loan ww_loan;

/**
 * A received message, response, or value of a watch. Its bytes stand in the segment until it is acknowledged.
 */
typedef struct ww_msg ww_msg;

/**
 * A notify, for any number of threads.
 */
typedef struct ww_notify ww_notify;

/**
 * Permits of a semaphore that this process has. They come back if it dies.
 */
typedef struct ww_permit ww_permit;

/**
 * The sending end of a broadcast of bytes, for any number of threads.
 */
typedef struct ww_publisher ww_publisher;

/**
 * The receiving end of a channel of bytes, for any number of threads.
 */
typedef struct ww_receiver ww_receiver;

/**
 * A request that was taken, and whose caller waits.
 */
typedef struct ww_request ww_request;

/**
 * A hold on a segment: a region of memory that processes share, in which channels live.
 *
 * Ends, messages and loans keep the segment as well, so they may be closed in any order. A process should open a segment once, and
 * share the handle between its threads.
 */
typedef struct ww_segment ww_segment;

/**
 * A semaphore, for any number of threads.
 */
typedef struct ww_semaphore ww_semaphore;

/**
 * The sending end of a channel of bytes, for any number of threads.
 */
typedef struct ww_sender ww_sender;

/**
 * The serving end of a service, for any number of threads.
 */
typedef struct ww_server ww_server;

/**
 * A receiving end of a broadcast of bytes: a member of a group, for any number of threads.
 */
typedef struct ww_subscriber ww_subscriber;

/**
 * The receiving end of a watch of bytes, for any number of threads. It knows which value was got last.
 */
typedef struct ww_watch_receiver ww_watch_receiver;

/**
 * The sending end of a watch of bytes, for any number of threads.
 */
typedef struct ww_watch_sender ww_watch_sender;

/**
 * How a segment is opened or made. What matters only for a new one is ignored if it is there.
 *
 * Set all of it to zero, and then struct_size: `ww_segment_options options = { .struct_size = sizeof options };`
 */
typedef struct {
  /**
   * sizeof(ww_segment_options).
   */
  size_t struct_size;
  /**
   * Bytes that a new segment has at first, and has for good unless there is max_bytes; 0: 16 MiB, and it grows to 1 GiB.
   */
  uint64_t bytes;
  /**
   * Bytes to which it may grow; 0: it stays at `bytes`, if that is given.
   */
  uint64_t max_bytes;
  /**
   * The directory; NULL: $WATERWAY_DIR, or /dev/shm/waterway-<uid>. It must be private to the user.
   */
  const char *dir;
  /**
   * The most processes at once, up to 1024; 0: 256.
   */
  uint32_t participants;
  /**
   * The most channels at once, up to 1024; 0: one for 16 KiB.
   */
  uint32_t channels;
  /**
   * A ww_choice: whether a new segment stays when the last process leaves. No by default.
   */
  uint32_t persistent;
  /**
   * A ww_choice: whether what is freed is overwritten with zeros. No by default.
   */
  uint32_t zero_on_free;
  /**
   * A ww_choice: whether this process asks for huge pages. No by default.
   */
  uint32_t huge_pages;
  /**
   * A ww_choice: whether this process touches all of the memory at once. No by default.
   */
  uint32_t populate;
} ww_segment_options;

/**
 * How a channel is opened. Whoever comes first makes it; who comes later and asks for something else is told WW_MISMATCH.
 *
 * Set all of it to zero, and then struct_size: `ww_channel_options options = { .struct_size = sizeof options };`
 */
typedef struct {
  /**
   * sizeof(ww_channel_options).
   */
  size_t struct_size;
  /**
   * The most messages that may wait, from 1 to 2^24; 0: as the channel has it, or 1024.
   */
  uint64_t capacity;
  /**
   * A ww_delivery.
   */
  uint32_t delivery;
  /**
   * How often a message is delivered at most, where it is delivered at least once; 0: WW_DEFAULT_MAX_DELIVERIES.
   */
  uint32_t max_deliveries;
  /**
   * A ww_choice: whether the channel outlives its ends. A new one does not by default.
   */
  uint32_t persistent;
  /**
   * A ww_wait: how this end waits.
   */
  uint32_t wait;
  /**
   * Nanoseconds after which a message that waits is not delivered any more; 0: as the channel has it, or never.
   */
  uint64_t ttl_ns;
  /**
   * How many messages are kept: a sender drops the oldest and never waits; 0: as the channel has it, or senders wait.
   */
  uint64_t keep_last;
  /**
   * A ww_choice: whether as many messages are kept as the channel has capacity, and senders drop the oldest.
   */
  uint32_t overwrite_oldest;
  /**
   * Zero.
   */
  uint32_t reserved;
  /**
   * The channel for what was delivered too often, or whose time was over; NULL: as the channel has it, or none.
   */
  const char *dead_letter;
} ww_channel_options;

/**
 * How a broadcast is opened. Whoever comes first makes it, or the group; who comes later and asks for something else is told
 * WW_MISMATCH. What is of groups is ignored by ww_publisher_open.
 */
typedef struct {
  /**
   * sizeof(ww_broadcast_options).
   */
  size_t struct_size;
  /**
   * The most messages that a group may be behind, from 1 to 2^20; 0: as the broadcast has it, or 256.
   */
  uint64_t capacity;
  /**
   * How many of the latest messages are kept for groups that come later; 0: as the broadcast has it, or none.
   */
  uint64_t history;
  /**
   * How many groups there can be, from 1 to 64; 0: as the broadcast has it, or 16.
   */
  uint32_t max_groups;
  /**
   * A ww_wait: how this end waits.
   */
  uint32_t wait;
  /**
   * The group of the subscriber: each message goes to one member of each group. NULL: a group of its own.
   */
  const char *group;
  /**
   * A ww_behind: what happens when the group falls behind.
   */
  uint32_t behind;
  /**
   * A ww_delivery, to the group.
   */
  uint32_t delivery;
  /**
   * How often a message is delivered to the group at most, up to 255; 0: WW_DEFAULT_MAX_DELIVERIES.
   */
  uint32_t max_deliveries;
  /**
   * A ww_choice: whether the group outlives its members. A new one does not by default.
   */
  uint32_t persistent;
  /**
   * For how many nanoseconds publishers wait for the group, with WW_EVICT.
   */
  uint64_t evict_after_ns;
  /**
   * With up to how many of the latest messages, of those that are kept, a new group begins.
   */
  uint64_t replay;
} ww_broadcast_options;

/**
 * How a service is opened. Whoever comes first makes it; who comes later and asks for something else is told WW_MISMATCH.
 */
typedef struct {
  /**
   * sizeof(ww_service_options).
   */
  size_t struct_size;
  /**
   * The most requests that may wait for a server; 0: as the service has it, or 1024.
   */
  uint64_t capacity;
  /**
   * The most calls that this client may have in flight, of all threads; 0: 256.
   */
  uint64_t calls;
  /**
   * A ww_delivery: whether this client sends a request again whose server dies or gives it back.
   */
  uint32_t delivery;
  /**
   * How often at most; 0: WW_DEFAULT_MAX_DELIVERIES.
   */
  uint32_t max_deliveries;
  /**
   * A ww_choice: whether the service outlives its ends. A new one does not by default.
   */
  uint32_t persistent;
  /**
   * A ww_wait: how this end waits.
   */
  uint32_t wait;
} ww_service_options;

/**
 * How a watch is opened. Whoever comes first makes it.
 */
typedef struct {
  /**
   * sizeof(ww_watch_options).
   */
  size_t struct_size;
  /**
   * The value of a new watch; of one that is there, it stays as it is. NULL: no bytes.
   */
  const void *initial;
  /**
   * How many bytes the value has.
   */
  size_t initial_len;
  /**
   * A ww_choice: whether the watch outlives its ends, with its value. A new one does not by default.
   */
  uint32_t persistent;
  /**
   * Zero.
   */
  uint32_t reserved;
} ww_watch_options;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The name of a status, such as "WW_FULL", for logs. Never NULL: "WW_UNKNOWN" for a number that is none.
 */
const char *ww_status_name(int32_t status);

/**
 * What the last function that failed in this thread has to say, in English. Never NULL, and empty if none has failed. The text
 * stays until the next function fails in this thread; what succeeds leaves it.
 */
const char *ww_last_error(void);

/**
 * Opens the segment of that name, or makes it. However many processes do so at once, all get the same one. Options may be NULL.
 *
 * The caller sees to it: The name ends with a zero byte; the options are NULL, or as long as they say, and their strings end with zero bytes; a pointer
 * can be written to `segment`.
 */
ww_status ww_segment_open_or_create(const char *name,
                                    const ww_segment_options *options,
                                    ww_segment **segment);

/**
 * Makes a segment of that name. WW_EXISTS if somebody is using one. Options may be NULL.
 *
 * The caller sees to it: As for ww_segment_open_or_create.
 */
ww_status ww_segment_create(const char *name,
                            const ww_segment_options *options,
                            ww_segment **segment);

/**
 * Opens the segment of that name. WW_NOT_FOUND if there is none. Options may be NULL.
 *
 * The caller sees to it: As for ww_segment_open_or_create.
 */
ww_status ww_segment_open(const char *name,
                          const ww_segment_options *options,
                          ww_segment **segment);

/**
 * Makes a segment without a name. Others attach to it by its descriptor: ww_segment_fd, handed over by inheritance or SCM_RIGHTS,
 * and ww_segment_from_fd. Options may be NULL.
 *
 * The caller sees to it: As for ww_segment_open_or_create.
 */
ww_status ww_segment_anonymous(const ww_segment_options *options,
                               ww_segment **segment);

/**
 * Attaches to an anonymous segment by its descriptor, which stays the caller's.
 *
 * The caller sees to it: A pointer can be written to `segment`.
 */
ww_status ww_segment_from_fd(int32_t fd, ww_segment **segment);

/**
 * The descriptor of the segment, to hand to another process; it stays the segment's. -1 if it has none.
 *
 * The caller sees to it: `segment` is a handle, or NULL.
 */
int32_t ww_segment_fd(const ww_segment *segment);

/**
 * Leaves the segment, as far as this handle goes. Nothing if it is NULL.
 *
 * The caller sees to it: `segment` is a handle that nobody uses any more, or NULL.
 */
void ww_segment_close(ww_segment *segment);

/**
 * The segment's name, empty for one without. It stays as long as the handle. NULL if that is NULL, or inherited.
 *
 * The caller sees to it: `segment` is a handle, or NULL.
 */
const char *ww_segment_name(const ww_segment *segment);

/**
 * Where the segment's file is. It stays as long as the handle. NULL if it has none, or if the handle is NULL or inherited.
 *
 * The caller sees to it: `segment` is a handle, or NULL.
 */
const char *ww_segment_path(const ww_segment *segment);

/**
 * Bytes that messages, loans and channels of all processes hold now. 0 if the handle is NULL or inherited.
 *
 * The caller sees to it: `segment` is a handle, or NULL.
 */
size_t ww_segment_held_bytes(const ww_segment *segment);

/**
 * Checks the segment's memory. WW_DAMAGED, with a text, if something is wrong. Exact only while nobody works in the segment; it takes
 * time in proportion to the size.
 *
 * The caller sees to it: `segment` is a handle, or NULL.
 */
ww_status ww_segment_check(const ww_segment *segment);

/**
 * Removes the name of a segment. Whoever has it open goes on. Of the options, which may be NULL, the directory counts.
 *
 * The caller sees to it: As for ww_segment_open_or_create.
 */
ww_status ww_segment_remove(const char *name,
                            const ww_segment_options *options);

/**
 * Removes what processes have left behind that died before they could, and puts how many segments that were to `removed`, unless
 * it is NULL. Of the options, which may be NULL, the directory counts.
 *
 * The caller sees to it: The options are as for ww_segment_open_or_create; `removed` is NULL, or can be written to.
 */
ww_status ww_segment_sweep(const ww_segment_options *options,
                           size_t *removed);

/**
 * The message's bytes, to be read only, until it is acknowledged or given back. Not NULL, also if there are none; NULL if the handle is
 * NULL or inherited. They are aligned to 8 bytes.
 *
 * The caller sees to it: `msg` is a handle, or NULL.
 */
const void *ww_msg_data(const ww_msg *msg);

/**
 * How many bytes the message has. 0 if the handle is NULL or inherited.
 *
 * The caller sees to it: `msg` is a handle, or NULL.
 */
size_t ww_msg_len(const ww_msg *msg);

/**
 * The message's number in its channel: later ones have higher numbers. 0 for a value of a watch, or if the handle is NULL or inherited.
 *
 * The caller sees to it: `msg` is a handle, or NULL.
 */
uint64_t ww_msg_sequence(const ww_msg *msg);

/**
 * How often the message was delivered, this time included. 0 if the handle is NULL or inherited.
 *
 * The caller sees to it: `msg` is a handle, or NULL.
 */
uint32_t ww_msg_delivery_count(const ww_msg *msg);

/**
 * Whether somebody had the message before, and has not acknowledged it.
 *
 * The caller sees to it: `msg` is a handle, or NULL.
 */
bool ww_msg_redelivered(const ww_msg *msg);

/**
 * Acknowledges the message: its memory is free, and the handle gone, whatever this returns. Nothing if it is NULL.
 *
 * The caller sees to it: `msg` is a handle that nobody uses any more, or NULL.
 */
void ww_msg_ack(ww_msg *msg);

/**
 * Gives the message back: where messages are delivered at least once, it is delivered again. The handle is gone, whatever this returns.
 *
 * The caller sees to it: `msg` is a handle that nobody uses any more, or NULL.
 */
ww_status ww_msg_nack(ww_msg *msg);

/**
 * Opens a sending end of the channel of that name. Whoever comes first makes the channel; the options may be NULL.
 *
 * The caller sees to it: `segment` is a handle, or NULL; the name ends with a zero byte; the options are NULL, or as long as they say, and their strings
 * end with zero bytes; a pointer can be written to `sender`.
 */
ww_status ww_sender_open(const ww_segment *segment,
                         const char *channel,
                         const ww_channel_options *options,
                         ww_sender **sender);

/**
 * Closes this sending end. When the last one of all processes has gone, receivers get what is left, and then WW_CLOSED. Nothing if it
 * is NULL.
 *
 * The caller sees to it: `sender` is a handle that nobody uses any more, or NULL. Its loans may be.
 */
void ww_sender_close(ww_sender *sender);

/**
 * Sends a copy of the bytes, and waits for room and memory as long as that takes. WW_CLOSED, WW_TOO_LARGE: nothing was sent.
 *
 * The caller sees to it: `sender` is a handle, or NULL; `len` bytes can be read at `data`.
 */
ww_status ww_send(const ww_sender *sender,
                  const void *data,
                  size_t len);

/**
 * Sends a copy of the bytes, and waits for room and memory for so many nanoseconds; WW_FOREVER as long as that takes. WW_TIMEOUT,
 * WW_CLOSED, WW_TOO_LARGE: nothing was sent.
 *
 * The caller sees to it: As for ww_send.
 */
ww_status ww_send_timeout(const ww_sender *sender,
                          const void *data,
                          size_t len,
                          int64_t timeout_ns);

/**
 * Sends a copy of the bytes if that can be done now. WW_FULL, WW_NO_MEMORY, WW_CLOSED, WW_TOO_LARGE: nothing was sent.
 *
 * The caller sees to it: As for ww_send.
 */
ww_status ww_try_send(const ww_sender *sender,
                      const void *data,
                      size_t len);

/**
 * Has room for a message of up to `len` bytes, to be written in the segment, where it will be read: ww_loan_data. Waits for so many
 * nanoseconds; WW_FOREVER as long as that takes. A loan takes up room in the channel until ww_sender_commit or ww_sender_abort.
 * WW_TIMEOUT, WW_CLOSED, WW_TOO_LARGE.
 *
 * The caller sees to it: `sender` is a handle, or NULL; a pointer can be written to `loan`.
 */
ww_status ww_sender_loan(const ww_sender *sender,
                         size_t len,
                         int64_t timeout_ns,
                         ww_loan **loan);

/**
 * As ww_sender_loan, if there is room and memory now. WW_FULL, WW_NO_MEMORY, WW_CLOSED, WW_TOO_LARGE.
 *
 * The caller sees to it: As for ww_sender_loan.
 */
ww_status ww_sender_try_loan(const ww_sender *sender,
                             size_t len,
                             ww_loan **loan);

/**
 * Where the message is to be written, aligned to 8 bytes. What stands there is old. NULL if the handle is NULL or inherited.
 *
 * The caller sees to it: `loan` is a handle, or NULL.
 */
void *ww_loan_data(ww_loan *loan);

/**
 * How many bytes may be written. 0 if the handle is NULL or inherited.
 *
 * The caller sees to it: `loan` is a handle, or NULL.
 */
size_t ww_loan_capacity(const ww_loan *loan);

/**
 * Sends the first `len` bytes of the loan, without a copy. Never waits. WW_INVALID if that is more than its capacity: nothing was
 * sent. The loan is gone, whatever this returns.
 *
 * The caller sees to it: `loan` is a handle that nobody uses any more, or NULL; `len` bytes were written, or what stood there before is to be sent.
 */
ww_status ww_sender_commit(ww_loan *loan,
                           size_t len);

/**
 * Gives a loan back without sending. Nothing if it is NULL.
 *
 * The caller sees to it: `loan` is a handle that nobody uses any more, or NULL.
 */
void ww_sender_abort(ww_loan *loan);

/**
 * Whether sending fails from now on: all receivers have left, or somebody has closed the channel. A channel to which no receiver has
 * come yet is not closed. True if the handle is NULL or inherited.
 *
 * The caller sees to it: `sender` is a handle, or NULL.
 */
bool ww_sender_is_closed(const ww_sender *sender);

/**
 * Messages that wait to be received. 0 if the handle is NULL or inherited.
 *
 * The caller sees to it: `sender` is a handle, or NULL.
 */
size_t ww_sender_len(const ww_sender *sender);

/**
 * The most messages that may wait. 0 if the handle is NULL or inherited.
 *
 * The caller sees to it: `sender` is a handle, or NULL.
 */
size_t ww_sender_capacity(const ww_sender *sender);

/**
 * Messages for which there is room now. 0 if the handle is NULL or inherited.
 *
 * The caller sees to it: `sender` is a handle, or NULL.
 */
size_t ww_sender_room(const ww_sender *sender);

/**
 * Opens a receiving end of the channel of that name. Whoever comes first makes the channel; the options may be NULL.
 *
 * The caller sees to it: As for ww_sender_open; a pointer can be written to `receiver`.
 */
ww_status ww_receiver_open(const ww_segment *segment,
                           const char *channel,
                           const ww_channel_options *options,
                           ww_receiver **receiver);

/**
 * Closes this receiving end, and its descriptor. When the last one of all processes has gone, sending fails, and what waits is gone
 * unless the channel is persistent. Nothing if it is NULL.
 *
 * The caller sees to it: `receiver` is a handle that nobody uses any more, or NULL. Its messages may be.
 */
void ww_receiver_close(ww_receiver *receiver);

/**
 * Receives the next message, and waits for it for so many nanoseconds; WW_FOREVER as long as that takes. WW_TIMEOUT; WW_CLOSED when
 * all senders have gone and nothing is left. To be ended by ww_msg_ack or ww_msg_nack.
 *
 * The caller sees to it: `receiver` is a handle, or NULL; a pointer can be written to `msg`.
 */
ww_status ww_recv(const ww_receiver *receiver,
                  int64_t timeout_ns,
                  ww_msg **msg);

/**
 * Receives the next message if there is one now. WW_EMPTY, WW_CLOSED. To be ended by ww_msg_ack or ww_msg_nack.
 *
 * The caller sees to it: As for ww_recv.
 */
ww_status ww_try_recv(const ww_receiver *receiver,
                      ww_msg **msg);

/**
 * A descriptor to wait for with poll or epoll, which is readable when there may be a message, or the end. It stays readable until
 * ww_try_recv says WW_EMPTY (or ww_recv WW_TIMEOUT). So: wait for it, then call ww_try_recv until it says WW_EMPTY. It is readable
 * at first, and may be readable in vain. That holds level- and edge-triggered, and for any number of threads and processes. Nobody else
 * reads or writes it. It is closed with the receiver. -1 if the handle is NULL or inherited, or if there is no descriptor to be had.
 *
 * The caller sees to it: `receiver` is a handle, or NULL.
 */
int32_t ww_recv_fd(const ww_receiver *receiver);

/**
 * Closes the channel for everybody: nothing more can be sent, and what was sent can still be received.
 *
 * The caller sees to it: `receiver` is a handle, or NULL.
 */
ww_status ww_receiver_shutdown(const ww_receiver *receiver);

/**
 * Whether no more messages will be sent; some may still wait. A channel to which no sender has come yet is not closed. True if the
 * handle is NULL or inherited.
 *
 * The caller sees to it: `receiver` is a handle, or NULL.
 */
bool ww_receiver_is_closed(const ww_receiver *receiver);

/**
 * Messages that wait to be received. 0 if the handle is NULL or inherited.
 *
 * The caller sees to it: `receiver` is a handle, or NULL.
 */
size_t ww_receiver_len(const ww_receiver *receiver);

/**
 * The most messages that may wait. 0 if the handle is NULL or inherited.
 *
 * The caller sees to it: `receiver` is a handle, or NULL.
 */
size_t ww_receiver_capacity(const ww_receiver *receiver);

/**
 * Opens a publisher of the broadcast of that name. Whoever comes first makes it; the options may be NULL.
 *
 * The caller sees to it: `segment` is a handle, or NULL; the name ends with a zero byte; the options are NULL, or as long as they say, and their strings
 * end with zero bytes; a pointer can be written to `publisher`.
 */
ww_status ww_publisher_open(const ww_segment *segment,
                            const char *broadcast,
                            const ww_broadcast_options *options,
                            ww_publisher **publisher);

/**
 * Closes a publisher. When the last one of all processes has gone, subscribers get what is left, and then WW_CLOSED. Nothing if it is
 * NULL.
 *
 * The caller sees to it: `publisher` is a handle that nobody uses any more, or NULL.
 */
void ww_publisher_close(ww_publisher *publisher);

/**
 * Publishes a copy of the bytes, and waits for groups that are behind, and for memory, for so many nanoseconds; WW_FOREVER as long as
 * that takes. Puts how many groups there are to `groups`, unless it is NULL. WW_TIMEOUT, WW_TOO_LARGE: nothing was published.
 *
 * The caller sees to it: `publisher` is a handle, or NULL; `len` bytes can be read at `data`; `groups` is NULL, or can be written to.
 */
ww_status ww_publish(const ww_publisher *publisher,
                     const void *data,
                     size_t len,
                     int64_t timeout_ns,
                     size_t *groups);

/**
 * Publishes a copy of the bytes if that can be done now. Puts how many groups there are to `groups`, unless it is NULL. WW_FULL,
 * WW_NO_MEMORY, WW_TOO_LARGE: nothing was published.
 *
 * The caller sees to it: As for ww_publish.
 */
ww_status ww_try_publish(const ww_publisher *publisher,
                         const void *data,
                         size_t len,
                         size_t *groups);

/**
 * Groups that there are now. 0 if the handle is NULL or inherited.
 *
 * The caller sees to it: `publisher` is a handle, or NULL.
 */
size_t ww_publisher_groups(const ww_publisher *publisher);

/**
 * Opens a subscriber of the broadcast of that name, in the group that the options name. Whoever comes first makes them; the options
 * may be NULL.
 *
 * The caller sees to it: As for ww_publisher_open; a pointer can be written to `subscriber`.
 */
ww_status ww_subscriber_open(const ww_segment *segment,
                             const char *broadcast,
                             const ww_broadcast_options *options,
                             ww_subscriber **subscriber);

/**
 * Closes a subscriber, and its descriptor. Nothing if it is NULL.
 *
 * The caller sees to it: `subscriber` is a handle that nobody uses any more, or NULL. Its messages may be.
 */
void ww_subscriber_close(ww_subscriber *subscriber);

/**
 * Receives the next message of the group, and waits for it for so many nanoseconds; WW_FOREVER as long as that takes. WW_LAGGED: the
 * group has missed messages, and how many is put to `missed`, unless it is NULL; the next call goes on behind them. WW_EVICTED,
 * WW_TIMEOUT, WW_CLOSED. To be ended by ww_msg_ack or ww_msg_nack.
 *
 * The caller sees to it: `subscriber` is a handle, or NULL; a pointer can be written to `msg`; `missed` is NULL, or can be written to.
 */
ww_status ww_subscriber_recv(const ww_subscriber *subscriber,
                             int64_t timeout_ns,
                             ww_msg **msg,
                             uint64_t *missed);

/**
 * Receives the next message of the group if there is one now. WW_EMPTY, and what ww_subscriber_recv says. To be ended by ww_msg_ack or
 * ww_msg_nack.
 *
 * The caller sees to it: As for ww_subscriber_recv.
 */
ww_status ww_subscriber_try_recv(const ww_subscriber *subscriber,
                                 ww_msg **msg,
                                 uint64_t *missed);

/**
 * A descriptor as that of ww_recv_fd: wait for it, then call ww_subscriber_try_recv until it says WW_EMPTY.
 *
 * The caller sees to it: `subscriber` is a handle, or NULL.
 */
int32_t ww_subscriber_fd(const ww_subscriber *subscriber);

/**
 * Messages that wait for the group. 0 if the handle is NULL or inherited.
 *
 * The caller sees to it: `subscriber` is a handle, or NULL.
 */
size_t ww_subscriber_len(const ww_subscriber *subscriber);

/**
 * Opens a client of the service of that name. Whoever comes first makes it; the options may be NULL.
 *
 * The caller sees to it: `segment` is a handle, or NULL; the name ends with a zero byte; the options are NULL, or as long as they say; a pointer can be written
 * to `client`.
 */
ww_status ww_client_open(const ww_segment *segment,
                         const char *service,
                         const ww_service_options *options,
                         ww_client **client);

/**
 * Closes a client. Nothing if it is NULL.
 *
 * The caller sees to it: `client` is a handle that nobody uses any more, or NULL.
 */
void ww_client_close(ww_client *client);

/**
 * Sends a copy of the bytes as a request, and waits for the response for so many nanoseconds; WW_FOREVER as long as that takes. The
 * server hears of the deadline, and of a caller that has given up. If no server has come yet it waits for one. WW_TIMEOUT,
 * WW_CLOSED (no server is left), WW_SERVER_GONE, WW_UNANSWERED, WW_TOO_LARGE. The response is to be ended by ww_msg_ack.
 *
 * The caller sees to it: `client` is a handle, or NULL; `len` bytes can be read at `data`; a pointer can be written to `response`.
 */
ww_status ww_call(const ww_client *client,
                  const void *data,
                  size_t len,
                  int64_t timeout_ns,
                  ww_msg **response);

/**
 * Whether calls fail from now on: all servers have left. A service to which no server has come yet is not closed. True if the handle
 * is NULL or inherited.
 *
 * The caller sees to it: `client` is a handle, or NULL.
 */
bool ww_client_is_closed(const ww_client *client);

/**
 * Opens a server of the service of that name. Whoever comes first makes it; the options may be NULL.
 *
 * The caller sees to it: As for ww_client_open; a pointer can be written to `server`.
 */
ww_status ww_server_open(const ww_segment *segment,
                         const char *service,
                         const ww_service_options *options,
                         ww_server **server);

/**
 * Closes a server, and its descriptor. Nothing if it is NULL.
 *
 * The caller sees to it: `server` is a handle that nobody uses any more, or NULL. Its requests may be.
 */
void ww_server_close(ww_server *server);

/**
 * Takes the next request, and waits for it for so many nanoseconds; WW_FOREVER as long as that takes. WW_TIMEOUT; WW_CLOSED when all
 * clients have gone. To be ended by ww_request_respond, ww_request_nack or ww_request_drop.
 *
 * The caller sees to it: `server` is a handle, or NULL; a pointer can be written to `request`.
 */
ww_status ww_server_next(const ww_server *server,
                         int64_t timeout_ns,
                         ww_request **request);

/**
 * Takes the next request if there is one now. WW_EMPTY, WW_CLOSED. To be ended as after ww_server_next.
 *
 * The caller sees to it: As for ww_server_next.
 */
ww_status ww_server_try_next(const ww_server *server,
                             ww_request **request);

/**
 * A descriptor as that of ww_recv_fd: wait for it, then call ww_server_try_next until it says WW_EMPTY.
 *
 * The caller sees to it: `server` is a handle, or NULL.
 */
int32_t ww_server_fd(const ww_server *server);

/**
 * The request's bytes, to be read only, until it has ended. NULL if the handle is NULL or inherited.
 *
 * The caller sees to it: `request` is a handle, or NULL.
 */
const void *ww_request_data(const ww_request *request);

/**
 * How many bytes the request has. 0 if the handle is NULL or inherited.
 *
 * The caller sees to it: `request` is a handle, or NULL.
 */
size_t ww_request_len(const ww_request *request);

/**
 * How often the request was delivered, this time included. 0 if the handle is NULL or inherited.
 *
 * The caller sees to it: `request` is a handle, or NULL.
 */
uint32_t ww_request_delivery_count(const ww_request *request);

/**
 * For how many nanoseconds the caller still waits; WW_FOREVER if it has set no time. 0 if the handle is NULL or inherited.
 *
 * The caller sees to it: `request` is a handle, or NULL.
 */
int64_t ww_request_time_left(const ww_request *request);

/**
 * Whether nobody waits for the response any more. True if the handle is NULL or inherited.
 *
 * The caller sees to it: `request` is a handle, or NULL.
 */
bool ww_request_is_cancelled(const ww_request *request);

/**
 * Sends a copy of the bytes as the response, and waits for room and memory. WW_CANCELLED if nobody waits for it any more; WW_TOO_LARGE:
 * the caller is told that there will be no response. The request is gone, whatever this returns.
 *
 * The caller sees to it: `request` is a handle that nobody uses any more, or NULL; `len` bytes can be read at `data`, which may be the
 * request's.
 */
ww_status ww_request_respond(ww_request *request,
                             const void *data,
                             size_t len);

/**
 * Gives the request back: a client that delivers at least once sends it again, another is told WW_UNANSWERED. The request is gone,
 * whatever this returns.
 *
 * The caller sees to it: `request` is a handle that nobody uses any more, or NULL.
 */
ww_status ww_request_nack(ww_request *request);

/**
 * Ends the request without a response: its caller is told WW_UNANSWERED. Nothing if it is NULL.
 *
 * The caller sees to it: `request` is a handle that nobody uses any more, or NULL.
 */
void ww_request_drop(ww_request *request);

/**
 * Opens a sender of the watch of that name. Whoever comes first makes it; the options may be NULL.
 *
 * The caller sees to it: `segment` is a handle, or NULL; the name ends with a zero byte; the options are NULL, or as long as they say, and the value in them as
 * long as that says; a pointer can be written to `sender`.
 */
ww_status ww_watch_sender_open(const ww_segment *segment,
                               const char *watch,
                               const ww_watch_options *options,
                               ww_watch_sender **sender);

/**
 * Closes a sender. Nothing if it is NULL.
 *
 * The caller sees to it: `sender` is a handle that nobody uses any more, or NULL.
 */
void ww_watch_sender_close(ww_watch_sender *sender);

/**
 * Makes a copy of the bytes the latest value. Never waits. WW_CLOSED (all receivers have left), WW_NO_MEMORY, WW_TOO_LARGE.
 *
 * The caller sees to it: `sender` is a handle, or NULL; `len` bytes can be read at `data`.
 */
ww_status ww_watch_send(const ww_watch_sender *sender,
                        const void *data,
                        size_t len);

/**
 * Opens a receiver of the watch of that name. Whoever comes first makes it; the options may be NULL. It has got the value that there is:
 * ww_watch_changed waits for another one.
 *
 * The caller sees to it: As for ww_watch_sender_open; a pointer can be written to `receiver`.
 */
ww_status ww_watch_receiver_open(const ww_segment *segment,
                                 const char *watch,
                                 const ww_watch_options *options,
                                 ww_watch_receiver **receiver);

/**
 * Closes a receiver, and its descriptor. Nothing if it is NULL.
 *
 * The caller sees to it: `receiver` is a handle that nobody uses any more, or NULL. Values that it has given may be.
 */
void ww_watch_receiver_close(ww_watch_receiver *receiver);

/**
 * The latest value, in place, which this receiver has got from now on. To be ended by ww_msg_ack.
 *
 * The caller sees to it: `receiver` is a handle, or NULL; a pointer can be written to `value`.
 */
ww_status ww_watch_get(const ww_watch_receiver *receiver, ww_msg **value);

/**
 * Waits until there is a value that ww_watch_get has not given, for so many nanoseconds; WW_FOREVER as long as that takes, 0 asks
 * whether there is. WW_TIMEOUT; WW_CLOSED when all senders have gone and there is none.
 *
 * The caller sees to it: `receiver` is a handle, or NULL.
 */
ww_status ww_watch_changed(const ww_watch_receiver *receiver,
                           int64_t timeout_ns);

/**
 * A descriptor to wait for as that of ww_recv_fd: readable when there may be a value that ww_watch_get has not given, or the end, until
 * ww_watch_changed says WW_TIMEOUT. So: wait for it, call ww_watch_changed with 0, and ww_watch_get if that says WW_OK.
 *
 * The caller sees to it: `receiver` is a handle, or NULL.
 */
int32_t ww_watch_fd(const ww_watch_receiver *receiver);

/**
 * Opens the semaphore of that name, which whoever comes first makes with so many permits; 0: as it was made, or 1. WW_MISMATCH if
 * it was made with another number.
 *
 * The caller sees to it: `segment` is a handle, or NULL; the name ends with a zero byte; a pointer can be written to `semaphore`.
 */
ww_status ww_semaphore_open(const ww_segment *segment,
                            const char *name,
                            size_t permits,
                            ww_semaphore **semaphore);

/**
 * Closes this handle. Nothing if it is NULL.
 *
 * The caller sees to it: `semaphore` is a handle that nobody uses any more, or NULL. Its permits may be.
 */
void ww_semaphore_close(ww_semaphore *semaphore);

/**
 * Acquires so many permits at once, and waits for them for so many nanoseconds; WW_FOREVER as long as that takes. WW_TIMEOUT; WW_CLOSED;
 * WW_TOO_MANY if there are not so many, free or held. To be ended by ww_permit_release or ww_permit_forget.
 *
 * The caller sees to it: `semaphore` is a handle, or NULL; a pointer can be written to `permit`.
 */
ww_status ww_semaphore_acquire(const ww_semaphore *semaphore,
                               uint32_t permits,
                               int64_t timeout_ns,
                               ww_permit **permit);

/**
 * Acquires so many permits at once, if they are free now. WW_EMPTY, WW_CLOSED.
 *
 * The caller sees to it: As for ww_semaphore_acquire.
 */
ww_status ww_semaphore_try_acquire(const ww_semaphore *semaphore,
                                   uint32_t permits,
                                   ww_permit **permit);

/**
 * Permits that are free now. 0 if the handle is NULL or inherited.
 *
 * The caller sees to it: `semaphore` is a handle, or NULL.
 */
size_t ww_semaphore_available(const ww_semaphore *semaphore);

/**
 * Adds so many permits for good, and returns how many were added: fewer if there would be more than 2^24. 0 if the handle is NULL or
 * inherited.
 *
 * The caller sees to it: `semaphore` is a handle, or NULL.
 */
size_t ww_semaphore_add(const ww_semaphore *semaphore,
                        size_t permits);

/**
 * Closes the semaphore for everybody: whoever waits, and whoever comes, is told WW_CLOSED.
 *
 * The caller sees to it: `semaphore` is a handle, or NULL.
 */
ww_status ww_semaphore_shutdown(const ww_semaphore *semaphore);

/**
 * Gives permits back. Nothing if it is NULL.
 *
 * The caller sees to it: `permit` is a handle that nobody uses any more, or NULL.
 */
void ww_permit_release(ww_permit *permit);

/**
 * Takes permits away for good: the semaphore has so many fewer. The handle is gone, whatever this returns.
 *
 * The caller sees to it: `permit` is a handle that nobody uses any more, or NULL.
 */
ww_status ww_permit_forget(ww_permit *permit);

/**
 * Opens the notify of that name, which whoever comes first makes.
 *
 * The caller sees to it: `segment` is a handle, or NULL; the name ends with a zero byte; a pointer can be written to `notify`.
 */
ww_status ww_notify_open(const ww_segment *segment,
                         const char *name,
                         ww_notify **notify);

/**
 * Closes this handle. Nothing if it is NULL.
 *
 * The caller sees to it: `notify` is a handle that nobody uses any more, or NULL.
 */
void ww_notify_close(ww_notify *notify);

/**
 * Notifies one who waits, of all processes; if nobody does, whoever comes next. Several that nobody waits for count as one.
 *
 * The caller sees to it: `notify` is a handle, or NULL.
 */
ww_status ww_notify_one(const ww_notify *notify);

/**
 * Notifies all who wait now, of all processes.
 *
 * The caller sees to it: `notify` is a handle, or NULL.
 */
ww_status ww_notify_all(const ww_notify *notify);

/**
 * Waits to be notified, for so many nanoseconds; WW_FOREVER as long as that takes. WW_TIMEOUT.
 *
 * The caller sees to it: `notify` is a handle, or NULL.
 */
ww_status ww_notify_wait(const ww_notify *notify, int64_t timeout_ns);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* WATERWAY_H */
