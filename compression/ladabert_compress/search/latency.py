"""Finds the largest student that answers within a time: untrained students are exported and timed."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm
from transformers import BertForSequenceClassification

from ladabert_compress.data.batches import EncodedTexts
from ladabert_compress.data.random_batches import random_batch
from ladabert_compress.errors import RecipeError
from ladabert_compress.files import write_text
from ladabert_compress.graph.candidates import candidate_graphs
from ladabert_compress.graph.int8_scales import measure_activation_ranges
from ladabert_compress.graph.session import OnnxSession
from ladabert_compress.measure.timing import TARGET_REPEATS, time_in_turns, timed_shape
from ladabert_compress.recipe import Recipe
from ladabert_compress.student.budget import ratio_at, solve_shares
from ladabert_compress.student.matrices import count_parameters, walk_matrices
from ladabert_compress.student.moments import narrow_and_observe
from ladabert_compress.student.ranks import least_share
from ladabert_compress.student.structure import narrow, set_activation
from ladabert_compress.student.student import Student

# The largest share that the encoder may keep, and how near to the largest that is fast enough the search comes.
LARGEST_SHARE, SHARE_STEP = 0.99, 0.005

Timer = Callable[[BertForSequenceClassification], float]


def largest_within(
    target_ms: float, teacher: BertForSequenceClassification, recipe: Recipe, data: EncodedTexts, timer: Timer
) -> Recipe:
    """The recipe with the smallest ratio whose student takes at most ``target_ms``, by bisection.

    Args:
        target_ms: the time allowed, as ``timer`` measures it.
        teacher: its shapes are read, and its weights where they decide the ranks.
        recipe: the objective must be ``latency``; its ratio is replaced.
        data: the rows to train on, read under ``ranks = sensitivity``.
        timer: milliseconds of a student.

    Raises:
        RecipeError: the objective is another, or even the smallest student takes longer.
    """
    if recipe.budget.objective != "latency":
        raise RecipeError("--target-latency-ms: needs a recipe with budget.objective = latency")
    if recipe.factorisation.ranks == "sensitivity":
        narrowed, statistics = narrow_and_observe(teacher, data, recipe)
        shaped, energies = narrowed.model, statistics.energies
    else:
        shaped, energies = narrow(teacher, recipe.structure).model, {}
    set_activation(shaped, recipe.structure)
    counts, parameters = count_parameters(shaped), count_parameters(teacher).total
    encoder = [matrix for matrix, _ in walk_matrices(shaped) if matrix.group == "encoder"]
    multiple = recipe.structure.rank_multiple

    def recipe_at(share: float) -> Recipe:
        ratio = ratio_at(share, counts, recipe.budget, parameters)
        if ratio <= 1:
            raise RecipeError(f"budget.p_embedding: {recipe.budget.p_embedding:g} leaves nothing to compress")
        return replace(recipe, budget=replace(recipe.budget, ratio=ratio))

    def milliseconds(share: float) -> float:
        candidate = recipe_at(share)
        student = Student(copy.deepcopy(shaped))
        student.cut_at_random(solve_shares(counts, candidate.budget, parameters), multiple, energies)
        taken = timer(student.model)
        tqdm.write(f"×{candidate.budget.ratio:.2f}: {taken:.3f} ms")
        return taken

    low, high = least_share(encoder, multiple), LARGEST_SHARE
    if milliseconds(high) <= target_ms:
        return recipe_at(high)
    if (fastest := milliseconds(low)) > target_ms:
        raise RecipeError(
            f"--target-latency-ms: {target_ms:g} cannot be met: the smallest student takes {fastest:.3f} ms"
        )
    while high - low > SHARE_STEP:
        middle = (low + high) / 2
        if milliseconds(middle) <= target_ms:
            low = middle
        else:
            high = middle
    return recipe_at(low)


def onnx_timer(task: str, max_length: int, precision: str) -> Timer:
    """Times the graph that the export would choose."""
    return lambda model: fastest_graph(model, task, max_length, precision)[0]


def fastest_graph(
    model: BertForSequenceClassification, task: str, max_length: int, precision: str
) -> tuple[float, bytes]:
    """The fastest of the candidates of the export: its CPU time in ms, the median of 50 runs, and its content.

    On one thread of an idle machine they are those of the clock; on a shared one they hardly change. The fastest is
    timed once more by itself, as a server runs it: in turns, the others empty the processor's caches.
    """
    shape = timed_shape(max_length)
    batch = random_batch(model.config.vocab_size, shape)
    ranges = measure_activation_ranges(model, [batch]) if precision == "int8" else None
    candidates = candidate_graphs(model, task, ranges, "cpu", max_length).values()
    graphs = {str(index): graph.SerializeToString() for index, graph in enumerate(candidates)}
    sessions = {name: OnnxSession(graph) for name, graph in graphs.items()}
    timings = time_in_turns(sessions, [shape], repeats=TARGET_REPEATS, clock=time.thread_time)
    fastest = min(timings, key=lambda timing: timing.median_ms).name
    (alone,) = time_in_turns({fastest: sessions[fastest]}, [shape], repeats=TARGET_REPEATS, clock=time.thread_time)
    return alone.median_ms, graphs[fastest]


def find_ratio(
    target_ms: float,
    teacher: BertForSequenceClassification,
    recipe: Recipe,
    data: EncodedTexts,
    timer: Timer,
    file: Path,
    *,
    resume: bool,
) -> float:
    """The ratio of :func:`largest_within`; a resumed run takes it from ``file``, as measuring again would find another.

    Raises:
        RecipeError: the target cannot be met, or the file cannot be read.
    """
    if resume and file.is_file():
        try:
            return float(json.loads(file.read_text(encoding="utf-8"))["ratio"])
        except (ValueError, KeyError, TypeError) as error:
            raise RecipeError(f"{file}: cannot be read ({error}); delete it to measure anew") from error
    ratio = largest_within(target_ms, teacher, recipe, data, timer).budget.ratio
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({"ratio": ratio}) + "\n")
    return ratio
