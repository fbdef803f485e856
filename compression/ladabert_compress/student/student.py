"""The student: the teacher's model with factors in place of matrices and masks on the factors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertForSequenceClassification

from ladabert_compress.recipe import Recipe
from ladabert_compress.student.budget import Shares
from ladabert_compress.student.factors import empty_factors, factorise
from ladabert_compress.student.masks import draw_masks, masks_of, set_masks
from ladabert_compress.student.matrices import Matrix, count_parameters, walk_matrices
from ladabert_compress.student.moments import Statistics
from ladabert_compress.student.ranks import ranks_at


@dataclass(frozen=True)
class StudentSize:
    """Numbers of the student; non-zeros are what the paper counts."""

    parameters: int
    nonzero_parameters: int


@dataclass
class Student:
    """A model that shrinks in place."""

    model: BertForSequenceClassification
    matrices: list[Matrix] = field(init=False)
    ranks: dict[str, int] = field(default_factory=dict)
    teacher_parameters: int = 0  # of the whole teacher; 0: the model is the whole teacher still

    def __post_init__(self) -> None:
        self.matrices = [matrix for matrix, _ in walk_matrices(self.model)]
        self.teacher_parameters = self.teacher_parameters or count_parameters(self.model).total

    def shrink(
        self, shares: Shares, recipe: Recipe, statistics: Statistics, optimiser_state: Mapping[Tensor, Any]
    ) -> bool:
        """Cuts every matrix to its rank, then masks A and B; true when factors were replaced.

        Args:
            shares: what each group of matrices keeps.
            recipe: how to choose ranks, factors and masks.
            statistics: what the training rows show the teacher.
            optimiser_state: Adam's, by parameter, for the Fisher score.
        """
        replaced = False
        ranks = ranks_at(shares, self.matrices, recipe.structure.rank_multiple, statistics.energies)
        for name, rank in ranks.items():
            if self.ranks.get(name) != rank:
                factors = factorise(
                    self.model.get_submodule(name),  # type: ignore[arg-type]
                    rank,
                    moments=statistics.moments.get(name),
                    row_weights=statistics.row_weights.get(name),
                )
                self.model.set_submodule(name, factors)
                self.ranks[name] = rank
                replaced = True
        if recipe.budget.objective == "size":
            draw_masks(self.model, self.matrices, shares, recipe.pruning, statistics.row_weights, optimiser_state)
        return replaced

    def cut_at_random(
        self, shares: Shares, rank_multiple: int = 1, energies: Mapping[str, Tensor] | None = None
    ) -> None:
        """Gives every matrix random factors, which is enough to time a student of that size.

        Without ``energies``, each matrix has the rank of its share.
        """
        for name, rank in ranks_at(shares, self.matrices, rank_multiple, energies or {}).items():
            self._empty(name, rank)
            for parameter in self.model.get_submodule(name).parameters():
                nn.init.normal_(parameter, std=0.02)

    def size(self) -> StudentSize:
        """Counts parameters and non-zeros over the whole model, biases and head included."""
        parameters = list(self.model.parameters())
        return StudentSize(
            sum(parameter.numel() for parameter in parameters),
            sum(int(parameter.count_nonzero()) for parameter in parameters),
        )

    def ratio(self) -> float:
        """Teacher parameters over the student's non-zeros, as the paper counts."""
        return self.teacher_parameters / self.size().nonzero_parameters

    def structure(self) -> dict[str, Any]:
        """For a checkpoint: the ranks, and which parameters have masks; the masks are part of the model's state."""
        return {"ranks": self.ranks, "masked": list(masks_of(self.model))}

    def restore_structure(self, structure: Mapping[str, Any]) -> None:
        """Gives an uncompressed model empty factors and masks, into which a checkpoint's state can be loaded."""
        self.ranks = dict(structure["ranks"])
        for name, rank in self.ranks.items():
            self._empty(name, rank)
        masked = {name: self.model.get_parameter(name) for name in structure["masked"]}
        set_masks(self.model, {name: torch.ones_like(value, dtype=torch.bool) for name, value in masked.items()})

    def _empty(self, name: str, rank: int) -> None:
        module = self.model.get_submodule(name)
        assert isinstance(module, nn.Linear | nn.Embedding), f"{name} is factorised already"
        self.model.set_submodule(name, empty_factors(module, rank))
