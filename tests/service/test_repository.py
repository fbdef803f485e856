"""Claims about models that are loaded, replaced and unloaded while others answer."""

import asyncio
import contextlib
import gc
import json
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ladabert_serve.models.artefact import Artefact
from ladabert_serve.models.inference import Inference
from ladabert_serve.models.loading import load_inference
from ladabert_serve.settings import Provider
from tests.service.conftest import Server, running, serving
from tests.service.gated import Gated, gated, metric
from tests.service.test_api_keys import LINES, OPERATORS, bearer
from tests.service.test_classify import check_problem
from tests.service.tiny_artefact import change_manifest, seal, write_artefact

VERSIONS = ("0123456789ab", "1123456789ab", "2123456789ab")


@pytest.fixture
def folder(models_folder: Path) -> Path:
    """Return a models folder with two models, of which the first is the default."""
    write_artefact(models_folder, "alpha", seed=1)
    write_artefact(models_folder, "beta", seed=2)
    return models_folder


@contextlib.contextmanager
def operated(folder: Path, **options: Any) -> Iterator[Server]:
    """Run an application, whose client has the admin key."""
    with serving(folder, api_keys=LINES, **options) as server:
        server._client.headers.update(bearer(OPERATORS))
        yield server


@contextlib.contextmanager
def operated_gated(folder: Path, **options: Any) -> Iterator[Gated]:
    """The same, with a model that runs when told."""
    with gated(folder, api_keys=LINES, **options) as waiting:
        waiting.server._client.headers.update(bearer(OPERATORS))
        yield waiting


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with operated(folder) as server:
        yield server


def replace(models: Path, name: str, version: str, seed: int = 5, **options: Any) -> None:
    """Put another version into the place of an artefact, as an export does: by renaming folders."""
    new = write_artefact(models.parent / f"new-{version}", name, seed=seed, **options)
    change_manifest(new, version=version)
    old = models / name
    if old.exists():
        old.rename(models.parent / f"old-{name}-{version}")
    new.rename(old)


def post(server: Server, path: str, body: Any = None) -> httpx.Response:
    return server.request("POST", f"/v2/repository/{path}", content=b"" if body is None else json.dumps(body).encode())


def change(server: Server, action: str, name: str) -> None:
    response = post(server, f"models/{name}/{action}")
    assert (response.status_code, response.content) == (200, b"")


def index(server: Server, **body: Any) -> dict[str, tuple[str, str]]:
    """State and reason of each model; what leaves is not waited for."""
    lines = post(server, "index", body).json()
    return {line["name"]: (line["state"], line["reason"]) for line in lines if line["state"] != "UNLOADING"}


def wait_until_gone(server: Server) -> None:
    """Wait until what was unloaded or replaced has left."""
    for _ in range(3000):
        if not any(line["state"] == "UNLOADING" for line in post(server, "index").json()):
            return
        threading.Event().wait(0.01)
    raise TimeoutError("a model does not leave")


def test_a_loaded_version_replaces_the_one_before_it_and_answers_name_it(server: Server, folder: Path) -> None:
    before = server.classify({"inputs": "a good film"}).json()
    replace(folder, "alpha", VERSIONS[1])
    assert server.classify({"inputs": "a good film"}).json()["version"] == VERSIONS[0]
    change(server, "load", "alpha")
    after = server.classify({"inputs": "a good film"}).json()
    assert (before["version"], after["version"]) == VERSIONS[:2]
    assert before["predictions"] != after["predictions"]
    assert server.get("/models/alpha").json()["version"] == VERSIONS[1]
    wait_until_gone(server)
    assert index(server) == {"alpha": ("READY", ""), "beta": ("READY", "")}


def test_a_new_model_is_served_once_it_is_loaded(server: Server, folder: Path) -> None:
    write_artefact(folder, "gamma", seed=3)
    assert index(server)["gamma"] == ("UNAVAILABLE", "")
    check_problem(server.classify({"inputs": "a", "model": "gamma"}), 404)
    change(server, "load", "gamma")
    assert index(server)["gamma"] == ("READY", "")
    assert server.classify({"inputs": "a", "model": "gamma"}).json()["model"] == "gamma"
    assert metric(server, 'ladabert_model_ready{model="gamma"}') == 1


