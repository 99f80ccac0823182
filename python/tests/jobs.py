"""What the tests run in other processes: spawn and forkserver import it by name."""

import os
import time

import numpy


def double(tasks, results):
    """Doubles until it gets None."""
    while (task := tasks.get(timeout=60)) is not None:
        results.put(task * 2)


def sums(tasks, results):
    """Of numbered arrays, each sum, and whether it could be written to."""
    while (task := tasks.get(timeout=60)) is not None:
        number, array = task
        results.put((number, int(array.sum()), array.flags.writeable))


def work_until_killed(tasks, results):
    """Says of each task that it was done before it is."""
    while True:
        task = tasks.get(timeout=60)
        results.put(task)
        tasks.task_done()


def put_until_killed(queue):
    """Puts arrays that are all of one number."""
    number = 0
    while True:
        queue.put(numpy.full(100_000, number % 200, "u1"))
        number += 1


def get_and_stay(queue, seen):
    """Gets one object, and does nothing with it."""
    seen.put(queue.get(timeout=60))
    time.sleep(600)


def put_once(queue, value):
    queue.put((value, os.getpid()))
