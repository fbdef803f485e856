"""Whether a teacher knows its task: another model's tokenizer of the same size shows in its predictions alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ladabert_compress.data.texts import LabelledTexts
from ladabert_compress.errors import TeacherError
from ladabert_compress.measure.inference import predict_logits
from ladabert_compress.measure.predictions import Predictions, are_scores, decide, pearson
from ladabert_compress.teacher.folder import load_teacher
from ladabert_compress.teacher.identity import with_label_names
from ladabert_compress.teacher.source import TeacherSource

CHECKED_ROWS = 500


def check_teacher(
    source: TeacherSource | Path,
    dev_texts: LabelledTexts,
    max_length: int,
    device: torch.device,
    *,
    label_names: Sequence[str] = (),
) -> None:
    """Refuses a teacher that predicts the labels of dev no better than chance, before hours are spent on its student.

    Accuracy does not show it: where most rows have one label, always predicting that label is accurate, too.

    Raises:
        TeacherError: its mean recall over the labels is within one standard error of chance, or its correlation of 0.
        OptionError: there are more or fewer ``label_names`` than labels.
        DataError: a label is not the teacher's.
    """
    source = TeacherSource.of(source)
    teacher = with_label_names(load_teacher(source), label_names)
    longest = min(max_length, teacher.model.config.max_position_embeddings)
    data = teacher.encode("--dev", dev_texts, longest).sample(CHECKED_ROWS)
    teacher.model.to(device)  # type: ignore[arg-type]
    truth = data.labels
    predictions = decide(predict_logits(teacher.model, data, device).numpy(), truth)
    if are_scores(truth):
        correlation, error = pearson(predictions, truth), 1 / math.sqrt(len(truth))
        if truth.std() > 0 and correlation <= error:
            raise TeacherError(
                f"{source.name}: its scores have nothing to do with those of --dev (correlation {correlation:.3f} ± "
                f"{error:.3f} on {len(data)} rows); put the model's own tokenizer there"
            )
        return
    recall, chance, error = recall_and_chance(predictions.ravel(), truth.ravel())
    if len(np.unique(truth)) > 1 and recall <= chance + error:
        raise TeacherError(
            f"{source.name}: tells the labels of --dev no better than chance (mean recall {recall:.3f}, chance "
            f"{chance:.3f} ± {error:.3f} on {len(data)} rows); put the model's own tokenizer there, and look at the "
            "labels' order"
        )


def recall_and_chance(predictions: Predictions, labels: Predictions) -> tuple[float, float, float]:
    """The mean recall of the labels that occur, its value by chance, and that value's standard error; both are (N,)."""
    present, rows = np.unique(labels, return_counts=True)
    recalls = [float((predictions[labels == label] == label).mean()) for label in present]
    shares = [float((predictions == label).mean()) for label in present]  # what each label's recall would be by chance
    variance = sum(share * (1 - share) / count for share, count in zip(shares, rows, strict=True))
    count = len(present)
    return sum(recalls) / count, sum(shares) / count, math.sqrt(variance) / count
