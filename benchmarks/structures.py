"""What fewer heads and rounder ranks bring at the same number of parameters, and what they leave to repair.

python -m benchmarks.structures --teacher DIR --json F [--train F] [--repeats N]

Times are of students of random weights with a tenth of the teacher's encoder, in int8, everybody in turns in one run: a
clock does not read answers. It is the thread's CPU time that counts, so that the machine may be busy. With ``--train``,
the losses of students cut in one go and not trained, too. All are ``latency-x8.5`` but for the keys that are named.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import BertForSequenceClassification

from benchmarks.compression.evidence.cuts import CutRun, losses_when_cut
from benchmarks.latency import ENCODER_SHARE, RECIPES, cut, encoder_at, random_ranges
from benchmarks.origin import commit
from compression.batches import encode
from compression.bert_graph import build_bert_graph
from compression.data import read_labelled_texts, targets_of
from compression.graph_plan import GraphPlan
from compression.machine import machine_name
from compression.onnx_session import OnnxSession
from compression.recipe import Recipe, load_recipe
from compression.teacher import Teacher, load_teacher
from compression.timing import LATENCY_SHAPES, time_in_turns

RECIPE = RECIPES / "latency-x8.5.toml"
HEADS = (1.0, 0.5, 0.25, 0.17, 0.08)
RANK_MULTIPLES = (1, 16)
PLAN = GraphPlan(shared_rank_limit=48)  # what export chooses for these ranks
Figures = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True, metavar="DIR", help="a fine-tuned BERT")
    parser.add_argument("--train", metavar="F", help="its training rows: measure the losses, too")
    parser.add_argument("--repeats", type=int, default=30, help="rounds")
    parser.add_argument("--json", type=Path, required=True, metavar="F", help="where the figures go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    teacher = load_teacher(options.teacher)
    recipes = {
        f"heads = {heads:g}, rank_multiple = {multiple}": load_recipe(
            RECIPE, {"structure.heads": heads, "structure.rank_multiple": multiple}
        )
        for heads in HEADS
        for multiple in RANK_MULTIPLES
    }
    figures: Figures = {"machine": machine_name(), "commit": commit(), "repeats": options.repeats}
    figures["students"] = time_students(teacher.model, recipes, options.repeats)
    if options.train is not None:
        for name, losses in cut_losses(teacher, recipes, options.train).items():
            figures["students"][name]["losses"] = losses
    options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(markdown(figures))


def time_students(teacher: BertForSequenceClassification, recipes: Mapping[str, Recipe], repeats: int) -> Figures:
    """By recipe, the student's parameters, its CPU milliseconds, and how many times as fast as the first's it is."""
    students = {
        name: cut(teacher, recipe.structure, lambda shaped: encoder_at(ENCODER_SHARE, teacher, shaped))
        for name, recipe in recipes.items()
    }
    sessions = {
        name: OnnxSession(build_bert_graph(student, "single", random_ranges(student), PLAN).SerializeToString())
        for name, student in students.items()
    }
    timings = time_in_turns(sessions, LATENCY_SHAPES, repeats=repeats, clock=time.thread_time)
    base = {timing.shape: timing for timing in timings if timing.name == next(iter(sessions))}
    return {
        name: {
            "parameters": sum(parameter.numel() for parameter in student.parameters()),
            "cpu_ms": [round(timing.median_ms, 3) for timing in timings if timing.name == name],
            "times_as_fast": [
                round(timing.times_as_fast_as(base[timing.shape]), 3) for timing in timings if timing.name == name
            ],
        }
        for name, student in students.items()
    }


def cut_losses(teacher: Teacher, recipes: Mapping[str, Recipe], train: str) -> dict[str, dict[str, float]]:
    """By recipe, the four terms of the distillation loss right after the cut."""
    texts = read_labelled_texts(train)
    labels = targets_of("--train", texts, teacher.labels, teacher.problem_type)
    data = encode(texts, labels, teacher.tokenizer, next(iter(recipes.values())).training.max_length)
    return {
        name: losses_when_cut(CutRun(number, name, recipe), teacher, data)
        for number, (name, recipe) in enumerate(recipes.items())
    }


def markdown(figures: Figures) -> str:
    """The table for docs/experiments.md."""
    shapes = " | ".join(f"{texts}×{tokens}" for texts, tokens in LATENCY_SHAPES)
    lines = [f"| | {shapes} | attention, hidden, prediction loss |", "|---|" + "---|" * (len(LATENCY_SHAPES) + 1)]
    for name, student in figures["students"].items():
        times = zip(student["cpu_ms"], student["times_as_fast"], strict=True)
        cells = [f"{ms:.2f} ({faster:.2f}×)" for ms, faster in times]
        losses = student.get("losses", {})
        cells.append(", ".join(f"{losses[term]:.3f}" for term in ("attention", "hidden", "prediction") if losses))
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
