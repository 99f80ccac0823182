/* Waterway for C++17 and later: waterway.h with handles that close themselves. See docs/c.md.
 *
 * Everything that may fail gives a result: look at it, or call value(), which throws waterway::error. So exceptions are a matter of
 * choice; without them (-fno-exceptions) value() ends the program and says why. Handles can be moved and not copied, and may be
 * used by several threads at once but for what moves or ends them. Functions take no time that is negative for more than none;
 * waterway::forever is without a limit. */

#ifndef WATERWAY_HPP
#define WATERWAY_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "waterway.h"

namespace waterway {

/** Without a limit. */
inline constexpr std::chrono::nanoseconds forever = std::chrono::nanoseconds::max();

/** What value() throws: what ww_last_error() said in the thread, and the status. */
class error : public std::runtime_error {
public:
    error(ww_status status, const char *text)
        : std::runtime_error(std::string(ww_status_name(status)) + ": " + text), status_(status) {}

    ww_status status() const noexcept { return status_; }

private:
    ww_status status_;
};

namespace detail {

[[noreturn]] inline void fail(ww_status status) {
#if defined(__cpp_exceptions)
    throw error(status, ww_last_error());
#else
    std::fprintf(stderr, "waterway: %s: %s\n", ww_status_name(status), ww_last_error());
    std::abort();
#endif
}

inline std::int64_t nanoseconds(std::chrono::nanoseconds time) noexcept {
    if (time == forever)
        return WW_FOREVER;
    return time.count() < 0 ? 0 : time.count();
}

/** Closes a handle as `close` does. */
template <auto close>
struct closer {
    template <class H>
    void operator()(H *handle) const noexcept {
        close(handle);
    }
};

template <class H, auto close>
using handle = std::unique_ptr<H, closer<close>>;

} // namespace detail

/** A value, or the status that says why there is none. */
template <class T>
class [[nodiscard]] result {
public:
    result(T value) : value_(std::move(value)) {}
    result(ww_status status) noexcept : status_(status) {}

    ww_status status() const noexcept { return status_; }
    bool has_value() const noexcept { return value_.has_value(); }
    explicit operator bool() const noexcept { return has_value(); }

    /** The value. Throws waterway::error if there is none: to be called in the thread in which that was told, before anything else
     * fails there. */
    T &value() & { return checked(); }
    T &&value() && { return std::move(checked()); }

    T &operator*() & noexcept { return *value_; }
    T &&operator*() && noexcept { return std::move(*value_); }
    T *operator->() noexcept { return &*value_; }

private:
    T &checked() {
        if (!value_)
            detail::fail(status_);
        return *value_;
    }

    std::optional<T> value_;
    ww_status status_ = WW_OK;
};

/** Done, or the status that says why not. */
template <>
class [[nodiscard]] result<void> {
public:
    result(ww_status status) noexcept : status_(status) {}

    ww_status status() const noexcept { return status_; }
    bool has_value() const noexcept { return status_ == WW_OK; }
    explicit operator bool() const noexcept { return has_value(); }

    /** Throws waterway::error if it is not done. */
    void value() const {
        if (!has_value())
            detail::fail(status_);
    }

private:
    ww_status status_;
};

/** Bytes that somebody else has, to be read: of a string, of a vector or array of plain values, of one plain value by of(). */
class bytes {
public:
    constexpr bytes() noexcept = default;
    constexpr bytes(const void *data, std::size_t size) noexcept : data_(data), size_(size) {}
    bytes(const char *text) noexcept : bytes(std::string_view(text)) {}

    template <class C, class V = std::remove_pointer_t<decltype(std::declval<const C &>().data())>,
              class = std::enable_if_t<std::is_trivially_copyable_v<V> && !std::is_void_v<V>>,
              class = decltype(std::declval<const C &>().size())>
    bytes(const C &values) noexcept : data_(values.data()), size_(values.size() * sizeof(V)) {}

    template <class T>
    static bytes of(const T &value) noexcept {
        static_assert(std::is_trivially_copyable_v<T>, "its bytes do not say all of it");
        return bytes(&value, sizeof value);
    }

    const void *data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }
    const unsigned char *begin() const noexcept { return static_cast<const unsigned char *>(data_); }
    const unsigned char *end() const noexcept { return begin() + size_; }
    unsigned char operator[](std::size_t at) const noexcept { return begin()[at]; }
    std::string_view text() const noexcept { return {static_cast<const char *>(data_), size_}; }

private:
    const void *data_ = nullptr;
    std::size_t size_ = 0;
};

