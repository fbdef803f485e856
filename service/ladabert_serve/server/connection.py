"""One HTTP connection: uvicorn's parser and request cycle behind limits on headers, time and what is held back."""

import asyncio
import select
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import httptools
from starlette.responses import Response
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ladabert_serve.errors import HeadersTooLargeError, MalformedRequestError, RequestError, TooManyConnectionsError
from ladabert_serve.http.call import HANG_UPS
from ladabert_serve.http.middleware import new_request_id
from ladabert_serve.http.problem import problem_response
from ladabert_serve.server.connections import Connections

HELD_BYTES = 16384  # of the next requests held back while one is answered, before nothing more is read
BODY_PIECE_BYTES = 65536
UNSENT_BYTES = 16384  # of answers that wait to be taken, before no more is written
HEAD_PIECE_BYTES = 512  # parsed at a time: few pipelined requests begin in it
HEADS = tuple(b"HTTP/1.1 %d" % digit for digit in range(2, 6))  # of answers; nothing follows the head of `100 Continue`
END_OF_CHUNKS = b"\r\n\r\n"
FRAMING_PER_BODY_BYTE = 1  # on top of the limit on headers; tiny chunks are more work than their body
LINGER_S = 2.0  # how long a refused caller may go on sending: a reset would destroy the answer
DRAINING_WRITE_S = 2.0  # the write time-out once the server shuts down


