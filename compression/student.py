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

from compression.budget import GroupShares, Shares
from compression.errors import TeacherError
from compression.factorise import Factorised, FactorisedEmbedding, empty_factors, factorise
from compression.matrices import Matrix, count_parameters, walk_matrices
from compression.prune import split_kept, top_mask, top_masks
from compression.ranks import allocate_ranks, equal_ranks
from compression.recipe import PruningRecipe, Recipe
from compression.statistics import Statistics

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
    teacher_parameters: int = 0  # what the ratio is of; 0: the model's own, still whole

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
            optimiser_state: Adam's, by parameter: its running mean of g² is what the Fisher score is made of.
        """
        replaced = False
        for name, rank in self._ranks_at(shares, recipe.structure.rank_multiple, statistics.energies).items():
            if self.ranks.get(name) != rank:
                module = self.model.get_submodule(name)
                self.ranks[name] = rank
                factors = factorise(
                    module,  # type: ignore[arg-type]
                    rank,
                    moments=statistics.moments.get(name),
                    row_weights=statistics.row_weights.get(name),
                )
                _replace(self.model, name, factors)
                replaced = True
        if recipe.budget.objective == "size":
            self._draw_masks(shares, recipe, statistics, optimiser_state)
            self.apply_masks()
        return replaced

    def cut_at_random(
        self, shares: Shares, rank_multiple: int = 1, energies: Mapping[str, Tensor] | None = None
    ) -> None:
        """Gives every matrix random factors: what a student of that size takes to run.

        Without ``energies`` every matrix has its share's rank.
        """
        for name, rank in self._ranks_at(shares, rank_multiple, energies or {}).items():
            module = empty_factors(self.model.get_submodule(name), rank)  # type: ignore[arg-type]
            for parameter in module.parameters():
                nn.init.normal_(parameter, std=0.02)
            _replace(self.model, name, module)

    def _draw_masks(
        self, shares: Shares, recipe: Recipe, statistics: Statistics, optimiser_state: Mapping[Tensor, Any]
    ) -> None:
        self.masks = {}
        for group, share in shares.items():
            matrices = [matrix for matrix in self.matrices if matrix.group == group]
            if group == "encoder" and recipe.pruning.score == "fisher":
                self._mask_together(matrices, share, self._fisher_scores(matrices, optimiser_state))
            elif group == "embedding" and statistics.row_weights:
                self._mask_together(matrices, share, self._weighted_scores(matrices, statistics.row_weights))
            else:
                for matrix in matrices:
                    self._mask(matrix, share, recipe.pruning)

    def _ranks_at(self, shares: Shares, multiple: int, energies: Mapping[str, Tensor]) -> dict[str, int]:
        """The ranks by sensitivity where there are energies, else equal ones."""
        ranks: dict[str, int] = {}
        for group, share in shares.items():
            matrices = [matrix for matrix in self.matrices if matrix.group == group and share.svd < 1]
            if matrices and energies:
                ranks |= allocate_ranks(
                    {matrix.name: energies[matrix.name] for matrix in matrices},
                    {matrix.name: matrix.rows + matrix.columns for matrix in matrices},
                    round(share.svd * sum(matrix.size for matrix in matrices)),
                    multiple,
                )
            else:
                ranks |= equal_ranks(matrices, share.svd, multiple)
        return ranks

    def _mask(self, matrix: Matrix, share: GroupShares, pruning: PruningRecipe) -> None:
        module = self.model.get_submodule(matrix.name)
        if isinstance(module, Factorised):
            ratio = (
                pruning.embedding_right_over_left
                if isinstance(module, FactorisedEmbedding)
                else pruning.encoder_right_over_left
            )
            # Of what the ranks left, which may differ from matrix to matrix, every matrix keeps the same share.
            keep = round(share.weight * (module.left.numel() + module.right.numel()))
            left, right = split_kept(keep, module.left.numel(), module.right.numel(), ratio)
            self.masks[f"{matrix.name}.left"] = top_mask(module.left.detach().abs(), left)
            self.masks[f"{matrix.name}.right"] = top_mask(module.right.detach().abs(), right)
        else:
            weight = module.get_parameter("weight")
            self.masks[f"{matrix.name}.weight"] = top_mask(weight.detach().abs(), round(share.kept * matrix.size))

    def _mask_together(self, matrices: list[Matrix], share: GroupShares, scores: dict[str, Tensor]) -> None:
        """Masks that keep the largest scores of all these matrices, wherever they are."""
        keep = round(share.kept * sum(matrix.size for matrix in matrices))
        if keep < sum(score.numel() for score in scores.values()):
            self.masks |= top_masks(scores, keep)

    def _fisher_scores(self, matrices: list[Matrix], optimiser_state: Mapping[Tensor, Any]) -> dict[str, Tensor]:
        """w²·E[g²]: the loss that an entry's removal costs, to second order (optimal brain damage).

        Just after factors were replaced there is no E[g²] yet, and w² has to do.
        """
        prefixes = tuple(f"{matrix.name}." for matrix in matrices)
        weights = {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if name.startswith(prefixes) and not name.endswith(".bias")
        }
        known = all(weight in optimiser_state for weight in weights.values())
        return {
            name: weight.detach().square() * (optimiser_state[weight]["exp_avg_sq"] if known else 1.0)
            for name, weight in weights.items()
        }

    def _weighted_scores(self, matrices: list[Matrix], row_weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What an entry's removal adds to the tables' squared error, each row weighted."""
        scores: dict[str, Tensor] = {}
        for matrix in matrices:
            module = self.model.get_submodule(matrix.name)
            weights = row_weights[matrix.name].unsqueeze(1)
            if isinstance(module, FactorisedEmbedding):
                left, right = module.left.detach().square() * weights, module.right.detach().square()
                scores[f"{matrix.name}.left"] = left * right.sum(dim=0)
                scores[f"{matrix.name}.right"] = right * left.sum(dim=0)
            else:
                scores[f"{matrix.name}.weight"] = module.get_parameter("weight").detach().square() * weights
        return scores

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
        """Writes configuration and weights; ranks and heads follow from the weights' shapes."""
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
        rows, columns = (
            weights[f"{matrix.name}.weight"].shape
            if left is None
            else (len(left), len(weights[f"{matrix.name}.right"]))
        )
        if (rows, columns) != (matrix.rows, matrix.columns):  # heads were taken out, of which no configuration speaks
            module = nn.Linear(columns, rows)
            _replace(model, matrix.name, module)
        if left is not None:
            _replace(model, matrix.name, empty_factors(module, left.shape[1]))
    model.load_state_dict(weights)
    model.eval()
    return model


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
