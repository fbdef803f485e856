"""Weight pruning: masks on the factors A and B (equation 5), how they are drawn and applied.

A mask is a buffer of the module whose parameter it masks: ``left_mask`` is ``left``'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ladabert_compress.recipe import PruningRecipe
from ladabert_compress.student.budget import GroupShares, Shares
from ladabert_compress.student.factors import Factorised, FactorisedEmbedding
from ladabert_compress.student.matrices import Matrix

SUFFIX = "_mask"


def draw_masks(
    model: nn.Module,
    matrices: Sequence[Matrix],
    shares: Shares,
    pruning: PruningRecipe,
    row_weights: Mapping[str, Tensor],
    optimiser_state: Mapping[Tensor, Any],
) -> None:
    """Gives the model new masks in place of those that it has, and applies them.

    Args:
        model: the student.
        matrices: all that are compressed.
        shares: what each group of them keeps.
        pruning: the score, and how A and B share what is kept.
        row_weights: (rows,) by embedding table, where rows count by how often they occur.
        optimiser_state: Adam's, by parameter: its running mean of g² goes into the Fisher score.
    """
    drawn: dict[str, Tensor] = {}
    for group, share in shares.items():
        chosen = [matrix for matrix in matrices if matrix.group == group]
        if group == "encoder" and pruning.score == "fisher":
            drawn |= _masks_of_group(chosen, share, _fisher_scores(model, chosen, optimiser_state))
        elif group == "embedding" and row_weights:
            drawn |= _masks_of_group(chosen, share, _row_weighted_scores(model, chosen, row_weights))
        else:
            for matrix in chosen:
                drawn |= _masks_of_matrix(model, matrix, share, pruning)
    set_masks(model, dict.fromkeys(masks_of(model)) | drawn)
    apply_masks(model)


def masks_of(model: nn.Module) -> dict[str, Tensor]:
    """By parameter, what its mask keeps."""
    return {name.removesuffix(SUFFIX): mask for name, mask in model.named_buffers() if name.endswith(SUFFIX)}


def set_masks(model: nn.Module, masks: Mapping[str, Tensor | None]) -> None:
    """Sets the masks of these parameters; ``None`` takes a mask away."""
    for name, mask in masks.items():
        module, _, parameter = name.rpartition(".")
        model.get_submodule(module).register_buffer(parameter + SUFFIX, mask)


@torch.no_grad()
def apply_masks(model: nn.Module) -> None:
    """Sets to zero what the masks do not keep."""
    for name, mask in masks_of(model).items():
        model.get_parameter(name).mul_(mask)


def mask_gradients(model: nn.Module) -> None:
    """Sets the gradients to zero of what the masks do not keep."""
    for name, mask in masks_of(model).items():
        gradient = model.get_parameter(name).grad
        if gradient is not None:
            gradient.mul_(mask)


def keep_largest(score: Tensor, keep: int) -> Tensor:
    """True at the ``keep`` entries of largest score: exactly that many.

    Of equal scores, those that come first in memory order are kept.
    """
    values = score.detach().flatten()
    if keep == 0:
        return torch.zeros_like(score, dtype=torch.bool)
    threshold = values.kthvalue(len(values) - keep + 1).values
    mask = values > threshold
    equal = (values == threshold).nonzero().flatten()
    mask[equal[: keep - int(mask.sum())]] = True
    return mask.view(score.shape)


def keep_largest_jointly(scores: Mapping[str, Tensor], keep: int) -> dict[str, Tensor]:
    """A mask for each score; together they keep the ``keep`` largest entries of all."""
    together = keep_largest(torch.cat([score.flatten() for score in scores.values()]), keep)
    parts = together.split([score.numel() for score in scores.values()])
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}


def split_kept(total: int, left_size: int, right_size: int, right_over_left: float) -> tuple[int, int]:
    """How many entries A and B keep, together exactly ``total``, at most all of each.

    B's kept share is ``right_over_left`` times A's, or as near to that as the sizes allow.
    """
    total = min(total, left_size + right_size)
    left_share = total / (left_size + right_over_left * right_size)
    right_kept = min(right_size, total, round(right_over_left * left_share * right_size))
    right_kept = max(right_kept, total - left_size)
    return total - right_kept, right_kept


def _masks_of_matrix(model: nn.Module, matrix: Matrix, share: GroupShares, pruning: PruningRecipe) -> dict[str, Tensor]:
    """Masks that keep the matrix's share of its largest entries by magnitude, of A and B separately."""
    module = model.get_submodule(matrix.name)
    if not isinstance(module, Factorised):
        weight = module.get_parameter("weight").detach()
        return {f"{matrix.name}.weight": keep_largest(weight.abs(), round(share.kept * matrix.size))}
    is_embedding = isinstance(module, FactorisedEmbedding)
    ratio = pruning.embedding_right_over_left if is_embedding else pruning.encoder_right_over_left
    left, right = module.left.detach(), module.right.detach()
    # Ranks may differ from matrix to matrix: each keeps the same share of its factors.
    keep = round(share.mask_share * (left.numel() + right.numel()))
    left_keep, right_keep = split_kept(keep, left.numel(), right.numel(), ratio)
    return {
        f"{matrix.name}.left": keep_largest(left.abs(), left_keep),
        f"{matrix.name}.right": keep_largest(right.abs(), right_keep),
    }


def _masks_of_group(matrices: Sequence[Matrix], share: GroupShares, scores: dict[str, Tensor]) -> dict[str, Tensor]:
    """Masks that keep the largest scores of all these matrices, wherever they are; none where all are kept."""
    keep = round(share.kept * sum(matrix.size for matrix in matrices))
    return keep_largest_jointly(scores, keep) if keep < sum(score.numel() for score in scores.values()) else {}


def _fisher_scores(
    model: nn.Module, matrices: Sequence[Matrix], optimiser_state: Mapping[Tensor, Any]
) -> dict[str, Tensor]:
    """w²·E[g²]: the loss that an entry's removal costs, to second order (optimal brain damage).

    Just after factors were replaced there is no E[g²] yet, and the score is w².
    """
    prefixes = tuple(f"{matrix.name}." for matrix in matrices)
    weights = {
        name: parameter
        for name, parameter in model.named_parameters()
        if name.startswith(prefixes) and not name.endswith(".bias")
    }
    known = all(weight in optimiser_state for weight in weights.values())
    return {
        name: weight.detach().square() * (optimiser_state[weight]["exp_avg_sq"] if known else 1.0)
        for name, weight in weights.items()
    }


def _row_weighted_scores(
    model: nn.Module, matrices: Sequence[Matrix], row_weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """What an entry's removal adds to the tables' squared error, each row weighted."""
    scores: dict[str, Tensor] = {}
    for matrix in matrices:
        module, weights = model.get_submodule(matrix.name), row_weights[matrix.name].unsqueeze(1)
        if isinstance(module, FactorisedEmbedding):
            left, right = module.left.detach().square() * weights, module.right.detach().square()
            scores[f"{matrix.name}.left"] = left * right.sum(dim=0)
            scores[f"{matrix.name}.right"] = right * left.sum(dim=0)
        else:
            scores[f"{matrix.name}.weight"] = module.get_parameter("weight").detach().square() * weights
    return scores
