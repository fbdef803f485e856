"""Models that answer rows, wherever these come from: tokenised, divided into batches of near-equal length, run."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from ladabert_serve.errors import InferenceError, StartError
from ladabert_serve.models.artefact import Artefact, find_artefacts, read_artefact
from ladabert_serve.models.cascade import check_cascades
from ladabert_serve.models.inference import Inference, Logits
from ladabert_serve.models.opening import BATCH_SIZE, BATCH_TOKENS, Opened, open_artefact, runner_count
from ladabert_serve.models.scores import apply_function, default_function, rank
from ladabert_serve.models.stages import Judge
from ladabert_serve.models.tokenizer import TextInput, Tokens
from ladabert_serve.settings import Settings

TEXTS_AT_A_TIME = 256  # that a thread tokenises

Answer = tuple[str | None, float | None]  # label and score


class Columns(NamedTuple):
    """Where the texts are, and what goes before the names of the new columns."""

    text: str = "text"
    text_pair: str = "text_pair"
    prefix: str = ""


class Scored(NamedTuple):
    """A model that answers rows: its stages, which for all but a cascade is itself alone."""

    artefact: Artefact
    stages: list[Opened]


class Scorer:
    """Models that answer the same rows, and the threads that they share; `with` ends these early after an error.

    Raises StartError where a model is missing or broken, or where one reads single texts and another pairs.
    """

    def __init__(self, models: Sequence[str], settings: Settings, columns: Columns) -> None:
        self.models = _open(models, settings)
        tasks = {each.artefact.task for each in self.models}
        if len(tasks) > 1:
            raise StartError("the models read different things, single texts and pairs; score with each kind by itself")
        self.read = [columns.text, columns.text_pair] if tasks == {"pair"} else [columns.text]
        names = [f"{each.artefact.name}." if len(self.models) > 1 else "" for each in self.models]
        self.added = [(f"{columns.prefix}{name}label", f"{columns.prefix}{name}score") for name in names]
        stages = [stage for each in self.models for stage in each.stages]
        self._pool = ThreadPoolExecutor(runner_count(stages, settings))

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def text_of(self, row: Mapping[str, Any]) -> TextInput | None:
        """Return what the models read of a row, None where a text is missing or empty."""
        values = [row[column] for column in self.read]
        if any(value is None or value == "" for value in values):
            return None
        return TextInput(*map(str, values))

    def answers(
        self, texts: Sequence[TextInput | None], scored: Callable[[int], object] = lambda _: None
    ) -> Iterator[tuple[tuple[str, str], list[Answer]]]:
        """Yield each model's pair of new columns with its answers; `scored` hears of each batch's size."""
        for model, names in zip(self.models, self.added, strict=True):
            yield names, _answers(model, texts, self._pool, scored)


def _open(models: Sequence[str], settings: Settings) -> list[Scored]:
    folders = {folder.name: folder for folder in find_artefacts(settings.models)}
    names = list(models) or list(folders)
    if not models and len(folders) != 1:
        raise StartError(f"{settings.models}: holds {len(folders)} models; choose with --model: {', '.join(folders)}")
    unknown = [name for name in names if name not in folders]
    if unknown:
        raise StartError(f"{settings.models}: there is no model {unknown[0]!r}, only {', '.join(folders)}")
    artefacts = {name: read_artefact(folders[name]) for name in names}
    stages = {stage.name for artefact in artefacts.values() for stage in artefact.stages}
    artefacts |= {name: read_artefact(folders[name]) for name in stages if name in folders and name not in artefacts}
    check_cascades(artefacts)
    opened = {name: open_artefact(artefact, settings) for name, artefact in artefacts.items() if not artefact.stages}
    return [Scored(artefacts[name], [opened[stage] for stage in _stage_names(artefacts[name])]) for name in names]


def _stage_names(artefact: Artefact) -> list[str]:
    return [stage.name for stage in artefact.stages] or [artefact.name]


def _answers(
    model: Scored, texts: Sequence[TextInput | None], pool: ThreadPoolExecutor, scored: Callable[[int], object]
) -> list[Answer]:
    """Return each text's best label and its score, (None, None) where there is no text."""
    artefact = model.artefact
    answers: list[Answer] = [(None, None)] * len(texts)
    unsure = [place for place, text in enumerate(texts) if text is not None]
    for opened, stage in itertools.zip_longest(model.stages, artefact.stages):
        own = opened.artefact
        judge = stage and Judge(stage, own.labels, own.temperature, artefact.manifest)
        asked, unsure = unsure, []
        for place, logits in _logits(opened, texts, asked, pool, scored if opened is model.stages[0] else _ignore):
            if judge is not None:
                logits = judge.translate(logits)
                if not judge.judge(logits)[1]:
                    unsure.append(place)
            answers[place] = _best(artefact, logits)
        unsure.sort()
    return answers


def _ignore(_: int) -> None:
    """Count a text once, whatever the number of its stages."""


def _logits(
    opened: Opened,
    texts: Sequence[TextInput | None],
    places: Sequence[int],
    pool: ThreadPoolExecutor,
    scored: Callable[[int], object],
) -> Iterator[tuple[int, Logits]]:
    """Yield the place of each text with its logits."""
    inference = opened.inference
    pieces = [places[at : at + TEXTS_AT_A_TIME] for at in range(0, len(places), TEXTS_AT_A_TIME)]

    def tokenize(piece: Sequence[int]) -> list[Tokens]:
        return [inference.tokenizer.tokenize(text) for place in piece if (text := texts[place]) is not None]

    tokens = dict(zip(places, itertools.chain.from_iterable(pool.map(tokenize, pieces)), strict=True))
    batches = list(divide(tokens, opened))
    run = functools.partial(_run, inference, tokens)
    for batch, logits in zip(batches, pool.map(run, batches), strict=True):
        yield from zip(batch, logits, strict=True)
        scored(len(batch))


def divide(tokens: dict[int, Tokens], opened: Opened) -> Iterator[list[int]]:
    """Yield the places of texts of near-equal length, within the server's limits of a batch."""
    provider = opened.provider
    most_texts = opened.settings.max_batch_size or BATCH_SIZE[provider]
    most_tokens = opened.settings.max_batch_tokens or BATCH_TOKENS[provider]
    batch: list[int] = []
    for place in sorted(tokens, key=lambda place: len(tokens[place].ids)):
        longest = len(tokens[place].ids)
        if batch and (len(batch) == most_texts or longest * (len(batch) + 1) > most_tokens):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _run(inference: Inference, tokens: dict[int, Tokens], batch: Sequence[int]) -> list[Logits]:
    answered = []
    try:
        rows = inference.run([tokens[place] for place in batch])
    except InferenceError as error:
        raise StartError(f"model {inference.artefact.name!r} failed: {error}") from error
    for row in rows:
        if isinstance(row, Exception):
            raise StartError(f"model {inference.artefact.name!r} gave logits that are not finite")
        answered.append(row)
    return answered


def _best(artefact: Artefact, logits: Logits) -> tuple[str, float]:
    scores = apply_function(logits, default_function(artefact.problem_type), artefact.temperature)
    (best,) = rank(artefact.labels, scores, 1)
    return best["label"], best["score"]