class JoinedWrites:
    """A transport that sends an answer's head together with what follows it.

    Uvicorn writes head and body apart: two system calls, and two packets that wake the caller twice.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def write(self, data: bytes) -> None:
        """Send what is no head, and the head before it."""
        if self._transport.is_closing():
            return
        if data.startswith(HEADS):
            self.flush()
            self._head = data
        else:
            self._transport.write(self._head + data)
            self._head = b""

    def flush(self) -> None:
        """Send a head that nothing follows."""
        if self._head and not self._transport.is_closing():
            self._transport.write(self._head)
        self._head = b""

    def close(self) -> None:
        """Send what was written, then close."""
        self.flush()
        self._transport.close()

    def write_eof(self) -> None:
        """Send what was written, then end this direction."""
        self.flush()
        self._transport.write_eof()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class ReadingFlow(FlowControl):
    """Flow control that reads on only while the connection holds little: uvicorn resumes with each part of a body."""

    def __init__(self, transport: asyncio.Transport, held: bytearray) -> None:
        super().__init__(transport)
        self._held = held

    def resume_reading(self) -> None:
        """Read on, if there is room."""
        if len(self._held) <= HELD_BYTES:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """Uvicorn's protocol with bounds; `bounded_protocol` names the table that all connections of a server share.

    The bytes of a next request wait unparsed while one is being answered, and when they are more than one read, they
    wait in the kernel. So a caller who pipelines gets one request's turn like everybody else.
    """

    table: Connections

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._hang_ups: set[Callable[[], None]] = set()
        self._held = bytearray()  # received, not parsed yet
        self._in_head = self._in_message = self._in_replay = False
        self._is_chunked = self._needs_parser = False
        self._framing_bytes = 0  # of this message: all but its body
        self._piece_bytes = 0  # that are being parsed
        self._body_bytes_left = 0
        self._max_header_bytes = self.table.settings.max_header_bytes
        self._allowed_framing_bytes = self._max_header_bytes
        self._answered: RequestResponseCycle | None = None  # the request whose turn it is
        self._since = self.table.clock()  # when it became idle, or its headers began
        self._refusal: RequestError | None = None  # nothing is parsed any more; sent once what was begun is answered
        self._refused_at: float | None = None
        self._unsent = 0  # bytes of answers at the last check
        self._unsent_since = 0.0

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def abort(self) -> None:
        """End the connection at once."""
        self.transport.abort()

    # What the transport calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.set_write_buffer_limits(UNSENT_BYTES)
        writes: Any = JoinedWrites(transport)  # it passes on what it does not have itself
        self._writes: JoinedWrites = writes
        super().connection_made(writes)
        self.flow = ReadingFlow(transport, self._held)
        if not self.table.add(self):
            self._refuse(TooManyConnectionsError(self.table.settings.max_connections))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the requests in progress that the caller hung up."""
        self.table.remove(self)
        self._held.clear()
        if self._answered is not None and not self._answered.response_complete:
            self._answered.disconnected = True  # uvicorn does so only for the last of several pipelined requests
            self._answered.message_event.set()
        super().connection_lost(exc)
        for hang_up in list(self._hang_ups):
            hang_up()

    def data_received(self, data: bytes) -> None:
        """Parse what belongs to the current request and hold the rest back."""
        if self._refusal is not None:
            return
        if self._held or self._has_to_wait or self._is_chunked or len(data) > self._piece_size():
            self._held += data
        else:  # without a copy
            self._parse(data)
        self._parse_held()

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._in_replay:
            return
        super().on_message_begin()
        self.scope["extensions"] = {HANG_UPS: {"callbacks": self._hang_ups}}
        self._in_head = self._in_message = True
        self._framing_bytes = 0
        self._allowed_framing_bytes = self._max_header_bytes
        self._since = self.table.clock()

    def on_headers_complete(self) -> None:
        self._in_head = False
        headers, self.headers = self.headers, []  # what is added from now on are trailers, which nobody reads
        if self._in_replay:
            self._in_replay = False
            return
        framing = dict(headers)
        self._is_chunked = b"transfer-encoding" in framing
        self._body_bytes_left = int(framing.get(b"content-length", 0))  # the parser lets digits through only
        if (
            self._framing_bytes + self._piece_bytes > self._max_header_bytes  # which may be of other messages, too
            and len(self.url) + sum(len(name) + len(value) + 4 for name, value in headers) > self._max_header_bytes
        ):
            raise HeadersTooLargeError(self._max_header_bytes)
        super().on_headers_complete()
        if not self.pipeline:
            self._answered = self.cycle
        if self.table.draining:
            self.expect_no_more()

    def on_body(self, body: bytes) -> None:
        self._framing_bytes -= len(body)
        self._body_bytes_left -= len(body)
        self._allowed_framing_bytes += FRAMING_PER_BODY_BYTE * len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():  # its body comes now: see `_ignore_upgrade`
            return
        self._in_message = False
        super().on_message_complete()
        if self._is_chunked and self.cycle.keep_alive and not self.parser.should_keep_alive():
            self._needs_parser = True  # a trailer said `connection: close`, and this one takes nothing more

    # What uvicorn's request cycle and server call.

    def on_response_complete(self) -> None:
        """Go on with the next request."""
        self._answered = self.pipeline[-1][0] if self.pipeline else None
        self._writes.flush()
        if self.pipeline:
            super().on_response_complete()
        else:  # without uvicorn's timer for each request, which costs as much as parsing it: `check` stands for it
            self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._since = self.table.clock()
        self.table.used(self)
        if self._refusal is not None:
            self._refuse(self._refusal)
        else:
            self.flow.resume_reading()
            self._parse_held()

    def expect_no_more(self) -> None:
        """Close the connection after the answer to the last request that came."""
        if self.busy:
            self.cycle.keep_alive = False

    def check(self, now: float) -> None:
        """End the connection when it takes too long; called a few times a second."""
        settings = self.table.settings
        if self._is_stuck(now):
            self.transport.abort()
        elif self._refused_at is not None:
            if now - self._refused_at >= LINGER_S:
                self.transport.abort()
        elif self.busy:
            if self.flow.read_paused and self._caller_left():
                self.transport.abort()
        elif now - self._since >= (settings.header_timeout_s if self._expects_headers else settings.keep_alive_s):
            self.transport.abort() if self.transport.is_closing() else self.transport.close()

    # How.

    @property
    def _expects_headers(self) -> bool:
        return self.cycle is None or self._in_message

    def _is_stuck(self, now: float) -> bool:
        """Return whether the caller has taken nothing of what was written for the write time-out."""
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent < self._unsent or self._unsent == 0:
            self._unsent_since = now
        self._unsent = unsent
        limit_s = DRAINING_WRITE_S if self.table.draining else self.table.settings.write_timeout_s
        return unsent > 0 and now - self._unsent_since >= limit_s

    def _caller_left(self) -> bool:
        """Return whether the caller closed a connection from which nothing is read at the moment."""
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))

    @property
    def _has_to_wait(self) -> bool:
        """Whether what comes next belongs to a request that has to wait for another's answer."""
        return bool(self.pipeline) or (self.busy and not self._in_message)

    def _parse_held(self) -> None:
        while self._held and self._refusal is None and not self._has_to_wait and not self.transport.is_closing():
            size = self._piece_size()
            if size == 0:
                break
            piece = bytes(self._held[:size])
            del self._held[:size]
            self._parse(piece)
        if self._has_to_wait and not self.transport.is_closing():
            if len(self._held) > HELD_BYTES:
                self.flow.pause_reading()
            else:  # uvicorn pauses for a pipelined request, and would not see a caller hang up
                self.flow.resume_reading()

    def _piece_size(self) -> int:
        """Return how many bytes to parse now; a message with a body ends with a piece."""
        if self._in_head or not self._in_message:
            return HEAD_PIECE_BYTES
        if not self._is_chunked:
            return min(self._body_bytes_left, BODY_PIECE_BYTES)
        end = self._held.find(END_OF_CHUNKS)
        if end >= 0:
            return end + len(END_OF_CHUNKS)
        unfinished = next(size for size in (3, 2, 1, 0) if self._held.endswith(END_OF_CHUNKS[:size]))
        return len(self._held) - unfinished

    def _parse(self, piece: bytes) -> None:
        self._piece_bytes = len(piece)
        if self._needs_parser:
            self._needs_parser = False
            self.parser = httptools.HttpRequestParser(self)
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._held[:0] = piece[upgrade.args[0] :]
            self._ignore_upgrade()
        except httptools.HttpParserError as error:
            cause = error.__context__  # what a callback raised
            self._refuse(cause if isinstance(cause, RequestError) else MalformedRequestError())
            return
        self._framing_bytes += len(piece)
        if self._framing_bytes > self._allowed_framing_bytes:
            self._refuse(HeadersTooLargeError(self._max_header_bytes))

    def _ignore_upgrade(self) -> None:
        """Go on with the body of a request that asks for another protocol, as HTTP allows.

        The parser leaves that body alone; another one, which only hears how the body is framed, reads it.
        """
        framing = [header for header in self.scope["headers"] if header[0] in (b"content-length", b"transfer-encoding")]
        self.parser = httptools.HttpRequestParser(self)
        self._in_replay = True
        self.parser.feed_data(b"POST / HTTP/1.1\r\n" + b"".join(b"%b: %b\r\n" % header for header in framing) + b"\r\n")

    def _refuse(self, error: RequestError) -> None:
        """Answer what cannot be read, after the requests before it, and close."""
        self._refusal = error
        self._held.clear()
        self.flow.pause_reading()
        if self.busy and not (self._in_message and self.cycle.more_body and not self.pipeline):
            return
        if self.busy:  # with the request that cannot be read, as if its caller had hung up
            self.cycle.disconnected = True
            self.cycle.waiting_for_100_continue = False
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.abort()
        if not self.transport.is_closing():
            self._refused_at = self.table.clock()
            request_id = new_request_id()
            answer = problem_response(error, request_id)
            answer.headers["x-request-id"] = request_id
            self.transport.write(_as_http(answer))
            if self.transport.can_write_eof():
                self.transport.write_eof()  # and go on reading for LINGER_S
            self.flow.resume_reading()


def _as_http(answer: Response) -> bytes:
    """Return an answer that closes the connection as bytes."""
    phrase = HTTPStatus(answer.status_code).phrase
    head = [f"HTTP/1.1 {answer.status_code} {phrase}\r\nconnection: close\r\n".encode()]
    head += [b"%b: %b\r\n" % header for header in answer.raw_headers]
    return b"".join([*head, b"\r\n", bytes(answer.body)])


def bounded_protocol(connections: Connections) -> type[Connection]:
    """Return the protocol of these connections; uvicorn makes an instance for each."""

    class BoundedConnection(Connection):
        table = connections

    return BoundedConnection
