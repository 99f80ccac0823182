import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from queue import Empty, Full

import jobs
import numpy
import pytest
import waterway
from waterway import Queue

METHODS = ["fork", "spawn", "forkserver"]


def in_child(work):
    """Forks, runs `work` in the child, and says whether it held there."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if work() else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_objects_come_out_as_they_were_put_in_and_in_their_order(place):
    queue = Queue("objects")
    objects = [1, None, "ö", b"", b"raw", 2.5, {"a": [1, (2, 3)]}, bytearray(b"ab"), b"x" * 1_000_000, "y" * 1_000_000, [0] * 100_000]
    for each in objects:
        queue.put(each)
    for each in objects:
        got = queue.get(timeout=10)
        assert got == each and type(got) is type(each)


def test_a_full_queue_and_an_empty_one_say_so(place):
    queue = Queue("small", maxsize=2)
    assert queue.empty() and not queue.full()
    with pytest.raises(Empty):
        queue.get_nowait()
    with pytest.raises(Empty):
        queue.get(timeout=0.01)
    queue.put_nowait(1)
    queue.put(2, timeout=0)
    assert queue.full() and queue.qsize() == 2 and not queue.empty()
    with pytest.raises(Full):
        queue.put_nowait(3)
    with pytest.raises(Full):
        queue.put(3, timeout=0.01)
    with pytest.raises(Full):
        queue.put(3, False)
    assert [queue.get_nowait(), queue.get(False)] == [1, 2]
    with pytest.raises(ValueError):
        queue.get(timeout=float("nan"))


def test_zero_means_many(place):
    queue = Queue("many", maxsize=0)
    for number in range(5000):
        queue.put_nowait(number)
    assert queue.qsize() == 5000 and queue.maxsize == 0


def test_arrays_are_read_only_views_without_a_copy(place):
    segment = waterway.Segment("queues")
    queue = Queue("frames")
    before = segment.held_bytes
    frame = numpy.arange(1_000_000, dtype="u4").reshape(1000, 1000)
    queue.put({"left": frame, "right": frame.T, "none": numpy.empty(0), "small": numpy.ones(3)})
    got = queue.get(timeout=10)
    assert (got["left"] == frame).all() and (got["right"] == frame.T).all() and got["none"].size == 0
    assert not any(array.flags.writeable for array in (got["left"], got["right"], got["small"]))
    assert not any(array.flags.owndata for array in (got["left"], got["right"]))
    assert got["left"].ctypes.data % 64 == 0 and got["right"].ctypes.data % 64 == 0
    with pytest.raises(ValueError):
        got["left"] /= 255
    # The last view keeps the message, and nothing else does.
    row = got["left"][7]
    del got
    assert segment.held_bytes > before + frame.nbytes
    assert (row == frame[7]).all()
    del row
    assert segment.held_bytes == before


def test_copies_can_be_written_to_and_keep_nothing(place):
    segment = waterway.Segment("queues")
    queue = Queue("frames", copy=True)
    before = segment.held_bytes
    queue.put(numpy.ones(100_000))
    got = queue.get(timeout=10)
    assert segment.held_bytes == before
    got /= 2
    assert got.sum() == 50_000


def test_what_cannot_be_pickled_raises_at_once_and_is_not_put(place):
    queue = Queue("lambdas")
    with pytest.raises((pickle.PicklingError, AttributeError)):
        queue.put(lambda: 1)
    assert queue.empty()


def test_what_can_never_fit_raises(place):
    queue = Queue("huge", segment=waterway.Segment("tiny", size=1 << 20, max_size=1 << 20))
    with pytest.raises(ValueError):
        queue.put(bytes(4 << 20))


def test_a_queue_without_memory_is_full_and_is_not_for_ever(place):
    queue = Queue("heavy", segment=waterway.Segment("small", size=2 << 20, max_size=2 << 20))
    put = 0
    with pytest.raises(Full):
        while put < 256:
            queue.put(bytes(100_000), timeout=0.05)
            put += 1
    assert 0 < put < 256
    queue.get_nowait(), queue.get_nowait()
    queue.put(bytes(100_000), timeout=10)


def test_a_closed_queue_raises_and_another_of_its_name_goes_on(place):
    first, second = Queue("jobs"), Queue("jobs")
    first.put(1)
    first.close()
    first.close()
    first.join_thread()
    with pytest.raises(ValueError):
        first.put(2)
    with pytest.raises(ValueError):
        first.get()
    assert second.get(timeout=10) == 1


def test_other_options_are_refused(place):
    queue = Queue("jobs", maxsize=8)
    with pytest.raises(waterway.Mismatch):
        Queue("jobs", maxsize=9)
    with pytest.raises(waterway.Mismatch):
        Queue("jobs", maxsize=8, at_least_once=True)
    with pytest.raises(ValueError):
        Queue("no/name")
    assert queue.maxsize == 8


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"WQ",
        b"hello, world",
        b"WQ2\x01\0\0\0\0",
        b"WQ1\x07\0\0\0\0",
        b"WQ1\x00\x01\0\0\0",
        b"WQ1\x01\xff\xff\xff\xff",
        b"WQ1\x01\x01\0\0\0" + b"\xff" * 32,
        b"WQ1\x01\x01\0\0\0" + (40).to_bytes(8, "little") + (2).to_bytes(8, "little") + b"\xff" * 16 + b"N.",
    ],
)
def test_what_is_not_of_a_queue_is_refused(place, message):
    queue = Queue("jobs", maxsize=8)
    sender = waterway.Segment("queues").sender("jobs", capacity=8, persistent=True)
    sender.blocking_send(message, timeout=10)
    with pytest.raises(waterway.Damaged):
        queue.get(timeout=10)
    queue.put(1)
    assert queue.get(timeout=10) == 1


@pytest.mark.parametrize("method", METHODS)
def test_workers_of_every_kind_share_a_queue(place, method):
    context = multiprocessing.get_context(method)
    tasks, results = Queue("tasks", 16), Queue("results", 16)
    workers = [context.Process(target=jobs.double, args=(tasks, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for number in range(10):
        tasks.put(number)
    got = sorted(results.get(timeout=60) for _ in range(10))
    for _ in workers:
        tasks.put(None)
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert got == [2 * number for number in range(10)]


@pytest.mark.parametrize("copy", [False, True])
def test_arrays_go_to_other_processes(place, copy):
    context = multiprocessing.get_context("spawn")
    tasks, results = Queue("tasks", 4, copy=copy), Queue("results", 4)
    worker = context.Process(target=jobs.sums, args=(tasks, results))
    worker.start()
    for number in range(20):
        tasks.put((number, numpy.full((64, 1024), number, "u1")))
        assert results.get(timeout=60) == (number, 64 * 1024 * number, copy)
    tasks.put(None)
    worker.join(60)
    assert worker.exitcode == 0


def test_a_pickled_queue_is_the_same_queue(place):
    segment = waterway.Segment("others", size=4 << 20, max_size=8 << 20)
    queue = Queue("jobs", 5, copy=True, at_least_once=True, max_deliveries=3, segment=segment)
    again = pickle.loads(pickle.dumps(queue))
    queue.put(7)
    assert again.get(timeout=10) == 7 and again.maxsize == 5
    again.task_done()
    assert pickle.loads(pickle.dumps(segment)).path == segment.path


def test_a_queue_stays_where_it_is_whatever_the_environment_says_later(place, monkeypatch):
    queue = Queue("jobs")
    packed = pickle.dumps(queue)
    monkeypatch.setenv("WATERWAY_DIR", place + "-other")

    def child():
        queue.put("inherited")
        pickle.loads(packed).put("unpickled")
        return True

    assert in_child(child) == 0
    assert [queue.get(timeout=10), queue.get(timeout=10)] == ["inherited", "unpickled"]
    assert not os.path.exists(place + "-other")


def test_a_forked_child_opens_the_queue_anew(place):
    queue = Queue("jobs")
    queue.put(numpy.ones(1000))
    mine = queue.get(timeout=10)

    def child():
        queue.put(os.getpid())
        queue.put(os.getppid())
        return True

    assert in_child(child) == 0
    children = queue.get(timeout=10)
    assert queue.get(timeout=10) == os.getpid() != children
    # Nor has the end of the child taken anything of its parent's.
    assert mine.sum() == 1000


def test_threads_fork_while_others_wait(place):
    queue, other = Queue("jobs"), Queue("others")
    got = []
    waiting = threading.Thread(target=lambda: got.append(queue.get(timeout=60)))
    waiting.start()

    def child():
        other.put(os.getpid())
        return queue.empty()

    for _ in range(20):
        assert in_child(child) == 0
        other.get(timeout=10)
    queue.put("done")
    waiting.join(60)
    assert got == ["done"]


def test_whoever_waits_lets_other_threads_run(place):
    queue, back = Queue("there", 1), Queue("back", 1)
    echo = threading.Thread(target=lambda: [back.put(queue.get(timeout=60)) for _ in range(200)])
    echo.start()
    for number in range(200):
        queue.put(number, timeout=60)
        assert back.get(timeout=60) == number
    echo.join(60)


@pytest.mark.parametrize("wait", ["queue.get()", "queue.put(1)", "receiver.blocking_recv()", "sender.blocking_send(b'2')"])
def test_ctrl_c_ends_a_wait(place, wait):
    program = f"""
