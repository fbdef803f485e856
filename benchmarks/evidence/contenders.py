"""What is compared, and the recipe of each: in the order in which it is run, the most telling first.

Every contender of a ratio has the same teacher, rows, batches, steps and optimiser settings (``[training]`` of that
ratio's ``best-x*``); the schedule's proportions come from its own recipe. As that learning rate was chosen
for LadaBERT, the plain recipe and the three ablations are run a second time at the plain recipe's own, lower one
(``…-own-rate``), and the better of the two on dev counts.

LadaBERT            ``best-x*``
plain LadaBERT      ``ladabert-*``: the paper's factors, masks and schedule
hybrid              the same without distillation: cross-entropy on the labels alone
pruning only        masks by magnitude alone, on the labels
factorisation only  plain SVD alone, on the labels
from scratch        a fresh smaller BERT with TinyBERT's losses (:mod:`benchmarks.evidence.scratch`)

The paper trains its three ablations without distillation, so these have none either. All three have plain
LadaBERT's P_embd: it gives the embeddings about the same share as equation 7 then leaves the encoder, which no single
method has a reason to leave. ``distilled`` variants of the two single methods say what distillation alone brings.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ladabert_compress.recipe import BudgetRecipe, Recipe, ScheduleRecipe, load_recipe

Kind = Literal["distilled", "labels", "scratch"]
PLAIN = {2.5: "ladabert-1", 5.0: "ladabert-2", 7.5: "ladabert-3", 10.0: "ladabert-4"}
CURVE_RATIO = 7.5  # LadaBERT-3's, as in the paper's figures 3 and 4
RATIO_ORDER = (10.0, 5.0, 7.5, 2.5)
ABLATION_RATIO = 10.0
CURVE_EVALUATIONS = 20
LONG_SCRATCH = 10  # times the steps of the others

TITLES = {
    "ladabert": "LadaBERT",
    "plain": "LadaBERT, plain recipe",
    "hybrid": "hybrid, no distillation",
    "pruning": "pruning only",
    "factorisation": "factorisation only",
    "scratch": "from scratch",
    "scratch-long": f"from scratch, {LONG_SCRATCH} times the steps",
    "pruning-distilled": "pruning only, distilled",
    "factorisation-distilled": "factorisation only, distilled",
    "no-frequency": "without `embedding_frequency_power`",
    "plain-factors": '`error = "weights"`',
    "magnitude": '`score = "magnitude"`',
    "plain-split": "`ladabert-4`'s `[budget]`",
    "plain-schedule": "`ladabert-4`'s `[schedule]` and learning rate",
}
OWN_RATE = "-own-rate"
WITH_OWN_RATE = ("plain", "hybrid", "pruning", "factorisation")
BASELINES = ("hybrid", "pruning", "factorisation", "scratch")
ABLATIONS = ("no-frequency", "plain-factors", "magnitude", "plain-split", "plain-schedule")


@dataclass(frozen=True)
class Run:
    """One student to be trained."""

    contender: str
    kind: Kind
    recipe: Recipe
    steps: int
    evaluate_every: int

    @property
    def name(self) -> str:
        """The run's file name, and what ``--only`` matches."""
        return f"{self.contender}-x{self.recipe.budget.ratio:g}-seed{self.recipe.training.seed}"

    def settings(self) -> dict[str, Any]:
        """Everything that the result depends on, beside teacher and rows."""
        return asdict(self)


def all_runs(steps: int, seeds: int) -> list[Run]:
    """Every run, the most telling first."""
    return [run for seed in range(seeds) for run in _runs_of(steps, seed)]


def _runs_of(steps: int, seed: int) -> list[Run]:
    main = ("ladabert", "pruning", "factorisation", "hybrid", "plain", *(name + OWN_RATE for name in WITH_OWN_RATE))
    runs = [_run(name, ratio, steps, seed) for ratio in RATIO_ORDER[:2] for name in main]
    runs += [_run(name, CURVE_RATIO, steps, seed) for name in ("ladabert", "plain", "scratch-long")]
    runs += [_run(name, ABLATION_RATIO, steps, seed) for name in ("scratch", *ABLATIONS)]
    runs += [_run(name, ratio, steps, seed) for ratio in RATIO_ORDER for name in (*main, "scratch")]
    runs += [_run(f"{name}-distilled", ABLATION_RATIO, steps, seed) for name in ("pruning", "factorisation")]
    return list({run.name: run for run in runs}.values())


def _run(contender: str, ratio: float, steps: int, seed: int) -> Run:
    best = load_recipe(f"best-x{ratio:g}")
    plain = load_recipe(PLAIN[ratio])
    training = replace(best.training, seed=seed)
    even = plain.budget.p_embedding
    kind: Kind = "distilled"
    if contender.endswith(OWN_RATE):
        training = replace(training, learning_rate=plain.training.learning_rate)
    base = contender.removesuffix(OWN_RATE)
    match base:
        case "ladabert" | "scratch" | "scratch-long":
            recipe = best
        case "plain" | "hybrid":
            recipe = plain
        case "pruning" | "pruning-distilled":
            recipe = replace(plain, budget=BudgetRecipe(ratio=ratio, p_embedding=even))
        case "factorisation" | "factorisation-distilled":
            # The objective that spends everything on ranks.
            recipe = replace(plain, budget=BudgetRecipe(ratio=ratio, p_embedding=even, objective="latency"))
        case "no-frequency":
            recipe = replace(best, pruning=replace(best.pruning, embedding_frequency_power=0.0))
        case "plain-factors":
            recipe = replace(best, factorisation=plain.factorisation)
        case "magnitude":
            recipe = replace(best, pruning=replace(best.pruning, score="magnitude"))
        case "plain-split":
            recipe = replace(best, budget=plain.budget)
        case "plain-schedule":
            recipe = replace(best, schedule=plain.schedule)
            training = replace(training, learning_rate=plain.training.learning_rate)
        case _:
            raise AssertionError(contender)
    if base in ("hybrid", "pruning", "factorisation"):
        kind = "labels"
    elif contender.startswith("scratch"):
        kind = "scratch"
    length = LONG_SCRATCH * steps if contender == "scratch-long" else steps
    on_curve = ratio == CURVE_RATIO and contender in ("ladabert", "plain", "scratch-long")
    every = max(1, steps // CURVE_EVALUATIONS) if on_curve else length
    return Run(contender, kind, replace(recipe, training=training), length, every)


def in_steps(schedule: ScheduleRecipe, steps: int, epoch_steps: int) -> ScheduleRecipe:
    """The schedule with its proportions, squeezed or stretched to exactly this many steps."""
    iteration = max(1, round(steps * schedule.epochs_per_iteration / schedule.total_epochs))
    final = steps - (schedule.iterations - 1) * iteration
    return replace(
        schedule, epochs_per_iteration=iteration / epoch_steps, final_epochs=final / epoch_steps, min_steps=0
    )
