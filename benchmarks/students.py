"""The bundled SST-2 students: what they answer over HTTP on labelled rows, and how long they take on one thread.

python -m benchmarks students --teacher DIR [--data dev.tsv] [--repeats N] [--write]

With --data the rows go to a real server, one a request, as a caller would send them, and to the teacher in PyTorch.
Times are medians of a run in which everybody takes turns: every graph, and the teacher in PyTorch and in ONNX Runtime
with the usual fusions.
"""

import argparse
import asyncio
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks import students_chart
from benchmarks.harness.client import Connection, post
from benchmarks.harness.pages import MISSING, table
from benchmarks.harness.results import REPOSITORY, Results, Row, origin
from benchmarks.harness.servers import our_service
from ladabert_compress.data.batches import encode
from ladabert_compress.data.labels import label_ids_of
from ladabert_compress.data.reading import read_labelled_texts
from ladabert_compress.data.texts import LabelledTexts
from ladabert_compress.measure.inference import evaluate_model
from ladabert_compress.measure.timing import LATENCY_SHAPES
from ladabert_compress.recipe import TrainingConfig
from ladabert_compress.report.bench import VERSIONS, bench, subjects_of, teacher_subjects
from ladabert_compress.teacher.folder import load_teacher

MODELS = REPOSITORY / "models"
STUDENTS = ("sst2-x2.5", "sst2-x5", "sst2-x7.5", "sst2-x10", "sst2-latency-x4.7")
PAPER = {"sst2-x2.5": 99.3, "sst2-x5": 98.2, "sst2-x7.5": 96.1, "sst2-x10": 89.8}  # %
GRAPH = "model.int8.onnx"
TEACHER_BYTES_PER_PARAMETER = 4  # fp32


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("--teacher", type=Path, required=True, metavar="DIR", help="folder of the teacher")
    parser.add_argument("--data", metavar="F", help="labelled rows; unset: times alone")
    parser.add_argument("--repeats", type=int, default=20, help="rounds of the times (default: %(default)s)")


def measure(options: argparse.Namespace) -> Results:
    """Ask every student the rows, and time every graph."""
    results = Results("students", origin(*VERSIONS), {"repeats": options.repeats})
    if options.data is not None:
        data = read_labelled_texts(options.data)
        for name, answers in asyncio.run(_ask_all(data)).items():
            manifest = _manifest(name)
            labels = label_ids_of(options.data, data, manifest["labels"])
            right = [manifest["labels"][label] == answer for label, answer in zip(labels, answers, strict=True)]
            teacher, accuracy = _teacher_accuracy(options.teacher, data, labels), statistics.fmean(right)
            about = {"model": name, "version": manifest["version"], "rows": len(data), "accuracy": accuracy}
            share = accuracy / teacher
            results.add("http", **about, teacher_accuracy=teacher, share_of_the_teachers_accuracy=share)
    subjects = teacher_subjects(options.teacher, "single")
    baseline = subjects[-1].name
    subjects += [subject for name in STUDENTS for subject in subjects_of(MODELS / name)]
    results.settings |= {"baseline": baseline, "threads": 1}
    results.tables["times"] = bench(subjects, LATENCY_SHAPES, baseline=baseline, repeats=options.repeats)["table"]
    return results


async def _ask_all(data: LabelledTexts) -> dict[str, list[str]]:
    """Return each student's label for each row, one row a request."""
    found: dict[str, list[str]] = {}
    async with our_service(MODELS) as server:
        connection = await Connection.open(server.port)
        for name in STUDENTS:
            found[name] = []
            for row in tqdm(range(len(data)), desc=name, unit="row"):
                text = data.texts[row]
                inputs = text if data.pairs is None else {"text": text, "text_pair": data.pairs[row]}
                answer = await connection.send(post("/classify", {"inputs": inputs, "model": name}))
                if answer.status != 200:
                    raise SystemExit(f"{name} answered {answer.status} to row {row + 1}")
                found[name].append(answer.json()["predictions"][0]["label"])
        connection.close()
    return found


def _teacher_accuracy(folder: Path, data: LabelledTexts, labels: list[int]) -> float:
    teacher = load_teacher(folder)
    encoded = encode(data, labels, teacher.tokenizer, TrainingConfig().max_length)
    return evaluate_model(teacher.model, encoded, torch.device("cpu"))


def sections(results: Results) -> dict[str, str]:
    """Return the table and the chart's caption, or the table of times alone where nothing was asked over HTTP."""
    if not results.rows("http"):
        names = _timed(results)
        head = ["", "teacher", *(f"`{name}`" for name in names)]
        return {"students": f"{results.origin['machine']}.\n\n" + table(head, _times(results, names))}
    table_of_all = students_table([_manifest(name) for name in STUDENTS], results)
    return {"students": table_of_all, "students-chart": students_chart.caption(results)}


def draw(results: Results, suffix: str) -> None:
    """Write the README's chart; a file with a suffix is of another machine and has none."""
    if not suffix:
        students_chart.draw(results)


