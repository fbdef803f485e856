"""Claims about the load generator, against a server in this process that answers as a test says."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.serving.client import Outcome, Request, Stream, ask, body_of, drive, encode_request

GOOD = b'{"label": "a"}'
Answer = Callable[[bytes], tuple[int, bytes] | None]  # None: hang up


@contextlib.contextmanager
def answering(answer: Answer, retry_after_s: int | None = None) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes

        def do_POST(self) -> None:
            given = answer(self.rfile.read(int(self.headers["content-length"])))
            if given is None:
                self.close_connection = True
                return
            self.send_response(given[0])
            self.send_header("Content-Length", str(len(given[1])))
            if given[0] == 429 and retry_after_s is not None:
                self.send_header("Retry-After", str(retry_after_s))
            self.end_headers()
            self.wfile.write(given[1])

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def run(port: int, *streams: Stream, warm_up_s: float = 10) -> Outcome:
    """Drive with a clock that counts how often it is read, so that the length of a run is a number of turns."""
    clock = itertools.count().__next__
    return drive(port, streams, 4000, warm_up_s, server_cpu_s=lambda: 0.0, clock=clock)


def stream(*kinds: str) -> Stream:
    return Stream(2, [Request(encode_request("/classify", {"text": kind}), kind, marks=1) for kind in kinds])


def test_latencies_are_filed_by_kind() -> None:
    with answering(lambda _: (200, GOOD)) as port:
        outcome = run(port, stream("short", "long"), stream("list"))
    assert outcome.latencies_ms.keys() == {"short", "long", "list"}
    assert outcome.errors == 0
    assert outcome.answers == len(outcome.all_latencies_ms())


@pytest.mark.parametrize(
    "answer",
    [lambda _: (429, GOOD), lambda _: (200, b"{}"), lambda _: (200, GOOD + GOOD), lambda _: None],
    ids=["status", "no label", "a label too many", "hang-up"],
)
def test_what_is_no_right_answer_is_an_error(answer: Answer) -> None:
    with answering(answer) as port:
        outcome = run(port, stream("short"))
    assert outcome.errors > 0
    assert outcome.answers == 0


def test_who_is_told_to_come_again_later_does_and_its_latency_goes_on() -> None:
    refusals = itertools.count()
    with answering(lambda _: (429, GOOD) if next(refusals) < 2 else (200, GOOD), retry_after_s=100) as port:
        outcome = run(port, stream("short"), warm_up_s=0)
    assert outcome.refused == 2
    assert outcome.errors == 0
    assert [latency >= 100 * 1000 for latency in outcome.latencies_ms["short"]].count(True) >= 2


def test_one_bad_kind_does_not_hide_the_other() -> None:
    with answering(lambda body: (500 if b"bad" in body else 200, GOOD)) as port:
        outcome = run(port, stream("good", "bad"))
    assert outcome.errors > 0
    assert outcome.latencies_ms.keys() == {"good"}


def test_a_single_question_gets_its_answer() -> None:
    with answering(lambda body: (200, body)) as port:
        assert ask(port, encode_request("/classify", {"text": "é"})) == (True, '{"text": "é"}'.encode())


@pytest.mark.parametrize("missing", range(1, 40))
def test_a_response_is_not_whole_before_its_last_byte(missing: int) -> None:
    response = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
    assert body_of(response[:-missing]) is None
    assert body_of(response) == b"hello"
