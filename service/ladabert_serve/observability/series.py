"""Numbers that any thread may change, in memory that all workers share."""

import bisect
import threading

from ladabert_serve.observability.tallies import Key, Tallies


class Counter:
    """One series that grows; any thread may count."""

    def __init__(self, tallies: Tallies, key: Key) -> None:
        self._numbers = tallies.numbers
        self._index = tallies.row(key, 1)
        self._lock = threading.Lock()

    @property
    def value(self) -> float:
        """How often it counted."""
        return self._numbers[self._index]

    def inc(self, by: float = 1) -> None:
        """Add one, or so many."""
        with self._lock:
            self._numbers[self._index] += by


class Gauge:
    """One series that comes and goes; any thread may set it."""

    def __init__(self, tallies: Tallies, key: Key) -> None:
        self._numbers = tallies.numbers
        self._index = tallies.row(key, 1)
        self.set(0)

    def set(self, value: float) -> None:
        """Replace its value."""
        self._numbers[self._index] = value


class Histogram:
    """The series of one histogram; any thread may observe."""

    def __init__(self, tallies: Tallies, key: Key, bounds: tuple[float, ...]) -> None:
        self._numbers = tallies.numbers
        self._first = tallies.row(key, len(bounds) + 2)  # a number for each bucket, +Inf's and the sum
        self._sum = self._first + len(bounds) + 1
        self._bounds = bounds
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        """Count an observation."""
        bucket = self._first + bisect.bisect_left(self._bounds, value)
        with self._lock:
            self._numbers[bucket] += 1
            self._numbers[self._sum] += value