namespace detail {

/** Calls what puts a handle where its last argument points, and wraps that. */
template <class T, class H, class F, class... Arguments>
result<T> make(F function, Arguments... arguments) {
    H *handle;
    if (ww_status status = function(arguments..., &handle))
        return status;
    return T(handle);
}

} // namespace detail

/** ww_segment_options, of which nothing is asked for yet. */
struct segment_options : ww_segment_options {
    segment_options() noexcept : ww_segment_options() { struct_size = sizeof(ww_segment_options); }
};

/** ww_channel_options, of which nothing is asked for yet. */
struct channel_options : ww_channel_options {
    channel_options() noexcept : ww_channel_options() { struct_size = sizeof(ww_channel_options); }
};

/** ww_broadcast_options, of which nothing is asked for yet. */
struct broadcast_options : ww_broadcast_options {
    broadcast_options() noexcept : ww_broadcast_options() { struct_size = sizeof(ww_broadcast_options); }
};

/** ww_service_options, of which nothing is asked for yet. */
struct service_options : ww_service_options {
    service_options() noexcept : ww_service_options() { struct_size = sizeof(ww_service_options); }
};

/** ww_watch_options, of which nothing is asked for yet. */
struct watch_options : ww_watch_options {
    watch_options() noexcept : ww_watch_options() { struct_size = sizeof(ww_watch_options); }

    /** The value of a new watch, whose bytes must stay until it is opened. */
    void set_initial(bytes value) noexcept {
        initial = value.data();
        initial_len = value.size();
    }
};

/** A received message, read in place. It is acknowledged when it goes, and given back if it goes because of an exception. */
class message {
public:
    explicit message(ww_msg *handle) noexcept : handle_(handle), exceptions_(std::uncaught_exceptions()) {}
    message(message &&other) noexcept
        : handle_(std::exchange(other.handle_, nullptr)), exceptions_(std::uncaught_exceptions()) {}
    message &operator=(message &&other) noexcept {
        message(std::move(other)).swap(*this);
        return *this;
    }
    ~message() {
        if (handle_ && std::uncaught_exceptions() > exceptions_)
            ww_msg_nack(handle_);
        else
            ww_msg_ack(handle_);
    }

    waterway::bytes bytes() const noexcept { return {ww_msg_data(handle_), ww_msg_len(handle_)}; }
    std::string_view text() const noexcept { return bytes().text(); }
    std::size_t size() const noexcept { return ww_msg_len(handle_); }

    /** The message as a value of that type, in place; nullptr if it has another size. */
    template <class T>
    const T *as() const noexcept {
        static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= 8, "it cannot be read where it stands");
        return size() == sizeof(T) ? static_cast<const T *>(ww_msg_data(handle_)) : nullptr;
    }

    std::uint64_t sequence() const noexcept { return ww_msg_sequence(handle_); }
    std::uint32_t delivery_count() const noexcept { return ww_msg_delivery_count(handle_); }
    bool redelivered() const noexcept { return ww_msg_redelivered(handle_); }

    /** Acknowledges it now. There is no message any more. */
    void ack() noexcept { ww_msg_ack(std::exchange(handle_, nullptr)); }
    /** Gives it back. There is no message any more. */
    result<void> nack() noexcept { return ww_msg_nack(std::exchange(handle_, nullptr)); }

private:
    void swap(message &other) noexcept { std::swap(handle_, other.handle_); }

    ww_msg *handle_;
    /** How many exceptions were on their way when it came. */
    int exceptions_;
};

/** Room in a channel and memory in its segment. It is given back when it goes, unless it was sent. */
class loan {
public:
    explicit loan(ww_loan *handle) noexcept : handle_(handle) {}

    /** Where the message is to be written, aligned to 8 bytes. */
    void *data() const noexcept { return ww_loan_data(handle_.get()); }
    std::size_t capacity() const noexcept { return ww_loan_capacity(handle_.get()); }

    /** Sends the first `size` bytes. There is no loan any more. */
    result<void> commit(std::size_t size) noexcept { return ww_sender_commit(handle_.release(), size); }

private:
    detail::handle<ww_loan, ww_sender_abort> handle_;
};

/** A segment that this process has open. */
class segment {
public:
    explicit segment(ww_segment *handle) noexcept : handle_(handle) {}

