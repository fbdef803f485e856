"""Shares one budget of parameters out over the ranks of many matrices, by what each rank saves of the error."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def allocate_ranks(energies: Mapping[str, Tensor], costs: Mapping[str, int], budget: int) -> dict[str, int]:
    """The rank of each matrix, at least 1, together at most ``budget`` parameters where that is possible.

    Ranks are taken greedily by energy per parameter, which is the least total error for the budget spent.

    Args:
        energies: by matrix, what each rank takes from the error, largest first (squared singular values).
        costs: by matrix, the parameters of one rank, rows + columns.
        budget: parameters in all.
    """
    names = list(energies)
    ranks = dict.fromkeys(names, 1)
    budget -= sum(costs.values())
    worth = torch.cat([energies[name][1:] / costs[name] for name in names])
    owner = torch.cat([torch.full((len(energies[name]) - 1,), index) for index, name in enumerate(names)])
    for index in owner[worth.argsort(descending=True, stable=True)].tolist():
        if costs[names[index]] > budget:
            break
        budget -= costs[names[index]]
        ranks[names[index]] += 1
    return ranks
