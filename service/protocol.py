"""Uvicorn's HTTP protocol, with a limit on the time for a request's headers and news of callers who hang up."""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.call import HANG_UPS


class JoinedWrites:
    """A transport that sends what is written in one turn of the event loop as one piece.

    Uvicorn writes a response's head and body apart: two system calls, and two packets that wake the caller twice.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send with what else is written before the loop turns."""
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)

    def close(self) -> None:
        """Send what was written, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        data = b"".join(self._pieces)
        self._pieces.clear()
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class TimedProtocol(HttpToolsProtocol):
    """One connection; `header_timeout_s` is set on the subclass that `timed_protocol` makes.

    A body has the request's own deadline, and an idle connection uvicorn's keep-alive limit.
    """

    header_timeout_s: float
    _header_alarm: asyncio.TimerHandle | None = None
    _within_headers = False
    _hang_ups: set[Callable[[], None]]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect the first request's headers."""
        super().connection_made(JoinedWrites(transport, self.loop))  # type: ignore[arg-type]
        self._hang_ups = set()
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever wants to know that the caller hung up."""
        self._expect_nothing()
        super().connection_lost(exc)
        for hung_up in list(self._hang_ups):
            hung_up()

    def data_received(self, data: bytes) -> None:
        """Expect the rest of the headers, where they did not come in one piece."""
        super().data_received(data)
        if self._within_headers and self._header_alarm is None:
            self._expect_headers()

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._within_headers = True
        # A task that waits for the disconnect message would cost each request as much as parsing it.
        self.scope["extensions"] = {HANG_UPS: self._hang_ups}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        """Go on with the request."""
        self._within_headers = False
        if self._header_alarm is not None:
            self._expect_nothing()
        super().on_headers_complete()

    def _expect_headers(self) -> None:
        self._header_alarm = self.loop.call_later(self.header_timeout_s, self.transport.close)

    def _expect_nothing(self) -> None:
        if self._header_alarm is not None:
            self._header_alarm.cancel()
            self._header_alarm = None


def timed_protocol(header_timeout_s: float) -> type[TimedProtocol]:
    """Return the protocol with its limit, in seconds: uvicorn makes an instance for each connection."""
    return type("TimedProtocol", (TimedProtocol,), {"header_timeout_s": header_timeout_s})
