"""What 7 bits for the weights cost the bundled int8 graphs: their weights are rounded once more, without training.

python -m benchmarks weight-bits --data sst2=dev.tsv mrpc=dev.tsv agnews=test.csv [--write]

Each NAME=F has the rows of the models whose names begin with NAME. With 63 steps a side instead of 127 the sum of two
products fits 16 bits, so that x86 processors without VNNI compute exactly whatever the server's options are.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.harness.pages import table
from benchmarks.harness.results import REPOSITORY, Results, origin
from ladabert_compress.artefact.int8_trial import paired_loss
from ladabert_compress.artefact.reading import read_graph, read_manifest
from ladabert_compress.artefact.stored_file import packed_if_smaller
from ladabert_compress.data.reading import read_labelled_texts
from ladabert_compress.errors import OptionError
from ladabert_compress.graph.session import OnnxSession, onnx_logits
from ladabert_compress.measure.predictions import decide, share_of_equal_rows
from ladabert_compress.report.evaluation import encode_rows

GRAPH = "model.int8.onnx"
STEPS, FEWER_STEPS = 127, 63  # a side, of 8 and of 7 bits


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=F", help="rows by the models' first name")


def measure(options: argparse.Namespace) -> Results:
    """Ask each graph and its rounded copy the rows of its task.

    Raises:
        OptionError: a part of --data has no `=`.
    """
    results = Results("weight-bits", origin("onnxruntime"))
    for prefix, file in _named(options.data):
        texts = read_labelled_texts(file)
        for folder in sorted((REPOSITORY / "models").glob(f"{prefix}-*")):
            manifest = read_manifest(folder)
            rows = encode_rows(folder, manifest, texts)
            whole = read_graph(folder, manifest, GRAPH)
            rounded = with_fewer_steps(onnx.load_from_string(whole)).SerializeToString()
            one, other = (onnx_logits(OnnxSession(graph), rows) for graph in (whole, rounded))
            truth = np.array(rows.labels)
            found = [decide(logits, truth) for logits in (one, other)]
            results.add(
                "students",
                model=manifest["name"],
                version=manifest["version"],
                rows=len(rows),
                accuracy=[share_of_equal_rows(labels, truth) for labels in found],
                standard_error=paired_loss("accuracy", found[0], found[1], truth).standard_error,
                other_labels=int((found[0] != found[1]).sum()),
                stored_bytes=[len(packed_if_smaller(graph)) for graph in (whole, rounded)],
            )
    return results


def with_fewer_steps(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with every weight of its int8 products in 63 steps a side, in place."""
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    rounded: set[str] = set()
    for node in model.graph.node:
        if node.op_type != "MatMulIntegerToFloat" or node.input[1] in rounded:
            continue
        weight, scales = (values[node.input[index]] for index in (1, 3))
        rounded |= {weight.name, scales.name}
        fewer = np.round(numpy_helper.to_array(weight) * (FEWER_STEPS / STEPS)).astype(np.int8)
        wider = (numpy_helper.to_array(scales) * (STEPS / FEWER_STEPS)).astype(np.float32)
        weight.CopyFrom(numpy_helper.from_array(fewer, weight.name))
        scales.CopyFrom(numpy_helper.from_array(wider, scales.name))
    return model


def _named(data: Sequence[str]) -> list[tuple[str, str]]:
    parts = [part.partition("=") for part in data]
    for name, equals, _ in parts:
        if not equals:
            raise OptionError(f"--data {name}: name the models, too, as sst2=dev.tsv does")
    return [(name, file) for name, _, file in parts]


def sections(results: Results) -> dict[str, str]:
    """Return accuracy with either, what changes, and the bytes."""
    rows = []
    for row in results.rows("students"):
        (eight, seven), (before, after) = row["accuracy"], row["stored_bytes"]
        cost = f"{100 * (eight - seven):.2f} ± {100 * row['standard_error']:.2f}"
        labels = f"{row['other_labels']} of {row['rows']:,}"
        smaller = f"{100 * (after / before - 1):+.0f} %".replace("-", "−")
        rows.append([f"`{row['model']}`", f"{eight:.4f}", f"{seven:.4f}", cost, labels, smaller])
    head = ["student", "8 bits", "7 bits", "points lost", "rows with another label", "file at 7 bits"]
    return {"weight-bits": table(head, rows)}
