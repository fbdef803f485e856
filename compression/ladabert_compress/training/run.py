"""One ``compress`` run: from teacher, recipe and rows to a student, which ``artefact.export`` takes on."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tqdm import tqdm
from transformers import BertForSequenceClassification

from ladabert_compress.data.batches import EncodedTexts
from ladabert_compress.data.overview import describe_sources
from ladabert_compress.data.texts import LabelledTexts, Texts
from ladabert_compress.errors import CheckpointError, RecipeError
from ladabert_compress.files import cannot_be_written, write_text
from ladabert_compress.measure.inference import predict_logits
from ladabert_compress.measure.predictions import are_scores, confusion, decide
from ladabert_compress.measure.reliability import reliability
from ladabert_compress.measure.scores import int8_metric
from ladabert_compress.recipe import ExportRecipe, Recipe
from ladabert_compress.student.saved import save_student
from ladabert_compress.student.student import Student
from ladabert_compress.teacher.folder import Teacher, load_teacher
from ladabert_compress.teacher.identity import weights_digest, with_label_names
from ladabert_compress.teacher.source import TeacherSource
from ladabert_compress.training.device import choose_device
from ladabert_compress.training.distillation import LadaBertLearner
from ladabert_compress.training.loop import CHECKPOINT_EVERY_S, steps_per_epoch, train
from ladabert_compress.training.processes import join_processes
from ladabert_compress.training.rows import CALIBRATION_ROWS, DEV_ROWS, HeldOut, Sources, augmented_rows, divide_rows

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
    held_out: HeldOut
    dev_texts: Texts  # what ``dev_data`` was read from
    task: str
    dev_labels: str = "data"  # whose they are: those of the data, or the teacher's predictions

    @property
    def max_length(self) -> int:
        """Tokens that the student reads."""
        return self.recipe.training.max_length

    @property
    def seed(self) -> int:
        """Of the choice of rows, too."""
        return self.recipe.training.seed

    @property
    def guards(self) -> ExportRecipe:
        """What the export refuses."""
        return self.recipe.export

    @property
    def method(self) -> dict[str, Any]:
        """What the manifest says of the compression, sizes left out."""
        return {"method": "LadaBERT", "recipe": self.recipe.to_dict(), "requested_ratio": self.recipe.budget.ratio}


def compress(
    teacher_source: TeacherSource | Path,
    recipe: Recipe,
    train_texts: LabelledTexts | None,
    dev_texts: LabelledTexts | None,
    run_folder: Path,
    *,
    unlabelled_texts: Texts | None = None,
    dev_rows: int = DEV_ROWS,
    calibration_texts: LabelledTexts | None = None,
    calibration_rows: int = CALIBRATION_ROWS,
    find_ratio: FindRatio | None = None,
    label_names: Sequence[str] = (),
    device_name: str = "auto",
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    resume: bool = False,
) -> CompressionResult:
    """Makes a student and writes it with its history to ``run_folder``.

    Which rows are held out, and whose labels dev has, is as :class:`Sources` says. ``find_ratio`` replaces the recipe's
    ratio by one that it finds for the teacher and the training rows; it runs in the first process, for all of them.
    ``label_names`` replace the names of the teacher's labels, in logit order.

    Raises:
        TeacherError: the teacher cannot be used.
        OptionError: there are more or fewer ``label_names`` than labels.
        DataError: the data's labels are not the teacher's, or there are too few rows.
        RecipeError: the recipe's budget cannot be met on this teacher.
        CheckpointError: ``resume`` finds a checkpoint that it cannot continue, or the disk is full.
    """
    sources = Sources(train_texts, dev_texts, unlabelled_texts, calibration_texts, dev_rows, calibration_rows)
    task, teacher = sources.task, with_label_names(load_teacher(teacher_source), label_names)
    processes, device = join_processes(choose_device(device_name))
    max_length, positions = recipe.training.max_length, teacher.model.config.max_position_embeddings
    if max_length > positions:
        raise RecipeError(f"training.max_length: {max_length} is over the teacher's {positions} positions")
    if processes.is_first:
        found = describe_sources(
            sources.by_option, teacher.tokenizer, max_length, positions, problem_type=teacher.problem_type
        )
        tqdm.write(found)
    rows = divide_rows(teacher, recipe.training, sources)
    int8_metric(recipe.export.int8_metric, rows.dev.labels)  # refused now and not after hours
    if find_ratio is not None:
        ratio = processes.from_first(partial(find_ratio, teacher, rows.train))
        recipe = replace(recipe, budget=replace(recipe.budget, ratio=ratio))
    epoch_steps = steps_per_epoch(len(rows.train), recipe.training.batch_size)
    rows_of_epoch = augmented_rows(teacher, recipe, rows.train_texts)
    teacher.model.to(device)  # type: ignore[arg-type]
    observed = rows.train if rows_of_epoch is None else rows_of_epoch(0)
    learner = LadaBertLearner(teacher.model, recipe, epoch_steps, observed, processes)
    curve: list[dict[str, float]] = []
    checkpoint, start = run_folder / "checkpoint.pt", time.monotonic()
    is_resumed = resume and checkpoint.is_file()
    history = train(
        learner,
        rows.train,
        rows.dev,
        recipe.training,
        total_steps=learner.timetable.total_steps,
        evaluate_every=max(1, epoch_steps // 2),
        device=device,
        checkpoint=checkpoint,
        checkpoint_every_s=checkpoint_every_s,
        resume=resume,
        run_id=run_id(recipe, teacher, rows.train),
        description=f"compress {run_folder.name}",
        curve=curve,
        rows_of_epoch=rows_of_epoch,
        processes=processes,
    )
    training_s = None if is_resumed else round(time.monotonic() - start, 1)  # who knows how long a run had stopped
    teacher.model.cpu()
    learner.module.cpu()
    result = CompressionResult(
        teacher,
        learner.student,
        recipe,
        rows.train,
        rows.dev,
        rows.held_out,
        rows.dev_texts,
        task,
        rows.dev_labels,
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
            "training_s": training_s,
            "dev": _describe(learner.result, rows.dev, teacher.labels),
        }
        write_text(run_folder / HISTORY_FILE, json.dumps(report, indent=2) + "\n")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(cannot_be_written(run_folder, error)) from error
    return result


def _describe(model: BertForSequenceClassification, data: EncodedTexts, labels: Sequence[str]) -> dict[str, Any]:
    """What a report shows of the predictions, without any row."""
    logits, truth = predict_logits(model, data, torch.device("cpu")).numpy(), data.labels
    if are_scores(truth):
        return {"labels": labels, "problem_type": "regression", "rows": len(data)}
    return {
        "labels": labels,
        "multi_label": truth.ndim == 2,
        "rows": len(data),
        "counts": confusion(decide(logits, truth), truth, len(labels)),
        "reliability": [asdict(entry) for entry in reliability(logits, truth)],
    }


def run_id(recipe: Recipe, teacher: Teacher, data: EncodedTexts) -> str:
    """Identifies a run's settings, teacher and data, so that a run never continues from another's checkpoint.

    The settings of the export change no weight and are left out.
    """
    settings = recipe.to_dict()
    del settings["export"]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(weights_digest(teacher.model).encode())
    digest.update(data.digest())
    return digest.hexdigest()
