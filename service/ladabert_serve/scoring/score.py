"""Scores the rows of files with one model or several: the server's tokenizer and graphs, without HTTP."""

import contextlib
import functools
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from ladabert_serve.errors import InferenceError, StartError
from ladabert_serve.models.artefact import find_artefacts, read_artefact
from ladabert_serve.models.inference import Inference, Logits
from ladabert_serve.models.opening import BATCH_SIZE, BATCH_TOKENS, Opened, open_artefact, runner_count
from ladabert_serve.models.scores import apply_function, default_function, rank
from ladabert_serve.models.tokenizer import TextInput, Tokens
from ladabert_serve.scoring.parts import Parts
from ladabert_serve.scoring.rows import Row, check_ending, find_files, in_chunks, read_rows
from ladabert_serve.settings import Settings

ROWS_PER_PART = 16384
TEXTS_AT_A_TIME = 256  # that a thread tokenises


class Job(NamedTuple):
    """What to score, and where the answers go."""

    inputs: Sequence[str]  # files and globs
    output: Path
    models: Sequence[str]  # names of artefacts; empty: the only one in the folder
    text_column: str = "text"
    text_pair_column: str = "text_pair"
    prefix: str = ""  # of the names of the new columns
    rows_per_part: int = ROWS_PER_PART


class Result(NamedTuple):
    """What was done: rows in the output, of them those without a text, and those that an earlier run had scored."""

    rows: int
    without_text: int
    done_before: int


def score(job: Job, settings: Settings) -> Result:
    """Score every row and write the output whole; raises StartError.

    An interrupted run leaves its finished parts, and the same call goes on after them. Memory does not grow with the
    rows: one part is held at a time.
    """
    check_ending(job.output)
    files = find_files(job.inputs)
    opened = _open(job, settings)
    tasks = {each.artefact.task for each in opened}
    if len(tasks) > 1:
        raise StartError("the models read different things, single texts and pairs; score with each kind by itself")
    columns = [job.text_column, job.text_pair_column] if tasks == {"pair"} else [job.text_column]
    prefixes = [job.prefix + (f"{each.artefact.name}." if len(opened) > 1 else "") for each in opened]
    added = [(f"{prefix}label", f"{prefix}score") for prefix in prefixes]
    rows = read_rows(files, columns, list(itertools.chain.from_iterable(added)))
    parts = Parts(job.output)
    with parts.open(_identity(job, files, opened)):
        done = parts.done
        skipped = [_text_of(row, columns) is None for row in itertools.islice(rows, done * job.rows_per_part)]
        before = count = len(skipped)
        without_text = sum(skipped)
        with (
            _threads(runner_count(opened, settings)) as pool,
            tqdm(initial=before, unit=" rows", desc=job.output.name) as progress,
        ):
            for number, chunk in enumerate(in_chunks(rows, job.rows_per_part), start=done):
                texts = [_text_of(row, columns) for row in chunk]
                for each, names in zip(opened, added, strict=True):
                    for row, answer in zip(chunk, _answers(each, texts, pool, progress), strict=True):
                        row.update(zip(names, answer, strict=True))
                parts.write(number, chunk)
                count += len(chunk)
                without_text += texts.count(None)
        if count == 0:
            raise StartError(f"{files[0]}: there are no rows")
        parts.join()
    return Result(count, without_text, before)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Yield threads that begin nothing more once something went wrong."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _open(job: Job, settings: Settings) -> list[Opened]:
    folders = {folder.name: folder for folder in find_artefacts(settings.models)}
    names = list(job.models) or list(folders)
    if not job.models and len(folders) != 1:
        raise StartError(f"{settings.models}: holds {len(folders)} models; choose with --model: {', '.join(folders)}")
    unknown = [name for name in names if name not in folders]
    if unknown:
        raise StartError(f"{settings.models}: there is no model {unknown[0]!r}, only {', '.join(folders)}")
    return [open_artefact(read_artefact(folders[name]), settings) for name in names]


def _identity(job: Job, files: Sequence[Path], opened: Sequence[Opened]) -> dict[str, Any]:
    """Return what a run must have in common with an earlier one to go on with its parts."""
    states = [(str(path), path.stat()) for path in files]
    return {
        "files": [[name, state.st_size, state.st_mtime_ns] for name, state in states],
        "models": [[each.artefact.name, each.artefact.version, each.graph_file] for each in opened],
        "columns": [job.text_column, job.text_pair_column, job.prefix],
        "rows_per_part": job.rows_per_part,
    }


def _text_of(row: Row, columns: Sequence[str]) -> TextInput | None:
    values = [row[column] for column in columns]
    if any(value is None or value == "" for value in values):
        return None
    return TextInput(*map(str, values))


def _answers(
    opened: Opened, texts: Sequence[TextInput | None], pool: ThreadPoolExecutor, progress: "tqdm[Any]"
) -> list[tuple[str | None, float | None]]:
    """Return each text's best label and its score, (None, None) where there is no text."""
    inference = opened.inference
    places = [place for place, text in enumerate(texts) if text is not None]
    pieces = [places[at : at + TEXTS_AT_A_TIME] for at in range(0, len(places), TEXTS_AT_A_TIME)]

    def tokenize(piece: Sequence[int]) -> list[Tokens]:
        return [inference.tokenizer.tokenize(text) for place in piece if (text := texts[place]) is not None]

    tokens = dict(zip(places, itertools.chain.from_iterable(pool.map(tokenize, pieces)), strict=True))
    answers: list[tuple[str | None, float | None]] = [(None, None)] * len(texts)
    batches = list(divide(tokens, opened))
    run = functools.partial(_run, inference, tokens)
    for batch, logits in zip(batches, pool.map(run, batches), strict=True):
        for place, row in zip(batch, logits, strict=True):
            answers[place] = _best(opened, row)
        progress.update(len(batch))
    return answers


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


def _best(opened: Opened, logits: Logits) -> tuple[str, float]:
    artefact = opened.artefact
    scores = apply_function(logits, default_function(artefact.problem_type), artefact.temperature)
    (best,) = rank(artefact.labels, scores, 1)
    return best["label"], best["score"]
