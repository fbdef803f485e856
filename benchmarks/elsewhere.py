"""What the bundled SST-2 students answer on rows of other domains, beside their teacher, for docs/bundled-models.md.

    pip download --no-deps --no-binary :all: vaderSentiment==0.5
    python -m benchmarks.elsewhere vaderSentiment-0.5.zip --teacher teachers/sst2 --train train.tsv --write

The archive holds sentences with the mean of twenty people's ratings from -4 to 4 (Hutto and Gilbert 2014, "VADER: A
Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text"). Its film reviews are left out: SST-2's
sentences come from the same ones.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from benchmarks.compression.evidence.table import put_into
from benchmarks.origin import commit
from compression.artefact import read_graph, read_manifest, read_tokenizer
from compression.batches import encode
from compression.data import LabelledTexts, read_labelled_texts, targets_of
from compression.evaluation import onnx_logits, score
from compression.machine import machine_name
from compression.onnx_session import OnnxSession
from compression.teacher import load_teacher
from compression.training import predict_logits

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results" / "elsewhere.json"
PAGE = REPOSITORY / "docs" / "bundled-models.md"
RATINGS = "additional_resources/hutto_ICWSM_2014.tar.gz"
DOMAINS = {
    "products": "amazonReviewSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
    "editorials": "nytEditorialSnippets_GroundTruth.txt",
}
MAX_LENGTH = 128  # tokens that the teacher reads, as many as its students
CLEAR = 1.0  # a mean rating this far from 0 is called positive or negative; what lies between has no label
LABELS = ("negative", "positive")  # the students' own


def clear_rows(archive: Path, file: str, known: Collection[str]) -> LabelledTexts:
    """The rows of one file whose rating is clear, but for those whose text is among ``known`` (normalised)."""
    with zipfile.ZipFile(archive) as package:
        (ratings,) = [name for name in package.namelist() if name.endswith(RATINGS)]
        packed = package.read(ratings)
    with tarfile.open(fileobj=io.BytesIO(packed)) as members:
        (member,) = [member for member in members.getmembers() if member.name.endswith("/" + file)]
        lines = members.extractfile(member).read().decode("utf-8").splitlines()  # type: ignore[union-attr]
    rated = [(text, float(rating)) for _, rating, text in (line.split("\t") for line in lines)]
    rows = [(text, rating) for text, rating in rated if abs(rating) >= CLEAR and normalised(text) not in known]
    return LabelledTexts(tuple(text for text, _ in rows), None, tuple(LABELS[rating > 0] for _, rating in rows))


def normalised(text: str) -> str:
    """Letters and digits alone, so that spacing and case do not hide that two texts are the same."""
    return "".join(character for character in text.lower() if character.isalnum())


def measure(archive: Path, teacher_folder: Path, train: Path, models: Path) -> dict[str, Any]:
    """Accuracy of the teacher and of each student's default graph on each domain, with their agreement."""
    known = {normalised(text) for text in read_labelled_texts(str(train)).texts}
    domains = {name: clear_rows(archive, file, known) for name, file in DOMAINS.items()}
    teacher = load_teacher(teacher_folder)
    students = sorted(models.glob("sst2-*"))
    answers: dict[str, dict[str, Any]] = {name: {} for name in ("teacher", *(folder.name for folder in students))}
    with tqdm(total=len(domains) * len(answers), unit="model") as bar:
        for domain, texts in domains.items():
            targets = targets_of(domain, texts, LABELS, "single_label")
            data = encode(texts, targets, teacher.tokenizer, MAX_LENGTH)
            expected = predict_logits(teacher.model, data, torch.device("cpu")).numpy()
            answers["teacher"][domain] = {"accuracy": score(expected, targets).accuracy}
            bar.update()
            for folder in students:
                manifest = read_manifest(folder)
                tokenizer = PreTrainedTokenizerFast(tokenizer_object=read_tokenizer(folder, manifest))
                targets = targets_of(domain, texts, manifest["labels"], manifest["problem_type"])
                graph = OnnxSession(read_graph(folder, manifest, manifest["default_file"]))
                logits = onnx_logits(graph, encode(texts, targets, tokenizer, manifest["max_length"]))
                scores = score(logits, targets, expected)
                answers[folder.name][domain] = {"accuracy": scores.accuracy, "agreement": scores.agreement}
                bar.update()
    return {
        "command": f"python -m benchmarks.elsewhere {archive.name} --teacher {teacher_folder} --train {train}",
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine_name(),
        "rows": {name: len(texts) for name, texts in domains.items()},
        "positive": {name: texts.labels.count(LABELS[1]) for name, texts in domains.items()},
        "models": answers,
    }


def markdown(figures: dict[str, Any]) -> str:
    """Where the figures come from, and the table."""
    rows, models = figures["rows"], figures["models"]
    heads = [f"{name}: {count:,} rows, {figures['positive'][name]:,} positive" for name, count in rows.items()]
    lines = [
        f"`{figures['command']}`, commit {figures['commit']}, {figures['date']}, {figures['machine']}.",
        "",
        f"| accuracy (share of the teacher's, the same label) | {' | '.join(heads)} | all |",
        "|---" * (len(heads) + 2) + "|",
    ]
    for name, answers in models.items():
        cells = [_cell(answers, models["teacher"], {domain: rows[domain]}) for domain in rows]
        lines.append(f"| {name} | {' | '.join([*cells, _cell(answers, models['teacher'], rows)])} |")
    return "\n".join(lines) + "\n"


def _cell(answers: dict[str, Any], teacher: dict[str, Any], rows: dict[str, int]) -> str:
    """Over the rows of these domains together."""

    def mean(figures: dict[str, Any], key: str) -> float:
        return float(100 * sum(figures[domain][key] * count for domain, count in rows.items()) / sum(rows.values()))

    accuracy, aim = mean(answers, "accuracy"), mean(teacher, "accuracy")
    if answers is teacher:
        return f"{accuracy:.1f} %"
    return f"{accuracy:.1f} % ({100 * accuracy / aim:.1f}, {mean(answers, 'agreement'):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="vaderSentiment-0.5.zip from the package index")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of the fine-tuned SST-2 teacher")
    parser.add_argument("--train", type=Path, required=True, help="its training rows: none of them is asked")
    parser.add_argument("--models", type=Path, default=REPOSITORY / "models", help="students sst2-* (default models/)")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name} and the table of {PAGE.name}")
    options = parser.parse_args()
    figures = measure(options.archive, options.teacher, options.train, options.models)
    print(markdown(figures))
    if options.write:
        RESULTS.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(put_into(page, {"elsewhere": markdown(figures)}), encoding="utf-8")


if __name__ == "__main__":
    main()
