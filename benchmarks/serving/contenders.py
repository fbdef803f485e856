"""The servers that are compared: how each is started, asked and understood."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
PEERS = Path(__file__).parent / "peers"
MODULES_FOLDER = Path(__file__).resolve().parents[2]
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
MODEL = "model"  # the name under which Infinity serves


@dataclass(frozen=True, slots=True)
class Contender:
    """One server; `command` gets the graph and a port."""

    name: str
    path: str
    command: Callable[[Graph, int], Sequence[str]]
    body: Callable[[str | list[str]], Any]
    labels: Callable[[Any], list[str]]  # of an answer, one per text
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=lambda: OFFLINE)
    talks: bool = False  # answers lines on its standard input


def contenders(ours: Sequence[str], environments: Path | None) -> list[Contender]:
    """Return every server that serves the ONNX file; LitServe and Infinity only with their environments."""
    found = [_ours(OURS, "cpu", ours), _script("fastapi", "/classify", "fastapi_onnx.py", sys.executable)]
    if environments is not None:
        litserve, infinity = (str(_python(environments, name)) for name in ("litserve", "infinity"))
        found.append(_script("litserve", "/predict", "litserve_onnx.py", litserve))
        found.append(_infinity(infinity))
    return found


def _python(environments: Path, name: str) -> Path:
    """Return a peer's interpreter; raises SystemExit when it was not installed."""
    python = python_of(environments.absolute(), name)
    if not python.exists():
        raise SystemExit(f"{python}: not found; run: python -m benchmarks.serving.environments {environments}")
    return python


def ours_on_openvino(options: Sequence[str]) -> Contender | None:
    """Return our service where OpenVINO computes the same ONNX file; None when it is not installed."""
    if importlib.util.find_spec("openvino") is None:
        return None
    return _ours(OURS_OPENVINO, "openvino", options)


def _ours(name: str, provider: str, options: Sequence[str]) -> Contender:
    return Contender(
        name,
        "/classify",
        lambda graph, port: [
            *(sys.executable, "-m", "service", "--models", str(graph.models), "--port", str(port)),
            *("--provider", provider, *options),
        ],
        body=lambda inputs: {"inputs": inputs},
        labels=_our_labels,
    )


def timed_service() -> Contender:
    """Our service with a stop watch around tokenizer and model; it tells its counters when asked."""
    return Contender(
        "timed",
        "/classify",
        lambda graph, port: [sys.executable, "-m", "benchmarks.serving.timed_service", str(graph.models), str(port)],
        body=lambda inputs: {"inputs": inputs},
        labels=_our_labels,
        talks=True,
    )


def pipeline() -> Contender:
    """Return the server that runs PyTorch instead of the ONNX file."""

    def command(graph: Graph, port: int) -> list[str]:
        script = str(PEERS / "fastapi_transformers.py")
        options = ["--model", str(graph.transformers), "--max-length", str(graph.artefact.max_length)]
        return [sys.executable, script, *options, "--port", str(port)]

    return Contender(PIPELINE, "/classify", command, _text_body, _one_label)


def _script(name: str, path: str, script: str, python: str) -> Contender:
    def command(graph: Graph, port: int) -> list[str]:
        options = ["--graph", str(graph.peers_file), "--tokenizer", str(graph.tokenizer)]
        options += ["--max-length", str(graph.artefact.max_length), "--port", str(port)]
        return [python, str(PEERS / script), *options, "--labels", *graph.artefact.labels]

    return Contender(name, path, command, _text_body, _one_label, python)


def _infinity(python: str) -> Contender:
    return Contender(
        "infinity",
        "/classify",
        lambda graph, port: [
            *(str(Path(python).parent / "infinity_emb"), "v2", "--model-id", str(graph.infinity)),
            *("--served-model-name", MODEL, "--engine", "optimum", "--device", "cpu", "--no-model-warmup"),
            *("--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"),
        ],
        body=lambda inputs: {"model": MODEL, "input": inputs if isinstance(inputs, list) else [inputs]},
        labels=lambda answer: [max(scores, key=_score)["label"] for scores in answer["data"]],
        python=python,
        environment={**OFFLINE, "INFINITY_DISK_CACHE": "false", "INFINITY_ANONYMOUS_USAGE_STATS": "0"},
    )


def _text_body(inputs: str | list[str]) -> dict[str, str]:
    assert isinstance(inputs, str)
    return {"text": inputs}


def _one_label(answer: Any) -> list[str]:
    return [answer["label"]]


def _our_labels(answer: Any) -> list[str]:
    return [prediction["label"] for prediction in answer["predictions"]]


def _score(entry: Mapping[str, Any]) -> float:
    return float(entry["score"])
