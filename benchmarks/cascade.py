"""What a cascade is worth: how often it answers as its last stage does, and how many requests it answers a second.

python -m benchmarks cascade --data rows.tsv [--others dev.tsv …] [--stages models/A models/B] [--student models/S]
                             [--agreement 0.99] [--confidence 0.95] [--rounds 9] [--seconds 4] [--quick] [--write]

--data vaderSentiment-0.5.zip stands for its sentences on films that have no five words in a row in common with the rows
of --without, which are to be those that the models have learnt from.

Thresholds are chosen on half of the rows. One server then answers the other half and the other files, as the cascade,
as each stage and as the student. Its throughput is that of callers who send these sentences, one or a list of them at a
time: the models take turns, and a ratio is taken within a round. At last, thresholds are chosen on other random halves
and judged on what they left out.
"""

import argparse
import asyncio
import itertools
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.elsewhere import film_sentences
from benchmarks.harness.client import Connection, post
from benchmarks.harness.load import closed_loop
from benchmarks.harness.pages import table
from benchmarks.harness.results import REPOSITORY, Results, origin
from benchmarks.harness.servers import our_service
from benchmarks.harness.statistics import turns
from benchmarks.harness.texts import shuffled
from ladabert_compress.artefact.cascade import read_stages, write_cascade
from ladabert_compress.cli.options import data_set_name
from ladabert_compress.data.reading import read_texts
from ladabert_compress.data.texts import Texts
from ladabert_compress.errors import DataError
from ladabert_compress.measure.intervals import interval
from ladabert_compress.measure.routing import StageAnswers, route
from ladabert_compress.search.cascade import cascade
from ladabert_compress.search.thresholds import Target, choose_thresholds, meets

CASCADE = "cascade"
MODELS = REPOSITORY / "models"
CALLERS = 32
WARM_UP_S = 1.0
LIST = 32  # texts of a request, where no time is taken
SIZES = (1, 16)  # texts of a request, where it is
HALVES = 20
LEAST_OVER_LAST = 3.0
LEAST_HALVES = 0.9

