"""Writes a latency-mode student of random weights as an artefact: what it takes to run, not what it answers.

python -m benchmarks.serving.random_student TEACHER OUT [--recipe R.toml] [--encoder 0.1] [--max-length N]

Its neurons and activation are the recipe's; its encoder keeps that share of the teacher's, in equal ranks. Each graph
is chosen as an export chooses it, by measuring.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.latency import ENCODER_SHARE, LATENCY_RECIPE, RECIPES, cut, encoder_at, random_ranges
from benchmarks.serving.teacher import TASK, unmeasured_fields
from compression.artefact import write_artefact
from compression.graph_choice import candidate_graphs, choose_graph
from compression.recipe import load_recipe
from compression.teacher import load_teacher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path, help="Hugging Face folder of a fine-tuned BERT, for its shape")
    parser.add_argument("out", type=Path, help="the artefact's folder")
    parser.add_argument("--recipe", type=Path, default=RECIPES / f"{LATENCY_RECIPE}.toml", metavar="R.toml")
    parser.add_argument("--encoder", type=float, default=ENCODER_SHARE, help="share of the encoder that stays")
    parser.add_argument("--max-length", type=int, default=128)
    options = parser.parse_args()

    teacher = load_teacher(options.teacher)
    structure = load_recipe(options.recipe).structure
    student = cut(teacher.model, structure, lambda shaped: encoder_at(options.encoder, teacher.model, shaped))
    graphs = {}
    for precision, ranges in (("fp32", None), ("int8", random_ranges(student))):
        candidates = candidate_graphs(student, TASK, ranges, "cpu")
        graphs[precision] = candidates[choose_graph(candidates, options.max_length).plan]
    parameters = sum(parameter.numel() for parameter in student.parameters())
    fields = unmeasured_fields(teacher, options.max_length, parameters, parameters)
    write_artefact(options.out, graphs, teacher.tokenizer.backend_tokenizer, fields)


if __name__ == "__main__":
    main()
