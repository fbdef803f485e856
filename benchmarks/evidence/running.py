"""Carries out one run and writes what came of it; a training that was broken off goes on from its checkpoint."""

import hashlib
import json
import multiprocessing
import os
import shutil
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.evidence.contenders import Run, in_steps
from benchmarks.evidence.cuts import CutRun, losses_when_cut
from benchmarks.evidence.scratch import ScratchLearner, ScratchStudent
from ladabert_compress.data.batches import Batch, EncodedTexts, encode
from ladabert_compress.data.labels import targets_of
from ladabert_compress.data.reading import read_labelled_texts
from ladabert_compress.errors import CheckpointError
from ladabert_compress.files import cannot_be_written, write_text
from ladabert_compress.measure.inference import classify, evaluate_model
from ladabert_compress.recipe import TrainingConfig
from ladabert_compress.student.matrices import count_parameters
from ladabert_compress.teacher.folder import Teacher, load_teacher
from ladabert_compress.training.device import choose_device
from ladabert_compress.training.distillation import LadaBertLearner
from ladabert_compress.training.loop import steps_per_epoch, train

MAX_LENGTH = TrainingConfig().max_length


class LabelLearner(LadaBertLearner):
    """Shrinks as LadaBERT does, but learns from the labels and never asks the teacher."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the mean cross-entropy over the batch."""
        return {"labels": nn.functional.cross_entropy(classify(self.module, batch).float(), batch.labels)}


@dataclass(frozen=True)
class TeacherRun:
    """What the students are measured against: the teacher's accuracy."""

    name: str = "teacher"

    def settings(self) -> dict[str, Any]:
        """Teacher and rows decide it alone."""
        return {}


AnyRun = Run | CutRun | TeacherRun


@dataclass(frozen=True)
class Task:
    """What all runs share; ``digest`` names the teacher's and the rows' contents."""

    teacher: Path
    train: Path
    dev: Path
    work: Path
    device: str
    digest: str

    def file_of(self, run: AnyRun) -> Path:
        """Where a run's result goes."""
        return self.work / f"{run.name}.json"


class Worker:
    """A process that carries out runs on one thread: it has read the task's teacher and rows.

    A row may have as many tokens as the recipes say and the teacher allows. Raises CompressionError when one of them
    cannot be used.
    """

    def __init__(self, task: Task) -> None:
        torch.set_num_threads(1)
        self._task = task
        self._device = choose_device(task.device)
        self._teacher: Teacher = load_teacher(task.teacher)
        self._train, self._dev = (self._encoded("--train", task.train), self._encoded("--dev", task.dev))
        self._teacher.model.to(self._device)  # type: ignore[arg-type]

    def _encoded(self, option: str, path: Path) -> EncodedTexts:
        teacher = self._teacher
        texts = read_labelled_texts(str(path))
        labels = targets_of(option, texts, teacher.labels, teacher.problem_type)
        max_length = min(MAX_LENGTH, teacher.model.config.max_position_embeddings)
        return encode(texts, labels, teacher.tokenizer, max_length)

    def carry_out(self, run: AnyRun) -> dict[str, Any]:
        """Do what the run is for, write its file and return what it says.

        Raises:
            CompressionError: the recipe does not fit the teacher, or the disk is full: the run goes on where it was.
        """
        start, cpu_start = time.monotonic(), time.process_time()
        match run:
            case Run():
                found = self._train_student(run)
            case CutRun():
                found = {"losses": losses_when_cut(run, self._teacher, self._train)}
            case TeacherRun():
                found = {
                    "teacher": self._teacher.card.name,
                    "accuracy": evaluate_model(self._teacher.model, self._dev, self._device),
                    "parameters": count_parameters(self._teacher.model).total,
                    "train_rows": len(self._train),
                    "dev_rows": len(self._dev),
                }
        cpu_seconds = found.pop("earlier_cpu_seconds", 0.0) + time.process_time() - cpu_start
        spent = {"seconds": time.monotonic() - start, "cpu_seconds": cpu_seconds}
        result = {"name": run.name, "digest": self._task.digest, **run.settings(), **found, **spent}
        file = self._task.file_of(run)
        try:
            write_text(file, json.dumps(result, indent=2) + "\n")
        except OSError as error:
            raise CheckpointError(cannot_be_written(file, error)) from error
        shutil.rmtree(self._task.work / run.name, ignore_errors=True)
        return result

    def _train_student(self, run: Run) -> dict[str, Any]:
        """Train the run's student; its checkpoint is in ``WORK/NAME``."""
        teacher, config = self._teacher.model, run.recipe.training
        epoch_steps = steps_per_epoch(len(self._train), config.batch_size)
        full_size_from = 0
        learner: LadaBertLearner | ScratchLearner
        if run.kind == "scratch":
            budget = round(count_parameters(teacher).total / run.recipe.budget.ratio)
            learner = ScratchLearner(teacher, budget, run.steps, config.seed)
        else:
            recipe = replace(run.recipe, schedule=in_steps(run.recipe.schedule, run.steps, epoch_steps))
            kind = LabelLearner if run.kind == "labels" else LadaBertLearner
            learner = kind(teacher, recipe, epoch_steps, self._train)
            full_size_from = learner.timetable.starts[-1]
            assert learner.timetable.total_steps == run.steps
        settings = json.dumps(run.settings(), sort_keys=True)
        spent: dict[str, float] = {}
        history = train(
            learner,
            self._train,
            self._dev,
            config,
            total_steps=run.steps,
            evaluate_every=run.evaluate_every,
            device=self._device,
            checkpoint=self._task.work / run.name / "checkpoint.pt",
            resume=True,
            run_id=hashlib.sha256((self._task.digest + settings).encode()).hexdigest(),
            description=run.name,
            spent=spent,
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
            **spent,
        }


_worker: Worker  # of a process of several


def become_worker(task: Task) -> None:
    """Ready this process, one of several, for its runs; it ends with its parent."""
    global _worker
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    _worker = Worker(task)


def carry_out(run: AnyRun) -> dict[str, Any]:
    """Do a run in a process that became a worker."""
    return _worker.carry_out(run)
