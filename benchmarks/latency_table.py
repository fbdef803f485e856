"""docs/latency.md's figures from the JSON of ``benchmarks.latency``.

python -m benchmarks.latency_table [benchmarks/results/latency.json]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.latency import LATENCY, LATENCY_TOOLS, RANKS, RANKS_TOOLS, SIZE, TEACHER_ORT, TEACHER_TORCH
from benchmarks.serving.table import write_page

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results" / "latency.json"
PAGE = REPOSITORY / "docs" / "latency.md"

# Student, what it is over, and the aim at each shape of the smaller model.
AIMS = (
    (LATENCY, TEACHER_TORCH, (12, 8, 8, 11)),
    (LATENCY, TEACHER_ORT, (5.5, 5.5, 6, 7)),
    (LATENCY, LATENCY_TOOLS, (1.3, 1.3, 1.4, 1.5)),
    (RANKS, RANKS_TOOLS, (1.3, 1.3, 1.4, 1.5)),
    (RANKS, TEACHER_ORT, ()),
    (SIZE, TEACHER_ORT, (3, 3, 3, 3)),
)


def markdown(figures: dict[str, Any]) -> str:
    """Where the figures come from, and for each model what is over what, the medians and the profile."""
    sections = [f"`{figures['command']}`, commit {figures['commit']}, {figures['date']}."]
    for name, model in figures["models"].items():
        sections.append("\n".join(_model(name, model)))
    return "\n\n".join(sections) + "\n"


def _model(name: str, model: dict[str, Any]) -> Iterator[str]:
    medians = {(row["name"], row["batch"], row["tokens"]): row["median_ms"] for row in model["table"]}
    shapes = list(dict.fromkeys((row["batch"], row["tokens"]) for row in model["table"]))
    head = " | ".join(f"{batch}×{tokens}" for batch, tokens in shapes)
    versions = ", ".join(f"{package} {version}" for package, version in model["versions"].items())
    millions = model["teacher_parameters"] / 1e6
    yield f"### {name}: {model['layers']} layers, {model['width']} wide, {millions:.1f} M parameters"
    yield ""
    yield f"{model['machine']}, one thread; {model['repeats']} rounds; {versions}."
    yield ""
    yield f"| times as fast (aim) | over | {head} |"
    yield "|---|---|" + "---|" * len(shapes)
    for student, other, aims in AIMS:
        ratios = [medians[(other, *shape)] / medians[(student, *shape)] for shape in shapes]
        cells = (
            [
                f"**{ratio:.1f}** ({aim:g}{'' if ratio >= aim else ', short'})"
                for ratio, aim in zip(ratios, aims, strict=True)
            ]
            if aims
            else [f"**{ratio:.1f}**" for ratio in ratios]
        )
        yield f"| {student} | {other} | " + " | ".join(cells) + " |"
    yield ""
    yield f"| median ms | parameters | file, MB | {head} |"
    yield "|---|---|---|" + "---|" * len(shapes)
    for subject in dict.fromkeys(row["name"] for row in model["table"]):
        owner = subject.split(", ")[0]
        parameters = model["parameters"].get(owner, model["teacher_parameters"]) / 1e6
        size = f"{model['bytes'][subject] / 1e6:.1f}" if subject in model["bytes"] else ""
        cells = [f"{medians[(subject, *shape)]:.2f}" for shape in shapes]
        yield f"| {subject} | {parameters:.1f} M | {size} | " + " | ".join(cells) + " |"
    yield ""
    batch, tokens = shapes[-1]
    parts = [f"{entry['operator']} {entry['share']:.0%}" for entry in model["profile"] if entry["share"] >= 0.01]
    yield f"Where the latency-mode student's time goes at {batch}×{tokens}: {', '.join(parts)}."
    yield ""
    plan = model["plans"][LATENCY]
    yield (
        f"Its graph, chosen by measuring: attention `{plan['attention']}`, in rank space up to rank "
        f"{plan['shared_rank_limit']}."
    )


def main() -> None:
    results = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    write_page(PAGE, markdown(json.loads(results.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
