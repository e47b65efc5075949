"""Thread pools for generators."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def pool_of_generator(threads: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """A thread pool that is left without joining its threads; work that has not begun is cancelled.

    The garbage collector closes a generator that nobody finished, at any point of the program: also while a
    thread starts, under the lock that joining one needs. A join there would never return.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
