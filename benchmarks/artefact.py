"""Writes an artefact that is there to be timed: a teacher, uncompressed in fp32, or a student of random weights.

python -m benchmarks artefact teacher TEACHER OUT [--usual-fusions] [--max-length N]
python -m benchmarks artefact random TEACHER OUT [--recipe R.toml] [--encoder 0.1] [--max-length N]

The teacher's graph is ours, which is faster than what onnxruntime.transformers.optimizer makes of the exported one:
--usual-fusions writes that one. A random student has a recipe's neurons and activation; its encoder keeps that share of
the teacher's, in equal ranks. Each of its graphs is chosen as an export chooses it, by measuring.
"""

import argparse
from pathlib import Path

from transformers import BertForSequenceClassification

from benchmarks.latency import ENCODER_SHARE, LATENCY_RECIPE, cut, encoder_at, random_ranges
from ladabert_compress.artefact.verification import check_parity
from ladabert_compress.artefact.writing import write_artefact
from ladabert_compress.graph.builder import LOGITS
from ladabert_compress.graph.candidates import candidate_graphs, choose_graph
from ladabert_compress.graph.encoder import build_bert_graph, graph_inputs
from ladabert_compress.recipe import load_recipe
from ladabert_compress.report.standard_tools import standard_graph
from ladabert_compress.teacher.folder import load_teacher

TASK = "single"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("kind", choices=("teacher", "random"))
    parser.add_argument("teacher", type=Path, help="Hugging Face folder of a fine-tuned BERT; for its shape, if random")
    parser.add_argument("out", type=Path, help="the artefact's folder")
    parser.add_argument("--usual-fusions", action="store_true", help="the graph of onnxruntime.transformers.optimizer")
    parser.add_argument("--recipe", default=LATENCY_RECIPE, metavar="NAME|R.toml")
    parser.add_argument("--encoder", type=float, default=ENCODER_SHARE, help="share of the encoder that stays")
    parser.add_argument("--max-length", type=int, default=128)


def prepare(options: argparse.Namespace) -> None:
    """Write the artefact. Its manifest's evaluation and latency say that nothing was measured."""
    teacher = load_teacher(options.teacher)
    model = teacher.model.eval()
    graphs = {}
    if options.kind == "teacher":
        graph = standard_graph(model, TASK, int8=False) if options.usual_fusions else build_bert_graph(model, TASK)
        check_parity(model, graph, options.max_length)
        graphs["fp32"] = graph
    else:
        structure = load_recipe(options.recipe).structure
        model = cut(teacher.model, structure, lambda shaped: encoder_at(options.encoder, teacher.model, shaped))
        for precision, ranges in (("fp32", None), ("int8", random_ranges(model))):
            candidates = candidate_graphs(model, TASK, ranges, "cpu")
            graphs[precision] = candidates[choose_graph(candidates, options.max_length).plan]
    total, held = _parameters(teacher.model), _parameters(model)
    card = teacher.card
    fields = {
        "task": TASK,
        "problem_type": "single_label",
        "labels": list(teacher.labels),
        "max_length": options.max_length,
        "inputs": list(graph_inputs(TASK)),
        "output": LOGITS,
        "teacher": {"name": card.name, "parameters": total, "source": card.source, "licence": card.licence},
        "compression": {
            "method": "none",
            "recipe": {},
            "requested_ratio": total / held,
            "reached_ratio": total / held,
            "parameters": held,
            "nonzero_parameters": held,
        },
        "evaluation": {"data_set": "none", "split": "none", "rows": 1, "teacher_accuracy": 0, "files": {}},
        "latency": {"machine": "none", "threads": 1, "table": []},
        "calibration": {"temperature": 1.0},
    }
    write_artefact(options.out, graphs, teacher.tokenizer.backend_tokenizer, fields)


def _parameters(model: BertForSequenceClassification) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
