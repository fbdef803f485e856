"""Claims about the health routes: what orchestrators learn from them."""

import socket
from pathlib import Path

import pytest

from ladabert_serve.models.model import Model
from tests.service.conftest import Server, serving
from tests.service.test_classify import check_problem
from tests.service.test_server import PATIENCE_S, started


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_head_answers_as_get_does(server: Server, path: str) -> None:
    head, got = server.request("HEAD", path), server.get(path)
    assert head.status_code == got.status_code == 200
    assert head.headers["content-length"] == got.headers["content-length"]


def test_head_has_no_body_on_the_wire(models: Path) -> None:
    with started(models) as process, socket.create_connection(("127.0.0.1", process.port), PATIENCE_S) as connection:
        connection.sendall(b"HEAD /health/live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        received = b""
        while data := connection.recv(65536):
            received += data
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(b"\r\n\r\n")


def test_a_model_that_cannot_replace_its_hung_runners_is_not_live(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(models) as server:
        assert server.get("/health/live").status_code == 200
        monkeypatch.setattr(Model, "live", property(lambda model: model.name != "pairs"))
        response = server.get("/health/live")
        problem = check_problem(response, 503)
        assert problem["title"] == "Not live"
        assert "pairs" in problem["detail"]
        assert "alpha" not in problem["detail"]
        assert response.headers["retry-after"] == "1"
        assert server.request("HEAD", "/health/live").status_code == 503


def test_a_draining_server_is_live_and_not_ready(models: Path) -> None:
    with serving(models) as server:
        server.app.state.services.registry.drain()
        check_problem(server.get("/health/ready"), 503)
        assert server.request("HEAD", "/health/ready").status_code == 503
        assert server.request("HEAD", "/health/live").status_code == 200