    static result<segment> open_or_create(const char *name, const ww_segment_options *options = nullptr) {
        return detail::make<segment, ww_segment>(ww_segment_open_or_create, name, options);
    }
    static result<segment> create(const char *name, const ww_segment_options *options = nullptr) {
        return detail::make<segment, ww_segment>(ww_segment_create, name, options);
    }
    static result<segment> open(const char *name, const ww_segment_options *options = nullptr) {
        return detail::make<segment, ww_segment>(ww_segment_open, name, options);
    }
    static result<segment> anonymous(const ww_segment_options *options = nullptr) {
        return detail::make<segment, ww_segment>(ww_segment_anonymous, options);
    }
    static result<segment> from_fd(int fd) {
        return detail::make<segment, ww_segment>(ww_segment_from_fd, fd);
    }
    static result<void> remove(const char *name, const ww_segment_options *options = nullptr) noexcept {
        return ww_segment_remove(name, options);
    }
    static result<std::size_t> sweep(const ww_segment_options *options = nullptr) {
        std::size_t removed = 0;
        if (ww_status status = ww_segment_sweep(options, &removed))
            return status;
        return removed;
    }

    const char *name() const noexcept { return ww_segment_name(get()); }
    const char *path() const noexcept { return ww_segment_path(get()); }
    int fd() const noexcept { return ww_segment_fd(get()); }
    std::size_t held_bytes() const noexcept { return ww_segment_held_bytes(get()); }
    result<void> check() const noexcept { return ww_segment_check(get()); }

    ww_segment *get() const noexcept { return handle_.get(); }

private:
    detail::handle<ww_segment, ww_segment_close> handle_;
};

/** The sending end of a channel. */
class sender {
public:
    explicit sender(ww_sender *handle) noexcept : handle_(handle) {}

    static result<sender> open(const segment &in, const char *channel, const ww_channel_options *options = nullptr) {
        return detail::make<sender, ww_sender>(ww_sender_open, in.get(), channel, options);
    }

    result<void> send(bytes data) const noexcept { return ww_send(handle_.get(), data.data(), data.size()); }
    result<void> send_for(bytes data, std::chrono::nanoseconds time) const noexcept {
        return ww_send_timeout(handle_.get(), data.data(), data.size(), detail::nanoseconds(time));
    }
    result<void> try_send(bytes data) const noexcept { return ww_try_send(handle_.get(), data.data(), data.size()); }

    result<loan> lend(std::size_t size, std::chrono::nanoseconds time = forever) const {
        return detail::make<loan, ww_loan>(ww_sender_loan, handle_.get(), size, detail::nanoseconds(time));
    }
    result<loan> try_lend(std::size_t size) const {
        return detail::make<loan, ww_loan>(ww_sender_try_loan, handle_.get(), size);
    }

    bool is_closed() const noexcept { return ww_sender_is_closed(handle_.get()); }
    std::size_t size() const noexcept { return ww_sender_len(handle_.get()); }
    std::size_t capacity() const noexcept { return ww_sender_capacity(handle_.get()); }
    std::size_t room() const noexcept { return ww_sender_room(handle_.get()); }

private:
    detail::handle<ww_sender, ww_sender_close> handle_;
};

/** The receiving end of a channel. `while (auto message = receiver.recv())` receives all there is until WW_CLOSED. */
class receiver {
public:
    explicit receiver(ww_receiver *handle) noexcept : handle_(handle) {}

    static result<receiver> open(const segment &in, const char *channel, const ww_channel_options *options = nullptr) {
        return detail::make<receiver, ww_receiver>(ww_receiver_open, in.get(), channel, options);
    }

    result<message> recv(std::chrono::nanoseconds time = forever) const {
        return detail::make<message, ww_msg>(ww_recv, handle_.get(), detail::nanoseconds(time));
    }
    result<message> try_recv() const {
        return detail::make<message, ww_msg>(ww_try_recv, handle_.get());
    }
    /** See ww_recv_fd. */
    int fd() const noexcept { return ww_recv_fd(handle_.get()); }

    result<void> shutdown() const noexcept { return ww_receiver_shutdown(handle_.get()); }
    bool is_closed() const noexcept { return ww_receiver_is_closed(handle_.get()); }
    std::size_t size() const noexcept { return ww_receiver_len(handle_.get()); }
    std::size_t capacity() const noexcept { return ww_receiver_capacity(handle_.get()); }

private:
    detail::handle<ww_receiver, ww_receiver_close> handle_;
};

