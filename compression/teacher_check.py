"""Whether a teacher knows its task: another model's tokenizer of the same size shows in nothing but the answers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from compression.answers import Answers, decide
from compression.batches import encode
from compression.data import LabelledTexts, targets_of
from compression.errors import TeacherError
from compression.teacher import load_teacher
from compression.training import choose_device, predict_logits

CHECKED_ROWS = 500


def check_teacher(folder: Path, dev_texts: LabelledTexts, max_length: int, device_name: str) -> None:
    """Refuses a teacher that tells the labels of dev no better than chance, before hours are spent on its student.

    Accuracy would not do: where most rows have one label, a good teacher may be no more accurate than that label.

    Raises:
        TeacherError: its mean recall over the labels is within one standard error of chance.
        DataError: a label is not the teacher's.
    """
    teacher, device = load_teacher(folder), choose_device(device_name)
    labels = targets_of("--dev", dev_texts, teacher.labels, teacher.problem_type)
    data = encode(
        dev_texts, labels, teacher.tokenizer, min(max_length, teacher.model.config.max_position_embeddings)
    ).sample(CHECKED_ROWS)
    teacher.model.to(device)  # type: ignore[arg-type]
    truth = np.array(data.labels)
    answers = decide(predict_logits(teacher.model, data, device).numpy(), truth)
    recall, chance, error = recall_and_chance(answers.ravel(), truth.ravel())
    if len(np.unique(truth)) > 1 and recall <= chance + error:
        raise TeacherError(
            f"{folder}: tells the labels of --dev no better than chance (mean recall {recall:.3f}, chance {chance:.3f} "
            f"± {error:.3f} on {len(data)} rows); put the model's own tokenizer there, and look at the labels' order"
        )


def recall_and_chance(answers: Answers, labels: Answers) -> tuple[float, float, float]:
    """The mean recall of the labels that occur, what it would be if answers (N,) knew nothing of labels (N,), give or
    take one standard error."""
    present, rows = np.unique(labels, return_counts=True)
    recalls = [float((answers[labels == label] == label).mean()) for label in present]
    shares = [float((answers == label).mean()) for label in present]  # what each label's recall would be by chance
    variance = sum(share * (1 - share) / count for share, count in zip(shares, rows, strict=True))
    count = len(present)
    return sum(recalls) / count, sum(shares) / count, math.sqrt(variance) / count
