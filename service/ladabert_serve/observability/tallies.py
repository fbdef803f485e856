"""Counts in memory that worker processes share: each one counts in its own part, and a scrape reads all of them."""

import json
import mmap
import os
import threading
from collections.abc import Mapping
from multiprocessing import reduction
from typing import Any, NamedTuple

from ladabert_serve.errors import StartError

CAPACITY_BYTES = 1 << 22  # of one worker: address space, of which only what holds rows takes memory
WORD_BYTES = 8
USED, COUNTING, FIRST_ROW = 0, 1, 2  # words: how many are in use, whether a process counts here, then the rows

Key = tuple[str, ...]


class Tallies:
    """Rows of float64 numbers, each under a key; one process writes them and any other may read.

    Nobody waits for anybody: rows are added and never moved or removed, a number is written in one store, and a row
    counts as there only when it is complete. So a process that is stopped or killed at any moment leaves numbers
    that can be read. Numbers are not read at one moment: what belongs together must follow from one number.

    A row is two words (its key's length in words, how many numbers it has), the key as JSON, and the numbers.
    """

    def __init__(self, memory: memoryview) -> None:
        self._bytes = memory
        self._words = memory.cast("q")
        self.numbers = memory.cast("d")
        self._rows: dict[Key, range] = {}
        self._read_until = FIRST_ROW
        self._lock = threading.Lock()  # of this process's own threads, for `_rows`

    @property
    def counting(self) -> bool:
        """Whether a process counts here."""
        return self._words[COUNTING] == 1

    def begin(self) -> None:
        """Count here from now on, on top of what an earlier process counted."""
        self._words[COUNTING] = 1

    def end(self) -> None:
        """Note that the process that counted here has ended; its counts stay."""
        self._words[COUNTING] = 0

    def rows(self) -> Mapping[Key, range]:
        """Return where in `numbers` each row stands."""
        with self._lock:
            self._read_rows()
            return dict(self._rows)

    def row(self, key: Key, width: int) -> int:
        """Return where the row of this key begins, after adding it with zeros if need be; raises StartError."""
        with self._lock:
            self._read_rows()
            if key not in self._rows:
                self._add(key, width)
                self._read_rows()
            return self._rows[key].start

    def _read_rows(self) -> None:
        """Take in the rows that were added since the last time, by whichever process."""
        used = self._words[USED]
        while self._read_until < used:
            begin = self._read_until + 2
            first = begin + self._words[begin - 2]
            self._read_until = first + self._words[begin - 1]
            key = json.loads(bytes(self._bytes[begin * WORD_BYTES : first * WORD_BYTES]))
            self._rows[tuple(key)] = range(first, self._read_until)

    def _add(self, key: Key, width: int) -> None:
        text = json.dumps(key).encode()
        text += b" " * (-len(text) % WORD_BYTES)
        begin = self._read_until + 2
        first = begin + len(text) // WORD_BYTES
        if first + width > len(self._words):
            raise StartError("the metrics have no room for so many models and labels; serve fewer")
        self._words[begin - 2], self._words[begin - 1] = first - begin, width
        self._bytes[begin * WORD_BYTES : first * WORD_BYTES] = text
        for index in range(first, first + width):
            self.numbers[index] = 0.0  # a process that was killed here may have left something
        self._words[USED] = first + width


class WorkerTallies(NamedTuple):
    """One worker's own tallies, and those of all workers."""

    own: Tallies
    everyone: tuple[Tallies, ...]


class SharedTallies:
    """The tallies of so many workers, in memory that a worker process has in common with the one that starts it.

    The memory has no name, so nothing is left of it when the last process that has it open ends, however it ends.
    """

    def __init__(self, workers: int, descriptor: int | None = None) -> None:
        size = workers * CAPACITY_BYTES
        if descriptor is None:
            descriptor = os.memfd_create("ladabert-metrics")
            os.truncate(descriptor, size)
        self.descriptor = descriptor
        self.everyone = _divide(mmap.mmap(descriptor, size))

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to a process that is being started."""
        return _receive, (len(self.everyone), reduction.DupFd(self.descriptor))

    def of_worker(self, place: int) -> WorkerTallies:
        """Return the tallies as one worker sees them."""
        return WorkerTallies(self.everyone[place], self.everyone)


def own_tallies() -> WorkerTallies:
    """Return tallies in memory of this process alone."""
    (own,) = _divide(mmap.mmap(-1, CAPACITY_BYTES))
    return WorkerTallies(own, (own,))


def _receive(workers: int, descriptor: Any) -> SharedTallies:
    return SharedTallies(workers, descriptor.detach())


def _divide(memory: mmap.mmap) -> tuple[Tallies, ...]:
    return tuple(Tallies(memoryview(memory)[at : at + CAPACITY_BYTES]) for at in range(0, len(memory), CAPACITY_BYTES))