/** The sending end of a broadcast. */
class publisher {
public:
    explicit publisher(ww_publisher *handle) noexcept : handle_(handle) {}

    static result<publisher> open(const segment &in, const char *broadcast,
                                  const ww_broadcast_options *options = nullptr) {
        return detail::make<publisher, ww_publisher>(ww_publisher_open, in.get(), broadcast, options);
    }

    /** How many groups there are. */
    result<std::size_t> publish(bytes data, std::chrono::nanoseconds time = forever) const {
        std::size_t groups = 0;
        if (ww_status status = ww_publish(handle_.get(), data.data(), data.size(), detail::nanoseconds(time), &groups))
            return status;
        return groups;
    }
    result<std::size_t> try_publish(bytes data) const {
        std::size_t groups = 0;
        if (ww_status status = ww_try_publish(handle_.get(), data.data(), data.size(), &groups))
            return status;
        return groups;
    }
    std::size_t groups() const noexcept { return ww_publisher_groups(handle_.get()); }

private:
    detail::handle<ww_publisher, ww_publisher_close> handle_;
};

/** A receiving end of a broadcast. */
class subscriber {
public:
    explicit subscriber(ww_subscriber *handle) noexcept : handle_(handle) {}

    static result<subscriber> open(const segment &in, const char *broadcast,
                                   const ww_broadcast_options *options = nullptr) {
        return detail::make<subscriber, ww_subscriber>(ww_subscriber_open, in.get(), broadcast, options);
    }

    /** With WW_LAGGED, how many were missed is put to `missed`. */
    result<message> recv(std::chrono::nanoseconds time = forever, std::uint64_t *missed = nullptr) const {
        ww_msg *handle;
        if (ww_status status = ww_subscriber_recv(handle_.get(), detail::nanoseconds(time), &handle, missed))
            return status;
        return message(handle);
    }
    result<message> try_recv(std::uint64_t *missed = nullptr) const {
        ww_msg *handle;
        if (ww_status status = ww_subscriber_try_recv(handle_.get(), &handle, missed))
            return status;
        return message(handle);
    }
    int fd() const noexcept { return ww_subscriber_fd(handle_.get()); }
    std::size_t size() const noexcept { return ww_subscriber_len(handle_.get()); }

private:
    detail::handle<ww_subscriber, ww_subscriber_close> handle_;
};

/** The calling end of a service. */
class client {
public:
    explicit client(ww_client *handle) noexcept : handle_(handle) {}

    static result<client> open(const segment &in, const char *service, const ww_service_options *options = nullptr) {
        return detail::make<client, ww_client>(ww_client_open, in.get(), service, options);
    }

    result<message> call(bytes request, std::chrono::nanoseconds time = forever) const {
        return detail::make<message, ww_msg>(ww_call, handle_.get(), request.data(), request.size(), detail::nanoseconds(time));
    }
    bool is_closed() const noexcept { return ww_client_is_closed(handle_.get()); }

private:
    detail::handle<ww_client, ww_client_close> handle_;
};

/** A request whose caller waits. If it goes without a response its caller is told so. */
class request {
public:
    explicit request(ww_request *handle) noexcept : handle_(handle) {}

    waterway::bytes bytes() const noexcept { return {ww_request_data(handle_.get()), ww_request_len(handle_.get())}; }
    std::string_view text() const noexcept { return bytes().text(); }
    std::uint32_t delivery_count() const noexcept { return ww_request_delivery_count(handle_.get()); }
    bool is_cancelled() const noexcept { return ww_request_is_cancelled(handle_.get()); }
    /** For how long the caller still waits; forever if it has set no time. */
    std::chrono::nanoseconds time_left() const noexcept {
        std::int64_t left = ww_request_time_left(handle_.get());
        return left < 0 ? forever : std::chrono::nanoseconds(left);
    }

    /** Sends the response, which may be the request's own bytes. There is no request any more. */
    result<void> respond(waterway::bytes response) noexcept {
        return ww_request_respond(handle_.release(), response.data(), response.size());
    }
    /** Gives it back. There is no request any more. */
    result<void> nack() noexcept { return ww_request_nack(handle_.release()); }

private:
    detail::handle<ww_request, ww_request_drop> handle_;
};

/** The serving end of a service. */
class server {
public:
    explicit server(ww_server *handle) noexcept : handle_(handle) {}

