"""The settings of a ``compress`` run, read from TOML: a file, or one of those that are part of this package."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ladabert_compress.errors import RecipeError

STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True)  # a field's docstring is its description
KINDS: dict[str, type[Any]] = {"integer": int, "number": float, "string": str}
BUNDLED = resources.files(__package__) / "recipes"
# What a run takes that names no recipe: for a size, or for a time.
DEFAULT, DEFAULT_FOR_LATENCY, SIZES = "best-x5", "latency-x4.7", "best-x"
Share = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, config=STRICT)
class BudgetRecipe:
    """Equation 7: which share of the teacher's parameters stays, and where; P_weight follows from these."""

    ratio: Annotated[float, Field(gt=1)]
    """Teacher parameters over the student's non-zero parameters, 1/P."""
    p_embedding: Share
    """P_embd: share kept of the embedding matrices."""
    p_embedding_svd: Share = 1.0
    """Share of the embedding matrices after factorisation; masks do the rest. 1: no factors."""
    p_svd: Share = 1.0
    """P_svd: share of the encoder matrices after factorisation; masks do the rest. 1: no factors."""
    objective: Literal["size", "latency"] = "size"
    """size: ranks and masks, as the paper; latency: ranks alone, P_svd follows from the ratio."""


@dataclass(frozen=True, config=STRICT)
class FactorisationRecipe:
    """Which error the factors make smallest; the defaults are the paper's plain SVD at one share of every matrix."""

    error: Literal["weights", "outputs"] = "weights"
    """What the encoder's factors keep best: weights is plain SVD, outputs looks at the inputs."""
    ranks: Literal["equal", "sensitivity"] = "equal"
    """equal: p_svd of every matrix; sensitivity: p_svd in all, where it saves most error."""


@dataclass(frozen=True, config=STRICT)
class StructureRecipe:
    """The student's shape beside its ranks; the defaults are the teacher's own."""

    layers: Share = 1.0
    """Share of the layers that stay: evenly spread, the last one among them. Each learns from the teacher's layer that
    it was copied from."""
    heads: Share = 1.0
    """Share of every layer's attention heads that stay; the others are taken out whole."""
    neurons: Share = 1.0
    """Share of every layer's feed-forward neurons that stay; the others are taken out whole."""
    activation: Literal["teacher", "gelu", "relu"] = "teacher"
    """Function of the feed-forward blocks. relu costs int8 graphs no time, gelu up to a quarter."""
    rank_multiple: Annotated[int, Field(ge=1)] = 1
    """For latency, every rank is a multiple of this; kernels work on 16 numbers at a time."""


@dataclass(frozen=True, config=STRICT)
class PruningRecipe:
    """What the masks keep, and which of the two factors of W = A·Bᵀ is pruned more; the paper leaves both open."""

    score: Literal["magnitude", "fisher"] = "magnitude"
    """Encoder masks keep the largest |w| of each factor, or the largest w²·E[g²] of all factors."""
    embedding_frequency_power: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Rows weigh (1 + times seen in train)^this in the embeddings' SVD and masks."""
    encoder_right_over_left: Positive = 1.0
    """Kept share of B over kept share of A, encoder matrices under score = magnitude."""
    embedding_right_over_left: Positive = 100.0
    """The same for embeddings, where B is small and every token needs all of it; read while embedding_frequency_power
    is 0."""


@dataclass(frozen=True, config=STRICT)
class ScheduleRecipe:
    """Section 3.1: shrink by a constant share, distil, repeat."""

    iterations: Annotated[int, Field(ge=1)]
    """Times the student is shrunk; the share that may be kept falls by P^(1/iterations) each."""
    factorise_iterations: Annotated[int, Field(ge=1)]
    """Iterations in which ranks fall to their target; later ones only tighten the masks."""
    epochs_per_iteration: Positive
    """Passes over the training rows after each shrink but the last."""
    final_epochs: Positive
    """Passes over the training rows after the last shrink."""
    min_steps: Annotated[int, Field(ge=0)] = 0
    """Steps in all, at least: few training rows are passed over more often."""

    @property
    def total_epochs(self) -> float:
        """Passes over the training rows in the whole run."""
        return (self.iterations - 1) * self.epochs_per_iteration + self.final_epochs


