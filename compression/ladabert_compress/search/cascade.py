"""``ladabert-compress cascade``: runs the stages, chooses thresholds on half of the rows, reports on the other half."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from ladabert_compress.artefact.cascade import Stage, cascade_manifest
from ladabert_compress.artefact.cascade_card import expected_ms
from ladabert_compress.artefact.distributions import distributions
from ladabert_compress.artefact.reading import read_graph, read_tokenizer
from ladabert_compress.data.batches import EncodedTexts, encode, evaluation_batches
from ladabert_compress.data.labels import label_ids_of, no_targets
from ladabert_compress.data.texts import LabelledTexts, Texts
from ladabert_compress.errors import DataError, ExportError, OptionError
from ladabert_compress.graph.session import OnnxSession
from ladabert_compress.measure.machine import machine_name
from ladabert_compress.measure.predictions import Logits, log_probabilities
from ladabert_compress.measure.routing import Outcome, StageAnswers, Thresholds, route
from ladabert_compress.search.thresholds import Choice, Target, choose_thresholds

Sureness = Literal["score", "margin"]
BATCH_SIZE = 32
TIMED_ROWS = 200
WARM_UP_ROWS = 5
CURVE_POINTS = 60


def cascade(
    stages: Sequence[Stage],
    texts: Texts,
    target: Target,
    *,
    name: str,
    data_set: str,
    measure: Sureness = "score",
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[dict[str, Any], Choice]:
    """The manifest of a cascade of these artefacts, and how its thresholds were chosen.

    Args:
        stages: at least two, of one task and the same labels.
        texts: rows, with labels or without; half of them, at random, are for choosing, the others for the figures.
        target: what the cascade has to reach on other rows.
        name: the cascade's.
        data_set: its name in the manifest.
        measure: what makes an answer good enough.
        confidence: with which the target is to be met.
        seed: of the halves.

    Raises:
        DataError: the rows' task or labels are not the stages', or there is a single row.
        OptionError: the target cannot be about these rows or stages.
    """
    if target.measure == "accuracy" and not isinstance(texts, LabelledTexts):
        raise OptionError("--target accuracy: the rows have no labels; name rows that do, or a target for agreement")
    asked = ask_stages(stages, texts, measure)
    answers = asked.answers
    chosen_on, others = answers.halves(seed)
    choice = choose_thresholds(answers.select(chosen_on), target, confidence)
    outcome = route(answers.select(others), choice.thresholds)
    served = asked.logits[outcome.stages, others]  # of the stage that answered
    lengths = asked.lengths[others].tolist()
    evaluation = {
        "data_set": data_set,
        "rows_chosen_on": len(chosen_on),
        **outcome.figures(),
        "distributions": distributions(served, lengths, outcome.labels, 1.0),
        "curve": _curve(answers.select(others), choice),
    }
    chosen = {"measure": measure, "target": {"measure": target.measure, "value": target.value}}
    return cascade_manifest(name, stages, choice.thresholds.tolist(), chosen, evaluation), choice


@dataclass(frozen=True)
class Asked:
    """What all stages say of all rows."""

    answers: StageAnswers
    logits: Logits  # (stages, N, labels), the temperature applied, in the order of the cascade's labels
    lengths: npt.NDArray[np.int64]  # (N,): the first stage's tokens


def ask_stages(stages: Sequence[Stage], texts: Texts, measure: Sureness = "score") -> Asked:
    """Runs each stage's default graph on every row, and times it.

    Raises:
        DataError: the rows' task or labels are not the stages', or there is a single row.
        ExportError: a graph is not what its manifest describes, or gives logits that are no numbers.
    """
    labels, truth = stages[-1].manifest["labels"], _truth(texts, stages[-1])
    sessions = [OnnxSession(read_graph(stage.folder, stage.manifest, _file(stage))) for stage in stages]
    rows = [_encode(stage, texts) for stage in stages]
    logits = np.stack(
        [
            _logits(stage, session, data)[:, [stage.manifest["labels"].index(label) for label in labels]]
            for stage, session, data in zip(stages, sessions, rows, strict=True)
        ]
    )
    for stage, row in np.argwhere(~np.isfinite(logits).all(axis=2))[:1]:
        raise ExportError(
            f"{stages[stage].folder}: its graph gives logits that are no numbers for {texts.place(int(row))}; "
            "export it again"
        )
    costs = measure_costs(sessions, rows)
    answers = StageAnswers(logits.argmax(axis=2), sureness_of(logits, measure), costs, len(labels), truth)
    return Asked(answers, logits, rows[0].lengths)


def sureness_of(logits: Logits, measure: Sureness) -> npt.NDArray[np.float64]:
    """The best label's score, or its distance to the second one's, of logits (…, labels)."""
    like = np.zeros(1, dtype=np.int64)  # single-label
    scores = np.exp(log_probabilities(logits.reshape(-1, logits.shape[-1]), like)).reshape(logits.shape)
    second, best = np.moveaxis(np.partition(scores, -2, axis=-1)[..., -2:], -1, 0)
    return np.asarray(best if measure == "score" else best - second)


def measure_costs(sessions: Sequence[OnnxSession], rows: Sequence[EncodedTexts]) -> tuple[float, ...]:
    """The median milliseconds of each stage for one of these texts alone, on one thread; the stages take turns."""
    count = len(rows[0])
    sample = np.linspace(0, count - 1, min(count, TIMED_ROWS)).astype(int).tolist()
    taken: list[list[float]] = [[] for _ in sessions]
    for place, row in enumerate(tqdm([*sample[:WARM_UP_ROWS], *sample], desc="milliseconds", unit="row")):
        for session, data, milliseconds in zip(sessions, rows, taken, strict=True):
            batch = data.batch([row])
            start = time.perf_counter()
            session.logits(batch)
            if place >= WARM_UP_ROWS:
                milliseconds.append(1000 * (time.perf_counter() - start))
    return tuple(round(statistics.median(milliseconds), 4) for milliseconds in taken)


def format_cascade(manifest: Mapping[str, Any], choice: Choice, confidence: float) -> str:
    """What was chosen and what it gives, for a person to read."""
    figures, stages = manifest["evaluation"], manifest["cascade"]["stages"]
    lines = [f"{manifest['name']} {manifest['version']}: {_verdict(manifest, choice, confidence)}"]
    lines.append(
        f"  {figures['rows']:,} other rows than the {figures['rows_chosen_on']:,} it was chosen on, intervals of 95 %"
    )
    lines += [
        f"  answered by {stage['name']:<24} {share:>8.2%}  {cost:.3f} ms a text alone"
        for stage, share, cost in zip(stages, figures["stages"], figures["median_ms"], strict=True)
    ]
    lines.append(f"  agreement with the last stage        {_interval(figures['agreement'])}")
    if "accuracy" in figures:
        alone = f", {figures['last_accuracy']:.2%} of the last stage alone"
        lines.append(f"  accuracy                             {_interval(figures['accuracy'])}{alone}")
    mean, last = expected_ms(manifest), figures["median_ms"][-1]
    lines.append(f"  goes on from the first stage         {_interval(figures['escalated'])}")
    lines.append(
        f"  expected time                        {mean:.3f} ms, {last / mean:.2f} times as fast as the last stage "
        f"alone ({last:.3f} ms), {machine_name()}"
    )
    return "\n".join(lines)


def _verdict(manifest: Mapping[str, Any], choice: Choice, confidence: float) -> str:
    target = manifest["cascade"]["target"]
    wanted, rows = f"{target['measure']}={target['value']:g}", manifest["evaluation"]["rows_chosen_on"]
    if not choice.promised:
        return (
            f"no thresholds reach {wanted} with a confidence of {confidence:.0%} on {rows:,} rows, nor does the last "
            "stage alone: everything goes on to it; name more rows or ask for less"
        )
    if (choice.thresholds > 1).all():
        return (
            f"no thresholds that keep a text from the last stage reach {wanted} with a confidence of "
            f"{confidence:.0%} on {rows:,} rows: everything goes on; name more rows or ask for less"
        )
    if (choice.thresholds <= 0).all():
        return f"{wanted} with a confidence of {confidence:.0%}: nothing goes on, the first stage answers everything"
    return f"{wanted} with a confidence of {confidence:.0%}"


def _truth(texts: Texts, last: Stage) -> npt.NDArray[np.int64] | None:
    if texts.task != last.manifest["task"]:
        raise DataError(
            f"--data: is a {texts.task} task, {last.folder} a {last.manifest['task']} task; name other columns with "
            "--text and --text-pair, or other rows"
        )
    if len(texts) < 2:
        raise DataError("--data: a single row; thresholds are chosen on half of the rows, name many more")
    if not isinstance(texts, LabelledTexts):
        return None
    return np.array(label_ids_of("--data", texts, last.manifest["labels"]))


def _file(stage: Stage) -> str:
    return str(stage.manifest["default_file"])


def _encode(stage: Stage, texts: Texts) -> EncodedTexts:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=read_tokenizer(stage.folder, stage.manifest))
    none = no_targets(len(texts), stage.manifest["labels"], "single_label")
    return encode(texts, none, tokenizer, stage.manifest["max_length"])


def _logits(stage: Stage, session: OnnxSession, data: EncodedTexts) -> Logits:
    """Logits (N, labels) in the rows' order, over the stage's temperature."""
    logits = np.empty((len(data), len(stage.manifest["labels"])), dtype=np.float32)
    with tqdm(total=len(data), desc=stage.name, unit="row") as progress:
        for rows, batch in evaluation_batches(data, BATCH_SIZE):
            logits[rows] = session.logits(batch)
            progress.update(len(rows))
    return np.asarray(logits / np.float32(stage.manifest["calibration"]["temperature"]))


def _curve(answers: StageAnswers, choice: Choice) -> list[dict[str, float]]:
    """Agreement and accuracy against cost along the thresholds that were chosen from, evenly by what goes on."""
    path: list[Thresholds] = [answers.everything_goes_on(), *choice.path, answers.nothing_goes_on()]
    outcomes: dict[int, Outcome] = {}
    for outcome in (route(answers, thresholds) for thresholds in path):
        known = outcomes.get(outcome.escalated)
        if known is None or outcome.disagreements < known.disagreements:
            outcomes[outcome.escalated] = outcome
    shares = sorted(outcomes)
    places = np.unique(np.linspace(0, len(shares) - 1, min(len(shares), CURVE_POINTS)).astype(int))
    return [outcomes[shares[place]].point() for place in places]


def _interval(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.2%} ({figure['low']:.2%} to {figure['high']:.2%})"
