"""Finds the parameter matrices that LadaBERT compresses: one filtered walk over the modules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn

Group = Literal["embedding", "encoder"]

# The classification head is left alone (section 3.3); the pooler belongs to the encoder, which is what
# makes Table 2 add up for BERT-base. Two rows of token types have no rank to lose, and the rank of a projection of the
# embeddings bounds all that the encoder reads.
LEFT_ALONE = ("classifier", "bert.embeddings.token_type_embeddings", "bert.embeddings.projection")


@dataclass(frozen=True)
class Matrix:
    """One parameter matrix W (rows, columns) of the teacher, by the name of its module."""

    name: str
    group: Group
    rows: int
    columns: int

    @property
    def size(self) -> int:
        """Entries of the unfactorised matrix."""
        return self.rows * self.columns

    @property
    def full_rank(self) -> int:
        """The largest rank that the matrix can have."""
        return min(self.rows, self.columns)

    def rank(self, svd_share: float) -> int:
        """Equation 4: the rank at which the factors hold ``svd_share`` of the matrix, at least 1."""
        return max(1, round(svd_share * self.size / (self.rows + self.columns)))


@dataclass(frozen=True)
class ParameterCounts:
    """The terms of equation 7: matrices of the embeddings and the encoder, and everything left alone."""

    embedding: int
    encoder: int
    left_alone: int

    @property
    def total(self) -> int:
        """θ, the teacher's parameters."""
        return self.embedding + self.encoder + self.left_alone


def walk_matrices(model: nn.Module) -> Iterator[tuple[Matrix, nn.Linear | nn.Embedding]]:
    """Each matrix of an uncompressed model that is to be compressed, with its module."""
    for name, module in model.named_modules():
        if name.startswith(LEFT_ALONE):
            continue
        if isinstance(module, nn.Linear):
            yield Matrix(name, "encoder", *module.weight.shape), module
        elif isinstance(module, nn.Embedding):
            yield Matrix(name, "embedding", *module.weight.shape), module


def count_parameters(model: nn.Module) -> ParameterCounts:
    """The sizes that equation 7 shares out, of an uncompressed model."""
    sizes = {"embedding": 0, "encoder": 0}
    for matrix, _ in walk_matrices(model):
        sizes[matrix.group] += matrix.size
    total = sum(parameter.numel() for parameter in model.parameters())
    return ParameterCounts(**sizes, left_alone=total - sum(sizes.values()))
