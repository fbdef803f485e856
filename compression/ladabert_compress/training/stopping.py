"""Ctrl-C and SIGTERM while a model is trained: they wait for the end of the step, and of its checkpoint."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class StopRequest:
    """The number of the signal that asked for an end, 0 as long as none has."""

    signal_number: int = 0


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Notes the first SIGINT or SIGTERM instead of letting it break off a step; the second one does what it did before.

    Outside of the main thread, to which signals go, nothing is noted.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous: dict[signal.Signals, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def note(number: int, _: FrameType | None) -> None:
        request.signal_number = number
        restore()
        with suppress(OSError):  # past the buffers, which the signal may have found half written
            os.write(sys.stderr.fileno(), b"\nstopping after this step; once more to stop at once\n")

    previous.update({number: signal.signal(number, note) for number in SIGNALS})
    try:
        yield request
    finally:
        restore()
