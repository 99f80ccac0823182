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
   * No message waits now.
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
 * Room in a channel and memory in its segment, to be written in place and sent.
 */
typedef struct ww_loan ww_loan;

/**
 * A received message. Its bytes stand in the segment until it is acknowledged.
 */
typedef struct ww_msg ww_msg;

/**
 * The receiving end of a channel of bytes, for any number of threads.
 */
typedef struct ww_receiver ww_receiver;

/**
 * A hold on a segment: a region of memory that processes share, in which channels live.
 *
 * Ends, messages and loans keep the segment as well, so they may be closed in any order. A process should open a segment once, and
 * share the handle between its threads.
 */
typedef struct ww_segment ww_segment;

/**
 * The sending end of a channel of bytes, for any number of threads.
 */
typedef struct ww_sender ww_sender;

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
 * The message's number in its channel: later ones have higher numbers. 0 if the handle is NULL or inherited.
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
 * ww_try_recv says WW_EMPTY (or ww_recv WW_TIMEOUT), and not a moment longer. So: wait for it, then call ww_try_recv until it says
 * WW_EMPTY. It is readable at first. That holds level- and edge-triggered, and for any number of threads and processes. Nobody else
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

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* WATERWAY_H */
