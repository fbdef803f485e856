"""Ranks and non-zeros of a finished student, matrix by matrix."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from compression.errors import OptionError
from compression.matrices import LEFT_ALONE
from compression.student import WEIGHTS_FILE

LAYER = re.compile(r"bert\.encoder\.layer\.(\d+)\.(.+)")
# In the order in which a token meets them.
PARTS = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attention output",
    "intermediate.dense": "feed-forward in",
    "output.dense": "feed-forward out",
}


@dataclass(frozen=True)
class LayerMatrix:
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


def read_layers(run_folder: Path) -> list[LayerMatrix]:
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
        _layer_matrix(name.removesuffix(suffix), weights)
        for name, weight in weights.items()
        for suffix in (".left", ".weight")
        if weight.ndim == 2 and name.endswith(suffix) and not name.startswith(LEFT_ALONE)
    ]


def _layer_matrix(name: str, weights: dict[str, Tensor]) -> LayerMatrix:
    left, right = weights.get(f"{name}.left"), weights.get(f"{name}.right")
    if left is None or right is None:
        weight = weights[f"{name}.weight"]
        return LayerMatrix(name, weight.shape[0], weight.shape[1], None, int(weight.count_nonzero()))
    nonzeros = int(left.count_nonzero()) + int(right.count_nonzero())
    return LayerMatrix(name, len(left), len(right), left.shape[1], nonzeros)


def layer_table(layers: Sequence[LayerMatrix]) -> list[tuple[str, list[LayerMatrix | None]]]:
    """A line for each layer with its matrices in the order of ``PARTS``."""
    table: dict[int, dict[str, LayerMatrix]] = {}
    for matrix in layers:
        if found := LAYER.fullmatch(matrix.name):
            table.setdefault(int(found[1]), {})[found[2]] = matrix
    return [(f"layer {index + 1}", [table[index].get(part) for part in PARTS]) for index in sorted(table)]


def other_matrices(layers: Sequence[LayerMatrix]) -> list[LayerMatrix]:
    """The embeddings and the pooler."""
    return [matrix for matrix in layers if not LAYER.fullmatch(matrix.name)]
