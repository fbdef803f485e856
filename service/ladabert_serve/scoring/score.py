"""Scores the rows of files with one model or several: the server's tokenizer and graphs, without HTTP."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from ladabert_serve.errors import StartError
from ladabert_serve.scoring.parts import Parts
from ladabert_serve.scoring.rows import check_ending, find_files, in_chunks, read_rows
from ladabert_serve.scoring.scorer import Columns, Scored, Scorer
from ladabert_serve.settings import Settings

ROWS_PER_PART = 16384


class Job(NamedTuple):
    """What to score, and where the answers go."""

    inputs: Sequence[str]  # files and globs
    output: Path
    models: Sequence[str]  # names of artefacts; empty: the only one in the folder
    columns: Columns = Columns()
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
    scorer = Scorer(job.models, settings, job.columns)
    rows = read_rows(files, scorer.read, list(itertools.chain.from_iterable(scorer.added)))
    parts = Parts(job.output)
    with parts.open(_identity(job, files, scorer.models)):
        done = parts.done
        skipped = [scorer.text_of(row) is None for row in itertools.islice(rows, done * job.rows_per_part)]
        before = count = len(skipped)
        without_text = sum(skipped)
        with scorer, tqdm(initial=before, unit=" rows", desc=job.output.name) as progress:
            for number, chunk in enumerate(in_chunks(rows, job.rows_per_part), start=done):
                texts = [scorer.text_of(row) for row in chunk]
                for names, answers in scorer.answers(texts, progress.update):
                    for row, answer in zip(chunk, answers, strict=True):
                        row.update(zip(names, answer, strict=True))
                parts.write(number, chunk)
                count += len(chunk)
                without_text += texts.count(None)
        if count == 0:
            raise StartError(f"{files[0]}: there are no rows")
        parts.join()
    return Result(count, without_text, before)


def _identity(job: Job, files: Sequence[Path], models: Sequence[Scored]) -> dict[str, Any]:
    """Return what a run must have in common with an earlier one to go on with its parts."""
    states = [(str(path), path.stat()) for path in files]
    return {
        "files": [[name, state.st_size, state.st_mtime_ns] for name, state in states],
        "models": [
            [each.artefact.name, each.artefact.version, *(stage.graph_file for stage in each.stages)] for each in models
        ],
        "columns": list(job.columns),
        "rows_per_part": job.rows_per_part,
    }
