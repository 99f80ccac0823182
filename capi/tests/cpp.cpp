// What waterway.hpp adds to waterway.h: handles that close themselves, results, values, and what exceptions do to messages.
#include "common.h"

#include <array>
#include <cstring>
#include <thread>
#include <vector>

#include "waterway.hpp"

namespace ww = waterway;
using namespace std::chrono_literals;

static constexpr std::chrono::nanoseconds patience = 100s;

struct tick {
    std::uint64_t id;
    double price;
};

static void bytes_are_of_what_has_them() {
    CHECK(ww::bytes("text").text() == "text");
    CHECK(ww::bytes(std::string("longer")).size() == 6);
    CHECK(ww::bytes(std::string_view("a\0b", 3)).size() == 3);
    std::vector<std::uint32_t> numbers{1, 2, 3};
    CHECK(ww::bytes(numbers).size() == 12 && ww::bytes(numbers).data() == numbers.data());
    std::array<char, 2> letters{'x', 'y'};
    ww::bytes two = letters;
    CHECK(two[1] == 'y' && two.end() - two.begin() == 2 && !two.empty() && ww::bytes().empty());
    tick one{7, 1.5};
    CHECK(ww::bytes::of(one).size() == sizeof one);
}

static void results_are_asked_or_throw(const ww::segment &segment) {
    auto nowhere = ww::segment::open("nowhere");
    CHECK(!nowhere && nowhere.status() == WW_NOT_FOUND);
#if defined(__cpp_exceptions)
    bool thrown = false;
    try {
        ww::segment::open("nowhere").value();
    } catch (const ww::error &error) {
        thrown = error.status() == WW_NOT_FOUND && std::strstr(error.what(), "WW_NOT_FOUND: there is no segment");
    }
    CHECK(thrown);
    thrown = false;
    try {
        ww::segment::remove("nowhere").value();
    } catch (const ww::error &error) {
        thrown = error.status() == WW_NOT_FOUND;
    }
    CHECK(thrown);
#endif
    CHECK(std::strcmp(segment.name(), "cpp") == 0 && std::strstr(segment.path(), "cpp") && segment.fd() >= 0);
    CHECK(ww::segment::sweep().value() == 0);
    ww::segment anonymous = ww::segment::anonymous().value();
    CHECK(ww::segment::from_fd(anonymous.fd()).value().path() == nullptr);
    CHECK(ww::segment::create("cpp").status() == WW_EXISTS);
}

static void values_are_written_and_read_in_place(const ww::segment &segment) {
    ww::channel_options options;
    options.capacity = 2;
    auto sender = ww::sender::open(segment, "ticks", &options).value();
    auto receiver = ww::receiver::open(segment, "ticks").value();
    CHECK(receiver.fd() >= 0 && receiver.capacity() == 2 && sender.capacity() == 2);
    CHECK(receiver.try_recv().status() == WW_EMPTY && receiver.recv(1ms).status() == WW_TIMEOUT);
    CHECK(receiver.recv(-1s).status() == WW_TIMEOUT);

    sender.send(ww::bytes::of(tick{1, 99.5})).value();
    ww::loan loan = sender.lend(sizeof(tick)).value();
    CHECK(sender.room() == 0 && sender.try_lend(1).status() == WW_FULL && loan.capacity() >= sizeof(tick));
    *static_cast<tick *>(loan.data()) = tick{2, 99.75};
    loan.commit(sizeof(tick)).value();
    CHECK(sender.try_send("x").status() == WW_FULL && sender.send_for("x", 1ms).status() == WW_TIMEOUT);
    CHECK(sender.size() == 2 && receiver.size() == 2);

    ww::message one = receiver.recv().value(), two = receiver.recv(patience).value();
    CHECK(one.as<tick>()->id == 1 && two.as<tick>()->price == 99.75 && one.as<double>() == nullptr);
    CHECK(two.sequence() == one.sequence() + 1 && one.delivery_count() == 1 && one.size() == sizeof(tick));
    // What was assigned to is acknowledged, what was moved from is nothing.
    one = std::move(two);
    CHECK(one.as<tick>()->id == 2);
    one.ack();
    {
        // A loan that nobody commits is given back.
        ww::loan forgotten = sender.try_lend(1).value();
    }
    CHECK(sender.room() == 2);
    { ww::sender gone = std::move(sender); }
    CHECK(receiver.is_closed());
    int received = 0;
    while (auto message = receiver.recv())
        received++;
    CHECK(received == 0 && receiver.recv().status() == WW_CLOSED);
}