Predictions = list[dict[str, Any]]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("--data", required=True, metavar="F", help="rows on whose halves thresholds are chosen")
    parser.add_argument("--without", nargs="*", default=[], metavar="F", help="known rows, where --data is the archive")
    parser.add_argument("--others", nargs="*", default=[], metavar="F", help="rows for the agreement alone")
    stages = [MODELS / "sst2-latency-x4.7", MODELS / "sst2-x2.5"]
    parser.add_argument("--stages", nargs="+", type=Path, default=stages, metavar="DIR", help="of the cascade")
    student = MODELS / "sst2-x5"
    parser.add_argument("--student", type=Path, default=student, metavar="DIR", help="to compare the cascade with")
    parser.add_argument("--agreement", type=float, default=0.99, help="the target (default: %(default)s)")
    parser.add_argument("--confidence", type=float, default=0.95, help="that other rows meet it (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each point (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="two rounds of one second")


def measure(options: argparse.Namespace) -> Results:
    """Make the cascade, ask everybody, and take turns in answering as fast as each can."""
    with tempfile.TemporaryDirectory(prefix="ladabert-cascade-") as folder:
        models = Path(folder)
        for source in {*options.stages, options.student}:
            shutil.copytree(source, models / source.name)
        stages = read_stages([models / source.name for source in options.stages], models / CASCADE)
        chosen_on, texts_chosen_on = _rows(options.data, options.without)
        rows = {chosen_on: texts_chosen_on}
        rows |= {data_set_name(source): read_texts(source) for source in options.others}
        if len(rows) <= len(options.others) or any(texts.task != "single" for texts in rows.values()):
            raise DataError("--data and --others: name different files of single texts")
        target = Target("agreement", options.agreement)
        about = {"name": CASCADE, "data_set": chosen_on, "confidence": options.confidence}
        manifest, _ = cascade(stages, rows[chosen_on], target, **about)
        write_cascade(models / CASCADE, manifest)
        settings = {
            "stages": [stage.name for stage in stages],
            "student": options.student.name,
            "agreement": options.agreement,
            "confidence": options.confidence,
            "data": chosen_on,
            "rows_chosen_on": manifest["evaluation"]["rows_chosen_on"],
            "callers": CALLERS,
            "seconds": 1.0 if options.quick else options.seconds,
        }
        results = Results("cascade", origin("onnxruntime"), settings)
        texts = {name: list(found.texts) for name, found in rows.items()}
        costs = tuple(manifest["evaluation"]["median_ms"])
        asyncio.run(_measure(results, models, texts, costs, rounds=2 if options.quick else options.rounds))
    return results


def _rows(source: str, without: Sequence[str]) -> tuple[str, Texts]:
    """Return what the rows are called, and the rows."""
    if (Path(source).suffix == ".zip") is not bool(without):
        raise DataError(
            "--without: name the rows that the models have learnt from, and only where --data is the archive"
        )
    if not without:
        return data_set_name(source), read_texts(source)
    known = [text for file in without for text in read_texts(file).texts]
    return "sentences on films", Texts(tuple(film_sentences(Path(source), known)), None)


async def _measure(
    results: Results, models: Path, texts: Mapping[str, Sequence[str]], costs_ms: tuple[float, ...], *, rounds: int
) -> None:
    names = list(dict.fromkeys([CASCADE, *results.settings["stages"], results.settings["student"]]))
    data = results.settings["data"]
    async with our_service(models, {"default_model": CASCADE, "max_queue_ms": 60000}) as server:
        answers = {file: {name: await _ask(server.port, name, of) for name in names} for file, of in texts.items()}
        stages = stage_answers([answers[data][name] for name in results.settings["stages"]], costs_ms)
        held_out = stages.halves(seed=0)[1].tolist()  # as the cascade's own were divided
        sent = [texts[data][row] for row in held_out]
        add_answers(results, f"{data}, other half", {name: _only(answers[data][name], held_out) for name in names})
        for file in list(texts)[1:]:
            add_answers(results, file, answers[file])
            sent += texts[file]
        shapes = [(name, size) for size in SIZES for name in names]
        requests = {(name, size): _requests(name, shuffled(sent), size) for name, size in shapes}
        for number, (name, size) in turns(rounds, shapes):
            found = await closed_loop(
                server.port, requests[name, size], CALLERS, results.settings["seconds"], warm_up_s=WARM_UP_S
            )
            figures = {f"p{percent}_ms": 1000 * found.percentile_s(percent) for percent in (50, 99)}
            about = {"model": name, "texts": size, "round": number, "texts_per_s": size * found.rate}
            results.add("points", **about, **figures, errors=found.failed)
    add_halves(results, stages)


def _requests(model: str, texts: Sequence[str], size: int) -> Iterator[bytes]:
    lists = [texts[begin : begin + size] for begin in range(0, len(texts) - size + 1, size)]
    return itertools.cycle([post("/classify", {"inputs": inputs, "model": model}) for inputs in lists])


async def _ask(port: int, model: str, texts: Sequence[str]) -> Predictions:
    connection = await Connection.open(port)
    found: Predictions = []
    for begin in range(0, len(texts), LIST):
        body = {"inputs": texts[begin : begin + LIST], "model": model}
        answer = await connection.send(post("/classify", body))
        if answer.status != 200:
            raise SystemExit(f"{model} answered {answer.status} to the texts from row {begin + 1} on")
        found += answer.json()["predictions"]
    connection.close()
    return found


def _only(predictions: Predictions, rows: Sequence[int]) -> Predictions:
    return [predictions[row] for row in rows]


def stage_answers(predictions: Sequence[Predictions], costs_ms: tuple[float, ...]) -> StageAnswers:
    """Return what the stages said over HTTP as thresholds are chosen from it."""
    names = sorted(entry["label"] for entry in predictions[0][0]["scores"])
    labels = np.array([[names.index(one["label"]) for one in stage] for stage in predictions])
    sureness = np.array([[one["score"] for one in stage] for stage in predictions])
    return StageAnswers(labels, sureness, costs_ms, len(names))


def add_answers(results: Results, rows: str, answers: Mapping[str, Predictions]) -> None:
    """Add how often each model gives the last stage's label, and the share of texts that went on from the first."""
    first, last = results.settings["stages"][0], results.settings["stages"][-1]
    for name, found in answers.items():
        same = sum(one["label"] == other["label"] for one, other in zip(found, answers[last], strict=True))
        onward = sum(one["stage"] != first for one in found) / len(found) if name == CASCADE else None
        results.add("answers", rows=rows, count=len(found), model=name, **interval(same, len(found)), goes_on=onward)


def add_halves(results: Results, answers: StageAnswers) -> None:
    """Choose thresholds on each of many random halves, and add what they do on the half that was left out."""
    target, confidence = Target("agreement", results.settings["agreement"]), results.settings["confidence"]
    for number in range(HALVES):
        one, other = answers.halves(seed=number)
        outcome = route(answers.select(other), choose_thresholds(answers.select(one), target, confidence).thresholds)
        figures = {"agreement": 1 - outcome.disagreements / len(outcome), "goes_on": outcome.escalated / len(outcome)}
        results.add("halves", half=number, met=meets(outcome, target), **figures)


def sections(results: Results) -> dict[str, str]:
    """Return answers, throughput and halves."""
    settings = results.settings
    last, student = settings["stages"][-1], settings["student"]
    stages, promised = ", then ".join(f"`{stage}`" for stage in settings["stages"]), f"{settings['agreement']:.1%}"
    told = (
        f"The cascade asks {stages}. Its target is an agreement of {promised} with a confidence of "
        f"{settings['confidence']:.0%}; its thresholds were chosen on {settings['rows_chosen_on']:,} rows of "
        f"{settings['data']}. The student is `{student}`. Measured by {results.told()}, on "
        f"{results.origin['machine']}, which also made the load.\n\n"
    )
    agreement = table(
        ["rows", "model", f"agreement with `{last}` (interval of 95 %)", "texts that go on"],
        (
            (
                f"{row['rows']} ({row['count']:,})",
                row["model"],
                f"**{row['value']:.2%}** ({row['low']:.2%} to {row['high']:.2%})",
                "" if row["goes_on"] is None else f"{row['goes_on']:.1%}",
            )
            for row in results.rows("answers")
            if row["model"] != last
        ),
    )
    over = "texts/s of the cascade over these (lowest to highest round)"
    head = ["texts a request", "model", "texts/s", "p50 ms", "p99 ms", over, "errors"]
    speed = table(head, (_speed(results, *shape) for shape in _shapes(results)))
    met, onward = results.values("halves", "met"), results.values("halves", "goes_on")
    agreements = results.values("halves", "agreement")
    halves = (
        f"Of {len(met)} random halves of {settings['data']}, thresholds met the target on the other half in "
        f"**{sum(met)}**. There {min(agreements):.2%} to {max(agreements):.2%} of labels were the last stage's, and "
        f"{min(onward):.1%} to {max(onward):.1%} of texts went on (median {statistics.median(onward):.1%}).\n"
    )
    rounds = len(results.names("points", "round"))
    load = f"{settings['callers']} callers, {rounds} rounds of {settings['seconds']:g} s:\n\n"
    return {"cascade": told + agreement + "\n" + load + speed + "\n" + halves}


def _shapes(results: Results) -> list[tuple[str, int]]:
    names, sizes = results.names("points", "model"), results.names("points", "texts")
    return [(name, size) for size in sizes for name in names]


def _speed(results: Results, name: str, texts: int) -> Sequence[object]:
    about = {"model": name, "texts": texts}
    rate, p50, p99 = (results.median("points", column, **about) for column in ("texts_per_s", "p50_ms", "p99_ms"))
    ratios = _ratios(results, name, texts)
    over = "" if name == CASCADE else f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"
    errors = sum(results.values("points", "errors", **about))
    return texts, name, f"{rate:,.0f}", f"{p50:.1f}", f"{p99:.1f}", over, errors


def failures(results: Results) -> list[str]:
    """Return which promise is broken."""
    last, student = results.settings["stages"][-1], results.settings["student"]
    broken = [f"{row['model']}: {row['errors']} requests failed" for row in results.rows("points") if row["errors"]]
    for rows in results.names("answers", "rows"):
        (own,), (other,) = (results.values("answers", "value", rows=rows, model=name) for name in (CASCADE, student))
        if own < results.settings["agreement"]:
            broken.append(f"{rows}: agreement {own:.2%}, not {results.settings['agreement']:.2%}")
        if own <= other:
            broken.append(f"{rows}: agreement {own:.2%} where {student} has {other:.2%}")
    for name, least in ((last, LEAST_OVER_LAST), (student, 1.0)):
        ratios = {size: statistics.median(_ratios(results, name, size)) for size in results.names("points", "texts")}
        told = "{:.2f} times the throughput of {} at {} texts a request, not {:g}"
        broken += [told.format(ratio, name, size, least) for size, ratio in ratios.items() if ratio < least]
    met = statistics.fmean(results.values("halves", "met"))
    return broken if met >= LEAST_HALVES else [*broken, f"target met on {met:.0%} of halves, not {LEAST_HALVES:.0%}"]


def _ratios(results: Results, name: str, texts: int) -> list[float]:
    rates = [results.values("points", "texts_per_s", model=model, texts=texts) for model in (CASCADE, name)]
    return [own / other for own, other in zip(*rates, strict=True)]