def test_replacements_under_load_lose_no_request_and_no_answer_mixes_versions(folder: Path) -> None:
    async def check() -> None:
        async with running(folder, api_keys=LINES) as (_, client):
            client.headers.update(bearer(OPERATORS))
            scores: dict[str, set[float]] = {}
            stop = asyncio.Event()
            answers = 0

            async def call() -> None:
                nonlocal answers
                while not stop.is_set():
                    response = await client.post("/classify", json={"inputs": "a good film"})
                    assert response.status_code == 200, response.text
                    answer = response.json()
                    scores.setdefault(answer["version"], set()).add(answer["predictions"][0]["score"])
                    answers += 1

            callers = [asyncio.create_task(call()) for _ in range(32)]
            for number in range(6):
                version = f"{number + 1}00000000000"
                replace(folder, "alpha", version, seed=10 + number)
                response = await client.post("/v2/repository/models/alpha/load")
                assert response.status_code == 200, response.text
                seen = answers
                while answers < seen + 64:
                    await asyncio.sleep(0)
            stop.set()
            await asyncio.gather(*callers)
            assert len(scores) == 7
            assert all(len(found) == 1 for found in scores.values()), scores

    asyncio.run(check())


def write_and_seal(folder: Path, file: str, content: bytes) -> None:
    (folder / file).write_bytes(content)
    seal(folder)


CORRUPTIONS: dict[str, Callable[[Path], object]] = {
    "wrong hash": lambda folder: (folder / "model.onnx").write_bytes(
        bytes(reversed((folder / "model.onnx").read_bytes()))
    ),
    "no graph": lambda folder: (folder / "model.onnx").unlink(),
    "truncated graph": lambda folder: write_and_seal(folder, "model.onnx", (folder / "model.onnx").read_bytes()[:100]),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "a tokenizer that is none": lambda folder: write_and_seal(folder, "tokenizer.json", b"{}"),
    "another name": lambda folder: change_manifest(folder, name="somebody"),
    "a text for a number": lambda folder: change_manifest(folder, max_length="many"),
    "a length of 10^9": lambda folder: change_manifest(folder, max_length=10**9),
    "no JSON": lambda folder: (folder / "manifest.json").write_text("{"),
    "an alias that is another's name": lambda folder: change_manifest(folder, aliases=["beta"]),
}


