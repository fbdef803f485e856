"""Counts in memory that worker processes share: each one counts in its own part, and a scrape reads all of them."""

import contextlib
import json
import mmap
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing import reduction
from typing import Any, NamedTuple, TypeVar

from ladabert_serve.errors import StartError

CAPACITY_BYTES = 1 << 22  # of one worker: address space, of which only what holds rows takes memory
WORD_BYTES = 8
# Words: how many are in use, whether a process counts here, how often removals began or ended; then the rows.
USED, COUNTING, CHANGES, FIRST_ROW = 0, 1, 2, 3
WIDTH_BITS = 32  # of a row's first word; the rest is its key's length
PATIENCE = 100  # readings of which a removal spoils each, before one is taken as it is: its process has stopped

Key = tuple[str, ...]
Rows = Mapping[Key, range]
Taken = TypeVar("Taken")


class Tallies:
    """Rows of float64 numbers, each under a key; one process writes them and any other may read.

    Nobody waits for anybody: rows are never moved, a number is written in one store, and so is the word that makes or
    removes a row. So a process that is stopped or killed at any moment leaves numbers that can be read. Numbers are
    not read at one moment: what belongs together must follow from one number. Only a removal changes several numbers
    that belong together; `CHANGES` is odd meanwhile, and a reader reads again.

    A row is one word (its key's length in words and how many numbers it has), the key as JSON, and the numbers. A row
    that was removed is a gap: its first word is the negative number of its words. New rows fill gaps.
    """

    def __init__(self, memory: memoryview) -> None:
        self._bytes = memory
        self._words = memory.cast("q")
        self.numbers = memory.cast("d")
        self._rows: dict[Key, range] = {}
        self._read_until = FIRST_ROW
        self._changes_read = 0  # the value of CHANGES for which `_rows` is true
        self._lock = threading.Lock()  # of this process's own threads, for `_rows`

    @property
    def counting(self) -> bool:
        """Whether a process counts here."""
        return self._words[COUNTING] == 1

    def begin(self) -> None:
        """Count here from now on, on top of what an earlier process counted."""
        self._words[CHANGES] += 2 - self._words[CHANGES] % 2  # odd: an earlier process was killed during a removal
        self._words[COUNTING] = 1

    def end(self) -> None:
        """Note that the process that counted here has ended; its counts stay."""
        self._words[COUNTING] = 0

    def rows(self) -> Rows:
        """Return where in `numbers` each row stands."""
        with self._lock:
            self._read_rows()
            return dict(self._rows)

    def read(self, take: Callable[[Rows], Taken]) -> Taken:
        """Return what `take` makes of the rows, at a moment at which nothing is being removed."""
        for _ in range(PATIENCE):
            changes = self._words[CHANGES]
            taken = take(self.rows())
            if changes % 2 == 0 and changes == self._words[CHANGES]:
                break
        return taken

    def row(self, key: Key, width: int) -> int:
        """Return where the row of this key begins, after adding it with zeros if need be; raises StartError."""
        with self._lock:
            self._read_rows()
            if key not in self._rows:
                self._add(key, width)
            return self._rows[key].start

    @contextlib.contextmanager
    def removing(self, keys: Iterable[Key]) -> Iterator[None]:
        """Remove the rows of these keys; numbers that belong to theirs are to be changed inside."""
        with self._lock:
            self._read_rows()
            self._words[CHANGES] += 1
            yield
            for key in keys:
                place = self._rows.pop(key)
                begin = place.start - 1 - len(_key_text(key)) // WORD_BYTES
                self._words[begin] = begin - place.stop
            self._join_gaps()
            self._words[CHANGES] += 1
            self._changes_read = self._words[CHANGES]

    def _read_rows(self) -> None:
        """Take in what has changed since the last time, by whichever process."""
        changes = self._words[CHANGES]
        if changes != self._changes_read:  # before the place that was reached
            self._rows, self._read_until, self._changes_read = {}, FIRST_ROW, changes
        for begin, end, is_gap in self._walk(self._read_until):
            if not is_gap:
                first = begin + 1 + (self._words[begin] >> WIDTH_BITS)
                key = json.loads(bytes(self._bytes[(begin + 1) * WORD_BYTES : first * WORD_BYTES]))
                self._rows[tuple(key)] = range(first, end)
            self._read_until = end

    def _walk(self, begin: int) -> Iterator[tuple[int, int, bool]]:
        """Yield where each row or gap begins and ends, and whether it is a gap."""
        used = self._words[USED]
        while begin < used:
            head = self._words[begin]
            end = begin - head if head < 0 else begin + 1 + (head >> WIDTH_BITS) + head % (1 << WIDTH_BITS)
            yield begin, end, head < 0
            begin = end

    def _add(self, key: Key, width: int) -> None:
        text = _key_text(key)
        size = 1 + len(text) // WORD_BYTES + width
        gaps = ((begin, end) for begin, end, is_gap in self._walk(FIRST_ROW) if is_gap and end - begin >= size)
        used = max(FIRST_ROW, self._words[USED])
        begin, end = next(gaps, (used, len(self._words)))
        first = begin + size - width
        if begin + size > end:
            raise StartError("the metrics have no room for so many models and labels; serve fewer")
        fills_gap = begin < used
        if fills_gap and begin + size < end:
            self._words[begin + size] = begin + size - end  # what is left of it
        self._bytes[(begin + 1) * WORD_BYTES : first * WORD_BYTES] = text
        for index in range(first, first + width):
            self.numbers[index] = 0.0  # a process that was killed here may have left something
        self._words[begin] = (first - begin - 1) << WIDTH_BITS | width
        if fills_gap:
            self._words[CHANGES] += 2
            self._changes_read = self._words[CHANGES]
        else:
            self._words[USED] = self._read_until = begin + size
        self._rows[key] = range(first, begin + size)

    def _join_gaps(self) -> None:
        """Make one gap of those that follow each other."""
        gap = None
        for begin, end, is_gap in self._walk(FIRST_ROW):
            if is_gap and gap is not None:
                self._words[gap] = gap - end
            else:
                gap = begin if is_gap else None


def _key_text(key: Key) -> bytes:
    """Return a key as JSON that fills words."""
    text = json.dumps(key).encode()
    return text + b" " * (-len(text) % WORD_BYTES)


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
