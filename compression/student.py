"""The student: the teacher's model with factors in place of matrices and masks on the factors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from compression.budget import Shares
from compression.errors import TeacherError
from compression.factorise import Factorised, FactorisedEmbedding, empty_factors, factorise
from compression.matrices import Matrix, count_parameters, walk_matrices
from compression.prune import magnitude_mask, split_kept
from compression.recipe import PruningRecipe

WEIGHTS_FILE = "student.safetensors"
CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class StudentSize:
    """Numbers of the student; non-zeros are what the paper counts."""

    parameters: int
    nonzero_parameters: int


@dataclass
class Student:
    """A model that shrinks in place; ``masks`` maps parameter names to what may be non-zero."""

    model: BertForSequenceClassification
    matrices: list[Matrix] = field(init=False)
    ranks: dict[str, int] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.matrices = [matrix for matrix, _ in walk_matrices(self.model)]
        self.teacher_parameters = count_parameters(self.model).total

    def shrink(self, shares: Shares, pruning: PruningRecipe) -> bool:
        """Cuts every matrix to its rank, then masks A and B separately; true when factors were replaced."""
        replaced = False
        for matrix in self.matrices:
            share = shares[matrix.group]
            if share.svd < 1 and self.ranks.get(matrix.name) != matrix.rank(share.svd):
                module = self.model.get_submodule(matrix.name)
                self.ranks[matrix.name] = matrix.rank(share.svd)
                _replace(self.model, matrix.name, factorise(module, self.ranks[matrix.name]))  # type: ignore[arg-type]
                replaced = True
            self._mask(matrix, round(share.kept * matrix.size), pruning)
        self.apply_masks()
        return replaced

    def _mask(self, matrix: Matrix, keep: int, pruning: PruningRecipe) -> None:
        module = self.model.get_submodule(matrix.name)
        if isinstance(module, Factorised):
            ratio = (
                pruning.embedding_right_over_left
                if isinstance(module, FactorisedEmbedding)
                else pruning.encoder_right_over_left
            )
            left, right = split_kept(keep, module.left.numel(), module.right.numel(), ratio)
            self.masks[f"{matrix.name}.left"] = magnitude_mask(module.left, left)
            self.masks[f"{matrix.name}.right"] = magnitude_mask(module.right, right)
        else:
            weight = module.get_parameter("weight")
            self.masks[f"{matrix.name}.weight"] = magnitude_mask(weight, keep)

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Sets to zero what the masks do not keep."""
        for name, mask in self.masks.items():
            self.model.get_parameter(name).mul_(mask)

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
        """Ranks and masks, for a checkpoint."""
        return {"ranks": self.ranks, "masks": self.masks}

    def restore_structure(self, structure: Mapping[str, Any]) -> None:
        """Gives an uncompressed model the ranks and masks of a checkpoint; weights are loaded after."""
        self.ranks, self.masks = dict(structure["ranks"]), dict(structure["masks"])
        for name, rank in self.ranks.items():
            module = self.model.get_submodule(name)
            if not isinstance(module, nn.Linear | nn.Embedding):
                raise AssertionError(f"{name} is factorised already")
            _replace(self.model, name, empty_factors(module, rank))

    def save(self, folder: Path) -> None:
        """Writes configuration and weights; the ranks follow from the weights' shapes."""
        self.model.config.save_pretrained(folder)
        weights = {name: value.detach().cpu().contiguous() for name, value in self.model.state_dict().items()}
        save_file(weights, folder / WEIGHTS_FILE)


def load_student(folder: Path) -> BertForSequenceClassification:
    """The PyTorch student that :meth:`Student.save` wrote, on the CPU in evaluation mode.

    Raises:
        TeacherError: the folder holds no student.
    """
    if not (folder / WEIGHTS_FILE).is_file():
        raise TeacherError(f"{folder}: no {WEIGHTS_FILE} there; expected the --run folder of a compress run")
    config = BertConfig.from_pretrained(folder, attn_implementation="eager")
    model = BertForSequenceClassification(config)
    weights = load_file(folder / WEIGHTS_FILE)
    for matrix, module in list(walk_matrices(model)):
        left = weights.get(f"{matrix.name}.left")
        if left is not None:
            _replace(model, matrix.name, empty_factors(module, left.shape[1]))
    model.load_state_dict(weights)
    model.eval()
    return model


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