@dataclass(frozen=True, config=STRICT)
class TrainingConfig:
    """How to train; shares are shares of all steps, the learning rate is the peak of a trapezoid."""

    batch_size: Annotated[int, Field(ge=1)] = 32
    """Rows a step."""
    tokens_at_once: Annotated[int, Field(ge=1)] = 2048
    """Tokens, padding included, that a step computes at once. A larger batch is computed in parts whose gradients add
    up; this bounds the memory."""
    learning_rate: Positive = 2e-5
    """Peak learning rate of AdamW."""
    warmup_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the steps with a rising rate."""
    decay_share: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Share of the steps with a falling rate."""
    weight_decay: Weight = 0.01
    """AdamW's decay of matrices."""
    max_gradient_norm: Positive = 1.0
    """Longer gradients are scaled down to this."""
    max_length: Annotated[int, Field(ge=3)] = 128
    """Tokens a row, special tokens included; the student's limit."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto, fp32 or bf16; auto: bf16 where native."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Fixes every random choice."""


@dataclass(frozen=True, config=STRICT)
class DistillationRecipe:
    """Equations 8 and 9; the paper does not weight the four terms."""

    temperature: Positive = 1.0
    """Softens both logits before the cross-entropy."""
    embedding_weight: Weight = 1.0
    """Weight of the embedding output's MSE."""
    attention_weight: Weight = 1.0
    """Weight of the attention probabilities' MSE."""
    hidden_weight: Weight = 1.0
    """Weight of the layer outputs' MSE."""
    prediction_weight: Weight = 1.0
    """Weight of the logits' soft cross-entropy."""
    relation_weight: Weight = 0.0
    """Weight of the divergence of the last layer's relations between tokens, by query, key and value (MiniLMv2)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The student's dropout; the teacher has none."""


@dataclass(frozen=True, config=STRICT)
class AugmentRecipe:
    """Rows that are made of the training rows; the teacher labels them as it does all others."""

    joined_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the rows that get one or two others appended, drawn anew in each pass. Longer rows make slower steps.
    `search` ignores it."""
    replaced_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the single-token words that are replaced by near ones in the teacher's word embeddings, drawn anew in
    each pass. `search` ignores it."""


