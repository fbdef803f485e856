"""One graph to serve, in every layout that a contender reads: ours, plain files, and Infinity's."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from ladabert_serve.backends.onnx_runtime import session_options
from ladabert_serve.models.artefact import MANIFEST_FILE, TOKENIZER_FILE, Artefact, read_artefact

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
        """Return what a reader of the results has to know about it."""
        listed = self.artefact.manifest["files"][self.artefact.graph_file("auto")]
        facts = {name: listed[name] for name in ("precision", "bytes", "sha256")}
        return {"name": self.artefact.name, **facts, "max_length": self.artefact.max_length}


def teacher_graph(teacher: Path, folder: Path) -> Graph:
    """Return the teacher at full size in fp32, written below `folder` (by a process that may import torch)."""
    (folder / "teacher").mkdir()
    out = folder / "teacher" / "teacher-fp32"
    command = [sys.executable, "-m", "benchmarks", "artefact", "teacher", str(teacher), str(out)]
    subprocess.run([*command, "--max-length", str(TEACHER_MAX_LENGTH)], check=True)
    return _graph("teacher", out, folder / "infinity-teacher", teacher)


def student_graph(source: Path, folder: Path) -> Graph:
    """Return a copy of an artefact below `folder`, its graphs unpacked so that every contender can open them."""
    models = folder / "student"
    models.mkdir()
    name = json.loads((source / MANIFEST_FILE).read_text(encoding="utf-8"))["name"]
    shutil.copytree(source, models / name)
    subprocess.run([sys.executable, "-m", "ladabert_compress", "pack", "--plain", str(models / name)], check=True)
    return _graph("student", models / name, folder / "infinity-student", None)


def _graph(key: str, artefact_folder: Path, infinity: Path, transformers: Path | None) -> Graph:
    artefact = read_artefact(artefact_folder)
    graph = Graph(key, artefact, infinity.with_suffix(".onnx"), infinity, transformers)
    # As ONNX Runtime computes it in our service: on a processor without VNNI an int8 graph answers wrongly under the
    # options of other servers, see docs/reference/artefact.md.
    options = session_options()
    options.optimized_model_filepath = str(graph.peers_file)
    onnxruntime.InferenceSession(artefact.read(artefact.graph_file("auto")), options, ["CPUExecutionProvider"])
    _write_hugging_face_folder(graph)
    return graph


def _write_hugging_face_folder(graph: Graph) -> None:
    """Lay the graph out as Infinity's optimum engine expects it; the sizes in its config are not read."""
    (graph.infinity / "onnx").mkdir(parents=True)
    shutil.copy(graph.peers_file, graph.infinity / "onnx" / "model.onnx")
    shutil.copy(graph.tokenizer, graph.infinity / TOKENIZER_FILE)
    labels = dict(enumerate(graph.artefact.labels))
    config = {
        "model_type": "bert",
        "architectures": ["BertForSequenceClassification"],
        "id2label": labels,
        "label2id": {label: index for index, label in labels.items()},
    }
    tokenizer = {"tokenizer_class": "BertTokenizerFast", "model_max_length": graph.artefact.max_length}
    (graph.infinity / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (graph.infinity / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
