"""``ladabert-compress plan``: what each recipe would make of a teacher, measured on students that learnt nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import BertForSequenceClassification

from ladabert_compress.artefact.stored_file import packed_if_smaller
from ladabert_compress.data.batches import EncodedTexts, training_batches
from ladabert_compress.data.labels import no_targets
from ladabert_compress.data.texts import Texts
from ladabert_compress.errors import RecipeError
from ladabert_compress.measure.machine import machine_name
from ladabert_compress.measure.timing import timed_shape
from ladabert_compress.recipe import Recipe, default_recipe, load_recipe
from ladabert_compress.search.latency import fastest_graph
from ladabert_compress.student.budget import solve_shares
from ladabert_compress.student.masks import draw_masks
from ladabert_compress.student.matrices import count_parameters
from ladabert_compress.student.moments import count_embedding_rows, narrow_and_observe
from ladabert_compress.student.structure import Shaped, narrow, set_activation
from ladabert_compress.student.student import Student
from ladabert_compress.teacher.folder import PROBLEM_TYPES, Teacher
from ladabert_compress.training.distillation import LadaBertLearner, Timetable
from ladabert_compress.training.loop import add_gradients, make_optimiser, set_dropout, steps_per_epoch
from ladabert_compress.training.rows import CALIBRATION_ROWS, augmented_rows, encode_unlabelled

TIMED_ROWS = 4000  # of which batches are cut, to time some of them
TEACHER = "teacher"
# Of training rows that nobody has shown: tokens in all and in a row; SST-2 has 0.9 million in rows of 13.
USUAL_TOKENS, USUAL_LENGTH, COMMON_WORDS = 1_000_000, 20, 5000

# Milliseconds of the graph of a model that the export would choose, and the graph.
MakeGraph = Callable[[BertForSequenceClassification, str, int, str], tuple[float, bytes]]


@dataclass(frozen=True)
class Planned:
    """What a recipe would make: four numbers, each apart, and the time that its training takes."""

    recipe: str
    ratio: float
    parameters: int
    nonzero_parameters: int
    stored_bytes: int
    median_ms: float
    steps: int | None = None
    training_s: float | None = None
    objective: str = "size"

    @property
    def distance(self) -> tuple[bool, float]:
        """How far from its teacher: students for latency answer less like it, and each more so at a larger ratio."""
        return self.objective == "latency", self.ratio


@dataclass(frozen=True)
class Plan:
    """The teacher, as int8 as well, and the students of the recipes that it can be compressed with."""

    family: str
    parameters: int
    labels: int
    tokens: int
    machine: str
    teacher: Planned
    students: tuple[Planned, ...]
    refused: Mapping[str, str]


def plan(
    teacher: Teacher,
    recipes: Sequence[str],
    rows: Texts | None,
    *,
    device: torch.device,
    task: str = "single",
    make_graph: MakeGraph = fastest_graph,
    clock: Callable[[], float] = time.perf_counter,
) -> Plan:
    """Makes a student of random weights by each recipe, and measures it on this machine.

    Args:
        teacher: its shapes are read.
        recipes: names or files.
        rows: to train on; without them nothing is said of the time, and the masks take usual counts of words.
        device: to train on.
        task: ``single`` or ``pair``.
        make_graph: takes a model, the task, tokens and a precision.
        clock: seconds.

    Raises:
        RecipeError: a recipe cannot be read, or none can be met on this teacher.
    """
    model, positions = teacher.model.eval(), teacher.model.config.max_position_embeddings

    @cache
    def encoded(max_length: int) -> EncodedTexts:
        assert rows is not None
        return encode_unlabelled(teacher, rows, max_length)

    students: list[Planned] = []
    refused: dict[str, str] = {}
    for name in tqdm(recipes, desc="plan", unit="recipe"):
        recipe = load_recipe(name)
        max_length = min(positions, recipe.training.max_length)
        data = None if rows is None else encoded(max_length)
        try:
            student, shaped = random_student(model, recipe, data)
        except RecipeError as error:
            refused[name] = str(error)
            continue
        median_ms, graph = make_graph(student.model, task, max_length, "int8")
        steps, training_s = None, None
        if data is not None:
            epoch_steps = steps_per_epoch(_rows_left(len(data)), recipe.training.batch_size)
            steps = Timetable.of(recipe.schedule, epoch_steps).total_steps
            learner = _Rehearsal(model, student, shaped, recipe)
            assert rows is not None
            augmented = augmented_rows(teacher, recipe, rows)
            timed = (data if augmented is None else augmented(0)).sample(TIMED_ROWS)
            training_s = steps * step_seconds(learner, timed, device, clock)
        size = student.size()
        students.append(
            Planned(
                name,
                student.ratio(),
                size.parameters,
                size.nonzero_parameters,
                len(packed_if_smaller(graph)),
                median_ms,
                steps,
                training_s,
                recipe.budget.objective,
            )
        )
    if not students:
        raise RecipeError("; ".join(refused.values()))
    longest = min(positions, 128)
    median_ms, graph = make_graph(model, task, longest, "int8")
    total = count_parameters(model).total
    itself = Planned(TEACHER, 1.0, total, total, len(packed_if_smaller(graph)), median_ms)
    family, tokens = str(model.config.model_type), timed_shape(longest)[1]
    return Plan(family, total, len(teacher.labels), tokens, machine_name(), itself, tuple(students), refused)


def random_student(
    model: BertForSequenceClassification, recipe: Recipe, rows: EncodedTexts | None
) -> tuple[Student, Shaped]:
    """A student of the recipe's size whose weights are random, and its shape; ranks and masks are as a run has them.

    Raises:
        RecipeError: the budget cannot be met.
    """
    rows = usual_rows(model) if rows is None else rows
    parameters = count_parameters(model).total
    energies: dict[str, Tensor] = {}
    if recipe.factorisation.ranks == "sensitivity":
        narrowed, statistics = narrow_and_observe(model, rows, recipe)
        energies = statistics.energies
    else:
        narrowed = narrow(model, recipe.structure)
    shaped = narrowed.model
    set_activation(shaped, recipe.structure)
    set_dropout(shaped, recipe.distillation.dropout)
    shares = solve_shares(count_parameters(shaped), recipe.budget, parameters)
    student = Student(shaped, teacher_parameters=parameters)
    student.cut_at_random(shares, recipe.structure.rank_multiple, energies)
    if recipe.budget.objective == "size":
        power = recipe.pruning.embedding_frequency_power
        counts = count_embedding_rows(model, rows) if power else {}
        weights = {name: (1.0 + count).pow(power) for name, count in counts.items()}
        draw_masks(shaped, student.matrices, shares, recipe.pruning, weights, {})
    return student, narrowed


def usual_rows(model: BertForSequenceClassification) -> EncodedTexts:
    """A million tokens in the place of rows that nobody has shown: what they teach is of no use, but they are as many.

    Words follow Zipf's law with exponent 1 for the common ones and 2 for the others (Ferrer i Cancho & Solé 2001), and
    lengths of texts a geometric distribution.
    """
    config, generator = model.config, np.random.default_rng(0)
    lengths = generator.geometric(1 / USUAL_LENGTH, USUAL_TOKENS // USUAL_LENGTH)
    lengths = lengths.clip(max=config.max_position_embeddings)
    bounds = np.concatenate([[0], lengths.cumsum()])
    ranks = np.arange(1, config.vocab_size + 1)
    shares = 1.0 / (ranks * (ranks / COMMON_WORDS).clip(min=1))
    words = generator.choice(config.vocab_size, bounds[-1], p=shares / shares.sum())
    problem_type = PROBLEM_TYPES.get(str(config.problem_type), "single_label")
    labels = no_targets(len(lengths), tuple(map(str, config.id2label or ())), problem_type)
    return EncodedTexts(words.astype(np.int32), np.zeros(len(words), dtype=np.int8), bounds, labels, 0)


class _Rehearsal(LadaBertLearner):
    """The learner of a student that has its final size and learns nothing of use."""

    def __init__(
        self, teacher: BertForSequenceClassification, student: Student, shaped: Shaped, recipe: Recipe
    ) -> None:
        self.teacher, self.student, self.recipe = teacher, student, recipe
        self.layers, self.heads = shaped.layers, shaped.heads
        self.module = student.model


def step_seconds(
    learner: LadaBertLearner, rows: EncodedTexts, device: torch.device, clock: Callable[[], float]
) -> float:
    """The mean seconds of a training step: three after a first are timed, by their padded tokens."""
    training = learner.recipe.training
    for model in (learner.teacher, learner.module):
        model.to(device)  # type: ignore[arg-type]
    optimiser = make_optimiser(learner.module, training)
    batches = training_batches(rows, training.batch_size, seed=training.seed, epoch=0)
    batches.sort(key=lambda batch: _tokens(rows, batch))
    middle, *quarters = (batches[len(batches) * part // 4] for part in (2, 1, 2, 3))
    learner.module.train()
    taken = []
    for batch in (middle, *quarters):
        start = clock()
        _step(learner, optimiser, rows, batch, device)
        taken.append(clock() - start)
    learner.teacher.cpu()
    per_token = statistics.median(s / _tokens(rows, batch) for s, batch in zip(taken[1:], quarters, strict=True))
    return per_token * statistics.fmean(_tokens(rows, batch) for batch in batches)


def _step(
    learner: LadaBertLearner,
    optimiser: torch.optim.Optimizer,
    rows: EncodedTexts,
    batch: list[int],
    device: torch.device,
) -> None:
    training = learner.recipe.training
    add_gradients(learner, rows, batch, training, device)
    nn.utils.clip_grad_norm_(learner.module.parameters(), training.max_gradient_norm)
    optimiser.step()
    optimiser.zero_grad()
    learner.after_update()
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _tokens(rows: EncodedTexts, batch: list[int]) -> int:
    return len(batch) * int(rows.lengths[batch].max())


def _rows_left(rows: int) -> int:
    """Rows that a run trains on, after some are held out for the temperature."""
    return rows - min(CALIBRATION_ROWS, rows // 10)


def recommend(students: Sequence[Planned], max_bytes: float | None, max_ms: float | None) -> Planned | None:
    """The student to take: the default without limits, else the nearest to its teacher within them, if any."""
    by_name = {student.recipe: student for student in students}
    if max_bytes is None and max_ms is None and default_recipe() in by_name:
        return by_name[default_recipe()]
    within = (
        student
        for student in students
        if (max_bytes is None or student.stored_bytes <= max_bytes) and (max_ms is None or student.median_ms <= max_ms)
    )
    return min(within, key=lambda student: student.distance, default=None)


def format_plan(found: Plan) -> str:
    """The plan as text."""
    lines = [
        f"{found.family}, {found.parameters:,} parameters, {found.labels} labels; "
        f"ms: one text of {found.tokens} tokens, int8, one thread, {found.machine}",
        f"{'recipe':<14}{'ratio':>7}{'parameters':>13}{'non-zeros':>13}{'bytes':>13}{'ms':>9}{'steps':>8}  training",
    ]
    lines += [_row(planned) for planned in (found.teacher, *found.students)]
    lines += [f"{name}: {reason}" for name, reason in found.refused.items()]
    lines += _hints(found)
    return "\n".join(lines)


def _row(planned: Planned) -> str:
    steps = "" if planned.steps is None else f"{planned.steps:,}"
    return (
        f"{planned.recipe:<14}{f'×{planned.ratio:.2f}':>7}{planned.parameters:>13,}{planned.nonzero_parameters:>13,}"
        f"{planned.stored_bytes:>13,}{planned.median_ms:>9.2f}{steps:>8}  {duration(planned.training_s)}"
    ).rstrip()


def _hints(found: Plan) -> Iterator[str]:
    students = found.students
    nearest, smallest, fastest = (
        min(students, key=key).recipe
        for key in (lambda one: one.distance, lambda one: one.stored_bytes, lambda one: one.median_ms)
    )
    yield f"nearest to the teacher: {nearest}; smallest: {smallest}; fastest: {fastest}"


def duration(seconds: float | None) -> str:
    """`2 h 05 min`, `7 min`, or nothing where it is not known."""
    if seconds is None:
        return ""
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def plan_to_dict(found: Plan, chosen: Planned | None) -> dict[str, Any]:
    """Plain values, for a file."""
    return {**asdict(found), "take": None if chosen is None else chosen.recipe}