@dataclass(frozen=True, config=STRICT)
class ExportRecipe:
    """What is written and when it is refused."""

    int8_metric: Literal["auto", "accuracy", "macro_f1", "matthews", "pearson", "spearman"] = "auto"
    """What int8 may lose: accuracy, or where labels are rare, macro_f1 or matthews; of a regression's scores pearson
    or spearman. auto: accuracy or pearson."""
    int8_accuracy_loss: Annotated[float, Field(ge=0, le=1)] = 0.003
    """How much of the metric int8 may lose against fp32. It is refused if it loses over 1.6 standard errors more.
    Measured on held-out rows of train, against their labels or, where they have none, the teacher's."""
    int8_logit_error: Annotated[float, Field(ge=0)] = 0.02
    """Largest error of int8's logits on held-out rows, over the logits' own size. Matrix products that cause more stay
    in fp32."""
    int8_weight_bits: Literal[7, 8] = 8
    """Bits of int8 weights; with 7, x86 processors without VNNI compute exactly in every server, for some accuracy."""
    int8_divergence: Weight = 0.01
    """How much KL divergence from the teacher's scores, in nats, int8 may add to fp32's on held-out rows without
    labels, by the same test."""


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """One student; the manifest repeats it whole."""

    budget: BudgetRecipe
    schedule: ScheduleRecipe
    training: TrainingConfig
    structure: StructureRecipe = StructureRecipe()
    factorisation: FactorisationRecipe = FactorisationRecipe()
    pruning: PruningRecipe = PruningRecipe()
    distillation: DistillationRecipe = DistillationRecipe()
    augment: AugmentRecipe = AugmentRecipe()
    export: ExportRecipe = ExportRecipe()

    def with_total_epochs(self, epochs: float) -> Recipe:
        """The same recipe with exactly this many passes over the training rows in all, shared out as before."""
        factor = epochs / self.schedule.total_epochs
        schedule = replace(
            self.schedule,
            epochs_per_iteration=factor * self.schedule.epochs_per_iteration,
            final_epochs=factor * self.schedule.final_epochs,
            min_steps=0,
        )
        return replace(self, schedule=schedule)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in the TOML file."""
        return asdict(self)


def bundled_recipes() -> tuple[str, ...]:
    """The names of the recipes that are part of this package, in the order of their numbers."""
    names = (file.name.removesuffix(".toml") for file in BUNDLED.iterdir() if file.name.endswith(".toml"))
    return tuple(sorted(names, key=lambda name: (name.rpartition("-")[0], float(name.rpartition("-")[2].lstrip("x")))))


def default_recipe(ratio: float | None = None, target_latency_ms: float | None = None) -> str:
    """The name of the recipe of a run that names none: the one made for the nearest ratio, or for a time."""
    if target_latency_ms is not None:
        return DEFAULT_FOR_LATENCY
    if ratio is None or ratio <= 0:
        return DEFAULT
    sizes = [name for name in bundled_recipes() if name.startswith(SIZES)]
    return min(sizes, key=lambda name: abs(math.log(float(name.removeprefix(SIZES)) / ratio)))


def load_recipe(path: Path | str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Reads a recipe and puts ``overrides`` (``section.field`` to value) in the place of what it says.

    Args:
        path: a file, or the name of a bundled recipe; ``./NAME`` is always a file.
        overrides: what to change.

    Raises:
        RecipeError: the file is missing or not TOML, a key is unknown, or a value is out of range.
    """
    is_bundled = str(path) in bundled_recipes()
    try:
        file = BUNDLED / f"{path}.toml" if is_bundled else Path(path)
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        known = ", ".join(bundled_recipes())
        raise RecipeError(f"{path}: {error.strerror}; name a file or one of {known}") from error
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not TOML: {error}") from error
    for name, value in (overrides or {}).items():
        section, _, key = name.partition(".")
        values.setdefault(section, {})[key] = value
    try:
        recipe = TypeAdapter(Recipe).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"{path}: {where}: {first['msg']}") from error
    if recipe.budget.objective == "latency" and (recipe.budget.p_svd, recipe.budget.p_embedding_svd) != (1.0, 1.0):
        raise RecipeError(f"{path}: budget.p_svd and budget.p_embedding_svd: leave them out with objective = latency")
    if recipe.budget.objective != "latency" and recipe.structure.rank_multiple > 1:
        raise RecipeError(f"{path}: structure.rank_multiple: leave it out with objective = size, where masks follow")
    for name, share, whole in (
        ("budget.p_embedding", recipe.budget.p_embedding, recipe.budget.p_embedding_svd),
        ("schedule.factorise_iterations", recipe.schedule.factorise_iterations, recipe.schedule.iterations),
    ):
        if share > whole:
            raise RecipeError(f"{path}: {name}: {share:g} is over its limit of {whole:g}")
    for key, reason in _unread_keys(recipe):
        if getattr(recipe.pruning, key) != getattr(PruningRecipe(), key):
            raise RecipeError(f"{path}: pruning.{key}: nothing reads it with {reason}; leave it out")
    return recipe


def to_toml(recipe: Recipe) -> str:
    """The recipe as a file that :func:`load_recipe` reads."""
    sections = (
        [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        for section, values in recipe.to_dict().items()
    )
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _unread_keys(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """The keys of ``pruning`` that change nothing in this recipe, and why."""
    pruning = recipe.pruning
    if recipe.budget.objective == "latency":
        keys = ("score", "encoder_right_over_left", "embedding_right_over_left")
        yield from ((key, "budget.objective = latency") for key in keys)
    if pruning.score == "fisher":
        yield "encoder_right_over_left", "pruning.score = fisher"
    if pruning.embedding_frequency_power > 0:
        yield "embedding_right_over_left", "pruning.embedding_frequency_power over 0"


def recipe_fields() -> list[tuple[str, type[Any], str]]:
    """Every ``section.field`` with its type and description, for the command line and the docs."""
    return [(name, KINDS[entry["type"]], " ".join(entry["description"].split())) for name, entry in _schema().items()]


def recipe_choices(name: str) -> tuple[str, ...] | None:
    """What ``section.field`` may be, where that is one of a few words."""
    return tuple(_schema()[name]["enum"]) if "enum" in _schema()[name] else None


@cache
def _schema() -> dict[str, dict[str, Any]]:
    return {
        f"{section}.{name}": entry
        for section, kind in get_type_hints(Recipe).items()
        for name, entry in TypeAdapter(kind).json_schema()["properties"].items()
    }
