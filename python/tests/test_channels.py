import asyncio
import multiprocessing
import os
import queue

import numpy
import pytest
import waterway
from test_queue import in_child
from waterway import Segment


@pytest.fixture
def segment(place):
    return Segment("market")


def ends(segment, name="ticks", **options):
    return segment.sender(name, **options), segment.receiver(name, **options)


def test_bytes_are_read_in_place_and_acknowledged_with_the_last_view(segment):
    before = segment.held_bytes
    sender, receiver = ends(segment)
    opened = segment.held_bytes
    sender.blocking_send(b"hello")
    sender.try_send(numpy.arange(1000, dtype="f8"))
    with pytest.raises(BufferError):
        sender.try_send(numpy.arange(10)[::2])
    message = receiver.blocking_recv(timeout=10)
    assert bytes(message) == b"hello" and len(message) == 5 and message.delivery_count == 1
    message.ack()
    for refused in (message.ack, message.nack, lambda: memoryview(message), lambda: len(message)):
        with pytest.raises(ValueError):
            refused()
    message = receiver.try_recv()
    view = memoryview(message)
    assert view.readonly
    array = numpy.frombuffer(message, "f8")
    assert not array.flags.writeable and array.sum() == 999 * 500
    with pytest.raises(BufferError):
        message.ack()
    del message
    view.release()
    assert segment.held_bytes > opened + 8000 and array[999] == 999
    del array
    assert segment.held_bytes == opened
    sender.close(), receiver.close()
    assert segment.held_bytes == before


def test_what_is_not_there_is_said(segment):
    sender, receiver = ends(segment, capacity=1)
    with pytest.raises(queue.Empty):
        receiver.try_recv()
    with pytest.raises(TimeoutError):
        receiver.blocking_recv(timeout=0.01)
    sender.try_send(b"1")
    with pytest.raises(queue.Full):
        sender.try_send(b"2")
    with pytest.raises(TimeoutError):
        sender.blocking_send(b"2", timeout=0.01)
    assert len(sender) == len(receiver) == 1 == sender.capacity
    with pytest.raises(waterway.Mismatch):
        segment.receiver("ticks", capacity=2)


def test_a_nack_gives_it_back(segment):
    sender, receiver = ends(segment, at_least_once=True)
    sender.try_send(b"job")
    first = receiver.try_recv()
    first.nack()
    again = receiver.blocking_recv(timeout=10)
    assert bytes(again) == b"job" and again.delivery_count == 2 and again.sequence == 0
    again.ack()
    assert len(receiver) == 0


def test_the_other_end_is_told_when_one_closes(segment):
    sender, receiver = ends(segment)
    with sender:
        sender.try_send(b"1")
        sender.try_send(b"2")
    assert [bytes(message) for message in receiver] == [b"1", b"2"]
    assert receiver.blocking_recv() is None
    with pytest.raises(waterway.Closed):
        receiver.try_recv()
    with pytest.raises(waterway.Closed):
        sender.try_send(b"3")
    sender, receiver = ends(segment, "others")
    receiver.close()
    with pytest.raises(waterway.Closed):
        sender.blocking_send(b"1")
    with pytest.raises(waterway.Closed):
        asyncio.run(sender.send(b"1"))


def test_inherited_handles_raise(segment):
    sender, receiver = ends(segment)
    sender.try_send(b"seen")
    sender.try_send(b"kept")
    message = receiver.try_recv()

    def raises(work):
        try:
            work()
        except waterway.Forked:
            return True
        return False

    def child():
        uses = [
            lambda: sender.try_send(b"1"),
            lambda: receiver.try_recv(),
            lambda: receiver.blocking_recv(timeout=1),
            lambda: asyncio.run(receiver.recv()),
            lambda: bytes(message),
            lambda: message.ack(),
            lambda: segment.sender("ticks"),
        ]
        return all(raises(use) for use in uses) and Segment("market").receiver("ticks").try_recv() is not None

    assert in_child(child) == 0
    assert bytes(message) == b"seen"


def test_an_event_loop_receives_what_another_process_sends(segment):
    context = multiprocessing.get_context("fork")

    def send():
        with Segment("market").sender("numbers", capacity=8) as sender:

            async def all_of_them():
                for number in range(500):
                    await sender.send(number.to_bytes(4, "little"))

            asyncio.run(all_of_them())

    async def receive():
        with segment.receiver("numbers", capacity=8) as receiver:
            child = context.Process(target=send)
            child.start()
            got = [int.from_bytes(bytes(message), "little") async for message in receiver]
            child.join(60)
            return got, child.exitcode

    assert asyncio.run(asyncio.wait_for(receive(), 120)) == (list(range(500)), 0)


def test_tasks_share_a_loop(segment):
    sender, receiver = ends(segment, capacity=4)

    async def everybody():
        async def send(number):
            for _ in range(50):
                await sender.send(bytes([number]))

        async def receive():
            got = 0
            async for _ in receiver:
                got += 1
            return got

        receiving = [asyncio.create_task(receive()) for _ in range(3)]
        await asyncio.gather(*(send(number) for number in range(4)))
        sender.close()
        return sum(await asyncio.gather(*receiving))

    assert asyncio.run(asyncio.wait_for(everybody(), 120)) == 200


def test_a_cancelled_task_loses_nothing(segment):
    sender, receiver = ends(segment, capacity=1)

    async def cancelled():
        got, sent = [], 0
        for round in range(300):
            receiving = asyncio.create_task(receiver.recv())
            await asyncio.sleep(0)
            try:
                sender.try_send(b"x")
                sent += 1
            except queue.Full:
                pass
            if round % 2:
                await asyncio.sleep(0)
            receiving.cancel()
            try:
                got.append(await receiving)
            except asyncio.CancelledError:
                pass
        while len(receiver):
            got.append(await receiver.recv())
        # Nor does a sender that is cancelled send.
        await sender.send(b"1")
        sending = asyncio.create_task(sender.send(b"2"))
        await asyncio.sleep(0)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        return len(got), sent, bytes(await receiver.recv()), len(receiver)

    got, sent, last, left = asyncio.run(asyncio.wait_for(cancelled(), 120))
    assert got == sent > 0 and last == b"1" and left == 0


def test_event_loops_leave_no_descriptor(segment, descriptors):
    sender, receiver = ends(segment)

    async def one():
        receiving = asyncio.create_task(receiver.recv())
        await asyncio.sleep(0)
        await sender.send(b"1")
        return bytes(await receiving)

    def run():
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(one()) == b"1"
        loop.close()

    run()
    before = descriptors()
    for _ in range(20):
        run()
    assert descriptors() <= before + 1


def test_a_closed_segment_raises_and_its_ends_go_on(place):
    with Segment("market", size=1 << 20, max_size=1 << 22, dir=place) as segment:
        sender, receiver = ends(segment)
    with pytest.raises(waterway.Closed):
        segment.sender("ticks")
    sender.try_send(b"1")
    assert bytes(receiver.try_recv()) == b"1"
    del sender, receiver
    assert [name for name in os.listdir(place) if not name.startswith(".")] == []


def test_what_a_killed_process_leaves_is_swept(place):
    def child():
        segment = Segment("left")
        os.kill(os.getpid(), 9)
        return segment

    assert in_child(child) == -9
    assert Segment.sweep() == ["left"]
    assert Segment.sweep(dir=place) == []