def students_table(manifests: list[Row], results: Results) -> str:
    """Return the table; raises ValueError when figures over HTTP are those of another version."""
    names = [manifest["name"] for manifest in manifests]
    answers = [results.rows("http", model=name)[0] for name in names]
    for manifest, answer in zip(manifests, answers, strict=True):
        if answer["version"] != manifest["version"]:
            raise ValueError(f"{manifest['name']}: measured over HTTP at another version; measure it again")
    made = [manifest["compression"] for manifest in manifests]
    teacher = manifests[0]["teacher"]["parameters"]
    teacher_mb = teacher * TEACHER_BYTES_PER_PARAMETER / 1e6
    rows: list[list[str]] = [
        [
            "non-zero parameters, which the ratio counts",
            _millions(teacher),
            *(_millions(one["nonzero_parameters"]) for one in made),
        ],
        ["parameters held, zeros included", _millions(teacher), *(_millions(one["parameters"]) for one in made)],
        [
            "graph on disk",
            f"{teacher_mb:.1f} MB fp32",
            *(f"{manifest['files'][GRAPH]['bytes'] / 1e6:.1f} MB int8" for manifest in manifests),
        ],
        [
            "dev accuracy over HTTP",
            f"{100 * answers[0]['teacher_accuracy']:.2f} % (PyTorch)",
            *(f"{100 * one['accuracy']:.2f} %" for one in answers),
        ],
        ["share of the teacher's accuracy (the paper's)", "", *map(_share, answers)],
        ["the teacher's label", "", *(f"{100 * _agreement(manifest):.1f} %" for manifest in manifests)],
        *_times(results, names),
    ]
    heads = (f"×{one['reached_ratio']:.2g} `{name}`" for one, name in zip(made, names, strict=True))
    return table(["", "teacher", *heads], rows)


def _timed(results: Results) -> list[str]:
    """Return the students of a run, which may be of an earlier version, in its order."""
    names = (row["name"] for row in results.rows("times"))
    return [name for name in dict.fromkeys(name.removesuffix(" int8") for name in names) if name.startswith("sst2-")]


def _agreement(manifest: Row) -> float:
    agreement: float = manifest["evaluation"]["files"][GRAPH]["agreement"]
    return agreement


def _times(results: Results, names: Sequence[str]) -> Iterator[list[str]]:
    """Yield a line of times for each shape; in brackets the teacher's over the student's."""
    for batch, tokens in LATENCY_SHAPES:
        shape = {"batch": batch, "tokens": tokens}
        (teacher,) = results.rows("times", **shape, name=results.settings["baseline"])
        own = [row for name in names for row in results.rows("times", **shape, name=f"{name} int8")]
        cells = [f"{_milliseconds(row['median_ms'])} ms ({row['times_baseline']:.1f}×)" for row in own]
        title = f"{batch} text{'s' if batch > 1 else ''} of {tokens} tokens, one thread"
        yield [title, f"{_milliseconds(teacher['median_ms'])} ms", *cells]


def sections_of_manifests() -> dict[str, str]:
    """Return what `compress` measured of every bundled student, from the manifests, by data set and ratio."""
    found = sorted(
        (_manifest(path.parent.name) for path in MODELS.glob("*/manifest.json")),
        key=lambda manifest: (manifest["evaluation"]["data_set"], manifest["compression"]["requested_ratio"]),
    )
    return {"models": models_table(found), "calibrations": calibrations_table(found)}


def models_table(manifests: list[Row]) -> str:
    """Return sizes, and what the default graph answers on dev."""
    rows = []
    for manifest in manifests:
        made, figures, name = manifest["compression"], manifest["evaluation"], manifest["default_file"]
        scores, teacher = figures["files"][name], figures["teacher_accuracy"]
        rows.append(
            [
                f"`{manifest['name']}`",
                f"×{made['requested_ratio']:g}, ×{made['reached_ratio']:.3f}",
                f"{made['nonzero_parameters'] / 1e6:.2f} of {made['parameters'] / 1e6:.2f} M",
                f"{made['stored_bytes'] / 1e6:.2f} MB, {manifest['files'][name]['precision']}",
                f"{figures['rows']:,}",
                f"{teacher:.4f}, {scores['accuracy']:.4f}",
                f"{100 * scores['accuracy'] / teacher:.1f} %, {100 * scores['agreement']:.1f} %",
            ]
        )
    sizes = ["student", "asked for, reached", "non-zero, of all parameters", "graph on disk"]
    return table([*sizes, "dev: rows", "teacher, student", "share of the teacher's accuracy, the same label"], rows)


def calibrations_table(manifests: list[Row]) -> str:
    """Return the temperature with what it mends, and int8 beside the PyTorch student."""
    rows = []
    for manifest in manifests:
        fitted, figures = manifest["calibration"], manifest["evaluation"]
        accuracies = figures["files"].get(GRAPH, {}).get("accuracy"), figures.get("student_accuracy")
        measured = [fitted.get("ece_before"), fitted.get("ece_after"), *accuracies]
        # An older manifest does not say all of them.
        cells = [MISSING if value is None else f"{value:.4f}" for value in measured]
        rows.append([f"`{manifest['name']}`", f"{fitted.get('rows', 0):,}", f"{fitted['temperature']:.3f}", *cells])
    errors = ["calibration error without it", "with it"]
    return table(["student", "rows of the fit", "temperature", *errors, "accuracy, int8", "accuracy, PyTorch"], rows)


def _manifest(name: str) -> Row:
    found: Row = json.loads((MODELS / name / "manifest.json").read_text(encoding="utf-8"))
    return found


def _share(answers: Row) -> str:
    share = f"**{100 * answers['share_of_the_teachers_accuracy']:.1f} %**"
    paper = PAPER.get(answers["model"])
    return share if paper is None else f"{share} ({paper} %)"


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M"


def _milliseconds(value: float) -> str:
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
