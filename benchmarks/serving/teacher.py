"""Writes a teacher, uncompressed, as an artefact that the service can serve: the fp32 graph of full size.

python -m benchmarks.serving.teacher TEACHER OUT [--max-length N] [--usual-fusions]

The graph is ours, which is faster than what onnxruntime.transformers.optimizer makes of the exported one: that is what
--usual-fusions writes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from compression.artefact import write_artefact
from compression.bert_graph import LOGITS, build_bert_graph, graph_inputs
from compression.export import check_parity
from compression.standard_tools import standard_graph
from compression.teacher import Teacher, load_teacher

TASK = "single"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path, help="Hugging Face folder of a fine-tuned BERT")
    parser.add_argument("out", type=Path, help="the artefact's folder")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--usual-fusions", action="store_true", help="the graph of onnxruntime.transformers.optimizer")
    options = parser.parse_args()

    teacher = load_teacher(options.teacher)
    model = teacher.model.eval()
    graph = standard_graph(model, TASK, int8=False) if options.usual_fusions else build_bert_graph(model, TASK)
    check_parity(model, graph, options.max_length)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    fields = unmeasured_fields(teacher, options.max_length, parameters, parameters)
    write_artefact(options.out, {"fp32": graph}, teacher.tokenizer.backend_tokenizer, fields)


def unmeasured_fields(teacher: Teacher, max_length: int, parameters: int, nonzero_parameters: int) -> dict[str, Any]:
    """The manifest's fields for a graph that is only there to be timed."""
    total = sum(parameter.numel() for parameter in teacher.model.parameters())
    ratio = total / nonzero_parameters
    return {
        "task": TASK,
        "problem_type": "single_label",
        "labels": list(teacher.labels),
        "max_length": max_length,
        "inputs": list(graph_inputs(TASK)),
        "output": LOGITS,
        "teacher": {
            "name": teacher.card.name,
            "parameters": total,
            "source": teacher.card.source,
            "licence": teacher.card.licence,
        },
        "compression": {
            "method": "none",
            "recipe": {},
            "requested_ratio": ratio,
            "reached_ratio": ratio,
            "parameters": parameters,
            "nonzero_parameters": nonzero_parameters,
        },
        "evaluation": {"data_set": "none", "split": "none", "rows": 1, "teacher_accuracy": 0, "files": {}},
        "latency": {"machine": "none", "threads": 1, "table": []},
        "calibration": {"temperature": 1.0},
    }


if __name__ == "__main__":
    main()
