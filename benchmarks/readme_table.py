"""The README's table of the bundled students, from their manifests, what they answered over HTTP and `bench`'s times.

The times without VNNI go into a page of their own.

python -m benchmarks.readme_table
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.serving.table import markers, put_into

REPOSITORY = Path(__file__).parents[1]
README = REPOSITORY / "README.md"
WITHOUT_VNNI = REPOSITORY / "docs" / "performance-without-vnni.md"
RESULTS = Path(__file__).parent / "results"
STUDENTS = ("sst2-ladabert-1", "sst2-ladabert-2", "sst2-ladabert-3", "sst2-ladabert-4", "sst2-latency")
PAPER = {"sst2-ladabert-1": 99.3, "sst2-ladabert-2": 98.2, "sst2-ladabert-3": 96.1, "sst2-ladabert-4": 89.8}  # %
SHAPES = {
    (1, 16): "1 text of 16 tokens",
    (1, 64): "1 text of 64 tokens",
    (8, 32): "8 texts of 32 tokens",
    (32, 16): "32 texts of 16 tokens",
}
GRAPH = "model.int8.onnx"
TIMES = markers("times")
TEACHER_BYTES_PER_PARAMETER = 4  # fp32


def table(manifests: list[dict[str, Any]], served: dict[str, dict[str, Any]], bench: dict[str, Any]) -> str:
    """The table; raises ValueError when figures over HTTP are those of another version."""
    for manifest in manifests:
        if served[manifest["name"]]["version"] != manifest["version"]:
            raise ValueError(f"{manifest['name']}: measured over HTTP at another version; measure it again")
    return "\n".join(f"| {' | '.join(row)} |" for row in _rows(manifests, served, bench)) + "\n"


def _rows(
    manifests: list[dict[str, Any]], served: dict[str, dict[str, Any]], bench: dict[str, Any]
) -> Iterator[list[str]]:
    made = [manifest["compression"] for manifest in manifests]
    answers = [served[manifest["name"]] for manifest in manifests]
    teacher = manifests[0]["teacher"]["parameters"]
    yield ["", "teacher", *(f"×{m['compression']['reached_ratio']:.2g} `{m['name']}`" for m in manifests)]
    yield ["---"] * (len(manifests) + 2)
    yield [
        "non-zero parameters, which the ratio counts",
        _millions(teacher),
        *(_millions(one["nonzero_parameters"]) for one in made),
    ]
    yield ["parameters held, zeros included", _millions(teacher), *(_millions(one["parameters"]) for one in made)]
    yield [
        "graph on disk",
        f"{teacher * TEACHER_BYTES_PER_PARAMETER / 1e6:.1f} MB fp32",
        *(f"{manifest['files'][GRAPH]['bytes'] / 1e6:.1f} MB int8" for manifest in manifests),
    ]
    yield [
        "dev accuracy over HTTP",
        f"{100 * answers[0]['teacher_accuracy']:.2f} % (PyTorch)",
        *(f"{100 * one['accuracy']:.2f} %" for one in answers),
    ]
    yield ["share of the teacher's accuracy (the paper's)", "", *map(_share, answers)]
    yield from _times([manifest["name"] for manifest in manifests], bench)


def times_table(bench: dict[str, Any]) -> str:
    """The students' times alone, and the machine."""
    rows = [["", "teacher", *(f"`{name}`" for name in STUDENTS)], ["---"] * (len(STUDENTS) + 2)]
    rows += _times(STUDENTS, bench)
    return f"{bench['machine']}.\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _times(names: Sequence[str], bench: dict[str, Any]) -> Iterator[list[str]]:
    times = {(row["name"], row["batch"], row["tokens"]): row for row in bench["table"]}
    for shape, title in SHAPES.items():
        own = [times[f"{name} int8", *shape] for name in names]
        yield [
            f"{title}, one thread",
            f"{_milliseconds(times[bench['baseline'], *shape]['median_ms'])} ms",
            *(f"{_milliseconds(one['median_ms'])} ms ({one['times_baseline']:.1f}×)" for one in own),
        ]


def _share(answers: dict[str, Any]) -> str:
    share = f"**{100 * answers['share_of_the_teachers_accuracy']:.1f} %**"
    paper = PAPER.get(answers["model"])
    return share if paper is None else f"{share} ({paper} %)"


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M"


def _milliseconds(value: float) -> str:
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def page() -> str:
    """The README as it should be."""
    manifests = [_read(REPOSITORY / "models" / name / "manifest.json") for name in STUDENTS]
    served = {name: _read(RESULTS / f"{name}-int8-http.json") for name in STUDENTS}
    return put_into(README.read_text(encoding="utf-8"), table(manifests, served, _read(RESULTS / "bench.json")))


def page_without_vnni() -> str:
    """The page on processors without VNNI as it should be."""
    figures = times_table(_read(RESULTS / "bench-without-vnni.json"))
    return put_into(WITHOUT_VNNI.read_text(encoding="utf-8"), figures, "times")


def main() -> None:
    README.write_text(page(), encoding="utf-8")
    WITHOUT_VNNI.write_text(page_without_vnni(), encoding="utf-8")


if __name__ == "__main__":
    main()
