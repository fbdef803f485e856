"""Uvicorn's HTTP protocol, closing a connection that does not send a request's headers in time."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class TimedProtocol(HttpToolsProtocol):
    """One connection; `header_timeout_s` is set on the subclass that `timed_protocol` makes.

    A body has the request's own deadline, and an idle connection uvicorn's keep-alive limit.
    """

    header_timeout_s: float
    _header_alarm: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect the first request's headers."""
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        self._expect_nothing()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Expect the rest of the headers of which the first bytes came."""
        super().on_message_begin()
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
