"""Claims about `ladabert-serve health`: one request to the server that is meant, one line, within a bounded time."""

import contextlib
import http.server
import socket
import threading
from collections.abc import Iterator

import pytest

from ladabert_serve import cli


class Answers(http.server.BaseHTTPRequestHandler):
    """Says ready at /health/ready and below /prefix."""

    def do_GET(self) -> None:
        ready = self.path in ("/health/ready", "/prefix/health/ready")
        self.send_response(200 if ready else 404)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


class SixthVersion(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6


@contextlib.contextmanager
def answering(host: str = "127.0.0.1") -> Iterator[int]:
    """Serve and give the port."""
    make = SixthVersion if ":" in host else http.server.ThreadingHTTPServer
    with make((host, 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def sending(*parts: bytes) -> Iterator[int]:
    """Accept one connection, send the parts one by one until it is closed, and give the port."""

    def send() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(1000)
            for part in parts:
                connection.sendall(part)
                if done.wait(0.01):
                    return
            connection.shutdown(socket.SHUT_WR)

    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            done.set()
            thread.join()


def health(capsys: pytest.CaptureFixture[str], url: str) -> tuple[int, str]:
    """Return the exit code and the line on stderr, empty for none."""
    code = cli.main(["health", "--url", url])
    captured = capsys.readouterr()
    assert captured.out == ("ready\n" if code == 0 else "")
    lines = captured.err.splitlines()
    assert len(lines) == (0 if code == 0 else 1), lines
    assert all(line.isprintable() for line in lines)
    return code, "".join(lines)


@pytest.mark.parametrize("path", ["", "/", "/prefix", "/prefix/"])
@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_the_server_is_asked_itself_whatever_proxy_is_set(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, variable: str, path: str
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    with answering() as port:
        assert health(capsys, f"http://127.0.0.1:{port}{path}") == (0, "")


def test_an_address_of_ipv6_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    with answering("::1") as port:
        assert health(capsys, f"http://[::1]:{port}") == (0, "")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", "status 503"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", "status 302"),
        (b"", "closed"),
        (b"220 mail\n\x1b[2Jforged\r\n\r\n", "220 mail"),
        (b"x" * 100_000, "65536"),
        (b"HTTP/1.1 200 OK\r\n" + b"x-many: 1\r\n" * 1000 + b"\r\n", "100"),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_a_server_that_is_not_ready_is_one_line(capsys: pytest.CaptureFixture[str], answer: bytes, words: str) -> None:
    with sending(answer) as port:
        code, line = health(capsys, f"http://127.0.0.1:{port}")
    assert code == 1
    assert f"http://127.0.0.1:{port}/health/ready" in line
    assert words in line


def test_an_answer_that_trickles_in_is_not_waited_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "HEALTH_TIMEOUT_S", 0.2)
    head = b"HTTP/1.1 200 OK\r\nx-slow: " + b"x" * 10_000
    with sending(*(bytes([byte]) for byte in head)) as port:
        code, line = health(capsys, f"http://127.0.0.1:{port}")
    assert code == 1
    assert "no answer within 0.2 s" in line


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000",
        "ftp://127.0.0.1",
        "http://",
        "http:///health",
        "http://:8000",
        "http://[::1",
        "http://127.0.0.1:port",
        "http://127.0.0.1:99999",
        "http://127.0.0.1/?a=b",
        "http://127.0.0.1/#a",
        "http://a b",
    ],
)
def test_a_wrong_url_is_exit_2_and_one_line(capsys: pytest.CaptureFixture[str], url: str) -> None:
    code, line = health(capsys, url)
    assert code == 2
    assert "--url" in line


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://127.0.0.1:1/\x1b[2J", "http://127.0.0.1:1/é", "http://.invalid"]
)
def test_a_server_that_cannot_be_asked_is_exit_1_and_one_line(capsys: pytest.CaptureFixture[str], url: str) -> None:
    code, _ = health(capsys, url)
    assert code == 1
