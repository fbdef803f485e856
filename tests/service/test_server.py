"""Claims about the process: start, signals, exit codes; over a real socket on the loopback."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tests.service.tiny_artefact import REPOSITORY, write_artefact

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("server")]
COMMAND = [sys.executable, "-m"]
PATIENCE_S = 60


class Process:
    """A running `ladabert-serve`."""

    def __init__(self, process: "subprocess.Popen[str]", port: int, announced: list[str]) -> None:
        self.process = process
        self.port = port
        self.announced = announced

    def request(self, method: str, path: str, body: Any = None, headers: Any = None) -> tuple[int, bytes]:
        """Send one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"content-type": "application/json", **(headers or {})})
            response = connection.getresponse()
            return response.status, response.read()

    def classify(self, inputs: Any) -> int:
        """POST inputs and return the status."""
        return self.request("POST", "/classify", json.dumps({"inputs": inputs}))[0]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def workers(self) -> set[int]:
        """The worker processes that live."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return {int(pid) for pid in children if b"spawn_main" in command_of(pid)}

    def metric(self, series: str) -> float:
        """A series' value."""
        lines = self.request("GET", "/metrics")[1].decode().splitlines()
        (value,) = [line.rpartition(" ")[2] for line in lines if line.startswith(series + " ")]
        return float(value)

    def accepts(self) -> bool:
        """Whether any of its processes still listens."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S).close()
        except OSError:
            return False
        return True


def command_of(pid: str) -> bytes:
    """How a process was started; nothing once it ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until something is so that nothing tells of."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it took too long"
        threading.Event().wait(0.01)


@contextlib.contextmanager
def started(
    models: Path, *options: str, module: str = "ladabert_serve", stderr: Any = subprocess.DEVNULL, **environment: str
) -> Iterator[Process]:
    """Start a server on a free port and wait until it says that it listens."""
    process = subprocess.Popen(
        [*COMMAND, module, "--models", str(models), "--port", "0", "--provider", "cpu", *options],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )
    try:
        assert process.stdout is not None
        announced = []
        for line in process.stdout:
            announced.append(line)
            if line.startswith("try: "):
                break
        found = re.search(r"http://127\.0\.0\.1:(\d+)", "".join(announced))
        assert found, announced
        yield Process(process, int(found[1]), announced)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, "ladabert_serve", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def check_one_line(done: "subprocess.CompletedProcess[str]", exit_code: int, *words: str) -> None:
    """Hold a command to have failed with one clear line that holds these words."""
    assert done.returncode == exit_code, done.stderr
    lines = [line for line in done.stderr.splitlines() if " INFO " not in line]
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]


@pytest.fixture(scope="module")
def one_server(models: Path) -> Iterator[Process]:
    with started(models) as process:
        yield process


def test_the_start_says_what_is_served_and_how_to_call_it(one_server: Process) -> None:
    text = "".join(one_server.announced)
    assert "alpha (default): version 0123456789ab, fp32, cpu" in text
    assert "core(s)" in text
    assert f"try: curl -s http://127.0.0.1:{one_server.port}/classify" in text


def test_the_health_command_tells_ready_and_not(one_server: Process) -> None:
    assert run("health", "--url", f"http://127.0.0.1:{one_server.port}").returncode == 0
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        done = run("health", "--url", f"http://127.0.0.1:{unused.getsockname()[1]}")
    check_one_line(done, 1, "health/ready")


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_a_client_that_sends_a_hundred_megabytes_reads_its_413(one_server: Process, connection: str) -> None:
    body = (b" " * 1000000 for _ in range(100))
    headers = {"connection": connection}
    status, answer = one_server.request("POST", "/classify", body, headers)
    assert status == 413
    assert json.loads(answer)["status"] == 413
    assert one_server.classify("a") == 200


def test_a_port_in_use_is_one_line(models: Path, one_server: Process) -> None:
    done = run("--models", str(models), "--port", str(one_server.port))
    check_one_line(done, 1, str(one_server.port), "in use")


