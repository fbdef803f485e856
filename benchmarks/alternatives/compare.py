"""What a user could take in a student's place: accuracy, agreement with the teacher, bytes and milliseconds.

python -m benchmarks alternatives --teacher DIR --train F --dev F [--models models/NAME …] [--repeats N] [--json F]

TF-IDF and a static embedding of each token, both under logistic regression, learn from the labels and once more from
the teacher's predictions. The teacher passes through ONNX Runtime's tools. Artefacts stand beside them: the students,
the teacher by `export`, and students with fewer layers, whose recipe `python -m benchmarks layers` writes. Times are
the thread's CPU time, everybody in turns in one run. The classifiers of texts are timed on texts of as many words as
the others get tokens, from words to labels; the time of a graph begins with tokens.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.alternatives import chart
from benchmarks.alternatives.texts import StaticEmbeddings, TextClassifier, TextRunner, TfIdf
from benchmarks.alternatives.tools import tool_graphs
from benchmarks.harness.pages import table
from benchmarks.harness.results import Results, Row, origin
from ladabert_compress.artefact.reading import read_graphs, read_manifest
from ladabert_compress.artefact.stored_file import packed_if_smaller
from ladabert_compress.data.batches import EncodedTexts, sample_batches
from ladabert_compress.data.labels import targets_of
from ladabert_compress.data.reading import read_labelled_texts
from ladabert_compress.data.texts import LabelledTexts
from ladabert_compress.errors import OptionError
from ladabert_compress.graph.session import OnnxSession, onnx_logits
from ladabert_compress.measure.inference import predict_logits
from ladabert_compress.measure.predictions import Logits, decide, share_of_equal_rows
from ladabert_compress.measure.timing import LATENCY_SHAPES, Runner, time_in_turns
from ladabert_compress.recipe import TrainingConfig
from ladabert_compress.report.evaluation import encode_rows
from ladabert_compress.teacher.folder import Teacher, load_teacher

RANGE_BATCHES = 16  # of training rows, for the static quantiser: as many as the export reads
MAX_LENGTH = TrainingConfig().max_length
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Alternative:
    """One of what is compared, with its logits on dev."""

    name: str
    runner: Runner
    logits: Logits
    stored_bytes: int
    cpu_seconds: float | None = None  # to make it, the teacher's predictions apart


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("--teacher", type=Path, required=True, metavar="DIR")
    parser.add_argument("--train", required=True, metavar="F")
    parser.add_argument("--dev", required=True, metavar="F")
    parser.add_argument("--models", type=Path, nargs="+", default=[], metavar="DIR", help="artefacts to stand beside")
    parser.add_argument("--repeats", type=int, default=20, help="rounds of the times (default: %(default)s)")


def measure(options: argparse.Namespace) -> Results:
    """Make each alternative, ask it dev, and time it.

    Raises:
        CompressionError: the teacher, a file or an artefact cannot be used, or the task is one of pairs.
    """
    torch.set_num_threads(1)
    teacher = load_teacher(options.teacher)
    train, dev = read_labelled_texts(options.train), read_labelled_texts(options.dev)
    if train.task == "pair" or teacher.problem_type == "multi_label":
        raise OptionError("--train: the alternatives read single texts of one label each")
    length = min(MAX_LENGTH, teacher.model.config.max_position_embeddings)
    train_rows, dev_rows = teacher.encode("--train", train, length), teacher.encode("--dev", dev, length)
    by_teacher = predict_logits(teacher.model, dev_rows, CPU).numpy()
    found = [
        *_of_texts(teacher, train, train_rows, dev),
        *_of_tools(teacher, train_rows, dev_rows),
        *_artefacts(options.models, dev),
    ]
    shapes = [shape for shape in LATENCY_SHAPES if shape[1] <= length]
    runners = {one.name: one.runner for one in found}
    timings = time_in_turns(runners, shapes, repeats=options.repeats, clock=time.thread_time)
    truth = np.asarray(targets_of("--dev", dev, teacher.labels, teacher.problem_type))
    results = Results("alternatives", origin("onnxruntime", "scikit-learn", "torch"), {"repeats": options.repeats})
    results.settings |= {"train_rows": len(train), "dev_rows": len(dev), "shapes": [list(shape) for shape in shapes]}
    for one in found:
        labels = decide(one.logits, truth)
        results.add(
            "alternatives",
            name=one.name,
            accuracy=share_of_equal_rows(labels, truth),
            agreement=share_of_equal_rows(labels, decide(by_teacher, truth)),
            stored_bytes=one.stored_bytes,
            cpu_ms=[timing.median_ms for timing in timings if timing.name == one.name],
            cpu_seconds=one.cpu_seconds,
        )
    return results


def _of_texts(teacher: Teacher, train: LabelledTexts, rows: EncodedTexts, dev: LabelledTexts) -> Iterator[Alternative]:
    given = np.asarray(rows.labels)
    predicted = predict_logits(teacher.model, rows, CPU).numpy().argmax(axis=1)
    for source, labels in (("labels", given), ("teacher", predicted)):
        start = time.process_time()
        tfidf: TextClassifier = TfIdf(train.texts, labels)
        yield _of_text(f"TF-IDF, logistic regression, {source}", tfidf, train, dev, start)
        start = time.process_time()
        static: TextClassifier = StaticEmbeddings(teacher, train.texts, labels)
        yield _of_text(f"static embeddings, logistic regression, {source}", static, train, dev, start)


def _of_text(
    name: str, classifier: TextClassifier, train: LabelledTexts, dev: LabelledTexts, start: float
) -> Alternative:
    spent = time.process_time() - start
    runner = TextRunner(classifier, train.texts)
    return Alternative(name, runner, classifier.logits(dev.texts), classifier.stored_bytes, spent)


def _of_tools(teacher: Teacher, train_rows: EncodedTexts, dev_rows: EncodedTexts) -> Iterator[Alternative]:
    batches = sample_batches(train_rows, RANGE_BATCHES, seed=0)
    for name, model in tool_graphs(teacher, "single", batches).items():
        graph = model.SerializeToString()
        session = OnnxSession(graph, fuse=True)
        yield Alternative(name, session, onnx_logits(session, dev_rows), len(packed_if_smaller(graph)))


def _artefacts(folders: Sequence[Path], dev: LabelledTexts) -> Iterator[Alternative]:
    for folder in folders:
        manifest = read_manifest(folder)
        rows = encode_rows(folder, manifest, dev)
        for file, graph in read_graphs(folder, manifest).items():
            entry = manifest["files"][file]
            session = OnnxSession(graph)
            name = f"`{manifest['name']}`, {entry['precision']}"
            yield Alternative(name, session, onnx_logits(session, rows), entry["bytes"])


def sections(results: Results) -> dict[str, str]:
    """Return the table of all of them."""
    shapes = [f"{texts}×{tokens}" for texts, tokens in results.settings["shapes"]]
    head = ["", "accuracy, agreement, %", "MB", f"CPU ms at {', '.join(shapes)}", "CPU s to make"]
    return {"alternatives": table(head, map(_row, results.rows("alternatives")))}


def draw(results: Results, suffix: str) -> None:
    """Write the chart; a file with a suffix is of another machine and has none."""
    if not suffix:
        chart.draw_all(results)


def _row(row: Row) -> list[str]:
    return [
        row["name"],
        f"{100 * row['accuracy']:.1f}, {100 * row['agreement']:.1f}",
        f"{row['stored_bytes'] / 1e6:.2f}",
        ", ".join(f"{ms:.2f}" for ms in row["cpu_ms"]),
        "–" if row["cpu_seconds"] is None else f"{row['cpu_seconds']:.0f}",
    ]
