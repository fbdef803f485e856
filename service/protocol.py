"""Uvicorn's HTTP protocol, with a limit on the time for a request's headers and news of callers who hang up."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.call import BODY, HANG_UPS
from service.direct import DirectCycle, Steps


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

    def write_whole(self, data: bytes) -> None:
        """Send at once, after what was written before."""
        if self._pieces:
            self._pieces.append(data)
        else:
            self._transport.write(data)

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
    """One connection; what is set on the subclass that `timed_protocol` makes is the same for all.

    A body has the request's own deadline, and an idle connection uvicorn's keep-alive limit. A POST to one of `direct`
    that comes in one piece does not go through uvicorn's task, but through a `DirectCycle`.
    """

    header_timeout_s: float
    direct: Mapping[bytes, ASGIApp]
    direct_scope: Mapping[str, Any]
    transport: JoinedWrites  # type: ignore[assignment]
    _header_alarm: asyncio.TimerHandle | None = None
    _within_headers = False
    _hang_ups: set[Callable[[], None]]
    _whole: DirectCycle | None = None  # of the request whose body may come with its headers
    _idle_alarm: asyncio.TimerHandle | None = None
    _idle_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect the first request's headers."""
        super().connection_made(JoinedWrites(transport, self.loop))  # type: ignore[arg-type]
        self._hang_ups = set()
        self._extensions = {HANG_UPS: self._hang_ups}
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever wants to know that the caller hung up."""
        self._expect_nothing()
        if self._idle_alarm is not None:
            self._idle_alarm.cancel()
            self._idle_alarm = None
        super().connection_lost(exc)
        for hung_up in list(self._hang_ups):
            hung_up()

    def data_received(self, data: bytes) -> None:
        """Expect the rest of the headers, where they did not come in one piece; answer what is whole."""
        super().data_received(data)
        if self._within_headers and self._header_alarm is None:
            self._expect_headers()
        if self._whole is not None:
            self._answer_whole(self._whole)

    def on_message_begin(self) -> None:
        """Begin a request; one before it that is whole is answered while its url and headers are here."""
        if self._whole is not None:
            self._answer_whole(self._whole)
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._within_headers = True

    def on_headers_complete(self) -> None:
        """Go on with the request."""
        self._within_headers = False
        if self._header_alarm is not None:
            self._expect_nothing()
        if (
            self.url in self.direct
            and self.parser.get_method() == b"POST"
            and not self.expect_100_continue
            and not self.parser.should_upgrade()
            and (self.cycle is None or self.cycle.response_complete)
        ):
            keep_alive = self.parser.should_keep_alive()
            self._whole = DirectCycle(keep_alive, self.transport.write_whole, self._finished)
            self.cycle = self._whole  # type: ignore[assignment]
        else:
            self._leave_to_uvicorn()

    def on_response_complete(self) -> None:
        """Begin the next request, or wait for one."""
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._idle_since = self.loop.time()
        if self._idle_alarm is None:  # one for many requests: a timer for each would cost as much as parsing it
            self._idle_alarm = self.loop.call_later(self.timeout_keep_alive, self._close_when_idle)

    def _answer_whole(self, whole: DirectCycle) -> None:
        self._whole = None
        if self.transport.is_closing():
            return
        if whole.more_body:  # the rest comes later
            self.cycle = None  # type: ignore[assignment]
            self._leave_to_uvicorn()
            self.cycle.body = bytearray(whole.body)
            return
        endpoint = self.direct[self.url]
        scope = {
            **self.direct_scope,
            "path": self.url.decode(),
            "headers": self.headers,
            "extensions": self._extensions,
            BODY: bytes(whole.body),
        }
        coroutine = endpoint(scope, whole.receive, whole.send)
        Steps(coroutine, self.loop, self.transport.close).step()  # type: ignore[arg-type]

    def _finished(self, keep_alive: bool) -> None:
        if not keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _leave_to_uvicorn(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expects
        self.scope["headers"] = headers
        # A task that waits for the disconnect message would cost each request as much as parsing it.
        self.scope["extensions"] = self._extensions  # type: ignore[typeddict-item]
        super().on_headers_complete()

    def _close_when_idle(self) -> None:
        self._idle_alarm = None
        if self._within_headers or not self.cycle.response_complete:
            return  # the next answer sets the next alarm
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._idle_alarm = self.loop.call_later(left_s, self._close_when_idle)
        elif not self.transport.is_closing():
            self.transport.close()

    def _expect_headers(self) -> None:
        self._header_alarm = self.loop.call_later(self.header_timeout_s, self.transport.close)

    def _expect_nothing(self) -> None:
        if self._header_alarm is not None:
            self._header_alarm.cancel()
            self._header_alarm = None


def timed_protocol(header_timeout_s: float, direct: Mapping[str, ASGIApp], app: ASGIApp) -> type[TimedProtocol]:
    """Return the protocol with its limit, in seconds, and the application's endpoints that need no task, by path.

    Uvicorn makes an instance for each connection.
    """
    settings = {
        "header_timeout_s": header_timeout_s,
        "direct": {path.encode(): endpoint for path, endpoint in direct.items()},
        "direct_scope": {"type": "http", "method": "POST", "app": app},
    }
    return type("TimedProtocol", (TimedProtocol,), settings)
