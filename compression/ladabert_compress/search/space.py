"""The splits of the budget that a search chooses from (equation 7)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ladabert_compress.errors import RecipeError
from ladabert_compress.recipe import BudgetRecipe
from ladabert_compress.student.matrices import ParameterCounts

LOWEST_SHARE = 0.01  # of the embeddings or of the encoder: below it nothing is left to distil
NO_FACTORS = 0.95  # factors that hold more of a matrix than this save nothing


@dataclass(frozen=True)
class Space:
    """The splits that meet the ratio on one teacher.

    Equation 7 leaves two of (P_embd, P_svd, P_weight) free. Searched are P_embd, and the share of the encoder's
    reduction that factorisation does: P_svd = P_hybrid^share, P_weight = P_hybrid^(1 - share). Every point of the
    space is a split that can be met, and random search finds both ends as easily as the middle.
    """

    counts: ParameterCounts
    base: BudgetRecipe
    lowest_embedding: float
    highest_embedding: float

    @classmethod
    def of(cls, counts: ParameterCounts, base: BudgetRecipe) -> Space:
        """The space of this teacher and ratio.

        Raises:
            RecipeError: no split meets the ratio.
        """
        matrices = counts.total / base.ratio - counts.left_alone
        highest = min(1.0, (matrices - LOWEST_SHARE * counts.encoder) / counts.embedding)
        lowest = max(LOWEST_SHARE, (matrices - counts.encoder) / counts.embedding)
        if lowest >= highest:
            largest = counts.total / (counts.left_alone + LOWEST_SHARE * (counts.embedding + counts.encoder))
            raise RecipeError(
                f"budget.ratio: {base.ratio:g} cannot be met on this teacher of {counts.total:,} parameters, of which "
                f"{counts.left_alone:,} are left alone; ratios over 1 and to {largest:.1f} can"
            )
        return cls(counts, base, lowest, highest)

    def budget(self, p_embedding: float, factorisation_share: float) -> BudgetRecipe:
        """The split at one point; the embeddings are factorised in the same proportion as in the base recipe."""
        p_svd = min(1.0, self._encoder(p_embedding) / self.counts.encoder) ** factorisation_share
        base = self.base
        exponent = math.log(base.p_embedding_svd) / math.log(base.p_embedding) if base.p_embedding < 1 else 1.0
        return replace(
            base,
            p_embedding=p_embedding,
            p_embedding_svd=p_embedding**exponent,
            p_svd=1.0 if p_svd > NO_FACTORS else p_svd,
        )

    def describe(self, budget: BudgetRecipe) -> str:
        """The split in the paper's terms."""
        p_weight = self._encoder(budget.p_embedding) / self.counts.encoder / budget.p_svd
        return f"P_embd {budget.p_embedding:.3f}, P_svd {budget.p_svd:.3f}, P_weight {p_weight:.3f}"

    def _encoder(self, p_embedding: float) -> float:
        """The encoder's parameters that the ratio leaves beside the embeddings."""
        counts = self.counts
        return counts.total / self.base.ratio - counts.left_alone - p_embedding * counts.embedding
