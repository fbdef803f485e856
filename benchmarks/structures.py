"""What fewer heads and rounder ranks bring at the same number of parameters, and what they leave to repair.

python -m benchmarks structures --teacher DIR [--train F] [--repeats N] [--json F]

Times are of students of random weights with a tenth of the teacher's encoder, in int8, everybody in turns in one run: a
clock does not read answers. It is the thread's CPU time that counts, so that the machine may be busy. With ``--train``,
the losses of students cut in one go and not trained, too. All are ``latency-x4.7`` with
all layers but for the keys that are named.
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from benchmarks.evidence.cuts import CutRun, losses_when_cut
from benchmarks.harness.pages import table
from benchmarks.harness.results import Results, origin
from benchmarks.latency import ALL_LAYERS, ENCODER_SHARE, LATENCY_RECIPE, cut, encoder_at, random_ranges
from ladabert_compress.data.batches import encode
from ladabert_compress.data.labels import targets_of
from ladabert_compress.data.reading import read_labelled_texts
from ladabert_compress.graph.encoder import build_bert_graph
from ladabert_compress.graph.plan import GraphPlan
from ladabert_compress.graph.session import OnnxSession
from ladabert_compress.measure.timing import LATENCY_SHAPES, time_in_turns
from ladabert_compress.recipe import Recipe, load_recipe
from ladabert_compress.teacher.folder import Teacher, load_teacher

HEADS = (1.0, 0.5, 0.25, 0.17, 0.08)
RANK_MULTIPLES = (1, 16)
PLAN = GraphPlan(shared_rank_limit=48)  # what export chooses for these ranks
TERMS = ("attention", "hidden", "prediction")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("--teacher", type=Path, required=True, metavar="DIR", help="a fine-tuned BERT")
    parser.add_argument("--train", metavar="F", help="its training rows: measure the losses, too")
    parser.add_argument("--repeats", type=int, default=30, help="rounds")


def measure(options: argparse.Namespace) -> Results:
    """Time the students of every pair of keys, and take their losses where there are rows."""
    torch.set_num_threads(1)
    teacher = load_teacher(options.teacher)
    recipes = {
        f"heads = {heads:g}, rank_multiple = {multiple}": load_recipe(
            LATENCY_RECIPE, {**ALL_LAYERS, "structure.heads": heads, "structure.rank_multiple": multiple}
        )
        for heads in HEADS
        for multiple in RANK_MULTIPLES
    }
    students = {
        name: cut(teacher.model, recipe.structure, lambda shaped: encoder_at(ENCODER_SHARE, teacher.model, shaped))
        for name, recipe in recipes.items()
    }
    sessions = {
        name: OnnxSession(build_bert_graph(student, "single", random_ranges(student), PLAN).SerializeToString())
        for name, student in students.items()
    }
    timings = time_in_turns(sessions, LATENCY_SHAPES, repeats=options.repeats, clock=time.thread_time)
    losses = _losses_when_cut(teacher, recipes, options.train) if options.train else {}
    results = Results("structures", origin("onnxruntime", "torch"), {"repeats": options.repeats})
    base = {timing.shape: timing for timing in timings if timing.name == next(iter(sessions))}
    for name, student in students.items():
        own = [timing for timing in timings if timing.name == name]
        results.add(
            "students",
            name=name,
            parameters=sum(parameter.numel() for parameter in student.parameters()),
            cpu_ms=[timing.median_ms for timing in own],
            times_as_fast=[timing.times_as_fast_as(base[timing.shape]) for timing in own],
            losses=losses.get(name),
        )
    return results


def _losses_when_cut(teacher: Teacher, recipes: Mapping[str, Recipe], train: str) -> dict[str, dict[str, float]]:
    """Return, by recipe, the four terms of the distillation loss right after the cut."""
    texts = read_labelled_texts(train)
    labels = targets_of("--train", texts, teacher.labels, teacher.problem_type)
    data = encode(texts, labels, teacher.tokenizer, next(iter(recipes.values())).training.max_length)
    runs = [CutRun(number, name, recipe) for number, (name, recipe) in enumerate(recipes.items())]
    return {run.title: losses_when_cut(run, teacher, data) for run in runs}


def sections(results: Results) -> dict[str, str]:
    """Return CPU milliseconds, times as fast as the first student, and the losses."""
    rows = []
    for row in results.rows("students"):
        times = [f"{ms:.2f} ({faster:.2f}×)" for ms, faster in zip(row["cpu_ms"], row["times_as_fast"], strict=True)]
        losses = [f"{row['losses'][term]:.3f}" for term in TERMS] if row["losses"] else []
        rows.append([f"`{row['name']}`", *times, ", ".join(losses)])
    head = [f"{texts}×{tokens}" for texts, tokens in LATENCY_SHAPES]
    return {"structures": table(["", *head, "attention, hidden, prediction loss"], rows)}
