import os
import shutil
import tempfile
import time

import pytest


@pytest.fixture
def place(monkeypatch):
    """A directory of segments of its own, in which nothing may be left."""
    directory = tempfile.mkdtemp(prefix="waterway-test-python-", dir="/dev/shm")
    monkeypatch.setenv("WATERWAY_DIR", directory)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def eventually():
    """Waits until something holds, and fails if it never does."""

    def wait(holds, seconds=30):
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, "it never came to hold"
            time.sleep(0.005)

    return wait


@pytest.fixture
def descriptors():
    """How many descriptors this process has."""
    return lambda: len(os.listdir("/proc/self/fd"))