static void a_message_that_an_exception_drops_comes_again(const ww::segment &segment) {
    ww::channel_options options;
    options.delivery = WW_AT_LEAST_ONCE;
    auto sender = ww::sender::open(segment, "jobs", &options).value();
    auto receiver = ww::receiver::open(segment, "jobs", &options).value();
    sender.send("job").value();
#if defined(__cpp_exceptions)
    try {
        ww::message job = receiver.recv().value();
        throw std::runtime_error("it cannot be done");
    } catch (const std::runtime_error &) {
    }
#else
    receiver.recv().value().nack().value();
#endif
    {
        ww::message again = receiver.recv(patience).value();
        CHECK(again.redelivered() && again.text() == "job");
        again.nack().value();
    }
    {
        // What goes without an exception is acknowledged.
        ww::message last = receiver.recv(patience).value();
        CHECK(last.delivery_count() == 3);
    }
    CHECK(receiver.try_recv().status() == WW_EMPTY);
    receiver.shutdown().value();
    CHECK(sender.is_closed() && sender.send("late").status() == WW_CLOSED);
}

static void patterns(const ww::segment &segment) {
    ww::broadcast_options wide;
    wide.capacity = 2;
    auto publisher = ww::publisher::open(segment, "news", &wide).value();
    auto subscriber = ww::subscriber::open(segment, "news").value();
    CHECK(publisher.groups() == 1 && publisher.publish("a").value() == 1 && publisher.try_publish("b").value() == 1);
    CHECK(subscriber.size() == 2 && subscriber.fd() >= 0);
    publisher.publish("c").value();
    std::uint64_t missed = 0;
    CHECK(subscriber.recv(0ns, &missed).status() == WW_LAGGED && missed == 1);
    CHECK(subscriber.recv().value().text() == "b" && subscriber.try_recv().value().text() == "c");

    auto server = ww::server::open(segment, "upper").value();
    auto client = ww::client::open(segment, "upper").value();
    CHECK(server.fd() >= 0 && server.try_next().status() == WW_EMPTY && server.next(0ns).status() == WW_TIMEOUT);
    std::thread serving([&] {
        ww::request first = server.next().value();
        CHECK(first.text() == "hello" && first.delivery_count() == 1 && first.time_left() == ww::forever);
        first.respond("HELLO").value();
        ww::request second = server.next().value();
        CHECK(!second.is_cancelled() && second.time_left() <= patience);
        second.respond(second.bytes()).value();
        server.next().value().nack().value();
        // One that goes has no response.
        server.next().value();
    });
    CHECK(client.call("hello").value().text() == "HELLO");
    CHECK(client.call("same", patience).value().text() == "same");
    CHECK(client.call("x", patience).status() == WW_UNANSWERED && client.call("x", patience).status() == WW_UNANSWERED);
    serving.join();
    CHECK(!client.is_closed());

    ww::watch_options first;
    first.set_initial("cold");
    auto level = ww::watch_sender::open(segment, "level", &first).value();
    auto seen = ww::watch_receiver::open(segment, "level").value();
    CHECK(seen.get().value().text() == "cold" && seen.changed(0ns).status() == WW_TIMEOUT && seen.fd() >= 0);
    level.send("warm").value();
    seen.changed().value();
    CHECK(seen.get().value().text() == "warm");

    auto semaphore = ww::semaphore::open(segment, "permits", 2).value();
    {
        auto both = semaphore.acquire(2).value();
        CHECK(semaphore.available() == 0 && semaphore.try_acquire().status() == WW_EMPTY);
    }
    semaphore.try_acquire().value().forget().value();
    CHECK(semaphore.available() == 1 && semaphore.add(1) == 1);
    semaphore.shutdown().value();
    CHECK(semaphore.acquire().status() == WW_CLOSED);

    auto notify = ww::notify::open(segment, "bell").value();
    CHECK(notify.wait(0ns).status() == WW_TIMEOUT);
    notify.one().value();
    notify.wait().value();
    notify.all().value();
}

int main() {
    begin();
    {
        ww::segment_options options;
        options.bytes = 8 << 20;
        ww::segment segment = ww::segment::create("cpp", &options).value();
        bytes_are_of_what_has_them();
        results_are_asked_or_throw(segment);
        values_are_written_and_read_in_place(segment);
        a_message_that_an_exception_drops_comes_again(segment);
        patterns(segment);
        segment.check().value();
        CHECK(segment.held_bytes() == 0 && ww::segment::open_or_create("cpp"));
    }
    return finish();
}
