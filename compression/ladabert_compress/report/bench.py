"""``ladabert-compress bench``: artefacts, ONNX files, a teacher and the standard tools take turns in one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from ladabert_compress.artefact.reading import read_graphs, read_manifest
from ladabert_compress.data.random_batches import Shape
from ladabert_compress.errors import OptionError
from ladabert_compress.graph.encoder import graph_inputs
from ladabert_compress.graph.session import OnnxSession
from ladabert_compress.measure.machine import machine_name
from ladabert_compress.measure.timing import Runner, time_in_turns
from ladabert_compress.report.operator_profile import profile_operators
from ladabert_compress.report.standard_tools import TorchRunner, standard_graph
from ladabert_compress.student.saved import load_student
from ladabert_compress.teacher.folder import load_teacher
from ladabert_compress.teacher.source import TeacherSource

VERSIONS = ("onnxruntime", "torch", "onnx")


@dataclass(frozen=True)
class Subject:
    """What is timed; its graph, if it has one, can be profiled; ``max_length`` is 0 where it is unknown."""

    name: str
    runner: Runner
    graph: Path | bytes | None = None
    max_length: int = 0


def subjects_of(path: Path) -> list[Subject]:
    """Every graph of an artefact, or one ONNX file.

    Raises:
        OptionError: it is neither, or the graph's inputs are not those of a BERT classifier.
        ExportError: an artefact's file is not what its manifest says.
    """
    if path.suffix == ".onnx" and path.is_file():
        try:
            session = OnnxSession(path, fuse=True)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise OptionError(f"{path}: ONNX Runtime cannot load it: {' '.join(str(error).split())}") from error
        if not set(session.inputs) <= set(graph_inputs("pair")):
            raise OptionError(f"{path}: its inputs are {session.inputs}; expected {', '.join(graph_inputs('pair'))}")
        return [Subject(path.stem, session, path)]
    if not path.is_dir():
        raise OptionError(f"{path}: neither an artefact's folder nor an .onnx file")
    manifest = read_manifest(path)
    names = {file: f"{manifest['name']} {entry.get('precision')}" for file, entry in manifest["files"].items()}
    return [
        Subject(names[file], OnnxSession(graph), graph, manifest["max_length"])
        for file, graph in read_graphs(path, manifest).items()
    ]


def teacher_subjects(source: TeacherSource | Path, task: str) -> list[Subject]:
    """A teacher in PyTorch, and in ONNX Runtime with the usual fusions.

    Raises:
        TeacherError: it cannot be loaded.
    """
    teacher = load_teacher(source)
    limit = teacher.model.config.max_position_embeddings
    graph = standard_graph(teacher.model, task, int8=False).SerializeToString()
    return [
        Subject(f"{teacher.card.name} PyTorch", TorchRunner(teacher.model), None, limit),
        Subject(f"{teacher.card.name} fp32 usual fusions", OnnxSession(graph, fuse=True), graph, limit),
    ]


def standard_subject(run_folder: Path, task: str) -> Subject:
    """What the standard tools make of a run's PyTorch student.

    Raises:
        TeacherError: the folder holds no student.
    """
    model = load_student(run_folder)
    graph = standard_graph(model, task, int8=True).SerializeToString()
    name = f"{run_folder.resolve().name} int8 standard tools"
    return Subject(name, OnnxSession(graph, fuse=True), graph, model.config.max_position_embeddings)


def bench(
    subjects: Sequence[Subject],
    shapes: Sequence[Shape],
    *,
    baseline: str = "",
    repeats: int = 20,
    profile: bool = False,
) -> dict[str, Any]:
    """Median milliseconds of every subject at every shape, and how many times as fast as the baseline it is.

    Args:
        subjects: in the order of the table.
        shapes: texts and tokens of each.
        baseline: a subject's name; the first where it is empty.
        repeats: rounds; in each, every subject has its turn.
        profile: where the graphs' time goes, operator by operator, too.

    Raises:
        OptionError: two subjects have one name, none has the baseline's, or a shape is too long for one.
    """
    names = [subject.name for subject in subjects]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f"two of what is to be measured are called {name!r}; rename one")
    baseline = baseline or names[0]
    if baseline not in names:
        raise OptionError(f"--baseline: {baseline!r} is not measured; there are {', '.join(map(repr, names))}")
    longest = max(tokens for _, tokens in shapes)
    for subject in subjects:
        if 0 < subject.max_length < longest:
            raise OptionError(f"--shapes: {longest} tokens are over the {subject.max_length} of {subject.name}")
    timings = time_in_turns({subject.name: subject.runner for subject in subjects}, shapes, repeats=repeats)
    base = {timing.shape: timing for timing in timings if timing.name == baseline}
    return {
        "machine": machine_name(),
        "threads": 1,
        "repeats": repeats,
        "versions": {name: metadata.version(name) for name in VERSIONS},
        "baseline": baseline,
        "table": [
            {
                "name": timing.name,
                "batch": timing.shape[0],
                "tokens": timing.shape[1],
                "median_ms": round(timing.median_ms, 3),
                "times_baseline": round(timing.times_as_fast_as(base[timing.shape]), 3),
            }
            for timing in timings
        ],
        "profiles": _profiles(subjects, shapes) if profile else [],
    }


def format_bench(figures: dict[str, Any]) -> str:
    """The figures as Markdown: a table of medians, and one of operators for each profile."""
    rows = figures["table"]
    shapes = list(dict.fromkeys((row["batch"], row["tokens"]) for row in rows))
    lines = [
        f"median ms (times as fast as {figures['baseline']}), {figures['threads']} thread, {figures['machine']}",
        "",
        "| | " + " | ".join(f"{batch}×{tokens}" for batch, tokens in shapes) + " |",
        "|---|" + "---|" * len(shapes),
    ]
    for name in dict.fromkeys(row["name"] for row in rows):
        found = [row for row in rows if row["name"] == name]
        cells = [f"{row['median_ms']:.2f} ({row['times_baseline']:.2f}×)" for row in found]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for entry in figures["profiles"]:
        lines += ["", f"{entry['name']} at {entry['batch']}×{entry['tokens']}, ms and share of all operators"]
        lines += [
            f"  {found['operator']:<24} {found['nodes']:>3} nodes {found['ms']:>9.3f} {found['share']:>7.1%}"
            for found in entry["operators"]
        ]
    return "\n".join(lines)


def _profiles(subjects: Sequence[Subject], shapes: Sequence[Shape]) -> list[dict[str, Any]]:
    return [
        {
            "name": subject.name,
            "batch": shape[0],
            "tokens": shape[1],
            "operators": [asdict(entry) for entry in profile_operators(subject.graph, shape)],
        }
        for subject in subjects
        if subject.graph is not None
        for shape in shapes
    ]
