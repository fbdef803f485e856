"""Claims about requests that wait: refused, late, left, drained; with a backend that runs when told."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.artefact import TOKENIZER_FILE, Artefact
from service.backend import FloatArray, IntArray
from service.errors import InferenceError
from service.inference import Inference
from service.settings import Provider
from service.tokenizer import TextTokenizer
from tests.service.conftest import Server, serving
from tests.service.test_classify import check_problem


class GatedBackend:
    """Answers zeros once the gate is open; counts rows, and says when a run stands at the gate."""

    provider = "cpu"

    def __init__(self, labels: int) -> None:
        self.labels = labels
        self.gate = threading.Event()
        self.at_gate = threading.Semaphore(0)
        self.rows = 0
        self.error: BaseException | None = None

    def run(self, input_ids: IntArray, attention_mask: IntArray, token_type_ids: IntArray) -> FloatArray:
        """Wait for the gate, then count."""
        self.at_gate.release()
        assert self.gate.wait(timeout=30)
        if self.error is not None:
            raise self.error
        self.rows += len(input_ids)
        return np.zeros((len(input_ids), self.labels), dtype=np.float32)


class Gated:
    """A server whose model runs when told."""

    def __init__(self) -> None:
        self.backend = GatedBackend(2)
        self.server: Server

    def load(self, artefact: Artefact, file: str, provider: Provider) -> Inference:
        """Be the loader of `create_app`."""
        tokenizer = TextTokenizer(artefact.read(TOKENIZER_FILE), artefact.max_length)
        return Inference(artefact, tokenizer, self.backend)

    def ask(self, inputs: Any = "a", **fields: Any) -> "threading.Thread":
        """Send a request from a thread of its own; its answer is put into `answers`."""

        def send() -> None:
            self.answers.append(self.server.classify({"inputs": inputs, **fields}))

        thread = threading.Thread(target=send)
        thread.start()
        return thread

    answers: list[Any]

    def wait_at_gate(self) -> None:
        """Wait until a run stands at the gate."""
        assert self.backend.at_gate.acquire(timeout=30)

    def wait_for_depth(self, depth: int) -> None:
        """Wait until so many requests are queued."""
        batcher = self.server.app.services.registry.get(None).batcher
        for _ in range(30000):
            if batcher.queue_depth == depth:
                return
            threading.Event().wait(0.001)
        raise TimeoutError(f"the queue is {batcher.queue_depth} deep, not {depth}")


@contextlib.contextmanager
def gated(models: Path, **options: Any) -> Iterator[Gated]:
    """Run a server whose first model runs when told, on one runner unless said."""
    gated = Gated()
    gated.answers = []
    with serving(models, load=gated.load, **{"runners": 1, **options}) as server:
        gated.server = server
        try:
            yield gated
        finally:
            gated.backend.gate.set()


def metric(server: Server, series: str) -> float:
    """Return a series' value."""
    for line in server.get("/metrics").text.splitlines():
        if line.startswith(series + " "):
            return float(line.rpartition(" ")[2])
    raise KeyError(series)


def rejected(server: Server, reason: str) -> float:
    return metric(server, f'ladabert_rejected_total{{model="alpha",reason="{reason}"}}')


def test_a_full_queue_is_429_with_retry_after(models: Path) -> None:
    with gated(models, max_queue_requests=1) as waiting:
        running = waiting.ask()
        waiting.wait_at_gate()
        queued = waiting.ask()
        waiting.wait_for_depth(1)
        response = waiting.server.classify({"inputs": "a"})
        check_problem(response, 429)
        assert response.headers["retry-after"] == "1"
        assert rejected(waiting.server, "queue_full") == 1
        waiting.backend.gate.set()
        running.join()
        queued.join()
        assert [answer.status_code for answer in waiting.answers] == [200, 200]
        assert waiting.server.classify({"inputs": "a"}).status_code == 200


def test_a_running_request_whose_deadline_passes_is_504(models: Path) -> None:
    with gated(models) as waiting:
        check_problem(waiting.server.classify({"inputs": "a", "timeout_ms": 1}), 504)
        assert rejected(waiting.server, "deadline") == 1


