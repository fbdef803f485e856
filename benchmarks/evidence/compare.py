"""Trains LadaBERT and its baselines with one budget of steps.

python -m benchmarks evidence --teacher DIR --train F --dev F [--work runs/evidence] [--steps 400] [--seeds 1]
    [--jobs 1] [--only NAME …] [--list] [--write]

Each run leaves a JSON in the work folder: a finished one is not repeated, a broken one goes on from its checkpoint, so
the same command continues whatever stopped it. After every run all that are there are gathered into WORK/evidence.json;
missing ones show as missing. What is compared, and how: benchmarks/evidence/contenders.py.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.evidence import page, running
from benchmarks.evidence.contenders import Run, all_runs
from benchmarks.evidence.cuts import CutRun, all_cuts
from benchmarks.harness.results import Results, origin
from ladabert_compress.errors import CheckpointError, DataError, OptionError, TeacherError

FEWEST_STEPS = 20  # no recipe has more iterations

sections = page.sections
draw = page.draw


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/evidence"), help="where the runs' files go")
    parser.add_argument("--steps", type=int, default=400, help="optimiser steps of every run")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each kind, with seeds 0, 1, …")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, a process and a thread each")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="runs whose name begins so")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--list", action="store_true", help="print the runs' names in their order and end")


def measure(options: argparse.Namespace) -> Results:
    """Train what is missing; return everything that is there.

    Raises:
        CompressionError: an option, the teacher or the rows cannot be used.
    """
    trainings = all_runs(options.steps, options.seeds)
    runs: list[running.AnyRun] = [running.TeacherRun(), *trainings, *all_cuts()]
    chosen = chosen_runs(runs, options.only)
    if options.list:
        print("\n".join(run.name for run in chosen))
        sys.exit()
    if options.steps < FEWEST_STEPS or options.seeds < 1 or options.jobs < 1:
        raise OptionError(f"--steps has to be {FEWEST_STEPS} or more, --seeds and --jobs 1 or more")
    task = running.Task(options.teacher, options.train, options.dev, options.work, options.device, digest_of(options))
    options.work.mkdir(parents=True, exist_ok=True)
    missing = [run for run in chosen if not is_finished(run, task)]
    print(f"{len(chosen) - len(missing)} of {len(chosen)} runs are there already", flush=True)
    for result in _carried_out(missing, task, options.jobs):
        told = {"accuracy on dev": result.get("accuracy"), "non-zeros": result.get("nonzero_parameters")}
        facts = [f"{name} {value:,.4g}" for name, value in told.items() if value is not None]
        tqdm.write(", ".join([f"{result['name']}: {result['seconds']:.0f} s", *facts]))
        gather(runs, task, options).save(options.work / "evidence.json")
    return gather(runs, task, options)


def gather(runs: Sequence[running.AnyRun], task: running.Task, options: argparse.Namespace) -> Results:
    """Return the figures of the runs that are there, that of the teacher among them."""
    results = Results("evidence", origin("torch", "transformers"), tables={"outcomes": [], "cuts": []})
    results.origin["command"] = command_of(options)
    for run in runs:
        if not is_finished(run, task):
            continue
        found = json.loads(task.file_of(run).read_text(encoding="utf-8"))
        match run:
            case running.TeacherRun():
                teacher = {name: found[key] for name, key in (("name", "teacher"), ("parameters", "parameters"))}
                results.settings = {
                    "steps": options.steps,
                    "planned": sum(isinstance(other, Run) for other in runs),
                    "train_rows": found["train_rows"],
                    "dev_rows": found["dev_rows"],
                    "teacher": {**teacher, "accuracy": found["accuracy"]},
                }
            case CutRun():
                results.add("cuts", title=run.title, losses=found["losses"])
            case Run():
                results.add("outcomes", **outcome_of(found))
    return results


def outcome_of(found: dict[str, Any]) -> dict[str, Any]:
    """Return what one run's file comes to; the losses are running means over the last steps, each on rows not seen.

    ``full_size_from_step`` is the first step at which nothing is left to cut; ``curve`` has step and accuracy on dev.
    """
    recipe, last = found["recipe"], found["evaluations"][-1]
    copied = ("accuracy", "parameters", "nonzero_parameters", "full_size_from_step", "cpu_seconds")
    return {
        "contender": found["contender"],
        "ratio": recipe["budget"]["ratio"],
        "seed": recipe["training"]["seed"],
        "steps": found["steps"],
        "learning_rate": recipe["training"]["learning_rate"],
        "batch_size": recipe["training"]["batch_size"],
        **{name: found[name] for name in copied},
        "losses": {name: value for name, value in last.items() if name not in ("step", "accuracy")},
        "curve": [[entry["step"], entry["accuracy"]] for entry in found["evaluations"]],
    }


def command_of(options: argparse.Namespace) -> str:
    """Return the command that makes these figures, however many commands it took, without this machine's folders."""
    paths = {"teacher": options.teacher, "train": options.train, "dev": options.dev}
    named = [part for name, path in paths.items() for part in (f"--{name}", f"{path.parent.name}/{path.name}")]
    counts = ["--steps", str(options.steps), "--seeds", str(options.seeds)]
    return shlex.join(["python", "-m", "benchmarks", "evidence", *named, *counts])


def _carried_out(runs: Sequence[running.AnyRun], task: running.Task, jobs: int) -> Iterator[dict[str, Any]]:
    if not runs:
        return
    if jobs == 1:
        yield from map(running.Worker(task).carry_out, tqdm(runs, desc="runs", unit="run"))
        return
    os.environ["TQDM_DISABLE"] = "1"  # in the processes, whose bars would run into each other
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, running.become_worker, (task,))
    try:
        waiting = [pool.submit(running.carry_out, run) for run in runs]
        for done in tqdm(as_completed(waiting), total=len(waiting), desc="runs", unit="run"):
            yield done.result()
    except BrokenProcessPool as error:
        raise CheckpointError("a process ended before its run did; repeat the command") from error
    finally:
        pool.shutdown(cancel_futures=True)
        del os.environ["TQDM_DISABLE"]


def chosen_runs(runs: Sequence[running.AnyRun], only: Sequence[str]) -> list[running.AnyRun]:
    """Return the teacher, and the runs whose names begin with one of ``only``: all where there is none.

    Raises:
        OptionError: one of them fits no run.
    """
    for name in only:
        if not any(run.name.startswith(name) for run in runs):
            raise OptionError(f"--only {name}: no run's name begins so; see --list")
    return [run for run in runs if not only or run.name.startswith(("teacher", *only))]


def is_finished(run: running.AnyRun, task: running.Task) -> bool:
    """Return whether the run's result is there and was made with these settings.

    Raises:
        OptionError: it was made with others.
    """
    path = task.file_of(run)
    if not path.is_file():
        return False
    result = json.loads(path.read_text(encoding="utf-8"))
    wanted = json.loads(json.dumps({"digest": task.digest, **run.settings()}))
    if any(result.get(key) != value for key, value in wanted.items()):
        raise OptionError(f"{path}: was made with other steps, recipe, rows or teacher; choose another --work")
    return True


def digest_of(options: argparse.Namespace) -> str:
    """Return a name for the contents of teacher and rows.

    Raises:
        CompressionError: one of them is not there.
    """
    digest = hashlib.sha256()
    weights = options.teacher / "model.safetensors"
    for path, error in ((weights, TeacherError), (options.train, DataError), (options.dev, DataError)):
        try:
            digest.update(path.read_bytes())
        except OSError as reason:
            raise error(f"{path}: {reason.strerror}") from reason
    return digest.hexdigest()[:16]
