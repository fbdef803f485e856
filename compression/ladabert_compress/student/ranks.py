"""The ranks of many matrices under one budget of parameters, chosen by what each rank saves of the error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ladabert_compress.errors import RecipeError
from ladabert_compress.student.budget import Shares
from ladabert_compress.student.matrices import Matrix


def allocate_ranks(
    energies: Mapping[str, Tensor], costs: Mapping[str, int], budget: int, multiple: int = 1
) -> dict[str, int]:
    """The rank of each matrix, together at most ``budget`` parameters.

    Ranks are taken greedily by energy per parameter, ``multiple`` at a time, which gives the least total error for the
    budget spent. Where a step no longer fits, cheaper ones may. A rank is a multiple, or the matrix's full rank.

    Args:
        energies: by matrix, what each rank takes from the error, largest first (squared singular values).
        costs: by matrix, the parameters of one rank, rows + columns.
        budget: parameters in all.
        multiple: ranks in a step.

    Raises:
        RecipeError: the budget is too small for one step of each matrix.
    """
    steps = {name: energy.split(multiple) for name, energy in energies.items()}
    ranks = {name: len(first) for name, (first, *_) in steps.items()}
    left = budget - sum(costs[name] * rank for name, rank in ranks.items())
    if left < 0:
        raise RecipeError(
            f"structure.rank_multiple: {budget:,} parameters for {len(ranks)} matrices ({next(iter(ranks))}, …) cannot "
            f"give each of them rank {multiple}, which takes {budget - left:,}; lower the multiple or the ratio"
        )
    worth = {
        (name, index): float(step.sum()) / (costs[name] * len(step))
        for name, found in steps.items()
        for index, step in enumerate(found)
        if index
    }
    full: set[str] = set()
    for name, index in sorted(worth, key=lambda step: -worth[step]):
        cost = costs[name] * len(steps[name][index])
        if name in full or cost > left:
            full.add(name)  # its later steps need this one
            continue
        left -= cost
        ranks[name] += len(steps[name][index])
    return ranks


def equal_ranks(matrices: Sequence[Matrix], svd_share: float, multiple: int) -> dict[str, int]:
    """The rank of each matrix at which it keeps the share (equation 4), or about the share where ranks are multiples.

    Raises:
        RecipeError: the share is too small for ``multiple`` ranks of each.
    """
    if multiple == 1:
        return {matrix.name: matrix.rank(svd_share) for matrix in matrices}
    costs = {matrix.name: matrix.rows + matrix.columns for matrix in matrices}
    # The worth of a matrix's next rank falls with the share already spent on it: the one furthest behind comes next.
    energies = {
        matrix.name: -torch.arange(1.0, matrix.full_rank + 1, dtype=torch.float64)
        * costs[matrix.name] ** 2
        / matrix.size
        for matrix in matrices
    }
    return allocate_ranks(energies, costs, round(svd_share * sum(matrix.size for matrix in matrices)), multiple)


def least_share(matrices: Sequence[Matrix], multiple: int) -> float:
    """The share of all matrices' parameters with which each has one step of ranks."""
    least = sum(min(multiple, matrix.full_rank) * (matrix.rows + matrix.columns) for matrix in matrices)
    return least / sum(matrix.size for matrix in matrices)


def ranks_at(
    shares: Shares, matrices: Sequence[Matrix], multiple: int, energies: Mapping[str, Tensor]
) -> dict[str, int]:
    """The rank of each matrix whose group is factorised: by what ranks save where ``energies`` say so, else equal.

    Raises:
        RecipeError: a group's share is too small for ``multiple`` ranks of each of its matrices.
    """
    ranks: dict[str, int] = {}
    for group, share in shares.items():
        chosen = [matrix for matrix in matrices if matrix.group == group and share.svd < 1]
        if chosen and energies:
            ranks |= allocate_ranks(
                {matrix.name: energies[matrix.name] for matrix in chosen},
                {matrix.name: matrix.rows + matrix.columns for matrix in chosen},
                round(share.svd * sum(matrix.size for matrix in chosen)),
                multiple,
            )
        else:
            ranks |= equal_ranks(chosen, share.svd, multiple)
    return ranks
