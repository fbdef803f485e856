"""The teacher itself in the place of a student, to export it as it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ladabert_compress.data.batches import EncodedTexts
from ladabert_compress.data.overview import describe_sources
from ladabert_compress.errors import OptionError
from ladabert_compress.measure.scores import int8_metric
from ladabert_compress.recipe import ExportRecipe, TrainingConfig
from ladabert_compress.student.student import Student
from ladabert_compress.teacher.folder import Teacher, load_teacher
from ladabert_compress.teacher.source import TeacherSource
from ladabert_compress.training.rows import HeldOut, Sources, divide_rows


@dataclass(frozen=True)
class Uncompressed:
    """What :func:`take_teacher` hands to the export, in the form of a finished run."""

    teacher: Teacher
    train_data: EncodedTexts
    dev_data: EncodedTexts
    held_out: HeldOut
    task: str
    dev_labels: str
    max_length: int
    seed: int
    guards: ExportRecipe

    @cached_property
    def student(self) -> Student:
        """The teacher, of which nothing is taken."""
        return Student(self.teacher.model)

    @property
    def method(self) -> dict[str, Any]:
        """What the manifest says of the compression: none, and the settings of the export."""
        recipe = {"training": {"max_length": self.max_length, "seed": self.seed}, "export": asdict(self.guards)}
        return {"method": "none", "recipe": recipe, "requested_ratio": 1}


def take_teacher(
    source: TeacherSource | Path, sources: Sources, *, max_length: int, guards: ExportRecipe
) -> Uncompressed:
    """A teacher with rows to measure its graphs on, held out as for a student.

    Raises:
        TeacherError: the teacher cannot be used.
        DataError: a label is not the teacher's, or there are too few rows.
        OptionError: ``max_length`` is over the teacher's positions.
    """
    task, teacher = sources.task, load_teacher(source)
    positions = teacher.model.config.max_position_embeddings
    if max_length > positions:
        raise OptionError(f"--max-length: {max_length} is over the teacher's {positions} positions")
    tqdm.write(
        describe_sources(sources.by_option, teacher.tokenizer, max_length, positions, problem_type=teacher.problem_type)
    )
    training = TrainingConfig(max_length=max_length)
    rows = divide_rows(teacher, training, sources)
    int8_metric(guards.int8_metric, rows.dev.labels)  # refused before anything is measured
    return Uncompressed(
        teacher, rows.train, rows.dev, rows.held_out, task, rows.dev_labels, max_length, training.seed, guards
    )