import signal, waterway
signal.signal(signal.SIGINT, signal.default_int_handler)
queue = waterway.Queue("jobs", 1)
segment = waterway.Segment("bytes")
sender, receiver = segment.sender("bytes", capacity=1), segment.receiver("bytes", capacity=1)
if "put" in {wait!r}: queue.put(0)
if "send" in {wait!r}: sender.try_send(b"1")
print("waiting", flush=True)
try:
    {wait}
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "waiting\n"
    # Whether it waits already or not.
    time.sleep(random.random() * 0.1)
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=60)[0] == "interrupted\n"
    assert child.returncode == 0


def test_at_least_once_keeps_an_object_until_its_task_is_done(place):
    segment = waterway.Segment("queues")
    first, second = Queue("jobs", at_least_once=True), Queue("jobs", at_least_once=True)
    once = Queue("others")
    before = segment.held_bytes
    for number in range(3):
        first.put(number)
    assert [first.get(timeout=10) for _ in range(3)] == [0, 1, 2]
    first.task_done()
    first.close()
    assert [second.get(timeout=10), second.get(timeout=10)] == [1, 2]
    second.task_done()
    second.task_done()
    with pytest.raises(ValueError):
        second.task_done()
    with pytest.raises(ValueError):
        once.task_done()
    assert second.empty() and segment.held_bytes == before


