"""One graph to serve, in every layout that a contender reads: ours, plain files, and Infinity's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported

import onnxruntime

from service.artefact import MANIFEST_FILE, SCHEMA_FILE, TOKENIZER_FILE, Artefact, read_artefact
from service.onnx_backend import session_options

TEACHER_MAX_LENGTH = 256


@dataclass(frozen=True, slots=True)
class Graph:
    """An artefact, alone in its models folder, with the default graph."""

    key: str  # `teacher` or `student`
    artefact: Artefact
    peers_file: Path  # the same graph as ONNX Runtime computes it in our service
    infinity: Path  # and that as a Hugging Face folder
    transformers: Path | None  # the PyTorch model that the graph was made of, where a contender runs it

    @property
    def models(self) -> Path:
        """The folder that our service is pointed at."""
        return self.artefact.folder.parent

    @property
    def tokenizer(self) -> Path:
        """The tokenizer.json that every contender loads."""
        return self.artefact.folder / TOKENIZER_FILE

    def describe(self) -> dict[str, Any]:
        """What a reader of the results has to know about it."""
        listed = self.artefact.manifest["files"][self.artefact.graph_file("auto")]
        return {
            "name": self.artefact.name,
            "precision": listed["precision"],
            "bytes": listed["bytes"],
            "sha256": listed["sha256"],
            "max_length": self.artefact.max_length,
        }


def teacher_graph(teacher: Path, schema: Path, folder: Path) -> Graph:
    """Return the teacher at full size in fp32, written below `folder` (by a process that may import torch)."""
    models = folder / "teacher"
    models.mkdir()
    shutil.copy(schema, models / SCHEMA_FILE)
    out = models / "teacher-fp32"
    command = [sys.executable, "-m", "benchmarks.serving.teacher", str(teacher), str(out)]
    subprocess.run([*command, "--max-length", str(TEACHER_MAX_LENGTH)], check=True)
    return _graph("teacher", out, folder / "infinity-teacher", teacher)


def student_graph(source: Path, folder: Path) -> Graph:
    """Return a copy of an artefact below `folder`, its graphs unpacked so that every contender can open them."""
    models = folder / "student"
    models.mkdir()
    shutil.copy(source.parent / SCHEMA_FILE, models / SCHEMA_FILE)
    name = json.loads((source / MANIFEST_FILE).read_text(encoding="utf-8"))["name"]
    shutil.copytree(source, models / name)
    subprocess.run([sys.executable, "-m", "compression", "pack", "--plain", str(models / name)], check=True)
    return _graph("student", models / name, folder / "infinity-student", None)


def _graph(key: str, artefact_folder: Path, infinity: Path, transformers: Path | None) -> Graph:
    artefact = read_artefact(artefact_folder)
    peers_file = infinity.with_suffix(".onnx")
    _write_as_computed(artefact.read(artefact.graph_file("auto")), peers_file)
    graph = Graph(key, artefact, peers_file, infinity, transformers)
    _write_hugging_face_folder(graph)
    return graph


def _write_as_computed(graph: bytes, file: Path) -> None:
    """Write a graph as ONNX Runtime computes it in our service.

    On a processor without VNNI an int8 graph answers wrongly under the options of other servers: docs/artefact.md.
    """
    options = session_options()
    options.optimized_model_filepath = str(file)
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _write_hugging_face_folder(graph: Graph) -> None:
    """Lay the graph out as Infinity's optimum engine expects it; the sizes in its config are not read."""
    (graph.infinity / "onnx").mkdir(parents=True)
    shutil.copy(graph.peers_file, graph.infinity / "onnx" / "model.onnx")
    shutil.copy(graph.tokenizer, graph.infinity / TOKENIZER_FILE)
    labels = graph.artefact.labels
    config = {
        "model_type": "bert",
        "architectures": ["BertForSequenceClassification"],
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    tokenizer = {"tokenizer_class": "BertTokenizerFast", "model_max_length": graph.artefact.max_length}
    (graph.infinity / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (graph.infinity / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
