"""Latency of bundled students against their teacher in ONNX Runtime, one thread, taking turns in one run.

python -m benchmarks.latency --teacher DIR models/NAME… [--repeats N] [--json F]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from compression.artefact import read_graph, read_manifest
from compression.bert_graph import build_bert_graph
from compression.evaluation import machine_name, measure_latency
from compression.onnx_session import OnnxSession
from compression.teacher import load_teacher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artefacts", type=Path, nargs="+")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    manifests = {folder: read_manifest(folder) for folder in options.artefacts}
    task = next(iter(manifests.values()))["task"]
    teacher = build_bert_graph(load_teacher(options.teacher).model, task)
    sessions = {"teacher, fp32": OnnxSession(teacher.SerializeToString())}
    for folder, manifest in manifests.items():
        for file, entry in manifest["files"].items():
            if "precision" in entry:
                sessions[f"{manifest['name']}, {entry['precision']}"] = OnnxSession(read_graph(folder, manifest, file))
    table = measure_latency(sessions, 128, repeats=options.repeats)
    medians = {(row["file"], row["batch"], row["tokens"]): row["median_ms"] for row in table}
    shapes = sorted({(row["batch"], row["tokens"]) for row in table})

    print(f"median ms (times the teacher's speed), one thread, {machine_name()}")
    print("| graph | " + " | ".join(f"{batch}×{tokens}" for batch, tokens in shapes) + " |")
    print("|---|" + "---|" * len(shapes))
    for name in sessions:
        cells = [
            f"{medians[name, *shape]:.1f} ({medians['teacher, fp32', *shape] / medians[name, *shape]:.1f}×)"
            for shape in shapes
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": machine_name(), "table": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
