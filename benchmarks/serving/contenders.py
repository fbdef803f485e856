"""The servers that are compared: how each is started, asked and understood."""

import importlib.util
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness.client import ask, post
from benchmarks.harness.servers import Server, started
from benchmarks.harness.texts import shuffled
from benchmarks.serving.environments import python_of
from benchmarks.serving.graphs import Graph

OURS = "ladabert"
OURS_OPENVINO = "ladabert-openvino"
LIMIT = "limit"
PIPELINE = "transformers"
TITLES = {
    LIMIT: "in-process limit",
    OURS: "LadaBERT",
    OURS_OPENVINO: "LadaBERT, `--provider openvino`",
    "fastapi": "FastAPI + ONNX Runtime",
    "litserve": "LitServe",
    "infinity": "Infinity",
    PIPELINE: "FastAPI + transformers.pipeline",
}
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
INFINITY = {"INFINITY_DISK_CACHE": "false", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
MODEL = "model"  # the name under which Infinity serves
MARK = b'"label"'  # in every contender's answer, a fixed number of times per text
Inputs = str | list[str]


@dataclass(frozen=True, slots=True)
class Contender:
    """One server; `command` gets the graph and a port, `labels` an answer: one label per text."""

    name: str
    command: Callable[[Graph, int], Sequence[object]]
    path: str = "/classify"
    body: Callable[[Inputs], Any] = lambda inputs: {"text": inputs}
    labels: Callable[[Any], list[str]] = lambda answer: [answer["label"]]
    environment: Mapping[str, str] = field(default_factory=dict)
    talks: bool = False

    def start(self, graph: Graph) -> AbstractAsyncContextManager[Server]:
        """Start it for a graph."""
        variables = {**os.environ, **OFFLINE, **self.environment}
        name, request = f"{self.name} ({graph.key})", self.request("a good film")
        return started(name, lambda port: [*map(str, self.command(graph, port))], request, variables, talks=self.talks)

    def request(self, inputs: Inputs) -> bytes:
        """Return the request that asks for these texts."""
        return post(self.path, self.body(inputs))

    async def check(self, server: Server, texts: Sequence[str], labels: Sequence[str]) -> int:
        """Hold it to the labels that the graph gives; return how many marks an answer holds. Raises SystemExit."""
        for text, expected in zip(texts, labels, strict=True):
            answer = await ask(server.port, self.request(text))
            given = self.labels(answer.json()) if answer.status == 200 else []
            if given != [expected]:
                raise SystemExit(f"{server.name} answered {given or answer.body!r}, not {expected!r}, to {text!r}")
        return answer.body.count(MARK)


class Kinds:
    """Requests of one or several kinds, given by name, in a fixed random order; and of which kind an answer is."""

    def __init__(self, contender: Contender, marks_per_text: int, **inputs: Sequence[Inputs]) -> None:
        asked = [(kind, value) for kind, values in inputs.items() for value in values]
        self._about = {
            contender.request(value): (kind, marks_per_text * (len(value) if isinstance(value, list) else 1))
            for kind, value in asked
        }
        self.requests: Iterator[bytes] = itertools.cycle(shuffled(list(self._about)))

    def kind_of(self, request: bytes, status: int, body: bytes) -> str | None:
        """Return the kind of a request; None when its answer is not right."""
        kind, marks = self._about[request]
        return kind if status == 200 and body.count(MARK) == marks else None


def contenders(ours: Sequence[str], peers: Path | None, graph: Graph) -> list[Contender]:
    """Return every server that serves this graph, ours first; LitServe and Infinity only with their environments.

    The graph in PyTorch and with OpenVINO, which is for fp32, only where there is the PyTorch model.
    """
    found = [_ours(OURS, ["--provider", "cpu", *ours]), _script("fastapi", "fastapi_onnx")]
    if peers is not None:
        found.append(_script("litserve", "litserve_onnx", python_of(peers, "litserve"), "/predict"))
        found.append(_infinity(python_of(peers, "infinity").parent / "infinity_emb"))
    if graph.transformers is not None:
        found.append(_script(PIPELINE, "fastapi_transformers", model=lambda graph: graph.transformers))
        if importlib.util.find_spec("openvino") is not None:
            found.append(_ours(OURS_OPENVINO, ["--provider", "openvino", *ours]))
    return found


def timed_service() -> Contender:
    """Return our service with a stop watch around tokenizer and model; it tells its counters when asked."""
    return _ours("timed", ["--provider", "cpu"], ("benchmarks.harness.altered_service", "timed"), talks=True)


def _ours(
    name: str, options: Sequence[str], module: Sequence[str] = ("ladabert_serve",), *, talks: bool = False
) -> Contender:
    return Contender(
        name,
        lambda graph, port: [sys.executable, "-m", *module, "--models", graph.models, "--port", port, *options],
        body=lambda inputs: {"inputs": inputs},
        labels=lambda answer: [prediction["label"] for prediction in answer["predictions"]],
        talks=talks,
    )


def _script(
    name: str,
    module: str,
    python: str | Path = sys.executable,
    path: str = "/classify",
    model: Callable[[Graph], Path | None] = lambda graph: graph.peers_file,
) -> Contender:
    def command(graph: Graph, port: int) -> list[object]:
        options = ["--model", model(graph), "--tokenizer", graph.tokenizer, "--max-length", graph.artefact.max_length]
        start = [python, "-m", f"benchmarks.serving.peers.{module}", *options, "--port", port]
        return [*start, "--labels", *graph.artefact.labels]

    return Contender(name, command, path)


def _infinity(program: Path) -> Contender:
    def best(scores: list[dict[str, Any]]) -> str:
        return str(max(scores, key=lambda entry: float(entry["score"]))["label"])

    return Contender(
        "infinity",
        lambda graph, port: [
            *(program, "v2", "--model-id", graph.infinity, "--served-model-name", MODEL, "--engine", "optimum"),
            *("--device", "cpu", "--no-model-warmup", "--host", "127.0.0.1", "--port", port, "--log-level", "warning"),
        ],
        body=lambda inputs: {"model": MODEL, "input": inputs if isinstance(inputs, list) else [inputs]},
        labels=lambda answer: [best(scores) for scores in answer["data"]],
        environment=INFINITY,
    )
