"""Carries out one run and writes what came of it; a training that was broken off goes on from its checkpoint."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.compression.evidence.contenders import Run, in_steps
from benchmarks.compression.evidence.cuts import CutRun, losses_when_cut
from benchmarks.compression.evidence.scratch import ScratchLearner, ScratchStudent
from compression.batches import Batch, EncodedTexts, encode
from compression.checkpoint import cannot_be_written
from compression.data import read_labelled_texts, targets_of
from compression.errors import CheckpointError
from compression.files import write_text
from compression.ladabert import LadaBertLearner
from compression.matrices import count_parameters
from compression.teacher import Teacher, load_teacher
from compression.training import TrainingConfig, choose_device, classify, evaluate_accuracy, steps_per_epoch, train

CHECKPOINT_EVERY = 100
MAX_LENGTH = TrainingConfig().max_length


class LabelLearner(LadaBertLearner):
    """Shrinks as LadaBERT does, but learns from the labels and never asks the teacher."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The mean cross-entropy over the batch."""
        return {"labels": nn.functional.cross_entropy(classify(self.module, batch).float(), batch.labels)}


@dataclass(frozen=True)
class Task:
    """What all runs share; ``digest`` names the teacher's and the rows' contents."""

    teacher: Path
    train: Path
    dev: Path
    work: Path
    device: str
    digest: str


@dataclass(frozen=True)
class Loaded:
    """The task's teacher and rows, read once a process."""

    task: Task
    teacher: Teacher
    train_data: EncodedTexts
    dev_data: EncodedTexts


_loaded: Loaded


def load(task: Task) -> Loaded:
    """Reads teacher and rows; a row may have as many tokens as the recipes say and the teacher allows.

    Raises:
        CompressionError: one of them cannot be used.
    """
    teacher = load_teacher(task.teacher)
    max_length = min(MAX_LENGTH, teacher.model.config.max_position_embeddings)
    encoded = []
    for option, path in (("--train", task.train), ("--dev", task.dev)):
        texts = read_labelled_texts(str(path))
        labels = targets_of(option, texts, teacher.labels, teacher.problem_type)
        encoded.append(encode(texts, labels, teacher.tokenizer, max_length))
    return Loaded(task, teacher, *encoded)


def become_worker(task: Task, log: Path | None = None) -> None:
    """Readies this process for its runs: one thread; one of several writes its progress to a log instead."""
    global _loaded
    torch.set_num_threads(1)
    if log is not None:
        sys.stdout = sys.stderr = (log.parent / f"{log.name}-{os.getpid()}").open("w", buffering=1)
        threading.Thread(target=_end_with_parent, daemon=True).start()
    _loaded = load(task)
    _loaded.teacher.model.to(choose_device(task.device))  # type: ignore[arg-type]


@dataclass(frozen=True)
class TeacherRun:
    """What the students are measured against: the teacher's accuracy."""

    name: str = "teacher"

    def settings(self) -> dict[str, Any]:
        """Teacher and rows decide it alone."""
        return {}


AnyRun = Run | CutRun | TeacherRun


def carry_out(run: AnyRun) -> dict[str, Any]:
    """Does what the run is for, writes ``WORK/NAME.json`` and returns what it says.

    Raises:
        CompressionError: the recipe does not fit the teacher, or the disk is full: the run goes on where it was.
    """
    start, cpu_start = time.monotonic(), time.process_time()
    match run:
        case Run():
            found = _train(run)
        case CutRun():
            found = {"losses": losses_when_cut(run, _loaded.teacher, _loaded.train_data)}
        case TeacherRun():
            found = _teachers_part()
    spent = {"seconds": time.monotonic() - start, "cpu_seconds": time.process_time() - cpu_start}
    result = {"name": run.name, "digest": _loaded.task.digest, **run.settings(), **found, **spent}
    write_json(_loaded.task.work / f"{run.name}.json", result)
    shutil.rmtree(_loaded.task.work / run.name, ignore_errors=True)
    return result


def _teachers_part() -> dict[str, Any]:
    teacher, dev_data = _loaded.teacher, _loaded.dev_data
    return {
        "teacher": teacher.card.name,
        "accuracy": evaluate_accuracy(teacher.model, dev_data, choose_device(_loaded.task.device)),
        "parameters": count_parameters(teacher.model).total,
        "train_rows": len(_loaded.train_data),
        "dev_rows": len(dev_data),
    }


def _train(run: Run) -> dict[str, Any]:
    """Trains the run's student; its checkpoint is in ``WORK/NAME``."""
    task, teacher = _loaded.task, _loaded.teacher.model
    config, device = run.recipe.training, choose_device(task.device)
    epoch_steps = steps_per_epoch(len(_loaded.train_data), config.batch_size)
    full_size_from = 0
    learner: LadaBertLearner | ScratchLearner
    if run.kind == "scratch":
        budget = round(count_parameters(teacher).total / run.recipe.budget.ratio)
        learner = ScratchLearner(teacher, budget, run.steps, config.seed)
    else:
        recipe = replace(run.recipe, schedule=in_steps(run.recipe.schedule, run.steps, epoch_steps))
        kind = LabelLearner if run.kind == "labels" else LadaBertLearner
        learner = kind(teacher, recipe, epoch_steps, _loaded.train_data)
        full_size_from = learner.timetable.starts[-1]
        assert learner.timetable.total_steps == run.steps
    history = train(
        learner,
        _loaded.train_data,
        _loaded.dev_data,
        config,
        total_steps=run.steps,
        evaluate_every=run.evaluate_every,
        device=device,
        checkpoint=task.work / run.name / "checkpoint.pt",
        checkpoint_every=CHECKPOINT_EVERY,
        resume=True,
        run_id=hashlib.sha256((task.digest + json.dumps(run.settings(), sort_keys=True)).encode()).hexdigest(),
        description=run.name,
    )
    module = learner.module
    if isinstance(module, ScratchStudent):
        parameters = nonzero = module.student_parameters()
    else:
        parameters = sum(parameter.numel() for parameter in module.parameters())
        nonzero = sum(int(parameter.count_nonzero()) for parameter in module.parameters())
    return {
        "accuracy": history[-1]["accuracy"],
        "parameters": parameters,
        "nonzero_parameters": nonzero,
        "full_size_from_step": full_size_from,
        "evaluations": history,
    }


def write_json(path: Path, values: Any) -> None:
    """Writes the file whole or not at all.

    Raises:
        CheckpointError: it cannot be written.
    """
    try:
        write_text(path, json.dumps(values, indent=2) + "\n")
    except OSError as error:
        raise CheckpointError(cannot_be_written(path, error)) from error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
