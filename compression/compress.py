"""One ``compress`` run: teacher and recipe in, student and artefact out."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from compression.batches import EncodedTexts, encode
from compression.data import LabelledTexts, label_ids_of
from compression.errors import DataError
from compression.ladabert import LadaBertLearner
from compression.recipe import Recipe
from compression.student import Student
from compression.teacher import Teacher, load_teacher
from compression.training import choose_device, steps_per_epoch, train


@dataclass(frozen=True)
class CompressionResult:
    """What a finished run hands to the export."""

    teacher: Teacher
    student: Student
    recipe: Recipe
    train_data: EncodedTexts
    dev_data: EncodedTexts
    task: str


def compress(
    teacher_folder: Path,
    recipe: Recipe,
    train_texts: LabelledTexts,
    dev_texts: LabelledTexts,
    run_folder: Path,
    *,
    device_name: str = "auto",
    resume: bool = False,
) -> CompressionResult:
    """Makes a student and writes it with its history to ``run_folder``; the rows of dev change no weight.

    Raises:
        TeacherError: the teacher cannot be used.
        DataError: the data's labels or task are not the teacher's.
        RecipeError: the recipe's budget cannot be met on this teacher.
        CheckpointError: ``resume`` finds a checkpoint that it cannot continue.
    """
    teacher = load_teacher(teacher_folder)
    device = choose_device(device_name)
    train_data = _encode(teacher, train_texts, "--train", recipe.training.max_length)
    dev_data = _encode(teacher, dev_texts, "--dev", recipe.training.max_length)
    if train_texts.task != dev_texts.task:
        raise DataError(f"--train is a {train_texts.task} task, --dev a {dev_texts.task} task")
    epoch_steps = steps_per_epoch(len(train_data), recipe.training.batch_size)
    teacher.model.to(device)  # type: ignore[arg-type]
    learner = LadaBertLearner(teacher.model, recipe, epoch_steps, train_data)
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
        run_id=_run_id(recipe, teacher, train_data),
        description=f"compress {run_folder.name}",
    )
    teacher.model.cpu()
    learner.module.cpu()
    learner.student.masks = {name: mask.cpu() for name, mask in learner.student.masks.items()}
    learner.student.save(run_folder)
    (run_folder / "history.json").write_text(
        json.dumps({"recipe": recipe.to_dict(), "evaluations": history}, indent=2) + "\n",
        encoding="utf-8",
    )
    return CompressionResult(teacher, learner.student, recipe, train_data, dev_data, train_texts.task)


def _encode(teacher: Teacher, texts: LabelledTexts, source: str, max_length: int) -> EncodedTexts:
    return encode(texts, label_ids_of(source, texts, teacher.labels), teacher.tokenizer, max_length)


def _run_id(recipe: Recipe, teacher: Teacher, data: EncodedTexts) -> str:
    digest = hashlib.sha256(json.dumps(recipe.to_dict(), sort_keys=True).encode())
    for parameter in teacher.model.parameters():
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    digest.update(repr((data.input_ids, data.labels)).encode())
    return digest.hexdigest()
