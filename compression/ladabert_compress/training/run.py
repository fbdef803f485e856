"""One ``compress`` run: from teacher, recipe and rows to a student, which ``artefact.export`` takes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import BertForSequenceClassification

from ladabert_compress.data.batches import EncodedTexts
from ladabert_compress.data.reading import LabelledTexts
from ladabert_compress.errors import CheckpointError, DataError, RecipeError
from ladabert_compress.files import cannot_be_written, write_text
from ladabert_compress.measure.inference import predict_logits
from ladabert_compress.measure.predictions import confusion, decide
from ladabert_compress.measure.reliability import reliability
from ladabert_compress.recipe import Recipe
from ladabert_compress.student.saved import save_student
from ladabert_compress.student.student import Student
from ladabert_compress.teacher.folder import Teacher, load_teacher
from ladabert_compress.training.device import choose_device
from ladabert_compress.training.distillation import LadaBertLearner
from ladabert_compress.training.loop import steps_per_epoch, train
from ladabert_compress.training.processes import join_processes

CALIBRATION_ROWS = 1000
HISTORY_FILE = "history.json"

FindRatio = Callable[[Teacher, EncodedTexts], float]


@dataclass(frozen=True)
class CompressionResult:
    """What a finished run hands to the export."""

    teacher: Teacher
    student: Student
    recipe: Recipe
    train_data: EncodedTexts
    dev_data: EncodedTexts
    calibration_data: EncodedTexts  # rows of train that changed no weight; none where train is too small
    task: str

    @property
    def max_length(self) -> int:
        """Tokens that the student reads."""
        return self.recipe.training.max_length


def compress(
    teacher_folder: Path,
    recipe: Recipe,
    train_texts: LabelledTexts,
    dev_texts: LabelledTexts,
    run_folder: Path,
    *,
    calibration_rows: int = CALIBRATION_ROWS,
    calibration_texts: LabelledTexts | None = None,
    find_ratio: FindRatio | None = None,
    device_name: str = "auto",
    resume: bool = False,
) -> CompressionResult:
    """Makes a student and writes it with its history to ``run_folder``.

    Rows of dev change no weight. The rows for the temperature change none either: they are ``calibration_texts``, or
    ``calibration_rows`` of train (at most a tenth), drawn by the seed. ``find_ratio`` replaces the recipe's ratio by
    one that it finds for the teacher and the training rows; it runs in the first process, for all of them.

    Raises:
        TeacherError: the teacher cannot be used.
        DataError: the data's labels or task are not the teacher's.
        RecipeError: the recipe's budget cannot be met on this teacher.
        CheckpointError: ``resume`` finds a checkpoint that it cannot continue, or the disk is full.
    """
    teacher = load_teacher(teacher_folder)
    processes, device = join_processes(choose_device(device_name))
    max_length, positions = recipe.training.max_length, teacher.model.config.max_position_embeddings
    if max_length > positions:
        raise RecipeError(f"training.max_length: {max_length} is over the teacher's {positions} positions")
    train_data = teacher.encode("--train", train_texts, max_length)
    if calibration_texts is None:
        train_data, calibration_data = train_data.hold_out(calibration_rows, recipe.training.seed)
    else:
        calibration_data = teacher.encode("--calibration-data", calibration_texts, max_length)
    dev_data = teacher.encode("--dev", dev_texts, max_length)
    for option, texts in (("--dev", dev_texts), ("--calibration-data", calibration_texts)):
        if texts is not None and texts.task != train_texts.task:
            raise DataError(f"--train is a {train_texts.task} task, {option} a {texts.task} task")
    if find_ratio is not None:
        ratio = processes.from_first(partial(find_ratio, teacher, train_data))
        recipe = replace(recipe, budget=replace(recipe.budget, ratio=ratio))
    epoch_steps = steps_per_epoch(len(train_data), recipe.training.batch_size)
    teacher.model.to(device)  # type: ignore[arg-type]
    learner = LadaBertLearner(teacher.model, recipe, epoch_steps, train_data)
    curve: list[dict[str, float]] = []
    history = train(
        learner,
        train_data,
        dev_data,
        recipe.training,
        total_steps=learner.timetable.total_steps,
        evaluate_every=max(1, epoch_steps // 2),
        device=device,
        checkpoint=run_folder / "checkpoint.pt",
        resume=resume,
        run_id=run_id(recipe, teacher, train_data),
        description=f"compress {run_folder.name}",
        curve=curve,
        processes=processes,
    )
    teacher.model.cpu()
    learner.module.cpu()
    result = CompressionResult(
        teacher, learner.student, recipe, train_data, dev_data, calibration_data, train_texts.task
    )
    if not processes.is_first:
        return result
    try:
        save_student(learner.student.model, run_folder)
        report = {
            "recipe": recipe.to_dict(),
            "evaluations": history,
            "losses": curve,
            "shrink_steps": learner.timetable.starts,
            "processes": processes.count,
            "dev": _describe(learner.result, dev_data, teacher.labels),
        }
        write_text(run_folder / HISTORY_FILE, json.dumps(report, indent=2) + "\n")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(cannot_be_written(run_folder, error)) from error
    return result


def _describe(model: BertForSequenceClassification, data: EncodedTexts, labels: Sequence[str]) -> dict[str, Any]:
    """What a report shows of the predictions, without any row."""
    logits, truth = predict_logits(model, data, torch.device("cpu")).numpy(), np.array(data.labels)
    return {
        "labels": labels,
        "multi_label": truth.ndim == 2,
        "rows": len(data),
        "confusion": confusion(decide(logits, truth), truth, len(labels)),
        "reliability": [asdict(entry) for entry in reliability(logits, truth)],
    }


def run_id(recipe: Recipe, teacher: Teacher, data: EncodedTexts) -> str:
    """Identifies a run's settings, teacher and data, so that a run never continues from another's checkpoint.

    The settings of the export change no weight and are left out.
    """
    settings = recipe.to_dict()
    del settings["export"]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for parameter in teacher.model.parameters():
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    digest.update(repr((data.input_ids, data.labels)).encode())
    return digest.hexdigest()
