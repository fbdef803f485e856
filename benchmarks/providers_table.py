"""docs/providers.md's figures from the JSON of ``benchmarks.providers``.

python -m benchmarks.providers_table [benchmarks/results/providers.json]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.providers import BASELINE, BATCH_SIZE
from benchmarks.serving.table import write_page

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results" / "providers.json"
PAGE = REPOSITORY / "docs" / "providers.md"
STUDENT = "latency-x10 fp32 openvino"  # that of `benchmarks.serving.random_student`
AIM = 8  # times the baseline at each of the shapes below
AIM_AT = ("1×16", "1×64", "8×32", "32×16")


def markdown(figures: dict[str, Any]) -> str:
    """Where the figures come from, whether the aim is met, the medians, and what was answered."""
    sections = [_about(figures["about"])]
    medians = {(row["name"], row["workload"]): row["median_ms"] for row in figures["latency"]}
    if all((STUDENT, shape) in medians for shape in AIM_AT):
        sections.append(_verdict(medians))
    if medians:
        sections.append("\n".join(_latency(medians)))
    if figures["answers"]:
        sections.append("\n".join(_answers(figures["answers"])))
    return "\n\n".join(sections) + "\n"


def _about(about: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    where = f"{about['machine']}, one thread on {about['cores']} of them; {versions}."
    return f"`{about['command']}`, commit {about['commit']}, {about['date']}.\n{where}"


def _verdict(medians: dict[tuple[str, str], float]) -> str:
    ratios = {shape: medians[(BASELINE, shape)] / medians[(STUDENT, shape)] for shape in AIM_AT}
    reached = ", ".join(f"{ratio:.1f} at {shape}" for shape, ratio in ratios.items())
    short = [shape for shape, ratio in ratios.items() if ratio < AIM]
    verdict = f"missed at {' and '.join(short)}" if short else "met"
    return f"The aim, {AIM} times the baseline's speed for `{STUDENT}`, is **{verdict}**: {reached}."


def _latency(medians: dict[tuple[str, str], float]) -> Iterator[str]:
    workloads = list(dict.fromkeys(workload for _, workload in medians))
    yield "| median ms (times the baseline's speed) | " + " | ".join(workloads) + " |"
    yield "|---|" + "---|" * len(workloads)
    for name in dict.fromkeys(name for name, _ in medians):
        cells = [
            f"{medians[(name, workload)]:.2f} ({medians[(BASELINE, workload)] / medians[(name, workload)]:.1f}×)"
            for workload in workloads
        ]
        yield f"| {name} | " + " | ".join(cells) + " |"


def _answers(answers: list[dict[str, Any]]) -> Iterator[str]:
    yield (
        f"| {answers[0]['rows']} rows of dev, one at a time | accuracy | same label as ONNX Runtime "
        f"| a score moves in batches of {BATCH_SIZE} by up to |"
    )
    yield "|---|---|---|---|"
    for row in answers:
        same = row["same_label_as_onnx_runtime"]
        cells = [f"{row['accuracy']:.2%}", "–" if same is None else f"{same:.2%}", f"{row['score_moves_in_batches']:g}"]
        yield f"| {row['name']} | " + " | ".join(cells) + " |"


def main() -> None:
    results = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    write_page(PAGE, markdown(json.loads(results.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
