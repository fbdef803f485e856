"""Uvicorn's HTTP protocol, with a limit on the time for a request's headers and news of callers who hang up."""

import asyncio
from collections.abc import Mapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.app import Application
from service.call import HANG_UPS, Call
from service.direct import DirectCycle, Steps
from service.inference_route import InferenceRoute


class JoinedWrites:
    """A transport that sends what is written in one turn of the event loop as one piece.

    Uvicorn writes a response's head and body apart: two system calls, and two packets that wake the caller twice.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []
        self.is_closing = transport.is_closing

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

    A body has the request's own deadline, and an idle connection uvicorn's keep-alive limit. A POST to an inference
    route that comes in one piece does not go through uvicorn's task, but through a `DirectCycle`.
    """

    header_timeout_s: float
    application: Application
    routes: Mapping[bytes, InferenceRoute]  # by path
    transport: JoinedWrites  # type: ignore[assignment]
    cycle: RequestResponseCycle | DirectCycle  # type: ignore[assignment]
    _header_alarm: asyncio.TimerHandle | None = None
    _within_headers = False
    _hang_ups: set[Call]
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
        for call in list(self._hang_ups):
            call.hung_up()

    def data_received(self, data: bytes) -> None:
        """Expect the rest of the headers, where they did not come in one piece; answer what is whole."""
        super().data_received(data)
        if self._whole is not None:
            self._answer_whole(self._whole)
        if self._within_headers and self._header_alarm is None:
            self._expect_headers()

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
            self.url in self.routes
            and self.parser.get_method() == b"POST"
            and not self.expect_100_continue
            and not self.parser.should_upgrade()
            and (self.cycle is None or self.cycle.response_complete)
        ):
            keep_alive = self.parser.should_keep_alive()
            self._whole = DirectCycle(keep_alive, self._finish)
            self.cycle = self._whole
        else:
            self._leave_to_uvicorn()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body; there is more than one only if it is long."""
        whole = self._whole
        if whole is not None and whole is self.cycle:
            whole.pieces.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Know that the body is whole."""
        whole = self._whole
        if whole is not None and whole is self.cycle:
            whole.more_body = False
        else:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Begin the next request, or wait for one."""
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        if self.flow.read_paused:
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
            assert isinstance(self.cycle, RequestResponseCycle)
            self.cycle.body = bytearray(whole.body)
            return
        route = self.routes[self.url]
        call = Call(route.path, dict(self.headers), whole.receive, whole.send, self._hang_ups, whole)
        Steps(route.respond(call, self.application.services), self.loop, self.transport.close).step()

    def _finish(self, answer: bytes, keep_alive: bool) -> None:
        self.transport.write_whole(answer)
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


def timed_protocol(header_timeout_s: float, application: Application) -> type[TimedProtocol]:
    """Return the protocol with its limit, in seconds; uvicorn makes an instance for each connection."""
    routes = {path.encode(): route for path, route in application.inference.items()}
    settings = {"header_timeout_s": header_timeout_s, "application": application, "routes": routes}
    return type("TimedProtocol", (TimedProtocol,), settings)
