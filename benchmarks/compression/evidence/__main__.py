"""Trains LadaBERT and its baselines with one budget of steps, and writes the figures of docs/results.md.

python -m benchmarks.compression.evidence --teacher DIR --train F --dev F [--work runs/evidence] [--steps 400]
    [--seeds 1] [--jobs 1] [--only NAME …] [--list] [--publish]

Each run leaves a JSON in the work folder: a finished one is not repeated, a broken one goes on from its checkpoint, so
the same command continues whatever stopped it. After every run all that are there are gathered into WORK/evidence.json;
missing ones show as missing. ``--publish`` puts that into benchmarks/results, docs/results.md and docs/images.
What is compared, and how: benchmarks/compression/evidence/contenders.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.compression.evidence import running
from benchmarks.compression.evidence.contenders import Run, all_runs
from benchmarks.compression.evidence.cuts import CutRun, all_cuts
from benchmarks.compression.evidence.results import Cut, Outcome, Results
from benchmarks.compression.evidence.table import publish
from compression.errors import CheckpointError, CompressionError, DataError, OptionError, TeacherError
from compression.machine import machine_name

REPOSITORY = Path(__file__).parents[3]
DEFAULT_STEPS = 400
FEWEST_STEPS = 20  # no recipe has more iterations


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_options(arguments)
    try:
        compare(options)
    except CompressionError as error:
        sys.exit(_said(str(error)))


def compare(options: argparse.Namespace) -> None:
    """Trains what is missing.

    Raises:
        CompressionError: an option, the teacher or the rows cannot be used.
    """
    trainings = all_runs(options.steps, options.seeds)
    runs: list[running.AnyRun] = [running.TeacherRun(), *trainings, *all_cuts()]
    chosen = chosen_runs(runs, options.only)
    if options.list:
        print("\n".join(run.name for run in chosen))
        return
    if options.steps < FEWEST_STEPS or options.seeds < 1 or options.jobs < 1:
        raise OptionError(f"--steps has to be {FEWEST_STEPS} or more, --seeds and --jobs 1 or more")
    task = running.Task(options.teacher, options.train, options.dev, options.work, options.device, digest_of(options))
    options.work.mkdir(parents=True, exist_ok=True)
    missing = [run for run in chosen if not is_finished(run, task)]
    print(f"{len(chosen) - len(missing)} of {len(chosen)} runs are there already", flush=True)
    for result in _results(missing, task, options.jobs):
        tqdm.write(", ".join(_told(result)))
        gather(runs, task, options).save(options.work / "evidence.json")
    results = gather(runs, task, options)
    results.save(options.work / "evidence.json")
    if options.publish:
        figures = REPOSITORY / "benchmarks" / "results" / "evidence.json"
        results.save(figures)
        # As the file has them, rounded: whoever makes the page again from the file gets the same.
        publish(Results.load(figures), REPOSITORY / "docs" / "results.md", REPOSITORY / "docs" / "images")


def gather(runs: Sequence[running.AnyRun], task: running.Task, options: argparse.Namespace) -> Results:
    """The figures of the runs that are there, that of the teacher among them."""
    results = Results({})
    for run in runs:
        if not is_finished(run, task):
            continue
        found = json.loads((task.work / f"{run.name}.json").read_text(encoding="utf-8"))
        match run:
            case running.TeacherRun():
                results.about = {
                    "command": command_of(options),
                    "commit": _git("describe", "--always", "--dirty", "--exclude=*"),
                    "date": f"{datetime.now(UTC):%Y-%m-%d}",
                    "machine": machine_name(),
                    "steps": options.steps,
                    "planned": sum(isinstance(other, Run) for other in runs),
                    "train_rows": found["train_rows"],
                    "dev_rows": found["dev_rows"],
                    "teacher": {
                        "name": found["teacher"],
                        "parameters": found["parameters"],
                        "accuracy": found["accuracy"],
                    },
                }
            case CutRun():
                results.cuts.append(Cut(run.title, found["losses"]))
            case Run():
                results.outcomes.append(Outcome.of(found))
    return results


def command_of(options: argparse.Namespace) -> str:
    """The command that makes these figures, without this machine's folders."""
    paths = {"teacher": options.teacher, "train": options.train, "dev": options.dev}
    named = " ".join(f"--{option} {path.parent.name}/{path.name}" for option, path in paths.items())
    return f"python -m benchmarks.compression.evidence {named} --steps {options.steps} --seeds {options.seeds}"


def _told(result: Mapping[str, Any]) -> Iterator[str]:
    yield f"{result['name']}: {result['seconds']:.0f} s"
    if "accuracy" in result:
        yield f"accuracy on dev {result['accuracy']:.4f}"
    if "nonzero_parameters" in result:
        yield f"{result['nonzero_parameters']:,} non-zeros after {result['steps']:,} steps"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=REPOSITORY).stdout.strip()


def _results(runs: Sequence[running.AnyRun], task: running.Task, jobs: int) -> Iterator[dict[str, Any]]:
    if not runs:
        return
    if jobs == 1:
        running.become_worker(task)
        yield from map(running.carry_out, tqdm(runs, desc="runs", unit="run"))
        return
    log = task.work / "worker.log"
    print(f"progress of each process: {log}-*", flush=True)
    pool = ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=running.become_worker,
        initargs=(task, log),
    )
    try:
        waiting = [pool.submit(running.carry_out, run) for run in runs]
        for done in tqdm(as_completed(waiting), total=len(waiting), desc="runs", unit="run"):
            yield done.result()
    except BrokenProcessPool as error:
        raise CheckpointError(f"a process ended before its run did; {log}-* say why; repeat the command") from error
    finally:
        pool.shutdown(cancel_futures=True)


def chosen_runs(runs: Sequence[running.AnyRun], only: Sequence[str]) -> list[running.AnyRun]:
    """The teacher, and the runs whose names begin with one of ``only``: all where there is none.

    Raises:
        OptionError: one of them fits no run.
    """
    for name in only:
        if not any(run.name.startswith(name) for run in runs):
            raise OptionError(f"--only {name}: no run's name begins so; see --list")
    return [run for run in runs if not only or run.name.startswith(("teacher", *only))]


def is_finished(run: running.AnyRun, task: running.Task) -> bool:
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
    parser.add_argument("--publish", action="store_true", help="write the figures into this repository, too")
    parser.add_argument("--list", action="store_true", help="print the runs' names in their order and end")
    return parser.parse_args(arguments)


def _said(line: str) -> int:
    print(f"evidence: {line}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
