"""What the bundled SST-2 students answer on rows of other domains, beside their teacher.

pip download --no-deps --no-binary :all: vaderSentiment==0.5
python -m benchmarks elsewhere vaderSentiment-0.5.zip --teacher teachers/sst2 --train train.tsv [--write]

The archive holds sentences with the mean of twenty people's ratings from -4 to 4 (Hutto and Gilbert 2014, "VADER: A
Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text"). Its film reviews are left out: SST-2's
sentences come from the same ones.
"""

import argparse
import io
import re
import tarfile
import zipfile
from collections.abc import Collection, Iterable
from pathlib import Path

from tqdm import tqdm

from benchmarks.harness.pages import table
from benchmarks.harness.results import REPOSITORY, Results, origin
from ladabert_compress.artefact.reading import read_manifest
from ladabert_compress.data.reading import read_labelled_texts
from ladabert_compress.data.texts import LabelledTexts
from ladabert_compress.report.evaluation import evaluate

RATINGS = "additional_resources/hutto_ICWSM_2014.tar.gz"
DOMAINS = {
    "products": "amazonReviewSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
    "editorials": "nytEditorialSnippets_GroundTruth.txt",
}
FILMS = "movieReviewSnippets_GroundTruth.txt"  # SST-2's sentences are among them
OVERLAP = 5  # words in a row that two texts have in common if one is taken from the other
TEACHER = "teacher"
CLEAR = 1.0  # a mean rating this far from 0 is called positive or negative; what lies between has no label
LABELS = ("negative", "positive")  # the students' own


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("archive", type=Path, help="vaderSentiment-0.5.zip from the package index")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of the fine-tuned SST-2 teacher")
    parser.add_argument("--train", type=Path, required=True, help="its training rows: none of them is asked")
    parser.add_argument("--models", type=Path, default=REPOSITORY / "models", help="students sst2-* (default models/)")


def measure(options: argparse.Namespace) -> Results:
    """Take the accuracy of the teacher and of each student's default graph on each domain, with their agreement."""
    results = Results("elsewhere", origin("onnxruntime", "torch"))
    students = sorted(
        options.models.glob("sst2-*"), key=lambda folder: float(read_manifest(folder)["compression"]["requested_ratio"])
    )
    known = {normalised(text) for text in read_labelled_texts(str(options.train)).texts}
    for domain, file in DOMAINS.items():
        texts = clear_rows(options.archive, file, known)
        results.add("domains", domain=domain, rows=len(texts), positive=texts.labels.count(LABELS[1]))
        for number, folder in enumerate(tqdm(students, desc=domain, unit="model")):
            found = evaluate(folder, texts, teacher_folder=options.teacher)
            if number == 0:
                results.add("predictions", model=TEACHER, domain=domain, accuracy=found["teacher"]["accuracy"])
            scores = found["files"][read_manifest(folder)["default_file"]]
            figures = {"accuracy": scores["accuracy"], "agreement": scores["agreement"]}
            results.add("predictions", model=folder.name, domain=domain, **figures)
    return results


def clear_rows(archive: Path, file: str, known: Collection[str]) -> LabelledTexts:
    """Return the rows of one file whose rating is clear, but for those whose text is among `known` (normalised)."""
    rated = [(text, rating) for text, rating in rated_rows(archive, file) if abs(rating) >= CLEAR]
    rows = [(text, rating) for text, rating in rated if normalised(text) not in known]
    return LabelledTexts(tuple(text for text, _ in rows), None, tuple(LABELS[rating > 0] for _, rating in rows))


def film_sentences(archive: Path, known: Iterable[str]) -> list[str]:
    """Return the sentences on films that have no words in a row in common with known texts."""
    seen = {run for text in known for run in _runs(text)}
    return [text for text, _ in rated_rows(archive, FILMS) if seen.isdisjoint(_runs(text))]


def _runs(text: str) -> set[tuple[str, ...]]:
    """Return every so many words in a row; a shorter text as a whole."""
    words = re.findall(r"[a-z0-9']+", text.lower())
    return {tuple(words[start : start + OVERLAP]) for start in range(max(1, len(words) - OVERLAP + 1))}


def rated_rows(archive: Path, file: str) -> list[tuple[str, float]]:
    """Return the texts of one file with their mean ratings."""
    with zipfile.ZipFile(archive) as package:
        (ratings,) = [name for name in package.namelist() if name.endswith(RATINGS)]
        packed = package.read(ratings)
    with tarfile.open(fileobj=io.BytesIO(packed)) as members:
        (member,) = [member for member in members.getmembers() if member.name.endswith("/" + file)]
        lines = members.extractfile(member).read().decode("utf-8").splitlines()  # type: ignore[union-attr]
    return [(text, float(rating)) for _, rating, text in (line.split("\t") for line in lines)]


def normalised(text: str) -> str:
    """Return letters and digits alone, so that spacing and case do not hide that two texts are the same."""
    return "".join(character for character in text.lower() if character.isalnum())


def sections(results: Results) -> dict[str, str]:
    """Return where the figures come from, and the table."""
    domains = results.rows("domains")
    heads = [f"{row['domain']}: {row['rows']:,} rows, {row['positive']:,} positive" for row in domains]
    rows = {row["domain"]: row["rows"] for row in domains}
    cells = (
        [model, *(_cell(results, model, {domain: rows[domain]}) for domain in rows), _cell(results, model, rows)]
        for model in results.names("predictions", "model")
    )
    told = f"{results.told()}, {results.origin['machine']}.\n\n"
    return {"elsewhere": told + table(["accuracy (share of the teacher's, the same label)", *heads, "all"], cells)}


def _cell(results: Results, model: str, rows: dict[str, int]) -> str:
    """Return the figures over the rows of these domains together."""

    def mean(model: str, key: str) -> float:
        figures = {row["domain"]: row[key] for row in results.rows("predictions", model=model)}
        return float(100 * sum(figures[domain] * count for domain, count in rows.items()) / sum(rows.values()))

    accuracy = mean(model, "accuracy")
    if model == TEACHER:
        return f"{accuracy:.1f} %"
    return f"{accuracy:.1f} % ({100 * accuracy / mean(TEACHER, 'accuracy'):.1f}, {mean(model, 'agreement'):.1f})"