def test_what_a_killed_worker_has_got_comes_back(place):
    context = multiprocessing.get_context("fork")
    tasks, seen = Queue("tasks", at_least_once=True), Queue("seen")
    tasks.put("precious")
    worker = context.Process(target=jobs.get_and_stay, args=(tasks, seen))
    worker.start()
    assert seen.get(timeout=60) == "precious"
    worker.kill()
    worker.join(60)
    assert tasks.get(timeout=60) == "precious"
    tasks.task_done()


@pytest.mark.parametrize("method", METHODS)
def test_every_task_is_done_though_workers_are_killed_all_the_time(place, method):
    context = multiprocessing.get_context(method)
    tasks = Queue("tasks", 64, at_least_once=True, max_deliveries=10_000)
    results = Queue("results", 64)
    total, kills = 400, 8 if method == "fork" else 4

    def start():
        worker = context.Process(target=jobs.work_until_killed, args=(tasks, results))
        worker.start()
        return worker

    workers = [start(), start()]
    feeding = threading.Thread(target=lambda: [tasks.put(number, timeout=40) for number in range(total)])
    feeding.start()
    done = set()
    for kill in range(kills):
        while len(done) < (kill + 1) * total // (kills + 1):
            done.add(results.get(timeout=40))
        victim = workers.pop(random.randrange(2))
        victim.kill()
        victim.join(60)
        workers.append(start())
    while len(done) < total:
        done.add(results.get(timeout=40))
    feeding.join(60)
    for worker in workers:
        worker.kill()
        worker.join(60)
    assert done == set(range(total))


def test_whoever_is_killed_while_it_puts_leaves_no_torn_object_and_no_memory(place, eventually):
    context = multiprocessing.get_context("fork")
    segment = waterway.Segment("queues")
    queue = Queue("frames", 8)
    before = segment.held_bytes
    for _ in range(10):
        worker = context.Process(target=jobs.put_until_killed, args=(queue,))
        worker.start()
        for number in range(random.randrange(1, 20)):
            frame = queue.get(timeout=60)
            assert (frame == number % 200).all()
        worker.kill()
        worker.join(60)
        del frame
        while True:
            try:
                frame = queue.get(timeout=0.1)
            except Empty:
                break
            assert (frame == frame[0]).all()
            del frame
    eventually(lambda: segment.held_bytes == before)
    assert segment.check() == []


def test_nothing_leaks(place, descriptors):
    segment = waterway.Segment("queues")
    keep = Queue("kept")
    for round in range(3):
        queue = Queue("jobs", 32)
        for number in range(3000):
            queue.put((number, numpy.full(100, number % 100, "u1")))
            number_again, array = queue.get(timeout=10)
            assert number_again == number and array[99] == number % 100
        again = pickle.loads(pickle.dumps(queue))
        again.put(bytes(100_000))
        queue.get(timeout=10)
        del array, queue, again
        if round == 0:
            before = descriptors(), segment.held_bytes
    assert (descriptors(), segment.held_bytes) == before
    assert segment.check() == [] and keep.empty()


def test_a_process_that_ends_leaves_nothing_behind(place):
    program = """
import numpy, waterway
segment = waterway.Segment("bytes")
sender, receiver = segment.sender("bytes"), segment.receiver("bytes")
queue = waterway.Queue("jobs")
queue.put(numpy.ones(1000)); queue.put(2)
array = queue.get()
sender.try_send(b"1")
message = receiver.try_recv()
view = memoryview(message)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert [name for name in os.listdir(place) if not name.startswith(".")] == []


def test_the_type_of_what_it_carries_can_be_said():
    assert Queue[int].__origin__ is Queue
