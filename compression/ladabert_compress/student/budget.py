"""How many parameters each group of matrices keeps: equations 6 and 7, and their path over the iterations."""

from __future__ import annotations

from dataclasses import dataclass

from ladabert_compress.errors import RecipeError
from ladabert_compress.recipe import BudgetRecipe, ScheduleRecipe
from ladabert_compress.student.matrices import Group, ParameterCounts


@dataclass(frozen=True)
class GroupShares:
    """What one group of matrices keeps: after factorisation, and after the masks on the factors."""

    svd: float
    kept: float

    @property
    def mask_share(self) -> float:
        """P_weight of equation 6: the share of the factors' entries that the masks keep."""
        return min(1.0, self.kept / self.svd)


Shares = dict[Group, GroupShares]


def solve_shares(counts: ParameterCounts, budget: BudgetRecipe, teacher_parameters: int = 0) -> Shares:
    """Solves equation 7 for P_hybrid, and so for P_weight, on this teacher.

    P·θ = P_embd·θ_embd + P_hybrid·θ_encoder + θ_left_alone

    With the objective ``latency``, P_svd is P_hybrid and P_weight is 1: zeros would make no kernel faster.

    Args:
        counts: of the model that is cut, from which heads and neurons may have been taken already.
        budget: the ratio and the shares that are given.
        teacher_parameters: of the whole teacher, whose size the ratio refers to; 0: ``counts`` are the whole teacher's.

    Raises:
        RecipeError: no P_weight between 0 and 1 meets the ratio; the text says which ratios can be met.
    """
    total = teacher_parameters or counts.total
    embedding_kept = budget.p_embedding * counts.embedding
    hybrid = (total / budget.ratio - counts.left_alone - embedding_kept) / counts.encoder
    if not 0 < hybrid <= budget.p_svd:
        fixed = counts.left_alone + embedding_kept
        smallest = total / (fixed + budget.p_svd * counts.encoder)
        raise RecipeError(
            f"budget.ratio: {budget.ratio:g} cannot be met with p_embedding = {budget.p_embedding:g} and "
            f"p_svd = {budget.p_svd:g} on this teacher of {total:,} parameters: they allow ratios from "
            f"{smallest:.2f} to below {total / fixed:.2f}"
        )
    if budget.objective == "latency":
        return {
            "embedding": GroupShares(budget.p_embedding, budget.p_embedding),
            "encoder": GroupShares(hybrid, hybrid),
        }
    return {
        "embedding": GroupShares(budget.p_embedding_svd, budget.p_embedding),
        "encoder": GroupShares(budget.p_svd, hybrid),
    }


def ratio_at(encoder_share: float, counts: ParameterCounts, budget: BudgetRecipe, teacher_parameters: int = 0) -> float:
    """The ratio at which equation 7 leaves the encoder this share of its parameters, as :func:`solve_shares` counts."""
    kept = budget.p_embedding * counts.embedding + encoder_share * counts.encoder + counts.left_alone
    return (teacher_parameters or counts.total) / kept


def shares_at(iteration: int, target: Shares, schedule: ScheduleRecipe) -> Shares:
    """The shares after iteration 1, 2, …, ``schedule.iterations``: the last has the target's.

    What a group keeps falls by the same factor each time (the paper's Δ), and what its factors hold by a larger one,
    so that ranks reach their target within ``factorise_iterations``. A mask keeps all of factors that hold less than
    the iteration's share: after one large cut, masks begin late.
    """
    progress = iteration / schedule.iterations
    svd_progress = min(1.0, iteration / schedule.factorise_iterations)
    return {group: GroupShares(shares.svd**svd_progress, shares.kept**progress) for group, shares in target.items()}