def test_a_queued_request_whose_deadline_passes_is_504_and_not_computed(models: Path) -> None:
    with gated(models) as waiting:
        running = waiting.ask()
        waiting.wait_at_gate()
        check_problem(waiting.server.classify({"inputs": "a", "timeout_ms": 1}), 504)
        waiting.backend.gate.set()
        running.join()
        assert waiting.backend.rows == 1
        assert metric(waiting.server, 'ladabert_queue_depth{model="alpha"}') == 0


def hang_up_while_waiting(server: Server, hang_up_when: Any) -> list[Any]:
    """Send a request over bare ASGI, hang up when told, and return what was sent back."""

    async def exchange() -> list[Any]:
        sent: list[Any] = []
        messages: list[Any] = [{"type": "http.request", "body": json.dumps({"inputs": "a"}).encode()}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await asyncio.get_running_loop().run_in_executor(None, hang_up_when)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": "/classify",
            "raw_path": b"/classify",
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        await server.app(scope, receive, send)
        return sent

    sent: list[Any] = server.call(exchange)
    return sent


def test_a_caller_who_hangs_up_is_not_computed(models: Path) -> None:
    with gated(models) as waiting:
        running = waiting.ask()
        waiting.wait_at_gate()
        hang_up_while_waiting(waiting.server, lambda: waiting.wait_for_depth(1))
        assert metric(waiting.server, 'ladabert_queue_depth{model="alpha"}') == 0
        assert rejected(waiting.server, "cancelled") == 1
        waiting.backend.gate.set()
        running.join()
        assert waiting.backend.rows == 1
        assert metric(waiting.server, 'ladabert_requests_total{model="alpha",route="/classify",status="499"}') == 1


def test_draining_answers_what_was_admitted_and_refuses_the_rest(models: Path) -> None:
    with gated(models) as waiting:
        admitted = waiting.ask()
        waiting.wait_at_gate()
        waiting.server.app.services.registry.drain()
        check_problem(waiting.server.get("/health/ready"), 503)
        response = waiting.server.classify({"inputs": "a"})
        check_problem(response, 503)
        assert response.headers["retry-after"] == "1"
        assert rejected(waiting.server, "draining") == 1
        assert waiting.server.get("/health/live").status_code == 200
        assert metric(waiting.server, 'ladabert_model_ready{model="alpha"}') == 0
        waiting.backend.gate.set()
        admitted.join()
        assert [answer.status_code for answer in waiting.answers] == [200]


def test_what_outlasts_the_grace_period_is_503(models: Path) -> None:
    with gated(models) as waiting:
        admitted = waiting.ask()
        waiting.wait_at_gate()
        waiting.server.app.services.registry.abort()
        admitted.join()
        check_problem(waiting.answers[0], 503)


def test_a_failed_run_answers_each_caller_and_the_next_run_works(models: Path) -> None:
    with gated(models) as waiting:
        waiting.backend.error = InferenceError("broken")
        threads = [waiting.ask()]
        waiting.wait_at_gate()
        threads += [waiting.ask() for _ in range(2)]
        waiting.wait_for_depth(2)
        waiting.backend.gate.set()
        for thread in threads:
            thread.join()
        for answer in waiting.answers:
            check_problem(answer, 503)
        waiting.backend.error = None
        assert waiting.server.classify({"inputs": "a"}).status_code == 200


def test_a_dead_runner_is_replaced(models: Path) -> None:
    with gated(models) as waiting:
        waiting.backend.gate.set()
        waiting.backend.error = SystemExit()
        check_problem(waiting.server.classify({"inputs": "a"}), 503)
        waiting.backend.error = None
        assert waiting.server.classify({"inputs": "a"}).status_code == 200
        assert waiting.server.get("/health/ready").status_code == 200


def test_in_progress_counts_requests_that_are_not_answered(models: Path) -> None:
    with gated(models) as waiting:
        thread = waiting.ask()
        waiting.wait_at_gate()
        assert metric(waiting.server, "ladabert_requests_in_progress") == 1
        detail = waiting.server.get("/models/alpha").json()
        assert (detail["queue_depth"], detail["requests_in_progress"]) == (0, 1)
        waiting.backend.gate.set()
        thread.join()
        assert metric(waiting.server, "ladabert_requests_in_progress") == 0


@pytest.mark.parametrize("texts", [1, 7])
def test_every_text_is_computed_once(models: Path, texts: int) -> None:
    with gated(models) as waiting:
        waiting.backend.gate.set()
        waiting.server.classify({"inputs": ["a"] * texts})
        assert waiting.backend.rows == texts
