"""Processor time of objects that go from one process to another: `waterway.Queue` beside `multiprocessing.Queue`.

    python bench.py [SECONDS]

Both run by turns, several times; each object is written for the occasion and looked at by who receives it. The figure is the processor
time of both processes, of which the least is said. Build with `maturin develop --release` before.
"""

import multiprocessing
import os
import resource
import sys
import tempfile
import time

import numpy
import waterway


def objects(size, number):
    """Of 64 bytes, a tuple of small things; an array otherwise."""
    if size == 64:
        return (number, "a name", [number, 2.5])
    return numpy.full(size, number % 251, "u1")


def is_right(size, number, got):
    return got == objects(size, number) if size == 64 else got[0] == got[-1] == number % 251 and got.size == size


def receive(queue, size, results):
    for number in range(1 << 60):
        got = queue.get()
        if got is None:
            usage = resource.getrusage(resource.RUSAGE_SELF)
            results.put((number, usage.ru_utime + usage.ru_stime))
            return
        if not is_right(size, number, got):
            results.put((number, float("nan")))
            return
        del got


def cost(queue, size, seconds):
    """Microseconds of processor time for each object, of both processes together."""
    results = multiprocessing.Queue()
    receiver = multiprocessing.Process(target=receive, args=(queue, size, results))
    used = time.process_time()
    receiver.start()
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        queue.put(objects(size, number))
        number += 1
    queue.put(None)
    received, theirs = results.get()
    receiver.join()
    if received != number or theirs != theirs:
        sys.exit(f"object {received} of {number} is not what was put")
    return (time.process_time() - used + theirs) / number * 1e6


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        os.environ["WATERWAY_DIR"] = place
        for size in (64, 4 << 10, 1 << 20):
            ours, theirs = [], []
            for round in range(3):
                ours.append(cost(waterway.Queue(f"bench-{size}-{round}", 64), size, seconds))
                theirs.append(cost(multiprocessing.Queue(64), size, seconds))
            least = min(ours), min(theirs)
            print(f"{size:>8} bytes: waterway.Queue {least[0]:8.2f} µs, multiprocessing.Queue {least[1]:8.2f} µs, {least[1] / least[0]:.1f} times")


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    main()
