"""The PyTorch student in a run's folder: its configuration and weights, whole or matrix by matrix."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from ladabert_compress.errors import OptionError, TeacherError
from ladabert_compress.student.bert import new_classifier
from ladabert_compress.student.factors import empty_factors
from ladabert_compress.student.matrices import LEFT_ALONE, walk_matrices

WEIGHTS_FILE = "student.safetensors"


def save_student(model: BertForSequenceClassification, folder: Path) -> None:
    """Writes configuration and weights; ranks and heads follow from the weights' shapes, masks from their zeros."""
    model.config.save_pretrained(folder)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.named_parameters()}
    save_file(weights, folder / WEIGHTS_FILE)


def load_student(folder: Path) -> BertForSequenceClassification:
    """The PyTorch student that :func:`save_student` wrote, on the CPU in evaluation mode.

    Raises:
        TeacherError: the folder holds no student.
    """
    if not (folder / WEIGHTS_FILE).is_file():
        raise TeacherError(f"{folder}: no {WEIGHTS_FILE} there; expected the --run folder of a compress run")
    model = new_classifier(BertConfig.from_pretrained(folder))
    weights = load_file(folder / WEIGHTS_FILE)
    for matrix, module in list(walk_matrices(model)):
        left = weights.get(f"{matrix.name}.left")
        rows, columns = (
            weights[f"{matrix.name}.weight"].shape
            if left is None
            else (len(left), len(weights[f"{matrix.name}.right"]))
        )
        if (rows, columns) != (matrix.rows, matrix.columns):  # the configuration does not say that heads were taken out
            module = nn.Linear(columns, rows)
            model.set_submodule(matrix.name, module)
        if left is not None:
            model.set_submodule(matrix.name, empty_factors(module, left.shape[1]))
    model.load_state_dict(weights)
    model.eval()
    return model


@dataclass(frozen=True)
class SavedMatrix:
    """One parameter matrix of the teacher as the student holds it; ``rank`` is ``None`` where it has no factors."""

    name: str
    rows: int
    columns: int
    rank: int | None
    nonzeros: int

    @property
    def kept(self) -> float:
        """Non-zeros over the entries of the teacher's matrix."""
        return self.nonzeros / (self.rows * self.columns)


def read_matrices(run_folder: Path) -> list[SavedMatrix]:
    """Every compressed matrix of the PyTorch student in a run's folder; none where there is no student yet.

    Raises:
        OptionError: the student's file cannot be read.
    """
    path = run_folder / WEIGHTS_FILE
    if not path.is_file():
        return []
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise OptionError(f"{path}: cannot be read: {error}") from error
    return [
        _saved_matrix(name.removesuffix(suffix), weights)
        for name, weight in weights.items()
        for suffix in (".left", ".weight")
        if weight.ndim == 2 and name.endswith(suffix) and not name.startswith(LEFT_ALONE)
    ]


def _saved_matrix(name: str, weights: dict[str, Tensor]) -> SavedMatrix:
    left, right = weights.get(f"{name}.left"), weights.get(f"{name}.right")
    if left is None or right is None:
        weight = weights[f"{name}.weight"]
        return SavedMatrix(name, weight.shape[0], weight.shape[1], None, int(weight.count_nonzero()))
    nonzeros = int(left.count_nonzero()) + int(right.count_nonzero())
    return SavedMatrix(name, len(left), len(right), left.shape[1], nonzeros)