@pytest.mark.parametrize("spoil", CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_a_bad_artefact_is_refused_with_one_line_and_the_old_version_goes_on(
    server: Server, folder: Path, spoil: Callable[[Path], object]
) -> None:
    before = server.classify({"inputs": "a good film"}).json()
    replace(folder, "alpha", VERSIONS[1])
    spoil(folder / "alpha")
    response = post(server, "models/alpha/load")
    assert response.status_code == 400
    reason = response.json()["error"]
    assert "\n" not in reason
    assert "alpha" in reason
    after = server.classify({"inputs": "a good film"}).json()
    assert (after["version"], after["predictions"]) == (before["version"], before["predictions"])
    assert index(server)["alpha"] == ("READY", reason)
    shutil.rmtree(folder / "alpha")
    replace(folder, "alpha", VERSIONS[2])
    change(server, "load", "alpha")
    assert index(server)["alpha"] == ("READY", "")


def test_a_new_model_that_is_refused_is_listed_with_the_reason(server: Server, folder: Path) -> None:
    (write_artefact(folder, "gamma") / "model.onnx").unlink()
    reason = post(server, "models/gamma/load").json()["error"]
    assert index(server)["gamma"] == ("UNAVAILABLE", reason)
    assert "gamma" not in index(server, ready=True)


@pytest.mark.parametrize("name", ["nobody", "..", "%2e%2e%2f%2e%2e", "alpha%2f..%2fbeta", ".hidden", "%00", "x" * 3000])
def test_a_name_without_a_folder_of_its_own_in_the_models_folder_is_refused(server: Server, name: str) -> None:
    assert post(server, f"models/{name}/load").status_code in (400, 404)
    assert set(index(server)) == {"alpha", "beta"}


def test_a_link_is_refused(server: Server, folder: Path) -> None:
    outside = write_artefact(folder.parent / "outside", "gamma")
    (folder / "gamma").symlink_to(outside)
    assert "symbolic link" in post(server, "models/gamma/load").json()["error"]


def test_an_unloaded_model_is_gone_with_its_series_and_can_be_loaded_again(server: Server, folder: Path) -> None:
    page = server.get("/metrics").text
    assert server.classify({"inputs": "a", "model": "beta"}).status_code == 200
    assert 'model="beta"' in page
    change(server, "unload", "beta")
    check_problem(server.classify({"inputs": "a", "model": "beta"}), 404)
    assert server.get("/models/beta").status_code == 404
    wait_until_gone(server)
    assert 'model="beta"' not in server.get("/metrics").text
    assert metric(server, "ladabert_requests_in_progress") == 0
    assert index(server) == {"alpha": ("READY", ""), "beta": ("UNAVAILABLE", "")}
    change(server, "unload", "beta")  # once more is no error
    change(server, "load", "beta")
    assert server.classify({"inputs": "a", "model": "beta"}).status_code == 200
    assert server.get("/metrics").text.count('model="beta"') == page.count('model="beta"')
    assert metric(server, 'ladabert_requests_total{model="beta",route="/classify",status="200"}') == 1


def test_without_its_default_model_the_server_is_not_ready_and_answers_for_the_others(server: Server) -> None:
    change(server, "unload", "alpha")
    check_problem(server.get("/health/ready"), 503)
    problem = check_problem(server.classify({"inputs": "a"}), 503)
    assert "'alpha' is not loaded" in problem["detail"]
    assert server.classify({"inputs": "a", "model": "beta"}).status_code == 200
    assert server.get("/models").json()["default"] == "alpha"
    assert server.get("/health/live").status_code == 200
    change(server, "load", "alpha")
    assert server.get("/health/ready").status_code == 200
    assert server.classify({"inputs": "a"}).json()["model"] == "alpha"


def test_what_a_replaced_model_admitted_it_answers_itself(folder: Path) -> None:
    with operated_gated(folder) as waiting:
        thread = waiting.ask()
        waiting.wait_at_gate()
        old = waiting.backend
        replace(folder, "alpha", VERSIONS[1])
        change(waiting.server, "load", "alpha")
        states = {(line["version"], line["state"]) for line in post(waiting.server, "index").json()}
        assert (VERSIONS[0], "UNLOADING") in states
        assert (VERSIONS[1], "READY") in states
        assert metric(waiting.server, 'ladabert_model_ready{model="alpha"}') == 1
        info = [line for line in waiting.server.get("/metrics").text.splitlines() if "model_info{" in line]
        assert sum(VERSIONS[0] in line and 'model="alpha"' in line for line in info) == 1
        old.gate.set()
        thread.join()
        (answer,) = waiting.answers
        assert (answer.status_code, answer.json()["version"]) == (200, VERSIONS[0])
        wait_until_gone(waiting.server)
        info = [line for line in waiting.server.get("/metrics").text.splitlines() if "model_info{" in line]
        assert sum(VERSIONS[0] in line and 'model="alpha"' in line for line in info) == 0
        assert waiting.server.classify({"inputs": "a"}).json()["version"] == VERSIONS[1]


def test_a_model_that_leaves_gives_up_after_the_grace_period(folder: Path) -> None:
    with operated_gated(folder, grace_period_s=0.05) as waiting:
        thread = waiting.ask()
        waiting.wait_at_gate()
        change(waiting.server, "unload", "alpha")
        thread.join()
        assert waiting.answers[0].status_code == 503
        wait_until_gone(waiting.server)
        waiting.backend.gate.set()


class SlowLoader:
    """Loads when told; remembers what it loaded without holding it."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.go_on.set()
        self.began = threading.Semaphore(0)
        self.loaded: list[weakref.ref[Any]] = []

    def __call__(self, artefact: Artefact, file: str, provider: Provider) -> Inference:
        """Be the loader of `create_app`."""
        self.began.release()
        assert self.go_on.wait(timeout=30)
        inference = load_inference(artefact, file, provider)
        self.loaded += [weakref.ref(each) for each in (inference, inference.backend, inference.tokenizer)]
        return inference


def test_requests_are_answered_while_a_model_is_loading(folder: Path) -> None:
    loader = SlowLoader()
    with operated(folder, load=loader) as server:
        loader.go_on.clear()
        for _ in range(2):
            assert loader.began.acquire(timeout=30)
        thread = threading.Thread(target=lambda: change(server, "load", "alpha"))
        thread.start()
        assert loader.began.acquire(timeout=30)
        assert server.classify({"inputs": "a"}).status_code == 200
        lines = [(line["name"], line["state"]) for line in post(server, "index").json()]
        assert lines == [("alpha", "LOADING"), ("alpha", "READY"), ("beta", "READY")]
        loader.go_on.set()
        thread.join()


def runners() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "runner"}


def test_nothing_of_a_replaced_or_unloaded_model_stays_although_the_collector_does_not_look(folder: Path) -> None:
    loader = SlowLoader()
    with operated(folder, load=loader) as server:
        assert server.classify({"inputs": "a"}).status_code == 200
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            threads = runners()
            change(server, "load", "alpha")
            assert server.classify({"inputs": "a"}).status_code == 200
            change(server, "unload", "beta")
            wait_until_gone(server)
            alive = [reference() is not None for reference in loader.loaded]
            assert alive == [False] * 6 + [True] * 3
            assert runners() == threads
        finally:
            gc.enable()
            gc.unfreeze()


def test_the_memory_of_a_model_is_reported(server: Server, folder: Path) -> None:
    reported = metric(server, 'ladabert_model_memory_bytes{model="alpha"}')
    files = folder / "alpha"
    graph, tokenizer = ((files / name).stat().st_size for name in ("model.onnx", "tokenizer.json"))
    assert reported in (graph + tokenizer, 2 * graph + tokenizer)  # a second copy for a text that is alone


def test_a_load_during_shutdown_is_refused(server: Server) -> None:
    server.app.state.services.registry.drain()
    assert post(server, "models/alpha/load").status_code == 503


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"ready": 1}', b'{"other": true}', b"\xff", b"null"])
def test_a_body_that_is_not_as_it_should_be_is_400_in_tritons_form(server: Server, body: bytes) -> None:
    for path in ("index", "models/alpha/load", "models/alpha/unload"):
        response = server.request("POST", f"/v2/repository/{path}", content=body)
        assert response.status_code == 400
        assert list(response.json()) == ["error"]
    assert index(server)["alpha"] == ("READY", "")


def test_a_configuration_or_files_in_a_load_are_refused(server: Server) -> None:
    response = post(server, "models/alpha/load", {"parameters": {"config": "{}"}})
    assert response.status_code == 400
    assert "not supported" in response.json()["error"]


def test_versions_replace_each_other_while_earlier_ones_still_leave(folder: Path) -> None:
    with operated_gated(folder) as waiting:
        thread = waiting.ask()
        waiting.wait_at_gate()
        for version in VERSIONS[1:]:
            replace(folder, "alpha", version, labels=("a", version[:2]))
            change(waiting.server, "load", "alpha")
        waiting.backend.gate.set()
        thread.join()
        wait_until_gone(waiting.server)
        labels = {
            line.partition('label="')[2].partition('"')[0]
            for line in waiting.server.get("/metrics").text.splitlines()
            if line.startswith("ladabert_predictions_total{") and 'model="alpha"' in line
        }
        assert labels == {"a", VERSIONS[2][:2]}
