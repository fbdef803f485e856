"""Students against their teacher and the standard tools: one thread, everybody in turns, one run for each model.

python -m benchmarks.latency --teacher DIR --json benchmarks/results/latency.json [--repeats N]

The students have random weights and the shapes of the recipes named below: a clock does not read answers. The second
model is a BERT-base with random weights. ``python -m benchmarks.latency_table`` writes docs/latency.md from the JSON.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification

from compression.batches import Batch
from compression.bench import Subject, bench
from compression.budget import GroupShares, Shares, solve_shares
from compression.graph_choice import candidate_graphs, choose_graph
from compression.matrices import count_parameters
from compression.onnx_session import OnnxSession
from compression.operator_profile import profile_operators
from compression.quantise import Ranges, calibrate
from compression.recipe import Recipe, StructureRecipe, load_recipe
from compression.standard_tools import TorchRunner, standard_graph
from compression.structure import narrow, set_activation
from compression.student import Student
from compression.teacher import load_teacher
from compression.timing import LATENCY_SHAPES

RECIPES = Path(__file__).parents[1] / "recipes"
LATENCY_RECIPE, SIZE_RECIPE = "latency-x8.5", "ladabert-4"
ENCODER_SHARE, EMBEDDING_SHARE = 0.1, 0.13
TEACHER_TORCH, TEACHER_ORT = "teacher, PyTorch eager fp32", "teacher, ONNX Runtime fp32, usual fusions"
LATENCY = "latency-mode student"
LATENCY_TOOLS = "latency-mode student, standard tools"
RANKS = "ranks alone"
RANKS_TOOLS = "ranks alone, standard tools"
SIZE = "size-mode student"
MAX_LENGTH = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True, metavar="DIR", help="a fine-tuned BERT")
    parser.add_argument("--repeats", type=int, default=15, help="rounds (a third of them for BERT-base)")
    parser.add_argument("--json", type=Path, required=True, metavar="F", help="where the figures go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    teacher = load_teacher(options.teacher)
    figures = {
        "command": "python -m benchmarks.latency " + " ".join(sys.argv[1:]),
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "models": {
            teacher.card.name: measure(teacher.model, options.repeats),
            "BERT-base, random weights": measure(random_bert_base(), max(3, options.repeats // 3)),
        },
    }
    options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def measure(teacher: BertForSequenceClassification, repeats: int) -> dict[str, Any]:
    """Everything that is made of one teacher, timed in one run, with the students' sizes and plans."""
    structure = load_recipe(RECIPES / f"{LATENCY_RECIPE}.toml").structure
    size_recipe = load_recipe(RECIPES / f"{SIZE_RECIPE}.toml")
    latency = cut(teacher, structure, lambda shaped: encoder_at(ENCODER_SHARE, teacher, shaped))
    ranks = cut(teacher, StructureRecipe(), lambda shaped: encoder_at(ENCODER_SHARE, teacher, shaped))
    size = cut(teacher, StructureRecipe(), lambda shaped: _size_shares(shaped, size_recipe))
    graphs = {
        TEACHER_ORT: standard_graph(teacher, "single", int8=False).SerializeToString(),
        LATENCY_TOOLS: standard_graph(latency, "single", int8=True).SerializeToString(),
        RANKS_TOOLS: standard_graph(ranks, "single", int8=True).SerializeToString(),
    }
    plans = {}
    for name, student in ((LATENCY, latency), (RANKS, ranks), (SIZE, size)):
        candidates = candidate_graphs(student, "single", random_ranges(student), "cpu")
        choice = choose_graph(candidates, MAX_LENGTH, repeats=5)
        graphs[name], plans[name] = candidates[choice.plan].SerializeToString(), choice.plan.to_dict()
    subjects = [Subject(TEACHER_TORCH, TorchRunner(teacher))]
    subjects += [Subject(name, OnnxSession(graph, fuse=name not in plans), graph) for name, graph in graphs.items()]
    figures = bench(subjects, LATENCY_SHAPES, baseline=TEACHER_ORT, repeats=repeats)
    return {
        **figures,
        "layers": teacher.config.num_hidden_layers,
        "width": teacher.config.hidden_size,
        "teacher_parameters": count_parameters(teacher).total,
        "plans": plans,
        "parameters": {
            name: sum(parameter.numel() for parameter in student.parameters())
            for name, student in ((LATENCY, latency), (RANKS, ranks), (SIZE, size))
        },
        "bytes": {name: len(graph) for name, graph in graphs.items()},
        "profile": [asdict(entry) for entry in profile_operators(graphs[LATENCY], LATENCY_SHAPES[-1])],
    }


def cut(
    teacher: BertForSequenceClassification,
    structure: StructureRecipe,
    shares: Callable[[BertForSequenceClassification], Shares],
) -> BertForSequenceClassification:
    """A student of random weights."""
    torch.manual_seed(0)
    shaped = narrow(teacher, structure, {}).model
    set_activation(shaped, structure)
    student = Student(shaped, teacher_parameters=count_parameters(teacher).total)
    student.cut_at_random(shares(shaped), structure.rank_multiple)
    student.model.eval()
    return student.model


def encoder_at(share: float, teacher: BertForSequenceClassification, shaped: BertForSequenceClassification) -> Shares:
    """Shares with which the encoder keeps this share of the teacher's encoder, however many neurons are left."""
    rest = share * count_parameters(teacher).encoder / count_parameters(shaped).encoder
    return {"embedding": GroupShares(EMBEDDING_SHARE, EMBEDDING_SHARE), "encoder": GroupShares(rest, rest)}


def random_bert_base() -> BertForSequenceClassification:
    """12 layers, 768 wide; what it answers does not matter."""
    torch.manual_seed(0)
    model: BertForSequenceClassification = BertForSequenceClassification._from_config(
        BertConfig(), attn_implementation="eager"
    )
    model.eval()
    return model


def random_ranges(model: BertForSequenceClassification) -> Ranges:
    """Ranges from random tokens: any scale takes as long."""
    ids = torch.randint(model.config.vocab_size, (8, 32), generator=torch.Generator().manual_seed(0))
    return calibrate(model, [Batch(ids, torch.ones_like(ids), torch.zeros_like(ids), ids[:, 0])])


def _size_shares(model: BertForSequenceClassification, recipe: Recipe) -> Shares:
    return solve_shares(count_parameters(model), recipe.budget)


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
