"""How much there is to repair: the loss of students that were cut to their ratio at once and not trained."""

import statistics
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from ladabert_compress.data.batches import EncodedTexts, evaluation_batches
from ladabert_compress.recipe import Recipe, load_recipe
from ladabert_compress.teacher.folder import Teacher
from ladabert_compress.training.distillation import LadaBertLearner
from ladabert_compress.training.loop import make_optimiser

ROWS = 300
BATCH_SIZE = 25
SHORTEST = 14  # tokens with the special ones: sentences, not phrases

BY_MAGNITUDE = {"pruning.score": "magnitude"}
FREQUENCY = {"pruning.embedding_frequency_power": 0.75}
SMALLER_TABLES = {"budget.p_embedding": 0.06, "budget.p_embedding_svd": 0.5}
PLAIN_FACTORS = {"factorisation.error": "weights"}
EQUAL_RANKS = {"factorisation.ranks": "equal"}
VARIANTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("`ladabert-4`", "ladabert-4", {}),
    ("+ `embedding_frequency_power = 0.75`", "ladabert-4", FREQUENCY),
    ("+ `p_embedding = 0.06`, `p_embedding_svd = 0.5`", "ladabert-4", FREQUENCY | SMALLER_TABLES),
    ('`ladabert-4` + `error = "outputs"`', "ladabert-4", {"factorisation.error": "outputs"}),
    ("`best-x10`, masks by magnitude", "best-x10", BY_MAGNITUDE),
    (
        '`best-x10`, masks by magnitude, `ranks = "sensitivity"`',
        "best-x10",
        BY_MAGNITUDE | {"factorisation.ranks": "sensitivity"},
    ),
    ('`latency-x7`, `error = "weights"`, `ranks = "equal"`', "latency-x7", PLAIN_FACTORS | EQUAL_RANKS),
    ('`latency-x7`, `ranks = "equal"`', "latency-x7", EQUAL_RANKS),
    ("`latency-x7`", "latency-x7", {}),
)


@dataclass(frozen=True)
class CutRun:
    """One student to be cut."""

    number: int
    title: str
    recipe: Recipe

    @property
    def name(self) -> str:
        """The run's file name, and what ``--only`` matches."""
        return f"cut-{self.number}"

    def settings(self) -> dict[str, Any]:
        """Everything that the result depends on, beside teacher and rows."""
        return asdict(self)


def all_cuts() -> list[CutRun]:
    """Every row of the table, in its order."""
    return [
        CutRun(number, title, load_recipe(recipe, overrides))
        for number, (title, recipe, overrides) in enumerate(VARIANTS, start=1)
    ]


def losses_when_cut(run: CutRun, teacher: Teacher, data: EncodedTexts) -> dict[str, float]:
    """The four terms of equation 9 on rows of train, whose labels nothing here learns."""
    at_once = replace(run.recipe.schedule, iterations=1, factorise_iterations=1)
    learner = LadaBertLearner(teacher.model, replace(run.recipe, schedule=at_once), 1, data)
    learner.before_step(0, make_optimiser(learner.module, run.recipe.training))
    learner.module.eval()
    sentences = np.flatnonzero(data.lengths >= SHORTEST).tolist()
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randperm(len(sentences), generator=generator)[:ROWS].tolist()
    sums: dict[str, list[float]] = {}
    with torch.no_grad():
        for _, batch in evaluation_batches(data.select([sentences[index] for index in drawn]), BATCH_SIZE):
            for name, value in learner.losses(batch.to(learner.module.device)).items():
                sums.setdefault(name, []).append(value.item())
    return {name: statistics.fmean(values) for name, values in sums.items()}
