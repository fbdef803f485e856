"""A lock with waiters of which the last one wakes first."""

import threading


class LastInFirstOut:
    """Like `threading.Condition`, which wakes who has waited longest.

    The thread that worked last finds its core's caches warm: on one text at a time a second runner that takes
    turns with the first makes each run half as slow again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: list[threading.Lock] = []

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self, timeout_s: float | None) -> bool:
        """Let the lock go until woken, and take it again; return False when `timeout_s` passed instead."""
        waiter = threading.Lock()
        waiter.acquire()
        self._waiters.append(waiter)
        self._lock.release()
        try:
            woken = waiter.acquire(timeout=-1 if timeout_s is None else timeout_s)
        finally:
            self._lock.acquire()
        if not woken:
            if waiter not in self._waiters:  # woken just after the time was over
                return True
            self._waiters.remove(waiter)
        return woken

    def notify(self, count: int = 1) -> None:
        """Wake up to `count` waiters; called with the lock held."""
        for _ in range(min(count, len(self._waiters))):
            self._waiters.pop().release()

    def notify_all(self) -> None:
        """Wake every waiter; called with the lock held."""
        self.notify(len(self._waiters))
