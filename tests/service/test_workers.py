"""Claims about the supervisor of several workers: pauses between restarts, and ends that nobody escapes."""

import contextlib
import http.client
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ladabert_serve.server.workers import FIRST_PAUSE_S, LONGEST_PAUSE_S, SETTLED_S, Restarts
from tests.service.test_server import PATIENCE_S, Process, break_hash, command_of, gated, started, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("server")]


def test_the_pause_doubles_while_a_worker_keeps_dying_young_and_no_further_than_its_limit() -> None:
    restarts = Restarts()
    now = 0.0
    pauses = []
    for _ in range(8):
        pauses.append(restarts.ended(0, lived_s=1.0, now=now))
        assert restarts.take(now + pauses[-1] - 0.01) == []
        now += pauses[-1]
        assert restarts.take(now) == [0]
        assert restarts.take(now) == []
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert LONGEST_PAUSE_S == 30


def test_a_worker_that_has_lived_for_a_while_is_replaced_after_the_first_pause_again() -> None:
    restarts = Restarts()
    for _ in range(5):
        restarts.ended(0, lived_s=1.0, now=0.0)
    assert restarts.ended(0, lived_s=SETTLED_S, now=0.0) == FIRST_PAUSE_S
    assert restarts.ended(0, lived_s=1.0, now=0.0) == 2 * FIRST_PAUSE_S


def test_one_worker_that_keeps_dying_holds_up_the_replacement_of_no_other() -> None:
    restarts = Restarts()
    assert restarts.wait_s(0.0) is None
    for _ in range(6):
        restarts.ended(0, lived_s=0.0, now=0.0)
    restarts.ended(1, lived_s=100.0, now=0.0)
    assert restarts.wait_s(0.0) == FIRST_PAUSE_S
    assert restarts.take(FIRST_PAUSE_S) == [1]
    assert restarts.wait_s(FIRST_PAUSE_S) == LONGEST_PAUSE_S - FIRST_PAUSE_S


THREADS_BEFORE_MODELS = 4  # at most: two of its own, and those of libraries


def ended(pids: set[int]) -> bool:
    return not any(command_of(str(pid)) for pid in pids)


def has_loaded(pid: int) -> bool:
    """Whether a worker has started threads for its models."""
    return len(list(Path(f"/proc/{pid}/task").iterdir())) > THREADS_BEFORE_MODELS


def test_a_replacement_that_cannot_start_says_why_and_is_tried_again_while_the_other_serves(
    models: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(models, tmp_path / "models")
    log = tmp_path / "log"
    graph = folder / "alpha" / "model.onnx"
    whole = graph.read_bytes()
    with log.open("wb") as stderr, started(folder, "--workers", "2", stderr=stderr) as process:
        wait_until(lambda: all(map(has_loaded, process.workers())))  # before it breaks for the next one
        assert process.classify("a") == 200
        break_hash(folder / "alpha")
        os.kill(min(process.workers()), signal.SIGKILL)
        wait_until(lambda: "is replaced in 2 s" in log.read_text())
        assert process.classify("a") == 200
        assert process.metric('ladabert_model_ready{model="alpha"}') == 1  # of those that live
        graph.write_bytes(whole)
        wait_until(lambda: len(process.workers()) == 2)
        assert process.stop() == 0
    first, second = [line for line in log.read_text().splitlines() if "is replaced" in line]
    assert "exit code -9" in first
    assert "in 1 s" in first
    assert "exit code 1" in second
    assert "sha256" in second


def test_counters_stay_when_a_worker_is_killed(models: Path) -> None:
    with started(models, "--workers", "2") as process:
        for _ in range(20):
            assert process.classify("a") == 200
        series = 'ladabert_requests_total{model="alpha",route="/classify",status="200"}'
        before = process.workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(process.workers() - before) == 2)
        assert process.classify("a") == 200
        assert process.metric(series) == 21
        assert process.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_all_workers_are_dead_or_starting_ends_the_server(models: Path, number: int) -> None:
    with started(models, "--workers", "2") as process:
        for pid in process.workers():
            os.kill(pid, signal.SIGKILL)
        assert process.stop(number) == 0


def test_a_worker_that_hangs_is_killed_after_the_grace_period(models: Path) -> None:
    with started(models, "--workers", "2", "--grace-period-s", "0.1") as process:
        workers = process.workers()
        os.kill(min(workers), signal.SIGSTOP)
        assert process.stop() == 1
        assert ended(workers)


def test_workers_end_when_their_supervisor_is_killed(models: Path, tmp_path: Path) -> None:
    with gated(models, tmp_path, "--workers", "2", "--grace-period-s", "0.1") as (process, _):
        workers = process.workers()
        process.process.kill()
        wait_until(lambda: ended(workers))


def test_replacements_that_are_starting_end_when_their_supervisor_is_killed(models: Path) -> None:
    with started(models, "--workers", "2") as process:
        before = process.workers()
        os.kill(min(before), signal.SIGKILL)
        wait_until(lambda: bool(process.workers() - before))
        workers = process.workers()
        process.process.kill()
        wait_until(lambda: ended(workers))


@contextlib.contextmanager
def connected(process: Process) -> Iterator[http.client.HTTPConnection]:
    """A connection that has been answered once, and the process that answered may open nothing from then on."""
    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        assert get(connection, "/health/live") == 200
        for pid in process.workers() or {process.process.pid}:
            _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, hard))
        yield connection


def get(connection: http.client.HTTPConnection, path: str, **headers: str) -> int:
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    response.read()
    return response.status


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_first_scrape_needs_no_file_that_is_not_open(models: Path, workers: str) -> None:
    with started(models, "--workers", workers) as process, connected(process) as connection:
        assert get(connection, "/metrics") == 200
        assert get(connection, "/metrics", accept="application/openmetrics-text") == 200


@pytest.mark.parametrize("path", ["/health/ready", "/models", "/models/alpha", "/docs", "/openapi.json", "/nope"])
def test_other_routes_need_no_file_that_is_not_open(models: Path, path: str) -> None:
    with started(models) as process, connected(process) as connection:
        assert get(connection, path) == (404 if path == "/nope" else 200)


def test_nothing_is_left_on_the_disk_when_a_server_of_several_workers_is_killed(models: Path, tmp_path: Path) -> None:
    with started(models, "--workers", "2", stderr=subprocess.DEVNULL, TMPDIR=str(tmp_path)) as process:
        workers = process.workers()
        assert process.classify("a") == 200
        process.request("GET", "/metrics")
        process.process.kill()
        wait_until(lambda: ended(workers))
    assert list(tmp_path.iterdir()) == []
