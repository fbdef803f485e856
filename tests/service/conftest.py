"""Artefacts and in-process clients shared by the service's tests."""

import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from starlette.applications import Starlette

from ladabert_serve.app import create_app
from ladabert_serve.models.opening import Loader
from ladabert_serve.settings import Settings
from tests.service.tiny_artefact import write_artefact


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own LADABERT_ variables out of the tests."""
    for name in list(os.environ):
        if name.startswith("LADABERT_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a models folder with a single-text, a pair and a multi-label model; do not change it."""
    folder = tmp_path_factory.mktemp("served")
    write_artefact(folder, "alpha", seed=1, precisions=("fp32", "int8"))
    write_artefact(folder, "pairs", task="pair", labels=("no", "maybe", "yes"), seed=2)
    write_artefact(folder, "topics", problem_type="multi_label", labels=("a", "b", "c"), temperature=2.0)
    return folder


@pytest.fixture
def models_folder(tmp_path: Path) -> Path:
    """Return an empty models folder to fill and to break."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@contextlib.asynccontextmanager
async def running(
    models: Path, load: Loader | None = None, **options: Any
) -> AsyncIterator[tuple[Starlette, httpx.AsyncClient]]:
    """Run an application in this process and give it with a client."""
    app = create_app(Settings(models=models, **options), load)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service") as client,
    ):
        yield app, client


class Server:
    """An application in this process for tests that are not coroutines themselves."""

    def __init__(self, portal: BlockingPortal, app: Starlette, client: httpx.AsyncClient) -> None:
        self._portal = portal
        self.app = app
        self._client = client

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send one request."""

        async def send() -> httpx.Response:
            return await self._client.request(method, path, **arguments)

        response: httpx.Response = self._portal.call(send)
        return response

    def get(self, path: str, **arguments: Any) -> httpx.Response:
        """GET a path."""
        return self.request("GET", path, **arguments)

    def classify(self, body: Any, **arguments: Any) -> httpx.Response:
        """POST a JSON value to /classify."""
        headers = {"content-type": "application/json", **arguments.pop("headers", {})}
        return self.request("POST", "/classify", content=json.dumps(body), headers=headers, **arguments)

    def post_raw(self, content: Any, content_type: str | None = "application/json") -> httpx.Response:
        """POST bytes, or an asynchronous stream of them, to /classify."""
        headers = {} if content_type is None else {"content-type": content_type}
        return self.request("POST", "/classify", content=content, headers=headers)

    def call(self, function: Any) -> Any:
        """Run a coroutine function on the application's event loop."""
        return self._portal.call(function)


@contextlib.contextmanager
def serving(models: Path, **options: Any) -> Iterator[Server]:
    """Run an application in this process, its event loop in a thread."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(running(models, **options)) as (app, client),
    ):
        yield Server(portal, app, client)


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    """Return a running application with small limits."""
    with serving(models, max_inputs=20, max_text_bytes=1000, max_body_bytes=65536) as server:
        yield server
