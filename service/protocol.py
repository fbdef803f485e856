"""Uvicorn's HTTP protocol, with a limit on the time for a request's headers and news of callers who hang up."""

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.call import HANG_UPS


class TimedProtocol(HttpToolsProtocol):
    """One connection; `header_timeout_s` is set on the subclass that `timed_protocol` makes.

    A body has the request's own deadline, and an idle connection uvicorn's keep-alive limit.
    """

    header_timeout_s: float
    _header_alarm: asyncio.TimerHandle | None = None
    _hang_ups: set[Callable[[], None]]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect the first request's headers."""
        super().connection_made(transport)
        self._hang_ups = set()
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever wants to know that the caller hung up."""
        self._expect_nothing()
        super().connection_lost(exc)
        for hung_up in list(self._hang_ups):
            hung_up()

    def on_message_begin(self) -> None:
        """Expect the rest of the headers of which the first bytes came."""
        super().on_message_begin()
        # A task that waits for the disconnect message would cost each request as much as parsing it.
        self.scope["extensions"] = {HANG_UPS: self._hang_ups}  # type: ignore[dict-item]
        if self._header_alarm is None:
            self._expect_headers()

    def on_headers_complete(self) -> None:
        """Go on with the request."""
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