def test_a_signal_ends_a_start_wherever_it_comes() -> None:
    code = """
import os, signal, socket
from ladabert_serve.server import server
from ladabert_serve.server.listener import Listeners
from ladabert_serve.settings import Settings

class Finalised:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)  # what is raised in here is lost

def create_app(*_, **__):
    Finalised()
    raise SystemExit("the start went on")

server.create_app = create_app
server.run_server(Settings(), Listeners(socket.socket()), print)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_with_exit_code_0(models: Path, number: int) -> None:
    with started(models) as process:
        assert process.classify("a") == 200
        assert process.stop(number) == 0


@contextlib.contextmanager
def gated(models: Path, folder: Path, *options: str) -> Iterator[tuple[Process, Path]]:
    """A server whose runs wait until its gate, a pipe, is opened for writing."""
    gate = folder / "gate"
    os.mkfifo(gate)
    with started(models, *options, module="tests.service.gated_server", GATE=str(gate)) as process:
        yield process, gate


def ask_and_wait(process: Process, callers: int) -> tuple[list[int], list[threading.Thread]]:
    """Send requests and wait until all are admitted; return where their statuses will be, and who waits for them."""
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(process.classify("a"))) for _ in range(callers)]
    for thread in threads:
        thread.start()
    wait_until(lambda: process.metric("ladabert_requests_in_progress") == callers)
    return statuses, threads


@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_admitted_before_sigterm_is_answered_200_and_the_exit_code_is_0(
    models: Path, tmp_path: Path, workers: int
) -> None:
    with gated(models, tmp_path, "--workers", str(workers), "--runners", "1") as (process, gate):
        statuses, threads = ask_and_wait(process, callers=12)  # more than what runs: most are queued
        process.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not process.accepts())  # every worker knows of the signal
        assert statuses == []
        with gate.open("wb"):
            for thread in threads:
                thread.join()
        assert statuses == [200] * 12
        assert process.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_what_runs_beyond_the_grace_period_is_answered_503_and_the_exit_code_is_0(
    models: Path, tmp_path: Path, workers: int
) -> None:
    options = ("--workers", str(workers), "--runners", "1", "--grace-period-s", "0.5")
    with gated(models, tmp_path, *options) as (process, _):
        statuses, threads = ask_and_wait(process, callers=4)
        assert process.stop() == 0
        for thread in threads:
            thread.join()
        assert statuses == [503] * 4


@pytest.mark.parametrize("workers", [1, 2])
def test_a_request_whose_body_comes_after_sigterm_is_answered(models: Path, workers: int) -> None:
    with started(models, "--workers", str(workers)) as process:
        # Each caller's headers and half of its body are there when the signal comes; the rest comes after it.
        body = json.dumps({"inputs": ["a good film"] * 50}).encode()
        connections = []
        for _ in range(8):
            connection = socket.create_connection(("127.0.0.1", process.port), timeout=PATIENCE_S)
            head = f"POST /classify HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {len(body)}\r\n"
            connection.sendall(head.encode() + b"content-type: application/json\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 100")  # the application reads the body
            connection.sendall(body[:10])
            connections.append(connection)
        stopped: list[int] = []
        stopping = threading.Thread(target=lambda: stopped.append(process.stop()))
        stopping.start()
        statuses = []
        for connection in connections:
            connection.sendall(body[10:])
            with connection, connection.makefile("rb") as answer:
                statuses.append(int(answer.readline().split()[1]))
        stopping.join()
        assert set(statuses) <= {200, 503}, statuses  # which of them depends on when its worker knew of the signal
        assert stopped == [0]


def test_workers_share_one_port_and_one_metrics_page(models: Path) -> None:
    with started(models, "--workers", "2") as process:
        for _ in range(10):
            assert process.classify("a") == 200
        count = 'ladabert_requests_total{model="alpha",route="/classify",status="200"}'
        wait_until(lambda: process.metric(count) == 10)  # a worker counts once it has answered
        for _ in range(4):  # whichever worker answers
            text = process.request("GET", "/metrics")[1].decode()
            assert f"{count} 10.0" in text
            assert 'ladabert_queue_depth{model="alpha"} 0.0' in text
            wait_until(lambda: process.metric('ladabert_model_ready{model="alpha"}') == 1)  # 0 while one still loads
        assert process.stop() == 0


def test_a_worker_that_somebody_stops_is_replaced_and_the_others_still_get_callers(models: Path) -> None:
    with started(models, "--workers", "2") as process:
        wait_until(lambda: len(process.workers()) == 2)
        stopped = min(process.workers())
        os.kill(stopped, signal.SIGTERM)
        wait_until(lambda: stopped not in process.workers())
        assert {process.classify("a") for _ in range(20)} == {200}
        wait_until(lambda: len(process.workers()) == 2)
        assert process.stop() == 0


def break_hash(folder: Path) -> None:
    graph = folder / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_broken_artefact_stops_the_start_with_one_line(models_folder: Path, workers: str) -> None:
    break_hash(write_artefact(models_folder))
    done = run("--models", str(models_folder), "--port", "0", "--workers", workers)
    check_one_line(done, 1, "model.onnx", "sha256")


def test_check_says_yes_to_a_whole_artefact_and_no_to_a_broken_one(models_folder: Path) -> None:
    folder = write_artefact(models_folder)
    done = run("check", str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    assert "tiny: version 0123456789ab" in done.stdout
    break_hash(folder)
    check_one_line(run("check", str(folder)), 1, "sha256")
    check_one_line(run("check", str(models_folder / "nope")), 2, "no such folder")


def test_headers_that_do_not_come_in_time_close_the_connection(models: Path) -> None:
    with started(models, "--header-timeout-s", "0.2") as process:
        for sent in (b"", b"POST /classify HTTP/1.1\r\nhost: x\r\nx-slow: "):
            with socket.create_connection(("127.0.0.1", process.port), timeout=PATIENCE_S) as connection:
                connection.sendall(sent)
                assert connection.recv(100) == b""
        assert process.classify("a") == 200


HEAD = "POST /classify HTTP/1.1\r\nhost: x\r\ncontent-type: {}\r\ncontent-length: {}\r\n{}\r\n"


def read_answer(answers: BinaryIO) -> tuple[int, dict[str, str], Any]:
    """Return the status, headers and JSON of the next answer."""
    status = int(answers.readline().split()[1])
    headers = {}
    while (line := answers.readline()) != b"\r\n":
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return status, headers, json.loads(answers.read(int(headers["content-length"])))


@pytest.mark.parametrize("pieces", [1, 2, 3, 50])
def test_a_request_is_answered_in_however_many_pieces_it_comes(one_server: Process, pieces: int) -> None:
    body = json.dumps({"inputs": "a good film"}).encode()
    request = HEAD.format("application/json", len(body), "").encode() + body
    step = -(-len(request) // pieces)
    with socket.create_connection(("127.0.0.1", one_server.port), timeout=PATIENCE_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection.makefile("rb") as answers:
            for _ in range(2):  # on the same connection
                for first in range(0, len(request), step):
                    connection.sendall(request[first : first + step])
                assert read_answer(answers)[0] == 200


def test_a_refused_request_that_came_whole_leaves_the_connection_open(one_server: Process) -> None:
    json_type = "application/json"
    requests = [("text/plain", b"{}", 415), (json_type, b"{", 400), (json_type, b'{"inputs": "a"}', 200)]
    with (
        socket.create_connection(("127.0.0.1", one_server.port), timeout=PATIENCE_S) as connection,
        connection.makefile("rb") as answers,
    ):
        for content_type, body, expected in requests:
            connection.sendall(HEAD.format(content_type, len(body), "").encode() + body)
            status, headers, _ = read_answer(answers)
            assert status == expected
            assert len(headers["x-request-id"]) == 32


def test_a_caller_who_asks_for_it_has_the_connection_closed(one_server: Process) -> None:
    body = b'{"inputs": "a"}'
    with socket.create_connection(("127.0.0.1", one_server.port), timeout=PATIENCE_S) as connection:
        connection.sendall(HEAD.format("application/json", len(body), "connection: close\r\n").encode() + body)
        with connection.makefile("rb") as answers:
            status, headers, _ = read_answer(answers)
            assert (status, headers["connection"]) == (200, "close")
            assert answers.read() == b""


def test_pipelined_requests_are_answered_in_their_order(models: Path) -> None:
    with started(models) as process:
        bodies = [json.dumps({"inputs": "a " * words}).encode() for words in (1, 5, 3)]
        head = "POST /classify HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", process.port), timeout=PATIENCE_S) as connection:
            connection.sendall(b"".join(head.format(len(body)).encode() + body for body in bodies))
            with connection.makefile("rb") as answers:
                tokens = []
                for _ in bodies:
                    length = 0
                    while (line := answers.readline()) != b"\r\n":
                        if line.lower().startswith(b"content-length:"):
                            length = int(line.split(b":")[1])
                    tokens.append(json.loads(answers.read(length))["predictions"][0]["tokens"])
        assert tokens == [3, 7, 5]


def test_a_worker_that_is_killed_is_replaced_and_the_others_serve_on(models: Path) -> None:
    with started(models, "--workers", "2") as process:
        first, second = sorted(process.workers())
        os.kill(first, signal.SIGKILL)
        for _ in range(20):
            assert process.classify("a") == 200
        wait_until(lambda: first not in process.workers() and len(process.workers()) == 2)
        os.kill(second, signal.SIGKILL)  # from now on only a replacement can answer
        wait_until(lambda: second not in process.workers())
        for _ in range(20):
            assert process.classify("a") == 200
        wait_until(lambda: len(process.workers()) == 2)
        assert process.stop() == 0
