"""One trial of a search: a short distillation, scored on rows that it does not learn from."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import torch

from ladabert_compress.data.batches import EncodedTexts
from ladabert_compress.data.overlaps import hold_out_without_overlaps
from ladabert_compress.measure.scores import main_metric
from ladabert_compress.recipe import Recipe, TrainingConfig
from ladabert_compress.teacher.folder import Teacher, load_teacher
from ladabert_compress.teacher.source import TeacherSource
from ladabert_compress.training.distillation import LadaBertLearner
from ladabert_compress.training.loop import steps_per_epoch, train


@dataclass(frozen=True)
class TrialTask:
    """What all trials share: the teacher, the rows to learn from, and the rows to score on."""

    teacher: TeacherSource | Path
    train_data: EncodedTexts
    held_out: EncodedTexts
    steps: int


_task: TrialTask
_teacher: Teacher


def prepare(
    teacher: TeacherSource | Path, data: EncodedTexts, steps: int, held_out_rows: int, training: TrainingConfig
) -> TrialTask:
    """Holds rows out for the scores and draws as many as the steps can see."""
    rest, held_out = map(data.select, hold_out_without_overlaps(data, held_out_rows, training.seed))
    generator = torch.Generator().manual_seed(training.seed)
    order: list[int] = torch.randperm(len(rest), generator=generator).tolist()
    return TrialTask(teacher, rest.select(order[: steps * training.batch_size]), held_out, steps)


def become_worker(task: TrialTask, in_own_process: bool = False) -> None:
    """Loads what the trials share; in its own process it is quiet, has one thread and ends with its parent."""
    global _task, _teacher
    if in_own_process:
        torch.set_num_threads(1)
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123,SIM115 - stays open as long as the process
        threading.Thread(target=_end_with_parent, daemon=True).start()
    _task, _teacher = task, load_teacher(task.teacher)


def score_recipe(recipe: Recipe) -> float:
    """The accuracy, or of scores the correlation, on the held-out rows after the task's number of steps."""
    epoch_steps = steps_per_epoch(len(_task.train_data), recipe.training.batch_size)
    recipe = recipe.with_total_epochs(_task.steps / epoch_steps)
    learner = LadaBertLearner(_teacher.model, recipe, epoch_steps, _task.train_data)
    total_steps = learner.timetable.total_steps
    history = train(
        learner,
        _task.train_data,
        _task.held_out,
        recipe.training,
        total_steps=total_steps,
        evaluate_every=total_steps,
        device=torch.device("cpu"),
        description="trial",
    )
    return history[-1][main_metric(_task.held_out.labels)]


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
