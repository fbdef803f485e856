"""A server in this process whose model runs when told, and what its metrics say."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ladabert_serve.backends.backend import FloatArray, IntArray
from ladabert_serve.models.artefact import TOKENIZER_FILE, Artefact
from ladabert_serve.models.inference import Inference
from ladabert_serve.models.tokenizer import TextTokenizer
from ladabert_serve.settings import Provider
from tests.service.conftest import Server, serving


class GatedBackend:
    """Answers zeros once the gate is open; counts rows, and says when a run stands at the gate."""

    provider = "cpu"

    def __init__(self, labels: int) -> None:
        self.labels = labels
        self.gate = threading.Event()
        self.at_gate = threading.Semaphore(0)
        self.rows = 0
        self.spoil: Callable[[FloatArray], FloatArray] = lambda logits: logits

    def run(self, input_ids: IntArray, attention_mask: IntArray, token_type_ids: IntArray) -> FloatArray:
        """Wait for the gate, then count."""
        self.at_gate.release()
        assert self.gate.wait(timeout=30)
        self.rows += len(input_ids)
        return self.spoil(np.zeros((len(input_ids), self.labels), dtype=np.float32))


class Gated:
    """A server whose model runs when told."""

    def __init__(self) -> None:
        self.backend = GatedBackend(2)
        self.server: Server

    def load(self, artefact: Artefact, file: str, provider: Provider) -> Inference:
        """Be the loader of `create_app`."""
        tokenizer = TextTokenizer(artefact.read(TOKENIZER_FILE), artefact.max_length)
        return Inference(artefact, tokenizer, self.backend)

    def ask(self, inputs: Any = "a", request_id: str = "", **fields: Any) -> "threading.Thread":
        """Send a request from a thread of its own; its answer is put into `answers`."""

        def send() -> None:
            headers = {"x-request-id": request_id}
            self.answers.append(self.server.classify({"inputs": inputs, **fields}, headers=headers))

        thread = threading.Thread(target=send)
        thread.start()
        return thread

    answers: list[Any]

    def wait_at_gate(self) -> None:
        """Wait until a run stands at the gate."""
        assert self.backend.at_gate.acquire(timeout=30)

    def wait_for_depth(self, depth: int) -> None:
        """Wait until so many requests are queued."""
        batcher = self.server.app.state.services.registry.get(None).batcher
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
