"""Trains LadaBERT and its baselines with one budget of steps, and writes the figures of docs/results.md.

python -m benchmarks.compression.evidence --teacher DIR --train F --dev F [--work runs/evidence] [--steps 400]
    [--seeds 1] [--jobs 1] [--only NAME …] [--list]

Each run leaves a JSON in the work folder: a finished one is not repeated, a broken one goes on from its checkpoint, so
the same command continues whatever stopped it. Figures are gathered after every run, missing runs show as missing.
What is compared, and how: benchmarks/compression/evidence/contenders.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.compression.evidence import running
from benchmarks.compression.evidence.contenders import Run, all_runs
from compression.errors import CompressionError, DataError, OptionError, TeacherError

DEFAULT_STEPS = 400


def main() -> None:
    options = parse_options()
    try:
        compare(options)
    except CompressionError as error:
        sys.exit(_said(str(error)))


def compare(options: argparse.Namespace) -> None:
    """Trains what is missing.

    Raises:
        CompressionError: an option, the teacher or the rows cannot be used.
    """
    runs = chosen_runs(all_runs(options.steps, options.seeds), options.only)
    if options.list:
        print("\n".join(run.name for run in runs))
        return
    task = running.Task(options.teacher, options.train, options.dev, options.work, options.device, digest_of(options))
    options.work.mkdir(parents=True, exist_ok=True)
    missing = [run for run in runs if not is_finished(run, task)]
    print(f"{len(runs) - len(missing)} of {len(runs)} runs are there already", flush=True)
    max_length = runs[0].recipe.training.max_length
    for result in _results(missing, task, max_length, options.jobs):
        tqdm.write(
            f"{result['name']}: {result['accuracy']:.4f} after {result['steps']} steps, "
            f"{result['nonzero_parameters']:,} non-zeros, {result['seconds']:.0f} s"
        )


def _results(runs: Sequence[Run], task: running.Task, max_length: int, jobs: int) -> Iterator[dict[str, Any]]:
    if not runs:
        return
    if jobs == 1:
        running.become_worker(task, max_length)
        yield from map(running.train_contender, tqdm(runs, desc="runs", unit="run"))
        return
    log = task.work / "worker.log"
    print(f"progress of each process: {log}-*", flush=True)
    with ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=running.become_worker,
        initargs=(task, max_length, log),
    ) as pool:
        waiting = [pool.submit(running.train_contender, run) for run in runs]
        for done in tqdm(as_completed(waiting), total=len(waiting), desc="runs", unit="run"):
            yield done.result()


def chosen_runs(runs: Sequence[Run], only: Sequence[str]) -> list[Run]:
    """The runs whose names begin with one of ``only``; all where there is none.

    Raises:
        OptionError: one of them fits no run.
    """
    for name in only:
        if not any(run.name.startswith(name) for run in runs):
            raise OptionError(f"--only {name}: no run's name begins so; see --list")
    return [run for run in runs if not only or run.name.startswith(tuple(only))]


def is_finished(run: Run, task: running.Task) -> bool:
    """Whether the run's result is there and was made with these settings.

    Raises:
        OptionError: it was made with others.
    """
    path = task.work / f"{run.name}.json"
    if not path.is_file():
        return False
    result = json.loads(path.read_text(encoding="utf-8"))
    wanted = json.loads(json.dumps({"digest": task.digest, **run.settings()}))
    if any(result.get(key) != value for key, value in wanted.items()):
        raise OptionError(f"{path}: was made with other steps, recipe, rows or teacher; choose another --work")
    return True


def digest_of(options: argparse.Namespace) -> str:
    """Names the contents of teacher and rows.

    Raises:
        CompressionError: one of them is not there.
    """
    digest = hashlib.sha256()
    for path, error in (
        (options.teacher / "model.safetensors", TeacherError),
        (options.train, DataError),
        (options.dev, DataError),
    ):
        try:
            digest.update(path.read_bytes())
        except OSError as reason:
            raise error(f"{path}: {reason.strerror}") from reason
    return digest.hexdigest()[:16]


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/evidence"), help="where the runs' files go")
    parser.add_argument("--steps", type=int, default=DEFAULT_STEPS, help="optimiser steps of every run")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each kind, with seeds 0, 1, …")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, a process and a thread each")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="runs whose name begins so")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--list", action="store_true", help="print the runs' names in their order and end")
    return parser.parse_args(arguments)


def _said(line: str) -> int:
    print(f"evidence: {line}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
