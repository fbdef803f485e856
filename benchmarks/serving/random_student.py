"""Writes a student of random weights as an artefact: what one of that size takes to run, not what it answers.

python -m benchmarks.serving.random_student TEACHER OUT [--encoder 0.1] [--embedding 0.13] [--max-length N]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.serving.teacher import TASK, unmeasured_fields
from compression.artefact import write_artefact
from compression.batches import Batch
from compression.bert_graph import build_bert_graph
from compression.budget import GroupShares
from compression.quantise import calibrate
from compression.student import Student
from compression.teacher import load_teacher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path, help="Hugging Face folder of a fine-tuned BERT, for its shape")
    parser.add_argument("out", type=Path, help="the artefact's folder; its parent holds manifest.schema.json")
    parser.add_argument("--encoder", type=float, default=0.1, help="share of the encoder's parameters in its factors")
    parser.add_argument("--embedding", type=float, default=0.13, help="share of the embeddings' parameters")
    parser.add_argument("--max-length", type=int, default=128)
    options = parser.parse_args()

    torch.manual_seed(0)
    teacher = load_teacher(options.teacher)
    student = Student(load_teacher(options.teacher).model.eval())
    student.cut_at_random(
        {
            "embedding": GroupShares(options.embedding, options.embedding),
            "encoder": GroupShares(options.encoder, options.encoder),
        },
        rank_multiple=1,
    )
    model = student.model.eval()
    ids = torch.randint(model.config.vocab_size, (8, 64))
    ranges = calibrate(model, [Batch(ids, torch.ones_like(ids), torch.zeros_like(ids), ids[:, 0])])
    graphs = {"int8": build_bert_graph(model, TASK, ranges), "fp32": build_bert_graph(model, TASK)}
    size = student.size()
    fields = unmeasured_fields(teacher, options.max_length, size.parameters, size.nonzero_parameters)
    write_artefact(options.out, graphs, teacher.tokenizer.backend_tokenizer, fields)


if __name__ == "__main__":
    main()