    static result<server> open(const segment &in, const char *service, const ww_service_options *options = nullptr) {
        return detail::make<server, ww_server>(ww_server_open, in.get(), service, options);
    }

    result<request> next(std::chrono::nanoseconds time = forever) const {
        return detail::make<request, ww_request>(ww_server_next, handle_.get(), detail::nanoseconds(time));
    }
    result<request> try_next() const {
        return detail::make<request, ww_request>(ww_server_try_next, handle_.get());
    }
    int fd() const noexcept { return ww_server_fd(handle_.get()); }

private:
    detail::handle<ww_server, ww_server_close> handle_;
};

/** The sending end of a watch. */
class watch_sender {
public:
    explicit watch_sender(ww_watch_sender *handle) noexcept : handle_(handle) {}

    static result<watch_sender> open(const segment &in, const char *watch, const ww_watch_options *options = nullptr) {
        return detail::make<watch_sender, ww_watch_sender>(ww_watch_sender_open, in.get(), watch, options);
    }

    result<void> send(bytes value) const noexcept { return ww_watch_send(handle_.get(), value.data(), value.size()); }

private:
    detail::handle<ww_watch_sender, ww_watch_sender_close> handle_;
};

/** The receiving end of a watch. */
class watch_receiver {
public:
    explicit watch_receiver(ww_watch_receiver *handle) noexcept : handle_(handle) {}

    static result<watch_receiver> open(const segment &in, const char *watch,
                                       const ww_watch_options *options = nullptr) {
        return detail::make<watch_receiver, ww_watch_receiver>(ww_watch_receiver_open, in.get(), watch, options);
    }

    /** The latest value. */
    result<message> get() const {
        return detail::make<message, ww_msg>(ww_watch_get, handle_.get());
    }
    /** Waits for a value that get() has not given. */
    result<void> changed(std::chrono::nanoseconds time = forever) const noexcept {
        return ww_watch_changed(handle_.get(), detail::nanoseconds(time));
    }
    int fd() const noexcept { return ww_watch_fd(handle_.get()); }

private:
    detail::handle<ww_watch_receiver, ww_watch_receiver_close> handle_;
};

/** Permits of a semaphore. They are given back when it goes. */
class permit {
public:
    explicit permit(ww_permit *handle) noexcept : handle_(handle) {}

    /** Takes them away for good. There is no permit any more. */
    result<void> forget() noexcept { return ww_permit_forget(handle_.release()); }

private:
    detail::handle<ww_permit, ww_permit_release> handle_;
};

/** A semaphore. */
class semaphore {
public:
    explicit semaphore(ww_semaphore *handle) noexcept : handle_(handle) {}

    /** With so many permits, if it is made; 0: as it was made, or 1. */
    static result<semaphore> open(const segment &in, const char *name, std::size_t permits = 0) {
        return detail::make<semaphore, ww_semaphore>(ww_semaphore_open, in.get(), name, permits);
    }

    result<permit> acquire(std::uint32_t permits = 1, std::chrono::nanoseconds time = forever) const {
        return detail::make<permit, ww_permit>(ww_semaphore_acquire, handle_.get(), permits, detail::nanoseconds(time));
    }
    result<permit> try_acquire(std::uint32_t permits = 1) const {
        return detail::make<permit, ww_permit>(ww_semaphore_try_acquire, handle_.get(), permits);
    }
    std::size_t available() const noexcept { return ww_semaphore_available(handle_.get()); }
    std::size_t add(std::size_t permits) const noexcept { return ww_semaphore_add(handle_.get(), permits); }
    result<void> shutdown() const noexcept { return ww_semaphore_shutdown(handle_.get()); }

private:
    detail::handle<ww_semaphore, ww_semaphore_close> handle_;
};

/** A notify. */
class notify {
public:
    explicit notify(ww_notify *handle) noexcept : handle_(handle) {}

    static result<notify> open(const segment &in, const char *name) {
        return detail::make<notify, ww_notify>(ww_notify_open, in.get(), name);
    }

    result<void> one() const noexcept { return ww_notify_one(handle_.get()); }
    result<void> all() const noexcept { return ww_notify_all(handle_.get()); }
    result<void> wait(std::chrono::nanoseconds time = forever) const noexcept {
        return ww_notify_wait(handle_.get(), detail::nanoseconds(time));
    }

private:
    detail::handle<ww_notify, ww_notify_close> handle_;
};

} // namespace waterway

#endif
