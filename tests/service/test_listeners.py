"""Claims about the sockets of a server: a Unix socket's file, a second port, and how they end."""

import contextlib
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ladabert_serve.errors import StartError
from ladabert_serve.server.listener import bind
from ladabert_serve.settings import Settings
from tests.service.test_server import PATIENCE_S, run, started
from tests.service.tiny_artefact import REPOSITORY


def bound(path: Path, **options: Any) -> Any:
    return contextlib.closing(bind(Settings(uds=path, **options))[0])


def test_a_unix_socket_has_its_mode_and_is_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with bound(path, uds_mode="600"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


def test_a_socket_that_a_killed_server_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with bound(path):
        assert stat.S_ISSOCK(path.stat().st_mode)


def test_a_socket_in_use_another_file_or_too_long_a_path_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with bound(path) as listeners:
        listeners.main.listen()
        with pytest.raises(StartError, match="another server"):
            bind(Settings(uds=path))
        assert path.exists()
    path.write_text("precious")
    for wrong in (path, tmp_path / ("x" * 200), tmp_path / "no" / "folder"):
        with pytest.raises(StartError, match="cannot listen on"):
            bind(Settings(uds=wrong))
    assert path.read_text() == "precious"


def test_the_socket_of_a_server_that_took_the_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with bound(path):
        path.unlink()
        with contextlib.closing(bind(Settings(uds=path))[0]) as other:
            other.main.listen()
    with bound(path) as first:
        path.rename(tmp_path / "old")
        second = bind(Settings(uds=path))[0]
        first.close()
        assert path.exists()
        second.close()


def test_a_second_port_that_is_taken_frees_the_first(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path = tmp_path / "s"
        with pytest.raises(StartError, match=str(port)):
            bind(Settings(uds=path, admin_port=port))
        assert not path.exists()


def test_a_free_second_port_is_in_the_settings(tmp_path: Path) -> None:
    listeners, settings = bind(Settings(port=0, admin_port=0))
    with contextlib.closing(listeners):
        assert listeners.admin is not None
        assert settings.admin_port == listeners.admin.getsockname()[1] != 0


@contextlib.contextmanager
def serving_on(path: Path, models: Path, *options: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "ladabert_serve", "--models", str(models), "--provider", "cpu", "--uds", str(path)]
    process = subprocess.Popen([*command, *options], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        while line := process.stdout.readline():
            if line.startswith("try: "):
                break
        assert f"--unix-socket {path}" in line
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def client(path: Path) -> httpx.Client:
    transport = httpx.HTTPTransport(uds=str(path))
    return httpx.Client(transport=transport, base_url="http://localhost", timeout=PATIENCE_S)


@pytest.mark.slow
@pytest.mark.xdist_group("server")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_on_a_unix_socket_answers_and_leaves_no_file(workers: int, models: Path, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serving_on(path, models, "--workers", str(workers), "--admin-port", "0") as process, client(path) as caller:
        assert caller.post("/classify", json={"inputs": "a good film"}).status_code == 200
        assert caller.get("/health/ready").status_code == 200
        assert caller.get("/metrics").status_code == 404
        assert run("health", "--url", f"unix:{path}").returncode == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        assert not path.exists()
        assert run("health", "--url", f"unix:{path}").returncode == 1


@pytest.mark.slow
@pytest.mark.xdist_group("server")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_port_serves_operators_and_ends_with_the_first(workers: str, models: Path) -> None:
    with started(models, "--workers", workers, "--admin-port", "0", "--grace-period-s", "5") as server:
        docs = next(line for line in server.announced if "docs at" in line).split("docs at ")[1].strip()
        admin = docs.removesuffix("/docs")
        with httpx.Client(base_url=admin, timeout=PATIENCE_S) as operator:
            assert operator.get("/docs").status_code == operator.get("/metrics").status_code == 200
            assert operator.get("/health/ready").status_code == 200
            assert operator.post("/classify", json={"inputs": "a"}).status_code == 404
        assert server.request("GET", "/metrics")[0] == 404
        assert server.classify("a good film") == 200
        assert server.stop() == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{admin}/health/live", timeout=PATIENCE_S)
