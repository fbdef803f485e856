"""The students that a search chooses from: splits of the budget (equation 7), or shapes that answer within a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from transformers import BertConfig, BertForSequenceClassification

from ladabert_compress.errors import RecipeError
from ladabert_compress.recipe import BudgetRecipe, Recipe
from ladabert_compress.student.matrices import ParameterCounts, count_parameters, walk_matrices
from ladabert_compress.student.ranks import least_share
from ladabert_compress.student.structure import heads_kept, layers_kept, narrow, neurons_kept

LOWEST_SHARE = 0.01  # of the embeddings or of the encoder: below it nothing is left to distil
NO_FACTORS = 0.95  # factors that hold more of a matrix than this save nothing
# The least that a shape keeps of the layers, of the heads and of the neurons.
LEAST_LAYERS, LEAST_HEADS, LEAST_NEURONS = 1 / 3, 1 / 4, 1 / 8
NEURONS_AT_ONCE = 16  # as many as kernels work on


class Trial(Protocol):
    """What chooses a point: an Optuna trial, as far as it is used here."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number between the two."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """A whole number between the two, which may be either."""


class Space(Protocol):
    """The students that a search chooses from."""

    def draw(self, trial: Trial) -> Recipe:
        """The recipe of one of them.

        Raises:
            RecipeError: no student is at the point that the trial chose.
        """

    def describe(self, recipe: Recipe) -> str:
        """What sets it apart from the others."""


@dataclass(frozen=True)
class Splits:
    """The splits that meet the ratio on one teacher.

    Equation 7 leaves two of (P_embd, P_svd, P_weight) free. Searched are P_embd, and the share of the encoder's
    reduction that factorisation does: P_svd = P_hybrid^share, P_weight = P_hybrid^(1 - share). Every point of the
    space is a split that can be met, and random search finds both ends as easily as the middle. Where the objective is
    ``latency``, factorisation does all of it and P_embd alone is searched.
    """

    counts: ParameterCounts  # of the model that is cut
    teacher_parameters: int
    recipe: Recipe
    lowest_embedding: float
    highest_embedding: float

    @classmethod
    def of(cls, teacher: BertForSequenceClassification, recipe: Recipe) -> Splits:
        """The space of this teacher and of the recipe's ratio, layers, heads and neurons.

        Raises:
            RecipeError: no split meets the ratio.
        """
        narrowed, multiple = narrow(teacher, recipe.structure).model, recipe.structure.rank_multiple
        encoder = [matrix for matrix, _ in walk_matrices(narrowed) if matrix.group == "encoder"]
        least = max(LOWEST_SHARE, least_share(encoder, multiple)) if multiple > 1 else LOWEST_SHARE
        return cls.between(count_parameters(narrowed), count_parameters(teacher).total, recipe, least)

    @classmethod
    def between(
        cls, counts: ParameterCounts, teacher_parameters: int, recipe: Recipe, least_encoder: float = LOWEST_SHARE
    ) -> Splits:
        """The space of a model of these sizes, cut from a teacher of that many parameters.

        ``least_encoder`` is the least share of the encoder that may be left.

        Raises:
            RecipeError: no split meets the ratio.
        """
        ratio = recipe.budget.ratio
        matrices = teacher_parameters / ratio - counts.left_alone
        highest = min(1.0, (matrices - least_encoder * counts.encoder) / counts.embedding)
        lowest = max(LOWEST_SHARE, (matrices - counts.encoder) / counts.embedding)
        if lowest >= highest:
            least = counts.left_alone + LOWEST_SHARE * counts.embedding + least_encoder * counts.encoder
            raise RecipeError(
                f"budget.ratio: {ratio:g} cannot be met on this teacher of {teacher_parameters:,} parameters, of which "
                f"{counts.left_alone:,} are left alone; ratios over {teacher_parameters / counts.total:.3g} and to "
                f"{teacher_parameters / least:.1f} can"
            )
        return cls(counts, teacher_parameters, recipe, lowest, highest)

    def draw(self, trial: Trial) -> Recipe:
        """The recipe with the split that the trial chooses."""
        p_embedding = trial.suggest_float("p_embedding", self.lowest_embedding, self.highest_embedding, log=True)
        if self.recipe.budget.objective == "latency":
            budget = replace(self.recipe.budget, p_embedding=p_embedding)
        else:
            budget = self.budget(p_embedding, trial.suggest_float("factorisation_share", 0.0, 1.0))
        return replace(self.recipe, budget=budget)

    def budget(self, p_embedding: float, factorisation_share: float) -> BudgetRecipe:
        """The split at one point; the embeddings are factorised in the same proportion as in the base recipe."""
        p_svd = min(1.0, self._encoder(p_embedding) / self.counts.encoder) ** factorisation_share
        base = self.recipe.budget
        exponent = math.log(base.p_embedding_svd) / math.log(base.p_embedding) if base.p_embedding < 1 else 1.0
        return replace(
            base,
            p_embedding=p_embedding,
            p_embedding_svd=p_embedding**exponent,
            p_svd=1.0 if p_svd > NO_FACTORS else p_svd,
        )

    def describe(self, recipe: Recipe) -> str:
        """The split in the paper's terms."""
        budget = recipe.budget
        hybrid = self._encoder(budget.p_embedding) / self.counts.encoder
        if budget.objective == "latency":
            return f"P_embd {budget.p_embedding:.3f}, P_svd {hybrid:.3f}"
        return f"P_embd {budget.p_embedding:.3f}, P_svd {budget.p_svd:.3f}, P_weight {hybrid / budget.p_svd:.3f}"

    def _encoder(self, p_embedding: float) -> float:
        """The encoder's parameters that the ratio leaves beside the embeddings."""
        counts = self.counts
        matrices = self.teacher_parameters / self.recipe.budget.ratio - counts.left_alone
        return matrices - p_embedding * counts.embedding


@dataclass(frozen=True)
class Shapes:
    """The students that answer within a time: how many layers, heads and neurons, and as many ranks as the time allows.

    Fewer of one leave time for more of the others: what of the four is worth its time is what the search finds out.
    """

    teacher: BertConfig
    recipe: Recipe
    fill: Callable[[Recipe], Recipe]  # the recipe with the smallest ratio that answers within the time

    def draw(self, trial: Trial) -> Recipe:
        """The recipe with the shape that the trial chooses, and the ratio that goes with it.

        Raises:
            RecipeError: a student of that shape takes longer, however low its ranks are.
        """
        config = self.teacher
        counts = config.num_hidden_layers, config.num_attention_heads
        layers, heads = (
            trial.suggest_int(name, max(1, math.ceil(least * count)), count) / count
            for name, least, count in zip(("layers", "heads"), (LEAST_LAYERS, LEAST_HEADS), counts, strict=True)
        )
        blocks = max(1, config.intermediate_size // NEURONS_AT_ONCE)
        kept = trial.suggest_int("neuron_blocks", max(1, round(LEAST_NEURONS * blocks)), blocks, log=True)
        structure = replace(self.recipe.structure, layers=layers, heads=heads, neurons=kept / blocks)
        return self.fill(replace(self.recipe, structure=structure))

    def describe(self, recipe: Recipe) -> str:
        """The shape in numbers."""
        config, structure = self.teacher, recipe.structure
        layers = len(layers_kept(config.num_hidden_layers, structure))
        heads = heads_kept(config.num_attention_heads, structure)
        neurons = neurons_kept(config.intermediate_size, structure)
        return f"{layers} layers, {heads} heads, {neurons} neurons, ×{recipe.budget.ratio:.2f}"
